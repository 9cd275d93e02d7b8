//! The one who keeps the incidents: collects what the workers count, has the detector look at it, tells everybody
//! what happened, and keeps the record on the disk.
//!
//! - A worker leaves its window where it is taken from once a second (`Shared::windows`). One that was not
//!   taken is not overwritten: the worker's next one is then of two seconds.
//! - The record that others read and add to is [`super::Incidents`]; the detector's copy takes over what they
//!   added before each look.
//! - A file is written within a second after something happened to its incident or somebody added to it, and every ten
//!   seconds while it is open, so that a program that is killed loses a second of its time line, and some of its numbers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dnscrub_detection::incident::What;
use dnscrub_detection::{Book, Detector, Happened, Incident, Point, Window};
use tracing::{error, info, warn};

use super::folder::Folder;
use super::servers::Servers;
use super::upstreams::Upstreams;
use super::{WHOLE, brief, is_brief};
use crate::live::{Live, MeasureNow};
use crate::response::{Response, Work};
use crate::shared::Shared;
use crate::unix_time;

/// How often the detector looks.
pub const PERIOD: Duration = Duration::from_secs(1);
/// Points that are shown: ten minutes.
const POINTS: usize = 600;
/// Seconds between two saves of an open incident to which nothing happens.
const SAVE_EVERY: f64 = 10.0;
/// Seconds for which the program may have been down for an incident to go on.
const GOES_ON: f64 = 120.0;
/// Seconds in which the detector is to recognise an incident from before the restart; a pulse may take as long.
const RECOGNISED: f64 = 60.0;
/// Old records that are put away at a time.
const PUT_AWAY_AT_ONCE: usize = 10;
/// Octets of a remark.
pub const LONGEST_NOTE: usize = 1000;

/// Keeps the incidents. See the [module](self).
pub struct IncidentOwner {
    shared: Arc<Shared>,
    response: Arc<Response>,
    folder: Folder,
    state: Mutex<State>,
    /// Held while files are written.
    saving: Mutex<()>,
    /// The last write has failed.
    failing: AtomicBool,
}

struct State {
    detector: Detector,
    upstreams: Upstreams,
    book: Book,
    points: VecDeque<Point>,
    /// Incidents whose files are older than they are.
    dirty: BTreeSet<u64>,
    /// When the files of open ones were last written.
    saved: BTreeMap<u64, f64>,
    /// Incidents from before the restart that the detector has not recognised yet: until when it may, and how
    /// many points they had.
    adopted: BTreeMap<u64, (f64, usize)>,
    /// What happened and is not told yet, with [`Incident::events`] as it was then.
    untold: Vec<(u64, Happened, u32)>,
    servers: Servers,
}

/// What a look came to, and may wait.
#[derive(Default)]
pub struct Chores {
    /// About levels and blocks.
    pub response: Work,
    /// Records to be written,
    save: Vec<Arc<Incident>>,
    /// removed,
    remove: Vec<u64>,
    /// and no longer kept whole.
    put_away: Vec<Arc<Incident>>,
    /// Who hears of incidents hears of this once the records are written.
    tell: Vec<(u64, Happened, u32)>,
}

/// Why a remark was not taken, or an incident not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoteError {
    /// There is no incident of this number.
    Unknown(u64),
    /// The remark is empty or longer than [`LONGEST_NOTE`].
    Length(usize),
    /// It is over already.
    Over(u64),
    /// Its record cannot be read from the disk.
    Unreadable(u64),
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "there is no incident {number}"),
            Self::Length(0) => write!(f, "the remark is empty"),
            Self::Length(found) => write!(
                f,
                "the remark has {found} octets, expected at most {LONGEST_NOTE}"
            ),
            Self::Over(number) => write!(f, "incident {number} is over already"),
            Self::Unreadable(number) => write!(
                f,
                "the record of incident {number} cannot be read from the disk; the log says why"
            ),
        }
    }
}

impl std::error::Error for NoteError {}

impl IncidentOwner {
    /// Takes up the record, and the incidents that were open when the program ended. `usual`: what the detector
    /// had learned.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(
        state_folder: &Path,
        shared: Arc<Shared>,
        response: Arc<Response>,
        usual: &[u8],
        now: f64,
    ) -> io::Result<Arc<Self>> {
        let (folder, found) = Folder::open(state_folder)?;
        let mut detector = Detector::new();
        if !usual.is_empty() && !detector.restore(usual) {
            warn!("what is usual of the measures is learned again: it is of another version");
        }
        let mut state = State {
            detector,
            upstreams: Upstreams::default(),
            book: Book {
                next: found.last.saturating_add(1),
                ..Book::default()
            },
            points: VecDeque::new(),
            dirty: BTreeSet::new(),
            saved: BTreeMap::new(),
            adopted: BTreeMap::new(),
            untold: Vec::new(),
            servers: Servers::default(),
        };
        shared.incidents.read_from(folder.clone());
        for (number, mut incident) in found.incidents {
            if incident.is_open() {
                take_up(&mut incident, now, &mut state);
            }
            shared
                .incidents
                .edit(|known| known.insert(number, Arc::new(incident)));
        }
        // they are as the files are
        shared.incidents.edit(|known| {
            for old in to_put_away(known, &state.dirty, usize::MAX) {
                known.insert(old.number, Arc::new(brief(&old)));
            }
        });
        Ok(Arc::new(Self {
            shared,
            response,
            folder,
            state: Mutex::new(state),
            saving: Mutex::default(),
            failing: AtomicBool::new(false),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks once a second, until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut chores: Option<tokio::task::JoinHandle<()>> = None;
        loop {
            ticks.tick().await;
            let window = self.take_windows();
            let now = unix_time::now();
            self.look(window.as_ref(), now);
            // one at a time, so that what was decided first is done first
            if chores.as_ref().is_some_and(|chores| !chores.is_finished()) {
                continue;
            }
            let todo = self.decide(now);
            let owner = Arc::clone(&self);
            chores = Some(tokio::task::spawn_blocking(move || owner.do_chores(todo)));
        }
    }

    /// What the workers counted since the last time; nothing where none has counted yet.
    fn take_windows(&self) -> Option<Window> {
        let mut all: Option<Window> = None;
        for place in &self.shared.windows {
            let Some(window) = place.swap(None) else {
                continue;
            };
            let window = Arc::try_unwrap(window).unwrap_or_else(|shared| (*shared).clone());
            match &mut all {
                None => all = Some(window),
                Some(all) => all.merge(window),
            }
        }
        if let Some(all) = &mut all {
            let policy = self.shared.policy.load();
            all.upstreams = self.state().upstreams.take(&policy.forwarding);
        }
        all
    }

    /// Has the detector look at a window, and takes over what it makes of it. Does no IO.
    pub fn look(&self, window: Option<&Window>, now: f64) {
        let Some(window) = window else { return };
        self.response.observe(window, now);
        let going_on = self.response.going_on(now);
        let mut state = self.state();
        state.book.going_on = going_on;
        let State {
            detector,
            book,
            points,
            dirty,
            saved,
            adopted,
            untold,
            servers: _,
            upstreams: _,
        } = &mut *state;
        self.shared.incidents.edit(|known| {
            for open in &mut book.open {
                if let Some(known) = known.get(&open.number) {
                    take_over(open, known);
                }
            }
            let happened = detector.observe(window, now, book);
            for (number, what) in happened {
                if let Some(open) = book.open.iter_mut().find(|it| it.number == number) {
                    untold.push(count(open, what));
                }
                dirty.insert(number);
            }
            adopted.retain(|&number, (until, points)| {
                if book.going_on.contains(&number) {
                    *until = now + RECOGNISED;
                }
                let (until, points) = (*until, *points);
                let orphan = book.open.iter_mut().find(|it| it.number == number);
                let Some(orphan) = orphan.filter(|it| it.is_open() && it.points.len() <= points)
                else {
                    return false;
                };
                if now >= until {
                    end_orphan(orphan, now);
                    untold.push(count(orphan, Happened::Closed));
                }
                now < until
            });
            for open in &book.open {
                known.insert(open.number, Arc::new(open.clone()));
            }
            for over in book.open.extract_if(.., |it| !it.is_open()) {
                dirty.insert(over.number);
                saved.remove(&over.number);
            }
        });
        let point = detector.point();
        self.shared.known_queries.add(&point);
        if points.len() >= POINTS {
            points.pop_front();
        }
        points.push_back(point);
        let readings = detector.readings(now);
        let readings = readings.map(|(measure, now, usual)| MeasureNow {
            measure,
            now,
            usual,
        });
        self.shared.measures.store(Arc::new(readings.collect()));
        let live = Live {
            overview: detector.overview(now),
            points: points.iter().copied().collect(),
        };
        self.shared.live.store(Arc::new(live));
    }

    /// Decides what is done. Does no IO; what may wait comes back.
    pub fn decide(&self, now: f64) -> Chores {
        let live = self.shared.live.load();
        let busiest = live.overview.sources.first().map(|source| source.rate);
        let calm = (live.overview.at > 0.0).then(|| busiest.unwrap_or(0.0));
        let response = self.response.tick(now, calm);
        let tell = std::mem::take(&mut self.state().untold);
        for &(number, happened, _) in &tell {
            self.log(number, happened);
        }
        let mut state = self.state();
        let policy = self.shared.policy.load();
        let settings = &policy.response;
        let State { book, servers, .. } = &mut *state;
        let upstreams = policy.forwarding.snapshot(Instant::now());
        for (number, text) in servers.look(book.open.iter(), &upstreams, now) {
            self.shared
                .incidents
                .note(number, |it| it.tell(now, What::Note, text));
        }
        let remove = self
            .shared
            .incidents
            .edit(|known| retire(known, settings, now));
        let State {
            book, dirty, saved, ..
        } = &mut *state;
        for open in &book.open {
            let last = saved.get(&open.number).copied();
            if last.is_none_or(|last| now - last >= SAVE_EVERY) {
                dirty.insert(open.number);
                saved.insert(open.number, now);
            }
        }
        let dirty = std::mem::take(&mut state.dirty);
        let put_away = self
            .shared
            .incidents
            .edit(|known| to_put_away(known, &dirty, PUT_AWAY_AT_ONCE));
        // what is put away is written anyway
        let mut noted = self.shared.incidents.take_noted();
        for old in &put_away {
            noted.remove(&old.number);
        }
        let save = dirty
            .union(&noted)
            .copied()
            .filter_map(|number| self.shared.incidents.get(number))
            .collect();
        Chores {
            response,
            save,
            remove,
            put_away,
            tell,
        }
    }

    fn log(&self, number: u64, happened: Happened) {
        let Some(incident) = self.shared.incidents.get(number) else {
            return;
        };
        let (kind, sentence) = (incident.kind.label(), incident.sentence.as_str());
        match happened {
            Happened::Opened => warn!(incident = number, kind, "incident opened: {sentence}"),
            Happened::Changed => info!(incident = number, kind, "incident changed: {sentence}"),
            Happened::Closed => info!(incident = number, kind, "incident closed"),
        }
    }

    /// Does what was decided, and tells everybody what happened. Waits for the disk and the blocklist.
    ///
    /// The records are written before anybody is told: so the record knows of every event that somebody may have heard
    /// of, and after a crash it is seen from it who has not.
    pub fn do_chores(&self, chores: Chores) {
        let Chores {
            response,
            save,
            remove,
            put_away,
            tell,
        } = chores;
        if !response.is_empty() {
            self.response.carry_out(response, unix_time::now());
        }
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = Vec::new();
        for incident in save {
            // with what was added meanwhile
            let number = incident.number;
            let incident = self.shared.incidents.get(number).unwrap_or(incident);
            if !self.write(&incident) {
                failed.push(number);
            }
        }
        self.state().dirty.extend(failed);
        for (number, happened, events) in tell {
            self.shared.incidents.announce(number, happened, events);
        }
        for number in remove {
            self.folder.remove(number);
        }
        for old in put_away {
            // with remarks that are not on the disk yet
            if !self.write(&old) {
                break;
            }
            self.shared.incidents.edit(|known| {
                if let Some(known) = known.get_mut(&old.number)
                    && Arc::ptr_eq(known, &old)
                {
                    *known = Arc::new(brief(&old));
                }
            });
        }
    }

    fn write(&self, incident: &Incident) -> bool {
        let written = self.folder.write(incident);
        let failing = self.failing.swap(written.is_err(), Relaxed);
        match &written {
            Ok(()) if failing => info!("records of incidents are saved again"),
            Ok(()) => {}
            Err(failure) => {
                self.shared.incidents.count_save_failure();
                if !failing {
                    error!(
                        incident = incident.number, folder = %self.folder.path().display(), %failure,
                        "the record of an incident cannot be saved: a restart would lose it; it is tried again each second"
                    );
                }
            }
        }
        written.is_ok()
    }

    /// Writes everything that is not on the disk: for the program's end.
    pub fn save(&self) {
        let mut state = self.state();
        let open = state.book.open.iter().map(|it| it.number);
        let open: Vec<u64> = open.collect();
        state.dirty.extend(open);
        state.dirty.extend(self.shared.incidents.take_noted());
        let dirty = std::mem::take(&mut state.dirty);
        drop(state);
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        for number in dirty {
            if let Some(incident) = self.shared.incidents.get(number) {
                self.write(&incident);
            }
        }
    }

    /// What the detector takes for usual, for the file of what was learned.
    #[must_use]
    pub fn usual(&self) -> Vec<u8> {
        self.state().detector.save()
    }

    /// Adds somebody's remark to an incident; it is on the disk when this returns. The incident as it is then.
    ///
    /// # Errors
    /// See [`NoteError`].
    pub fn note(&self, number: u64, text: &str, now: f64) -> Result<Arc<Incident>, NoteError> {
        let text = text.trim().replace(char::is_control, " ");
        if text.is_empty() || text.len() > LONGEST_NOTE {
            return Err(NoteError::Length(text.len()));
        }
        if self.shared.incidents.get(number).is_none() {
            return Err(NoteError::Unknown(number));
        }
        self.shared
            .incidents
            .note(number, |it| it.tell(now, What::Note, text));
        self.kept(number)
    }

    /// Closes an incident by hand; it is on the disk when this returns. What was done because of it is undone
    /// within a second.
    ///
    /// # Errors
    /// See [`NoteError`].
    pub fn close(&self, number: u64, now: f64) -> Result<Arc<Incident>, NoteError> {
        let mut state = self.state();
        let known = self.shared.incidents.get(number);
        let known = known.ok_or(NoteError::Unknown(number))?;
        if !known.is_open() {
            return Err(NoteError::Over(number));
        }
        self.shared.incidents.note(number, |it| {
            it.closed = Some(now);
            it.tell(now, What::Closed, "An operator closed it by hand.");
            state.untold.push(count(it, Happened::Closed));
        });
        state.book.open.retain(|it| it.number != number);
        state.saved.remove(&number);
        state.dirty.insert(number);
        drop(state);
        info!(incident = number, "closed by an operator");
        self.kept(number)
    }

    fn kept(&self, number: u64) -> Result<Arc<Incident>, NoteError> {
        let incident = self.shared.incidents.get(number);
        let incident = incident.ok_or(NoteError::Unknown(number))?;
        if is_brief(&incident) {
            return Err(NoteError::Unreadable(number));
        }
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.write(&incident) {
            self.state().dirty.insert(number);
        }
        Ok(incident)
    }
}

/// An incident that was open when the program ended goes on, if that was a moment ago. Otherwise it is taken for
/// over since then.
fn take_up(incident: &mut Incident, now: f64, state: &mut State) {
    let last = last_seen(incident);
    let down = (now - last).max(0.0);
    let number = incident.number;
    state.dirty.insert(number);
    if down <= GOES_ON {
        let text = format!(
            "dnscrub was started again, about {down:.0} s after it last saw it. What was done because of it is still in force."
        );
        info!(
            incident = number,
            "an incident goes on that was open before the restart"
        );
        incident.tell(now, What::Note, text);
        let seen = (now + RECOGNISED, incident.points.len());
        state.adopted.insert(number, seen);
        state.book.open.push(incident.clone());
    } else {
        incident.closed = Some(last);
        let text = format!(
            "dnscrub was not running for {}: it is taken for over since it was last seen. What was done because of it is undone.",
            humantime::format_duration(Duration::from_secs(down as u64))
        );
        info!(
            incident = number,
            "an incident that was open before the restart is taken for over"
        );
        incident.tell(now, What::Closed, text);
        state.untold.push(count(incident, Happened::Closed));
    }
}

/// Something happened to an incident that people are told of.
const fn count(incident: &mut Incident, happened: Happened) -> (u64, Happened, u32) {
    incident.events = incident.events.saturating_add(1);
    (incident.number, happened, incident.events)
}

/// An incident from before the restart that the detector saw nothing of is over since then.
fn end_orphan(incident: &mut Incident, now: f64) {
    incident.closed = Some(last_point(incident));
    incident.tell(
        now,
        What::Closed,
        "Nothing was seen of it since dnscrub was started again: it is over.",
    );
}

/// When something was last measured of an incident.
fn last_point(incident: &Incident) -> f64 {
    let last = incident.points.last();
    last.map_or(incident.opened, |it| it.at + f64::from(it.seconds))
}

/// When something was last known of an incident.
fn last_seen(incident: &Incident) -> f64 {
    let entry = incident.timeline.last().map(|it| it.at);
    entry.map_or_else(|| last_point(incident), |at| at.max(last_point(incident)))
}

/// The detector's copy takes over what others wrote into the record. They write into the time line, the actions and the
/// count of what the kernel dropped only, and nobody takes anything out of them.
fn take_over(open: &mut Incident, known: &Incident) {
    open.timeline.clone_from(&known.timeline);
    open.actions.clone_from(&known.actions);
    open.kernel_dropped = known.kernel_dropped;
}

/// Incidents that need no longer be kept whole, so many at most, the oldest first.
fn to_put_away(
    known: &BTreeMap<u64, Arc<Incident>>,
    dirty: &BTreeSet<u64>,
    many: usize,
) -> Vec<Arc<Incident>> {
    let over = known.values().rev().filter(|it| !it.is_open());
    let old = over.skip(WHOLE).filter(|it| {
        let undone = it
            .actions
            .iter()
            .all(|it| !it.lasting || it.undone.is_some());
        !is_brief(it) && undone && !dirty.contains(&it.number)
    });
    let mut old: Vec<_> = old.cloned().collect();
    old.reverse();
    old.truncate(many);
    old
}

/// Takes out incidents that are over and too old, or too many; but never the newest, so that its number is not
/// used again. Says which.
fn retire(
    known: &mut BTreeMap<u64, Arc<Incident>>,
    settings: &crate::response::Settings,
    now: f64,
) -> Vec<u64> {
    let newest = known.keys().next_back().copied();
    let mut surplus = known.len().saturating_sub(settings.keep_at_most);
    let oldest = now - settings.keep_for.as_secs_f64();
    let mut retired = Vec::new();
    known.retain(|&number, incident| {
        let Some(closed) = incident.closed else {
            return true;
        };
        let kept = Some(number) == newest || surplus == 0 && closed >= oldest;
        if !kept {
            surplus = surplus.saturating_sub(1);
            retired.push(number);
        }
        kept
    });
    retired
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{PLAIN, Program, program};
    use crate::incidents::testing::incident;

    /// The program's owner after a restart.
    fn restarted(program: &Program, now: f64) -> Arc<IncidentOwner> {
        let shared = &program.supervisor.shared;
        shared.incidents.edit(BTreeMap::clear);
        IncidentOwner::open(
            program.folder.path(),
            Arc::clone(shared),
            Arc::clone(&program.supervisor.response),
            &[],
            now,
        )
        .unwrap()
    }

    fn second(owner: &IncidentOwner, now: f64) {
        owner.look(Some(&Window::empty(Instant::now(), 1.0)), now);
        let chores = owner.decide(now);
        owner.do_chores(chores);
    }

    #[test]
    fn an_open_incident_goes_on_after_a_short_stop_and_is_over_after_a_long_one() {
        let program = program(PLAIN);
        let folder = Folder::open(program.folder.path()).unwrap().0;
        let mut open = incident(7);
        open.tell(1_700_000_050.0, What::Grew, "more");
        folder.write(&open).unwrap();
        let incidents = &program.supervisor.shared.incidents;

        let owner = restarted(&program, 1_700_000_080.0);
        assert_eq!(owner.state().book.open.len(), 1);
        assert_eq!(owner.state().book.next, 8);
        owner.do_chores(owner.decide(1_700_000_080.0));
        let known = incidents.get(7).unwrap();
        assert!(known.is_open());
        let told = &known.timeline;
        assert!(
            told.iter()
                .any(|it| it.text.contains("about 30 s after it last saw it")),
            "{told:?}"
        );

        let heard = Arc::<Mutex<Vec<_>>>::default();
        let sink = Arc::clone(&heard);
        incidents.listen(Box::new(move |event| {
            sink.lock()
                .unwrap()
                .push((event.incident.number, event.happened));
        }));
        let owner = restarted(&program, 1_700_003_680.0);
        assert!(owner.state().book.open.is_empty());
        owner.do_chores(owner.decide(1_700_003_680.0));
        let known = incidents.get(7).unwrap();
        assert_eq!(known.closed, Some(1_700_000_080.0));
        assert_eq!(*heard.lock().unwrap(), [(7, Happened::Closed)]);
        let saved = &Folder::open(program.folder.path()).unwrap().1.incidents[&7];
        assert_eq!(saved, &*known);
    }

    #[test]
    fn one_that_is_not_seen_again_after_a_restart_is_over() {
        let program = program(PLAIN);
        let folder = Folder::open(program.folder.path()).unwrap().0;
        let mut open = incident(7);
        open.points.push(Point {
            at: 1_700_000_049.0,
            seconds: 1.0,
            ..Point::default()
        });
        folder.write(&open).unwrap();
        let owner = restarted(&program, 1_700_000_060.0);
        let known = || program.supervisor.shared.incidents.get(7).unwrap();
        second(&owner, 1_700_000_119.0);
        assert!(known().is_open());
        second(&owner, 1_700_000_120.0);
        assert_eq!(known().closed, Some(1_700_000_050.0));
        second(&owner, 1_700_000_121.0);
        assert!(known().actions.iter().all(|action| action.undone.is_some()));
        assert_eq!(owner.state().book.open.len(), 0);
    }

    #[test]
    fn remarks_of_others_and_of_the_detector_come_together() {
        let program = program(PLAIN);
        let folder = Folder::open(program.folder.path()).unwrap().0;
        folder.write(&incident(7)).unwrap();
        let owner = restarted(&program, 1_700_000_010.0);
        owner
            .note(7, "  called\tthe customer ", 1_700_000_011.0)
            .unwrap();
        second(&owner, 1_700_000_012.0);
        let known = program.supervisor.shared.incidents.get(7).unwrap();
        let notes = known
            .timeline
            .iter()
            .filter(|it| it.text == "called the customer");
        assert_eq!(notes.count(), 1);
        assert_eq!(owner.note(9, "x", 0.0), Err(NoteError::Unknown(9)));
        assert_eq!(owner.note(7, " ", 0.0), Err(NoteError::Length(0)));
        let long = "x".repeat(LONGEST_NOTE + 1);
        assert_eq!(
            owner.note(7, &long, 0.0),
            Err(NoteError::Length(LONGEST_NOTE + 1))
        );
    }

    #[test]
    fn one_that_is_closed_by_hand_is_undone_and_stays_closed() {
        let program = program(PLAIN);
        let folder = Folder::open(program.folder.path()).unwrap().0;
        folder.write(&incident(7)).unwrap();
        let owner = restarted(&program, 1_700_000_010.0);
        second(&owner, 1_700_000_011.0);
        let shared = &program.supervisor.shared;
        assert_eq!(shared.orders.load().raised.len(), 1);
        owner.close(7, 1_700_000_012.0).unwrap();
        second(&owner, 1_700_000_013.0);
        let known = shared.incidents.get(7).unwrap();
        assert_eq!(known.closed, Some(1_700_000_012.0));
        assert!(shared.orders.load().raised.is_empty());
        assert!(known.actions.iter().all(|action| action.undone.is_some()));
        assert_eq!(owner.close(7, 0.0), Err(NoteError::Over(7)));
        assert_eq!(owner.close(8, 0.0), Err(NoteError::Unknown(8)));
        let saved = &Folder::open(program.folder.path()).unwrap().1.incidents[&7];
        assert!(saved.closed.is_some());
    }

    #[test]
    fn what_is_added_after_the_end_is_saved() {
        let program = program(PLAIN);
        let folder = Folder::open(program.folder.path()).unwrap().0;
        let mut over = incident(7);
        over.closed = Some(1_700_000_005.0);
        let action = over.act(1_700_000_004.0, "dnscrub", "announces route 1", true);
        folder.write(&over).unwrap();
        let owner = restarted(&program, 1_700_000_010.0);
        let incidents = &program.supervisor.shared.incidents;
        let undo = |at: f64| incidents.note(7, |it| it.undo(action, at, "route 1 is withdrawn"));
        let saved = || {
            let mut found = Folder::open(program.folder.path()).unwrap().1.incidents;
            found.remove(&7).unwrap()
        };
        undo(1_700_000_020.0);
        second(&owner, 1_700_000_021.0);
        assert_eq!(saved().actions[0].undone, Some(1_700_000_020.0));
        // at the program's end as well
        undo(1_700_000_030.0);
        owner.save();
        assert_eq!(saved().actions[0].undone, Some(1_700_000_030.0));
    }

    #[test]
    fn old_incidents_go_but_never_the_newest() {
        let program = program(&format!(
            "{PLAIN}incidents: {{ keep-for: 1h, keep-at-most: 3 }}\n"
        ));
        let folder = Folder::open(program.folder.path()).unwrap().0;
        let now = 1_700_010_000.0;
        for number in 1..=6 {
            let mut over = incident(number);
            over.closed = Some(now - 600.0 * (7.0 - number as f64));
            folder.write(&over).unwrap();
        }
        let owner = restarted(&program, now);
        owner.do_chores(owner.decide(now));
        let kept = |program: &Program| {
            let found = Folder::open(program.folder.path()).unwrap().1.incidents;
            found.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(kept(&program), [4, 5, 6]);
        owner.do_chores(owner.decide(now + 2_000.0));
        assert_eq!(kept(&program), [5, 6]);
        owner.do_chores(owner.decide(now + 1e6));
        assert_eq!(kept(&program), [6]);
    }

    #[test]
    fn old_ones_are_read_from_the_disk_when_somebody_asks() {
        let program = program(PLAIN);
        let folder = Folder::open(program.folder.path()).unwrap().0;
        let now = 1_700_010_000.0;
        let whole = |number: u64| {
            let mut over = incident(number);
            over.closed = Some(now - 100.0);
            let at = now - 200.0;
            over.points.push(Point {
                at,
                ..Point::default()
            });
            over
        };
        let newest = WHOLE as u64 + 20;
        for number in 1..=newest {
            folder.write(&whole(number)).unwrap();
        }
        let owner = restarted(&program, now);
        let incidents = &program.supervisor.shared.incidents;
        let brief_ones = || {
            let all = incidents.all();
            let brief = all.iter().filter(|it| it.points.is_empty());
            brief.map(|it| it.number).rev().collect::<Vec<_>>()
        };
        assert_eq!(brief_ones(), (1..=20).collect::<Vec<_>>());
        assert_eq!(*incidents.get(7).unwrap(), whole(7));
        assert_eq!(*incidents.get(newest).unwrap(), whole(newest));

        let noted = owner.note(7, "it was a test", now).unwrap();
        assert_eq!(noted.timeline.len(), 2);
        assert!(!brief_ones().contains(&7), "it is whole for the moment");
        incidents.note(8, |it| it.tell(now, What::Told, "told late"));
        for n in 1..=3 {
            let mut next = whole(newest + n);
            next.closed = None;
            let happened = Happened::Opened;
            incidents.publish(&crate::incidents::Event {
                happened,
                incident: Arc::new(next),
            });
            incidents.note(newest + n, |it| it.closed = Some(now));
        }
        owner.do_chores(owner.decide(now));
        assert_eq!(brief_ones(), (1..=23).collect::<Vec<_>>());
        assert_eq!(incidents.get(7).unwrap(), noted);
        assert_eq!(incidents.get(8).unwrap().timeline.len(), 2);

        std::fs::remove_file(folder.path().join("000005.json")).unwrap();
        assert_eq!(incidents.get(5).unwrap().zones, whole(5).zones);
        assert_eq!(
            owner.note(5, "x", now),
            Err(NoteError::Unreadable(5)),
            "what is left of it is not written in the place of the whole"
        );
        assert!(!folder.path().join("000005.json").exists());
    }

    #[test]
    fn points_of_ten_minutes_are_shown_and_no_more() {
        let program = program(PLAIN);
        let owner = &program.supervisor.incidents;
        for at in 0..POINTS + 5 {
            second(owner, at as f64);
        }
        let live = program.supervisor.shared.live.load();
        assert_eq!(live.points.len(), POINTS);
        let measures = program.supervisor.shared.measures.load();
        assert!(measures.iter().all(|it| it.now == 0.0), "{measures:?}");
    }

    #[test]
    fn a_full_disk_is_told_and_tried_again() {
        let program = program(PLAIN);
        let folder = Folder::open(program.folder.path()).unwrap().0;
        folder.write(&incident(7)).unwrap();
        let owner = restarted(&program, 1_700_000_010.0);
        let draft = folder.path().join("000007.json.new");
        // a device that is always full stands where the draft is written
        std::os::unix::fs::symlink("/dev/full", &draft).unwrap();
        owner.do_chores(owner.decide(1_700_000_010.0));
        assert_eq!(program.supervisor.shared.incidents.save_failures(), 1);
        owner.do_chores(owner.decide(1_700_000_011.0));
        assert_eq!(program.supervisor.shared.incidents.save_failures(), 1);
        let saved = &Folder::open(program.folder.path()).unwrap().1.incidents[&7];
        assert!(
            saved.timeline.len() > 1,
            "the draft is gone with the first failure"
        );
    }
}
