//! What a worker counts on the packet path.
//!
//! [`Watch`] is given each query once its fate is decided, and each answer. It adds to plain counters of the
//! query's zone, to sketches of distinct sources and names, and keeps a sample. Nothing is
//! allocated, locked or computed there; [`Watch::take`] hands all of it over once a second.
//!
//! Zones of the configuration have a record each. Names outside of them are told apart by their last two
//! labels, of which [`SUFFIXES`] are counted each for itself. When there are more, one that nobody has asked
//! for in this second gives way; if all have been asked for, what is left is counted together as `.`. So a
//! flood of ever new suffixes costs others their own record at most, and never memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use dnscrub_wire::Name;

use crate::asked::{self, Answered, Asked, Place};
use crate::sample::{DOUBTFUL_KEPT, KEPT, Sample, Sampler};
use crate::sketch::Sketch;
use crate::tally::{Class, Tally};
use crate::window::{Counts, LATENCIES, QTYPES, Totals, Window, ZoneWindow, latency_step};

/// Suffixes outside the configured zones that are counted each for itself, per worker.
pub const SUFFIXES: usize = 1024;
/// Suffixes that share a set of the table.
const WAYS: usize = 4;
/// Octets kept of a suffix; a longer one is counted with the others.
const SUFFIX: usize = 63;
/// Sources of malformed packets kept.
const MALFORMED: usize = 64;
/// Set in the table of types for those with large answers.
const BULKY: u8 = 0x80;

/// A zone's record.
#[derive(Clone, Debug, Default)]
struct Record {
    tally: Tally,
    /// What is not in the tally: octets, answers, and what was given up.
    counts: Counts,
    sources: Sketch<64>,
    doubtful_names: Sketch<64>,
    /// It is among the touched.
    touched: bool,
}

/// A suffix in the table.
#[derive(Clone, Copy, Debug)]
struct Suffix {
    len: u8,
    name: [u8; SUFFIX],
}

/// What a worker counts. See the module.
#[derive(Debug)]
pub struct Watch {
    since: Instant,
    /// The sum of all zones' counts is made when it is handed over.
    totals: Totals,
    names: Vec<Arc<str>>,
    /// Of the configured zones, then of the suffixes, then of all that is left.
    records: Vec<Record>,
    /// Places of records with events in this window.
    touched: Vec<u16>,
    /// Hashes of the suffixes; 0 where there is none.
    hashes: Vec<u64>,
    suffixes: Vec<Suffix>,
    /// Of what is doubtful, and of all else.
    doubtful: Sampler,
    sampler: Sampler,
    malformed_sources: Vec<(IpAddr, u32)>,
    /// Place of each of the first 256 types among the counts, and whether its answers are large.
    types: [u8; 256],
}

impl Watch {
    /// Ready for queries to these zones, in the order of their places.
    #[must_use]
    pub fn new<'a>(zones: impl IntoIterator<Item = &'a Name>, now: Instant) -> Self {
        let mut types = [QTYPES.len() as u8; 256];
        for (place, qtype) in (0..).zip(QTYPES) {
            if let Some(of_type) = types.get_mut(usize::from(qtype)) {
                *of_type = place;
            }
        }
        for (qtype, of_type) in (0..).zip(&mut types) {
            if asked::is_bulky(qtype) {
                *of_type |= BULKY;
            }
        }
        let mut watch = Self {
            since: now,
            totals: Totals::default(),
            names: Vec::new(),
            records: Vec::new(),
            touched: Vec::new(),
            hashes: vec![0; SUFFIXES],
            suffixes: vec![
                Suffix {
                    len: 0,
                    name: [0; SUFFIX]
                };
                SUFFIXES
            ],
            doubtful: Sampler::new(DOUBTFUL_KEPT),
            sampler: Sampler::new(KEPT),
            malformed_sources: Vec::with_capacity(MALFORMED),
            types,
        };
        watch.adopt(zones);
        watch
    }

    /// Goes over to other zones. What was counted in the running second is given up, if they differ.
    pub fn adopt<'a>(&mut self, zones: impl IntoIterator<Item = &'a Name>) {
        let most = usize::from(u16::MAX).saturating_sub(SUFFIXES.saturating_add(1));
        let names: Vec<Arc<str>> = zones
            .into_iter()
            .take(most)
            .map(|name| Arc::from(name.to_string()))
            .collect();
        if names == self.names && !self.records.is_empty() {
            return;
        }
        let records = names.len().saturating_add(SUFFIXES).saturating_add(1);
        self.records = vec![Record::default(); records];
        self.touched = Vec::with_capacity(records);
        self.hashes.fill(0);
        self.doubtful = Sampler::new(DOUBTFUL_KEPT);
        self.sampler = Sampler::new(KEPT);
        self.names = names;
    }

    /// Octets of memory.
    #[must_use]
    pub fn octets(&self) -> usize {
        let records = self.records.len().saturating_mul(size_of::<Record>());
        let suffixes = SUFFIXES.saturating_mul(size_of::<Suffix>().saturating_add(8));
        [
            size_of::<Self>(),
            records,
            suffixes,
            self.touched.capacity().saturating_mul(2),
            self.names.len().saturating_mul(64),
            self.doubtful.octets(),
            self.sampler.octets(),
        ]
        .iter()
        .fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// A query for `name`, whose fate is decided.
    #[inline]
    pub fn query(&mut self, asked: &Asked, name: &Name) {
        let place = self.place_or_make(asked.place, name);
        let of_type = usize::from(asked.qtype);
        let of_type = self.types.get(of_type).copied();
        let of_type = of_type.unwrap_or(QTYPES.len() as u8);
        let bulky = of_type & BULKY != 0 && !asked.verified && !asked.tcp;
        let class = Class::of(asked, bulky);
        let totals = &mut self.totals;
        totals.sources.add(asked.source_hash);
        if class.stranger {
            totals.strangers.add(asked.source_hash);
        }
        if let Some(count) = totals.qtypes.get_mut(usize::from(of_type & !BULKY)) {
            *count = count.wrapping_add(1);
        }
        if let Some(record) = self.records.get_mut(usize::from(place)) {
            if !record.touched {
                record.touched = true;
                self.touched.push(place);
            }
            record.tally.count(class);
            let octets = &mut record.counts.octets_in;
            *octets = octets.wrapping_add(u64::from(asked.len));
            record.sources.add(asked.source_hash);
            if class.doubtful {
                record.doubtful_names.add(asked.name_hash);
            }
        }
        let sampler = if class.doubtful {
            &mut self.doubtful
        } else {
            &mut self.sampler
        };
        if sampler.is_due() {
            // made here, field by field: so what is counted need not be in memory as a whole for those not taken
            sampler.take_one(Sample::new(asked, name, place));
        }
    }

    /// A packet that is no well-formed query.
    #[inline]
    pub fn malformed(&mut self, source: IpAddr) {
        self.totals.malformed = self.totals.malformed.wrapping_add(1);
        if self.malformed_sources.len() < MALFORMED {
            self.malformed_sources.push((source, 1));
            return;
        }
        // the one that stands at this place is replaced or gets one more
        let place = (self.totals.malformed as usize)
            .wrapping_mul(0x9e37_79b1)
            .checked_rem(MALFORMED)
            .unwrap_or(0);
        if let Some(at) = self
            .malformed_sources
            .iter()
            .position(|(known, _)| *known == source)
        {
            if let Some((_, count)) = self.malformed_sources.get_mut(at) {
                *count = count.wrapping_add(1);
            }
        } else if let Some(entry) = self.malformed_sources.get_mut(place) {
            *entry = (source, entry.1.wrapping_add(1));
        }
    }

    /// A packet from a source that a list stops.
    #[inline]
    pub const fn blocked(&mut self) {
        self.totals.blocked = self.totals.blocked.wrapping_add(1);
    }

    /// An answer from an upstream.
    #[inline]
    pub fn answer(&mut self, answered: &Answered) {
        const NXDOMAIN: u8 = 3;
        const SERVFAIL: u8 = 2;
        if let Some(us) = answered.latency {
            let step = latency_step(us).min(LATENCIES.wrapping_sub(1));
            if let Some(count) = self.totals.latencies.get_mut(step) {
                *count = count.wrapping_add(1);
            }
        }
        let counts = |counts: &mut Counts| {
            let up = |count: &mut u32, by: bool| *count = count.wrapping_add(u32::from(by));
            up(&mut counts.answers, true);
            up(&mut counts.nxdomain, answered.rcode == NXDOMAIN);
            up(&mut counts.servfail, answered.rcode == SERVFAIL);
            if let Some((asked, answered)) = answered.octets {
                counts.octets_asked = counts.octets_asked.wrapping_add(u64::from(asked));
                counts.octets_out = counts.octets_out.wrapping_add(u64::from(answered));
            }
        };
        self.at(answered.place, counts);
    }

    /// A query that had passed was given up: no upstream answered in time, or if not `sent`, it found no
    /// room. `known`: it was [`Asked::is_legitimate`].
    #[inline]
    pub fn given_up(&mut self, place: Option<Place>, sent: bool, known: bool) {
        let counts = |counts: &mut Counts| {
            let up = |count: &mut u32, by: bool| *count = count.wrapping_add(u32::from(by));
            up(&mut counts.expired, sent);
            up(&mut counts.overflowed, !sent);
            up(&mut counts.known_given_up, known);
        };
        match place {
            Some(place) => self.at(place, counts),
            None => counts(&mut self.totals.counts),
        }
    }

    /// A TCP connection was opened or turned away.
    #[inline]
    pub const fn connection(&mut self, accepted: bool) {
        if accepted {
            self.totals.connections = self.totals.connections.wrapping_add(1);
        } else {
            self.totals.turned_away = self.totals.turned_away.wrapping_add(1);
        }
    }

    /// A zone transfer was asked for.
    #[inline]
    pub const fn transfer(&mut self) {
        self.totals.transfers = self.totals.transfers.wrapping_add(1);
    }

    /// Hands over what was counted since the last time, and begins afresh. Allocates: once a second.
    #[must_use]
    pub fn take(&mut self, now: Instant) -> Window {
        let seconds = now.saturating_duration_since(self.since).as_secs_f32();
        self.since = now;
        let mut moved = vec![u16::MAX; self.records.len()];
        let mut zones = Vec::with_capacity(self.touched.len());
        let touched = std::mem::take(&mut self.touched);
        for &place in &touched {
            let name = self.name_of(place);
            let Some(record) = self.records.get_mut(usize::from(place)) else {
                continue;
            };
            if let Some(moved) = moved.get_mut(usize::from(place)) {
                *moved = u16::try_from(zones.len()).unwrap_or(u16::MAX);
            }
            let mut record = std::mem::take(record);
            record.tally.add_to(&mut record.counts);
            self.totals.counts.add(&record.counts);
            zones.push(ZoneWindow {
                zone: name,
                configured: usize::from(place) < self.names.len(),
                counts: record.counts,
                sources: record.sources,
                doubtful_names: record.doubtful_names,
            });
        }
        self.touched = touched;
        self.touched.clear();
        let mut samples: Vec<Sample> = self.sampler.take();
        samples.extend(self.doubtful.take());
        for sample in &mut samples {
            sample.zone = moved
                .get(usize::from(sample.zone))
                .copied()
                .unwrap_or(u16::MAX);
        }
        let window = Window {
            seconds,
            until: now,
            totals: std::mem::take(&mut self.totals),
            pressure: 0.0,
            upstreams: Vec::new(),
            zones,
            samples,
            malformed_sources: self.malformed_sources.clone(),
        };
        self.malformed_sources.clear();
        window
    }

    fn name_of(&self, place: u16) -> Arc<str> {
        let place = usize::from(place);
        if let Some(name) = self.names.get(place) {
            return Arc::clone(name);
        }
        let suffix = self.suffixes.get(place.saturating_sub(self.names.len()));
        let name = suffix.and_then(|suffix| {
            let wire = suffix.name.get(..usize::from(suffix.len))?;
            Name::from_wire(wire).ok()
        });
        name.map_or_else(|| Arc::from("."), |name| Arc::from(name.to_string()))
    }

    /// The place of all that has no record of its own.
    #[inline]
    fn rest(&self) -> u16 {
        self.records.len().saturating_sub(1) as u16
    }

    /// The place of a zone's record; of zones that there is no room for, that of all that is left.
    #[inline]
    fn of_zone(&self, zone: u16) -> u16 {
        if usize::from(zone) < self.names.len() {
            zone
        } else {
            self.rest()
        }
    }

    fn at(&mut self, place: Place, change: impl FnOnce(&mut Counts)) {
        let place = match place.zone {
            Some(zone) => self.of_zone(zone),
            None => match self.find(place.hash) {
                Ok(found) => found,
                Err(_) => self.rest(),
            },
        };
        if let Some(record) = self.records.get_mut(usize::from(place)) {
            if !record.touched {
                record.touched = true;
                self.touched.push(place);
            }
            change(&mut record.counts);
        }
    }

    #[inline]
    fn place_or_make(&mut self, place: Place, name: &Name) -> u16 {
        if let Some(zone) = place.zone {
            return self.of_zone(zone);
        }
        match self.find(place.hash) {
            Ok(found) => found,
            Err(first) => self.make(first, place.hash, place.cut, name),
        }
    }

    /// The place of a suffix's record, or where its set begins.
    #[inline]
    fn find(&self, hash: u64) -> Result<u16, usize> {
        let hash = hash.max(1);
        let first = ((hash >> 32) as usize % (SUFFIXES / WAYS)).wrapping_mul(WAYS);
        let set = self.hashes.get(first..first.wrapping_add(WAYS));
        match set.and_then(|set| set.iter().position(|known| *known == hash)) {
            Some(way) => Ok(self.names.len().wrapping_add(first).wrapping_add(way) as u16),
            None => Err(first),
        }
    }

    #[cold]
    fn make(&mut self, first: usize, hash: u64, cut: u8, name: &Name) -> u16 {
        let suffix = name.as_wire().get(usize::from(cut)..).unwrap_or_default();
        let zones = self.names.len();
        let free = (first..first.wrapping_add(WAYS)).find(|way| {
            let record = self.records.get(zones.wrapping_add(*way));
            record.is_some_and(|record| !record.touched)
        });
        let (Some(way), true) = (free, suffix.len() <= SUFFIX) else {
            return self.rest();
        };
        let mut kept = Suffix {
            len: suffix.len() as u8,
            name: [0; SUFFIX],
        };
        for (to, from) in kept.name.iter_mut().zip(suffix) {
            *to = *from;
        }
        if let Some(entry) = self.suffixes.get_mut(way) {
            *entry = kept;
        }
        if let Some(of_way) = self.hashes.get_mut(way) {
            *of_way = hash.max(1);
        }
        zones.wrapping_add(way) as u16
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::disallowed_methods,
        reason = "any instant does as the beginning of time"
    )]

    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::asked::{Acquaintance, Fate, Standing};

    fn asked(name: &Name, zone: Option<u16>, hash: u64, source: u32) -> Asked {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let suffix = name.suffixes().nth(1).unwrap().len();
        Asked {
            source: IpAddr::V4(Ipv4Addr::from_bits(source)),
            source_hash: hasher.hash_one(source),
            acquaintance: Acquaintance::New,
            verified: false,
            odd_hops: false,
            hop_ttl: None,
            standing: Standing::Missing,
            name_seen: false,
            name_hash: hasher.hash_one(name.as_wire()),
            place: Place {
                zone,
                hash,
                cut: (name.len() - suffix) as u8,
            },
            qtype: 1,
            len: 40,
            tcp: false,
            fate: Fate::Denied,
        }
    }

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    #[test]
    fn counts_are_of_the_zone_and_of_the_whole_and_begin_afresh() {
        let now = Instant::now();
        let mut watch = Watch::new(&[name("example.com")], now);
        for n in 0..500 {
            let inside = name(&format!("x{n}.example.com"));
            watch.query(&asked(&inside, Some(0), 1, n), &inside);
            let outside = name("www.example.org");
            watch.query(&asked(&outside, None, 2, n), &outside);
        }
        watch.answer(&Answered {
            place: asked(&name("www.example.org"), None, 2, 0).place,
            rcode: 3,
            latency: Some(1000),
            octets: Some((40, 400)),
        });
        let window = watch.take(now + Duration::from_secs(1));
        assert_eq!(
            (window.totals.counts.queries, window.totals.counts.denied),
            (1000, 1000)
        );
        assert_eq!(window.totals.qtypes[0], 1000);
        let zone = |name: &str| window.zones.iter().find(|it| &*it.zone == name).unwrap();
        let (inside, outside) = (zone("example.com"), zone("example.org"));
        assert_eq!(inside.counts.doubtful, 500);
        assert!(inside.configured && !outside.configured);
        assert!((inside.doubtful_names.estimate() - 500.0).abs() < 200.0);
        assert!(outside.doubtful_names.estimate() < 2.0);
        assert_eq!(outside.counts.nxdomain, 1);
        assert_eq!(window.latency(), Some(64e-6 * 1.75 * 8.0));
        assert_eq!(window.samples.len(), 1000);
        let label = |at: usize| window.samples[at].first_label().to_vec();
        assert_eq!((label(0), label(1)), (b"x0".to_vec(), b"www".to_vec()));
        let empty = watch.take(now + Duration::from_secs(2));
        assert_eq!((empty.totals.counts.queries, empty.zones.len()), (0, 0));
        assert!(empty.samples.is_empty());
    }

    #[test]
    fn suffixes_without_room_are_counted_together() {
        let now = Instant::now();
        let mut watch = Watch::new(&[], now);
        let octets = watch.octets();
        let hasher = ahash::RandomState::with_seeds(5, 6, 7, 8);
        for n in 0..20_000_u32 {
            let name = name(&format!("www.zone{n}.example"));
            watch.query(&asked(&name, None, hasher.hash_one(n), n), &name);
        }
        let window = watch.take(now + Duration::from_secs(1));
        assert!(window.zones.len() <= SUFFIXES + 1);
        assert!(
            window.zones.len() > SUFFIXES * 9 / 10,
            "{}",
            window.zones.len()
        );
        let rest = window.zones.iter().find(|zone| &*zone.zone == ".").unwrap();
        let all: u32 = window.zones.iter().map(|zone| zone.counts.queries).sum();
        assert_eq!(all, 20_000, "each is counted once");
        assert!(rest.counts.queries > 18_000);
        // in the next second those that come have their own records
        let name = name("www.late.example");
        watch.query(&asked(&name, None, 99, 1), &name);
        let window = watch.take(now + Duration::from_secs(2));
        assert_eq!(window.zones.len(), 1);
        assert_eq!(&*window.zones[0].zone, "late.example");
        assert_eq!(watch.octets(), octets);
    }

    #[test]
    fn a_sample_stands_for_all_and_workers_are_joined() {
        let now = Instant::now();
        let mut workers = [Watch::new(&[], now), Watch::new(&[], now)];
        for n in 0..200_000_u32 {
            let zone = n % 3;
            let name = name(["www.a.example", "www.b.example", "www.c.example"][zone as usize]);
            let worker = &mut workers[(n % 5 == 0) as usize];
            worker.query(&asked(&name, None, u64::from(zone + 1) << 40, n), &name);
        }
        let later = now + Duration::from_secs(1);
        let [mut first, mut second] = workers.map(|mut worker| worker.take(later));
        let most = KEPT + DOUBTFUL_KEPT;
        assert!(first.samples.len() <= most && second.samples.len() <= most);
        // the order of zones differs between workers
        second.zones.reverse();
        let zones = second.zones.len() as u16;
        for sample in &mut second.samples {
            sample.zone = zones - 1 - sample.zone;
        }
        first.merge(second);
        assert_eq!(first.totals.counts.queries, 200_000);
        assert!((first.totals.sources.estimate() - 200_000.0).abs() < 20_000.0);
        let weight: u32 = first.samples.iter().map(|sample| sample.weight).sum();
        assert!((150_000..250_000).contains(&weight), "{weight}");
        for sample in &first.samples {
            let zone = &first.zones[usize::from(sample.zone)].zone;
            assert!(sample.name().unwrap().to_string().ends_with(&**zone));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let zones: Vec<Name> = (0..1000)
            .map(|n| name(&format!("zone{n}.example")))
            .collect();
        let watch = Watch::new(&zones, Instant::now());
        assert!(watch.octets() < 2 << 20, "{}", watch.octets());
    }
}
