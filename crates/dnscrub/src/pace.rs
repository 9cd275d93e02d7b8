//! Fewer wake-ups under load: before a busy worker parks, it naps for some tens of microseconds, so
//! that the next wake-up finds a batch instead of a packet. The same idea as interrupt moderation in
//! network cards. An idle worker never naps, so a lone query is not delayed.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Packets a second, both directions, from which a worker counts as busy.
const BUSY_RATE: u32 = 5_000;
const WINDOW: Duration = Duration::from_millis(2);
const BUSY_PER_WINDOW: u32 = BUSY_RATE * WINDOW.as_millis() as u32 / 1_000;

#[derive(Clone, Copy)]
struct Pace {
    window_start: Option<Instant>,
    packets: u32,
    busy: bool,
}

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace { window_start: None, packets: 0, busy: false }) };
}

/// A batch of `packets` was handled at `now` by this thread.
pub fn handled(packets: usize, now: Instant) {
    PACE.with(|cell| {
        cell.set(advance(
            cell.get(),
            u32::try_from(packets).unwrap_or(u32::MAX),
            now,
        ))
    });
}

fn advance(mut pace: Pace, packets: u32, now: Instant) -> Pace {
    pace.packets = pace.packets.saturating_add(packets);
    match pace.window_start {
        Some(start) if now.duration_since(start) < WINDOW => {}
        Some(start) => {
            // a window that an idle time has stretched says nothing about load
            pace.busy = pace.packets >= BUSY_PER_WINDOW && now.duration_since(start) < WINDOW * 4;
            pace.window_start = Some(now);
            pace.packets = 0;
        }
        None => pace.window_start = Some(now),
    }
    pace
}

/// Called when this thread has nothing left to do and is about to wait for events.
pub fn before_park(nap: Duration) {
    if !nap.is_zero() && PACE.with(Cell::get).busy {
        dnscrub_net::thread::nap(nap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(batches: &[(u64, u32)]) -> bool {
        let start = Instant::now();
        let mut pace = Pace {
            window_start: None,
            packets: 0,
            busy: false,
        };
        for &(at_us, packets) in batches {
            pace = advance(pace, packets, start + Duration::from_micros(at_us));
        }
        pace.busy
    }

    #[test]
    fn steady_load_is_busy_and_lone_queries_are_not() {
        let busy: Vec<_> = (0..100).map(|i| (i * 100, 2)).collect();
        assert!(run(&busy), "20,000 packets a second");
        let calm: Vec<_> = (0..100).map(|i| (i * 1_000, 1)).collect();
        assert!(!run(&calm), "1,000 packets a second");
    }

    #[test]
    fn a_burst_after_a_pause_is_not_load() {
        assert!(!run(&[(0, 64), (1_000_000, 64)]));
    }
}
