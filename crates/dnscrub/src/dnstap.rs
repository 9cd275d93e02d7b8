//! dnstap: copies of queries and answers for other programs.
//!
//! Workers copy into rings ([`Tap`]), one thread makes messages of that and writes them. Nothing here can
//! hold a packet up: what finds no room in its ring is lost and counted. While the file cannot be written
//! or the collector is away, the rings fill, and what is in them is written once it is back.

pub mod config;
mod frames;
mod message;
mod sink;
mod tap;
mod writer;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

pub use config::Settings;
pub use tap::Tap;
pub(crate) use tap::{Asker, Settled};
pub use writer::Writer;

use crate::shared::Shared;

/// How the writing goes.
#[derive(Debug, Default)]
pub struct Progress {
    frames: AtomicU64,
    lost: AtomicU64,
    open: AtomicBool,
}

impl Progress {
    /// Messages written.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// Messages that were lost because writing failed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Whether the file is open, or the collector there.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }
}

/// Starts the thread that writes; returns it and a tap for each worker. `endpoints` are the addresses that
/// are listened on, by the endpoint's index.
///
/// # Errors
/// When the thread cannot be created.
pub fn start(
    settings: &Settings,
    endpoints: &[SocketAddr],
    shared: &Arc<Shared>,
) -> io::Result<(Writer, Vec<Tap>)> {
    let endpoints: Arc<[SocketAddr]> = endpoints.into();
    let (taps, drains) = shared
        .counters
        .iter()
        .map(|counters| {
            tap::pair(
                settings,
                Arc::clone(&endpoints),
                Arc::clone(counters),
                rand::random(),
            )
        })
        .unzip();
    let writer = Writer::start(settings, drains, Arc::clone(shared))?;
    Ok((writer, taps))
}
