//! What the packet path knows of a query once its fate is decided.

use std::net::IpAddr;

/// How well a source is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Acquaintance {
    /// It asked before whatever is going on now began, or proved its address.
    Known,
    /// It asked first a few seconds ago.
    Recent,
    /// It never asked.
    #[default]
    New,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// It exists.
    Exists,
    /// It exists by a wildcard only.
    Covered,
    /// Its zone does not have it.
    Missing,
    /// No zone is loaded; it failed in calm times.
    FailedBefore,
    /// No zone is loaded; nothing is known of it.
    #[default]
    Unknown,
}

/// What was decided on a query. What becomes of one that passed is told later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// It may go to an upstream.
    #[default]
    Passed,
    /// Told that the name does not exist.
    Denied,
    /// Told to come back over TCP or with a cookie.
    Challenged,
    /// Refused, or answered with another error.
    Refused,
    /// Not answered.
    Dropped,
}

/// Where a name belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The zone's place in the configuration.
    pub zone: Option<u16>,
    /// A keyed hash of the zone's name or, outside all zones, of the name's last two labels. The same in
    /// every worker.
    pub hash: u64,
    /// Octets of the name's wire format before that suffix.
    pub cut: u8,
}

/// A query.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Who asked, as the packet has it.
    pub source: IpAddr,
    /// A keyed hash of its canonical form, the same in every worker.
    pub source_hash: u64,
    /// How well it is known.
    pub acquaintance: Acquaintance,
    /// Its address counts as proven.
    pub verified: bool,
    /// Its packet came another way than its packets come.
    pub odd_hops: bool,
    /// The packet's IP TTL or hop limit, where there is one.
    pub hop_ttl: Option<u8>,
    /// What is known of the name,
    pub standing: Standing,
    /// whether an answer for it was seen before,
    pub name_seen: bool,
    /// a keyed hash of it, the same in every worker,
    pub name_hash: u64,
    /// and where it belongs.
    pub place: Place,
    /// The type asked for.
    pub qtype: u16,
    /// Octets of the query.
    pub len: u16,
    /// Whether it came over TCP.
    pub tcp: bool,
    /// What was decided.
    pub fate: Fate,
}

/// Types whose answers are large and which resolvers seldom ask for: RRSIG, NSEC, DNSKEY, NSEC3, ANY and
/// the like.
#[inline]
#[must_use]
pub const fn is_bulky(qtype: u16) -> bool {
    matches!(qtype, 24 | 25 | 30 | 46..=51 | 55 | 59 | 60 | 253..=255)
}

impl Asked {
    /// A name that nobody has asked for yet and that does not exist by itself, asked for over the usual path.
    #[inline]
    #[must_use]
    pub const fn is_doubtful(&self) -> bool {
        !self.name_seen
            && !self.odd_hops
            && matches!(
                self.standing,
                Standing::Missing | Standing::Unknown | Standing::Covered
            )
    }

    /// A large answer is asked for, by somebody whose address is not proven.
    #[inline]
    #[must_use]
    pub const fn is_bulky(&self) -> bool {
        !self.verified && !self.tcp && is_bulky(self.qtype)
    }

    /// In the name of somebody known, over another path than theirs. What wants a large answer may come from
    /// anywhere: it counts for that.
    #[inline]
    #[must_use]
    pub const fn is_impersonating(&self) -> bool {
        self.odd_hops && matches!(self.acquaintance, Acquaintance::Known) && !self.is_bulky()
    }

    /// Nobody known, and no proof of the address.
    #[inline]
    #[must_use]
    pub const fn is_stranger(&self) -> bool {
        !self.verified && !matches!(self.acquaintance, Acquaintance::Known)
    }

    /// Somebody known, over the usual path, who asks for a name that exists: as good as certainly meant well.
    #[inline]
    #[must_use]
    pub const fn is_legitimate(&self) -> bool {
        matches!(self.acquaintance, Acquaintance::Known)
            && !self.odd_hops
            && matches!(self.standing, Standing::Exists)
    }
}

/// An upstream's answer to a query that passed.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Where the name belongs.
    pub place: Place,
    /// The response code.
    pub rcode: u8,
    /// From forwarding to the answer, in microseconds; nothing where there is no telling.
    pub latency: Option<u32>,
    /// Octets of the query and of the answer that went to the client; nothing where there is no telling.
    pub octets: Option<(u16, u16)>,
}
