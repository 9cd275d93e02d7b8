//! What a replay comes to: the same for people, as JSON and as a page.

use dnscrub_detection::Incident;
use dnscrub_scoring::{Action, Cause, Judgement};
use dnscrub_wire::Name;
use serde::Serialize;

use super::lane::Decision;
use super::tally::{BAR, BARS, Class, Classes, Fate, Fates, Steps, Tally};
use crate::config::runtime::Reloadable;
use crate::explain;
use crate::outcome::Outcome;

/// Rows of the tables of names and sources.
const TOP: usize = 20;
/// Steps of the plot over time.
const STEPS: usize = 240;

/// What a replay comes to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// What was replayed.
    pub trace: TraceFacts,
    /// What it was put through.
    pub configuration: String,
    /// What is to be kept in mind when the numbers are read.
    pub notes: Vec<String>,
    /// Queries decided.
    pub queries: u64,
    /// Names of the classes, in the order in which counts by class stand.
    pub classes: Vec<&'static str>,
    /// Queries by class.
    pub by_class: Classes,
    /// What was noticed, in order. Times are seconds since the first query.
    pub incidents: Vec<Incident>,
    /// What became of queries, the most frequent first.
    pub outcomes: Vec<OutcomeRow>,
    /// Every rule in order.
    pub rules: Vec<RuleRow>,
    /// Every signal in order.
    pub signals: Vec<SignalRow>,
    /// Queries by points.
    pub scores: Vec<ScoreRow>,
    /// Queries that were not scored: what the packet filter ends is not.
    pub unscored: u64,
    /// Queries over time.
    pub over_time: OverTime,
    /// Names asked for most.
    pub names: TopTable,
    /// The same without their first label: where a flood of random names shows.
    pub parents: TopTable,
    /// Addresses that ask most.
    pub sources: TopTable,
    /// Their prefixes.
    pub prefixes: TopTable,
    /// What another configuration would change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
}

/// What was replayed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TraceFacts {
    /// The file.
    pub file: String,
    /// Seconds from its first query to its last.
    pub seconds: f64,
    /// What was left out, and why.
    pub skipped: Vec<SkippedRow>,
    /// Answers that taught the scorer, under one of the configurations at least.
    pub answers: u64,
    /// Answers whose query is not in the trace, or did not pass.
    pub answers_unmatched: u64,
}

/// Packets left out.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedRow {
    /// Why.
    pub reason: &'static str,
    /// How many.
    pub packets: u64,
}

/// An outcome.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OutcomeRow {
    /// As the metric's labels, and what observe mode held back.
    pub outcome: String,
    /// As plots show it.
    pub class: Class,
    /// How many.
    pub queries: u64,
    /// Of all, 0 to 1.
    pub share: f64,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuleRow {
    /// Its name.
    pub name: String,
    /// It is in observe mode.
    pub observe: bool,
    /// Queries that matched.
    pub matched: u64,
    /// Queries it decided.
    pub acted: u64,
    /// Queries it would have decided were it not in observe mode.
    pub would_have: u64,
}

/// A signal.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SignalRow {
    /// Its name.
    pub name: &'static str,
    /// It is in observe mode.
    pub observe: bool,
    /// Queries that got points.
    pub queries: u64,
    /// Of all scored, 0 to 1.
    pub share: f64,
    /// The sum of the points.
    pub points: i64,
    /// Of the queries that got points, those that did not pass.
    pub stopped: u64,
}

/// Queries with so many points.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScoreRow {
    /// At least.
    pub from: u16,
    /// At most; none for the last row.
    pub to: Option<u16>,
    /// By class.
    pub by_class: Classes,
}

/// Queries over time.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OverTime {
    /// How long a step is.
    pub step_seconds: f64,
    /// By class.
    pub steps: Vec<Classes>,
}

/// The most frequent.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TopTable {
    /// How many different ones there are, or are remembered.
    pub known: usize,
    /// The most frequent first.
    pub rows: Vec<TopRow>,
}

/// A name or source.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TopRow {
    /// Which.
    pub key: String,
    /// Its queries.
    pub queries: u64,
    /// By class.
    pub by_class: Classes,
}

/// What another configuration would change.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Against {
    /// Which.
    pub configuration: String,
    /// Queries by class under it.
    pub by_class: Classes,
    /// Its outcomes.
    pub outcomes: Vec<OutcomeRow>,
    /// Its rules.
    pub rules: Vec<RuleRow>,
    /// Queries over time under it.
    pub over_time: OverTime,
    /// Queries that fare the same.
    pub unchanged: u64,
    /// Queries that pass now and would not.
    pub newly_stopped: Changes,
    /// Queries that do not pass now and would.
    pub newly_passed: Changes,
    /// Queries that would end otherwise, or differ in what observe mode holds back.
    pub otherwise: Changes,
}

/// Queries that another configuration treats otherwise.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Changes {
    /// How many.
    pub queries: u64,
    /// From what to what, the most frequent first.
    pub transitions: Vec<Transition>,
}

/// From one outcome to another.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Transition {
    /// What became of them.
    pub was: String,
    /// What would become of them.
    pub would_be: String,
    /// How many.
    pub queries: u64,
    /// Some of them, drawn by lot, by time.
    pub examples: Vec<Example>,
}

/// A query that another configuration treats otherwise.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Example {
    /// Seconds since the first query.
    pub at: f64,
    /// Who asked.
    pub source: String,
    /// For which name.
    pub name: String,
    /// For which type.
    pub qtype: String,
    /// Points.
    pub points: Option<u16>,
    /// Points under the other configuration.
    pub points_then: Option<u16>,
    /// What decided.
    pub because: String,
    /// What would decide.
    pub because_then: String,
}

impl Report {
    pub(super) fn new(
        trace: TraceFacts,
        configuration: String,
        notes: Vec<String>,
        policy: &Reloadable,
        tally: Tally,
        incidents: Vec<Incident>,
    ) -> Self {
        let scored = tally.queries - tally.unscored;
        let signals = tally.signals.iter().map(|sum| SignalRow {
            name: sum.mark.signal,
            observe: sum.mark.observed,
            queries: sum.queries,
            share: share(sum.queries, scored),
            points: sum.points,
            stopped: sum.stopped,
        });
        let last = tally
            .scores
            .iter()
            .rposition(|bar| bar.iter().any(|&count| count > 0));
        let scores = (0_u16..)
            .zip(tally.scores)
            .take(last.map_or(0, |last| last + 1));
        let scores = scores.map(|(bar, by_class)| ScoreRow {
            from: bar * BAR,
            to: (usize::from(bar) + 1 < BARS).then_some(bar * BAR + BAR - 1),
            by_class,
        });
        Self {
            trace,
            configuration,
            notes,
            queries: tally.queries,
            classes: Class::ALL.iter().map(|class| class.label()).collect(),
            by_class: tally.classes,
            incidents,
            signals: signals.collect(),
            scores: scores.collect(),
            unscored: tally.unscored,
            rules: rules(policy),
            over_time: tally.steps.into(),
            names: top(tally.names.most(TOP), |wire| name(wire)),
            parents: top(tally.parents.most(TOP), |wire| name(wire)),
            sources: top(tally.sources.most(TOP), ToString::to_string),
            prefixes: top(tally.prefixes.most(TOP), ToString::to_string),
            outcomes: outcomes(tally.fates, tally.queries),
            against: None,
        }
    }
}

impl From<Steps> for OverTime {
    fn from(mut steps: Steps) -> Self {
        steps.coarsen(STEPS);
        Self {
            step_seconds: steps.length.as_secs_f64(),
            steps: steps.steps,
        }
    }
}

pub(super) fn rules(policy: &Reloadable) -> Vec<RuleRow> {
    let rows = policy.scoring.rules().map(|rule| RuleRow {
        name: rule.name.to_owned(),
        observe: rule.observe,
        matched: rule.matched,
        acted: rule.acted.iter().sum(),
        would_have: rule.held_back,
    });
    rows.collect()
}

pub(super) fn outcomes(fates: Fates, all: u64) -> Vec<OutcomeRow> {
    let rows = fates
        .sorted()
        .into_iter()
        .map(|(fate, _, queries, ())| OutcomeRow {
            outcome: fate_label(fate),
            class: fate.class(),
            queries,
            share: share(queries, all),
        });
    rows.collect()
}

fn top<K>((rows, known): (Vec<(K, Classes)>, usize), text: impl Fn(&K) -> String) -> TopTable {
    let rows = rows.iter().map(|(key, by_class)| TopRow {
        key: text(key),
        queries: by_class.iter().sum(),
        by_class: *by_class,
    });
    TopTable {
        known,
        rows: rows.collect(),
    }
}

/// A name from its wire format, as it stands in names that were parsed.
fn name(wire: &[u8]) -> String {
    Name::from_wire(wire).map_or_else(|_| ".".to_owned(), |name| name.to_string())
}

#[allow(clippy::cast_precision_loss, reason = "a share")]
pub(super) fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

pub(super) fn fate_label(fate: Fate) -> String {
    let label = explain::label(fate.outcome);
    match fate.would {
        Some(action) => format!("{label} (observe mode held back: {})", action.label()),
        None => label,
    }
}

/// What decided, for people.
pub(super) fn because(policy: &Reloadable, decision: &Decision) -> String {
    let reason = match decision.outcome {
        Outcome::Answered(_, reason) | Outcome::Dropped(reason) => Some(reason),
        Outcome::Forwarded | Outcome::Expired => None,
    };
    let by = |action: Action, cause: Cause| {
        let rule = |rule| {
            policy
                .scoring
                .rule_name(rule)
                .unwrap_or_default()
                .to_owned()
        };
        match cause {
            Cause::None => "nothing".to_owned(),
            Cause::Rule(number) => format!("rule {}", rule(number)),
            Cause::RateLimit(number) => format!("rate of rule {}", rule(number)),
            Cause::Allow(number) => format!("allowed by rule {}", rule(number)),
            Cause::Band(_) => format!("band {}", action.label()),
            Cause::Level => "the defence level".to_owned(),
            Cause::Missing => "a band, for a name its zone does not have".to_owned(),
        }
    };
    match (decision.judgement, reason) {
        (
            Some(Judgement {
                action,
                cause,
                would,
                ..
            }),
            _,
        ) => {
            let decided = by(action, cause);
            match would {
                Some((action, cause)) => format!("{decided}; observed: {}", by(action, cause)),
                None => decided,
            }
        }
        (None, Some(reason)) => reason.label().to_owned(),
        (None, None) => String::new(),
    }
}
