//! Files in the state folder: replaced as a whole, set aside when they are damaged.

mod claim;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::error;

pub(crate) use self::claim::{Claim, claim, try_to_write};

/// Damaged files of one name that are kept; the newest replaces the last of them.
const KEPT: u32 = 10;

/// What a file in JSON begins with: what it is, and the version of its format.
#[derive(Serialize, Deserialize)]
pub(crate) struct Header {
    format: String,
    version: u32,
}

impl Header {
    pub(crate) fn new(format: &str, version: u32) -> Self {
        Self {
            format: format.to_owned(),
            version,
        }
    }

    /// Whether this program reads such a file: `newest` is the newest version that it knows.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn check(&self, format: &str, newest: u32) -> Result<(), String> {
        if self.format != format {
            let found = self.format.escape_debug();
            return Err(format!("its format is \"{found}\", expected \"{format}\""));
        }
        if self.version > newest {
            return Err(format!(
                "it has version {} of the format, this program reads up to {newest}: a newer dnscrub wrote it",
                self.version
            ));
        }
        Ok(())
    }
}

/// A whole file in JSON: its header, and beside it what it holds.
#[derive(Serialize)]
struct Headed<'a, T> {
    #[serde(flatten)]
    header: Header,
    #[serde(flatten)]
    content: &'a T,
}

/// What a file holds that [`StateFile::replace_json`] wrote; `newest` is the newest version that is read.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn from_json<T: DeserializeOwned>(
    octets: &[u8],
    format: &str,
    newest: u32,
) -> Result<T, String> {
    let illegible = |failure: serde_json::Error| format!("it is not understood: {failure}");
    let whole: serde_json::Value = serde_json::from_slice(octets).map_err(illegible)?;
    let header = Header::deserialize(&whole).map_err(illegible)?;
    header.check(format, newest)?;
    serde_json::from_value(whole).map_err(illegible)
}

/// A file that is replaced as a whole, so that there is always one whole version of it, whenever the program or
/// the machine stops.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    mode: u32,
}

impl StateFile {
    /// The file with this name, which those that dnscrub's group has may read as well.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self {
            path: folder.join(name),
            mode: 0o640,
        }
    }

    /// The same, but nobody else may read it.
    pub(crate) fn secret(folder: &Path, name: &str) -> Self {
        Self {
            mode: 0o600,
            ..Self::new(folder, name)
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its octets; nothing where there is no file.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        self.read_at_most(u64::MAX)
    }

    /// The same for a file that can have no more than so many octets.
    ///
    /// # Errors
    /// Those of the operating system; that it is larger.
    pub(crate) fn read_at_most(&self, most: u64) -> io::Result<Option<Vec<u8>>> {
        let read = fs::metadata(&self.path).and_then(|it| match it.len() {
            octets if octets > most => Err(io::Error::other(format!(
                "it has {octets} octets, at most {most} are read"
            ))),
            _ => fs::read(&self.path),
        });
        match read {
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Replaces it: written under another name, flushed to the disk, renamed over the old one, and the folder
    /// flushed. What is written is on the disk when this returns.
    ///
    /// # Errors
    /// Those of the operating system; the old file is then as it was.
    pub(crate) fn replace(
        &self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let draft = self.beside(".new");
        let written =
            write_draft(&draft, self.mode, write).and_then(|()| fs::rename(&draft, &self.path));
        if written.is_err() {
            // it may not even exist; what matters is the first error
            let _ = fs::remove_file(&draft);
        }
        written?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    /// Replaces it by a header and the fields of `content`, in JSON.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub(crate) fn replace_json(
        &self,
        format: &str,
        version: u32,
        content: &impl Serialize,
    ) -> io::Result<()> {
        let header = Header::new(format, version);
        self.replace(|out| {
            serde_json::to_writer(out, &Headed { header, content }).map_err(io::Error::from)
        })
    }

    /// Renames it because of this damage, so that the next save does not overwrite it, and says so in the log.
    /// `what`: what it is, and what comes of the damage.
    pub(crate) fn set_aside(&self, damage: &str, what: &str) {
        let path = self.path.display();
        let numbered = |number| match number {
            0 => self.beside(".damaged"),
            number => self.beside(&format!(".damaged-{number}")),
        };
        let free = (0..KEPT).find(|&number| !numbered(number).exists());
        let aside = numbered(free.unwrap_or(KEPT - 1));
        match fs::rename(&self.path, &aside) {
            Ok(()) => error!(%path, damage, aside = %aside.display(), "{what}; it is set aside"),
            Err(failure) => error!(%path, damage, %failure, "{what}; it cannot be set aside"),
        }
    }

    /// The path of a file beside it.
    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(ending);
        PathBuf::from(path)
    }
}

fn write_draft(
    draft: &Path,
    mode: u32,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(draft)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    write(&mut out)?;
    out.flush()?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_no_draft_is_left() {
        let folder = tempfile::tempdir().unwrap();
        for (file, mode) in [
            (StateFile::new(folder.path(), "it"), 0o640),
            (StateFile::secret(folder.path(), "mine"), 0o600),
        ] {
            assert_eq!(file.read().unwrap(), None);
            for content in ["long", "er"] {
                file.replace(|out| out.write_all(content.as_bytes()))
                    .unwrap();
                assert_eq!(file.read().unwrap().unwrap(), content.as_bytes());
            }
            let permissions = fs::metadata(file.path()).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777 & !mode, 0);
            assert_eq!(file.read_at_most(2).unwrap().unwrap(), b"er");
            let failure = file.read_at_most(1).unwrap_err().to_string();
            assert_eq!(failure, "it has 2 octets, at most 1 are read");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), "it");
        file.replace(|out| out.write_all(b"old")).unwrap();
        // a device that is always full stands where the draft is written
        std::os::unix::fs::symlink("/dev/full", folder.path().join("it.new")).unwrap();
        let failure = file.replace(|out| out.write_all(b"new")).unwrap_err();
        assert_eq!(failure.kind(), io::ErrorKind::StorageFull, "{failure}");
        assert_eq!(file.read().unwrap().unwrap(), b"old");
        // the link is gone with the draft
        file.replace(|out| out.write_all(b"new")).unwrap();
        assert_eq!(file.read().unwrap().unwrap(), b"new");
    }

    #[test]
    fn files_set_aside_keep_their_content_and_do_not_pile_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), "it.json");
        for round in 0..15 {
            fs::write(file.path(), round.to_string()).unwrap();
            file.set_aside("it is empty", "it is damaged");
            let aside = match round {
                0 => "it.json.damaged".to_owned(),
                number => format!("it.json.damaged-{}", number.min(9)),
            };
            let kept = fs::read_to_string(folder.path().join(aside)).unwrap();
            assert_eq!(kept, round.to_string());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 10);
    }

    #[test]
    fn json_is_told_from_that_of_others_and_from_that_of_newer_programs() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), "it.json");
        let content = serde_json::json!({ "numbers": [1, 2] });
        file.replace_json("it", 3, &content).unwrap();
        let octets = file.read().unwrap().unwrap();
        let text = String::from_utf8_lossy(&octets);
        assert_eq!(text, "{\"format\":\"it\",\"version\":3,\"numbers\":[1,2]}");
        let read = |octets: &[u8], format, newest| {
            let read = from_json::<serde_json::Value>(octets, format, newest);
            read.map(|whole| whole["numbers"].clone())
        };
        assert_eq!(read(&octets, "it", 3).as_ref(), Ok(&content["numbers"]));
        for (octets, format, newest, said) in [
            (&octets[..], "other", 3, "its format is \"it\""),
            (&octets[..], "it", 2, "a newer dnscrub wrote it"),
            (&octets[..9], "it", 3, "it is not understood: EOF"),
            (b"{}", "it", 3, "missing field `format`"),
        ] {
            let damage = read(octets, format, newest).unwrap_err();
            assert!(damage.contains(said), "{damage}");
        }
    }
}
