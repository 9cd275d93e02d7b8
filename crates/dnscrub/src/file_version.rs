//! Whether a file on the disk is the one that was looked at before.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Enough of a file's metadata to notice that it was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileVersion {
    device: u64,
    inode: u64,
    octets: u64,
    modified: (i64, i64),
}

impl FileVersion {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            octets: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}
