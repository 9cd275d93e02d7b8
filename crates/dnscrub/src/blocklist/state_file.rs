//! The file that keeps the blocklist's dynamic entries over a restart.
//!
//! JSON lines: a header with the format's version and the number of entries, then one entry a line.
//! It is replaced as a whole.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dnscrub_packet_filter::Entry;
use serde::{Deserialize, Serialize};

use crate::state_folder::{self, Header};

/// Name in the state folder.
pub(super) const NAME: &str = "blocklist.json";
/// What the header's `format` says.
const FORMAT: &str = "dnscrub-blocklist";
/// Version of the format that is written, and the newest that is read.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct FirstLine {
    #[serde(flatten)]
    header: Header,
    entries: usize,
}

/// What a state file held.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The entries that could be read.
    pub(super) entries: Vec<Entry>,
    /// What is wrong with the file, if something is.
    pub(super) damage: Option<String>,
}

/// The state file of one folder.
#[derive(Clone, Debug)]
pub(super) struct StateFile {
    folder: PathBuf,
    path: PathBuf,
}

impl StateFile {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            path: folder.join(NAME),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; a file that does not exist holds nothing. Of a damaged one everything that is
    /// legible is returned.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn read(&self) -> io::Result<Read> {
        match fs::read(&self.path) {
            Ok(octets) => Ok(parse(&octets)),
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => Ok(Read::default()),
            Err(failure) => Err(failure),
        }
    }

    /// Renames the file, so that the next save does not overwrite it. Returns its new name.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        state_folder::set_aside(&self.folder, NAME)
    }

    /// Replaces the file. The state is on the disk when this returns.
    ///
    /// # Errors
    /// Those of the operating system; the old file is then as it was.
    pub(super) fn write(&self, entries: &[Entry]) -> io::Result<()> {
        state_folder::replace(&self.folder, NAME, 0o640, |out| write(out, entries))
    }
}

fn write(mut out: &mut impl Write, entries: &[Entry]) -> io::Result<()> {
    serde_json::to_writer(
        &mut out,
        &FirstLine {
            header: Header::new(FORMAT, VERSION),
            entries: entries.len(),
        },
    )?;
    for entry in entries {
        out.write_all(b"\n")?;
        serde_json::to_writer(&mut out, entry)?;
    }
    out.write_all(b"\n")
}

fn parse(octets: &[u8]) -> Read {
    let damaged = |damage: String| Read {
        entries: Vec::new(),
        damage: Some(damage),
    };
    let mut lines = (1_usize..)
        .zip(octets.split(|&octet| octet == b'\n'))
        .filter(|(_, line)| !line.is_empty());
    let Some((_, first)) = lines.next() else {
        return damaged("it is empty".to_owned());
    };
    let FirstLine { header, entries } = match serde_json::from_slice(first) {
        Ok(first) => first,
        Err(failure) => return damaged(format!("line 1 is not its header: {failure}")),
    };
    if let Err(damage) = header.check(FORMAT, VERSION) {
        return damaged(damage);
    }
    let mut read = Read::default();
    for (number, line) in lines {
        match serde_json::from_slice(line) {
            Ok(entry) => read.entries.push(entry),
            Err(failure) if read.damage.is_none() => {
                read.damage = Some(format!("line {number} is not an entry: {failure}"));
            }
            Err(_) => {}
        }
    }
    if read.damage.is_none() && read.entries.len() != entries {
        read.damage = Some(format!(
            "it holds {} entries, its header says {entries}",
            read.entries.len()
        ));
    }
    read
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use dnscrub_packet_filter::Origin;

    use super::*;

    fn entry(prefix: &str) -> Entry {
        Entry {
            prefix: prefix.parse().unwrap(),
            reason: "a \"reason\"\nof two lines".to_owned(),
            origin: Origin::Cli,
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            expires: None,
            hits: 3,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_folder(folder.path());
        assert!(file.read().unwrap().entries.is_empty());
        let entries = [entry("192.0.2.0/24"), entry("2001:db8::/32")];
        file.write(&entries).unwrap();
        let read = file.read().unwrap();
        assert_eq!(
            (read.entries.as_slice(), read.damage),
            (entries.as_slice(), None)
        );
        file.write(&[]).unwrap();
        assert!(file.read().unwrap().entries.is_empty());
        let names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        assert_eq!(names, [NAME], "no draft is left");
    }

    #[test]
    fn every_damage_is_named_and_the_rest_is_read() {
        let whole = {
            let folder = tempfile::tempdir().unwrap();
            let file = StateFile::in_folder(folder.path());
            file.write(&[entry("192.0.2.0/24"), entry("198.51.100.0/24")])
                .unwrap();
            fs::read_to_string(file.path()).unwrap()
        };
        let short = whole.lines().take(2).collect::<Vec<_>>().join("\n");
        let cut = &whole[..whole.len() - 20];
        for (text, legible, damage) in [
            ("", 0, "it is empty"),
            ("\0\0\0\0", 0, "line 1 is not its header"),
            (
                "{\"format\":\"other\",\"version\":1,\"entries\":0}",
                0,
                "its format is \"other\"",
            ),
            (
                "{\"format\":\"dnscrub-blocklist\",\"version\":2,\"entries\":0}",
                0,
                "a newer dnscrub wrote it",
            ),
            (&short, 1, "it holds 1 entries, its header says 2"),
            (cut, 1, "line 3 is not an entry"),
        ] {
            let read = parse(text.as_bytes());
            let found = read.damage.unwrap();
            assert!(found.contains(damage), "{text:?}: {found}");
            assert_eq!(read.entries.len(), legible, "{text:?}");
        }
    }

    #[test]
    fn files_set_aside_keep_their_content_and_do_not_pile_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_folder(folder.path());
        for round in 0..15 {
            fs::write(file.path(), format!("damage {round}")).unwrap();
            let aside = file.set_aside().unwrap();
            assert_eq!(
                fs::read_to_string(aside).unwrap(),
                format!("damage {round}")
            );
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 10);
        assert!(folder.path().join("blocklist.json.damaged").exists());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_folder(folder.path());
        file.write(&[entry("192.0.2.0/24")]).unwrap();
        // A device that is always full stands where the draft is written.
        std::os::unix::fs::symlink("/dev/full", folder.path().join(format!("{NAME}.new"))).unwrap();
        let failure = file.write(&[]).unwrap_err();
        assert_eq!(failure.kind(), io::ErrorKind::StorageFull, "{failure}");
        assert_eq!(file.read().unwrap().entries.len(), 1);
    }
}
