//! `dnscrub replay`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use dnscrub_detection::Incident;

use super::arguments::Replay;
use super::output::{Cell, Paint, Style, duration, table};
use super::{Exit, json_text};
use crate::legible::grouped;
use crate::replay::report::{
    Against, Changes, Example, OutcomeRow, Report, RuleRow, TopTable, Transition,
};
use crate::replay::run::{self, Options};
use crate::replay::tally::Class;
use crate::replay::{ReplayError, Timing, html, suite};

/// Names and sources that a terminal shows; the page shows more.
const SHOWN: usize = 5;

impl From<ReplayError> for Exit {
    fn from(failure: ReplayError) -> Self {
        match failure {
            ReplayError::Configuration(problems) => problems.into(),
            failure => Self::failed(failure.to_string()),
        }
    }
}

pub(super) fn run(options: &Replay, style: Style) -> Result<String, Exit> {
    let (text, timing) = match (&options.suite, &options.trace) {
        (Some(folder), _) => {
            let suite::Outcomes {
                verdicts,
                incidents,
                timing,
            } = suite::run(folder, options.blind)?;
            write_incidents(options, &incidents)?;
            (verdicts, timing)
        }
        (None, Some(trace)) => {
            let (report, timing) = run::run(&Options {
                trace: trace.clone(),
                config: options.config.clone(),
                against: options.against.clone(),
                port: options.port,
            })?;
            if let Some(path) = &options.html {
                std::fs::write(path, html::page(&report)).map_err(|failure| {
                    Exit::failed(format!("cannot write {}: {failure}", path.display()))
                })?;
            }
            write_incidents(options, &report.incidents)?;
            let text = if options.format.json {
                json_text(&report)?
            } else {
                view(&report, style)
            };
            (text, timing)
        }
        (None, None) => return Err(Exit::configuration("which trace is to be replayed?")),
    };
    if options.timing {
        say_timing(timing);
    }
    Ok(text)
}

/// A line of JSON for each incident.
fn write_incidents(options: &Replay, incidents: &[Incident]) -> Result<(), Exit> {
    let Some(path) = &options.incidents else {
        return Ok(());
    };
    let mut text = String::new();
    for incident in incidents {
        let line = serde_json::to_string(incident)
            .map_err(|failure| Exit::failed(format!("cannot write an incident: {failure}")))?;
        text.push_str(&line);
        text.push('\n');
    }
    std::fs::write(path, text)
        .map_err(|failure| Exit::failed(format!("cannot write {}: {failure}", path.display())))
}

fn say_timing(timing: Timing) {
    let Timing {
        queries,
        judging,
        whole,
    } = timing;
    let each = judging.as_nanos() / u128::from(queries.max(1));
    // nobody to tell if standard error is closed
    let _ = writeln!(
        std::io::stderr(),
        "{} queries in {:.2} s; {each} ns each to judge, count and learn",
        grouped(queries),
        whole.as_secs_f64(),
    );
}

/// The report for people.
fn view(report: &Report, style: Style) -> String {
    let mut text = String::new();
    let bold = |text: &str| style.paint(Paint::Bold, text);
    let facts = &report.trace;
    let _ = writeln!(
        text,
        "{}",
        bold(&format!(
            "{} through {}: {} queries in {}",
            facts.file,
            report.configuration,
            grouped(report.queries),
            length(facts.seconds),
        ))
    );
    for skipped in &facts.skipped {
        let _ = writeln!(
            text,
            "left out: {} {}",
            grouped(skipped.packets),
            skipped.reason
        );
    }
    if facts.answers + facts.answers_unmatched > 0 {
        let _ = writeln!(
            text,
            "answers learned from: {}; without their query, or it did not pass: {}",
            grouped(facts.answers),
            grouped(facts.answers_unmatched)
        );
    }
    for note in &report.notes {
        let _ = writeln!(text, "{}", style.paint(Paint::Dim, note));
    }

    text.push_str(&noticed(&report.incidents, style));
    text.push('\n');
    text.push_str(&outcomes(&report.outcomes, style));
    text.push_str(&rules(&report.rules, style));
    let rows: Vec<Vec<Cell>> = report
        .signals
        .iter()
        .map(|signal| {
            vec![
                signal.name.into(),
                Cell::count(signal.queries),
                percent(signal.share),
                Cell::right(signal.points.to_string()),
                Cell::count(signal.stopped),
                observed(signal.observe),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(
        style,
        &["SIGNAL", "QUERIES", "SHARE", "POINTS", "STOPPED", ""],
        &rows,
    ));
    text.push('\n');
    text.push_str(&scores(report, style));
    for (heading, top) in [
        ("NAME", &report.names),
        ("NAME WITHOUT ITS FIRST LABEL", &report.parents),
        ("SOURCE", &report.sources),
        ("PREFIX", &report.prefixes),
    ] {
        text.push('\n');
        text.push_str(&most(heading, top, style));
    }
    if let Some(against) = &report.against {
        text.push('\n');
        text.push_str(&compared(against, style));
    }
    text
}

/// With an empty line before it, if there are incidents.
fn noticed(incidents: &[Incident], style: Style) -> String {
    if incidents.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<Cell>> = incidents
        .iter()
        .map(|incident| {
            let second = |at: f64| Cell::right(format!("{at:.0}"));
            let colour = if incident.kind.is_attack() {
                Paint::Bad
            } else {
                Paint::Doubtful
            };
            vec![
                second(incident.began),
                second(incident.opened),
                incident
                    .closed
                    .map_or_else(|| Cell::right("goes on".to_owned()), second),
                Cell::painted(incident.kind.title(), colour),
                incident.sentence.as_str().into(),
            ]
        })
        .collect();
    let heading = ["BEGAN", "NAMED", "CLOSED", "INCIDENT", ""];
    format!("\n{}", table(style, &heading, &rows))
}

/// How long a trace is: of a short one every tenth of a second counts.
fn length(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1}s")
    } else {
        duration(Duration::from_secs_f64(seconds))
    }
}

fn outcomes(rows: &[OutcomeRow], style: Style) -> String {
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            vec![
                Cell::painted(row.outcome.as_str(), paint(row.class)),
                Cell::count(row.queries),
                percent(row.share),
            ]
        })
        .collect();
    table(style, &["OUTCOME", "QUERIES", "SHARE"], &rows)
}

/// With an empty line before it, if there are rules.
fn rules(rules: &[RuleRow], style: Style) -> String {
    if rules.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<Cell>> = rules
        .iter()
        .map(|rule| {
            vec![
                Cell::painted(rule.name.as_str(), Paint::Bold),
                Cell::count(rule.matched),
                Cell::count(rule.acted),
                Cell::count(rule.would_have),
                observed(rule.observe),
            ]
        })
        .collect();
    let heading = ["RULE", "MATCHED", "ACTED", "WOULD HAVE", ""];
    format!("\n{}", table(style, &heading, &rows))
}

fn scores(report: &Report, style: Style) -> String {
    let total = |by_class: &[u64]| by_class.iter().sum::<u64>();
    let highest = report
        .scores
        .iter()
        .map(|row| total(&row.by_class))
        .max()
        .unwrap_or(0);
    let rows: Vec<Vec<Cell>> = report
        .scores
        .iter()
        .map(|row| {
            let range = match row.to {
                Some(to) => format!("{}-{to}", row.from),
                None => format!("{} and more", row.from),
            };
            let all = total(&row.by_class);
            let stopped = all
                - [Class::Passed, Class::HeldBack]
                    .iter()
                    .filter_map(|class| row.by_class.get(*class as usize))
                    .sum::<u64>();
            vec![
                Cell::right(range),
                Cell::count(all),
                Cell::count(stopped),
                bar(all, highest).into(),
            ]
        })
        .collect();
    table(style, &["POINTS", "QUERIES", "STOPPED", ""], &rows)
}

/// A bar as long as the number of digits, with its fraction: counts differ by powers of ten.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bar of at most 40 characters"
)]
fn bar(number: u64, highest: u64) -> String {
    let log = |number: u64| (number as f64 + 1.0).log10();
    let length = 40.0 * log(number) / log(highest).max(0.1);
    "#".repeat((length.ceil() as usize).min(40))
}

fn most(heading: &str, top: &TopTable, style: Style) -> String {
    let rows: Vec<Vec<Cell>> = top
        .rows
        .iter()
        .take(SHOWN)
        .map(|row| {
            let mut cells = vec![row.key.as_str().into(), Cell::count(row.queries)];
            let passed = row.by_class.get(Class::Passed as usize).copied();
            let stopped = row.queries
                - passed.unwrap_or(0)
                - row
                    .by_class
                    .get(Class::HeldBack as usize)
                    .copied()
                    .unwrap_or(0);
            cells.push(Cell::count(stopped));
            cells
        })
        .collect();
    let mut text = table(style, &[heading, "QUERIES", "STOPPED"], &rows);
    let hidden = top.known.saturating_sub(rows.len());
    if hidden > 0 {
        let _ = writeln!(
            text,
            "{}",
            style.paint(Paint::Dim, &format!("and {} more", grouped(hidden as u64)))
        );
    }
    text
}

fn compared(against: &Against, style: Style) -> String {
    let mut text = format!(
        "{}\n{} queries fare the same\n",
        style.paint(Paint::Bold, &format!("against {}", against.configuration)),
        grouped(against.unchanged)
    );
    text.push('\n');
    text.push_str(&outcomes(&against.outcomes, style));
    text.push_str(&rules(&against.rules, style));
    for (heading, paint, changes) in [
        ("newly stopped", Paint::Bad, &against.newly_stopped),
        ("newly let pass", Paint::Good, &against.newly_passed),
        ("otherwise changed", Paint::Doubtful, &against.otherwise),
    ] {
        let heading = format!("{heading}: {}", grouped(changes.queries));
        let _ = writeln!(text, "\n{}", style.paint(paint, &heading));
        text.push_str(&changed(changes, style));
    }
    text
}

fn changed(changes: &Changes, style: Style) -> String {
    let mut text = String::new();
    for Transition {
        was,
        would_be,
        queries,
        examples,
    } in &changes.transitions
    {
        let _ = writeln!(text, "\n{was} -> {would_be}: {}", grouped(*queries));
        let rows: Vec<Vec<Cell>> = examples
            .iter()
            .map(|example| {
                let Example {
                    at,
                    source,
                    name,
                    qtype,
                    points,
                    points_then,
                    because,
                    because_then,
                } = example;
                let text = |points: &Option<u16>| {
                    points.map_or_else(|| "-".to_owned(), |points| points.to_string())
                };
                let (before, after) = (text(points), text(points_then));
                vec![
                    Cell::right(format!("{at:.3}")),
                    source.as_str().into(),
                    name.as_str().into(),
                    qtype.as_str().into(),
                    Cell::right(format!("{before} -> {after}")),
                    format!("{because} -> {because_then}").into(),
                ]
            })
            .collect();
        text.push_str(&table(
            style,
            &["SECOND", "SOURCE", "NAME", "TYPE", "POINTS", "DECIDED BY"],
            &rows,
        ));
    }
    text
}

fn observed(observe: bool) -> Cell {
    if observe { "observe mode" } else { "" }.into()
}

fn percent(share: f64) -> Cell {
    Cell::right(format!("{:.2} %", share * 100.0))
}

const fn paint(class: Class) -> Paint {
    match class {
        Class::Passed => Paint::Good,
        Class::HeldBack | Class::Truncated | Class::NxDomain => Paint::Doubtful,
        Class::Refused | Class::Dropped => Paint::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::Format;
    use crate::control::testing::PLAIN;

    fn options(folder: &std::path::Path) -> Replay {
        let record = |i: u32, q: &str| {
            format!(
                r#"{{"i":{i},"t":{i}.5,"src":"192.0.2.7","ttl":57,"sport":4711,"proto":"udp","q":"{q}","exp":0,"txn":{i},"att":0}}"#
            )
        };
        // x.example.com, types A and ANY
        let query = |qtype: &str| {
            format!("000700000001000000000000017807657861 6d706c6503636f6d00{qtype}0001")
                .replace(' ', "")
        };
        let trace = format!(
            "{}\n{}\n",
            record(1, &query("0001")),
            record(2, &query("00ff"))
        );
        let put = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Replay {
            trace: Some(put("trace.ndjson", &trace)),
            config: put("a.yaml", PLAIN),
            against: Some(put(
                "b.yaml",
                &PLAIN.replace("no-any, when: { qtype: ANY }", "no-a, when: { qtype: A }"),
            )),
            html: Some(folder.join("report.html")),
            incidents: Some(folder.join("incidents.jsonl")),
            port: 53,
            suite: None,
            blind: false,
            timing: false,
            format: Format { json: false },
        }
    }

    #[test]
    fn the_report_says_what_happened_and_what_would() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path());
        let shown = run(&options, Style::default()).unwrap();
        let shown = shown.replace(&folder.path().display().to_string(), "");
        insta::assert_snapshot!(shown);
        let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
        assert!(page.contains("newly stopped"), "{page}");
        let json = Replay {
            format: Format { json: true },
            html: None,
            ..options
        };
        let json: serde_json::Value =
            serde_json::from_str(&run(&json, Style::default()).unwrap()).unwrap();
        assert_eq!(json["against"]["newly-stopped"]["queries"], 1);
    }

    #[test]
    fn what_is_wrong_decides_the_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let good = options(folder.path());
        let code = |options: &Replay| run(options, Style::default()).unwrap_err().code;
        let nowhere = || folder.path().join("nowhere");
        let without_trace = Replay {
            trace: Some(nowhere()),
            ..good.clone()
        };
        assert_eq!(code(&without_trace), 1);
        let without_configuration = Replay {
            config: nowhere(),
            ..good.clone()
        };
        assert_eq!(code(&without_configuration), 2);
        let without_other = Replay {
            against: Some(nowhere()),
            ..good.clone()
        };
        assert_eq!(code(&without_other), 2);
        let unwritable = Replay {
            html: Some(nowhere().join("report.html")),
            ..good
        };
        assert_eq!(code(&unwritable), 1);
    }
}
