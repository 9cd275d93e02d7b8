//! `shape`: how the name asked for looks.
//!
//! Names made by machines (random labels, tunnels, exploit attempts) differ from names made by
//! people in length, number of labels, octets used and entropy. Many honest names look like that
//! as well, so the points are few, and capped.
//!
//! ```yaml
//! signals:
//!   shape:
//!     first-label-length: { over: 40, points: 5 }
//!     name-length: { over: 150, points: 5 }
//!     labels: { over: 40, points: 5 }       # ip6.arpa names have 34
//!     entropy: { over: 3.8, points: 5 }     # bits an octet of a first label of 16 and more
//!     binary: { points: 5 }                 # octets other than letters, digits, - and _
//!     at-most: 10                           # of all these together
//! ```
//!
//! Nothing is remembered, and nothing depends on the source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Building, Input, Signal};
use crate::config::{Millibits, Mode};
use crate::evidence::{Given, Kind};
use crate::label::{Kinds, entropy};
use crate::recorder::Recorder;

/// Settings of the `shape` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "ShapeSignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// A leftmost label of more octets than this.
    pub first_label_length: Over<u8>,
    /// A name of more octets than this in wire format.
    pub name_length: Over<u8>,
    /// A name of more labels than this.
    pub labels: Over<u8>,
    /// A leftmost label of 16 octets or more with a higher Shannon entropy, in bits an octet.
    pub entropy: Over<Millibits>,
    /// A leftmost label with octets other than letters, digits, `-` and `_`.
    pub binary: Flat,
    /// The most that all these give together.
    pub at_most: u16,
}

/// Points for exceeding a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(rename = "ShapeOver_{T}")]
pub struct Over<T> {
    /// The greatest value that is fine.
    pub over: T,
    /// Points for more than that; 0 for off.
    pub points: u16,
}

/// Points for a property.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(rename = "ShapeFlat")]
pub struct Flat {
    /// Points; 0 for off.
    pub points: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            first_label_length: Over {
                over: 50,
                points: 3,
            },
            name_length: Over {
                over: 180,
                points: 3,
            },
            labels: Over {
                over: 40,
                points: 3,
            },
            entropy: Over {
                over: Millibits(4200),
                points: 3,
            },
            binary: Flat { points: 3 },
            at_most: 6,
        }
    }
}

/// Shorter labels have no meaningful entropy.
const ENTROPY_FROM: usize = 16;

/// The `shape` signal.
#[derive(Debug)]
pub(crate) struct Shape(Config);

impl Signal for Shape {
    type Config = Config;
    type State = ();
    const KIND: Kind = Kind::Name;

    fn build(config: &Config, _: &mut Building<'_>) -> Self {
        Self(config.clone())
    }

    #[inline]
    fn judge<R: Recorder>(&self, (): &mut (), input: &Input<'_>, recorder: &mut R) -> Given {
        let config = &self.0;
        if config.at_most == 0 {
            return Given::NOTHING;
        }
        let name = &input.query.qname;
        let label = name.first_label();
        let mut points = 0_u16;
        let mut give = |given: u16, what: &dyn Fn() -> String| {
            points = points.saturating_add(given);
            recorder.say(|| format!("{} (+{given})", what()));
        };
        if config.first_label_length.points > 0
            && label.len() > usize::from(config.first_label_length.over)
        {
            give(config.first_label_length.points, &|| {
                format!("the first label has {} octets", label.len())
            });
        }
        if config.name_length.points > 0 && name.len() > usize::from(config.name_length.over) {
            give(config.name_length.points, &|| {
                format!("the name has {} octets", name.len())
            });
        }
        if config.labels.points > 0 && name.label_count() > usize::from(config.labels.over) {
            give(config.labels.points, &|| {
                format!("the name has {} labels", name.label_count())
            });
        }
        if config.entropy.points > 0 && label.len() >= ENTROPY_FROM {
            let bits = entropy(label);
            if bits > config.entropy.over {
                give(config.entropy.points, &|| {
                    format!("the first label has {bits} bits of entropy an octet")
                });
            }
        }
        if config.binary.points > 0 && Kinds::of(label).binary() {
            give(config.binary.points, &|| {
                "the first label has unusual octets".to_owned()
            });
        }
        Given::doubtful(i32::from(points.min(config.at_most)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::signals::test::Alone;
    use crate::testing::{context, query};

    fn points(yaml: &str, name: &str) -> i32 {
        let config = serde_yaml::from_str(yaml).unwrap();
        Alone::<Shape>::new(&config, &BTreeMap::new()).judge(
            &query(name, 1).0,
            &context("192.0.2.1"),
            0,
        )
    }

    #[test]
    fn each_feature_gives_its_points() {
        let one = "{ first-label-length: { over: 5, points: 1 }, name-length: { over: 30, points: 2 }, \
                   labels: { over: 4, points: 4 }, entropy: { over: 3.5, points: 8 }, binary: { points: 16 }, at-most: 100 }";
        assert_eq!(points(one, "www.example.com"), 0);
        assert_eq!(points(one, "abcdef.example.com"), 1);
        assert_eq!(points(one, "abc.a-rather-long-zone.example.com"), 2);
        assert_eq!(points(one, "a.b.c.d.e"), 4);
        assert_eq!(points(one, "abcdefghijklmnop.net"), 1 + 8);
        assert_eq!(points(one, "aaaaaaaaaaaaaaaa.net"), 1);
        assert_eq!(points(one, "a\\000b.net"), 16);
        assert_eq!(points(one, "_dmarc.net"), 1);
        assert_eq!(points(one, "."), 0);
    }

    #[test]
    fn the_sum_is_capped_and_can_be_off() {
        assert_eq!(
            points("{ binary: { points: 50 }, at-most: 4 }", "a\\000b.net"),
            4
        );
        assert_eq!(points("at-most: 0", "a\\000b.net"), 0);
    }

    #[test]
    fn usual_names_get_nothing_by_default() {
        for name in [
            "www.example.com",
            "_sip._tcp.example.com",
            "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            "d111111abcdef8.cloudfront.net",
            "1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d.example.com",
            "xn--bcher-kva.example",
            "*.example.com",
        ] {
            assert_eq!(
                points("{}", name),
                if name.starts_with('*') { 3 } else { 0 },
                "{name}"
            );
        }
    }
}
