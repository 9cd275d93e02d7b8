//! Waiting and sockets for the tests, which all run on the loopback interface of the real kernel.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use crate::{UdpListener, UdpListenerOptions, bind_listener};

/// Far above what loopback takes; reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until there is something to receive or to accept, or an error to report.
pub(crate) fn readable(socket: impl AsFd) {
    first_readable(&[socket]);
}

/// Waits for any of the sockets; which.
pub(crate) fn first_readable(sockets: &[impl AsFd]) -> usize {
    let mut wanted: Vec<libc::pollfd> = sockets
        .iter()
        .map(|socket| libc::pollfd {
            fd: socket.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the entries live through the call, and there are as many as stated.
    unsafe {
        libc::poll(
            wanted.as_mut_ptr(),
            wanted.len() as libc::nfds_t,
            PATIENCE.as_millis() as i32,
        );
    }
    wanted
        .iter()
        .position(|socket| socket.revents != 0)
        .expect("nothing came")
}

/// Waits until the kernel has got round to it: under load, loopback packets arrive a moment late.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it did not happen");
        std::thread::yield_now();
    }
}

pub(crate) fn listener(address: &str) -> UdpListener {
    bind_listener(address.parse().unwrap(), &UdpListenerOptions::default()).unwrap()
}

/// A blocking client that gives up rather than hang.
pub(crate) fn client(address: &str) -> UdpSocket {
    let client = UdpSocket::bind(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

pub(crate) fn address_of(socket: &UdpListener) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// Whether this machine has an IPv6 loopback address. Containers often do without.
pub(crate) fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

/// The loopback addresses the tests run over.
pub(crate) fn loopbacks() -> impl Iterator<Item = &'static str> {
    ["127.0.0.1:0", "[::1]:0"]
        .into_iter()
        .filter(|address| !address.contains('[') || has_ipv6())
}
