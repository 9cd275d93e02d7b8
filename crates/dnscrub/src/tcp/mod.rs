//! DNS over TCP (RFC 7766): clients' connections, upstreams' connections, zone transfers.
//!
//! A worker serves its connections on its own thread and shares nothing with other workers but the
//! counts that the limits are about. A connection is one task that waits for readiness; everything
//! else is plain function calls: a client's task reads what there is, judges all whole messages in it
//! and appends what is cleared to an upstream connection's output; an upstream connection's task
//! reads what there is and appends each answer to its client's output. What has output is written once,
//! at the end of the *round*: when all tasks that were ready have had their turn.
//!
//! No timers run for single queries or connections: a sweep every 100 milliseconds
//! looks at all limits.
//!
//! - `accept`: who gets a connection;
//! - `client`, `clients`: a client's connection; the table of them, and which was idle longest;
//! - `upstreams`: connections to upstreams, pipelined and reused;
//! - `forward`: one query to an upstream, one answer to a client, and what happens in between;
//! - `in_flight`: the table of queries that wait;
//! - `transfer`, `transfer_end`: AXFR and IXFR, streamed through;
//! - `framing`, `link`: messages in a stream; a socket and its buffers.

mod accept;
mod client;
mod clients;
mod forward;
mod framing;
mod in_flight;
mod link;
#[cfg(test)]
mod tests;
mod transfer;
mod transfer_end;
mod upstreams;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use dnscrub_forwarding::UpstreamIndex;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::MissedTickBehavior;

use crate::counters::WorkerCounters;
use crate::data_path::{DataPath, Endpoint};
use crate::outcome::Reason;
use crate::worker::Worker;
use client::{Client, Limit};
use clients::Clients;
use in_flight::Table;
use transfer::Transfer;
use upstreams::{Connection, Upstreams};

/// How often limits are looked at.
const SWEEP: Duration = Duration::from_millis(100);
/// Reads from one socket before the others get their turn.
const ROUNDS: usize = 8;
/// Queries of a worker that can be in flight over TCP.
const IN_FLIGHT: usize = 32_768;

/// Serves TCP clients at an endpoint from now on, with tasks on the worker's thread.
///
/// # Errors
/// The listener cannot be watched.
pub fn serve(worker: &Rc<Worker>, endpoint: Endpoint, listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    if !worker.tcp.running.replace(true) {
        spawn_local(end_rounds(Rc::clone(worker)));
        spawn_local(sweep_often(Rc::clone(worker)));
    }
    spawn_local(accept::serve(Rc::clone(worker), endpoint, listener));
    Ok(())
}

/// A worker's TCP: what its tasks share.
pub struct State {
    relay: RefCell<Relay>,
    /// What is read goes here first.
    scratch: RefCell<Box<[u8]>>,
    /// Something is to be written at the end of the round.
    round: Notify,
    running: Cell<bool>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            relay: RefCell::new(Relay {
                clients: Clients::new(),
                upstreams: Upstreams::default(),
                table: Table::new(IN_FLIGHT),
                transfers: Vec::new(),
                touched: Vec::new(),
                dirty: Vec::new(),
            }),
            scratch: RefCell::new(vec![0; link::READ].into_boxed_slice()),
            round: Notify::new(),
            running: Cell::new(false),
        }
    }
}

impl State {
    /// Says of each upstream how many queries are outstanding there.
    pub fn outstanding(&self, say: impl FnMut(UpstreamIndex, u32)) {
        self.relay.borrow().upstreams.outstanding(say);
    }
}

/// Connections and queries of one worker.
#[derive(Debug)]
struct Relay {
    clients: Clients,
    upstreams: Upstreams,
    table: Table,
    transfers: Vec<Rc<Transfer>>,
    /// Clients and upstream connections with output that is not written yet.
    touched: Vec<Rc<Client>>,
    dirty: Vec<Rc<Connection>>,
}

impl Relay {
    fn is_touched(&mut self, client: &Rc<Client>) {
        if !std::mem::replace(&mut client.state.borrow_mut().touched, true) {
            self.touched.push(Rc::clone(client));
        }
    }

    fn is_dirty(&mut self, connection: &Rc<Connection>) {
        if !std::mem::replace(&mut connection.state.borrow_mut().dirty, true) {
            self.dirty.push(Rc::clone(connection));
        }
    }
}

/// One task's turn: all of the worker's state that it may touch, borrowed once, and the time.
struct Turn<'a> {
    worker: &'a Rc<Worker>,
    path: &'a mut DataPath,
    relay: &'a mut Relay,
    counters: &'a WorkerCounters,
    now: Instant,
}

/// Does something with the worker's state. Turns do not nest.
fn turn<R>(worker: &Rc<Worker>, now: Instant, act: impl FnOnce(&mut Turn<'_>) -> R) -> R {
    let path = &mut *worker.path.borrow_mut();
    let relay = &mut *worker.tcp.relay.borrow_mut();
    let counters = Arc::clone(path.counters());
    let mut turn = Turn {
        worker,
        path,
        relay,
        counters: &counters,
        now,
    };
    let result = act(&mut turn);
    counters
        .in_flight_tcp
        .set((relay.table.len() + relay.transfers.len()) as u64);
    if !relay.touched.is_empty() || !relay.dirty.is_empty() {
        worker.tcp.round.notify_one();
    }
    result
}

fn now() -> Instant {
    Instant::now()
}

/// Writes what the tasks of a round have left. This task gets its turn after those that were ready
/// when it was notified.
async fn end_rounds(worker: Rc<Worker>) {
    let (mut touched, mut dirty) = (Vec::new(), Vec::new());
    loop {
        worker.tcp.round.notified().await;
        {
            let relay = &mut *worker.tcp.relay.borrow_mut();
            std::mem::swap(&mut touched, &mut relay.touched);
            std::mem::swap(&mut dirty, &mut relay.dirty);
        }
        for connection in dirty.drain(..) {
            connection.flush();
        }
        for client in touched.drain(..) {
            if client.flush().is_err() {
                turn(&worker, now(), |turn| turn.close(&client));
            }
        }
    }
}

async fn sweep_often(worker: Rc<Worker>) {
    let mut interval = tokio::time::interval(SWEEP);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        turn(&worker, now(), |turn| turn.sweep());
    }
}

impl Turn<'_> {
    /// Looks at everything that has a limit in time.
    fn sweep(&mut self) {
        self.sweep_queries();
        self.sweep_clients();
        transfer::sweep(self);
    }

    fn sweep_queries(&mut self) {
        let mut overdue = Vec::new();
        self.relay.table.overdue(self.now, &mut overdue);
        for number in overdue {
            self.give_up(number, Reason::Expired);
        }
        let mut waited_on = Vec::new();
        self.relay.upstreams.sweep(self.now, &mut waited_on);
        for connection in waited_on {
            self.move_away(&connection);
        }
    }

    fn sweep_clients(&mut self) {
        let limits = self.path.policy().tcp;
        let shortest = limits
            .receive_timeout
            .min(limits.write_timeout)
            .min(limits.idle_timeout);
        let mut due = Vec::new();
        // a limit is exceeded by a quarter of the shortest one at most
        self.relay
            .clients
            .due(self.now, self.now + shortest / 4, &mut due);
        for client in due {
            match client.check(&limits, self.now) {
                Limit::Kept => {}
                Limit::Lifetime => client.wind_up(),
                Limit::Idle => self.close(&client),
                Limit::TooSlow => {
                    self.counters.tcp_too_slow.add(1);
                    self.close(&client);
                }
            }
            if self.worker.is_stopping() {
                client.wind_up();
            }
        }
    }

    /// Closes a client's connection at once. Its queries in flight are counted when their answers come
    /// or their time is over.
    fn close(&mut self, client: &Client) {
        if !client.close() {
            return;
        }
        self.relay.clients.remove(client);
        self.worker.shared.tcp_connections.fetch_sub(1, Relaxed);
        self.counters.tcp_open.set(self.relay.clients.len() as u64);
    }
}
