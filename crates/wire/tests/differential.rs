//! Agreement with hickory-proto on messages that hickory built, on mutations of them, and on
//! arbitrary octets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod agreement;

use dnscrub_wire::{Opcode, Query, QueryBuilder, Response};
use hickory_proto::op::{self, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::rdata::{A, NS, SOA, TSIG, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proptest::collection::vec;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = Name> {
    let octet =
        prop_oneof![4 => proptest::char::range('a', 'z').prop_map(|c| c as u8), 1 => any::<u8>()];
    let label = prop_oneof![8 => vec(octet.clone(), 1..12), 1 => vec(octet, 60..=63)];
    vec(label, 0..8).prop_filter_map("at most 255 octets", |labels| {
        let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
        let mut name = Name::from_labels(labels).ok()?;
        name.set_fqdn(true);
        Some(name)
    })
}

fn question() -> impl Strategy<Value = op::Query> {
    (
        name(),
        any::<u16>(),
        prop_oneof![3 => Just(1), 1 => any::<u16>()],
    )
        .prop_map(|(name, qtype, qclass)| {
            let mut query = op::Query::query(name, RecordType::from(qtype));
            query.set_query_class(DNSClass::from(qclass));
            query
        })
}

fn edns() -> impl Strategy<Value = op::Edns> {
    let option = (any::<u16>(), vec(any::<u8>(), 0..24));
    (
        512_u16..,
        any::<bool>(),
        prop_oneof![4 => Just(0_u8), 1 => any::<u8>()],
        vec(option, 0..4),
    )
        .prop_map(|(size, dnssec_ok, version, options)| {
            let mut edns = op::Edns::new();
            edns.set_max_payload(size)
                .set_version(version)
                .set_dnssec_ok(dnssec_ok);
            for (code, data) in options {
                // an option whose data hickory itself could not read back is not a valid query
                if let Ok(option) = EdnsOption::try_from((EdnsCode::from(code), data.as_slice())) {
                    edns.options_mut().insert(option);
                }
            }
            edns
        })
}

fn signature() -> impl Strategy<Value = Record<TSIG>> {
    (name(), vec(any::<u8>(), 0..33), any::<u16>()).prop_map(|(key, mac, id)| {
        let data = TSIG::new(
            TsigAlgorithm::HmacSha256,
            1_700_000_000,
            300,
            mac,
            id,
            None,
            Vec::new(),
        );
        let mut record = Record::from_rdata(key, 0, data);
        record.dns_class = DNSClass::ANY;
        record
    })
}

fn record() -> impl Strategy<Value = Record> {
    let data = prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| RData::A(A(octets.into()))),
        name().prop_map(|name| RData::NS(NS(name))),
        (name(), name()).prop_map(|(m, r)| RData::SOA(SOA::new(m, r, 1, 2, 3, 4, 5))),
        "[a-z]{0,40}".prop_map(|text| RData::TXT(TXT::new(vec![text]))),
    ];
    (name(), any::<u32>(), data).prop_map(|(owner, ttl, data)| Record::from_rdata(owner, ttl, data))
}

prop_compose! {
    fn query_message()(
        id in any::<u16>(),
        opcode in prop_oneof![6 => Just(0_u8), 1 => Just(4), 1 => Just(5)],
        bits in any::<[bool; 3]>(),
        question in question(),
        edns in proptest::option::of(edns()),
        signature in proptest::option::weighted(0.2, signature()),
        authorities in prop_oneof![6 => vec(record(), 0..1), 1 => vec(record(), 0..3)],
    ) -> Message {
        let mut message = Message::new(id, MessageType::Query, OpCode::from_u8(opcode));
        message.metadata.recursion_desired = bits[0];
        message.metadata.checking_disabled = bits[1];
        message.metadata.authentic_data = bits[2];
        message.add_query(question);
        message.insert_authorities(authorities);
        if let Some(edns) = edns {
            message.set_edns(edns);
        }
        if let Some(signature) = signature {
            message.set_signature(Box::new(signature));
        }
        message
    }
}

prop_compose! {
    fn response_message()(
        id in any::<u16>(),
        rcode in prop_oneof![6 => 0_u16..4, 1 => 0_u16..4096],
        bits in any::<[bool; 2]>(),
        question in question(),
        sections in [vec(record(), 0..4), vec(record(), 0..3), vec(record(), 0..3)],
        edns in proptest::option::of(edns()),
    ) -> Message {
        let mut message = Message::new(id, MessageType::Response, OpCode::Query);
        message.metadata.authoritative = bits[0];
        message.metadata.truncation = bits[1];
        message.metadata.response_code = ResponseCode::from((rcode >> 4) as u8, (rcode & 15) as u8);
        message.add_query(question);
        let [answers, authorities, additionals] = sections;
        message.insert_answers(answers);
        message.insert_authorities(authorities);
        message.insert_additionals(additionals);
        if let Some(edns) = edns {
            message.set_edns(edns);
        }
        message
    }
}

/// One step of damage to a message.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Cut(prop::sample::Index),
    /// The last octets once more.
    Repeat(usize),
    /// An OPT behind everything, counted: a first, a second, or one behind a signature.
    AppendOpt,
    /// A section count of the header, one up or down.
    Count(usize, bool),
}

impl Mutation {
    fn apply(&self, packet: &mut Vec<u8>) {
        let len = packet.len();
        if len == 0 {
            return;
        }
        match self {
            Self::Set(at, octet) => packet[at.index(len)] = *octet,
            Self::Flip(at, bit) => packet[at.index(len)] ^= 1 << bit,
            Self::Insert(at, octets) => {
                let at = at.index(len);
                packet.splice(at..at, octets.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(len);
                packet.drain(at..(at + count).min(len));
            }
            Self::Cut(at) => packet.truncate(at.index(len)),
            Self::Repeat(count) => {
                let from = len.saturating_sub(*count);
                packet.extend_from_within(from..);
            }
            Self::AppendOpt => {
                packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
                Self::Count(3, true).apply(packet);
            }
            Self::Count(section, up) => {
                if let Some(low) = packet.get_mut(5 + 2 * section) {
                    *low = if *up {
                        low.wrapping_add(1)
                    } else {
                        low.wrapping_sub(1)
                    };
                }
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, octet)| Mutation::Set(at, octet)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (at(), vec(any::<u8>(), 1..4)).prop_map(|(at, octets)| Mutation::Insert(at, octets)),
        (at(), 1..4_usize).prop_map(|(at, len)| Mutation::Remove(at, len)),
        at().prop_map(Mutation::Cut),
        (1..32_usize).prop_map(Mutation::Repeat),
        Just(Mutation::AppendOpt),
        (0..4_usize, any::<bool>()).prop_map(|(section, up)| Mutation::Count(section, up)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_valid_query_is_accepted_and_read_alike(message in query_message()) {
        let packet = message.to_vec().unwrap();
        prop_assert!(Query::parse(&packet).is_ok(), "{:?}: {message:?}", Query::parse(&packet));
        agreement::query(&packet);
    }

    #[test]
    fn a_mutated_query_is_read_alike(message in query_message(), mutations in vec(mutation(), 1..4)) {
        let mut packet = message.to_vec().unwrap();
        for mutation in mutations {
            mutation.apply(&mut packet);
        }
        agreement::query(&packet);
        agreement::response(&packet);
    }

    #[test]
    fn a_valid_response_is_accepted_and_read_alike(message in response_message()) {
        let packet = message.to_vec().unwrap();
        prop_assert!(Response::parse(&packet).is_ok(), "{:?}: {message:?}", Response::parse(&packet));
        agreement::response(&packet);
        let owner = Response::parse(&packet).unwrap().authority_owner(&packet);
        prop_assert_eq!(owner.map(|name| name.as_wire().to_vec()), agreement::authority_owner(&message));
    }

    #[test]
    fn a_mutated_response_is_read_alike(message in response_message(), mutations in vec(mutation(), 1..4)) {
        let mut packet = message.to_vec().unwrap();
        for mutation in mutations {
            mutation.apply(&mut packet);
        }
        agreement::response(&packet);
        agreement::query(&packet);
    }

    #[test]
    fn arbitrary_octets_do_no_harm(packet in vec(any::<u8>(), 0..600)) {
        agreement::query(&packet);
        agreement::response(&packet);
    }

    #[test]
    fn arbitrary_octets_behind_a_plausible_header_do_no_harm(
        counts in [0..2_u8, 0..3_u8, 0..3_u8],
        is_response in any::<bool>(),
        tail in vec(prop_oneof![Just(0_u8), Just(41), 0..16_u8, 0xc0..=0xc1_u8, any::<u8>()], 0..80),
    ) {
        let mut packet = vec![0, 1, u8::from(is_response) << 7, 0, 0, 1, 0, counts[0], 0, counts[1], 0, counts[2]];
        packet.extend_from_slice(&tail);
        agreement::query(&packet);
        agreement::response(&packet);
    }

    #[test]
    fn the_builder_makes_what_was_asked(
        name in name(),
        id in any::<u16>(),
        qtype in any::<u16>(),
        qclass in any::<u16>(),
        opcode in 0..16_u8,
        recursion in any::<bool>(),
        edns in proptest::option::of((any::<u16>(), any::<bool>(), any::<u8>())),
        options in vec((any::<u16>(), vec(any::<u8>(), 0..40)), 0..4),
    ) {
        let wire = hickory_proto::serialize::binary::BinEncodable::to_bytes(&name).unwrap();
        let qname = dnscrub_wire::Name::from_wire(&wire).unwrap();
        let mut builder = QueryBuilder::new(&qname, qtype)
            .id(id)
            .qclass(qclass)
            .opcode(Opcode(opcode))
            .recursion_desired(recursion);
        if let Some((size, dnssec_ok, version)) = edns {
            builder = builder.udp_size(size).dnssec_ok(dnssec_ok).edns_version(version);
            for (code, data) in &options {
                builder = builder.option(*code, data);
            }
        }
        let packet = builder.build();
        let query = Query::parse(&packet).unwrap();
        prop_assert_eq!((query.id, query.qname, query.qtype, query.qclass), (id, qname, qtype, qclass));
        prop_assert_eq!((query.flags.opcode().0, query.flags.recursion_desired()), (opcode, recursion));
        prop_assert_eq!(query.edns.map(|read| (read.udp_size, read.dnssec_ok, read.version)), edns);
        if edns.is_some() {
            let read: Vec<_> = query.options(&packet).map(|option| (option.code, option.data.to_vec())).collect();
            prop_assert_eq!(read, options);
        }
        agreement::query(&packet);
    }
}
