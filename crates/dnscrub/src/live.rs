//! What is going on right now, for the status page and `dnscrub top`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// What became of the queries of sources known from before, since the start.
#[derive(Debug, Default)]
pub struct KnownQueries {
    served: AtomicU64,
    challenged: AtomicU64,
    lost: AtomicU64,
}

impl KnownQueries {
    /// Adds what happened in a second.
    pub fn add(&self, point: &Point) {
        let challenged = (point.known - point.known_served - point.known_lost).max(0.0);
        // a cast saturates
        let count = |rate: f32| (rate * point.seconds).round() as u64;
        self.served.fetch_add(count(point.known_served), Relaxed);
        self.challenged.fetch_add(count(challenged), Relaxed);
        self.lost.fetch_add(count(point.known_lost), Relaxed);
    }

    /// How many, by what became of them.
    pub fn all(&self) -> [(&'static str, u64); 3] {
        [
            ("served", self.served.load(Relaxed)),
            ("challenged", self.challenged.load(Relaxed)),
            ("lost", self.lost.load(Relaxed)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_served_nor_lost_was_challenged() {
        let queries = KnownQueries::default();
        let point = Point {
            seconds: 2.0,
            known: 100.0,
            known_served: 90.0,
            known_lost: 4.0,
            ..Point::default()
        };
        queries.add(&point);
        queries.add(&point);
        let all = [("served", 360), ("challenged", 24), ("lost", 16)];
        assert_eq!(queries.all(), all);
    }
}
