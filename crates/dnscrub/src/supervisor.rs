//! The control side's view of the running program: reload, explain, and what they need.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use dnscrub_detection::Happened;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{error, info, warn};

use crate::blocklist::BlocklistOwner;
use crate::config::runtime::{self, Configuration, Startup, Surroundings};
use crate::config::{Disk, Problems};
use crate::explain::{ExplainRequest, Explanation};
use crate::incidents::owner::IncidentOwner;
use crate::learned::{LearnedFile, Occasion, SAVE_EVERY, SaveResult};
use crate::notify::Notifier;
use crate::prober::Prober;
use crate::response::Response;
use crate::shared::Shared;
use crate::unix_time;
use crate::worker::Command;
use crate::zone_loader::ZoneLoader;

/// Answers the control API.
pub struct Supervisor {
    /// The configuration file.
    pub config_path: PathBuf,
    /// What the program was started with.
    pub startup: Startup,
    /// What the threads share.
    pub shared: Arc<Shared>,
    /// The blocklist.
    pub blocklist: Arc<BlocklistOwner>,
    /// The health checks.
    pub prober: Arc<Prober>,
    /// What keeps the knowledge of zones up to date.
    pub zones: Arc<ZoneLoader>,
    /// What keeps what was learned over a restart.
    pub learned: Arc<LearnedFile>,
    /// What tells people of incidents.
    pub notifier: Arc<Notifier>,
    /// What is done about incidents, and levels set by hand.
    pub response: Arc<Response>,
    /// What keeps the incidents.
    pub incidents: Arc<IncidentOwner>,
    workers: Vec<mpsc::Sender<Command>>,
    reloading: tokio::sync::Mutex<()>,
    saving: tokio::sync::Mutex<()>,
    history: Mutex<ReloadHistory>,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
}

/// Who owns what on the control side.
pub struct Owners {
    /// The blocklist.
    pub blocklist: Arc<BlocklistOwner>,
    /// The health checks.
    pub prober: Arc<Prober>,
    /// What keeps the knowledge of zones up to date.
    pub zones: Arc<ZoneLoader>,
    /// What keeps what was learned over a restart.
    pub learned: LearnedFile,
    /// What tells people of incidents.
    pub notifier: Arc<Notifier>,
    /// What is done about incidents, and levels set by hand.
    pub response: Arc<Response>,
    /// What keeps the incidents.
    pub incidents: Arc<IncidentOwner>,
}

/// How the last reload went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReloadHistory {
    /// When the configuration in force was loaded.
    #[serde(with = "crate::unix_time")]
    pub loaded: SystemTime,
    /// Why the last reload failed, if it did.
    pub failure: Option<String>,
}

/// What a reload did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Generation of the configuration now in force.
    pub generation: u64,
    /// Settings that differ and need a restart; the running ones stay.
    pub restart_needed: Vec<String>,
}

impl Supervisor {
    /// For workers that listen at the other ends of `workers`.
    #[must_use]
    pub fn new(
        config_path: PathBuf,
        startup: Startup,
        shared: Arc<Shared>,
        owners: Owners,
        workers: Vec<mpsc::Sender<Command>>,
    ) -> Arc<Self> {
        let Owners {
            blocklist,
            prober,
            zones,
            learned,
            notifier,
            response,
            incidents,
        } = owners;
        let history = ReloadHistory {
            loaded: SystemTime::now(),
            failure: None,
        };
        Arc::new(Self {
            config_path,
            startup,
            shared,
            blocklist,
            prober,
            zones,
            learned: Arc::new(learned),
            notifier,
            response,
            incidents,
            workers,
            reloading: tokio::sync::Mutex::default(),
            saving: tokio::sync::Mutex::default(),
            history: Mutex::new(history),
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
        })
    }

    /// Reads the configuration again and, if all of it is right, has every worker use it. Otherwise
    /// the old one stays in force.
    ///
    /// # Errors
    /// Everything that is wrong with the new configuration.
    pub async fn reload(&self) -> Result<ReloadReport, Problems> {
        let _one_at_a_time = self.reloading.lock().await;
        match self.load().await {
            Ok(report) => {
                self.reloads.fetch_add(1, Relaxed);
                self.set_history(None);
                for setting in &report.restart_needed {
                    warn!(
                        setting,
                        "changed in the file, but a restart is needed for it"
                    );
                }
                info!(generation = report.generation, "configuration reloaded");
                Ok(report)
            }
            Err(problems) => {
                self.failed_reloads.fetch_add(1, Relaxed);
                error!("the old configuration stays in force:\n{problems}");
                self.set_history(Some(problems.to_string()));
                Err(problems)
            }
        }
    }

    async fn load(&self) -> Result<ReloadReport, Problems> {
        let running = self.shared.policy.load_full();
        let (path, startup, beside) = (
            self.config_path.clone(),
            self.startup.clone(),
            Arc::clone(&running),
        );
        let loading = off_thread(move || {
            let surroundings = Surroundings {
                running: Some((&startup, &beside)),
                now: Instant::now(),
                cores: startup.workers,
            };
            runtime::load(&path, &Disk, surroundings)
        });
        let Configuration {
            startup,
            reloadable,
            blocklists,
            ..
        } = loading.await?;
        let restart_needed = runtime::restart_needed(&self.startup, &startup);
        let policy = Arc::new(reloadable);
        let (blocklist, beside) = (Arc::clone(&self.blocklist), Arc::clone(&policy));
        off_thread(move || blocklist.adopt(blocklists, &beside)).await;
        self.shared.policy.store(Arc::clone(&policy));
        let (shared, beside) = (Arc::clone(&self.shared), Arc::clone(&policy));
        off_thread(move || shared.kernel.adopt(&beside.kernel, unix_time::now())).await;
        self.prober.adopt(&policy.forwarding);
        self.zones.adopt(&policy);
        let (notifier, settings) = (Arc::clone(&self.notifier), Arc::clone(&policy.notify));
        off_thread(move || notifier.adopt(settings)).await;
        let mut adopted = Vec::new();
        for worker in &self.workers {
            let (done, waiting) = oneshot::channel();
            if worker
                .send(Command::Adopt(Arc::clone(&policy), done))
                .await
                .is_ok()
            {
                adopted.push(waiting);
            }
        }
        for waiting in adopted {
            let _ = waiting.await;
        }
        Ok(ReloadReport {
            generation: policy.generation,
            restart_needed,
        })
    }

    /// Saves what was learned as [`Occasion::due`] says, until dropped. It hears of incidents that are opened from the call
    /// on.
    pub fn keep_learned(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        let opened = Arc::new(Notify::new());
        let wake = Arc::clone(&opened);
        self.shared.incidents.listen(Box::new(move |event| {
            if event.happened == Happened::Opened {
                wake.notify_one();
            }
        }));
        async move {
            let mut ticks = tokio::time::interval(SAVE_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            // the first is at once
            ticks.tick().await;
            let mut last: Option<Instant> = None;
            loop {
                let occasion = tokio::select! {
                    _ = ticks.tick() => Occasion::Time,
                    () = opened.notified() => Occasion::Incident,
                };
                let is_alarmed = self.shared.defence.load().is_alarmed();
                match occasion.due(is_alarmed, last.map(|last| last.elapsed())) {
                    Some(SaveResult::Saved) => {
                        last = Some(Instant::now());
                        self.save_learned().await;
                    }
                    Some(_) => self.learned.put_off(),
                    None => {}
                }
            }
        }
    }

    /// Saves what was learned. A failure is in the log.
    pub async fn save_learned(&self) {
        let _one_at_a_time = self.saving.lock().await;
        let mut parts = Vec::new();
        for worker in &self.workers {
            let (part, waiting) = oneshot::channel();
            if worker.send(Command::Save(part)).await.is_ok()
                && let Ok(part) = waiting.await
            {
                parts.push(part);
            }
        }
        let (learned, shared) = (Arc::clone(&self.learned), Arc::clone(&self.shared));
        let usual = self.incidents.usual();
        off_thread(move || {
            let octets = shared.policy.load().scoring.save_learned();
            // a failure is told there, and counted
            let _ = learned.write(octets, usual, parts);
        })
        .await;
    }

    fn set_history(&self, failure: Option<String>) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            history.loaded = SystemTime::now();
        }
        history.failure = failure;
    }

    /// How the last reload went.
    #[must_use]
    pub fn history(&self) -> ReloadHistory {
        self.history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reloads that took and that failed, since the start.
    #[must_use]
    pub fn reload_counts(&self) -> (u64, u64) {
        (
            self.reloads.load(Relaxed),
            self.failed_reloads.load(Relaxed),
        )
    }

    /// What would happen to a query. All workers are asked; the one that knows the source, because
    /// its queries are steered there, has the most points to tell.
    pub async fn explain(&self, request: ExplainRequest) -> Option<Explanation> {
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (answer, waiting) = oneshot::channel();
            if worker
                .send(Command::Explain(Box::new(request.clone()), answer))
                .await
                .is_ok()
            {
                answers.push(waiting);
            }
        }
        let mut best: Option<Explanation> = None;
        for waiting in answers {
            let Ok(explanation) = waiting.await else {
                continue;
            };
            if best
                .as_ref()
                .is_none_or(|best| explanation.points() > best.points())
            {
                best = Some(explanation);
            }
        }
        best
    }
}

/// Does what may take a while, such as reading a list of a million lines, on another thread: the
/// caller's answers the control API meanwhile. A panic there is one here.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{PLAIN, program};
    use crate::incidents::Event;
    use crate::incidents::testing::incident;

    #[tokio::test]
    async fn what_was_learned_is_saved_when_an_incident_is_opened() {
        let program = program(PLAIN);
        let supervisor = &program.supervisor;
        let keeper = tokio::spawn(Arc::clone(supervisor).keep_learned());
        let publish = |happened| {
            let incident = Arc::new(incident(7));
            supervisor
                .shared
                .incidents
                .publish(&Event { happened, incident });
        };
        let saved = || {
            let mut results = supervisor.learned.results();
            results
                .find(|(result, _)| *result == SaveResult::Saved)
                .unwrap()
                .1
        };
        publish(Happened::Changed);
        publish(Happened::Closed);
        tokio::task::yield_now().await;
        assert_eq!(saved(), 0);
        publish(Happened::Opened);
        while saved() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(program.folder.path().join("learned.bin").exists());
        keeper.abort();
    }
}
