//! TCP listeners that many workers share.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use crate::bind::{self, Transport};
use crate::options;

/// How to open a TCP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpListenerOptions {
    /// Connections that may wait to be accepted (the system's `net.core.somaxconn` caps it).
    pub backlog: i32,
    /// Share the port with the other workers' listeners (`SO_REUSEPORT`). All that share must say so.
    pub reuse_port: bool,
    /// Allow an address that no interface has yet (`IP_FREEBIND`).
    pub freebind: bool,
    /// Hand over a connection only when its first data has come, or when about so many seconds are
    /// over (`TCP_DEFER_ACCEPT`), so that connections that stay silent cost the program nothing. `None`
    /// hands it over at once.
    pub defer_accept: Option<u16>,
}

impl Default for TcpListenerOptions {
    /// Shared port, a backlog of 1,024, no free binding, no deferring.
    fn default() -> Self {
        Self {
            backlog: 1024,
            reuse_port: true,
            freebind: false,
            defer_accept: None,
        }
    }
}

/// Opens a TCP listener, nonblocking.
///
/// `SO_REUSEADDR` is set, so that connections of a former instance in TIME_WAIT are no obstacle to a
/// restart. Accepted connections inherit `TCP_NODELAY`: an answer is written whole, and shall not wait
/// for the acknowledgement of the one before. TCP Fast Open stays off: data in the SYN would come
/// from a source that no handshake has verified.
///
/// # Errors
///
/// The operating system's, with its kind kept; the text names the address and what to do.
pub fn bind_tcp_listener(
    address: SocketAddr,
    options: &TcpListenerOptions,
) -> io::Result<TcpListener> {
    let socket = bind::open(address, Transport::Tcp, options.freebind)?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    if let Some(seconds) = options.defer_accept {
        options::set(
            socket.as_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            seconds.into(),
        )?;
    }
    bind::bind(&socket, address, Transport::Tcp)?;
    socket
        .listen(options.backlog)
        .map_err(|error| bind::explain(error, address, Transport::Tcp))?;
    Ok(socket.into())
}
