//! The examples of the documentation are configurations that build.

use std::collections::BTreeMap;

use crate::config;
use crate::lists::List;
use crate::policy::{Names, Policy};
use crate::signals::FILES;

/// The sections of a file.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    scrubbing: config::Scrubbing,
    signals: config::Signals,
    lists: config::Lists,
    rules: Vec<config::Rule>,
}

#[test]
fn every_example_builds() {
    let others = [
        ("config", include_str!("../config/mod.rs")),
        ("config::rule", include_str!("../config/rule.rs")),
        ("evidence", include_str!("../evidence.rs")),
    ];
    let signals = FILES.iter().map(|&(signal, _, source)| (signal, source));
    for (name, source) in signals.chain(others) {
        let mut examples = 0;
        let mut lines = source
            .lines()
            .map(|line| line.trim_start_matches("//!").trim_start_matches("///"));
        while lines.by_ref().any(|line| line.trim() == "```yaml") {
            let example: Vec<&str> = lines
                .by_ref()
                .take_while(|line| line.trim() != "```")
                .collect();
            let example = example.join("\n");
            let file: File =
                serde_yaml::from_str(&example).unwrap_or_else(|error| panic!("{error}\n{example}"));
            let mut lists: BTreeMap<String, List> = file
                .lists
                .iter()
                .map(|(name, list)| (name.clone(), List::build(list, None).unwrap()))
                .collect();
            let trusted = config::List {
                prefixes: vec!["192.0.2.53".parse().unwrap()],
                ..Default::default()
            };
            lists
                .entry("trusted-resolvers".into())
                .or_insert_with(|| List::build(&trusted, None).unwrap());
            let names = Names {
                pools: &[],
                listeners: &[],
                lists: &lists,
            };
            Policy::build(&file.scrubbing, &file.signals, &file.rules, &names, 1)
                .unwrap_or_else(|errors| panic!("{errors:?}\n{example}"));
            examples += 1;
        }
        assert!(examples > 0, "{name} has no example");
    }
}

#[test]
fn the_schema_describes_every_field() {
    let rule = serde_json::to_value(schemars::schema_for!(config::Rule)).unwrap();
    let signals = serde_json::to_value(schemars::schema_for!(config::Signals)).unwrap();
    let mut undescribed = Vec::new();
    for schema in [&rule, &signals] {
        let types = schema["$defs"].as_object().unwrap();
        for (name, schema) in types
            .iter()
            .map(|(name, schema)| (name.as_str(), schema))
            .chain([("top", schema)])
        {
            for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
                if schema["description"].as_str().is_none_or(str::is_empty) {
                    undescribed.push(format!("{name}.{field}"));
                }
            }
        }
    }
    assert_eq!(undescribed, Vec::<String>::new());
    assert!(
        rule["$defs"].get("QnameMap").is_some(),
        "{:?}",
        rule["$defs"].as_object().unwrap().keys()
    );
}

/// What is written out again reads as the same.
#[test]
fn rules_survive_being_written() {
    let yaml = "{ name: it, observe: true, when: { source: { prefix: [192.0.2.0/24], not-in: x }, \
                  qname: { under: { list: z }, first-label: { length: 12.., alphabet: alnum, entropy: 3.5.. }, labels: 3 }, \
                  qtype: [ANY, TYPE9999], any: [{ edns: { do: true } }, { flags: { rd: true } }] }, \
                  do: { rate-limit: { rate: 5/10s, per: whole, burst: 3, over: refuse }, score: -3, block: 10m, pool: p } }";
    let rule: config::Rule = serde_yaml::from_str(yaml).unwrap();
    let written = serde_yaml::to_string(&rule).unwrap();
    assert_eq!(
        serde_yaml::from_str::<config::Rule>(&written).unwrap(),
        rule,
        "{written}"
    );
    let signals = config::Signals::default();
    assert_eq!(
        serde_yaml::from_str::<config::Signals>(&serde_yaml::to_string(&signals).unwrap()).unwrap(),
        signals
    );
}
