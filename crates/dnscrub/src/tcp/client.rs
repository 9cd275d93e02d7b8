//! A client's connection: reads queries, holds them back when there are enough, writes answers as
//! they come.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::clients::Prefix;
use super::framing::split;
use super::link::{Link, READ, Task, poll_read};
use super::{ROUNDS, now, turn};
use crate::config::runtime;
use crate::data_path::Origin;
use crate::pace;
use crate::worker::Worker;

/// Octets of answers waiting for a client at which no more of its queries are taken.
const ENOUGH_WAITING: usize = 256 << 10;
/// Octets of answers waiting for a client at which it is cut off. Queries in flight when
/// [`ENOUGH_WAITING`] is reached may still be answered.
pub(super) const TOO_MUCH_WAITING: usize = 1 << 20;
/// Octets waiting for a client below which a zone transfer hands over more.
pub(super) const TRANSFER_ROOM: usize = 64 << 10;
/// Memory that the outbox of a quiet connection keeps, in octets.
const OUTBOX_KEEPS: usize = 8 << 10;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    /// Where its queries come from.
    pub(super) origin: Origin,
    /// The prefix its address is in.
    pub(super) prefix: Prefix,
    /// Its place in the table of connections.
    pub(super) row: Cell<u32>,
    /// Its mark in the order of idle connections.
    pub(super) idle_stamp: Cell<u64>,
    /// Its task.
    pub(super) task: Task,
    /// Zone transfers wait here until it has taken what it got.
    pub(super) drained: Notify,
    /// What changes all the time.
    pub(super) state: RefCell<ClientState>,
    accepted: Instant,
}

/// The changing part of a client's connection.
#[derive(Debug)]
pub(super) struct ClientState {
    /// Its socket and octets; the socket is gone when the connection is closed.
    pub(super) link: Link,
    /// Queries and transfers without an answer.
    pub(super) in_flight: usize,
    /// Its output is to be written at the end of the round.
    pub(super) touched: bool,
    /// The client has closed its side: what it asked is still answered.
    ended: bool,
    /// Nothing is read any more; the connection ends with what is in flight.
    closing: bool,
    /// Input is held back until answers are out.
    held_back: bool,
    /// Since when nothing is in flight.
    idle_since: Instant,
    /// When the first octet of the message came that is not whole.
    partial_since: Option<Instant>,
    /// How far the client must have read, and since when.
    behind: Option<(u64, Instant)>,
}

/// What the limits ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// All is well.
    Kept,
    /// It has been open long enough: no more queries.
    Lifetime,
    /// It was idle too long.
    Idle,
    /// It sends or takes too slowly.
    TooSlow,
}

impl Client {
    /// A connection that was accepted now.
    pub(super) fn new(
        writer: OwnedWriteHalf,
        origin: Origin,
        prefix: Prefix,
        now: Instant,
    ) -> Self {
        Self {
            origin,
            prefix,
            row: Cell::new(u32::MAX),
            idle_stamp: Cell::new(0),
            task: Task::default(),
            drained: Notify::new(),
            state: RefCell::new(ClientState {
                link: Link::new(Some(writer), OUTBOX_KEEPS),
                in_flight: 0,
                touched: false,
                ended: false,
                closing: false,
                held_back: false,
                idle_since: now,
                partial_since: None,
                behind: None,
            }),
            accepted: now,
        }
    }

    /// Whether there is somebody to answer.
    pub(super) fn is_open(&self) -> bool {
        self.state.borrow().link.is_open()
    }

    /// Closes the socket; whether it was open.
    pub(super) fn close(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let was_open = state.link.is_open();
        state.link.close();
        self.idle_stamp.set(0);
        self.task.wake();
        self.drained.notify_waiters();
        was_open
    }

    /// Takes no more queries; the connection ends when nothing is in flight and everything is written.
    pub(super) fn wind_up(&self) {
        let mut state = self.state.borrow_mut();
        state.closing = true;
        state.link.inbox.clear();
        state.partial_since = None;
        self.task.wake();
    }

    /// Whether one more query may be taken.
    fn takes_more(&self, most_in_flight: usize) -> bool {
        let state = self.state.borrow();
        !state.closing
            && state.link.is_open()
            && state.in_flight < most_in_flight
            && state.link.outbox.len() < ENOUGH_WAITING
    }

    /// Whether the socket is to be read.
    fn wants_input(&self) -> bool {
        let state = self.state.borrow();
        state.link.is_open() && !state.closing && !state.ended && !state.held_back
    }

    /// A query of this client is in flight.
    pub(super) fn began(&self) {
        self.state.borrow_mut().in_flight += 1;
        self.idle_stamp.set(0);
    }

    /// A query of this client is no longer in flight; whether it was the last.
    pub(super) fn finished(&self, now: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.idle_since = now;
        state.in_flight == 0
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) fn flush(&self) -> std::io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.touched = false;
        state.link.flush()?;
        if state.link.outbox.len() < TRANSFER_ROOM {
            self.drained.notify_waiters();
        }
        // the task waits for room in the socket, takes what was held back, and ends what is over
        if state.link.blocked || state.held_back || state.ended || state.closing {
            self.task.wake();
        }
        Ok(())
    }

    /// Whether it has taken so much of what it got that a zone transfer may hand over more.
    pub(super) fn has_transfer_room(&self) -> bool {
        self.state.borrow().link.outbox.len() < TRANSFER_ROOM
    }

    /// Looks at the limits. What is only seen here: how long the client has not read.
    pub(super) fn check(&self, limits: &runtime::Tcp, now: Instant) -> Limit {
        let mut state = self.state.borrow_mut();
        let over = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if state.link.outbox.is_empty() {
            state.behind = None;
        } else {
            let outbox = &state.link.outbox;
            match state.behind {
                Some((mark, since)) if outbox.taken() < mark => {
                    if over(since, limits.write_timeout) {
                        return Limit::TooSlow;
                    }
                }
                _ => state.behind = Some((outbox.put_in(), now)),
            }
        }
        if state
            .partial_since
            .is_some_and(|since| over(since, limits.receive_timeout))
        {
            return Limit::TooSlow;
        }
        let idle =
            state.in_flight == 0 && state.partial_since.is_none() && state.link.outbox.is_empty();
        if idle && over(state.idle_since, limits.idle_timeout) {
            return Limit::Idle;
        }
        if !state.closing && over(self.accepted, limits.connection_lifetime) {
            return Limit::Lifetime;
        }
        Limit::Kept
    }
}

impl ClientState {
    /// The client has closed its side. A message that is not whole will never be.
    const fn end(&mut self) {
        self.ended = true;
        self.partial_since = None;
    }

    /// Whether nothing more will come and nothing is left to do.
    fn is_over(&self) -> bool {
        let no_input = self.closing || (self.ended && split(self.link.inbox.held()).is_none());
        no_input && self.in_flight == 0 && self.link.outbox.is_empty()
    }
}

/// The connection's task: waits for readiness until the connection is closed.
pub(super) async fn serve(worker: Rc<Worker>, client: Rc<Client>, mut reader: OwnedReadHalf) {
    std::future::poll_fn(|cx| poll(&worker, &client, &mut reader, cx)).await;
    turn(&worker, now(), |turn| turn.close(&client));
}

/// Does what can be done; ready when the connection is over.
fn poll(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    reader: &mut OwnedReadHalf,
    cx: &mut Context<'_>,
) -> Poll<()> {
    client.task.is(cx);
    if !client.is_open() {
        return Poll::Ready(());
    }
    let flushed = client.state.borrow_mut().link.poll_flush(cx);
    match flushed {
        Poll::Ready(Ok(())) => {
            if client.has_transfer_room() {
                client.drained.notify_waiters();
            }
        }
        Poll::Ready(Err(_)) => return Poll::Ready(()),
        Poll::Pending => {}
    }
    if worker.is_stopping() && !client.state.borrow().closing {
        client.wind_up();
    }
    let held_back = std::mem::take(&mut client.state.borrow_mut().held_back);
    if held_back {
        take(worker, client, &[]);
    }
    let buffer = &mut *worker.tcp.scratch.borrow_mut();
    let mut reads = 0;
    while client.wants_input() {
        if reads == ROUNDS {
            cx.waker().wake_by_ref();
            break;
        }
        reads += 1;
        match poll_read(reader, buffer.get_mut(..READ).unwrap_or_default(), cx) {
            Poll::Pending => break,
            Poll::Ready(Ok(0)) => client.state.borrow_mut().end(),
            Poll::Ready(Ok(octets)) => {
                take(worker, client, buffer.get(..octets).unwrap_or_default())
            }
            Poll::Ready(Err(_)) => return Poll::Ready(()),
        }
    }
    if client.is_open() && !client.state.borrow().is_over() {
        Poll::Pending
    } else {
        Poll::Ready(())
    }
}

/// Takes the queries in `fresh`, behind those held back before.
fn take(worker: &Rc<Worker>, client: &Rc<Client>, fresh: &[u8]) {
    let now = now();
    let mut taken = 0;
    let mut inbox = std::mem::take(&mut client.state.borrow_mut().link.inbox);
    let mut used = 0;
    turn(worker, now, |turn| {
        let most_in_flight = turn.path.policy().tcp.max_queries_in_flight;
        inbox.feed(fresh, |octets| {
            let mut rest = octets;
            while client.takes_more(most_in_flight)
                && let Some((message, after)) = split(rest)
            {
                rest = after;
                taken += 1;
                turn.on_query(client, message);
            }
            used = octets.len() - rest.len();
            used
        });
    });
    pace::handled(taken, now);
    let mut state = client.state.borrow_mut();
    if !state.link.is_open() || state.closing {
        return;
    }
    let whole = split(inbox.held()).is_some();
    state.held_back = whole;
    state.partial_since = match state.partial_since {
        _ if whole || state.ended || inbox.held().is_empty() => None,
        Some(since) if used == 0 => Some(since),
        _ => Some(now),
    };
    state.link.inbox = inbox;
}
