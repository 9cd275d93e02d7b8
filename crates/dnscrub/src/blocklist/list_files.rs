//! The blocklist's list files: which are in force, and whether they have changed on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ahash::RandomState;

use crate::config::{Disk, Source as _};
use crate::file_version::FileVersion;

/// Larger files are refused. The same as for files that the configuration is loaded with.
const LARGEST: u64 = 100 << 20;

/// A list file, and what is known of it.
#[derive(Debug)]
pub(super) struct ListFile {
    pub(super) path: PathBuf,
    /// Why its newest version is not in force, if it is not.
    pub(super) failure: Option<String>,
    /// When the version in force was taken over.
    pub(super) loaded: SystemTime,
    /// Hash of the version that was looked at last.
    content: u64,
    /// Of the version that was looked at last; nothing before the first look.
    seen: Option<FileVersion>,
    /// Of a version that was different at the last look: it is read when it is still the same at
    /// the next, so that a file is not read while it is being written.
    settling: Option<FileVersion>,
}

/// What a look at a list file found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing new.
    Same,
    /// Another content.
    Changed(Vec<u8>),
    /// It cannot be read, in words; told once.
    Unreadable(String),
}

impl ListFile {
    pub(super) fn new(path: PathBuf, hasher: &RandomState, text: &[u8], now: SystemTime) -> Self {
        Self {
            path,
            failure: None,
            loaded: now,
            content: hasher.hash_one(text),
            seen: None,
            settling: None,
        }
    }

    /// Whether this is the content that was looked at last.
    pub(super) fn holds(&self, hasher: &RandomState, text: &[u8]) -> bool {
        self.content == hasher.hash_one(text)
    }

    /// Looks whether the file has changed. A change is reported at the second look that finds the
    /// same version.
    pub(super) fn look(&mut self, hasher: &RandomState) -> Look {
        let found = match std::fs::metadata(&self.path) {
            Ok(metadata) => FileVersion::of(&metadata),
            Err(failure) => return self.unreadable(&failure),
        };
        if self.seen == Some(found) {
            self.settling = None;
            return Look::Same;
        }
        if self.settling.replace(found) != Some(found) {
            return Look::Same;
        }
        let text = match Disk.read(&self.path, LARGEST) {
            Ok(text) => text,
            Err(failure) => return self.unreadable(&failure),
        };
        self.seen = Some(found);
        self.settling = None;
        if self.holds(hasher, &text) {
            if self
                .failure
                .as_deref()
                .is_some_and(|failure| failure.starts_with(UNREADABLE))
            {
                self.failure = None;
            }
            return Look::Same;
        }
        self.content = hasher.hash_one(text.as_slice());
        Look::Changed(text)
    }

    fn unreadable(&mut self, failure: &io::Error) -> Look {
        self.seen = None;
        self.settling = None;
        let text = format!("{UNREADABLE}: {failure}");
        if self.failure.as_ref() == Some(&text) {
            return Look::Same;
        }
        if self
            .failure
            .as_ref()
            .is_some_and(|failure| !failure.starts_with(UNREADABLE))
        {
            // what was looked at last was refused: look at it again when it comes back
            self.content = !self.content;
        }
        self.failure = Some(text.clone());
        Look::Unreadable(text)
    }
}

const UNREADABLE: &str = "it cannot be read";

/// The name under which a list file's entries stand in the blocklist.
pub(super) fn list_name(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_reported_once_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drop.txt");
        fs::write(&path, "192.0.2.1\n").unwrap();
        let hasher = RandomState::new();
        let mut file = ListFile::new(
            path.clone(),
            &hasher,
            b"192.0.2.1\n",
            SystemTime::UNIX_EPOCH,
        );
        for _ in 0..3 {
            assert_eq!(file.look(&hasher), Look::Same);
        }
        fs::write(&path, "192.0.2.1\n192.0").unwrap();
        assert_eq!(file.look(&hasher), Look::Same, "it may still be written");
        fs::write(&path, "192.0.2.1\n192.0.2.2\n").unwrap();
        assert_eq!(file.look(&hasher), Look::Same, "it was");
        assert_eq!(
            file.look(&hasher),
            Look::Changed(b"192.0.2.1\n192.0.2.2\n".to_vec())
        );
        assert_eq!(file.look(&hasher), Look::Same);

        // replaced by a file with the same content: nothing to do
        let other = folder.path().join("other");
        fs::write(&other, "192.0.2.1\n192.0.2.2\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(file.look(&hasher), Look::Same);
        assert_eq!(file.look(&hasher), Look::Same);

        fs::remove_file(&path).unwrap();
        assert!(matches!(file.look(&hasher), Look::Unreadable(_)));
        assert_eq!(file.look(&hasher), Look::Same, "told once");
        fs::write(&path, "192.0.2.1\n192.0.2.2\n").unwrap();
        assert_eq!(file.look(&hasher), Look::Same);
        assert_eq!(file.look(&hasher), Look::Same);
        assert_eq!(file.failure, None, "it is there again");
    }

    #[test]
    fn a_change_between_loading_and_the_first_look_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drop.txt");
        fs::write(&path, "192.0.2.2\n").unwrap();
        let hasher = RandomState::new();
        let mut file = ListFile::new(path, &hasher, b"192.0.2.1\n", SystemTime::UNIX_EPOCH);
        assert_eq!(file.look(&hasher), Look::Same);
        assert_eq!(file.look(&hasher), Look::Changed(b"192.0.2.2\n".to_vec()));
    }
}
