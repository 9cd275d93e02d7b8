//! What each name server behind did in a second, for the detector: from counters that only ever grow.

use std::collections::HashMap;
use std::net::SocketAddr;

use dnscrub_detection::UpstreamSecond;
use dnscrub_forwarding::{Member, Policy, Pool, State};

/// Counters as they stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stand {
    sent: u64,
    unanswered: u64,
    answered: u64,
    servfail: u64,
}

impl Stand {
    fn of(member: &Member) -> Self {
        let upstream = &member.upstream;
        Self {
            sent: upstream.forwarded(),
            unanswered: upstream.timeouts().saturating_add(upstream.refused()),
            answered: upstream.answered(),
            servfail: upstream.servfails(),
        }
    }
}

/// How the counters stood last.
#[derive(Debug, Default)]
pub(super) struct Upstreams(HashMap<(String, SocketAddr), Stand>);

impl Upstreams {
    /// What was counted since the last time; nothing of a server that was not there then.
    pub(super) fn take(&mut self, policy: &Policy) -> Vec<UpstreamSecond> {
        let before = std::mem::take(&mut self.0);
        let of_pool = |pool: &Pool| {
            let of_member = |member: &Member| {
                let key = (pool.name.clone(), member.upstream.address());
                let now = Stand::of(member);
                let then = before.get(&key).copied().unwrap_or(now);
                self.0.insert(key, now);
                UpstreamSecond {
                    name: member.label.clone(),
                    address: member.upstream.address(),
                    pool: pool.name.clone(),
                    down: pool.health.is_some() && member.upstream.state() == State::Down,
                    sent: now.sent.saturating_sub(then.sent),
                    unanswered: now.unanswered.saturating_sub(then.unanswered),
                    answered: now.answered.saturating_sub(then.answered),
                    servfail: now.servfail.saturating_sub(then.servfail),
                    latency: member.upstream.latency().map(|it| it.as_secs_f32()),
                }
            };
            pool.members.iter().map(of_member).collect::<Vec<_>>()
        };
        policy.pools().iter().flat_map(of_pool).collect()
    }
}
