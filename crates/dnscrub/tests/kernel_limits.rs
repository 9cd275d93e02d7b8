//! Limits in the kernel, with real packets over a link between two network namespaces: a flood of few real sources is
//! dropped there because of the level that its incident raised, known and exempt clients are served, and all of it is
//! undone with the incident. Takes root and Linux 5.12.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

mod program;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dnscrub_testkit::authority::{Authority, Server, Settings, Zone};
use dnscrub_testkit::message::a_query;
use serde_json::Value;
use tempfile::TempDir;

use program::{Process, now, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
/// Tells the test that it is in its namespace, which is the clients' and the name server's.
const INSIDE: &str = "DNSCRUB_TEST_NAMESPACE";
/// The clients' end of the link, where the name server is as well; and that of dnscrub.
const HERE: &str = "192.0.2.1";
const THERE: &str = "192.0.2.53";
/// A resolver that usually sends 300 queries a second, one that is exempt, and one that is neither.
const KNOWN: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 7);
const EXEMPT: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 8);
const SMALL: Ipv4Addr = Ipv4Addr::new(198, 18, 3, 9);
/// Names that there are.
const HOSTS: u16 = 500;

fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_for(PATIENCE, what, condition);
}

/// Runs a command that must do well. What it says.
fn run(command: &[&str]) -> String {
    let (program, arguments) = command.split_first().unwrap();
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Process {
    /// It ends with the thread that started it as well.
    fn start(command: &[&str], log: Stdio) -> Self {
        let child = Command::new("/usr/bin/setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }
}

/// The link and dnscrub's namespace, which lasts as long as this.
struct Link {
    holder: Process,
}

impl Link {
    fn new() -> Self {
        let holder = Process::start(&["unshare", "--net", "sleep", "600"], Stdio::inherit());
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let other = format!("/proc/{}/ns/net", holder.0.id());
        wait_until("the namespace is there", || {
            // before it is another program it is this one, in the old namespace
            fs::read_link(&other).is_ok_and(|it| it != own)
        });
        let link = Self { holder };
        let pid = link.holder.0.id().to_string();
        run(&["ip", "link", "set", "lo", "up"]);
        run(&[
            "ip", "link", "add", "c0", "type", "veth", "peer", "name", "s0", "netns", &pid,
        ]);
        run(&["ip", "address", "add", &format!("{HERE}/24"), "dev", "c0"]);
        run(&["ip", "link", "set", "c0", "up"]);
        run(&["ip", "route", "add", "local", "198.18.0.0/15", "dev", "lo"]);
        link.there(&["ip", "link", "set", "lo", "up"]);
        link.there(&["ip", "address", "add", &format!("{THERE}/24"), "dev", "s0"]);
        link.there(&["ip", "link", "set", "s0", "up"]);
        link.there(&["ip", "route", "add", "198.18.0.0/15", "via", HERE]);
        link
    }

    fn namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.holder.0.id())
    }

    fn there(&self, command: &[&str]) -> String {
        run(&[&["nsenter", &self.namespace(), "--"], command].concat())
    }
}

/// dnscrub at the other end of the link, and what is around it.
struct Place {
    link: Link,
    folder: TempDir,
    upstream: Server,
}

const KERNEL: &str = "kernel: { interface: s0 }\n\
    response: { attack: { kernel-limit: { v4: { 32: 20/s, 24: 2000/s } } } }\n";

const LIMITS: &str =
    "limits packets in the kernel to 20/s from a /32 and 2000/s from a /24 of IPv4";

impl Place {
    fn new() -> Self {
        let link = Link::new();
        let mut records =
            "@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n".to_owned();
        for host in 0..HOSTS {
            records.push_str(&format!("host{host} 60 IN A 192.0.2.9\n"));
        }
        let zone = Zone::parse("example.com", &records).unwrap();
        let settings = Settings {
            listen: vec![format!("{HERE}:0").parse().unwrap()],
            ..Settings::default()
        };
        let place = Self {
            link,
            folder: tempfile::tempdir().unwrap(),
            upstream: Server::start(Authority::new([zone]), &settings).unwrap(),
        };
        place.configure(KERNEL);
        fs::create_dir_all(place.path("state")).unwrap();
        // what was learned before: that takes more time than a test has
        let known = format!(
            r#"{{"format": "dnscrub-response", "version": 1,
                "state": {{"usual": {{"rates": {{"{KNOWN}/32": 300.0}}, "seconds": 600.0}}}}}}"#
        );
        fs::write(place.path("state/response.json"), known).unwrap();
        place
    }

    fn configure(&self, kernel: &str) {
        let (here, upstream) = (self.folder.path().display(), self.upstream.address());
        let yaml = format!(
            "workers: 2\n\
             listen: [ {{ address: \"{THERE}:53\" }} ]\n\
             pools: {{ default: {{ upstreams: [ {{ address: \"{upstream}\" }} ], health: off }} }}\n\
             zones: [ {{ name: example.com }} ]\n\
             control: {{ socket: {here}/control.sock }}\n\
             metrics: {{ address: \"{THERE}:9353\" }}\n\
             state: {{ folder: {here}/state }}\n\
             scrubbing: {{ bands: [] }}\n\
             response-limit: {{ mode: off, exempt: [ {EXEMPT} ] }}\n{kernel}"
        );
        fs::write(self.path("dnscrub.yaml"), yaml).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self) -> Process {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let (namespace, config) = (self.link.namespace(), self.path("dnscrub.yaml"));
        let program = env!("CARGO_BIN_EXE_dnscrub");
        let config = config.to_str().unwrap();
        let command = [
            "nsenter", &namespace, "--", program, "run", "--config", config,
        ];
        let mut process = Process::start(&command, log.into());
        wait_until("the program can be spoken to", || {
            let ended = process.0.try_wait().unwrap();
            assert_eq!(ended, None, "{}", self.log());
            self.ask(&["status"]).is_ok()
        });
        process
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        program::ask(&self.path("control.sock"), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        program::json(&self.path("control.sock"), arguments)
    }

    /// The incident because of which the kernel limits, once there is one. A busy machine's flood may be called a pulse.
    fn incident(&self) -> Option<Value> {
        let listed = self.json(&["incidents", "list"]);
        let all = listed.as_array().unwrap().iter();
        let mut all = all.map(|it| self.json(&["incidents", "show", &it["number"].to_string()]));
        all.find(|it| it["actions"].to_string().contains(LIMITS))
    }

    /// The value of a metric; nothing where there is none of these labels.
    fn metric(&self, series: &str) -> Option<f64> {
        let mut stream = TcpStream::connect((THERE, 9353)).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    fn dropped(&self) -> u64 {
        self.json(&["status"])["kernel"]["dropped"]
            .as_u64()
            .unwrap()
    }
}

/// Parts of a load that are counted apart.
const PHASES: usize = 3;

#[derive(Default)]
struct Tally {
    /// Queries a second.
    rate: AtomicU32,
    phase: AtomicUsize,
    asked: [AtomicU32; PHASES],
    answered: [AtomicU32; PHASES],
    over: AtomicBool,
}

/// A source that asks for what is there, so many times a second.
struct Load {
    tally: Arc<Tally>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(source: Ipv4Addr, rate: u32) -> Self {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.connect((THERE, 53)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let tally = Arc::<Tally>::default();
        tally.rate.store(rate, Relaxed);
        let shared = Arc::clone(&tally);
        let thread = std::thread::spawn(move || send(&socket, &shared));
        Self {
            tally,
            thread: Some(thread),
        }
    }

    fn rate(&self, rate: u32) {
        self.tally.rate.store(rate, Relaxed);
    }

    /// What is asked from now on is counted apart.
    fn phase(&self, phase: usize) {
        self.tally.phase.store(phase, Relaxed);
    }

    /// The share of a phase's queries that were answered.
    fn answered(&self, phase: usize) -> f64 {
        let asked = self.tally.asked[phase].load(Relaxed);
        f64::from(self.tally.answered[phase].load(Relaxed)) / f64::from(asked.max(1))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tally.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // a panic of its own was seen already
            let _ = thread.join();
        }
    }
}

fn send(socket: &UdpSocket, tally: &Tally) {
    let (mut number, mut owed, mut last) = (0_u16, 0.0, Instant::now());
    let mut buffer = [0; 1_232];
    while !tally.over.load(Relaxed) {
        let passed = last.elapsed().as_secs_f64();
        last = Instant::now();
        // what was slept through is not made up for all at once
        let rate = f64::from(tally.rate.load(Relaxed));
        owed = (owed + passed * rate).min(rate * 0.05 + 1.0);
        let phase = tally.phase.load(Relaxed);
        while owed >= 1.0 {
            owed -= 1.0;
            number = number.wrapping_add(1);
            // the answer says by its id which phase it belongs to
            let id = u16::try_from(phase << 14).unwrap() | number & 0x3fff;
            let name = format!("host{}.example.com", number % HOSTS);
            if socket.send(&a_query(&name, id)).is_ok() {
                tally.asked[phase].fetch_add(1, Relaxed);
            }
        }
        loop {
            match socket.recv(&mut buffer) {
                Ok(len) if len >= 12 => {
                    tally.answered[usize::from(buffer[0] >> 6)].fetch_add(1, Relaxed);
                }
                Err(failure) if failure.kind() == ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}

#[test]
fn a_flood_of_few_is_dropped_in_the_kernel_until_it_is_over() {
    if std::env::var_os(INSIDE).is_some() {
        return flood();
    }
    let status = Command::new("/usr/bin/setpriv")
        .args(["--pdeathsig", "TERM", "--", "unshare", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "a_flood_of_few_is_dropped_in_the_kernel_until_it_is_over",
            "--exact",
            "--nocapture",
        ])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "in its namespace: {status}");
}

fn flood() {
    let place = Place::new();
    let process = place.serve();
    assert!(
        place
            .link
            .there(&["ip", "link", "show", "dev", "s0"])
            .contains(" xdp ")
    );
    process.kill();
    let shown = || place.link.there(&["ip", "link", "show", "dev", "s0"]);
    wait_until("the program went with its process", || {
        !shown().contains("xdp")
    });
    // they ask from the program's first second on: what is usual is the mean of these seconds
    let calm =
        [(KNOWN, 300), (EXEMPT, 300), (SMALL, 10)].map(|(source, rate)| Load::start(source, rate));
    let _process = place.serve();
    let status = place.ask(&["status"]).unwrap();
    assert!(
        status.contains("limits nothing; packets dropped: 0"),
        "{status}"
    );
    assert!(status.contains("on s0, driver mode"), "{status}");
    let attached = "dnscrub_kernel_attached{interface=\"s0\",mode=\"driver\"}";
    assert_eq!(place.metric(attached), Some(1.0));

    let measure = |of: &str| place.metric(&format!("dnscrub_measure{of}{{measure=\"queries\"}}"));
    wait_for(2 * PATIENCE, "it is known what is usual", || {
        let (now, usual) = (measure(""), measure("_usual"));
        place.json(&["status"])["uptime_seconds"].as_f64().unwrap() > 20.0
            && now
                .zip(usual)
                .is_some_and(|(now, usual)| usual >= 0.8 * now)
    });
    let bots: Vec<Load> = (1..=3)
        .map(|last| Load::start(Ipv4Addr::new(198, 19, 9, last), 1_000))
        .collect();
    wait_until("the kernel limits because of the flood", || {
        place.incident().is_some()
    });
    wait_until("the kernel drops", || place.dropped() > 500);
    for load in &calm {
        load.phase(1);
    }
    let status = place.ask(&["status"]).unwrap();
    assert!(status.contains("limits to 20/s from a /32"), "{status}");
    assert_eq!(place.metric("dnscrub_kernel_limiting"), Some(1.0));
    // while the kernel drops, it is not over, though little of it comes through: for longer than the end of what is quiet
    // is waited for
    let goes_on_until = place.dropped() + 20 * 2_900;
    wait_until("the flood has lasted", || {
        let incident = place.incident().unwrap();
        assert!(incident["closed"].is_null(), "{}", place.log());
        place.dropped() >= goes_on_until
    });
    for load in &calm {
        load.phase(2);
    }
    for (load, who) in calm.iter().zip(["known", "exempt", "small"]) {
        let served = format!("the {who} source is served");
        wait_until(&served, || load.answered(1) >= 0.95);
    }
    let reason = |reason: &str| {
        let series =
            format!("dnscrub_kernel_packets_total{{outcome=\"dropped\",reason=\"{reason}\"}}");
        place.metric(&series).unwrap()
    };
    assert!(reason("source_limit") > 10_000.0);
    assert!(
        place
            .metric("dnscrub_kernel_packets_total{outcome=\"passed\",reason=\"exempt\"}")
            .unwrap()
            > 1_000.0
    );

    for bot in &bots {
        bot.rate(0);
    }
    let ended = now();
    wait_until("it is over", || {
        place.incident().unwrap()["closed"].is_number()
    });
    assert!(now() - ended <= 60.0, "{}", place.log());
    wait_until("nothing is limited", || {
        place.metric("dnscrub_kernel_limiting") == Some(0.0)
    });
    wait_until("everything is undone", || {
        let incident = place.incident().unwrap();
        let actions = incident["actions"].as_array().unwrap().clone();
        let mut lasting = actions.iter().filter(|it| it["lasting"] == true);
        lasting.all(|it| it["undone"].is_number())
    });
    let incident = place.incident().unwrap();
    let dropped = incident["kernel_dropped"].as_u64().unwrap();
    assert!(dropped > 10_000 && dropped <= place.dropped(), "{dropped}");
    let number = incident["number"].to_string();
    let told = place.ask(&["incidents", "show", &number]).unwrap();
    assert!(
        told.contains("limits packets in the kernel no longer, "),
        "{told}"
    );
    let account = place.ask(&["incidents", "export", &number]).unwrap();
    assert!(account.contains("packets more over its limit"), "{account}");

    // a reload takes it away and puts it back, and what was counted stays
    let before = place.dropped();
    place.configure("");
    place.ask(&["reload"]).unwrap();
    assert!(!shown().contains("xdp"), "{}", shown());
    assert_eq!(place.json(&["status"])["kernel"], Value::Null);
    place.configure(&KERNEL.replace("s0", "[ s0, s1 ], mode: generic"));
    place.ask(&["reload"]).unwrap();
    assert!(shown().contains(" xdpgeneric "), "{}", shown());
    assert_eq!(place.dropped(), before);
    let status = place.ask(&["status"]).unwrap();
    assert!(
        status.contains("NOT ON s1: there is no interface s1; found "),
        "{status}"
    );
}
