//! Edits of a message in place.

use crate::cookie::{self, FULL_LEN};
use crate::header::{HEADER_LEN, Rcode};
use crate::query::{EdnsOption, Query, split_option};
use crate::records::{option_code, qtype};
use crate::response::Response;

/// The UDP payload size, in octets, that our own answers announce: what fits an unfragmented
/// datagram on every usual path.
pub const OUR_UDP_SIZE: u16 = 1232;

const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const CD: u8 = 0x10;
/// Octets of an OPT record without options.
const OPT_LEN: usize = 11;
/// Octets of an option's code and length.
const OPTION_HEADER_LEN: usize = 4;

/// Why an answer is not the data asked for (extended DNS error, RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// IANA "Extended DNS Error Codes"; see [`info_code`](crate::records::info_code).
    pub info_code: u16,
    /// For people; may be empty.
    pub text: &'static str,
}

/// Overwrites the message id. A packet shorter than two octets is left as it is.
pub fn set_id(packet: &mut [u8], id: u16) {
    if let Some(field) = packet.first_chunk_mut::<2>() {
        *field = id.to_be_bytes();
    }
}

/// Turns a query into an answer of ours, in place, and returns the answer's length in octets.
///
/// `buffer` holds the packet that `query` was parsed from in its first `query.len` octets and may
/// be longer. The header gets QR=1, TC as told, AA, RA and AD clear; id, opcode, RD and CD stay.
/// The question stays, in its case. No record follows but, where the query had EDNS, one OPT
/// record: our payload size, version 0, DO as asked, and the extended error. The error's text,
/// then the error itself, is left out where it fits neither the buffer nor what the client takes
/// ([`Query::response_limit`]) nor [`OUR_UDP_SIZE`].
///
/// An `rcode` above 15 needs EDNS; without it SERVFAIL is sent. An answer to a signed query is
/// not signed: we have no key.
///
/// Returns 0, and changes nothing, if `buffer` does not hold the query.
pub fn answer(
    buffer: &mut [u8],
    query: &Query,
    rcode: Rcode,
    truncated: bool,
    error: Option<ExtendedError>,
) -> usize {
    let write = |room: &mut [u8]| error.map_or(0, |error| write_extended_error(room, error));
    answer_with(buffer, query, rcode, truncated, write)
}

/// Turns a query into an answer with rcode BADCOOKIE, in place, and returns its length in octets:
/// as [`answer`] does, with the COOKIE option instead of an extended error. `cookie` is the client
/// cookie of the query and the server cookie that it is to come back with (RFC 7873
/// section 5.2.3).
///
/// Returns 0, and changes nothing, if `buffer` does not hold the query. A query without EDNS has
/// no cookie and must not get this answer; SERVFAIL is sent then.
pub fn bad_cookie(buffer: &mut [u8], query: &Query, cookie: &[u8; FULL_LEN]) -> usize {
    let write = |room: &mut [u8]| write_option(room, option_code::COOKIE, cookie);
    answer_with(buffer, query, Rcode::BADCOOKIE, false, write)
}

/// Cuts an upstream's response down to an empty one with TC=1, in place, and returns its length:
/// the client is to ask again over TCP. `buffer` holds the packet that `response` was parsed from
/// in its first `response.len` octets.
///
/// Id, opcode, RD, CD and the question stay; the rcode becomes NOERROR, AA, RA and AD are clear. Where
/// the response had EDNS, an OPT record of ours follows, with DO as it was, and with the COOKIE
/// option if there was one: a client that knows the server's cookies does not take an answer
/// without (RFC 7873 section 5.3). The result is never longer than the response was.
///
/// Returns 0, and changes nothing, if `buffer` does not hold the response or the response has no
/// question.
pub fn truncate_response(buffer: &mut [u8], response: &Response) -> usize {
    let question_end = usize::from(response.question_end);
    let len = usize::from(response.len);
    if buffer.len() < len || question_end <= HEADER_LEN {
        return 0;
    }
    let opt_len = response.edns.and_then(|edns| {
        let start = usize::from(edns.options_at);
        let options = buffer.get(start..start.saturating_add(usize::from(edns.options_len)))?;
        let mut kept = [0; cookie::MAX_LEN];
        let cookie_len = first_cookie(options)
            .and_then(|cookie| {
                kept.get_mut(..cookie.len())?.copy_from_slice(cookie);
                Some(cookie.len())
            })
            .unwrap_or(0);
        let cookie = kept.get(..cookie_len).unwrap_or_default();
        write_opt(
            buffer.get_mut(question_end..len)?,
            Rcode::NOERROR,
            edns.dnssec_ok,
            |room| match cookie {
                [] => 0,
                cookie => write_option(room, option_code::COOKIE, cookie),
            },
        )
    });
    let Some(header) = buffer.first_chunk_mut::<HEADER_LEN>() else {
        return 0;
    };
    let [i0, i1, f0, f1, ..] = *header;
    *header = [
        i0,
        i1,
        QR | (f0 & (OPCODE | RD)) | TC,
        f1 & CD,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(opt_len.is_some()),
    ];
    question_end.saturating_add(opt_len.unwrap_or(0))
}

/// The data of the first COOKIE option that is not too long to be one.
fn first_cookie(mut options: &[u8]) -> Option<&[u8]> {
    while let Some((EdnsOption { code, data }, rest)) = split_option(options) {
        if code == option_code::COOKIE {
            return (data.len() <= cookie::MAX_LEN).then_some(data);
        }
        options = rest;
    }
    None
}

/// Header, question, and an OPT record with what `options` writes and how many octets that is.
fn answer_with(
    buffer: &mut [u8],
    query: &Query,
    rcode: Rcode,
    truncated: bool,
    options: impl FnOnce(&mut [u8]) -> usize,
) -> usize {
    let question_end = usize::from(query.question_end);
    if buffer.len() < usize::from(query.len) || question_end < HEADER_LEN {
        return 0;
    }
    let low_rcode = if rcode.0 > 15 && query.edns.is_none() {
        Rcode::SERVFAIL
    } else {
        rcode
    };
    let opt_len = query.edns.and_then(|edns| {
        let limit = buffer
            .len()
            .min(query.response_limit())
            .min(usize::from(OUR_UDP_SIZE));
        write_opt(
            buffer.get_mut(question_end..limit)?,
            rcode,
            edns.dnssec_ok,
            options,
        )
    });
    let counts = [0, 0, u8::from(opt_len.is_some())];
    if write_header(buffer, low_rcode, if truncated { TC } else { 0 }, counts).is_none() {
        return 0;
    }
    question_end.saturating_add(opt_len.unwrap_or(0))
}

/// Turns a query into an NXDOMAIN answer, in place, and returns the answer's length in octets.
///
/// As [`answer`], but with AA=1, and with `authority`, which holds `records` whole records, as the
/// authority section (RFC 2308 section 2.1). Nothing, and nothing is changed, where all of it fits
/// neither `buffer` nor `limit`, the largest response that the client's transport takes:
/// [`Query::response_limit`] over UDP.
pub fn name_error(
    buffer: &mut [u8],
    query: &Query,
    authority: &[u8],
    records: u8,
    limit: usize,
) -> Option<usize> {
    let question_end = usize::from(query.question_end);
    if buffer.len() < usize::from(query.len) || question_end < HEADER_LEN {
        return None;
    }
    let opt_at = question_end.checked_add(authority.len())?;
    let opt_room = if query.edns.is_some() { OPT_LEN } else { 0 };
    let end = opt_at.checked_add(opt_room)?;
    if end > limit || end > buffer.len() {
        return None;
    }
    buffer
        .get_mut(question_end..opt_at)?
        .copy_from_slice(authority);
    if let Some(edns) = query.edns {
        let room = buffer.get_mut(opt_at..end)?;
        write_opt(room, Rcode::NXDOMAIN, edns.dnssec_ok, |_| 0)?;
    }
    let counts = [0, records, u8::from(query.edns.is_some())];
    write_header(buffer, Rcode::NXDOMAIN, AA, counts)?;
    Some(end)
}

/// Writes the header of an answer over that of the query: QR=1, `flags` in the third octet, id,
/// opcode, RD and CD as they are, one question, and so many records in the other three sections.
fn write_header(buffer: &mut [u8], rcode: Rcode, flags: u8, counts: [u8; 3]) -> Option<()> {
    let header = buffer.first_chunk_mut::<HEADER_LEN>()?;
    let [i0, i1, f0, f1, ..] = *header;
    let [answers, authority, additional] = counts;
    *header = [
        i0,
        i1,
        QR | (f0 & (OPCODE | RD)) | flags,
        (f1 & CD) | (rcode.0 as u8 & 0x0f),
        0,
        1,
        0,
        answers,
        0,
        authority,
        0,
        additional,
    ];
    Some(())
}

/// Writes an OPT record at the start of `room` and returns its octets; nothing where it does not
/// fit.
fn write_opt(
    room: &mut [u8],
    rcode: Rcode,
    dnssec_ok: bool,
    options: impl FnOnce(&mut [u8]) -> usize,
) -> Option<usize> {
    let (opt, room) = room.split_first_chunk_mut::<OPT_LEN>()?;
    let options_len = options(room);
    let [t0, t1] = qtype::OPT.to_be_bytes();
    let [s0, s1] = OUR_UDP_SIZE.to_be_bytes();
    let [l0, l1] = (options_len as u16).to_be_bytes();
    let z = if dnssec_ok { 0x80 } else { 0 };
    *opt = [0, t0, t1, s0, s1, (rcode.0 >> 4) as u8, 0, z, 0, l0, l1];
    Some(OPT_LEN.saturating_add(options_len))
}

/// Writes an option; returns its octets, 0 where it does not fit.
fn write_option(room: &mut [u8], code: u16, data: &[u8]) -> usize {
    let len = data.len().saturating_add(OPTION_HEADER_LEN);
    let Some((head, room)) = room
        .get_mut(..len)
        .and_then(<[u8]>::split_first_chunk_mut::<OPTION_HEADER_LEN>)
    else {
        return 0;
    };
    let [c0, c1] = code.to_be_bytes();
    let [l0, l1] = (data.len() as u16).to_be_bytes();
    *head = [c0, c1, l0, l1];
    room.copy_from_slice(data);
    len
}

/// Writes the option with as much as fits of code and text; returns its octets, 0 for none.
fn write_extended_error(room: &mut [u8], error: ExtendedError) -> usize {
    let fits = |text: &str| {
        text.len()
            .saturating_add(OPTION_HEADER_LEN)
            .saturating_add(2)
            <= room.len()
    };
    let text = if fits(error.text) { error.text } else { "" };
    let data_len = text.len().saturating_add(2);
    let Some((head, room)) = room.split_first_chunk_mut::<6>() else {
        return 0;
    };
    let [c0, c1] = option_code::EXTENDED_ERROR.to_be_bytes();
    let [l0, l1] = (data_len as u16).to_be_bytes();
    let [i0, i1] = error.info_code.to_be_bytes();
    *head = [c0, c1, l0, l1, i0, i1];
    if let Some(to) = room.get_mut(..text.len()) {
        to.copy_from_slice(text.as_bytes());
    }
    OPTION_HEADER_LEN.saturating_add(data_len)
}

/// Turns a packet that [`Query::parse`] refused into a FORMERR answer, in place, and returns its
/// length: the header alone, id, opcode and RD kept, no question, since it could not be read.
/// Nothing for a packet without a whole header, or with QR=1: a response is never answered.
pub fn format_error(buffer: &mut [u8]) -> Option<usize> {
    let header = buffer.first_chunk_mut::<HEADER_LEN>()?;
    let [i0, i1, f0, _, ..] = *header;
    if f0 & QR != 0 {
        return None;
    }
    *header = [
        i0,
        i1,
        QR | (f0 & (OPCODE | RD)),
        Rcode::FORMERR.0 as u8,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    Some(HEADER_LEN)
}
