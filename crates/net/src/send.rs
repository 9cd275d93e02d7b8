//! Sending many datagrams with one system call.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use crate::address::Address;
use crate::control::SendSpace;
use crate::error_queue;
use crate::memory::Stable;

/// A datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The payload.
    pub packet: &'a [u8],
    /// The receiver; `None` on connected sockets, where it must be.
    pub to: Option<SocketAddr>,
    /// The local address to send from, with the index of the interface to use or 0 for any; `None`
    /// for the address the socket is bound to. Must be of the socket's address family. For answers
    /// see [`PacketInfo::reply_from`](crate::PacketInfo::reply_from).
    pub from: Option<(IpAddr, u32)>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct SendReport {
    /// Datagrams the kernel took.
    pub sent: usize,
    /// Datagrams that were not sent.
    pub failed: usize,
    /// The last error met, if any; with [`SendReport::failed`] 0, one that an earlier datagram on a
    /// connected socket had earned (`ConnectionRefused`, `HostUnreachable`).
    pub last_error: Option<io::Error>,
}

/// Everything that `sendmmsg` needs, allocated once.
pub struct SendBatch {
    headers: Stable<libc::mmsghdr>,
    vectors: Stable<libc::iovec>,
    addresses: Stable<Address>,
    controls: Stable<SendSpace>,
    /// whether the messages filled in last name no receiver
    connected: bool,
}

// SAFETY: the raw pointers in `headers` lead into memory the batch owns and moves with it. Those in
// `vectors` lead to packets borrowed by the call to `send` that wrote them, and are not followed
// after it.
unsafe impl Send for SendBatch {}
// SAFETY: nothing can be done with a shared batch.
unsafe impl Sync for SendBatch {}

impl SendBatch {
    /// For `capacity` datagrams a system call (at least one).
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, 1024);
        let empty = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        let mut vectors = Stable::new(vec![empty; capacity]);
        let headers = Stable::new(
            (0..capacity)
                .map(|index| {
                    // SAFETY: zero is a valid value of every field: null pointers and lengths of 0.
                    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                    header.msg_hdr.msg_iov = vectors.at(index);
                    header.msg_hdr.msg_iovlen = 1;
                    header
                })
                .collect(),
        );
        Self {
            headers,
            vectors,
            addresses: Stable::new(vec![Address::zeroed(); capacity]),
            controls: Stable::new(vec![SendSpace::zeroed(); capacity]),
            connected: false,
        }
    }

    /// Sends all `messages` in their order, without waiting, in as few system calls as the capacity
    /// allows. Every message ends up in [`SendReport::sent`] or [`SendReport::failed`].
    ///
    /// A message the kernel refuses is counted and skipped; the rest is still sent. When the
    /// socket's buffer or the interface's queue is full (`EAGAIN`, `ENOBUFS`, `ENOMEM`), this
    /// message and all after it count as failed: a DNS client asks again, and waiting would hold up
    /// everybody else.
    ///
    /// On a connected socket an ICMP message about earlier datagrams makes the kernel refuse the next
    /// one unseen. That one is tried once more, and the error is in [`SendReport::last_error`].
    pub fn send<'a>(
        &mut self,
        socket: impl AsFd,
        messages: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> SendReport {
        let socket = socket.as_fd();
        let mut messages = messages.into_iter();
        let mut report = SendReport::default();
        loop {
            let filled = self.fill(&mut messages);
            if filled == 0 {
                return report;
            }
            if !self.flush(socket, filled, &mut report) {
                report.failed = report.failed.saturating_add(messages.count());
                return report;
            }
        }
    }

    /// Writes messages until the batch is full or there are none left; how many.
    fn fill<'a>(&mut self, messages: &mut impl Iterator<Item = Outgoing<'a>>) -> usize {
        let slots = self
            .headers
            .as_mut_slice()
            .iter_mut()
            .zip(self.vectors.as_mut_slice())
            .zip(self.addresses.as_mut_slice())
            .zip(self.controls.as_mut_slice());
        let mut filled: usize = 0;
        for (((header, vector), address), control) in slots {
            let Some(message) = messages.next() else {
                break;
            };
            vector.iov_base = message.packet.as_ptr().cast_mut().cast();
            vector.iov_len = message.packet.len();
            let header = &mut header.msg_hdr;
            match message.to {
                Some(to) => {
                    header.msg_namelen = address.set(to);
                    header.msg_name = ptr::from_mut(address).cast();
                }
                None => {
                    header.msg_namelen = 0;
                    header.msg_name = ptr::null_mut();
                }
            }
            match message.from {
                Some((from, interface)) => {
                    header.msg_controllen = control.set(from, interface) as _;
                    header.msg_control = ptr::from_mut(control).cast();
                }
                None => {
                    header.msg_controllen = 0;
                    header.msg_control = ptr::null_mut();
                }
            }
            self.connected = message.to.is_none();
            filled = filled.saturating_add(1);
        }
        filled
    }

    /// Sends the first `filled` messages. False when there is no room for more.
    fn flush(&mut self, socket: BorrowedFd<'_>, filled: usize, report: &mut SendReport) -> bool {
        let mut first = 0;
        let mut tried_again = false;
        while first < filled {
            let left = filled.saturating_sub(first);
            // SAFETY: messages `first..filled` were written by `fill` just now: their packets are
            // borrowed for longer than this call, their addresses and control messages are owned by
            // `self`.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.at(first),
                    left as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if let Ok(sent) = usize::try_from(sent) {
                report.sent = report.sent.saturating_add(sent);
                first = first.saturating_add(sent);
                tried_again = false;
                continue;
            }
            // an error is always about the first message: later ones only cut the count short
            let error = io::Error::last_os_error();
            let code = error.raw_os_error().unwrap_or_default();
            if code == libc::EINTR {
                continue;
            }
            report.last_error = Some(error);
            if matches!(code, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) {
                report.failed = report.failed.saturating_add(left);
                return false;
            }
            if self.connected {
                error_queue::drain(socket);
                if !tried_again && error_queue::may_be_about_earlier(code) {
                    tried_again = true;
                    continue;
                }
            }
            report.failed = report.failed.saturating_add(1);
            first = first.saturating_add(1);
            tried_again = false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{address_of, client, has_ipv6, listener, loopbacks, readable};
    use crate::{BATCH, RecvBatch};

    fn drained(socket: &crate::UdpListener, expected: usize) -> Vec<Vec<u8>> {
        let mut batch = RecvBatch::new(BATCH, 512);
        let mut found = Vec::new();
        while found.len() < expected {
            readable(socket);
            let taken = batch.receive(socket).unwrap();
            found.extend((0..taken).map(|index| batch.packet(index).to_vec()));
        }
        found
    }

    #[test]
    fn more_than_a_batch_is_sent_in_order() {
        for address in loopbacks() {
            let (sender, receiver) = (listener(address), listener(address));
            let packets: Vec<[u8; 20]> = (0..150_u8).map(|n| [n; 20]).collect();
            let report = SendBatch::new(BATCH).send(
                &sender,
                packets.iter().map(|packet| Outgoing {
                    packet,
                    to: Some(address_of(&receiver)),
                    from: None,
                }),
            );
            assert_eq!((report.sent, report.failed), (150, 0));
            assert!(report.last_error.is_none());
            assert_eq!(drained(&receiver, 150), packets);
        }
    }

    #[test]
    fn nothing_to_send_is_no_error() {
        let report = SendBatch::new(BATCH).send(listener("127.0.0.1:0"), []);
        assert_eq!((report.sent, report.failed), (0, 0));
    }

    #[test]
    fn a_refused_message_does_not_hold_up_the_others() {
        let (sender, receiver) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
        let good = address_of(&receiver);
        // the kernel sends nothing to port 0
        let bad: SocketAddr = "127.0.0.1:0".parse().unwrap();
        for bad_ones in [vec![0], vec![2, 3], vec![1, 5], vec![0, 1, 2, 3, 4, 5]] {
            let packets: Vec<[u8; 1]> = (0..6).map(|n| [n]).collect();
            let report = SendBatch::new(4).send(
                &sender,
                packets.iter().map(|packet| Outgoing {
                    packet,
                    to: Some(if bad_ones.contains(&packet[0]) {
                        bad
                    } else {
                        good
                    }),
                    from: None,
                }),
            );
            assert_eq!(report.failed, bad_ones.len());
            assert_eq!(report.sent, 6 - bad_ones.len());
            assert_eq!(
                report.last_error.unwrap().raw_os_error(),
                Some(libc::EINVAL)
            );
            let arrived: Vec<u8> = drained(&receiver, report.sent).concat();
            let expected: Vec<u8> = (0..6).filter(|n| !bad_ones.contains(n)).collect();
            assert_eq!(arrived, expected);
        }
    }

    #[test]
    fn a_full_send_buffer_fails_the_rest() {
        // unlike UDP, a Unix socket's receiver holds the sender back
        let (sender, _receiver) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let packet = [0; 1000];
        let message = Outgoing {
            packet: &packet,
            to: None,
            from: None,
        };
        let report = SendBatch::new(8).send(&sender, std::iter::repeat_n(message, 100_000));
        assert!(report.sent > 0);
        assert_eq!(report.sent + report.failed, 100_000);
        assert_eq!(report.last_error.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_answer_leaves_from_the_address_asked() {
        let cases = [
            ("0.0.0.0:0", "127.0.0.5", "127.0.0.1:0"),
            ("[::]:0", "::1", "[::1]:0"),
        ];
        for (wildcard, asked, client_address) in cases {
            if wildcard.contains('[') && !has_ipv6() {
                continue;
            }
            let socket = listener(wildcard);
            let client = client(client_address);
            // a connected client hears from the address it asked only
            client.connect((asked, address_of(&socket).port())).unwrap();
            client.send(b"question").unwrap();

            let mut batch = RecvBatch::new(BATCH, 512);
            readable(&socket);
            assert_eq!(batch.receive(&socket).unwrap(), 1);
            let info = batch.info(0);
            assert_eq!(info.local, Some(asked.parse().unwrap()));
            assert_ne!(info.interface, 0);
            // in place, as the program does it
            batch.buffer_mut(0)[..6].copy_from_slice(b"answer");
            let report = SendBatch::new(BATCH).send(
                &socket,
                [Outgoing {
                    packet: &batch.buffer(0)[..6],
                    to: Some(batch.source(0)),
                    from: info.reply_from(),
                }],
            );
            assert_eq!((report.sent, report.failed), (1, 0), "{report:?}");
            let mut answer = [0; 16];
            let len = client.recv(&mut answer).unwrap();
            assert_eq!(&answer[..len], b"answer");
        }
    }
}
