//! What scoring knows of the query it judged last, for those who count.

use std::net::IpAddr;

pub use crate::memory::{Acquaintance, NameStanding};

/// What was known of a query's source and name.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Who asked, in canonical form,
    pub source: IpAddr,
    /// and a keyed hash of that, the same in every worker.
    pub source_hash: u64,
    /// How well the source is known.
    pub acquaintance: Acquaintance,
    /// Its address counts as proven.
    pub verified: bool,
    /// Its packet came another way than its packets come.
    pub odd_hops: bool,
    /// The packet's IP TTL or hop limit, where there is one.
    pub hop_ttl: Option<u8>,
    /// What is known of the name,
    pub name: NameStanding,
    /// whether an answer for it was seen before,
    pub name_seen: bool,
    /// and a keyed hash of it, the same in every worker.
    pub name_hash: u64,
    /// Where the name belongs.
    pub home: Home,
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
