//! A rule as it is written.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::defence::Level;

use super::values::{
    Millibits, OneOrMany, OpcodeName, Prefix, QueryClass, QueryType, Range, Rate, Span,
};

/// A rule: which queries it is about, and what happens to them.
///
/// Rules are gone through in the order written. The first that acts (an `action`, or a
/// `rate-limit` that is exceeded) decides; until then points of all matching rules add up, and the
/// first `pool` named is the one used. If none acts, the points of signals and rules together
/// meet the bands.
///
/// ```yaml
/// rules:
///   - name: monitoring
///     when: { source: 192.0.2.10 }
///     do: allow
///   - name: any-over-udp
///     when: { qtype: ANY, transport: udp }
///     do: { action: truncate }
///   - name: known-botnet-pattern
///     when:
///       qname: { under: example.com, first-label: { length: 12.., alphabet: alnum } }
///       source: { not-in: trusted-resolvers }
///     do: { score: 60 }
///   - name: two-zones-slowly
///     observe: true
///     when: { qname: { under: [ example.org, example.net ] }, not: { qtype: [ SOA, NS ] } }
///     do: { rate-limit: { rate: 20/s, per: { v4: 24, v6: 48 }, burst: 40, over: truncate } }
///   - name: no-txt-in-an-attack
///     from-level: attack
///     when: { qtype: TXT, source: { not-in: trusted-resolvers } }
///     do: truncate
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Its name in metrics, logs and `explain`; no other rule may have it.
    pub name: String,
    /// Count what the rule would do, and do nothing.
    #[serde(default)]
    pub observe: bool,
    /// The rule counts only while the defence level of the query's zone, or of the whole, is at least this.
    #[serde(default, skip_serializing_if = "FromLevel::is_calm")]
    pub from_level: FromLevel,
    /// What a query must be like; left out, every query matches.
    #[serde(default)]
    pub when: When,
    /// What happens to a query that matches.
    #[serde(rename = "do")]
    pub act: Do,
}

/// The least defence level at which a rule counts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum FromLevel {
    /// Always.
    #[default]
    Calm,
    /// While something is unusual, or an attack is on.
    Alert,
    /// While an attack is on.
    Attack,
}

impl FromLevel {
    const fn is_calm(&self) -> bool {
        matches!(self, Self::Calm)
    }
}

impl From<FromLevel> for Level {
    fn from(level: FromLevel) -> Self {
        match level {
            FromLevel::Calm => Self::Calm,
            FromLevel::Alert => Self::Alert,
            FromLevel::Attack => Self::Attack,
        }
    }
}

/// Conditions. All fields given must hold; where a field takes several values, one of them must.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct When {
    /// Every one of these sets of conditions holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<Self>>,
    /// At least one of these sets of conditions holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any: Option<Vec<Self>>,
    /// These conditions do not all hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<Self>>,
    /// The client's address. Over UDP it may be forged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The name asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qname: Option<Qname>,
    /// The type asked for: `ANY`, `[A, AAAA]`, `TYPE65280`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qtype: Option<OneOrMany<QueryType>>,
    /// The class asked for: `IN`, `CH`, `CLASS42`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qclass: Option<OneOrMany<QueryClass>>,
    /// The kind of message: `query`, `notify`, `update`, or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opcode: Option<OneOrMany<OpcodeName>>,
    /// Bits of the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Flags>,
    /// What the query's EDNS says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edns: Option<Edns>,
    /// `udp` or `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<OneOrMany<TransportName>>,
    /// The listener, by its name, that the query came in on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<OneOrMany<String>>,
}

/// Conditions on the client's address: a prefix or a list of prefixes, or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Source {
    /// In one of these prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<OneOrMany<Prefix>>,
    /// In one of these named lists.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub within: Option<OneOrMany<String>>,
    /// In none of these named lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_in: Option<OneOrMany<String>>,
}

/// Conditions on the client's address.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SourceMap {
    /// In one of these prefixes.
    prefix: Option<OneOrMany<Prefix>>,
    /// In one of these named lists.
    #[serde(rename = "in")]
    within: Option<OneOrMany<String>>,
    /// In none of these named lists.
    not_in: Option<OneOrMany<String>>,
}

/// Conditions on the name asked for: a name, for exactly that, or a map. Case never matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Qname {
    /// One of these names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<OneOrMany<String>>,
    /// One of these names, or below one: names, or a named list of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub under: Option<Under>,
    /// A pattern for the whole name: `*` stands for any characters of one label, `**` for any
    /// characters at all, `?` for one character of a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glob: Option<OneOrMany<String>>,
    /// A regular expression, searched for in the lower-case name without its final dot (use `^`
    /// and `$` to match it whole). Octets other than letters, digits and `-_*/` are written as
    /// `\` and three digits there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<OneOrMany<String>>,
    /// Conditions on the leftmost label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_label: Option<FirstLabel>,
    /// How many labels the name has; `www.example.com` has 3, the root 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Range<u8>>,
}

/// Conditions on the name asked for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct QnameMap {
    /// One of these names.
    exact: Option<OneOrMany<String>>,
    /// One of these names, or below one: names, or `{ list: NAME }`.
    under: Option<Under>,
    /// A pattern for the whole name: `*` stands for any characters of one label, `**` for any
    /// characters at all, `?` for one character of a label.
    glob: Option<OneOrMany<String>>,
    /// A regular expression, searched for in the lower-case name without its final dot (use `^`
    /// and `$` to match it whole). Octets other than letters, digits and `-_*/` are written as
    /// `\` and three digits there.
    regex: Option<OneOrMany<String>>,
    /// Conditions on the leftmost label.
    first_label: Option<FirstLabel>,
    /// How many labels the name has; `www.example.com` has 3, the root 0.
    labels: Option<Range<u8>>,
}

/// Where a name may stand: under names written here, or under those of named lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Under {
    /// Names.
    Names(OneOrMany<String>),
    /// Named lists of names.
    Lists {
        /// The lists' names.
        list: OneOrMany<String>,
    },
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct UnderMap {
    /// Named lists of domain names.
    list: OneOrMany<String>,
}

/// Conditions on the leftmost label. None holds for the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FirstLabel {
    /// Its octets: `12..`, 1 to 63.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<Range<u8>>,
    /// All its octets are of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alphabet: Option<Alphabet>,
    /// Shannon entropy of its octets in bits an octet, 0 to 6: `3.5..`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Range<Millibits>>,
}

/// A kind of octets, after folding to lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Alphabet {
    /// Digits.
    Digits,
    /// Letters.
    Alpha,
    /// Digits and `a` to `f`.
    Hex,
    /// Letters and digits.
    Alnum,
    /// Letters, digits and hyphens, the octets of host names.
    Ldh,
}

/// Bits of the header that must be set (`true`) or clear (`false`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Flags {
    /// AA, authoritative answer; a query has no use for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aa: Option<bool>,
    /// TC, truncated; a query has no use for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tc: Option<bool>,
    /// RD, recursion desired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rd: Option<bool>,
    /// RA, recursion available; a query has no use for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ra: Option<bool>,
    /// AD, authentic data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad: Option<bool>,
    /// CD, checking disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cd: Option<bool>,
}

/// What the query's EDNS must say (RFC 6891). Every field but `present: false` asks for EDNS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Edns {
    /// Whether the query has EDNS at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Range<u8>>,
    /// DO, DNSSEC OK.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub dnssec_ok: Option<bool>,
    /// The sender's UDP payload size in octets, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_size: Option<Range<u16>>,
    /// At least one option with one of these codes (IANA "DNS EDNS0 Option Codes").
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<OneOrMany<u16>>,
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransportName {
    /// UDP; the source may be forged.
    Udp,
    /// TCP; the source is real.
    Tcp,
}

/// What a rule does: an action alone (`drop`, `refuse`, `nxdomain`, `truncate`, `allow`), or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Do {
    /// Decides the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Act>,
    /// Points added, or taken away when negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<i16>,
    /// Acts on what exceeds a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Forwards to this pool; does not end judging.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Blocks the source for this long, and drops the query unless `action` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Span>,
}

/// What a rule does.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DoMap {
    /// Decides the query. May be written `answer` as well.
    #[serde(alias = "answer")]
    action: Option<Act>,
    /// Points added, or taken away when negative.
    score: Option<i16>,
    /// Acts on what exceeds a rate.
    rate_limit: Option<RateLimit>,
    /// Forwards to this pool; does not end judging.
    pool: Option<String>,
    /// Blocks the source (of IPv6 its /64) for this long and drops the query, unless `action` is `refuse`,
    /// `nxdomain` or `truncate`. With a `rate-limit`: when the rate is exceeded. The source may
    /// be forged unless the rule asks for `transport: tcp`.
    block: Option<Span>,
}

/// What a rule decides about a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Silence.
    Drop,
    /// REFUSED.
    Refuse,
    /// NXDOMAIN.
    Nxdomain,
    /// An empty answer with TC=1, so that a real client comes back over TCP. Queries over TCP
    /// already did, and go on to the next rule.
    Truncate,
    /// Passes, whatever the points are and whatever later rules say.
    Allow,
}

/// A limit on how often a rule's queries may come (GCRA: `burst` at once, then evenly).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RateLimit {
    /// Queries over time: `20/s`.
    pub rate: Rate,
    /// What is counted together: `whole`, or sources of one prefix; a source is a whole address
    /// by default. The source may be forged unless the rule asks for `transport: tcp`.
    #[serde(default)]
    pub per: Per,
    /// Queries that may come at once; by default what the rate lets through in a second, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// What happens to queries over the rate.
    #[serde(default = "drop_it")]
    pub over: Over,
}

const fn drop_it() -> Over {
    Over::Drop
}

/// What happens to queries over a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// Silence.
    Drop,
    /// An empty answer with TC=1; queries over TCP go on to the next rule.
    Truncate,
    /// REFUSED.
    Refuse,
}

/// What a rate limit counts together: `whole`, or a map of prefix lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// All queries the rule matches.
    Whole,
    /// Sources with the same prefix.
    Source(PerPrefix),
}

/// Prefix lengths that make a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PerPrefix {
    /// IPv4 prefix length, 0 to 32.
    pub v4: u8,
    /// IPv6 prefix length, 0 to 128.
    pub v6: u8,
}

impl Default for PerPrefix {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl Default for Per {
    fn default() -> Self {
        Self::Source(PerPrefix::default())
    }
}

impl Serialize for Per {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole => serializer.serialize_str("whole"),
            Self::Source(prefix) => prefix.serialize(serializer),
        }
    }
}

/// A type that may be written short (a scalar or a list) or in full (a map).
trait Shorthand<'de>: Sized {
    type Full: Deserialize<'de>;
    const EXPECTING: &'static str;
    fn short<D: Deserializer<'de>>(short: D) -> Result<Self, D::Error>;
    fn full(full: Self::Full) -> Self;
}

struct ShorthandVisitor<T>(PhantomData<T>);

impl<'de, T: Shorthand<'de>> Visitor<'de> for ShorthandVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTING)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::short(text.into_deserializer())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::short(de::value::SeqAccessDeserializer::new(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::Full::deserialize(de::value::MapAccessDeserializer::new(map)).map(T::full)
    }
}

/// Deserialize and schema of a [`Shorthand`].
macro_rules! shorthand {
    ($type:ty, $name:literal, $full:ty, $expecting:literal, $short:ty, |$from_short:ident| $make:expr, |$from_full:ident| $take:expr) => {
        impl<'de> Shorthand<'de> for $type {
            type Full = $full;
            const EXPECTING: &'static str = $expecting;

            fn short<D: Deserializer<'de>>(short: D) -> Result<Self, D::Error> {
                let $from_short = <$short>::deserialize(short)?;
                Ok($make)
            }

            fn full($from_full: $full) -> Self {
                $take
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ShorthandVisitor(PhantomData))
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let short = generator.subschema_for::<$short>();
                let full = generator.subschema_for::<$full>();
                json_schema!({ "anyOf": [short, full], "description": $expecting })
            }
        }
    };
}

shorthand!(
    Source,
    "Source",
    SourceMap,
    "a prefix, a list of prefixes, or a map with prefix, in, not-in",
    OneOrMany<Prefix>,
    |prefixes| Self {
        prefix: Some(prefixes),
        ..Self::default()
    },
    |map| Self {
        prefix: map.prefix,
        within: map.within,
        not_in: map.not_in
    }
);
shorthand!(
    Qname,
    "Qname",
    QnameMap,
    "a name, a list of names, or a map with exact, under, glob, regex, first-label, labels",
    OneOrMany<String>,
    |names| Self {
        exact: Some(names),
        ..Self::default()
    },
    |map| Self {
        exact: map.exact,
        under: map.under,
        glob: map.glob,
        regex: map.regex,
        first_label: map.first_label,
        labels: map.labels,
    }
);
shorthand!(
    Under,
    "Under",
    UnderMap,
    "a name, a list of names, or { list: NAME }",
    OneOrMany<String>,
    |names| Self::Names(names),
    |map| Self::Lists { list: map.list }
);
shorthand!(
    Do,
    "Do",
    DoMap,
    "one of drop, refuse, nxdomain, truncate, allow, or a map with action, score, rate-limit, pool, block",
    Act,
    |action| Self {
        action: Some(action),
        ..Self::default()
    },
    |map| Self {
        action: map.action,
        score: map.score,
        rate_limit: map.rate_limit,
        pool: map.pool,
        block: map.block
    }
);
shorthand!(
    Per,
    "Per",
    PerPrefix,
    "\"whole\", or prefix lengths such as { v4: 24, v6: 48 }",
    Whole,
    |whole| match whole {
        Whole::Whole => Self::Whole,
    },
    |prefix| Self::Source(prefix)
);

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Whole {
    Whole,
}
