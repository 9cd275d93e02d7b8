//! What the last seconds look like: for the status page and `dnscrub top`.

use serde::{Deserialize, Serialize};

use crate::incident::{NamePart, QtypePart, SourcePart};

/// The last ten seconds or so, of all workers together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overview {
    /// When they ended, in seconds since 1970.
    pub at: f64,
    /// How many seconds.
    pub seconds: f32,
    /// Busiest zones, most first.
    pub zones: Vec<ZoneOverview>,
    /// Names most asked for, most first.
    pub names: Vec<NamePart>,
    /// Busiest sources, most first.
    pub sources: Vec<SourcePart>,
    /// Query types, most first.
    pub qtypes: Vec<QtypePart>,
}

/// A zone in the last seconds. Rates are events a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ZoneOverview {
    /// Its name; `.` for names outside all zones that are told apart.
    pub zone: String,
    /// Queries.
    pub queries: f32,
    /// The same in calm times.
    pub usual: f32,
    /// Shed: dropped, or answered by the proxy.
    pub shed: f32,
    /// Answered NXDOMAIN, of all answers.
    pub nxdomain_share: f32,
    /// Distinct sources, about.
    pub sources: f32,
    /// Queries for names never seen before.
    pub new_names: f32,
}
