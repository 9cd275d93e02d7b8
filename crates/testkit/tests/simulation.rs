//! The simulated network and its upstreams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dnscrub_testkit::authority::{Authority, Zone};
use dnscrub_testkit::message::{a_query, parse};
use dnscrub_testkit::{Event, Lie, Link, Mood, SimNetwork, SimUpstream};
use dnscrub_wire::Rcode;

const SECOND: Duration = Duration::from_secs(1);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client() -> SocketAddr {
    address("192.0.2.1:4000")
}

fn upstream() -> SocketAddr {
    address("198.51.100.1:53")
}

fn network(seed: u64) -> SimNetwork {
    let zone = Zone::parse(
        "example.com",
        "@ 60 IN SOA ns1 h 1 1 1 1 1\n* 60 IN A 192.0.2.9\n",
    )
    .unwrap();
    let mut network = SimNetwork::new(seed);
    network.bind(client());
    let latency = Duration::from_millis(10);
    let server =
        SimUpstream::with_latency(Arc::new(Authority::new([zone])), network.now(), latency);
    network.add_upstream(upstream(), server);
    network
}

fn payload(event: Option<Event>) -> Vec<u8> {
    match event {
        Some(Event::Datagram { payload, .. }) => payload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_upstream_answers_after_both_ways_and_its_latency() {
    let mut network = network(1);
    network.set_default_link(Link::with_delay(Duration::from_millis(3)));
    network.send(client(), upstream(), &a_query("www.example.com", 7));
    let answer = parse(&payload(network.next(SECOND)));
    assert_eq!((answer.metadata.id, answer.answers.len()), (7, 1));
    assert_eq!(network.clock().elapsed(), Duration::from_millis(16));
    assert_eq!(network.next(SECOND), None);
    assert_eq!(network.clock().elapsed(), Duration::from_millis(1016));
    assert_eq!(
        (
            network.upstream(upstream()).received(),
            network.upstream(upstream()).answered()
        ),
        (1, 1)
    );
}

#[test]
fn upstreams_die_refuse_and_hang() {
    let mut network = network(1);
    let query = a_query("www.example.com", 7);
    for mood in [Mood::Dead, Mood::Refusing] {
        network.upstream(upstream()).set_mood(mood);
        network.send(client(), upstream(), &query);
        let expected = (mood == Mood::Refusing).then_some(Event::Refused {
            to: client(),
            peer: upstream(),
        });
        assert_eq!(network.next(SECOND), expected);
    }
    network.upstream(upstream()).set_mood(Mood::Up);
    network.upstream(upstream()).behaviour().set_hang(true);
    network.send(client(), upstream(), &query);
    assert_eq!(network.next(SECOND), None);
    assert_eq!(network.upstream(upstream()).received(), 1);
    network.upstream(upstream()).behaviour().set_hang(false);
    network
        .upstream(upstream())
        .behaviour()
        .set_rcode(Some(Rcode::SERVFAIL));
    network.send(client(), upstream(), &query);
    assert_eq!(
        u16::from(parse(&payload(network.next(SECOND))).metadata.response_code),
        2
    );
}

#[test]
fn upstreams_lie() {
    let mut network = network(1);
    let query = a_query("www.example.com", 0x0707);
    let mut lie = |lie, spoofed| {
        let mood = if spoofed {
            Mood::Spoofed(lie)
        } else {
            Mood::Lying(lie)
        };
        network.upstream(upstream()).set_mood(mood);
        network.send(client(), upstream(), &query);
        let first = payload(network.next(SECOND));
        let second = network.next(SECOND);
        assert_eq!(second.is_some(), spoofed);
        if spoofed {
            assert_eq!(parse(&payload(second)).metadata.id, 0x0707);
        }
        first
    };
    assert_ne!(parse(&lie(Lie::WrongId, false)).metadata.id, 0x0707);
    assert_eq!(
        parse(&lie(Lie::WrongQuestion, true)).queries[0]
            .name()
            .to_ascii(),
        "qww.example.com."
    );
    assert_eq!(lie(Lie::Echo, false), query);
    assert_eq!(lie(Lie::Garbage, true), [0xff; 40]);
    assert!(lie(Lie::Empty, false).is_empty());
    assert_eq!(lie(Lie::Cut, false).len(), 15);
}

#[test]
fn an_upstream_flaps() {
    let mut network = network(1);
    let now = network.now();
    network
        .upstream(upstream())
        .flap(now, SECOND, 2 * SECOND, Mood::Dead);
    let mut answered = Vec::new();
    for _ in 0..9 {
        network.send(client(), upstream(), &a_query("www.example.com", 1));
        answered.push(network.next(Duration::from_millis(500)).is_some());
        let next = now + SECOND * answered.len() as u32;
        assert_eq!(network.next_until(next), None);
    }
    assert_eq!(
        answered,
        [true, false, false, true, false, false, true, false, false]
    );
}

#[test]
fn an_upstream_of_limited_capacity_serves_just_that() {
    let mut network = network(1);
    network
        .upstream(upstream())
        .behaviour()
        .set_capacity(100, Duration::from_millis(100));
    let start = network.now();
    for query in 0..1000_u32 {
        let when = start + Duration::from_millis(1) * query;
        network.send_at(
            when,
            client(),
            upstream(),
            &a_query("www.example.com", query as u16),
        );
    }
    let mut answers = 0;
    network.run_until(start + SECOND, |_, event| {
        answers += u32::from(matches!(event, Event::Datagram { .. }))
    });
    assert!((90..=110).contains(&answers), "{answers}");
}

#[test]
fn links_lose_duplicate_and_reorder_and_the_tally_balances() {
    let run = |seed| {
        let mut network = network(seed);
        let proxy = address("203.0.113.1:53");
        network.bind(proxy);
        let rough = Link {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(1),
            loss: 0.1,
            duplicates: 0.05,
            reordered: 0.2,
            hold_back: Duration::from_millis(50),
        };
        network.set_link(client().ip(), proxy.ip(), rough);
        let start = network.now();
        for number in 0..2000_u32 {
            let when = start + Duration::from_millis(1) * number;
            network.send_at(when, client(), proxy, &number.to_be_bytes());
        }
        // and some to where nobody listens
        for _ in 0..10 {
            network.send(client(), address("203.0.113.9:53"), b"?");
        }
        let mut seen = Vec::new();
        network.run_until(start + 10 * SECOND, |_, event| {
            if let Event::Datagram { payload, .. } = event {
                seen.push(payload);
            }
        });
        let tally = network.tally();
        assert_eq!(network.under_way(), 0);
        assert_eq!(
            tally.sent + tally.duplicated,
            tally.lost + tally.refused + tally.arrived
        );
        assert_eq!(
            (tally.sent, tally.refused, tally.arrived),
            (2010, 10, seen.len() as u64)
        );
        assert!(
            (120..300).contains(&tally.lost) && (60..150).contains(&tally.duplicated),
            "{tally:?}"
        );
        assert!(seen.windows(2).filter(|pair| pair[0] > pair[1]).count() > 100);
        seen
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn timers_go_off_in_their_order() {
    let mut network = network(1);
    let now = network.now();
    let other = address("192.0.2.2:1");
    network.set_timer(client(), now + 2 * SECOND);
    network.set_timer(other, now + SECOND);
    assert_eq!(network.next(10 * SECOND), Some(Event::Timer { to: other }));
    assert_eq!(
        network.next(10 * SECOND).map(|event| event.endpoint()),
        Some(client())
    );
    assert_eq!(network.clock().elapsed(), 2 * SECOND);
}
