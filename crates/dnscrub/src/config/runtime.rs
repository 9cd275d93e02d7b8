//! The configuration as the program uses it: built, checked, immutable.
//!
//! What can change while the program runs ([`Reloadable`]) and what needs a restart ([`Startup`])
//! are different types, so that nothing is read from the wrong one.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use ahash::RandomState;
use dnscrub_packet_filter::{Limits, PacketFilter};
use dnscrub_scoring::{cookies::Cookies, response_limit::ResponseLimit};
use dnscrub_wire::Name;
use dnscrub_zones::Zones;
use dnscrub_zones::transfer::{BadSecret, TsigAlgorithm, TsigKey};
use ipnet::IpNet;

use crate::dnstap;
use crate::notify::settings::Settings as Notify;

use super::{
    build,
    file::{File, LogFormat, LogLevel},
    load,
    problem::Problems,
    source::Source,
};
use crate::routes::RouteSocket;

/// A whole configuration, built.
#[derive(Debug)]
pub struct Configuration {
    /// What the user wrote, with its includes.
    pub file: File,
    /// What needs a restart to change.
    pub startup: Startup,
    /// What a reload changes.
    pub reloadable: Reloadable,
    /// The blocklist's files, read and checked, in the order written; to be handed to the store.
    pub blocklists: Vec<BlocklistFile>,
    /// How much is in each named list.
    pub lists: Vec<ListSize>,
}

/// What the program sets up once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// Worker threads.
    pub workers: usize,
    /// Where queries are taken; a listener's place here is its index everywhere.
    pub listeners: Vec<Listener>,
    /// How datagrams are handled.
    pub udp: Udp,
    /// How the running program is spoken to.
    pub control: Control,
    /// Where ExaBGP's process connects to, unless nothing is ever announced.
    pub routes: Option<RouteSocket>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Where copies of queries go.
    pub dnstap: Option<dnstap::Settings>,
    /// How much the blocklist may hold.
    pub blocklist: Limits,
    /// Where state is kept.
    pub state_folder: PathBuf,
    /// The program's log.
    pub log: Log,
}

/// Addresses that are treated alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name in rules, metrics and logs.
    pub name: String,
    /// At least one.
    pub addresses: Vec<SocketAddr>,
    /// Whether it takes datagrams.
    pub udp: bool,
    /// Whether it takes streams.
    pub tcp: bool,
    /// Receive buffer of each socket, in octets.
    pub receive_buffer: usize,
}

/// How datagrams are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// How long a woken worker waits for more datagrams.
    pub coalesce: Option<Duration>,
    /// Datagrams in a system call.
    pub batch: usize,
}

/// How the running program is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Its permission bits.
    pub socket_mode: u32,
    /// The API over HTTP.
    pub http: Option<ControlHttp>,
}

/// The API over HTTP, and the status page.
#[derive(Clone, PartialEq, Eq)]
pub struct ControlHttp {
    /// Where it listens.
    pub address: SocketAddr,
    /// What clients must send. Without one, on loopback only, they may look and not change anything.
    pub token: Option<String>,
}

impl std::fmt::Debug for ControlHttp {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlHttp")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The program's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// The least important entry that is still written.
    pub level: LogLevel,
}

/// What a reload swaps, as a whole.
#[derive(Debug)]
pub struct Reloadable {
    /// Counts the configurations built by this process, from 1.
    pub generation: u64,
    /// Sources, opcodes, sanity.
    pub filter: PacketFilter,
    /// Signals, rules, bands.
    pub scoring: dnscrub_scoring::Policy,
    /// Pools and upstreams.
    pub forwarding: Arc<dnscrub_forwarding::Policy>,
    /// Which pool a zone's queries go to.
    pub routes: Routes,
    /// How many alike answers a network gets.
    pub response_limit: ResponseLimit,
    /// Secrets of server cookies.
    pub cookies: Cookies,
    /// What may be announced to the routers in front.
    pub announcing: Arc<crate::routes::settings::Settings>,
    /// What is known of the zones' names; their places are those of `zone_settings`.
    pub zones: Arc<Zones>,
    /// Where that comes from.
    pub zone_settings: Vec<ZoneSettings>,
    /// Limits of TCP.
    pub tcp: Tcp,
    /// Who is told of incidents.
    pub notify: Arc<Notify>,
    /// What is done about incidents.
    pub response: crate::response::Settings,
    /// What is limited in the kernel.
    pub kernel: crate::kernel::Settings,
    /// Prefixes that are never blocked, for the blocklist's store.
    pub never_block: Vec<IpNet>,
}

/// Where the names of a zone come from, and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSettings {
    /// Where from.
    pub source: ZoneSource,
    /// How many.
    pub limits: dnscrub_zones::Limits,
}

/// Where the names of a zone come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneSource {
    /// From answers.
    Learned,
    /// From a name server.
    Transfer(Box<TransferSource>),
    /// From this zone file.
    File(PathBuf),
}

/// A name server that a zone is transferred from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferSource {
    /// Its address.
    pub server: SocketAddr,
    /// The key that transfers are signed with.
    pub tsig: Option<Tsig>,
    /// How often it is asked; nothing for what the SOA record says.
    pub refresh: Option<Duration>,
}

/// A key for transaction signatures.
#[derive(Clone)]
pub struct Tsig {
    /// Its name.
    pub name: Name,
    /// The algorithm.
    pub algorithm: TsigAlgorithm,
    /// The secret as it is written.
    secret: String,
    /// The key itself.
    pub key: TsigKey,
}

impl Tsig {
    /// A key, its secret in Base64.
    ///
    /// # Errors
    /// The secret cannot be read.
    pub fn new(name: Name, algorithm: TsigAlgorithm, secret: &str) -> Result<Self, BadSecret> {
        let key = TsigKey::new(&name, algorithm, secret)?;
        let secret = secret.to_owned();
        Ok(Self {
            name,
            algorithm,
            secret,
            key,
        })
    }
}

impl PartialEq for Tsig {
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.algorithm, &self.secret) == (other.name, other.algorithm, &other.secret)
    }
}

impl Eq for Tsig {}

impl std::fmt::Debug for Tsig {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(f)
    }
}

/// Limits of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Connections from clients in all.
    pub max_connections: usize,
    /// Connections from one prefix (IPv4 /24, IPv6 /48).
    pub max_connections_per_prefix: usize,
    /// Without a query in flight.
    pub idle_timeout: Duration,
    /// Of a connection in all.
    pub connection_lifetime: Duration,
    /// From a message's first octet to its last.
    pub receive_timeout: Duration,
    /// For an answer to be accepted.
    pub write_timeout: Duration,
    /// Queries of one connection that wait for answers.
    pub max_queries_in_flight: usize,
    /// Zone transfers.
    pub transfers: Transfers,
}

/// Limits of zone transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfers {
    /// Under way at a time; 0 refuses them.
    pub max_concurrent: usize,
    /// For one as a whole.
    pub time_limit: Duration,
    /// Without an octet moving.
    pub idle_limit: Duration,
}

/// A file of the blocklist.
#[derive(Clone, PartialEq, Eq)]
pub struct BlocklistFile {
    /// Its origin in the blocklist: the path.
    pub path: PathBuf,
    /// What it says; every line has been checked.
    pub text: Vec<u8>,
    /// How many prefixes.
    pub entries: usize,
}

impl std::fmt::Debug for BlocklistFile {
    /// Without the text, which may be millions of lines.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlocklistFile")
            .field("path", &self.path)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// How much is in a named list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSize {
    /// The list's name.
    pub name: String,
    /// "prefixes" or "names".
    pub kind: &'static str,
    /// The file it comes from, if it does.
    pub file: Option<PathBuf>,
    /// Entries in it.
    pub entries: usize,
}

/// Which pool a query's zone sends it to: the longest zone that fits counts.
#[derive(Debug)]
pub struct Routes {
    default: usize,
    /// By the zone's name in lower-case wire format.
    zones: HashMap<Box<[u8]>, usize, RandomState>,
}

impl Routes {
    /// Routes to pools by index.
    #[must_use]
    pub fn new(default: usize, zones: impl IntoIterator<Item = (Name, usize)>) -> Self {
        let keyed = RandomState::new();
        let mut map = HashMap::with_hasher(keyed);
        for (zone, pool) in zones {
            map.insert(zone.as_wire().into(), pool);
        }
        Self {
            default,
            zones: map,
        }
    }

    /// Index of the pool for this name. Costs one look-up for each label, or none without zones.
    #[must_use]
    pub fn pool(&self, qname: &Name) -> usize {
        if self.zones.is_empty() {
            return self.default;
        }
        qname
            .suffixes()
            .find_map(|suffix| self.zones.get(suffix).copied())
            .unwrap_or(self.default)
    }
}

/// What a configuration is built beside.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The configuration that runs; its workers, listeners and what is known about its upstreams
    /// are kept.
    pub running: Option<(&'a Startup, &'a Reloadable)>,
    /// The time.
    pub now: Instant,
    /// Workers where the file does not say.
    pub cores: usize,
}

impl Surroundings<'_> {
    /// For a program that starts now on this machine.
    #[must_use]
    pub fn at_start() -> Self {
        Self {
            running: None,
            now: Instant::now(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Counts configurations; see [`Reloadable::generation`].
static GENERATION: AtomicU64 = AtomicU64::new(0);

pub(super) fn next_generation() -> u64 {
    GENERATION.fetch_add(1, Relaxed) + 1
}

/// Reads a configuration and everything it names, checks it and builds it: the whole or nothing.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(
    path: &Path,
    source: &dyn Source,
    surroundings: Surroundings<'_>,
) -> Result<Configuration, Problems> {
    build::build(load::load(path, source)?, source, surroundings)
}

/// What differs between two configurations and cannot change without a restart: the settings'
/// names as they are written in the file. Empty if nothing does.
#[must_use]
pub fn restart_needed(old: &Startup, new: &Startup) -> Vec<String> {
    let Startup {
        workers,
        listeners,
        udp,
        control,
        routes,
        metrics,
        dnstap,
        blocklist,
        state_folder,
        log,
    } = old;
    let differences = [
        ("workers", *workers != new.workers),
        ("listen", *listeners != new.listeners),
        ("udp.coalesce", udp.coalesce != new.udp.coalesce),
        ("udp.batch", udp.batch != new.udp.batch),
        ("control.socket", control.socket != new.control.socket),
        (
            "control.socket-mode",
            control.socket_mode != new.control.socket_mode,
        ),
        ("control.http", control.http != new.control.http),
        (
            "routes.socket, socket-mode, or mode from or to off",
            *routes != new.routes,
        ),
        ("metrics", *metrics != new.metrics),
        ("dnstap", *dnstap != new.dnstap),
        (
            "blocklist.max-static, max-dynamic or shortest-prefix",
            *blocklist != new.blocklist,
        ),
        ("state.folder", *state_folder != new.state_folder),
        ("log", *log != new.log),
    ];
    differences
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| name.to_owned())
        .collect()
}
