//! `loyalty`: whether the source was here before the trouble.
//!
//! Authoritative servers hear from the same resolvers day after day; a flood with made-up addresses
//! comes from sources that nobody has seen. Every source that asks in calm times is remembered, after
//! some seconds, in a filter of two generations, and kept as long as it comes back before about as
//! many others were new as the filter holds. It survives a restart.
//!
//! The rate of sources that were not here before is an alarm of its own: those never seen, and those
//! seen first a few seconds ago, each apart for names that exist and for doubtful ones. When one of
//! these four is many times what is usual and a good part of all queries, queries of that kind get
//! points, by how many times. So in a flood from addresses that are used once, a new resolver's second
//! query is already worth more than its first. While there is an alarm about sources, new ones do not
//! come to be known, except those that prove their address (TCP, or a valid cookie): these are known at
//! once. Points for a newcomer are a reason to challenge (TC=1), not to drop.
//!
//! ```yaml
//! signals:
//!   loyalty:
//!     floor: 100/s       # queries a second from new sources that are always fine
//!     factor: 8          # times what is usual that are fine
//!     points: 35         # at most
//!     second: 10         # for a newcomer while another signal about sources has an alarm
//!     memory: 4MiB       # filter of known sources, of all workers together
//! ```
//!
//! Some 900,000 sources fit the default; when it is full, those that came longest ago are forgotten,
//! and one new source in seventy is taken for a known one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Alarm, Building, Input, Signal};
use crate::config::{Memory, Mode, Rate};
use crate::context::Transport;
use crate::defence::Level;
use crate::evidence::{Given, Kind};
use crate::memory::{Acquaintance, NameStanding, Surge, Threshold};
use crate::recorder::Recorder;

/// Settings of the `loyalty` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "LoyaltySignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// Queries from sources never seen that are always fine.
    pub floor: Rate,
    /// How many times what is usual is still fine, from 2.
    #[schemars(range(min = 2))]
    pub factor: u16,
    /// The most points for a source that was not here before.
    pub points: u16,
    /// Points for such a source while only other signals about sources have an alarm.
    pub second: u16,
    /// Memory of the filter of known sources, of all workers together.
    pub memory: Memory,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            floor: Rate::per_second(100),
            factor: 8,
            points: 35,
            second: 10,
            memory: Memory(4 << 20),
        }
    }
}

/// The `loyalty` signal.
#[derive(Debug)]
pub(crate) struct Loyalty {
    threshold: Threshold,
    points: i32,
    second: i32,
}

/// An alarm about sources never seen needs this part of all queries to be theirs, and one about
/// sources that came up lately this part to be from sources of either kind: in a flash crowd there
/// are more than one would think.
const PART_NEW: f32 = 0.3;
const PART_STRANGE: f32 = 0.45;
/// And this part to be of its own kind.
const PART_OF_NEW: f32 = 0.1;
const PART_OF_RECENT: f32 = 0.25;

/// Queries by how new the source is and how doubtful the name, and all queries.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    kinds: [Surge; 4],
    all: Surge,
}

impl Rates {
    /// Whether so many queries are from strangers that those with names of this kind may be an alarm.
    fn are_many(&self, acquaintance: Acquaintance, own: f32) -> bool {
        let [new, new_doubtful, recent, recent_doubtful] = self.kinds.each_ref().map(Surge::rate);
        let (all, new) = (self.all.rate(), new + new_doubtful);
        match acquaintance {
            Acquaintance::Known => false,
            Acquaintance::New => new > PART_NEW * all && own > PART_OF_NEW * all,
            Acquaintance::Recent => {
                new + recent + recent_doubtful > PART_STRANGE * all && own > PART_OF_RECENT * all
            }
        }
    }

    fn kind(&mut self, acquaintance: Acquaintance, name: NameStanding) -> Option<&mut Surge> {
        let doubtful = usize::from(matches!(
            name,
            NameStanding::Missing { .. } | NameStanding::Unknown
        ));
        let kind = match acquaintance {
            Acquaintance::Known => return None,
            Acquaintance::New => doubtful,
            Acquaintance::Recent => doubtful.saturating_add(2),
        };
        self.kinds.get_mut(kind)
    }
}

impl Signal for Loyalty {
    type Config = Config;
    type State = Rates;
    const KIND: Kind = Kind::Source;

    fn build(config: &Config, building: &mut Building<'_>) -> Self {
        Self {
            threshold: building.threshold(config.floor, config.factor),
            points: config.points.into(),
            second: config.second.into(),
        }
    }

    #[inline]
    fn judge<R: Recorder>(&self, rates: &mut Rates, input: &Input<'_>, recorder: &mut R) -> Given {
        if R::COMMIT {
            rates.all.count(1.0, input.now, self.threshold, false);
            // what comes with an alarm is not to become usual
            for surge in &mut rates.kinds {
                surge.freeze(input.trouble > Level::Calm);
            }
        }
        if input.context.transport == Transport::Tcp {
            return Given::NOTHING;
        }
        let sighting = input.sighting;
        let usual = rates.all.base();
        let own = rates.kind(sighting.acquaintance, sighting.name);
        let own = own.map_or(0.0, |surge| surge.rate());
        let many = rates.are_many(sighting.acquaintance, own);
        let Some(surge) = rates.kind(sighting.acquaintance, sighting.name) else {
            return Given::NOTHING;
        };
        // who is known by what it does is not counted again for being new
        if R::COMMIT && !input.given.has(Kind::Conduct) {
            let learned = surge.is_seasoned() && surge.base() < 0.5 * usual;
            surge.count(1.0, input.now, self.threshold, many && learned);
        }
        if surge.level() == Level::Attack {
            recorder.say(|| "not here before, as very many sources are lately".to_owned());
            let points = super::points_for_odds(surge.odds(1.0));
            return Given::certain(points.clamp(20, self.points.max(20)).min(self.points));
        }
        if input.trouble == Level::Attack {
            recorder.say(|| "not here before the attack".to_owned());
            return Given::certain(self.second);
        }
        Given::NOTHING
    }

    fn surges<'a>(&self, rates: &'a mut Rates) -> impl Iterator<Item = &'a mut Surge> {
        rates.kinds.iter_mut().chain([&mut rates.all])
    }

    fn alarm(&self, rates: &mut Rates, now: u64) -> Option<Alarm> {
        rates.all.advance(now, self.threshold);
        for surge in &mut rates.kinds {
            surge.advance(now, self.threshold);
        }
        let worst = rates.kinds.iter().max_by_key(|surge| surge.level())?;
        Some(Alarm::of(worst))
    }
}
