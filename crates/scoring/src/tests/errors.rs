//! What is wrong with a configuration is said with its place, and what to do.

use crate::testing::build;

/// The one error of a configuration, as "path: message".
fn error(yaml: &str) -> String {
    let errors = build(yaml)
        .err()
        .unwrap_or_else(|| panic!("no error for {yaml}"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

/// The one error of a rule.
fn rule(when: &str, act: &str) -> String {
    error(&format!(
        "rules: [{{ name: x, do: drop }}, {{ name: it, when: {when}, do: {act} }}]"
    ))
}

#[track_caller]
fn says(error: &str, start: &str, part: &str) {
    assert!(error.starts_with(start), "{error}");
    assert!(error.contains(part), "{error}");
}

#[test]
fn conditions() {
    says(
        &rule("{ qname: { regex: '(a' } }", "drop"),
        "rules[1].when.qname.regex: found \"(a\"",
        "unclosed group",
    );
    says(
        &rule("{ qname: { regex: [a, '[z-a]'] } }", "drop"),
        "rules[1].when.qname.regex[1]: ",
        "invalid",
    );
    says(
        &rule("{ qname: { regex: '[a-z]*x.{30}y' } }", "drop"),
        "rules[1].when.qname.regex: ",
        "anchor it",
    );
    says(
        &rule("{ qname: a..b }", "drop"),
        "rules[1].when.qname.exact: found \"a..b\"",
        "empty",
    );
    says(
        &rule("{ qname: { under: [a, a..b] } }", "drop"),
        "rules[1].when.qname.under[1]: ",
        "empty",
    );
    says(
        &rule("{ qname: {} }", "drop"),
        "rules[1].when.qname: found no condition",
        "first-label",
    );
    says(
        &rule("{ source: {} }", "drop"),
        "rules[1].when.source: found no condition",
        "not-in",
    );
    says(
        &rule("{ edns: {} }", "drop"),
        "rules[1].when.edns: found no condition",
        "buffer-size",
    );
    says(
        &rule("{ edns: { present: false, do: true } }", "drop"),
        "rules[1].when.edns.present: ",
        "leave one out",
    );
    says(
        &rule("{ any: [] }", "drop"),
        "rules[1].when.any: found an empty list",
        "leave it out",
    );
    says(
        &rule("{ any: [{ not: { listener: publc } }] }", "drop"),
        "rules[1].when.any[0].not.listener: ",
        "did you mean \"public\"?",
    );
    says(
        &rule("{ qname: { first-label: {} } }", "drop"),
        "rules[1].when.qname.first-label: ",
        "alphabet",
    );
    let deep = format!("{}{{}}{}", "{ not: ".repeat(20), " }".repeat(20));
    says(
        &rule(&deep, "drop"),
        "rules[1].when.not.not",
        "nested deeper",
    );
}

#[test]
fn references() {
    let lists = "lists: { office: { prefixes: [192.0.2.1] }, zones: { names: [a.test] } }\nrules: [{ name: it, do: drop, when: ";
    let rule_of = |when: &str| error(&format!("{lists}{when} }}]"));
    says(
        &rule_of("{ source: { in: ofice } }"),
        "rules[0].when.source.in: ",
        "did you mean \"office\"?",
    );
    says(
        &rule_of("{ source: { not-in: [office, x] } }"),
        "rules[0].when.source.not-in[1]: ",
        "expected one of: office, zones",
    );
    says(
        &rule_of("{ source: { in: zones } }"),
        "rules[0].when.source.in: ",
        "expected a list of prefixes",
    );
    says(
        &rule_of("{ qname: { under: { list: office } } }"),
        "rules[0].when.qname.under.list: ",
        "expected a list of names",
    );
    says(
        &rule("{ source: { in: x } }", "drop"),
        "rules[1].when.source.in: ",
        "there are none",
    );
    says(
        &rule("{}", "{ pool: slw }"),
        "rules[1].do.pool: found unknown pool \"slw\"",
        "did you mean \"slow\"?",
    );
}

#[test]
fn actions() {
    says(
        &rule("{}", "{}"),
        "rules[1].do: found nothing to do",
        "rate-limit",
    );
    says(
        &rule("{}", "{ action: drop, rate-limit: { rate: 1/s } }"),
        "rules[1].do.rate-limit: ",
        "two rules",
    );
    says(
        &rule("{}", "{ action: allow, block: 1m }"),
        "rules[1].do.block: ",
        "leave one",
    );
    says(
        &rule("{}", "{ action: drop, pool: slow }"),
        "rules[1].do.pool: ",
        "never forwards",
    );
    says(&rule("{}", "{ block: 0s }"), "rules[1].do.block: ", "10m");
    says(
        &rule("{}", "{ rate-limit: { rate: off } }"),
        "rules[1].do.rate-limit.rate: ",
        "remove the rule",
    );
    says(
        &rule("{}", "{ rate-limit: { rate: 1/s, burst: 0 } }"),
        "rules[1].do.rate-limit.burst: ",
        "at least 1",
    );
    says(
        &rule("{}", "{ rate-limit: { rate: 1/s, per: { v4: 33 } } }"),
        "rules[1].do.rate-limit.per.v4: ",
        "0 to 32",
    );
    says(
        &error("rules: [{ name: a, do: drop }, { name: a, do: drop }]"),
        "rules[1].name: ",
        "rules[0] already",
    );
    says(
        &error("rules: [{ name: '', do: drop }]"),
        "rules[0].name: ",
        "empty name",
    );
}

#[test]
fn bands_and_signals() {
    let bands = |bands: &str| error(&format!("scrubbing: {{ bands: {bands} }}"));
    says(
        &bands("[{ action: drop, at: 10, under-pressure: 20 }]"),
        "scrubbing.bands[0].under-pressure: ",
        "at most 10",
    );
    says(
        &bands("[{ action: drop, at: 10, under-pressure: 0 }]"),
        "scrubbing.bands[0].under-pressure: ",
        "at least 1",
    );
    says(
        &bands(
            "[{ action: truncate, at: 10, under-pressure: 5 }, { action: drop, at: 9, under-pressure: 6 }]",
        ),
        "scrubbing.bands[1].at: ",
        "mild to severe",
    );
    says(
        &error("signals: { rate: { v4: { 33: 1/s } } }"),
        "signals.rate.v4.33: ",
        "0 to 32",
    );
    says(
        &error("signals: { amplification: { from: 9MiB } }"),
        "signals.amplification.from: ",
        "at most 8MiB",
    );
    assert_eq!(
        build("rules: [{ name: a, do: {} }, { name: a, do: {} }]")
            .unwrap_err()
            .len(),
        3,
        "all errors at once"
    );
}

/// Errors of the file's form come from the reader of the file, with the path beside.
#[test]
fn form() {
    let reading = |yaml: &str| {
        let read = serde_yaml::Deserializer::from_str(yaml);
        let error = serde_path_to_error::deserialize::<_, crate::config::Rule>(read).unwrap_err();
        format!("{}: {}", error.path(), error.inner())
    };
    for (yaml, parts) in [
        ("{ name: a, do: dorp }", ["do", "dorp"]),
        ("{ name: a, do: { action: dorp } }", ["do.action", "dorp"]),
        (
            "{ name: a, do: drop, when: { qtype: AAA } }",
            ["when.qtype", "did you mean"],
        ),
        (
            "{ name: a, do: drop, when: { qtipe: A } }",
            ["when", "qtype"],
        ),
        (
            "{ name: a, do: drop, when: { qname: { first-label: { length: x } } } }",
            ["when.qname.first-label.length", "range"],
        ),
        (
            "{ name: a, do: drop, when: { source: 192.0.2.1/24 } }",
            ["when.source", "192.0.2.0/24"],
        ),
        (
            "{ name: a, do: drop, when: { source: [192.0.2.1, x] } }",
            ["when.source[1]", "prefix"],
        ),
        (
            "{ name: a, do: { rate-limit: { rate: 5 } } }",
            ["do.rate-limit.rate", "200/s"],
        ),
        (
            "{ name: a, do: { rate-limit: { rate: 5/s, per: all } } }",
            ["do.rate-limit.per", "whole"],
        ),
        (
            "{ name: a, do: drop, when: { qtype: [] } }",
            ["when.qtype", "empty list"],
        ),
    ] {
        let error = reading(yaml);
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{yaml}: {error}"
        );
    }
}
