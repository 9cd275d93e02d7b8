//! A sample of a second's queries: all of them while there are few, one of many in a flood.
//!
//! Counts say how much; the sample says what. It is kept whole, with names and sources, and read only
//! once a second, off the packet path: the busiest sources and names, how often they come back, how
//! names look.

use std::net::IpAddr;

use dnscrub_wire::Name;

use crate::asked::{Acquaintance, Asked, Fate, Standing};

/// Queries kept of a worker's second, at most,
pub(crate) const KEPT: usize = 2048;
/// and of those that are doubtful, which are kept for themselves: so a crowd leaves as much to be seen of
/// what is thin beside it.
pub(crate) const DOUBTFUL_KEPT: usize = 1024;
/// Octets kept of a name. Of a longer one the last labels are missing.
pub(crate) const NAME: usize = 80;

/// A query of the sample.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Who asked.
    pub source: IpAddr,
    /// How well it is known.
    pub acquaintance: Acquaintance,
    /// Its address counts as proven.
    pub verified: bool,
    /// Its packet came another way than usual.
    pub odd_hops: bool,
    /// Its IP TTL or hop limit, where there is one.
    pub hop_ttl: Option<u8>,
    /// What is known of the name.
    pub standing: Standing,
    /// An answer for it was seen before.
    pub name_seen: bool,
    /// It came over TCP.
    pub tcp: bool,
    /// What was decided.
    pub fate: Fate,
    /// The type asked for.
    pub qtype: u16,
    /// A keyed hash of the name.
    pub name_hash: u64,
    /// Its zone, as a place in the window's zones.
    pub zone: u16,
    /// How many queries it stands for.
    pub weight: u32,
    cut: u8,
    len: u8,
    name: [u8; NAME],
}

impl Sample {
    #[inline]
    pub(crate) fn new(asked: &Asked, name: &Name, zone: u16) -> Self {
        let mut kept = [0; NAME];
        let wire = name.as_wire();
        for (to, from) in kept.iter_mut().zip(wire) {
            *to = *from;
        }
        Self {
            source: asked.source.to_canonical(),
            acquaintance: asked.acquaintance,
            verified: asked.verified,
            odd_hops: asked.odd_hops,
            hop_ttl: asked.hop_ttl,
            standing: asked.standing,
            name_seen: asked.name_seen,
            tcp: asked.tcp,
            fate: asked.fate,
            qtype: asked.qtype,
            name_hash: asked.name_hash,
            zone,
            weight: 1,
            cut: asked.place.cut,
            len: wire.len().min(NAME) as u8,
            name: kept,
        }
    }

    /// The name's octets, as far as they were kept.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        self.name.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The name, if all of it was kept.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        Name::from_wire(self.wire()).ok()
    }

    /// The first label; empty for a name that is its zone's own.
    #[must_use]
    pub fn first_label(&self) -> &[u8] {
        if self.cut == 0 {
            return &[];
        }
        let (len, rest) = self.wire().split_first().unwrap_or((&0, &[]));
        rest.get(..usize::from(*len)).unwrap_or(rest)
    }

    /// The labels before the zone, with their lengths.
    #[must_use]
    pub fn labels(&self) -> &[u8] {
        let end = usize::from(self.cut).min(self.wire().len());
        self.wire().get(..end).unwrap_or_default()
    }

    /// Over how many hops it came, if its sender began to count at 32, 64, 128 or 255 as systems do.
    pub(crate) const fn hops(&self) -> Option<u8> {
        let Some(ttl) = self.hop_ttl else {
            return None;
        };
        let begun: u8 = match ttl {
            0..=32 => 32,
            33..=64 => 64,
            65..=128 => 128,
            _ => 255,
        };
        Some(begun.wrapping_sub(ttl))
    }

    /// Nobody known, and no proof of the address.
    #[must_use]
    pub const fn is_stranger(&self) -> bool {
        !self.verified && !matches!(self.acquaintance, Acquaintance::Known)
    }

    /// As [`Asked::is_doubtful`].
    #[must_use]
    pub const fn is_doubtful(&self) -> bool {
        !self.name_seen
            && !self.odd_hops
            && matches!(
                self.standing,
                Standing::Missing | Standing::Unknown | Standing::Covered
            )
    }

    /// As [`Asked::is_impersonating`].
    #[must_use]
    pub const fn is_impersonating(&self) -> bool {
        self.odd_hops && matches!(self.acquaintance, Acquaintance::Known) && !self.is_bulky()
    }

    /// As [`Asked::is_bulky`].
    #[must_use]
    pub const fn is_bulky(&self) -> bool {
        !self.verified && !self.tcp && crate::asked::is_bulky(self.qtype)
    }
}

/// Takes the sample. When it is full every other query is given up, and only half as many are taken from
/// then on: so each kept query stands for as many, and the cost fades as the rate grows.
#[derive(Debug)]
pub(crate) struct Sampler {
    kept: Vec<Sample>,
    /// So many are kept at most.
    most: usize,
    /// One of so many is taken.
    every: u32,
    /// Queries until the next one is taken.
    wait: u32,
    state: u32,
}

impl Sampler {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            kept: Vec::with_capacity(most),
            most,
            every: 1,
            wait: 1,
            state: 0x9e37_79b9,
        }
    }

    pub(crate) const fn octets(&self) -> usize {
        self.most.saturating_mul(size_of::<Sample>())
    }

    /// Whether this query is taken.
    #[inline]
    pub(crate) const fn is_due(&mut self) -> bool {
        self.wait = self.wait.wrapping_sub(1);
        self.wait == 0
    }

    #[cold]
    pub(crate) fn take_one(&mut self, sample: Sample) {
        if self.kept.len() >= self.most {
            let mut keep = false;
            self.kept.retain(|_| {
                keep = !keep;
                keep
            });
            self.every = self.every.saturating_mul(2).min(1 << 20);
        }
        self.kept.push(sample);
        self.wait = self.next_wait();
    }

    /// One of `every`, at irregular distances, so that nothing can keep in step with it.
    fn next_wait(&mut self) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        let range = self.every.saturating_mul(2).saturating_sub(1).max(1);
        self.state.checked_rem(range).unwrap_or(0).saturating_add(1)
    }

    /// Hands the sample over and begins afresh.
    pub(crate) fn take(&mut self) -> Vec<Sample> {
        let mut samples = self.kept.clone();
        for sample in &mut samples {
            sample.weight = self.every;
        }
        self.kept.clear();
        self.every = 1;
        self.wait = 1;
        samples
    }
}
