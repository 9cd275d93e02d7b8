//! Active health checks: when to probe, what a probe is, and what its results do.
//!
//! An upstream starts *untested* and is used. `rise` passes in a row bring one that is down up
//! again (with a slow start); `fall` failures in a row take it down. A first pass makes an untested
//! one up at once. The sockets are the program's: it asks for probes, sends [`Probe::packet`],
//! judges what comes back with [`Probe::judge`] and hands in the result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dnscrub_wire::{HEADER_LEN, QueryBuilder, Rcode, Response};

use crate::in_flight::is_response_to;
use crate::policy::{HealthPolicy, Policy};
use crate::upstream::{ProbeResult, State, Upstream};

/// The prober's side of health: one for the whole program.
#[derive(Debug, Default)]
pub struct Checker {
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    upstream: Arc<Upstream>,
    label: Arc<str>,
    policy: Arc<HealthPolicy>,
    due: Instant,
    /// Set while a probe is out: until when its result is waited for.
    awaited_until: Option<Instant>,
    passes: u32,
    failures: u32,
}

/// One probe to be sent.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Whom to ask.
    pub upstream: Arc<Upstream>,
    /// Its name in the configuration, or its address.
    pub label: Arc<str>,
    /// Time to wait for the answer; then the result is [`ProbeResult::Timeout`].
    pub timeout: Duration,
    policy: Arc<HealthPolicy>,
}

/// A change of an upstream's state, for the log.
#[derive(Clone, Debug)]
pub struct Transition {
    /// Whose state it is.
    pub upstream: Arc<Upstream>,
    /// Its name in the configuration, or its address.
    pub label: Arc<str>,
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// The result that brought it about.
    pub result: ProbeResult,
}

impl Checker {
    /// A checker of the policy's upstreams; the first probes are due at once.
    #[must_use]
    pub fn new(policy: &Policy, now: Instant) -> Self {
        let mut checker = Self::default();
        checker.adopt(policy, now);
        checker
    }

    /// Goes over to another policy. Counts of passes and failures go on where the upstream stays;
    /// results of probes to upstreams that are gone will be ignored. Upstreams whose pool no longer
    /// has checks become untested.
    pub fn adopt(&mut self, policy: &Policy, now: Instant) {
        let mut before = std::mem::take(&mut self.watched);
        for pool in policy.pools() {
            for member in &pool.members {
                let kept = before
                    .iter()
                    .position(|watched| Arc::ptr_eq(&watched.upstream, &member.upstream));
                let kept = kept.map(|index| before.swap_remove(index));
                let Some(health) = &pool.health else {
                    if member.upstream.state() != State::Untested {
                        member.upstream.set_state(State::Untested, now);
                    }
                    continue;
                };
                let fresh = || Watched {
                    upstream: Arc::clone(&member.upstream),
                    label: "".into(),
                    policy: Arc::clone(health),
                    due: now,
                    awaited_until: None,
                    passes: 0,
                    failures: 0,
                };
                let mut watched = kept.unwrap_or_else(fresh);
                watched.label = member.label.as_str().into();
                watched.policy = Arc::clone(health);
                // A shorter interval counts from now on, not only after the old one is over.
                watched.due = watched.due.min(later(now, health.interval));
                self.watched.push(watched);
            }
        }
    }

    /// When [`Self::next_probe`] has something to send next; nothing without checks.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.watched.iter().map(Watched::ready_at).min()
    }

    /// A probe that is due; to be called until there is none. At most one probe of an upstream is
    /// out at a time; one whose result never arrives is forgotten a second after its time limit.
    pub fn next_probe(&mut self, now: Instant) -> Option<Probe> {
        let watched = self
            .watched
            .iter_mut()
            .find(|watched| watched.ready_at() <= now)?;
        let policy = &watched.policy;
        // A prober that was held up does not catch up on what it missed.
        watched.due = later(watched.due, policy.interval).max(now);
        watched.awaited_until = Some(later(later(now, policy.timeout), Duration::from_secs(1)));
        Some(Probe {
            upstream: Arc::clone(&watched.upstream),
            label: Arc::clone(&watched.label),
            timeout: policy.timeout,
            policy: Arc::clone(policy),
        })
    }

    /// Takes a probe's result. The state's change, where there is one, is returned for the log.
    pub fn on_result(
        &mut self,
        probe: &Probe,
        result: ProbeResult,
        now: Instant,
    ) -> Option<Transition> {
        let watched = self
            .watched
            .iter_mut()
            .find(|watched| Arc::ptr_eq(&watched.upstream, &probe.upstream))?;
        watched.awaited_until = None;
        let passed = matches!(result, ProbeResult::Ok(_));
        if passed {
            watched.passes = watched.passes.saturating_add(1);
            watched.failures = 0;
        } else {
            watched.failures = watched.failures.saturating_add(1);
            watched.passes = 0;
        }
        let upstream = &watched.upstream;
        upstream.record_check(result, watched.failures, now);
        let from = upstream.state();
        let to = match from {
            State::Untested if passed => State::Up,
            State::Down if watched.passes >= watched.policy.rise => State::Up,
            State::Untested | State::Up if watched.failures >= watched.policy.fall => State::Down,
            unchanged => unchanged,
        };
        if from == to {
            return None;
        }
        upstream.set_state(to, now);
        Some(Transition {
            upstream: Arc::clone(upstream),
            label: Arc::clone(&watched.label),
            from,
            to,
            result,
        })
    }
}

impl Watched {
    fn ready_at(&self) -> Instant {
        self.awaited_until
            .map_or(self.due, |until| until.max(self.due))
    }
}

impl Probe {
    /// The query to send, with this id: no EDNS, RD clear.
    #[must_use]
    pub fn packet(&self, id: u16) -> Vec<u8> {
        let query = &self.policy.query;
        QueryBuilder::new(&query.name, query.qtype).id(id).build()
    }

    /// What `response` to [`Self::packet`] with this id says, `latency` after it was sent; nothing
    /// for a packet with another id, which is no answer to this probe: wait on.
    #[must_use]
    pub fn judge(&self, id: u16, response: &[u8], latency: Duration) -> Option<ProbeResult> {
        if response.first_chunk() != Some(&id.to_be_bytes()) {
            return None;
        }
        let Ok(parsed) = Response::parse(response) else {
            return Some(ProbeResult::Malformed);
        };
        let query = self.packet(id);
        let question = query.get(HEADER_LEN..).unwrap_or_default();
        Some(if !is_response_to(&parsed, response, question) {
            ProbeResult::Malformed
        } else if self.passes(parsed.rcode) {
            ProbeResult::Ok(latency)
        } else {
            ProbeResult::WrongRcode(parsed.rcode)
        })
    }

    fn passes(&self, rcode: Rcode) -> bool {
        self.policy
            .rcodes
            .as_ref()
            .is_none_or(|rcodes| rcodes.contains(&rcode))
    }
}

fn later(instant: Instant, by: Duration) -> Instant {
    instant.checked_add(by).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use dnscrub_testkit::VirtualClock;

    use super::*;
    use crate::policy::tests::build;

    const POOL: &str = r#"{"default": {"upstreams": [{"address": "192.0.2.1"}, {"address": "192.0.2.2"}],
        "health": {"query": "example.com. SOA", "rcodes": ["NOERROR", "NXDOMAIN"], "interval": "1s", "rise": 2, "fall": 3}}}"#;
    const PASS: ProbeResult = ProbeResult::Ok(Duration::from_millis(1));

    /// Hands in the results of one round and returns the states.
    fn round(
        checker: &mut Checker,
        clock: &mut VirtualClock,
        results: [ProbeResult; 2],
    ) -> [State; 2] {
        let probes = [(); 2].map(|()| checker.next_probe(clock.now()).unwrap());
        assert!(checker.next_probe(clock.now()).is_none());
        for (probe, result) in probes.iter().zip(results) {
            let before = probe.upstream.state();
            let change = checker.on_result(probe, result, clock.now());
            let change = change.map(|change| (change.from, change.to));
            let after = probe.upstream.state();
            assert_eq!(change, (before != after).then_some((before, after)));
        }
        clock.advance(Duration::from_secs(1));
        probes.map(|probe| probe.upstream.state())
    }

    #[test]
    fn three_failures_take_down_and_two_passes_bring_up() {
        use State::{Down, Up};
        let mut clock = VirtualClock::new();
        let policy = build(POOL, None, clock.now());
        let mut checker = Checker::new(&policy, clock.now());
        let failures = [
            ProbeResult::Timeout,
            ProbeResult::Refused,
            ProbeResult::WrongRcode(Rcode::SERVFAIL),
            ProbeResult::Malformed,
        ];
        assert_eq!(round(&mut checker, &mut clock, [PASS, PASS]), [Up, Up]);
        assert_eq!(
            round(&mut checker, &mut clock, [failures[0], PASS]),
            [Up, Up]
        );
        assert_eq!(
            round(&mut checker, &mut clock, [failures[1], PASS]),
            [Up, Up]
        );
        assert_eq!(
            round(&mut checker, &mut clock, [failures[2], PASS]),
            [Down, Up]
        );
        let seen = policy.snapshot(clock.now()).swap_remove(0);
        assert_eq!((seen.state.as_str(), seen.since_seconds), ("down", 1.0));
        let check = seen.last_check.unwrap();
        assert_eq!(
            (check.passed, check.result.as_str(), check.failures_in_a_row),
            (false, "answered with SERVFAIL", 3)
        );
        assert_eq!(round(&mut checker, &mut clock, [PASS, PASS]), [Down, Up]);
        assert_eq!(
            round(&mut checker, &mut clock, [failures[3], PASS]),
            [Down, Up]
        );
        assert_eq!(round(&mut checker, &mut clock, [PASS, PASS]), [Down, Up]);
        assert_eq!(round(&mut checker, &mut clock, [PASS, PASS]), [Up, Up]);
    }

    #[test]
    fn one_probe_is_out_at_a_time_and_a_lost_result_does_not_end_the_checks() {
        let mut clock = VirtualClock::new();
        let policy = build(POOL, None, clock.now());
        let mut checker = Checker::new(&policy, clock.now());
        let first = checker.next_probe(clock.now()).unwrap();
        let second = checker.next_probe(clock.now()).unwrap();
        checker.on_result(&second, PASS, clock.now());
        assert_eq!(
            checker.next_due(),
            Some(clock.now() + Duration::from_secs(1))
        );
        clock.advance(Duration::from_millis(1500));
        let again = checker.next_probe(clock.now()).unwrap();
        assert!(Arc::ptr_eq(&again.upstream, &second.upstream));
        assert!(checker.next_probe(clock.now()).is_none());
        clock.advance(Duration::from_millis(500));
        let again = checker.next_probe(clock.now()).unwrap();
        assert!(Arc::ptr_eq(&again.upstream, &first.upstream));
    }

    #[test]
    fn a_response_is_judged_by_id_question_and_rcode() {
        let clock = VirtualClock::new();
        let policy = build(POOL, None, clock.now());
        let probe = Checker::new(&policy, clock.now())
            .next_probe(clock.now())
            .unwrap();
        let latency = Duration::from_millis(3);
        let answer = |rcode: u8| {
            let mut packet = probe.packet(7);
            packet[2] |= 0x80;
            packet[3] |= rcode;
            packet
        };
        assert_eq!(
            probe.judge(7, &answer(0), latency),
            Some(ProbeResult::Ok(latency))
        );
        assert_eq!(
            probe.judge(7, &answer(3), latency),
            Some(ProbeResult::Ok(latency))
        );
        assert_eq!(
            probe.judge(7, &answer(5), latency),
            Some(ProbeResult::WrongRcode(Rcode::REFUSED))
        );
        assert_eq!(probe.judge(8, &answer(0), latency), None);
        assert_eq!(
            probe.judge(7, &probe.packet(7), latency),
            Some(ProbeResult::Malformed)
        );
        let mut other = answer(0);
        other[14] ^= 1;
        assert_eq!(
            probe.judge(7, &other, latency),
            Some(ProbeResult::Malformed)
        );
        assert_eq!(
            probe.judge(7, &[0, 7, 1], latency),
            Some(ProbeResult::Malformed)
        );
    }

    #[test]
    fn a_reload_keeps_counts_and_checks_switched_off_forget_the_verdict() {
        let mut clock = VirtualClock::new();
        let policy = build(POOL, None, clock.now());
        let mut checker = Checker::new(&policy, clock.now());
        for _ in 0..2 {
            round(&mut checker, &mut clock, [ProbeResult::Timeout, PASS]);
        }
        let policy = build(POOL, Some(&policy), clock.now());
        checker.adopt(&policy, clock.now());
        assert_eq!(
            round(&mut checker, &mut clock, [ProbeResult::Timeout, PASS]),
            [State::Down, State::Up]
        );
        let off = r#"{"default": {"upstreams": [{"address": "192.0.2.1"}], "health": "off"}}"#;
        let policy = build(off, Some(&policy), clock.now());
        checker.adopt(&policy, clock.now());
        assert_eq!(checker.next_due(), None);
        assert_eq!(
            policy.pools()[0].members[0].upstream.state(),
            State::Untested
        );
        assert_eq!(policy.snapshot(clock.now())[0].state, "unchecked");
    }

    #[test]
    fn without_a_query_any_answer_passes() {
        let clock = VirtualClock::new();
        let policy = build(
            r#"{"default": {"upstreams": [{"address": "192.0.2.1"}]}}"#,
            None,
            clock.now(),
        );
        let probe = Checker::new(&policy, clock.now())
            .next_probe(clock.now())
            .unwrap();
        let mut answer = probe.packet(1);
        answer[2] |= 0x80;
        answer[3] |= 5;
        assert_eq!(
            probe.judge(1, &answer, Duration::ZERO),
            Some(ProbeResult::Ok(Duration::ZERO))
        );
    }
}
