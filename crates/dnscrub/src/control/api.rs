//! What is said over the control API: JSON bodies, shared by the server and the client.
//!
//! Instants are seconds since 1970, but in blocklist entries, where they are written as RFC 3339.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use dnscrub_detection::{Incident, Kind};
use dnscrub_forwarding::{PoolSnapshot, UpstreamSnapshot};
use dnscrub_packet_filter::Entry;
use dnscrub_scoring::Transport;
use dnscrub_wire::{Name, QueryBuilder};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::defence::LevelStatus;
use crate::explain::ExplainRequest;
use crate::kernel::KernelStatus;
use crate::orders::{ByHand, Raised};
pub use crate::routes::{RouteRequest, RoutesPage};
use crate::zone_loader::ZoneStatus;

/// The response header that names the running program's version.
pub const VERSION_HEADER: &str = "dnscrub-version";

/// The smallest EDNS buffer that is asked for when none is named.
const USUAL_BUFFER: u16 = 1232;

/// Why a request failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong, in a sentence without a full stop.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What is wrong with the configuration, when a reload failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<Value>,
}

impl Failure {
    /// A failure without a hint.
    #[must_use]
    pub fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            ..Self::default()
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// `POST /v1/routes/approve` and `POST /v1/routes/withdraw`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteChange {
    /// The route: its number, or `anycast`.
    pub id: Option<String>,
    /// Every route but the node's own; for withdrawing only.
    pub all: bool,
}

/// What was done about routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReply {
    /// In a sentence each.
    pub done: Vec<String>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The running version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// When it started.
    #[serde(with = "crate::unix_time")]
    pub started: SystemTime,
    /// Seconds since then.
    pub uptime_seconds: f64,
    /// Worker threads.
    pub workers: usize,
    /// The configuration in force.
    pub configuration: ConfigurationStatus,
    /// Where queries are taken.
    pub listeners: Vec<ListenerStatus>,
    /// What became of queries over UDP.
    pub udp: QueryCounts,
    /// What became of queries over TCP.
    pub tcp: QueryCounts,
    /// The upstreams.
    pub upstreams: UpstreamCounts,
    /// The pools: how close they are to their limits, and how much waits.
    #[serde(default)]
    pub pools: Vec<PoolSnapshot>,
    /// How much the receive queues overflow, 0 to 1, in the worker where they do most.
    #[serde(default)]
    pub proxy_pressure: f64,
    /// The defence level of the whole.
    #[serde(default)]
    pub level: Option<LevelStatus>,
    /// Levels that operators have set.
    #[serde(default)]
    pub levels_by_hand: Vec<ByHand>,
    /// Incidents that are going on, the newest first.
    #[serde(default)]
    pub incidents: Vec<IncidentRow>,
    /// Zones and other names with an alarm.
    #[serde(default)]
    pub alarmed_zones: usize,
    /// How many rules there are.
    pub rules: usize,
    /// The blocklist.
    pub blocklist: BlocklistStatus,
    /// The program in the kernel; nothing where it is not configured.
    #[serde(default)]
    pub kernel: Option<KernelStatus>,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// Its file.
    pub file: String,
    /// Counts those that were in force, from 1.
    pub generation: u64,
    /// When it was loaded.
    #[serde(with = "crate::unix_time")]
    pub loaded: SystemTime,
    /// Why the last reload failed, if it did.
    pub reload_failure: Option<String>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// `udp` and `tcp`.
    pub transports: Vec<String>,
}

/// What became of queries, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryCounts {
    /// Came in.
    pub received: u64,
    /// Answered by an upstream.
    pub forwarded: u64,
    /// Answered by dnscrub itself.
    pub answered: u64,
    /// Not answered on purpose.
    pub dropped: u64,
    /// Not answered by any upstream.
    pub expired: u64,
    /// Waiting for an upstream's answer now.
    pub in_flight: u64,
    /// Waiting for room at an upstream now.
    #[serde(default)]
    pub queued: u64,
}

/// How many upstreams there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamCounts {
    /// In all.
    pub total: usize,
    /// That are not down.
    pub usable: usize,
}

/// `GET /v1/blocklist/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocklistStatus {
    /// Entries of all list files.
    pub static_entries: usize,
    /// How many there may be.
    pub static_limit: usize,
    /// Entries of rules, incidents and operators.
    pub dynamic_entries: usize,
    /// How many there may be.
    pub dynamic_limit: usize,
    /// Entries that expired, since the start.
    pub expired: u64,
    /// Entries that made room for an operator's, since the start.
    pub evicted: u64,
    /// Rules' blocks that were not taken, since the start.
    pub refused: u64,
    /// Where dynamic entries are saved.
    pub state_file: String,
    /// Why they could not be saved, if so: a restart would lose changes.
    pub unsaved: Option<String>,
    /// The list files.
    pub files: Vec<ListFileStatus>,
}

/// A list file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFileStatus {
    /// Its path.
    pub name: String,
    /// Entries of the version in force.
    pub entries: usize,
    /// Lines that repeat an earlier line's prefix.
    pub duplicates: usize,
    /// When the version in force was loaded.
    #[serde(with = "crate::unix_time")]
    pub loaded: SystemTime,
    /// Why its newest version is not in force, if so.
    pub failure: Option<String>,
}

/// The query of `GET /v1/blocklist` and `GET /v1/blocklist/export`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListQuery {
    /// Only of this origin: `list`, `rule`, `incident`, `api`, `cli`, or `rule:NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Only this prefix and those inside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Only with this text in the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many to leave out at the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    /// How many to show at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// `GET /v1/blocklist`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPage {
    /// Entries that the filter takes.
    pub total: usize,
    /// How many were left out at the beginning.
    pub offset: usize,
    /// Those shown.
    pub entries: Vec<Entry>,
}

/// `GET /v1/blocklist/entry?address=…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covering {
    /// The address or prefix that was asked for.
    pub prefix: IpNet,
    /// Whether all of it is blocked.
    pub blocked: bool,
    /// The prefix that keeps it from ever being blocked, if there is one.
    pub never_blocked: Option<IpNet>,
    /// The entries that cover it and those inside it, most specific first.
    pub entries: Vec<Entry>,
}

/// Who changes the blocklist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Caller {
    /// A program.
    #[default]
    Api,
    /// Somebody at the command line.
    Cli,
}

impl From<Caller> for dnscrub_packet_filter::Origin {
    fn from(caller: Caller) -> Self {
        match caller {
            Caller::Api => Self::Api,
            Caller::Cli => Self::Cli,
        }
    }
}

/// The body of `POST /v1/blocklist`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// A prefix or an address.
    pub prefix: String,
    /// For how long, such as `10m`; for ever if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Who asks.
    #[serde(default)]
    pub by: Caller,
}

/// What adding did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddReply {
    /// Whether there was no entry for this prefix before.
    pub added: bool,
    /// The entry as it is now.
    pub entry: Option<Entry>,
    /// The entry that had to make room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted: Option<Entry>,
}

/// The query of `DELETE /v1/blocklist` and `GET /v1/blocklist/entry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixQuery {
    /// A prefix or an address.
    #[serde(alias = "address")]
    pub prefix: String,
}

/// The query of `POST /v1/blocklist/import`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportQuery {
    /// For how long, such as `10m`; for ever if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<String>,
    /// Why, for lines without a reason of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asks.
    pub by: Caller,
}

/// The query of `POST /v1/notify/test`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TestQuery {
    /// Only this destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// `GET /v1/upstreams`: the upstreams of all pools.
pub type Upstreams = Vec<UpstreamSnapshot>;

/// `GET /v1/zones`: the configured zones.
pub type Zones = Vec<ZoneStatus>;

/// `GET /v1/rules`: the rules in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Its name.
    pub name: String,
    /// Whether it is in observe mode.
    pub observe: bool,
    /// The level from which on it counts: `calm` for always.
    #[serde(default)]
    pub from_level: String,
    /// Queries that matched.
    pub matched: u64,
    /// Queries it decided, by action.
    pub acted: BTreeMap<String, u64>,
    /// Queries it would have decided but for observe mode.
    pub held_back: u64,
    /// Queries it sent to its pool.
    pub routed: u64,
}

/// The query of `GET /v1/live`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveQuery {
    /// Only points that began after this, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<f64>,
}

/// The query of `GET /v1/incidents`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IncidentsQuery {
    /// Only those that are going on.
    pub open: bool,
    /// Only those that were going on at this time or later, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<f64>,
    /// How many to show at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// `GET /v1/incidents`: a list of these, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentRow {
    /// Its number.
    pub number: u64,
    /// What it is taken for.
    pub kind: Kind,
    /// How sure that is, 0 to 1.
    pub confidence: f32,
    /// In a sentence or two.
    pub sentence: String,
    /// When it began, in seconds since 1970,
    pub began: f64,
    /// when it was noticed,
    pub opened: f64,
    /// and when it was over.
    pub closed: Option<f64>,
    /// The zones concerned, the most concerned first.
    pub zones: Vec<String>,
    /// Further zones.
    pub more_zones: usize,
    /// Highest rate of queries a second.
    pub peak: f32,
    /// Queries of known sources.
    #[serde(default)]
    pub asked: f64,
    /// Of these, lost.
    pub lost: f64,
    /// How much was done because of it and is in force.
    pub in_force: usize,
}

impl IncidentRow {
    /// Of this incident.
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        let in_force = incident.actions.iter();
        Self {
            number: incident.number,
            kind: incident.kind,
            confidence: incident.confidence,
            sentence: incident.sentence.clone(),
            began: incident.began,
            opened: incident.opened,
            closed: incident.closed,
            zones: incident.zones.iter().map(|it| it.zone.clone()).collect(),
            more_zones: incident.more_zones,
            peak: incident.peak.queries,
            asked: incident.impact.asked,
            lost: incident.impact.lost,
            in_force: in_force
                .filter(|action| action.lasting && action.undone.is_none())
                .count(),
        }
    }
}

/// The body of `POST /v1/incidents/{number}/note`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoteRequest {
    /// The remark.
    pub text: String,
}

/// The body of `POST /v1/incidents/{number}/close`; it may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloseRequest {
    /// A remark on why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// `GET /v1/level`: the levels that the signals did not come to by themselves. `POST` sets one
/// ([`crate::response::LevelRequest`]), `DELETE` lets one go ([`ZoneQuery`]).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LevelOrders {
    /// Set by operators.
    pub by_hand: Vec<ByHand>,
    /// Raised by incidents.
    pub by_incident: Vec<Raised>,
}

/// The query of `DELETE /v1/level`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ZoneQuery {
    /// The zone; the whole if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// `GET /v1/levels`: the whole, then the zones.
pub type LevelsPage = Vec<LevelStatus>;

/// `GET /v1/signals`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalsPage {
    /// Everything is in observe mode (`scrubbing.mode`).
    pub observe: bool,
    /// The signals in their order.
    pub signals: Vec<SignalStatus>,
    /// The bands from mild to severe.
    pub bands: Vec<BandStatus>,
}

/// A signal, what it said since the start, and its alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalStatus {
    /// Its name.
    pub name: String,
    /// Whether it is in observe mode, by itself or because everything is.
    pub observe: bool,
    /// Queries it gave points to, or took some from.
    pub queries: u64,
    /// These points in all, without their sign.
    pub points: u64,
    /// Queries that would have been treated otherwise, were this signal not in observe mode.
    pub held_back: u64,
    /// The level of its alarm; nothing for a signal without one.
    pub level: Option<String>,
    /// The alarm's events a second now.
    pub rate: Option<f32>,
    /// The same in calm times.
    pub usual: Option<f32>,
}

/// A band, and what it decided since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandStatus {
    /// Its action and threshold, such as `drop-90`.
    pub name: String,
    /// The points that reach it without pressure.
    pub at: i32,
    /// The same under full pressure.
    pub under_pressure: i32,
    /// Whether it is in observe mode, by itself or because everything is.
    pub observe: bool,
    /// Queries it decided.
    pub acted: u64,
    /// Queries it would have decided but for observe mode.
    pub held_back: u64,
}

/// The body of `POST /v1/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// Who asks.
    pub source: IpAddr,
    /// For which name.
    pub qname: String,
    /// For which type, by name or as `TYPE65280`.
    #[serde(default = "address_record")]
    pub qtype: String,
    /// Over TCP instead of UDP.
    #[serde(default)]
    pub tcp: bool,
    /// With EDNS. `dnssec_ok` and `buffer_size` imply it.
    #[serde(default)]
    pub edns: bool,
    /// With the DO flag.
    #[serde(default)]
    pub dnssec_ok: bool,
    /// With this EDNS buffer size.
    #[serde(default)]
    pub buffer_size: Option<u16>,
    /// Through this listener; the first one if missing.
    #[serde(default)]
    pub listener: Option<String>,
}

fn address_record() -> String {
    "A".to_owned()
}

impl ExplainQuery {
    /// The query as a packet, through one of the listeners of these names.
    ///
    /// # Errors
    /// A name, type or listener that there is not.
    pub fn request(&self, listeners: &[&str]) -> Result<ExplainRequest, Failure> {
        let qname = Name::from_text(&self.qname).map_err(|failure| {
            Failure::new(format!(
                "found \"{}\", expected a domain name: {failure}",
                self.qname.escape_debug()
            ))
        })?;
        let qtype = dnscrub_wire::records::type_from_text(&self.qtype).ok_or_else(|| {
            Failure::new(format!(
                "found \"{}\", expected a query type",
                self.qtype.escape_debug()
            ))
            .with_hint("write its name (A, AAAA, MX, …) or TYPE and its number")
        })?;
        let listener = match &self.listener {
            None => 0,
            Some(name) => listeners
                .iter()
                .position(|each| each == name)
                .ok_or_else(|| {
                    Failure::new(format!(
                        "there is no listener named \"{}\"",
                        name.escape_debug()
                    ))
                    .with_hint(format!("there are: {}", listeners.join(", ")))
                })?,
        };
        let mut query = QueryBuilder::new(&qname, qtype);
        if self.edns || self.dnssec_ok || self.buffer_size.is_some() {
            query = query
                .udp_size(self.buffer_size.unwrap_or(USUAL_BUFFER))
                .dnssec_ok(self.dnssec_ok);
        }
        Ok(ExplainRequest {
            source: self.source,
            packet: query.build(),
            transport: if self.tcp {
                Transport::Tcp
            } else {
                Transport::Udp
            },
            listener: u16::try_from(listener).unwrap_or(u16::MAX),
        })
    }
}

/// A prefix, or an address as the prefix of its full length.
///
/// # Errors
/// What was found and what was expected.
pub fn parse_prefix(text: &str) -> Result<IpNet, Failure> {
    dnscrub_packet_filter::Prefix::parse(text.trim().as_bytes())
        .map(dnscrub_packet_filter::Prefix::net)
        .map_err(|failure| {
            Failure::new(format!(
                "found \"{}\", expected {}",
                failure.found, failure.expected
            ))
        })
}

/// A time such as `10m` or `1h 30m`; for ever where there is none.
///
/// # Errors
/// What was found and what was expected.
pub fn parse_lifetime(text: Option<&str>) -> Result<Option<std::time::Duration>, Failure> {
    let Some(text) = text else { return Ok(None) };
    match humantime::parse_duration(text) {
        Ok(lifetime) if lifetime.is_zero() => Err(Failure::new(format!(
            "found \"{text}\", expected a time that is not 0"
        ))),
        Ok(lifetime) => Ok(Some(lifetime)),
        Err(_) => Err(Failure::new(format!(
            "found \"{}\", expected a time such as 90s, 10m or 2h",
            text.escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use dnscrub_wire::Query;

    use super::*;

    fn query() -> ExplainQuery {
        serde_json::from_str(r#"{"source":"192.0.2.7","qname":"x.example.com"}"#).unwrap()
    }

    #[test]
    fn the_packet_is_what_was_asked_for() {
        let request = query().request(&["main"]).unwrap();
        let parsed = Query::parse(&request.packet).unwrap();
        assert_eq!(
            (parsed.qtype, parsed.edns.is_some(), request.transport),
            (1, false, Transport::Udp)
        );
        let request = ExplainQuery {
            tcp: true,
            dnssec_ok: true,
            qtype: "type65280".to_owned(),
            ..query()
        }
        .request(&[])
        .unwrap();
        let parsed = Query::parse(&request.packet).unwrap();
        assert_eq!((parsed.qtype, request.transport), (65280, Transport::Tcp));
        assert!(parsed.edns.is_some());
        let second = ExplainQuery {
            listener: Some("b".to_owned()),
            ..query()
        }
        .request(&["a", "b"])
        .unwrap();
        assert_eq!(second.listener, 1);
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let says = |query: ExplainQuery, text: &str| {
            let failure = query.request(&["a", "b"]).unwrap_err();
            let said = format!("{} {}", failure.error, failure.hint.unwrap_or_default());
            assert!(said.contains(text), "{said}");
        };
        says(
            ExplainQuery {
                qtype: "NONSENSE".to_owned(),
                ..query()
            },
            "expected a query type",
        );
        says(
            ExplainQuery {
                qname: "a..b".to_owned(),
                ..query()
            },
            "expected a domain name",
        );
        says(
            ExplainQuery {
                listener: Some("c".to_owned()),
                ..query()
            },
            "there are: a, b",
        );
        assert!(
            parse_prefix("192.0.2.0/33")
                .unwrap_err()
                .error
                .contains("found \"192.0.2.0/33\"")
        );
        assert!(
            parse_lifetime(Some("soon"))
                .unwrap_err()
                .error
                .contains("10m")
        );
        assert!(parse_lifetime(Some("0s")).is_err());
        assert_eq!(parse_lifetime(None), Ok(None));
    }
}
