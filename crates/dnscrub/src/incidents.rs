//! The incidents that are known, open ones and past ones, and who hears of them.
//!
//! Open ones and the newest [`WHOLE`] that are over are kept whole. Of older ones the time line and the points, which
//! are nearly all of a record, are on the disk only, and are read when somebody asks for one.

pub mod folder;
pub mod owner;
mod servers;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use dnscrub_detection::{Happened, Incident, Kind};
use tracing::error;

use self::folder::Folder;
pub(crate) use self::servers::{fault_in_words, upstream_named};

/// Incidents that are over and are kept whole in memory.
pub const WHOLE: usize = 50;

/// Something happened to an incident.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub happened: Happened,
    /// The incident as it is now.
    pub incident: Arc<Incident>,
}

/// Hears of every event, in order, when the record of it is on the disk: it must not wait.
pub type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// All incidents.
#[derive(Default)]
pub struct Incidents {
    known: Mutex<BTreeMap<u64, Arc<Incident>>>,
    listeners: RwLock<Vec<Listener>>,
    /// Those that were added to, and whose files are older than that.
    noted: Mutex<BTreeSet<u64>>,
    opened: [AtomicU64; Kind::ALL.len()],
    save_failures: AtomicU64,
    /// Where whole records are read from.
    folder: OnceLock<Folder>,
}

/// Whether the time line and the points are on the disk only. No whole record is without a time line.
pub(crate) const fn is_brief(incident: &Incident) -> bool {
    incident.closed.is_some() && incident.timeline.is_empty()
}

/// What is kept in memory of an old one.
pub(crate) fn brief(incident: &Incident) -> Incident {
    Incident {
        timeline: Vec::new(),
        points: Vec::new(),
        upstreams: incident.upstreams.clone(),
        evidence: incident.evidence.clone(),
        zones: incident.zones.clone(),
        names: incident.names.clone(),
        qtypes: incident.qtypes.clone(),
        sources: incident.sources.clone(),
        sentence: incident.sentence.clone(),
        actions: incident.actions.clone(),
        ..*incident
    }
}

impl Incidents {
    /// Hears of what happens from now on.
    pub fn listen(&self, listener: Listener) {
        let listeners = self.listeners.write();
        listeners
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }

    /// Every incident, the newest first. Old ones are without time line and points.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Incident>> {
        self.known().values().rev().cloned().collect()
    }

    /// The one of this number. An old one is read from the disk; without time line and points where that fails.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Arc<Incident>> {
        let known = self.known().get(&number).cloned()?;
        if is_brief(&known)
            && let Some(whole) = self.read(number)
        {
            return Some(Arc::new(whole));
        }
        Some(known)
    }

    /// Whole records are read from there from now on.
    pub(crate) fn read_from(&self, folder: Folder) {
        // it stays the same for as long as the program runs
        let _ = self.folder.set(folder);
    }

    fn read(&self, number: u64) -> Option<Incident> {
        let read = self.folder.get()?.read_one(number);
        let failure = match read {
            Ok(incident) => return Some(incident),
            Err(failure) => failure,
        };
        error!(incident = number, %failure, "the record of an old incident cannot be read");
        None
    }

    /// An incident is new or has changed: keeps it and tells of it.
    pub fn publish(&self, event: &Event) {
        let incident = &event.incident;
        self.known().insert(incident.number, Arc::clone(incident));
        self.tell(event);
    }

    /// Tells of an incident as it is known. `events`: [`Incident::events`] when that happened; there may be more by now.
    pub fn announce(&self, number: u64, happened: Happened, events: u32) {
        if let Some(mut incident) = self.get(number) {
            if incident.events != events {
                Arc::make_mut(&mut incident).events = events;
            }
            self.tell(&Event { happened, incident });
        }
    }

    fn tell(&self, event: &Event) {
        if event.happened == Happened::Opened
            && let Some(opened) = self.opened.get(event.incident.kind as usize)
        {
            opened.fetch_add(1, Relaxed);
        }
        let listeners = self.listeners.read();
        for listener in listeners.unwrap_or_else(PoisonError::into_inner).iter() {
            listener(event);
        }
    }

    /// Adds to the record of an incident without telling of it: that somebody was told, say. An old one becomes whole
    /// again for that; one that cannot be read stays as it is.
    pub fn note(&self, number: u64, write: impl FnOnce(&mut Incident)) {
        let mut known = self.known();
        let Some(incident) = known.get_mut(&number) else {
            return;
        };
        if is_brief(incident) {
            let Some(whole) = self.read(number) else {
                return;
            };
            *incident = Arc::new(whole);
        }
        write(Arc::make_mut(incident));
        self.noted().insert(number);
    }

    /// Incidents that were added to since the last time.
    pub(crate) fn take_noted(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.noted())
    }

    /// Changes all of them at once. Others wait meanwhile.
    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut BTreeMap<u64, Arc<Incident>>) -> T) -> T {
        edit(&mut self.known())
    }

    /// Incidents that were opened since the start, by what they were taken for first.
    pub fn opened(&self) -> impl Iterator<Item = (Kind, u64)> {
        let counts = Kind::ALL.into_iter().zip(&self.opened);
        counts.map(|(kind, opened)| (kind, opened.load(Relaxed)))
    }

    /// Times that a record could not be saved.
    #[must_use]
    pub fn save_failures(&self) -> u64 {
        self.save_failures.load(Relaxed)
    }

    pub(crate) fn count_save_failure(&self) {
        self.save_failures.fetch_add(1, Relaxed);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Incident>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Incidents for tests.
#[cfg(test)]
pub(crate) mod testing {
    use dnscrub_detection::incident::{Peak, SourcePart, Sources, Spoofed, What, ZonePart};

    use super::*;

    /// A direct flood on example.com that is going on, from two sources.
    pub(crate) fn incident(number: u64) -> Incident {
        let source = |address: &str, rate: f32| SourcePart {
            prefix: address.parse().unwrap(),
            rate,
            share: 0.4,
            known: false,
            verified: false,
        };
        let mut incident = Incident {
            confidence: 0.9,
            sentence: "Two sources ask far more than usual.".to_owned(),
            zones: vec![ZonePart {
                zone: "example.com".to_owned(),
                rate: 9_000.0,
                usual: 100.0,
                share: 0.97,
            }],
            sources: Sources {
                distinct: 60.0,
                usual: 55.0,
                never_seen: 0.9,
                spoofed: Spoofed::Unlikely,
                why: "They come over the usual paths.".to_owned(),
                top: vec![
                    source("192.0.2.1/32", 5_000.0),
                    source("192.0.2.2/32", 4_000.0),
                ],
            },
            peak: Peak {
                queries: 9_100.0,
                at: 1_700_000_010.0,
            },
            ..Incident::new(number, Kind::DirectFlood, 1_700_000_000.0, 1_700_000_003.0)
        };
        incident.tell(1_700_000_003.0, What::Opened, "It was noticed.");
        incident
    }

    #[test]
    fn listeners_hear_of_events_in_order_and_of_no_notes() {
        let incidents = Incidents::default();
        let heard = Arc::<Mutex<Vec<_>>>::default();
        let sink = Arc::clone(&heard);
        incidents.listen(Box::new(move |event: &Event| {
            let mut heard = sink.lock().unwrap();
            heard.push((
                event.incident.number,
                event.happened,
                event.incident.actions.len(),
            ));
        }));
        let event = |number, happened| Event {
            happened,
            incident: Arc::new(incident(number)),
        };
        incidents.publish(&event(1, Happened::Opened));
        incidents.note(1, |incident| {
            incident.act(5.0, "dnscrub", "did something", false);
        });
        incidents.note(9, |_| panic!("there is no such incident"));
        incidents.announce(1, Happened::Changed, 2);
        incidents.announce(9, Happened::Changed, 1);
        assert_eq!(
            *heard.lock().unwrap(),
            [(1, Happened::Opened, 0), (1, Happened::Changed, 1)]
        );
        let opened: Vec<_> = incidents.opened().filter(|&(_, count)| count > 0).collect();
        assert_eq!(opened, [(Kind::DirectFlood, 1)]);
    }
}
