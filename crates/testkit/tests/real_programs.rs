//! NSD, BIND, kdig and dnsperf, and the embedded authority in the eyes of the latter two.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dnscrub_testkit::authority::{Authority, Limits, Server, Settings, Zone};
use dnscrub_testkit::clients::{Dnsperf, Kdig};
use dnscrub_testkit::servers::{RealServer, soa_serial};

const ORIGIN: &str = "example.com";

fn zone(serial: u32) -> String {
    let mut text = format!(
        "@ IN SOA ns1 hostmaster {serial} 3600 600 604800 300\n\
         @ IN NS ns1\n@ IN MX 10 mail\nns1 IN A 192.0.2.1\nwww IN A 192.0.2.80\nmail IN A 192.0.2.25\n\
         alias IN CNAME www\n*.wild IN TXT \"wild\"\nsub IN NS ns.sub\nns.sub IN A 192.0.2.53\n"
    );
    for host in 0..300 {
        text.push_str(&format!("h{host} IN A 192.0.2.2\n"));
    }
    text
}

fn embedded() -> Server {
    let limits = Limits {
        records_per_transfer_message: 20,
        ..Limits::default()
    };
    let text = format!("$TTL 3600\n{}", zone(1));
    let authority = Authority::with_limits([Zone::parse(ORIGIN, &text).unwrap()], limits);
    Server::start(
        authority,
        &Settings {
            threads: 2,
            ..Settings::default()
        },
    )
    .unwrap()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Status, answers and authorities as far as correct servers do not differ.
fn essence(server: SocketAddr, arguments: &[&str]) -> (String, Vec<String>, bool) {
    let answer = Kdig::ask(server, arguments);
    (
        answer.status,
        sorted(answer.answers),
        answer.flags.contains(&"aa".to_owned()),
    )
}

fn serves_and_transfers(mut server: RealServer) {
    let addresses = [Some(server.address()), server.address_v6()];
    for address in addresses.into_iter().flatten() {
        assert_eq!(soa_serial(address, ORIGIN), Some(1));
        let answer = Kdig::ask(address, &["www.example.com", "A", "+edns"]);
        assert_eq!(answer.status, "NOERROR");
        assert_eq!(answer.answers, ["www.example.com. 3600 IN A 192.0.2.80"]);
        assert!(
            answer.flags.contains(&"aa".to_owned()) && !answer.edns.is_empty(),
            "{answer:?}"
        );
        let transfer = Kdig::ask(address, &["example.com", "AXFR"]);
        assert_eq!(transfer.answers.len(), 311, "{}", transfer.text);
        assert!(transfer.messages >= 1);
    }
    server.replace_zone(&zone(2));
    assert_eq!(soa_serial(server.address(), ORIGIN), Some(2));
    server.freeze();
    assert_eq!(soa_serial(server.address(), ORIGIN), None);
    server.thaw();
    assert_eq!(
        Kdig::ask(server.address(), &["missing.example.com", "A"]).status,
        "NXDOMAIN"
    );
    let address = server.address();
    server.kill();
    assert_eq!(
        Kdig::ask(address, &["www.example.com", "A", "+timeout=1"]).status,
        ""
    );
}

#[test]
fn nsd_serves_and_transfers() {
    serves_and_transfers(RealServer::nsd(ORIGIN, &zone(1)));
}

#[test]
fn bind_serves_and_transfers() {
    serves_and_transfers(RealServer::bind(ORIGIN, &zone(1)));
}

#[test]
fn the_embedded_authority_answers_as_nsd_and_bind_do() {
    let embedded = embedded();
    let nsd = RealServer::nsd(ORIGIN, &zone(1));
    let bind = RealServer::bind(ORIGIN, &zone(1));
    for arguments in [
        &["www.example.com", "A"][..],
        &["www.example.com", "A", "+tcp"],
        &["WWW.Example.com", "AAAA"],
        &["missing.example.com", "A"],
        &["alias.example.com", "A"],
        &["alias.example.com", "MX"],
        &["x.wild.example.com", "TXT", "+edns"],
        &["x.wild.example.com", "A"],
        &["wild.example.com", "A"],
        &["example.com", "MX"],
        &["example.com", "NS"],
        &["x.sub.example.com", "A", "+norec"],
        &["sub.example.com", "DS", "+norec"],
        &["elsewhere.test", "A", "+norec"],
        &["example.com", "AXFR"],
    ] {
        let ours = essence(embedded.address(), arguments);
        // kdig prints no status for a transfer
        assert_eq!(ours.0.is_empty(), arguments.contains(&"AXFR"), "{ours:?}");
        assert_eq!(
            ours,
            essence(nsd.address(), arguments),
            "NSD, {arguments:?}"
        );
        assert_eq!(
            ours,
            essence(bind.address(), arguments),
            "BIND, {arguments:?}"
        );
    }
}

#[test]
fn kdig_takes_the_embedded_authoritys_transfer_of_many_messages() {
    let server = embedded();
    let transfer = Kdig::ask(server.address(), &["example.com", "AXFR"]);
    assert_eq!(
        (transfer.answers.len(), transfer.messages),
        (311, 16),
        "{}",
        transfer.text
    );
    let transfer = Kdig::ask(server.address(), &["example.com", "IXFR=0", "+tcp"]);
    assert_eq!(transfer.answers.len(), 311, "{}", transfer.text);
    let current = Kdig::ask(server.address(), &["example.com", "IXFR=1", "+tcp"]);
    assert_eq!(current.answers.len(), 1, "{}", current.text);
}

#[test]
fn dnsperf_measures_the_embedded_authority() {
    let server = embedded();
    let questions = [("www.example.com", "A"), ("missing.example.com", "A")];
    for arguments in [&["-Q", "2000"][..], &["-Q", "2000", "-m", "tcp"]] {
        let report = Dnsperf::new(server.address())
            .arguments(arguments)
            .run(&questions);
        assert!(report.sent > 0 && report.completed > 0, "{}", report.text);
        assert_eq!(
            report.sent,
            report.completed + report.lost,
            "{}",
            report.text
        );
        assert_eq!(report.rcodes.values().sum::<u64>(), report.completed);
        assert!(report.rcodes.contains_key("NOERROR") && report.rcodes.contains_key("NXDOMAIN"));
        assert!(report.queries_per_second > 0.0 && report.max_latency >= report.latency);
    }
    assert!(server.counts().tcp_queries > 0);
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let panic =
        std::panic::catch_unwind(|| RealServer::nsd_with(ORIGIN, &zone(1), "no-such-option: 1"));
    let message = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(
        message.contains("Nsd does not serve example.com") && message.contains("no-such-option"),
        "{message}"
    );
}

/// Set in the copy of this test program that is killed.
const VICTIM: &str = "DNSCRUB_TESTKIT_VICTIM";

#[test]
fn servers_die_with_the_test_process() {
    if std::env::var_os(VICTIM).is_some() {
        // Started from a thread that ends at once: the server must outlive it.
        let start = || {
            (
                RealServer::nsd(ORIGIN, &zone(1)),
                RealServer::bind(ORIGIN, &zone(1)),
            )
        };
        let (nsd, bind) = std::thread::spawn(start).join().unwrap();
        println!("serving {} {}", nsd.address(), bind.address());
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    // What the victim leaves behind goes with this folder.
    let folder = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "servers_die_with_the_test_process",
            "--nocapture",
        ])
        .env(VICTIM, "1")
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    let addresses: Vec<SocketAddr> = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("serving ")?.1.to_owned()))
        .unwrap()
        .split(' ')
        .map(|address| address.parse().unwrap())
        .collect();
    assert!(
        addresses
            .iter()
            .all(|&address| soa_serial(address, ORIGIN).is_some())
    );
    victim.kill().unwrap();
    victim.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while addresses
        .iter()
        .any(|&address| soa_serial(address, ORIGIN).is_some())
    {
        assert!(Instant::now() < end, "a server outlives its test");
        std::thread::sleep(Duration::from_millis(20));
    }
}
