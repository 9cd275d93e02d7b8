//! The record of an incident: what, since when, where, from whom, how sure, what was done, what it cost.
//!
//! Instants are seconds since 1970 in UTC, rates are events a second, shares 0 to 1. The record is what
//! is shown, sent, saved and exported, so its JSON form is an interface: fields are added, not changed.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::measure::Measure;
use crate::point::Point;

/// Zones, names, sources and measures told of in an incident, at most, of each.
pub const MOST_PARTS: usize = 20;
/// Entries of its time line; the oldest but the first ten give way.
pub const MOST_ENTRIES: usize = 200;
/// Points of its plots; neighbours are joined where there are more.
pub const MOST_POINTS: usize = 600;

/// One incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number, from 1, never used twice; people call it by that.
    pub number: u64,
    /// What it is taken for now.
    pub kind: Kind,
    /// For a pulse, what comes in pulses; for other kinds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Kind>,
    /// How sure the kind is, 0 to 1.
    pub confidence: f32,
    /// A plain sentence or two saying what is going on.
    pub sentence: String,
    /// When it began, as far as the measures tell.
    pub began: f64,
    /// When it was noticed and named.
    pub opened: f64,
    /// When it was over; nothing while it is going on.
    pub closed: Option<f64>,
    /// The zones concerned, the most concerned first; empty where it is about no zone in particular.
    pub zones: Vec<ZonePart>,
    /// Further zones than are told of.
    #[serde(default)]
    pub more_zones: usize,
    /// The name servers that fail, in an upstream failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<UpstreamPart>,
    /// Further ones than are told of.
    #[serde(default, skip_serializing_if = "is_none")]
    pub more_upstreams: usize,
    /// Names, or suffixes that the names stand under, most asked for first.
    pub names: Vec<NamePart>,
    /// Query types and their shares of what is too much.
    pub qtypes: Vec<QtypePart>,
    /// Who sends it.
    pub sources: Sources,
    /// The measures that are out of the ordinary: the evidence.
    pub evidence: Vec<Reading>,
    /// Highest rate of queries, and when.
    pub peak: Peak,
    /// What it costs those who mean no harm.
    pub impact: Impact,
    /// Packets that the kernel dropped over a limit that was in force because of it. They are in no other count.
    #[serde(default)]
    pub kernel_dropped: u64,
    /// What happened, in order.
    pub timeline: Vec<Entry>,
    /// What was done because of it, and whether it is undone.
    pub actions: Vec<Action>,
    /// From a minute before it began: for plots.
    pub points: Vec<Point>,
    /// How often something happened to it that people are told of: it was opened, it changed, it is over.
    #[serde(default)]
    pub events: u32,
}

const fn is_none(many: &usize) -> bool {
    *many == 0
}

/// A zone concerned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZonePart {
    /// Its name.
    pub zone: String,
    /// Queries a second at its peak.
    pub rate: f32,
    /// The same in calm times.
    pub usual: f32,
    /// Its share of what is too much.
    pub share: f32,
}

/// A name server that fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamPart {
    /// Its name in the configuration, or its address.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its pool.
    pub pool: String,
    /// What is wrong with it.
    pub fault: Fault,
    /// Share of its queries or answers of which that is so; of a slow one, seconds that answers take.
    pub value: f32,
}

/// What is wrong with a name server, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Queries are not answered in time.
    NoAnswer,
    /// Health checks have taken it out of use.
    Down,
    /// Answers are SERVFAIL.
    Servfail,
    /// Answers take several times as long as usual.
    Slow,
}

/// A name, or what names stand under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamePart {
    /// The name; `*.` before it where it stands for names below it.
    pub name: String,
    /// Its share of what is too much, about.
    pub share: f32,
}

/// A query type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QtypePart {
    /// Such as `A`, or `TYPE65280`.
    pub qtype: String,
    /// Its share.
    pub share: f32,
}

/// Who sends what is too much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    /// Distinct addresses a second at the peak, about.
    pub distinct: f32,
    /// The same in calm times.
    pub usual: f32,
    /// Share of queries from addresses that never asked before it began.
    pub never_seen: f32,
    /// Whether addresses look forged.
    pub spoofed: Spoofed,
    /// Why so, in a sentence.
    pub why: String,
    /// The busiest, most first. Where addresses are forged these are victims, not culprits.
    pub top: Vec<SourcePart>,
}

/// Whether addresses look forged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spoofed {
    /// They do.
    Likely,
    /// They do not: they come back, over the usual paths, or proved themselves.
    Unlikely,
    /// Nothing says so or otherwise.
    #[default]
    Unclear,
}

/// A source, or a network of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourcePart {
    /// An address as a /32 or /128, or a network.
    pub prefix: IpNet,
    /// Queries a second, about.
    pub rate: f32,
    /// Its share of all queries, about.
    pub share: f32,
    /// It asked before the incident began.
    pub known: bool,
    /// Its address is proven (a cookie, TCP).
    pub verified: bool,
}

/// What a measure says, beside what it usually says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The measure.
    pub measure: Measure,
    /// Of which zone; nothing for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Now, or at the last when it is over.
    pub now: f32,
    /// In calm times at this hour.
    pub usual: f32,
    /// Farthest from the usual.
    pub peak: f32,
    /// By how many times its usual spread it is off, at the peak.
    pub spreads: f32,
}

/// The highest rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// Queries a second.
    pub queries: f32,
    /// When.
    pub at: f64,
}

/// What it costs those who mean no harm. Legitimate clients are taken to be the sources known from
/// before it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Impact {
    /// Queries of known sources since it began.
    pub asked: f64,
    /// Of these, answered by an upstream or, for names known to be missing, by dnscrub.
    pub served: f64,
    /// Of these, told to come back over TCP or with a cookie.
    pub challenged: f64,
    /// Of these, dropped, refused, or not answered in time.
    pub lost: f64,
    /// Seconds in which more than one of a hundred was lost.
    pub seconds_impaired: f64,
    /// All queries that were shed meanwhile.
    pub shed: f64,
}

/// An entry of the time line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: f64,
    /// What kind of entry it is.
    pub what: What,
    /// In a sentence.
    pub text: String,
}

/// Kinds of entries in a time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It began.
    Began,
    /// It was noticed and named.
    Opened,
    /// It was named anew.
    Renamed,
    /// It spread to, or left, a zone.
    Spread,
    /// It reached a new height.
    Grew,
    /// A defence level changed.
    Level,
    /// Something was done.
    Done,
    /// Something done was undone.
    Undone,
    /// Something would have been done or undone, but what would do it only observes.
    Would,
    /// Somebody was told.
    Told,
    /// Somebody could not be told.
    Untold,
    /// Somebody wrote a remark.
    Note,
    /// Another incident turned out to be this one.
    Merged,
    /// It is over.
    Closed,
}

impl What {
    /// In a word, as time lines show it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Opened => "named",
            Self::Renamed => "renamed",
            Self::Spread => "spread",
            Self::Grew => "grew",
            Self::Level => "level",
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Would => "would",
            Self::Told => "told",
            Self::Untold => "not told",
            Self::Note => "note",
            Self::Merged => "merged",
            Self::Closed => "over",
        }
    }
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Its number in the incident, from 1.
    pub number: u32,
    /// When.
    pub at: f64,
    /// In a sentence.
    pub text: String,
    /// Who or what did it: `dnscrub`, or an operator.
    pub by: String,
    /// When it was undone; nothing while it is in force.
    pub undone: Option<f64>,
    /// Whether it is something that is to be undone at all.
    pub lasting: bool,
}

impl Incident {
    /// One of which nothing is known but that it began at `began` and was noticed at `opened`.
    #[must_use]
    pub fn new(number: u64, kind: Kind, began: f64, opened: f64) -> Self {
        Self {
            number,
            kind,
            of: None,
            confidence: 0.0,
            sentence: String::new(),
            began,
            opened,
            closed: None,
            zones: Vec::new(),
            more_zones: 0,
            upstreams: Vec::new(),
            more_upstreams: 0,
            names: Vec::new(),
            qtypes: Vec::new(),
            sources: Sources::default(),
            evidence: Vec::new(),
            peak: Peak::default(),
            impact: Impact::default(),
            kernel_dropped: 0,
            timeline: Vec::new(),
            actions: Vec::new(),
            points: Vec::new(),
            events: 0,
        }
    }

    /// Whether it is going on.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// The kind, and for a pulse the kind of what comes in pulses.
    #[must_use]
    pub const fn underlying(&self) -> Kind {
        match (self.kind, self.of) {
            (Kind::Pulse, Some(of)) => of,
            (kind, _) => kind,
        }
    }

    /// Adds an entry to the time line.
    pub fn tell(&mut self, at: f64, what: What, text: impl Into<String>) {
        const KEPT: usize = 10;
        if self.timeline.len() >= MOST_ENTRIES {
            self.timeline.remove(KEPT);
        }
        self.timeline.push(Entry {
            at,
            what,
            text: text.into(),
        });
    }

    /// Records that something was done, on the time line as well; returns its number. `lasting`: it stays in force
    /// until [`Incident::undo`].
    pub fn act(&mut self, at: f64, by: &str, text: impl Into<String>, lasting: bool) -> u32 {
        let text = text.into();
        let number = self
            .actions
            .last()
            .map_or(1, |last| last.number.saturating_add(1));
        self.tell(at, What::Done, text.clone());
        if self.actions.len() < MOST_ENTRIES {
            self.actions.push(Action {
                number,
                at,
                text,
                by: by.to_owned(),
                undone: None,
                lasting,
            });
        }
        number
    }

    /// Records that what was done under this number is undone.
    pub fn undo(&mut self, number: u32, at: f64, text: impl Into<String>) {
        let action = self
            .actions
            .iter_mut()
            .find(|action| action.number == number);
        if let Some(action) = action {
            action.undone = Some(at);
            self.tell(at, What::Undone, text);
        }
    }
}

/// Something happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It was opened.
    Opened,
    /// It got another kind, other zones, or much larger.
    Changed,
    /// It is over.
    Closed,
}

impl Happened {
    /// In a word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Changed => "changed",
            Self::Closed => "closed",
        }
    }
}
