//! Transfers, message by message.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests may ask for the time")]

mod common;

use std::time::Instant;

use common::{HOUR, empty_zone, name, pairs, presence, soa_data, zone};
use dnscrub_wire::{Name, Query, Rcode, qtype};
use dnscrub_zones::transfer::{SoaQuery, Transfer, TransferError, Transferred, is_later};
use dnscrub_zones::{Limits, LoadError, Presence, Zone};

const ID: u16 = 4711;
const TIME: u64 = 1_800_000_000;

/// A response with these records: owner, type, data.
fn response(records: &[(Name, u16, Vec<u8>)]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap();
    let mut message = ID.to_be_bytes().to_vec();
    message.extend_from_slice(&[0x84, 0, 0, 0]);
    message.extend_from_slice(&count.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    for (owner, rtype, data) in records {
        message.extend_from_slice(owner.as_wire());
        message.extend_from_slice(&rtype.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 14, 16]);
        message.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend_from_slice(data);
    }
    message
}

fn soa(serial: u32) -> (Name, u16, Vec<u8>) {
    (name("example"), qtype::SOA, soa_data(serial))
}

fn address(owner: &str) -> (Name, u16, Vec<u8>) {
    (name(owner), qtype::A, vec![192, 0, 2, 1])
}

type Outcome = Result<Transferred, TransferError>;

/// Feeds the records, in messages of so many.
fn run(zone: &Zone, have: Option<u32>, records: &[(Name, u16, Vec<u8>)], piece: usize) -> Outcome {
    let (mut transfer, _) = match have {
        None => Transfer::whole(zone, ID, None, TIME, 1 << 20)?,
        Some(have) => Transfer::incremental(zone, have, ID, None, TIME, 1 << 20)?,
    };
    for records in records.chunks(piece) {
        if transfer.on_message(&mut response(records), TIME)? {
            break;
        }
    }
    transfer.finish()
}

fn sequence(outcome: Outcome) -> bool {
    matches!(outcome, Err(TransferError::Sequence(_)))
}

#[test]
fn queries_say_what_they_ask() {
    let zone = empty_zone("example", Instant::now());
    let (_, packet) = Transfer::whole(&zone, ID, None, TIME, 1).unwrap();
    let query = Query::parse(&packet).unwrap();
    assert_eq!(
        (query.id, query.qtype, query.qname),
        (ID, qtype::AXFR, name("example"))
    );
    let (_, packet) = Transfer::incremental(&zone, 0x0102_0304, ID, None, TIME, 1).unwrap();
    let query = Query::parse(&packet).unwrap();
    assert_eq!((query.id, query.qtype), (ID, qtype::IXFR));
    // one SOA record in the authority section, with our serial
    assert_eq!(packet[8..10], [0, 1]);
    let after = &packet[usize::from(query.question_end) + 9..];
    assert_eq!(after[..2], [0, 6]);
    assert_eq!(after[12..16], [1, 2, 3, 4]);
}

#[test]
fn a_whole_zone_ends_with_its_second_soa() {
    let now = Instant::now();
    let zone = empty_zone("example", now);
    let records = [soa(5), address("a.example"), address("b.c.example"), soa(5)];
    for piece in 1..=4 {
        let Transferred::Whole(contents) = run(&zone, None, &records, piece).unwrap() else {
            panic!("not whole");
        };
        assert_eq!((contents.soa().serial, contents.names()), (5, 3));
        zone.load(*contents, HOUR, now);
        assert_eq!(
            presence(&zone, "c.example", now),
            Presence::EmptyNonTerminal
        );
    }
    for bad in [
        &records[..3],
        &records[1..],
        &[soa(5), address("a.example"), soa(6)],
        &[soa(5), soa(5), soa(5)],
    ] {
        assert!(sequence(run(&zone, None, bad, 9)), "{bad:?}");
    }
}

#[test]
fn an_incremental_transfer_tells_differences_in_their_order() {
    let now = Instant::now();
    let zone = zone("example", &pairs(&["old.example A"]), now);
    let records = [
        soa(3),
        soa(1),
        address("old.example"),
        soa(2),
        address("brief.example"),
        soa(2),
        address("brief.example"),
        soa(3),
        address("new.example"),
        soa(3),
    ];
    for piece in 1..=10 {
        let Transferred::Changes(changes) = run(&zone, Some(1), &records, piece).unwrap() else {
            panic!("no changes");
        };
        assert_eq!(changes.count(), 8);
        if piece == 10 {
            zone.apply(&changes, HOUR, now).unwrap();
        }
    }
    for (qname, expected) in [
        ("old.example", Presence::Missing),
        ("brief.example", Presence::Missing),
        ("new.example", Presence::Exists),
    ] {
        assert_eq!(presence(&zone, qname, now), expected, "{qname}");
    }
    assert_eq!(zone.soa().unwrap().serial, 3);
    let gap = [soa(3), soa(1), soa(2), soa(1), soa(3), soa(3)];
    assert!(sequence(run(&zone, Some(1), &gap, 9)));
    assert!(sequence(run(&zone, Some(1), &records[..9], 9)), "cut off");
    assert!(TransferError::Sequence("").try_whole());
}

#[test]
fn a_server_may_answer_with_the_whole_zone_or_with_nothing_new() {
    let now = Instant::now();
    let zone = zone("example", &[], now);
    let whole = [soa(5), address("a.example"), soa(5)];
    for piece in 1..=3 {
        let outcome = run(&zone, Some(1), &whole, piece).unwrap();
        assert!(matches!(outcome, Transferred::Whole(contents) if contents.names() == 1));
    }
    let small = run(&zone, Some(1), &[soa(5), soa(5)], 2).unwrap();
    assert!(matches!(small, Transferred::Whole(contents) if contents.names() == 0));
    for serial in [1, 0, u32::MAX] {
        let outcome = run(&zone, Some(1), &[soa(serial)], 1).unwrap();
        assert!(matches!(outcome, Transferred::UpToDate), "{serial}");
    }
}

#[test]
fn names_in_answers_may_be_compressed() {
    let zone = empty_zone("example", Instant::now());
    let (query, _) = SoaQuery::new(zone.name(), ID, None, TIME).unwrap();
    let mut message = ID.to_be_bytes().to_vec();
    message.extend_from_slice(b"\x84\0\0\x01\0\x01\0\0\0\0\x07example\0\0\x06\0\x01");
    message.extend_from_slice(b"\xc0\x0c\0\x06\0\x01\0\0\0\x3c\0\x1d\x02ns\xc0\x0c\x01h\xc0\x0c");
    for number in [9, 1, 2, 3, 4_u32] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    assert_eq!(query.on_message(&mut message, TIME).unwrap().serial, 9);
}

#[test]
fn what_is_no_answer_is_refused() {
    let zone = empty_zone("example", Instant::now());
    let begin = || Transfer::whole(&zone, ID, None, TIME, 1 << 20).unwrap().0;
    let good = response(&[soa(5)]);
    let with = |at: usize, octet: u8| {
        let mut message = good.clone();
        message[at] = octet;
        begin().on_message(&mut message, TIME).unwrap_err()
    };
    assert!(matches!(with(0, 0), TransferError::Malformed(_)), "id");
    assert!(matches!(with(2, 0), TransferError::Malformed(_)), "QR");
    assert!(matches!(with(2, 0x86), TransferError::Malformed(_)), "TC");
    assert!(matches!(with(7, 2), TransferError::Malformed(_)), "records");
    assert!(
        matches!(with(12, 0xc0), TransferError::Malformed(_)),
        "pointer"
    );
    let refused = with(3, 5);
    assert_eq!(refused, TransferError::Answer(Rcode::REFUSED));
    assert!(refused.to_string().contains("allow-transfer"));
    assert!(with(3, 9).to_string().contains("TSIG key"));
    assert!(matches!(
        begin().on_message(&mut response(&[]), TIME),
        Err(TransferError::Sequence(_))
    ));
    let (mut small, _) = Transfer::whole(&zone, ID, None, TIME, 20).unwrap();
    assert_eq!(
        small.on_message(&mut good.clone(), TIME),
        Err(TransferError::TooLarge(20))
    );
}

#[test]
fn limits_hold() {
    let now = Instant::now();
    let limits = Limits {
        names: 2,
        change_octets: 200,
        ..Limits::default()
    };
    let zone = Zone::new(name("example"), limits, ahash::RandomState::new(), now);
    let many: Vec<_> = std::iter::once(soa(5))
        .chain((0..9).map(|n| address(&format!("n{n}.example"))))
        .collect();
    assert_eq!(
        run(&zone, None, &many, 99).unwrap_err(),
        TransferError::Load(LoadError::TooManyNames(2))
    );
    let changes = [&[soa(5), soa(1)][..], &many].concat();
    let failure = run(&zone, Some(1), &changes, 99).unwrap_err();
    assert_eq!(failure, TransferError::ChangesTooLarge(200));
    assert!(failure.try_whole());
}

#[test]
fn serials_wrap() {
    assert!(is_later(2, 1) && is_later(0, u32::MAX) && is_later(1 << 31, 1));
    assert!(!is_later(1, 1) && !is_later(1, 2) && !is_later(u32::MAX, 0));
    assert!(!is_later((1 << 31) + 1, 1), "as far ahead as behind");
}

proptest::proptest! {
    #[test]
    fn any_message_is_taken_or_refused(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), cut in 0_usize..200, at in 0_usize..200, octet in proptest::prelude::any::<u8>()) {
        let zone = empty_zone("example", Instant::now());
        let mut changed = response(&[soa(5), address("a.b.example"), soa(5)]);
        if let Some(to) = changed.get_mut(at) {
            *to = octet;
        }
        changed.truncate(cut.max(12));
        for mut message in [octets, changed] {
            let (mut transfer, _) = Transfer::incremental(&zone, 1, ID, None, TIME, 1 << 20).unwrap();
            let _ = transfer.on_message(&mut message, TIME);
        }
    }
}
