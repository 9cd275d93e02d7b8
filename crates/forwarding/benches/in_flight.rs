//! What a forwarded query costs in the table: `admit` and `on_response` together.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has nothing better to do"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dnscrub_forwarding::{Admission, Arrival, Client, Forwarder, Policy, SocketRef, UpstreamIndex};
use dnscrub_testkit::VirtualClock;
use dnscrub_wire::{Name, Query, QueryBuilder, qtype};

const UPSTREAMS: usize = 4;
const MOST: usize = 65_536;

fn forwarder(balancing: &str, queue: u32, clock: &VirtualClock) -> Forwarder {
    let upstreams: Vec<String> = (1..=UPSTREAMS)
        .map(|host| format!(r#"{{"address": "192.0.2.{host}:53"}}"#))
        .collect();
    let pools = format!(
        r#"{{"default": {{"policy": "{balancing}", "queue": {{"length": {queue}}}, "upstreams": [{}]}}}}"#,
        upstreams.join(",")
    );
    let pools = serde_json::from_str(&pools).expect("pools");
    let policy = Policy::build(&pools, None, [1, 2, 3, 4], clock.now()).expect("policy");
    Forwarder::new(Arc::new(policy), 4, MOST, [5; 32], clock.now())
}

/// A ring of queries: each step admits one and answers the oldest of `in_flight`.
fn admit_and_answer(criterion: &mut Criterion) {
    let name = Name::from_text("www.example.com").expect("name");
    let packet = QueryBuilder::new(&name, qtype::A).udp_size(1232).build();
    let query = Query::parse(&packet).expect("query");
    let client = Client {
        address: ([192, 0, 2, 99], 5353).into(),
        reply_from: None,
        endpoint: 0,
        id: 7,
        verified: false,
        known: false,
    };
    let nobody = SocketRef {
        upstream: UpstreamIndex(0),
        socket: 0,
    };

    let mut group = criterion.benchmark_group("admit+on_response");
    group.throughput(Throughput::Elements(1));
    let cases = [
        ("least-outstanding", 64),
        ("least-outstanding", 1024),
        ("least-outstanding", 60_000),
        ("weighted-random", 1024),
        ("round-robin", 1024),
        ("consistent-hash", 1024),
        ("ordered", 1024),
    ];
    for (balancing, in_flight) in cases {
        let mut clock = VirtualClock::new();
        // where so many are in flight, nothing may be limited
        let queue = if in_flight > 2_000 { 0 } else { 4_096 };
        let mut forwarder = forwarder(balancing, queue, &clock);
        let mut ring: Vec<(SocketRef, Vec<u8>)> = vec![(nobody, packet.clone()); in_flight];
        // a batch of 64 every 640 µs is 100,000 queries a second; all are answered within 150 ms
        let batches = u32::try_from(in_flight / 64).expect("few");
        let batch_time = Duration::from_micros(640).min(Duration::from_millis(150) / batches);
        let mut at = 0_usize;
        let mut filled = false;
        group.bench_function(BenchmarkId::new(balancing, in_flight), |bencher| {
            bencher.iter(|| {
                if at.is_multiple_of(64) {
                    forwarder.begin_batch();
                    let now = clock.advance(batch_time);
                    forwarder.on_tick(now, &mut |step| panic!("{step:?}"));
                }
                let (socket, octets) = &mut ring[at];
                if filled {
                    octets[2] |= 0x80;
                    let arrival = forwarder.on_response(*socket, black_box(octets), clock.now());
                    assert!(matches!(arrival, Arrival::Deliver(_)));
                    octets[2] &= 0x7f;
                }
                match forwarder.admit(0, &query, black_box(octets), client, 0, clock.now()) {
                    Admission::Forward(chosen) => *socket = chosen,
                    refused => panic!("{refused:?}"),
                }
                at += 1;
                if at == ring.len() {
                    at = 0;
                    filled = true;
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, admit_and_answer);
criterion_main!(benches);
