//! Connections to upstreams: few, pipelined, reused while there is use for them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ahash::RandomState;
use dnscrub_forwarding::UpstreamIndex;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;

use super::framing::split;
use super::link::{Link, READ, Task, poll_read};
use super::{ROUNDS, now, turn};
use crate::outcome::Reason;
use crate::pace;
use crate::worker::Worker;

/// Queries without an answer on a connection at which another one is opened.
const BUSY: usize = 256;
/// Queries without an answer on a connection at which it takes no more.
const FULL: usize = 8_192;
/// Octets waiting to be written to an upstream at which its connection takes no more queries.
const ENOUGH_WAITING: usize = 4 << 20;
/// Connections of a worker to an upstream.
const CONNECTIONS: usize = 8;
/// The same for an upstream that closes its connections after a few answers.
const SHORT_CONNECTIONS: usize = 32;
/// How long an upstream is taken to close its connections after as many answers as it did last.
const SHORT_FOR: Duration = Duration::from_secs(60);
/// A connection without a query for so long is closed.
const IDLE: Duration = Duration::from_secs(5);
/// Longest time to connect.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long other upstreams are preferred to one whose connections failed or were silent.
const AVOID: Duration = Duration::from_secs(5);
/// How long no connection is attempted after one failed.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Queries given up on a connection, whose answers may still come, at which it is left.
const MOST_GIVEN_UP: usize = 256;
/// Memory that the outbox of a quiet connection keeps, in octets.
const OUTBOX_KEEPS: usize = 256 << 10;
/// In place of a query's number: it was given up, and its id is not used again.
const GIVEN_UP: u32 = u32::MAX;

/// The connections of one worker to all upstreams.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    /// By the upstream's index.
    slots: Vec<Option<Upstream>>,
    /// Upstreams to which others are preferred.
    avoided: Vec<UpstreamIndex>,
}

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    connections: Vec<Rc<Connection>>,
    /// Connecting failed then.
    failed: Option<Instant>,
    /// Others are preferred until then.
    avoid_until: Option<Instant>,
    /// It closed a connection after so many answers, with queries unanswered, then.
    closes_after: Option<(u64, Instant)>,
}

/// A connection to an upstream.
#[derive(Debug)]
pub(super) struct Connection {
    /// Where it leads.
    pub(super) upstream: UpstreamIndex,
    /// Its task.
    pub(super) task: Task,
    /// What changes all the time.
    pub(super) state: RefCell<ConnectionState>,
    /// Ends the attempt to connect.
    give_up: Notify,
    opened: Instant,
}

/// The changing part of a connection to an upstream.
#[derive(Debug)]
pub(super) struct ConnectionState {
    /// Its socket and octets; there is no socket before it is connected and after it is lost.
    pub(super) link: Link,
    /// Its output is to be written at the end of the round.
    pub(super) dirty: bool,
    /// Numbers of the queries without an answer, by message id.
    numbers: HashMap<u16, u32, RandomState>,
    /// How many of these were given up.
    given_up: usize,
    sent: u64,
    answered: u64,
    /// The last sign of life while queries waited, or when the first of them was sent.
    alive: Instant,
    /// It takes no more queries and ends when none waits.
    retired: bool,
    /// Writing failed.
    broken: bool,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// We had no more use for it.
    Retired,
    /// It could not be opened.
    Unreachable,
    /// The upstream closed it or broke it off, after so many answers.
    Closed {
        /// Answers it gave.
        answered: u64,
    },
}

impl Upstreams {
    /// A connection to this upstream that takes a query; opens one if need be.
    ///
    /// # Errors
    /// [`Reason::NoUpstream`] while connecting is pointless, [`Reason::TableFull`] while all
    /// connections are full.
    pub(super) fn connection(
        &mut self,
        worker: &Rc<Worker>,
        upstream: UpstreamIndex,
        address: SocketAddr,
        now: Instant,
    ) -> Result<Rc<Connection>, Reason> {
        let place = usize::from(upstream.0);
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        let slot = self.slots.get_mut(place).ok_or(Reason::NoUpstream)?;
        if let Some(former) = slot.take_if(|slot| slot.address != address) {
            // a reload gave the index to another upstream
            former
                .connections
                .iter()
                .for_each(|connection| connection.retire());
        }
        let slot = slot.get_or_insert_with(|| Upstream::new(address));
        let most = slot.closes_after.map_or(u64::MAX, |(answers, _)| answers);
        let best = slot
            .connections
            .iter()
            .min_by_key(|connection| connection.load(most))
            .cloned();
        if let Some(best) = &best
            && best.load(most) < (false, BUSY)
        {
            return Ok(Rc::clone(best));
        }
        let room = slot.connections.len()
            < if most == u64::MAX {
                CONNECTIONS
            } else {
                SHORT_CONNECTIONS
            };
        let paused = slot
            .failed
            .is_some_and(|failed| now.saturating_duration_since(failed) < RECONNECT_PAUSE);
        if room && !paused {
            let connection = Rc::new(Connection::new(upstream, now));
            slot.connections.push(Rc::clone(&connection));
            tokio::task::spawn_local(serve(Rc::clone(worker), Rc::clone(&connection), address));
            return Ok(connection);
        }
        match best {
            Some(best) if best.is_full() => Err(Reason::TableFull),
            best => best.ok_or(Reason::NoUpstream),
        }
    }

    /// Says of each upstream how many queries wait for its answers.
    pub(super) fn outstanding(&self, mut say: impl FnMut(UpstreamIndex, u32)) {
        for (place, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let live = |connection: &Rc<Connection>| connection.state.borrow().live();
            let queries: usize = slot.connections.iter().map(live).sum();
            say(
                UpstreamIndex(place as u16),
                u32::try_from(queries).unwrap_or(u32::MAX),
            );
        }
    }

    /// Upstreams to which others are preferred.
    pub(super) fn avoided(&self) -> &[UpstreamIndex] {
        &self.avoided
    }

    /// Prefers other upstreams for a while.
    pub(super) fn avoid(&mut self, upstream: UpstreamIndex, now: Instant) {
        if let Some(slot) = self.slot(upstream) {
            slot.avoid_until = Some(now + AVOID);
            if !self.avoided.contains(&upstream) {
                self.avoided.push(upstream);
            }
        }
    }

    /// A connection is no more; returns the numbers of the queries that waited on it.
    pub(super) fn lost(
        &mut self,
        connection: &Rc<Connection>,
        ending: Ending,
        now: Instant,
    ) -> Vec<u32> {
        let numbers = connection.lost();
        self.leave(connection);
        match ending {
            Ending::Retired => {}
            Ending::Unreachable => {
                if let Some(slot) = self.slot(connection.upstream) {
                    slot.failed = Some(now);
                }
                self.avoid(connection.upstream, now);
            }
            Ending::Closed { answered } => {
                if answered == 0 && !numbers.is_empty() {
                    self.avoid(connection.upstream, now);
                } else if !numbers.is_empty()
                    && let Some(slot) = self.slot(connection.upstream)
                {
                    slot.closes_after = Some((answered, now));
                }
            }
        }
        numbers
    }

    /// No more queries for this connection.
    pub(super) fn leave(&mut self, connection: &Rc<Connection>) {
        connection.retire();
        if let Some(slot) = self.slot(connection.upstream) {
            slot.connections
                .retain(|kept| !Rc::ptr_eq(kept, connection));
        }
    }

    /// Looks after connections: gives up attempts to connect, closes what is idle, forgets old
    /// failures. Adds those on which queries wait in vain to `silent`.
    pub(super) fn sweep(&mut self, now: Instant, silent: &mut Vec<Rc<Connection>>) {
        let since = |then: Instant| now.saturating_duration_since(then);
        for slot in self.slots.iter_mut().flatten() {
            slot.avoid_until = slot.avoid_until.filter(|&until| until > now);
            slot.closes_after = slot
                .closes_after
                .filter(|&(_, when)| since(when) < SHORT_FOR);
            slot.connections.retain(|connection| {
                let state = connection.state.borrow();
                let connecting = !state.link.is_open();
                if connecting && since(connection.opened) >= CONNECT_TIMEOUT {
                    connection.give_up.notify_one();
                    return true;
                }
                if state.live() > 0 {
                    silent.push(Rc::clone(connection));
                }
                let idle = state.live() == 0 && since(state.alive) >= IDLE;
                let used_up = state.given_up >= MOST_GIVEN_UP;
                drop(state);
                if idle || used_up {
                    connection.retire();
                }
                !idle && !used_up
            });
        }
        let slots = &self.slots;
        self.avoided.retain(|upstream| {
            let slot = slots.get(usize::from(upstream.0)).and_then(Option::as_ref);
            slot.is_some_and(|slot| slot.avoid_until.is_some())
        });
    }

    fn slot(&mut self, upstream: UpstreamIndex) -> Option<&mut Upstream> {
        self.slots.get_mut(usize::from(upstream.0))?.as_mut()
    }
}

impl Upstream {
    const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: Vec::new(),
            failed: None,
            avoid_until: None,
            closes_after: None,
        }
    }
}

impl Connection {
    fn new(upstream: UpstreamIndex, now: Instant) -> Self {
        Self {
            upstream,
            task: Task::default(),
            state: RefCell::new(ConnectionState {
                link: Link::new(None, OUTBOX_KEEPS),
                dirty: false,
                numbers: HashMap::with_hasher(RandomState::new()),
                given_up: 0,
                sent: 0,
                answered: 0,
                alive: now,
                retired: false,
                broken: false,
            }),
            give_up: Notify::new(),
            opened: now,
        }
    }

    /// Sends a query, framed and with a random id of this connection, at the end of the round.
    /// Returns the id; nothing if the connection takes no more.
    pub(super) fn send(&self, number: u32, query: &[u8], now: Instant) -> Option<u16> {
        let mut state = self.state.borrow_mut();
        if state.retired || state.is_full() {
            return None;
        }
        // at most an eighth of the ids is in use
        let id = loop {
            let id = rand::random();
            if let Entry::Vacant(vacant) = state.numbers.entry(id) {
                vacant.insert(number);
                break id;
            }
        };
        if state.live() == 1 {
            state.alive = now;
        }
        state.sent += 1;
        state.link.outbox.push_with_id(query, id);
        Some(id)
    }

    /// The number of the query with this id; nothing for one that was given up or never sent here.
    pub(super) fn number(&self, id: u16) -> Option<u32> {
        self.state
            .borrow()
            .numbers
            .get(&id)
            .copied()
            .filter(|&number| number != GIVEN_UP)
    }

    /// The query with this id was answered.
    pub(super) fn answered(&self, id: u16) {
        let mut state = self.state.borrow_mut();
        if state.numbers.remove(&id).is_some() {
            state.answered += 1;
        }
    }

    /// An answer came for an id no query waits for: if one was given up, the id is free again.
    pub(super) fn answered_late(&self, id: u16) {
        let mut state = self.state.borrow_mut();
        if state.numbers.remove(&id).is_some() {
            state.given_up -= 1;
            state.answered += 1;
        }
    }

    /// Nobody waits for the query with this id any more.
    pub(super) fn give_up(&self, id: u16) {
        let mut state = self.state.borrow_mut();
        if let Some(number) = state.numbers.get_mut(&id)
            && *number != GIVEN_UP
        {
            *number = GIVEN_UP;
            state.given_up += 1;
        }
        drop(state);
        self.end_if_unused();
    }

    /// Numbers of the queries that wait.
    pub(super) fn waiting(&self) -> Vec<u32> {
        let state = self.state.borrow();
        state
            .numbers
            .values()
            .copied()
            .filter(|&number| number != GIVEN_UP)
            .collect()
    }

    /// The last sign of life while queries waited.
    pub(super) fn alive(&self) -> Instant {
        self.state.borrow().alive
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn flush(&self) {
        let mut state = self.state.borrow_mut();
        state.dirty = false;
        if state.link.flush().is_err() {
            state.broken = true;
        }
        if state.link.blocked || state.broken {
            self.task.wake();
        }
    }

    /// How much it has to do: whether it has had as many queries as it may answer, then how many wait.
    fn load(&self, most: u64) -> (bool, usize) {
        let state = self.state.borrow();
        (state.sent >= most, state.live())
    }

    fn is_full(&self) -> bool {
        self.state.borrow().is_full()
    }

    fn retire(&self) {
        self.state.borrow_mut().retired = true;
        self.end_if_unused();
    }

    /// Has the task end a retired connection on which no query waits, connected or not.
    fn end_if_unused(&self) {
        let state = self.state.borrow();
        if state.retired && state.live() == 0 {
            self.give_up.notify_one();
            self.task.wake();
        }
    }

    /// Closes the socket; returns the numbers of the queries that waited.
    fn lost(&self) -> Vec<u32> {
        let waiting = self.waiting();
        let mut state = self.state.borrow_mut();
        state.numbers.clear();
        state.given_up = 0;
        state.retired = true;
        state.link.close();
        waiting
    }
}

impl ConnectionState {
    /// Queries that wait.
    fn live(&self) -> usize {
        self.numbers.len() - self.given_up
    }

    fn is_full(&self) -> bool {
        self.numbers.len() >= FULL || self.link.outbox.len() >= ENOUGH_WAITING
    }
}

/// The connection's task: connects, then waits for readiness until the connection ends.
async fn serve(worker: Rc<Worker>, connection: Rc<Connection>, address: SocketAddr) {
    let connected = tokio::select! {
        biased;
        () = connection.give_up.notified() => Err(io::ErrorKind::TimedOut.into()),
        connected = connect(address) => connected,
    };
    let ending = match connected {
        Ok(stream) => {
            let (mut reader, writer) = stream.into_split();
            connection.state.borrow_mut().link.open(writer);
            connection.flush();
            std::future::poll_fn(|cx| poll(&worker, &connection, &mut reader, cx)).await
        }
        Err(_) if connection.state.borrow().retired => Ending::Retired,
        Err(failure) => {
            tracing::debug!(%address, %failure, "no TCP connection to the upstream");
            Ending::Unreachable
        }
    };
    turn(&worker, now(), |turn| turn.lost(&connection, ending));
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn poll(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    reader: &mut OwnedReadHalf,
    cx: &mut Context<'_>,
) -> Poll<Ending> {
    connection.task.is(cx);
    {
        let mut state = connection.state.borrow_mut();
        let flushed = state.link.poll_flush(cx);
        // what the upstream sent before it closed can still be read
        state.broken |= matches!(flushed, Poll::Ready(Err(_)));
        if state.retired && state.live() == 0 {
            return Poll::Ready(Ending::Retired);
        }
    }
    let buffer = &mut *worker.tcp.scratch.borrow_mut();
    for _ in 0..ROUNDS {
        match poll_read(reader, buffer.get_mut(..READ).unwrap_or_default(), cx) {
            Poll::Pending if connection.state.borrow().broken => {
                return Poll::Ready(connection.closed());
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(connection.closed()),
            Poll::Ready(Ok(octets)) => {
                take(worker, connection, buffer.get(..octets).unwrap_or_default())
            }
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl Connection {
    fn closed(&self) -> Ending {
        Ending::Closed {
            answered: self.state.borrow().answered,
        }
    }
}

/// Takes the answers in `fresh`.
fn take(worker: &Rc<Worker>, connection: &Rc<Connection>, fresh: &[u8]) {
    let now = now();
    let mut inbox = {
        let mut state = connection.state.borrow_mut();
        state.alive = now;
        std::mem::take(&mut state.link.inbox)
    };
    let mut taken = 0;
    turn(worker, now, |turn| {
        inbox.feed(fresh, |octets| {
            let mut rest = octets;
            while let Some((message, after)) = split(rest) {
                rest = after;
                taken += 1;
                turn.on_answer(connection, message);
            }
            octets.len() - rest.len()
        });
    });
    pace::handled(taken, now);
    connection.state.borrow_mut().link.inbox = inbox;
}
