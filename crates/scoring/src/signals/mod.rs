//! The signals: each looks at a query and its source and gives points.
//!
//! A signal is one file and one line in the list below. Points add up by kind of evidence; a signal in
//! observe mode gives its points only to what *would* have happened. What a signal needs to know
//! of a source or a name it finds in the [`Sighting`], which is made once for each query.

pub(crate) mod amplification;
pub(crate) mod cost;
pub(crate) mod hop_count;
pub(crate) mod loyalty;
pub(crate) mod malformed_history;
pub(crate) mod nonexistent_name;
pub(crate) mod rate;
pub(crate) mod reputation;
pub(crate) mod shape;
pub(crate) mod suffix_flood;
pub(crate) mod verified;

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cells::Cells;
use crate::config::{ConfigError, Mode, Rate};
use crate::context::{Context, Transport};
use crate::defence::Level;
use crate::evidence::{Given, Kind, Tally};
use crate::lists::List;
use crate::memory::{NameStanding, Settings, Sighting, Surge, Threshold};
use crate::recorder::Recorder;
use dnscrub_wire::Query;

/// The ordered list of signals becomes the configuration section, what is built from it, the
/// tables of a worker, and the loop over them.
macro_rules! signals {
    ($($(#[$doc:meta])* $name:ident $label:literal: $config:ty => $signal:ty,)+) => {
        /// Settings of every signal; what is left out has its defaults.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct Signals {
            $($(#[$doc])* pub $name: $config,)+
        }

        /// Every signal, built.
        #[derive(Debug)]
        pub(crate) struct Built {
            $(pub(crate) $name: $signal,)+
            /// Whether each is in observe mode.
            observed: Observed,
        }

        #[derive(Clone, Copy, Debug)]
        struct Observed {
            $($name: bool,)+
        }

        /// What the signals remember, one per worker.
        #[derive(Debug)]
        pub(crate) struct States {
            $($name: <$signal as Signal>::State,)+
        }

        impl Built {
            pub(crate) fn new(
                config: &Signals,
                lists: &BTreeMap<String, List>,
                workers: usize,
                errors: &mut Vec<ConfigError>,
            ) -> Self {
                Self {
                    $($name: <$signal>::build(&config.$name, &mut Building {
                        name: $label,
                        lists,
                        workers,
                        errors,
                    }),)+
                    observed: Observed {
                        $($name: config.$name.mode == Mode::Observe,)+
                    },
                }
            }

            /// A query of this kind is about to be judged: reads from its places in the tables.
            #[inline]
            pub(crate) fn expect(&self, states: &mut States, expected: &Expected) {
                $(self.$name.expect(&mut states.$name, expected);)+
            }

            /// Whether nothing more need be known of a query: its zone, which is under attack, does
            /// not have the name, so that the answer is the same whoever asks.
            #[inline]
            pub(crate) fn settles(&self, sighting: &Sighting) -> bool {
                sighting.level == Level::Attack
                    && sighting.name == (NameStanding::Missing { certain: true })
                    && !self.observed.nonexistent_name
            }

            /// Points of all signals; those that give some are noted in `notes`. In a flood of missing
            /// names nobody asks who sends them and how often: these sources may all be forged,
            /// and would only push others out of the tables.
            #[inline]
            pub(crate) fn judge<R: Recorder>(&self, states: &mut States, input: &mut Input<'_>, notes: &mut Notes, recorder: &mut R) -> Points {
                let mut points = Points::default();
                notes.clear();
                let settled = self.settles(input.sighting);
                $(
                    let given = if settled && matches!(<$signal>::KIND, Kind::Source | Kind::Conduct) {
                        Given::NOTHING
                    } else {
                        self.$name.judge(&mut states.$name, input, recorder)
                    };
                    let observed = self.observed.$name;
                    recorder.signal($label, given.points, observed);
                    if given.points != 0 {
                        points.add(<$signal>::KIND, given, observed);
                        notes.take(Index::$name as usize, <$signal>::KIND, given, observed);
                        input.given = points.all;
                    }
                )+
                points
            }

            /// Whether each signal is in observe mode.
            pub(crate) fn observed(&self) -> [bool; COUNT] {
                [$(self.observed.$name,)+]
            }

            /// Octets that the signals remember in.
            pub(crate) fn octets(&self, states: &States) -> usize {
                0_usize $(.saturating_add(self.$name.octets(&states.$name)))+
            }

            /// Every surge, by its signal and its number there.
            pub(crate) fn surges(&self, states: &mut States, mut each: impl FnMut(&'static str, u8, &mut Surge)) {
                $(for (number, surge) in (0..).zip(self.$name.surges(&mut states.$name)) {
                    each($label, number, surge);
                })+
            }

            /// The alarms of all signals, by name, brought up to `now`.
            pub(crate) fn alarms(&self, states: &mut States, now: u64, mut each: impl FnMut(&'static str, Alarm)) {
                $(if let Some(alarm) = self.$name.alarm(&mut states.$name, now) {
                    each($label, alarm);
                })+
            }

            /// A response of `response_len` octets goes to a query of `query_len` octets.
            #[inline]
            pub(crate) fn observe_response(&self, states: &mut States, seen: &Exchange) {
                $(self.$name.observe_response(&mut states.$name, seen);)+
            }
        }

        /// The signals' names, what their evidence is about, and their files, in order.
        pub(crate) const FILES: &[(&str, Kind, &str)] = &[
            $(($label, <$signal>::KIND, include_str!(concat!(stringify!($name), ".rs"))),)+
        ];
        /// The signals' places in their order.
        #[allow(non_camel_case_types, reason = "made of the fields' names")]
        enum Index { $($name,)+ }

        /// The signals' names, in their order.
        pub(crate) const LABELS: &[&str] = &[$($label,)+];
        /// How many signals there are.
        pub(crate) const COUNT: usize = LABELS.len();

        impl States {
            pub(crate) fn new(built: &Built, seed: [u64; 4]) -> Self {
                Self { $($name: built.$name.state(seed),)+ }
            }

            /// Keeps what still fits the settings; the rest begins afresh.
            pub(crate) fn adopt(&mut self, built: &Built, seed: [u64; 4]) {
                $(if !built.$name.fits(&self.$name) {
                    self.$name = built.$name.state(seed);
                })+
            }
        }
    };
}

signals! {
    /// Queries per time from one source.
    rate "rate": rate::Config => rate::Rate,
    /// What is known about a source beforehand.
    reputation "reputation": reputation::Config => reputation::Reputation,
    /// How the name asked for looks.
    shape "shape": shape::Config => shape::Shape,
    /// How much larger responses are than queries.
    amplification "amplification": amplification::Config => amplification::Amplification,
    /// Whether the zone has the name.
    nonexistent_name "nonexistent-name": nonexistent_name::Config => nonexistent_name::NonexistentName,
    /// Whether the name is of a flood of unknown ones.
    suffix_flood "suffix-flood": suffix_flood::Config => suffix_flood::SuffixFlood,
    /// Whether the packet came the way its source's packets come.
    hop_count "hop-count": hop_count::Config => hop_count::HopCount,
    /// Whether the source was here before the trouble.
    loyalty "loyalty": loyalty::Config => loyalty::Loyalty,
    /// Whether the source proved its address.
    verified "verified": verified::Config => verified::Verified,
    /// Whether the source sent malformed packets.
    malformed_history "malformed-history": malformed_history::Config => malformed_history::MalformedHistory,
    /// How much of the upstreams' time the zone uses.
    cost "cost": cost::Config => cost::Cost,
}

impl Signals {
    /// What the memory of a worker needs to know of the signals' settings; floors are for one of
    /// `workers` workers, each of which sees its part.
    pub(crate) fn memory(&self, workers: usize) -> Settings {
        Settings {
            known_sources: self.loyalty.memory.0,
            sources: self.hop_count.memory.0,
            known_names: self.suffix_flood.names.0,
            suffixes: self.suffix_flood.suffixes as usize,
            suffix_flood: threshold(self.suffix_flood.floor, self.suffix_flood.factor, workers),
            whole_flood: threshold(
                self.suffix_flood.whole_floor,
                self.suffix_flood.factor,
                workers,
            ),
            verified_for: u64::try_from(self.verified.r#for.0.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

fn threshold(floor: Rate, factor: u16, workers: usize) -> Threshold {
    let floor = match floor {
        Rate::Limit { events, per } => events as f32 / per.as_secs_f32().max(1e-3),
        Rate::Off => f32::MAX,
    };
    Threshold {
        floor: floor / workers.max(1) as f32,
        factor: f32::from(factor),
    }
}

/// Points for how many times as much there is as usual: ten for each factor of 2.7.
pub(crate) fn points_for_odds(odds: f32) -> i32 {
    (odds.max(1.0).ln() * 10.0) as i32
}

/// An alarm of a signal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alarm {
    pub(crate) level: Level,
    /// Events a second now.
    pub(crate) rate: f32,
    /// Events a second in calm times.
    pub(crate) usual: f32,
}

impl Alarm {
    pub(crate) fn of(surge: &Surge) -> Self {
        Self {
            level: surge.level(),
            rate: surge.rate(),
            usual: surge.base(),
        }
    }
}

/// What a signal file provides.
pub(crate) trait Signal: Sized {
    /// Its section of the configuration.
    type Config;
    /// What it remembers, in fixed memory; `()` for nothing.
    type State: Default;
    /// What its evidence is about.
    const KIND: Kind;

    /// Builds it; what is wrong goes into `building`, and the result is then not used.
    fn build(config: &Self::Config, building: &mut Building<'_>) -> Self;
    /// An empty memory.
    fn state(&self, _seed: [u64; 4]) -> Self::State {
        Self::State::default()
    }
    /// Whether a memory made for earlier settings serves these as well: one without a table does.
    fn fits(&self, _state: &Self::State) -> bool {
        true
    }
    /// This query is judged next. Works out where it stands in the signal's tables and reads from
    /// there, so that what is not in a near cache comes for all tables at once.
    #[inline]
    fn expect(&self, _state: &mut Self::State, _expected: &Expected) {}
    /// The points of a query, after [`Signal::expect`]. Remembers it if `R::COMMIT`; says why only to the recorder.
    fn judge<R: Recorder>(
        &self,
        state: &mut Self::State,
        input: &Input<'_>,
        recorder: &mut R,
    ) -> Given;
    /// Learns from a response.
    fn observe_response(&self, _state: &mut Self::State, _seen: &Exchange) {}
    /// Octets of its memory, as far as it has a table.
    fn octets(&self, _state: &Self::State) -> usize {
        0
    }
    /// The surges whose usual rates are kept over a restart, always in the same order.
    fn surges<'a>(&self, _state: &'a mut Self::State) -> impl Iterator<Item = &'a mut Surge> {
        std::iter::empty()
    }
    /// Its alarm about sources, if it has one, brought up to `now`.
    fn alarm(&self, _state: &mut Self::State, _now: u64) -> Option<Alarm> {
        None
    }
}

/// What decides where a query stands in tables.
pub(crate) struct Expected {
    /// Canonical.
    pub(crate) source: IpAddr,
    /// A keyed hash of the name.
    pub(crate) name_hash: u64,
    pub(crate) qtype: u16,
}

/// A query as signals see it.
pub(crate) struct Input<'a> {
    pub(crate) query: &'a Query,
    pub(crate) context: &'a Context,
    /// The source, canonical.
    pub(crate) source: IpAddr,
    /// What is known of the source and the name.
    pub(crate) sighting: &'a Sighting,
    /// The level of the signals about sources.
    pub(crate) trouble: Level,
    /// What the signals before this one gave.
    pub(crate) given: Tally,
    /// Nanoseconds since the scorer began.
    pub(crate) now: u64,
}

/// A response, as signals see it.
pub(crate) struct Exchange {
    pub(crate) transport: Transport,
    pub(crate) source: IpAddr,
    pub(crate) query_len: u16,
    pub(crate) response_len: u16,
    pub(crate) now: u64,
}

/// Points so far: what counts, and what would count if nothing were in observe mode.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Points {
    pub(crate) enforced: Tally,
    pub(crate) all: Tally,
    /// The two may differ.
    pub(crate) observed: bool,
}

impl Points {
    #[inline]
    pub(crate) const fn add(&mut self, kind: Kind, given: Given, observed: bool) {
        self.all.add(kind, given);
        if observed {
            self.observed = true;
        } else {
            self.enforced.add(kind, given);
        }
    }
}

/// What each signal gave to a query.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Notes {
    given: [(Option<Kind>, Given); COUNT],
    /// Bits of the signals that gave points, and of those in observe mode among them.
    gave: u32,
    observed: u32,
}

impl Notes {
    /// Forgets the query before.
    #[inline]
    const fn clear(&mut self) {
        (self.gave, self.observed) = (0, 0);
    }

    #[inline]
    fn take(&mut self, signal: usize, kind: Kind, given: Given, observed: bool) {
        if let Some(place) = self.given.get_mut(signal) {
            *place = (Some(kind), given);
        }
        let bit = 1_u32.checked_shl(signal as u32).unwrap_or_default();
        self.gave |= bit;
        if observed {
            self.observed |= bit;
        }
    }

    /// The signals that gave points: their places, and what they gave.
    #[inline]
    pub(crate) fn gave(&self) -> impl Iterator<Item = (usize, Given)> {
        bits(self.gave).filter_map(|signal| Some((signal, self.given.get(signal)?.1)))
    }

    /// The same for those in observe mode.
    #[inline]
    pub(crate) fn observed(&self) -> impl Iterator<Item = (usize, Kind, Given)> {
        bits(self.observed).filter_map(|signal| {
            let &(kind, given) = self.given.get(signal)?;
            Some((signal, kind?, given))
        })
    }
}

/// The places of the bits that are set.
#[inline]
fn bits(mut word: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = word.trailing_zeros();
        let rest = word & word.wrapping_sub(1);
        (word != 0).then(|| {
            word = rest;
            place as usize
        })
    })
}

/// What a signal is built with.
pub(crate) struct Building<'a> {
    name: &'static str,
    lists: &'a BTreeMap<String, List>,
    workers: usize,
    errors: &'a mut Vec<ConfigError>,
}

impl Building<'_> {
    /// Reports what is wrong with `field`.
    pub(crate) fn wrong(&mut self, field: &str, message: String) {
        self.errors.push(ConfigError {
            path: format!("signals.{}.{field}", self.name),
            message,
        });
    }

    /// A surge's threshold for one worker.
    pub(crate) fn threshold(&mut self, floor: Rate, factor: u16) -> Threshold {
        if factor < 2 {
            self.wrong("factor", format!("found {factor}, expected at least 2"));
        }
        threshold(floor, factor, self.workers)
    }
}

/// The number that stands for an address's first `length` bits, and for nothing else together
/// with the family and length in `scope`.
#[inline]
pub(crate) const fn prefix_key(source: IpAddr, v4: u8, v6: u8) -> (u64, u128) {
    match source {
        IpAddr::V4(address) => {
            let mask = match u32::MAX.checked_shl(32_u32.saturating_sub(v4 as u32)) {
                Some(mask) => mask,
                None => 0,
            };
            (0x400 | v4 as u64, (address.to_bits() & mask) as u128)
        }
        IpAddr::V6(address) => {
            let mask = match u128::MAX.checked_shl(128_u32.saturating_sub(v6 as u32)) {
                Some(mask) => mask,
                None => 0,
            };
            (0x600 | v6 as u64, address.to_bits() & mask)
        }
    }
}

/// A table for a signal; without one where it has nothing to remember.
pub(crate) type Table = Option<Cells>;

fn table(wanted: usize, seed: [u64; 4]) -> Table {
    (wanted > 0).then(|| Cells::new(wanted, seed))
}

fn table_fits(table: &Table, wanted: usize) -> bool {
    table.as_ref().map_or(0, Cells::octets)
        == if wanted == 0 {
            0
        } else {
            (wanted / 64).max(1).saturating_mul(64)
        }
}

#[cfg(test)]
pub(crate) mod test {
    use super::*;
    use crate::recorder::Silent;

    /// A signal alone, with its memory.
    pub(crate) struct Alone<S: Signal> {
        pub(crate) signal: S,
        pub(crate) state: S::State,
    }

    impl<S: Signal> Alone<S> {
        pub(crate) fn new(config: &S::Config, lists: &BTreeMap<String, List>) -> Self {
            let mut errors = Vec::new();
            let signal = S::build(
                config,
                &mut Building {
                    name: "test",
                    lists,
                    workers: 1,
                    errors: &mut errors,
                },
            );
            assert_eq!(errors, []);
            let state = signal.state([1, 2, 3, 4]);
            Self { signal, state }
        }

        pub(crate) fn judge(&mut self, query: &Query, context: &Context, now: u64) -> i32 {
            self.judge_sighting(query, context, &Sighting::default(), now)
                .points
        }

        pub(crate) fn judge_sighting(
            &mut self,
            query: &Query,
            context: &Context,
            sighting: &Sighting,
            now: u64,
        ) -> Given {
            let input = Input {
                query,
                context,
                source: context.source.to_canonical(),
                sighting,
                trouble: Level::Calm,
                given: Tally::default(),
                now,
            };
            let expected = Expected {
                source: input.source,
                name_hash: sighting.name_hash,
                qtype: query.qtype,
            };
            self.signal.expect(&mut self.state, &expected);
            self.signal.judge(&mut self.state, &input, &mut Silent)
        }
    }

    #[test]
    fn prefixes_are_told_apart_by_family_length_and_bits() {
        let key = |text: &str, v4, v6| prefix_key(text.parse().unwrap(), v4, v6);
        assert_eq!(key("192.0.2.1", 24, 48), key("192.0.2.255", 24, 48));
        assert_ne!(key("192.0.2.1", 24, 48), key("192.0.3.1", 24, 48));
        assert_ne!(key("192.0.2.0", 24, 48), key("192.0.2.0", 32, 48));
        assert_eq!(key("2001:db8:0:1::", 24, 48), key("2001:db8::", 24, 48));
        assert_ne!(key("0.0.0.0", 0, 0), key("::", 0, 0));
        assert_eq!(key("1.2.3.4", 0, 0), key("9.9.9.9", 0, 0));
    }
}
