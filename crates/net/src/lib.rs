//! Sockets for a DNS proxy: batched UDP, packet information, steering, drop counts.
//!
//! `unsafe` code of the workspace is here and in the loader of the program for the kernel (`dnscrub-xdp`): `recvmmsg`,
//! `sendmmsg` and classic BPF have no safe wrapper elsewhere. Linux only.
//!
//! The loop of a worker is: wait until the socket is readable, [`RecvBatch::receive`], look at each
//! packet (and edit it in place), then send from the same buffers with [`SendBatch::send`]. Neither
//! call allocates.
//!
//! # Edge-triggered readiness
//!
//! A [`RecvBatch::receive`] that returns **fewer packets than the batch's capacity has drained the
//! queue**: the kernel stopped because there was nothing left. The caller may clear its readiness
//! (tokio's `AsyncFdReadyGuard::clear_ready`) without a further call that would only say
//! [`WouldBlock`](std::io::ErrorKind::WouldBlock). What arrives in between raises a new edge. Only a
//! full batch asks for another call.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod address;
mod bind;
mod control;
mod error_queue;
mod io;
mod memory;
mod options;
pub mod process;
mod ready;
mod receive;
mod send;
mod steering;
pub mod tcp;
#[cfg(test)]
mod test_support;
pub mod thread;
mod udp;

pub use bind::{Transport, check_unused};
pub use io::PacketIo;
pub use options::{ReceiveQueue, receive_queue, receive_queue_drops};
pub use ready::{OwnedSocket, when_readable};
pub use receive::{PacketInfo, RecvBatch};
pub use send::{Outgoing, SendBatch, SendReport};
pub use steering::{SteeringError, steer_by_source};
pub use udp::{
    UdpListener, UdpListenerOptions, UdpUpstream, UdpUpstreamOptions, bind_listener,
    connect_upstream,
};

/// Packets in a batch, both ways: enough to spread the cost of a system call, few enough that the
/// first lines of all buffers stay in the first-level cache.
pub const BATCH: usize = 64;

/// Octets of a receive buffer: above the 1,232 and 1,400 that DNS software of today sends over UDP, and
/// above what any query needs. What is longer arrives cut and says so ([`RecvBatch::was_cut`]).
pub const BUFFER: usize = 4096;
