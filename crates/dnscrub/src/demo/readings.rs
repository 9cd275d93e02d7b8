//! What the running proxy counts, read a few times a second and turned into rates.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dnscrub_forwarding::UpstreamSnapshot;
use dnscrub_scoring::Transport;

use crate::outcome::Outcome;
use crate::shared::Shared;

/// Rates are over this time.
const WINDOW: Duration = Duration::from_secs(1);

/// The proxy's counters at one moment, summed over workers and transports.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    /// Queries that came in.
    pub(super) received: u64,
    /// Queries whose answer from an upstream went back.
    pub(super) forwarded: u64,
    /// Queries that the proxy answered by itself.
    pub(super) answered: u64,
    /// Queries dropped.
    pub(super) dropped: u64,
    /// Queries given up without an answer.
    pub(super) expired: u64,
    /// Queries in flight, and those that wait for room.
    pub(super) in_flight: u64,
    /// Every answer and drop with its reason.
    pub(super) shed: Vec<(Outcome, u64)>,
    /// Every rule with the queries that it decided.
    pub(super) rules: Vec<(String, u64)>,
    /// Every upstream.
    pub(super) upstreams: Vec<UpstreamSnapshot>,
    /// Entries of the blocklist.
    pub(super) blocked: usize,
}

impl Totals {
    /// Reads all counters.
    pub(super) fn read(shared: &Shared, now: Instant) -> Self {
        let policy = shared.policy.load();
        let mut totals = Self {
            rules: policy
                .scoring
                .rules()
                .map(|rule| (rule.name.to_owned(), rule.acted.iter().sum()))
                .collect(),
            upstreams: policy.forwarding.snapshot(now),
            blocked: shared.blocklist.load().len(),
            ..Self::default()
        };
        for worker in &shared.counters {
            totals.in_flight += worker.in_flight_udp.get() + worker.in_flight_tcp.get();
            totals.in_flight += worker.queued.get();
            for transport in [Transport::Udp, Transport::Tcp] {
                let queries = worker.queries(transport);
                totals.received += queries.received();
                for (outcome, count) in queries.outcomes() {
                    totals.count(outcome, count);
                }
            }
        }
        totals
    }

    fn count(&mut self, outcome: Outcome, count: u64) {
        match outcome {
            Outcome::Forwarded => self.forwarded += count,
            Outcome::Expired => self.expired += count,
            Outcome::Answered(..) | Outcome::Dropped(_) if count == 0 => {}
            Outcome::Answered(..) | Outcome::Dropped(_) => {
                if matches!(outcome, Outcome::Dropped(_)) {
                    self.dropped += count;
                } else {
                    self.answered += count;
                }
                match self.shed.iter_mut().find(|(each, _)| *each == outcome) {
                    Some((_, sum)) => *sum += count,
                    None => self.shed.push((outcome, count)),
                }
            }
        }
    }

    /// Queries with an outcome. The books balance when this and what is in flight make up
    /// [`Self::received`].
    pub(super) const fn settled(&self) -> u64 {
        self.forwarded + self.answered + self.dropped + self.expired
    }
}

/// A count and how fast it grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Flow {
    /// The count.
    pub(super) total: u64,
    /// Its growth per second.
    pub(super) rate: f64,
}

/// Cumulated counts at one moment, for the charts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Point {
    /// Time since the start.
    pub(super) at: Duration,
    /// By [`Series`].
    pub(super) counts: [u64; Series::ALL.len()],
}

/// What is charted over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Series {
    /// Right answers that the polite client got.
    Polite,
    /// Queries that came in.
    Received,
    /// Queries whose answer from an upstream went back.
    Forwarded,
    /// Queries that the proxy answered by itself.
    Answered,
    /// Queries dropped.
    Dropped,
}

impl Series {
    /// All, in the order shown.
    pub(super) const ALL: [Self; 5] = [
        Self::Polite,
        Self::Received,
        Self::Forwarded,
        Self::Answered,
        Self::Dropped,
    ];

    /// What stands before the chart.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Polite => "polite client",
            Self::Received => "received",
            Self::Forwarded => "forwarded",
            Self::Answered => "answered",
            Self::Dropped => "dropped",
        }
    }
}

/// Everything read since the start.
#[derive(Debug, Default)]
pub(super) struct History {
    points: Vec<Point>,
    recent: VecDeque<(Duration, Totals)>,
}

impl History {
    /// Adds a reading of `at` after the start, when the polite client had got `polite` answers.
    pub(super) fn add(&mut self, at: Duration, totals: Totals, polite: u64) {
        let counts = Series::ALL.map(|series| match series {
            Series::Polite => polite,
            Series::Received => totals.received,
            Series::Forwarded => totals.forwarded,
            Series::Answered => totals.answered,
            Series::Dropped => totals.dropped,
        });
        self.points.push(Point { at, counts });
        self.recent.push_back((at, totals));
        while self
            .recent
            .get(1)
            .is_some_and(|(second, _)| *second + WINDOW <= at)
        {
            self.recent.pop_front();
        }
    }

    /// The last reading.
    pub(super) fn last(&self) -> Option<&Totals> {
        self.recent.back().map(|(_, totals)| totals)
    }

    /// A count of the last reading, and its rate over the last second.
    pub(super) fn flow(&self, count: impl Fn(&Totals) -> u64) -> Flow {
        let (Some((from, first)), Some((to, last))) = (self.recent.front(), self.recent.back())
        else {
            return Flow::default();
        };
        let total = count(last);
        let seconds = to.saturating_sub(*from).as_secs_f64();
        let grown = total.saturating_sub(count(first)) as f64;
        let rate = if seconds > 0.0 { grown / seconds } else { 0.0 };
        Flow { total, rate }
    }

    /// A series' growth over the last second.
    pub(super) fn series(&self, series: Series) -> Flow {
        let Some(last) = self.points.last() else {
            return Flow::default();
        };
        let from = last.at.saturating_sub(WINDOW);
        let seconds = (last.at - from).as_secs_f64();
        let total = count_of(last, series);
        let grown = total as f64 - self.count_at(series, from);
        let rate = if seconds > 0.0 { grown / seconds } else { 0.0 };
        Flow { total, rate }
    }

    /// A series' rates over `slices` equal parts of `whole`; none for parts yet to come.
    pub(super) fn slices(
        &self,
        series: Series,
        whole: Duration,
        slices: usize,
    ) -> Vec<Option<f64>> {
        let Some(last) = self.points.last() else {
            return vec![None; slices];
        };
        let slice = whole.as_secs_f64() / slices.max(1) as f64;
        (0..slices)
            .map(|number| {
                let from = slice * number as f64;
                let to = (from + slice).min(last.at.as_secs_f64());
                // a part that has hardly begun would be all chance
                (to - from > slice / 2.0).then(|| {
                    let at = |seconds: f64| self.count_at(series, Duration::from_secs_f64(seconds));
                    (at(to) - at(from)).max(0.0) / (to - from)
                })
            })
            .collect()
    }

    /// The count at any time since the start, in a straight line between readings.
    fn count_at(&self, series: Series, at: Duration) -> f64 {
        let after = self.points.partition_point(|point| point.at < at);
        let zero = Point::default();
        let before = after
            .checked_sub(1)
            .and_then(|index| self.points.get(index))
            .unwrap_or(&zero);
        let Some(next) = self.points.get(after) else {
            return count_of(before, series) as f64;
        };
        let whole = (next.at - before.at).as_secs_f64();
        let part = if whole > 0.0 {
            (at - before.at).as_secs_f64() / whole
        } else {
            1.0
        };
        let (from, to) = (
            count_of(before, series) as f64,
            count_of(next, series) as f64,
        );
        from + (to - from) * part
    }
}

fn count_of(point: &Point, series: Series) -> u64 {
    point
        .counts
        .get(series as usize)
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(seconds: u64, per_second: u64) -> History {
        let mut history = History::default();
        for quarter in 0..=seconds * 4 {
            let received = quarter * per_second / 4;
            let totals = Totals {
                received,
                ..Totals::default()
            };
            history.add(Duration::from_millis(quarter * 250), totals, 0);
        }
        history
    }

    #[test]
    fn rates_are_over_the_last_second() {
        let mut history = history(5, 1000);
        let flow = history.flow(|totals| totals.received);
        assert_eq!((flow.total, flow.rate), (5000, 1000.0));
        assert_eq!(history.series(Series::Received), flow);
        for quarter in 21..=24 {
            let totals = Totals {
                received: 5000,
                ..Totals::default()
            };
            history.add(Duration::from_millis(quarter * 250), totals, 0);
        }
        assert_eq!(history.flow(|totals| totals.received).rate, 0.0);
    }

    #[test]
    fn slices_cover_the_time_and_leave_the_future_open() {
        let slices = history(5, 1000).slices(Series::Received, Duration::from_secs(10), 6);
        let known: Vec<_> = slices.iter().flatten().collect();
        assert_eq!((slices.len(), known.len()), (6, 3));
        assert!(
            known.iter().all(|rate| (**rate - 1000.0).abs() < 1.0),
            "{known:?}"
        );
    }
}
