//! The monitoring kit is true: every kind of incident has its playbook, every alert its page and its test,
//! and every query of the alerts and of the dashboard asks for what a running dnscrub has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure here fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dnscrub::metrics::{self, Metric};
use dnscrub_detection::Kind;
use dnscrub_testkit::authority::{Authority, Server, Settings, Zone};
use dnscrub_testkit::clients::Kdig;
use dnscrub_testkit::servers::free_port;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|failure| panic!("{path}: {failure}"))
}

fn headings(page: &str) -> Vec<&str> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in page.lines() {
        inside ^= line.trim_start().starts_with("```");
        if let Some(heading) = line.strip_prefix("## ").filter(|_| !inside) {
            found.push(heading);
        }
    }
    found
}

#[test]
fn every_kind_has_its_playbook_and_all_have_the_same_parts() {
    let index = read("docs/playbooks/README.md");
    for kind in Kind::ALL {
        let label = kind.label();
        let page = read(&format!("docs/playbooks/{label}.md"));
        assert_eq!(
            headings(&page),
            [
                "How it shows",
                "What dnscrub does by itself",
                "What to check",
                "What to change",
                "When to escalate",
                "How to stand down",
            ],
            "{label}"
        );
        let title = page.lines().next().unwrap().to_lowercase();
        assert_eq!(title, format!("# {}", kind.title()).to_lowercase());
        let row = index
            .lines()
            .find(|line| line.starts_with(&format!("| [{label}]({label}.md) |")));
        let row = row.unwrap_or_else(|| panic!("{label} is not in the index"));
        assert_eq!(row.ends_with("| yes |"), kind.is_attack(), "{label}");
    }
    assert!(index.contains("(it-is-not-dns.md)"));
    // and no page of a kind that there is no more
    let pages = fs::read_dir(root().join("docs/playbooks")).unwrap().count();
    assert_eq!(pages, Kind::ALL.len() + 2);
}

/// An alert as it is written.
struct Alert {
    name: String,
    expression: String,
    severity: String,
    annotations: BTreeMap<String, String>,
}

fn rules() -> Vec<serde_yaml::Value> {
    let text = read("deploy/prometheus/dnscrub.rules.yml");
    let file: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let groups = file["groups"].as_sequence().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_sequence().unwrap().clone())
        .collect()
}

fn alerts() -> Vec<Alert> {
    let text = |value: &serde_yaml::Value| value.as_str().unwrap_or_default().to_owned();
    let alerts: Vec<Alert> = rules()
        .iter()
        .filter(|rule| rule.get("alert").is_some())
        .map(|rule| Alert {
            name: text(&rule["alert"]),
            expression: text(&rule["expr"]),
            severity: text(&rule["labels"]["severity"]),
            annotations: serde_yaml::from_value(rule["annotations"].clone()).unwrap(),
        })
        .collect();
    assert!(alerts.len() > 20, "{}", alerts.len());
    alerts
}

/// The anchor of a heading, as web views of Markdown make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars()
        .filter(|it| it.is_alphanumeric() || ['-', '_'].contains(it))
        .collect()
}

fn assert_is_a_place(link: &str) {
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let page = read(path);
    let mut headings = page.lines().filter(|line| line.starts_with('#'));
    assert!(
        fragment.is_empty()
            || headings.any(|line| anchor(line.trim_start_matches('#')) == fragment),
        "{link} is not there"
    );
}

#[test]
fn every_alert_says_what_how_bad_and_where_to_read_on() {
    for alert in alerts() {
        let name = &alert.name;
        assert!(
            ["critical", "warning", "info"].contains(&alert.severity.as_str()),
            "{name}: {}",
            alert.severity
        );
        for part in ["summary", "description", "playbook"] {
            let text = alert.annotations.get(part);
            assert!(text.is_some_and(|text| text.len() > 10), "{name}: {part}");
        }
        let link = &alert.annotations["playbook"];
        if link.contains("{{ $labels.kind }}") {
            for kind in Kind::ALL {
                assert_is_a_place(&link.replace("{{ $labels.kind }}", kind.label()));
            }
        } else {
            assert_is_a_place(link);
        }
    }
    // every kind has an alert, and those that are no attack are not told as one
    for kind in Kind::ALL {
        let attack = alerts()
            .into_iter()
            .find(|alert| alert.name == "DnscrubAttack")
            .unwrap();
        assert_eq!(
            attack.expression.contains(kind.label()),
            !kind.is_attack(),
            "{kind:?}"
        );
        let named = |alert: &Alert| {
            alert.expression == format!("dnscrub_incidents_open{{kind=\"{}\"}} > 0", kind.label())
        };
        assert!(kind.is_attack() || alerts().iter().any(named), "{kind:?}");
    }
}

#[test]
fn every_alert_is_tried_firing_and_quiet() {
    let text = read("deploy/prometheus/dnscrub.rules.test.yml");
    let file: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let mut tried = BTreeSet::new();
    for test in file["tests"].as_sequence().unwrap() {
        for tried_alert in test["alert_rule_test"].as_sequence().unwrap() {
            let name = tried_alert["alertname"].as_str().unwrap().to_owned();
            let fires = !tried_alert["exp_alerts"].as_sequence().unwrap().is_empty();
            tried.insert((name, fires));
        }
    }
    for alert in alerts() {
        for fires in [true, false] {
            assert!(
                tried.contains(&(alert.name.clone(), fires)),
                "{} {fires}",
                alert.name
            );
        }
    }
    let folder = root().join("deploy/prometheus");
    promtool(&folder, &["check", "rules", "dnscrub.rules.yml"]);
    promtool(&folder, &["test", "rules", "dnscrub.rules.test.yml"]);
    promtool(&folder, &["check", "config", "prometheus.yml"]);
}

/// What promtool prints, run in this folder.
fn promtool(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("promtool (Debian package prometheus) runs");
    assert_well(&output, arguments);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_well(output: &Output, what: &[&str]) {
    assert!(
        output.status.success(),
        "{what:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Names that a query has outside of quotes, each with whether a `{` or `(` follows, and the labels in
/// braces after it.
fn assert_asks_for_what_there_is(expression: &str, recorded: &BTreeSet<String>) {
    let mut rest = expression;
    let mut metrics_named = 0;
    while let Some(start) = rest.find(|it: char| it.is_ascii_alphabetic() || it == '_') {
        // what stands in quotes is a value
        if let Some(quote) = rest.find('"').filter(|quote| *quote < start) {
            let after = &rest[quote + 1..];
            rest = &after[after.find('"').unwrap() + 1..];
            continue;
        }
        let word: &str = &rest[start..];
        let end = word
            .find(|it: char| !(it.is_ascii_alphanumeric() || it == '_' || it == ':'))
            .unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        rest = after;
        if recorded.contains(name) || name == "up" {
            metrics_named += 1;
            continue;
        }
        if !name.starts_with("dnscrub") && !name.starts_with("process_") {
            continue;
        }
        let metric = metric_of(name);
        let metric = metric.unwrap_or_else(|| panic!("{expression}: there is no metric {name}"));
        metrics_named += 1;
        let Some(selectors) = after.strip_prefix('{').and_then(|it| it.split_once('}')) else {
            continue;
        };
        for selector in selectors.0.split(", ").filter(|it| !it.is_empty()) {
            let label = selector.split(['=', '!']).next().unwrap();
            let known = ["job", "instance"].contains(&label) || metric.labels.contains(&label);
            assert!(known, "{expression}: {name} has no label {label}");
        }
    }
    assert!(metrics_named > 0, "{expression} asks for nothing");
    // labels that are summed by
    for labels in expression.split("by (").skip(1) {
        for label in labels.split(')').next().unwrap().split(", ") {
            let known = ["job", "instance", "le"].contains(&label)
                || metrics::ALL.iter().any(|metric| {
                    expression.contains(metric.name) && metric.labels.contains(&label)
                });
            assert!(known, "{expression}: nothing in it has a label {label}");
        }
    }
}

fn metric_of(name: &str) -> Option<&'static Metric> {
    let named = |name: &str| {
        metrics::ALL
            .iter()
            .copied()
            .find(|metric| metric.name == name)
    };
    named(name).or_else(|| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| named(name.strip_suffix(end)?))
            .filter(|metric| metric.kind == metrics::Kind::Histogram)
    })
}

fn recorded() -> BTreeSet<String> {
    let names = rules();
    names
        .iter()
        .filter_map(|rule| rule.get("record")?.as_str().map(str::to_owned))
        .collect()
}

#[test]
fn every_rule_asks_for_what_there_is() {
    let recorded = recorded();
    for rule in rules() {
        assert_asks_for_what_there_is(rule["expr"].as_str().unwrap(), &recorded);
    }
}

#[test]
#[should_panic(expected = "there is no metric dnscrub_queris_total")]
fn a_metric_that_is_not_there_is_found() {
    assert_asks_for_what_there_is("rate(dnscrub_queris_total[1m])", &recorded());
}

#[test]
#[should_panic(expected = "has no label why")]
fn a_label_that_is_not_there_is_found() {
    let query = "rate(dnscrub_queries_total{instance=\"a\", why=\"band\"}[1m])";
    assert_asks_for_what_there_is(query, &recorded());
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/dnscrub.json")).unwrap()
}

/// The queries of the dashboard, with what they belong to.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            queries.push((format!("{title}: {legend}"), expression.to_owned()));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        let name = annotation["name"].as_str().unwrap();
        let expression = annotation["expr"].as_str().unwrap();
        queries.push((format!("annotation {name}"), expression.to_owned()));
    }
    assert!(queries.len() > 60, "{}", queries.len());
    queries
}

#[test]
fn the_dashboard_is_in_order_and_asks_for_what_there_is() {
    let dashboard = dashboard();
    for (title, expression) in queries(&dashboard) {
        let expression = expression
            .replace("$instance", ".+")
            .replace("$__rate_interval", "1m");
        assert!(!expression.contains('$'), "{title}: {expression}");
        assert_asks_for_what_there_is(&expression, &BTreeSet::new());
    }
    let (mut ids, mut places, mut titles) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: id");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(places.insert((x, y)) && x < 24, "{title} overlaps another");
            }
        }
        if panel["type"] == "row" {
            assert!(titles.insert(title), "two rows {title}");
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let description = panel["description"].as_str().unwrap();
        assert!(description.ends_with('.'), "{title}: {description}");
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "instance"]);
}

/// A program that ends with its owner.
struct Process(Child);

impl Process {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::create(log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self(
            command
                .spawn()
                .unwrap_or_else(|failure| panic!("{command:?}: {failure}")),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A dnscrub with a little traffic, and a Prometheus that watches it with the rules of deploy/.
struct Watched {
    url: String,
    dns: std::net::SocketAddr,
    folder: TempDir,
    _processes: [Process; 2],
    _upstream: Server,
}

impl Watched {
    fn start() -> Self {
        let zone = "@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\nwww 60 IN A 192.0.2.80\n";
        let authority = Authority::new([Zone::parse("example.com", zone).unwrap()]);
        let upstream = Server::start(authority, &Settings::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display().to_string();
        fs::write(
            folder.path().join("example.com.zone"),
            format!("$ORIGIN example.com.\n{zone}"),
        )
        .unwrap();
        let (port, metrics, web) = (free_port(false), free_port(false), free_port(false));
        let configuration = format!(
            "listen: [ {{ address: \"127.0.0.1:{port}\" }} ]\n\
             pools: {{ default: {{ upstreams: [ {{ name: ns1, address: \"{}\" }} ], health: {{ query: \"example.com. SOA\" }} }} }}\n\
             zones: [ {{ name: example.com, names: {{ file: example.com.zone }} }} ]\n\
             rules: [ {{ name: any, when: {{ qtype: ANY }}, do: refuse }} ]\n\
             metrics: {{ address: \"127.0.0.1:{metrics}\" }}\n\
             control: {{ socket: {here}/sock }}\n\
             state: {{ folder: {here}/state }}\n\
             dnstap: {{ file: {here}/queries.dnstap }}\n",
            upstream.address()
        );
        let config = folder.path().join("dnscrub.yaml");
        fs::write(&config, configuration).unwrap();
        let mut dnscrub = Command::new(env!("CARGO_BIN_EXE_dnscrub"));
        dnscrub.args(["run", "--config"]).arg(&config);
        let dnscrub = Process::start(&mut dnscrub, &folder.path().join("dnscrub.log"));

        let deployed = read("deploy/prometheus/prometheus.yml")
            .replace("127.0.0.1:9353", &format!("127.0.0.1:{metrics}"))
            .replace("_interval: 10s", "_interval: 1s");
        fs::write(folder.path().join("prometheus.yml"), deployed).unwrap();
        fs::copy(
            root().join("deploy/prometheus/dnscrub.rules.yml"),
            folder.path().join("dnscrub.rules.yml"),
        )
        .unwrap();
        let mut prometheus = Command::new("prometheus");
        prometheus
            .arg(format!("--config.file={here}/prometheus.yml"))
            .arg(format!("--storage.tsdb.path={here}/data"))
            .arg(format!("--web.listen-address=127.0.0.1:{web}"));
        let prometheus = Process::start(&mut prometheus, &folder.path().join("prometheus.log"));
        Self {
            url: format!("http://127.0.0.1:{web}"),
            dns: ([127, 0, 0, 1], port).into(),
            folder,
            _processes: [dnscrub, prometheus],
            _upstream: upstream,
        }
    }

    /// The series that a query finds now.
    fn query(&self, expression: &str) -> Result<String, String> {
        let output = Command::new("promtool")
            .args(["query", "instant", &self.url, expression])
            .output()
            .expect("promtool (Debian package prometheus) runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(said)
        }
    }

    fn logs(&self) -> String {
        ["dnscrub.log", "prometheus.log"]
            .map(|name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default())
            .join("\n")
    }
}

/// Panels that may be empty where all is well.
const MAY_BE_EMPTY: [&str; 10] = [
    "Incidents going on",
    "Incidents opened",
    "Dropped, by reason",
    "Answers over a limit",
    "Points by signal",
    "Raised by hand, raised by incidents, blocks",
    "Measures against their usual",
    "Notices",
    // nothing is configured in the kernel
    "Lost by the kernel: limited",
    "annotation",
];

#[test]
fn every_query_is_answered_by_a_real_prometheus() {
    let watched = Watched::start();
    let end = Instant::now() + PATIENCE;
    let seen = "dnscrub:queries:rate1m{outcome=\"answered\"} > 0 and on (instance) dnscrub_zone_loaded == 1";
    while !watched.query(seen).is_ok_and(|series| !series.is_empty()) {
        assert!(Instant::now() < end, "{}", watched.logs());
        for qtype in ["A", "ANY"] {
            let _ = Kdig::ask(watched.dns, &["www.example.com", qtype, "+timeout=1"]);
        }
    }
    for (title, expression) in queries(&dashboard()) {
        let expression = expression
            .replace("$instance", ".+")
            .replace("$__rate_interval", "1m");
        let series = watched
            .query(&expression)
            .unwrap_or_else(|failure| panic!("{title}: {expression}\n{failure}"));
        let may_be_empty = MAY_BE_EMPTY.iter().any(|it| title.starts_with(it));
        assert!(
            may_be_empty || !series.is_empty(),
            "{title}: {expression} finds nothing\n{}",
            watched.logs()
        );
    }
    for rule in rules() {
        let expression = rule["expr"].as_str().unwrap();
        let found = watched
            .query(expression)
            .unwrap_or_else(|failure| panic!("{expression}\n{failure}"));
        let name = rule.get("alert").and_then(|name| name.as_str());
        assert!(name.is_none() || found.is_empty(), "{name:?}: {found}");
    }
}
