//! The signals: each looks at a query and its source and gives points.
//!
//! A signal is one file and one line in the list below. Points add up in the order of the list;
//! a signal in observe mode gives its points only to what *would* have happened.

pub(crate) mod amplification;
pub(crate) mod rate;
pub(crate) mod reputation;
pub(crate) mod shape;

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cells::Cells;
use crate::config::{ConfigError, Mode};
use crate::context::Context;
use crate::lists::List;
use crate::recorder::Recorder;
use dnscrub_wire::Query;

/// The ordered list of signals becomes the configuration section, what is built from it, the
/// tables of a worker, and the loop over them.
macro_rules! signals {
    ($($(#[$doc:meta])* $name:ident: $config:ty => $signal:ty,)+) => {
        /// Settings of every signal; what is left out has its defaults.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct Signals {
            $($(#[$doc])* pub $name: $config,)+
        }

        /// Every signal, built.
        #[derive(Debug)]
        pub(crate) struct Built {
            $($name: $signal,)+
        }

        /// What the signals remember, one per worker.
        #[derive(Debug)]
        pub(crate) struct States {
            $($name: <$signal as Signal>::State,)+
        }

        impl Built {
            pub(crate) fn new(config: &Signals, lists: &BTreeMap<String, List>, errors: &mut Vec<ConfigError>) -> Self {
                Self {
                    $($name: <$signal>::build(&config.$name, &mut Building {
                        path: concat!("signals.", stringify!($name)),
                        lists,
                        errors,
                    }),)+
                }
            }

            /// Points of all signals: (of those enforced, of all).
            #[inline]
            pub(crate) fn judge<R: Recorder>(&self, states: &mut States, input: &Input<'_>, recorder: &mut R) -> Points {
                let mut points = Points::default();
                $(
                    let given = self.$name.judge(&mut states.$name, input, recorder);
                    let observed = self.$name.mode() == Mode::Observe;
                    recorder.signal(stringify!($name), given, observed);
                    points.add(given, observed);
                )+
                points
            }

            /// A response of `response_len` octets goes to a query of `query_len` octets.
            #[inline]
            pub(crate) fn observe_response(&self, states: &mut States, seen: &Exchange) {
                $(self.$name.observe_response(&mut states.$name, seen);)+
            }
        }

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
    rate: rate::Config => rate::Rate,
    /// What is known about a source beforehand.
    reputation: reputation::Config => reputation::Reputation,
    /// How the name asked for looks.
    shape: shape::Config => shape::Shape,
    /// How much larger responses are than queries.
    amplification: amplification::Config => amplification::Amplification,
}

/// What a signal file provides.
pub(crate) trait Signal: Sized {
    /// Its section of the configuration.
    type Config;
    /// What it remembers, in fixed memory.
    type State;

    /// Builds it; what is wrong goes into `building`, and the result is then not used.
    fn build(config: &Self::Config, building: &mut Building<'_>) -> Self;
    /// Whether its points count.
    fn mode(&self) -> Mode;
    /// An empty memory.
    fn state(&self, seed: [u64; 4]) -> Self::State;
    /// Whether a memory made for earlier settings serves these as well.
    fn fits(&self, state: &Self::State) -> bool;
    /// The points of a query. Remembers it if `R::COMMIT`; says why only to the recorder.
    fn judge<R: Recorder>(
        &self,
        state: &mut Self::State,
        input: &Input<'_>,
        recorder: &mut R,
    ) -> i32;
    /// Learns from a response.
    fn observe_response(&self, _state: &mut Self::State, _seen: &Exchange) {}
}

/// A query as signals see it.
pub(crate) struct Input<'a> {
    pub(crate) query: &'a Query,
    pub(crate) context: &'a Context,
    /// The source, canonical.
    pub(crate) source: IpAddr,
    /// Nanoseconds since the scorer began.
    pub(crate) now: u64,
}

/// A response, as signals see it.
pub(crate) struct Exchange {
    pub(crate) context: Context,
    pub(crate) source: IpAddr,
    pub(crate) query_len: u16,
    pub(crate) response_len: u16,
    pub(crate) now: u64,
}

/// Points so far: what counts, and what would count if nothing were in observe mode.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Points {
    pub(crate) enforced: i32,
    pub(crate) all: i32,
}

impl Points {
    pub(crate) const fn add(&mut self, points: i32, observed: bool) {
        self.all = self.all.saturating_add(points);
        if !observed {
            self.enforced = self.enforced.saturating_add(points);
        }
    }
}

/// What a signal is built with.
pub(crate) struct Building<'a> {
    path: &'static str,
    lists: &'a BTreeMap<String, List>,
    errors: &'a mut Vec<ConfigError>,
}

impl Building<'_> {
    /// Reports what is wrong with `field`.
    pub(crate) fn wrong(&mut self, field: &str, message: String) {
        self.errors.push(ConfigError {
            path: format!("{}.{field}", self.path),
            message,
        });
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
                    path: "signals.test",
                    lists,
                    errors: &mut errors,
                },
            );
            assert_eq!(errors, []);
            let state = signal.state([1, 2, 3, 4]);
            Self { signal, state }
        }

        pub(crate) fn judge(&mut self, query: &Query, context: &Context, now: u64) -> i32 {
            let input = Input {
                query,
                context,
                source: context.source.to_canonical(),
                now,
            };
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
