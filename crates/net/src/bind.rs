//! Binding, with errors that say what to do.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// The two transports of plain DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// Checks that nobody has the address and port, by binding to them for a moment.
///
/// Sockets that share a port (`SO_REUSEPORT`) also share it with another process of the same user: a
/// second instance would start without complaint and take part of the first one's queries. Call
/// this once before opening a group of such sockets; the check and the opening are not atomic.
///
/// # Errors
///
/// As [`bind_listener`](crate::bind_listener).
pub fn check_unused(address: SocketAddr, transport: Transport, freebind: bool) -> io::Result<()> {
    let socket = open(address, transport, freebind)?;
    if transport == Transport::Tcp {
        // so that connections of a former instance that linger in TIME_WAIT are no obstacle
        socket.set_reuse_address(true)?;
    }
    bind(&socket, address, transport)?;
    if transport == Transport::Tcp {
        // with the address reusable, only listening tells whether somebody else listens
        socket
            .listen(1)
            .map_err(|error| explain(error, address, transport))?;
    }
    Ok(())
}

/// A new socket of the address's family, IPv6 for IPv6 only, nonblocking, closed on exec.
pub(crate) fn open(
    address: SocketAddr,
    transport: Transport,
    freebind: bool,
) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(
        Domain::for_address(address),
        kind.nonblocking(),
        Some(protocol),
    )?;
    if address.is_ipv6() {
        // [::] and 0.0.0.0 are two listeners, so that IPv4 sources always look like IPv4 sources
        socket.set_only_v6(true)?;
    }
    if freebind {
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    Ok(socket)
}

pub(crate) fn bind(socket: &Socket, address: SocketAddr, transport: Transport) -> io::Result<()> {
    socket
        .bind(&address.into())
        .map_err(|error| explain(error, address, transport))
}

/// The wildcard address of the same family.
pub(crate) fn unspecified(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The same kind of error, naming the address and what to do.
pub(crate) fn explain(error: io::Error, address: SocketAddr, transport: Transport) -> io::Error {
    let port = address.port();
    let ip = address.ip();
    let advice = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let letter = match transport {
                Transport::Udp => 'u',
                Transport::Tcp => 't',
            };
            format!(
                "another program has this port (`ss -ln{letter}p 'sport = :{port}'` shows which): \
                 stop it, or choose another address or port"
            )
        }
        Some(libc::EACCES) if port < 1024 => format!(
            "port {port} needs a privilege: give the process CAP_NET_BIND_SERVICE, or choose a port \
             above 1023"
        ),
        Some(libc::EACCES | libc::EPERM) => {
            "the system's security policy does not allow it".to_owned()
        }
        Some(libc::EADDRNOTAVAIL) => format!(
            "no interface of this machine has the address {ip}: correct it, add it to an interface, or \
             allow addresses that come later (free binding)"
        ),
        Some(libc::EAFNOSUPPORT) if address.is_ipv6() => {
            "IPv6 is switched off on this machine: enable it, or use an IPv4 address".to_owned()
        }
        Some(libc::EINVAL) if is_link_local(ip) => {
            format!("a link-local address needs its interface: write [{ip}%INDEX]:{port}")
        }
        _ => {
            return io::Error::new(
                error.kind(),
                format!("cannot bind {transport} {address}: {error}"),
            );
        }
    };
    io::Error::new(
        error.kind(),
        format!("cannot bind {transport} {address}: {error}; {advice}"),
    )
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}
