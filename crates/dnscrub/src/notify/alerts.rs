//! Alerts of the Prometheus Alertmanager API (version 2), on a clock that is an argument.
//!
//! An alert is a state, not a message: it is sent again and again while its incident is open, and resolves
//! by itself when that stops. So nothing queues up for an Alertmanager that is away; when it is back
//! it gets what is so then. Of an incident that came and went meanwhile it gets an alert that says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use dnscrub_detection::incident::Spoofed;
use dnscrub_detection::{Happened, Incident, Kind};
use serde::Serialize;

use super::notice::{End, Notice, Outcome, not_far, pause};
use super::settings::Address;
use crate::unix_time;

/// The alerts' name.
pub(super) const ALERT_NAME: &str = "DnscrubIncident";
/// The name of test alerts.
pub(super) const TEST_NAME: &str = "DnscrubTest";
/// Incidents that an Alertmanager is told of at a time.
pub(super) const MOST: usize = 512;
/// An alert lasts so many times the interval it is sent in.
const LASTS: f64 = 5.0;

/// What alerts say beside the incident itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The label `instance`.
    pub(super) instance: String,
    /// The annotation `runbook_url`.
    pub(super) playbook: Option<Address>,
    /// The annotation `dashboard_url`.
    pub(super) dashboard: Option<Address>,
}

/// How an Alertmanager is treated; in seconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manner {
    /// Alerts are sent again so often.
    pub(super) resend: f64,
    /// Ages of an incident at which there is a further alert.
    pub(super) escalate: Vec<f64>,
    /// For how long the end of an incident is still to be told.
    pub(super) give_up_after: f64,
}

type Labels = BTreeMap<String, String>;

/// An alert as the API takes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert {
    /// What it is told apart by.
    pub(super) labels: Labels,
    /// What it says.
    pub(super) annotations: Labels,
    /// RFC 3339.
    pub(super) starts_at: String,
    /// The same; in the past when it is over.
    pub(super) ends_at: String,
    /// Where it comes from.
    #[serde(rename = "generatorURL", skip_serializing_if = "String::is_empty")]
    pub(super) generator_url: String,
}

/// One request to an Alertmanager.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Batch {
    /// Its body.
    pub(super) alerts: Vec<Alert>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
struct Part {
    incident: u64,
    notice: u64,
    firing: Vec<Labels>,
    over: bool,
}

/// What happened to a notice by an attempt, or without one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    /// What it was.
    pub(super) notice: Arc<Notice>,
    /// How it ended.
    pub(super) end: End,
    /// Why, unless it was delivered.
    pub(super) why: String,
    /// Whether the incident is done with at this Alertmanager.
    pub(super) last: bool,
}

/// What is known of an incident elsewhere.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// It is open.
    Open,
    /// It is over: the record.
    Closed(Arc<Incident>),
    /// Nothing.
    Unknown,
}

/// What one Alertmanager is told.
#[derive(Debug)]
pub(super) struct Alerts {
    manner: Manner,
    held: BTreeMap<u64, Held>,
    sending: bool,
    failures: u32,
    /// Not before this.
    pause_until: f64,
    delivered_at: f64,
}

#[derive(Debug)]
struct Held {
    notice: Arc<Notice>,
    /// The zone in the labels: it stays as long as the incident is about it at all.
    zone: String,
    /// The notice was delivered.
    delivered: bool,
    /// It was told of the incident while it was open.
    fired: bool,
    /// The alerts it has, as far as known.
    there: Vec<Labels>,
}

impl Held {
    fn is_open(&self) -> bool {
        self.notice.incident.is_open()
    }
}

impl Alerts {
    /// Nothing to tell yet.
    #[must_use]
    pub(super) const fn new(manner: Manner) -> Self {
        Self {
            manner,
            held: BTreeMap::new(),
            sending: false,
            failures: 0,
            pause_until: f64::NEG_INFINITY,
            delivered_at: f64::NEG_INFINITY,
        }
    }

    /// It is treated so from now on.
    pub(super) fn adopt(&mut self, manner: Manner) {
        self.manner = manner;
    }

    /// Whether it is being told of this incident.
    #[must_use]
    pub(super) fn has_heard(&self, incident: u64) -> bool {
        self.held.contains_key(&incident)
    }

    /// The number of the notice that it goes by for an incident.
    #[must_use]
    pub(super) fn notice_of(&self, incident: u64) -> Option<u64> {
        self.held.get(&incident).map(|held| held.notice.number)
    }

    /// Takes a notice in the place of the one of the same incident before it. Returns the one that is not
    /// delivered because of that, or this one if there is no room.
    pub(super) fn take(&mut self, notice: &Arc<Notice>) -> Option<Ended> {
        let number = notice.incident.number;
        if !self.held.contains_key(&number) && self.held.len() >= MOST {
            return Some(Ended {
                notice: Arc::clone(notice),
                end: End::Dropped,
                why: format!("it is told of {MOST} incidents already"),
                last: true,
            });
        }
        let zones = &notice.incident.zones;
        let Some(held) = self.held.get_mut(&number) else {
            let zone = zones.first().map_or("", |part| &part.zone).to_owned();
            let held = Held {
                notice: Arc::clone(notice),
                zone,
                delivered: false,
                fired: false,
                there: Vec::new(),
            };
            self.held.insert(number, held);
            return None;
        };
        if notice.number < held.notice.number {
            return None;
        }
        if !zones.iter().any(|part| part.zone == held.zone) {
            held.zone = zones.first().map_or("", |part| &part.zone).to_owned();
        }
        let before = std::mem::replace(&mut held.notice, Arc::clone(notice));
        let delivered = std::mem::replace(&mut held.delivered, false);
        (before.number != notice.number && !delivered).then(|| Ended {
            notice: before,
            end: End::Replaced,
            why: String::new(),
            last: false,
        })
    }

    /// It was told before the restart that this incident is open, by a notice of this number.
    pub(super) fn restore_fired(&mut self, incident: u64, number: u64) {
        if let Some(held) = self.held.get_mut(&incident) {
            held.fired = true;
            held.delivered |= held.notice.number == number;
        }
    }

    /// What it has been told of while it was open: number of the incident, and of the newest notice if that
    /// was delivered, or 0.
    pub(super) fn fired(&self) -> impl Iterator<Item = (u64, u64)> {
        let fired = self.held.iter().filter(|(_, held)| held.fired);
        fired.map(|(&incident, held)| match held.delivered {
            true => (incident, held.notice.number),
            false => (incident, 0),
        })
    }

    /// The notices that are needed after a restart.
    pub(super) fn notices(&self) -> impl Iterator<Item = &Arc<Notice>> {
        self.held.values().map(|held| &held.notice)
    }

    /// Compares with what is known of incidents elsewhere. Those that nobody knows of are given up if
    /// `strict`.
    pub(super) fn reconcile(&mut self, strict: bool, known: impl Fn(u64) -> Known) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.held.retain(|&number, held| {
            if !held.is_open() {
                return true;
            }
            match known(number) {
                Known::Open => true,
                Known::Closed(incident) => {
                    let Notice {
                        number, id, made, ..
                    } = &*held.notice;
                    let closed =
                        Notice::new(*number, id.clone(), Happened::Closed, *made, &incident);
                    held.notice = Arc::new(closed);
                    held.delivered = false;
                    true
                }
                Known::Unknown if strict => {
                    ended.push(Ended {
                        notice: Arc::clone(&held.notice),
                        end: End::Dropped,
                        why: "nothing is known of the incident any more".to_owned(),
                        last: true,
                    });
                    false
                }
                Known::Unknown => true,
            }
        });
        ended
    }

    /// What is to be sent now. It must be followed by [`Alerts::done`].
    pub(super) fn due(&mut self, now: f64, facts: &Facts) -> Option<Batch> {
        self.pause_until = not_far(self.pause_until, now);
        self.delivered_at = self.delivered_at.min(now);
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        self.sending = true;
        let mut batch = Batch {
            alerts: Vec::new(),
            parts: Vec::new(),
        };
        for (&incident, held) in &self.held {
            let alerts = self.manner.alerts(held, now, facts);
            let firing = alerts.iter().filter(|(fires, _)| *fires);
            batch.parts.push(Part {
                incident,
                notice: held.notice.number,
                firing: firing.map(|(_, alert)| alert.labels.clone()).collect(),
                over: !held.is_open(),
            });
            batch
                .alerts
                .extend(alerts.into_iter().map(|(_, alert)| alert));
        }
        Some(batch)
    }

    /// When something is due next; nothing while an attempt is under way, or if there is nothing to tell.
    #[must_use]
    pub(super) fn next_due(&self) -> Option<f64> {
        if self.sending || self.held.is_empty() {
            return None;
        }
        let of = |held: &Held| {
            if !held.delivered || !held.is_open() {
                return f64::NEG_INFINITY;
            }
            // a restart forgets which alerts are there: all are sent anew
            let stage = held.there.len().saturating_sub(1);
            let escalates = self
                .manner
                .escalate
                .get(stage)
                .filter(|_| escalates(held.notice.incident.kind));
            let next = escalates.map_or(f64::INFINITY, |after| held.notice.incident.opened + after);
            next.min(self.delivered_at + self.manner.resend)
        };
        let wanted = self.held.values().map(of).min_by(f64::total_cmp)?;
        Some(wanted.max(self.pause_until))
    }

    /// What became of a request. `chance` is from 0 to 1.
    pub(super) fn done(
        &mut self,
        batch: &Batch,
        outcome: Outcome,
        now: f64,
        chance: f64,
    ) -> Vec<Ended> {
        self.sending = false;
        match outcome {
            Outcome::Delivered => {
                self.failures = 0;
                self.pause_until = f64::NEG_INFINITY;
                self.delivered_at = now;
                let parts = batch.parts.iter();
                parts.filter_map(|part| self.delivered(part)).collect()
            }
            // what it refuses now it may take when it is configured otherwise
            Outcome::Never(why) => self.failed(&why, None, now, chance),
            Outcome::Later { why, after } => self.failed(&why, after, now, chance),
        }
    }

    fn delivered(&mut self, part: &Part) -> Option<Ended> {
        let held = self.held.get_mut(&part.incident)?;
        held.fired |= !part.firing.is_empty() && !part.over;
        held.there.clone_from(&part.firing);
        if held.notice.number != part.notice || held.is_open() == part.over {
            return None;
        }
        let fresh = !std::mem::replace(&mut held.delivered, true);
        let notice = Arc::clone(&held.notice);
        if part.over {
            self.held.remove(&part.incident);
        }
        (fresh || part.over).then(|| Ended {
            notice,
            end: End::Delivered,
            why: String::new(),
            last: part.over,
        })
    }

    fn failed(&mut self, why: &str, after: Option<Duration>, now: f64, chance: f64) -> Vec<Ended> {
        self.failures = self.failures.saturating_add(1);
        self.pause_until = now + pause(self.failures, chance, after);
        let limit = self.manner.give_up_after;
        let mut ended = Vec::new();
        self.held.retain(|_, held| {
            let closed = held.notice.incident.closed;
            if closed.is_none_or(|closed| closed + limit > now) {
                return true;
            }
            ended.push(Ended {
                notice: Arc::clone(&held.notice),
                end: End::Expired,
                why: format!("given up: {why}"),
                last: true,
            });
            false
        });
        ended
    }

    /// How many incidents there is something to tell of that it has not taken.
    #[must_use]
    pub(super) fn queued(&self) -> usize {
        self.held.values().filter(|held| !held.delivered).count()
    }

    /// Whether a request is under way.
    #[must_use]
    pub(super) const fn is_sending(&self) -> bool {
        self.sending
    }
}

impl Manner {
    /// The alerts of an incident, and whether each fires.
    fn alerts(&self, held: &Held, now: f64, facts: &Facts) -> Vec<(bool, Alert)> {
        let incident = &*held.notice.incident;
        let annotations = annotations(incident, held.fired, facts);
        let lasts = now + LASTS * self.resend;
        let until = incident.closed.unwrap_or(now).min(now);
        // one that it never heard of must fire for once, or nobody will
        let fires = held.is_open() || !held.fired;
        let mut alerts = Vec::new();
        let starts = std::iter::once(0.0).chain(self.escalate.iter().copied());
        let stages = starts.filter(|&after| {
            after == 0.0 || (escalates(incident.kind) && incident.opened + after <= until)
        });
        for (stage, after) in stages.enumerate() {
            let start = incident.opened + after;
            let end = if fires { lasts } else { until.max(start) };
            let labels = labels(incident, &held.zone, stage, &facts.instance);
            let alert = alert(labels, &annotations, start, end);
            alerts.push((fires, alert));
        }
        for labels in &held.there {
            if !alerts.iter().any(|(_, alert)| alert.labels == *labels) {
                let alert = alert(labels.clone(), &annotations, incident.opened, until);
                alerts.push((false, alert));
            }
        }
        alerts
    }
}

/// An alert that says that it is a test, and resolves after a minute.
#[must_use]
pub(super) fn test(incident: &Incident, instance: &str, now: f64) -> Alert {
    let labels = [
        ("alertname", TEST_NAME),
        ("instance", instance),
        ("severity", "info"),
        ("test", "true"),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let annotations = Labels::from([("summary".to_owned(), incident.sentence.clone())]);
    alert(labels.into(), &annotations, now, now + 60.0)
}

fn alert(labels: Labels, annotations: &Labels, start: f64, end: f64) -> Alert {
    let generator_url = annotations.get("dashboard_url").cloned();
    Alert {
        labels,
        annotations: annotations.clone(),
        starts_at: rfc3339(start),
        ends_at: rfc3339(end.max(start)),
        generator_url: generator_url.unwrap_or_default(),
    }
}

/// Whether somebody must act, so that a further alert comes when nobody does.
const fn escalates(kind: Kind) -> bool {
    kind.is_attack() || matches!(kind, Kind::UpstreamFailure)
}

/// The label `severity`.
#[must_use]
pub(super) const fn severity(kind: Kind) -> &'static str {
    match kind {
        Kind::FlashCrowd => "info",
        Kind::QueryLoop => "warning",
        _ => "critical",
    }
}

fn labels(incident: &Incident, zone: &str, stage: usize, instance: &str) -> Labels {
    let labels = [
        ("alertname", ALERT_NAME.to_owned()),
        ("kind", incident.kind.label().to_owned()),
        ("zone", zone.to_owned()),
        ("severity", severity(incident.kind).to_owned()),
        ("instance", instance.to_owned()),
        ("incident", incident.number.to_string()),
        ("escalation", stage.to_string()),
    ];
    let given = labels.into_iter().filter(|(_, value)| !value.is_empty());
    given
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn annotations(incident: &Incident, told: bool, facts: &Facts) -> Labels {
    let mut summary = incident.sentence.clone();
    if let Some(closed) = incident.closed {
        let over = if told {
            "It is over"
        } else {
            "It came and went while this Alertmanager was away: over"
        };
        let _ = write!(summary, " {over} since {}.", rfc3339(closed));
    }
    let mut annotations = Labels::from([
        ("summary".to_owned(), summary),
        ("description".to_owned(), description(incident)),
    ]);
    let mut address = |name: &str, address: &Option<Address>| {
        if let Some(address) = address {
            annotations.insert(name.to_owned(), address.of(&facts.instance, incident));
        }
    };
    address("runbook_url", &facts.playbook);
    address("dashboard_url", &facts.dashboard);
    annotations
}

fn description(incident: &Incident) -> String {
    let mut text = format!(
        "Incident {}: {}, confidence {:.0} %, since {}.",
        incident.number,
        incident.kind.title(),
        incident.confidence * 100.0,
        rfc3339(incident.began)
    );
    if !incident.zones.is_empty() {
        let zones: Vec<_> = incident
            .zones
            .iter()
            .take(5)
            .map(|part| part.zone.as_str())
            .collect();
        let more = incident.zones.len() - zones.len() + incident.more_zones;
        let _ = write!(text, "\nZones: {}", zones.join(", "));
        if more > 0 {
            let _ = write!(text, " and {more} more");
        }
        text.push('.');
    }
    if incident.peak.queries > 0.0 {
        let _ = write!(
            text,
            "\nPeak: {:.0} queries a second.",
            incident.peak.queries
        );
    }
    let sources = match incident.sources.spoofed {
        Spoofed::Likely => "\nAddresses of sources look forged.",
        Spoofed::Unlikely => "\nAddresses of sources look genuine.",
        Spoofed::Unclear => "",
    };
    text.push_str(sources);
    let impact = &incident.impact;
    if impact.asked > 0.0 {
        let _ = write!(
            text,
            "\nOf {:.0} queries of known clients {:.0} were lost.",
            impact.asked, impact.lost
        );
    }
    for action in incident
        .actions
        .iter()
        .filter(|it| it.undone.is_none())
        .take(5)
    {
        let _ = write!(text, "\nDone: {}", action.text);
    }
    text
}

/// An instant as RFC 3339 in UTC, to the millisecond.
fn rfc3339(at: f64) -> String {
    humantime::format_rfc3339_millis(unix_time::to_system(at)).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{incident, notice};
    use super::*;

    fn manner() -> Manner {
        Manner {
            resend: 60.0,
            escalate: vec![300.0, 900.0],
            give_up_after: 86_400.0,
        }
    }

    fn facts() -> Facts {
        Facts {
            instance: "edge-1".to_owned(),
            playbook: Address::parse("https://w.example/{kind}.md").ok(),
            dashboard: None,
        }
    }

    fn told(number: u64, event: Happened, incident: Incident) -> Arc<Notice> {
        Arc::new(Notice::new(
            number,
            number.to_string(),
            event,
            1000.0,
            &incident,
        ))
    }

    fn closed(number: u64, of: u64, at: f64) -> Arc<Notice> {
        let incident = Incident {
            closed: Some(at),
            ..incident(of)
        };
        told(number, Happened::Closed, incident)
    }

    fn later() -> Outcome {
        Outcome::Later {
            why: "down".to_owned(),
            after: None,
        }
    }

    /// Sends what is due and has it taken; returns escalations and ends of the alerts.
    fn deliver(alerts: &mut Alerts, now: f64) -> (Vec<(String, String)>, Vec<Ended>) {
        let batch = alerts.due(now, &facts()).unwrap();
        let sent = batch.alerts.iter();
        let sent = sent.map(|it| (it.labels["escalation"].clone(), it.ends_at.clone()));
        let sent = sent.collect();
        (sent, alerts.done(&batch, Outcome::Delivered, now, 0.0))
    }

    fn pairs(pairs: &[(&str, f64)]) -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs
            .map(|(stage, end)| ((*stage).to_owned(), rfc3339(*end)))
            .collect()
    }

    #[test]
    fn an_alert_says_what_there_is_to_know() {
        let mut alerts = Alerts::new(manner());
        alerts.take(&notice(1, Happened::Opened, 12));
        let batch = alerts.due(1001.0, &facts()).unwrap();
        let shown = serde_json::to_value(&batch.alerts).unwrap();
        let expected = serde_json::json!([
          {
            "labels": {
              "alertname": "DnscrubIncident",
              "escalation": "0",
              "incident": "12",
              "instance": "edge-1",
              "kind": "random-subdomains",
              "severity": "critical",
              "zone": "example.com"
            },
            "annotations": {
              "description": "Incident 12: random-subdomain flood, confidence 90 %, since 1970-01-01T00:16:35.000Z.\nZones: example.com.",
              "runbook_url": "https://w.example/random-subdomains.md",
              "summary": "Random names below example.com."
            },
            "startsAt": "1970-01-01T00:16:40.000Z",
            "endsAt": "1970-01-01T00:21:41.000Z"
          }
        ]);
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_alert_is_sent_again_escalates_and_resolves() {
        let mut alerts = Alerts::new(manner());
        assert_eq!(alerts.next_due(), None);
        alerts.take(&notice(1, Happened::Opened, 12));
        assert_eq!(alerts.queued(), 1);
        let (sent, ended) = deliver(&mut alerts, 1000.0);
        assert_eq!(sent, pairs(&[("0", 1300.0)]));
        assert_eq!(
            (ended.len(), ended[0].end, ended[0].last),
            (1, End::Delivered, false)
        );
        assert_eq!((alerts.queued(), alerts.next_due()), (0, Some(1060.0)));
        assert_eq!(alerts.due(1059.0, &facts()), None);
        let (_, ended) = deliver(&mut alerts, 1060.0);
        assert!(ended.is_empty(), "sent again, not told anew");
        deliver(&mut alerts, 1270.0);
        assert_eq!(alerts.next_due(), Some(1300.0), "when it escalates");
        let (sent, _) = deliver(&mut alerts, 1300.0);
        assert_eq!(sent, pairs(&[("0", 1600.0), ("1", 1600.0)]));
        let (sent, _) = deliver(&mut alerts, 1905.0);
        assert_eq!(sent.len(), 3);
        assert_eq!(alerts.next_due(), Some(1965.0));
        // it was over a while before this was noticed
        assert_eq!(alerts.take(&closed(2, 12, 1890.0)), None);
        let (sent, ended) = deliver(&mut alerts, 1920.0);
        assert_eq!(sent, pairs(&[("0", 1890.0), ("1", 1890.0), ("2", 1890.0)]));
        assert!(ended[0].last && alerts.next_due().is_none() && alerts.held.is_empty());
    }

    #[test]
    fn what_is_renamed_resolves_under_its_old_name() {
        let mut alerts = Alerts::new(manner());
        alerts.take(&notice(1, Happened::Opened, 12));
        deliver(&mut alerts, 1000.0);
        let renamed = Incident {
            kind: Kind::FlashCrowd,
            ..incident(12)
        };
        alerts.take(&told(2, Happened::Changed, renamed));
        let batch = alerts.due(1400.0, &facts()).unwrap();
        let shown: Vec<_> = batch
            .alerts
            .iter()
            .map(|it| {
                (
                    it.labels["kind"].as_str(),
                    it.labels["severity"].as_str(),
                    it.ends_at.clone(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("flash-crowd", "info", rfc3339(1700.0)),
                ("random-subdomains", "critical", rfc3339(1400.0)),
            ],
            "and what is no attack does not escalate"
        );
        alerts.done(&batch, Outcome::Delivered, 1400.0, 0.0);
        assert_eq!(deliver(&mut alerts, 1460.0).0.len(), 1);
    }

    #[test]
    fn the_zone_in_the_labels_stays_while_the_incident_is_about_it() {
        let mut alerts = Alerts::new(manner());
        alerts.take(&notice(1, Happened::Opened, 12));
        let mut spread = incident(12);
        let mut other = spread.zones[0].clone();
        other.zone = "example.net".to_owned();
        spread.zones.insert(0, other.clone());
        alerts.take(&told(2, Happened::Changed, spread.clone()));
        let zone = |alerts: &mut Alerts, now| {
            let batch = alerts.due(now, &facts()).unwrap();
            alerts.done(&batch, Outcome::Delivered, now, 0.0);
            batch.alerts[0].labels["zone"].clone()
        };
        assert_eq!(zone(&mut alerts, 1000.0), "example.com");
        spread.zones = vec![other];
        alerts.take(&told(3, Happened::Changed, spread));
        assert_eq!(zone(&mut alerts, 1001.0), "example.net");
    }

    #[test]
    fn an_alertmanager_that_is_away_gets_what_is_so_when_it_is_back() {
        let mut alerts = Alerts::new(manner());
        alerts.take(&notice(1, Happened::Opened, 1));
        alerts.take(&notice(2, Happened::Opened, 2));
        let batch = alerts.due(1000.0, &facts()).unwrap();
        assert_eq!(alerts.next_due(), None, "one request at a time");
        assert!(alerts.done(&batch, later(), 1000.0, 1.0).is_empty());
        assert_eq!((alerts.next_due(), alerts.queued()), (Some(1002.0), 2));
        let replaced = alerts.take(&closed(3, 1, 1100.0)).unwrap();
        assert_eq!(replaced.end, End::Replaced);
        let batch = alerts.due(5000.0, &facts()).unwrap();
        let of = |incident: &str| {
            let of = batch
                .alerts
                .iter()
                .find(|it| it.labels["incident"] == incident);
            of.unwrap()
        };
        assert_eq!(of("1").ends_at, rfc3339(5300.0), "it fires for once");
        assert!(of("1").annotations["summary"].contains("came and went while"));
        assert_eq!(of("2").ends_at, rfc3339(5300.0));
        let ended = alerts.done(&batch, Outcome::Delivered, 5000.0, 0.0);
        assert_eq!(
            ended.iter().map(|it| it.last).collect::<Vec<_>>(),
            [true, false]
        );
        assert_eq!(alerts.held.len(), 1);
    }

    #[test]
    fn an_end_that_cannot_be_told_is_given_up_and_what_is_open_is_not() {
        let mut alerts = Alerts::new(manner());
        alerts.take(&notice(1, Happened::Opened, 1));
        alerts.take(&closed(2, 2, 1100.0));
        let now = 1100.0 + 86_400.0;
        let batch = alerts.due(now, &facts()).unwrap();
        let ended = alerts.done(&batch, Outcome::Never("HTTP 404".to_owned()), now, 0.0);
        assert_eq!(
            (ended.len(), ended[0].end, ended[0].notice.number),
            (1, End::Expired, 2)
        );
        assert_eq!(alerts.queued(), 1);
        assert!(alerts.next_due().unwrap() > now);
    }

    #[test]
    fn what_changes_while_a_request_is_under_way_is_sent_after_it() {
        let mut alerts = Alerts::new(manner());
        alerts.take(&notice(1, Happened::Opened, 1));
        let batch = alerts.due(1000.0, &facts()).unwrap();
        alerts.take(&closed(2, 1, 1000.5));
        assert!(
            alerts
                .done(&batch, Outcome::Delivered, 1001.0, 0.0)
                .is_empty()
        );
        let (sent, ended) = deliver(&mut alerts, 1001.0);
        assert_eq!(sent, pairs(&[("0", 1000.5)]), "it resolves: it has fired");
        assert!(ended[0].last);
    }

    #[test]
    fn after_a_restart_it_goes_on() {
        let mut alerts = Alerts::new(manner());
        alerts.take(&notice(1, Happened::Opened, 1));
        alerts.take(&notice(2, Happened::Opened, 2));
        alerts.take(&notice(3, Happened::Opened, 3));
        alerts.restore_fired(1, 1);
        alerts.restore_fired(2, 0);
        assert_eq!(alerts.queued(), 2);
        assert_eq!(alerts.fired().collect::<Vec<_>>(), [(1, 1), (2, 0)]);
        let known = |number| match number {
            1 => Known::Open,
            2 => Known::Closed(Arc::clone(&closed(9, 2, 1234.0).incident)),
            _ => Known::Unknown,
        };
        assert!(alerts.reconcile(false, known).is_empty());
        let gone = alerts.reconcile(true, known);
        assert_eq!(
            (gone.len(), gone[0].notice.number, gone[0].last),
            (1, 3, true)
        );
        let (sent, _) = deliver(&mut alerts, 1250.0);
        assert_eq!(sent, pairs(&[("0", 1550.0), ("0", 1234.0)]));
    }

    #[test]
    fn it_is_told_of_a_bounded_number_of_incidents() {
        let mut alerts = Alerts::new(manner());
        for number in 0..MOST as u64 {
            assert_eq!(alerts.take(&notice(number, Happened::Opened, number)), None);
        }
        let refused = alerts
            .take(&notice(9_999, Happened::Opened, 9_999))
            .unwrap();
        assert_eq!(refused.end, End::Dropped);
        assert!(
            alerts.take(&closed(10_000, 5, 1.0)).is_some(),
            "ends are taken"
        );
    }
}
