//! Start, serve, stop: binds the sockets, starts the workers, then runs the control side on the
//! calling thread until a signal ends it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use dnscrub_net::tcp::{TcpListenerOptions, bind_tcp_listener};
use dnscrub_net::{Transport, UdpListenerOptions, bind_listener, check_unused, steer_by_source};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::blocklist::BlocklistOwner;
use crate::config::runtime::{self, Configuration, Listener, Startup, Surroundings};
use crate::config::{Disk, Problems, Summary};
use crate::control::server;
use crate::data_path::{DataPath, Endpoint};
use crate::defence;
use crate::dnstap;
use crate::incidents::owner::IncidentOwner;
use crate::learned::LearnedFile;
use crate::notify::Notifier;
use crate::prober::Prober;
use crate::response::Response;
use crate::routes::{self, RouteFeed};
use crate::shared::Shared;
use crate::state_folder::{self, Claim};
use crate::supervisor::{Owners, Supervisor};
use crate::unix_time;
use crate::worker::{self, Command, EndpointSockets, WorkerHandle, WorkerSetup};
use crate::zone_loader::ZoneLoader;

/// Blocks that rules have asked for and the blocklist has not yet taken.
const BLOCK_REQUESTS: usize = 4_096;
/// Send buffer asked for on each listener's sockets, in octets: a datagram is charged to it until the
/// interface has taken it, and what does not fit is an answer lost.
const SEND_BUFFER: usize = 1 << 20;
/// Connections that may wait to be accepted.
const TCP_BACKLOG: i32 = 4_096;

/// Why the program does not run.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is wrong.
    Configuration(Problems),
    /// The operating system refused something; the text says what.
    System(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Configuration(problems) => problems.fmt(f),
            Self::System(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StartError {}

impl From<Problems> for StartError {
    fn from(problems: Problems) -> Self {
        Self::Configuration(problems)
    }
}

/// Something the system refused, with what was being done.
fn refused(doing: &str) -> impl Fn(io::Error) -> StartError + '_ {
    move |failure| StartError::System(format!("{doing}: {failure}"))
}

/// A program that serves.
pub struct Running {
    /// The control side.
    pub supervisor: Arc<Supervisor>,
    workers: Vec<WorkerHandle>,
    dnstap: Option<dnstap::Writer>,
    _routes: Option<RouteFeed>,
    /// Nobody else writes there meanwhile.
    _state: Claim,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting.
pub fn run(config: &Path) -> Result<(), StartError> {
    dnscrub_net::process::return_large_blocks();
    let configuration = runtime::load(config, &Disk, Surroundings::at_start())?;
    crate::log::init(&configuration.startup.log);
    if let Err(failure) = dnscrub_net::process::raise_descriptor_limit() {
        warn!(%failure, "the limit of open descriptors stays as it is");
    }
    let warnings = Summary::of(&configuration).warnings.into_iter();
    for warning in warnings.chain(configuration.reloadable.notify.missing_programs()) {
        warn!("{warning}");
    }
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(refused("cannot start the control runtime"))?;
    control.block_on(async {
        // before anything is served: a SIGHUP that comes early must not end the program
        let signals = Signals::listen().map_err(refused("cannot listen for signals"))?;
        let sockets = bind(&configuration.startup)?;
        // before anything is served as well: another dnscrub that has them goes on undisturbed
        let doors = server::open(&configuration.startup)
            .await
            .map_err(|failure| StartError::System(failure.to_string()))?;
        let running = start_on(sockets, config.to_owned(), configuration)?;
        let server = doors.serve(&running.supervisor);
        signals.obey(&running.supervisor).await;
        info!("stopping");
        drop(server);
        running.stop().await;
        Ok(())
    })
}

/// Binds the sockets and starts the workers and the control side's tasks, on the current runtime.
///
/// # Errors
/// What kept it from starting; nothing runs then.
pub fn start(config_path: PathBuf, configuration: Configuration) -> Result<Running, StartError> {
    let sockets = bind(&configuration.startup)?;
    start_on(sockets, config_path, configuration)
}

fn start_on(
    mut sockets: Vec<Vec<EndpointSockets>>,
    config_path: PathBuf,
    configuration: Configuration,
) -> Result<Running, StartError> {
    let Configuration {
        startup,
        mut reloadable,
        blocklists,
        ..
    } = configuration;
    let claim = state_folder::claim(&startup.state_folder)
        .map_err(|failure| StartError::System(failure.to_string()))?;
    let (learned, mut kept) = LearnedFile::open(&startup.state_folder);
    kept.restore_shared(&mut reloadable.scoring);
    let policy = Arc::new(reloadable);
    let shared = Shared::new(Arc::clone(&policy), startup.workers);

    let feed = match &startup.routes {
        Some(socket) => Some(
            routes::listen(&shared, socket)
                .map_err(|failure| StartError::System(failure.to_string()))?,
        ),
        None => None,
    };
    let (blocks, block_requests) = sync_channel(BLOCK_REQUESTS);
    let blocklist = BlocklistOwner::open(
        &startup,
        &policy,
        blocklists,
        Arc::clone(&shared),
        block_requests,
    )
    .map_err(|failure| StartError::System(failure.to_string()))?;
    let (response, incidents) =
        record(&startup, &shared, &blocklist, kept.detector()).map_err(StartError::System)?;
    shared
        .kernel
        .start(&startup, &policy.kernel, unix_time::now());
    let prober = Prober::new(&policy.forwarding);
    let zones = ZoneLoader::new();
    zones.adopt(&policy);
    let notifier = Notifier::start(&startup.state_folder, Arc::clone(&policy.notify), &shared)
        .map_err(refused("cannot start the thread that tells of incidents"))?;

    let endpoints: Vec<SocketAddr> = startup
        .listeners
        .iter()
        .flat_map(|listener| listener.addresses.iter().copied())
        .collect();
    let (dnstap, taps) = startup
        .dnstap
        .as_ref()
        .map(|settings| dnstap::start(settings, &endpoints, &shared))
        .transpose()
        .map_err(refused("cannot start the thread of dnstap"))?
        .unzip();
    let mut taps = taps.unwrap_or_default().into_iter();

    let mut workers = Vec::new();
    for (index, counters) in shared.counters.iter().enumerate() {
        let now = Instant::now();
        let mut path = DataPath::new(
            index,
            Arc::clone(&policy),
            Arc::clone(&shared.blocklist),
            Arc::clone(counters),
            blocks.clone(),
            rand::random(),
            now,
        );
        path.set_tap(taps.next());
        kept.restore_worker(&mut path, now);
        let setup = WorkerSetup {
            index,
            endpoints: sockets.remove(0),
            path,
            shared: Arc::clone(&shared),
            coalesce: startup.udp.coalesce.unwrap_or_default(),
            batch: startup.udp.batch,
        };
        workers.push(worker::start(setup).map_err(refused("cannot start a worker thread"))?);
    }
    let commands = workers
        .iter()
        .map(|worker| worker.commands.clone())
        .collect();
    let supervisor = Supervisor::new(
        config_path,
        startup,
        shared,
        Owners {
            blocklist: Arc::clone(&blocklist),
            prober: Arc::clone(&prober),
            zones: Arc::clone(&zones),
            learned,
            notifier,
            response,
            incidents: Arc::clone(&incidents),
        },
        commands,
    );
    routes::watch(&supervisor.shared, &supervisor.startup.state_folder);
    tokio::spawn(defence::watch(Arc::clone(&supervisor.shared)));
    tokio::spawn(incidents.run());
    tokio::spawn(Arc::clone(&supervisor).keep_learned());
    tokio::spawn(prober.run());
    tokio::spawn(zones.run());
    tokio::spawn(blocklist.run());
    for listener in &supervisor.startup.listeners {
        for address in &listener.addresses {
            info!(listener = listener.name, %address, udp = listener.udp, tcp = listener.tcp, "serving");
        }
    }
    Ok(Running {
        supervisor,
        workers,
        dnstap,
        _routes: feed,
        _state: claim,
    })
}

/// The record of incidents, and who acts on them. `usual`: what the detector had learned.
pub(crate) fn record(
    startup: &Startup,
    shared: &Arc<Shared>,
    blocklist: &Arc<BlocklistOwner>,
    usual: &[u8],
) -> Result<(Arc<Response>, Arc<IncidentOwner>), String> {
    let folder = &startup.state_folder;
    let response = Response::open(
        folder,
        Arc::clone(shared),
        Arc::clone(blocklist),
        unix_time::now(),
    );
    let incidents = IncidentOwner::open(
        folder,
        Arc::clone(shared),
        Arc::clone(&response),
        usual,
        unix_time::now(),
    )
    .map_err(|failure| {
        let folder = folder.display();
        format!("cannot read the record of incidents in {folder}/incidents: {failure}")
    })?;
    Ok((response, incidents))
}

/// The sockets of all workers: by worker, then by endpoint. All are bound before anything runs, in
/// the workers' order, which is the order steering counts in.
fn bind(startup: &Startup) -> Result<Vec<Vec<EndpointSockets>>, StartError> {
    let mut by_worker: Vec<Vec<EndpointSockets>> =
        (0..startup.workers).map(|_| Vec::new()).collect();
    let seed = rand::random();
    let mut endpoint_index = 0;
    for (listener_index, listener) in (0..).zip(&startup.listeners) {
        for &address in &listener.addresses {
            let endpoint = Endpoint {
                index: endpoint_index,
                listener: listener_index,
            };
            endpoint_index += 1;
            let bound = bind_endpoint(listener, address, endpoint, startup.workers, seed)
                .map_err(|failure| StartError::System(failure.to_string()))?;
            for (worker, sockets) in by_worker.iter_mut().zip(bound) {
                worker.push(sockets);
            }
        }
    }
    Ok(by_worker)
}

fn bind_endpoint(
    listener: &Listener,
    address: SocketAddr,
    endpoint: Endpoint,
    workers: usize,
    seed: u32,
) -> io::Result<Vec<EndpointSockets>> {
    let udp_options = UdpListenerOptions {
        receive_buffer: Some(listener.receive_buffer),
        send_buffer: Some(SEND_BUFFER),
        // for the signal `hop-count`
        receive_ttl: true,
        ..Default::default()
    };
    let tcp_options = TcpListenerOptions {
        backlog: TCP_BACKLOG,
        ..Default::default()
    };
    if listener.udp {
        check_unused(address, Transport::Udp, false)?;
    }
    if listener.tcp {
        check_unused(address, Transport::Tcp, false)?;
    }
    let mut bound = Vec::with_capacity(workers);
    for worker in 0..workers {
        let udp = listener
            .udp
            .then(|| bind_listener(address, &udp_options))
            .transpose()?;
        let tcp = listener
            .tcp
            .then(|| bind_tcp_listener(address, &tcp_options))
            .transpose()?;
        if worker == 0 && workers > 1 {
            let steered = udp
                .as_ref()
                .map(|socket| steer_by_source(socket, workers, seed));
            let tcp_steered = tcp
                .as_ref()
                .map(|socket| steer_by_source(socket, workers, seed));
            for failure in [steered, tcp_steered]
                .into_iter()
                .flatten()
                .filter_map(Result::err)
            {
                warn!(%address, %failure, "sources are not steered to workers; each worker judges its part of a source");
            }
        }
        bound.push(EndpointSockets { endpoint, udp, tcp });
    }
    Ok(bound)
}

/// The signals the program obeys.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// SIGHUP reloads; SIGTERM and SIGINT end the wait.
    async fn obey(mut self, supervisor: &Supervisor) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    // a failure is in the log already
                    let _ = supervisor.reload().await;
                }
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
            }
        }
    }
}

impl Running {
    /// Takes no more queries, finishes those in flight, saves the state.
    pub async fn stop(self) {
        let shared = &self.supervisor.shared;
        shared.routes.stop(shared).await;
        self.supervisor.zones.stop();
        if self.supervisor.shared.defence.load().is_alarmed() {
            info!(
                "what was learned is saved during an alarm; sources and usual rates are as they were before it"
            );
        }
        self.supervisor.save_learned().await;
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Stop).await;
        }
        let (workers, dnstap) = (self.workers, self.dnstap);
        let _ = tokio::task::spawn_blocking(move || {
            let well = workers.into_iter().all(WorkerHandle::join);
            if let Some(writer) = dnstap {
                writer.stop();
            }
            well
        })
        .await;
        self.supervisor.blocklist.save();
        let notifier = Arc::clone(&self.supervisor.notifier);
        let _ = tokio::task::spawn_blocking(move || notifier.stop()).await;
        self.supervisor.incidents.save();
        // a failure is in the log
        let _ = self.supervisor.response.save();
    }
}
