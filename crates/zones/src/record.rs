//! Resource records as they come out of a transfer or a file.

use std::time::Duration;

use dnscrub_wire::{Name, qtype};

/// One record of class IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The name it stands at.
    pub owner: Name,
    /// Its type.
    pub rtype: u16,
    /// Its TTL in seconds.
    pub ttl: u32,
    /// Its data in wire format, without compressed names. Only that of SOA, NSEC, NSEC3 and RRSIG
    /// records is looked at.
    pub data: &'a [u8],
}

impl Record<'_> {
    /// The type that an RRSIG covers (RFC 4034 section 3.1.1).
    #[must_use]
    pub fn covers(&self) -> Option<u16> {
        let covered = self.data.first_chunk::<2>()?;
        (self.rtype == qtype::RRSIG).then(|| u16::from_be_bytes(*covered))
    }

    /// It belongs to the chain of hashed names, whose owners are no names of the zone (RFC 5155
    /// section 7.2.8).
    pub(crate) fn is_hashed_denial(&self) -> bool {
        self.rtype == qtype::NSEC3 || self.covers() == Some(qtype::NSEC3)
    }

    /// The record in wire format, with this TTL.
    pub(crate) fn to_wire(self, ttl: u32) -> Box<[u8]> {
        let len = u16::try_from(self.data.len()).unwrap_or(u16::MAX);
        [
            self.owner.as_wire(),
            &self.rtype.to_be_bytes(),
            &[0, 1],
            &ttl.to_be_bytes(),
            &len.to_be_bytes(),
            self.data,
        ]
        .concat()
        .into()
    }
}

/// The numbers of a SOA record (RFC 1035 section 3.3.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soa {
    /// The version of the zone.
    pub serial: u32,
    /// How often a secondary server asks for the serial.
    pub refresh: Duration,
    /// How often it asks after a failure.
    pub retry: Duration,
    /// How long what it has is good without a successful refresh.
    pub expire: Duration,
    /// TTL of negative answers in seconds, at most (RFC 2308 section 4).
    pub minimum: u32,
}

impl Soa {
    /// Reads the data of a SOA record, whose names are not compressed.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let primary = Name::from_wire(data).ok()?;
        let data = data.get(primary.len()..)?;
        let mailbox = Name::from_wire(data).ok()?;
        let numbers: &[u8; 20] = data.get(mailbox.len()..)?.try_into().ok()?;
        let (numbers, _) = numbers.as_chunks::<4>();
        let [serial, refresh, retry, expire, minimum] = <[[u8; 4]; 5]>::try_from(numbers)
            .ok()?
            .map(u32::from_be_bytes);
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Some(Self {
            serial,
            refresh: seconds(refresh),
            retry: seconds(retry),
            expire: seconds(expire),
            minimum,
        })
    }
}

/// A record as [`Record::to_wire`] wrote it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireRecord<'a> {
    /// All of it.
    pub(crate) wire: &'a [u8],
    pub(crate) rtype: u16,
    pub(crate) data: &'a [u8],
}

impl<'a> WireRecord<'a> {
    /// The one at the start of `wire`.
    pub(crate) fn read(wire: &'a [u8]) -> Option<Self> {
        let mut at = 0_usize;
        loop {
            let len = usize::from(*wire.get(at)?);
            at = at.saturating_add(len).saturating_add(1);
            if len == 0 {
                break;
            }
        }
        let [t0, t1, .., l0, l1] = *wire.get(at..)?.first_chunk::<10>()?;
        let data_at = at.saturating_add(10);
        let end = data_at.saturating_add(usize::from(u16::from_be_bytes([l0, l1])));
        Some(Self {
            wire: wire.get(..end)?,
            rtype: u16::from_be_bytes([t0, t1]),
            data: wire.get(data_at..end)?,
        })
    }
}
