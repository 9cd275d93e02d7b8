//! Queries in datagrams.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::UdpSocket;

use crate::authority::{Reply, Transport};
use crate::behaviour::{Fate, Fault};
use crate::server::Shared;

/// Datagrams read before other tasks of the thread get their turn.
const BATCH: usize = 64;
/// Delayed answers that may wait; the query of one more is swallowed.
const MAX_WAITING: usize = 65_536;

pub(crate) async fn serve(socket: std::net::UdpSocket, shared: Arc<Shared>, seed: u64) {
    let Ok(socket) = UdpSocket::from_std(socket) else {
        return;
    };
    let mut random = StdRng::seed_from_u64(seed);
    let mut packet = vec![0; usize::from(u16::MAX)];
    let mut out = Vec::with_capacity(4096);
    let mut waiting = Waiting::default();
    loop {
        let mut idle = false;
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut packet) {
                Ok((len, client)) => {
                    let message = packet.get(..len).unwrap_or_default();
                    one(
                        &socket,
                        message,
                        client,
                        &shared,
                        &mut random,
                        &mut waiting,
                        &mut out,
                    );
                }
                Err(error) => {
                    idle = error.kind() == ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        let next = waiting.send_due(&socket);
        match next {
            _ if !idle => tokio::task::yield_now().await,
            None => socket.readable().await.unwrap_or_default(),
            Some(due) => {
                tokio::select! {
                    readable = socket.readable() => readable.unwrap_or_default(),
                    () = tokio::time::sleep_until(due.into()) => {}
                }
            }
        }
    }
}

fn one(
    socket: &UdpSocket,
    message: &[u8],
    client: SocketAddr,
    shared: &Shared,
    random: &mut StdRng,
    waiting: &mut Waiting,
    out: &mut Vec<u8>,
) {
    shared.counters.udp_queries.fetch_add(1, Relaxed);
    shared.memory.remember(message);
    match shared.behaviour.fate(Instant::now(), random.next_u64()) {
        Fate::Swallow(fault) => shared.counters.swallowed(fault),
        Fate::Answer(Some(_)) if waiting.answers.len() >= MAX_WAITING => {
            shared.counters.swallowed(Fault::Overload)
        }
        Fate::Answer(due) => {
            // UDP never brings a transfer.
            if let Reply::Message { .. } = shared.answer(message, Transport::Udp, out) {
                match due {
                    // A full send buffer loses the answer, as any datagram may be lost.
                    None => drop(socket.try_send_to(out, client)),
                    Some(due) => waiting.push(due, client, out.clone()),
                }
            }
        }
    }
}

/// Answers that are not due yet, by when they are, and among those due together as they came.
#[derive(Default)]
struct Waiting {
    answers: BTreeMap<(Instant, u64), (SocketAddr, Vec<u8>)>,
    pushed: u64,
}

impl Waiting {
    fn push(&mut self, due: Instant, client: SocketAddr, answer: Vec<u8>) {
        self.pushed += 1;
        self.answers.insert((due, self.pushed), (client, answer));
    }

    /// Sends what is due, and says when the next answer will be.
    fn send_due(&mut self, socket: &UdpSocket) -> Option<Instant> {
        let mut first = self.answers.first_entry()?;
        let now = Instant::now();
        while first.key().0 <= now {
            let (client, answer) = first.remove();
            drop(socket.try_send_to(&answer, client));
            first = self.answers.first_entry()?;
        }
        Some(first.key().0)
    }
}
