//! How quantities are written in the file: durations, rates, prefixes, ranges, sizes.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

/// Serde and schema for a type that is written as one text and read with [`FromStr`].
macro_rules! written_as_text {
    ($type:ty, $name:literal, $description:literal, $example:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor($description, PhantomData))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": ["string", "number", "boolean"],
                    "description": $description,
                    "examples": [$example],
                })
            }
        }
    };
}

/// Reads a scalar as text; a bare number or `off` (which some YAML tools take for `false`) is text too.
struct TextVisitor<T>(&'static str, PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<T, E> {
        self.visit_str(if on { "on" } else { "off" })
    }
}

/// A length of time: "300ms", "10m", "1h 30m".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|_| {
            format!("found \"{text}\", expected a length of time such as \"300ms\" or \"10m\"")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

written_as_text!(
    Span,
    "Span",
    "a length of time such as \"300ms\", \"10m\" or \"1h 30m\"",
    "10m"
);

/// Events over a time, "200/s", "30/m" or "5/10s"; or "off" for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rate {
    /// No limit.
    Off,
    /// So many events in so long a time; both above zero.
    Limit {
        /// Events.
        events: u32,
        /// The time they may come in.
        per: Duration,
    },
}

impl Rate {
    /// `events` a second; zero means off.
    #[must_use]
    pub const fn per_second(events: u32) -> Self {
        if events == 0 {
            Self::Off
        } else {
            Self::Limit {
                events,
                per: Duration::from_secs(1),
            }
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let wrong = || {
            format!(
                "found \"{text}\", expected a rate such as \"200/s\" or \"30/m\", above zero, or \"off\""
            )
        };
        let (events, per) = text.split_once('/').ok_or_else(wrong)?;
        let events: u32 = events.trim().parse().map_err(|_| wrong())?;
        let per = match per.trim() {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            other => humantime::parse_duration(other).map_err(|_| wrong())?,
        };
        if events == 0 || per.is_zero() || per > Duration::from_secs(86_400) {
            return Err(wrong());
        }
        Ok(Self::Limit { events, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Limit { events, per } => match (per.as_secs(), per.subsec_nanos()) {
                (1, 0) => write!(f, "{events}/s"),
                (60, 0) => write!(f, "{events}/m"),
                (3600, 0) => write!(f, "{events}/h"),
                _ => write!(f, "{events}/{}", humantime::format_duration(*per)),
            },
        }
    }
}

written_as_text!(
    Rate,
    "Rate",
    "a rate such as \"200/s\", \"30/m\" or \"5/10s\", or \"off\"",
    "200/s"
);

/// An address prefix: "192.0.2.0/24", "2001:db8::/32", or a bare address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(pub IpNet);

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
            .map_err(|_| {
                format!(
                    "found \"{text}\", expected an address or a prefix such as \"192.0.2.0/24\""
                )
            })?;
        if net.trunc() != net {
            let net = net.trunc();
            return Err(format!(
                "found \"{text}\", which has bits set behind the prefix; write \"{net}\""
            ));
        }
        Ok(Self(canonical(net)))
    }
}

/// A prefix within `::ffff:0:0/96`, which stands for IPv4 addresses, as an IPv4 prefix.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let length = v6.prefix_len().checked_sub(96);
    let mapped = v6.network().to_ipv4_mapped();
    match mapped
        .zip(length)
        .map(|(address, length)| ipnet::Ipv4Net::new(address, length))
    {
        Some(Ok(v4)) => IpNet::V4(v4),
        _ => net,
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

written_as_text!(
    Prefix,
    "Prefix",
    "an address or a prefix such as \"192.0.2.0/24\" or \"2001:db8::/32\"",
    "192.0.2.0/24"
);

/// An amount of memory: "8MiB", "512KiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Memory(pub usize);

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "found \"{text}\", expected an amount of memory up to 64GiB such as \"8MiB\" or \"512KiB\""
            )
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
        let shift = match text.get(digits.len()..).unwrap_or_default().trim() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(wrong()),
        };
        let number: usize = digits.parse().map_err(|_| wrong())?;
        let octets = number
            .checked_mul(1_usize << shift)
            .filter(|octets| *octets <= 64_usize << 30)
            .ok_or_else(wrong)?;
        Ok(Self(octets))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0;
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if octets != 0 && octets.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", octets >> shift);
            }
        }
        write!(f, "{octets}B")
    }
}

written_as_text!(
    Memory,
    "Memory",
    "an amount of memory such as \"8MiB\" or \"512KiB\"",
    "8MiB"
);

/// A number that a [`Range`] can hold.
pub trait Bound: Copy + PartialOrd + fmt::Display + FromStr {
    /// The smallest value.
    const MIN: Self;
    /// The greatest value.
    const MAX: Self;
}

impl Bound for u8 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}

impl Bound for u16 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}

/// Bits, in thousandths: "3.5" is 3500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millibits(pub u32);

impl Bound for Millibits {
    const MIN: Self = Self(0);
    const MAX: Self = Self(u32::MAX);
}

impl FromStr for Millibits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("found \"{text}\", expected bits with up to three decimals such as \"3.5\"");
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        if part.is_empty() || part.len() > 3 || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let part: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
        whole
            .checked_mul(1000)
            .and_then(|bits| bits.checked_add(part))
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl fmt::Display for Millibits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0 / 1000;
        match self.0 % 1000 {
            0 => write!(f, "{whole}"),
            part => f.write_str(format!("{whole}.{part:03}").trim_end_matches('0')),
        }
    }
}

written_as_text!(
    Millibits,
    "Bits",
    "bits with up to three decimals such as \"3.5\"",
    "3.5"
);

/// Both ends count: "12..", "..5", "3..7", or one number for exactly that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range<T> {
    /// The smallest value that matches.
    pub from: T,
    /// The greatest value that matches.
    pub to: T,
}

impl<T: Bound> Range<T> {
    /// Whether `value` lies within, both ends included.
    #[must_use]
    pub fn contains(&self, value: T) -> bool {
        self.from <= value && value <= self.to
    }
}

impl<T: Bound> FromStr for Range<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let (min, max) = (T::MIN, T::MAX);
            format!(
                "found \"{text}\", expected a range such as \"12..\", \"..5\", \"3..7\" or one number, from {min} to {max}"
            )
        };
        let end = |text: &str, open: T| match text.trim() {
            "" => Ok(open),
            text => text.parse().map_err(|_| wrong()),
        };
        let (from, to) = match text.split_once("..") {
            Some((from, to)) => (end(from, T::MIN)?, end(to, T::MAX)?),
            None => {
                let only = text.trim().parse().map_err(|_| wrong())?;
                (only, only)
            }
        };
        if from > to {
            return Err(format!(
                "found \"{text}\", which contains nothing; write the smaller number first"
            ));
        }
        Ok(Self { from, to })
    }
}

impl<T: Bound> fmt::Display for Range<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            return self.from.fmt(f);
        }
        if self.from > T::MIN {
            self.from.fmt(f)?;
        }
        f.write_str("..")?;
        if self.to < T::MAX {
            self.to.fmt(f)?;
        }
        Ok(())
    }
}

impl<'de, T: Bound> Deserialize<'de> for Range<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(
            "a range such as \"12..\", \"..5\", \"3..7\" or one number",
            PhantomData,
        ))
    }
}

impl<T: Bound> Serialize for Range<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<T> JsonSchema for Range<T> {
    fn schema_name() -> Cow<'static, str> {
        "Range".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "description": "a range, both ends included: \"12..\", \"..5\", \"3..7\", or one number for exactly that",
            "examples": ["12.."],
        })
    }
}

/// A type known by name and number, "A", "ANY" or "TYPE65280".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryType(pub u16);

const TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("NULL", 10),
    ("WKS", 11),
    ("PTR", 12),
    ("HINFO", 13),
    ("MINFO", 14),
    ("MX", 15),
    ("TXT", 16),
    ("RP", 17),
    ("AFSDB", 18),
    ("SIG", 24),
    ("KEY", 25),
    ("AAAA", 28),
    ("LOC", 29),
    ("SRV", 33),
    ("NAPTR", 35),
    ("KX", 36),
    ("CERT", 37),
    ("A6", 38),
    ("DNAME", 39),
    ("OPT", 41),
    ("APL", 42),
    ("DS", 43),
    ("SSHFP", 44),
    ("IPSECKEY", 45),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("DHCID", 49),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("HIP", 55),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("OPENPGPKEY", 61),
    ("CSYNC", 62),
    ("ZONEMD", 63),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("SPF", 99),
    ("EUI48", 108),
    ("EUI64", 109),
    ("TKEY", 249),
    ("TSIG", 250),
    ("IXFR", 251),
    ("AXFR", 252),
    ("MAILB", 253),
    ("ANY", 255),
    ("URI", 256),
    ("CAA", 257),
];

/// A class known by name and number, "IN", "CH" or "CLASS42".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueryClass(pub u16);

const CLASSES: &[(&str, u16)] = &[("IN", 1), ("CH", 3), ("HS", 4), ("NONE", 254), ("ANY", 255)];

/// An opcode known by name and number, "query", "notify" or "7".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpcodeName(pub u8);

const OPCODES: &[(&str, u16)] = &[
    ("query", 0),
    ("iquery", 1),
    ("status", 2),
    ("notify", 4),
    ("update", 5),
    ("dso", 6),
];

/// A name of the table, `PREFIXnnn`, or a bare number up to `max`.
fn known(
    text: &str,
    table: &[(&str, u16)],
    prefix: &str,
    max: u16,
    kind: &str,
) -> Result<u16, String> {
    if let Some((_, number)) = table
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
    {
        return Ok(*number);
    }
    let digits = match text.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix) => {
            text.get(prefix.len()..).unwrap_or_default()
        }
        _ => text,
    };
    digits
        .parse()
        .ok()
        .filter(|number| *number <= max)
        .ok_or_else(|| {
            let nearest = super::nearest(
                &text.to_ascii_uppercase(),
                table.iter().map(|(name, _)| *name),
            )
            .or_else(|| {
                super::nearest(
                    &text.to_ascii_lowercase(),
                    table.iter().map(|(name, _)| *name),
                )
            })
            .map(|name| format!("; did you mean \"{name}\"?"))
            .unwrap_or_default();
            format!("found \"{text}\", expected {kind}{nearest}")
        })
}

fn show(
    number: u16,
    table: &[(&str, u16)],
    prefix: &str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    match table.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => f.write_str(name),
        None => write!(f, "{prefix}{number}"),
    }
}

impl FromStr for QueryType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        known(
            text,
            TYPES,
            "TYPE",
            u16::MAX,
            "a record type such as \"A\", \"ANY\" or \"TYPE65280\"",
        )
        .map(Self)
    }
}

impl fmt::Display for QueryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, TYPES, "TYPE", f)
    }
}

impl FromStr for QueryClass {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        known(
            text,
            CLASSES,
            "CLASS",
            u16::MAX,
            "a class such as \"IN\", \"CH\" or \"CLASS42\"",
        )
        .map(Self)
    }
}

impl fmt::Display for QueryClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, CLASSES, "CLASS", f)
    }
}

impl FromStr for OpcodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        known(
            text,
            OPCODES,
            "opcode",
            15,
            "an opcode such as \"query\", \"notify\" or a number up to 15",
        )
        .map(|number| Self(u8::try_from(number).unwrap_or(15)))
    }
}

impl fmt::Display for OpcodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(u16::from(self.0), OPCODES, "", f)
    }
}

written_as_text!(
    QueryType,
    "QueryType",
    "a record type such as \"A\", \"ANY\" or \"TYPE65280\"",
    "ANY"
);
written_as_text!(
    QueryClass,
    "QueryClass",
    "a class such as \"IN\", \"CH\" or \"CLASS42\"",
    "IN"
);
written_as_text!(
    OpcodeName,
    "Opcode",
    "an opcode such as \"query\" or \"notify\", or a number up to 15",
    "query"
);

/// One value, or a list of them: `ANY` or `[ANY, TXT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> From<Vec<T>> for OneOrMany<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list of values")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(|one| OneOrMany(vec![one]))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(|one| OneOrMany(vec![one]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        if values.is_empty() {
            return Err(de::Error::custom(
                "found an empty list, expected one value or several; leave the field out to match everything",
            ));
        }
        Ok(OneOrMany(values))
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [one] = self.0.as_slice() {
            return one.serialize(serializer);
        }
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for value in &self.0 {
            list.serialize_element(value)?;
        }
        list.end()
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}
