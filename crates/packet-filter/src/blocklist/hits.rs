//! Hit counters that outlive the tables they are counted from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;

/// Counters that tables of several generations share, so that no hit is lost while workers still
/// use an older table.
pub(super) type Chunks = Arc<[Arc<[AtomicU64]>]>;

/// The counter of a slot.
#[inline]
pub(super) fn counter(chunks: &Chunks, slot: u32) -> Option<&AtomicU64> {
    chunks
        .get((slot >> CHUNK_BITS) as usize)?
        .get(slot as usize & CHUNK.saturating_sub(1))
}

/// Hands out counters. They grow with the largest number of entries there ever was, and are used
/// again.
#[derive(Debug, Default)]
pub(super) struct HitCounters {
    chunks: Chunks,
    /// Slots below this have been handed out before.
    next: u32,
    free: Vec<u32>,
    /// Given back, but still in the last published table.
    resting: Vec<u32>,
}

impl HitCounters {
    /// Counters for `slots` more, in one step.
    pub(super) fn reserve(&mut self, slots: usize) {
        let needed = self.most_after(slots).div_ceil(CHUNK);
        let missing = needed.saturating_sub(self.chunks.len());
        if missing > 0 {
            let fresh = std::iter::repeat_with(|| {
                std::iter::repeat_with(AtomicU64::default)
                    .take(CHUNK)
                    .collect()
            });
            self.chunks = self
                .chunks
                .iter()
                .cloned()
                .chain(fresh.take(missing))
                .collect();
        }
    }

    /// How many slots there will have been at most, after `slots` more.
    pub(super) fn most_after(&self, slots: usize) -> usize {
        (self.next as usize).saturating_add(slots.saturating_sub(self.free.len()))
    }

    /// A counter at 0.
    pub(super) fn take(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.set(slot, 0);
            return slot;
        }
        self.reserve(1);
        let slot = self.next;
        self.next = self.next.saturating_add(1);
        slot
    }

    pub(super) fn release(&mut self, slot: u32) {
        self.resting.push(slot);
    }

    /// A table was published without the slots released until now.
    pub(super) fn settle(&mut self) {
        if self.free.is_empty() {
            self.free = std::mem::take(&mut self.resting);
        } else {
            self.free.append(&mut self.resting);
        }
    }

    pub(super) fn get(&self, slot: u32) -> u64 {
        counter(&self.chunks, slot).map_or(0, |hits| hits.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, slot: u32, hits: u64) {
        if let Some(counter) = counter(&self.chunks, slot) {
            counter.store(hits, Ordering::Relaxed);
        }
    }

    pub(super) fn chunks(&self) -> Chunks {
        Arc::clone(&self.chunks)
    }
}
