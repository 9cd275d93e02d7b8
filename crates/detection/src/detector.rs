//! Compares each second with what is usual, and keeps the incidents.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ahash::RandomState;

use crate::book::Book;
use crate::cases::Cases;
use crate::diagnosis;
use crate::incident::Happened;
use crate::measure::Measure;
use crate::overview::{Overview, ZoneOverview};
use crate::picture::Picture;
use crate::point::Point;
use crate::quantity::{
    self, FLOORS, KNOWN, MADE_UP, MIX, NXDOMAIN, ODD_HOPS, OF_WHOLE, OF_ZONE, QUERIES, STRANGE,
};
use crate::ring::{Bar, KEPT, Ring, Surge};
use crate::servers::Servers;
use crate::spelling::Spelling;
use crate::usual::Habits;
use crate::window::{QTYPE_COUNTS, Window};

/// Zones whose habits are known, at most. With more, the one that nobody asked for the longest gives way, if
/// that is for a minute; otherwise the new one is not watched for itself.
pub const MOST_ZONES: usize = 4096;
/// Seconds in which nobody asked, after which a zone may be forgotten for another.
const FORGET: f32 = 60.0;
/// Seconds from the start on that points are kept for: what a plot shows of before.
const BEFORE: usize = 90;
/// Seconds of service after which what is usual is taken for known; twice as many, and so is who is known.
const SEASON: f32 = 12.0;
/// Seconds in which all who come in calm times come to be known.
const ACQUAINTED: f32 = 3600.0;
/// Version of the saved form.
const VERSION: u8 = 2;

/// What is known of a zone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    pub(crate) habits: Habits<OF_ZONE>,
    pub(crate) rings: [Ring; OF_ZONE],
    /// Failing answers a second, and what was shed.
    failing: Ring,
    shed: Ring,
    now: [f32; OF_ZONE],
    /// Seconds since somebody asked.
    idle: f32,
}

/// Notices attacks and names them. See the crate and `docs/incidents.md`.
#[derive(Debug)]
pub struct Detector {
    zones: HashMap<Arc<str>, Zone, RandomState>,
    whole: Habits<OF_WHOLE>,
    rings: [Ring; OF_WHOLE],
    now: [f32; OF_WHOLE],
    picture: Picture,
    servers: Servers,
    spelling: Spelling,
    /// The usual mix of query types.
    mix: [f32; QTYPE_COUNTS],
    cases: Cases,
    points: VecDeque<Point>,
    /// Seconds of service, or of what was restored.
    age: f32,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            zones: HashMap::default(),
            whole: Habits::default(),
            rings: [Ring::default(); OF_WHOLE],
            now: [0.0; OF_WHOLE],
            picture: Picture::default(),
            servers: Servers::default(),
            spelling: Spelling::new(),
            mix: [0.0; QTYPE_COUNTS],
            cases: Cases::default(),
            points: VecDeque::new(),
            age: 0.0,
        }
    }
}

/// What is there to be judged in a second.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    zones: &'a HashMap<Arc<str>, Zone, RandomState>,
    whole: &'a Habits<OF_WHOLE>,
    rings: &'a [Ring; OF_WHOLE],
    pub(crate) picture: &'a Picture,
    pub(crate) servers: &'a Servers,
    pub(crate) point: Point,
    /// The last seconds, the newest last.
    pub(crate) points: &'a VecDeque<Point>,
    /// In seconds since 1970.
    pub(crate) now: f64,
    /// What is usual is taken for known.
    pub(crate) seasoned: bool,
    /// So is who is known.
    pub(crate) settled: bool,
}

impl Scene<'_> {
    /// The zones' names.
    pub(crate) fn zones(&self) -> impl Iterator<Item = &Arc<str>> {
        self.zones.keys()
    }

    pub(crate) fn whole_usual(&self, quantity: usize) -> f32 {
        self.whole.usual(quantity, self.now)
    }

    pub(crate) fn whole_spread(&self, quantity: usize) -> f32 {
        self.whole.spread(quantity)
    }

    pub(crate) fn whole_mean(&self, quantity: usize, seconds: usize) -> f32 {
        self.rings.get(quantity).map_or(0.0, |it| it.mean(seconds))
    }

    /// The least of the last seconds.
    pub(crate) fn whole_least(&self, quantity: usize, seconds: usize) -> f32 {
        self.rings.get(quantity).map_or(0.0, |it| it.least(seconds))
    }

    /// Whether a quantity of the whole is out of the ordinary, by `floor` at least and by this part of all
    /// queries that are usual.
    pub(crate) fn whole_surge(&self, quantity: usize, floor: f32, part: f32) -> Option<Surge> {
        let floor = floor.max(part * self.whole_usual(QUERIES));
        let bar = Bar {
            usual: self.whole_usual(quantity),
            spread: self.whole.spread(quantity),
            floor,
            seasoned: self.seasoned,
        };
        self.rings.get(quantity)?.surge(bar)
    }

    fn zone_bar(&self, zone: &Zone, quantity: usize, floor: f32) -> Bar {
        Bar {
            usual: zone.habits.usual(quantity, self.now),
            spread: zone.habits.spread(quantity),
            floor,
            seasoned: self.seasoned,
        }
    }

    pub(crate) fn zone_usual(&self, zone: &str, quantity: usize) -> f32 {
        let zone = self.zones.get(zone);
        zone.map_or(0.0, |zone| zone.habits.usual(quantity, self.now))
    }

    pub(crate) fn zone_spread(&self, zone: &str, quantity: usize) -> f32 {
        let zone = self.zones.get(zone);
        zone.map_or(0.0, |zone| zone.habits.spread(quantity))
    }

    pub(crate) fn zone_mean(&self, zone: &str, quantity: usize, seconds: usize) -> f32 {
        let ring = self.zones.get(zone).and_then(|it| it.rings.get(quantity));
        ring.map_or(0.0, |ring| ring.mean(seconds))
    }

    pub(crate) fn zone_surge(&self, zone: &str, quantity: usize, floor: f32) -> Option<Surge> {
        let zone = self.zones.get(zone)?;
        zone.rings
            .get(quantity)?
            .surge(self.zone_bar(zone, quantity, floor))
    }

    pub(crate) fn zone_is_elevated(&self, zone: &str, quantity: usize, least: f32) -> bool {
        let Some(zone) = self.zones.get(zone).filter(|_| self.seasoned) else {
            return false;
        };
        let bar = self.zone_bar(zone, quantity, least);
        let ring = zone.rings.get(quantity);
        ring.is_some_and(|ring| ring.is_elevated(bar, least))
    }

    /// Answers of a zone that say that there is no such name, and queries without an answer, a second.
    pub(crate) fn zone_failing(&self, zone: &str) -> f32 {
        let zone = self.zones.get(zone);
        zone.map_or(0.0, |zone| zone.failing.mean(4))
    }

    /// The zones that a surge of the whole is about: none if it is about no zone in particular, which is so
    /// where all zones have their usual share of it.
    pub(crate) fn zones_of(&self, quantity: usize, excess: f32) -> Vec<Arc<str>> {
        let mut parts: Vec<(&Arc<str>, f32, f32)> = self
            .zones
            .iter()
            .map(|(name, zone)| {
                let mean = zone.rings.get(quantity).map_or(0.0, |ring| ring.mean(4));
                let more = mean - zone.habits.usual(quantity, self.now);
                (name, more.max(0.0), zone.habits.usual(QUERIES, self.now))
            })
            .collect();
        let more: f32 = parts.iter().map(|(_, more, _)| more).sum();
        let usual: f32 = parts.iter().map(|(.., usual)| usual).sum();
        if more <= 0.1 * excess {
            return Vec::new();
        }
        // half the sum of differences: 0 where shares are the same, 1 where they have nothing in common
        let distance: f32 = parts
            .iter()
            .map(|(_, part, own)| (part / more - own / usual.max(1.0)).abs() / 2.0)
            .sum();
        if distance < 0.4 {
            return Vec::new();
        }
        parts.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        parts
            .into_iter()
            .filter(|(_, part, _)| *part >= 0.05 * more)
            .take(crate::incident::MOST_PARTS)
            .map(|(name, ..)| Arc::clone(name))
            .collect()
    }
}

impl Detector {
    /// Without any experience.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a second of all workers, which ended at `now`, in seconds since 1970. Says what happened, and
    /// to which incidents, by their numbers.
    pub fn observe(&mut self, window: &Window, now: f64, book: &mut Book) -> Vec<(u64, Happened)> {
        self.age += window.seconds;
        // nobody mistypes more often
        let most_slips = (2.0 * self.whole.recent[QUERIES].value).max(500.0);
        self.picture.take_in(window, &mut self.spelling, most_slips);
        self.servers.take_in(&window.upstreams);
        let surges = |quantity: usize, count: u32, least: f32, part: f32| {
            let scene = self.scene(now);
            let usual = scene.whole_usual(quantity);
            let least = least
                .max(part * scene.whole_usual(QUERIES))
                .max(2.0 * usual);
            window.rate(count) - usual >= least
                || scene.whole_surge(quantity, least, part).is_some()
        };
        let impersonating = surges(ODD_HOPS, window.totals.counts.odd_hops, 25.0, 0.03);
        let reflecting = surges(quantity::BULKY, window.totals.counts.bulky, 15.0, 0.02);
        self.picture.find_forged(impersonating, reflecting);
        let made_up = self.picture.made_up();
        self.take_in_zones(window, &made_up);
        self.take_in_whole(window, made_up.last().copied().unwrap_or(1.0), now);
        let point = point_of(window, now);
        if self.points.len() >= BEFORE {
            self.points.pop_front();
        }
        self.points.push_back(point);

        let scene = self.scene(now);
        let findings = diagnosis::diagnose(&scene);
        let mut cases = std::mem::take(&mut self.cases);
        let happened = cases.keep(&self.scene(now), findings, book);
        self.cases = cases;
        self.learn(window, now);
        happened
    }

    fn scene(&self, now: f64) -> Scene<'_> {
        Scene {
            zones: &self.zones,
            whole: &self.whole,
            rings: &self.rings,
            picture: &self.picture,
            servers: &self.servers,
            point: self.point(),
            points: &self.points,
            now,
            seasoned: self.age >= SEASON,
            settled: self.age >= 2.0 * SEASON,
        }
    }

    fn take_in_zones(&mut self, window: &Window, made_up: &[f32]) {
        for zone in self.zones.values_mut() {
            zone.idle += window.seconds;
            zone.now = [0.0; OF_ZONE];
        }
        let mut failing: HashMap<&str, (f32, f32)> = HashMap::new();
        for (seen, made_up) in window.zones.iter().zip(made_up) {
            self.make_room(&seen.zone);
            let zone = if self.zones.len() < MOST_ZONES {
                Some(self.zones.entry(Arc::clone(&seen.zone)).or_default())
            } else {
                self.zones.get_mut(&seen.zone)
            };
            let Some(zone) = zone else { continue };
            zone.idle = 0.0;
            zone.now = quantity::of_zone(window, seen, *made_up);
            let counts = &seen.counts;
            let fails = window.rate(counts.nxdomain.saturating_add(counts.expired));
            let shed = counts
                .dropped
                .saturating_add(counts.refused)
                .saturating_add(counts.denied)
                .saturating_add(counts.challenged);
            failing.insert(&seen.zone, (fails, window.rate(shed)));
        }
        for (name, zone) in &mut self.zones {
            for (ring, value) in zone.rings.iter_mut().zip(zone.now) {
                ring.push(value);
            }
            let (fails, shed) = failing.get(&**name).copied().unwrap_or_default();
            zone.failing.push(fails);
            zone.shed.push(shed);
        }
    }

    /// Forgets a zone for another, if there are too many and one is idle.
    fn make_room(&mut self, zone: &Arc<str>) {
        if self.zones.len() < MOST_ZONES || self.zones.contains_key(zone) {
            return;
        }
        let idle = self
            .zones
            .iter()
            .filter(|(_, zone)| zone.idle >= FORGET)
            .max_by(|a, b| a.1.idle.total_cmp(&b.1.idle))
            .map(|(name, _)| Arc::clone(name));
        if let Some(idle) = idle {
            self.zones.remove(&idle);
        }
    }

    fn take_in_whole(&mut self, window: &Window, made_up: f32, now: f64) {
        let mix = self.distance_of_types(window);
        let entropy = self.picture.entropy();
        let whole = &self.whole;
        let mut values = quantity::of_whole(window, made_up, (entropy, mix), |quantity| {
            whole.usual(quantity, now)
        });
        // the sum of the zones' is more exact than a part of the whole
        let sum: f32 = self.zones.values().map(|zone| zone.now[MADE_UP]).sum();
        values[MADE_UP] = sum;
        self.now = values;
        for (ring, value) in self.rings.iter_mut().zip(values) {
            ring.push(value);
        }
    }

    /// How far the types asked for are from the usual mix: 0 the same, 1 nothing in common.
    fn distance_of_types(&self, window: &Window) -> f32 {
        let all: u32 = window.totals.qtypes.iter().sum();
        let usual: f32 = self.mix.iter().sum();
        if all < 20 || usual <= 0.0 {
            return self.whole.recent[MIX].value;
        }
        let differences = window
            .totals
            .qtypes
            .iter()
            .zip(&self.mix)
            .map(|(now, before)| (*now as f32 / all as f32 - before / usual).abs() / 2.0);
        differences.sum()
    }

    /// Learns what is usual, but for what an incident is about or could be.
    fn learn(&mut self, window: &Window, now: f64) {
        let seconds = window.seconds;
        let frozen = self.cases.freeze() || self.is_absurd(window);
        if frozen {
            self.whole.turn(now);
        } else {
            let values = as_if_known(self.now, self.age);
            self.whole.learn(&values, &FLOORS, seconds, now);
            self.servers.learn(seconds);
            let all: u32 = window.totals.qtypes.iter().sum();
            if all > 0 {
                for (usual, count) in self.mix.iter_mut().zip(window.totals.qtypes) {
                    *usual += (count as f32 / all as f32 - *usual) * (seconds / 60.0).min(1.0);
                }
            }
        }
        let floors = quantity::zone_floors();
        for zone in self.zones.values_mut() {
            if frozen {
                zone.habits.turn(now);
            } else {
                let values = as_if_known(zone.now, self.age);
                zone.habits.learn(&values, &floors, seconds, now);
            }
        }
    }

    /// In the first seconds, when nothing is known yet: whether this cannot be usual in any case.
    fn is_absurd(&self, window: &Window) -> bool {
        let whole = &window.totals.counts;
        let missing = whole.nxdomain.saturating_add(whole.denied);
        let answers = whole.answers.saturating_add(whole.denied);
        let queries = self.now[QUERIES].max(1.0);
        self.age < 60.0
            && queries > 100.0
            && (self.now[quantity::BULKY] > 0.3 * queries
                || self.now[quantity::MALFORMED] > 0.3 * queries
                || self.now[MADE_UP] > 0.4 * queries && missing > answers / 2 && answers > 20)
    }

    /// The last seconds.
    #[must_use]
    pub fn overview(&self, now: f64) -> Overview {
        let scene = self.scene(now);
        let mut zones: Vec<ZoneOverview> = self
            .zones
            .iter()
            .filter(|(_, zone)| zone.idle < KEPT as f32)
            .map(|(name, zone)| {
                let mean =
                    |quantity: usize| zone.rings.get(quantity).map_or(0.0, |it| it.mean(KEPT));
                ZoneOverview {
                    zone: name.to_string(),
                    queries: mean(QUERIES),
                    usual: scene.zone_usual(name, QUERIES),
                    shed: zone.shed.mean(KEPT),
                    nxdomain_share: mean(NXDOMAIN),
                    sources: mean(quantity::SOURCES),
                    new_names: mean(quantity::NEW_NAMES),
                }
            })
            .collect();
        zones.sort_unstable_by(|a, b| {
            b.queries
                .total_cmp(&a.queries)
                .then_with(|| a.zone.cmp(&b.zone))
        });
        zones.truncate(crate::incident::MOST_PARTS);
        Overview {
            at: now,
            seconds: self.picture.length(),
            zones,
            names: self
                .picture
                .names(crate::incident::MOST_PARTS, false, |_, _| true),
            sources: self
                .picture
                .sources(crate::incident::MOST_PARTS, |_, _| true),
            qtypes: self.picture.qtypes(|_, _| true),
        }
    }

    /// The last second, for plots.
    #[must_use]
    pub fn point(&self) -> Point {
        self.points.back().copied().unwrap_or_default()
    }

    /// What each measure of the whole says, in the last second and usually at this hour; nothing for the
    /// usual before anything is learned.
    pub fn readings(&self, now: f64) -> impl Iterator<Item = (Measure, f32, Option<f32>)> {
        let learned = self.age >= SEASON;
        Measure::ALL.into_iter().map(move |measure| {
            let quantity = quantity::of_measure(measure);
            let value = self.now.get(quantity).copied().unwrap_or_default();
            let usual = learned.then(|| self.whole.usual(quantity, now));
            (measure, value, usual)
        })
    }

    /// Octets of memory, at most.
    #[must_use]
    pub fn octets(&self) -> usize {
        let zone = size_of::<Zone>()
            .saturating_add(Habits::<OF_ZONE>::OCTETS)
            .saturating_add(64);
        self.zones
            .capacity()
            .saturating_mul(zone)
            .saturating_add(Spelling::octets())
            .saturating_add(self.picture.octets())
            .saturating_add(self.servers.octets())
            .saturating_add(size_of::<Self>())
    }

    /// What is usual, for a file. About two thousand octets for each zone once a week is known.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut out = vec![VERSION, OF_WHOLE as u8, OF_ZONE as u8];
        out.extend(self.age.min(3600.0).to_le_bytes());
        for part in self.mix {
            out.extend(part.to_le_bytes());
        }
        self.whole.save(&mut out);
        for (name, zone) in &self.zones {
            let Ok(len) = u16::try_from(name.len()) else {
                continue;
            };
            out.extend(len.to_le_bytes());
            out.extend(name.as_bytes());
            zone.habits.save(&mut out);
        }
        out
    }

    /// Takes over what [`Detector::save`] gave. Whether it was understood; otherwise nothing changes.
    pub fn restore(&mut self, octets: &[u8]) -> bool {
        self.read(octets).is_some()
    }

    fn read(&mut self, octets: &[u8]) -> Option<()> {
        let (head, mut rest) = octets.split_first_chunk::<3>()?;
        if *head != [VERSION, OF_WHOLE as u8, OF_ZONE as u8] {
            return None;
        }
        let mut number = || {
            let (number, after) = rest.split_first_chunk::<4>()?;
            rest = after;
            Some(f32::from_le_bytes(*number)).filter(|it| it.is_finite() && *it >= 0.0)
        };
        let age = number()?;
        let mut mix = [0.0; QTYPE_COUNTS];
        for part in &mut mix {
            *part = number()?;
        }
        let whole = Habits::restore(&mut rest)?;
        let mut zones = HashMap::default();
        while !rest.is_empty() {
            let (len, after) = rest.split_first_chunk::<2>()?;
            let (name, after) = after.split_at_checked(u16::from_le_bytes(*len).into())?;
            let name = std::str::from_utf8(name).ok()?;
            rest = after;
            let zone = Zone {
                habits: Habits::restore(&mut rest)?,
                ..Zone::default()
            };
            if zones.len() < MOST_ZONES {
                zones.insert(Arc::from(name), zone);
            }
        }
        self.age = age;
        self.mix = mix;
        self.whole = whole;
        self.zones = zones;
        Some(())
    }
}

/// What is learned from a second of calm: at first, queries from strangers and for names that nobody asked for before as
/// if both were known. Soon they will be, and then are not more than usual.
fn as_if_known<const N: usize>(mut values: [f32; N], age: f32) -> [f32; N] {
    if age < ACQUAINTED {
        let new = values.get(STRANGE).copied().unwrap_or_default()
            + values.get(MADE_UP).copied().unwrap_or_default();
        if let Some(known) = values.get_mut(KNOWN) {
            *known += new;
        }
    }
    values
}

fn point_of(window: &Window, now: f64) -> Point {
    let rate = |events: u32| window.rate(events);
    let whole = &window.totals.counts;
    let known_lost = whole.known_shed.saturating_add(whole.known_given_up);
    let rejected = window
        .totals
        .malformed
        .saturating_add(window.totals.blocked);
    let seconds = window.seconds.max(1e-3);
    Point {
        at: now - f64::from(window.seconds),
        seconds: window.seconds,
        queries: rate(whole.queries.saturating_add(rejected)),
        forwarded: rate(whole.answers),
        answered: rate(
            whole
                .denied
                .saturating_add(whole.challenged)
                .saturating_add(whole.refused),
        ),
        dropped: rate(
            whole
                .dropped
                .saturating_add(whole.overflowed)
                .saturating_add(rejected),
        ),
        expired: rate(whole.expired),
        nxdomain: rate(whole.nxdomain.saturating_add(whole.denied)),
        servfail: rate(whole.servfail),
        malformed: rate(window.totals.malformed),
        tcp: rate(whole.tcp),
        octets_in: whole.octets_in as f32 / seconds,
        octets_out: whole.octets_out as f32 / seconds,
        sources: window.totals.sources.estimate() / seconds.max(1.0),
        new_sources: rate(whole.new_sources),
        new_names: rate(whole.new_names),
        known: rate(whole.known),
        known_served: rate(
            whole
                .known
                .saturating_sub(known_lost)
                .saturating_sub(whole.known_challenged),
        ),
        known_lost: rate(known_lost),
        latency: window.latency().unwrap_or(0.0),
        pressure: window.pressure,
    }
}
