//! A compact table of names, read without locks while one writer edits it.
//!
//! A name takes one slot of 64 bits: 44 bits of its keyed hash and four counters. The name itself
//! is not kept, so among `n` names a missing name is taken for an existing one with a probability
//! of `n` / 2^44 for each look-up in the table: 6 in 10 million for 10 million names. Two existing names
//! that collide share a slot, whose counters are the sum of theirs, so neither hides the other.
//!
//! The counters make deletions exact. An RR counts at its owner, and at every name between the
//! owner and the zone's apex as "below"; a name without either does not exist (RFC 4592 section
//! 2.2.2). A counter that reached its largest value stays there: the name is then kept until the
//! zone is loaded anew, which is the mild direction.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use ahash::RandomState;

/// Bits of the hash that a slot keeps.
const HASH_BITS: u32 = 44;
/// Bits of all counters together.
const COUNT_BITS: u32 = 64 - HASH_BITS;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Smallest number of slots, as a power of two.
const SMALLEST: u32 = 6;
/// Largest number of slots, as a power of two: 32 GiB.
const LARGEST: u32 = 32;

/// One counter within a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counter {
    shift: u32,
    largest: u64,
}

impl Counter {
    const fn of(self, counts: u64) -> u64 {
        (counts >> self.shift) & self.largest
    }

    const fn one(self) -> u64 {
        1 << self.shift
    }
}

/// RRs at the name.
const OWN: Counter = Counter {
    shift: 0,
    largest: 0x3f,
};
/// RRs at names below it.
const BELOW: Counter = Counter {
    shift: 6,
    largest: 0xff,
};
/// NS records at the name.
const NS: Counter = Counter {
    shift: 14,
    largest: 0xf,
};
/// DNAME records at the name.
const DNAME: Counter = Counter {
    shift: 18,
    largest: 0x3,
};

/// The part of a name's hash that the table keeps; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameHash(u64);

impl NameHash {
    /// Of a name in lower-case wire format.
    #[inline]
    #[must_use]
    pub fn of(hasher: &RandomState, name: &[u8]) -> Self {
        Self((hasher.hash_one(name) >> COUNT_BITS).max(1))
    }
}

/// What an RR adds to a name, or takes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An RR at the name itself.
    Own,
    /// An NS record at the name itself, which is not the zone's apex: a delegation.
    Delegation,
    /// A DNAME record at the name itself.
    Redirection,
    /// An RR at a name below.
    Below,
}

impl Part {
    const fn counters(self) -> &'static [Counter] {
        match self {
            Self::Own => &[OWN],
            Self::Delegation => &[OWN, NS],
            Self::Redirection => &[OWN, DNAME],
            Self::Below => &[BELOW],
        }
    }
}

/// What the table knows of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    /// There are RRs at the name or below it (RFC 4592 section 2.2).
    #[must_use]
    pub const fn exists(self) -> bool {
        self.0 != 0
    }

    /// There are RRs at the name itself.
    #[must_use]
    pub const fn has_records(self) -> bool {
        OWN.of(self.0) != 0
    }

    /// The name is a zone cut.
    #[must_use]
    pub const fn is_delegation(self) -> bool {
        NS.of(self.0) != 0
    }

    /// The name has a DNAME record.
    #[must_use]
    pub const fn is_redirection(self) -> bool {
        DNAME.of(self.0) != 0
    }
}

/// No slot is free. What the table holds is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What was to be taken is not there. What the table holds is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent;

/// The table. At most 13 of 16 slots are used, so that a search ends after a few.
///
/// One writer at a time: [`NameTable::add`] and [`NameTable::take`] must not run at the same time
/// as each other. Readers need no care.
#[derive(Debug)]
pub struct NameTable {
    slots: Box<[AtomicU64]>,
    /// The number of slots is 2 to this power.
    power: u32,
    /// Slots whose counters are not all zero.
    live: AtomicU32,
    /// Slots that hold a hash. A name that went leaves its hash behind, so that no search ends
    /// early; the slot serves the same name again.
    used: AtomicU32,
}

impl NameTable {
    /// An empty table with room for so many names.
    #[must_use]
    pub fn with_room(names: u32) -> Self {
        let mut power = SMALLEST;
        while power < LARGEST && usable(power) < names {
            power = power.saturating_add(1);
        }
        Self::of_power(power)
    }

    fn of_power(power: u32) -> Self {
        let slots = 1_usize.checked_shl(power).unwrap_or(0);
        Self {
            slots: std::iter::repeat_with(|| AtomicU64::new(0))
                .take(slots)
                .collect(),
            power,
            live: AtomicU32::new(0),
            used: AtomicU32::new(0),
        }
    }

    /// Names in the table, empty non-terminals included.
    #[must_use]
    pub fn names(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// Memory taken, in octets.
    #[must_use]
    pub fn octets(&self) -> usize {
        size_of::<Self>().saturating_add(size_of_val(&*self.slots))
    }

    /// What is known of the name.
    #[inline]
    #[must_use]
    pub fn get(&self, name: NameHash) -> Entry {
        for slot in self.chain(name) {
            let value = slot.load(Relaxed);
            if value >> COUNT_BITS == name.0 {
                return Entry(value & COUNT_MASK);
            }
            if value == 0 {
                break;
            }
        }
        Entry(0)
    }

    /// Counts a part in.
    ///
    /// # Errors
    /// The name is new and has no room: go on with what [`NameTable::larger`] gives.
    pub fn add(&self, name: NameHash, part: Part) -> Result<(), Full> {
        for slot in self.chain(name) {
            let value = slot.load(Relaxed);
            if value >> COUNT_BITS == name.0 {
                let counts = value & COUNT_MASK;
                if counts == 0 {
                    self.live.store(self.names().saturating_add(1), Relaxed);
                }
                store_counts(slot, name, plus(counts, part));
                return Ok(());
            }
            if value == 0 {
                let used = self.used.load(Relaxed);
                if used >= usable(self.power) {
                    return Err(Full);
                }
                self.used.store(used.saturating_add(1), Relaxed);
                self.live.store(self.names().saturating_add(1), Relaxed);
                store_counts(slot, name, plus(0, part));
                return Ok(());
            }
        }
        Err(Full)
    }

    /// Counts a part out. Counters at their largest value stay.
    ///
    /// # Errors
    /// The part was never counted in.
    pub fn take(&self, name: NameHash, part: Part) -> Result<(), Absent> {
        for slot in self.chain(name) {
            let value = slot.load(Relaxed);
            if value >> COUNT_BITS == name.0 {
                let counts = minus(value & COUNT_MASK, part).ok_or(Absent)?;
                if counts == 0 {
                    self.live.store(self.names().saturating_sub(1), Relaxed);
                }
                store_counts(slot, name, counts);
                return Ok(());
            }
            if value == 0 {
                break;
            }
        }
        Err(Absent)
    }

    /// A copy with more room, without what names that went have left behind.
    #[must_use]
    pub fn larger(&self) -> Self {
        let half_full = self.names() >= usable(self.power) / 2;
        let power = if half_full && self.power < LARGEST {
            self.power.saturating_add(1)
        } else {
            self.power
        };
        let copy = Self::of_power(power);
        for slot in &self.slots {
            let value = slot.load(Relaxed);
            if value & COUNT_MASK != 0 {
                copy.place(value);
            }
        }
        copy.live.store(self.names(), Relaxed);
        copy.used.store(self.names(), Relaxed);
        copy
    }

    fn place(&self, value: u64) {
        let free = self
            .chain(NameHash(value >> COUNT_BITS))
            .find(|slot| slot.load(Relaxed) == 0);
        if let Some(slot) = free {
            slot.store(value, Relaxed);
        }
    }

    /// The slots in which the name may stand, in their order.
    #[inline]
    fn chain(&self, name: NameHash) -> impl Iterator<Item = &AtomicU64> {
        let first = (name.0 >> HASH_BITS.saturating_sub(self.power)) as usize;
        let (before, from) = self
            .slots
            .split_at_checked(first)
            .unwrap_or((&[], &self.slots));
        from.iter().chain(before)
    }
}

fn store_counts(slot: &AtomicU64, name: NameHash, counts: u64) {
    slot.store(name.0 << COUNT_BITS | counts, Relaxed);
}

/// How many slots of a table of 2^`power` may be used.
fn usable(power: u32) -> u32 {
    let slots = 1_u64.checked_shl(power).unwrap_or(0);
    u32::try_from((slots / 16).saturating_mul(13)).unwrap_or(u32::MAX)
}

fn plus(counts: u64, part: Part) -> u64 {
    part.counters().iter().fold(counts, |counts, counter| {
        if counter.of(counts) == counter.largest {
            counts
        } else {
            counts.saturating_add(counter.one())
        }
    })
}

fn minus(counts: u64, part: Part) -> Option<u64> {
    part.counters()
        .iter()
        .try_fold(counts, |counts, counter| match counter.of(counts) {
            0 => None,
            count if count == counter.largest => Some(counts),
            _ => Some(counts.saturating_sub(counter.one())),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher() -> RandomState {
        RandomState::with_seeds(1, 2, 3, 4)
    }

    fn numbered(hasher: &RandomState, number: u32) -> NameHash {
        NameHash::of(hasher, &number.to_be_bytes())
    }

    #[test]
    fn a_name_lives_as_long_as_its_parts() {
        let table = NameTable::with_room(10);
        let name = numbered(&hasher(), 1);
        assert!(!table.get(name).exists());
        table.add(name, Part::Own).unwrap();
        table.add(name, Part::Delegation).unwrap();
        table.add(name, Part::Below).unwrap();
        assert!(table.get(name).is_delegation() && table.get(name).has_records());
        assert_eq!(table.names(), 1);
        table.take(name, Part::Delegation).unwrap();
        assert!(!table.get(name).is_delegation());
        assert_eq!(table.take(name, Part::Delegation), Err(Absent));
        assert!(table.get(name).has_records(), "refused as a whole");
        table.take(name, Part::Own).unwrap();
        assert!(table.get(name).exists() && !table.get(name).has_records());
        table.take(name, Part::Below).unwrap();
        assert!(!table.get(name).exists());
        assert_eq!(table.names(), 0);
        assert_eq!(table.take(name, Part::Below), Err(Absent));
        table.add(name, Part::Redirection).unwrap();
        assert!(table.get(name).is_redirection());
        assert_eq!(table.names(), 1);
    }

    #[test]
    fn a_counter_at_its_largest_value_stays() {
        let table = NameTable::with_room(10);
        let name = numbered(&hasher(), 1);
        for (part, largest) in [
            (Part::Own, 63),
            (Part::Below, 255),
            (Part::Delegation, 15),
            (Part::Redirection, 3),
        ] {
            let before = table.get(name);
            for _ in 0..largest - 1 {
                table.add(name, part).unwrap();
            }
            for _ in 0..largest - 1 {
                table.take(name, part).unwrap();
            }
            if part != Part::Own && part != Part::Below {
                // their RRs count as the name's own too, which stay by now
                assert_eq!(table.get(name), before);
            }
            for _ in 0..largest + 10 {
                table.add(name, part).unwrap();
            }
            for _ in 0..2 * largest {
                table.take(name, part).unwrap();
            }
            assert!(table.get(name).exists(), "{part:?}");
        }
        let entry = table.get(name);
        assert!(entry.has_records() && entry.is_delegation() && entry.is_redirection());
    }

    #[test]
    fn no_name_is_lost_in_growing_and_in_going() {
        let hasher = hasher();
        let mut table = NameTable::with_room(0);
        for number in 0..20_000 {
            let name = numbered(&hasher, number);
            if table.add(name, Part::Own).is_err() {
                table = table.larger();
                table.add(name, Part::Own).unwrap();
            }
        }
        assert_eq!(table.names(), 20_000);
        for number in (0..20_000).step_by(2) {
            table.take(numbered(&hasher, number), Part::Own).unwrap();
        }
        assert_eq!(table.names(), 10_000);
        for table in [&table, &table.larger()] {
            for number in 0..20_000 {
                let entry = table.get(numbered(&hasher, number));
                assert_eq!(entry.has_records(), number % 2 == 1, "{number}");
            }
            for number in 20_000..200_000 {
                assert!(!table.get(numbered(&hasher, number)).exists());
            }
        }
    }

    #[test]
    fn names_that_come_and_go_do_not_use_up_the_table() {
        let hasher = hasher();
        let mut table = NameTable::with_room(100);
        let octets = table.octets();
        for number in 0..10_000 {
            let name = numbered(&hasher, number);
            if table.add(name, Part::Own).is_err() {
                table = table.larger();
                table.add(name, Part::Own).unwrap();
            }
            table.take(name, Part::Own).unwrap();
        }
        assert_eq!((table.names(), table.octets()), (0, octets));
    }

    #[test]
    fn ten_million_names_take_less_than_200_mib_however_the_table_has_grown() {
        // the least names for which a table of this size is taken
        for power in SMALLEST + 1..LARGEST {
            let names = u64::from(usable(power - 1)) + 1;
            let octets = 8_u64 << power;
            assert!(octets * 10_000_000 <= names * (200 << 20), "{power}");
        }
        let table = NameTable::with_room(10_000_000);
        assert_eq!(table.octets() - size_of::<NameTable>(), 8 << 24);
        assert!(table.octets() <= 200 << 20);
    }
}
