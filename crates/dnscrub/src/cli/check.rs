//! `dnscrub check`.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::output::{Paint, Style, count, things};
use super::{Exit, json_text};
use crate::config::Disk;
use crate::config::runtime::{self, Configuration, Surroundings};

pub(super) fn run(file: &Path, as_json: bool, style: Style) -> Result<String, Exit> {
    match runtime::load(file, &Disk, Surroundings::at_start()) {
        Ok(configuration) if as_json => json_text(&summary(file, &configuration)),
        Ok(configuration) => Ok(view(&summary(file, &configuration), style)),
        Err(problems) if as_json => {
            let answer = json!({ "file": file, "good": false, "problems": problems });
            Err(Exit {
                code: 2,
                message: String::new(),
                printed: json_text(&answer)?,
            })
        }
        Err(problems) => Err(problems.into()),
    }
}

/// What a configuration means.
fn summary(file: &Path, configuration: &Configuration) -> Value {
    let Configuration {
        file: written,
        startup,
        reloadable,
        blocklists,
        lists,
    } = configuration;
    let listeners: Vec<Value> = startup
        .listeners
        .iter()
        .map(|it| json!({ "name": it.name, "addresses": it.addresses, "udp": it.udp, "tcp": it.tcp }))
        .collect();
    let pools: Vec<Value> = reloadable
        .forwarding
        .pools()
        .iter()
        .map(|pool| {
            let upstreams: Vec<Value> = pool
                .members
                .iter()
                .map(|it| json!({ "name": it.label, "address": it.upstream.address(), "weight": it.weight }))
                .collect();
            json!({
                "name": pool.name,
                "policy": word(&pool.balancing),
                "health": pool.health.as_ref().map(|health| humantime::format_duration(health.interval).to_string()),
                "upstreams": upstreams,
            })
        })
        .collect();
    let observed = reloadable
        .scoring
        .rules()
        .filter(|rule| rule.observe)
        .count();
    json!({
        "file": file,
        "good": true,
        "workers": startup.workers,
        "listeners": listeners,
        "pools": pools,
        "mode": word(&written.scrubbing.mode),
        "rules": { "count": reloadable.scoring.rules().count(), "observed": observed },
        "lists": lists.iter().map(|it| json!({ "name": it.name, "kind": it.kind, "entries": it.entries, "file": it.file })).collect::<Vec<_>>(),
        "blocklist": blocklists.iter().map(|it| json!({ "file": it.path, "entries": it.entries })).collect::<Vec<_>>(),
        "control": { "socket": startup.control.socket, "http": startup.control.http.as_ref().map(|http| http.address) },
        "metrics": startup.metrics,
        "state": startup.state_folder,
    })
}

/// An enumeration's value as the configuration file spells it.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn view(summary: &Value, style: Style) -> String {
    let word = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut text = format!(
        "{}\n\n",
        style.paint(Paint::Good, &format!("{} is good", word(&summary["file"])))
    );
    let mut line = |head: &str, body: String| {
        let _ = writeln!(text, "{head:<10} {body}");
    };
    line("workers", word(&summary["workers"]));
    for listener in items(&summary["listeners"]) {
        let transports = match (listener["udp"].as_bool(), listener["tcp"].as_bool()) {
            (Some(true), Some(true)) => "UDP and TCP",
            (Some(true), _) => "UDP",
            _ => "TCP",
        };
        let addresses: Vec<String> = items(&listener["addresses"]).iter().map(word).collect();
        line(
            "listener",
            format!(
                "{}: {} ({transports})",
                word(&listener["name"]),
                addresses.join(", ")
            ),
        );
    }
    for pool in items(&summary["pools"]) {
        let upstreams: Vec<String> = items(&pool["upstreams"])
            .iter()
            .map(|it| {
                let (name, address) = (word(&it["name"]), word(&it["address"]));
                let named = if name == address {
                    address
                } else {
                    format!("{name} at {address}")
                };
                if number(&it["weight"]) == 1 {
                    named
                } else {
                    format!("{named} (weight {})", it["weight"])
                }
            })
            .collect();
        let checked = pool["health"].as_str().map_or_else(
            || "not checked".to_owned(),
            |every| format!("checked every {every}"),
        );
        line(
            "pool",
            format!(
                "{}: {} ({}, {checked})",
                word(&pool["name"]),
                upstreams.join(", "),
                word(&pool["policy"])
            ),
        );
    }
    line("mode", word(&summary["mode"]));
    let observed = number(&summary["rules"]["observed"]);
    let note = if observed > 0 {
        format!(", {} in observe mode", count(observed as u64))
    } else {
        String::new()
    };
    line(
        "rules",
        format!("{}{note}", count(number(&summary["rules"]["count"]) as u64)),
    );
    for list in items(&summary["lists"]) {
        line(
            "list",
            format!(
                "{}: {} {}",
                word(&list["name"]),
                count(number(&list["entries"]) as u64),
                word(&list["kind"])
            ),
        );
    }
    for file in items(&summary["blocklist"]) {
        line(
            "blocklist",
            format!(
                "{}: {}",
                word(&file["file"]),
                things(number(&file["entries"]), "prefix", "prefixes")
            ),
        );
    }
    line("control", word(&summary["control"]["socket"]));
    if !summary["control"]["http"].is_null() {
        line("", format!("http://{}/", word(&summary["control"]["http"])));
    }
    if !summary["metrics"].is_null() {
        line(
            "metrics",
            format!("http://{}/metrics", word(&summary["metrics"])),
        );
    }
    line("state", word(&summary["state"]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
workers: 2
listen: [ { name: main, address: [ "127.0.0.1:5399", "[::1]:5399" ] } ]
pools:
  default:
    upstreams: [ { address: "192.0.2.10:53", name: ns1, weight: 2 }, { address: "192.0.2.11:53" } ]
rules:
  - { name: no-any, when: { qtype: ANY }, do: drop }
  - { name: trial, observe: true, when: { qtype: TXT }, do: drop }
blocklist: { files: [ drop.txt ] }
control: { socket: /run/dnscrub/control.sock }
metrics: { address: "127.0.0.1:9153" }
"#;

    #[test]
    fn a_good_configuration_is_told_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnscrub.yaml");
        std::fs::write(
            folder.path().join("drop.txt"),
            "198.51.100.0/24\n203.0.113.9\n",
        )
        .unwrap();
        std::fs::write(&path, EXAMPLE).unwrap();
        let text =
            run(&path, false, Style::default()).unwrap_or_else(|exit| panic!("{}", exit.message));
        insta::assert_snapshot!(text.replace(&folder.path().display().to_string(), "/folder"));
        let json: Value =
            serde_json::from_str(&run(&path, true, Style::default()).unwrap()).unwrap();
        assert_eq!(
            (&json["good"], &json["rules"]["observed"]),
            (&json!(true), &json!(1))
        );
    }

    #[test]
    fn a_bad_one_with_its_problems() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnscrub.yaml");
        std::fs::write(&path, EXAMPLE.replace("listen:", "lissten:")).unwrap();
        let exit = run(&path, false, Style::default()).unwrap_err();
        assert_eq!(exit.code, 2);
        assert!(
            exit.message.contains("lissten") && exit.message.contains("dnscrub.yaml:3:1"),
            "{}",
            exit.message
        );
        let exit = run(&path, true, Style::default()).unwrap_err();
        let json: Value = serde_json::from_str(&exit.printed).unwrap();
        assert_eq!(
            (exit.code, &json["good"], &json["problems"][0]["line"]),
            (2, &json!(false), &json!(3))
        );
    }
}
