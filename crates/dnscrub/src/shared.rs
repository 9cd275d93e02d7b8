//! What the worker threads and the control side share: read-mostly state behind atomic swaps, and
//! the workers' counters.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use dnscrub_detection::Window;
use dnscrub_packet_filter::BlockTable;

use crate::config::runtime::Reloadable;
use crate::counters::WorkerCounters;
use crate::defence::{Defence, Sight};
use crate::dnstap;
use crate::incidents::Incidents;
use crate::kernel::Kernel;
use crate::live::{KnownQueries, Live, MeasureNow};
use crate::orders::Orders;
use crate::routes::RouteOwner;

/// Shared by all threads.
pub struct Shared {
    /// The policy in force. Workers adopt a new one when told, not when it changes here.
    pub policy: ArcSwap<Reloadable>,
    /// The published blocklist.
    pub blocklist: Arc<ArcSwap<BlockTable>>,
    /// Counters, by worker.
    pub counters: Vec<Arc<WorkerCounters>>,
    /// What each worker sees of attacks, as of a tenth of a second ago; by worker.
    pub sights: Vec<ArcSwap<Sight>>,
    /// What all of them together see.
    pub defence: ArcSwap<Defence>,
    /// What each worker counted for the detector of incidents, until it is taken; by worker.
    pub windows: Vec<ArcSwapOption<Window>>,
    /// Levels that operators set and incidents raise.
    pub orders: ArcSwap<Orders>,
    /// What went wrong, and does.
    pub incidents: Incidents,
    /// The program in the kernel.
    pub kernel: Kernel,
    /// How dnstap is getting on.
    pub dnstap: dnstap::Progress,
    /// What is announced to the routers in front.
    pub routes: Arc<RouteOwner>,
    /// What the last seconds and minutes look like.
    pub live: ArcSwap<Live>,
    /// What became of the queries of known sources.
    pub known_queries: KnownQueries,
    /// What is measured of the whole, and what is usual.
    pub measures: ArcSwap<Vec<MeasureNow>>,
    /// TCP connections of clients open now, of all workers together.
    pub tcp_connections: AtomicUsize,
    /// Zone transfers running now, of all workers together.
    pub transfers: AtomicUsize,
    /// When the program started.
    pub started: SystemTime,
    /// The same moment on the monotonic clock.
    pub epoch: Instant,
}

impl Shared {
    /// For a program of so many workers that starts now.
    #[must_use]
    pub fn new(policy: Arc<Reloadable>, workers: usize) -> Arc<Self> {
        let started = SystemTime::now();
        Arc::new(Self {
            policy: ArcSwap::new(policy),
            sights: (0..workers).map(|_| ArcSwap::default()).collect(),
            windows: (0..workers).map(|_| ArcSwapOption::empty()).collect(),
            defence: ArcSwap::from_pointee(Defence::new(started)),
            orders: ArcSwap::default(),
            incidents: Incidents::default(),
            kernel: Kernel::default(),
            dnstap: dnstap::Progress::default(),
            routes: Arc::default(),
            live: ArcSwap::default(),
            known_queries: KnownQueries::default(),
            measures: ArcSwap::default(),
            blocklist: Arc::default(),
            counters: (0..workers).map(|_| Arc::default()).collect(),
            tcp_connections: AtomicUsize::new(0),
            transfers: AtomicUsize::new(0),
            started,
            epoch: Instant::now(),
        })
    }
}
