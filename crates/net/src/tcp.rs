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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{first_readable, loopbacks, readable};
    use crate::{check_unused, steer_by_source};
    use std::net::TcpStream;

    #[test]
    fn a_source_meets_one_listener() {
        for address in loopbacks() {
            let options = TcpListenerOptions::default();
            let first = bind_tcp_listener(address.parse().unwrap(), &options).unwrap();
            let address = first.local_addr().unwrap();
            steer_by_source(&first, 3, 0x5eed).unwrap();
            let mut group = vec![first];
            while group.len() < 3 {
                group.push(bind_tcp_listener(address, &options).unwrap());
            }
            // one source: whichever listener it is, it is the same each time
            let mut used = Vec::new();
            for _ in 0..12 {
                let _client = TcpStream::connect(address).unwrap();
                let index = first_readable(&group);
                let (stream, _) = group[index].accept().unwrap();
                assert!(stream.nodelay().unwrap());
                used.push(index);
            }
            used.dedup();
            assert_eq!(used.len(), 1, "{used:?}");
        }
    }

    #[test]
    fn a_deferred_connection_comes_with_its_data() {
        use std::io::Write;
        let options = TcpListenerOptions {
            defer_accept: Some(5),
            ..TcpListenerOptions::default()
        };
        let listener = bind_tcp_listener("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        client.write_all(b"?").unwrap();
        readable(&listener);
        listener.accept().unwrap();
    }

    #[test]
    fn a_listener_in_use_is_named() {
        let options = TcpListenerOptions::default();
        let listener = bind_tcp_listener("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let address = listener.local_addr().unwrap();
        let error = check_unused(address, Transport::Tcp, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&format!("TCP {address}")), "{text}");
        assert!(text.contains("ss -lntp"), "{text}");
        drop(listener);
        check_unused(address, Transport::Tcp, false).unwrap();
    }
}
