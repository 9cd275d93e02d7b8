//! UDP sockets: listeners that many workers share, and connected sockets to upstreams.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::bind::{self, Transport};
use crate::options::{self, Buffer};

/// How to open a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpListenerOptions {
    /// Share the port with the other workers' sockets (`SO_REUSEPORT`). All that share must say so.
    pub reuse_port: bool,
    /// Allow an address that no interface has yet (`IP_FREEBIND`), such as a floating one.
    pub freebind: bool,
    /// Report each packet's IP TTL or hop limit, which costs the kernel one control message a packet.
    pub receive_ttl: bool,
    /// Octets of the receive buffer to ask for; `None` leaves the system's default.
    pub receive_buffer: Option<usize>,
    /// Octets of the send buffer to ask for; `None` leaves the system's default.
    pub send_buffer: Option<usize>,
}

impl Default for UdpListenerOptions {
    /// Shared port, TTL reported, no free binding, the system's buffers.
    fn default() -> Self {
        Self {
            reuse_port: true,
            freebind: false,
            receive_ttl: true,
            receive_buffer: None,
            send_buffer: None,
        }
    }
}

/// A bound UDP socket that serves clients. Nonblocking.
#[derive(Debug)]
pub struct UdpListener {
    socket: UdpSocket,
    receive_buffer: usize,
    send_buffer: usize,
}

/// Opens a listener.
///
/// - `SO_REUSEADDR` is left off: for UDP it would let another program take over the port.
/// - IPv6 sockets take IPv6 only.
/// - Packet information is asked for on wildcard addresses only: elsewhere the local address is
///   known, and the control message would cost both ways.
/// - Path MTU discovery is omitted (`IP_PMTUDISC_OMIT`): answers go out without the "don't fragment"
///   bit, and cut to the interface's MTU, not to what ICMP messages said about the path. Forged
///   "fragmentation needed" messages are a way to make a server fragment its answers, into which
///   false second halves can be slipped.
///
/// # Errors
///
/// The operating system's, with its kind kept; the text names the address and what to do.
pub fn bind_listener(address: SocketAddr, options: &UdpListenerOptions) -> io::Result<UdpListener> {
    let socket = bind::open(address, Transport::Udp, options.freebind)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    let fd = socket.as_fd();
    let wildcard = address.ip().is_unspecified();
    if address.is_ipv4() {
        if wildcard {
            options::set(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        if options.receive_ttl {
            options::set(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, 1)?;
        }
    } else {
        if wildcard {
            options::set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
        if options.receive_ttl {
            options::set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
        }
    }
    omit_mtu_discovery(fd, address)?;
    let receive_buffer = options::set_buffer(fd, options.receive_buffer, Buffer::Receive)?;
    let send_buffer = options::set_buffer(fd, options.send_buffer, Buffer::Send)?;
    bind::bind(&socket, address, Transport::Udp)?;
    Ok(UdpListener {
        socket: socket.into(),
        receive_buffer,
        send_buffer,
    })
}

/// How to open a socket to an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpUpstreamOptions {
    /// The local address to send from; `None` leaves it to the routing table.
    pub source: Option<IpAddr>,
    /// Octets of the receive buffer to ask for; `None` leaves the system's default.
    pub receive_buffer: Option<usize>,
    /// Octets of the send buffer to ask for; `None` leaves the system's default.
    pub send_buffer: Option<usize>,
}

/// A UDP socket connected to an upstream: the kernel drops what comes from anybody else, and
/// reports what ICMP says about what was sent. Nonblocking.
#[derive(Debug)]
pub struct UdpUpstream {
    socket: UdpSocket,
    receive_buffer: usize,
    send_buffer: usize,
}

/// Opens a socket to an upstream, from the first of `ports` that is free, or from a port of the
/// kernel's choosing when none is.
///
/// The source port is half of what an off-path forger has to guess (RFC 5452, section 4.5), and the
/// kernel takes ephemeral ports from a narrow range. So give a few candidates of cryptographic
/// randomness over 1,024–65,535. The port is never shared.
///
/// ICMP errors are reported (`IP_RECVERR`), also the soft ones (host or network unreachable), which a
/// connected socket alone would not tell. They are forgeable by who knows the ports: a reason to try
/// elsewhere, no proof.
///
/// # Errors
///
/// The operating system's, with its kind kept; the text names the addresses.
pub fn connect_upstream(
    address: SocketAddr,
    options: &UdpUpstreamOptions,
    ports: impl IntoIterator<Item = u16>,
) -> io::Result<UdpUpstream> {
    let socket = bind::open(address, Transport::Udp, false)?;
    let fd = socket.as_fd();
    let (level, option) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    options::set(fd, level, option, 1)?;
    omit_mtu_discovery(fd, address)?;
    let receive_buffer = options::set_buffer(fd, options.receive_buffer, Buffer::Receive)?;
    let send_buffer = options::set_buffer(fd, options.send_buffer, Buffer::Send)?;

    let source = options.source.unwrap_or(bind::unspecified(address));
    let local = |port| {
        let mut local = SocketAddr::new(source, port);
        if let (SocketAddr::V6(local), SocketAddr::V6(peer)) = (&mut local, address)
            && local.ip().is_unicast_link_local()
        {
            local.set_scope_id(peer.scope_id());
        }
        local
    };
    // port 0 has the kernel choose, so a candidate of 0 is none
    let bound = ports
        .into_iter()
        .filter(|&port| port != 0)
        .any(|port| socket.bind(&local(port).into()).is_ok());
    if !bound {
        bind::bind(&socket, local(0), Transport::Udp)?;
    }
    socket.connect(&address.into()).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot reach UDP {address} from {source}: {error}"),
        )
    })?;
    Ok(UdpUpstream {
        socket: socket.into(),
        receive_buffer,
        send_buffer,
    })
}

fn omit_mtu_discovery(socket: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => options::set(
            socket,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_OMIT,
        ),
        SocketAddr::V6(_) => options::set(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_OMIT,
        ),
    }
}

macro_rules! socket_wrapper {
    ($($socket:ty),+) => {$(
        impl $socket {
            /// The local address, with the port that was chosen.
            ///
            /// # Errors
            ///
            /// The operating system's.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.socket.local_addr()
            }

            /// Octets of the receive buffer as the kernel accounts for them, its bookkeeping
            /// included (about twice what was asked for, if that was granted).
            pub fn receive_buffer(&self) -> usize {
                self.receive_buffer
            }

            /// Octets of the send buffer, counted likewise.
            pub fn send_buffer(&self) -> usize {
                self.send_buffer
            }
        }

        impl AsFd for $socket {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.socket.as_fd()
            }
        }

        impl AsRawFd for $socket {
            fn as_raw_fd(&self) -> RawFd {
                self.socket.as_raw_fd()
            }
        }
    )+};
}

socket_wrapper!(UdpListener, UdpUpstream);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_unused;
    use crate::test_support::{address_of, has_ipv6, listener, loopbacks, readable};
    use crate::{BATCH, Outgoing, PacketIo, RecvBatch, SendBatch};

    #[test]
    fn upstream_and_listener_talk() {
        fn exchange(socket: &impl PacketIo, fd: BorrowedFd<'_>, batch: &mut RecvBatch) {
            let sent = socket.send(
                &mut SendBatch::new(BATCH),
                [Outgoing {
                    packet: b"query",
                    to: None,
                    from: None,
                }],
            );
            assert_eq!(sent.sent, 1);
            readable(fd);
            assert_eq!(socket.receive(batch).unwrap(), 1);
        }
        for address in loopbacks() {
            let server = listener(address);
            let upstream =
                connect_upstream(address_of(&server), &UdpUpstreamOptions::default(), []).unwrap();
            let echo = std::thread::spawn(move || {
                let mut batch = RecvBatch::new(BATCH, 512);
                readable(&server);
                assert_eq!(server.receive(&mut batch).unwrap(), 1);
                let answer = Outgoing {
                    packet: batch.packet(0),
                    to: Some(batch.source(0)),
                    from: batch.info(0).reply_from(),
                };
                let report = server.send(&mut SendBatch::new(BATCH), [answer]);
                assert_eq!(report.sent, 1);
            });
            let mut batch = RecvBatch::connected(BATCH, 512);
            exchange(&upstream, upstream.as_fd(), &mut batch);
            echo.join().unwrap();
            assert_eq!(batch.packet(0), b"query");
            assert_eq!(batch.info(0), crate::PacketInfo::default());
        }
    }

    #[test]
    fn the_first_free_candidate_is_the_source_port() {
        let server = listener("127.0.0.1:0");
        let free = UdpSocket::bind("0.0.0.0:0").unwrap();
        let free_port = free.local_addr().unwrap().port();
        let busy = address_of(&server).port();
        drop(free);
        let options = UdpUpstreamOptions {
            source: Some("127.0.0.1".parse().unwrap()),
            ..UdpUpstreamOptions::default()
        };
        let upstream = connect_upstream(address_of(&server), &options, [busy, free_port]).unwrap();
        let local = upstream.local_addr().unwrap();
        assert_eq!(
            local,
            SocketAddr::new("127.0.0.1".parse().unwrap(), free_port)
        );
        // with none free, the kernel chooses
        let upstream = connect_upstream(address_of(&server), &options, [busy, 0]).unwrap();
        let port = upstream.local_addr().unwrap().port();
        assert!(port != 0 && port != busy);
    }

    #[test]
    fn errors_of_binding_say_what_to_do() {
        let options = UdpListenerOptions {
            reuse_port: false,
            ..UdpListenerOptions::default()
        };
        let holder = bind_listener("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let address = address_of(&holder);
        let error = bind_listener(address, &options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&format!("UDP {address}")), "{text}");
        let command = format!("ss -lnup 'sport = :{}'", address.port());
        assert!(text.contains(&command), "{text}");

        // TEST-NET-1, RFC 5737
        let error = bind_listener("192.0.2.77:53".parse().unwrap(), &options).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("UDP 192.0.2.77:53"), "{text}");
        assert!(
            text.contains("no interface") || text.contains("CAP_NET_BIND"),
            "{text}"
        );

        // permission cannot be taken from a test that runs as root
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let error = bind::explain(denied, "0.0.0.0:53".parse().unwrap(), Transport::Udp);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("CAP_NET_BIND_SERVICE"));
    }

    #[test]
    fn free_binding_allows_an_address_that_comes_later() {
        let mut options = UdpListenerOptions {
            freebind: true,
            ..UdpListenerOptions::default()
        };
        bind_listener("192.0.2.77:0".parse().unwrap(), &options).unwrap();
        options.freebind = false;
        bind_listener("192.0.2.77:0".parse().unwrap(), &options).unwrap_err();
    }

    #[test]
    fn a_shared_port_is_seen_as_used() {
        let shared = listener("127.0.0.1:0");
        let address = address_of(&shared);
        // this is what makes the check necessary
        bind_listener(address, &UdpListenerOptions::default()).unwrap();
        let error = check_unused(address, Transport::Udp, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        check_unused("127.0.0.1:0".parse().unwrap(), Transport::Udp, false).unwrap();
    }

    #[test]
    fn both_wildcards_can_share_a_port_number() {
        if has_ipv6() {
            let options = UdpListenerOptions {
                reuse_port: false,
                ..UdpListenerOptions::default()
            };
            let v6 = bind_listener("[::]:0".parse().unwrap(), &options).unwrap();
            let v4 = SocketAddr::new("0.0.0.0".parse().unwrap(), address_of(&v6).port());
            // another test's socket may have the number by chance, which is another matter
            if UdpSocket::bind(v4).is_ok() {
                bind_listener(v4, &options).unwrap();
            }
        }
    }
}
