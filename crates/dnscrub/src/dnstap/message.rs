//! dnstap messages: the schema of dnstap.info (`dnstap.proto`), in the protocol buffers wire format.
//!
//! The perspective is that of an authoritative server: what a client asks is `AUTH_QUERY`, what it gets is
//! `AUTH_RESPONSE`. What dnscrub made of the query stands in the field `extra` of both.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dnscrub_scoring::Transport;

use super::tap::Head;
use crate::outcome::Outcome;

const VERSION: &str = concat!("dnscrub ", env!("CARGO_PKG_VERSION"));

/// Kinds of messages (`Message.Type`).
const AUTH_QUERY: u64 = 1;
const AUTH_RESPONSE: u64 = 2;

/// Fields of `Dnstap`.
mod outer {
    pub(super) const IDENTITY: u32 = 1;
    pub(super) const VERSION: u32 = 2;
    pub(super) const EXTRA: u32 = 3;
    pub(super) const MESSAGE: u32 = 14;
    pub(super) const TYPE: u32 = 15;
    /// `Dnstap.Type.MESSAGE`.
    pub(super) const TYPE_MESSAGE: u64 = 1;
}

/// Fields of `Message`.
mod field {
    pub(super) const TYPE: u32 = 1;
    pub(super) const SOCKET_FAMILY: u32 = 2;
    pub(super) const SOCKET_PROTOCOL: u32 = 3;
    pub(super) const QUERY_ADDRESS: u32 = 4;
    pub(super) const RESPONSE_ADDRESS: u32 = 5;
    pub(super) const QUERY_PORT: u32 = 6;
    pub(super) const RESPONSE_PORT: u32 = 7;
    pub(super) const QUERY_TIME_SEC: u32 = 8;
    pub(super) const QUERY_TIME_NSEC: u32 = 9;
    pub(super) const QUERY_MESSAGE: u32 = 10;
    pub(super) const QUERY_ZONE: u32 = 11;
    pub(super) const RESPONSE_TIME_SEC: u32 = 12;
    pub(super) const RESPONSE_TIME_NSEC: u32 = 13;
    pub(super) const RESPONSE_MESSAGE: u32 = 14;
}

/// Where monotonic time stands on the calendar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    instant: Instant,
    unix: Duration,
}

impl Calendar {
    pub(super) fn now() -> Self {
        Self {
            instant: Instant::now(),
            unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// Since 1970.
    fn date(&self, at: Instant) -> Duration {
        let ago = self.instant.saturating_duration_since(at);
        self.unix.saturating_sub(ago)
    }
}

/// Makes messages; its buffers are used again.
pub(super) struct Encoder {
    identity: Vec<u8>,
    inner: Vec<u8>,
    whole: Vec<u8>,
    extra: String,
}

impl Encoder {
    pub(super) fn new(identity: &str) -> Self {
        Self {
            identity: identity.as_bytes().to_vec(),
            inner: Vec::new(),
            whole: Vec::new(),
            extra: String::new(),
        }
    }

    /// Hands `emit` a message for the query and, if there is an answer, one for that. `zone` in wire format.
    pub(super) fn encode(
        &mut self,
        head: &Head,
        calendar: &Calendar,
        (query, answer): (&[u8], &[u8]),
        zone: Option<&[u8]>,
        mut emit: impl FnMut(&[u8]),
    ) {
        self.extra.clear();
        write_outcome(&mut self.extra, head.outcome, head.points);
        for kind in [AUTH_QUERY, AUTH_RESPONSE] {
            if kind == AUTH_RESPONSE && answer.is_empty() {
                continue;
            }
            let (inner, whole) = (&mut self.inner, &mut self.whole);
            inner.clear();
            number(inner, field::TYPE, kind);
            let family = if head.client.is_ipv4() { 1 } else { 2 };
            number(inner, field::SOCKET_FAMILY, family);
            let protocol = match head.transport {
                Transport::Udp => 1,
                Transport::Tcp => 2,
            };
            number(inner, field::SOCKET_PROTOCOL, protocol);
            address(inner, field::QUERY_ADDRESS, head.client);
            address(inner, field::RESPONSE_ADDRESS, head.server);
            number(inner, field::QUERY_PORT, head.client.port().into());
            number(inner, field::RESPONSE_PORT, head.server.port().into());
            let asked = calendar.date(head.asked);
            number(inner, field::QUERY_TIME_SEC, asked.as_secs());
            fixed(inner, field::QUERY_TIME_NSEC, asked.subsec_nanos());
            if kind == AUTH_QUERY {
                octets(inner, field::QUERY_MESSAGE, query);
            }
            if let Some(zone) = zone {
                octets(inner, field::QUERY_ZONE, zone);
            }
            if kind == AUTH_RESPONSE {
                let answered = calendar.date(head.settled);
                number(inner, field::RESPONSE_TIME_SEC, answered.as_secs());
                fixed(inner, field::RESPONSE_TIME_NSEC, answered.subsec_nanos());
                octets(inner, field::RESPONSE_MESSAGE, answer);
            }
            whole.clear();
            octets(whole, outer::IDENTITY, &self.identity);
            octets(whole, outer::VERSION, VERSION.as_bytes());
            octets(whole, outer::EXTRA, self.extra.as_bytes());
            octets(whole, outer::MESSAGE, inner);
            number(whole, outer::TYPE, outer::TYPE_MESSAGE);
            emit(whole);
        }
    }
}

/// Such as `outcome=dropped reason=band points=70`, in the words of the metrics.
fn write_outcome(text: &mut String, outcome: Outcome, points: Option<u16>) {
    // writing to a string cannot fail
    let _ = match outcome {
        Outcome::Forwarded => text.write_str("outcome=forwarded"),
        Outcome::Expired => text.write_str("outcome=expired"),
        Outcome::Dropped(reason) => write!(text, "outcome=dropped reason={}", reason.label()),
        Outcome::Answered(answer, reason) => write!(
            text,
            "outcome=answered answer={} reason={}",
            answer.label(),
            reason.label()
        ),
    };
    if let Some(points) = points {
        let _ = write!(text, " points={points}");
    }
}

fn varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

/// A field's number and its wire type: 0 for a varint, 2 for octets, 5 for four octets.
fn key(buffer: &mut Vec<u8>, field: u32, wire_type: u64) {
    varint(buffer, u64::from(field) << 3 | wire_type);
}

fn number(buffer: &mut Vec<u8>, field: u32, value: u64) {
    key(buffer, field, 0);
    varint(buffer, value);
}

fn fixed(buffer: &mut Vec<u8>, field: u32, value: u32) {
    key(buffer, field, 5);
    buffer.extend(value.to_le_bytes());
}

fn octets(buffer: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(buffer, field, 2);
    varint(buffer, value.len() as u64);
    buffer.extend_from_slice(value);
}

fn address(buffer: &mut Vec<u8>, field: u32, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(address) => octets(buffer, field, &address.octets()),
        IpAddr::V6(address) => octets(buffer, field, &address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_seven_bits_at_a_time() {
        let mut buffer = Vec::new();
        number(&mut buffer, 1, 300);
        fixed(&mut buffer, 9, 1);
        octets(&mut buffer, 14, b"ab");
        assert_eq!(
            buffer,
            [0x08, 0xac, 0x02, 0x4d, 1, 0, 0, 0, 0x72, 2, b'a', b'b']
        );
    }
}
