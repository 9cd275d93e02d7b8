//! What is going on right now, for the status page and `dnscrub top`.

use dnscrub_detection::{Overview, Point};
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
