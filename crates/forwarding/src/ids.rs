//! Which query in flight an id on a socket leads to.
//!
//! One hash table for all sockets of a worker. It is as large as what is in flight asks for, so
//! that under a usual load it stays in the fastest cache, which an array with a cell for every id
//! of every socket would not.

use rand::Rng;
use rand::rngs::StdRng;

use crate::forwarder::SocketRef;

/// Entries at the start; a power of two.
const SMALLEST: usize = 1024;
/// Ids that ended lately and are remembered; a power of two.
const REMEMBERED: usize = 8192;
const SLOT_BITS: u32 = 24;

/// Open addressing with linear probing, at most half full. An entry is the key (upstream, socket,
/// id: 40 bits) and the slot's number plus one (24 bits); 0 is an empty one.
#[derive(Debug)]
pub(crate) struct Ids {
    entries: Vec<u64>,
    /// Where the entries move to when there is not enough room, and back the next time. All memory
    /// for both is reserved at construction, and touched when it is needed first.
    other: Vec<u64>,
    size: usize,
    used: usize,
    /// Keys that ended lately, each at a place of its own: an overwritten one is forgotten.
    ended: Vec<u64>,
}

/// Where an id leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lead {
    Slot(u32),
    /// Not in use, but it lately was.
    Late,
    Unknown,
}

impl Ids {
    /// Room for `most` ids in use, of all sockets together.
    pub(crate) fn new(most: usize) -> Self {
        let largest = most.saturating_mul(2).next_power_of_two().max(SMALLEST);
        Self {
            // zeroed by the operating system, page by page when first touched
            entries: vec![0; largest],
            other: vec![0; largest],
            size: SMALLEST,
            used: 0,
            ended: vec![0; REMEMBERED],
        }
    }

    /// Takes a random id that is free on `socket`. It is drawn 32 times, so that the cost is
    /// bounded: with two thirds of the socket's ids in use that fails once in half a million times.
    pub(crate) fn claim(&mut self, socket: SocketRef, slot: u32, rng: &mut StdRng) -> Option<u16> {
        const DRAWS: u32 = 8;
        if self.used.saturating_mul(2) >= self.size {
            self.grow()?;
        }
        for _ in 0..DRAWS {
            let random = rng.next_u64();
            for shift in [0, 16, 32, 48] {
                let id = (random >> shift) as u16;
                if self.insert(key(socket, id), slot) {
                    self.used = self.used.saturating_add(1);
                    return Some(id);
                }
            }
        }
        None
    }

    pub(crate) fn lookup(&self, socket: SocketRef, id: u16) -> Lead {
        let key = key(socket, id);
        match self.place_of(key).and_then(|place| self.entries.get(place)) {
            Some(entry) => Lead::Slot((entry & SLOT_MASK).saturating_sub(1) as u32),
            None if self.ended.get(remembered_at(key)) == Some(&key) => Lead::Late,
            None => Lead::Unknown,
        }
    }

    pub(crate) fn release(&mut self, socket: SocketRef, id: u16) {
        let key = key(socket, id);
        let Some(mut hole) = self.place_of(key) else {
            return;
        };
        self.used = self.used.saturating_sub(1);
        if let Some(ended) = self.ended.get_mut(remembered_at(key)) {
            *ended = key;
        }
        // Entries behind move up, so that no probe ends at the hole too early.
        let mut place = hole;
        loop {
            place = self.next(place);
            let entry = self.entries.get(place).copied().unwrap_or(0);
            if entry == 0 {
                break;
            }
            let mask = self.size.wrapping_sub(1);
            let from_home = place.wrapping_sub(home(entry >> SLOT_BITS, self.size)) & mask;
            let from_hole = place.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.set(hole, entry);
                hole = place;
            }
        }
        self.set(hole, 0);
    }

    /// Whether it was free.
    fn insert(&mut self, key: u64, slot: u32) -> bool {
        let mut place = home(key, self.size);
        loop {
            match self.entries.get(place).copied() {
                Some(0) => break,
                Some(entry) if entry >> SLOT_BITS != key => place = self.next(place),
                _ => return false,
            }
        }
        self.set(place, key << SLOT_BITS | u64::from(slot.saturating_add(1)));
        true
    }

    fn place_of(&self, key: u64) -> Option<usize> {
        let mut place = home(key, self.size);
        loop {
            match *self.entries.get(place)? {
                0 => return None,
                entry if entry >> SLOT_BITS == key => return Some(place),
                _ => place = self.next(place),
            }
        }
    }

    fn grow(&mut self) -> Option<()> {
        let (before, after) = (self.size, self.size.saturating_mul(2));
        if after > self.other.len() {
            return None;
        }
        std::mem::swap(&mut self.entries, &mut self.other);
        self.size = after;
        for place in 0..before {
            let entry = self.other.get_mut(place).map_or(0, std::mem::take);
            if entry != 0 {
                self.insert(
                    entry >> SLOT_BITS,
                    (entry & SLOT_MASK).saturating_sub(1) as u32,
                );
            }
        }
        Some(())
    }

    const fn next(&self, place: usize) -> usize {
        place.wrapping_add(1) & self.size.wrapping_sub(1)
    }

    fn set(&mut self, place: usize, entry: u64) {
        if let Some(cell) = self.entries.get_mut(place) {
            *cell = entry;
        }
    }
}

const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

fn key(socket: SocketRef, id: u16) -> u64 {
    u64::from(socket.upstream.0) << 24 | u64::from(socket.socket) << 16 | u64::from(id)
}

/// Ids are our own random draws, so a fixed multiplier (2^64 over the golden ratio) spreads well
/// enough; nobody else chooses what is inserted.
const fn spread(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const fn home(key: u64, size: usize) -> usize {
    (spread(key) >> 32) as usize & size.wrapping_sub(1)
}

const fn remembered_at(key: u64) -> usize {
    (spread(key) >> 32) as usize & (REMEMBERED - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::forwarder::UpstreamIndex;

    fn socket(number: u8) -> SocketRef {
        SocketRef {
            upstream: UpstreamIndex(u16::from(number / 2)),
            socket: number % 2,
        }
    }

    #[test]
    fn no_id_is_in_use_twice_on_a_socket_and_most_can_be_used() {
        let mut ids = Ids::new(1 << 16);
        let mut rng = StdRng::seed_from_u64(3);
        let mut taken = HashMap::new();
        while let Some(id) = ids.claim(socket(1), taken.len() as u32, &mut rng) {
            assert!(taken.insert(id, taken.len() as u32).is_none());
        }
        assert!(taken.len() > 40_000, "{}", taken.len());
        for (id, slot) in &taken {
            assert_eq!(ids.lookup(socket(1), *id), Lead::Slot(*slot));
            assert_eq!(ids.lookup(socket(2), *id), Lead::Unknown);
        }
        for id in taken.keys() {
            ids.release(socket(1), *id);
        }
        assert_eq!(ids.used, 0);
        assert!(ids.entries.iter().all(|entry| *entry == 0));
        assert!(ids.other.iter().all(|entry| *entry == 0));
    }

    #[test]
    fn the_largest_number_of_ids_fits() {
        let mut ids = Ids::new(4000);
        let mut rng = StdRng::seed_from_u64(3);
        for slot in 0..4000 {
            assert!(
                ids.claim(socket((slot % 8) as u8), slot, &mut rng)
                    .is_some()
            );
        }
    }

    #[test]
    fn an_id_that_ended_is_late() {
        let mut ids = Ids::new(16);
        let id = ids
            .claim(socket(0), 5, &mut StdRng::seed_from_u64(3))
            .unwrap();
        ids.release(socket(0), id);
        ids.release(socket(0), id);
        assert_eq!(ids.lookup(socket(0), id), Lead::Late);
        assert_eq!(ids.lookup(socket(0), id.wrapping_add(1)), Lead::Unknown);
        assert_eq!(ids.lookup(socket(1), id), Lead::Unknown);
    }

    proptest! {
        #[test]
        fn it_does_what_a_map_would(steps in prop::collection::vec((any::<bool>(), 0u8..6, any::<prop::sample::Index>()), 1..3000)) {
            let mut ids = Ids::new(4096);
            let mut rng = StdRng::seed_from_u64(9);
            let mut model: Vec<(SocketRef, u16, u32)> = Vec::new();
            for (number, (claims, at, which)) in steps.into_iter().enumerate() {
                if claims || model.is_empty() {
                    let id = ids.claim(socket(at), number as u32, &mut rng).unwrap();
                    model.push((socket(at), id, number as u32));
                } else {
                    let (socket, id, _) = model.swap_remove(which.index(model.len()));
                    ids.release(socket, id);
                    prop_assert_eq!(ids.lookup(socket, id), Lead::Late);
                }
                prop_assert_eq!(ids.used, model.len());
            }
            for (socket, id, slot) in model {
                prop_assert_eq!(ids.lookup(socket, id), Lead::Slot(slot));
            }
        }
    }
}
