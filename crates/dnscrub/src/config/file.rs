//! The configuration file as it is written.
//!
//! The doc comments here are the reference manual: `docs/reference/` is generated from them.

mod kernel;
mod notify;
mod response;
pub mod routes;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use crate::dnstap::config::Config as Dnstap;
pub use dnscrub_forwarding::config::Pool;
pub use dnscrub_packet_filter::config::{Acl, Blocklist, Opcodes, Sanity};
pub use dnscrub_scoring::config::{List, Rule, Scrubbing, Signals};
pub use dnscrub_scoring::response_limit::Config as ResponseLimit;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::kernel::{Kernel, KernelLimit, KernelMode};
pub use self::notify::{
    EventName, Notify, NotifyAlertmanager, NotifyCommand, NotifyOnly, NotifyWebhook,
};
pub use self::response::{
    BlockKind, BlockMode, Blocks, Incidents, LevelResponse, RaiseTo, Response,
};
pub use self::routes::Routes;

pub use super::value::{
    FileMode, HttpAddress, IncidentKind, ListenAddress, Names, OneOrMany, Period, PeriodOrOff, Size,
};

/// The configuration of dnscrub: one YAML file. Only `listen` and `pools` must be there.
///
/// Durations are written "300ms", "10s" or "5m", rates "200/s", prefixes "192.0.2.0/24" or a bare
/// address. Paths are relative to the file they stand in.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(title = "dnscrub configuration")]
pub struct File {
    /// Worker threads, each with its own sockets and tables. Default: one for each core.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub workers: Option<u16>,
    /// Where queries are taken.
    pub listen: Vec<Listen>,
    /// The name servers behind, in named pools. The pool named `default` takes the queries that no
    /// zone and no rule sends elsewhere.
    pub pools: BTreeMap<String, Pool>,
    /// Zones that are treated apart from the others.
    pub zones: Vec<Zone>,
    /// What points lead to.
    pub scrubbing: Scrubbing,
    /// What gives points.
    pub signals: Signals,
    /// How many alike answers a network gets.
    pub response_limit: ResponseLimit,
    /// DNS cookies.
    pub cookies: Cookies,
    /// Rules, in the order in which they are tried. Those of included files come after these.
    pub rules: Vec<Rule>,
    /// Named lists of prefixes or names that rules and signals refer to.
    pub lists: BTreeMap<String, List>,
    /// Which sources are served at all.
    pub acl: Acl,
    /// Which kinds of queries are served.
    pub opcodes: Opcodes,
    /// What malformed packets get, and which classes are served.
    pub sanity: Sanity,
    /// Prefixes that are blocked.
    pub blocklist: Blocklist,
    /// Further files with `rules`, `lists`, `blocklist` files and further includes.
    pub include: Vec<String>,
    /// What is done about incidents, and what the defence levels switch on.
    pub response: Response,
    /// The record of incidents.
    pub incidents: Incidents,
    /// The program in the kernel that a level can have limit queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// Datagrams.
    pub udp: Udp,
    /// Streams.
    pub tcp: Tcp,
    /// How the running program is spoken to.
    pub control: Control,
    /// Help from further upstream: FlowSpec rules, blackholes, and the anycast route of this node.
    pub routes: Routes,
    /// Prometheus metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Copies of queries and answers for other programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dnstap: Option<Dnstap>,
    /// Who is told of incidents.
    pub notify: Notify,
    /// What is kept over a restart.
    pub state: State,
    /// The program's own log, on standard error.
    pub log: Log,
}

/// What an included file may hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Included {
    /// Rules, after those of the including file and of the files included before this one.
    pub rules: Vec<Rule>,
    /// Lists. A name may stand in one file only.
    pub lists: BTreeMap<String, List>,
    /// More blocklist files; nothing else of the blocklist can be set here.
    pub blocklist: IncludedBlocklist,
    /// Further files, relative to this one.
    pub include: Vec<String>,
}

/// The part of `blocklist` that an included file may hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct IncludedBlocklist {
    /// List files, by paths relative to this file.
    pub files: Vec<PathBuf>,
}

/// One address, or several that are treated alike, on which queries are taken.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Listen {
    /// A name for rules (`listener: …`), metrics and logs. Default: the first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address, or a list of them. Replies leave from the address that was asked, also for
    /// `0.0.0.0` and `[::]`. An address the machine does not have yet is no error.
    pub address: OneOrMany<ListenAddress>,
    /// The transports.
    #[serde(default = "all_transports")]
    pub transports: Vec<ListenTransport>,
    /// The size of each worker's receive buffer in the kernel. What does not fit while a worker is
    /// busy is lost and counted. The default holds some milliseconds of a flood; more makes answers
    /// late and every packet dearer, as it has left the processor's cache when its turn comes. Sizes over `net.core.rmem_max` need the right CAP_NET_ADMIN.
    #[serde(default = "receive_buffer")]
    pub receive_buffer: Size,
}

fn all_transports() -> Vec<ListenTransport> {
    vec![ListenTransport::Udp, ListenTransport::Tcp]
}

const fn receive_buffer() -> Size {
    Size::mib(1)
}

/// A transport to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ListenTransport {
    /// Datagrams.
    Udp,
    /// Streams, with pipelining and zone transfers.
    Tcp,
}

/// A zone that is treated apart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Zone {
    /// The zone's name. Of several zones that fit a query the longest counts.
    pub name: String,
    /// The pool that its queries go to. Default: the default pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// From where it is known which names the zone has: `learned` from answers, or a name server or
    /// a file.
    #[serde(default, skip_serializing_if = "Names::is_learned")]
    pub names: Names,
}

/// Where the names of a zone come from: a name server (`axfr`) or a file (`file`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NameSource {
    /// The name server that the zone is transferred from, whole at first, then what has changed
    /// (AXFR, IXFR). It must allow transfers to this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axfr: Option<ListenAddress>,
    /// The key that transfers are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsig: Option<Tsig>,
    /// How often the name server is asked whether the zone has changed. Default: what the zone's SOA
    /// record says. A NOTIFY message that passes through has it asked at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Period>,
    /// A zone file (RFC 1035), read again when it changes. `$INCLUDE` and `$GENERATE` are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// How many names the zone may have. One with more is not loaded. Memory: about 20 octets a name.
    #[serde(default = "max_names")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_names: u32,
    /// Memory for the NSEC records of a signed zone. Where they need more, names are denied only to
    /// clients that do not ask for DNSSEC.
    #[serde(default = "proof_memory")]
    pub proof_memory: Size,
}

const fn max_names() -> u32 {
    20_000_000
}

const fn proof_memory() -> Size {
    Size::mib(32)
}

/// A key for transaction signatures (RFC 8945). The same stands in the name server's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tsig {
    /// The key's name.
    pub name: String,
    /// The algorithm.
    #[serde(default)]
    pub algorithm: TsigAlgorithm,
    /// A file whose first line is the secret in Base64, as `tsig-keygen` prints it.
    pub secret_file: PathBuf,
}

/// An algorithm for transaction signatures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TsigAlgorithm {
    /// HMAC-SHA-256.
    #[default]
    HmacSha256,
    /// HMAC-SHA-384.
    HmacSha384,
    /// HMAC-SHA-512.
    HmacSha512,
}

/// DNS cookies (RFC 7873, RFC 9018). A query with a valid server cookie comes from where it says, and
/// its answers are not rate-limited. Cookies pass through in both directions.
///
/// ```yaml
/// cookies: { secrets-file: cookie-secrets }
/// ```
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Cookies {
    /// A file with the secrets of the name servers behind, so that their cookies are known here
    /// and ours there (BIND, NSD: `cookie-secret`; Knot: `secret` of the module `cookies`). Cookies are
    /// bound to the client's address, so this needs name servers that see it, not dnscrub's. One
    /// secret a line, 32 hexadecimal digits; `#` and `;` begin a comment. The first makes cookies,
    /// all are accepted. Read at start and at a reload. Without it only cookies of this process are
    /// known, which only `slip-as: badcookie` gives out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets_file: Option<String>,
}

/// How datagrams are handled.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Udp {
    /// How long a worker at a moderate load (10,000 to 50,000 datagrams a second, both ways) waits
    /// before it looks for more, so that fewer wake-ups and system calls serve more queries: a sixth
    /// less CPU time, for about so much latency, once for the query and once for the answer. With
    /// less or more to do it does not wait. `off` never waits. At most "1ms".
    pub coalesce: PeriodOrOff,
    /// How many datagrams are taken and sent in one system call, from 1 to 64.
    #[schemars(range(min = 1, max = 64))]
    pub batch: u16,
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            coalesce: PeriodOrOff(Some(Period(std::time::Duration::from_micros(200)))),
            batch: 64,
        }
    }
}

/// Limits of TCP. What is over a limit is closed and counted; at the connection limit the connection
/// that has been idle longest makes room for a new one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Tcp {
    /// Connections from clients that are open at a time, over all workers.
    #[schemars(range(min = 1))]
    pub max_connections: u32,
    /// Of these, how many from one prefix: /24 of IPv4, /48 of IPv6.
    #[schemars(range(min = 1))]
    pub max_connections_per_prefix: u32,
    /// How long a connection may be open without a query in flight.
    pub idle_timeout: Period,
    /// How long a connection may be open at all. Zone transfers have their own limit.
    pub connection_lifetime: Period,
    /// How long a message may take to arrive, from its first octet to its last.
    pub receive_timeout: Period,
    /// How long a client may take to accept an answer.
    pub write_timeout: Period,
    /// Queries of one connection that wait for answers at a time; further ones are not read before
    /// an answer has come.
    #[schemars(range(min = 1))]
    pub max_queries_in_flight: u16,
    /// Zone transfers (AXFR and IXFR).
    pub transfers: Transfers,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            max_connections: 4000,
            max_connections_per_prefix: 200,
            idle_timeout: Period::secs(10),
            connection_lifetime: Period::secs(300),
            receive_timeout: Period::secs(5),
            write_timeout: Period::secs(5),
            max_queries_in_flight: 64,
            transfers: Transfers::default(),
        }
    }
}

/// Limits of zone transfers, which pass through whole to one upstream.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Transfers {
    /// Transfers under way at a time; 0 refuses them all.
    pub max_concurrent: u16,
    /// How long one may take as a whole.
    pub time_limit: Period,
    /// How long one may stand still, whichever side is slow.
    pub idle_limit: Period,
}

impl Default for Transfers {
    fn default() -> Self {
        Self {
            max_concurrent: 10,
            time_limit: Period::secs(600),
            idle_limit: Period::secs(30),
        }
    }
}

/// How the running program is spoken to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Control {
    /// The Unix socket that the commands (`dnscrub reload`, `dnscrub blocklist` …) speak to.
    pub socket: String,
    /// The socket's permissions. Who may write to it may do everything.
    pub socket_mode: FileMode,
    /// The same API over HTTP, and the status page. Off without this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<ControlHttp>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: "/run/dnscrub/control.sock".to_owned(),
            socket_mode: FileMode(0o660),
            http: None,
        }
    }
}

/// The control API over HTTP, and the status page.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ControlHttp {
    /// Where it listens. The connection is not encrypted: keep it on loopback or behind a proxy.
    pub address: HttpAddress,
    /// A file whose first line is the token that clients send as `Authorization: Bearer …`. On loopback it may be
    /// left out: then everybody on this machine may look, and nobody may change anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

/// Prometheus metrics.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Metrics {
    /// Where `/metrics` is served, without a token.
    pub address: HttpAddress,
}

/// What is kept over a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct State {
    /// The folder for it, such as for the blocklist's dynamic entries. It is created if need be.
    pub folder: String,
}

impl Default for State {
    fn default() -> Self {
        Self {
            folder: "/var/lib/dnscrub".to_owned(),
        }
    }
}

/// The program's own log.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// What is written.
    pub level: LogLevel,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least important entry that is still written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What needs someone's attention.
    Error,
    /// What may need it.
    Warn,
    /// What changed.
    #[default]
    Info,
    /// What may help in finding an error.
    Debug,
    /// Everything.
    Trace,
}
