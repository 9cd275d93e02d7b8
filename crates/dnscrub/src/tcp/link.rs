//! What connections to clients and to upstreams have in common: a nonblocking socket, octets that
//! came and wait, octets that are to go, and the task that waits for readiness.
//!
//! Output is written directly by whoever has some; the task looks after it only while the socket is
//! full.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::framing::{Inbox, Outbox};

/// Octets asked of a socket at a time.
pub(super) const READ: usize = 64 << 10;

/// One connection's writing side and octets. The reading side belongs to the connection's task.
#[derive(Debug)]
pub(super) struct Link {
    writer: Option<OwnedWriteHalf>,
    /// What came.
    pub(super) inbox: Inbox,
    /// What is to go.
    pub(super) outbox: Outbox,
    /// The socket is full: the task waits for room.
    pub(super) blocked: bool,
}

impl Link {
    /// A link over a socket that is connected, or will be; its outbox keeps memory for so many octets.
    pub(super) const fn new(writer: Option<OwnedWriteHalf>, keeps: usize) -> Self {
        Self {
            writer,
            inbox: Inbox::new(),
            outbox: Outbox::new(keeps),
            blocked: false,
        }
    }

    /// Whether there is a socket.
    pub(super) const fn is_open(&self) -> bool {
        self.writer.is_some()
    }

    /// The socket is connected.
    pub(super) fn open(&mut self, writer: OwnedWriteHalf) {
        self.writer = Some(writer);
    }

    /// Forgets the socket, which is closed when the task drops its side, and all octets.
    pub(super) fn close(&mut self) {
        if let Some(writer) = self.writer.take() {
            // to drop it would shut the stream down first, which closing does as well
            writer.forget();
        }
        *self = Self::new(None, 0);
    }

    /// Writes as much as the socket takes. Does nothing while the socket is known to be full.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(writer) = &self.writer else {
            return Ok(());
        };
        while !self.blocked && !self.outbox.is_empty() {
            match writer.try_write(self.outbox.waiting()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(octets) => self.outbox.take(octets),
                Err(failure) if failure.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                Err(failure) if failure.kind() == io::ErrorKind::Interrupted => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// While the socket is full, waits for room and writes.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.blocked {
            let Some(writer) = &self.writer else { break };
            ready!(writer.as_ref().poll_write_ready(cx))?;
            self.blocked = false;
            self.flush()?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Waits until the socket is readable and reads once. 0 octets are the end of the stream.
pub(super) fn poll_read(
    reader: &mut OwnedReadHalf,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(reader).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

/// How a connection's task is reached from outside.
#[derive(Debug, Default)]
pub(super) struct Task(RefCell<Option<Waker>>);

impl Task {
    /// Remembers the task that is polled now.
    pub(super) fn is(&self, cx: &Context<'_>) {
        let mut waker = self.0.borrow_mut();
        if waker
            .as_ref()
            .is_none_or(|waker| !waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Has the task look at its connection again.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.0.borrow() {
            waker.wake_by_ref();
        }
    }
}
