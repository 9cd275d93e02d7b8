//! What limiting responses and checking cookies costs.
#![allow(clippy::unwrap_used, reason = "a bench stops at the first thing wrong")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{Criterion, criterion_group, criterion_main};
use dnscrub_scoring::cookies::Cookies;
use dnscrub_scoring::response_limit::{Config, Receiver, ResponseLimit};
use dnscrub_wire::{Name, Query, QueryBuilder, Response, qtype};

/// Names and networks, so that tables are not all in the nearest cache.
const NAMES: usize = 20_000;

/// A response to a query for `name`: with an address, or with NXDOMAIN and a SOA record.
fn response(name: &str, exists: bool) -> (Response, Vec<u8>) {
    let name: Name = name.parse().unwrap();
    let mut packet = QueryBuilder::new(&name, qtype::A).build();
    packet[2] |= 0x84;
    if exists {
        packet[7] = 1;
        packet.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    } else {
        packet[3] = 3;
        packet[9] = 1;
        packet.extend_from_slice(b"\xc0\x12\0\x06\0\x01\0\0\0\x3c\0\x16\0\0");
        packet.extend_from_slice(&[0; 20]);
    }
    (Response::parse(&packet).unwrap(), packet)
}

fn limit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("response limit");
    let limit = ResponseLimit::build(&Config::default(), &BTreeMap::new(), false).unwrap();
    for (case, exists, names) in [
        ("many names", true, NAMES),
        ("one name, a flood", true, 1),
        ("NXDOMAIN", false, NAMES),
    ] {
        let mut state = limit.state([1, 2, 3, 4]);
        let responses: Vec<_> = (0..names)
            .map(|number| response(&format!("n{number:04}.example.com"), exists))
            .collect();
        let mut turn = 0_u32;
        group.bench_function(case, |bencher| {
            bencher.iter(|| {
                turn = turn.wrapping_add(1);
                let (response, packet) = &responses[turn as usize % names];
                let to = Receiver {
                    address: Ipv4Addr::from(0xc612_0000 + turn % 0x1_0000).into(),
                    verified: false,
                };
                // 100,000 a second
                let now = u64::from(turn) * 10_000;
                black_box(limit.account_response(&mut state, to, response, packet, now))
            });
        });
    }
    group.finish();
}

fn cookies(criterion: &mut Criterion) {
    let cookies = Cookies::own([7; 16]);
    let source = Ipv4Addr::new(192, 0, 2, 1).into();
    let full = cookies.make([9; 8], source, 1_000);
    let query = |option: &[u8]| {
        let packet = QueryBuilder::new(&Name::ROOT, qtype::A)
            .option(10, option)
            .build();
        (Query::parse(&packet).unwrap(), packet)
    };
    let mut group = criterion.benchmark_group("cookie");
    for (case, (query, packet)) in [("client only", query(&full[..8])), ("valid", query(&full))] {
        group.bench_function(case, |bencher| {
            bencher.iter(|| black_box(cookies.check(black_box(&query), &packet, source, 1_000)));
        });
    }
    group.finish();
}

criterion_group!(benches, limit, cookies);
criterion_main!(benches);
