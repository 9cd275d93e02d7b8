//! Queries that wait for room at their pool's upstreams: the least suspicious first.
//!
//! One list for each level of points, first in, first out, threaded through the slots of the table of
//! queries in flight, so that waiting needs no memory of its own and no step costs more than a few
//! words of a bitmap.

/// Levels of points; more points than the last level's share it.
pub(crate) const LEVELS: usize = 256;
const WORDS: usize = LEVELS / 64;
const NONE: u32 = u32::MAX;

/// The queue of one pool in one worker.
#[derive(Debug)]
pub(crate) struct Queue {
    lists: Box<[List; LEVELS]>,
    /// A bit for each level at which somebody waits.
    taken: [u64; WORDS],
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

const EMPTY: List = List {
    first: NONE,
    last: NONE,
};

/// Neighbours in the lists, by slot; shared by the queues of a worker, since a slot is in one at most.
#[derive(Debug)]
pub(crate) struct Links(Vec<Link>);

#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    previous: u32,
    /// Its level, or `LOOSE`.
    level: u16,
}

const LOOSE: u16 = u16::MAX;

impl Links {
    /// For slots `0..capacity`; memory is touched as slots come to wait.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Whether the slot is in a queue.
    pub(crate) fn waits(&self, slot: u32) -> bool {
        let link = self.0.get(slot as usize);
        link.is_some_and(|link| link.level != LOOSE)
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Link> {
        self.0.get_mut(slot as usize)
    }
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            lists: Box::new([EMPTY; LEVELS]),
            taken: [0; WORDS],
            len: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Puts a slot, which is in no queue, behind those of the same points.
    pub(crate) fn push(&mut self, links: &mut Links, slot: u32, points: u16) {
        while links.0.len() <= slot as usize {
            // within the capacity reserved at construction
            links.0.push(Link {
                next: NONE,
                previous: NONE,
                level: LOOSE,
            });
        }
        let level = level_of(points);
        let Some(list) = self.lists.get_mut(level) else {
            return;
        };
        let previous = std::mem::replace(&mut list.last, slot);
        match links.get_mut(previous) {
            Some(link) => link.next = slot,
            None => list.first = slot,
        }
        if let Some(link) = links.get_mut(slot) {
            *link = Link {
                next: NONE,
                previous,
                level: level as u16,
            };
        }
        self.mark(level, true);
        self.len = self.len.saturating_add(1);
    }

    /// Who is served next: the oldest of the fewest points.
    pub(crate) fn best(&self) -> Option<u32> {
        let mut words = self.taken.iter().enumerate();
        let (at, word) = words.find(|(_, word)| **word != 0)?;
        let level = at
            .saturating_mul(64)
            .saturating_add(word.trailing_zeros() as usize);
        Some(self.lists.get(level)?.first)
    }

    /// Who gives way first: the oldest of the most points, if these are more than `points`.
    pub(crate) fn worse_than(&self, points: u16) -> Option<u32> {
        let mut words = self.taken.iter().enumerate().rev();
        let (at, word) = words.find(|(_, word)| **word != 0)?;
        let level = at
            .saturating_mul(64)
            .saturating_add(63_usize.saturating_sub(word.leading_zeros() as usize));
        if level <= level_of(points) {
            return None;
        }
        Some(self.lists.get(level)?.first)
    }

    /// Takes a slot out; nothing happens if it does not wait.
    pub(crate) fn remove(&mut self, links: &mut Links, slot: u32) {
        let Some(link) = links.get_mut(slot).filter(|link| link.level != LOOSE) else {
            return;
        };
        let Link {
            next,
            previous,
            level,
        } = *link;
        link.level = LOOSE;
        let level = usize::from(level);
        let Some(list) = self.lists.get_mut(level) else {
            return;
        };
        match links.get_mut(previous) {
            Some(link) => link.next = next,
            None => list.first = next,
        }
        match links.get_mut(next) {
            Some(link) => link.previous = previous,
            None => list.last = previous,
        }
        if list.first == NONE {
            self.mark(level, false);
        }
        self.len = self.len.saturating_sub(1);
    }

    fn mark(&mut self, level: usize, taken: bool) {
        let bit = 1 << (level % 64);
        if let Some(word) = self.taken.get_mut(level / 64) {
            *word = if taken { *word | bit } else { *word & !bit };
        }
    }
}

fn level_of(points: u16) -> usize {
    usize::from(points).min(LEVELS - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In the order of points and age, whatever is taken out in between.
        #[test]
        fn it_does_what_a_sorted_list_would(steps in prop::collection::vec((0u8..6, 0u16..400, any::<prop::sample::Index>()), 1..400)) {
            let (mut queue, mut links) = (Queue::new(), Links::new(512));
            // points of those that wait, by age
            let mut model: Vec<(u16, u32)> = Vec::new();
            for (number, (kind, points, which)) in (0..).zip(steps) {
                match kind {
                    0 if !model.is_empty() => {
                        let (_, slot) = model.remove(which.index(model.len()));
                        queue.remove(&mut links, slot);
                        queue.remove(&mut links, slot);
                        prop_assert!(!links.waits(slot));
                    }
                    1 if !model.is_empty() => {
                        let slot = queue.best().unwrap();
                        let at = model.iter().position(|it| it.1 == slot).unwrap();
                        model.remove(at);
                        queue.remove(&mut links, slot);
                    }
                    _ => {
                        queue.push(&mut links, number, points);
                        prop_assert!(links.waits(number));
                        model.push((points.min(255), number));
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                let best = model.iter().min_by_key(|it| it.0);
                prop_assert_eq!(queue.best(), best.map(|it| it.1));
                // the first of those with the most points
                let worst = model.iter().rev().max_by_key(|it| it.0);
                let worse = worst.filter(|it| it.0 > points.min(255));
                prop_assert_eq!(queue.worse_than(points), worse.map(|it| it.1));
            }
        }
    }
}
