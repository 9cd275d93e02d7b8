//! Answers of ours, octet by octet.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use dnscrub_wire::edit::{self, ExtendedError};
use dnscrub_wire::{Name, Query, QueryBuilder, Rcode, qtype};

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
