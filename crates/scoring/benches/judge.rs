//! What judging costs: alone, and with many rules of each kind.
//!
//! Queries and sources are taken in turn from prepared sets, so that tables and names are not all
//! in the nearest cache.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench stops at the first thing wrong, and says what it did"
)]

mod traffic;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use dnscrub_scoring::{
    Context, List, NameSet, Names, Policy, PrefixSet, Scorer, Transport, config,
};
use dnscrub_wire::{Name, Query};

use crate::traffic::{BATCH, Kind, Traffic};

fn query(name: &str, qtype: u16) -> (Query, Vec<u8>) {
    let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(name.parse::<Name>().unwrap().as_wire());
    packet.extend(qtype.to_be_bytes());
    packet.extend([0, 1]);
    (Query::parse(&packet).unwrap(), packet)
}

/// Spreads consecutive numbers over all of 32 bits.
const fn spread(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

const OFF: &str =
    "{ rate: { v4: {}, v6: {} }, shape: { at-most: 0 }, amplification: { any: 0, ratio: 0 } }";

struct Case {
    policy: Policy,
    scorer: Scorer,
    queries: Vec<(Query, Vec<u8>)>,
    sources: u32,
    now: Instant,
    at: u32,
}

impl Case {
    fn new(
        signals: &str,
        rules: &str,
        lists: BTreeMap<String, List>,
        names: &[String],
        sources: u32,
    ) -> Self {
        let signals: config::Signals = serde_yaml::from_str(signals).unwrap();
        let rules: Vec<config::Rule> = serde_yaml::from_str(rules).unwrap();
        let scrubbing = config::Scrubbing {
            rate_limit_memory: "32MiB".parse().unwrap(),
            ..Default::default()
        };
        let known = Names {
            pools: &[],
            listeners: &[],
            lists: &lists,
        };
        let policy = Policy::build(&scrubbing, &signals, &rules, &known, 1).unwrap();
        let now = Instant::now();
        let scorer = Scorer::new(0, &policy, [1, 2, 3, 4], now);
        let queries = names.iter().map(|name| query(name, 1)).collect();
        Self {
            policy,
            scorer,
            queries,
            sources,
            now,
            at: 0,
        }
    }

    #[inline]
    fn judge(&mut self) {
        self.at = self.at.wrapping_add(1);
        // the clock as in a batch of 64 at a million queries a second
        if self.at.is_multiple_of(64) {
            self.now += Duration::from_micros(64);
        }
        let (query, packet) = &self.queries[self.at as usize % self.queries.len()];
        let source = IpAddr::from(Ipv4Addr::from(spread(self.at % self.sources)));
        let context = Context {
            source,
            transport: Transport::Udp,
            listener: 0,
            hop_ttl: None,
            proven: false,
            len: query.len,
        };
        black_box(self.scorer.judge(dnscrub_scoring::Case {
            policy: &self.policy,
            query,
            packet,
            context: &context,
            pressure: 0.0,
            now: self.now,
        }));
    }
}

fn bench(c: &mut Criterion) {
    let usual: Vec<String> = (0..4096_u32)
        .map(|n| format!("host{}.zone{}.example.com", spread(n) % 977, n % 50))
        .collect();
    let random: Vec<String> = (0..4096_u32)
        .map(|n| {
            format!(
                "{:08x}{:08x}.r{}.example.com",
                spread(n),
                spread(!n),
                n % 200
            )
        })
        .collect();
    let none = BTreeMap::new;

    // What a miss of the nearer caches costs on this machine at this time.
    for (name, size) in [
        ("reference: a line of 4 MiB", 4_usize << 20),
        ("reference: a line of 32 MiB", 32 << 20),
    ] {
        let memory = vec![1_u8; size];
        let mut at = 0_u32;
        c.bench_function(name, |b| {
            b.iter(|| {
                // the next place depends on what was read, as in a search
                at = spread(at.wrapping_add(u32::from(memory[spread(at) as usize % size])));
                at
            });
        });
    }

    let mut run = |name: &str, mut case: Case| {
        c.bench_function(name, |b| b.iter(|| case.judge()));
    };
    run("nothing", Case::new(OFF, "[]", none(), &usual, 1000));
    run(
        "default signals, 1,000 sources",
        Case::new("{}", "[]", none(), &usual, 1000),
    );
    run(
        "default signals, 1,000,000 sources",
        Case::new("{}", "[]", none(), &usual, 1_000_000),
    );

    let mixed: Vec<String> = (0..1000)
        .map(|n| {
            let when = match n % 4 {
                0 => format!("qname: {{ under: zone{n}.test }}"),
                1 => format!("source: 10.{}.{}.0/24", n / 256, n % 256),
                2 => format!("all: [{{ qtype: ANY }}, {{ qname: {{ under: zone{n}.test }} }}]"),
                _ => {
                    format!("all: [{{ qname: {{ labels: 3.. }} }}, {{ qname: www.zone{n}.test }}]")
                }
            };
            format!("{{ name: r{n}, when: {{ {when} }}, do: drop }}")
        })
        .collect();
    run(
        "10 mixed rules",
        Case::new(
            OFF,
            &format!("[{}]", mixed[..10].join(",\n")),
            none(),
            &usual,
            1000,
        ),
    );
    run(
        "1,000 mixed rules",
        Case::new(
            OFF,
            &format!("[{}]", mixed.join(",\n")),
            none(),
            &usual,
            1000,
        ),
    );

    let regexes: Vec<String> = (0..100)
        .map(|n| format!("{{ name: r{n}, when: {{ qname: {{ regex: '^[a-z0-9]{{16,}}\\.r{n}\\.' }} }}, do: drop }}"))
        .collect();
    let regexes = format!("[{}]", regexes.join(",\n"));
    run(
        "100 regexes, names that get far",
        Case::new(OFF, &regexes, none(), &random, 1000),
    );
    run(
        "100 regexes, names that fail early",
        Case::new(OFF, &regexes, none(), &usual, 1000),
    );

    let zones: Vec<Name> = (0..100_000)
        .map(|n| format!("zone{}.test", spread(n)).parse().unwrap())
        .collect();
    let lists = BTreeMap::from([(
        "zones".to_owned(),
        List::Names(Arc::new(NameSet::new(&zones))),
    )]);
    let rule = "[{ name: zones, when: { qname: { under: { list: zones } } }, do: drop }]";
    run(
        "100,000 suffixes, none matches",
        Case::new(OFF, rule, lists.clone(), &usual, 1000),
    );
    let hits: Vec<String> = (0..4096)
        .map(|n| format!("www.zone{}.test", spread(n * 20)))
        .collect();
    run(
        "100,000 suffixes, all match",
        Case::new(OFF, rule, lists, &hits, 1000),
    );

    let prefixes =
        (0..1_000_000_u32).map(|n| IpAddr::from(Ipv4Addr::from(spread(n.wrapping_mul(7)))).into());
    let lists = BTreeMap::from([(
        "bad".to_owned(),
        List::Prefixes(Arc::new(PrefixSet::new(prefixes))),
    )]);
    let rule = "[{ name: bad, when: { source: { in: bad } }, do: drop }]";
    run(
        "1,000,000 prefixes",
        Case::new(OFF, rule, lists, &usual, 7_000_000),
    );

    let limit = "[{ name: limit, do: { rate-limit: { rate: 1/s, burst: 1 } } }]";
    run(
        "rate limit, 200,000 sources",
        Case::new(OFF, limit, none(), &usual, 200_000),
    );
    run(
        "rate limit, 2,000,000 sources",
        Case::new(OFF, limit, none(), &usual, 2_000_000),
    );
}

/// A million queries a second of virtual time with default settings, once calm and once as floods
/// from made-up sources. Only judging is timed, in batches as a worker does it.
fn a_million_a_second(c: &mut Criterion) {
    for (name, kind, knows_zone) in [
        ("1M/s: known names, known sources", Kind::Calm, false),
        (
            "1M/s: known names, known sources, zone loaded",
            Kind::Calm,
            true,
        ),
        ("1M/s: random names, new sources", Kind::RandomNames, false),
        (
            "1M/s: random names, new sources, zone loaded",
            Kind::RandomNames,
            true,
        ),
        (
            "1M/s: random parents, new sources",
            Kind::RandomParents,
            false,
        ),
        ("1M/s: known names, new sources", Kind::UsualNames, false),
        (
            "1M/s: known names, new sources, zone loaded",
            Kind::UsualNames,
            true,
        ),
    ] {
        let mut traffic = None;
        c.bench_function(name, |b| {
            let traffic =
                traffic.get_or_insert_with(|| Traffic::warmed(kind, knows_zone, 80_000, 500_000));
            b.iter_custom(|queries| {
                let mut spent: Vec<Duration> = (0..queries.div_ceil(BATCH as u64))
                    .map(|_| {
                        traffic.arrive(kind, Duration::from_micros(BATCH as u64));
                        let began = Instant::now();
                        traffic.judge();
                        let spent = began.elapsed();
                        traffic.answer();
                        spent
                    })
                    .collect();
                // the median batch: where other programs run, a few are interrupted for milliseconds
                let middle = spent.len() / 2;
                let (_, median, _) = spent.select_nth_unstable(middle);
                median.mul_f64(queries as f64 / BATCH as f64)
            });
        });
        if let Some(traffic) = traffic {
            println!("{name}: {:?}", traffic.actions());
        }
    }
}

/// What counting for the detector adds to judging: batches are judged with and without it in turn.
fn noticing(_: &mut Criterion) {
    for (name, kind, knows_zone) in [
        ("calm", Kind::Calm, false),
        ("calm, zone loaded", Kind::Calm, true),
        ("random names", Kind::RandomNames, false),
        ("random names, zone loaded", Kind::RandomNames, true),
        ("one name", Kind::OneName, false),
        ("one name, zone loaded", Kind::OneName, true),
    ] {
        let mut traffic = Traffic::warmed(kind, knows_zone, 80_000, 500_000);
        let mut spent = [Vec::new(), Vec::new()];
        for round in 0..40_000 {
            traffic.arrive(kind, Duration::from_micros(BATCH as u64));
            let counted = round % 2;
            let began = Instant::now();
            if counted == 1 {
                traffic.notice();
            } else {
                traffic.judge();
            }
            spent[counted].push(began.elapsed());
            traffic.answer();
        }
        // the median batch: where other programs run, a few are interrupted for milliseconds
        let [judged, noticed] = spent.map(|mut spent| {
            let middle = spent.len() / 2;
            let (_, median, _) = spent.select_nth_unstable(middle);
            median.as_secs_f64() * 1e9 / BATCH as f64
        });
        let more = noticed - judged;
        println!("{name}: {judged:.0} ns, with counting {more:.1} ns more");
    }
}

criterion_group!(benches, noticing, a_million_a_second, bench);
criterion_main!(benches);
