//! Answers of ours, octet by octet.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use dnscrub_wire::edit::{self, ExtendedError};
use dnscrub_wire::{Name, Query, QueryBuilder, Rcode, Response, qtype};

const ERROR: ExtendedError = ExtendedError {
    info_code: 22,
    text: "no upstream",
};

fn asked() -> QueryBuilder {
    QueryBuilder::new(&Name::from_text("a.b").unwrap(), qtype::A)
        .id(0x0102)
        .recursion_desired(true)
}

fn answer(
    packet: &[u8],
    spare: usize,
    rcode: Rcode,
    truncated: bool,
    error: Option<ExtendedError>,
) -> Vec<u8> {
    let query = Query::parse(packet).unwrap();
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + spare, 0xee);
    let len = edit::answer(&mut buffer, &query, rcode, truncated, error);
    buffer.truncate(len);
    buffer
}

#[test]
fn without_edns_header_and_question_are_all() {
    let answer = answer(&asked().build(), 100, Rcode::REFUSED, false, Some(ERROR));
    assert_eq!(
        answer,
        *b"\x01\x02\x81\x05\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01"
    );
}

#[test]
fn with_edns_an_opt_and_the_error_follow() {
    let answer = answer(
        &asked().dnssec_ok(true).udp_size(512).build(),
        100,
        Rcode::SERVFAIL,
        false,
        Some(ERROR),
    );
    let mut expected = b"\x01\x02\x81\x02\0\x01\0\0\0\0\0\x01\x01a\x01b\0\0\x01\0\x01".to_vec();
    expected.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\x80\0\0\x11\0\x0f\0\x0d\0\x16no upstream");
    assert_eq!(answer, expected);
}

#[test]
fn the_error_gives_way_to_the_buffer() {
    let packet = asked().udp_size(1232).build();
    let len =
        |spare| answer(&packet, spare, Rcode::SERVFAIL, false, Some(ERROR)).len() - packet.len();
    assert_eq!(len(17), 17);
    assert_eq!(len(16), 6, "code without its text");
    assert_eq!(len(6), 6);
    assert_eq!(len(5), 0, "OPT without the error");
    assert_eq!(len(0), 0);
}

#[test]
fn the_error_gives_way_to_the_response_limit() {
    const LONG: ExtendedError = ExtendedError {
        info_code: 15,
        text: long_text(),
    };
    let small = asked().udp_size(100).build();
    let large = asked().udp_size(4096).build();
    assert_eq!(
        answer(&small, 4000, Rcode::REFUSED, false, Some(LONG)).len(),
        small.len() + 6
    );
    assert_eq!(
        answer(&large, 4000, Rcode::REFUSED, false, Some(LONG)).len(),
        large.len() + 6 + LONG.text.len()
    );
}

const fn long_text() -> &'static str {
    const OCTETS: [u8; 600] = [b'x'; 600];
    match str::from_utf8(&OCTETS) {
        Ok(text) => text,
        Err(_) => "",
    }
}

#[test]
fn options_of_the_query_do_not_return() {
    let packet = asked()
        .option(10, &[7; 8])
        .option(8, &[0, 1, 24, 0, 192, 0, 2])
        .build();
    let answer = answer(&packet, 0, Rcode::NXDOMAIN, false, None);
    assert_eq!(answer.len(), 12 + 9 + 11);
    assert_eq!(answer[answer.len() - 2..], [0, 0]);
}

#[test]
fn truncation_is_a_bit() {
    let answer = answer(
        &asked().checking_disabled(true).authentic_data(true).build(),
        0,
        Rcode::NOERROR,
        true,
        None,
    );
    assert_eq!(answer[2..4], [0x83, 0x10]);
}

#[test]
fn an_extended_rcode_needs_edns() {
    let with = answer(
        &asked().edns_version(1).build(),
        0,
        Rcode::BADVERS,
        false,
        None,
    );
    assert_eq!(
        (with[3], with[with.len() - 6], with[with.len() - 5]),
        (0, 1, 0)
    );
    let without = answer(&asked().build(), 0, Rcode::BADVERS, false, None);
    assert_eq!(without[3], 2);
}

#[test]
fn a_buffer_that_does_not_hold_the_query_stays() {
    let packet = asked().build();
    let query = Query::parse(&packet).unwrap();
    let mut short = packet[..packet.len() - 1].to_vec();
    let before = short.clone();
    assert_eq!(
        edit::answer(&mut short, &query, Rcode::REFUSED, false, None),
        0
    );
    assert_eq!(short, before);
}

#[test]
fn the_id_is_two_octets() {
    let mut packet = asked().build();
    let before = packet.clone();
    edit::set_id(&mut packet, 0xabcd);
    assert_eq!(packet[..2], [0xab, 0xcd]);
    assert_eq!(packet[2..], before[2..]);
    let mut one = [7];
    edit::set_id(&mut one, 1);
    assert_eq!(one, [7]);
}

mod name_errors {
    use super::*;
    use hickory_proto::op::{Message, ResponseCode};
    use hickory_proto::rr::RecordType;

    /// A SOA record at the root of "b": names, and five numbers.
    fn authority() -> Vec<u8> {
        let mut record = b"\x01b\0\0\x06\0\x01\0\0\0\x3c\0\0\x02ns\0\x01h\0".to_vec();
        let data_len = 4 + 3 + 20;
        record[12] = data_len;
        record.extend_from_slice(&[0; 20]);
        record
    }

    fn name_error(packet: &[u8], authority: &[u8], records: u8, limit: usize) -> Option<Vec<u8>> {
        let query = Query::parse(packet).unwrap();
        let mut buffer = packet.to_vec();
        buffer.resize(4096, 0xee);
        let before = buffer.clone();
        let len = edit::name_error(&mut buffer, &query, authority, records, limit);
        if len.is_none() {
            assert_eq!(buffer, before, "nothing was changed");
        }
        buffer.truncate(len?);
        Some(buffer)
    }

    #[test]
    fn another_library_reads_the_same() {
        let authority = [authority(), authority()].concat();
        for packet in [
            asked().build(),
            asked().dnssec_ok(true).option(10, &[7; 8]).build(),
            asked().checking_disabled(true).authentic_data(true).build(),
        ] {
            let query = Query::parse(&packet).unwrap();
            let answer = name_error(&packet, &authority, 2, 512).unwrap();
            let message = Message::from_vec(&answer).unwrap();
            assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
            assert_eq!(message.metadata.id, 0x0102);
            assert!(message.metadata.authoritative && !message.metadata.truncation);
            assert!(message.metadata.recursion_desired && !message.metadata.recursion_available);
            assert!(!message.metadata.authentic_data);
            assert_eq!(
                message.metadata.checking_disabled,
                query.flags.checking_disabled()
            );
            assert_eq!(message.queries.len(), 1);
            assert_eq!(message.queries[0].name().to_string(), "a.b.");
            assert_eq!(message.answers.len(), 0);
            assert_eq!(message.authorities.len(), 2);
            for record in &message.authorities {
                assert_eq!(record.record_type(), RecordType::SOA);
                assert_eq!((record.name.to_string(), record.ttl), ("b.".to_owned(), 60));
            }
            assert_eq!(message.edns.is_some(), query.edns.is_some());
            if let Some(edns) = &message.edns {
                assert_eq!(edns.max_payload(), edit::OUR_UDP_SIZE);
                assert!(edns.flags().dnssec_ok);
                assert_eq!(edns.options().as_ref().len(), 0);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_not_begun() {
        let plain = asked().build();
        let whole = plain.len() + authority().len();
        assert_eq!(
            name_error(&plain, &authority(), 1, whole).unwrap().len(),
            whole
        );
        assert_eq!(name_error(&plain, &authority(), 1, whole - 1), None);
        let edns = asked().udp_size(512).build();
        assert!(name_error(&edns, &authority(), 1, whole + 11).is_some());
        assert_eq!(name_error(&edns, &authority(), 1, whole + 10), None);
        assert_eq!(name_error(&plain, &[0; 5000], 1, 65_535), None, "buffer");
    }
}

#[test]
fn bad_cookie_carries_the_whole_cookie() {
    let packet = asked().udp_size(1232).option(10, b"client01").build();
    let query = Query::parse(&packet).unwrap();
    let mut buffer = packet.clone();
    buffer.resize(packet.len() + 64, 0xee);
    let len = edit::bad_cookie(&mut buffer, &query, b"client01server0123456789");
    let mut expected = b"\x01\x02\x81\x07\0\x01\0\0\0\0\0\x01\x01a\x01b\0\0\x01\0\x01".to_vec();
    expected.extend_from_slice(b"\0\0\x29\x04\xd0\x01\0\0\0\0\x1c\0\x0a\0\x18");
    expected.extend_from_slice(b"client01server0123456789");
    assert_eq!(&buffer[..len], expected);
    assert_eq!(
        Response::parse(&buffer[..len]).unwrap().rcode,
        Rcode::BADCOOKIE
    );
}

/// An upstream's answer of two records, compressed, with NSID, a cookie and padding.
fn upstream_answer(rcode: u8, opt: &[u8]) -> Vec<u8> {
    let mut packet = b"\x01\x02\x85\x80\0\x01\0\x01\0\x01\0\0\x01A\x01b\0\0\x01\0\x01".to_vec();
    packet[3] |= rcode;
    packet.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    packet.extend_from_slice(b"\xc0\x0e\0\x02\0\x01\0\0\0\x3c\0\x05\x02ns\xc0\x0e");
    if !opt.is_empty() {
        packet[11] = 1;
        packet.extend_from_slice(b"\0\0\x29\x10\0\0\0\x80\0");
        packet.extend_from_slice(&(opt.len() as u16).to_be_bytes());
        packet.extend_from_slice(opt);
    }
    packet
}

fn truncated(packet: &[u8]) -> Vec<u8> {
    let response = Response::parse(packet).unwrap();
    let mut buffer = packet.to_vec();
    let len = edit::truncate_response(&mut buffer, &response);
    buffer.truncate(len);
    buffer
}

#[test]
fn a_response_is_cut_down_to_its_question() {
    let question = b"\x01\x02\x83\0\0\x01\0\0\0\0\0\0\x01A\x01b\0\0\x01\0\x01";
    assert_eq!(truncated(&upstream_answer(0, b"")), question);
    assert_eq!(
        truncated(&upstream_answer(3, b"")),
        question,
        "whether the name exists is for TCP to say"
    );
}

#[test]
fn of_a_response_with_edns_the_cookie_stays() {
    let options = b"\0\x03\0\x02ns\0\x0a\0\x10client01server01\0\x0c\0\x02\0\0";
    let mut expected = b"\x01\x02\x83\0\0\x01\0\0\0\0\0\x01\x01A\x01b\0\0\x01\0\x01".to_vec();
    expected.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\x80\0\0\x14");
    expected.extend_from_slice(b"\0\x0a\0\x10client01server01");
    assert_eq!(truncated(&upstream_answer(0, options)), expected);
    let without = truncated(&upstream_answer(0, b"\0\x03\0\x02ns"));
    assert_eq!(without.len(), 12 + 9 + 11);
}

#[test]
fn a_response_without_a_question_or_cut_short_stays() {
    let packet = b"\x01\x02\x80\x05\0\0\0\0\0\0\0\0";
    assert_eq!(truncated(packet), b"");
    let whole = upstream_answer(0, b"");
    let response = Response::parse(&whole).unwrap();
    let mut short = whole[..whole.len() - 1].to_vec();
    let before = short.clone();
    assert_eq!(edit::truncate_response(&mut short, &response), 0);
    assert_eq!(short, before);
}

#[test]
fn the_zone_of_an_answer_is_the_owner_of_its_soa_or_else_of_its_servers() {
    let owner = |packet: &[u8]| {
        let response = Response::parse(packet).unwrap();
        let owner = response.authority_owner(packet);
        owner.map(|name| name.to_string())
    };
    let mut packet = upstream_answer(0, b"");
    assert_eq!(owner(&packet).as_deref(), Some("b"), "of the NS record");
    packet[9] = 2;
    packet.extend_from_slice(b"\x03SUB\xc0\x0c\0\x06\0\x01\0\0\0\x3c\0\x02\0\0");
    assert_eq!(owner(&packet).as_deref(), Some("sub.a.b"));
    packet.truncate(packet.len() - 18);
    packet[9] = 0;
    assert_eq!(owner(&packet), None);
}

#[test]
fn a_name_whose_pointers_go_round_is_none() {
    // data of one record whose pointer leads back into data that loops
    let mut packet = b"\x01\x02\x80\0\0\x01\0\x01\0\x01\0\0\x01A\x01b\0\0\x01\0\x01".to_vec();
    packet.extend_from_slice(b"\0\0\x01\0\x01\0\0\0\x3c\0\x04\x01x\xc0\x20");
    packet.extend_from_slice(b"\xc0\x20\0\x06\0\x01\0\0\0\x3c\0\0");
    let response = Response::parse(&packet).unwrap();
    assert_eq!(response.authority_owner(&packet), None, "a loop");
}
