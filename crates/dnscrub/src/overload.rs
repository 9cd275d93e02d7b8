//! Pressure of the proxy itself: how much of what comes in a worker does not get to.
//!
//! The kernel counts the datagrams that a full receive queue did not take. Their share of all that came
//! makes the pressure: none up to one in a thousand, full from one in twenty on. It rises at once and
//! fades over seconds, so that a worker that sheds early because of it does not forget why.

use std::time::{Duration, Instant};

/// Share of datagrams lost in the receive queues from which there is pressure.
const LITTLE: f32 = 0.001;
/// Share at which it is full.
const MUCH: f32 = 0.05;
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
        let elapsed = now.saturating_duration_since(self.at);
        let faded = self.pressure * (-elapsed.as_secs_f32() / FADES.as_secs_f32()).exp();
        let risen = ((share - LITTLE) / (MUCH - LITTLE)).clamp(0.0, 1.0);
        self.pressure = if faded < 0.001 {
            risen
        } else {
            risen.max(faded)
        };
        (self.dropped, self.received, self.at) = (dropped, received, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_at_once_and_fades_over_seconds() {
        let start = Instant::now();
        let mut overload = Overload::new(start);
        let mut observe = |tenths: u32, dropped, received| {
            let now = start + tenths * Duration::from_millis(100);
            overload.observe(dropped, received, now);
            overload.pressure()
        };
        assert_eq!(observe(1, 0, 10_000), 0.0);
        assert_eq!(observe(2, 5, 20_000), 0.0, "a few of ten thousand");
        let some = observe(3, 205, 30_000);
        assert!(some > 0.3 && some < 0.5, "{some}");
        assert_eq!(observe(4, 5_000, 40_000), 1.0);
        let later = observe(24, 5_000, 40_000);
        assert!(later > 0.3 && later < 0.4, "{later}");
        assert_eq!(observe(240, 5_000, 40_000), 0.0);
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
