//! `dnscrub routes`: what is announced to the routers in front.

use std::fmt::Write as _;
use std::time::SystemTime;

use axum::http::Method;

use super::arguments::{Ask, Routes};
use super::output::{Cell, Paint, Style, ago, table, until};
use super::{Asker, Exit, json_text};
use crate::control::api::{RouteChange, RouteReply, RouteRequest, RoutesPage};
use crate::routes::settings::Mode;
use crate::routes::{RouteState, speaker};
use crate::unix_time::{time_of_day, to_system};

/// Routes that are over which are shown.
const SHOWN_ENDED: usize = 10;

pub(super) fn run(command: Routes, style: Style) -> Result<String, Exit> {
    match command {
        Routes::List { ask } => {
            Asker::new(&ask).show(Method::GET, "/v1/routes", Vec::new(), |page| {
                list(&page, style, SystemTime::now())
            })
        }
        Routes::Announce {
            source,
            destination,
            blackhole,
            lifetime,
            reason,
            ask,
        } => {
            let request = RouteRequest {
                source,
                destination,
                blackhole,
                lifetime,
                reason,
            };
            change(&ask, "announce", &request)
        }
        Routes::Approve { id, ask } => {
            let approve = RouteChange {
                id: Some(id),
                all: false,
            };
            change(&ask, "approve", &approve)
        }
        Routes::Withdraw { id, all, ask } => change(&ask, "withdraw", &RouteChange { id, all }),
        Routes::Exabgp { socket } => speaker::run(&socket)
            .map(|()| String::new())
            .map_err(|failure| Exit::failed(format!("cannot speak to ExaBGP: {failure}"))),
    }
}

fn change(ask: &Ask, what: &str, body: &impl serde::Serialize) -> Result<String, Exit> {
    let path = format!("/v1/routes/{what}");
    let body = json_text(body)?.into_bytes();
    Asker::new(ask).show(Method::POST, &path, body, |reply: RouteReply| {
        reply.done.join("\n") + "\n"
    })
}

pub(super) fn list(page: &RoutesPage, style: Style, now: SystemTime) -> String {
    let mut text = String::new();
    let mode = match page.mode {
        Mode::Off => "off: nothing is announced, nor thought of",
        Mode::DryRun => "dry-run: nothing is announced",
        Mode::Confirm => "confirm: what waits is announced once it is approved",
        Mode::Announce => "announce",
    };
    let _ = writeln!(text, "mode     {mode}");
    if page.mode == Mode::Off {
        return text;
    }
    let exabgp = if page.connected {
        "connected".to_owned()
    } else {
        style.paint(Paint::Doubtful, "not connected")
    };
    let _ = writeln!(text, "ExaBGP   {exabgp}");
    for (peer, state) in &page.sessions {
        let paint = if state == "up" {
            Paint::Good
        } else {
            Paint::Bad
        };
        let _ = writeln!(text, "session  {peer} {}", style.paint(paint, state));
    }
    let rows: Vec<Vec<Cell>> = page
        .routes
        .iter()
        .map(|route| {
            let paint = match route.state {
                RouteState::Announced => Paint::Good,
                RouteState::Failed | RouteState::Refused | RouteState::Out => Paint::Bad,
                _ => Paint::Doubtful,
            };
            let mut why = route.why.clone();
            if let Some(until) = route.lingers_until {
                let _ = write!(why, "; lingers until {} UTC", time_of_day(until));
            }
            if let Some(reason) = &route.reason {
                let _ = write!(why, "; {reason}");
            }
            let incident = route.incident.map(|number| number.to_string());
            vec![
                Cell::painted(route.id.clone(), Paint::Bold),
                Cell::painted(route.state.label(), paint),
                ago(now, to_system(route.since)).into(),
                until(now, route.expires.map(to_system)).into(),
                incident.unwrap_or_default().into(),
                route.route.as_str().into(),
                why.into(),
            ]
        })
        .collect();
    if rows.is_empty() {
        text.push_str("\nno routes\n");
    } else {
        text.push('\n');
        let heading = [
            "ID", "STATE", "SINCE", "EXPIRES", "INCIDENT", "ROUTE", "WHY",
        ];
        text.push_str(&table(style, &heading, &rows));
    }
    let rows: Vec<Vec<Cell>> = page
        .ended
        .iter()
        .take(SHOWN_ENDED)
        .map(|ended| {
            vec![
                ended.id.as_str().into(),
                ago(now, to_system(ended.at)).into(),
                ended.route.as_str().into(),
                ended.why.as_str().into(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(style, &["ID", "OVER", "ROUTE", "WHY"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::routes::route::RouteKind;
    use crate::routes::{EndedStatus, RouteStatus};

    #[test]
    fn the_list() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let route = |id: &str, kind, route: &str, state, reason: Option<&str>| RouteStatus {
            id: id.to_owned(),
            kind,
            route: route.to_owned(),
            exabgp: String::new(),
            state,
            incident: (kind != RouteKind::Anycast).then_some(12),
            why: "9000 queries a second".to_owned(),
            reason: reason.map(str::to_owned),
            since: 1_699_999_980.0,
            expires: (kind != RouteKind::Anycast).then_some(1_700_000_600.0),
            lingers_until: None,
        };
        let mut page = RoutesPage {
            mode: Mode::Announce,
            connected: true,
            sessions: [("198.51.100.1".to_owned(), "up".to_owned())].into(),
            routes: vec![
                route(
                    "anycast",
                    RouteKind::Anycast,
                    "anycast route 192.0.2.0/24",
                    RouteState::Announced,
                    None,
                ),
                route(
                    "1",
                    RouteKind::Flowspec,
                    "FlowSpec rule against 203.0.113.7/32 to 192.0.2.53/32 port 53",
                    RouteState::Announced,
                    None,
                ),
                route(
                    "2",
                    RouteKind::Blackhole,
                    "blackhole of 192.0.2.54/32",
                    RouteState::Refused,
                    Some("it is the last service address of its family"),
                ),
                RouteStatus {
                    lingers_until: Some(1_700_000_600.0),
                    ..route(
                        "4",
                        RouteKind::Flowspec,
                        "FlowSpec rule against 203.0.113.8/32 to 192.0.2.53/32 port 53",
                        RouteState::Announced,
                        None,
                    )
                },
            ],
            ended: vec![EndedStatus {
                id: "3".to_owned(),
                route: "blackhole of 192.0.2.55/32".to_owned(),
                incident: Some(11),
                at: 1_699_999_000.0,
                why: "the incident is over".to_owned(),
            }],
        };
        insta::assert_snapshot!(list(&page, Style::default(), now));
        page.mode = Mode::Off;
        assert_eq!(list(&page, Style::default(), now).lines().count(), 1);
    }
}
