//! What is known of names, against the RFCs' examples and a plain model.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests may ask for the time")]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ahash::RandomState;
use common::{HOUR, changes, empty_zone, name, pairs, presence, record, soa_data, zone};
use dnscrub_wire::{Name, qtype};
use dnscrub_zones::Presence::{
    Delegated, Dname, EmptyNonTerminal, Exists, Missing, Unknown, Wildcard,
};
use dnscrub_zones::{
    Authority, Certainty, Condition, Inconsistent, Limits, LoadError, NoAnswer, Presence, Zone,
    Zones,
};
use proptest::prelude::*;

/// The zone of RFC 4592 section 2.2.1.
const RFC_4592: &[&str] = &[
    "example NS",
    "*.example TXT",
    "*.example MX",
    "sub.*.example TXT",
    "host1.example A",
    "_ssh._tcp.host1.example SRV",
    "_ssh._tcp.host2.example SRV",
    "subdel.example NS",
    "ns.subdel.example A",
];

#[test]
fn names_of_rfc_4592() {
    let now = Instant::now();
    let zone = zone("example", &pairs(RFC_4592), now);
    for (qname, expected) in [
        ("example", Exists),
        ("host1.example", Exists),
        ("HOST1.Example", Exists),
        ("*.example", Exists),
        ("sub.*.example", Exists),
        ("_tcp.host1.example", EmptyNonTerminal),
        ("host2.example", EmptyNonTerminal),
        ("_tcp.host2.example", EmptyNonTerminal),
        ("_ssh._tcp.host2.example", Exists),
        // section 2.2.1, answers made from a wildcard
        ("host3.example", Wildcard),
        ("foo.bar.example", Wildcard),
        // and those that are not
        ("_telnet._tcp.host1.example", Missing),
        ("ghost.*.example", Missing),
        ("sub.sub.*.example", Missing),
        ("subdel.example", Delegated),
        ("host.subdel.example", Delegated),
        ("ns.subdel.example", Delegated),
        ("com", Unknown),
        ("anexample", Unknown),
        (".", Unknown),
    ] {
        assert_eq!(presence(&zone, qname, now), expected, "{qname}");
    }
}

#[test]
fn a_wildcard_that_is_an_empty_non_terminal_still_answers() {
    let now = Instant::now();
    let zone = zone("example", &pairs(&["a.*.b.example A"]), now);
    assert_eq!(presence(&zone, "x.b.example", now), Wildcard);
    assert_eq!(presence(&zone, "x.example", now), Missing);
}

#[test]
fn a_dname_answers_for_what_is_below_it() {
    let now = Instant::now();
    let records = pairs(&[
        "moved.example DNAME",
        "moved.example A",
        "below.moved.example A",
    ]);
    let inner = zone("example", &records, now);
    assert_eq!(presence(&inner, "moved.example", now), Exists);
    assert_eq!(presence(&inner, "a.b.moved.example", now), Dname);
    assert_eq!(presence(&inner, "below.moved.example", now), Dname);
    let whole = zone("example", &pairs(&["example DNAME"]), now);
    assert_eq!(presence(&whole, "example", now), Exists);
    assert_eq!(presence(&whole, "any.example", now), Dname);
}

#[test]
fn the_root_is_a_zone_like_others() {
    let now = Instant::now();
    let zone = zone(".", &pairs(&[". NS", "com NS", "a.b.arpa A"]), now);
    assert_eq!(presence(&zone, ".", now), Exists);
    assert_eq!(presence(&zone, "www.example.com", now), Delegated);
    assert_eq!(presence(&zone, "arpa", now), EmptyNonTerminal);
    assert_eq!(presence(&zone, "invalid", now), Missing);
}

#[test]
fn owners_of_hashed_denial_are_no_names() {
    let now = Instant::now();
    let zone = empty_zone("example", now);
    let mut builder = zone.builder();
    let apex = name("example");
    let hashed = name("0p9mhaveqvm6t7vbl5lop2u3t2rp3tom.example");
    builder
        .add(&record(&apex, qtype::SOA, &soa_data(1)))
        .unwrap();
    builder.add(&record(&hashed, qtype::NSEC3, b"")).unwrap();
    let signature = record(&hashed, qtype::RRSIG, &[0, 50]);
    builder.add(&signature).unwrap();
    // outside the zone: glue of another one
    builder
        .add(&record(&name("ns.other"), qtype::A, b""))
        .unwrap();
    zone.load(builder.finish().unwrap(), HOUR, now);
    assert_eq!(zone.look_up(&hashed, now).presence, Missing);
    assert_eq!(zone.size().unwrap().names, 0);
}

#[test]
fn changes_remove_names_and_empty_non_terminals() {
    let now = Instant::now();
    let before = ["a.b.c.example A", "a.b.c.example TXT", "d.c.example A"];
    let zone = zone("example", &pairs(&before), now);
    let apply = |out: &[&str], new: &[&str], serial| {
        let changes = changes(&zone, &pairs(out), &pairs(new), serial);
        zone.apply(&changes, HOUR, now)
    };
    apply(&["a.b.c.example TXT"], &[], 2).unwrap();
    assert_eq!(presence(&zone, "a.b.c.example", now), Exists);
    apply(&["a.b.c.example A"], &["new.example NS"], 3).unwrap();
    assert_eq!(presence(&zone, "a.b.c.example", now), Missing);
    assert_eq!(presence(&zone, "b.c.example", now), Missing);
    assert_eq!(presence(&zone, "c.example", now), EmptyNonTerminal);
    assert_eq!(presence(&zone, "x.new.example", now), Delegated);
    // replaced: it is never gone
    apply(&["d.c.example A"], &["d.c.example A"], 4).unwrap();
    assert_eq!(presence(&zone, "d.c.example", now), Exists);
    apply(&["new.example NS", "d.c.example A"], &[], 5).unwrap();
    assert_eq!(presence(&zone, "c.example", now), Missing);
    assert_eq!(presence(&zone, "x.new.example", now), Missing);
    assert_eq!(zone.condition(now), Condition::Fresh { serial: 5 });
    assert_eq!(zone.size().unwrap().names, 0);

    assert_eq!(apply(&["never.example A"], &[], 6), Err(Inconsistent));
    assert_eq!(presence(&zone, "c.example", now), Unknown, "milder");
    assert_eq!(zone.condition(now), Condition::NotLoaded { why: None });
}

#[test]
fn a_name_with_too_many_records_to_count_stays() {
    let now = Instant::now();
    let many = vec![(name("many.example"), qtype::A); 100];
    let zone = zone("example", &many, now);
    zone.apply(&changes(&zone, &many, &[], 2), HOUR, now)
        .unwrap();
    assert_eq!(presence(&zone, "many.example", now), Exists);
}

#[test]
fn knowledge_ages() {
    let now = Instant::now();
    let zone = zone("example", &pairs(&["www.example A"]), now);
    let missing = name("missing.example");
    let after = |seconds| now + Duration::from_secs(seconds);
    assert!(zone.look_up(&missing, after(3599)).is_surely_missing());
    let stale = zone.look_up(&missing, after(3600));
    assert_eq!(stale.presence, Missing);
    assert_eq!(stale.certainty, Certainty::Stale);
    assert!(!stale.is_surely_missing());
    zone.refresh_failed("connection refused");
    assert_eq!(
        zone.condition(after(4000)),
        Condition::Stale {
            serial: 1,
            since: after(3600),
            why: Some("connection refused".into())
        }
    );
    assert_eq!(zone.look_up(&missing, after(86_399)).presence, Missing);
    for qname in ["missing.example", "www.example"] {
        assert_eq!(presence(&zone, qname, after(86_400)), Unknown);
    }
    assert!(matches!(
        zone.condition(after(90_000)),
        Condition::Expired { serial: 1, since, .. } if since == after(86_400)
    ));
    let mut room = [0; 512];
    let expired = zone.negative_answer(&missing, false, after(86_400), &mut room);
    assert_eq!(expired, Err(NoAnswer::NotMissing));

    zone.confirm(HOUR, after(90_000));
    assert_eq!(
        zone.condition(after(90_000)),
        Condition::Fresh { serial: 1 }
    );
    assert!(zone.look_up(&missing, after(90_000)).is_surely_missing());
    zone.doubt("the file is wrong", after(90_001));
    assert_eq!(zone.condition(after(90_001)).word(), "stale");
    assert_eq!(zone.look_up(&missing, after(90_001)).presence, Missing);
}

#[test]
fn a_zone_that_is_not_loaded_knows_nothing() {
    let now = Instant::now();
    let zone = empty_zone("example", now);
    assert_eq!(presence(&zone, "example", now), Unknown);
    assert_eq!(presence(&zone, "a.example", now + HOUR), Unknown);
    zone.confirm(HOUR, now);
    assert_eq!(presence(&zone, "a.example", now), Unknown);
    zone.refresh_failed("no answer");
    assert_eq!(
        zone.condition(now),
        Condition::NotLoaded {
            why: Some("no answer".into())
        }
    );
    assert!(zone.size().is_none() && zone.soa().is_none() && !zone.signed());
    assert_eq!(zone.builder().finish().unwrap_err(), LoadError::NoSoa);
}

#[test]
fn a_zone_with_too_many_names_is_not_loaded() {
    let now = Instant::now();
    let limits = Limits {
        names: 3,
        ..Limits::default()
    };
    let zone = Zone::new(name("example"), limits, RandomState::new(), now);
    let mut builder = zone.builder();
    for owner in ["a.example", "b.c.example"] {
        builder.add(&record(&name(owner), qtype::A, b"")).unwrap();
    }
    assert_eq!(
        builder.add(&record(&name("d.example"), qtype::A, b"")),
        Err(LoadError::TooManyNames(3))
    );
}

#[test]
fn the_soa_record_denies_with_its_negative_ttl() {
    let now = Instant::now();
    let zone = zone("example", &pairs(&["www.example A"]), now);
    let mut room = [0; 512];
    let missing = name("missing.example");
    for dnssec_ok in [false, true] {
        let authority = zone.negative_answer(&missing, dnssec_ok, now, &mut room);
        let len = 9 + 10 + soa_data(1).len();
        assert_eq!(
            authority,
            Ok(Authority {
                octets: len,
                records: 1
            })
        );
        assert_eq!(room[..9], *b"\x07example\0");
        assert_eq!(room[9..13], [0, 6, 0, 1]);
        assert_eq!(room[13..17], 300_u32.to_be_bytes(), "of 3600 and 300");
        assert_eq!(room[19..len], soa_data(1));
    }
    let small = zone.negative_answer(&missing, false, now, &mut room[..20]);
    assert_eq!(small, Err(NoAnswer::NoRoom));
    for qname in ["www.example", "example", "other"] {
        let answer = zone.negative_answer(&name(qname), false, now, &mut room);
        assert_eq!(answer, Err(NoAnswer::NotMissing), "{qname}");
    }
}

#[test]
fn the_longest_zone_counts() {
    let now = Instant::now();
    let zones = ["example", "sub.example", "b.a.other", "example"]
        .map(|apex| Arc::new(empty_zone(apex, now)));
    let zones = Zones::new(zones.to_vec(), RandomState::new());
    let found = |qname| zones.find(&name(qname)).map(|(place, _)| place);
    assert_eq!(found("example"), Some(0));
    assert_eq!(found("www.Example"), Some(0));
    assert_eq!(found("sub.example"), Some(1));
    assert_eq!(found("x.y.sub.example"), Some(1));
    assert_eq!(found("x.b.a.other"), Some(2));
    assert_eq!(found("a.other"), None);
    assert_eq!(found("."), None);
    assert!(zones.get(&name("sub.example")).is_some());
    assert!(zones.get(&name("www.sub.example")).is_none());
    assert!(Zones::default().find(&name("example")).is_none());
    let root = Zones::new(vec![Arc::new(empty_zone(".", now))], RandomState::new());
    assert_eq!(root.find(&name("a.b")).unwrap().0, 0);
    assert_eq!(root.find(&Name::ROOT).unwrap().0, 0);
}

/// While changes replace a name's records and the table grows, readers never find it missing.
#[test]
fn a_name_that_stays_is_never_missing() {
    let now = Instant::now();
    let stays = pairs(&["stays.deep.example A"]);
    let zone = Arc::new(zone("example", &stays, now));
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looked = 0_u32;
            while !done.load(Relaxed) || looked == 0 {
                assert_eq!(presence(&zone, "stays.deep.example", now), Exists);
                assert_eq!(presence(&zone, "deep.example", now), EmptyNonTerminal);
                looked += 1;
            }
        });
        for serial in 2..200 {
            let mut new = stays.clone();
            new.extend((0..100).map(|n| (name(&format!("n{n}.s{serial}.example")), qtype::A)));
            let changes = changes(&zone, &stays, &new, serial);
            zone.apply(&changes, HOUR, now).unwrap();
        }
        done.store(true, Relaxed);
        reader.join().unwrap();
    });
    assert_eq!(zone.size().unwrap().names, 198 * 101 + 2);
}

/// The same in the plainest way: all records, searched through for each question.
#[derive(Default)]
struct Model {
    records: BTreeMap<(Vec<String>, u16), u32>,
}

impl Model {
    /// Labels from the right, without the apex.
    fn labels(owner: &Name) -> Vec<String> {
        let text = owner.to_string();
        let mut labels: Vec<String> = text.split('.').map(str::to_owned).collect();
        labels.pop();
        labels.reverse();
        labels
    }

    fn change(&mut self, record: &(Name, u16), by: i64) {
        let count = self
            .records
            .entry((Self::labels(&record.0), record.1))
            .or_default();
        *count = (i64::from(*count) + by) as u32;
        self.records.retain(|_, count| *count > 0);
    }

    fn has(&self, owner: &[String], rtype: u16) -> bool {
        self.records.contains_key(&(owner.to_vec(), rtype))
    }

    fn exists(&self, owner: &[String]) -> bool {
        owner.is_empty() || self.records.keys().any(|(name, _)| name.starts_with(owner))
    }

    fn presence(&self, qname: &Name) -> Presence {
        let labels = Self::labels(qname);
        for depth in 0..=labels.len() {
            let (at, is_qname) = (&labels[..depth], depth == labels.len());
            if !self.exists(at) {
                let mut wildcard = labels[..depth - 1].to_vec();
                wildcard.push("*".to_owned());
                let answers = self.exists(&wildcard);
                return if answers { Wildcard } else { Missing };
            }
            if depth > 0 && self.has(at, qtype::NS) {
                return Delegated;
            }
            if !is_qname && self.has(at, qtype::DNAME) {
                return Dname;
            }
        }
        let own = self.records.keys().any(|(name, _)| *name == labels);
        if own || labels.is_empty() {
            Exists
        } else {
            EmptyNonTerminal
        }
    }
}

fn any_name() -> impl Strategy<Value = Name> {
    let label = prop::sample::select(vec!["a", "b", "c", "*"]);
    prop::collection::vec(label, 0..5).prop_map(|labels| {
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.push("example");
        name(&labels.join("."))
    })
}

fn any_record() -> impl Strategy<Value = (Name, u16)> {
    let types = vec![qtype::A, qtype::A, qtype::TXT, qtype::NS, qtype::DNAME];
    (any_name(), prop::sample::select(types))
}

proptest! {
    #[test]
    fn the_model_agrees(
        first in prop::collection::hash_set(any_record(), 0..12),
        rounds in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..6), prop::collection::hash_set(any_record(), 0..6)), 0..6),
        asked in prop::collection::vec(any_name(), 20),
    ) {
        let now = Instant::now();
        let mut present: HashSet<(Name, u16)> = first;
        let records: Vec<_> = present.iter().copied().collect();
        let zone = zone("example", &records, now);
        let mut model = Model::default();
        for record in &records {
            model.change(record, 1);
        }
        for (serial, (out, new)) in rounds.into_iter().enumerate() {
            for qname in &asked {
                prop_assert_eq!(zone.look_up(qname, now).presence, model.presence(qname), "{}", qname);
            }
            let removed: HashSet<_> = out.iter().filter(|_| !present.is_empty()).map(|index| {
                *present.iter().nth(index.index(present.len())).unwrap()
            }).collect();
            present.retain(|record| !removed.contains(record));
            let new: HashSet<_> = new.difference(&present).copied().collect();
            present.extend(new.iter().copied());
            removed.iter().for_each(|record| model.change(record, -1));
            new.iter().for_each(|record| model.change(record, 1));
            let (out, new): (Vec<_>, Vec<_>) = (removed.into_iter().collect(), new.into_iter().collect());
            zone.apply(&changes(&zone, &out, &new, serial as u32 + 2), HOUR, now).unwrap();
        }
        for qname in &asked {
            prop_assert_eq!(zone.look_up(qname, now).presence, model.presence(qname), "{}", qname);
        }
    }
}
