//! The blocklist of the running program: the one owner of its truth, between those who change it
//! (operators, rules, list files, time), the workers, who see published tables, and the disk.
//!
//! - An operator's change is on the disk before it is answered. If it cannot be saved it is in force
//!   all the same; the operator is told, and saving is tried again.
//! - Rules' blocks come from the workers through a bounded queue, are in force within
//!   a tenth of a second and on the disk within about a second, or, with so many entries that saving takes
//!   long, so seldom that saving takes up a tenth of the time at most.
//! - Hits alone are not worth a save: after a crash they are as of the last change.
//! - List files are looked at every two seconds; a change is in force after the look that finds
//!   it unchanged since the look before. A version that is refused leaves the last good one in force.
//!
//! Tables are built and thrown away on the control side; to the workers a change is a swapped pointer.

mod list_files;
mod state_file;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ahash::RandomState;
use arc_swap::ArcSwap;
use dnscrub_packet_filter::{
    AddError, AddOutcome, Added, BlockTable, BlocklistStats, BlocklistStore, Entry, EntryFilter,
    Limits, ListError, Origin, list_lines,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use self::list_files::{ListFile, Look, list_name};
use crate::config::runtime::{BlocklistFile, Reloadable, Startup};
use crate::data_path::BlockRequest;
use crate::shared::Shared;
use crate::state_folder::StateFile;

/// How long rules' blocks are gathered before a table with them is published.
pub(crate) const GATHER: Duration = Duration::from_millis(50);
/// How often expiry and saving are looked after.
pub(crate) const KEEP_EVERY: Duration = Duration::from_millis(500);
/// How often list files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The least time between two saves that nobody waits for.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The time between two saves in times of the last save's duration.
const SAVE_SHARE: u32 = 10;
/// Refused blocks of rules are logged no more often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Lines of an import that are named when they are not taken.
const REFUSALS_NAMED: usize = 20;

/// Finds the name of a rule by the policy's generation and the rule's index.
type RuleName = Box<dyn Fn(u64, u16) -> Option<String> + Send + Sync>;

/// The blocklist of the running program. See the [module](self).
///
/// Methods may wait for the disk, or for a list file of a million lines that is being loaded: call
/// them where that does no harm.
pub struct BlocklistOwner {
    /// Locks are taken in the order of the fields.
    lists: Mutex<ListFiles>,
    saving: Mutex<Saving>,
    store: Mutex<Published>,
    rule_name: RuleName,
    requests: Mutex<Option<Receiver<BlockRequest>>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    saves: AtomicU64,
    save_failures: AtomicU64,
    refused_blocks: AtomicU64,
}

#[derive(Default)]
struct ListFiles {
    hasher: RandomState,
    files: Vec<ListFile>,
}

struct Saving {
    file: StateFile,
    /// Revision of the store that is on the disk.
    saved: u64,
    /// Why the last save failed, if it did.
    failure: Option<SaveFailure>,
    /// When nobody waits, the next save is not before this.
    not_before: Instant,
}

/// The state cannot be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveFailure {
    /// The state file.
    pub path: PathBuf,
    /// Why, in the operating system's words.
    pub cause: String,
    /// Since when.
    pub since: SystemTime,
}

impl fmt::Display for SaveFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "cannot write {}: {}",
            self.path.display(),
            self.cause
        )
    }
}

impl std::error::Error for SaveFailure {}

/// The store and what it has published.
struct Published {
    store: BlocklistStore,
    table: Arc<ArcSwap<BlockTable>>,
    /// Tables that a worker may still hold. They are freed here, not in a worker.
    retired: VecDeque<Arc<BlockTable>>,
}

impl Published {
    fn publish(&mut self) {
        if self.store.has_changed() {
            let old = self.table.swap(self.store.publish());
            self.retired.push_back(old);
        }
        self.retired.retain(|table| Arc::strong_count(table) > 1);
    }
}

/// A change that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<T> {
    /// What it did.
    pub value: T,
    /// Why it would not survive a restart, if it would not.
    pub unsaved: Option<SaveFailure>,
}

/// Why an operator's entry was not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoveError {
    /// There is no entry for exactly this prefix. These cover it, or are inside it.
    NotThere(Vec<Entry>),
    /// The entry comes from a list file and stays while the file names it.
    Listed(String),
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// Entries that were not there before.
    pub added: usize,
    /// Entries that were there and were changed.
    pub renewed: usize,
    /// Entries that had to make room.
    pub evicted: usize,
    /// Lines whose prefix was not taken.
    pub refused: usize,
    /// The first of them, and why.
    pub refusals: Vec<String>,
}

/// What the program says about a list file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListState {
    /// Its path, which is its name in the blocklist.
    pub name: String,
    /// When the version in force was taken over.
    pub loaded: SystemTime,
    /// Why its newest version is not in force, if it is not.
    pub failure: Option<String>,
}

/// What the program says about saving the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveState {
    /// The state file.
    pub path: PathBuf,
    /// Why the last save failed, if it did.
    pub failure: Option<SaveFailure>,
    /// Saves since the start.
    pub saves: u64,
    /// Failed ones since the start.
    pub failures: u64,
}

impl BlocklistOwner {
    /// Restores the state, loads the list files and publishes the first table. A state file that is
    /// damaged is set aside, and what is legible in it is restored.
    ///
    /// # Errors
    /// The state folder cannot be created.
    pub fn open(
        startup: &Startup,
        policy: &Reloadable,
        files: Vec<BlocklistFile>,
        shared: Arc<Shared>,
        requests: Receiver<BlockRequest>,
    ) -> io::Result<Arc<Self>> {
        let table = Arc::clone(&shared.blocklist);
        let rule_name = move |generation, rule: u16| {
            let policy = shared.policy.load();
            (policy.generation == generation)
                .then(|| policy.scoring.rule_name(rule).map(str::to_owned))
                .flatten()
        };
        let owner = Self::restore(
            &startup.state_folder,
            startup.blocklist,
            table,
            Box::new(rule_name),
            requests,
        )?;
        owner.take_over(files, &policy.never_block, SystemTime::now());
        Ok(Arc::new(owner))
    }

    fn restore(
        folder: &std::path::Path,
        limits: Limits,
        table: Arc<ArcSwap<BlockTable>>,
        rule_name: RuleName,
        requests: Receiver<BlockRequest>,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(folder).map_err(|failure| {
            io::Error::new(
                failure.kind(),
                format!(
                    "cannot create the state folder {}: {failure}",
                    folder.display()
                ),
            )
        })?;
        let file = StateFile::new(folder, state_file::NAME);
        let mut store = BlocklistStore::new(limits);
        let read = state_file::read(&file);
        let report = store.restore(read.entries, SystemTime::now());
        if report != dnscrub_packet_filter::RestoreReport::default() {
            let dnscrub_packet_filter::RestoreReport {
                restored,
                expired,
                refused,
                ..
            } = report;
            info!(path = %file.path().display(), restored, expired, refused, "blocklist restored");
        }
        let mut saved = store.revision();
        if let Some(damage) = read.damage {
            // the legible part is saved anew at once
            saved = saved.wrapping_sub(1);
            let restored = store.stats().dynamic_entries;
            file.set_aside(
                &damage,
                &format!(
                    "the blocklist's state file is damaged, {restored} entries of it are in force"
                ),
            );
        }
        Ok(Self {
            lists: Mutex::default(),
            saving: Mutex::new(Saving {
                file,
                saved,
                failure: None,
                not_before: Instant::now(),
            }),
            store: Mutex::new(Published {
                store,
                table,
                retired: VecDeque::new(),
            }),
            rule_name,
            requests: Mutex::new(Some(requests)),
            counters: Counters::default(),
        })
    }

    /// Goes over to another configuration's list files and to its prefixes that are never blocked.
    /// Files whose content is the same are not loaded again.
    pub fn adopt(&self, files: Vec<BlocklistFile>, policy: &Reloadable) {
        self.take_over(files, &policy.never_block, SystemTime::now());
    }

    fn take_over(&self, files: Vec<BlocklistFile>, never_block: &[IpNet], now: SystemTime) {
        let mut lists = lock(&self.lists);
        let ListFiles {
            hasher,
            files: known,
        } = &mut *lists;
        let gone: Vec<_> = known
            .extract_if(.., |list| files.iter().all(|file| file.path != list.path))
            .collect();
        let mut published = lock(&self.store);
        published.store.set_never_block(never_block.iter().copied());
        for list in gone {
            published.store.remove_list(&list_name(&list.path));
        }
        for file in files {
            let at = known.iter().position(|list| list.path == file.path);
            let same = at
                .and_then(|at| known.get(at))
                .is_some_and(|list| list.holds(hasher, &file.text) && list.failure.is_none());
            if same {
                continue;
            }
            let mut list = ListFile::new(file.path, hasher, &file.text, now);
            load(&mut published.store, &mut list, &file.text, now);
            match at.and_then(|at| known.get_mut(at)) {
                Some(known) => *known = list,
                None => known.push(list),
            }
        }
        published.publish();
    }

    /// Looks after everything that comes without being asked for: rules' blocks, expiry, saving, list
    /// files. Does not end by itself; rules' blocks are taken until the last worker has ended.
    pub async fn run(self: Arc<Self>) {
        if let Some(requests) = lock(&self.requests).take() {
            let owner = Arc::clone(&self);
            drop(tokio::task::spawn_blocking(move || owner.serve(&requests)));
        }
        let keep = every(KEEP_EVERY, || {
            self.in_background(|owner| owner.keep(SystemTime::now(), Instant::now()))
        });
        let look = every(LOOK_EVERY, || {
            self.in_background(|owner| owner.look_at_lists(SystemTime::now()))
        });
        tokio::join!(keep, look);
    }

    fn in_background(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let owner = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&owner))
    }

    /// Takes rules' blocks until no worker can send any more.
    fn serve(&self, requests: &Receiver<BlockRequest>) {
        let mut complained: Option<Instant> = None;
        while let Ok(first) = requests.recv() {
            let mut gathered = vec![first];
            let until = Instant::now() + GATHER;
            while let Ok(request) =
                requests.recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                gathered.push(request);
            }
            let refused = self.block(&gathered, SystemTime::now());
            if let Some(refused) = refused
                && complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY)
            {
                complained = Some(Instant::now());
                warn!("a rule's block was not taken: {refused}");
            }
        }
    }

    /// Adds rules' blocks. Returns why one was refused, if one was.
    fn block(&self, requests: &[BlockRequest], now: SystemTime) -> Option<AddError> {
        let mut refused = None;
        let mut published = lock(&self.store);
        for BlockRequest {
            source,
            lifetime,
            rule,
            policy,
        } in requests
        {
            let name = (self.rule_name)(*policy, *rule);
            let reason = match &name {
                Some(name) => format!("rule {name}"),
                None => "a rule of an earlier configuration".to_owned(),
            };
            let origin = Origin::Rule(name.unwrap_or_default());
            if let Err(refusal) =
                published
                    .store
                    .add(prefix_of(*source), &reason, origin, now, Some(*lifetime))
            {
                self.counters.refused_blocks.fetch_add(1, Relaxed);
                refused = Some(refusal);
            }
        }
        published.publish();
        refused
    }

    /// Removes what has expired, and saves what has changed if it is time.
    fn keep(&self, now: SystemTime, at: Instant) {
        {
            let mut published = lock(&self.store);
            published.store.expire(now);
            published.publish();
        }
        let mut saving = lock(&self.saving);
        if at >= saving.not_before {
            self.save_changes(&mut saving, now);
            saving.not_before = saving.not_before.max(at + SAVE_EVERY);
        }
    }

    /// Looks whether list files have changed, and loads those that have.
    fn look_at_lists(&self, now: SystemTime) {
        let mut lists = lock(&self.lists);
        let ListFiles { hasher, files } = &mut *lists;
        for list in files {
            match list.look(hasher) {
                Look::Same => {}
                Look::Unreadable(cause) => {
                    error!(path = %list.path.display(), cause, "blocklist file: its last good version stays in force");
                }
                Look::Changed(text) => {
                    let mut published = lock(&self.store);
                    load(&mut published.store, list, &text, now);
                    published.publish();
                }
            }
        }
    }

    /// Saves everything, hits included, whether it has changed or not: for the program's end.
    pub fn save(&self) {
        let mut saving = lock(&self.saving);
        saving.saved = lock(&self.store).store.revision().wrapping_sub(1);
        self.save_changes(&mut saving, SystemTime::now());
    }

    /// Saves the dynamic entries if they are not on the disk as they are.
    fn save_changes(&self, saving: &mut Saving, now: SystemTime) {
        let (revision, entries) = {
            let published = lock(&self.store);
            let revision = published.store.revision();
            if revision == saving.saved {
                return;
            }
            (revision, published.store.snapshot())
        };
        let started = Instant::now();
        let written = saving.file.replace(|out| state_file::write(out, &entries));
        match written {
            Ok(()) => {
                self.counters.saves.fetch_add(1, Relaxed);
                saving.saved = revision;
                if saving.failure.take().is_some() {
                    info!(path = %saving.file.path().display(), entries = entries.len(), "the blocklist is saved again");
                }
            }
            Err(failure) => {
                self.counters.save_failures.fetch_add(1, Relaxed);
                let cause = failure.to_string();
                let known = saving.failure.as_ref().filter(|known| known.cause == cause);
                if known.is_none() {
                    error!(
                        path = %saving.file.path().display(), cause,
                        "the blocklist cannot be saved: it is in force, but a restart would lose what has changed"
                    );
                }
                let since = saving.failure.as_ref().map_or(now, |failure| failure.since);
                saving.failure = Some(SaveFailure {
                    path: saving.file.path().to_owned(),
                    cause,
                    since,
                });
            }
        }
        saving.not_before =
            Instant::now() + SAVE_EVERY.max(started.elapsed().saturating_mul(SAVE_SHARE));
    }

    /// Publishes what `change` does to the store and has it on the disk before it returns.
    fn change<T, E>(
        &self,
        change: impl FnOnce(&mut BlocklistStore) -> Result<T, E>,
    ) -> Result<Change<T>, E> {
        // Taken first: a change is made, published and saved before the next one begins.
        let mut saving = lock(&self.saving);
        let value = {
            let mut published = lock(&self.store);
            let value = change(&mut published.store)?;
            published.publish();
            value
        };
        self.save_changes(&mut saving, SystemTime::now());
        Ok(Change {
            value,
            unsaved: saving.failure.clone(),
        })
    }

    /// Adds or changes an operator's entry.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add(
        &self,
        prefix: IpNet,
        reason: &str,
        origin: Origin,
        lifetime: Option<Duration>,
    ) -> Result<Change<Added>, AddError> {
        self.change(|store| store.add(prefix, reason, origin, SystemTime::now(), lifetime))
    }

    /// Blocks sources because of an incident, or blocks them for longer; what became of each, in their
    /// order. Saved as rules' blocks are.
    pub fn block_sources(
        &self,
        origin: &Origin,
        reason: &str,
        sources: &[IpNet],
        lifetime: Option<Duration>,
    ) -> Vec<Result<AddOutcome, AddError>> {
        let now = SystemTime::now();
        let mut published = lock(&self.store);
        let results = sources.iter().map(|&source| {
            let added = published
                .store
                .add(source, reason, origin.clone(), now, lifetime);
            added.map(|added| added.outcome)
        });
        let results = results.collect();
        published.publish();
        results
    }

    /// The dynamic entries of exactly this origin.
    #[must_use]
    pub fn entries_of(&self, origin: &Origin) -> Vec<Entry> {
        let filter = EntryFilter {
            origin: Some(origin.to_string()),
            ..EntryFilter::default()
        };
        self.list(&filter, 0, usize::MAX).0
    }

    /// Removes the dynamic entries of exactly this origin; how many they were.
    pub fn unblock(&self, origin: &Origin) -> usize {
        let filter = EntryFilter {
            origin: Some(origin.to_string()),
            ..EntryFilter::default()
        };
        let mut published = lock(&self.store);
        let prefixes: Vec<IpNet> = published.store.list(&filter).map(|it| it.prefix).collect();
        let removed = prefixes
            .iter()
            .filter(|prefix| published.store.remove(**prefix).is_some())
            .count();
        published.publish();
        removed
    }

    /// Removes the dynamic entry of exactly this prefix.
    ///
    /// # Errors
    /// There is none.
    pub fn remove(&self, prefix: IpNet) -> Result<Change<Entry>, RemoveError> {
        self.change(|store| {
            store.remove(prefix).ok_or_else(|| {
                let near = store.show(prefix);
                let listed = near
                    .iter()
                    .find(|entry| entry.prefix == prefix.trunc())
                    .map(|entry| &entry.origin);
                match listed {
                    Some(Origin::List(name)) => RemoveError::Listed(name.clone()),
                    _ => RemoveError::NotThere(near),
                }
            })
        })
    }

    /// Adds an entry for each line of a list (see [`list_lines`]). A line's own reason is used, or
    /// else `reason`.
    ///
    /// # Errors
    /// The first line that is not understood; nothing is added then.
    pub fn import(
        &self,
        text: &[u8],
        reason: &str,
        origin: &Origin,
        lifetime: Option<Duration>,
    ) -> Result<Change<ImportReport>, ListError> {
        let lines = list_lines(text).collect::<Result<Vec<_>, _>>()?;
        let now = SystemTime::now();
        self.change(|store| {
            let mut report = ImportReport::default();
            for line in &lines {
                let reason = if line.reason.is_empty() {
                    reason
                } else {
                    &line.reason
                };
                match store.add(line.prefix, reason, origin.clone(), now, lifetime) {
                    Ok(Added { outcome, evicted }) => {
                        match outcome {
                            AddOutcome::Added => report.added += 1,
                            AddOutcome::Renewed | AddOutcome::Kept => report.renewed += 1,
                        }
                        report.evicted += usize::from(evicted.is_some());
                    }
                    Err(refusal) => {
                        report.refused += 1;
                        if report.refusals.len() < REFUSALS_NAMED {
                            report
                                .refusals
                                .push(format!("line {}: {}: {refusal}", line.line, line.prefix));
                        }
                    }
                }
            }
            Ok(report)
        })
    }

    /// Every entry that covers all of `prefix` and those inside it; see [`BlocklistStore::show`].
    #[must_use]
    pub fn show(&self, prefix: IpNet) -> Vec<Entry> {
        lock(&self.store).store.show(prefix)
    }

    /// The prefix that keeps all of `prefix` from ever being blocked.
    #[must_use]
    pub fn never_blocked(&self, prefix: IpNet) -> Option<IpNet> {
        lock(&self.store).store.never_blocked(prefix)
    }

    /// A part of the entries that a filter takes, and how many it takes in all.
    #[must_use]
    pub fn list(&self, filter: &EntryFilter, offset: usize, limit: usize) -> (Vec<Entry>, usize) {
        let published = lock(&self.store);
        let mut total = 0;
        let mut part = Vec::new();
        for entry in published.store.list(filter) {
            if total >= offset && part.len() < limit {
                part.push(entry);
            }
            total += 1;
        }
        (part, total)
    }

    /// Counts of entries, lists and what was refused.
    #[must_use]
    pub fn stats(&self) -> BlocklistStats {
        lock(&self.store).store.stats()
    }

    /// The list files.
    #[must_use]
    pub fn lists(&self) -> Vec<ListState> {
        let lists = lock(&self.lists);
        let state = |list: &ListFile| ListState {
            name: list_name(&list.path),
            loaded: list.loaded,
            failure: list.failure.clone(),
        };
        lists.files.iter().map(state).collect()
    }

    /// Whether the state is being saved.
    #[must_use]
    pub fn save_state(&self) -> SaveState {
        let saving = lock(&self.saving);
        SaveState {
            path: saving.file.path().to_owned(),
            failure: saving.failure.clone(),
            saves: self.counters.saves.load(Relaxed),
            failures: self.counters.save_failures.load(Relaxed),
        }
    }

    /// Blocks asked for by rules that were not taken, since the start.
    #[must_use]
    pub fn refused_blocks(&self) -> u64 {
        self.counters.refused_blocks.load(Relaxed)
    }
}

/// Loads a list file's text, or notes why not.
fn load(store: &mut BlocklistStore, list: &mut ListFile, text: &[u8], now: SystemTime) {
    let path = list.path.display();
    match store.load_list(&list_name(&list.path), text, now) {
        Ok(report) => {
            list.failure = None;
            list.loaded = now;
            info!(
                %path, entries = report.entries, added = report.added, removed = report.removed,
                duplicates = report.duplicates, "blocklist file loaded"
            );
        }
        Err(failure) => {
            error!(%path, %failure, "blocklist file refused: its last good version stays in force");
            list.failure = Some(failure.to_string());
        }
    }
}

/// Starts some work over and over, and waits for it.
async fn every(period: Duration, mut work: impl FnMut() -> tokio::task::JoinHandle<()>) {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Err(failure) = work().await
            && failure.is_panic()
        {
            error!(%failure, "looking after the blocklist failed");
        }
    }
}

/// What a lock guards stays consistent through a panic: each change is made by one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is blocked with a source: an IPv4 address alone; of IPv6 the /64, all of whose addresses one
/// host can use.
pub(crate) fn prefix_of(source: IpAddr) -> IpNet {
    match source.to_canonical() {
        IpAddr::V4(address) => Ipv4Net::from(address).into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 64).trunc().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::path::Path;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;

    struct Fixture {
        owner: BlocklistOwner,
        table: Arc<ArcSwap<BlockTable>>,
        _requests: SyncSender<BlockRequest>,
    }

    impl Fixture {
        fn open(folder: &Path) -> Self {
            let table = Arc::<ArcSwap<BlockTable>>::default();
            let (sender, receiver) = sync_channel(16);
            let name = |generation, rule: u16| (generation == 7).then(|| format!("rule-{rule}"));
            let owner = BlocklistOwner::restore(
                folder,
                Limits::default(),
                Arc::clone(&table),
                Box::new(name),
                receiver,
            )
            .unwrap();
            owner.take_over(Vec::new(), &[], SystemTime::now());
            Self {
                owner,
                table,
                _requests: sender,
            }
        }

        fn blocks(&self, address: &str) -> bool {
            self.table.load().lookup(address.parse().unwrap()).is_some()
        }

        fn take_over(&self, files: Vec<BlocklistFile>, never_block: &[&str]) {
            let never_block: Vec<IpNet> =
                never_block.iter().map(|it| it.parse().unwrap()).collect();
            self.owner.take_over(files, &never_block, SystemTime::now());
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn file(path: &Path, text: &str) -> BlocklistFile {
        BlocklistFile {
            path: path.to_owned(),
            text: text.into(),
            entries: text.lines().count(),
        }
    }

    const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

    #[test]
    fn an_operators_block_survives_being_killed() {
        let folder = tempfile::tempdir().unwrap();
        let killed = Fixture::open(folder.path());
        let change = killed
            .owner
            .add(net("192.0.2.0/24"), "flood", Origin::Cli, MINUTE)
            .unwrap();
        assert_eq!(
            (change.value.outcome, change.unsaved),
            (AddOutcome::Added, None)
        );
        killed
            .owner
            .add(net("198.51.100.7/32"), "", Origin::Api, None)
            .unwrap();
        killed.owner.remove(net("198.51.100.7/32")).unwrap();
        assert!(killed.blocks("192.0.2.9") && !killed.blocks("198.51.100.7"));
        // nothing runs at its end, as with kill -9
        std::mem::forget(killed);

        let restarted = Fixture::open(folder.path());
        assert!(restarted.blocks("192.0.2.9") && !restarted.blocks("198.51.100.7"));
        let entry = &restarted.owner.show(net("192.0.2.9/32"))[0];
        assert_eq!(
            (entry.reason.as_str(), &entry.origin),
            ("flood", &Origin::Cli)
        );
        assert!(entry.expires.is_some());
    }

    #[test]
    fn entries_that_expired_meanwhile_stay_away() {
        let folder = tempfile::tempdir().unwrap();
        let first = Fixture::open(folder.path());
        first
            .owner
            .add(net("192.0.2.0/24"), "", Origin::Cli, Some(Duration::ZERO))
            .unwrap();
        assert!(!Fixture::open(folder.path()).blocks("192.0.2.1"));
    }

    #[test]
    fn hits_are_saved_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let first = Fixture::open(folder.path());
        first
            .owner
            .add(net("192.0.2.0/24"), "", Origin::Cli, None)
            .unwrap();
        first
            .table
            .load()
            .lookup("192.0.2.1".parse().unwrap())
            .unwrap()
            .count();
        first.owner.save();
        assert_eq!(
            Fixture::open(folder.path()).owner.show(net("192.0.2.0/24"))[0].hits,
            1
        );
    }

    #[test]
    fn a_damaged_state_file_is_set_aside_and_its_legible_part_restored() {
        let folder = tempfile::tempdir().unwrap();
        let first = Fixture::open(folder.path());
        first
            .owner
            .add(net("192.0.2.0/24"), "", Origin::Cli, None)
            .unwrap();
        first
            .owner
            .add(net("198.51.100.0/24"), "", Origin::Cli, None)
            .unwrap();
        let path = folder.path().join("blocklist.json");
        let whole = fs::read(&path).unwrap();
        let damaged = &whole[..whole.len() - 10];
        fs::write(&path, damaged).unwrap();

        let second = Fixture::open(folder.path());
        assert!(second.blocks("192.0.2.1") && !second.blocks("198.51.100.1"));
        assert_eq!(
            fs::read(folder.path().join("blocklist.json.damaged")).unwrap(),
            damaged
        );
        second.owner.keep(SystemTime::now(), Instant::now());
        let third = Fixture::open(folder.path());
        assert!(third.blocks("192.0.2.1"), "the legible part was saved anew");
        assert!(!folder.path().join("blocklist.json.damaged-1").exists());
    }

    #[test]
    fn a_folder_in_the_files_place_is_set_aside_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("blocklist.json")).unwrap();
        let fixture = Fixture::open(folder.path());
        assert!(
            fixture
                .owner
                .add(net("192.0.2.0/24"), "", Origin::Cli, None)
                .unwrap()
                .unsaved
                .is_none()
        );
        assert!(folder.path().join("blocklist.json.damaged").is_dir());
    }

    #[test]
    fn a_full_disk_is_told_counted_and_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(folder.path());
        let draft = folder.path().join("blocklist.json.new");
        std::os::unix::fs::symlink("/dev/full", &draft).unwrap();
        let change = fixture
            .owner
            .add(net("192.0.2.0/24"), "", Origin::Cli, None)
            .unwrap();
        let failure = change.unsaved.unwrap();
        assert!(
            failure.to_string().contains("No space left on device"),
            "{failure}"
        );
        assert!(failure.to_string().contains("blocklist.json"), "{failure}");
        assert!(fixture.blocks("192.0.2.1"), "it is in force all the same");
        assert_eq!(fixture.owner.save_state().failures, 1);
        assert!(fixture.owner.save_state().failure.is_some());

        // the failed write has removed the link: there is room again
        assert!(!draft.exists());
        fixture.owner.keep(
            SystemTime::now(),
            Instant::now() + Duration::from_secs(3600),
        );
        assert_eq!(fixture.owner.save_state().failure, None);
        assert!(Fixture::open(folder.path()).blocks("192.0.2.1"));
    }

    #[test]
    fn a_state_file_that_cannot_be_replaced_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(folder.path());
        fs::create_dir_all(folder.path().join("blocklist.json/in-the-way")).unwrap();
        let change = fixture
            .owner
            .add(net("192.0.2.0/24"), "", Origin::Cli, None)
            .unwrap();
        assert!(change.unsaved.is_some());
        let change = fixture.owner.remove(net("192.0.2.0/24")).unwrap();
        assert!(change.unsaved.is_some(), "removals are told as well");
    }

    #[test]
    fn a_rule_blocks_an_address_of_ipv4_and_a_64_of_ipv6() {
        for (source, prefix) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(prefix_of(source.parse().unwrap()), net(prefix));
        }
    }

    #[test]
    fn rules_blocks_are_in_force_at_once_and_saved_in_the_background() {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(folder.path());
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let request = |rule, policy| BlockRequest {
            source,
            lifetime: Duration::from_secs(60),
            rule,
            policy,
        };
        assert_eq!(
            fixture.owner.block(&[request(3, 7)], SystemTime::now()),
            None
        );
        assert!(fixture.blocks("192.0.2.1"));
        assert_eq!(
            fixture.owner.show(source.into())[0].origin,
            Origin::Rule("rule-3".to_owned())
        );
        assert!(!Fixture::open(folder.path()).blocks("192.0.2.1"));
        fixture
            .owner
            .keep(SystemTime::now(), Instant::now() + SAVE_EVERY);
        assert!(Fixture::open(folder.path()).blocks("192.0.2.1"));

        let other: IpAddr = "192.0.2.2".parse().unwrap();
        let of_old_policy = BlockRequest {
            source: other,
            ..request(3, 6)
        };
        fixture.owner.block(&[of_old_policy], SystemTime::now());
        assert_eq!(
            fixture.owner.show(other.into())[0].origin,
            Origin::Rule(String::new()),
            "the rule's name is not known"
        );

        fixture.take_over(Vec::new(), &["192.0.2.3/32"]);
        let refused = BlockRequest {
            source: "192.0.2.3".parse().unwrap(),
            ..request(3, 7)
        };
        assert!(matches!(
            fixture.owner.block(&[refused], SystemTime::now()),
            Some(AddError::NeverBlocked { .. })
        ));
        assert_eq!(fixture.owner.refused_blocks(), 1);
    }

    #[test]
    fn blocks_are_taken_from_the_queue_until_the_workers_have_ended() {
        let folder = tempfile::tempdir().unwrap();
        let table = Arc::<ArcSwap<BlockTable>>::default();
        let (sender, receiver) = sync_channel(16);
        let (_, unused) = sync_channel(1);
        let owner = BlocklistOwner::restore(
            folder.path(),
            Limits::default(),
            Arc::clone(&table),
            Box::new(|_, _| None),
            unused,
        )
        .unwrap();
        for host in 0..10 {
            let source = IpAddr::from([192, 0, 2, host]);
            sender
                .send(BlockRequest {
                    source,
                    lifetime: Duration::from_secs(60),
                    rule: 0,
                    policy: 0,
                })
                .unwrap();
        }
        drop(sender);
        owner.serve(&receiver);
        assert_eq!(table.load().len(), 10);
    }

    #[test]
    fn expired_entries_leave_the_published_table() {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(folder.path());
        fixture
            .owner
            .add(net("192.0.2.0/24"), "", Origin::Cli, MINUTE)
            .unwrap();
        fixture.owner.keep(SystemTime::now(), Instant::now());
        assert!(fixture.blocks("192.0.2.1"));
        fixture.owner.keep(
            SystemTime::now() + Duration::from_secs(61),
            Instant::now() + Duration::from_secs(61),
        );
        assert!(!fixture.blocks("192.0.2.1"));
        assert_eq!(fixture.owner.stats().expired, 1);
    }

    #[test]
    fn list_files_are_followed_and_a_bad_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drop.txt");
        fs::write(&path, "192.0.2.0/24\n").unwrap();
        let fixture = Fixture::open(folder.path());
        fixture.take_over(vec![file(&path, "192.0.2.0/24\n")], &[]);
        let look_twice = || (0..2).for_each(|_| fixture.owner.look_at_lists(SystemTime::now()));
        look_twice();
        assert!(fixture.blocks("192.0.2.1"));

        fs::write(&path, "198.51.100.0/24\n").unwrap();
        look_twice();
        assert!(!fixture.blocks("192.0.2.1") && fixture.blocks("198.51.100.1"));

        fs::write(&path, "203.0.113.0/24\n203.0.113.0/33\n").unwrap();
        look_twice();
        assert!(
            fixture.blocks("198.51.100.1") && !fixture.blocks("203.0.113.1"),
            "the old version stays"
        );
        let failure = fixture.owner.lists()[0].failure.clone().unwrap();
        assert!(
            failure.contains("line 2") && failure.contains("203.0.113.0/33"),
            "{failure}"
        );

        fs::remove_file(&path).unwrap();
        look_twice();
        assert!(fixture.blocks("198.51.100.1"), "also when the file is gone");
        assert!(
            fixture.owner.lists()[0]
                .failure
                .as_ref()
                .unwrap()
                .contains("cannot be read")
        );

        fs::write(&path, "203.0.113.0/24\n").unwrap();
        look_twice();
        assert!(fixture.blocks("203.0.113.1") && !fixture.blocks("198.51.100.1"));
        assert_eq!(fixture.owner.lists()[0].failure, None);

        fixture.take_over(Vec::new(), &[]);
        assert!(
            !fixture.blocks("203.0.113.1"),
            "a list that is no longer configured goes"
        );
        assert!(fixture.owner.lists().is_empty());
    }

    #[test]
    fn entries_of_lists_are_not_removed_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(folder.path());
        fixture.take_over(
            vec![file(Path::new("lists/drop.txt"), "192.0.2.0/24\n")],
            &[],
        );
        let listed = fixture.owner.remove(net("192.0.2.0/24")).unwrap_err();
        assert_eq!(listed, RemoveError::Listed("lists/drop.txt".to_owned()));
        let RemoveError::NotThere(near) = fixture.owner.remove(net("192.0.2.1/32")).unwrap_err()
        else {
            panic!()
        };
        assert_eq!(near[0].prefix, net("192.0.2.0/24"));
    }

    #[test]
    fn an_import_is_taken_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(folder.path());
        fixture.take_over(Vec::new(), &["203.0.113.0/24"]);
        let bad = fixture
            .owner
            .import(b"192.0.2.1\nnonsense\n", "", &Origin::Cli, None)
            .unwrap_err();
        assert!(bad.to_string().contains("line 2"), "{bad}");
        assert!(!fixture.blocks("192.0.2.1"));

        let text = b"192.0.2.1 own reason\n192.0.2.2\n203.0.113.7\n192.0.2.1\n";
        let report = fixture
            .owner
            .import(text, "ticket 1", &Origin::Cli, MINUTE)
            .unwrap()
            .value;
        assert_eq!((report.added, report.renewed, report.refused), (2, 1, 1));
        assert!(
            report.refusals[0].starts_with("line 3: 203.0.113.7/32: "),
            "{:?}",
            report.refusals
        );
        assert_eq!(
            fixture.owner.show(net("192.0.2.2/32"))[0].reason,
            "ticket 1"
        );
        assert!(Fixture::open(folder.path()).blocks("192.0.2.2"));
    }

    #[test]
    fn listings_are_cut_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(folder.path());
        for host in 0..10 {
            fixture
                .owner
                .add(net(&format!("192.0.2.{host}/32")), "", Origin::Cli, None)
                .unwrap();
        }
        let (part, total) = fixture.owner.list(&EntryFilter::default(), 8, 5);
        assert_eq!((part.len(), total), (2, 10));
        assert_eq!(part[0].prefix, net("192.0.2.8/32"));
    }
}
