//! Fixed-memory tables of small per-source states.
//!
//! A table is an array of buckets of one cache line, eight cells of eight octets each: 24 bits of
//! the key's hash and 40 bits of state. The hash has a random seed, so nobody outside can choose
//! keys that fall together; by chance one new key in two million is taken for another one.
//!
//! A new key takes a free cell of its bucket, or, where none is free, of a second one. When all
//! sixteen are in use, the one that is worth least is given up: its key begins afresh when it
//! comes back. So a table that is too small forgets, first of all those that did least, and
//! newcomers find a fresh state. Up to half of its cells a table forgets next to nothing.

use ahash::RandomState;

/// Octets of a bucket: a cache line.
const BUCKET: usize = 64;
/// Cells of a bucket.
const CELLS: usize = 8;
/// Bits of a cell's state; the key's tag stands above.
pub(crate) const STATE_BITS: u32 = 40;
const STATE: u64 = (1 << STATE_BITS) - 1;

/// A table of 40-bit states by key.
#[derive(Debug)]
pub(crate) struct Cells {
    hasher: RandomState,
    words: Vec<u64>,
    /// Words before the first that stands at the start of a cache line.
    skip: usize,
    buckets: u64,
}

/// A cell found or made for a key.
pub(crate) struct Found {
    at: usize,
    /// The key's tag, in place.
    tag: u64,
    /// The state; `None` for a key that is new.
    pub(crate) state: Option<u64>,
}

impl Cells {
    /// A table of at most `octets` of memory, at least one cache line. The memory is taken from
    /// the system when it is first touched.
    pub(crate) fn new(octets: usize, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let buckets = (octets / BUCKET).max(1);
        let words = vec![0_u64; buckets.saturating_add(1).saturating_mul(CELLS)];
        let skip = words.as_ptr().align_offset(BUCKET).min(CELLS);
        Self {
            hasher: RandomState::with_seeds(a, b, c, d),
            words,
            skip,
            buckets: buckets as u64,
        }
    }

    /// Octets of all buckets.
    pub(crate) const fn octets(&self) -> usize {
        (self.buckets as usize).saturating_mul(BUCKET)
    }

    /// The keyed hash of `key`, for [`Cells::find_hashed`].
    #[inline]
    pub(crate) fn hash(&self, key: (u64, u128)) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The same, and reads the bucket of a key that is looked for soon.
    #[inline]
    pub(crate) fn expect(&self, key: (u64, u128)) -> u64 {
        let hash = self.hash(key);
        std::hint::black_box(self.words.get(self.bucket_at(hash)).copied());
        hash
    }

    /// Finds the cell of `key`, or the one it would get. `worth` says how much a state is worth
    /// keeping; 0 means that it says no more than a new one would.
    #[inline]
    pub(crate) fn find(&self, key: (u64, u128), worth: impl Fn(u64) -> u64) -> Found {
        self.find_hashed(self.hash(key), worth)
    }

    /// The same by the key's hash.
    #[inline]
    pub(crate) fn find_hashed(&self, hash: u64, worth: impl Fn(u64) -> u64) -> Found {
        // never 0, which is a free cell's
        let tag = (hash << STATE_BITS).max(1 << STATE_BITS);
        let first = self.look(self.bucket_at(hash), tag, &worth);
        if first.found {
            return first.take(tag);
        }
        // A key that was put into its second bucket when the first was full is looked for there
        // as long as the first is full; later it begins afresh.
        if first.worth > 0 {
            let second = self.look(
                self.bucket_at(hash.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15),
                tag,
                &worth,
            );
            if second.found || second.worth < first.worth {
                return second.take(tag);
            }
        }
        first.take(tag)
    }

    /// The cell with `tag` in the bucket at `start`, or else the one worth least.
    #[inline]
    fn look(&self, start: usize, tag: u64, worth: &impl Fn(u64) -> u64) -> Place {
        let mut place = Place {
            at: start,
            worth: u64::MAX,
            word: 0,
            found: false,
        };
        let Some(bucket) = self
            .words
            .get(start..)
            .and_then(<[u64]>::first_chunk::<CELLS>)
        else {
            return place;
        };
        for (offset, &word) in bucket.iter().enumerate() {
            if word & !STATE == tag {
                return Place {
                    at: start.wrapping_add(offset),
                    worth: 0,
                    word,
                    found: true,
                };
            }
        }
        for (offset, &word) in bucket.iter().enumerate() {
            let worth = if word == 0 { 0 } else { worth(word & STATE) };
            if worth < place.worth {
                place = Place {
                    at: start.wrapping_add(offset),
                    worth,
                    word,
                    found: false,
                };
                if worth == 0 {
                    break;
                }
            }
        }
        place
    }

    /// Puts a state, of which the low 40 bits count, into a found cell.
    #[inline]
    pub(crate) fn put(&mut self, found: &Found, state: u64) {
        if let Some(word) = self.words.get_mut(found.at) {
            *word = found.tag | state & STATE;
        }
    }

    /// The first word of the bucket a hash falls into, by its high bits.
    #[inline]
    fn bucket_at(&self, hash: u64) -> usize {
        let bucket = (u128::from(hash).wrapping_mul(u128::from(self.buckets)) >> 64) as usize;
        bucket.wrapping_mul(CELLS).wrapping_add(self.skip)
    }
}

/// A cell of a bucket.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    worth: u64,
    word: u64,
    found: bool,
}

impl Place {
    #[inline]
    fn take(self, tag: u64) -> Found {
        Found {
            at: self.at,
            tag,
            state: self.found.then_some(self.word & STATE),
        }
    }
}

/// A limit by the generic cell rate algorithm (GCRA, ITU-T I.371): `burst` events at once, then
/// one every interval.
///
/// A state is the time up to which a key's events are paid for, in ticks of 256 ns that come round
/// after 78 hours; one in the past is as good as none. A key that keeps silent for about that long
/// may be limited once as if it had just been busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Ticks between events.
    interval: u64,
    /// How far ahead of time the events may run, in ticks.
    tolerance: u64,
}

/// 2 to the power of this nanoseconds are a tick.
const TICK: u32 = 8;
/// Longest time ahead, in ticks: a day.
const AHEAD_MAX: u64 = 86_400_000_000_000 >> TICK;

impl Limit {
    /// `events` in `per`, both above zero, and `burst` at once, at least 1. No more of the burst
    /// counts than the rate lets through in a day.
    pub(crate) fn new(events: u32, per: std::time::Duration, burst: u32) -> Self {
        let ticks = u64::try_from(per.as_nanos() >> TICK)
            .unwrap_or(AHEAD_MAX)
            .min(AHEAD_MAX);
        let interval = ticks.checked_div(u64::from(events)).unwrap_or(ticks).max(1);
        let tolerance = interval.saturating_mul(u64::from(burst.max(1).saturating_sub(1)));
        Self {
            interval,
            tolerance: tolerance.min(AHEAD_MAX.saturating_sub(interval)),
        }
    }

    /// Counts one event of `key` at `now` (nanoseconds). Whether it is over the limit; such an
    /// event uses nothing up. Without `commit` nothing is changed.
    #[inline]
    pub(crate) fn exceeded(
        self,
        cells: &mut Cells,
        key: (u64, u128),
        now: u64,
        commit: bool,
    ) -> bool {
        let hash = cells.hash(key);
        self.exceeded_hashed(cells, hash, now, commit)
    }

    /// The same by the key's hash.
    #[inline]
    pub(crate) fn exceeded_hashed(
        self,
        cells: &mut Cells,
        hash: u64,
        now: u64,
        commit: bool,
    ) -> bool {
        let now = now >> TICK;
        let ahead = |paid: u64| {
            let ahead = paid.wrapping_sub(now) & STATE;
            if ahead <= AHEAD_MAX { ahead } else { 0 }
        };
        let found = cells.find_hashed(hash, ahead);
        let used = found.state.map_or(0, ahead);
        if used > self.tolerance {
            return true;
        }
        if commit {
            cells.put(&found, now.wrapping_add(used).wrapping_add(self.interval));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const SEED: [u64; 4] = [1, 2, 3, 4];

    #[test]
    fn a_burst_then_evenly() {
        let mut cells = Cells::new(1 << 16, SEED);
        let limit = Limit::new(10, Duration::from_secs(1), 5);
        let mut count = |now: u64| {
            (0..20)
                .filter(|_| !limit.exceeded(&mut cells, (0, 7), now, true))
                .count()
        };
        assert_eq!(count(SECOND), 5);
        assert_eq!(count(SECOND), 0);
        assert_eq!(count(SECOND + SECOND / 10), 1);
        assert_eq!(count(2 * SECOND), 5, "the burst comes back");
        assert_eq!(count(SECOND), 0, "time that goes back gives nothing");
        assert_eq!(
            count(3_000_000 * SECOND),
            5,
            "time comes round without harm"
        );
    }

    #[test]
    fn looking_changes_nothing() {
        let mut cells = Cells::new(1 << 16, SEED);
        let limit = Limit::new(1, Duration::from_secs(1), 1);
        for _ in 0..5 {
            assert!(!limit.exceeded(&mut cells, (0, 7), SECOND, false));
        }
        assert!(!limit.exceeded(&mut cells, (0, 7), SECOND, true));
        assert!(limit.exceeded(&mut cells, (0, 7), SECOND, false));
    }

    /// Sources that got a second query through within the second, of `sources` that each ask
    /// twice, all first queries before all second ones.
    fn leaked(sources: u64, octets: usize) -> usize {
        let mut cells = Cells::new(octets, SEED);
        let limit = Limit::new(1, Duration::from_secs(1), 1);
        let mut now = SECOND;
        let mut refused = 0;
        for source in 0..sources {
            now += 100;
            refused += u32::from(limit.exceeded(&mut cells, (0, u128::from(source)), now, true));
        }
        // one in a million may be taken for another source
        assert!(refused < 5, "a first query passes");
        (0..sources)
            .filter(|source| {
                now += 100;
                !limit.exceeded(&mut cells, (0, u128::from(*source)), now, true)
            })
            .count()
    }

    #[test]
    fn each_source_is_limited_on_its_own_while_half_the_cells_are_free() {
        // 2,000,000 sources to 32 MiB, a tenth of both
        assert!(leaked(200_000, (32 << 20) / 10) < 200_000 / 1_000);
    }

    #[test]
    fn with_four_fifths_of_the_cells_in_use_few_sources_are_forgotten() {
        assert!(leaked(200_000, 2_000_000) < 200_000 / 25);
    }

    #[test]
    fn a_full_table_forgets_and_never_punishes_newcomers() {
        // `leaked` asserts that every first query passes
        assert!(leaked(200_000, 1 << 19) > 100_000);
    }

    #[test]
    fn the_busiest_stay_when_a_table_is_full() {
        let mut cells = Cells::new(1 << 16, SEED);
        let limit = Limit::new(10, Duration::from_secs(1), 100);
        for _ in 0..100 {
            assert!(!limit.exceeded(&mut cells, (0, u128::MAX), SECOND, true));
        }
        for source in 0..1_000_000_u128 {
            limit.exceeded(&mut cells, (0, source), SECOND, true);
        }
        assert!(limit.exceeded(&mut cells, (0, u128::MAX), SECOND, true));
    }

    #[test]
    fn buckets_are_cache_lines_and_memory_is_bounded() {
        let cells = Cells::new(1 << 20, SEED);
        assert_eq!(
            cells.words.get(cells.skip..).unwrap().as_ptr().addr() % BUCKET,
            0
        );
        assert_eq!(cells.octets(), 1 << 20);
        assert_eq!(Cells::new(0, SEED).octets(), BUCKET);
    }
}
