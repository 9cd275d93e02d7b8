//! What is done about incidents: levels that are raised, sources that are blocked; the limits in the kernel that levels
//! switch on; and the levels that operators set.
//!
//! Everything that is done because of an incident is on its record, and is undone when it is closed. What is
//! in force is in a file of its own (`response.json`), so that a restart neither forgets a level that was
//! set by hand nor leaves a block behind.
//!
//! [`Response::tick`] decides, once a second, and does no IO; what it comes to is [`Work`], which may wait
//! for the disk and the blocklist.

mod blocks;
mod limits;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dnscrub_detection::incident::What;
use dnscrub_detection::{Incident, Kind, Window};
use dnscrub_packet_filter::{AddOutcome, Origin as BlockOrigin};
use dnscrub_scoring::Level;
use dnscrub_wire::Name;
use dnscrub_zones::Zones;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use self::blocks::Busiest;
use self::limits::{LimitInForce, Limiting, Seen};
pub use self::settings::{BlockSettings, Settings};
use crate::blocklist::BlocklistOwner;
use crate::config::runtime::Reloadable;
use crate::defence::{WHOLE, scope_in_words};
use crate::kernel::Order;
use crate::kernel::usual::Usual;
use crate::orders::{ByHand, MOST_BY_HAND, Orders, Raised, zone_of};
use crate::shared::Shared;
use crate::state_folder::{StateFile, from_json};

/// Name in the state folder.
const NAME: &str = "response.json";
/// What the file's `format` says.
const FORMAT: &str = "dnscrub-response";
/// Version of the format that is written, and the newest that is read.
const VERSION: u32 = 1;
/// For how long a level is set by hand when nothing else is said, and at most.
pub const BY_HAND_FOR: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// Octets of an operator's reason.
const LONGEST_REASON: usize = 255;
/// A level that was raised is let go only when the kind is less sure than needed by this much.
const SLACK: f32 = 0.2;
/// An incident goes on while its blocked sources together send this part of the rate from which one is blocked.
const GOES_ON: f64 = 0.25;
/// Sources named in one sentence.
const NAMED: usize = 5;

/// What is done, and by whom it was ordered.
pub struct Response {
    shared: Arc<Shared>,
    blocklist: Arc<BlocklistOwner>,
    file: StateFile,
    state: Mutex<State>,
    /// Held while the file is written.
    saving: Mutex<()>,
    /// The last write has failed: it is tried again.
    unsaved: AtomicBool,
}

/// What is kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    by_hand: Vec<ByHand>,
    in_force: BTreeMap<u64, InForce>,
    busiest: Busiest,
    /// How much each source usually sends: for limits in the kernel.
    usual: Usual,
    /// The limit in the kernel that is in force.
    #[serde(skip)]
    limiting: Option<Limiting>,
    /// Packets that the kernel had dropped a second ago, and when that was.
    #[serde(skip)]
    kernel_dropped: Option<(u64, f64)>,
}

/// The file, behind its header.
#[derive(Serialize, Deserialize)]
struct Content {
    state: State,
}

/// What is in force because of an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct InForce {
    level: Option<RaisedLevel>,
    /// The action's number in the incident, where a source was blocked.
    blocks: Option<u32>,
    sources: BTreeMap<IpNet, Blocked>,
    /// Sources that the blocklist did not take.
    refused: BTreeSet<IpNet>,
    /// Sources of which it was said in observe mode that they would have been blocked.
    observed: BTreeSet<IpNet>,
    /// The limit in the kernel, as its record says.
    limit: Option<LimitInForce>,
    /// Why nothing is limited there, as its record says.
    not_limited: Option<String>,
    /// There were more sources than may be blocked, as its time line says.
    #[serde(skip)]
    is_full: bool,
    /// Levels of its scopes as its time line says.
    told: BTreeMap<String, Level>,
    /// Packets of all its blocked sources that were dropped by then, and when that was.
    #[serde(skip)]
    dropped: Option<(u64, f64)>,
}

impl InForce {
    fn is_over(&self) -> bool {
        self.level.is_none() && self.blocks.is_none() && self.limit.is_none()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RaisedLevel {
    /// The action's number in the incident.
    action: u32,
    raised: Raised,
}

/// A blocked source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Blocked {
    /// Until when, in seconds since 1970.
    until: f64,
    /// Packets dropped by then,
    hits: u64,
    /// and when that was.
    looked: f64,
}

/// What is to be done where waiting does no harm.
#[derive(Debug, Default, PartialEq)]
pub struct Work {
    /// The file is to be saved.
    save: bool,
    blocks: Vec<BlockWork>,
    /// What the kernel is to do.
    kernel: Option<Order>,
}

#[derive(Debug, PartialEq)]
enum BlockWork {
    /// Block these sources.
    Block(u64, Vec<IpNet>),
    /// Look whether blocked sources go on, and block them for longer if so.
    Renew(u64),
    /// Take all blocks of an incident back.
    Unblock(u64),
}

impl Work {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A level to be set by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelRequest {
    /// The zone; the whole if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// `attack`, `alert` or `calm`.
    pub level: String,
    /// For how long, such as `30m`; an hour if missing.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Why a level was not set or released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LevelError {
    /// What was asked for is not understood: what was found and expected, and what to do.
    Wrong(String, Option<String>),
    /// As many levels are set as there may be.
    Full,
    /// No level is set there.
    NotSet(String),
    /// It is in force, but not saved: the file, and the operating system's words.
    Unsaved(String),
}

impl Response {
    /// Takes up what was in force when the program ended. A file that is damaged is set aside.
    #[must_use]
    pub fn open(
        folder: &Path,
        shared: Arc<Shared>,
        blocklist: Arc<BlocklistOwner>,
        now: f64,
    ) -> Arc<Self> {
        let file = StateFile::new(folder, NAME);
        let mut state = read(&file).unwrap_or_else(|damage| {
            file.set_aside(
                &damage,
                "the file with levels set by hand is damaged, none is set",
            );
            State::default()
        });
        state.by_hand.truncate(MOST_BY_HAND);
        state.by_hand.retain(|it| it.until > now);
        for by_hand in &state.by_hand {
            info!(
                scope = by_hand.scope(),
                level = by_hand.level.label(),
                "a level that was set by hand is in force again"
            );
        }
        let response = Arc::new(Self {
            shared,
            blocklist,
            file,
            state: Mutex::new(state),
            saving: Mutex::default(),
            unsaved: AtomicBool::new(false),
        });
        response.publish(&response.state());
        response
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has workers, and everybody who shows levels, see what is ordered.
    fn publish(&self, state: &State) {
        let orders = Orders::new(state.by_hand.clone(), raised(state));
        self.shared.orders.store(Arc::new(orders));
    }

    /// Sources that are blocked because of an incident.
    #[must_use]
    pub fn blocked(&self) -> usize {
        let state = self.state();
        state.in_force.values().map(|it| it.sources.len()).sum()
    }

    /// Incidents whose blocked sources go on sending, and those whose limit in the kernel drops much: what is dropped there
    /// is not counted otherwise, so that such an incident would seem over as soon as that works. To be asked once a
    /// second.
    #[must_use]
    pub fn going_on(&self, now: f64) -> Vec<u64> {
        let least = f64::from(self.shared.policy.load().response.blocks.least_rate);
        let table = self.shared.blocklist.load();
        let mut state = self.state();
        let mut going_on = Vec::new();
        for (&number, in_force) in &mut state.in_force {
            let addresses = in_force.sources.keys().map(IpNet::addr);
            let dropped = addresses.filter_map(|it| table.lookup(it).map(|hit| hit.count_so_far()));
            let dropped = dropped.sum::<u64>();
            let before = in_force.dropped.replace((dropped, now));
            let Some((before, at)) = before else { continue };
            let rate = dropped.saturating_sub(before) as f64 / (now - at).max(0.1);
            if rate >= GOES_ON * least {
                going_on.push(number);
            }
        }
        going_on.extend(state.limited());
        going_on
    }

    /// Learns from a second's sample how much each source usually sends.
    pub fn observe(&self, window: &Window, now: f64) {
        let policy = self.shared.policy.load();
        if policy.kernel.has_limits() {
            self.state().usual.observe(window, &policy.kernel, now);
        }
    }

    /// Sets a level by hand. It is on the disk when this returns.
    ///
    /// # Errors
    /// See [`LevelError`].
    pub fn set_level(&self, request: &LevelRequest, now: f64) -> Result<ByHand, LevelError> {
        let wrong = |message: String, hint: &str| {
            let hint = (!hint.is_empty()).then(|| hint.to_owned());
            LevelError::Wrong(message, hint)
        };
        let level = Level::ALL
            .into_iter()
            .find(|level| level.label() == request.level)
            .ok_or_else(|| {
                let found = request.level.escape_debug();
                wrong(
                    format!("found level \"{found}\", expected attack, alert or calm"),
                    "",
                )
            })?;
        let lifetime = match &request.lifetime {
            None => BY_HAND_FOR,
            Some(text) => humantime::parse_duration(text)
                .ok()
                .filter(|it| !it.is_zero() && *it <= LONGEST)
                .ok_or_else(|| {
                    let found = text.escape_debug();
                    wrong(
                        format!(
                            "found \"{found}\", expected a time such as 30m or 2h, 30 days at most"
                        ),
                        "a level that is to stay belongs into the configuration: see `response`",
                    )
                })?,
        };
        if request.reason.len() > LONGEST_REASON {
            return Err(wrong(
                format!(
                    "found a reason of {} octets, expected at most {LONGEST_REASON}",
                    request.reason.len()
                ),
                "",
            ));
        }
        let zone = self.zone(request.zone.as_deref())?;
        let by_hand = ByHand {
            zone,
            level,
            since: now,
            until: now + lifetime.as_secs_f64(),
            reason: request.reason.replace(char::is_control, " "),
        };
        {
            let mut state = self.state();
            state.by_hand.retain(|it| it.zone != by_hand.zone);
            if state.by_hand.len() >= MOST_BY_HAND {
                return Err(LevelError::Full);
            }
            state.by_hand.push(by_hand.clone());
            self.publish(&state);
        }
        let (scope, level) = (by_hand.scope(), level.label());
        info!(scope, level, ?lifetime, reason = %by_hand.reason, "defence level set by an operator");
        self.saved()?;
        Ok(by_hand)
    }

    /// Lets go what was set by hand for a zone, or the whole.
    ///
    /// # Errors
    /// See [`LevelError`].
    pub fn release(&self, zone: Option<&str>) -> Result<ByHand, LevelError> {
        let zone = self.zone(zone)?;
        let released = {
            let mut state = self.state();
            let mut by_hand = state.by_hand.iter();
            let Some(place) = by_hand.position(|it| it.zone == zone) else {
                let scope = zone.unwrap_or_else(|| WHOLE.to_owned());
                return Err(LevelError::NotSet(scope));
            };
            let released = state.by_hand.remove(place);
            self.publish(&state);
            released
        };
        info!(
            scope = released.scope(),
            "defence level released by an operator"
        );
        self.saved()?;
        Ok(released)
    }

    /// The zone as it is kept. It must be one that names are judged by.
    fn zone(&self, zone: Option<&str>) -> Result<Option<String>, LevelError> {
        let Some(text) = zone else { return Ok(None) };
        let name = Name::from_text(text).map_err(|failure| {
            let found = text.escape_debug();
            LevelError::Wrong(
                format!("found zone \"{found}\", expected a domain name: {failure}"),
                None,
            )
        })?;
        let zone = zone_of(&self.shared.policy.load().zones, &name);
        if zone != name {
            return Err(LevelError::Wrong(
                format!("{name} is no zone: its names are judged with those of {zone}"),
                Some(format!(
                    "name {zone}, or add {name} to `zones` of the configuration"
                )),
            ));
        }
        Ok(Some(name.to_string()))
    }

    fn saved(&self) -> Result<(), LevelError> {
        self.save().map_err(|failure| {
            let path = self.file.path().display();
            LevelError::Unsaved(format!("cannot write {path}: {failure}"))
        })
    }

    /// Saves what is in force.
    ///
    /// # Errors
    /// Those of the operating system; the old file is then as it was.
    pub fn save(&self) -> io::Result<()> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state().clone();
        let written = self.file.replace_json(FORMAT, VERSION, &Content { state });
        let failing = self.unsaved.swap(written.is_err(), Relaxed);
        match &written {
            Ok(()) if failing => info!("what is done about incidents is saved again"),
            Err(failure) if !failing => error!(
                path = %self.file.path().display(), %failure,
                "what is done about incidents is not saved: a restart would not know of it; it is tried again each second"
            ),
            Ok(()) | Err(_) => {}
        }
        written
    }

    /// What has come to its end, and what is to be done about the incidents as they are now. `busiest`: the
    /// rate of the busiest source in the last seconds.
    #[must_use]
    pub fn tick(&self, now: f64, busiest: Option<f32>) -> Work {
        self.tick_seeing(now, busiest, self.kernel_now())
    }

    fn tick_seeing(&self, now: f64, busiest: Option<f32>, kernel: Seen) -> Work {
        let policy = self.shared.policy.load();
        let settings = &policy.response;
        let mut work = Work {
            save: self.unsaved.load(Relaxed),
            ..Work::default()
        };
        let mut state = self.state();
        let before = (state.by_hand.len(), raised(&state));
        state.by_hand.retain(|it| {
            let over = it.until <= now;
            if over {
                info!(
                    scope = it.scope(),
                    level = it.level.label(),
                    "the time of a level that was set by hand is over"
                );
            }
            !over
        });
        let incidents = self.shared.incidents.all();
        let wrong = incidents.iter().any(|incident| incident.is_open())
            || self.shared.defence.load().is_alarmed();
        match busiest {
            _ if wrong => {
                state.busiest.disturbed();
                state.usual.disturbed();
            }
            Some(rate) => state.busiest.observe(rate),
            None => {}
        }
        let threshold = state.busiest.threshold(&settings.blocks);
        let mut blocked: usize = state.in_force.values().map(|it| it.sources.len()).sum();
        for incident in &incidents {
            let number = incident.number;
            if !incident.is_open() && !state.in_force.contains_key(&number) {
                continue;
            }
            let in_force = state.in_force.entry(number).or_default();
            self.raise(incident, in_force, settings, &policy.zones, now);
            let room = settings.blocks.at_most.saturating_sub(blocked);
            let new = self.new_blocks(incident, in_force, &policy, (threshold, room), now);
            if !new.is_empty() {
                blocked = blocked.saturating_add(new.len());
                work.blocks.push(BlockWork::Block(number, new));
            }
            let half = settings.blocks.lifetime.as_secs_f64() / 2.0;
            if !incident.is_open() || !settings.blocks.on || settings.blocks.observe {
                if in_force.blocks.is_some() {
                    work.blocks.push(BlockWork::Unblock(number));
                }
            } else if in_force.sources.values().any(|it| it.until - half < now) {
                work.blocks.push(BlockWork::Renew(number));
            }
        }
        for (&number, in_force) in &mut state.in_force {
            if incidents.iter().all(|it| it.number != number) {
                in_force.level = None;
                in_force.limit = None;
                work.blocks.push(BlockWork::Unblock(number));
            }
        }
        let open = |number: &u64| {
            let mut all = incidents.iter();
            all.any(|it| it.number == *number && it.is_open())
        };
        state
            .in_force
            .retain(|number, it| open(number) || !it.is_over());
        if before != (state.by_hand.len(), raised(&state)) {
            self.publish(&state);
            work.save = true;
        }
        self.tell_levels(&mut state, &incidents, now, &policy.zones);
        let limited = limits_told(&state);
        work.kernel = self.limit(kernel, &mut state, &incidents, &policy, now);
        work.save |= limited != limits_told(&state);
        work
    }

    /// The sources of an incident that are to be blocked now, `room` at most; or, in observe mode, tells whom it would
    /// have been.
    fn new_blocks(
        &self,
        incident: &Incident,
        in_force: &mut InForce,
        policy: &Reloadable,
        (threshold, room): (Option<f32>, usize),
        now: f64,
    ) -> Vec<IpNet> {
        let settings = &policy.response;
        let trusted =
            |source| policy.scoring.trusts(source) || policy.response_limit.is_exempt(source);
        let mut new = wanted_blocks(incident, in_force, settings, threshold, trusted);
        let is_full = new.len() > room && !settings.blocks.observe;
        if is_full && !in_force.is_full {
            let left_out = new.len().saturating_sub(room);
            warn!(
                incident = incident.number,
                left_out,
                "more sources than `response.blocks.at-most` allows; they are not blocked"
            );
            let text = format!(
                "{left_out} further sources are not blocked: `response.blocks.at-most` is reached"
            );
            self.note(incident.number, |it| it.tell(now, What::Note, text));
        }
        in_force.is_full = is_full;
        new.truncate(room);
        if !settings.blocks.observe || new.is_empty() {
            return new;
        }
        in_force.observed.extend(new.iter().copied());
        let text = format!(
            "would have blocked {}; `response.blocks` only observes",
            listed(&new)
        );
        self.note(incident.number, |it| it.tell(now, What::Would, text));
        Vec::new()
    }

    /// Raises the levels of an incident's zones, or lets them go.
    fn raise(
        &self,
        incident: &Incident,
        in_force: &mut InForce,
        settings: &Settings,
        zones: &Zones,
        now: f64,
    ) {
        let wanted = wanted_level(incident, in_force.level.is_some(), settings, zones);
        match (&mut in_force.level, wanted) {
            (None, Some(raised)) => {
                let text = format!(
                    "raised {} to level {}",
                    scopes(&raised.zones),
                    raised.level.label()
                );
                self.note(incident.number, |it| {
                    let action = it.act(now, "dnscrub", text, true);
                    in_force.level = Some(RaisedLevel { action, raised });
                });
            }
            (Some(known), Some(raised)) if known.raised != raised => {
                let text = format!(
                    "now raises {} to level {}",
                    scopes(&raised.zones),
                    raised.level.label()
                );
                self.note(incident.number, |it| it.tell(now, What::Done, text));
                known.raised = raised;
            }
            (Some(known), None) => {
                let why = if !incident.is_open() {
                    "it is over".to_owned()
                } else if settings.raise_to.is_none() {
                    "`response.raise-to` is off".to_owned()
                } else if incident.kind.is_attack() {
                    "it is no longer sure enough what it is".to_owned()
                } else {
                    format!("it is taken for another thing, {}", incident.kind.title())
                };
                let text = format!("let the level of {} go: {why}", scopes(&known.raised.zones));
                let action = known.action;
                self.note(incident.number, |it| it.undo(action, now, text));
                in_force.level = None;
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// Tells in the time lines of incidents what their zones' levels have become.
    fn tell_levels(&self, state: &mut State, incidents: &[Arc<Incident>], now: f64, zones: &Zones) {
        if state.in_force.is_empty() {
            return;
        }
        let defence = self.shared.defence.load();
        let orders = self.shared.orders.load();
        let mut seen: BTreeMap<String, Level> = BTreeMap::new();
        for alarm in &defence.levels.suffixes {
            let level = seen
                .entry(zone_of(zones, &alarm.name).to_string())
                .or_default();
            *level = alarm.level.max(*level);
        }
        for incident in incidents.iter().filter(|incident| incident.is_open()) {
            let Some(in_force) = state.in_force.get_mut(&incident.number) else {
                continue;
            };
            let own = incident.zones.iter().map(|part| Some(part.zone.as_str()));
            for zone in own.chain([None]) {
                let sight = match zone {
                    Some(zone) => seen.get(zone).copied().unwrap_or_default(),
                    None => defence.levels.whole(),
                };
                let effective = orders.effective(zone, sight);
                let scope = zone.unwrap_or(WHOLE);
                let before = in_force.told.get(scope).copied().unwrap_or_default();
                if before == effective.level {
                    continue;
                }
                let by = effective.origin.map_or_else(String::new, |origin| {
                    format!(", by {}", by_whom(origin, effective.incident))
                });
                let text = format!(
                    "the level of {} went from {} to {}{by}",
                    scope_in_words(scope),
                    before.label(),
                    effective.level.label()
                );
                in_force.told.insert(scope.to_owned(), effective.level);
                self.note(incident.number, |it| it.tell(now, What::Level, text));
            }
        }
    }

    fn note(&self, incident: u64, write: impl FnOnce(&mut Incident)) {
        self.shared.incidents.note(incident, write);
    }

    /// Does what [`Response::tick`] came to. Waits for the disk and the blocklist.
    pub fn carry_out(&self, work: Work, now: f64) {
        let mut save = work.save;
        let policy = self.shared.policy.load();
        if let Some(order) = work.kernel {
            self.shared.kernel.carry_out(order, &policy.kernel, now);
        }
        let lifetime = policy.response.blocks.lifetime;
        for block in work.blocks {
            save |= match block {
                BlockWork::Block(number, sources) => self.block(number, &sources, lifetime, now),
                BlockWork::Renew(number) => self.renew(number, lifetime, now),
                BlockWork::Unblock(number) => self.unblock(number, now),
            };
        }
        if save {
            // a failure is in the log
            let _ = self.save();
        }
    }

    fn block(&self, number: u64, sources: &[IpNet], lifetime: Duration, now: f64) -> bool {
        let Some(incident) = self.shared.incidents.get(number) else {
            return false;
        };
        let reason = format!("incident {number}: {}", incident.kind.title());
        let results =
            self.blocklist
                .block_sources(&origin(number), &reason, sources, Some(lifetime));
        let mut state = self.state();
        let in_force = state.in_force.entry(number).or_default();
        let mut taken = Vec::new();
        let mut refused = Vec::new();
        for (&source, result) in sources.iter().zip(results) {
            match result {
                Ok(AddOutcome::Added | AddOutcome::Renewed) => {
                    let until = now + lifetime.as_secs_f64();
                    let blocked = Blocked {
                        until,
                        hits: 0,
                        looked: now,
                    };
                    in_force.sources.insert(source, blocked);
                    taken.push(source);
                }
                // an operator's entry stands there
                Ok(AddOutcome::Kept) => {
                    in_force.refused.insert(source);
                }
                Err(refusal) => {
                    in_force.refused.insert(source);
                    refused.push(format!("did not block {}: {refusal}", listed(&[source])));
                }
            }
        }
        self.note(number, |it| {
            if !taken.is_empty() {
                let time = humantime::format_duration(lifetime);
                let text = format!("blocked {} for {time}", listed(&taken));
                warn!(incident = number, "{text}");
                if in_force.blocks.is_some() {
                    it.tell(now, What::Done, text);
                } else {
                    in_force.blocks = Some(it.act(now, "dnscrub", text, true));
                }
            }
            for text in refused.into_iter().take(NAMED) {
                it.act(now, "dnscrub", text, false);
            }
        });
        true
    }

    /// Blocks for longer whoever goes on, and forgets those whose time is over.
    fn renew(&self, number: u64, lifetime: Duration, now: f64) -> bool {
        let origin = origin(number);
        let entries = self.blocklist.entries_of(&origin);
        let hits: BTreeMap<IpNet, u64> = entries.iter().map(|it| (it.prefix, it.hits)).collect();
        let least = self.shared.policy.load().response.blocks.least_rate;
        let half = lifetime.as_secs_f64() / 2.0;
        let mut renewed = Vec::new();
        let mut expired = Vec::new();
        {
            let mut state = self.state();
            let Some(in_force) = state.in_force.get_mut(&number) else {
                return false;
            };
            in_force.sources.retain(|source, blocked| {
                let Some(&hits) = hits.get(source) else {
                    expired.push(*source);
                    return false;
                };
                if blocked.until - half >= now {
                    return true;
                }
                let seconds = (now - blocked.looked).max(1.0);
                let rate = hits.saturating_sub(blocked.hits) as f64 / seconds;
                (blocked.hits, blocked.looked) = (hits, now);
                if rate >= f64::from(least) {
                    blocked.until = now + lifetime.as_secs_f64();
                    renewed.push(*source);
                }
                true
            });
        }
        if !renewed.is_empty() {
            let reason = entries.first().map_or("", |entry| entry.reason.as_str());
            self.blocklist
                .block_sources(&origin, reason, &renewed, Some(lifetime));
            info!(
                incident = number,
                sources = renewed.len(),
                "blocks are renewed"
            );
        }
        if !expired.is_empty() {
            let text = format!("the time of the block of {} is over", listed(&expired));
            self.note(number, |it| it.tell(now, What::Undone, text));
        }
        !renewed.is_empty() || !expired.is_empty()
    }

    fn unblock(&self, number: u64, now: f64) -> bool {
        let removed = self.blocklist.unblock(&origin(number));
        let mut state = self.state();
        let Some(in_force) = state.in_force.remove(&number) else {
            return removed > 0;
        };
        if let Some(action) = in_force.blocks {
            let text = match removed {
                1 => "took the block of 1 source back".to_owned(),
                removed => format!("took the blocks of {removed} sources back"),
            };
            info!(incident = number, "{text}");
            self.note(number, |it| it.undo(action, now, text));
        }
        if in_force.level.is_some() || in_force.limit.is_some() {
            let kept = InForce {
                blocks: None,
                sources: BTreeMap::new(),
                ..in_force
            };
            state.in_force.insert(number, kept);
            self.publish(&state);
        }
        true
    }
}

fn read(file: &StateFile) -> Result<State, String> {
    let Some(octets) = file.read().map_err(|failure| failure.to_string())? else {
        return Ok(State::default());
    };
    let Content { state } = from_json(&octets, FORMAT, VERSION)?;
    Ok(state)
}

fn origin(incident: u64) -> BlockOrigin {
    BlockOrigin::Incident(incident.to_string())
}

fn raised(state: &State) -> Vec<Raised> {
    let levels = state.in_force.values().filter_map(|it| it.level.as_ref());
    levels.map(|it| it.raised.clone()).collect()
}

/// Incidents with a limit in the kernel on their record.
fn limits_told(state: &State) -> Vec<u64> {
    let limited = state.in_force.iter().filter(|(_, it)| it.limit.is_some());
    limited.map(|(&number, _)| number).collect()
}

/// The level that an incident is to raise. `held`: it does so already.
fn wanted_level(
    incident: &Incident,
    held: bool,
    settings: &Settings,
    zones: &Zones,
) -> Option<Raised> {
    let level = settings.raise_to?;
    let sure = settings.raise_from - if held { SLACK } else { 0.0 };
    if !incident.is_open() || !incident.kind.is_attack() || incident.confidence < sure {
        return None;
    }
    let told: BTreeSet<String> = incident
        .zones
        .iter()
        .filter_map(|part| Name::from_text(&part.zone).ok())
        .map(|name| zone_of(zones, &name).to_string())
        .collect();
    Some(Raised {
        incident: incident.number,
        level,
        // so many zones are as good as all
        zones: if incident.more_zones > 0 {
            Vec::new()
        } else {
            told.into_iter().collect()
        },
        names: incident.underlying() == Kind::RandomSubdomains,
    })
}

/// Sources of an incident that are to be blocked and are not.
fn wanted_blocks(
    incident: &Incident,
    in_force: &InForce,
    settings: &Settings,
    threshold: Option<f32>,
    trusted: impl Fn(std::net::IpAddr) -> bool,
) -> Vec<IpNet> {
    let Some(threshold) = threshold else {
        return Vec::new();
    };
    if !incident.is_open() || !blocks::applies(incident, &settings.blocks, settings.raise_from) {
        return Vec::new();
    }
    let mut wanted: Vec<IpNet> = Vec::new();
    for (source, _) in blocks::candidates(incident, threshold, trusted) {
        let known = in_force.sources.contains_key(&source)
            || in_force.refused.contains(&source)
            || settings.blocks.observe && in_force.observed.contains(&source);
        // two addresses may be of one /64
        if !known && !wanted.contains(&source) {
            wanted.push(source);
        }
    }
    wanted
}

fn scopes(zones: &[String]) -> String {
    match zones {
        [] => "the whole".to_owned(),
        [zone] => zone.clone(),
        [zone, rest @ ..] if rest.len() < NAMED => {
            let rest: Vec<_> = rest.iter().map(String::as_str).collect();
            format!("{zone}, {}", rest.join(", "))
        }
        [zone, rest @ ..] => format!("{zone} and {} more zones", rest.len()),
    }
}

/// `192.0.2.1`, or `3 sources (192.0.2.1, …)`.
fn listed(sources: &[IpNet]) -> String {
    let short = |net: &IpNet| {
        if net.prefix_len() == net.max_prefix_len() {
            net.addr().to_string()
        } else {
            net.to_string()
        }
    };
    if let [one] = sources {
        return short(one);
    }
    let named: Vec<String> = sources.iter().take(NAMED).map(short).collect();
    let more = if sources.len() > NAMED { ", …" } else { "" };
    format!("{} sources ({}{more})", sources.len(), named.join(", "))
}

fn by_whom(origin: crate::orders::Origin, incident: Option<u64>) -> String {
    match (origin, incident) {
        (crate::orders::Origin::Signal, _) => "the signals".to_owned(),
        (crate::orders::Origin::Incident, Some(number)) => format!("incident {number}"),
        (crate::orders::Origin::Incident, None) => "an incident".to_owned(),
        (crate::orders::Origin::Operator, _) => "an operator".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{PLAIN, Program, program};
    use crate::incidents::testing::incident;
    use crate::unix_time;

    const BLOCKING: &str = "
response:
  blocks: { mode: enforce, for: 10m, at-most: 3 }
response-limit: { exempt: [ 192.0.2.2 ] }
";
    const START: f64 = 1_700_000_100.0;

    fn response(program: &Program) -> &Response {
        &program.supervisor.response
    }

    /// An incident is as this now.
    fn set(program: &Program, incident: Incident) {
        let known = &program.supervisor.shared.incidents;
        known.edit(|known| known.insert(incident.number, Arc::new(incident)));
    }

    fn get(program: &Program, number: u64) -> Arc<Incident> {
        program.supervisor.shared.incidents.get(number).unwrap()
    }

    /// A second: what is decided is done.
    fn second(program: &Program, now: f64) {
        let work = response(program).tick(now, Some(10.0));
        response(program).carry_out(work, now);
    }

    /// A minute of calm, from which on it is known what is usual.
    fn calm(program: &Program) {
        for at in 0..90 {
            second(program, START - 100.0 + f64::from(at));
        }
    }

    fn said(incident: &Incident) -> Vec<&str> {
        let told = incident
            .timeline
            .iter()
            .filter(|it| it.what != What::Opened);
        told.map(|it| it.text.as_str()).collect()
    }

    fn blocked(program: &Program) -> Vec<String> {
        let entries = program
            .supervisor
            .blocklist
            .list(&Default::default(), 0, 100)
            .0;
        let lines = entries
            .iter()
            .map(|it| format!("{} {} {}", it.prefix, it.origin, it.reason));
        lines.collect()
    }

    #[test]
    fn an_incident_raises_its_zones_and_lets_them_go() {
        let program = program(PLAIN);
        let level = || {
            let orders = program.supervisor.shared.orders.load();
            let zone = orders.effective(Some("example.com"), Level::Calm).level;
            (zone, orders.effective(None, Level::Calm).level)
        };
        let mut flood = incident(1);
        flood.confidence = 0.6;
        set(&program, flood.clone());
        second(&program, START);
        assert_eq!(level().0, Level::Calm, "not sure enough");
        flood.confidence = 0.8;
        set(&program, flood.clone());
        second(&program, START + 1.0);
        assert_eq!(level(), (Level::Attack, Level::Calm));
        let open = get(&program, 1);
        assert_eq!(
            said(&open),
            [
                "raised example.com to level attack",
                "the level of example.com went from calm to attack, by incident 1"
            ]
        );
        assert!(open.actions[0].lasting && open.actions[0].undone.is_none());
        let orders = program.supervisor.shared.orders.load();
        let order = orders.for_workers.zones[0].1;
        assert_eq!(
            (order.names, order.sources),
            (Level::Calm, Level::Calm),
            "it is not about names"
        );
        second(&program, START + 2.0);
        assert_eq!(get(&program, 1).timeline.len(), 3, "told once");

        let mut spread = (*get(&program, 1)).clone();
        let mut other = spread.zones[0].clone();
        other.zone = "www.example.net".to_owned();
        spread.zones.push(other);
        spread.confidence = 0.6;
        set(&program, spread);
        second(&program, START + 3.0);
        let orders = program.supervisor.shared.orders.load();
        assert_eq!(orders.raised[0].zones, ["example.com", "example.net"]);

        let mut over = (*get(&program, 1)).clone();
        over.closed = Some(START + 4.0);
        set(&program, over);
        second(&program, START + 4.0);
        assert_eq!(level(), (Level::Calm, Level::Calm));
        let over = get(&program, 1);
        assert_eq!(over.actions[0].undone, Some(START + 4.0));
        assert!(said(&over).contains(&"let the level of example.com, example.net go: it is over"));
    }

    #[test]
    fn what_is_no_attack_raises_nothing_and_one_about_no_zone_the_whole() {
        let program = program(PLAIN);
        let mut crowd = incident(1);
        crowd.kind = Kind::FlashCrowd;
        set(&program, crowd);
        let mut carpet = incident(2);
        carpet.kind = Kind::RandomSubdomains;
        carpet.zones.clear();
        set(&program, carpet);
        second(&program, START);
        let orders = program.supervisor.shared.orders.load();
        assert_eq!(orders.raised.len(), 1);
        assert_eq!(orders.for_workers.whole.names, Level::Attack);
        // it turns out to be something else
        let mut renamed = (*get(&program, 2)).clone();
        renamed.kind = Kind::UpstreamFailure;
        set(&program, renamed);
        second(&program, START + 1.0);
        assert!(program.supervisor.shared.orders.load().raised.is_empty());
        let told = get(&program, 2);
        assert!(
            said(&told)
                .iter()
                .any(|it| it.ends_with("taken for another thing, upstream failure"))
        );
    }

    #[test]
    fn the_busiest_strangers_are_blocked_and_unblocked_with_the_incident() {
        let program = program(&format!("{PLAIN}{BLOCKING}"));
        set(&program, incident(1));
        second(&program, START - 200.0);
        assert_eq!(
            blocked(&program),
            [""; 0],
            "nothing is known of what is usual"
        );
        let mut over = incident(1);
        over.closed = Some(START - 150.0);
        set(&program, over);
        calm(&program);
        set(&program, incident(2));
        second(&program, START);
        assert_eq!(
            blocked(&program),
            ["192.0.2.1/32 incident:2 incident 2: direct flood"],
            "the other one is exempt"
        );
        assert_eq!(response(&program).blocked(), 1);
        assert!(said(&get(&program, 2)).contains(&"blocked 192.0.2.1 for 10m"));

        // two that cannot be blocked, then more than there may be
        let mut more = (*get(&program, 2)).clone();
        let part = more.sources.top[0].clone();
        for (at, last) in [(203, 1), (192, 3), (198, 4), (198, 5)] {
            let mut part = part.clone();
            let middle = match at {
                203 => "0.113",
                192 => "0.2",
                _ => "51.100",
            };
            part.prefix = format!("{at}.{middle}.{last}/32").parse().unwrap();
            more.sources.top.push(part);
        }
        set(&program, more);
        second(&program, START + 1.0);
        second(&program, START + 2.0);
        assert_eq!(response(&program).blocked(), 3);
        let told = get(&program, 2);
        let refusal =
            "did not block 203.0.113.1: 203.0.113.0/24 is never blocked (blocklist.never-block)";
        assert!(said(&told).contains(&refusal), "{:?}", said(&told));
        let left_out = said(&told)
            .iter()
            .filter(|it| it.ends_with("`response.blocks.at-most` is reached"))
            .count();
        assert_eq!(left_out, 1, "{:?}", said(&told));

        let mut over = (*told).clone();
        over.closed = Some(START + 3.0);
        set(&program, over);
        second(&program, START + 3.0);
        second(&program, START + 4.0);
        assert_eq!(
            (blocked(&program).len(), response(&program).blocked()),
            (0, 0)
        );
        let over = get(&program, 2);
        assert!(
            said(&over).contains(&"took the blocks of 3 sources back"),
            "{:?}",
            said(&over)
        );
        assert!(
            over.actions
                .iter()
                .all(|it| !it.lasting || it.undone.is_some())
        );
    }

    #[test]
    fn observe_mode_says_whom_it_would_have_blocked_once() {
        let program = program(PLAIN);
        calm(&program);
        set(&program, incident(1));
        second(&program, START);
        second(&program, START + 1.0);
        assert_eq!(blocked(&program), [""; 0]);
        let told = get(&program, 1);
        let would = told.timeline.iter().filter(|it| it.what == What::Would);
        let would: Vec<&str> = would.map(|it| it.text.as_str()).collect();
        assert!(told.actions.iter().all(|it| !it.text.contains("blocked")));
        assert_eq!(
            would,
            [
                "would have blocked 2 sources (192.0.2.1, 192.0.2.2); `response.blocks` only observes"
            ]
        );
    }

    #[test]
    fn a_block_is_renewed_while_its_source_goes_on_and_forgotten_otherwise() {
        let program = program(&format!("{PLAIN}{BLOCKING}"));
        calm(&program);
        // the blocklist goes by the clock
        let now = unix_time::now();
        let mut flood = incident(1);
        flood.zones.clear();
        set(&program, flood);
        second(&program, now);
        let until = |program: &Program| {
            let state = response(program).state();
            let blocks = state.in_force[&1].sources.values();
            blocks.map(|it| it.until - now).collect::<Vec<_>>()
        };
        assert_eq!(until(&program), [600.0]);
        second(&program, now + 301.0);
        assert_eq!(until(&program), [600.0], "it sends nothing");
        let table = program.supervisor.shared.blocklist.load();
        for _ in 0..40_000 {
            table.lookup("192.0.2.1".parse().unwrap()).unwrap().count();
        }
        second(&program, now + 302.0);
        assert_eq!(until(&program), [902.0]);
        // its entry ends
        program
            .supervisor
            .blocklist
            .remove("192.0.2.1/32".parse().unwrap())
            .unwrap();
        second(&program, now + 700.0);
        assert_eq!(until(&program), [0.0; 0]);
        let told = get(&program, 1);
        assert!(said(&told).contains(&"the time of the block of 192.0.2.1 is over"));
    }

    #[test]
    fn an_incident_goes_on_while_its_blocked_sources_do() {
        let program = program(&format!("{PLAIN}{BLOCKING}"));
        calm(&program);
        let now = unix_time::now();
        set(&program, incident(1));
        second(&program, now);
        let going_on = |at: f64, packets: u64| {
            let table = program.supervisor.shared.blocklist.load();
            for _ in 0..packets {
                table.lookup("192.0.2.1".parse().unwrap()).unwrap().count();
            }
            response(&program).going_on(now + at)
        };
        assert_eq!(going_on(1.0, 50), [0_u64; 0], "it is not known since when");
        assert_eq!(going_on(2.0, 50), [1]);
        assert_eq!(going_on(4.0, 50), [1], "25 a second");
        assert_eq!(going_on(5.0, 20), [0_u64; 0]);
    }

    #[test]
    fn levels_set_by_hand_end_and_survive_a_restart() {
        let program = program(PLAIN);
        let request = |level: &str, zone: Option<&str>| LevelRequest {
            zone: zone.map(str::to_owned),
            level: level.to_owned(),
            lifetime: Some("10m".to_owned()),
            reason: "drill\n".to_owned(),
        };
        let response = response(&program);
        response
            .set_level(&request("attack", Some("example.com")), START)
            .unwrap();
        response
            .set_level(&request("calm", None), START + 300.0)
            .unwrap();
        let again = response
            .set_level(&request("alert", None), START + 300.0)
            .unwrap();
        assert_eq!(
            (again.until, again.reason.as_str()),
            (START + 900.0, "drill ")
        );
        let (shared, blocklist) = (&program.supervisor.shared, &program.supervisor.blocklist);
        let restart = |now| {
            let folder = program.folder.path();
            drop(Response::open(
                folder,
                Arc::clone(shared),
                Arc::clone(blocklist),
                now,
            ));
            shared.orders.load().by_hand.clone()
        };
        let known = restart(START + 301.0);
        assert_eq!(known.len(), 2);
        assert_eq!((known[0].scope(), known[0].level), ("whole", Level::Alert));
        assert_eq!(restart(START + 700.0).len(), 1, "the zone's is over");
        response.publish(&response.state());
        let work = response.tick(START + 700.0, None);
        assert!(work.save);
        assert_eq!(shared.orders.load().by_hand.len(), 1);
        assert!(matches!(
            response.release(Some("example.com")),
            Err(LevelError::NotSet(_))
        ));
        response.release(None).unwrap();
        assert!(restart(START + 701.0).is_empty());

        std::fs::write(program.folder.path().join(NAME), "{").unwrap();
        assert!(restart(START).is_empty());
        assert!(program.folder.path().join("response.json.damaged").exists());
    }

    #[test]
    fn there_are_so_many_levels_by_hand_and_no_more() {
        let program = program(PLAIN);
        let set = |number: usize| {
            let request = LevelRequest {
                zone: Some(format!("z{number}.example")),
                level: "alert".to_owned(),
                ..LevelRequest::default()
            };
            response(&program)
                .set_level(&request, START)
                .map(|it| it.until - it.since)
        };
        for number in 0..MOST_BY_HAND {
            assert_eq!(set(number), Ok(3600.0));
        }
        assert_eq!(set(MOST_BY_HAND), Err(LevelError::Full));
        assert_eq!(set(3), Ok(3600.0), "one that is there can be changed");
    }

    #[test]
    fn a_level_that_could_not_be_saved_is_saved_when_there_is_room() {
        let program = program(PLAIN);
        let response = response(&program);
        let path = program.folder.path().join(NAME);
        let full = program.folder.path().join(format!("{NAME}.new"));
        std::os::unix::fs::symlink("/dev/full", &full).unwrap();
        let request = LevelRequest {
            level: "attack".to_owned(),
            ..LevelRequest::default()
        };
        let unsaved = response.set_level(&request, START).unwrap_err();
        assert!(matches!(unsaved, LevelError::Unsaved(_)), "{unsaved:?}");
        assert!(!path.exists() && !program.supervisor.shared.orders.load().by_hand.is_empty());
        // the failed write has removed the link: there is room again
        response.carry_out(response.tick(START + 1.0, None), START + 1.0);
        assert!(std::fs::read_to_string(&path).unwrap().contains("attack"));
        assert!(response.tick(START + 2.0, None).is_empty());
    }

    #[test]
    fn what_was_in_force_is_undone_after_a_restart_without_its_incident() {
        let program = program(&format!("{PLAIN}{BLOCKING}"));
        calm(&program);
        set(&program, incident(1));
        second(&program, START);
        assert_eq!(blocked(&program).len(), 1);
        let known = &program.supervisor.shared.incidents;
        known.edit(|known| known.remove(&1));
        let restarted = Response::open(
            program.folder.path(),
            Arc::clone(&program.supervisor.shared),
            Arc::clone(&program.supervisor.blocklist),
            START + 5.0,
        );
        let work = restarted.tick(START + 6.0, None);
        restarted.carry_out(work, START + 6.0);
        assert_eq!((blocked(&program).len(), restarted.blocked()), (0, 0));
        assert!(program.supervisor.shared.orders.load().raised.is_empty());
    }
}
