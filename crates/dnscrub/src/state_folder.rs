//! Files in the state folder: replaced as a whole, set aside when they are damaged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Damaged files of one name that are kept; the newest replaces the last of them.
const KEPT: u32 = 10;

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
