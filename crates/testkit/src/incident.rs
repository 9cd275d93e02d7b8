//! A made-up incident: half an hour's traffic with a flood of random names in it.

use dnscrub_detection::incident::{
    Impact, NamePart, Peak, QtypePart, Reading, SourcePart, Sources, Spoofed, What, ZonePart,
};
use dnscrub_detection::{Incident, Kind, Measure, Overview, Point, ZoneOverview};

/// Seconds before an incident that its plots show.
const BEFORE: u32 = 60;
/// Seconds after it began in which clients are hurt.
const HURT: u32 = 9;

/// A name that would do harm where it is taken for markup or sent to a terminal.
pub const HOSTILE: &str = "<script>alert(1)</script>\u{1b}[31m|`*_[x](y)\u{202e}.example.com";

/// Second `second` of a calm time with a flood from second `from` to second `to`, the rates those of a small
/// operator; clients are hurt in the flood's first seconds.
#[must_use]
pub fn point(at: f64, second: u32, from: u32, to: u32) -> Point {
    // some unevenness, the same each time
    let along = f64::from(second);
    let wave =
        1.0 + 0.5 * (along / 17.0).sin() + 0.3 * (along / 5.3).sin() + 0.2 * (along * 1.7).sin();
    let calm = (900.0 + 90.0 * wave) as f32;
    let flood = (from..to).contains(&second);
    let hurt = flood && second - from < HURT;
    let attack = if flood {
        (14_000.0 + 1_500.0 * wave) as f32
    } else {
        0.0
    };
    let lost = if hurt { calm * 0.3 } else { 0.0 };
    let expired = if hurt { attack * 0.2 } else { 0.0 };
    Point {
        at,
        seconds: 1.0,
        queries: calm + attack,
        forwarded: calm * 0.96 - lost + attack * 0.02,
        answered: attack * 0.6 + calm * 0.03,
        dropped: attack * 0.38 - expired + calm * 0.01,
        expired: expired + lost,
        nxdomain: attack * 0.6 + calm * 0.05,
        servfail: if hurt { 40.0 } else { 0.0 },
        malformed: 1.0,
        tcp: 12.0,
        octets_in: (calm + attack) * 42.0,
        octets_out: calm * 130.0 + attack * 60.0,
        sources: 210.0 + attack / 20.0,
        new_sources: 2.0 + attack / 25.0,
        new_names: 6.0 + attack * 0.98,
        known: calm,
        known_served: calm * 0.97 - lost,
        known_lost: lost,
        latency: if hurt { 0.31 } else { 0.0021 },
        pressure: if hurt {
            1.0
        } else if flood {
            0.21
        } else {
            0.0
        },
    }
}

/// Ten minutes until `end`, with a flood that began four minutes ago and goes on.
#[must_use]
pub fn ten_minutes(end: f64) -> Vec<Point> {
    (0..600)
        .map(|second| point(end - 600.0 + f64::from(second), second, 360, 600))
        .collect()
}

/// What the last seconds before `at` look like, with the hostile name on top.
#[must_use]
pub fn overview(at: f64) -> Overview {
    let zone =
        |zone: &str, queries, usual, shed, nxdomain_share, sources, new_names| ZoneOverview {
            zone: zone.to_owned(),
            queries,
            usual,
            shed,
            nxdomain_share,
            sources,
            new_names,
        };
    Overview {
        at,
        seconds: 10.0,
        zones: vec![
            zone(
                "example.com",
                15_204.0,
                380.0,
                14_790.0,
                0.93,
                1_130.0,
                14_870.0,
            ),
            zone("example.net", 310.0, 320.0, 0.0, 0.04, 96.0, 2.0),
            zone("example.org", 188.0, 180.0, 0.0, 0.06, 71.0, 1.2),
            zone(".", 4.2, 3.9, 4.2, 0.0, 3.0, 0.2),
        ],
        names: [
            ("*.example.com", 0.93),
            (HOSTILE, 0.02),
            ("www.example.net", 0.011),
            ("mail.example.org", 0.004),
        ]
        .map(|(name, share)| NamePart {
            name: name.to_owned(),
            share,
        })
        .into(),
        sources: sources(),
        qtypes: [("A", 0.81), ("AAAA", 0.17), ("HTTPS", 0.02)]
            .map(qtype)
            .into(),
    }
}

fn qtype((qtype, share): (&str, f32)) -> QtypePart {
    QtypePart {
        qtype: qtype.to_owned(),
        share,
    }
}

fn sources() -> Vec<SourcePart> {
    [
        ("198.51.100.7/32", 412.0, 0.026, true, true),
        ("203.0.113.0/24", 307.5, 0.019, true, false),
        ("2001:db8:77:3::53/128", 96.4, 0.006, false, false),
    ]
    .map(|(prefix, rate, share, known, verified)| SourcePart {
        prefix: prefix.parse().expect("a prefix"),
        rate,
        share,
        known,
        verified,
    })
    .into()
}

fn reading(measure: Measure, zone: Option<&str>, usual: f32, peak: f32, spreads: f32) -> Reading {
    Reading {
        measure,
        zone: zone.map(str::to_owned),
        now: peak * 0.9,
        usual,
        peak,
        spreads,
    }
}

/// An incident that began then and took that many seconds: a flood of random names, noticed after four seconds and
/// harmless after nine. Without an end it has been going on for four minutes.
#[must_use]
pub fn flood(number: u64, began: f64, took: Option<u32>) -> Incident {
    let seconds = took.unwrap_or(240);
    let points: Vec<Point> = (0..BEFORE + seconds)
        .map(|second| {
            let at = began - f64::from(BEFORE) + f64::from(second);
            point(at, second, BEFORE, BEFORE + seconds)
        })
        .collect();
    let meanwhile = || points.iter().skip(BEFORE as usize);
    let sum = |of: fn(&Point) -> f32| meanwhile().map(|point| f64::from(of(point))).sum::<f64>();
    let peak = meanwhile()
        .max_by(|one, other| one.queries.total_cmp(&other.queries))
        .map_or_else(Peak::default, |point| Peak {
            queries: point.queries,
            at: point.at,
        });
    let impact = Impact {
        asked: sum(|point| point.known),
        served: sum(|point| point.known_served),
        challenged: sum(|point| point.known - point.known_served - point.known_lost),
        lost: sum(|point| point.known_lost),
        seconds_impaired: f64::from(HURT),
        shed: sum(|point| point.answered + point.dropped),
    };
    let mut incident = Incident {
        confidence: 0.94,
        sentence: "Names that do not exist are asked for below example.com, 15,200 a second where 380 are usual. \
                   They come from about 980 addresses, which look genuine: resolvers that pass them on."
            .to_owned(),
        zones: vec![ZonePart {
            zone: "example.com".to_owned(),
            rate: 15_204.0,
            usual: 380.0,
            share: 0.98,
        }],
        names: [("*.example.com", 0.96), (HOSTILE, 0.02)]
            .map(|(name, share)| NamePart {
                name: name.to_owned(),
                share,
            })
            .into(),
        qtypes: [("A", 0.83), ("AAAA", 0.17)].map(qtype).into(),
        sources: Sources {
            distinct: 980.0,
            usual: 210.0,
            never_seen: 0.62,
            spoofed: Spoofed::Unlikely,
            why: "Their hop counts are the usual ones, and those that are told to come back over TCP do."
                .to_owned(),
            top: sources(),
        },
        evidence: vec![
            reading(Measure::Queries, Some("example.com"), 380.0, 15_204.0, 212.0),
            reading(Measure::NewNames, Some("example.com"), 6.0, 14_870.0, 640.0),
            reading(Measure::NxdomainShare, None, 0.05, 0.61, 38.0),
            reading(Measure::Latency, None, 0.002, 0.31, 96.0),
        ],
        peak,
        impact,
        points,
        ..Incident::new(number, Kind::RandomSubdomains, began, began + 4.0)
    };
    let mut tell = |after: f64, what, text: &str| incident.tell(began + after, what, text);
    tell(
        0.0,
        What::Began,
        "New names below example.com, far more than usual.",
    );
    tell(
        4.0,
        What::Opened,
        "Named: random-subdomain flood on example.com.",
    );
    tell(5.0, What::Level, "example.com: calm to attack.");
    incident.act(
        began + 5.0,
        "dnscrub",
        "Raised the defence level of example.com to attack.",
        true,
    );
    incident.act(
        began + 7.0,
        "dnscrub",
        "Answers unknown names below example.com NXDOMAIN from its zone.",
        true,
    );
    incident.tell(
        began + 8.0,
        What::Told,
        "alertmanager main was told that the incident was opened",
    );
    incident.tell(
        began + 12.0,
        What::Untold,
        "webhook ops could not be told that the incident was opened: connection refused",
    );
    incident.act(
        began + 60.0,
        "anna",
        format!("Blocked 203.0.113.0/24 for 1 h: {HOSTILE}"),
        true,
    );
    if let Some(took) = took {
        let end = began + f64::from(took);
        incident.undo(
            1,
            end + 20.0,
            "Lowered the defence level of example.com to calm.",
        );
        incident.undo(
            2,
            end + 20.0,
            "Stopped answering unknown names below example.com.",
        );
        incident.closed = Some(end + 22.0);
        incident.tell(
            end + 22.0,
            What::Closed,
            "Over: 20 s without anything unusual.",
        );
    }
    incident
}

/// A flash crowd, long over.
#[must_use]
pub fn crowd(number: u64, began: f64) -> Incident {
    Incident {
        confidence: 0.71,
        sentence: "Many people ask for www.example.net at once, 2,100 a second where 320 are usual; their \
                   sources are known and their names exist. This is not an attack."
            .to_owned(),
        closed: Some(began + 1_325.0),
        zones: vec![ZonePart {
            zone: "example.net".to_owned(),
            rate: 2_100.0,
            usual: 320.0,
            share: 0.97,
        }],
        peak: Peak {
            queries: 3_040.0,
            at: began + 400.0,
        },
        impact: Impact {
            asked: 2_950_000.0,
            served: 2_949_700.0,
            challenged: 0.0,
            lost: 300.0,
            seconds_impaired: 0.0,
            shed: 0.0,
        },
        qtypes: [("A", 0.83), ("AAAA", 0.17)].map(qtype).into(),
        ..Incident::new(number, Kind::FlashCrowd, began, began + 8.0)
    }
}
