//! Pressure of the proxy itself: how much of what comes in a worker does not get to.
//!
//! The kernel counts the datagrams that a full receive queue did not take. Their share of all that came
//! makes the pressure: none up to one in a thousand, full from one in twenty on. It takes a second of
//! losses to build up, since the system also lets a worker wait for some milliseconds once in a while;
//! and it fades over seconds, so that a worker that sheds early because of it does not forget why.
//! What is a courtesy only is left out from the first loss on ([`Overload::has_time`]).

use std::time::{Duration, Instant};

/// Share of datagrams lost in the receive queues from which there is pressure.
const LITTLE: f32 = 0.001;
/// Share at which it is full.
const MUCH: f32 = 0.05;
/// Time in which it comes within a third of what the losses make.
const RISES: Duration = Duration::from_millis(500);
/// Time in which it fades to a third.
const FADES: Duration = Duration::from_secs(2);

/// One worker's.
#[derive(Debug)]
pub struct Overload {
    pressure: f32,
    dropped: u64,
    received: u64,
    at: Instant,
}

impl Overload {
    /// At rest.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            pressure: 0.0,
            dropped: 0,
            received: 0,
            at: now,
        }
    }

    /// 0 to 1.
    #[must_use]
    pub const fn pressure(&self) -> f32 {
        self.pressure
    }

    /// Whether there is time for answers that are a courtesy. Not for seconds after the last loss: what
    /// such an answer costs would be paid by queries that the receive queue does not take.
    #[must_use]
    pub const fn has_time(&self) -> bool {
        self.pressure <= 0.0
    }

    /// Takes note of how many datagrams were dropped and received since the start.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of some thousand packets needs no more precision"
    )]
    pub fn observe(&mut self, dropped: u64, received: u64, now: Instant) {
        // a reload that closes sockets takes their counts along
        let lost = dropped.saturating_sub(self.dropped) as f32;
        let taken = received.saturating_sub(self.received) as f32;
        let share = lost / (lost + taken).max(1.0);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f32();
        let faded = self.pressure * (-elapsed / FADES.as_secs_f32()).exp();
        let wanted = ((share - LITTLE) / (MUCH - LITTLE)).clamp(0.0, 1.0);
        self.pressure = if wanted > self.pressure {
            let step = 1.0 - (-elapsed / RISES.as_secs_f32()).exp();
            self.pressure + (wanted - self.pressure) * step
        } else if faded < 0.001 {
            wanted
        } else {
            wanted.max(faded)
        };
        (self.dropped, self.received, self.at) = (dropped, received, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_within_a_second_and_fades_over_seconds() {
        let start = Instant::now();
        let mut overload = Overload::new(start);
        let mut observe = |tenths: u32, dropped, received| {
            let now = start + tenths * Duration::from_millis(100);
            overload.observe(dropped, received, now);
            overload.pressure()
        };
        assert_eq!(observe(1, 0, 10_000), 0.0);
        assert_eq!(observe(2, 5, 20_000), 0.0, "a few of ten thousand");
        let stalled_once = observe(3, 5_000, 30_000);
        assert!(stalled_once > 0.1 && stalled_once < 0.25, "{stalled_once}");
        let lasting = (4..=13)
            .map(|tenths| {
                observe(
                    tenths,
                    u64::from(tenths) * 5_000,
                    30_000 + u64::from(tenths) * 10_000,
                )
            })
            .last();
        assert!(lasting.is_some_and(|it| it > 0.85), "{lasting:?}");
        let later = observe(33, 65_000, 160_000);
        assert!(later > 0.3 && later < 0.4, "{later}");
        assert_eq!(observe(240, 65_000, 160_000), 0.0);
    }

    #[test]
    fn few_losses_make_little_pressure() {
        let start = Instant::now();
        let mut overload = Overload::new(start);
        for second in 1..=10 {
            let now = start + Duration::from_secs(second);
            overload.observe(second * 200, second * 10_000, now);
        }
        let pressure = overload.pressure();
        assert!(pressure > 0.3 && pressure < 0.5, "{pressure}");
    }

    #[test]
    fn there_is_no_time_until_losses_are_long_over() {
        let start = Instant::now();
        let mut overload = Overload::new(start);
        assert!(overload.has_time());
        let mut observe = |seconds: u64, dropped| {
            overload.observe(dropped, 1_000_000, start + Duration::from_secs(seconds));
            overload.has_time()
        };
        assert!(!observe(1, 1_000_000));
        assert!(!observe(11, 1_000_000));
        assert!(observe(26, 1_000_000));
    }

    #[test]
    fn counts_that_begin_anew_are_no_drops() {
        let start = Instant::now();
        let mut overload = Overload::new(start);
        overload.observe(10, 1_000_000, start);
        overload.observe(0, 1_000_000, start);
        assert_eq!(overload.pressure(), 0.0);
    }
}
