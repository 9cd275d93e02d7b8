//! Admitting queries and matching their responses, for counting the instructions.
//!
//! `instructions CASE` prepares the case and then does its work [`ROUNDS`] times 64 queries in
//! [`measured`], which `bench/instructions` counts with Valgrind. Seeds, names and times are fixed.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench stops at the first thing wrong, and says what it did"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use dnscrub_forwarding::{Admission, Arrival, Client, Forwarder, Policy, SocketRef};
use dnscrub_testkit::VirtualClock;
use dnscrub_wire::{Name, Query, QueryBuilder, qtype};

/// Queries that a worker takes from its socket at once.
const BATCH: usize = 64;
/// Batches that are counted.
const ROUNDS: usize = 512;
/// Batches in flight.
const AHEAD: usize = 16;

/// What is counted, and nothing else.
#[inline(never)]
fn measured(mut work: impl FnMut()) {
    work();
}

fn admit_and_answer() {
    let mut clock = VirtualClock::new();
    let upstreams: Vec<String> = (1..=4)
        .map(|host| format!(r#"{{"address": "192.0.2.{host}:53"}}"#))
        .collect();
    let pools = format!(
        r#"{{"default": {{"queue": {{"length": 4096}}, "upstreams": [{}]}}}}"#,
        upstreams.join(",")
    );
    let pools = serde_json::from_str(&pools).expect("pools");
    let policy = Policy::build(&pools, None, [1, 2, 3, 4], clock.now()).expect("policy");
    let mut forwarder = Forwarder::new(Arc::new(policy), 4, 65_536, [5; 32], clock.now());

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
    let mut ring: Vec<Option<(SocketRef, Vec<u8>)>> = vec![None; BATCH * AHEAD];
    for round in 0..ROUNDS + AHEAD {
        let now = clock.advance(Duration::from_micros(640));
        let start = round % AHEAD * BATCH;
        let mut batch = || {
            forwarder.begin_batch();
            forwarder.on_tick(now, &mut |step| panic!("{step:?}"));
            for place in &mut ring[start..start + BATCH] {
                if let Some((socket, octets)) = place {
                    octets[2] |= 0x80;
                    let arrival = forwarder.on_response(*socket, black_box(octets), now);
                    assert!(matches!(arrival, Arrival::Deliver(_)));
                    octets[2] &= 0x7f;
                }
                let (socket, octets) = place.get_or_insert_with(|| {
                    let nobody = SocketRef {
                        upstream: dnscrub_forwarding::UpstreamIndex(0),
                        socket: 0,
                    };
                    (nobody, packet.clone())
                });
                match forwarder.admit(0, &query, black_box(octets), client, 0, now) {
                    Admission::Forward(chosen) => *socket = chosen,
                    refused => panic!("{refused:?}"),
                }
            }
        };
        if round < AHEAD {
            batch();
        } else {
            measured(batch);
        }
    }
}

fn main() {
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| argument != "--bench");
    match wanted.as_deref() {
        None => println!("forward {}", ROUNDS * BATCH),
        Some("forward") => admit_and_answer(),
        Some(other) => {
            eprintln!("instructions: found unknown case \"{other}\", expected forward");
            std::process::exit(2);
        }
    }
}
