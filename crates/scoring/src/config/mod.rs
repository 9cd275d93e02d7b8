//! The file types of the `scrubbing`, `signals`, `rules` and `lists` sections.
//!
//! They hold what was written; [`crate::Policy::build`] turns them into what runs, and reports
//! everything wrong with them as [`ConfigError`]s.

mod response;
mod rule;
mod values;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::evidence::Caps;
pub use crate::signals::Signals;
pub use crate::signals::amplification::Config as AmplificationSignal;
pub use crate::signals::cost::Config as CostSignal;
pub use crate::signals::hop_count::Config as HopCountSignal;
pub use crate::signals::loyalty::Config as LoyaltySignal;
pub use crate::signals::malformed_history::Config as MalformedHistorySignal;
pub use crate::signals::nonexistent_name::Config as NonexistentNameSignal;
pub use crate::signals::rate::{Config as RateSignal, Questions as RateQuestions};
pub use crate::signals::reputation::Config as ReputationSignal;
pub use crate::signals::shape::{Config as ShapeSignal, Flat as ShapeFlat, Over as ShapeOver};
pub use crate::signals::suffix_flood::Config as SuffixFloodSignal;
pub use crate::signals::verified::Config as VerifiedSignal;
pub use response::{Challenge, LevelResponse};
pub use rule::{
    Act, Alphabet, Do, Edns, FirstLabel, Flags, FromLevel, Over, Per, PerPrefix, Qname, RateLimit,
    Rule, Source, TransportName, Under, When,
};
pub use values::{
    Bound, Memory, Millibits, OneOrMany, OpcodeName, Prefix, QueryClass, QueryType, Range, Rate,
    Span,
};

/// Something in the configuration that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// Where it stands, as a dotted path from the file's top: `rules[3].when.qname.regex`.
    pub path: String,
    /// What was found, what was expected, and what to do about it.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Whether a decision is carried out or only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Decisions are carried out.
    #[default]
    Enforce,
    /// Decisions are counted and shown, and the query goes on as if there were none.
    Observe,
}

/// How points become an action.
///
/// ```yaml
/// scrubbing:
///   mode: enforce
///   bands:
///     - { action: truncate, at: 60, under-pressure: 20 }
///     - { action: drop, at: 100, under-pressure: 40 }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Scrubbing {
    /// `observe` carries out nothing of the signals, rules and bands; routing to a pool stays.
    pub mode: Mode,
    /// From mild to severe: of the bands whose threshold a query's points reach, the last acts. At
    /// rest (no pressure) only what the operator says counts: rules and `reputation`. Under pressure
    /// all points do. Points that an alarm makes certain are compared with the threshold under full
    /// pressure, even while there is room.
    pub bands: Vec<Band>,
    /// The most points that evidence of one kind counts, so that it takes two kinds, or certainty
    /// about the name, to drop a query.
    pub caps: Caps,
    /// Memory of all `rate-limit` rules together, per worker. A source needs 8 octets; plan for
    /// twice as many cells as sources that are active at once (16 MiB for a million). Taken only if such a rule exists.
    pub rate_limit_memory: Memory,
}

impl Default for Scrubbing {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            bands: vec![
                Band {
                    action: BandAction::Truncate,
                    at: 60,
                    under_pressure: 20,
                    observe: false,
                },
                Band {
                    action: BandAction::Drop,
                    at: 100,
                    under_pressure: 40,
                    observe: false,
                },
            ],
            caps: Caps::default(),
            rate_limit_memory: Memory(16 << 20),
        }
    }
}

/// An action for queries whose points reach a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Band {
    /// What is done.
    pub action: BandAction,
    /// The threshold at rest, in points, from 1.
    pub at: u16,
    /// The threshold under full pressure, in points, from 1 and at most `at`. Between the two it
    /// moves in a straight line.
    pub under_pressure: u16,
    /// Count only.
    #[serde(default)]
    pub observe: bool,
}

/// What a band does with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BandAction {
    /// An empty answer with TC=1, so that a real client comes back over TCP and proves its
    /// address. Has no effect on queries over TCP, which did.
    #[serde(alias = "challenge")]
    Truncate,
    /// REFUSED.
    Refuse,
    /// NXDOMAIN.
    Nxdomain,
    /// Silence.
    Drop,
}

/// Named lists that rules and signals refer to: each holds either prefixes or domain names.
///
/// ```yaml
/// lists:
///   trusted-resolvers: { prefixes: [ 192.0.2.53, 2001:db8:53::/48 ] }
///   scanners: { prefix-file: lists/scanners.txt }
///   parked-zones: { names: [ example.net ], name-file: lists/parked.txt }
/// ```
pub type Lists = BTreeMap<String, List>;

/// One named list. Files hold one entry a line; `#` or `;` begins a comment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct List {
    /// Address prefixes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefix>,
    /// A file of address prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_file: Option<String>,
    /// Domain names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// A file of domain names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_file: Option<String>,
}

/// The known name that `found` was most likely meant to be, if one is close.
pub(crate) fn nearest<'a>(
    found: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (found.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(found, name), name))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut next = vec![i.saturating_add(1)];
        for ((to, above), pair) in right.iter().zip(row.iter().skip(1)).zip(row.iter()) {
            let before = next.last().copied().unwrap_or_default();
            let swap = pair.saturating_add(usize::from(from != *to));
            next.push(
                swap.min(above.saturating_add(1))
                    .min(before.saturating_add(1)),
            );
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_close_or_none() {
        assert_eq!(nearest("trustd", ["trusted", "scanners"]), Some("trusted"));
        assert_eq!(nearest("xyz", ["trusted", "scanners"]), None);
    }

    #[test]
    fn quantities_are_read_and_written() {
        for text in ["200/s", "30/m", "1/h", "5/10s", "off"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["0/s", "5", "a/s", "5/0s", "-1/s"] {
            assert!(text.parse::<Rate>().unwrap_err().contains(text), "{text}");
        }
        assert_eq!("8MiB".parse::<Memory>().unwrap(), Memory(8 << 20));
        assert_eq!(Memory(8 << 20).to_string(), "8MiB");
        assert!("8 elephants".parse::<Memory>().is_err());
        assert!("12..".parse::<Range<u8>>().unwrap().contains(255));
        assert!(!"12..".parse::<Range<u8>>().unwrap().contains(11));
        assert!("7".parse::<Range<u8>>().unwrap().contains(7));
        assert!(
            "9..3"
                .parse::<Range<u8>>()
                .unwrap_err()
                .contains("smaller number first")
        );
        assert_eq!(
            "3.5..".parse::<Range<Millibits>>().unwrap().from,
            Millibits(3500)
        );
        assert_eq!(
            "3.5..4.25".parse::<Range<Millibits>>().unwrap().to_string(),
            "3.5..4.25"
        );
        assert_eq!("any".parse::<QueryType>().unwrap(), QueryType(255));
        assert_eq!("TYPE65280".parse::<QueryType>().unwrap(), QueryType(65280));
        assert!("AAA".parse::<QueryType>().unwrap_err().contains("AAAA"));
        assert!(
            "notfy"
                .parse::<OpcodeName>()
                .unwrap_err()
                .contains("notify")
        );
        assert!("16".parse::<OpcodeName>().is_err());
        assert!(
            "192.0.2.1/24"
                .parse::<Prefix>()
                .unwrap_err()
                .contains("192.0.2.0/24")
        );
        assert_eq!(
            "192.0.2.1".parse::<Prefix>().unwrap().to_string(),
            "192.0.2.1/32"
        );
    }
}
