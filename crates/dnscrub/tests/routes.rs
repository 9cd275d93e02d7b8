//! Routes arrive at a real router's program and go again: ExaBGP and GoBGP in network namespaces, with the
//! configuration of deploy/exabgp. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure here fails the test"
)]

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dnscrub::config::Disk;
use dnscrub::config::runtime::{self, Surroundings};
use dnscrub::incidents::Event;
use dnscrub::routes::{RouteState, RoutesPage};
use dnscrub::supervisor::Supervisor;
use dnscrub_detection::incident::{Action, Peak, SourcePart, Sources, Spoofed, ZonePart};
use dnscrub_detection::{Happened, Incident, Kind};
use dnscrub_testkit::bgp::{self, BgpLab};
use dnscrub_testkit::servers::free_port;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn deployed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/exabgp")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// The namespaces of deploy/exabgp.
fn lab() -> BgpLab {
    let links = [
        ("198.51.100.2/24", "198.51.100.1/24"),
        ("2001:db8:51::2/64", "2001:db8:51::1/64"),
    ];
    BgpLab::start(&links, &deployed("gobgpd.toml"))
}

/// ExaBGP as it is deployed, but with this program and this socket.
fn exabgp(lab: &mut BgpLab, socket: &Path) {
    let conf = deployed("exabgp.conf")
        .replace("/usr/local/bin/dnscrub", env!("CARGO_BIN_EXE_dnscrub"))
        .replace(
            "/run/dnscrub-routes/exabgp.sock",
            &socket.display().to_string(),
        );
    lab.start_exabgp(&conf);
}

fn wait_until(what: &str, lab: &BgpLab, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}: not in time\n{}", lab.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Names of GoBGP's routes of a family.
fn names(json: &str) -> Vec<String> {
    let routes: Value = serde_json::from_str(json).unwrap_or_default();
    let routes = routes.as_object().into_iter().flatten();
    routes.map(|(name, _)| name.clone()).collect()
}

fn has(part: &str) -> impl Fn(&str) -> bool {
    move |json| names(json).iter().any(|name| name.contains(part))
}

fn has_not(part: &str) -> impl Fn(&str) -> bool {
    move |json| !has(part)(json)
}

/// The communities of the route of this name.
fn communities(json: &str, name: &str) -> Vec<u64> {
    let routes: Value = serde_json::from_str(json).unwrap();
    let attributes = routes[name][0]["attrs"].as_array().unwrap();
    let found = attributes.iter().find(|it| it["type"] == 8);
    let found = found.and_then(|it| it["communities"].as_array());
    found
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect()
}

const fn community(high: u64, low: u64) -> u64 {
    high << 16 | low
}

/// The program in this process.
struct Inside {
    supervisor: Arc<Supervisor>,
    runtime: Handle,
    thread: Option<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
    path: PathBuf,
}

impl Inside {
    fn start(folder: &Path, routes: &str) -> Self {
        let path = folder.join("dnscrub.yaml");
        write(folder, &path, free_port(false), routes);
        let configuration = runtime::load(&path, &Disk, Surroundings::at_start())
            .unwrap_or_else(|problems| panic!("{problems}"));
        let (started, starting) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let config = path.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let running = dnscrub::program::start(config, configuration).unwrap();
                let supervisor = Arc::clone(&running.supervisor);
                started.send((supervisor, Handle::current())).unwrap();
                let _ = stopped.await;
                running.stop().await;
            });
        });
        let (supervisor, runtime) = starting.recv().unwrap();
        Self {
            supervisor,
            runtime,
            thread: Some(thread),
            stop: Some(stop),
            path,
        }
    }

    fn reload(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&self.path, text.replace(from, to)).unwrap();
        let report = self.runtime.block_on(self.supervisor.reload()).unwrap();
        assert_eq!(report.restart_needed, [""; 0]);
    }

    fn shared(&self) -> &dnscrub::shared::Shared {
        &self.supervisor.shared
    }

    fn page(&self) -> RoutesPage {
        self.shared().routes.page(self.shared())
    }

    fn publish(&self, happened: Happened, incident: &Incident) {
        self.shared().incidents.publish(&Event {
            happened,
            incident: Arc::new(incident.clone()),
        });
    }

    fn close(&self, number: u64) {
        let known = self.shared().incidents.get(number).unwrap();
        let mut incident = (*known).clone();
        incident.closed = Some(incident.opened + 100.0);
        self.publish(Happened::Closed, &incident);
    }

    fn states(&self) -> Vec<RouteState> {
        self.page().routes.iter().map(|it| it.state).collect()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(folder: &Path, path: &Path, port: u16, routes: &str) {
    let here = folder.display();
    let text = format!(
        "workers: 1\n\
         listen: [ {{ address: \"127.0.0.1:{port}\" }} ]\n\
         pools:\n  default:\n    upstreams: [ {{ address: \"127.0.0.1:5301\" }} ]\n    \
         health: {{ query: \"example.com. SOA\", interval: 200ms, timeout: 150ms, rise: 1, fall: 2 }}\n\
         control: {{ socket: \"{here}/control.sock\" }}\n\
         state: {{ folder: \"{here}/state\" }}\n\
         routes:\n  socket: \"{here}/routes.sock\"\n\
         \x20 services: [ 192.0.2.53, 192.0.2.54, \"2001:db8:53::53\" ]\n{routes}"
    );
    fs::write(path, text).unwrap();
}

fn incident(number: u64, kind: Kind, zone: &str, sources: &[&str]) -> Incident {
    let top = sources.iter().map(|prefix| SourcePart {
        prefix: prefix.parse().unwrap(),
        rate: 20_000.0,
        share: 0.3,
        known: false,
        verified: false,
    });
    Incident {
        confidence: 0.9,
        sentence: "Made by hand.".to_owned(),
        zones: vec![ZonePart {
            zone: zone.to_owned(),
            rate: 300_000.0,
            usual: 100.0,
            share: 1.0,
        }],
        sources: Sources {
            spoofed: Spoofed::Unlikely,
            top: top.collect(),
            ..Sources::default()
        },
        peak: Peak {
            queries: 300_000.0,
            at: 1_020.0,
        },
        ..Incident::new(number, kind, 1_000.0, 1_010.0)
    }
}

/// What the record says was done about routes; others act as well.
fn announcements(incident: &Incident) -> Vec<Action> {
    let actions = incident.actions.iter();
    actions
        .filter(|action| action.text.starts_with("announces route "))
        .cloned()
        .collect()
}

const LIMITS: &str = "  limits:\n    destinations: [ 192.0.2.0/24, \"2001:db8:53::/48\" ]\n    \
                      never: [ 203.0.113.0/24 ]\n    linger: 0s\n";

#[test]
fn routes_follow_incidents_as_far_as_the_mode_lets_them() {
    let mut lab = lab();
    let routes = format!(
        "  mode: dry-run\n{LIMITS}  flowspec: {{ for: [ direct-flood ] }}\n  blackhole:\n    \
         give-up: [ {{ address: 192.0.2.54, zones: [ example.org ], over: 200000 }} ]\n"
    );
    let inside = Inside::start(lab.folder(), &routes);
    let socket = lab.folder().join("routes.sock");
    exabgp(&mut lab, &socket);
    wait_until("the session is up", &lab, || {
        inside
            .page()
            .sessions
            .get("198.51.100.1")
            .map(String::as_str)
            == Some("up")
    });

    let flood = incident(
        1,
        Kind::DirectFlood,
        "example.com",
        &["198.18.0.7/32", "2001:db8:bad::/56", "203.0.113.9/32"],
    );
    inside.publish(Happened::Opened, &flood);
    let carpet = incident(2, Kind::SpoofedCarpet, "example.org", &[]);
    inside.publish(Happened::Opened, &carpet);

    // dry-run: recorded, not announced
    let dry_run = [
        RouteState::DryRun,
        RouteState::DryRun,
        RouteState::DryRun,
        RouteState::Refused,
        RouteState::Refused,
        RouteState::DryRun,
    ];
    wait_until("all is noted", &lab, || inside.states() == dry_run);
    let page = inside.page();
    let reason = page.routes[3].reason.as_deref();
    assert!(
        reason.is_some_and(|it| it.contains("routes.limits.never")),
        "{page:?}"
    );
    for family in ["ipv4", "ipv4-flowspec", "ipv6-flowspec"] {
        assert_eq!(names(&lab.routes(family)), [""; 0], "{family}");
    }
    let record = inside.shared().incidents.get(1).unwrap();
    let said: Vec<&str> = record.timeline.iter().map(|it| it.text.as_str()).collect();
    assert!(
        said.iter()
            .any(|it| it.starts_with("would announce route 1, "))
            && said.iter().any(|it| it.starts_with("refused route 4, ")),
        "{said:?}"
    );
    assert_eq!(announcements(&record), []);

    // confirm: one is approved, and only that one arrives
    inside.reload("mode: dry-run", "mode: confirm");
    wait_until("they wait", &lab, || {
        inside.states()[0] == RouteState::Waiting
    });
    let shared = inside.shared();
    shared.routes.approve(shared, "1").unwrap();
    let arrived = lab.wait("the approved rule", "ipv4-flowspec", has("198.18.0.7/32"));
    assert_eq!(
        names(&arrived),
        [
            "[destination: 192.0.2.53/32][source: 198.18.0.7/32][protocol: ==tcp ==udp][destination-port: ==53]"
        ]
    );

    // announce: all that is allowed arrives
    inside.reload("mode: confirm", "mode: announce");
    lab.wait("the other service", "ipv4-flowspec", has("192.0.2.54/32"));
    lab.wait("the IPv6 rule", "ipv6-flowspec", has("2001:db8:bad::/56"));
    let arrived = lab.wait("the blackhole", "ipv4", has("192.0.2.54/32"));
    assert_eq!(
        communities(&arrived, "192.0.2.54/32"),
        [community(65535, 666), community(65535, 65281)]
    );
    assert!(has_not("203.0.113")(&lab.routes("ipv4-flowspec")));
    wait_until("ExaBGP has confirmed", &lab, || {
        let states = inside.states();
        states
            .iter()
            .filter(|it| **it == RouteState::Announced)
            .count()
            == 4
    });
    let record = inside.shared().incidents.get(1).unwrap();
    let actions = announcements(&record);
    assert_eq!(actions.len(), 3, "{actions:?}");
    assert!(actions.iter().all(|it| it.lasting && it.undone.is_none()));

    // by hand, and when the incident is over
    let shared = inside.shared();
    shared.routes.withdraw(shared, "1").unwrap();
    lab.wait(
        "withdrawn by hand",
        "ipv4-flowspec",
        has_not("destination: 192.0.2.53"),
    );
    inside.close(1);
    lab.wait("the flood is over", "ipv4-flowspec", has_not("198.18.0.7"));
    lab.wait("the flood is over", "ipv6-flowspec", has_not("bad"));
    let record = inside.shared().incidents.get(1).unwrap();
    assert!(
        announcements(&record).iter().all(|it| it.undone.is_some()),
        "{record:?}"
    );
    assert!(
        has("192.0.2.54/32")(&lab.routes("ipv4")),
        "the carpet is not"
    );

    // a route lingers, is said to, and goes
    inside.reload("linger: 0s", "linger: 1h");
    inside.close(2);
    let said = |text: &str| {
        let record = inside.shared().incidents.get(2).unwrap();
        let said = record.timeline.iter();
        said.filter(|it| it.text.contains(text)).count()
    };
    wait_until("it lingers", &lab, || said("lingers for 1h, until ") == 1);
    let page = inside.page();
    assert!(
        page.routes.len() == 1 && page.routes[0].lingers_until.is_some(),
        "{page:?}"
    );
    assert!(has("192.0.2.54/32")(&lab.routes("ipv4")));
    inside.reload("linger: 1h", "linger: 1s");
    lab.wait("it has lingered", "ipv4", has_not("192.0.2.54/32"));
    wait_until("it is undone", &lab, || {
        said("it lingered for 1s after the incident") == 1
    });
    let record = inside.shared().incidents.get(2).unwrap();
    let actions = announcements(&record);
    assert!(
        actions.len() == 1 && actions[0].undone.is_some(),
        "{actions:?}"
    );
    assert_eq!(said("lingers for "), 1, "{record:?}");

    // the mode goes back, and so does everything
    let carpet = incident(3, Kind::SpoofedCarpet, "example.org", &[]);
    inside.publish(Happened::Opened, &carpet);
    lab.wait("the next carpet", "ipv4", has("192.0.2.54/32"));
    inside.reload("mode: announce", "mode: dry-run");
    lab.wait("dry-run again", "ipv4", has_not("192.0.2.54/32"));
}

/// A program that serves, as a process in the node's namespace.
struct Node {
    child: Child,
    socket: PathBuf,
}

impl Node {
    fn start(lab: &BgpLab, folder: &Path) -> Self {
        let config = folder.join("dnscrub.yaml").display().to_string();
        let program = Path::new(env!("CARGO_BIN_EXE_dnscrub"));
        let child = lab.start_in_node(program, &["run", "--config", &config], "dnscrub.log");
        Self {
            child,
            socket: folder.join("control.sock"),
        }
    }

    fn command(&self, arguments: &[&str]) -> Result<String, String> {
        program::ask(&self.socket, arguments)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        bgp::thaw(&mut self.child);
        bgp::end(&mut self.child);
    }
}

/// NSD in the node's namespace.
struct Upstream(Child);

impl Upstream {
    fn start(lab: &BgpLab) -> Self {
        let here = lab.folder().display();
        fs::write(
            lab.folder().join("zone"),
            "@ 3600 IN SOA ns hostmaster 1 3600 600 86400 300\n@ 3600 IN NS ns\nns 3600 IN A 192.0.2.53\n",
        )
        .unwrap();
        let conf = format!(
            "server:\nusername: \"\"\nchroot: \"\"\nzonesdir: \"{here}\"\nxfrdir: \"{here}\"\n\
             pidfile: \"{here}/nsd.pid\"\nxfrdfile: \"{here}/xfrd\"\nzonelistfile: \"{here}/zone.list\"\n\
             ip-address: 127.0.0.1@5301\nserver-count: 1\nrrl-ratelimit: 0\n\
             remote-control:\ncontrol-enable: no\n\
             zone:\nname: example.com\nzonefile: zone\n"
        );
        let path = lab.folder().join("nsd.conf");
        fs::write(&path, conf).unwrap();
        let program = Path::new("/usr/sbin/nsd");
        assert!(program.exists(), "install the Debian package nsd");
        let path = path.display().to_string();
        Self(lab.start_in_node(program, &["-d", "-c", &path], "nsd.log"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        bgp::kill(&mut self.0);
    }
}

const ANYCAST: &str = "192.0.2.0/24";

#[test]
fn the_anycast_route_follows_the_node_and_nothing_outlives_the_program() {
    let mut lab = lab();
    let routes = format!(
        "  mode: announce\n{LIMITS}  flowspec: {{}}\n  anycast:\n    prefixes: [ {ANYCAST} ]\n    \
         failed-after: 1s\n    hold-down: 1s\n    max-withdrawals: 10\n    drain: 500ms\n    drain-file: drain\n"
    );
    let folder = lab.folder().to_owned();
    write(&folder, &folder.join("dnscrub.yaml"), 5399, &routes);
    let socket = folder.join("routes.sock");
    exabgp(&mut lab, &socket);
    let mut node = Node::start(&lab, &folder);

    // no upstream, no route; with one it is there
    wait_until("the session is up", &lab, || {
        let listed = node.command(&["routes", "list"]);
        listed.is_ok_and(|it| {
            it.contains("198.51.100.1 up") && it.contains("no upstream can be used")
        })
    });
    assert_eq!(names(&lab.routes("ipv4")), [""; 0]);
    let upstream = Upstream::start(&lab);
    lab.wait("the node serves", "ipv4", has(ANYCAST));
    assert_eq!(communities(&lab.routes("ipv4"), ANYCAST), [0; 0]);

    // a rule by hand, within the limits
    let rule = [
        "routes",
        "announce",
        "--source",
        "198.18.0.7",
        "--for",
        "1h",
        "--reason",
        "ticket 4711",
    ];
    let said = node.command(&rule).unwrap();
    assert!(
        said.contains("announces route 1, FlowSpec rule against 198.18.0.7/32"),
        "{said}"
    );
    lab.wait("the rule by hand", "ipv4-flowspec", has("192.0.2.54/32"));
    for (source, why) in [
        ("203.0.113.9", "routes.limits.never"),
        ("198.18.0.0/15", "routes.limits.shortest-source"),
    ] {
        let refused = node
            .command(&["routes", "announce", "--source", source])
            .unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }

    // the upstream dies: the route goes, the rule does not, and it comes back
    drop(upstream);
    lab.wait("the node has failed", "ipv4", has_not(ANYCAST));
    assert!(has("198.18.0.7")(&lab.routes("ipv4-flowspec")));
    let upstream = Upstream::start(&lab);
    lab.wait("the node is back", "ipv4", has(ANYCAST));

    // maintenance
    fs::write(folder.join("drain"), "").unwrap();
    lab.wait("drained", "ipv4", has_not(ANYCAST));
    fs::remove_file(folder.join("drain")).unwrap();
    lab.wait("no longer drained", "ipv4", has(ANYCAST));

    // ExaBGP's process dies: ExaBGP starts it anew, and all is as before
    let before = lab.exabgp_children();
    assert_eq!(before.len(), 1, "{}", lab.logs());
    let killed = Command::new("kill")
        .args(["-9", &before[0].to_string()])
        .status();
    assert!(killed.unwrap().success());
    wait_until("it is started anew", &lab, || {
        let now = lab.exabgp_children();
        now.len() == 1 && now != before
    });
    lab.wait("all is there again", "ipv4", has(ANYCAST));
    lab.wait("all is there again", "ipv4-flowspec", has("192.0.2.54/32"));

    // the program is stuck, then dead: nothing stays
    bgp::freeze(&mut node.child);
    lab.wait("silence", "ipv4", has_not(ANYCAST));
    lab.wait("silence", "ipv4-flowspec", has_not("198.18.0.7"));
    bgp::thaw(&mut node.child);
    lab.wait("it speaks again", "ipv4", has(ANYCAST));
    lab.wait("it speaks again", "ipv4-flowspec", has("192.0.2.54/32"));
    bgp::kill(&mut node.child);
    lab.wait("it is dead", "ipv4", has_not(ANYCAST));
    lab.wait("it is dead", "ipv4-flowspec", has_not("198.18.0.7"));

    // a new one, and its orderly end: the route is gone before the program is
    let mut node = Node::start(&lab, &folder);
    lab.wait("a new program", "ipv4", has(ANYCAST));
    // with what was in force
    lab.wait("a new program", "ipv4-flowspec", has("198.18.0.7"));
    let id = node.child.id().to_string();
    assert!(Command::new("kill").arg(&id).status().unwrap().success());
    lab.wait("it stops", "ipv4", has_not(ANYCAST));
    lab.wait("it stops", "ipv4-flowspec", has_not("198.18.0.7"));
    wait_until("it has stopped", &lab, || {
        node.child.try_wait().unwrap().is_some()
    });
    drop(upstream);
}
