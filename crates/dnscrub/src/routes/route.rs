//! A route: what it says, in words and in ExaBGP's.

use std::fmt::{self, Write as _};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::settings::{Community, GRACEFUL_SHUTDOWN, NO_EXPORT, Settings};

/// Kinds of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteKind {
    /// A FlowSpec rule.
    Flowspec,
    /// A blackhole.
    Blackhole,
    /// The node's own route.
    Anycast,
}

impl RouteKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Flowspec, Self::Blackhole, Self::Anycast];

    /// The label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Flowspec => "flowspec",
            Self::Blackhole => "blackhole",
            Self::Anycast => "anycast",
        }
    }
}

/// A route that may be announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// Routers drop, or slow down, what this source sends to port 53 of this address.
    FromSource {
        /// Ours.
        destination: IpNet,
        /// Theirs.
        source: IpNet,
    },
    /// Routers drop, or slow down, datagrams to port 53 of this address that are longer than this.
    LongPackets {
        /// Ours.
        destination: IpNet,
        /// Octets with the IP header.
        over: u16,
    },
    /// Routers drop everything to this address of ours.
    Blackhole(IpNet),
    /// Routers drop everything from this source.
    SourceBlackhole(IpNet),
    /// This node serves this prefix.
    Anycast {
        /// Ours.
        prefix: IpNet,
        /// With the wish that other nodes be preferred.
        prefer_others: bool,
    },
}

/// A route as ExaBGP is told of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Order {
    /// What follows `withdraw`: it names the route.
    pub name: String,
    /// What follows `announce`: the name with everything else.
    pub text: String,
}

impl Route {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> RouteKind {
        match self {
            Self::FromSource { .. } | Self::LongPackets { .. } => RouteKind::Flowspec,
            Self::Blackhole(_) | Self::SourceBlackhole(_) => RouteKind::Blackhole,
            Self::Anycast { .. } => RouteKind::Anycast,
        }
    }

    /// For ExaBGP 4. Both names and texts are made of numbers and fixed words only.
    #[must_use]
    pub fn order(&self, settings: &Settings) -> Order {
        match *self {
            Self::FromSource {
                destination,
                source,
            } => {
                let rule = format!(
                    "destination {}; source {}; {} [ =tcp =udp ]; destination-port =53;",
                    flow_prefix(destination),
                    flow_prefix(source),
                    protocol(destination)
                );
                flow(&rule, settings)
            }
            Self::LongPackets { destination, over } => {
                let rule = format!(
                    "destination {}; {} =udp; destination-port =53; packet-length >{over};",
                    flow_prefix(destination),
                    protocol(destination)
                );
                flow(&rule, settings)
            }
            Self::Blackhole(prefix) => {
                let blackhole = settings.blackhole.as_ref();
                let own = blackhole.map_or(&[][..], |blackhole| &blackhole.communities);
                unicast(prefix, own, true, settings)
            }
            Self::SourceBlackhole(prefix) => {
                let sources = settings
                    .blackhole
                    .as_ref()
                    .and_then(|it| it.sources.as_ref());
                let own: Vec<Community> = sources.map(|it| it.community).into_iter().collect();
                unicast(prefix, &own, true, settings)
            }
            Self::Anycast {
                prefix,
                prefer_others,
            } => {
                let own: &[Community] = if prefer_others {
                    &[GRACEFUL_SHUTDOWN]
                } else {
                    &[]
                };
                unicast(prefix, own, false, settings)
            }
        }
    }
}

/// IPv6 rules have an offset behind the length (RFC 8956 section 3.1).
fn flow_prefix(prefix: IpNet) -> String {
    match prefix {
        IpNet::V4(prefix) => prefix.to_string(),
        IpNet::V6(prefix) => format!("{prefix}/0"),
    }
}

const fn protocol(prefix: IpNet) -> &'static str {
    match prefix {
        IpNet::V4(_) => "protocol",
        IpNet::V6(_) => "next-header",
    }
}

fn flow(rule: &str, settings: &Settings) -> Order {
    let name = format!("flow route {{ match {{ {rule} }}");
    let limit = settings.flowspec.as_ref().and_then(|flow| flow.rate_limit);
    let then = limit.map_or_else(
        || "discard".to_owned(),
        |octets| format!("rate-limit {octets}"),
    );
    Order {
        text: format!("{name} then {{ {then}; community [ {NO_EXPORT} ]; }} }}"),
        name: format!("{name} }}"),
    }
}

fn unicast(
    prefix: IpNet,
    communities: &[Community],
    no_export: bool,
    settings: &Settings,
) -> Order {
    let name = format!("route {prefix}");
    let next_hop = settings
        .next_hops
        .iter()
        .find(|address| address.is_ipv4() == matches!(prefix, IpNet::V4(_)))
        .map_or_else(|| "self".to_owned(), ToString::to_string);
    let mut text = format!("{name} next-hop {next_hop}");
    let mut all = communities.to_vec();
    if no_export && !all.contains(&NO_EXPORT) {
        all.push(NO_EXPORT);
    }
    if !all.is_empty() {
        text.push_str(" community [");
        for community in all {
            let _ = write!(text, " {community}");
        }
        text.push_str(" ]");
    }
    Order { name, text }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromSource {
                destination,
                source,
            } => write!(f, "FlowSpec rule against {source} to {destination} port 53"),
            Self::LongPackets { destination, over } => write!(
                f,
                "FlowSpec rule against datagrams over {over} octets to {destination} port 53"
            ),
            Self::Blackhole(prefix) => write!(f, "blackhole of {prefix}"),
            Self::SourceBlackhole(prefix) => write!(f, "blackhole of the source {prefix}"),
            Self::Anycast {
                prefix,
                prefer_others: false,
            } => write!(f, "anycast route {prefix}"),
            Self::Anycast { prefix, .. } => {
                write!(f, "anycast route {prefix}, other nodes preferred")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::settings::{Blackhole, FlowSpec};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn exabgps_words() {
        let mut settings = Settings {
            flowspec: Some(FlowSpec::default()),
            blackhole: Some(Blackhole {
                communities: vec![Community(65535, 666)],
                ..Blackhole::default()
            }),
            ..Settings::default()
        };
        let source = Route::FromSource {
            destination: net("192.0.2.53/32"),
            source: net("198.51.100.0/24"),
        };
        assert_eq!(
            source.order(&settings).text,
            "flow route { match { destination 192.0.2.53/32; source 198.51.100.0/24; \
             protocol [ =tcp =udp ]; destination-port =53; } then { discard; community [ 65535:65281 ]; } }"
        );
        settings.flowspec.as_mut().unwrap().rate_limit = Some(12_000);
        let long = Route::LongPackets {
            destination: net("2001:db8::53/128"),
            over: 600,
        };
        assert_eq!(
            long.order(&settings),
            Order {
                name: "flow route { match { destination 2001:db8::53/128/0; next-header =udp; \
                       destination-port =53; packet-length >600; } }"
                    .to_owned(),
                text: "flow route { match { destination 2001:db8::53/128/0; next-header =udp; \
                       destination-port =53; packet-length >600; } then { rate-limit 12000; community [ 65535:65281 ]; } }"
                    .to_owned(),
            }
        );
        settings.next_hops = vec!["192.0.2.1".parse().unwrap()];
        let blackhole = Route::Blackhole(net("192.0.2.54/32"));
        assert_eq!(
            blackhole.order(&settings).text,
            "route 192.0.2.54/32 next-hop 192.0.2.1 community [ 65535:666 65535:65281 ]"
        );
        let anycast = |prefer_others| Route::Anycast {
            prefix: net("2001:db8:53::/48"),
            prefer_others,
        };
        let (usual, failed) = (
            anycast(false).order(&settings),
            anycast(true).order(&settings),
        );
        assert_eq!(usual.text, "route 2001:db8:53::/48 next-hop self");
        assert_eq!(
            failed.text,
            "route 2001:db8:53::/48 next-hop self community [ 65535:0 ]"
        );
        assert_eq!(usual.name, failed.name, "one takes the other's place");
    }
}
