//! The program in the kernel that limits queries before dnscrub sees them: who loads and attaches it, keeps its
//! maps as they are wanted, and counts what it does.
//!
//! What is wanted is decided by [`crate::response`]. Nothing here is needed to serve: where the program cannot be
//! loaded or attached, this is told, and all goes on without it.

pub mod settings;
pub mod usual;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dnscrub_xdp::{Attached, Clock, Fate, Outcome, Program, Wanted};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

pub use self::settings::{LevelLimit, Settings};
use crate::config::runtime::Startup;

/// How often an interface that the program is not on is tried again.
const TRY_EVERY: Duration = Duration::from_secs(10);

/// Packets by what became of them in the kernel.
pub type Counts = [u64; Outcome::ALL.len()];

/// The program in the kernel, or that there is none.
#[derive(Default)]
pub struct Kernel {
    inner: Mutex<Inner>,
    /// Packets it had dropped when that was last known.
    dropped: AtomicU64,
}

#[derive(Default)]
struct Inner {
    services: Vec<SocketAddr>,
    program: Option<Program>,
    attached: Vec<Attached>,
    /// Why it is not on an interface, by the interface.
    failures: BTreeMap<String, String>,
    /// Why it is not in the kernel, or does not limit.
    failure: Option<String>,
    /// When interfaces were last tried, in seconds since 1970.
    tried: f64,
    /// The limit that is in force, in words.
    limit: Option<String>,
}

/// What is to be in force, and the limit in words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    /// For the kernel.
    pub wanted: Wanted,
    /// For people; nothing where nothing is limited.
    pub words: Option<String>,
}

/// The program in the kernel: part of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelStatus {
    /// The interfaces that it is to be on.
    pub interfaces: Vec<InterfaceStatus>,
    /// The limit that is in force, in words.
    pub limit: Option<String>,
    /// Why it is not in the kernel, or does not limit.
    pub failure: Option<String>,
    /// Packets that it dropped.
    pub dropped: u64,
}

/// An interface that the program is to be on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `driver` or `generic`; nothing where it is not there.
    pub mode: Option<String>,
    /// Why not.
    pub failure: Option<String>,
}

impl Kernel {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the listeners, and puts the program where it is configured to be.
    pub fn start(&self, startup: &Startup, settings: &Settings, now: f64) {
        let listeners = startup.listeners.iter().filter(|listener| listener.udp);
        let services = listeners.flat_map(|listener| listener.addresses.iter().copied());
        self.inner().services = services.collect();
        self.adopt(settings, now);
    }

    /// Takes over a configuration. An interface that stays is not let go of meanwhile, and counts go on.
    pub fn adopt(&self, settings: &Settings, now: f64) {
        let mut inner = self.inner();
        inner.failure = None;
        inner.failures.clear();
        inner.attached.retain(|attached| {
            let interfaces = &settings.interfaces;
            let mode = settings.modes.contains(&attached.mode());
            let stays = mode && interfaces.iter().any(|it| it == attached.interface());
            if !stays {
                info!(
                    interface = attached.interface(),
                    "the program in the kernel is taken away"
                );
            }
            stays
        });
        inner.attach(settings, now);
    }

    /// Puts in force what is wanted, and the program on interfaces that it is not on yet. A failure is in the log and in
    /// the status; nothing is limited then.
    pub fn carry_out(&self, order: Order, settings: &Settings, now: f64) {
        let mut inner = self.inner();
        if now - inner.tried >= TRY_EVERY.as_secs_f64() || now < inner.tried {
            inner.attach(settings, now);
        }
        let Some(program) = &mut inner.program else {
            return;
        };
        match program.apply(&order.wanted) {
            Ok(()) => inner.limit = order.words,
            Err(failure) => {
                inner.limit = None;
                inner.fail(format!("cannot limit: {failure}"));
            }
        }
    }

    /// Why nothing can be limited; nothing if it can.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let inner = self.inner();
        if !inner.attached.is_empty() {
            return inner.failure.clone();
        }
        let mut failures = inner.failures.values();
        let first = inner.failure.as_ref().or_else(|| failures.next());
        Some(first.map_or_else(|| "it is on no interface".to_owned(), Clone::clone))
    }

    /// Whether there is something to keep in order.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.inner().program.is_some()
    }

    /// Packets that it dropped since it was loaded. Never waits: while it is being written to, what was known before.
    pub fn dropped(&self) -> u64 {
        if let Ok(inner) = self.inner.try_lock()
            && let Some(counts) = inner.counts()
        {
            self.dropped.store(dropped(&counts), Relaxed);
        }
        self.dropped.load(Relaxed)
    }

    /// Packets by what became of them, since it was loaded; nothing where it is not.
    #[must_use]
    pub fn counts(&self) -> Option<Counts> {
        self.inner().counts()
    }

    /// How it stands; nothing where it is not configured.
    #[must_use]
    pub fn status(&self, settings: &Settings) -> Option<KernelStatus> {
        if settings.interfaces.is_empty() {
            return None;
        }
        let inner = self.inner();
        let interfaces = settings.interfaces.iter().map(|name| {
            let mut attached = inner.attached.iter();
            let attached = attached.find(|it| it.interface() == name);
            InterfaceStatus {
                name: name.clone(),
                mode: attached.map(|it| it.mode().label().to_owned()),
                failure: inner.failures.get(name).cloned(),
            }
        });
        Some(KernelStatus {
            interfaces: interfaces.collect(),
            limit: inner.limit.clone(),
            failure: inner.failure.clone(),
            dropped: inner.counts().map_or(0, |counts| dropped(&counts)),
        })
    }
}

impl Inner {
    fn counts(&self) -> Option<Counts> {
        let counts = self.program.as_ref()?.counts();
        counts
            .inspect_err(|failure| warn!(%failure, "the kernel's counts cannot be read"))
            .ok()
    }

    /// Tells of a failure when it is a new one.
    fn fail(&mut self, failure: String) {
        if self.failure.as_ref() != Some(&failure) {
            error!(failure, "queries are served without limits in the kernel");
        }
        self.failure = Some(failure);
    }

    /// Loads the program if need be, and attaches it wherever it is to be and is not.
    fn attach(&mut self, settings: &Settings, now: f64) {
        self.tried = now;
        if settings.interfaces.is_empty() {
            return;
        }
        if self.program.is_none() {
            match load(&self.services) {
                Ok(program) => {
                    self.program = Some(program);
                    self.failure = None;
                }
                Err(failure) => return self.fail(failure),
            }
        }
        let Some(program) = &self.program else { return };
        self.attached.retain(Attached::is_there);
        for name in &settings.interfaces {
            if self.attached.iter().any(|it| it.interface() == name) {
                continue;
            }
            match program.attach(name, &settings.modes) {
                Ok(attached) => {
                    let mode = attached.mode().label();
                    info!(
                        interface = name,
                        mode, "the program in the kernel is attached"
                    );
                    self.failures.remove(name);
                    self.attached.push(attached);
                }
                Err(failure) => {
                    let failure = failure.to_string();
                    if self.failures.get(name) != Some(&failure) {
                        error!(
                            failure,
                            "queries that come in on {name} are served without limits in the kernel"
                        );
                    }
                    self.failures.insert(name.clone(), failure);
                }
            }
        }
    }
}

fn load(services: &[SocketAddr]) -> Result<Program, String> {
    let mut program = Program::load(Clock::Kernel).map_err(|failure| failure.to_string())?;
    let added = program.add_services(services.iter().copied());
    added.map_err(|failure| format!("cannot look at the listeners' addresses: {failure}"))?;
    Ok(program)
}

fn dropped(counts: &Counts) -> u64 {
    let pairs = Outcome::ALL.into_iter().zip(counts);
    let dropped = pairs.filter(|(outcome, _)| outcome.fate() == Fate::Dropped);
    dropped.map(|(_, count)| count).sum()
}
