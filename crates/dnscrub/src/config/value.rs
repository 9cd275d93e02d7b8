//! Single values as they are written in the file: durations, sizes, addresses.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::file::NameSource;
use dnscrub_detection::Kind;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};

/// A length of time: a number and its unit, such as "50us", "300ms", "10s", "5m", "1h30m".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// So many milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// So many seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

const PERIOD: &str =
    "a duration: a number and a unit, such as \"300ms\", \"10s\", \"5m\" or \"1h\"";

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.to_string();
        serializer.serialize_str(&text.replace(' ', ""))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: PERIOD,
            parse: |text: &str| humantime::parse_duration(text).ok().map(Self),
        })
    }
}

impl JsonSchema for Period {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time: a number and its unit (us, ms, s, m, h), such as \"300ms\", \"10s\" or \"1h30m\".",
            "examples": ["300ms", "10s"],
        })
    }
}

/// A length of time, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeriodOrOff(pub Option<Period>);

impl Serialize for PeriodOrOff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(period) => period.serialize(serializer),
            None => serializer.serialize_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for PeriodOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: "a duration such as \"50us\", or `off`",
            parse: |text: &str| match text {
                "off" => Some(Self(None)),
                text => humantime::parse_duration(text)
                    .ok()
                    .map(|period| Self(Some(Period(period)))),
            },
        })
    }
}

impl JsonSchema for PeriodOrOff {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DurationOrOff".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time such as \"50us\", or `off`.",
            "examples": ["50us", "off"],
        })
    }
}

/// A number of octets: plain, or with a unit: "4MiB", "512KiB".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl Size {
    /// So many MiB.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim_start() {
            "" | "B" => 0,
            "KiB" | "K" | "k" => 10,
            "MiB" | "M" => 20,
            "GiB" | "G" => 30,
            _ => return None,
        };
        number
            .parse::<u64>()
            .ok()?
            .checked_mul(1 << shift)
            .map(Self)
    }
}

const SIZE: &str = "a size: a number of octets, or one with a unit such as \"512KiB\" or \"8MiB\"";

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n.is_multiple_of(1 << 30) => write!(f, "{}GiB", n >> 30),
            n if n.is_multiple_of(1 << 20) => write!(f, "{}MiB", n >> 20),
            n if n.is_multiple_of(1 << 10) => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: SIZE,
            parse: Self::parse,
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A number of octets, or one with a unit (KiB, MiB, GiB), such as \"8MiB\".",
            "examples": ["8MiB", 65536],
        })
    }
}

/// A socket address to listen on. Without a port, port 53 is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddress(pub SocketAddr);

const ADDRESS: &str =
    "an IP address, with a port or without, such as \"192.0.2.1:53\" or \"[2001:db8::1]:53\"";

impl ListenAddress {
    fn parse(text: &str) -> Option<Self> {
        text.parse::<SocketAddr>().ok().map(Self).or_else(|| {
            let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
            let address: IpAddr = bare.unwrap_or(text).parse().ok()?;
            Some(Self(SocketAddr::new(address, 53)))
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: ADDRESS,
            parse: Self::parse,
        })
    }
}

impl JsonSchema for ListenAddress {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ListenAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An IP address with a port, such as \"192.0.2.1:53\" or \"[2001:db8::1]:53\". Without a port, 53 is meant. \"0.0.0.0\" and \"[::]\" mean every address of the machine.",
            "examples": ["0.0.0.0:53", "[::]:53"],
        })
    }
}

/// A socket address whose port must be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HttpAddress(pub SocketAddr);

impl Serialize for HttpAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HttpAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: "an IP address with a port, such as \"127.0.0.1:9353\" or \"[::1]:9353\"",
            parse: |text: &str| text.parse().ok().map(Self),
        })
    }
}

impl JsonSchema for HttpAddress {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HttpAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An IP address with a port, such as \"127.0.0.1:9353\" or \"[::1]:9353\".",
            "examples": ["127.0.0.1:9353"],
        })
    }
}

/// The permission bits of a file, in octal: "0660".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As a plain number it would be ambiguous: YAML 1.1 reads 0660 as octal, YAML 1.2 does not.
        deserializer.deserialize_str(Text {
            expected: "permission bits in octal and in quotes, such as \"0660\"",
            parse: |text: &str| {
                u32::from_str_radix(text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o777)
                    .map(Self)
            },
        })
    }
}

impl JsonSchema for FileMode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FileMode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^0?[0-7]{3}$",
            "description": "Permission bits in octal, in quotes.",
            "examples": ["0660"],
        })
    }
}

/// Reads a text (or a number, as its digits) with a function, and says what was expected if that
/// finds nothing.
struct Text<F> {
    expected: &'static str,
    parse: F,
}

impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        let text = number.to_string();
        (self.parse)(&text).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

/// One value or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(de::value::StrDeserializer::new(text)).map(|one| vec![one])
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list))
            }
        }

        deserializer
            .deserialize_any(Either(std::marker::PhantomData))
            .map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// Where the names of a zone come from: `learned`, or a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Names {
    /// From answers.
    #[default]
    Learned,
    /// From a name server or a file.
    From(Box<NameSource>),
}

impl Names {
    /// Whether they come from answers.
    #[must_use]
    pub const fn is_learned(&self) -> bool {
        matches!(self, Self::Learned)
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Learned => serializer.serialize_str("learned"),
            Self::From(source) => source.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "`learned`, `{ axfr: \"192.0.2.10:53\" }` or `{ file: example.com.zone }`",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Names, E> {
                match text {
                    "learned" => Ok(Names::Learned),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Names, A::Error> {
                NameSource::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(|source| Names::From(Box::new(source)))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Names {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let source = generator.subschema_for::<NameSource>();
        json_schema!({ "anyOf": [{ "const": "learned" }, source] })
    }
}

/// A kind of incident by its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentKind(pub Kind);

impl JsonSchema for IncidentKind {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IncidentKind".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A kind of incident.",
            "enum": Kind::ALL.map(Kind::label),
        })
    }
}
