//! Under dnsperf's load: an upstream dies or freezes, the configuration is changed over and over, a
//! blocklist of a million lines is loaded, and no query is lost.
//!
//! These tests measure, so they run one at a time.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dnscrub::outcome::Reason;
use dnscrub_packet_filter::{FilterReason, Origin};
use dnscrub_scoring::Transport;
use dnscrub_testkit::authority::{Authority, Server, Settings, Zone};
use dnscrub_testkit::clients::{Dnsperf, DnsperfReport, Kdig};
use dnscrub_testkit::message::{a_query, parse};
use dnscrub_testkit::servers::{RealServer, free_port};
use dnscrub_tests::{Proxy, wait_until};

const ZONE: &str = "@ 3600 IN SOA ns1 hostmaster 1 3600 600 604800 300\n@ 3600 IN NS ns1\n\
                    ns1 3600 IN A 192.0.2.1\n* 3600 IN A 192.0.2.80\n";

/// dnsperf is one busy source: its queries get points for their rate, which pressure would make
/// count. What these tests are about is forwarding.
const SERENE: &str = "signals: { rate: { mode: observe } }\n";

const RETRY_AFTER: Duration = Duration::from_millis(300);
/// A machine too busy to run the upstreams makes queries wait, and none is to be shed for that.
const UNHURRIED: &str = ", patience: 4s, queue: { max-wait: 3s }";
/// What a busy machine may add to a retry; less than dnsperf waits for an answer.
const MARGIN: Duration = Duration::from_secs(3);

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nsd() -> RealServer {
    RealServer::nsd("example.com", ZONE)
}

/// A name server on this port that can be started again there.
fn embedded(port: u16) -> Server {
    let authority = Authority::new([Zone::parse("example.com", ZONE).unwrap()]);
    let settings = Settings {
        listen: vec![(Ipv4Addr::LOCALHOST, port).into()],
        ..Settings::default()
    };
    Server::start(authority, &settings).unwrap()
}

fn pool(upstreams: &[SocketAddr], settings: &str) -> String {
    let addresses: Vec<_> = upstreams
        .iter()
        .map(|address| format!("{{ address: \"{address}\" }}"))
        .collect();
    format!(
        "pools: {{ default: {{ upstreams: [ {} ]{settings} }} }}\n",
        addresses.join(", ")
    )
}

/// Runs dnsperf against the proxy, and `meanwhile` beside it.
fn under_load<T>(
    proxy: &Proxy,
    queries_per_second: u32,
    seconds: u32,
    meanwhile: impl FnOnce() -> T,
) -> (DnsperfReport, T) {
    let rate = queries_per_second.to_string();
    let dnsperf = Dnsperf::new(proxy.address())
        .seconds(seconds)
        .arguments(&["-Q", &rate, "-q", "20000", "-c", "8"]);
    let names: Vec<_> = (0..1_000).map(|n| format!("n{n}.example.com")).collect();
    let questions: Vec<_> = names.iter().map(|name| (name.as_str(), "A")).collect();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| dnsperf.run(&questions));
        let result = meanwhile();
        let report = load
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (report, result)
    })
}

/// Waits until so many more queries have come in.
fn after(proxy: &Proxy, queries: u64) {
    let until = proxy.books(Transport::Udp).received + queries;
    wait_until("the load comes in", || {
        proxy.books(Transport::Udp).received >= until
    });
}

/// Queries that came as far as the proxy, and were not answered. What its receive queues had no room for, on a
/// machine too busy to run it, it never saw.
fn lost(report: &DnsperfReport, proxy: &Proxy) -> u64 {
    let unseen = proxy.sum(|worker| worker.receive_queue_drops.get());
    report.lost.saturating_sub(unseen)
}

/// What was measured is shown by `cargo test … -- --nocapture`.
#[expect(clippy::print_stdout, reason = "figures for people")]
fn answered_in_time(report: &DnsperfReport, proxy: &Proxy) {
    let books = proxy.settled(Transport::Udp);
    println!(
        "{} sent at {:.0} a second, {} lost, mean {:?}, longest {:?}",
        report.sent, report.queries_per_second, report.lost, report.latency, report.max_latency
    );
    let shown = format!("{}\n{books:?}", report.text);
    assert!(
        lost(report, proxy) * 1_000 <= books.received,
        "at most 0.1 % lost: {shown}"
    );
    let good = report.rcodes.get("NOERROR").copied().unwrap_or_default();
    assert!(
        good * 1_000 >= books.received * 999,
        "answered by an upstream: {shown}"
    );
    assert!(
        report.max_latency <= RETRY_AFTER + MARGIN,
        "none waits longer than the retry time: {shown}"
    );
    // what dnsperf gave up on is in the books all the same
    assert!(books.received >= report.completed, "{shown}");
    assert_eq!(books.open(), 0, "{shown}");
    assert_eq!(books.dropped, 0, "{shown}");
}

/// `fail` is called in the middle of 10,000 queries a second.
fn one_of_two_fails(fail: impl FnOnce(&mut RealServer)) {
    let _alone = alone();
    let (mut failing, other) = (nsd(), nsd());
    let yaml = pool(
        &[failing.address(), other.address()],
        &format!(", retry-after: 300ms{UNHURRIED}"),
    );
    let proxy = Proxy::start(&(yaml + SERENE));
    let (report, ()) = under_load(&proxy, 10_000, 6, || {
        after(&proxy, 20_000);
        fail(&mut failing);
    });
    answered_in_time(&report, &proxy);
    failing.thaw();
}

#[test]
fn when_an_upstream_is_killed_and_another_is_alive() {
    one_of_two_fails(RealServer::kill);
}

#[test]
fn when_an_upstream_freezes_and_another_is_alive() {
    one_of_two_fails(RealServer::freeze);
}

#[test]
fn when_an_upstream_comes_back() {
    let _alone = alone();
    let port = free_port(false);
    let (one, other) = (embedded(port), nsd());
    let yaml = pool(
        &[one.address(), other.address()],
        &format!(", retry-after: 300ms, slow-start: 0s, health: {{ interval: 200ms }}{UNHURRIED}"),
    );
    let proxy = Proxy::start(&(yaml + SERENE));
    let (report, served) = under_load(&proxy, 3_000, 15, || {
        after(&proxy, 3_000);
        drop(one);
        after(&proxy, 6_000);
        let back = embedded(port);
        wait_until("it is used again", || back.counts().udp_queries > 1_000);
        back.counts().udp_queries
    });
    answered_in_time(&report, &proxy);
    assert!(served > 1_000);
}

fn address_answer(proxy: &Proxy) -> Kdig {
    Kdig::ask(
        proxy.address(),
        &["www.example.com", "A", "+edns", "+timeout=10"],
    )
}

#[test]
fn with_all_upstreams_dead_clients_are_told_and_are_served_again_afterwards() {
    let _alone = alone();
    let (mut one, mut other) = (nsd(), nsd());
    let port = free_port(false);
    let addresses = [
        one.address(),
        other.address(),
        (Ipv4Addr::LOCALHOST, port).into(),
    ];
    let pool = pool(
        &addresses,
        ", minimum-active: 0, retry-after: 100ms, patience: 500ms, \
         health: { interval: 100ms, timeout: 100ms, rise: 1, fall: 2 }",
    );
    let proxy = Proxy::start(&(pool + SERENE));
    assert_eq!(address_answer(&proxy).status, "NOERROR");

    one.freeze();
    other.kill();
    wait_until("the dead are known", || {
        address_answer(&proxy)
            .text
            .contains("no name server reachable")
    });
    let answer = address_answer(&proxy);
    assert_eq!(answer.status, "SERVFAIL", "{}", answer.text);
    let (report, ()) = under_load(&proxy, 1_000, 2, || ());
    assert_eq!(lost(&report, &proxy), 0, "{}", report.text);
    assert_eq!(
        report.rcodes.get("SERVFAIL"),
        Some(&report.completed),
        "{}",
        report.text
    );

    // one that listens where there was nothing, then one that goes on
    let new = embedded(port);
    wait_until("it is used", || address_answer(&proxy).status == "NOERROR");
    drop(new);
    one.thaw();
    wait_until("it is used", || address_answer(&proxy).status == "NOERROR");
    assert_eq!(proxy.settled(Transport::Udp).open(), 0);
}

#[test]
fn with_all_upstreams_dead_there_is_silence_if_that_is_configured() {
    let _alone = alone();
    let mut only = nsd();
    let yaml = pool(
        &[only.address()],
        ", when-none: silence, retry-after: 100ms, patience: 500ms, health: off",
    );
    let proxy = Proxy::start(&(yaml + SERENE));
    only.freeze();
    let answer = Kdig::ask(proxy.address(), &["www.example.com", "A", "+timeout=2"]);
    assert_eq!(answer.status, "", "{}", answer.text);
    let books = proxy.settled(Transport::Udp);
    assert_eq!((books.received, books.expired), (1, 1));
    only.thaw();
    assert_eq!(address_answer(&proxy).status, "NOERROR");
}

#[test]
fn when_the_configuration_changes_twenty_times() {
    let _alone = alone();
    let (one, other, third) = (nsd(), nsd(), nsd());
    let all = [one.address(), other.address(), third.address()];
    let proxy = Proxy::start(&(pool(&all[..1], UNHURRIED) + SERENE));
    let (report, generations) = under_load(&proxy, 3_000, 10, || {
        let mut generations = Vec::new();
        for round in 0..20_usize {
            after(&proxy, 200);
            let upstreams = match round % 4 {
                0 => &all[..2],
                1 => &all[1..],
                2 => &all[2..],
                _ => &all[..1],
            };
            let mut yaml = pool(upstreams, UNHURRIED) + SERENE + "rules:\n";
            for rule in 0..=round * 10 {
                let _ = writeln!(
                    yaml,
                    "  - {{ name: r{rule}, when: {{ qname: {{ under: x{rule}.example.com }} }}, do: drop }}"
                );
            }
            generations.push(proxy.reload(&yaml).unwrap().generation);
        }
        generations
    });
    assert_eq!(generations.len(), 20);
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
    let books = proxy.settled(Transport::Udp);
    let shown = format!("{}\n{books:?}", report.text);
    assert_eq!(lost(&report, &proxy), 0, "{shown}");
    assert_eq!(
        report.rcodes.get("NOERROR"),
        Some(&report.completed),
        "{shown}"
    );
    assert_eq!(books.forwarded, books.received, "{shown}");
    assert_eq!(books.received, report.completed, "{}", report.text);
    // the last rules are in force: a name below one of theirs is dropped
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket
        .send_to(&a_query("a.x190.example.com", 1), proxy.address())
        .unwrap();
    wait_until("the rule drops it", || proxy.count(Reason::Rule) == 1);
}

#[test]
fn when_a_configuration_is_wrong() {
    let _alone = alone();
    let server = nsd();
    let good = pool(&[server.address()], UNHURRIED)
        + SERENE
        + "rules: [ { name: no-any, when: { qtype: ANY }, do: refuse } ]\n";
    let proxy = Proxy::start(&good);
    let before = proxy.supervisor().shared.policy.load().generation;
    let (report, ()) = under_load(&proxy, 1_000, 3, || {
        for (wrong, part, line) in [
            (
                "rules: [ { name: a, when: { qtpye: ANY }, do: drop } ]",
                "qtype",
                "dnscrub.yaml:5:",
            ),
            ("nonsense: true", "nonsense", "dnscrub.yaml:5:"),
            (
                "rules: [ { name: a, when: { qname: { regex: \"(\" } }, do: drop } ]",
                "regex",
                "dnscrub.yaml:5:",
            ),
            (
                "blocklist: { files: [ missing.txt ] }",
                "missing.txt",
                "dnscrub.yaml:5:",
            ),
            ("pools: {", "", "dnscrub.yaml:"),
        ] {
            let problems = proxy
                .reload(&format!("{wrong}\n{}", pool(&[server.address()], "")))
                .unwrap_err()
                .to_string();
            assert!(
                problems.contains(part) && problems.contains(line),
                "{problems}"
            );
            let failure = proxy.supervisor().history().failure;
            assert_eq!(failure, Some(problems), "and it is remembered");
        }
    });
    assert_eq!(
        (lost(&report, &proxy), report.rcodes.get("NOERROR")),
        (0, Some(&report.completed))
    );
    assert_eq!(proxy.supervisor().reload_counts(), (0, 5));
    assert_eq!(proxy.supervisor().shared.policy.load().generation, before);
    let any = Kdig::ask(proxy.address(), &["www.example.com", "ANY"]);
    assert_eq!(any.status, "REFUSED", "the old rules stay in force");
    proxy.reload(&good).unwrap();
    assert_eq!(proxy.supervisor().history().failure, None);
}

#[test]
fn what_needs_a_restart_is_named() {
    let server = nsd();
    let pool = pool(&[server.address()], "");
    let proxy = Proxy::start(&pool);
    assert_eq!(proxy.reload(&pool).unwrap().restart_needed, [""; 0]);
    let changed = format!(
        "SAME\n{pool}workers: 7\nudp: {{ batch: 8, coalesce: off }}\nmetrics: {{ address: \"127.0.0.1:9\" }}\n"
    );
    let report = proxy.reload_whole(&changed).unwrap();
    assert_eq!(
        report.restart_needed,
        ["workers", "udp.coalesce", "udp.batch", "metrics"]
    );
    let elsewhere = format!("listen: [ {{ address: \"127.0.0.1:5399\" }} ]\n{pool}");
    let report = proxy.reload_whole(&elsewhere).unwrap();
    for setting in ["listen", "control.socket", "state.folder", "log"] {
        assert!(
            report.restart_needed.iter().any(|named| named == setting),
            "{setting}: {:?}",
            report.restart_needed
        );
    }
    assert_eq!(
        address_answer(&proxy).status,
        "NOERROR",
        "it still serves where it did"
    );
}

/// One prefix a line: a million addresses and, as the last, one of this test's own.
fn million_lines() -> String {
    let mut text = String::with_capacity(20 << 20);
    text.push_str("# a test's list\n");
    for number in 0..999_999_u32 {
        let _ = writeln!(text, "{}", Ipv4Addr::from(0x0b00_0000 + number * 7));
    }
    text.push_str("127.9.9.9 a test's reason\n");
    text
}

#[test]
fn when_a_million_lines_are_loaded() {
    let _alone = alone();
    let server = nsd();
    let plain = pool(&[server.address()], UNHURRIED) + SERENE;
    let proxy = Proxy::start(&plain);
    std::fs::write(proxy.file("million.txt"), million_lines()).unwrap();
    let with_list = format!("{plain}blocklist: {{ files: [ million.txt ] }}\n");
    let (report, meanwhile) = under_load(&proxy, 2_000, 10, || {
        after(&proxy, 1_000);
        let before = proxy.books(Transport::Udp).forwarded;
        proxy.reload(&with_list).unwrap();
        proxy.books(Transport::Udp).forwarded - before
    });
    assert_eq!(
        (lost(&report, &proxy), report.rcodes.get("NOERROR")),
        (0, Some(&report.completed)),
        "{}",
        report.text
    );
    assert!(meanwhile > 0, "queries were answered while it loaded");
    let blocklist = &proxy.supervisor().blocklist;
    assert_eq!(blocklist.stats().static_entries, 1_000_000);

    let shown = blocklist.show("127.9.9.9/32".parse().unwrap());
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].reason, "a test's reason");
    assert!(
        matches!(&shown[0].origin, Origin::List(name) if name.ends_with("million.txt")),
        "{shown:?}"
    );

    let blocked = UdpSocket::bind((Ipv4Addr::new(127, 9, 9, 9), 0)).unwrap();
    let query = a_query("www.example.com", 1);
    blocked.send_to(&query, proxy.address()).unwrap();
    wait_until("the blocked source's query is dropped", || {
        proxy.count(Reason::Filter(FilterReason::Blocked)) == 1
    });
    assert_eq!(blocklist.show("127.9.9.9/32".parse().unwrap())[0].hits, 1);
    let neighbour = UdpSocket::bind((Ipv4Addr::new(127, 9, 9, 10), 0)).unwrap();
    neighbour
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    neighbour.send_to(&query, proxy.address()).unwrap();
    let mut buffer = [0; 1_232];
    let len = neighbour.recv(&mut buffer).unwrap();
    assert_eq!(parse(&buffer[..len]).answers.len(), 1);

    // and out again
    proxy.reload(&plain).unwrap();
    assert_eq!(blocklist.stats().static_entries, 0);
}
