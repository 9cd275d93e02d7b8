//! The packet filter as the worker sees it.

use std::net::IpAddr;

use dnscrub_wire::{Malformed, Query, Rcode};

use crate::acl::Acl;
use crate::blocklist::BlockTable;
use crate::class::ClassPolicy;
use crate::opcode::OpcodePolicy;
use crate::sanity::{MalformedAnswer, SanityPolicy};

macro_rules! filter_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $label:literal,)+) => {
        /// Why a packet was not admitted. The label is the metric label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FilterReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl FilterReason {
            /// Every reason, in the order of its discriminant.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// A stable identifier in `snake_case`, used in metrics, logs and reports.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

filter_reasons! {
    /// The access list does not serve the source.
    AclDenied => "acl_denied",
    /// The source is on the blocklist.
    Blocked => "blocked",
    /// The opcode is not served.
    OpcodeNotServed => "opcode_not_served",
    /// The opcode is served, but only from prefixes the source is not in.
    OpcodeSource => "opcode_source",
    /// The class is not served.
    ClassNotServed => "class_not_served",
}

/// What the packet filter says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Admit,
    /// No answer.
    Drop(FilterReason),
    /// An answer with this rcode and no records.
    Refuse(FilterReason, Rcode),
}

/// How something is turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// In silence.
    #[default]
    Drop,
    /// With rcode REFUSED.
    Refuse,
}

impl Refusal {
    pub(crate) const fn verdict(self, reason: FilterReason) -> Verdict {
        match self {
            Self::Drop => Verdict::Drop(reason),
            Self::Refuse => Verdict::Refuse(reason, Rcode::REFUSED),
        }
    }
}

/// Everything the packet filter was configured to do, but the blocklist, which changes by itself.
/// Immutable: a reload swaps it as a whole.
#[derive(Debug, Default)]
pub struct PacketFilter {
    acl: Acl,
    opcodes: OpcodePolicy,
    classes: ClassPolicy,
    sanity: SanityPolicy,
}

impl PacketFilter {
    /// A filter with the default classes (IN and CH) and the default sanity policy (silence).
    #[must_use]
    pub fn new(acl: Acl, opcodes: OpcodePolicy) -> Self {
        Self {
            acl,
            opcodes,
            ..Self::default()
        }
    }

    /// The same with other classes served.
    #[must_use]
    pub fn with_classes(self, classes: ClassPolicy) -> Self {
        Self { classes, ..self }
    }

    /// The same with other answers to malformed packets.
    #[must_use]
    pub fn with_sanity(self, sanity: SanityPolicy) -> Self {
        Self { sanity, ..self }
    }

    /// Judges a source, before and independent of parsing: the access list, then the blocklist.
    /// Counts a hit on the blocklist entry that matched.
    #[must_use]
    #[inline]
    pub fn admit_source(&self, blocklist: &BlockTable, source: IpAddr) -> Verdict {
        match self.acl.verdict(source) {
            Verdict::Admit => {}
            denied => return denied,
        }
        match blocklist.lookup(source) {
            Some(hit) => {
                hit.count();
                Verdict::Drop(FilterReason::Blocked)
            }
            None => Verdict::Admit,
        }
    }

    /// The same without counting, for explanations.
    #[must_use]
    pub fn explain_source(&self, blocklist: &BlockTable, source: IpAddr) -> Verdict {
        match self.acl.verdict(source) {
            Verdict::Admit if blocklist.lookup(source).is_some() => {
                Verdict::Drop(FilterReason::Blocked)
            }
            verdict => verdict,
        }
    }

    /// Judges what kind of query it is: the opcode, and whether this source may use it, then the
    /// class.
    #[must_use]
    #[inline]
    pub fn admit_query(&self, query: &Query, source: IpAddr) -> Verdict {
        match self.opcodes.verdict(query.flags.opcode(), source) {
            Verdict::Admit => self.classes.verdict(query.qclass),
            verdict => verdict,
        }
    }

    /// What a packet gets that is not a well-formed query.
    #[must_use]
    pub fn answer_malformed(&self, malformed: Malformed) -> MalformedAnswer {
        self.sanity.answer(malformed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::blocklist::{BlocklistStore, Limits, Origin};

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn query(opcode: u8, qtype: u16, qclass: u16) -> Query {
        let mut packet = vec![0x12, 0x34, opcode << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend_from_slice(b"\x07example\x03com\x00");
        packet.extend_from_slice(&qtype.to_be_bytes());
        packet.extend_from_slice(&qclass.to_be_bytes());
        Query::parse(&packet).unwrap()
    }

    #[test]
    fn labels_are_unique_and_in_snake_case() {
        let mut labels: Vec<_> = FilterReason::ALL
            .iter()
            .map(|reason| reason.label())
            .collect();
        assert!(labels.iter().all(|label| {
            label
                .bytes()
                .all(|octet| octet.is_ascii_lowercase() || octet == b'_')
        }));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), FilterReason::ALL.len());
    }

    #[test]
    fn the_defaults_serve_ordinary_queries_of_everybody() {
        let filter = PacketFilter::default();
        let blocklist = BlockTable::default();
        assert_eq!(filter.admit_source(&blocklist, SOURCE), Verdict::Admit);
        assert_eq!(filter.admit_query(&query(0, 1, 1), SOURCE), Verdict::Admit);
        assert_eq!(filter.admit_query(&query(0, 16, 3), SOURCE), Verdict::Admit);
        assert_eq!(
            filter.admit_query(&query(0, 1, 4), SOURCE),
            Verdict::Refuse(FilterReason::ClassNotServed, Rcode::REFUSED)
        );
        assert_eq!(
            filter.admit_query(&query(2, 1, 1), SOURCE),
            Verdict::Refuse(FilterReason::OpcodeNotServed, Rcode::NOTIMP)
        );
    }

    #[test]
    fn the_access_list_comes_before_the_blocklist_and_a_block_is_counted() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut store = BlocklistStore::new(Limits::default());
        let prefix = "192.0.2.0/24".parse().unwrap();
        store.add(prefix, "test", Origin::Cli, now, None).unwrap();
        let blocklist = store.publish();

        let open = PacketFilter::default();
        assert_eq!(
            open.explain_source(&blocklist, SOURCE),
            Verdict::Drop(FilterReason::Blocked)
        );
        assert_eq!(store.show(prefix)[0].hits, 0);
        assert_eq!(
            open.admit_source(&blocklist, SOURCE),
            Verdict::Drop(FilterReason::Blocked)
        );
        assert_eq!(store.show(prefix)[0].hits, 1);

        for (refuse, verdict) in [
            (false, Verdict::Drop(FilterReason::AclDenied)),
            (
                true,
                Verdict::Refuse(FilterReason::AclDenied, Rcode::REFUSED),
            ),
        ] {
            let closed = PacketFilter::new(Acl::new([], [prefix], refuse), OpcodePolicy::default());
            assert_eq!(closed.admit_source(&blocklist, SOURCE), verdict);
            assert_eq!(closed.explain_source(&blocklist, SOURCE), verdict);
        }
        assert_eq!(store.show(prefix)[0].hits, 1);
    }
}
