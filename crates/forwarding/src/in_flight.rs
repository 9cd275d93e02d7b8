//! The table of queries in flight, and the ids that lead to it.

use dnscrub_wire::{HEADER_LEN, Response};
use rand::Rng;
use rand::rngs::StdRng;

use crate::forwarder::{Client, SocketRef, UpstreamIndex};
use crate::policy::MAX_RETRIES;

/// Octets of a query that are kept for sending it again. Longer queries are forwarded, but once.
pub(crate) const STORED: usize = 512;
/// Most times a query is sent.
pub(crate) const MAX_TRIES: usize = MAX_RETRIES as usize + 1;
const IDS: usize = 1 << 16;
const NONE: u32 = u32::MAX;

/// One query in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) client: Client,
    /// Instants in nanoseconds.
    pub(crate) admitted: u64,
    pub(crate) expires: u64,
    pub(crate) name_key: u64,
    /// Index of its pool; nothing when a reload removed the pool.
    pub(crate) pool: Option<u16>,
    /// Octets of the query.
    pub(crate) query_len: u16,
    /// Octets of it that are kept.
    pub(crate) stored_len: u16,
    pub(crate) question_end: u16,
    /// All of the query is kept, so that it can be sent again.
    pub(crate) whole: bool,
    pub(crate) tries: u8,
    pub(crate) attempts: [Attempt; MAX_TRIES],
}

/// One sending of a query. Its id stays valid until the query's end, so that a late answer counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) socket: SocketRef,
    pub(crate) id: u16,
    pub(crate) status: Status,
    pub(crate) sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Counts as outstanding at its upstream. Only the last attempt can.
    Waiting,
    /// Given up: overdue or refused.
    GivenUp,
}

pub(crate) const NO_ATTEMPT: Attempt = Attempt {
    socket: SocketRef {
        upstream: UpstreamIndex(0),
        socket: 0,
    },
    id: 0,
    status: Status::GivenUp,
    sent: 0,
};

impl Slot {
    pub(crate) fn attempts(&self) -> &[Attempt] {
        self.attempts
            .get(..usize::from(self.tries))
            .unwrap_or_default()
    }

    pub(crate) fn last_attempt(&mut self) -> Option<&mut Attempt> {
        self.attempts
            .get_mut(usize::from(self.tries).checked_sub(1)?)
    }
}

/// Slots in fixed memory. Free ones are used again in the order last in, first out, so that the
/// memory touched is in proportion to what was ever in flight at once.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    stored: Vec<u8>,
    capacity: usize,
    free: u32,
    in_flight: usize,
}

#[derive(Debug)]
enum Entry {
    Taken(Slot),
    Free { next: u32 },
}

impl Table {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: Vec::with_capacity(capacity),
            // zeroed by the operating system, page by page when first touched
            stored: vec![0; capacity.saturating_mul(STORED)],
            capacity,
            free: NONE,
            in_flight: 0,
        }
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn is_full(&self) -> bool {
        self.in_flight >= self.capacity
    }

    /// Takes a free slot for a query whose kept part is `stored`, at most [`STORED`] octets.
    pub(crate) fn insert(&mut self, slot: Slot, stored: &[u8]) -> Option<u32> {
        let room = self.entries.len() < self.capacity;
        let number = match self.entries.get_mut(self.free as usize) {
            Some(entry) => {
                let number = self.free;
                let Entry::Free { next } = *entry else {
                    return None;
                };
                self.free = next;
                *entry = Entry::Taken(slot);
                number
            }
            None if room => {
                // within the capacity reserved at construction
                self.entries.push(Entry::Taken(slot));
                self.entries.len().saturating_sub(1) as u32
            }
            None => return None,
        };
        self.in_flight = self.in_flight.saturating_add(1);
        if let Some(room) = self.stored_mut(number, stored.len()) {
            room.copy_from_slice(stored);
        }
        Some(number)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Slot> {
        match self.entries.get(number as usize)? {
            Entry::Taken(slot) => Some(slot),
            Entry::Free { .. } => None,
        }
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Slot> {
        match self.entries.get_mut(number as usize)? {
            Entry::Taken(slot) => Some(slot),
            Entry::Free { .. } => None,
        }
    }

    /// Frees a slot. What it kept can be read until the next [`Self::insert`].
    pub(crate) fn remove(&mut self, number: u32) {
        let Some(entry @ Entry::Taken(_)) = self.entries.get_mut(number as usize) else {
            return;
        };
        *entry = Entry::Free { next: self.free };
        self.free = number;
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The first `len` octets kept of the query in `number`.
    pub(crate) fn stored(&self, number: u32, len: usize) -> &[u8] {
        let start = (number as usize).saturating_mul(STORED);
        self.stored
            .get(start..start.saturating_add(len.min(STORED)))
            .unwrap_or_default()
    }

    pub(crate) fn stored_mut(&mut self, number: u32, len: usize) -> Option<&mut [u8]> {
        let start = (number as usize).saturating_mul(STORED);
        self.stored
            .get_mut(start..start.saturating_add(len.min(STORED)))
    }

    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.entries.iter_mut().filter_map(|entry| match entry {
            Entry::Taken(slot) => Some(slot),
            Entry::Free { .. } => None,
        })
    }
}

/// The ids of one upstream's sockets: for each socket and id the slot it leads to.
#[derive(Debug)]
pub(crate) struct Ids {
    /// 0: never used; slot + 1: in use; `FREED` and a time: was in use until then.
    cells: Vec<u32>,
    sockets: u8,
    in_use: u32,
}

/// Where an id leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lead {
    Slot(u32),
    /// Not in use, but it was until a short time ago.
    Late,
    Unknown,
}

const FREED: u32 = 1 << 31;
/// Unit of the time at which an id was freed: 2^24 ns, 17 ms. 31 bits of it last over a year.
const FREED_UNIT_BITS: u32 = 24;
/// How long an id that was freed explains a late answer: 10 s.
const LATE_UNITS: u32 = (10_000_000_000_u64 >> FREED_UNIT_BITS) as u32;

impl Ids {
    pub(crate) fn new(sockets: u8) -> Self {
        // a quarter of a megabyte a socket, zeroed by the operating system when first touched
        Self {
            cells: vec![0; usize::from(sockets).saturating_mul(IDS)],
            sockets,
            in_use: 0,
        }
    }

    /// Ids in use on all sockets.
    pub(crate) const fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Takes a random id that is free on `socket`, or on another one when 32 draws find none there.
    /// So a claim's cost is bounded, and it fails only when nearly all ids of all sockets are in
    /// use: with two thirds of them in use once in half a million times a socket.
    pub(crate) fn claim(&mut self, socket: u8, slot: u32, rng: &mut StdRng) -> Option<(u8, u16)> {
        const DRAWS: u32 = 8;
        for step in 0..self.sockets {
            let socket = u16::from(socket).saturating_add(step.into());
            let socket = socket.checked_rem(self.sockets.into())? as u8;
            for _ in 0..DRAWS {
                let random = rng.next_u64();
                for shift in [0, 16, 32, 48] {
                    let id = (random >> shift) as u16;
                    if self.take(socket, id, slot) {
                        return Some((socket, id));
                    }
                }
            }
        }
        None
    }

    pub(crate) fn lookup(&self, socket: u8, id: u16, now: u64) -> Lead {
        match self
            .cell(socket, id)
            .and_then(|cell| self.cells.get(cell))
            .copied()
        {
            None | Some(0) => Lead::Unknown,
            Some(freed) if freed & FREED != 0 => {
                let age = (freed_at(now) & !FREED).wrapping_sub(freed & !FREED);
                if age <= LATE_UNITS {
                    Lead::Late
                } else {
                    Lead::Unknown
                }
            }
            Some(slot) => Lead::Slot(slot.wrapping_sub(1)),
        }
    }

    pub(crate) fn release(&mut self, socket: u8, id: u16, now: u64) {
        let Some(cell) = self
            .cell(socket, id)
            .and_then(|cell| self.cells.get_mut(cell))
        else {
            return;
        };
        *cell = freed_at(now);
        self.in_use = self.in_use.saturating_sub(1);
    }

    /// The first slot that an id at `place` or behind it leads to, and its place.
    pub(crate) fn next_in_use(&self, place: usize) -> Option<(usize, u32)> {
        let rest = self.cells.get(place..)?;
        let offset = rest
            .iter()
            .position(|cell| *cell != 0 && cell & FREED == 0)?;
        Some((
            place.saturating_add(offset),
            rest.get(offset)?.wrapping_sub(1),
        ))
    }

    fn take(&mut self, socket: u8, id: u16, slot: u32) -> bool {
        let Some(cell) = self
            .cell(socket, id)
            .and_then(|cell| self.cells.get_mut(cell))
        else {
            return false;
        };
        if *cell != 0 && *cell & FREED == 0 {
            return false;
        }
        *cell = slot.saturating_add(1);
        self.in_use = self.in_use.saturating_add(1);
        true
    }

    fn cell(&self, socket: u8, id: u16) -> Option<usize> {
        (socket < self.sockets).then(|| {
            usize::from(socket)
                .saturating_mul(IDS)
                .saturating_add(id.into())
        })
    }
}

/// Whether `response`, parsed from `packet`, is to `question`. A server that could not read or would
/// not serve the question may leave it out.
pub(crate) fn is_response_to(response: &Response, packet: &[u8], question: &[u8]) -> bool {
    usize::from(response.question_end) == HEADER_LEN || response.answers_question(packet, question)
}

const fn freed_at(now: u64) -> u32 {
    FREED | (now >> FREED_UNIT_BITS) as u32
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn no_id_is_in_use_twice_on_a_socket_and_most_can_be_used() {
        let mut ids = Ids::new(2);
        let mut rng = StdRng::seed_from_u64(3);
        let mut seen = std::collections::HashSet::new();
        while let Some(claimed) = ids.claim(0, seen.len() as u32, &mut rng) {
            assert_eq!(
                ids.lookup(claimed.0, claimed.1, 0),
                Lead::Slot(seen.len() as u32)
            );
            assert!(seen.insert(claimed));
        }
        assert_eq!(ids.in_use() as usize, seen.len());
        assert!(seen.len() > 2 * IDS * 3 / 4, "{}", seen.len());
        for (socket, id) in seen {
            ids.release(socket, id, 5);
        }
        assert_eq!(ids.in_use(), 0);
        assert!(ids.next_in_use(0).is_none());
    }

    #[test]
    fn a_freed_id_is_late_for_ten_seconds() {
        let mut ids = Ids::new(1);
        let (socket, id) = ids.claim(0, 0, &mut StdRng::seed_from_u64(3)).unwrap();
        let second = 1_000_000_000;
        ids.release(socket, id, 50 * second);
        assert_eq!(ids.lookup(socket, id, 51 * second), Lead::Late);
        assert_eq!(ids.lookup(socket, id, 59 * second), Lead::Late);
        assert_eq!(ids.lookup(socket, id, 61 * second), Lead::Unknown);
        assert_eq!(
            ids.lookup(socket, id.wrapping_add(1), 51 * second),
            Lead::Unknown
        );
        assert_eq!(ids.lookup(9, id, 51 * second), Lead::Unknown);
    }
}
