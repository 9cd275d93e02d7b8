//! What is going on right now, for the status page and `dnscrub top`.

use dnscrub_detection::{Measure, Overview, Point};
use serde::{Deserialize, Serialize};

/// `GET /v1/live`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// Busiest zones, names and sources of the last seconds.
    pub overview: Overview,
    /// The last ten minutes, second by second.
    pub points: Vec<Point>,
}

/// What a measure of the whole says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureNow {
    /// Which.
    pub measure: Measure,
    /// In the last second.
    pub now: f32,
    /// In calm times at this hour; nothing before it is learned.
    pub usual: Option<f32>,
}
