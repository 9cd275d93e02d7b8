//! The `pools:` section of the configuration file.
//!
//! ```yaml
//! pools:
//!   default:
//!     policy: least-outstanding
//!     upstreams:
//!       - { address: "192.0.2.10:53", weight: 2 }
//!       - { address: "192.0.2.11:53", name: ns2 }
//!     health: { query: "example.com. SOA", interval: 1s, rise: 2, fall: 3 }
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use dnscrub_wire::{Name, Rcode, records};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Pools by name, in the order of their names. One must be called `default`: it takes the queries
/// that no rule routes elsewhere.
pub type Pools = BTreeMap<String, Pool>;

/// Name of the pool that must exist.
pub const DEFAULT_POOL: &str = "default";

/// A group of name servers that serve the same zones, and how queries are spread over them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pool {
    /// How an upstream is chosen for a query.
    #[serde(default)]
    pub policy: Balancing,
    /// The name servers; at least one. In a pool with `policy: ordered` the first is preferred.
    pub upstreams: Vec<Upstream>,
    /// Active health checks, or `off`. When left out, every upstream is asked for the SOA record of
    /// the root every second, and whatever it answers shows that it lives.
    #[serde(default)]
    pub health: HealthSetting,
    /// Upstreams that stay in use whatever their health checks say: when fewer than this pass, the
    /// ones that failed least are used as well. With 0 a pool may be left without any upstream, and
    /// `when-none` applies.
    #[serde(default = "one")]
    pub minimum_active: u16,
    /// Time over which the share of an upstream that came back grows from a twentieth to the whole
    /// of its weight; `0s` gives it all at once.
    #[serde(default = "ten_seconds", with = "duration")]
    #[schemars(with = "DurationText")]
    pub slow_start: Duration,
    /// Time after which a query without an answer is sent to another upstream (to the same one in a
    /// pool of one). The first upstream's answer is still taken if it comes first.
    #[serde(default = "three_hundred_milliseconds", with = "duration")]
    #[schemars(with = "DurationText")]
    pub retry_after: Duration,
    /// How often a query may be sent again, 0 to 3.
    #[serde(default = "two")]
    pub retries: u8,
    /// Time after which a query without an answer is given up and answered as `when-none` says.
    #[serde(default = "two_seconds", with = "duration")]
    #[schemars(with = "DurationText")]
    pub patience: Duration,
    /// What a client gets when no upstream can be used or none has answered within `patience`.
    #[serde(default)]
    pub when_none: WhenNone,
    /// Where queries wait while all upstreams of the pool are at their limits.
    #[serde(default)]
    pub queue: Queue,
}

/// Where queries wait while all upstreams of a pool are at their limits: those with the fewest points
/// are sent first, and of these the oldest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Queue {
    /// Queries that can wait, in each worker. When so many do, one with more points gives way to one with
    /// fewer, and otherwise the new one is dropped. With 0 nothing waits and nothing is limited: queries
    /// are forwarded however many are unanswered.
    pub length: u32,
    /// Longest time a query waits; then it is dropped. Resolvers ask again after about 0.8 s.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub max_wait: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            length: 4096,
            max_wait: Duration::from_millis(400),
        }
    }
}

/// One name server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Upstream {
    /// IP address and port, `192.0.2.10:53` or `[2001:db8::10]:53`; the port is 53 when left out.
    pub address: Address,
    /// Share of the queries, in relation to the other upstreams of the pool; 1 to 1000.
    #[serde(default = "one_weight")]
    pub weight: u32,
    /// Name in logs, metrics and listings; the address when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Most unanswered queries. How many it really may have is learned from its latency and its losses,
    /// and never more than this. When all upstreams of the pool have as many, queries wait in the `queue`.
    #[serde(default = "two_thousand")]
    pub max_outstanding: u32,
}

/// How an upstream is chosen for a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    /// The one with the fewest unanswered queries in relation to its weight; ties by lot. A slow
    /// upstream gets less by itself.
    #[default]
    LeastOutstanding,
    /// By lot, in proportion to the weights.
    WeightedRandom,
    /// In turn, in proportion to the weights and evenly interleaved.
    RoundRobin,
    /// By the name asked for, so that the same name reaches the same upstream, whatever the case of
    /// its letters. When an upstream comes or goes, only its own share of the names moves.
    ConsistentHash,
    /// The first one listed that can be used.
    Ordered,
}

/// What a client gets when no upstream can serve its query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenNone {
    /// SERVFAIL, with an extended error (RFC 8914) where the query has EDNS.
    #[default]
    Servfail,
    /// Nothing: resolvers then try the zone's other name servers after their own time limit.
    Silence,
}

/// Active health checks of a pool: the probe and what its results mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Health {
    /// Name and type to ask for, class IN: "example.com. SOA". When left out: ". SOA".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<ProbeQuery>,
    /// Response codes that pass, such as `[NOERROR, NXDOMAIN]`. When left out, `[NOERROR]` if a
    /// `query` is given, and otherwise every code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcodes: Option<Vec<RcodeName>>,
    /// Time from one probe of an upstream to the next.
    #[serde(default = "one_second", with = "duration")]
    #[schemars(with = "DurationText")]
    pub interval: Duration,
    /// Time an answer may take.
    #[serde(default = "one_second", with = "duration")]
    #[schemars(with = "DurationText")]
    pub timeout: Duration,
    /// Probes in a row that must pass before an upstream that is down is up again.
    #[serde(default = "two_probes")]
    pub rise: u16,
    /// Probes in a row that must fail before an upstream is down.
    #[serde(default = "three_probes")]
    pub fall: u16,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            query: None,
            rcodes: None,
            interval: one_second(),
            timeout: one_second(),
            rise: two_probes(),
            fall: three_probes(),
        }
    }
}

/// `off`, or the settings of the health checks.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthSetting {
    /// No probes; upstreams always count as up.
    Off,
    /// Probes with these settings.
    On(Box<Health>),
}

impl Default for HealthSetting {
    fn default() -> Self {
        Self::On(Box::default())
    }
}

impl Serialize for HealthSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(health) => health.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for HealthSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = HealthSetting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off` or the settings of the health checks")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HealthSetting, E> {
                match text {
                    "off" => Ok(HealthSetting::Off),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            // YAML 1.1 reads a bare `off` as a boolean.
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<HealthSetting, E> {
                match value {
                    false => Ok(HealthSetting::Off),
                    true => Err(E::invalid_value(de::Unexpected::Bool(value), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<HealthSetting, A::Error> {
                Health::deserialize(MapAccessDeserializer::new(map))
                    .map(|health| HealthSetting::On(Box::new(health)))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for HealthSetting {
    fn schema_name() -> Cow<'static, str> {
        "HealthSetting".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Health>();
        json_schema!({
            "description": "`off`, or the settings of the health checks.",
            "anyOf": [{ "const": "off" }, settings],
        })
    }
}

/// Address and port of a name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self(address));
        }
        text.parse::<IpAddr>()
            .map(|address| Self(SocketAddr::new(address, 53)))
            .map_err(|_| {
                format!("`{text}` is not an IP address with a port, such as \"192.0.2.10:53\" or \"[2001:db8::10]:53\"")
            })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Name and type of a health probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeQuery {
    /// The name to ask for.
    pub name: Name,
    /// The type to ask for.
    pub qtype: u16,
}

impl FromStr for ProbeQuery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (Some(name), Some(kind), None) = (words.next(), words.next(), words.next()) else {
            return Err(format!(
                "`{text}` is not a name and a type, such as \"example.com. SOA\""
            ));
        };
        let name = Name::from_text(name)
            .map_err(|error| format!("`{name}` is not a domain name: {error}"))?;
        let qtype = records::type_from_text(kind).ok_or_else(|| {
            format!(
                "`{kind}` is not a known type; any type may be written as a number, such as TYPE65"
            )
        })?;
        Ok(Self { name, qtype })
    }
}

impl fmt::Display for ProbeQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if self.name.label_count() > 0 {
            f.write_str(".")?;
        }
        write!(f, " {}", records::type_to_text(self.qtype))
    }
}

/// A response code, by its name or as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RcodeName(pub Rcode);

impl FromStr for RcodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Rcode::from_text(text).map(Self).ok_or_else(|| {
            format!("`{text}` is not a response code, such as NOERROR, NXDOMAIN or REFUSED")
        })
    }
}

impl fmt::Display for RcodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Serde and the schema for types that are written as one text.
macro_rules! textual {
    ($type:ty, $name:literal, $description:literal, [$($example:literal),*]) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description, "examples": [$($example),*] })
            }
        }
    };
}

textual!(
    Address,
    "UpstreamAddress",
    "IP address and port; the port is 53 when left out.",
    ["192.0.2.10:53", "[2001:db8::10]:53"]
);
textual!(
    ProbeQuery,
    "ProbeQuery",
    "A name and a type, with a space between them.",
    ["example.com. SOA"]
);
textual!(
    RcodeName,
    "Rcode",
    "A response code, by name or as a number.",
    ["NOERROR", "NXDOMAIN"]
);

/// Schema of a duration.
struct DurationText;

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A time with its unit.",
            "examples": ["300ms", "2s", "10m", "1h 30m"],
        })
    }
}

mod duration {
    use std::borrow::Cow;
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is not a time with a unit, such as \"300ms\" or \"10s\""
            ))
        })
    }
}

const fn one() -> u16 {
    1
}

const fn one_weight() -> u32 {
    1
}

const fn two() -> u8 {
    2
}

const fn two_thousand() -> u32 {
    2000
}

const fn two_probes() -> u16 {
    2
}

const fn three_probes() -> u16 {
    3
}

const fn one_second() -> Duration {
    Duration::from_secs(1)
}

const fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

const fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

const fn three_hundred_milliseconds() -> Duration {
    Duration::from_millis(300)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"{
        "policy": "consistent-hash",
        "upstreams": [{"address": "192.0.2.10:5353", "weight": 2}, {"address": "2001:db8::1", "name": "b"}],
        "health": {"query": "example.com. SOA", "interval": "500ms"}
    }"#;

    #[test]
    fn defaults_and_what_is_written_are_read() {
        let pool: Pool = serde_json::from_str(EXAMPLE).unwrap();
        assert_eq!(pool.policy, Balancing::ConsistentHash);
        assert_eq!(pool.upstreams[0].address.to_string(), "192.0.2.10:5353");
        assert_eq!(pool.upstreams[1].address.to_string(), "[2001:db8::1]:53");
        assert_eq!(pool.upstreams[1].weight, 1);
        assert_eq!(pool.retry_after, Duration::from_millis(300));
        let HealthSetting::On(health) = &pool.health else {
            panic!("on")
        };
        assert_eq!(health.interval, Duration::from_millis(500));
        assert_eq!(
            health.query.as_ref().unwrap().to_string(),
            "example.com. SOA"
        );
    }

    #[test]
    fn a_written_pool_reads_back_the_same() {
        let pool: Pool = serde_json::from_str(EXAMPLE).unwrap();
        let text = serde_json::to_string(&pool).unwrap();
        assert_eq!(serde_json::from_str::<Pool>(&text).unwrap(), pool);
    }

    #[test]
    fn health_can_be_switched_off() {
        for off in ["\"off\"", "false"] {
            assert_eq!(
                serde_json::from_str::<HealthSetting>(off).unwrap(),
                HealthSetting::Off
            );
        }
        assert!(serde_json::from_str::<HealthSetting>("\"on\"").is_err());
        let error = serde_json::from_str::<HealthSetting>(r#"{"intervall": "1s"}"#).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `intervall`"),
            "{error}"
        );
    }

    #[test]
    fn bad_texts_say_what_was_expected() {
        for (text, part) in [
            (
                r#"{"upstreams": [{"address": "ns1.example.com:53"}]}"#,
                "is not an IP address",
            ),
            (
                r#"{"upstreams": [], "patience": "2"}"#,
                "is not a time with a unit",
            ),
            (
                r#"{"upstreams": [], "health": {"query": "example.com"}}"#,
                "is not a name and a type",
            ),
            (
                r#"{"upstreams": [], "health": {"query": "example.com. BOGUS"}}"#,
                "is not a known type",
            ),
            (
                r#"{"upstreams": [], "health": {"rcodes": ["FINE"]}}"#,
                "is not a response code",
            ),
        ] {
            let error = serde_json::from_str::<Pool>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn types_may_be_numbers() {
        let query: ProbeQuery = ". type65280".parse().unwrap();
        assert_eq!(query.qtype, 65280);
        assert_eq!(query.to_string(), ". TYPE65280");
    }

    #[test]
    fn the_schema_names_every_field() {
        let schema = schemars::schema_for!(Pools);
        let text = serde_json::to_string(&schema).unwrap();
        for field in [
            "policy",
            "upstreams",
            "health",
            "minimum-active",
            "slow-start",
            "retry-after",
            "patience",
            "when-none",
        ] {
            assert!(text.contains(&format!("\"{field}\"")), "{field}");
        }
    }
}
