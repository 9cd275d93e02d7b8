//! The incidents that are known, open ones and past ones, and who hears of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dnscrub_detection::{Happened, Incident};

/// Something happened to an incident.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub happened: Happened,
    /// The incident as it is now.
    pub incident: Arc<Incident>,
}

/// Hears of every event, in order, on the control runtime: it must not wait.
pub type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// All incidents.
#[derive(Default)]
pub struct Incidents {
    known: Mutex<BTreeMap<u64, Arc<Incident>>>,
    listeners: RwLock<Vec<Listener>>,
}

impl Incidents {
    /// Hears of what happens from now on.
    pub fn listen(&self, listener: Listener) {
        let listeners = self.listeners.write();
        listeners
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }

    /// Every incident, the newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Incident>> {
        self.known().values().rev().cloned().collect()
    }

    /// The one of this number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Arc<Incident>> {
        self.known().get(&number).cloned()
    }

    /// An incident is new or has changed: keeps it and tells of it.
    pub fn publish(&self, event: &Event) {
        let incident = &event.incident;
        self.known().insert(incident.number, Arc::clone(incident));
        let listeners = self.listeners.read();
        for listener in listeners.unwrap_or_else(PoisonError::into_inner).iter() {
            listener(event);
        }
    }

    /// Adds to the record of an incident without telling of it: that somebody was told, say.
    pub fn note(&self, number: u64, write: impl FnOnce(&mut Incident)) {
        if let Some(incident) = self.known().get_mut(&number) {
            write(Arc::make_mut(incident));
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Incident>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
