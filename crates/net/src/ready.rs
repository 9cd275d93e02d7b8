//! Waiting for a socket to become readable, in tokio's runtime.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket that owns its descriptor and never exchanges it for another.
pub trait OwnedSocket: AsRawFd + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::UdpListener {}
    impl Sealed for crate::UdpUpstream {}
}

impl OwnedSocket for crate::UdpListener {}
impl OwnedSocket for crate::UdpUpstream {}

/// Registers the socket with the runtime of the calling thread, edge-triggered, for reading.
///
/// # Errors
///
/// The operating system's.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn when_readable<S: OwnedSocket>(socket: S) -> io::Result<AsyncFd<S>> {
    // SAFETY: the trait is sealed, and both its types own the descriptor that `as_raw_fd` names,
    // hold it open until they are dropped, and name the same one at every call.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}
