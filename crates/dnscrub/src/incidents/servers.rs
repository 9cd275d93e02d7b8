//! Name servers behind that go down and come back while an incident is open, on its time line: an incident says that they
//! fail, and their health checks say which.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dnscrub_detection::Incident;
use dnscrub_detection::incident::{Fault, UpstreamPart};
use dnscrub_forwarding::UpstreamSnapshot;

/// Seconds between two entries of an incident, at least: a server that comes and goes is not to fill its time line.
const BETWEEN: f64 = 10.0;

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Servers(BTreeMap<u64, Told>);

#[derive(Debug)]
struct Told {
    at: f64,
    down: BTreeSet<String>,
}

impl Servers {
    /// What is to be told of these open incidents, by their numbers.
    pub(super) fn look<'a>(
        &mut self,
        open: impl Iterator<Item = &'a Incident>,
        servers: &[UpstreamSnapshot],
        now: f64,
    ) -> Vec<(u64, String)> {
        let down: BTreeMap<String, String> = servers
            .iter()
            .filter(|server| server.state == "down")
            .map(|server| (named(server), why(server)))
            .collect();
        let before = std::mem::take(&mut self.0);
        let mut texts = Vec::new();
        for incident in open {
            let told = before.get(&incident.number);
            let known = told.map_or_else(BTreeSet::new, |told| told.down.clone());
            let is_soon = told.is_some_and(|told| now - told.at < BETWEEN);
            let went = down.iter().filter(|(name, _)| !known.contains(*name));
            let went = went.map(|(name, why)| format!("{name} is down{why}"));
            let came = known.iter().filter(|name| !down.contains_key(*name));
            let came = came.map(|name| format!("{name} is up again"));
            let parts: Vec<String> = went.chain(came).collect();
            let told = if parts.is_empty() || is_soon {
                let at = told.map_or(f64::NEG_INFINITY, |told| told.at);
                Told { at, down: known }
            } else {
                texts.push((incident.number, parts.join("; ")));
                Told {
                    at: now,
                    down: down.keys().cloned().collect(),
                }
            };
            self.0.insert(incident.number, told);
        }
        texts
    }
}

fn named(server: &UpstreamSnapshot) -> String {
    let name = in_words(&server.name, server.address, &server.pool);
    format!("name server {name}")
}

/// A name server that fails, by name, address and pool.
pub(crate) fn upstream_named(part: &UpstreamPart) -> String {
    in_words(&part.name, part.address, &part.pool)
}

fn in_words(name: &str, address: SocketAddr, pool: &str) -> String {
    if name == address.to_string() {
        format!("{address} of pool {pool}")
    } else {
        format!("{name} ({address}) of pool {pool}")
    }
}

/// What is wrong with a name server.
pub(crate) fn fault_in_words(part: &UpstreamPart) -> String {
    let value = f64::from(part.value);
    let percents = format!("{:.0} %", value * 100.0);
    match part.fault {
        Fault::NoAnswer => format!("{percents} of its queries get no answer"),
        Fault::Down => "fails its health checks".to_owned(),
        Fault::Servfail => format!("answers {percents} with SERVFAIL"),
        Fault::Slow => format!("takes {:.0} ms to answer", value * 1_000.0),
    }
}

fn why(server: &UpstreamSnapshot) -> String {
    let check = server.last_check.as_ref();
    check.map_or_else(String::new, |check| format!(": {}", check.result))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incidents::testing::incident;

    fn server(name: &str, state: &str) -> UpstreamSnapshot {
        serde_json::from_value(serde_json::json!({
            "name": name, "address": "192.0.2.10:53", "pool": "main", "state": state, "since_seconds": 1.0, "weight": 1,
            "outstanding": 0, "limit": 1, "max_outstanding": 1, "forwarded": 0, "answered": 0, "timeouts": 0, "refused": 0,
            "latency_ms": null, "last_check": { "seconds_ago": 0.5, "passed": false, "result": "no answer in time", "failures_in_a_row": 3 }
        }))
        .unwrap()
    }

    #[test]
    fn a_server_that_goes_down_is_named_and_one_that_comes_and_goes_fills_no_time_line() {
        let mut servers = Servers::default();
        let open = [incident(7)];
        let mut look = |state: &str, now: f64| -> Vec<String> {
            let both = [server("ns1", state), server("192.0.2.10:53", "up")];
            let texts = servers.look(open.iter(), &both, now).into_iter();
            texts
                .map(|(number, text)| format!("{number} {text}"))
                .collect()
        };
        assert_eq!(look("up", 0.0), [""; 0]);
        assert_eq!(
            look("down", 1.0),
            ["7 name server ns1 (192.0.2.10:53) of pool main is down: no answer in time"]
        );
        assert_eq!(look("down", 2.0), [""; 0]);
        assert_eq!(look("up", 3.0), [""; 0], "it may go down again at once");
        assert_eq!(look("down", 9.0), [""; 0]);
        assert_eq!(look("down", 20.0), [""; 0]);
        assert_eq!(
            look("up", 21.0),
            ["7 name server ns1 (192.0.2.10:53) of pool main is up again"]
        );
        // the next incident begins with what is down then
        assert_eq!(
            servers
                .look(
                    [incident(8)].iter(),
                    &[server("192.0.2.10:53", "down")],
                    22.0
                )
                .len(),
            1
        );
        assert_eq!(servers.0.len(), 1);
    }
}
