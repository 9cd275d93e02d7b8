//! Queries on connections (RFC 7766): pipelined, each message behind its length.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::authority::{Reply, Transfer, Transport};
use crate::behaviour::Fate;
use crate::server::{Shared, TcpOrder};

/// Batches of answers that may wait for the writer; then the connection is not read.
const MAX_WAITING_BATCHES: usize = 64;
/// Answers the writer holds before it takes no further batch.
const MAX_WAITING_ANSWERS: usize = 4096;
/// Pause after an accept that failed, so that being out of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

pub(crate) async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>, seed: u64) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut seeds = StdRng::seed_from_u64(seed);
    let open = Arc::new(AtomicUsize::new(0));
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if open.load(Relaxed) >= shared.settings.max_tcp_connections {
            continue;
        }
        shared.counters.tcp_connections.fetch_add(1, Relaxed);
        open.fetch_add(1, Relaxed);
        let shared = Arc::clone(&shared);
        let open = Arc::clone(&open);
        let random = StdRng::seed_from_u64(seeds.next_u64());
        connections.spawn(async move {
            connection(stream, shared, random).await;
            open.fetch_sub(1, Relaxed);
        });
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, random: StdRng) {
    stream.set_nodelay(true).unwrap_or_default();
    let (reader, writer) = stream.into_split();
    let (sender, receiver) = mpsc::channel(MAX_WAITING_BATCHES);
    let order = shared.settings.tcp_order;
    // A closed or broken connection ends both halves; there is nobody to tell.
    let (read, written) = tokio::join!(
        read(reader, sender, shared, random),
        write(writer, receiver, order)
    );
    drop((read, written));
}

/// An answer that may have to wait.
struct Answer {
    due: Instant,
    payload: Payload,
}

enum Payload {
    Message(Vec<u8>),
    Transfer(Box<Transfer>),
}

async fn read(
    mut reader: OwnedReadHalf,
    answers: mpsc::Sender<Vec<Answer>>,
    shared: Arc<Shared>,
    mut random: StdRng,
) -> io::Result<()> {
    let mut inbox = Vec::with_capacity(4096);
    loop {
        match tokio::time::timeout(shared.settings.tcp_idle, reader.read_buf(&mut inbox)).await {
            Err(_) | Ok(Ok(0)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) => {}
        }
        let mut batch = Vec::new();
        let mut rest = inbox.as_slice();
        while let Some((message, after)) = split_message(rest) {
            rest = after;
            batch.extend(one(message, &shared, &mut random));
        }
        let consumed = inbox.len() - rest.len();
        inbox.drain(..consumed);
        if !batch.is_empty() && answers.send(batch).await.is_err() {
            return Ok(());
        }
    }
}

fn split_message(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

fn one(message: &[u8], shared: &Shared, random: &mut StdRng) -> Option<Answer> {
    shared.counters.tcp_queries.fetch_add(1, Relaxed);
    shared.memory.remember(message);
    let now = Instant::now();
    let due = match shared.behaviour.fate(now, random.next_u64()) {
        Fate::Answer(due) => due.unwrap_or(now),
        Fate::Swallow(fault) => {
            shared.counters.swallowed(fault);
            return None;
        }
    };
    let mut out = Vec::new();
    let payload = match shared.answer(message, Transport::Tcp, &mut out) {
        Reply::Silence => return None,
        Reply::Message { .. } => Payload::Message(out),
        Reply::Transfer(transfer) => Payload::Transfer(transfer),
    };
    Some(Answer { due, payload })
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut batches: mpsc::Receiver<Vec<Answer>>,
    order: TcpOrder,
) -> io::Result<()> {
    let mut waiting = Waiting {
        order,
        last_due: None,
        sequence: 0,
        answers: BTreeMap::new(),
    };
    let mut open = true;
    while open || !waiting.answers.is_empty() {
        let next = waiting.next_due();
        tokio::select! {
            biased;
            batch = batches.recv(), if open && waiting.answers.len() < MAX_WAITING_ANSWERS => match batch {
                Some(batch) => waiting.push(batch),
                None => open = false,
            },
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => {
                while let Some(payload) = waiting.pop_due(Instant::now()) {
                    send(&mut writer, payload).await?;
                }
            }
        }
    }
    writer.shutdown().await
}

async fn send(writer: &mut OwnedWriteHalf, payload: Payload) -> io::Result<()> {
    match payload {
        Payload::Message(message) => send_message(writer, &message).await,
        Payload::Transfer(transfer) => {
            for message in *transfer {
                send_message(writer, &message).await?;
            }
            Ok(())
        }
    }
}

/// Length and message in one write, so that they share a segment.
async fn send_message(writer: &mut OwnedWriteHalf, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    writer.write_all(&framed).await
}

/// Answers of one connection in the order they leave.
struct Waiting {
    order: TcpOrder,
    last_due: Option<Instant>,
    sequence: i64,
    /// By when they are due, and their order among those due together.
    answers: BTreeMap<(Instant, i64), Payload>,
}

impl Waiting {
    fn push(&mut self, batch: Vec<Answer>) {
        let latest = batch.iter().map(|answer| answer.due).max();
        let delayed = latest.is_some_and(|due| due > Instant::now());
        for answer in batch {
            self.sequence += 1;
            let key = match self.order {
                TcpOrder::InOrder => {
                    let due = self
                        .last_due
                        .map_or(answer.due, |last| last.max(answer.due));
                    self.last_due = Some(due);
                    (due, self.sequence)
                }
                // Without delays, queries that came together count as due together.
                TcpOrder::OutOfOrder if !delayed => (latest.unwrap_or(answer.due), -self.sequence),
                TcpOrder::OutOfOrder => (answer.due, -self.sequence),
            };
            self.answers.insert(key, answer.payload);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.answers.first_key_value().map(|(&(due, _), _)| due)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Payload> {
        self.answers
            .first_entry()
            .filter(|first| first.key().0 <= now)
            .map(|first| first.remove())
    }
}
