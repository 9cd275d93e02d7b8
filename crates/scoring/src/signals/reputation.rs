//! `reputation`: what is known about a source beforehand.
//!
//! Gives points to sources in named lists: positive ones to feeds of bad addresses, negative ones
//! (a credit) to sources that are trusted. A source in several lists gets the sum.
//!
//! ```yaml
//! lists:
//!   scanners: { prefix-file: lists/scanners.txt }
//!   trusted: { prefixes: [ 192.0.2.53, 2001:db8:53::/48 ] }
//! signals:
//!   reputation:
//!     lists: { scanners: 30, trusted: -50 }
//! ```
//!
//! Source addresses of UDP queries can be forged, those of trusted sources too: a credit is best
//! kept smaller than what an attack's other evidence adds up to. Without lists the signal is off.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Building, Input, Signal};
use crate::config::Mode;
use crate::evidence::{Given, Kind};
use crate::lists::{List, PrefixSet};
use crate::policy::unknown;
use crate::recorder::Recorder;

/// Settings of the `reputation` signal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "ReputationSignal")]
pub struct Config {
    /// `observe`: the points only count for what would have happened.
    pub mode: Mode,
    /// Points by named list of prefixes; negative ones are a credit.
    pub lists: BTreeMap<String, i16>,
}

/// The `reputation` signal.
#[derive(Debug)]
pub(crate) struct Reputation {
    lists: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    name: String,
    prefixes: Arc<PrefixSet>,
    points: i32,
}

impl Reputation {
    /// The lists that give a credit.
    pub(crate) fn credits(&self) -> impl Iterator<Item = &PrefixSet> {
        let credits = self.lists.iter().filter(|list| list.points < 0);
        credits.map(|list| &*list.prefixes)
    }
}

impl Signal for Reputation {
    type Config = Config;
    type State = ();
    const KIND: Kind = Kind::Standing;

    fn build(config: &Config, building: &mut Building<'_>) -> Self {
        let mut lists = Vec::new();
        for (name, &points) in &config.lists {
            let field = format!("lists.{name}");
            match building.lists.get(name) {
                Some(List::Prefixes(prefixes)) => {
                    lists.push(Known {
                        name: name.clone(),
                        prefixes: Arc::clone(prefixes),
                        points: i32::from(points),
                    });
                }
                Some(List::Names(_)) => {
                    building.wrong(
                        &field,
                        format!(
                            "found list \"{name}\", which holds names; expected a list of prefixes"
                        ),
                    );
                }
                None => {
                    let message = unknown("list", name, building.lists.keys().map(String::as_str));
                    building.wrong(&field, message);
                }
            }
        }
        Self { lists }
    }

    #[inline]
    fn judge<R: Recorder>(&self, (): &mut (), input: &Input<'_>, recorder: &mut R) -> Given {
        let mut points = 0_i32;
        for list in &self.lists {
            if list.prefixes.contains(input.source) {
                points = points.saturating_add(list.points);
                recorder.say(|| {
                    format!(
                        "{} is in list {} ({:+})",
                        input.source, list.name, list.points
                    )
                });
            }
        }
        Given::doubtful(points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::test::Alone;
    use crate::testing::{context, lists, query};

    #[test]
    fn lists_add_up_and_credits_take_away() {
        let lists = lists(
            "{ bad: { prefixes: [192.0.2.0/24] }, worse: { prefixes: [192.0.2.1] }, trusted: { prefixes: [192.0.2.2, '2001:db8::/32'] } }",
        );
        let config = serde_yaml::from_str("lists: { bad: 10, worse: 40, trusted: -30 }").unwrap();
        let mut reputation = Alone::<Reputation>::new(&config, &lists);
        let (query, _) = query("example.com", 1);
        for (source, points) in [
            ("192.0.2.1", 50),
            ("192.0.2.2", -20),
            ("192.0.2.3", 10),
            ("198.51.100.1", 0),
            ("2001:db8::1", -30),
        ] {
            assert_eq!(
                reputation.judge(&query, &context(source), 0),
                points,
                "{source}"
            );
        }
    }

    #[test]
    fn unknown_lists_and_lists_of_names_are_refused() {
        let lists =
            lists("{ trusted: { prefixes: [192.0.2.2] }, zones: { names: [example.com] } }");
        let config: Config = serde_yaml::from_str("lists: { trustd: 1, zones: 1 }").unwrap();
        let mut errors = Vec::new();
        Reputation::build(
            &config,
            &mut Building {
                name: "reputation",
                lists: &lists,
                workers: 1,
                errors: &mut errors,
            },
        );
        assert_eq!(errors[0].path, "signals.reputation.lists.trustd");
        assert!(
            errors[0].message.contains("did you mean \"trusted\""),
            "{}",
            errors[0].message
        );
        assert!(
            errors[1].message.contains("prefixes"),
            "{}",
            errors[1].message
        );
    }
}
