//! What ends the demonstration early: SIGINT, SIGTERM, or a key in the live view.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Waits for the wish to end.
pub(super) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
    keys: mpsc::UnboundedReceiver<()>,
    sender: mpsc::UnboundedSender<()>,
}

impl Interrupt {
    /// Catches the signals from now on.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn listen() -> io::Result<Self> {
        let (sender, keys) = mpsc::unbounded_channel();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            keys,
            sender,
        })
    }

    /// For whoever reads the keyboard: sending ends the demonstration.
    pub(super) fn sender(&self) -> mpsc::UnboundedSender<()> {
        self.sender.clone()
    }

    /// Returns when somebody wants it to end.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.keys.recv() => {}
        }
    }
}
