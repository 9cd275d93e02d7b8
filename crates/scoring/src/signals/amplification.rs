//! `amplification`: how much larger responses are than queries.
//!
//! A reflection attack asks in its victim's name for the largest answers there are. Over UDP, where
//! the source may be forged, this signal gives points
//!
//! - to queries of type ANY;
//! - to queries from a prefix (IPv4 /24, IPv6 /48) whose recent responses were many times as large as
//!   its queries;
//! - to queries from a prefix that has used up its byte budget: octets of recent responses beyond ten
//!   times those of its queries, which is about what ordinary answers come to.
//!
//! "Recent" fades by half every eight seconds. When queries beyond the budget become many times as
//! frequent as usual, the points for them are certain evidence. Sources that proved their address, and
//! queries over TCP, get no points.
//!
//! ```yaml
//! signals:
//!   amplification:
//!     any: 5            # points for type ANY
//!     ratio: 15         # response octets to query octets
//!     from: 256KiB
//!     points: 15
//!     budget: 1MiB
//!     over-budget: 20   # points for a query beyond the budget
//!     floor: 50/s       # queries beyond the budget that are always fine
//!     memory: 1MiB      # per worker
//! ```
//!
//! The memory is fixed: 8 octets a prefix. When it is full, the prefixes with the smallest recent
//! responses are forgotten.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Alarm, Building, Exchange, Expected, Input, Signal, Table, prefix_key, table, table_fits,
};
use crate::config::{Memory, Mode, Rate};
use crate::context::Transport;
use crate::defence::Level;
use crate::evidence::{Given, Kind};
use crate::memory::{Surge, Threshold};
use crate::recorder::Recorder;
use dnscrub_wire::qtype;

/// Settings of the `amplification` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "AmplificationSignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// Points for queries of type ANY over UDP.
    pub any: u16,
    /// Response octets to query octets, of one prefix, that are too many; 0 for off.
    pub ratio: u16,
    /// Octets of recent responses before the ratio is looked at, at most 8MiB.
    pub from: Memory,
    /// Points for queries from a prefix above the ratio.
    pub points: u16,
    /// Octets of recent responses, beyond ten times those of the queries, that a prefix may have
    /// without a proof of its addresses, at most 8MiB; 0 for off.
    pub budget: Memory,
    /// Points for queries from a prefix beyond its budget.
    pub over_budget: u16,
    /// Queries beyond the budget, of all sources, that are always fine.
    pub floor: Rate,
    /// Memory of the table, per worker.
    pub memory: Memory,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            any: 5,
            ratio: 15,
            from: Memory(256 << 10),
            points: 15,
            budget: Memory(1 << 20),
            over_budget: 20,
            floor: Rate::per_second(50),
            memory: Memory(1 << 20),
        }
    }
}

/// The `amplification` signal.
#[derive(Debug)]
pub(crate) struct Amplification {
    any: i32,
    ratio: u64,
    from: u64,
    points: i32,
    budget: u64,
    over_budget: i32,
    threshold: Threshold,
    memory: usize,
}

/// What ordinary answers come to, as a multiple of their queries.
const ORDINARY: u64 = 10;
/// Times as many queries beyond the budget as usual that are fine.
const FACTOR: u16 = 8;

/// The sums of prefixes, and the surge of queries beyond their budget.
#[derive(Debug, Default)]
pub(crate) struct State {
    sums: Table,
    /// The hash of the prefix that asks next.
    expected: u64,
    surge: Surge,
}

/// 2 to the power of this nanoseconds are a half-life, about eight seconds.
const HALF_LIFE: u32 = 33;
/// Bits of a sum; at its greatest value both sums of a prefix are halved.
const SUM_BITS: u32 = 16;
const SUM_MAX: u64 = (1 << SUM_BITS) - 1;
/// Response octets are counted in units of 256, rounded to the nearest,
const OUT_UNIT: u64 = 256;
/// query octets in units of 16, rounded up.
const IN_UNIT: u64 = 16;

/// Sums of a prefix, in units. Packed into 40 bits: 8 of half-lives (which come round after 37
/// minutes), 16 of responses, 16 of queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    out: u64,
    into: u64,
}

impl Sums {
    fn unpack(word: u64, now: u64) -> Self {
        let age = ((now >> HALF_LIFE) as u8).wrapping_sub((word >> (2 * SUM_BITS)) as u8);
        let fade = u32::from(age).min(SUM_BITS);
        Self {
            out: (word >> SUM_BITS & SUM_MAX) >> fade,
            into: (word & SUM_MAX) >> fade,
        }
    }

    const fn pack(mut self, now: u64) -> u64 {
        while self.out > SUM_MAX || self.into > SUM_MAX {
            self.out >>= 1;
            self.into >>= 1;
        }
        ((now >> HALF_LIFE) & 0xff) << (2 * SUM_BITS) | self.out << SUM_BITS | self.into
    }

    const fn response_octets(self) -> u64 {
        self.out.saturating_mul(OUT_UNIT)
    }

    const fn query_octets(self) -> u64 {
        self.into.saturating_mul(IN_UNIT)
    }
}

impl Signal for Amplification {
    type Config = Config;
    type State = State;
    const KIND: Kind = Kind::Conduct;

    fn build(config: &Config, building: &mut Building<'_>) -> Self {
        if config.from.0 > 8 << 20 {
            building.wrong(
                "from",
                format!("found {}, expected at most 8MiB", config.from),
            );
        }
        if config.budget.0 > 8 << 20 {
            building.wrong(
                "budget",
                format!("found {}, expected at most 8MiB", config.budget),
            );
        }
        let by_ratio = config.ratio > 0 && config.points > 0;
        let by_budget = config.budget.0 > 0 && config.over_budget > 0;
        let memory = if !by_ratio && !by_budget {
            0
        } else {
            config.memory.0.max(64)
        };
        Self {
            any: i32::from(config.any),
            ratio: u64::from(config.ratio),
            from: config.from.0 as u64,
            points: i32::from(config.points),
            budget: if by_budget {
                config.budget.0 as u64
            } else {
                u64::MAX
            },
            over_budget: i32::from(config.over_budget),
            threshold: building.threshold(config.floor, FACTOR),
            memory,
        }
    }

    fn state(&self, seed: [u64; 4]) -> State {
        State {
            sums: table(self.memory, seed),
            expected: 0,
            surge: Surge::default(),
        }
    }

    fn fits(&self, state: &State) -> bool {
        table_fits(&state.sums, self.memory)
    }

    #[inline]
    fn expect(&self, state: &mut State, expected: &Expected) {
        if let Some(cells) = &state.sums {
            state.expected = cells.expect(prefix_key(expected.source, 24, 48));
        }
    }

    #[inline]
    fn judge<R: Recorder>(&self, state: &mut State, input: &Input<'_>, recorder: &mut R) -> Given {
        if input.context.transport == Transport::Tcp || input.sighting.verified {
            return Given::NOTHING;
        }
        let mut points = 0_i32;
        if input.query.qtype == qtype::ANY && self.any > 0 {
            points = self.any;
            recorder.say(|| format!("type ANY over UDP (+{})", self.any));
        }
        let State {
            sums,
            expected,
            surge,
        } = state;
        let Some(cells) = sums else {
            return Given::doubtful(points);
        };
        let found = cells.find_hashed(*expected, |_| 0);
        let Some(word) = found.state else {
            return Given::doubtful(points);
        };
        let sums = Sums::unpack(word, input.now);
        let (out, into) = (sums.response_octets(), sums.query_octets());
        if self.ratio > 0 && out >= self.from && out > into.saturating_mul(self.ratio) {
            points = points.saturating_add(self.points);
            recorder.say(|| {
                format!("recent responses to its prefix: {out} octets for {into} octets of queries (+{})", self.points)
            });
        }
        if out.saturating_sub(into.saturating_mul(ORDINARY)) <= self.budget {
            return Given::doubtful(points);
        }
        points = points.saturating_add(self.over_budget);
        recorder.say(|| format!("beyond its prefix's byte budget (+{})", self.over_budget));
        if R::COMMIT {
            surge.count(1.0, input.now, self.threshold, true);
        }
        if surge.level() == Level::Attack {
            Given::certain(points)
        } else {
            Given::doubtful(points)
        }
    }

    fn octets(&self, state: &State) -> usize {
        state.sums.as_ref().map_or(0, crate::cells::Cells::octets)
    }

    fn surges<'a>(&self, state: &'a mut State) -> impl Iterator<Item = &'a mut Surge> {
        std::iter::once(&mut state.surge)
    }

    fn alarm(&self, state: &mut State, now: u64) -> Option<Alarm> {
        state.surge.advance(now, self.threshold);
        Some(Alarm::of(&state.surge))
    }

    #[inline]
    fn observe_response(&self, state: &mut State, seen: &Exchange) {
        let Some(cells) = &mut state.sums else { return };
        if seen.transport == Transport::Tcp {
            return;
        }
        let found = cells.find(prefix_key(seen.source, 24, 48), |word| {
            Sums::unpack(word, seen.now).out
        });
        let mut sums = found
            .state
            .map(|word| Sums::unpack(word, seen.now))
            .unwrap_or_default();
        sums.out = sums
            .out
            .saturating_add(u64::from(seen.response_len).saturating_add(OUT_UNIT / 2) / OUT_UNIT);
        sums.into = sums
            .into
            .saturating_add(u64::from(seen.query_len).div_ceil(IN_UNIT));
        cells.put(&found, sums.pack(seen.now));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::signals::test::Alone;
    use crate::testing::{context, query, tcp};

    const SECOND: u64 = 1_000_000_000;

    fn amplification(yaml: &str) -> Alone<Amplification> {
        Alone::new(&serde_yaml::from_str(yaml).unwrap(), &BTreeMap::new())
    }

    impl Alone<Amplification> {
        fn answer(&mut self, source: &str, times: usize, response_len: u16, now: u64) {
            let context = context(source);
            for _ in 0..times {
                let seen = Exchange {
                    source: context.source,
                    transport: context.transport,
                    query_len: 50,
                    response_len,
                    now,
                };
                self.signal.observe_response(&mut self.state, &seen);
            }
        }
    }

    #[test]
    fn type_any_gives_points_over_udp_only() {
        let mut signal = amplification("{ any: 9 }");
        assert_eq!(
            signal.judge(&query("example.com", 255).0, &context("192.0.2.1"), 0),
            9
        );
        assert_eq!(
            signal.judge(&query("example.com", 255).0, &tcp("192.0.2.1"), 0),
            0
        );
        assert_eq!(
            signal.judge(&query("example.com", 1).0, &context("192.0.2.1"), 0),
            0
        );
    }

    #[test]
    fn large_responses_give_points_to_their_prefix_and_fade() {
        let mut signal = amplification("{ ratio: 10, from: 64KiB, points: 8 }");
        let (query, _) = query("example.com", 48);
        signal.answer("192.0.2.1", 20, 3000, SECOND);
        assert_eq!(
            signal.judge(&query, &context("192.0.2.2"), SECOND),
            0,
            "not enough to tell"
        );
        signal.answer("192.0.2.1", 20, 3000, SECOND);
        assert_eq!(signal.judge(&query, &context("192.0.2.2"), SECOND), 8);
        assert_eq!(signal.judge(&query, &tcp("192.0.2.2"), SECOND), 0);
        assert_eq!(signal.judge(&query, &context("192.0.3.2"), SECOND), 0);
        assert_eq!(signal.judge(&query, &context("192.0.2.2"), 30 * SECOND), 0);
    }

    #[test]
    fn usual_responses_give_none() {
        let mut signal = amplification("{}");
        signal.answer("192.0.2.1", 1_000_000, 400, SECOND);
        assert_eq!(
            signal.judge(&query("example.com", 1).0, &context("192.0.2.1"), SECOND),
            0
        );
    }

    #[test]
    fn sums_keep_their_ratio_when_they_are_full() {
        let mut signal = amplification("{ ratio: 10, from: 64KiB, points: 8, budget: 0B }");
        signal.answer("192.0.2.1", 100_000, 4000, SECOND);
        assert_eq!(
            signal.judge(&query("example.com", 1).0, &context("192.0.2.1"), SECOND),
            8
        );
    }

    #[test]
    fn a_full_table_keeps_the_largest() {
        let mut signal = amplification("{ ratio: 10, from: 64KiB, points: 8, memory: 2KiB }");
        signal.answer("192.0.2.1", 100, 4000, SECOND);
        for source in 0..10_000_u32 {
            signal.answer(
                &std::net::Ipv4Addr::from(source << 8).to_string(),
                1,
                4000,
                SECOND,
            );
        }
        assert_eq!(
            signal.judge(&query("example.com", 1).0, &context("192.0.2.1"), SECOND),
            8
        );
    }
}
