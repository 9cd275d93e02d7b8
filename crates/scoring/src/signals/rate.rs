//! `rate`: queries per time from one source.
//!
//! Counts each query for its address and for the prefixes around it at once: by default /32 and
//! /24 for IPv4, /128, /64 and /48 for IPv6. A query that exceeds any of the limits gets the
//! points, once. What stays within the limits gets none, also from a source that sends much more,
//! so a busy resolver keeps its share.
//!
//! ```yaml
//! signals:
//!   rate:
//!     v4: { 32: 200/s, 24: 2000/s }
//!     v6: { 128: 200/s, 64: 200/s, 48: 2000/s }
//!     burst: 2s        # a source that was quiet may send what 2 s allow at once
//!     points: 25
//!     memory: 4MiB     # per worker
//! ```
//!
//! Source addresses of UDP queries can be forged, so over-limit is a reason for points, not for
//! blocking. With its defaults no band is reached at rest by these points.
//!
//! The memory is fixed: 8 octets for each source and prefix length. When it is full, those that
//! are least over their share are forgotten and begin afresh: a flood from very many addresses
//! makes the signal lenient, never stricter.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Building, Input, Signal, Table, prefix_key, table, table_fits};
use crate::cells::Limit;
use crate::config::{self, Memory, Mode, Span};
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
        }
    }
}

/// The `rate` signal.
#[derive(Debug)]
pub(crate) struct Rate {
    mode: Mode,
    v4: Vec<Level>,
    v6: Vec<Level>,
    points: i32,
    memory: usize,
}

#[derive(Debug)]
struct Level {
    length: u8,
    limit: Limit,
    rate: config::Rate,
}

impl Signal for Rate {
    type Config = Config;
    type State = Table;

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
                    levels.push(Level {
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
            mode: config.mode,
            v4,
            v6,
            points: i32::from(config.points),
            memory,
        }
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn state(&self, seed: [u64; 4]) -> Table {
        table(self.memory, seed)
    }

    fn fits(&self, state: &Table) -> bool {
        table_fits(state, self.memory)
    }

    #[inline]
    fn judge<R: Recorder>(&self, state: &mut Table, input: &Input<'_>, recorder: &mut R) -> i32 {
        let Some(cells) = state else { return 0 };
        let levels = match input.source {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let mut over = false;
        for level in levels {
            let key = prefix_key(input.source, level.length, level.length);
            if level.limit.exceeded(cells, key, input.now, R::COMMIT) {
                over = true;
                recorder
                    .say(|| format!("{}/{} is over {}", input.source, level.length, level.rate));
            }
        }
        if over { self.points } else { 0 }
    }
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

    fn rate(yaml: &str) -> Alone<Rate> {
        Alone::new(&serde_yaml::from_str(yaml).unwrap(), &BTreeMap::new())
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
        assert!(rate.state.is_none(), "no memory is taken");
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
