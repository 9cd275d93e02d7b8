//! What runs: signals, rules and bands, built from the configuration, immutable but for counters.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use dnscrub_zones::Zones;
use ipnet::IpNet;
use serde::Serialize;

use crate::bands::{Bands, Pressure};
use crate::config::{self, Challenge, ConfigError, LevelResponse, Mode, nearest};
use crate::counts::{self, BandHits, BandView, BySignal, SignalView};
use crate::defence::Level;
use crate::evidence::Caps;
use crate::judgement::Action;
use crate::lists::{List, PrefixSet};
use crate::memory::{Learned, Settings};
use crate::rules::Rules;
use crate::signals;

/// What rules and signals can refer to.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Pools, in the order of [`crate::Judgement::pool`].
    pub pools: &'a [String],
    /// Listeners, in the order of [`crate::Context::listener`].
    pub listeners: &'a [String],
    /// Named lists.
    pub lists: &'a BTreeMap<String, List>,
}

/// Signals, rules and bands, ready to judge. Shared by all workers; swapped as a whole.
#[derive(Debug)]
pub struct Policy {
    pub(crate) observe: bool,
    pub(crate) signals: signals::Built,
    pub(crate) rules: Rules,
    pub(crate) bands: Bands,
    pub(crate) caps: Caps,
    pub(crate) rate_limit_memory: usize,
    pub(crate) memory: Settings,
    pub(crate) learned: Arc<Learned>,
    pub(crate) signal_counters: BySignal,
    pub(crate) zones: Arc<Zones>,
    /// Sources that a rule lets pass.
    allowed: Vec<Arc<PrefixSet>>,
    /// By level, in the order of [`Level::ALL`].
    response: [AtLevel; 3],
}

/// What is done at a level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtLevel {
    pub(crate) challenge: Challenge,
    pub(crate) pressure_floor: Pressure,
}

impl AtLevel {
    const NOTHING: Self = Self {
        challenge: Challenge::Off,
        pressure_floor: Pressure::NONE,
    };

    fn new(written: &LevelResponse) -> Self {
        Self {
            challenge: written.challenge,
            pressure_floor: Pressure::new(written.pressure_floor),
        }
    }
}

/// A rule and how often it was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuleView<'a> {
    /// Its name.
    pub name: &'a str,
    /// It is in observe mode, by itself or because everything is.
    pub observe: bool,
    /// The level from which on it counts.
    pub from_level: Level,
    /// Queries that matched, of those that came as far.
    pub matched: u64,
    /// Queries it decided, by action in the order of [`Action::ALL`]; pass is `allow`.
    pub acted: [u64; 5],
    /// Queries it would have decided were it not in observe mode.
    pub held_back: u64,
    /// Queries it sent to its pool.
    pub routed: u64,
}

impl RuleView<'_> {
    /// Queries it decided with `action`.
    #[must_use]
    pub fn acted(&self, action: Action) -> u64 {
        Action::ALL
            .iter()
            .zip(self.acted)
            .filter(|(each, _)| **each == action)
            .map(|(_, count)| count)
            .sum()
    }
}

impl Policy {
    /// Builds what was configured, with hit counters for `workers` workers.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn build(
        scrubbing: &config::Scrubbing,
        signals: &config::Signals,
        rules: &[config::Rule],
        names: &Names<'_>,
        workers: usize,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let memory = signals.memory(workers);
        let policy = Self {
            observe: scrubbing.mode == Mode::Observe,
            bands: Bands::new(&scrubbing.bands, workers, &mut errors),
            signals: signals::Built::new(signals, names.lists, workers, &mut errors),
            rules: Rules::build(rules, names, workers, &mut errors),
            caps: scrubbing.caps,
            rate_limit_memory: scrubbing.rate_limit_memory.0,
            learned: Arc::new(Learned::new(&memory, random_seed())),
            memory,
            signal_counters: counts::fresh(workers),
            zones: Arc::new(Zones::new(Vec::new(), RandomState::new())),
            allowed: allowed(rules, names.lists),
            response: [AtLevel::NOTHING; 3],
        };
        if errors.is_empty() {
            Ok(policy)
        } else {
            Err(errors)
        }
    }

    /// Goes on with the hit counters of `previous` for signals, bands and rules of the same name. Nothing is lost:
    /// workers that still judge by the previous policy count in the same place.
    ///
    /// What was learned of sources and names stays as well, where its memory is of the same size.
    pub fn carry_over(&mut self, previous: &Self) {
        if previous.learned.fits(&self.memory) {
            self.learned = Arc::clone(&previous.learned);
        }
        if previous.signal_counters.len() == self.signal_counters.len() {
            self.signal_counters = Arc::clone(&previous.signal_counters);
        }
        self.bands.carry_over(&previous.bands);
        let known: BTreeMap<&str, _> = previous
            .rules
            .rules
            .iter()
            .map(|rule| (rule.name.as_str(), &rule.counters))
            .collect();
        for rule in &mut self.rules.rules {
            if let Some(counters) = known
                .get(rule.name.as_str())
                .filter(|counters| counters.len() == rule.counters.len())
            {
                rule.counters = Arc::clone(counters);
            }
        }
    }

    /// Judges names by what is known of these zones.
    pub fn set_zones(&mut self, zones: Arc<Zones>) {
        self.zones = zones;
    }

    /// Whether the operator vouches for a source: a list gives it a credit (`reputation`), or a rule
    /// about sources lets it pass.
    #[must_use]
    pub fn trusts(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.trusted().any(|list| list.contains(source))
    }

    /// The prefixes of all sources that [`Policy::trusts`].
    pub fn trusted_prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.trusted().flat_map(PrefixSet::prefixes)
    }

    fn trusted(&self) -> impl Iterator<Item = &PrefixSet> {
        let allowed = self.allowed.iter().map(|list| &**list);
        self.signals.reputation.credits().chain(allowed)
    }

    /// Says what the levels alert and attack switch on; nothing before.
    pub fn set_response(&mut self, alert: &LevelResponse, attack: &LevelResponse) {
        self.response = [AtLevel::NOTHING, AtLevel::new(alert), AtLevel::new(attack)];
    }

    /// What a level switches on.
    #[inline]
    pub(crate) const fn response(&self, level: Level) -> AtLevel {
        let [calm, alert, attack] = self.response;
        match level {
            Level::Calm => calm,
            Level::Alert => alert,
            Level::Attack => attack,
        }
    }

    /// Begins with empty shared memory of sources and names, keyed with `seed`: for replays, which
    /// must come out the same each time.
    pub fn forget(&mut self, seed: [u64; 4]) {
        self.learned = Arc::new(Learned::new(&self.memory, seed));
    }

    /// What all workers together have learned of sources and names, for a file. Takes some
    /// milliseconds.
    #[must_use]
    pub fn save_learned(&self) -> Vec<u8> {
        self.learned.save()
    }

    /// Begins with what [`Policy::save_learned`] gave, and says what of it does not fit the settings
    /// and begins afresh. Nothing is taken over, and there is no answer, where the octets are not
    /// that, or come from a machine or version with another hash function.
    pub fn restore_learned(&mut self, octets: &[u8]) -> Option<Vec<&'static str>> {
        let (learned, left_out) = Learned::restore(&self.memory, octets)?;
        self.learned = Arc::new(learned);
        Some(left_out)
    }

    /// Octets of the memory that all workers share.
    #[must_use]
    pub fn shared_octets(&self) -> usize {
        self.learned.octets()
    }

    /// How many workers it was built for.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.signal_counters.len()
    }

    /// Every signal in order, with its counters summed over all workers.
    #[must_use]
    pub fn signals(&self) -> Vec<SignalView> {
        let observed = self.signals.observed().map(|mode| mode || self.observe);
        counts::signals(&self.signal_counters, observed)
    }

    /// Everything is in observe mode.
    #[must_use]
    pub const fn is_observing(&self) -> bool {
        self.observe
    }

    /// Every band from mild to severe, with its counters summed over all workers.
    pub fn bands(&self) -> impl Iterator<Item = BandView> {
        self.bands.iter().map(|band| {
            let sum = |of: fn(&BandHits) -> &AtomicU64| {
                let hits = band.counters.iter();
                hits.map(|hits| of(hits).load(Ordering::Relaxed))
                    .fold(0, u64::wrapping_add)
            };
            BandView {
                name: band.name(),
                action: band.action,
                at: band.threshold(Pressure::new(0.0)),
                under_pressure: band.threshold(Pressure::FULL),
                observe: band.observe || self.observe,
                acted: sum(|hits| &hits.acted),
                held_back: sum(|hits| &hits.held_back),
            }
        })
    }

    /// Every rule in the order written, with its hits summed over all workers.
    pub fn rules(&self) -> impl Iterator<Item = RuleView<'_>> {
        self.rules.rules.iter().map(|rule| {
            let mut view = RuleView {
                name: &rule.name,
                observe: rule.observe || self.observe,
                from_level: rule.from_level,
                matched: 0,
                acted: [0; 5],
                held_back: 0,
                routed: 0,
            };
            for hits in rule.counters.iter() {
                let add = |sum: &mut u64, counter: &AtomicU64| {
                    *sum = sum.wrapping_add(counter.load(Ordering::Relaxed))
                };
                add(&mut view.matched, &hits.matched);
                add(&mut view.held_back, &hits.held_back);
                add(&mut view.routed, &hits.routed);
                for (sum, counter) in view.acted.iter_mut().zip(&hits.acted) {
                    add(sum, counter);
                }
            }
            view
        })
    }

    /// The name of rule number `rule`, as in [`crate::Cause`].
    #[must_use]
    pub fn rule_name(&self, rule: u16) -> Option<&str> {
        self.rules
            .rules
            .get(usize::from(rule))
            .map(|rule| rule.name.as_str())
    }
}

/// The sources that rules about sources let pass, whatever else these rules ask for.
fn allowed(rules: &[config::Rule], lists: &BTreeMap<String, List>) -> Vec<Arc<PrefixSet>> {
    let mut sets = Vec::new();
    for rule in rules {
        if rule.act.action != Some(config::Act::Allow) || rule.observe {
            continue;
        }
        let mut waiting = vec![&rule.when];
        while let Some(when) = waiting.pop() {
            waiting.extend(when.all.iter().chain(&when.any).flatten());
            let Some(source) = &when.source else { continue };
            if let Some(prefixes) = &source.prefix {
                let prefixes = prefixes.0.iter().map(|prefix| prefix.0);
                sets.push(Arc::new(PrefixSet::new(prefixes)));
            }
            for name in source.within.iter().flat_map(|names| &names.0) {
                if let Some(List::Prefixes(prefixes)) = lists.get(name) {
                    sets.push(Arc::clone(prefixes));
                }
            }
        }
    }
    sets
}

/// Four numbers nobody can know.
fn random_seed() -> [u64; 4] {
    let random = RandomState::new();
    [0_u8, 1, 2, 3].map(|number| random.hash_one(number))
}

/// What to say about a name that refers to nothing.
pub(crate) fn unknown<'a>(kind: &str, found: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(found, known.iter().copied()) {
        Some(name) => format!("found unknown {kind} \"{found}\"; did you mean \"{name}\"?"),
        None if known.is_empty() => format!("found unknown {kind} \"{found}\"; there are none"),
        None => format!(
            "found unknown {kind} \"{found}\", expected one of: {}",
            known.join(", ")
        ),
    }
}
