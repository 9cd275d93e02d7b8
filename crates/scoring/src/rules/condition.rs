//! A rule's conditions, compiled, and what of a query they look at.

use std::net::IpAddr;

use dnscrub_wire::Query;

use super::index::{Index, Scratch};
use crate::config::{Alphabet, Millibits, Range};
use crate::context::{Context, Transport};
use crate::label::{Kinds, entropy};

/// Conditions.
#[derive(Debug)]
pub(crate) enum Expr {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Test(Test),
}

/// One condition.
#[derive(Debug)]
pub(crate) enum Test {
    /// A name or prefix that the index looked up for all rules at once.
    Mark(u32),
    /// Regular expressions or globs; searched for once, when first asked.
    Pattern(u32),
    /// The source is in this list; asked once a query.
    SourceList(u32),
    /// The name is under one of this list's; asked once a query.
    NameList(u32),
    Qtype(Box<[u16]>),
    Qclass(Box<[u16]>),
    Opcode(Box<[u8]>),
    Flags {
        mask: u16,
        value: u16,
    },
    EdnsPresent(bool),
    EdnsVersion(Range<u8>),
    EdnsDnssecOk(bool),
    EdnsBufferSize(Range<u16>),
    EdnsOptions(Box<[u16]>),
    Transport(Box<[Transport]>),
    Listener(Box<[u16]>),
    Length(Range<u8>),
    Alphabet(Alphabet),
    Entropy(Range<Millibits>),
    Labels(Range<u8>),
}

/// What conditions look at.
pub(crate) struct Facts<'a> {
    pub(crate) query: &'a Query,
    pub(crate) packet: &'a [u8],
    pub(crate) context: &'a Context,
    /// The source, canonical.
    pub(crate) source: IpAddr,
}

impl Expr {
    /// Whether the conditions hold. Nesting is limited when they are built.
    #[inline]
    pub(crate) fn holds(&self, index: &Index, scratch: &mut Scratch, facts: &Facts<'_>) -> bool {
        match self {
            Self::Test(test) => test.holds(index, scratch, facts),
            Self::All(parts) => parts.iter().all(|part| part.holds(index, scratch, facts)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(index, scratch, facts)),
            Self::Not(part) => !part.holds(index, scratch, facts),
        }
    }
}

impl Test {
    #[inline]
    fn holds(&self, index: &Index, scratch: &mut Scratch, facts: &Facts<'_>) -> bool {
        let query = facts.query;
        let label = || query.qname.first_label();
        match self {
            Self::Mark(mark) => scratch.is_marked(*mark),
            Self::Pattern(mark) => {
                index.search_patterns(scratch, facts);
                scratch.is_marked(*mark)
            }
            Self::SourceList(list) => index.in_source_list(*list, scratch, facts),
            Self::NameList(list) => index.in_name_list(*list, scratch, facts),
            Self::Qtype(types) => types.contains(&query.qtype),
            Self::Qclass(classes) => classes.contains(&query.qclass),
            Self::Opcode(opcodes) => opcodes.contains(&query.flags.opcode().0),
            Self::Flags { mask, value } => query.flags.0 & mask == *value,
            Self::EdnsPresent(present) => query.edns.is_some() == *present,
            Self::EdnsVersion(range) => query.edns.is_some_and(|edns| range.contains(edns.version)),
            Self::EdnsDnssecOk(set) => query.edns.is_some_and(|edns| edns.dnssec_ok == *set),
            Self::EdnsBufferSize(range) => {
                query.edns.is_some_and(|edns| range.contains(edns.udp_size))
            }
            Self::EdnsOptions(codes) => query
                .options(facts.packet)
                .any(|option| codes.contains(&option.code)),
            Self::Transport(transports) => transports.contains(&facts.context.transport),
            Self::Listener(listeners) => listeners.contains(&facts.context.listener),
            Self::Length(range) => !label().is_empty() && range.contains(label().len() as u8),
            Self::Alphabet(alphabet) => Kinds::of(label()).only(*alphabet),
            Self::Entropy(range) => !label().is_empty() && range.contains(entropy(label())),
            Self::Labels(range) => range.contains(query.qname.label_count() as u8),
        }
    }
}
