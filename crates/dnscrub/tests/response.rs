//! The program's answer to incidents, as a process with real sockets: levels set by hand, rules that wait for a level,
//! automatic blocks, and the record, over kills and restarts; and a real flood that is noticed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

mod program;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use dnscrub_testkit::authority::{Authority, Server, Settings, Zone};
use dnscrub_testkit::message::{a_query, parse, query};
use dnscrub_testkit::servers::free_port;
use dnscrub_wire::qtype;
use serde_json::{Value, json};
use tempfile::TempDir;

use program::{Process, now, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const NOERROR: u16 = 0;
const REFUSED: u16 = 5;

fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_for(PATIENCE, what, condition);
}

/// A name server for two zones without wildcards.
fn upstream() -> Server {
    let zone = |name: &str| {
        let records = "@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\nwww 60 IN A 192.0.2.9\nwww 60 IN TXT \"x\"\n";
        Zone::parse(name, records).unwrap()
    };
    let zones = [zone("example.com"), zone("example.net")];
    Server::start(Authority::new(zones), &Settings::default()).unwrap()
}

/// A folder with a configuration and the program's state, and what the program is reached by.
struct Place {
    folder: TempDir,
    port: u16,
}

impl Place {
    fn new(upstream: SocketAddr, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self {
            port: free_port(false),
            folder,
        };
        let (here, port) = (place.folder.path().display(), place.port);
        let yaml = format!(
            "workers: 2\n\
             listen: [ {{ address: \"127.0.0.1:{port}\" }} ]\n\
             pools: {{ default: {{ upstreams: [ {{ address: \"{upstream}\" }} ], health: off }} }}\n\
             control: {{ socket: {here}/control.sock }}\n\
             state: {{ folder: {here}/state }}\n\
             response-limit: {{ exempt: [] }}\n\
             zones: [ {{ name: example.com }}, {{ name: example.net }} ]\n{more}"
        );
        fs::write(place.path("dnscrub.yaml"), yaml).unwrap();
        fs::create_dir_all(place.path("state/incidents")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the program until it can be spoken to.
    fn serve(&self) -> Process {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_dnscrub"))
            .args(["run", "--config"])
            .arg(self.path("dnscrub.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Process(child);
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

    /// What a command prints, or what it complains about.
    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        program::ask(&self.path("control.sock"), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        program::json(&self.path("control.sock"), arguments)
    }

    fn client(&self, from: [u8; 4]) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::from(from), 0)).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        socket
    }

    /// The rcode of an answer, and whether it is truncated; nothing where none comes in half a second.
    fn answer(&self, from: [u8; 4], packet: &[u8]) -> Option<(u16, bool)> {
        let client = self.client(from);
        client.send(packet).unwrap();
        let mut buffer = [0; 1_232];
        let len = client.recv(&mut buffer).ok()?;
        let answer = parse(&buffer[..len]);
        Some((
            answer.metadata.response_code.into(),
            answer.metadata.truncation,
        ))
    }

    fn rcode(&self, packet: &[u8]) -> Option<u16> {
        self.answer([127, 0, 0, 1], packet).map(|(rcode, _)| rcode)
    }
}

fn txt(name: &str) -> Vec<u8> {
    query(name, qtype::TXT).build()
}

const RULE: &str = "rules: [ { name: no-txt, from-level: attack, when: { qtype: TXT }, do: refuse } ]\n\
                    response: { attack: { challenge: unverified } }\n";

#[test]
fn a_level_by_hand_enforces_ends_and_survives_a_kill() {
    let server = upstream();
    let place = Place::new(server.address(), RULE);
    let process = place.serve();
    let (com, net) = (txt("www.example.com"), txt("www.example.net"));
    assert_eq!(place.rcode(&com), Some(NOERROR));
    let explained = [
        "explain",
        "--source",
        "192.0.2.7",
        "--qname",
        "www.example.com",
        "--qtype",
        "TXT",
    ];
    let waits = place.ask(&explained).unwrap();
    assert!(
        waits.contains("does not count: waits for level attack"),
        "{waits}"
    );

    let set = place.ask(&[
        "level",
        "set",
        "attack",
        "--zone",
        "example.com",
        "--for",
        "10m",
        "--reason",
        "a drill",
    ]);
    assert_eq!(
        set.unwrap(),
        "the level of example.com is at least attack for 10m\n"
    );
    wait_until("the rule counts", || place.rcode(&com) == Some(REFUSED));
    assert_eq!(place.rcode(&net), Some(NOERROR), "only for its zone");
    place.ask(&["reload"]).unwrap();
    assert_eq!(place.rcode(&com), Some(REFUSED), "a reload changes nothing");
    // who did not prove its address is asked to, and can
    let a = a_query("www.example.com", 1);
    assert_eq!(place.answer([127, 0, 0, 1], &a), Some((NOERROR, true)));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, place.port)).unwrap();
    let len = u16::try_from(a.len()).unwrap().to_be_bytes();
    stream.write_all(&[&len, &a[..]].concat()).unwrap();
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(parse(&answer).answers.len(), 1);
    assert_eq!(
        place.answer([127, 0, 0, 1], &a),
        Some((NOERROR, false)),
        "it is verified now"
    );
    process.kill();

    let _process = place.serve();
    wait_until("it counts again", || place.rcode(&com) == Some(REFUSED));
    let levels = place.ask(&["levels"]).unwrap();
    let line = levels
        .lines()
        .find(|line| line.starts_with("example.com"))
        .unwrap();
    assert!(
        line.contains("attack") && line.contains("operator"),
        "{levels}"
    );
    assert!(
        place
            .ask(&["status"])
            .unwrap()
            .contains("set by hand    example.com attack for 9m")
    );
    assert!(place.ask(&["rules"]).unwrap().contains("attack"));

    let pinned = place.ask(&["level", "set", "calm", "--for", "2s"]).unwrap();
    assert!(pinned.contains("warning: "), "{pinned}");
    assert_eq!(
        place.json(&["level"])["by_hand"].as_array().unwrap().len(),
        2
    );
    place
        .ask(&["level", "release", "--zone", "example.com"])
        .unwrap();
    wait_until("the rule no longer counts", || {
        place.rcode(&com) == Some(NOERROR)
    });
    place
        .ask(&["level", "set", "attack", "--for", "1s"])
        .unwrap();
    wait_until("the whole is at attack", || {
        place.rcode(&net) == Some(REFUSED)
    });
    wait_until("the time is over", || place.rcode(&net) == Some(NOERROR));
    let none = place.ask(&["level", "release"]).unwrap_err();
    assert!(none.contains("no level is set by hand for whole"), "{none}");
    let wrong = place
        .ask(&["level", "set", "attack", "--zone", "www.example.com"])
        .unwrap_err();
    assert!(
        wrong.contains("its names are judged with those of example.com"),
        "{wrong}"
    );
}

/// The file of an incident that is going on: a direct flood from 127.0.0.9 and two whose addresses speak for them.
fn open_incident(number: u64, at: f64) -> Value {
    let source = |prefix: &str, known: bool| json!({"prefix": prefix, "rate": 5000.0, "share": 0.3, "known": known, "verified": false});
    json!({"format": "dnscrub-incident", "version": 1, "incident": {
        "number": number, "kind": "direct-flood", "confidence": 0.9, "sentence": "A flood.",
        "began": at - 20.0, "opened": at - 17.0, "closed": null,
        "zones": [{"zone": "example.com", "rate": 9000.0, "usual": 10.0, "share": 0.9}],
        "names": [], "qtypes": [],
        "sources": {"distinct": 3.0, "usual": 2.0, "never_seen": 0.9, "spoofed": "unlikely", "why": "",
            "top": [source("127.0.0.9/32", false), source("127.0.0.8/32", true), source("127.0.0.7/32", false)]},
        "evidence": [], "peak": {"queries": 9000.0, "at": at - 10.0},
        "impact": {"asked": 0.0, "served": 0.0, "challenged": 0.0, "lost": 0.0, "seconds_impaired": 0.0, "shed": 0.0},
        "timeline": [{"at": at - 1.0, "what": "grew", "text": "It grew."}],
        "actions": [], "points": []
    }})
}

const BLOCKS: &str = "response: { blocks: { mode: enforce, for: 10m } }\n\
                      blocklist: { never-block: [ 127.0.0.7 ] }\n";

#[test]
fn an_incident_is_kept_acted_upon_and_undone_over_a_kill() {
    let server = upstream();
    let place = Place::new(server.address(), BLOCKS);
    let state = |name: &str| place.path("state").join(name);
    let write = |name: &str, content: Value| fs::write(state(name), content.to_string()).unwrap();
    write("incidents/000007.json", open_incident(7, now()));
    fs::write(state("incidents/000006.json"), "{ half").unwrap();
    // what the busiest source sends in calm times is known from before
    write(
        "response.json",
        json!({"format": "dnscrub-response", "version": 1, "state": {"busiest": {"rate": 10.0, "seconds": 600.0}}}),
    );
    let process = place.serve();
    let a = a_query("www.example.com", 1);
    let from = |last: u8| place.answer([127, 0, 0, last], &a).map(|(rcode, _)| rcode);
    wait_until("the source is blocked", || from(9).is_none());
    for spared in [8, 7, 1] {
        assert_eq!(from(spared), Some(NOERROR), "127.0.0.{spared}");
    }
    assert!(place.log().contains("000006.json"), "{}", place.log());
    assert!(state("incidents/000006.json.damaged").exists());
    let entry = place.json(&["blocklist", "show", "127.0.0.9"]);
    assert_eq!(entry["entries"][0]["origin"], "incident:7");
    assert_eq!(entry["entries"][0]["reason"], "incident 7: direct flood");
    let listed = place.ask(&["incidents", "list", "--open"]).unwrap();
    assert!(
        listed.contains("direct flood") && listed.contains("going on"),
        "{listed}"
    );
    let levels = place.ask(&["levels"]).unwrap();
    assert!(levels.contains("incident 7"), "{levels}");
    place
        .ask(&["incidents", "note", "7", "called the customer"])
        .unwrap();
    wait_until("the block is on the disk", || {
        let read = |name| fs::read_to_string(state(name)).unwrap_or_default();
        read("blocklist.json").contains("127.0.0.9") && read("response.json").contains("127.0.0.9")
    });
    process.kill();

    let _process = place.serve();
    assert_eq!(from(9), None, "still blocked");
    let shown = place.ask(&["incidents", "show", "7"]).unwrap();
    for told in [
        "called the customer",
        "blocked 127.0.0.9 for 10m",
        "did not block 127.0.0.7: 127.0.0.7/32 is never blocked",
        "raised example.com to level attack",
        "dnscrub was started again",
        "in force",
    ] {
        assert!(shown.contains(told), "{told:?} is not in\n{shown}");
    }
    place
        .ask(&["incidents", "close", "7", "--note", "a false alarm"])
        .unwrap();
    wait_until("the block is undone", || from(9) == Some(NOERROR));
    wait_until("everything is undone", || {
        let incident = place.json(&["incidents", "show", "7"]);
        let actions = incident["actions"].as_array().unwrap().clone();
        let mut lasting = actions.iter().filter(|it| it["lasting"] == true);
        lasting.all(|it| it["undone"].is_number())
    });
    assert_eq!(place.json(&["level"])["by_incident"], json!([]));
    let again = place.ask(&["incidents", "close", "7"]).unwrap_err();
    assert!(again.contains("incident 7 is over already"), "{again}");
}

#[test]
fn a_real_flood_is_noticed_named_raises_the_level_and_is_closed_after_its_end() {
    let server = upstream();
    let place = Place::new(server.address(), "");
    let _process = place.serve();
    let flooding = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    let asked = AtomicU32::new(0);
    std::thread::scope(|scope| {
        // polite questions all the time, and, while it is on, the flood's
        scope.spawn(|| {
            let polite = place.client([127, 0, 0, 1]);
            let flood = place.client([127, 0, 0, 9]);
            while !done.load(Relaxed) {
                let _ = polite.send(&a_query("www.example.com", 1));
                if flooding.load(Relaxed) {
                    for _ in 0..12 {
                        let number = asked.fetch_add(1, Relaxed);
                        let label = number.wrapping_mul(2_654_435_761);
                        let _ = flood.send(&a_query(&format!("x{label:08x}.example.com"), 1));
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let points = || place.json(&["incidents", "list"]);
        wait_until("it is known what is usual", || {
            let page = place.ask(&["status", "--json"]).unwrap();
            let status: Value = serde_json::from_str(&page).unwrap();
            status["uptime_seconds"].as_f64().unwrap() > 15.0
        });
        assert_eq!(points(), json!([]), "nothing happened yet");
        flooding.store(true, Relaxed);
        wait_until("the flood is named", || {
            points()[0]["kind"] == "random-subdomains"
        });
        wait_until("its zone is raised", || {
            place.json(&["level"])["by_incident"][0]["zones"] == json!(["example.com"])
        });
        let file = place.path("state/incidents/000001.json");
        wait_until("it is on the disk", || file.exists());
        flooding.store(false, Relaxed);
        wait_until("it is over", || points()[0]["closed"].is_number());
        done.store(true, Relaxed);
    });
    wait_until("the level is let go", || {
        place.json(&["level"])["by_incident"] == json!([])
    });
    let shown = place.ask(&["incidents", "show", "1"]).unwrap();
    assert!(
        shown.contains("raised example.com to level attack"),
        "{shown}"
    );
    assert!(
        shown.contains("let the level of example.com go: it is over"),
        "{shown}"
    );
}
