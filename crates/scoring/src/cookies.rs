//! Server cookies (RFC 7873) as RFC 9018 section 4 makes them, so that every server with the same
//! secret takes those of the others: BIND, NSD, Knot and this proxy.
//!
//! A cookie that checks out proves that its sender receives what is sent to its address. It is
//! bound to the client's cookie and address, so it is of no use to anybody else.

use std::fmt;
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::Arc;

use dnscrub_wire::Query;
use dnscrub_wire::cookie::{CLIENT_LEN, CookieOption, FULL_LEN, SERVER_LEN};
use siphasher::sip::SipHasher24;

/// The version of RFC 9018 section 4.1.
const VERSION: u8 = 1;
/// Octets of version, reserved field and timestamp.
const FRONT_LEN: usize = 8;
/// Seconds that a cookie is valid (RFC 9018 section 4.3).
const LIFETIME: u32 = 3_600;
/// Seconds that another server's clock may be ahead of ours (RFC 9018 section 4.3).
const AHEAD: u32 = 300;
/// Octets of a secret: a SipHash key.
pub const SECRET_LEN: usize = 16;

/// What the cookie of a query says about its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cookie {
    /// There is none.
    None,
    /// The client has a cookie of its own and knows none of ours.
    ClientOnly,
    /// The server cookie is one that we, or a server with our secret, gave to this address: the
    /// address is not forged.
    Valid,
    /// The server cookie is old, of another secret, forged, or no cookie at all.
    Invalid,
}

/// Secrets, of which the first makes cookies and all are taken (RFC 9018 section 5). Cloning
/// shares them.
#[derive(Clone)]
pub struct Cookies {
    secrets: Arc<[SipHasher24]>,
    shared: bool,
}

impl fmt::Debug for Cookies {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies")
            .field("secrets", &self.secrets.len())
            .field("shared", &self.shared)
            .finish()
    }
}

impl Cookies {
    /// With secrets that the name servers behind have as well, the one that makes cookies first.
    #[must_use]
    pub fn shared(secrets: &[[u8; SECRET_LEN]]) -> Self {
        Self {
            secrets: secrets.iter().map(SipHasher24::new_with_key).collect(),
            shared: true,
        }
    }

    /// With a secret, which must be random, that nobody else knows.
    #[must_use]
    pub fn own(secret: [u8; SECRET_LEN]) -> Self {
        Self {
            secrets: [SipHasher24::new_with_key(&secret)].into(),
            shared: false,
        }
    }

    /// Whether the name servers behind have the same secrets.
    #[must_use]
    pub const fn are_shared(&self) -> bool {
        self.shared
    }

    /// What the cookie of `query`, a view of `packet` that came from `source`, says at `unix_now`,
    /// seconds since 1970. Costs nothing for a query without the option, and one hash of 20 or 32
    /// octets for each secret at most.
    #[inline]
    #[must_use]
    pub fn check(&self, query: &Query, packet: &[u8], source: IpAddr, unix_now: u32) -> Cookie {
        match CookieOption::of(query, packet) {
            None => Cookie::None,
            Some(Err(_)) => Cookie::Invalid,
            Some(Ok(cookie)) if cookie.server.is_empty() => Cookie::ClientOnly,
            Some(Ok(cookie)) if self.made(&cookie, source, unix_now) => Cookie::Valid,
            Some(Ok(_)) => Cookie::Invalid,
        }
    }

    /// The whole cookie, client and server part, that `source` is to come back with.
    #[must_use]
    pub fn make(&self, client: [u8; CLIENT_LEN], source: IpAddr, unix_now: u32) -> [u8; FULL_LEN] {
        let mut cookie = [0; FULL_LEN];
        let Some(secret) = self.secrets.first() else {
            return cookie;
        };
        let [t0, t1, t2, t3] = unix_now.to_be_bytes();
        let front = [VERSION, 0, 0, 0, t0, t1, t2, t3];
        let hash = hash(*secret, client, front, source);
        for (to, from) in cookie
            .iter_mut()
            .zip(client.into_iter().chain(front).chain(hash))
        {
            *to = from;
        }
        cookie
    }

    /// Whether a server with one of the secrets made this cookie for `source`, and not too long
    /// ago. The reserved octets may have any value (RFC 9018 section 4.2); the hash covers them.
    fn made(&self, cookie: &CookieOption<'_>, source: IpAddr, unix_now: u32) -> bool {
        let Ok::<[u8; SERVER_LEN], _>(server) = cookie.server.try_into() else {
            return false;
        };
        let [v, r0, r1, r2, t0, t1, t2, t3, h @ ..] = server;
        // serial number arithmetic (RFC 1982): the 32 bits come round
        let age = unix_now.wrapping_sub(u32::from_be_bytes([t0, t1, t2, t3]));
        let in_time = age <= LIFETIME || age >= AHEAD.wrapping_neg();
        let front: [u8; FRONT_LEN] = [v, r0, r1, r2, t0, t1, t2, t3];
        v == VERSION
            && in_time
            && self
                .secrets
                .iter()
                .any(|secret| same(hash(*secret, cookie.client, front, source), h))
    }
}

/// The hash of RFC 9018 section 4.4. An IPv4-mapped address counts as IPv4.
fn hash(
    mut secret: SipHasher24,
    client: [u8; CLIENT_LEN],
    front: [u8; FRONT_LEN],
    source: IpAddr,
) -> [u8; 8] {
    secret.write(&client);
    secret.write(&front);
    match source.to_canonical() {
        IpAddr::V4(address) => secret.write(&address.octets()),
        IpAddr::V6(address) => secret.write(&address.octets()),
    }
    secret.finish().to_le_bytes()
}

/// Compares in a time that does not tell how much of it is the same.
fn same(one: [u8; 8], other: [u8; 8]) -> bool {
    u64::from_ne_bytes(one) ^ u64::from_ne_bytes(other) == 0
}

#[cfg(test)]
mod tests {
    use dnscrub_wire::{Name, QueryBuilder, qtype};

    use super::*;

    fn octets<const N: usize>(hex: &str) -> [u8; N] {
        assert_eq!(hex.len(), 2 * N);
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    fn secrets(hex: &[&str]) -> Cookies {
        let secrets: Vec<[u8; SECRET_LEN]> = hex.iter().map(|hex| octets(hex)).collect();
        Cookies::shared(&secrets)
    }

    fn check(cookies: &Cookies, option: &[u8], source: &str, now: u32) -> Cookie {
        let packet = QueryBuilder::new(&Name::ROOT, qtype::A)
            .option(10, option)
            .build();
        let query = Query::parse(&packet).unwrap();
        cookies.check(&query, &packet, source.parse().unwrap(), now)
    }

    const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";

    #[test]
    fn a_new_server_cookie_is_that_of_rfc_9018_a_1() {
        let cookies = secrets(&[SECRET]);
        let source = "198.51.100.100".parse().unwrap();
        let full = cookies.make(octets("2464c4abcf10c957"), source, 1_559_731_985);
        assert_eq!(
            full,
            octets("2464c4abcf10c957010000005cf79f111f8130c3eee29480")
        );
        let later =
            |seconds: u32| check(&cookies, &full, "198.51.100.100", 1_559_731_985 + seconds);
        assert_eq!(later(0), Cookie::Valid);
        assert_eq!(later(3_600), Cookie::Valid);
        assert_eq!(later(3_601), Cookie::Invalid);
    }

    #[test]
    fn a_renewed_server_cookie_is_that_of_rfc_9018_a_2() {
        let source = "198.51.100.100".parse().unwrap();
        assert_eq!(
            secrets(&[SECRET]).make(octets("2464c4abcf10c957"), source, 1_559_734_385),
            octets("2464c4abcf10c957010000005cf7a871d4a564a1442aca77")
        );
    }

    #[test]
    fn reserved_octets_are_covered_and_not_judged_as_in_rfc_9018_a_3() {
        let cookies = secrets(&[SECRET]);
        let old: [u8; 24] = octets("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5");
        assert_eq!(
            check(&cookies, &old, "203.0.113.203", 0x5cf7_8f71 + 600),
            Cookie::Valid
        );
        let source = "203.0.113.203".parse().unwrap();
        assert_eq!(
            cookies.make(octets("fc93fc62807ddb86"), source, 1_559_734_700),
            octets("fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e")
        );
    }

    #[test]
    fn secrets_roll_over_as_in_rfc_9018_a_4() {
        const OLD: &str = "dd3bdf9344b678b185a6f5cb60fca715";
        const NEW: &str = "445536bcd2513298075a5d379663c962";
        const SOURCE: &str = "2001:db8:220:1:59de:d0f4:8769:82b8";
        let both = secrets(&[NEW, OLD]);
        let old: [u8; 24] = octets("22681ab97d52c298010000005cf7c57926556bd0934c72f8");
        assert_eq!(check(&both, &old, SOURCE, 0x5cf7_c609), Cookie::Valid);
        assert_eq!(
            check(&secrets(&[NEW]), &old, SOURCE, 0x5cf7_c609),
            Cookie::Invalid
        );
        assert_eq!(
            both.make(
                octets("22681ab97d52c298"),
                SOURCE.parse().unwrap(),
                0x5cf7_c609
            ),
            octets("22681ab97d52c298010000005cf7c609a6bb79d16625507a")
        );
    }

    #[test]
    fn time_is_serial() {
        let cookies = secrets(&[SECRET]);
        let source = "192.0.2.1".parse().unwrap();
        // made just before the seconds come round
        let made_at = u32::MAX - 10;
        let full = cookies.make([7; 8], source, made_at);
        let at = |now| check(&cookies, &full, "192.0.2.1", now);
        assert_eq!(at(made_at.wrapping_add(3_600)), Cookie::Valid);
        assert_eq!(at(made_at.wrapping_add(3_601)), Cookie::Invalid);
        assert_eq!(at(made_at - 300), Cookie::Valid, "a clock that is ahead");
        assert_eq!(at(made_at - 301), Cookie::Invalid);
        assert_eq!(at(made_at.wrapping_add(1 << 31)), Cookie::Invalid);
    }

    #[test]
    fn a_cookie_is_good_for_one_client_and_one_address() {
        let cookies = Cookies::own([9; 16]);
        assert!(!cookies.are_shared());
        let source = "192.0.2.1".parse().unwrap();
        let full = cookies.make([7; 8], source, 1_000);
        let says = |option: &[u8], source| check(&cookies, option, source, 1_000);
        assert_eq!(says(&full, "192.0.2.1"), Cookie::Valid);
        assert_eq!(says(&full, "::ffff:192.0.2.1"), Cookie::Valid);
        assert_eq!(says(&full, "192.0.2.2"), Cookie::Invalid);
        for octet in 0..full.len() {
            let mut other = full;
            other[octet] ^= 1;
            assert_eq!(says(&other, "192.0.2.1"), Cookie::Invalid, "octet {octet}");
        }
        assert_eq!(says(&full[..8], "192.0.2.1"), Cookie::ClientOnly);
        assert_eq!(says(&full[..7], "192.0.2.1"), Cookie::Invalid);
        assert_eq!(says(&full[..23], "192.0.2.1"), Cookie::Invalid);
        let longer = [&full[..], &[0; 8]].concat();
        assert_eq!(says(&longer, "192.0.2.1"), Cookie::Invalid);
    }

    #[test]
    fn no_option_is_no_cookie() {
        let packet = QueryBuilder::new(&Name::ROOT, qtype::A).build();
        let query = Query::parse(&packet).unwrap();
        let source = "192.0.2.1".parse().unwrap();
        assert_eq!(
            Cookies::own([9; 16]).check(&query, &packet, source, 0),
            Cookie::None
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(
            format!("{:?}", secrets(&[SECRET])),
            "Cookies { secrets: 1, shared: true }"
        );
    }
}
