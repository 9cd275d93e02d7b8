//! What ICMP said about packets sent earlier.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

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

#[cfg(test)]
mod tests {
    use crate::test_support::{loopbacks, readable};
    use crate::{
        BATCH, Outgoing, RecvBatch, SendBatch, UdpUpstream, UdpUpstreamOptions, connect_upstream,
    };
    use std::io;
    use std::net::UdpSocket;

    const QUERY: Outgoing<'static> = Outgoing {
        packet: b"?",
        to: None,
        from: None,
    };

    /// Connected to a port on which nobody listens, after one packet was refused.
    fn refused(address: &str) -> UdpUpstream {
        let nobody = UdpSocket::bind(address).unwrap();
        let target = nobody.local_addr().unwrap();
        let socket = connect_upstream(target, &UdpUpstreamOptions::default(), []).unwrap();
        drop(nobody);
        assert_eq!(SendBatch::new(BATCH).send(&socket, [QUERY]).sent, 1);
        readable(&socket);
        socket
    }

    #[test]
    fn receiving_reports_a_refusal_once() {
        for address in loopbacks() {
            let socket = refused(address);
            let mut batch = RecvBatch::connected(BATCH, 512);
            let error = batch.receive(&socket).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            let error = batch.receive(&socket).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            // the queue was emptied as well
            assert_eq!(crate::receive_queue(&socket).unwrap().used, 0);
        }
    }

    #[test]
    fn sending_reports_a_refusal_and_sends_all_the_same() {
        for address in loopbacks() {
            let socket = refused(address);
            let report = SendBatch::new(BATCH).send(&socket, [QUERY]);
            assert_eq!((report.sent, report.failed), (1, 0));
            assert_eq!(
                report.last_error.unwrap().kind(),
                io::ErrorKind::ConnectionRefused
            );
        }
    }
}
