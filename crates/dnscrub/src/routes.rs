//! Help from further upstream: what is announced to the routers in front, through ExaBGP.
//!
//! Incidents ask for routes ([`plan`]), the book decides which of them are announced ([`book`]), the node's own
//! route follows its health ([`node`]). What is wanted goes to ExaBGP's process (`feed`, [`speaker`]),
//! as a whole each time, so that what is announced follows from what is wanted and from nothing else.

pub mod book;
mod feed;
pub mod node;
pub mod plan;
pub mod route;
pub mod settings;
pub mod speaker;
mod state_file;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dnscrub_detection::incident::What;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use self::book::{Book, Entry, Refusal, Standing, Telling, Told, Wrong};
use self::node::{Change, Health, Node, Place};
use self::route::{Order, Route, RouteKind};
use self::settings::{Anycast, Mode, Settings};
use self::speaker::Report;
use self::state_file::{Kept, RoutesFile};
use crate::control::socket::{self, BindError, SocketFile};
use crate::shared::Shared;
use crate::unix_time;

/// How often everything is looked at without an event.
const TURN: Duration = Duration::from_secs(1);
/// How long ExaBGP may take to withdraw the node's route at a stop.
const LAST_WORD: Duration = Duration::from_secs(2);
/// The name of the node's own route, where others have a number.
pub const ANYCAST: &str = "anycast";

/// The socket for ExaBGP's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSocket {
    /// Its path.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

/// States of a route as they are shown. The label is the metric's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteState {
    /// It would be announced, were it not for dry-run.
    DryRun,
    /// It waits for approval.
    Waiting,
    /// ExaBGP is to announce it, and has not yet said that it does.
    Wanted,
    /// ExaBGP has taken it.
    Announced,
    /// ExaBGP has not taken it.
    Failed,
    /// It is not allowed.
    Refused,
    /// It was withdrawn by hand.
    Withdrawn,
    /// The node's route, while the node cannot serve.
    Out,
}

impl RouteState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::DryRun,
        Self::Waiting,
        Self::Wanted,
        Self::Announced,
        Self::Failed,
        Self::Refused,
        Self::Withdrawn,
        Self::Out,
    ];

    /// The label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::DryRun => "dry-run",
            Self::Waiting => "waiting",
            Self::Wanted => "wanted",
            Self::Announced => "announced",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::Out => "out",
        }
    }
}

/// A route as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Its number, or `anycast`.
    pub id: String,
    /// Its kind.
    pub kind: RouteKind,
    /// What it says, in words.
    pub route: String,
    /// What ExaBGP is told.
    pub exabgp: String,
    /// How it stands.
    pub state: RouteState,
    /// The incident that asks for it; nothing where an operator did, and for the node's own.
    pub incident: Option<u64>,
    /// Why it is there.
    pub why: String,
    /// Why it is not announced, where it is not.
    pub reason: Option<String>,
    /// Since when it stands so, in seconds since 1970.
    pub since: f64,
    /// When it goes, if nothing asks for it any more.
    pub expires: Option<f64>,
    /// Until when it stays although its incident is over, in seconds since 1970.
    #[serde(default)]
    pub lingers_until: Option<f64>,
}

/// A route that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedStatus {
    /// Its number.
    pub id: String,
    /// What it said.
    pub route: String,
    /// The incident that asked for it.
    pub incident: Option<u64>,
    /// When it ended, in seconds since 1970.
    pub at: f64,
    /// Why.
    pub why: String,
}

/// `GET /v1/routes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutesPage {
    /// How far it goes: `off`, `dry-run`, `confirm`, `announce`.
    pub mode: Mode,
    /// Whether ExaBGP's process is connected.
    pub connected: bool,
    /// BGP sessions by the other end, and their states, as far as ExaBGP tells.
    pub sessions: BTreeMap<String, String>,
    /// The routes.
    pub routes: Vec<RouteStatus>,
    /// Those that are over, the latest first.
    pub ended: Vec<EndedStatus>,
}

/// A route that an operator asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteRequest {
    /// The source that a FlowSpec rule is against.
    pub source: Option<String>,
    /// Only to this address of ours; to all in `services` without.
    pub destination: Option<String>,
    /// The address of ours that is to be blackholed, instead.
    pub blackhole: Option<String>,
    /// For how long, such as `10m`; `limits.ttl` without.
    pub lifetime: Option<String>,
    /// Why.
    pub reason: String,
}

/// Announces, withdraws, and knows what is announced.
#[derive(Debug)]
pub struct RouteOwner {
    inner: Mutex<Inner>,
    wake: Notify,
    wanted: watch::Sender<BTreeSet<Order>>,
}

#[derive(Debug, Default)]
struct Inner {
    book: Book,
    node: Node,
    /// What each connected process of ExaBGP says.
    reports: BTreeMap<u64, Report>,
    connections: u64,
    stopping: bool,
    /// Where it is kept.
    file: Option<Arc<Mutex<RoutesFile>>>,
}

impl Default for RouteOwner {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            wake: Notify::new(),
            wanted: watch::Sender::new(BTreeSet::new()),
        }
    }
}

/// The socket while it is there.
#[derive(Debug)]
pub struct RouteFeed {
    task: tokio::task::JoinHandle<()>,
    _file: SocketFile,
}

impl Drop for RouteFeed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes up what there was before the restart, hears of incidents from now on, on the current runtime, and keeps what
/// is announced in line with them.
pub fn watch(shared: &Arc<Shared>, state_folder: &Path) {
    shared.routes.restore(shared, state_folder);
    let owner = Arc::downgrade(&shared.routes);
    shared.incidents.listen(Box::new(move |_| {
        if let Some(owner) = owner.upgrade() {
            owner.wake.notify_one();
        }
    }));
    tokio::spawn(run(Arc::clone(shared)));
}

/// What is announced according to the records, and is not known any more: the file with routes was lost.
fn forget(shared: &Shared, book: &Book) {
    let now = now(shared);
    let known: BTreeSet<_> = book.recorded_actions().collect();
    for incident in shared.incidents.all() {
        let announced = incident.actions.iter().filter_map(|action| {
            let route = book::announced_in(&action.text)?;
            let is_known = known.contains(&(incident.number, action.number));
            (action.lasting && action.undone.is_none() && !is_known)
                .then_some((action.number, route))
        });
        for (number, route) in announced {
            let text = format!("{route} is withdrawn: dnscrub was started again");
            shared
                .incidents
                .note(incident.number, |it| it.undo(number, now, text));
        }
    }
}

async fn run(shared: Arc<Shared>) {
    loop {
        shared.routes.turn(&shared);
        let owner = Arc::clone(&shared.routes);
        // a panic there is in the log
        let _ = tokio::task::spawn_blocking(move || owner.save()).await;
        let _ = tokio::time::timeout(TURN, shared.routes.wake.notified()).await;
    }
}

/// Listens for ExaBGP's process.
///
/// # Errors
/// The socket cannot be opened.
pub fn listen(shared: &Shared, at: &RouteSocket) -> Result<RouteFeed, BindError> {
    let (listener, file) = socket::bind(&at.path, at.mode)?;
    Ok(RouteFeed {
        task: tokio::spawn(feed::serve(Arc::clone(&shared.routes), listener)),
        _file: file,
    })
}

impl RouteOwner {
    /// Goes on with what the folder's file holds.
    fn restore(&self, shared: &Shared, folder: &Path) {
        let policy = shared.policy.load();
        let settings = &*policy.announcing;
        let now = now(shared);
        let (file, kept) = RoutesFile::open(folder);
        let mut inner = self.inner();
        let recorded = |incident, action, route: &str| {
            shared.incidents.get(incident).is_some_and(|incident| {
                let mut actions = incident.actions.iter();
                let found = actions.find(|it| it.number == action);
                found.is_some_and(|it| {
                    it.undone.is_none() && book::announced_in(&it.text) == Some(route)
                })
            })
        };
        let told = inner.book.restore(kept.book, now, settings, recorded);
        if kept.anycast_held && settings.anycast.is_some() {
            info!("the anycast route stays withdrawn, as an operator wanted before the restart");
            inner.node.hold(now);
        }
        forget(shared, &inner.book);
        self.tell(shared, &mut inner, now, told);
        inner.file = Some(Arc::new(Mutex::new(file)));
    }

    /// Writes down what there is, for the next start. Waits for the disk.
    fn save(&self) {
        let inner = self.inner();
        let Some(file) = inner.file.clone() else {
            return;
        };
        let kept = Kept {
            book: inner.book.kept(),
            anycast_held: inner.node.place().0 == Place::Held,
        };
        drop(inner);
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.save(kept);
    }

    /// Looks at everything once.
    pub fn turn(&self, shared: &Shared) {
        let policy = shared.policy.load();
        let settings = &*policy.announcing;
        let now = now(shared);
        let mut inner = self.inner();
        if inner.stopping {
            return;
        }
        let asked: Vec<_> = if settings.mode == Mode::Off {
            Vec::new()
        } else {
            let incidents = shared.incidents.all();
            // the oldest first, so that one that comes takes no room from one that is there
            let open = incidents.iter().rev().filter(|incident| incident.is_open());
            open.map(|incident| (incident.number, plan::wishes(incident, settings)))
                .collect()
        };
        let mut told = inner.book.turn(now, settings, &asked);
        if let Some(anycast) = &settings.anycast
            && settings.mode != Mode::Off
        {
            let health = health(&policy, anycast);
            let change = inner.node.observe(now, health, anycast, settings.mode);
            told.extend(change.map(|change| self.node_changed(&mut inner, anycast, change)));
        }
        self.tell(shared, &mut inner, now, told);
        self.send(&inner, settings);
    }

    /// Everything, to be shown.
    #[must_use]
    pub fn page(&self, shared: &Shared) -> RoutesPage {
        let policy = shared.policy.load();
        let settings = &*policy.announcing;
        let inner = self.inner();
        let mut sessions = BTreeMap::new();
        for report in inner.reports.values() {
            sessions.extend(report.sessions.clone());
        }
        let mut routes = inner.node_status(settings);
        routes.extend(
            inner
                .book
                .entries()
                .map(|entry| inner.status(entry, settings)),
        );
        let ended = inner.book.ended().map(|ended| EndedStatus {
            id: ended.entry.id.to_string(),
            route: ended.entry.route.to_string(),
            incident: incident_of(&ended.entry),
            at: ended.at,
            why: ended.why.clone(),
        });
        let mut ended: Vec<_> = ended.collect();
        ended.reverse();
        RoutesPage {
            mode: settings.mode,
            connected: !inner.reports.is_empty(),
            sessions,
            routes,
            ended,
        }
    }

    /// An operator approves a route, or has one back that was withdrawn by hand. Returns what was done.
    ///
    /// # Errors
    /// Why not.
    pub fn approve(&self, shared: &Shared, id: &str) -> Result<String, String> {
        let policy = shared.policy.load();
        let settings = &*policy.announcing;
        let now = now(shared);
        let mut inner = self.inner();
        if id == ANYCAST {
            if !inner.node.approve(now) {
                return Err("the anycast route does not wait for approval".to_owned());
            }
            info!("an operator approved the anycast route");
        } else {
            let number = number(id)?;
            let told = inner
                .book
                .approve(number, now, settings)
                .map_err(|wrong| explain(wrong, id))?;
            self.tell(shared, &mut inner, now, told);
        }
        self.send(&inner, settings);
        drop(inner);
        self.wake.notify_one();
        Ok(format!("approved {id}"))
    }

    /// An operator withdraws a route.
    ///
    /// # Errors
    /// Why not.
    pub fn withdraw(&self, shared: &Shared, id: &str) -> Result<String, String> {
        let policy = shared.policy.load();
        let now = now(shared);
        let mut inner = self.inner();
        if id == ANYCAST {
            if policy.announcing.anycast.is_none() || !inner.node.hold(now) {
                return Err("the anycast route is not announced".to_owned());
            }
            warn!("an operator withdrew the anycast route");
        } else {
            let told = inner
                .book
                .withdraw(number(id)?, now)
                .map_err(|wrong| explain(wrong, id))?;
            self.tell(shared, &mut inner, now, told);
        }
        self.send(&inner, &policy.announcing);
        drop(inner);
        self.wake.notify_one();
        Ok(format!("withdrew {id}"))
    }

    /// An operator withdraws every route but the node's own. Returns how many.
    #[must_use]
    pub fn withdraw_all(&self, shared: &Shared) -> usize {
        let now = now(shared);
        let mut inner = self.inner();
        let ids: Vec<u64> = inner.book.entries().map(|entry| entry.id).collect();
        let mut count = 0;
        for id in ids {
            if let Ok(told) = inner.book.withdraw(id, now) {
                count += 1;
                self.tell(shared, &mut inner, now, told);
            }
        }
        self.send(&inner, &shared.policy.load().announcing);
        drop(inner);
        self.wake.notify_one();
        count
    }

    /// An operator asks for routes. Returns what was done about each.
    ///
    /// # Errors
    /// What is wrong with the request, or the first limit that is against it.
    pub fn announce(&self, shared: &Shared, request: &RouteRequest) -> Result<Vec<String>, String> {
        let policy = shared.policy.load();
        let settings = &*policy.announcing;
        let routes = asked_for(request, settings)?;
        let lifetime = match &request.lifetime {
            None => settings.limits.ttl,
            Some(text) => humantime::parse_duration(text)
                .map_err(|_| format!("found the time \"{text}\", expected one such as 10m or 2h"))?
                .as_secs_f64(),
        };
        let why = match request.reason.as_str() {
            "" => "no reason given",
            reason => reason,
        };
        let now = now(shared);
        let mut inner = self.inner();
        let mut done = Vec::new();
        for route in routes {
            let (id, told) = inner
                .book
                .by_hand(now, settings, route, lifetime, why)
                .map_err(|refusal| format!("refused {route}: {}", refusal.words()))?;
            done.extend(told.iter().map(|told| told.text.clone()));
            self.tell(shared, &mut inner, now, told);
            if done.is_empty() {
                done.push(format!("route {id}, {route}"));
            }
        }
        self.send(&inner, settings);
        drop(inner);
        self.wake.notify_one();
        Ok(done)
    }

    /// Withdraws everything, the node's route included, and waits until ExaBGP has done so and routers had
    /// their time to turn elsewhere. Queries are served meanwhile. The next start goes on with what is in force.
    pub async fn stop(&self, shared: &Shared) {
        let (was_announced, drain) = {
            let policy = shared.policy.load();
            let settings = &*policy.announcing;
            let now = now(shared);
            let mut inner = self.inner();
            inner.stopping = true;
            if settings.mode >= Mode::Confirm {
                let told = inner.book.paused();
                self.tell(shared, &mut inner, now, told);
            }
            let announced = inner.node_routes(settings).next().is_some();
            let drain = settings.anycast.as_ref().map_or(0.0, |it| it.drain);
            let connected = !inner.reports.is_empty();
            self.wanted.send_if_modified(|wanted| {
                let changed = !wanted.is_empty();
                wanted.clear();
                changed
            });
            (
                announced && connected && settings.mode >= Mode::Confirm,
                drain,
            )
        };
        self.save();
        let end = Instant::now() + LAST_WORD;
        while Instant::now() < end && self.is_any_announced() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if was_announced {
            info!(
                seconds = drain,
                "the anycast route is withdrawn; queries are still served"
            );
            tokio::time::sleep(Duration::from_secs_f64(drain)).await;
        }
    }

    /// How many routes there are of each kind and state.
    #[must_use]
    pub fn counts(&self, shared: &Shared) -> Vec<(RouteKind, RouteState, usize)> {
        let routes = self.page(shared).routes;
        let mut counts = Vec::new();
        for kind in RouteKind::ALL {
            for state in RouteState::ALL {
                let is = |route: &&RouteStatus| route.kind == kind && route.state == state;
                counts.push((kind, state, routes.iter().filter(is).count()));
            }
        }
        counts
    }

    /// How many were refused for this reason, since the start.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.inner().book.refused(refusal)
    }

    /// How many FlowSpec rules and blackholes were announced and withdrawn, since the start.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        self.inner().book.totals()
    }

    /// Processes of ExaBGP that are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner().reports.len()
    }

    fn connect(&self) -> u64 {
        let mut inner = self.inner();
        inner.connections += 1;
        let number = inner.connections;
        inner.reports.insert(number, Report::default());
        number
    }

    fn disconnect(&self, connection: u64) {
        self.inner().reports.remove(&connection);
    }

    fn hear(&self, connection: u64, report: Report) {
        let mut inner = self.inner();
        if let Some(known) = inner.reports.get_mut(&connection) {
            for (name, why) in &report.failed {
                if !known.failed.contains_key(name) {
                    warn!(route = name, why, "ExaBGP does not announce a route");
                }
            }
            *known = report;
        }
    }

    fn wanted(&self) -> watch::Receiver<BTreeSet<Order>> {
        self.wanted.subscribe()
    }

    fn is_any_announced(&self) -> bool {
        let inner = self.inner();
        inner
            .reports
            .values()
            .any(|report| !report.announced.is_empty())
    }

    /// Hands over what is wanted, if it has changed.
    fn send(&self, inner: &Inner, settings: &Settings) {
        let orders = inner.orders(settings);
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != orders;
            if changed {
                *wanted = orders;
            }
            changed
        });
    }

    /// Writes down what was done: in the log, and in the records of the incidents.
    fn tell(&self, shared: &Shared, inner: &mut Inner, now: f64, told: Vec<Told>) {
        for Told {
            id,
            incident,
            what,
            text,
        } in told
        {
            info!(incident, "{text}");
            let Some(number) = incident else { continue };
            let mut action = None;
            shared.incidents.note(number, |incident| match what {
                Telling::Done | Telling::Kept => {
                    action = Some(incident.act(now, "dnscrub", text, true))
                }
                Telling::Undone(number) => incident.undo(number, now, text),
                Telling::Would => incident.tell(now, What::Would, text),
                Telling::Note => incident.tell(now, What::Note, text),
            });
            if let Some(action) = action {
                inner.book.recorded(id, action);
            }
        }
    }

    fn node_changed(&self, inner: &mut Inner, anycast: &Anycast, change: Change) -> Told {
        let prefixes: Vec<String> = anycast.prefixes.iter().map(ToString::to_string).collect();
        let prefixes = prefixes.join(", ");
        let text = match change {
            Change::Announced => format!("the node serves: announces its anycast route {prefixes}"),
            Change::Waits => format!(
                "the node serves: its anycast route {prefixes} waits for approval: dnscrub routes approve {ANYCAST}"
            ),
            Change::Failed(why) => {
                format!("the node has failed: its anycast route {prefixes} goes ({why})")
            }
            Change::Refused(why) => {
                inner.book.count(Refusal::TooManyWithdrawals);
                format!(
                    "the node has failed, but its anycast route {prefixes} stays ({why}): {}",
                    Refusal::TooManyWithdrawals.words()
                )
            }
        };
        Told {
            id: 0,
            incident: None,
            what: Telling::Note,
            text,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The node's routes as they are to be announced.
    fn node_routes<'a>(&self, settings: &'a Settings) -> impl Iterator<Item = Route> + use<'a> {
        let anycast = settings.anycast.as_ref();
        let announced = anycast.and_then(|it| Some((it, self.node.announces(it)?)));
        announced.into_iter().flat_map(|(anycast, prefer_others)| {
            anycast.prefixes.iter().map(move |&prefix| Route::Anycast {
                prefix,
                prefer_others,
            })
        })
    }

    fn orders(&self, settings: &Settings) -> BTreeSet<Order> {
        if self.stopping {
            return BTreeSet::new();
        }
        let mut orders = self.book.orders(settings);
        if settings.mode >= Mode::Confirm {
            let own = self
                .node_routes(settings)
                .filter(|route| book::allowed(route, settings).is_ok());
            orders.extend(own.map(|route| route.order(settings)));
        }
        orders
    }

    /// What ExaBGP makes of a route that is wanted.
    fn result(&self, order: &Order) -> (RouteState, Option<String>) {
        let reports = || self.reports.values();
        if let Some(why) = reports().find_map(|report| report.failed.get(&order.name)) {
            return (RouteState::Failed, Some(why.clone()));
        }
        if reports().any(|report| report.announced.contains(&order.name)) {
            return (RouteState::Announced, None);
        }
        let why = if self.reports.is_empty() {
            "ExaBGP's process is not connected"
        } else {
            "ExaBGP has not confirmed it yet"
        };
        (RouteState::Wanted, Some(why.to_owned()))
    }

    fn status(&self, entry: &Entry, settings: &Settings) -> RouteStatus {
        let order = entry.route.order(settings);
        let (state, reason) = match entry.standing {
            Standing::DryRun => (RouteState::DryRun, None),
            Standing::Waiting => (RouteState::Waiting, None),
            Standing::Wanted => self.result(&order),
            Standing::Refused(refusal) => (RouteState::Refused, Some(refusal.words().to_owned())),
            Standing::Held => (
                RouteState::Withdrawn,
                Some("an operator withdrew it".to_owned()),
            ),
        };
        RouteStatus {
            id: entry.id.to_string(),
            kind: entry.route.kind(),
            route: entry.route.to_string(),
            exabgp: order.text,
            state,
            incident: incident_of(entry),
            why: entry.why.clone(),
            reason,
            since: entry.since,
            expires: Some(entry.expires),
            lingers_until: entry.lingers_until(),
        }
    }

    fn node_status(&self, settings: &Settings) -> Vec<RouteStatus> {
        let Some(anycast) = settings
            .anycast
            .as_ref()
            .filter(|_| settings.mode != Mode::Off)
        else {
            return Vec::new();
        };
        let (place, since) = self.node.place();
        let announces = self.node.announces(anycast);
        let status = |&prefix: &IpNet| {
            let route = Route::Anycast {
                prefix,
                prefer_others: announces == Some(true),
            };
            let order = route.order(settings);
            let fault = self.node.fault().map(str::to_owned);
            let (state, reason) = match (place, announces) {
                _ if self.stopping => (RouteState::Out, Some("dnscrub stops".to_owned())),
                (_, Some(_)) if settings.mode == Mode::DryRun => (RouteState::DryRun, fault),
                (_, Some(_)) => {
                    let (state, why) = self.result(&order);
                    (state, why.or(fault))
                }
                (Place::Waiting, None) => (RouteState::Waiting, None),
                (Place::Held, None) => (
                    RouteState::Withdrawn,
                    Some("an operator withdrew it".to_owned()),
                ),
                (Place::Out | Place::In, None) => {
                    let wait = format!(
                        "the node must be well for {:.0} s",
                        self.node.hold_down(anycast)
                    );
                    (RouteState::Out, fault.or(Some(wait)))
                }
            };
            RouteStatus {
                id: ANYCAST.to_owned(),
                kind: RouteKind::Anycast,
                route: route.to_string(),
                exabgp: order.text,
                state,
                incident: None,
                why: "the node's own".to_owned(),
                reason,
                since,
                expires: None,
                lingers_until: None,
            }
        };
        anycast.prefixes.iter().map(status).collect()
    }
}

/// Seconds since 1970, on the monotonic clock: it only goes forward.
fn now(shared: &Shared) -> f64 {
    unix_time::from(shared.started) + shared.epoch.elapsed().as_secs_f64()
}

/// Whether the node can serve.
fn health(policy: &crate::config::runtime::Reloadable, anycast: &Anycast) -> Health {
    if let Some(file) = &anycast.drain_file
        && file.exists()
    {
        return Health::Failed(format!("{} is there", file.display()));
    }
    let upstreams = policy.forwarding.snapshot(Instant::now());
    let pools: Vec<Option<&str>> = if anycast.pools.is_empty() {
        vec![None]
    } else {
        anycast
            .pools
            .iter()
            .map(|pool| Some(pool.as_str()))
            .collect()
    };
    let mut all_well = true;
    for pool in pools {
        let of_pool = upstreams
            .iter()
            .filter(|upstream| pool.is_none_or(|pool| upstream.pool == pool));
        let (mut any_usable, mut any_well) = (false, false);
        for upstream in of_pool {
            any_usable |= upstream.state != "down";
            any_well |= matches!(upstream.state.as_str(), "up" | "unchecked");
        }
        if !any_usable {
            return Health::Failed(match pool {
                Some(pool) => format!("no upstream of pool {pool} can be used"),
                None => "no upstream can be used".to_owned(),
            });
        }
        all_well &= any_well;
    }
    if all_well {
        Health::Well
    } else {
        Health::Unknown
    }
}

/// The routes that an operator asks for.
fn asked_for(request: &RouteRequest, settings: &Settings) -> Result<Vec<Route>, String> {
    let prefix = |text: &String| {
        dnscrub_packet_filter::config::Prefix::parse(text.as_bytes())
            .map(|prefix| prefix.net())
            .map_err(|failure| failure.to_string())
    };
    match (&request.source, &request.blackhole) {
        (None, Some(blackhole)) => Ok(vec![Route::Blackhole(prefix(blackhole)?)]),
        (Some(source), None) => {
            let source = prefix(source)?;
            let destinations = match &request.destination {
                Some(destination) => vec![prefix(destination)?],
                None => {
                    let services = settings.services.iter().copied();
                    services
                        .filter(|service| plan::is_v4(*service) == plan::is_v4(source))
                        .collect()
                }
            };
            if destinations.is_empty() {
                return Err(
                    "there is no address of this family in `routes.services`: name a destination"
                        .to_owned(),
                );
            }
            let routes = destinations
                .into_iter()
                .map(|destination| Route::FromSource {
                    destination,
                    source,
                });
            Ok(routes.collect())
        }
        _ => Err("expected either a source or an address to blackhole".to_owned()),
    }
}

fn number(id: &str) -> Result<u64, String> {
    id.parse()
        .map_err(|_| format!("found the route \"{id}\", expected a number or `{ANYCAST}`"))
}

fn explain(wrong: Wrong, id: &str) -> String {
    match wrong {
        Wrong::Unknown => format!("there is no route {id}"),
        Wrong::NotWaiting => format!("route {id} does not wait for approval"),
        Wrong::NotThere => format!("route {id} is not announced"),
        Wrong::Refused(refusal) => format!("route {id} is refused: {}", refusal.words()),
    }
}

const fn incident_of(entry: &Entry) -> Option<u64> {
    match entry.origin {
        book::Origin::Incident(number) => Some(number),
        book::Origin::Hand => None,
    }
}
