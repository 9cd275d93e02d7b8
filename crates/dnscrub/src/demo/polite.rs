//! The polite client: resolvers that ask for names that exist, at a moderate rate, and take note of
//! every answer and of every one that does not come. Who is told to come back over TCP does so.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dnscrub_wire::{Name, QueryBuilder, Rcode, Response, qtype};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use super::script::{Phase, Script};
use super::zones::{HOSTS, ORIGINS};

/// Resolvers, each with an address in a network of its own.
const RESOLVERS: u8 = 10;
/// A query without an answer for so long is lost: the user behind has asked elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the client has seen in one phase. A query belongs to the phase it was sent in.
#[derive(Clone, Debug, Default)]
pub(super) struct Leg {
    /// Queries sent.
    pub(super) asked: u64,
    /// Queries answered with what was asked for.
    pub(super) answered: u64,
    /// Queries that got no answer, or another one than the right one.
    pub(super) lost: u64,
    /// Queries that were sent on to TCP, whatever came of them there.
    pub(super) over_tcp: u64,
    /// Times to answer in microseconds.
    pub(super) latencies: Vec<u32>,
}

impl Leg {
    /// Adds another leg's observations.
    pub(super) fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.lost += other.lost;
        self.over_tcp += other.over_tcp;
        self.latencies.extend_from_slice(&other.latencies);
    }

    /// The latency that this share (0 to 1) of the answers stays below, if there are any.
    pub(super) fn latency(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        let micros = sorted.get(rank.saturating_sub(1)).or(sorted.last())?;
        Some(Duration::from_micros(u64::from(*micros)))
    }

    /// Lost queries as a share of those that are decided, 0 to 1.
    pub(super) fn loss(&self) -> f64 {
        let decided = self.answered + self.lost;
        if decided == 0 {
            0.0
        } else {
            self.lost as f64 / decided as f64
        }
    }
}

/// What the client has seen, by phase, and lately.
#[derive(Debug, Default)]
struct Notes {
    legs: [Leg; Phase::ALL.len()],
    recent: Leg,
}

impl Notes {
    /// Changes what is known of a phase and of the time since the last look alike.
    fn note(&mut self, phase: Phase, change: impl Fn(&mut Leg)) {
        if let Some(leg) = self.legs.get_mut(phase as usize) {
            change(leg);
        }
        change(&mut self.recent);
    }
}

/// A running client.
pub(super) struct Polite {
    notes: Arc<Mutex<Notes>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Polite {
    /// Asks `target` from now on, `rate` queries a second in all, on a thread of its own.
    ///
    /// # Errors
    /// No socket or no thread.
    pub(super) fn start(
        target: SocketAddr,
        script: Script,
        start: Instant,
        rate: u32,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let notes = Arc::<Mutex<Notes>>::default();
        let (stop, stopped) = watch::channel(false);
        let pause = Duration::from_secs(1) * u32::from(RESOLVERS) / rate.max(1);
        let mut resolvers = Vec::new();
        for number in 0..RESOLVERS {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::new(127, 0, number, 53), 0))?;
            socket.set_nonblocking(true)?;
            socket.connect(target)?;
            resolvers.push((number, socket));
        }
        let own_notes = Arc::clone(&notes);
        let thread = thread::Builder::new()
            .name("polite".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut tasks = JoinSet::new();
                    for (number, socket) in resolvers {
                        let Ok(socket) = UdpSocket::from_std(socket) else {
                            return;
                        };
                        let resolver = Resolver {
                            socket,
                            script,
                            start,
                            notes: Arc::clone(&own_notes),
                            waiting: VecDeque::new(),
                            over_tcp: JoinSet::new(),
                        };
                        // one after the other, not all at once
                        let first = pause * u32::from(number) / u32::from(RESOLVERS);
                        tasks.spawn(resolver.run(start + first, pause, stopped.clone()));
                    }
                    tasks.join_all().await;
                });
            })?;
        Ok(Self {
            notes,
            stop,
            thread: Some(thread),
        })
    }

    /// What was seen in a phase.
    pub(super) fn leg(&self, phase: Phase) -> Leg {
        let notes = lock(&self.notes);
        notes.legs.get(phase as usize).cloned().unwrap_or_default()
    }

    /// What was seen in all phases for which `included` says so.
    pub(super) fn legs(&self, included: impl Fn(Phase) -> bool) -> Leg {
        let mut sum = Leg::default();
        for phase in Phase::ALL.into_iter().filter(|&phase| included(phase)) {
            sum.add(&self.leg(phase));
        }
        sum
    }

    /// What was seen since the last call.
    pub(super) fn take_recent(&self) -> Leg {
        std::mem::take(&mut lock(&self.notes).recent)
    }

    /// Asks no more, and waits for what is still unanswered, as long as its patience lasts.
    pub(super) fn finish(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Polite {
    fn drop(&mut self) {
        self.finish();
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Resolver {
    socket: UdpSocket,
    script: Script,
    start: Instant,
    notes: Arc<Mutex<Notes>>,
    /// The oldest first.
    waiting: VecDeque<Waiting>,
    /// Queries that are asked again over TCP.
    over_tcp: JoinSet<()>,
}

struct Waiting {
    packet: Vec<u8>,
    sent: Instant,
    phase: Phase,
}

impl Resolver {
    async fn run(mut self, first: Instant, pause: Duration, mut stopped: watch::Receiver<bool>) {
        sleep_until(first.into()).await;
        let mut due = interval(pause);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = [0; 4096];
        loop {
            tokio::select! {
                _ = due.tick() => {
                    self.give_up();
                    while self.over_tcp.try_join_next().is_some() {}
                    self.ask().await;
                }
                received = self.socket.recv(&mut buffer) => {
                    if let Ok(len) = received {
                        self.take(buffer.get(..len).unwrap_or_default());
                    }
                }
                _ = stopped.changed() => break,
            }
        }
        while let Some(oldest) = self.waiting.front() {
            let left = (oldest.sent + PATIENCE).saturating_duration_since(Instant::now());
            if let Ok(Ok(len)) = timeout(left, self.socket.recv(&mut buffer)).await {
                self.take(buffer.get(..len).unwrap_or_default());
            }
            self.give_up();
        }
        while self.over_tcp.join_next().await.is_some() {}
    }

    async fn ask(&mut self) {
        let origin = pick(&ORIGINS);
        let host = pick(&HOSTS);
        let Ok(name) = Name::from_text(&format!("{host}.{origin}")) else {
            return;
        };
        let qtype = *pick(&[qtype::A, qtype::A, qtype::AAAA]);
        let packet = QueryBuilder::new(&name, qtype)
            .id(rand::random())
            .udp_size(1232)
            .build();
        let sent = Instant::now();
        let phase = self.script.at(sent.duration_since(self.start));
        // a query that cannot be sent is one that gets no answer
        let _ = self.socket.send(&packet).await;
        self.waiting.push_back(Waiting {
            packet,
            sent,
            phase,
        });
        lock(&self.notes).note(phase, |leg| leg.asked += 1);
    }

    fn take(&mut self, packet: &[u8]) {
        let Ok(response) = Response::parse(packet) else {
            return;
        };
        let id = response.id.to_be_bytes();
        let asked = |waiting: &Waiting| {
            let question = waiting.packet.get(12..usize::from(response.question_end));
            waiting.packet.starts_with(&id)
                && question.is_some_and(|question| response.answers_question(packet, question))
        };
        let Some(query) = self
            .waiting
            .iter()
            .position(asked)
            .and_then(|at| self.waiting.remove(at))
        else {
            return;
        };
        if response.flags.truncated() {
            self.ask_over_tcp(query);
        } else {
            let right = is_right(&response);
            conclude(&self.notes, &query, right);
        }
    }

    /// Asks again over TCP, as resolvers do when they are told to.
    fn ask_over_tcp(&mut self, query: Waiting) {
        lock(&self.notes).note(query.phase, |leg| leg.over_tcp += 1);
        let notes = Arc::clone(&self.notes);
        let ends = (self.socket.local_addr(), self.socket.peer_addr());
        self.over_tcp.spawn(async move {
            let left = PATIENCE.saturating_sub(query.sent.elapsed());
            let right = match ends {
                (Ok(own), Ok(target)) => {
                    let exchange = exchange_over_tcp(own.ip(), target, &query.packet);
                    matches!(timeout(left, exchange).await, Ok(Ok(true)))
                }
                _ => false,
            };
            conclude(&notes, &query, right);
        });
    }

    fn give_up(&mut self) {
        while let Some(oldest) = self.waiting.front()
            && oldest.sent.elapsed() >= PATIENCE
        {
            lock(&self.notes).note(oldest.phase, |leg| leg.lost += 1);
            self.waiting.pop_front();
        }
    }
}

/// Whether it says what was asked for.
fn is_right(response: &Response) -> bool {
    response.rcode == Rcode::NOERROR && response.answers > 0 && !response.flags.truncated()
}

/// Takes note of what became of a query.
fn conclude(notes: &Mutex<Notes>, query: &Waiting, right: bool) {
    let micros = u32::try_from(query.sent.elapsed().as_micros()).unwrap_or(u32::MAX);
    lock(notes).note(query.phase, |leg| {
        if right {
            leg.answered += 1;
            leg.latencies.push(micros);
        } else {
            leg.lost += 1;
        }
    });
}

/// One query and its answer over TCP, from this address: whether the answer is right.
async fn exchange_over_tcp(own: IpAddr, target: SocketAddr, query: &[u8]) -> io::Result<bool> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((own, 0).into())?;
    let mut stream = socket.connect(target).await?;
    let mut message = u16::try_from(query.len())
        .map_err(io::Error::other)?
        .to_be_bytes()
        .to_vec();
    message.extend_from_slice(query);
    stream.write_all(&message).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    let same_id = answer.get(..2) == query.get(..2);
    Ok(same_id && Response::parse(&answer).is_ok_and(|response| is_right(&response)))
}

/// One of `choices` at random.
fn pick<T>(choices: &[T]) -> &T {
    &choices[rand::random_range(0..choices.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_by_rank() {
        let mut leg = Leg::default();
        assert_eq!(leg.latency(0.5), None);
        leg.latencies = (1..=100).rev().collect();
        assert_eq!(leg.latency(0.5), Some(Duration::from_micros(50)));
        assert_eq!(leg.latency(0.99), Some(Duration::from_micros(99)));
        assert_eq!(leg.latency(1.0), Some(Duration::from_micros(100)));
    }

    #[test]
    fn loss_is_a_share_of_what_is_decided() {
        let leg = Leg {
            asked: 250,
            answered: 198,
            lost: 2,
            ..Leg::default()
        };
        assert!((leg.loss() - 0.01).abs() < 1e-9);
        assert!(Leg::default().loss().abs() < 1e-9);
    }
}
