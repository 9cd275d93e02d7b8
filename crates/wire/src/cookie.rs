//! The COOKIE option (RFC 7873 section 4).

use crate::query::Query;
use crate::records::option_code;

/// Octets of a client cookie.
pub const CLIENT_LEN: usize = 8;
/// Octets of a server cookie as RFC 9018 section 4 makes it.
pub const SERVER_LEN: usize = 16;
/// Octets of a client cookie with such a server cookie.
pub const FULL_LEN: usize = CLIENT_LEN + SERVER_LEN;
/// Most octets the option's data can have.
pub const MAX_LEN: usize = 40;
/// Least octets of a server cookie of any make.
const SERVER_MIN: usize = 8;

/// A COOKIE option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieOption<'a> {
    /// The client cookie.
    pub client: [u8; CLIENT_LEN],
    /// The server cookie, 8 to 32 octets; empty where the client knows none yet.
    pub server: &'a [u8],
}

/// The option's data is neither 8 nor 16 to 40 octets long; servers answer FORMERR (RFC 7873
/// section 5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength;

impl<'a> CookieOption<'a> {
    /// Reads the option's data.
    ///
    /// # Errors
    /// When it has no length that a cookie can have.
    pub fn parse(data: &'a [u8]) -> Result<Self, BadLength> {
        let (client, server) = data.split_first_chunk::<CLIENT_LEN>().ok_or(BadLength)?;
        if !(server.is_empty() || server.len() >= SERVER_MIN && data.len() <= MAX_LEN) {
            return Err(BadLength);
        }
        Ok(Self {
            client: *client,
            server,
        })
    }

    /// The first COOKIE option of a query; further ones do not count (RFC 7873 section 5.2).
    /// Nothing where there is none.
    #[must_use]
    pub fn of(query: &Query, packet: &'a [u8]) -> Option<Result<Self, BadLength>> {
        let mut options = query.options(packet);
        let cookie = options.find(|option| option.code == option_code::COOKIE)?;
        Some(Self::parse(cookie.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, QueryBuilder, qtype};

    #[test]
    fn only_lengths_that_cookies_have_are_read() {
        let data = [7; 64];
        for len in 0..=64 {
            let read = CookieOption::parse(&data[..len]);
            let fits = len == 8 || (16..=40).contains(&len);
            assert_eq!(read.is_ok(), fits, "{len} octets");
            if let Ok(cookie) = read {
                assert_eq!(cookie.server.len(), len - 8);
            }
        }
    }

    #[test]
    fn the_first_cookie_of_a_query_counts() {
        let query = |build: fn(QueryBuilder) -> QueryBuilder| {
            let packet = build(QueryBuilder::new(&Name::ROOT, qtype::A)).build();
            (Query::parse(&packet).unwrap(), packet)
        };
        let (none, packet) = query(|query| query.option(3, b""));
        assert_eq!(CookieOption::of(&none, &packet), None);
        let (plain, packet) = query(|query| query);
        assert_eq!(CookieOption::of(&plain, &packet), None);
        let (two, packet) = query(|query| {
            query
                .option(3, b"")
                .option(10, b"client01")
                .option(10, b"client02server02")
        });
        let cookie = CookieOption::of(&two, &packet).unwrap().unwrap();
        assert_eq!((&cookie.client, cookie.server), (b"client01", &b""[..]));
        let (short, packet) = query(|query| query.option(10, b"client"));
        assert_eq!(CookieOption::of(&short, &packet), Some(Err(BadLength)));
    }
}
