//! Building what is known of a zone, beside the zone that is served.

use std::fmt;

use ahash::RandomState;
use dnscrub_wire::{Name, qtype};

use crate::denial::Denial;
use crate::record::{Record, Soa};
use crate::table::{NameHash, NameTable, Part};

/// How much may be known of one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Names, empty non-terminals included. A zone with more is not loaded.
    pub names: u32,
    /// Memory for the NSEC chain of a signed zone, in octets. A longer chain is not held: names of
    /// the zone are then denied only to those who do not ask for proof.
    pub proof_octets: usize,
    /// Memory for an incremental transfer while it comes in, in octets. A larger one is given up
    /// for a whole transfer.
    pub change_octets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            names: 20_000_000,
            proof_octets: 32 << 20,
            change_octets: 64 << 20,
        }
    }
}

/// Why a zone cannot be loaded from the records that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// There is no SOA record at the zone's name, or it cannot be read.
    NoSoa,
    /// More names than [`Limits::names`].
    TooManyNames(u32),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSoa => f.write_str("there is no SOA record at the zone's name"),
            Self::TooManyNames(limit) => write!(
                f,
                "the zone has more than {limit} names, which is what `max-names` allows"
            ),
        }
    }
}

impl std::error::Error for LoadError {}

/// What is known of a zone, complete.
#[derive(Debug)]
pub struct Contents {
    pub(crate) table: NameTable,
    pub(crate) denial: Denial,
    pub(crate) soa: Soa,
}

impl Contents {
    /// The numbers of the zone's SOA record.
    #[must_use]
    pub const fn soa(&self) -> Soa {
        self.soa
    }

    /// Names in the zone, empty non-terminals included.
    #[must_use]
    pub fn names(&self) -> u32 {
        self.table.names()
    }
}

/// Takes a zone's records in, in any order. Made by [`Zone::builder`](crate::Zone::builder).
#[derive(Debug)]
pub struct Builder {
    apex: Name,
    hasher: RandomState,
    limits: Limits,
    table: NameTable,
    denial: Denial,
}

impl Builder {
    pub(crate) fn new(apex: Name, hasher: RandomState, limits: Limits) -> Self {
        Self {
            apex,
            hasher,
            limits,
            table: NameTable::with_room(0),
            denial: Denial::new(apex, limits.proof_octets),
        }
    }

    /// Takes one record in. One that is not in the zone is left.
    ///
    /// # Errors
    /// The zone has too many names.
    pub fn add(&mut self, record: &Record<'_>) -> Result<(), LoadError> {
        let Self { apex, hasher, .. } = self;
        let table = &mut self.table;
        let in_zone = for_each_part(apex, hasher, record, |name, part| {
            if table.add(name, part).is_err() {
                *table = table.larger();
                // at the largest size a name is lost: `names` is far below
                let _ = table.add(name, part);
            }
        });
        if table.names() > self.limits.names {
            return Err(LoadError::TooManyNames(self.limits.names));
        }
        if in_zone && Denial::wants(record) {
            self.denial.add(record);
        }
        Ok(())
    }

    /// What was taken in, if it is a zone.
    ///
    /// # Errors
    /// There was no SOA record.
    pub fn finish(self) -> Result<Contents, LoadError> {
        let soa = self.denial.soa().ok_or(LoadError::NoSoa)?;
        Ok(Contents {
            table: self.table,
            denial: self.denial,
            soa,
        })
    }
}

/// Calls `act` for each name that a record counts at, and with what it counts as. False for a
/// record outside the zone.
pub(crate) fn for_each_part(
    apex: &Name,
    hasher: &RandomState,
    record: &Record<'_>,
    mut act: impl FnMut(NameHash, Part),
) -> bool {
    let below = record
        .owner
        .label_count()
        .checked_sub(apex.label_count())
        .filter(|_| record.owner.is_under(apex));
    let Some(below) = below else {
        return false;
    };
    // the apex exists anyway, and has one SOA record
    if record.rtype == qtype::SOA || record.is_hashed_denial() {
        return true;
    }
    let part = match record.rtype {
        qtype::NS if below > 0 => Part::Delegation,
        qtype::DNAME => Part::Redirection,
        _ => Part::Own,
    };
    let mut names = record.owner.suffixes().take(below.max(1));
    if let Some(owner) = names.next() {
        act(NameHash::of(hasher, owner), part);
    }
    for ancestor in names {
        act(NameHash::of(hasher, ancestor), Part::Below);
    }
    true
}
