//! A filter of what was seen before, in four generations, with fixed memory.
//!
//! A key has four bits in each generation, all of them in one cache line. The generations are *fresh*
//! (noted in the last seconds), *recent* (some seconds earlier), *settled* and *old*.
//! [`Generations::pass`] moves fresh keys on to recent and recent ones to settled, some lines at a time.
//! When the settled generation is full, it becomes the old one, and what was old is forgotten: a key
//! that keeps coming stays known, one that does not is forgotten after one to two fillings.
//!
//! A new key is taken for a known one once in seventy times when a generation is full. A known key is
//! never taken for a new one, unless it was forgotten. All workers share one filter: its words are
//! relaxed atomics, and a bit that is lost to a race is set again the next time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A cache line: two words for each of fresh, recent, settled and old.
#[repr(align(64))]
#[derive(Debug, Default)]
struct Line([AtomicU64; 8]);

/// Bits of a key in a generation.
const PROBES: u32 = 4;
/// Keys that a line is meant for, of one generation.
const KEYS: usize = 14;
/// A pass through all lines takes this many steps.
const STEPS: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Generations {
    lines: Box<[Line]>,
    /// Steps made since the start.
    steps: AtomicUsize,
    /// Keys put into the settled generation since it began, about.
    settled: AtomicUsize,
    /// Steps left of moving settled to old.
    turning: AtomicUsize,
}

/// Where a key was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Among what was noted in the last seconds.
    pub(crate) lately: bool,
    /// Among what was known before.
    pub(crate) settled: bool,
    /// Only in the old generation.
    only_old: bool,
}

impl Seen {
    pub(crate) const fn ever(self) -> bool {
        self.lately || self.settled
    }
}

impl Generations {
    /// With at most `octets` of memory, at least one line.
    pub(crate) fn new(octets: usize) -> Self {
        Self {
            lines: (0..(octets / 64).max(1)).map(|_| Line::default()).collect(),
            steps: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            turning: AtomicUsize::new(0),
        }
    }

    /// Octets of memory.
    pub(crate) const fn octets(&self) -> usize {
        self.lines.len().saturating_mul(64)
    }

    /// Keys that a generation is meant for.
    pub(crate) const fn capacity(&self) -> usize {
        self.lines.len().saturating_mul(KEYS)
    }

    #[inline]
    fn line(&self, hash: u64) -> Option<&Line> {
        let index = u128::from(hash).wrapping_mul(self.lines.len() as u128) >> 64;
        self.lines.get(index as usize)
    }

    /// Reads the line of a key that is looked for soon.
    #[inline]
    pub(crate) fn expect(&self, hash: u64) {
        if let Some(Line([word, ..])) = self.line(hash) {
            std::hint::black_box(word.load(Relaxed));
        }
    }

    /// Whether a key with this hash was seen.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> Seen {
        let Some(Line([f0, f1, r0, r1, s0, s1, o0, o1])) = self.line(hash) else {
            return Seen::default();
        };
        let (m0, m1) = masks(hash);
        let has = |w0: u64, w1: u64| m0 & !w0 == 0 && m1 & !w1 == 0;
        let settled = has(s0.load(Relaxed), s1.load(Relaxed));
        let old = !settled && has(o0.load(Relaxed), o1.load(Relaxed));
        Seen {
            lately: has(f0.load(Relaxed), f1.load(Relaxed))
                || has(r0.load(Relaxed), r1.load(Relaxed)),
            settled: settled || old,
            only_old: old,
        }
    }

    /// Takes note of a key as seen just now.
    #[inline]
    pub(crate) fn note(&self, hash: u64) {
        if let Some(Line([f0, f1, ..])) = self.line(hash) {
            let (m0, m1) = masks(hash);
            set(f0, m0);
            set(f1, m1);
        }
    }

    /// Puts a key into the settled generation.
    #[inline]
    pub(crate) fn settle(&self, hash: u64) {
        if let Some(Line([_, _, _, _, s0, s1, ..])) = self.line(hash) {
            let (m0, m1) = masks(hash);
            if set(s0, m0) | set(s1, m1) {
                self.settled.fetch_add(1, Relaxed);
            }
        }
    }

    /// Keeps a key from being forgotten that was found only among the old ones.
    #[inline]
    pub(crate) fn keep(&self, hash: u64, seen: Seen) {
        if seen.only_old {
            self.settle(hash);
        }
    }

    /// Moves a 256th of the lines on: what is fresh to recent, and, if `trusted`, what is recent to
    /// settled; otherwise what is recent is dropped.
    pub(crate) fn pass(&self, trusted: bool) {
        let step = self.steps.fetch_add(1, Relaxed) % STEPS;
        if step == 0 && self.settled.load(Relaxed) > self.capacity() {
            self.settled.store(0, Relaxed);
            self.turning.store(STEPS, Relaxed);
        }
        let turning = self.turning.load(Relaxed) > 0;
        if turning {
            self.turning.fetch_sub(1, Relaxed);
        }
        let mut bits = 0_u32;
        for Line([f0, f1, r0, r1, s0, s1, o0, o1]) in self.lines.iter().skip(step).step_by(STEPS) {
            for (fresh, recent, settled, old) in [(f0, r0, s0, o0), (f1, r1, s1, o1)] {
                if turning {
                    old.store(settled.swap(0, Relaxed), Relaxed);
                }
                let leaving = recent.swap(fresh.swap(0, Relaxed), Relaxed);
                if trusted && leaving != 0 {
                    let new = leaving & !settled.fetch_or(leaving, Relaxed);
                    bits = bits.saturating_add(new.count_ones());
                }
            }
        }
        self.settled.fetch_add((bits / PROBES) as usize, Relaxed);
    }

    /// The settled and old generations, for a file.
    pub(crate) fn save(&self) -> Vec<u8> {
        let kept = self
            .lines
            .iter()
            .flat_map(|Line([_, _, _, _, kept @ ..])| kept);
        kept.flat_map(|word| word.load(Relaxed).to_le_bytes())
            .collect()
    }

    /// Adds what [`Generations::save`] gave; whether it was of the right size.
    pub(crate) fn restore(&self, octets: &[u8]) -> bool {
        if octets.len() != self.lines.len().saturating_mul(32) {
            return false;
        }
        let kept = self
            .lines
            .iter()
            .flat_map(|Line([_, _, _, _, kept @ ..])| kept);
        for (word, octets) in kept.zip(octets.as_chunks::<8>().0) {
            word.fetch_or(u64::from_le_bytes(*octets), Relaxed);
        }
        true
    }
}

/// A key's bits: two in each of a generation's two words.
#[inline]
const fn masks(hash: u64) -> (u64, u64) {
    // the line's index used up the high bits
    let bits = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (
        1 << (bits & 63) | 1 << (bits >> 6 & 63),
        1 << (bits >> 12 & 63) | 1 << (bits >> 18 & 63),
    )
}

/// Sets bits; whether one of them was not set. Writes only then, so that lines stay shared.
#[inline]
fn set(word: &AtomicU64, mask: u64) -> bool {
    let new = word.load(Relaxed) & mask != mask;
    if new {
        word.fetch_or(mask, Relaxed);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(n)
    }

    fn full_pass(filter: &Generations, trusted: bool) {
        for _ in 0..STEPS {
            filter.pass(trusted);
        }
    }

    #[test]
    fn keys_move_from_fresh_to_settled_in_calm_times_only() {
        let filter = Generations::new(1 << 16);
        filter.note(hash(1));
        assert_eq!(
            (filter.find(hash(1)).lately, filter.find(hash(1)).settled),
            (true, false)
        );
        assert!(!filter.find(hash(2)).ever());
        full_pass(&filter, true);
        assert!(
            !filter.find(hash(1)).settled,
            "a few seconds are not enough"
        );
        full_pass(&filter, true);
        assert!(filter.find(hash(1)).settled);

        filter.note(hash(2));
        full_pass(&filter, false);
        full_pass(&filter, false);
        assert!(
            !filter.find(hash(2)).ever(),
            "what came in an attack is forgotten"
        );
    }

    #[test]
    fn a_key_that_keeps_coming_outlives_any_number_of_others() {
        let filter = Generations::new(1 << 14);
        filter.settle(hash(0));
        for n in 1..(20 * filter.capacity() as u64) {
            filter.settle(hash(n));
            if n % 100 == 0 {
                filter.keep(hash(0), filter.find(hash(0)));
                full_pass(&filter, true);
            }
        }
        assert!(filter.find(hash(0)).settled);
        let strangers = (1..1000)
            .filter(|n| filter.find(hash(n | 1 << 40)).ever())
            .count();
        assert!(
            strangers < 60,
            "{strangers} of 1000 new keys are taken for known ones"
        );
        assert!(
            !filter.find(hash(5)).settled,
            "what does not come back is forgotten"
        );
    }

    #[test]
    fn few_new_keys_are_taken_for_known_ones() {
        let filter = Generations::new(1 << 20);
        for n in 0..filter.capacity() as u64 {
            filter.settle(hash(n));
        }
        assert!((0..filter.capacity() as u64).all(|n| filter.find(hash(n)).settled));
        let strangers = (1..=10_000)
            .filter(|n| filter.find(hash(n | 1 << 40)).ever())
            .count();
        assert!(strangers < 250, "{strangers} of 10,000");
    }

    #[test]
    fn what_is_saved_can_be_restored() {
        let filter = Generations::new(1 << 12);
        filter.settle(hash(7));
        let other = Generations::new(1 << 12);
        assert!(other.restore(&filter.save()));
        assert!(other.find(hash(7)).settled);
        assert!(!Generations::new(1 << 13).restore(&filter.save()));
    }
}
