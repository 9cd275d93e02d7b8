//! The socket that ExaBGP's process connects to: tells what is wanted, hears what has become of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use super::RouteOwner;
use super::speaker::{Report, Wanted};

/// How often what is wanted is repeated, changed or not: it is the sign of life.
pub(super) const REPEAT: Duration = Duration::from_secs(2);
/// How long the other side may take no line.
const STALLED: Duration = Duration::from_secs(5);
/// Connections at a time; more are turned away.
const MOST_CONNECTIONS: usize = 4;
/// Octets of a report.
const LARGEST_REPORT: u64 = 1 << 20;

/// Takes connections until dropped.
pub(super) async fn serve(owner: Arc<RouteOwner>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if owner.connections() < MOST_CONNECTIONS => {
                let connection = owner.connect();
                let owner = Arc::clone(&owner);
                info!("ExaBGP's process has connected");
                tokio::spawn(async move {
                    converse(&owner, connection, stream).await;
                    owner.disconnect(connection);
                    warn!("ExaBGP's process is gone: routes are withdrawn by it, or with it");
                });
            }
            Ok(_) => warn!("one ExaBGP process too many wants to connect"),
            Err(failure) => {
                warn!(%failure, "cannot take a connection of ExaBGP's process");
                tokio::time::sleep(REPEAT).await;
            }
        }
    }
}

async fn converse(owner: &RouteOwner, connection: u64, stream: UnixStream) {
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading.take(LARGEST_REPORT));
    let mut wanted = owner.wanted();
    let mut line = Vec::new();
    loop {
        let routes = wanted.borrow_and_update().iter().cloned().collect();
        let Ok(mut text) = serde_json::to_vec(&Wanted { routes }) else {
            return;
        };
        text.push(b'\n');
        match tokio::time::timeout(STALLED, writing.write_all(&text)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        let repeat = tokio::time::sleep(REPEAT);
        tokio::pin!(repeat);
        loop {
            tokio::select! {
                () = &mut repeat => break,
                changed = wanted.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                // what was read of a line stays in `line` when something else comes first
                read = lines.read_until(b'\n', &mut line) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        let Ok(report) = serde_json::from_slice::<Report>(&line) else {
                            warn!("ExaBGP's process is of another version: restart ExaBGP");
                            return;
                        };
                        owner.hear(connection, report);
                        line.clear();
                        lines.get_mut().set_limit(LARGEST_REPORT);
                    }
                },
            }
        }
    }
}
