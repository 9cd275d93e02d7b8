//! What is remembered of single sources, in a table of fixed size.
//!
//! A record is 16 octets, four of them a cache line. A source whose line is full takes the place of
//! the record that is worth least: one of few queries that is not verified, the oldest first. The
//! records of sources that ask regularly, or proved their address, stay whatever comes by.

/// What is remembered of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Record {
    /// Part of the hash that tells sources of one line apart; 0 for a free place.
    tag: u32,
    /// When it last asked, in [`Record::seconds`].
    pub(crate) seen: u32,
    /// Until when its address counts as proven, in units of four seconds; 0 for never.
    verified_until: u16,
    /// The lowest IP TTL it usually comes with.
    lowest: u8,
    /// The highest.
    highest: u8,
    /// Queries whose TTL was learned, up to 255.
    samples: u8,
    /// The last TTL outside the range.
    odd: u8,
    /// How often it was seen, or one next to it.
    odd_times: u8,
    /// Malformed packets lately; halved every 16 seconds.
    malformed: u8,
}

/// Samples of TTLs after which a range says something.
const ENOUGH: u8 = 4;
/// Samples while a range is still widened without more ado.
const LEARNING: u8 = 16;
/// How often a TTL outside the range must be seen, in calm times, to widen it.
const CONFIRMED: u8 = 3;

/// What a packet's IP TTL says beside what its source showed before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hops {
    /// Nothing: the TTL or the source is not known.
    #[default]
    Unknown,
    /// It came the usual way.
    Usual,
    /// It came another way, perhaps from somebody else.
    Odd,
}

impl Record {
    /// The clock of records, from nanoseconds: about seconds.
    pub(crate) const fn seconds(now: u64) -> u32 {
        (now >> 30) as u32
    }

    pub(crate) const fn is_verified(&self, now: u64) -> bool {
        let quarter = (now >> 32) as u16;
        // wraps after 78 hours; a time more than half of that ahead is in the past
        self.verified_until != 0 && self.verified_until.wrapping_sub(quarter) < u16::MAX / 2
    }

    /// Counts as proven for `span` nanoseconds.
    pub(crate) const fn verify(&mut self, now: u64, span: u64) {
        let until = (now.saturating_add(span) >> 32) as u16;
        self.verified_until = if until == 0 { 1 } else { until };
    }

    /// Compares the TTL.
    #[inline]
    pub(crate) fn hops(&self, ttl: Option<u8>) -> Hops {
        let Some(ttl) = ttl else { return Hops::Unknown };
        if self.samples < ENOUGH {
            return Hops::Unknown;
        }
        // the fewer samples, the less of a path's variation they show
        let margin = u8::from(self.samples < LEARNING);
        if ttl >= self.lowest.saturating_sub(margin) && ttl <= self.highest.saturating_add(margin) {
            Hops::Usual
        } else {
            Hops::Odd
        }
    }

    /// Learns a TTL, in calm times only. One outside the range has to come several times, so that a
    /// flood does not widen the range in the moment before it is noticed.
    #[inline]
    pub(crate) fn learn(&mut self, ttl: u8) {
        if self.samples == 0 {
            (self.lowest, self.highest) = (ttl, ttl);
        }
        if ttl >= self.lowest && ttl <= self.highest {
            self.samples = self.samples.saturating_add(1);
            return;
        }
        if self.odd_times > 0 && self.odd.abs_diff(ttl) <= 1 {
            self.odd_times = self.odd_times.saturating_add(1);
        } else {
            self.odd_times = 1;
        }
        self.odd = ttl;
        let near = ttl.saturating_add(6) >= self.lowest && ttl <= self.highest.saturating_add(6);
        if self.samples < LEARNING && near || self.odd_times >= CONFIRMED {
            self.lowest = self.lowest.min(ttl);
            self.highest = self.highest.max(ttl);
            self.samples = self.samples.saturating_add(1);
            self.odd_times = 0;
        }
    }

    /// Malformed packets lately.
    pub(crate) const fn malformed(&self, now: u64) -> u8 {
        let halvings = Self::seconds(now).wrapping_sub(self.seen) / 16;
        if halvings > 7 {
            0
        } else {
            self.malformed >> halvings
        }
    }

    /// Takes note of a malformed packet.
    pub(crate) const fn count_malformed(&mut self, now: u64) {
        self.malformed = self.malformed(now).saturating_add(1);
        self.seen = Self::seconds(now);
    }

    /// Takes note of a query.
    #[inline]
    pub(crate) const fn touch(&mut self, now: u64) {
        self.malformed = self.malformed(now);
        self.seen = Self::seconds(now);
    }

    /// What the record is worth keeping, against others of its line.
    fn worth(&self, now: u64) -> u32 {
        if self.tag == 0 {
            return 0;
        }
        let age = Self::seconds(now).wrapping_sub(self.seen).min(1 << 20);
        let regular = u32::from(self.samples >= LEARNING) << 25;
        let verified = u32::from(self.is_verified(now)) << 26;
        let known = u32::from(self.samples.min(LEARNING)) << 20;
        let worth = (known | regular | verified)
            .saturating_add(1 << 20)
            .saturating_sub(age)
            .max(1);
        // regulars that have not come for days make room
        if age > 500_000 { worth >> 8 } else { worth }
    }
}

#[repr(align(64))]
#[derive(Clone, Copy, Debug, Default)]
struct Line([Record; 4]);

/// See the module.
#[derive(Debug)]
pub(crate) struct Sources {
    lines: Box<[Line]>,
}

impl Sources {
    /// With at most `octets` of memory, at least one line.
    pub(crate) fn new(octets: usize) -> Self {
        Self {
            lines: vec![Line::default(); (octets / 64).max(1)].into_boxed_slice(),
        }
    }

    /// Octets of memory.
    pub(crate) const fn octets(&self) -> usize {
        self.lines.len().saturating_mul(64)
    }

    #[inline]
    fn place(&self, hash: u64) -> (usize, u32) {
        let index = u128::from(hash).wrapping_mul(self.lines.len() as u128) >> 64;
        (index as usize, (hash as u32).max(1))
    }

    /// Reads the line of a source that is looked for soon.
    #[inline]
    pub(crate) fn expect(&self, hash: u64) {
        if let Some(Line([record, ..])) = self.lines.get(self.place(hash).0) {
            std::hint::black_box(record.tag);
        }
    }

    /// The record of a source that has one.
    #[inline]
    pub(crate) fn get_mut(&mut self, hash: u64) -> Option<&mut Record> {
        let (index, tag) = self.place(hash);
        let Line(records) = self.lines.get_mut(index)?;
        records.iter_mut().find(|record| record.tag == tag)
    }

    /// A record for a source that has none, in the place of one that is worth less than `worth`; see
    /// [`Sources::FIRST`] and [`Sources::PROVEN`].
    #[inline]
    pub(crate) fn make(&mut self, hash: u64, worth: u32, now: u64) -> Option<&mut Record> {
        let (index, tag) = self.place(hash);
        let Line(records) = self.lines.get_mut(index)?;
        let place = records.iter_mut().min_by_key(|record| record.worth(now))?;
        if place.worth(now) > worth {
            return None;
        }
        *place = Record {
            tag,
            seen: Record::seconds(now),
            ..Record::default()
        };
        Some(place)
    }

    /// Worth of a source that asks for the first time: less than that of one that asked 16 times.
    pub(crate) const FIRST: u32 = 1 << 24;
    /// Worth of a source that proved its address.
    pub(crate) const PROVEN: u32 = 1 << 26;

    /// Lines that [`Sources::save`] looks at in a step.
    const STEP: usize = 4096;

    /// Appends the records of sources that ask regularly, for a file, 12 octets each: those of step
    /// `step`, from 0. Whether there are more steps.
    pub(crate) fn save(&self, step: usize, octets: &mut Vec<u8>) -> bool {
        let from = step.saturating_mul(Self::STEP);
        let lines = (0_u32..).zip(&self.lines).skip(from).take(Self::STEP);
        for (index, Line(records)) in lines {
            for record in records.iter().filter(|record| record.samples >= ENOUGH) {
                octets.extend(index.to_le_bytes());
                octets.extend(record.tag.to_le_bytes());
                octets.extend([record.lowest, record.highest, record.samples, 0]);
            }
        }
        from.saturating_add(Self::STEP) < self.lines.len()
    }

    /// Adds what [`Sources::save`] gave for a table of the same size and seed.
    pub(crate) fn restore(&mut self, octets: &[u8], now: u64) {
        for &[i0, i1, i2, i3, t0, t1, t2, t3, lowest, highest, samples, _] in
            octets.as_chunks::<12>().0
        {
            let index = u32::from_le_bytes([i0, i1, i2, i3]) as usize;
            let tag = u32::from_le_bytes([t0, t1, t2, t3]);
            let Some(Line(records)) = self.lines.get_mut(index) else {
                continue;
            };
            if tag == 0 || records.iter().any(|record| record.tag == tag) {
                continue;
            }
            if let Some(free) = records.iter_mut().find(|record| record.tag == 0) {
                *free = Record {
                    tag,
                    seen: Record::seconds(now),
                    lowest,
                    highest,
                    samples,
                    ..Record::default()
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_range_is_learned_and_a_single_odd_packet_does_not_widen_it() {
        let mut record = Record::default();
        assert_eq!(record.hops(Some(50)), Hops::Unknown);
        for _ in 0..20 {
            record.learn(50);
        }
        assert_eq!(record.hops(Some(50)), Hops::Usual);
        assert_eq!(record.hops(None), Hops::Unknown);
        for odd in [60, 110, 45, 61, 120] {
            record.learn(odd);
            assert_eq!(record.hops(Some(odd)), Hops::Odd);
        }
        for _ in 0..3 {
            record.learn(55);
        }
        assert_eq!(record.hops(Some(55)), Hops::Usual, "the path has changed");
    }

    #[test]
    fn a_source_whose_path_varies_shows_its_range_at_once() {
        let mut record = Record::default();
        for ttl in [50, 47, 52, 49, 51, 48] {
            record.learn(ttl);
        }
        assert_eq!(record.hops(Some(53)), Hops::Usual, "with a margin at first");
        assert_eq!(record.hops(Some(40)), Hops::Odd);
    }

    #[test]
    fn a_proof_of_address_lasts_as_long_as_it_is_said_to() {
        let mut record = Record::default();
        assert!(!record.is_verified(5 * SECOND));
        record.verify(5 * SECOND, 300 * SECOND);
        assert!(record.is_verified(300 * SECOND));
        assert!(!record.is_verified(320 * SECOND));
    }

    #[test]
    fn regular_and_proven_sources_keep_their_records_in_a_flood_of_others() {
        let mut sources = Sources::new(1 << 12);
        let hash = |n: u32| ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(n);
        let (regular, proven) = (hash(1), hash(2));
        let record = sources.make(regular, Sources::FIRST, 0).unwrap();
        for _ in 0..20 {
            record.learn(50);
        }
        sources
            .make(proven, Sources::PROVEN, 0)
            .unwrap()
            .verify(0, 3600 * SECOND);
        for n in 3..100_000 {
            sources.make(hash(n), Sources::FIRST, u64::from(n) * SECOND / 100);
        }
        assert!(sources.get_mut(regular).is_some());
        assert!(sources.get_mut(proven).is_some());

        let mut other = Sources::new(1 << 12);
        let mut saved = Vec::new();
        assert!(!sources.save(0, &mut saved));
        other.restore(&saved, 0);
        assert_eq!(other.get_mut(regular).unwrap().hops(Some(50)), Hops::Usual);
        assert!(
            other.get_mut(proven).is_none(),
            "a proof does not outlive a restart"
        );
    }

    #[test]
    fn malformed_packets_are_forgotten_by_and_by() {
        let mut record = Record::default();
        for _ in 0..8 {
            record.count_malformed(SECOND);
        }
        assert_eq!(record.malformed(SECOND), 8);
        assert_eq!(record.malformed(40 * SECOND), 2);
        assert_eq!(record.malformed(1000 * SECOND), 0);
    }
}
