//! What becomes of queries: matched, sent again, given up, moved, refused.

mod common;

use common::*;
use dnscrub_forwarding::*;
use dnscrub_wire::{Name, Query, QueryBuilder, qtype};

#[test]
fn an_answer_goes_to_its_client_with_its_id() {
    let mut world = World::new(&pool(1, ""));
    let sent = world.ask("www.example.com").unwrap();
    assert_eq!(world.forwarder.in_flight(), 1);
    world.clock.advance(5 * MS);
    let mut packet = response(&sent.packet);
    let Arrival::Deliver(delivery) = world.respond(sent.socket, &mut packet) else {
        panic!()
    };
    assert_eq!(delivery.client, client(0));
    assert_eq!(id_of(&packet), client(0).id);
    assert_eq!(
        (delivery.latency, delivery.waited, delivery.tries),
        (5 * MS, 5 * MS, 1)
    );
    assert_eq!(
        (delivery.pool, usize::from(delivery.query_len)),
        (Some(0), sent.packet.len())
    );
    assert_eq!(world.forwarder.in_flight(), 0);
    world.tick(MS);
    let seen = &world.snapshot()[0];
    assert_eq!(
        (
            seen.forwarded,
            seen.answered,
            seen.outstanding,
            seen.latency_ms
        ),
        (1, 1, 0, Some(5.0))
    );
}

#[test]
fn servfail_is_counted_of_the_server_that_says_it() {
    let mut world = World::new(&pool(2, ""));
    let sent = world.ask("www.example.com").unwrap();
    let mut packet = response(&sent.packet);
    packet[3] = packet[3] & 0xf0 | 2;
    let arrival = world.respond(sent.socket, &mut packet);
    assert!(matches!(arrival, Arrival::Deliver(_)));
    world.tick(MS);
    let servfails = [0, 1].map(|index| world.upstream(index).servfails());
    let mut wanted = [0, 0];
    wanted[usize::from(sent.socket.upstream.0)] = 1;
    assert_eq!(servfails, wanted);
}

#[test]
fn id_socket_and_question_must_match() {
    let mut world = World::new(&pool(2, ""));
    let sent = world.ask("www.example.com").unwrap();
    let stray = |reason| Arrival::Stray(reason);

    let mut other_id = response(&sent.packet);
    other_id[0] ^= 1;
    assert_eq!(
        world.respond(sent.socket, &mut other_id),
        stray(StrayReason::UnknownId)
    );

    let other_socket = SocketRef {
        socket: (sent.socket.socket + 1) % 4,
        ..sent.socket
    };
    assert_eq!(
        world.respond(other_socket, &mut response(&sent.packet)),
        stray(StrayReason::UnknownId)
    );
    let other_upstream = SocketRef {
        upstream: UpstreamIndex(1 - sent.socket.upstream.0),
        ..sent.socket
    };
    assert_eq!(
        world.respond(other_upstream, &mut response(&sent.packet)),
        stray(StrayReason::UnknownId)
    );
    let no_upstream = SocketRef {
        upstream: UpstreamIndex(99),
        socket: 250,
    };
    assert_eq!(
        world.respond(no_upstream, &mut response(&sent.packet)),
        stray(StrayReason::UnknownId)
    );

    let mut other_question = response(&query("www.example.org", id_of(&sent.packet)));
    assert_eq!(
        world.respond(sent.socket, &mut other_question),
        stray(StrayReason::WrongQuestion)
    );
    assert_eq!(
        world.respond(sent.socket, &mut sent.packet.clone()),
        stray(StrayReason::Malformed)
    );
    assert_eq!(
        world.respond(sent.socket, &mut [1, 2, 3]),
        stray(StrayReason::Malformed)
    );
    assert_eq!(
        world.respond(sent.socket, &mut []),
        stray(StrayReason::Malformed)
    );

    assert_eq!(world.forwarder.in_flight(), 1);
    let mut upper_case = response(&sent.packet);
    upper_case[12..20].make_ascii_uppercase();
    assert!(matches!(
        world.respond(sent.socket, &mut upper_case),
        Arrival::Deliver(_)
    ));
    assert_eq!(world.answer(&sent), stray(StrayReason::Late));
}

#[test]
fn a_server_may_leave_out_the_question_it_could_not_read() {
    let mut world = World::new(&pool(1, ""));
    let sent = world.ask("www.example.com").unwrap();
    let [i0, i1] = id_of(&sent.packet).to_be_bytes();
    assert!(matches!(
        world.respond(sent.socket, &mut [i0, i1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Arrival::Stray(_)
    ));
    assert!(matches!(
        world.respond(sent.socket, &mut [i0, i1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        Arrival::Deliver(_)
    ));
}

#[test]
fn an_unanswered_query_goes_to_another_upstream_and_the_first_answer_counts() {
    for first_answers in [true, false] {
        let mut world = World::new(&pool(2, ""));
        let first = world.ask("www.example.com").unwrap();
        assert!(world.run(299 * MS).resent.is_empty());
        let second = world.run(3 * MS).resent.pop().unwrap();
        assert_ne!(second.socket.upstream, first.socket.upstream);
        assert_ne!(id_of(&second.packet), client(0).id);
        assert_eq!(second.packet[2..], first.packet[2..]);
        let (winner, loser) = if first_answers {
            (&first, &second)
        } else {
            (&second, &first)
        };
        let Arrival::Deliver(delivery) = world.answer(winner) else {
            panic!()
        };
        assert_eq!(
            (delivery.client, delivery.upstream, delivery.tries),
            (client(0), winner.socket.upstream, 2)
        );
        assert_eq!(world.answer(loser), Arrival::Stray(StrayReason::Late));
        world.tick(MS);
        assert_eq!(world.upstream(first.socket.upstream.0).timeouts(), 1);
        assert!(
            world
                .snapshot()
                .iter()
                .all(|upstream| upstream.outstanding == 0)
        );
        assert!(world.run(3000 * MS).expired.is_empty());
    }
}

#[test]
fn it_is_sent_again_as_often_as_set_and_given_up_when_patience_ends() {
    for (retries, upstreams) in [(0, 2), (1, 2), (2, 1), (3, 3)] {
        let mut world = World::new(&pool(
            upstreams,
            &format!(r#", "retries": {retries}, "health": "off""#),
        ));
        let first = world.ask("www.example.com").unwrap();
        let steps = world.run(1999 * MS);
        assert_eq!(steps.resent.len(), retries);
        let tried = steps
            .resent
            .iter()
            .map(|sent| sent.socket.upstream)
            .chain([first.socket.upstream]);
        assert_eq!(
            distinct(tried),
            upstreams.min(retries + 1),
            "first those that were not tried"
        );
        assert!(steps.expired.is_empty());
        let steps = world.run(3 * MS);
        assert_eq!(steps.expired.len(), 1);
        let (expired, stored) = &steps.expired[0];
        assert_eq!(*expired, client(0));
        assert_eq!(*stored, query("www.example.com", client(0).id));
        assert_eq!(world.forwarder.in_flight(), 0);
        assert_eq!(world.answer(&first), Arrival::Stray(StrayReason::Late));
        assert_eq!(
            world
                .snapshot()
                .iter()
                .map(|upstream| upstream.timeouts)
                .sum::<u64>(),
            retries as u64 + 1
        );
    }
}

#[test]
fn a_long_query_is_forwarded_once_and_given_up_as_header_and_question() {
    let mut world = World::new(&pool(2, ""));
    let name = Name::from_text("www.example.com").unwrap();
    let long = QueryBuilder::new(&name, qtype::A)
        .udp_size(1232)
        .option(10, &[9; 600])
        .build();
    let sent = world.ask_packet(0, long).unwrap();
    let steps = world.run(2100 * MS);
    assert!(steps.resent.is_empty());
    let (_, stored) = &steps.expired[0];
    let parsed = Query::parse(stored).unwrap();
    assert_eq!(
        (parsed.id, parsed.qname, parsed.edns),
        (client(0).id, name, None)
    );
    drop(sent);
}

#[test]
fn a_refusal_moves_everything_outstanding_there_in_one_call() {
    let mut world = World::new(&pool(3, ""));
    let sent: Vec<Sent> = (0..300)
        .map(|index| {
            world.forwarder.begin_batch();
            world.ask(&format!("n{index}.example.com")).unwrap()
        })
        .collect();
    let dead = sent[0].socket.upstream;
    let there = sent
        .iter()
        .filter(|sent| sent.socket.upstream == dead)
        .count();
    let steps = world.refuse(sent[0].socket);
    assert_eq!(steps.resent.len(), there);
    assert!(steps.resent.iter().all(|sent| sent.socket.upstream != dead));
    assert!(world.refuse(sent[0].socket).resent.is_empty());
    // new queries avoid it, although no check has taken it down
    for index in 0..50 {
        assert_ne!(
            world
                .ask(&format!("m{index}.example.com"))
                .unwrap()
                .socket
                .upstream,
            dead
        );
    }
    assert_eq!(world.upstream(dead.0).state(), State::Untested);
    assert!(world.upstream(dead.0).is_suspect(world.clock.now()));
    assert_eq!(world.snapshot()[usize::from(dead.0)].state, "suspect");
    // an answer sent before the refusal still counts
    assert!(matches!(world.answer(&sent[0]), Arrival::Deliver(_)));
    // the suspicion ends by itself
    world.run(1001 * MS);
    let mut used = (0..50).map(|index| {
        world
            .ask(&format!("k{index}.example.com"))
            .unwrap()
            .socket
            .upstream
    });
    assert!(used.any(|upstream| upstream == dead));
}

#[test]
fn a_refusal_by_the_only_upstream_leaves_the_query_to_the_next_try() {
    let mut world = World::new(&pool(1, ""));
    let sent = world.ask("www.example.com").unwrap();
    assert!(world.refuse(sent.socket).resent.is_empty());
    assert!(
        world.ask("www2.example.com").is_ok(),
        "a suspect is used when there is no other"
    );
    let again = world.run(301 * MS).resent;
    assert_eq!(again.len(), 2);
    assert!(matches!(world.answer(&again[0]), Arrival::Deliver(_)));
}

#[test]
fn silence_makes_suspect_but_a_single_answer_clears_it_of_that() {
    let settings = r#", "policy": "ordered""#;
    // queries that the server ignores, and nothing else: suspect
    let mut world = World::new(&pool(2, settings));
    world.run(MS);
    for _ in 0..8 {
        assert_eq!(
            world.ask("ignored.example.com").unwrap().socket.upstream.0,
            0
        );
    }
    world.run(302 * MS);
    assert!(world.upstream(0).is_suspect(world.clock.now()));
    assert_eq!(world.ask("www.example.com").unwrap().socket.upstream.0, 1);
    assert_eq!(world.upstream(0).state(), State::Untested);

    // an attack of hundreds of ignored queries, and one that is answered meanwhile: not suspect
    let mut world = World::with_capacity(&pool(2, settings), 4096);
    world.run(MS);
    for _ in 0..400 {
        world.ask("ignored.example.com").unwrap();
    }
    world.run(100 * MS);
    let good = world.ask("www.example.com").unwrap();
    assert!(matches!(world.answer(&good), Arrival::Deliver(_)));
    let steps = world.run(302 * MS);
    assert_eq!(steps.resent.len(), 400);
    assert!(!world.upstream(0).is_suspect(world.clock.now()));
    assert_eq!(world.ask("www.example.com").unwrap().socket.upstream.0, 0);
}

#[test]
fn a_full_table_refuses_and_disturbs_nothing() {
    let mut world = World::with_capacity(&pool(2, ""), 16);
    let sent: Vec<Sent> = (0..16)
        .map(|_| world.ask("www.example.com").unwrap())
        .collect();
    assert_eq!(
        world.ask("www.example.com").unwrap_err(),
        Admission::TableFull
    );
    assert!(matches!(world.answer(&sent[3]), Arrival::Deliver(_)));
    assert!(world.ask("www.example.com").is_ok());
    assert_eq!(
        world.ask("www.example.com").unwrap_err(),
        Admission::TableFull
    );
    assert_eq!(world.run(2100 * MS).expired.len(), 16);
    assert!(world.ask("www.example.com").is_ok());
}

#[test]
fn a_pool_with_nobody_left_has_no_upstream() {
    let mut world = World::new(&pool(2, r#", "minimum-active": 0, "health": {"fall": 1}"#));
    take_down(&mut world, &[0, 1]);
    assert_eq!(
        world.ask("www.example.com").unwrap_err(),
        Admission::NoUpstream
    );
    world.run(1000 * MS);
    assert!(world.forwarder.pressure(0) > 0.99);
    assert_eq!(
        world
            .ask_packet(9, query("www.example.com", 1))
            .unwrap_err(),
        Admission::NoUpstream
    );
    assert_eq!(world.forwarder.pick(0, &Name::ROOT, &[]), None);
}

#[test]
fn the_minimum_active_set_keeps_the_least_bad() {
    let mut world = World::new(&pool(3, r#", "minimum-active": 2, "health": {"fall": 1}"#));
    take_down(&mut world, &[0]);
    let policy = world.forwarder.policy().clone();
    let mut checker = Checker::new(&policy, world.clock.now());
    for round in 0..3 {
        while let Some(probe) = checker.next_probe(world.clock.now()) {
            let fails = probe.upstream.address().ip().to_string() != "192.0.2.3"
                && (round > 0 || probe.label.contains(".1:"));
            let result = if fails {
                ProbeResult::Timeout
            } else {
                ProbeResult::Ok(MS)
            };
            checker.on_result(&probe, result, world.clock.now());
        }
        world.run(1000 * MS);
    }
    assert_eq!(world.upstream(1).state(), State::Down);
    let shares = world.shares(600);
    assert_eq!(shares[0], 0.0, "it failed more often");
    assert!(shares[1] > 0.4 && shares[2] > 0.4, "{shares:?}");
}

#[test]
fn an_upstream_that_came_back_starts_slowly() {
    let settings =
        r#", "policy": "weighted-random", "slow-start": "10s", "health": {"fall": 1, "rise": 1}"#;
    let mut world = World::new(&pool(2, settings));
    take_down(&mut world, &[0]);
    assert_eq!(world.shares(100)[0], 0.0);
    let policy = world.forwarder.policy().clone();
    let mut checker = Checker::new(&policy, world.clock.now());
    while let Some(probe) = checker.next_probe(world.clock.now()) {
        checker.on_result(&probe, ProbeResult::Ok(MS), world.clock.now());
    }
    let share_of = |weight: f64| weight / (1.0 + weight);
    for (advance, weight) in [
        (MS, 0.05),
        (4999 * MS, 0.5),
        (4000 * MS, 0.9),
        (1000 * MS, 1.0),
        (60_000 * MS, 1.0),
    ] {
        world.tick(advance);
        let share = world.shares(10_000)[0];
        assert!(
            (share - share_of(weight)).abs() < 0.02,
            "{share} at weight {weight}"
        );
    }
}

#[test]
fn an_upstream_that_came_back_is_no_longer_suspect() {
    let mut world = World::new(&pool(2, r#", "health": {"fall": 1, "rise": 1}"#));
    take_down(&mut world, &[0]);
    let (at, now) = (
        SocketRef {
            upstream: UpstreamIndex(0),
            socket: 0,
        },
        world.clock.now(),
    );
    world.forwarder.on_refused(at, now, &mut |_| {});
    assert!(world.upstream(0).is_suspect(now));
    let policy = world.forwarder.policy().clone();
    let mut checker = Checker::new(&policy, now);
    while let Some(probe) = checker.next_probe(now) {
        checker.on_result(&probe, ProbeResult::Ok(MS), now);
    }
    assert!(!world.upstream(0).is_suspect(now));
}

/// One upstream that takes so many queries.
fn narrow(most: u32, settings: &str) -> World {
    let upstream = format!(r#"{{"address": "192.0.2.1", "max-outstanding": {most}}}"#);
    World::new(&format!(
        r#"{{"default": {{"upstreams": [{upstream}]{settings}}}}}"#
    ))
}

#[test]
fn pressure_grows_with_what_is_outstanding_and_again_with_what_waits() {
    let mut world = narrow(
        40,
        r#", "queue": {"length": 100}, "retry-after": "9s", "patience": "10s""#,
    );
    let settled = |world: &mut World| {
        world.run(500 * MS);
        world.forwarder.pressure(0)
    };
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(world.ask("www.example.com").unwrap());
    }
    assert_eq!(settled(&mut world), 0.0, "half of it is free");
    for _ in 0..10 {
        sent.push(world.ask("www.example.com").unwrap());
    }
    let some = settled(&mut world);
    assert!(some > 0.12 && some <= 0.125, "{some}");

    // another worker sees it after both have ticked
    let policy = world.forwarder.policy().clone();
    let mut other = Forwarder::new(policy, 1, 8, [1; 32], world.clock.now());
    other.on_tick(world.clock.now(), &mut |_| {});
    assert_eq!(other.pressure(0), some);

    for _ in 0..10 {
        sent.push(world.ask("www.example.com").unwrap());
    }
    let full = settled(&mut world);
    assert!(full > 0.45 && full <= 0.5, "{full}");
    for _ in 0..30 {
        let queued = world.ask("www.example.com").unwrap_err();
        assert!(matches!(queued, Admission::Queued { .. }));
    }
    world.run(300 * MS);
    assert!(world.forwarder.pressure(0) > 0.9);
    assert_eq!(world.forwarder.policy().pool_snapshots()[0].queued, 30);
    for sent in &sent {
        let _ = world.answer(sent);
    }
    assert_eq!(world.release().len(), 30);
    world.run(11_000 * MS);
    let now = world.clock.now();
    drop(world);
    other.on_tick(now, &mut |_| {});
    assert_eq!(other.pressure(0), 0.0);
    assert_eq!(other.policy().pool_snapshots()[0].queued, 0);
}

#[test]
fn who_has_fewer_points_goes_first_and_among_equals_who_is_older() {
    let mut world = narrow(2, "");
    let first = world.ask("a.example.com").unwrap();
    let _second = world.ask_with("b.example.com", 90).unwrap();
    for (name, points) in [("c", 50), ("d", 0), ("e", 300), ("f", 50), ("g", 0)] {
        let queued = world.ask_with(&format!("{name}.example.com"), points);
        let expected = Admission::Queued {
            in_place_of_another: false,
        };
        assert_eq!(queued.unwrap_err(), expected);
    }
    assert!(world.release().is_empty(), "no room");
    assert_eq!(world.forwarder.in_flight(), 2);
    let mut order = String::new();
    let mut last = first;
    for _ in 0..5 {
        assert!(matches!(world.answer(&last), Arrival::Deliver(_)));
        let mut released = world.release();
        assert_eq!(released.len(), 1, "one answer, one place");
        last = released.remove(0);
        order.push(char::from(last.packet[13]));
        let id = id_of(&last.packet);
        assert_eq!(
            last.packet,
            query(&format!("{}.example.com", char::from(last.packet[13])), id)
        );
    }
    assert_eq!(order, "dgcfe");
    let Arrival::Deliver(delivery) = world.answer(&last) else {
        panic!("it is in flight")
    };
    assert_eq!(delivery.client, client(4), "of the fifth query");
}

#[test]
fn a_full_queue_drops_its_worst_for_a_better_one_and_otherwise_the_new_one() {
    let mut world = narrow(1, r#", "queue": {"length": 3}"#);
    let sent = world.ask("a.example.com").unwrap();
    let queued = |in_place_of_another| Admission::Queued {
        in_place_of_another,
    };
    for (name, points, expected) in [
        ("b", 40, queued(false)),
        ("c", 60, queued(false)),
        ("d", 60, queued(false)),
        // no better than the worst
        ("e", 60, Admission::QueueFull),
        ("f", 70, Admission::QueueFull),
        // the older of the two worst, c, gives way
        ("g", 59, queued(true)),
        ("h", 0, queued(true)),
        ("i", 0, queued(true)),
        ("j", 0, queued(true)),
        ("k", 0, Admission::QueueFull),
    ] {
        let admission = world.ask_with(&format!("{name}.example.com"), points);
        assert_eq!(admission.unwrap_err(), expected, "{name}");
    }
    assert_eq!(world.forwarder.queued(), 3);
    assert!(matches!(world.answer(&sent), Arrival::Deliver(_)));
    assert_eq!(world.release()[0].packet[13], b'h');
}

#[test]
fn nobody_waits_longer_than_set_and_the_wait_is_part_of_the_patience() {
    let mut world = narrow(1, r#", "queue": {"max-wait": "200ms"}, "retries": 0"#);
    let sent = world.ask("a.example.com").unwrap();
    let _ = world.ask("b.example.com");
    world.run(100 * MS);
    let _ = world.ask("c.example.com");
    let steps = world.run(102 * MS);
    assert_eq!(steps.unserved, [client(1)]);
    assert!(steps.expired.is_empty());
    assert!(matches!(world.answer(&sent), Arrival::Deliver(_)));
    assert_eq!(world.release().len(), 1);
    let steps = world.run(1890 * MS);
    assert!(steps.expired.is_empty() && steps.unserved.is_empty());
    let (expired, query) = world.run(20 * MS).expired.remove(0);
    assert_eq!(expired, client(2), "two seconds after it came");
    assert_eq!(query[13], b'c');
}

#[test]
fn a_query_too_long_to_be_kept_does_not_wait() {
    let mut world = narrow(1, "");
    let long = |id| {
        let mut packet = query("long.example.com", id);
        // an option of 600 octets at the end of the OPT record
        let length = packet.len() - 2;
        packet[length..].copy_from_slice(&604_u16.to_be_bytes());
        packet.extend_from_slice(&[0xfd, 0xe9, 0x02, 0x58]);
        packet.extend_from_slice(&[7; 600]);
        packet
    };
    let sent = world.ask_packet(0, long(1)).unwrap();
    assert_eq!(
        world.ask_packet(0, long(2)).unwrap_err(),
        Admission::QueueFull
    );
    assert!(matches!(world.answer(&sent), Arrival::Deliver(_)));
    assert!(world.ask_packet(0, long(3)).is_ok());
}

#[test]
fn without_a_queue_nothing_is_limited() {
    let mut world = narrow(1, r#", "queue": {"length": 0}"#);
    for _ in 0..100 {
        assert!(world.ask("www.example.com").is_ok());
    }
    world.run(200 * MS);
    assert!(world.forwarder.pressure(0) > 0.8);
}

#[test]
fn what_waits_for_a_pool_that_goes_ends_and_for_one_that_moves_stays() {
    let both = r#"{"default": {"upstreams": [{"address": "192.0.2.1", "max-outstanding": 1}]},
        "zoned": {"upstreams": [{"address": "192.0.2.2", "max-outstanding": 1}]}}"#;
    let mut world = World::new(both);
    for pool in [0, 0, 1, 1] {
        let _ = world.ask_packet(pool, query("www.example.com", 0));
    }
    assert_eq!(world.forwarder.queued(), 2);
    // `zoned` goes, and `default` is the second one now
    world.reload(
        r#"{"another": {"upstreams": [{"address": "192.0.2.3"}]},
        "default": {"upstreams": [{"address": "192.0.2.1", "max-outstanding": 2}]}}"#,
    );
    let steps = world.run(3 * MS);
    assert_eq!(steps.unserved, [client(3)]);
    let released = world.release();
    assert_eq!(released.len(), 1);
    assert_eq!(
        world.upstream(released[0].socket.upstream.0).pool(),
        "default"
    );
    assert_eq!(world.forwarder.queued(), 0);
}

#[test]
fn no_worker_is_shut_out_by_another_and_what_one_leaves_the_other_has() {
    let mut world = narrow(40, "");
    let policy = world.forwarder.policy().clone();
    let mut other = Forwarder::new(policy, 1, 1024, [1; 32], world.clock.now());
    let mut others = |now| {
        let mut packet = query("www.example.com", 0);
        let parsed = Query::parse(&packet).unwrap();
        let admission = other.admit(0, &parsed, &mut packet, client(1), 0, now);
        other.on_tick(now, &mut |_| {});
        matches!(admission, Admission::Forward(_))
    };
    // alone it has all of it
    let sent: Vec<_> = (0..40)
        .map(|_| world.ask("www.example.com").unwrap())
        .collect();
    assert!(world.ask("www.example.com").is_err());
    world.tick(MS);
    assert!(others(world.clock.now()));
    // now both use it, and each has at least its half
    let had = (1..100).take_while(|_| others(world.clock.now())).count();
    assert_eq!(had, 19);
    world.tick(MS);
    for sent in &sent[..30] {
        let _ = world.answer(sent);
    }
    assert_eq!(world.release().len(), 1);
    let more = (0..100)
        .take_while(|_| world.ask("www.example.com").is_ok())
        .count();
    assert_eq!(more, 9, "twenty are its share");
}

#[test]
fn queries_over_tcp_count_towards_the_limit() {
    let mut world = narrow(4, "");
    let upstream = UpstreamIndex(0);
    for _ in 0..3 {
        world.forwarder.stream_sent(upstream);
    }
    world.forwarder.set_streams(upstream, 3);
    let sent = world.ask("www.example.com").unwrap();
    assert!(world.ask("www.example.com").is_err());
    world.tick(MS);
    assert_eq!(world.upstream(0).outstanding(), 4);
    let _ = world.answer(&sent);
    world.forwarder.stream_answered(upstream, world.clock.now());
    world.forwarder.stream_overdue(upstream);
    world.forwarder.set_streams(upstream, 0);
    world.tick(MS);
    let shared = world.upstream(0);
    assert_eq!(shared.outstanding(), 0);
    assert_eq!((shared.forwarded(), shared.answered()), (4, 2));
    assert_eq!(shared.timeouts(), 1);
}

#[test]
fn one_batch_uses_one_socket_of_an_upstream_and_batches_differ() {
    let mut world = World::new(&pool(1, ""));
    let mut used = Vec::new();
    for _ in 0..40 {
        world.forwarder.begin_batch();
        let sockets: Vec<SocketRef> = (0..8)
            .map(|_| world.ask("www.example.com").unwrap().socket)
            .collect();
        assert_eq!(distinct(sockets.clone()), 1);
        used.push(sockets[0]);
    }
    assert_eq!(distinct(used), 4);
}

#[test]
fn names_stay_with_their_upstream_in_any_case() {
    let mut world = World::new(&pool(4, r#", "policy": "consistent-hash""#));
    for name in 0..50 {
        let lower = world.ask(&format!("n{name}.example.com")).unwrap();
        let mut upper_case = query(&format!("n{name}.example.com"), 0);
        upper_case[12..30].make_ascii_uppercase();
        let upper = world.ask_packet(0, upper_case).unwrap();
        assert_eq!(lower.socket.upstream, upper.socket.upstream);
        let qname = Name::from_text(&format!("n{name}.example.com")).unwrap();
        assert_eq!(
            world.forwarder.pick(0, &qname, &[]),
            Some(lower.socket.upstream)
        );
        assert_ne!(
            world.forwarder.pick(0, &qname, &[lower.socket.upstream]),
            Some(lower.socket.upstream)
        );
    }
}

#[test]
fn a_reload_adds_changes_and_drains_upstreams() {
    let settings = r#", "policy": "ordered""#;
    let mut world = World::new(&pool_of([1, 2], settings));
    let sent = world.ask("www.example.com").unwrap();
    assert_eq!(sent.socket.upstream.0, 0);

    let changes = world.reload(&pool_of([3, 2], settings));
    let address = "192.0.2.3:53".parse().unwrap();
    assert_eq!(
        changes,
        SocketChanges {
            open: vec![(UpstreamIndex(2), address)],
            drain: vec![UpstreamIndex(0)]
        }
    );
    assert_eq!(world.ask("www.example.com").unwrap().socket.upstream.0, 2);
    assert!(world.tick(MS).closed.is_empty());
    // what was in flight there is answered, and only then it closes
    assert!(matches!(world.answer(&sent), Arrival::Deliver(_)));
    assert_eq!(world.tick(MS).closed, [UpstreamIndex(0)]);
    assert!(world.forwarder.upstream(UpstreamIndex(0)).is_none());

    // nothing changes: nothing to do; the free index is used again
    assert_eq!(
        world.reload(&pool_of([3, 2], settings)),
        SocketChanges::default()
    );
    let changes = world.reload(&pool_of([3, 2, 4], settings));
    assert_eq!(changes.open[0].0, UpstreamIndex(0));
    assert_eq!(world.upstream(2).address(), address);
}

#[test]
fn queries_of_a_pool_that_goes_are_answered_or_given_up_but_not_sent_again() {
    let two = r#"{"default": {"upstreams": [{"address": "192.0.2.1"}]}, "extra": {"upstreams": [{"address": "192.0.2.2"}], "when-none": "silence"}}"#;
    let mut world = World::new(two);
    let answered = world.ask_packet(1, query("www.example.com", 0)).unwrap();
    let lost = world.ask_packet(1, query("www.example.com", 0)).unwrap();
    // the pool comes to another place in the order of names
    world.reload(r#"{"another": {"upstreams": [{"address": "192.0.2.9"}]}, "default": {"upstreams": [{"address": "192.0.2.1"}]}}"#);
    let kept = world.ask_packet(1, query("www.example.com", 0)).unwrap();
    assert_eq!(
        world
            .forwarder
            .upstream(kept.socket.upstream)
            .unwrap()
            .address()
            .to_string(),
        "192.0.2.1:53"
    );
    let Arrival::Deliver(delivery) = world.answer(&answered) else {
        panic!()
    };
    assert_eq!(delivery.pool, None);
    let steps = world.run(1990 * MS);
    assert!(
        steps
            .resent
            .iter()
            .all(|sent| sent.socket.upstream == kept.socket.upstream)
    );
    assert_eq!(world.run(20 * MS).expired.len(), 2);
    assert_eq!(world.forwarder.upstreams().count(), 2);
    drop(lost);
}

#[test]
fn an_upstream_that_goes_has_its_queries_sent_again_elsewhere() {
    let mut world = World::new(&pool_of([1], ""));
    let sent = world.ask("www.example.com").unwrap();
    world.reload(&pool_of([2], ""));
    let steps = world.run(302 * MS);
    assert_eq!(steps.resent.len(), 1);
    assert_ne!(steps.resent[0].socket.upstream, sent.socket.upstream);
    assert!(matches!(
        world.answer(&steps.resent[0]),
        Arrival::Deliver(_)
    ));
    assert_eq!(world.tick(MS).closed, [sent.socket.upstream]);
}

#[test]
fn stray_reasons_have_labels() {
    let labels = StrayReason::ALL.map(StrayReason::label);
    assert_eq!(distinct(labels), StrayReason::ALL.len());
    assert!(
        StrayReason::ALL
            .iter()
            .all(|reason| !reason.description().is_empty())
    );
}

/// Health checks that need one failure to take an upstream down fail for these.
fn take_down(world: &mut World, places: &[u16]) {
    let policy = world.forwarder.policy().clone();
    let mut checker = Checker::new(&policy, world.clock.now());
    while let Some(probe) = checker.next_probe(world.clock.now()) {
        let fails = places
            .iter()
            .any(|place| world.upstream(*place).address() == probe.upstream.address());
        let result = if fails {
            ProbeResult::Timeout
        } else {
            ProbeResult::Ok(MS)
        };
        checker.on_result(&probe, result, world.clock.now());
    }
    world.tick(MS);
}
