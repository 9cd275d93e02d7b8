//! Queries made from scratch, for probes, the command line and tests.

use crate::header::{Flags, Opcode};
use crate::name::Name;
use crate::records::{qclass, qtype};

/// Builds a query: header, one question, and EDNS where asked for.
///
/// ```
/// use dnscrub_wire::{Name, Query, QueryBuilder, qtype};
///
/// let packet = QueryBuilder::new(&Name::from_text("example.com")?, qtype::SOA)
///     .id(0x1234)
///     .udp_size(1232)
///     .dnssec_ok(true)
///     .build();
/// let query = Query::parse(&packet).expect("well formed");
/// assert_eq!((query.id, query.qtype), (0x1234, qtype::SOA));
/// # Ok::<(), dnscrub_wire::NameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct QueryBuilder {
    id: u16,
    flags: Flags,
    qname: Name,
    qtype: u16,
    qclass: u16,
    edns: Option<OptFields>,
}

#[derive(Clone, Debug, Default)]
struct OptFields {
    udp_size: u16,
    version: u8,
    dnssec_ok: bool,
    options: Vec<u8>,
}

/// Room for options so that the longest message stays below 65,536 octets: header 12, question
/// 259, OPT 11.
const MAX_OPTIONS_LEN: usize = 65_535 - 12 - 259 - 11;

impl QueryBuilder {
    /// A query of class IN for `qname` and `qtype`, with id 0, opcode QUERY, no flag set and no
    /// EDNS.
    #[must_use]
    pub const fn new(qname: &Name, qtype: u16) -> Self {
        Self {
            id: 0,
            flags: Flags(0),
            qname: *qname,
            qtype,
            qclass: qclass::IN,
            edns: None,
        }
    }

    /// The message id.
    #[must_use]
    pub const fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// The class asked for.
    #[must_use]
    pub const fn qclass(mut self, qclass: u16) -> Self {
        self.qclass = qclass;
        self
    }

    /// All flag bits, the opcode included, as they are to be written.
    #[must_use]
    pub const fn flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    /// The kind of query; the other flag bits stay.
    #[must_use]
    pub const fn opcode(mut self, opcode: Opcode) -> Self {
        self.flags.0 = self.flags.0 & 0x87ff | ((opcode.0 & 0x0f) as u16) << 11;
        self
    }

    /// RD: recursion desired.
    #[must_use]
    pub const fn recursion_desired(self, on: bool) -> Self {
        self.flag(0x0100, on)
    }

    /// AD: the client understands authentic data (RFC 6840 section 5.7).
    #[must_use]
    pub const fn authentic_data(self, on: bool) -> Self {
        self.flag(0x0020, on)
    }

    /// CD: checking disabled.
    #[must_use]
    pub const fn checking_disabled(self, on: bool) -> Self {
        self.flag(0x0010, on)
    }

    const fn flag(mut self, bit: u16, on: bool) -> Self {
        self.flags.0 = if on {
            self.flags.0 | bit
        } else {
            self.flags.0 & !bit
        };
        self
    }

    /// Adds EDNS with this UDP payload size in octets.
    #[must_use]
    pub fn udp_size(mut self, octets: u16) -> Self {
        self.opt().udp_size = octets;
        self
    }

    /// Adds EDNS with DO as told.
    #[must_use]
    pub fn dnssec_ok(mut self, on: bool) -> Self {
        self.opt().dnssec_ok = on;
        self
    }

    /// Adds EDNS of this version; 0 is the only one there is.
    #[must_use]
    pub fn edns_version(mut self, version: u8) -> Self {
        self.opt().version = version;
        self
    }

    /// Adds an EDNS option behind those already there. One that would make the message longer
    /// than 65,535 octets is left out.
    #[must_use]
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        let options = &mut self.opt().options;
        let len = options.len().saturating_add(data.len()).saturating_add(4);
        if len <= MAX_OPTIONS_LEN {
            options.extend_from_slice(&code.to_be_bytes());
            options.extend_from_slice(&(data.len() as u16).to_be_bytes());
            options.extend_from_slice(data);
        }
        self
    }

    fn opt(&mut self) -> &mut OptFields {
        self.edns.get_or_insert_with(|| OptFields {
            udp_size: crate::edit::OUR_UDP_SIZE,
            ..OptFields::default()
        })
    }

    /// The query in wire format.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(64);
        packet.extend_from_slice(&self.id.to_be_bytes());
        packet.extend_from_slice(&self.flags.0.to_be_bytes());
        packet.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        packet.extend_from_slice(self.qname.as_wire());
        packet.extend_from_slice(&self.qtype.to_be_bytes());
        packet.extend_from_slice(&self.qclass.to_be_bytes());
        if let Some(edns) = &self.edns {
            packet.push(0);
            packet.extend_from_slice(&qtype::OPT.to_be_bytes());
            packet.extend_from_slice(&edns.udp_size.to_be_bytes());
            packet.extend_from_slice(&[0, edns.version, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
            packet.extend_from_slice(&(edns.options.len() as u16).to_be_bytes());
            packet.extend_from_slice(&edns.options);
        }
        packet
    }
}
