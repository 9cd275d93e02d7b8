//! Zone transfers (AXFR, RFC 5936; IXFR, RFC 1995): streamed from one upstream, each on a connection
//! of its own, message by message and as fast as the client reads.
//!
//! The request keeps its id and every octet, and so does each message of the answer: a transfer may be
//! signed (RFC 8945). Other answers of the client go between the messages.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use dnscrub_forwarding::UpstreamIndex;
use dnscrub_wire::Query;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::accept::take_place;
use super::client::Client;
use super::framing::{Inbox, Outbox, split};
use super::link::READ;
use super::transfer_end::{EndDetector, Progress};
use super::upstreams::CONNECT_TIMEOUT;
use super::{Turn, now, turn};
use crate::data_path::Cleared;
use crate::outcome::{Answer, Outcome, Reason};
use crate::shared::Shared;
use crate::worker::Worker;

/// Upstreams asked for a transfer before it is given up.
const ATTEMPTS: usize = 3;

/// A transfer under way.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Who gets the zone.
    pub(super) client: Rc<Client>,
    query: Query,
    /// The request, as it came.
    request: Vec<u8>,
    /// Index of the pool, in the policy of `generation`.
    pool: usize,
    generation: u64,
    started: Instant,
    /// When the last octet moved.
    moved: Cell<Instant>,
    /// The client has got some of it.
    begun: Cell<bool>,
    stop: Notify,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// With its last message.
    Whole,
    /// No upstream sent all of it.
    Failed,
    /// It took too long, or nothing moved, or the client has gone.
    Stopped,
}

/// Begins a transfer, or refuses it if there are enough.
pub(super) fn start(turn: &mut Turn<'_>, client: &Rc<Client>, cleared: &Cleared, message: &[u8]) {
    let most = turn.path.policy().tcp.transfers.max_concurrent;
    turn.path.watch().transfer();
    let shared = &turn.worker.shared;
    if !take_place(&shared.transfers, most) {
        let refused = Outcome::Answered(Answer::Refused, Reason::TransferLimit);
        return turn.conclude(client, message, refused);
    }
    client.began();
    let transfer = Rc::new(Transfer {
        client: Rc::clone(client),
        query: cleared.query,
        request: message.to_vec(),
        pool: cleared.pool,
        generation: turn.path.policy().generation,
        started: turn.now,
        moved: Cell::new(turn.now),
        begun: Cell::new(false),
        stop: Notify::new(),
    });
    turn.relay.transfers.push(Rc::clone(&transfer));
    spawn_local(run(
        Rc::clone(turn.worker),
        transfer,
        Place(Arc::clone(shared)),
    ));
}

/// Stops the transfers that are over their limits or whose clients have gone.
pub(super) fn sweep(turn: &mut Turn<'_>) {
    let limits = turn.path.policy().tcp.transfers;
    for transfer in &turn.relay.transfers {
        let over = turn.now.saturating_duration_since(transfer.started) >= limits.time_limit;
        let idle = turn.now.saturating_duration_since(transfer.moved.get()) >= limits.idle_limit;
        if over || idle || !transfer.client.is_open() {
            transfer.stop.notify_one();
        }
    }
}

/// A transfer's place among those of all workers.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.transfers.fetch_sub(1, Relaxed);
    }
}

async fn run(worker: Rc<Worker>, transfer: Rc<Transfer>, place: Place) {
    let ending = tokio::select! {
        biased;
        () = transfer.stop.notified() => Ending::Stopped,
        ending = from_any(&worker, &transfer) => ending,
    };
    turn(&worker, now(), |turn| end(turn, &transfer, ending));
    drop(place);
}

fn end(turn: &mut Turn<'_>, transfer: &Rc<Transfer>, ending: Ending) {
    let client = &transfer.client;
    turn.relay
        .transfers
        .retain(|kept| !Rc::ptr_eq(kept, transfer));
    turn.finish(client);
    let reason = match ending {
        Ending::Whole => {
            turn.counters.transfers.add(1);
            turn.settle(client, Outcome::Forwarded);
            client.task.wake();
            return;
        }
        Ending::Failed => Reason::NoUpstream,
        Ending::Stopped => Reason::Expired,
    };
    if transfer.begun.get() {
        // half a zone is of no use: that the stream ends is how the client learns of it
        turn.settle(client, Outcome::Dropped(reason));
        client.wind_up();
    } else {
        let current = transfer.generation == turn.path.policy().generation;
        let outcome = turn
            .path
            .unserved(if current { transfer.pool } else { usize::MAX }, reason);
        turn.conclude(client, &transfer.request, outcome);
    }
}

/// Asks one upstream after the other until one sends something.
async fn from_any(worker: &Rc<Worker>, transfer: &Transfer) -> Ending {
    let mut tried = Vec::new();
    while tried.len() < ATTEMPTS {
        let picked = turn(worker, now(), |turn| turn.pick_for(transfer, &tried));
        let Some((upstream, address)) = picked.filter(|(upstream, _)| !tried.contains(upstream))
        else {
            break;
        };
        tried.push(upstream);
        match from_one(worker, transfer, address).await {
            Ok(()) => return Ending::Whole,
            Err(failure) => tracing::debug!(%address, %failure, "the zone transfer broke off"),
        }
        if !transfer.client.is_open() {
            return Ending::Stopped;
        }
        if transfer.begun.get() {
            break;
        }
    }
    Ending::Failed
}

impl Turn<'_> {
    fn pick_for(
        &mut self,
        transfer: &Transfer,
        tried: &[UpstreamIndex],
    ) -> Option<(UpstreamIndex, SocketAddr)> {
        if transfer.generation != self.path.policy().generation {
            return None;
        }
        let exclude = [tried, self.relay.upstreams.avoided()].concat();
        let forwarder = self.path.forwarder();
        let upstream = forwarder.pick(transfer.pool, &transfer.query.qname, &exclude)?;
        Some((upstream, forwarder.upstream(upstream)?.address()))
    }
}

/// Passes the whole answer of one upstream through.
async fn from_one(worker: &Rc<Worker>, transfer: &Transfer, address: SocketAddr) -> io::Result<()> {
    let client = &transfer.client;
    let mut upstream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
    upstream.set_nodelay(true)?;
    let mut request = Outbox::new(0);
    request.push(&transfer.request);
    upstream.write_all(request.waiting()).await?;

    let mut detector = EndDetector::new(&transfer.query, &transfer.request);
    let mut buffer = vec![0; READ];
    let mut inbox = Inbox::default();
    loop {
        let octets = upstream.read(&mut buffer).await?;
        if octets == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // nothing more is read before the client has taken what it has
        while client.is_open() && !client.has_transfer_room() {
            client.drained.notified().await;
        }
        if !client.is_open() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        transfer.moved.set(now());
        let mut progress = Progress::More;
        turn(worker, now(), |turn| {
            inbox.feed(buffer.get(..octets).unwrap_or_default(), |octets| {
                let mut rest = octets;
                while progress == Progress::More
                    && let Some((message, after)) = split(rest)
                {
                    rest = after;
                    progress = detector.on_message(message);
                    if progress != Progress::Broken {
                        transfer.begun.set(true);
                        turn.write(client, |client| {
                            client.state.borrow_mut().link.outbox.push(message)
                        });
                    }
                }
                octets.len() - rest.len()
            });
        });
        match progress {
            Progress::More => {}
            Progress::Over => return Ok(()),
            Progress::Broken => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
