//! `dnscrub level`.

use std::fmt::Write as _;
use std::time::SystemTime;

use axum::http::Method;
use dnscrub_scoring::Level as DefenceLevel;

use super::arguments::{Ask, Level, LevelName};
use super::blocklist::path;
use super::output::{Cell, Paint, Style, between, table};
use super::{Asker, Exit, json_text};
use crate::control::api::{LevelOrders, ZoneQuery};
use crate::defence::{WHOLE, scope_in_words};
use crate::orders::ByHand;
use crate::response::LevelRequest;
use crate::unix_time;
use crate::zone_loader::ZoneStatus;

pub(super) fn run(command: Option<Level>, ask: &Ask, style: Style) -> Result<String, Exit> {
    let now = SystemTime::now();
    match command {
        None => Asker::new(ask).show(Method::GET, "/v1/level", Vec::new(), |orders| {
            show(&orders, style, now)
        }),
        Some(Level::Set {
            level,
            zone,
            lifetime,
            reason,
            ask,
        }) => {
            let request = LevelRequest {
                zone,
                level: level.label().to_owned(),
                lifetime,
                reason,
            };
            let body = json_text(&request)?.into_bytes();
            let asker = Asker::new(&ask);
            let answer = asker.json(Method::POST, "/v1/level", body)?;
            // without them the level is set all the same
            let zones: Vec<ZoneStatus> = asker
                .json(Method::GET, "/v1/zones", Vec::new())
                .unwrap_or_default();
            asker.render(answer, |set| confirmed(&set, &zones, style))
        }
        Some(Level::Release { zone, ask }) => {
            let path = path("/v1/level", &ZoneQuery { zone })?;
            Asker::new(&ask).show(Method::DELETE, &path, Vec::new(), |released: ByHand| {
                format!(
                    "the level of {} follows what is seen again\n",
                    scope_in_words(released.scope())
                )
            })
        }
    }
}

impl LevelName {
    const fn label(self) -> &'static str {
        match self {
            Self::Attack => "attack",
            Self::Alert => "alert",
            Self::Calm => "calm",
        }
    }
}

pub(super) const fn paint(level: DefenceLevel) -> Paint {
    match level {
        DefenceLevel::Calm => Paint::Good,
        DefenceLevel::Alert => Paint::Doubtful,
        DefenceLevel::Attack => Paint::Bad,
    }
}

/// What was set. `zones`: those of the configuration.
fn confirmed(set: &ByHand, zones: &[ZoneStatus], style: Style) -> String {
    let scope = scope_in_words(set.scope());
    let lasts = between(set.since, set.until);
    if set.level == DefenceLevel::Calm {
        let mut text = format!("the level of {scope} is held at calm for {lasts}\n");
        let warning =
            "warning: until then nothing is enforced there for what alarms and incidents say";
        let _ = writeln!(text, "{}", style.paint(Paint::Doubtful, warning));
        return text;
    }
    let mut text = format!(
        "the level of {scope} is at least {} for {lasts}\n",
        set.level.label()
    );
    let is_there = |zone: &String| zones.iter().any(|it| it.name.eq_ignore_ascii_case(zone));
    if !zones.is_empty() && !set.zone.as_ref().is_none_or(is_there) {
        let warning = format!(
            "warning: {scope} is not among the zones of the configuration: see `dnscrub zones`"
        );
        let _ = writeln!(text, "{}", style.paint(Paint::Doubtful, &warning));
    }
    text
}

fn show(orders: &LevelOrders, style: Style, now: SystemTime) -> String {
    if orders.by_hand.is_empty() && orders.by_incident.is_empty() {
        return "no level is set by hand or raised by an incident; `dnscrub levels` shows what the signals see\n"
            .to_owned();
    }
    let by_hand = orders.by_hand.iter().map(|it| {
        vec![
            Cell::painted(it.scope(), Paint::Bold),
            Cell::painted(it.level.label(), paint(it.level)),
            "operator".into(),
            Cell::right(between(unix_time::from(now), it.until)),
            it.reason.as_str().into(),
        ]
    });
    let by_incident = orders.by_incident.iter().flat_map(|it| {
        let whole = it.zones.is_empty().then_some(WHOLE);
        let scopes = it.zones.iter().map(String::as_str).chain(whole);
        scopes.map(|scope| {
            vec![
                Cell::painted(scope, Paint::Bold),
                Cell::painted(it.level.label(), paint(it.level)),
                format!("incident {}", it.incident).into(),
                Cell::right("its end"),
                "".into(),
            ]
        })
    });
    let rows: Vec<Vec<Cell>> = by_hand.chain(by_incident).collect();
    let mut text = table(style, &["SCOPE", "LEVEL", "BY", "UNTIL", "REASON"], &rows);
    let pinned: Vec<&str> = orders
        .by_hand
        .iter()
        .filter(|it| it.level == DefenceLevel::Calm)
        .map(ByHand::scope)
        .collect();
    if !pinned.is_empty() {
        let line = format!(
            "alarms are held down for {}: nothing is enforced there for what they say",
            pinned.join(", ")
        );
        let _ = writeln!(text, "\n{}", style.paint(Paint::Doubtful, &line));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::orders::Raised;

    fn by_hand(zone: Option<&str>, level: DefenceLevel) -> ByHand {
        ByHand {
            zone: zone.map(str::to_owned),
            level,
            since: 1000.0,
            until: 4600.0,
            reason: "drill".to_owned(),
        }
    }

    #[test]
    fn what_is_ordered_is_shown_with_who_and_until_when() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1600);
        let orders = LevelOrders {
            by_hand: vec![
                by_hand(None, DefenceLevel::Calm),
                by_hand(Some("example.com"), DefenceLevel::Attack),
            ],
            by_incident: vec![Raised {
                incident: 17,
                level: DefenceLevel::Attack,
                zones: vec!["example.net".to_owned()],
                names: true,
            }],
        };
        assert_eq!(
            show(&orders, Style::default(), now),
            "\
SCOPE        LEVEL   BY             UNTIL  REASON
whole        calm    operator         50m  drill
example.com  attack  operator         50m  drill
example.net  attack  incident 17  its end

alarms are held down for whole: nothing is enforced there for what they say
"
        );
        let none = show(&LevelOrders::default(), Style::default(), now);
        assert!(none.starts_with("no level is set by hand"), "{none}");
        let confirmed = |set: &ByHand| confirmed(set, &[], Style::default());
        let pinned = confirmed(&by_hand(None, DefenceLevel::Calm));
        assert!(
            pinned.contains("held at calm for 1h\nwarning: "),
            "{pinned}"
        );
        let raised = confirmed(&by_hand(Some("a.example"), DefenceLevel::Alert));
        assert_eq!(raised, "the level of a.example is at least alert for 1h\n");
    }

    #[test]
    fn a_zone_that_is_not_configured_may_be_mistyped() {
        let known: ZoneStatus = serde_json::from_value(serde_json::json!({
            "name": "example.com", "source": "learned from answers", "state": "learned", "serial": null, "names": null,
            "memory": null, "proof": null, "refreshed_seconds_ago": null, "next_in_seconds": null, "failure": null,
            "refreshes": {}
        }))
        .unwrap();
        let set = |zone: Option<&str>, zones: &[ZoneStatus]| {
            confirmed(
                &by_hand(zone, DefenceLevel::Attack),
                zones,
                Style::default(),
            )
        };
        let warned = set(Some("exmaple.com"), std::slice::from_ref(&known));
        assert!(
            warned.contains("\nwarning: exmaple.com is not among the zones"),
            "{warned}"
        );
        for (zone, zones) in [
            (Some("Example.com"), std::slice::from_ref(&known)),
            (None, std::slice::from_ref(&known)),
            // without any every name has its level
            (Some("exmaple.com"), &[]),
        ] {
            assert!(!set(zone, zones).contains("warning"), "{zone:?}");
        }
    }
}
