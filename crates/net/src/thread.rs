//! Placing worker threads, and putting them to sleep for a moment.

use std::io;
use std::mem;
use std::ptr;
use std::time::Duration;

/// The processors this thread may run on, ascending.
///
/// # Errors
///
/// The operating system's, as on machines of more than 1,024 processors.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: zero is a valid value: the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the size of `set` into it.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let size = usize::try_from(libc::CPU_SETSIZE).unwrap_or_default();
    Ok((0..size)
        // SAFETY: the processor's number is below the set's size.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect())
}

/// Keeps the calling thread on one processor, numbered as in [`allowed_cpus`].
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) when the processor does not exist or is not allowed.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= usize::try_from(libc::CPU_SETSIZE).unwrap_or_default() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: zero is a valid value: the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the processor's number is below the set's size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads the size of `set` from it; 0 is the calling thread.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

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
    fn a_thread_stays_where_it_is_put() {
        std::thread::spawn(|| {
            let cpu = *allowed_cpus().unwrap().last().unwrap();
            pin_to_cpu(cpu).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [cpu]);
            let error = pin_to_cpu(usize::MAX).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        })
        .join()
        .unwrap();
    }

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
