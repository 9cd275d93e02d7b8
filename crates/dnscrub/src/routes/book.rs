//! The book of routes: which are wanted, which are refused and why, and for how long. All limits are
//! checked here, on the caller's clock and without IO.
//!
//! Instants are in seconds; they only have to go forward.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::plan::{Wish, is_v4};
use super::route::{Order, Route, RouteKind};
use super::settings::{Mode, Settings};
use crate::unix_time::date;

/// Routes that are over, and refusals, that are kept to be shown.
pub const MOST_ENDED: usize = 50;
/// Refused routes that are kept while their incidents go on.
pub const MOST_REFUSED: usize = 200;
/// The longest that a route lingers after its incident, in seconds, however often it came back.
pub const LONGEST_LINGER: f64 = 3600.0;
/// Withdrawals of the last hour that are remembered, so that routes that come back linger longer. The oldest
/// are forgotten first: such a route lingers for `limits.linger` again.
pub const MOST_REMEMBERED: usize = 1000;
const HOUR: f64 = 3600.0;
/// How actions in an incident's record begin: a route is announced, or stays announced.
const BEGINNINGS: [&str; 2] = ["announces", "keeps"];

/// Why a route is not announced. The label is the metric's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// `mode` is `off`.
    Off,
    /// Nothing in the configuration asks for such routes.
    NotConfigured,
    /// It is about an address that is not in `limits.destinations`.
    NotOurs,
    /// It is against a prefix in `limits.never`, `blocklist.never-block`, or an upstream.
    Never,
    /// The source's prefix is shorter than `limits.shortest-source`.
    SourceTooWide,
    /// The source's address looks forged, or nothing says it is not.
    SourceUnproven,
    /// The source asked before the incident began.
    SourceKnown,
    /// No client has such an address, or it is one of ours.
    SourceImpossible,
    /// Source and destination are of different families.
    Families,
    /// The address is not one that may be given up.
    NotGivenUp,
    /// It would blackhole the last service address of its family.
    LastAddress,
    /// There are `limits.max-routes` already.
    TooMany,
    /// There were `limits.max-announcements` in the last hour.
    TooOften,
    /// The node's route was withdrawn `anycast.max-withdrawals` times in the last hour.
    TooManyWithdrawals,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::Off,
        Self::NotConfigured,
        Self::NotOurs,
        Self::Never,
        Self::SourceTooWide,
        Self::SourceUnproven,
        Self::SourceKnown,
        Self::SourceImpossible,
        Self::Families,
        Self::NotGivenUp,
        Self::LastAddress,
        Self::TooMany,
        Self::TooOften,
        Self::TooManyWithdrawals,
    ];

    /// The label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NotConfigured => "not-configured",
            Self::NotOurs => "not-ours",
            Self::Never => "never",
            Self::SourceTooWide => "source-too-wide",
            Self::SourceUnproven => "source-unproven",
            Self::SourceKnown => "source-known",
            Self::SourceImpossible => "source-impossible",
            Self::Families => "families",
            Self::NotGivenUp => "not-given-up",
            Self::LastAddress => "last-address",
            Self::TooMany => "too-many",
            Self::TooOften => "too-often",
            Self::TooManyWithdrawals => "too-many-withdrawals",
        }
    }

    /// In a clause.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Off => "`routes.mode` is off",
            Self::NotConfigured => "the configuration has no such routes",
            Self::NotOurs => "the address is not in `routes.limits.destinations`",
            Self::Never => {
                "it is about a prefix in `routes.limits.never` or `blocklist.never-block`, or an upstream"
            }
            Self::SourceTooWide => "the prefix is shorter than `routes.limits.shortest-source`",
            Self::SourceUnproven => "nothing proves that the source's address is its own",
            Self::SourceKnown => "the source asked before the incident began",
            Self::SourceImpossible => "no client has such an address, or it is one of ours",
            Self::Families => "one is an IPv4 address, the other an IPv6 address",
            Self::NotGivenUp => "the address is not in `routes.blackhole.give-up`",
            Self::LastAddress => "it is the last service address of its family",
            Self::TooMany => "there are `routes.limits.max-routes` already",
            Self::TooOften => "there were `routes.limits.max-announcements` in the last hour",
            Self::TooManyWithdrawals => {
                "there were `routes.anycast.max-withdrawals` in the last hour"
            }
        }
    }
}

/// How a route stands, as far as dnscrub decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It would be announced, were it not for the mode.
    DryRun,
    /// Somebody has to approve it.
    Waiting,
    /// ExaBGP is to announce it.
    Wanted,
    /// It may not be announced.
    Refused(Refusal),
    /// It was withdrawn by hand, and stays so while its incident goes on.
    Held,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// From this incident.
    Incident(u64),
    /// From an operator.
    Hand,
}

/// A route in the book.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub id: u64,
    /// What it says.
    pub route: Route,
    /// Where it comes from.
    pub origin: Origin,
    /// Why, in a clause.
    pub why: String,
    /// How it stands.
    pub standing: Standing,
    /// Since when it stands so.
    pub since: f64,
    /// When it goes if nothing asks for it any more.
    pub expires: f64,
    /// Whether somebody approved it.
    approved: bool,
    /// The number of the action in its incident's record, while it is announced.
    action: Option<u32>,
    /// Since when it lingers: its incident is over.
    over: Option<f64>,
    /// How long it lingered the last time, if it was withdrawn less than an hour before it was asked for.
    lingered: Option<f64>,
}

impl Entry {
    /// Whether an incident asks for it, each second.
    const fn is_asked_for(&self) -> bool {
        matches!(self.origin, Origin::Incident(_)) && self.over.is_none()
    }

    /// Until when it lingers, where its incident is over.
    #[must_use]
    pub fn lingers_until(&self) -> Option<f64> {
        self.over.map(|_| self.expires)
    }

    /// For how long it lingers, in seconds. A route that came back lingers twice as long as the last time.
    fn linger(&self, settings: &Settings) -> f64 {
        let set = settings.limits.linger;
        if set <= 0.0 {
            return 0.0;
        }
        let doubled = self.lingered.map_or(set, |last| last * 2.0);
        doubled.max(set).min(LONGEST_LINGER)
    }
}

/// A route that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// As it was.
    pub entry: Entry,
    /// When it ended.
    pub at: f64,
    /// Why.
    pub why: String,
}

/// Something that is to be written down: in the log, and in the incident's record if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The route's number.
    pub id: u64,
    /// The incident.
    pub incident: Option<u64>,
    /// What kind of note it is.
    pub what: Telling,
    /// In a sentence.
    pub text: String,
}

/// Kinds of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// It is announced: [`Book::recorded`] is to be told the action's number.
    Done,
    /// It was announced already and stays so for this incident: likewise.
    Kept,
    /// What was done under this number is undone.
    Undone(u32),
    /// It would have been done, were it not for the mode.
    Would,
    /// Nothing was done.
    Note,
}

/// What an operator asked for cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// There is no such route.
    Unknown,
    /// It does not wait for approval.
    NotWaiting,
    /// It is withdrawn already, or was never announced.
    NotThere,
    /// A limit is against it.
    Refused(Refusal),
}

/// What of a book is kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    entries: Vec<Entry>,
    last: u64,
    announcements: VecDeque<f64>,
    remembered: VecDeque<(Route, f64, f64)>,
}

/// All routes but the node's own.
#[derive(Debug, Default)]
pub struct Book {
    entries: BTreeMap<u64, Entry>,
    ended: VecDeque<Ended>,
    last: u64,
    /// When announcements were made, in the last hour.
    announcements: VecDeque<f64>,
    /// Routes that were withdrawn in the last hour, when, and how long they had lingered; each once.
    remembered: VecDeque<(Route, f64, f64)>,
    refused: BTreeMap<Refusal, u64>,
    announced: u64,
    withdrawn: u64,
}

impl Book {
    /// Brings the book up to date: `asked` is what each open incident asks for now. Incidents that are
    /// not named are over.
    pub fn turn(&mut self, now: f64, settings: &Settings, asked: &[(u64, Vec<Wish>)]) -> Vec<Told> {
        let mut told = Vec::new();
        while self
            .announcements
            .front()
            .is_some_and(|&at| at <= now - HOUR)
        {
            self.announcements.pop_front();
        }
        while self
            .remembered
            .front()
            .is_some_and(|&(_, at, _)| at <= now - HOUR)
        {
            self.remembered.pop_front();
        }
        self.drop_what_is_over(now, settings, asked, &mut told);
        self.follow_mode(now, settings, &mut told);
        if settings.mode == Mode::Off {
            return told;
        }
        for (incident, wishes) in asked {
            for wish in wishes {
                self.ask(now, settings, *incident, wish, &mut told);
            }
        }
        told
    }

    /// An operator asks for a route, for so many seconds.
    ///
    /// # Errors
    /// Why it may not be announced.
    pub fn by_hand(
        &mut self,
        now: f64,
        settings: &Settings,
        route: Route,
        lifetime: f64,
        why: &str,
    ) -> Result<(u64, Vec<Told>), Refusal> {
        let mut told = Vec::new();
        let there = self
            .entries
            .values()
            .find(|entry| entry.route == route)
            .map(|entry| entry.id);
        let judged = if settings.mode == Mode::Off {
            Err(Refusal::Off)
        } else {
            allowed(&route, settings).and_then(|()| self.room(settings, &route, there))
        };
        if let Err(refusal) = judged {
            self.count(refusal);
            return Err(refusal);
        }
        if let Some(id) = there {
            self.end(id, now, "an operator asked for it anew", &mut told);
        }
        let id = self.enter(now, route, Origin::Hand, why, lifetime);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.approved = true;
        }
        self.admit(id, now, settings, &mut told);
        Ok((id, told))
    }

    /// An operator approves a route.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn approve(&mut self, id: u64, now: f64, settings: &Settings) -> Result<Vec<Told>, Wrong> {
        let entry = self.entries.get(&id).ok_or(Wrong::Unknown)?;
        if !matches!(entry.standing, Standing::Waiting | Standing::Held) {
            return Err(Wrong::NotWaiting);
        }
        let route = entry.route;
        // what was allowed when it was asked for may not be so now
        let judged = allowed(&route, settings).and_then(|()| self.room(settings, &route, Some(id)));
        if let Err(refusal) = judged {
            self.count(refusal);
            return Err(Wrong::Refused(refusal));
        }
        let mut told = Vec::new();
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.approved = true;
        }
        self.admit(id, now, settings, &mut told);
        Ok(told)
    }

    /// An operator withdraws a route. What an incident asked for stays withdrawn until it is over.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn withdraw(&mut self, id: u64, now: f64) -> Result<Vec<Told>, Wrong> {
        let entry = self.entries.get_mut(&id).ok_or(Wrong::Unknown)?;
        if matches!(entry.standing, Standing::Held | Standing::Refused(_)) {
            return Err(Wrong::NotThere);
        }
        let mut told = Vec::new();
        // nothing asks for one that lingers, so nothing has to be held
        if entry.origin == Origin::Hand || entry.over.is_some() {
            self.end(id, now, "an operator withdrew it", &mut told);
            return Ok(told);
        }
        let was_wanted = entry.standing == Standing::Wanted;
        entry.approved = false;
        entry.standing = Standing::Held;
        entry.since = now;
        let text = format!("an operator withdrew {}", named(entry));
        told.push(undone(entry, text));
        self.withdrawn += u64::from(was_wanted);
        Ok(told)
    }

    /// What is to be kept over a restart. What is refused is asked for again by whoever wants it.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let entries = self.entries.values();
        let entries = entries.filter(|entry| !matches!(entry.standing, Standing::Refused(_)));
        let entries = entries.cloned().map(|mut entry| {
            if entry.is_asked_for() {
                // it is put off each second
                entry.expires = 0.0;
            }
            entry
        });
        Kept {
            entries: entries.collect(),
            last: self.last,
            announcements: self.announcements.clone(),
            remembered: self.remembered.clone(),
        }
    }

    /// Goes on with what there was before a restart; the first [`Book::turn`] tells what of it is over. `recorded`: whether
    /// an incident's record has an action of this number that says that this route is announced. Returns what is to be
    /// written down.
    pub fn restore(
        &mut self,
        kept: Kept,
        now: f64,
        settings: &Settings,
        recorded: impl Fn(u64, u32, &str) -> bool,
    ) -> Vec<Told> {
        self.last = kept.last;
        // nothing that lies ahead, whatever the clock was: it would count for too long
        self.announcements = kept
            .announcements
            .into_iter()
            .map(|at| at.min(now))
            .collect();
        let remembered = kept.remembered.into_iter();
        self.remembered = remembered
            .map(|(route, at, linger)| (route, at.min(now), linger))
            .collect();
        let mut told = Vec::new();
        for mut entry in kept.entries {
            self.last = self.last.max(entry.id);
            entry.since = entry.since.min(now);
            entry.over = entry.over.map(|over| over.min(now));
            if entry.is_asked_for() {
                entry.expires = now + settings.limits.ttl;
            }
            if let (Origin::Incident(number), Some(action)) = (entry.origin, entry.action)
                && !recorded(number, action, &named(&entry))
            {
                // the record was saved before it was announced
                entry.action = None;
            }
            if entry.standing == Standing::Wanted && settings.mode >= Mode::Confirm {
                told.push(went_on(&entry));
            }
            self.entries.insert(entry.id, entry);
        }
        told
    }

    /// The program stops, and with it what is announced. Returns what is to be written down.
    #[must_use]
    pub fn paused(&self) -> Vec<Told> {
        let paused = |entry: &Entry| {
            let text = format!(
                "{} is withdrawn until dnscrub is started again",
                named(entry)
            );
            note(entry, text)
        };
        self.wanted().map(paused).collect()
    }

    /// Routes that incidents have, and the numbers of the actions under which they stand in their records.
    pub fn recorded_actions(&self) -> impl Iterator<Item = (u64, u32)> {
        self.entries
            .values()
            .filter_map(|entry| match entry.origin {
                Origin::Incident(number) => Some((number, entry.action?)),
                Origin::Hand => None,
            })
    }

    /// Routes that are to be announced.
    pub fn wanted(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.values();
        entries.filter(|entry| entry.standing == Standing::Wanted)
    }

    /// The number of the action under which a route stands in its incident's record.
    pub fn recorded(&mut self, id: u64, action: u32) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.action = Some(action);
        }
    }

    /// What ExaBGP is to announce.
    #[must_use]
    pub fn orders(&self, settings: &Settings) -> BTreeSet<Order> {
        self.wanted()
            .map(|entry| entry.route.order(settings))
            .collect()
    }

    /// Every route there is.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The one of this number.
    #[must_use]
    pub fn entry(&self, id: u64) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Routes that are over, the latest last.
    pub fn ended(&self) -> impl Iterator<Item = &Ended> {
        self.ended.iter()
    }

    /// How many were refused for this reason, since the start.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused.get(&refusal).copied().unwrap_or(0)
    }

    /// How many were announced and withdrawn, since the start.
    #[must_use]
    pub const fn totals(&self) -> (u64, u64) {
        (self.announced, self.withdrawn)
    }

    /// Counts a refusal that somebody else decided.
    pub fn count(&mut self, refusal: Refusal) {
        let count = self.refused.entry(refusal).or_default();
        *count = count.saturating_add(1);
    }

    fn drop_what_is_over(
        &mut self,
        now: f64,
        settings: &Settings,
        asked: &[(u64, Vec<Wish>)],
        told: &mut Vec<Told>,
    ) {
        let ids: Vec<u64> = self.entries.keys().copied().collect();
        for id in ids {
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            let was_wanted = entry.standing == Standing::Wanted;
            let is_over = match entry.origin {
                Origin::Incident(number) => {
                    entry.over.is_some() || !asked.iter().any(|(open, _)| *open == number)
                }
                Origin::Hand => false,
            };
            // the configuration may have changed
            let unallowed = match entry.standing {
                Standing::Refused(_) | Standing::Held => None,
                _ => allowed(&entry.route, settings).err(),
            };
            if is_over {
                let may_linger = was_wanted && settings.mode >= Mode::Confirm;
                match unallowed {
                    Some(refusal) if was_wanted => self.end(id, now, refusal.words(), told),
                    _ if may_linger => self.linger(id, now, settings, asked, told),
                    _ => self.end(id, now, "the incident is over", told),
                }
            } else if entry.expires <= now && entry.standing != Standing::Held {
                if was_wanted && entry.origin != Origin::Hand {
                    let (route, linger) = (entry.route, entry.linger(settings));
                    self.remember(route, now, linger);
                }
                self.end(id, now, "its time is up", told);
            } else if let Some(refusal) = unallowed {
                self.end(id, now, refusal.words(), told);
            }
        }
    }

    /// An announced route whose incident is over stays for a while: it may be what keeps the flood from being
    /// seen.
    fn linger(
        &mut self,
        id: u64,
        now: f64,
        settings: &Settings,
        asked: &[(u64, Vec<Wish>)],
        told: &mut Vec<Told>,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let (route, linger) = (entry.route, entry.linger(settings));
        let asks = |wish: &Wish| wish.route == route && wish.against.is_none();
        let heir = asked.iter().find_map(|(incident, wishes)| {
            let wish = wishes.iter().find(|wish| asks(wish))?;
            Some((*incident, wish))
        });
        if linger > 0.0
            && let Some((incident, wish)) = heir
        {
            let text = format!("{} goes on for incident {incident}", named(entry));
            told.push(undone(entry, text));
            entry.origin = Origin::Incident(incident);
            entry.why.clone_from(&wish.why);
            entry.over = None;
            entry.expires = now + settings.limits.ttl;
            let [_, keeps] = BEGINNINGS;
            let text = format!("{keeps} {} ({}; it lingered)", named(entry), wish.why);
            told.push(Told {
                what: Telling::Kept,
                ..note(entry, text)
            });
            return;
        }
        let is_new = entry.over.is_none();
        let since = *entry.over.get_or_insert(now);
        let until = since + linger;
        let in_words = humantime::format_duration(Duration::from_secs(linger as u64));
        if until <= now {
            let why = if linger > 0.0 {
                format!("it lingered for {in_words} after the incident")
            } else {
                "the incident is over".to_owned()
            };
            self.remember(route, now, linger);
            self.end(id, now, &why, told);
            return;
        }
        entry.expires = until;
        if is_new {
            let text = format!(
                "{} lingers for {in_words}, until {} UTC: a flood that it keeps away cannot be seen",
                named(entry),
                date(until)
            );
            told.push(note(entry, text));
        }
    }

    /// A route is about to be withdrawn by itself.
    fn remember(&mut self, route: Route, now: f64, linger: f64) {
        self.remembered.retain(|(known, ..)| *known != route);
        if self.remembered.len() >= MOST_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back((route, now, linger));
    }

    /// The mode may have changed.
    fn follow_mode(&mut self, now: f64, settings: &Settings, told: &mut Vec<Told>) {
        let ids: Vec<u64> = self.entries.keys().copied().collect();
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let standing = entry.standing;
            match (settings.mode, standing) {
                (Mode::Off, _) => self.end(id, now, Refusal::Off.words(), told),
                (Mode::DryRun, Standing::Wanted | Standing::Waiting) => {
                    let text = format!("{} is withdrawn: `routes.mode` is dry-run", named(entry));
                    entry.standing = Standing::DryRun;
                    entry.since = now;
                    told.push(undone(entry, text));
                    self.withdrawn += u64::from(standing == Standing::Wanted);
                }
                (Mode::Announce, Standing::DryRun | Standing::Waiting)
                | (Mode::Confirm, Standing::DryRun) => {
                    let route = entry.route;
                    match self.room(settings, &route, Some(id)) {
                        Ok(()) => self.admit(id, now, settings, told),
                        Err(refusal) => self.refuse(id, now, refusal, told),
                    }
                }
                // what was announced while nobody had to be asked stays
                _ => {}
            }
        }
    }

    fn ask(
        &mut self,
        now: f64,
        settings: &Settings,
        incident: u64,
        wish: &Wish,
        told: &mut Vec<Told>,
    ) {
        let there = self
            .entries
            .values_mut()
            .find(|entry| entry.route == wish.route);
        let before = match there {
            // something is against this wish, or it would not linger any more
            Some(entry) if entry.over.is_some() => return,
            Some(entry) => {
                let until = now + settings.limits.ttl;
                entry.expires = entry.expires.max(until);
                match entry.standing {
                    Standing::Refused(refusal) => Some((entry.id, refusal)),
                    _ => return,
                }
            }
            None => None,
        };
        let judged = match wish.against {
            Some(refusal) => Err(refusal),
            None => match self.judge(settings, &wish.route) {
                Err(Refusal::TooMany) if self.make_room(now, settings, told) => {
                    self.judge(settings, &wish.route)
                }
                judged => judged,
            },
        };
        match (judged, before) {
            (Err(refusal), Some((_, known))) if refusal == known => {}
            (Err(refusal), before) => {
                let id = match before {
                    Some((id, _)) => id,
                    None if self.refused_now() >= MOST_REFUSED => return,
                    None => self.enter(
                        now,
                        wish.route,
                        Origin::Incident(incident),
                        &wish.why,
                        settings.limits.ttl,
                    ),
                };
                self.refuse(id, now, refusal, told);
            }
            (Ok(()), before) => {
                let id = match before {
                    Some((id, _)) => id,
                    None => self.enter(
                        now,
                        wish.route,
                        Origin::Incident(incident),
                        &wish.why,
                        settings.limits.ttl,
                    ),
                };
                self.admit(id, now, settings, told);
            }
        }
    }

    /// The route that lingers and would go first goes now, if another one could be announced then.
    fn make_room(&mut self, now: f64, settings: &Settings, told: &mut Vec<Told>) -> bool {
        let lingering = self.entries.values().filter(|entry| entry.over.is_some());
        let first = lingering.min_by(|one, other| one.expires.total_cmp(&other.expires));
        let Some(first) = first.map(|entry| (entry.id, entry.route, entry.linger(settings))) else {
            return false;
        };
        if self.announcements.len() >= settings.limits.max_announcements {
            return false;
        }
        let (id, route, linger) = first;
        self.remember(route, now, linger);
        self.end(id, now, "another route needs its place", told);
        true
    }

    fn enter(&mut self, now: f64, route: Route, origin: Origin, why: &str, lifetime: f64) -> u64 {
        self.last += 1;
        let remembered = self.remembered.iter().find(|(known, at, _)| {
            // by hand it goes when its time is up
            *known == route && *at > now - HOUR && origin != Origin::Hand
        });
        let entry = Entry {
            id: self.last,
            route,
            origin,
            why: why.to_owned(),
            standing: Standing::Waiting,
            since: now,
            expires: now + lifetime,
            approved: false,
            action: None,
            over: None,
            lingered: remembered.map(|&(_, _, linger)| linger),
        };
        self.entries.insert(self.last, entry);
        self.last
    }

    /// A route that is allowed goes as far as the mode lets it.
    fn admit(&mut self, id: u64, now: f64, settings: &Settings, told: &mut Vec<Told>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.since = now;
        let why = entry.why.clone();
        match settings.mode {
            Mode::Off => {}
            Mode::DryRun => {
                entry.standing = Standing::DryRun;
                let text = format!("would announce {} ({why}); dry-run", named(entry));
                told.push(Told {
                    what: Telling::Would,
                    ..note(entry, text)
                });
                self.announcements.push_back(now);
            }
            Mode::Confirm if !entry.approved => {
                entry.standing = Standing::Waiting;
                let text = format!(
                    "{} ({why}) waits for approval: dnscrub routes approve {id}",
                    named(entry)
                );
                told.push(note(entry, text));
            }
            Mode::Confirm | Mode::Announce => {
                entry.standing = Standing::Wanted;
                let by = match (entry.origin, entry.approved) {
                    (Origin::Hand, _) => "by hand",
                    (Origin::Incident(_), true) => "approved",
                    (Origin::Incident(_), false) => "by itself",
                };
                let [announces, _] = BEGINNINGS;
                let text = format!("{announces} {} ({why}; {by})", named(entry));
                told.push(Told {
                    what: Telling::Done,
                    ..note(entry, text)
                });
                self.announcements.push_back(now);
                self.announced += 1;
            }
        }
    }

    fn refuse(&mut self, id: u64, now: f64, refusal: Refusal, told: &mut Vec<Told>) {
        self.count(refusal);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.standing = Standing::Refused(refusal);
            entry.since = now;
            let text = format!("refused {}: {}", named(entry), refusal.words());
            told.push(note(entry, text));
        }
    }

    fn end(&mut self, id: u64, now: f64, why: &str, told: &mut Vec<Told>) {
        let Some(mut entry) = self.entries.remove(&id) else {
            return;
        };
        let was_wanted = entry.standing == Standing::Wanted;
        let text = format!("{} is withdrawn: {why}", named(&entry));
        match entry.standing {
            Standing::Wanted => told.push(undone(&mut entry, text)),
            Standing::DryRun => told.push(Told {
                what: Telling::Would,
                text: format!("would withdraw {}: {why}; dry-run", named(&entry)),
                ..note(&entry, String::new())
            }),
            Standing::Waiting | Standing::Refused(_) | Standing::Held => {}
        }
        self.withdrawn += u64::from(was_wanted);
        if self.ended.len() >= MOST_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended {
            entry,
            at: now,
            why: why.to_owned(),
        });
    }

    fn judge(&self, settings: &Settings, route: &Route) -> Result<(), Refusal> {
        allowed(route, settings)?;
        self.room(settings, route, None)
    }

    /// Limits that depend on what is there already, but for `except`.
    fn room(&self, settings: &Settings, route: &Route, except: Option<u64>) -> Result<(), Refusal> {
        let there = || {
            self.entries.values().filter(|entry| {
                Some(entry.id) != except
                    && !matches!(entry.standing, Standing::Refused(_) | Standing::Held)
            })
        };
        if let Route::Blackhole(prefix) = route {
            let given_up: Vec<IpNet> = there()
                .filter_map(|entry| match entry.route {
                    Route::Blackhole(prefix) => Some(prefix),
                    _ => None,
                })
                .chain([*prefix])
                .collect();
            let is_left = |service: &&IpNet| {
                is_v4(**service) == is_v4(*prefix)
                    && !given_up.iter().any(|prefix| overlap(*prefix, **service))
            };
            if !settings.services.iter().any(|service| is_left(&service)) {
                return Err(Refusal::LastAddress);
            }
        }
        if there().count() >= settings.limits.max_routes {
            return Err(Refusal::TooMany);
        }
        if self.announcements.len() >= settings.limits.max_announcements {
            return Err(Refusal::TooOften);
        }
        Ok(())
    }

    fn refused_now(&self) -> usize {
        let is_refused = |entry: &&Entry| matches!(entry.standing, Standing::Refused(_));
        self.entries.values().filter(is_refused).count()
    }
}

/// Whether the configuration allows a route at all, whatever else there is.
///
/// # Errors
/// Why not.
pub fn allowed(route: &Route, settings: &Settings) -> Result<(), Refusal> {
    let limits = &settings.limits;
    let ours = |prefix: IpNet| {
        let inside = limits.destinations.iter().any(|own| own.contains(&prefix));
        inside.then_some(()).ok_or(Refusal::NotOurs)
    };
    let unprotected = |prefix: IpNet| {
        let protected = limits.never.iter().any(|never| overlap(*never, prefix));
        (!protected).then_some(()).ok_or(Refusal::Never)
    };
    let source_allowed = |source: IpNet| {
        let (shortest, least) = match source {
            IpNet::V4(_) => (limits.shortest_source.0, 8),
            IpNet::V6(_) => (limits.shortest_source.1, 16),
        };
        if source.prefix_len() < shortest.max(least) {
            return Err(Refusal::SourceTooWide);
        }
        let own = limits.destinations.iter().chain(&settings.services);
        if is_impossible(source) || own.into_iter().any(|own| overlap(*own, source)) {
            return Err(Refusal::SourceImpossible);
        }
        unprotected(source)
    };
    match *route {
        Route::FromSource {
            destination,
            source,
        } => {
            settings.flowspec.as_ref().ok_or(Refusal::NotConfigured)?;
            if is_v4(destination) != is_v4(source) {
                return Err(Refusal::Families);
            }
            ours(destination)?;
            source_allowed(source)
        }
        Route::LongPackets { destination, .. } => {
            let flowspec = settings.flowspec.as_ref();
            flowspec
                .and_then(|it| it.long_packets.as_ref())
                .ok_or(Refusal::NotConfigured)?;
            ours(destination)
        }
        Route::Blackhole(prefix) => {
            let blackhole = settings.blackhole.as_ref().ok_or(Refusal::NotConfigured)?;
            ours(prefix)?;
            if !blackhole.give_up.iter().any(|it| it.address == prefix) {
                return Err(Refusal::NotGivenUp);
            }
            unprotected(prefix)
        }
        Route::SourceBlackhole(source) => {
            let blackhole = settings.blackhole.as_ref();
            blackhole
                .and_then(|it| it.sources.as_ref())
                .ok_or(Refusal::NotConfigured)?;
            // one host only: nobody else is to be hit
            if source.prefix_len() != source.max_prefix_len() {
                return Err(Refusal::SourceTooWide);
            }
            source_allowed(source)
        }
        Route::Anycast { prefix, .. } => {
            settings.anycast.as_ref().ok_or(Refusal::NotConfigured)?;
            ours(prefix)
        }
    }
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// Loopback, multicast, unspecified, link-local: nothing that a client on the Internet has.
fn is_impossible(source: IpNet) -> bool {
    match source.addr() {
        std::net::IpAddr::V4(address) => {
            address.octets()[0] == 0
                || address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast()
                || address.is_link_local()
        }
        std::net::IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some()
        }
    }
}

/// The route in an action of an incident's record that says that it is announced.
#[must_use]
pub fn announced_in(text: &str) -> Option<&str> {
    let (verb, what) = text.split_once(' ')?;
    let (route, _) = what.split_once(" (")?;
    (BEGINNINGS.contains(&verb) && route.starts_with("route ")).then_some(route)
}

fn named(entry: &Entry) -> String {
    format!("route {}, {}", entry.id, entry.route)
}

fn note(entry: &Entry, text: String) -> Told {
    Told {
        id: entry.id,
        incident: match entry.origin {
            Origin::Incident(number) => Some(number),
            Origin::Hand => None,
        },
        what: Telling::Note,
        text,
    }
}

/// It was announced before a restart, and is again.
fn went_on(entry: &Entry) -> Told {
    if entry.action.is_some() || entry.origin == Origin::Hand {
        let text = format!("{} goes on: dnscrub was started again", named(entry));
        return note(entry, text);
    }
    let [_, keeps] = BEGINNINGS;
    let text = format!(
        "{keeps} {} ({}; dnscrub was started again)",
        named(entry),
        entry.why
    );
    Told {
        what: Telling::Kept,
        ..note(entry, text)
    }
}

fn undone(entry: &mut Entry, text: String) -> Told {
    Told {
        what: entry.action.take().map_or(Telling::Note, Telling::Undone),
        ..note(entry, text)
    }
}

/// How many routes of a kind stand so.
#[must_use]
pub fn counted(book: &Book, kind: RouteKind, is: impl Fn(&Entry) -> bool) -> usize {
    let entries = book.entries.values();
    entries
        .filter(|entry| entry.route.kind() == kind && is(entry))
        .count()
}
