//! A zone in memory: master-file text in, record sets in wire format out.

use std::collections::HashMap;
use std::fmt;

use dnscrub_wire::{Name, qclass, qtype};
use hickory_proto::rr::{self, RData};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use hickory_proto::serialize::txt::Parser;

/// One zone: every name in it, with its record sets ready to be copied into an answer.
pub struct Zone {
    origin: Name,
    nodes: Vec<Node>,
    /// Owner in lower-case wire format to place in `nodes`.
    index: HashMap<Box<[u8]>, usize, ahash::RandomState>,
    /// Place of the apex in `nodes`.
    apex: usize,
    serial: u32,
    records: usize,
}

/// Why a text is not a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneError {
    /// The zone's origin, as given.
    pub origin: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zone {}: {}", self.origin, self.message)
    }
}

impl std::error::Error for ZoneError {}

/// A name that exists. Without sets it is an empty non-terminal (RFC 8499 section 7).
pub(crate) struct Node {
    /// Lower-case wire format.
    pub(crate) owner: Box<[u8]>,
    /// In the order of their types.
    pub(crate) sets: Vec<RrSet>,
}

impl Node {
    pub(crate) fn set(&self, rtype: u16) -> Option<&RrSet> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }
}

/// The records of one owner and type.
pub(crate) struct RrSet {
    pub(crate) rtype: u16,
    /// Each record in wire format from its type on, without the owner, names uncompressed.
    pub(crate) records: Vec<Box<[u8]>>,
    /// The names an NS or CNAME set points at.
    pub(crate) targets: Vec<Name>,
}

/// What a look-up in a zone came to.
pub(crate) enum Found<'z> {
    /// The name exists.
    Name(&'z Node),
    /// The name does not exist, but a wildcard stands in for it (RFC 4592).
    Wildcard(&'z Node),
    /// The name is at or below a zone cut.
    Delegated(&'z Node, &'z RrSet),
    /// NXDOMAIN.
    Nothing,
}

impl Zone {
    /// Parses a zone from master-file text (RFC 1035 section 5). `$ORIGIN` and `$TTL` are
    /// understood, `$INCLUDE` is not.
    ///
    /// # Errors
    /// The text does not parse, the apex has no single SOA record, or an owner is outside the zone.
    pub fn parse(origin: &str, text: &str) -> Result<Self, ZoneError> {
        Self::build(origin, text).map_err(|message| ZoneError {
            origin: origin.to_owned(),
            message,
        })
    }

    fn build(origin: &str, text: &str) -> Result<Self, String> {
        if text.lines().any(|line| {
            line.trim_start()
                .to_ascii_uppercase()
                .starts_with("$INCLUDE")
        }) {
            return Err("$INCLUDE is not supported".to_owned());
        }
        let own_origin = Name::from_text(origin).map_err(|error| error.to_string())?;
        let mut parse_origin = rr::Name::from_ascii(origin).map_err(|error| error.to_string())?;
        parse_origin.set_fqdn(true);
        let (_, sets) = Parser::new(text, None, Some(parse_origin))
            .parse()
            .map_err(|error| error.to_string())?;

        let mut zone = Self {
            origin: own_origin,
            nodes: Vec::new(),
            index: HashMap::default(),
            apex: 0,
            serial: 0,
            records: 0,
        };
        zone.apex = zone.node_at(own_origin.as_wire());
        for set in sets.values() {
            for record in set.records_without_rrsigs() {
                zone.insert(record)?;
            }
        }
        for node in &mut zone.nodes {
            node.sets.sort_by_key(|set| set.rtype);
        }
        match zone.soa_set().map(|set| set.records.len()) {
            Some(1) => Ok(zone),
            Some(_) => Err("there is more than one SOA record".to_owned()),
            None => Err("there is no SOA record at the apex".to_owned()),
        }
    }

    fn insert(&mut self, record: &rr::Record) -> Result<(), String> {
        let owner = wire_name(&record.name)?;
        if !owner.is_under(&self.origin) {
            return Err(format!("{owner} is outside the zone"));
        }
        if let RData::SOA(soa) = &record.data {
            if owner != self.origin {
                return Err(format!(
                    "the SOA record of {owner} does not stand at the apex"
                ));
            }
            self.serial = soa.serial;
        }
        let rtype = u16::from(record.record_type());
        let octets = record_octets(record)?;
        let target = match &record.data {
            RData::NS(ns) => Some(wire_name(&ns.0)?),
            RData::CNAME(cname) => Some(wire_name(&cname.0)?),
            _ => None,
        };
        self.records += 1;
        let place = self.node_at(owner.as_wire());
        let Some(node) = self.nodes.get_mut(place) else {
            return Err("the index is out of step".to_owned());
        };
        let set = match node.sets.iter_mut().position(|set| set.rtype == rtype) {
            Some(at) => &mut node.sets[at],
            None => {
                node.sets.push(RrSet {
                    rtype,
                    records: Vec::new(),
                    targets: Vec::new(),
                });
                let last = node.sets.len() - 1;
                &mut node.sets[last]
            }
        };
        set.records.push(octets);
        set.targets.extend(target);
        Ok(())
    }

    /// The node of `owner`, created together with the empty non-terminals above it.
    fn node_at(&mut self, owner: &[u8]) -> usize {
        if let Some(&place) = self.index.get(owner) {
            return place;
        }
        let place = self.nodes.len();
        self.nodes.push(Node {
            owner: owner.into(),
            sets: Vec::new(),
        });
        self.index.insert(owner.into(), place);
        let parent = owner
            .first()
            .and_then(|&len| owner.get(usize::from(len) + 1..));
        if let Some(parent) = parent.filter(|parent| parent.len() > self.origin.len()) {
            self.node_at(parent);
        }
        place
    }

    /// The zone's name.
    #[must_use]
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// The SOA record's serial.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Records in the zone.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.records
    }

    /// Every name that exists, with the empty non-terminals, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = Name> + '_ {
        self.nodes
            .iter()
            .filter_map(|node| Name::from_wire(&node.owner).ok())
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn soa_set(&self) -> Option<&RrSet> {
        self.nodes
            .get(self.apex)
            .and_then(|apex| apex.set(qtype::SOA))
    }

    /// Where `qname`, which is in this zone, leads (RFC 1034 section 4.3.2 step 3).
    pub(crate) fn find(&self, qname: &Name, asked: u16) -> Found<'_> {
        let Some(mut encloser) = self.nodes.get(self.apex) else {
            return Found::Nothing;
        };
        let below = qname
            .label_count()
            .saturating_sub(self.origin.label_count());
        for skip in (0..below).rev() {
            let suffix = qname.suffixes().nth(skip).unwrap_or_default();
            let Some(node) = self.get(suffix) else {
                return self
                    .wildcard(encloser)
                    .map_or(Found::Nothing, Found::Wildcard);
            };
            encloser = node;
            // The DS records of a cut belong to the parent (RFC 4035 section 3.1.4.1).
            let parent_side = skip == 0 && asked == DS;
            if let Some(cut) = node.set(qtype::NS).filter(|_| !parent_side) {
                return Found::Delegated(node, cut);
            }
        }
        Found::Name(encloser)
    }

    pub(crate) fn get(&self, owner: &[u8]) -> Option<&Node> {
        self.index
            .get(owner)
            .and_then(|&place| self.nodes.get(place))
    }

    fn wildcard(&self, encloser: &Node) -> Option<&Node> {
        let mut owner = [0_u8; dnscrub_wire::MAX_NAME_LEN + 2];
        owner[..2].copy_from_slice(b"\x01*");
        let end = encloser.owner.len() + 2;
        owner.get_mut(2..end)?.copy_from_slice(&encloser.owner);
        self.get(owner.get(..end)?)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zone")
            .field("origin", &self.origin)
            .field("serial", &self.serial)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// Delegation signer (RFC 4034 section 5).
const DS: u16 = 43;

fn wire_name(name: &rr::Name) -> Result<Name, String> {
    let octets = name.to_bytes().map_err(|error| error.to_string())?;
    Name::from_wire(&octets).map_err(|error| error.to_string())
}

/// Type, class, TTL, data length and data, with no name compressed.
fn record_octets(record: &rr::Record) -> Result<Box<[u8]>, String> {
    let mut octets = Vec::new();
    octets.extend_from_slice(&u16::from(record.record_type()).to_be_bytes());
    octets.extend_from_slice(&qclass::IN.to_be_bytes());
    octets.extend_from_slice(&record.ttl.to_be_bytes());
    let mut data = Vec::new();
    let mut encoder = BinEncoder::new(&mut data);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    record
        .data
        .emit(&mut encoder)
        .map_err(|error| error.to_string())?;
    let len =
        u16::try_from(data.len()).map_err(|_| "a record has more than 65,535 octets".to_owned())?;
    octets.extend_from_slice(&len.to_be_bytes());
    octets.extend_from_slice(&data);
    Ok(octets.into())
}
