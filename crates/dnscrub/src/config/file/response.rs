//! `response` and `incidents` as they are written.

use dnscrub_detection::Kind;
use dnscrub_scoring::config::Challenge;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kernel::KernelLimit;
use crate::config::value::Period;

/// What is done about incidents, and what the defence levels switch on.
///
/// ```yaml
/// response:
///   attack: { challenge: new, pressure-floor: 0.3 }
///   blocks: { mode: enforce, for: 10m }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Response {
    /// The level to which an incident that is an attack raises its zones, or the whole where it is about no zone
    /// in particular. They are let go when it is closed. Of evidence only that about names becomes certain by it,
    /// and only where the attack is one by names.
    pub raise_to: RaiseTo,
    /// How sure it must be what the incident is, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub raise_from: f32,
    /// What the level `alert` switches on.
    pub alert: LevelResponse,
    /// What the level `attack` switches on.
    pub attack: LevelResponse,
    /// Blocks of sources because of an incident.
    pub blocks: Blocks,
}

impl Default for Response {
    fn default() -> Self {
        Self {
            raise_to: RaiseTo::Attack,
            raise_from: 0.7,
            alert: LevelResponse::default(),
            attack: LevelResponse::default(),
            blocks: Blocks::default(),
        }
    }
}

/// What a level switches on beside enforcing what is certain.
///
/// ```yaml
/// response:
///   attack: { challenge: new, pressure-floor: 0.3 }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LevelResponse {
    /// Who has to prove its address: queries over UDP of such sources, if nothing else decides, get TC=1, so that
    /// a real client comes back over TCP.
    pub challenge: Challenge,
    /// Points count as if the pressure were at least this, 0 to 1, so that thresholds of bands come
    /// down before an upstream is at its limit.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub pressure_floor: f32,
    /// Queries over UDP that are over these limits are dropped in the kernel. Takes `kernel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_limit: Option<KernelLimit>,
}

impl LevelResponse {
    /// What of it is decided query by query.
    #[must_use]
    pub const fn for_scoring(&self) -> dnscrub_scoring::config::LevelResponse {
        dnscrub_scoring::config::LevelResponse {
            challenge: self.challenge,
            pressure_floor: self.pressure_floor,
        }
    }
}

/// The level that an incident raises its zones to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RaiseTo {
    /// None: only signals and operators decide on levels.
    Off,
    /// `alert`.
    Alert,
    /// `attack`.
    Attack,
}

/// Automatic blocks: the busiest sources of an incident get an entry in the blocklist, if their addresses are not
/// forged, nothing is known in their favour, and they send far more than any source does in calm times. They are
/// removed when the incident is closed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Blocks {
    /// `observe` only says in the incident's time line whom it would have blocked.
    pub mode: BlockMode,
    /// The kinds of incidents that sources are blocked for.
    pub kinds: Vec<BlockKind>,
    /// For how long. It is renewed as long as the source goes on.
    #[serde(rename = "for")]
    pub lifetime: Period,
    /// How many such entries there may be at a time, of all incidents together.
    #[schemars(range(min = 1, max = 100_000))]
    pub at_most: u32,
    /// Queries a second that no source is blocked below.
    #[schemars(range(min = 1))]
    pub least_rate: u32,
    /// Times as many queries as the busiest source sends in calm times that no source is blocked below.
    #[schemars(range(min = 1.0))]
    pub factor: f32,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            mode: BlockMode::Observe,
            kinds: vec![
                BlockKind::DirectFlood,
                BlockKind::TcpExhaustion,
                BlockKind::MalformedFlood,
            ],
            lifetime: Period::secs(600),
            at_most: 1000,
            least_rate: 100,
            factor: 4.0,
        }
    }
}

/// Whether sources are blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BlockMode {
    /// No.
    Off,
    /// No, but it is said whom it would have been.
    Observe,
    /// Yes.
    Enforce,
}

/// A kind of incident whose sources send under their own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// Few sources, far more queries than usual.
    DirectFlood,
    /// Connections or zone transfers.
    TcpExhaustion,
    /// Packets that are no well-formed queries.
    MalformedFlood,
    /// The same questions again and again. Most often a mistake, of a resolver with many users.
    QueryLoop,
}

impl From<BlockKind> for Kind {
    fn from(kind: BlockKind) -> Self {
        match kind {
            BlockKind::DirectFlood => Self::DirectFlood,
            BlockKind::TcpExhaustion => Self::TcpExhaustion,
            BlockKind::MalformedFlood => Self::MalformedFlood,
            BlockKind::QueryLoop => Self::QueryLoop,
        }
    }
}

/// The record of incidents.
///
/// ```yaml
/// incidents: { keep-for: 365d, keep-at-most: 1000 }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Incidents {
    /// How long an incident is kept that is over.
    pub keep_for: Period,
    /// How many are kept; the oldest make room. Each takes up to 100 KiB, in memory and on disk.
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_at_most: u32,
}

impl Default for Incidents {
    fn default() -> Self {
        Self {
            keep_for: Period::secs(365 * 86_400),
            keep_at_most: 1000,
        }
    }
}
