//! The program in the kernel, by frames that the kernel runs it on: every branch, on virtual time. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dnscrub_xdp::{
    ApplyError, Clock, Fate, Limit, MOST_EXEMPT, Mode, Outcome, Pace, Program, Wanted,
};

const SECOND: Duration = Duration::from_secs(1);
const NANOS: u64 = 1_000_000_000;

const V4: &str = "198.51.100.7";
const V6: &str = "2001:db8:a:b::7";
const SERVICE4: &str = "192.0.2.53:53";
const SERVICE6: &str = "[2001:db8::53]:53";

fn pace(events: u32, burst: Duration) -> Pace {
    Pace::new(events, SECOND, burst)
}

/// The program with its two services, and what it last counted.
struct Bench {
    program: Program,
    before: [u64; Outcome::ALL.len()],
}

impl Bench {
    fn new() -> Self {
        Self::with_services(&[SERVICE4, SERVICE6])
    }

    fn with_services(services: &[&str]) -> Self {
        let mut program = Program::load(Clock::Set).unwrap();
        let services = services.iter().map(|it| it.parse::<SocketAddr>().unwrap());
        program.add_services(services).unwrap();
        Self {
            program,
            before: [0; Outcome::ALL.len()],
        }
    }

    /// Limits of so many packets at once and a second: of an address or /64, and of the network around it.
    fn limit(&mut self, one: u32, network: u32) {
        self.apply(Wanted {
            limit: Some(Limit {
                v4: vec![(32, pace(one, SECOND)), (24, pace(network, SECOND))],
                v6: vec![(64, pace(one, SECOND)), (48, pace(network, SECOND))],
            }),
            ..Wanted::default()
        });
    }

    fn apply(&mut self, wanted: Wanted) {
        self.program.apply(&wanted).unwrap();
    }

    /// What becomes of a frame: the one outcome that was counted, which must agree with what the kernel was told.
    fn run(&mut self, frame: &[u8]) -> Outcome {
        let run = self.program.test_run(frame, 1).unwrap();
        let counts = self.program.counts().unwrap();
        let pairs = counts
            .iter()
            .zip(&self.before)
            .map(|(now, before)| now - before);
        let new: Vec<u64> = pairs.collect();
        self.before = counts;
        assert_eq!(new.iter().sum::<u64>(), 1, "one packet, one outcome");
        let outcome = Outcome::ALL[new.iter().position(|&it| it == 1).unwrap()];
        assert_eq!(run.passes, outcome.fate() == Fate::Passed, "{outcome:?}");
        outcome
    }

    /// How many of so many frames pass.
    fn passed(&mut self, frame: &[u8], of: u32) -> usize {
        let passed = (0..of).filter(|_| self.run(frame).fate() == Fate::Passed);
        passed.count()
    }

    fn at(&mut self, seconds: f64) {
        self.program
            .set_now((seconds * NANOS as f64) as u64)
            .unwrap();
    }
}

/// A frame in the making.
#[derive(Clone)]
struct Frame {
    tags: Vec<u16>,
    source: String,
    service: String,
    ip_options: usize,
    fragment: u16,
    protocol: u8,
    flags: u8,
    payload: usize,
}

impl Frame {
    fn from(source: &str) -> Self {
        let service = if source.contains(':') {
            SERVICE6
        } else {
            SERVICE4
        };
        Self {
            tags: Vec::new(),
            source: source.to_owned(),
            service: service.to_owned(),
            ip_options: 0,
            fragment: 0,
            protocol: 17,
            flags: 0,
            payload: 29,
        }
    }

    fn to(service: &str) -> Self {
        let source = if service.starts_with('[') { V6 } else { V4 };
        let mut frame = Self::from(source);
        service.clone_into(&mut frame.service);
        frame
    }

    fn build(&self) -> Vec<u8> {
        let service: SocketAddr = self.service.parse().unwrap();
        let mut dns = vec![0; self.payload];
        if let Some(flags) = dns.get_mut(2) {
            *flags = self.flags;
        }
        let mut udp = Vec::new();
        udp.extend(40_000_u16.to_be_bytes());
        udp.extend(service.port().to_be_bytes());
        udp.extend(u16::try_from(8 + dns.len()).unwrap().to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(dns);
        let mut frame = vec![2; 12];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend(7_u16.to_be_bytes());
        }
        match service {
            SocketAddr::V4(service) => {
                let source: Ipv4Addr = self.source.parse().unwrap();
                frame.extend([0x08, 0x00]);
                let header = 20 + self.ip_options;
                frame.push(0x40 | u8::try_from(header / 4).unwrap());
                frame.push(0);
                frame.extend(u16::try_from(header + udp.len()).unwrap().to_be_bytes());
                frame.extend([0, 1]);
                frame.extend(self.fragment.to_be_bytes());
                frame.extend([64, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(service.ip().octets());
                frame.resize(frame.len() + self.ip_options, 1);
            }
            SocketAddr::V6(service) => {
                let source: Ipv6Addr = self.source.parse().unwrap();
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(u16::try_from(udp.len()).unwrap().to_be_bytes());
                frame.extend([self.protocol, 64]);
                frame.extend(source.octets());
                frame.extend(service.ip().octets());
            }
        }
        frame.extend(udp);
        frame
    }
}

fn query(source: &str) -> Vec<u8> {
    Frame::from(source).build()
}

fn changed(frame: &Frame, change: impl FnOnce(&mut Frame)) -> Vec<u8> {
    let mut frame = frame.clone();
    change(&mut frame);
    frame.build()
}

#[test]
fn only_queries_to_the_services_are_looked_at() {
    let mut bench = Bench::new();
    for source in [V4, V6] {
        let plain = Frame::from(source);
        let other = |service: &str| changed(&plain, |it| it.service = service.to_owned());
        let (other_port, other_address) = match source {
            V4 => (other("192.0.2.53:5353"), other("192.0.2.54:53")),
            _ => (other("[2001:db8::53]:5353"), other("[2001:db8::54]:53")),
        };
        assert_eq!(bench.run(&plain.build()), Outcome::Unlimited);
        assert_eq!(bench.run(&other_port), Outcome::NotOurs);
        assert_eq!(bench.run(&other_address), Outcome::NotOurs);
        let tcp = changed(&plain, |it| it.protocol = 6);
        assert_eq!(bench.run(&tcp), Outcome::NotOurs);
        let response = changed(&plain, |it| it.flags = 0x84);
        assert_eq!(bench.run(&response), Outcome::Response);
        let short = changed(&plain, |it| it.payload = 11);
        assert_eq!(bench.run(&short), Outcome::Response);
        let header = changed(&plain, |it| it.payload = 12);
        assert_eq!(bench.run(&header), Outcome::Unlimited);
    }
    // ARP, and an IPv4 header that says it is IPv6
    let mut arp = vec![2; 12];
    arp.extend([0x08, 0x06]);
    arp.resize(42, 0);
    assert_eq!(bench.run(&arp), Outcome::NotOurs);
    for (source, at) in [(V4, 14), (V6, 14)] {
        let mut wrong = query(source);
        wrong[at] ^= 0x20;
        assert_eq!(bench.run(&wrong), Outcome::NotOurs);
    }
    let mut short_header = query(V4);
    short_header[14] = 0x44;
    assert_eq!(bench.run(&short_header), Outcome::NotOurs);
}

#[test]
fn tags_and_options_are_stepped_over_and_fragments_are_not_looked_into() {
    let mut bench = Bench::new();
    for source in [V4, V6] {
        let plain = Frame::from(source);
        for tags in [vec![0x8100], vec![0x88a8, 0x8100]] {
            let tagged = changed(&plain, |it| it.tags = tags);
            assert_eq!(bench.run(&tagged), Outcome::Unlimited);
        }
        let three = changed(&plain, |it| it.tags = vec![0x8100; 3]);
        assert_eq!(bench.run(&three), Outcome::NotOurs);
    }
    let plain = Frame::from(V4);
    for options in [4, 40] {
        let with = changed(&plain, |it| it.ip_options = options);
        assert_eq!(bench.run(&with), Outcome::Unlimited);
    }
    let whole = changed(&plain, |it| it.fragment = 0x4000);
    assert_eq!(
        bench.run(&whole),
        Outcome::Unlimited,
        "may not be fragmented"
    );
    for fragment in [0x2000, 0x0001, 0x1fff] {
        let fragment = changed(&plain, |it| it.fragment = fragment);
        assert_eq!(bench.run(&fragment), Outcome::NotOurs);
    }
    // a fragment of IPv6 has a header for it, 44
    let fragment = changed(&Frame::from(V6), |it| it.protocol = 44);
    assert_eq!(bench.run(&fragment), Outcome::NotOurs);
}

#[test]
fn a_packet_that_is_cut_anywhere_passes() {
    let mut bench = Bench::new();
    bench.limit(1, 1000);
    for source in [V4, V6] {
        let mut tagged = Frame::from(source);
        tagged.tags = vec![0x88a8, 0x8100];
        if source == V4 {
            tagged.ip_options = 8;
        }
        let whole = tagged.build();
        let payload = whole.len() - tagged.payload;
        // the kernel takes no frame without an Ethernet header
        for len in 14..whole.len() {
            let outcome = bench.run(&whole[..len]);
            let expected = match len {
                _ if len < payload => Outcome::NotOurs,
                _ if len < payload + 12 => Outcome::Response,
                _ if len == payload + 12 => Outcome::Within,
                _ => Outcome::OverFirst,
            };
            assert_eq!(
                outcome,
                expected,
                "{source}, {len} of {} octets",
                whole.len()
            );
        }
    }
}

#[test]
fn a_wildcard_listener_is_every_address_of_its_family() {
    let mut bench = Bench::with_services(&["0.0.0.0:53", "[::]:5300"]);
    for (service, outcome) in [
        ("192.0.2.99:53", Outcome::Unlimited),
        ("192.0.2.99:5300", Outcome::NotOurs),
        ("[2001:db8::99]:5300", Outcome::Unlimited),
        ("[2001:db8::99]:53", Outcome::NotOurs),
    ] {
        assert_eq!(bench.run(&Frame::to(service).build()), outcome, "{service}");
    }
}

#[test]
fn a_source_gets_its_rate_and_what_it_saved_up() {
    let mut bench = Bench::new();
    bench.limit(10, 1000);
    for (source, other) in [(V4, "198.51.100.8"), (V6, "2001:db8:a:c::7")] {
        bench.at(100.0);
        assert_eq!(
            bench.passed(&query(source), 50),
            10,
            "{source}: a second's worth at once"
        );
        assert_eq!(bench.run(&query(source)), Outcome::OverFirst);
        assert_eq!(bench.run(&query(other)), Outcome::Within, "another source");
        bench.at(100.3);
        assert_eq!(
            bench.passed(&query(source), 50),
            3,
            "what a third of a second brings"
        );
        bench.at(1000.0);
        assert_eq!(bench.passed(&query(source), 50), 10, "no more is saved up");
        let mut passed = 0;
        for tenth in 1..=100 {
            bench.at(1000.0 + f64::from(tenth) / 10.0);
            passed += bench.passed(&query(source), 20);
        }
        assert_eq!(
            passed, 100,
            "{source}: ten a second while it sends two hundred"
        );
    }
    // of IPv6 the /64 is one source
    bench.at(5000.0);
    assert_eq!(bench.passed(&query("2001:db8:f:f::1"), 10), 10);
    assert_eq!(bench.run(&query("2001:db8:f:f:9::2")), Outcome::OverFirst);
}

#[test]
fn a_network_has_a_limit_beside_those_of_its_sources() {
    let mut bench = Bench::new();
    bench.limit(10, 25);
    bench.at(100.0);
    for v6 in [false, true] {
        let mut passed = 0;
        let mut wider = 0;
        for host in 1..=100 {
            let source = match v6 {
                false => format!("198.51.100.{host}"),
                true => format!("2001:db8:a:{host}::1"),
            };
            match bench.run(&query(&source)) {
                Outcome::Within => passed += 1,
                Outcome::OverWider => wider += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((passed, wider), (25, 75));
        let elsewhere = if v6 { "2001:db8:b::1" } else { "198.51.101.1" };
        assert_eq!(bench.run(&query(elsewhere)), Outcome::Within);
    }
}

#[test]
fn every_prefix_length_covers_what_it_should() {
    let mut bench = Bench::new();
    for (round, (length, inside, outside)) in [
        (0_u8, "203.0.113.1", None),
        (1, "255.0.0.1", Some("127.0.0.1")),
        (20, "198.51.111.255", Some("198.51.112.0")),
        (31, "198.51.100.6", Some("198.51.100.8")),
        (32, V4, Some("198.51.100.6")),
        (0, "fe80::1", None),
        (33, "2001:db8:7fff:ffff::", Some("2001:db8:8000::")),
        (64, "2001:db8:a:b:ffff::", Some("2001:db8:a:c::")),
        (65, "2001:db8:a:b:7fff::", Some("2001:db8:a:b:8000::")),
        (128, V6, Some("2001:db8:a:b::6")),
    ]
    .into_iter()
    .enumerate()
    {
        let first = match (inside.contains(':'), length) {
            (true, _) => V6,
            (false, 1) => "128.0.0.1",
            (false, _) => V4,
        };
        let steps = vec![(length, pace(1, SECOND))];
        let limit = match inside.contains(':') {
            true => Limit {
                v6: steps,
                ..Limit::default()
            },
            false => Limit {
                v4: steps,
                ..Limit::default()
            },
        };
        bench.apply(Wanted {
            limit: Some(limit),
            ..Wanted::default()
        });
        bench.at(10_000.0 * (round + 1) as f64);
        assert_eq!(
            bench.run(&query(first)),
            Outcome::Within,
            "{inside}/{length}"
        );
        assert_eq!(
            bench.run(&query(inside)),
            Outcome::OverFirst,
            "{inside}/{length}"
        );
        if let Some(outside) = outside {
            assert_eq!(
                bench.run(&query(outside)),
                Outcome::Within,
                "{outside}, {length}"
            );
        }
    }
    // a family without limits is let be
    assert_eq!(bench.run(&query(V4)), Outcome::Unlimited);
}

#[test]
fn a_limit_is_changed_and_switched_off_and_on_while_sources_stay_counted() {
    let mut bench = Bench::new();
    bench.limit(10, 1000);
    bench.at(100.0);
    let frame = query(V4);
    assert_eq!(bench.passed(&frame, 20), 10);
    bench.apply(Wanted::default());
    assert_eq!(bench.run(&frame), Outcome::Unlimited);
    bench.limit(10, 1000);
    assert_eq!(bench.run(&frame), Outcome::OverFirst, "it is where it was");
    bench.limit(20, 1000);
    bench.at(101.0);
    assert_eq!(
        bench.passed(&frame, 50),
        20,
        "the new limit is for known sources too"
    );
    for rate in [30, 40, 50] {
        bench.limit(rate, 1000);
        bench.at(100.0 * f64::from(rate));
        assert_eq!(
            bench.passed(&frame, 100),
            rate as usize,
            "slots are taken in turns"
        );
    }
    let counts = bench.program.counts().unwrap();
    assert!(counts[Outcome::OverFirst as usize] > 10, "counts stay");
}

#[test]
fn who_is_exempt_is_not_limited_and_who_has_an_allowance_gets_it() {
    let mut bench = Bench::new();
    let limit = Limit {
        v4: vec![(32, pace(10, SECOND)), (24, pace(30, SECOND))],
        v6: vec![(64, pace(10, SECOND))],
    };
    let mut wanted = Wanted {
        limit: Some(limit.clone()),
        exempt: Arc::new(BTreeSet::from([
            "198.51.100.0/28".parse().unwrap(),
            "2001:db8:a::/48".parse().unwrap(),
        ])),
        allowances: BTreeMap::from([
            ("198.51.100.99/32".parse().unwrap(), pace(200, SECOND)),
            ("198.51.100.0/24".parse().unwrap(), pace(150, SECOND)),
            ("2001:db8:f::/64".parse().unwrap(), pace(40, SECOND)),
        ]),
    };
    bench.apply(wanted.clone());
    bench.at(100.0);
    for source in [V4, V6] {
        assert_eq!(bench.passed(&query(source), 300), 300);
        assert_eq!(bench.run(&query(source)), Outcome::Exempt);
    }
    assert_eq!(
        bench.passed(&query("198.51.100.98"), 50),
        10,
        "outside the /28"
    );
    assert_eq!(
        bench.passed(&query("198.51.100.99"), 140),
        140,
        "what its network has left"
    );
    assert_eq!(bench.run(&query("198.51.100.99")), Outcome::OverWider);
    assert_eq!(bench.passed(&query("2001:db8:f::1"), 100), 40);
    // all of it is taken back
    wanted.exempt = Arc::default();
    wanted.allowances.clear();
    bench.apply(wanted.clone());
    bench.at(200.0);
    for source in [V4, V6, "198.51.100.99", "2001:db8:f::1"] {
        assert_eq!(bench.passed(&query(source), 50), 10, "{source}");
    }
}

#[test]
fn what_there_is_no_room_for_leaves_the_limit_off() {
    let mut bench = Bench::new();
    bench.limit(10, 1000);
    let many = u32::try_from(MOST_EXEMPT).unwrap() + 1;
    let exempt = (0..many).map(|number| Ipv4Addr::from(number << 8));
    let exempt: BTreeSet<_> = exempt
        .map(|it| format!("{it}/24").parse().unwrap())
        .collect();
    let limit = Some(Limit {
        v4: vec![(32, pace(1, SECOND))],
        v6: Vec::new(),
    });
    let wanted = Wanted {
        limit,
        exempt: Arc::new(exempt),
        ..Wanted::default()
    };
    assert_eq!(
        bench.program.apply(&wanted),
        Err(ApplyError::TooMany {
            what: "exempt prefixes of IPv4",
            found: MOST_EXEMPT + 1,
            most: MOST_EXEMPT
        })
    );
    assert_eq!(bench.run(&query(V4)), Outcome::Unlimited);
    // as many as there may be are taken
    let mut wanted = wanted;
    Arc::make_mut(&mut wanted.exempt).pop_last();
    bench.apply(wanted.clone());
    assert_eq!(bench.run(&query("0.255.9.9")), Outcome::Exempt);
    assert_eq!(bench.run(&query(V4)), Outcome::Within);
    assert_eq!(bench.run(&query(V4)), Outcome::OverFirst);
}

#[test]
fn when_all_buckets_are_taken_the_idle_ones_are_forgotten_and_nobody_is_cut_wrongly() {
    let mut program = Program::load_with(Clock::Set, 1024).unwrap();
    program.add_services([SERVICE4.parse().unwrap()]).unwrap();
    let mut bench = Bench {
        program,
        before: [0; Outcome::ALL.len()],
    };
    let v4 = vec![(32, pace(2, SECOND))];
    bench.apply(Wanted {
        limit: Some(Limit { v4, v6: Vec::new() }),
        ..Wanted::default()
    });
    bench.at(100.0);
    let steady = query(V4);
    assert_eq!(bench.passed(&steady, 10), 2);
    let mut over = 0;
    for number in 0..20_000_u32 {
        // each once: within its limit, whether there is room for it or not
        let source = Ipv4Addr::from(0x0a00_0000 + number).to_string();
        let outcome = bench.run(&query(&source));
        assert!(
            matches!(outcome, Outcome::Within | Outcome::NoRoom),
            "{outcome:?}"
        );
        if number % 16 == 0 && bench.run(&steady) == Outcome::OverFirst {
            over += 1;
        }
    }
    // who keeps sending is mostly remembered; when it is forgotten it gets its two packets again
    assert!((600..=1250).contains(&over), "{over} of 1,250");
    // the first of the crowd is forgotten long since, and begins afresh
    assert_eq!(bench.passed(&query("10.0.0.0"), 10), 2);
}

#[test]
fn it_is_attached_for_as_long_as_somebody_holds_it() {
    // in a namespace of its own: the loopback interface of this machine is not ours
    if std::env::var_os("DNSCRUB_TEST_NAMESPACE").is_none() {
        let name = "it_is_attached_for_as_long_as_somebody_holds_it";
        let status = Command::new("/usr/bin/unshare")
            .args(["--net", "--"])
            .arg(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env("DNSCRUB_TEST_NAMESPACE", "1")
            .status()
            .unwrap();
        assert!(status.success(), "in its namespace: {status}");
        return;
    }
    let ip = |arguments: &[&str]| {
        let output = Command::new("/usr/sbin/ip")
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    ip(&[
        "link", "add", "left", "type", "veth", "peer", "name", "right",
    ]);
    let program = Program::load(Clock::Kernel).unwrap();
    let shown = |interface: &str| ip(&["link", "show", "dev", interface]);
    let missing = program.attach("nowhere", &[Mode::Driver]).unwrap_err();
    let missing = missing.to_string();
    let (what, found) = missing.split_once("; found ").unwrap();
    assert_eq!(what, "there is no interface nowhere");
    let mut found: Vec<&str> = found.split(", ").collect();
    found.sort_unstable();
    assert_eq!(found, ["left", "lo", "right"]);
    let both = [Mode::Driver, Mode::Generic];
    let left = program.attach("left", &both).unwrap();
    assert_eq!((left.interface(), left.mode()), ("left", Mode::Driver));
    assert!(shown("left").contains(" xdp "), "{}", shown("left"));
    // loopback has no driver that could
    let refused = program
        .attach("lo", &[Mode::Driver])
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("cannot attach to lo in driver mode: "),
        "{refused}"
    );
    let lo = program.attach("lo", &both).unwrap();
    assert_eq!(lo.mode(), Mode::Generic);
    // one program for each interface
    let second = program.attach("left", &both).unwrap_err().to_string();
    assert!(second.contains("another XDP program is on it"), "{second}");
    drop(left);
    assert!(!shown("left").contains("xdp"), "{}", shown("left"));
    let left = program.attach("left", &[Mode::Generic]).unwrap();
    assert!(left.is_there());
    ip(&["link", "del", "left"]);
    assert!(!left.is_there());
}
