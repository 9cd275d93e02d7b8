//! What counting costs on the packet path.
//!
//! Queries come from prepared sets, so that records and sketches are not all in the nearest cache; `take`
//! runs once in 100,000 queries, as in a second of so many.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a bench stops at the first thing wrong"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ahash::RandomState;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dnscrub_detection::{Acquaintance, Answered, Asked, Fate, Place, Standing, Watch};
use dnscrub_wire::Name;

const SET: usize = 8192;
const ZONES: usize = 1000;

fn set(configured: bool, flood: bool) -> (Vec<Name>, Vec<(Asked, Name)>) {
    let hasher = RandomState::with_seeds(1, 2, 3, 4);
    let zones: Vec<Name> = (0..ZONES)
        .map(|n| Name::from_text(&format!("zone{n}.example")).unwrap())
        .collect();
    let queries = (0..SET).map(|n| {
        let zone = if flood { 7 } else { n * 31 % ZONES };
        let label = if flood { n * 7919 } else { n % 50 };
        let name = Name::from_text(&format!("host{label}.{}", zones[zone])).unwrap();
        let source = IpAddr::V4(Ipv4Addr::from_bits((n as u32).wrapping_mul(2_654_435_761)));
        let asked = Asked {
            source,
            source_hash: hasher.hash_one(n),
            acquaintance: if flood {
                Acquaintance::New
            } else {
                Acquaintance::Known
            },
            verified: false,
            odd_hops: false,
            hop_ttl: Some(52),
            standing: if flood {
                Standing::Missing
            } else {
                Standing::Exists
            },
            name_seen: !flood,
            name_hash: hasher.hash_one(name.as_wire()),
            place: Place {
                zone: configured.then_some(zone as u16),
                hash: hasher.hash_one(zones[zone].as_wire()),
                cut: (name.len() - zones[zone].len()) as u8,
            },
            qtype: if n % 3 == 0 { 28 } else { 1 },
            len: 48,
            tcp: false,
            fate: if flood { Fate::Denied } else { Fate::Passed },
        };
        (asked, name)
    });
    let queries = queries.collect();
    (zones, queries)
}

fn query(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("watch");
    group.throughput(Throughput::Elements(SET as u64));
    for (label, configured, flood) in [
        ("query, 1,000 zones", true, false),
        ("query, suffixes", false, false),
        ("query, flood on a zone", true, true),
    ] {
        let (zones, queries) = set(configured, flood);
        let began = Instant::now();
        let mut watch = Watch::new(if configured { &zones[..] } else { &[] }, began);
        let mut round = 0_u64;
        group.bench_function(label, |bencher| {
            bencher.iter(|| {
                for (asked, name) in &queries {
                    watch.query(black_box(asked), name);
                }
                round += 1;
                if round.is_multiple_of(12) {
                    black_box(watch.take(began + Duration::from_secs(round / 12)));
                }
            });
        });
    }
    let (zones, queries) = set(true, false);
    let mut watch = Watch::new(&zones, Instant::now());
    group.bench_function("answer", |bencher| {
        bencher.iter(|| {
            for (asked, _) in &queries {
                watch.answer(&Answered {
                    place: asked.place,
                    rcode: 0,
                    latency: Some(400),
                    octets: Some((48, 120)),
                });
            }
        });
    });
    group.finish();
}

criterion_group!(benches, query);
criterion_main!(benches);
