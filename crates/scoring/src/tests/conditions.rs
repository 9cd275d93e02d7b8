//! Every condition, alone and combined.

use dnscrub_wire::Query;

use crate::context::Context;
use crate::judgement::Action;
use crate::testing::{Bench, context, query, query_with, tcp};

/// Whether a rule with these conditions matches.
fn holds(when: &str, query: &(Query, Vec<u8>), context: &Context) -> bool {
    let lists = "lists: { office: { prefixes: [192.0.2.0/24, '2001:db8::/32'] }, zones: { names: [example.com, example.net] } }";
    let mut bench = Bench::new(&format!(
        "{lists}\nrules: [{{ name: it, when: {when}, do: drop }}]"
    ));
    bench.judge(query, context).action == Action::Drop
}

fn name(when: &str, name: &str) -> bool {
    holds(
        &format!("{{ qname: {when} }}"),
        &query(name, 1),
        &context("192.0.2.1"),
    )
}

fn source(when: &str, source: &str) -> bool {
    holds(
        &format!("{{ source: {when} }}"),
        &query("example.com", 1),
        &context(source),
    )
}

#[test]
fn no_condition_matches_everything() {
    assert!(holds("{}", &query(".", 1), &context("192.0.2.1")));
    assert!(holds("{ all: [] }", &query(".", 1), &context("192.0.2.1")));
}

#[test]
fn source_in_prefixes_and_lists() {
    assert!(source("192.0.2.1", "192.0.2.1"));
    assert!(!source("192.0.2.1", "192.0.2.2"));
    assert!(source("[198.51.100.0/24, 192.0.2.0/31]", "192.0.2.1"));
    assert!(source("192.0.2.1", "::ffff:192.0.2.1"));
    assert!(source("'::ffff:192.0.2.0/120'", "192.0.2.1"));
    assert!(source("0.0.0.0/0", "192.0.2.1"));
    assert!(!source("0.0.0.0/0", "2001:db8::1"));
    assert!(source("'2001:db8::/32'", "2001:db8::1"));
    assert!(source("{ prefix: 192.0.2.1 }", "192.0.2.1"));
    assert!(source("{ in: office }", "192.0.2.1"));
    assert!(source("{ in: [office] }", "2001:db8::1"));
    assert!(!source("{ in: office }", "198.51.100.1"));
    assert!(source("{ not-in: office }", "198.51.100.1"));
    assert!(!source("{ not-in: office }", "192.0.2.1"));
    assert!(source(
        "{ prefix: 0.0.0.0/0, not-in: office }",
        "198.51.100.1"
    ));
    assert!(!source(
        "{ prefix: 198.51.100.0/24, in: office }",
        "198.51.100.1"
    ));
}

#[test]
fn many_prefixes_and_names_in_one_condition() {
    let prefixes: Vec<String> = (0..1000)
        .map(|n| format!("10.{}.{}.0/24", n / 256, n % 256))
        .collect();
    assert!(source(&format!("[{}]", prefixes.join(",")), "10.3.1.7"));
    assert!(!source(&format!("[{}]", prefixes.join(",")), "10.4.1.7"));
    let names: Vec<String> = (0..1000).map(|n| format!("zone{n}.example")).collect();
    assert!(name(
        &format!("{{ under: [{}] }}", names.join(",")),
        "www.zone999.example"
    ));
    assert!(!name(
        &format!("{{ under: [{}] }}", names.join(",")),
        "www.zone1000.example"
    ));
    assert!(name(&format!("[{}]", names.join(",")), "zone999.example"));
    assert!(!name(
        &format!("[{}]", names.join(",")),
        "www.zone999.example"
    ));
}

#[test]
fn qname_exact_and_under() {
    assert!(name("example.com", "EXAMPLE.com"));
    assert!(!name("example.com", "www.example.com"));
    assert!(name("{ exact: [a.test, Example.COM.] }", "example.com"));
    assert!(name("{ under: example.com }", "example.com"));
    assert!(name("{ under: example.com }", "a.b.example.com"));
    assert!(!name("{ under: example.com }", "badexample.com"));
    assert!(!name("{ under: example.com }", "com"));
    assert!(name("{ under: [a.test, example.com] }", "www.example.com"));
    assert!(name("{ under: . }", "."));
    assert!(name("{ under: . }", "www.example.com"));
    assert!(name("{ under: { list: zones } }", "www.example.net"));
    assert!(!name("{ under: { list: [zones] } }", "www.example.org"));
    assert!(name(".", "."));
}

#[test]
fn qname_by_pattern() {
    assert!(name("{ glob: '*.example.com' }", "WWW.example.com"));
    assert!(!name("{ glob: '*.example.com' }", "a.b.example.com"));
    assert!(name("{ glob: ['x', 'w?w.**'] }", "www.example.com"));
    assert!(name(
        "{ regex: '^[a-z0-9]{16,}\\.r17\\.' }",
        "abcdefghij0123456789.r17.example"
    ));
    assert!(!name(
        "{ regex: '^[a-z0-9]{16,}\\.r17\\.' }",
        "abcdefghij.r17.example"
    ));
    assert!(name("{ regex: ['nothing', 'm$'] }", "example.com"));
    assert!(name("{ regex: '^\\\\000x' }", "\\000x.example"));
}

#[test]
fn qname_by_shape() {
    assert!(name("{ first-label: { length: 7.. } }", "example.com"));
    assert!(!name("{ first-label: { length: 8.. } }", "example.com"));
    assert!(name("{ first-label: { length: 7 } }", "example.com"));
    assert!(!name("{ first-label: { length: ..63 } }", "."));
    assert!(name("{ first-label: { alphabet: alnum } }", "example1.com"));
    assert!(!name(
        "{ first-label: { alphabet: alnum } }",
        "exa-mple.com"
    ));
    assert!(!name("{ first-label: { alphabet: ldh } }", "."));
    assert!(name(
        "{ first-label: { entropy: 3.5.. } }",
        "abcdefghijklmnop.com"
    ));
    assert!(!name(
        "{ first-label: { entropy: 3.5.. } }",
        "aaaaaaaaaaaaaaaa.com"
    ));
    assert!(name("{ labels: ..2 }", "example.com"));
    assert!(!name("{ labels: 3.. }", "example.com"));
    assert!(name("{ labels: 0 }", "."));
    assert!(name(
        "{ under: example.com, first-label: { length: 12.., alphabet: alnum } }",
        "abcdefghijkl.example.com"
    ));
    assert!(!name(
        "{ under: example.com, first-label: { length: 12.., alphabet: alnum } }",
        "abcdefghijk.example.com"
    ));
}

#[test]
fn question_and_header() {
    let here = context("192.0.2.1");
    let any = query("example.com", 255);
    assert!(holds("{ qtype: ANY }", &any, &here));
    assert!(holds("{ qtype: [a, any] }", &any, &here));
    assert!(holds("{ qtype: TYPE255 }", &any, &here));
    assert!(!holds("{ qtype: A }", &any, &here));
    let chaos = query_with(&"version.bind".parse().unwrap(), 16, 3, 0, None);
    assert!(holds("{ qclass: CH }", &chaos, &here));
    assert!(!holds("{ qclass: [IN, HS] }", &chaos, &here));
    let notify = query_with(&"example.com".parse().unwrap(), 6, 1, 4 << 11, None);
    assert!(holds("{ opcode: notify }", &notify, &here));
    assert!(holds("{ opcode: 4 }", &notify, &here));
    assert!(!holds("{ opcode: [query, update] }", &notify, &here));
    let flags = query_with(&"example.com".parse().unwrap(), 1, 1, 0x0110, None);
    assert!(holds(
        "{ flags: { rd: true, cd: true, ad: false } }",
        &flags,
        &here
    ));
    assert!(!holds("{ flags: { rd: false } }", &flags, &here));
    assert!(!holds("{ flags: { cd: true, ad: true } }", &flags, &here));
}

#[test]
fn edns() {
    let here = context("192.0.2.1");
    let name = "example.com".parse().unwrap();
    let plain = query("example.com", 1);
    // 4096 octets, version 1, DO, option 10 with 2 octets
    let edns = query_with(
        &name,
        1,
        1,
        0,
        Some(&[16, 0, 0, 1, 0x80, 0, 0, 6, 0, 10, 0, 2, 1, 2]),
    );
    for (when, with, without) in [
        ("{ present: true }", true, false),
        ("{ present: false }", false, true),
        ("{ version: 1.. }", true, false),
        ("{ version: 0 }", false, false),
        ("{ do: true }", true, false),
        ("{ do: false }", false, false),
        ("{ buffer-size: 4096.. }", true, false),
        ("{ buffer-size: ..512 }", false, false),
        ("{ options: 10 }", true, false),
        ("{ options: [8, 10] }", true, false),
        ("{ options: [8] }", false, false),
    ] {
        let when = format!("{{ edns: {when} }}");
        assert_eq!(holds(&when, &edns, &here), with, "{when}");
        assert_eq!(holds(&when, &plain, &here), without, "{when}");
    }
}

#[test]
fn transport_and_listener() {
    let query = query("example.com", 1);
    assert!(holds("{ transport: udp }", &query, &context("192.0.2.1")));
    assert!(!holds("{ transport: udp }", &query, &tcp("192.0.2.1")));
    assert!(holds(
        "{ transport: [udp, tcp] }",
        &query,
        &tcp("192.0.2.1")
    ));
    assert!(holds("{ listener: public }", &query, &context("192.0.2.1")));
    assert!(!holds(
        "{ listener: [inside] }",
        &query,
        &context("192.0.2.1")
    ));
    assert!(holds(
        "{ listener: inside }",
        &query,
        &Context {
            listener: 1,
            ..context("192.0.2.1")
        }
    ));
}

#[test]
fn all_any_and_not() {
    let here = context("192.0.2.1");
    let any = query("www.example.com", 255);
    for (when, expected) in [
        (
            "{ all: [{ qtype: ANY }, { qname: { under: example.com } }] }",
            true,
        ),
        (
            "{ all: [{ qtype: ANY }, { qname: { under: example.net } }] }",
            false,
        ),
        (
            "{ any: [{ qtype: A }, { qname: { under: example.com } }] }",
            true,
        ),
        (
            "{ any: [{ qtype: A }, { qname: { under: example.net } }] }",
            false,
        ),
        ("{ not: { qtype: A } }", true),
        ("{ not: { qtype: ANY } }", false),
        ("{ not: { qtype: ANY, transport: tcp } }", true),
        ("{ qtype: ANY, not: { qname: { regex: '^www' } } }", false),
        (
            "{ any: [{ not: { qtype: ANY } }, { qname: { regex: '^www' } }] }",
            true,
        ),
        (
            "{ all: [{ any: [{ qtype: A }, { qtype: ANY }] }, { not: { not: { source: 192.0.2.1 } } }] }",
            true,
        ),
        (
            "{ any: [{ source: { in: office } }, { qtype: A }], qname: { labels: 3 } }",
            true,
        ),
    ] {
        assert_eq!(holds(when, &any, &here), expected, "{when}");
    }
}
