//! Judging a query: signals, then rules in their order, then bands.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnscrub_wire::{Name, Query, Rcode};

use crate::bands::{Band, Pressure, Weighed};
use crate::cells::Cells;
use crate::config::Challenge;
use crate::context::{Context, Transport};
use crate::defence::Level;
use crate::evidence::{Given, Kind, Tally};
use crate::explain::{Explanation, Notes};
use crate::judgement::{Action, Block, Cause, Judgement};
use crate::levels::{DOUBTFUL_NAMES, Levels, SignalAlarm, SuffixAlarm};
use crate::memory::saved::{self, Reader};
use crate::memory::{Acquaintance, Answered, Asked, Memory, NameStanding, Sighting};
use crate::orders::Orders;
use crate::policy::Policy;
use crate::recorder::{Recorder, Silent};
use crate::rules::{Facts, Rule, Scratch, count};
use crate::seen::{Home, Seen};
use crate::signals::{Alarm, Exchange, Expected, Input, Notes as Gave, Points, States, prefix_key};
use crate::trace::Trace;

/// A query to judge.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What it is judged by.
    pub policy: &'a Policy,
    /// The query,
    pub query: &'a Query,
    /// and the message that it is a view of.
    pub packet: &'a [u8],
    /// Where it came from.
    pub context: &'a Context,
    /// How close the pool or the proxy is to its limit, 0 to 1.
    pub pressure: f32,
    /// The time now.
    pub now: Instant,
}

/// An upstream's answer to a query that was let through.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Who asked.
    pub source: IpAddr,
    /// How.
    pub transport: Transport,
    /// The name asked for.
    pub qname: &'a Name,
    /// The answer's response code.
    pub rcode: Rcode,
    /// From forwarding the query to its answer.
    pub latency: Duration,
    /// Octets of the query.
    pub query_len: u16,
    /// Octets of the answer.
    pub response_len: u16,
}

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
    memory: Memory,
    states: States,
    /// The highest level of the signals about sources, here or in other workers.
    alarm: Level,
    /// The same, and at least alert while a level is raised by an order: what evidence counts by.
    trouble: Level,
    /// The highest level of those in other workers.
    trouble_elsewhere: Level,
    /// What each signal gave to the query that is judged.
    gave: Gave,
    limits: Option<Cells>,
    scratch: Scratch,
    /// What is known of the query that is judged.
    seen: Seen,
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
            memory: Memory::new(&policy.memory, seed, worker),
            alarm: Level::Calm,
            trouble: Level::Calm,
            trouble_elsewhere: Level::Calm,
            gave: Gave::default(),
            states: States::new(&policy.signals, seed),
            limits: limits(policy, seed),
            scratch: Scratch::new(&policy.rules.index),
            seen: Seen::default(),
        }
    }

    /// Makes ready for another policy, before the first query is judged by it. Tables whose size
    /// stays keep what they know; the others begin afresh.
    pub fn adopt(&mut self, policy: &Policy) {
        if !self.memory.fits(&policy.memory) {
            self.memory = Memory::new(&policy.memory, self.seed, self.worker);
        }
        self.states.adopt(&policy.signals, self.seed);
        let wanted = limits(policy, self.seed);
        if wanted.as_ref().map(Cells::octets) != self.limits.as_ref().map(Cells::octets) {
            self.limits = wanted;
        }
        self.scratch = Scratch::new(&policy.rules.index);
    }

    /// Judges a query, and remembers it. Never allocates.
    #[inline]
    pub fn judge(&mut self, case: Case<'_>) -> Judgement {
        self.evaluate(case, &mut Silent)
    }

    /// The same as [`Scorer::judge`], and says in `trace` what each signal gave. Allocates
    /// only while `trace` grows.
    pub fn judge_traced(&mut self, case: Case<'_>, trace: &mut Trace) -> Judgement {
        trace.clear();
        self.evaluate(case, trace)
    }

    /// What [`Scorer::judge`] would come to now, and why. Remembers and counts nothing.
    pub fn explain(&mut self, case: Case<'_>) -> Explanation {
        let mut notes = Notes::default();
        let judgement = self.evaluate(case, &mut notes);
        notes.finish(case, judgement)
    }

    /// What was known of the query judged or explained last.
    #[inline]
    #[must_use]
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Where a name belongs, of which no query was just judged.
    #[must_use]
    pub fn home(policy: &Policy, qname: &Name) -> Home {
        Memory::home_of(&policy.learned, &policy.zones, qname)
    }

    /// Learns from an answer to a query that was let through; says where its name belongs.
    #[inline]
    pub fn observe_response(&mut self, policy: &Policy, reply: &Reply<'_>, now: Instant) -> Home {
        let at = now;
        let now = self.time(now);
        let source = reply.source.to_canonical();
        let seen = Exchange {
            transport: reply.transport,
            source,
            query_len: reply.query_len,
            response_len: reply.response_len,
            now,
        };
        policy.signals.observe_response(&mut self.states, &seen);
        let answered = Answered {
            qname: reply.qname,
            rcode: reply.rcode,
            latency: reply.latency.as_secs_f32(),
            now,
            at,
        };
        self.memory
            .observe_response(&policy.learned, &policy.zones, &answered)
    }

    /// Learns that a source sent a packet that is no well-formed query.
    pub fn observe_malformed(&mut self, policy: &Policy, source: IpAddr, now: Instant) {
        let now = self.time(now);
        self.memory
            .observe_malformed(&policy.learned, source.to_canonical(), now);
    }

    /// The levels as this worker sees them, brought up to `now`. Not for the packet path.
    pub fn levels(&mut self, policy: &Policy, now: Instant) -> Levels {
        let now = self.time(now);
        if self.memory.is_due(now) {
            self.turn(policy, now);
        }
        let mut levels = Levels::default();
        let told = |signal, alarm: Alarm| SignalAlarm {
            signal,
            level: alarm.level,
            rate: alarm.rate,
            usual: alarm.usual,
        };
        let doubt = Alarm::of(self.memory.doubtful());
        levels.signals.push(told(DOUBTFUL_NAMES, doubt));
        policy
            .signals
            .alarms(&mut self.states, now, |signal, alarm| {
                levels.signals.push(told(signal, alarm));
            });
        let suffixes = self.memory.alarms();
        levels
            .suffixes
            .extend(
                suffixes.map(|(name, level, [rate, usual, distinct])| SuffixAlarm {
                    name: *name,
                    level,
                    rate,
                    usual,
                    distinct,
                }),
            );
        levels.arrange();
        levels
    }

    /// Takes over the levels of all workers together, so that each enforces what one of them sees:
    /// with sources parted between workers, a flood may stay below the threshold of some. What this
    /// worker tells in [`Scorer::levels`] stays what it sees itself, so that no level holds itself up.
    pub fn adopt_levels(&mut self, policy: &Policy, all: &Levels) {
        self.trouble_elsewhere = all.sources();
        let suffixes = all.suffixes.iter();
        self.memory.set_elsewhere(
            &policy.learned,
            all.doubtful_names(),
            suffixes.map(|alarm| (&alarm.name, alarm.level)),
        );
    }

    /// Takes over what operators and incidents order. Not for the packet path.
    pub fn adopt_orders(&mut self, policy: &Policy, orders: &Orders) {
        self.memory.set_orders(&policy.learned, orders);
    }

    /// Octets of this worker's memory.
    #[must_use]
    pub fn octets(&self, policy: &Policy) -> usize {
        let limits = self.limits.as_ref().map_or(0, Cells::octets);
        let signals = policy.signals.octets(&self.states);
        self.memory
            .octets()
            .saturating_add(signals)
            .saturating_add(limits)
    }

    /// Appends what this worker has learned, for a file, in steps from 0; whether there are more.
    /// A step takes well below a millisecond.
    pub fn save(&mut self, policy: &Policy, step: usize, part: &mut SavedPart) -> bool {
        if self.memory.save_sources(step, &mut part.sources) {
            return true;
        }
        saved::put_section(&mut part.octets, saved::SOURCES, &part.sources);
        part.sources = Vec::new();
        self.memory.save_names(&mut part.octets);
        let mut surges = Vec::new();
        for (number, surge) in (0..).zip(self.memory.surges_mut()) {
            saved::put_surge(&mut surges, WHOLE, number, surge);
        }
        policy
            .signals
            .surges(&mut self.states, |signal, number, surge| {
                saved::put_surge(&mut surges, signal, number, surge);
            });
        saved::put_section(&mut part.octets, saved::SURGES, &surges);
        false
    }

    /// Begins with what all workers had learned, each of which gave a part to [`Scorer::save`]. To be
    /// called before the first query; [`Policy::restore_learned`] comes before it. Addresses may come
    /// to other workers than before, so every worker knows all sources, and takes usual rates as its
    /// share of the sum. Of how names look each takes what one of them knew.
    pub fn restore(&mut self, policy: &Policy, parts: &[&[u8]], now: Instant) -> Restored {
        let now = self.time(now);
        let workers = policy.workers() as f32;
        let own = self.worker.checked_rem(parts.len()).unwrap_or_default();
        let mut restored = Restored::default();
        for (number, part) in parts.iter().enumerate() {
            let mut reader = Reader(part);
            while let Some((kind, content)) = reader.section() {
                match kind {
                    saved::SOURCES => {
                        restored.other_size |= !self.memory.restore_sources(content, now);
                    }
                    saved::LEXICON if number == own => {
                        restored.other_size |= !self.memory.restore_lexicon(content);
                    }
                    saved::SUFFIXES => {
                        self.memory
                            .restore_suffixes(&policy.learned, content, workers, now);
                    }
                    saved::SURGES => self.restore_surges(policy, content, workers),
                    _ => {}
                }
            }
            restored.broken_off |= !reader.0.is_empty();
        }
        restored
    }

    fn restore_surges(&mut self, policy: &Policy, content: &[u8], workers: f32) {
        for (label, index, usual) in saved::surges(content) {
            let usual = usual.shared(workers);
            if label == WHOLE.as_bytes() {
                let mut surges = self.memory.surges_mut().into_iter();
                if let Some(surge) = surges.nth(index.into()) {
                    surge.add_usual(usual);
                }
            }
            policy
                .signals
                .surges(&mut self.states, |signal, number, surge| {
                    if (signal.as_bytes(), number) == (label, index) {
                        surge.add_usual(usual);
                    }
                });
        }
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

    #[inline]
    fn evaluate<R: Recorder>(&mut self, case: Case<'_>, recorder: &mut R) -> Judgement {
        let Case {
            policy,
            query,
            packet,
            context,
            pressure,
            now: at,
        } = case;
        let source = context.source.to_canonical();
        let now = self.time(at);
        if R::COMMIT && self.memory.is_due(now) {
            self.turn(policy, now);
        }
        let asked = Asked {
            qname: &query.qname,
            context,
            source,
            now,
            at,
        };
        let hashes = self.memory.expect(&policy.learned, &asked);
        let expected = Expected {
            source,
            name_hash: hashes.name,
            qtype: query.qtype,
        };
        policy.signals.expect(&mut self.states, &expected);
        let Seen {
            source_hash,
            sighting,
        } = &mut self.seen;
        *source_hash = hashes.source;
        self.memory.recognise(
            &policy.learned,
            &policy.zones,
            &asked,
            hashes,
            sighting,
            R::COMMIT,
        );
        let order = sighting.order;
        if !order.calm {
            sighting.stance = sighting.stance.max(self.alarm);
        }
        let stance = sighting.stance;
        let response = policy.response(stance);
        recorder.sighting(sighting);
        let mut input = Input {
            query,
            context,
            source,
            sighting,
            trouble: self.trouble.max(order.sources),
            given: Tally::default(),
            now,
        };
        let mut course = Course {
            points: policy
                .signals
                .judge(&mut self.states, &mut input, &mut self.gave, recorder),
            missing: sighting.name == NameStanding::Missing { certain: true },
            held_down: order.calm,
            challenged: is_challenged(response.challenge, sighting, context),
            decided: None,
            would: None,
            band: None,
            would_band: None,
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
                (now, stance),
                &mut course,
                recorder,
            );
        }
        let pressure = Pressure::new(pressure).max(response.pressure_floor);
        // of a query that counts nobody wants to know
        if !R::COMMIT {
            recorder.weighed(course.weigh(&course.points.enforced, policy, pressure));
        }
        let judgement = course.finish(policy, context, pressure);
        if R::COMMIT {
            self.count_signals(policy, &course, &judgement, context, pressure);
        }
        judgement
    }

    /// Counts what signals and bands did, and what observe mode held back.
    #[inline]
    fn count_signals(
        &self,
        policy: &Policy,
        course: &Course,
        judgement: &Judgement,
        context: &Context,
        pressure: Pressure,
    ) {
        let Some(counters) = policy.signal_counters.get(self.worker) else {
            return;
        };
        for (signal, given) in self.gave.gave() {
            counters.gave(signal, given.points);
        }
        let hits = |band: Option<u8>| policy.bands.hits(band?, self.worker);
        if let Some(hits) = hits(course.band) {
            count(&hits.acted);
        }
        if judgement.would.is_none() {
            return;
        }
        if let Some(hits) = hits(course.would_band) {
            count(&hits.held_back);
        }
        // what a rule decides, no signal changes
        if course.decided.is_some() || policy.observe {
            return;
        }
        for (signal, kind, given) in self.gave.observed() {
            let mut points = course.points.enforced;
            points.add(kind, given);
            let ((action, _), _) = course.by_band(&points, policy, context, pressure, false);
            if action != judgement.action {
                counters.held_back(signal);
            }
        }
    }

    /// What is done about sixty times a second: alarms come down, what was learned settles.
    #[cold]
    fn turn(&mut self, policy: &Policy, now: u64) {
        let mut trouble = Level::Calm;
        policy.signals.alarms(&mut self.states, now, |_, alarm| {
            trouble = trouble.max(alarm.level);
        });
        self.alarm = trouble.max(self.trouble_elsewhere);
        let ordered = self.memory.ordered();
        let raised = if ordered.is_raised() {
            Level::Alert
        } else {
            Level::Calm
        };
        self.trouble = self.alarm.max(raised);
        self.memory.turn(&policy.learned, self.trouble, now);
    }

    #[inline]
    fn rules<R: Recorder>(
        &mut self,
        policy: &Policy,
        facts: &Facts<'_>,
        (now, level): (u64, Level),
        course: &mut Course,
        recorder: &mut R,
    ) {
        let rules = &policy.rules;
        rules.index.find(&mut self.scratch, facts);
        while let Some(number) = self.scratch.next_candidate() {
            let Some(rule) = rules.rules.get(usize::from(number)) else {
                continue;
            };
            let waits = rule.from_level > level;
            // of a rule that waits for its level only an explanation wants to know
            if waits && R::COMMIT {
                continue;
            }
            if !rule.when.holds(&rules.index, &mut self.scratch, facts) {
                continue;
            }
            if waits {
                recorder.waiting_rule(number, rule.from_level);
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
            course
                .points
                .add(Kind::Standing, Given::doubtful(rule.effect.score), observed);
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

/// What the usual rates of all zones together are saved as.
const WHOLE: &str = "whole";

/// A worker's part of a file while it is made.
#[derive(Debug, Default)]
pub struct SavedPart {
    sources: Vec<u8>,
    octets: Vec<u8>,
}

impl SavedPart {
    /// The part, once [`Scorer::save`] has said that there are no more steps.
    #[must_use]
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

/// How well a worker's restored knowledge fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// A table had another size: what was in it is not taken over.
    pub other_size: bool,
    /// A part is not whole: what came before its end is taken over.
    pub broken_off: bool,
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
    /// Its zone, which is up to date, does not have the name.
    missing: bool,
    /// An operator holds alarms down: nothing is certain.
    held_down: bool,
    /// If nothing else decides, its source is asked to prove its address, because of the level.
    challenged: bool,
    decided: Option<(Action, Cause)>,
    would: Option<(Action, Cause)>,
    /// The band that decided, and the one that would have.
    band: Option<u8>,
    would_band: Option<u8>,
    pool: Option<u16>,
    block: Option<Block>,
}

/// Whether a source is to prove its address because of the level.
#[inline]
fn is_challenged(challenge: Challenge, sighting: &Sighting, context: &Context) -> bool {
    context.transport == Transport::Udp
        && !sighting.verified
        && match challenge {
            Challenge::Off => false,
            Challenge::New => sighting.acquaintance != Acquaintance::Known,
            Challenge::Unverified => true,
        }
}

/// Certain points of source and conduct below which a query for a missing name is answered rather
/// than dropped: nothing says that the one who asks is not real.
const CREDIBLE: i32 = 20;

impl Course {
    #[inline]
    fn finish(&mut self, policy: &Policy, context: &Context, pressure: Pressure) -> Judgement {
        let passes = (Action::Pass, Cause::None);
        let (decided, band) = match self.decided {
            Some(decided) => (decided, None),
            None if policy.observe => (passes, None),
            None => self.by_band(&self.points.enforced, policy, context, pressure, false),
        };
        let (would, would_band) = match self.would {
            Some(would) => (would, None),
            // nothing is in observe mode: what would have happened is what happens
            None if self.decided.is_none()
                && !self.points.observed
                && !policy.observe
                && !policy.bands.observe =>
            {
                (decided, band)
            }
            None => self.by_band(&self.points.all, policy, context, pressure, true),
        };
        (self.band, self.would_band) = (band, would_band);
        let points = self.points.enforced.total(policy.caps);
        Judgement {
            action: decided.0,
            cause: decided.1,
            points: u16::try_from(points.max(0)).unwrap_or(u16::MAX),
            pool: self.pool,
            proven: context.proven || context.transport == Transport::Tcp,
            block_source: self.block,
            would: (would.0 != decided.0).then_some(would),
        }
    }

    #[inline]
    fn weigh(&self, points: &Tally, policy: &Policy, pressure: Pressure) -> Weighed {
        Weighed {
            pressure,
            counted: if pressure.is_none() {
                points.standing()
            } else {
                points.total(policy.caps)
            },
            certain: if self.held_down {
                0
            } else {
                points.certain(policy.caps)
            },
        }
    }

    /// What the bands make of points: of those that count at this pressure, or of the certain ones at
    /// the thresholds under full pressure, whichever is more severe; and which band that is. `all`:
    /// bands in observe mode, too.
    #[inline]
    fn by_band(
        &self,
        points: &Tally,
        policy: &Policy,
        context: &Context,
        pressure: Pressure,
        all: bool,
    ) -> ((Action, Cause), Option<u8>) {
        let caps = policy.caps;
        let Weighed {
            counted, certain, ..
        } = self.weigh(points, policy, pressure);
        // proving its address says nothing for the name asked for
        let refutable = points.certain_of_source(caps) > 0;
        let counts = |band: &Band, challenges: bool| {
            (all || !band.observe)
                && (band.action != Action::Truncate
                    || challenges && context.transport == Transport::Udp)
        };
        let by_pressure = policy
            .bands
            .reached(counted, pressure, |band| counts(band, true));
        let by_certainty = policy
            .bands
            .reached(certain, Pressure::FULL, |band| counts(band, refutable));
        let Some((band, action)) = by_pressure.max(by_certainty) else {
            let passes = if self.challenged {
                (Action::Truncate, Cause::Level)
            } else {
                (Action::Pass, Cause::None)
            };
            return (passes, None);
        };
        if self.missing && action != Action::Refuse && points.certain_of_source(caps) < CREDIBLE {
            return ((Action::NxDomain, Cause::Missing), Some(band));
        }
        ((action, Cause::Band(band)), Some(band))
    }
}
