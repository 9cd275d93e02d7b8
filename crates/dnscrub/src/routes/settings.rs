//! What may be announced, and when: built from `routes` in the configuration.

use std::net::IpAddr;
use std::path::PathBuf;

use dnscrub_detection::Kind;
use dnscrub_wire::Name;
use ipnet::IpNet;

pub use crate::config::file::routes::{Community, RouteMode as Mode, WhenFailed};

/// The community that keeps a route inside the neighbouring network (RFC 1997).
pub const NO_EXPORT: Community = Community(65535, 65281);
/// The community of a node that is about to go (RFC 8326).
pub const GRACEFUL_SHUTDOWN: Community = Community(65535, 0);

/// All settings of routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// How far it goes.
    pub mode: Mode,
    /// Our addresses that incidents are about.
    pub services: Vec<IpNet>,
    /// Next hops, where they are not ExaBGP's own address.
    pub next_hops: Vec<IpAddr>,
    /// What may be announced at all.
    pub limits: Limits,
    /// FlowSpec rules.
    pub flowspec: Option<FlowSpec>,
    /// Blackholes.
    pub blackhole: Option<Blackhole>,
    /// The node's own route.
    pub anycast: Option<Anycast>,
}

/// What may be announced at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Every route is about an address in here.
    pub destinations: Vec<IpNet>,
    /// No route is against these.
    pub never: Vec<IpNet>,
    /// Shortest prefix of a source, in bits: IPv4, IPv6.
    pub shortest_source: (u8, u8),
    /// Routes at a time.
    pub max_routes: usize,
    /// Announcements in an hour.
    pub max_announcements: usize,
    /// How long a route stays unasked for, in seconds.
    pub ttl: f64,
    /// How long an announced route stays after its incident, in seconds; 0 for not at all.
    pub linger: f64,
}

/// FlowSpec rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowSpec {
    /// Against sources, in incidents of these kinds.
    pub kinds: Vec<Kind>,
    /// Queries a second from which a source is worth a rule.
    pub min_rate: u32,
    /// Rules against sources in an incident.
    pub max_sources: usize,
    /// Also against sources known from before.
    pub known_sources: bool,
    /// Octets a second that pass; nothing for none.
    pub rate_limit: Option<u64>,
    /// Against long packets: in incidents of these kinds, over so many octets.
    pub long_packets: Option<(Vec<Kind>, u16)>,
}

/// Blackholes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blackhole {
    /// Addresses of ours that may be given up.
    pub give_up: Vec<GiveUp>,
    /// Communities of such routes.
    pub communities: Vec<Community>,
    /// Blackholes of sources.
    pub sources: Option<SourceBlackhole>,
}

/// An address that may be given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GiveUp {
    /// The address.
    pub address: IpNet,
    /// Zones served there.
    pub zones: Vec<Name>,
    /// In incidents of these kinds.
    pub kinds: Vec<Kind>,
    /// Queries a second at the peak that it takes.
    pub over: u32,
}

/// Blackholes of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceBlackhole {
    /// The community of such routes.
    pub community: Community,
    /// In incidents of these kinds.
    pub kinds: Vec<Kind>,
    /// Queries a second from which a source is worth one.
    pub min_rate: u32,
}

/// The node's own route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Anycast {
    /// Its prefixes.
    pub prefixes: Vec<IpNet>,
    /// Pools that must have a usable upstream each; none for any.
    pub pools: Vec<String>,
    /// Seconds of failure until the node counts as failed.
    pub failed_after: f64,
    /// Seconds of health until the route comes back.
    pub hold_down: f64,
    /// What becomes of a failed node's route.
    pub when_failed: WhenFailed,
    /// Withdrawals in an hour.
    pub max_withdrawals: usize,
    /// While it exists the node counts as failed.
    pub drain_file: Option<PathBuf>,
    /// Seconds served after the withdrawal at a stop.
    pub drain: f64,
}
