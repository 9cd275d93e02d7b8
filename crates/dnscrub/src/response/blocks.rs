//! Whom to block because of an incident.
//!
//! A block is the one thing dnscrub does to a source rather than to a query, so everything speaks for the source
//! first: its address must be its own, nothing may be known in its favour, and it must send far more
//! than any source does in calm times.

use std::collections::VecDeque;
use std::net::IpAddr;

use dnscrub_detection::incident::Spoofed;
use dnscrub_detection::{Incident, Kind};
use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::settings::BlockSettings;

/// Seconds in which a higher rate of the busiest source is forgotten.
const FORGETS_IN: f32 = 7200.0;
/// Seconds of calm after which enough is known of it.
const ENOUGH: f32 = 60.0;

/// Seconds after which a second counts as calm, if nothing was noticed by then: the first seconds of an attack are not to
/// become usual.
const SETTLES_IN: usize = 30;

/// How much the busiest source sends in calm times: the highest rate lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Busiest {
    /// Queries a second.
    pub(super) rate: f32,
    /// Seconds of calm that it is known from.
    pub(super) seconds: f32,
    /// Rates of the last seconds, which may turn out not to be calm.
    #[serde(skip)]
    lately: VecDeque<f32>,
}

impl Busiest {
    /// A second in which nothing is wrong that is known of, and the busiest source sent at this rate.
    pub(super) fn observe(&mut self, rate: f32) {
        self.lately.push_back(rate);
        if self.lately.len() <= SETTLES_IN {
            return;
        }
        let Some(rate) = self.lately.pop_front() else {
            return;
        };
        self.seconds = (self.seconds + 1.0).min(FORGETS_IN);
        self.rate = rate.max(self.rate * (1.0 - 1.0 / FORGETS_IN));
    }

    /// Something is wrong: the last seconds may have been part of it.
    pub(super) fn disturbed(&mut self) {
        self.lately.clear();
    }

    /// The rate from which on a source is blocked; nothing while too little is known.
    #[must_use]
    pub(super) fn threshold(&self, settings: &BlockSettings) -> Option<f32> {
        let known = self.seconds >= ENOUGH;
        known.then(|| settings.least_rate.max(self.rate * settings.factor))
    }
}

/// Whether sources are blocked for such an incident. Over TCP an address cannot be forged.
#[must_use]
pub(super) fn applies(incident: &Incident, settings: &BlockSettings, sure: f32) -> bool {
    let kind = incident.underlying();
    let own = kind == Kind::TcpExhaustion || incident.sources.spoofed == Spoofed::Unlikely;
    settings.on && own && incident.confidence >= sure && settings.kinds.contains(&kind)
}

/// The sources of an incident that send at least `threshold` queries a second and that nothing speaks for, the
/// busiest first, with their rates. `trusted`: the operator vouches for them.
pub(super) fn candidates(
    incident: &Incident,
    threshold: f32,
    trusted: impl Fn(IpAddr) -> bool,
) -> Vec<(IpNet, f32)> {
    let over_tcp = incident.kind == Kind::TcpExhaustion;
    let parts = incident.sources.top.iter().filter(|part| {
        part.rate >= threshold
            // who came before is a resolver with users, most likely; who proved its address could be one
            && !part.known
            && (over_tcp || !part.verified)
            // a network holds others than the culprit
            && part.prefix.prefix_len() == part.prefix.max_prefix_len()
            && !trusted(part.prefix.addr())
    });
    parts
        .map(|part| (blocked_prefix(part.prefix), part.rate))
        .collect()
}

/// What is blocked of a source: an address of IPv4, the /64 of IPv6 that one machine can choose from.
fn blocked_prefix(prefix: IpNet) -> IpNet {
    match prefix.addr().to_canonical() {
        IpAddr::V4(address) => IpNet::from(IpAddr::V4(address)),
        IpAddr::V6(address) => {
            Ipv6Net::new(address, 64).map_or(prefix, |net| IpNet::V6(net.trunc()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::incidents::testing::incident;

    pub(crate) fn settings() -> BlockSettings {
        BlockSettings {
            on: true,
            observe: false,
            kinds: vec![Kind::DirectFlood, Kind::TcpExhaustion],
            lifetime: Duration::from_secs(600),
            at_most: 1000,
            least_rate: 100.0,
            factor: 4.0,
        }
    }

    #[test]
    fn nobody_is_blocked_before_it_is_known_what_is_usual() {
        let mut busiest = Busiest::default();
        for _ in 0..89 {
            busiest.observe(10.0);
        }
        assert_eq!(busiest.threshold(&settings()), None);
        busiest.observe(10.0);
        assert_eq!(busiest.threshold(&settings()), Some(100.0));
        for _ in 0..SETTLES_IN {
            busiest.observe(900.0);
        }
        busiest.disturbed();
        busiest.observe(10.0);
        assert_eq!(
            busiest.threshold(&settings()),
            Some(100.0),
            "an attack's first seconds"
        );
        for _ in 0..SETTLES_IN {
            busiest.observe(900.0);
        }
        busiest.observe(10.0);
        busiest.observe(10.0);
        assert_eq!(busiest.threshold(&settings()), Some(3600.0));
        for _ in 0..7200 {
            busiest.observe(10.0);
        }
        let later = busiest.threshold(&settings()).unwrap();
        assert!((1000.0..1500.0).contains(&later), "{later}");
    }

    #[test]
    fn only_own_addresses_of_kinds_that_are_sure_enough() {
        let settings = settings();
        let flood = incident(1);
        assert!(applies(&flood, &settings, 0.7));
        assert!(!applies(&flood, &settings, 0.95));
        let with = |change: fn(&mut Incident)| {
            let mut other = incident(1);
            change(&mut other);
            applies(&other, &settings, 0.7)
        };
        assert!(!with(|it| it.sources.spoofed = Spoofed::Likely));
        assert!(!with(|it| it.sources.spoofed = Spoofed::Unclear));
        assert!(!with(|it| it.kind = Kind::FlashCrowd));
        assert!(!with(|it| it.kind = Kind::MalformedFlood));
        assert!(with(
            |it| (it.kind, it.of) = (Kind::Pulse, Some(Kind::DirectFlood))
        ));
        assert!(!with(
            |it| (it.kind, it.of) = (Kind::Pulse, Some(Kind::Reflection))
        ));
        assert!(with(|it| {
            it.kind = Kind::TcpExhaustion;
            it.sources.spoofed = Spoofed::Unclear;
        }));
        let off = BlockSettings {
            on: false,
            ..settings.clone()
        };
        assert!(!applies(&flood, &off, 0.7));
    }

    #[test]
    fn everything_that_speaks_for_a_source_spares_it() {
        let mut flood = incident(1);
        let names = |flood: &Incident, threshold| {
            let trusted = |source: IpAddr| source == IpAddr::from([192, 0, 2, 9]);
            let found = candidates(flood, threshold, trusted).into_iter();
            found
                .map(|(prefix, _)| prefix.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&flood, 100.0), ["192.0.2.1/32", "192.0.2.2/32"]);
        assert_eq!(names(&flood, 4_500.0), ["192.0.2.1/32"]);
        let mut part = flood.sources.top[0].clone();
        flood.sources.top.clear();
        let mut add = |address: &str, known, verified| {
            part.prefix = address.parse().unwrap();
            (part.known, part.verified) = (known, verified);
            flood.sources.top.push(part.clone());
        };
        add("192.0.2.7/32", true, false);
        add("192.0.2.8/32", false, true);
        add("192.0.2.9/32", false, false);
        add("192.0.2.0/24", false, false);
        add("2001:db8::1:2:3:4/128", false, false);
        assert_eq!(names(&flood, 100.0), ["2001:db8::/64"]);
        flood.kind = Kind::TcpExhaustion;
        assert_eq!(names(&flood, 100.0), ["192.0.2.8/32", "2001:db8::/64"]);
    }
}
