//! The table of queries in flight.

use dnscrub_wire::{HEADER_LEN, Response};

use crate::forwarder::{Client, SocketRef, UpstreamIndex};
use crate::policy::MAX_RETRIES;

/// Octets of a query that are kept for sending it again. Longer queries are forwarded, but once.
pub(crate) const STORED: usize = 512;
/// Most times a query is sent.
pub(crate) const MAX_TRIES: usize = MAX_RETRIES as usize + 1;
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
    /// Its points: who has fewer goes first.
    pub(crate) points: u16,
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

    /// The upstreams it was sent to, of which so many count.
    pub(crate) fn tried(&self) -> ([UpstreamIndex; MAX_TRIES], usize) {
        (
            self.attempts.map(|attempt| attempt.socket.upstream),
            self.tries.into(),
        )
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

    /// Numbers of slots that were ever in use are below this.
    pub(crate) fn touched(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.entries.iter_mut().filter_map(|entry| match entry {
            Entry::Taken(slot) => Some(slot),
            Entry::Free { .. } => None,
        })
    }
}

/// Whether `response`, parsed from `packet`, is to `question`. A server that could not read or would
/// not serve the question may leave it out.
pub(crate) fn is_response_to(response: &Response, packet: &[u8], question: &[u8]) -> bool {
    usize::from(response.question_end) == HEADER_LEN || response.answers_question(packet, question)
}
