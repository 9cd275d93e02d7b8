//! Loading a million list lines, and looking sources up in them.
//!
//! Cold look-ups ask for another random address each time, so that neither the table nor the
//! branch predictor can know it. `prefix-trie` answers the same questions, for comparison.

#![allow(clippy::expect_used, missing_docs)]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use dnscrub_packet_filter::{BlocklistStore, Limits, Origin, list_lines};
use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ENTRIES: usize = 1_000_000;
const SOURCES: usize = 1 << 20;

#[derive(Clone, Copy)]
enum Shape {
    /// Random IPv4 hosts
    Hosts,
    /// Half hosts, half of 20 other lengths
    Mixed,
    /// Random prefixes of /29 to /128 in a tenth of 2000::/3
    V6,
}

const SHAPES: [(&str, Shape); 3] = [
    ("hosts", Shape::Hosts),
    ("mixed", Shape::Mixed),
    ("v6", Shape::V6),
];

fn v6_address(random: &mut StdRng) -> u128 {
    (0x2a00_u128 << 112) | (random.random::<u128>() >> 12)
}

fn list(shape: Shape) -> String {
    let mut random = StdRng::seed_from_u64(1);
    let mut text = String::new();
    for line in 0..ENTRIES {
        let (address, len) = match shape {
            Shape::Hosts => (IpAddr::V4(Ipv4Addr::from(random.random::<u32>())), 32),
            Shape::Mixed if line % 2 == 0 => {
                (IpAddr::V4(Ipv4Addr::from(random.random::<u32>())), 32)
            }
            Shape::Mixed => (
                IpAddr::V4(Ipv4Addr::from(random.random::<u32>())),
                random.random_range(12..32),
            ),
            Shape::V6 => (
                IpAddr::V6(Ipv6Addr::from(v6_address(&mut random))),
                random.random_range(29..=128),
            ),
        };
        let prefix = IpNet::new(address, len).expect("a valid length").trunc();
        writeln!(text, "{prefix} # reason {}", line % 50).expect("writes to memory");
    }
    text
}

fn sources(shape: Shape) -> Vec<IpAddr> {
    let mut random = StdRng::seed_from_u64(2);
    let address = |_| match shape {
        Shape::Hosts | Shape::Mixed => IpAddr::V4(Ipv4Addr::from(random.random::<u32>())),
        Shape::V6 => IpAddr::V6(Ipv6Addr::from(v6_address(&mut random))),
    };
    (0..SOURCES).map(address).collect()
}

fn loaded(text: &str) -> BlocklistStore {
    let mut store = BlocklistStore::new(Limits::default());
    store
        .load_list("bench", text.as_bytes(), SystemTime::UNIX_EPOCH)
        .expect("a valid list");
    store
}

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load-1M");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    for (name, shape) in SHAPES {
        let text = list(shape);
        group.bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| {
                let mut store = loaded(&text);
                let table = store.publish();
                (store, table)
            });
        });
    }
    let text = list(Shape::Mixed);
    group.bench_function("mixed-again", |bencher| {
        let mut store = loaded(&text);
        bencher.iter(|| {
            store
                .load_list("bench", text.as_bytes(), SystemTime::UNIX_EPOCH)
                .map(|_| store.publish())
        });
    });
    group.finish();
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup-1M-cold");
    for (name, shape) in SHAPES {
        let text = list(shape);
        let sources = sources(shape);
        let table = loaded(&text).publish();
        let mut at = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let hit = table.lookup(sources[at % SOURCES]);
                // What is asked next depends on the answer: look-ups do not overlap.
                at += 1 + usize::from(hit.is_some());
            });
        });
        let trie: JointPrefixMap<IpNet, u32> = list_lines(text.as_bytes())
            .map(|line| (line.expect("a valid list").prefix, 0))
            .collect();
        let mut at = 0;
        group.bench_function(format!("{name}-prefix-trie"), |bencher| {
            bencher.iter(|| {
                let hit = trie.get_lpm(&IpNet::from(sources[at % SOURCES]));
                at += 1 + usize::from(hit.is_some());
            });
        });
    }
    group.finish();
}

fn publish(criterion: &mut Criterion) {
    let mut store = loaded(&list(Shape::Hosts));
    let mut random = StdRng::seed_from_u64(3);
    let mut add = |store: &mut BlocklistStore| {
        let source = IpNet::from(IpAddr::V4(Ipv4Addr::from(random.random::<u32>())));
        let origin = Origin::Rule("bench".to_owned());
        let added = store.add(source, "flood", origin, SystemTime::UNIX_EPOCH, None);
        added.map(|_| source)
    };
    while store.stats().dynamic_entries < 99_999 {
        add(&mut store).expect("there is room");
    }
    criterion.bench_function("publish-100k-dynamic", |bencher| {
        bencher.iter(|| {
            let added = add(&mut store).expect("there is room");
            let table = store.publish();
            store.remove(added);
            table
        });
    });
}

criterion_group!(benches, load, lookup, publish);
criterion_main!(benches);
