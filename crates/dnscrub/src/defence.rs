//! Defence levels of all workers together: merged ten times a second, told in the log when they
//! change, and given back to the workers.
//!
//! Each worker publishes what it sees ([`Sight`]) outside the packets' way; here the highest level of
//! a signal or zone counts, and rates add up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ahash::RandomState;
use dnscrub_scoring::{Level, Levels, SuffixAlarm};
use dnscrub_wire::Name;
use dnscrub_zones::Zones;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::orders::{Orders, Origin, zone_of};
use crate::shared::Shared;
use crate::unix_time;

/// How often levels are merged.
pub const PERIOD: Duration = Duration::from_millis(100);
/// Log lines about single zones in a [`QUOTA_PERIOD`]; more changes are told of in one line.
const QUOTA: u32 = 20;
const QUOTA_PERIOD: Duration = Duration::from_secs(60);
/// Names that no zone of the configuration has and that become labels of metrics, at a time.
pub const UNCONFIGURED: usize = 20;
/// The scope that stands for all zones together.
pub const WHOLE: &str = "whole";

/// A scope within a sentence.
#[must_use]
pub fn scope_in_words(scope: &str) -> &str {
    if scope == WHOLE { "the whole" } else { scope }
}
/// The signal that makes a zone's level.
const ZONE_SIGNAL: &str = "suffix-flood";

/// What one worker sees.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Its levels.
    pub levels: Levels,
    /// Octets of its scoring tables.
    pub scoring_octets: usize,
    /// Octets of its table of answers sent.
    pub response_limit_octets: usize,
}

/// What all workers together see.
#[derive(Clone, Debug)]
pub struct Defence {
    /// Alarms of signals and zones.
    pub levels: Levels,
    /// Since when the whole has its level.
    pub whole_since: SystemTime,
    since: HashMap<Name, SystemTime, RandomState>,
}

/// One row of `dnscrub levels`; `GET /v1/levels` is a list of them, the whole first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelStatus {
    /// `whole`, or a zone's name, or another name that doubtful ones stand under.
    pub scope: String,
    /// `calm`, `alert` or `attack`.
    pub level: String,
    /// Since when, in seconds since 1970; nothing for a zone that was calm since the start.
    pub since: Option<f64>,
    /// What the level is due to: a signal, an incident or somebody's hand; nothing while calm.
    pub why: Option<String>,
    /// Its events a second now.
    pub rate: Option<f32>,
    /// The same in calm times.
    pub usual: Option<f32>,
    /// Distinct doubtful names of the last seconds, about.
    pub distinct: Option<f32>,
    /// What the level is due to: a signal, an incident or an operator; nothing while it is calm by itself.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// The incident that raises it.
    #[serde(default)]
    pub incident: Option<u64>,
    /// Until when an operator has set it, in seconds since 1970.
    #[serde(default)]
    pub until: Option<f64>,
}

impl LevelStatus {
    /// A scope that was calm since the start.
    fn calm(scope: String) -> Self {
        Self {
            scope,
            level: Level::Calm.label().to_owned(),
            since: None,
            why: None,
            rate: None,
            usual: None,
            distinct: None,
            origin: None,
            incident: None,
            until: None,
        }
    }

    /// What comes of it together with what is ordered; `seen` is the level by the signals.
    fn apply(&mut self, seen: Level, zones: &Zones, orders: &Orders) {
        let zone = (self.scope != WHOLE)
            .then(|| Name::from_text(&self.scope).ok())
            .flatten()
            .map(|name| zone_of(zones, &name).to_string());
        let effective = orders.effective(zone.as_deref(), seen);
        self.level = effective.level.label().to_owned();
        self.origin = effective.origin;
        self.incident = effective.incident;
        self.until = effective.by_hand.map(|by_hand| by_hand.until);
        let since = match effective.origin {
            Some(Origin::Operator) => effective.by_hand.map(|by_hand| by_hand.since),
            Some(Origin::Signal | Origin::Incident) | None => None,
        };
        self.since = since.or(self.since);
        let why = match (effective.origin, effective.incident) {
            (Some(Origin::Operator), _) => Some("by hand".to_owned()),
            (Some(Origin::Incident), Some(number)) => Some(format!("incident {number}")),
            _ => None,
        };
        self.why = why.or_else(|| self.why.take());
    }
}

/// A level that has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `whole` or a zone.
    pub scope: String,
    /// What it was.
    pub from: Level,
    /// What it is.
    pub to: Level,
    /// The signal it is due to.
    pub why: &'static str,
    /// Its events a second now.
    pub rate: f32,
    /// The same in calm times.
    pub usual: f32,
    /// Distinct doubtful names of the last seconds, for a zone.
    pub distinct: Option<f32>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scope,
            from,
            to,
            why,
            rate,
            usual,
            distinct,
        } = self;
        let (from, to) = (from.label(), to.label());
        write!(
            f,
            "defence level of {scope}: {from} -> {to}; {why}: {rate:.0} a second, usually {usual:.1}"
        )?;
        match distinct {
            Some(distinct) => write!(f, ", about {distinct:.0} distinct names"),
            None => Ok(()),
        }
    }
}

impl Defence {
    /// Calm since `now`.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        Self {
            levels: Levels::default(),
            whole_since: now,
            since: HashMap::default(),
        }
    }

    /// What comes of it when the workers see `levels` at `now`, and what has changed.
    #[must_use]
    pub fn next(&self, levels: Levels, now: SystemTime) -> (Self, Vec<Change>) {
        let mut changes = Vec::new();
        let mut next = Self {
            whole_since: self.whole_since,
            since: HashMap::default(),
            levels,
        };
        let (before, after) = (self.levels.whole(), next.levels.whole());
        if before != after {
            next.whole_since = now;
            // when it becomes calm, what it was due to is of interest
            let was = self.levels.worst().map_or("", |alarm| alarm.signal);
            let signals = &next.levels.signals;
            let due = if after == Level::Calm {
                signals.iter().find(|alarm| alarm.signal == was)
            } else {
                next.levels.worst()
            };
            changes.extend(due.map(|alarm| Change {
                scope: WHOLE.to_owned(),
                from: before,
                to: after,
                why: alarm.signal,
                rate: alarm.rate,
                usual: alarm.usual,
                distinct: None,
            }));
        }
        let known: HashMap<&Name, &SuffixAlarm, RandomState> = self
            .levels
            .suffixes
            .iter()
            .map(|alarm| (&alarm.name, alarm))
            .collect();
        let change = |alarm: &SuffixAlarm, from, to| Change {
            scope: alarm.name.to_string(),
            from,
            to,
            why: ZONE_SIGNAL,
            rate: alarm.rate,
            usual: alarm.usual,
            distinct: Some(alarm.distinct),
        };
        for alarm in &next.levels.suffixes {
            let from = known
                .get(&alarm.name)
                .map_or(Level::Calm, |known| known.level);
            let mut since = self.since.get(&alarm.name).copied().unwrap_or(now);
            if from != alarm.level {
                since = now;
                changes.push(change(alarm, from, alarm.level));
            }
            next.since.insert(alarm.name, since);
        }
        for alarm in &self.levels.suffixes {
            if !next.since.contains_key(&alarm.name) {
                changes.push(change(alarm, alarm.level, Level::Calm));
            }
        }
        (next, changes)
    }

    /// Whether anything is not calm.
    #[must_use]
    pub fn is_alarmed(&self) -> bool {
        self.levels.whole() > Level::Calm || !self.levels.suffixes.is_empty()
    }

    /// The whole, then zones and other names with an alarm, the worst first, then the zones of the
    /// configuration that are calm.
    #[must_use]
    pub fn status(&self, zones: &Zones, orders: &Orders) -> Vec<LevelStatus> {
        let level = self.levels.whole();
        let worst = self.levels.worst().filter(|_| level > Level::Calm);
        let whole = LevelStatus {
            scope: WHOLE.to_owned(),
            level: level.label().to_owned(),
            since: Some(unix_time::from(self.whole_since)),
            why: worst.map(|alarm| alarm.signal.to_owned()),
            rate: worst.map(|alarm| alarm.rate),
            usual: worst.map(|alarm| alarm.usual),
            ..LevelStatus::calm(String::new())
        };
        let alarmed = self.levels.suffixes.iter().map(|alarm| LevelStatus {
            scope: alarm.name.to_string(),
            level: alarm.level.label().to_owned(),
            since: self.since.get(&alarm.name).copied().map(unix_time::from),
            why: Some(ZONE_SIGNAL.to_owned()),
            rate: Some(alarm.rate),
            usual: Some(alarm.usual),
            distinct: Some(alarm.distinct),
            ..LevelStatus::calm(String::new())
        });
        let calm = zones
            .iter()
            .filter(|zone| !self.since.contains_key(zone.name()));
        let calm = calm.map(|zone| LevelStatus::calm(zone.name().to_string()));
        let mut rows: Vec<LevelStatus> =
            std::iter::once(whole).chain(alarmed).chain(calm).collect();
        // zones that are ordered about and that nothing else tells of
        for scope in orders.zones() {
            if rows.iter().all(|row| row.scope != scope) {
                rows.push(LevelStatus::calm(scope));
            }
        }
        let mut seen = self.levels.suffixes.iter().map(|alarm| alarm.level);
        let mut levels = std::iter::once(level).chain(&mut seen);
        for row in &mut rows {
            row.apply(levels.next().unwrap_or_default(), zones, orders);
        }
        rows
    }

    /// The level of each zone of the configuration, names inside it included, and of names outside
    /// all of them, of which there are at most [`UNCONFIGURED`].
    #[must_use]
    pub fn by_zone(&self, zones: &Zones) -> Vec<(String, Level)> {
        let mut levels: Vec<(String, Level)> = zones
            .iter()
            .map(|zone| (zone.name().to_string(), Level::Calm))
            .collect();
        let mut outside = 0;
        for alarm in &self.levels.suffixes {
            match zones.find(&alarm.name) {
                Some((zone, _)) => {
                    if let Some((_, level)) = levels.get_mut(usize::from(zone)) {
                        *level = (*level).max(alarm.level);
                    }
                }
                None if outside < UNCONFIGURED => {
                    outside += 1;
                    levels.push((alarm.name.to_string(), alarm.level));
                }
                None => {}
            }
        }
        levels
    }
}

/// What is said in the log: every change of the whole, and of zones as many as there is a quota for,
/// so that an attack on many names does not fill the disk.
#[derive(Debug)]
struct Teller {
    began: SystemTime,
    said: u32,
    /// It was said that changes are left out.
    complained: bool,
}

impl Teller {
    /// The lines to be written: the changes, and how many are left out. All of them belong to `now`.
    fn choose(&mut self, changes: Vec<Change>, now: SystemTime) -> (Vec<Change>, usize) {
        let passed = now.duration_since(self.began).unwrap_or(QUOTA_PERIOD);
        if passed >= QUOTA_PERIOD {
            (self.began, self.said, self.complained) = (now, 0, false);
        }
        let all = changes.len();
        let told: Vec<Change> = changes
            .into_iter()
            .filter(|change| {
                if change.scope == WHOLE {
                    return true;
                }
                self.said = self.said.saturating_add(1);
                self.said <= QUOTA
            })
            .collect();
        let left_out = all - told.len();
        // once in a period
        let left_out = if self.complained { 0 } else { left_out };
        self.complained |= left_out > 0;
        (told, left_out)
    }
}

/// Merges what the workers see, until dropped.
pub async fn watch(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut teller = Teller {
        began: SystemTime::now(),
        said: 0,
        complained: false,
    };
    loop {
        ticks.tick().await;
        let now = SystemTime::now();
        let mut levels = Levels::default();
        for sight in &shared.sights {
            levels.merge(&sight.load().levels);
        }
        let (next, changes) = shared.defence.load().next(levels, now);
        shared.defence.store(Arc::new(next));
        let (told, left_out) = teller.choose(changes, now);
        for change in told {
            if change.to > change.from {
                warn!("{change}");
            } else {
                info!("{change}");
            }
        }
        if left_out > 0 {
            warn!("more zones change their level; `dnscrub levels` shows them");
        }
    }
}

#[cfg(test)]
mod tests {
    use dnscrub_scoring::SignalAlarm;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn levels(whole: Level, suffixes: &[(&str, Level)]) -> Levels {
        Levels {
            signals: vec![SignalAlarm {
                signal: "loyalty",
                level: whole,
                rate: 5000.0,
                usual: 3.0,
            }],
            suffixes: suffixes
                .iter()
                .map(|&(name, level)| SuffixAlarm {
                    name: name.parse().unwrap(),
                    level,
                    rate: 900.0,
                    usual: 1.5,
                    distinct: 4000.0,
                })
                .collect(),
        }
    }

    fn said(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_change_is_told_once_with_its_numbers() {
        let calm = Defence::new(at(0));
        let (alert, changes) = calm.next(levels(Level::Calm, &[]), at(1));
        assert_eq!(said(&changes), [""; 0]);
        assert!(!alert.is_alarmed());
        let (attack, changes) =
            alert.next(levels(Level::Attack, &[("a.example", Level::Alert)]), at(2));
        assert_eq!(
            said(&changes),
            [
                "defence level of whole: calm -> attack; loyalty: 5000 a second, usually 3.0",
                "defence level of a.example: calm -> alert; suffix-flood: 900 a second, usually 1.5, about 4000 distinct names",
            ]
        );
        let (same, changes) =
            attack.next(levels(Level::Attack, &[("a.example", Level::Alert)]), at(3));
        assert_eq!((said(&changes).len(), same.whole_since), (0, at(2)));
        assert!(same.is_alarmed());
        let (over, changes) = same.next(levels(Level::Calm, &[]), at(4));
        assert_eq!(
            said(&changes),
            [
                "defence level of whole: attack -> calm; loyalty: 5000 a second, usually 3.0",
                "defence level of a.example: alert -> calm; suffix-flood: 900 a second, usually 1.5, about 4000 distinct names",
            ]
        );
        assert!(!over.is_alarmed());
    }

    #[test]
    fn the_whole_is_first_and_calm_zones_are_last() {
        use dnscrub_zones::{Limits, Zone};

        let zone = |name: &str| {
            let name = name.parse().unwrap();
            let hasher = RandomState::new();
            let now = std::time::Instant::now();
            Arc::new(Zone::new(name, Limits::default(), hasher, now))
        };
        let zones = Zones::new(
            vec![zone("calm.example"), zone("hit.example")],
            RandomState::new(),
        );
        let suffixes = [
            ("b.hit.example", Level::Attack),
            ("hit.example", Level::Alert),
            ("outside.test", Level::Alert),
        ];
        let (defence, _) = Defence::new(at(0)).next(levels(Level::Attack, &suffixes), at(7));
        let rows: Vec<_> = defence
            .status(&zones, &Orders::default())
            .into_iter()
            .map(|row| (row.scope, row.level, row.since))
            .collect();
        let row = |scope: &str, level: &str, since| (scope.to_owned(), level.to_owned(), since);
        assert_eq!(
            rows,
            [
                row("whole", "attack", Some(7.0)),
                row("b.hit.example", "attack", Some(7.0)),
                row("hit.example", "alert", Some(7.0)),
                row("outside.test", "alert", Some(7.0)),
                row("calm.example", "calm", None),
            ]
        );
        assert_eq!(
            defence.by_zone(&zones),
            [
                ("calm.example".to_owned(), Level::Calm),
                ("hit.example".to_owned(), Level::Attack),
                ("outside.test".to_owned(), Level::Alert),
            ]
        );
        let many: Vec<String> = (0..90).map(|number| format!("n{number}.test")).collect();
        let many: Vec<_> = many
            .iter()
            .map(|name| (name.as_str(), Level::Alert))
            .collect();
        let (defence, _) = Defence::new(at(0)).next(levels(Level::Calm, &many), at(1));
        assert_eq!(defence.by_zone(&zones).len(), 2 + UNCONFIGURED);
    }

    #[test]
    fn many_zones_do_not_fill_the_log() {
        let many: Vec<String> = (0..90).map(|number| format!("n{number}.test")).collect();
        let many: Vec<_> = many
            .iter()
            .map(|name| (name.as_str(), Level::Attack))
            .collect();
        let mut teller = Teller {
            began: at(0),
            said: 0,
            complained: false,
        };
        let (attack, changes) = Defence::new(at(0)).next(levels(Level::Attack, &many), at(1));
        assert_eq!(changes.len(), 91);
        let (told, left_out) = teller.choose(changes, at(1));
        assert_eq!((told.len(), left_out), (1 + QUOTA as usize, 70));
        let (_, changes) = attack.next(levels(Level::Calm, &[]), at(30));
        let (told, left_out) = teller.choose(changes.clone(), at(30));
        assert_eq!((told.len(), left_out), (1, 0), "it was said before");
        let (told, _) = teller.choose(changes, at(62));
        assert_eq!(told.len(), 1 + QUOTA as usize);
    }
}
