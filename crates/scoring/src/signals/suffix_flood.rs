//! `suffix-flood`: a name nobody asked for before, under a zone or name that is flooded with such.
//!
//! Where a zone's names are not known, they are learned: a name that an upstream once answered is
//! known from then on. For each zone, and for each name that others stand under, the signal follows
//! how many unknown names are asked for, how many distinct ones, and which part of them turns out not
//! to exist. When those become many times as many as usual, it is a flood. Then
//!
//! - names that are known stay alive: they get no points;
//! - an unknown name gets points by how likely it is the flood's and not one of the usual ones: by
//!   the flood's strength, by how much the name's letters look like the names that exist or like
//!   those of the flood, and by whether its source was here before. Ten points stand for odds that
//!   are 2.7 times as high, so 40 points for about 50 to 1;
//! - a fair share is let through all the same, so that a name that is new and real still resolves:
//!   names that are asked for again (20 a second and zone), and one name a resolver (/24 or /48)
//!   every ten seconds, as many as the zone usually has. With its first answer a name is known.
//!
//! A parent whose unknown names all exist (a wildcard) is no part of a flood.
//!
//! ```yaml
//! signals:
//!   suffix-flood:
//!     floor: 60/s          # failing unknown names a second and suffix that are always fine
//!     whole-floor: 150/s   # of all zones together
//!     factor: 8            # times what is usual that are fine
//!     at-most: 60
//!     names: 4MiB          # filter of known names, of all workers together
//!     suffixes: 2048       # zones and parents remembered, per worker
//! ```
//!
//! The memory is fixed. A filter at its full size, about 900,000 names with the default, forgets the
//! names that were not asked for lately, and takes one unknown name in seventy for a known one. A
//! new suffix takes the place of the least busy one, never of one that is flooded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Building, Input, Signal};
use crate::config::{Memory, Mode, Rate};
use crate::evidence::{Given, Kind};
use crate::memory::FLOOD_CERTAIN;
use crate::recorder::Recorder;

/// Settings of the `suffix-flood` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "SuffixFloodSignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// Missing names, or unknown ones that fail, of one suffix that are always fine.
    pub floor: Rate,
    /// The same of all zones together.
    pub whole_floor: Rate,
    /// How many times what is usual is still fine, from 2.
    #[schemars(range(min = 2))]
    pub factor: u16,
    /// The most points.
    pub at_most: u16,
    /// Memory of the filter of known names, of all workers together.
    pub names: Memory,
    /// Zones and parents of names that are remembered, per worker.
    #[schemars(range(min = 16, max = 65536))]
    pub suffixes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            floor: Rate::per_second(60),
            whole_floor: Rate::per_second(150),
            factor: 8,
            at_most: 60,
            names: Memory(4 << 20),
            suffixes: 2048,
        }
    }
}

/// The `suffix-flood` signal.
#[derive(Debug)]
pub(crate) struct SuffixFlood {
    at_most: i32,
}

impl Signal for SuffixFlood {
    type Config = Config;
    type State = ();
    const KIND: Kind = Kind::Name;

    fn build(config: &Config, building: &mut Building<'_>) -> Self {
        if config.factor < 2 {
            building.wrong(
                "factor",
                format!("found {}, expected at least 2", config.factor),
            );
        }
        if !(16..=65_536).contains(&config.suffixes) {
            building.wrong(
                "suffixes",
                format!("found {}, expected 16 to 65536", config.suffixes),
            );
        }
        for (field, rate) in [("floor", config.floor), ("whole-floor", config.whole_floor)] {
            if rate == Rate::Off {
                building.wrong(field, "found off, expected a rate".to_owned());
            }
        }
        Self {
            at_most: config.at_most.into(),
        }
    }

    #[inline]
    fn judge<R: Recorder>(&self, (): &mut (), input: &Input<'_>, recorder: &mut R) -> Given {
        let Some(flood) = input.sighting.flood else {
            return Given::NOTHING;
        };
        let points = |odds: f32| (odds * 10.0) as i32;
        recorder.say(|| {
            format!(
                "an unknown name in a flood: {:+} for its strength, {:+} for the letters, {:+} for the source",
                points(flood.surge),
                points(flood.likeness),
                points(flood.source)
            )
        });
        if flood.spared {
            recorder.say(|| "let through as a fair share".to_owned());
            return Given::NOTHING;
        }
        let given = points(flood.odds()).clamp(0, self.at_most);
        if flood.odds() >= FLOOD_CERTAIN {
            Given::certain(given)
        } else {
            Given::doubtful(given)
        }
    }
}
