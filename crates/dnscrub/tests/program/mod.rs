//! The program as a process, for tests: what it is asked, and how long its answers are waited for.

#![allow(dead_code, reason = "each test asks in its own way")]

use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Waits until the condition is true, and fails when the time is over.
pub(crate) fn wait_for(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

/// What becomes of a command that speaks to the running program.
pub(crate) fn run(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dnscrub"))
        .args(arguments)
        .arg("--socket")
        .arg(socket)
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

/// What a command prints, or what it complains about.
pub(crate) fn ask(socket: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = run(socket, arguments);
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// What a command prints with `--json`.
pub(crate) fn json(socket: &Path, arguments: &[&str]) -> Value {
    let text = ask(socket, &[arguments, &["--json"]].concat()).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A child that is killed with this.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// SIGKILL: it has no time to do anything.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
