//! From a query's octets to an answer's octets.

use std::collections::HashMap;
use std::sync::Arc;

use dnscrub_wire::{Edns, HEADER_LEN, Malformed, Name, Opcode, Query, Rcode, qclass, qtype};
use hickory_proto::op::Message;
use hickory_proto::rr::RData;

use crate::zone::{Found, Node, RrSet, Zone};

/// What a query came over; it decides how long an answer may be and whether a zone may be
/// transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram: what the client cannot take is truncated.
    Udp,
    /// A stream of messages of at most 65,535 octets.
    Tcp,
}

/// Sizes an [`Authority`] keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of the longest UDP answer, whatever the client takes; also the size announced in
    /// EDNS. 1,232 by default.
    pub udp_payload_size: u16,
    /// Records in one message of a zone transfer; 100 by default. A message is also closed before
    /// it would exceed 65,535 octets.
    pub records_per_transfer_message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            udp_payload_size: 1232,
            records_per_transfer_message: 100,
        }
    }
}

/// What a query is answered with.
#[derive(Debug)]
pub enum Reply {
    /// Nothing: the packet is a response or has no whole header.
    Silence,
    /// One message, in the buffer that was given.
    Message {
        /// With the extended bits.
        rcode: Rcode,
        /// TC was set.
        truncated: bool,
    },
    /// A zone transfer: the iterator's messages, one after the other.
    Transfer(Box<Transfer>),
}

/// The zones one name server is authoritative for.
#[derive(Debug, Default)]
pub struct Authority {
    zones: HashMap<Box<[u8]>, Arc<Zone>, ahash::RandomState>,
    limits: Limits,
}

/// Links of a CNAME chain that are followed inside the zone.
const MAX_CHAIN: usize = 8;

/// Octets of an OPT record without options.
const OPT_LEN: usize = 11;

impl Authority {
    /// Serves `zones`, of which the one with the longest matching origin answers.
    pub fn new(zones: impl IntoIterator<Item = Zone>) -> Self {
        Self::with_limits(zones, Limits::default())
    }

    /// [`new`](Self::new) with sizes of one's own.
    pub fn with_limits(zones: impl IntoIterator<Item = Zone>, limits: Limits) -> Self {
        let zones = zones
            .into_iter()
            .map(|zone| (zone.origin().as_wire().into(), Arc::new(zone)))
            .collect();
        Self { zones, limits }
    }

    /// The zone with this origin.
    #[must_use]
    pub fn zone(&self, origin: &Name) -> Option<&Zone> {
        self.zones.get(origin.as_wire()).map(AsRef::as_ref)
    }

    /// Answers one message. `out` is cleared, and holds the answer where the reply is
    /// [`Reply::Message`].
    #[must_use]
    pub fn answer(&self, packet: &[u8], transport: Transport, out: &mut Vec<u8>) -> Reply {
        out.clear();
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(defect) => return malformed(packet, defect, out),
        };
        if query.flags.opcode() != Opcode::QUERY {
            return self.answer_with(&query, packet, Rcode::NOTIMP, false, out);
        }
        if query.edns.is_some_and(|edns| edns.version > 0) {
            return self.answer_with(&query, packet, Rcode::BADVERS, false, out);
        }
        let zone = query
            .qname
            .suffixes()
            .find_map(|suffix| self.zones.get(suffix));
        let Some(zone) = zone.filter(|_| matches!(query.qclass, qclass::IN | qclass::ANY)) else {
            return self.answer_with(&query, packet, Rcode::REFUSED, false, out);
        };
        if matches!(query.qtype, qtype::AXFR | qtype::IXFR) {
            return self.transfer(zone, &query, packet, transport, out);
        }
        let limit = match transport {
            Transport::Udp => query
                .response_limit()
                .min(usize::from(self.limits.udp_payload_size)),
            Transport::Tcp => usize::from(u16::MAX),
        };
        let mut answer = Writer::new(&query, packet, out);
        let rcode = answer.resolve(zone);
        answer.finish(rcode, limit, self.limits.udp_payload_size)
    }

    /// [`answer`](Self::answer) as a list of whole messages: none for silence, several for a zone
    /// transfer.
    #[must_use]
    pub fn messages(&self, packet: &[u8], transport: Transport) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        match self.answer(packet, transport, &mut out) {
            Reply::Silence => Vec::new(),
            Reply::Message { .. } => vec![out],
            Reply::Transfer(transfer) => transfer.collect(),
        }
    }

    /// Answers a query that was parsed without looking into a zone: the header, the question, and
    /// EDNS where the query has it.
    pub fn answer_with(
        &self,
        query: &Query,
        packet: &[u8],
        rcode: Rcode,
        truncated: bool,
        out: &mut Vec<u8>,
    ) -> Reply {
        out.clear();
        let mut answer = Writer::new(query, packet, out);
        answer.authoritative = false;
        answer.truncated = truncated;
        answer.finish(rcode, usize::from(u16::MAX), self.limits.udp_payload_size)
    }

    fn transfer(
        &self,
        zone: &Arc<Zone>,
        query: &Query,
        packet: &[u8],
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Reply {
        if query.qname != *zone.origin() {
            // RFC 5936 section 2.2.1: not authoritative for that zone
            return self.answer_with(query, packet, Rcode(9), false, out);
        }
        let incremental = query.qtype == qtype::IXFR;
        if transport == Transport::Udp && !incremental {
            return self.answer_with(query, packet, Rcode::FORMERR, false, out);
        }
        // RFC 1995 section 2: one SOA record says "you are up to date", or over UDP "use TCP".
        if transport == Transport::Udp
            || (incremental && client_serial(packet) == Some(zone.serial()))
        {
            let mut answer = Writer::new(query, packet, out);
            if let Some(soa) = zone.soa_set() {
                answer.put_set(Section::Answer, zone.origin().as_wire(), soa);
            }
            return answer.finish(
                Rcode::NOERROR,
                usize::from(u16::MAX),
                self.limits.udp_payload_size,
            );
        }
        Reply::Transfer(Box::new(Transfer {
            zone: Arc::clone(zone),
            query: *query,
            question: query.question(packet).to_vec(),
            limits: self.limits,
            at: Some(Cursor::FirstSoa),
        }))
    }
}

/// The serial of the SOA record in an IXFR query's authority section (RFC 1995 section 3).
fn client_serial(packet: &[u8]) -> Option<u32> {
    let message = Message::from_vec(packet).ok()?;
    message
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        })
}

fn malformed(packet: &[u8], defect: Malformed, out: &mut Vec<u8>) -> Reply {
    let Some(header) = packet.first_chunk::<HEADER_LEN>() else {
        return Reply::Silence;
    };
    if defect == Malformed::Response || header[2] & 0x80 != 0 {
        return Reply::Silence;
    }
    let rcode = if header[2] & 0x78 == 0 {
        Rcode::FORMERR
    } else {
        Rcode::NOTIMP
    };
    out.extend_from_slice(&[header[0], header[1], header[2] & 0x79 | 0x80, rcode.0 as u8]);
    out.extend_from_slice(&[0; HEADER_LEN - 4]);
    Reply::Message {
        rcode,
        truncated: false,
    }
}

#[derive(Clone, Copy)]
enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

/// Writes one answer behind the copied question.
struct Writer<'a> {
    query: &'a Query,
    out: &'a mut Vec<u8>,
    counts: [u16; 3],
    authoritative: bool,
    truncated: bool,
}

impl<'a> Writer<'a> {
    fn new(query: &'a Query, packet: &[u8], out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(&[0; HEADER_LEN]);
        out.extend_from_slice(query.question(packet));
        Self {
            query,
            out,
            counts: [0; 3],
            authoritative: true,
            truncated: false,
        }
    }

    /// Follows the query through the zone (RFC 1034 section 4.3.2), filling the sections.
    fn resolve(&mut self, zone: &Zone) -> Rcode {
        let mut name = self.query.qname;
        for _ in 0..MAX_CHAIN {
            let node = match zone.find(&name, self.query.qtype) {
                Found::Name(node) | Found::Wildcard(node) => node,
                Found::Delegated(node, cut) => {
                    self.refer(zone, node, cut);
                    return Rcode::NOERROR;
                }
                Found::Nothing => {
                    self.put_soa(zone);
                    return Rcode::NXDOMAIN;
                }
            };
            if self.query.qtype == qtype::ANY && !node.sets.is_empty() {
                for set in &node.sets {
                    self.put_set(Section::Answer, name.as_wire(), set);
                }
                return Rcode::NOERROR;
            }
            if let Some(set) = node.set(self.query.qtype) {
                self.put_set(Section::Answer, name.as_wire(), set);
                return Rcode::NOERROR;
            }
            let Some(alias) = node.set(qtype::CNAME) else {
                self.put_soa(zone);
                return Rcode::NOERROR;
            };
            self.put_set(Section::Answer, name.as_wire(), alias);
            match alias.targets.first() {
                Some(target) if target.is_under(zone.origin()) => name = *target,
                _ => return Rcode::NOERROR,
            }
        }
        Rcode::NOERROR
    }

    /// A referral: the cut's NS records, and the addresses of servers below the cut.
    fn refer(&mut self, zone: &Zone, node: &Node, cut: &RrSet) {
        // Behind an alias the answer section is ours, and the header speaks of its first owner.
        self.authoritative = self.counts != [0; 3];
        self.put_set(Section::Authority, &node.owner, cut);
        for target in &cut.targets {
            let Some(glue) = zone.get(target.as_wire()) else {
                continue;
            };
            for address in [qtype::A, qtype::AAAA]
                .iter()
                .filter_map(|&rtype| glue.set(rtype))
            {
                self.put_set(Section::Additional, target.as_wire(), address);
            }
        }
    }

    fn put_soa(&mut self, zone: &Zone) {
        if let Some(soa) = zone.soa_set() {
            self.put_set(Section::Authority, zone.origin().as_wire(), soa);
        }
    }

    fn put_set(&mut self, section: Section, owner: &[u8], set: &RrSet) {
        for record in &set.records {
            self.put(section, owner, record);
        }
    }

    fn put(&mut self, section: Section, owner: &[u8], record: &[u8]) {
        put_owner(self.out, &self.query.qname, owner);
        self.out.extend_from_slice(record);
        self.counts[section as usize] += 1;
    }

    fn finish(mut self, rcode: Rcode, limit: usize, udp_payload_size: u16) -> Reply {
        let opt_len = if self.query.edns.is_some() {
            OPT_LEN
        } else {
            0
        };
        if self.out.len() + opt_len > limit {
            self.out.truncate(usize::from(self.query.question_end));
            self.counts = [0; 3];
            self.truncated = true;
        }
        if let Some(edns) = self.query.edns {
            put_opt(self.out, edns, rcode, udp_payload_size);
            self.counts[Section::Additional as usize] += 1;
        }
        put_header(
            self.out,
            self.query,
            self.authoritative,
            self.truncated,
            rcode,
            1,
            self.counts,
        );
        Reply::Message {
            rcode,
            truncated: self.truncated,
        }
    }
}

/// A pointer into the question where the owner is the qname or stands above it, the whole name
/// otherwise.
fn put_owner(out: &mut Vec<u8>, qname: &Name, owner: &[u8]) {
    let above = qname
        .len()
        .checked_sub(owner.len())
        .filter(|&at| qname.as_wire().get(at..) == Some(owner));
    // A tail of octets that are equal may start inside a label; real suffixes start at one.
    match above.filter(|_| qname.suffixes().any(|suffix| suffix.len() == owner.len())) {
        Some(at) if owner.len() > 1 => {
            out.extend_from_slice(&(0xc000 | (HEADER_LEN + at) as u16).to_be_bytes());
        }
        _ => out.extend_from_slice(owner),
    }
}

fn put_opt(out: &mut Vec<u8>, edns: Edns, rcode: Rcode, udp_payload_size: u16) {
    out.push(0);
    out.extend_from_slice(&qtype::OPT.to_be_bytes());
    out.extend_from_slice(&udp_payload_size.to_be_bytes());
    out.extend_from_slice(&[
        (rcode.0 >> 4) as u8,
        0,
        u8::from(edns.dnssec_ok) << 7,
        0,
        0,
        0,
    ]);
}

fn put_header(
    out: &mut [u8],
    query: &Query,
    authoritative: bool,
    truncated: bool,
    rcode: Rcode,
    questions: u16,
    counts: [u16; 3],
) {
    // QR, the query's opcode, RD and CD
    let flags = 0x8000
        | query.flags.0 & 0x7910
        | u16::from(authoritative) << 10
        | u16::from(truncated) << 9
        | rcode.0 & 0x000f;
    let fields = [query.id, flags, questions, counts[0], counts[1], counts[2]];
    for (to, from) in out.chunks_exact_mut(2).zip(fields) {
        to.copy_from_slice(&from.to_be_bytes());
    }
}

/// The messages of one zone transfer (RFC 5936): the SOA record, every other record, the SOA
/// record again. The first message repeats the question, the others do not.
#[derive(Debug)]
pub struct Transfer {
    zone: Arc<Zone>,
    query: Query,
    question: Vec<u8>,
    limits: Limits,
    at: Option<Cursor>,
}

/// The record that is sent next.
#[derive(Clone, Copy, Debug)]
enum Cursor {
    FirstSoa,
    Record {
        node: usize,
        set: usize,
        record: usize,
    },
    LastSoa,
}

impl Transfer {
    /// The record at the cursor, and where the cursor goes after it.
    fn record_at(&self, mut at: Cursor) -> (&[u8], &[u8], Option<Cursor>) {
        let soa = self
            .zone
            .soa_set()
            .and_then(|set| set.records.first())
            .map(AsRef::as_ref)
            .unwrap_or_default();
        let apex = self.zone.origin().as_wire();
        loop {
            at = match at {
                Cursor::FirstSoa => {
                    return (
                        apex,
                        soa,
                        Some(Cursor::Record {
                            node: 0,
                            set: 0,
                            record: 0,
                        }),
                    );
                }
                Cursor::LastSoa => return (apex, soa, None),
                Cursor::Record { node, set, record } => match self.zone.nodes().get(node) {
                    None => Cursor::LastSoa,
                    Some(owner) => match owner.sets.get(set) {
                        None => Cursor::Record {
                            node: node + 1,
                            set: 0,
                            record: 0,
                        },
                        Some(records) if records.rtype == qtype::SOA => Cursor::Record {
                            node,
                            set: set + 1,
                            record: 0,
                        },
                        Some(records) => match records.records.get(record) {
                            None => Cursor::Record {
                                node,
                                set: set + 1,
                                record: 0,
                            },
                            Some(octets) => {
                                return (
                                    &owner.owner,
                                    octets,
                                    Some(Cursor::Record {
                                        node,
                                        set,
                                        record: record + 1,
                                    }),
                                );
                            }
                        },
                    },
                },
            };
        }
    }
}

impl Iterator for Transfer {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut at = self.at?;
        let mut out = vec![0; HEADER_LEN];
        let questions = u16::from(matches!(at, Cursor::FirstSoa));
        if questions > 0 {
            out.extend_from_slice(&self.question);
        }
        let mut count = 0_u16;
        let room = usize::from(u16::MAX) - OPT_LEN;
        loop {
            let (owner, record, after) = self.record_at(at);
            if count > 0 && out.len() + owner.len() + record.len() > room {
                self.at = Some(at);
                break;
            }
            out.extend_from_slice(owner);
            out.extend_from_slice(record);
            count += 1;
            self.at = after;
            match after {
                Some(next)
                    if usize::from(count)
                        < self.limits.records_per_transfer_message.clamp(1, 60_000) =>
                {
                    at = next
                }
                _ => break,
            }
        }
        let mut counts = [count, 0, 0];
        if let Some(edns) = self.query.edns {
            put_opt(&mut out, edns, Rcode::NOERROR, self.limits.udp_payload_size);
            counts[2] = 1;
        }
        put_header(
            &mut out,
            &self.query,
            true,
            false,
            Rcode::NOERROR,
            questions,
            counts,
        );
        Some(out)
    }
}
