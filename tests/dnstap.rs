//! dnstap: what independent programs read in what dnscrub writes, to a file and to a collector.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use dnscrub_scoring::Transport;
use dnscrub_testkit::authority::{Authority, Server, Settings, Zone};
use dnscrub_testkit::clients::Kdig;
use dnscrub_testkit::message::{malformed_sample, query};
use dnscrub_testkit::servers::free_port;
use dnscrub_testkit::taps::{Capture, frames_by_fstrm_dump, read_by_dnstap, read_by_kdig};
use dnscrub_tests::{Proxy, wait_until};
use dnscrub_wire::{Malformed, qtype};

const ZONE: &str = "@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n\
                    www 60 IN A 192.0.2.80\n";

fn upstream() -> Server {
    let authority = Authority::new([Zone::parse("example.com", ZONE).unwrap()]);
    Server::start(authority, &Settings::default()).unwrap()
}

fn proxy(upstream: &Server, dnstap: &str) -> Proxy {
    Proxy::start(&format!(
        "pools: {{ default: {{ upstreams: [ {{ address: \"{}\" }} ], health: off }} }}\n\
         zones: [ {{ name: example.com }} ]\n\
         rules:\n\
         - {{ name: silent, when: {{ qname: {{ under: drop.example.com }} }}, do: drop }}\n\
         - {{ name: refused, when: {{ qtype: MX }}, do: refuse }}\n\
         dnstap: {{ identity: test-1, {dnstap} }}\n",
        upstream.address()
    ))
}

/// Asks one query of each outcome, over UDP and TCP.
fn ask_of_everything(proxy: &Proxy) {
    for transport in ["+notcp", "+tcp"] {
        let answer = Kdig::ask(proxy.address(), &["WWW.example.com", "A", transport]);
        assert_eq!(answer.status, "NOERROR", "{}", answer.text);
        let answer = Kdig::ask(proxy.address(), &["www.example.com", "MX", transport]);
        assert_eq!(answer.status, "REFUSED", "{}", answer.text);
    }
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(proxy.address()).unwrap();
    client
        .send(&query("x.drop.example.com", qtype::A).id(7).build())
        .unwrap();
    client
        .send(&malformed_sample(Malformed::TrailingOctets))
        .unwrap();
    wait_until("all are settled", || {
        let udp = proxy.settled(Transport::Udp);
        udp.forwarded >= 1 && udp.dropped >= 2
    });
}

/// The messages of [`ask_of_everything`], as dnstap's own reader and kdig see them.
fn assert_everything_is_there(file: &Path, port: u16) {
    let yaml = read_by_dnstap(file);
    // it does not print the field `extra`: that is looked for in the frames themselves
    let documents: Vec<String> = yaml
        .split("---")
        .filter(|part| !part.trim().is_empty())
        .zip(frames_by_fstrm_dump(file))
        .map(|(document, frame)| format!("{document}{frame}\n"))
        .collect();
    let yaml = documents.concat();
    let with = |parts: &[&str]| {
        let has = |document: &&String| parts.iter().all(|part| document.contains(part));
        documents.iter().filter(has).count()
    };
    let response_port = format!("response_port: {port}");
    for protocol in ["socket_protocol: UDP", "socket_protocol: TCP"] {
        for kind in ["type: AUTH_QUERY", "type: AUTH_RESPONSE"] {
            let common = [
                protocol,
                kind,
                "identity: \"test-1\"",
                "version: \"dnscrub ",
                "query_address: 127.0.0.1",
                "response_address: 127.0.0.1",
                "query_zone: \"example.com.\"",
                &response_port,
            ];
            let of = |more: &[&str]| with(&[&common[..], more].concat());
            assert_eq!(of(&["outcome=forwarded"]), 1, "{protocol} {kind}\n{yaml}");
            let refused = ["outcome=answered answer=refused reason=rule points=0"];
            assert_eq!(of(&refused), 1, "{protocol} {kind}\n{yaml}");
        }
    }
    assert_eq!(
        with(&["AUTH_QUERY", "outcome=dropped reason=rule points=0"]),
        1,
        "{yaml}"
    );
    assert_eq!(
        with(&["outcome=dropped reason=trailing_octets"]),
        1,
        "{yaml}"
    );
    assert_eq!(documents.len(), 10, "{yaml}");

    let text = read_by_kdig(file);
    assert_eq!(text.matches("192.0.2.80").count(), 2, "{text}");
    assert_eq!(text.matches("status: REFUSED").count(), 2, "{text}");
    assert_eq!(text.matches(";; Sent ").count(), 4, "{text}");
}

#[test]
fn a_file_is_read_by_others() {
    let upstream = upstream();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.dnstap");
    let proxy = proxy(&upstream, &format!("file: {}", file.display()));
    ask_of_everything(&proxy);
    let port = proxy.address().port();
    drop(proxy);
    assert_everything_is_there(&file, port);
}

#[test]
fn a_collector_gets_it_over_tcp() {
    let upstream = upstream();
    let port = free_port(false);
    let capture = Capture::at_port(port);
    let proxy = proxy(&upstream, &format!("tcp: \"127.0.0.1:{port}\""));
    ask_of_everything(&proxy);
    let port = proxy.address().port();
    drop(proxy);
    let (file, _folder) = capture.finish();
    assert_everything_is_there(&file, port);
}

/// It may come later, and go: what happens meanwhile waits in the rings.
#[test]
fn a_collector_at_a_unix_socket_may_come_later_and_come_back() {
    let upstream = upstream();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("collector.sock");
    let proxy = proxy(&upstream, &format!("unix: {}", socket.display()));
    ask_of_everything(&proxy);
    let progress = &proxy.supervisor().shared.dnstap;
    assert!(!progress.is_open());
    let capture = Capture::at_unix(&socket);
    wait_until("the collector has it all", || progress.frames() == 10);
    assert!(progress.is_open());
    drop(capture);

    // writing to nobody fails sooner or later, and is noticed
    wait_until("it is noticed", || {
        let _ = Kdig::ask(proxy.address(), &["www.example.com", "MX"]);
        !progress.is_open()
    });
    let lost = progress.lost();
    assert!(lost > 0);
    let capture = Capture::at_unix(&socket);
    wait_until("there is a collector again", || progress.is_open());
    let before = progress.frames();
    let _ = Kdig::ask(proxy.address(), &["www.example.com", "MX"]);
    wait_until("it gets what follows", || progress.frames() >= before + 2);
    assert_eq!(progress.lost(), lost);
    drop(proxy);
    let (file, _folder) = capture.finish();
    let yaml = read_by_dnstap(&file);
    assert!(yaml.contains("status: REFUSED"), "{yaml}");
}

#[test]
fn only_some_outcomes_and_only_a_sample() {
    let upstream = upstream();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.dnstap");
    let settings = format!("file: {}, only: [ dropped ], sample: 1/4", file.display());
    let proxy = proxy(&upstream, &settings);
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(proxy.address()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let (mut buffer, dropped, refused) = ([0; 512], 4_000, 400);
    for number in 0..dropped {
        let name = format!("x{number}.drop.example.com");
        client.send(&query(&name, qtype::A).build()).unwrap();
        if number % 10 == 0 {
            // an answer says that the queue is empty
            client
                .send(&query("a.example.com", qtype::MX).build())
                .unwrap();
            client.recv(&mut buffer).unwrap();
        }
    }
    wait_until("all are settled", || {
        let books = proxy.settled(Transport::Udp);
        (books.dropped, books.answered) == (dropped, refused)
    });
    drop(proxy);
    let yaml = read_by_dnstap(&file);
    let written = yaml.matches("type: AUTH_QUERY").count();
    // a quarter of 4,000, give or take six standard deviations
    assert!((836..1_164).contains(&written), "{written}");
    assert_eq!(yaml.matches("drop.example.com").count(), written);
    assert!(!yaml.contains("AUTH_RESPONSE"));
}
