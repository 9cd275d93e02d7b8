//! `dnscrub explain`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use dnscrub_packet_filter::BlocklistStore;
use dnscrub_scoring::Scorer;
use serde::Deserialize;

use super::output::{Cell, Paint, Style, duration, table};
use super::{Exit, json_text};
use crate::config::Disk;
use crate::config::runtime::{self, Configuration, Surroundings};
use crate::control::api::ExplainQuery;
use crate::explain::{Knowledge, explain};

/// The answer, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Explained {
    question: String,
    filter: Vec<Stage>,
    #[serde(default)]
    scoring: Option<Scoring>,
    outcome: String,
}

#[derive(Debug, Deserialize)]
struct Stage {
    check: String,
    passed: bool,
    finding: String,
}

#[derive(Debug, Deserialize)]
struct Scoring {
    known: Known,
    signals: Vec<Signal>,
    rules: Vec<Rule>,
    bands: Vec<Band>,
    pressure: f32,
    observe: bool,
    judgement: Judgement,
    because: String,
}

#[derive(Debug, Deserialize)]
struct Known {
    source: String,
    verified: bool,
    name: String,
    level: String,
}

#[derive(Debug, Deserialize)]
struct Signal {
    signal: String,
    points: i32,
    observe: bool,
    why: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    name: String,
    observe: bool,
    points: i32,
    over_limit: Option<bool>,
    action: Option<String>,
    #[serde(default)]
    waits_for: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Band {
    action: String,
    threshold: i32,
    reached: bool,
    observe: bool,
}

#[derive(Debug, Deserialize)]
struct Judgement {
    points: u16,
    #[serde(default)]
    would: Option<(String, serde_json::Value)>,
    #[serde(default)]
    block_source: Option<Block>,
}

#[derive(Debug, Deserialize)]
struct Block {
    /// In seconds.
    lifetime: f64,
}

/// Asks a configuration instead of a running program.
pub(super) fn offline(config: &Path, query: &ExplainQuery) -> Result<serde_json::Value, Exit> {
    let configuration = runtime::load(config, &Disk, Surroundings::at_start())?;
    crate::zone_loader::load(&configuration, Instant::now())?;
    let Configuration {
        startup,
        reloadable,
        blocklists,
        ..
    } = configuration;
    let listeners: Vec<&str> = startup
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    let request = query.request(&listeners)?;
    let mut store = BlocklistStore::new(startup.blocklist);
    store.set_never_block(reloadable.never_block.iter().copied());
    for file in blocklists {
        let path = file.path.display().to_string();
        store
            .load_list(&path, &file.text, SystemTime::now())
            .map_err(|failure| Exit::configuration(format!("{path}: {failure}")))?;
    }
    let now = Instant::now();
    let mut scorer = Scorer::new(0, &reloadable.scoring, rand::random(), now);
    let blocklist = store.publish();
    let knowledge = Knowledge {
        policy: &reloadable,
        blocklist: &blocklist,
        scorer: &mut scorer,
        pressure: &|_| 0.0,
    };
    let explanation = explain(knowledge, &request, now);
    serde_json::from_str(&json_text(&explanation)?)
        .map_err(|failure| Exit::failed(failure.to_string()))
}

pub(super) fn view(explained: &Explained, style: Style) -> String {
    let Explained {
        question,
        filter,
        scoring,
        outcome,
    } = explained;
    let mut text = format!("{}\n\n", style.paint(Paint::Bold, question));
    let heading = |text: &str| style.paint(Paint::Dim, text);
    let observed = |observe: bool| {
        if observe {
            "observe mode: does not count"
        } else {
            ""
        }
    };

    let _ = writeln!(text, "{}", heading("PACKET FILTER"));
    for Stage {
        check,
        passed,
        finding,
    } in filter
    {
        let (mark, paint) = if *passed {
            ("pass", Paint::Good)
        } else {
            ("STOP", Paint::Bad)
        };
        let _ = writeln!(text, "{}  {check}: {finding}", style.paint(paint, mark));
    }
    let Some(scoring) = scoring else {
        let _ = writeln!(text, "\n{}", style.paint(Paint::Bold, outcome));
        return text;
    };

    let Known {
        source,
        verified,
        name,
        level,
    } = &scoring.known;
    let verified = if *verified { ", verified" } else { "" };
    let _ = writeln!(
        text,
        "\n{}\nsource: {source}{verified}\nname: {name}\nlevel: {level}",
        heading("KNOWN")
    );

    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for signal in &scoring.signals {
        let mut reasons = signal.why.iter().map(String::as_str);
        let first = [reasons.next().unwrap_or(""), observed(signal.observe)];
        let first = first
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("; ");
        rows.push(vec![
            signal.signal.as_str().into(),
            points(signal.points),
            first.into(),
        ]);
        rows.extend(reasons.map(|why| vec!["".into(), "".into(), why.into()]));
    }
    text.push('\n');
    text.push_str(&table(style, &["SIGNAL", "POINTS", "WHY"], &rows));

    text.push('\n');
    if scoring.rules.is_empty() {
        let _ = writeln!(text, "{}\nno rule matches", heading("RULE"));
    } else {
        let rows: Vec<Vec<Cell>> = scoring
            .rules
            .iter()
            .map(|rule| {
                let rate = match rule.over_limit {
                    Some(true) => "its rate is exceeded",
                    Some(false) => "its rate is not exceeded",
                    None => "",
                };
                let action = rule.action.clone().unwrap_or_default();
                let waits = rule.waits_for.as_ref();
                let waits = waits.map_or_else(String::new, |level| {
                    format!("does not count: waits for level {level}")
                });
                let effect = [action.as_str(), rate, observed(rule.observe), &waits];
                let effect: Vec<&str> =
                    effect.into_iter().filter(|part| !part.is_empty()).collect();
                vec![
                    Cell::painted(rule.name.as_str(), Paint::Bold),
                    points(rule.points),
                    effect.join("; ").into(),
                ]
            })
            .collect();
        text.push_str(&table(style, &["RULE", "POINTS", "EFFECT"], &rows));
    }

    text.push('\n');
    let rows: Vec<Vec<Cell>> = scoring
        .bands
        .iter()
        .map(|band| {
            let reached = if band.reached {
                Cell::painted("reached", Paint::Bad)
            } else {
                "not reached".into()
            };
            vec![
                band.action.as_str().into(),
                Cell::right(band.threshold.to_string()),
                reached,
                observed(band.observe).into(),
            ]
        })
        .collect();
    let _ = writeln!(
        text,
        "{} points in all; pressure is {:.2} of 1",
        scoring.judgement.points, scoring.pressure
    );
    text.push_str(&table(style, &["BAND", "FROM", "", ""], &rows));

    let _ = writeln!(
        text,
        "\n{}\n{}",
        style.paint(Paint::Bold, outcome),
        scoring.because
    );
    if let Some(Block { lifetime }) = scoring.judgement.block_source {
        let time = duration(Duration::from_secs_f64(lifetime.max(0.0)));
        let _ = writeln!(text, "its source would be blocked for {time}");
    }
    if let Some((action, _)) = &scoring.judgement.would {
        let whole = if scoring.observe {
            " (scrubbing.mode is observe)"
        } else {
            ""
        };
        let line = format!("without observe mode{whole}: {action}");
        let _ = writeln!(text, "{}", style.paint(Paint::Doubtful, &line));
    }
    text
}

fn points(points: i32) -> Cell {
    Cell::right(if points == 0 {
        "0".to_owned()
    } else {
        format!("{points:+}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::PLAIN;

    #[test]
    fn an_account_of_every_step() {
        let json = r#"{
            "question": "x.example.com. A from 192.0.2.7",
            "filter": [
                {"check": "source: ACL and blocklist", "passed": true, "finding": "admitted"},
                {"check": "query: opcode and class", "passed": true, "finding": "admitted"}
            ],
            "scoring": {
                "question": "x.example.com. IN A", "source": "192.0.2.7", "transport": "udp",
                "known": {"source": "known", "verified": true, "name": "unknown", "level": "alert"},
                "signals": [
                    {"signal": "rate", "points": 40, "observe": false, "why": ["192.0.2.7/32: over 200/s", "192.0.2.0/24: over 2000/s"]},
                    {"signal": "shape", "points": 5, "observe": true, "why": ["a long first label"]},
                    {"signal": "reputation", "points": -10, "observe": false, "why": []}
                ],
                "rules": [
                    {"rule": 0, "name": "botnet", "observe": false, "points": 60, "over_limit": null, "action": null},
                    {"rule": 3, "name": "trial", "observe": true, "points": 0, "over_limit": true, "action": "drop"}
                ],
                "bands": [
                    {"action": "truncate", "threshold": 60, "reached": true, "observe": false},
                    {"action": "drop", "threshold": 100, "reached": false, "observe": true}
                ],
                "pressure": 0.25, "observe": false,
                "judgement": {"action": "truncate", "cause": {"band": 0}, "points": 90, "pool": null, "block_source": {"lifetime": 600.0, "rule": 0},
                              "would": ["drop", {"rate-limit": 3}]},
                "because": "90 points reach the band from 60"
            },
            "outcome": "answered truncated: The query's score reached a band.",
            "outcome_label": "truncated/band"
        }"#;
        let explained: Explained = serde_json::from_str(json).unwrap();
        insta::assert_snapshot!(view(&explained, Style::default()));
    }

    #[test]
    fn a_real_configuration_is_asked_without_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnscrub.yaml");
        std::fs::write(folder.path().join("drop.txt"), "198.51.100.0/24\n").unwrap();
        let yaml = PLAIN.replace("blocklist: {", "blocklist: { files: [ drop.txt ],");
        std::fs::write(&path, yaml).unwrap();
        let ask = |source: &str, qtype: &str| {
            let query =
                serde_json::json!({"source": source, "qname": "x.example.com", "qtype": qtype});
            let answer = offline(&path, &serde_json::from_value(query).unwrap()).unwrap();
            let explained: Explained = serde_json::from_value(answer).unwrap();
            view(&explained, Style::default())
        };
        let passed = ask("192.0.2.7", "A");
        assert!(
            passed.contains("no rule matches") && passed.contains("\nforwarded to pool default\n"),
            "{passed}"
        );
        let dropped = ask("192.0.2.7", "ANY");
        assert!(
            dropped.contains("no-any") && dropped.contains("\ndropped: A rule said so."),
            "{dropped}"
        );
        let blocked = ask("198.51.100.1", "A");
        assert!(
            blocked.contains("STOP  source: ACL and blocklist: The source is on the blocklist."),
            "{blocked}"
        );
        assert!(!blocked.contains("SIGNAL"), "nothing is scored any more");
    }

    #[test]
    fn a_wrong_configuration_is_said_so() {
        let query = serde_json::from_str(r#"{"source":"192.0.2.7","qname":"x"}"#).unwrap();
        assert_eq!(
            offline(Path::new("/nonexistent.yaml"), &query)
                .unwrap_err()
                .code,
            2
        );
    }
}
