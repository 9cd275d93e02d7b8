//! No heap allocation for any UDP query, forwarded, answered or dropped, once the tables are there:
//! counted by an allocator of its own, over real sockets and the very rounds a worker runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dnscrub::data_path::{
    Clock, DataPath, Disposition, Endpoint, Origin, Round, SOCKETS_PER_UPSTREAM, Sockets,
    query_round, response_round,
};
use dnscrub::dnstap;
use dnscrub::outcome::{Answer, Outcome, Reason};
use dnscrub::shared::Shared;
use dnscrub_forwarding::{SocketRef, UpstreamIndex};
use dnscrub_net::{
    BUFFER, UdpListener, UdpListenerOptions, UdpUpstream, UdpUpstreamOptions, bind_listener,
    connect_upstream,
};
use dnscrub_packet_filter::{BlocklistStore, FilterReason, Limits, Origin as Blocker};
use dnscrub_scoring::Transport;
use dnscrub_testkit::CountingAllocator;
use dnscrub_testkit::authority::{Authority, Server, Settings, Zone};
use dnscrub_testkit::message::{a_query, malformed_sample, query};
use dnscrub_tests::{configuration, path_of, wait_until};
use dnscrub_wire::{Malformed, qtype};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Every kind of rule and signal that looks at each query.
// the same few questions over and over are no attack here
const BUSY_POLICY: &str = r#"
signals: { rate: { questions: { points: 0 } } }
rules:
  - { name: forbidden, when: { qname: { under: forbidden.example.com } }, do: drop }
  - { name: refused, when: { qtype: ANY }, do: refuse }
  - { name: pattern, when: { qname: { regex: "^evil[0-9]+[.]" } }, do: { action: nxdomain } }
  - { name: glob, when: { qname: { glob: "**.trap.example.com" } }, do: { action: truncate } }
  - { name: slowly, when: { qtype: MX }, do: { rate-limit: { rate: 10/s, burst: 20, per: { v4: 32 } } } }
  - { name: blocking, when: { qname: { exact: block.me.example.com } }, do: { block: 10m } }
  - name: shaped
    when: { qname: { first-label: { length: 40.., alphabet: hex, entropy: 3.. } } }
    do: { score: 70 }
"#;

/// A pool for configurations of which only another part is looked at.
const POOL: &str = "pools: { default: { upstreams: [ { address: \"192.0.2.1:53\" } ] } }\n";

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// One worker's sockets, and the worker without its thread.
struct Worker {
    path: DataPath,
    round: Round,
    sockets: WorkerSockets,
    // a closed channel would fail in another way than a full one
    _blocks: std::sync::mpsc::Receiver<dnscrub::data_path::BlockRequest>,
}

struct WorkerSockets {
    listener: UdpListener,
    upstreams: Vec<Vec<UdpUpstream>>,
}

impl Sockets for WorkerSockets {
    type Listener = UdpListener;
    type Upstream = UdpUpstream;

    fn listener(&self, index: u16) -> Option<&UdpListener> {
        (index == 0).then_some(&self.listener)
    }

    fn upstream(&self, at: SocketRef) -> Option<&UdpUpstream> {
        self.upstreams
            .get(usize::from(at.upstream.0))?
            .get(usize::from(at.socket))
    }
}

const ENDPOINT: Endpoint = Endpoint {
    index: 0,
    listener: 0,
};

impl Worker {
    fn new(listen: Ipv4Addr, upstream: SocketAddr, yaml: &str) -> Self {
        Self::with_limit(listen, upstream, 2_000, yaml)
    }

    /// With an upstream that takes at most so many queries at a time.
    fn with_limit(listen: Ipv4Addr, upstream: SocketAddr, most: u32, yaml: &str) -> Self {
        let pools = format!(
            "pools: {{ default: {{ upstreams: [ {{ address: \"{upstream}\", max-outstanding: {most} }} ] }} }}\n"
        );
        let now = Instant::now();
        let policy = Arc::new(configuration(&(pools + yaml), None, now).reloadable);
        let (mut path, _, blocklist, _blocks) = path_of(&policy, now);
        let mut store = BlocklistStore::new(Limits::default());
        store
            .add(
                "127.66.0.0/16".parse().unwrap(),
                "test",
                Blocker::Cli,
                SystemTime::now(),
                None,
            )
            .unwrap();
        blocklist.store(store.publish());
        let listener = bind_listener((listen, 0).into(), &UdpListenerOptions::default()).unwrap();
        let addresses: Vec<_> = path
            .forwarder()
            .upstreams()
            .map(|(_, upstream)| upstream.address())
            .collect();
        let open = |address: SocketAddr| {
            (0..SOCKETS_PER_UPSTREAM)
                .map(|_| connect_upstream(address, &UdpUpstreamOptions::default(), []).unwrap())
                .collect()
        };
        let sockets = WorkerSockets {
            listener,
            upstreams: addresses.into_iter().map(open).collect(),
        };
        Self {
            path,
            round: Round::new(dnscrub_net::BATCH),
            sockets,
            _blocks,
        }
    }

    fn port(&self) -> u16 {
        self.sockets.listener.local_addr().unwrap().port()
    }

    fn settled(&self) -> u64 {
        let queries = self.path.counters().queries(Transport::Udp);
        queries.outcomes().map(|(_, count)| count).sum()
    }

    fn count(&self, wanted: Outcome) -> u64 {
        let queries = self.path.counters().queries(Transport::Udp);
        let mut outcomes = queries.outcomes();
        outcomes
            .find(|&(outcome, _)| outcome == wanted)
            .map_or(0, |(_, count)| count)
    }

    /// Everything a worker does once: queries, responses, what is due. Returns whether there was
    /// anything.
    fn turn(&mut self) -> bool {
        let Self {
            path,
            round,
            sockets,
            ..
        } = self;
        let listener = (ENDPOINT, &sockets.listener);
        let mut taken = some(query_round(path, listener, sockets, round, &SystemClock));
        for (index, open) in (0..).zip(&sockets.upstreams) {
            for (socket, upstream) in (0..).zip(open) {
                let at = SocketRef {
                    upstream: UpstreamIndex(index),
                    socket,
                };
                taken |= some(response_round(
                    path,
                    (at, upstream),
                    sockets,
                    round,
                    &SystemClock,
                ));
            }
        }
        path.tick(Instant::now(), sockets, round, &mut Nothing);
        taken
    }
}

/// Where no upstream is ever closed.
struct Nothing;

impl Extend<UpstreamIndex> for Nothing {
    fn extend<T: IntoIterator<Item = UpstreamIndex>>(&mut self, closed: T) {
        assert_eq!(closed.into_iter().count(), 0);
    }
}

fn some(taken: io::Result<usize>) -> bool {
    match taken {
        Ok(taken) => taken > 0,
        Err(failure) if failure.kind() == io::ErrorKind::WouldBlock => false,
        Err(failure) => panic!("{failure}"),
    }
}

fn upstream() -> Server {
    let zone =
        "@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n* 60 IN A 192.0.2.9\n";
    let authority = Authority::new([Zone::parse("example.com", zone).unwrap()]);
    Server::start(authority, &Settings::default()).unwrap()
}

/// Sends the packets from `client`, and has the worker see them through to their outcomes. Returns
/// what the worker allocated.
fn see_through(worker: &mut Worker, client: &UdpSocket, packets: &[Vec<u8>]) -> u64 {
    let expected = worker.settled() + packets.len() as u64;
    let mut allocations = 0;
    // as many as the smallest receive buffer holds
    let batch = if packets[0].len() > 1_000 { 4 } else { 32 };
    for batch in packets.chunks(batch) {
        for packet in batch {
            client.send(packet).unwrap();
        }
        let expected = expected.min(worker.settled() + batch.len() as u64);
        wait_until("all queries have their outcome", || {
            let ((), counts) = CountingAllocator::count(|| while worker.turn() {});
            allocations += counts.allocations + counts.frees;
            worker.settled() >= expected
        });
    }
    assert_eq!(worker.settled(), expected);
    allocations
}

fn client_of(worker: &Worker, from: [u8; 4]) -> UdpSocket {
    let to: Ipv4Addr = match worker.sockets.listener.local_addr().unwrap().ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::new(127, 0, 0, 7),
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("the listeners here are on IPv4"),
    };
    let client = UdpSocket::bind((Ipv4Addr::from(from), 0)).unwrap();
    client.connect((to, worker.port())).unwrap();
    client
}

/// What it is, where it is sent from, what is sent, and the one outcome it must have.
type Case = (&'static str, [u8; 4], Vec<Vec<u8>>, Outcome);

fn cases() -> Vec<Case> {
    use dnscrub::outcome::Answer::{FormErr, NxDomain, Refused, Truncated};
    let one = |packet: Vec<u8>| vec![packet; 300];
    let named = |prefix: &str| -> Vec<Vec<u8>> {
        (0..300)
            .map(|n| a_query(&format!("{prefix}{n}.example.com"), n))
            .collect()
    };
    let local = [127, 0, 0, 1];
    vec![
        ("forwarded", local, named("www"), Outcome::Forwarded),
        (
            "forwarded with EDNS",
            local,
            one(query("a.example.com", qtype::A)
                .udp_size(1232)
                .dnssec_ok(true)
                .option(10, &[1; 8])
                .build()),
            Outcome::Forwarded,
        ),
        (
            "too long to be kept for a retry",
            local,
            one(query("a.example.com", qtype::A)
                .option(65_001, &[7; 600])
                .build()),
            Outcome::Forwarded,
        ),
        (
            "blocked",
            [127, 66, 1, 2],
            named("www"),
            Outcome::Dropped(Reason::Filter(FilterReason::Blocked)),
        ),
        (
            "dropped by a rule",
            local,
            one(a_query("x.forbidden.example.com", 1)),
            Outcome::Dropped(Reason::Rule),
        ),
        (
            "refused by a rule",
            local,
            one(query("a.example.com", qtype::ANY).udp_size(1232).build()),
            Outcome::Answered(Refused, Reason::Rule),
        ),
        (
            "nxdomain by a regular expression",
            local,
            named("evil1."),
            Outcome::Answered(NxDomain, Reason::Rule),
        ),
        (
            "truncated by a glob",
            local,
            one(a_query("a.b.trap.example.com", 1)),
            Outcome::Answered(Truncated, Reason::Rule),
        ),
        (
            "challenged for its shape",
            local,
            one(a_query(
                "0123456789abcdef0123456789abcdef0123456789abcdef.example.com",
                1,
            )),
            Outcome::Answered(Truncated, Reason::Band),
        ),
        (
            "malformed and dropped",
            local,
            one(malformed_sample(Malformed::TrailingOctets)),
            Outcome::Dropped(Reason::Malformed(Malformed::TrailingOctets)),
        ),
        (
            "malformed and answered",
            local,
            one(malformed_sample(Malformed::ManyOpts)),
            Outcome::Answered(FormErr, Reason::Malformed(Malformed::ManyOpts)),
        ),
        (
            "a transfer over UDP",
            local,
            one(query("example.com", qtype::AXFR).build()),
            Outcome::Answered(Refused, Reason::TransferOverUdp),
        ),
        (
            "larger than the buffer",
            local,
            vec![vec![0x55; BUFFER + 100]; 50],
            Outcome::Dropped(Reason::Oversized),
        ),
    ]
}

/// Answers over their limit: withheld, truncated, and exchanged for BADCOOKIE.
#[test]
fn of_answers_over_a_response_limit() {
    let server = upstream();
    for (slip, answer) in [
        ("slip: 0", None),
        ("slip: 1, slip-as: truncate", Some(Answer::Truncated)),
        ("slip: 1, slip-as: badcookie", Some(Answer::BadCookie)),
    ] {
        let yaml = format!(
            "{BUSY_POLICY}response-limit: {{ exempt: [], answers: 1/h, nxdomain: 1/h, errors: 1/h, {slip} }}\n"
        );
        let mut worker = Worker::new(Ipv4Addr::LOCALHOST, server.address(), &yaml);
        let client = client_of(&worker, [127, 0, 0, 1]);
        let packets: Vec<Vec<u8>> = [
            "www.example.com",
            "evil1.example.com",
            "x.missing.example.com",
        ]
        .iter()
        .map(|name| {
            query(name, qtype::A)
                .udp_size(1232)
                .option(10, &[1; 8])
                .build()
        })
        .cycle()
        .take(300)
        .collect();
        see_through(&mut worker, &client, &packets);
        assert_eq!(see_through(&mut worker, &client, &packets), 0, "{slip}");
        let limited = worker
            .path
            .counters()
            .queries(Transport::Udp)
            .outcomes()
            .filter(|(outcome, _)| match *outcome {
                Outcome::Answered(made, Reason::ResponseLimit) => Some(made) == answer,
                Outcome::Dropped(Reason::ResponseLimit) => answer.is_none(),
                _ => false,
            })
            .map(|(_, count)| count)
            .sum::<u64>();
        assert!(limited >= 590, "{slip}: {limited}");
    }
}

#[test]
fn of_any_outcome() {
    assert!(CountingAllocator::is_installed());
    let server = upstream();
    for listen in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
        let mut worker = Worker::new(listen, server.address(), BUSY_POLICY);
        for (what, from, packets, outcome) in cases() {
            let client = client_of(&worker, from);
            // what is set up once, such as a thread's own state in the standard library
            see_through(&mut worker, &client, &packets);
            let before = worker.count(outcome);
            let allocations = see_through(&mut worker, &client, &packets);
            assert_eq!(allocations, 0, "{what}, listening on {listen}");
            let counted = worker.count(outcome) - before;
            assert_eq!(counted, packets.len() as u64, "{what}: {outcome:?}");
        }
    }
}

/// With dnstap, to a file that keeps up and to a collector that never comes.
#[test]
fn of_any_outcome_with_dnstap() {
    let server = upstream();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display();
    for (keeps_up, target) in [
        (true, format!("file: {here}/queries.dnstap")),
        (false, format!("unix: {here}/nobody, buffer: 256KiB")),
    ] {
        let dnstap = format!("{BUSY_POLICY}dnstap: {{ {target} }}\n");
        let mut worker = Worker::new(Ipv4Addr::LOCALHOST, server.address(), &dnstap);
        let settings = configuration(&format!("{POOL}{dnstap}"), None, Instant::now())
            .startup
            .dnstap
            .unwrap();
        let shared = Shared::new(Arc::clone(worker.path.policy()), 1);
        let address = worker.sockets.listener.local_addr().unwrap();
        let (writer, mut taps) = dnstap::start(&settings, &[address], &shared).unwrap();
        worker.path.set_tap(taps.pop());
        let mut sent = 0;
        for (what, from, packets, outcome) in cases() {
            let client = client_of(&worker, from);
            see_through(&mut worker, &client, &packets);
            let allocations = see_through(&mut worker, &client, &packets);
            assert_eq!(allocations, 0, "{what}, {target}");
            // datagrams that do not fit the buffer are not copied
            if outcome != Outcome::Dropped(Reason::Oversized) {
                sent += 2 * packets.len() as u64;
            }
        }
        drop(worker);
        writer.stop();
        let lost = shared.counters[0].dnstap_lost.get() + shared.dnstap.lost();
        if keeps_up {
            assert_eq!(lost, 0);
            assert!(shared.dnstap.frames() > sent, "{}", shared.dnstap.frames());
        } else {
            assert!(shared.counters[0].dnstap_lost.get() > 0);
            assert_eq!(lost, sent);
        }
    }
}

#[test]
fn of_queries_that_wait_for_room() {
    let server = upstream();
    let listen = Ipv4Addr::LOCALHOST;
    let mut worker = Worker::with_limit(listen, server.address(), 2, BUSY_POLICY);
    let client = client_of(&worker, [127, 0, 0, 1]);
    let packets: Vec<_> = (0..300)
        .map(|n| a_query(&format!("www{n}.example.com"), n))
        .collect();
    see_through(&mut worker, &client, &packets);
    assert_eq!(see_through(&mut worker, &client, &packets), 0);
    let (waits, _) = worker.path.counters().queue_wait.read();
    assert!(waits.iter().sum::<u64>() > 300, "{waits:?}");
    assert_eq!(worker.count(Outcome::Forwarded), 600);
}

#[test]
fn of_queries_over_a_rate_limit() {
    let server = upstream();
    let mut worker = Worker::new(Ipv4Addr::LOCALHOST, server.address(), BUSY_POLICY);
    let client = client_of(&worker, [127, 0, 0, 1]);
    let packets = vec![query("a.example.com", qtype::MX).build(); 1_000];
    see_through(&mut worker, &client, &packets);
    assert_eq!(see_through(&mut worker, &client, &packets), 0);
    assert!(worker.count(Outcome::Dropped(Reason::RateLimit)) > 1_000);
}

#[test]
fn of_queries_whose_source_a_rule_blocks() {
    let server = upstream();
    let mut worker = Worker::new(Ipv4Addr::LOCALHOST, server.address(), BUSY_POLICY);
    let client = client_of(&worker, [127, 0, 0, 1]);
    let packets = vec![a_query("block.me.example.com", 1); 2_000];
    see_through(&mut worker, &client, &packets[..100]);
    // more than the queue to the blocklist takes: what does not fit is counted
    assert_eq!(see_through(&mut worker, &client, &packets), 0);
    assert!(worker.path.counters().lost_blocks.get() > 0);
}

/// A datagram for each query: nobody answers, so it is sent again, and given up.
#[test]
fn of_retries_and_expiry() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let yaml = BUSY_POLICY;
    let upstream = silent.local_addr().unwrap();
    let mut worker = Worker::new(Ipv4Addr::LOCALHOST, upstream, yaml);
    let mut now = Instant::now();
    let mut buffer = vec![0; BUFFER];
    let packet = a_query("www.example.com", 1);
    let mut allocations = 0;
    for round in 0..4 {
        let ((), counts) = CountingAllocator::count(|| {
            for port in 0..500 {
                let origin = origin(Ipv4Addr::new(192, 0, 2, 1), 1_024 + port);
                buffer[..packet.len()].copy_from_slice(&packet);
                let path = &mut worker.path;
                let source = path.admit_source(origin.client.ip());
                let done = path.on_query(&mut buffer, packet.len(), &origin, source, now);
                assert!(matches!(done, Disposition::ToUpstream(_)));
            }
            for _ in 0..300 {
                now += Duration::from_millis(10);
                worker
                    .path
                    .tick(now, &worker.sockets, &mut worker.round, &mut Nothing);
            }
        });
        if round > 0 {
            allocations += counts.allocations + counts.frees;
        }
    }
    assert_eq!(allocations, 0);
    assert_eq!(worker.path.forwarder().in_flight(), 0);
    assert!(worker.path.counters().retries.get() >= 2_000);
}

/// New sources by the ten thousand: the tables that know sources have a fixed size.
#[test]
fn of_sources_never_seen_before() {
    let server = upstream();
    let mut worker = Worker::new(Ipv4Addr::LOCALHOST, server.address(), BUSY_POLICY);
    let mut now = Instant::now();
    let mut buffer = vec![0; BUFFER];
    let packets = [
        query("a.example.com", qtype::MX).build(),
        a_query("x.forbidden.example.com", 1),
        a_query("www.example.com", 1),
    ];
    let mut allocations = 0;
    for source in 0..60_000_u32 {
        let origin = origin(Ipv4Addr::from(0x0a00_0000 + source * 17), 53);
        let packet = &packets[source as usize % packets.len()];
        buffer[..packet.len()].copy_from_slice(packet);
        let ((), counts) = CountingAllocator::count(|| {
            let path = &mut worker.path;
            let source = path.admit_source(origin.client.ip());
            let _ = path.on_query(&mut buffer, packet.len(), &origin, source, now);
        });
        now += Duration::from_micros(20);
        if source >= 100 {
            allocations += counts.allocations + counts.frees;
        }
    }
    assert_eq!(allocations, 0);
}

fn origin(client: Ipv4Addr, port: u16) -> Origin {
    Origin {
        client: (client, port).into(),
        reply_from: None,
        ttl: Some(55),
        endpoint: ENDPOINT,
        transport: Transport::Udp,
    }
}
