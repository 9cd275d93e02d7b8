//! The IO of a refresh: TCP connections for the SOA query and, if need be, for a transfer.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnscrub_zones::transfer::{SoaQuery, Transfer, TransferError, Transferred, is_later};
use dnscrub_zones::{Soa, Zone};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Done, Pace, Permits};
use crate::config::runtime::TransferSource;
use crate::unix_time::seconds_now;

/// For the connection to be there.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For a message to come.
const MESSAGE_LIMIT: Duration = Duration::from_secs(30);
/// For a refresh as a whole.
const TIME_LIMIT: Duration = Duration::from_secs(3600);
/// Octets of a transfer: a zone of a hundred million names has less.
const LARGEST: u64 = 64 << 30;

/// Asks the server for its version of the zone and takes over what is newer.
///
/// # Errors
/// Why that failed, in words.
pub(super) async fn refresh(
    zone: &Arc<Zone>,
    source: &TransferSource,
    pace: Pace,
    permits: &Permits,
) -> Result<Done, String> {
    match timeout(TIME_LIMIT, attempt(zone, source, pace, permits)).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "it took more than {} minutes",
            TIME_LIMIT.as_secs() / 60
        )),
    }
}

async fn attempt(
    zone: &Arc<Zone>,
    source: &TransferSource,
    pace: Pace,
    permits: &Permits,
) -> Result<Done, String> {
    let theirs = {
        let _permit = permits.asks.acquire().await.map_err(in_words)?;
        ask(zone, source).await?
    };
    if let Some(ours) = zone.soa()
        && ours.serial == theirs.serial
    {
        zone.confirm(pace.stale_after(ours), Instant::now());
        return Ok(Done::Unchanged);
    }
    let _permit = permits.loads.acquire().await.map_err(in_words)?;
    if let Some(ours) = zone.soa()
        && is_later(theirs.serial, ours.serial)
    {
        match incremental(zone, source, pace, ours.serial).await {
            Ok(done) => return Ok(done),
            Err(Failure::Final(why)) => return Err(why),
            Err(Failure::TryWhole) => {}
        }
    }
    whole(zone, source, pace).await
}

/// The numbers of the server's SOA record.
async fn ask(zone: &Zone, source: &TransferSource) -> Result<Soa, String> {
    let key = source.tsig.as_ref().map(|tsig| &tsig.key);
    let mut connection = Connection::open(source).await?;
    let (query, message) =
        SoaQuery::new(zone.name(), rand::random(), key, seconds_now()).map_err(in_words)?;
    connection.send(&message).await?;
    let mut response = connection.receive().await?;
    query
        .on_message(&mut response, seconds_now())
        .map_err(in_words)
}

enum Failure {
    Final(String),
    TryWhole,
}

async fn incremental(
    zone: &Arc<Zone>,
    source: &TransferSource,
    pace: Pace,
    have: u32,
) -> Result<Done, Failure> {
    let key = source.tsig.as_ref().map(|tsig| &tsig.key);
    let of_transfer = |failure: TransferError| match failure.try_whole() {
        true => Failure::TryWhole,
        false => Failure::Final(failure.to_string()),
    };
    let (transfer, message) =
        Transfer::incremental(zone, have, rand::random(), key, seconds_now(), LARGEST)
            .map_err(of_transfer)?;
    let transferred = match receive_all(source, transfer, &message).await {
        Ok(transferred) => transferred,
        Err(Broken::Stream(why)) => return Err(Failure::Final(why)),
        Err(Broken::Transfer(failure)) => return Err(of_transfer(failure)),
    };
    match transferred {
        // the server's serial has been seen to be later
        Transferred::UpToDate => Err(Failure::TryWhole),
        Transferred::Whole(contents) => {
            zone.load(*contents, stale_after(zone, pace), Instant::now());
            restart_timers(zone, pace);
            Ok(Done::Whole)
        }
        Transferred::Changes(changes) => {
            let edited = Arc::clone(zone);
            let stale_after = stale_after(zone, pace);
            let applied = beside(move || edited.apply(&changes, stale_after, Instant::now())).await;
            match applied {
                Ok(()) => {
                    restart_timers(zone, pace);
                    Ok(Done::Incremental)
                }
                Err(_) => Err(Failure::TryWhole),
            }
        }
    }
}

async fn whole(zone: &Arc<Zone>, source: &TransferSource, pace: Pace) -> Result<Done, String> {
    let key = source.tsig.as_ref().map(|tsig| &tsig.key);
    let (transfer, message) =
        Transfer::whole(zone, rand::random(), key, seconds_now(), LARGEST).map_err(in_words)?;
    match receive_all(source, transfer, &message).await {
        Ok(Transferred::Whole(contents)) => {
            let stale_after = pace.stale_after(contents.soa());
            zone.load(*contents, stale_after, Instant::now());
            Ok(Done::Whole)
        }
        Ok(_) => Err("the server sent no whole zone".to_owned()),
        Err(Broken::Stream(why)) => Err(why),
        Err(Broken::Transfer(failure)) => Err(in_words(failure)),
    }
}

fn stale_after(zone: &Zone, pace: Pace) -> Duration {
    zone.soa()
        .map_or(super::RETRY_BOUNDS.1, |soa| pace.stale_after(soa))
}

/// The new SOA record may have another refresh.
fn restart_timers(zone: &Zone, pace: Pace) {
    if let Some(soa) = zone.soa() {
        zone.confirm(pace.stale_after(soa), Instant::now());
    }
}

enum Broken {
    Stream(String),
    Transfer(TransferError),
}

async fn receive_all(
    source: &TransferSource,
    mut transfer: Transfer,
    query: &[u8],
) -> Result<Transferred, Broken> {
    let mut connection = Connection::open(source).await.map_err(Broken::Stream)?;
    connection.send(query).await.map_err(Broken::Stream)?;
    loop {
        let mut message = connection.receive().await.map_err(Broken::Stream)?;
        // a message holds hundreds of records: the control thread must not wait for them
        let (back, result) = beside(move || {
            let result = transfer.on_message(&mut message, seconds_now());
            (transfer, result)
        })
        .await;
        transfer = back;
        if result.map_err(Broken::Transfer)? {
            return transfer.finish().map_err(Broken::Transfer);
        }
    }
}

/// DNS over TCP, one message after another.
struct Connection(TcpStream);

impl Connection {
    async fn open(source: &TransferSource) -> Result<Self, String> {
        let server = source.server;
        match timeout(CONNECT_LIMIT, TcpStream::connect(server)).await {
            Ok(Ok(stream)) => Ok(Self(stream)),
            Ok(Err(failure)) => Err(format!("cannot connect to {server} over TCP: {failure}")),
            Err(_) => Err(format!(
                "cannot connect to {server} over TCP: no answer within {} s",
                CONNECT_LIMIT.as_secs()
            )),
        }
    }

    async fn send(&mut self, message: &[u8]) -> Result<(), String> {
        let len = u16::try_from(message.len()).map_err(|failure| failure.to_string())?;
        let framed = [&len.to_be_bytes(), message].concat();
        in_time(self.0.write_all(&framed)).await
    }

    async fn receive(&mut self) -> Result<Vec<u8>, String> {
        in_time(async {
            let len = self.0.read_u16().await?;
            let mut message = vec![0; usize::from(len)];
            self.0.read_exact(&mut message).await?;
            Ok(message)
        })
        .await
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(MESSAGE_LIMIT, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(failure)) if failure.kind() == io::ErrorKind::UnexpectedEof => {
            Err("the server closed the connection before it had answered".to_owned())
        }
        Ok(Err(failure)) => Err(format!("the connection broke off: {failure}")),
        Err(_) => Err(format!(
            "the server did not answer within {} s",
            MESSAGE_LIMIT.as_secs()
        )),
    }
}

fn in_words(failure: impl Display) -> String {
    failure.to_string()
}

/// Beside the control thread. A panic there is one here.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
