//! Time for tests.

use std::time::{Duration, Instant, SystemTime};

/// A clock that moves only when it is told to. It hands out both kinds of time the cores take,
/// in step with each other.
#[derive(Clone, Copy, Debug)]
pub struct VirtualClock {
    base: Instant,
    elapsed: Duration,
}

impl VirtualClock {
    /// Wall-clock time at the start: 2025-01-01 00:00 UTC, in seconds since 1970.
    const EPOCH_SECONDS: u64 = 1_735_689_600;

    /// A clock that stands at its start.
    #[must_use]
    pub fn new() -> Self {
        Self {
            base: Instant::now(),
            elapsed: Duration::ZERO,
        }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.base + self.elapsed
    }

    /// The present as wall-clock time; it was 2025-01-01 00:00 UTC at the start, in every run.
    #[must_use]
    pub fn system_now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(Self::EPOCH_SECONDS) + self.elapsed
    }

    /// How far it has moved since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Moves on by `step` and returns the new present.
    pub fn advance(&mut self, step: Duration) -> Instant {
        self.elapsed += step;
        self.now()
    }

    /// Moves on to `instant`; stays where it is when that is past.
    pub fn advance_to(&mut self, instant: Instant) {
        self.elapsed = self
            .elapsed
            .max(instant.saturating_duration_since(self.base));
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_only_when_told_and_never_back() {
        let mut clock = VirtualClock::new();
        let start = clock.now();
        let wall = clock.system_now();
        assert_eq!(clock.now(), start);
        assert_eq!(
            clock.advance(Duration::from_secs(2)),
            start + Duration::from_secs(2)
        );
        clock.advance_to(start);
        assert_eq!(clock.elapsed(), Duration::from_secs(2));
        clock.advance_to(start + Duration::from_secs(3));
        assert_eq!(clock.system_now(), wall + Duration::from_secs(3));
    }
}
