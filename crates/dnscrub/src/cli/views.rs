//! `dnscrub status`, `upstreams`, `zones`, `levels`, `signals`, `rules` and `reload`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use dnscrub_forwarding::UpstreamSnapshot;
use dnscrub_scoring::Level as DefenceLevel;

use super::output::{Cell, Paint, Style, ago, between, duration, per_second, table, things};
use crate::control::api::{LevelStatus, QueryCounts, RuleStatus, SignalsPage, Status};
use crate::kernel::KernelStatus;
use crate::legible::grouped;
use crate::orders::Origin;
use crate::supervisor::ReloadReport;
use crate::unix_time;
use crate::zone_loader::ZoneStatus;

/// Open incidents that `status` names.
const SHOWN_INCIDENTS: usize = 5;

pub(super) fn status(status: &Status, style: Style, now: SystemTime) -> String {
    let Status {
        version,
        pid,
        uptime_seconds,
        workers,
        configuration,
        listeners,
        udp,
        tcp,
        upstreams,
        pools,
        proxy_pressure,
        level,
        levels_by_hand,
        incidents,
        alarmed_zones,
        rules,
        blocklist,
        kernel,
        ..
    } = status;
    let mut text = String::new();
    let up = duration(Duration::from_secs_f64(uptime_seconds.max(0.0)));
    let _ = writeln!(
        text,
        "{}",
        style.paint(
            Paint::Bold,
            &format!(
                "dnscrub {version}, process {pid}, up for {up}, {}",
                things(*workers, "worker", "workers")
            )
        )
    );
    let _ = writeln!(
        text,
        "\nconfiguration  {}, generation {}, loaded {}",
        configuration.file,
        configuration.generation,
        ago(now, configuration.loaded)
    );
    if let Some(failure) = &configuration.reload_failure {
        let _ = writeln!(
            text,
            "{}",
            style.paint(Paint::Bad, "               the last reload failed:")
        );
        for line in failure.lines() {
            let _ = writeln!(text, "               {line}");
        }
    }
    for (at, listener) in listeners.iter().enumerate() {
        let head = if at == 0 { "listeners" } else { "" };
        let transports = listener
            .transports
            .iter()
            .map(|it| it.to_uppercase())
            .collect::<Vec<_>>()
            .join(" and ");
        let _ = writeln!(
            text,
            "{head:<13}  {}: {} ({transports})",
            listener.name,
            listener.addresses.join(", ")
        );
    }
    let usable = format!("{} of {} usable", upstreams.usable, upstreams.total);
    let paint = match upstreams.usable {
        0 => Paint::Bad,
        usable if usable < upstreams.total => Paint::Doubtful,
        _ => Paint::Good,
    };
    let _ = writeln!(text, "upstreams      {}", style.paint(paint, &usable));
    let pressed = |pressure: f64| match pressure {
        calm if calm < 0.05 => Paint::Good,
        some if some < 0.5 => Paint::Doubtful,
        _ => Paint::Bad,
    };
    let pool_pressures = pools.iter().map(|pool| {
        let queued = match pool.queued {
            0 => String::new(),
            queued => format!(", {} queued", grouped(queued.into())),
        };
        let pressure = f64::from(pool.pressure);
        let line = format!("{} {pressure:.2}{queued}", pool.name);
        style.paint(pressed(pressure), &line)
    });
    let own = (*proxy_pressure > 0.0).then(|| {
        let line = format!("the proxy itself {proxy_pressure:.2}");
        style.paint(pressed(*proxy_pressure), &line)
    });
    let pressures: Vec<_> = pool_pressures.chain(own).collect();
    let _ = writeln!(text, "pressure       {}", pressures.join("; "));
    if let Some(whole) = level {
        let since = whole.since.map_or_else(String::new, |since| {
            format!(", since {}", between(since, unix_time::from(now)))
        });
        let why = whole
            .why
            .as_ref()
            .map_or_else(String::new, |why| format!(" ({why})"));
        let zones = match alarmed_zones {
            0 => String::new(),
            zones => format!("; {} with an alarm", things(*zones, "zone", "zones")),
        };
        let level = style.paint(paint_level(&whole.level), &format!("{}{why}", whole.level));
        let _ = writeln!(text, "defence level  {level}{since}{zones}");
    }
    for (at, set) in levels_by_hand.iter().enumerate() {
        let head = if at == 0 { "set by hand" } else { "" };
        let left = between(unix_time::from(now), set.until);
        let held = if set.level == DefenceLevel::Calm {
            ", ALARMS ARE HELD DOWN"
        } else {
            ""
        };
        let line = format!(
            "{} {} for {left} more{held}",
            set.scope(),
            set.level.label()
        );
        let paint = match set.level {
            DefenceLevel::Attack => Paint::Bad,
            DefenceLevel::Alert | DefenceLevel::Calm => Paint::Doubtful,
        };
        let _ = writeln!(text, "{head:<13}  {}", style.paint(paint, &line));
    }
    for (at, incident) in incidents.iter().take(SHOWN_INCIDENTS).enumerate() {
        let head = if at == 0 { "incidents" } else { "" };
        let zone = incident.zones.first();
        let zone = zone.map_or_else(String::new, |zone| format!(" on {zone}"));
        let line = format!("{}: {}{zone}", incident.number, incident.kind.title());
        let paint = if incident.kind.is_attack() {
            Paint::Bad
        } else {
            Paint::Doubtful
        };
        let since = between(incident.began, unix_time::from(now));
        let _ = writeln!(
            text,
            "{head:<13}  {}, for {since}",
            style.paint(paint, &line)
        );
    }
    if incidents.len() > SHOWN_INCIDENTS {
        let more = incidents.len() - SHOWN_INCIDENTS;
        let _ = writeln!(
            text,
            "               and {more} more: dnscrub incidents list --open"
        );
    }
    let _ = writeln!(text, "rules          {}", grouped(*rules as u64));
    let _ = writeln!(
        text,
        "blocklist      {} of lists, {} of rules, incidents and operators",
        things(blocklist.static_entries, "entry", "entries"),
        grouped(blocklist.dynamic_entries as u64)
    );
    if let Some(failure) = &blocklist.unsaved {
        let _ = writeln!(
            text,
            "{}",
            style.paint(Paint::Bad, &format!("               NOT SAVED: {failure}"))
        );
    }
    for file in blocklist.files.iter().filter(|file| file.failure.is_some()) {
        let failure = file.failure.as_deref().unwrap_or_default();
        let line = format!(
            "               {}: an older version is in force: {failure}",
            file.name
        );
        let _ = writeln!(text, "{}", style.paint(Paint::Bad, &line));
    }
    if let Some(kernel) = kernel {
        text.push_str(&in_the_kernel(kernel, style));
    }
    text.push('\n');
    let row = |name: &str, counts: &QueryCounts| {
        let numbers = [
            counts.received,
            counts.forwarded,
            counts.answered,
            counts.dropped,
            counts.expired,
            counts.in_flight,
            counts.queued,
        ];
        std::iter::once(Cell::from(name))
            .chain(numbers.map(Cell::count))
            .collect()
    };
    let heading = [
        "QUERIES",
        "RECEIVED",
        "FORWARDED",
        "ANSWERED",
        "DROPPED",
        "EXPIRED",
        "IN FLIGHT",
        "QUEUED",
    ];
    text.push_str(&table(style, &heading, &[row("UDP", udp), row("TCP", tcp)]));
    text
}

/// Where the program in the kernel is, and what it does.
fn in_the_kernel(kernel: &KernelStatus, style: Style) -> String {
    let mut text = String::new();
    let limit = match &kernel.limit {
        Some(limit) => style.paint(Paint::Bad, &format!("limits to {limit}")),
        None => style.paint(Paint::Good, "limits nothing"),
    };
    let dropped = grouped(kernel.dropped);
    let _ = writeln!(text, "kernel         {limit}; packets dropped: {dropped}");
    for interface in &kernel.interfaces {
        let line = match (&interface.mode, &interface.failure) {
            (Some(mode), _) => format!("               on {}, {mode} mode", interface.name),
            (None, Some(failure)) => {
                let line = format!("               NOT ON {}: {failure}", interface.name);
                style.paint(Paint::Bad, &line)
            }
            (None, None) => {
                let line = format!("               NOT ON {}", interface.name);
                style.paint(Paint::Bad, &line)
            }
        };
        let _ = writeln!(text, "{line}");
    }
    if let Some(failure) = &kernel.failure {
        let line = format!("               NO LIMITS: {failure}");
        let _ = writeln!(text, "{}", style.paint(Paint::Bad, &line));
    }
    text
}

pub(super) fn upstreams(upstreams: &[UpstreamSnapshot], style: Style) -> String {
    let rows: Vec<Vec<Cell>> = upstreams
        .iter()
        .map(|upstream| {
            let paint = match upstream.state.as_str() {
                "up" | "unchecked" => Paint::Good,
                "down" => Paint::Bad,
                _ => Paint::Doubtful,
            };
            let address = upstream.address.to_string();
            let name = if upstream.name == address {
                String::new()
            } else {
                upstream.name.clone()
            };
            vec![
                upstream.pool.as_str().into(),
                Cell::painted(address, Paint::Bold),
                name.into(),
                Cell::painted(upstream.state.as_str(), paint),
                Cell::right(duration(Duration::from_secs_f64(
                    upstream.since_seconds.max(0.0),
                ))),
                Cell::right(upstream.latency_ms.map_or_else(|| "-".to_owned(), latency)),
                Cell::right(format!("{}/{}", upstream.outstanding, upstream.limit)),
                Cell::count(upstream.forwarded),
                Cell::count(upstream.answered),
                Cell::count(upstream.timeouts),
                Cell::count(upstream.refused),
                upstream
                    .last_check
                    .as_ref()
                    .map_or_else(String::new, |check| {
                        let seconds = check.seconds_ago.max(0.0);
                        let when = if seconds < 1.0 {
                            "just now".to_owned()
                        } else {
                            format!("{} ago", duration(Duration::from_secs_f64(seconds)))
                        };
                        format!("{}, {when}", check.result)
                    })
                    .into(),
            ]
        })
        .collect();
    let heading = [
        "POOL",
        "ADDRESS",
        "NAME",
        "STATE",
        "SINCE",
        "LATENCY",
        "OUTSTANDING",
        "FORWARDED",
        "ANSWERED",
        "TIMEOUTS",
        "REFUSED",
        "LAST CHECK",
    ];
    table(style, &heading, &rows)
}

fn latency(ms: f64) -> String {
    if ms < 1.0 {
        format!("{:.0} µs", ms * 1e3)
    } else if ms < 100.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

pub(super) fn zones(zones: &[ZoneStatus], style: Style) -> String {
    if zones.is_empty() {
        return "the configuration has no zones\n".to_owned();
    }
    let or_dash = |value: Option<String>| Cell::right(value.unwrap_or_else(|| "-".to_owned()));
    let time = |seconds: Option<f64>| {
        or_dash(seconds.map(|seconds| duration(Duration::from_secs_f64(seconds.max(0.0)))))
    };
    let rows: Vec<Vec<Cell>> = zones
        .iter()
        .map(|zone| {
            let state = match zone.state.as_str() {
                "fresh" => Cell::painted(zone.state.as_str(), Paint::Good),
                "learned" => zone.state.as_str().into(),
                "stale" => Cell::painted(zone.state.as_str(), Paint::Doubtful),
                _ => Cell::painted(zone.state.as_str(), Paint::Bad),
            };
            vec![
                Cell::painted(zone.name.as_str(), Paint::Bold),
                zone.source.as_str().into(),
                state,
                or_dash(zone.serial.map(|serial| serial.to_string())),
                or_dash(zone.names.map(|names| grouped(names.into()))),
                or_dash(zone.memory.map(octets)),
                time(zone.refreshed_seconds_ago),
                time(zone.next_in_seconds),
            ]
        })
        .collect();
    let heading = [
        "ZONE",
        "SOURCE",
        "STATE",
        "SERIAL",
        "NAMES",
        "MEMORY",
        "REFRESHED",
        "NEXT",
    ];
    let mut text = table(style, &heading, &rows);
    for zone in zones {
        if let Some(failure) = &zone.failure {
            let line = format!("{}: {failure}", zone.name);
            let _ = writeln!(text, "\n{}", style.paint(Paint::Bad, &line));
        }
    }
    text
}

fn octets(octets: usize) -> String {
    let kib = octets as f64 / 1024.0;
    if kib < 1024.0 {
        format!("{kib:.1} KiB")
    } else {
        format!("{:.1} MiB", kib / 1024.0)
    }
}

fn paint_level(level: &str) -> Paint {
    match level {
        "calm" => Paint::Good,
        "alert" => Paint::Doubtful,
        _ => Paint::Bad,
    }
}

pub(super) fn levels(levels: &[LevelStatus], style: Style, now: SystemTime) -> String {
    let or_dash = |value: Option<String>| Cell::right(value.unwrap_or_else(|| "-".to_owned()));
    let rows: Vec<Vec<Cell>> = levels
        .iter()
        .map(|row| {
            vec![
                Cell::painted(row.scope.as_str(), Paint::Bold),
                Cell::painted(row.level.as_str(), paint_level(&row.level)),
                or_dash(row.since.map(|since| between(since, unix_time::from(now)))),
                row.origin.map_or("-", Origin::label).into(),
                row.why.as_deref().unwrap_or("-").into(),
                or_dash(row.rate.map(per_second)),
                or_dash(row.usual.map(per_second)),
                or_dash(
                    row.distinct
                        .map(|names| grouped(f64::from(names).round() as u64)),
                ),
            ]
        })
        .collect();
    let heading = [
        "SCOPE",
        "LEVEL",
        "SINCE",
        "BY",
        "WHY",
        "RATE",
        "USUAL",
        "DISTINCT NAMES",
    ];
    table(style, &heading, &rows)
}

pub(super) fn signals(page: &SignalsPage, style: Style) -> String {
    let mode = |observe: bool| {
        if observe {
            Cell::painted("observe", Paint::Doubtful)
        } else {
            "enforce".into()
        }
    };
    let or_dash = |value: Option<String>| Cell::right(value.unwrap_or_else(|| "-".to_owned()));
    let rows: Vec<Vec<Cell>> = page
        .signals
        .iter()
        .map(|signal| {
            vec![
                Cell::painted(signal.name.as_str(), Paint::Bold),
                mode(signal.observe),
                Cell::count(signal.queries),
                Cell::count(signal.points),
                Cell::count(signal.held_back),
                signal.level.as_ref().map_or_else(
                    || "-".into(),
                    |level| Cell::painted(level.as_str(), paint_level(level)),
                ),
                or_dash(signal.rate.map(per_second)),
                or_dash(signal.usual.map(per_second)),
            ]
        })
        .collect();
    let heading = [
        "SIGNAL",
        "MODE",
        "QUERIES",
        "POINTS",
        "HELD BACK",
        "ALARM",
        "RATE",
        "USUAL",
    ];
    let mut text = table(style, &heading, &rows);
    text.push('\n');
    let rows: Vec<Vec<Cell>> = page
        .bands
        .iter()
        .map(|band| {
            vec![
                Cell::painted(band.name.as_str(), Paint::Bold),
                mode(band.observe),
                Cell::right(band.at.to_string()),
                Cell::right(band.under_pressure.to_string()),
                Cell::count(band.acted),
                Cell::count(band.held_back),
            ]
        })
        .collect();
    let heading = [
        "BAND",
        "MODE",
        "FROM",
        "UNDER PRESSURE",
        "DECIDED",
        "HELD BACK",
    ];
    text.push_str(&table(style, &heading, &rows));
    if page.observe {
        let line = "everything is in observe mode (scrubbing.mode): nothing above is done";
        let _ = writeln!(text, "\n{}", style.paint(Paint::Doubtful, line));
    }
    text
}

pub(super) fn rules(rules: &[RuleStatus], style: Style) -> String {
    if rules.is_empty() {
        return "the configuration has no rules\n".to_owned();
    }
    let rows: Vec<Vec<Cell>> = rules
        .iter()
        .enumerate()
        .map(|(at, rule)| {
            let acted: Vec<String> = rule
                .acted
                .iter()
                .filter(|(_, hits)| **hits > 0)
                .map(|(action, hits)| format!("{action} {}", grouped(*hits)))
                .chain((rule.routed > 0).then(|| format!("routed {}", grouped(rule.routed))))
                .collect();
            vec![
                Cell::count(at as u64 + 1),
                Cell::painted(rule.name.as_str(), Paint::Bold),
                Cell::count(rule.matched),
                if rule.observe {
                    Cell::painted("observe", Paint::Doubtful)
                } else {
                    "enforce".into()
                },
                match rule.from_level.as_str() {
                    "" | "calm" => "-".into(),
                    level => Cell::from(level),
                },
                Cell::count(rule.held_back),
                acted.join(", ").into(),
            ]
        })
        .collect();
    table(
        style,
        &[
            "#",
            "RULE",
            "MATCHED",
            "MODE",
            "FROM LEVEL",
            "HELD BACK",
            "DECIDED",
        ],
        &rows,
    )
}

pub(super) fn reloaded(report: &ReloadReport, style: Style) -> String {
    let mut text = format!("configuration {} is in force\n", report.generation);
    if !report.restart_needed.is_empty() {
        let line = format!(
            "a restart is needed for what changed in: {}",
            report.restart_needed.join(", ")
        );
        let _ = writeln!(text, "{}", style.paint(Paint::Doubtful, &line));
    }
    text
}

#[cfg(test)]
mod tests {
    use dnscrub_forwarding::{LastCheck, PoolSnapshot};

    use super::*;
    use crate::control::api::{
        BlocklistStatus, ConfigurationStatus, IncidentRow, ListenerStatus, UpstreamCounts,
    };
    use crate::kernel::InterfaceStatus;
    use crate::orders::ByHand;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    #[test]
    fn the_status() {
        let mut example = Status {
            version: "1.2.3".to_owned(),
            pid: 4711,
            started: now() - Duration::from_secs(90_000),
            uptime_seconds: 90_000.5,
            workers: 2,
            configuration: ConfigurationStatus {
                file: "/etc/dnscrub/dnscrub.yaml".to_owned(),
                generation: 3,
                loaded: now() - Duration::from_secs(75),
                reload_failure: None,
            },
            listeners: vec![ListenerStatus {
                name: "main".to_owned(),
                addresses: vec!["0.0.0.0:53".to_owned(), "[::]:53".to_owned()],
                transports: vec!["udp".to_owned(), "tcp".to_owned()],
            }],
            udp: QueryCounts {
                received: 1_234_567,
                forwarded: 1_200_000,
                answered: 30_000,
                dropped: 4_500,
                expired: 60,
                in_flight: 7,
                queued: 3,
            },
            tcp: QueryCounts::default(),
            upstreams: UpstreamCounts {
                total: 3,
                usable: 2,
            },
            pools: vec![PoolSnapshot {
                name: "default".to_owned(),
                pressure: 0.0,
                queued: 0,
            }],
            proxy_pressure: 0.0,
            level: Some(LevelStatus {
                scope: "whole".to_owned(),
                level: "calm".to_owned(),
                since: Some(1_700_000_000.0 - 90_000.0),
                why: None,
                rate: None,
                usual: None,
                distinct: None,
                origin: None,
                incident: None,
                until: None,
            }),
            levels_by_hand: Vec::new(),
            incidents: Vec::new(),
            alarmed_zones: 0,
            rules: 12,
            blocklist: BlocklistStatus {
                static_entries: 1_000_000,
                dynamic_entries: 17,
                ..BlocklistStatus::default()
            },
            kernel: None,
        };
        insta::assert_snapshot!(status(&example, Style::default(), now()));
        example.configuration.reload_failure =
            Some("error: unknown key `lissten`\n --> x.yaml:1:1".to_owned());
        example.pools[0].pressure = 0.834;
        example.pools[0].queued = 1_234;
        example.proxy_pressure = 0.1;
        example.level = Some(LevelStatus {
            level: "attack".to_owned(),
            since: Some(1_700_000_000.0 - 75.0),
            why: Some("loyalty".to_owned()),
            ..example.level.unwrap()
        });
        example.alarmed_zones = 3;
        let by_hand = |zone: Option<&str>, level| ByHand {
            zone: zone.map(str::to_owned),
            level,
            since: 1_699_999_000.0,
            until: 1_700_000_600.0,
            reason: "drill".to_owned(),
        };
        example.levels_by_hand = vec![
            by_hand(None, DefenceLevel::Calm),
            by_hand(Some("example.com"), DefenceLevel::Attack),
        ];
        let incident = crate::incidents::testing::incident;
        example.incidents = (10..17)
            .rev()
            .map(|number| IncidentRow::of(&incident(number)))
            .collect();
        let interface = |name: &str, mode: Option<&str>, failure: Option<&str>| InterfaceStatus {
            name: name.to_owned(),
            mode: mode.map(str::to_owned),
            failure: failure.map(str::to_owned),
        };
        example.kernel = Some(KernelStatus {
            interfaces: vec![
                interface("eth0", Some("generic"), None),
                interface(
                    "eth1",
                    None,
                    Some("there is no interface eth1; found lo, eth0"),
                ),
            ],
            limit: Some("200/s from a /32 of IPv4".to_owned()),
            failure: None,
            dropped: 1_234_567,
        });
        example.blocklist.unsaved = Some("cannot write /x: No space left on device".to_owned());
        insta::assert_snapshot!(
            "the_status_in_trouble",
            status(&example, Style::default(), now())
        );
    }

    #[test]
    fn the_upstreams() {
        let up = UpstreamSnapshot {
            name: "ns1".to_owned(),
            address: "192.0.2.10:53".parse().unwrap(),
            pool: "default".to_owned(),
            state: "up".to_owned(),
            since_seconds: 3_725.0,
            weight: 1,
            outstanding: 12,
            limit: 480,
            max_outstanding: 5_000,
            forwarded: 1_234_567,
            answered: 1_234_500,
            timeouts: 55,
            refused: 0,
            latency_ms: Some(0.412),
            last_check: Some(LastCheck {
                seconds_ago: 0.4,
                passed: true,
                result: "NOERROR in 0.3 ms".to_owned(),
                failures_in_a_row: 0,
            }),
        };
        let down = UpstreamSnapshot {
            name: "[2001:db8::53]:53".to_owned(),
            address: "[2001:db8::53]:53".parse().unwrap(),
            state: "down".to_owned(),
            latency_ms: None,
            last_check: None,
            ..up.clone()
        };
        insta::assert_snapshot!(upstreams(&[up, down], Style::default()));
    }

    #[test]
    fn the_levels() {
        let whole = LevelStatus {
            scope: "whole".to_owned(),
            level: "attack".to_owned(),
            since: Some(1_700_000_000.0 - 75.0),
            why: Some("suffix-flood".to_owned()),
            rate: Some(12_345.6),
            usual: Some(3.21),
            distinct: None,
            origin: Some(Origin::Signal),
            incident: Some(17),
            until: None,
        };
        let by_hand = LevelStatus {
            scope: "example.net".to_owned(),
            level: "attack".to_owned(),
            why: Some("by hand".to_owned()),
            rate: None,
            usual: None,
            origin: Some(Origin::Operator),
            until: Some(1_700_000_600.0),
            ..whole.clone()
        };
        let zone = LevelStatus {
            scope: "example.com".to_owned(),
            level: "alert".to_owned(),
            distinct: Some(34_567.8),
            ..whole.clone()
        };
        let calm = LevelStatus {
            scope: "example.org".to_owned(),
            level: "calm".to_owned(),
            since: None,
            why: None,
            rate: None,
            usual: None,
            distinct: None,
            origin: None,
            incident: None,
            until: None,
        };
        insta::assert_snapshot!(levels(
            &[whole, zone, by_hand, calm],
            Style::default(),
            now()
        ));
    }

    #[test]
    fn the_signals() {
        use crate::control::api::{BandStatus, SignalStatus};

        let plain = SignalStatus {
            name: "shape".to_owned(),
            observe: false,
            queries: 1_234_567,
            points: 7_654_321,
            held_back: 0,
            level: None,
            rate: None,
            usual: None,
        };
        let alarmed = SignalStatus {
            name: "loyalty".to_owned(),
            observe: true,
            held_back: 1_200,
            level: Some("attack".to_owned()),
            rate: Some(5_000.0),
            usual: Some(0.5),
            ..plain.clone()
        };
        let band = BandStatus {
            name: "drop-90".to_owned(),
            at: 90,
            under_pressure: 40,
            observe: false,
            acted: 98_765,
            held_back: 12,
        };
        let page = SignalsPage {
            observe: true,
            signals: vec![plain, alarmed],
            bands: vec![band],
        };
        insta::assert_snapshot!(signals(&page, Style::default()));
    }

    #[test]
    fn the_zones() {
        let fresh = ZoneStatus {
            name: "example.com".to_owned(),
            source: "axfr 192.0.2.10:53".to_owned(),
            state: "fresh".to_owned(),
            serial: Some(2_026_010_101),
            names: Some(1_234_567),
            memory: Some(33_600_000),
            proof: Some("unsigned".to_owned()),
            refreshed_seconds_ago: Some(12.3),
            next_in_seconds: Some(47.7),
            failure: None,
            refreshes: [("whole".to_owned(), 1)].into(),
        };
        let missing = ZoneStatus {
            name: "example.net".to_owned(),
            source: "file /etc/zones/example.net".to_owned(),
            state: "not loaded".to_owned(),
            serial: None,
            names: None,
            memory: None,
            proof: None,
            refreshed_seconds_ago: None,
            failure: Some("/etc/zones/example.net:3:1: \"BAD\" is no record type".to_owned()),
            ..fresh.clone()
        };
        let learned = ZoneStatus {
            name: "example.org".to_owned(),
            source: "answers".to_owned(),
            state: "learned".to_owned(),
            next_in_seconds: None,
            failure: None,
            ..missing.clone()
        };
        insta::assert_snapshot!(zones(&[fresh, missing, learned], Style::default()));
        assert_eq!(
            zones(&[], Style::default()),
            "the configuration has no zones\n"
        );
    }

    #[test]
    fn the_rules() {
        let acted = |drop| [("drop".to_owned(), drop), ("pass".to_owned(), 0)].into();
        let one = RuleStatus {
            name: "no-any".to_owned(),
            observe: false,
            from_level: "attack".to_owned(),
            matched: 1_000,
            acted: acted(990),
            held_back: 0,
            routed: 0,
        };
        let other = RuleStatus {
            name: "trial".to_owned(),
            observe: true,
            from_level: "calm".to_owned(),
            matched: 5,
            acted: acted(0),
            held_back: 5,
            routed: 0,
        };
        insta::assert_snapshot!(rules(&[one, other], Style::default()));
        assert_eq!(
            rules(&[], Style::default()),
            "the configuration has no rules\n"
        );
    }

    #[test]
    fn a_reload() {
        let report = ReloadReport {
            generation: 4,
            restart_needed: vec!["listen".to_owned(), "workers".to_owned()],
        };
        assert_eq!(
            reloaded(&report, Style::default()),
            "configuration 4 is in force\na restart is needed for what changed in: listen, workers\n"
        );
    }
}
