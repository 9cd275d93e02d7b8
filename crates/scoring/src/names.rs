//! A map from domain names to numbers, asked with a query's name and all its ancestors at once.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use dnscrub_wire::Name;

/// Names in wire format with one number each. Built once; a look-up costs one hash and, as a
/// rule, one cache line (two for a name that is there) for every length of name, in labels, that
/// occurs in the map.
#[derive(Clone, Debug)]
pub(crate) struct NameMap {
    hasher: RandomState,
    /// Open addressing, at most half full, a power of two: high 32 bits of the hash above, where
    /// the record begins plus one below. Zero is free.
    slots: Vec<u64>,
    /// Records: the number in four octets, then the name.
    records: Vec<u8>,
    names: usize,
    /// Bit n: a name of n labels is in the map.
    depths: u128,
}

/// Octets of a record before its name.
const RECORD_HEAD: usize = 4;

impl Default for NameMap {
    fn default() -> Self {
        Self::new(std::iter::empty::<(&[u8], u32)>())
    }
}

impl NameMap {
    /// Names in wire format and their numbers; of equal names the first counts. What does not fit
    /// 4 GiB is left out.
    pub(crate) fn new<'a>(names: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let names: Vec<(&[u8], u32)> = names.collect();
        let octets = names
            .iter()
            .map(|(wire, _)| wire.len().saturating_add(RECORD_HEAD))
            .fold(0, usize::saturating_add);
        let mut map = Self {
            hasher: RandomState::new(),
            slots: vec![0; names.len().saturating_mul(2).next_power_of_two()],
            records: Vec::with_capacity(octets),
            names: 0,
            depths: 0,
        };
        for (wire, number) in names {
            let hash = hash(&map.hasher, wire);
            let Ok(place) = u32::try_from(map.records.len().saturating_add(1)) else {
                break;
            };
            if let Err(free) = map.search(hash, wire)
                && let Some(slot) = map.slots.get_mut(free)
            {
                *slot = hash & HIGH | u64::from(place);
                map.records.extend_from_slice(&number.to_ne_bytes());
                map.records.extend_from_slice(wire);
                map.names = map.names.saturating_add(1);
                map.depths |= 1_u128.checked_shl(label_count(wire)).unwrap_or_default();
            }
        }
        map
    }

    pub(crate) const fn len(&self) -> usize {
        self.names
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
        self.search(hash(&self.hasher, wire), wire).ok()
    }

    /// The number of a name, or the slot that is free for it.
    #[inline]
    fn search(&self, hash: u64, wire: &[u8]) -> Result<u32, usize> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get(at).copied().unwrap_or_default();
            if slot == 0 {
                return Err(at);
            }
            if (slot ^ hash) & HIGH == 0
                && let Some(record) = self.records.get((slot & !HIGH).wrapping_sub(1) as usize..)
                && let Some((number, name)) = record.split_first_chunk::<RECORD_HEAD>()
                && name.starts_with(wire)
            {
                // a name ends with its root, so what begins with it is no other one
                return Ok(u32::from_ne_bytes(*number));
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
