//! The real Prometheus Alertmanager, from Debian's package, on loopback.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process;
use crate::servers::free_port;

/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const PROGRAM: &str = "/usr/bin/prometheus-alertmanager";
const TOOL: &str = "/usr/bin/amtool";
const PACKAGE: &str = "prometheus-alertmanager";

/// An Alertmanager with a folder and a port of its own. It ends when this is dropped, and when the test
/// process dies.
#[derive(Debug)]
pub struct Alertmanager {
    child: Option<Child>,
    folder: TempDir,
    port: u16,
}

impl Alertmanager {
    /// Starts it with this configuration and waits until it is ready.
    ///
    /// # Panics
    /// It is not installed, or not ready in time; the message shows its log.
    #[must_use]
    pub fn start(configuration: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dnscrub-test-")
            .tempdir()
            .expect("a temporary folder");
        fs::write(folder.path().join("alertmanager.yml"), configuration)
            .expect("the folder is ours");
        let mut alertmanager = Self {
            child: None,
            folder,
            port: free_port(false),
        };
        alertmanager.run();
        alertmanager
    }

    /// Starts it again after [`kill`](Self::kill), with what it had on the disk.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn run(&mut self) {
        let here = self.folder.path();
        let mut command = process::bounded_command(PROGRAM, PACKAGE);
        let log = File::options()
            .create(true)
            .append(true)
            .open(here.join("log"))
            .expect("the folder is ours");
        command
            .arg(format!("--config.file={}/alertmanager.yml", here.display()))
            .arg(format!("--storage.path={}/data", here.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            .arg("--cluster.listen-address=")
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        self.child = Some(process::start(command));
        let end = Instant::now() + PATIENCE;
        while self
            .get("/-/ready")
            .is_none_or(|answer| !answer.starts_with("HTTP/1.1 200"))
        {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok());
            assert!(ended.flatten().is_none(), "it ended:\n{}", self.log());
            assert!(Instant::now() < end, "it is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it at once: from then on its port is closed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::signal(&mut child, libc::SIGKILL);
            let _ = child.wait();
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The alerts that are not resolved, in JSON.
    ///
    /// # Panics
    /// It does not answer.
    #[must_use]
    pub fn alerts(&self) -> String {
        let answer = self.get("/api/v2/alerts").expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }

    /// What `amtool` prints when it is run with these arguments and this Alertmanager.
    ///
    /// # Panics
    /// It fails.
    #[must_use]
    pub fn amtool(&self, arguments: &[&str]) -> String {
        let url = format!("--alertmanager.url=http://{}", self.address());
        let mut command = amtool();
        command.args(arguments).arg(url);
        process::output(command, PATIENCE)
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address()).ok()?;
        stream.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.replacen("HTTP/1.0", "HTTP/1.1", 1))
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What `amtool check-config` prints for a configuration file.
///
/// # Panics
/// It is not installed, or finds something wrong.
#[must_use]
pub fn check_config(path: &std::path::Path) -> String {
    let mut command = amtool();
    command.arg("check-config").arg(path);
    process::output(command, PATIENCE)
}

fn amtool() -> Command {
    process::bounded_command(TOOL, PACKAGE)
}
