//! Fills in an incident's record.

use std::sync::Arc;

use crate::book::Book;
use crate::cases::Case;
use crate::detector::Scene;
use crate::diagnosis::{self, Finding};
use crate::incident::{
    Incident, MOST_PARTS, MOST_POINTS, Peak, Reading, UpstreamPart, What, ZonePart,
};
use crate::kind::Kind;
use crate::measure::Measure;
use crate::picture::Glimpse;
use crate::point::Point;
use crate::quantity::{self, FLOORS, LATENCY, LOSS, NEW_SOURCES, QUERIES, SERVFAIL, SOURCES};
use crate::words::{self, Told};

/// Seconds before the beginning that plots show.
const BEFORE: f64 = 60.0;
/// Seconds between two fillings of what takes reading the samples.
const FILLED_EVERY: u32 = 5;
/// Seconds before which nothing is known about whether sources come back.
const COMES_BACK_IN: f64 = 3.0;
/// From so many spreads on a measure is evidence.
const TELLING: f32 = 4.0;

/// Opens an incident; returns its number.
pub(crate) fn open(case: &Case, scene: &Scene<'_>, book: &mut Book) -> u64 {
    let number = book.next.max(1);
    book.next = number.saturating_add(1);
    let mut incident = Incident::new(number, case.kind, case.began, scene.now);
    incident.confidence = case.finding.confidence;
    incident.sources.usual = scene.whole_usual(SOURCES);
    name(case, &mut incident);
    for point in scene.points {
        if point.at >= case.began - BEFORE && point.at < scene.point.at {
            account(&mut incident, point, point.at >= case.began);
        }
    }
    fill(case, scene, &mut incident);
    incident.tell(
        case.began,
        What::Began,
        format!(
            "It began: {} queries a second, usually {}.",
            words::number(incident.peak.queries.max(scene.point.queries)),
            words::number(scene.whole_usual(QUERIES))
        ),
    );
    incident.tell(scene.now, What::Opened, incident.sentence.clone());
    book.open.push(incident);
    number
}

/// Brings an incident up to date. Whether something is worth telling.
pub(crate) fn update(case: &mut Case, scene: &Scene<'_>, incident: &mut Incident) -> bool {
    account(incident, &scene.point, true);
    evidence(case, scene, incident);
    let mut worth = false;
    let was = (incident.kind, incident.of);
    name(case, incident);
    let renamed = was != (incident.kind, incident.of);
    let zones = incident.zones.len().saturating_add(incident.more_zones);
    if renamed || case.stale == 0 {
        fill(case, scene, incident);
    }
    case.stale = case.stale.saturating_add(1) % FILLED_EVERY;
    if renamed {
        incident.tell(scene.now, What::Renamed, incident.sentence.clone());
        worth = true;
    }
    let more = incident.zones.len().saturating_add(incident.more_zones);
    if more > zones && incident.opened < scene.now {
        let text = format!("It has spread: it is{} now.", words::on_zones(&case.zones));
        incident.tell(scene.now, What::Spread, text);
        worth |= more >= zones.saturating_mul(2);
    }
    if case.told_peak == 0.0 {
        case.told_peak = case.peak;
    } else if case.peak >= 2.0 * case.told_peak && scene.now - incident.opened >= 5.0 {
        case.told_peak = case.peak;
        let text = format!(
            "It has grown: {} a second more than usual.",
            words::number(case.peak)
        );
        incident.tell(scene.now, What::Grew, text);
        worth = true;
    }
    worth
}

/// Ends an incident.
pub(crate) fn close(case: &Case, scene: &Scene<'_>, incident: &mut Incident) {
    incident.closed = Some(scene.now);
    let lasted = (case.last_on - incident.began).max(0.0);
    let height = match case.kind {
        Kind::UpstreamFailure => String::new(),
        _ => format!(
            ", with {} queries a second at its peak",
            words::number(incident.peak.queries)
        ),
    };
    let text = format!(
        "It is over: nothing of it was seen for {:.0} s. It lasted for {lasted:.0} s{height}.",
        scene.now - case.last_on
    );
    incident.tell(scene.now, What::Closed, text);
}

fn name(case: &Case, incident: &mut Incident) {
    if case.pulsing {
        incident.kind = Kind::Pulse;
        incident.of = Some(case.kind);
    } else {
        incident.kind = case.kind;
        incident.of = None;
    }
    incident.confidence = incident.confidence.max(case.finding.confidence);
}

/// Adds a second to the sums and the plot. `within`: it is part of the incident.
fn account(incident: &mut Incident, point: &Point, within: bool) {
    incident.points.push(*point);
    if incident.points.len() > MOST_POINTS {
        let joined = incident.points.chunks(2).map(|pair| match pair {
            [a, b] => a.joined(b),
            rest => rest.first().copied().unwrap_or_default(),
        });
        incident.points = joined.collect();
    }
    if !within {
        return;
    }
    if point.queries > incident.peak.queries {
        incident.peak = Peak {
            queries: point.queries,
            at: point.at,
        };
    }
    let seconds = f64::from(point.seconds);
    let of = |rate: f32| f64::from(rate) * seconds;
    let impact = &mut incident.impact;
    impact.asked += of(point.known);
    impact.lost += of(point.known_lost);
    impact.challenged += of((point.known - point.known_served - point.known_lost).max(0.0));
    // a query is lost when it is given up, seconds after it was asked: what was served is the rest of the whole, and the
    // first of those that are lost may have been asked before it began
    let unserved = impact.challenged + impact.lost;
    impact.served = (impact.asked - unserved).max(0.0);
    impact.asked = impact.served + unserved;
    impact.shed += of(point.dropped + point.answered);
    if point.known_lost > 0.01 * point.known.max(1.0) {
        impact.seconds_impaired += seconds;
    }
}

fn evidence(case: &Case, scene: &Scene<'_>, incident: &mut Incident) {
    let zones = case.zones.iter().take(3).map(Some);
    for zone in std::iter::once(None).chain(zones) {
        for measure in Measure::ALL {
            let quantity = quantity::of_measure(measure);
            if zone.is_some() && quantity >= quantity::OF_ZONE {
                continue;
            }
            let (now, usual, spread) = match zone {
                None => (
                    scene.whole_mean(quantity, 1),
                    scene.whole_usual(quantity),
                    scene.whole_spread(quantity),
                ),
                Some(zone) => (
                    scene.zone_mean(zone, quantity, 1),
                    scene.zone_usual(zone, quantity),
                    scene.zone_spread(zone, quantity),
                ),
            };
            let floor = FLOORS.get(quantity).copied().unwrap_or(1.0);
            let spreads = (now - usual).abs() / spread.max(0.1 * floor).max(0.02 * usual);
            let name = zone.map(|zone| zone.to_string());
            let room = incident.evidence.len() < MOST_PARTS;
            let known = incident
                .evidence
                .iter_mut()
                .find(|it| it.measure == measure && it.zone == name);
            match known {
                Some(reading) => {
                    reading.now = now;
                    if (now - usual).abs() > (reading.peak - reading.usual).abs() {
                        reading.peak = now;
                        reading.usual = usual;
                    }
                    reading.spreads = reading.spreads.max(spreads);
                }
                None if spreads >= TELLING && (now - usual).abs() >= floor && room => {
                    incident.evidence.push(Reading {
                        measure,
                        zone: name,
                        now,
                        usual,
                        peak: now,
                        spreads,
                    });
                }
                None => {}
            }
        }
    }
}

/// What takes reading the samples: zones, names, types, sources, the sentence.
fn fill(case: &Case, scene: &Scene<'_>, incident: &mut Incident) {
    evidence(case, scene, incident);
    let kind = case.kind;
    let picture = scene.picture;
    let fits =
        |zone: &str, glimpse: &Glimpse| diagnosis::fits(kind, scene, &case.zones, zone, glimpse);
    fill_zones(case, scene, incident);
    // what is over for now keeps what was said of it
    let active = case.last_hit >= scene.now || incident.timeline.is_empty();
    // who asks, and for what, has nothing to do with servers that fail
    let about_queries = kind != Kind::UpstreamFailure;
    let early = scene.now - case.began < COMES_BACK_IN;
    let (spoofed, why) = words::forged(kind, &case.finding, early);
    if active && about_queries {
        incident.names = picture.names(MOST_PARTS, kind == Kind::RandomSubdomains, fits);
        incident.qtypes = picture.qtypes(fits);
        let top = if kind == Kind::MalformedFlood {
            picture.malformed_sources(MOST_PARTS)
        } else {
            picture.sources(MOST_PARTS, fits)
        };
        let distinct = scene.whole_mean(SOURCES, 1);
        let sources = &mut incident.sources;
        sources.distinct = sources.distinct.max(distinct);
        let more = scene.whole_mean(QUERIES, 4).max(1.0);
        let new = scene.whole_mean(NEW_SOURCES, 4) / more;
        sources.never_seen = if kind == Kind::MalformedFlood {
            new
        } else {
            case.finding.traits.strangers
        };
        sources.spoofed = spoofed;
        sources.why = why;
        if !top.is_empty() {
            sources.top = top;
        }
    }
    let (rate, usual) = rates(case, scene);
    // the rest of the sentence tells of its height as well
    let highest = if case.zones.is_empty() {
        incident.peak.queries
    } else {
        incident.zones.iter().map(|part| part.rate).sum()
    };
    let rate = rate.max(highest);
    if active && !about_queries {
        fill_upstreams(scene, incident);
    }
    let trouble = [SERVFAIL, LOSS, LATENCY]
        .map(|quantity| (scene.whole_mean(quantity, 3), scene.whole_usual(quantity)));
    if active {
        incident.sentence = words::sentence(&Told {
            kind,
            pulsing: case.pulsing,
            finding: &strongest(case),
            zones: &case.zones,
            rate,
            usual,
            sources: &incident.sources,
            trouble,
            upstreams: (&incident.upstreams, incident.more_upstreams),
        });
    }
}

/// Which servers fail. Who did once is told of until it is over, since it may be out of use by then.
fn fill_upstreams(scene: &Scene<'_>, incident: &mut Incident) {
    let mut more = 0_usize;
    for part in scene.servers.failing() {
        let same = |it: &&mut UpstreamPart| (&it.pool, it.address) == (&part.pool, part.address);
        let has_room = incident.upstreams.len() < MOST_PARTS;
        match incident.upstreams.iter_mut().find(same) {
            Some(known) if known.fault == part.fault => known.value = known.value.max(part.value),
            Some(known) if (part.fault as u8) < known.fault as u8 => *known = part,
            Some(_) => {}
            None if has_room => incident.upstreams.push(part),
            None => more = more.saturating_add(1),
        }
    }
    incident.more_upstreams = incident.more_upstreams.max(more);
}

/// The finding, at its height.
fn strongest(case: &Case) -> Finding {
    Finding {
        excess: case.finding.excess.max(case.peak),
        ..case.finding.clone()
    }
}

fn rates(case: &Case, scene: &Scene<'_>) -> (f32, f32) {
    if case.zones.is_empty() {
        return (scene.whole_mean(QUERIES, 1), scene.whole_usual(QUERIES));
    }
    let sum = |of: &dyn Fn(&Arc<str>) -> f32| case.zones.iter().map(of).sum::<f32>();
    (
        sum(&|zone| scene.zone_mean(zone, QUERIES, 1)),
        sum(&|zone| scene.zone_usual(zone, QUERIES)),
    )
}

fn fill_zones(case: &Case, scene: &Scene<'_>, incident: &mut Incident) {
    let quantity = case.finding.quantity;
    let mut parts: Vec<(ZonePart, f32)> = case
        .zones
        .iter()
        .map(|zone| {
            let before = incident.zones.iter().find(|part| *part.zone == **zone);
            let rate = scene.zone_mean(zone, QUERIES, 1);
            let more = if quantity < quantity::OF_ZONE {
                scene.zone_mean(zone, quantity, 4) - scene.zone_usual(zone, quantity)
            } else {
                rate
            };
            let part = ZonePart {
                zone: zone.to_string(),
                rate: before.map_or(rate, |before| before.rate.max(rate)),
                usual: scene.zone_usual(zone, QUERIES),
                share: before.map_or(0.0, |before| before.share),
            };
            (part, more.max(0.0))
        })
        .collect();
    let all: f32 = parts.iter().map(|(_, more)| more).sum();
    if all > 0.0 {
        for (part, more) in &mut parts {
            part.share = *more / all;
        }
    }
    parts.sort_by(|a, b| b.0.share.total_cmp(&a.0.share));
    incident.more_zones = parts.len().saturating_sub(MOST_PARTS);
    incident.zones = parts
        .into_iter()
        .take(MOST_PARTS)
        .map(|(part, _)| part)
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::Impact;

    #[test]
    fn what_became_of_queries_adds_up_to_what_was_asked() {
        let mut incident = Incident::new(1, Kind::UpstreamFailure, 0.0, 3.0);
        // the first hundred that are lost were asked before it began
        for (second, lost) in [100.0, 100.0, 200.0, 100.0, 0.0, 50.0]
            .into_iter()
            .enumerate()
        {
            let point = Point {
                at: second as f64,
                seconds: 1.0,
                known: 100.0,
                known_served: (100.0_f32 - lost).max(0.0),
                known_lost: lost,
                ..Point::default()
            };
            account(&mut incident, &point, true);
            let Impact {
                asked,
                served,
                challenged,
                lost,
                ..
            } = incident.impact;
            assert!(served >= 0.0 && (served + challenged + lost - asked).abs() < 1e-6);
        }
        let impact = incident.impact;
        assert_eq!(
            (impact.asked, impact.served, impact.lost),
            (700.0, 150.0, 550.0)
        );
    }
}
