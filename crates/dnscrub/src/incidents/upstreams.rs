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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use dnscrub_forwarding::{Admission, Client, Forwarder};
    use dnscrub_wire::{Query, QueryBuilder, qtype};

    use super::*;

    #[test]
    fn a_second_is_what_the_counters_have_grown_by() {
        let pools = "default: { upstreams: [ { address: '192.0.2.1:53', name: ns1 } ] }";
        let pools = serde_yaml::from_str(pools).unwrap();
        let now = Instant::now();
        let policy = Arc::new(Policy::build(&pools, None, [1, 2, 3, 4], now).unwrap());
        let mut forwarder = Forwarder::new(Arc::clone(&policy), 4, 64, rand::random(), now);
        let mut upstreams = Upstreams::default();
        let mut packet = QueryBuilder::new(&"www.example.com".parse().unwrap(), qtype::A).build();
        let mut ask = |times: usize| {
            for id in 0..times as u16 {
                let client = Client {
                    address: (Ipv4Addr::LOCALHOST, 5353).into(),
                    reply_from: None,
                    endpoint: 0,
                    id,
                    verified: false,
                    known: true,
                };
                let query = Query::parse(&packet).unwrap();
                let admission = forwarder.admit(0, &query, &mut packet, client, 0, now);
                assert!(matches!(admission, Admission::Forward(_)));
            }
            forwarder.on_tick(now + Duration::from_millis(10), &mut |_| {});
        };
        ask(2);
        // what was before it was first looked at is of no second
        assert_eq!(upstreams.take(&policy)[0].sent, 0);
        ask(3);
        let [second] = &upstreams.take(&policy)[..] else {
            panic!("one upstream")
        };
        assert_eq!((second.sent, second.answered, second.unanswered), (3, 0, 0));
        assert_eq!(
            (second.name.as_str(), second.pool.as_str(), second.down),
            ("ns1", "default", false)
        );
        assert_eq!(upstreams.take(&policy)[0].sent, 0);
    }
}
