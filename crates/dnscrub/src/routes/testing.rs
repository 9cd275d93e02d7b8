//! Incidents and settings for tests.

use dnscrub_detection::incident::{SourcePart, ZonePart};
use dnscrub_detection::{Incident, Kind};
use ipnet::IpNet;

use super::settings::{
    Blackhole, Community, FlowSpec, GiveUp, Limits, Mode, Settings, SourceBlackhole,
};

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Two services of IPv4, one of IPv6, and everything that can be configured but anycast.
pub(crate) fn settings() -> Settings {
    Settings {
        mode: Mode::Announce,
        services: vec![
            net("192.0.2.53/32"),
            net("192.0.2.54/32"),
            net("2001:db8:53::53/128"),
        ],
        next_hops: Vec::new(),
        limits: Limits {
            destinations: vec![net("192.0.2.0/24"), net("2001:db8:53::/48")],
            never: vec![net("203.0.113.0/24")],
            shortest_source: (24, 48),
            max_routes: 5,
            max_announcements: 8,
            ttl: 600.0,
            linger: 0.0,
        },
        flowspec: Some(FlowSpec {
            kinds: vec![Kind::DirectFlood],
            min_rate: 1000,
            max_sources: 10,
            known_sources: false,
            rate_limit: None,
            long_packets: Some((vec![Kind::MalformedFlood], 600)),
        }),
        blackhole: Some(Blackhole {
            give_up: ["192.0.2.53/32", "192.0.2.54/32", "2001:db8:53::53/128"]
                .map(|address| GiveUp {
                    address: net(address),
                    zones: if address == "192.0.2.54/32" {
                        vec![dnscrub_wire::Name::from_text("example.com").unwrap()]
                    } else {
                        Vec::new()
                    },
                    kinds: vec![Kind::SpoofedCarpet],
                    over: 200_000,
                })
                .into(),
            communities: vec![Community(65535, 666)],
            sources: Some(SourceBlackhole {
                community: Community(65010, 666),
                kinds: Vec::new(),
                min_rate: 1000,
            }),
        }),
        anycast: None,
    }
}

pub(crate) fn incident(number: u64, kind: Kind) -> Incident {
    Incident {
        confidence: 0.9,
        zones: vec![ZonePart {
            zone: "example.org".to_owned(),
            rate: 10_000.0,
            usual: 10.0,
            share: 1.0,
        }],
        ..Incident::new(number, kind, 0.0, 10.0)
    }
}

pub(crate) fn source(prefix: &str, rate: f32) -> SourcePart {
    SourcePart {
        prefix: net(prefix),
        rate,
        share: 0.1,
        known: false,
        verified: false,
    }
}
