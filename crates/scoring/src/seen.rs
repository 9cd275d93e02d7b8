//! What scoring knows of the query it judged last, for those who count.

pub use crate::memory::{Acquaintance, NameStanding};
use crate::memory::{Hops, Sighting};

/// What was known of a query's source and name: the same that signals saw, not a copy of it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub(crate) source_hash: u64,
    pub(crate) sighting: Sighting,
}

impl Seen {
    /// A keyed hash of who asked, the same in every worker.
    #[inline]
    #[must_use]
    pub const fn source_hash(&self) -> u64 {
        self.source_hash
    }

    /// How well the source is known.
    #[inline]
    #[must_use]
    pub const fn acquaintance(&self) -> Acquaintance {
        self.sighting.acquaintance
    }

    /// Its address counts as proven.
    #[inline]
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        self.sighting.verified
    }

    /// Its packet came another way than its packets come.
    #[inline]
    #[must_use]
    pub const fn has_odd_hops(&self) -> bool {
        matches!(self.sighting.hops, Hops::Odd)
    }

    /// What is known of the name.
    #[inline]
    #[must_use]
    pub const fn name(&self) -> NameStanding {
        self.sighting.name
    }

    /// Whether an answer for the name was seen before.
    #[inline]
    #[must_use]
    pub const fn is_name_seen(&self) -> bool {
        self.sighting.name_seen
    }

    /// A keyed hash of the name, the same in every worker.
    #[inline]
    #[must_use]
    pub const fn name_hash(&self) -> u64 {
        self.sighting.name_hash
    }

    /// Where the name belongs.
    #[inline]
    #[must_use]
    pub const fn home(&self) -> Home {
        self.sighting.home
    }
}

/// Where a name belongs: to a zone of the configuration, or to what its last two labels say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// The zone's place in the configuration.
    pub zone: Option<u16>,
    /// A keyed hash of the zone's name or of the last two labels, the same in every worker.
    pub hash: u64,
    /// Octets of the name before that.
    pub cut: u8,
}
