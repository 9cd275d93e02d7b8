//! One fixed case of the packet path, for counting its instructions.
//!
//! `instructions CASE` prepares the case and then does its work [`ROUNDS`] times 64 queries in
//! [`measured`], which `bench/instructions` counts with Valgrind. Seeds, names and times are fixed.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench stops at the first thing wrong, and says what it did"
)]

mod traffic;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use dnscrub_scoring::response_limit::{Config, Receiver, ResponseLimit};
use dnscrub_wire::{Name, Query, QueryBuilder, Response, qtype};

use crate::traffic::{BATCH, Kind, Traffic};

/// Batches that are counted: enough that the work of each turn is in it in proportion.
const ROUNDS: usize = 512;
/// Queries before: of the usual ones, and of a flood.
const USUAL: usize = 16_000;
const FLOOD: usize = 20_000;

/// What is counted, and nothing else.
#[inline(never)]
fn measured(mut work: impl FnMut()) {
    work();
}

fn judge(kind: Kind, knows_zone: bool) {
    run(kind, knows_zone, Traffic::judge);
}

/// Judging, and counting for the detector.
fn notice(kind: Kind, knows_zone: bool) {
    run(kind, knows_zone, Traffic::notice);
}

fn run(kind: Kind, knows_zone: bool, work: impl Fn(&mut Traffic)) {
    let mut traffic = Traffic::warmed(kind, knows_zone, USUAL, FLOOD);
    for _ in 0..ROUNDS {
        traffic.arrive(kind, Duration::from_micros(BATCH as u64));
        measured(|| work(&mut traffic));
        traffic.answer();
    }
    eprintln!("{:?}", traffic.actions());
}

fn parse() {
    let name = Name::from_text("www.example.com").unwrap();
    let packet = QueryBuilder::new(&name, qtype::A).udp_size(1232).build();
    for _ in 0..ROUNDS {
        measured(|| {
            for _ in 0..BATCH {
                black_box(Query::parse(black_box(&packet)).unwrap());
            }
        });
    }
}

fn response_limit() {
    let limit = ResponseLimit::build(&Config::default(), &BTreeMap::new(), false).unwrap();
    let mut state = limit.state([1, 2, 3, 4]);
    let responses: Vec<(Response, Vec<u8>)> = (0..4096)
        .map(|number| {
            let name = Name::from_text(&format!("n{number}.example.com")).unwrap();
            let mut packet = QueryBuilder::new(&name, qtype::A).build();
            packet[2] |= 0x84;
            packet[7] = 1;
            packet.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
            (Response::parse(&packet).unwrap(), packet)
        })
        .collect();
    let mut turn = 0_u32;
    for _ in 0..ROUNDS {
        measured(|| {
            for _ in 0..BATCH {
                turn = turn.wrapping_add(1);
                let (response, packet) = &responses[turn as usize % responses.len()];
                let to = Receiver {
                    address: Ipv4Addr::from(0xc612_0000 + turn % 0x1_0000).into(),
                    verified: false,
                };
                let now = u64::from(turn) * 10_000;
                let limited = limit.account_response(&mut state, to, response, packet, now);
                let _ = black_box(limited);
            }
        });
    }
}

fn main() {
    let cases: [(&str, fn()); 14] = [
        ("parse", parse),
        ("judge-calm", || judge(Kind::Calm, false)),
        ("judge-calm-zone", || judge(Kind::Calm, true)),
        ("judge-random-names", || judge(Kind::RandomNames, false)),
        ("judge-random-names-zone", || judge(Kind::RandomNames, true)),
        ("judge-random-parents", || judge(Kind::RandomParents, false)),
        ("judge-new-sources", || judge(Kind::UsualNames, false)),
        ("notice-calm", || notice(Kind::Calm, false)),
        ("notice-calm-zone", || notice(Kind::Calm, true)),
        ("notice-random-names", || notice(Kind::RandomNames, false)),
        ("notice-random-names-zone", || {
            notice(Kind::RandomNames, true)
        }),
        ("notice-new-sources", || notice(Kind::UsualNames, false)),
        ("notice-one-name-zone", || notice(Kind::OneName, true)),
        ("response-limit", response_limit),
    ];
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| argument != "--bench");
    let Some(wanted) = wanted else {
        for (name, _) in cases {
            println!("{name} {}", ROUNDS * BATCH);
        }
        return;
    };
    let Some((_, run)) = cases.iter().find(|(name, _)| *name == wanted) else {
        eprintln!("instructions: found unknown case \"{wanted}\"; without a case it lists them");
        std::process::exit(2);
    };
    run();
}
