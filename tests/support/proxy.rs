//! The program in this process, with real sockets and threads.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use dnscrub::config::runtime::{self, Surroundings};
use dnscrub::config::{Disk, Problems};
use dnscrub::control::server::{self, ControlServer};
use dnscrub::counters::WorkerCounters;
use dnscrub::outcome::Reason;
use dnscrub::program::{self, Running, StartError};
use dnscrub::supervisor::{ReloadReport, Supervisor};
use dnscrub_scoring::Transport;
use dnscrub_testkit::servers::free_port;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::books::count_of;
use crate::{Books, wait_until};

/// Free ports that are tried: somebody else may take one between our look and the program's.
const START_ATTEMPTS: usize = 5;
/// What the file `token` in a proxy's folder says.
pub const TOKEN: &str = "0123456789abcdef";

/// A running dnscrub with a folder and a port of its own. It ends with this.
pub struct Proxy {
    runtime: Runtime,
    running: Option<Running>,
    folder: TempDir,
    listen: String,
    port: u16,
}

impl Proxy {
    /// Listens on 127.0.0.1 and, where the machine has it, on ::1, on the same free port; the rest
    /// of the configuration is `yaml`.
    ///
    /// # Panics
    /// The program does not start.
    #[must_use]
    pub fn start(yaml: &str) -> Self {
        let ipv6 = if has_ipv6() { ", \"[::1]:PORT\"" } else { "" };
        Self::listening(&format!("\"127.0.0.1:PORT\"{ipv6}"), yaml)
    }

    /// Listens on these addresses, a YAML list's inside with `PORT` for the free port.
    ///
    /// # Panics
    /// The program does not start.
    #[must_use]
    pub fn listening(addresses: &str, yaml: &str) -> Self {
        Self::attempt(addresses, "", yaml)
    }

    /// [`start`](Self::start) with `control.http` set to this; the file `token` has [`TOKEN`].
    ///
    /// # Panics
    /// The program does not start.
    #[must_use]
    pub fn with_status_page(http: &str, yaml: &str) -> Self {
        Self::attempt("\"127.0.0.1:PORT\"", &format!(", http: {http}"), yaml)
    }

    fn attempt(addresses: &str, control: &str, yaml: &str) -> Self {
        let mut failure = String::new();
        for _ in 0..START_ATTEMPTS {
            match Self::try_start(addresses, control, yaml, free_port(has_ipv6())) {
                Ok(proxy) => return proxy,
                Err(StartError::System(text)) if text.contains("in use") => failure = text,
                Err(other) => panic!("{other}"),
            }
        }
        panic!("{failure}");
    }

    fn try_start(
        addresses: &str,
        control: &str,
        yaml: &str,
        port: u16,
    ) -> Result<Self, StartError> {
        let folder = tempfile::Builder::new()
            .prefix("dnscrub-test-")
            .tempdir()
            .expect("a temporary folder");
        let here = folder.path().display();
        let addresses = addresses.replace("PORT", &port.to_string());
        let listen = format!(
            "listen: [ {{ name: main, address: [ {addresses} ] }} ]\n\
             control: {{ socket: \"{here}/control.sock\"{control} }}\n\
             state: {{ folder: \"{here}/state\" }}\n\
             log: {{ level: warn }}\n"
        );
        let path = folder.path().join("dnscrub.yaml");
        std::fs::write(&path, format!("{listen}{yaml}")).expect("the folder is ours");
        std::fs::write(folder.path().join("token"), TOKEN).expect("the folder is ours");
        let configuration = runtime::load(&path, &Disk, Surroundings::at_start())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let running = {
            let _inside = runtime.enter();
            program::start(path, configuration)?
        };
        Ok(Self {
            runtime,
            running: Some(running),
            folder,
            listen,
            port,
        })
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where it listens on ::1; `None` on a machine without IPv6.
    #[must_use]
    pub fn address_v6(&self) -> Option<SocketAddr> {
        has_ipv6().then(|| (Ipv6Addr::LOCALHOST, self.port).into())
    }

    /// A file in its folder, which paths in the configuration are relative to.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes another configuration and has it loaded; what is before `yaml` stays.
    ///
    /// # Errors
    /// Those of the reload.
    pub fn reload(&self, yaml: &str) -> Result<ReloadReport, Problems> {
        self.reload_whole(&format!("{}{yaml}", self.listen))
    }

    /// Writes another configuration, `listen` included, and has it loaded. `SAME` stands for all
    /// that [`start`](Self::start) puts before the configuration given to it.
    ///
    /// # Errors
    /// Those of the reload.
    pub fn reload_whole(&self, yaml: &str) -> Result<ReloadReport, Problems> {
        let path = &self.supervisor().config_path;
        std::fs::write(path, yaml.replace("SAME\n", &self.listen)).expect("the folder is ours");
        self.runtime.block_on(self.supervisor().reload())
    }

    /// The control side.
    #[must_use]
    pub fn supervisor(&self) -> &Arc<Supervisor> {
        let running = self.running.as_ref();
        &running.expect("it runs until it is dropped").supervisor
    }

    /// Has the control side listen, which it does until what is returned is dropped.
    ///
    /// # Panics
    /// It cannot.
    #[must_use]
    pub fn listen_for_control(&self) -> ControlServer {
        self.runtime
            .block_on(server::start(self.supervisor()))
            .unwrap_or_else(|failure| panic!("{failure}"))
    }

    fn workers(&self) -> impl Iterator<Item = &WorkerCounters> {
        self.supervisor().shared.counters.iter().map(AsRef::as_ref)
    }

    /// What became of the queries so far.
    #[must_use]
    pub fn books(&self, transport: Transport) -> Books {
        Books::of(self.workers(), transport)
    }

    /// Queries over UDP that ended for this reason.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        self.count_over(Transport::Udp, reason)
    }

    /// Queries over this transport that ended for this reason.
    #[must_use]
    pub fn count_over(&self, transport: Transport, reason: Reason) -> u64 {
        self.sum(|worker| count_of(worker, transport, reason))
    }

    /// One number out of every worker's counters, summed.
    #[must_use]
    pub fn sum(&self, number: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.workers().map(number).sum()
    }

    /// The books once every query has ended.
    ///
    /// # Panics
    /// They do not balance within a minute.
    #[must_use]
    pub fn settled(&self, transport: Transport) -> Books {
        wait_until("every query ends in one outcome", || {
            let in_flight = match transport {
                Transport::Udp => self.sum(|worker| worker.in_flight_udp.get()),
                Transport::Tcp => self.sum(|worker| worker.in_flight_tcp.get()),
            };
            let queued = self.sum(|worker| worker.queued.get());
            in_flight + queued == 0 && self.books(transport).open() == 0
        });
        self.books(transport)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
