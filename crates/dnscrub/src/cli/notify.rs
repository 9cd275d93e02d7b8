//! `dnscrub notify`: who is told of incidents, and a test of it.

use std::fmt::Write as _;
use std::time::SystemTime;

use axum::http::Method;
use serde_json::Value;

use super::arguments::Notify;
use super::output::{Cell, Paint, Style, between, table};
use super::{Asker, Exit, json_text};
use crate::notify::{DestinationStatus, NotifyStatus, TestResult};
use crate::unix_time;

pub(super) fn run(command: Notify, style: Style, now: SystemTime) -> Result<String, Exit> {
    match command {
        Notify::Status { ask } => {
            Asker::new(&ask).show(Method::GET, "/v1/notify", Vec::new(), |status| {
                view(&status, style, now)
            })
        }
        Notify::Test { destination, ask } => {
            let asker = Asker::new(&ask);
            // names are letters, digits, `-`, `_` and `.`; another one is refused, whatever it is
            let known = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
            let path = match destination {
                Some(name) if name.chars().all(known) => {
                    format!("/v1/notify/test?destination={name}")
                }
                Some(name) => {
                    return Err(Exit::failed(format!(
                        "there is no destination named \"{name}\""
                    )));
                }
                None => "/v1/notify/test".to_owned(),
            };
            let answer: Value = asker.json(Method::POST, &path, Vec::new())?;
            let results: Vec<TestResult> =
                serde_json::from_value(answer.clone()).map_err(|failure| {
                    Exit::failed(format!("the answer is not understood: {failure}"))
                })?;
            let text = match asker.json {
                true => json_text(&answer)?,
                false => tests(&results, style),
            };
            if results.iter().all(|it| it.delivered) {
                return Ok(text);
            }
            let failed = results.iter().filter(|it| !it.delivered).count();
            Err(Exit {
                printed: text,
                ..Exit::failed(format!("{failed} of {} could not be told", results.len()))
            })
        }
    }
}

fn view(status: &NotifyStatus, style: Style, now: SystemTime) -> String {
    if status.destinations.is_empty() {
        return "nobody is told of incidents: there are no destinations under `notify`\n"
            .to_owned();
    }
    let time = |at: Option<f64>| {
        Cell::right(at.map_or_else(|| "-".to_owned(), |at| between(at, unix_time::from(now))))
    };
    let ended = |row: &DestinationStatus, labels: &[&str]| {
        let counts = labels
            .iter()
            .map(|label| row.ended.get(*label).copied().unwrap_or(0));
        Cell::count(counts.sum())
    };
    let rows: Vec<Vec<Cell>> = status
        .destinations
        .iter()
        .map(|row| {
            let state = match (row.failing, row.last_success) {
                (true, _) => Cell::painted("failing", Paint::Bad),
                (false, Some(_)) => Cell::painted("reached", Paint::Good),
                (false, None) => "not yet tried".into(),
            };
            vec![
                Cell::painted(row.name.as_str(), Paint::Bold),
                row.kind.as_str().into(),
                row.target.as_str().into(),
                state,
                Cell::count(row.queued as u64),
                ended(row, &["delivered"]),
                ended(row, &["failed", "expired", "dropped"]),
                time(row.last_success),
                time(row.last_failure),
            ]
        })
        .collect();
    let heading = [
        "DESTINATION",
        "KIND",
        "TARGET",
        "STATE",
        "QUEUED",
        "DELIVERED",
        "LOST",
        "SUCCESS AGO",
        "FAILURE AGO",
    ];
    let mut text = table(style, &heading, &rows);
    for row in &status.destinations {
        if let (true, Some(failure)) = (row.failing, &row.failure) {
            let line = format!("{} ({}): {failure}", row.name, row.target);
            let _ = writeln!(text, "\n{}", style.paint(Paint::Bad, &line));
        }
    }
    if let Some(unsaved) = &status.unsaved {
        let line = format!("NOT SAVED, a restart would lose what waits: {unsaved}");
        let _ = writeln!(text, "\n{}", style.paint(Paint::Bad, &line));
    }
    if status.lost > 0 {
        let line = format!(
            "{} events were not taken at once: too much was going on",
            status.lost
        );
        let _ = writeln!(text, "\n{}", style.paint(Paint::Bad, &line));
    }
    text
}

fn tests(results: &[TestResult], style: Style) -> String {
    if results.is_empty() {
        return "nobody is told of incidents: there are no destinations under `notify`\n"
            .to_owned();
    }
    let mut text = String::new();
    for result in results {
        let TestResult {
            name,
            kind,
            target,
            seconds,
            ..
        } = result;
        let line = match &result.failure {
            None => style.paint(Paint::Good, &format!("told, in {seconds:.2} s")),
            Some(failure) => style.paint(Paint::Bad, failure),
        };
        let _ = writeln!(text, "{name} ({kind}, {target}): {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_destination_that_fails_stands_out() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let well = DestinationStatus {
            name: "chat".to_owned(),
            kind: "webhook".to_owned(),
            target: "https://chat.example".to_owned(),
            last_success: Some(940.0),
            ended: [("delivered".to_owned(), 12)].into(),
            ..DestinationStatus::default()
        };
        let failing = DestinationStatus {
            name: "ops".to_owned(),
            kind: "alertmanager".to_owned(),
            target: "http://127.0.0.1:9093".to_owned(),
            queued: 2,
            last_failure: Some(999.0),
            failure: Some("connection refused".to_owned()),
            failing: true,
            ended: [("failed".to_owned(), 1), ("expired".to_owned(), 2)].into(),
            ..DestinationStatus::default()
        };
        let status = NotifyStatus {
            destinations: vec![well, failing],
            unsaved: Some("disk full".to_owned()),
            lost: 3,
        };
        insta::assert_snapshot!(view(&status, Style::default(), now), @r"
        DESTINATION  KIND          TARGET                 STATE    QUEUED  DELIVERED  LOST  SUCCESS AGO  FAILURE AGO
        chat         webhook       https://chat.example   reached       0         12     0           1m            -
        ops          alertmanager  http://127.0.0.1:9093  failing       2          0     3            -           1s

        ops (http://127.0.0.1:9093): connection refused

        NOT SAVED, a restart would lose what waits: disk full

        3 events were not taken at once: too much was going on
        ");
        assert!(view(&NotifyStatus::default(), Style::default(), now).contains("nobody is told"));
    }

    #[test]
    fn a_test_says_what_came_of_it() {
        let result = |failure: Option<&str>| TestResult {
            name: "chat".to_owned(),
            kind: "webhook".to_owned(),
            target: "https://chat.example".to_owned(),
            delivered: failure.is_none(),
            failure: failure.map(str::to_owned),
            seconds: 0.254,
        };
        let text = tests(
            &[result(None), result(Some("HTTP status 403"))],
            Style::default(),
        );
        assert_eq!(
            text,
            "chat (webhook, https://chat.example): told, in 0.25 s\n\
             chat (webhook, https://chat.example): HTTP status 403\n"
        );
    }
}
