//! Changes to a zone, as an incremental transfer tells them (RFC 1995).

use std::fmt;

use dnscrub_wire::Name;

use crate::denial::Denial;
use crate::record::Record;

/// Octets before an owner: kind, type, TTL, octets of data.
const HEAD: usize = 9;

/// Changes in their order, in little memory: an owner, a type, and data only where it is needed.
#[derive(Debug)]
pub struct Changes {
    octets: Vec<u8>,
    limit: usize,
    count: usize,
}

/// The changes need more memory than they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge(
    /// The limit in octets.
    pub usize,
);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the changes take more than {} octets", self.0)
    }
}

impl std::error::Error for TooLarge {}

/// Which way a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

impl Changes {
    /// None so far; at most `limit` octets of memory.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            octets: Vec::new(),
            limit,
            count: 0,
        }
    }

    /// Records added and removed.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// A record that the zone has from now on.
    ///
    /// # Errors
    /// No room.
    pub fn add(&mut self, record: &Record<'_>) -> Result<(), TooLarge> {
        self.push(1, record)
    }

    /// A record that the zone no longer has.
    ///
    /// # Errors
    /// No room.
    pub fn remove(&mut self, record: &Record<'_>) -> Result<(), TooLarge> {
        self.push(0, record)
    }

    fn push(&mut self, way: u8, record: &Record<'_>) -> Result<(), TooLarge> {
        let data = if Denial::wants(record) || record.covers().is_some() {
            record.data
        } else {
            &[]
        };
        let needed = HEAD
            .saturating_add(record.owner.len())
            .saturating_add(data.len());
        // a vector may take twice what is in it
        if self.octets.len().saturating_add(needed) > self.limit / 2 {
            return Err(TooLarge(self.limit));
        }
        let len = u16::try_from(data.len()).map_err(|_| TooLarge(self.limit))?;
        self.octets.push(way);
        self.octets.extend_from_slice(&record.rtype.to_be_bytes());
        self.octets.extend_from_slice(&record.ttl.to_be_bytes());
        self.octets.extend_from_slice(&len.to_be_bytes());
        self.octets.extend_from_slice(record.owner.as_wire());
        self.octets.extend_from_slice(data);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Way, Record<'_>)> {
        let mut rest = self.octets.as_slice();
        std::iter::from_fn(move || {
            let (head, after) = rest.split_first_chunk::<HEAD>()?;
            let [way, t0, t1, l0, l1, l2, l3, d0, d1] = *head;
            let owner = Name::from_wire(after).ok()?;
            let (data, after) = after
                .get(owner.len()..)?
                .split_at_checked(usize::from(u16::from_be_bytes([d0, d1])))?;
            rest = after;
            let record = Record {
                owner,
                rtype: u16::from_be_bytes([t0, t1]),
                ttl: u32::from_be_bytes([l0, l1, l2, l3]),
                data,
            };
            Some((if way == 1 { Way::In } else { Way::Out }, record))
        })
    }
}
