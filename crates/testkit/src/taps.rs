//! Independent readers of dnstap, from Debian's packages.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::process;

/// How long a reader may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What kdig (package `knot-dnsutils`) prints of a file with dnstap.
///
/// # Panics
/// kdig is not installed, or cannot read the file.
#[must_use]
pub fn read_by_kdig(file: &Path) -> String {
    let mut command = process::bounded_command("/usr/bin/kdig", "knot-dnsutils");
    command.arg("-G").arg(file);
    process::output(command, PATIENCE)
}

/// What dnstap (package `golang-github-dnstap-golang-dnstap-cli`) prints of a file, as YAML, one document
/// for each message.
///
/// # Panics
/// dnstap is not installed, or cannot read the file.
#[must_use]
pub fn read_by_dnstap(file: &Path) -> String {
    let mut command =
        process::bounded_command("/usr/bin/dnstap", "golang-github-dnstap-golang-dnstap-cli");
    command.arg("-y").arg("-r").arg(file);
    process::output(command, PATIENCE)
}

/// The frames of a file as fstrm_dump (package `fstrm-bin`) prints them: one a line, in quotes, with what is
/// not printable as `\x00`.
///
/// # Panics
/// fstrm_dump is not installed, or cannot read the file.
#[must_use]
pub fn frames_by_fstrm_dump(file: &Path) -> Vec<String> {
    let mut command = process::bounded_command("/usr/bin/fstrm_dump", "fstrm-bin");
    command.arg(file);
    let printed = process::output(command, PATIENCE);
    printed.lines().map(|line| line.trim().to_owned()).collect()
}

/// A running fstrm_capture (package `fstrm-bin`): takes Frame Streams at a Unix socket or a TCP port and
/// writes them to a file. It ends with this.
pub struct Capture {
    child: Child,
    folder: TempDir,
}

impl Capture {
    /// At a Unix socket.
    ///
    /// # Panics
    /// It is not installed.
    #[must_use]
    pub fn at_unix(socket: &Path) -> Self {
        Self::start(&["--unix", socket.to_str().expect("the path is one of ours")])
    }

    /// At a port on 127.0.0.1.
    ///
    /// # Panics
    /// It is not installed.
    #[must_use]
    pub fn at_port(port: u16) -> Self {
        Self::start(&["--tcp", "127.0.0.1", "--port", &port.to_string()])
    }

    fn start(place: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dnscrub-test-")
            .tempdir()
            .expect("a temporary folder");
        let mut command = process::bounded_command("/usr/bin/fstrm_capture", "fstrm-bin");
        command
            .args(place)
            .args(["--type", "protobuf:dnstap.Dnstap", "--write"])
            .arg(folder.path().join("captured"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            child: process::start(command),
            folder,
        }
    }

    /// Ends it as an operator would; what it has captured.
    ///
    /// # Panics
    /// It does not end within 30 s.
    #[must_use]
    pub fn finish(mut self) -> (PathBuf, TempDir) {
        process::signal(&mut self.child, libc::SIGTERM);
        process::wait(&mut self.child, PATIENCE).expect("fstrm_capture ends when it is told to");
        let folder = std::mem::replace(
            &mut self.folder,
            tempfile::tempdir().expect("a temporary folder"),
        );
        (folder.path().join("captured"), folder)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        process::signal(&mut self.child, libc::SIGKILL);
        let _ = self.child.wait();
    }
}
