//! Incidents made by hand, for tests.

use std::sync::Arc;

use dnscrub_detection::incident::{NamePart, ZonePart};
use dnscrub_detection::{Happened, Incident, Kind};

use super::notice::Notice;

/// A random-subdomain flood on example.com that was opened at 1000 and is going on.
pub(crate) fn incident(number: u64) -> Incident {
    Incident {
        confidence: 0.9,
        sentence: "Random names below example.com.".to_owned(),
        zones: vec![ZonePart {
            zone: "example.com".to_owned(),
            rate: 12_000.0,
            usual: 30.0,
            share: 1.0,
        }],
        names: vec![NamePart {
            name: "*.example.com".to_owned(),
            share: 1.0,
        }],
        ..Incident::new(number, Kind::RandomSubdomains, 995.0, 1000.0)
    }
}

/// A notice of an event of such an incident, made at 0.
pub(crate) fn notice(number: u64, event: Happened, of: u64) -> Arc<Notice> {
    let incident = incident(of);
    Arc::new(Notice::new(
        number,
        format!("n{number}"),
        event,
        0.0,
        &incident,
    ))
}
