//! Zone files: read piece by piece, and again when they change.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dnscrub_zones::master_file::{FileError, MasterFile};
use dnscrub_zones::{Contents, Zone};
use tokio::sync::Semaphore;

use super::transfer::beside;
use super::{Done, LOOK_OVERDUE, LOOK_PERIOD, LoadedZone};
use crate::config::runtime::{Configuration, ZoneSource};
use crate::config::{Place, Problem, Problems};
use crate::file_version::FileVersion;

/// Octets read at a time.
const PIECE: usize = 64 << 10;
/// Characters shown of a line.
const MAX_SHOWN: usize = 120;

/// Why a zone file is not loaded.
#[derive(Debug)]
enum Failure {
    /// It cannot be read.
    Unreadable(std::io::Error),
    /// There is something wrong in it.
    Wrong(FileError),
    /// It is no zone as a whole.
    NoZone(String),
    /// The program ends.
    Stopped,
}

impl Failure {
    fn in_words(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Unreadable(failure) => format!("{path} cannot be read: {failure}"),
            Self::Wrong(failure) => format!("{path}:{failure}"),
            Self::NoZone(why) => format!("{path}: {why}"),
            Self::Stopped => "the program ends".to_owned(),
        }
    }
}

fn read(path: &Path, zone: &Zone, stopping: &AtomicBool) -> Result<Contents, Failure> {
    let mut file = File::open(path).map_err(Failure::Unreadable)?;
    let mut reading = MasterFile::new(zone.name(), zone.builder());
    let mut piece = vec![0; PIECE];
    loop {
        if stopping.load(Relaxed) {
            return Err(Failure::Stopped);
        }
        let len = file.read(&mut piece).map_err(Failure::Unreadable)?;
        if len == 0 {
            break;
        }
        let read = piece.get(..len).unwrap_or_default();
        reading.feed(read).map_err(Failure::Wrong)?;
    }
    let builder = reading.finish().map_err(Failure::Wrong)?;
    builder
        .finish()
        .map_err(|failure| Failure::NoZone(failure.to_string()))
}

/// Loads the file and loads it again when it has changed. A version is read at the second look that
/// finds it the same, so that a file is not read while it is being written; but the first at once.
pub(super) async fn follow(loaded: Arc<LoadedZone>, path: PathBuf, permits: Arc<Semaphore>) {
    let mut known = None;
    let mut settling = None;
    let mut first = true;
    loop {
        let looked_at = path.clone();
        let found =
            beside(move || std::fs::metadata(looked_at).map(|it| FileVersion::of(&it))).await;
        match found {
            Err(failure) => {
                known = None;
                let why = Failure::Unreadable(failure).in_words(&path);
                loaded.failed(&why, LOOK_PERIOD);
            }
            Ok(version) if known == Some(version) => confirm(&loaded),
            Ok(version) if first || settling == Some(version) => {
                let Ok(permit) = permits.acquire().await else {
                    return;
                };
                let (reading, from) = (Arc::clone(&loaded), path.clone());
                let result = beside(move || read(&from, &reading.zone, &reading.stopping)).await;
                drop(permit);
                known = Some(version);
                match result {
                    Ok(contents) => {
                        loaded.zone.load(contents, LOOK_OVERDUE, Instant::now());
                        loaded.succeeded(Done::Whole, LOOK_PERIOD);
                    }
                    Err(failure) => {
                        let why = failure.in_words(&path);
                        loaded.zone.doubt(&why, Instant::now());
                        loaded.failed(&why, LOOK_PERIOD);
                    }
                }
            }
            Ok(version) => settling = Some(version),
        }
        first = false;
        tokio::select! {
            () = tokio::time::sleep(LOOK_PERIOD) => {}
            () = loaded.wake.notified() => {}
        }
    }
}

/// The file is as it was: what is known of it is good, unless the last version was not loaded.
fn confirm(loaded: &LoadedZone) {
    if loaded.times().told.is_none() {
        loaded.zone.confirm(LOOK_OVERDUE, Instant::now());
        loaded.succeeded(Done::Unchanged, LOOK_PERIOD);
    }
}

/// What is wrong with the zone files that a configuration names, for `dnscrub check`. Reads them
/// whole.
#[must_use]
pub fn check(configuration: &Configuration) -> Vec<Problem> {
    read_all(configuration, |_, _| {})
}

/// Loads the zone files that a configuration names, for good: for a replay, whose time is not that of
/// the files.
///
/// # Errors
/// What is wrong with them.
pub fn load(configuration: &Configuration, now: Instant) -> Result<(), Problems> {
    let problems = read_all(configuration, |zone, contents| {
        zone.load(contents, FOR_GOOD, now);
    });
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problems(problems))
    }
}

/// Longer than any trace.
const FOR_GOOD: Duration = Duration::from_secs(u32::MAX as u64);

fn read_all(configuration: &Configuration, mut take: impl FnMut(&Zone, Contents)) -> Vec<Problem> {
    let policy = &configuration.reloadable;
    let running = AtomicBool::new(false);
    policy
        .zones
        .iter()
        .zip(&policy.zone_settings)
        .filter_map(|(zone, settings)| {
            let ZoneSource::File(path) = &settings.source else {
                return None;
            };
            let failure = match read(path, zone, &running) {
                Ok(contents) => {
                    take(zone, contents);
                    return None;
                }
                Err(failure) => failure,
            };
            let problem = match failure {
                Failure::Wrong(failure) => {
                    let place = place(path, &failure);
                    Problem::new(place, "", failure.message)
                }
                failure => {
                    let place = Place::file(path.display().to_string());
                    Problem::new(place, "", failure.in_words(path))
                }
            };
            Some(problem)
        })
        .collect()
}

fn place(path: &Path, failure: &FileError) -> Place {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (line, column) = (number(failure.line), number(failure.column));
    let written = File::open(path).ok().and_then(|file| {
        let mut lines = BufReader::new(file).split(b'\n');
        lines.nth(line.saturating_sub(1))?.ok()
    });
    let source: String = String::from_utf8_lossy(&written.unwrap_or_default())
        .trim_end()
        .chars()
        .take(MAX_SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let width = source
        .chars()
        .skip(column.saturating_sub(1))
        .take_while(|c| !c.is_whitespace())
        .count();
    Place {
        file: path.display().to_string(),
        line,
        column,
        width: width.max(1),
        source,
    }
}
