//! What rules do, in which order; bands; observe mode.

use std::time::Duration;

use crate::judgement::{Action, Block, Cause};
use crate::scorer::Scorer;
use crate::testing::{Bench, build, context, query, reply, tcp};

fn rules(rules: &str) -> Bench {
    Bench::new(&format!(
        "signals: {{ rate: {{ v4: {{}}, v6: {{}} }}, amplification: {{ any: 0 }} }}\nrules: {rules}"
    ))
}

#[test]
fn every_action() {
    for (written, action) in [
        ("drop", Action::Drop),
        ("refuse", Action::Refuse),
        ("nxdomain", Action::NxDomain),
        ("truncate", Action::Truncate),
        ("allow", Action::Pass),
        ("{ action: refuse }", Action::Refuse),
        ("{ answer: truncate }", Action::Truncate),
    ] {
        let judgement = rules(&format!("[{{ name: it, do: {written} }}]"))
            .judge(&query("a.test", 1), &context("192.0.2.1"));
        assert_eq!(judgement.action, action, "{written}");
        let cause = if action == Action::Pass {
            Cause::Allow(0)
        } else {
            Cause::Rule(0)
        };
        assert_eq!(judgement.cause, cause);
    }
}

#[test]
fn the_first_rule_that_acts_decides() {
    let mut bench = rules(
        "[{ name: points, do: { score: 5 } }, { name: never, when: { qtype: TXT }, do: drop }, \
          { name: first, when: { qname: { under: a.test } }, do: refuse }, { name: second, do: drop }]",
    );
    let judgement = bench.judge(&query("www.a.test", 1), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.cause, judgement.points),
        (Action::Refuse, Cause::Rule(2), 5)
    );
    let judgement = bench.judge(&query("www.b.test", 1), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.cause),
        (Action::Drop, Cause::Rule(3))
    );
    let seen: Vec<(String, u64, u64, u64)> = bench
        .policy
        .rules()
        .map(|rule| {
            (
                rule.name.to_owned(),
                rule.matched,
                rule.acted(Action::Refuse),
                rule.acted(Action::Drop),
            )
        })
        .collect();
    let expected = [
        ("points", 2, 0, 0),
        ("never", 0, 0, 0),
        ("first", 1, 1, 0),
        ("second", 1, 0, 1),
    ];
    assert_eq!(
        seen,
        expected.map(|(name, a, b, c)| (name.to_owned(), a, b, c))
    );
}

#[test]
fn points_add_up_and_can_be_taken_away() {
    let mut bench = rules(
        "[{ name: a, do: { score: 150 } }, { name: b, when: { qtype: A }, do: { score: -100 } }, \
          { name: c, when: { qtype: NS }, do: { score: -200 } }]",
    );
    for (qtype, points, action) in [
        (1, 50, Action::Pass),
        (2, 0, Action::Pass),
        (16, 150, Action::Drop),
    ] {
        let judgement = bench.judge(&query("a.test", qtype), &context("192.0.2.1"));
        assert_eq!((judgement.points, judgement.action), (points, action));
    }
}

#[test]
fn allow_ends_judging_whatever_the_points() {
    let mut bench = rules(
        "[{ name: bad, do: { score: 500 } }, { name: ok, when: { source: 192.0.2.1 }, do: allow }, { name: no, do: drop }]",
    );
    let judgement = bench.judge(&query("a.test", 1), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.cause, judgement.points),
        (Action::Pass, Cause::Allow(1), 500)
    );
    assert_eq!(
        bench
            .judge(&query("a.test", 1), &context("192.0.2.2"))
            .action,
        Action::Drop
    );
}

#[test]
fn the_first_pool_named_is_used() {
    let mut bench = rules(
        "[{ name: observed, observe: true, do: { pool: default } }, { name: a, when: { qtype: TXT }, do: { pool: slow } }, \
          { name: b, do: { pool: default } }]",
    );
    assert_eq!(
        bench
            .judge(&query("a.test", 16), &context("192.0.2.1"))
            .pool,
        Some(1)
    );
    assert_eq!(
        bench.judge(&query("a.test", 1), &context("192.0.2.1")).pool,
        Some(0)
    );
    assert_eq!(
        bench
            .policy
            .rules()
            .map(|rule| rule.routed)
            .collect::<Vec<_>>(),
        [0, 1, 1]
    );
}

#[test]
fn blocking_drops_unless_told_otherwise() {
    let block = Some(Block {
        lifetime: Duration::from_secs(600),
        rule: 0,
    });
    for (written, action) in [
        ("{ block: 10m }", Action::Drop),
        ("{ block: 10m, action: refuse }", Action::Refuse),
    ] {
        let judgement = rules(&format!("[{{ name: it, do: {written} }}]"))
            .judge(&query("a.test", 1), &context("192.0.2.1"));
        assert_eq!((judgement.action, judgement.block_source), (action, block));
    }
    let judgement = rules("[{ name: it, observe: true, do: { block: 10m } }]")
        .judge(&query("a.test", 1), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.block_source),
        (Action::Pass, None)
    );
    assert_eq!(judgement.would, Some((Action::Drop, Cause::Rule(0))));
    let mut limited = rules("[{ name: it, do: { rate-limit: { rate: 1/s }, block: 10m } }]");
    assert_eq!(
        limited
            .judge(&query("a.test", 1), &context("192.0.2.1"))
            .block_source,
        None
    );
    assert_eq!(
        limited
            .judge(&query("a.test", 1), &context("192.0.2.1"))
            .block_source,
        block
    );
}

#[test]
fn truncation_is_pointless_over_tcp() {
    let mut bench =
        rules("[{ name: it, do: truncate }, { name: next, when: { qtype: TXT }, do: refuse }]");
    assert_eq!(
        bench
            .judge(&query("a.test", 1), &context("192.0.2.1"))
            .action,
        Action::Truncate
    );
    assert_eq!(
        bench.judge(&query("a.test", 1), &tcp("192.0.2.1")).action,
        Action::Pass
    );
    assert_eq!(
        bench.judge(&query("a.test", 16), &tcp("192.0.2.1")).action,
        Action::Refuse
    );
    let mut bench = rules("[{ name: it, do: { score: 70 } }]");
    assert_eq!(
        bench
            .judge(&query("a.test", 1), &context("192.0.2.1"))
            .action,
        Action::Truncate
    );
    assert_eq!(
        bench.judge(&query("a.test", 1), &tcp("192.0.2.1")).action,
        Action::Pass
    );
}

#[test]
fn rate_limits_by_source_prefix_and_as_a_whole() {
    let mut bench = rules(
        "[{ name: each, when: { qname: { under: a.test } }, do: { rate-limit: { rate: 2/s, over: refuse } } }, \
          { name: nets, when: { qname: { under: b.test } }, do: { rate-limit: { rate: 2/s, per: { v4: 24, v6: 48 }, over: truncate } } }, \
          { name: whole, when: { qname: { under: c.test } }, do: { rate-limit: { rate: 2/s, per: whole, burst: 4 } } }]",
    );
    let mut passed = |name: &str, source: &str, times: usize| {
        (0..times)
            .filter(|_| bench.judge(&query(name, 1), &context(source)).action == Action::Pass)
            .count()
    };
    assert_eq!(passed("a.test", "192.0.2.1", 5), 2);
    assert_eq!(
        passed("a.test", "192.0.2.2", 5),
        2,
        "each source on its own"
    );
    assert_eq!(passed("b.test", "192.0.2.1", 5), 2, "each rule on its own");
    assert_eq!(passed("b.test", "192.0.2.2", 5), 0, "one network");
    assert_eq!(passed("b.test", "2001:db8::1", 5), 2);
    assert_eq!(passed("b.test", "2001:db8:0:1::1", 5), 0);
    assert_eq!(
        passed("c.test", "192.0.2.1", 5),
        2,
        "of what comes to both workers each has its half"
    );
    assert_eq!(passed("c.test", "2001:db8::1", 5), 0);
    bench.now += Duration::from_secs(1);
    let judgement = bench.judge(&query("c.test", 1), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.cause),
        (Action::Pass, Cause::None)
    );
    for _ in 0..2 {
        bench.judge(&query("b.test", 1), &context("192.0.2.1"));
    }
    let judgement = bench.judge(&query("b.test", 1), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.cause),
        (Action::Truncate, Cause::RateLimit(1))
    );
}

#[test]
fn bands_come_down_under_pressure() {
    let mut bench = rules("[{ name: it, do: { score: 50 } }]");
    let mut action = |pressure: f32| {
        bench.pressure = pressure;
        bench.judge(&query("a.test", 1), &context("192.0.2.1"))
    };
    // truncate: 60 to 20; drop: 100 to 40
    for (pressure, expected) in [
        (0.0, Action::Pass),
        (0.24, Action::Pass),
        (0.25, Action::Truncate),
        (0.83, Action::Truncate),
        (0.84, Action::Drop),
        (1.0, Action::Drop),
        (7.0, Action::Drop),
        (-1.0, Action::Pass),
        (f32::NAN, Action::Pass),
        (f32::INFINITY, Action::Drop),
    ] {
        assert_eq!(action(pressure).action, expected, "{pressure}");
    }
    assert_eq!(action(1.0).cause, Cause::Band(1));
}

#[test]
fn no_points_reach_no_band() {
    let mut bench = rules("[{ name: it, do: { score: -5 } }]");
    bench.pressure = 1.0;
    assert_eq!(bench.action("a.test", 1), Action::Pass);
}

#[test]
fn an_observed_rule_shows_what_it_would_do() {
    let mut bench = rules(
        "[{ name: watched, observe: true, when: { qtype: TXT }, do: drop }, { name: points, observe: true, do: { score: 70 } }, \
          { name: real, when: { qname: { under: a.test } }, do: refuse }]",
    );
    let judgement = bench.judge(&query("a.test", 16), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.cause),
        (Action::Refuse, Cause::Rule(2))
    );
    assert_eq!(judgement.would, Some((Action::Drop, Cause::Rule(0))));
    let judgement = bench.judge(&query("b.test", 1), &context("192.0.2.1"));
    assert_eq!((judgement.action, judgement.points), (Action::Pass, 0));
    assert_eq!(judgement.would, Some((Action::Truncate, Cause::Band(0))));
    let judgement = bench.judge(&query("a.test", 1), &context("192.0.2.1"));
    assert_eq!((judgement.action, judgement.would), (Action::Refuse, None));
    assert_eq!(
        bench
            .policy
            .rules()
            .map(|rule| rule.held_back)
            .collect::<Vec<_>>(),
        [1, 0, 0]
    );
}

#[test]
fn observe_mode_for_everything_changes_no_answer_and_still_routes() {
    let mut bench = Bench::new(
        "{ scrubbing: { mode: observe }, rules: [{ name: a, when: { qtype: TXT }, do: drop }, \
           { name: p, do: { pool: slow, score: 100 } }] }",
    );
    let judgement = bench.judge(&query("a.test", 16), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.cause, judgement.pool),
        (Action::Pass, Cause::None, Some(1))
    );
    assert_eq!(judgement.would, Some((Action::Drop, Cause::Rule(0))));
    let judgement = bench.judge(&query("a.test", 1), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.would),
        (Action::Pass, Some((Action::Drop, Cause::Band(1))))
    );
    assert!(bench.policy.rules().all(|rule| rule.observe));
}

#[test]
fn an_observed_signal_or_band_holds_back() {
    let mut bench = Bench::new(
        "{ signals: { amplification: { mode: observe, any: 200 } }, scrubbing: { caps: { conduct: 200 } } }",
    );
    bench.pressure = 0.1;
    let judgement = bench.judge(&query("a.test", 255), &context("192.0.2.1"));
    assert_eq!((judgement.action, judgement.points), (Action::Pass, 0));
    assert_eq!(judgement.would, Some((Action::Drop, Cause::Band(1))));
    let mut bench = Bench::new(
        "{ scrubbing: { bands: [{ action: challenge, at: 10, under-pressure: 10 }, \
           { action: drop, at: 20, under-pressure: 20, observe: true }] }, signals: { amplification: { any: 200 } } }",
    );
    bench.pressure = 0.1;
    let judgement = bench.judge(&query("a.test", 255), &context("192.0.2.1"));
    assert_eq!(
        (judgement.action, judgement.cause),
        (Action::Truncate, Cause::Band(0))
    );
    assert_eq!(judgement.would, Some((Action::Drop, Cause::Band(1))));
}

#[test]
fn defaults_touch_nothing_at_rest() {
    // a large resolver: 10,000 queries in a second, with large answers, of the strangest names
    let mut bench = Bench::new("{}");
    let strange = format!(
        "{}.\\000.{}",
        "abcdefghijklmnopqrstuvwxyz0123456789_-\\001\\002\\003\\004\\005\\006\\007\\008\\014\\015\\016\\017\\018",
        "a.".repeat(60)
    );
    let here = context("192.0.2.1");
    let mut most = 0;
    for number in 0..10_000 {
        bench.now += Duration::from_micros(100);
        let qtype = if number % 100 == 0 { 255 } else { 1 };
        let asked = query(&format!("n{}.{strange}", number % 5000), qtype);
        let judgement = bench.judge_alone(&asked, &here);
        assert_eq!(
            (judgement.action, judgement.would),
            (Action::Pass, None),
            "{}",
            bench.explain(&asked, &here)
        );
        most = most.max(judgement.points);
        bench
            .scorer
            .observe_response(&bench.policy, &reply(&asked.0.qname, 600), bench.now);
    }
    assert!(most >= 40, "it is not for want of points: {most}");
}

#[test]
fn points_of_signals_count_under_pressure_and_those_of_the_operator_at_rest() {
    let mut bench = Bench::new(
        "{ signals: { rate: { v4: { 32: 1/s }, points: 100 }, reputation: { lists: { bad: 60 } } }, \
           lists: { bad: { prefixes: [192.0.2.2] } }, scrubbing: { caps: { conduct: 100 } } }",
    );
    let asked = query("www.a.test", 1);
    let here = context("192.0.2.1");
    bench.judge(&asked, &here);
    bench.judge(&asked, &here);
    let judgement = bench.judge(&asked, &here);
    assert_eq!((judgement.points, judgement.action), (100, Action::Pass));
    let reached = |bench: &mut Bench| {
        let bands = bench.explain(&asked, &here).bands;
        bands.iter().map(|band| band.reached).collect::<Vec<_>>()
    };
    assert_eq!(reached(&mut bench), [false, false]);
    bench.pressure = 0.001;
    assert_eq!(reached(&mut bench), [true, true]);
    assert_eq!(bench.judge(&asked, &here).action, Action::Drop);
    bench.pressure = 0.0;
    let listed = bench.judge(&asked, &context("192.0.2.2"));
    assert_eq!((listed.points, listed.action), (60, Action::Truncate));
}

#[test]
fn counters_and_tables_outlive_a_reload() {
    let yaml = "{ rules: [{ name: a, do: { rate-limit: { rate: 1/s } } }, { name: b, do: { score: 1 } }] }";
    let mut bench = Bench::new(yaml);
    assert_eq!(bench.action("a.test", 1), Action::Pass);
    let mut next = build(&yaml.replace("[{", "[{ name: new, do: { score: 1 } }, {")).unwrap();
    next.carry_over(&bench.policy);
    // a worker that has not yet adopted the new policy counts in the same place
    assert_eq!(bench.action("a.test", 1), Action::Drop);
    assert_eq!(
        next.rules().map(|rule| rule.matched).collect::<Vec<_>>(),
        [0, 2, 1]
    );
    bench.scorer.adopt(&next);
    bench.policy = next;
    assert_eq!(
        bench.action("a.test", 1),
        Action::Drop,
        "the limit of rule a is known by its name"
    );
    // other sizes: tables begin afresh
    let mut smaller =
        build(&yaml.replace("{ rules", "{ scrubbing: { rate-limit-memory: 1MiB }, rules")).unwrap();
    smaller.carry_over(&bench.policy);
    bench.scorer.adopt(&smaller);
    bench.policy = smaller;
    assert_eq!(bench.action("a.test", 1), Action::Pass);
}

#[test]
fn hits_are_summed_over_workers() {
    let mut bench = rules("[{ name: a, do: drop }]");
    bench.action("a.test", 1);
    bench.scorer = Scorer::new(0, &bench.policy, [0; 4], bench.now);
    bench.action("a.test", 1);
    assert_eq!(bench.policy.rules().next().unwrap().acted(Action::Drop), 2);
}

#[test]
fn an_explanation_reads_well() {
    let mut bench = Bench::new(
        "{ lists: { bad: { prefixes: [192.0.2.0/24] } }, signals: { reputation: { lists: { bad: 30 } } }, \
           rules: [{ name: watched, observe: true, do: { score: 10 } }, \
                   { name: slow, when: { qname: { under: a.test } }, do: { rate-limit: { rate: 1/s }, score: 3 } }] }",
    );
    bench.pressure = 0.5;
    let explained = bench.explain(&query("www.a.test", 255), &context("192.0.2.1"));
    let expected = "\
www.a.test IN ANY from 192.0.2.1 over UDP
source new; name unknown; level calm
signals
  rate                  0
  reputation           30
                          192.0.2.1 is in list bad (+30)
  shape                 0
  amplification         5
                          type ANY over UDP (+5)
  nonexistent-name      0
  suffix-flood          0
  hop-count             0
  loyalty               0
  verified              0
  malformed-history     0
  cost                  0
rules
  watched +10 points (observed)
  slow +3 points, within its rate
bands at pressure 0.50
  truncate  from   40  not reached
  drop      from   70  not reached
pass (38 points): no rule decides, and 38 points reach no band
held back by observe mode: truncate (band)
";
    assert_eq!(explained.to_string(), expected);
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json["signals"][1]["points"], 30);
    assert_eq!(json["judgement"]["action"], "pass");
}
