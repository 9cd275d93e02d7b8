//! The packet path on virtual time: whatever the network and the upstreams do, and however often
//! the configuration changes meanwhile, every query has exactly one outcome and at most one answer,
//! and no client ever gets what no upstream said.
//!
//! Some of the worlds have upstreams that take three queries at a time, and queues of five.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dnscrub::data_path::IN_FLIGHT;
use dnscrub::outcome::{LimitResult, Reason, ResponseOutcome};
use dnscrub_forwarding::{Checker, ProbeResult};
use dnscrub_packet_filter::FilterReason;
use dnscrub_testkit::authority::{Authority, Zone};
use dnscrub_testkit::message::{a_query, malformed_samples, parse, query};
use dnscrub_testkit::{Lie, Link, Mood, SimUpstream};
use dnscrub_tests::{Books, Simulation, listener};
use dnscrub_wire::{Malformed, Opcode, Query, qtype};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

const NOERROR: u16 = 0;
const SERVFAIL: u16 = 2;
const REFUSED: u16 = 5;
const BADCOOKIE: u16 = 23;

fn upstream(last: u8) -> SocketAddr {
    (Ipv4Addr::new(198, 51, 100, last), 53).into()
}

fn client(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    (Ipv4Addr::new(203, 0, high, low), 5353).into()
}

fn authority() -> Arc<Authority> {
    let zone = "@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n*.w 60 IN A 192.0.2.9\n";
    Arc::new(Authority::new([Zone::parse("example.com", zone).unwrap()]))
}

/// Upstreams 1 to `count`, which answer after 10 ms.
fn with_upstreams(yaml: &str, count: u8, seed: u64) -> Simulation {
    let mut simulation = Simulation::new(yaml, seed);
    let authority = authority();
    let now = simulation.network.now();
    for last in 1..=count {
        let server = SimUpstream::with_latency(Arc::clone(&authority), now, 10 * MS);
        simulation.network.add_upstream(upstream(last), server);
    }
    simulation
}

/// A pool of these upstreams.
/// Many sources with one question are no attack here.
const NO_ALARMS: &str =
    "signals: { rate: { questions: { points: 0 } }, loyalty: { points: 0, second: 0 } }\n";

fn pool(upstreams: &[u8], settings: &str) -> String {
    let addresses: Vec<_> = upstreams
        .iter()
        .map(|last| format!("{{ address: \"198.51.100.{last}:53\" }}"))
        .collect();
    format!(
        "pools: {{ default: {{ upstreams: [ {} ]{settings} }} }}\n",
        addresses.join(", ")
    )
}

fn rcodes(simulation: &Simulation, client: SocketAddr) -> Vec<u16> {
    let answers = simulation.answers.get(&client).into_iter().flatten();
    answers
        .map(|answer| parse(answer).metadata.response_code.into())
        .collect()
}

/// Code and text of the extended error (RFC 8914) in an answer.
fn extended_error(answer: &[u8]) -> Option<(u16, String)> {
    use dnscrub_wire::Response;
    let response = Response::parse(answer).unwrap();
    let at = usize::from(response.question_end);
    // the OPT record is the only one in answers of our own: 11 octets, then the options
    let options = answer.get(at + 11..)?;
    let length = usize::from(u16::from_be_bytes([*options.get(2)?, *options.get(3)?]));
    assert_eq!(options[..2], [0, 15], "option code of the extended error");
    let code = u16::from_be_bytes([options[4], options[5]]);
    let text = String::from_utf8(options[6..4 + length].to_vec()).unwrap();
    Some((code, text))
}

/// Rules that answer, drop and limit some of the queries.
const RULES: &str = "
rules:
  - { name: no-any, when: { qtype: ANY }, do: refuse }
  - { name: no-txt, when: { qtype: TXT }, do: drop }
  - { name: lame, when: { qname: { under: lame.example.com } }, do: { action: nxdomain } }
  - { name: slow, when: { qtype: MX }, do: { rate-limit: { rate: 20/s, burst: 5, over: truncate } } }
opcodes: { status: drop }
";

/// Limits that answers meet: of 256 clients in a network each asks once, for a name of its own.
const LIMITS: &str = "
response-limit: { all: 20/s, nxdomain: 2/s, errors: 3/s, window: 500ms, slip-as: badcookie }
";

/// One random query: most are good, some meet rules, the filter or the parser.
fn random_query(random: &mut StdRng, number: u16) -> Vec<u8> {
    let name = format!("q{number}.w.example.com");
    let id = random.random();
    match random.random_range(0..100) {
        0..70 => query(&name, qtype::A)
            .id(id)
            .udp_size(1232)
            .dnssec_ok(random.random())
            .option(10, &b"client01"[..8 * random.random_range(0..2)])
            .build(),
        70..80 => a_query(&format!("x{number}.missing.example.com"), id),
        80..84 => query(&name, qtype::ANY).id(id).build(),
        84..87 => query(&name, qtype::TXT).id(id).build(),
        87..89 => a_query("a.lame.example.com", id),
        89..93 => query(&name, qtype::MX).id(id).build(),
        93..95 => query(&name, qtype::A).id(id).opcode(Opcode::STATUS).build(),
        95..97 => query(&name, qtype::AXFR).id(id).build(),
        // more than what is kept for a retry
        97..98 => query(&name, qtype::A)
            .id(id)
            .option(65_001, &[7; 600])
            .build(),
        _ => {
            let samples = malformed_samples();
            let (_, packet) = &samples[random.random_range(0..samples.len())];
            packet.clone()
        }
    }
}

fn random_mood(random: &mut StdRng) -> Mood {
    let lies = [
        Lie::WrongId,
        Lie::WrongQuestion,
        Lie::Echo,
        Lie::Garbage,
        Lie::Empty,
        Lie::Cut,
    ];
    match random.random_range(0..8) {
        0..3 => Mood::Up,
        3 => Mood::Dead,
        4 => Mood::Refusing,
        5 => Mood::Lying(lies[random.random_range(0..lies.len())]),
        _ => Mood::Spoofed(lies[random.random_range(0..lies.len())]),
    }
}

fn random_configuration(random: &mut StdRng) -> String {
    let mut upstreams: Vec<u8> = (1..=4).filter(|_| random.random()).collect();
    if upstreams.is_empty() {
        upstreams.push(random.random_range(1..=4));
    }
    let balancing = [
        "least-outstanding",
        "weighted-random",
        "round-robin",
        "consistent-hash",
        "ordered",
    ][random.random_range(0..5)];
    let when_none = ["servfail", "silence"][random.random_range(0..2)];
    let retries = random.random_range(0..4);
    let queue = [
        "",
        ", queue: { length: 0 }",
        ", queue: { length: 5, max-wait: 50ms }",
        ", queue: { length: 40, max-wait: 300ms }",
    ][random.random_range(0..4)];
    let settings = format!(
        ", policy: {balancing}, when-none: {when_none}, retries: {retries}, retry-after: 100ms, patience: 500ms{queue}"
    );
    let rules = if random.random() { RULES } else { "" };
    let limit = if random.random() { LIMITS } else { "" };
    let most = [3, 10, 2000][random.random_range(0..3)];
    let pool =
        pool(&upstreams, &settings).replace(":53\"", &format!(":53\", max-outstanding: {most}"));
    pool + rules + limit
}

/// One world: loss, delay, reordering and duplicates on the way to upstreams that die, refuse, hang
/// and lie, while the configuration changes. [`Simulation`] checks the books after every event. The
/// seed is the schedule's; ids, sockets and upstreams are drawn by the path itself.
fn random_world(seed: u64) -> (Books, Limited, [u64; 2]) {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut simulation = with_upstreams(&random_configuration(random), 4, seed);
    for last in 1..=4 {
        let link = Link {
            delay: MS,
            jitter: random.random_range(0..20) * MS,
            loss: [0.0, 0.0, 0.02, 0.3][random.random_range(0..4)],
            duplicates: [0.0, 0.05][random.random_range(0..2)],
            reordered: 0.1,
            hold_back: random.random_range(0..300) * MS,
        };
        simulation
            .network
            .set_link(listener().ip(), upstream(last).ip(), link);
    }
    let mut asked = 0;
    for _ in 0..30 {
        for _ in 0..random.random_range(1..40) {
            let query = random_query(random, asked);
            let when = simulation.network.now() + random.random_range(0..100) * MS;
            simulation.ask(when, client(asked), &query);
            asked += 1;
        }
        let end = simulation.network.now() + 100 * MS;
        simulation.run_until(end);
        if random.random_range(0..3) == 0 {
            let last = random.random_range(1..=4);
            simulation
                .network
                .upstream(upstream(last))
                .set_mood(random_mood(random));
        }
        if random.random_range(0..4) == 0 {
            simulation.reload(&random_configuration(random));
        }
    }
    simulation.run_for(3 * SECOND);

    let books = simulation.books();
    assert_eq!(simulation.unsettled(), 0, "{books:?}");
    assert_eq!(books.received, u64::from(asked));
    assert_eq!(books.open(), 0, "{books:?}");
    assert_eq!(
        simulation.answered() as u64,
        books.forwarded + books.answered,
        "an answer for each query that was answered"
    );
    for (client, answers) in &simulation.answers {
        assert_eq!(answers.len(), 1, "{client} asked once");
    }
    let limited = limited(&simulation);
    let counted = limited.dropped + limited.truncated + limited.bad_cookie;
    assert_eq!(counted, simulation.count(Reason::ResponseLimit));
    let reasons = [Reason::QueueFull, Reason::QueueTimeout];
    (
        books,
        limited,
        reasons.map(|reason| simulation.count(reason)),
    )
}

/// Answers over a response limit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Limited {
    dropped: u64,
    truncated: u64,
    bad_cookie: u64,
    observed: u64,
}

fn limited(simulation: &Simulation) -> Limited {
    let mut limited = Limited::default();
    for (_, result, count) in simulation.counters.responses_limited() {
        *match result {
            LimitResult::Dropped => &mut limited.dropped,
            LimitResult::Truncated => &mut limited.truncated,
            LimitResult::BadCookie => &mut limited.bad_cookie,
            LimitResult::Observed => &mut limited.observed,
        } += count;
    }
    limited
}

#[test]
fn every_query_has_one_outcome_in_any_world() {
    let mut total = Books::default();
    let mut slipped = [0; 3];
    let (mut overrun, mut overdue) = (0, 0);
    for seed in 0..60 {
        let (books, limited, reasons) = random_world(seed);
        slipped[0] += limited.dropped;
        slipped[1] += limited.truncated;
        slipped[2] += limited.bad_cookie;
        overrun += reasons[0];
        overdue += reasons[1];
        total.received += books.received;
        total.forwarded += books.forwarded;
        total.answered += books.answered;
        total.dropped += books.dropped;
        total.expired += books.expired;
    }
    // no outcome was left out of the test
    assert!(overrun > 50 && overdue > 50, "{overrun} {overdue}");
    for count in [
        total.forwarded,
        total.answered,
        total.dropped,
        total.expired,
    ] {
        assert!(count * 50 > total.received, "{total:?}");
    }
    for count in slipped {
        assert!(count * 200 > total.received, "{slipped:?} of {total:?}");
    }
}

#[test]
fn an_answer_is_the_upstreams_but_for_the_id() {
    let mut simulation = with_upstreams(&pool(&[1], ""), 1, 1);
    let asked = query("Mixed.Case.w.Example.com", qtype::A)
        .id(0x1234)
        .udp_size(4096)
        .option(10, &[1, 2, 3, 4, 5, 6, 7, 8])
        .build();
    simulation.ask(simulation.network.now(), client(1), &asked);
    simulation.run_for(SECOND);
    let (_, sent) = &simulation.queries[0];
    assert_eq!(sent[2..], asked[2..]);
    let answer = &simulation.answers[&client(1)][0];
    assert_eq!(answer[..2], [0x12, 0x34]);
    let asked_name = &asked[12..][..25];
    assert_eq!(&answer[12..][..25], asked_name, "the client's own spelling");
    assert_eq!(parse(answer).answers.len(), 1);
}

#[test]
fn a_packet_that_is_a_response_is_never_answered() {
    for setting in [
        "sanity: { malformed: formerr }\n",
        "acl: { deny: [ 0.0.0.0/0, \"::/0\" ], denied: refuse }\n",
    ] {
        let mut simulation = with_upstreams(&(pool(&[1], "") + setting), 1, 1);
        let well_formed = a_query("a.w.example.com", 7);
        for (number, sample) in malformed_samples()
            .into_iter()
            .map(|(_, packet)| packet)
            .chain([well_formed])
            .enumerate()
        {
            let mut response = sample;
            if let Some(flags) = response.get_mut(2) {
                *flags |= 0x80;
            }
            let now = simulation.network.now();
            simulation.ask(now, client(number as u16), &response);
        }
        simulation.run_for(5 * SECOND);
        let books = simulation.books();
        assert_eq!(books.dropped, books.received, "{setting}{books:?}");
        assert!(simulation.answers.is_empty(), "{setting}");
        assert!(simulation.queries.is_empty(), "{setting}");
    }
}

#[test]
fn malformed_packets_get_what_is_configured_and_reach_no_upstream() {
    for (setting, talkative) in [("drop", false), ("formerr", true)] {
        let yaml = pool(&[1], "") + &format!("sanity: {{ malformed: {setting} }}\n");
        let mut simulation = with_upstreams(&yaml, 1, 1);
        for (number, (_, packet)) in malformed_samples().iter().enumerate() {
            let now = simulation.network.now();
            simulation.ask(now, client(number as u16), packet);
        }
        simulation.run_for(SECOND);
        assert!(simulation.queries.is_empty());
        for (number, (kind, packet)) in malformed_samples().iter().enumerate() {
            let answers = simulation.answers.get(&client(number as u16));
            let silent = matches!(kind, Malformed::ShortHeader | Malformed::Response)
                || !(talkative || kind.is_ambiguous_edns());
            assert_eq!(answers.is_none(), silent, "{kind:?} with {setting}");
            if let Some(answer) = answers.map(|answers| &answers[0]) {
                assert_eq!(answer.len(), 12, "{kind:?}: no more than was asked");
                assert_eq!(answer[..2], packet[..2]);
                assert_eq!(answer[3] & 0x0f, 1, "FORMERR");
            }
            let reason = Reason::Malformed(*kind);
            let counted = simulation.count(reason);
            assert_eq!(counted, 1, "{kind:?}");
        }
    }
}

#[test]
fn only_the_answer_asked_for_counts() {
    for (lie, outcome) in [
        (Lie::WrongId, ResponseOutcome::UnknownId),
        (Lie::WrongQuestion, ResponseOutcome::WrongQuestion),
        (Lie::Echo, ResponseOutcome::Malformed),
        (Lie::Garbage, ResponseOutcome::Malformed),
        (Lie::Empty, ResponseOutcome::Malformed),
        (Lie::Cut, ResponseOutcome::Malformed),
    ] {
        let mut simulation = with_upstreams(&pool(&[1], ""), 1, 1);
        simulation
            .network
            .upstream(upstream(1))
            .set_mood(Mood::Spoofed(lie));
        let now = simulation.network.now();
        simulation.ask(now, client(1), &a_query("a.w.example.com", 7));
        simulation.run_for(SECOND);
        assert_eq!(rcodes(&simulation, client(1)), [NOERROR], "{lie:?}");
        let answer = parse(&simulation.answers[&client(1)][0]);
        assert_eq!(answer.answers.len(), 1, "{lie:?}: the true answer");
        let counted = simulation
            .counters
            .responses()
            .find(|&(found, _)| found == outcome);
        assert_eq!(counted, Some((outcome, 1)), "{lie:?}");
    }
}

#[test]
fn an_answer_on_another_socket_does_not_count() {
    let mut simulation = with_upstreams(&pool(&[1], ""), 1, 1);
    simulation
        .network
        .upstream(upstream(1))
        .set_mood(Mood::Dead);
    let now = simulation.network.now();
    simulation.ask(now, client(1), &a_query("a.w.example.com", 7));
    simulation.run_for(50 * MS);
    let (at, sent) = simulation.queries[0].clone();
    let mut answer = sent;
    answer[2] |= 0x80;
    for socket in 0..4 {
        let mut packet = answer.clone();
        let other = dnscrub_forwarding::SocketRef { socket, ..at };
        let now = simulation.network.now();
        let len = packet.len();
        let delivered = simulation.path.on_response(other, &mut packet, len, now);
        if socket != at.socket && simulation.books().forwarded == 0 {
            assert_eq!(delivered, None, "socket {socket}");
        }
    }
    assert_eq!(simulation.books().forwarded, 1, "and on its own it does");
}

#[test]
fn a_lost_query_is_sent_again_within_the_clients_patience() {
    let settings = ", policy: ordered, retry-after: 300ms, patience: 2s";
    let mut simulation = with_upstreams(&pool(&[1, 2], settings), 2, 1);
    simulation
        .network
        .upstream(upstream(1))
        .set_mood(Mood::Dead);
    let asked = simulation.network.clock().elapsed();
    let now = simulation.network.now();
    simulation.ask(now, client(1), &a_query("a.w.example.com", 7));
    while simulation.answered() == 0 {
        simulation.run_for(MS);
    }
    let waited = simulation.network.clock().elapsed() - asked;
    assert!(
        (310 * MS..330 * MS).contains(&waited),
        "retry time, a tick and the upstream's latency: {waited:?}"
    );
    assert_eq!(simulation.counters.retries.get(), 1);
    simulation.run_for(5 * SECOND);
    assert_eq!(rcodes(&simulation, client(1)), [NOERROR]);
}

#[test]
fn refused_queries_move_at_once() {
    let settings = ", policy: ordered, retry-after: 300ms, patience: 2s";
    let mut simulation = with_upstreams(&pool(&[1, 2], settings), 2, 1);
    simulation
        .network
        .upstream(upstream(1))
        .set_mood(Mood::Refusing);
    let asked = simulation.network.clock().elapsed();
    for number in 0..100 {
        let now = simulation.network.now();
        let name = format!("n{number}.w.example.com");
        simulation.ask(now, client(number), &a_query(&name, number));
    }
    while simulation.answered() < 100 {
        simulation.run_for(MS);
    }
    let waited = simulation.network.clock().elapsed() - asked;
    assert!(waited <= 12 * MS, "the upstream's latency: {waited:?}");
    assert_eq!(simulation.books().forwarded, 100);
}

#[test]
fn without_an_answer_the_client_gets_servfail_or_silence_as_configured() {
    for when_none in ["servfail", "silence"] {
        let settings = format!(", when-none: {when_none}, retry-after: 300ms, patience: 2s");
        let mut simulation = with_upstreams(&pool(&[1, 2], &settings), 2, 1);
        for last in [1, 2] {
            simulation
                .network
                .upstream(upstream(last))
                .set_mood(Mood::Dead);
        }
        let asked = query("a.w.example.com", qtype::A)
            .id(7)
            .udp_size(1232)
            .build();
        let now = simulation.network.now();
        simulation.ask(now, client(1), &asked);
        simulation.run_for(1990 * MS);
        assert_eq!(simulation.answered(), 0, "the patience is the client's");
        simulation.run_for(30 * MS);
        let books = simulation.books();
        if when_none == "silence" {
            assert_eq!((books.expired, simulation.answered()), (1, 0));
            continue;
        }
        assert_eq!((books.answered, books.expired), (1, 0));
        assert_eq!(rcodes(&simulation, client(1)), [SERVFAIL]);
        let answer = &simulation.answers[&client(1)][0];
        let (code, text) = extended_error(answer).unwrap();
        assert_eq!(
            (code, text.as_str()),
            (23, "no name server answered in time")
        );
        let view = Query::parse(&asked).unwrap();
        assert_eq!(
            answer[12..view.question_end.into()],
            asked[12..view.question_end.into()]
        );
    }
}

#[test]
fn a_full_table_turns_new_queries_away_and_keeps_what_it_holds() {
    const MORE: usize = 1_000;
    let mut simulation = with_upstreams(
        &(pool(&[1], ", retries: 0, patience: 2s, queue: { length: 0 }") + NO_ALARMS),
        1,
        1,
    );
    simulation
        .network
        .upstream(upstream(1))
        .set_mood(Mood::Dead);
    let packet = a_query("a.w.example.com", 7);
    let now = simulation.network.now();
    let sources = u32::from(Ipv4Addr::new(10, 0, 0, 0));
    for number in 0..(IN_FLIGHT + MORE) as u32 {
        let from = (Ipv4Addr::from(sources + number), 5353).into();
        simulation.ask(now, from, &packet);
    }
    simulation.run_for(MS);
    assert_eq!(simulation.path.forwarder().in_flight(), IN_FLIGHT);
    assert_eq!(simulation.count(Reason::TableFull), MORE as u64);
    assert_eq!(simulation.answered(), 0, "turned away in silence");
    simulation.run_for(2 * SECOND + 100 * MS);
    assert_eq!(simulation.count(Reason::Expired), IN_FLIGHT as u64);
    assert_eq!(
        simulation.answered(),
        IN_FLIGHT,
        "SERVFAIL for each in flight"
    );
    simulation.network.upstream(upstream(1)).set_mood(Mood::Up);
    let now = simulation.network.now();
    simulation.ask(now, client(1), &packet);
    simulation.run_for(SECOND);
    assert_eq!(
        rcodes(&simulation, client(1)),
        [NOERROR],
        "there is room again"
    );
}

#[test]
fn without_an_upstream_the_client_is_told_at_once() {
    for (when_none, answers) in [("servfail", 1), ("silence", 0)] {
        let settings = format!(
            ", when-none: {when_none}, minimum-active: 0, health: {{ interval: 1s, fall: 2 }}"
        );
        let mut simulation = with_upstreams(&pool(&[1], &settings), 1, 1);
        let policy = Arc::clone(&simulation.path.policy().forwarding);
        let mut checker = Checker::new(&policy, simulation.network.now());
        for _ in 0..4 {
            let now = simulation.network.now();
            while let Some(probe) = checker.next_probe(now) {
                checker.on_result(&probe, ProbeResult::Timeout, now);
            }
            simulation.run_for(SECOND);
        }
        let asked = query("a.w.example.com", qtype::A).udp_size(1232).build();
        let now = simulation.network.now();
        simulation.ask(now, client(1), &asked);
        simulation.run_for(MS);
        assert_eq!(simulation.answered(), answers);
        assert_eq!(simulation.count(Reason::NoUpstream), 1);
        assert!(simulation.queries.is_empty());
        if let Some(answer) = simulation.answers.get(&client(1)) {
            assert_eq!(rcodes(&simulation, client(1)), [SERVFAIL]);
            let (code, text) = extended_error(&answer[0]).unwrap();
            assert_eq!((code, text.as_str()), (22, "no name server reachable"));
        }
    }
}

/// Asks `count` times from a /24, a millisecond apart, each from an address and port of its own.
fn ask_from_one_network(simulation: &mut Simulation, count: u16, packet: &[u8]) {
    for number in 0..count {
        let from = (Ipv4Addr::new(198, 18, 0, number as u8), 1024 + number).into();
        let when = simulation.network.now() + MS * u32::from(number);
        simulation.ask(when, from, packet);
    }
    simulation.run_for(SECOND + MS * u32::from(count));
}

#[test]
fn a_reflected_flood_is_cut_and_the_victims_own_clients_get_tc() {
    let mut simulation = with_upstreams(&pool(&[1], ""), 1, 1);
    let packet = query("big.w.example.com", qtype::A)
        .id(7)
        .udp_size(1232)
        .recursion_desired(true)
        .build();
    ask_from_one_network(&mut simulation, 1_000, &packet);
    // 200 at once; in the second that it takes what is over the rate counts as well, so that no more
    // than those follow which the rate lets through until then
    let books = simulation.books();
    assert!((245..=255).contains(&books.forwarded), "{books:?}");
    assert_eq!(books.open(), 0);
    let counted = limited(&simulation);
    assert!(
        counted.truncated.abs_diff(counted.dropped) <= 1,
        "{counted:?}"
    );
    assert_eq!(counted.truncated, books.answered);
    assert_eq!(counted.dropped, books.dropped);
    let answers = || simulation.answers.values().flatten();
    let cut: Vec<_> = answers().filter(|answer| answer[2] & 2 != 0).collect();
    assert_eq!(cut.len() as u64, counted.truncated);
    for answer in cut {
        let message = parse(answer);
        assert!(
            answer.len() <= packet.len(),
            "no larger than what was asked"
        );
        assert_eq!(answer[..2], packet[..2]);
        assert!(message.metadata.recursion_desired && message.answers.is_empty());
        assert!(message.edns.is_some());
        assert_eq!(message.queries[0].name().to_ascii(), "big.w.example.com.");
    }
    // another network is not touched
    let now = simulation.network.now();
    simulation.ask(now, client(1), &packet);
    simulation.run_for(SECOND);
    assert_eq!(parse(&simulation.answers[&client(1)][0]).answers.len(), 1);
}

#[test]
fn a_resolver_that_asks_for_many_names_is_not_limited() {
    let mut simulation = with_upstreams(&pool(&[1], ""), 1, 1);
    for number in 0..5_000_u16 {
        let from = (Ipv4Addr::new(198, 18, 0, 1), 1024 + number).into();
        let when = simulation.network.now() + SECOND * u32::from(number) / 5_000;
        simulation.ask(
            when,
            from,
            &a_query(&format!("n{number}.w.example.com"), number),
        );
    }
    simulation.run_for(2 * SECOND);
    assert_eq!(simulation.books().forwarded, 5_000);
    assert_eq!(limited(&simulation), Limited::default());
}

#[test]
fn nonexistent_names_are_limited_whoever_says_that_they_do_not_exist() {
    let own = "rules: [ { name: gone, when: { qname: { under: gone.example.com } }, do: { action: nxdomain } } ]\n\
               response-limit: { nxdomain: 5/s, window: 0s, slip: 0 }\n";
    for zone in ["missing.example.com", "gone.example.com"] {
        let mut simulation = with_upstreams(&(pool(&[1], "") + own), 1, 1);
        for number in 0..100 {
            let from = (Ipv4Addr::new(198, 18, 0, number), 5353).into();
            let now = simulation.network.now();
            simulation.ask(
                now,
                from,
                &a_query(&format!("x{number}.y{number}.{zone}"), 1),
            );
        }
        simulation.run_for(100 * MS);
        assert_eq!(simulation.answered(), 5, "{zone}");
        assert_eq!(simulation.count(Reason::ResponseLimit), 95, "{zone}");
        assert_eq!(simulation.books().open(), 0, "{zone}");
    }
}

#[test]
fn a_flood_that_nobody_answers_is_not_reflected_as_servfail() {
    let limit = ", patience: 500ms, retries: 0";
    let yaml = pool(&[1], limit) + "response-limit: { errors: 10/s, slip: 0 }\n";
    let mut simulation = with_upstreams(&yaml, 1, 1);
    simulation
        .network
        .upstream(upstream(1))
        .set_mood(Mood::Dead);
    let now = simulation.network.now();
    for number in 0..100 {
        let from = (Ipv4Addr::new(198, 18, 0, number), 5353).into();
        simulation.ask(now, from, &a_query("a.w.example.com", 1));
    }
    simulation.run_for(SECOND);
    assert_eq!(simulation.answered(), 10);
    assert_eq!(simulation.count(Reason::ResponseLimit), 90);
}

#[test]
fn a_client_with_a_cookie_gets_badcookie_and_is_free_with_what_it_learns() {
    let yaml = pool(&[1], "") + "response-limit: { answers: 1/s, slip: 1, slip-as: badcookie }\n";
    let mut simulation = with_upstreams(&yaml, 1, 1);
    simulation.path.set_unix_time(1_700_000_000);
    let asked = |cookie: &[u8]| {
        query("Big.w.example.com", qtype::A)
            .id(7)
            .udp_size(1232)
            .option(10, cookie)
            .build()
    };
    ask_from_one_network(&mut simulation, 2, &asked(b"client01"));
    let second = (Ipv4Addr::new(198, 18, 0, 1), 1025).into();
    let answer = &simulation.answers[&second][0];
    assert_eq!(rcodes(&simulation, second), [BADCOOKIE]);
    assert_eq!(
        answer[12..][..19],
        asked(b"")[12..][..19],
        "the question as it was"
    );
    let (cookie, end) = (&answer[answer.len() - 24..], answer.len() - 28);
    assert_eq!(answer[end..][..4], [0, 10, 0, 24]);
    assert_eq!(&cookie[..8], b"client01");
    assert_eq!(limited(&simulation).bad_cookie, 1);
    let with_cookie = asked(cookie);
    for _ in 0..20 {
        let now = simulation.network.now();
        simulation.ask(now, second, &with_cookie);
    }
    simulation.run_for(SECOND);
    assert_eq!(rcodes(&simulation, second)[1..], [NOERROR; 20]);
    assert_eq!(simulation.books().forwarded, 21);
    // an hour later, or from another address, it says nothing
    simulation.path.set_unix_time(1_700_003_601);
    simulation.ask(simulation.network.now(), second, &with_cookie);
    simulation.run_for(MS * 100);
    simulation.ask(simulation.network.now(), second, &with_cookie);
    simulation.run_for(SECOND);
    assert_eq!(rcodes(&simulation, second)[21..], [NOERROR, BADCOOKIE]);
}

#[test]
fn observe_mode_limits_nothing_and_counts_what_it_would() {
    for setting in [
        "response-limit: { mode: observe, answers: 1/s }\n",
        "response-limit: { answers: 1/s }\nscrubbing: { mode: observe }\n",
    ] {
        let mut simulation = with_upstreams(&(pool(&[1], "") + setting), 1, 1);
        ask_from_one_network(&mut simulation, 50, &a_query("a.w.example.com", 7));
        assert_eq!(simulation.books().forwarded, 50, "{setting}");
        assert_eq!(limited(&simulation).observed, 49, "{setting}");
    }
}

#[test]
fn what_a_reload_changes_holds_for_the_next_query_and_nothing_in_flight_is_lost() {
    let mut simulation = with_upstreams(&pool(&[1], ""), 2, 1);
    simulation
        .network
        .upstream(upstream(1))
        .behaviour()
        .set_delay(200 * MS, Duration::ZERO);
    let now = simulation.network.now();
    simulation.ask(now, client(1), &a_query("a.w.example.com", 1));
    simulation.run_for(50 * MS);
    let denied = pool(&[2], "") + "acl: { deny: [ 203.0.0.3 ], denied: refuse }\n";
    simulation.reload(&denied);
    for number in [2, 3] {
        let now = simulation.network.now();
        simulation.ask(now, client(number), &a_query("b.w.example.com", number));
    }
    simulation.run_for(SECOND);
    assert_eq!(
        rcodes(&simulation, client(1)),
        [NOERROR],
        "answered by the upstream that is gone"
    );
    assert_eq!(rcodes(&simulation, client(2)), [NOERROR]);
    assert_eq!(rcodes(&simulation, client(3)), [REFUSED]);
    assert_eq!(simulation.count(Reason::Filter(FilterReason::AclDenied)), 1);
    assert_eq!(simulation.network.upstream(upstream(1)).received(), 1);
    assert_eq!(simulation.network.upstream(upstream(2)).received(), 1);
}
