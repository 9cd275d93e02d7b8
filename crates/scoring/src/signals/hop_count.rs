//! `hop-count`: the packet came another way than its source's packets do.
//!
//! The IP TTL that a packet arrives with tells how many routers it passed. For each source the range
//! it usually shows is learned, in calm times and from sources that proved their address; a path that
//! changes is learned after its third packet. Who forges a source's address is mostly as many routers
//! away as somebody else ("Hop-Count Filtering", CCS 2003: nine tenths of forged packets stand out).
//!
//! Single mismatches are normal and give nothing. When they become many times as frequent as they
//! used to be, somebody is forging the addresses of known sources: from then on a mismatch gives
//! points, by how much more frequent they are, until they are rare again.
//!
//! ```yaml
//! signals:
//!   hop-count:
//!     floor: 30/s      # mismatches a second that are always fine
//!     factor: 8        # times what is usual that are fine
//!     points: 35       # at most
//!     memory: 4MiB     # table of sources, per worker: 16 octets a source
//! ```
//!
//! A source alone is never dropped for it: with the defaults it is challenged (TC=1). Queries over
//! TCP get no points. Where the system does not tell the TTL, the signal is silent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Alarm, Building, Input, Signal};
use crate::config::{Memory, Mode, Rate};
use crate::defence::Level;
use crate::evidence::{Given, Kind};
use crate::memory::{Hops, Surge, Threshold};
use crate::recorder::Recorder;

/// Settings of the `hop-count` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "HopCountSignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// Mismatches that are always fine.
    pub floor: Rate,
    /// How many times what is usual is still fine, from 2.
    #[schemars(range(min = 2))]
    pub factor: u16,
    /// The most points for a mismatch.
    pub points: u16,
    /// Memory of the table of sources, per worker.
    pub memory: Memory,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            floor: Rate::per_second(30),
            factor: 8,
            points: 35,
            memory: Memory(4 << 20),
        }
    }
}

/// The `hop-count` signal.
#[derive(Debug)]
pub(crate) struct HopCount {
    threshold: Threshold,
    points: i32,
}

impl Signal for HopCount {
    type Config = Config;
    type State = Surge;
    const KIND: Kind = Kind::Source;

    fn build(config: &Config, building: &mut Building<'_>) -> Self {
        Self {
            threshold: building.threshold(config.floor, config.factor),
            points: config.points.into(),
        }
    }

    #[inline]
    fn judge<R: Recorder>(&self, surge: &mut Surge, input: &Input<'_>, recorder: &mut R) -> Given {
        if input.sighting.hops != Hops::Odd {
            return Given::NOTHING;
        }
        if R::COMMIT {
            surge.freeze(input.trouble > Level::Calm);
            surge.count(1.0, input.now, self.threshold, true);
        }
        if surge.level() < Level::Attack {
            recorder
                .say(|| "another IP TTL than its source usually shows; so far few do".to_owned());
            return Given::NOTHING;
        }
        recorder
            .say(|| "another IP TTL than its source usually shows, as many have lately".to_owned());
        Given::certain(
            super::points_for_odds(surge.odds(1.0))
                .clamp(20, self.points.max(20))
                .min(self.points),
        )
    }

    fn surges<'a>(&self, surge: &'a mut Surge) -> impl Iterator<Item = &'a mut Surge> {
        std::iter::once(surge)
    }

    fn alarm(&self, surge: &mut Surge, now: u64) -> Option<Alarm> {
        surge.advance(now, self.threshold);
        Some(Alarm::of(surge))
    }
}
