//! `routes` as it is written: what may be announced to the routers in front.

use std::path::PathBuf;

use dnscrub_detection::Kind;
use dnscrub_packet_filter::config::Prefix;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{FileMode, IncidentKind, Period, Size};

/// Help from further upstream: FlowSpec rules and blackholes for an incident, and the anycast route of
/// this node, announced through ExaBGP. Off unless `mode` says otherwise, and never more than `limits` allows.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Routes {
    /// How far it goes.
    pub mode: RouteMode,
    /// The Unix socket that `dnscrub routes exabgp`, started by ExaBGP, connects to. It only tells what
    /// is to be announced; who may use it cannot change anything here.
    pub socket: PathBuf,
    /// The socket's permissions.
    pub socket_mode: FileMode,
    /// Our addresses that are under attack in an incident: what FlowSpec rules protect. Default: the
    /// addresses in `listen`, but for `0.0.0.0` and `[::]`.
    pub services: Vec<Prefix>,
    /// Next hops of blackholes and anycast routes, at most one of each family. Default: ExaBGP's own
    /// address in the session.
    pub next_hop: Vec<std::net::IpAddr>,
    /// What may be announced at all.
    pub limits: RouteLimits,
    /// FlowSpec rules (RFC 8955, RFC 8956).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flowspec: Option<FlowSpec>,
    /// Blackholes (RFC 7999).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blackhole: Option<Blackhole>,
    /// The anycast route of this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anycast: Option<Anycast>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            mode: RouteMode::Off,
            socket: PathBuf::from("/run/dnscrub-routes/exabgp.sock"),
            socket_mode: FileMode(0o660),
            services: Vec::new(),
            next_hop: Vec::new(),
            limits: RouteLimits::default(),
            flowspec: None,
            blackhole: None,
            anycast: None,
        }
    }
}

/// How far it goes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum RouteMode {
    /// Nothing is even thought of.
    #[default]
    Off,
    /// What would be announced is recorded and shown, and nothing is announced.
    DryRun,
    /// Each route waits for `dnscrub routes approve`. Withdrawing never waits.
    Confirm,
    /// Routes are announced by themselves.
    Announce,
}

/// What may be announced at all. What is outside is refused with a reason, recorded and counted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RouteLimits {
    /// Our own prefixes. Every route is about an address inside them: FlowSpec rules by their
    /// destination, blackholes and anycast routes by their prefix. Empty: none is allowed.
    pub destinations: Vec<Prefix>,
    /// Prefixes that no route is ever against, as a source or as a blackhole: resolvers, partners, the other
    /// end of the BGP sessions. Always among them: `blocklist.never-block` and the upstreams.
    pub never: Vec<Prefix>,
    /// The shortest prefix of a source. A shorter one would hit too many who have done nothing.
    pub shortest_source: ShortestSource,
    /// FlowSpec rules and blackholes at a time, those that wait for approval included.
    #[schemars(range(min = 1, max = 1000))]
    pub max_routes: u16,
    /// Announcements of them in an hour.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_announcements: u16,
    /// How long a route stays when nothing asks for it any more while the incident goes on. Also the time of a route announced by hand, unless it has its own.
    pub ttl: Period,
    /// How long an announced route stays after its incident: a flood that routers keep away looks like one
    /// that is over. Twice as long each time that it comes back within an hour of being withdrawn, to an hour at
    /// most. "0s": the route goes with the incident. At most "1h".
    pub linger: Period,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self {
            destinations: Vec::new(),
            never: Vec::new(),
            shortest_source: ShortestSource::default(),
            max_routes: 20,
            max_announcements: 60,
            ttl: Period::secs(600),
            linger: Period::secs(300),
        }
    }
}

/// Prefix lengths in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ShortestSource {
    /// Of IPv4 prefixes.
    #[schemars(range(min = 8, max = 32))]
    pub v4: u8,
    /// Of IPv6 prefixes.
    #[schemars(range(min = 16, max = 128))]
    pub v6: u8,
}

impl Default for ShortestSource {
    fn default() -> Self {
        Self { v4: 24, v6: 48 }
    }
}

/// FlowSpec rules: routers drop, or slow down, what comes from a source to port 53 of our addresses.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FlowSpec {
    /// For incidents of these kinds, and only where the addresses do not look forged.
    #[serde(rename = "for")]
    pub kinds: Vec<IncidentKind>,
    /// Sources with fewer queries a second are left to dnscrub.
    pub min_rate: u32,
    /// Rules against sources in one incident, busiest sources first.
    #[schemars(range(min = 1, max = 20))]
    pub max_sources: u16,
    /// Also sources that asked before the incident began. They may be resolvers with many clients.
    pub known_sources: bool,
    /// Octets a second that pass each router, for each rule. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Size>,
    /// Rules against packets that are too long for a query, whatever their source says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_packets: Option<LongPackets>,
}

impl Default for FlowSpec {
    fn default() -> Self {
        Self {
            kinds: vec![IncidentKind(Kind::DirectFlood)],
            min_rate: 1000,
            max_sources: 10,
            known_sources: false,
            rate_limit: None,
            long_packets: None,
        }
    }
}

/// Packets too long for a query: other servers' answers, or garbage, thrown at port 53.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LongPackets {
    /// For incidents of these kinds.
    #[serde(rename = "for")]
    pub kinds: Vec<IncidentKind>,
    /// Longer than so many octets, with the IP header. A query with a name of 255 octets, cookie and
    /// padding to 128 has some 350.
    #[schemars(range(min = 400, max = 65_535))]
    pub over: u16,
}

impl Default for LongPackets {
    fn default() -> Self {
        Self {
            kinds: vec![IncidentKind(Kind::MalformedFlood)],
            over: 600,
        }
    }
}

/// Blackholes: routers drop everything to one of our addresses, or from a source.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Blackhole {
    /// Addresses of ours that may be given up so that the others live, each with when. Never the last
    /// of its family in `services`.
    pub give_up: Vec<GiveUp>,
    /// Communities of these routes; NO_EXPORT is always added. Default: BLACKHOLE.
    pub communities: Vec<Community>,
    /// Blackholes of sources, where the network in front drops by source (RFC 5635). The prefixes are not ours: for
    /// sessions whose other end expects this, and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<SourceBlackhole>,
}

impl Default for Blackhole {
    fn default() -> Self {
        Self {
            give_up: Vec::new(),
            communities: vec![Community(65535, 666)],
            sources: None,
        }
    }
}

/// An address that may be given up.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GiveUp {
    /// The address.
    pub address: std::net::IpAddr,
    /// Zones served at it. An incident about one of them is about this address; the packets do not tell
    /// which one is meant.
    pub zones: Vec<String>,
    /// For incidents of these kinds.
    #[serde(rename = "for", default = "give_up_kinds")]
    pub kinds: Vec<IncidentKind>,
    /// Only when the incident's peak is over so many queries a second.
    pub over: u32,
}

fn give_up_kinds() -> Vec<IncidentKind> {
    vec![
        IncidentKind(Kind::DirectFlood),
        IncidentKind(Kind::SpoofedCarpet),
    ]
}

/// Blackholes of sources.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceBlackhole {
    /// The community that the network in front wants on such routes; NO_EXPORT is always added.
    pub community: Community,
    /// For incidents of these kinds, and only where the addresses do not look forged.
    #[serde(rename = "for", default = "source_kinds")]
    pub kinds: Vec<IncidentKind>,
    /// Sources with fewer queries a second are left alone.
    pub min_rate: u32,
}

fn source_kinds() -> Vec<IncidentKind> {
    vec![IncidentKind(Kind::DirectFlood)]
}

/// The anycast route of this node: announced while the node can serve.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Anycast {
    /// The prefixes that this node announces.
    pub prefixes: Vec<Prefix>,
    /// Pools of which each must have a usable upstream. Default: one usable upstream in any pool is enough.
    pub pools: Vec<String>,
    /// How long there is none before the node counts as failed.
    pub failed_after: Period,
    /// How long the node must be well before the route comes back. Doubled for each withdrawal in the
    /// last hour, to half an hour at most.
    pub hold_down: Period,
    /// What becomes of the route of a failed node.
    pub when_failed: WhenFailed,
    /// Withdrawals in an hour. A check that fails more often than that is more likely wrong than the node: the
    /// route stays then, and this is told.
    #[schemars(range(min = 1, max = 60))]
    pub max_withdrawals: u16,
    /// While this file exists the node counts as failed: for maintenance, and for checks of your own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_file: Option<PathBuf>,
    /// How long queries are still served after the route is withdrawn at a stop, so that routers can
    /// turn elsewhere. At most "10s".
    pub drain: Period,
}

impl Default for Anycast {
    fn default() -> Self {
        Self {
            prefixes: Vec::new(),
            pools: Vec::new(),
            failed_after: Period::secs(5),
            hold_down: Period::secs(30),
            when_failed: WhenFailed::Withdraw,
            max_withdrawals: 4,
            drain_file: None,
            drain: Period::secs(3),
        }
    }
}

/// What becomes of the route of a failed node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFailed {
    /// It is withdrawn: for prefixes that other nodes announce as well.
    #[default]
    Withdraw,
    /// It stays, with the community GRACEFUL_SHUTDOWN (RFC 8326), so that routers prefer any other node. When
    /// all nodes fail at once, the prefix is still there.
    PreferOthers,
}

/// A BGP community (RFC 1997): two numbers of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Community(pub u16, pub u16);

impl std::fmt::Display for Community {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

impl Serialize for Community {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Community {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let numbers = text.split_once(':');
        let parsed =
            numbers.and_then(|(high, low)| Some(Self(high.parse().ok()?, low.parse().ok()?)));
        parsed.ok_or_else(|| {
            serde::de::Error::invalid_value(
                serde::de::Unexpected::Str(&text),
                &"a community: two numbers up to 65535, such as \"65535:666\"",
            )
        })
    }
}

impl JsonSchema for Community {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Community".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A BGP community (RFC 1997) in quotes: two numbers up to 65535, such as \"65535:666\".",
            "examples": ["65535:666"],
        })
    }
}
