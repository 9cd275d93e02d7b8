//! `cost`: how much of the upstreams' time the zone uses.
//!
//! Not every query costs the same: names that a server has to work for, or that it answers late, keep
//! more of its capacity busy. The time from forwarding to answer is summed up for each zone, fading
//! over ten seconds. A zone that uses more than its part of the time of all, and clearly more than it
//! usually does, gets points, which count under pressure: then the others are served first.
//!
//! ```yaml
//! signals:
//!   cost: { part: 0.8, points: 10 }
//! ```
//!
//! With a single zone behind the proxy, or when all are cheap, it says nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Building, Input, Signal};
use crate::config::Mode;
use crate::evidence::{Given, Kind};
use crate::memory::NameStanding;
use crate::recorder::Recorder;

/// Settings of the `cost` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "CostSignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// Part of all upstream time that is fine, above 0 and at most 1.
    pub part: f32,
    /// Points for a query to a zone that uses more.
    pub points: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            part: 0.8,
            points: 10,
        }
    }
}

/// The `cost` signal.
#[derive(Debug)]
pub(crate) struct Cost(Config);

impl Signal for Cost {
    type Config = Config;
    type State = ();
    const KIND: Kind = Kind::Conduct;

    fn build(config: &Config, building: &mut Building<'_>) -> Self {
        if !(config.part > 0.0 && config.part <= 1.0) {
            building.wrong(
                "part",
                format!("found {}, expected more than 0 and at most 1", config.part),
            );
        }
        Self(config.clone())
    }

    #[inline]
    fn judge<R: Recorder>(&self, (): &mut (), input: &Input<'_>, recorder: &mut R) -> Given {
        let part = input.sighting.cost;
        if part <= self.0.part || input.sighting.name == NameStanding::FailedBefore {
            return Given::NOTHING;
        }
        recorder.say(|| format!("its zone uses {:.0} % of the upstreams' time", part * 100.0));
        Given::doubtful(self.0.points.into())
    }
}
