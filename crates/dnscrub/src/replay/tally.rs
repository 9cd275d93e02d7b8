//! What is counted while a trace is replayed, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use ahash::RandomState;
use dnscrub_scoring::{Action, SignalMark};
use dnscrub_wire::Query;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::lane::Decision;
use crate::outcome::{Answer, Outcome, Reason};

/// Steps of time that are kept; with more, each becomes twice as long.
const STEPS: usize = 2_000;
/// How long a step is at first.
const STEP: Duration = Duration::from_millis(100);
/// Names or sources that are counted at a time.
const KEYS: usize = 100_000;
/// Points in a bar of the histogram.
pub(super) const BAR: u16 = 10;
/// Bars; the last one holds everything above.
pub(super) const BARS: usize = 31;

/// What became of a query, as plots show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Class {
    /// It goes to an upstream.
    Passed,
    /// So it does, but only because of observe mode.
    HeldBack,
    /// Answered with TC=1.
    Truncated,
    /// Answered NXDOMAIN by the proxy.
    NxDomain,
    /// Answered with another rcode by the proxy.
    Refused,
    /// Not answered.
    Dropped,
}

impl Class {
    /// Every class, from harmless to severe.
    pub const ALL: [Self; 6] = [
        Self::Passed,
        Self::HeldBack,
        Self::Truncated,
        Self::NxDomain,
        Self::Refused,
        Self::Dropped,
    ];

    /// In words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::HeldBack => "passed, held back by observe mode",
            Self::Truncated => "truncated",
            Self::NxDomain => "NXDOMAIN",
            Self::Refused => "refused or other error",
            Self::Dropped => "dropped",
        }
    }
}

/// Queries by class.
pub type Classes = [u64; Class::ALL.len()];

/// What became of a query, to the detail in which outcomes are listed and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) outcome: Outcome,
    /// What observe mode held back.
    pub(super) would: Option<Action>,
}

impl Fate {
    pub(super) fn of(decision: &Decision) -> Self {
        let would = decision.judgement.and_then(|judgement| judgement.would);
        Self {
            outcome: decision.outcome,
            would: would.map(|(action, _)| action),
        }
    }

    pub(super) fn passes(self) -> bool {
        self.outcome == Outcome::Forwarded
    }

    pub(super) const fn class(self) -> Class {
        match self.outcome {
            Outcome::Forwarded if self.would.is_some() => Class::HeldBack,
            Outcome::Forwarded => Class::Passed,
            Outcome::Answered(Answer::Truncated, _) => Class::Truncated,
            Outcome::Answered(Answer::NxDomain, _) => Class::NxDomain,
            Outcome::Answered(_, _) => Class::Refused,
            Outcome::Dropped(_) | Outcome::Expired => Class::Dropped,
        }
    }

    /// A number for each fate, for counting.
    const fn key(self) -> u16 {
        let (what, reason) = match self.outcome {
            Outcome::Forwarded => (0, 0),
            Outcome::Expired => (1, 0),
            Outcome::Dropped(reason) => (2, reason.index()),
            Outcome::Answered(answer, reason) => (3 + answer as usize, reason.index()),
        };
        let would = match self.would {
            None => 0,
            Some(action) => 1 + action as usize,
        };
        // a few kinds, tens of reasons, five actions
        #[allow(
            clippy::cast_possible_truncation,
            reason = "far below the type's limit"
        )]
        let key = ((what * Reason::COUNT + reason) * (Action::ALL.len() + 1) + would) as u16;
        key
    }
}

/// Counts of fates.
#[derive(Default)]
pub(super) struct Fates<K = ()>(HashMap<(u16, u16), (Fate, Fate, u64, K), RandomState>);

impl<K: Default> Fates<K> {
    /// Counts one that had this fate before and that one after; returns what is kept for such.
    pub(super) fn add(&mut self, before: Fate, after: Fate) -> &mut K {
        let entry = self
            .0
            .entry((before.key(), after.key()))
            .or_insert_with(|| (before, after, 0, K::default()));
        entry.2 += 1;
        &mut entry.3
    }

    /// The most frequent first.
    pub(super) fn sorted(self) -> Vec<(Fate, Fate, u64, K)> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by_key(|(key, (_, _, count, _))| (std::cmp::Reverse(*count), *key));
        all.into_iter().map(|(_, row)| row).collect()
    }
}

/// What a signal gave in all.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignalSum {
    pub(super) mark: SignalMark,
    /// Queries that got points.
    pub(super) queries: u64,
    /// Their sum.
    pub(super) points: i64,
    /// Of them those that did not pass.
    pub(super) stopped: u64,
}

/// All that is counted of a replay under one configuration.
pub(super) struct Tally {
    pub(super) queries: u64,
    pub(super) classes: Classes,
    pub(super) fates: Fates,
    pub(super) signals: Vec<SignalSum>,
    pub(super) scores: [Classes; BARS],
    pub(super) unscored: u64,
    pub(super) steps: Steps,
    pub(super) names: Top<Box<[u8]>>,
    pub(super) parents: Top<Box<[u8]>>,
    pub(super) sources: Top<IpAddr>,
    pub(super) prefixes: Top<IpNet>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            queries: 0,
            classes: Classes::default(),
            fates: Fates::default(),
            signals: Vec::new(),
            scores: [Classes::default(); BARS],
            unscored: 0,
            steps: Steps::default(),
            names: Top::default(),
            parents: Top::default(),
            sources: Top::default(),
            prefixes: Top::default(),
        }
    }
}

impl Tally {
    pub(super) fn add(
        &mut self,
        at: Duration,
        source: IpAddr,
        decision: &Decision,
        signals: &[SignalMark],
    ) {
        let fate = Fate::of(decision);
        let class = fate.class();
        self.queries += 1;
        count(&mut self.classes, class);
        self.fates.add(fate, fate);
        if let Some(judgement) = &decision.judgement {
            let bar = usize::from(judgement.points / BAR).min(BARS - 1);
            self.scores
                .get_mut(bar)
                .into_iter()
                .for_each(|bar| count(bar, class));
        } else {
            self.unscored += 1;
        }
        if self.signals.len() < signals.len() {
            self.signals = signals
                .iter()
                .map(|&mark| SignalSum {
                    mark,
                    queries: 0,
                    points: 0,
                    stopped: 0,
                })
                .collect();
        }
        for (sum, mark) in self.signals.iter_mut().zip(signals) {
            sum.queries += u64::from(mark.points != 0);
            sum.points += i64::from(mark.points);
            sum.stopped += u64::from(mark.points != 0 && !fate.passes());
        }
        self.steps.add(at, class);
        let source = source.to_canonical();
        self.sources.add(&source, || source, class);
        let prefix = prefix_of(source);
        self.prefixes.add(&prefix, || prefix, class);
        if let Some(Query { qname, .. }) = &decision.query {
            self.names
                .add(qname.as_wire(), || qname.as_wire().into(), class);
            let parent = qname.parent_wire();
            self.parents.add(parent, || parent.into(), class);
        }
    }
}

fn count(classes: &mut Classes, class: Class) {
    if let Some(count) = classes.get_mut(class as usize) {
        *count += 1;
    }
}

/// The /24 or /48, in which one operator's resolvers usually are.
fn prefix_of(source: IpAddr) -> IpNet {
    match source {
        IpAddr::V4(address) => Ipv4Net::new_assert(address, 24).trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 48).trunc().into(),
    }
}

/// Queries over time. Steps become longer as the trace does.
pub(super) struct Steps {
    pub(super) length: Duration,
    pub(super) steps: Vec<Classes>,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            length: STEP,
            steps: Vec::new(),
        }
    }
}

impl Steps {
    fn add(&mut self, at: Duration, class: Class) {
        loop {
            let step =
                usize::try_from(at.as_nanos() / self.length.as_nanos()).unwrap_or(usize::MAX);
            if step < STEPS {
                if self.steps.len() <= step {
                    self.steps.resize(step + 1, Classes::default());
                }
                if let Some(classes) = self.steps.get_mut(step) {
                    count(classes, class);
                }
                return;
            }
            self.halve();
        }
    }

    /// Two steps become one.
    fn halve(&mut self) {
        self.length *= 2;
        self.steps = self.steps.chunks(2).map(sum).collect();
    }

    /// No more than so many steps.
    pub(super) fn coarsen(&mut self, most: usize) {
        while self.steps.len() > most {
            self.halve();
        }
    }
}

fn sum(parts: &[Classes]) -> Classes {
    let mut sum = Classes::default();
    for part in parts {
        for (sum, part) in sum.iter_mut().zip(part) {
            *sum += part;
        }
    }
    sum
}

/// The most frequent of many keys. When there are too many, the rarest are forgotten and counted
/// anew if they come again, so that small counts may be too low.
pub(super) struct Top<K> {
    counts: HashMap<K, Classes, RandomState>,
    /// Those with no more are forgotten next.
    floor: u64,
}

impl<K> Default for Top<K> {
    fn default() -> Self {
        Self {
            counts: HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4)),
            floor: 1,
        }
    }
}

impl<K: Hash + Eq + Ord + Clone> Top<K> {
    fn add<Q>(&mut self, key: &Q, owned: impl FnOnce() -> K, class: Class)
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(classes) = self.counts.get_mut(key) {
            return count(classes, class);
        }
        while self.counts.len() >= KEYS {
            self.counts
                .retain(|_, classes| classes.iter().sum::<u64>() > self.floor);
            // so that making room stays rare
            if self.counts.len() > KEYS / 2 {
                self.floor *= 2;
            }
        }
        let classes = self.counts.entry(owned()).or_default();
        count(classes, class);
    }

    /// The most frequent, and how many keys are known in all.
    pub(super) fn most(&self, many: usize) -> (Vec<(K, Classes)>, usize) {
        let mut all: Vec<_> = self.counts.iter().collect();
        all.sort_by(|a, b| {
            let total = |classes: &Classes| classes.iter().sum::<u64>();
            total(b.1).cmp(&total(a.1)).then_with(|| a.0.cmp(b.0))
        });
        let most = all.into_iter().take(many);
        (
            most.map(|(key, classes)| (key.clone(), *classes)).collect(),
            self.counts.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_trace_gets_longer_steps_and_loses_none() {
        let mut steps = Steps::default();
        for second in 0..10_000 {
            steps.add(Duration::from_secs(second), Class::Passed);
        }
        assert_eq!(steps.length, STEP * 64);
        assert!(steps.steps.len() <= STEPS);
        steps.coarsen(100);
        assert_eq!(steps.steps.len(), 98);
        assert_eq!(steps.length, STEP * 1024);
        let passed: u64 = steps
            .steps
            .iter()
            .map(|step| step[Class::Passed as usize])
            .sum();
        assert_eq!(passed, 10_000);
    }

    #[test]
    fn the_frequent_stay_where_there_are_too_many() {
        let mut top: Top<u64> = Top::default();
        let mut flood = 1_000_000_u64;
        for round in 0..300_000_u64 {
            flood += 1;
            top.add(&flood, || flood, Class::Dropped);
            if round % 10 == 0 {
                let often = round / 10 % 50;
                top.add(&often, || often, Class::Passed);
            }
        }
        let (most, known) = top.most(50);
        assert!(known <= KEYS, "{known}");
        let mut keys: Vec<u64> = most.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert_eq!(keys, (0..50).collect::<Vec<_>>());
        assert!(
            most.iter().all(|(_, classes)| classes[0] == 600),
            "{most:?}"
        );
    }

    #[test]
    fn each_fate_is_counted_for_itself() {
        let mut keys = std::collections::HashSet::new();
        let woulds = [None, Some(Action::Drop), Some(Action::Truncate)];
        let outcomes =
            [Outcome::Forwarded, Outcome::Expired]
                .into_iter()
                .chain(Reason::all().flat_map(|reason| {
                    let answers = Answer::ALL.map(|answer| Outcome::Answered(answer, reason));
                    answers.into_iter().chain([Outcome::Dropped(reason)])
                }));
        for outcome in outcomes {
            for would in woulds {
                let fate = Fate { outcome, would };
                assert!(keys.insert(fate.key()), "{fate:?}");
            }
        }
    }
}
