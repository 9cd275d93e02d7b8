//! What tests need to make queries and policies.

use std::collections::BTreeMap;

use dnscrub_wire::{Name, Query};

use crate::config;
use crate::context::{Context, Transport};
use crate::lists::List;

/// A query with its message.
pub(crate) fn query(name: &str, qtype: u16) -> (Query, Vec<u8>) {
    query_with(&name.parse().unwrap(), qtype, 1, 0, None)
}

/// A query with flags (the header's second 16 bits) and the OPT record's fields after its name and
/// type.
pub(crate) fn query_with(
    name: &Name,
    qtype: u16,
    qclass: u16,
    flags: u16,
    opt: Option<&[u8]>,
) -> (Query, Vec<u8>) {
    let mut packet = vec![0, 1];
    packet.extend(flags.to_be_bytes());
    packet.extend([0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())]);
    packet.extend(name.as_wire());
    packet.extend(qtype.to_be_bytes());
    packet.extend(qclass.to_be_bytes());
    if let Some(opt) = opt {
        packet.extend([0, 0, 41]);
        packet.extend(opt);
    }
    (Query::parse(&packet).unwrap(), packet)
}

/// A source over UDP, first listener.
pub(crate) fn context(source: &str) -> Context {
    Context {
        source: source.parse().unwrap(),
        transport: Transport::Udp,
        listener: 0,
        hop_ttl: None,
        len: 40,
    }
}

/// A source over TCP, first listener.
pub(crate) fn tcp(source: &str) -> Context {
    Context {
        transport: Transport::Tcp,
        ..context(source)
    }
}

/// Named lists.
pub(crate) fn lists(yaml: &str) -> BTreeMap<String, List> {
    let lists: config::Lists = serde_yaml::from_str(yaml).unwrap();
    lists
        .into_iter()
        .map(|(name, list)| (name, List::build(&list, None).unwrap()))
        .collect()
}
