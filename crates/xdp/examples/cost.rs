//! What the program costs a packet: mean time of a run in the kernel (`BPF_PROG_TEST_RUN`), which moves no packets. As
//! root: `cargo run --release -p dnscrub-xdp --example cost`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool to be looked at while it runs"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use dnscrub_xdp::{Clock, Limit, Pace, Program, Wanted};
use ipnet::IpNet;

/// Runs in a measurement, and measurements, of which the median counts.
const RUNS: u32 = 1_000_000;
const TIMES: usize = 9;
/// Exempt prefixes of each family.
const EXEMPT: u32 = 10_000;

fn frame(v6: bool, port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    let source = Ipv4Addr::new(198, 51, 100, 7);
    let source6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 7);
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 37, 17, 64]);
        frame.extend(source6.octets());
        frame.extend(Ipv6Addr::LOCALHOST.octets());
    } else {
        frame.extend([0x08, 0x00, 0x45, 0, 0, 57, 0, 1, 0x40, 0, 64, 17, 0, 0]);
        frame.extend(source.octets());
        frame.extend(Ipv4Addr::new(192, 0, 2, 53).octets());
    }
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 37, 0, 0]);
    frame.resize(frame.len() + 29, 0);
    frame
}

fn cost(program: &Program, frame: &[u8]) -> u128 {
    let runs = (0..TIMES).map(|_| program.test_run(frame, RUNS).unwrap().time);
    let mut times: Vec<Duration> = runs.collect();
    times.sort_unstable();
    times.get(TIMES / 2).map_or(0, Duration::as_nanos)
}

fn limit(events: u32) -> Limit {
    let pace = |times: u32| {
        Pace::new(
            events.saturating_mul(times),
            Duration::from_secs(1),
            Duration::from_secs(1),
        )
    };
    Limit {
        v4: vec![(32, pace(1)), (24, pace(10))],
        v6: vec![(64, pace(1)), (48, pace(10))],
    }
}

fn main() {
    let mut program = Program::load(Clock::Kernel).unwrap();
    let services = ["192.0.2.53:53", "[::1]:53"];
    program
        .add_services(services.map(|it| it.parse().unwrap()))
        .unwrap();
    let exempt: BTreeSet<IpNet> = (0..EXEMPT)
        .flat_map(|number| {
            let v4 = Ipv4Addr::from(0x0a00_0000 | number << 8);
            let v6 = Ipv6Addr::from((0x2001_0db8_1000_0000 | u128::from(number)) << 64);
            [format!("{v4}/24"), format!("{v6}/64")].map(|it| it.parse().unwrap())
        })
        .collect();
    let wanted = |limit: Option<Limit>, exempt: &BTreeSet<IpNet>| Wanted {
        limit,
        exempt: Arc::new(exempt.clone()),
        allowances: BTreeMap::new(),
    };
    println!("ns a packet           IPv4  IPv6");
    let tell = |what: &str, program: &Program, port| {
        let (v4, v6) = (
            cost(program, &frame(false, port)),
            cost(program, &frame(true, port)),
        );
        println!("{what:<21} {v4:>4}  {v6:>4}");
    };
    tell("another port", &program, 443);
    tell("limit off", &program, 53);
    // more than comes here
    program
        .apply(&wanted(Some(limit(200_000_000)), &BTreeSet::new()))
        .unwrap();
    tell("within", &program, 53);
    program
        .apply(&wanted(Some(limit(200_000_000)), &exempt))
        .unwrap();
    tell("within, 10,000 exempt", &program, 53);
    program
        .apply(&wanted(Some(limit(1)), &BTreeSet::new()))
        .unwrap();
    tell("dropped", &program, 53);
    program.apply(&wanted(Some(limit(1)), &exempt)).unwrap();
    tell("dropped, 10,000 exempt", &program, 53);
}
