//! Compares each second with what is usual, and keeps the incidents.

use std::collections::VecDeque;

use crate::book::Book;
use crate::incident::Happened;
use crate::overview::Overview;
use crate::point::Point;
use crate::window::Window;

/// Windows that are looked back at.
const BACK: usize = 10;

/// Notices attacks and names them.
#[derive(Debug, Default)]
pub struct Detector {
    recent: VecDeque<Window>,
    point: Point,
}

impl Detector {
    /// Without any experience.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a second of all workers, which ended at `now`, in seconds since 1970. Says what happened, and
    /// to which incidents, by their numbers.
    pub fn observe(&mut self, window: &Window, now: f64, _book: &mut Book) -> Vec<(u64, Happened)> {
        self.point = point_of(window, now);
        if self.recent.len() >= BACK {
            self.recent.pop_front();
        }
        self.recent.push_back(window.clone());
        Vec::new()
    }

    /// The last seconds.
    #[must_use]
    pub fn overview(&self, now: f64) -> Overview {
        Overview {
            at: now,
            seconds: self.recent.iter().map(|window| window.seconds).sum(),
            ..Overview::default()
        }
    }

    /// The last second, for plots.
    #[must_use]
    pub const fn point(&self) -> Point {
        self.point
    }

    /// What is usual, for a file.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes over what [`Detector::save`] gave. Whether it was understood; otherwise it begins afresh.
    pub fn restore(&mut self, octets: &[u8]) -> bool {
        octets.is_empty()
    }
}

fn point_of(window: &Window, now: f64) -> Point {
    let rate = |events: u32| window.rate(events);
    let whole = &window.whole;
    let known_lost = whole.known_shed.saturating_add(whole.known_given_up);
    Point {
        at: now - f64::from(window.seconds),
        seconds: window.seconds,
        queries: rate(
            whole
                .queries
                .saturating_add(window.malformed)
                .saturating_add(window.blocked),
        ),
        forwarded: rate(whole.answers),
        answered: rate(
            whole
                .denied
                .saturating_add(whole.challenged)
                .saturating_add(whole.refused),
        ),
        dropped: rate(
            whole
                .dropped
                .saturating_add(whole.overflowed)
                .saturating_add(window.malformed)
                .saturating_add(window.blocked),
        ),
        expired: rate(whole.expired),
        nxdomain: rate(whole.nxdomain.saturating_add(whole.denied)),
        servfail: rate(whole.servfail),
        malformed: rate(window.malformed),
        tcp: rate(whole.tcp),
        octets_in: whole.octets_in as f32 / window.seconds.max(1e-3),
        octets_out: whole.octets_out as f32 / window.seconds.max(1e-3),
        sources: window.sources.estimate() / window.seconds.max(1.0),
        new_sources: rate(whole.new_sources),
        new_names: rate(whole.new_names),
        known: rate(whole.known),
        known_served: rate(
            whole
                .known
                .saturating_sub(known_lost)
                .saturating_sub(whole.known_challenged),
        ),
        known_lost: rate(known_lost),
        latency: window.latency().unwrap_or(0.0),
        pressure: window.pressure,
    }
}
