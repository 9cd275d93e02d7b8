//! `routes`: what may be announced to the routers in front.

use std::time::Duration;

use dnscrub_detection::Kind;
use ipnet::IpNet;

use super::{Checks, File};
use crate::config::file::IncidentKind;
use crate::config::file::routes::{self as written, RouteMode};
use crate::config::runtime::Startup;
use crate::routes::RouteSocket;
use crate::routes::book::LONGEST_LINGER;
use crate::routes::settings::{
    Anycast, Blackhole, FlowSpec, GiveUp, Limits, Settings, SourceBlackhole,
};

const LONGEST_DRAIN: Duration = Duration::from_secs(10);
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);
const MAX_ROUTES: u16 = 1000;
const MAX_ANNOUNCEMENTS: u16 = 10_000;
const MAX_WITHDRAWALS: u16 = 60;
const MAX_SOURCES: u16 = 20;

impl Checks<'_> {
    /// The socket for ExaBGP's process, where anything might be announced.
    pub(super) fn route_socket(&mut self, file: &File) -> Option<RouteSocket> {
        let routes = &file.routes;
        if !routes.socket.is_absolute() {
            let problem = self
                .wrong(
                    "routes.socket",
                    format!("`{}` is a relative path", routes.socket.display()),
                )
                .with_expected("an absolute path such as /run/dnscrub-routes/exabgp.sock")
                .with_help("the process that ExaBGP starts must find it");
            self.report(problem);
        }
        (routes.mode != RouteMode::Off).then(|| RouteSocket {
            path: routes.socket.clone(),
            mode: routes.socket_mode.0,
        })
    }

    pub(super) fn announcing(&mut self, file: &File, startup: &Startup) -> Settings {
        let routes = &file.routes;
        let mut services: Vec<IpNet> = routes.services.iter().map(|it| it.net()).collect();
        if services.is_empty() {
            let listened = startup.listeners.iter().flat_map(|it| &it.addresses);
            services = listened
                .map(|address| address.ip())
                .filter(|address| !address.is_unspecified())
                .map(IpNet::from)
                .collect();
            services.sort_unstable();
            services.dedup();
        }
        let limits = self.route_limits(file);
        if routes.mode != RouteMode::Off {
            for (index, service) in routes.services.iter().enumerate() {
                self.inside(&format!("routes.services[{index}]"), service.net(), &limits);
            }
        }
        for (index, address) in routes.next_hop.iter().enumerate() {
            let before = routes.next_hop.get(..index).unwrap_or_default();
            if before.iter().any(|it| it.is_ipv4() == address.is_ipv4()) {
                let problem = self
                    .wrong(
                        &format!("routes.next-hop[{index}]"),
                        format!("`{address}` is the second next hop of its family"),
                    )
                    .with_expected("at most one IPv4 and one IPv6 address");
                self.report(problem);
            }
        }
        Settings {
            mode: routes.mode,
            services,
            next_hops: routes.next_hop.clone(),
            flowspec: routes.flowspec.as_ref().map(|it| self.flowspec(it)),
            blackhole: routes
                .blackhole
                .as_ref()
                .map(|it| self.blackhole(it, &limits)),
            anycast: routes
                .anycast
                .as_ref()
                .map(|it| self.anycast(it, file, &limits)),
            limits,
        }
    }

    fn route_limits(&mut self, file: &File) -> Limits {
        let limits = &file.routes.limits;
        let at = |key: &str| format!("routes.limits.{key}");
        self.whole(&at("max-routes"), limits.max_routes, 1, MAX_ROUTES);
        self.whole(
            &at("max-announcements"),
            limits.max_announcements,
            1,
            MAX_ANNOUNCEMENTS,
        );
        let shortest = limits.shortest_source;
        self.whole(&at("shortest-source.v4"), shortest.v4.into(), 8, 32);
        self.whole(&at("shortest-source.v6"), shortest.v6.into(), 16, 128);
        if limits.ttl.0.is_zero() || limits.ttl.0 > LONGEST_TTL {
            let problem = self
                .impossible(&at("ttl"), limits.ttl)
                .with_expected("a duration up to 24h")
                .with_help("it is renewed while the incident goes on");
            self.report(problem);
        }
        if limits.linger.0.as_secs_f64() > LONGEST_LINGER {
            let problem = self
                .impossible(&at("linger"), limits.linger)
                .with_expected("a duration up to 1h, or 0s")
                .with_help("a route that is needed for longer is announced by hand, for a time");
            self.report(problem);
        }
        let upstreams = file.pools.values().flat_map(|pool| &pool.upstreams);
        let never = limits.never.iter().map(|it| it.net());
        Limits {
            destinations: limits.destinations.iter().map(|it| it.net()).collect(),
            never: never
                .chain(file.blocklist.never_block())
                .chain(upstreams.map(|it| IpNet::from(it.address.0.ip())))
                .collect(),
            shortest_source: (shortest.v4, shortest.v6),
            max_routes: usize::from(limits.max_routes),
            max_announcements: usize::from(limits.max_announcements),
            ttl: limits.ttl.0.as_secs_f64(),
            linger: limits.linger.0.as_secs_f64(),
        }
    }

    fn flowspec(&mut self, flowspec: &written::FlowSpec) -> FlowSpec {
        const MIN_RATE_LIMIT: u64 = 9_600;
        self.kinds("routes.flowspec.for", &flowspec.kinds, true);
        self.whole(
            "routes.flowspec.max-sources",
            flowspec.max_sources,
            1,
            MAX_SOURCES,
        );
        if let Some(limit) = flowspec.rate_limit.filter(|it| it.0 < MIN_RATE_LIMIT) {
            let problem = self
                .impossible("routes.flowspec.rate-limit", limit)
                .with_expected(format!("{MIN_RATE_LIMIT} octets a second or more"))
                .with_help("routers do not reckon with less; leave it out to let nothing pass");
            self.report(problem);
        }
        if let Some(long) = &flowspec.long_packets {
            self.kinds("routes.flowspec.long-packets.for", &long.kinds, false);
            self.whole(
                "routes.flowspec.long-packets.over",
                long.over,
                400,
                u16::MAX,
            );
        }
        FlowSpec {
            kinds: plain(&flowspec.kinds),
            min_rate: flowspec.min_rate,
            max_sources: usize::from(flowspec.max_sources),
            known_sources: flowspec.known_sources,
            rate_limit: flowspec.rate_limit.map(|it| it.0),
            long_packets: flowspec
                .long_packets
                .as_ref()
                .map(|long| (plain(&long.kinds), long.over)),
        }
    }

    fn blackhole(&mut self, blackhole: &written::Blackhole, limits: &Limits) -> Blackhole {
        let mut give_up = Vec::new();
        for (index, one) in blackhole.give_up.iter().enumerate() {
            let path = format!("routes.blackhole.give-up[{index}]");
            self.kinds(&format!("{path}.for"), &one.kinds, false);
            self.inside(&format!("{path}.address"), one.address.into(), limits);
            let mut zones = Vec::new();
            for (number, zone) in one.zones.iter().enumerate() {
                zones.extend(self.domain_name(&format!("{path}.zones[{number}]"), zone));
            }
            give_up.push(GiveUp {
                address: one.address.into(),
                zones,
                kinds: plain(&one.kinds),
                over: one.over,
            });
        }
        if let Some(sources) = &blackhole.sources {
            self.kinds("routes.blackhole.sources.for", &sources.kinds, true);
        }
        Blackhole {
            give_up,
            communities: blackhole.communities.clone(),
            sources: blackhole.sources.as_ref().map(|sources| SourceBlackhole {
                community: sources.community,
                kinds: plain(&sources.kinds),
                min_rate: sources.min_rate,
            }),
        }
    }

    fn anycast(&mut self, anycast: &written::Anycast, file: &File, limits: &Limits) -> Anycast {
        if anycast.prefixes.is_empty() {
            let problem = self
                .wrong("routes.anycast", "`anycast` has no prefixes")
                .with_expected("`prefixes`, such as [ 192.0.2.0/24 ]")
                .with_help("remove `anycast` if this node does not announce its own route");
            self.report(problem);
        }
        for (index, prefix) in anycast.prefixes.iter().enumerate() {
            self.inside(
                &format!("routes.anycast.prefixes[{index}]"),
                prefix.net(),
                limits,
            );
        }
        for (index, pool) in anycast.pools.iter().enumerate() {
            if !file.pools.contains_key(pool) {
                let problem = self
                    .wrong(
                        &format!("routes.anycast.pools[{index}]"),
                        format!("there is no pool named `{pool}`"),
                    )
                    .with_nearest(pool, file.pools.keys().map(String::as_str));
                self.report(problem);
            }
        }
        self.whole(
            "routes.anycast.max-withdrawals",
            anycast.max_withdrawals,
            1,
            MAX_WITHDRAWALS,
        );
        if anycast.drain.0 > LONGEST_DRAIN {
            let problem = self
                .impossible("routes.anycast.drain", anycast.drain)
                .with_expected("at most 10s")
                .with_help("what stops the program does not wait much longer");
            self.report(problem);
        }
        let file = anycast.drain_file.as_ref();
        Anycast {
            prefixes: anycast.prefixes.iter().map(|it| it.net()).collect(),
            pools: anycast.pools.clone(),
            failed_after: anycast.failed_after.0.as_secs_f64(),
            hold_down: anycast.hold_down.0.as_secs_f64(),
            when_failed: anycast.when_failed,
            max_withdrawals: usize::from(anycast.max_withdrawals),
            drain_file: file.map(|file| {
                self.places
                    .resolve("routes.anycast.drain-file", file.as_os_str())
            }),
            drain: anycast.drain.0.as_secs_f64(),
        }
    }

    /// A prefix of ours must be one that may be announced.
    fn inside(&mut self, path: &str, prefix: IpNet, limits: &Limits) {
        if !limits.destinations.iter().any(|own| own.contains(&prefix)) {
            let problem = self
                .wrong(
                    path,
                    format!("`{prefix}` is not in `routes.limits.destinations`"),
                )
                .with_help(
                    "nothing outside is ever announced: add the prefix there if it is yours",
                );
            let place = self.places.place("routes.limits.destinations");
            self.report(match limits.destinations.as_slice() {
                [] => problem,
                _ => problem.with_related(place, "these may be announced"),
            });
        }
    }

    /// Kinds that are no attacks call for no routes, and forged sources for no rules about sources.
    fn kinds(&mut self, path: &str, kinds: &[IncidentKind], by_source: bool) {
        for (index, kind) in kinds.iter().enumerate() {
            let why = if !kind.0.is_attack() {
                "it is not an attack: nobody is to be shut out for it"
            } else if by_source && matches!(kind.0, Kind::SpoofedCarpet | Kind::SpoofedResolvers) {
                "its sources are forged: a rule about them hits only those they pretend to be"
            } else {
                continue;
            };
            let problem = self
                .wrong(
                    &format!("{path}[{index}]"),
                    format!("`{}` cannot stand here", kind.0.label()),
                )
                .with_help(why);
            self.report(problem);
        }
    }
}

fn plain(kinds: &[IncidentKind]) -> Vec<Kind> {
    kinds.iter().map(|kind| kind.0).collect()
}
