//! The status page in a real browser, served by the real program.
//!
//! With `DNSCRUB_PICTURES=FOLDER` in the environment, pictures of the page are put there, to be looked at.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dnscrub::control::server::ControlServer;
use dnscrub::incidents::Event;
use dnscrub::live::Live;
use dnscrub_detection::{Happened, Incident};
use dnscrub_testkit::authority::{Authority, Server, Settings, Zone};
use dnscrub_testkit::browser::Browser;
use dnscrub_testkit::incident;
use dnscrub_testkit::message::a_query;
use dnscrub_tests::{Proxy, TOKEN, wait_until};

/// A name that is markup.
const HOSTILE: &str = "<script>alert(1)</script>.w.example.com";
const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 780);

/// A program in front of two name servers, and its status page.
struct Stage {
    proxy: Proxy,
    _control: ControlServer,
    address: SocketAddr,
    pretending: Arc<AtomicBool>,
    pretender: Option<JoinHandle<()>>,
    _servers: Vec<Server>,
}

impl Stage {
    fn set(http: &str) -> Self {
        let zone = "@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n*.w 60 IN A 192.0.2.9\n";
        let servers: Vec<Server> = (0..2)
            .map(|_| {
                let zone = Zone::parse("example.com", zone).unwrap();
                Server::start(Authority::new([zone]), &Settings::default()).unwrap()
            })
            .collect();
        let mut yaml = String::from("pools: { default: { upstreams: [");
        for (number, server) in (1..).zip(&servers) {
            let _ = write!(
                yaml,
                " {{ name: ns{number}, address: \"{}\" }},",
                server.address()
            );
        }
        yaml.push_str(" ] } }\nzones: [ { name: example.com } ]\n");
        let proxy = Proxy::with_status_page(http, &yaml);
        let control = proxy.listen_for_control();
        let address = control.http.unwrap();
        Self {
            proxy,
            _control: control,
            address,
            pretending: Arc::default(),
            pretender: None,
            _servers: servers,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What the last ten minutes looked like, as if a flood went on. It stays so: what is measured meanwhile is
    /// covered up at once.
    fn live(&mut self) {
        let now = now();
        let live = Arc::new(Live {
            overview: incident::overview(now),
            points: incident::ten_minutes(now),
        });
        let (shared, pretending) = (
            Arc::clone(&self.proxy.supervisor().shared),
            Arc::clone(&self.pretending),
        );
        pretending.store(true, Relaxed);
        self.pretender = Some(std::thread::spawn(move || {
            while pretending.load(Relaxed) {
                shared.live.store(Arc::clone(&live));
                std::thread::sleep(Duration::from_millis(1));
            }
        }));
    }

    fn publish(&self, happened: Happened, incident: Incident) {
        let incident = Arc::new(incident);
        let event = Event { happened, incident };
        self.proxy.supervisor().shared.incidents.publish(&event);
    }

    fn block(&self, prefix: &str, reason: &str) {
        let blocklist = &self.proxy.supervisor().blocklist;
        let hour = Some(Duration::from_secs(3_600));
        let origin = dnscrub_packet_filter::Origin::Cli;
        blocklist
            .add(prefix.parse().unwrap(), reason, origin, hour)
            .unwrap();
    }

    /// Asks the proxy for a name so many times, and waits for the answers.
    fn ask(&self, name: &str, times: u16) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        for id in 0..times {
            let query = a_query(name, id);
            socket.send_to(&query, self.proxy.address()).unwrap();
            socket.recv(&mut [0; 512]).unwrap();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.pretending.store(false, Relaxed);
        if let Some(pretender) = self.pretender.take() {
            pretender.join().unwrap();
        }
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

/// Waits until the page has asked again.
fn next_round(browser: &mut Browser) {
    let clock = browser.evaluate("document.getElementById('updated').textContent");
    browser.wait_for(&format!(
        "document.getElementById('updated').textContent !== {clock}"
    ));
}

fn photograph(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("DNSCRUB_PICTURES") {
        browser.photograph(&Path::new(&folder).join(name));
    }
}

/// Whether nothing reaches beyond the window's right edge, tables scroll within themselves.
fn assert_fits(browser: &mut Browser, what: &str) {
    let [wide, window] = ["document.documentElement.scrollWidth", "innerWidth"]
        .map(|it| browser.evaluate(it).as_u64().unwrap());
    let culprits = browser.evaluate(
        "[...document.querySelectorAll('body *')].filter((it) => !it.closest('.scroll, svg, .skip') && \
         it.getBoundingClientRect().right > innerWidth + 1).map((it) => `${it.tagName}.${it.className}#${it.id}`).slice(0, 5)",
    );
    assert!(wide <= window, "{what}: {wide} of {window}: {culprits}");
}

/// How light a colour of the page is, 0 to 1.
fn lightness(browser: &mut Browser, property: &str) -> f64 {
    let colour = browser.evaluate(&format!("getComputedStyle(document.body).{property}"));
    let colour = colour.as_str().unwrap();
    let parts: Vec<f64> = colour
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .filter_map(|part| part.parse().ok())
        .collect();
    assert!(parts.len() >= 3, "{colour}");
    parts.iter().take(3).sum::<f64>() / 3.0 / 255.0
}

#[test]
fn the_page_shows_what_goes_on() {
    let mut stage = Stage::set("{ address: \"127.0.0.1:0\" }");
    let mut browser = Browser::start();
    browser.open(&stage.url());
    browser.wait_for("!document.getElementById('overview').hidden");

    // the real program's own numbers, as they change
    browser.wait_for("document.querySelector('#totals tbody tr td').textContent === '0'");
    stage.ask(HOSTILE, 37);
    browser.wait_for("document.querySelector('#totals tbody tr td').textContent === '37'");
    browser.wait_for("document.querySelectorAll('#upstreams tbody tr').length === 2");
    browser.wait_for("document.getElementById('tiles').textContent.includes('2 of 2')");
    browser.wait_for("document.getElementById('level').textContent !== ''");
    // what is asked for is measured; a name is written as in a zone file, with what is odd in it as numbers
    wait_until("the name is among those most asked for", || {
        // about as often as the page asks: more of the same would be a flood
        stage.ask(HOSTILE, 5);
        next_round(&mut browser);
        browser.evaluate(
            "document.getElementById('names').textContent.includes('script\\\\062.w.example.com')",
        ) == true
    });
    browser.wait_for("document.getElementById('zones').textContent.includes('example.com')");
    browser
        .wait_for("document.querySelector('#rate path.forwarded').getAttribute('d').includes('Z')");
    assert_eq!(browser.evaluate("document.scripts.length"), 1);

    // a page that is opened later has the ten minutes before
    stage.live();
    browser.open(&stage.url());
    stage.publish(Happened::Closed, incident::crowd(101, now() - 90_000.0));
    stage.publish(Happened::Opened, incident::flood(102, now() - 240.0, None));
    browser
        .wait_for("document.getElementById('open-list').textContent.includes('15,200 a second')");
    browser.wait_for("document.querySelectorAll('#past tbody tr').length >= 2");
    // the incident raises its zone: the whole is calm, and the page does not say that all is
    browser.wait_for("document.getElementById('level').textContent === 'calm, 1 zone at attack'");
    browser.wait_for("document.querySelector('#levels a').textContent === 'incident 102'");
    browser
        .wait_for("document.querySelector('#rate path.dropped').getAttribute('d').length > 1000");
    browser.wait_for("document.getElementById('zones').textContent.includes('15,204')");
    // who has the page in a tab behind others sees it, too
    browser.wait_for("/^\\(\\d+\\) dnscrub$/.test(document.title)");

    // a name that moves the cursor and turns the text around is shown as it is, harmless
    for shown in [
        "<script>alert(1)</script>\\u{1b}[31m",
        "\\u{202e}.example.com",
    ] {
        let shown = serde_json::to_string(shown).unwrap();
        browser.wait_for(&format!(
            "document.getElementById('names').textContent.includes({shown})"
        ));
    }
    assert_eq!(browser.evaluate("document.scripts.length"), 1);

    // what has not changed is not touched: a row that is looked at stays that row
    browser.evaluate("globalThis.row = document.querySelector('#upstreams tbody tr'), 0");
    next_round(&mut browser);
    assert!(
        browser
            .evaluate("row.isConnected && row === document.querySelector('#upstreams tbody tr')")
            == true
    );

    photograph(&mut browser, "desktop.png");
    browser.prefer_dark(true);
    assert!(lightness(&mut browser, "backgroundColor") < 0.15);
    assert!(lightness(&mut browser, "color") > 0.8);
    photograph(&mut browser, "desktop-dark.png");
    browser.prefer_dark(false);
    assert!(lightness(&mut browser, "backgroundColor") > 0.85);
    assert!(lightness(&mut browser, "color") < 0.3);

    browser.size(PHONE.0, PHONE.1);
    assert_fits(&mut browser, "the overview on a phone");
    photograph(&mut browser, "phone.png");
    browser.prefer_dark(true);
    photograph(&mut browser, "phone-dark.png");
    browser.prefer_dark(false);
    browser.size(DESKTOP.0, DESKTOP.1);

    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn an_incident_is_told_whole() {
    let mut stage = Stage::set("{ address: \"127.0.0.1:0\" }");
    stage.live();
    let began = now() - 900.0;
    stage.publish(Happened::Opened, incident::flood(7, began, None));
    let mut browser = Browser::start();
    browser.open(&stage.url());
    browser.wait_for("document.querySelector('#open-list a')");
    browser.evaluate("document.querySelector('#open-list a').click()");
    browser.wait_for("!document.getElementById('incident').hidden");
    assert_eq!(browser.evaluate("location.hash"), "#incident-7");
    for told in [
        "Random-subdomain flood",
        "15,200 a second",
        "Named after",
        "not over",
        "Impaired for",
        "Raised the defence level of example.com to attack.",
        "webhook ops could not be told",
        "look genuine",
        "NXDOMAIN of all answers",
        "<script>alert(1)</script>\\u{1b}[31m",
    ] {
        let told = serde_json::to_string(told).unwrap();
        browser.wait_for(&format!(
            "document.getElementById('incident').textContent.includes({told})"
        ));
    }
    browser.wait_for("document.querySelector('#incident path.lost').getAttribute('d').length > 50");
    photograph(&mut browser, "incident.png");
    browser.size(PHONE.0, PHONE.1);
    assert_fits(&mut browser, "an incident on a phone");
    photograph(&mut browser, "incident-phone.png");
    browser.size(DESKTOP.0, DESKTOP.1);

    let playbook = browser.evaluate("document.querySelector('.incident-head a').href");
    let playbook = playbook.as_str().unwrap().to_owned();

    // it ends while somebody looks
    stage.publish(Happened::Closed, incident::flood(7, began, Some(600)));
    browser
        .wait_for("document.getElementById('incident').textContent.includes('Over: 20 s without')");
    browser.wait_for("document.getElementById('incident').textContent.includes('over at')");
    browser.prefer_dark(true);
    photograph(&mut browser, "incident-dark.png");
    assert_eq!(browser.evaluate("document.scripts.length"), 1);

    browser.evaluate("location.hash = '#incident-99', 0");
    browser.wait_for(
        "document.getElementById('incident').textContent.includes('there is no incident 99')",
    );
    browser.evaluate("document.querySelector('#incident a').click()");
    browser.wait_for("!document.getElementById('overview').hidden");
    browser.wait_for("document.getElementById('open').hidden");

    browser.prefer_dark(false);
    browser.open(&playbook);
    browser.wait_for("document.querySelector('h1').textContent === 'Random-subdomain flood'");
    assert!(browser.evaluate("document.querySelectorAll('h2, pre, li').length > 20") == true);
    photograph(&mut browser, "playbook.png");
    browser.size(PHONE.0, PHONE.1);
    browser.evaluate("document.querySelector('header a[href=\"/playbooks/\"]').click()");
    browser.wait_for("document.querySelectorAll('table tr').length > 12");
    let culprits = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
    assert!(culprits.as_f64().unwrap() <= 0.0, "{culprits}");
    photograph(&mut browser, "playbooks-phone.png");
    let complaints = browser.complaints();
    assert!(
        complaints
            .iter()
            .all(|said| said.contains("/v1/incidents/99")),
        "{complaints:?}"
    );
}

#[test]
fn the_blocklist_is_searched_with_the_keyboard() {
    let stage = Stage::set("{ address: \"127.0.0.1:0\" }");
    stage.block("192.0.2.0/24", "flood <b>of</b> Tuesday");
    stage.block("2001:db8::/48", "");
    let mut browser = Browser::start();
    browser.open(&stage.url());
    browser.wait_for("!document.getElementById('overview').hidden");
    browser.press("Tab");
    assert_eq!(
        browser.evaluate("document.activeElement.className"),
        "skip",
        "the first thing the keyboard reaches leads past the heading"
    );
    browser.evaluate("document.getElementById('address').focus()");
    for (asked, told) in [
        ("192.0.2.77", "192.0.2.77 is blocked"),
        ("198.51.100.1", "198.51.100.1 is not blocked"),
        ("2001:db8::1", "no reason given; by an operator"),
        ("nonsense", "found \"nonsense\""),
        ("192.0.2.0/25", "flood <b>of</b> Tuesday"),
    ] {
        browser.evaluate("document.getElementById('address').value = ''");
        browser.type_text(asked);
        browser.press("Enter");
        let told = serde_json::to_string(told).unwrap();
        browser.wait_for(&format!(
            "document.getElementById('found').textContent.includes({told})"
        ));
    }
    browser.evaluate("document.querySelector('#entries summary').click()");
    browser.wait_for("document.querySelectorAll('#entry-table tbody tr').length === 2");
    // every field and every table says what it is
    let nameless = browser.evaluate(
        "[...document.querySelectorAll('input')].filter((it) => it.labels.length === 0).length \
         + [...document.querySelectorAll('table')].filter((it) => it.tHead === null || \
         [...it.tHead.querySelectorAll('th')].some((head) => head.scope !== 'col')).length",
    );
    assert_eq!(nameless, 0);
    photograph(&mut browser, "blocklist.png");
}

#[test]
fn a_token_opens_the_page_and_a_lost_connection_is_said() {
    let mut stage = Stage::set("{ address: \"127.0.0.1:0\", token-file: token }");
    stage.live();
    let mut browser = Browser::start();
    browser.open(&stage.url());
    browser.wait_for("!document.getElementById('login').hidden");
    assert!(browser.evaluate("document.getElementById('overview').hidden") == true);
    assert_eq!(
        browser.evaluate("document.getElementById('login-failure').textContent"),
        ""
    );
    assert_eq!(browser.evaluate("document.activeElement.id"), "token");
    photograph(&mut browser, "login.png");

    browser.type_text("fedcba9876543210");
    browser.press("Enter");
    browser.wait_for(
        "document.getElementById('login-failure').textContent === 'This token is wrong.'",
    );
    browser.type_text("wrong in every way \u{1f512}");
    browser.press("Enter");
    browser.wait_for(
        "document.getElementById('login-failure').textContent === 'This token is wrong.'",
    );
    assert!(browser.evaluate("document.getElementById('overview').hidden") == true);

    browser.type_text(TOKEN);
    browser.press("Enter");
    browser.wait_for(
        "!document.getElementById('overview').hidden && document.getElementById('login').hidden",
    );
    browser.wait_for("document.getElementById('zones').textContent.includes('15,204')");
    assert!(
        !browser.evaluate("location.href + document.documentElement.outerHTML + document.cookie + JSON.stringify(localStorage)")
            .as_str().unwrap().contains(TOKEN)
    );

    // another tab's worth of time later the token is still there
    browser.open(&stage.url());
    browser.wait_for("document.getElementById('zones').textContent.includes('15,204')");

    browser.offline(true);
    browser.wait_for(
        "document.getElementById('connection').textContent.startsWith('Connection lost, since ')",
    );
    browser.wait_for("document.body.classList.contains('stale')");
    photograph(&mut browser, "lost.png");
    browser.offline(false);
    browser.wait_for("document.getElementById('connection').hidden && !document.body.classList.contains('stale')");

    browser.evaluate("document.getElementById('forget').click()");
    browser.wait_for(
        "!document.getElementById('login').hidden && document.getElementById('overview').hidden",
    );
    assert_eq!(browser.evaluate("sessionStorage.length"), 0);
}
