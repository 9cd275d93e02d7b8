//! One-pass view of a query.

use crate::header::{Flags, HEADER_LEN, Opcode};
use crate::malformed::Malformed;
use crate::name::{Name, ScanDefect, scan};
use crate::record::{Record, RecordDefect};
use crate::records::qtype;

/// A checked query: what the question asks, where things stand in the packet, and what its EDNS
/// says. Holds offsets instead of borrows, so that the packet can be edited in place afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The message id.
    pub id: u16,
    /// Opcode and flag bits.
    pub flags: Flags,
    /// The name asked for, in lower case.
    pub qname: Name,
    /// The type asked for.
    pub qtype: u16,
    /// The class asked for; in an UPDATE the class of the zone.
    pub qclass: u16,
    /// Offset just behind the question section.
    pub question_end: u16,
    /// The OPT record, where there is one.
    pub edns: Option<Edns>,
    /// A TSIG or SIG(0) record is there: not one octet but the id may change.
    pub signed: bool,
    /// Octets of the message.
    pub len: u16,
}

/// The one OPT record of a query (RFC 6891 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The sender's UDP payload size, as written (values below 512 mean 512).
    pub udp_size: u16,
    /// Upper eight bits of the extended rcode.
    pub extended_rcode: u8,
    /// EDNS version.
    pub version: u8,
    /// DO: DNSSEC OK.
    pub dnssec_ok: bool,
    /// Offset of the first option in the packet.
    pub options_at: u16,
    /// Octets of all options.
    pub options_len: u16,
}

/// One EDNS option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdnsOption<'a> {
    /// IANA "DNS EDNS0 Option Codes".
    pub code: u16,
    /// The option's data.
    pub data: &'a [u8],
}

impl Query {
    /// Checks the whole message and reads the question and EDNS.
    ///
    /// # Errors
    /// The first defect found, in the order of the octets.
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let header = packet
            .first_chunk::<HEADER_LEN>()
            .ok_or(Malformed::ShortHeader)?;
        let [i0, i1, f0, f1, q0, q1, a0, a1, n0, n1, r0, r1] = *header;
        let flags = Flags(u16::from_be_bytes([f0, f1]));
        if flags.is_response() {
            return Err(Malformed::Response);
        }
        match u16::from_be_bytes([q0, q1]) {
            0 => return Err(Malformed::NoQuestion),
            1 => {}
            _ => return Err(Malformed::ManyQuestions),
        }
        let len = u16::try_from(packet.len()).map_err(|_| Malformed::TrailingOctets)?;
        let body = packet.get(HEADER_LEN..).unwrap_or_default();
        let (qname_len, labels) = scan(body).map_err(|defect| match defect {
            ScanDefect::Cut => Malformed::QnameCut,
            ScanDefect::TooLong => Malformed::QnameTooLong,
            ScanDefect::LabelType => Malformed::QnameLabelType,
        })?;
        let qname_end = HEADER_LEN.saturating_add(qname_len);
        let [t0, t1, c0, c1] = *packet
            .get(qname_end..)
            .and_then(<[u8]>::first_chunk::<4>)
            .ok_or(Malformed::QuestionCut)?;
        let question_end = qname_end.saturating_add(4);

        let answers = u16::from_be_bytes([a0, a1]);
        if answers != 0 && flags.opcode() == Opcode::QUERY {
            return Err(Malformed::AnswerInQuery);
        }
        let mut walk = Walk {
            packet,
            at: question_end,
            edns: None,
            signed: false,
        };
        let counts = [
            answers,
            u16::from_be_bytes([n0, n1]),
            u16::from_be_bytes([r0, r1]),
        ];
        if counts != [0, 0, 0] {
            walk.sections(counts)?;
        }
        if walk.at != packet.len() {
            return Err(Malformed::TrailingOctets);
        }
        Ok(Self {
            id: u16::from_be_bytes([i0, i1]),
            flags,
            qname: Name::folded(body, qname_len, labels),
            qtype: u16::from_be_bytes([t0, t1]),
            qclass: u16::from_be_bytes([c0, c1]),
            question_end: question_end as u16,
            edns: walk.edns,
            signed: walk.signed,
            len,
        })
    }

    /// The question section as it stands in `packet`: qname in its original case, qtype, qclass.
    #[must_use]
    pub fn question<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet
            .get(HEADER_LEN..usize::from(self.question_end))
            .unwrap_or_default()
    }

    /// The EDNS options in their order; nothing without EDNS.
    pub fn options<'a>(&self, packet: &'a [u8]) -> impl Iterator<Item = EdnsOption<'a>> + use<'a> {
        let mut rest = self
            .edns
            .and_then(|edns| {
                let start = usize::from(edns.options_at);
                packet.get(start..start.saturating_add(usize::from(edns.options_len)))
            })
            .unwrap_or_default();
        std::iter::from_fn(move || {
            let (option, after) = split_option(rest)?;
            rest = after;
            Some(option)
        })
    }

    /// The largest UDP response the client takes, in octets: its EDNS size, at least 512
    /// (RFC 6891 section 6.2.3), or 512 without EDNS.
    #[must_use]
    pub fn response_limit(&self) -> usize {
        self.edns
            .map_or(512, |edns| usize::from(edns.udp_size).max(512))
    }
}

pub(crate) fn split_option(octets: &[u8]) -> Option<(EdnsOption<'_>, &[u8])> {
    let ([c0, c1, l0, l1], rest) = octets.split_first_chunk::<4>()?;
    let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
    Some((
        EdnsOption {
            code: u16::from_be_bytes([*c0, *c1]),
            data,
        },
        rest,
    ))
}

/// The walk over the records behind the question.
struct Walk<'a> {
    packet: &'a [u8],
    at: usize,
    edns: Option<Edns>,
    signed: bool,
}

impl Walk<'_> {
    fn sections(&mut self, counts: [u16; 3]) -> Result<(), Malformed> {
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                if self.signed {
                    return Err(Malformed::SignatureNotLast);
                }
                self.record(section == 2)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, additional: bool) -> Result<(), Malformed> {
        let record = Record::read(self.packet, self.at).map_err(|defect| match defect {
            RecordDefect::Cut => Malformed::RecordCut,
            RecordDefect::Name => Malformed::RecordName,
        })?;
        self.at = record.end;
        match record.rtype {
            qtype::OPT => {
                if !additional {
                    return Err(Malformed::OptMisplaced);
                }
                if !record.at_root {
                    return Err(Malformed::OptNotAtRoot);
                }
                if self.edns.is_some() {
                    return Err(Malformed::ManyOpts);
                }
                check_options(record.data)?;
                self.edns = Some(record.edns());
            }
            qtype::TSIG if additional => self.signed = true,
            // SIG(0): a SIG that covers type 0
            qtype::SIG if additional && record.data.first_chunk::<2>() == Some(&[0, 0]) => {
                self.signed = true
            }
            _ => {}
        }
        Ok(())
    }
}

fn check_options(mut data: &[u8]) -> Result<(), Malformed> {
    while !data.is_empty() {
        (_, data) = split_option(data).ok_or(Malformed::OptionCut)?;
    }
    Ok(())
}
