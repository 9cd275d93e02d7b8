//! The tables of `dnscrub top`.

use std::time::Duration;

use super::super::output::{self, Paint, Style, duration};
use super::{Reading, percent, titled};
use crate::legible::{grouped, rate, visible, whole};
use crate::unix_time::time_of_day;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Upstreams,
    Zones,
    Names,
    Sources,
    Incidents,
}

/// A cell: what it says, and how it is painted.
pub(super) type Cell = (String, Paint);

impl Pane {
    pub(super) const ALL: [Self; 5] = [
        Self::Upstreams,
        Self::Zones,
        Self::Names,
        Self::Sources,
        Self::Incidents,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Upstreams => "upstreams",
            Self::Zones => "zones",
            Self::Names => "names",
            Self::Sources => "sources",
            Self::Incidents => "incidents",
        }
    }

    pub(super) fn next(self) -> Self {
        self.beside(1)
    }

    pub(super) fn previous(self) -> Self {
        self.beside(Self::ALL.len() - 1)
    }

    fn beside(self, steps: usize) -> Self {
        let at = Self::ALL.iter().position(|each| *each == self).unwrap_or(0);
        let all = Self::ALL.len();
        Self::ALL.get((at + steps) % all).copied().unwrap_or(self)
    }

    /// Its columns: the title, and whether what is below is numbers.
    pub(super) const fn heading(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Upstreams => &[
                ("UPSTREAM", false),
                ("STATE", false),
                ("FOR", true),
                ("LATENCY", true),
                ("UNANSWERED", true),
                ("TIMEOUTS", true),
            ],
            Self::Zones => &[
                ("ZONE", false),
                ("A SECOND", true),
                ("USUAL", true),
                ("SHED", true),
                ("NXDOMAIN", true),
            ],
            Self::Names => &[("NAME", false), ("SHARE", true)],
            Self::Sources => &[
                ("SOURCE", false),
                ("A SECOND", true),
                ("SHARE", true),
                ("IS", false),
            ],
            Self::Incidents => &[
                ("NO.", true),
                ("INCIDENT", false),
                ("BEGAN", false),
                ("TOOK", true),
                ("PEAK", true),
            ],
        }
    }

    /// Its rows, at most so many.
    pub(super) fn rows(self, reading: &Reading, most: usize) -> Vec<Vec<Cell>> {
        let overview = &reading.live.overview;
        match self {
            Self::Upstreams => reading.upstreams.iter().take(most).map(upstream).collect(),
            Self::Zones => overview.zones.iter().take(most).map(zone).collect(),
            Self::Names => overview
                .names
                .iter()
                .take(most)
                .map(|part| vec![plain(visible(&part.name)), plain(percent(part.share))])
                .collect(),
            Self::Sources => overview.sources.iter().take(most).map(source).collect(),
            Self::Incidents => reading.incidents.iter().take(most).map(incident).collect(),
        }
    }

    /// The pane as text.
    pub(super) fn text(self, rows: &[Vec<Cell>], style: Style) -> String {
        if rows.is_empty() {
            return style.paint(Paint::Dim, &format!("no {}", self.title()));
        }
        let heading: Vec<&str> = self.heading().iter().map(|(title, _)| *title).collect();
        let rows: Vec<Vec<output::Cell>> = rows
            .iter()
            .map(|row| {
                let cells = row.iter().zip(self.heading());
                cells
                    .map(|((text, paint), (_, right))| {
                        if *right {
                            output::Cell::right(text.as_str())
                        } else {
                            output::Cell::painted(text.as_str(), *paint)
                        }
                    })
                    .collect()
            })
            .collect();
        output::table(style, &heading, &rows).trim_end().to_owned()
    }
}

fn plain(text: impl Into<String>) -> Cell {
    (text.into(), Paint::Plain)
}

fn upstream(upstream: &dnscrub_forwarding::UpstreamSnapshot) -> Vec<Cell> {
    let paint = match upstream.state.as_str() {
        "up" | "unchecked" => Paint::Good,
        "down" => Paint::Bad,
        _ => Paint::Doubtful,
    };
    let latency = match upstream.latency_ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    };
    vec![
        plain(visible(&upstream.name)),
        (upstream.state.clone(), paint),
        plain(duration(Duration::from_secs_f64(
            upstream.since_seconds.max(0.0),
        ))),
        plain(latency),
        plain(format!("{}/{}", upstream.outstanding, upstream.limit)),
        plain(grouped(upstream.timeouts)),
    ]
}

fn zone(zone: &dnscrub_detection::ZoneOverview) -> Vec<Cell> {
    let name = match zone.zone.as_str() {
        "." => "elsewhere".to_owned(),
        name => visible(name),
    };
    let paint = if zone.shed > zone.queries / 100.0 {
        Paint::Doubtful
    } else {
        Paint::Plain
    };
    vec![
        plain(name),
        plain(rate(zone.queries.into())),
        (rate(zone.usual.into()), Paint::Dim),
        (rate(zone.shed.into()), paint),
        plain(percent(zone.nxdomain_share)),
    ]
}

fn source(part: &dnscrub_detection::incident::SourcePart) -> Vec<Cell> {
    let whole_length = part.prefix.prefix_len() == part.prefix.max_prefix_len();
    let prefix = if whole_length {
        part.prefix.addr().to_string()
    } else {
        part.prefix.to_string()
    };
    let standing = match (part.verified, part.known) {
        (true, _) => ("verified".to_owned(), Paint::Good),
        (false, true) => plain("known"),
        (false, false) => ("new".to_owned(), Paint::Dim),
    };
    vec![
        plain(prefix),
        plain(rate(part.rate.into())),
        plain(percent(part.share)),
        standing,
    ]
}

fn incident(incident: &crate::control::api::IncidentRow) -> Vec<Cell> {
    let took = match incident.closed {
        None => ("going on".to_owned(), Paint::Bad),
        Some(closed) => plain(duration(Duration::from_secs_f64(
            (closed - incident.began).max(0.0),
        ))),
    };
    vec![
        plain(incident.number.to_string()),
        plain(titled(incident)),
        plain(time_of_day(incident.began)),
        took,
        plain(format!("{}/s", whole(incident.peak.into()))),
    ]
}
