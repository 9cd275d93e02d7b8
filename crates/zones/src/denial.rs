//! What denies a name: the SOA record, and for a signed zone the chain of NSEC records.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound::{Included, Unbounded};

use dnscrub_wire::{MAX_NAME_LEN, Name, qtype};

use crate::record::{Record, Soa, WireRecord};

/// Memory that a link of the chain costs beside its octets: two allocations and its part of a node.
const LINK_OVERHEAD: usize = 80;
/// Signatures of the SOA record that are kept; one for each key that signs.
const MOST_SIGNATURES: usize = 8;

/// What stands in the authority section of a negative answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Octets of the records.
    pub octets: usize,
    /// How many records they are.
    pub records: u8,
}

/// Why there is no negative answer for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The name is not known to be missing.
    NotMissing,
    /// The zone is signed, the client asks for proof, and none is held.
    NoProof,
    /// The records need more room than was given.
    NoRoom,
}

/// Whether names of a zone can be denied to those who ask for proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The zone is not signed: none is needed.
    Unsigned,
    /// The NSEC chain is held.
    Held,
    /// The zone is signed with NSEC3, or without a chain of its own.
    NoChain,
    /// The chain needs more memory than it may take.
    TooLarge,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsigned => "unsigned",
            Self::Held => "held",
            Self::NoChain => "no NSEC chain",
            Self::TooLarge => "too large",
        })
    }
}

/// The records. Edited on a copy that no reader sees.
#[derive(Clone, Debug)]
pub(crate) struct Denial {
    apex: Name,
    /// The SOA record with its negative TTL, and its numbers.
    soa: Option<(Box<[u8]>, Soa)>,
    /// Data of the signatures over it.
    signatures: Vec<Box<[u8]>>,
    /// NSEC records and the signatures over them, by canonical owner name.
    chain: BTreeMap<Box<[u8]>, Box<[u8]>>,
    chain_octets: usize,
    limit: usize,
    too_large: bool,
    /// Records of hashed denial.
    hashed: u32,
}

impl Denial {
    pub(crate) const fn new(apex: Name, limit: usize) -> Self {
        Self {
            apex,
            soa: None,
            signatures: Vec::new(),
            chain: BTreeMap::new(),
            chain_octets: 0,
            limit,
            too_large: false,
            hashed: 0,
        }
    }

    pub(crate) fn soa(&self) -> Option<Soa> {
        self.soa.as_ref().map(|(_, soa)| *soa)
    }

    pub(crate) fn proof(&self) -> Proof {
        if self.signatures.is_empty() {
            Proof::Unsigned
        } else if self.too_large {
            Proof::TooLarge
        } else if self.hashed > 0 || self.chain.is_empty() {
            Proof::NoChain
        } else {
            Proof::Held
        }
    }

    /// Memory taken, in octets.
    pub(crate) const fn octets(&self) -> usize {
        size_of::<Self>().saturating_add(self.chain_octets)
    }

    /// Whether a record of this type is of interest here.
    pub(crate) fn wants(record: &Record<'_>) -> bool {
        match record.rtype {
            qtype::SOA | qtype::NSEC | qtype::NSEC3 => true,
            _ => matches!(record.covers(), Some(qtype::SOA | qtype::NSEC)),
        }
    }

    /// Takes a record in. Those that are of no interest are left.
    pub(crate) fn add(&mut self, record: &Record<'_>) {
        match (record.rtype, record.covers()) {
            (qtype::SOA, _) if record.owner == self.apex => {
                if let Some(soa) = Soa::read(record.data) {
                    let ttl = record.ttl.min(soa.minimum);
                    self.soa = Some((record.to_wire(ttl), soa));
                }
            }
            (qtype::RRSIG, Some(qtype::SOA))
                if record.owner == self.apex && self.signatures.len() < MOST_SIGNATURES =>
            {
                self.signatures.push(record.data.into());
            }
            (qtype::NSEC, _) | (qtype::RRSIG, Some(qtype::NSEC)) => self.add_link(record),
            (qtype::NSEC3, _) => self.hashed = self.hashed.saturating_add(1),
            _ => {}
        }
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, record: &Record<'_>) {
        match (record.rtype, record.covers()) {
            (qtype::RRSIG, Some(qtype::SOA)) => {
                self.signatures.retain(|data| **data != *record.data);
            }
            (qtype::NSEC, _) | (qtype::RRSIG, Some(qtype::NSEC)) => self.remove_link(record),
            (qtype::NSEC3, _) => self.hashed = self.hashed.saturating_sub(1),
            _ => {}
        }
    }

    fn add_link(&mut self, record: &Record<'_>) {
        if self.too_large {
            return;
        }
        let key = Key::of(&record.owner);
        let wire = record.to_wire(record.ttl);
        let old = self.chain.remove(key.octets());
        if let Some(old) = &old {
            self.chain_octets = self.chain_octets.saturating_sub(link_octets(&key, old));
        }
        self.put_link(&key, [&*old.unwrap_or_default(), &*wire].concat().into());
        if self.chain_octets > self.limit {
            self.chain = BTreeMap::new();
            self.chain_octets = 0;
            self.too_large = true;
        }
    }

    fn remove_link(&mut self, record: &Record<'_>) {
        let key = Key::of(&record.owner);
        let Some(old) = self.chain.remove(key.octets()) else {
            return;
        };
        self.chain_octets = self.chain_octets.saturating_sub(link_octets(&key, &old));
        let kept: Vec<u8> = records(&old)
            .filter(|kept| (kept.rtype, kept.data) != (record.rtype, record.data))
            .flat_map(|kept| kept.wire)
            .copied()
            .collect();
        if !kept.is_empty() {
            self.put_link(&key, kept.into());
        }
    }

    fn put_link(&mut self, key: &Key, link: Box<[u8]>) {
        self.chain_octets = self.chain_octets.saturating_add(link_octets(key, &link));
        self.chain.insert(key.octets().into(), link);
    }

    /// Writes what denies `qname`, a name of the zone that is missing, into `room`.
    pub(crate) fn write(
        &self,
        qname: &Name,
        dnssec_ok: bool,
        room: &mut [u8],
    ) -> Result<Authority, NoAnswer> {
        let (soa, _) = self.soa.as_ref().ok_or(NoAnswer::NotMissing)?;
        let mut to = Writer {
            room,
            authority: Authority {
                octets: 0,
                records: 0,
            },
        };
        to.push(&[soa], 1)?;
        match self.proof() {
            Proof::Unsigned => return Ok(to.authority),
            _ if !dnssec_ok => return Ok(to.authority),
            Proof::Held => {}
            Proof::NoChain | Proof::TooLarge => return Err(NoAnswer::NoProof),
        }
        let ttl = soa
            .get(self.apex.len().saturating_add(4)..)
            .and_then(<[u8]>::first_chunk::<4>)
            .ok_or(NoAnswer::NoProof)?;
        for data in &self.signatures {
            let len = u16::try_from(data.len()).map_err(|_| NoAnswer::NoProof)?;
            let (rtype, len) = (qtype::RRSIG.to_be_bytes(), len.to_be_bytes());
            to.push(&[self.apex.as_wire(), &rtype, &[0, 1], ttl, &len, data], 1)?;
        }
        let covering = self.covering(&Key::of(qname)).ok_or(NoAnswer::NoProof)?;
        to.push(&[covering.link], covering.records)?;
        let encloser = covering.closest_encloser(qname);
        let mut wildcard = Key::of_wire(encloser);
        wildcard.push_label(b"*");
        let denying = self.covering(&wildcard).ok_or(NoAnswer::NoProof)?;
        if !std::ptr::eq(denying.link, covering.link) {
            to.push(&[denying.link], denying.records)?;
        }
        Ok(to.authority)
    }

    /// The link that says that no name stands at `key` (RFC 4034 section 4.1.1). Nothing if there
    /// is none, or if it lacks its signature.
    fn covering(&self, key: &Key) -> Option<Covering<'_>> {
        let up_to = (Unbounded, Included(key.octets()));
        let (owner_key, link) = self.chain.range::<[u8], _>(up_to).next_back()?;
        if **owner_key == *key.octets() {
            return None;
        }
        let mut found = None;
        let (mut count, mut signed) = (0_u8, false);
        for record in records(link) {
            count = count.saturating_add(1);
            signed |= record.rtype == qtype::RRSIG;
            if record.rtype == qtype::NSEC {
                let owner = Name::from_wire(record.wire).ok()?;
                found = Some((owner, Name::from_wire(record.data).ok()?));
            }
        }
        let (owner, next) = found.filter(|_| signed)?;
        let covers = next == self.apex || Key::of(&next).octets() > key.octets();
        covers.then_some(Covering {
            link,
            records: count,
            owner,
            next,
        })
    }
}

struct Covering<'a> {
    link: &'a [u8],
    records: u8,
    owner: Name,
    next: Name,
}

impl Covering<'_> {
    /// The longest ancestor of `qname` that exists: what it shares with the two names around it in
    /// canonical order.
    fn closest_encloser<'n>(&self, qname: &'n Name) -> &'n [u8] {
        let exists = |suffix: &[u8]| {
            [&self.owner, &self.next]
                .into_iter()
                .any(|name| name.suffixes().any(|other| other == suffix))
        };
        qname
            .suffixes()
            .find(|suffix| exists(suffix))
            .unwrap_or(&[0])
    }
}

fn link_octets(key: &Key, link: &[u8]) -> usize {
    key.octets()
        .len()
        .saturating_add(link.len())
        .saturating_add(LINK_OVERHEAD)
}

/// Records of a link.
fn records(mut link: &[u8]) -> impl Iterator<Item = WireRecord<'_>> {
    std::iter::from_fn(move || {
        let record = WireRecord::read(link)?;
        link = link.get(record.wire.len()..)?;
        Some(record)
    })
}

struct Writer<'a> {
    room: &'a mut [u8],
    authority: Authority,
}

impl Writer<'_> {
    fn push(&mut self, pieces: &[&[u8]], records: u8) -> Result<(), NoAnswer> {
        for piece in pieces {
            let at = self.authority.octets;
            let end = at.saturating_add(piece.len());
            self.room
                .get_mut(at..end)
                .ok_or(NoAnswer::NoRoom)?
                .copy_from_slice(piece);
            self.authority.octets = end;
        }
        self.authority.records = self.authority.records.saturating_add(records);
        Ok(())
    }
}

/// A name such that the order of octet strings is the canonical order of names (RFC 4034 section
/// 6.1): labels from right to left, each ended by a zero octet, with the octets 0 and 1 escaped.
struct Key {
    octets: [u8; Self::LONGEST],
    len: usize,
}

impl Key {
    const LONGEST: usize = 2 * MAX_NAME_LEN + 2;

    fn of(name: &Name) -> Self {
        Self::of_wire(name.as_wire())
    }

    fn of_wire(wire: &[u8]) -> Self {
        let mut starts = [0_u8; 128];
        let (mut count, mut at) = (0_usize, 0_usize);
        while let Some(&len) = wire.get(at)
            && len != 0
        {
            if let Some(start) = starts.get_mut(count) {
                *start = at as u8;
            }
            count = count.saturating_add(1);
            at = at.saturating_add(usize::from(len)).saturating_add(1);
        }
        let mut key = Self {
            octets: [0; Self::LONGEST],
            len: 0,
        };
        for &start in starts.get(..count).unwrap_or_default().iter().rev() {
            let label = wire.get(usize::from(start)..).unwrap_or_default();
            if let Some((&len, rest)) = label.split_first() {
                key.push_label(rest.get(..usize::from(len)).unwrap_or_default());
            }
        }
        key
    }

    fn push_label(&mut self, label: &[u8]) {
        for &octet in label {
            if octet <= 1 {
                self.push(1);
                self.push(octet.saturating_add(1));
            } else {
                self.push(octet);
            }
        }
        self.push(0);
    }

    fn push(&mut self, octet: u8) {
        if let Some(to) = self.octets.get_mut(self.len) {
            *to = octet;
            self.len = self.len.saturating_add(1);
        }
    }

    fn octets(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_canonical_order() {
        // the example of RFC 4034 section 6.1
        let names = [
            "example",
            "a.example",
            "yljkjljk.a.example",
            "Z.a.example",
            "zABC.a.EXAMPLE",
            "z.example",
            "\\001.z.example",
            "*.z.example",
            "\\200.z.example",
        ];
        let keys: Vec<_> = names
            .iter()
            .map(|name| Key::of(&Name::from_text(name).unwrap()).octets().to_vec())
            .collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        let key = |wire: &[u8]| Key::of(&Name::from_wire(wire).unwrap()).octets().to_vec();
        assert!(key(b"\x01\x00\0") < key(b"\x02\x00\x00\0"));
        assert!(key(b"\x02\x00\x00\0") < key(b"\x02\x00\x01\0"));
        assert!(key(b"\x02\x00\xff\0") < key(b"\x01\x01\0"));
        assert!(key(b"\x01\x01\0") < key(b"\x01\x02\0"));
    }
}
