//! One worker's packet path between simulated clients and upstreams, on virtual time.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dnscrub::config::Memory;
use dnscrub::config::runtime::{self, Configuration, Reloadable, Startup, Surroundings};
use dnscrub::counters::WorkerCounters;
use dnscrub::data_path::{
    BlockRequest, DataPath, Disposition, Endpoint, Origin, Round, SOCKETS_PER_UPSTREAM, Sockets,
};
use dnscrub::outcome::Reason;
use dnscrub_forwarding::{SocketRef, UpstreamIndex};
use dnscrub_net::{BUFFER, Outgoing, PacketIo, RecvBatch, SendBatch, SendReport};
use dnscrub_packet_filter::BlockTable;
use dnscrub_scoring::Transport;
use dnscrub_testkit::{Event, SimNetwork};

use crate::Books;
use crate::books::count_of;

/// How often a worker looks after retries and expiry.
const TICK: Duration = Duration::from_millis(10);

/// Builds a configuration from text, beside the one that runs.
///
/// # Panics
/// The configuration is wrong.
#[must_use]
pub fn configuration(
    yaml: &str,
    running: Option<(&Startup, &Reloadable)>,
    now: Instant,
) -> Configuration {
    let whole =
        format!("listen: [ {{ name: main, address: \"192.0.2.53:53\" }} ]\nworkers: 1\n{yaml}");
    let path = Path::new("dnscrub.yaml");
    let surroundings = Surroundings {
        running,
        now,
        cores: 1,
    };
    runtime::load(path, &Memory::new(path, whole), surroundings)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// A packet path with this policy, its counters, and where its blocks go.
#[must_use]
pub fn path_of(
    policy: &Arc<Reloadable>,
    now: Instant,
) -> (
    DataPath,
    Arc<WorkerCounters>,
    Arc<ArcSwap<BlockTable>>,
    Receiver<BlockRequest>,
) {
    let counters = Arc::<WorkerCounters>::default();
    let blocklist = Arc::<ArcSwap<BlockTable>>::default();
    let (blocks, requests) = sync_channel(1_024);
    let path = DataPath::new(
        0,
        Arc::clone(policy),
        Arc::clone(&blocklist),
        Arc::clone(&counters),
        blocks,
        [1, 2, 3, 4],
        now,
    );
    (path, counters, blocklist, requests)
}

/// Something the path has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmission {
    /// To an upstream.
    Query(SocketRef, Vec<u8>),
    /// To a client, from this address.
    Answer(SocketAddr, Vec<u8>),
}

/// Where the path's sockets put what is sent.
type Outbox = Rc<RefCell<Vec<Transmission>>>;

/// A socket that only sends, into the outbox.
struct Pipe {
    /// The upstream's end, or none for the listener.
    to: Option<SocketRef>,
    outbox: Outbox,
}

impl PacketIo for Pipe {
    fn receive(&self, _: &mut RecvBatch) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn send<'a>(
        &self,
        _: &mut SendBatch,
        messages: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> SendReport {
        let mut report = SendReport::default();
        for message in messages {
            let packet = message.packet.to_vec();
            self.outbox.borrow_mut().push(match (self.to, message.to) {
                (Some(at), None) => Transmission::Query(at, packet),
                (None, Some(client)) => Transmission::Answer(client, packet),
                (to, client) => panic!("sent from {to:?} to {client:?}"),
            });
            report.sent += 1;
        }
        report
    }
}

struct Pipes {
    listener: Pipe,
    upstreams: HashMap<SocketRef, Pipe>,
}

impl Sockets for Pipes {
    type Listener = Pipe;
    type Upstream = Pipe;

    fn listener(&self, _: u16) -> Option<&Pipe> {
        Some(&self.listener)
    }

    fn upstream(&self, at: SocketRef) -> Option<&Pipe> {
        self.upstreams.get(&at)
    }
}

/// One worker between simulated clients and upstreams.
pub struct Simulation {
    /// Clients, upstreams, time.
    pub network: SimNetwork,
    /// The packets' way.
    pub path: DataPath,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// Answers that reached clients, by client, in their order.
    pub answers: BTreeMap<SocketAddr, Vec<Vec<u8>>>,
    /// Every query that went to an upstream.
    pub queries: Vec<(SocketRef, Vec<u8>)>,
    startup: Startup,
    pipes: Pipes,
    outbox: Outbox,
    /// Local addresses of the sockets to upstreams, with what they are connected to.
    sockets: HashMap<SocketAddr, (SocketRef, SocketAddr)>,
    locals: HashMap<SocketRef, SocketAddr>,
    next_port: u16,
    round: Round,
    /// Questions, from the id on, that clients asked: what may go to upstreams.
    asked: HashSet<Vec<u8>>,
    _blocks: Receiver<BlockRequest>,
}

/// Where clients send their queries.
#[must_use]
pub fn listener() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 53), 53).into()
}

impl Simulation {
    /// A worker that is configured so, in a network without upstreams yet.
    #[must_use]
    pub fn new(yaml: &str, seed: u64) -> Self {
        let mut network = SimNetwork::new(seed);
        let now = network.now();
        let Configuration {
            startup,
            reloadable,
            ..
        } = configuration(yaml, None, now);
        let policy = Arc::new(reloadable);
        let (path, counters, _, blocks) = path_of(&policy, now);
        network.bind(listener());
        network.set_timer(listener(), now + TICK);
        let outbox = Outbox::default();
        let mut simulation = Self {
            network,
            path,
            counters,
            answers: BTreeMap::new(),
            queries: Vec::new(),
            startup,
            pipes: Pipes {
                listener: Pipe {
                    to: None,
                    outbox: Rc::clone(&outbox),
                },
                upstreams: HashMap::new(),
            },
            outbox,
            sockets: HashMap::new(),
            locals: HashMap::new(),
            next_port: 1_024,
            round: Round::new(dnscrub_net::BATCH),
            asked: HashSet::new(),
            _blocks: blocks,
        };
        simulation.open_sockets();
        simulation
    }

    /// Goes over to another configuration.
    pub fn reload(&mut self, yaml: &str) {
        let now = self.network.now();
        let running = Arc::clone(self.path.policy());
        let new = configuration(yaml, Some((&self.startup, &running)), now);
        self.path.adopt(Arc::new(new.reloadable), now);
        self.open_sockets();
    }

    /// A client asks at `when`.
    pub fn ask(&mut self, when: Instant, client: SocketAddr, query: &[u8]) {
        self.network.bind(client);
        self.asked
            .insert(query.get(2..).unwrap_or_default().to_vec());
        self.network.send_at(when, client, listener(), query);
    }

    /// Lets everything happen that is due until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while let Some(event) = self.network.next_until(end) {
            self.handle(event);
            assert_eq!(
                self.books().open(),
                self.unsettled() as i64,
                "received = forwarded + answered + dropped + expired + in flight + queued"
            );
        }
    }

    /// Queries in flight, and those that wait for room at an upstream.
    pub fn unsettled(&mut self) -> usize {
        let forwarder = self.path.forwarder();
        forwarder.in_flight() + forwarder.queued()
    }

    /// Lets everything happen that is due in the next `time`.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.network.now() + time);
    }

    /// What became of the queries so far.
    #[must_use]
    pub fn books(&self) -> Books {
        Books::of([&*self.counters], Transport::Udp)
    }

    /// Queries that ended for this reason.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        count_of(&self.counters, Transport::Udp, reason)
    }

    /// Answers that reached clients.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answers.values().map(Vec::len).sum()
    }

    fn handle(&mut self, event: Event) {
        let now = self.network.now();
        match event {
            Event::Timer { .. } => {
                let mut closed: Vec<UpstreamIndex> = Vec::new();
                self.path
                    .tick(now, &self.pipes, &mut self.round, &mut closed);
                self.transmit();
                for upstream in closed {
                    self.close(upstream);
                }
                self.network.set_timer(listener(), now + TICK);
            }
            Event::Datagram { from, to, payload } if to == listener() => {
                self.on_query(from, &payload, now);
            }
            Event::Datagram {
                to, mut payload, ..
            } => match self.sockets.get(&to) {
                Some(&(at, _)) => {
                    let (came, len) = (payload.clone(), payload.len());
                    let limited = self.count(Reason::ResponseLimit);
                    // what stands behind the packet in the buffer must not matter
                    payload.resize(BUFFER, 0xa5);
                    let delivered = self.path.on_response(at, &mut payload, len, now);
                    let limited = self.count(Reason::ResponseLimit) > limited;
                    if let Some((client, len)) = delivered {
                        assert!(limited || payload[2..len] == came[2..]);
                        assert_eq!(payload.first_chunk(), Some(&client.id.to_be_bytes()));
                        self.network
                            .send(listener(), client.address, &payload[..len]);
                    } else {
                        assert!(limited || payload[..came.len()] == came);
                    }
                    self.path.release(now, &self.pipes, &mut self.round);
                    self.transmit();
                }
                None => self.answers.entry(to).or_default().push(payload),
            },
            Event::Refused { to, .. } => {
                if let Some(&(at, _)) = self.sockets.get(&to) {
                    self.path.refused(at, now, &self.pipes, &mut self.round);
                    self.transmit();
                }
            }
        }
    }

    fn on_query(&mut self, client: SocketAddr, query: &[u8], now: Instant) {
        let mut buffer = [0xa5; BUFFER];
        buffer[..query.len()].copy_from_slice(query);
        let origin = Origin {
            client,
            reply_from: None,
            ttl: Some(60),
            endpoint: Endpoint {
                index: 0,
                listener: 0,
            },
            transport: Transport::Udp,
        };
        self.path.forwarder().begin_batch();
        let source = self.path.admit_source(client.ip());
        match self
            .path
            .on_query(&mut buffer, query.len(), &origin, source, now)
        {
            Disposition::ToUpstream(at) => {
                assert!(
                    buffer[2..query.len()] == query[2..],
                    "what is forwarded is what was judged"
                );
                self.outbox
                    .borrow_mut()
                    .push(Transmission::Query(at, buffer[..query.len()].to_vec()));
            }
            Disposition::Reply(len) => {
                self.outbox
                    .borrow_mut()
                    .push(Transmission::Answer(client, buffer[..len].to_vec()));
            }
            Disposition::Silence => {}
        }
        self.path.release(now, &self.pipes, &mut self.round);
        self.transmit();
    }

    /// Hands what the path has sent to the network.
    fn transmit(&mut self) {
        for transmission in self.outbox.take() {
            match transmission {
                Transmission::Query(at, packet) => {
                    assert!(
                        self.asked.contains(&packet[2..]),
                        "what goes to an upstream was asked by a client, but for its id"
                    );
                    // a socket that is not open yet takes nothing; the query is sent again later
                    if let Some(&local) = self.locals.get(&at) {
                        let (_, peer) = self.sockets[&local];
                        self.network.send(local, peer, &packet);
                    }
                    self.queries.push((at, packet));
                }
                Transmission::Answer(client, packet) => {
                    self.network.send(listener(), client, &packet);
                }
            }
        }
    }

    fn open_sockets(&mut self) {
        let upstreams: Vec<_> = self
            .path
            .forwarder()
            .upstreams()
            .map(|(index, upstream)| (index, upstream.address()))
            .collect();
        for (upstream, address) in upstreams {
            for socket in 0..SOCKETS_PER_UPSTREAM {
                let at = SocketRef { upstream, socket };
                if self.locals.contains_key(&at) {
                    continue;
                }
                let local = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 53), self.next_port));
                self.next_port += 1;
                self.network.bind(local);
                self.sockets.insert(local, (at, address));
                self.locals.insert(at, local);
                let outbox = Rc::clone(&self.outbox);
                let pipe = Pipe {
                    to: Some(at),
                    outbox,
                };
                self.pipes.upstreams.insert(at, pipe);
            }
        }
    }

    fn close(&mut self, upstream: UpstreamIndex) {
        for socket in 0..SOCKETS_PER_UPSTREAM {
            let at = SocketRef { upstream, socket };
            self.pipes.upstreams.remove(&at);
            if let Some(local) = self.locals.remove(&at) {
                self.sockets.remove(&local);
                self.network.unbind(local);
            }
        }
    }
}
