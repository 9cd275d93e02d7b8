//! What is known of the zones' names, kept up to date: transfers from name servers, zone files.
//!
//! One task for each zone with a source. A transferred zone's server is asked for its serial when a
//! refresh is due or a NOTIFY message has passed through the proxy, and sends what has changed. A
//! file is looked at every second and read when it has changed. Until a zone is loaded, and when it
//! has expired, nothing is known of it, and queries are judged without.

mod file;
mod transfer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dnscrub_zones::{Condition, Soa, Zone};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::config::runtime::{Reloadable, TransferSource, ZoneSettings, ZoneSource};

pub use file::{check, load};

/// Zones that are loaded at a time.
const LOADS: usize = 4;
/// Servers that are asked for their serial at a time. More than loads: one that does not answer must
/// not keep others waiting.
const ASKS: usize = 64;
/// How often it is looked whether a NOTIFY message has passed, and at least this long between two
/// refreshes that such messages cause.
const NOTIFY_PERIOD: Duration = Duration::from_millis(100);
/// How often a file is looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// A file that could not be looked at for so long is stale.
const LOOK_OVERDUE: Duration = Duration::from_secs(10);
/// Shortest and longest time between two refreshes that a SOA record can ask for.
const REFRESH_BOUNDS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(86_400));
/// The same after a failure; a zone that was never loaded is tried again after twice as long each
/// time.
const RETRY_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The program's one zone loader.
pub struct ZoneLoader {
    tasks: Mutex<Vec<Task>>,
    permits: Permits,
    stopping: Arc<AtomicBool>,
}

/// What bounds how much is done at a time.
#[derive(Clone)]
struct Permits {
    loads: Arc<Semaphore>,
    asks: Arc<Semaphore>,
}

/// A zone and what keeps it up to date.
struct Task {
    loaded: Arc<LoadedZone>,
    handle: Option<JoinHandle<()>>,
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}

/// A zone, where it comes from and what has been done for it.
struct LoadedZone {
    zone: Arc<Zone>,
    settings: ZoneSettings,
    wake: Notify,
    stopping: Arc<AtomicBool>,
    counts: [AtomicU64; Done::ALL.len()],
    times: Mutex<Times>,
}

#[derive(Clone, Debug, Default)]
struct Times {
    /// The last refresh that succeeded.
    refreshed: Option<Instant>,
    /// The next one.
    next: Option<Instant>,
    /// What was last said in the log about a failure.
    told: Option<String>,
}

/// What a refresh came to; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The zone was loaded as a whole.
    Whole,
    /// What had changed was taken over.
    Incremental,
    /// Nothing had changed.
    Unchanged,
    /// It failed.
    Failed,
}

impl Done {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [
        Self::Whole,
        Self::Incremental,
        Self::Unchanged,
        Self::Failed,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Incremental => "incremental",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// How one zone is; `GET /v1/zones` is a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZoneStatus {
    /// Its name.
    pub name: String,
    /// Where its names come from.
    pub source: String,
    /// `learned`, `not loaded`, `fresh`, `stale` or `expired`.
    pub state: String,
    /// Its SOA serial, once it was loaded.
    pub serial: Option<u32>,
    /// Its names, empty non-terminals included.
    pub names: Option<u32>,
    /// Memory in octets.
    pub memory: Option<usize>,
    /// Whether names can be denied with proof: `unsigned`, `held`, `no NSEC chain`, `too large`.
    pub proof: Option<String>,
    /// Seconds since the last refresh that succeeded.
    pub refreshed_seconds_ago: Option<f64>,
    /// Seconds until the next.
    pub next_in_seconds: Option<f64>,
    /// Why it is not loaded or could not be refreshed.
    pub failure: Option<String>,
    /// Refreshes by what they came to.
    pub refreshes: std::collections::BTreeMap<String, u64>,
}

impl ZoneLoader {
    /// A loader of no zone.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            tasks: Mutex::default(),
            permits: Permits {
                loads: Arc::new(Semaphore::new(LOADS)),
                asks: Arc::new(Semaphore::new(ASKS)),
            },
            stopping: Arc::default(),
        })
    }

    /// Goes over to another policy's zones: those that are new are loaded, those that are gone are
    /// left. Must be called on the control runtime.
    pub fn adopt(&self, policy: &Reloadable) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before: std::collections::HashMap<*const Zone, Task, ahash::RandomState> = tasks
            .drain(..)
            .map(|task| (Arc::as_ptr(&task.loaded.zone), task))
            .collect();
        for (zone, settings) in policy.zones.iter().zip(&policy.zone_settings) {
            let kept = before.remove(&Arc::as_ptr(zone));
            tasks.push(kept.unwrap_or_else(|| self.start(zone, settings)));
        }
    }

    fn start(&self, zone: &Arc<Zone>, settings: &ZoneSettings) -> Task {
        let loaded = Arc::new(LoadedZone {
            zone: Arc::clone(zone),
            settings: settings.clone(),
            wake: Notify::new(),
            stopping: Arc::clone(&self.stopping),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            times: Mutex::default(),
        });
        let permits = self.permits.clone();
        let handle = match &settings.source {
            ZoneSource::Learned => None,
            ZoneSource::Transfer(source) => {
                let work = follow_server(Arc::clone(&loaded), source.clone(), permits);
                Some(tokio::spawn(work))
            }
            ZoneSource::File(path) => {
                let work = file::follow(Arc::clone(&loaded), path.clone(), permits.loads);
                Some(tokio::spawn(work))
            }
        };
        Task { loaded, handle }
    }

    /// Passes NOTIFY messages on to the zones' tasks, until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(NOTIFY_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            for task in tasks.iter() {
                if task.loaded.zone.take_notified() {
                    task.loaded.wake.notify_one();
                }
            }
        }
    }

    /// Gives up what is being loaded, so that the program can end.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// How the zones are, in the order of the configuration.
    #[must_use]
    pub fn status(&self) -> Vec<ZoneStatus> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks
            .iter()
            .map(|task| task.loaded.status(Instant::now()))
            .collect()
    }
}

impl LoadedZone {
    fn status(&self, now: Instant) -> ZoneStatus {
        let (source, learned) = match &self.settings.source {
            ZoneSource::Learned => ("answers".to_owned(), true),
            ZoneSource::Transfer(source) => (format!("axfr {}", source.server), false),
            ZoneSource::File(path) => (format!("file {}", path.display()), false),
        };
        let condition = self.zone.condition(now);
        let times = self.times().clone();
        let size = self.zone.size();
        let failure = times.told.or(match &condition {
            Condition::NotLoaded { why }
            | Condition::Stale { why, .. }
            | Condition::Expired { why, .. } => why.as_deref().map(str::to_owned),
            Condition::Fresh { .. } => None,
        });
        ZoneStatus {
            name: self.zone.name().to_string(),
            source,
            state: if learned { "learned" } else { condition.word() }.to_owned(),
            serial: self.zone.soa().map(|soa| soa.serial),
            names: size.map(|size| size.names),
            memory: size.map(|size| size.octets),
            proof: size.map(|size| size.proof.to_string()),
            refreshed_seconds_ago: times
                .refreshed
                .map(|then| now.saturating_duration_since(then).as_secs_f64()),
            next_in_seconds: times
                .next
                .map(|then| then.saturating_duration_since(now).as_secs_f64()),
            failure,
            refreshes: Done::ALL
                .into_iter()
                .zip(&self.counts)
                .map(|(done, count)| (done.label().to_owned(), count.load(Relaxed)))
                .collect(),
        }
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, done: Done) {
        if let Some(count) = self.counts.get(done as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Notes a refresh that succeeded, and says what is new.
    fn succeeded(&self, done: Done, next: Duration) {
        self.count(done);
        let now = Instant::now();
        let failed_before = {
            let mut times = self.times();
            times.refreshed = Some(now);
            times.next = now.checked_add(next);
            times.told.take().is_some()
        };
        let (zone, size) = (self.zone.name(), self.zone.size());
        let serial = self.zone.soa().map_or(0, |soa| soa.serial);
        let names = size.map_or(0, |size| size.names);
        match done {
            Done::Whole => info!(%zone, serial, names, "zone loaded"),
            Done::Incremental => info!(%zone, serial, names, "zone changed"),
            Done::Unchanged if failed_before => {
                info!(%zone, serial, names, "zone is up to date again")
            }
            Done::Unchanged | Done::Failed => {}
        }
    }

    /// Notes a refresh that failed, and says why, once for each reason.
    fn failed(&self, why: &str, next: Duration) {
        self.count(Done::Failed);
        self.zone.refresh_failed(why);
        let now = Instant::now();
        let new = {
            let mut times = self.times();
            times.next = now.checked_add(next);
            times.told.as_deref() != Some(why)
        };
        if new {
            let (zone, state) = (self.zone.name(), self.zone.condition(now).word());
            match &self.settings.source {
                ZoneSource::Transfer(source) => {
                    warn!(%zone, server = %source.server, state, "zone not transferred: {why}");
                }
                ZoneSource::File(_) | ZoneSource::Learned => {
                    warn!(%zone, state, "zone not loaded: {why}");
                }
            }
            self.times().told = Some(why.to_owned());
        }
    }
}

/// When a transferred zone is refreshed.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// What the configuration says.
    refresh: Option<Duration>,
}

impl Pace {
    /// Time from a refresh to the next.
    fn refresh(self, soa: Soa) -> Duration {
        let (least, most) = REFRESH_BOUNDS;
        self.refresh.unwrap_or(soa.refresh.clamp(least, most))
    }

    /// Time without a refresh after which the zone is stale: one was missed.
    fn stale_after(self, soa: Soa) -> Duration {
        self.refresh(soa).saturating_mul(2)
    }

    /// Time from a failure to the next try.
    fn retry(self, soa: Option<Soa>, failures: u32) -> Duration {
        let (least, most) = RETRY_BOUNDS;
        match soa {
            Some(soa) => soa.retry.clamp(least, most).min(self.refresh(soa)),
            None => least.saturating_mul(1 << failures.min(6)).min(most),
        }
    }
}

async fn follow_server(loaded: Arc<LoadedZone>, source: Box<TransferSource>, permits: Permits) {
    let pace = Pace {
        refresh: source.refresh,
    };
    let mut failures = 0;
    loop {
        let result = transfer::refresh(&loaded.zone, &source, pace, &permits).await;
        let wait = match (result, loaded.zone.soa()) {
            (Ok(done), Some(soa)) => {
                failures = 0;
                let wait = pace.refresh(soa);
                loaded.succeeded(done, wait);
                wait
            }
            (result, soa) => {
                let wait = pace.retry(soa, failures);
                failures = failures.saturating_add(1);
                let why = result.err().unwrap_or_default();
                loaded.failed(&why, wait);
                wait
            }
        };
        // what has passed meanwhile may belong to this refresh, but may also be newer
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = loaded.wake.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soa(refresh: u64, retry: u64) -> Soa {
        let seconds = Duration::from_secs;
        Soa {
            serial: 1,
            refresh: seconds(refresh),
            retry: seconds(retry),
            expire: seconds(604_800),
            minimum: 300,
        }
    }

    #[test]
    fn the_soa_record_sets_the_pace_within_bounds() {
        let pace = Pace { refresh: None };
        let seconds = |period: Duration| period.as_secs();
        assert_eq!(seconds(pace.refresh(soa(3600, 600))), 3600);
        assert_eq!(seconds(pace.stale_after(soa(3600, 600))), 7200);
        assert_eq!(seconds(pace.refresh(soa(0, 0))), 10);
        assert_eq!(seconds(pace.refresh(soa(u64::from(u32::MAX), 0))), 86_400);
        assert_eq!(seconds(pace.retry(Some(soa(3600, 600)), 0)), 60);
        assert_eq!(seconds(pace.retry(Some(soa(3600, 0)), 9)), 1);
    }

    #[test]
    fn the_configuration_overrides_it() {
        let pace = Pace {
            refresh: Some(Duration::from_secs(5)),
        };
        assert_eq!(pace.refresh(soa(3600, 600)).as_secs(), 5);
        assert_eq!(pace.stale_after(soa(3600, 600)).as_secs(), 10);
        assert_eq!(pace.retry(Some(soa(3600, 600)), 0).as_secs(), 5);
    }

    #[test]
    fn a_zone_that_was_never_loaded_is_tried_less_and_less_often() {
        let pace = Pace { refresh: None };
        let waits: Vec<u64> = (0..9).map(|n| pace.retry(None, n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
