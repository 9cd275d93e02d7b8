//! Zone files: what is read from them, and what is said about wrong ones.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests may ask for the time")]

mod common;

use std::time::Instant;

use common::{HOUR, empty_zone, name, presence};
use dnscrub_zones::master_file::{FileError, MasterFile};
use dnscrub_zones::{NoAnswer, Presence, Proof, Zone};

fn read(apex: &str, text: &[u8], piece: usize, now: Instant) -> Result<Zone, FileError> {
    let zone = empty_zone(apex, now);
    let mut file = MasterFile::new(zone.name(), zone.builder());
    for octets in text.chunks(piece) {
        file.feed(octets)?;
    }
    let contents = file.finish()?.finish().expect("a SOA record");
    zone.load(contents, HOUR, now);
    Ok(zone)
}

const FILE: &str = r#"
$TTL 1h ; the usual one
@       IN SOA ns1 hostmaster.example.org. (
                2026010101 ; serial
                1h 10m 2w  ; refresh, retry, expire
                5m )       ; minimum
        NS  ns1
        3600 IN NS ns2.example.org.
ns1     A   192.0.2.1
WWW.example.com. IN 1w2d AAAA 2001:db8::1
        TXT "a ; no comment ( nor this" "two \" quotes"
a\.b    TXT x\;y
*.wild  A 192.0.2.2
$ORIGIN sub
host    TYPE65280 \# 3 abcdef
$ORIGIN cut.example.com.
@       NS ns
ns      A 192.0.2.3
"#;

#[test]
fn names_are_read_whatever_pieces_they_come_in() {
    let now = Instant::now();
    for piece in [1, 2, 7, 64, 4096] {
        let zone = read("example.com", FILE.as_bytes(), piece, now).unwrap();
        for (qname, expected) in [
            ("ns1.example.com", Presence::Exists),
            ("ns2.example.com", Presence::Missing),
            ("www.example.com", Presence::Exists),
            ("a\\.b.example.com", Presence::Exists),
            ("b.example.com", Presence::Missing),
            ("wild.example.com", Presence::EmptyNonTerminal),
            ("x.wild.example.com", Presence::Wildcard),
            ("host.sub.example.com", Presence::Exists),
            ("host.example.com", Presence::Missing),
            ("x.cut.example.com", Presence::Delegated),
        ] {
            assert_eq!(presence(&zone, qname, now), expected, "{qname}");
        }
        let soa = zone.soa().unwrap();
        assert_eq!((soa.serial, soa.minimum), (2_026_010_101, 300));
        assert_eq!(soa.refresh.as_secs(), 3600);
        assert_eq!(soa.expire.as_secs(), 1_209_600);
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let now = Instant::now();
    let soa = "@ SOA ns h 1 2 3 4 5\n";
    for (text, line, column, part) in [
        ("www NONSENSE x\n", 2, 5, "\"NONSENSE\" is no record type"),
        ("www\n", 2, 1, "a record type is expected"),
        ("a..b A 192.0.2.1\n", 2, 1, "is no name"),
        ("www 1x A 192.0.2.1\n", 2, 5, "not \"1x\""),
        ("www CH A 192.0.2.1\n", 2, 5, "only zones of class IN"),
        ("$INCLUDE other.zone\n", 2, 1, "$INCLUDE is not supported"),
        ("$GENERATE 1-9 a$ A 192.0.2.$\n", 2, 1, "not supported"),
        ("$NONSENSE\n", 2, 1, "is no directive"),
        ("www A (\n192.0.2.1\n", 2, 7, "never closed"),
        ("www A 192.0.2.1 )\n", 2, 17, "never opened"),
        ("www TXT \"open\n", 2, 9, "not closed"),
        ("@ SOA ns h one 2 3 4 5\n", 2, 12, "the serial is expected"),
        ("@ SOA ns h 1 2 3\n", 2, 16, "expire"),
        ("$TTL soon\n", 2, 6, "not \"soon\""),
    ] {
        let failure = read("example", format!("{soa}{text}").as_bytes(), 9, now).unwrap_err();
        assert_eq!(
            (failure.line, failure.column),
            (line, column),
            "{text}{failure}"
        );
        assert!(failure.message.contains(part), "{text}{failure}");
    }
    let failure = read("example", b" A 192.0.2.1\n", 9, now).unwrap_err();
    assert!(failure.message.contains("needs an owner"), "{failure}");
    let endless = format!("{soa}www TXT ( {}", "x ".repeat(1 << 20));
    let failure = read("example", endless.as_bytes(), 4096, now).unwrap_err();
    assert!(failure.message.contains("longer than"), "{failure}");
}

/// A small zone signed with made-up signatures: only their place counts here.
const SIGNED: &str = "
@ 3600 SOA ns h 7 3600 600 86400 300
@ RRSIG SOA 13 1 3600 20260201000000 20260101000000 4711 example. AAAA BBBB
@ RRSIG NS 13 1 3600 20260201000000 20260101000000 4711 example. AAAA
@ NS ns
@ NSEC b NS SOA RRSIG NSEC DNSKEY TYPE1234
@ RRSIG NSEC 13 1 300 20260201000000 1767225600 4711 example. CCCC
b A 192.0.2.1
b NSEC x.d A RRSIG NSEC
b RRSIG NSEC 13 2 300 20260201000000 20260101000000 4711 example. DDDD
x.d A 192.0.2.1
x.d NSEC example. A RRSIG NSEC
x.d RRSIG NSEC 13 3 300 20260201000000 20260101000000 4711 example. EEEE
";

/// Owner and type of the records, and the octets after the fixed part.
fn records(mut wire: &[u8]) -> Vec<(String, u16, Vec<u8>)> {
    let mut records = Vec::new();
    while !wire.is_empty() {
        let owner = dnscrub_wire::Name::from_wire(wire).unwrap();
        let fixed = &wire[owner.len()..];
        let rtype = u16::from_be_bytes([fixed[0], fixed[1]]);
        let len = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        records.push((owner.to_string(), rtype, fixed[10..10 + len].to_vec()));
        wire = &fixed[10 + len..];
    }
    records
}

#[test]
fn a_signed_zone_denies_with_proof() {
    let now = Instant::now();
    let zone = read("example", SIGNED.as_bytes(), 100, now).unwrap();
    assert!(zone.signed());
    assert_eq!(zone.size().unwrap().proof, Proof::Held);
    let mut room = [0; 2048];
    let mut deny = |qname: &str, dnssec_ok| {
        let answer = zone.negative_answer(&name(qname), dnssec_ok, now, &mut room);
        answer.map(|authority| {
            let records = records(&room[..authority.octets]);
            assert_eq!(records.len(), usize::from(authority.records));
            records
                .into_iter()
                .map(|(owner, rtype, _)| (owner, rtype))
                .collect::<Vec<_>>()
        })
    };
    let soa = [("example".to_owned(), 6), ("example".to_owned(), 46)];
    let link = |owner: &str| [(owner.to_owned(), 47), (owner.to_owned(), 46)];
    assert_eq!(deny("c.example", false).unwrap(), soa[..1], "DO=0");
    // between b and x.d; the wildcard between the apex and b
    let expected = [soa.clone(), link("b.example"), link("example")].concat();
    assert_eq!(deny("c.example", true).unwrap(), expected);
    assert_eq!(deny("x.y.c.example", true).unwrap(), expected);
    // one link denies both
    assert_eq!(
        deny("a.example", true).unwrap(),
        [soa.clone(), link("example")].concat()
    );
    // the closest encloser is the empty non-terminal d: *.d stands before x.d
    assert_eq!(
        deny("w.d.example", true).unwrap(),
        [soa.clone(), link("b.example")].concat()
    );
    // behind the last name, whose next is the apex
    assert_eq!(
        deny("y.d.example", true).unwrap(),
        [soa.clone(), link("x.d.example"), link("b.example")].concat()
    );
    assert_eq!(deny("d.example", true), Err(NoAnswer::NotMissing));

    let authority = zone
        .negative_answer(&name("a.example"), true, now, &mut room)
        .unwrap();
    let all = records(&room[..authority.octets]);
    let signature = &all[1].2;
    // covers SOA, algorithm 13, one label, TTL 3600; expiration, inception, key tag, signer
    assert_eq!(signature[..8], [0, 6, 13, 1, 0, 0, 14, 16]);
    assert_eq!(signature[8..12], 1_769_904_000_u32.to_be_bytes());
    assert_eq!(signature[12..16], 1_767_225_600_u32.to_be_bytes());
    assert_eq!(signature[16..18], 4711_u16.to_be_bytes());
    assert_eq!(signature[18..27], *b"\x07example\0");
    assert_eq!(signature[27..], [0, 0, 0, 4, 16, 65]);
    // next name, then window 0 (NS, SOA, RRSIG, NSEC, DNSKEY) and window 4 (TYPE1234)
    let mut bitmap = b"\x01b\x07example\0\x00\x07\x22\0\0\0\0\x03\x80\x04\x1b".to_vec();
    bitmap.extend_from_slice(&[0; 26]);
    bitmap.push(0x20);
    assert_eq!(all[2].2, bitmap);
}

#[test]
fn a_chain_with_a_gap_or_without_room_gives_no_proof() {
    let now = Instant::now();
    let mut room = [0; 2048];
    let gap = SIGNED.replace("b NSEC x.d A RRSIG NSEC\n", "");
    let zone = read("example", gap.as_bytes(), 100, now).unwrap();
    let mut deny = |zone: &Zone, dnssec_ok| {
        zone.negative_answer(&name("c.example"), dnssec_ok, now, &mut room)
            .map(|authority| authority.records)
    };
    assert_eq!(deny(&zone, true), Err(NoAnswer::NoProof));
    assert_eq!(deny(&zone, false), Ok(1));

    let hashed = format!("{SIGNED}\nh NSEC3 1 0 0 - x A\n");
    let zone = read("example", hashed.as_bytes(), 100, now).unwrap();
    assert_eq!(zone.size().unwrap().proof, Proof::NoChain);
    assert_eq!(deny(&zone, true), Err(NoAnswer::NoProof));

    let limits = dnscrub_zones::Limits {
        proof_octets: 300,
        ..Default::default()
    };
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let zone = Zone::new(name("example"), limits, hasher, now);
    let mut file = MasterFile::new(zone.name(), zone.builder());
    file.feed(SIGNED.as_bytes()).unwrap();
    zone.load(file.finish().unwrap().finish().unwrap(), HOUR, now);
    assert_eq!(zone.size().unwrap().proof, Proof::TooLarge);
    assert_eq!(deny(&zone, true), Err(NoAnswer::NoProof));
    assert_eq!(deny(&zone, false), Ok(1));
}

proptest::proptest! {
    #[test]
    fn any_octets_are_read_or_refused(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), words in "[a-z@ .()\";\\\\\\n0-9$]{0,200}") {
        let now = Instant::now();
        for text in [octets.as_slice(), words.as_bytes()] {
            let zone = empty_zone("example", now);
            let mut file = MasterFile::new(zone.name(), zone.builder());
            if let Err(failure) = file.feed(text) {
                proptest::prop_assert!(failure.line >= 1 && failure.column >= 1);
            }
        }
    }
}
