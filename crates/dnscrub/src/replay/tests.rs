use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use dnscrub_testkit::message;
use dnscrub_wire::{Opcode, QueryBuilder, Rcode, qtype};
use etherparse::PacketBuilder;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;

use super::html;
use super::report::Report;
use super::run::{self, Options};
use super::suite;
use super::tally::Class;
use crate::report::markup;

const CLIENT: [u8; 4] = [198, 51, 100, 7];
const SERVER: [u8; 4] = [192, 0, 2, 53];

/// Numbers of the records are given by their place.
struct Records(String, usize);

impl Records {
    fn new() -> Self {
        Self(String::new(), 0)
    }

    /// A record of transaction `txn`; what the backend answers is NOERROR.
    fn add(&mut self, t: f64, proto: &str, query: &[u8], txn: u64, att: u32) {
        let hex: String = query.iter().map(|octet| format!("{octet:02x}")).collect();
        let i = self.1;
        self.1 += 1;
        self.0 += &format!(
            r#"{{"i":{i},"t":{t},"src":"198.51.100.7","ttl":57,"sport":4711,"proto":"{proto}","q":"{hex}","label":"legit","exp":0,"txn":{txn},"att":{att}}}"#
        );
        self.0.push('\n');
    }

    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("trace.ndjson"), &self.0).unwrap();
        std::fs::create_dir(folder.path().join("zones")).unwrap();
        folder
    }
}

fn query(name: &str, qtype: u16) -> Vec<u8> {
    message::query(name, qtype).id(7).build()
}

/// One of each kind.
fn scenario() -> Records {
    let mut records = Records::new();
    let plain = query("www.example.com", qtype::A);
    records.add(0.0, "udp", &plain, 1, 0);
    // an unconditional retry is sent in any case, a conditional one only without an answer
    records.add(0.4, "udp", &plain, 1, 0);
    records.add(0.5, "udp", &plain, 1, 1);
    records.add(0.6, "tcp", &plain, 3, 0);
    records.add(0.7, "syn", b"", 0, 0);
    records.add(0.8, "udp", &plain[..7], 5, 0);
    records.add(0.9, "udp", &plain[..7], 5, 1);
    let mut response = plain.clone();
    response[2] |= 0x80;
    records.add(1.0, "udp", &response, 0, 0);
    records.add(1.1, "udp", &query("example.com", qtype::AXFR), 0, 0);
    let status = QueryBuilder::new(&message::name("example.com"), qtype::A);
    records.add(1.2, "udp", &status.opcode(Opcode(2)).build(), 0, 0);
    records.add(1.3, "udp", &plain[..plain.len() - 1], 0, 0);
    records
}

#[test]
fn a_scenario_gets_a_verdict_for_each_query_presented() {
    let folder = scenario().folder();
    let suite::Outcomes {
        verdicts, timing, ..
    } = suite::run(folder.path(), false).unwrap();
    let expected = "\
        0 p 0\n1 p 0\n3 p 0\n4 d 0\n5 d 1000\n6 d 1000\n7 d 1000\n8 r 0\n9 r 1000\n10 d 1000\n";
    assert_eq!(verdicts, expected);
    assert_eq!(timing.queries, 9, "the SYN is not one");
    let again = suite::run(folder.path(), false).unwrap().verdicts;
    assert_eq!(again, verdicts, "the same trace, the same verdicts");
    let blind = suite::run(folder.path(), true).unwrap().verdicts;
    assert_eq!(blind, verdicts, "there are no zones that could tell");
}

#[test]
fn labels_are_not_looked_at() {
    let records = scenario();
    let verdicts = |text: &str| {
        let folder = Records(text.to_owned(), 0).folder();
        suite::run(folder.path(), false).unwrap().verdicts
    };
    let known = verdicts(&records.0);
    assert_eq!(verdicts(&records.0.replace("legit", "attack")), known);
    assert_eq!(
        verdicts(&records.0.replace(r#""label":"legit","#, "")),
        known
    );
}

#[test]
fn what_is_wrong_in_a_trace_is_told_with_its_place() {
    for (line, problem) in [
        ("nonsense", ":2: column 2: expected"),
        ("{\"i\":1}", ":2: column 7: missing field `t`"),
        (
            r#"{"i":1,"t":0,"src":"x","ttl":1,"sport":1,"proto":"udp","q":""}"#,
            ":2: `src` is \"x\", not an address",
        ),
        (
            r#"{"i":1,"t":-1,"src":"::1","ttl":1,"sport":1,"proto":"udp","q":""}"#,
            ":2: `t` is -1, not a time",
        ),
        (
            r#"{"i":1,"t":0,"src":"::1","ttl":1,"sport":1,"proto":"sctp","q":""}"#,
            ":2: `proto` is \"sctp\"; expected udp, tcp or syn",
        ),
        (
            r#"{"i":1,"t":0,"src":"::1","ttl":1,"sport":1,"proto":"udp","q":"abc"}"#,
            ":2: `q` is \"abc\", not hexadecimal",
        ),
        (
            r#"{"i":1,"t":0,"src":"::1","ttl":1,"sport":1,"proto":"udp","q":"zz"}"#,
            ":2: `q` is \"zz\", not hexadecimal",
        ),
        (
            &scenario()
                .0
                .lines()
                .next()
                .unwrap()
                .replace(r#","exp":0"#, ""),
            ":2: column ",
        ),
    ] {
        let folder = Records(format!("\n{line}\n"), 0).folder();
        let failure = suite::run(folder.path(), false).unwrap_err().to_string();
        assert!(failure.contains(problem), "{line}: {failure}");
    }
    let folder = tempfile::tempdir().unwrap();
    let failure = suite::run(folder.path(), false).unwrap_err().to_string();
    assert!(
        failure.starts_with("cannot read ") && failure.contains("trace.ndjson"),
        "{failure}"
    );
}

/// A capture with raw IP packets, at these milliseconds.
#[derive(Default)]
struct Packets(Vec<u8>);

impl Packets {
    fn new() -> Self {
        let mut octets = Vec::new();
        for number in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 101] {
            octets.extend(number.to_le_bytes());
        }
        Self(octets)
    }

    fn add(
        &mut self,
        milliseconds: u32,
        from: [u8; 4],
        to: [u8; 4],
        ports: (u16, u16),
        data: &[u8],
    ) {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(from, to, 57)
            .udp(ports.0, ports.1)
            .write(&mut packet, data)
            .unwrap();
        let length = u32::try_from(packet.len()).unwrap();
        let time = [
            1_700_000_000 + milliseconds / 1000,
            milliseconds % 1000 * 1000,
        ];
        for number in [time[0], time[1], length, length] {
            self.0.extend(number.to_le_bytes());
        }
        self.0.extend(packet);
    }

    fn query(&mut self, milliseconds: u32, from: [u8; 4], query: &[u8]) {
        self.add(milliseconds, from, SERVER, (4711, 53), query);
    }

    fn answer(&mut self, milliseconds: u32, to: [u8; 4], answer: &[u8]) {
        self.add(milliseconds, SERVER, to, (53, 4711), answer);
    }
}

struct Stage(TempDir);

impl Stage {
    fn new(packets: &Packets) -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        std::fs::write(stage.path("trace.pcap"), &packets.0).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn configuration(&self, name: &str, rest: &str) -> PathBuf {
        let text = format!(
            "listen: [ {{ name: main, address: \"127.0.0.1:5399\" }} ]\n\
             pools: {{ default: {{ upstreams: [ {{ address: \"127.0.0.1:5301\" }} ] }} }}\n{rest}"
        );
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn run(&self, config: &Path, against: Option<&Path>) -> Report {
        let options = Options {
            trace: self.path("trace.pcap"),
            config: config.to_owned(),
            against: against.map(Path::to_owned),
            port: 53,
        };
        run::run(&options).unwrap().0
    }
}

fn outcomes(report: &Report) -> Vec<(&str, u64)> {
    let rows = report.outcomes.iter();
    rows.map(|row| (row.outcome.as_str(), row.queries))
        .collect()
}

#[test]
fn a_capture_goes_through_rules_and_signals() {
    let mut packets = Packets::new();
    for at in 0..20 {
        packets.query(at * 100, CLIENT, &query("www.example.com", qtype::A));
    }
    packets.query(2_000, CLIENT, &query("example.com", qtype::ANY));
    packets.query(2_000, [203, 0, 113, 9], &query("example.net", qtype::ANY));
    let stage = Stage::new(&packets);
    let config = stage.configuration(
        "a.yaml",
        "signals: { rate: { questions: { points: 0 } } }\nrules:\n- { name: no-any, when: { qtype: ANY, qname: { under: example.com } }, do: refuse }\n\
         - { name: trial, observe: true, when: { qtype: ANY }, do: drop }\n",
    );
    let report = stage.run(&config, None);
    assert_eq!(
        outcomes(&report),
        [
            ("forwarded", 20),
            ("forwarded (observe mode held back: drop)", 1),
            ("refused/rule", 1),
        ]
    );
    let rules: Vec<_> = report
        .rules
        .iter()
        .map(|rule| {
            (
                rule.name.as_str(),
                rule.matched,
                rule.acted,
                rule.would_have,
            )
        })
        .collect();
    assert_eq!(rules, [("no-any", 1, 1, 0), ("trial", 1, 0, 1)]);
    let signal = report
        .signals
        .iter()
        .find(|signal| signal.name == "amplification")
        .unwrap();
    assert_eq!(
        (signal.queries, signal.stopped),
        (2, 1),
        "ANY is asked twice"
    );
    assert!(signal.points > 0);
    assert_eq!(report.scores[0].by_class.iter().sum::<u64>(), 22);
    assert!((report.trace.seconds - 2.0).abs() < 1e-6);
    assert_eq!(report.over_time.steps.len(), 21);
    assert_eq!(
        report.over_time.steps[20],
        [0, 1, 0, 0, 1, 0],
        "the last tenth of a second: one held back, one refused"
    );
    assert_eq!(
        (
            report.names.rows[0].key.as_str(),
            report.names.rows[0].queries
        ),
        ("www.example.com", 20)
    );
    assert_eq!(report.prefixes.rows[0].key, "198.51.100.0/24");
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.starts_with("No answers"))
    );
}

#[test]
fn answers_in_the_capture_teach_the_scorer() {
    let mut packets = Packets::new();
    let large = vec![0; 1200];
    for number in 0..400_u16 {
        let at = u32::from(number) * 10;
        let asked = message::query("big.example.com", qtype::TXT)
            .id(number)
            .build();
        packets.query(at, CLIENT, &asked);
        let mut answer = message::answer(&asked, Rcode::NOERROR, 1);
        answer.extend(&large);
        packets.answer(at + 1, CLIENT, &answer);
    }
    // another question under the id, another client, and one that is too late
    let late = message::query("late.example.com", qtype::TXT).id(1).build();
    packets.query(5_000, CLIENT, &late);
    let other = message::query("other.example.com", qtype::TXT)
        .id(1)
        .build();
    packets.answer(5_001, CLIENT, &message::answer(&other, Rcode::NOERROR, 1));
    packets.answer(
        5_002,
        [203, 0, 113, 9],
        &message::answer(&late, Rcode::NOERROR, 1),
    );
    packets.answer(10_100, CLIENT, &message::answer(&late, Rcode::NOERROR, 1));
    let stage = Stage::new(&packets);
    let config = stage.configuration("a.yaml", "");
    let report = stage.run(&config, None);
    assert_eq!(
        (report.trace.answers, report.trace.answers_unmatched),
        (400, 3)
    );
    let points = |report: &Report| {
        let signal = report.signals.iter().find(|it| it.name == "amplification");
        signal.unwrap().points
    };
    assert!(points(&report) > 0, "{:?}", report.signals);
    let silent = Packets::new();
    let mut quiet = Packets(silent.0);
    for number in 0..400_u16 {
        let asked = message::query("big.example.com", qtype::TXT)
            .id(number)
            .build();
        quiet.query(u32::from(number) * 10, CLIENT, &asked);
    }
    let stage = Stage::new(&quiet);
    let config = stage.configuration("a.yaml", "");
    assert_eq!(points(&stage.run(&config, None)), 0, "nothing was learned");
}

#[test]
fn a_rules_block_is_in_force_on_the_traces_clock_and_ends_on_it() {
    let mut packets = Packets::new();
    packets.query(0, CLIENT, &query("example.com", qtype::ANY));
    packets.query(10, CLIENT, &query("example.com", qtype::A));
    packets.query(100, CLIENT, &query("example.com", qtype::A));
    packets.query(59_000, CLIENT, &query("example.com", qtype::A));
    packets.query(61_000, CLIENT, &query("example.com", qtype::A));
    let stage = Stage::new(&packets);
    let config = stage.configuration(
        "a.yaml",
        "rules: [ { name: trap, when: { qtype: ANY }, do: { block: 1m } } ]\n",
    );
    let report = stage.run(&config, None);
    let steps = &report.over_time;
    let at = |second: f64| steps.steps[(second / steps.step_seconds) as usize];
    assert_eq!(
        outcomes(&report),
        [
            ("forwarded", 2),
            ("dropped/blocked", 2),
            ("dropped/rule", 1)
        ],
        "a block takes a moment, and lasts a minute"
    );
    assert_eq!(at(59.0)[Class::Dropped as usize], 1);
    assert_eq!(at(61.0)[Class::Passed as usize], 1);
}

#[test]
fn a_rate_is_not_shared_out_among_workers_that_a_replay_does_not_have() {
    let mut packets = Packets::new();
    for at in 0..100 {
        packets.query(at, CLIENT, &query("example.com", qtype::A));
    }
    let stage = Stage::new(&packets);
    let rules =
        "rules: [ { name: all, do: { rate-limit: { rate: 40/s, per: whole, over: refuse } } } ]";
    let one = stage.configuration("a.yaml", &format!("workers: 1\n{rules}\n"));
    let four = stage.configuration("b.yaml", &format!("workers: 4\n{rules}\n"));
    let report = stage.run(&one, Some(&four));
    let against = report.against.as_ref().unwrap();
    assert_eq!(against.unchanged, 100);
    assert!(report.rules[0].acted > 50 && report.rules[0].acted < 61);
}

#[test]
fn another_configuration_is_compared_with_examples() {
    let mut packets = Packets::new();
    for number in 0..30_u32 {
        let name = format!("x{number}.example.com");
        packets.query(number * 10, CLIENT, &query(&name, qtype::A));
    }
    packets.query(400, CLIENT, &query("example.com", qtype::ANY));
    packets.query(500, CLIENT, &query("example.com", qtype::MX));
    packets.query(600, CLIENT, &query("example.com", qtype::SOA));
    let stage = Stage::new(&packets);
    let before = stage.configuration(
        "a.yaml",
        "rules: [ { name: any, when: { qtype: ANY }, do: refuse }, { name: mx, when: { qtype: MX }, do: drop } ]\n",
    );
    let after = stage.configuration(
        "b.yaml",
        "rules: [ { name: mx, when: { qtype: MX }, do: refuse }, { name: addresses, when: { qtype: A }, do: { score: 120 } } ]\n",
    );
    let report = stage.run(&before, Some(&after));
    let against = report.against.as_ref().unwrap();
    assert_eq!(against.unchanged, 1);
    let stopped = &against.newly_stopped;
    assert_eq!((stopped.queries, stopped.transitions.len()), (30, 1));
    let transition = &stopped.transitions[0];
    assert_eq!(
        (transition.was.as_str(), transition.would_be.as_str()),
        ("forwarded", "dropped/band")
    );
    assert_eq!(transition.examples.len(), 10);
    let example = &transition.examples[0];
    assert_eq!(
        (example.points, example.points_then, example.qtype.as_str()),
        (Some(0), Some(120), "A")
    );
    assert_eq!(
        (example.because.as_str(), example.because_then.as_str()),
        ("nothing", "band drop")
    );
    assert!(transition.examples.is_sorted_by(|a, b| a.at <= b.at));
    let passed = &against.newly_passed;
    assert_eq!(passed.queries, 1);
    assert_eq!(
        (
            passed.transitions[0].was.as_str(),
            passed.transitions[0].examples[0].because.as_str()
        ),
        ("refused/rule", "rule any")
    );
    let otherwise = &against.otherwise;
    assert_eq!(otherwise.queries, 1);
    assert_eq!(otherwise.transitions[0].would_be, "refused/rule");
    assert_eq!(against.rules[1].matched, 30);
    let again = stage.run(&before, Some(&after));
    assert_eq!(
        serde_json::to_string(&again).unwrap(),
        serde_json::to_string(&report).unwrap(),
        "the same trace, the same report"
    );
    assert_eq!(html::page(&again), html::page(&report));
    let same = stage.run(&before, Some(&before));
    assert_eq!(same.against.unwrap().unchanged, 33);
}

#[test]
fn a_trace_of_the_suite_is_replayed_with_any_configuration() {
    let records = scenario();
    let stage = Stage(tempfile::tempdir().unwrap());
    std::fs::write(stage.path("trace.pcap"), &records.0).unwrap();
    let before = stage.configuration("a.yaml", "");
    let after = stage.configuration(
        "b.yaml",
        "rules: [ { name: www, when: { qname: www.example.com }, do: drop } ]\n",
    );
    let report = stage.run(&before, Some(&after));
    assert_eq!(report.queries, 9);
    assert_eq!(report.trace.answers, 3);
    assert_eq!(report.trace.skipped[0].packets, 1, "the SYN");
    let against = report.against.unwrap();
    assert_eq!(against.newly_stopped.queries, 3);
    assert_eq!(
        against.by_class.iter().sum::<u64>(),
        10,
        "what is dropped is asked again"
    );
}

#[test]
fn the_same_trace_comes_to_the_same_report_whatever_is_in_it() {
    for seed in 0..8 {
        let mut lot = StdRng::seed_from_u64(seed);
        let mut packets = Packets::new();
        let mut at = 0;
        for number in 0..400 {
            at += lot.random_range(0..50);
            let source = [198, 51, lot.random_range(0..3), lot.random_range(0..40)];
            let name = format!("x{}.example.com", lot.random_range(0..20));
            let kind = [qtype::A, qtype::ANY, qtype::TXT][lot.random_range(0..3)];
            let mut octets = message::query(&name, kind).id(number).build();
            if lot.random_ratio(1, 10) {
                let place = lot.random_range(0..octets.len());
                octets[place] ^= 1 << lot.random_range(0..8);
            }
            packets.query(at, source, &octets);
            if lot.random_ratio(1, 2) {
                let asked = message::query(&name, kind).id(number).build();
                packets.answer(at + 1, source, &message::answer(&asked, Rcode::NOERROR, 9));
            }
        }
        let stage = Stage::new(&packets);
        let before = stage.configuration("a.yaml", "signals: { rate: { v4: { 24: 5/s } } }\n");
        let after = stage.configuration(
            "b.yaml",
            "rules: [ { name: any, when: { qtype: ANY }, do: { rate-limit: { rate: 1/s }, block: 2s } } ]\n",
        );
        let run = || serde_json::to_value(stage.run(&before, Some(&after))).unwrap();
        let report = run();
        assert_eq!(run(), report, "seed {seed}");
        let against = &report["against"];
        let count = |of: &serde_json::Value| of["queries"].as_u64().unwrap();
        let compared = ["newly-stopped", "newly-passed", "otherwise"].map(|it| count(&against[it]));
        let all = compared.iter().sum::<u64>() + against["unchanged"].as_u64().unwrap();
        assert_eq!(
            (count(&report), all),
            (400, 400),
            "each query is counted once"
        );
        assert!(compared[0] > 0, "{against}");
    }
}

#[test]
fn the_page_is_well_formed_self_contained_and_takes_no_name_for_markup() {
    let mut packets = Packets::new();
    // a label that no name in text can hold as it is
    let mut evil = query("xxxxxxxxxxxxxxxxxxxxxxxxx.example.com", qtype::A);
    evil[13..38].copy_from_slice(b"<script>alert(1)</script>");
    for at in 0..50 {
        packets.query(at, CLIENT, &evil);
    }
    packets.query(70, CLIENT, &query("example.com", qtype::ANY));
    let stage = Stage::new(&packets);
    let before = stage.configuration("a.yaml", "");
    let after = stage.configuration(
        "<script>&'.yaml",
        "rules: [ { name: any, when: { qtype: [ ANY, A ] }, do: refuse } ]\n",
    );
    let report = stage.run(&before, Some(&after));
    let page = html::page(&report);
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("&lt;script&gt;&amp;&#39;.yaml"), "{page}");
    assert!(!page.contains("http") && !page.contains("url(") && !page.contains("src="));
    assert!(markup::assert_well_formed(&page) > 300);
    for told in [
        "Queries a second",
        "Newly stopped",
        "198.51.100.7",
        "amplification",
    ] {
        assert!(page.contains(told), "{told}");
    }
    let empty = Stage::new(&Packets::new());
    let config = empty.configuration("a.yaml", "");
    markup::assert_well_formed(&html::page(&empty.run(&config, None)));
}

#[test]
fn text_is_escaped() {
    assert_eq!(
        markup::escape("<a href=\"x\">&'\n\u{7}"),
        "&lt;a href=&quot;x&quot;&gt;&amp;&#39;&#10;\u{fffd}"
    );
}

#[test]
fn a_file_that_is_no_trace_is_said_so() {
    let stage = Stage(tempfile::tempdir().unwrap());
    let config = stage.configuration("a.yaml", "");
    let options = |name: &str| Options {
        trace: stage.path(name),
        config: config.clone(),
        against: None,
        port: 53,
    };
    let failure = |name: &str| run::run(&options(name)).unwrap_err().to_string();
    std::fs::write(stage.path("text"), "hello, this is not a capture at all").unwrap();
    std::fs::write(stage.path("short"), [0xd4, 0xc3]).unwrap();
    assert!(failure("text").contains("it is neither pcap nor pcapng"));
    assert!(failure("short").contains("it ends before its header does"));
    assert!(failure("nowhere").starts_with("cannot read "));
    let unspecified = Ipv4Addr::UNSPECIFIED.octets();
    let mut packets = Packets::new();
    packets.query(0, unspecified, &query("example.com", qtype::A));
    let cut = packets.0.len() - 5;
    std::fs::write(stage.path("cut"), &packets.0[..cut]).unwrap();
    let (report, _) = run::run(&options("cut")).unwrap();
    assert_eq!(
        (report.queries, report.trace.skipped.len()),
        (0, 1),
        "a capture that ends in the middle of a packet"
    );
}
