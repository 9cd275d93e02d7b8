//! `dnscrub incidents`.

use std::fmt::Write as _;
use std::time::SystemTime;

use axum::http::Method;
use dnscrub_detection::incident::{Action, Entry, Impact, SourcePart, Sources, Spoofed};
use dnscrub_detection::{Incident, Kind, Measure};

use super::arguments::Incidents;
use super::blocklist::path;
use super::output::{Cell, Paint, Style, between, per_second, table};
use super::{Asker, Exit, json_text, postmortem};
use crate::control::api::{CloseRequest, Failure, IncidentRow, IncidentsQuery, NoteRequest};
use crate::incidents::{fault_in_words, upstream_named};
use crate::legible::{grouped, visible, whole};
use crate::unix_time::{self, date, time_of_day};

pub(super) fn run(command: Incidents, style: Style) -> Result<String, Exit> {
    let now = SystemTime::now();
    match command {
        Incidents::List {
            open,
            since,
            limit,
            ask,
        } => {
            let since = since.map(|text| moment(&text, now)).transpose()?;
            let query = IncidentsQuery {
                open,
                since,
                limit: Some(limit),
            };
            let path = path("/v1/incidents", &query)?;
            Asker::new(&ask).show(Method::GET, &path, Vec::new(), |rows: Vec<_>| {
                list(&rows, style, now)
            })
        }
        Incidents::Show { number, ask } => {
            let asker = Asker::new(&ask);
            let number = match number {
                Some(number) => number,
                None => foremost(&asker.json::<Vec<IncidentRow>>(
                    Method::GET,
                    "/v1/incidents",
                    Vec::new(),
                )?)
                .ok_or_else(|| Exit::failed("there are no incidents".to_owned()))?,
            };
            let path = format!("/v1/incidents/{number}");
            asker.show(Method::GET, &path, Vec::new(), |incident| {
                show(&incident, style, now)
            })
        }
        Incidents::Note { number, text, ask } => {
            let body = json_text(&NoteRequest { text })?.into_bytes();
            let path = format!("/v1/incidents/{number}/note");
            Asker::new(&ask).show(Method::POST, &path, body, |incident: Incident| {
                format!("noted on incident {}\n", incident.number)
            })
        }
        Incidents::Export(options) => postmortem::export(&options),
        Incidents::Close { number, note, ask } => {
            let body = json_text(&CloseRequest { text: note })?.into_bytes();
            let path = format!("/v1/incidents/{number}/close");
            Asker::new(&ask).show(Method::POST, &path, body, |incident: Incident| {
                format!(
                    "incident {} is closed; what was done because of it is undone within a second\n",
                    incident.number
                )
            })
        }
    }
}

/// A time so long ago, or a date, in seconds since 1970.
fn moment(text: &str, now: SystemTime) -> Result<f64, Exit> {
    let then = humantime::parse_duration(text)
        .ok()
        .and_then(|ago| now.checked_sub(ago))
        .or_else(|| humantime::parse_rfc3339_weak(text).ok())
        .or_else(|| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok());
    let then = then.ok_or_else(|| {
        let found = text.escape_debug();
        Failure::new(format!(
            "found \"{found}\", expected how long ago, such as 2h or 7d, or a time such as 2026-01-31 or \"2026-01-31 14:05:00\" (UTC)"
        ))
    })?;
    Ok(unix_time::from(then))
}

fn percent(share: f32) -> String {
    let percent = share * 100.0;
    // one of many sources is not none
    if percent > 0.0 && percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

fn list(rows: &[IncidentRow], style: Style, now: SystemTime) -> String {
    if rows.is_empty() {
        return "no incidents\n".to_owned();
    }
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            let (lasted, state) = match row.closed {
                Some(closed) => (closed - row.began, Cell::from("over")),
                None => {
                    let paint = if row.kind.is_attack() {
                        Paint::Bad
                    } else {
                        Paint::Doubtful
                    };
                    (
                        unix_time::from(now) - row.began,
                        Cell::painted("going on", paint),
                    )
                }
            };
            let zone = row.zones.first().map_or("-", String::as_str);
            let more = row.zones.len().saturating_sub(1) + row.more_zones;
            let zone = match more {
                0 => zone.to_owned(),
                more => format!("{zone} and {more} more"),
            };
            vec![
                Cell::right(row.number.to_string()),
                state,
                Cell::painted(row.kind.title(), Paint::Bold),
                Cell::right(percent(row.confidence)),
                date(row.began).into(),
                Cell::right(between(0.0, lasted)),
                Cell::right(per_second(row.peak)),
                Cell::right(whole(row.lost)),
                zone.into(),
            ]
        })
        .collect();
    let heading = [
        "#",
        "STATE",
        "KIND",
        "SURE",
        "BEGAN (UTC)",
        "LASTED",
        "PEAK",
        "LOST",
        "ZONE",
    ];
    table(style, &heading, &rows)
}

fn show(incident: &Incident, style: Style, now: SystemTime) -> String {
    let Incident {
        number,
        kind,
        of,
        confidence,
        sentence,
        began,
        opened,
        closed,
        zones,
        more_zones,
        upstreams,
        more_upstreams,
        names,
        qtypes,
        sources,
        evidence,
        peak,
        impact,
        kernel_dropped,
        timeline,
        actions,
        ..
    } = incident;
    let mut text = String::new();
    let of = of.map_or_else(String::new, |of| format!(" ({})", of.title()));
    let title = format!("incident {number}: {}{of}", kind.title());
    let state = match closed {
        Some(_) => style.paint(Paint::Good, "over"),
        None => style.paint(Paint::Bad, "going on"),
    };
    let _ = writeln!(text, "{}, {state}", style.paint(Paint::Bold, &title));
    let _ = writeln!(text, "\n{}\n", visible(sentence));
    let mut line = |head: &str, rest: String| {
        let head = style.paint(Paint::Dim, &format!("{head:<8}"));
        let _ = writeln!(text, "{}", format!("{head}  {rest}").trim_end());
    };
    line("sure", percent(*confidence));
    let state = match closed {
        Some(closed) => format!(
            "over {} after {}",
            time_of_day(*closed),
            between(*began, *closed)
        ),
        None => format!("going on for {}", between(*began, unix_time::from(now))),
    };
    line(
        "time",
        format!(
            "began {} UTC, named after {}, {state}",
            date(*began),
            if opened - began < 1.0 {
                "less than a second".to_owned()
            } else {
                between(*began, *opened)
            }
        ),
    );
    line(
        "peak",
        format!("{} at {}", per_second(peak.queries), time_of_day(peak.at)),
    );
    for (at, part) in zones.iter().enumerate() {
        let head = if at == 0 { "zones" } else { "" };
        let rest = format!(
            "{}: {}, usually {}; {} of what is too much",
            visible(&part.zone),
            per_second(part.rate),
            per_second(part.usual),
            percent(part.share)
        );
        line(head, rest);
    }
    if *more_zones > 0 {
        line(
            "",
            format!("and {} more zones", grouped(*more_zones as u64)),
        );
    }
    for (at, part) in upstreams.iter().enumerate() {
        let head = if at == 0 { "servers" } else { "" };
        let server = visible(&upstream_named(part));
        line(head, format!("{server}: {}", fault_in_words(part)));
    }
    if *more_upstreams > 0 {
        line(
            "",
            format!("and {} more servers", grouped(*more_upstreams as u64)),
        );
    }
    for (at, part) in names.iter().enumerate() {
        let head = if at == 0 { "names" } else { "" };
        line(
            head,
            format!("{}: {}", visible(&part.name), percent(part.share)),
        );
    }
    if !qtypes.is_empty() {
        let types: Vec<String> = qtypes
            .iter()
            .map(|part| format!("{} {}", part.qtype, percent(part.share)))
            .collect();
        line("types", types.join(", "));
    }
    // a failure of the servers behind does not come from anybody who asks
    let whence = match kind {
        Kind::UpstreamFailure => Vec::new(),
        _ => whence(sources),
    };
    for (at, rest) in whence.into_iter().enumerate() {
        line(if at == 0 { "sources" } else { "" }, rest);
    }
    line("cost", cost(impact));
    if *kernel_dropped > 0 {
        line(
            "kernel",
            format!("dropped {} packets beside", grouped(*kernel_dropped)),
        );
    }
    if !sources.top.is_empty() {
        text.push('\n');
        text.push_str(&top(&sources.top, style));
    }
    if !evidence.is_empty() {
        let rows: Vec<Vec<Cell>> = evidence
            .iter()
            .map(|reading| {
                vec![
                    reading.measure.label().into(),
                    reading.zone.as_deref().unwrap_or("-").into(),
                    Cell::right(value(reading.measure, reading.now)),
                    Cell::right(value(reading.measure, reading.usual)),
                    Cell::right(value(reading.measure, reading.peak)),
                    Cell::right(format!("{:.0}", reading.spreads)),
                ]
            })
            .collect();
        let heading = ["EVIDENCE", "ZONE", "NOW", "USUAL", "PEAK", "SPREADS OFF"];
        text.push('\n');
        text.push_str(&table(style, &heading, &rows));
    }
    text.push('\n');
    text.push_str(&told(timeline, style));
    if !actions.is_empty() {
        text.push('\n');
        text.push_str(&done(actions, style));
    }
    text
}

/// What is known of the sources, in lines.
fn whence(sources: &Sources) -> Vec<String> {
    let forged = match sources.spoofed {
        Spoofed::Likely => "their addresses look forged",
        Spoofed::Unlikely => "their addresses are their own",
        Spoofed::Unclear => "nothing says whether their addresses are forged",
    };
    let mut lines = vec![format!(
        "about {} distinct a second, usually {}; {} of the queries from ones never seen before; {forged}",
        whole(f64::from(sources.distinct)),
        whole(f64::from(sources.usual)),
        percent(sources.never_seen)
    )];
    if !sources.why.is_empty() {
        lines.push(visible(&sources.why));
    }
    lines
}

fn cost(impact: &Impact) -> String {
    if impact.asked <= 0.0 {
        return format!(
            "no queries of known sources meanwhile; {} were shed in all",
            whole(impact.shed)
        );
    }
    format!(
        "of {} queries of known sources {} were served, {} challenged, {} lost; {} s impaired; {} shed in all",
        whole(impact.asked),
        whole(impact.served),
        whole(impact.challenged),
        whole(impact.lost),
        whole(impact.seconds_impaired),
        whole(impact.shed)
    )
}

fn top(parts: &[SourcePart], style: Style) -> String {
    let rows: Vec<Vec<Cell>> = parts
        .iter()
        .map(|part| {
            let known = match (part.known, part.verified) {
                (true, true) => "known, verified",
                (true, false) => "known",
                (false, true) => "verified",
                (false, false) => "new",
            };
            let prefix = if part.prefix.prefix_len() == part.prefix.max_prefix_len() {
                part.prefix.addr().to_string()
            } else {
                part.prefix.to_string()
            };
            vec![
                Cell::painted(prefix, Paint::Bold),
                Cell::right(per_second(part.rate)),
                Cell::right(percent(part.share)),
                known.into(),
            ]
        })
        .collect();
    table(
        style,
        &["BUSIEST SOURCE", "RATE", "SHARE", "STANDING"],
        &rows,
    )
}

/// A measure's value with its unit.
fn value(measure: Measure, value: f32) -> String {
    match measure {
        Measure::Queries
        | Measure::Sources
        | Measure::NewSources
        | Measure::NewNames
        | Measure::TcpConnections => per_second(value),
        Measure::NxdomainShare
        | Measure::ServfailShare
        | Measure::MalformedShare
        | Measure::Loss => percent(value),
        Measure::QtypeMix => format!("{value:.2}"),
        Measure::NameEntropy => format!("{value:.2} bits"),
        Measure::Amplification => format!("{value:.1} times"),
        Measure::Latency => format!("{:.1} ms", value * 1e3),
    }
}

/// The number of the incident that somebody means who names none. They come with the newest first.
fn foremost(rows: &[IncidentRow]) -> Option<u64> {
    let open = rows.iter().find(|row| row.closed.is_none());
    open.or(rows.first()).map(|row| row.number)
}

fn told(timeline: &[Entry], style: Style) -> String {
    let rows: Vec<Vec<Cell>> = timeline
        .iter()
        .map(|entry| {
            vec![
                time_of_day(entry.at).into(),
                Cell::painted(entry.what.label(), Paint::Bold),
                entry.text.as_str().into(),
            ]
        })
        .collect();
    table(style, &["TIME", "WHAT", "TIME LINE"], &rows)
}

fn done(actions: &[Action], style: Style) -> String {
    let rows: Vec<Vec<Cell>> = actions
        .iter()
        .map(|action| {
            let state = match (action.undone, action.lasting) {
                (Some(at), _) => Cell::from(format!("undone {}", time_of_day(at))),
                (None, true) => Cell::painted("in force", Paint::Doubtful),
                (None, false) => "done".into(),
            };
            vec![
                Cell::right(action.number.to_string()),
                time_of_day(action.at).into(),
                state,
                action.by.as_str().into(),
                action.text.as_str().into(),
            ]
        })
        .collect();
    table(style, &["#", "TIME", "STATE", "BY", "ACTION"], &rows)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dnscrub_detection::incident::{Fault, QtypePart, Reading, UpstreamPart, What};

    use super::*;
    use crate::incidents::testing::incident;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_252)
    }

    #[test]
    fn a_list_of_incidents() {
        let mut over = incident(16);
        over.closed = Some(1_700_000_120.0);
        over.zones.clear();
        let mut loops = incident(17);
        loops.kind = Kind::QueryLoop;
        loops.more_zones = 3;
        let rows: Vec<IncidentRow> = [&loops, &over].map(IncidentRow::of).into();
        insta::assert_snapshot!(list(&rows, Style::default(), now()));
        assert_eq!(list(&[], Style::default(), now()), "no incidents\n");
    }

    #[test]
    fn without_a_number_the_newest_that_goes_on_is_meant_or_else_the_newest() {
        let row = |number, closed| {
            let incident = Incident {
                closed,
                ..incident(number)
            };
            IncidentRow::of(&incident)
        };
        let over = Some(1_700_000_100.0);
        let rows = [row(9, over), row(8, None), row(7, None)];
        assert_eq!(foremost(&rows), Some(8));
        assert_eq!(foremost(&[row(9, over), row(3, over)]), Some(9));
        assert_eq!(foremost(&[]), None);
    }

    #[test]
    fn the_servers_that_fail_are_named() {
        let part = |name: &str, fault, value| UpstreamPart {
            name: name.to_owned(),
            address: "192.0.2.10:53".parse().unwrap(),
            pool: "main".to_owned(),
            fault,
            value,
        };
        let incident = Incident {
            kind: Kind::UpstreamFailure,
            upstreams: vec![
                part("ns1", Fault::NoAnswer, 0.97),
                part("192.0.2.10:53", Fault::Slow, 0.25),
                part("ns3", Fault::Servfail, 0.3),
                part("ns4", Fault::Down, 0.0),
            ],
            more_upstreams: 2,
            ..incident(3)
        };
        let text = show(&incident, Style::default(), SystemTime::UNIX_EPOCH);
        for line in [
            "servers   ns1 (192.0.2.10:53) of pool main: 97 % of its queries get no answer",
            "          192.0.2.10:53 of pool main: takes 250 ms to answer",
            "          ns3 (192.0.2.10:53) of pool main: answers 30 % with SERVFAIL",
            "          ns4 (192.0.2.10:53) of pool main: fails its health checks",
            "          and 2 more servers",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn one_incident_with_everything() {
        let mut incident = incident(17);
        incident.qtypes = vec![QtypePart {
            qtype: "A".to_owned(),
            share: 0.8,
        }];
        incident.evidence = vec![
            Reading {
                measure: Measure::Queries,
                zone: None,
                now: 9_000.0,
                usual: 120.0,
                peak: 9_100.0,
                spreads: 210.4,
            },
            Reading {
                measure: Measure::Latency,
                zone: Some("example.com".to_owned()),
                now: 0.0041,
                usual: 0.0008,
                peak: 0.02,
                spreads: 12.0,
            },
        ];
        incident.impact = Impact {
            asked: 12_000.0,
            served: 11_900.0,
            challenged: 40.0,
            lost: 60.0,
            seconds_impaired: 3.0,
            shed: 600_000.0,
        };
        let action = incident.act(
            1_700_000_004.0,
            "dnscrub",
            "raised example.com to level attack",
            true,
        );
        incident.act(
            1_700_000_005.0,
            "dnscrub",
            "blocked 192.0.2.1 for 10m",
            true,
        );
        incident.undo(action, 1_700_000_200.0, "let the level of example.com go");
        incident.tell(1_700_000_201.0, What::Note, "called the customer\x1b[31m");
        insta::assert_snapshot!(show(&incident, Style::default(), now()));
    }

    #[test]
    fn a_moment_is_so_long_ago_or_a_date() {
        let at = |text| moment(text, now()).map(|at| at as u64);
        assert_eq!(at("2m").unwrap(), 1_700_000_132);
        assert_eq!(at("2023-11-14").unwrap(), 1_699_920_000);
        assert_eq!(at("2023-11-14 22:13:20").unwrap(), 1_700_000_000);
        let exit = at("yesterday").unwrap_err();
        assert_eq!(exit.code, 2);
        assert!(
            exit.message.contains("expected how long ago"),
            "{}",
            exit.message
        );
    }
}
