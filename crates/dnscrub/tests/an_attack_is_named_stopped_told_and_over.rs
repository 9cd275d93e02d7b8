//! The whole chain, with real packets, a real NSD and the program as a process: calm load is learned; an attack is
//! noticed, named and stopped, people are told; it ends, people are told, and everything is undone.
//!
//! Each test runs in a network namespace of its own, so that sources can have any address.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use dnscrub_testkit::message::query;
use dnscrub_testkit::servers::{RealServer, free_port};
use dnscrub_wire::qtype;
use ring::hmac;
use serde_json::{Value, json};
use tempfile::TempDir;

use program::{Process, now, wait_for};

/// How long a condition may take to come true. A busy machine is slow, not broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tells the test that it is in its namespace.
const INSIDE: &str = "DNSCRUB_TEST_NAMESPACE";
/// Where dnscrub listens.
const SERVICE: &str = "192.0.2.53";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A machine too busy to run the name server makes queries wait, and none is to be shed for that.
const UNHURRIED: &str = ", patience: 4s, queue: { max-wait: 3s }";
/// Queries a second of the load that means no harm.
const CALM: u32 = 300;

fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_for(PATIENCE, what, condition);
}

/// `2026-01-31 14:05:09 UTC`.
fn date(at: f64) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs_f64(at));
    time.to_string().replace('T', " ").replace('Z', " UTC")
}

/// Runs the test of this name again where nobody else is: in a network namespace of its own in which the addresses of
/// 198.18.0.0/15 (clients) and 192.0.2.53 (dnscrub) are local. Takes root, or a kernel that lets users have namespaces.
fn in_a_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let setup = format!(
        "export PATH=$PATH:/usr/sbin:/sbin && ip link set lo up && ip route add local 198.18.0.0/15 dev lo && \
         ip address add {SERVICE}/32 dev lo && exec \"$0\" \"$@\""
    );
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "TERM", "--", "unshare", "--net"]);
    if !root {
        command.arg("--map-root-user");
    }
    let status = command
        .args(["sh", "-c", &setup])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} in its namespace: {status}");
}

/// A name server for example.com and example.net, each with `ns1`, `www` and 40 hosts.
fn name_server(folder: &std::path::Path) -> RealServer {
    let mut records = "@ SOA ns1 hostmaster 1 3600 600 604800 60\n@ NS ns1\nns1 A 192.0.2.1\n\
                       www A 192.0.2.80\nwww AAAA 2001:db8::80\n"
        .to_owned();
    for host in 0..40 {
        records.push_str(&format!("host{host} A 192.0.2.{host}\n"));
    }
    let file = folder.join("example.net.zone");
    fs::write(&file, format!("$ORIGIN example.net.\n$TTL 3600\n{records}")).unwrap();
    let lines = format!(
        "rrl-ratelimit: 0\nrrl-whitelist-ratelimit: 0\n\
         zone:\nname: \"example.net\"\nzonefile: \"{}\"\nprovide-xfr: 127.0.0.1 NOKEY\n",
        file.display()
    );
    RealServer::nsd_with("example.com", &records, &lines)
}

/// dnscrub, and what is around it.
struct Place {
    folder: TempDir,
    port: u16,
    http: u16,
    receiver: Receiver,
}

impl Place {
    fn new(upstream: SocketAddr, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let receiver = Receiver::start();
        let place = Self {
            port: free_port(false),
            http: free_port(false),
            folder,
            receiver,
        };
        let (here, port, http) = (place.folder.path().display(), place.port, place.http);
        let hook = place.receiver.address;
        let yaml = format!(
            "workers: 2\n\
             listen: [ {{ address: \"{SERVICE}:{port}\" }} ]\n\
             pools: {{ default: {{ upstreams: [ {{ address: \"{upstream}\" }} ], health: {{ query: \"example.com. SOA\" }}{UNHURRIED} }} }}\n\
             zones:\n\
             - {{ name: example.com, names: {{ axfr: \"{upstream}\" }} }}\n\
             - {{ name: example.net, names: {{ axfr: \"{upstream}\" }} }}\n\
             control: {{ socket: {here}/control.sock, http: {{ address: \"127.0.0.1:{http}\" }} }}\n\
             state: {{ folder: {here}/state }}\n\
             notify:\n\
             \x20 instance: edge-1\n\
             \x20 webhooks: [ {{ name: chat, url: \"http://{hook}/hook\", secret-files: [ secret ] }} ]\n\
             \x20 commands:\n\
             \x20 - name: script\n\
             \x20   run: [ /bin/sh, -c, 'cat >\"$0/half\" && mv \"$0/half\" \"$0/$DNSCRUB_INCIDENT-$DNSCRUB_EVENT-$DNSCRUB_KIND.json\"', {here}/told ]\n\
             \x20   at-a-time: 1\n\
             {more}"
        );
        fs::write(place.path("dnscrub.yaml"), yaml).unwrap();
        fs::write(place.path("secret"), SECRET).unwrap();
        fs::create_dir(place.path("told")).unwrap();
        fs::create_dir(place.path("state")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self) -> SocketAddr {
        format!("{SERVICE}:{}", self.port).parse().unwrap()
    }

    /// Runs the program until it can be spoken to and has both zones.
    fn serve(&self) -> Process {
        let log = fs::File::create(self.path("log")).unwrap();
        let child = Command::new("/usr/bin/setpriv")
            .args(["--pdeathsig", "TERM", "--", env!("CARGO_BIN_EXE_dnscrub")])
            .args(["run", "--config"])
            .arg(self.path("dnscrub.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Process(child);
        wait_until("the program knows both zones", || {
            let ended = process.0.try_wait().unwrap();
            assert_eq!(ended, None, "{}", self.log());
            self.ask(&["zones"])
                .is_ok_and(|zones| zones.matches("fresh").count() == 2)
        });
        process
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What a command prints, or what it complains about.
    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        program::ask(&self.path("control.sock"), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        program::json(&self.path("control.sock"), arguments)
    }

    fn incidents(&self) -> Vec<Value> {
        let listed = self.json(&["incidents", "list"]);
        listed.as_array().unwrap().clone()
    }

    /// The one of this kind, by the kind's label; there may be none yet.
    fn incident(&self, kind: &str) -> Option<Value> {
        let number = self.incidents().into_iter().find(|it| it["kind"] == kind)?["number"].clone();
        Some(self.json(&["incidents", "show", &number.to_string()]))
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.http(path);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|failure| panic!("{failure}: {head}\n{body}"))
    }

    fn http(&self, path: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).unwrap();
        // of HTTP/1.0 an answer comes in one piece
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Keeps what people read, for a look, in the folder that `DNSCRUB_ACCOUNTS` names.
    fn keep(&self, name: &str, arguments: &[&str]) -> String {
        let text = self.ask(arguments).unwrap();
        if let Some(folder) = std::env::var_os("DNSCRUB_ACCOUNTS") {
            fs::write(PathBuf::from(folder).join(name), &text).unwrap();
        }
        text
    }
}

/// A tiny HTTP server that checks signatures and keeps bodies.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::<Mutex<Vec<Value>>>::default();
        let sink = Arc::clone(&got);
        // it lives as long as the test's process
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(body) = receive(&stream) {
                    let mut got = sink.lock().unwrap_or_else(PoisonError::into_inner);
                    got.push(body);
                }
            }
        });
        Self { address, got }
    }

    /// What was told of an incident: events in their order.
    fn events(&self, number: &Value) -> Vec<String> {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        let of = got
            .iter()
            .filter(|body| body["incident"]["number"] == *number);
        of.map(|body| body["event"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Takes one request, and says whether its signature is right. The body if so.
fn receive(mut stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut signature) = (0, String::new());
    for line in reader.by_ref().lines() {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            if line.is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "dnscrub-signature" => value.clone_into(&mut signature),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let is_right = is_signed(&signature, &body);
    let status = if is_right { "200 OK" } else { "403 Forbidden" };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    // who asks may have gone
    let _ = stream.write_all(answer.as_bytes());
    is_right.then(|| serde_json::from_slice(&body).unwrap())
}

fn is_signed(header: &str, body: &[u8]) -> bool {
    let part = |name: &str| {
        let mut parts = header.split(',').filter_map(|part| part.split_once('='));
        parts.find(|(it, _)| *it == name).map(|(_, value)| value)
    };
    let (Some(time), Some(signature)) = (part("t"), part("v1")) else {
        return false;
    };
    let octets: Option<Vec<u8>> = (0..signature.len() / 2)
        .map(|at| u8::from_str_radix(signature.get(2 * at..2 * at + 2)?, 16).ok())
        .collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [time.as_bytes(), b".", body].concat();
    octets.is_some_and(|octets| hmac::verify(&key, &signed, &octets).is_ok())
}

/// Something that asks: from many addresses, so many queries a second.
struct Load {
    shared: Arc<Tally>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Parts of a load that are counted apart.
const PHASES: usize = 3;

#[derive(Default)]
struct Tally {
    /// Queries a second; none at first.
    rate: AtomicU32,
    phase: AtomicUsize,
    asked: [AtomicU32; PHASES],
    answered: [AtomicU32; PHASES],
    over: AtomicBool,
}

impl Load {
    /// From these addresses in turn, questions as `question` says: the number of each gives a name and a type.
    fn start(
        to: SocketAddr,
        sources: impl Iterator<Item = Ipv4Addr>,
        question: impl Fn(u32) -> (String, u16) + Send + 'static,
    ) -> Self {
        let sockets: Vec<UdpSocket> = sources
            .map(|source| {
                let socket = UdpSocket::bind((source, 0)).unwrap();
                socket.connect(to).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            })
            .collect();
        let shared = Arc::<Tally>::default();
        let tally = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let (mut number, mut owed, mut last) = (0_u32, 0.0, Instant::now());
            while !tally.over.load(Relaxed) {
                let passed = last.elapsed().as_secs_f64();
                last = Instant::now();
                // what was slept through is not made up for all at once
                let rate = f64::from(tally.rate.load(Relaxed));
                owed = (owed + passed * rate).min(rate * 0.05);
                let phase = tally.phase.load(Relaxed);
                while owed >= 1.0 {
                    owed -= 1.0;
                    let (name, qtype) = question(number);
                    // the answer says by its id which phase it belongs to
                    let id = u16::try_from(phase << 14).unwrap() | (number & 0x3fff) as u16;
                    let socket = &sockets[number as usize % sockets.len()];
                    number = number.wrapping_add(1);
                    if socket.send(&query(&name, qtype).id(id).build()).is_ok() {
                        tally.asked[phase].fetch_add(1, Relaxed);
                    }
                }
                let mut buffer = [0; 1_232];
                for socket in &sockets {
                    loop {
                        match socket.recv(&mut buffer) {
                            // an answer, and neither that the server has failed nor that one come back
                            Ok(len)
                                if len >= 12
                                    && matches!(buffer[3] & 15, 0 | 3)
                                    && buffer[2] & 2 == 0 =>
                            {
                                let phase = usize::from(buffer[0] >> 6);
                                tally.answered[phase].fetch_add(1, Relaxed);
                            }
                            Err(failure) if failure.kind() == ErrorKind::WouldBlock => break,
                            _ => {}
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(4));
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    fn rate(&self, rate: u32) {
        self.shared.rate.store(rate, Relaxed);
    }

    /// What is asked from now on is counted apart.
    fn phase(&self, phase: usize) {
        self.shared.phase.store(phase, Relaxed);
    }

    fn asked(&self, phase: usize) -> u32 {
        self.shared.asked[phase].load(Relaxed)
    }

    /// The share of a phase's queries that were answered.
    fn answered(&self, phase: usize) -> f64 {
        f64::from(self.shared.answered[phase].load(Relaxed)) / f64::from(self.asked(phase).max(1))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // a panic of its own was seen already
            let _ = thread.join();
        }
    }
}

/// A number that looks like chance, the same for the same `number`.
fn mixed(number: u32) -> u32 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9);
    mixed = (mixed ^ (mixed >> 16)).wrapping_mul(0x85eb_ca6b);
    mixed ^ (mixed >> 13)
}

/// Sixty resolvers that ask for what is there, and now and then for what is not.
fn calm(to: SocketAddr) -> Load {
    let sources = (1..=60).map(|last| Ipv4Addr::new(198, 18, 1, last));
    let load = Load::start(to, sources, |number| {
        let chance = mixed(number);
        let zone = ["example.com", "example.net"][(chance & 1) as usize];
        let qtype = [qtype::A, qtype::A, qtype::AAAA, qtype::TXT][(chance >> 1 & 3) as usize];
        let label = match chance >> 8 & 31 {
            0 => ["wpad", "autodiscover", "_dmarc", "ftp"][(chance >> 3 & 3) as usize].to_owned(),
            1..=8 => "www".to_owned(),
            _ => format!("host{}", (chance >> 16) % 40),
        };
        (format!("{label}.{zone}"), qtype)
    });
    load.rate(CALM);
    load
}

/// Waits until it is known what is usual, which takes the first twelve seconds at least, and who is: a busy machine takes
/// longer for that.
fn learn(place: &Place) {
    wait_for(2 * PATIENCE, "it is known who and what is usual", || {
        let live = place.get("/v1/live");
        let sources = live["overview"]["sources"].as_array().unwrap();
        place.json(&["status"])["uptime_seconds"].as_f64().unwrap() > 20.0
            && !sources.is_empty()
            && sources.iter().all(|source| source["known"] == true)
    });
    assert_eq!(named(place), [""; 0], "nothing has happened yet");
}

/// The kinds of all incidents, the newest first. That answers take long is no surprise on a busy machine.
fn named(place: &Place) -> Vec<String> {
    let kinds = place
        .incidents()
        .into_iter()
        .map(|it| it["kind"].as_str().unwrap().to_owned());
    kinds.filter(|kind| kind != "upstream-failure").collect()
}

fn zones(incident: &Value) -> BTreeSet<String> {
    let zones = incident["zones"].as_array().unwrap().iter();
    zones
        .map(|part| part["zone"].as_str().unwrap().to_owned())
        .collect()
}

/// What is told by command of an incident.
fn by_command(place: &Place, number: &Value, event: &str, kind: &str) -> Option<Value> {
    let path = place
        .path("told")
        .join(format!("{number}-{event}-{kind}.json"));
    let body = fs::read(path).ok()?;
    Some(serde_json::from_slice(&body).unwrap())
}

fn assert_all_is_undone(place: &Place, number: &str) {
    wait_until("everything is undone", || {
        let incident = place.json(&["incidents", "show", number]);
        let actions = incident["actions"].as_array().unwrap();
        let mut lasting = actions.iter().filter(|it| it["lasting"] == true);
        lasting.all(|it| it["undone"].is_number())
    });
}

/// What the flood may be called. One whose sender a busy machine makes pause comes in pulses.
const FLOOD: [&str; 2] = ["random-subdomains", "pulse"];

#[test]
fn a_flood_of_made_up_names() {
    in_a_namespace("a_flood_of_made_up_names", || {
        let server_folder = tempfile::tempdir().unwrap();
        let server = name_server(server_folder.path());
        let place = Place::new(server.address(), "");
        let _process = place.serve();
        let calm = calm(place.address());
        learn(&place);
        place.keep("calm-top.txt", &["top", "--plain"]);

        // through 200 resolvers that were never here
        let sources = (0..200).map(|last| Ipv4Addr::new(198, 19, 7, last + 1));
        let flood = Load::start(place.address(), sources, |number| {
            let label = (u64::from(mixed(number)) << 32) | u64::from(mixed(!number));
            (format!("{label:012x}.example.com"), qtype::A)
        });
        calm.phase(1);
        let began = now();
        flood.rate(2_000);
        wait_until("the flood is named", || {
            place.incident("random-subdomains").is_some()
        });
        let incident = place.incident("random-subdomains").unwrap();
        let number = &incident["number"];
        let show = number.to_string();
        let opened = incident["opened"].as_f64().unwrap();
        assert!(opened - began <= 10.0, "{began} {incident}");
        assert_eq!(zones(&incident), BTreeSet::from(["example.com".to_owned()]));
        let sentence = incident["sentence"].as_str().unwrap();
        assert!(sentence.contains("example.com"), "{sentence}");
        wait_until("its zone is raised", || {
            place.json(&["level"])["by_incident"][0]["zones"] == json!(["example.com"])
        });
        wait_until("the webhook was told", || {
            place
                .receiver
                .events(number)
                .first()
                .is_some_and(|it| it == "opened")
        });
        wait_until("the command was told", || {
            by_command(&place, number, "opened", "random-subdomains").is_some()
        });
        let told = by_command(&place, number, "opened", "random-subdomains").unwrap();
        assert_eq!(told["incident"]["zones"][0]["zone"], "example.com");
        wait_until("the metrics say so", || {
            let kinds = FLOOD.map(|kind| format!("dnscrub_incidents_open{{kind=\"{kind}\"}} 1\n"));
            let metrics = place.http("/metrics");
            kinds.iter().any(|line| metrics.contains(line))
        });
        // who means no harm is served all the time
        wait_until("the flood has lasted", || {
            calm.asked(1) >= 12 * CALM && flood.asked(0) >= 10_000
        });
        calm.phase(2);
        place.keep("flood-top.txt", &["top", "--plain"]);
        place.keep("flood-list.txt", &["incidents", "list"]);
        place.keep("flood-show.txt", &["incidents", "show", &show]);
        place.keep("flood-levels.txt", &["levels"]);
        place.keep("flood-status.txt", &["status"]);
        wait_until("99 % were served", || calm.answered(1) >= 0.99);

        flood.rate(0);
        let ended = now();
        wait_until("it is over", || {
            place.json(&["incidents", "show", &show])["closed"].is_number()
        });
        assert!(now() - ended <= 60.0, "{}", place.log());
        let over = place.keep("over-show.txt", &["incidents", "show", &show]);
        let [kind] = &named(&place)[..] else {
            panic!("one incident: {over}")
        };
        assert!(FLOOD.contains(&kind.as_str()), "{over}");
        assert_all_is_undone(&place, &show);
        wait_until("the webhook was told of the end", || {
            place
                .receiver
                .events(number)
                .last()
                .is_some_and(|it| it == "closed")
        });
        assert_eq!(place.receiver.events(number)[0], "opened");
        wait_until("the command was told of the end", || {
            by_command(&place, number, "closed", kind).is_some()
        });
        wait_until("the metrics say so", || {
            place
                .http("/metrics")
                .contains(&format!("dnscrub_incidents_open{{kind=\"{kind}\"}} 0\n"))
        });
        let over = place.json(&["incidents", "show", &show]);
        let markdown = place.keep("over.md", &["incidents", "export", &show]);
        let html = place.keep(
            "over.html",
            &["incidents", "export", &show, "--format", "html"],
        );
        for (label, at) in [("Began", "began"), ("Named", "opened"), ("Over", "closed")] {
            let time = date(over[at].as_f64().unwrap());
            let row = format!("| {label} | {time} |");
            assert!(markdown.contains(&row), "{row}\n{markdown}");
            assert!(html.contains(&time), "{time}\n{html}");
        }
    });
}

/// Sources of [`flood_of_few`].
const BOTS: usize = 3;

/// Names that are there, from few addresses that were never here; none at first. To tell it takes knowing what is usual.
fn flood_of_few(to: SocketAddr) -> Load {
    let bots = (1..=BOTS as u8).map(|last| Ipv4Addr::new(198, 19, 9, last));
    Load::start(to, bots, |number| {
        let host = mixed(number) % 40;
        (format!("host{host}.example.net"), qtype::A)
    })
}

#[test]
fn a_flood_goes_on_under_its_number_after_kill_9() {
    in_a_namespace("a_flood_goes_on_under_its_number_after_kill_9", || {
        let server_folder = tempfile::tempdir().unwrap();
        let server = name_server(server_folder.path());
        let place = Place::new(server.address(), "");
        let process = place.serve();
        let _calm = calm(place.address());
        learn(&place);
        let flood = flood_of_few(place.address());
        flood.rate(2_000);
        wait_until("the flood is named", || {
            place.incident("direct-flood").is_some()
        });
        let show = place.incident("direct-flood").unwrap()["number"].to_string();
        // long before the first five minutes are over
        wait_until("what was learned is saved", || {
            place.path("state/learned.bin").exists()
        });
        // SIGKILL
        drop(process);
        let killed = now();

        let _process = place.serve();
        wait_until("the flood is recognised", || {
            let known = place.json(&["incidents", "show", &show]);
            assert!(known["closed"].is_null(), "{}", place.log());
            let last = known["points"].as_array().unwrap().last();
            last.is_some_and(|point| point["at"].as_f64().unwrap() > killed)
        });
        let told = place.keep("killed-show.txt", &["incidents", "show", &show]);
        assert!(told.contains("dnscrub was started again"), "{told}");
        assert_eq!(named(&place).len(), 1, "{}", place.log());
    });
}

/// What was learned of the busiest source before: that takes more time than a test has.
const BUSIEST: &str = r#"{"format": "dnscrub-response", "version": 1, "state": {"busiest": {"rate": 10.0, "seconds": 600.0}}}"#;
const BLOCKS_AND_ROUTES: &str = "response: { blocks: { mode: enforce, for: 10m } }\n\
    routes:\n\
    \x20 mode: dry-run\n\
    \x20 limits: { destinations: [ 192.0.2.0/24 ] }\n\
    \x20 services: [ 192.0.2.53 ]\n\
    \x20 flowspec: { for: [ direct-flood ], min-rate: 100 }\n";

#[test]
fn a_flood_of_few_and_servers_that_fail() {
    in_a_namespace("a_flood_of_few_and_servers_that_fail", || {
        let server_folder = tempfile::tempdir().unwrap();
        let mut server = name_server(server_folder.path());
        let place = Place::new(server.address(), BLOCKS_AND_ROUTES);
        fs::write(place.path("state/response.json"), BUSIEST).unwrap();
        let _process = place.serve();
        let calm = calm(place.address());
        learn(&place);
        place.keep("few-calm-top.txt", &["top", "--plain"]);

        let flood = flood_of_few(place.address());
        calm.phase(1);
        flood.rate(2_000);
        wait_until("the flood is named", || {
            place.incident("direct-flood").is_some()
        });
        let incident = place.incident("direct-flood").unwrap();
        let number = incident["number"].clone();
        let show = number.to_string();
        let origin = format!("incident:{number}");
        let blocked = || -> Vec<Value> {
            let listed = place.json(&["blocklist", "list", "--origin", "incident"]);
            listed["entries"].as_array().unwrap().clone()
        };
        wait_until("its sources are blocked", || blocked().len() == BOTS);
        assert!(
            blocked().iter().all(|entry| entry["origin"] == *origin),
            "{:?}",
            blocked()
        );
        wait_until("routes are wanted", || {
            let routes = place.json(&["routes", "list"])["routes"]
                .as_array()
                .unwrap()
                .clone();
            routes.iter().filter(|it| it["state"] == "dry-run").count() == BOTS
        });
        assert!(
            place
                .http("/metrics")
                .contains("dnscrub_automatic_blocks 3\n")
        );
        // while it goes on, though nothing of it comes through, it is not over: for longer than the end of what is
        // quiet is waited for
        let goes_on_until = flood.asked(0) + 20 * 2_000;
        wait_until("the flood has lasted", || {
            let known = place.json(&["incidents", "show", &show]);
            assert!(known["closed"].is_null(), "{}", place.log());
            flood.asked(0) >= goes_on_until
        });
        calm.phase(2);
        place.keep("few-top.txt", &["top", "--plain"]);
        place.keep("few-show.txt", &["incidents", "show", &show]);
        place.keep("few-blocklist.txt", &["blocklist", "list"]);
        place.keep("few-routes.txt", &["routes", "list"]);
        wait_until("99 % were served", || calm.answered(1) >= 0.99);
        flood.rate(0);
        let ended = now();
        wait_until("it is over", || {
            place.json(&["incidents", "show", &show])["closed"].is_number()
        });
        assert!(now() - ended <= 60.0, "{}", place.log());
        wait_until("nobody is blocked", || blocked().is_empty());
        wait_until("no route is wanted", || {
            place.json(&["routes", "list"])["routes"] == json!([])
        });
        assert_all_is_undone(&place, &show);
        let told = place.keep("few-over-show.txt", &["incidents", "show", &show]);
        for told_of in [
            "blocked 3 sources (",
            "took the blocks of 3 sources back",
            "would announce route 1, FlowSpec rule against 198.19.9.",
            "would withdraw route 1, FlowSpec rule against 198.19.9.",
        ] {
            assert!(told.contains(told_of), "{told_of}\n{told}");
        }
        place.keep("few-over-routes.txt", &["routes", "list"]);

        server.kill();
        wait_until("the failure is named", || {
            let failure = place.incident("upstream-failure");
            failure.is_some_and(|it| it["closed"].is_null())
        });
        let failure = place.incident("upstream-failure").unwrap();
        let show = failure["number"].to_string();
        let sentence = failure["sentence"].as_str().unwrap();
        assert!(sentence.contains("No attack"), "{sentence}");
        place.keep("failure-show.txt", &["incidents", "show", &show]);
        place.keep("failure-status.txt", &["status"]);
        place.keep("failure-top.txt", &["top", "--plain"]);
        assert_eq!(place.json(&["level"])["by_incident"], json!([]));
        assert_eq!(failure["actions"], json!([]));
        server.start_again();
        let back = now();
        wait_until("the failure is over", || {
            place.incident("upstream-failure").unwrap()["closed"].is_number()
        });
        assert!(now() - back <= 60.0, "{}", place.log());
        wait_until("people are told", || {
            place.receiver.events(&failure["number"]) == ["opened", "closed"]
        });
        place.keep("failure-over-show.txt", &["incidents", "show", &show]);
        place.keep("failure.md", &["incidents", "export", &show]);
        assert_eq!(named(&place), ["direct-flood"]);
    });
}
