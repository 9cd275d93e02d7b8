//! Address prefixes as people write them.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An address prefix: `192.0.2.0/24`, `2001:db8::/32`, or a bare address, which stands for itself
/// alone. Written without bits behind the prefix length; IPv4-mapped IPv6 becomes IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(IpNet);

impl Prefix {
    /// The prefix, canonical: no bits behind its length, never IPv4-mapped.
    #[must_use]
    pub const fn net(self) -> IpNet {
        self.0
    }

    /// Reads a prefix from the octets of a text.
    ///
    /// # Errors
    /// What was found and what was expected.
    pub fn parse(text: &[u8]) -> Result<Self, PrefixError> {
        let (address, len) = match text.iter().position(|octet| *octet == b'/') {
            Some(slash) => {
                let (address, rest) = text.split_at(slash);
                let len = parse_decimal(rest.get(1..).unwrap_or_default(), 3);
                (
                    address,
                    Some(len.ok_or_else(|| PrefixError::new(text, EXPECTED))?),
                )
            }
            None => (text, None),
        };
        let address = parse_address(address).ok_or_else(|| PrefixError::new(text, EXPECTED))?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let len = match len.unwrap_or(widest) {
            len if len <= widest => u8::try_from(len).unwrap_or(u8::MAX),
            _ if widest == 32 => {
                return Err(PrefixError::new(text, "a prefix length from 0 to 32"));
            }
            _ => return Err(PrefixError::new(text, "a prefix length from 0 to 128")),
        };
        let net = IpNet::new(address, len).map_err(|_| PrefixError::new(text, EXPECTED))?;
        if net.trunc() != net {
            return Err(PrefixError {
                found: shown(text),
                expected: Cow::Owned(format!(
                    "no address bits behind the prefix length: {} or {address}",
                    net.trunc()
                )),
            });
        }
        Ok(Self(canonical(net)))
    }
}

const EXPECTED: &str = "a prefix such as 192.0.2.0/24 or 2001:db8::/32, or an address";

impl From<IpNet> for Prefix {
    /// Cuts off the bits behind the prefix length.
    fn from(net: IpNet) -> Self {
        Self(canonical(net))
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Prefix {
    fn schema_name() -> Cow<'static, str> {
        "Prefix".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An address prefix such as `192.0.2.0/24` or `2001:db8::/32`, or a bare address.",
        })
    }
}

/// A text that is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixError {
    /// The text, made printable and cut to 60 characters.
    pub found: String,
    /// What should have been there.
    pub expected: Cow<'static, str>,
}

impl PrefixError {
    fn new(text: &[u8], expected: &'static str) -> Self {
        Self {
            found: shown(text),
            expected: Cow::Borrowed(expected),
        }
    }
}

impl fmt::Display for PrefixError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "found \"{}\", expected {}",
            self.found, self.expected
        )
    }
}

impl std::error::Error for PrefixError {}

/// Text from outside, safe to show on a terminal.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .take(60)
        .flat_map(char::escape_debug)
        .collect()
}

/// Without bits behind the prefix length; a prefix inside `::ffff:0:0/96` as IPv4.
pub(crate) fn canonical(net: IpNet) -> IpNet {
    let net = net.trunc();
    let IpNet::V6(v6) = net else { return net };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(address), Some(len)) => Ipv4Net::new(address, len).map_or(net, IpNet::V4),
        _ => net,
    }
}

/// A prefix whose length is known to fit.
pub(crate) fn v4_net(address: u32, len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), len).unwrap_or_default())
}

/// A prefix whose length is known to fit.
pub(crate) fn v6_net(address: u128, len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new(Ipv6Addr::from(address), len).unwrap_or_default())
}

fn parse_address(text: &[u8]) -> Option<IpAddr> {
    if let Some(address) = parse_v4(text) {
        return Some(IpAddr::V4(address));
    }
    std::str::from_utf8(text)
        .ok()?
        .parse::<Ipv6Addr>()
        .ok()
        .map(IpAddr::V6)
}

/// Dotted quad, four decimal numbers without leading zeros, whose meaning (octal?) differs between
/// programs.
fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut parts = text.split(|octet| *octet == b'.');
    let mut address = 0_u32;
    for _ in 0..4 {
        let part = u8::try_from(parse_decimal(parts.next()?, 3)?).ok()?;
        address = (address << 8) | u32::from(part);
    }
    parts.next().is_none().then(|| Ipv4Addr::from(address))
}

/// Decimal digits only, at least one and at most `longest`, no leading zero.
fn parse_decimal(text: &[u8], longest: usize) -> Option<u16> {
    if text.is_empty() || text.len() > longest || (text.len() > 1 && text.first() == Some(&b'0')) {
        return None;
    }
    text.iter().try_fold(0_u16, |number, octet| {
        let digit = octet.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u16::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> String {
        text.parse::<Prefix>().unwrap().to_string()
    }

    fn expected(text: &str) -> String {
        text.parse::<Prefix>().unwrap_err().expected.into_owned()
    }

    #[test]
    fn reads_prefixes_and_bare_addresses() {
        assert_eq!(ok("192.0.2.0/24"), "192.0.2.0/24");
        assert_eq!(ok("192.0.2.1"), "192.0.2.1/32");
        assert_eq!(ok("0.0.0.0/0"), "0.0.0.0/0");
        assert_eq!(ok("2001:db8::/32"), "2001:db8::/32");
        assert_eq!(ok("::1"), "::1/128");
    }

    #[test]
    fn ipv4_mapped_prefixes_become_ipv4() {
        assert_eq!(ok("::ffff:192.0.2.1"), "192.0.2.1/32");
        assert_eq!(ok("::ffff:192.0.2.0/120"), "192.0.2.0/24");
        assert_eq!(ok("::ffff:0:0/96"), "0.0.0.0/0");
        assert_eq!(ok("::/80"), "::/80");
    }

    #[test]
    fn says_what_it_expected() {
        assert_eq!(expected("192.0.2.0/33"), "a prefix length from 0 to 32");
        assert_eq!(expected("::/129"), "a prefix length from 0 to 128");
        assert!(expected("192.0.2.7/24").contains("192.0.2.0/24 or 192.0.2.7"));
        for text in [
            "",
            "/",
            "192.0.2",
            "192.0.2.0/",
            "192.0.2.0/024",
            "192.0.02.0",
            "1.2.3.4.5",
            "256.0.0.1",
            "x",
            "1.2.3.4/+8",
        ] {
            assert_eq!(expected(text), EXPECTED, "{text}");
        }
    }

    #[test]
    fn an_error_never_repeats_control_characters() {
        let error = Prefix::parse(b"\x1b[31m\xff").unwrap_err();
        assert!(
            error
                .to_string()
                .chars()
                .all(|character| !character.is_control())
        );
    }
}
