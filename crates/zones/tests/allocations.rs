//! Look-ups and negative answers allocate nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests may ask for the time")]

mod common;

use std::sync::Arc;
use std::time::Instant;

use ahash::RandomState;
use common::{name, pairs, zone};
use dnscrub_testkit::CountingAllocator;
use dnscrub_zones::{Presence, Zones};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn nothing_is_allocated() {
    assert!(CountingAllocator::is_installed());
    let now = Instant::now();
    let records = pairs(&["www.example A", "*.w.example A", "d.example DNAME"]);
    let zones = Zones::new(
        vec![Arc::new(zone("example", &records, now))],
        RandomState::new(),
    );
    let names = ["www.example", "x.w.example", "x.d.example", "no.example"].map(name);
    let mut room = [0; 512];
    // the first look of a thread registers it with arc-swap
    let first = zones.get(&name("example")).unwrap();
    assert_eq!(first.look_up(&names[0], now).presence, Presence::Exists);
    let start = CountingAllocator::start();
    let mut missing = 0;
    for _ in 0..1000 {
        for qname in &names {
            let (_, zone) = zones.find(qname).unwrap();
            if zone.look_up(qname, now).presence == Presence::Missing {
                zone.negative_answer(qname, true, now, &mut room).unwrap();
                missing += 1;
            }
        }
    }
    assert_eq!(missing, 1000);
    assert_eq!(CountingAllocator::since(start).allocations, 0);
}
