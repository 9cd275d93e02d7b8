//! Real authoritative servers, from Debian's packages, on loopback.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dnscrub_wire::qtype;
use hickory_proto::rr::RData;
use tempfile::TempDir;

use crate::{message, process};

/// How long a server may take until it answers, or until it serves a new zone.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server may take to end when asked politely.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// How long one answer may take; a busy machine is no dead server, and a closed port tells at once.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Free ports that are tried: somebody else may take one between our look and the server's start.
const START_ATTEMPTS: usize = 5;

/// A running NSD or BIND: its own temporary folder, one free port on 127.0.0.1 and, where the
/// machine has it, ::1; UDP and TCP; zone transfers to loopback. It ends when this is dropped, and
/// when the test process dies.
pub struct RealServer {
    software: Software,
    child: Child,
    folder: TempDir,
    port: u16,
    has_ipv6: bool,
    origin: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Software {
    Nsd,
    Bind,
}

impl RealServer {
    /// Starts Debian's NSD (package `nsd`) with one zone, its response rate limiting off, because
    /// behind a proxy all clients are one client to it.
    ///
    /// # Panics
    /// NSD is not installed, or does not answer for the zone's SOA record within 20 s; the message
    /// shows its log.
    #[must_use]
    pub fn nsd(origin: &str, zone: &str) -> Self {
        Self::nsd_with(
            origin,
            zone,
            "rrl-ratelimit: 0\nrrl-whitelist-ratelimit: 0\n",
        )
    }

    /// [`nsd`](Self::nsd), with further lines for the `server:` clause of nsd.conf instead of
    /// those that switch its rate limiting off.
    ///
    /// # Panics
    /// As [`nsd`](Self::nsd).
    #[must_use]
    pub fn nsd_with(origin: &str, zone: &str, server_lines: &str) -> Self {
        Self::start(Software::Nsd, origin, zone, server_lines)
    }

    /// [`nsd`](Self::nsd), with zone transfers only to those who sign with this key: its name, and
    /// its secret for HMAC-SHA-256 in Base64. NSD signs the first and the last message of a transfer
    /// and few in between.
    ///
    /// # Panics
    /// As [`nsd`](Self::nsd).
    #[must_use]
    pub fn nsd_with_key(origin: &str, zone: &str, key: (&str, &str)) -> Self {
        let (name, secret) = key;
        let lines = format!(
            "rrl-ratelimit: 0\nrrl-whitelist-ratelimit: 0\n\
             {NSD_KEY}{name}\"\nalgorithm: hmac-sha256\nsecret: \"{secret}\"\n"
        );
        Self::nsd_with(origin, zone, &lines)
    }

    /// Starts Debian's BIND (package `bind9`) with one zone.
    ///
    /// # Panics
    /// BIND is not installed, or does not answer for the zone's SOA record within 20 s; the message
    /// shows its log.
    #[must_use]
    pub fn bind(origin: &str, zone: &str) -> Self {
        Self::bind_with(origin, zone, "")
    }

    /// [`bind`](Self::bind), with further lines for the `options` block of named.conf.
    ///
    /// # Panics
    /// As [`bind`](Self::bind).
    #[must_use]
    pub fn bind_with(origin: &str, zone: &str, option_lines: &str) -> Self {
        Self::start(Software::Bind, origin, zone, option_lines)
    }

    /// [`bind_with`](Self::bind_with), with zone transfers only to those who sign with this key: its
    /// name, and its secret for HMAC-SHA-256 in Base64.
    ///
    /// # Panics
    /// As [`bind`](Self::bind).
    #[must_use]
    pub fn bind_with_key(origin: &str, zone: &str, key: (&str, &str), option_lines: &str) -> Self {
        let (name, secret) = key;
        let lines = format!(
            "allow-transfer {{ key \"{name}\"; }};\n{option_lines}\n}};\n\
             key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; "
        );
        Self::start(Software::Bind, origin, zone, &lines)
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where it listens on ::1; `None` on a machine without IPv6.
    #[must_use]
    pub fn address_v6(&self) -> Option<SocketAddr> {
        self.has_ipv6
            .then(|| (Ipv6Addr::LOCALHOST, self.port).into())
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(self.folder.path())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Serves another text for the zone and waits until the new serial, which must differ from the
    /// old one, is there, and nobody serves the old one any more: NSD starts new processes with the
    /// new zone, and its old ones answer beside them until they have ended.
    ///
    /// # Panics
    /// It is not there within 20 s.
    pub fn replace_zone(&mut self, zone: &str) {
        let before = soa_serial(self.address(), &self.origin);
        let mut old = process::workers(&self.child);
        write_zone(self.folder.path(), &self.origin, zone);
        process::signal(&mut self.child, libc::SIGHUP);
        let end = Instant::now() + PATIENCE;
        loop {
            let now = soa_serial(self.address(), &self.origin);
            old.retain(|&pid| process::runs(pid));
            if now.is_some() && now != before && old.is_empty() {
                return;
            }
            assert!(
                Instant::now() < end,
                "the zone did not change:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it in its tracks: the sockets stay open, nothing is answered.
    pub fn freeze(&mut self) {
        process::signal(&mut self.child, libc::SIGSTOP);
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub fn thaw(&mut self) {
        process::signal(&mut self.child, libc::SIGCONT);
    }

    /// Kills it at once: from then on its port is closed.
    pub fn kill(&mut self) {
        process::signal(&mut self.child, libc::SIGKILL);
        self.child.wait().expect("our own child can be waited for");
    }

    /// Starts it again after [`kill`](Self::kill), as it was and at the same port.
    ///
    /// # Panics
    /// It does not answer within 20 s.
    pub fn start_again(&mut self) {
        self.child = process::start(launch(self.software, self.folder.path()));
        if let Err(reason) = self.wait_until_it_answers() {
            panic!(
                "{:?} does not come back: {reason}\n{}",
                self.software,
                self.log()
            );
        }
    }

    fn start(software: Software, origin: &str, zone: &str, lines: &str) -> Self {
        let has_ipv6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        let mut failure = String::new();
        for _ in 0..START_ATTEMPTS {
            let port = free_port(has_ipv6);
            let folder = tempfile::Builder::new()
                .prefix("dnscrub-test-")
                .tempdir()
                .expect("a temporary folder");
            write_zone(folder.path(), origin, zone);
            match software {
                Software::Nsd => configure_nsd(folder.path(), port, has_ipv6, origin, lines),
                Software::Bind => configure_named(folder.path(), port, has_ipv6, origin, lines),
            }
            let child = process::start(launch(software, folder.path()));
            let mut server = Self {
                software,
                child,
                folder,
                port,
                has_ipv6,
                origin: origin.to_owned(),
            };
            match server.wait_until_it_answers() {
                Ok(()) => return server,
                Err(reason) => {
                    failure = format!("{reason}\n{}", server.log());
                }
            }
            // Only a lost race for the port is worth another try.
            if !failure.contains("in use") {
                break;
            }
        }
        panic!("{software:?} does not serve {origin}: {failure}");
    }

    fn wait_until_it_answers(&mut self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended: {status}"));
            }
            if soa_serial(self.address(), &self.origin).is_some() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("no answer within {PATIENCE:?}"));
            }
            // A closed port answers at once.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        process::signal(&mut self.child, libc::SIGCONT);
        process::signal(&mut self.child, libc::SIGTERM);
        if process::wait(&mut self.child, END_PATIENCE).is_none() {
            process::signal(&mut self.child, libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

impl std::fmt::Debug for RealServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealServer")
            .field("software", &self.software)
            .field("address", &self.address())
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// A port that is free for UDP and TCP on 127.0.0.1 and, when asked, on ::1. It is not reserved, but
/// nobody gets it by chance: it is below those that the kernel gives to sockets that ask for any
/// (`ip_local_port_range`, 32,768 and up where nobody changed it), and no other call in this process
/// returns it.
///
/// # Panics
/// There is none in many tries.
#[must_use]
pub fn free_port(ipv6: bool) -> u16 {
    const PORTS: std::ops::Range<u16> = 10_000..32_768;
    static TAKEN: OnceLock<AtomicU16> = OnceLock::new();
    let hosts: &[IpAddr] = if ipv6 {
        &[
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]
    } else {
        &[IpAddr::V4(Ipv4Addr::LOCALHOST)]
    };
    let span = PORTS.end - PORTS.start;
    // processes begin at different places
    let taken = TAKEN.get_or_init(|| {
        let chance = RandomState::new().hash_one(std::process::id());
        AtomicU16::new(u16::try_from(chance % u64::from(span)).unwrap_or_default())
    });
    for _ in 0..1_000 {
        let port = PORTS.start + taken.fetch_add(1, Relaxed) % span;
        let free = |&host: &IpAddr| {
            UdpSocket::bind((host, port)).is_ok() && TcpListener::bind((host, port)).is_ok()
        };
        if hosts.iter().all(free) {
            return port;
        }
    }
    panic!("no port is free for both UDP and TCP");
}

/// The serial that the server gives for `origin` over UDP; `None` when it does not answer in
/// a second, or not with an SOA record.
#[must_use]
pub fn soa_serial(server: SocketAddr, origin: &str) -> Option<u32> {
    let local: IpAddr = if server.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    let socket = UdpSocket::bind((local, 0)).ok()?;
    socket.connect(server).ok()?;
    socket.set_read_timeout(Some(PROBE_TIMEOUT)).ok()?;
    socket
        .send(&message::query(origin, qtype::SOA).id(0x50a).build())
        .ok()?;
    let mut buffer = [0; 1232];
    let len = socket.recv(&mut buffer).ok()?;
    let answer = hickory_proto::op::Message::from_vec(&buffer[..len]).ok()?;
    answer.answers.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    })
}

const ZONE_FILE: &str = "zone.db";
/// How a key's clause begins in nsd.conf, up to its name.
const NSD_KEY: &str = "key:\nname: \"";
const NSD_CONF: &str = "nsd.conf";
const NAMED_CONF: &str = "named.conf";
const LOG_FILE: &str = "server.log";

/// Written aside and renamed: the server never reads half a zone.
fn write_zone(folder: &Path, origin: &str, zone: &str) {
    let aside = folder.join("zone.new");
    let text = format!(
        "$ORIGIN {}.\n$TTL 3600\n{zone}\n",
        origin.trim_end_matches('.')
    );
    fs::write(&aside, text).expect("the folder is ours");
    fs::rename(&aside, folder.join(ZONE_FILE)).expect("the folder is ours");
}

fn read_log(folder: &Path) -> String {
    fs::read_to_string(folder.join(LOG_FILE)).unwrap_or_default()
}

fn configure_nsd(folder: &Path, port: u16, ipv6: bool, origin: &str, lines: &str) {
    let here = folder.display();
    let mut conf = format!(
        "server:\n\
         username: \"\"\nchroot: \"\"\ndatabase: \"\"\n\
         zonesdir: \"{here}\"\nxfrdir: \"{here}\"\npidfile: \"{here}/nsd.pid\"\n\
         xfrdfile: \"{here}/xfrd.state\"\nzonelistfile: \"{here}/zone.list\"\n\
         port: {port}\nserver-count: 1\nip-address: 127.0.0.1\n"
    );
    if ipv6 {
        conf.push_str("ip-address: ::1\n");
    }
    // with a key there, transfers need it
    let key = lines
        .split_once(NSD_KEY)
        .and_then(|(_, key)| key.split('"').next())
        .unwrap_or("NOKEY");
    let _ = write!(
        conf,
        "{lines}\nremote-control:\ncontrol-enable: no\n\
         zone:\nname: \"{origin}\"\nzonefile: \"{ZONE_FILE}\"\n\
         provide-xfr: 127.0.0.1 {key}\nprovide-xfr: ::1 {key}\n"
    );
    fs::write(folder.join(NSD_CONF), conf).expect("the folder is ours");
}

fn configure_named(folder: &Path, port: u16, ipv6: bool, origin: &str, lines: &str) {
    let here = folder.display();
    // what stands in the lines may not stand here too
    let usual = |name: &str, value: &str| {
        let there = lines
            .lines()
            .any(|line| line.trim_start().starts_with(name));
        if there {
            String::new()
        } else {
            format!("{name} {value};\n")
        }
    };
    let notify = usual("notify", "no");
    let transfers = usual("allow-transfer", "{ 127.0.0.1; ::1; }");
    let ipv6_hosts = if ipv6 { "::1;" } else { "none;" };
    let conf = format!(
        "options {{\n\
         directory \"{here}\";\npid-file \"{here}/named.pid\";\nsession-keyfile \"{here}/session.key\";\n\
         managed-keys-directory \"{here}\";\n\
         listen-on port {port} {{ 127.0.0.1; }};\nlisten-on-v6 port {port} {{ {ipv6_hosts} }};\n\
         recursion no;\ndnssec-validation no;\n{notify}\
         allow-query {{ any; }};\n{transfers}{lines}\n}};\n\
         controls {{ }};\n\
         zone \"{origin}\" {{ type primary; file \"{here}/{ZONE_FILE}\"; }};\n"
    );
    fs::write(folder.join(NAMED_CONF), conf).expect("the folder is ours");
}

/// The command that runs it in the foreground, as it is configured in its folder.
fn launch(software: Software, folder: &Path) -> Command {
    let command = match software {
        Software::Nsd => {
            let mut command = process::bounded_command("/usr/sbin/nsd", "nsd");
            command.arg("-d").arg("-c").arg(folder.join(NSD_CONF));
            command
        }
        Software::Bind => {
            let mut command = process::bounded_command("/usr/sbin/named", "bind9");
            command
                .args(["-g", "-n", "1", "-c"])
                .arg(folder.join(NAMED_CONF));
            command
        }
    };
    log_to(folder, command)
}

fn log_to(folder: &Path, mut command: Command) -> Command {
    let log = File::create(folder.join(LOG_FILE)).expect("the folder is ours");
    command
        .stdout(log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from))
        .stderr(log);
    command
}
