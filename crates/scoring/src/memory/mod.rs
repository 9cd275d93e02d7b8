//! What a worker remembers, and what it makes of a query before the signals see it.
//!
//! [`Memory::recognise`] looks at the query's source and name once and says what is known of them, as
//! a [`Sighting`]; the signals turn that into points. [`Memory::observe_response`] learns from answers.
//! What all workers share is in [`Learned`]: filters of the sources and names seen before.
//!
//! Learning stops where it could be poisoned: while there is an alarm about sources, new sources and
//! new hop counts are not learned, and a name that fails in a flood is not remembered as one that
//! always failed. Names that exist are learned at any time, since only the zone decides on them.

mod generations;
mod lexicon;
pub(crate) mod saved;
mod sources;
mod suffixes;
mod surge;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;
use dnscrub_wire::{Name, Rcode};
use dnscrub_zones::{Finding, Presence, Zones};

use self::generations::{Generations, Seen};
use self::lexicon::Lexicon;
use self::saved::{Reader, SavedSuffix};
pub(crate) use self::sources::Hops;
use self::sources::Sources;
use self::suffixes::Suffixes;
pub(crate) use self::surge::{Surge, Threshold};
use crate::cells::{Cells, Limit};
use crate::context::{Context, Transport};
use crate::defence::Level;
use crate::orders::{Order, Ordered, Orders};
use crate::seen::Home;
use crate::signals::prefix_key;

/// Sizes and thresholds, from the settings of the signals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Octets of the filter of sources, of all workers together.
    pub(crate) known_sources: usize,
    /// Octets of the table of sources, per worker.
    pub(crate) sources: usize,
    /// Octets of the filter of names that exist, of all workers together.
    pub(crate) known_names: usize,
    /// Suffixes remembered, per worker.
    pub(crate) suffixes: usize,
    /// When doubtful names of one suffix are a flood.
    pub(crate) suffix_flood: Threshold,
    /// When doubtful names of all zones together are.
    pub(crate) whole_flood: Threshold,
    /// For how long a proof of address counts, in nanoseconds.
    pub(crate) verified_for: u64,
}

/// Nanoseconds of service after which saved knowledge counts as enough to start with.
const SEASONED: u64 = 60_000_000_000;
/// Text whose keyed hash tells whether a file was written with the same hash function.
const CHECK: &[u8] = b"dnscrub";
/// Nanoseconds between two turns of [`Memory::turn`].
const TURN: u64 = 1 << 24;
/// Seconds after a start without saved knowledge in which an unknown name says nothing.
const IGNORANT: u64 = 10_000_000_000;
/// From this logarithm of odds on a name is taken for the flood's: 50 to 1.
pub(crate) const FLOOD_CERTAIN: f32 = 4.0;
/// How fast a zone's usual part of upstream time follows, for each answer,
const USUALLY: f32 = 1.0 / 4096.0;
/// and how much more than that is unusual.
const UNUSUAL: f32 = 0.2;
/// From this one on it plainly is one of the flood's: 22,000 to 1.
const FLOOD_PLAIN: f32 = 10.0;
/// Unknown names are a flood only where they are this part of all queries,
const PART_OF_WHOLE: f32 = 0.25;
/// or of the queries of their zone.
const PART_OF_ZONE: f32 = 0.5;
/// Names a second that are let through for having been asked for before.
const SECOND_CHANCES: f32 = 20.0;

/// Filters of what was seen before, shared by all workers, kept over reloads and restarts.
#[derive(Debug)]
pub(crate) struct Learned {
    seed: [u64; 4],
    hasher: RandomState,
    /// Sources that asked.
    sources: Generations,
    /// Names that exist.
    names: Generations,
    /// Names that did not exist in calm times.
    failed: Generations,
    /// Names asked for in a flood.
    asked: Generations,
    /// Whether it knows enough from the start.
    restored: std::sync::atomic::AtomicBool,
}

impl Learned {
    pub(crate) fn new(settings: &Settings, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        Self {
            seed,
            hasher: RandomState::with_seeds(a, b, c, d),
            sources: Generations::new(settings.known_sources),
            names: Generations::new(settings.known_names),
            failed: Generations::new(settings.known_names / 4),
            asked: Generations::new(settings.known_names / 4),
            restored: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Whether it was made for the same settings.
    pub(crate) fn fits(&self, settings: &Settings) -> bool {
        self.sources.octets() == (settings.known_sources / 64).max(1).saturating_mul(64)
            && self.names.octets() == (settings.known_names / 64).max(1).saturating_mul(64)
    }

    /// Octets of memory.
    #[must_use]
    pub(crate) const fn octets(&self) -> usize {
        self.sources
            .octets()
            .saturating_add(self.names.octets())
            .saturating_add(self.failed.octets())
            .saturating_add(self.asked.octets())
    }

    /// What it knows, for a file: its seed, whether it is enough to start with, and the filters.
    pub(crate) fn save(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        for number in self.seed {
            octets.extend(number.to_le_bytes());
        }
        octets.extend(self.hash_name(CHECK).to_le_bytes());
        let enough = self.restored.load(std::sync::atomic::Ordering::Relaxed);
        octets.push(enough.into());
        for filter in [&self.sources, &self.names, &self.failed] {
            let saved = filter.save();
            octets.extend((saved.len() as u64).to_le_bytes());
            octets.extend(saved);
        }
        octets
    }

    /// Knowledge that [`Learned::save`] gave, and which filters begin afresh, since their size has
    /// changed. Nothing where the octets are not that.
    pub(crate) fn restore(settings: &Settings, octets: &[u8]) -> Option<(Self, Vec<&'static str>)> {
        let mut reader = Reader(octets);
        let seed = [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
        let learned = Self::new(settings, seed);
        if reader.u64()? != learned.hash_name(CHECK) {
            return None;
        }
        let enough = reader.u8()? != 0;
        let saved = [reader.long()?, reader.long()?, reader.long()?];
        let mut left_out = Vec::new();
        let filters = [&learned.sources, &learned.names, &learned.failed];
        let words = ["known sources", "known names", "names that failed"];
        for ((filter, saved), word) in filters.into_iter().zip(saved).zip(words) {
            if !filter.restore(saved) {
                left_out.push(word);
            }
        }
        let enough = enough && !left_out.contains(&"known names");
        learned
            .restored
            .store(enough, std::sync::atomic::Ordering::Relaxed);
        Some((learned, left_out))
    }

    #[inline]
    fn hash_source(&self, source: IpAddr) -> u64 {
        match source {
            IpAddr::V4(address) => self.hasher.hash_one(address.to_bits()),
            IpAddr::V6(address) => self.hasher.hash_one(address.to_bits()),
        }
    }

    #[inline]
    fn hash_name(&self, wire: &[u8]) -> u64 {
        self.hasher.hash_one(wire).max(1)
    }
}

/// How well a source is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
pub enum NameStanding {
    /// It exists, or stands at or below a delegation or a DNAME.
    Exists,
    /// It exists by a wildcard only.
    Covered,
    /// Its zone does not have it. `certain`: the zone is up to date.
    Missing {
        /// The zone was not overdue for a refresh.
        certain: bool,
    },
    /// No zone is loaded; the name failed in calm times.
    FailedBefore,
    /// No zone is loaded; nothing is known of the name.
    #[default]
    Unknown,
}

/// What is known of a query's source and name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sighting {
    /// How well the source is known.
    pub(crate) acquaintance: Acquaintance,
    /// Its address counts as proven.
    pub(crate) verified: bool,
    /// What the IP TTL says.
    pub(crate) hops: Hops,
    /// Malformed packets of the source lately.
    pub(crate) malformed: u8,
    /// What is known of the name.
    pub(crate) name: NameStanding,
    /// A keyed hash of the name.
    pub(crate) name_hash: u64,
    /// Whether an answer for the name was seen before.
    pub(crate) name_seen: bool,
    /// Where the name belongs.
    pub(crate) home: Home,
    /// The level of the name's zone, its parent or, where the name is doubtful, of the whole.
    pub(crate) level: Level,
    /// What is ordered for the name's zone.
    pub(crate) order: Order,
    /// The level that counts for what levels switch on, that of the signals about sources left out.
    pub(crate) stance: Level,
    /// In a flood of unknown names: how likely this one is part of it.
    pub(crate) flood: Option<Flood>,
    /// Part of all upstream time lately that the name's zone used, where that is a lot.
    pub(crate) cost: f32,
}

/// The evidence on an unknown name in a flood: logarithms of odds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flood {
    /// Doubtful queries now to those that are usual.
    pub(crate) surge: f32,
    /// Names of the flood to names of the zone.
    pub(crate) likeness: f32,
    /// Sources of the flood to the usual ones.
    pub(crate) source: f32,
    /// It is let through all the same, as a fair share.
    pub(crate) spared: bool,
}

impl Flood {
    /// All together.
    pub(crate) fn odds(self) -> f32 {
        self.surge + self.likeness + self.source
    }
}

/// A query as [`Memory::recognise`] needs it.
pub(crate) struct Asked<'a> {
    pub(crate) qname: &'a Name,
    pub(crate) context: &'a Context,
    /// Canonical.
    pub(crate) source: IpAddr,
    /// Nanoseconds since the scorer began,
    pub(crate) now: u64,
    /// and the same for the zones.
    pub(crate) at: Instant,
}

/// A name that is missing or unknown.
struct Doubtful<'a> {
    /// Its labels below the zone, in wire format.
    labels: &'a [u8],
    /// Its keyed hash.
    hash: u64,
    /// The places of the suffixes that it counts for: its zone,
    zone: Option<usize>,
    /// and its parent, if that is another.
    parent: Option<usize>,
    /// Queries a second for the zone.
    zone_all: f32,
    /// The zone is known not to have it.
    missing: bool,
    /// It exists as every name there does, by a wildcard.
    covered: bool,
    /// Who asks is known.
    loyal: bool,
}

impl Doubtful<'_> {
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        [self.zone, self.parent].into_iter().flatten()
    }
}

/// Keyed hashes of what a query is known by.
#[derive(Clone, Copy)]
pub(crate) struct Hashes {
    pub(crate) source: u64,
    pub(crate) name: u64,
}

/// An answer as [`Memory::observe_response`] needs it.
pub(crate) struct Answered<'a> {
    pub(crate) qname: &'a Name,
    pub(crate) rcode: Rcode,
    /// Seconds.
    pub(crate) latency: f32,
    pub(crate) now: u64,
    pub(crate) at: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Memory {
    settings: Settings,
    sources: Sources,
    suffixes: Suffixes,
    lexicon: Lexicon,
    /// Fair shares of sources in floods.
    shares: Cells,
    share: Limit,
    /// Doubtful names, of all zones.
    doubt: Surge,
    /// All queries.
    all: Surge,
    /// Upstream time used, of all zones, in seconds, fading; and since when.
    cost: (f32, u64),
    next_turn: u64,
    /// There is an alarm about sources.
    trouble: bool,
    /// Some suffix or the whole had an alarm at the last turn.
    flooded: bool,
    /// The level for doubtful names of the whole that other workers see.
    elsewhere: Level,
    /// What operators and incidents order.
    ordered: Ordered,
    first_worker: bool,
}

impl Memory {
    pub(crate) fn new(settings: &Settings, seed: [u64; 4], worker: usize) -> Self {
        let [a, ..] = seed;
        Self {
            settings: settings.clone(),
            sources: Sources::new(settings.sources),
            suffixes: Suffixes::new(settings.suffixes, 0),
            lexicon: Lexicon::new(a),
            shares: Cells::new(1 << 18, seed),
            share: Limit::new(1, Duration::from_secs(10), 1),
            doubt: Surge::default(),
            all: Surge::default(),
            cost: (0.0, 0),
            next_turn: 0,
            trouble: false,
            flooded: false,
            elsewhere: Level::Calm,
            ordered: Ordered::default(),
            first_worker: worker == 0,
        }
    }

    /// Octets of memory.
    pub(crate) const fn octets(&self) -> usize {
        self.sources
            .octets()
            .saturating_add(self.suffixes.octets())
            .saturating_add(Lexicon::OCTETS)
            .saturating_add(self.shares.octets())
    }

    /// Whether it was made for the same settings.
    pub(crate) fn fits(&self, settings: &Settings) -> bool {
        self.settings == *settings
    }

    /// The level of the whole for doubtful names, here or in other workers.
    #[inline]
    fn level(&self) -> Level {
        self.doubt.level().max(self.elsewhere)
    }

    /// Doubtful names of the whole, as seen here.
    pub(crate) const fn doubtful(&self) -> &Surge {
        &self.doubt
    }

    /// Whether [`Memory::turn`] is due.
    #[inline]
    pub(crate) const fn is_due(&self, now: u64) -> bool {
        now >= self.next_turn
    }

    /// What is done about sixty times a second: generations move on, levels come down. `sources` is
    /// the level of the signals about sources.
    pub(crate) fn turn(&mut self, learned: &Learned, sources: Level, now: u64) {
        self.next_turn = now.saturating_add(TURN);
        self.trouble = sources > Level::Calm;
        self.doubt.advance(now, self.settings.whole_flood);
        let mut flooded = self.level() > Level::Calm;
        for suffix in self.suffixes.iter_mut() {
            if suffix.doubt.level() > Level::Calm {
                suffix.doubt.advance(now, self.settings.suffix_flood);
                flooded = true;
            }
        }
        if self.flooded && !flooded {
            self.lexicon.calm();
        }
        self.flooded = flooded;
        self.lexicon.fade();
        if self.first_worker {
            if now > SEASONED {
                learned
                    .restored
                    .store(true, std::sync::atomic::Ordering::Relaxed);
            }
            learned.sources.pass(!self.trouble);
            learned.failed.pass(!flooded);
            learned.asked.pass(false);
            learned.names.pass(true);
        }
    }

    /// This query is recognised next: reads from its places in the tables, so that what is not in a
    /// near cache comes for all of them at once.
    #[inline]
    pub(crate) fn expect(&self, learned: &Learned, asked: &Asked<'_>) -> Hashes {
        let hashes = Hashes {
            source: learned.hash_source(asked.source),
            name: learned.hash_name(asked.qname.as_wire()),
        };
        learned.sources.expect(hashes.source);
        self.sources.expect(hashes.source);
        learned.names.expect(hashes.name);
        if self.flooded {
            learned.failed.expect(hashes.name);
            learned.asked.expect(hashes.name);
        }
        hashes
    }

    /// What is known of a query's source and name goes to `sighting`. Remembers it, if `commit`.
    #[inline]
    pub(crate) fn recognise(
        &mut self,
        learned: &Learned,
        zones: &Zones,
        asked: &Asked<'_>,
        hashes: Hashes,
        sighting: &mut Sighting,
        commit: bool,
    ) {
        *sighting = Sighting::default();
        self.recognise_source(learned, asked, hashes.source, sighting, commit);
        self.recognise_name(learned, zones, asked, hashes.name, sighting, commit);
    }

    #[inline]
    fn recognise_source(
        &mut self,
        learned: &Learned,
        asked: &Asked<'_>,
        hash: u64,
        sighting: &mut Sighting,
        commit: bool,
    ) {
        let Asked { context, now, .. } = *asked;
        let proven = context.transport == Transport::Tcp || context.proven;
        let seen = learned.sources.find(hash);
        sighting.acquaintance = match seen {
            Seen { settled: true, .. } => Acquaintance::Known,
            Seen { lately: true, .. } => Acquaintance::Recent,
            _ => Acquaintance::New,
        };
        if commit {
            if proven {
                learned.sources.settle(hash);
            } else if !seen.settled {
                learned.sources.note(hash);
            }
            learned.sources.keep(hash, seen);
        }
        let trouble = self.trouble;
        let mut record = self.sources.get_mut(hash);
        if record.is_none() && commit {
            let worth = if proven {
                Sources::PROVEN
            } else {
                Sources::FIRST
            };
            if proven || !trouble || seen.settled {
                record = self.sources.make(hash, worth, now);
            }
        }
        let Some(record) = record else {
            sighting.verified = proven;
            return;
        };
        sighting.hops = if proven {
            Hops::Unknown
        } else {
            record.hops(context.hop_ttl)
        };
        sighting.malformed = record.malformed(now);
        // the proof was of the address; this packet may come from somebody else
        sighting.verified = proven || record.is_verified(now) && sighting.hops != Hops::Odd;
        if sighting.verified {
            sighting.acquaintance = Acquaintance::Known;
        }
        if commit {
            record.touch(now);
            if proven {
                record.verify(now, self.settings.verified_for);
            }
            if let Some(ttl) = context.hop_ttl
                && (!trouble || proven)
            {
                record.learn(ttl);
            }
        }
    }

    #[inline]
    fn recognise_name(
        &mut self,
        learned: &Learned,
        zones: &Zones,
        asked: &Asked<'_>,
        hash: u64,
        sighting: &mut Sighting,
        commit: bool,
    ) {
        let Asked { qname, now, .. } = *asked;
        let found = zones.find(qname);
        let finding = found.map(|(_, zone)| zone.look_up(qname, asked.at));
        let apex = found.map_or_else(|| fallback_apex(qname), |(_, zone)| zone.name().as_wire());
        sighting.name_hash = hash;
        let answered = || learned.names.find(hash).settled;
        let failed = || learned.failed.find(hash).settled;
        sighting.name = match finding.map(|finding| finding.presence) {
            Some(
                Presence::Exists
                | Presence::EmptyNonTerminal
                | Presence::Delegated
                | Presence::Dname,
            ) => {
                sighting.name_seen = answered();
                NameStanding::Exists
            }
            // one that is asked for again and again is as good as a name of its own
            Some(Presence::Wildcard) if answered() => {
                sighting.name_seen = true;
                NameStanding::Exists
            }
            Some(Presence::Wildcard) => NameStanding::Covered,
            Some(Presence::Missing) => {
                sighting.name_seen = failed();
                NameStanding::Missing {
                    certain: finding.is_some_and(Finding::is_surely_missing),
                }
            }
            Some(Presence::Unknown) | None => {
                let seen = learned.names.find(hash);
                if commit {
                    learned.names.keep(hash, seen);
                }
                if seen.settled {
                    sighting.name_seen = true;
                    NameStanding::Exists
                } else if failed() {
                    sighting.name_seen = true;
                    NameStanding::FailedBefore
                } else {
                    NameStanding::Unknown
                }
            }
        };
        let apex_hash = learned.hash_name(apex);
        let order = self.ordered.of(apex_hash);
        sighting.order = order;
        sighting.level = order.names;
        sighting.home = home(found.map(|(place, _)| place), apex_hash, qname, apex);
        let threshold = self.settings.suffix_flood;
        let place = if commit {
            self.all.count(1.0, now, self.settings.whole_flood, false);
            self.suffixes.find_or_make(apex_hash, apex, now)
        } else {
            self.suffixes.find(apex_hash)
        };
        if let Some(zone) = place.and_then(|place| self.suffixes.get_mut(place)) {
            if commit {
                zone.all.count(1.0, now, threshold, false);
            }
            sighting.level = order.names.max(zone.level());
            sighting.stance = zone.level();
            let (cost, usual) = (zone.cost(now), zone.usual_part);
            let part = self.part_of_cost(cost, now);
            // what a zone always used is no news
            sighting.cost = if part > usual + UNUSUAL { part } else { 0.0 };
        }
        if matches!(
            sighting.name,
            NameStanding::Missing { .. } | NameStanding::Unknown | NameStanding::Covered
        ) {
            self.doubt(learned, asked, (apex, place, hash), sighting, commit);
        }
        sighting.stance = if order.calm {
            sighting.level = Level::Calm;
            Level::Calm
        } else {
            let seen = sighting.stance.max(sighting.level).max(self.level());
            seen.max(order.least)
        };
    }

    /// Counts a name that is missing or unknown, and weighs it where there is a flood.
    fn doubt(
        &mut self,
        learned: &Learned,
        asked: &Asked<'_>,
        (apex, zone, hash): (&[u8], Option<usize>, u64),
        sighting: &mut Sighting,
        commit: bool,
    ) {
        let doubtful = self.doubtful_name(learned, asked, (apex, zone, hash), sighting, commit);
        let ignorant = !doubtful.missing
            && asked.now < IGNORANT
            && !learned.restored.load(std::sync::atomic::Ordering::Relaxed);
        if commit && !ignorant {
            self.count_doubt(&doubtful, sighting.level, asked.now);
        }
        let mut level = if doubtful.covered {
            Level::Calm
        } else {
            self.level().max(sighting.order.names)
        };
        for place in doubtful.places() {
            if let Some(suffix) = self.suffixes.get(place) {
                level = level.max(suffix.level());
            }
        }
        if commit && level == Level::Calm && !doubtful.missing {
            self.lexicon.doubted(doubtful.labels);
        }
        sighting.level = if sighting.order.calm {
            Level::Calm
        } else {
            level
        };
        if sighting.level == Level::Attack && !doubtful.missing {
            sighting.flood = Some(self.weigh_doubt(learned, asked, &doubtful, commit));
        }
    }

    /// What is known of a doubtful name, and for which suffixes it counts.
    fn doubtful_name<'a>(
        &mut self,
        learned: &Learned,
        asked: &Asked<'a>,
        (apex, zone, hash): (&[u8], Option<usize>, u64),
        sighting: &Sighting,
        commit: bool,
    ) -> Doubtful<'a> {
        let Asked { qname, now, .. } = *asked;
        let parent = qname.parent_wire();
        let below = parent.len() > apex.len();
        let parent = match (below, commit) {
            (false, _) => None,
            (true, true) => {
                let hash = learned.hash_name(parent);
                self.suffixes.find_or_make(hash, parent, now)
            }
            (true, false) => self.suffixes.find(learned.hash_name(parent)),
        };
        // making room for the second may have taken the place of the first
        let zone = zone.filter(|&zone| Some(zone) != parent);
        let zone_all = zone
            .and_then(|zone| self.suffixes.get(zone))
            .map_or(0.0, |zone| zone.all.rate());
        // Under a wildcard every name exists: it is a flood by its rate alone, and only there.
        let takes_any = |place: Option<usize>| {
            let suffix = place.and_then(|place| self.suffixes.get(place));
            suffix.is_some_and(suffixes::Suffix::takes_any_name)
        };
        let covered = sighting.name == NameStanding::Covered
            || sighting.name == NameStanding::Unknown && takes_any(parent.or(zone));
        let labels = qname.len().saturating_sub(apex.len());
        Doubtful {
            labels: qname.as_wire().get(..labels).unwrap_or_default(),
            hash,
            zone: zone.filter(|_| !covered || parent.is_none()),
            parent,
            zone_all,
            missing: matches!(sighting.name, NameStanding::Missing { .. }),
            covered,
            loyal: sighting.acquaintance == Acquaintance::Known,
        }
    }

    /// Counts a doubtful name for its suffixes and for the whole. `known`: the level of its zone so far.
    fn count_doubt(&mut self, doubtful: &Doubtful<'_>, known: Level, now: u64) {
        let Doubtful {
            missing, covered, ..
        } = *doubtful;
        let failing = |place: Option<usize>| {
            place
                .and_then(|place| self.suffixes.get(place))
                .and_then(suffixes::Suffix::failing)
        };
        let weight = if missing || covered {
            1.0
        } else {
            failing(doubtful.parent)
                .or_else(|| failing(doubtful.zone))
                .unwrap_or(0.5)
        };
        // what is a small part of all is no flood, but for what is known to be missing
        let believed = |doubt: f32, all: f32, part: f32| missing || doubt > part * all;
        let whole = self.all.rate();
        // a part of a flood is not to become usual because it is no flood by itself
        let flooded = !covered && (self.level() > Level::Calm || known > Level::Calm);
        let believe = believed(self.doubt.rate(), whole, PART_OF_WHOLE);
        if !covered {
            self.doubt
                .count(weight, now, self.settings.whole_flood, believe);
        }
        for place in doubtful.places() {
            if let Some(suffix) = self.suffixes.get_mut(place) {
                suffix.doubt.freeze(flooded);
                let rate = suffix.doubt.rate();
                let believe = believed(rate, doubtful.zone_all, PART_OF_ZONE)
                    || believed(rate, whole, PART_OF_WHOLE);
                let threshold = (self.settings.suffix_flood, believe);
                suffix.doubted(weight, doubtful.hash, doubtful.loyal, now, threshold);
            }
        }
    }

    /// How likely a doubtful name is part of the flood that is on, and whether it is let through all the same.
    fn weigh_doubt(
        &mut self,
        learned: &Learned,
        asked: &Asked<'_>,
        doubtful: &Doubtful<'_>,
        commit: bool,
    ) -> Flood {
        let Doubtful { zone, parent, .. } = *doubtful;
        let mut flood = Flood {
            likeness: self.lexicon.score(doubtful.labels),
            ..Flood::default()
        };
        let odds = |place: Option<usize>, least: f32| {
            let suffix = self.suffixes.get(place?)?;
            Some((suffix.doubt.odds(least).max(1e-3).ln(), suffix))
        };
        if let Some((surge, suffix)) = odds(zone, 0.5) {
            flood.surge = surge;
            flood.source = suffix.loyalty_odds(doubtful.loyal);
        }
        // a parent that is asked as usual is no part of its zone's flood
        if let Some((surge, suffix)) = odds(parent, 0.1)
            && (doubtful.covered || suffix.failing().is_some())
        {
            flood.surge = if zone.is_some() {
                flood.surge.min(surge)
            } else {
                surge
            };
        }
        if commit {
            self.lexicon.fails(doubtful.labels);
        }
        if flood.odds() >= FLOOD_CERTAIN {
            let place = (zone.or(parent), doubtful.hash, flood.odds());
            flood.spared = self.spare(learned, asked, place, commit);
        }
        flood
    }

    /// Whether a name of a flood is let through for a fair share: so that a name that is new and real
    /// gets its chance, since what exists is learned from the first answer on. First of all names
    /// that are asked for again, which random ones are not, unless they plainly look like the flood's; then one name a resolver every ten
    /// seconds, as far as the zone's share goes.
    fn spare(
        &mut self,
        learned: &Learned,
        asked: &Asked<'_>,
        (place, hash, odds): (Option<usize>, u64, f32),
        commit: bool,
    ) -> bool {
        let now = asked.now;
        let Some(suffix) = place.and_then(|place| self.suffixes.get_mut(place)) else {
            return false;
        };
        if odds < FLOOD_PLAIN
            && learned.asked.find(hash).ever()
            && !learned.failed.find(hash).lately
        {
            return suffix.take_token(SECOND_CHANCES, now, commit);
        }
        if commit {
            learned.asked.note(hash);
        }
        let (scope, bits) = prefix_key(asked.source, 24, 48);
        let usual = suffix.doubt.base().clamp(2.0, SECOND_CHANCES);
        !self
            .share
            .exceeded(&mut self.shares, (scope, bits), now, commit)
            && suffix.take_token(usual, now, commit)
    }

    /// Learns from an upstream's answer to a query that was let through; says where its name belongs.
    #[inline]
    pub(crate) fn observe_response(
        &mut self,
        learned: &Learned,
        zones: &Zones,
        answered: &Answered<'_>,
    ) -> Home {
        let Answered {
            qname, rcode, now, ..
        } = *answered;
        let found = zones.find(qname);
        let apex = found.map_or_else(|| fallback_apex(qname), |(_, zone)| zone.name().as_wire());
        let apex_hash = learned.hash_name(apex);
        let home = home(found.map(|(place, _)| place), apex_hash, qname, apex);
        let zone = self.suffixes.find(apex_hash);
        let total = self.total_cost(now) + answered.latency;
        self.cost = (total, now);
        if let Some(suffix) = zone.and_then(|zone| self.suffixes.get_mut(zone)) {
            suffix.spend(answered.latency, now);
            if suffix.doubt.level() == Level::Calm {
                let part = suffix.cost(now) / total.max(1e-9);
                suffix.usual_part += (part - suffix.usual_part) * USUALLY;
            }
        }
        let failed = match rcode {
            Rcode::NOERROR => false,
            Rcode::NXDOMAIN => true,
            _ => return home,
        };
        let presence = found.map(|(_, zone)| zone.look_up(qname, answered.at).presence);
        let covered = presence == Some(Presence::Wildcard);
        let hash = learned.hash_name(qname.as_wire());
        if learned.names.find(hash).settled {
            return home;
        }
        let parent = qname.parent_wire();
        let parent = if parent.len() > apex.len() {
            self.suffixes.find(learned.hash_name(parent))
        } else {
            None
        };
        let mut any_name = covered;
        for place in [zone, parent].into_iter().flatten() {
            if let Some(suffix) = self.suffixes.get_mut(place).filter(|_| !covered) {
                suffix.answered(failed);
                any_name = suffix.takes_any_name() && Some(place) == parent.or(zone);
            }
        }
        let labels = qname
            .as_wire()
            .get(..qname.len().saturating_sub(apex.len()))
            .unwrap_or_default();
        if failed {
            if self.flooded {
                learned.failed.note(hash);
            } else {
                learned.failed.settle(hash);
            }
        } else if any_name && !learned.asked.find(hash).ever() {
            // Under a wildcard every name exists. Only those that are asked for again are
            // remembered, or each random one would push out another.
            learned.asked.note(hash);
        } else {
            learned.names.settle(hash);
            self.lexicon.exists(labels);
        }
        home
    }

    /// Takes note of a packet that is no well-formed query.
    pub(crate) fn observe_malformed(&mut self, learned: &Learned, source: IpAddr, now: u64) {
        let hash = learned.hash_source(source);
        if self.sources.get_mut(hash).is_none() && !self.trouble {
            self.sources.make(hash, Sources::FIRST, now);
        }
        if let Some(record) = self.sources.get_mut(hash) {
            record.count_malformed(now);
        }
    }

    /// Where a name belongs.
    pub(crate) fn home_of(learned: &Learned, zones: &Zones, qname: &Name) -> Home {
        let found = zones.find(qname);
        let apex = found.map_or_else(|| fallback_apex(qname), |(_, zone)| zone.name().as_wire());
        home(
            found.map(|(place, _)| place),
            learned.hash_name(apex),
            qname,
            apex,
        )
    }

    fn total_cost(&self, now: u64) -> f32 {
        let (cost, at) = self.cost;
        let elapsed = now.saturating_sub(at) as f32 / 1e9;
        cost * (1.0 - elapsed / 10.0).max(0.0)
    }

    /// Part of all upstream time, where there is enough of it to speak of.
    fn part_of_cost(&self, cost: f32, now: u64) -> f32 {
        let total = self.total_cost(now);
        if total < 1.0 { 0.0 } else { cost / total }
    }

    /// Every suffix with an alarm, as seen here: its level, doubtful names a second, how many are
    /// usual, and distinct ones of the last seconds.
    pub(crate) fn alarms(&self) -> impl Iterator<Item = (&Name, Level, [f32; 3])> {
        let alarmed = self
            .suffixes
            .iter()
            .filter(|suffix| suffix.doubt.level() > Level::Calm);
        alarmed.map(|suffix| {
            let numbers = [suffix.doubt.rate(), suffix.doubt.base(), suffix.distinct()];
            (&suffix.name, suffix.doubt.level(), numbers)
        })
    }

    /// Takes over what operators and incidents order.
    pub(crate) fn set_orders(&mut self, learned: &Learned, orders: &Orders) {
        self.ordered
            .set(orders, |zone| learned.hash_name(zone.as_wire()));
    }

    /// What operators and incidents order.
    pub(crate) const fn ordered(&self) -> &Ordered {
        &self.ordered
    }

    /// Takes over the levels that other workers see: of the whole for doubtful names, and of suffixes
    /// that are remembered here.
    pub(crate) fn set_elsewhere<'a>(
        &mut self,
        learned: &Learned,
        whole: Level,
        suffixes: impl Iterator<Item = (&'a Name, Level)>,
    ) {
        self.elsewhere = whole;
        for suffix in self.suffixes.iter_mut() {
            suffix.elsewhere = Level::Calm;
        }
        for (name, level) in suffixes {
            let place = self.suffixes.find(learned.hash_name(name.as_wire()));
            if let Some(suffix) = place.and_then(|place| self.suffixes.get_mut(place)) {
                suffix.elsewhere = level;
            }
        }
    }

    /// Appends what is known of single sources, for a file, in steps from 0. Whether there are more.
    pub(crate) fn save_sources(&self, step: usize, out: &mut Vec<u8>) -> bool {
        if step == 0 {
            out.extend((self.sources.octets() as u64).to_le_bytes());
        }
        self.sources.save(step, out)
    }

    /// Appends what is known of names and suffixes, as sections.
    pub(crate) fn save_names(&self, out: &mut Vec<u8>) {
        saved::put_section(out, saved::LEXICON, &self.lexicon.save());
        let mut suffixes = Vec::new();
        for suffix in self.suffixes.iter().filter_map(suffixes::Suffix::save) {
            suffix.put(&mut suffixes);
        }
        saved::put_section(out, saved::SUFFIXES, &suffixes);
    }

    /// The surges of all zones, numbered.
    pub(crate) fn surges_mut(&mut self) -> [&mut Surge; 2] {
        [&mut self.doubt, &mut self.all]
    }

    /// Takes over the records of sources; whether they are of a table of the same size.
    pub(crate) fn restore_sources(&mut self, content: &[u8], now: u64) -> bool {
        let mut reader = Reader(content);
        let fits = reader.u64() == Some(self.sources.octets() as u64);
        if fits {
            self.sources.restore(reader.0, now);
        }
        fits
    }

    /// Takes over what is known of how names look; whether it is of the right size.
    pub(crate) fn restore_lexicon(&mut self, content: &[u8]) -> bool {
        self.lexicon.restore(content)
    }

    /// Adds what one of so many workers knew of suffixes.
    pub(crate) fn restore_suffixes(
        &mut self,
        learned: &Learned,
        content: &[u8],
        workers: f32,
        now: u64,
    ) {
        for saved in SavedSuffix::all_of(content) {
            let name = saved.name.as_wire();
            let place = self
                .suffixes
                .find_or_make(learned.hash_name(name), name, now);
            if let Some(suffix) = place.and_then(|place| self.suffixes.get_mut(place)) {
                suffix.restore(&saved, workers);
            }
        }
    }
}

fn home(zone: Option<u16>, hash: u64, qname: &Name, apex: &[u8]) -> Home {
    Home {
        zone,
        hash,
        cut: qname.len().saturating_sub(apex.len()) as u8,
    }
}

/// Where no zone is configured: the name's last two labels, which most zones have.
fn fallback_apex(qname: &Name) -> &[u8] {
    let skip = qname.label_count().saturating_sub(2);
    qname.suffixes().nth(skip).unwrap_or_default()
}
