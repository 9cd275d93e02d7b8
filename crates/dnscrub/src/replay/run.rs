//! A trace through one configuration, or two side by side.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ahash::RandomState;
use dnscrub_wire::{Query, Rcode, Response, records};

use super::capture::{self, Item, Message, Skipped};
use super::lane::{Arrived, Asked, Decision, Lane};
use super::report::{
    Against, Changes, Example, Report, SkippedRow, TraceFacts, Transition, because, fate_label,
    outcomes, rules,
};
use super::tally::{Fate, Fates, Tally};
use super::trace::Trace;
use super::{ReplayError, Timing, for_one_worker};
use crate::config::Disk;
use crate::outcome::Outcome;

/// How long after a query its answer is looked for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Queries that wait for their answers; with more, the oldest is given up.
const WAITING: usize = 1_000_000;
/// Examples of each change.
const EXAMPLES: usize = 10;

/// What to replay, and with what.
#[derive(Clone, Debug)]
pub struct Options {
    /// A capture, or a trace of the quality suite.
    pub trace: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// Another one, to be compared with it.
    pub against: Option<PathBuf>,
    /// The port of the server in the capture.
    pub port: u16,
}

/// Replays a trace.
///
/// # Errors
/// A configuration is wrong, or the trace is not understood.
pub fn run(options: &Options) -> Result<(Report, Timing), ReplayError> {
    let began = Instant::now();
    let mut run = Run {
        first: Side::load(&options.config, began)?,
        second: options
            .against
            .as_deref()
            .map(|path| Side::load(path, began))
            .transpose()?,
        changes: Fates::default(),
        facts: TraceFacts {
            file: options.trace.display().to_string(),
            ..TraceFacts::default()
        },
        first_at: None,
        last_at: Duration::ZERO,
        timing: Timing::default(),
    };
    if is_json(&options.trace)? {
        run.trace(&options.trace)?;
    } else {
        run.capture(&options.trace, options.port)?;
    }
    run.timing.whole = began.elapsed();
    let timing = run.timing;
    Ok((run.report(options), timing))
}

fn is_json(path: &Path) -> Result<bool, ReplayError> {
    let mut first = [0];
    let mut open = File::open(path);
    let read = match &mut open {
        Ok(file) => file.read(&mut first),
        Err(failure) => Err(std::io::Error::from(failure.kind())),
    };
    match read {
        Ok(_) => Ok(first == *b"{"),
        Err(failure) => Err(ReplayError::Read(path.to_owned(), failure)),
    }
}

/// A configuration and what is known of the replay under it.
struct Side {
    lane: Lane,
    tally: Tally,
    /// Transactions that got an answer, for traces with conditional retries.
    answered: HashSet<u64, RandomState>,
    waiting: Waiting,
}

impl Side {
    fn load(path: &Path, began: Instant) -> Result<Self, ReplayError> {
        Ok(Self {
            lane: Lane::new(for_one_worker(path, &Disk)?, began)?,
            tally: Tally::default(),
            answered: HashSet::default(),
            waiting: Waiting::default(),
        })
    }

    fn decide(&mut self, packet: &Arrived<'_>) -> Decision {
        let decision = self.lane.decide(packet);
        self.tally.add(
            packet.at,
            packet.client.ip(),
            &decision,
            self.lane.signals(),
        );
        decision
    }
}

/// Queries that passed and are not answered yet.
#[derive(Default)]
struct Waiting {
    queries: HashMap<(SocketAddr, u16), Waits, RandomState>,
    order: VecDeque<(Duration, (SocketAddr, u16))>,
}

struct Waits {
    since: Duration,
    asked: Asked,
    question: Box<[u8]>,
}

impl Waiting {
    fn add(&mut self, packet: &Arrived<'_>, query: &Query) {
        let now = packet.at;
        while let Some(&(since, key)) = self.order.front() {
            if now.saturating_sub(since) <= PATIENCE && self.order.len() < WAITING {
                break;
            }
            self.order.pop_front();
            // the key may have been used again since
            if self.queries.get(&key).is_some_and(|it| it.since == since) {
                self.queries.remove(&key);
            }
        }
        let key = (packet.client, query.id);
        self.order.push_back((now, key));
        let waits = Waits {
            since: now,
            asked: Asked::new(packet, query),
            question: query.question(packet.message).into(),
        };
        self.queries.insert(key, waits);
    }

    /// The query that this answers.
    fn take(&mut self, client: SocketAddr, answer: &[u8], at: Duration) -> Option<Asked> {
        let response = Response::parse(answer).ok()?;
        let key = (client, response.id);
        let waits = self.queries.get(&key)?;
        let fits = at.saturating_sub(waits.since) <= PATIENCE
            && response.answers_question(answer, &waits.question);
        if !fits {
            return None;
        }
        self.queries.remove(&key).map(|waits| waits.asked)
    }
}

struct Run {
    first: Side,
    second: Option<Side>,
    changes: Fates<Lot>,
    facts: TraceFacts,
    first_at: Option<Duration>,
    last_at: Duration,
    timing: Timing,
}

impl Run {
    fn capture(&mut self, path: &Path, port: u16) -> Result<(), ReplayError> {
        let mut skipped = [0_u64; Skipped::ALL.len()];
        let mut clock = None;
        capture::read(path, port, &mut |item| match item {
            Item::Skipped(reason) => {
                if let Some(count) = skipped.get_mut(reason as usize) {
                    *count += 1;
                }
            }
            Item::Message(message) => {
                // the clock of a trace does not go back, though captures of several queues may
                let at = message
                    .at
                    .saturating_sub(*clock.get_or_insert(message.at))
                    .max(self.last_at);
                self.last_at = at;
                self.message(&message, at);
            }
        })?;
        let rows = Skipped::ALL.iter().zip(skipped);
        self.facts.skipped = rows
            .filter(|(_, packets)| *packets > 0)
            .map(|(reason, packets)| SkippedRow {
                reason: reason.description(),
                packets,
            })
            .collect();
        Ok(())
    }

    fn message(&mut self, message: &Message<'_>, at: Duration) {
        let sides = [Some(&mut self.first), self.second.as_mut()];
        if !message.to_server {
            let mut matched = false;
            for side in sides.into_iter().flatten() {
                if let Some(asked) = side.waiting.take(message.client, message.octets, at) {
                    side.lane.learn(&asked, message.octets, at);
                    matched = true;
                }
            }
            self.facts.answers += u64::from(matched);
            self.facts.answers_unmatched += u64::from(!matched);
            return;
        }
        let packet = Arrived {
            at,
            client: message.client,
            hop_ttl: Some(message.hop_ttl),
            transport: message.transport,
            message: message.octets,
        };
        let start = Instant::now();
        let decisions = sides.map(|side| {
            side.map(|side| {
                let decision = side.decide(&packet);
                if let (Outcome::Forwarded, Some(query)) = (decision.outcome, &decision.query) {
                    side.waiting.add(&packet, query);
                }
                decision
            })
        });
        self.timing.judging += start.elapsed();
        self.decided(&packet, decisions);
    }

    fn trace(&mut self, path: &Path) -> Result<(), ReplayError> {
        let mut trace = Trace::open(path)?;
        let mut without_query = 0;
        while let Some(record) = trace.next()? {
            let Some(packet) = record.packet else {
                without_query += 1;
                continue;
            };
            let retry_of = if record.is_retry {
                Some(record.transaction()?)
            } else {
                None
            };
            let sides = [Some(&mut self.first), self.second.as_mut()];
            let mut decisions = [None, None];
            let mut learned = false;
            for (side, decided) in sides.into_iter().zip(&mut decisions) {
                let Some(side) = side else { continue };
                if retry_of.is_some_and(|transaction| side.answered.contains(&transaction)) {
                    continue;
                }
                let start = Instant::now();
                let decision = side.decide(&packet);
                self.timing.judging += start.elapsed();
                *decided = Some(decision);
                if super::suite::is_answered(decision.outcome) {
                    let aftermath = record.aftermath()?;
                    side.answered.insert(aftermath.txn);
                    if let (Outcome::Forwarded, Some(query)) = (decision.outcome, &decision.query) {
                        learned = true;
                        side.lane.answered(&packet, query, Rcode(aftermath.exp));
                    }
                }
            }
            self.facts.answers += u64::from(learned);
            self.last_at = packet.at;
            self.decided(&packet, decisions);
        }
        if without_query > 0 {
            self.facts.skipped.push(SkippedRow {
                reason: "TCP SYN, which carries no query",
                packets: without_query,
            });
        }
        Ok(())
    }

    fn decided(&mut self, packet: &Arrived<'_>, decisions: [Option<Decision>; 2]) {
        self.first_at.get_or_insert(packet.at);
        self.timing.queries += 1;
        // a retry may be sent under one of the configurations only
        let ([Some(before), Some(after)], Some(second)) = (decisions, &self.second) else {
            return;
        };
        let first = &self.first;
        let lot = self.changes.add(Fate::of(&before), Fate::of(&after));
        if Fate::of(&before) == Fate::of(&after) {
            return;
        }
        lot.draw(|| Example {
            at: packet.at.as_secs_f64(),
            source: packet.client.ip().to_canonical().to_string(),
            name: before.query.map_or_else(
                || "(not a query)".to_owned(),
                |query| query.qname.to_string(),
            ),
            qtype: before.query.map_or_else(String::new, |query| {
                records::type_to_text(query.qtype).to_string()
            }),
            points: before.judgement.map(|judgement| judgement.points),
            points_then: after.judgement.map(|judgement| judgement.points),
            because: because(first.lane.policy(), &before),
            because_then: because(second.lane.policy(), &after),
        });
    }

    fn report(self, options: &Options) -> Report {
        let Self {
            mut first,
            second,
            changes,
            mut facts,
            first_at,
            last_at,
            ..
        } = self;
        // the second that was running at the end
        first.lane.advance(last_at + Duration::from_secs(1));
        let from = first_at.unwrap_or_default();
        facts.seconds = last_at.saturating_sub(from).as_secs_f64();
        let mut notes = vec![
            "Upstreams are taken to be up and pressure to be 0: nothing is lost or tightened because of load.".to_owned(),
        ];
        if facts.answers == 0 {
            notes.push(
                "No answers to the queries are in the trace: what signals learn from answers is missing.".to_owned(),
            );
        }
        let against = second.map(|second| {
            let mut against = Against {
                configuration: options
                    .against
                    .as_deref()
                    .unwrap_or(Path::new(""))
                    .display()
                    .to_string(),
                by_class: second.tally.classes,
                outcomes: outcomes(second.tally.fates, second.tally.queries),
                rules: rules(second.lane.policy()),
                over_time: second.tally.steps.into(),
                unchanged: 0,
                newly_stopped: Changes::default(),
                newly_passed: Changes::default(),
                otherwise: Changes::default(),
            };
            for (was, would_be, queries, lot) in changes.sorted() {
                let changes = match (was.passes(), would_be.passes()) {
                    _ if was == would_be => {
                        against.unchanged += queries;
                        continue;
                    }
                    (true, false) => &mut against.newly_stopped,
                    (false, true) => &mut against.newly_passed,
                    _ => &mut against.otherwise,
                };
                changes.queries += queries;
                changes.transitions.push(Transition {
                    was: fate_label(was),
                    would_be: fate_label(would_be),
                    queries,
                    examples: lot.examples(),
                });
            }
            against
        });
        let mut report = Report::new(
            facts,
            options.config.display().to_string(),
            notes,
            first.lane.policy(),
            first.tally,
            first.lane.incidents().to_vec(),
        );
        report.against = against;
        report
    }
}

/// Examples drawn by lot: each candidate is as likely to be among them as any other.
#[derive(Default)]
struct Lot {
    seen: u64,
    state: u64,
    drawn: Vec<Example>,
}

impl Lot {
    fn draw(&mut self, example: impl FnOnce() -> Example) {
        self.seen += 1;
        if self.drawn.len() < EXAMPLES {
            return self.drawn.push(example());
        }
        // a plain generator, always the same: a replay comes to the same report each time
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let place = usize::try_from((self.state >> 33) % self.seen).unwrap_or(usize::MAX);
        if let Some(drawn) = self.drawn.get_mut(place) {
            *drawn = example();
        }
    }

    fn examples(mut self) -> Vec<Example> {
        self.drawn.sort_by(|a, b| a.at.total_cmp(&b.at));
        self.drawn
    }
}
