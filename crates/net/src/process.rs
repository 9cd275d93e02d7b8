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

/// The machine's name, as `hostname` prints it; empty if the system does not tell.
#[must_use]
pub fn host_name() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the system writes at most so many octets to where the pointer leads.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } != 0;
    if failed {
        return String::new();
    }
    let text = name.split(|&octet| octet == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Kills a child of ours and everything in the process group it leads, at once. The child must have been
/// started with a process group of its own and must not have been waited for, or its number may be
/// somebody else's.
pub fn kill_group(leader: u32) {
    if let Ok(group @ 2..) = libc::pid_t::try_from(leader) {
        // SAFETY: kill takes two integers and touches no memory. A failure means that nobody is left.
        unsafe {
            libc::kill(group.wrapping_neg(), libc::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::Command;

    use super::*;

    #[test]
    fn the_machine_has_a_name() {
        let asked = Command::new("uname").arg("-n").output().unwrap();
        let name = String::from_utf8(asked.stdout).unwrap();
        assert_eq!(host_name(), name.trim_end());
    }

    #[test]
    fn a_group_is_killed_whole() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 600 & wait"])
            .process_group(0)
            .spawn()
            .unwrap();
        kill_group(child.id());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        // not a group of ours: nothing happens
        kill_group(0);
        kill_group(1);
    }

    #[test]
    fn the_descriptor_limit_is_as_high_as_it_may_be() {
        let raised = raise_descriptor_limit().unwrap();
        assert!(raised >= 256);
        assert_eq!(raise_descriptor_limit().unwrap(), raised);
    }
}
