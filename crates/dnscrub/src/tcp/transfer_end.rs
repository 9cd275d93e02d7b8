//! Where a zone transfer ends: the only thing the proxy reads in one.
//!
//! The end is where the closing SOA stands (RFC 5936 section 2.2, RFC 1995 section 4). Nothing else
//! in the messages is looked at or changed, so signed transfers (RFC 8945) pass through as well.

use dnscrub_wire::{Query, qtype};

const HEADER: usize = 12;

/// What a message means for the transfer it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More messages follow.
    More,
    /// It is the last one.
    Over,
    /// It does not belong to the transfer, or cannot be read.
    Broken,
}

/// Follows the messages of one transfer.
#[derive(Debug)]
pub(super) struct EndDetector {
    id: u16,
    /// The serial the client has, where it asked for what changed since.
    has: Option<u32>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has come.
    Start,
    /// The opening SOA has come. Only what follows tells a whole zone from differences.
    Opened { serial: u32 },
    /// A whole zone: the next SOA is the last record.
    Whole,
    /// Differences: SOAs come in pairs, the zone's before and after each. An SOA with the newest
    /// serial where a pair would begin is the last record.
    Differences { serial: u32, in_pair: bool },
}

impl EndDetector {
    /// For the answer to this query, parsed from `packet`.
    pub(super) fn new(query: &Query, packet: &[u8]) -> Self {
        let has = (query.qtype == qtype::IXFR)
            .then(|| serial_asked_with(packet))
            .flatten();
        Self {
            id: query.id,
            has,
            state: State::Start,
        }
    }

    /// Looks at the next message.
    pub(super) fn on_message(&mut self, message: &[u8]) -> Progress {
        self.read(message).unwrap_or(Progress::Broken)
    }

    fn read(&mut self, message: &[u8]) -> Option<Progress> {
        let header = Header::read(message)?;
        if header.id != self.id || !header.response {
            return Some(Progress::Broken);
        }
        if header.rcode != 0 {
            return Some(Progress::Over);
        }
        let mut at = header.skip_questions(message)?;
        for _ in 0..header.answers {
            let record = Record::read(message, at)?;
            at = record.end;
            let soa = if record.rtype == qtype::SOA {
                Some(soa_serial(message, &record)?)
            } else {
                None
            };
            if self.on_record(soa) {
                return Some(Progress::Over);
            }
        }
        // an answer without records is all there is
        Some(if self.state == State::Start {
            Progress::Over
        } else {
            Progress::More
        })
    }

    /// Takes note of a record, with its serial if it is an SOA; whether it is the last one.
    fn on_record(&mut self, soa: Option<u32>) -> bool {
        match (self.state, soa) {
            (State::Start, Some(serial)) => {
                self.state = State::Opened { serial };
                // the client has that version, or a newer one, already: the SOA is the whole answer
                self.has.is_some_and(|has| !is_newer(serial, has))
            }
            // every transfer begins with an SOA, so this is none
            (State::Start, None) => true,
            (State::Opened { .. }, None) => {
                self.state = State::Whole;
                false
            }
            (State::Opened { serial }, Some(next)) => {
                self.state = State::Differences {
                    serial,
                    in_pair: true,
                };
                serial == next
            }
            (State::Whole, soa) => soa.is_some(),
            (State::Differences { .. }, None) => false,
            (State::Differences { serial, in_pair }, Some(next)) => {
                self.state = State::Differences {
                    serial,
                    in_pair: !in_pair,
                };
                !in_pair && next == serial
            }
        }
    }
}

/// Serial number arithmetic (RFC 1982 section 3.2).
const fn is_newer(serial: u32, than: u32) -> bool {
    serial != than && serial.wrapping_sub(than) < 1 << 31
}

/// The serial in the authority section of an IXFR query (RFC 1995 section 3).
fn serial_asked_with(packet: &[u8]) -> Option<u32> {
    let header = Header::read(packet)?;
    if header.answers != 0 || header.authorities == 0 {
        return None;
    }
    let record = Record::read(packet, header.skip_questions(packet)?)?;
    if record.rtype == qtype::SOA {
        soa_serial(packet, &record)
    } else {
        None
    }
}

struct Header {
    id: u16,
    response: bool,
    rcode: u8,
    questions: u16,
    answers: u16,
    authorities: u16,
}

impl Header {
    fn read(message: &[u8]) -> Option<Self> {
        let &[i0, i1, f0, f1, q0, q1, a0, a1, n0, n1, _, _] = message.first_chunk::<HEADER>()?;
        Some(Self {
            id: u16::from_be_bytes([i0, i1]),
            response: f0 & 0x80 != 0,
            rcode: f1 & 0x0f,
            questions: u16::from_be_bytes([q0, q1]),
            answers: u16::from_be_bytes([a0, a1]),
            authorities: u16::from_be_bytes([n0, n1]),
        })
    }

    /// Offset of the answer section.
    fn skip_questions(&self, message: &[u8]) -> Option<usize> {
        (0..self.questions).try_fold(HEADER, |at, _| Some(skip_name(message, at)? + 4))
    }
}

struct Record {
    rtype: u16,
    data_at: usize,
    end: usize,
}

impl Record {
    fn read(message: &[u8], at: usize) -> Option<Self> {
        let fixed_at = skip_name(message, at)?;
        let &[t0, t1, _, _, _, _, _, _, l0, l1] = message.get(fixed_at..)?.first_chunk::<10>()?;
        let data_at = fixed_at + 10;
        let end = data_at + usize::from(u16::from_be_bytes([l0, l1]));
        (end <= message.len()).then_some(Self {
            rtype: u16::from_be_bytes([t0, t1]),
            data_at,
            end,
        })
    }
}

fn soa_serial(message: &[u8], record: &Record) -> Option<u32> {
    let serial_at = skip_name(message, skip_name(message, record.data_at)?)?;
    if serial_at + 4 > record.end {
        return None;
    }
    message
        .get(serial_at..)?
        .first_chunk()
        .copied()
        .map(u32::from_be_bytes)
}

/// Offset behind a name, which may be compressed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnscrub_wire::{Name, QueryBuilder};

    /// A record of a made-up zone: an SOA with its serial, or something else.
    #[derive(Clone, Copy)]
    enum Rr {
        Soa(u32),
        Other,
    }
    use Rr::{Other, Soa};

    fn put(packet: &mut Vec<u8>, rr: Rr) {
        let (rtype, data) = match rr {
            Soa(serial) => {
                // names compressed to the question's
                let mut data = vec![2, b'n', b's', 0xc0, 12, 0xc0, 12];
                data.extend_from_slice(&serial.to_be_bytes());
                data.extend_from_slice(&[0; 16]);
                (qtype::SOA, data)
            }
            Other => (qtype::A, vec![192, 0, 2, 1]),
        };
        packet.extend_from_slice(&[0xc0, 12]);
        packet.extend_from_slice(&rtype.to_be_bytes());
        packet.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        packet.extend_from_slice(&(data.len() as u16).to_be_bytes());
        packet.extend_from_slice(&data);
    }

    fn query(rtype: u16, has: Option<u32>) -> Vec<u8> {
        let mut packet = QueryBuilder::new(&Name::from_text("example.com").unwrap(), rtype)
            .id(7)
            .build();
        if let Some(serial) = has {
            packet[9] = 1;
            put(&mut packet, Soa(serial));
        }
        packet
    }

    fn answer(query: &[u8], records: &[Rr]) -> Vec<u8> {
        let mut packet = query[..Query::parse(query).unwrap().question_end.into()].to_vec();
        packet[2] |= 0x84;
        packet[7] = records.len() as u8;
        packet[9] = 0;
        for &rr in records {
            put(&mut packet, rr);
        }
        packet
    }

    /// What is said about each message, for every way to spread the records over messages.
    fn check(query: &[u8], records: &[Rr]) {
        for per_message in 1..=records.len() {
            let mut detector = EndDetector::new(&Query::parse(query).unwrap(), query);
            let messages: Vec<_> = records.chunks(per_message).collect();
            for (number, chunk) in messages.iter().enumerate() {
                let expected = if number + 1 == messages.len() {
                    Progress::Over
                } else {
                    Progress::More
                };
                assert_eq!(
                    detector.on_message(&answer(query, chunk)),
                    expected,
                    "{per_message} in a message, message {number}"
                );
            }
        }
    }

    #[test]
    fn a_whole_zone_ends_with_its_second_soa() {
        check(
            &query(qtype::AXFR, None),
            &[Soa(3), Other, Other, Other, Soa(3)],
        );
        check(
            &query(qtype::IXFR, Some(1)),
            &[Soa(3), Other, Other, Soa(3)],
        );
    }

    #[test]
    fn differences_end_with_the_newest_soa_where_a_pair_would_begin() {
        let asked = query(qtype::IXFR, Some(1));
        check(
            &asked,
            &[
                Soa(3),
                Soa(1),
                Other,
                Soa(2),
                Other,
                Other,
                Soa(2),
                Soa(3),
                Other,
                Soa(3),
            ],
        );
        check(&asked, &[Soa(3), Soa(1), Soa(3), Soa(3)]);
        check(&asked, &[Soa(3), Soa(3)]);
    }

    #[test]
    fn a_client_that_is_up_to_date_gets_one_soa() {
        for has in [3, 4, 3_u32.wrapping_add(1 << 30)] {
            check(&query(qtype::IXFR, Some(has)), &[Soa(3)]);
        }
        // the serial has wrapped around: there is something new
        let asked = query(qtype::IXFR, Some(u32::MAX));
        let mut detector = EndDetector::new(&Query::parse(&asked).unwrap(), &asked);
        assert_eq!(
            detector.on_message(&answer(&asked, &[Soa(3)])),
            Progress::More
        );
    }

    #[test]
    fn refusals_and_empty_answers_are_all_there_is() {
        let asked = query(qtype::AXFR, None);
        let parsed = Query::parse(&asked).unwrap();
        let mut refused = answer(&asked, &[]);
        refused[3] |= 5;
        for last in [refused, answer(&asked, &[]), answer(&asked, &[Other])] {
            assert_eq!(
                EndDetector::new(&parsed, &asked).on_message(&last),
                Progress::Over
            );
        }
        // midway, too
        let mut detector = EndDetector::new(&parsed, &asked);
        assert_eq!(
            detector.on_message(&answer(&asked, &[Soa(1), Other])),
            Progress::More
        );
        let mut failed = answer(&asked, &[]);
        failed[3] |= 2;
        assert_eq!(detector.on_message(&failed), Progress::Over);
    }

    #[test]
    fn what_cannot_be_read_breaks_it_off_and_nothing_panics() {
        let asked = query(qtype::AXFR, None);
        let parsed = Query::parse(&asked).unwrap();
        let good = answer(&asked, &[Soa(3), Other, Soa(3)]);
        let mut other_id = good.clone();
        other_id[0] = 1;
        assert_eq!(
            EndDetector::new(&parsed, &asked).on_message(&other_id),
            Progress::Broken
        );
        for len in 0..good.len() {
            assert_eq!(
                EndDetector::new(&parsed, &asked).on_message(&good[..len]),
                Progress::Broken,
                "{len} octets"
            );
        }
        for at in 0..good.len() {
            for value in [0, 1, 63, 64, 192, 255] {
                let mut bent = good.clone();
                bent[at] = value;
                let _ = EndDetector::new(&parsed, &asked).on_message(&bent);
                let _ = serial_asked_with(&bent);
            }
        }
    }
}
