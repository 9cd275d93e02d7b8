//! What a configuration means, in words: the answer of `dnscrub check` to a good one.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use dnscrub_forwarding::config::{Balancing, DEFAULT_POOL, HealthSetting, Pool, WhenNone};
use dnscrub_scoring::config::{BandAction, Challenge, Mode};
use dnscrub_scoring::response_limit::{SlipAs, Switch};
use serde::Serialize;
use serde_json::Value;

use super::{
    file::{BlockMode, File, Names, RaiseTo, Response, routes::RouteMode},
    runtime::Configuration,
    value::Period,
    words,
};
use crate::notify::settings::{Destination, Filter, Target};

/// What a configuration means.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Worker threads.
    pub workers: usize,
    /// Where queries are taken.
    pub listeners: Vec<Listener>,
    /// The pools, in the order of their names.
    pub pools: Vec<PoolSummary>,
    /// Which zone goes to which pool.
    pub zones: Vec<Zone>,
    /// Who is served, in words.
    pub acl: String,
    /// Whether anything is enforced.
    pub observe: bool,
    /// The signals, in the order in which they give points.
    pub signals: Vec<Signal>,
    /// What points lead to, mildest first.
    pub bands: Vec<Band>,
    /// How many alike answers a network gets, and whether cookies are shared, in words.
    pub response_limit: String,
    /// What is done about incidents, and what levels switch on, in words.
    pub response: String,
    /// The rules, in the order in which they are tried.
    pub rules: Vec<RuleSummary>,
    /// The named lists.
    pub lists: Vec<List>,
    /// The files of the blocklist.
    pub blocklists: Vec<Blocklist>,
    /// What may be announced to the routers in front, in words.
    pub routes: String,
    /// Who is told of incidents, in words.
    pub told: Vec<String>,
    /// Where metrics are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Which copies of queries go where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dnstap: Option<String>,
    /// The socket of the control API.
    pub control: String,
    /// Where the status page is, and who may see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_page: Option<String>,
    /// What works but is probably not meant, or will surprise.
    pub warnings: Vec<String>,
}

/// Addresses that are treated alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// "udp", "tcp".
    pub transports: Vec<&'static str>,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolSummary {
    /// Its name.
    pub name: String,
    /// How an upstream is chosen, in words.
    pub balancing: &'static str,
    /// Active checks, in words.
    pub health: String,
    /// What happens to a query without an answer, in words.
    pub retries: String,
    /// The name servers.
    pub upstreams: Vec<UpstreamSummary>,
}

/// A name server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamSummary {
    /// Its name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address.
    pub address: String,
    /// Its share.
    pub weight: u32,
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// The pool its queries go to.
    pub pool: String,
    /// Where its names come from, in words.
    pub names: String,
}

/// A signal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// Whether it is only counted.
    pub observe: bool,
    /// Its settings, with the defaults.
    pub settings: Value,
}

/// A band.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Band {
    /// What is done.
    pub action: &'static str,
    /// From so many points at rest.
    pub at: u16,
    /// From so many points under full pressure.
    pub under_pressure: u16,
    /// Whether it is only counted.
    pub observe: bool,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleSummary {
    /// Its name.
    pub name: String,
    /// What it does, in words.
    pub meaning: String,
    /// Whether it is only counted.
    pub observe: bool,
}

/// A named list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct List {
    /// Its name.
    pub name: String,
    /// "prefixes" or "names".
    pub kind: &'static str,
    /// How many.
    pub entries: usize,
    /// The file it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether anything refers to it.
    pub used: bool,
}

/// A file of the blocklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocklist {
    /// The file.
    pub file: String,
    /// Prefixes in it.
    pub entries: usize,
}

impl Summary {
    /// Says what a configuration means.
    #[must_use]
    pub fn of(configuration: &Configuration) -> Self {
        let file = &configuration.file;
        let startup = &configuration.startup;
        let lists: Vec<List> = lists(configuration);
        Self {
            workers: startup.workers,
            listeners: startup
                .listeners
                .iter()
                .map(|listener| Listener {
                    name: listener.name.clone(),
                    addresses: listener.addresses.iter().map(ToString::to_string).collect(),
                    transports: [("udp", listener.udp), ("tcp", listener.tcp)]
                        .into_iter()
                        .filter_map(|(name, used)| used.then_some(name))
                        .collect(),
                })
                .collect(),
            pools: file.pools.iter().map(|(name, it)| pool(name, it)).collect(),
            zones: file
                .zones
                .iter()
                .map(|zone| Zone {
                    name: zone.name.clone(),
                    pool: zone.pool.clone().unwrap_or_else(|| DEFAULT_POOL.to_owned()),
                    names: names(&zone.names),
                })
                .collect(),
            acl: acl(file),
            observe: file.scrubbing.mode == Mode::Observe,
            signals: signals(file),
            bands: file
                .scrubbing
                .bands
                .iter()
                .map(|band| Band {
                    action: match band.action {
                        BandAction::Truncate => "truncate",
                        BandAction::Refuse => "refuse",
                        BandAction::Nxdomain => "nxdomain",
                        BandAction::Drop => "drop",
                    },
                    at: band.at,
                    under_pressure: band.under_pressure,
                    observe: band.observe,
                })
                .collect(),
            response: response(&file.response),
            rules: file
                .rules
                .iter()
                .map(|rule| RuleSummary {
                    name: rule.name.clone(),
                    meaning: words::rule(rule),
                    observe: rule.observe,
                })
                .collect(),
            response_limit: response_limit(file),
            blocklists: configuration
                .blocklists
                .iter()
                .map(|list| Blocklist {
                    file: list.path.display().to_string(),
                    entries: list.entries,
                })
                .collect(),
            routes: routes(configuration),
            told: configuration
                .reloadable
                .notify
                .destinations
                .iter()
                .map(told)
                .collect(),
            metrics: startup.metrics.map(|address| address.to_string()),
            dnstap: startup.dnstap.as_ref().map(ToString::to_string),
            control: startup.control.socket.display().to_string(),
            status_page: startup.control.http.as_ref().map(|http| {
                let who = match http.token {
                    Some(_) => "with the token",
                    None => "for everybody on this machine; nothing can be changed there",
                };
                format!("http://{}/, {who}", http.address)
            }),
            warnings: warnings(configuration, &lists),
            lists,
        }
    }
}

fn routes(configuration: &Configuration) -> String {
    let settings = &configuration.reloadable.announcing;
    let mode = match settings.mode {
        RouteMode::Off => return "off".to_owned(),
        RouteMode::DryRun => "dry-run, nothing is announced",
        RouteMode::Confirm => "announced once they are approved",
        RouteMode::Announce => "announced",
    };
    let kinds = [
        (settings.flowspec.is_some(), "FlowSpec rules"),
        (settings.blackhole.is_some(), "blackholes"),
        (settings.anycast.is_some(), "the anycast route"),
    ];
    let kinds: Vec<&str> = kinds
        .into_iter()
        .filter_map(|(there, kind)| there.then_some(kind))
        .collect();
    if kinds.is_empty() {
        return format!("{mode}, but none is configured");
    }
    format!("{mode}: {}", kinds.join(", "))
}

fn pool(name: &str, pool: &Pool) -> PoolSummary {
    let balancing = match pool.policy {
        Balancing::LeastOutstanding => "the one with the fewest unanswered queries",
        Balancing::WeightedRandom => "by lot, by weight",
        Balancing::RoundRobin => "in turn, by weight",
        Balancing::ConsistentHash => "by the name asked for",
        Balancing::Ordered => "the first that can be used",
    };
    let health = match &pool.health {
        HealthSetting::Off => "not checked".to_owned(),
        HealthSetting::On(health) => {
            let query = health
                .query
                .as_ref()
                .map_or_else(|| ". SOA".to_owned(), ToString::to_string);
            format!(
                "asked for {query} every {}; down after {} failures, up after {} answers",
                Period(health.interval),
                health.fall,
                health.rise
            )
        }
    };
    let end = match pool.when_none {
        WhenNone::Servfail => "SERVFAIL",
        WhenNone::Silence => "silence",
    };
    let patience = Period(pool.patience);
    let retries = match pool.retries {
        0 => format!("no second try; {end} after {patience}"),
        1 => format!(
            "a second try after {}; {end} after {patience}",
            Period(pool.retry_after)
        ),
        tries => format!(
            "up to {tries} more tries, every {}; {end} after {patience}",
            Period(pool.retry_after)
        ),
    };
    PoolSummary {
        name: name.to_owned(),
        balancing,
        health,
        retries,
        upstreams: pool
            .upstreams
            .iter()
            .map(|upstream| UpstreamSummary {
                name: upstream.name.clone(),
                address: upstream.address.to_string(),
                weight: upstream.weight,
            })
            .collect(),
    }
}

fn names(names: &Names) -> String {
    let Names::From(source) = names else {
        return "learned from answers".to_owned();
    };
    match (&source.axfr, &source.file) {
        (Some(server), _) => {
            let signed = source
                .tsig
                .as_ref()
                .map_or_else(String::new, |tsig| format!(", TSIG key `{}`", tsig.name));
            format!("transferred from {server}{signed}")
        }
        (None, file) => {
            let file = file.as_deref().unwrap_or(Path::new(""));
            format!("from the file {}", file.display())
        }
    }
}

fn acl(file: &File) -> String {
    let (allow, deny) = (&file.acl.allow, &file.acl.deny);
    let prefixes = |list: &[_]| count(list.len(), "prefix", "prefixes");
    match (allow.as_slice(), deny.as_slice()) {
        ([], []) => "every source is served".to_owned(),
        ([], deny) => format!("every source is served but {}", prefixes(deny)),
        (allow, []) => format!("only {} are served", prefixes(allow)),
        (allow, deny) => format!(
            "only {} are served, and of these not {}",
            prefixes(allow),
            prefixes(deny)
        ),
    }
}

fn response_limit(file: &File) -> String {
    let limit = &file.response_limit;
    let mode = match limit.mode {
        Switch::Off => return "off".to_owned(),
        Switch::Enforce if file.scrubbing.mode == Mode::Enforce => "enforced",
        Switch::Enforce | Switch::Observe => "observed only",
    };
    let slip = match (limit.slip, limit.slip_as, &file.cookies.secrets_file) {
        (0, ..) => "none slipped".to_owned(),
        (slip, SlipAs::Truncate, _) | (slip, SlipAs::Auto, None) => {
            format!("1 in {slip} slipped as TC=1")
        }
        (slip, ..) => format!("1 in {slip} slipped as BADCOOKIE or TC=1"),
    };
    let exempt = limit.exempt.len() + limit.exempt_lists.len();
    format!(
        "{mode}; to a /{} or /{}: answers {}, no-data {}, nxdomain {}, referrals {}, errors {}, all {}; {slip}; {} exempt",
        limit.v4_prefix,
        limit.v6_prefix,
        limit.answers,
        limit.no_data,
        limit.nxdomain,
        limit.referrals,
        limit.errors,
        limit.all,
        count(exempt, "prefix or list", "prefixes or lists"),
    )
}

fn signals(file: &File) -> Vec<Signal> {
    let settings = serde_json::to_value(&file.signals).unwrap_or_default();
    let settings = settings.as_object().cloned().unwrap_or_default();
    settings
        .into_iter()
        .map(|(name, settings)| Signal {
            name,
            observe: settings["mode"] == "observe",
            settings,
        })
        .collect()
}

fn lists(configuration: &Configuration) -> Vec<List> {
    let file = &configuration.file;
    let mut used: Vec<String> = Vec::new();
    for rule in &file.rules {
        used.extend(words::lists(&rule.when).into_iter().map(str::to_owned));
    }
    used.extend(file.response_limit.exempt_lists.iter().cloned());
    for signal in signals(file) {
        let named = signal.settings["lists"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        used.extend(named.into_iter().map(|(name, _)| name));
    }
    configuration
        .lists
        .iter()
        .map(|list| List {
            name: list.name.clone(),
            kind: list.kind,
            entries: list.entries,
            file: list.file.as_ref().map(|path| path.display().to_string()),
            used: used.contains(&list.name),
        })
        .collect()
}

fn response(response: &Response) -> String {
    let raises = match response.raise_to {
        RaiseTo::Off => "they raise no level".to_owned(),
        to @ (RaiseTo::Alert | RaiseTo::Attack) => {
            let level = if to == RaiseTo::Alert {
                "alert"
            } else {
                "attack"
            };
            let sure = response.raise_from;
            format!("attacks that are {sure} sure raise their zones to level {level}")
        }
    };
    let mut said = vec![raises];
    for (level, at) in [("alert", &response.alert), ("attack", &response.attack)] {
        match at.challenge {
            Challenge::Off => {}
            Challenge::New => said.push(format!("at {level} new sources are challenged")),
            Challenge::Unverified => {
                said.push(format!(
                    "at {level} all sources without proof are challenged"
                ));
            }
        }
        if at.pressure_floor > 0.0 {
            let floor = at.pressure_floor;
            said.push(format!(
                "at {level} the pressure counts as at least {floor}"
            ));
        }
        if at.kernel_limit.is_some() {
            said.push(format!("at {level} the kernel limits packets"));
        }
    }
    let blocks = &response.blocks;
    said.push(match blocks.mode {
        BlockMode::Off => "no automatic blocks".to_owned(),
        BlockMode::Observe => "automatic blocks observed only".to_owned(),
        BlockMode::Enforce => format!(
            "automatic blocks for {}, at most {}",
            blocks.lifetime, blocks.at_most
        ),
    });
    said.join("; ")
}

fn warnings(configuration: &Configuration, lists: &[List]) -> Vec<String> {
    let file = &configuration.file;
    let mut warnings = vec![HIDDEN_CLIENTS.to_owned()];
    if file.scrubbing.mode == Mode::Observe {
        warnings.push(
            "`scrubbing.mode` is `observe`: what signals, rules and bands decide is counted, and \
             nothing of it is done"
                .to_owned(),
        );
    }
    if file.response_limit.mode == Switch::Observe {
        warnings.push(
            "`response-limit` is in observe mode: a flood of queries with forged sources is \
             reflected in full"
                .to_owned(),
        );
    }
    if file.scrubbing.bands.is_empty() {
        warnings.push("there are no bands: points lead to nothing".to_owned());
    }
    for signal in signals(file).iter().filter(|signal| signal.observe) {
        warnings.push(format!(
            "the signal `{}` is in observe mode: its points count for nothing",
            signal.name
        ));
    }
    for (name, pool) in &file.pools {
        if pool.upstreams.len() == 1 {
            warnings.push(format!(
                "the pool `{name}` has one upstream: nothing takes over when it fails"
            ));
        }
        if pool.health == HealthSetting::Off {
            warnings.push(format!(
                "the pool `{name}` has no health check: a dead upstream is found out by lost queries alone"
            ));
        }
        let routed = file
            .zones
            .iter()
            .any(|zone| zone.pool.as_ref() == Some(name))
            || file
                .rules
                .iter()
                .any(|rule| rule.act.pool.as_ref() == Some(name));
        if name != DEFAULT_POOL && !routed {
            warnings.push(format!(
                "no zone and no rule sends queries to the pool `{name}`"
            ));
        }
    }
    for listener in &configuration.startup.listeners {
        if !listener.tcp {
            warnings.push(format!(
                "the listener `{}` takes no TCP: who gets a truncated answer there has no second way",
                listener.name
            ));
        }
    }
    let announcing = &configuration.reloadable.announcing;
    if announcing.mode != RouteMode::Off && announcing.limits.destinations.is_empty() {
        warnings.push("`routes.limits.destinations` is empty: every route is refused".to_owned());
    }
    let kernel = &configuration.reloadable.kernel;
    if !kernel.interfaces.is_empty() && !kernel.has_limits() {
        warnings.push(
            "`kernel` has nothing to do: no level has a `kernel-limit` (see `response`)".to_owned(),
        );
    }
    if kernel.alert.is_some() && kernel.attack.is_none() {
        warnings.push(
            "the level `alert` has a `kernel-limit` and `attack` has none: nothing is limited in the kernel when it gets worse"
                .to_owned(),
        );
    }
    rule_warnings(file, &mut warnings);
    for list in lists.iter().filter(|list| !list.used) {
        warnings.push(format!("nothing refers to the list `{}`", list.name));
    }
    for list in lists.iter().filter(|list| list.entries == 0) {
        warnings.push(format!("the list `{}` is empty", list.name));
    }
    for list in configuration
        .blocklists
        .iter()
        .filter(|list| list.entries == 0)
    {
        warnings.push(format!(
            "the blocklist file `{}` is empty",
            list.path.display()
        ));
    }
    let http = configuration
        .startup
        .control
        .http
        .as_ref()
        .map(|http| http.address.ip());
    if http.is_some_and(|address: IpAddr| !address.is_loopback()) {
        warnings.push(
            "`control.http` is not on loopback: the token crosses the network in clear text"
                .to_owned(),
        );
    }
    for webhook in &file.notify.webhooks {
        if webhook.secret_files.is_empty() && webhook.secret_env.is_empty() {
            warnings.push(format!(
                "the webhook `{}` has no secret: its receiver cannot tell who sends",
                webhook.name
            ));
        }
    }
    warnings
}

/// Who is told, of what, how.
fn told(destination: &Destination) -> String {
    let how = match &destination.target {
        Target::Webhook(webhook) => format!("a request to {}", webhook.url),
        Target::Alertmanager(alertmanager) => {
            let urls: Vec<_> = alertmanager.urls.iter().map(ToString::to_string).collect();
            let steps = alertmanager
                .escalate
                .iter()
                .map(|after| Period(*after).to_string());
            let steps: Vec<_> = steps.collect();
            let escalates = match steps.is_empty() {
                true => String::new(),
                false => format!(", further ones after {}", steps.join(", ")),
            };
            format!("an alert at {}{escalates}", urls.join(", "))
        }
        Target::Command(command) => format!("{} is run", command.program.display()),
    };
    let of = match destination.only == Filter::default() {
        true => "all incidents",
        false => "chosen incidents",
    };
    format!("{}: {of}, {how}", destination.name)
}

/// What no configuration can change: upstreams take the proxy for the client.
const HIDDEN_CLIENTS: &str = "the upstreams see dnscrub's address instead of the clients': switch their own rate \
     limits off for it (NSD: `rrl-ratelimit: 0` and `rrl-whitelist-ratelimit: 0`; BIND: `rate-limit { exempt-clients \
     { … }; }`), and expect that their access lists (transfers too), views and logs cannot tell clients apart";

fn rule_warnings(file: &File, warnings: &mut Vec<String>) {
    for (index, rule) in file.rules.iter().enumerate() {
        if rule.observe {
            warnings.push(format!(
                "the rule `{}` is in observe mode: it does nothing",
                rule.name
            ));
        }
        let mut earlier = file.rules.iter().take(index);
        let first = earlier.find(|it| {
            words::decides_everything(it) || (words::decides(it) && it.when == rule.when)
        });
        if let Some(first) = first {
            warnings.push(format!(
                "the rule `{}` is never reached: `{}` before it decides every query it could match",
                rule.name, first.name
            ));
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on", count(self.workers, "worker", "workers"))?;
        for listener in &self.listeners {
            let addresses = listener.addresses.join(", ");
            write!(f, "  {addresses} ({})", listener.transports.join(", "))?;
            if Some(&listener.name) != listener.addresses.first() {
                write!(f, "  `{}`", listener.name)?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\nPools")?;
        for pool in &self.pools {
            self.write_pool(f, pool)?;
        }
        if !self.zones.is_empty() {
            writeln!(f, "\nZones")?;
        }
        for zone in &self.zones {
            writeln!(f, "  {}: names {}", zone.name, zone.names)?;
        }
        writeln!(f, "\nSources: {}", self.acl)?;
        let blocked: usize = self.blocklists.iter().map(|list| list.entries).sum();
        let files = count(self.blocklists.len(), "file", "files");
        writeln!(
            f,
            "Blocklist: {} from {files}",
            count(blocked, "prefix", "prefixes")
        )?;
        for list in &self.blocklists {
            writeln!(f, "  {} in {}", list.entries, list.file)?;
        }
        if !self.lists.is_empty() {
            writeln!(f, "Lists")?;
        }
        for list in &self.lists {
            write!(f, "  `{}`: {} {}", list.name, list.entries, list.kind)?;
            match &list.file {
                Some(file) => writeln!(f, ", with those of {file}")?,
                None => writeln!(f)?,
            }
        }
        self.write_scrubbing(f)?;
        writeln!(f, "\nIncidents: {}", self.response)?;
        if !self.told.is_empty() {
            writeln!(f, "\nTold of incidents:")?;
            for told in &self.told {
                writeln!(f, "  {told}")?;
            }
        }
        writeln!(f, "\nRoutes: {}", self.routes)?;
        writeln!(f, "Control socket: {}", self.control)?;
        if let Some(page) = &self.status_page {
            writeln!(f, "Status page: {page}")?;
        }
        match &self.metrics {
            Some(address) => writeln!(f, "Metrics: http://{address}/metrics")?,
            None => writeln!(f, "Metrics: off")?,
        }
        if let Some(dnstap) = &self.dnstap {
            writeln!(f, "dnstap: {dnstap}")?;
        }
        writeln!(f, "\n{}", count(self.warnings.len(), "warning", "warnings"))?;
        for warning in &self.warnings {
            writeln!(f, "  - {warning}")?;
        }
        Ok(())
    }
}

impl Summary {
    fn write_pool(&self, f: &mut fmt::Formatter<'_>, pool: &PoolSummary) -> fmt::Result {
        writeln!(f, "  `{}`: {}", pool.name, pool.balancing)?;
        for upstream in &pool.upstreams {
            write!(f, "    {}", upstream.address)?;
            if let Some(name) = &upstream.name {
                write!(f, " `{name}`")?;
            }
            match upstream.weight {
                1 => writeln!(f)?,
                weight => writeln!(f, ", weight {weight}")?,
            }
        }
        writeln!(f, "    {}", pool.health)?;
        writeln!(f, "    {}", pool.retries)?;
        let zones: Vec<&str> = self
            .zones
            .iter()
            .filter(|zone| zone.pool == pool.name)
            .map(|zone| zone.name.as_str())
            .collect();
        if !zones.is_empty() {
            writeln!(f, "    serves {}", zones.join(", "))?;
        }
        if pool.name == DEFAULT_POOL {
            writeln!(f, "    serves all that nothing sends elsewhere")?;
        }
        Ok(())
    }

    fn write_scrubbing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.observe {
            "observed only"
        } else {
            "enforced"
        };
        writeln!(f, "\nScrubbing, {mode}")?;
        for signal in &self.signals {
            let observed = observed(signal.observe);
            writeln!(
                f,
                "  signal `{}`{observed}: {}",
                signal.name,
                settings(&signal.settings)
            )?;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let observed = observed(rule.observe);
            writeln!(
                f,
                "  rule {} `{}`{observed}: {}",
                index + 1,
                rule.name,
                rule.meaning
            )?;
        }
        for band in &self.bands {
            writeln!(
                f,
                "  from {} points at rest, {} under full pressure{}: {}",
                band.at,
                band.under_pressure,
                observed(band.observe),
                band.action
            )?;
        }
        writeln!(f, "  response limit: {}", self.response_limit)
    }
}

const fn observed(observe: bool) -> &'static str {
    if observe { " (observed only)" } else { "" }
}

/// A signal's settings in one line, without its mode.
fn settings(settings: &Value) -> String {
    let settings = settings.as_object().cloned().unwrap_or_default();
    let parts: Vec<String> = settings
        .iter()
        .filter(|(key, value)| *key != "mode" && !value.is_null())
        .map(|(key, value)| format!("{key} {}", super::reference::plain(value)))
        .collect();
    parts.join(", ")
}

fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        0 => format!("no {many}"),
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}
