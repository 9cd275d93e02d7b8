//! The authority behind real sockets on loopback.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use dnscrub_embedded_authority::{Authority, Limits, Server, Settings, TcpOrder, Zone};
use dnscrub_wire::{Name, Rcode};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{self, RecordType};

/// Long enough for any answer that comes at all.
const PATIENCE: Duration = Duration::from_secs(10);

fn authority() -> Authority {
    let mut text =
        String::from("@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n");
    for host in 0..500 {
        text.push_str(&format!("h{host} 60 IN A 192.0.2.2\n"));
    }
    let limits = Limits {
        records_per_transfer_message: 10,
        ..Limits::default()
    };
    Authority::with_limits([Zone::parse("example.com", &text).unwrap()], limits)
}

fn query(id: u16, name: &str, rtype: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(rr::Name::from_ascii(name).unwrap(), rtype));
    message.to_vec().unwrap()
}

fn client(server: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::LOCALHOST, 0).into()
    } else {
        (Ipv6Addr::LOCALHOST, 0).into()
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..len]).unwrap()
}

fn send_framed(stream: &mut TcpStream, messages: &[Vec<u8>]) {
    let framed: Vec<u8> = messages
        .iter()
        .flat_map(|message| [&(message.len() as u16).to_be_bytes()[..], message].concat())
        .collect();
    stream.write_all(&framed).unwrap();
}

fn receive_framed(stream: &mut TcpStream) -> Message {
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message).unwrap();
    Message::from_vec(&message).unwrap()
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn both_address_families_and_both_transports_are_served() {
    let settings = Settings {
        listen: vec![
            (Ipv4Addr::LOCALHOST, 0).into(),
            (Ipv6Addr::LOCALHOST, 0).into(),
        ],
        threads: 2,
        remember_names: 10,
        keep_messages: 2,
        ..Settings::default()
    };
    let server = Server::start(authority(), &settings).unwrap();
    assert_eq!(server.addresses().len(), 2);
    for &address in server.addresses() {
        let socket = client(address);
        socket
            .send(&query(1, "h1.example.com.", RecordType::A))
            .unwrap();
        assert_eq!(receive(&socket).answers.len(), 1);
        socket
            .send(&query(2, "missing.example.com.", RecordType::A))
            .unwrap();
        assert_eq!(
            receive(&socket).metadata.response_code,
            ResponseCode::NXDomain
        );
        let mut stream = connect(address);
        send_framed(&mut stream, &[query(3, "h2.example.com.", RecordType::A)]);
        assert_eq!(receive_framed(&mut stream).answers.len(), 1);
    }
    let counts = server.counts();
    assert_eq!(
        (
            counts.udp_queries,
            counts.tcp_queries,
            counts.tcp_connections
        ),
        (4, 2, 2)
    );
    assert_eq!(counts.answers_with(Rcode::NOERROR), 4);
    assert_eq!(counts.answers_with(Rcode::NXDOMAIN), 2);
    assert_eq!(server.distinct_names(), 3);
    assert!(server.was_asked(&Name::from_text("H1.example.com").unwrap()));
    assert!(!server.was_asked(&Name::from_text("h3.example.com").unwrap()));
    assert_eq!(server.messages().len(), 2);
    assert_eq!(
        server.messages()[1],
        query(3, "h2.example.com.", RecordType::A)
    );
}

#[test]
fn a_response_is_met_with_silence() {
    let server = Server::start(authority(), &Settings::default()).unwrap();
    let socket = client(server.address());
    let mut response = query(1, "h1.example.com.", RecordType::A);
    response[2] |= 0x80;
    socket.send(&response).unwrap();
    socket
        .send(&query(2, "h1.example.com.", RecordType::A))
        .unwrap();
    assert_eq!(receive(&socket).metadata.id, 2);
    assert_eq!(server.counts().silent, 1);
}

#[test]
fn pipelined_queries_are_answered_in_the_order_of_the_settings() {
    for (tcp_order, expected) in [
        (TcpOrder::InOrder, [1, 2, 3]),
        (TcpOrder::OutOfOrder, [3, 2, 1]),
    ] {
        let server = Server::start(
            authority(),
            &Settings {
                tcp_order,
                ..Settings::default()
            },
        )
        .unwrap();
        let mut stream = connect(server.address());
        let queries: Vec<_> = (1..=3)
            .map(|id| query(id, "h1.example.com.", RecordType::A))
            .collect();
        send_framed(&mut stream, &queries);
        let ids: Vec<_> = (0..3)
            .map(|_| receive_framed(&mut stream).metadata.id)
            .collect();
        assert_eq!(ids, expected);
    }
}

#[test]
fn a_zone_is_transferred_while_other_queries_are_answered() {
    let server = Server::start(authority(), &Settings::default()).unwrap();
    let mut stream = connect(server.address());
    send_framed(
        &mut stream,
        &[
            query(1, "example.com.", RecordType::AXFR),
            query(2, "h1.example.com.", RecordType::A),
        ],
    );
    let mut records = 0;
    let mut messages = 0;
    while records < 504 {
        let message = receive_framed(&mut stream);
        assert_eq!(message.metadata.id, 1);
        records += message.answers.len();
        messages += 1;
    }
    assert_eq!((records, messages), (504, 51));
    assert_eq!(receive_framed(&mut stream).metadata.id, 2);
    assert_eq!(server.counts().transfers, 1);
}

#[test]
fn zones_and_faults_change_while_it_runs() {
    let server = Server::start(authority(), &Settings::default()).unwrap();
    let socket = client(server.address());
    let ask = |id| {
        socket
            .send(&query(id, "h1.example.com.", RecordType::A))
            .unwrap();
        let answer = receive(&socket);
        assert_eq!(answer.metadata.id, id);
        answer
    };
    server.behaviour().set_truncate(true);
    assert!(ask(1).metadata.truncation);
    server.behaviour().set_truncate(false);
    server.behaviour().set_rcode(Some(Rcode::SERVFAIL));
    assert_eq!(ask(2).metadata.response_code, ResponseCode::ServFail);
    server.behaviour().set_rcode(None);
    server.behaviour().set_hang(true);
    socket
        .send(&query(3, "h1.example.com.", RecordType::A))
        .unwrap();
    while server.counts().hung == 0 {
        std::thread::yield_now();
    }
    server.behaviour().set_hang(false);
    server
        .behaviour()
        .set_delay(Duration::from_millis(20), Duration::ZERO);
    let asked = Instant::now();
    assert_eq!(ask(4).answers.len(), 1);
    assert!(asked.elapsed() >= Duration::from_millis(20));
    server.behaviour().set_delay(Duration::ZERO, Duration::ZERO);
    server.replace(Authority::new([]));
    assert_eq!(ask(5).metadata.response_code, ResponseCode::Refused);
}

#[test]
fn connections_above_the_limit_are_closed_and_idle_ones_too() {
    let settings = Settings {
        max_tcp_connections: 1,
        tcp_idle: Duration::from_millis(50),
        ..Settings::default()
    };
    let server = Server::start(authority(), &settings).unwrap();
    let mut first = connect(server.address());
    send_framed(&mut first, &[query(1, "h1.example.com.", RecordType::A)]);
    let mut second = connect(server.address());
    // The second one is closed because of the limit or, on a slow machine, because it is idle.
    assert_eq!(second.read(&mut [0; 1]).unwrap_or(0), 0);
    assert_eq!(receive_framed(&mut first).metadata.id, 1);
    assert_eq!(first.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_dropped_server_frees_its_port() {
    let server = Server::start(authority(), &Settings::default()).unwrap();
    let address = server.address();
    drop(server);
    let settings = Settings {
        listen: vec![address],
        ..Settings::default()
    };
    let again = Server::start(authority(), &settings).unwrap();
    assert_eq!(again.address(), address);
}
