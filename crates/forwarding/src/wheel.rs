//! When each slot is due: a timing wheel with its lists threaded through the slots, so that a tick
//! costs what is due and not what is waiting.

/// A tick of the wheel: 2^20 ns, about a millisecond.
const GRANULARITY_BITS: u32 = 20;
/// Ticks of one turn, about 4.3 s. What is due later goes round again.
const TURN: u64 = 4096;
const NONE: u32 = u32::MAX;

/// At most one due time for each slot. Nothing is due early; at most a tick late.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Vec<u32>,
    links: Vec<Link>,
    /// The last tick whose list was emptied.
    cursor: u64,
    scheduled: usize,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    due: u64,
    next: u32,
    previous: u32,
    /// The list it is in, or `NONE`.
    head: u32,
}

const LOOSE: Link = Link {
    due: 0,
    next: NONE,
    previous: NONE,
    head: NONE,
};

impl Wheel {
    /// For slots `0..capacity`.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            heads: vec![NONE; TURN as usize],
            links: Vec::with_capacity(capacity),
            cursor: 0,
            scheduled: 0,
        }
    }

    /// Sets the time at which `slot` is due, in nanoseconds, in place of an earlier one.
    pub(crate) fn schedule(&mut self, slot: u32, due: u64) {
        self.cancel(slot);
        while self.links.len() <= slot as usize {
            // within the capacity reserved at construction
            self.links.push(LOOSE);
        }
        let earliest = self.cursor.saturating_add(1);
        let latest = self.cursor.saturating_add(TURN - 1);
        let tick = due.div_ceil(1 << GRANULARITY_BITS).clamp(earliest, latest);
        let list = (tick % TURN) as u32;
        let Some(head) = self.heads.get_mut(list as usize) else {
            return;
        };
        let next = std::mem::replace(head, slot);
        if let Some(link) = self.links.get_mut(next as usize) {
            link.previous = slot;
        }
        if let Some(link) = self.links.get_mut(slot as usize) {
            *link = Link {
                due,
                next,
                previous: NONE,
                head: list,
            };
        }
        self.scheduled = self.scheduled.saturating_add(1);
    }

    /// Forgets the slot's due time.
    pub(crate) fn cancel(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else {
            return;
        };
        let Link {
            next,
            previous,
            head,
            ..
        } = *link;
        if head == NONE {
            return;
        }
        *link = LOOSE;
        if let Some(link) = self.links.get_mut(next as usize) {
            link.previous = previous;
        }
        if let Some(link) = self.links.get_mut(previous as usize) {
            link.next = next;
        } else if let Some(head) = self.heads.get_mut(head as usize) {
            *head = next;
        }
        self.scheduled = self.scheduled.saturating_sub(1);
    }

    /// Takes out a slot that is due; to be called until there is none.
    pub(crate) fn pop(&mut self, now: u64) -> Option<u32> {
        let current = now >> GRANULARITY_BITS;
        // One turn visits every list, however long nobody looked.
        self.cursor = self.cursor.max(current.saturating_sub(TURN));
        if self.scheduled == 0 {
            self.cursor = self.cursor.max(current);
        }
        while self.cursor < current {
            let list = self.cursor.saturating_add(1) % TURN;
            let slot = self.heads.get(list as usize).copied().unwrap_or(NONE);
            let Some(link) = self.links.get(slot as usize) else {
                self.cursor = self.cursor.saturating_add(1);
                continue;
            };
            let due = link.due;
            if due <= now {
                self.cancel(slot);
                return Some(slot);
            }
            self.schedule(slot, due);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 1 << GRANULARITY_BITS;

    fn drain(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut due: Vec<u32> = std::iter::from_fn(|| wheel.pop(now)).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn nothing_is_due_early_and_nothing_is_forgotten() {
        let mut wheel = Wheel::new(8);
        wheel.schedule(0, 5 * TICK);
        wheel.schedule(1, 5 * TICK + 1);
        wheel.schedule(2, 3 * TURN * TICK);
        assert!(drain(&mut wheel, 5 * TICK - 1).is_empty());
        assert_eq!(drain(&mut wheel, 5 * TICK), [0]);
        assert_eq!(drain(&mut wheel, 6 * TICK), [1]);
        assert!(drain(&mut wheel, 3 * TURN * TICK - 1).is_empty());
        assert_eq!(drain(&mut wheel, 3 * TURN * TICK), [2]);
    }

    #[test]
    fn a_slot_is_due_once_and_not_after_it_was_cancelled() {
        let mut wheel = Wheel::new(8);
        wheel.schedule(3, TICK);
        wheel.schedule(3, 2 * TICK);
        wheel.schedule(4, 2 * TICK);
        wheel.schedule(5, 2 * TICK);
        wheel.cancel(4);
        wheel.cancel(4);
        assert!(drain(&mut wheel, TICK).is_empty());
        assert_eq!(drain(&mut wheel, 9 * TICK), [3, 5]);
        assert!(drain(&mut wheel, 99 * TICK).is_empty());
    }

    proptest! {
        #[test]
        fn it_does_what_a_sorted_list_would(
            steps in prop::collection::vec((0u32..16, 0u64..3 * TURN * TICK, 0u64..TURN * TICK, 0u8..4), 1..200),
        ) {
            let mut wheel = Wheel::new(16);
            let mut model = std::collections::BTreeMap::new();
            let mut now = 0;
            for (slot, due_in, advance, kind) in steps {
                match kind {
                    0 => {
                        wheel.cancel(slot);
                        model.remove(&slot);
                    }
                    1 => now += advance,
                    _ => {
                        wheel.schedule(slot, now + due_in);
                        model.insert(slot, now + due_in);
                    }
                }
                for slot in drain(&mut wheel, now) {
                    let due = model.remove(&slot);
                    prop_assert!(due.is_some_and(|due| due <= now));
                }
                prop_assert!(model.values().all(|due| *due + TICK > now || *due >= now));
            }
        }
    }
}
