//! How much a name looks like names that exist here, and how much like those that lately failed.
//!
//! Three tables count trigrams of labels: one over names that were found to exist, one over doubtful
//! names of calm times (misspelt ones, and those that are new), one over the doubtful names of a flood
//! that is on. The score of a name is the logarithm of the odds that its trigrams come from the third
//! rather than from the first two (naive Bayes, as in mail filters). So what tells a flood's names
//! apart is learned from that flood itself, whether it is letters, length or vocabulary; and where its
//! names look like the usual ones, the score is about 0 and says so.

/// Trigram counters of each table.
const CELLS: usize = 1 << 15;
/// A name's score is at most this, either way: 1 to 3000.
const MOST: f32 = 8.0;
/// Trigrams of a name that are looked at.
const TRIGRAMS: usize = 40;
/// At this many trigrams a table's counts are halved, so that it follows the times.
const FAILING_FULL: u32 = 1 << 16;
const USUAL_FULL: u32 = 1 << 18;
const EXISTING_FULL: u32 = 1 << 22;
/// Weight, in trigrams, of the assumption that a table knows nothing.
const PRIOR: f32 = 400.0;
/// Part of a table's say that always goes to that assumption.
const UNSEEN: f32 = 0.1;
/// Part of the usual doubtful names among all usual ones, once enough of them were seen,
const DOUBTFUL: f32 = 0.4;
/// in trigrams.
const ENOUGH: f32 = 2000.0;
/// A single trigram's logarithm of odds counts at most this, so that one rarity decides nothing.
const STEP: f32 = 2.5;

/// See the module. 192 KiB.
#[derive(Debug)]
pub(crate) struct Lexicon {
    /// Keeps senders from choosing trigrams that fall together.
    multiplier: u32,
    existing: Table,
    usual: Table,
    failing: Table,
}

#[derive(Debug)]
struct Table {
    counts: Box<[u16]>,
    total: u32,
    full: u32,
}

impl Table {
    fn new(full: u32) -> Self {
        Self {
            counts: vec![0; CELLS].into_boxed_slice(),
            total: 0,
            full,
        }
    }

    #[inline]
    fn add(&mut self, cell: usize) {
        if let Some(count) = self.counts.get_mut(cell) {
            *count = count.saturating_add(1);
            self.total = self.total.saturating_add(1);
        }
    }

    /// A trigram's part of all, mixed with a prior of an even spread: this for each time it was
    /// counted, and that beside.
    #[inline]
    fn part(&self) -> (f32, f32) {
        let each = (1.0 - UNSEEN) / (self.total as f32 + PRIOR);
        (each, each * PRIOR / CELLS as f32 + UNSEEN / CELLS as f32)
    }

    #[inline]
    fn count(&self, cell: usize) -> f32 {
        f32::from(self.counts.get(cell).copied().unwrap_or_default())
    }

    fn fade(&mut self) {
        if self.total >= self.full {
            self.total = 0;
            for count in &mut self.counts {
                *count >>= 1;
                self.total = self.total.saturating_add(u32::from(*count));
            }
        }
    }
}

impl Lexicon {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            multiplier: (seed as u32) | 1,
            existing: Table::new(EXISTING_FULL),
            usual: Table::new(USUAL_FULL),
            failing: Table::new(FAILING_FULL),
        }
    }

    /// Octets of memory.
    pub(crate) const OCTETS: usize = 3 * CELLS * size_of::<u16>();

    /// Names exist that look like `labels` (wire format, lower case).
    pub(crate) fn exists(&mut self, labels: &[u8]) {
        let Self {
            multiplier,
            existing,
            ..
        } = self;
        for cell in trigrams(labels, *multiplier) {
            existing.add(cell);
        }
    }

    /// A doubtful name of calm times looks like `labels`.
    pub(crate) fn doubted(&mut self, labels: &[u8]) {
        let Self {
            multiplier, usual, ..
        } = self;
        for cell in trigrams(labels, *multiplier) {
            usual.add(cell);
        }
    }

    /// A name of a flood that is on looks like `labels`.
    pub(crate) fn fails(&mut self, labels: &[u8]) {
        let Self {
            multiplier,
            failing,
            ..
        } = self;
        for cell in trigrams(labels, *multiplier) {
            failing.add(cell);
        }
    }

    /// The natural logarithm of the odds that `labels` are of the flood rather than of the zone.
    pub(crate) fn score(&self, labels: &[u8]) -> f32 {
        let known = self.usual.total as f32;
        let doubtful = DOUBTFUL * known / (known + ENOUGH);
        let ((failing, failing_beside), (existing, existing_beside), (usual, usual_beside)) =
            (self.failing.part(), self.existing.part(), self.usual.part());
        let (existing, usual) = ((1.0 - doubtful) * existing, doubtful * usual);
        let beside = (1.0 - doubtful) * existing_beside + doubtful * usual_beside;
        let (least, most) = ((-STEP).exp(), STEP.exp());
        // a product of at most 40 factors up to e^2.5 is far from the limits of 64 bits
        let mut odds = 1.0_f64;
        for cell in trigrams(labels, self.multiplier) {
            let flood = failing * self.failing.count(cell) + failing_beside;
            let zone =
                existing * self.existing.count(cell) + usual * self.usual.count(cell) + beside;
            odds *= f64::from((flood / zone).clamp(least, most));
        }
        (odds.ln() as f32).clamp(-MOST, MOST)
    }

    /// Halves what is full. Not for the packet path.
    pub(crate) fn fade(&mut self) {
        self.existing.fade();
        self.usual.fade();
        self.failing.fade();
    }

    /// Forgets half of the flood's names, at its end.
    pub(crate) fn calm(&mut self) {
        self.failing.full = 0;
        self.failing.fade();
        self.failing.full = FAILING_FULL;
    }

    /// The counts over existing names and what keys them, for a file.
    pub(crate) fn save(&self) -> Vec<u8> {
        let counts = self.existing.counts.iter();
        let counts = counts.flat_map(|count| count.to_le_bytes());
        self.multiplier
            .to_le_bytes()
            .into_iter()
            .chain(counts)
            .collect()
    }

    /// Takes over what [`Lexicon::save`] gave; whether it was of the right size. The other tables
    /// begin afresh, since they are keyed alike.
    pub(crate) fn restore(&mut self, octets: &[u8]) -> bool {
        let Some((multiplier, counts)) = octets.split_first_chunk::<4>() else {
            return false;
        };
        if counts.len() != CELLS * 2 {
            return false;
        }
        *self = Self::new(u32::from_le_bytes(*multiplier).into());
        let Table {
            counts: own, total, ..
        } = &mut self.existing;
        for (count, octets) in own.iter_mut().zip(counts.as_chunks::<2>().0) {
            *count = u16::from_le_bytes(*octets);
            *total = total.saturating_add(u32::from(*count));
        }
        true
    }
}

/// The cells of the trigrams, over the length octets too: they mark where labels begin and how long
/// they are. Digits stand for one another, as far as the third octet goes.
#[inline]
fn trigrams(labels: &[u8], multiplier: u32) -> impl Iterator<Item = usize> + use<'_> {
    labels.windows(3).take(TRIGRAMS).map(move |octets| {
        let key = octets
            .iter()
            .fold(0_u32, |key, &octet| key << 8 | u32::from(octet));
        (key.wrapping_add(1).wrapping_mul(multiplier) >> 17) as usize % CELLS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(name: &str) -> Vec<u8> {
        name.parse::<dnscrub_wire::Name>()
            .unwrap()
            .as_wire()
            .to_vec()
    }

    const WORDS: [&str; 12] = [
        "cloud", "market", "north", "stone", "garden", "travel", "ticket", "power", "mail", "cdn",
        "static", "school",
    ];

    fn lexicon() -> Lexicon {
        let mut lexicon = Lexicon::new(0x1234_5678_9abc_def1);
        for (n, a) in WORDS.iter().enumerate() {
            for b in WORDS {
                lexicon.exists(&wire(&format!("{a}-{b}")));
                lexicon.exists(&wire(&format!("{b}{n}")));
            }
        }
        lexicon
    }

    fn random(n: u64, alphabet: &[u8], length: usize) -> String {
        let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                char::from(alphabet[(state >> 33) as usize % alphabet.len()])
            })
            .collect()
    }

    const ALNUM: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

    #[test]
    fn random_names_and_new_ones_of_the_zone_s_kind_are_told_apart() {
        let mut lexicon = lexicon();
        for n in 0..5000 {
            lexicon.fails(&wire(&random(n, ALNUM, 12)));
        }
        let random = (5000..5100).filter(|n| lexicon.score(&wire(&random(*n, ALNUM, 12))) > 4.0);
        assert_eq!(random.count(), 100);
        for misspelt in ["mial", "markt", "gardne", "stattic"] {
            for _ in 0..20 {
                lexicon.doubted(&wire(misspelt));
            }
        }
        for new in [
            "garden-mail",
            "stone42",
            "powercdn",
            "ticket-north7",
            "mial",
            "markt",
        ] {
            assert!(
                lexicon.score(&wire(new)) < 0.0,
                "{new}: {}",
                lexicon.score(&wire(new))
            );
        }
    }

    #[test]
    fn another_vocabulary_is_told_apart_as_well() {
        let mut lexicon = lexicon();
        let strange = ["parcel", "wave", "clinic", "energy", "metro", "credit"];
        for a in strange {
            for b in strange {
                for n in 0..10 {
                    lexicon.fails(&wire(&format!("{a}-{b}{n}")));
                }
            }
        }
        assert!(lexicon.score(&wire("clinic-wave77")) > 3.0);
        assert!(lexicon.score(&wire("garden-power77")) < -3.0);
    }

    #[test]
    fn names_of_the_zone_s_own_kind_give_no_evidence() {
        let mut lexicon = lexicon();
        for a in WORDS {
            for b in WORDS {
                lexicon.fails(&wire(&format!("{b}-{a}")));
            }
        }
        assert!(lexicon.score(&wire("school-power")).abs() < 2.0);
    }

    #[test]
    fn counts_fade_and_can_be_saved() {
        let mut lexicon = lexicon();
        let before = lexicon.score(&wire("garden-mail"));
        let mut other = Lexicon::new(7);
        assert!(!other.restore(&lexicon.save()[2..]));
        assert!(other.restore(&lexicon.save()));
        assert_eq!(other.score(&wire("garden-mail")), before);
        for n in 0..20_000 {
            lexicon.fails(&wire(&random(n, ALNUM, 12)));
        }
        lexicon.fade();
        assert!(lexicon.failing.total < 300_000 && lexicon.failing.total > 0);
        lexicon.calm();
        assert!(lexicon.failing.total < 150_000);
    }
}
