//! A map from domain names to numbers, asked with a query's name and all its ancestors at once.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use dnscrub_wire::Name;

/// Names in wire format with one number each. Built once; a look-up costs one hash and, as a
/// rule, one cache line for every length of name (in labels) that occurs in the map.
#[derive(Clone, Debug)]
pub(crate) struct NameMap {
    hasher: RandomState,
    /// Open addressing, at most half full, a power of two: high 32 bits of the hash above, the
    /// entry's position plus one below. Zero is free.
    slots: Vec<u64>,
    entries: Vec<Entry>,
    octets: Vec<u8>,
    /// Bit n: a name of n labels is in the map.
    depths: u128,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    value: u32,
    len: u8,
}

impl Default for NameMap {
    fn default() -> Self {
        Self::new(std::iter::empty::<(&[u8], u32)>())
    }
}

impl NameMap {
    /// Names in wire format and their numbers; of equal names the first counts.
    pub(crate) fn new<'a>(names: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let mut map = Self {
            hasher: RandomState::new(),
            slots: Vec::new(),
            entries: Vec::new(),
            octets: Vec::new(),
            depths: 0,
        };
        // a set of the names seen tells duplicates before the table's final size is known
        let mut seen = std::collections::HashSet::with_hasher(RandomState::new());
        for (wire, value) in names {
            if seen.insert(wire) {
                map.entries.push(Entry {
                    at: map.octets.len() as u32,
                    value,
                    len: wire.len() as u8,
                });
                map.octets.extend_from_slice(wire);
                map.depths |= 1_u128.checked_shl(label_count(wire)).unwrap_or_default();
            }
        }
        map.entries.shrink_to_fit();
        map.octets.shrink_to_fit();
        map.slots = vec![0; map.entries.len().saturating_mul(2).next_power_of_two()];
        let mask = map.slots.len().wrapping_sub(1);
        for (position, entry) in map.entries.iter().enumerate() {
            let hash = hash(&map.hasher, stored(&map.octets, entry));
            let mut at = hash as usize & mask;
            while let Some(slot) = map.slots.get_mut(at) {
                if *slot == 0 {
                    *slot = hash & HIGH | (position as u64).saturating_add(1);
                    break;
                }
                at = at.wrapping_add(1) & mask;
            }
        }
        map
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Calls `found` with (the number, whether it is the name itself) for `name` and each of its
    /// ancestors that is in the map, longest first, until it returns false.
    #[inline]
    pub(crate) fn ancestors(&self, name: &Name, mut found: impl FnMut(u32, bool) -> bool) {
        let mut depth = name.label_count() as u32;
        let mut below = self.depths
            & u128::MAX
                .checked_shr(127_u32.saturating_sub(depth))
                .unwrap_or_default();
        if below == 0 {
            return;
        }
        let mut own = true;
        for suffix in name.suffixes() {
            let bit = 1_u128.checked_shl(depth).unwrap_or_default();
            if below & bit != 0 {
                if let Some(value) = self.get(suffix)
                    && !found(value, own)
                {
                    return;
                }
                below ^= bit;
                if below == 0 {
                    return;
                }
            }
            own = false;
            depth = depth.saturating_sub(1);
        }
    }

    fn get(&self, wire: &[u8]) -> Option<u32> {
        let hash = hash(&self.hasher, wire);
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            let slot = *self.slots.get(at)?;
            if slot == 0 {
                return None;
            }
            if (slot ^ hash) & HIGH == 0
                && let Some(entry) = self.entries.get((slot & !HIGH).wrapping_sub(1) as usize)
                && stored(&self.octets, entry) == wire
            {
                return Some(entry.value);
            }
            at = at.wrapping_add(1) & mask;
        }
    }
}

const HIGH: u64 = 0xffff_ffff_0000_0000;

fn hash(hasher: &RandomState, wire: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(wire);
    state.finish()
}

fn stored<'a>(octets: &'a [u8], entry: &Entry) -> &'a [u8] {
    let at = entry.at as usize;
    octets
        .get(at..at.saturating_add(usize::from(entry.len)))
        .unwrap_or_default()
}

fn label_count(wire: &[u8]) -> u32 {
    let mut count = 0_u32;
    let mut rest = wire;
    while let Some(&len @ 1..) = rest.first() {
        count = count.saturating_add(1);
        rest = rest
            .get(usize::from(len).saturating_add(1)..)
            .unwrap_or_default();
    }
    count
}
