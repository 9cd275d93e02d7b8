//! DNS cookies between the proxy and real name servers with the same secret: each takes the other's.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dnscrub::outcome::Reason;
use dnscrub_scoring::cookies::{Cookie, Cookies};
use dnscrub_testkit::message::query;
use dnscrub_testkit::servers::RealServer;
use dnscrub_tests::Proxy;
use dnscrub_wire::{Query, Rcode, Response, qtype};

const ORIGIN: &str = "example.com";
const ZONE: &str = "@ IN SOA ns1 hostmaster 1 3600 600 604800 300\n@ IN NS ns1\nns1 IN A 192.0.2.1\n\
                    www IN A 192.0.2.80\n";
const SECRET: &str = "445536bcd2513298075a5d379663c962";
const CLIENT: &[u8; 8] = b"client01";

fn secret() -> [u8; 16] {
    u128::from_str_radix(SECRET, 16).unwrap().to_be_bytes()
}

fn bind(lines: &str) -> RealServer {
    RealServer::bind_with(
        ORIGIN,
        ZONE,
        &format!("cookie-algorithm siphash24; cookie-secret \"{SECRET}\"; {lines}"),
    )
}

fn nsd() -> RealServer {
    RealServer::nsd_with(
        ORIGIN,
        ZONE,
        &format!("answer-cookie: yes\ncookie-secret: \"{SECRET}\""),
    )
}

/// A proxy in front of `server` that knows its secret and limits even loopback to an answer a
/// second, which is slipped as BADCOOKIE or TC=1.
fn proxy(server: &RealServer) -> Proxy {
    let upstream = server.address();
    let yaml = |more: &str| {
        format!(
            "pools: {{ default: {{ upstreams: [ {{ address: \"{upstream}\" }} ], health: off }} }}\n{more}"
        )
    };
    let proxy = Proxy::start(&yaml(""));
    let text = format!("# the servers'\n{SECRET}\n");
    std::fs::write(proxy.file("secrets"), text).unwrap();
    proxy
        .reload(&yaml(
            "cookies: { secrets-file: secrets }\n\
             response-limit: { answers: 1/m, errors: off, slip: 1, exempt: [] }\n",
        ))
        .unwrap();
    proxy
}

/// Asks for www.example.com with this cookie; the rcode, TC, and the cookie of the answer.
fn ask(server: SocketAddr, cookie: &[u8]) -> (Rcode, bool, Vec<u8>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(server).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let packet = query("www.example.com", qtype::A)
        .id(7)
        .udp_size(1232)
        .option(10, cookie)
        .build();
    socket.send(&packet).unwrap();
    let mut answer = [0; 1232];
    let len = socket.recv(&mut answer).unwrap();
    let answer = &answer[..len];
    let response = Response::parse(answer).unwrap();
    (
        response.rcode,
        response.is_truncated(),
        option(&response, answer),
    )
}

/// The data of the answer's COOKIE option; empty without.
fn option(response: &Response, answer: &[u8]) -> Vec<u8> {
    let edns = response.edns.unwrap();
    let mut rest = &answer[edns.options_at.into()..][..edns.options_len.into()];
    while let [c0, c1, l0, l1, data @ ..] = rest {
        let (data, after) = data.split_at(u16::from_be_bytes([*l0, *l1]).into());
        if [*c0, *c1] == [0, 10] {
            return data.to_vec();
        }
        rest = after;
    }
    Vec::new()
}

/// What the proxy's check says of a cookie from 127.0.0.1 now.
fn check(cookie: &[u8]) -> Cookie {
    let packet = query(ORIGIN, qtype::A).option(10, cookie).build();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Cookies::shared(&[secret()]).check(
        &Query::parse(&packet).unwrap(),
        &packet,
        Ipv4Addr::LOCALHOST.into(),
        now.as_secs() as u32,
    )
}

#[test]
fn the_servers_cookies_are_valid_at_the_proxy_and_free_their_bearer_from_limits() {
    for server in [bind(""), nsd()] {
        let proxy = proxy(&server);
        // the first answer is within the limit, and carries the server's cookie
        let (rcode, truncated, cookie) = ask(proxy.address(), CLIENT);
        assert_eq!((rcode, truncated), (Rcode::NOERROR, false), "{server:?}");
        assert_eq!(cookie.len(), 24, "{server:?}: {cookie:?}");
        assert_eq!(check(&cookie), Cookie::Valid, "{server:?}");
        for _ in 0..20 {
            let (rcode, truncated, _) = ask(proxy.address(), &cookie);
            assert_eq!((rcode, truncated), (Rcode::NOERROR, false), "{server:?}");
        }
        assert_eq!(proxy.count(Reason::ResponseLimit), 0, "{server:?}");
        // a cookie that no server gave to this client frees nobody
        let mut forged = cookie;
        forged[23] ^= 1;
        let (rcode, _, _) = ask(proxy.address(), &forged);
        assert_eq!(rcode, Rcode::BADCOOKIE, "{server:?}");
        assert_eq!(proxy.count(Reason::ResponseLimit), 1, "{server:?}");
    }
}

#[test]
fn the_proxys_cookies_are_valid_at_the_server() {
    // this BIND serves nobody over UDP who has no valid cookie
    let server = bind("require-server-cookie yes;");
    assert_eq!(ask(server.address(), CLIENT).0, Rcode::BADCOOKIE);
    let proxy = proxy(&server);
    let (_, _, of_server) = ask(proxy.address(), CLIENT);
    // the client's own part is another one, so this cookie is the proxy's alone
    let source = Ipv4Addr::LOCALHOST.into();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let made = Cookies::shared(&[secret()]).make(*b"client02", source, now.as_secs() as u32);
    assert_ne!(made[..], of_server);
    let (rcode, _, _) = ask(server.address(), &made);
    assert_eq!(rcode, Rcode::NOERROR);
    let (rcode, _, _) = ask(proxy.address(), &made);
    assert_eq!(rcode, Rcode::NOERROR);
}

#[test]
fn a_slipped_answer_is_badcookie_with_a_cookie_that_opens_the_way() {
    let server = bind("");
    let proxy = proxy(&server);
    let (_, truncated, _) = ask(proxy.address(), CLIENT);
    assert!(!truncated, "the first is within the limit");
    let (rcode, truncated, cookie) = ask(proxy.address(), CLIENT);
    assert_eq!((rcode, truncated), (Rcode::BADCOOKIE, false));
    assert_eq!(cookie[..8], *CLIENT);
    assert_eq!(check(&cookie), Cookie::Valid);
    assert_eq!(ask(proxy.address(), &cookie).0, Rcode::NOERROR);
    assert_eq!(ask(server.address(), &cookie).0, Rcode::NOERROR);
}
