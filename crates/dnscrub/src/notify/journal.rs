//! The queue on the disk: what was taken and what became of it, one JSON object a line.
//!
//! Lines are added at the end. A notice counts as taken when its line is on the disk; that something
//! is done with may get lost when the machine stops, and is then done again. When most of it is
//! history the file is replaced as a whole by one with only what is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use dnscrub_detection::Happened;
use serde::{Deserialize, Serialize};

use super::notice::Notice;
use crate::state_folder::{Header, StateFile};

/// Name in the state folder.
const NAME: &str = "notices.log";
/// What the first line's `format` says.
const FORMAT: &str = "dnscrub-notices";
/// Version of the format that is written, and the newest that is read.
const VERSION: u32 = 1;
/// A file of fewer octets is not replaced for its history.
const SMALL: u64 = 256 << 10;
/// A file with more octets is not read.
const LARGEST: u64 = 1 << 30;

/// What somebody knows of incidents, by their numbers.
pub(super) type Knowledge = BTreeMap<u64, Mark>;

/// What somebody knows of an incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Its events by the last notice that was taken for them, or passed over.
    pub(super) events: u32,
    /// They were told of it, or will be, and not yet that it is over.
    pub(super) heard: bool,
}

impl Mark {
    /// A notice of this event was taken.
    pub(super) fn take(&mut self, event: Happened, events: u32) {
        self.events = self.events.max(events);
        self.heard = event != Happened::Closed;
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Record {
    /// A notice, and who is to be told.
    Take {
        /// The notice.
        notice: Arc<Notice>,
        /// Everybody.
        to: Vec<String>,
    },
    /// A notice is done with for somebody.
    End {
        /// The notice's number.
        number: u64,
        /// Who.
        to: String,
    },
    /// All that a webhook or a command knows of incidents.
    Knows {
        /// Who.
        to: String,
        /// By incident.
        incidents: Knowledge,
    },
    /// An event that these are not told of.
    Passed {
        /// The incident's number.
        incident: u64,
        /// Its events by then.
        events: u32,
        /// Who.
        to: Vec<String>,
    },
    /// An Alertmanager has taken alerts of this incident while it was open, by a notice of this number.
    Fired {
        /// The incident's number.
        incident: u64,
        /// The notice's number; 0 when it was an older one than is kept.
        number: u64,
        /// Who.
        to: String,
    },
}

/// What a file held that is not done with.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Kept {
    /// Notices in their order, and who is still to be told.
    pub(super) notices: Vec<(Arc<Notice>, Vec<String>)>,
    /// Which Alertmanager was told of which incident: by incident and by notice.
    pub(super) fired: Vec<(u64, u64, String)>,
    /// What webhooks and commands know of incidents. Who is not in here may know anything.
    pub(super) knows: BTreeMap<String, Knowledge>,
    /// The highest number of a notice.
    pub(super) last: u64,
    /// What is wrong with the file, if something is.
    pub(super) damage: Option<String>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Journal {
    whole: StateFile,
    /// The same, open for adding lines.
    file: Option<File>,
    octets: u64,
    /// Octets of the file when it was last replaced.
    needed: u64,
}

impl Journal {
    /// The file of this folder, and what it holds. Nothing is written yet: the caller replaces the
    /// file with what it keeps.
    pub(super) fn open(folder: &Path) -> (Self, Kept) {
        let whole = StateFile::new(folder, NAME);
        let kept = match whole.read_at_most(LARGEST) {
            Ok(octets) => octets.map_or_else(Kept::default, |octets| parse(&octets)),
            Err(failure) => Kept {
                damage: Some(failure.to_string()),
                ..Kept::default()
            },
        };
        if kept.damage.is_some() {
            // what cannot be read may be wanted; whether this succeeds changes nothing
            let _ = fs::copy(whole.path(), folder.join(format!("{NAME}.damaged")));
        }
        let journal = Self {
            whole,
            file: None,
            octets: 0,
            needed: 0,
        };
        (journal, kept)
    }

    pub(super) fn path(&self) -> &Path {
        self.whole.path()
    }

    /// Adds lines.
    ///
    /// # Errors
    /// Those of the operating system; the file must be replaced then before anything else is added.
    pub(super) fn add(&mut self, records: &[Record]) -> io::Result<()> {
        let written = self.try_add(records);
        if written.is_err() {
            self.file = None;
        }
        written
    }

    /// What was added is on the disk when this returns.
    ///
    /// # Errors
    /// Those of the operating system; the file must be replaced then.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let synced = self.opened().and_then(|file| file.sync_data());
        if synced.is_err() {
            self.file = None;
        }
        synced
    }

    fn opened(&mut self) -> io::Result<&mut File> {
        let file = self.file.as_mut();
        file.ok_or_else(|| io::Error::other("an earlier write has failed"))
    }

    fn try_add(&mut self, records: &[Record]) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        self.opened()?.write_all(&lines)?;
        self.octets += lines.len() as u64;
        Ok(())
    }

    /// Whether it is time to replace the file: most of it is history, or a write has failed.
    pub(super) fn wants_replacing(&self) -> bool {
        self.file.is_none() || self.octets > SMALL.max(2 * self.needed)
    }

    /// Replaces the file by one that holds these lines.
    ///
    /// # Errors
    /// Those of the operating system; the old file is then as it was.
    pub(super) fn replace(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        self.file = None;
        self.whole.replace(|out| {
            serde_json::to_writer(&mut *out, &Header::new(FORMAT, VERSION))?;
            out.write_all(b"\n")?;
            for record in records {
                serde_json::to_writer(&mut *out, &record)?;
                out.write_all(b"\n")?;
            }
            Ok(())
        })?;
        let file = OpenOptions::new().append(true).open(self.path())?;
        self.octets = file.metadata()?.len();
        self.needed = self.octets;
        self.file = Some(file);
        Ok(())
    }
}

fn parse(octets: &[u8]) -> Kept {
    let mut kept = Kept::default();
    let mut lines = (1_usize..)
        .zip(octets.split(|&octet| octet == b'\n'))
        .filter(|(_, line)| !line.is_empty());
    let header = match lines.next() {
        None => Err("it is empty".to_owned()),
        Some((_, line)) => serde_json::from_slice::<Header>(line)
            .map_err(|failure| format!("line 1 is not its header: {failure}"))
            .and_then(|header| header.check(FORMAT, VERSION)),
    };
    if let Err(damage) = header {
        kept.damage = Some(damage);
        return kept;
    }
    let mut notices = BTreeMap::new();
    let mut fired = BTreeSet::new();
    for (number, line) in lines {
        match serde_json::from_slice(line) {
            Ok(Record::Take { notice, to }) => {
                kept.last = kept.last.max(notice.number);
                for name in &to {
                    // those that were told all along have a line of theirs at the beginning
                    if let Some(knowledge) = kept.knows.get_mut(name) {
                        let mark = knowledge.entry(notice.incident.number).or_default();
                        mark.take(notice.event, notice.incident.events);
                    }
                }
                // the same notice may be for more later
                let entry = notices.entry(notice.number);
                let (_, everybody) = entry.or_insert_with(|| (notice, BTreeSet::new()));
                everybody.extend(to);
            }
            Ok(Record::End { number, to }) => {
                if let Some((_, waiting)) = notices.get_mut(&number) {
                    waiting.remove(&to);
                    if waiting.is_empty() {
                        notices.remove(&number);
                    }
                }
            }
            Ok(Record::Knows { to, incidents }) => {
                kept.knows.insert(to, incidents);
            }
            Ok(Record::Passed {
                incident,
                events,
                to,
            }) => {
                for name in &to {
                    if let Some(knowledge) = kept.knows.get_mut(name) {
                        let mark = knowledge.entry(incident).or_default();
                        mark.events = mark.events.max(events);
                    }
                }
            }
            Ok(Record::Fired {
                incident,
                number,
                to,
            }) => {
                fired.insert((incident, number, to));
            }
            // a line that was being written when the machine stopped was not taken yet
            Err(_) if !octets.ends_with(b"\n") && octets.ends_with(line) => {}
            Err(failure) if kept.damage.is_none() => {
                kept.damage = Some(format!("line {number} is not understood: {failure}"));
            }
            Err(_) => {}
        }
    }
    kept.notices = notices
        .into_values()
        .map(|(notice, to)| (notice, to.into_iter().collect()))
        .collect();
    kept.fired = fired.into_iter().collect();
    if kept.damage.is_some() {
        // what is missing would be told again, perhaps all of a year
        kept.knows.clear();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::testing::notice;
    use super::*;

    fn take(number: u64, to: &[&str]) -> Record {
        Record::Take {
            notice: notice(number, Happened::Opened, number),
            to: to.iter().map(|it| (*it).to_owned()).collect(),
        }
    }

    fn end(number: u64, to: &str) -> Record {
        Record::End {
            number,
            to: to.to_owned(),
        }
    }

    fn waiting(kept: &Kept) -> Vec<(u64, Vec<&str>)> {
        let notices = kept.notices.iter();
        notices
            .map(|(notice, to)| (notice.number, to.iter().map(String::as_str).collect()))
            .collect()
    }

    #[test]
    fn what_was_taken_and_not_ended_is_there_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, kept) = Journal::open(folder.path());
        assert_eq!(kept, Kept::default());
        assert!(journal.wants_replacing());
        assert!(
            journal.add(&[end(1, "a")]).is_err(),
            "it must be written first"
        );
        journal.replace(std::iter::empty()).unwrap();
        journal
            .add(&[take(1, &["a", "b"]), take(2, &["a"]), take(3, &["b"])])
            .unwrap();
        let fired = Record::Fired {
            incident: 3,
            number: 3,
            to: "b".to_owned(),
        };
        journal.add(&[end(1, "a"), end(2, "a"), fired]).unwrap();
        journal.sync().unwrap();
        // nothing runs at its end, as with kill -9
        std::mem::forget(journal);
        let (_, kept) = Journal::open(folder.path());
        assert_eq!(waiting(&kept), [(1, vec!["b"]), (3, vec!["b"])]);
        assert_eq!(kept.fired, [(3, 3, "b".to_owned())]);
        assert_eq!((kept.last, kept.damage), (3, None));
        assert_eq!(*kept.notices[0].0, *notice(1, Happened::Opened, 1));
    }

    #[test]
    fn a_line_cut_off_by_a_stop_was_not_taken_and_other_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path());
        journal
            .replace([take(1, &["a"]), take(2, &["a"])].into_iter())
            .unwrap();
        let whole = fs::read(journal.path()).unwrap();
        fs::write(journal.path(), &whole[..whole.len() - 9]).unwrap();
        let (journal, kept) = Journal::open(folder.path());
        assert_eq!(
            (waiting(&kept), &kept.damage),
            (vec![(1, vec!["a"])], &None)
        );

        let text = String::from_utf8(whole)
            .unwrap()
            .replacen("\"take\"", "\"tak\"", 1);
        fs::write(journal.path(), text).unwrap();
        let (journal, kept) = Journal::open(folder.path());
        assert_eq!(waiting(&kept), [(2, vec!["a"])]);
        assert!(kept.damage.unwrap().starts_with("line 2 is not understood"));
        assert!(folder.path().join("notices.log.damaged").exists());
        for (text, said) in [
            ("", "it is empty"),
            ("x", "line 1 is not its header"),
            (
                "{\"format\":\"dnscrub-notices\",\"version\":2}",
                "reads up to 1",
            ),
        ] {
            fs::write(journal.path(), text).unwrap();
            let (_, kept) = Journal::open(folder.path());
            assert!(kept.damage.unwrap().contains(said), "{text}");
        }
    }

    #[test]
    fn history_is_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path());
        journal.replace([take(1, &["a"])].into_iter()).unwrap();
        assert!(!journal.wants_replacing());
        let mut number = 2;
        while !journal.wants_replacing() {
            journal
                .add(&[take(number, &["a"]), end(number, "a")])
                .unwrap();
            number += 1;
        }
        assert!(fs::metadata(journal.path()).unwrap().len() > SMALL);
        journal.replace([take(1, &["a"])].into_iter()).unwrap();
        assert!(fs::metadata(journal.path()).unwrap().len() < 2_000);
        assert!(!journal.wants_replacing());
        journal.add(&[end(1, "a")]).unwrap();
        assert!(Journal::open(folder.path()).1.notices.is_empty());
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_is_mended_by_replacing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path());
        journal.replace([take(1, &["a"])].into_iter()).unwrap();
        std::os::unix::fs::symlink("/dev/full", folder.path().join("notices.log.new")).unwrap();
        let failure = journal.replace([take(1, &["a"]), take(2, &["a"])].into_iter());
        assert_eq!(failure.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(waiting(&Journal::open(folder.path()).1), [(1, vec!["a"])]);
        assert!(journal.wants_replacing() && journal.add(&[end(1, "a")]).is_err());
        // the failed write has removed the link: there is room again
        journal
            .replace([take(1, &["a"]), take(2, &["a"])].into_iter())
            .unwrap();
        journal.add(&[end(1, "a")]).unwrap();
        assert_eq!(waiting(&Journal::open(folder.path()).1), [(2, vec!["a"])]);
    }
}
