//! How close a pool is to its limit, 0 to 1.
//!
//! 0 while less than half of what its upstreams may have is outstanding. From there it grows, slowly at
//! first, to one half when all of it is, and on to 1 while the queue of some worker grows to a quarter of
//! its length, or queries leave it unserved. Smoothed over a tenth of a second, so that a single burst
//! hardly shows. 1 for a pool without an upstream that can be used.
//!
//! A limit that is not reached grows by itself, so a busy server alone makes no pressure: it takes one
//! that cannot do more.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::upstream::span;

/// How often it is worked out: by then every worker has ticked.
const INTERVAL: u64 = span(Duration::from_millis(20));
/// Time constant of its smoothing.
const SMOOTHING: f32 = 0.1;
/// Share of a queue's length at which it counts as overrun.
const OVERRUN: f32 = 0.25;

/// A pool at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// Its name.
    pub name: String,
    /// How close it is to its limit, 0 to 1.
    pub pressure: f32,
    /// Queries that wait for room, of all workers.
    pub queued: u32,
}

/// What the workers know of a pool together. Relaxed atomics, a few milliseconds old at most.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct PoolLoad {
    /// A number from 0 to 1, as bits.
    pressure: AtomicU32,
    queued: AtomicU32,
    /// How full the fullest worker's queue was since the last time, as bits. Those of numbers that are
    /// not negative have the order of the numbers.
    fullest: AtomicU32,
    worked_out: AtomicU64,
}

impl PoolLoad {
    pub(crate) fn pressure(&self) -> f32 {
        f32::from_bits(self.pressure.load(Relaxed))
    }

    pub(crate) fn queued(&self) -> u32 {
        self.queued.load(Relaxed)
    }

    /// Replaces one worker's part of what waits.
    pub(crate) fn publish_queued(&self, before: u32, now: u32) {
        self.queued.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    /// A worker's queue is so full, 0 to 1; `outstanding` of `room` queries are at the upstreams in use.
    /// Works the pressure out when it is time and no other worker does.
    pub(crate) fn update(&self, fill: f32, outstanding: u64, room: u64, now: u64) {
        self.fullest.fetch_max(fill.max(0.0).to_bits(), Relaxed);
        let last = self.worked_out.load(Relaxed);
        let elapsed = now.saturating_sub(last);
        if elapsed < INTERVAL
            || self
                .worked_out
                .compare_exchange(last, now, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        let fullest = f32::from_bits(self.fullest.swap(0, Relaxed));
        let pressure = pressure_of(fullest, outstanding, room);
        let smoothed = smooth(self.pressure(), pressure, elapsed as f32 / 1e9);
        self.pressure.store(smoothed.to_bits(), Relaxed);
    }
}

/// Without smoothing: a queue is so full, 0 to 1, and `outstanding` of `room` queries are at the upstreams
/// in use.
pub(crate) fn pressure_of(queue: f32, outstanding: u64, room: u64) -> f32 {
    if room == 0 {
        1.0
    } else {
        pressure(outstanding as f32 / room as f32, queue)
    }
}

/// How much is used of what may be outstanding, and how full the queue is.
fn pressure(used: f32, queue: f32) -> f32 {
    // more than all of it is used only where nothing limits it
    let over_half = (used - 0.5).max(0.0);
    let near = (over_half * over_half * 2.0).min(1.0);
    let queued = if queue > 0.0 {
        0.5 + (queue / OVERRUN).min(1.0) / 2.0
    } else {
        0.0
    };
    near.max(queued)
}

fn smooth(before: f32, now: f32, seconds: f32) -> f32 {
    let smoothed = before + (now - before) * (1.0 - (-seconds / SMOOTHING).exp());
    // rest is rest: it does not fade for ever
    if now == 0.0 && smoothed < 0.001 {
        0.0
    } else {
        smoothed.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn it_grows_with_what_is_outstanding_and_with_the_queue() {
        for used in [0.0, 0.2, 0.5] {
            assert_eq!(pressure(used, 0.0), 0.0);
        }
        assert_eq!(pressure(1.0, 0.0), 0.5);
        assert_eq!(pressure(3.0, 0.0), 1.0);
        assert_eq!(pressure(1.0, OVERRUN), 1.0);
        assert_eq!(pressure(0.1, 1.0), 1.0);
        let mut before = 0.0;
        for step in 0..200 {
            let now = pressure(
                step.min(100) as f32 / 100.0,
                (step - 100).max(0) as f32 / 100.0,
            );
            assert!(now >= before, "{step}");
            before = now;
        }
    }

    #[test]
    fn a_burst_hardly_shows_and_a_state_that_lasts_does() {
        let load = PoolLoad::default();
        let mut now = 1_000 * MS;
        let mut after = |fill: f32, ms: u64| {
            for _ in 0..ms / 10 {
                now += 10 * MS;
                load.update(fill, if fill > 0.0 { 100 } else { 0 }, 100, now);
            }
            load.pressure()
        };
        after(0.0, 100);
        let burst = after(1.0, 20);
        assert!(burst > 0.0 && burst < 0.3, "{burst}");
        assert!(after(1.0, 500) > 0.95);
        assert!(after(0.0, 200) < 0.2);
        assert_eq!(after(0.0, 2_000), 0.0);
    }

    #[test]
    fn the_fullest_queue_of_any_worker_counts() {
        let load = PoolLoad::default();
        for tick in 1..200 {
            load.update(1.0, 0, 100, tick * 10 * MS);
            load.update(0.0, 0, 100, tick * 10 * MS + MS);
        }
        assert!(load.pressure() > 0.95);
    }

    #[test]
    fn a_pool_without_an_upstream_is_under_pressure() {
        let load = PoolLoad::default();
        for tick in 1..200 {
            load.update(0.0, 0, 0, tick * 10 * MS);
        }
        assert!(load.pressure() > 0.95);
    }
}
