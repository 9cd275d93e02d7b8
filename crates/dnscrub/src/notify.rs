//! Tells people of incidents: webhooks, Alertmanagers, commands.
//!
//! One thread owns the queue. It hears of events through [`Incidents::listen`], writes each to the disk,
//! and starts a thread for each attempt, since those wait. What is due when is decided by `outbox` and
//! `alerts`, which know neither clock nor network.
//!
//! [`Incidents::listen`]: crate::incidents::Incidents::listen

mod alerts;
mod command;
mod journal;
mod message;
mod notice;
mod outbox;
pub mod settings;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dnscrub_detection::incident::What;
use dnscrub_detection::{Happened, Incident, Kind};
use serde::{Deserialize, Serialize};
use tracing::{debug, error, info, warn};

use self::alerts::{Alert, Alerts, Batch, Facts, Known};
use self::journal::{Journal, Kept, Knowledge, Mark, Record};
use self::message::Message;
use self::notice::{Notice, Outcome};
use self::outbox::Outbox;
use self::settings::{Destination, Settings, Target};
use crate::incidents::{Event, Incidents};
use crate::shared::Shared;
use crate::unix_time;

pub use self::notice::End;

/// Messages that wait for the notifier's thread.
pub const INBOX: usize = 1_024;
/// Messages that are taken together, and written to the disk together.
const TAKEN_TOGETHER: usize = 256;
/// Notices on their way to a webhook at a time.
const AT_A_TIME: usize = 2;
/// How often what is known of incidents is compared.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// After the start, incidents that nobody knows may still become known.
const SETTLING: Duration = Duration::from_secs(600);
/// How long attempts under way are waited for at the stop.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Tells people of incidents.
pub struct Notifier {
    settings: ArcSwap<Settings>,
    inbox: SyncSender<Order>,
    board: Arc<Board>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the notifier's thread is told.
enum Order {
    Event(Event),
    Done(Delivery, Outcome),
    Adopt(Arc<Settings>),
    Stop,
}

/// An attempt that was made.
enum Delivery {
    Notice { destination: String, number: u64 },
    Alerts { endpoint: String, batch: Batch },
}

/// What others may look at.
#[derive(Default)]
struct Board {
    destinations: Mutex<BTreeMap<String, DestinationStatus>>,
    unsaved: Mutex<Option<String>>,
    lost: AtomicU64,
}

/// `GET /v1/notify`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NotifyStatus {
    /// Who is told. Each Alertmanager of a group is there by itself.
    pub destinations: Vec<DestinationStatus>,
    /// Why the queue could not be written to the disk, if so: a restart would lose notices.
    pub unsaved: Option<String>,
    /// Events that were not taken at once, because too much was going on. They are told within a minute.
    pub lost: u64,
}

/// How a destination is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Its name.
    pub name: String,
    /// `webhook`, `alertmanager` or `command`.
    pub kind: String,
    /// The host or the program.
    pub target: String,
    /// Notices that wait, those on their way included.
    pub queued: usize,
    /// When an attempt last succeeded, in seconds since 1970.
    pub last_success: Option<f64>,
    /// When one last failed.
    pub last_failure: Option<f64>,
    /// Why.
    pub failure: Option<String>,
    /// Whether the last attempt failed.
    pub failing: bool,
    /// What became of notices since the start, by [`End`].
    pub ended: BTreeMap<String, u64>,
}

/// What came of a test; `POST /v1/notify/test`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// The destination's name.
    pub name: String,
    /// `webhook`, `alertmanager` or `command`.
    pub kind: String,
    /// The host or the program.
    pub target: String,
    /// Whether it was taken.
    pub delivered: bool,
    /// Why not.
    pub failure: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// There is no destination of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDestination {
    /// Those that there are.
    pub known: Vec<String>,
}

impl Notifier {
    /// Takes up what waits in the state folder, and hears of what happens from now on.
    ///
    /// # Errors
    /// The operating system does not give a thread.
    pub fn start(
        folder: &Path,
        settings: Arc<Settings>,
        shared: &Arc<Shared>,
    ) -> std::io::Result<Arc<Self>> {
        let (inbox, orders) = sync_channel(INBOX);
        let board = Arc::<Board>::default();
        let (sender, hearing) = (inbox.clone(), Arc::clone(&board));
        shared.incidents.listen(Box::new(move |event| {
            let sent = sender.try_send(Order::Event(event.clone()));
            if let Err(TrySendError::Full(_)) = sent {
                hearing.lost.fetch_add(1, Relaxed);
            }
        }));
        let (journal, kept) = Journal::open(folder);
        let desk = Desk {
            settings: Arc::new(Settings::default()),
            outbox: Outbox::default(),
            alertmanagers: BTreeMap::new(),
            journal,
            knows: BTreeMap::new(),
            next: kept.last + 1,
            started: Instant::now(),
            looked: None,
            inbox: inbox.clone(),
            board: Arc::clone(&board),
            shared: Arc::clone(shared),
        };
        let first = Arc::clone(&settings);
        let thread = std::thread::Builder::new()
            .name("notify".to_owned())
            .spawn(move || desk.work(kept, first, &orders))?;
        Ok(Arc::new(Self {
            settings: ArcSwap::new(settings),
            inbox,
            board,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Tells those who are in these settings from now on.
    pub fn adopt(&self, settings: Arc<Settings>) {
        self.settings.store(Arc::clone(&settings));
        // it fails only when everything ends
        let _ = self.inbox.send(Order::Adopt(settings));
    }

    /// Ends attempts under way, as far as they end soon. What waits is on the disk.
    pub fn stop(&self) {
        let _ = self.inbox.send(Order::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            // a panic there is in the log
            let _ = thread.join();
        }
    }

    /// How all destinations are.
    #[must_use]
    pub fn status(&self) -> NotifyStatus {
        NotifyStatus {
            destinations: lock(&self.board.destinations).values().cloned().collect(),
            unsaved: lock(&self.board.unsaved).clone(),
            lost: self.board.lost.load(Relaxed),
        }
    }

    /// Sends a test to one destination or to all, once, past the queue. Waits for what comes of it.
    ///
    /// # Errors
    /// There is no destination of this name.
    pub fn test(&self, name: Option<&str>) -> Result<Vec<TestResult>, UnknownDestination> {
        let settings = self.settings.load_full();
        let chosen: Vec<_> = settings
            .destinations
            .iter()
            .filter(|it| name.is_none_or(|name| it.name == name))
            .collect();
        if let (true, Some(_)) = (chosen.is_empty(), name) {
            let known = settings.destinations.iter().map(|it| it.name.clone());
            return Err(UnknownDestination {
                known: known.collect(),
            });
        }
        let results = std::thread::scope(|scope| {
            let attempts: Vec<_> = chosen
                .iter()
                .map(|destination| scope.spawn(|| test_one(destination, &settings.instance)))
                .collect();
            // a thread that panicked has no result
            let ended = attempts.into_iter().filter_map(|it| it.join().ok());
            ended.flatten().collect()
        });
        Ok(results)
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        let _ = self.inbox.try_send(Order::Stop);
    }
}

/// What the notifier's thread works with.
struct Desk {
    settings: Arc<Settings>,
    outbox: Outbox,
    /// By endpoint: `NAME@URL`.
    alertmanagers: BTreeMap<String, Alerts>,
    journal: Journal,
    /// What webhooks and commands know of incidents.
    knows: BTreeMap<String, Knowledge>,
    /// Number of the next notice.
    next: u64,
    started: Instant,
    looked: Option<Instant>,
    inbox: SyncSender<Order>,
    board: Arc<Board>,
    shared: Arc<Shared>,
}

impl Desk {
    fn work(mut self, kept: Kept, settings: Arc<Settings>, orders: &Receiver<Order>) {
        self.restore(kept, settings);
        loop {
            self.look_after_incidents();
            self.send_due();
            self.show();
            let first = match orders.recv_timeout(self.pause()) {
                Ok(order) => order,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let more = orders.try_iter().take(TAKEN_TOGETHER);
            let orders_now: Vec<_> = std::iter::once(first).chain(more).collect();
            if self.obey(orders_now) {
                self.wait_for_attempts(orders);
                return;
            }
        }
    }

    /// Returns whether it is to stop.
    fn obey(&mut self, orders: Vec<Order>) -> bool {
        let mut events = Vec::new();
        let mut stop = false;
        for order in orders {
            match order {
                Order::Event(event) => events.push(event),
                Order::Done(delivery, outcome) => self.done(delivery, outcome),
                Order::Adopt(settings) => {
                    self.take(std::mem::take(&mut events));
                    self.adopt(settings);
                }
                Order::Stop => stop = true,
            }
        }
        self.take(events);
        stop
    }

    /// So that what was delivered is not delivered again after the restart.
    fn wait_for_attempts(&mut self, orders: &Receiver<Order>) {
        let end = Instant::now() + STOP_PATIENCE;
        while self.outbox.is_sending() || self.alertmanagers.values().any(Alerts::is_sending) {
            let left = end.saturating_duration_since(Instant::now());
            match orders.recv_timeout(left) {
                Ok(Order::Done(delivery, outcome)) => self.done(delivery, outcome),
                Ok(Order::Event(event)) => self.take(vec![event]),
                Ok(_) => {}
                Err(_) => return,
            }
        }
        while let Ok(Order::Event(event)) = orders.try_recv() {
            self.take(vec![event]);
        }
    }

    fn restore(&mut self, mut kept: Kept, settings: Arc<Settings>) {
        if let Some(damage) = &kept.damage {
            warn!(
                file = %self.journal.path().display(),
                "the queue of notices is damaged: {damage}; what is legible is sent, a copy is beside it"
            );
        }
        self.knows = std::mem::take(&mut kept.knows);
        self.set_destinations(settings);
        for (name, knowledge) in &self.knows {
            let heard = knowledge.iter().filter(|(_, mark)| mark.heard);
            for (&incident, _) in heard {
                self.outbox.restore_heard(name, incident);
            }
        }
        let now = unix_time::now();
        let mut gone = BTreeMap::<String, usize>::new();
        let mut waiting = 0;
        for (notice, to) in &kept.notices {
            for name in to {
                if let Some(alerts) = self.alertmanagers.get_mut(name) {
                    alerts.take(notice);
                } else if self.has_line(name) {
                    self.outbox.take(name, notice, now);
                    waiting += 1;
                } else {
                    *gone.entry(name.clone()).or_default() += 1;
                }
            }
        }
        for (incident, number, to) in kept.fired {
            if let Some(alerts) = self.alertmanagers.get_mut(&to) {
                alerts.restore_fired(incident, number);
            }
        }
        for (name, notices) in gone {
            warn!(
                destination = name,
                notices, "what waited for it is dropped: it is no longer in the configuration"
            );
        }
        if waiting > 0 {
            info!(
                notices = waiting,
                "notices of before the restart wait to be sent"
            );
        }
        self.tell_alertmanagers_of_open();
        self.replace_journal();
        // the lines that this adds are about those who are in the file by now
        self.tell_missed();
    }

    fn adopt(&mut self, settings: Arc<Settings>) {
        for ended in self.set_destinations(settings) {
            warn!(
                destination = ended.destination,
                incident = ended.notice.incident.number,
                event = ended.notice.event.label(),
                "a notice is dropped: its destination is no longer in the configuration"
            );
            self.note(&ended.destination, &ended.notice, End::Dropped, &ended.why);
        }
        self.tell_alertmanagers_of_open();
        self.replace_journal();
    }

    /// What waits for destinations that are no longer there is returned.
    fn set_destinations(&mut self, settings: Arc<Settings>) -> Vec<outbox::Ended> {
        let manners = settings.destinations.iter().filter_map(|destination| {
            let (at_a_time, retry) = match &destination.target {
                Target::Webhook(_) => (AT_A_TIME, true),
                Target::Command(command) => (command.at_a_time, command.retry),
                Target::Alertmanager(_) => return None,
            };
            let manner = outbox::Manner {
                at_a_time,
                retry,
                give_up_after: destination.give_up_after,
            };
            Some((destination.name.clone(), manner))
        });
        let gone = self.outbox.adopt(manners.collect());
        let mut old = std::mem::take(&mut self.alertmanagers);
        let mut rows = BTreeMap::new();
        for destination in &settings.destinations {
            let Target::Alertmanager(alertmanager) = &destination.target else {
                let target = target_of(destination);
                rows.insert(destination.name.clone(), (destination, target));
                continue;
            };
            let manner = alerts::Manner {
                resend: alertmanager.resend.as_secs_f64(),
                escalate: alertmanager
                    .escalate
                    .iter()
                    .map(Duration::as_secs_f64)
                    .collect(),
                give_up_after: destination.give_up_after.as_secs_f64(),
            };
            for url in &alertmanager.urls {
                let endpoint = endpoint(&destination.name, url);
                let alerts = match old.remove(&endpoint) {
                    Some(mut alerts) => {
                        alerts.adopt(manner.clone());
                        alerts
                    }
                    None => Alerts::new(manner.clone()),
                };
                self.alertmanagers.insert(endpoint.clone(), alerts);
                rows.insert(endpoint, (destination, url.to_string()));
            }
        }
        for (endpoint, alerts) in old.iter().filter(|(_, alerts)| alerts.queued() > 0) {
            warn!(
                destination = endpoint,
                incidents = alerts.queued(),
                "it is not told of these any more: it is no longer in the configuration"
            );
        }
        self.board.set(&rows);
        self.settings = Arc::clone(&settings);
        self.learn_who_there_is();
        gone
    }

    /// Who is new is told of what happens from now on: what was before counts as known to them.
    fn learn_who_there_is(&mut self) {
        let incidents = self.shared.incidents.all();
        let there = incidents.iter().map(|incident| {
            let mark = Mark {
                events: incident.events,
                heard: false,
            };
            (incident.number, mark)
        });
        let there: Knowledge = there.collect();
        let mut old = std::mem::take(&mut self.knows);
        let lines = self.settings.destinations.iter();
        let lines = lines.filter(|it| !matches!(it.target, Target::Alertmanager(_)));
        for destination in lines {
            let known = old.remove(&destination.name);
            self.knows.insert(
                destination.name.clone(),
                known.unwrap_or_else(|| there.clone()),
            );
        }
    }

    /// What webhooks and commands did not hear of, going by the record: the program was killed between the record and
    /// the notice, or too much was going on.
    fn tell_missed(&mut self) {
        let mut missed = Vec::new();
        for incident in self.shared.incidents.all().iter().rev() {
            for (name, knowledge) in &self.knows {
                let known = knowledge.get(&incident.number).map_or(0, |it| it.events);
                if known < incident.events {
                    missed.push((name.clone(), incident.number, known));
                }
            }
        }
        if missed.is_empty() {
            return;
        }
        let settings = Arc::clone(&self.settings);
        let now = unix_time::now();
        for (name, number, known) in missed {
            let mut destinations = settings.destinations.iter();
            let (Some(destination), Some(incident)) = (
                destinations.find(|it| it.name == name),
                self.shared.incidents.get(number),
            ) else {
                continue;
            };
            let last = if incident.is_open() {
                Happened::Changed
            } else {
                Happened::Closed
            };
            // an opening comes first; of changes the last says all
            let opening = (known == 0).then_some((Happened::Opened, 1));
            let rest = (incident.events > 1 && (known > 0 || last == Happened::Closed))
                .then_some((last, incident.events));
            for (happened, events) in opening.into_iter().chain(rest) {
                let mut then = Arc::clone(&incident);
                if then.events != events {
                    Arc::make_mut(&mut then).events = events;
                }
                let heard = self.outbox.has_heard(&name, number);
                if destination.only.takes(happened, &then, heard) {
                    info!(
                        destination = name,
                        incident = number,
                        event = happened.label(),
                        "it has not heard of this yet"
                    );
                    self.queue(happened, &then, vec![name.clone()], now);
                }
            }
            self.pass_over(number, incident.events, vec![name]);
        }
        self.sync();
    }

    /// These need not be told of an incident's events so far.
    fn pass_over(&mut self, incident: u64, events: u32, mut to: Vec<String>) {
        to.retain(|name| {
            let mark = self
                .knows
                .get_mut(name)
                .map(|it| it.entry(incident).or_default());
            mark.is_some_and(|mark| {
                let is_news = mark.events < events;
                mark.events = mark.events.max(events);
                is_news
            })
        });
        if !to.is_empty() {
            self.record(&[Record::Passed {
                incident,
                events,
                to,
            }]);
        }
    }

    /// Whether somebody was told of an event already, or passed over: going by the record, which knew of it first.
    fn knows(&self, destination: &str, incident: &Incident) -> bool {
        let knowledge = self.knows.get(destination);
        let mark = knowledge.and_then(|it| it.get(&incident.number));
        incident.events > 0 && mark.is_some_and(|mark| mark.events >= incident.events)
    }

    fn has_line(&self, name: &str) -> bool {
        let mut destinations = self.settings.destinations.iter();
        destinations.any(|it| it.name == name && !matches!(it.target, Target::Alertmanager(_)))
    }

    /// An Alertmanager that is new gets what is going on.
    fn tell_alertmanagers_of_open(&mut self) {
        let incidents = self.shared.incidents.all();
        let open = incidents.iter().rev().filter(|it| it.is_open());
        let before = self.next;
        for incident in open {
            self.take_one(Happened::Opened, incident, Audience::NewAlertmanagers);
        }
        if self.next != before {
            self.sync();
        }
    }

    fn take(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        for Event { happened, incident } in events {
            self.take_one(happened, &incident, Audience::All);
        }
        self.sync();
    }

    /// Takes an event for those whose filter takes it. [`Desk::sync`] must follow before anything is sent.
    fn take_one(&mut self, happened: Happened, incident: &Arc<Incident>, audience: Audience) {
        let settings = Arc::clone(&self.settings);
        let (mut to, mut ceased, mut passed) = (Vec::new(), Vec::new(), Vec::new());
        for destination in &settings.destinations {
            let Target::Alertmanager(alertmanager) = &destination.target else {
                if audience != Audience::All || self.knows(&destination.name, incident) {
                    continue;
                }
                let heard = self.outbox.has_heard(&destination.name, incident.number);
                if destination.only.takes(happened, incident, heard) {
                    to.push(destination.name.clone());
                } else {
                    passed.push(destination.name.clone());
                }
                continue;
            };
            for url in &alertmanager.urls {
                let endpoint = endpoint(&destination.name, url);
                let alerts = self.alertmanagers.get(&endpoint);
                let heard = alerts.is_some_and(|it| it.has_heard(incident.number));
                match destination.only.concerns(incident) {
                    true if audience == Audience::All || !heard => to.push(endpoint),
                    false if heard => ceased.push(endpoint),
                    _ => {}
                }
            }
        }
        let now = unix_time::now();
        self.queue(happened, incident, to, now);
        self.pass_over(incident.number, incident.events, passed);
        if !ceased.is_empty() {
            // it became something that they are not told of: their alert resolves
            let ended = Incident {
                closed: incident.closed.or(Some(now)),
                ..(**incident).clone()
            };
            self.queue(Happened::Closed, &ended, ceased, now);
        }
    }

    fn queue(&mut self, happened: Happened, incident: &Incident, to: Vec<String>, now: f64) {
        if to.is_empty() {
            return;
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let notice = Arc::new(Notice::new(self.next, id, happened, now, incident));
        self.next += 1;
        self.record(&[Record::Take {
            notice: Arc::clone(&notice),
            to: to.clone(),
        }]);
        for name in to {
            if let Some(knowledge) = self.knows.get_mut(&name) {
                let mark = knowledge.entry(incident.number).or_default();
                mark.take(happened, incident.events);
            }
            if let Some(alerts) = self.alertmanagers.get_mut(&name) {
                let before = alerts.notice_of(incident.number);
                let ended = alerts.take(&notice);
                if let Some(number) = before {
                    let to = name.clone();
                    self.record(&[Record::End { number, to }]);
                }
                if let Some(ended) = ended {
                    self.alert_ended(&name, &ended);
                }
            } else if let Some(ended) = self.outbox.take(&name, &notice, now) {
                self.ended(&ended);
            }
        }
    }

    fn look_after_incidents(&mut self) {
        if self
            .looked
            .is_some_and(|looked| looked.elapsed() < LOOK_PERIOD)
        {
            return;
        }
        self.looked = Some(Instant::now());
        let settled = self.started.elapsed() >= SETTLING;
        let incidents = &self.shared.incidents;
        let mut gone = Vec::new();
        for (endpoint, alerts) in &mut self.alertmanagers {
            let ended = alerts.reconcile(settled, |number| known(incidents, number));
            gone.extend(ended.into_iter().map(|ended| (endpoint.clone(), ended)));
        }
        for (endpoint, ended) in gone {
            self.alert_ended(&endpoint, &ended);
        }
        self.tell_missed();
        self.tell_alertmanagers_of_open();
        if self.journal.wants_replacing() {
            // the disk may have room again
            self.replace_journal();
        }
    }

    fn send_due(&mut self) {
        let now = unix_time::now();
        for attempt in self.outbox.due(now) {
            let settings = Arc::clone(&self.settings);
            let delivery = Delivery::Notice {
                destination: attempt.destination.clone(),
                number: attempt.notice.number,
            };
            self.attempt(delivery, move |_| {
                let mut destinations = settings.destinations.iter();
                let found = destinations.find(|it| it.name == attempt.destination);
                found.map_or_else(no_longer_there, |destination| {
                    let message = Message::new(
                        &attempt.notice,
                        attempt.attempt,
                        &settings.instance,
                        unix_time::now(),
                        false,
                    );
                    tell(destination, &message)
                })
            });
        }
        let facts = Facts {
            instance: self.settings.instance.clone(),
            playbook: self.settings.playbook.clone(),
            dashboard: self.settings.dashboard.clone(),
        };
        let mut batches = Vec::new();
        for (endpoint, alerts) in &mut self.alertmanagers {
            if let Some(batch) = alerts.due(now, &facts) {
                batches.push((endpoint.clone(), batch));
            }
        }
        for (endpoint, batch) in batches {
            let settings = Arc::clone(&self.settings);
            self.attempt(Delivery::Alerts { endpoint, batch }, move |delivery| {
                let Delivery::Alerts { endpoint, batch } = delivery else {
                    return no_longer_there();
                };
                post_batch(&settings, endpoint, &batch.alerts)
            });
        }
    }

    /// Makes an attempt on a thread of its own.
    fn attempt(
        &self,
        delivery: Delivery,
        work: impl FnOnce(&Delivery) -> Outcome + Send + 'static,
    ) {
        let inbox = self.inbox.clone();
        // where no thread is to be had, the delivery comes back by this
        let slot = Arc::new(Mutex::new(Some(delivery)));
        let taken = Arc::clone(&slot);
        let started = std::thread::Builder::new()
            .name("notify-attempt".to_owned())
            .spawn(move || {
                let delivery = lock(&taken).take();
                if let Some(delivery) = delivery {
                    let outcome = work(&delivery);
                    // it fails only when everything ends
                    let _ = inbox.send(Order::Done(delivery, outcome));
                }
            });
        if let Err(failure) = started
            && let Some(delivery) = lock(&slot).take()
        {
            let outcome = Outcome::Later {
                why: failure.to_string(),
                after: None,
            };
            // the inbox has room: this thread has just emptied it
            let _ = self.inbox.try_send(Order::Done(delivery, outcome));
        }
    }

    fn done(&mut self, delivery: Delivery, outcome: Outcome) {
        let now = unix_time::now();
        let chance = rand::random();
        match delivery {
            Delivery::Notice {
                destination,
                number,
            } => {
                self.show_attempt(&destination, &outcome, now);
                let ended = self.outbox.done(&destination, number, outcome, now, chance);
                if let Some(ended) = ended {
                    self.ended(&ended);
                }
            }
            Delivery::Alerts { endpoint, batch } => {
                self.show_attempt(&endpoint, &outcome, now);
                let Some(alerts) = self.alertmanagers.get_mut(&endpoint) else {
                    return;
                };
                let before: Vec<_> = alerts.fired().collect();
                let ended = alerts.done(&batch, outcome, now, chance);
                let fired: Vec<_> = alerts.fired().filter(|it| !before.contains(it)).collect();
                let fired = fired.into_iter().map(|(incident, number)| Record::Fired {
                    incident,
                    number,
                    to: endpoint.clone(),
                });
                let fired: Vec<_> = fired.collect();
                self.record(&fired);
                for ended in ended {
                    self.alert_ended(&endpoint, &ended);
                }
            }
        }
    }

    fn ended(&mut self, ended: &outbox::Ended) {
        self.record(&[Record::End {
            number: ended.notice.number,
            to: ended.destination.clone(),
        }]);
        self.note(&ended.destination, &ended.notice, ended.end, &ended.why);
    }

    fn alert_ended(&mut self, endpoint: &str, ended: &alerts::Ended) {
        if ended.last {
            self.record(&[Record::End {
                number: ended.notice.number,
                to: endpoint.to_owned(),
            }]);
        }
        self.note(endpoint, &ended.notice, ended.end, &ended.why);
    }

    /// Counts how a notice ended, and writes it into the log and on the incident's time line.
    fn note(&self, key: &str, notice: &Notice, end: End, why: &str) {
        let row = self.board.count(key, end);
        let (number, event) = (notice.incident.number, notice.event.label());
        let (name, kind) = (&row.name, &row.kind);
        let (what, text) = match end {
            End::Delivered => {
                info!(destination = name, incident = number, event, "told");
                let text = format!(
                    "{kind} {name} was told that the incident {}",
                    in_words(notice.event)
                );
                (What::Told, text)
            }
            End::Replaced => {
                debug!(
                    destination = name,
                    incident = number,
                    event,
                    "replaced by what came later"
                );
                return;
            }
            End::Failed | End::Expired | End::Dropped => {
                error!(
                    destination = name,
                    incident = number,
                    event,
                    why,
                    "not told, and it will not be"
                );
                let text = format!(
                    "{kind} {name} could not be told that the incident {}: {why}",
                    in_words(notice.event)
                );
                (What::Untold, text)
            }
        };
        let at = unix_time::now();
        let incidents = &self.shared.incidents;
        incidents.note(number, |incident| incident.tell(at, what, text));
    }

    fn show_attempt(&self, key: &str, outcome: &Outcome, now: f64) {
        let mut destinations = lock(&self.board.destinations);
        let Some(row) = destinations.get_mut(key) else {
            return;
        };
        match outcome {
            Outcome::Delivered => {
                if std::mem::take(&mut row.failing) {
                    info!(
                        destination = row.name,
                        target = row.target,
                        "it is reached again"
                    );
                }
                row.last_success = Some(now);
            }
            Outcome::Later { why, .. } | Outcome::Never(why) => {
                if !std::mem::replace(&mut row.failing, true) {
                    warn!(
                        destination = row.name,
                        target = row.target,
                        why,
                        "it cannot be told"
                    );
                }
                row.last_failure = Some(now);
                row.failure = Some(why.clone());
            }
        }
    }

    fn show(&self) {
        for (key, row) in lock(&self.board.destinations).iter_mut() {
            row.queued = match self.alertmanagers.get(key) {
                Some(alerts) => alerts.queued(),
                None => self.outbox.queued(key),
            };
        }
    }

    /// Until something is due.
    fn pause(&self) -> Duration {
        let alerts = self.alertmanagers.values().filter_map(Alerts::next_due);
        let due = alerts.chain(self.outbox.next_due()).min_by(f64::total_cmp);
        let seconds = due.map_or(f64::INFINITY, |due| (due - unix_time::now()).max(0.0));
        Duration::try_from_secs_f64(seconds).map_or(LOOK_PERIOD, |it| it.min(LOOK_PERIOD))
    }

    fn record(&mut self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let written = self.journal.add(records);
        self.show_writing(written);
    }

    /// What was recorded is on the disk after this, unless the log says otherwise.
    fn sync(&mut self) {
        if self.journal.wants_replacing() {
            self.replace_journal();
        } else {
            let written = self.journal.sync();
            self.show_writing(written);
        }
    }

    fn replace_journal(&mut self) {
        let mut notices = BTreeMap::<u64, (Arc<Notice>, Vec<String>)>::new();
        let alerts = self.alertmanagers.iter().flat_map(|(endpoint, alerts)| {
            let notices = alerts.notices();
            notices.map(|notice| (endpoint.as_str(), notice))
        });
        for (name, notice) in self.outbox.waiting().chain(alerts) {
            let entry = notices.entry(notice.number);
            let (_, to) = entry.or_insert_with(|| (Arc::clone(notice), Vec::new()));
            to.push(name.to_owned());
        }
        let taken = notices
            .into_values()
            .map(|(notice, to)| Record::Take { notice, to });
        let fired = self.alertmanagers.iter().flat_map(|(endpoint, alerts)| {
            alerts.fired().map(|(incident, number)| Record::Fired {
                incident,
                number,
                to: endpoint.clone(),
            })
        });
        // what is forgotten elsewhere need not be known
        let known: BTreeSet<u64> = self
            .shared
            .incidents
            .all()
            .iter()
            .map(|it| it.number)
            .collect();
        for knowledge in self.knows.values_mut() {
            knowledge.retain(|number, _| known.contains(number));
        }
        let knows = self.knows.iter().map(|(to, incidents)| Record::Knows {
            to: to.clone(),
            incidents: incidents.clone(),
        });
        // before the notices, which change it
        let written = self.journal.replace(knows.chain(taken).chain(fired));
        self.show_writing(written);
    }

    fn show_writing(&self, written: std::io::Result<()>) {
        let mut unsaved = lock(&self.board.unsaved);
        match written {
            Ok(()) => *unsaved = None,
            Err(failure) => {
                let failure = format!("{}: {failure}", self.journal.path().display());
                if unsaved.is_none() {
                    error!("notices are sent, but a restart would lose those that wait: {failure}");
                }
                *unsaved = Some(failure);
            }
        }
    }
}

/// Whom an event is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    All,
    /// Alertmanagers that have not heard of the incident.
    NewAlertmanagers,
}

impl Board {
    /// There are these destinations now; those that were there keep their counts.
    fn set(&self, rows: &BTreeMap<String, (&Destination, String)>) {
        let mut destinations = lock(&self.destinations);
        let mut old = std::mem::take(&mut *destinations);
        for (key, (destination, target)) in rows {
            let row = old.remove(key).unwrap_or_else(|| DestinationStatus {
                ended: End::ALL.map(|end| (end.label().to_owned(), 0)).into(),
                ..DestinationStatus::default()
            });
            let row = DestinationStatus {
                name: destination.name.clone(),
                kind: destination.target.label().to_owned(),
                target: target.clone(),
                ..row
            };
            destinations.insert(key.clone(), row);
        }
    }

    /// Counts the end of a notice; returns whose it was.
    fn count(&self, key: &str, end: End) -> DestinationStatus {
        let mut destinations = lock(&self.destinations);
        match destinations.get_mut(key) {
            Some(row) => {
                *row.ended.entry(end.label().to_owned()).or_default() += 1;
                row.clone()
            }
            None => DestinationStatus {
                name: key.to_owned(),
                kind: "destination".to_owned(),
                ..DestinationStatus::default()
            },
        }
    }
}

const fn in_words(event: Happened) -> &'static str {
    match event {
        Happened::Opened => "was opened",
        Happened::Changed => "has changed",
        Happened::Closed => "is over",
    }
}

fn no_longer_there() -> Outcome {
    Outcome::Never("the destination is no longer in the configuration".to_owned())
}

fn endpoint(name: &str, url: &settings::Url) -> String {
    format!("{name}@{}", url.as_str())
}

fn target_of(destination: &Destination) -> String {
    match &destination.target {
        Target::Webhook(webhook) => webhook.url.to_string(),
        Target::Command(command) => command.program.display().to_string(),
        Target::Alertmanager(alertmanager) => {
            let urls: Vec<_> = alertmanager.urls.iter().map(ToString::to_string).collect();
            urls.join(", ")
        }
    }
}

fn known(incidents: &Incidents, number: u64) -> Known {
    match incidents.get(number) {
        None => Known::Unknown,
        Some(incident) if incident.is_open() => Known::Open,
        Some(incident) => Known::Closed(incident),
    }
}

/// Tells a webhook or a command.
fn tell(destination: &Destination, message: &Message<'_>) -> Outcome {
    match &destination.target {
        Target::Webhook(webhook) => message::post(webhook, message, destination.time_limit),
        Target::Command(command) => command::run(command, message, destination.time_limit),
        Target::Alertmanager(_) => no_longer_there(),
    }
}

fn post_batch(settings: &Settings, to: &str, alerts: &[Alert]) -> Outcome {
    for destination in &settings.destinations {
        if let Target::Alertmanager(alertmanager) = &destination.target {
            let mut urls = alertmanager.urls.iter();
            if let Some(url) = urls.find(|url| endpoint(&destination.name, url) == to) {
                return message::post_alerts(
                    url,
                    &alertmanager.access,
                    alerts,
                    destination.time_limit,
                );
            }
        }
    }
    no_longer_there()
}

/// Sends a test to a destination; to each Alertmanager of a group.
fn test_one(destination: &Destination, instance: &str) -> Vec<TestResult> {
    let now = unix_time::now();
    let incident = test_incident(now);
    let result = |target: String, tell: &dyn Fn() -> Outcome| {
        let began = Instant::now();
        let failure = match tell() {
            Outcome::Delivered => None,
            Outcome::Later { why, .. } | Outcome::Never(why) => Some(why),
        };
        TestResult {
            name: destination.name.clone(),
            kind: destination.target.label().to_owned(),
            target,
            delivered: failure.is_none(),
            failure,
            seconds: began.elapsed().as_secs_f64(),
        }
    };
    if let Target::Alertmanager(alertmanager) = &destination.target {
        let alert = alerts::test(&incident, instance, now);
        let send = |url| {
            let access = &alertmanager.access;
            message::post_alerts(
                url,
                access,
                std::slice::from_ref(&alert),
                destination.time_limit,
            )
        };
        let urls = alertmanager.urls.iter();
        return urls
            .map(|url| result(url.to_string(), &|| send(url)))
            .collect();
    }
    let id = format!("{:032x}", rand::random::<u128>());
    let notice = Notice::new(0, id, Happened::Opened, now, &incident);
    let message = Message::new(&notice, 1, instance, now, true);
    vec![result(target_of(destination), &|| {
        tell(destination, &message)
    })]
}

/// An incident that says that it is none.
fn test_incident(now: f64) -> Incident {
    Incident {
        sentence: "This is a test of dnscrub's notifications: nothing has happened.".to_owned(),
        closed: Some(now),
        ..Incident::new(0, Kind::FlashCrowd, now, now)
    }
}

/// What a lock guards stays consistent through a panic: each change is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
