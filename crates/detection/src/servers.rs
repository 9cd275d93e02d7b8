//! Which of the name servers behind fail, and how.
//!
//! What the owner counted of each server in a second is kept for a few seconds, beside what is usual of it. That opens
//! no incident: clients notice nothing of a server whose queries another one takes over. It tells whose fault it
//! is when they do.

use std::collections::HashMap;
use std::net::SocketAddr;

use ahash::RandomState;

use crate::incident::{Fault, UpstreamPart};

/// Servers that are followed, at most; others are not told of.
const MOST: usize = 1024;
/// Seconds looked at together.
const SECONDS: usize = 4;
/// Share of unanswered queries, or of SERVFAIL, more than usual that is a fault,
const SHARE: f32 = 0.2;
/// and how many of them at least.
const LEAST: u64 = 3;
/// Times the usual latency, and seconds more than it, that are a fault.
const SLOW: (f32, f32) = (5.0, 0.1);
/// Seconds in which what is usual follows.
const FOLLOWS_IN: f32 = 120.0;

/// What a server did in a second.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamSecond {
    /// Its name in the configuration, or its address.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its pool.
    pub pool: String,
    /// Health checks have taken it out of use.
    pub down: bool,
    /// Queries sent to it,
    pub sent: u64,
    /// not answered in time or refused by ICMP,
    pub unanswered: u64,
    /// answered,
    pub answered: u64,
    /// and of these, with SERVFAIL.
    pub servfail: u64,
    /// How long its answers take, in seconds, where there were any.
    pub latency: Option<f32>,
}

/// One server.
#[derive(Debug)]
struct Server {
    seconds: [UpstreamSecond; SECONDS],
    /// Usual shares and latency.
    unanswered: f32,
    servfail: f32,
    latency: Option<f32>,
}

impl Server {
    fn sum(&self, of: impl Fn(&UpstreamSecond) -> u64) -> u64 {
        self.seconds.iter().map(of).fold(0, u64::saturating_add)
    }

    fn unanswered(&self) -> f32 {
        let all = self.sum(|it| it.sent.max(it.unanswered));
        self.sum(|it| it.unanswered) as f32 / all.max(1) as f32
    }

    fn servfail(&self) -> f32 {
        self.sum(|it| it.servfail) as f32 / self.sum(|it| it.answered).max(1) as f32
    }

    fn fault(&self) -> Option<(Fault, f32)> {
        let [now, ..] = &self.seconds;
        if self.sum(|it| it.unanswered) >= LEAST && self.unanswered() >= self.unanswered + SHARE {
            return Some((Fault::NoAnswer, self.unanswered()));
        }
        if self.sum(|it| it.servfail) >= LEAST && self.servfail() >= self.servfail + SHARE {
            return Some((Fault::Servfail, self.servfail()));
        }
        if now.down {
            return Some((Fault::Down, 1.0));
        }
        let (factor, more) = SLOW;
        let (latency, usual) = (now.latency?, self.latency?);
        let slow = latency >= factor * usual && latency >= usual + more;
        slow.then_some((Fault::Slow, latency))
    }

    fn learn(&mut self, seconds: f32) {
        let step = (seconds / FOLLOWS_IN).min(1.0);
        let (unanswered, servfail) = (self.unanswered(), self.servfail());
        self.unanswered += (unanswered - self.unanswered) * step;
        self.servfail += (servfail - self.servfail) * step;
        let [now, ..] = &self.seconds;
        if let Some(latency) = now.latency {
            let usual = self.latency.get_or_insert(latency);
            *usual += (latency - *usual) * step;
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Servers(HashMap<(String, SocketAddr), Server, RandomState>);

impl Servers {
    /// Takes in a second. Those that are told of no longer are forgotten.
    pub(crate) fn take_in(&mut self, told: &[UpstreamSecond]) {
        let mut before = std::mem::take(&mut self.0);
        for second in told.iter().take(MOST) {
            let key = (second.pool.clone(), second.address);
            let server = match before.remove(&key) {
                Some(mut server) => {
                    server.seconds.rotate_right(1);
                    let [now, ..] = &mut server.seconds;
                    *now = second.clone();
                    server
                }
                None => Server {
                    seconds: std::array::from_fn(|_| UpstreamSecond {
                        sent: 0,
                        unanswered: 0,
                        answered: 0,
                        servfail: 0,
                        ..second.clone()
                    }),
                    unanswered: 0.0,
                    servfail: 0.0,
                    latency: None,
                },
            };
            self.0.insert(key, server);
        }
    }

    /// Learns what is usual.
    pub(crate) fn learn(&mut self, seconds: f32) {
        for server in self.0.values_mut() {
            server.learn(seconds);
        }
    }

    /// Octets of memory; names of pools and servers are taken for 32 octets each.
    pub(crate) fn octets(&self) -> usize {
        let names = 64_usize.saturating_mul(SECONDS.saturating_add(1));
        self.0
            .capacity()
            .saturating_mul(size_of::<Server>().saturating_add(names))
    }

    /// Those that fail, the worst first.
    pub(crate) fn failing(&self) -> Vec<UpstreamPart> {
        let parts = self.0.values().filter_map(|server| {
            let (fault, value) = server.fault()?;
            let [now, ..] = &server.seconds;
            Some(UpstreamPart {
                name: now.name.clone(),
                address: now.address,
                pool: now.pool.clone(),
                fault,
                value,
            })
        });
        let mut parts: Vec<UpstreamPart> = parts.collect();
        parts.sort_by(|a, b| {
            let by_fault = (a.fault as u8).cmp(&(b.fault as u8));
            let by_value = || b.value.total_cmp(&a.value);
            by_fault
                .then_with(by_value)
                .then_with(|| (&a.pool, a.address).cmp(&(&b.pool, b.address)))
        });
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(
        port: u16,
        [sent, unanswered, answered, servfail]: [u64; 4],
        latency: f32,
    ) -> UpstreamSecond {
        UpstreamSecond {
            name: format!("ns{port}"),
            address: SocketAddr::from(([192, 0, 2, 1], port)),
            pool: "main".to_owned(),
            down: false,
            sent,
            unanswered,
            answered,
            servfail,
            latency: Some(latency),
        }
    }

    fn calm() -> Servers {
        let mut servers = Servers::default();
        for _ in 0..60 {
            let told = [1, 2, 3, 4].map(|port| second(port, [100, 1, 99, 0], 0.002));
            servers.take_in(&told);
            servers.learn(1.0);
            assert_eq!(servers.failing(), Vec::new());
        }
        servers
    }

    #[test]
    fn each_fault_is_told_of_the_server_that_has_it() {
        let mut servers = calm();
        for _ in 0..3 {
            servers.take_in(&[
                second(1, [100, 90, 10, 0], 0.002),
                second(2, [100, 0, 100, 60], 0.002),
                second(3, [100, 0, 100, 0], 0.3),
                UpstreamSecond {
                    down: true,
                    ..second(4, [0, 0, 0, 0], 0.002)
                },
            ]);
        }
        let failing = servers.failing();
        let told: Vec<(&str, Fault)> = failing
            .iter()
            .map(|part| (part.name.as_str(), part.fault))
            .collect();
        let wanted = [
            ("ns1", Fault::NoAnswer),
            ("ns4", Fault::Down),
            ("ns2", Fault::Servfail),
            ("ns3", Fault::Slow),
        ];
        assert_eq!(told, wanted);
        let values: Vec<f32> = failing.iter().map(|part| part.value).collect();
        assert!(
            (0.6..0.75).contains(&values[0]),
            "90 in three of four seconds: {values:?}"
        );
        assert_eq!(values[3], 0.3);
    }

    #[test]
    fn what_a_server_usually_does_is_no_fault() {
        let mut servers = Servers::default();
        for _ in 0..600 {
            servers.take_in(&[second(1, [10, 5, 5, 0], 0.4)]);
            servers.learn(1.0);
        }
        assert_eq!(servers.failing(), Vec::new());
    }

    #[test]
    fn few_are_no_share_and_servers_that_are_gone_are_forgotten() {
        let mut servers = calm();
        for _ in 0..SECONDS {
            servers.take_in(&[
                second(1, [2, 0, 2, 0], 0.002),
                second(9, [1, 0, 1, 0], 0.002),
            ]);
        }
        servers.take_in(&[second(1, [2, 2, 0, 0], 0.002)]);
        assert_eq!(servers.failing(), Vec::new());
        assert_eq!(servers.0.len(), 1);
        let many: Vec<_> = (0..5000)
            .map(|port| second(port, [1, 0, 1, 0], 0.1))
            .collect();
        servers.take_in(&many);
        assert_eq!(servers.0.len(), MOST);
    }
}
