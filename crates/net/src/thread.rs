//! Putting worker threads to sleep for a moment.

use std::io;
use std::ptr;
use std::time::Duration;

/// By how much the calling thread's timers may be late, so that the kernel can fire several at
/// once. The default of 50 µs is more than a short [`nap`] lasts.
///
/// # Errors
///
/// The operating system's.
pub fn set_timer_slack(nanoseconds: u32) -> io::Result<()> {
    // 0 would bring the default back
    let slack = libc::c_ulong::from(nanoseconds.max(1));
    // SAFETY: this command takes a number and no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack, 0, 0, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Blocks the thread for so long, or less when a signal comes.
///
/// A worker that is busy but not saturated naps some tens of microseconds between batches: packets
/// that come meanwhile share one wake-up and one system call, as with a network card's interrupt
/// moderation. Ends `duration` plus the timer slack ([`set_timer_slack`]) after the call at the
/// earliest.
pub fn nap(duration: Duration) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos().cast_signed()),
    };
    // SAFETY: the kernel reads `time`, and is not asked for the time left.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const time, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_slack_is_the_threads_own() {
        let slack = || {
            // SAFETY: this command takes no pointers.
            unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }
        };
        let before = slack();
        std::thread::spawn(move || {
            set_timer_slack(1_234).unwrap();
            assert_eq!(slack(), 1_234);
            nap(Duration::from_nanos(1));
        })
        .join()
        .unwrap();
        assert_eq!(slack(), before);
    }
}
