//! The published look-up table.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;

use super::hits::{Chunks, counter};
use crate::prefix_table::{Key, PrefixMap, Prefixes, V6};

/// Prefixes of both families; a prefix's value is the slot of its hit counter.
#[derive(Debug, Default)]
pub(super) struct Families {
    pub(super) v4: Prefixes<u32>,
    pub(super) v6: Prefixes<V6>,
}

impl Families {
    pub(super) fn len(&self) -> usize {
        self.v4.len().saturating_add(self.v6.len())
    }
}

/// The blocklist as workers see it: immutable, shared through an `Arc`. Only its hit counters
/// change, and those it shares with the tables before and after it. The default one is empty.
///
/// It knows nothing of time: an entry that has expired blocks until the store has been told the
/// time and the next table is published.
#[derive(Clone, Debug, Default)]
pub struct BlockTable {
    pub(super) fixed: Arc<Families>,
    pub(super) dynamic: Arc<Families>,
    pub(super) never_block: Arc<PrefixMap>,
    pub(super) hits: Chunks,
}

impl BlockTable {
    /// The entry that blocks `source`: the longest prefix that covers it, the dynamic one of two
    /// equal ones. Nothing for sources that are never blocked.
    #[must_use]
    #[inline]
    pub fn lookup(&self, source: IpAddr) -> Option<Hit<'_>> {
        let hit = match source.to_canonical() {
            IpAddr::V4(v4) => self.longest(&self.fixed.v4, &self.dynamic.v4, u32::from(v4)),
            IpAddr::V6(v6) => {
                self.longest(&self.fixed.v6, &self.dynamic.v6, V6::from(u128::from(v6)))
            }
        }?;
        // Asked last, so that the clean path does not pay for it.
        self.never_block.lookup(source).is_none().then_some(hit)
    }

    #[inline]
    fn longest<K: Key>(
        &self,
        fixed: &Prefixes<K>,
        dynamic: &Prefixes<K>,
        address: K,
    ) -> Option<Hit<'_>> {
        let (node, dynamic) = match (dynamic.lookup(address), fixed.lookup(address)) {
            (Some(dynamic), Some(fixed)) if fixed.len > dynamic.len => (fixed, false),
            (Some(dynamic), _) => (dynamic, true),
            (None, Some(fixed)) => (fixed, false),
            (None, None) => return None,
        };
        Some(Hit {
            source: address.net(K::WIDTH),
            len: node.len,
            dynamic,
            hits: counter(&self.hits, node.value)?,
        })
    }

    /// Entries in it; a prefix named by two lists, or by a list and a dynamic entry, counts twice.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fixed.len().saturating_add(self.dynamic.len())
    }

    /// Whether it blocks nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The entry that blocks a source.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    source: IpNet,
    len: u8,
    /// Whether it is a dynamic entry, not one of a list.
    pub dynamic: bool,
    hits: &'a AtomicU64,
}

impl Hit<'_> {
    /// The blocked prefix.
    #[must_use]
    pub fn prefix(&self) -> IpNet {
        IpNet::new(self.source.addr(), self.len).map_or(self.source, |prefix| prefix.trunc())
    }

    /// Packets dropped because of the entry so far.
    #[must_use]
    pub fn count_so_far(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Counts a packet dropped because of the entry.
    #[inline]
    pub fn count(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }
}
