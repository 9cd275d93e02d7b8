//! Where frames go: a file that is closed at a size, or a collector.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config::Target;
use super::frames;

/// How long a collector may take to answer or to read.
const COLLECTOR_PATIENCE: Duration = Duration::from_secs(3);
/// Queries say who asks for what: not for everybody.
const FILE_MODE: u32 = 0o640;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Where frames go.
pub(super) struct Sink {
    target: Target,
    open: Option<Open>,
    /// There is a file of ours from an earlier [`Sink::open`] to go on with.
    begun: bool,
}

enum Open {
    /// With how much is in it.
    File(File, u64),
    Collector(Box<dyn Stream>),
}

impl Sink {
    pub(super) const fn new(target: Target) -> Self {
        Self {
            target,
            open: None,
            begun: false,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Opens the file, or finds the collector and greets it.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.open = Some(match &self.target {
            Target::File { path, keep, .. } => {
                let (file, octets) = if self.begun && path.exists() {
                    let mut file = OpenOptions::new().write(true).open(path)?;
                    let octets = file.seek(SeekFrom::End(0))?;
                    (file, octets)
                } else {
                    make_way(path, *keep)?;
                    begin(path)?
                };
                self.begun = true;
                Open::File(file, octets)
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(COLLECTOR_PATIENCE))?;
                stream.set_write_timeout(Some(COLLECTOR_PATIENCE))?;
                collector(stream)?
            }
            Target::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, COLLECTOR_PATIENCE)?;
                stream.set_read_timeout(Some(COLLECTOR_PATIENCE))?;
                stream.set_write_timeout(Some(COLLECTOR_PATIENCE))?;
                collector(stream)?
            }
        });
        Ok(())
    }

    /// Writes whole frames. After an error it is closed; of a file all stays that was written before.
    pub(super) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let written = self.try_write(octets);
        if written.is_err() {
            self.open = None;
        }
        written
    }

    fn try_write(&mut self, octets: &[u8]) -> io::Result<()> {
        if let (
            Some(Open::File(file, size)),
            Target::File {
                path,
                rotate_at,
                keep,
            },
        ) = (&mut self.open, &self.target)
            && *size + octets.len() as u64 > *rotate_at
        {
            self.begun = false;
            frames::stop(file)?;
            make_way(path, *keep)?;
            (*file, *size) = begin(path)?;
            self.begun = true;
        }
        match &mut self.open {
            Some(Open::File(file, size)) => {
                let written = file.write_all(octets);
                if written.is_ok() {
                    *size += octets.len() as u64;
                } else {
                    // no half frames
                    file.set_len(*size)?;
                }
                written
            }
            Some(Open::Collector(stream)) => stream.write_all(octets),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ends the stream; a collector says that it has read everything.
    pub(super) fn close(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some(Open::File(mut file, _)) => frames::stop(&mut file),
            Some(Open::Collector(mut stream)) => frames::part(&mut *stream),
            None => Ok(()),
        }
    }
}

fn collector(mut stream: impl Stream + 'static) -> io::Result<Open> {
    frames::greet(&mut stream)?;
    Ok(Open::Collector(Box::new(stream)))
}

/// A new file with the start of a stream in it.
fn begin(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path)?;
    frames::start(&mut file)?;
    let octets = file.stream_position()?;
    Ok((file, octets))
}

/// Gives the file the name of the newest closed one, and each closed one the next name.
fn make_way(path: &Path, keep: u16) -> io::Result<()> {
    let name = |number: u16| -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name.into()
    };
    for number in (0..keep).rev() {
        match std::fs::rename(name(number), name(number + 1)) {
            Err(failure) if failure.kind() != io::ErrorKind::NotFound => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_closed_at_its_size_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taps");
        std::fs::write(&path, "of an earlier run").unwrap();
        let mut sink = Sink::new(Target::File {
            path: path.clone(),
            rotate_at: 1000,
            keep: 2,
        });
        sink.open().unwrap();
        let earlier = std::fs::read(path.with_extension("1")).unwrap();
        assert_eq!(earlier, b"of an earlier run");
        let mut frame = Vec::new();
        frames::put(&mut frame, &[7; 400]);
        for _ in 0..6 {
            sink.write(&frame).unwrap();
        }
        sink.close().unwrap();
        let sizes = ["", ".1", ".2", ".3"].map(|end| {
            let path = format!("{}{end}", path.display());
            std::fs::metadata(path).ok().map(|it| it.len())
        });
        // START of 42 octets, two frames, STOP of 12
        let whole = Some(42 + 2 * 404 + 12);
        assert_eq!(sizes, [whole, whole, whole, None]);
    }

    #[test]
    fn a_file_is_gone_on_with_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taps");
        let mut sink = Sink::new(Target::File {
            path: path.clone(),
            rotate_at: 1 << 20,
            keep: 2,
        });
        sink.open().unwrap();
        sink.write(&[1; 10]).unwrap();
        sink.open = None;
        assert!(sink.write(&[2; 10]).is_err());
        sink.open().unwrap();
        sink.write(&[3; 10]).unwrap();
        sink.close().unwrap();
        let octets = std::fs::read(&path).unwrap();
        assert_eq!(octets[42..62], [[1; 10], [3; 10]].concat());
        assert!(!path.with_extension("1").exists());
    }
}
