//! One-pass view of an upstream's response.

use crate::header::{Flags, HEADER_LEN, Rcode};
use crate::malformed::MalformedResponse;
use crate::name::{MAX_NAME_LEN, Name, scan};
use crate::query::Edns;
use crate::record::{Record, RecordDefect};
use crate::records::qtype;

/// A checked response: its question, its counts and its EDNS. Record data is not looked into.
/// Holds offsets instead of borrows, so that the packet can be edited in place afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The message id.
    pub id: u16,
    /// Opcode, flag bits and the low rcode bits.
    pub flags: Flags,
    /// The response code, with the OPT record's bits where there is one.
    pub rcode: Rcode,
    /// Offset just behind the question section; [`HEADER_LEN`] where that section is empty.
    pub question_end: u16,
    /// Records that the header counts in the answer section.
    pub answers: u16,
    /// Records that the header counts in the authority section.
    pub authorities: u16,
    /// Records that the header counts in the additional section, OPT and TSIG among them.
    pub additionals: u16,
    /// The first OPT record, where there is one. Its options are not checked.
    pub edns: Option<Edns>,
    /// The authority section names the servers of a child zone and has no SOA
    /// (RFC 2308 section 2.2).
    pub delegation: bool,
    /// Octets of the message.
    pub len: u16,
}

impl Response {
    /// Checks the layout of the whole message. The question section may be empty only where the
    /// rcode says that the query was not understood or not served. A message with TC set may end
    /// within a record, because some servers cut there. Octets behind the last record are left
    /// for the client to judge.
    ///
    /// # Errors
    /// The first defect found, in the order of the octets.
    pub fn parse(packet: &[u8]) -> Result<Self, MalformedResponse> {
        let header = packet
            .first_chunk::<HEADER_LEN>()
            .ok_or(MalformedResponse::ShortHeader)?;
        let [i0, i1, f0, f1, q0, q1, a0, a1, n0, n1, r0, r1] = *header;
        let flags = Flags(u16::from_be_bytes([f0, f1]));
        if !flags.is_response() {
            return Err(MalformedResponse::Query);
        }
        let len = u16::try_from(packet.len()).map_err(|_| MalformedResponse::TooLong)?;
        let question_end = match u16::from_be_bytes([q0, q1]) {
            0 if matches!(flags.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) => {
                return Err(MalformedResponse::NoQuestion);
            }
            0 => HEADER_LEN,
            1 => question_end(packet)?,
            _ => return Err(MalformedResponse::ManyQuestions),
        };
        let mut response = Self {
            id: u16::from_be_bytes([i0, i1]),
            flags,
            rcode: flags.rcode(),
            question_end: question_end as u16,
            answers: u16::from_be_bytes([a0, a1]),
            authorities: u16::from_be_bytes([n0, n1]),
            additionals: u16::from_be_bytes([r0, r1]),
            edns: None,
            delegation: false,
            len,
        };
        match response.walk(packet) {
            Ok(()) => {}
            Err(RecordDefect::Cut) if flags.truncated() => {}
            Err(RecordDefect::Cut) => return Err(MalformedResponse::RecordCut),
            Err(RecordDefect::Name) => return Err(MalformedResponse::RecordName),
        }
        Ok(response)
    }

    fn walk(&mut self, packet: &[u8]) -> Result<(), RecordDefect> {
        let mut at = usize::from(self.question_end);
        for _ in 0..self.answers {
            at = Record::read(packet, at)?.end;
        }
        let (mut servers, mut authority) = (false, false);
        for _ in 0..self.authorities {
            let record = Record::read(packet, at)?;
            servers |= record.rtype == qtype::NS;
            authority |= record.rtype == qtype::SOA;
            at = record.end;
        }
        self.delegation = servers && !authority;
        for _ in 0..self.additionals {
            let record = Record::read(packet, at)?;
            if record.rtype == qtype::OPT && self.edns.is_none() {
                let edns = record.edns();
                self.rcode = Rcode(u16::from(edns.extended_rcode) << 4 | self.flags.rcode().0);
                self.edns = Some(edns);
            }
            at = record.end;
        }
        Ok(())
    }

    /// The question section as it stands in `packet`: qname in its original case, qtype, qclass.
    /// Empty where the response has none.
    #[must_use]
    pub fn question<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet
            .get(HEADER_LEN..usize::from(self.question_end))
            .unwrap_or_default()
    }

    /// Whether the response is to `question`, a question section as [`crate::Query::question`]
    /// returns it: the qname equal but for case, qtype and qclass equal. A response without a
    /// question answers none.
    #[must_use]
    pub fn answers_question(&self, packet: &[u8], question: &[u8]) -> bool {
        let (Some((own_name, own_rest)), Some((name, rest))) = (
            self.question(packet).split_last_chunk::<4>(),
            question.split_last_chunk::<4>(),
        ) else {
            return false;
        };
        // length octets are at most 63, so ignoring case cannot make two of them equal
        own_rest == rest && own_name.eq_ignore_ascii_case(name)
    }

    /// Whose authority section this is: the owner of its SOA record, which names the zone of an
    /// answer that there is nothing (RFC 2308 section 2), or else of its first NS record, which
    /// names the zone that a referral leads to. Nothing where there is neither, or where the
    /// owner is not a name.
    #[must_use]
    pub fn authority_owner(&self, packet: &[u8]) -> Option<Name> {
        let mut at = usize::from(self.question_end);
        for _ in 0..self.answers {
            at = Record::read(packet, at).ok()?.end;
        }
        let mut servers = None;
        for _ in 0..self.authorities {
            let record = Record::read(packet, at).ok()?;
            match record.rtype {
                qtype::SOA => return read_name(packet, at),
                qtype::NS => servers = servers.or(Some(at)),
                _ => {}
            }
            at = record.end;
        }
        read_name(packet, servers?)
    }

    /// TC: the answer did not fit and must be asked for over TCP.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.flags.truncated()
    }

    /// The name exists but has no record of the type asked for (RFC 2308 section 2.2): NOERROR,
    /// no answer, whole, and not a delegation.
    #[must_use]
    pub fn is_nodata(&self) -> bool {
        self.rcode == Rcode::NOERROR
            && self.answers == 0
            && !self.is_truncated()
            && !self.is_referral()
    }

    /// The response sends the client on to the servers of a child zone.
    #[must_use]
    pub fn is_referral(&self) -> bool {
        self.rcode == Rcode::NOERROR && self.answers == 0 && self.delegation
    }
}

fn question_end(packet: &[u8]) -> Result<usize, MalformedResponse> {
    let (qname_len, _) =
        scan(packet.get(HEADER_LEN..).unwrap_or_default()).map_err(|_| MalformedResponse::Qname)?;
    let end = HEADER_LEN.saturating_add(qname_len).saturating_add(4);
    if end > packet.len() {
        return Err(MalformedResponse::QuestionCut);
    }
    Ok(end)
}

/// The name at `start`, which may be compressed (RFC 1035 section 4.1.4). Each pointer must lead
/// further back than the one before, so that it ends.
fn read_name(packet: &[u8], start: usize) -> Option<Name> {
    let mut octets = [0; MAX_NAME_LEN];
    let mut len = 0_usize;
    let (mut at, mut limit) = (start, start);
    loop {
        let first = *packet.get(at)?;
        match first {
            0 => {
                // the octet behind what was copied is still 0: the root
                let end = len.saturating_add(1);
                return Name::from_wire(octets.get(..end)?).ok();
            }
            1..=63 => {
                let next = at.saturating_add(usize::from(first)).saturating_add(1);
                let label = packet.get(at..next)?;
                let end = len.saturating_add(label.len());
                octets.get_mut(len..end)?.copy_from_slice(label);
                (len, at) = (end, next);
            }
            192..=255 => {
                let low = *packet.get(at.saturating_add(1))?;
                let target = usize::from(u16::from_be_bytes([first & 0x3f, low]));
                if target < HEADER_LEN || target >= limit {
                    return None;
                }
                (at, limit) = (target, target);
            }
            _ => return None,
        }
    }
}
