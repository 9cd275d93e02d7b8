//! Each kind is named for what it is, on the right zone, in time, once; and is closed in time.

mod world;

use std::net::{IpAddr, Ipv4Addr};

use dnscrub_detection::incident::{Fault, Spoofed};
use dnscrub_detection::{Happened, Incident, Kind, UpstreamSecond};
use world::{Question, World};

const RATE: f64 = 300.0;
const CALM: usize = 60;

/// What happened to incidents, with when.
type Events = Vec<(f64, Happened, Incident)>;

/// A minute of calm, `seconds` of `attack`, a minute and a half of calm; what happened. Times are seconds after
/// the attack's beginning.
fn play(world: &mut World, seconds: usize, mut attack: impl FnMut(&mut World, usize)) -> Events {
    world.calm(CALM);
    play_after(world, seconds, |world, second| {
        if second < seconds {
            attack(world, second);
        }
    })
}

/// The same after a calm of one's own, with what is beside the usual also after the attack.
fn play_after(
    world: &mut World,
    seconds: usize,
    mut beside: impl FnMut(&mut World, usize),
) -> Events {
    let mut events = Events::new();
    for second in 0..seconds + 90 {
        world.usual(1.0);
        beside(world, second);
        let at = second as f64 + 1.0;
        events.extend(world.tick().into_iter().map(|(what, it)| (at, what, it)));
    }
    events
}

/// The single incident, which has opened and closed in time.
fn the_one(events: &Events, kind: Kind, seconds: f64) -> Incident {
    let opened: Vec<_> = events
        .iter()
        .filter(|it| it.1 == Happened::Opened)
        .collect();
    let told: Vec<_> = events
        .iter()
        .map(|(at, what, it)| (at, what, it.kind, &it.sentence))
        .collect();
    assert_eq!(opened.len(), 1, "{told:#?}");
    let named = events.iter().find(|it| it.2.kind == kind);
    let (at, ..) = named.unwrap_or_else(|| panic!("{told:#?}"));
    assert!(*at <= 10.0, "{told:#?}");
    let closed = events.iter().find(|it| it.1 == Happened::Closed);
    let (at, _, incident) = closed.unwrap_or_else(|| panic!("{told:#?}"));
    assert!(*at >= seconds && *at <= seconds + 60.0, "{told:#?}");
    assert_eq!(incident.kind, kind, "{told:#?}");
    assert!(!incident.sentence.is_empty() && !incident.points.is_empty());
    assert!(incident.timeline.len() >= 3, "{:?}", incident.timeline);
    incident.clone()
}

fn random_names(world: &mut World, zone: usize, many: f64, from: impl Fn(&mut World) -> IpAddr) {
    for _ in 0..world.lot.poisson(many) {
        let (source, labels) = (from(world), world.lot.label(12));
        world.ask(&Question {
            source,
            zone,
            labels,
            qtype: 1,
            odd_hops: false,
        });
    }
}

fn existing(world: &mut World, zone: usize, source: IpAddr, qtype: u16, odd_hops: bool) {
    let labels = world.existing(zone);
    world.ask(&Question {
        source,
        zone,
        labels,
        qtype,
        odd_hops,
    });
}

fn bot(n: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x5000_0000 + (n as u32) * 7919))
}

#[test]
fn random_subdomains_from_forged_addresses() {
    for aware in [true, false] {
        let mut world = World::new(1, RATE, aware);
        let events = play(&mut world, 20, |world, _| {
            random_names(world, 3, 2000.0, World::stranger);
        });
        let incident = the_one(&events, Kind::RandomSubdomains, 20.0);
        assert_eq!(incident.zones.len(), 1, "{:?}", incident.zones);
        assert_eq!(incident.zones[0].zone, world.zones[3].to_string());
        assert_eq!(
            incident.sources.spoofed,
            Spoofed::Likely,
            "{:?}",
            incident.sources
        );
        assert!(incident.peak.queries > 1800.0, "{:?}", incident.peak);
        assert_eq!(incident.names[0].name, format!("*.{}", world.zones[3]));
    }
}

#[test]
fn a_thin_one_through_resolvers() {
    for aware in [true, false] {
        let mut world = World::new(2, RATE, aware);
        let events = play(&mut world, 40, |world, _| {
            random_names(world, 0, 20.0, World::resolver);
        });
        let incident = the_one(&events, Kind::RandomSubdomains, 40.0);
        assert_eq!(incident.zones[0].zone, world.zones[0].to_string());
        assert_eq!(
            incident.sources.spoofed,
            Spoofed::Unlikely,
            "{:?}",
            incident.sources
        );
    }
}

#[test]
fn one_on_all_zones_is_one_incident() {
    let mut world = World::new(3, RATE, true);
    let events = play(&mut world, 20, |world, _| {
        for zone in 0..12 {
            random_names(world, zone, 40.0, World::resolver);
        }
    });
    let incident = the_one(&events, Kind::RandomSubdomains, 20.0);
    assert!(incident.zones.len() >= 11, "{:?}", incident.zones);
}

#[test]
fn those_on_two_zones_are_two() {
    let mut world = World::new(4, RATE, true);
    let events = play(&mut world, 20, |world, second| {
        random_names(world, 2, 500.0, World::resolver);
        if second >= 6 {
            random_names(world, 5, 1500.0, World::stranger);
        }
    });
    let opened: Vec<_> = events
        .iter()
        .filter(|it| it.1 == Happened::Opened)
        .collect();
    assert_eq!(opened.len(), 2, "{opened:#?}");
    for (event, zone) in opened.iter().zip([2, 5]) {
        assert_eq!(event.2.zones[0].zone, world.zones[zone].to_string());
        assert_eq!(event.2.zones.len(), 1);
    }
}

#[test]
fn a_pulse_is_one_incident() {
    let mut world = World::new(5, RATE, true);
    let events = play(&mut world, 40, |world, second| {
        if second % 6 == 0 {
            random_names(world, 2, 3000.0, World::stranger);
        }
    });
    let incident = the_one(&events, Kind::Pulse, 36.0);
    assert_eq!(incident.of, Some(Kind::RandomSubdomains));
    assert_eq!(incident.zones[0].zone, world.zones[2].to_string());
}

#[test]
fn a_direct_flood() {
    let mut world = World::new(6, RATE, true);
    let events = play(&mut world, 20, |world, _| {
        for n in 0..2000 {
            existing(world, 4, bot(n % 100), 1, false);
        }
    });
    let incident = the_one(&events, Kind::DirectFlood, 20.0);
    assert_eq!(incident.zones[0].zone, world.zones[4].to_string());
    assert_eq!(incident.sources.spoofed, Spoofed::Unlikely);
}

#[test]
fn a_reflection() {
    let mut world = World::new(7, RATE, true);
    let events = play(&mut world, 20, |world, _| {
        for n in 0..500 {
            let source = bot(n % 8);
            let qtype = [255, 255, 48, 16][n / 8 % 4];
            let labels = String::new();
            world.ask(&Question {
                source,
                zone: 4,
                labels,
                qtype,
                odd_hops: false,
            });
        }
    });
    let incident = the_one(&events, Kind::Reflection, 20.0);
    assert_eq!(incident.zones[0].zone, world.zones[4].to_string());
    assert_eq!(incident.sources.spoofed, Spoofed::Likely);
}

#[test]
fn a_carpet() {
    let mut world = World::new(8, RATE, true);
    let events = play(&mut world, 20, |world, _| {
        for _ in 0..2000 {
            let (zone, source) = (world.lot.ranked(12), world.stranger());
            existing(world, zone, source, 1, false);
        }
    });
    let incident = the_one(&events, Kind::SpoofedCarpet, 20.0);
    assert_eq!(incident.sources.spoofed, Spoofed::Likely);
    assert!(incident.sources.distinct > 1500.0, "{:?}", incident.sources);
}

#[test]
fn spoofed_resolvers() {
    let mut world = World::new(9, RATE, true);
    let events = play(&mut world, 20, |world, n| {
        for _ in 0..1000 {
            let (zone, source) = (
                world.lot.ranked(12),
                world.resolvers[world.now as usize % 40],
            );
            let odd = world.lot.chance(0.9);
            if n % 2 == 0 || world.lot.chance(0.5) {
                existing(world, zone, source, 1, odd);
            } else {
                let labels = world.lot.label(12);
                world.ask(&Question {
                    source,
                    zone,
                    labels,
                    qtype: 1,
                    odd_hops: odd,
                });
            }
        }
    });
    the_one(&events, Kind::SpoofedResolvers, 20.0);
}

/// Addresses that are never seen otherwise.
fn unheard_of(n: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + (n as u32) * 65_599))
}

fn existing_over(world: &mut World, source: IpAddr, hops: u8, odd_hops: bool) {
    let zone = world.lot.ranked(12);
    let labels = world.existing(zone);
    let question = Question {
        source,
        zone,
        labels,
        qtype: 1,
        odd_hops,
    };
    world.ask_over(hops, &question);
}

#[test]
fn spoofed_resolvers_that_are_not_all_known_are_one_attack() {
    let mut world = World::new(16, RATE, true);
    let events = play(&mut world, 20, |world, _| {
        for n in 0..2000 {
            // 25 senders, each at its own distance
            let hops = 5 + world.lot.below(25) as u8;
            if n % 5 == 0 {
                let source = world.resolvers[world.lot.below(400)];
                existing_over(world, source, hops, true);
            } else {
                let source = unheard_of(world.lot.below(300));
                existing_over(world, source, hops, false);
            }
        }
    });
    let incident = the_one(&events, Kind::SpoofedResolvers, 20.0);
    assert_eq!(incident.sources.spoofed, Spoofed::Likely);
}

#[test]
fn forged_addresses_that_come_again_are_no_direct_flood() {
    // of many senders, and of one
    for senders in [25, 1] {
        let mut world = World::new(17, RATE, true);
        let events = play(&mut world, 20, |world, _| {
            for _ in 0..2000 {
                let hops = 5 + world.lot.below(senders) as u8;
                let source = unheard_of(world.lot.below(300));
                existing_over(world, source, hops, false);
            }
        });
        let incident = the_one(&events, Kind::SpoofedCarpet, 20.0);
        let why = &incident.sources.why;
        assert!(
            why.contains("numbers of hops") || why.contains("hops away"),
            "{why}"
        );
    }
}

#[test]
fn a_reflection_at_whole_networks_is_one_attack() {
    let mut world = World::new(18, RATE, true);
    // for as long as nobody in there counts as known
    let events = play(&mut world, 8, |world, _| {
        for n in 0..3000 {
            let address = 0x5000_0000 + world.lot.below(3 << 14) as u32;
            let question = Question {
                source: IpAddr::V4(Ipv4Addr::from_bits(address)),
                zone: world.lot.below(12),
                labels: String::new(),
                qtype: [16, 48, 255][n % 3],
                odd_hops: false,
            };
            world.ask(&question);
        }
    });
    the_one(&events, Kind::Reflection, 8.0);
}

#[test]
fn a_pulse_with_a_long_pause_is_one_incident() {
    let mut world = World::new(19, RATE, true);
    let events = play(&mut world, 91, |world, second| {
        if second % 30 == 0 {
            random_names(world, 2, 3000.0, World::stranger);
        }
    });
    let opened = events.iter().filter(|it| it.1 == Happened::Opened).count();
    let (at, _, last) = events
        .iter()
        .rfind(|it| it.1 == Happened::Closed)
        .unwrap_or_else(|| panic!("{events:#?}"));
    assert_eq!((opened, last.kind), (1, Kind::Pulse), "{last:#?}");
    assert!(*at <= 91.0 + 60.0);
}

#[test]
fn a_mailing_beside_a_crowd_is_no_attack() {
    for (seed, aware, zones) in [
        (20, true, 1),
        (21, false, 1),
        (22, true, 12),
        (23, false, 12),
    ] {
        let mut world = World::new(seed, RATE, aware);
        world.calm(CALM);
        for second in 0..60 {
            world.usual(1.0);
            for _ in 0..world.lot.poisson(20.0 * RATE) {
                let question = Question {
                    source: world.resolvers[world.lot.below(400)],
                    zone: 5,
                    labels: ["www", "shop", "login"][world.lot.below(3)].to_owned(),
                    qtype: 1,
                    odd_hops: false,
                };
                world.ask(&question);
            }
            for _ in 0..world.lot.poisson(0.8 * RATE) {
                let zone = world.lot.below(zones);
                // several slips in a name look like a name made up
                let labels = match world.lot.below(4) {
                    0 => world.existing(zone),
                    1 => format!("{}{}", world.typo(zone), world.lot.label(2)),
                    _ => world.typo(zone),
                };
                let question = Question {
                    source: world.resolver(),
                    zone,
                    labels,
                    qtype: if world.lot.chance(0.65) { 15 } else { 1 },
                    odd_hops: false,
                };
                world.ask(&question);
            }
            for (_, incident) in world.tick() {
                assert!(!incident.kind.is_attack(), "{second}: {incident:#?}");
            }
        }
    }
}

#[test]
fn malformed_packets_and_connections() {
    let mut world = World::new(10, RATE, true);
    let events = play(&mut world, 20, |world, _| {
        for n in 0..1000 {
            world.watch.malformed(bot(n % 50));
        }
    });
    let incident = the_one(&events, Kind::MalformedFlood, 20.0);
    assert!(!incident.sources.top.is_empty());

    let mut world = World::new(11, RATE, true);
    let events = play(&mut world, 20, |world, _| {
        for n in 0..500 {
            world.watch.connection(n % 3 > 0);
        }
    });
    the_one(&events, Kind::TcpExhaustion, 20.0);
}

#[test]
fn a_loop_and_a_crowd_are_no_attacks() {
    let mut world = World::new(12, RATE, true);
    let events = play(&mut world, 20, |world, _| {
        let source = world.resolvers[3];
        for _ in 0..600 {
            let labels = "www".to_owned();
            world.ask(&Question {
                source,
                zone: 1,
                labels,
                qtype: 1,
                odd_hops: false,
            });
        }
    });
    the_one(&events, Kind::QueryLoop, 20.0);

    let mut world = World::new(13, RATE, true);
    let events = play(&mut world, 20, |world, _| {
        for n in 0..900 {
            let source = world.resolvers[world.lot.below(400)];
            let labels = ["www", "shop"][n % 2].to_owned();
            world.ask(&Question {
                source,
                zone: 1,
                labels,
                qtype: 1,
                odd_hops: false,
            });
        }
    });
    let incident = the_one(&events, Kind::FlashCrowd, 20.0);
    assert!(!incident.kind.is_attack());
}

#[test]
fn who_comes_to_be_known_during_an_attack_is_no_crowd() {
    let mut world = World::new(21, 2000.0, true);
    world.calm(21);
    let mut opened = Vec::new();
    for second in 0..60 {
        world.usual(1.0);
        if second < 40 {
            random_names(&mut world, 3, 2000.0, |world| bot(world.lot.below(200)));
        }
        let events = world.tick().into_iter();
        opened.extend(events.filter(|it| it.0 == Happened::Opened));
    }
    let told: Vec<_> = opened.iter().map(|(_, it)| &it.sentence).collect();
    assert_eq!(opened.len(), 1, "{told:#?}");
    assert_eq!(opened[0].1.kind, Kind::RandomSubdomains);
    // in the first second nobody has had the time to come back
    assert!(!told[0].contains("forged"), "{told:#?}");
}

#[test]
fn so_many_resolvers_that_it_takes_long_to_know_them_are_no_crowd() {
    let mut world = World::new(22, 2000.0, true);
    world.resolvers = (0..40_000).map(bot).collect();
    world.calm(300);
}

#[test]
fn a_failing_upstream_is_no_attack_and_neither_are_the_retries() {
    let mut world = World::new(14, RATE, true);
    let events = play(&mut world, 30, |world, _| {
        for _ in 0..900 {
            world.watch.given_up(None, true, true);
        }
        // who gets no answer asks again
        for _ in 0..3 {
            world.usual(1.0);
        }
    });
    let incident = the_one(&events, Kind::UpstreamFailure, 30.0);
    assert!(
        incident.sentence.contains("no answer"),
        "{}",
        incident.sentence
    );
}

#[test]
fn far_too_many_slips_of_the_pen_are_made_up() {
    for aware in [true, false] {
        let mut world = World::new(30, RATE, aware);
        let events = play(&mut world, 20, |world, _| {
            for _ in 0..2000 {
                let (source, labels) = (world.resolver(), world.typo(4));
                world.ask(&Question {
                    source,
                    zone: 4,
                    labels,
                    qtype: 1,
                    odd_hops: false,
                });
            }
        });
        let incident = the_one(&events, Kind::RandomSubdomains, 20.0);
        assert_eq!(incident.zones[0].zone, world.zones[4].to_string());
    }
}

#[test]
fn the_load_of_a_sister_server_is_no_attack() {
    for aware in [true, false] {
        let mut world = World::new(28, RATE, aware);
        world.resolvers = (0..1000).map(bot).collect();
        world.calm(2 * CALM);
        let own = std::mem::take(&mut world.resolvers);
        let hers: Vec<IpAddr> = (5000..6000).map(bot).collect();
        for second in 0..60 {
            for resolvers in [&own, &hers] {
                world.resolvers = resolvers.clone();
                world.usual(1.0);
            }
            let events = world.tick();
            let attacks: Vec<_> = events
                .iter()
                .filter(|(_, it)| it.kind.is_attack())
                .map(|(_, it)| &it.sentence)
                .collect();
            assert!(attacks.is_empty(), "{second}: {attacks:?}");
        }
    }
}

#[test]
fn bots_that_ask_for_everything_among_many_strangers_are_a_flood() {
    let mut world = World::new(31, RATE, true);
    let everything = |world: &mut World, source: IpAddr| {
        let question = world.legitimate();
        world.ask(&Question { source, ..question });
    };
    let strangers = |world: &mut World| {
        for _ in 0..100 {
            let source = world.stranger();
            everything(world, source);
        }
    };
    for _ in 0..CALM {
        world.usual(1.0);
        strangers(&mut world);
        world.tick();
    }
    let events = play_after(&mut world, 20, |world, second| {
        strangers(world);
        for n in 0..if second < 20 { 360 } else { 0 } {
            everything(world, bot(n % 30));
        }
    });
    the_one(&events, Kind::DirectFlood, 20.0);
}

#[test]
fn more_of_everything_below_a_wildcard_is_no_flood() {
    // half of what is asked for exists by itself, or nearly nothing
    for of in [2, 10] {
        let mut world = World::new(29, RATE, true);
        let ask = |world: &mut World, many: usize| {
            for n in 0..many {
                let (source, label) = (world.resolver(), world.lot.label(8));
                let existing = world.existing(3);
                let labels = if n % of == 0 { existing } else { label };
                world.ask(&Question {
                    source,
                    zone: 3,
                    labels,
                    qtype: 1,
                    odd_hops: false,
                });
            }
        };
        let mut opened = Vec::new();
        for second in 0..180 {
            world.usual(1.0);
            ask(&mut world, if second < 120 { 40 } else { 100 });
            let events = world.tick();
            let told = events.into_iter().map(|(_, it)| it.sentence);
            opened.extend(told.filter(|_| second > 60));
        }
        assert!(opened.is_empty(), "{opened:?}");
        // but a flood on it is one
        let events = play(&mut world, 20, |world, _| {
            ask(world, 40);
            random_names(world, 3, 400.0, World::resolver);
        });
        the_one(&events, Kind::RandomSubdomains, 20.0);
    }
}

/// What two servers did in a second.
fn servers(first: [u64; 4], second: [u64; 4], latency: f32) -> Vec<UpstreamSecond> {
    let of = |name: &str, address: [u8; 4], [sent, unanswered, answered, servfail]: [u64; 4]| {
        UpstreamSecond {
            name: name.to_owned(),
            address: (address, 53).into(),
            pool: "main".to_owned(),
            down: false,
            sent,
            unanswered,
            answered,
            servfail,
            latency: Some(latency),
        }
    };
    vec![
        of("ns1", [192, 0, 2, 1], first),
        of("ns2", [192, 0, 2, 2], second),
    ]
}

#[test]
fn a_failing_upstream_is_named_with_what_is_wrong_with_it() {
    let mut world = World::new(23, RATE, true);
    let well = servers([400, 0, 400, 0], [400, 0, 400, 0], 0.001);
    world.upstreams = well;
    let events = play(&mut world, 20, |world, _| {
        world.upstreams = servers([400, 360, 40, 0], [400, 0, 400, 0], 0.001);
        for _ in 0..400 {
            world.watch.given_up(None, true, true);
        }
    });
    let incident = the_one(&events, Kind::UpstreamFailure, 20.0);
    assert!(
        incident
            .sentence
            .contains("ns1 (192.0.2.1:53, pool main), which leaves 90 % of its queries unanswered")
            && !incident.sentence.contains("ns2"),
        "{}",
        incident.sentence
    );
    let [part] = &incident.upstreams[..] else {
        panic!("{:?}", incident.upstreams)
    };
    assert_eq!((part.name.as_str(), part.fault), ("ns1", Fault::NoAnswer));
}

/// Seconds of latency while nothing else is wrong: whether that is a failure.
fn is_failure(seed: u64, seconds: usize, latency: u32) -> bool {
    let mut world = World::new(seed, RATE, true);
    world.calm(CALM);
    let mut failed = false;
    for second in 0..30 {
        world.latency = if second < seconds { latency } else { 400 };
        world.usual(1.0);
        let events = world.tick();
        failed |= events
            .iter()
            .any(|(_, it)| it.kind == Kind::UpstreamFailure);
    }
    failed
}

#[test]
fn slow_answers_are_a_failure_where_they_are_too_slow_for_resolvers_and_stay_so() {
    assert!(is_failure(24, 30, 600_000), "600 ms for half a minute");
    assert!(!is_failure(24, 4, 600_000), "600 ms for four seconds");
    assert!(
        !is_failure(24, 30, 222_000),
        "a busy machine: 222 ms are less than resolvers wait"
    );
}

#[test]
fn slow_answers_are_a_failure_at_once_where_others_are_missing() {
    let mut world = World::new(25, RATE, true);
    world.calm(CALM);
    world.latency = 222_000;
    let mut opened = None;
    for second in 0..20 {
        world.usual(1.0);
        for _ in 0..(RATE / 10.0) as usize {
            world.watch.given_up(None, true, true);
        }
        let events = world.tick();
        if events
            .iter()
            .any(|(_, it)| it.kind == Kind::UpstreamFailure)
        {
            opened.get_or_insert(second);
        }
    }
    assert!(opened.is_some_and(|second| second < 8), "{opened:?}");
}

#[test]
fn resolvers_that_ask_for_new_keys_are_no_reflection() {
    for aware in [true, false] {
        let mut world = World::new(26, RATE, aware);
        world.resolvers = (0..3000).map(bot).collect();
        world.calm(2 * CALM);
        for second in 0..30 {
            world.usual(1.0);
            for _ in 0..120 {
                let (source, zone) = (world.resolver(), world.lot.below(12));
                world.ask(&Question {
                    source,
                    zone,
                    labels: String::new(),
                    qtype: 48,
                    odd_hops: false,
                });
            }
            let events = world.tick();
            let told: Vec<_> = events.iter().map(|(_, it)| &it.sentence).collect();
            assert!(told.is_empty(), "{second}: {told:?}");
        }
    }
}

#[test]
fn what_domains_say_of_their_mail_is_a_mailing() {
    let mut world = World::new(27, RATE, true);
    world.calm(CALM);
    for second in 0..30 {
        world.usual(1.0);
        for n in 0..120 {
            let source = world.resolver();
            let name = world.existing(2);
            let (labels, qtype) = match n % 4 {
                0 => (format!("_dmarc.{name}"), 16),
                1 => (format!("default._domainkey.{name}"), 16),
                2 => (world.typo(2), 15),
                _ => (name, 15),
            };
            world.ask(&Question {
                source,
                zone: 2,
                labels,
                qtype,
                odd_hops: false,
            });
        }
        let events = world.tick();
        let told: Vec<_> = events.iter().map(|(_, it)| &it.sentence).collect();
        assert!(told.is_empty(), "{second}: {told:?}");
    }
}

#[test]
fn many_attacks_open_few_incidents_in_bounded_memory() {
    let mut world = World::new(15, RATE, true);
    world.calm(CALM);
    for _ in 0..30 {
        world.usual(1.0);
        for _ in 0..6000 {
            // every name in a zone of its own
            let label = world.lot.label(9);
            let source = world.stranger();
            world.zones.push(format!("{label}.test").parse().unwrap());
            let zone = world.zones.len() - 1;
            let name = world.zones[zone];
            let hash = world.lot.next();
            world.zones.pop();
            let asked = dnscrub_detection::Asked {
                source,
                source_hash: hash,
                acquaintance: dnscrub_detection::Acquaintance::New,
                verified: false,
                odd_hops: false,
                hop_ttl: None,
                standing: dnscrub_detection::Standing::Unknown,
                name_seen: false,
                name_hash: hash,
                place: dnscrub_detection::Place {
                    zone: None,
                    hash,
                    cut: 0,
                },
                qtype: 1,
                len: 40,
                tcp: false,
                fate: dnscrub_detection::Fate::Passed,
            };
            world.watch.query(&asked, &name);
        }
        world.tick();
    }
    assert!(world.book.open.len() <= 4, "{}", world.book.open.len());
    let octets = world.detector.octets() + 2 * world.watch.octets();
    assert!(octets < 32 << 20, "{octets}");
}
