//! Zones made of short texts.
#![allow(dead_code, reason = "each test file uses its part")]

use std::time::{Duration, Instant};

use ahash::RandomState;
use dnscrub_wire::{Name, qtype};
use dnscrub_zones::{Changes, Limits, Presence, Record, Zone};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn name(text: &str) -> Name {
    Name::from_text(text).unwrap()
}

/// Data of a SOA record: refresh 3600, retry 600, expire 86400, minimum 300.
pub(crate) fn soa_data(serial: u32) -> Vec<u8> {
    let mut data = b"\x02ns\0\x01h\0".to_vec();
    for number in [serial, 3600, 600, 86_400, 300] {
        data.extend_from_slice(&u32::to_be_bytes(number));
    }
    data
}

pub(crate) fn record<'a>(owner: &Name, rtype: u16, data: &'a [u8]) -> Record<'a> {
    Record {
        owner: *owner,
        rtype,
        ttl: 3600,
        data,
    }
}

pub(crate) fn empty_zone(apex: &str, now: Instant) -> Zone {
    let hasher = RandomState::with_seeds(1, 2, 3, 4);
    Zone::new(name(apex), Limits::default(), hasher, now)
}

/// "owner TYPE" pairs.
pub(crate) fn pairs(records: &[&str]) -> Vec<(Name, u16)> {
    records
        .iter()
        .map(|text| {
            let (owner, rtype) = text.split_once(' ').unwrap();
            let rtype = dnscrub_wire::records::type_from_text(rtype).unwrap();
            (name(owner), rtype)
        })
        .collect()
}

/// A zone of serial 1 with a SOA record and those.
pub(crate) fn zone(apex: &str, records: &[(Name, u16)], now: Instant) -> Zone {
    let zone = empty_zone(apex, now);
    let mut builder = zone.builder();
    builder
        .add(&record(&name(apex), qtype::SOA, &soa_data(1)))
        .unwrap();
    for (owner, rtype) in records {
        builder.add(&record(owner, *rtype, b"")).unwrap();
    }
    zone.load(builder.finish().unwrap(), HOUR, now);
    zone
}

/// Changes from one serial to another.
pub(crate) fn changes(
    zone: &Zone,
    out: &[(Name, u16)],
    new: &[(Name, u16)],
    serial: u32,
) -> Changes {
    let mut changes = Changes::new(1 << 20);
    changes
        .remove(&record(zone.name(), qtype::SOA, &soa_data(serial - 1)))
        .unwrap();
    for (owner, rtype) in out {
        changes.remove(&record(owner, *rtype, b"")).unwrap();
    }
    changes
        .add(&record(zone.name(), qtype::SOA, &soa_data(serial)))
        .unwrap();
    for (owner, rtype) in new {
        changes.add(&record(owner, *rtype, b"")).unwrap();
    }
    changes
}

pub(crate) fn presence(zone: &Zone, qname: &str, now: Instant) -> Presence {
    zone.look_up(&name(qname), now).presence
}
