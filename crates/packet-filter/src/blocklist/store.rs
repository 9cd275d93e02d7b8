//! The control side of the blocklist.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::Serialize;

use super::entry::{Entry, EntryFilter, Origin};
use super::hits::HitCounters;
use super::list_file::{ListError, Listed, ParsedList, Reasons, clean_reason};
use super::table::{BlockTable, Families};
use crate::prefix::canonical;
use crate::prefix_table::{Builder, Key, Node, PrefixMap, Prefixes, V6};

/// How much the blocklist may hold, and how wide an entry may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all lists together. About 40 octets each in IPv4 and 56 in IPv6, 12 and 24 more
    /// for one inside another, and the text of their reasons.
    pub static_entries: usize,
    /// Dynamic entries. About 300 octets each.
    pub dynamic_entries: usize,
    /// Lists, rules and incidents must not block IPv4 prefixes shorter than this.
    pub shortest_v4: u8,
    /// The same for IPv6.
    pub shortest_v6: u8,
}

impl Default for Limits {
    /// Two million static entries, 100,000 dynamic ones, /8 and /16.
    fn default() -> Self {
        Self {
            static_entries: 2_000_000,
            dynamic_entries: 100_000,
            shortest_v4: 8,
            shortest_v6: 16,
        }
    }
}

/// Owns all entries of the blocklist; publishes [`BlockTable`]s.
///
/// # Bounds
/// [`Limits`] bounds both kinds of entries. A list that would exceed the limit is refused whole.
/// With the dynamic part full, an addition by a rule or incident is refused and counted; one by an
/// operator evicts the entry that expires first, automatic entries before operators' ones. Entries
/// without an expiry are never evicted.
#[derive(Debug, Default)]
pub struct BlocklistStore {
    limits: Limits,
    never_block: Arc<PrefixMap>,
    /// By number; a removed list's place is used again.
    lists: Vec<Option<List>>,
    fixed: Arc<Families>,
    /// Of the static entries, by the slots of their hit counters.
    details: Vec<Detail>,
    dynamic: BTreeMap<IpNet, Dynamic>,
    /// The dynamic entries that expire.
    expiries: BTreeSet<(SystemTime, IpNet)>,
    hits: HitCounters,
    published: Arc<BlockTable>,
    changed: bool,
    dynamic_changed: bool,
    revision: u64,
    refused_full: u64,
    evicted: u64,
    expired: u64,
}

#[derive(Debug)]
struct List {
    name: String,
    reasons: Reasons,
    loaded: SystemTime,
    entries: usize,
    duplicates: usize,
}

/// What only the control side needs to know of a static entry.
#[derive(Clone, Copy, Debug, Default)]
struct Detail {
    /// In the list's [`Reasons`].
    reason: u32,
    /// Seconds since 1970.
    created: u32,
    /// Which list.
    list: u16,
}

#[derive(Debug)]
struct Dynamic {
    reason: Box<str>,
    origin: Origin,
    created: SystemTime,
    expires: Option<SystemTime>,
    slot: u32,
}

/// What loading a list changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListReport {
    /// Entries of the list.
    pub entries: usize,
    /// Entries it did not have before.
    pub added: usize,
    /// Entries it no longer has.
    pub removed: usize,
    /// Lines that repeat a prefix of an earlier line; they are ignored.
    pub duplicates: usize,
}

/// What an addition did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddOutcome {
    /// There was no dynamic entry for this prefix.
    Added,
    /// There was one, and it was changed.
    Renewed,
    /// There was one that an operator made or that ends later, and it stays as it is.
    Kept,
}

/// A successful addition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// What it did.
    pub outcome: AddOutcome,
    /// The entry that had to make room.
    pub evicted: Option<Entry>,
}

/// Why an entry was not added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddError {
    /// There are as many dynamic entries as there may be, and none can make room.
    Full {
        /// How many there may be.
        limit: usize,
    },
    /// All of the prefix lies inside one that is never blocked.
    NeverBlocked {
        /// The prefix that is never blocked.
        by: IpNet,
    },
    /// A rule or incident wanted to block more at once than it may.
    TooWide {
        /// The shortest prefix length allowed.
        shortest: u8,
    },
    /// Entries of lists are not added one by one.
    StaticOrigin,
}

impl fmt::Display for AddError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { limit } => write!(
                formatter,
                "the blocklist is full: it holds {limit} dynamic entries (blocklist.max-dynamic), and none of them expires"
            ),
            Self::NeverBlocked { by } => {
                write!(formatter, "{by} is never blocked (blocklist.never-block)")
            }
            Self::TooWide { shortest } => write!(
                formatter,
                "rules and incidents block prefixes of at least {shortest} bits (blocklist.shortest-prefix)"
            ),
            Self::StaticOrigin => formatter.write_str("entries of lists are not added one by one"),
        }
    }
}

impl std::error::Error for AddError {}

/// What came back from a saved state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// Entries that are there again.
    pub restored: usize,
    /// Entries that expired meanwhile.
    pub expired: usize,
    /// Entries that are no longer allowed, or there was no room for, or that are there already.
    pub refused: usize,
}

/// Counts of the blocklist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BlocklistStats {
    /// Entries of all lists; a prefix in two lists counts twice.
    pub static_entries: usize,
    /// How many there may be.
    pub static_limit: usize,
    /// Dynamic entries.
    pub dynamic_entries: usize,
    /// How many there may be.
    pub dynamic_limit: usize,
    /// Additions refused because there was no room, since start.
    pub refused_full: u64,
    /// Entries that made room for an operator's, since start.
    pub evicted: u64,
    /// Entries that expired, since start.
    pub expired: u64,
    /// The lists, by name.
    pub lists: Vec<ListStats>,
}

/// Counts of one list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListStats {
    /// Its name.
    pub name: String,
    /// Its entries.
    pub entries: usize,
    /// Lines that repeat a prefix of an earlier line.
    pub duplicates: usize,
    /// Seconds since 1970 when it was loaded last.
    pub loaded: u64,
}

/// The most entries inside a prefix that [`BlocklistStore::show`] returns.
const SHOWN_INSIDE: usize = 1000;

impl BlocklistStore {
    /// An empty blocklist.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Changes the limits. Entries that are there stay, even if they are too many or too wide now.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Replaces the prefixes that are never blocked, whatever entries say. Takes effect with the
    /// next [`publish`](Self::publish).
    pub fn set_never_block(&mut self, prefixes: impl IntoIterator<Item = IpNet>) {
        self.never_block = Arc::new(PrefixMap::new(
            prefixes.into_iter().map(|prefix| (prefix, 0)),
        ));
        self.changed = true;
    }

    /// The prefix that keeps all of `prefix` from ever being blocked.
    #[must_use]
    pub fn never_blocked(&self, prefix: IpNet) -> Option<IpNet> {
        self.never_block.covering(prefix)
    }

    /// Reads a list file and replaces the entries of the list of this name with it. Entries that
    /// stay keep their hits and the time they were added. See [`list_lines`](crate::list_lines) for
    /// the format.
    ///
    /// # Errors
    /// The first line that is not understood, or that there would be too many entries. The list
    /// then stays as it was.
    pub fn load_list(
        &mut self,
        name: &str,
        text: &[u8],
        now: SystemTime,
    ) -> Result<ListReport, ListError> {
        let parsed = ParsedList::read(text, (self.limits.shortest_v4, self.limits.shortest_v6))?;
        let number = self.list_number(name);
        let before = number.map_or(0, |number| self.list_entries(number));
        let entries = self
            .fixed
            .len()
            .saturating_sub(before)
            .saturating_add(parsed.len());
        let full = ListError::Full {
            entries,
            limit: self.limits.static_entries,
        };
        if entries > self.limits.static_entries {
            return Err(full);
        }
        let number = match number {
            Some(number) => number,
            None => self.free_list_number().ok_or(full)?,
        };
        let kept = self.replace(number, &parsed, now);
        if let Some(place) = self.lists.get_mut(usize::from(number)) {
            *place = Some(List {
                name: name.to_owned(),
                entries: parsed.len(),
                duplicates: parsed.duplicates,
                loaded: now,
                reasons: parsed.reasons,
            });
        }
        let entries = parsed.v4.len().saturating_add(parsed.v6.len());
        Ok(ListReport {
            entries,
            added: entries.saturating_sub(kept),
            removed: before.saturating_sub(kept),
            duplicates: parsed.duplicates,
        })
    }

    /// Removes a list and its entries; returns how many they were, or nothing if there is no such
    /// list.
    pub fn remove_list(&mut self, name: &str) -> Option<usize> {
        let number = self.list_number(name)?;
        let entries = self.list_entries(number);
        self.replace(number, &ParsedList::default(), SystemTime::UNIX_EPOCH);
        *self.lists.get_mut(usize::from(number))? = None;
        Some(entries)
    }

    /// Adds a dynamic entry, or renews the one there is for this prefix: an operator's addition
    /// replaces its reason, origin and expiry. One by a rule or incident leaves an operator's entry
    /// alone, and never makes an entry end sooner. Hits and the time of creation stay.
    ///
    /// The prefix is cut to its length, IPv4-mapped IPv6 becomes IPv4, and the reason loses control
    /// characters and what is behind 255 octets.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add(
        &mut self,
        prefix: IpNet,
        reason: &str,
        origin: Origin,
        now: SystemTime,
        lifetime: Option<Duration>,
    ) -> Result<Added, AddError> {
        let prefix = canonical(prefix);
        self.check(prefix, &origin)?;
        // A time that cannot be expressed never comes.
        let expires = lifetime.and_then(|lifetime| now.checked_add(lifetime));
        let reason = clean_reason(reason);
        if self
            .dynamic
            .get(&prefix)
            .is_some_and(|entry| entry.expires.is_some_and(|expires| expires <= now))
        {
            self.expire(now);
        }
        if let Some(entry) = self.dynamic.get_mut(&prefix) {
            if origin.is_automatic() {
                let ends_later = match (entry.expires, expires) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(old), Some(new)) => old >= new,
                };
                if !entry.origin.is_automatic() || ends_later {
                    return Ok(Added {
                        outcome: AddOutcome::Kept,
                        evicted: None,
                    });
                }
            }
            if let Some(old) = entry.expires {
                self.expiries.remove(&(old, prefix));
            }
            entry.reason = reason.into();
            entry.origin = origin;
            entry.expires = expires;
            self.expiries
                .extend(expires.map(|expires| (expires, prefix)));
            self.revision = self.revision.wrapping_add(1);
            return Ok(Added {
                outcome: AddOutcome::Renewed,
                evicted: None,
            });
        }
        let evicted = self.make_room(&origin, now)?;
        let slot = self.hits.take();
        self.insert(
            prefix,
            Dynamic {
                reason: reason.into(),
                origin,
                created: now,
                expires,
                slot,
            },
        );
        Ok(Added {
            outcome: AddOutcome::Added,
            evicted,
        })
    }

    /// Removes the dynamic entry of exactly this prefix. Entries of lists end with their list.
    pub fn remove(&mut self, prefix: IpNet) -> Option<Entry> {
        self.take(canonical(prefix))
    }

    /// Removes the dynamic entries whose time has come; returns how many they were.
    pub fn expire(&mut self, now: SystemTime) -> usize {
        let mut expired = 0_usize;
        while let Some((expires, prefix)) = self.expiries.first().copied() {
            if expires > now {
                break;
            }
            self.take(prefix);
            expired = expired.saturating_add(1);
        }
        self.expired = self.expired.saturating_add(expired as u64);
        expired
    }

    /// When the next dynamic entry expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<SystemTime> {
        self.expiries.first().map(|(expires, _)| *expires)
    }

    /// Every entry that covers all of `prefix` (an address is a prefix of full length), and, of
    /// those inside it, the first 1,000 of each kind; most specific first, dynamic before static.
    #[must_use]
    pub fn show(&self, prefix: IpNet) -> Vec<Entry> {
        let prefix = canonical(prefix);
        let mut entries: Vec<Entry> = std::iter::successors(Some(prefix), IpNet::supernet)
            .filter_map(|prefix| {
                self.dynamic
                    .get(&prefix)
                    .map(|entry| self.dynamic_entry(prefix, entry))
            })
            .collect();
        let inside = self
            .dynamic
            .range(prefix..)
            .skip_while(|(inside, _)| **inside == prefix)
            .take_while(|(inside, _)| prefix.contains(*inside))
            .take(SHOWN_INSIDE);
        entries.extend(inside.map(|(prefix, entry)| self.dynamic_entry(*prefix, entry)));
        match prefix {
            IpNet::V4(net) => {
                let start = u32::from(net.addr());
                self.show_static(&self.fixed.v4, start, net.prefix_len(), &mut entries);
            }
            IpNet::V6(net) => {
                let start = V6::from(u128::from(net.addr()));
                self.show_static(&self.fixed.v6, start, net.prefix_len(), &mut entries);
            }
        }
        entries.sort_by_key(|entry| Reverse(entry.prefix.prefix_len()));
        entries
    }

    /// The entries a filter takes: dynamic ones by prefix, then static ones by prefix.
    pub fn list<'a>(&'a self, filter: &'a EntryFilter) -> impl Iterator<Item = Entry> + 'a {
        self.dynamic
            .iter()
            .filter(|(prefix, entry)| {
                filter.takes_prefix(**prefix)
                    && filter.takes_origin(entry.origin.kind(), entry.origin.name())
                    && filter.takes_reason(&entry.reason)
            })
            .map(|(prefix, entry)| self.dynamic_entry(*prefix, entry))
            .chain(self.list_static(&self.fixed.v4, filter))
            .chain(self.list_static(&self.fixed.v6, filter))
    }

    /// Counts of entries, lists and what was refused.
    #[must_use]
    pub fn stats(&self) -> BlocklistStats {
        let mut lists: Vec<_> = self
            .lists
            .iter()
            .flatten()
            .map(|list| ListStats {
                name: list.name.clone(),
                entries: list.entries,
                duplicates: list.duplicates,
                loaded: u64::from(unix_seconds(list.loaded)),
            })
            .collect();
        lists.sort_by(|one, other| one.name.cmp(&other.name));
        BlocklistStats {
            static_entries: self.fixed.len(),
            static_limit: self.limits.static_entries,
            dynamic_entries: self.dynamic.len(),
            dynamic_limit: self.limits.dynamic_entries,
            refused_full: self.refused_full,
            evicted: self.evicted,
            expired: self.expired,
            lists,
        }
    }

    /// A number that is another one whenever a dynamic entry changed in anything but its hits: when
    /// to save a [`snapshot`](Self::snapshot).
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether something changed since the last [`publish`](Self::publish).
    #[must_use]
    pub const fn has_changed(&self) -> bool {
        self.changed || self.dynamic_changed
    }

    /// The table of everything there is now; the last one if nothing changed. The static part is
    /// shared with the table before, so that only dynamic entries cost something here.
    pub fn publish(&mut self) -> Arc<BlockTable> {
        if self.has_changed() {
            let dynamic = if self.dynamic_changed {
                Arc::new(self.dynamic_table())
            } else {
                Arc::clone(&self.published.dynamic)
            };
            self.published = Arc::new(BlockTable {
                fixed: Arc::clone(&self.fixed),
                dynamic,
                never_block: Arc::clone(&self.never_block),
                hits: self.hits.chunks(),
            });
            self.hits.settle();
            self.changed = false;
            self.dynamic_changed = false;
        }
        Arc::clone(&self.published)
    }

    /// The dynamic entries, to be saved.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Entry> {
        self.dynamic
            .iter()
            .map(|(prefix, entry)| self.dynamic_entry(*prefix, entry))
            .collect()
    }

    /// Puts saved dynamic entries back, with their hits. Entries there are already win over saved
    /// ones. Where there is no room for all, operators' entries come first, then those that end
    /// last.
    pub fn restore(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        now: SystemTime,
    ) -> RestoreReport {
        let mut report = RestoreReport::default();
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        entries.sort_by_key(|entry| {
            (
                entry.origin.is_automatic(),
                entry.expires.is_some(),
                Reverse(entry.expires),
            )
        });
        for entry in entries {
            let prefix = canonical(entry.prefix);
            if entry.expires.is_some_and(|expires| expires <= now) {
                report.expired = report.expired.saturating_add(1);
            } else if self.dynamic.len() >= self.limits.dynamic_entries
                || self.dynamic.contains_key(&prefix)
                || self.check(prefix, &entry.origin).is_err()
            {
                report.refused = report.refused.saturating_add(1);
            } else {
                let slot = self.hits.take();
                self.hits.set(slot, entry.hits);
                let Entry {
                    origin,
                    created,
                    expires,
                    reason,
                    ..
                } = entry;
                let reason = clean_reason(&reason).into();
                self.insert(
                    prefix,
                    Dynamic {
                        reason,
                        origin,
                        created,
                        expires,
                        slot,
                    },
                );
                report.restored = report.restored.saturating_add(1);
            }
        }
        report
    }

    fn check(&self, prefix: IpNet, origin: &Origin) -> Result<(), AddError> {
        if matches!(origin, Origin::List(_)) {
            return Err(AddError::StaticOrigin);
        }
        if let Some(by) = self.never_block.covering(prefix) {
            return Err(AddError::NeverBlocked { by });
        }
        let shortest = if prefix.addr().is_ipv4() {
            self.limits.shortest_v4
        } else {
            self.limits.shortest_v6
        };
        if origin.is_automatic() && prefix.prefix_len() < shortest {
            return Err(AddError::TooWide { shortest });
        }
        Ok(())
    }

    /// Room for one more dynamic entry.
    fn make_room(&mut self, origin: &Origin, now: SystemTime) -> Result<Option<Entry>, AddError> {
        let limit = self.limits.dynamic_entries;
        if self.dynamic.len() >= limit {
            self.expire(now);
        }
        if self.dynamic.len() < limit {
            return Ok(None);
        }
        let evicted = if origin.is_automatic() {
            None
        } else {
            self.first_to_go().and_then(|prefix| self.take(prefix))
        };
        // After a lowered limit one eviction does not make room, but keeps the number from growing.
        let counter = if evicted.is_some() {
            &mut self.evicted
        } else {
            &mut self.refused_full
        };
        *counter = counter.saturating_add(1);
        match evicted {
            Some(evicted) => Ok(Some(evicted)),
            None => Err(AddError::Full { limit }),
        }
    }

    /// The entry that expires first: of the automatic ones, or else of all.
    fn first_to_go(&self) -> Option<IpNet> {
        let automatic = |prefix: &IpNet| {
            self.dynamic
                .get(prefix)
                .is_some_and(|entry| entry.origin.is_automatic())
        };
        let mut prefixes = self.expiries.iter().map(|(_, prefix)| *prefix);
        prefixes
            .find(automatic)
            .or_else(|| self.expiries.first().map(|(_, prefix)| *prefix))
    }

    fn insert(&mut self, prefix: IpNet, entry: Dynamic) {
        self.expiries
            .extend(entry.expires.map(|expires| (expires, prefix)));
        self.dynamic.insert(prefix, entry);
        self.dynamic_changed = true;
        self.revision = self.revision.wrapping_add(1);
    }

    fn take(&mut self, prefix: IpNet) -> Option<Entry> {
        let entry = self.dynamic.remove(&prefix)?;
        if let Some(expires) = entry.expires {
            self.expiries.remove(&(expires, prefix));
        }
        let shown = self.dynamic_entry(prefix, &entry);
        self.hits.release(entry.slot);
        self.dynamic_changed = true;
        self.revision = self.revision.wrapping_add(1);
        Some(shown)
    }

    fn dynamic_entry(&self, prefix: IpNet, entry: &Dynamic) -> Entry {
        Entry {
            prefix,
            reason: entry.reason.to_string(),
            origin: entry.origin.clone(),
            created: entry.created,
            expires: entry.expires,
            hits: self.hits.get(entry.slot),
        }
    }

    fn dynamic_table(&self) -> Families {
        let v6_entries = self
            .dynamic
            .keys()
            .rev()
            .take_while(|prefix| prefix.addr().is_ipv6())
            .count();
        let mut v4 = Builder::with_capacity(self.dynamic.len().saturating_sub(v6_entries));
        let mut v6 = Builder::with_capacity(v6_entries);
        // The map's order is the builders': by address, then length.
        for (prefix, entry) in &self.dynamic {
            match prefix {
                IpNet::V4(net) => v4.push(u32::from(net.addr()), net.prefix_len(), entry.slot),
                IpNet::V6(net) => v6.push(
                    V6::from(u128::from(net.addr())),
                    net.prefix_len(),
                    entry.slot,
                ),
            }
        }
        Families {
            v4: v4.build(),
            v6: v6.build(),
        }
    }

    fn list_number(&self, name: &str) -> Option<u16> {
        let at = self
            .lists
            .iter()
            .position(|list| list.as_ref().is_some_and(|list| list.name == name))?;
        u16::try_from(at).ok()
    }

    fn list_entries(&self, number: u16) -> usize {
        self.list_of(number).map_or(0, |list| list.entries)
    }

    fn list_of(&self, number: u16) -> Option<&List> {
        self.lists.get(usize::from(number))?.as_ref()
    }

    fn free_list_number(&mut self) -> Option<u16> {
        let at = self
            .lists
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.lists.len());
        let number = u16::try_from(at).ok()?;
        if at == self.lists.len() {
            self.lists.push(None);
        }
        Some(number)
    }

    /// Replaces a list's entries; returns how many stayed.
    fn replace(&mut self, list: u16, parsed: &ParsedList, now: SystemTime) -> usize {
        let now = unix_seconds(now);
        self.hits.reserve(parsed.len());
        self.details.reserve_exact(
            self.hits
                .most_after(parsed.len())
                .saturating_sub(self.details.len()),
        );
        let mut merge = Merge {
            list,
            now,
            details: &mut self.details,
            hits: &mut self.hits,
            kept: 0,
        };
        let v4 = merge.family(&self.fixed.v4, &parsed.v4);
        let v6 = merge.family(&self.fixed.v6, &parsed.v6);
        let kept = merge.kept;
        self.fixed = Arc::new(Families { v4, v6 });
        self.changed = true;
        kept
    }

    fn show_static<K: Key>(
        &self,
        prefixes: &Prefixes<K>,
        start: K,
        len: u8,
        entries: &mut Vec<Entry>,
    ) {
        let inside = prefixes.inside(start, len).take(SHOWN_INSIDE);
        let shown = prefixes.covering(start, len).chain(inside);
        entries.extend(shown.filter_map(|node| self.static_entry(node)));
    }

    fn list_static<'a, K: Key>(
        &'a self,
        prefixes: &'a Prefixes<K>,
        filter: &'a EntryFilter,
    ) -> impl Iterator<Item = Entry> + 'a {
        prefixes.iter().filter_map(move |node| {
            let detail = detail(&self.details, node.value);
            let list = self.list_of(detail.list)?;
            let takes = filter.takes_prefix(node.net())
                && filter.takes_origin("list", Some(&list.name))
                && filter.takes_reason(list.reasons.get(detail.reason));
            if takes { self.static_entry(node) } else { None }
        })
    }

    fn static_entry<K: Key>(&self, node: &Node<K>) -> Option<Entry> {
        let detail = detail(&self.details, node.value);
        let list = self.list_of(detail.list)?;
        let created = Duration::from_secs(u64::from(detail.created));
        Some(Entry {
            prefix: node.net(),
            reason: list.reasons.get(detail.reason).to_owned(),
            origin: Origin::List(list.name.clone()),
            created: SystemTime::UNIX_EPOCH
                .checked_add(created)
                .unwrap_or(SystemTime::UNIX_EPOCH),
            expires: None,
            hits: self.hits.get(node.value),
        })
    }
}

fn detail(details: &[Detail], slot: u32) -> Detail {
    details.get(slot as usize).copied().unwrap_or_default()
}

/// Puts a list's entries in place of those it had.
struct Merge<'a> {
    list: u16,
    now: u32,
    details: &'a mut Vec<Detail>,
    hits: &'a mut HitCounters,
    /// Entries that stayed.
    kept: usize,
}

impl Merge<'_> {
    /// One pass over the old entries and the list's; both are sorted by address, length and list.
    fn family<K: Key>(&mut self, old: &Prefixes<K>, listed: &[Listed<K>]) -> Prefixes<K> {
        let others = old
            .iter()
            .filter(|node| detail(self.details, node.value).list != self.list)
            .count();
        let mut builder = Builder::with_capacity(others.saturating_add(listed.len()));
        let mut rest = old.iter().peekable();
        for Listed { start, len, reason } in listed.iter().copied() {
            let mut same = None;
            while let Some(node) = rest.next_if(|node| {
                (node.start, node.len, detail(self.details, node.value).list)
                    <= (start, len, self.list)
            }) {
                if (node.start, node.len) == (start, len) && self.is_ours(node) {
                    same = Some(node.value);
                    self.kept = self.kept.saturating_add(1);
                } else {
                    self.pass(node, &mut builder);
                }
            }
            let slot = same.unwrap_or_else(|| self.new_slot());
            if let Some(detail) = self.details.get_mut(slot as usize) {
                detail.reason = reason;
            }
            builder.push(start, len, slot);
        }
        for node in rest {
            self.pass(node, &mut builder);
        }
        builder.build()
    }

    /// Keeps another list's entry, gives up this one's.
    fn pass<K: Key>(&mut self, node: &Node<K>, builder: &mut Builder<K>) {
        if self.is_ours(node) {
            self.hits.release(node.value);
        } else {
            builder.push(node.start, node.len, node.value);
        }
    }

    fn is_ours<K>(&self, node: &Node<K>) -> bool {
        detail(self.details, node.value).list == self.list
    }

    fn new_slot(&mut self) -> u32 {
        let slot = self.hits.take();
        let needed = (slot as usize).saturating_add(1);
        if self.details.len() < needed {
            self.details.resize(needed, Detail::default());
        }
        if let Some(detail) = self.details.get_mut(slot as usize) {
            *detail = Detail {
                reason: 0,
                created: self.now,
                list: self.list,
            };
        }
        slot
    }
}

/// Whole seconds since 1970, up to the year 2106.
fn unix_seconds(time: SystemTime) -> u32 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
