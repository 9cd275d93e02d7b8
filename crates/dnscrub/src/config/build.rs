//! From what is written to what is used: every check that looks at more than one value.

mod kernel;
mod notify;
mod routes;

use std::{
    collections::BTreeMap,
    fmt::Display,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dnscrub_forwarding::config::DEFAULT_POOL;
use dnscrub_packet_filter::{Limits, ListError, PacketFilter, list_lines};
use dnscrub_scoring::{
    Level, List, Names,
    config::Mode,
    cookies::{Cookies, SECRET_LEN},
    response_limit::ResponseLimit,
};
use dnscrub_wire::Name;
use dnscrub_zones::transfer::TsigAlgorithm;
use dnscrub_zones::{Zone, Zones};

use crate::dnstap;

use super::{
    explain::in_words,
    file::{self, File, Period},
    load::{Loaded, Places, unreadable},
    problem::{Place, Problem, Problems},
    runtime::{
        BlocklistFile, Configuration, Control, ControlHttp, ListSize, Listener, Log, Reloadable,
        Routes, Startup, Surroundings, Tcp, TransferSource, Transfers, Tsig, Udp, ZoneSettings,
        ZoneSource, next_generation,
    },
    source::Source,
};
use crate::response::{BlockSettings, Settings};

/// Larger list files are refused: a hundred million octets hold about five million prefixes.
const MAX_LIST: u64 = 100 << 20;
/// A file with a token holds a line.
const MAX_TOKEN_FILE: u64 = 64 << 10;
/// A shorter token could be guessed.
const MIN_TOKEN: usize = 16;
/// A file with secrets of cookies holds a few lines.
const MAX_SECRETS_FILE: u64 = 64 << 10;
/// More secrets than a change from one to the next needs; each costs a hash for a forged cookie.
const MAX_SECRETS: usize = 4;
/// Problems told of one list file.
const MAX_LINES: usize = 5;
/// Characters shown of a line of a list file.
const MAX_SHOWN: usize = 120;
const MAX_WORKERS: u16 = 256;
const MAX_ZONES: usize = 65_536;
const MAX_ZONE_NAMES: u32 = 100_000_000;
const MIN_REFRESH: Duration = Duration::from_secs(1);
const MAX_BATCH: u16 = 64;
const MAX_COALESCE: Duration = Duration::from_millis(1);
const BLOCK_LIFETIME: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(86_400);
const MAX_BLOCKS: u32 = 100_000;
const KEEP_FOR: Duration = Duration::from_secs(3600);
const MAX_INCIDENTS: u32 = 10_000;
const MIN_RECEIVE_BUFFER: u64 = 64 << 10;
const MAX_RECEIVE_BUFFER: u64 = 1 << 30;

/// Builds a configuration.
pub(super) fn build(
    loaded: Loaded,
    source: &dyn Source,
    surroundings: Surroundings<'_>,
) -> Result<Configuration, Problems> {
    let Loaded { file, places } = loaded;
    let mut checks = Checks {
        places: &places,
        source,
        problems: Vec::new(),
    };
    let startup = checks.startup(&file, surroundings);
    let tcp = checks.tcp(&file.tcp);
    let response = checks.response(&file);
    let mut kernel = checks.kernel(&file, &startup);
    let (sets, lists) = checks.lists(&file);
    let blocklists = checks.blocklists(&file);
    let filter = checks.filter(&file);
    let limits = checks.built(file.blocklist.build());
    let forwarding = checks.forwarding(&file, surroundings);
    checks.loops(&file, &startup);
    let routes = checks.routes(&file);
    let (zones, zone_settings) = checks.zones(&file, surroundings);
    let scoring = checks.scoring(&file, &startup, &sets, surroundings);
    let response_limit = checks.response_limit(&file, &sets);
    let cookies = checks.cookies(&file, surroundings);
    let notify = checks.notify(&file.notify);
    let announcing = checks.announcing(&file, &startup);
    if let (Some(scoring), Some(response_limit)) = (&scoring, &response_limit) {
        checks.exempt(&file, &mut kernel, scoring, response_limit);
    }
    let problems = checks.problems;
    match (filter, limits, forwarding, scoring, response_limit) {
        (Some(filter), Some(limits), Some(forwarding), Some(mut scoring), Some(response_limit))
            if problems.is_empty() =>
        {
            let zones = Arc::new(zones);
            scoring.set_zones(Arc::clone(&zones));
            scoring.set_response(
                &file.response.alert.for_scoring(),
                &file.response.attack.for_scoring(),
            );
            if let Some((_, running)) = surroundings.running {
                scoring.carry_over(&running.scoring);
            }
            Ok(Configuration {
                startup: Startup {
                    blocklist: limits,
                    ..startup
                },
                reloadable: Reloadable {
                    generation: next_generation(),
                    filter,
                    scoring,
                    forwarding: Arc::new(forwarding),
                    routes,
                    response_limit,
                    cookies,
                    announcing: Arc::new(announcing),
                    zones,
                    zone_settings,
                    tcp,
                    notify: Arc::new(notify),
                    response,
                    kernel,
                    never_block: file.blocklist.never_block().collect(),
                },
                file,
                blocklists,
                lists,
            })
        }
        _ => Err(Problems::in_order(problems)),
    }
}

pub(super) struct Checks<'a> {
    pub(super) places: &'a Places,
    pub(super) source: &'a dyn Source,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    /// A problem with a setting's value.
    pub(super) fn wrong(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem::new(self.places.place(path), path, message)
    }

    pub(super) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// `found` must be a whole number from `least` to `most`.
    fn whole<N: Copy + PartialOrd + Display>(&mut self, path: &str, found: N, least: N, most: N) {
        if !(least..=most).contains(&found) {
            let problem = self
                .impossible(path, found)
                .with_expected(format!("a whole number from {least} to {most}"));
            self.report(problem);
        }
    }

    /// `found` must be a number from 0 to 1.
    fn share(&mut self, path: &str, found: f32) {
        if !(0.0..=1.0).contains(&found) {
            let problem = self
                .impossible(path, found)
                .with_expected("a number from 0 to 1");
            self.report(problem);
        }
    }

    /// What is written there must be a domain name.
    fn domain_name(&mut self, path: &str, found: &str) -> Option<Name> {
        match Name::from_text(found) {
            Ok(name) => Some(name),
            Err(error) => {
                let problem = self
                    .wrong(path, format!("`{found}` is not a domain name: {error}"))
                    .with_expected("a name such as example.com");
                self.report(problem);
                None
            }
        }
    }

    /// A setting cannot have this value.
    fn impossible(&self, path: &str, found: impl Display) -> Problem {
        let key = path.rsplit('.').next().unwrap_or(path);
        self.wrong(path, format!("`{key}` cannot be {found}"))
    }

    /// A builder's complaint.
    fn told(&mut self, path: &str, message: &str) {
        let key = path
            .rsplit(['.', '['])
            .find(|part| !part.ends_with(']'))
            .unwrap_or(path);
        let problem = in_words(
            self.places.place(path),
            path.to_owned(),
            &format!("`{key}`"),
            message,
        );
        // Some complaints end in the path of the other setting that is concerned.
        let other = message.rsplit(' ').next().unwrap_or_default();
        let problem = match other.contains('.') && other.ends_with(']') {
            true => problem.with_related(self.places.place(other), "here"),
            false => problem,
        };
        self.report(problem);
    }

    fn startup(&mut self, file: &File, surroundings: Surroundings<'_>) -> Startup {
        if let Some(workers) = file.workers
            && !(1..=MAX_WORKERS).contains(&workers)
        {
            let problem = self
                .wrong("workers", format!("`workers` cannot be {workers}"))
                .with_expected(format!("a whole number from 1 to {MAX_WORKERS}"))
                .with_help("leave it out for one worker on each core");
            self.report(problem);
        }
        let listeners = self.listeners(file);
        let routes = self.route_socket(file);
        let control = self.control(file);
        let metrics = file.metrics.as_ref().map(|metrics| metrics.address.0);
        if metrics.is_some() && metrics == control.http.as_ref().map(|http| http.address) {
            let problem = self
                .wrong(
                    "metrics.address",
                    "`metrics` and `control.http` have the same address",
                )
                .with_related(
                    self.places.place("control.http.address"),
                    "it is used here as well",
                )
                .with_help("give one of them another port");
            self.report(problem);
        }
        Startup {
            workers: file.workers.map_or(surroundings.cores, usize::from),
            listeners,
            udp: self.udp(&file.udp),
            control,
            routes,
            metrics,
            dnstap: self.dnstap(file),
            blocklist: Limits::default(),
            state_folder: PathBuf::from(&file.state.folder),
            log: Log {
                format: file.log.format,
                level: file.log.level,
            },
        }
    }

    fn listeners(&mut self, file: &File) -> Vec<Listener> {
        if file.listen.is_empty() {
            let problem = Problem::new(
                self.places.key_place("listen"),
                "listen",
                "no address to listen on",
            )
            .with_expected("at least one item in `listen`")
            .with_help("add `listen: [{ address: \"0.0.0.0:53\" }]`");
            self.report(problem);
        }
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let mut taken: BTreeMap<(SocketAddr, bool), String> = BTreeMap::new();
        let mut listeners = Vec::new();
        for (index, listen) in file.listen.iter().enumerate() {
            let path = format!("listen[{index}]");
            let addresses: Vec<SocketAddr> = listen.address.0.iter().map(|it| it.0).collect();
            let udp = listen.transports.contains(&file::ListenTransport::Udp);
            let tcp = listen.transports.contains(&file::ListenTransport::Tcp);
            if addresses.is_empty() {
                let problem = self
                    .wrong(&format!("{path}.address"), "the list of addresses is empty")
                    .with_expected("at least one address");
                self.report(problem);
            }
            if !udp && !tcp {
                let problem = self
                    .wrong(
                        &format!("{path}.transports"),
                        "the list of transports is empty",
                    )
                    .with_expected("`udp`, `tcp` or both")
                    .with_help("leave it out for both");
                self.report(problem);
            }
            for (number, address) in addresses.iter().enumerate() {
                let at = match addresses.len() {
                    1 => format!("{path}.address"),
                    _ => format!("{path}.address[{number}]"),
                };
                self.listen_address(*address, &at, (udp, tcp), &mut taken);
            }
            if let Some(name) = &listen.name {
                self.listener_name(name, index, &mut names);
            }
            let size = listen.receive_buffer.0;
            if !(MIN_RECEIVE_BUFFER..=MAX_RECEIVE_BUFFER).contains(&size) {
                let problem = self
                    .wrong(
                        &format!("{path}.receive-buffer"),
                        format!("`receive-buffer` cannot be {}", listen.receive_buffer),
                    )
                    .with_expected("a size from 64KiB to 1GiB");
                self.report(problem);
            }
            listeners.push(Listener {
                name: listen.name.clone().unwrap_or_else(|| {
                    addresses
                        .first()
                        .map_or_else(String::new, ToString::to_string)
                }),
                addresses,
                udp,
                tcp,
                receive_buffer: usize::try_from(size).unwrap_or(usize::MAX),
            });
        }
        listeners
    }

    fn listen_address(
        &mut self,
        address: SocketAddr,
        path: &str,
        (udp, tcp): (bool, bool),
        taken: &mut BTreeMap<(SocketAddr, bool), String>,
    ) {
        if address.port() == 0 {
            let problem = self
                .wrong(path, format!("`{address}` has port 0"))
                .with_expected("a port from 1 to 65535")
                .with_help("DNS uses port 53");
            self.report(problem);
        }
        if address.ip().is_multicast() {
            let problem = self
                .wrong(path, format!("`{address}` is a multicast address"))
                .with_expected("an address of this machine");
            self.report(problem);
        }
        let mut first = None;
        for (stream, used) in [(false, udp), (true, tcp)] {
            if used && let Some(path) = taken.insert((address, stream), path.to_owned()) {
                first = Some(path);
            }
        }
        if let Some(first) = first {
            let problem = self
                .wrong(path, format!("`{address}` is listened on twice"))
                .with_related(self.places.place(&first), "it stands here first")
                .with_help("remove one of the two");
            self.report(problem);
        }
    }

    fn listener_name<'n>(
        &mut self,
        name: &'n str,
        index: usize,
        names: &mut BTreeMap<&'n str, usize>,
    ) {
        let path = format!("listen[{index}].name");
        if name.trim().is_empty() {
            let problem = self
                .wrong(&path, "the listener's name is empty")
                .with_help("leave it out to use the address");
            self.report(problem);
        }
        if let Some(first) = names.insert(name, index) {
            names.insert(name, first);
            let problem = self
                .wrong(&path, format!("there are two listeners named `{name}`"))
                .with_related(
                    self.places.place(&format!("listen[{first}].name")),
                    "it is defined here first",
                )
                .with_help("give one of them another name");
            self.report(problem);
        }
    }

    fn udp(&mut self, udp: &file::Udp) -> Udp {
        let coalesce = udp.coalesce.0.map(|period| period.0);
        if let Some(period) = coalesce.filter(|it| *it > MAX_COALESCE) {
            let problem = self
                .wrong(
                    "udp.coalesce",
                    format!("`coalesce` cannot be {}", Period(period)),
                )
                .with_expected("at most 1ms, or `off`")
                .with_help("every query waits this long");
            self.report(problem);
        }
        self.whole("udp.batch", udp.batch, 1, MAX_BATCH);
        Udp {
            coalesce: coalesce.filter(|period| !period.is_zero()),
            batch: usize::from(udp.batch),
        }
    }

    fn control(&mut self, file: &File) -> Control {
        let control = &file.control;
        if !Path::new(&control.socket).is_absolute() {
            let problem = self
                .wrong(
                    "control.socket",
                    format!("`{}` is a relative path", control.socket),
                )
                .with_expected("an absolute path such as /run/dnscrub/control.sock")
                .with_help("the commands must find the socket from every folder");
            self.report(problem);
        }
        let http = control.http.as_ref().map(|http| ControlHttp {
            address: http.address.0,
            token: http.token_file.as_ref().map(|name| self.token(name)),
        });
        if let Some(http) = &http
            && http.token.is_none()
            && !http.address.ip().is_loopback()
        {
            let problem = self
                .wrong(
                    "control.http.address",
                    format!("`{}` is not on loopback, and there is no `token-file`", http.address),
                )
                .with_expected("an address on loopback such as 127.0.0.1:9354, or a `token-file`")
                .with_help("make a token with `openssl rand -hex 32`: whoever reaches the address could look otherwise");
            self.report(problem);
        }
        Control {
            socket: PathBuf::from(&control.socket),
            socket_mode: control.socket_mode.0,
            http,
        }
    }

    fn dnstap(&mut self, file: &File) -> Option<dnstap::Settings> {
        let places = self.places;
        let resolve = |setting: &str, path: &Path| {
            places.resolve(&format!("dnstap.{setting}"), path.as_os_str())
        };
        match file.dnstap.as_ref()?.build(resolve) {
            Ok(settings) => Some(settings),
            Err(wrong) => {
                for it in wrong {
                    let path = match it.setting {
                        "" => "dnstap".to_owned(),
                        setting => format!("dnstap.{setting}"),
                    };
                    let problem = self.wrong(&path, it.found).with_expected(it.expected);
                    self.report(problem);
                }
                None
            }
        }
    }

    fn token(&mut self, name: &str) -> String {
        const SETTING: &str = "control.http.token-file";
        let path = self.places.resolve(SETTING, name.as_ref());
        let octets = match self.source.read(&path, MAX_TOKEN_FILE) {
            Ok(octets) => octets,
            Err(error) => {
                let place = self.places.place(SETTING);
                let problem = unreadable(place, SETTING, "the token file", &path, &error);
                self.report(problem);
                return String::new();
            }
        };
        let text = String::from_utf8_lossy(&octets);
        let token = text.lines().next().unwrap_or_default().trim();
        let usable =
            token.len() >= MIN_TOKEN && token.bytes().all(|octet| octet.is_ascii_graphic());
        if !usable {
            let problem = self
                .wrong(
                    SETTING,
                    format!("the first line of `{}` is no usable token", path.display()),
                )
                .with_expected(format!(
                    "at least {MIN_TOKEN} printable ASCII characters without blanks"
                ))
                .with_help("make one with `openssl rand -hex 32`");
            self.report(problem);
        }
        token.to_owned()
    }

    fn tcp(&mut self, tcp: &file::Tcp) -> Tcp {
        for (key, count) in [
            ("max-connections", tcp.max_connections),
            ("max-connections-per-prefix", tcp.max_connections_per_prefix),
            ("max-queries-in-flight", tcp.max_queries_in_flight.into()),
        ] {
            if count == 0 {
                let problem = self
                    .wrong(&format!("tcp.{key}"), format!("`{key}` cannot be 0"))
                    .with_expected("a whole number, 1 or more")
                    .with_help("to serve no TCP, leave `tcp` out of `transports` in `listen`");
                self.report(problem);
            }
        }
        let transfers = &tcp.transfers;
        for (path, period) in [
            ("idle-timeout", tcp.idle_timeout),
            ("connection-lifetime", tcp.connection_lifetime),
            ("receive-timeout", tcp.receive_timeout),
            ("write-timeout", tcp.write_timeout),
            ("transfers.time-limit", transfers.time_limit),
            ("transfers.idle-limit", transfers.idle_limit),
        ] {
            if period.0.is_zero() {
                let key = path.rsplit('.').next().unwrap_or(path);
                let problem = self
                    .wrong(&format!("tcp.{path}"), format!("`{key}` cannot be nothing"))
                    .with_expected("a duration longer than nothing");
                self.report(problem);
            }
        }
        Tcp {
            max_connections: count(tcp.max_connections),
            max_connections_per_prefix: count(tcp.max_connections_per_prefix),
            idle_timeout: tcp.idle_timeout.0,
            connection_lifetime: tcp.connection_lifetime.0,
            receive_timeout: tcp.receive_timeout.0,
            write_timeout: tcp.write_timeout.0,
            max_queries_in_flight: usize::from(tcp.max_queries_in_flight),
            transfers: Transfers {
                max_concurrent: usize::from(transfers.max_concurrent),
                time_limit: transfers.time_limit.0,
                idle_limit: transfers.idle_limit.0,
            },
        }
    }

    fn routes(&mut self, file: &File) -> Routes {
        let pools: Vec<&str> = file.pools.keys().map(String::as_str).collect();
        let index = |name: &str| pools.iter().position(|pool| *pool == name);
        let default = index(DEFAULT_POOL).unwrap_or_default();
        let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let mut routes = Vec::new();
        for (number, zone) in file.zones.iter().enumerate() {
            let path = format!("zones[{number}].name");
            let Some(name) = self.domain_name(&path, &zone.name) else {
                continue;
            };
            if let Some(first) = seen.insert(name.as_wire().to_vec(), number) {
                let problem = self
                    .wrong(&path, format!("there are two zones named `{name}`"))
                    .with_related(
                        self.places.place(&format!("zones[{first}].name")),
                        "it is defined here first",
                    )
                    .with_help("merge the two");
                self.report(problem);
            }
            let Some(pool) = &zone.pool else {
                routes.push((name, default));
                continue;
            };
            match index(pool) {
                Some(pool) => routes.push((name, pool)),
                None => {
                    let path = format!("zones[{number}].pool");
                    let problem = self
                        .wrong(&path, format!("there is no pool named `{pool}`"))
                        .with_nearest(pool, pools.iter().copied());
                    let problem = match (pools.as_slice(), &problem.suggestion) {
                        ([], _) | (_, Some(_)) => problem,
                        (pools, None) => {
                            problem.with_expected(format!("one of: {}", pools.join(", ")))
                        }
                    };
                    self.report(problem);
                }
            }
        }
        Routes::new(default, routes)
    }

    /// What is known of the zones, or will be. A zone whose settings are as they were keeps what is
    /// known of it.
    fn zones(&mut self, file: &File, surroundings: Surroundings<'_>) -> (Zones, Vec<ZoneSettings>) {
        if file.zones.len() > MAX_ZONES {
            let problem = self
                .wrong("zones", format!("there are {} zones", file.zones.len()))
                .with_expected(format!("at most {MAX_ZONES}"));
            self.report(problem);
        }
        let running = surroundings.running.map(|(_, running)| running);
        let mut zones = Vec::new();
        let mut all_settings = Vec::new();
        for (number, zone) in file.zones.iter().enumerate() {
            // that the name is wrong has been said already
            let Ok(name) = Name::from_text(&zone.name) else {
                continue;
            };
            let settings = self.zone_settings(number, &zone.names);
            let known = running.and_then(|running| {
                let (place, known) = running.zones.find(&name)?;
                let before = running.zone_settings.get(usize::from(place));
                (*known.name() == name && before == Some(&settings)).then(|| Arc::clone(known))
            });
            zones.push(known.unwrap_or_else(|| {
                let hasher = ahash::RandomState::new();
                Arc::new(Zone::new(name, settings.limits, hasher, surroundings.now))
            }));
            all_settings.push(settings);
        }
        (Zones::new(zones, ahash::RandomState::new()), all_settings)
    }

    fn zone_settings(&mut self, number: usize, names: &file::Names) -> ZoneSettings {
        let file::Names::From(source) = names else {
            return ZoneSettings {
                source: ZoneSource::Learned,
                limits: dnscrub_zones::Limits::default(),
            };
        };
        let path = format!("zones[{number}].names");
        self.whole(
            &format!("{path}.max-names"),
            source.max_names,
            1,
            MAX_ZONE_NAMES,
        );
        let limits = dnscrub_zones::Limits {
            names: source.max_names,
            proof_octets: usize::try_from(source.proof_memory.0).unwrap_or(usize::MAX),
            ..dnscrub_zones::Limits::default()
        };
        let from = match (&source.axfr, &source.file) {
            (Some(server), None) if server.0.ip().is_unspecified() || server.0.port() == 0 => {
                let problem = self
                    .wrong(
                        &format!("{path}.axfr"),
                        format!("nothing can be transferred from `{server}`"),
                    )
                    .with_expected("the address of a name server");
                self.report(problem);
                ZoneSource::Learned
            }
            (Some(server), None) => ZoneSource::Transfer(Box::new(TransferSource {
                server: server.0,
                tsig: source.tsig.as_ref().and_then(|tsig| self.tsig(&path, tsig)),
                refresh: source.refresh.map(|period| self.refresh(&path, period)),
            })),
            (None, Some(name)) => {
                for (key, written) in [
                    ("tsig", source.tsig.is_some()),
                    ("refresh", source.refresh.is_some()),
                ] {
                    if written {
                        let problem = self
                            .wrong(
                                &format!("{path}.{key}"),
                                format!("`{key}` says nothing about a file"),
                            )
                            .with_help(
                                "remove it; it is for `axfr` only, and a zone file is looked at \
                                 every second",
                            );
                        self.report(problem);
                    }
                }
                self.zone_file(&format!("{path}.file"), name)
            }
            (axfr, _) => {
                let message = match axfr {
                    Some(_) => "`axfr` and `file` are both there",
                    None => "neither `axfr` nor `file` is there",
                };
                let problem = self
                    .wrong(&path, message)
                    .with_expected("one of the two, or `names: learned`");
                self.report(problem);
                ZoneSource::Learned
            }
        };
        ZoneSettings {
            source: from,
            limits,
        }
    }

    fn refresh(&mut self, path: &str, period: Period) -> Duration {
        if period.0 < MIN_REFRESH {
            let problem = self
                .wrong(
                    &format!("{path}.refresh"),
                    format!("`refresh` cannot be {period}"),
                )
                .with_expected("1s or more")
                .with_help("a NOTIFY message from the name server is faster and costs less");
            self.report(problem);
        }
        period.0
    }

    /// That the file is there; it is read when the program runs.
    fn zone_file(&mut self, setting: &str, name: &Path) -> ZoneSource {
        let path = self.places.resolve(setting, name.as_os_str());
        match self.source.read(&path, 0) {
            Err(error) if error.kind() != io::ErrorKind::FileTooLarge => {
                let place = self.places.place(setting);
                let problem = unreadable(place, setting, "the zone file", &path, &error);
                self.report(problem);
            }
            _ => {}
        }
        ZoneSource::File(path)
    }

    fn tsig(&mut self, path: &str, tsig: &file::Tsig) -> Option<Tsig> {
        let name = match Name::from_text(&tsig.name) {
            Ok(name) => name,
            Err(error) => {
                let problem = self
                    .wrong(
                        &format!("{path}.tsig.name"),
                        format!("`{}` is not a key name: {error}", tsig.name),
                    )
                    .with_expected("the name that the name server has for the key");
                self.report(problem);
                return None;
            }
        };
        let setting = format!("{path}.tsig.secret-file");
        let file = self.places.resolve(&setting, tsig.secret_file.as_os_str());
        let octets = match self.source.read(&file, MAX_TOKEN_FILE) {
            Ok(octets) => octets,
            Err(error) => {
                let place = self.places.place(&setting);
                let problem = unreadable(place, &setting, "the secret file", &file, &error);
                self.report(problem);
                return None;
            }
        };
        let text = String::from_utf8_lossy(&octets);
        let secret = text.lines().next().unwrap_or_default().trim();
        let algorithm = match tsig.algorithm {
            file::TsigAlgorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            file::TsigAlgorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            file::TsigAlgorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        match Tsig::new(name, algorithm, secret) {
            Ok(tsig) => Some(tsig),
            Err(_) => {
                let problem = self
                    .wrong(
                        &setting,
                        format!("the first line of `{}` is no secret", file.display()),
                    )
                    .with_expected("Base64, and nothing else")
                    .with_help("`tsig-keygen NAME` prints one after `secret`");
                self.report(problem);
                None
            }
        }
    }

    fn forwarding(
        &mut self,
        file: &File,
        surroundings: Surroundings<'_>,
    ) -> Option<dnscrub_forwarding::Policy> {
        let running = surroundings
            .running
            .map(|(_, running)| &*running.forwarding);
        let keys = std::array::from_fn(|_| rand::random());
        self.default_pool(file);
        match dnscrub_forwarding::Policy::build(&file.pools, running, keys, surroundings.now) {
            Ok(policy) => Some(policy),
            Err(errors) => {
                // That the default pool is missing has been said already.
                for error in errors
                    .iter()
                    .filter(|error| error.path != "pools" || file.pools.contains_key(DEFAULT_POOL))
                {
                    self.told(&error.path, &error.message);
                }
                None
            }
        }
    }

    /// An upstream that is a listener would send every query round for ever.
    fn loops(&mut self, file: &File, startup: &Startup) {
        let listening: Vec<SocketAddr> = startup
            .listeners
            .iter()
            .flat_map(|listener| listener.addresses.iter().copied())
            .collect();
        for (name, pool) in &file.pools {
            for (index, upstream) in pool.upstreams.iter().enumerate() {
                let address = upstream.address.0;
                let same = listening.iter().any(|it| {
                    *it == address
                        || (it.ip().is_unspecified()
                            && it.port() == address.port()
                            && address.ip().is_loopback())
                });
                if same {
                    let path = format!("pools.{name}.upstreams[{index}].address");
                    let problem = self
                        .wrong(&path, format!("the upstream `{address}` is dnscrub itself"))
                        .with_help(
                            "a query would go round for ever: let the name server listen on another address or port",
                        );
                    self.report(problem);
                }
            }
        }
    }

    fn default_pool(&mut self, file: &File) {
        if file.pools.contains_key(DEFAULT_POOL) {
            return;
        }
        let mut names = file.pools.keys();
        let problem = match (names.next(), names.next()) {
            (None, _) => Problem::new(self.places.key_place("pools"), "pools", "no pool of name servers")
                .with_expected(format!("a pool named `{DEFAULT_POOL}`"))
                .with_help(format!(
                    "add `pools: {{ {DEFAULT_POOL}: {{ upstreams: [ {{ address: \"192.0.2.10:53\" }} ] }} }}`"
                )),
            (Some(only), None) => Problem::new(
                self.places.key_place(&format!("pools.{only}")),
                "pools",
                format!("there is no pool named `{DEFAULT_POOL}`"),
            )
            .with_help(format!("name this one `{DEFAULT_POOL}`")),
            _ => Problem::new(
                self.places.key_place("pools"),
                "pools",
                format!("there is no pool named `{DEFAULT_POOL}`"),
            )
            .with_help(format!(
                "name one of them `{DEFAULT_POOL}`: it takes the queries that no zone and no rule sends elsewhere"
            )),
        };
        self.report(problem);
    }

    fn filter(&mut self, file: &File) -> Option<PacketFilter> {
        let acl = self.built(file.acl.build());
        let opcodes = self.built(file.opcodes.build());
        let sanity = self.built(file.sanity.build());
        let (malformed, classes) = sanity?;
        Some(
            PacketFilter::new(acl?, opcodes?)
                .with_sanity(malformed)
                .with_classes(classes),
        )
    }

    fn built<T>(
        &mut self,
        built: Result<T, Vec<dnscrub_packet_filter::config::ConfigError>>,
    ) -> Option<T> {
        match built {
            Ok(built) => Some(built),
            Err(errors) => {
                for error in errors {
                    self.told(&error.path, &error.message);
                }
                None
            }
        }
    }

    /// The named lists, with the files that they name.
    fn lists(&mut self, file: &File) -> (BTreeMap<String, List>, Vec<ListSize>) {
        let mut sets = BTreeMap::new();
        let mut sizes = Vec::new();
        for (name, list) in &file.lists {
            let named = [
                ("prefix-file", &list.prefix_file),
                ("name-file", &list.name_file),
            ];
            let named = named
                .into_iter()
                .find_map(|(key, file)| Some((key, file.as_deref()?)));
            let mut read = None;
            if let Some((key, file)) = named {
                let setting = format!("lists.{name}.{key}");
                let path = self.places.resolve(&setting, file.as_ref());
                let Some(text) = self.list_file(&setting, "the list file", &path) else {
                    continue;
                };
                read = Some((path, text));
            }
            let text = read.as_ref().map(|(_, text)| String::from_utf8_lossy(text));
            match List::build(list, text.as_deref()) {
                Ok(set) => {
                    sizes.push(ListSize {
                        name: name.clone(),
                        kind: set.kind(),
                        file: read.map(|(path, _)| path),
                        entries: match &set {
                            List::Prefixes(set) => set.len(),
                            List::Names(set) => set.len(),
                        },
                    });
                    sets.insert(name.clone(), set);
                }
                Err(error) => {
                    let setting = format!("lists.{name}");
                    let wrong = list
                        .names
                        .iter()
                        .position(|it| Name::from_text(it).is_err());
                    let what = format!("an entry of list `{name}`");
                    match (read.filter(|_| error.line > 0), wrong) {
                        (Some((path, text)), _) => {
                            let place = line_of(&path, &text, error.line);
                            self.report(in_words(place, setting, &what, &error.message));
                        }
                        (None, Some(index)) => {
                            let setting = format!("{setting}.names[{index}]");
                            let place = self.places.place(&setting);
                            self.report(in_words(place, setting, &what, &error.message));
                        }
                        (None, None) => self.told(&setting, &error.message),
                    }
                }
            }
        }
        (sets, sizes)
    }

    fn scoring(
        &mut self,
        file: &File,
        startup: &Startup,
        lists: &BTreeMap<String, List>,
        surroundings: Surroundings<'_>,
    ) -> Option<dnscrub_scoring::Policy> {
        let pools: Vec<String> = file.pools.keys().cloned().collect();
        // A listener keeps its number while the program runs; new ones wait for a restart.
        let running = surroundings.running.map(|(startup, _)| startup);
        let mut listeners: Vec<String> = Vec::new();
        for listener in running
            .iter()
            .flat_map(|it| &it.listeners)
            .chain(&startup.listeners)
        {
            if !listeners.contains(&listener.name) {
                listeners.push(listener.name.clone());
            }
        }
        let names = Names {
            pools: &pools,
            listeners: &listeners,
            lists,
        };
        let workers = running.map_or(startup.workers, |it| it.workers);
        let built = dnscrub_scoring::Policy::build(
            &file.scrubbing,
            &file.signals,
            &file.rules,
            &names,
            workers,
        );
        let twice = self.rule_names(file);
        match built {
            Ok(policy) => Some(policy),
            Err(errors) => {
                for error in errors.iter().filter(|error| !twice.contains(&error.path)) {
                    self.told(&error.path, &error.message);
                }
                None
            }
        }
    }

    /// Tells the rules that have another one's name, with both places, and returns their paths.
    fn rule_names(&mut self, file: &File) -> Vec<String> {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let mut twice = Vec::new();
        for (index, rule) in file.rules.iter().enumerate() {
            let Some(&first) = names.get(rule.name.as_str()) else {
                names.insert(&rule.name, index);
                continue;
            };
            let path = format!("rules[{index}].name");
            let problem = self
                .wrong(&path, format!("there are two rules named `{}`", rule.name))
                .with_related(
                    self.places.place(&format!("rules[{first}].name")),
                    "it is defined here first",
                )
                .with_help("give one of them another name");
            self.report(problem);
            twice.push(path);
        }
        twice
    }

    fn response_limit(
        &mut self,
        file: &File,
        lists: &BTreeMap<String, List>,
    ) -> Option<ResponseLimit> {
        let observe = file.scrubbing.mode == Mode::Observe;
        match ResponseLimit::build(&file.response_limit, lists, observe) {
            Ok(limit) => Some(limit),
            Err(errors) => {
                for error in errors {
                    self.told(&error.path, &error.message);
                }
                None
            }
        }
    }

    /// What is done about incidents.
    fn response(&mut self, file: &File) -> Settings {
        let response = &file.response;
        self.share("response.raise-from", response.raise_from);
        for (level, at) in [("alert", &response.alert), ("attack", &response.attack)] {
            let path = format!("response.{level}.pressure-floor");
            self.share(&path, at.pressure_floor);
        }
        let blocks = &response.blocks;
        if !BLOCK_LIFETIME.contains(&blocks.lifetime.0) {
            let problem = self
                .impossible("response.blocks.for", blocks.lifetime)
                .with_expected("a duration from 10s to 1d")
                .with_help("a block is renewed as long as its source goes on");
            self.report(problem);
        }
        self.whole("response.blocks.at-most", blocks.at_most, 1, MAX_BLOCKS);
        if blocks.least_rate == 0 {
            let problem = self
                .impossible("response.blocks.least-rate", 0)
                .with_expected("queries a second, at least 1")
                .with_help("at 0 every source would be blocked");
            self.report(problem);
        }
        if !(1.0..=1e6).contains(&blocks.factor) {
            let problem = self
                .impossible("response.blocks.factor", blocks.factor)
                .with_expected("a number from 1");
            self.report(problem);
        }
        let incidents = &file.incidents;
        if incidents.keep_for.0 < KEEP_FOR {
            let problem = self
                .impossible("incidents.keep-for", incidents.keep_for)
                .with_expected("a duration of at least 1h");
            self.report(problem);
        }
        self.whole(
            "incidents.keep-at-most",
            incidents.keep_at_most,
            1,
            MAX_INCIDENTS,
        );
        Settings {
            raise_to: match response.raise_to {
                file::RaiseTo::Off => None,
                file::RaiseTo::Alert => Some(Level::Alert),
                file::RaiseTo::Attack => Some(Level::Attack),
            },
            raise_from: response.raise_from,
            blocks: BlockSettings {
                on: blocks.mode != file::BlockMode::Off,
                observe: blocks.mode == file::BlockMode::Observe
                    || file.scrubbing.mode == Mode::Observe,
                kinds: blocks.kinds.iter().map(|&kind| kind.into()).collect(),
                lifetime: blocks.lifetime.0,
                at_most: blocks.at_most as usize,
                least_rate: blocks.least_rate as f32,
                factor: blocks.factor,
            },
            keep_for: incidents.keep_for.0,
            keep_at_most: incidents.keep_at_most as usize,
        }
    }

    /// The secrets of the file, or else those of this process.
    fn cookies(&mut self, file: &File, surroundings: Surroundings<'_>) -> Cookies {
        const SETTING: &str = "cookies.secrets-file";
        let Some(name) = &file.cookies.secrets_file else {
            let running = surroundings.running.map(|(_, running)| &running.cookies);
            return running
                .filter(|cookies| !cookies.are_shared())
                .map_or_else(|| Cookies::own(rand::random()), Clone::clone);
        };
        let path = self.places.resolve(SETTING, name.as_ref());
        let octets = match self.source.read(&path, MAX_SECRETS_FILE) {
            Ok(octets) => octets,
            Err(error) => {
                let place = self.places.place(SETTING);
                let problem = unreadable(
                    place,
                    SETTING,
                    "the file with cookie secrets",
                    &path,
                    &error,
                );
                self.report(problem);
                return Cookies::shared(&[]);
            }
        };
        let mut secrets = Vec::new();
        let text = String::from_utf8_lossy(&octets);
        for (index, line) in text.lines().enumerate() {
            let line = line.split(['#', ';']).next().unwrap_or_default().trim();
            match secret(line) {
                _ if line.is_empty() => {}
                Some(secret) => secrets.push(secret),
                // what stands there may be a secret all the same, so it is not shown
                None => {
                    let problem = self
                        .wrong(
                            SETTING,
                            format!("line {} of `{}` is no secret", index + 1, path.display()),
                        )
                        .with_expected("32 hexadecimal digits, one secret a line")
                        .with_help("make one with `openssl rand -hex 16`");
                    self.report(problem);
                    return Cookies::shared(&[]);
                }
            }
        }
        if !(1..=MAX_SECRETS).contains(&secrets.len()) {
            let found = secrets.len();
            let problem = self
                .wrong(
                    SETTING,
                    format!("`{}` holds {found} secrets", path.display()),
                )
                .with_expected(format!("1 to {MAX_SECRETS}, the one in use first"));
            self.report(problem);
        }
        Cookies::shared(&secrets)
    }

    fn blocklists(&mut self, file: &File) -> Vec<BlocklistFile> {
        let mut lists = Vec::new();
        for (index, name) in file.blocklist.files.iter().enumerate() {
            let setting = format!("blocklist.files[{index}]");
            let path = self.places.resolve(&setting, name.as_os_str());
            let Some(text) = self.list_file(&setting, "the blocklist file", &path) else {
                continue;
            };
            let shortest = file.blocklist.shortest_prefix;
            let entries = self.count_prefixes(&path, &text, (shortest.v4, shortest.v6));
            if entries > file.blocklist.max_static {
                // Said once for the first file that is too large by itself; the store counts the sum.
                let limit = file.blocklist.max_static;
                let problem = self
                    .wrong(
                        &setting,
                        format!("the blocklist file has {entries} entries"),
                    )
                    .with_expected(format!("at most {limit} in all files together"))
                    .with_help("raise `blocklist.max-static`");
                self.report(problem);
            }
            lists.push(BlocklistFile {
                path,
                text,
                entries,
            });
        }
        lists
    }

    fn list_file(&mut self, setting: &str, what: &str, path: &Path) -> Option<Vec<u8>> {
        match self.source.read(path, MAX_LIST) {
            Ok(text) => Some(text),
            Err(error) => {
                let problem = unreadable(self.places.place(setting), setting, what, path, &error);
                self.report(problem);
                None
            }
        }
    }

    /// How many prefixes a blocklist file holds; tells the first lines that hold none, or one that is too short.
    fn count_prefixes(&mut self, path: &Path, text: &[u8], shortest: (u8, u8)) -> usize {
        let mut prefixes = 0;
        let mut wrong = 0;
        for line in list_lines(text) {
            match line.and_then(|line| line.not_too_wide(shortest)) {
                Ok(_) => prefixes += 1,
                Err(ListError::Line {
                    line,
                    found,
                    expected,
                }) if wrong < MAX_LINES => {
                    wrong += 1;
                    let place = line_of(path, text, line);
                    self.report(
                        Problem::new(place, "", format!("`{found}` cannot be blocked"))
                            .with_expected(expected),
                    );
                }
                Err(_) => wrong += 1,
            }
        }
        if wrong > MAX_LINES
            && let Some(last) = self.problems.last_mut()
        {
            let more = wrong - MAX_LINES;
            last.help = Some(format!("{more} more lines of this file are wrong"));
        }
        prefixes
    }
}

/// The first word of a line of a list file, which need not be UTF-8.
fn line_of(path: &Path, text: &[u8], line: usize) -> Place {
    let written = text
        .split(|octet| *octet == b'\n')
        .nth(line.saturating_sub(1))
        .unwrap_or_default();
    let source: String = String::from_utf8_lossy(written)
        .trim_end()
        .chars()
        .take(MAX_SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let blank = |c: &char| c.is_whitespace();
    let column = source.chars().take_while(blank).count() + 1;
    let width = source
        .trim_start()
        .chars()
        .take_while(|c| !blank(c))
        .count();
    Place {
        file: path.display().to_string(),
        line,
        column,
        width: width.max(1),
        source,
    }
}

/// A secret out of its hexadecimal digits.
fn secret(text: &str) -> Option<[u8; SECRET_LEN]> {
    if text.len() != 2 * SECRET_LEN || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
