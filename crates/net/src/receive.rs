//! Receiving many datagrams with one system call.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use crate::address::{ADDRESS_LEN, Address};
use crate::control::{self, RECEIVE_LEN, ReceiveSpace};
use crate::error_queue;
use crate::memory::Stable;

/// What came along with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketInfo {
    /// The address the packet was sent to. Only sockets bound to a wildcard address report it; for
    /// others it is `None`, and an answer leaves from the bound address anyway.
    pub local: Option<IpAddr>,
    /// Index of the interface it came in by; 0 where `local` is `None`.
    pub interface: u32,
    /// IP TTL or hop limit as it arrived, where the socket asks for it.
    pub ttl: Option<u8>,
}

impl PacketInfo {
    /// What [`Outgoing::from`](crate::Outgoing) has to be for an answer to leave from the address that
    /// was asked.
    ///
    /// The interface is pinned for IPv6 link-local addresses only, which mean nothing without it.
    /// Others follow the routing table, which may send the answer out by another interface than the
    /// query came in by.
    #[inline]
    pub fn reply_from(&self) -> Option<(IpAddr, u32)> {
        let local = self.local?;
        let link_local = matches!(local, IpAddr::V6(address) if address.is_unicast_link_local());
        Some((local, if link_local { self.interface } else { 0 }))
    }
}

/// Where the kernel writes a packet's source address and control messages.
#[derive(Clone, Copy)]
#[repr(C)]
struct Envelope {
    control: ReceiveSpace,
    source: Address,
}

/// Buffers for a batch of received datagrams, and all that `recvmmsg` needs to fill them.
///
/// Allocated once. Packets are numbered from 0 in the order of arrival; indices past the last
/// packet received give empty packets and neutral values rather than a panic.
pub struct RecvBatch {
    headers: Stable<libc::mmsghdr>,
    /// pointed at by `headers`
    #[expect(dead_code, reason = "read by the kernel through `headers`")]
    vectors: Stable<libc::iovec>,
    /// pointed at by `headers`; empty for connected sockets
    envelopes: Stable<Envelope>,
    /// pointed at by `vectors`
    buffers: Stable<u8>,
    buffer: usize,
    stride: usize,
    received: usize,
}

// SAFETY: the raw pointers in `headers` and `vectors` lead only into memory that the batch owns and
// moves with it, and they are followed only by `receive`, which takes the batch exclusively.
unsafe impl Send for RecvBatch {}
// SAFETY: a shared batch only reads the lengths and flags in `headers`, and its own memory.
unsafe impl Sync for RecvBatch {}

/// Added to a buffer's length to give the distance to the next one. With 4,096 octets apart the starts
/// of all buffers would fall into one set of the first-level cache (64 sets of 64 octets), 8 or 12
/// of which fit; two more lines spread them over all sets.
const STAGGER: usize = 128;

impl RecvBatch {
    /// For `capacity` packets of up to `buffer` octets each (at least one of each), with source
    /// addresses and packet information.
    pub fn new(capacity: usize, buffer: usize) -> Self {
        Self::build(capacity, buffer, true)
    }

    /// For connected sockets: the peer is known, so the kernel is not asked for addresses and
    /// control messages, which saves it the copying. [`RecvBatch::source`] and [`RecvBatch::info`]
    /// give neutral values.
    pub fn connected(capacity: usize, buffer: usize) -> Self {
        Self::build(capacity, buffer, false)
    }

    fn build(capacity: usize, buffer: usize, with_envelopes: bool) -> Self {
        // the kernel takes no more than UIO_MAXIOV messages at once
        let capacity = capacity.clamp(1, 1024);
        let buffer = buffer.clamp(1, 65_535);
        let stride = buffer.next_multiple_of(64).saturating_add(STAGGER);
        let mut buffers = Stable::new(vec![0_u8; capacity.saturating_mul(stride)]);
        let mut envelopes = Stable::new(vec![
            Envelope {
                control: [0; 8],
                source: Address::zeroed(),
            };
            if with_envelopes { capacity } else { 0 }
        ]);
        let mut vectors = Stable::new(
            (0..capacity)
                .map(|index| libc::iovec {
                    iov_base: buffers.at(index.saturating_mul(stride)).cast(),
                    iov_len: buffer,
                })
                .collect(),
        );
        let headers = Stable::new(
            (0..capacity)
                .map(|index| {
                    // SAFETY: zero is a valid value of every field: null pointers and lengths of 0.
                    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                    header.msg_hdr.msg_iov = vectors.at(index);
                    header.msg_hdr.msg_iovlen = 1;
                    if with_envelopes {
                        let envelope = envelopes.at(index);
                        // SAFETY: there are as many envelopes as headers; only addresses are taken.
                        unsafe {
                            header.msg_hdr.msg_name = (&raw mut (*envelope).source).cast();
                            header.msg_hdr.msg_control = (&raw mut (*envelope).control).cast();
                        }
                        header.msg_hdr.msg_namelen = ADDRESS_LEN;
                        header.msg_hdr.msg_controllen = RECEIVE_LEN as _;
                    }
                    header
                })
                .collect(),
        );
        Self {
            headers,
            vectors,
            envelopes,
            buffers,
            buffer,
            stride,
            received: 0,
        }
    }

    /// Takes up to [`RecvBatch::capacity`] datagrams that have arrived, without waiting, over the
    /// ones of the last call. The number taken; fewer than the capacity means that the queue was
    /// drained.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when there is nothing. On connected sockets,
    /// what an ICMP message said about packets sent earlier
    /// ([`ConnectionRefused`](io::ErrorKind::ConnectionRefused) and the like): one such error stands
    /// for all that came so far, and datagrams may be waiting behind it, so call again.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let socket = socket.as_fd();
        let with_envelopes = !self.envelopes.as_slice().is_empty();
        if with_envelopes {
            // the kernel wrote the lengths it used into the messages it used, and into no others
            for header in self.headers.as_mut_slice().iter_mut().take(self.received) {
                header.msg_hdr.msg_namelen = ADDRESS_LEN;
                header.msg_hdr.msg_controllen = RECEIVE_LEN as _;
            }
        }
        self.received = 0;
        let capacity = self.capacity();
        loop {
            // SAFETY: `headers` holds `capacity` messages, whose pointers lead to buffers of the
            // stated lengths that `self` owns and that nobody else borrows during the call.
            let taken = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.at(0),
                    capacity as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    ptr::null_mut(),
                )
            };
            if let Ok(taken) = usize::try_from(taken) {
                self.received = taken;
                return Ok(taken);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Err(error),
                _ => {
                    if !with_envelopes {
                        error_queue::drain(socket);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The most datagrams that one call takes.
    pub fn capacity(&self) -> usize {
        self.headers.as_slice().len()
    }

    /// How many the last call took.
    pub fn received(&self) -> usize {
        self.received
    }

    fn header(&self, index: usize) -> Option<&libc::mmsghdr> {
        let received = self.headers.as_slice().get(..self.received)?;
        received.get(index)
    }

    /// Octets of the packet that are in the buffer.
    #[inline]
    pub fn len(&self, index: usize) -> usize {
        self.header(index)
            .map_or(0, |header| (header.msg_len as usize).min(self.buffer))
    }

    /// The packet as received (or as edited since).
    #[inline]
    pub fn packet(&self, index: usize) -> &[u8] {
        self.buffer(index)
            .get(..self.len(index))
            .unwrap_or_default()
    }

    /// The packet's whole buffer, which starts with the packet.
    #[inline]
    pub fn buffer(&self, index: usize) -> &[u8] {
        let start = index.saturating_mul(self.stride);
        let end = start.saturating_add(self.buffer);
        self.buffers.as_slice().get(start..end).unwrap_or_default()
    }

    /// The packet's whole buffer, for an answer written in the packet's place.
    #[inline]
    pub fn buffer_mut(&mut self, index: usize) -> &mut [u8] {
        let start = index.saturating_mul(self.stride);
        let end = start.saturating_add(self.buffer);
        self.buffers
            .as_mut_slice()
            .get_mut(start..end)
            .unwrap_or_default()
    }

    /// Who sent the packet; `0.0.0.0:0` on connected sockets.
    #[inline]
    pub fn source(&self, index: usize) -> SocketAddr {
        const NOBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        if index >= self.received {
            return NOBODY;
        }
        self.envelopes
            .as_slice()
            .get(index)
            .and_then(|envelope| envelope.source.get())
            .unwrap_or(NOBODY)
    }

    /// The address asked, interface and TTL, as far as the socket reports them.
    #[inline]
    pub fn info(&self, index: usize) -> PacketInfo {
        match self.header(index) {
            // SAFETY: the header is as recvmmsg left it, its control space is owned by `self` and
            // borrowed shared.
            Some(header) => unsafe { control::read(&header.msg_hdr) },
            None => PacketInfo::default(),
        }
    }

    /// Whether the packet was longer than the buffer, so that its end is lost.
    #[inline]
    pub fn was_cut(&self, index: usize) -> bool {
        self.header(index)
            .is_some_and(|header| header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{address_of, client, has_ipv6, listener, loopbacks, readable};
    use crate::{BATCH, BUFFER};

    fn receive(batch: &mut RecvBatch, socket: impl AsFd) -> usize {
        readable(&socket);
        batch.receive(&socket).unwrap()
    }

    #[test]
    fn a_batch_comes_in_order_with_its_sources() {
        for address in loopbacks() {
            let socket = listener(address);
            let clients = [client(address), client(address)];
            let mut expected = Vec::new();
            for n in 0..100_u8 {
                let client = &clients[usize::from(n % 2)];
                client.send_to(&[n; 30], address_of(&socket)).unwrap();
                expected.push((vec![n; 30], client.local_addr().unwrap()));
            }
            let mut batch = RecvBatch::new(BATCH, BUFFER);
            let mut found = Vec::new();
            while found.len() < expected.len() {
                let taken = receive(&mut batch, &socket);
                assert!((1..=BATCH).contains(&taken));
                assert_eq!(batch.received(), taken);
                for index in 0..taken {
                    assert!(!batch.was_cut(index));
                    assert_eq!(batch.buffer(index).len(), BUFFER);
                    found.push((batch.packet(index).to_vec(), batch.source(index)));
                }
            }
            assert_eq!(found, expected);
            let error = batch.receive(&socket).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(batch.received(), 0);
        }
    }

    #[test]
    fn lengths_are_reset_between_calls() {
        // IPv4 and IPv6 names and control messages differ in length: a batch that kept the
        // shorter ones would cut the longer
        if !has_ipv6() {
            return;
        }
        let (v4, v6) = (listener("0.0.0.0:0"), listener("[::]:0"));
        let (from_v4, from_v6) = (client("127.0.0.1:0"), client("[::1]:0"));
        let mut batch = RecvBatch::new(4, 512);
        for _ in 0..3 {
            from_v4
                .send_to(b"4", ("127.0.0.1", address_of(&v4).port()))
                .unwrap();
            assert_eq!(receive(&mut batch, &v4), 1);
            assert_eq!(batch.source(0), from_v4.local_addr().unwrap());
            assert_eq!(batch.info(0).local, Some("127.0.0.1".parse().unwrap()));
            assert!(batch.info(0).ttl.is_some());
            from_v6
                .send_to(b"6", ("::1", address_of(&v6).port()))
                .unwrap();
            assert_eq!(receive(&mut batch, &v6), 1);
            assert_eq!(batch.source(0), from_v6.local_addr().unwrap());
            assert_eq!(batch.info(0).local, Some("::1".parse().unwrap()));
            assert!(batch.info(0).ttl.is_some());
        }
    }

    #[test]
    fn the_hop_limit_is_read() {
        for address in loopbacks() {
            let socket = listener(address);
            let client = socket2::Socket::from(client(address));
            if address.contains('[') {
                client.set_unicast_hops_v6(57).unwrap();
            } else {
                client.set_ttl_v4(57).unwrap();
            }
            client.send_to(b"?", &address_of(&socket).into()).unwrap();
            let mut batch = RecvBatch::new(4, 512);
            assert_eq!(receive(&mut batch, &socket), 1);
            let info = batch.info(0);
            assert_eq!(info.ttl, Some(57));
            // the local address is known, so the kernel is not asked
            assert_eq!(info.local, None);
            assert_eq!(info.reply_from(), None);
        }
    }

    #[test]
    fn a_packet_too_long_is_marked() {
        let socket = listener("127.0.0.1:0");
        let client = client("127.0.0.1:0");
        for len in [511, 512, 513, 0] {
            client.send_to(&vec![7; len], address_of(&socket)).unwrap();
        }
        let mut batch = RecvBatch::new(8, 512);
        let mut found = Vec::new();
        while found.len() < 4 {
            let taken = receive(&mut batch, &socket);
            found.extend((0..taken).map(|index| (batch.len(index), batch.was_cut(index))));
        }
        assert_eq!(found, [(511, false), (512, false), (512, true), (0, false)]);
    }

    #[test]
    fn past_the_end_is_nothing() {
        let mut batch = RecvBatch::new(2, 512);
        for index in [0, 2, usize::MAX] {
            assert_eq!(batch.len(index), 0);
            assert!(batch.packet(index).is_empty());
            assert_eq!(batch.source(index).port(), 0);
            assert_eq!(batch.info(index), PacketInfo::default());
            assert!(!batch.was_cut(index));
        }
        assert!(batch.buffer(2).is_empty());
        assert!(batch.buffer_mut(usize::MAX).is_empty());
        // the last buffer does not reach into the gap behind it
        assert_eq!(batch.buffer_mut(1).len(), 512);
    }

    #[test]
    fn a_batch_moves_between_threads() {
        let socket = listener("127.0.0.1:0");
        let mut batch = RecvBatch::new(4, 512);
        client("127.0.0.1:0")
            .send_to(b"?", address_of(&socket))
            .unwrap();
        let batch = std::thread::spawn(move || {
            receive(&mut batch, &socket);
            batch
        })
        .join()
        .unwrap();
        assert_eq!(batch.packet(0), b"?");
    }

    #[test]
    fn only_link_local_answers_are_tied_to_the_interface() {
        let asked = |local: &str| PacketInfo {
            local: Some(local.parse().unwrap()),
            interface: 3,
            ttl: None,
        };
        for (local, interface) in [("192.0.2.1", 0), ("2001:db8::1", 0), ("fe80::1", 3)] {
            let expected = Some((local.parse().unwrap(), interface));
            assert_eq!(asked(local).reply_from(), expected);
        }
    }
}
