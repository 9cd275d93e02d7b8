//! A BGP session between ExaBGP and GoBGP, from Debian's packages, in two network namespaces. Needs root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process;

/// How long one call of a tool may take.
const CALL: Duration = Duration::from_secs(20);
/// How long a program may take to end when asked politely.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Two namespaces with a link between them, a GoBGP in the one, and room for an ExaBGP in the other. All
/// of it goes when this is dropped.
pub struct BgpLab {
    node: Namespace,
    router: Namespace,
    folder: TempDir,
    gobgpd: Option<Child>,
    exabgp: Option<Child>,
}

/// A network namespace, removed when dropped.
struct Namespace(String);

impl Namespace {
    fn new(side: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let name = format!("dnscrub-{}-{number}-{side}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self(name);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// `ip` inside.
    fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", self.0.as_str()], arguments].concat());
    }

    fn command(&self, program: &str) -> Command {
        let mut command = process::bounded_command("/usr/sbin/ip", "iproute2");
        command.args(["netns", "exec", &self.0, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("/usr/sbin/ip")
            .args(["netns", "del", &self.0])
            .status();
    }
}

fn ip(arguments: &[&str]) {
    let mut command = process::bounded_command("/usr/sbin/ip", "iproute2");
    command.args(arguments);
    process::output(command, CALL);
}

fn needed(program: &str, package: &str) -> String {
    let found = ["/usr/sbin", "/usr/bin"]
        .map(|folder| format!("{folder}/{program}"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    found.unwrap_or_else(|| panic!("{program} is not there: install the Debian package {package}"))
}

impl BgpLab {
    /// A link with these addresses (`ADDRESS/LENGTH`), the node's and the router's, and a GoBGP with this
    /// configuration at the router's end.
    ///
    /// # Panics
    /// A tool is missing, or this is not run as root.
    #[must_use]
    pub fn start(links: &[(&str, &str)], gobgpd: &str) -> Self {
        let (node, router) = (Namespace::new("node"), Namespace::new("router"));
        node.ip(&[
            "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", &router.0,
        ]);
        for (own, other) in links {
            // an IPv6 address that is still being checked for duplicates cannot be bound
            for (namespace, address) in [(&node, own), (&router, other)] {
                let mut arguments = vec!["address", "add", address, "dev", "link0"];
                if address.contains(':') {
                    arguments.push("nodad");
                }
                namespace.ip(&arguments);
            }
        }
        node.ip(&["link", "set", "link0", "up"]);
        router.ip(&["link", "set", "link0", "up"]);
        let folder = tempfile::Builder::new()
            .prefix("dnscrub-bgp-")
            .tempdir()
            .expect("a temporary folder");
        let mut lab = Self {
            node,
            router,
            folder,
            gobgpd: None,
            exabgp: None,
        };
        let path = lab.write("gobgpd.toml", gobgpd);
        let mut command = lab.router.command(&needed("gobgpd", "gobgpd"));
        command.arg("-f").arg(path);
        lab.gobgpd = Some(lab.run(command, "gobgpd.log"));
        lab
    }

    /// A folder of its own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts ExaBGP with this configuration at the node's end, in the place of the one that runs.
    pub fn start_exabgp(&mut self, conf: &str) {
        self.stop_exabgp();
        let path = self.write("exabgp.conf", conf);
        let mut command = self.node.command(&needed("exabgp", "exabgp"));
        command
            .arg(path)
            .env("exabgp_daemon_user", "root")
            .env("exabgp_api_cli", "false")
            .env("exabgp_log_destination", "stdout");
        self.exabgp = Some(self.run(command, "exabgp.log"));
    }

    /// Ends ExaBGP.
    pub fn stop_exabgp(&mut self) {
        if let Some(mut exabgp) = self.exabgp.take() {
            end(&mut exabgp);
        }
    }

    /// Process ids of what ExaBGP has started.
    #[must_use]
    pub fn exabgp_children(&self) -> Vec<u32> {
        let Some(exabgp) = &self.exabgp else {
            return Vec::new();
        };
        let id = exabgp.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        children
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect()
    }

    /// Starts a program at the node's end. It is to be ended by [`end`].
    #[must_use]
    pub fn start_in_node(&self, program: &Path, arguments: &[&str], log: &str) -> Child {
        let mut command = self.node.command(&program.display().to_string());
        command.args(arguments);
        self.run(command, log)
    }

    /// GoBGP's routes of this family (such as `ipv4-flowspec`), as its JSON; empty where there are none, or
    /// it does not answer yet.
    #[must_use]
    pub fn routes(&self, family: &str) -> String {
        let mut command = self.router.command(&needed("gobgp", "gobgpd"));
        command.args(["global", "rib", "-a", family, "-j"]);
        process::output_of_any_end(command, CALL)
    }

    /// Waits until GoBGP's routes of this family are as wanted, and returns them.
    ///
    /// # Panics
    /// They are not within a minute; the message shows all logs.
    pub fn wait(&self, what: &str, family: &str, is: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let routes = self.routes(family);
            if is(&routes) {
                return routes;
            }
            assert!(
                Instant::now() < end,
                "{what}: not within a minute. Routes of {family}: {routes}\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the programs have logged.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.folder.path()).expect("the folder is ours") {
            let path = entry.expect("the folder is ours").path();
            if path.extension().is_some_and(|it| it == "log") {
                let log = fs::read_to_string(&path).unwrap_or_default();
                text.push_str(&format!("--- {}\n{log}\n", path.display()));
            }
        }
        text
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    fn run(&self, mut command: Command, log: &str) -> Child {
        let path = self.folder.path().join(log);
        let log = File::options()
            .create(true)
            .append(true)
            .open(path)
            .expect("the folder is ours");
        command
            .stdout(log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from))
            .stderr(log);
        process::start(command)
    }
}

/// Ends a child: politely, and after some seconds not so.
pub fn end(child: &mut Child) {
    process::signal(child, libc::SIGTERM);
    if process::wait(child, END_PATIENCE).is_none() {
        kill(child);
    }
}

/// Kills a child at once.
pub fn kill(child: &mut Child) {
    process::signal(child, libc::SIGKILL);
    let _ = child.wait();
}

/// Stops a child in its tracks.
pub fn freeze(child: &mut Child) {
    process::signal(child, libc::SIGSTOP);
}

/// Lets it go on.
pub fn thaw(child: &mut Child) {
    process::signal(child, libc::SIGCONT);
}

impl Drop for BgpLab {
    fn drop(&mut self) {
        self.stop_exabgp();
        if let Some(mut gobgpd) = self.gobgpd.take() {
            end(&mut gobgpd);
        }
    }
}

impl std::fmt::Debug for BgpLab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BgpLab")
            .field("node", &self.node.0)
            .field("router", &self.router.0)
            .finish_non_exhaustive()
    }
}
