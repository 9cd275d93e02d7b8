//! Loads a zone of ten million names and says what it takes: `cargo run --release -p dnscrub-zones
//! --example ten_million_names`, with another number of names as argument if need be.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "an example that measures"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use ahash::RandomState;
use dnscrub_wire::Name;
use dnscrub_zones::master_file::MasterFile;
use dnscrub_zones::{Limits, Presence, Zone};

const LOOK_UPS: usize = 2_000_000;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    println!("resident at its highest: {} MiB", line("VmHWM") / 1024);
    line("VmRSS") / 1024
}

fn main() {
    let names: u32 = std::env::args()
        .nth(1)
        .map_or(10_000_000, |argument| argument.parse().unwrap());
    let now = Instant::now();
    let apex = Name::from_text("example.com").unwrap();
    let zone = Zone::new(apex, Limits::default(), RandomState::new(), now);

    let began = Instant::now();
    let mut file = MasterFile::new(&apex, zone.builder());
    file.feed(b"$TTL 3600\n@ SOA ns h 1 3600 600 864000 300\n@ NS ns\n")
        .unwrap();
    let mut text = String::new();
    for number in 0..names {
        text.clear();
        let _ = writeln!(text, "host-{number} A 192.0.2.1");
        file.feed(text.as_bytes()).unwrap();
    }
    let contents = file.finish().unwrap().finish().unwrap();
    zone.load(contents, Duration::from_secs(3600), now);
    let size = zone.size().unwrap();
    println!(
        "{} names read from a zone file in {:.1?}",
        size.names,
        began.elapsed()
    );
    println!(
        "memory: {:.1} MiB, {:.1} octets a name",
        size.octets as f64 / f64::from(1 << 20),
        size.octets as f64 / f64::from(size.names)
    );
    println!("resident: {} MiB", resident());

    let asked = |prefix: &str, step: usize| -> Vec<Name> {
        (0..LOOK_UPS)
            .map(|n| n * step % names as usize)
            .map(|n| Name::from_text(&format!("{prefix}-{n}.example.com")).unwrap())
            .collect()
    };
    for (prefix, what) in [("host", Presence::Exists), ("mist", Presence::Missing)] {
        let qnames = asked(prefix, 7_919);
        let began = Instant::now();
        let right = qnames
            .iter()
            .filter(|qname| black_box(zone.look_up(qname, now)).presence == what)
            .count();
        let each = began.elapsed().as_nanos() / LOOK_UPS as u128;
        println!("{what:?}: {each} ns a look-up, {right} of {LOOK_UPS} right");
    }
    let mut room = [0; 1232];
    let qname = Name::from_text("missing.example.com").unwrap();
    let began = Instant::now();
    for _ in 0..LOOK_UPS {
        black_box(zone.negative_answer(&qname, false, now, &mut room).unwrap());
    }
    let each = began.elapsed().as_nanos() / LOOK_UPS as u128;
    println!("authority section of a negative answer: {each} ns");
}
