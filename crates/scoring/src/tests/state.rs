//! What survives a restart, levels between workers, what is counted of signals and bands, memory.

use std::time::Duration;

use dnscrub_wire::Rcode;

use crate::defence::Level;
use crate::levels::{Levels, SignalAlarm, SuffixAlarm};
use crate::policy::Policy;
use crate::response_limit;
use crate::scorer::{Reply, Restored, SavedPart, Scorer};
use crate::testing::{Bench, build, context, query, reply, tcp};

const QUIET: &str = "signals: { rate: { v4: {}, v6: {}, questions: { points: 0 } } }";

fn part(bench: &mut Bench) -> Vec<u8> {
    let mut part = SavedPart::default();
    let mut step = 0;
    while bench.scorer.save(&bench.policy, step, &mut part) {
        step += 1;
    }
    part.into_octets()
}

/// A policy and worker that were restored.
fn restored(yaml: &str, learned: &[u8], parts: &[&[u8]]) -> (Bench, Restored) {
    let mut bench = Bench::new(yaml);
    let left_out = bench.policy.restore_learned(learned).unwrap();
    assert_eq!(left_out, [""; 0]);
    let fits = bench.scorer.restore(&bench.policy, parts, bench.now);
    (bench, fits)
}

fn known(bench: &mut Bench, name: &str, source: &str) -> (&'static str, &'static str) {
    let explained = bench.explain(&query(name, 1), &context(source));
    (explained.known.source, explained.known.name)
}

/// `rate` queries a second over UDP for `seconds`, for a name that exists, from a known source, with
/// the same IP TTL.
fn serve(bench: &mut Bench, name: &str, rate: u32, seconds: u32) {
    let asked = query(name, 1);
    let mut from = context("192.0.2.1");
    from.hop_ttl = Some(57);
    // so that it is known
    bench.judge(&asked, &tcp("192.0.2.1"));
    for _ in 0..rate * seconds {
        bench.now += Duration::from_secs(1) / rate;
        bench.judge(&asked, &from);
        let name = name.parse().unwrap();
        let answer = reply(&name, 100);
        bench
            .scorer
            .observe_response(&bench.policy, &answer, bench.now);
    }
}

/// The usual rate of a signal's alarm.
fn usual(bench: &mut Bench, signal: &str) -> f32 {
    let levels = bench.scorer.levels(&bench.policy, bench.now);
    let mut signals = levels.signals.into_iter();
    signals.find(|alarm| alarm.signal == signal).unwrap().usual
}

#[test]
fn sources_and_names_are_known_after_a_restart() {
    let mut before = Bench::new(QUIET);
    serve(&mut before, "www.example.com", 50, 20);
    before.judge(&query("www.example.com", 1), &tcp("198.51.100.7"));
    let failed: dnscrub_wire::Name = "gone.example.com".parse().unwrap();
    let answer = Reply {
        rcode: Rcode::NXDOMAIN,
        ..reply(&failed, 100)
    };
    before
        .scorer
        .observe_response(&before.policy, &answer, before.now);
    let learned = before.policy.save_learned();
    let part = part(&mut before);

    let mut fresh = Bench::new(QUIET);
    assert_eq!(
        known(&mut fresh, "www.example.com", "198.51.100.7"),
        ("new", "unknown")
    );
    let (mut after, fits) = restored(QUIET, &learned, &[&part]);
    assert_eq!(fits, Restored::default());
    for (name, source, expected) in [
        ("www.example.com", "198.51.100.7", ("known", "exists")),
        ("gone.example.com", "203.0.113.9", ("new", "failed before")),
        ("other.example.com", "203.0.113.9", ("new", "unknown")),
    ] {
        assert_eq!(known(&mut after, name, source), expected, "{name} {source}");
    }
    // a packet with another TTL than the source usually shows is odd at once
    let mut forged = context("192.0.2.1");
    forged.hop_ttl = Some(200);
    let explained = after.explain(&query("www.example.com", 1), &forged);
    let hops = explained
        .signals
        .iter()
        .find(|step| step.signal == "hop-count")
        .unwrap();
    assert!(
        hops.why.iter().any(|why| why.contains("another IP TTL")),
        "{hops:?}"
    );
}

#[test]
fn what_is_usual_is_known_right_after_a_restart() {
    let mut before = Bench::new(QUIET);
    // names nobody knows, never answered: 40 a second are usual here, all of them from one stranger
    for number in 0..40 * 40 {
        before.now += Duration::from_millis(25);
        let name = format!("n{number}.example.com");
        before.judge(&query(&name, 1), &context("192.0.2.1"));
    }
    let doubtful = usual(&mut before, "suffix-flood");
    assert!((10.0..30.0).contains(&doubtful), "{doubtful}");
    let (learned, part) = (before.policy.save_learned(), part(&mut before));

    // the policy is for two workers, each of which takes half
    let (mut after, _) = restored(QUIET, &learned, &[&part]);
    let restored_usual = usual(&mut after, "suffix-flood");
    assert!(
        (restored_usual - doubtful / 2.0).abs() < 0.1,
        "{restored_usual} of {doubtful}"
    );
    // two workers that saw the same make one that is used to all of it
    let (mut both, _) = restored(QUIET, &learned, &[&part, &part]);
    let sum = usual(&mut both, "suffix-flood");
    assert!((sum - doubtful).abs() < 0.1, "{sum} of {doubtful}");
}

#[test]
fn other_sizes_and_damage_leave_out_what_does_not_fit() {
    let mut before = Bench::new(QUIET);
    serve(&mut before, "www.example.com", 20, 2);
    let (learned, part) = (before.policy.save_learned(), part(&mut before));

    let smaller = "signals: { loyalty: { memory: 1MiB }, hop-count: { memory: 64KiB } }";
    let mut bench = Bench::new(smaller);
    assert_eq!(
        bench.policy.restore_learned(&learned),
        Some(vec!["known sources"])
    );
    let fits = bench.scorer.restore(&bench.policy, &[&part], bench.now);
    assert!(fits.other_size && !fits.broken_off, "{fits:?}");
    assert_eq!(
        known(&mut bench, "www.example.com", "192.0.2.1"),
        ("new", "exists"),
    );

    let mut policy = build(QUIET).unwrap();
    for len in [0, 8, 39, 40, 41, learned.len() - 1] {
        assert_eq!(policy.restore_learned(&learned[..len]), None, "{len}");
    }
    let mut other_hash = learned.clone();
    other_hash[33] ^= 1;
    assert_eq!(policy.restore_learned(&other_hash), None);
    for len in [1, 5, part.len() / 2, part.len() - 1] {
        let (_, fits) = restored(QUIET, &learned, &[&part[..len]]);
        assert!(fits.broken_off, "{len}");
    }
    // whatever stands there, nothing breaks
    for seed in 0..200_u32 {
        let noise: Vec<u8> = (0..300_u32)
            .map(|at| (at.wrapping_mul(seed.wrapping_mul(2_654_435_761)) >> 13) as u8)
            .collect();
        restored(QUIET, &learned, &[&noise]);
    }
}

#[test]
fn a_short_first_run_does_not_count_as_knowledge_of_names() {
    let mut before = Bench::new(QUIET);
    serve(&mut before, "www.example.com", 20, 2);
    let enough = |policy: &Policy| policy.save_learned()[40];
    assert_eq!(enough(&before.policy), 0);
    // the first worker keeps the shared time
    before.scorer = Scorer::new(0, &before.policy, [1, 2, 3, 4], before.now);
    serve(&mut before, "www.example.com", 5, 61);
    assert_eq!(enough(&before.policy), 1);
}

#[test]
fn a_worker_enforces_what_others_see_and_tells_only_what_it_sees() {
    let mut bench = Bench::new(QUIET);
    serve(&mut bench, "www.example.com", 20, 2);
    let alarm = |signal, level| SignalAlarm {
        signal,
        level,
        rate: 1000.0,
        usual: 1.0,
    };
    let elsewhere = Levels {
        signals: vec![alarm("loyalty", Level::Attack)],
        suffixes: vec![SuffixAlarm {
            name: "example.com".parse().unwrap(),
            level: Level::Attack,
            rate: 1000.0,
            usual: 1.0,
            distinct: 1000.0,
        }],
    };
    bench.scorer.adopt_levels(&bench.policy, &elsewhere);
    serve(&mut bench, "www.example.com", 20, 1);
    let asked = query("x.example.com", 1);
    let stranger = context("203.0.113.9");
    let explained = bench.explain(&asked, &stranger);
    assert_eq!(explained.known.level, Level::Attack);
    let loyalty = explained
        .signals
        .iter()
        .find(|step| step.signal == "loyalty")
        .unwrap();
    assert!(loyalty.points > 0, "{loyalty:?}");
    let own = bench.scorer.levels(&bench.policy, bench.now);
    assert_eq!(
        (own.whole(), own.suffixes.as_slice()),
        (Level::Calm, [].as_slice())
    );

    bench.scorer.adopt_levels(&bench.policy, &Levels::default());
    serve(&mut bench, "www.example.com", 20, 1);
    assert_eq!(bench.explain(&asked, &stranger).known.level, Level::Calm);
}

#[test]
fn a_flood_is_told_with_its_zone_and_comes_down_without_queries() {
    let mut bench = Bench::new(QUIET);
    serve(&mut bench, "www.example.com", 20, 20);
    for number in 0..4000 {
        bench.now += Duration::from_micros(500);
        let asked = query(&format!("n{number}.example.com"), 1);
        bench.judge_alone(&asked, &context("192.0.2.1"));
    }
    let levels = bench.scorer.levels(&bench.policy, bench.now);
    assert_eq!(levels.whole(), Level::Attack);
    assert_eq!(levels.worst().unwrap().signal, "suffix-flood");
    let zone = &levels.suffixes[0];
    assert_eq!(
        (zone.name.to_string().as_str(), zone.level),
        ("example.com", Level::Attack)
    );
    assert!(zone.rate > 300.0 && zone.distinct > 1000.0, "{zone:?}");
    for _ in 0..600 {
        bench.now += Duration::from_millis(100);
        bench.scorer.levels(&bench.policy, bench.now);
    }
    let levels = bench.scorer.levels(&bench.policy, bench.now);
    assert_eq!((levels.whole(), levels.suffixes.len()), (Level::Calm, 0));
}

fn counts(policy: &Policy, signal: &str) -> (u64, u64, u64) {
    let signals = policy.signals();
    let view = signals.iter().find(|view| view.name == signal).unwrap();
    (view.queries, view.points, view.held_back)
}

#[test]
fn points_are_counted_by_signal_and_what_observe_mode_holds_back() {
    let ask = |bench: &mut Bench| {
        bench.pressure = 1.0;
        bench.judge(&query("www.example.com", 255), &context("192.0.2.1"));
        bench.judge(&query("www.example.com", 1), &context("192.0.2.1"));
    };
    let yaml = "scrubbing: { bands: [ { action: drop, at: 30, under-pressure: 30 } ] }\n\
                signals: { amplification: { any: 35, mode: observe }, rate: { v4: {}, v6: {}, questions: { points: 0 } } }";
    let mut observing = Bench::new(yaml);
    ask(&mut observing);
    assert_eq!(counts(&observing.policy, "amplification"), (1, 35, 1));
    assert!(
        observing
            .policy
            .signals()
            .iter()
            .all(|view| view.observe == (view.name == "amplification"))
    );
    let band = observing.policy.bands().next().unwrap();
    assert_eq!(
        (band.name.as_str(), band.acted, band.held_back),
        ("drop-30", 0, 1)
    );

    let mut acting = Bench::new(&yaml.replace("observe", "enforce"));
    ask(&mut acting);
    let band = acting.policy.bands().next().unwrap();
    assert_eq!((band.acted, band.held_back, band.observe), (1, 0, false));
    assert_eq!(counts(&acting.policy, "amplification"), (1, 35, 0));
    assert_eq!(counts(&acting.policy, "cost"), (0, 0, 0));
    // counters go on over a reload, unless the band is another one
    let mut next = build(&yaml.replace("observe", "enforce")).unwrap();
    next.carry_over(&acting.policy);
    assert_eq!(next.bands().next().unwrap().acted, 1);
    assert_eq!(counts(&next, "amplification"), (1, 35, 0));
    let mut other = build(&yaml.replace("at: 30", "at: 35")).unwrap();
    other.carry_over(&acting.policy);
    assert_eq!(other.bands().next().unwrap().acted, 0);
}

#[test]
fn a_band_in_observe_mode_counts_what_it_would_have_done() {
    let mut bench = Bench::new(
        "scrubbing: { bands: [ { action: drop, at: 30, under-pressure: 30, observe: true } ] }\n\
         signals: { amplification: { any: 35 } }",
    );
    bench.pressure = 1.0;
    bench.judge(&query("www.example.com", 255), &context("192.0.2.1"));
    let band = bench.policy.bands().next().unwrap();
    assert_eq!((band.acted, band.held_back, band.observe), (0, 1, true));
    assert_eq!(
        counts(&bench.policy, "amplification"),
        (1, 35, 0),
        "the signal is enforced"
    );
}

#[test]
fn default_settings_stay_within_64_mib_a_worker() {
    let bench = Bench::new("");
    let limits = response_limit::Config::default();
    let octets =
        bench.scorer.octets(&bench.policy) + bench.policy.shared_octets() + limits.memory.0;
    assert!(octets <= 64 << 20, "{octets}");
    // and they are all there
    assert!(octets > 20 << 20, "{octets}");
    let larger = Bench::new("signals: { rate: { memory: 16MiB } }");
    assert_eq!(
        larger.scorer.octets(&larger.policy) - bench.scorer.octets(&bench.policy),
        12 << 20
    );
    let with_rules = Bench::new(
        "rules: [ { name: r, do: { rate-limit: { rate: 5/s, per: { v4: 32, v6: 64 } } } } ]",
    );
    assert_eq!(
        with_rules.scorer.octets(&with_rules.policy) - bench.scorer.octets(&bench.policy),
        16 << 20
    );
}
