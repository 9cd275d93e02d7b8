//! Limits in the kernel: what is to be in force, and for which incidents.
//!
//! The kernel sees packets before their names are read, so it knows no zones: what counts is the highest level of the
//! whole and of any zone. Who is spared: see [`crate::kernel`].
//!
//! What the kernel drops nobody else sees: not the signals, which seem calm as soon as it works, and not the detector, which
//! would never name an attack that was stopped before. So a limit waits until there is an incident, unless an operator
//! set the level; and both stay while much is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dnscrub_detection::Incident;
use dnscrub_detection::incident::What;
use dnscrub_scoring::Level;
use dnscrub_xdp::Wanted;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{GOES_ON, InForce, Response, State};
use crate::config::runtime::Reloadable;
use crate::kernel::Order;
use crate::legible::grouped;
use crate::orders::zone_of;

/// Seconds without much being dropped after which a limit that only signals asked for is let go.
const QUIET: f64 = 15.0;

/// How an action begins that has the kernel limit.
pub(super) const LIMITS: &str = "limits packets in the kernel to";

/// The limit that is in force.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limiting {
    level: Level,
    words: String,
    /// Nobody asked for the level but signals.
    by_signals: bool,
    /// When much was dropped last, or it was switched on.
    busy: f64,
    /// Packets a second that are much.
    much: f64,
    /// Packets a second that are dropped.
    rate: f64,
}

/// The limit as an incident's record has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LimitInForce {
    /// The action's number in the incident.
    pub(super) action: u32,
    words: String,
}

/// How the kernel stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Packets that it dropped since the program was loaded.
    dropped: u64,
    /// Why it cannot limit.
    trouble: Option<String>,
    /// The program is there, or is to be.
    concerned: bool,
}

/// What the highest level is due to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Highest {
    level: Level,
    /// What it would be by incidents and operators alone.
    ordered: Level,
    /// An operator holds the whole at calm.
    held_down: bool,
}

impl Response {
    /// How the kernel stands.
    pub(super) fn kernel_now(&self) -> Seen {
        let kernel = &self.shared.kernel;
        let configured = !self.shared.policy.load().kernel.interfaces.is_empty();
        Seen {
            dropped: kernel.dropped(),
            trouble: kernel.trouble(),
            concerned: configured || kernel.is_loaded(),
        }
    }

    /// Decides whether the kernel limits, and writes it into the records of the attacks that are going on. What the
    /// kernel is to do, if it is concerned at all.
    pub(super) fn limit(
        &self,
        seen: Seen,
        state: &mut State,
        incidents: &[Arc<Incident>],
        policy: &Reloadable,
        now: f64,
    ) -> Option<Order> {
        let settings = &policy.kernel;
        let Seen {
            dropped,
            trouble,
            concerned,
        } = seen;
        let (before, at) = state
            .kernel_dropped
            .replace((dropped, now))
            .unwrap_or((dropped, now));
        let new = dropped.saturating_sub(before);
        let highest = self.highest(policy);
        let level = match &mut state.limiting {
            Some(limiting) => {
                limiting.rate = new as f64 / (now - at).max(0.1);
                if limiting.rate >= limiting.much {
                    limiting.busy = now;
                }
                let held = limiting.by_signals && !highest.held_down && now - limiting.busy < QUIET;
                if held {
                    highest.level.max(limiting.level)
                } else {
                    highest.level
                }
            }
            None => highest.level,
        };
        let orders = self.shared.orders.load();
        let by_hand = orders.by_hand.iter().any(|it| it.level >= level);
        let named = by_hand || incidents.iter().any(|it| is_attack(it));
        let wanted = settings
            .at(level)
            .filter(|_| named && !settings.interfaces.is_empty());
        let why_not = wanted.and_then(|_| {
            if settings.observe {
                return Some("`scrubbing.mode` only observes".to_owned());
            }
            let unknown = "it is not known yet how much each source usually sends".to_owned();
            trouble.or_else(|| (!state.usual.is_known() && !by_hand).then_some(unknown))
        });
        let in_force = wanted.filter(|_| why_not.is_none());
        let limiting = in_force.map(|limit| {
            let same = state.limiting.take().filter(|it| it.words == limit.words);
            Limiting {
                level,
                words: limit.words.clone(),
                by_signals: highest.ordered < level,
                busy: same.as_ref().map_or(now, |it| it.busy),
                much: GOES_ON * limit.limit.least().unwrap_or(0.0),
                rate: same.map_or(0.0, |it| it.rate),
            }
        });
        state.limiting = limiting;
        for incident in incidents {
            if let Some(in_force) = state.in_force.get_mut(&incident.number) {
                let limiting = state.limiting.as_ref();
                self.tell_limit(incident, in_force, limiting, why_not.as_deref(), new, now);
                if let (Some(limit), Some(why_not)) = (wanted, &why_not) {
                    self.tell_no_limit(incident, in_force, &limit.words, why_not, now);
                }
            }
        }
        concerned.then(|| Order {
            words: in_force.map(|limit| limit.words.clone()),
            wanted: Wanted {
                limit: in_force.map(|limit| limit.limit.clone()),
                // they stay, so that a limit is switched on at once
                exempt: Arc::clone(&settings.exempt),
                allowances: in_force
                    .map_or_else(BTreeMap::new, |limit| state.usual.allowances(limit)),
            },
        })
    }

    /// What an incident's record says of the limit, and how much was dropped.
    fn tell_limit(
        &self,
        incident: &Incident,
        in_force: &mut InForce,
        limiting: Option<&Limiting>,
        why_not: Option<&str>,
        dropped: u64,
        now: f64,
    ) {
        let number = incident.number;
        if in_force.limit.is_some() && dropped > 0 {
            self.note(number, |it| {
                it.kernel_dropped = it.kernel_dropped.saturating_add(dropped)
            });
        }
        let limiting = limiting.filter(|_| is_attack(incident));
        match (&mut in_force.limit, limiting) {
            (None, Some(limiting)) => {
                let words = limiting.words.clone();
                let text = format!("{LIMITS} {words}");
                warn!(incident = number, "{text}");
                self.note(number, |it| {
                    let action = it.act(now, "dnscrub", text, true);
                    in_force.limit = Some(LimitInForce { action, words });
                });
            }
            (Some(known), Some(limiting)) if known.words != limiting.words => {
                let text = format!("now limits packets in the kernel to {}", limiting.words);
                self.note(number, |it| it.tell(now, What::Done, text));
                known.words.clone_from(&limiting.words);
            }
            (Some(known), None) => {
                let why = if !incident.is_open() {
                    "it is over".to_owned()
                } else if !incident.kind.is_attack() {
                    format!("it is taken for another thing, {}", incident.kind.title())
                } else {
                    why_not.unwrap_or("no level asks for it").to_owned()
                };
                let action = known.action;
                self.note(number, |it| {
                    let dropped = grouped(it.kernel_dropped);
                    let text = format!(
                        "limits packets in the kernel no longer, {dropped} were dropped: {why}"
                    );
                    info!(incident = number, "{text}");
                    it.undo(action, now, text);
                });
                in_force.limit = None;
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// Says once that nothing is limited, and why.
    fn tell_no_limit(
        &self,
        incident: &Incident,
        in_force: &mut InForce,
        words: &str,
        why_not: &str,
        now: f64,
    ) {
        let told = in_force.not_limited.as_deref() == Some(why_not);
        if told || !is_attack(incident) {
            return;
        }
        in_force.not_limited = Some(why_not.to_owned());
        let text = format!("would limit packets in the kernel to {words}, but {why_not}");
        self.note(incident.number, |it| {
            it.act(now, "dnscrub", text, false);
        });
    }

    /// The highest level of the whole and of any zone.
    fn highest(&self, policy: &Reloadable) -> Highest {
        let (defence, orders) = (self.shared.defence.load(), self.shared.orders.load());
        let whole = orders.effective(None, defence.levels.whole());
        let mut highest = Highest {
            level: whole.level,
            ordered: orders.effective(None, Level::Calm).level,
            held_down: whole.by_hand.is_some_and(|it| it.level == Level::Calm),
        };
        let seen = defence.levels.suffixes.iter();
        let seen = seen.map(|alarm| (zone_of(&policy.zones, &alarm.name).to_string(), alarm.level));
        let ordered = orders.zones().into_iter().map(|zone| (zone, Level::Calm));
        let zones: BTreeSet<(String, Level)> = seen.chain(ordered).collect();
        for (zone, seen) in zones {
            let of = |seen| orders.effective(Some(&zone), seen).level;
            highest.level = highest.level.max(of(seen));
            highest.ordered = highest.ordered.max(of(Level::Calm));
        }
        highest
    }
}

/// It is going on, and an attack.
fn is_attack(incident: &Incident) -> bool {
    incident.is_open() && incident.kind.is_attack()
}

impl State {
    /// Incidents while whose limit drops much: they are not over, though nobody else sees their packets.
    pub(super) fn limited(&self) -> impl Iterator<Item = u64> {
        let busy = self.limiting.as_ref().is_some_and(|it| it.rate >= it.much);
        let limited = self
            .in_force
            .iter()
            .filter(move |(_, it)| busy && it.limit.is_some());
        limited.map(|(&number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use dnscrub_detection::Kind;
    use dnscrub_scoring::{Levels, SignalAlarm};

    use super::*;
    use crate::control::testing::{PLAIN, Program, program};
    use crate::defence::Defence;
    use crate::incidents::testing::incident;
    use crate::response::LevelRequest;

    const LIMITED: &str = "
kernel: { interface: eth0 }
response:
  alert: { kernel-limit: { v4: { 32: 500/s } } }
  attack: { kernel-limit: { v4: { 32: 200/s, 24: 2000/s }, v6: { 64: 200/s } } }
response-limit: { exempt: [ 192.0.2.2 ] }
";
    const WORDS: &str = "200/s from a /32 and 2000/s from a /24 of IPv4, 200/s from a /64 of IPv6";
    const START: f64 = 1_700_000_100.0;

    /// A program whose kernel is what the test says.
    struct Bench {
        program: Program,
        seen: Seen,
        now: f64,
    }

    impl Bench {
        fn new(yaml: &str) -> Self {
            let bench = Self {
                program: program(&format!("{PLAIN}{LIMITED}{yaml}")),
                seen: Seen {
                    concerned: true,
                    ..Seen::default()
                },
                now: START,
            };
            bench.learn();
            bench
        }

        fn response(&self) -> &Response {
            &self.program.supervisor.response
        }

        /// It is known how much each source usually sends: nobody much.
        fn learn(&self) {
            let mut state = self.response().state();
            state.usual =
                serde_json::from_str(r#"{ "rates": { "192.0.2.7/32": 500 }, "seconds": 90 }"#)
                    .unwrap();
        }

        /// A second in which the kernel drops so many packets. The limit then, in words.
        fn second(&mut self, dropped: u64) -> Option<String> {
            self.now += 1.0;
            self.seen.dropped += dropped;
            let response = self.response();
            let work = response.tick_seeing(self.now, None, self.seen.clone());
            let order = work.kernel.unwrap();
            assert_eq!(order.words.is_some(), order.wanted.limit.is_some());
            let exempt = order.wanted.exempt;
            assert!(
                exempt.contains(&"192.0.2.2/32".parse().unwrap()),
                "as in `response-limit`"
            );
            assert!(
                exempt.contains(&"203.0.113.0/24".parse().unwrap()),
                "as in `blocklist`"
            );
            order.words
        }

        fn set(&self, incident: Incident) {
            let known = &self.program.supervisor.shared.incidents;
            known.edit(|known| known.insert(incident.number, Arc::new(incident)));
        }

        fn get(&self, number: u64) -> Arc<Incident> {
            self.program
                .supervisor
                .shared
                .incidents
                .get(number)
                .unwrap()
        }

        fn close(&self, number: u64) {
            let mut over = (*self.get(number)).clone();
            over.closed = Some(self.now);
            self.set(over);
        }

        /// What signals see of the whole.
        fn signals(&self, level: Level) {
            let mut defence = Defence::new(std::time::SystemTime::now());
            defence.levels = Levels {
                signals: vec![SignalAlarm {
                    signal: "rate",
                    level,
                    rate: 100.0,
                    usual: 1.0,
                }],
                suffixes: Vec::new(),
            };
            self.program
                .supervisor
                .shared
                .defence
                .store(Arc::new(defence));
        }

        fn by_hand(&self, level: &str) {
            let request = LevelRequest {
                level: level.to_owned(),
                ..LevelRequest::default()
            };
            self.response().set_level(&request, self.now).unwrap();
        }

        fn told(&self, number: u64) -> Vec<String> {
            let incident = self.get(number);
            let told = incident.timeline.iter().map(|it| it.text.clone());
            told.filter(|it| it.contains("in the kernel")).collect()
        }
    }

    #[test]
    fn an_incident_has_the_kernel_limit_until_it_is_over_and_counts_what_is_dropped() {
        let mut bench = Bench::new("");
        assert_eq!(bench.second(0), None);
        bench.set(incident(1));
        bench.second(0);
        assert_eq!(
            bench.second(0).as_deref(),
            Some(WORDS),
            "of the zone's level"
        );
        let limits = format!("limits packets in the kernel to {WORDS}");
        assert_eq!(bench.told(1), [limits.as_str()]);
        let action = bench
            .get(1)
            .actions
            .iter()
            .find(|it| it.text == limits)
            .cloned()
            .unwrap();
        assert!(action.lasting && action.undone.is_none());
        bench.second(700);
        bench.second(800);
        assert_eq!(bench.get(1).kernel_dropped, 1500);
        let going_on = |bench: &Bench| bench.response().going_on(bench.now);
        assert_eq!(going_on(&bench), [1], "nobody else sees those packets");
        bench.second(49);
        assert_eq!(
            going_on(&bench),
            [0_u64; 0],
            "less than a quarter of the least limit"
        );
        bench.close(1);
        assert_eq!(bench.second(0), None);
        assert_eq!(
            bench.told(1).last().map(String::as_str),
            Some("limits packets in the kernel no longer, 1,549 were dropped: it is over")
        );
        let actions = bench.get(1).actions.clone();
        assert!(actions.iter().all(|it| it.undone.is_some()), "{actions:?}");
        bench.second(0);
        bench.second(0);
        assert!(bench.response().state().in_force.is_empty());
        assert_eq!(bench.told(1).len(), 2);
    }

    #[test]
    fn what_is_no_attack_has_no_limit_of_its_own_and_two_attacks_have_one_each() {
        let mut bench = Bench::new("");
        let mut failure = incident(2);
        failure.kind = Kind::UpstreamFailure;
        bench.set(incident(1));
        bench.set(failure);
        bench.set(incident(3));
        bench.second(0);
        bench.second(0);
        assert_eq!([1, 2, 3].map(|number| bench.told(number).len()), [1, 0, 1]);
        bench.close(1);
        assert_eq!(
            bench.second(10).as_deref(),
            Some(WORDS),
            "the other one goes on"
        );
        assert_eq!(
            [1, 3].map(|number| bench.get(number).kernel_dropped),
            [10, 10]
        );
        assert_eq!([1, 3].map(|number| bench.told(number).len()), [2, 1]);
        let mut renamed = (*bench.get(3)).clone();
        renamed.kind = Kind::FlashCrowd;
        bench.set(renamed);
        assert_eq!(bench.second(0), None);
        assert!(bench.told(3)[1].ends_with("it is taken for another thing, flash crowd"));
    }

    #[test]
    fn a_limit_that_only_signals_asked_for_stays_while_it_drops_much() {
        let mut bench = Bench::new("");
        bench.signals(Level::Attack);
        assert_eq!(
            bench.second(0),
            None,
            "what is stopped now would never be named"
        );
        let mut unsure = incident(1);
        unsure.confidence = 0.1;
        bench.set(unsure);
        assert_eq!(bench.second(0).as_deref(), Some(WORDS));
        bench.second(5_000);
        // it works, so that they see nothing any more
        bench.signals(Level::Calm);
        for _ in 0..60 {
            assert_eq!(bench.second(5_000).as_deref(), Some(WORDS));
        }
        for _ in 0..14 {
            assert_eq!(bench.second(10).as_deref(), Some(WORDS));
        }
        assert_eq!(bench.second(10), None);
        // an operator's calm ends it at once
        bench.signals(Level::Attack);
        bench.second(0);
        assert!(bench.second(5_000).is_some());
        bench.by_hand("calm");
        assert_eq!(bench.second(5_000), None);
    }

    #[test]
    fn a_level_by_hand_limits_and_each_level_has_its_own() {
        let mut bench = Bench::new("");
        bench.response().state().usual = crate::kernel::usual::Usual::default();
        bench.set(incident(1));
        bench.second(0);
        assert_eq!(
            bench.second(0),
            None,
            "nothing is known of who sends how much"
        );
        bench.close(1);
        bench.by_hand("attack");
        assert_eq!(bench.second(0).as_deref(), Some(WORDS), "an operator knows");
        bench.signals(Level::Calm);
        bench.by_hand("alert");
        assert_eq!(
            bench.second(9_000).as_deref(),
            Some("500/s from a /32 of IPv4")
        );
        bench.response().release(None).unwrap();
        assert_eq!(bench.second(9_000), None, "nobody asks for it any more");
    }

    #[test]
    fn why_nothing_is_limited_is_told_once() {
        for (yaml, trouble, known, expected) in [
            (
                "",
                Some("it is on no interface"),
                true,
                "it is on no interface",
            ),
            (
                "",
                None,
                false,
                "it is not known yet how much each source usually sends",
            ),
            (
                "scrubbing: { mode: observe }\n",
                None,
                true,
                "`scrubbing.mode` only observes",
            ),
        ] {
            let mut bench = Bench::new(yaml);
            bench.seen.trouble = trouble.map(str::to_owned);
            if !known {
                bench.response().state().usual = crate::kernel::usual::Usual::default();
            }
            bench.set(incident(1));
            for _ in 0..5 {
                assert_eq!(bench.second(0), None);
            }
            let told = bench.told(1);
            let text = format!("would limit packets in the kernel to {WORDS}, but {expected}");
            assert!(told.contains(&text), "{told:?}");
        }
    }

    #[test]
    fn a_limit_is_taken_back_after_a_crash_and_when_the_incident_is_gone() {
        let mut bench = Bench::new("");
        bench.set(incident(1));
        bench.second(0);
        bench.second(300);
        bench.response().save().unwrap();
        let shared = &bench.program.supervisor.shared;
        let restarted = Response::open(
            bench.program.folder.path(),
            Arc::clone(shared),
            Arc::clone(&bench.program.supervisor.blocklist),
            bench.now,
        );
        assert!(
            restarted.state().in_force[&1].limit.is_some(),
            "it is known what was done"
        );
        assert!(restarted.state().usual.is_known());
        bench.close(1);
        let work = restarted.tick(bench.now + 60.0, None);
        restarted.carry_out(work, bench.now + 60.0);
        let told = bench.told(1);
        assert!(
            told.iter()
                .any(|it| it.ends_with("300 were dropped: it is over")),
            "{told:?}"
        );
        assert!(bench.get(1).actions.iter().all(|it| it.undone.is_some()));
        assert!(
            restarted
                .state()
                .in_force
                .values()
                .all(|it| it.limit.is_none())
        );
    }

    #[test]
    fn who_usually_sends_much_gets_a_multiple_of_it() {
        let bench = Bench::new("");
        bench.by_hand("attack");
        let work = bench
            .response()
            .tick_seeing(START + 1.0, None, bench.seen.clone());
        let order = work.kernel.unwrap();
        let allowances = order.wanted.allowances;
        let known = allowances
            .iter()
            .map(|(prefix, pace)| (prefix.to_string(), pace.per_second()));
        assert_eq!(
            known.collect::<Vec<_>>(),
            [("192.0.2.7/32".to_owned(), 2000.0)]
        );
    }
}
