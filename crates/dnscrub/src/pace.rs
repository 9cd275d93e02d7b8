//! Fewer wake-ups at a moderate load: before such a worker parks, it naps for a fraction of a
//! millisecond, so that the next wake-up finds a batch instead of a packet. The same idea as
//! interrupt moderation in network cards. Waking up, and waking up the receiver's side of the kernel
//! for what is sent, is a third of a query's cost there.
//!
//! A worker with little to do does not nap, so a lone query is not delayed; one with very much does
//! not either, since its batches fill by themselves.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The load is measured over this.
const WINDOW: Duration = Duration::from_millis(2);
/// Packets in a window, both directions, from which naps begin: 10,000 a second.
const MODERATE: u32 = 20;
/// Packets in a window from which they end: 50,000 a second.
const HEAVY: u32 = 100;

#[derive(Clone, Copy)]
struct Pace {
    window_start: Option<Instant>,
    packets: u32,
    naps: bool,
}

impl Pace {
    const CALM: Self = Self {
        window_start: None,
        packets: 0,
        naps: false,
    };

    fn after(mut self, packets: u32, now: Instant) -> Self {
        self.packets = self.packets.saturating_add(packets);
        let elapsed = self.window_start.map(|start| now.duration_since(start));
        if elapsed.is_none_or(|elapsed| elapsed >= WINDOW) {
            // a window that an idle time has stretched says nothing about the load
            let steady = elapsed.is_some_and(|elapsed| elapsed < WINDOW * 4);
            self.naps = steady && (MODERATE..HEAVY).contains(&self.packets);
            self.window_start = Some(now);
            self.packets = 0;
        }
        self
    }
}

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace::CALM) };
}

/// A batch of `packets` was handled at `now` by this thread.
pub fn handled(packets: usize, now: Instant) {
    let packets = u32::try_from(packets).unwrap_or(u32::MAX);
    PACE.with(|pace| pace.set(pace.get().after(packets, now)));
}

/// Called when this thread has nothing left to do and is about to wait for events.
pub fn before_park(nap: Duration) {
    if !nap.is_zero() && PACE.with(Cell::get).naps {
        dnscrub_net::thread::nap(nap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a worker naps after batches of `(microsecond, packets)`.
    fn naps(batches: impl IntoIterator<Item = (u64, u32)>) -> bool {
        let start = Instant::now();
        let pace = batches.into_iter().fold(Pace::CALM, |pace, (at, packets)| {
            pace.after(packets, start + Duration::from_micros(at))
        });
        pace.naps
    }

    #[test]
    fn only_a_moderate_load_is_coalesced() {
        let steady = |packets| (0..100).map(move |i| (i * 100, packets));
        assert!(naps(steady(2)), "20,000 packets a second");
        assert!(!naps(steady(20)), "200,000 packets a second");
        assert!(
            !naps((0..100).map(|i| (i * 1_000, 1))),
            "1,000 packets a second"
        );
    }

    #[test]
    fn a_burst_after_a_pause_is_not_load() {
        assert!(!naps([(0, 64), (1_000_000, 64)]));
    }
}
