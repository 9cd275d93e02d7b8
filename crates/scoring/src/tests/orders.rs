//! Levels by an operator or an incident, and what levels switch on.

use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use dnscrub_zones::master_file::MasterFile;
use dnscrub_zones::{Limits, Zone, Zones};

use crate::config::{Challenge, LevelResponse};
use crate::defence::Level;
use crate::judgement::{Action, Cause};
use crate::orders::{Order, Orders};
use crate::testing::{Bench, context, query, tcp};

const OPERATOR: Order = Order {
    least: Level::Attack,
    names: Level::Attack,
    sources: Level::Attack,
    calm: false,
};
const INCIDENT: Order = Order {
    sources: Level::Calm,
    names: Level::Calm,
    ..OPERATOR
};
const ABOUT_NAMES: Order = Order {
    sources: Level::Calm,
    ..OPERATOR
};
const CALM: Order = Order {
    least: Level::Calm,
    names: Level::Calm,
    sources: Level::Calm,
    calm: true,
};

impl Bench {
    /// Takes over orders, and lets what is done now and then be done.
    fn order(&mut self, whole: Order, zones: &[(&str, Order)]) {
        let zones = zones
            .iter()
            .map(|&(zone, order)| (zone.parse().unwrap(), order));
        let orders = Orders {
            whole,
            zones: zones.collect(),
        };
        self.scorer.adopt_orders(&self.policy, &orders);
        self.now += Duration::from_millis(20);
    }

    /// Which action and cause a query over UDP from a source gets.
    fn told(&mut self, name: &str, source: &str) -> (Action, Cause) {
        let judgement = self.judge(&query(name, 1), &context(source));
        (judgement.action, judgement.cause)
    }
}

/// With what the level attack switches on.
fn with_response(rules: &str, attack: LevelResponse) -> Bench {
    let mut bench = Bench::new(rules);
    bench
        .policy
        .set_response(&LevelResponse::default(), &attack);
    bench
}

/// Knows all names of example.com: itself, ns1 and www.
fn with_zone() -> Bench {
    let mut bench = Bench::new("{}");
    let hasher = RandomState::new();
    let apex = "example.com".parse().unwrap();
    let zone = Zone::new(apex, Limits::default(), hasher.clone(), bench.now);
    let mut file = MasterFile::new(zone.name(), zone.builder());
    file.feed(b"@ 60 IN SOA ns1 h 1 3600 600 86400 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\nwww 60 IN A 192.0.2.9\n")
        .unwrap();
    let contents = file.finish().unwrap().finish().unwrap();
    zone.load(contents, Duration::from_secs(3600), bench.now);
    let zones = Zones::new(vec![Arc::new(zone)], hasher);
    bench.policy.set_zones(Arc::new(zones));
    bench
}

#[test]
fn a_rule_waits_for_its_level_of_the_zone_or_the_whole() {
    let rules = "rules: [{ name: at-alert, from-level: alert, when: { qtype: TXT }, do: refuse }, \
                  { name: at-attack, from-level: attack, do: { score: 7 } }]";
    let mut bench = Bench::new(rules);
    let txt = query("www.example.com", 16);
    let source = context("192.0.2.1");
    assert_eq!(bench.judge(&txt, &source).action, Action::Pass);
    let explained = bench.explain(&txt, &source);
    let waiting: Vec<_> = explained.rules.iter().map(|step| step.waits_for).collect();
    assert_eq!(waiting, [Some(Level::Alert), Some(Level::Attack)]);
    assert!(
        explained
            .to_string()
            .contains("at-alert waits for level alert"),
        "{explained}"
    );

    bench.order(Order::default(), &[("example.com", INCIDENT)]);
    assert_eq!(bench.judge(&txt, &source).action, Action::Refuse);
    assert_eq!(bench.judge(&query("www.example.com", 1), &source).points, 7);
    assert_eq!(
        bench.judge(&query("www.example.net", 16), &source).action,
        Action::Pass
    );
    let alert = Order {
        least: Level::Alert,
        ..Order::default()
    };
    bench.order(alert, &[]);
    let judgement = bench.judge(&query("www.example.net", 16), &source);
    assert_eq!((judgement.action, judgement.points), (Action::Refuse, 0));
    let views: Vec<_> = bench
        .policy
        .rules()
        .map(|rule| (rule.from_level, rule.matched))
        .collect();
    assert_eq!(views, [(Level::Alert, 2), (Level::Attack, 1)]);
    bench.order(CALM, &[]);
    assert_eq!(bench.judge(&txt, &source).action, Action::Pass);
}

#[test]
fn a_level_challenges_those_it_is_to() {
    let challenge = |challenge| LevelResponse {
        challenge,
        ..LevelResponse::default()
    };
    let level = (Action::Truncate, Cause::Level);
    let passes = (Action::Pass, Cause::None);
    let mut bench = with_response("{}", challenge(Challenge::New));
    bench.order(INCIDENT, &[]);
    assert_eq!(bench.told("www.example.com", "192.0.2.1"), level);
    let over_tcp = bench.judge(&query("www.example.com", 1), &tcp("192.0.2.1"));
    assert_eq!(over_tcp.action, Action::Pass);
    assert_eq!(
        bench.told("www.example.com", "192.0.2.1"),
        passes,
        "it is verified now"
    );
    bench.order(Order::default(), &[]);
    assert_eq!(bench.told("www.example.com", "192.0.2.2"), passes);

    let mut bench = with_response(
        "{ rules: [{ name: friends, when: { source: 192.0.2.3 }, do: allow }], scrubbing: { mode: observe } }",
        challenge(Challenge::Unverified),
    );
    bench.order(INCIDENT, &[]);
    let judgement = bench.judge(&query("www.example.com", 1), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.would),
        (Action::Pass, Some(level)),
        "held back"
    );
}

#[test]
fn a_rule_that_lets_pass_goes_before_the_levels_challenge() {
    let attack = LevelResponse {
        challenge: Challenge::Unverified,
        ..LevelResponse::default()
    };
    let rules = "rules: [{ name: friends, when: { source: 192.0.2.3 }, do: allow }]";
    let mut bench = with_response(rules, attack);
    bench.order(INCIDENT, &[]);
    assert_eq!(
        bench.told("www.example.com", "192.0.2.3").1,
        Cause::Allow(0)
    );
    assert_eq!(bench.told("www.example.com", "192.0.2.4").1, Cause::Level);
    assert!(bench.policy.trusts("192.0.2.3".parse().unwrap()));
    assert!(!bench.policy.trusts("192.0.2.4".parse().unwrap()));
    let trusted: Vec<_> = bench.policy.trusted_prefixes().collect();
    assert_eq!(trusted, ["192.0.2.3/32".parse().unwrap()]);
}

#[test]
fn a_levels_pressure_floor_makes_points_count_at_rest() {
    let attack = LevelResponse {
        pressure_floor: 1.0,
        ..LevelResponse::default()
    };
    let rules = "rules: [{ name: points, when: { qtype: TXT }, do: { score: 50 } }]";
    let mut bench = with_response(rules, attack);
    let txt = query("www.example.com", 16);
    assert_eq!(
        bench.judge(&txt, &context("192.0.2.1")).action,
        Action::Pass
    );
    bench.order(Order::default(), &[("example.com", INCIDENT)]);
    assert_eq!(
        bench.judge(&txt, &context("192.0.2.1")).action,
        Action::Drop
    );
    let explained = bench.explain(&txt, &context("192.0.2.1"));
    assert_eq!(explained.pressure, 1.0);
    assert_eq!(explained.because, "50 points reach the band from 40");
    assert!(explained.bands.iter().all(|band| band.reached));
    let other = query("www.example.net", 16);
    assert_eq!(
        bench.judge(&other, &context("192.0.2.1")).action,
        Action::Pass
    );
}

#[test]
fn missing_names_are_certain_by_an_operator_or_an_incident_about_names_only() {
    let mut bench = with_zone();
    let missing = (Action::NxDomain, Cause::Missing);
    let passes = (Action::Pass, Cause::None);
    assert_eq!(bench.told("nope.example.com", "192.0.2.1"), passes);
    for (order, expected) in [
        (INCIDENT, passes),
        (ABOUT_NAMES, missing),
        (OPERATOR, missing),
        (CALM, passes),
    ] {
        bench.order(Order::default(), &[("example.com", order)]);
        assert_eq!(
            bench.told("nope.example.com", "192.0.2.1"),
            expected,
            "{order:?}"
        );
        assert_eq!(bench.told("nope.example.net", "192.0.2.1"), passes);
    }
    bench.order(OPERATOR, &[]);
    assert_eq!(
        bench.told("nope.example.com", "192.0.2.1"),
        missing,
        "of the whole"
    );
}

#[test]
fn strangers_are_suspect_by_an_operator_and_never_by_an_incident() {
    let mut bench = with_zone();
    // who came over TCP is known
    bench.judge(&query("www.example.com", 1), &tcp("192.0.2.7"));
    // what `loyalty` says
    let points = |bench: &mut Bench, source| {
        let asked = query("www.example.com", 1);
        bench.judge_alone(&asked, &context(source));
        let explained = bench.explain(&asked, &context(source));
        let mut steps = explained.signals.iter();
        steps.find(|step| step.signal == "loyalty").unwrap().points
    };
    for order in [INCIDENT, ABOUT_NAMES] {
        bench.order(order, &[]);
        assert_eq!(points(&mut bench, "198.51.100.1"), 0, "{order:?}");
    }
    for (order, zones) in [
        (OPERATOR, vec![]),
        (Order::default(), vec![("example.com", OPERATOR)]),
    ] {
        bench.order(order, &zones);
        assert!(points(&mut bench, "198.51.100.2") > 0, "{zones:?}");
        assert_eq!(points(&mut bench, "192.0.2.7"), 0, "it was here before");
    }
}

#[test]
fn calm_by_hand_holds_down_what_alarms_make_certain() {
    let mut bench = with_zone();
    let flood = |bench: &mut Bench, from: u32| {
        let mut last = (Action::Pass, Cause::None);
        for number in from..from + 3_000 {
            bench.now += Duration::from_micros(300);
            let asked = query(&format!("x{number}.example.com"), 1);
            let judged = bench.judge_alone(&asked, &context("192.0.2.1"));
            last = (judged.action, judged.cause);
        }
        last
    };
    for _ in 0..200 {
        bench.now += Duration::from_millis(100);
        bench.judge(&query("www.example.com", 1), &context("192.0.2.7"));
    }
    assert_eq!(flood(&mut bench, 0), (Action::NxDomain, Cause::Missing));
    bench.order(CALM, &[]);
    assert_eq!(flood(&mut bench, 10_000), (Action::Pass, Cause::None));
    bench.pressure = 1.0;
    assert_ne!(
        bench.told("y.example.com", "192.0.2.1").0,
        Action::Pass,
        "pressure counts as ever"
    );
    bench.pressure = 0.0;
    bench.order(Order::default(), &[("example.com", CALM)]);
    assert_eq!(flood(&mut bench, 20_000), (Action::Pass, Cause::None));
    bench.order(Order::default(), &[]);
    assert_eq!(
        flood(&mut bench, 30_000),
        (Action::NxDomain, Cause::Missing)
    );
}
