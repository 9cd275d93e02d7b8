//! What there is to say about an incident. Nothing is said that the record does not hold.

use dnscrub_detection::incident::{SourcePart, Spoofed, What};
use dnscrub_detection::{Incident, Kind, Measure, Point};

use super::{Account, Cell, Layer, Part, Plot, Table, moment};
use crate::incidents::{fault_in_words, upstream_named};
use crate::legible::{grouped, rate, visible, whole};
use crate::unix_time::time_of_day;

/// Below this confidence it is said that the kind is uncertain.
const DOUBTFUL: f32 = 0.6;
/// The share of known clients' queries from which on they are impaired.
const IMPAIRED: f32 = 0.01;
/// Steps of a plot at most; neighbours are joined where there are more.
const STEPS: usize = 300;

/// What there is to say about this one.
#[must_use]
pub fn of(incident: &Incident) -> Account {
    let mut parts = Vec::new();
    summary(&mut parts, incident);
    clocks(&mut parts, incident);
    timeline(&mut parts, incident);
    impact(&mut parts, incident);
    cause(&mut parts, incident);
    done(&mut parts, incident);
    open(&mut parts, incident);
    Account {
        title: format!("Incident {}: {}", incident.number, name(incident)),
        parts,
    }
}

/// Its kind and where.
fn name(incident: &Incident) -> String {
    let kind = match incident.of {
        Some(of) => format!("{}: {}", incident.kind.title(), of.title()),
        None => incident.kind.title().to_owned(),
    };
    let mut zones: Vec<String> = incident
        .zones
        .iter()
        .take(2)
        .map(|part| visible(&part.zone))
        .collect();
    let more = incident.zones.len() - zones.len() + incident.more_zones;
    if more > 0 {
        zones.push(format!("{more} more"));
    }
    match zones.len() {
        0 => kind,
        _ => format!("{kind} on {}", in_a_row(&zones)),
    }
}

/// `a`, `a and b`, `a, b and c`.
fn in_a_row(things: &[String]) -> String {
    match things.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
    }
}

fn summary(parts: &mut Vec<Part>, incident: &Incident) {
    if incident.is_open() {
        parts.push(Part::Notice(
            "It is not over: this is what was known when it was written.".to_owned(),
        ));
    }
    parts.push(Part::Text(visible(&incident.sentence)));
    let attack = if incident.kind.is_attack() {
        "It is taken for an attack"
    } else {
        "It is not taken for an attack"
    };
    parts.push(Part::Text(format!(
        "{attack}; {} sure that it is {}.",
        percent(incident.confidence.into()),
        a_kind(incident.kind)
    )));
}

fn table(heading: &[(&'static str, bool)], rows: Vec<Vec<Cell>>) -> Part {
    Part::Table(Table {
        heading: heading.to_vec(),
        rows,
    })
}

fn clocks(parts: &mut Vec<Part>, incident: &Incident) {
    let row = |what: &str, at: Option<f64>, after: String| {
        let at = at.map_or_else(|| "\u{2013}".to_owned(), moment);
        vec![what.into(), at.into(), after.into()]
    };
    let after = |at: f64| format!("after {}", seconds(at - incident.began));
    let mut rows = vec![
        row("Began", Some(incident.began), String::new()),
        row("Named", Some(incident.opened), after(incident.opened)),
    ];
    rows.push(match mitigated(incident) {
        Mitigated::Never if incident.impact.asked <= 0.0 => {
            row("Mitigated", None, "no known client asked".into())
        }
        Mitigated::Never => row(
            "Mitigated",
            None,
            "known clients were never impaired".into(),
        ),
        Mitigated::At(at) => row("Mitigated", Some(at), after(at)),
        Mitigated::NotYet => row("Mitigated", None, "known clients lose more than 1 %".into()),
        Mitigated::Unknown => row("Mitigated", None, "nothing was measured".into()),
    });
    rows.push(match incident.closed {
        Some(closed) => row("Over", Some(closed), after(closed)),
        None => row("Over", None, "it goes on".to_owned()),
    });
    rows.push(row(
        "Highest rate",
        Some(incident.peak.at),
        format!("{} queries a second", whole(incident.peak.queries.into())),
    ));
    parts.push(Part::Heading("Clock"));
    parts.push(table(&[("", false), ("When", false), ("", false)], rows));
    parts.push(Part::Text(
        "Mitigated: from then on known clients lost less than 1 % of their queries.".to_owned(),
    ));
}

/// When known clients were well again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mitigated {
    /// They were well all the time.
    Never,
    /// From then on.
    At(f64),
    /// They are not.
    NotYet,
    /// There are no points of the time since it began.
    Unknown,
}

/// The first moment after which known clients lost less than one query in a hundred.
#[must_use]
pub fn mitigated(incident: &Incident) -> Mitigated {
    let meanwhile = incident
        .points
        .iter()
        .filter(|point| end(point) > incident.began);
    let mut all = meanwhile.clone().peekable();
    if all.peek().is_none() {
        return Mitigated::Unknown;
    }
    match meanwhile.clone().rfind(|point| is_impaired(point)) {
        None => Mitigated::Never,
        Some(last) if meanwhile.clone().next_back() == Some(last) && incident.is_open() => {
            Mitigated::NotYet
        }
        Some(last) => Mitigated::At(end(last)),
    }
}

fn is_impaired(point: &Point) -> bool {
    point.known > 0.0 && point.known_lost > point.known * IMPAIRED
}

fn end(point: &Point) -> f64 {
    point.at + f64::from(point.seconds)
}

fn timeline(parts: &mut Vec<Part>, incident: &Incident) {
    parts.push(Part::Heading("Time line"));
    let rows = incident
        .timeline
        .iter()
        .map(|entry| {
            let after = entry.at - incident.began;
            let after = if after < 0.0 {
                format!("{} before", seconds(-after))
            } else {
                seconds(after)
            };
            vec![
                time_of_day(entry.at).into(),
                after.into(),
                entry.what.label().into(),
                visible(&entry.text).into(),
            ]
        })
        .collect();
    parts.push(table(
        &[
            ("UTC", false),
            ("After", true),
            ("", false),
            ("What", false),
        ],
        rows,
    ));
}

fn impact(parts: &mut Vec<Part>, incident: &Incident) {
    let impact = &incident.impact;
    parts.push(Part::Heading("Impact on legitimate clients"));
    let text = if impact.asked <= 0.0 {
        "No source known from before asked while it lasted.".to_owned()
    } else if impact.lost <= 0.0 {
        "Sources known from before, which are taken for legitimate, lost nothing.".to_owned()
    } else {
        format!(
            "Sources known from before, which are taken for legitimate, lost {} of their queries: {} of {}. For {} they \
             lost more than 1 %.",
            percent(impact.lost / impact.asked),
            whole(impact.lost),
            whole(impact.asked),
            seconds(impact.seconds_impaired)
        )
    };
    parts.push(Part::Text(text));
    let share = |part: f64| {
        if impact.asked > 0.0 {
            percent(part / impact.asked)
        } else {
            "\u{2013}".to_owned()
        }
    };
    let row = |what: &str, count: f64| vec![what.into(), whole(count).into(), share(count).into()];
    parts.push(table(
        &[
            ("Of known clients", false),
            ("Queries", true),
            ("Share", true),
        ],
        vec![
            row("asked", impact.asked),
            row("served", impact.served),
            row("told to come back", impact.challenged),
            row("lost", impact.lost),
        ],
    ));
    let mut shed = format!("Of all queries {} were shed.", whole(impact.shed));
    if incident.kernel_dropped > 0 {
        let dropped = grouped(incident.kernel_dropped);
        shed.push_str(&format!(
            " The kernel dropped {dropped} packets more over its limit; they are in no other count."
        ));
    }
    parts.push(Part::Text(shed));
    plots(parts, incident);
}

fn plots(parts: &mut Vec<Part>, incident: &Incident) {
    let (edges, steps) = steps(&incident.points);
    if steps.is_empty() {
        parts.push(Part::Text("Nothing was measured over time.".to_owned()));
        return;
    }
    let layer = |label, class, of: fn(&Point) -> f32| Layer {
        label,
        class,
        values: steps
            .iter()
            .map(|step| f64::from(of(step).max(0.0)))
            .collect(),
    };
    let plot = |title, layers| {
        Part::Plot(Plot {
            title,
            edges: edges.clone(),
            layers,
            moments: [Some(incident.began), Some(incident.opened), incident.closed]
                .into_iter()
                .flatten()
                .collect(),
        })
    };
    parts.push(plot(
        "Queries a second, by what became of them",
        vec![
            layer("forwarded", "forwarded", |point| point.forwarded),
            layer("answered here", "answered", |point| point.answered),
            layer("dropped", "dropped", |point| point.dropped),
            layer("expired", "expired", |point| point.expired),
        ],
    ));
    parts.push(plot(
        "Queries a second of known clients",
        vec![
            layer("served", "served", |point| point.known_served),
            layer("told to come back", "challenged", |point| {
                point.known - point.known_served - point.known_lost
            }),
            layer("lost", "lost", |point| point.known_lost),
        ],
    ));
    parts.push(plot(
        "Latency of upstreams, milliseconds",
        vec![layer("median", "other", |point| point.latency * 1_000.0)],
    ));
}

/// The points as steps without a gap: edges, and what is between them.
fn steps(points: &[Point]) -> (Vec<f64>, Vec<Point>) {
    let mut joined: Vec<Point> = Vec::new();
    let together = points.len().div_ceil(STEPS).max(1);
    for group in points.chunks(together) {
        let all = group.iter().copied().reduce(|one, next| one.joined(&next));
        joined.extend(all);
    }
    let mut edges = Vec::new();
    let mut steps = Vec::new();
    let mut until = None;
    for point in joined {
        match until {
            None => edges.push(point.at),
            // a gap, as after a restart
            Some(until) if point.at - until > 1.5 => {
                steps.push(Point::default());
                edges.push(point.at);
            }
            Some(_) => {}
        }
        let last = edges.last().copied().unwrap_or(point.at);
        // points that overlap would turn the drawing back
        let to = end(&point).max(last);
        steps.push(point);
        edges.push(to);
        until = Some(to);
    }
    (edges, steps)
}

fn cause(parts: &mut Vec<Part>, incident: &Incident) {
    parts.push(Part::Heading("Cause"));
    parts.push(Part::Text(format!(
        "Named {}, {} sure, by what was out of the ordinary:",
        visible(&name(incident)),
        percent(incident.confidence.into())
    )));
    let rows = incident
        .evidence
        .iter()
        .map(|reading| {
            let zone = reading
                .zone
                .as_deref()
                .map_or_else(|| Cell::from("all"), |zone| Cell::Code(visible(zone)));
            vec![
                measure(reading.measure).into(),
                zone,
                value(reading.measure, reading.usual).into(),
                value(reading.measure, reading.peak).into(),
                format!("{} \u{d7}", whole(reading.spreads.into())).into(),
            ]
        })
        .collect();
    parts.push(table(
        &[
            ("Measure", false),
            ("Zone", false),
            ("Usual", true),
            ("Peak", true),
            ("Off by its usual spread", true),
        ],
        rows,
    ));
    zones_and_names(parts, incident);
    sources(parts, incident);
}

fn zones_and_names(parts: &mut Vec<Part>, incident: &Incident) {
    if !incident.upstreams.is_empty() {
        let rows = incident.upstreams.iter().map(|part| {
            vec![
                visible(&upstream_named(part)).into(),
                fault_in_words(part).into(),
            ]
        });
        let heading = [("Name server", false), ("What is wrong", false)];
        parts.push(table(&heading, rows.collect()));
    }
    if !incident.zones.is_empty() {
        let rows = incident
            .zones
            .iter()
            .map(|part| {
                vec![
                    Cell::Code(visible(&part.zone)),
                    rate(part.usual.into()).into(),
                    rate(part.rate.into()).into(),
                    percent(part.share.into()).into(),
                ]
            })
            .collect();
        parts.push(table(
            &[
                ("Zone", false),
                ("Usual a second", true),
                ("At its peak", true),
                ("Share of what is too much", true),
            ],
            rows,
        ));
    }
    let of = |heading: &'static str, parts_of: Vec<(Cell, f32)>| {
        let rows = parts_of
            .into_iter()
            .map(|(cell, share)| vec![cell, percent(share.into()).into()])
            .collect();
        table(&[(heading, false), ("Share", true)], rows)
    };
    if !incident.names.is_empty() {
        let names = incident.names.iter();
        parts.push(of(
            "Name",
            names
                .map(|part| (Cell::Code(visible(&part.name)), part.share))
                .collect(),
        ));
    }
    if !incident.qtypes.is_empty() {
        let qtypes = incident.qtypes.iter();
        parts.push(of(
            "Query type",
            qtypes
                .map(|part| (Cell::Code(visible(&part.qtype)), part.share))
                .collect(),
        ));
    }
}

/// `a direct flood`, `an upstream failure`, `spoofed resolvers`.
fn a_kind(kind: Kind) -> String {
    let title = kind.title();
    match kind {
        Kind::SpoofedResolvers | Kind::Reflection | Kind::TcpExhaustion => title.to_owned(),
        Kind::UpstreamFailure => format!("an {title}"),
        _ => format!("a {title}"),
    }
}

fn sources(parts: &mut Vec<Part>, incident: &Incident) {
    // it does not come from anybody who asks
    if incident.kind == Kind::UpstreamFailure {
        return;
    }
    let sources = &incident.sources;
    let spoofed = match sources.spoofed {
        Spoofed::Likely => {
            "Their addresses look forged: who is listed is a victim rather than a culprit."
        }
        Spoofed::Unlikely => "Their addresses look genuine.",
        Spoofed::Unclear => "Whether their addresses are forged is unclear.",
    };
    parts.push(Part::Text(format!(
        "It came from about {} addresses a second, where {} are usual; {} of the queries were from addresses that had never \
         asked before. {spoofed} {}",
        whole(sources.distinct.into()),
        whole(sources.usual.into()),
        percent(sources.never_seen.into()),
        visible(&sources.why)
    ).trim_end().to_owned()));
    if sources.top.is_empty() {
        return;
    }
    let rows = sources
        .top
        .iter()
        .map(|part| {
            vec![
                Cell::Code(part.prefix.to_string()),
                rate(part.rate.into()).into(),
                percent(part.share.into()).into(),
                standing(part).into(),
            ]
        })
        .collect();
    parts.push(table(
        &[
            ("Busiest sources", false),
            ("Queries a second", true),
            ("Share", true),
            ("", false),
        ],
        rows,
    ));
}

const fn standing(part: &SourcePart) -> &'static str {
    match (part.verified, part.known) {
        (true, _) => "proved its address",
        (false, true) => "asked before it began",
        (false, false) => "new",
    }
}

fn done(parts: &mut Vec<Part>, incident: &Incident) {
    parts.push(Part::Heading("What was done"));
    if incident.actions.is_empty() {
        parts.push(Part::Text("Nothing.".to_owned()));
    } else {
        parts.push(actions(incident));
    }
    let would = incident
        .timeline
        .iter()
        .filter(|entry| entry.what == What::Would);
    let would: Vec<_> = would
        .map(|entry| format!("{}: {}", time_of_day(entry.at), visible(&entry.text)))
        .collect();
    if !would.is_empty() {
        let text = "What only observes, or is dry-run, would have done:".to_owned();
        parts.push(Part::Text(text));
        parts.push(Part::List(would));
    }
}

fn actions(incident: &Incident) -> Part {
    let rows = incident
        .actions
        .iter()
        .map(|action| {
            let end = match (action.undone, action.lasting) {
                (Some(undone), _) => time_of_day(undone),
                (None, true) => "still in force".to_owned(),
                (None, false) => "nothing to undo".to_owned(),
            };
            vec![
                action.number.to_string().into(),
                time_of_day(action.at).into(),
                visible(&action.text).into(),
                visible(&action.by).into(),
                end.into(),
            ]
        })
        .collect();
    table(
        &[
            ("No.", true),
            ("UTC", false),
            ("What", false),
            ("By", false),
            ("Undone", false),
        ],
        rows,
    )
}

fn open(parts: &mut Vec<Part>, incident: &Incident) {
    parts.push(Part::Heading("What is open"));
    let things = open_things(incident);
    if things.is_empty() {
        parts.push(Part::Text("Nothing.".to_owned()));
    } else {
        parts.push(Part::List(things));
    }
}

/// What follows from the record and is not settled.
fn open_things(incident: &Incident) -> Vec<String> {
    let mut things = Vec::new();
    if incident.is_open() {
        things.push("It is going on.".to_owned());
    }
    match mitigated(incident) {
        Mitigated::NotYet => things.push("Known clients still lose more than 1 %.".to_owned()),
        Mitigated::At(at) if at > incident.opened => things.push(format!(
            "Known clients were impaired for another {} after it was named: what would have helped sooner?",
            seconds(at - incident.opened)
        )),
        Mitigated::At(_) | Mitigated::Never | Mitigated::Unknown => {}
    }
    let in_force = incident
        .actions
        .iter()
        .filter(|action| action.lasting && action.undone.is_none());
    things.extend(in_force.map(|action| {
        format!(
            "Still in force: no. {}, by {}: {}",
            action.number,
            visible(&action.by),
            visible(&action.text)
        )
    }));
    if incident.confidence < DOUBTFUL {
        things.push(format!(
            "It is only {} sure that it was {}: look at the evidence.",
            percent(incident.confidence.into()),
            a_kind(incident.kind)
        ));
    }
    let entries = |what| {
        incident
            .timeline
            .iter()
            .filter(move |entry| entry.what == what)
    };
    let renamed = entries(What::Renamed).count();
    if renamed > 0 {
        let times = if renamed == 1 {
            "once"
        } else {
            "more than once"
        };
        things.push(format!(
            "It was renamed {times}: whoever was told early was told something else."
        ));
    }
    things.extend(
        entries(What::Untold)
            .map(|entry| format!("{}: {}", time_of_day(entry.at), visible(&entry.text))),
    );
    if incident.kind.is_attack() && incident.sources.spoofed == Spoofed::Unclear {
        things.push("Whether the sources were forged is unclear.".to_owned());
    }
    if incident.more_zones > 0 {
        things.push(format!(
            "{} further zones were concerned that are not listed.",
            grouped(incident.more_zones as u64)
        ));
    }
    things
}

const fn measure(measure: Measure) -> &'static str {
    match measure {
        Measure::Queries => "queries a second",
        Measure::NxdomainShare => "NXDOMAIN of all answers",
        Measure::ServfailShare => "SERVFAIL of all answers",
        Measure::Sources => "distinct sources a second",
        Measure::NewSources => "queries a second from sources never seen",
        Measure::NewNames => "queries a second for names never seen",
        Measure::QtypeMix => "how unusual the mix of query types is",
        Measure::NameEntropy => "entropy of names, bits a character",
        Measure::Amplification => "octets out to octets in",
        Measure::TcpConnections => "TCP connections a second",
        Measure::MalformedShare => "malformed of all packets",
        Measure::Latency => "median latency of upstreams",
        Measure::Loss => "not answered by any upstream",
    }
}

fn value(measure: Measure, value: f32) -> String {
    let value = f64::from(value);
    match measure {
        Measure::NxdomainShare
        | Measure::ServfailShare
        | Measure::QtypeMix
        | Measure::MalformedShare
        | Measure::Loss => percent(value),
        Measure::Queries
        | Measure::Sources
        | Measure::NewSources
        | Measure::NewNames
        | Measure::TcpConnections => rate(value),
        Measure::NameEntropy => format!("{value:.2}"),
        Measure::Amplification => format!("{value:.1}"),
        Measure::Latency => format!("{:.1} ms", value * 1_000.0),
    }
}

/// A share; one that is not all of it is never rounded up to all.
fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "\u{2013}".to_owned();
    }
    let percents = share * 100.0;
    // shares are 32 bits, whose last digits are noise
    let hundredths = (percents * 100.0 + 1e-3).floor() / 100.0;
    let text = format!("{hundredths:.2}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A time: `4.5 s`, `12 s`, `10 min 22 s`, `2 h 5 min`.
fn seconds(seconds: f64) -> String {
    let tenths = (seconds.max(0.0) * 10.0).round() / 10.0;
    if tenths < 10.0 && tenths.fract() > 0.05 {
        return format!("{tenths:.1} s");
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds, not negative"
    )]
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 3_600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, 0) => format!("{min} min"),
        (0, min, s) => format!("{min} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, min, _) => format!("{h} h {min} min"),
    }
}
