//! `malformed-history`: the source lately sent packets that are no well-formed queries.
//!
//! What is malformed is dropped by itself; that its sender's other packets are worth less is what this
//! signal says. The count is kept in the table of sources (see `hop-count`) and halves every 16 s.
//!
//! ```yaml
//! signals:
//!   malformed-history: { from: 5, points: 10 }
//! ```
//!
//! Source addresses can be forged, so a source can be brought into disrepute: the points are few,
//! count under pressure only, and a source that proved its address gets none.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Building, Input, Signal};
use crate::config::Mode;
use crate::evidence::{Given, Kind};
use crate::recorder::Recorder;

/// Settings of the `malformed-history` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "MalformedHistorySignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// Malformed packets lately, from 1.
    #[schemars(range(min = 1))]
    pub from: u8,
    /// Points for a source that sent so many.
    pub points: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            from: 5,
            points: 10,
        }
    }
}

/// The `malformed-history` signal.
#[derive(Debug)]
pub(crate) struct MalformedHistory(Config);

impl Signal for MalformedHistory {
    type Config = Config;
    type State = ();
    const KIND: Kind = Kind::Conduct;

    fn build(config: &Config, building: &mut Building<'_>) -> Self {
        if config.from == 0 {
            building.wrong("from", "found 0, expected at least 1".to_owned());
        }
        Self(config.clone())
    }

    #[inline]
    fn judge<R: Recorder>(&self, (): &mut (), input: &Input<'_>, recorder: &mut R) -> Given {
        let malformed = input.sighting.malformed;
        if malformed < self.0.from || input.sighting.verified {
            return Given::NOTHING;
        }
        recorder.say(|| format!("{malformed} malformed packets lately"));
        Given::doubtful(self.0.points.into())
    }
}
