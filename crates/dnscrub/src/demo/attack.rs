//! The attack: floods from forged-looking sources, bounded in rate and time.
//!
//! One socket on the wildcard address sends them all: the kernel lets a packet leave from any
//! address of 127.0.0.0/8, so every query can have a source of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dnscrub_net::{
    BATCH, BUFFER, Outgoing, PacketIo as _, RecvBatch, SendBatch, UdpListener, UdpListenerOptions,
    bind_listener,
};
use dnscrub_wire::{Name, NameError, QueryBuilder, Rcode, Response, qtype};
use rand::RngExt as _;
use rand::rngs::ThreadRng;

use super::script::{Phase, Script};
use super::zones::HOSTS;

/// Time between two bursts.
const PAUSE: Duration = Duration::from_millis(2);
/// Sources of the ANY flood.
const ANY_SOURCES: u8 = 12;

/// What the attackers have sent, and what they got for it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: AtomicU64,
    answered: AtomicU64,
    denied: AtomicU64,
    truncated: AtomicU64,
}

/// [`Tally`] at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spoils {
    /// Queries sent.
    pub(super) sent: u64,
    /// Whole answers received.
    pub(super) answered: u64,
    /// Answers that there is no such name.
    pub(super) denied: u64,
    /// Answers that told to come back over TCP.
    pub(super) truncated: u64,
}

/// A running attack. Dropping it ends it.
pub(super) struct Attack {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    /// Follows the script from `start` on, with `rate` queries a second while an attack is on.
    ///
    /// # Errors
    /// No socket or no thread.
    pub(super) fn start(
        target: SocketAddr,
        script: Script,
        start: Instant,
        rate: u32,
    ) -> io::Result<Self> {
        let options = UdpListenerOptions {
            reuse_port: false,
            receive_ttl: false,
            receive_buffer: Some(1 << 20),
            ..UdpListenerOptions::default()
        };
        let socket = bind_listener((Ipv4Addr::UNSPECIFIED, 0).into(), &options)?;
        let tally = Arc::<Tally>::default();
        let stop = Arc::<AtomicBool>::default();
        let (own_tally, own_stop) = (Arc::clone(&tally), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("attack".to_owned())
            .spawn(move || {
                let mut flood = Flood::new(socket, target, own_tally);
                while !own_stop.load(Relaxed) {
                    let elapsed = start.elapsed();
                    flood.burst(script.at(elapsed), rate);
                    if elapsed > script.total + Duration::from_secs(1) {
                        return;
                    }
                    thread::sleep(PAUSE);
                }
            })?;
        Ok(Self {
            tally,
            stop,
            thread: Some(thread),
        })
    }

    /// What it has come to so far.
    pub(super) fn spoils(&self) -> Spoils {
        Spoils {
            sent: self.tally.sent.load(Relaxed),
            answered: self.tally.answered.load(Relaxed),
            denied: self.tally.denied.load(Relaxed),
            truncated: self.tally.truncated.load(Relaxed),
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Flood {
    socket: UdpListener,
    target: SocketAddr,
    tally: Arc<Tally>,
    sender: SendBatch,
    receiver: RecvBatch,
    random: ThreadRng,
    last: Instant,
    /// Queries that are due, fractions included.
    due: f64,
}

impl Flood {
    fn new(socket: UdpListener, target: SocketAddr, tally: Arc<Tally>) -> Self {
        Self {
            socket,
            target,
            tally,
            sender: SendBatch::new(BATCH),
            receiver: RecvBatch::new(BATCH, BUFFER),
            random: rand::rng(),
            last: Instant::now(),
            due: 0.0,
        }
    }

    /// Sends what is due since the last burst, and looks at what came back.
    fn burst(&mut self, phase: Phase, rate: u32) {
        let now = Instant::now();
        let rate = if phase.is_attack() {
            f64::from(rate)
        } else {
            0.0
        };
        // after a long pause the rate stays bounded: nothing is made up for beyond 20 ms
        let elapsed = now.duration_since(self.last).min(Duration::from_millis(20));
        self.last = now;
        self.due += rate * elapsed.as_secs_f64();
        let queries: Vec<_> = (0..self.due as u64)
            .filter_map(|_| self.query(phase).ok())
            .collect();
        self.due = self.due.fract();
        let report = self.socket.send(
            &mut self.sender,
            queries.iter().map(|(source, packet)| Outgoing {
                packet,
                to: Some(self.target),
                from: Some((IpAddr::V4(*source), 0)),
            }),
        );
        self.tally.sent.fetch_add(report.sent as u64, Relaxed);
        while let Ok(received) = self.socket.receive(&mut self.receiver) {
            for index in 0..received {
                match Response::parse(self.receiver.packet(index)) {
                    Ok(response) if response.flags.truncated() => &self.tally.truncated,
                    Ok(response) if response.rcode == Rcode::NXDOMAIN => &self.tally.denied,
                    _ => &self.tally.answered,
                }
                .fetch_add(1, Relaxed);
            }
            if received < BATCH {
                break;
            }
        }
    }

    fn query(&mut self, phase: Phase) -> Result<(Ipv4Addr, Vec<u8>), NameError> {
        let random = &mut self.random;
        let (source, name, qtype) = match phase {
            Phase::RandomNames | Phase::Before | Phase::After => {
                let source = Ipv4Addr::new(
                    127,
                    random.random_range(64..=255),
                    random.random(),
                    random.random_range(1..=254),
                );
                let length = random.random_range(12..=20);
                let label: String = (0..length)
                    .map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]))
                    .collect();
                (source, format!("{label}.example.test"), qtype::A)
            }
            Phase::OneNetwork => {
                let source = Ipv4Addr::new(127, 66, 6, random.random_range(1..=254));
                let host = HOSTS[random.random_range(0..HOSTS.len())];
                (source, format!("{host}.example.test"), qtype::A)
            }
            Phase::AnyFlood => {
                let number = random.random_range(0..ANY_SOURCES);
                let source = Ipv4Addr::new(127, 100 + number, number, 7);
                (source, "example.test".to_owned(), qtype::ANY)
            }
        };
        let packet = QueryBuilder::new(&Name::from_text(&name)?, qtype)
            .id(random.random())
            .udp_size(4096)
            .build();
        Ok((source, packet))
    }
}

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
