//! The program as a process: what it keeps when it is killed, what signals do, and what it says and
//! returns when the system does not let it run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

mod program;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dnscrub_testkit::authority::{Authority, Server, Settings, Zone};
use dnscrub_testkit::message::{a_query, parse, query};
use dnscrub_testkit::servers::free_port;
use dnscrub_wire::qtype;
use tempfile::TempDir;

use program::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);
/// Someone who may do nothing special: Debian's nobody.
const NOBODY: u32 = 65_534;

const DONE: Option<i32> = Some(0);
const FAILED: Option<i32> = Some(1);
const WRONG_CONFIGURATION: Option<i32> = Some(2);
const UNREACHABLE: Option<i32> = Some(3);

fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_for(PATIENCE, what, condition);
}

/// A folder with a configuration, which everybody may read and only we may write to.
struct Place {
    folder: TempDir,
    port: u16,
}

impl Place {
    fn new(yaml: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dnscrub-test-")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self {
            folder,
            port: free_port(false),
        };
        place.configure(yaml);
        place
    }

    /// `HERE` in the configuration is the folder, `PORT` the port.
    fn configure(&self, yaml: &str) {
        let here = self.folder.path().display().to_string();
        let text = yaml
            .replace("HERE", &here)
            .replace("PORT", &self.port.to_string());
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.path("dnscrub.yaml")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A command of `dnscrub` that speaks to the running program.
    fn ask(&self, arguments: &[&str]) -> Output {
        program::run(&self.path("control.sock"), arguments)
    }

    fn run(&self) -> Process {
        self.run_by(Command::new(env!("CARGO_BIN_EXE_dnscrub")))
    }

    /// Runs the program by this command, which gets the program's arguments.
    fn run_by(&self, mut command: Command) -> Process {
        command
            .args(["run", "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Process::start(command)
    }

    /// Runs the program until it serves and can be spoken to.
    fn serve(&self) -> Process {
        let mut process = self.run();
        wait_until("the program can be spoken to", || {
            assert_eq!(process.ended(), None, "{}", process.log());
            self.ask(&["status"]).status.success()
        });
        process
    }
}

/// A running dnscrub and what it has written to standard error.
struct Process {
    child: Child,
    written: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let written = Arc::<Mutex<String>>::default();
        let sink = Arc::clone(&written);
        let reader = std::thread::spawn(move || {
            let mut part = [0; 4_096];
            while let Ok(len @ 1..) = stderr.read(&mut part) {
                let text = String::from_utf8_lossy(&part[..len]);
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        Self {
            child,
            written,
            reader: Some(reader),
        }
    }

    fn log(&self) -> String {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn says(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < end, "{text:?} is not in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) {
        let order = format!("kill -{name} {}", self.child.id());
        let done = Command::new("sh").args(["-c", &order]).status().unwrap();
        assert!(done.success(), "{order}");
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end; its exit code, and everything it wrote.
    fn end(&mut self) -> (Option<i32>, String) {
        wait_until("the program ends", || self.ended().is_some());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (self.child.wait().unwrap().code(), self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn upstream() -> Server {
    let zone =
        "@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n* 60 IN A 192.0.2.9\n";
    let authority = Authority::new([Zone::parse("example.com", zone).unwrap()]);
    Server::start(authority, &Settings::default()).unwrap()
}

/// A whole configuration before this upstream.
fn yaml(upstream: SocketAddr) -> String {
    format!(
        "listen: [ {{ address: \"127.0.0.1:PORT\" }} ]\n\
         pools: {{ default: {{ upstreams: [ {{ address: \"{upstream}\" }} ], health: off, patience: 8s, retries: 0 }} }}\n\
         control: {{ socket: HERE/control.sock }}\n\
         state: {{ folder: HERE/state }}\n"
    )
}

/// A configuration of which nothing is ever asked.
fn idle() -> String {
    yaml((Ipv4Addr::LOCALHOST, 9).into())
}

fn client(from: [u8; 4], server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::from(from), 0)).unwrap();
    socket.connect(server).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
}

/// The rcode of an answer.
fn rcode(client: &UdpSocket, packet: &[u8]) -> u16 {
    client.send(packet).unwrap();
    let mut buffer = [0; 1_232];
    let len = client.recv(&mut buffer).unwrap();
    parse(&buffer[..len]).metadata.response_code.into()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The program without any right of root's, in a network where the low ports are privileged: one
/// of its own if we are root. The program is copied to where everybody may run it.
fn unprivileged(place: &Place, own_network: bool) -> Command {
    let program = place.path("dnscrub");
    fs::copy(env!("CARGO_BIN_EXE_dnscrub"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    if !is_root() {
        return Command::new(program);
    }
    let nobody = NOBODY.to_string();
    let mut command = if own_network {
        let mut command = Command::new("unshare");
        command.args(["--net", "setpriv"]);
        command
    } else {
        Command::new("setpriv")
    };
    command.args([
        "--reuid",
        &nobody,
        "--regid",
        &nobody,
        "--clear-groups",
        "--",
    ]);
    command.arg(program);
    command
}

#[test]
fn blocks_survive_kill_9() {
    let server = upstream();
    let rules = "rules: [ { name: trap, when: { qname: trap.example.com }, do: { block: 1h } } ]\n";
    let place = Place::new(&(yaml(server.address()) + rules));
    let mut killed = place.serve();
    // a rule's block is on the disk within about a second, an operator's when it is confirmed
    client([127, 8, 8, 8], place.address())
        .send(&a_query("trap.example.com", 1))
        .unwrap();
    let state = place.path("state/blocklist.json");
    wait_until("the rule's block is saved", || {
        fs::read_to_string(&state).is_ok_and(|text| text.contains("127.8.8.8"))
    });
    let added = place.ask(&[
        "blocklist",
        "add",
        "127.7.0.0/16",
        "--for",
        "1h",
        "--reason",
        "a flood",
    ]);
    assert!(added.status.success(), "{added:?}");
    killed.signal("KILL");
    assert_eq!(killed.end().0, None, "it had no time to do anything");

    let _restarted = place.serve();
    let shown = |address: &str| {
        let output = place.ask(&["blocklist", "show", address, "--json"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let operators = shown("127.7.1.2");
    assert!(
        operators.contains("127.7.0.0/16") && operators.contains("a flood"),
        "{operators}"
    );
    let rules = shown("127.8.8.8");
    assert!(rules.contains("trap"), "{rules}");
    client([127, 7, 1, 2], place.address())
        .send(&a_query("www.example.com", 1))
        .unwrap();
    wait_until("the query is dropped and the hit counted", || {
        shown("127.7.1.2").contains("\"hits\": 1")
    });
    let other = client([127, 0, 0, 1], place.address());
    assert_eq!(rcode(&other, &a_query("www.example.com", 2)), 0);
}

/// What the running program knows of a source and a name.
fn known(place: &Place, source: &str, qname: &str) -> (String, String) {
    let output = place.ask(&["explain", "--source", source, "--qname", qname, "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let known = &answer["scoring"]["known"];
    let word = |key: &str| known[key].as_str().unwrap().to_owned();
    (word("source"), word("name"))
}

/// Asks over TCP, which shows that the address is real.
fn ask_over_tcp(server: SocketAddr, qname: &str) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let packet = a_query(qname, 7);
    let len = u16::try_from(packet.len()).unwrap();
    stream
        .write_all(&[&len.to_be_bytes(), packet.as_slice()].concat())
        .unwrap();
    let mut answer = [0; 14];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[5] & 15, 0, "NOERROR");
}

#[test]
fn what_was_learned_survives_a_restart_and_kill_9() {
    let server = upstream();
    let place = Place::new(&yaml(server.address()));
    let state = place.path("state/learned.bin");
    let says = |source: &str, name: &str| (source.to_owned(), name.to_owned());
    let mut first = place.serve();
    assert_eq!(
        known(&place, "127.0.0.1", "www.example.com"),
        says("new", "unknown")
    );
    ask_over_tcp(place.address(), "www.example.com");
    wait_until("it is learned", || {
        known(&place, "127.0.0.1", "www.example.com") == says("known", "exists")
    });
    first.signal("TERM");
    assert_eq!(first.end().0, DONE);
    let mode = fs::metadata(&state).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds the seed");

    let mut second = place.serve();
    assert_eq!(
        known(&place, "127.0.0.1", "www.example.com"),
        says("known", "exists")
    );
    assert_eq!(
        known(&place, "127.5.5.5", "late.example.com"),
        says("new", "unknown")
    );
    ask_over_tcp(place.address(), "late.example.com");
    wait_until("it is learned", || {
        known(&place, "127.0.0.1", "late.example.com").1 == "exists"
    });
    second.signal("KILL");
    assert_eq!(second.end().0, None, "it had no time to save");

    let mut third = place.serve();
    assert_eq!(
        known(&place, "127.0.0.1", "www.example.com"),
        says("known", "exists")
    );
    assert_eq!(known(&place, "127.0.0.1", "late.example.com").1, "unknown");
    third.signal("KILL");
    third.end();

    // other sizes: what does not fit is learned again, the rest is there
    let smaller = "signals: { loyalty: { memory: 1MiB } }\n";
    place.configure(&(yaml(server.address()) + smaller));
    let mut fourth = place.serve();
    fourth.says("other sizes than before, so learned again: known sources");
    assert_eq!(
        known(&place, "127.0.0.1", "www.example.com"),
        says("new", "exists")
    );
    fourth.signal("KILL");
    fourth.end();

    let mut damaged = fs::read(&state).unwrap();
    damaged[100] ^= 1;
    fs::write(&state, damaged).unwrap();
    let mut fifth = place.serve();
    fifth.says("what was learned before is not restored: section 1 of");
    assert_eq!(
        known(&place, "127.0.0.1", "www.example.com"),
        says("new", "unknown")
    );
    fifth.signal("TERM");
    assert_eq!(fifth.end().0, DONE);
    place.configure(&yaml(server.address()));
    let replaced = place.serve();
    assert!(
        !replaced.log().contains("not restored"),
        "{}",
        replaced.log()
    );
}

#[test]
fn an_attack_is_told_with_its_zone_level_and_signals() {
    let server = upstream();
    let place = Place::new(&format!(
        "{}workers: 1\nzones: [ {{ name: example.com, names: {{ file: HERE/zone }} }} ]\n\
         signals: {{ suffix-flood: {{ floor: 2/s, whole-floor: 2/s }} }}\n",
        yaml(server.address())
    ));
    fs::write(
        place.path("zone"),
        "$ORIGIN example.com.\n@ 60 IN SOA ns1 h 1 3600 600 86400 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n",
    )
    .unwrap();
    let process = place.serve();
    let answer = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&place.ask(arguments).stdout).unwrap()
    };
    let levels = || answer(&["levels", "--json"]);
    assert_eq!(
        (&levels()[0]["scope"], &levels()[0]["level"]),
        (&"whole".into(), &"calm".into())
    );
    assert_eq!(levels()[1]["scope"], "example.com");
    wait_until("the zone is loaded", || {
        known(&place, "127.0.0.1", "missing.example.com").1 == "missing"
    });
    let client = client([127, 0, 0, 1], place.address());
    let mut number = 0;
    wait_until("the flood is noticed", || {
        for _ in 0..50 {
            number += 1;
            let _ = client.send(&a_query(&format!("x{number}.example.com"), 1));
        }
        let levels = levels();
        levels[0]["level"] == "attack" && levels[1]["level"] == "attack"
    });
    let levels = levels();
    assert_eq!(levels[0]["why"], "suffix-flood");
    assert!(levels[1]["distinct"].as_f64().unwrap() > 10.0, "{levels}");
    process.says("defence level of whole: calm -> attack; suffix-flood: ");
    process.says("defence level of example.com: calm -> attack; suffix-flood: ");
    let shown = String::from_utf8(place.ask(&["status"]).stdout).unwrap();
    assert!(
        shown.contains("defence level  attack (suffix-flood), since"),
        "{shown}"
    );
    let signals = answer(&["signals", "--json"]);
    let missing = signals["signals"]
        .as_array()
        .unwrap()
        .iter()
        .find(|signal| signal["name"] == "nonexistent-name")
        .unwrap();
    assert!(missing["queries"].as_u64().unwrap() > 0, "{signals}");
    let acted = |bands: &serde_json::Value| -> u64 {
        let bands = bands["bands"].as_array().unwrap();
        bands
            .iter()
            .map(|band| band["acted"].as_u64().unwrap())
            .sum()
    };
    assert!(acted(&signals) > 0, "{signals}");
}

#[test]
fn sighup_reloads_and_a_wrong_configuration_changes_nothing() {
    let server = upstream();
    let place = Place::new(&yaml(server.address()));
    let mut process = place.serve();
    let client = client([127, 0, 0, 1], place.address());
    let any = query("www.example.com", qtype::ANY).build();
    assert_eq!(rcode(&client, &any), 0);

    let rule = "rules: [ { name: no-any, when: { qtype: ANY }, do: refuse } ]\n";
    place.configure(&(yaml(server.address()) + rule));
    process.signal("HUP");
    process.says("configuration reloaded");
    assert_eq!(rcode(&client, &any), 5);

    place.configure(&(yaml(server.address()) + "ruels: []\n"));
    process.signal("HUP");
    process.says("the old configuration stays in force");
    process.says("ruels");
    process.says("dnscrub.yaml:5:1");
    assert_eq!(rcode(&client, &any), 5);
    assert_eq!(process.ended(), None);
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    for signal in ["TERM", "INT"] {
        let server = upstream();
        let place = Place::new(&yaml(server.address()));
        let mut process = place.serve();
        server
            .behaviour()
            .set_delay(Duration::from_millis(500), Duration::ZERO);
        let client = client([127, 0, 0, 1], place.address());
        client.send(&a_query("www.example.com", 7)).unwrap();
        wait_until("the query is at the upstream", || {
            server.counts().udp_queries == 1
        });
        process.signal(signal);
        let mut buffer = [0; 1_232];
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(parse(&buffer[..len]).answers.len(), 1);
        let (code, log) = process.end();
        assert_eq!(code, DONE, "{log}");
        assert!(log.contains("stopping"), "{log}");
        assert!(!place.path("control.sock").exists());
        assert!(place.path("state/blocklist.json").exists());
        assert_eq!(place.ask(&["status"]).status.code(), UNREACHABLE);
        // the port is free again
        UdpSocket::bind(place.address()).unwrap();
    }
}

/// Runs a program that cannot run; its exit code and what it says.
fn refused(place: &Place) -> (Option<i32>, String) {
    place.run().end()
}

#[test]
fn a_port_in_use() {
    let place = Place::new(&idle());
    let udp = UdpSocket::bind(place.address()).unwrap();
    let (code, said) = refused(&place);
    let expected = format!(
        "cannot bind UDP {}: Address already in use",
        place.address()
    );
    assert_eq!(code, FAILED, "{said}");
    assert!(
        said.contains(&expected) && said.contains("another program has this port"),
        "{said}"
    );
    drop(udp);

    let _tcp = TcpListener::bind(place.address()).unwrap();
    let (code, said) = refused(&place);
    assert_eq!(code, FAILED, "{said}");
    let expected = format!(
        "cannot bind TCP {}: Address already in use",
        place.address()
    );
    assert!(said.contains(&expected), "{said}");
}

/// `place` with its own port; what is at HERE is the first one's.
fn second(first: &Place, yaml: &str) -> Place {
    let here = first.folder.path().display().to_string();
    Place::new(&yaml.replace("FIRST", &here))
}

#[test]
fn a_second_program_serves_nobody_for_as_long_as_the_first_runs() {
    let first = Place::new(&idle());
    let _running = first.serve();
    let saved = fs::read(first.path("state/notices.log")).unwrap();
    let same_port = idle().replace("PORT", &first.port.to_string());
    for (yaml, expected) in [
        // whatever else it is given, it would take the socket over from the first, or share its state
        (
            idle().replace("HERE/control.sock", "FIRST/control.sock"),
            "another dnscrub runs already",
        ),
        (
            idle().replace("HERE/state", "FIRST/state"),
            "another dnscrub keeps its state in",
        ),
        (same_port, "another program has this port"),
    ] {
        let place = second(&first, &yaml);
        let (code, said) = refused(&place);
        assert_eq!(code, FAILED, "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!said.contains("serving"), "{said}");
    }
    assert_eq!(fs::read(first.path("state/notices.log")).unwrap(), saved);
    assert!(first.ask(&["status"]).status.success(), "the first goes on");
}

#[test]
fn a_privileged_port() {
    // a container may have been given all ports; only root can make a network where that is not so
    let setting = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if !is_root() && setting.trim() == "0" {
        return;
    }
    let place = Place::new(&idle().replace("127.0.0.1:PORT", "0.0.0.0:53"));
    let (code, said) = place.run_by(unprivileged(&place, true)).end();
    assert_eq!(code, FAILED, "{said}");
    assert!(
        said.contains("cannot bind UDP 0.0.0.0:53: Permission denied"),
        "{said}"
    );
    assert!(said.contains("CAP_NET_BIND_SERVICE"), "{said}");
}

#[test]
fn no_configuration() {
    let place = Place::new(&idle());
    fs::remove_file(place.config()).unwrap();
    let (code, said) = refused(&place);
    assert_eq!(code, WRONG_CONFIGURATION, "{said}");
    let expected = format!(
        "the configuration `{}` does not exist",
        place.config().display()
    );
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn a_wrong_configuration() {
    let place = Place::new(&(idle() + "pols: {}\n"));
    let (code, said) = refused(&place);
    assert_eq!(code, WRONG_CONFIGURATION, "{said}");
    for part in ["dnscrub.yaml:5:1", "pols", "pools"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn no_right_to_read_the_configuration() {
    let place = Place::new(&idle());
    fs::set_permissions(place.config(), fs::Permissions::from_mode(0o000)).unwrap();
    let (code, said) = place.run_by(unprivileged(&place, false)).end();
    assert_eq!(code, WRONG_CONFIGURATION, "{said}");
    let expected = format!(
        "the configuration `{}` may not be read",
        place.config().display()
    );
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn a_state_folder_that_cannot_be_made() {
    let place = Place::new(&idle().replace("HERE/state", "HERE/file/state"));
    fs::write(place.path("file"), "").unwrap();
    let (code, said) = refused(&place);
    assert_eq!(code, FAILED, "{said}");
    let expected = format!(
        "cannot create the state folder {}",
        place.path("file/state").display()
    );
    assert!(said.contains(&expected), "{said}");
}

/// The program serves without, since an outage would be worse, but says so to the log and to
/// whoever blocks something.
#[test]
fn a_state_folder_that_cannot_be_written_to() {
    let place = Place::new(&idle().replace("HERE/control.sock", "HERE/run/control.sock"));
    for (folder, mode) in [("state", 0o555), ("run", 0o777)] {
        fs::create_dir(place.path(folder)).unwrap();
        fs::set_permissions(place.path(folder), fs::Permissions::from_mode(mode)).unwrap();
    }
    let process = place.run_by(unprivileged(&place, false));
    let socket = place.path("run/control.sock");
    wait_until("the program can be spoken to", || socket.exists());
    let added = Command::new(env!("CARGO_BIN_EXE_dnscrub"))
        .args(["blocklist", "add", "192.0.2.0/24", "--socket"])
        .arg(&socket)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&added.stdout).into_owned()
        + &String::from_utf8_lossy(&added.stderr);
    let file = place.path("state/blocklist.json").display().to_string();
    assert!(
        told.contains(&file) && told.contains("Permission denied"),
        "{told}"
    );
    process.says("the state folder cannot be written");
    process.says("the blocklist cannot be saved");
    process.says(&file);
}

/// As at a full disk: the state file's file system takes nothing more.
#[test]
fn a_full_disk_at_the_state_file() {
    let place = Place::new(&idle());
    fs::create_dir(place.path("state")).unwrap();
    // the draft that is renamed over the state file
    std::os::unix::fs::symlink("/dev/full", place.path("state/blocklist.json.new")).unwrap();
    let process = place.serve();
    let added = place.ask(&["blocklist", "add", "192.0.2.0/24"]);
    let told = String::from_utf8_lossy(&added.stdout).into_owned()
        + &String::from_utf8_lossy(&added.stderr);
    assert!(told.contains("No space left on device"), "{told}");
    process.says("the blocklist cannot be saved");
    let shown = place.ask(&["blocklist", "show", "192.0.2.1"]);
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("is blocked"),
        "in force all the same: {shown:?}"
    );
    process.says("the blocklist is saved again");
}

#[test]
fn a_control_socket_in_use() {
    let first = Place::new(&idle());
    let _running = first.serve();
    let second = Place::new(&idle().replace(
        "HERE/control.sock",
        &first.path("control.sock").display().to_string(),
    ));
    let (code, said) = refused(&second);
    assert_eq!(code, FAILED, "{said}");
    assert!(said.contains("another dnscrub runs already"), "{said}");
    assert!(
        said.contains(&first.path("control.sock").display().to_string()),
        "{said}"
    );
    assert!(
        first.ask(&["status"]).status.success(),
        "the first one's socket is still there"
    );
}

#[test]
fn something_else_where_the_control_socket_should_be() {
    let place = Place::new(&idle());
    fs::write(place.path("control.sock"), "dear to someone").unwrap();
    let (code, said) = refused(&place);
    assert_eq!(code, FAILED, "{said}");
    assert!(
        said.contains("a file that is no socket stands there"),
        "{said}"
    );
    assert_eq!(
        fs::read_to_string(place.path("control.sock")).unwrap(),
        "dear to someone"
    );
}

#[test]
fn no_right_to_make_the_control_socket() {
    let place = Place::new(&idle().replace("HERE/state", "HERE/run/state"));
    fs::create_dir(place.path("run")).unwrap();
    fs::set_permissions(place.path("run"), fs::Permissions::from_mode(0o777)).unwrap();
    let command = unprivileged(&place, false);
    let closed = fs::Permissions::from_mode(0o555);
    let open = fs::metadata(place.folder.path()).unwrap().permissions();
    fs::set_permissions(place.folder.path(), closed).unwrap();
    let (code, said) = place.run_by(command).end();
    fs::set_permissions(place.folder.path(), open).unwrap();
    assert_eq!(code, FAILED, "{said}");
    assert!(said.contains("cannot open the socket"), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn a_metrics_address_in_use() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let place = Place::new(&(idle() + &format!("metrics: {{ address: \"{address}\" }}\n")));
    let (code, said) = refused(&place);
    assert_eq!(code, FAILED, "{said}");
    assert!(
        said.contains(&address.to_string()) && said.contains("metrics.address"),
        "{said}"
    );
    assert!(
        !Path::new(&place.path("control.sock")).exists(),
        "nothing is left behind"
    );
}
