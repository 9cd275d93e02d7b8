//! Queries that wait for an upstream's answer.

use std::rc::Rc;
use std::time::{Duration, Instant};

use dnscrub_wire::{Opcode, Query};

use super::client::Client;
use super::upstreams::Connection;

/// Longest query kept whole, in octets. Of a longer one only header and question are kept, and it is
/// not sent again.
const KEPT: usize = 2_048;
/// Octets of memory that a free slot keeps.
const SLOT_KEEPS: usize = 512;

/// A query in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Who asked.
    pub(super) client: Rc<Client>,
    /// The message id the client chose.
    pub(super) client_id: u16,
    /// Index of the pool, in the policy of `generation`.
    pub(super) pool: usize,
    /// The policy's number.
    pub(super) generation: u64,
    /// Offset just behind the question.
    pub(super) question_end: u16,
    /// Where it was sent.
    pub(super) connection: Rc<Connection>,
    /// The message id there.
    pub(super) id: u16,
    /// When it was sent there.
    pub(super) sent: Instant,
    /// When it is given up.
    pub(super) deadline: Instant,
    /// How long the upstream may be silent.
    pub(super) retry_after: Duration,
    /// How often it may be sent again after a failure.
    pub(super) resends: u8,
}

/// The queries in flight of one worker, by number. Memory grows with use, up to the capacity; when it
/// is full, no query is taken and those in flight are not disturbed.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Slot {
    entry: Option<InFlight>,
    /// Stays when the entry goes, so that the next one allocates nothing.
    query: Vec<u8>,
}

impl Table {
    /// An empty table for so many queries.
    pub(super) const fn new(capacity: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            capacity,
        }
    }

    /// Queries in flight.
    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no further query is taken.
    pub(super) const fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Takes a query in and gives it a number; nothing when the table is full.
    pub(super) fn insert(&mut self, entry: InFlight, query: &Query, packet: &[u8]) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = self.slots.get_mut(number as usize)?;
        slot.query.clear();
        slot.query.shrink_to(SLOT_KEEPS);
        // an update is not sent twice: the first may have been carried out
        let resendable = packet.len() <= KEPT && query.flags.opcode() != Opcode::UPDATE;
        if packet.len() <= KEPT {
            slot.query.extend_from_slice(packet);
        } else {
            slot.query
                .extend_from_slice(packet.get(..query.question_end.into()).unwrap_or_default());
            slot.query.get_mut(6..12).unwrap_or_default().fill(0);
        }
        let resends = if resendable { entry.resends } else { 0 };
        slot.entry = Some(InFlight { resends, ..entry });
        Some(number)
    }

    /// A query and its octets, as they came.
    pub(super) fn get(&self, number: u32) -> Option<(&InFlight, &[u8])> {
        let slot = self.slots.get(number as usize)?;
        Some((slot.entry.as_ref()?, &slot.query))
    }

    /// A query, to be changed.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut InFlight> {
        self.slots.get_mut(number as usize)?.entry.as_mut()
    }

    /// Ends a query. Its octets can be read until the next one is taken in.
    pub(super) fn remove(&mut self, number: u32) -> Option<(InFlight, &[u8])> {
        let slot = self.slots.get_mut(number as usize)?;
        let entry = slot.entry.take()?;
        self.free.push(number);
        Some((entry, &slot.query))
    }

    /// The numbers of the queries that are past their deadlines.
    pub(super) fn overdue(&self, now: Instant, numbers: &mut Vec<u32>) {
        if self.len() == 0 {
            return;
        }
        let entries = self
            .slots
            .iter()
            .zip(0..)
            .filter_map(|(slot, number)| Some((slot.entry.as_ref()?, number)));
        numbers.extend(
            entries
                .filter(|(entry, _)| entry.deadline <= now)
                .map(|(_, number)| number),
        );
    }
}
