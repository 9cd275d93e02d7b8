//! Notices that events become much more frequent than they used to be.

use super::saved::Usual;
use crate::defence::Level;

/// 2 to the power of this nanoseconds are a slot: 134 ms.
const SLOT: u32 = 27;
/// Seconds of a slot.
pub(crate) const SLOT_SECONDS: f32 = (1_u64 << SLOT) as f32 / 1e9;
/// What is left of the fast rate after a slot: it looks back about 0.6 s.
const KEPT: f32 = 0.8;
/// Seconds that the base is a plain average over, before it begins to follow slowly.
const LEARNING: f32 = 30.0;
/// In these seconds after the start only a flood of several times the usual floor is believed.
const COLD: f32 = 5.0;
/// How much stronger.
const COLD_FACTOR: f32 = 5.0;
/// Seconds in which the base follows a lower rate.
const FALLS_IN: f32 = 20.0;
/// The same while it is learning, when much is new that soon will not be.
const FALLS_IN_LEARNING: f32 = 3.0;
/// Seconds in which the base would follow a higher rate, but for the next limit.
const RISES_IN: f32 = 300.0;
/// Seconds in which the base can grow to `e` times: a slow ramp does not become normal.
const GROWS_IN: f32 = 7200.0;
/// Slots that must be quiet before a level is lowered: 10 s.
const HOLD: u32 = 75;
/// Longest wait, after relapses: 160 s.
const LONGEST_HOLD: u32 = HOLD * 16;
/// A relapse within this many slots (5 min) doubles the wait.
const RELAPSE: u32 = 2240;

/// When a surge becomes an alarm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Threshold {
    /// Events a second that are always fine.
    pub(crate) floor: f32,
    /// Times the base that are fine.
    pub(crate) factor: f32,
}

impl Threshold {
    /// The rate from which on it is an attack.
    fn rate(self, base: f32) -> f32 {
        self.floor.max(self.factor * base)
    }
}

/// A rate, what it usually is, and the level that follows from both.
///
/// The level rises within the slot in which the rate passes the threshold, is held for ten seconds
/// after the rate came down, twice as long at each relapse within five minutes (a pulsing attack), and
/// then passes through *alert*. The base stands still while there is an alarm, and otherwise grows by
/// no more than about 60 % an hour, so that neither an attack nor a slow ramp becomes normal.
#[derive(Clone, Debug)]
pub(crate) struct Surge {
    slot: u32,
    count: f32,
    fast: f32,
    base: f32,
    /// Seconds of calm observation, up to [`LEARNING`].
    learned: f32,
    level: Level,
    /// Slot until which the level is held.
    held_until: u32,
    hold: u32,
    lowered: u32,
    /// The base stands still.
    frozen: bool,
}

/// One that begins with the scorer.
impl Default for Surge {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Surge {
    pub(crate) const fn new(now: u64) -> Self {
        Self {
            slot: (now >> SLOT) as u32,
            count: 0.0,
            fast: 0.0,
            base: 0.0,
            learned: 0.0,
            level: Level::Calm,
            held_until: 0,
            hold: HOLD,
            lowered: 0,
            frozen: false,
        }
    }

    /// The level last set.
    #[inline]
    pub(crate) const fn level(&self) -> Level {
        self.level
    }

    /// Events a second now.
    #[inline]
    pub(crate) fn rate(&self) -> f32 {
        self.fast * KEPT + self.count * ((1.0 - KEPT) / SLOT_SECONDS)
    }

    /// Events a second in calm times.
    pub(crate) const fn base(&self) -> f32 {
        self.base
    }

    /// How many times as many events there are as usual, of those above the usual; `least` stands in
    /// for a base below it.
    pub(crate) fn odds(&self, least: f32) -> f32 {
        (self.rate() - self.base).max(0.0) / self.base.max(least)
    }

    /// What is usual, for a file.
    pub(crate) const fn usual(&self) -> Usual {
        Usual {
            rate: self.base,
            learned: self.learned,
        }
    }

    /// Adds to what is usual, at the start.
    pub(crate) fn add_usual(&mut self, usual: Usual) {
        self.base += usual.rate;
        self.learned = self.learned.max(usual.learned);
    }

    /// Stops learning what is usual, or goes on: while there is an alarm elsewhere that these events
    /// are part of.
    #[inline]
    pub(crate) const fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// Whether there was time to learn what is usual.
    pub(crate) const fn is_seasoned(&self) -> bool {
        self.learned >= COLD
    }

    /// Counts `events`, which may be a part of one. `believed`: whether they may raise the level.
    #[inline]
    pub(crate) fn count(&mut self, events: f32, now: u64, threshold: Threshold, believed: bool) {
        self.advance(now, threshold);
        self.count += events;
        if self.level != Level::Attack && believed {
            let threshold =
                threshold.rate(self.base) * if self.is_seasoned() { 1.0 } else { COLD_FACTOR };
            let rate = self.rate();
            if rate > threshold {
                self.raise(Level::Attack);
            } else if self.level == Level::Calm && rate > 0.5 * threshold && self.is_seasoned() {
                self.raise(Level::Alert);
            }
        }
    }

    /// Brings rate, base and level up to `now`.
    #[inline]
    pub(crate) fn advance(&mut self, now: u64, threshold: Threshold) {
        let slot = (now >> SLOT) as u32;
        let slots = slot.wrapping_sub(self.slot);
        // time that goes back counts to the slot that is open
        if slots == 0 || slots > u32::MAX / 2 {
            return;
        }
        self.close(slot, slots, threshold);
    }

    fn close(&mut self, slot: u32, slots: u32, threshold: Threshold) {
        self.fast = self.fast * KEPT + self.count * ((1.0 - KEPT) / SLOT_SECONDS);
        self.count = 0.0;
        // the slot just closed was followed by empty ones
        let empty = slots.saturating_sub(1);
        if empty > 0 {
            self.fast *= KEPT.powi(empty.min(1000) as i32);
        }
        let seconds = (slots as f32 * SLOT_SECONDS).min(60.0);
        if self.level != Level::Attack && !self.frozen {
            self.learn(seconds, threshold);
        }
        self.lower(slot, threshold);
        self.slot = slot;
    }

    fn learn(&mut self, seconds: f32, threshold: Threshold) {
        let step = if self.learned < LEARNING {
            self.learned += seconds;
            if self.fast < self.base {
                (seconds / FALLS_IN_LEARNING).min(1.0)
            } else {
                seconds / self.learned.max(1.0)
            }
        } else if self.fast < self.base {
            (seconds / FALLS_IN).min(1.0)
        } else {
            (seconds / RISES_IN).min(1.0)
        };
        let mut change = (self.fast - self.base) * step.min(1.0);
        if self.learned >= LEARNING {
            change = change.min(self.base.max(0.1 * threshold.floor) * seconds / GROWS_IN);
        }
        self.base += change;
    }

    fn raise(&mut self, level: Level) {
        if level == Level::Attack {
            let since = self.slot.wrapping_sub(self.lowered);
            self.hold = if self.lowered != 0 && since < RELAPSE {
                (self.hold.saturating_mul(2)).min(LONGEST_HOLD)
            } else {
                HOLD
            };
        }
        self.level = level;
        self.held_until = self.slot.wrapping_add(self.hold);
    }

    fn lower(&mut self, slot: u32, threshold: Threshold) {
        if self.level == Level::Calm {
            return;
        }
        let rate = threshold.rate(self.base);
        let quiet = match self.level {
            Level::Attack => self.fast < rate / 3.0,
            _ => self.fast < rate / 2.0,
        };
        if !quiet {
            self.held_until = slot.wrapping_add(self.hold);
        } else if slot.wrapping_sub(self.held_until) < u32::MAX / 2 {
            if self.level == Level::Attack {
                self.level = Level::Alert;
                self.lowered = slot.max(1);
                self.held_until = slot.wrapping_add(HOLD);
            } else {
                self.level = Level::Calm;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const THRESHOLD: Threshold = Threshold {
        floor: 50.0,
        factor: 4.0,
    };

    /// `rate` events a second from `from` to `to`, in seconds; when the level first was *attack*.
    fn feed(surge: &mut Surge, rate: f64, from: f64, to: f64) -> Option<f64> {
        let mut first = None;
        let mut at = from;
        while at < to {
            surge.count(1.0, (at * SECOND as f64) as u64, THRESHOLD, true);
            if surge.level() == Level::Attack {
                first = first.or(Some(at));
            }
            at += 1.0 / rate;
        }
        first
    }

    #[test]
    fn a_steady_rate_is_calm_and_a_flood_is_noticed_within_a_slot() {
        let mut surge = Surge::new(0);
        assert_eq!(feed(&mut surge, 30.0, 0.0, 20.0), None);
        assert_eq!(surge.level(), Level::Calm);
        assert!((surge.base() - 30.0).abs() < 6.0, "{}", surge.base());
        let noticed = feed(&mut surge, 10_000.0, 20.0, 21.0).unwrap();
        assert!(noticed < 20.1, "{noticed}");
        assert!(surge.odds(1.0) > 200.0, "{}", surge.odds(1.0));
    }

    #[test]
    fn the_level_is_held_and_then_lowered_through_alert() {
        let mut surge = Surge::new(0);
        feed(&mut surge, 20.0, 0.0, 20.0);
        feed(&mut surge, 5_000.0, 20.0, 25.0);
        let base = surge.base();
        assert!(base < 25.0, "an alarm teaches nothing: {base}");
        feed(&mut surge, 20.0, 25.0, 33.0);
        assert_eq!(surge.level(), Level::Attack);
        feed(&mut surge, 20.0, 33.0, 40.0);
        assert_eq!(surge.level(), Level::Alert);
        feed(&mut surge, 20.0, 40.0, 60.0);
        assert_eq!(surge.level(), Level::Calm);
    }

    #[test]
    fn pulses_are_waited_for_longer_each_time() {
        let mut surge = Surge::new(0);
        feed(&mut surge, 20.0, 0.0, 20.0);
        feed(&mut surge, 5_000.0, 20.0, 21.0);
        feed(&mut surge, 20.0, 21.0, 41.0);
        assert_ne!(surge.level(), Level::Attack);
        feed(&mut surge, 5_000.0, 41.0, 42.0);
        feed(&mut surge, 20.0, 42.0, 60.0);
        assert_eq!(surge.level(), Level::Attack, "held for twice as long");
    }

    #[test]
    fn a_slow_ramp_does_not_become_normal() {
        let mut surge = Surge::new(0);
        feed(&mut surge, 20.0, 0.0, 60.0);
        let mut noticed = None;
        // a tenth more each minute for 40 minutes: 45 times as much in the end
        for minute in 0..40 {
            let rate = 20.0 * 1.1_f64.powi(minute);
            let from = 60.0 + 60.0 * f64::from(minute);
            noticed = noticed.or(feed(&mut surge, rate, from, from + 60.0));
        }
        assert!(noticed.is_some(), "base {}", surge.base());
    }

    #[test]
    fn an_hour_of_silence_is_nothing_special() {
        let mut surge = Surge::new(0);
        feed(&mut surge, 20.0, 0.0, 30.0);
        assert_eq!(feed(&mut surge, 20.0, 3630.0, 3660.0), None);
        surge.count(1.0, 10 * SECOND, THRESHOLD, true);
        assert_eq!(surge.level(), Level::Calm, "time that goes back");
    }

    #[test]
    fn a_start_in_the_middle_of_things_needs_more_to_alarm() {
        let mut surge = Surge::new(0);
        assert_eq!(feed(&mut surge, 200.0, 0.0, 3.0), None);
        let mut surge = Surge::new(0);
        assert!(feed(&mut surge, 5_000.0, 0.0, 3.0).is_some());
    }
}
