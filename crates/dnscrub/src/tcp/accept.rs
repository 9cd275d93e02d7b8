//! New connections: who gets one.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use dnscrub_scoring::Transport;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::client::{self, Client};
use super::clients::Prefix;
use super::{Turn, now, turn};
use crate::data_path::{Endpoint, Origin};
use crate::worker::Worker;

/// Pause when the system gives no connection although one waits: it has run out of descriptors or
/// memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the worker stops.
pub(super) async fn serve(worker: Rc<Worker>, endpoint: Endpoint, listener: TcpListener) {
    loop {
        let accepted = listener.accept().await;
        if worker.is_stopping() {
            return;
        }
        match accepted {
            Ok((stream, address)) => {
                turn(&worker, now(), |turn| turn.admit(endpoint, stream, address))
            }
            // the client went away while it waited
            Err(failure) if failure.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(failure) => {
                tracing::warn!(%failure, "cannot accept TCP connections; making room");
                turn(&worker, now(), |turn| turn.close_longest_idle());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Turn<'_> {
    /// Takes a connection in, or turns it away by closing it.
    fn admit(&mut self, endpoint: Endpoint, stream: TcpStream, address: SocketAddr) {
        let prefix = Prefix::of(address.ip());
        let has_room = self.has_room(address, prefix);
        self.path.watch().connection(has_room);
        if !has_room {
            return self.counters.tcp_turned_away.add(1);
        }
        let (reader, writer) = stream.into_split();
        let origin = Origin {
            client: address,
            reply_from: None,
            ttl: None,
            endpoint,
            transport: Transport::Tcp,
        };
        let client = Rc::new(Client::new(writer, origin, prefix, self.now));
        self.relay.clients.insert(&client, self.now);
        self.counters.tcp_accepted.add(1);
        self.counters.tcp_open.set(self.relay.clients.len() as u64);
        spawn_local(client::serve(Rc::clone(self.worker), client, reader));
    }

    /// Whether the source is served and no limit is reached; if so, its place is taken.
    fn has_room(&mut self, address: SocketAddr, prefix: Prefix) -> bool {
        let limits = &self.path.policy().tcp;
        let (most, most_of_prefix) = (limits.max_connections, limits.max_connections_per_prefix);
        if self.relay.clients.of_prefix(prefix) >= most_of_prefix
            || !self.path.admits_connection(address.ip())
        {
            return false;
        }
        let shared = &self.worker.shared.tcp_connections;
        take_place(shared, most) || (self.close_longest_idle() && take_place(shared, most))
    }

    /// Closes the connection that has been idle longest; whether there was one.
    fn close_longest_idle(&mut self) -> bool {
        let Some(client) = self.relay.clients.longest_idle() else {
            return false;
        };
        self.close(&client);
        true
    }
}

/// Takes one of `most` places, if one is free.
pub(super) fn take_place(taken: &AtomicUsize, most: usize) -> bool {
    taken
        .fetch_update(Relaxed, Relaxed, |taken| {
            (taken < most).then_some(taken + 1)
        })
        .is_ok()
}
