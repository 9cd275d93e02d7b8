//! What tests need to make queries and policies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dnscrub_wire::{Name, Query, Rcode};

use crate::config::{self, ConfigError};
use crate::context::{Context, Transport};
use crate::explain::Explanation;
use crate::judgement::{Action, Judgement};
use crate::lists::List;
use crate::policy::{Names, Policy};
use crate::scorer::{Case, Reply, Scorer};

/// A query with its message.
pub(crate) fn query(name: &str, qtype: u16) -> (Query, Vec<u8>) {
    query_with(&name.parse().unwrap(), qtype, 1, 0, None)
}

/// A query with flags (the header's second 16 bits) and the OPT record's fields after its name and
/// type.
pub(crate) fn query_with(
    name: &Name,
    qtype: u16,
    qclass: u16,
    flags: u16,
    opt: Option<&[u8]>,
) -> (Query, Vec<u8>) {
    let mut packet = vec![0, 1];
    packet.extend(flags.to_be_bytes());
    packet.extend([0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())]);
    packet.extend(name.as_wire());
    packet.extend(qtype.to_be_bytes());
    packet.extend(qclass.to_be_bytes());
    if let Some(opt) = opt {
        packet.extend([0, 0, 41]);
        packet.extend(opt);
    }
    (Query::parse(&packet).unwrap(), packet)
}

/// A source over UDP, first listener.
pub(crate) fn context(source: &str) -> Context {
    Context {
        source: source.parse().unwrap(),
        transport: Transport::Udp,
        listener: 0,
        hop_ttl: None,
        proven: false,
        len: 40,
    }
}

/// A source over TCP, first listener.
pub(crate) fn tcp(source: &str) -> Context {
    Context {
        transport: Transport::Tcp,
        ..context(source)
    }
}

/// An answer over UDP, without error, to 192.0.2.1.
pub(crate) fn reply(qname: &Name, response_len: u16) -> Reply<'_> {
    Reply {
        source: "192.0.2.1".parse().unwrap(),
        transport: Transport::Udp,
        qname,
        rcode: Rcode::NOERROR,
        latency: Duration::from_millis(1),
        query_len: 60,
        response_len,
    }
}

/// Named lists.
pub(crate) fn lists(yaml: &str) -> BTreeMap<String, List> {
    let lists: config::Lists = serde_yaml::from_str(yaml).unwrap();
    lists
        .into_iter()
        .map(|(name, list)| (name, List::build(&list, None).unwrap()))
        .collect()
}

/// A policy and a scorer for it, on a clock that stands until it is moved.
pub(crate) struct Bench {
    pub(crate) policy: Policy,
    pub(crate) scorer: Scorer,
    pub(crate) now: Instant,
    pub(crate) pressure: f32,
}

/// The sections of a file that tests write.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    scrubbing: config::Scrubbing,
    signals: config::Signals,
    lists: config::Lists,
    rules: Vec<config::Rule>,
}

/// Pools and listeners that tests may name.
pub(crate) const POOLS: [&str; 2] = ["default", "slow"];
pub(crate) const LISTENERS: [&str; 2] = ["public", "inside"];

/// Builds a policy from the sections of a file.
pub(crate) fn build(yaml: &str) -> Result<Policy, Vec<ConfigError>> {
    let file: File = serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let lists = file
        .lists
        .iter()
        .map(|(name, list)| (name.clone(), List::build(list, None).unwrap()))
        .collect();
    let (pools, listeners) = (POOLS.map(str::to_owned), LISTENERS.map(str::to_owned));
    let names = Names {
        pools: &pools,
        listeners: &listeners,
        lists: &lists,
    };
    Policy::build(&file.scrubbing, &file.signals, &file.rules, &names, 2)
}

impl Bench {
    pub(crate) fn new(yaml: &str) -> Self {
        let policy = build(yaml).unwrap_or_else(|errors| panic!("{errors:?}"));
        // The clock of a test only moves when told to; where it begins means nothing.
        #[allow(
            clippy::disallowed_methods,
            reason = "an Instant cannot be made otherwise"
        )]
        let now = Instant::now();
        let scorer = Scorer::new(1, &policy, [1, 2, 3, 4], now);
        Self {
            policy,
            scorer,
            now,
            pressure: 0.0,
        }
    }

    /// Judges, after checking that an explanation says the same and leaves no trace.
    pub(crate) fn judge(&mut self, asked: &(Query, Vec<u8>), context: &Context) -> Judgement {
        let hits = |bench: &Self| -> Vec<u64> {
            let rules = bench.policy.rules();
            rules.map(|rule| rule.matched).collect()
        };
        let before = hits(self);
        let explained = self.explain(asked, context);
        assert_eq!(hits(self), before);
        let judged = self.judge_alone(asked, context);
        assert_eq!(explained.judgement, judged, "\n{explained}");
        judged
    }

    /// Judges: an explanation just before may be of the moment before a level changes.
    pub(crate) fn judge_alone(
        &mut self,
        (query, packet): &(Query, Vec<u8>),
        context: &Context,
    ) -> Judgement {
        self.scorer.judge(Case {
            policy: &self.policy,
            query,
            packet,
            context,
            pressure: self.pressure,
            now: self.now,
        })
    }

    pub(crate) fn explain(
        &mut self,
        (query, packet): &(Query, Vec<u8>),
        context: &Context,
    ) -> Explanation {
        self.scorer.explain(Case {
            policy: &self.policy,
            query,
            packet,
            context,
            pressure: self.pressure,
            now: self.now,
        })
    }

    /// The action for a query over UDP from 192.0.2.1.
    pub(crate) fn action(&mut self, name: &str, qtype: u16) -> Action {
        self.judge(&query(name, qtype), &context("192.0.2.1"))
            .action
    }
}
