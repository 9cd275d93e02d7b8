//! One packet for each kind of defect.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;

use dnscrub_wire::{
    Flags, Malformed, MalformedResponse, Name, Opcode, Query, QueryBuilder, Rcode, Response, edit,
    qtype,
};

/// id 1, RD, and these counts.
fn header(counts: [u8; 4]) -> Vec<u8> {
    let [q, a, n, r] = counts;
    vec![0, 1, 1, 0, 0, q, 0, a, 0, n, 0, r]
}

fn message(counts: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let mut packet = header(counts);
    for part in parts {
        packet.extend_from_slice(part);
    }
    packet
}

fn response(mut packet: Vec<u8>) -> Vec<u8> {
    packet[2] |= 0x80;
    packet
}

/// `a.`, A, IN
const QUESTION: &[u8] = &[1, b'a', 0, 0, 1, 0, 1];
const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
/// `a.` by a pointer to the question, A, IN, TTL 0, 192.0.2.1
const RECORD: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1];
const TSIG: &[u8] = &[1, b'k', 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 2, 7, 7];
const SIG0: &[u8] = &[0, 0, 24, 0, 255, 0, 0, 0, 0, 0, 3, 0, 0, 8];

/// A wire-format name of that many octets, root included.
fn name_of(octets: usize) -> Vec<u8> {
    let mut name = Vec::new();
    let mut left = octets - 1;
    while left > 0 {
        // a rest of one octet could hold no label
        let label = if left == 65 { 62 } else { left.min(64) - 1 };
        name.push(label as u8);
        name.resize(name.len() + label, b'x');
        left -= label + 1;
    }
    name.push(0);
    name
}

fn query_fixtures() -> Vec<(Malformed, &'static str, Vec<u8>)> {
    use Malformed as M;
    let option_cut = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0, 10, 0, 2, 9];
    let option_header_cut = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 3, 0, 10, 0];
    let opt_with_owner = [&[1, b'a'], OPT].concat();
    let name_256 = name_of(256);
    vec![
        (M::ShortHeader, "nothing", vec![]),
        (
            M::ShortHeader,
            "eleven octets",
            header([1, 0, 0, 0])[..11].to_vec(),
        ),
        (
            M::Response,
            "QR=1",
            response(message([1, 0, 0, 0], &[QUESTION])),
        ),
        (
            M::Response,
            "QR=1 before anything else",
            response(message([0, 9, 9, 9], &[])),
        ),
        (M::NoQuestion, "header alone", header([0, 0, 0, 0])),
        (M::NoQuestion, "OPT alone", message([0, 0, 0, 1], &[OPT])),
        (
            M::ManyQuestions,
            "two",
            message([2, 0, 0, 0], &[QUESTION, QUESTION]),
        ),
        (M::QnameCut, "no octet", header([1, 0, 0, 0])),
        (M::QnameCut, "no root", message([1, 0, 0, 0], &[&[1, b'a']])),
        (
            M::QnameCut,
            "within a label",
            message([1, 0, 0, 0], &[&[9, b'a']]),
        ),
        (
            M::QnameTooLong,
            "256 octets",
            message([1, 0, 0, 0], &[&name_256, &[0, 1, 0, 1]]),
        ),
        (
            M::QnameLabelType,
            "a pointer",
            message([1, 0, 0, 0], &[&[0xc0, 12, 0, 1, 0, 1]]),
        ),
        (
            M::QnameLabelType,
            "a pointer behind a label",
            message([1, 0, 0, 0], &[&[1, b'a', 0xc0, 12, 0, 1, 0, 1]]),
        ),
        (
            M::QnameLabelType,
            "the extended type",
            message([1, 0, 0, 0], &[&[0x41, b'a', 0, 0, 1, 0, 1]]),
        ),
        (
            M::QnameLabelType,
            "the reserved type",
            message([1, 0, 0, 0], &[&[0x80, 0, 0, 1, 0, 1]]),
        ),
        (
            M::QuestionCut,
            "no type",
            message([1, 0, 0, 0], &[&[1, b'a', 0]]),
        ),
        (
            M::QuestionCut,
            "half a class",
            message([1, 0, 0, 0], &[&QUESTION[..6]]),
        ),
        (
            M::RecordCut,
            "no octet of it",
            message([1, 0, 0, 1], &[QUESTION]),
        ),
        (
            M::RecordCut,
            "within the fixed part",
            message([1, 0, 0, 1], &[QUESTION, &OPT[..10]]),
        ),
        (
            M::RecordCut,
            "within the data",
            message([1, 0, 1, 0], &[QUESTION, &RECORD[..15]]),
        ),
        (
            M::RecordCut,
            "within the owner",
            message([1, 0, 1, 0], &[QUESTION, &[5, b'a']]),
        ),
        (
            M::RecordCut,
            "within a pointer",
            message([1, 0, 1, 0], &[QUESTION, &[0xc0]]),
        ),
        (
            M::RecordCut,
            "more records counted than there are",
            message([1, 0, 1, 255], &[QUESTION, RECORD, OPT]),
        ),
        (
            M::RecordName,
            "a pointer to itself",
            message([1, 0, 1, 0], &[QUESTION, &[0xc0, 19], &RECORD[2..]]),
        ),
        (
            M::RecordName,
            "a pointer forward",
            message([1, 0, 1, 0], &[QUESTION, &[0xc0, 40], &RECORD[2..]]),
        ),
        (
            M::RecordName,
            "a pointer into the header",
            message([1, 0, 1, 0], &[QUESTION, &[0xc0, 11], &RECORD[2..]]),
        ),
        (
            M::RecordName,
            "the reserved label type",
            message([1, 0, 1, 0], &[QUESTION, &[0x80, 0], &RECORD[2..]]),
        ),
        (
            M::RecordName,
            "256 octets",
            message([1, 0, 1, 0], &[QUESTION, &name_256, &RECORD[2..]]),
        ),
        (
            M::AnswerInQuery,
            "an answer",
            message([1, 1, 0, 0], &[QUESTION, RECORD]),
        ),
        (
            M::ManyOpts,
            "two",
            message([1, 0, 0, 2], &[QUESTION, OPT, OPT]),
        ),
        (
            M::ManyOpts,
            "two with a record between",
            message([1, 0, 0, 3], &[QUESTION, OPT, RECORD, OPT]),
        ),
        (
            M::OptNotAtRoot,
            "a label",
            message([1, 0, 0, 1], &[QUESTION, &opt_with_owner]),
        ),
        (
            M::OptNotAtRoot,
            "a pointer to a root",
            message([1, 0, 0, 1], &[QUESTION, &[0xc0, 14], &OPT[1..]]),
        ),
        (
            M::OptMisplaced,
            "authority",
            message([1, 0, 1, 0], &[QUESTION, OPT]),
        ),
        (
            M::OptMisplaced,
            "authority, beside a proper one",
            message([1, 0, 1, 1], &[QUESTION, OPT, OPT]),
        ),
        (
            M::OptionCut,
            "data",
            message([1, 0, 0, 1], &[QUESTION, &option_cut]),
        ),
        (
            M::OptionCut,
            "length",
            message([1, 0, 0, 1], &[QUESTION, &option_header_cut]),
        ),
        (
            M::SignatureNotLast,
            "OPT behind TSIG",
            message([1, 0, 0, 2], &[QUESTION, TSIG, OPT]),
        ),
        (
            M::SignatureNotLast,
            "TSIG behind SIG(0)",
            message([1, 0, 0, 2], &[QUESTION, SIG0, TSIG]),
        ),
        (
            M::TrailingOctets,
            "one",
            message([1, 0, 0, 0], &[QUESTION, &[0]]),
        ),
        (
            M::TrailingOctets,
            "an uncounted OPT",
            message([1, 0, 0, 0], &[QUESTION, OPT]),
        ),
        (
            M::TrailingOctets,
            "longer than a message can be",
            message([1, 0, 0, 0], &[QUESTION, &vec![0; 65_536]]),
        ),
    ]
}

#[test]
fn each_fixture_is_refused_with_its_kind() {
    for (kind, what, packet) in query_fixtures() {
        assert_eq!(
            Query::parse(&packet).map(|query| query.qname),
            Err(kind),
            "{what}"
        );
    }
}

#[test]
fn each_kind_has_a_fixture_a_label_and_a_description() {
    let produced: BTreeSet<_> = query_fixtures()
        .into_iter()
        .map(|(kind, ..)| kind)
        .collect();
    assert_eq!(produced, Malformed::ALL.iter().copied().collect());
    let labels: BTreeSet<_> = Malformed::ALL.iter().map(|kind| kind.label()).collect();
    assert_eq!(labels.len(), Malformed::ALL.len());
    for kind in Malformed::ALL {
        assert!(
            kind.label()
                .bytes()
                .all(|octet| octet.is_ascii_lowercase() || octet == b'_')
        );
        assert!(kind.description().ends_with('.') && !kind.description().starts_with(' '));
    }
}

/// Every kind is answered FORMERR at most, and a response never.
#[test]
fn format_error_is_a_header() {
    for (kind, what, packet) in query_fixtures() {
        let mut buffer = packet.clone();
        let len = edit::format_error(&mut buffer);
        match kind {
            Malformed::ShortHeader | Malformed::Response => {
                assert_eq!(len, None, "{what}");
                assert_eq!(buffer, packet);
            }
            _ => {
                assert_eq!(len, Some(12), "{what}");
                assert_eq!(buffer[..12], [0, 1, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
                assert_eq!(buffer[12..], packet[12..]);
            }
        }
    }
}

#[test]
fn a_cut_query_is_never_accepted() {
    let name = Name::from_text("www.example.com").unwrap();
    let packet = QueryBuilder::new(&name, qtype::A)
        .dnssec_ok(true)
        .option(10, &[1; 8])
        .option(3, &[])
        .build();
    assert!(Query::parse(&packet).is_ok());
    for len in 0..packet.len() {
        assert!(Query::parse(&packet[..len]).is_err(), "{len}");
    }
}

#[test]
fn unusual_but_well_formed_queries_are_accepted() {
    let name_255 = name_of(255);
    let fixtures: [(&str, Vec<u8>); 8] = [
        (
            "the longest name",
            message([1, 0, 0, 0], &[&name_255, &[0, 1, 0, 1]]),
        ),
        (
            "the longest owner",
            message([1, 0, 1, 0], &[QUESTION, &name_255, &RECORD[2..]]),
        ),
        ("the root", message([1, 0, 0, 0], &[&[0, 0, 1, 0, 1]])),
        ("IXFR's SOA", message([1, 0, 1, 0], &[QUESTION, RECORD])),
        (
            "OPT before TSIG",
            message([1, 0, 0, 2], &[QUESTION, OPT, TSIG]),
        ),
        (
            "record before OPT",
            message([1, 0, 0, 2], &[QUESTION, RECORD, OPT]),
        ),
        ("SIG(0)", message([1, 0, 0, 1], &[QUESTION, SIG0])),
        ("EDNS version 1", {
            let mut packet = message([1, 0, 0, 1], &[QUESTION, OPT]);
            let version_at = packet.len() - 5;
            packet[version_at] = 1;
            packet
        }),
    ];
    for (what, packet) in fixtures {
        let query = Query::parse(&packet).unwrap_or_else(|defect| panic!("{what}: {defect:?}"));
        assert_eq!(query.signed, what.contains("SIG"), "{what}");
        assert_eq!(
            query.edns.is_some(),
            what.contains("OPT") || what.contains("EDNS"),
            "{what}"
        );
    }
}

#[test]
fn an_update_may_carry_prerequisites() {
    let mut packet = message([1, 1, 0, 0], &[QUESTION, RECORD]);
    packet[2] = (Opcode::UPDATE.0) << 3;
    assert_eq!(
        Query::parse(&packet).map(|query| query.flags.opcode()),
        Ok(Opcode::UPDATE)
    );
}

#[test]
fn a_signature_over_a_type_is_not_sig0() {
    let mut sig = SIG0.to_vec();
    sig[12] = 1;
    let packet = message([1, 0, 0, 1], &[QUESTION, &sig]);
    assert_eq!(Query::parse(&packet).map(|query| query.signed), Ok(false));
}

fn response_fixtures() -> Vec<(MalformedResponse, Vec<u8>)> {
    use MalformedResponse as M;
    let r = |counts, parts: &[&[u8]]| response(message(counts, parts));
    vec![
        (M::ShortHeader, vec![0; 11]),
        (M::Query, message([1, 0, 0, 0], &[QUESTION])),
        (M::NoQuestion, r([0, 0, 0, 0], &[])),
        (M::ManyQuestions, r([2, 0, 0, 0], &[QUESTION, QUESTION])),
        (M::Qname, r([1, 0, 0, 0], &[&[9, b'a']])),
        (M::Qname, r([1, 0, 0, 0], &[&[0xc0, 12, 0, 1, 0, 1]])),
        (M::QuestionCut, r([1, 0, 0, 0], &[&QUESTION[..6]])),
        (M::RecordCut, r([1, 1, 0, 0], &[QUESTION, &RECORD[..15]])),
        (M::RecordCut, r([1, 2, 0, 0], &[QUESTION, RECORD])),
        (
            M::RecordName,
            r([1, 1, 0, 0], &[QUESTION, &[0xc0, 19], &RECORD[2..]]),
        ),
        (M::TooLong, r([1, 0, 0, 0], &[QUESTION, &vec![0; 65_536]])),
    ]
}

#[test]
fn each_malformed_response_is_refused_with_its_kind() {
    for (kind, packet) in response_fixtures() {
        assert_eq!(Response::parse(&packet), Err(kind));
    }
    let produced: BTreeSet<_> = response_fixtures()
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(produced, MalformedResponse::ALL.iter().copied().collect());
    let labels: BTreeSet<_> = MalformedResponse::ALL
        .iter()
        .map(|kind| kind.label())
        .collect();
    assert_eq!(labels.len(), MalformedResponse::ALL.len());
}

#[test]
fn a_response_without_question_needs_an_error() {
    for (rcode, accepted) in [
        (0, false),
        (1, true),
        (2, true),
        (3, false),
        (4, true),
        (5, true),
    ] {
        let mut packet = response(header([0, 0, 0, 0]));
        packet[3] = rcode;
        let parsed = Response::parse(&packet);
        assert_eq!(parsed.is_ok(), accepted, "{rcode}");
        if let Ok(parsed) = parsed {
            assert_eq!(parsed.question_end, 12);
            assert!(!parsed.answers_question(&packet, QUESTION));
        }
    }
}

#[test]
fn a_truncated_response_may_end_within_a_record() {
    let mut packet = response(message([1, 2, 0, 0], &[QUESTION, RECORD, &RECORD[..7]]));
    assert_eq!(Response::parse(&packet), Err(MalformedResponse::RecordCut));
    packet[2] |= 0x02;
    assert!(Response::parse(&packet).unwrap().is_truncated());
}

#[test]
fn the_extended_rcode_counts() {
    let mut packet = response(message([1, 0, 0, 1], &[QUESTION, OPT]));
    packet[3] = 7;
    let extended_at = packet.len() - 6;
    packet[extended_at] = 1;
    assert_eq!(Response::parse(&packet).unwrap().rcode, Rcode::BADCOOKIE);
}

#[test]
fn negative_answers_are_told_apart() {
    const SOA_TYPE: u8 = 6;
    const NS_TYPE: u8 = 2;
    let authority = |rtype: u8| {
        let mut record = RECORD.to_vec();
        record[3] = rtype;
        response(message([1, 0, 1, 0], &[QUESTION, &record]))
    };
    let of = |packet: &[u8]| {
        let parsed = Response::parse(packet).unwrap();
        (
            parsed.is_nodata(),
            parsed.is_referral(),
            parsed.rcode == Rcode::NXDOMAIN,
        )
    };
    assert_eq!(of(&authority(SOA_TYPE)), (true, false, false));
    assert_eq!(of(&authority(NS_TYPE)), (false, true, false));
    assert_eq!(
        of(&response(message([1, 0, 0, 0], &[QUESTION]))),
        (true, false, false)
    );
    assert_eq!(
        of(&response(message([1, 1, 0, 0], &[QUESTION, RECORD]))),
        (false, false, false)
    );
    let mut packet = authority(SOA_TYPE);
    packet[3] = 3;
    assert_eq!(of(&packet), (false, false, true));
}

#[test]
fn the_question_decides_whether_a_response_is_ours() {
    let asked = |text: &str, qtype, qclass| {
        let name = Name::from_text(text).unwrap();
        let packet = QueryBuilder::new(&name, qtype).qclass(qclass).build();
        packet[12..].to_vec()
    };
    let packet = response(message(
        [1, 0, 0, 0],
        &[b"\x03wWw\x07eXample\x00", &[0, 1, 0, 1]],
    ));
    let parsed = Response::parse(&packet).unwrap();
    assert!(parsed.answers_question(&packet, &asked("www.example", 1, 1)));
    assert!(!parsed.answers_question(&packet, &asked("www.example", 28, 1)));
    assert!(!parsed.answers_question(&packet, &asked("www.example", 1, 3)));
    assert!(!parsed.answers_question(&packet, &asked("ww.wexample", 1, 1)));
    assert!(!parsed.answers_question(&packet, &asked("example", 1, 1)));
    assert!(!parsed.answers_question(&packet, &[]));
    // '[' and '{' differ by the bit that tells cases apart
    let packet = response(message([1, 0, 0, 0], &[b"\x01[\x00", &[0, 1, 0, 1]]));
    let parsed = Response::parse(&packet).unwrap();
    assert!(!parsed.answers_question(&packet, &asked("{", 1, 1)));
}

#[test]
fn flags_are_written_as_told() {
    let name = Name::from_text("a").unwrap();
    let packet = QueryBuilder::new(&name, qtype::A)
        .flags(Flags(0x0010))
        .opcode(Opcode::NOTIFY)
        .recursion_desired(true)
        .authentic_data(true)
        .checking_disabled(false)
        .build();
    assert_eq!(packet[2..4], [0x21, 0x20]);
}
