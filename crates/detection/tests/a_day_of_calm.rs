//! A day of legitimate load, with all that happens in one, opens no incident that is called an attack.

mod world;

use dnscrub_detection::Incident;
use world::{Question, World};

/// Part of the highest load at this hour.
fn load(hour: f64) -> f64 {
    0.35 + 0.65 * (0.5 - 0.5 * (2.0 * std::f64::consts::PI * (hour - 4.0) / 24.0).cos())
}

fn a_day(seed: u64, rate: f64, aware: bool, hours: f64) -> Vec<Incident> {
    let mut world = World::new(seed, rate, aware);
    let mut incidents = Vec::new();
    let seconds = (hours * 3600.0) as usize;
    // what happens does so at these parts of the day
    let at = |part: f64| (part * seconds as f64) as usize;
    let within = |second: usize, part: f64, long: usize| {
        (at(part)..at(part).saturating_add(long)).contains(&second)
    };
    for second in 0..seconds {
        let hour = 24.0 * second as f64 / seconds as f64;
        world.usual(load(hour));
        // new resolvers come and old ones go
        if second % 97 == 0 {
            let (old, new) = (world.lot.below(400), world.stranger());
            world.resolvers[old] = new;
        }
        if second % 5000 == 2500 {
            let zone = world.lot.below(12);
            world.deploy(zone, 30);
        }
        // two mailings
        if within(second, 0.4, 600) || within(second, 0.6, 60) {
            for _ in 0..world.lot.poisson(0.4 * rate) {
                let zone = world.lot.ranked(12);
                let source = world.resolver();
                let missing = world.lot.chance(0.55);
                let labels = if missing {
                    world.typo(zone)
                } else {
                    world.existing(zone)
                };
                let qtype = if world.lot.chance(0.65) { 15 } else { 1 };
                let question = Question {
                    source,
                    zone,
                    labels,
                    qtype,
                    odd_hops: false,
                };
                world.ask(&question);
            }
        }
        // the cache of a large resolver is emptied
        if within(second, 0.3, 40) || within(second, 0.75, 40) {
            let source = world.resolvers[0];
            for _ in 0..world.lot.poisson(0.8 * rate) {
                let question = Question {
                    source,
                    ..world.legitimate()
                };
                world.ask(&question);
            }
        }
        // many want the same
        if within(second, 0.85, 300) {
            let many = world.lot.poisson(3.0 * rate);
            for _ in 0..many {
                let source = world.resolver();
                let name = world.lot.below(3);
                let labels = ["www", "shop", "login"][name].to_owned();
                world.ask(&Question {
                    source,
                    zone: 1,
                    labels,
                    qtype: 1,
                    odd_hops: false,
                });
            }
        }
        // a burst of three seconds
        if second % 7000 < 3 {
            world.usual(2.0);
        }
        let events = world.tick();
        incidents.extend(events.into_iter().map(|(_, incident)| incident));
    }
    incidents
}

fn assert_no_attack(incidents: &[Incident]) {
    let attacks: Vec<_> = incidents.iter().filter(|it| it.kind.is_attack()).collect();
    assert!(attacks.is_empty(), "{attacks:#?}");
}

#[test]
fn a_day_of_legitimate_load_is_no_attack() {
    assert_no_attack(&a_day(1, 60.0, true, 24.0));
}

#[test]
fn nor_is_one_without_the_zones() {
    assert_no_attack(&a_day(2, 60.0, false, 24.0));
}

#[test]
fn nor_is_a_busy_hour() {
    assert_no_attack(&a_day(3, 800.0, true, 0.7));
    assert_no_attack(&a_day(4, 800.0, false, 0.7));
}
