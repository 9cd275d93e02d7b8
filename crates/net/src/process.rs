//! Limits and habits of the process as a whole.

use std::io;

/// Raises the number of descriptors that the process may have open as far as it may by itself (the
/// soft limit to the hard one). Returns the limit then in force.
///
/// # Errors
///
/// The operating system's.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes a whole `rlimit` to where the pointer leads.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel reads a whole `rlimit` from where the pointer leads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Has the C library give blocks of a megabyte and more back to the system as soon as they are
/// freed. Left alone it raises its limit with each large block that is freed, and keeps the
/// memory of a replaced list of a million entries for good. No effect with other C libraries.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: this parameter takes a number, and setting it is allowed at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_limit_is_as_high_as_it_may_be() {
        let raised = raise_descriptor_limit().unwrap();
        assert!(raised >= 256);
        assert_eq!(raise_descriptor_limit().unwrap(), raised);
    }
}
