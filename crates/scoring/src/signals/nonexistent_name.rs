//! `nonexistent-name`: the zone does not have the name.
//!
//! Where a zone's names are known (see `zones:`), a name that it does not have is known to be missing:
//! no upstream can do more than say so. In calm times such a query has some points, which count under
//! pressure; while its zone, or the whole, is at level *attack*, the points are certain evidence,
//! and the proxy answers NXDOMAIN by itself, with the zone's SOA record. A name of a zone that is
//! overdue for a refresh gets the fewer points only, since it may have been added meanwhile.
//!
//! ```yaml
//! signals:
//!   nonexistent-name:
//!     points: 30         # in calm times and from stale zones
//!     attack-points: 60  # at level attack
//! ```
//!
//! What the source is makes no difference, so forged addresses do not either.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Building, Input, Signal};
use crate::config::Mode;
use crate::defence::Level;
use crate::evidence::{Given, Kind};
use crate::memory::NameStanding;
use crate::recorder::Recorder;

/// Settings of the `nonexistent-name` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "NonexistentNameSignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// Points for a name that its zone does not have.
    pub points: u16,
    /// Points at level *attack*, where the zone is up to date.
    pub attack_points: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            points: 30,
            attack_points: 60,
        }
    }
}

/// The `nonexistent-name` signal.
#[derive(Debug)]
pub(crate) struct NonexistentName(Config);

impl Signal for NonexistentName {
    type Config = Config;
    type State = ();
    const KIND: Kind = Kind::Name;

    fn build(config: &Config, _: &mut Building<'_>) -> Self {
        Self(config.clone())
    }

    #[inline]
    fn judge<R: Recorder>(&self, (): &mut (), input: &Input<'_>, recorder: &mut R) -> Given {
        let NameStanding::Missing { certain } = input.sighting.name else {
            return Given::NOTHING;
        };
        let attack = input.sighting.level == Level::Attack;
        recorder.say(|| {
            let stale = if certain {
                ""
            } else {
                ", which is overdue for a refresh,"
            };
            let level = if attack { "; it is under attack" } else { "" };
            format!("the zone{stale} does not have this name{level}")
        });
        if attack && certain {
            Given::certain(self.0.attack_points.into())
        } else {
            Given::doubtful(self.0.points.into())
        }
    }
}
