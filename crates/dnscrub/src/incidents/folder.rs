//! The files of the incidents: one JSON file each, in the folder `incidents` of the state folder.
//!
//! A file is replaced as a whole. One that is damaged is set aside under another name and told of; its number is
//! not used again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dnscrub_detection::Incident;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::state_folder::{StateFile, from_json};

/// Name in the state folder.
const NAME: &str = "incidents";
/// What a file's `format` says.
const FORMAT: &str = "dnscrub-incident";
/// Version of the format that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Octets of a file that is read; what is larger is none of ours.
const LARGEST: u64 = 16 << 20;

/// A file, behind its header.
#[derive(Serialize, Deserialize)]
struct Content<T> {
    incident: T,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// What was found in the folder.
#[derive(Debug, Default)]
pub struct Found {
    /// The incidents that could be read.
    pub incidents: BTreeMap<u64, Incident>,
    /// The highest number that was ever used, as far as names of files tell.
    pub last: u64,
}

impl Folder {
    /// The folder inside `state`, and what is in it. It is created with the first record, so that a program that
    /// may not write there runs nonetheless.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn open(state: &Path) -> io::Result<(Self, Found)> {
        let folder = Self(state.join(NAME));
        let mut found = Found::default();
        let entries = match fs::read_dir(&folder.0) {
            Ok(entries) => entries,
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => {
                return Ok((folder, found));
            }
            Err(failure) => return Err(failure),
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let Some((number, rest)) = number_of(name) else {
                continue;
            };
            found.last = found.last.max(number);
            if rest != "json" {
                continue;
            }
            match folder.read(name, number) {
                Ok(incident) => {
                    found.incidents.insert(number, incident);
                }
                Err(damage) => folder
                    .file(name)
                    .set_aside(&damage, "the record of an incident is damaged"),
            }
        }
        Ok((folder, found))
    }

    /// The record of an incident.
    ///
    /// # Errors
    /// In words, with the file.
    pub fn read_one(&self, number: u64) -> Result<Incident, String> {
        let name = name_of(number);
        self.read(&name, number)
            .map_err(|damage| format!("{}: {damage}", self.0.join(&name).display()))
    }

    fn read(&self, name: &str, number: u64) -> Result<Incident, String> {
        let octets = self.file(name).read_at_most(LARGEST);
        let octets = octets.map_err(|failure| failure.to_string())?;
        let octets = octets.ok_or("there is no such file")?;
        let Content::<Incident> { incident } = from_json(&octets, FORMAT, VERSION)?;
        if incident.number != number {
            return Err(format!("it holds incident {}", incident.number));
        }
        Ok(incident)
    }

    fn file(&self, name: &str) -> StateFile {
        StateFile::new(&self.0, name)
    }

    /// Replaces the file of an incident. It is on the disk when this returns.
    ///
    /// # Errors
    /// Those of the operating system; the old file is then as it was.
    pub fn write(&self, incident: &Incident) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let file = self.file(&name_of(incident.number));
        file.replace_json(FORMAT, VERSION, &Content { incident })
    }

    /// Removes the file of an incident.
    pub fn remove(&self, number: u64) {
        let path = self.0.join(name_of(number));
        if let Err(failure) = fs::remove_file(&path)
            && failure.kind() != io::ErrorKind::NotFound
        {
            warn!(path = %path.display(), %failure, "the record of an old incident cannot be removed");
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn name_of(number: u64) -> String {
    format!("{number:06}.json")
}

/// The number that a file's name begins with, and what comes behind its point.
fn number_of(name: &str) -> Option<(u64, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incidents::testing::incident;

    #[test]
    fn what_is_written_is_read_and_damage_is_set_aside() {
        let state = tempfile::tempdir().unwrap();
        let (folder, found) = Folder::open(state.path()).unwrap();
        assert_eq!((found.incidents.len(), found.last), (0, 0));
        for number in [1, 2, 3] {
            folder.write(&incident(number)).unwrap();
        }
        let path = |name: &str| folder.path().join(name);
        let whole = fs::read(path("000002.json")).unwrap();
        fs::write(path("000002.json"), &whole[..whole.len() / 2]).unwrap();
        fs::copy(path("000001.json"), path("000009.json")).unwrap();
        fs::write(path("notes.txt"), "of somebody else").unwrap();
        let (_, found) = Folder::open(state.path()).unwrap();
        assert_eq!(found.incidents.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(found.incidents[&3], incident(3));
        assert_eq!(
            found.last, 9,
            "the number of a damaged one is not used again"
        );
        assert!(path("000002.json.damaged").exists() && path("000009.json.damaged").exists());
        assert!(path("notes.txt").exists());
        let (folder, found) = Folder::open(state.path()).unwrap();
        assert_eq!((found.incidents.len(), found.last), (2, 9));
        folder.remove(1);
        folder.remove(1);
        let (_, found) = Folder::open(state.path()).unwrap();
        assert_eq!(found.incidents.len(), 1);
    }

    #[test]
    fn every_damage_is_noticed_or_harmless() {
        let state = tempfile::tempdir().unwrap();
        let (folder, _) = Folder::open(state.path()).unwrap();
        folder.write(&incident(7)).unwrap();
        let path = folder.path().join("000007.json");
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(folder.read("000007.json", 7).is_err(), "cut at {cut}");
        }
        for (from, to, said) in [
            (
                "dnscrub-incident",
                "dnscrub-blocklist",
                "its format is \"dnscrub-blocklist\"",
            ),
            ("\"version\":1", "\"version\":9", "a newer dnscrub wrote it"),
            ("\"number\":7", "\"number\":8", "it holds incident 8"),
        ] {
            let other = String::from_utf8(whole.clone())
                .unwrap()
                .replacen(from, to, 1);
            fs::write(&path, other).unwrap();
            let damage = folder.read("000007.json", 7).unwrap_err();
            assert!(damage.contains(said), "{damage}");
        }
    }
}
