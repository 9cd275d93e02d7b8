//! In front of Debian's NSD and BIND the proxy is transparent: what a client gets through it is what
//! the server says, over UDP and TCP, IPv4 and IPv6, zone transfers included.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use dnscrub::outcome::Reason;
use dnscrub_packet_filter::FilterReason;
use dnscrub_scoring::Transport;
use dnscrub_testkit::clients::Kdig;
use dnscrub_testkit::message::{a_query, malformed_samples, parse, query};
use dnscrub_testkit::servers::RealServer;
use dnscrub_tests::{Proxy, wait_until};
use dnscrub_wire::{Malformed, qtype};

const ORIGIN: &str = "example.com";
/// Hosts in the zone, so that its transfer takes more than one message.
const HOSTS: usize = 6_000;

fn zone(serial: u32) -> String {
    let mut text = format!(
        "@ IN SOA ns1 hostmaster {serial} 3600 600 604800 300\n\
         @ IN NS ns1\n@ IN NS ns2\n@ IN MX 10 mail\n@ IN CAA 0 issue \"ca.example.net\"\n\
         ns1 IN A 192.0.2.1\nns1 IN AAAA 2001:db8::1\nns2 IN A 192.0.2.2\n\
         www IN A 192.0.2.80\nwww IN AAAA 2001:db8::80\nmail IN A 192.0.2.25\n\
         alias IN CNAME www\nloose IN CNAME www.example.org.\nmoved IN DNAME www\n\
         *.wild IN TXT \"wild\"\ndeep.er.and.deeper IN A 192.0.2.3\n\
         _sip._udp IN SRV 10 20 5060 www\n\
         odd IN TYPE65280 \\# 4 0a000001\nspecial\\.dot IN TXT \"dot\"\n\
         sub IN NS ns.sub\nns.sub IN A 192.0.2.53\nsub IN DS 1 8 2 {}\n",
        "00".repeat(32)
    );
    for serial in 1..=serial {
        let _ = writeln!(text, "added{serial} IN A 192.0.2.5");
    }
    let _ = writeln!(text, "{0}.{0}.{0} IN A 192.0.2.6", "l".repeat(60));
    let _ = writeln!(
        text,
        "big IN TXT {}",
        format!("\"{}\" ", "t".repeat(250)).repeat(14)
    );
    for record in 0..90 {
        let _ = writeln!(text, "many IN A 198.51.100.{record}");
    }
    for host in 0..HOSTS {
        let _ = writeln!(text, "host{host} IN A 192.0.2.2");
    }
    text
}

fn nsd() -> RealServer {
    RealServer::nsd(ORIGIN, &zone(1))
}

fn bind() -> RealServer {
    RealServer::bind_with(
        ORIGIN,
        &zone(1),
        "ixfr-from-differences yes; rrset-order { order none; };",
    )
}

fn pool(upstream: SocketAddr) -> String {
    format!("pools: {{ default: {{ upstreams: [ {{ address: \"{upstream}\" }} ] }} }}\n")
}

/// What is asked over each transport.
const QUESTIONS: &[&str] = &[
    "www.example.com A",
    "WWW.eXAMPLE.cOm A",
    "www.example.com AAAA",
    "www.example.com MX",
    "missing.example.com A",
    "missing.host1.example.com A",
    "alias.example.com A",
    "alias.example.com MX",
    "loose.example.com A",
    "x.moved.example.com A",
    "x.wild.example.com TXT",
    "x.wild.example.com A",
    "*.wild.example.com TXT",
    "wild.example.com A",
    "er.and.deeper.example.com A",
    "example.com SOA",
    "example.com NS",
    "example.com MX",
    "example.com CAA",
    "example.com ANY",
    "_sip._udp.example.com SRV",
    "odd.example.com TYPE65280",
    "odd.example.com TYPE65281",
    "special\\.dot.example.com TXT",
    "LONG.example.com A",
    "x.sub.example.com A +norec",
    "sub.example.com DS +norec",
    "elsewhere.test A",
    ". NS",
    "www.example.com A +rdflag +adflag +cdflag",
    "www.example.com A +edns",
    "www.example.com A +dnssec",
    "www.example.com A +edns=1",
    "www.example.com A +nsid",
    "www.example.com A +subnet=192.0.2.0/24",
    "www.example.com A +ednsopt=65001:0102030405",
    "many.example.com A +ignore",
    "big.example.com TXT +bufsize=512 +ignore",
    "big.example.com TXT +bufsize=4096 +ignore",
    "big.example.com TXT",
    "version.bind TXT CH",
    "version.server TXT CH",
];

/// What a server said, without what may differ from one asking to the next: the id, times, and the
/// order of records.
fn essence(server: SocketAddr, question: &str, transport: &str) -> (Kdig, [Vec<String>; 5]) {
    let question = question.replace("LONG", &vec!["l".repeat(60); 3].join("."));
    let arguments: Vec<_> = question
        .split_whitespace()
        .chain(transport.split_whitespace())
        .collect();
    let answer = Kdig::ask(server, &arguments);
    let mut parts = [
        answer.flags.clone(),
        answer.answers.clone(),
        answer.authorities.clone(),
        answer.additionals.clone(),
        answer.edns.clone(),
    ];
    for part in &mut parts {
        part.sort();
    }
    (answer, parts)
}

/// Asks everything directly and through the proxy, and compares.
fn is_transparent(server: &RealServer, upstream: SocketAddr) {
    let proxy = Proxy::start(&pool(upstream));
    let ways = [
        (Some(server.address()), Some(proxy.address()), "+notcp"),
        (Some(server.address()), Some(proxy.address()), "+tcp"),
        (server.address_v6(), proxy.address_v6(), "+notcp"),
        (server.address_v6(), proxy.address_v6(), "+tcp"),
    ];
    let mut asked = 0;
    for (direct, through, transport) in ways {
        let (Some(direct), Some(through)) = (direct, through) else {
            continue;
        };
        for question in QUESTIONS {
            let (expected, expected_parts) = essence(direct, question, transport);
            let (found, found_parts) = essence(through, question, transport);
            assert!(!expected.status.is_empty(), "{question}: no answer");
            assert_eq!(
                (&found.status, found_parts),
                (&expected.status, expected_parts),
                "{question} {transport} through the proxy:\n{}\ndirectly:\n{}",
                found.text,
                expected.text
            );
            asked += 1;
        }
    }
    assert!(asked >= 2 * QUESTIONS.len());
    let (udp, tcp) = (proxy.settled(Transport::Udp), proxy.settled(Transport::Tcp));
    for books in [udp, tcp] {
        assert_eq!(books.forwarded, books.received, "{books:?}");
    }
    assert!(udp.received + tcp.received >= asked as u64);
}

#[test]
fn nsd_over_ipv4() {
    let server = nsd();
    is_transparent(&server, server.address());
}

#[test]
fn bind_over_ipv4() {
    let server = bind();
    is_transparent(&server, server.address());
}

#[test]
fn nsd_over_ipv6() {
    let server = nsd();
    if let Some(address) = server.address_v6() {
        is_transparent(&server, address);
    }
}

#[test]
fn bind_over_ipv6() {
    let server = bind();
    if let Some(address) = server.address_v6() {
        is_transparent(&server, address);
    }
}

#[test]
fn what_is_too_big_for_udp_is_truncated_and_whole_over_tcp() {
    let server = nsd();
    let proxy = Proxy::start(&pool(server.address()));
    let cut = Kdig::ask(
        proxy.address(),
        &["big.example.com", "TXT", "+bufsize=1232", "+ignore"],
    );
    assert!(cut.flags.contains(&"tc".to_owned()), "{}", cut.text);
    assert!(cut.answers.is_empty());
    // without +ignore the client comes back over TCP by itself
    let whole = Kdig::ask(
        proxy.address(),
        &["big.example.com", "TXT", "+bufsize=1232"],
    );
    assert!(!whole.flags.contains(&"tc".to_owned()), "{}", whole.text);
    assert_eq!(whole.answers.len(), 1);
    assert!(whole.answers[0].len() > 14 * 250);
    assert_eq!(proxy.settled(Transport::Tcp).forwarded, 1);
}

/// The transfer's records, and how many messages they came in.
fn transfer(server: SocketAddr, kind: &str) -> (Vec<String>, u32) {
    let mut answer = Kdig::ask(server, &[ORIGIN, kind, "+timeout=30"]);
    assert!(!answer.answers.is_empty(), "{}", answer.text);
    answer.answers.sort();
    (answer.answers, answer.messages)
}

fn transfers_pass(mut server: RealServer) {
    let proxy = Proxy::start(&pool(server.address()));
    let direct = transfer(server.address(), "AXFR");
    assert!(
        direct.0.len() > HOSTS && direct.1 > 1,
        "{} messages",
        direct.1
    );
    for through in [Some(proxy.address()), proxy.address_v6()]
        .into_iter()
        .flatten()
    {
        assert!(
            transfer(through, "AXFR") == direct,
            "the same records and messages"
        );
    }
    server.replace_zone(&zone(2));
    for kind in ["IXFR=1", "IXFR=2"] {
        let direct = transfer(server.address(), kind);
        assert!(transfer(proxy.address(), kind) == direct, "{kind}");
    }
    assert!(
        transfer(proxy.address(), "AXFR")
            .0
            .iter()
            .any(|record| record.starts_with("added2.example.com."))
    );
    let books = proxy.settled(Transport::Tcp);
    assert_eq!(books.forwarded, books.received, "{books:?}");
    let transfers = proxy.sum(|worker| worker.transfers.get());
    assert_eq!(
        transfers, books.received,
        "each was passed through as a stream"
    );
}

#[test]
fn transfers_from_nsd() {
    transfers_pass(nsd());
}

#[test]
fn transfers_from_bind() {
    transfers_pass(bind());
}

#[test]
fn transfers_over_udp_and_over_the_limit_are_refused() {
    let server = nsd();
    let proxy =
        Proxy::start(&(pool(server.address()) + "tcp: { transfers: { max-concurrent: 0 } }\n"));
    let question = query(ORIGIN, qtype::AXFR).build();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    for (answer, transport, reason) in [
        (
            tcp_exchange(&mut stream, &question),
            Transport::Tcp,
            Reason::TransferLimit,
        ),
        (
            ask(proxy.address(), &question).unwrap(),
            Transport::Udp,
            Reason::TransferOverUdp,
        ),
    ] {
        assert_eq!(
            u16::from(parse(&answer).metadata.response_code),
            5,
            "REFUSED"
        );
        assert_eq!(proxy.count_over(transport, reason), 1);
    }
}

#[test]
fn notify_passes_only_from_where_it_may_come() {
    let server = nsd();
    let proxy = Proxy::start(&pool(server.address()));
    let refused = Kdig::ask(proxy.address(), &[ORIGIN, "NOTIFY"]);
    assert_eq!(refused.status, "REFUSED", "{}", refused.text);
    assert_eq!(
        proxy.count(Reason::Filter(FilterReason::OpcodeNotServed)),
        1
    );

    let elsewhere = pool(server.address()) + "opcodes: { notify: { from: [ 192.0.2.0/24 ] } }\n";
    proxy.reload(&elsewhere).unwrap();
    let refused = Kdig::ask(proxy.address(), &[ORIGIN, "NOTIFY"]);
    assert_eq!(refused.status, "REFUSED", "{}", refused.text);
    assert_eq!(proxy.count(Reason::Filter(FilterReason::OpcodeSource)), 1);

    let allowed = pool(server.address()) + "opcodes: { notify: { from: [ 127.0.0.0/8 ] } }\n";
    proxy.reload(&allowed).unwrap();
    let direct = Kdig::ask(server.address(), &[ORIGIN, "NOTIFY"]);
    let passed = Kdig::ask(proxy.address(), &[ORIGIN, "NOTIFY"]);
    assert!(!direct.status.is_empty());
    assert_eq!((passed.status, passed.flags), (direct.status, direct.flags));
    assert_eq!(proxy.settled(Transport::Udp).forwarded, 1);
}

/// One datagram there, one back; the answer counts only from the address that was asked.
fn ask(server: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.send(packet)?;
    let mut buffer = vec![0; 4_096];
    let len = socket.recv(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let server = nsd();
    let ipv6 = server.address_v6().map(|_| ", \"[::]:PORT\"");
    let addresses = format!("\"0.0.0.0:PORT\"{}", ipv6.unwrap_or_default());
    let yaml =
        pool(server.address()) + "rules: [ { name: no-any, when: { qtype: ANY }, do: refuse } ]\n";
    let proxy = Proxy::listening(&addresses, &yaml);
    let port = proxy.address().port();
    let mut hosts: Vec<IpAddr> = vec![
        Ipv4Addr::new(127, 0, 0, 1).into(),
        Ipv4Addr::new(127, 0, 0, 7).into(),
        Ipv4Addr::new(127, 255, 3, 9).into(),
    ];
    if ipv6.is_some() {
        hosts.push(Ipv6Addr::LOCALHOST.into());
    }
    for host in hosts {
        // the upstream's answer, and one of the proxy's own
        for (kind, rcode) in [(qtype::A, 0), (qtype::ANY, 5)] {
            let question = query("www.example.com", kind).id(77).build();
            let answer = ask((host, port).into(), &question)
                .unwrap_or_else(|failure| panic!("{host}: {failure}"));
            let message = parse(&answer);
            assert_eq!(message.metadata.id, 77);
            assert_eq!(u16::from(message.metadata.response_code), rcode, "{host}");
        }
        let mut stream = TcpStream::connect((host, port)).unwrap();
        assert_eq!(
            tcp_exchange(&mut stream, &a_query("www.example.com", 78))[..2],
            [0, 78]
        );
    }
}

fn tcp_exchange(stream: &mut TcpStream, packet: &[u8]) -> Vec<u8> {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let length = (packet.len() as u16).to_be_bytes();
    stream.write_all(&[&length[..], packet].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn malformed_packets_are_counted_and_the_next_query_is_answered() {
    let server = bind();
    let proxy = Proxy::start(&(pool(server.address()) + "sanity: { malformed: formerr }\n"));
    for (kind, packet) in malformed_samples() {
        let silent = matches!(kind, Malformed::ShortHeader | Malformed::Response);
        if silent {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.send_to(&packet, proxy.address()).unwrap();
        } else {
            let answer = ask(proxy.address(), &packet).unwrap();
            assert_eq!(answer.len(), 12, "{kind:?}");
            assert_eq!(
                (answer[..2].to_vec(), answer[2] & 0x80, answer[3] & 0x0f),
                (packet[..2].to_vec(), 0x80, 1),
                "{kind:?}"
            );
        }
        wait_until("the packet is counted", || {
            proxy.count(Reason::Malformed(kind)) == 1
        });
    }
    // a datagram without any octet
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(&[], proxy.address()).unwrap();
    let answer = ask(proxy.address(), &a_query("www.example.com", 5)).unwrap();
    assert_eq!(parse(&answer).answers.len(), 1);
    let books = proxy.settled(Transport::Udp);
    assert_eq!(books.forwarded, 1, "{books:?}");
}

#[test]
fn octets_on_a_connection_that_are_no_query_do_no_harm() {
    let server = nsd();
    let proxy = Proxy::start(&pool(server.address()));
    for octets in [
        &b""[..],
        b"\0",
        b"\0\0",
        b"\0\x05hello",
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"\xff\xffshort",
    ] {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.write_all(octets).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut answer = Vec::new();
        // the end of the connection, by FIN or by RST
        if let Err(failure) = stream.read_to_end(&mut answer) {
            assert_eq!(
                failure.kind(),
                std::io::ErrorKind::ConnectionReset,
                "{octets:?}"
            );
        }
        assert!(answer.is_empty(), "{octets:?}");
    }
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    let answer = tcp_exchange(&mut stream, &a_query("www.example.com", 5));
    assert_eq!(parse(&answer).answers.len(), 1);
    wait_until("the connections are closed", || {
        proxy.sum(|worker| worker.tcp_open.get()) <= 1
    });
    let _ = proxy.settled(Transport::Tcp);
}
