//! The comparison with hickory-proto, a second and independent reader of DNS messages. Called by
//! the property tests here and by the fuzz targets, with well-formed, mutated and arbitrary octets.

use dnscrub_wire::edit::{self, ExtendedError};
use dnscrub_wire::{Edns, EdnsOption, Malformed, Name, Query, Rcode, Response};
use hickory_proto::op::{self, Message, MessageType};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt;
use hickory_proto::serialize::binary::{BinEncodable, DecodeError};

/// What both readers say about `packet` as a query must agree.
///
/// # Panics
/// Where they do not.
pub(crate) fn query(packet: &[u8]) {
    let ours = Query::parse(packet);
    let theirs = Message::from_vec(packet);
    match (&ours, &theirs) {
        (Ok(query), Ok(message)) => same_query(packet, query, message),
        (Err(defect), Ok(message)) => assert!(
            refused_on_purpose(*defect, message),
            "we refuse with {defect:?} what hickory reads as {message:?}"
        ),
        (Ok(query), Err(defect)) => assert!(
            !has_many_readings(defect),
            "we accept what hickory refuses with {defect}: {query:?}"
        ),
        (Err(_), Err(_)) => {}
    }
    match ours {
        Ok(query) => own_answers(packet, &query),
        Err(_) => own_format_error(packet),
    }
}

/// What both readers say about `packet` as a response must agree.
///
/// # Panics
/// Where they do not.
pub(crate) fn response(packet: &[u8]) {
    let (Ok(response), Ok(message)) = (Response::parse(packet), Message::from_vec(packet)) else {
        return;
    };
    let metadata = &message.metadata;
    assert_eq!(metadata.message_type, MessageType::Response);
    assert_eq!(response.id, metadata.id);
    assert_eq!(response.flags.opcode().0, u8::from(metadata.op_code));
    assert_eq!(response.rcode.0, u16::from(metadata.response_code));
    assert_eq!(response.is_truncated(), metadata.truncation);
    assert_eq!(usize::from(response.len), packet.len());
    same_edns(packet, response.edns, message.edns.as_ref());
    // hickory's four places hold every record that was counted
    assert_eq!(usize::from(response.answers), message.answers.len());
    assert_eq!(usize::from(response.authorities), message.authorities.len());
    assert_eq!(
        usize::from(response.additionals),
        message.additionals.len()
            + usize::from(message.edns.is_some())
            + usize::from(message.signature.is_some())
    );
    let question = response.question(packet);
    match message.queries.as_slice() {
        [] => assert!(question.is_empty() && !response.answers_question(packet, &[])),
        [one] => {
            assert_eq!(
                question.to_ascii_lowercase(),
                one.to_bytes().expect("was read").to_ascii_lowercase()
            );
            assert!(response.answers_question(packet, question));
            assert!(response.answers_question(packet, &flipped_case(question)));
            let mut other = question.to_vec();
            *other.last_mut().expect("holds a class") ^= 1;
            assert!(!response.answers_question(packet, &other));
        }
        more => panic!("we accept {} questions", more.len()),
    }
    // we do not follow a pointer forwards or into the header, which hickory may
    if let Some(owner) = response.authority_owner(packet) {
        let theirs = authority_owner(&message).expect("hickory has one, too");
        assert_eq!(owner.as_wire(), theirs);
    }
    truncated_response(packet, &response, &message);
}

/// The owner of the first SOA record in the authority section, or else of the first NS record, in
/// lower-case wire format.
pub(crate) fn authority_owner(message: &Message) -> Option<Vec<u8>> {
    let of = |rtype| {
        let records = &message.authorities;
        records.iter().find(|record| record.record_type() == rtype)
    };
    let record = of(RecordType::SOA).or_else(|| of(RecordType::NS))?;
    record.name.to_lowercase().to_bytes().ok()
}

/// The response cut down to TC=1, read back by hickory.
fn truncated_response(packet: &[u8], response: &Response, message: &Message) {
    let mut buffer = packet.to_vec();
    let len = edit::truncate_response(&mut buffer, response);
    assert!(len <= packet.len());
    if message.queries.is_empty() {
        assert_eq!((len, buffer.as_slice()), (0, packet));
        return;
    }
    let cut = Message::from_vec(&buffer[..len]).expect("hickory reads our answer");
    assert_eq!(cut.queries, message.queries);
    assert!(cut.answers.is_empty() && cut.authorities.is_empty() && cut.additionals.is_empty());
    let (ours, theirs) = (&cut.metadata, &message.metadata);
    assert_eq!(ours.message_type, MessageType::Response);
    assert_eq!((ours.id, ours.op_code), (theirs.id, theirs.op_code));
    assert_eq!(ours.recursion_desired, theirs.recursion_desired);
    assert_eq!(ours.checking_disabled, theirs.checking_disabled);
    assert!(ours.truncation && u16::from(ours.response_code) == 0);
    assert!(!ours.authoritative && !ours.authentic_data && !ours.recursion_available);
    match (&cut.edns, response.edns) {
        (None, None) => {}
        (Some(ours), Some(theirs)) => {
            assert_eq!(ours.max_payload(), edit::OUR_UDP_SIZE);
            assert_eq!((ours.version(), ours.rcode_high()), (0, 0));
            assert_eq!(ours.flags().dnssec_ok, theirs.dnssec_ok);
            let Some(options) = split_options(packet, theirs) else {
                return;
            };
            let mut cookies = options.iter().filter(|option| option.code == 10);
            let kept = cookies.next().filter(|cookie| cookie.data.len() <= 40);
            let again = Response::parse(&buffer[..len]).expect("we read our own answer");
            let edns = again.edns.expect("there is one");
            let options = split_options(&buffer[..len], edns).expect("whole");
            assert_eq!(options.first(), kept);
            assert!(options.len() <= 1);
        }
        (ours, theirs) => panic!("EDNS: we wrote {ours:?} for {theirs:?}"),
    }
}

fn same_query(packet: &[u8], query: &Query, message: &Message) {
    let metadata = &message.metadata;
    assert_eq!(metadata.message_type, MessageType::Query);
    assert_eq!(query.id, metadata.id);
    assert_eq!(query.flags.opcode().0, u8::from(metadata.op_code));
    assert_eq!(query.flags.authoritative(), metadata.authoritative);
    assert_eq!(query.flags.truncated(), metadata.truncation);
    assert_eq!(query.flags.recursion_desired(), metadata.recursion_desired);
    assert_eq!(
        query.flags.recursion_available(),
        metadata.recursion_available
    );
    assert_eq!(query.flags.authentic_data(), metadata.authentic_data);
    assert_eq!(query.flags.checking_disabled(), metadata.checking_disabled);
    let [question] = message.queries.as_slice() else {
        panic!("we accept {} questions", message.queries.len());
    };
    same_question(query, question);
    same_edns(packet, query.edns, message.edns.as_ref());
    let options = query
        .edns
        .map_or(Some(Vec::new()), |edns| split_options(packet, edns));
    assert_eq!(Some(query.options(packet).collect()), options);
    let has = |rtype| {
        message
            .additionals
            .iter()
            .any(|record| record.record_type() == rtype)
    };
    // hickory reads every SIG alike, we take only one that covers type 0 for a signature
    if !has(RecordType::SIG) {
        // in an UPDATE hickory leaves a TSIG without data among the records
        let theirs = message.signature.is_some() || has(RecordType::TSIG);
        assert_eq!(query.signed, theirs);
    }
    assert_eq!(usize::from(query.len), packet.len());
}

fn same_question(query: &Query, question: &op::Query) {
    let name = question.name.to_lowercase().to_bytes().expect("was read");
    assert_eq!(query.qname.as_wire(), name);
    assert_eq!(query.qname.label_count(), question.name.iter().count());
    assert!(query.qname.labels().eq(question.name.to_lowercase().iter()));
    assert_eq!(query.qtype, u16::from(question.query_type));
    assert_eq!(query.qclass, u16::from(question.query_class));
    let text = query.qname.to_string();
    assert_eq!(Name::from_text(&text), Ok(query.qname), "{text}");
}

fn same_edns(packet: &[u8], ours: Option<Edns>, theirs: Option<&op::Edns>) {
    let (ours, theirs) = match (ours, theirs) {
        (None, None) => return,
        (Some(ours), Some(theirs)) => (ours, theirs),
        (ours, theirs) => panic!("EDNS: we read {ours:?}, hickory {theirs:?}"),
    };
    assert_eq!(ours.udp_size.max(512), theirs.max_payload());
    assert_eq!(ours.extended_rcode, theirs.rcode_high());
    assert_eq!(ours.version, theirs.version());
    assert_eq!(ours.dnssec_ok, theirs.flags().dnssec_ok);
    let theirs = theirs.options().as_ref();
    // of options that are cut hickory drops all
    let ours: Vec<_> = split_options(packet, ours)
        .unwrap_or_default()
        .into_iter()
        .map(|EdnsOption { code, data }| {
            let code = opt::EdnsCode::from(code);
            let read = opt::EdnsOption::try_from((code, data)).expect("was read");
            (code, read)
        })
        .collect();
    assert_eq!(ours, theirs);
}

/// A reading of the options independent of the crate's own; nothing where one is cut.
fn split_options(packet: &[u8], edns: Edns) -> Option<Vec<EdnsOption<'_>>> {
    let start = usize::from(edns.options_at);
    let mut octets = &packet[start..start + usize::from(edns.options_len)];
    let mut options = Vec::new();
    while let [c0, c1, l0, l1, rest @ ..] = octets {
        let (data, rest) = rest.split_at_checked(usize::from(*l0) << 8 | usize::from(*l1))?;
        let code = u16::from(*c0) << 8 | u16::from(*c1);
        options.push(EdnsOption { code, data });
        octets = rest;
    }
    octets.is_empty().then_some(options)
}

/// hickory reads more than a query may hold. Everything else that it reads, we must read.
fn refused_on_purpose(defect: Malformed, message: &Message) -> bool {
    match defect {
        Malformed::Response => message.metadata.message_type == MessageType::Response,
        Malformed::NoQuestion => message.queries.is_empty(),
        Malformed::ManyQuestions => message.queries.len() > 1,
        Malformed::AnswerInQuery => !message.answers.is_empty(),
        // no compression in a qname; no pointer as the owner of OPT; no pointer into the header; nothing behind the last record;
        // no option that is cut; nothing behind a SIG(0)
        Malformed::QnameLabelType
        | Malformed::RecordName
        | Malformed::OptNotAtRoot
        | Malformed::TrailingOctets
        | Malformed::OptionCut
        | Malformed::SignatureNotLast => true,
        _ => false,
    }
}

/// Of hickory's reasons those that we must share: messages that two servers could read in two
/// ways. It has many others, because it also reads the data of records.
fn has_many_readings(defect: &DecodeError) -> bool {
    matches!(
        defect,
        DecodeError::DuplicateEdns
            | DecodeError::EdnsNameNotRoot(_)
            | DecodeError::RecordAfterSig
            | DecodeError::RecordNotInAdditionalSection(RecordType::OPT)
    )
}

/// Our own answers to the query, read back by hickory.
fn own_answers(packet: &[u8], query: &Query) {
    const ERROR: ExtendedError = ExtendedError {
        info_code: 18,
        text: "not served here",
    };
    let cases = [
        (Rcode::REFUSED, false, Some(ERROR), 64),
        (Rcode::NXDOMAIN, false, None, 0),
        (Rcode::NOERROR, true, Some(ERROR), 0),
        (
            Rcode::BADVERS,
            true,
            Some(ExtendedError { text: "", ..ERROR }),
            7,
        ),
    ];
    for (rcode, truncated, error, spare) in cases {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + spare, 0xaa);
        let len = edit::answer(&mut buffer, query, rcode, truncated, error);
        assert!(len <= buffer.len() && len <= query.response_limit());
        let answer = &buffer[..len];
        own_answer(packet, query, answer, rcode, truncated, error);
    }
}

fn own_answer(
    packet: &[u8],
    query: &Query,
    answer: &[u8],
    rcode: Rcode,
    truncated: bool,
    error: Option<ExtendedError>,
) {
    let message = Message::from_vec(answer).expect("hickory reads our answer");
    let metadata = &message.metadata;
    assert_eq!(metadata.message_type, MessageType::Response);
    assert_eq!(metadata.id, query.id);
    assert_eq!(u8::from(metadata.op_code), query.flags.opcode().0);
    assert_eq!(metadata.recursion_desired, query.flags.recursion_desired());
    assert_eq!(metadata.checking_disabled, query.flags.checking_disabled());
    assert_eq!(metadata.truncation, truncated);
    assert!(!metadata.authoritative && !metadata.authentic_data && !metadata.recursion_available);
    let rcode = if rcode.0 > 15 && query.edns.is_none() {
        Rcode::SERVFAIL
    } else {
        rcode
    };
    assert_eq!(u16::from(metadata.response_code), rcode.0);
    same_question(query, &message.queries[0]);
    assert!(
        message.answers.is_empty()
            && message.authorities.is_empty()
            && message.additionals.is_empty()
    );
    match (&query.edns, &message.edns) {
        (None, None) => {}
        (Some(asked), Some(told)) => {
            assert_eq!(told.max_payload(), edit::OUR_UDP_SIZE);
            assert_eq!(told.version(), 0);
            assert_eq!(told.flags().dnssec_ok, asked.dnssec_ok);
            assert_eq!(told.flags().z, 0);
            let options = told.options().as_ref();
            assert!(options.len() <= usize::from(error.is_some()));
            for (code, option) in options {
                assert_eq!(u16::from(*code), 15);
                let data: Vec<u8> = option.try_into().expect("was read");
                let error = error.expect("one was given");
                assert_eq!(data[..2], error.info_code.to_be_bytes());
                assert!(data.len() == 2 || data[2..] == *error.text.as_bytes());
            }
        }
        (asked, told) => panic!("EDNS asked {asked:?}, told {told:?}"),
    }

    let response = Response::parse(answer).expect("we read our own answer");
    assert_eq!(response.rcode, rcode);
    assert_eq!(response.question(answer), query.question(packet));
    assert!(response.answers_question(answer, query.question(packet)));
    assert_eq!(response.edns.is_some(), query.edns.is_some());
}

fn own_format_error(packet: &[u8]) {
    let mut buffer = packet.to_vec();
    match edit::format_error(&mut buffer) {
        None => assert!(packet.len() < 12 || packet[2] & 0x80 != 0),
        Some(len) => {
            let message = Message::from_vec(&buffer[..len]).expect("hickory reads our answer");
            assert_eq!(message.metadata.id.to_be_bytes(), packet[..2]);
            assert_eq!(u16::from(message.metadata.response_code), Rcode::FORMERR.0);
            assert!(message.queries.is_empty() && message.edns.is_none());
            assert!(Response::parse(&buffer[..len]).is_ok());
        }
    }
}

fn flipped_case(question: &[u8]) -> Vec<u8> {
    let name_len = question.len() - 4;
    let mut flipped = question.to_vec();
    for octet in &mut flipped[..name_len] {
        if octet.is_ascii_alphabetic() {
            *octet ^= 0x20;
        }
    }
    flipped
}
