//! The real thing over loopback: this module's tasks, sockets, a real name server or one that
//! misbehaves, and clients that do. Limits in time are tested by sweeping at a later time, not by
//! waiting for it.

mod clients;
mod real_servers;
mod transfers;
mod upstreams;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use dnscrub_embedded_authority::{Authority, Server, Settings, Zone};
use dnscrub_scoring::Transport;
use dnscrub_testkit::message::{a_query, answer};
use dnscrub_wire::Rcode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::turn;
use crate::config::Memory;
use crate::config::runtime::{self, Surroundings};
use crate::data_path::{DataPath, Endpoint};
use crate::outcome::Outcome;
use crate::shared::Shared;
use crate::worker::Worker;

/// Longest time a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than the patience of the pools here.
const EXPIRED: Duration = Duration::from_secs(61);

/// Runs a test with everything on one thread.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bounded = async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("it takes too long");
    };
    LocalSet::new().block_on(&runtime, bounded);
}

/// A worker that serves TCP.
struct Proxy {
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Proxy {
    /// In front of these upstreams, the first preferred, with these lines of configuration.
    fn start(upstreams: &[SocketAddr], lines: &str) -> Self {
        let upstreams: Vec<_> = upstreams
            .iter()
            .map(|address| format!("{{ address: \"{address}\" }}"))
            .collect();
        let text = format!(
            "listen: [ {{ address: \"127.0.0.1:53\" }} ]\n\
             pools: {{ default: {{ upstreams: [ {} ], policy: ordered, health: off, patience: 60s }} }}\n\
             {lines}\n",
            upstreams.join(", ")
        );
        let configuration = runtime::load(
            Path::new("dnscrub.yaml"),
            &Memory::new("dnscrub.yaml", text),
            Surroundings::at_start(),
        )
        .unwrap_or_else(|problems| panic!("{problems}"));
        let policy = Arc::new(configuration.reloadable);
        let shared = Shared::new(Arc::clone(&policy), 1);
        let (blocks, _) = sync_channel(1);
        let path = DataPath::new(
            0,
            policy,
            Arc::clone(&shared.blocklist),
            Arc::clone(&shared.counters[0]),
            blocks,
            rand::random(),
            Instant::now(),
        );
        let worker = Worker::new(0, path, Arc::clone(&shared), dnscrub_net::BATCH);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint {
            index: 0,
            listener: 0,
        };
        super::serve(&worker, endpoint, listener).unwrap();
        Self {
            worker,
            shared,
            address,
        }
    }

    async fn connect(&self) -> Stream {
        Stream::connect(self.address).await
    }

    /// Looks at all limits as if it were so much later.
    fn sweep(&self, later: Duration) {
        turn(&self.worker, Instant::now() + later, |turn| turn.sweep());
    }

    fn count(&self, what: impl Fn(&crate::counters::WorkerCounters) -> u64) -> u64 {
        what(&self.shared.counters[0])
    }

    fn received(&self) -> u64 {
        self.count(|counters| counters.queries(Transport::Tcp).received())
    }

    fn in_flight(&self) -> u64 {
        self.count(|counters| counters.in_flight_tcp.get())
    }

    /// How many queries had this outcome.
    fn outcome(&self, wanted: Outcome) -> u64 {
        let counters = self.shared.counters[0].queries(Transport::Tcp);
        counters
            .outcomes()
            .filter(|(outcome, _)| *outcome == wanted)
            .map(|(_, count)| count)
            .sum()
    }

    /// Every query has one outcome or is in flight.
    fn check_books(&self) {
        let counters = self.shared.counters[0].queries(Transport::Tcp);
        let settled: u64 = counters.outcomes().map(|(_, count)| count).sum();
        assert_eq!(self.received(), settled + self.in_flight());
    }

    /// Waits until it is so.
    async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        until(what, || so(self)).await;
    }

    /// Waits until all connections are gone and nothing is in flight, queries being given up; the
    /// books must balance.
    async fn quiet(&self) {
        self.until("all connections to be closed", |proxy| {
            let later = Instant::now() + EXPIRED;
            turn(&proxy.worker, later, |turn| turn.sweep_queries());
            proxy.count(|counters| counters.tcp_open.get()) == 0
        })
        .await;
        self.until("nothing to be in flight", |proxy| proxy.in_flight() == 0)
            .await;
        self.check_books();
        use std::sync::atomic::Ordering::Relaxed;
        assert_eq!(self.shared.tcp_connections.load(Relaxed), 0);
        self.until("no transfer to run", |proxy| {
            proxy.shared.transfers.load(Relaxed) == 0
        })
        .await;
    }
}

/// Waits until it is so, or fails.
async fn until(what: &str, so: impl Fn() -> bool) {
    let last = Instant::now() + PATIENCE / 3;
    while !so() {
        assert!(Instant::now() < last, "waiting for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A stream of framed messages.
struct Stream(TcpStream);

impl Stream {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    async fn send(&mut self, message: &[u8]) {
        self.0.write_all(&framed(message)).await.unwrap();
    }

    /// The next message; nothing at the end of the stream.
    async fn receive(&mut self) -> Option<Vec<u8>> {
        let len = self.0.read_u16().await.ok()?;
        let mut message = vec![0; len.into()];
        self.0.read_exact(&mut message).await.ok()?;
        Some(message)
    }

    async fn ask(&mut self, query: &[u8]) -> Vec<u8> {
        self.send(query).await;
        self.receive().await.expect("no answer")
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut octets = (message.len() as u16).to_be_bytes().to_vec();
    octets.extend_from_slice(message);
    octets
}

fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

fn rcode(message: &[u8]) -> Rcode {
    Rcode(u16::from(message[3] & 15))
}

/// A real name server for example.com: host0 to host999, and 20,000 more with `big`.
fn authority(big: bool, settings: &Settings) -> Server {
    let mut text = String::from(
        "@ 3600 IN SOA ns1 hostmaster 7 3600 600 604800 300\n@ 3600 IN NS ns1\nns1 3600 IN A 192.0.2.1\n",
    );
    for number in 0..if big { 21_000 } else { 1_000 } {
        text += &format!(
            "host{number} 300 IN A 192.0.{}.{}\n",
            number >> 8 & 255,
            number & 255
        );
    }
    let zone = Zone::parse("example.com", &text).unwrap();
    Server::start(Authority::new([zone]), settings).unwrap()
}

/// A name server of our own making: what it does with each of its connections, by their number.
async fn upstream<F: Future<Output = ()> + 'static>(
    act: impl Fn(usize, Stream) -> F + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            spawn_local(act(number, Stream(stream)));
        }
    });
    address
}

/// Answers everything, one query after the other.
async fn answer_all(mut stream: Stream) {
    while let Some(query) = stream.receive().await {
        stream.send(&answer(&query, Rcode::NOERROR, 1)).await;
    }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn host(number: u16) -> Vec<u8> {
    a_query(&format!("host{}.example.com", number % 1_000), number)
}
