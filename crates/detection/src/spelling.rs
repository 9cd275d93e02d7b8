//! Whether a name is likely a slip of the pen: one letter more, less or other than a name that exists.
//!
//! People and programs mistype names at all times, and a mailing does it a hundred times a second; a flood
//! makes its names up. A name is taken for mistyped if it comes to the same as an existing one of its zone
//! when a letter is left out of either or both. Existing names are remembered in a filter of fixed size, each
//! with all its shortenings. Of two generations the older one is forgotten when the younger is full, so
//! that names which keep being asked for stay. A full filter takes more names for mistyped, never fewer than
//! it should by much.

use ahash::RandomState;

/// Octets of a generation.
const OCTETS: usize = 1 << 19;
/// Shortenings in a generation, at most.
const CAPACITY: usize = 300_000;
/// Longer names are not looked at.
const LONGEST: usize = 48;

/// See the module.
#[derive(Debug)]
pub(crate) struct Spelling {
    hasher: RandomState,
    young: Vec<u64>,
    old: Vec<u64>,
    filled: usize,
}

impl Spelling {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            young: vec![0; OCTETS / 8],
            old: vec![0; OCTETS / 8],
            filled: 0,
        }
    }

    /// Octets of memory.
    pub(crate) const fn octets() -> usize {
        OCTETS * 2
    }

    /// A name of this zone exists. `labels`: its octets before the zone.
    pub(crate) fn exists(&mut self, zone: &str, labels: &[u8]) {
        if labels.is_empty() || labels.len() > LONGEST {
            return;
        }
        let seed = self.hasher.hash_one(zone);
        let own = self.hash(seed, labels, None);
        if has(&self.young, own) {
            return;
        }
        if self.filled > CAPACITY {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.fill(0);
            self.filled = 0;
        }
        set(&mut self.young, own);
        for without in letters(labels) {
            let hash = self.hash(seed, labels, Some(without));
            set(&mut self.young, hash);
            self.filled = self.filled.saturating_add(1);
        }
    }

    /// Whether a name of this zone looks like one that exists.
    pub(crate) fn is_slip(&self, zone: &str, labels: &[u8]) -> bool {
        if labels.is_empty() || labels.len() > LONGEST {
            return false;
        }
        let seed = self.hasher.hash_one(zone);
        let known = |hash| has(&self.young, hash) || has(&self.old, hash);
        known(self.hash(seed, labels, None))
            || letters(labels).any(|without| known(self.hash(seed, labels, Some(without))))
    }

    /// The hash of the letters, but for one. Where labels end makes no difference: a dot too many or too
    /// few is a slip as well.
    fn hash(&self, seed: u64, labels: &[u8], without: Option<usize>) -> u64 {
        let mut hash = seed;
        for place in letters(labels).filter(|place| Some(*place) != without) {
            let letter = u64::from(labels.get(place).copied().unwrap_or(0));
            hash = (hash ^ letter).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        hash
    }
}

/// The places of letters in a row of labels.
fn letters(labels: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let mut next = 0_usize;
    (0..labels.len()).filter(move |place| {
        let is_length = *place == next;
        if is_length {
            let len = usize::from(labels.get(*place).copied().unwrap_or(0));
            next = place.saturating_add(len).saturating_add(1);
        }
        !is_length
    })
}

fn bits(hash: u64) -> (usize, u64) {
    let word = (hash >> 32) as usize % (OCTETS / 8);
    (
        word,
        1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63),
    )
}

fn has(filter: &[u64], hash: u64) -> bool {
    let (word, mask) = bits(hash);
    filter.get(word).is_some_and(|word| word & mask == mask)
}

fn set(filter: &mut [u64], hash: u64) {
    let (word, mask) = bits(hash);
    if let Some(word) = filter.get_mut(word) {
        *word |= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Vec<u8> {
        text.split('.')
            .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
            .collect()
    }

    #[test]
    fn slips_are_told_from_names_made_up() {
        let mut spelling = Spelling::new();
        for name in ["www", "webmail", "green-river", "db.harbor.eu"] {
            spelling.exists("example.com", &labels(name));
        }
        for slip in [
            "ww",
            "wwww",
            "wbw",
            "webmial",
            "webmaik",
            "gren-river",
            "db.harbr.eu",
        ] {
            assert!(spelling.is_slip("example.com", &labels(slip)), "{slip}");
        }
        assert!(
            !spelling.is_slip("example.org", &labels("webmai")),
            "another zone"
        );
        let mut state = 1_u64;
        let taken = (0..10_000)
            .filter(|_| {
                let name: String = (0..12)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        char::from(b'a' + ((state >> 33) % 26) as u8)
                    })
                    .collect();
                spelling.is_slip("example.com", &labels(&name))
            })
            .count();
        assert!(taken < 100, "{taken}");
    }

    #[test]
    fn a_full_filter_forgets_what_is_not_asked_for() {
        let mut spelling = Spelling::new();
        for n in 0..100_000 {
            spelling.exists("example.com", &labels(&format!("name{n}")));
            spelling.exists("example.com", &labels("evergreen"));
        }
        assert!(spelling.is_slip("example.com", &labels("evrgreen")));
        assert!(!spelling.is_slip("example.net", &labels("evrgreen")));
    }
}
