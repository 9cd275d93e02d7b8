//! A second's counts, of one worker or of all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::sample::Sample;
use crate::servers::UpstreamSecond;
use crate::sketch::Sketch;

/// Query types that are counted each for itself; the last count is of all others.
pub const QTYPES: [u16; 15] = [1, 2, 5, 6, 12, 15, 16, 28, 33, 43, 46, 48, 65, 252, 255];
/// Counts of types.
pub const QTYPE_COUNTS: usize = QTYPES.len() + 1;
/// Steps of latency: 64 microseconds, 96, 128, 192 and so on, up to 3 s.
pub const LATENCIES: usize = 32;

/// Events, of the whole or of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Queries, well-formed ones.
    pub queries: u32,
    /// That may go to an upstream.
    pub passed: u32,
    /// That the proxy denied with NXDOMAIN.
    pub denied: u32,
    /// Told to come back over TCP or with a cookie.
    pub challenged: u32,
    /// Refused or answered with another error by the proxy.
    pub refused: u32,
    /// Dropped.
    pub dropped: u32,
    /// Over TCP.
    pub tcp: u32,
    /// From sources that never asked before.
    pub new_sources: u32,
    /// For names without an answer so far.
    pub new_names: u32,
    /// Of these, for names that do not exist by themselves, or of which nothing is known.
    pub doubtful: u32,
    /// For names that exist by a wildcard only, among the doubtful.
    pub covered: u32,
    /// From known sources, over another path than theirs.
    pub odd_hops: u32,
    /// For large answers, from sources without a proof.
    pub bulky: u32,
    /// From strangers, for what is neither doubtful nor bulky.
    pub strange: u32,
    /// From known sources, over their path, for names that exist: meant well.
    pub known: u32,
    /// Of these, shed at once.
    pub known_shed: u32,
    /// Of these, told to come back.
    pub known_challenged: u32,
    /// Of these, given up later: no room, or no answer in time.
    pub known_given_up: u32,
    /// Answers of upstreams.
    pub answers: u32,
    /// Of these, NXDOMAIN.
    pub nxdomain: u32,
    /// Of these, SERVFAIL.
    pub servfail: u32,
    /// Queries that passed and that no upstream answered in time.
    pub expired: u32,
    /// Queries that passed and found no room.
    pub overflowed: u32,
    /// Octets of queries,
    pub octets_in: u64,
    /// and of upstreams' answers.
    pub octets_out: u64,
    /// Octets of those queries whose answers' octets are known.
    pub octets_asked: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        macro_rules! sum { ($($field:ident)*) => { $(self.$field = self.$field.saturating_add(other.$field);)* } }
        sum!(queries passed denied challenged refused dropped tcp new_sources new_names doubtful covered
            odd_hops bulky strange known known_shed known_challenged known_given_up answers nxdomain servfail
            expired overflowed octets_in octets_out octets_asked);
    }
}

/// What is counted of all zones together.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Of all zones. While a worker counts, what is of no zone.
    pub counts: Counts,
    /// All sources,
    pub sources: Sketch<1024>,
    /// and those that are strangers.
    pub strangers: Sketch<1024>,
    /// Queries by type, in the order of [`QTYPES`], all others last.
    pub qtypes: [u32; QTYPE_COUNTS],
    /// Answers by latency, in steps.
    pub latencies: [u32; LATENCIES],
    /// Packets that are no well-formed queries.
    pub malformed: u32,
    /// Packets that the lists of sources stopped.
    pub blocked: u32,
    /// TCP connections opened,
    pub connections: u32,
    /// and turned away.
    pub turned_away: u32,
    /// Zone transfers begun.
    pub transfers: u32,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            sources: Sketch::default(),
            strangers: Sketch::default(),
            qtypes: [0; QTYPE_COUNTS],
            latencies: [0; LATENCIES],
            malformed: 0,
            blocked: 0,
            connections: 0,
            turned_away: 0,
            transfers: 0,
        }
    }
}

impl Totals {
    /// Adds another's.
    fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.sources.join(&other.sources);
        self.strangers.join(&other.strangers);
        sum(&mut self.qtypes, &other.qtypes);
        sum(&mut self.latencies, &other.latencies);
        for (own, others) in [
            (&mut self.malformed, other.malformed),
            (&mut self.blocked, other.blocked),
            (&mut self.connections, other.connections),
            (&mut self.turned_away, other.turned_away),
            (&mut self.transfers, other.transfers),
        ] {
            *own = own.saturating_add(others);
        }
    }
}

/// A zone's second.
#[derive(Clone, Debug)]
pub struct ZoneWindow {
    /// Its name; `.` for all names outside zones that are not told apart.
    pub zone: Arc<str>,
    /// Whether it is one of the configuration.
    pub configured: bool,
    /// Its counts.
    pub counts: Counts,
    /// Its sources,
    pub sources: Sketch<64>,
    /// and the names that were doubtful.
    pub doubtful_names: Sketch<64>,
}

/// A second's worth of what was counted.
#[derive(Clone, Debug)]
pub struct Window {
    /// How long it is, in seconds.
    pub seconds: f32,
    /// When it ended.
    pub until: Instant,
    /// Counts of all zones together.
    pub totals: Totals,
    /// Pressure, 0 to 1: for the owner to fill in, the highest counts.
    pub pressure: f32,
    /// What each name server behind did: for the owner to fill in.
    pub upstreams: Vec<UpstreamSecond>,
    /// Zones with queries or answers.
    pub zones: Vec<ZoneWindow>,
    /// A sample of the queries.
    pub samples: Vec<Sample>,
    /// A sample of who sent malformed packets.
    pub malformed_sources: Vec<(std::net::IpAddr, u32)>,
}

impl Window {
    /// Without any event.
    #[must_use]
    pub fn empty(until: Instant, seconds: f32) -> Self {
        Self {
            seconds,
            until,
            totals: Totals::default(),
            pressure: 0.0,
            upstreams: Vec::new(),
            zones: Vec::new(),
            samples: Vec::new(),
            malformed_sources: Vec::new(),
        }
    }

    /// Adds what another worker counted in the same second.
    pub fn merge(&mut self, other: Self) {
        self.seconds = self.seconds.max(other.seconds);
        self.until = self.until.max(other.until);
        self.totals.add(&other.totals);
        self.pressure = self.pressure.max(other.pressure);
        let mut places: HashMap<Arc<str>, u16> = (0..)
            .zip(&self.zones)
            .map(|(place, zone)| (Arc::clone(&zone.zone), place))
            .collect();
        let mut moved = Vec::with_capacity(other.zones.len());
        for zone in other.zones {
            let known = places.get(&zone.zone).copied();
            let place =
                known.unwrap_or_else(|| u16::try_from(self.zones.len()).unwrap_or(u16::MAX));
            moved.push(place);
            match self.zones.get_mut(usize::from(place)) {
                Some(own) => {
                    own.counts.add(&zone.counts);
                    own.sources.join(&zone.sources);
                    own.doubtful_names.join(&zone.doubtful_names);
                }
                None => {
                    places.insert(Arc::clone(&zone.zone), place);
                    self.zones.push(zone);
                }
            }
        }
        let own = self.samples.len();
        self.samples.extend(other.samples);
        for sample in self.samples.iter_mut().skip(own) {
            sample.zone = moved
                .get(usize::from(sample.zone))
                .copied()
                .unwrap_or(u16::MAX);
        }
        self.malformed_sources.extend(other.malformed_sources);
    }

    /// Events a second.
    #[must_use]
    pub fn rate(&self, events: u32) -> f32 {
        events as f32 / self.seconds.max(1e-3)
    }

    /// The median of the upstreams' latency in seconds, if there were answers.
    #[must_use]
    pub fn latency(&self) -> Option<f32> {
        let latencies = &self.totals.latencies;
        let all: u32 = latencies.iter().sum();
        let mut seen = 0_u32;
        let step = latencies.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen > all / 2
        })?;
        let half = if step & 1 == 0 { 1.25 } else { 1.75 };
        Some(64e-6 * half * 2.0_f32.powi((step >> 1) as i32))
    }
}

/// The step of a latency in microseconds.
#[inline]
pub(crate) const fn latency_step(us: u32) -> usize {
    let us = if us < 64 { 64 } else { us };
    let octave = us.ilog2();
    let half = us >> octave.wrapping_sub(1) & 1;
    (octave.wrapping_sub(6) << 1 | half) as usize
}

fn sum<const N: usize>(own: &mut [u32; N], other: &[u32; N]) {
    for (own, other) in own.iter_mut().zip(other) {
        *own = own.saturating_add(*other);
    }
}
