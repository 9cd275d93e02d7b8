//! Judging a query: signals, then rules in their order, then bands.

use std::time::Instant;

use dnscrub_wire::Query;

use crate::bands::Pressure;
use crate::cells::Cells;
use crate::context::{Context, Transport};
use crate::explain::{Explanation, Notes};
use crate::judgement::{Action, Block, Cause, Judgement};
use crate::policy::Policy;
use crate::recorder::{Recorder, Silent};
use crate::rules::{Facts, Rule, Scratch, count};
use crate::signals::{Exchange, Input, Points, States, prefix_key};
use crate::trace::Trace;

/// A worker's memory of sources, in tables of fixed size, and its room for judging.
///
/// What happens when a table is full: see the pages of the signals. Rate limits of rules share one
/// table (`scrubbing.rate-limit-memory`); when it is full, the sources least near their limit are
/// forgotten and begin afresh, so more gets through than should, and never less.
#[derive(Debug)]
pub struct Scorer {
    worker: usize,
    seed: [u64; 4],
    began: Instant,
    states: States,
    limits: Option<Cells>,
    scratch: Scratch,
}

impl Scorer {
    /// Memory for worker number `worker` (from 0; its hit counters) under `policy`. The seed must
    /// be unpredictable: it keeps senders from choosing addresses that collide in the tables.
    #[must_use]
    pub fn new(worker: usize, policy: &Policy, seed: [u64; 4], now: Instant) -> Self {
        Self {
            worker,
            seed,
            began: now,
            states: States::new(&policy.signals, seed),
            limits: limits(policy, seed),
            scratch: Scratch::new(&policy.rules.index),
        }
    }

    /// Makes ready for another policy, before the first query is judged by it. Tables whose size
    /// stays keep what they know; the others begin afresh.
    pub fn adopt(&mut self, policy: &Policy) {
        self.states.adopt(&policy.signals, self.seed);
        let wanted = limits(policy, self.seed);
        if wanted.as_ref().map(Cells::octets) != self.limits.as_ref().map(Cells::octets) {
            self.limits = wanted;
        }
        self.scratch = Scratch::new(&policy.rules.index);
    }

    /// Judges a query, and remembers it. `packet` is the message that `query` is a view of,
    /// `pressure` how close the pool or the proxy is to its limit, 0 to 1. Never allocates.
    #[inline]
    pub fn judge(
        &mut self,
        policy: &Policy,
        query: &Query,
        packet: &[u8],
        context: &Context,
        pressure: f32,
        now: Instant,
    ) -> Judgement {
        self.evaluate(policy, query, packet, context, pressure, now, &mut Silent)
    }

    /// The same as [`Scorer::judge`], and says in `trace` what each signal gave. Allocates
    /// only while `trace` grows.
    #[allow(
        clippy::too_many_arguments,
        reason = "the arguments of `judge` and who listens"
    )]
    pub fn judge_traced(
        &mut self,
        policy: &Policy,
        query: &Query,
        packet: &[u8],
        context: &Context,
        pressure: f32,
        now: Instant,
        trace: &mut Trace,
    ) -> Judgement {
        trace.clear();
        self.evaluate(policy, query, packet, context, pressure, now, trace)
    }

    /// What [`Scorer::judge`] would come to now, and why. Remembers and counts nothing.
    pub fn explain(
        &mut self,
        policy: &Policy,
        query: &Query,
        packet: &[u8],
        context: &Context,
        pressure: f32,
        now: Instant,
    ) -> Explanation {
        let mut notes = Notes::default();
        let judgement = self.evaluate(policy, query, packet, context, pressure, now, &mut notes);
        notes.finish(policy, query, context, Pressure::new(pressure), judgement)
    }

    /// Learns that a response of `response_len` octets goes out to a query of `query_len` octets
    /// that was judged with `context`.
    #[inline]
    pub fn observe_response(
        &mut self,
        policy: &Policy,
        context: &Context,
        query_len: u16,
        response_len: u16,
        now: Instant,
    ) {
        let seen = Exchange {
            context: *context,
            source: context.source.to_canonical(),
            query_len,
            response_len,
            now: self.time(now),
        };
        policy.signals.observe_response(&mut self.states, &seen);
    }

    /// Nanoseconds since this scorer began.
    #[inline]
    fn time(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        since
            .as_secs()
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(since.subsec_nanos()))
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the arguments of `judge` and who listens"
    )]
    #[inline]
    fn evaluate<R: Recorder>(
        &mut self,
        policy: &Policy,
        query: &Query,
        packet: &[u8],
        context: &Context,
        pressure: f32,
        now: Instant,
        recorder: &mut R,
    ) -> Judgement {
        let source = context.source.to_canonical();
        let now = self.time(now);
        let input = Input {
            query,
            context,
            source,
            now,
        };
        let mut course = Course {
            points: policy.signals.judge(&mut self.states, &input, recorder),
            decided: None,
            would: None,
            pool: None,
            block: None,
        };
        if !policy.rules.rules.is_empty() {
            self.rules(
                policy,
                &Facts {
                    query,
                    packet,
                    context,
                    source,
                },
                now,
                &mut course,
                recorder,
            );
        }
        course.finish(policy, context, Pressure::new(pressure))
    }

    #[inline]
    fn rules<R: Recorder>(
        &mut self,
        policy: &Policy,
        facts: &Facts<'_>,
        now: u64,
        course: &mut Course,
        recorder: &mut R,
    ) {
        let rules = &policy.rules;
        rules.index.find(&mut self.scratch, facts);
        while let Some(number) = self.scratch.next_candidate() {
            let Some(rule) = rules.rules.get(usize::from(number)) else {
                continue;
            };
            if !rule.when.holds(&rules.index, &mut self.scratch, facts) {
                continue;
            }
            if !rule.observe && course.pool.is_none() && rule.effect.pool.is_some() {
                course.pool = rule.effect.pool;
                if R::COMMIT
                    && let Some(hits) = rule.counters.get(self.worker)
                {
                    count(&hits.routed);
                }
            }
            // Where everything is in observe mode, rules behind the one that would have decided
            // can still route, nothing else.
            if policy.observe && course.would.is_some() {
                continue;
            }
            let observed = policy.observe || rule.observe;
            course.points.add(rule.effect.score, observed);
            let (over, act) = self.act::<R>(rule, number, facts, now);
            recorder.rule(number, observed, over, act);
            if R::COMMIT {
                self.count(rule, observed, act);
            }
            let Some(act) = act else { continue };
            course.would = course.would.or(Some(act));
            if !observed {
                course.decided = Some(act);
                course.block = rule.effect.block.map(|lifetime| Block {
                    lifetime,
                    rule: number,
                });
                self.scratch.clear_candidates();
            }
        }
    }

    /// Whether a matching rule's rate is exceeded, if it has one; and what it decides.
    #[inline]
    fn act<R: Recorder>(
        &mut self,
        rule: &Rule,
        number: u16,
        facts: &Facts<'_>,
        now: u64,
    ) -> (Option<bool>, Option<(Action, Cause)>) {
        let (over, act) = if let (Some(limit), Some(cells)) = (&rule.effect.limit, &mut self.limits)
        {
            let (scope, bits) = limit
                .per
                .map_or((0, 0), |(v4, v6)| prefix_key(facts.source, v4, v6));
            let over = limit
                .limit
                .exceeded(cells, (limit.id ^ scope, bits), now, R::COMMIT);
            (
                Some(over),
                over.then_some((limit.over, Cause::RateLimit(number))),
            )
        } else {
            let cause = if rule.effect.action == Some(Action::Pass) {
                Cause::Allow(number)
            } else {
                Cause::Rule(number)
            };
            (None, rule.effect.action.map(|action| (action, cause)))
        };
        // Over TCP the client has come back already.
        let pointless =
            facts.context.transport == Transport::Tcp && matches!(act, Some((Action::Truncate, _)));
        (over, act.filter(|_| !pointless))
    }

    #[inline]
    fn count(&self, rule: &Rule, observed: bool, act: Option<(Action, Cause)>) {
        let Some(hits) = rule.counters.get(self.worker) else {
            return;
        };
        count(&hits.matched);
        match act {
            Some(_) if observed => count(&hits.held_back),
            Some((action, _)) => hits.acted.get(action as usize).into_iter().for_each(count),
            None => {}
        }
    }
}

fn limits(policy: &Policy, seed: [u64; 4]) -> Option<Cells> {
    policy
        .rules
        .limits
        .then(|| Cells::new(policy.rate_limit_memory, seed))
}

/// How far judging has come: what counts, and what would count if nothing were in observe mode.
/// What is enforced would happen in either case, so the second is decided no later than the first.
struct Course {
    points: Points,
    decided: Option<(Action, Cause)>,
    would: Option<(Action, Cause)>,
    pool: Option<u16>,
    block: Option<Block>,
}

impl Course {
    #[inline]
    fn finish(self, policy: &Policy, context: &Context, pressure: Pressure) -> Judgement {
        let passes = (Action::Pass, Cause::None);
        let by_band = |points: i32, all: bool| {
            policy
                .bands
                .reached(points, pressure, |band| {
                    (all || !band.observe)
                        && !(band.action == Action::Truncate && context.transport == Transport::Tcp)
                })
                .map_or(passes, |(band, action)| (action, Cause::Band(band)))
        };
        let decided = match self.decided {
            Some(decided) => decided,
            None if policy.observe => passes,
            None => by_band(self.points.enforced, false),
        };
        let would = self.would.unwrap_or_else(|| by_band(self.points.all, true));
        Judgement {
            action: decided.0,
            cause: decided.1,
            points: u16::try_from(self.points.enforced.max(0)).unwrap_or(u16::MAX),
            pool: self.pool,
            block_source: self.block,
            would: (would.0 != decided.0).then_some(would),
        }
    }
}
