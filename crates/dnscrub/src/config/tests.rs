//! Bad configurations with the whole message they get, and good ones with what becomes of them.

use std::{path::Path, sync::Arc, time::Instant};

use super::{
    Memory, Problems, Source, Summary,
    reference::{EXAMPLE, pages, schema},
    runtime::{Configuration, Reloadable, Surroundings, ZoneSource, load, restart_needed},
};

/// A configuration to which one mistake is added.
const GOOD: &str = "\
listen:
  - address: 192.0.2.1
pools:
  default:
    upstreams:
      - address: 192.0.2.10:53
";

fn build(files: &dyn Source) -> Result<Configuration, Problems> {
    let surroundings = Surroundings {
        running: None,
        now: Instant::now(),
        cores: 2,
    };
    load(Path::new("dnscrub.yaml"), files, surroundings)
}

fn good(text: &str) -> Configuration {
    build(&Memory::new("dnscrub.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn message(files: &Memory) -> String {
    match build(files) {
        Ok(_) => "(accepted)".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

/// The messages of several cases, each with its title and what was written.
fn table(cases: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (title, yaml) in cases {
        let message = message(&Memory::new("dnscrub.yaml", yaml.as_str()));
        text.push_str(&format!("=== {title}\n{message}\n\n"));
    }
    text
}

fn plus(text: &str) -> String {
    format!("{GOOD}{text}")
}

fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

/// Compares with `snapshots/NAME.snap`; with INSTA_UPDATE=always in the environment that is written anew.
fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn syntax() {
    snapshot(
        "syntax",
        &table(&[
            ("a tab", with("    upstreams", "\tupstreams")),
            ("an open quote", plus("state: { folder: \"/var }\n")),
            ("an open bracket", plus("zones: [ { name: example.com }\n")),
            ("a key twice", plus("listen: []\n")),
            (
                "a nested key twice",
                with(
                    "192.0.2.10:53",
                    "192.0.2.10:53\n        address: 192.0.2.11:53",
                ),
            ),
            (
                "an unquoted star",
                plus("zones:\n  - name: *.example.com\n"),
            ),
            ("a colon in a value", plus("state: folder: /var\n")),
            (
                "wrong indentation",
                plus("log:\n  format: json\n level: info\n"),
            ),
            ("only a word", "listen\n".to_owned()),
            ("an empty file", String::new()),
            ("two documents", plus("---\nlisten: []\n")),
        ]),
    );
}

#[test]
fn shape() {
    snapshot(
        "shape",
        &table(&[
            ("an unknown key with a neighbour", plus("zonse: []\n")),
            ("an unknown key without one", plus("firewall: on\n")),
            (
                "an unknown key deep inside",
                with("- address: 192.0.2.10:53", "- addres: 192.0.2.10:53"),
            ),
            ("an underscore", plus("tcp: { max_connections: 10 }\n")),
            ("a missing key", with("address: 192.0.2.10:53", "weight: 2")),
            ("a missing key of a map", plus("metrics: {}\n")),
            (
                "a map for a list",
                with("  - address: 192.0.2.1\n", "  address: 192.0.2.1\n"),
            ),
            ("text for a list", plus("zones: example.com\n")),
            ("text for a number", plus("workers: many\n")),
            ("a number too large", plus("workers: 70000\n")),
            ("a negative number", plus("workers: -1\n")),
            ("a number for text", plus("zones: [ { name: 123 } ]\n")),
            (
                "a number for permission bits",
                plus("control: { socket-mode: 660 }\n"),
            ),
            ("a host name", with("192.0.2.1\n", "ns1.example.com\n")),
            ("a bad port", with("192.0.2.1\n", "192.0.2.1:99999\n")),
            (
                "an upstream's host name",
                with("192.0.2.10:53", "ns1.example.com"),
            ),
            (
                "a duration without a unit",
                plus("tcp:\n  idle-timeout: 10\n"),
            ),
            (
                "a duration of an unknown unit",
                plus("tcp:\n  idle-timeout: 10 parsecs\n"),
            ),
            (
                "a size",
                with(
                    "192.0.2.1\n",
                    "192.0.2.1\n    receive-buffer: 8 elephants\n",
                ),
            ),
            ("an unknown variant", plus("log: { level: loud }\n")),
            (
                "a variant with a neighbour",
                with("upstreams:", "policy: round-robbin\n    upstreams:"),
            ),
            ("nothing", plus("tcp:\n  idle-timeout:\n")),
            ("a bad prefix", plus("acl: { deny: [ 203.0.113.0/33 ] }\n")),
            (
                "bits behind the prefix",
                plus("acl: { deny: [ 203.0.113.7/24 ] }\n"),
            ),
            (
                "a bad transport",
                with("192.0.2.1\n", "192.0.2.1\n    transports: [ udp, quic ]\n"),
            ),
            (
                "a bad address in a list",
                with("192.0.2.1\n", "[ 192.0.2.1, 192.0.2 ]\n"),
            ),
            (
                "a rule without an action",
                plus("rules:\n  - name: a\n    when: { qtype: ANY }\n"),
            ),
            (
                "a typo in a condition",
                plus("rules:\n  - name: a\n    when: { qtpye: ANY }\n    do: drop\n"),
            ),
            ("a bad action", plus("rules:\n  - name: a\n    do: dropp\n")),
            (
                "an unknown type",
                plus("rules:\n  - name: a\n    when: { qtype: AAA }\n    do: drop\n"),
            ),
            (
                "a bad rate",
                plus("rules:\n  - name: a\n    do: { rate-limit: { rate: fast } }\n"),
            ),
            (
                "a misspelt key with a wrong value",
                with("- address: 192.0.2.10:53", "- addres: example.com"),
            ),
            (
                "several at once",
                plus(
                    "zonse: []\nlog: { level: loud }\nrules:\n  - name: a\n    do: dropp\n  - nam: b\n    do: drop\n  - name: c\n    do: { scor: 5 }\n",
                ),
            ),
        ]),
    );
}

#[test]
fn meaning() {
    snapshot(
        "meaning",
        &table(&[
            (
                "nothing to listen on",
                with("listen:\n  - address: 192.0.2.1\n", ""),
            ),
            (
                "an empty list of listeners",
                with("listen:\n  - address: 192.0.2.1\n", "listen: []\n"),
            ),
            (
                "no pools",
                with(
                    "pools:\n  default:\n    upstreams:\n      - address: 192.0.2.10:53\n",
                    "",
                ),
            ),
            ("no default pool", with("default:", "main:")),
            (
                "no default pool of two",
                plus("  b: { upstreams: [ { address: 192.0.2.2 } ] }\n")
                    .replace("default:", "main:"),
            ),
            (
                "no upstream",
                with("\n      - address: 192.0.2.10:53", " []"),
            ),
            ("port 0", with("192.0.2.1\n", "192.0.2.1:0\n")),
            (
                "no transport",
                with("192.0.2.1\n", "192.0.2.1\n    transports: []\n"),
            ),
            (
                "an address twice",
                with(
                    "192.0.2.1\n",
                    "192.0.2.1\n  - address: [ 192.0.2.2, 192.0.2.1 ]\n",
                ),
            ),
            (
                "two listeners of a name",
                with(
                    "192.0.2.1\n",
                    "192.0.2.1\n    name: a\n  - address: 192.0.2.2\n    name: a\n",
                ),
            ),
            ("no worker", plus("workers: 0\n")),
            (
                "an unknown pool",
                plus("pool: {}\n").replace(
                    "pool: {}",
                    "zones:\n  - { name: example.com, pool: defualt }",
                ),
            ),
            (
                "a zone twice",
                plus("zones:\n  - name: example.com\n  - name: EXAMPLE.com.\n"),
            ),
            ("a bad zone name", plus("zones:\n  - name: example..com\n")),
            (
                "an upstream twice",
                with(
                    "192.0.2.10:53",
                    "192.0.2.10:53\n      - address: 192.0.2.10\n        weight: 0",
                ),
            ),
            (
                "a loop",
                plus("")
                    .replace("192.0.2.10:53", "127.0.0.1")
                    .replace("192.0.2.1\n", "0.0.0.0\n"),
            ),
            ("a socket path", plus("control: { socket: control.sock }\n")),
            (
                "zero connections",
                plus("tcp: { max-connections: 0, write-timeout: 0s }\n"),
            ),
            ("a long wait", plus("udp: { coalesce: 20ms, batch: 100 }\n")),
            (
                "one address for two things",
                plus(
                    "metrics: { address: \"127.0.0.1:9\" }\ncontrol: { http: { address: \"127.0.0.1:9\", token-file: t } }\n",
                ),
            ),
            (
                "a page for all the world",
                plus("control: { http: { address: \"192.0.2.1:8053\" } }\n"),
            ),
            (
                "an allowed prefix denied",
                plus("acl:\n  allow: [ 192.0.2.0/24 ]\n  deny: [ 192.0.2.0/24 ]\n"),
            ),
            (
                "a bad name in a list",
                plus("lists:\n  parked: { names: [ example.net, \"a..b\" ] }\n"),
            ),
            ("an empty list", plus("lists:\n  parked: {}\n")),
            (
                "two rules of a name",
                plus("rules:\n  - { name: a, do: drop }\n  - { name: a, do: allow }\n"),
            ),
            (
                "a bad regular expression",
                plus(
                    "rules:\n  - name: a\n    when:\n      qname: { regex: \"a(b\" }\n    do: drop\n",
                ),
            ),
            (
                "an unknown list",
                plus(
                    "rules:\n  - name: a\n    when: { source: { in: trustd } }\n    do: drop\nlists:\n  trusted: { prefixes: [ 192.0.2.1 ] }\n",
                ),
            ),
            (
                "an unknown listener and pool",
                plus(
                    "rules:\n  - name: a\n    when: { listener: public }\n    do: { pool: defalt }\n",
                ),
            ),
            (
                "bands upside down",
                plus("scrubbing:\n  bands:\n    - { action: drop, at: 40, under-pressure: 60 }\n"),
            ),
        ]),
    );
}

#[test]
fn routes() {
    let routes = |text: &str| plus(&format!("routes:\n  mode: dry-run\n{text}"));
    let limits = "  limits: { destinations: [ 192.0.2.0/24 ] }\n";
    snapshot(
        "routes",
        &table(&[
            (
                "a prefix that is not ours",
                routes(&format!(
                    "{limits}  anycast: {{ prefixes: [ 198.51.100.0/24 ] }}\n"
                )),
            ),
            (
                "an address given up that is not ours",
                routes(
                    "  blackhole: { give-up: [ { address: 192.0.2.54, zones: [ example.com ], over: 100000 } ] }\n",
                ),
            ),
            (
                "a kind that is no attack",
                routes(&format!("{limits}  flowspec: {{ for: [ flash-crowd ] }}\n")),
            ),
            (
                "a kind with forged sources",
                routes(&format!(
                    "{limits}  flowspec: {{ for: [ direct-flood, spoofed-carpet ] }}\n"
                )),
            ),
            (
                "an unknown kind",
                routes(&format!("{limits}  flowspec: {{ for: [ direct-flod ] }}\n")),
            ),
            (
                "a community",
                routes("  blackhole: { communities: [ \"666\" ] }\n"),
            ),
            (
                "limits",
                routes(
                    "  limits: { max-routes: 0, shortest-source: { v4: 4 }, ttl: 48h, linger: 2h }\n",
                ),
            ),
            (
                "an unknown pool",
                routes(&format!(
                    "{limits}  anycast: {{ prefixes: [ 192.0.2.0/24 ], pools: [ defalt ] }}\n"
                )),
            ),
            (
                "two next hops",
                routes("  next-hop: [ 192.0.2.1, 192.0.2.2 ]\n"),
            ),
            ("a relative socket", routes("  socket: exabgp.sock\n")),
        ]),
    );
}

fn files(cases: &[(&str, Memory)]) -> String {
    let mut text = String::new();
    for (title, files) in cases {
        text.push_str(&format!("=== {title}\n{}\n\n", message(files)));
    }
    text
}

#[test]
fn other_files() {
    let main = |text: &str| Memory::new("dnscrub.yaml", plus(text));
    let nested = (0..12).fold(main("include: [ 0.yaml ]\n"), |files, n| {
        files.with(
            format!("{n}.yaml"),
            format!("include: [ {}.yaml ]\n", n + 1),
        )
    });
    snapshot(
        "other-files",
        &files(&[
            ("no configuration", Memory::default()),
            (
                "not UTF-8",
                Memory::new(
                    "dnscrub.yaml",
                    b"listen:\n  - address: \"\xff\"\n".as_slice(),
                ),
            ),
            ("a missing include", main("include: [ rules/a.yaml ]\n")),
            (
                "an include of itself",
                main("include: [ ./dnscrub.yaml ]\n"),
            ),
            (
                "a loop",
                main("include: [ rules/a.yaml ]\n")
                    .with("rules/a.yaml", "include: [ b.yaml ]\n")
                    .with("rules/b.yaml", "include: [ ../rules/a.yaml ]\n"),
            ),
            (
                "twice",
                main("include:\n  - a.yaml\n  - ./a.yaml\n").with("a.yaml", "rules: []\n"),
            ),
            ("too deep", nested),
            (
                "a key that an include cannot have",
                main("include: [ a.yaml ]\n").with("a.yaml", "listen: []\n"),
            ),
            (
                "an error in an included rule",
                main("rules: [ { name: first, do: drop } ]\ninclude: [ rules/a.yaml ]\n")
                    .with("rules/a.yaml", "rules:\n  - { name: first, do: allow }\n"),
            ),
            (
                "a list in two files",
                main("lists: { trusted: { prefixes: [ 192.0.2.1 ] } }\ninclude: [ a.yaml ]\n")
                    .with("a.yaml", "lists:\n  trusted: { prefixes: [ 192.0.2.2 ] }\n"),
            ),
            (
                "a missing list",
                main("lists: { bad: { prefix-file: lists/bad.txt } }\n"),
            ),
            (
                "a bad prefix in a list",
                main("lists: { bad: { prefix-file: lists/bad.txt } }\n").with(
                    "lists/bad.txt",
                    "# bad ones\n192.0.2.1\n  192.0.2.300 # here\n",
                ),
            ),
            (
                "a bad name in a list",
                main("lists: { bad: { name-file: lists/bad.txt } }\n")
                    .with("lists/bad.txt", "example.com\nexa..mple.com\n"),
            ),
            (
                "a missing blocklist",
                main("blocklist: { files: [ drop.txt ] }\n"),
            ),
            (
                "bad lines in an included blocklist",
                main("include: [ more/a.yaml ]\n")
                    .with("more/a.yaml", "blocklist: { files: [ drop.txt ] }\n")
                    .with(
                        "more/drop.txt",
                        "192.0.2.0/24\n192.0.2.1/24\nhello world\n192.0.0.0/7\n",
                    ),
            ),
            (
                "a blocklist that is none",
                main("blocklist: { files: [ drop.txt ] }\n")
                    .with("drop.txt", "<html>\n".repeat(40)),
            ),
            (
                "a short token",
                main("control: { http: { address: \"127.0.0.1:8053\", token-file: token } }\n")
                    .with("token", "secret\n"),
            ),
        ]),
    );
}

#[test]
fn problems_are_told_as_json_too() {
    let problems = build(&Memory::new("dnscrub.yaml", plus("zonse: []\n"))).unwrap_err();
    snapshot("json", &serde_json::to_string_pretty(&problems).unwrap());
}

#[test]
fn whatever_is_cut_or_doubled_is_told_with_its_place() {
    let mut broken: Vec<String> = (0..EXAMPLE.len())
        .step_by(13)
        .map(|end| EXAMPLE[..end].to_owned())
        .collect();
    for (index, line) in EXAMPLE.lines().enumerate() {
        let mut lines: Vec<&str> = EXAMPLE.lines().collect();
        lines.remove(index);
        broken.push(lines.join("\n"));
        lines.insert(index, line);
        lines.insert(index, line.trim_start());
        broken.push(lines.join("\n"));
    }
    for text in broken {
        let Err(problems) = build(&Memory::new("dnscrub.yaml", text.as_str())) else {
            continue;
        };
        for problem in problems.0 {
            let lines = text.lines().count();
            let told = problem.place.line;
            assert!(
                (1..=lines).contains(&told) || lines == 0,
                "{problem}\n{text}"
            );
        }
    }
}

#[test]
fn the_least_that_works() {
    let built = good(GOOD);
    assert_eq!(built.startup.workers, 2);
    let listener = &built.startup.listeners[0];
    assert_eq!(listener.name, "192.0.2.1:53");
    assert!(listener.udp && listener.tcp);
    assert_eq!(built.reloadable.forwarding.pool_names(), ["default"]);
    let name = dnscrub_wire::Name::from_text("www.example.com").unwrap();
    assert_eq!(built.reloadable.routes.pool(&name), 0);
}

#[test]
fn zones_are_routed_by_the_longest_name() {
    let built = good(
        "listen: [ { address: 192.0.2.1 } ]
pools:
  a: { upstreams: [ { address: 192.0.2.10 } ] }
  default: { upstreams: [ { address: 192.0.2.11 } ] }
zones:
  - { name: example.com, pool: a }
  - { name: shop.example.com }
",
    );
    let pool = |name: &str| {
        built
            .reloadable
            .routes
            .pool(&dnscrub_wire::Name::from_text(name).unwrap())
    };
    assert_eq!(pool("www.Example.com"), 0);
    assert_eq!(pool("example.com"), 0);
    assert_eq!(pool("x.shop.example.com"), 1);
    assert_eq!(pool("example.org"), 1);
    assert_eq!(pool("."), 1);
}

fn named(names: &str) -> Memory {
    let zone = format!("zones:\n  - name: example.com\n    names: {names}\n");
    Memory::new("dnscrub.yaml", plus(&zone))
        .with("example.zone", "@ SOA ns h 1 2 3 4 5\n")
        .with("key.txt", "c2VjcmV0\n")
        .with("bad.txt", "secret \"c2VjcmV0\";\n")
}

#[test]
fn sources_of_names_are_checked() {
    let tsig = |name: &str, file: &str| {
        named(&format!(
            "{{ axfr: 192.0.2.10, tsig: {{ name: {name}, secret-file: {file} }} }}"
        ))
    };
    snapshot(
        "zones",
        &files(&[
            ("learned", named("learned")),
            ("another word", named("learnt")),
            ("a list", named("[ learned ]")),
            ("nothing", named("{}")),
            ("both", named("{ axfr: 192.0.2.10, file: example.zone }")),
            ("an unknown key", named("{ ixfr: 192.0.2.10 }")),
            ("a host name", named("{ axfr: ns1.example.com }")),
            ("no server's address", named("{ axfr: 0.0.0.0 }")),
            (
                "settings of transfers for a file",
                named("{ file: example.zone, refresh: 1m }"),
            ),
            ("no such file", named("{ file: other.zone }")),
            (
                "too often, and no names",
                named("{ axfr: 192.0.2.10, refresh: 10ms, max-names: 0 }"),
            ),
            ("a good key", tsig("key.", "key.txt")),
            ("no secret", tsig("key.", "missing.txt")),
            ("a bad secret", tsig("key.", "bad.txt")),
            ("a bad key name", tsig("a..b", "key.txt")),
        ]),
    );
}

#[test]
fn sources_of_names_are_built() {
    let built = build(&named(
        "{ axfr: \"192.0.2.10:5300\", tsig: { name: Key, algorithm: hmac-sha512, secret-file: key.txt }, refresh: 1m, max-names: 5, proof-memory: 1MiB }",
    ))
    .unwrap();
    let [settings] = built.reloadable.zone_settings.as_slice() else {
        panic!("one zone");
    };
    assert_eq!(settings.limits.names, 5);
    assert_eq!(settings.limits.proof_octets, 1 << 20);
    let ZoneSource::Transfer(source) = &settings.source else {
        panic!("{settings:?}");
    };
    assert_eq!(source.server.to_string(), "192.0.2.10:5300");
    assert_eq!(source.refresh.unwrap().as_secs(), 60);
    assert!(!format!("{settings:?}").contains("c2VjcmV0"));
    let text = Summary::of(&built).to_string();
    assert!(
        text.contains("example.com: names transferred from 192.0.2.10:5300, TSIG key `Key`"),
        "{text}"
    );

    // what is known outlives a reload, unless its source changes
    let again = |names: &str| {
        let surroundings = Surroundings {
            running: Some((&built.startup, &built.reloadable)),
            now: Instant::now(),
            cores: 2,
        };
        let beside = load(Path::new("dnscrub.yaml"), &named(names), surroundings).unwrap();
        let zones = |policy: &Reloadable| Arc::clone(policy.zones.iter().next().unwrap());
        Arc::ptr_eq(&zones(&built.reloadable), &zones(&beside.reloadable))
    };
    let same = "{ axfr: \"192.0.2.10:5300\", tsig: { name: key., algorithm: hmac-sha512, secret-file: key.txt }, refresh: 60s, max-names: 5, proof-memory: 1MiB }";
    assert!(again(same));
    assert!(!again(&same.replace("sha512", "sha256")));
    assert!(!again(&same.replace("60s", "61s")));
    assert!(!again("{ file: example.zone }"));
    assert!(!again("learned"));
}

#[test]
fn included_files_add_their_rules_and_lists() {
    let files = Memory::new(
        "/etc/dnscrub/dnscrub.yaml",
        plus("rules: [ { name: one, do: drop } ]\ninclude: [ rules/a.yaml, rules/b.yaml ]\n"),
    )
    .with(
        "/etc/dnscrub/rules/a.yaml",
        "rules: [ { name: two, when: { source: { in: bad } }, do: drop } ]\nlists: { bad: { prefix-file: bad.txt } }\ninclude: [ c.yaml ]\n",
    )
    .with("/etc/dnscrub/rules/bad.txt", "192.0.2.0/24\n")
    .with("/etc/dnscrub/rules/b.yaml", "rules: [ { name: four, do: drop } ]\nblocklist: { files: [ drop.txt ] }\n")
    .with("/etc/dnscrub/rules/c.yaml", "rules: [ { name: three, do: drop } ]\n")
    .with("/etc/dnscrub/rules/drop.txt", "198.51.100.0/24 spam\n203.0.113.7\n");
    let surroundings = Surroundings {
        running: None,
        now: Instant::now(),
        cores: 1,
    };
    let built = load(Path::new("/etc/dnscrub/dnscrub.yaml"), &files, surroundings)
        .unwrap_or_else(|problems| panic!("{problems}"));
    let names: Vec<&str> = built
        .file
        .rules
        .iter()
        .map(|rule| rule.name.as_str())
        .collect();
    assert_eq!(names, ["one", "two", "three", "four"]);
    assert_eq!(built.lists[0].entries, 1);
    assert_eq!(
        built.blocklists[0].path,
        Path::new("/etc/dnscrub/rules/drop.txt")
    );
    assert_eq!(built.blocklists[0].entries, 2);
}

#[test]
fn a_receivers_token_is_as_long_as_the_receiver_likes() {
    let files = |token: &str| {
        let notify = "notify: { webhooks: [ { name: chat, url: \"https://chat.example/\", token-file: token } ] }\n";
        Memory::new("dnscrub.yaml", plus(notify)).with("token", token)
    };
    build(&files("short\n")).unwrap();
    for wrong in ["", "\n", "two words\n"] {
        let problems = build(&files(wrong)).unwrap_err().to_string();
        assert!(
            problems.contains("no usable token") && problems.contains("that the receiver gave you"),
            "{problems}"
        );
    }
}

#[test]
fn cookie_secrets_are_read_and_not_shown() {
    const SECRET: &str = "445536bcd2513298075a5d379663c962";
    let files = |secrets: &str| {
        Memory::new("dnscrub.yaml", plus("cookies: { secrets-file: secrets }\n"))
            .with("secrets", secrets)
    };
    let two = format!("# new\n{SECRET} ; made yesterday\n\n{}\n", "AB".repeat(16));
    let built = build(&files(&two)).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(built.reloadable.cookies.are_shared());
    let shown = format!("{built:?}");
    assert!(
        !shown.contains(SECRET) && shown.contains("secrets: 2"),
        "{shown}"
    );

    for (secrets, complaint) in [
        ("", "holds 0 secrets"),
        ("445536\n", "line 1 of `secrets` is no secret"),
        (&format!("{SECRET}\n+{}\n", &SECRET[1..]), "line 2"),
        (&format!("{SECRET}\n").repeat(5), "holds 5 secrets"),
    ] {
        let problems = build(&files(secrets)).unwrap_err().to_string();
        assert!(problems.contains(complaint), "{problems}");
        assert!(problems.contains("dnscrub.yaml:"), "{problems}");
        assert!(!problems.contains(&SECRET[2..]), "{problems}");
    }
    let missing = Memory::new("dnscrub.yaml", plus("cookies: { secrets-file: nowhere }\n"));
    let problems = build(&missing).unwrap_err().to_string();
    assert!(problems.contains("nowhere"), "{problems}");
}

#[test]
fn cookies_of_this_process_outlive_a_reload() {
    let old = good(&plus(""));
    let again = |text: String| {
        let surroundings = Surroundings {
            running: Some((&old.startup, &old.reloadable)),
            now: Instant::now(),
            cores: 2,
        };
        let files = Memory::new("dnscrub.yaml", text).with("secrets", "ab".repeat(16));
        let new = load(Path::new("dnscrub.yaml"), &files, surroundings);
        new.unwrap_or_else(|problems| panic!("{problems}"))
    };
    let cookie = |built: &Configuration| {
        let source = "192.0.2.1".parse().unwrap();
        built.reloadable.cookies.make([7; 8], source, 1_000)
    };
    assert_eq!(cookie(&again(plus("workers: 1\n"))), cookie(&old));
    let shared = again(plus("cookies: { secrets-file: secrets }\n"));
    assert_ne!(cookie(&shared), cookie(&old));
    assert_ne!(
        cookie(&good(&plus(""))),
        cookie(&old),
        "each process has its own"
    );
}

#[test]
fn a_wrong_response_limit_is_told_with_its_place() {
    let yaml = plus("response-limit:\n  v4-prefix: 33\n  exempt-lists: [ friends ]\n");
    let problems = build(&Memory::new("dnscrub.yaml", yaml)).unwrap_err();
    let text = problems.to_string();
    assert!(text.contains("expected 1 to 32"), "{text}");
    assert!(text.contains("unknown list"), "{text}");
}

#[test]
fn wrong_settings_of_dnstap_are_told_with_their_place() {
    let wrong = |dnstap: &str| {
        let yaml = plus(&format!("dnstap: {{ {dnstap} }}\n"));
        build(&Memory::new("dnscrub.yaml", yaml))
            .unwrap_err()
            .to_string()
    };
    for (dnstap, told) in [
        ("sample: 1/2", "`dnstap` names 0 places to write to"),
        ("file: a, unix: b", "one of `file`, `unix` and `tcp`"),
        ("tcp: \"192.0.2.1:0\"", "a port from 1 to 65535"),
        ("file: a, sample: 1/0", "a share such as"),
        ("file: a, sample: 2/3", "a share such as"),
        ("file: a, only: [ lost ]", "`lost`"),
        ("file: a, buffer: 1KiB", "a size from 256KiB to 1GiB"),
        ("file: a, rotate-at: 10KiB", "a size of 1MiB or more"),
        ("file: a, keep: 2000", "a whole number from 0 to 1000"),
        ("file: a, identity: \"\"", "1 to 255 octets"),
    ] {
        let text = wrong(dnstap);
        assert!(
            text.contains(told) && text.contains("--> dnscrub.yaml:"),
            "{dnstap}\n{text}"
        );
    }
    let built = good(&plus(
        "dnstap: { file: taps, sample: 1/10, only: [ dropped, expired ] }\n",
    ));
    let settings = built.startup.dnstap.unwrap().to_string();
    assert_eq!(
        settings,
        "1/10 of the queries, only dropped, expired, to taps"
    );
}

#[test]
fn the_token_is_read_and_not_shown() {
    let files = Memory::new(
        "dnscrub.yaml",
        plus("control: { http: { address: \"127.0.0.1:8053\", token-file: token } }\n"),
    )
    .with("token", "0123456789abcdef\n");
    let built = build(&files).unwrap_or_else(|problems| panic!("{problems}"));
    let http = built.startup.control.http.as_ref().unwrap();
    assert_eq!(http.token.as_deref(), Some("0123456789abcdef"));
    let summary = Summary::of(&built).to_string();
    assert!(
        summary.contains("Status page: http://127.0.0.1:8053/, with the token"),
        "{summary}"
    );
    assert!(!format!("{:?}", built.startup).contains("0123456789abcdef"));
}

#[test]
fn on_loopback_looking_needs_no_token() {
    let built = good(&plus("control: { http: { address: \"[::1]:8053\" } }\n"));
    let http = built.startup.control.http.as_ref().unwrap();
    assert_eq!(http.token, None);
    let summary = Summary::of(&built).to_string();
    assert!(
        summary.contains(
            "Status page: http://[::1]:8053/, for everybody on this machine; nothing can be changed there"
        ),
        "{summary}"
    );
}

#[test]
fn what_needs_a_restart_is_named() {
    let old = good(GOOD);
    assert!(restart_needed(&old.startup, &good(GOOD).startup).is_empty());
    let new = good(&plus(
        "workers: 7\nmetrics: { address: \"127.0.0.1:9\" }\nlog: { format: json }\n",
    ));
    assert_eq!(
        restart_needed(&old.startup, &new.startup),
        ["workers", "metrics", "log"]
    );
}

#[test]
fn a_reload_keeps_workers_and_numbers_of_listeners() {
    let old = good(GOOD);
    let files = Memory::new(
        "dnscrub.yaml",
        plus("workers: 9\n").replace("192.0.2.10:53", "192.0.2.12:53"),
    );
    let surroundings = Surroundings {
        running: Some((&old.startup, &old.reloadable)),
        now: Instant::now(),
        cores: 2,
    };
    let new = load(Path::new("dnscrub.yaml"), &files, surroundings)
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert!(new.reloadable.generation > old.reloadable.generation);
    assert_eq!(restart_needed(&old.startup, &new.startup), ["workers"]);
}

#[test]
fn the_manuals_example_is_good_and_is_said_in_words() {
    let summary = Summary::of(&good(EXAMPLE));
    snapshot("summary", &summary.to_string());
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["rules"][1]["name"], "any-over-udp");
}

#[test]
fn limits_in_the_kernel() {
    let limit = |limit: &str| {
        plus(&format!(
            "kernel: {{ interface: eth0 }}\nresponse: {{ attack: {{ kernel-limit: {limit} }} }}\n"
        ))
    };
    let interface = |interface: &str| plus(&format!("kernel: {{ interface: {interface} }}\n"));
    snapshot(
        "kernel",
        &table(&[
            (
                "no interface",
                plus("response: { attack: { kernel-limit: { v4: { 32: 200/s } } } }\n"),
            ),
            ("a mode that is none", interface("eth0, mode: fast")),
            ("no interfaces", interface("[]")),
            ("a path", interface("/dev/eth0")),
            ("a long name", interface("[ eth0, sixteen-octets-- ]")),
            ("a name twice", interface("[ eth0, eth1, eth0 ]")),
            ("no rate", limit("{ v4: { 32: off } }")),
            ("a rate that is none", limit("{ v4: { 32: 200 } }")),
            ("a long prefix", limit("{ v4: { 33: 200/s } }")),
            (
                "many lengths",
                limit("{ v6: { 128: 9/s, 64: 9/s, 56: 9/s, 48: 9/s, 32: 9/s } }"),
            ),
            (
                "a factor below one",
                limit("{ v4: { 32: 9/s }, factor: 0.5 }"),
            ),
        ]),
    );
    let built = good(&limit(
        "{ v4: { 24: 2000/s, 32: 30/m, 16: off }, v6: { 64: 200/s }, burst: 2s }",
    ));
    let kernel = &built.reloadable.kernel;
    let attack = kernel.attack.as_ref().unwrap();
    assert_eq!(
        attack.words,
        "30/m from a /32 and 2000/s from a /24 of IPv4, 200/s from a /64 of IPv6"
    );
    let lengths = |steps: &[(u8, dnscrub_xdp::Pace)]| {
        let rates = steps
            .iter()
            .map(|(length, pace)| (*length, pace.per_second()));
        rates.collect::<Vec<_>>()
    };
    assert_eq!(lengths(&attack.limit.v4), [(32, 0.5), (24, 2000.0)]);
    assert_eq!(lengths(&attack.limit.v6), [(64, 200.0)]);
    assert!(kernel.alert.is_none() && !kernel.observe);
}

#[test]
fn who_is_exempt_in_the_kernel() {
    let files = Memory::new(
        "dnscrub.yaml",
        plus(
            "kernel: { interface: [ eth0, eth1 ], mode: generic }
response: { alert: { kernel-limit: { v4: { 32: 200/s } } } }
blocklist: { never-block: [ 203.0.113.0/24 ] }
response-limit: { exempt: [ 192.0.2.2 ], exempt-lists: [ friends ] }
signals: { reputation: { lists: { friends: -50, many: 10 } } }
lists: { friends: { prefixes: [ 192.0.2.4, \"2001:db8::/32\" ] }, many: { prefix-file: many.txt } }
rules: [ { name: ours, when: { source: 192.0.2.5 }, do: allow } ]
",
        ),
    )
    .with("many.txt", "192.0.2.6\n");
    let built = build(&files).unwrap_or_else(|problems| panic!("{problems}"));
    let exempt = built.reloadable.kernel.exempt.iter();
    assert_eq!(
        exempt.map(ToString::to_string).collect::<Vec<_>>(),
        [
            "192.0.2.2/32",
            "192.0.2.4/32",
            "192.0.2.5/32",
            "203.0.113.0/24",
            "2001:db8::/32"
        ]
    );
    let warnings = Summary::of(&built).warnings.join("\n");
    assert!(warnings.contains("the level `alert` has a `kernel-limit` and `attack` has none"));
    let idle = good(&plus("kernel: { interface: eth0 }\n"));
    assert!(
        Summary::of(&idle)
            .warnings
            .join("\n")
            .contains("`kernel` has nothing to do")
    );

    // more than there is room for
    let many: String = (0..70_000_u32)
        .map(|number| format!("{}\n", std::net::Ipv4Addr::from(number * 2)))
        .collect();
    let files = Memory::new(
        "dnscrub.yaml",
        plus(
            "kernel: { interface: eth0 }
response: { attack: { kernel-limit: { v4: { 32: 200/s } } } }
response-limit: { exempt: [], exempt-lists: [ many ] }
lists: { many: { prefix-file: many.txt } }
",
        ),
    )
    .with("many.txt", many);
    let said = message(&files);
    assert!(
        said.contains("found 70000 IPv4 prefixes that somebody vouches for"),
        "{said}"
    );
}

#[test]
fn who_is_told_of_incidents() {
    let webhook = |rest: &str| {
        plus(&format!(
            "notify:\n  webhooks:\n    - {{ name: chat, url: \"https://chat.example/\"{rest} }}\n"
        ))
    };
    snapshot(
        "notify",
        &table(&[
            (
                "an unknown kind",
                webhook(", only: { kinds: [ random-subdomain ] }"),
            ),
            ("an unknown event", webhook(", only: { events: [ open ] }")),
            ("too sure", webhook(", only: { confidence: 90 }")),
            ("no zone", webhook(", only: { zones: [ example..com ] }")),
            ("no secret file", webhook(", secret-files: [ gone ]")),
            (
                "no variable",
                webhook(", secret-env: [ DNSCRUB_TEST_NOT_THERE ]"),
            ),
            ("no time", webhook(", time-limit: 0s")),
            (
                "no address",
                webhook("").replace("https://chat.example/", "chat.example"),
            ),
            (
                "a blank name",
                webhook("").replace("name: chat", "name: \"the chat\""),
            ),
            (
                "a name twice",
                webhook("") + "  commands: [ { name: chat, run: [ /bin/true ] } ]\n",
            ),
            (
                "a relative program",
                plus("notify: { commands: [ { name: a, run: [ page ] } ] }\n"),
            ),
            (
                "an alertmanager's mistakes",
                plus(
                    "notify:\n  alertmanagers:\n    - name: ops\n      urls: [ \"http://x:9093/api/v2\" ]\n      \
                     escalate: [ 15m, 5m ]\n      resend: 10ms\n      only: { events: [ opened ] }\n",
                ),
            ),
            (
                "an unknown gap",
                plus("notify: { playbook: \"https://x/{knid}\" }\n"),
            ),
        ]),
    );
}

#[test]
fn warnings_name_what_will_surprise() {
    let files = Memory::new(
        "dnscrub.yaml",
        "\
listen:
  - { address: 192.0.2.1, transports: [ udp ] }
pools:
  default:
    upstreams: [ { address: 192.0.2.10 } ]
    health: off
  spare:
    upstreams: [ { address: 192.0.2.11 }, { address: 192.0.2.12 } ]
scrubbing: { mode: observe, bands: [] }
rules:
  - { name: first, when: { qtype: ANY }, do: drop }
  - { name: same, when: { qtype: ANY }, do: refuse }
  - { name: watched, observe: true, do: drop }
  - { name: all, do: allow }
  - { name: late, when: { qtype: A }, do: drop }
lists:
  unused: { prefixes: [ 192.0.2.1 ] }
blocklist: { files: [ drop.txt ] }
control: { http: { address: \"192.0.2.1:8053\", token-file: token } }
",
    )
    .with("drop.txt", "# nothing yet\n")
    .with("token", "0123456789abcdef");
    let built = build(&files).unwrap_or_else(|problems| panic!("{problems}"));
    snapshot("warnings", &Summary::of(&built).warnings.join("\n"));
}

#[test]
fn the_reference_is_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    for (name, content) in pages() {
        let path = folder.join(&name);
        if std::env::var_os("DNSCRUB_UPDATE_REFERENCE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &content).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == content,
            "docs/reference/{name} is stale; DNSCRUB_UPDATE_REFERENCE=1 cargo test -p dnscrub --lib reference writes it anew"
        );
    }
}

#[test]
fn the_example_shows_every_section() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    for section in schema["properties"].as_object().unwrap().keys() {
        // Only beside other files there is something to include.
        let shown = EXAMPLE
            .lines()
            .any(|line| line.starts_with(&format!("{section}:")));
        assert!(shown || section == "include", "{section}");
    }
}
