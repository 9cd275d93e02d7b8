//! What is remembered of zones and of the names that questions stand under, in a table of fixed size.
//!
//! An entry belongs to a *suffix*: a zone, or the parent of a name asked for. It knows how many
//! doubtful names are asked for under it, how often such names turn out not to exist, and from whom
//! they come. A new suffix takes the place of the least busy entry of its set, never of one with an
//! alarm, so that a flood of made-up parents pushes out nothing that matters; while a set is full of
//! alarms, a new suffix is judged by its zone alone.

use dnscrub_wire::Name;

use super::saved::{SavedSuffix, Usual};
use super::surge::{Surge, Threshold};
use crate::defence::Level;

/// Entries of a set.
const WAYS: usize = 4;
/// Registers of the estimate of distinct names.
const REGISTERS: usize = 64;
/// 2 to the power of this nanoseconds: distinct names are counted for this long, 8.6 s.
const WINDOW: u32 = 33;

/// What is remembered of a suffix.
#[derive(Clone, Debug)]
pub(crate) struct Suffix {
    tag: u64,
    /// In lower case.
    pub(crate) name: Name,
    /// Doubtful names, each by how likely such a name fails here.
    pub(crate) doubt: Surge,
    /// All queries; of a zone only.
    pub(crate) all: Surge,
    /// Of the answers to names that were not known, the part that failed.
    failing: f32,
    /// How many such answers there were, up to [`SURE`].
    answers: f32,
    /// Of the doubtful queries, the part from sources known before.
    loyal: f32,
    /// The same in calm times.
    usually_loyal: f32,
    /// Upstream time that its names used, in seconds, fading.
    cost: f32,
    cost_at: u64,
    /// Its part of all upstream time in calm times.
    pub(crate) usual_part: f32,
    distinct: Distinct,
    /// Names let through for a fair share: tokens, and when they were last filled.
    tokens: f32,
    tokens_at: u64,
    /// The level that other workers see.
    pub(crate) elsewhere: Level,
}

/// Queries a second below which nothing is saved of a suffix.
const LEAST_SAVED: f32 = 0.01;
/// Answers after which a part is an average over about as many.
const SURE: f32 = 64.0;
/// Part of failures assumed where nothing is known.
const FAILING_UNKNOWN: f32 = 0.5;
/// Seconds in which used upstream time fades.
const COST_FADES_IN: f32 = 10.0;

/// Distinct names by HyperLogLog (Flajolet and others, 2007), 64 registers: about 13 % off.
#[derive(Clone, Debug)]
struct Distinct {
    window: u32,
    registers: [u8; REGISTERS],
    before: f32,
}

impl Distinct {
    const fn new() -> Self {
        Self {
            window: 0,
            registers: [0; REGISTERS],
            before: 0.0,
        }
    }

    #[inline]
    fn add(&mut self, hash: u64, now: u64) {
        let window = (now >> WINDOW) as u32;
        if window != self.window {
            self.before = if window.wrapping_sub(self.window) == 1 {
                self.estimate()
            } else {
                0.0
            };
            self.window = window;
            self.registers = [0; REGISTERS];
        }
        let rank = (hash << 6 | 1).leading_zeros().saturating_add(1) as u8;
        if let Some(register) = self.registers.get_mut((hash >> 58) as usize) {
            *register = (*register).max(rank);
        }
    }

    fn estimate(&self) -> f32 {
        let count = REGISTERS as f32;
        let sum: f32 = self
            .registers
            .iter()
            .map(|&rank| 1.0 / (1_u64 << rank.min(63)) as f32)
            .sum();
        let estimate = 0.709 * count * count / sum;
        let empty = self.registers.iter().filter(|&&rank| rank == 0).count();
        if estimate < 2.5 * count && empty > 0 {
            count * (count / empty as f32).ln()
        } else {
            estimate
        }
    }
}

impl Suffix {
    fn new(tag: u64, name: &[u8], now: u64) -> Self {
        Self {
            tag,
            name: Name::from_wire(name).unwrap_or_default(),
            doubt: Surge::new(now),
            all: Surge::new(now),
            failing: FAILING_UNKNOWN,
            answers: 0.0,
            loyal: 1.0,
            usually_loyal: 1.0,
            cost: 0.0,
            cost_at: now,
            usual_part: 0.0,
            distinct: Distinct::new(),
            tokens: 0.0,
            tokens_at: now,
            elsewhere: Level::Calm,
        }
    }

    /// The level of doubtful names, here or in other workers.
    #[inline]
    pub(crate) fn level(&self) -> Level {
        self.doubt.level().max(self.elsewhere)
    }

    /// What is kept of it over a restart, where there is something to tell.
    pub(crate) fn save(&self) -> Option<SavedSuffix> {
        let is_busy = |surge: &Surge| surge.base() >= LEAST_SAVED;
        let worth = is_busy(&self.doubt) || is_busy(&self.all) || self.failing().is_some();
        worth.then(|| SavedSuffix {
            name: self.name,
            doubt: self.doubt.usual(),
            all: self.all.usual(),
            failing: self.failing,
            answers: self.answers,
            usually_loyal: self.usually_loyal,
            usual_part: self.usual_part,
        })
    }

    /// Adds what one of so many workers knew. Rates add up; of parts, those count that the most
    /// answers stand behind.
    pub(crate) fn restore(&mut self, saved: &SavedSuffix, workers: f32) {
        let share = |usual: Usual| usual.shared(workers);
        self.doubt.add_usual(share(saved.doubt));
        self.all.add_usual(share(saved.all));
        if saved.answers >= self.answers {
            self.answers = saved.answers.min(SURE);
            self.failing = saved.failing;
            self.usual_part = saved.usual_part;
            self.usually_loyal = saved.usually_loyal;
            self.loyal = saved.usually_loyal;
        }
    }

    /// Counts a doubtful name.
    #[inline]
    pub(crate) fn doubted(
        &mut self,
        weight: f32,
        child: u64,
        from_loyal: bool,
        now: u64,
        (threshold, believed): (Threshold, bool),
    ) {
        self.doubt.count(weight, now, threshold, believed);
        self.distinct.add(child, now);
        let step = 1.0 / SURE;
        let part = f32::from(u8::from(from_loyal));
        self.loyal += (part - self.loyal) * step;
        if self.doubt.level() == Level::Calm {
            self.usually_loyal += (part - self.usually_loyal) * step;
        }
    }

    /// The part of names unknown before that fail here; nothing where too few were answered.
    #[inline]
    pub(crate) fn failing(&self) -> Option<f32> {
        (self.answers >= 8.0).then_some(self.failing)
    }

    /// Whether any name under it seems to exist, as under a wildcard.
    pub(crate) fn takes_any_name(&self) -> bool {
        self.answers >= 32.0 && self.failing < 0.1
    }

    /// An upstream said whether a name unknown before exists.
    #[inline]
    pub(crate) fn answered(&mut self, failed: bool) {
        self.answers = (self.answers + 1.0).min(SURE);
        let part = f32::from(u8::from(failed));
        self.failing += (part - self.failing) / self.answers.max(4.0);
    }

    /// The logarithm of the odds that a doubtful query from a source that is `loyal`, or is not, is
    /// the flood's rather than one of the usual ones.
    pub(crate) fn loyalty_odds(&self, loyal: bool) -> f32 {
        let (flood, usual) = (
            self.loyal.clamp(0.02, 0.98),
            self.usually_loyal.clamp(0.05, 0.95),
        );
        if loyal {
            (flood / usual).ln().min(0.0)
        } else {
            ((1.0 - flood) / (1.0 - usual)).ln().max(0.0)
        }
    }

    /// Takes a token, of which `rate` come back a second, up to as many as come in two seconds.
    pub(crate) fn take_token(&mut self, rate: f32, now: u64, commit: bool) -> bool {
        let elapsed = now.saturating_sub(self.tokens_at) as f32 / 1e9;
        let tokens = (self.tokens + elapsed * rate).min(2.0 * rate);
        if commit {
            (self.tokens, self.tokens_at) = (tokens, now);
        }
        let granted = tokens >= 1.0;
        if granted && commit {
            self.tokens -= 1.0;
        }
        granted
    }

    /// Upstream time used for a name under it.
    #[inline]
    pub(crate) fn spend(&mut self, seconds: f32, now: u64) {
        self.cost = self.cost(now) + seconds;
        self.cost_at = now;
    }

    /// Upstream time used lately, in seconds.
    #[inline]
    pub(crate) fn cost(&self, now: u64) -> f32 {
        let elapsed = now.saturating_sub(self.cost_at) as f32 / 1e9;
        self.cost * (1.0 - elapsed / COST_FADES_IN).max(0.0)
    }

    /// Distinct doubtful names of the last seconds, about.
    pub(crate) fn distinct(&self) -> f32 {
        self.distinct.estimate().max(self.distinct.before)
    }

    fn worth(&self) -> f32 {
        match self.doubt.level() {
            Level::Calm => {
                self.all.rate() + self.doubt.base() + 0.1 * self.doubt.rate() + 0.01 * self.answers
            }
            Level::Alert => 1e6 + self.doubt.rate(),
            Level::Attack => f32::INFINITY,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Suffixes {
    entries: Box<[Suffix]>,
    /// The entries' tags again, close together: a search reads one line of them.
    tags: Box<[[u64; WAYS]]>,
    sets: usize,
}

impl Suffixes {
    /// For at most `entries` suffixes.
    pub(crate) fn new(entries: usize, now: u64) -> Self {
        let sets = (entries / WAYS).max(1);
        let empty = Suffix::new(0, &[0], now);
        Self {
            entries: vec![empty; sets.saturating_mul(WAYS)].into_boxed_slice(),
            tags: vec![[0; WAYS]; sets].into_boxed_slice(),
            sets,
        }
    }

    /// Octets of memory.
    pub(crate) const fn octets(&self) -> usize {
        self.entries
            .len()
            .saturating_mul(size_of::<Suffix>().saturating_add(size_of::<u64>()))
    }

    #[inline]
    const fn set(&self, hash: u64) -> usize {
        ((hash as u128).wrapping_mul(self.sets as u128) >> 64) as usize
    }

    /// Where a suffix stands, if it does.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> Option<usize> {
        let set = self.set(hash);
        let way = self.tags.get(set)?.iter().position(|&tag| tag == hash)?;
        Some(set.wrapping_mul(WAYS).wrapping_add(way))
    }

    /// Where a suffix stands, making room for it; nothing where every place is taken by an alarm.
    #[inline]
    pub(crate) fn find_or_make(&mut self, hash: u64, name: &[u8], now: u64) -> Option<usize> {
        if let Some(place) = self.find(hash) {
            return Some(place);
        }
        let set = self.set(hash);
        let start = set.wrapping_mul(WAYS);
        let entries = self.entries.get_mut(start..start.wrapping_add(WAYS))?;
        let (mut way, mut least) = (0, f32::INFINITY);
        for (each, entry) in entries.iter().enumerate() {
            let worth = if entry.tag == 0 { -1.0 } else { entry.worth() };
            if worth < least {
                (way, least) = (each, worth);
            }
        }
        if least.is_infinite() {
            return None;
        }
        *entries.get_mut(way)? = Suffix::new(hash, name, now);
        *self.tags.get_mut(set)?.get_mut(way)? = hash;
        Some(start.wrapping_add(way))
    }

    #[inline]
    pub(crate) fn get(&self, place: usize) -> Option<&Suffix> {
        self.entries.get(place)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut Suffix> {
        self.entries.get_mut(place)
    }

    /// Every suffix that is remembered, to be looked at.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Suffix> {
        self.entries.iter().filter(|entry| entry.tag != 0)
    }

    /// Every suffix that is remembered.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Suffix> {
        self.entries.iter_mut().filter(|entry| entry.tag != 0)
    }
}
