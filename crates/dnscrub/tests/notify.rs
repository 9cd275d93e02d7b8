//! People are told of incidents: webhooks that are down for a while, a real Alertmanager and its
//! escalation, commands; over restarts, kills and reloads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

mod program;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dnscrub::config::Disk;
use dnscrub::config::runtime::{self, Surroundings};
use dnscrub::control::server;
use dnscrub::incidents::Event;
use dnscrub::incidents::folder::Folder;
use dnscrub::metrics;
use dnscrub::supervisor::Supervisor;
use dnscrub_detection::incident::{What, ZonePart};
use dnscrub_detection::{Happened, Incident, Kind};
use dnscrub_testkit::alertmanager::{Alertmanager, check_config};
use dnscrub_testkit::servers::free_port;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use program::{now, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);
const SECRETS: [&str; 2] = [
    "0123456789abcdef0123456789abcdef",
    "another-secret-of-32-characters-",
];

fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_for(PATIENCE, what, condition);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A request that came in.
#[derive(Clone, Debug)]
struct Got {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(it, _)| it.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    /// The event and the incident's number.
    fn event(&self) -> (String, u64) {
        let json = self.json();
        let event = json["event"].as_str().unwrap().to_owned();
        (event, json["incident"]["number"].as_u64().unwrap())
    }
}

/// A tiny HTTP server that keeps what it gets and answers as it is told.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    /// Answers to give next; 200 when there is none.
    answers: Arc<Mutex<Vec<&'static str>>>,
}

impl Receiver {
    fn start() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let got = Arc::<Mutex<Vec<Got>>>::default();
        let answers = Arc::<Mutex<Vec<&'static str>>>::default();
        let (sink, source) = (Arc::clone(&got), Arc::clone(&answers));
        // it lives as long as the test's process
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (sink, source) = (Arc::clone(&sink), Arc::clone(&source));
                std::thread::spawn(move || serve(stream, &sink, &source));
            }
        });
        Self {
            address,
            got,
            answers,
        }
    }

    fn answer(&self, answers: &[&'static str]) {
        lock(&self.answers).extend(answers.iter().rev());
    }

    fn got(&self) -> Vec<Got> {
        lock(&self.got).clone()
    }

    fn events(&self) -> Vec<(String, u64)> {
        self.got().iter().map(Got::event).collect()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

fn serve(stream: TcpStream, sink: &Mutex<Vec<Got>>, answers: &Mutex<Vec<&'static str>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let mut got = Got {
        path: first.split(' ').nth(1).unwrap_or_default().to_owned(),
        headers,
        body: Vec::new(),
    };
    let length = got.header("content-length").unwrap().parse().unwrap();
    got.body = vec![0; length];
    reader.read_exact(&mut got.body).unwrap();
    lock(sink).push(got);
    let answer = lock(answers).pop().unwrap_or("200 OK");
    let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    // who asks may have gone
    let _ = (&stream).write_all(text.as_bytes());
}

/// The program in this process, with a folder of its own.
struct Program {
    folder: TempDir,
    running: Option<Control>,
}

/// The thread of its control side.
struct Control {
    supervisor: Arc<Supervisor>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Program {
    /// A program with these lines under `notify:`.
    fn start(notify: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dnscrub-test-")
            .tempdir()
            .unwrap();
        fs::write(folder.path().join("secret"), SECRETS[0]).unwrap();
        fs::write(folder.path().join("next-secret"), SECRETS[1]).unwrap();
        let mut program = Self {
            folder,
            running: None,
        };
        program.configure(notify);
        program.run();
        program
    }

    fn configure(&self, notify: &str) {
        let here = self.folder.path().display();
        let text = format!(
            "workers: 1\nlisten: [ {{ address: \"127.0.0.1:{}\" }} ]\n\
             pools: {{ default: {{ upstreams: [ {{ address: \"127.0.0.1:{}\" }} ] }} }}\n\
             state: {{ folder: \"{here}\" }}\ncontrol: {{ socket: \"{here}/control.sock\" }}\n\
             notify:\n  instance: edge-1\n{notify}",
            free_port(false),
            free_port(false),
        );
        fs::write(self.folder.path().join("dnscrub.yaml"), text).unwrap();
    }

    fn run(&mut self) {
        let path = self.folder.path().join("dnscrub.yaml");
        let configuration = runtime::load(&path, &Disk, Surroundings::at_start())
            .unwrap_or_else(|problems| panic!("{problems}"));
        let (started, starting) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let control = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            control.block_on(async {
                let running = dnscrub::program::start(path, configuration).unwrap();
                let server = server::start(&running.supervisor).await.unwrap();
                started.send(Arc::clone(&running.supervisor)).unwrap();
                // it is dropped to say so
                let _ = stopped.await;
                drop(server);
                running.stop().await;
            });
        });
        self.running = Some(Control {
            supervisor: starting.recv().unwrap(),
            stop,
            thread,
        });
    }

    fn stop(&mut self) {
        let Control { stop, thread, .. } = self.running.take().unwrap();
        drop(stop);
        thread.join().unwrap();
    }

    /// What a kill at this moment would leave on the disk, and a program that starts from it.
    fn as_if_killed(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let from = self.folder.path().display().to_string();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let config = folder.path().join("dnscrub.yaml");
        let text = fs::read_to_string(&config).unwrap();
        let text = text.replace(&from, &folder.path().display().to_string());
        let listen = text
            .lines()
            .find(|line| line.starts_with("listen:"))
            .unwrap();
        let elsewhere = format!(
            "listen: [ {{ address: \"127.0.0.1:{}\" }} ]",
            free_port(false)
        );
        fs::write(&config, text.replace(listen, &elsewhere)).unwrap();
        let mut program = Self {
            folder,
            running: None,
        };
        program.run();
        program
    }

    fn supervisor(&self) -> &Supervisor {
        &self.running.as_ref().unwrap().supervisor
    }

    fn publish(&self, happened: Happened, incident: &Incident) {
        let known = self.known(incident.number);
        // the record keeps its time line
        let timeline = known.map_or_else(|| incident.timeline.clone(), |it| it.timeline.clone());
        let incident = Arc::new(Incident {
            timeline,
            ..incident.clone()
        });
        let event = Event { happened, incident };
        self.supervisor().shared.incidents.publish(&event);
    }

    fn known(&self, number: u64) -> Option<Arc<Incident>> {
        self.supervisor().shared.incidents.get(number)
    }

    /// What the incident's time line says about who was told.
    fn told(&self, number: u64) -> Vec<String> {
        let incident = self.known(number).unwrap();
        let told = incident
            .timeline
            .iter()
            .filter(|it| matches!(it.what, What::Told | What::Untold));
        told.map(|it| it.text.clone()).collect()
    }

    fn metric(&self, series: &str) -> f64 {
        let text = metrics::exposition(self.supervisor());
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("{series} is not in\n{text}"))
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.folder.path().join("notices.log")).unwrap_or_default()
    }

    fn ask(&self, arguments: &[&str]) -> (bool, String) {
        let output = program::run(&self.folder.path().join("control.sock"), arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.stop();
        }
    }
}

fn incident(number: u64) -> Incident {
    let zone = ZonePart {
        zone: "example.com".to_owned(),
        rate: 12_000.0,
        usual: 30.0,
        share: 1.0,
    };
    let mut incident = Incident {
        confidence: 0.9,
        sentence: "Random names below example.com.".to_owned(),
        zones: vec![zone],
        ..Incident::new(number, Kind::RandomSubdomains, now() - 5.0, now())
    };
    incident.tell(now(), What::Opened, "It was noticed.");
    incident
}

fn over(incident: &Incident) -> Incident {
    Incident {
        closed: Some(now()),
        ..incident.clone()
    }
}

fn events(events: &[(&str, u64)]) -> Vec<(String, u64)> {
    let events = events.iter();
    events
        .map(|(event, number)| ((*event).to_owned(), *number))
        .collect()
}

/// Runs the example of the page about notifications on a request; returns whether it says that the
/// signature is right.
fn verified(got: &Got, secret: &str) -> bool {
    let page = fs::read_to_string(root().join("docs/notify.md")).unwrap();
    let example = page
        .split("```python\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("example.py");
    let call =
        "import sys\nprint(verify(sys.argv[1], sys.stdin.buffer.read(), sys.argv[2].encode()))\n";
    fs::write(&script, format!("{example}\n{call}")).unwrap();
    let mut child = Command::new("python3")
        .arg(&script)
        .args([got.header("dnscrub-signature").unwrap(), secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed for this test");
    child.stdin.take().unwrap().write_all(&got.body).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim() == "True"
}

#[test]
fn a_webhook_gets_signed_notices_in_order_and_what_fails_again() {
    let receiver = Receiver::start();
    receiver.answer(&["503 Busy\r\nRetry-After: 1", "200 OK"]);
    let program = Program::start(&format!(
        "  webhooks: [ {{ name: chat, url: \"{}\", secret-files: [ secret, next-secret ] }} ]\n",
        receiver.url("hook?room=1")
    ));
    let flood = incident(1);
    program.publish(Happened::Opened, &flood);
    program.publish(Happened::Changed, &flood);
    program.publish(Happened::Closed, &over(&flood));
    wait_until("all is delivered", || receiver.got().len() == 4);
    assert_eq!(
        receiver.events(),
        events(&[("opened", 1), ("opened", 1), ("changed", 1), ("closed", 1)])
    );
    let got = receiver.got();
    let [first, again, changed] = [&got[0], &got[1], &got[2]];
    assert_eq!(first.path, "/hook?room=1");
    assert_eq!(
        (&first.json()["attempt"], &again.json()["attempt"]),
        (&1.into(), &2.into())
    );
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(
        first.header("idempotency-key"),
        again.header("idempotency-key")
    );
    assert_ne!(again.json()["id"], changed.json()["id"]);
    assert_eq!(first.header("dnscrub-event"), Some("opened"));
    assert_eq!(first.json()["program"]["host"], "edge-1");
    for secret in SECRETS {
        assert!(got.iter().all(|got| verified(got, secret)), "{got:?}");
    }
    assert!(!verified(first, "0123456789abcdef0123456789abcdeX"));
    let mut forged = first.clone();
    forged.body.push(b' ');
    assert!(!verified(&forged, SECRETS[0]));
    wait_until("the time line says so", || program.told(1).len() == 3);
    assert_eq!(
        program.told(1),
        [
            "webhook chat was told that the incident was opened",
            "webhook chat was told that the incident has changed",
            "webhook chat was told that the incident is over",
        ]
    );
    assert_eq!(
        program.metric("dnscrub_notices_total{destination=\"chat\",result=\"delivered\"}"),
        3.0
    );
    wait_until("nothing waits", || {
        program.metric("dnscrub_notices_queued{destination=\"chat\"}") == 0.0
    });
}

#[test]
fn what_a_webhook_refuses_is_given_up_counted_and_told() {
    let receiver = Receiver::start();
    receiver.answer(&["404 Not Found", "302 Found\r\nLocation: /elsewhere"]);
    let program = Program::start(&format!(
        "  webhooks: [ {{ name: chat, url: \"{}\", only: {{ attacks: true }} }} ]\n",
        receiver.url("")
    ));
    let crowd = Incident {
        kind: Kind::FlashCrowd,
        ..incident(1)
    };
    program.publish(Happened::Opened, &crowd);
    program.publish(Happened::Opened, &incident(2));
    wait_until("it is given up", || program.told(2).len() == 1);
    program.publish(Happened::Changed, &incident(2));
    wait_until("the second as well", || program.told(2).len() == 2);
    let told = program.told(2);
    assert!(
        told[0].contains("could not be told that the incident was opened: HTTP status 404"),
        "{told:?}"
    );
    assert!(told[1].contains("HTTP status 302"), "{told:?}");
    assert_eq!(receiver.events(), events(&[("opened", 2), ("changed", 2)]));
    assert!(
        receiver.got()[0].header("dnscrub-signature").is_none(),
        "without a secret"
    );
    assert!(program.told(1).is_empty(), "a flash crowd is no attack");
    let failed = "dnscrub_notices_total{destination=\"chat\",result=\"failed\"}";
    assert_eq!(program.metric(failed), 2.0);
}

#[test]
fn nothing_is_lost_when_the_receiver_is_down_and_the_program_is_killed() {
    let port = free_port(false);
    let program = Program::start(&format!(
        "  webhooks: [ {{ name: chat, url: \"http://127.0.0.1:{port}/\" }} ]\n"
    ));
    let floods = [incident(1), incident(2)];
    for flood in &floods {
        program.publish(Happened::Opened, flood);
    }
    program.publish(Happened::Closed, &over(&floods[0]));
    wait_until("it is on the disk", || {
        program.journal().contains("\"closed\"")
    });
    wait_until("it was tried", || {
        program.ask(&["notify", "status"]).1.contains("failing")
    });
    let mut killed = program.as_if_killed();
    drop(program);
    // an orderly stop in between loses nothing either
    killed.stop();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let receiver = Receiver::on(listener);
    killed.run();
    killed.publish(Happened::Closed, &over(&floods[1]));
    wait_until("all is delivered", || receiver.got().len() >= 4);
    let of = |number| {
        let of = receiver
            .events()
            .into_iter()
            .filter(move |it| it.1 == number);
        of.collect::<Vec<_>>()
    };
    assert_eq!(of(1), events(&[("opened", 1), ("closed", 1)]));
    assert_eq!(of(2), events(&[("opened", 2), ("closed", 2)]));
    let ids: std::collections::BTreeSet<_> = receiver
        .got()
        .iter()
        .map(|got| got.json()["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 4);
    // and after a last start nothing is sent again
    wait_until("nothing waits", || {
        killed.metric("dnscrub_notices_queued{destination=\"chat\"}") == 0.0
    });
    killed.stop();
    killed.run();
    killed.publish(Happened::Opened, &incident(3));
    wait_until("the new one comes", || receiver.got().len() >= 5);
    assert_eq!(receiver.events()[4..], events(&[("opened", 3)]));
}

/// As a kill leaves it between the record of an event and its notice.
#[test]
fn what_the_record_has_and_nobody_was_told_of_is_told_after_the_restart() {
    let receiver = Receiver::start();
    let chat = format!(
        "    - {{ name: chat, url: \"{}\" }}\n",
        receiver.url("chat")
    );
    let with = |number, events| Incident {
        events,
        ..incident(number)
    };
    let mut program = Program::start(&format!("  webhooks:\n{chat}"));
    // the first two are heard of; the third was before anybody listened to the record
    program.publish(Happened::Opened, &with(1, 1));
    program.publish(Happened::Opened, &with(2, 1));
    wait_until("both are told", || receiver.got().len() == 2);
    program.stop();
    let (folder, _) = Folder::open(program.folder.path()).unwrap();
    let changed = Incident {
        kind: Kind::Reflection,
        ..with(1, 2)
    };
    for record in [changed, over(&with(2, 2)), with(3, 1), over(&with(4, 2))] {
        folder.write(&record).unwrap();
    }
    program.configure(&format!(
        "  webhooks:\n{chat}    - {{ name: new, url: \"{}\" }}\n",
        receiver.url("new")
    ));
    program.run();
    wait_until("all is told", || receiver.got().len() >= 7);
    let mut told = receiver.events()[2..].to_vec();
    told.sort_by_key(|(_, number)| *number);
    let expected = [
        ("changed", 1),
        ("closed", 2),
        ("opened", 3),
        ("opened", 4),
        ("closed", 4),
    ];
    assert_eq!(told, events(&expected));
    // who is new hears of what is new only, and an event that is in the record already is told once
    assert!(receiver.got().iter().all(|got| got.path == "/chat"));
    program.stop();
    program.run();
    program.publish(Happened::Closed, &over(&with(3, 1)));
    program.publish(Happened::Opened, &with(5, 1));
    wait_until("the new one comes", || {
        receiver
            .got()
            .iter()
            .filter(|got| got.event().1 == 5)
            .count()
            == 2
    });
    let again = receiver.events()[7..].iter().filter(|it| it.1 != 5).count();
    assert_eq!(again, 0, "{:?}", receiver.events());
}

#[test]
fn a_reload_changes_who_is_told_and_drops_what_waits_for_others() {
    let (receiver, port) = (Receiver::start(), free_port(false));
    let program = Program::start(&format!(
        "  webhooks: [ {{ name: old, url: \"http://127.0.0.1:{port}/\" }} ]\n"
    ));
    program.publish(Happened::Opened, &incident(1));
    wait_until("it waits", || {
        program.metric("dnscrub_notices_queued{destination=\"old\"}") == 1.0
    });
    let config = program.folder.path().join("dnscrub.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("  webhooks"))
        .unwrap();
    let new = format!(
        "  webhooks: [ {{ name: new, url: \"{}\" }} ]",
        receiver.url("")
    );
    fs::write(&config, text.replace(line, &new)).unwrap();
    let (done, said) = program.ask(&["reload"]);
    assert!(done, "{said}");
    program.publish(Happened::Changed, &incident(1));
    wait_until("the new one is told", || receiver.got().len() == 1);
    assert_eq!(receiver.events(), events(&[("changed", 1)]));
    wait_until("it says so", || program.told(1).len() == 2);
    let told = program.told(1);
    assert!(
        told[0].contains("no longer in the configuration"),
        "{told:?}"
    );
    let (_, shown) = program.ask(&["notify", "status"]);
    assert!(shown.contains("new") && !shown.contains("old"), "{shown}");
}

#[test]
fn commands_are_run_with_the_incident() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let script = format!(
        "cat >> {0}; echo \\\" $DNSCRUB_EVENT $DNSCRUB_INCIDENT $DNSCRUB_KIND\\\" >> {0}; test $DNSCRUB_EVENT != closed",
        out.display()
    );
    let program = Program::start(&format!(
        "  commands: [ {{ name: page, run: [ /bin/sh, \"-c\", \"{script}\" ], only: {{ events: [ opened, closed ] }} }} ]\n"
    ));
    let flood = incident(7);
    program.publish(Happened::Opened, &flood);
    program.publish(Happened::Changed, &flood);
    program.publish(Happened::Closed, &over(&flood));
    wait_until("both are run", || program.told(7).len() == 2);
    let text = fs::read_to_string(out).unwrap();
    assert!(text.contains(" opened 7 random-subdomains"), "{text}");
    assert!(text.contains("\"sentence\":\"Random names"), "{text}");
    let told = program.told(7);
    assert!(
        told[0].ends_with("command page was told that the incident was opened"),
        "{told:?}"
    );
    assert!(
        told[1].contains("could not be told") && told[1].contains("exit status: 1"),
        "{told:?}"
    );
}

#[test]
fn a_test_is_sent_and_says_what_came_of_it() {
    let (receiver, port) = (Receiver::start(), free_port(false));
    let program = Program::start(&format!(
        "  webhooks:\n    - {{ name: chat, url: \"{}\" }}\n    - {{ name: down, url: \"http://127.0.0.1:{port}/secret-path\" }}\n  \
         commands: [ {{ name: page, run: [ /bin/sh, \"-c\", \"test $DNSCRUB_EVENT = test\" ] }} ]\n",
        receiver.url("secret-path")
    ));
    let (done, said) = program.ask(&["notify", "test"]);
    assert!(!done, "{said}");
    assert!(
        said.contains("chat (webhook, http://127.0.0.1:") && said.contains("told, in"),
        "{said}"
    );
    assert!(said.contains("page (command, /bin/sh): told"), "{said}");
    assert!(
        said.contains("1 of 3 could not be told") && said.contains("refused"),
        "{said}"
    );
    assert!(!said.contains("secret-path"), "{said}");
    let (done, said) = program.ask(&["notify", "test", "chat", "--json"]);
    assert!(done, "{said}");
    let results: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(results[0]["delivered"], true);
    assert_eq!(receiver.events(), events(&[("test", 0), ("test", 0)]));
    assert!(
        receiver.got()[0].json()["incident"]["sentence"]
            .as_str()
            .unwrap()
            .contains("a test")
    );
    let (done, said) = program.ask(&["notify", "test", "caht"]);
    assert!(
        !done && said.contains("there are: chat, down, page"),
        "{said}"
    );
}

#[test]
fn https_is_spoken_and_who_is_not_trusted_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let shell = |script: &str| {
        let output = Command::new("sh")
            .args(["-ec", script])
            .current_dir(here)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 9
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj /CN=localhost
         echo 'subjectAltName=IP:127.0.0.1' > ext
         openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile ext -out cert.pem",
    );
    let server = "
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(200)
        self.end_headers()
        open('got', 'ab').write(body)
    def log_message(self, *args):
        pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";
    let mut child = Command::new("python3")
        .args(["-c", server])
        .current_dir(here)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3 is needed for this test");
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut port)
        .unwrap();
    let url = format!("https://127.0.0.1:{}/", port.trim());
    let ca = here.join("ca.pem").display().to_string();
    let program = Program::start(&format!(
        "  webhooks:\n    - {{ name: known, url: \"{url}\", ca-file: \"{ca}\" }}\n    - {{ name: unknown, url: \"{url}\" }}\n"
    ));
    let (_, said) = program.ask(&["notify", "test", "known"]);
    let (done, refused) = program.ask(&["notify", "test", "unknown"]);
    // the group is its own only
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said.contains("told, in"), "{said}");
    assert!(!done && refused.contains("certificate"), "{refused}");
    assert!(
        fs::read_to_string(here.join("got"))
            .unwrap()
            .contains("\"event\":\"test\"")
    );
}

/// The alerts that are there: incident, escalation and state, sorted.
fn there(alertmanager: &Alertmanager) -> Vec<(String, String, String)> {
    let alerts: Value = serde_json::from_str(&alertmanager.alerts()).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = alerts
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| {
            (
                text(&alert["labels"]["incident"]),
                text(&alert["labels"]["escalation"]),
                text(&alert["status"]["state"]),
            )
        })
        .collect();
    found.sort();
    found
}

fn rows(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let rows = rows.iter();
    rows.map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned()))
        .collect()
}

const PLAIN: &str = "route: { receiver: none }\nreceivers: [ { name: none } ]\n";

#[test]
fn an_alertmanager_has_an_alert_as_long_as_the_incident_is_open() {
    let mut alertmanager = Alertmanager::start(PLAIN);
    let mut program = Program::start(&format!(
        "  playbook: \"https://wiki.example/{{kind}}.md\"\n  alertmanagers: [ {{ name: ops, urls: [ \"http://{}\" ], resend: 1s }} ]\n",
        alertmanager.address()
    ));
    let flood = incident(1);
    program.publish(Happened::Opened, &flood);
    wait_until("the alert is there", || there(&alertmanager).len() == 1);
    let alerts: Value = serde_json::from_str(&alertmanager.alerts()).unwrap();
    let labels = &alerts[0]["labels"];
    for (name, value) in [
        ("alertname", "DnscrubIncident"),
        ("kind", "random-subdomains"),
        ("zone", "example.com"),
        ("severity", "critical"),
        ("instance", "edge-1"),
        ("incident", "1"),
        ("escalation", "0"),
    ] {
        assert_eq!(labels[name], value, "{name}");
    }
    assert_eq!(
        alerts[0]["annotations"]["summary"],
        "Random names below example.com."
    );
    assert_eq!(
        alerts[0]["annotations"]["runbook_url"],
        "https://wiki.example/random-subdomains.md"
    );

    // a silence of the incident takes hold
    let _ = alertmanager.amtool(&[
        "silence",
        "add",
        "incident=1",
        "--author=me",
        "--comment=mine",
        "--duration=1h",
    ]);
    wait_until("it is silenced", || {
        there(&alertmanager) == rows(&[("1", "0", "suppressed")])
    });
    program.publish(Happened::Closed, &over(&flood));
    wait_until("it is resolved", || there(&alertmanager).is_empty());
    wait_until("the time line says so", || program.told(1).len() == 2);

    // away while one incident opens, and another comes and goes; the program is restarted
    alertmanager.kill();
    let (second, third) = (incident(2), incident(3));
    program.publish(Happened::Opened, &second);
    program.publish(Happened::Opened, &third);
    program.publish(Happened::Closed, &over(&third));
    wait_until("they are on the disk", || {
        program.journal().contains("\"number\":3,")
    });
    wait_until("it was tried", || {
        program.ask(&["notify", "status"]).1.contains("failing")
    });
    let killed = program.as_if_killed();
    program.stop();
    alertmanager.run();
    wait_until("both are told", || {
        there(&alertmanager) == rows(&[("2", "0", "active"), ("3", "0", "active")])
    });
    let alerts: Value = serde_json::from_str(&alertmanager.alerts()).unwrap();
    let gone = alerts
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["labels"]["incident"] == "3");
    let summary = gone.unwrap()["annotations"]["summary"].as_str().unwrap();
    assert!(summary.contains("came and went while"), "{summary}");
    // what is over resolves by itself
    wait_until("it resolves", || {
        there(&alertmanager) == rows(&[("2", "0", "active")])
    });

    let (done, said) = killed.ask(&["notify", "test", "ops"]);
    assert!(done && said.contains("told, in"), "{said}");
    assert!(alertmanager.alerts().contains("DnscrubTest"));
    killed.publish(Happened::Closed, &over(&second));
    wait_until("it is resolved", || {
        !there(&alertmanager)
            .iter()
            .any(|(incident, _, _)| incident == "2")
    });
}

#[test]
fn an_alertmanager_that_is_new_gets_what_is_open_and_what_is_none_of_its_business_resolves() {
    let alertmanager = Alertmanager::start(PLAIN);
    let program = Program::start("  commands: []\n");
    program.publish(Happened::Opened, &incident(4));
    program.publish(Happened::Closed, &over(&incident(5)));
    let config = program.folder.path().join("dnscrub.yaml");
    let text = fs::read_to_string(&config).unwrap();
    // one of its cluster is down
    let new = format!(
        "  alertmanagers: [ {{ name: ops, urls: [ \"http://{}\", \"http://127.0.0.1:{}\" ], only: {{ attacks: true }} }} ]",
        alertmanager.address(),
        free_port(false)
    );
    fs::write(&config, text.replace("  commands: []", &new)).unwrap();
    let (done, said) = program.ask(&["reload"]);
    assert!(done, "{said}");
    wait_until("it is told of what is open", || {
        there(&alertmanager) == rows(&[("4", "0", "active")])
    });
    wait_until("each is shown by itself", || {
        let (_, shown) = program.ask(&["notify", "status"]);
        shown.contains("reached") && shown.contains("failing")
    });
    assert_eq!(
        program.metric("dnscrub_notices_queued{destination=\"ops\"}"),
        1.0
    );
    let crowd = Incident {
        kind: Kind::FlashCrowd,
        ..incident(4)
    };
    program.publish(Happened::Changed, &crowd);
    wait_until("a flash crowd is no attack", || {
        there(&alertmanager).is_empty()
    });
    program.publish(Happened::Changed, &incident(4));
    wait_until("it is one after all", || {
        there(&alertmanager) == rows(&[("4", "0", "active")])
    });
}

#[test]
fn the_shipped_configuration_escalates() {
    let shipped = root().join("deploy/alertmanager/alertmanager.yml");
    let _ = check_config(&shipped);
    let receiver = Receiver::start();
    let text = fs::read_to_string(shipped).unwrap();
    let adapted: String = text
        .replace(
            "http://127.0.0.1:9095",
            &format!("http://{}", receiver.address),
        )
        .lines()
        .map(|line| {
            // as shipped, but faster
            let (name, _) = line.split_once(": ").unwrap_or((line, ""));
            match name.trim() {
                "group_wait" => format!("{name}: 100ms\n"),
                "group_interval" => format!("{name}: 1s\n"),
                _ => format!("{line}\n"),
            }
        })
        .collect();
    let alertmanager = Alertmanager::start(&adapted);
    let program = Program::start(&format!(
        "  alertmanagers: [ {{ name: ops, urls: [ \"http://{}\" ], resend: 1s, escalate: [ 4s, 8s ] }} ]\n",
        alertmanager.address()
    ));
    let flood = incident(1);
    let crowd = Incident {
        kind: Kind::FlashCrowd,
        ..incident(2)
    };
    program.publish(Happened::Opened, &flood);
    program.publish(Happened::Opened, &crowd);
    // who was notified of what, in order, each once
    let notified = |status: &str| {
        let mut notified: Vec<(String, String)> = Vec::new();
        for got in receiver.got() {
            let json = got.json();
            if json["status"] == status {
                let incident = json["commonLabels"]["incident"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                let entry = (got.path, incident);
                if !notified.contains(&entry) {
                    notified.push(entry);
                }
            }
        }
        notified
    };
    wait_until("the lead is called", || {
        notified("firing").iter().any(|(path, _)| path == "/lead")
    });
    let of_flood: Vec<_> = notified("firing")
        .into_iter()
        .filter(|it| it.1 == "1")
        .map(|it| it.0)
        .collect();
    assert_eq!(of_flood, ["/chat", "/on-call", "/lead"]);
    let of_crowd: Vec<_> = notified("firing")
        .into_iter()
        .filter(|it| it.1 == "2")
        .map(|it| it.0)
        .collect();
    assert_eq!(of_crowd, ["/chat"], "nobody is woken for a flash crowd");
    program.publish(Happened::Closed, &over(&flood));
    wait_until("all are told of the end", || {
        let of_flood = notified("resolved").into_iter().filter(|it| it.1 == "1");
        of_flood.count() == 3
    });

    // somebody takes it on: the escalation is silenced with it
    let taken = incident(3);
    program.publish(Happened::Opened, &taken);
    wait_until("it is there", || {
        there(&alertmanager).contains(&("3".to_owned(), "0".to_owned(), "active".to_owned()))
    });
    let _ = alertmanager.amtool(&[
        "silence",
        "add",
        "incident=3",
        "--author=me",
        "--comment=mine",
        "--duration=1h",
    ]);
    wait_until("it has escalated", || {
        let of_taken = there(&alertmanager).into_iter().filter(|it| it.0 == "3");
        let of_taken: Vec<_> = of_taken.collect();
        of_taken.len() == 3 && of_taken.iter().all(|it| it.2 == "suppressed")
    });
    let woken = notified("firing")
        .into_iter()
        .filter(|it| it.1 == "3" && it.0 != "/chat");
    assert_eq!(woken.count(), 0);
}
