//! The state folder is one program's alone.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::write_draft;

/// The file that is locked while a program uses the folder. It stays, and holds nothing.
const LOCK: &str = "lock";
/// A file that is written to see whether one can be.
const PROBE: &str = "probe.new";

/// A state folder that is one program's alone, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Claim(#[allow(dead_code, reason = "it is locked while it is open")] Option<File>);

/// Why a state folder is not to be had.
#[derive(Debug)]
pub(crate) enum ClaimError {
    /// It is not there and cannot be created.
    NotCreated(PathBuf, io::Error),
    /// Another program has it.
    InUse(PathBuf),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCreated(folder, failure) => write!(
                f,
                "cannot create the state folder {}: {failure} (`state.folder` names another)",
                folder.display()
            ),
            Self::InUse(folder) => write!(
                f,
                "another dnscrub keeps its state in {}: set another `state.folder` to run both",
                folder.display()
            ),
        }
    }
}

impl std::error::Error for ClaimError {}

/// Takes a state folder for this program, creating it where it is missing. That it cannot be written is told in the log
/// and is no reason not to serve: the disk may have failed.
///
/// # Errors
/// See [`ClaimError`].
pub(crate) fn claim(folder: &Path) -> Result<Claim, ClaimError> {
    fs::create_dir_all(folder)
        .map_err(|failure| ClaimError::NotCreated(folder.to_owned(), failure))?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(folder.join(LOCK));
    let lock = match lock {
        Ok(file) => match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(ClaimError::InUse(folder.to_owned())),
            // a file system without locks
            Err(TryLockError::Error(failure)) => Err(failure),
            Ok(()) => Ok(file),
        },
        Err(failure) => Err(failure),
    };
    if let Err(failure) = try_to_write(folder) {
        error!(
            folder = %folder.display(), %failure,
            "the state folder cannot be written: a restart loses blocks, levels, incidents, notices that wait and what is learned"
        );
    } else if let Err(failure) = &lock {
        warn!(
            folder = %folder.display(), %failure,
            "the state folder cannot be locked: see that no other dnscrub uses it"
        );
    }
    Ok(Claim(lock.ok()))
}

/// Writes a small file into a folder that exists, and removes it.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn try_to_write(folder: &Path) -> io::Result<()> {
    let probe = folder.join(PROBE);
    let written = write_draft(&probe, 0o600, |file| file.write_all(&[0; 4096]));
    let removed = fs::remove_file(&probe);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_is_one_programs_and_a_dead_one_leaves_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/state");
        let first = claim(&path).unwrap();
        let refused = claim(&path).unwrap_err().to_string();
        assert!(
            refused.contains("another dnscrub keeps its state in")
                && refused.contains("state.folder"),
            "{refused}"
        );
        drop(first);
        claim(&path).unwrap();
        let left: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        assert_eq!(left, [LOCK], "the probe is gone");
    }

    #[test]
    fn a_folder_that_cannot_be_had_is_told_and_a_full_disk_keeps_nobody_from_serving() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let below = folder.path().join("file/state");
        let refused = claim(&below).unwrap_err().to_string();
        assert!(
            refused.starts_with("cannot create the state folder"),
            "{refused}"
        );

        std::os::unix::fs::symlink("/dev/full", folder.path().join(PROBE)).unwrap();
        let full = try_to_write(folder.path()).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        std::os::unix::fs::symlink("/dev/full", folder.path().join(PROBE)).unwrap();
        claim(folder.path()).unwrap();
        try_to_write(folder.path()).unwrap();
    }
}
