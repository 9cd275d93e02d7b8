//! What an incident asks for: routes that would help against it. Whether they are allowed is decided
//! elsewhere ([`super::book`]).

use dnscrub_detection::Incident;
use dnscrub_detection::incident::{SourcePart, Spoofed};
use dnscrub_wire::Name;
use ipnet::IpNet;

use super::book::Refusal;
use super::route::Route;
use super::settings::{FlowSpec, Settings};

/// A route that an incident asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The route.
    pub route: Route,
    /// Why, in a clause.
    pub why: String,
    /// Why not, where the incident itself speaks against it.
    pub against: Option<Refusal>,
}

/// The routes that this incident asks for, the most useful first.
#[must_use]
pub fn wishes(incident: &Incident, settings: &Settings) -> Vec<Wish> {
    let mut wishes = Vec::new();
    if let Some(blackhole) = &settings.blackhole {
        for give_up in &blackhole.give_up {
            let about = give_up.kinds.contains(&incident.kind)
                && incident.peak.queries > give_up.over as f32
                && incident
                    .zones
                    .iter()
                    .filter_map(|part| Name::from_text(&part.zone).ok())
                    .any(|zone| give_up.zones.contains(&zone));
            if about {
                wishes.push(Wish {
                    route: Route::Blackhole(give_up.address),
                    why: format!("a peak of {:.0} queries a second", incident.peak.queries),
                    against: None,
                });
            }
        }
        if let Some(sources) = &blackhole.sources
            && sources.kinds.contains(&incident.kind)
        {
            for (source, why, against) in culprits(incident, sources.min_rate, false) {
                wishes.push(Wish {
                    route: Route::SourceBlackhole(source),
                    why,
                    against,
                });
            }
        }
    }
    if let Some(flowspec) = &settings.flowspec {
        flows(incident, flowspec, settings, &mut wishes);
    }
    wishes
}

fn flows(incident: &Incident, flowspec: &FlowSpec, settings: &Settings, wishes: &mut Vec<Wish>) {
    if let Some((kinds, over)) = &flowspec.long_packets
        && kinds.contains(&incident.kind)
    {
        for &destination in &settings.services {
            wishes.push(Wish {
                route: Route::LongPackets {
                    destination,
                    over: *over,
                },
                why: "no query is that long".to_owned(),
                against: None,
            });
        }
    }
    if !flowspec.kinds.contains(&incident.kind) {
        return;
    }
    let culprits = culprits(incident, flowspec.min_rate, flowspec.known_sources);
    for (source, why, against) in culprits.into_iter().take(flowspec.max_sources) {
        let same_family = |destination: &&IpNet| is_v4(**destination) == is_v4(source);
        for &destination in settings.services.iter().filter(same_family) {
            wishes.push(Wish {
                route: Route::FromSource {
                    destination,
                    source,
                },
                why: why.clone(),
                against,
            });
        }
    }
}

/// The sources that are busy enough, with what speaks against a route about them.
fn culprits(
    incident: &Incident,
    min_rate: u32,
    known_sources: bool,
) -> Vec<(IpNet, String, Option<Refusal>)> {
    let sources = &incident.sources;
    let against = |source: &SourcePart| {
        if sources.spoofed != Spoofed::Unlikely && !source.verified {
            Some(Refusal::SourceUnproven)
        } else if source.known && !known_sources {
            Some(Refusal::SourceKnown)
        } else {
            None
        }
    };
    let busy = sources
        .top
        .iter()
        .filter(|source| source.rate >= min_rate as f32);
    let mut found: Vec<_> = busy
        .map(|source| {
            let why = format!("{:.0} queries a second", source.rate);
            (source.prefix.trunc(), why, against(source))
        })
        .collect();
    // one of them says enough
    let mut unproven = 0;
    found.retain(|(_, _, against)| {
        unproven += usize::from(*against == Some(Refusal::SourceUnproven));
        *against != Some(Refusal::SourceUnproven) || unproven == 1
    });
    found
}

pub(super) const fn is_v4(prefix: IpNet) -> bool {
    matches!(prefix, IpNet::V4(_))
}

#[cfg(test)]
mod tests {
    use dnscrub_detection::Kind;

    use super::*;
    use crate::routes::testing::{incident, settings, source};

    fn routes(wishes: &[Wish]) -> Vec<(String, Option<Refusal>)> {
        wishes
            .iter()
            .map(|wish| (wish.route.to_string(), wish.against))
            .collect()
    }

    #[test]
    fn sources_that_are_their_own_and_new_get_rules() {
        let mut incident = incident(1, Kind::DirectFlood);
        incident.sources.spoofed = Spoofed::Unlikely;
        incident.sources.top = vec![
            source("198.51.100.7/32", 9_000.0),
            source("2001:db8:bad::/64", 5_000.0),
            source("198.51.100.8/32", 10.0),
            SourcePart {
                known: true,
                ..source("198.51.100.9/32", 4_000.0)
            },
        ];
        assert_eq!(
            routes(&wishes(&incident, &settings())),
            [
                (
                    "FlowSpec rule against 198.51.100.7/32 to 192.0.2.53/32 port 53".to_owned(),
                    None
                ),
                (
                    "FlowSpec rule against 198.51.100.7/32 to 192.0.2.54/32 port 53".to_owned(),
                    None
                ),
                (
                    "FlowSpec rule against 2001:db8:bad::/64 to 2001:db8:53::53/128 port 53"
                        .to_owned(),
                    None
                ),
                (
                    "FlowSpec rule against 198.51.100.9/32 to 192.0.2.53/32 port 53".to_owned(),
                    Some(Refusal::SourceKnown)
                ),
                (
                    "FlowSpec rule against 198.51.100.9/32 to 192.0.2.54/32 port 53".to_owned(),
                    Some(Refusal::SourceKnown)
                ),
            ]
        );
        incident.kind = Kind::FlashCrowd;
        assert_eq!(wishes(&incident, &settings()), []);
    }

    #[test]
    fn forged_sources_get_none_but_a_proven_one_does() {
        let mut incident = incident(1, Kind::DirectFlood);
        for spoofed in [Spoofed::Likely, Spoofed::Unclear] {
            incident.sources.spoofed = spoofed;
            incident.sources.top = vec![
                source("198.51.100.7/32", 9_000.0),
                source("198.51.100.8/32", 8_000.0),
                SourcePart {
                    verified: true,
                    ..source("198.51.100.9/32", 7_000.0)
                },
            ];
            let wished = wishes(&incident, &settings());
            let allowed: Vec<_> = wished.iter().filter(|it| it.against.is_none()).collect();
            assert!(
                allowed.len() == 2 && allowed[0].route.to_string().contains("198.51.100.9/32"),
                "{wished:?}"
            );
            let refused: Vec<_> = wished.iter().filter(|it| it.against.is_some()).collect();
            assert_eq!(refused.len(), 2, "one source for both services says enough");
        }
    }

    #[test]
    fn an_address_is_given_up_for_its_own_zones_only() {
        let mut incident = incident(1, Kind::SpoofedCarpet);
        incident.peak.queries = 300_000.0;
        let blackholes = |incident: &Incident| routes(&wishes(incident, &settings()));
        assert_eq!(blackholes(&incident), [], "example.org is not served there");
        incident.zones[0].zone = "Example.com.".to_owned();
        assert_eq!(
            blackholes(&incident),
            [("blackhole of 192.0.2.54/32".to_owned(), None)]
        );
        incident.peak.queries = 100_000.0;
        assert_eq!(blackholes(&incident), []);
    }

    #[test]
    fn long_packets_need_no_honest_source() {
        let mut incident = incident(1, Kind::MalformedFlood);
        incident.sources.spoofed = Spoofed::Likely;
        let found = wishes(&incident, &settings());
        assert_eq!(found.len(), 3, "a rule for each service");
        assert!(found.iter().all(|wish| wish.against.is_none()));
    }
}
