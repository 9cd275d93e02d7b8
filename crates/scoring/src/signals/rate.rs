//! `rate`: queries per time from one source, and the same question again and again.
//!
//! Counts each query for its address and for the prefixes around it at once: by default /32 and
//! /24 for IPv4, /128, /64 and /48 for IPv6. A query that exceeds any of the limits gets the
//! points, once. What stays within the limits gets none, also from a source that sends much more,
//! so a busy resolver keeps its share.
//!
//! A resolver remembers answers, so it does not ask the same question many times a second. Who does
//! is a bot that sends one query over and over, the forged victim of a reflection attack, or part of a
//! loop between two servers. The signal follows (source, question) pairs, and (prefix, question) pairs
//! of sources that were not here before. A pair stays over its limit for as long as it keeps asking at
//! that rate, whether it is answered or not. When queries over these limits become many times as
//! frequent as usual, the points for them are certain evidence.
//!
//! ```yaml
//! signals:
//!   rate:
//!     v4: { 32: 200/s, 24: 2000/s }
//!     v6: { 128: 200/s, 64: 200/s, 48: 2000/s }
//!     burst: 2s        # a source that was quiet may send what 2 s allow at once
//!     points: 25
//!     memory: 4MiB     # per worker
//!     questions:
//!       known: 20/s    # the same question, from a source that was here before
//!       new: 4/s       # from one that was not
//!       prefix: 40/s   # from a /24 or /48 of such sources
//!       points: 30
//!       floor: 50/s    # queries over these limits, of all sources, that are always fine
//!       memory: 4MiB
//! ```
//!
//! A source that was here before and asks for a name that exists gets two fifths of the points: under
//! pressure it then waits longer than others, but is not challenged.
//!
//! Source addresses of UDP queries can be forged, so over-limit is a reason for points, not for
//! blocking. At rest these points lead to nothing.
//!
//! The memory is fixed: 8 octets for each source and prefix length, and for each pair. When it is
//! full, those that are least over their share are forgotten and begin afresh: a flood from very many
//! addresses makes the signal lenient, never stricter.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Alarm, Building, Expected, Input, Signal, Table, prefix_key, table, table_fits};
use crate::cells::{Cells, Limit};
use crate::config::{self, Memory, Mode, Span};
use crate::context::Transport;
use crate::defence::Level;
use crate::evidence::{Given, Kind};
use crate::memory::{Acquaintance, NameStanding, Surge, Threshold};
use crate::recorder::Recorder;

/// Settings of the `rate` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "RateSignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// Rates by IPv4 prefix length (0 to 32); a length left out, or `off`, has no limit.
    pub v4: BTreeMap<u8, config::Rate>,
    /// Rates by IPv6 prefix length (0 to 128); a length left out, or `off`, has no limit.
    pub v6: BTreeMap<u8, config::Rate>,
    /// How long a source that was quiet may save up for: what its rate allows in this time may
    /// come at once.
    pub burst: Span,
    /// Points for a query over a limit.
    pub points: u16,
    /// Memory of the table, per worker.
    pub memory: Memory,
    /// The same question again and again.
    pub questions: Questions,
}

/// Limits of how often the same question may come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "RateQuestions")]
pub struct Questions {
    /// From an address that was here before.
    pub known: config::Rate,
    /// From an address that was not.
    pub new: config::Rate,
    /// From a /24 (IPv4) or /48 (IPv6), of addresses that were not here before.
    pub prefix: config::Rate,
    /// Points for a query over a limit; 0 for off.
    pub points: u16,
    /// Queries over these limits, of all sources, that are always fine.
    pub floor: config::Rate,
    /// Memory of the table of pairs, per worker.
    pub memory: Memory,
}

impl Default for Questions {
    fn default() -> Self {
        let rate = config::Rate::per_second;
        Self {
            known: rate(20),
            new: rate(4),
            prefix: rate(40),
            points: 30,
            floor: rate(50),
            memory: Memory(4 << 20),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let rate = config::Rate::per_second;
        Self {
            mode: Mode::Enforce,
            v4: BTreeMap::from([(32, rate(500)), (24, rate(2000))]),
            v6: BTreeMap::from([(128, rate(500)), (64, rate(500)), (48, rate(2000))]),
            burst: Span(Duration::from_secs(1)),
            points: 25,
            memory: Memory(4 << 20),
            questions: Questions::default(),
        }
    }
}

/// The `rate` signal.
#[derive(Debug)]
pub(crate) struct Rate {
    v4: Vec<Step>,
    v6: Vec<Step>,
    points: i32,
    memory: usize,
    questions: Repetition,
}

/// What a worker remembers for it.
#[derive(Debug, Default)]
pub(crate) struct State {
    sources: Table,
    pairs: Table,
    /// The hashes of the next query: of its prefixes that have a limit, of its (source, question)
    /// pair and of its (prefix, question) pair.
    expected: ([u64; STEPS], u64, u64),
    surge: Surge,
}

#[derive(Debug)]
struct Step {
    length: u8,
    limit: Limit,
    rate: config::Rate,
}

impl Signal for Rate {
    type Config = Config;
    type State = State;
    const KIND: Kind = Kind::Conduct;

    fn build(config: &Config, building: &mut Building<'_>) -> Self {
        let mut levels = |rates: &BTreeMap<u8, config::Rate>, field: &str, longest: u8| {
            let mut levels = Vec::new();
            for (&length, &rate) in rates {
                if length > longest {
                    building.wrong(
                        &format!("{field}.{length}"),
                        format!("found prefix length {length}, expected 0 to {longest}"),
                    );
                }
                if let config::Rate::Limit { events, per } = rate {
                    levels.push(Step {
                        length,
                        limit: Limit::new(events, per, burst(events, per, config.burst.0)),
                        rate,
                    });
                }
            }
            levels
        };
        let v4 = levels(&config.v4, "v4", 32);
        let v6 = levels(&config.v6, "v6", 128);
        let memory = if v4.is_empty() && v6.is_empty() || config.points == 0 {
            0
        } else {
            config.memory.0.max(64)
        };
        Self {
            v4,
            v6,
            points: i32::from(config.points),
            memory,
            questions: Repetition::new(&config.questions, building),
        }
    }

    fn state(&self, seed: [u64; 4]) -> State {
        let [a, b, c, d] = seed;
        State {
            sources: table(self.memory, seed),
            pairs: table(self.questions.memory, [d, a, b, c]),
            expected: ([0; STEPS], 0, 0),
            surge: Surge::default(),
        }
    }

    fn fits(&self, state: &State) -> bool {
        table_fits(&state.sources, self.memory) && table_fits(&state.pairs, self.questions.memory)
    }

    #[inline]
    fn expect(&self, state: &mut State, expected: &Expected) {
        let (prefixes, pair, prefix_pair) = &mut state.expected;
        if let Some(cells) = &state.sources {
            for (hash, step) in prefixes.iter_mut().zip(self.steps(expected.source)) {
                *hash = cells.expect(prefix_key(expected.source, step.length, step.length));
            }
        }
        if let Some(cells) = &state.pairs {
            let question = expected.name_hash ^ u64::from(expected.qtype).rotate_left(48);
            let hash = |v4, v6| {
                let (scope, bits) = prefix_key(expected.source, v4, v6);
                cells.expect((scope ^ question, bits))
            };
            (*pair, *prefix_pair) = (hash(32, 128), hash(24, 48));
        }
    }

    #[inline]
    fn judge<R: Recorder>(&self, state: &mut State, input: &Input<'_>, recorder: &mut R) -> Given {
        let (prefixes, pair, prefix_pair) = state.expected;
        let over = state
            .sources
            .as_mut()
            .is_some_and(|cells| self.over_a_limit(cells, &prefixes, input, recorder));
        let sighting = input.sighting;
        let expected =
            sighting.acquaintance == Acquaintance::Known && sighting.name == NameStanding::Exists;
        let points = match over {
            false => 0,
            // busy, but known, and after names that exist: last in the queue, not challenged
            true if expected => self.points.saturating_mul(2) / 5,
            true => self.points,
        };
        let Some(pairs) = &mut state.pairs else {
            return Given::doubtful(points);
        };
        if !self
            .questions
            .repeated(pairs, (pair, prefix_pair), input, recorder)
        {
            return Given::doubtful(points);
        }
        if R::COMMIT {
            state
                .surge
                .count(1.0, input.now, self.questions.threshold, true);
        }
        let points = points.saturating_add(self.questions.points);
        if state.surge.level() == Level::Attack {
            Given::certain(points)
        } else {
            Given::doubtful(points)
        }
    }

    fn octets(&self, state: &State) -> usize {
        let tables = [&state.sources, &state.pairs];
        tables.into_iter().flatten().map(Cells::octets).sum()
    }

    fn surges<'a>(&self, state: &'a mut State) -> impl Iterator<Item = &'a mut Surge> {
        std::iter::once(&mut state.surge)
    }

    fn alarm(&self, state: &mut State, now: u64) -> Option<Alarm> {
        state.surge.advance(now, self.questions.threshold);
        Some(Alarm::of(&state.surge))
    }
}

/// Prefix lengths with a limit of one family whose places are known ahead.
const STEPS: usize = 4;

impl Rate {
    #[inline]
    fn steps(&self, source: IpAddr) -> &[Step] {
        match source {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        }
    }

    #[inline]
    fn over_a_limit<R: Recorder>(
        &self,
        cells: &mut Cells,
        expected: &[u64; STEPS],
        input: &Input<'_>,
        recorder: &mut R,
    ) -> bool {
        let mut over = false;
        for (number, step) in self.steps(input.source).iter().enumerate() {
            let hash = expected
                .get(number)
                .copied()
                .unwrap_or_else(|| cells.hash(prefix_key(input.source, step.length, step.length)));
            if step
                .limit
                .exceeded_hashed(cells, hash, input.now, R::COMMIT)
            {
                over = true;
                recorder.say(|| format!("{}/{} is over {}", input.source, step.length, step.rate));
            }
        }
        over
    }
}

/// Times as many queries over the limits of questions as usual that are fine.
const FACTOR: u16 = 8;
/// 2 to the power of this nanoseconds: 134 ms.
const SLOT: u32 = 27;
/// Bits of a pair's slot; the count stands above.
const SLOT_BITS: u32 = 24;
/// A pair's count is kept in units of a sixty-fourth.
const UNITS: f32 = 64.0;
/// Slots in which a pair's count fades to `1/e`: 2 s.
const FADES_IN: f32 = 15.0;
/// Seconds that a count looks back on.
const LOOKS_BACK: f32 = 2.0;

/// The same question again and again.
#[derive(Debug)]
struct Repetition {
    /// Counts of a pair that are fine.
    known: f32,
    new: f32,
    prefix: f32,
    points: i32,
    threshold: Threshold,
    memory: usize,
}

impl Repetition {
    fn new(config: &Questions, building: &mut Building<'_>) -> Self {
        let count = |rate: config::Rate| match rate {
            config::Rate::Limit { events, per } => {
                (events as f32 / per.as_secs_f32().max(1e-3) * LOOKS_BACK).max(1.0)
            }
            config::Rate::Off => f32::INFINITY,
        };
        Self {
            known: count(config.known),
            new: count(config.new),
            prefix: count(config.prefix),
            points: config.points.into(),
            threshold: building.threshold(config.floor, FACTOR),
            memory: if config.points == 0 {
                0
            } else {
                config.memory.0.max(64)
            },
        }
    }

    /// Counts the query; whether its question comes too often from its source or prefix.
    #[inline]
    fn repeated<R: Recorder>(
        &self,
        pairs: &mut Cells,
        (pair, prefix_pair): (u64, u64),
        input: &Input<'_>,
        recorder: &mut R,
    ) -> bool {
        if input.context.transport == Transport::Tcp {
            return false;
        }
        let known = input.sighting.acquaintance == Acquaintance::Known;
        let limit = if known { self.known } else { self.new };
        let asked = count::<R>(pairs, pair, input.now);
        if asked > limit {
            recorder.say(|| format!("the same question {asked:.0} times lately"));
            return true;
        }
        if known {
            return false;
        }
        let asked = count::<R>(pairs, prefix_pair, input.now);
        if asked > self.prefix {
            recorder.say(|| format!("the same question {asked:.0} times lately from its prefix"));
        }
        asked > self.prefix
    }
}

/// Counts one event of the pair with this hash; how many there were lately, this one included.
#[inline]
fn count<R: Recorder>(pairs: &mut Cells, hash: u64, now: u64) -> f32 {
    const SLOTS: u64 = (1 << SLOT_BITS) - 1;
    let slot = now >> SLOT & SLOTS;
    let faded = |state: u64| {
        let age = slot.wrapping_sub(state) & SLOTS;
        let count = (state >> SLOT_BITS) as f32 / UNITS;
        match age {
            0 => count,
            1..=150 => count * (-(age as f32) / FADES_IN).exp(),
            _ => 0.0,
        }
    };
    let worth = |state: u64| {
        if slot.wrapping_sub(state) & SLOTS > 150 {
            0
        } else {
            state >> SLOT_BITS
        }
    };
    let found = pairs.find_hashed(hash, worth);
    let times = found.state.map_or(0.0, faded) + 1.0;
    if R::COMMIT {
        let units = (times * UNITS).min(65_535.0) as u64;
        pairs.put(&found, units << SLOT_BITS | slot);
    }
    times
}

/// Events at once that `rate` allows in `span`, at least 1.
fn burst(events: u32, per: Duration, span: Duration) -> u32 {
    let at_once = u128::from(events)
        .saturating_mul(span.as_nanos())
        .checked_div(per.as_nanos())
        .unwrap_or_default();
    u32::try_from(at_once).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::test::Alone;
    use crate::testing::{context, query};

    const SECOND: u64 = 1_000_000_000;

    /// With limits by prefix only.
    fn rate(yaml: &str) -> Alone<Rate> {
        let mut config: Config = serde_yaml::from_str(yaml).unwrap();
        config.questions.points = 0;
        Alone::new(&config, &BTreeMap::new())
    }

    #[test]
    fn an_address_and_the_prefix_around_it_are_limited_at_once() {
        let mut rate = rate("{ v4: { 32: 10/s, 24: 25/s }, points: 7 }");
        let (query, _) = query("example.com", 1);
        let mut over = |source: &str, times: usize| {
            (0..times)
                .filter(|_| rate.judge(&query, &context(source), SECOND) == 7)
                .count()
        };
        assert_eq!(over("192.0.2.1", 15), 5);
        assert_eq!(over("192.0.2.2", 10), 0);
        assert_eq!(
            over("192.0.2.3", 10),
            10,
            "each of the 15 queries of the first counted for the /24, too"
        );
        assert_eq!(over("192.0.3.1", 10), 0);
        assert_eq!(
            over("::ffff:192.0.3.1", 1),
            1,
            "a mapped address is the same source"
        );
        assert_eq!(
            over("2001:db8::1", 501),
            1,
            "IPv6 keeps its default of 500/s"
        );
    }

    #[test]
    fn ipv6_is_limited_by_address_and_two_prefixes() {
        let mut rate = rate("{ v6: { 128: 2/s, 64: 3/s, 48: 4/s }, points: 1 }");
        let (query, _) = query("example.com", 1);
        let mut over = |source: &str, times: usize| {
            (0..times)
                .filter(|_| rate.judge(&query, &context(source), SECOND) == 1)
                .count()
        };
        assert_eq!(over("2001:db8::1", 2), 0);
        assert_eq!(over("2001:db8::2", 1), 0);
        assert_eq!(over("2001:db8::2", 1), 1, "the /64 is used up");
        assert_eq!(
            over("2001:db8:0:1::1", 1),
            1,
            "and so is the /48, by the query that exceeded the /64"
        );
    }

    #[test]
    fn limits_may_be_off() {
        let mut rate = rate("{ v4: { 32: off }, v6: {} }");
        assert!(
            rate.state.sources.is_none() && rate.state.pairs.is_none(),
            "no memory is taken"
        );
        let (query, _) = query("example.com", 1);
        assert!((0..100_000).all(|_| rate.judge(&query, &context("192.0.2.1"), SECOND) == 0));
    }

    #[test]
    fn a_burst_is_what_its_time_allows() {
        let mut rate = rate("{ v4: { 32: 10/s }, burst: 3s }");
        let (query, _) = query("example.com", 1);
        assert_eq!(
            (0..100)
                .filter(|_| rate.judge(&query, &context("192.0.2.1"), SECOND) == 0)
                .count(),
            30
        );
    }
}
