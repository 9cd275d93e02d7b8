//! What the authority answers, read back with hickory-proto.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use dnscrub_embedded_authority::{Authority, Limits, Transport, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

const ZONE: &str = r#"
$TTL 3600
@        IN SOA ns1 hostmaster ( 7 3600 600
                                 604800 300 ) ; serial 7
         IN NS  ns1
         IN NS  ns2.elsewhere.test.
         IN MX  10 mail
         IN TXT "v=spf1 -all" "second; string"
ns1      IN A   192.0.2.1
         IN AAAA 2001:db8::1
www  300 IN A   192.0.2.80
www  300 IN A   192.0.2.81
mail     IN A   192.0.2.25
alias    IN CNAME WWW
away     IN CNAME www.elsewhere.test.
dangling IN CNAME missing
loop     IN CNAME loop
*.wild   IN A   192.0.2.99
*.wild   IN TXT "wild"
real.wild IN A  192.0.2.98
a.b.deep IN A   192.0.2.97
sub      IN NS  ns.sub
sub      IN NS  ns.elsewhere.test.
ns.sub   IN A   192.0.2.53
big      IN TXT "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
big      IN TXT "1123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
big      IN TXT "2123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
big      IN TXT "3123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
big      IN TXT "4123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
"#;

fn authority() -> Authority {
    Authority::new([Zone::parse("Example.com", ZONE).unwrap()])
}

fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

fn with_edns(mut message: Message, size: u16, dnssec_ok: bool) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size).set_dnssec_ok(dnssec_ok);
    message.edns = Some(edns);
    message
}

fn over(transport: Transport, message: &Message) -> Message {
    let mut messages = authority().messages(&message.to_vec().unwrap(), transport);
    assert_eq!(messages.len(), 1);
    let answer = Message::from_vec(&messages.remove(0)).unwrap();
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(answer.metadata.id, message.metadata.id);
    answer
}

fn ask(name: &str, rtype: RecordType) -> Message {
    over(Transport::Udp, &query(name, rtype))
}

fn texts(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| format!("{} {} {}", record.name, record.ttl, record.data))
        .collect()
}

fn assert_soa_only(answer: &Message, rcode: ResponseCode) {
    assert_eq!(answer.metadata.response_code, rcode);
    assert!(answer.metadata.authoritative);
    assert!(answer.answers.is_empty());
    assert!(
        matches!(answer.authorities.as_slice(), [Record { data: RData::SOA(soa), name, .. }]
        if soa.serial == 7 && name.to_ascii() == "example.com.")
    );
}

#[test]
fn names_that_exist_are_answered() {
    let answer = ask("www.example.com.", RecordType::A);
    assert!(answer.metadata.authoritative && !answer.metadata.truncation);
    assert_eq!(
        texts(&answer.answers),
        [
            "www.example.com. 300 192.0.2.80",
            "www.example.com. 300 192.0.2.81"
        ]
    );
    assert_eq!(
        texts(&ask("ns1.example.com.", RecordType::AAAA).answers),
        ["ns1.example.com. 3600 2001:db8::1"]
    );
    assert_eq!(
        texts(&ask("example.com.", RecordType::MX).answers),
        ["example.com. 3600 10 mail.Example.com."]
    );
    assert_eq!(ask("example.com.", RecordType::NS).answers.len(), 2);
    let RData::TXT(txt) = &ask("example.com.", RecordType::TXT).answers[0].data else {
        panic!("no TXT")
    };
    assert_eq!(txt.txt_data[1].as_ref(), b"second; string");
    let RData::SOA(soa) = ask("example.com.", RecordType::SOA).answers[0].data.clone() else {
        panic!("no SOA")
    };
    assert_eq!((soa.serial, soa.minimum), (7, 300));
    // SOA, NS, MX and TXT
    assert_eq!(ask("example.com.", RecordType::ANY).answers.len(), 5);
}

#[test]
fn the_question_keeps_its_case_and_the_flags_their_bits() {
    let mut message = query("wWw.eXample.COM.", RecordType::A);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = true;
    let octets = message.to_vec().unwrap();
    let answers = authority().messages(&octets, Transport::Udp);
    assert_eq!(answers[0][12..octets.len()], octets[12..]);
    let answer = Message::from_vec(&answers[0]).unwrap();
    assert_eq!(answer.answers.len(), 2);
    assert!(answer.metadata.recursion_desired && answer.metadata.checking_disabled);
    assert!(!answer.metadata.recursion_available && !answer.metadata.authentic_data);
}

#[test]
fn what_is_missing_comes_with_the_soa_record() {
    assert_soa_only(
        &ask("www.example.com.", RecordType::AAAA),
        ResponseCode::NoError,
    );
    assert_soa_only(
        &ask("missing.example.com.", RecordType::A),
        ResponseCode::NXDomain,
    );
    assert_soa_only(
        &ask("a.b.c.d.www.example.com.", RecordType::A),
        ResponseCode::NXDomain,
    );
    // an empty non-terminal exists
    assert_soa_only(
        &ask("b.deep.example.com.", RecordType::A),
        ResponseCode::NoError,
    );
    assert_soa_only(
        &ask("x.deep.example.com.", RecordType::A),
        ResponseCode::NXDomain,
    );
    let mut message = query("example.org.", RecordType::A);
    assert_eq!(
        over(Transport::Udp, &message).metadata.response_code,
        ResponseCode::Refused
    );
    message = query("www.example.com.", RecordType::A);
    message.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(
        over(Transport::Udp, &message).metadata.response_code,
        ResponseCode::Refused
    );
}

#[test]
fn wildcards_stand_in_for_missing_names_only() {
    assert_eq!(
        texts(&ask("x.wild.example.com.", RecordType::A).answers),
        ["x.wild.example.com. 3600 192.0.2.99"]
    );
    assert_eq!(
        texts(&ask("x.y.wild.example.com.", RecordType::A).answers),
        ["x.y.wild.example.com. 3600 192.0.2.99"]
    );
    assert_eq!(
        texts(&ask("*.wild.example.com.", RecordType::A).answers),
        ["*.wild.example.com. 3600 192.0.2.99"]
    );
    assert_eq!(
        texts(&ask("real.wild.example.com.", RecordType::A).answers),
        ["real.wild.example.com. 3600 192.0.2.98"]
    );
    assert_soa_only(
        &ask("x.wild.example.com.", RecordType::MX),
        ResponseCode::NoError,
    );
    assert_soa_only(
        &ask("real.wild.example.com.", RecordType::TXT),
        ResponseCode::NoError,
    );
    // RFC 4592 section 3.3.1: the closest encloser is real.wild, which has no wildcard
    assert_soa_only(
        &ask("x.real.wild.example.com.", RecordType::A),
        ResponseCode::NXDomain,
    );
}

#[test]
fn aliases_are_followed_inside_the_zone() {
    let answer = ask("alias.example.com.", RecordType::A);
    assert_eq!(answer.answers.len(), 3);
    assert_eq!(answer.answers[0].record_type(), RecordType::CNAME);
    assert_eq!(
        answer.answers[2].name.to_lowercase().to_ascii(),
        "www.example.com."
    );
    assert_eq!(
        ask("alias.example.com.", RecordType::CNAME).answers.len(),
        1
    );
    assert_eq!(ask("away.example.com.", RecordType::A).answers.len(), 1);
    let dangling = ask("dangling.example.com.", RecordType::A);
    assert_eq!(dangling.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!((dangling.answers.len(), dangling.authorities.len()), (1, 1));
    assert!(!ask("loop.example.com.", RecordType::A).answers.is_empty());
}

#[test]
fn delegations_are_referred() {
    for name in ["sub.example.com.", "x.y.sub.example.com."] {
        let answer = ask(name, RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(!answer.metadata.authoritative);
        assert!(answer.answers.is_empty());
        assert_eq!(answer.authorities.len(), 2);
        assert_eq!(
            texts(&answer.additionals),
            ["ns.sub.example.com. 3600 192.0.2.53"]
        );
    }
    assert_soa_only(
        &ask("sub.example.com.", RecordType::DS),
        ResponseCode::NoError,
    );
}

#[test]
fn edns_is_echoed_and_sizes_are_kept() {
    let answer = over(
        Transport::Udp,
        &with_edns(query("www.example.com.", RecordType::A), 4096, true),
    );
    let edns = answer.edns.as_ref().unwrap();
    assert_eq!(
        (edns.max_payload(), edns.version(), edns.flags().dnssec_ok),
        (1232, 0, true)
    );
    assert!(ask("www.example.com.", RecordType::A).edns.is_none());

    let big = query("big.example.com.", RecordType::TXT);
    let cut = over(Transport::Udp, &big);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let cut = over(Transport::Udp, &with_edns(big.clone(), 100, false));
    assert!(cut.metadata.truncation && cut.edns.is_some());
    let whole = over(Transport::Udp, &with_edns(big.clone(), 1232, false));
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 5);
    assert_eq!(over(Transport::Tcp, &big).answers.len(), 5);

    let mut future = with_edns(query("www.example.com.", RecordType::A), 1232, false);
    future.edns.as_mut().unwrap().set_version(1);
    let answer = over(Transport::Udp, &future);
    // BADVERS, which shares its number with BADSIG
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert!(answer.answers.is_empty());
}

#[test]
fn other_opcodes_responses_and_garbage() {
    let authority = authority();
    for opcode in [OpCode::Notify, OpCode::Update, OpCode::Status] {
        let mut message = query("example.com.", RecordType::SOA);
        message.metadata.op_code = opcode;
        let answer = over(Transport::Udp, &message);
        assert_eq!(
            (answer.metadata.response_code, answer.metadata.op_code),
            (ResponseCode::NotImp, opcode)
        );
    }
    let mut response = query("www.example.com.", RecordType::A).to_vec().unwrap();
    response[2] |= 0x80;
    assert!(authority.messages(&response, Transport::Udp).is_empty());
    assert!(authority.messages(&[0; 11], Transport::Udp).is_empty());
    assert!(authority.messages(&[], Transport::Udp).is_empty());
    let mut cut = query("www.example.com.", RecordType::A).to_vec().unwrap();
    cut.pop();
    let expected = vec![0x12, 0x34, 0x80 | cut[2], 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(authority.messages(&cut, Transport::Udp), [expected]);
}

fn transfer(authority: &Authority, message: &Message) -> Vec<Message> {
    authority
        .messages(&message.to_vec().unwrap(), Transport::Tcp)
        .iter()
        .map(|octets| Message::from_vec(octets).unwrap())
        .collect()
}

#[test]
fn zones_are_transferred_in_many_messages() {
    let zone = Zone::parse("example.com.", ZONE).unwrap();
    let records = zone.record_count();
    let limits = Limits {
        records_per_transfer_message: 4,
        ..Limits::default()
    };
    let authority = Authority::with_limits([zone], limits);
    let messages = transfer(&authority, &query("example.com.", RecordType::AXFR));
    assert_eq!(messages.len(), (records + 1).div_ceil(4));
    assert!(
        messages
            .iter()
            .all(|message| message.metadata.id == 0x1234 && message.metadata.authoritative)
    );
    assert_eq!(messages[0].queries.len(), 1);
    let all: Vec<_> = messages
        .iter()
        .flat_map(|message| message.answers.iter())
        .collect();
    assert_eq!(all.len(), records + 1);
    assert_eq!(all[0].record_type(), RecordType::SOA);
    assert_eq!(all[records].record_type(), RecordType::SOA);
    assert_eq!(
        all.iter()
            .filter(|record| record.record_type() == RecordType::SOA)
            .count(),
        2
    );
}

#[test]
fn incremental_transfers_are_whole_ones_unless_nothing_changed() {
    let authority = authority();
    let soa = ask("example.com.", RecordType::SOA).answers[0].clone();
    let RData::SOA(mut fields) = soa.data.clone() else {
        panic!("no SOA")
    };
    let ixfr = |data: RData| {
        let mut message = query("example.com.", RecordType::IXFR);
        message.add_authority(Record::from_rdata(soa.name.clone(), 0, data));
        message
    };
    let current = ixfr(soa.data.clone());
    assert_eq!(transfer(&authority, &current)[0].answers.len(), 1);
    fields.serial = 6;
    let old = ixfr(RData::SOA(fields));
    assert!(transfer(&authority, &old)[0].answers.len() > 20);
    // over UDP one SOA record means "use TCP"
    assert_eq!(over(Transport::Udp, &old).answers.len(), 1);
    assert_eq!(
        over(Transport::Udp, &query("example.com.", RecordType::AXFR))
            .metadata
            .response_code,
        ResponseCode::FormErr
    );
    assert_eq!(
        over(Transport::Tcp, &query("www.example.com.", RecordType::AXFR))
            .metadata
            .response_code,
        ResponseCode::NotAuth
    );
}

#[test]
fn a_message_of_a_transfer_never_exceeds_its_frame() {
    let mut text = String::from("@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\n");
    for host in 0..3000 {
        text.push_str(&format!(
            "host-{host}-{} 60 IN TXT \"{}\"\n",
            "x".repeat(40),
            "y".repeat(100)
        ));
    }
    let limits = Limits {
        records_per_transfer_message: usize::MAX,
        ..Limits::default()
    };
    let authority = Authority::with_limits([Zone::parse("example.com", &text).unwrap()], limits);
    let messages = authority.messages(
        &query("example.com.", RecordType::AXFR).to_vec().unwrap(),
        Transport::Tcp,
    );
    assert!(messages.len() > 5);
    let records: usize = messages
        .iter()
        .map(|octets| {
            assert!(octets.len() <= usize::from(u16::MAX));
            Message::from_vec(octets).unwrap().answers.len()
        })
        .sum();
    assert_eq!(records, 3003);
}

#[test]
fn the_longest_origin_answers() {
    let parent = Zone::parse(
        "test",
        "@ 60 IN SOA a b 1 1 1 1 1\nx.sub 60 IN A 192.0.2.1\n",
    )
    .unwrap();
    let child = Zone::parse("sub.test", "@ 60 IN SOA a b 2 1 1 1 1\n").unwrap();
    let authority = Authority::new([parent, child]);
    let answer = authority.messages(
        &query("x.sub.test.", RecordType::A).to_vec().unwrap(),
        Transport::Udp,
    );
    assert_eq!(
        Message::from_vec(&answer[0])
            .unwrap()
            .metadata
            .response_code,
        ResponseCode::NXDomain
    );
}

#[test]
fn texts_that_are_no_zone_are_refused() {
    for (text, complaint) in [
        ("", "no SOA"),
        ("www 60 IN A 192.0.2.1\n", "no SOA"),
        (
            "@ 60 IN SOA a b 1 1 1 1 1\nwww.example.org. 60 IN A 192.0.2.1\n",
            "outside the zone",
        ),
        (
            "www 60 IN SOA a b 1 1 1 1 1\n",
            "does not stand at the apex",
        ),
        ("$INCLUDE /dev/null\n", "not supported"),
        ("@ 60 IN SOA a b 1 1 1 1 1\nwww 60 IN A 192.0.2.256\n", ""),
    ] {
        let error = Zone::parse("example.com", text).unwrap_err();
        assert!(error.to_string().contains(complaint), "{error}");
    }
    assert!(Zone::parse("bad..name", "").is_err());
}

#[test]
fn random_and_mutated_packets_never_panic() {
    let authority = authority();
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let seeds = [
        query("x.wild.example.com.", RecordType::A)
            .to_vec()
            .unwrap(),
        with_edns(query("sub.example.com.", RecordType::ANY), 512, true)
            .to_vec()
            .unwrap(),
        query("example.com.", RecordType::IXFR).to_vec().unwrap(),
    ];
    let mut out = Vec::new();
    for round in 0..50_000 {
        let mut packet = seeds[round % seeds.len()].clone();
        for _ in 0..next() % 4 {
            let at = next() as usize % packet.len();
            packet[at] = next() as u8;
        }
        packet.truncate(next() as usize % (packet.len() + 1));
        let transport = if round % 2 == 0 {
            Transport::Udp
        } else {
            Transport::Tcp
        };
        let _ = authority.answer(&packet, transport, &mut out);
        assert!(packet.len() < 3 || packet[2] & 0x80 == 0 || out.is_empty());
    }
}
