//! What ICMP said about packets sent earlier.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::options;

/// Fetches and clears the error an ICMP message left on a connected socket (`SO_ERROR`), together
/// with the error queue behind it. `None` when there was none.
///
/// [`RecvBatch::receive`](crate::RecvBatch::receive) and [`SendBatch::send`](crate::SendBatch::send)
/// report and clear such errors themselves; this is for a socket that was reported as in error
/// while nothing is to be read or sent.
///
/// # Errors
///
/// When the descriptor is no socket.
pub fn take_error(socket: impl AsFd) -> io::Result<Option<io::Error>> {
    let socket = socket.as_fd();
    let code: libc::c_int = options::get(socket, libc::SOL_SOCKET, libc::SO_ERROR)?;
    drain(socket);
    Ok((code != 0).then(|| io::Error::from_raw_os_error(code)))
}

/// Whether the error may come from an ICMP message about an earlier packet.
pub(crate) fn may_be_about_earlier(code: i32) -> bool {
    matches!(
        code,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EPROTO
            | libc::EACCES
            | libc::EMSGSIZE
    )
}

/// Throws away what waits in the error queue, which the kernel charges to the receive buffer: left
/// there, it would crowd out answers, and keep the socket reported as in error.
#[cold]
pub(crate) fn drain(socket: BorrowedFd<'_>) {
    // far above what fits, so that a flood of ICMP messages cannot hold the caller
    for _ in 0..1024 {
        // SAFETY: zero is a valid value of every field: no name, no buffers, no control space.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        // SAFETY: the message has no pointers, so the kernel writes to `message` alone.
        let result = unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                &raw mut message,
                libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
            )
        };
        if result < 0 {
            return;
        }
    }
}
