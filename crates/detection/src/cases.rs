//! From findings to incidents: opened, changed and closed with patience.
//!
//! A finding of one second opens nothing by itself. It takes two seconds of something plain, three of
//! something that shows only over several seconds, and one of something that is many times all there usually
//! is. An incident goes on for as long as its findings do, or as what it is about stays well above the usual,
//! and for fifteen seconds after that; for a pulse, for more than twice its longest pause, but no more than
//! 45 s, and as long for what was over within ten seconds, which may be the first of several. So all is
//! closed within a minute after its end. What the owner of the book says of an incident whose packets
//! are stopped before they are counted goes before what is measured.
//!
//! Findings of the same kind and zones are the same incident. Random subdomains of several zones are several
//! incidents, unless they are alike on four zones or more. What first looked like a direct flood and then is
//! a spoofed carpet, or the other way round, is renamed.

use std::sync::Arc;

use crate::book::{Book, MOST_OPEN};
use crate::detector::Scene;
use crate::diagnosis::Finding;
use crate::incident::{Happened, Incident};
use crate::kind::Kind;
use crate::quantity::{CONNECTIONS, MADE_UP, QUERIES, TRANSFERS};
use crate::record;

/// Things that may become incidents, at most.
const MOST: usize = 64;
/// Seconds without a finding after which something that never became an incident is forgotten.
const FORGOTTEN: f64 = 15.0;
/// Seconds of quiet after which an incident is over,
const QUIET: f64 = 15.0;
/// and at most, for a pulse.
const LONGEST_QUIET: f64 = 45.0;
/// Seconds within which what is over may have been a pulse.
const SHORT: f64 = 10.0;
/// Seconds after which an open incident no longer stops learning.
const LONG: f64 = 6.0 * 3600.0;
/// Seconds within which incidents on single zones can turn out to be one on many.
const ONSET: f64 = 10.0;

/// Something that is going on, whether it is an incident by now or not.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The incident's number, once it is one.
    pub(crate) number: Option<u64>,
    pub(crate) kind: Kind,
    pub(crate) zones: Vec<Arc<str>>,
    pub(crate) many: bool,
    pub(crate) began: f64,
    /// Seconds with a finding.
    hits: u32,
    plain: u32,
    pub(crate) last_hit: f64,
    /// When it was well above the usual last.
    pub(crate) last_on: f64,
    /// Highest excess of a second.
    pub(crate) peak: f32,
    /// What counts for pulses: since when it is low, how often it came back, longest pause.
    low_since: Option<f64>,
    returns: u32,
    pause: f64,
    pub(crate) pulsing: bool,
    /// Seconds in a row in which it looked like the other kind.
    otherwise: u32,
    pub(crate) finding: Finding,
    /// The peak that was told last.
    pub(crate) told_peak: f32,
    /// Seconds since its record was filled in.
    pub(crate) stale: u32,
    /// Its incident was closed by somebody else: it is not opened again for as long as it goes on, and what it is
    /// about may become usual.
    dismissed: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Cases {
    cases: Vec<Case>,
    freeze: bool,
}

/// Kinds that one attack may look like, one after the other.
const fn are_siblings(a: Kind, b: Kind) -> bool {
    matches!(
        (a, b),
        (Kind::DirectFlood, Kind::SpoofedCarpet) | (Kind::SpoofedCarpet, Kind::DirectFlood)
    )
}

/// Whether a flood goes on in what is found: its sources have come to be known by now.
fn goes_on_as(case: &Case, finding: &Finding) -> bool {
    case.kind == Kind::DirectFlood
        && case.number.is_some()
        && matches!(
            finding.kind,
            Kind::QueryLoop | Kind::FlashCrowd | Kind::DirectFlood
        )
        && (case.zones.is_empty() || case.shares_zone(finding))
}

/// Kinds that are about a zone each.
const fn is_of_zone(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::RandomSubdomains | Kind::FlashCrowd | Kind::QueryLoop
    )
}

/// More than usual that an incident of the kind needs to go on.
const fn least(kind: Kind) -> f32 {
    match kind {
        Kind::RandomSubdomains | Kind::Pulse => 4.0,
        Kind::Reflection => 10.0,
        Kind::SpoofedResolvers | Kind::MalformedFlood | Kind::TcpExhaustion => 15.0,
        Kind::DirectFlood | Kind::SpoofedCarpet => 30.0,
        Kind::QueryLoop | Kind::FlashCrowd => 40.0,
        Kind::UpstreamFailure => f32::MAX,
    }
}

impl Case {
    fn new(finding: Finding, now: f64, seconds: f64) -> Self {
        Self {
            number: None,
            kind: finding.kind,
            zones: finding.zones.clone(),
            many: finding.many,
            began: now - seconds,
            hits: 0,
            plain: 0,
            last_hit: now,
            last_on: now,
            peak: 0.0,
            low_since: None,
            returns: 0,
            pause: 0.0,
            pulsing: false,
            otherwise: 0,
            finding,
            told_peak: 0.0,
            stale: 0,
            dismissed: false,
        }
    }

    fn shares_zone(&self, finding: &Finding) -> bool {
        self.zones.iter().any(|zone| finding.zones.contains(zone))
    }

    /// Whether this finding is of this case.
    fn is_same(&self, finding: &Finding, now: f64) -> bool {
        if self.kind != finding.kind {
            return false;
        }
        if !is_of_zone(self.kind) || self.shares_zone(finding) {
            return !finding.many
                || self.many
                || !is_of_zone(self.kind)
                || now - self.began <= ONSET;
        }
        finding.many && self.many
    }

    /// More than usual now, over so many seconds. `apart`: zones of other cases.
    fn excess(&self, scene: &Scene<'_>, seconds: usize, apart: &[Arc<str>]) -> f32 {
        let quantity = self.finding.quantity;
        let whole = |quantity| scene.whole_mean(quantity, seconds) - scene.whole_usual(quantity);
        let of = |zone: &Arc<str>| {
            scene.zone_mean(zone, quantity, seconds) - scene.zone_usual(zone, quantity)
        };
        if quantity == CONNECTIONS || quantity == TRANSFERS {
            return whole(CONNECTIONS).max(whole(TRANSFERS));
        }
        if quantity == MADE_UP && self.many {
            let others: f32 = apart
                .iter()
                .filter(|zone| !self.zones.contains(zone))
                .map(of)
                .sum();
            return whole(quantity) - others.max(0.0);
        }
        if is_of_zone(self.kind) && !self.zones.is_empty() {
            return self.zones.iter().map(of).sum();
        }
        whole(quantity)
    }

    /// Notices pulses: it came down to next to nothing and is back.
    fn follow(&mut self, excess: f32, now: f64, seconds: f64) {
        if self.hits == 0 {
            return;
        }
        self.peak = self.peak.max(excess);
        if excess < 0.15 * self.peak {
            self.low_since.get_or_insert(now - seconds);
        } else if excess > 0.4 * self.peak
            && let Some(since) = self.low_since.take()
        {
            let pause = now - seconds - since;
            self.pause = self.pause.max(pause);
            // a single low second may be a hiccup
            self.returns = self
                .returns
                .saturating_add(if pause >= 1.5 * seconds { 2 } else { 1 });
        }
    }

    /// Whether an incident that no case belongs to, because it was opened before a restart, is this one.
    fn is_of(&self, incident: &Incident) -> bool {
        let same = incident.kind == self.kind
            || incident.of == Some(self.kind)
            || are_siblings(incident.kind, self.kind);
        let shared = || {
            let mut zones = incident.zones.iter();
            zones.any(|part| self.zones.iter().any(|zone| **zone == *part.zone))
        };
        incident.is_open() && same && (!is_of_zone(self.kind) || self.many || shared())
    }

    /// Whether it has gone on for long enough to be an incident.
    fn is_ripe(&self, scene: &Scene<'_>) -> bool {
        let overwhelming = self.finding.excess >= 1000.0
            && self.finding.excess >= 4.0 * scene.whole_usual(QUERIES).max(50.0);
        let patience = match self.kind {
            // whether sources come back takes a while to be seen
            Kind::SpoofedCarpet | Kind::DirectFlood => 3,
            Kind::UpstreamFailure => 3,
            _ if overwhelming => 1,
            _ if self.plain > 0 => 2,
            _ => 3,
        };
        self.hits >= patience
    }

    fn quiet(&self) -> f64 {
        if self.pulsing {
            (2.3 * self.pause).clamp(QUIET, LONGEST_QUIET)
        } else if self.kind.is_attack() && self.last_on - self.began < SHORT {
            LONGEST_QUIET
        } else {
            QUIET
        }
    }
}

impl Cases {
    /// Whether nothing is to be learned now.
    pub(crate) const fn freeze(&self) -> bool {
        self.freeze
    }

    /// Takes in the findings of a second. Says what happened to which incidents.
    pub(crate) fn keep(
        &mut self,
        scene: &Scene<'_>,
        findings: Vec<Finding>,
        book: &mut Book,
    ) -> Vec<(u64, Happened)> {
        let now = scene.now;
        let seconds = f64::from(scene.point.seconds.max(0.1));
        let mut happened = Vec::new();
        self.assign(findings, now, seconds);
        let apart: Vec<Arc<str>> = self
            .cases
            .iter()
            .filter(|case| case.kind == Kind::RandomSubdomains && !case.many)
            .flat_map(|case| case.zones.clone())
            .collect();
        for case in &mut self.cases {
            if case.number.is_some_and(|it| book.going_on.contains(&it)) {
                // neither quiet nor a pause
                case.last_on = now;
                case.low_since = None;
                continue;
            }
            let excess = case.excess(scene, 1, &apart);
            case.follow(excess, now, seconds);
            let still = case.excess(scene, 3, &apart);
            if case.last_hit >= now || still >= (0.15 * case.peak).max(least(case.kind)) {
                case.last_on = now;
            }
        }
        let mut taken: Vec<u64> = self.cases.iter().filter_map(|case| case.number).collect();
        for case in &mut self.cases {
            if case.number.is_none()
                && !case.dismissed
                && case.last_hit >= now
                && case.is_ripe(scene)
                && book.open.iter().filter(|it| it.is_open()).count() < MOST_OPEN
            {
                case.pulsing = case.returns >= 2;
                let orphan = book
                    .open
                    .iter()
                    .find(|it| !taken.contains(&it.number) && case.is_of(it));
                if let Some(orphan) = orphan {
                    case.number = Some(orphan.number);
                    case.began = orphan.began;
                    taken.push(orphan.number);
                    happened.push((orphan.number, Happened::Changed));
                } else {
                    let number = record::open(case, scene, book);
                    case.number = Some(number);
                    happened.push((number, Happened::Opened));
                }
            }
            let Some(number) = case.number else { continue };
            let Some(incident) = book.open.iter_mut().find(|it| it.number == number) else {
                // the owner has taken it out: somebody closed it by hand
                case.dismissed = true;
                case.number = None;
                continue;
            };
            if !case.pulsing && case.returns >= 2 && case.kind.is_attack() {
                case.pulsing = true;
                case.stale = 0;
            }
            if record::update(case, scene, incident) {
                happened.push((number, Happened::Changed));
            }
            if now - case.last_on >= case.quiet() {
                record::close(case, scene, incident);
                happened.push((number, Happened::Closed));
                case.number = None;
                case.last_hit = f64::MIN;
            }
        }
        self.cases
            .retain(|case| case.number.is_some() || now - case.last_hit < FORGOTTEN);
        self.freeze = self.cases.iter().any(|case| {
            case.kind != Kind::FlashCrowd
                && !case.dismissed
                && now - case.began < LONG
                && (case.number.is_some() || now - case.last_hit < 3.0)
        });
        happened
    }

    /// Gives each finding to its case.
    fn assign(&mut self, findings: Vec<Finding>, now: f64, seconds: f64) {
        let kinds: Vec<Kind> = findings.iter().map(|finding| finding.kind).collect();
        for finding in findings {
            // open ones first, so that what goes on is not split
            let place = self
                .cases
                .iter()
                .enumerate()
                .filter(|(_, case)| case.is_same(&finding, now))
                .min_by_key(|(_, case)| (case.many != finding.many, case.number.is_none()))
                .map(|(place, _)| place);
            let sibling = || {
                self.cases.iter().position(|case| {
                    are_siblings(case.kind, finding.kind) && !kinds.contains(&case.kind)
                })
            };
            let grown_old = || {
                self.cases.iter().position(|case| {
                    goes_on_as(case, &finding) && !kinds.contains(&Kind::DirectFlood)
                })
            };
            let place = place.or_else(sibling).or_else(grown_old);
            let case = match place.and_then(|place| self.cases.get_mut(place)) {
                Some(case) => case,
                None => {
                    if self.cases.len() >= MOST {
                        continue;
                    }
                    self.cases.push(Case::new(finding.clone(), now, seconds));
                    match self.cases.last_mut() {
                        Some(case) => case,
                        None => continue,
                    }
                }
            };
            if case.last_hit < now || case.hits == 0 {
                case.hits = case.hits.saturating_add(1);
                case.plain = case.plain.saturating_add(u32::from(finding.plain));
            }
            case.last_hit = now;
            if finding.kind == case.kind {
                case.otherwise = 0;
                if finding.many && !case.many && is_of_zone(case.kind) {
                    case.many = true;
                }
                for zone in &finding.zones {
                    if !case.zones.contains(zone) && (case.many || !is_of_zone(case.kind)) {
                        case.zones.push(Arc::clone(zone));
                    }
                }
                case.finding = finding;
            } else if goes_on_as(case, &finding) {
                if case.finding.quantity != finding.quantity {
                    // it was not low, it was counted elsewhere
                    case.low_since = None;
                }
                case.finding.quantity = finding.quantity;
            } else {
                case.otherwise = case.otherwise.saturating_add(1);
                if case.otherwise >= 3 || case.number.is_none() {
                    case.kind = finding.kind;
                    case.otherwise = 0;
                    case.stale = 0;
                    case.finding = finding;
                }
            }
        }
        self.join();
    }

    /// Forgets cases on single zones that are part of one on many, and no incidents yet.
    fn join(&mut self) {
        let taken: Vec<Arc<str>> = self
            .cases
            .iter()
            .filter(|case| case.kind == Kind::RandomSubdomains && case.many)
            .flat_map(|case| case.zones.clone())
            .collect();
        self.cases.retain(|case| {
            case.many
                || case.number.is_some()
                || case.kind != Kind::RandomSubdomains
                || !case.zones.iter().all(|zone| taken.contains(zone))
        });
    }
}
