//! Fixed-memory tables of small per-source states.
//!
//! A table is an array of buckets of one cache line, four cells of 16 octets each. A key has two
//! buckets, found by a hash with a random seed. A new key takes a free cell of either. When all
//! eight are in use, the one that is worth least is given up: its key begins afresh when it comes
//! back. So a table that is too small forgets, first of all those that did least; it never counts
//! one key's doings against another.

use ahash::RandomState;

/// Octets of a bucket: a cache line.
const BUCKET: usize = 64;
/// A bucket's 64-bit words: four cells of two.
const WORDS: usize = 8;
/// A cell: the key's hash (0: free), and its state.
const CELL: usize = 2;

/// A table of 64-bit states by key.
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
    /// Index of the state's word.
    at: usize,
    /// The key's hash.
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
        let words = vec![0_u64; buckets.saturating_add(1).saturating_mul(WORDS)];
        let skip = words.as_ptr().align_offset(BUCKET).min(WORDS);
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

    /// Finds the cell of `key`, or the one it would get. `worth` says how much a state is worth
    /// keeping; 0 means that it says no more than a new one would.
    #[inline]
    pub(crate) fn find(&self, key: (u64, u128), worth: impl Fn(u64) -> u64) -> Found {
        let hash = self.hasher.hash_one(key);
        let tag = hash | 1;
        let first = self.bucket_at(hash);
        let second = self.bucket_at(hash.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15);
        // Free cells of the emptier bucket go first: so hardly any bucket is full before most are.
        let mut best = (0, u64::MAX, first);
        for start in [first, second] {
            let Some(bucket) = self
                .words
                .get(start..)
                .and_then(<[u64]>::first_chunk::<WORDS>)
            else {
                continue;
            };
            let (mut free, mut least) = (0_u8, (u64::MAX, start));
            for (offset, cell) in bucket.chunks_exact(CELL).enumerate() {
                let &[owner, state] = cell else { continue };
                let at = start.wrapping_add(offset.wrapping_mul(CELL));
                if owner == tag {
                    return Found {
                        at,
                        tag,
                        state: Some(state),
                    };
                }
                let worth = if owner == 0 { 0 } else { worth(state) };
                free = free.wrapping_add(u8::from(worth == 0));
                if worth < least.0 {
                    least = (worth, at);
                }
            }
            if free > best.0 || free == best.0 && least.0 < best.1 {
                best = (free, least.0, least.1);
            }
        }
        Found {
            at: best.2,
            tag,
            state: None,
        }
    }

    /// Puts a state into a found cell.
    #[inline]
    pub(crate) fn put(&mut self, found: &Found, state: u64) {
        if let Some([owner, old]) = self
            .words
            .get_mut(found.at..)
            .and_then(<[u64]>::first_chunk_mut::<CELL>)
        {
            *owner = found.tag;
            *old = state;
        }
    }

    /// The first word of the bucket a hash falls into, by its high bits.
    #[inline]
    fn bucket_at(&self, hash: u64) -> usize {
        let bucket = (u128::from(hash).wrapping_mul(u128::from(self.buckets)) >> 64) as usize;
        bucket.wrapping_mul(WORDS).wrapping_add(self.skip)
    }
}

/// A limit by the generic cell rate algorithm (GCRA, ITU-T I.371): `burst` events at once, then
/// one every `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Nanoseconds between events.
    interval: u64,
    /// How far ahead of time the events may run, in nanoseconds.
    tolerance: u64,
}

impl Limit {
    /// `events` in `per`, both above zero, and `burst` at once, at least 1.
    pub(crate) fn new(events: u32, per: std::time::Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.checked_div(u64::from(events)).unwrap_or(per).max(1);
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(burst.max(1).saturating_sub(1))),
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
        // A state is the time up to which events are paid for; one in the past is as good as none.
        let found = cells.find(key, |paid| paid.saturating_sub(now));
        let paid = found.state.unwrap_or_default().max(now);
        if paid.wrapping_sub(now) > self.tolerance {
            return true;
        }
        if commit {
            cells.put(&found, paid.saturating_add(self.interval));
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
        for source in 0..sources {
            now += 100;
            assert!(
                !limit.exceeded(&mut cells, (0, u128::from(source)), now, true),
                "a first query always passes"
            );
        }
        (0..sources)
            .filter(|source| {
                now += 100;
                !limit.exceeded(&mut cells, (0, u128::from(*source)), now, true)
            })
            .count()
    }

    #[test]
    fn each_source_is_limited_on_its_own_while_half_the_cells_are_free() {
        // 2,000,000 sources to 64 MiB, a tenth of both
        assert_eq!(leaked(200_000, (64 << 20) / 10), 0);
    }

    #[test]
    fn with_four_fifths_of_the_cells_in_use_few_sources_are_forgotten() {
        assert!(leaked(200_000, 4_000_000) < 200_000 / 40);
    }

    #[test]
    fn a_full_table_forgets_and_never_punishes_newcomers() {
        // `leaked` asserts that every first query passes
        assert!(leaked(200_000, 1 << 20) > 100_000);
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
