//! The seam between the workers and the way packets come and go.

use std::io;
use std::os::fd::AsFd;

use crate::receive::RecvBatch;
use crate::send::{Outgoing, SendBatch, SendReport};

/// Something that receives and sends datagrams in batches.
///
/// Workers are generic over it (no dynamic dispatch). [`UdpListener`](crate::UdpListener) and
/// [`UdpUpstream`](crate::UdpUpstream) implement it with `recvmmsg` and `sendmmsg`. A backend with
/// buffers of its own (`AF_XDP`, `io_uring`) fills the batch's buffers from them: a DNS query is a cache
/// line or two, which costs less to copy than to keep track of.
pub trait PacketIo {
    /// See [`RecvBatch::receive`].
    ///
    /// # Errors
    ///
    /// As [`RecvBatch::receive`].
    fn receive(&self, batch: &mut RecvBatch) -> io::Result<usize>;

    /// See [`SendBatch::send`].
    fn send<'a>(
        &self,
        batch: &mut SendBatch,
        messages: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> SendReport;
}

macro_rules! over_descriptor {
    ($($socket:ty),+) => {$(
        impl PacketIo for $socket {
            #[inline]
            fn receive(&self, batch: &mut RecvBatch) -> io::Result<usize> {
                batch.receive(self.as_fd())
            }

            #[inline]
            fn send<'a>(
                &self,
                batch: &mut SendBatch,
                messages: impl IntoIterator<Item = Outgoing<'a>>,
            ) -> SendReport {
                batch.send(self.as_fd(), messages)
            }
        }
    )+};
}

over_descriptor!(crate::UdpListener, crate::UdpUpstream);
