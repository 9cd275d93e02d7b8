//! What would happen to a query, and why: the data path's stages one by one, without a trace left.

use std::net::IpAddr;

use dnscrub_packet_filter::{BlockTable, Verdict};
use dnscrub_scoring::{Case, Context, Scorer, Transport};
use dnscrub_wire::Query;
use serde::Serialize;
use std::time::Instant;

use crate::config::runtime::Reloadable;
use crate::outcome::{self, Outcome};

/// A query to explain.
#[derive(Clone, Debug)]
pub struct ExplainRequest {
    /// Who asks.
    pub source: IpAddr,
    /// The whole query.
    pub packet: Vec<u8>,
    /// Over UDP or TCP.
    pub transport: Transport,
    /// The listener asked.
    pub listener: u16,
}

/// What would happen, stage by stage. A stage that is not reached is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The question, in words.
    pub question: String,
    /// What the packet filter says.
    pub filter: Vec<Stage>,
    /// What the signals, rules and bands say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scoring: Option<dnscrub_scoring::Explanation>,
    /// The pool it would go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// What happens in the end, in words.
    pub outcome: String,
    /// The same as the metric's labels.
    pub outcome_label: String,
}

/// One check and its result.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// What was checked.
    pub check: String,
    /// Whether the query got past it.
    pub passed: bool,
    /// What was found.
    pub finding: String,
}

impl Explanation {
    /// Points of the signals and rules; 0 where the packet filter ended it.
    #[must_use]
    pub fn points(&self) -> u16 {
        self.scoring
            .as_ref()
            .map_or(0, |scoring| scoring.judgement.points)
    }
}

/// What a worker knows when it explains.
pub(crate) struct Knowledge<'a> {
    pub(crate) policy: &'a Reloadable,
    pub(crate) blocklist: &'a BlockTable,
    pub(crate) scorer: &'a mut Scorer,
    pub(crate) pressure: &'a dyn Fn(usize) -> f32,
}

/// Goes through the stages of [`crate::data_path::DataPath::judge`] and says what each finds.
pub(crate) fn explain(
    knowledge: Knowledge<'_>,
    request: &ExplainRequest,
    now: Instant,
) -> Explanation {
    let mut filter = Vec::new();
    let parsed = Query::parse(&request.packet);
    let question = parsed.as_ref().map_or_else(
        |kind| format!("not a query: {}", kind.description()),
        |query| {
            format!(
                "{} {} from {}",
                query.qname,
                dnscrub_wire::records::type_to_text(query.qtype),
                request.source
            )
        },
    );
    let unfinished = |filter, outcome: Outcome| Explanation {
        question: question.clone(),
        filter,
        scoring: None,
        pool: None,
        outcome: in_words(outcome),
        outcome_label: label(outcome),
    };

    let policy = knowledge.policy;
    let verdict = policy
        .filter
        .explain_source(knowledge.blocklist, request.source);
    filter.push(stage("source: ACL and blocklist", verdict));
    if let Some(outcome) = crate::data_path::filtered(verdict).break_value() {
        return unfinished(filter, outcome);
    }
    let query = match parsed {
        Ok(query) => query,
        Err(kind) => {
            return unfinished(filter, crate::data_path::of_malformed(&policy.filter, kind));
        }
    };
    let verdict = policy.filter.admit_query(&query, request.source);
    filter.push(stage("query: opcode and class", verdict));
    if let Some(outcome) = crate::data_path::filtered(verdict).break_value() {
        return unfinished(filter, outcome);
    }
    let pool = policy.routes.pool(&query.qname);
    let context = Context {
        source: request.source,
        transport: request.transport,
        listener: request.listener,
        hop_ttl: None,
        proven: false,
        len: query.len,
    };
    let pressure = (knowledge.pressure)(pool);
    let scoring = knowledge.scorer.explain(Case {
        policy: &policy.scoring,
        query: &query,
        packet: &request.packet,
        context: &context,
        pressure,
        now,
    });
    let outcome = outcome::of_action(scoring.judgement.action, scoring.judgement.cause);
    let pool = scoring.judgement.pool.map_or(pool, usize::from);
    let pool = policy
        .forwarding
        .pools()
        .get(pool)
        .map(|pool| pool.name.clone());
    Explanation {
        question: question.clone(),
        filter,
        outcome: outcome.map_or_else(
            || format!("forwarded to pool {}", pool.as_deref().unwrap_or("?")),
            in_words,
        ),
        outcome_label: outcome.map_or_else(|| "forwarded".to_owned(), label),
        scoring: Some(scoring),
        pool: pool.filter(|_| outcome.is_none()),
    }
}

fn stage(check: &str, verdict: Verdict) -> Stage {
    let (passed, finding) = match verdict {
        Verdict::Admit => (true, "admitted".to_owned()),
        Verdict::Drop(reason) | Verdict::Refuse(reason, _) => {
            (false, reason.description().to_owned())
        }
    };
    Stage {
        check: check.to_owned(),
        passed,
        finding,
    }
}

fn in_words(outcome: Outcome) -> String {
    match outcome {
        Outcome::Forwarded => "forwarded".to_owned(),
        Outcome::Expired => "expired".to_owned(),
        Outcome::Dropped(reason) => format!("dropped: {}", reason.description()),
        Outcome::Answered(answer, reason) => {
            format!("answered {}: {}", answer.label(), reason.description())
        }
    }
}

/// The outcome as the metric's labels.
pub(crate) fn label(outcome: Outcome) -> String {
    match outcome {
        Outcome::Forwarded => "forwarded".to_owned(),
        Outcome::Expired => "expired".to_owned(),
        Outcome::Dropped(reason) => format!("dropped/{}", reason.label()),
        Outcome::Answered(answer, reason) => format!("{}/{}", answer.label(), reason.label()),
    }
}
