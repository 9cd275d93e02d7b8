//! A worker: one thread, one tokio runtime, its own sockets, tables and counters.
//!
//! The tasks here only wait for readiness and run the rounds of [`crate::data_path`]. All of them run
//! on the worker's thread, so its state needs no lock: a borrow lasts from one await to the next.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dnscrub_forwarding::{SocketRef, UpstreamIndex};
use dnscrub_net::{UdpListener, UdpUpstream, UdpUpstreamOptions, when_readable};
use dnscrub_scoring::SavedPart;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tracing::{debug, error, warn};

use crate::config::runtime::Reloadable;
use crate::data_path::{
    Clock, DataPath, Endpoint, Round, SOCKETS_PER_UPSTREAM, Sockets, query_round, response_round,
};
use crate::explain::{ExplainRequest, Explanation};
use crate::pace;
use crate::shared::Shared;
use crate::tcp;
use crate::unix_time::seconds_now;

/// How often expiry and retries are looked after.
const TICK: Duration = Duration::from_millis(10);
/// How often the kernel's counts are looked at.
const CARE: Duration = Duration::from_millis(100);
/// Full batches taken from one socket before the others get their turn.
const ROUNDS: usize = 8;
/// Random ports tried for a socket to an upstream, before the kernel chooses one.
const PORT_TRIES: usize = 4;
/// Receive and send buffers asked for on sockets to upstreams, in octets.
const UPSTREAM_BUFFER: usize = 4 << 20;
/// Longest a stopping worker waits for queries in flight.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// What the control side asks of a worker.
pub enum Command {
    /// Use this policy from now on; answered once it does.
    Adopt(Arc<Reloadable>, oneshot::Sender<()>),
    /// Say what would happen to a query.
    Explain(Box<ExplainRequest>, oneshot::Sender<Explanation>),
    /// Give what was learned, for the state file.
    Save(oneshot::Sender<Vec<u8>>),
    /// Take no more queries, finish those in flight, then end.
    Stop,
}

/// The control side's end of a worker.
pub struct WorkerHandle {
    /// Takes commands.
    pub commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

impl WorkerHandle {
    /// Waits for the worker to end; whether it ended well.
    pub fn join(self) -> bool {
        drop(self.commands);
        self.thread.join().is_ok()
    }
}

/// A worker's sockets at one endpoint.
pub struct EndpointSockets {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// For datagrams.
    pub udp: Option<UdpListener>,
    /// For streams.
    pub tcp: Option<std::net::TcpListener>,
}

/// What a worker starts with. The sockets are bound by the caller, so that their errors are seen
/// before anything runs.
pub struct WorkerSetup {
    /// Its number, from 0.
    pub index: usize,
    /// Its sockets, by the index of the endpoint.
    pub endpoints: Vec<EndpointSockets>,
    /// Its state on the packets' way.
    pub path: DataPath,
    /// What the threads share.
    pub shared: Arc<Shared>,
    /// Length of the nap before a busy worker parks; zero for none.
    pub coalesce: Duration,
    /// Datagrams in a system call.
    pub batch: usize,
}

/// Starts a worker's thread.
///
/// # Errors
/// When the thread cannot be created.
pub fn start(setup: WorkerSetup) -> io::Result<WorkerHandle> {
    let (commands, inbox) = mpsc::channel(16);
    let index = setup.index;
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            if let Err(failure) = run(setup, inbox) {
                error!(worker = index, %failure, "the worker cannot run");
            }
        })?;
    Ok(WorkerHandle { commands, thread })
}

fn run(setup: WorkerSetup, inbox: mpsc::Receiver<Command>) -> io::Result<()> {
    // naps of tens of microseconds need timers that fire on time
    dnscrub_net::thread::set_timer_slack(1_000)?;
    let coalesce = setup.coalesce;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || pace::before_park(coalesce))
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let worker = Worker::new(setup.index, setup.path, setup.shared, setup.batch);
        worker.open_sockets();
        for sockets in setup.endpoints {
            if let Some(udp) = sockets.udp {
                worker.serve_udp(sockets.endpoint, udp)?;
            }
            if let Some(tcp) = sockets.tcp {
                tcp::serve(&worker, sockets.endpoint, tcp)?;
            }
        }
        spawn_local(Rc::clone(&worker).tick());
        spawn_local(Rc::clone(&worker).look_after_sockets());
        worker.obey(inbox).await;
        Ok(())
    })
}

/// The state that a worker's tasks share.
pub struct Worker {
    /// The packets' way.
    pub path: RefCell<DataPath>,
    /// What the threads share.
    pub shared: Arc<Shared>,
    /// Connections.
    pub tcp: tcp::State,
    sockets: RefCell<OpenSockets>,
    round: RefCell<Round>,
    /// Its number, from 0.
    index: usize,
    /// Datagrams in a system call.
    batch: usize,
    stopping: Cell<bool>,
}

/// The worker's UDP sockets. Tasks hold their own reference, so that waiting borrows nothing.
#[derive(Default)]
struct OpenSockets {
    /// By the endpoint's index.
    listeners: Vec<Option<Rc<AsyncFd<UdpListener>>>>,
    /// By the upstream's index.
    upstreams: Vec<Option<OpenUpstream>>,
}

/// The sockets to one upstream and the tasks that serve them.
struct OpenUpstream {
    sockets: Vec<Rc<AsyncFd<UdpUpstream>>>,
    tasks: Vec<AbortHandle>,
}

impl OpenSockets {
    fn listen(&mut self, endpoint: u16, listener: Rc<AsyncFd<UdpListener>>) {
        place(&mut self.listeners, endpoint, listener);
    }

    fn is_open(&self, upstream: UpstreamIndex) -> bool {
        self.upstreams
            .get(usize::from(upstream.0))
            .is_some_and(Option::is_some)
    }

    fn open(&mut self, upstream: UpstreamIndex, sockets: OpenUpstream) {
        place(&mut self.upstreams, upstream.0, sockets);
    }

    fn close(&mut self, upstream: UpstreamIndex) {
        if let Some(open) = self.upstreams.get_mut(usize::from(upstream.0)) {
            *open = None;
        }
    }

    fn receive_queue_drops(&self) -> u64 {
        let listeners = self.listeners.iter().flatten();
        listeners
            .filter_map(|listener| dnscrub_net::receive_queue_drops(listener.get_ref()).ok())
            .sum()
    }
}

fn place<T>(table: &mut Vec<Option<T>>, index: u16, value: T) {
    let index = usize::from(index);
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    if let Some(slot) = table.get_mut(index) {
        *slot = Some(value);
    }
}

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Sockets for OpenSockets {
    type Listener = UdpListener;
    type Upstream = UdpUpstream;

    fn listener(&self, index: u16) -> Option<&UdpListener> {
        Some(self.listeners.get(usize::from(index))?.as_ref()?.get_ref())
    }

    fn upstream(&self, at: SocketRef) -> Option<&UdpUpstream> {
        let open = self.upstreams.get(usize::from(at.upstream.0))?.as_ref()?;
        Some(open.sockets.get(usize::from(at.socket))?.get_ref())
    }
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Worker {
    pub(crate) fn new(index: usize, path: DataPath, shared: Arc<Shared>, batch: usize) -> Rc<Self> {
        Rc::new(Self {
            index,
            path: RefCell::new(path),
            shared,
            tcp: tcp::State::default(),
            sockets: RefCell::default(),
            round: RefCell::new(Round::new(batch)),
            batch,
            stopping: Cell::new(false),
        })
    }

    /// Whether no more queries are taken, because the program ends.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Opens sockets to every upstream that has none.
    fn open_sockets(self: &Rc<Self>) {
        let wanted: Vec<_> = self
            .path
            .borrow_mut()
            .forwarder()
            .upstreams()
            .map(|(index, upstream)| (index, upstream.address()))
            .collect();
        for (index, address) in wanted {
            if self.sockets.borrow().is_open(index) {
                continue;
            }
            let mut open = OpenUpstream {
                sockets: Vec::new(),
                tasks: Vec::new(),
            };
            for socket in 0..SOCKETS_PER_UPSTREAM {
                let ports =
                    std::iter::repeat_with(|| rand::random_range(1024..=u16::MAX)).take(PORT_TRIES);
                let options = UdpUpstreamOptions {
                    receive_buffer: Some(UPSTREAM_BUFFER),
                    send_buffer: Some(UPSTREAM_BUFFER),
                    ..Default::default()
                };
                match dnscrub_net::connect_upstream(address, &options, ports)
                    .and_then(when_readable)
                {
                    Ok(io) => {
                        let io = Rc::new(io);
                        let at = SocketRef {
                            upstream: index,
                            socket,
                        };
                        open.tasks.push(
                            spawn_local(Rc::clone(self).serve_responses(at, Rc::clone(&io)))
                                .abort_handle(),
                        );
                        open.sockets.push(io);
                    }
                    Err(failure) => {
                        warn!(%address, %failure, "no socket to the upstream; trying again");
                        break;
                    }
                }
            }
            if open.sockets.len() == usize::from(SOCKETS_PER_UPSTREAM) {
                self.sockets.borrow_mut().open(index, open);
            }
        }
    }

    fn serve_udp(self: &Rc<Self>, endpoint: Endpoint, socket: UdpListener) -> io::Result<()> {
        let io = Rc::new(when_readable(socket)?);
        self.sockets
            .borrow_mut()
            .listen(endpoint.index, Rc::clone(&io));
        spawn_local(Rc::clone(self).serve_queries(endpoint, io));
        Ok(())
    }

    async fn serve_queries(self: Rc<Self>, endpoint: Endpoint, listener: Rc<AsyncFd<UdpListener>>) {
        drain_whenever_readable(&listener, self.batch, || {
            if self.stopping.get() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            query_round(
                &mut self.path.borrow_mut(),
                (endpoint, listener.get_ref()),
                &*self.sockets.borrow(),
                &mut self.round.borrow_mut(),
                &SystemClock,
            )
        })
        .await;
    }

    async fn serve_responses(self: Rc<Self>, at: SocketRef, upstream: Rc<AsyncFd<UdpUpstream>>) {
        drain_whenever_readable(&upstream, self.batch, || {
            let received = response_round(
                &mut self.path.borrow_mut(),
                (at, upstream.get_ref()),
                &*self.sockets.borrow(),
                &mut self.round.borrow_mut(),
                &SystemClock,
            );
            match received {
                Err(failure) if failure.kind() != io::ErrorKind::WouldBlock => {
                    self.refused(at);
                    // datagrams may be waiting behind the error
                    Ok(self.batch)
                }
                received => received,
            }
        })
        .await;
    }

    /// An ICMP message said that the upstream does not listen.
    fn refused(&self, at: SocketRef) {
        let round = &mut *self.round.borrow_mut();
        self.path
            .borrow_mut()
            .refused(at, Instant::now(), &*self.sockets.borrow(), round);
    }

    async fn tick(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut closed = Vec::new();
        loop {
            interval.tick().await;
            let round = &mut *self.round.borrow_mut();
            self.tcp.outstanding(|upstream, queries| {
                let mut path = self.path.borrow_mut();
                path.forwarder().set_streams(upstream, queries);
            });
            let path = &mut *self.path.borrow_mut();
            // comes round in 2106 (RFC 9018 section 4.3)
            path.set_unix_time(seconds_now() as u32);
            path.tick(Instant::now(), &*self.sockets.borrow(), round, &mut closed);
            for upstream in closed.drain(..) {
                self.sockets.borrow_mut().close(upstream);
            }
        }
    }

    /// Tells what this worker sees of attacks, and takes over what all of them see.
    fn share_levels(&self) {
        let mut path = self.path.borrow_mut();
        if let Some(place) = self.shared.sights.get(self.index) {
            place.store(Arc::new(path.sight(Instant::now())));
        }
        if self.shared.sights.len() > 1 {
            path.adopt_levels(&self.shared.defence.load().levels);
        }
        path.adopt_orders(&self.shared.orders.load().for_workers);
    }

    /// Hands over what was counted for the detector of incidents, unless the last was not taken yet.
    fn hand_over_window(&self) {
        if let Some(place) = self.shared.windows.get(self.index)
            && place.load().is_none()
        {
            let window = self.path.borrow_mut().take_window(Instant::now());
            place.store(Some(Arc::new(window)));
        }
    }

    /// What was learned, bit by bit, so that no packet waits for it.
    async fn save_learned(&self) -> Vec<u8> {
        let mut part = SavedPart::default();
        for step in 0.. {
            let more = self.path.borrow_mut().save_learned(step, &mut part);
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
        part.into_octets()
    }

    /// Things that are no hurry: levels, what the kernel counts and, once a second, what was counted for the
    /// detector and sockets that could not be opened.
    async fn look_after_sockets(self: Rc<Self>) {
        let mut interval = tokio::time::interval(CARE);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 0_u64.. {
            interval.tick().await;
            if turn.is_multiple_of(10) {
                self.open_sockets();
                self.hand_over_window();
            }
            self.share_levels();
            let drops = self.sockets.borrow().receive_queue_drops();
            self.path
                .borrow_mut()
                .receive_queue_drops(drops, Instant::now());
        }
    }

    async fn obey(self: &Rc<Self>, mut inbox: mpsc::Receiver<Command>) {
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Adopt(policy, done) => {
                    self.path.borrow_mut().adopt(policy, Instant::now());
                    self.open_sockets();
                    let _ = done.send(());
                }
                Command::Explain(request, answer) => {
                    let _ = answer.send(self.path.borrow_mut().explain(&request, Instant::now()));
                }
                Command::Save(answer) => {
                    let _ = answer.send(self.save_learned().await);
                }
                Command::Stop => break,
            }
        }
        self.stopping.set(true);
        self.finish().await;
    }

    /// Waits until nothing is in flight, but not longer than a client would.
    async fn finish(&self) {
        let patience = Instant::now() + LAST_PATIENCE;
        while Instant::now() < patience && self.in_flight() > 0 {
            tokio::time::sleep(TICK).await;
        }
    }

    fn in_flight(&self) -> u64 {
        let mut path = self.path.borrow_mut();
        let udp = (path.forwarder().in_flight() + path.forwarder().queued()) as u64;
        udp + path.counters().in_flight_tcp.get()
    }
}

/// Waits until the socket is readable and runs rounds until it is empty, over and over. A round that
/// takes less than a full batch has drained the queue: what comes later raises a new edge.
async fn drain_whenever_readable<S: AsRawFd>(
    socket: &AsyncFd<S>,
    batch: usize,
    mut round: impl FnMut() -> io::Result<usize>,
) {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        let mut taken = 0;
        for _ in 0..ROUNDS {
            match round() {
                Ok(received) => {
                    taken += received;
                    if received < batch {
                        ready.clear_ready();
                        break;
                    }
                }
                Err(failure) => {
                    if failure.kind() != io::ErrorKind::WouldBlock {
                        debug!(%failure, "receiving failed");
                    }
                    ready.clear_ready();
                    break;
                }
            }
        }
        drop(ready);
        pace::handled(taken, Instant::now());
        if taken >= batch * ROUNDS {
            tokio::task::yield_now().await;
        }
    }
}
