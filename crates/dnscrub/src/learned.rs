//! What was learned of sources, names and usual rates, kept over a restart.
//!
//! It is saved every five minutes and at the stop, and restored before the first query. While there
//! is an alarm nothing is saved, so that the file holds what was so before the trouble; at the stop it
//! is saved all the same, since learning of sources and usual rates stands still during an attack.
//! A file that cannot be used is told in the log and ignored: all of it can be learned again.

mod state_file;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use self::state_file::Contents;
use crate::data_path::DataPath;
use crate::state_folder::StateFile;

/// Time between two saves.
pub const SAVE_EVERY: Duration = Duration::from_secs(300);

/// What a save came to; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveResult {
    /// It is on the disk.
    Saved,
    /// It was not due because there is an alarm.
    PutOff,
    /// The operating system did not let it be written.
    Failed,
}

impl SaveResult {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Saved, Self::PutOff, Self::Failed];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Saved => "saved",
            Self::PutOff => "put-off",
            Self::Failed => "failed",
        }
    }
}

/// The state file, and how saving went.
pub struct LearnedFile {
    file: StateFile,
    results: [AtomicU64; SaveResult::ALL.len()],
}

/// What was read at the start.
#[derive(Debug, Default)]
pub struct Kept(Option<Contents>);

impl LearnedFile {
    /// The state file of this folder, and what it holds. A file that cannot be used is told in the
    /// log; nothing is known then.
    #[must_use]
    pub fn open(folder: &Path) -> (Self, Kept) {
        let file = StateFile::secret(folder, state_file::NAME);
        let kept = state_file::read(&file).unwrap_or_else(|damage| {
            warn!(
                file = %file.path().display(),
                "what was learned before is not restored: {damage}; it is learned again, and the file replaced"
            );
            None
        });
        let results = std::array::from_fn(|_| AtomicU64::new(0));
        (Self { file, results }, Kept(kept))
    }

    /// Writes what all workers share, what the detector takes for usual, and the workers' parts. Waits for the
    /// disk.
    ///
    /// # Errors
    /// Those of the operating system; the old file is then as it was.
    pub fn write(
        &self,
        shared: Vec<u8>,
        detector: Vec<u8>,
        workers: Vec<Vec<u8>>,
    ) -> io::Result<()> {
        let contents = Contents {
            shared,
            detector,
            workers,
        };
        let written = self.file.replace(|out| state_file::write(out, &contents));
        match &written {
            Ok(()) => self.count(SaveResult::Saved),
            Err(failure) => {
                self.count(SaveResult::Failed);
                warn!(file = %self.file.path().display(), %failure, "what was learned is not saved");
            }
        }
        written
    }

    /// Notes a save that was put off.
    pub fn put_off(&self) {
        self.count(SaveResult::PutOff);
    }

    fn count(&self, result: SaveResult) {
        if let Some(count) = self.results.get(result as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Saves so far by what they came to.
    pub fn results(&self) -> impl Iterator<Item = (SaveResult, u64)> {
        let counts = SaveResult::ALL.into_iter().zip(&self.results);
        counts.map(|(result, count)| (result, count.load(Relaxed)))
    }
}

impl Kept {
    /// Restores what all workers share, before the policy is shared itself. What does not fit the
    /// settings is told in the log and begins afresh.
    pub fn restore_shared(&mut self, scoring: &mut dnscrub_scoring::Policy) {
        let Some(contents) = &self.0 else { return };
        match scoring.restore_learned(&contents.shared) {
            Some(left_out) if left_out.is_empty() => {
                info!("sources and names that were known before are known");
            }
            Some(left_out) => warn!(
                "other sizes than before, so learned again: {}",
                left_out.join(", ")
            ),
            None => {
                warn!(
                    "what was learned before is not restored: it was keyed with another hash function"
                );
                self.0 = None;
            }
        }
    }

    /// What the detector of incidents took for usual; empty where nothing is known.
    #[must_use]
    pub fn detector(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |contents| &contents.detector)
    }

    /// Gives a worker what all of them knew.
    pub fn restore_worker(&self, path: &mut DataPath, now: Instant) {
        let Some(contents) = &self.0 else { return };
        let parts: Vec<&[u8]> = contents.workers.iter().map(Vec::as_slice).collect();
        let restored = path.restore_learned(&parts, now);
        if restored.other_size || restored.broken_off {
            warn!(
                ?restored,
                "part of what a worker had learned is learned again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_known_at_the_next_start_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, kept) = LearnedFile::open(folder.path());
        assert!(kept.0.is_none());
        file.write(vec![1], vec![2], vec![vec![3]]).unwrap();
        let permissions = std::fs::metadata(file.file.path()).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o077, 0);
        let (_, kept) = LearnedFile::open(folder.path());
        assert_eq!(kept.detector(), [2]);
        std::fs::write(file.file.path(), "damage").unwrap();
        let (_, kept) = LearnedFile::open(folder.path());
        assert!(kept.0.is_none());
        assert_eq!(kept.detector(), [0; 0]);
    }
}
