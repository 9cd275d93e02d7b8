//! What is told: an event, as it was when it happened.

use std::sync::Arc;
use std::time::Duration;

use dnscrub_detection::{Happened, Incident};
use serde::{Deserialize, Serialize};

/// Entries of the time line that go along; the whole record is at `GET /v1/incidents/NUMBER`.
const ENTRIES: usize = 20;

/// A notice. Instants are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Notice {
    /// Counts notices, over restarts as well.
    pub(super) number: u64,
    /// Unique among all notices of all programs: receivers know a repetition by it.
    pub(super) id: String,
    /// What happened.
    pub(super) event: Happened,
    /// When.
    pub(super) made: f64,
    /// The incident as it was then, without the points of its plots and with the last entries of its
    /// time line only.
    pub(super) incident: Arc<Incident>,
}

impl Notice {
    /// A notice of this event.
    #[must_use]
    pub(super) fn new(
        number: u64,
        id: String,
        event: Happened,
        made: f64,
        incident: &Incident,
    ) -> Self {
        let skipped = incident.timeline.len().saturating_sub(ENTRIES);
        let mut slim = Incident {
            points: Vec::new(),
            timeline: Vec::new(),
            ..incident.clone()
        };
        slim.timeline = incident.timeline.iter().skip(skipped).cloned().collect();
        Self {
            number,
            id,
            event,
            made,
            incident: Arc::new(slim),
        }
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It was taken.
    Delivered,
    /// It was not, but may be another time.
    Later {
        /// Why not.
        why: String,
        /// What the receiver asks to wait at least.
        after: Option<Duration>,
    },
    /// It was not and will not be.
    Never(String),
}

/// What became of a notice for one destination; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was delivered.
    Delivered,
    /// A later notice of the same incident was delivered in its place; alerts only.
    Replaced,
    /// The receiver does not want it.
    Failed,
    /// It could not be delivered for too long.
    Expired,
    /// The queue was full, or the destination is no longer there.
    Dropped,
}

impl End {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Delivered,
        Self::Replaced,
        Self::Failed,
        Self::Expired,
        Self::Dropped,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Replaced => "replaced",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
        }
    }
}

/// Shortest and longest pause after a failure, in seconds.
const PAUSES: (f64, f64) = (2.0, 300.0);
/// Longest pause that a receiver may ask for.
const LONGEST_ASKED: f64 = 3600.0;

/// Seconds to wait after so many failures in a row, from 1: twice as long each time up to a limit, and
/// between half of that and all of it by `chance` (0 to 1), so that not all come back at the same moment.
/// What the receiver asks for is the least.
#[must_use]
pub(super) fn pause(failures: u32, chance: f64, asked: Option<Duration>) -> f64 {
    let doubled = PAUSES.0 * 2_f64.powi(failures.saturating_sub(1).min(20) as i32);
    let own = doubled.min(PAUSES.1) * (0.5 + 0.5 * chance.clamp(0.0, 1.0));
    let asked = asked.map_or(0.0, |it| it.as_secs_f64().min(LONGEST_ASKED));
    own.max(asked)
}

/// An instant to wait for that cannot be farther away than any pause: a clock that was put back must
/// not hold everything up.
pub(super) fn not_far(due: f64, now: f64) -> f64 {
    if due > now + LONGEST_ASKED { now } else { due }
}

#[cfg(test)]
mod tests {
    use super::super::testing::incident;
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_heed_what_is_asked() {
        let firm: Vec<f64> = (1..=10)
            .map(|failures| pause(failures, 1.0, None))
            .collect();
        assert_eq!(
            firm,
            [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
        );
        assert_eq!(pause(3, 0.0, None), 4.0);
        assert_eq!(pause(u32::MAX, 0.5, None), 225.0);
        assert_eq!(pause(1, 0.0, Some(Duration::from_secs(90))), 90.0);
        assert_eq!(pause(9, 1.0, Some(Duration::from_secs(1))), 300.0);
        assert_eq!(pause(1, 0.0, Some(Duration::from_secs(1_000_000))), 3600.0);
        assert_eq!((not_far(50.0, 10.0), not_far(5_000.0, 10.0)), (50.0, 10.0));
    }

    #[test]
    fn a_notice_is_slim() {
        let mut whole = incident(1);
        whole.points = vec![dnscrub_detection::Point::default(); 600];
        for at in 0..200 {
            whole.tell(f64::from(at), dnscrub_detection::incident::What::Note, "x");
        }
        let notice = Notice::new(1, "a".to_owned(), Happened::Changed, 5.0, &whole);
        assert!(notice.incident.points.is_empty());
        assert_eq!(notice.incident.timeline.len(), ENTRIES);
        assert_eq!(notice.incident.timeline.last().unwrap().at, 199.0);
        assert_eq!(notice.incident.sentence, whole.sentence);
    }
}
