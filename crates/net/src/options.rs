//! Socket options that have no safe wrapper elsewhere.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A type that consists of integers only, so that every bit pattern is a value.
///
/// # Safety
///
/// Implement for such types only.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for libc::c_int {}
// SAFETY: an array of integers.
unsafe impl Plain for MemInfo {}

/// What `SO_MEMINFO` gives (`SK_MEMINFO_VARS` in linux/sock_diag.h).
type MemInfo = [u32; 9];

pub(crate) fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the kernel reads an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub(crate) fn get<T: Plain>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<T> {
    // SAFETY: `Plain` types consist of integers.
    let mut value: T = unsafe { mem::zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` octets into `value`, any of which are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

/// Asks for a buffer of so many octets: beyond the system's limit where the process may
/// (`CAP_NET_ADMIN`), else up to it. The kernel's figure for what was got, which counts its own
/// bookkeeping (about twice what was asked).
pub(crate) fn set_buffer(
    socket: BorrowedFd<'_>,
    octets: Option<usize>,
    which: Buffer,
) -> io::Result<usize> {
    let (force, plain) = match which {
        Buffer::Receive => (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        Buffer::Send => (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    };
    if let Some(octets) = octets {
        let octets = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX / 2);
        if set(socket, libc::SOL_SOCKET, force, octets).is_err() {
            set(socket, libc::SOL_SOCKET, plain, octets)?;
        }
    }
    let got: libc::c_int = get(socket, libc::SOL_SOCKET, plain)?;
    Ok(usize::try_from(got).unwrap_or_default())
}

#[derive(Clone, Copy)]
pub(crate) enum Buffer {
    Receive,
    Send,
}

/// A socket's receive queue, as the kernel accounts for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveQueue {
    /// Octets taken up by packets that wait, bookkeeping included.
    pub used: u32,
    /// Octets at which further packets are dropped.
    pub limit: u32,
    /// Packets dropped since the socket was opened, because the queue was full or the checksum was
    /// wrong. Wraps at 2³².
    pub drops: u32,
}

/// Reads the state of a socket's receive queue. One system call, and no cost per packet, unlike
/// `SO_RXQ_OVFL`.
///
/// # Errors
///
/// When the descriptor is no socket, or the kernel is older than 4.12.
pub fn receive_queue(socket: impl AsFd) -> io::Result<ReceiveQueue> {
    let [used, limit, _, _, _, _, _, _, drops]: MemInfo =
        get(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO)?;
    Ok(ReceiveQueue { used, limit, drops })
}

/// Packets the socket has dropped since it was opened; see [`ReceiveQueue::drops`].
///
/// # Errors
///
/// As [`receive_queue`].
pub fn receive_queue_drops(socket: impl AsFd) -> io::Result<u64> {
    Ok(u64::from(receive_queue(socket)?.drops))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{address_of, client, eventually};
    use crate::{BATCH, RecvBatch, UdpListenerOptions, bind_listener};

    #[test]
    fn drops_are_counted() {
        const SENT: usize = 500;
        let socket = bind_listener(
            "127.0.0.1:0".parse().unwrap(),
            &UdpListenerOptions {
                receive_buffer: Some(8192),
                ..UdpListenerOptions::default()
            },
        )
        .unwrap();
        assert_eq!(receive_queue_drops(&socket).unwrap(), 0);
        let client = client("127.0.0.1:0");
        for _ in 0..SENT {
            client.send_to(&[0; 100], address_of(&socket)).unwrap();
        }
        eventually(|| receive_queue_drops(&socket).unwrap() > 0);
        let queue = receive_queue(&socket).unwrap();
        assert_eq!(queue.limit as usize, socket.receive_buffer());
        assert!(queue.used > 0);
        let mut batch = RecvBatch::new(BATCH, 512);
        let mut received = 0;
        eventually(|| {
            received += batch.receive(&socket).unwrap_or_default();
            let dropped = usize::try_from(receive_queue_drops(&socket).unwrap()).unwrap();
            received + dropped == SENT
        });
        assert!(received > 0);
    }

    #[test]
    fn a_buffer_beyond_the_limit_is_no_error() {
        let socket = bind_listener(
            "127.0.0.1:0".parse().unwrap(),
            &UdpListenerOptions {
                receive_buffer: Some(usize::MAX),
                send_buffer: Some(1 << 20),
                ..UdpListenerOptions::default()
            },
        )
        .unwrap();
        assert!(socket.receive_buffer() > 0);
        assert!(socket.send_buffer() > 0);
    }
}
