//! What is shared about an upstream: its health and its counters.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dnscrub_wire::Rcode;
use serde::{Deserialize, Serialize};

use crate::config::RcodeName;
use crate::limit::{Bounds, Controller, FIRST, Samples};

/// First time an upstream stays suspect; doubled at each relapse.
const SUSPICION: Duration = Duration::from_secs(1);
/// Longest time an upstream stays suspect without new signs.
const LONGEST_SUSPICION: Duration = Duration::from_secs(8);

/// One upstream of one pool: health and counters, shared by all workers, the prober and the control
/// side. Relaxed atomics: each value is right by itself, and a few milliseconds old at most.
///
/// It lives as long as some policy or worker holds it. A reload keeps it where the pool's name and
/// the address stay the same, so that health and counters survive.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    pool: String,
    clock: Epoch,
    health: HealthCells,
    counters: Counters,
    /// Learns the limit; only ever tried, never waited for.
    controller: Mutex<Controller>,
}

/// What active checks say about an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not checked yet, or its pool has no checks: used like one that is up.
    Untested,
    /// In use.
    Up,
    /// Not used, unless the pool's minimum active set needs it.
    Down,
}

/// Result of one health probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// Answered as expected, after this time.
    Ok(Duration),
    /// Answered with a response code that does not pass.
    WrongRcode(Rcode),
    /// No answer in time.
    Timeout,
    /// ICMP said that nobody listens there.
    Refused,
    /// The answer is no DNS response, or one to another question.
    Malformed,
    /// The probe could not be sent.
    Unsent,
}

impl ProbeResult {
    /// The result in words, for listings and logs.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Ok(_) => "passed".into(),
            Self::WrongRcode(rcode) => format!("answered with {}", RcodeName(rcode)),
            Self::Timeout => "no answer in time".into(),
            Self::Refused => "connection refused".into(),
            Self::Malformed => "malformed answer".into(),
            Self::Unsent => "the probe could not be sent".into(),
        }
    }

    const fn code(self) -> u32 {
        match self {
            Self::Ok(_) => 1,
            Self::WrongRcode(rcode) => 2 | (rcode.0 as u32) << 8,
            Self::Timeout => 3,
            Self::Refused => 4,
            Self::Malformed => 5,
            Self::Unsent => 6,
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code & 0xff {
            1 => Some(Self::Ok(Duration::ZERO)),
            2 => Some(Self::WrongRcode(Rcode((code >> 8) as u16))),
            3 => Some(Self::Timeout),
            4 => Some(Self::Refused),
            5 => Some(Self::Malformed),
            6 => Some(Self::Unsent),
            _ => None,
        }
    }
}

/// An upstream at one moment, for `dnscrub upstreams` and its JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamSnapshot {
    /// Name in the configuration, or the address.
    pub name: String,
    /// Address and port.
    pub address: SocketAddr,
    /// The pool it belongs to.
    pub pool: String,
    /// `up`, `down`, `suspect`, `untested`, or `unchecked` (its pool has no health checks).
    pub state: String,
    /// Seconds since the checks last changed their verdict, or since the start.
    pub since_seconds: f64,
    /// Configured weight.
    pub weight: u32,
    /// Queries without an answer.
    pub outstanding: u32,
    /// How many it may have, as learned from its latency and losses.
    pub limit: u32,
    /// The most it may ever have.
    pub max_outstanding: u32,
    /// Queries sent to it, resent ones included.
    pub forwarded: u64,
    /// Answers delivered to clients.
    pub answered: u64,
    /// Queries it did not answer in time.
    pub timeouts: u64,
    /// ICMP refusals.
    pub refused: u64,
    /// Smoothed time to answer in milliseconds; nothing before the first answer.
    pub latency_ms: Option<f64>,
    /// The last health probe, where there was one.
    pub last_check: Option<LastCheck>,
}

/// The last health probe of an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastCheck {
    /// Seconds since its result.
    pub seconds_ago: f64,
    /// Whether it passed.
    pub passed: bool,
    /// Its result in words.
    pub result: String,
    /// Probes that have failed in a row.
    pub failures_in_a_row: u32,
}

impl Upstream {
    pub(crate) fn new(pool: &str, address: SocketAddr, clock: Epoch, now: Instant) -> Self {
        let upstream = Self {
            address,
            pool: pool.to_owned(),
            clock,
            health: HealthCells::default(),
            counters: Counters::default(),
            controller: Mutex::new(Controller::new(clock.nanos(now))),
        };
        upstream.counters.limit.store(FIRST as u32, Relaxed);
        upstream.health.since.store(clock.nanos(now), Relaxed);
        upstream
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Name of its pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// What active checks say.
    #[must_use]
    pub fn state(&self) -> State {
        match self.health.state.load(Relaxed) {
            1 => State::Up,
            2 => State::Down,
            _ => State::Untested,
        }
    }

    /// Whether live traffic lately showed signs that it does not answer.
    #[must_use]
    pub fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_at(self.clock.nanos(now))
    }

    /// Queries sent to it without an answer, over UDP and TCP, of all workers together.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.counters.outstanding.load(Relaxed)
    }

    /// Queries sent to it, resent ones included.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.counters.forwarded.load(Relaxed)
    }

    /// Its answers that went to clients.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.counters.answered.load(Relaxed)
    }

    /// Answers over UDP with SERVFAIL.
    #[must_use]
    pub fn servfails(&self) -> u64 {
        self.counters.servfails.load(Relaxed)
    }

    /// Queries it did not answer in time.
    #[must_use]
    pub fn timeouts(&self) -> u64 {
        self.counters.timeouts.load(Relaxed)
    }

    /// ICMP refusals.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.counters.refused.load(Relaxed)
    }

    /// Smoothed time to answer; nothing before the first answer.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        match self.counters.latency.load(Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    pub(crate) fn snapshot(
        &self,
        name: &str,
        weight: u32,
        max_outstanding: u32,
        checked: bool,
        now: Instant,
    ) -> UpstreamSnapshot {
        let now = self.clock.nanos(now);
        let ago = |then: &AtomicU64| {
            Duration::from_nanos(now.saturating_sub(then.load(Relaxed))).as_secs_f64()
        };
        let state = match self.state() {
            State::Down if checked => "down",
            _ if self.suspect_at(now) => "suspect",
            _ if !checked => "unchecked",
            State::Up => "up",
            State::Untested | State::Down => "untested",
        };
        let last_check =
            ProbeResult::from_code(self.health.last_result.load(Relaxed)).map(|result| LastCheck {
                seconds_ago: ago(&self.health.last_check),
                passed: matches!(result, ProbeResult::Ok(_)),
                result: result.describe(),
                failures_in_a_row: self.health.failures.load(Relaxed),
            });
        UpstreamSnapshot {
            name: name.to_owned(),
            address: self.address,
            pool: self.pool.clone(),
            state: state.to_owned(),
            since_seconds: ago(&self.health.since),
            weight,
            outstanding: self.outstanding(),
            limit: self.limit(max_outstanding),
            max_outstanding,
            forwarded: self.forwarded(),
            answered: self.answered(),
            timeouts: self.timeouts(),
            refused: self.refused(),
            latency_ms: self.latency().map(|latency| latency.as_secs_f64() * 1e3),
            last_check,
        }
    }

    pub(crate) fn suspect_at(&self, now: u64) -> bool {
        self.health.suspect_until.load(Relaxed) > now
    }

    /// Avoids it for a while: a second at first, twice as long at each relapse, up to eight.
    pub(crate) fn suspect(&self, now: u64) {
        if self.suspect_at(now) {
            return;
        }
        let relapses = self.health.relapses.load(Relaxed);
        let length = SUSPICION
            .saturating_mul(1_u32 << relapses.min(3))
            .min(LONGEST_SUSPICION);
        self.health
            .relapses
            .store(relapses.saturating_add(1).min(3), Relaxed);
        self.health
            .suspect_until
            .store(now.saturating_add(span(length)), Relaxed);
    }

    /// Takes note of a sign of life. Suspicion that is on stays on for its short time, because the
    /// answer may be older than the sign that caused it.
    pub(crate) fn alive(&self, now: u64) {
        self.health.last_alive.fetch_max(now, Relaxed);
        if self.health.relapses.load(Relaxed) != 0 && !self.suspect_at(now) {
            self.health.relapses.store(0, Relaxed);
        }
    }

    /// The last sign of life.
    pub(crate) fn last_alive(&self) -> u64 {
        self.health.last_alive.load(Relaxed)
    }

    pub(crate) fn failures(&self) -> u32 {
        self.health.failures.load(Relaxed)
    }

    /// How much of its weight it gets, in thousandths: less than all in the slow start.
    pub(crate) fn ramp(&self, slow_start: Duration, now: u64) -> u32 {
        const LEAST: u64 = 50;
        let came_up = self.health.came_up.load(Relaxed);
        let length = span(slow_start);
        if came_up == 0 || length == 0 {
            return 1000;
        }
        let elapsed = now.saturating_sub(came_up).min(length);
        let share = u128::from(elapsed)
            .saturating_mul(1000)
            .checked_div(u128::from(length))
            .unwrap_or(1000);
        share.max(u128::from(LEAST)).min(1000) as u32
    }

    pub(crate) fn record_check(&self, result: ProbeResult, failures: u32, now: Instant) {
        let now = self.clock.nanos(now);
        self.health.last_result.store(result.code(), Relaxed);
        self.health.last_check.store(now, Relaxed);
        self.health.failures.store(failures, Relaxed);
        if matches!(result, ProbeResult::Ok(_)) {
            self.alive(now);
        }
    }

    pub(crate) fn set_state(&self, state: State, now: Instant) {
        let now = self.clock.nanos(now);
        let code = match state {
            State::Untested => 0,
            State::Up => 1,
            State::Down => 2,
        };
        let came_back = self.state() == State::Down && state == State::Up;
        if came_back {
            // several probes in a row passed: what live traffic suspected before is over
            self.health.suspect_until.store(0, Relaxed);
            self.health.relapses.store(0, Relaxed);
        }
        self.health
            .came_up
            .store(if came_back { now.max(1) } else { 0 }, Relaxed);
        self.health.since.store(now, Relaxed);
        self.health.state.store(code, Relaxed);
    }

    pub(crate) fn publish(&self, delta: &Tally) {
        let counters = &self.counters;
        counters.forwarded.fetch_add(delta.forwarded, Relaxed);
        let answered = delta.answered.saturating_add(delta.stream_answers);
        counters.answered.fetch_add(answered, Relaxed);
        counters.servfails.fetch_add(delta.servfails, Relaxed);
        counters.timeouts.fetch_add(delta.timeouts, Relaxed);
        counters.refused.fetch_add(delta.refused, Relaxed);
        let Some(mean) = delta.latency.checked_div(delta.answered) else {
            return;
        };
        // An eighth of what is new, as TCP smooths its round-trip time (RFC 6298).
        let smoothed = match counters.latency.load(Relaxed) {
            0 => mean,
            old => old.saturating_sub(old / 8).saturating_add(mean / 8),
        };
        counters.latency.store(smoothed.max(1), Relaxed);
    }

    /// How many queries it may have without an answer, at most `ceiling`.
    #[must_use]
    pub fn limit(&self, ceiling: u32) -> u32 {
        self.counters.limit.load(Relaxed).min(ceiling)
    }

    /// Hands over what a worker saw, and learns the limit from it. Should another worker do so at this
    /// very moment, the samples stay with their worker until its next tick.
    pub(crate) fn learn(&self, samples: &mut Samples, bounds: Bounds, now: u64) {
        let Ok(mut controller) = self.controller.try_lock() else {
            return;
        };
        controller.feed(samples, bounds, now);
        let limit = controller.limit(bounds);
        self.counters.limit.store(limit, Relaxed);
    }

    /// Workers that have queries there, or some waiting for it.
    pub(crate) fn users(&self) -> u32 {
        self.counters.users.load(Relaxed)
    }

    /// A worker comes to use it, or ceases to.
    pub(crate) fn publish_use(&self, before: bool, now: bool) {
        if before != now {
            let change = u32::from(now).wrapping_sub(before.into());
            self.counters.users.fetch_add(change, Relaxed);
        }
    }

    /// Replaces one worker's part of what is outstanding.
    pub(crate) fn publish_outstanding(&self, before: u32, now: u32) {
        self.counters
            .outstanding
            .fetch_add(now.wrapping_sub(before), Relaxed);
    }
}

/// What one worker counted since it last published.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) forwarded: u64,
    pub(crate) answered: u64,
    pub(crate) servfails: u64,
    pub(crate) timeouts: u64,
    pub(crate) refused: u64,
    /// Sum over the answers, in nanoseconds.
    pub(crate) latency: u64,
    /// Answers over TCP, which are not among those whose latency is summed.
    pub(crate) stream_answers: u64,
}

/// The instant that atomics count nanoseconds from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(pub(crate) Instant);

impl Epoch {
    pub(crate) fn nanos(self, now: Instant) -> u64 {
        span(now.saturating_duration_since(self.0))
    }
}

/// A duration in nanoseconds; 584 years at most.
pub(crate) const fn span(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 {
        u64::MAX
    } else {
        nanos as u64
    }
}

/// Read for every choice, written seldom: on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct HealthCells {
    state: AtomicU8,
    relapses: AtomicU8,
    last_result: AtomicU32,
    failures: AtomicU32,
    since: AtomicU64,
    came_up: AtomicU64,
    suspect_until: AtomicU64,
    last_check: AtomicU64,
    last_alive: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Counters {
    outstanding: AtomicU32,
    limit: AtomicU32,
    users: AtomicU32,
    forwarded: AtomicU64,
    answered: AtomicU64,
    servfails: AtomicU64,
    timeouts: AtomicU64,
    refused: AtomicU64,
    latency: AtomicU64,
}
