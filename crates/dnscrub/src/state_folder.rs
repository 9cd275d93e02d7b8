//! Files in the state folder: replaced as a whole, set aside when they are damaged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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

/// Replaces a file: written under another name, flushed to the disk, renamed over the old one, and the
/// folder flushed. So there is always one whole version of it, whenever the program or the machine
/// stops. What is written is on the disk when this returns. `mode`: its permission bits.
///
/// # Errors
/// Those of the operating system; the old file is then as it was.
pub(crate) fn replace(
    folder: &Path,
    name: &str,
    mode: u32,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let draft = folder.join(format!("{name}.new"));
    let written =
        write_draft(&draft, mode, write).and_then(|()| fs::rename(&draft, folder.join(name)));
    if written.is_err() {
        // it may not even exist; what matters is the first error
        let _ = fs::remove_file(&draft);
    }
    written?;
    File::open(folder)?.sync_all()
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

/// Renames a damaged file, so that the next save does not overwrite it. Returns its new name.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn set_aside(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let numbered = |number| match number {
        0 => folder.join(format!("{name}.damaged")),
        number => folder.join(format!("{name}.damaged-{number}")),
    };
    let free = (0..KEPT).find(|&number| !numbered(number).exists());
    let aside = numbered(free.unwrap_or(KEPT - 1));
    fs::rename(folder.join(name), &aside)?;
    Ok(aside)
}
