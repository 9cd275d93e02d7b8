//! One zone: what is known of its names, and how good that knowledge is.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::RandomState;
use arc_swap::ArcSwapOption;
use dnscrub_wire::{MAX_NAME_LEN, Name};

use crate::changes::{Changes, Way};
use crate::contents::{Builder, Contents, Limits, for_each_part};
use crate::denial::{Authority, Denial, NoAnswer, Proof};
use crate::record::Soa;
use crate::table::{NameHash, NameTable};

/// What a zone has at a name (RFC 1034 section 4.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// There are records at the name.
    Exists,
    /// There are records below the name only: NOERROR without data (RFC 4592 section 2.2.2).
    EmptyNonTerminal,
    /// The name does not exist, but a wildcard answers for it (RFC 4592 section 3.3).
    Wildcard,
    /// The name is at or below a zone cut. What stands there is another zone's matter.
    Delegated,
    /// The name is below a DNAME record, which answers for it (RFC 6672 section 2.3).
    Dname,
    /// The name does not exist: NXDOMAIN.
    Missing,
    /// Nothing is known: the zone is not loaded or has expired, or the name is not in it.
    Unknown,
}

/// How far what is known can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Certainty {
    /// The last refresh is not overdue.
    Fresh,
    /// The refresh is overdue: a name may have come into being since.
    Stale,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What the zone has at the name.
    pub presence: Presence,
    /// How far that can be trusted.
    pub certainty: Certainty,
}

impl Finding {
    const UNKNOWN: Self = Self {
        presence: Presence::Unknown,
        certainty: Certainty::Stale,
    };

    /// The name does not exist, and the knowledge is fresh.
    #[must_use]
    pub fn is_surely_missing(self) -> bool {
        self.presence == Presence::Missing && self.certainty == Certainty::Fresh
    }
}

/// In what state the knowledge of a zone is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is known.
    NotLoaded {
        /// Why, after a failure.
        why: Option<Arc<str>>,
    },
    /// Loaded and refreshed in time.
    Fresh {
        /// The SOA serial.
        serial: u32,
    },
    /// The refresh is overdue. The zone still answers.
    Stale {
        /// The SOA serial.
        serial: u32,
        /// Since when it is overdue.
        since: Instant,
        /// Why it could not be refreshed.
        why: Option<Arc<str>>,
    },
    /// Not refreshed for longer than the SOA record's expire: nothing is known.
    Expired {
        /// The SOA serial.
        serial: u32,
        /// Since when.
        since: Instant,
        /// Why it could not be refreshed.
        why: Option<Arc<str>>,
    },
}

impl Condition {
    /// The state in one word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotLoaded { .. } => "not loaded",
            Self::Fresh { .. } => "fresh",
            Self::Stale { .. } => "stale",
            Self::Expired { .. } => "expired",
        }
    }
}

/// How much is known of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Names, empty non-terminals included.
    pub names: u32,
    /// Memory in octets.
    pub octets: usize,
    /// Whether names can be denied with proof.
    pub proof: Proof,
}

/// A change took a record away that was never there, or the zone became too large. Nothing is known
/// of the zone until it is loaded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inconsistent;

#[derive(Debug)]
struct Knowledge {
    table: Arc<NameTable>,
    denial: Arc<Denial>,
}

/// One zone. Look-ups take no lock; what changes it takes one of its own, on the control side.
#[derive(Debug)]
pub struct Zone {
    name: Name,
    limits: Limits,
    hasher: RandomState,
    /// Times below are nanoseconds since then.
    epoch: Instant,
    knowledge: ArcSwapOption<Knowledge>,
    serial: AtomicU32,
    stale_at: AtomicU64,
    expires_at: AtomicU64,
    /// Why the last refresh failed; nothing after one that did not.
    failure: ArcSwapOption<Box<str>>,
    /// A NOTIFY message for it has passed.
    notified: AtomicBool,
    writer: Mutex<()>,
}

impl Zone {
    /// A zone of which nothing is known. `hasher` must have random seeds.
    #[must_use]
    pub fn new(name: Name, limits: Limits, hasher: RandomState, now: Instant) -> Self {
        Self {
            name,
            limits,
            hasher,
            epoch: now,
            knowledge: ArcSwapOption::empty(),
            serial: AtomicU32::new(0),
            stale_at: AtomicU64::new(0),
            expires_at: AtomicU64::new(0),
            failure: ArcSwapOption::empty(),
            notified: AtomicBool::new(false),
            writer: Mutex::new(()),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// How much may be known of it.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// A NOTIFY message (RFC 1996) for the zone has passed: what is known may be old.
    pub fn notify(&self) {
        self.notified.store(true, Relaxed);
    }

    /// Whether [`Zone::notify`] was called since the last time.
    pub fn take_notified(&self) -> bool {
        self.notified.load(Relaxed) && self.notified.swap(false, Relaxed)
    }

    /// What is known of a name.
    #[must_use]
    pub fn look_up(&self, qname: &Name, now: Instant) -> Finding {
        let at = self.nanos(now);
        if at >= self.expires_at.load(Relaxed) {
            return Finding::UNKNOWN;
        }
        let knowledge = self.knowledge.load();
        let Some(knowledge) = knowledge.as_deref() else {
            return Finding::UNKNOWN;
        };
        let presence = self.search(&knowledge.table, qname);
        let certainty = if at >= self.stale_at.load(Relaxed) {
            Certainty::Stale
        } else {
            Certainty::Fresh
        };
        Finding {
            presence,
            certainty,
        }
    }

    /// From the apex down to the name, as a name server goes.
    fn search(&self, table: &NameTable, qname: &Name) -> Presence {
        let wire = qname.as_wire();
        let Some(below) = qname.label_count().checked_sub(self.name.label_count()) else {
            return Presence::Unknown;
        };
        let mut starts = [0_u8; MAX_NAME_LEN / 2 + 1];
        let mut at = 0_usize;
        for start in starts.iter_mut().take(below) {
            *start = at as u8;
            let len = wire.get(at).copied().unwrap_or(0);
            at = at.saturating_add(usize::from(len)).saturating_add(1);
        }
        if wire.get(at..) != Some(self.name.as_wire()) {
            return Presence::Unknown;
        }
        if below == 0 {
            return Presence::Exists;
        }
        let mut encloser = self.name.as_wire();
        if self.entry(table, encloser).is_redirection() {
            return Presence::Dname;
        }
        let mut left = below;
        for &start in starts.get(..below).unwrap_or_default().iter().rev() {
            left = left.saturating_sub(1);
            let name = wire.get(usize::from(start)..).unwrap_or_default();
            let entry = self.entry(table, name);
            if !entry.exists() {
                return self.synthesis(table, encloser);
            }
            if entry.is_delegation() {
                return Presence::Delegated;
            }
            if left == 0 {
                return if entry.has_records() {
                    Presence::Exists
                } else {
                    Presence::EmptyNonTerminal
                };
            }
            if entry.is_redirection() {
                return Presence::Dname;
            }
            encloser = name;
        }
        Presence::Unknown
    }

    /// Below the closest encloser the name does not exist: a wildcard there answers, or nothing.
    fn synthesis(&self, table: &NameTable, encloser: &[u8]) -> Presence {
        let mut wildcard = [0_u8; MAX_NAME_LEN + 2];
        let len = encloser.len().saturating_add(2);
        if let Some((head, rest)) = wildcard.split_first_chunk_mut::<2>()
            && let Some(to) = rest.get_mut(..encloser.len())
        {
            *head = *b"\x01*";
            to.copy_from_slice(encloser);
        }
        let exists = self
            .entry(table, wildcard.get(..len).unwrap_or_default())
            .exists();
        if exists {
            Presence::Wildcard
        } else {
            Presence::Missing
        }
    }

    fn entry(&self, table: &NameTable, name: &[u8]) -> crate::table::Entry {
        table.get(NameHash::of(&self.hasher, name))
    }

    /// Writes the authority section of an NXDOMAIN answer for `qname` to the start of `room`: the
    /// SOA record with its negative TTL (RFC 2308 section 3), and with `dnssec_ok` in a signed zone
    /// the proof (RFC 4035 section 3.1.3.2). Owner names are not compressed. Also from a stale
    /// zone: ask [`Zone::look_up`] how far it can be trusted.
    ///
    /// # Errors
    /// Why there is no such answer.
    pub fn negative_answer(
        &self,
        qname: &Name,
        dnssec_ok: bool,
        now: Instant,
        room: &mut [u8],
    ) -> Result<Authority, NoAnswer> {
        if self.nanos(now) >= self.expires_at.load(Relaxed) {
            return Err(NoAnswer::NotMissing);
        }
        let knowledge = self.knowledge.load();
        let Some(knowledge) = knowledge.as_deref() else {
            return Err(NoAnswer::NotMissing);
        };
        if self.search(&knowledge.table, qname) != Presence::Missing {
            return Err(NoAnswer::NotMissing);
        }
        knowledge.denial.write(qname, dnssec_ok, room)
    }

    /// Whether the zone is signed, as far as is known.
    #[must_use]
    pub fn signed(&self) -> bool {
        self.knowledge
            .load()
            .as_ref()
            .is_some_and(|knowledge| knowledge.denial.proof() != Proof::Unsigned)
    }

    /// Whether a missing name can be denied to those who ask for proof, if `dnssec_ok`, or at all.
    #[must_use]
    pub fn can_deny(&self, dnssec_ok: bool) -> bool {
        let knowledge = self.knowledge.load();
        knowledge.as_ref().is_some_and(|knowledge| {
            !dnssec_ok || matches!(knowledge.denial.proof(), Proof::Unsigned | Proof::Held)
        })
    }

    /// The numbers of the zone's SOA record; nothing while it is not loaded.
    #[must_use]
    pub fn soa(&self) -> Option<Soa> {
        self.knowledge.load().as_ref()?.denial.soa()
    }

    /// How much is known; nothing while it is not loaded.
    #[must_use]
    pub fn size(&self) -> Option<Size> {
        let knowledge = self.knowledge.load();
        let knowledge = knowledge.as_ref()?;
        Some(Size {
            names: knowledge.table.names(),
            octets: knowledge
                .table
                .octets()
                .saturating_add(knowledge.denial.octets()),
            proof: knowledge.denial.proof(),
        })
    }

    /// In what state the knowledge is.
    #[must_use]
    pub fn condition(&self, now: Instant) -> Condition {
        let why = || {
            let failure = self.failure.load();
            failure.as_deref().map(|text| Arc::from(&**text))
        };
        if self.knowledge.load().is_none() {
            return Condition::NotLoaded { why: why() };
        }
        let serial = self.serial.load(Relaxed);
        let (at, stale_at) = (self.nanos(now), self.stale_at.load(Relaxed));
        let expires_at = self.expires_at.load(Relaxed);
        if at >= expires_at {
            Condition::Expired {
                serial,
                since: self.instant(expires_at),
                why: why(),
            }
        } else if at >= stale_at {
            Condition::Stale {
                serial,
                since: self.instant(stale_at),
                why: why(),
            }
        } else {
            Condition::Fresh { serial }
        }
    }

    /// For the records of the whole zone.
    #[must_use]
    pub fn builder(&self) -> Builder {
        Builder::new(self.name, self.hasher.clone(), self.limits)
    }

    /// Takes over what a builder of this zone made. It is stale after `stale_after`, and expires
    /// after what its SOA record says, if [`Zone::confirm`] does not come before.
    pub fn load(&self, contents: Contents, stale_after: Duration, now: Instant) {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Contents { table, denial, soa } = contents;
        self.knowledge.store(Some(Arc::new(Knowledge {
            table: Arc::new(table),
            denial: Arc::new(denial),
        })));
        self.serial.store(soa.serial, Relaxed);
        self.refreshed(soa, stale_after, now);
    }

    /// Carries changes out, while look-ups go on: what is added, then what is removed, so that no
    /// name that stays is ever missing.
    ///
    /// # Errors
    /// The changes do not fit what is known. Nothing is known of the zone from then on.
    pub fn apply(
        &self,
        changes: &Changes,
        stale_after: Duration,
        now: Instant,
    ) -> Result<(), Inconsistent> {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.edit(changes, stale_after, now);
        if result.is_err() {
            self.knowledge.store(None);
        }
        result
    }

    fn edit(
        &self,
        changes: &Changes,
        stale_after: Duration,
        now: Instant,
    ) -> Result<(), Inconsistent> {
        let before = self.knowledge.load_full().ok_or(Inconsistent)?;
        let mut table = Arc::clone(&before.table);
        let mut denial = Denial::clone(&before.denial);
        for (way, record) in changes.iter() {
            match way {
                Way::In => denial.add(&record),
                Way::Out => denial.remove(&record),
            }
        }
        for (_, record) in changes.iter().filter(|(way, _)| *way == Way::In) {
            for_each_part(&self.name, &self.hasher, &record, |name, part| {
                if table.add(name, part).is_err() {
                    table = Arc::new(table.larger());
                    // at the largest size a name is lost: `Limits::names` is far below
                    let _ = table.add(name, part);
                }
            });
            if table.names() > self.limits.names {
                return Err(Inconsistent);
            }
        }
        let soa = denial.soa().ok_or(Inconsistent)?;
        self.knowledge.store(Some(Arc::new(Knowledge {
            table: Arc::clone(&table),
            denial: Arc::new(denial),
        })));
        for (_, record) in changes.iter().filter(|(way, _)| *way == Way::Out) {
            let mut all_there = true;
            for_each_part(&self.name, &self.hasher, &record, |name, part| {
                all_there &= table.take(name, part).is_ok();
            });
            if !all_there {
                return Err(Inconsistent);
            }
        }
        self.serial.store(soa.serial, Relaxed);
        self.refreshed(soa, stale_after, now);
        Ok(())
    }

    /// The source says that what is known is its newest version.
    pub fn confirm(&self, stale_after: Duration, now: Instant) {
        if let Some(soa) = self.soa() {
            self.refreshed(soa, stale_after, now);
        }
    }

    /// A refresh failed. What is known stays until it expires.
    pub fn refresh_failed(&self, why: &str) {
        self.failure.store(Some(Arc::new(why.into())));
    }

    /// What is known is no longer trusted, such as when its file is wrong: it is stale from now on.
    pub fn doubt(&self, why: &str, now: Instant) {
        self.refresh_failed(why);
        let at = self.nanos(now);
        if at < self.stale_at.load(Relaxed) {
            self.stale_at.store(at, Relaxed);
        }
    }

    fn refreshed(&self, soa: Soa, stale_after: Duration, now: Instant) {
        let expires_at = now.checked_add(soa.expire).unwrap_or(now);
        let stale_at = now.checked_add(stale_after).unwrap_or(expires_at);
        self.stale_at.store(self.nanos(stale_at), Relaxed);
        self.expires_at.store(self.nanos(expires_at), Relaxed);
        self.failure.store(None);
    }

    fn nanos(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn instant(&self, nanos: u64) -> Instant {
        self.epoch
            .checked_add(Duration::from_nanos(nanos))
            .unwrap_or(self.epoch)
    }
}
