//! `kernel`, and what the levels limit there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dnscrub_scoring::config::{Mode as Scrubbing, Rate};
use dnscrub_scoring::response_limit::ResponseLimit;
use dnscrub_xdp::{Limit, MOST_EXEMPT, MOST_SERVICES, MOST_STEPS, Mode, Pace};
use ipnet::IpNet;

use super::Checks;
use crate::config::file::{File, KernelLimit, KernelMode};
use crate::config::runtime::Startup;
use crate::kernel::{LevelLimit, Settings};

/// Octets of an interface's name that the kernel takes (`IFNAMSIZ`, with the zero at its end).
const LONGEST_NAME: usize = 15;
const MOST_INTERFACES: usize = 64;
const MOST_TIMES: f32 = 1e6;

impl Checks<'_> {
    /// All but who is exempt.
    pub(super) fn kernel(&mut self, file: &File, startup: &Startup) -> Settings {
        let mut settings = Settings {
            observe: file.scrubbing.mode == Scrubbing::Observe,
            ..Settings::default()
        };
        if let Some(kernel) = &file.kernel {
            settings.interfaces.clone_from(&kernel.interface.0);
            settings.modes = match kernel.mode {
                KernelMode::Auto => vec![Mode::Driver, Mode::Generic],
                KernelMode::Driver => vec![Mode::Driver],
                KernelMode::Generic => vec![Mode::Generic],
            };
            self.interfaces(&kernel.interface.0);
            let udp = startup.listeners.iter().filter(|listener| listener.udp);
            let services: usize = udp.map(|listener| listener.addresses.len()).sum();
            if services > MOST_SERVICES {
                let problem = self
                    .wrong(
                        "kernel",
                        format!("there are {services} addresses in `listen`"),
                    )
                    .with_expected(format!("at most {MOST_SERVICES} with `kernel`"))
                    .with_help("listen on 0.0.0.0 and [::], or leave `kernel` out");
                self.report(problem);
            }
        }
        let response = &file.response;
        for (level, limit, at) in [
            ("alert", &response.alert.kernel_limit, &mut settings.alert),
            (
                "attack",
                &response.attack.kernel_limit,
                &mut settings.attack,
            ),
        ] {
            let Some(limit) = limit else { continue };
            let path = format!("response.{level}.kernel-limit");
            if file.kernel.is_none() {
                let problem = self
                    .wrong(&path, "there is a limit for the kernel, and no `kernel`")
                    .with_expected("the interface that queries come in on")
                    .with_help("add `kernel: { interface: eth0 }`; `ip link` shows the names");
                self.report(problem);
            }
            *at = self.kernel_limit(&path, limit);
        }
        settings
    }

    fn interfaces(&mut self, names: &[String]) {
        const PATH: &str = "kernel.interface";
        if names.is_empty() || names.len() > MOST_INTERFACES {
            let problem = self
                .wrong(PATH, format!("found {} interfaces", names.len()))
                .with_expected(format!("from 1 to {MOST_INTERFACES}"))
                .with_help("leave `kernel` out to limit nothing in the kernel");
            self.report(problem);
        }
        let mut seen = BTreeSet::new();
        for (number, name) in names.iter().enumerate() {
            let path = match names.len() {
                1 => PATH.to_owned(),
                _ => format!("{PATH}[{number}]"),
            };
            let usable = (1..=LONGEST_NAME).contains(&name.len())
                && name
                    .bytes()
                    .all(|octet| octet.is_ascii_graphic() && octet != b'/' && octet != b':');
            if !usable {
                let found = name.escape_debug();
                let problem = self
                    .wrong(&path, format!("`{found}` is no name of an interface"))
                    .with_expected(format!("up to {LONGEST_NAME} characters, such as eth0"))
                    .with_help("`ip link` shows the names");
                self.report(problem);
            } else if !seen.insert(name) {
                let problem = self
                    .wrong(&path, format!("`{name}` stands there twice"))
                    .with_help("remove one of the two");
                self.report(problem);
            }
        }
    }

    fn kernel_limit(&mut self, path: &str, written: &KernelLimit) -> Option<LevelLimit> {
        if !(1.0..=MOST_TIMES).contains(&written.factor) {
            let problem = self
                .impossible(&format!("{path}.factor"), written.factor)
                .with_expected("a number from 1");
            self.report(problem);
        }
        let limit = Limit {
            v4: self.steps(&format!("{path}.v4"), written, &written.v4, 32),
            v6: self.steps(&format!("{path}.v6"), written, &written.v6, 128),
        };
        if limit.v4.is_empty() && limit.v6.is_empty() {
            let problem = self
                .wrong(path, "it has no rate")
                .with_expected("rates by prefix length, such as `v4: { 32: 200/s, 24: 2000/s }`")
                .with_help("leave `kernel-limit` out for no limit");
            self.report(problem);
        }
        let families = [("IPv4", &written.v4), ("IPv6", &written.v6)];
        let words = families
            .into_iter()
            .filter_map(|(family, rates)| in_words(family, rates));
        Some(LevelLimit {
            limit,
            factor: f64::from(written.factor),
            words: words.collect::<Vec<_>>().join(", "),
        })
    }

    /// The longest prefix first.
    fn steps(
        &mut self,
        path: &str,
        written: &KernelLimit,
        rates: &BTreeMap<u8, Rate>,
        longest: u8,
    ) -> Vec<(u8, Pace)> {
        let mut steps = Vec::new();
        for (&length, &rate) in rates.iter().rev() {
            if length > longest {
                let problem = self
                    .wrong(
                        &format!("{path}.{length}"),
                        format!("there is no prefix of length {length}"),
                    )
                    .with_expected(format!("a length from 0 to {longest}"));
                self.report(problem);
            }
            if let Rate::Limit { events, per } = rate {
                steps.push((length, Pace::new(events, per, written.burst.0)));
            }
        }
        if steps.len() > MOST_STEPS {
            let problem = self
                .wrong(
                    path,
                    format!("there are rates for {} prefix lengths", steps.len()),
                )
                .with_expected(format!("at most {MOST_STEPS}"));
            self.report(problem);
        }
        steps
    }

    /// Adds who is exempt: everybody whom somebody vouches for.
    pub(super) fn exempt(
        &mut self,
        file: &File,
        settings: &mut Settings,
        scoring: &dnscrub_scoring::Policy,
        response_limit: &ResponseLimit,
    ) {
        if !settings.has_limits() {
            return;
        }
        let never_blocked = file.blocklist.never_block();
        let trusted = scoring.trusted_prefixes();
        let all = never_blocked
            .chain(trusted)
            .chain(response_limit.exempt_prefixes());
        let exempt: BTreeSet<IpNet> = all.map(|prefix| prefix.trunc()).collect();
        let v6 = exempt
            .iter()
            .filter(|it| matches!(it, IpNet::V6(_)))
            .count();
        for (family, found) in [("IPv4", exempt.len() - v6), ("IPv6", v6)] {
            if found > MOST_EXEMPT {
                let problem = self
                    .wrong(
                        "kernel",
                        format!("found {found} {family} prefixes that somebody vouches for"),
                    )
                    .with_expected(format!("at most {MOST_EXEMPT} of a family"))
                    .with_help(
                        "they come from `blocklist.never-block`, `response-limit.exempt`, lists with a credit in \
                         `signals.reputation` and rules with `do: allow`; a limit in the kernel would cut who does not fit",
                    );
                self.report(problem);
            }
        }
        settings.exempt = Arc::new(exempt);
    }
}

/// `200/s from a /32 and 2000/s from a /24 of IPv4`.
fn in_words(family: &str, rates: &BTreeMap<u8, Rate>) -> Option<String> {
    let limited = rates.iter().rev().filter(|(_, rate)| **rate != Rate::Off);
    let limits: Vec<String> = limited
        .map(|(length, rate)| format!("{rate} from a /{length}"))
        .collect();
    (!limits.is_empty()).then(|| format!("{} of {family}", limits.join(" and ")))
}
