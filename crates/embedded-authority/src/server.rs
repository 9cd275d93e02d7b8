//! An authority behind sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dnscrub_wire::{Name, Query, Rcode};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

use crate::authority::{Authority, Reply, Transport};
use crate::behaviour::Behaviour;
use crate::counters::{Counters, Counts, Memory};
use crate::{tcp, udp};

/// How a [`Server`] listens.
#[derive(Clone, Debug)]
pub struct Settings {
    /// UDP and TCP are served on each. Port 0 takes a free one, the same for UDP and TCP.
    /// 127.0.0.1, port 0 by default.
    pub listen: Vec<SocketAddr>,
    /// Threads that serve; 1 by default.
    pub threads: usize,
    /// Order of the answers to queries that are pipelined on one connection.
    pub tcp_order: TcpOrder,
    /// A connection without a new query for so long is closed; 10 s by default.
    pub tcp_idle: Duration,
    /// Connections of one thread; one more is closed at once. 1,000 by default.
    pub max_tcp_connections: usize,
    /// Distinct names that are remembered for [`Server::distinct_names`]; further names are not.
    /// 0, the default, remembers none.
    pub remember_names: usize,
    /// Messages that are kept as they came for [`Server::messages`]; the oldest goes first. 0, the
    /// default, keeps none.
    pub keep_messages: usize,
    /// Seed of the random loss and jitter.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            threads: 1,
            tcp_order: TcpOrder::InOrder,
            tcp_idle: Duration::from_secs(10),
            max_tcp_connections: 1000,
            remember_names: 0,
            keep_messages: 0,
            seed: 0,
        }
    }
}

/// Order of pipelined answers (RFC 7766 section 6.2.1.1 allows any).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpOrder {
    /// As the queries came.
    #[default]
    InOrder,
    /// As their delays run out; of answers due together, the last query's goes first.
    OutOfOrder,
}

/// A running name server. It has threads of its own, so it works with and without a runtime
/// around it. Dropping it closes its sockets and waits for its threads.
pub struct Server {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads have in common.
pub(crate) struct Shared {
    pub(crate) authority: ArcSwap<Authority>,
    pub(crate) behaviour: Behaviour,
    pub(crate) counters: Counters,
    pub(crate) memory: Memory,
    pub(crate) settings: Settings,
}

impl Shared {
    /// One message through the authority, as the behaviour wants it.
    pub(crate) fn answer(&self, packet: &[u8], transport: Transport, out: &mut Vec<u8>) -> Reply {
        let authority = self.authority.load();
        let reply = match self.forced(transport).zip(Query::parse(packet).ok()) {
            Some(((rcode, truncated), query)) => {
                authority.answer_with(&query, packet, rcode, truncated, out)
            }
            None => authority.answer(packet, transport, out),
        };
        match &reply {
            Reply::Silence => {
                self.counters.silent.fetch_add(1, Relaxed);
            }
            Reply::Message { rcode, truncated } => self.counters.answered(*rcode, *truncated),
            Reply::Transfer(_) => {
                self.counters.transfers.fetch_add(1, Relaxed);
            }
        }
        reply
    }

    fn forced(&self, transport: Transport) -> Option<(Rcode, bool)> {
        if let Some(rcode) = self.behaviour.rcode() {
            return Some((rcode, false));
        }
        (transport == Transport::Udp && self.behaviour.truncates())
            .then_some((Rcode::NOERROR, true))
    }
}

impl Server {
    /// Binds the addresses and starts serving.
    ///
    /// # Errors
    /// An address cannot be bound, or a thread cannot be started.
    pub fn start(authority: Authority, settings: &Settings) -> io::Result<Self> {
        let sockets = settings
            .listen
            .iter()
            .map(|&address| bind(address))
            .collect::<io::Result<Vec<_>>>()?;
        let addresses = sockets
            .iter()
            .map(|(udp, _)| udp.local_addr())
            .collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            authority: ArcSwap::from_pointee(authority),
            behaviour: Behaviour::new(Instant::now()),
            counters: Counters::default(),
            memory: Memory::new(settings.remember_names, settings.keep_messages),
            settings: settings.clone(),
        });
        let (stop, stopped) = watch::channel(false);
        let mut server = Self {
            addresses,
            shared,
            stop,
            threads: Vec::new(),
        };
        for number in 0..settings.threads.max(1) {
            // The threads share the sockets instead of a reuseport group: whoever is free takes
            // the next query, and nobody else's sockets can join the port.
            let own = sockets
                .iter()
                .map(|(udp, tcp)| Ok((udp.try_clone()?, tcp.try_clone()?)))
                .collect::<io::Result<Vec<_>>>()?;
            let shared = Arc::clone(&server.shared);
            let stopped = stopped.clone();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            server.threads.push(
                std::thread::Builder::new()
                    .name(format!("authority-{number}"))
                    .spawn(move || runtime.block_on(serve(own, shared, stopped, number as u64)))?,
            );
        }
        Ok(server)
    }

    /// The first address that is served, with its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses
            .first()
            .copied()
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }

    /// Every address that is served, in the order of the settings, with the real ports.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What goes wrong on purpose.
    #[must_use]
    pub fn behaviour(&self) -> &Behaviour {
        &self.shared.behaviour
    }

    /// Serves other zones from now on.
    pub fn replace(&self, authority: Authority) {
        self.shared.authority.store(Arc::new(authority));
    }

    /// Counts from the start until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// Distinct names asked for, swallowed queries included, as far as they are remembered.
    #[must_use]
    pub fn distinct_names(&self) -> usize {
        self.shared.memory.distinct_names()
    }

    /// Whether `name` is remembered as asked for.
    #[must_use]
    pub fn was_asked(&self, name: &Name) -> bool {
        self.shared.memory.was_asked(name)
    }

    /// The messages that were kept, oldest first, swallowed ones included.
    #[must_use]
    pub fn messages(&self) -> Vec<Vec<u8>> {
        self.shared.memory.messages()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without receivers the threads are gone already.
        self.stop.send(true).unwrap_or_default();
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_default();
        }
    }
}

async fn serve(
    sockets: Vec<(UdpSocket, TcpListener)>,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
    number: u64,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for (index, (udp, tcp)) in sockets.into_iter().enumerate() {
        let seed = shared.settings.seed ^ number << 32 ^ index as u64;
        tasks.spawn(udp::serve(udp, Arc::clone(&shared), seed));
        tasks.spawn(tcp::serve(tcp, Arc::clone(&shared), seed ^ 1 << 63));
    }
    // An error means that the server itself is gone.
    stopped
        .wait_for(|&stop| stop)
        .await
        .map(|_| ())
        .unwrap_or_default();
    tasks.shutdown().await;
}

/// Tries for a port that is free for both UDP and TCP.
const PORT_ATTEMPTS: usize = 50;

fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match bind_both(address) {
            Err(error)
                if address.port() == 0
                    && attempt < PORT_ATTEMPTS
                    && error.kind() == io::ErrorKind::AddrInUse => {}
            done => return done,
        }
    }
}

fn bind_both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        udp.set_only_v6(true)?;
    }
    // As much as the system allows; a smaller buffer only loses bursts sooner.
    udp.set_recv_buffer_size(4 << 20).unwrap_or_default();
    udp.bind(&address.into())?;
    udp.set_nonblocking(true)?;
    let udp = UdpSocket::from(udp);
    let bound = udp.local_addr()?;
    let tcp = Socket::new(
        Domain::for_address(bound),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if bound.is_ipv6() {
        tcp.set_only_v6(true)?;
    }
    tcp.set_reuse_address(true)?;
    tcp.bind(&bound.into())?;
    tcp.listen(1024)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, TcpListener::from(tcp)))
}
