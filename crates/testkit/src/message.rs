//! Messages for tests: well formed and otherwise.

use dnscrub_wire::{HEADER_LEN, Malformed, Name, Query, QueryBuilder, Rcode, qclass, qtype};
use hickory_proto::op::Message;

/// A builder for a query of class IN.
///
/// # Panics
/// `name` is not a domain name.
#[must_use]
pub fn query(name: &str, qtype: u16) -> QueryBuilder {
    QueryBuilder::new(&self::name(name), qtype)
}

/// A query for an address, without EDNS.
///
/// # Panics
/// `name` is not a domain name.
#[must_use]
pub fn a_query(name: &str, id: u16) -> Vec<u8> {
    query(name, qtype::A).id(id).build()
}

/// A domain name from its text.
///
/// # Panics
/// `text` is not a domain name.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::from_text(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// The answer to `query` with this rcode and `addresses` A records (192.0.2.1, 192.0.2.2, …):
/// the header, the question as it was asked, the records. No EDNS.
///
/// # Panics
/// `query` is not well formed.
#[must_use]
pub fn answer(query: &[u8], rcode: Rcode, addresses: u8) -> Vec<u8> {
    let view =
        Query::parse(query).unwrap_or_else(|defect| panic!("not a query: {}", defect.label()));
    let mut packet = query[..usize::from(view.question_end)].to_vec();
    packet[2] = packet[2] & 0x79 | 0x84;
    packet[3] = packet[3] & 0x10 | rcode.0 as u8 & 0x0f;
    packet[6..HEADER_LEN].copy_from_slice(&[0, addresses, 0, 0, 0, 0]);
    for last in 1..=addresses {
        put_record(
            &mut packet,
            &[0xc0, HEADER_LEN as u8],
            qtype::A,
            qclass::IN,
            60,
            &[192, 0, 2, last],
        );
    }
    packet
}

/// A message as hickory-proto reads it: the second opinion on what our own code wrote.
///
/// # Panics
/// hickory-proto cannot read it.
#[must_use]
pub fn parse(packet: &[u8]) -> Message {
    Message::from_vec(packet).unwrap_or_else(|error| panic!("{error}: {packet:02x?}"))
}

/// One packet for every kind of [`Malformed`], in the order of [`Malformed::ALL`].
#[must_use]
pub fn malformed_samples() -> Vec<(Malformed, Vec<u8>)> {
    Malformed::ALL
        .iter()
        .map(|&kind| (kind, malformed_sample(kind)))
        .collect()
}

/// A packet with this defect and no other.
#[must_use]
pub fn malformed_sample(kind: Malformed) -> Vec<u8> {
    let mut packet = a_query("www.example.com", 0x1234);
    let edns = query("www.example.com", qtype::A)
        .id(0x1234)
        .udp_size(1232)
        .build();
    let question = packet[HEADER_LEN..].to_vec();
    match kind {
        Malformed::ShortHeader => packet.truncate(HEADER_LEN - 1),
        Malformed::Response => packet[2] |= 0x80,
        Malformed::NoQuestion => {
            packet.truncate(HEADER_LEN);
            packet[5] = 0;
        }
        Malformed::ManyQuestions => {
            packet[5] = 2;
            packet.extend_from_slice(&question);
        }
        Malformed::QnameCut => packet.truncate(HEADER_LEN + 6),
        Malformed::QnameTooLong => {
            packet.truncate(HEADER_LEN);
            for _ in 0..4 {
                packet.push(63);
                packet.extend_from_slice(&[b'a'; 63]);
            }
            packet.extend_from_slice(&[0, 0, 1, 0, 1]);
        }
        Malformed::QnameLabelType => packet[HEADER_LEN] = 0x40 | 3,
        Malformed::QuestionCut => packet.truncate(packet.len() - 1),
        Malformed::RecordCut => {
            packet = edns;
            packet.truncate(packet.len() - 1);
        }
        Malformed::RecordName => {
            packet[11] = 1;
            // a pointer to itself
            let own = (0xc000 | packet.len() as u16).to_be_bytes();
            put_record(&mut packet, &own, qtype::A, qclass::IN, 0, &[192, 0, 2, 1]);
        }
        Malformed::AnswerInQuery => {
            packet[7] = 1;
            put_record(
                &mut packet,
                &[0xc0, 12],
                qtype::A,
                qclass::IN,
                0,
                &[192, 0, 2, 1],
            );
        }
        Malformed::ManyOpts => {
            packet[11] = 2;
            put_record(&mut packet, &[0], qtype::OPT, 1232, 0, &[]);
            put_record(&mut packet, &[0], qtype::OPT, 1232, 0, &[]);
        }
        Malformed::OptNotAtRoot => {
            packet[11] = 1;
            put_record(&mut packet, &[0xc0, 12], qtype::OPT, 1232, 0, &[]);
        }
        Malformed::OptMisplaced => {
            packet[9] = 1;
            put_record(&mut packet, &[0], qtype::OPT, 1232, 0, &[]);
        }
        Malformed::OptionCut => {
            packet[11] = 1;
            put_record(&mut packet, &[0], qtype::OPT, 1232, 0, &[0, 10, 0, 8, 1]);
        }
        Malformed::SignatureNotLast => {
            packet[11] = 2;
            put_record(&mut packet, &[0], qtype::TSIG, qclass::ANY, 0, &[]);
            put_record(&mut packet, &[0], qtype::OPT, 1232, 0, &[]);
        }
        Malformed::TrailingOctets => packet.push(0),
    }
    packet
}

fn put_record(packet: &mut Vec<u8>, owner: &[u8], rtype: u16, class: u16, ttl: u32, data: &[u8]) {
    packet.extend_from_slice(owner);
    packet.extend_from_slice(&rtype.to_be_bytes());
    packet.extend_from_slice(&class.to_be_bytes());
    packet.extend_from_slice(&ttl.to_be_bytes());
    packet.extend_from_slice(&(data.len() as u16).to_be_bytes());
    packet.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_its_own_defect() {
        for (kind, packet) in malformed_samples() {
            assert_eq!(Query::parse(&packet).err(), Some(kind), "{packet:02x?}");
        }
    }

    #[test]
    fn an_answer_reads_back() {
        let asked = a_query("Www.example.com", 7);
        let message = parse(&answer(&asked, Rcode::NOERROR, 3));
        assert_eq!((message.metadata.id, message.answers.len()), (7, 3));
        assert_eq!(message.answers[2].data.to_string(), "192.0.2.3");
        let message = parse(&answer(&asked, Rcode::NXDOMAIN, 0));
        assert_eq!(u16::from(message.metadata.response_code), 3);
    }
}
