//! Judging allocates nothing, whatever it is given.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test program"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dnscrub_scoring::{Action, Case, Context, Names, Policy, Reply, Scorer, Transport, config};
use dnscrub_testkit::CountingAllocator;
use dnscrub_wire::{Query, Rcode};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn query(name: &str, qtype: u16) -> Vec<u8> {
    let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(name.parse::<dnscrub_wire::Name>().unwrap().as_wire());
    packet.extend(qtype.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

#[test]
fn judging_allocates_nothing() {
    let rules: Vec<config::Rule> = serde_yaml::from_str(
        "[{ name: a, when: { qname: { regex: ['^[a-z0-9]{16,}\\.r17\\.', 'x.*y'] } }, do: { score: 10 } }, \
          { name: b, when: { qname: { under: [example.com, example.net] } }, do: { rate-limit: { rate: 5/s } } }, \
          { name: c, when: { source: 10.0.0.0/8, qtype: ANY }, do: truncate }, \
          { name: d, when: { qname: { first-label: { entropy: 3.. } } }, do: { score: 50 } }]",
    )
    .unwrap();
    let names = Names {
        pools: &[],
        listeners: &[],
        lists: &BTreeMap::new(),
    };
    let policy = Policy::build(
        &config::Scrubbing::default(),
        &config::Signals::default(),
        &rules,
        &names,
        1,
    )
    .unwrap();
    let began = Instant::now();
    let mut scorer = Scorer::new(0, &policy, [1, 2, 3, 4], began);
    let packets: Vec<Vec<u8>> = (0..2000_u32)
        .map(|n| {
            let label = format!("{:x}{n}", n.wrapping_mul(2_654_435_761));
            let zone = ["example.com", "example.org", "x.a.y"][n as usize % 3];
            query(
                &format!("{label}{label}.r{}.{zone}", n % 20),
                [1, 255][n as usize % 2],
            )
        })
        .collect();
    assert!(CountingAllocator::is_installed());
    let ((), counts) = CountingAllocator::count(|| {
        for (n, packet) in packets.iter().enumerate() {
            let query = Query::parse(packet).unwrap();
            let source = std::net::Ipv4Addr::from(0x0a00_0000 + n as u32 % 7).into();
            let context = Context {
                source,
                transport: Transport::Udp,
                listener: 0,
                hop_ttl: Some(50 + (n % 3) as u8),
                proven: false,
                len: query.len,
            };
            let now = began + Duration::from_micros(n as u64);
            std::hint::black_box(scorer.judge(Case {
                policy: &policy,
                query: &query,
                packet,
                context: &context,
                pressure: 0.5,
                now,
            }));
            let reply = Reply {
                source,
                transport: Transport::Udp,
                qname: &query.qname,
                rcode: if n % 4 == 0 {
                    Rcode::NOERROR
                } else {
                    Rcode::NXDOMAIN
                },
                latency: Duration::from_millis(1),
                query_len: query.len,
                response_len: 500,
            };
            scorer.observe_response(&policy, &reply, now);
        }
    });
    assert_eq!(counts.allocations, 0);
    let matched: u64 = policy.rules().map(|rule| rule.matched).sum();
    assert!(matched > 2000, "the rules were at work");
}

/// A flood of random names from made-up addresses raises every alarm there is; what is done sixty
/// times a second meanwhile, and what is learned from answers, allocates nothing either.
#[test]
fn a_flood_with_alarms_allocates_nothing() {
    let lists = BTreeMap::new();
    let names = Names {
        pools: &[],
        listeners: &[],
        lists: &lists,
    };
    let policy = Policy::build(
        &config::Scrubbing::default(),
        &config::Signals::default(),
        &[],
        &names,
        1,
    )
    .unwrap();
    let began = Instant::now();
    let mut scorer = Scorer::new(0, &policy, [1, 2, 3, 4], began);
    // 40 s of usual traffic, 500 queries a second, and then 0.4 s of 100,000 a second
    let usual = (0..20_000_u32).map(|n| {
        let name = format!("host{}.zone{}.test", n % 97, n % 11);
        (name, 0xc000_0200 + n % 50, u64::from(n) * 2000)
    });
    let flood = (0..40_000_u32).map(|n| {
        let random = n.wrapping_mul(2_654_435_761);
        let name = match n % 4 {
            0 => format!("host{}.zone{}.test", n % 97, n % 11),
            1 => format!("www.{random:x}.zone1.test"),
            _ => format!("{random:x}{n:x}.zone1.test"),
        };
        (name, random, 40_000_000 + u64::from(n) * 10)
    });
    let queries: Vec<_> = usual
        .chain(flood)
        .map(|(name, source, micros)| (query(&name, 1), source, micros))
        .collect();
    let mut actions = [0_u32; 5];
    assert!(CountingAllocator::is_installed());
    let ((), counts) = CountingAllocator::count(|| {
        for (packet, source, micros) in &queries {
            let query = Query::parse(packet).unwrap();
            let source = std::net::Ipv4Addr::from(*source).into();
            let context = Context {
                source,
                transport: Transport::Udp,
                listener: 0,
                hop_ttl: Some(50),
                proven: false,
                len: query.len,
            };
            let now = began + Duration::from_micros(*micros);
            let judgement = scorer.judge(Case {
                policy: &policy,
                query: &query,
                packet,
                context: &context,
                pressure: 0.0,
                now,
            });
            actions[judgement.action as usize] += 1;
            if judgement.action != Action::Pass {
                continue;
            }
            let exists = query.qname.first_label().starts_with(b"host");
            let reply = Reply {
                source,
                transport: Transport::Udp,
                qname: &query.qname,
                rcode: if exists {
                    Rcode::NOERROR
                } else {
                    Rcode::NXDOMAIN
                },
                latency: Duration::from_millis(1),
                query_len: query.len,
                response_len: 500,
            };
            scorer.observe_response(&policy, &reply, now);
        }
    });
    assert_eq!(counts.allocations, 0);
    assert!(
        actions[Action::Drop as usize] > 10_000,
        "the alarms were on: {actions:?}"
    );
}
