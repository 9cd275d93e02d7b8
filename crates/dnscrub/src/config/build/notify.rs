//! `notify`, checked and built.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::file::{self, Period};
use super::super::load::unreadable;
use super::Checks;
use crate::notify::settings::{
    Access, Address, Alertmanager, Command, Destination, Filter, Secret, Settings, Target, Url,
    Webhook,
};

/// More destinations than this are no help in an incident.
const MAX_DESTINATIONS: usize = 32;
/// Alertmanagers of a group.
const MAX_URLS: usize = 8;
/// Secrets of a webhook: more than a change from one to the next needs.
const MAX_SECRETS: usize = 4;
/// Further alerts of an incident.
const MAX_ESCALATIONS: usize = 8;
/// Runs of a command at a time.
const MAX_AT_A_TIME: u8 = 16;
/// A shorter secret could be guessed.
const MIN_SECRET: usize = 16;
/// A file with a secret holds a line.
const MAX_SECRET_FILE: u64 = 64 << 10;
/// A file with certificates.
const MAX_CA_FILE: u64 = 4 << 20;

impl Checks<'_> {
    /// Who is told of incidents.
    pub(super) fn notify(&mut self, notify: &file::Notify) -> Settings {
        let instance = match &notify.instance {
            Some(name) => name.clone(),
            None => match dnscrub_net::process::host_name() {
                name if name.is_empty() => "dnscrub".to_owned(),
                name => name,
            },
        };
        if instance.trim().is_empty() {
            let problem = self
                .wrong("notify.instance", "the name is empty")
                .with_help("leave it out to use the machine's name");
            self.report(problem);
        }
        let mut destinations = Vec::new();
        let mut names = BTreeMap::new();
        for (index, webhook) in notify.webhooks.iter().enumerate() {
            let path = format!("notify.webhooks[{index}]");
            self.destination_name(&path, &webhook.name, &mut names);
            destinations.extend(self.webhook(&path, webhook));
        }
        for (index, alertmanager) in notify.alertmanagers.iter().enumerate() {
            let path = format!("notify.alertmanagers[{index}]");
            self.destination_name(&path, &alertmanager.name, &mut names);
            destinations.push(self.alertmanager(&path, alertmanager));
        }
        for (index, command) in notify.commands.iter().enumerate() {
            let path = format!("notify.commands[{index}]");
            self.destination_name(&path, &command.name, &mut names);
            destinations.extend(self.command(&path, command));
        }
        if names.len() > MAX_DESTINATIONS {
            let message = format!("there are {} destinations", names.len());
            let problem = self
                .wrong("notify", message)
                .with_expected(format!("at most {MAX_DESTINATIONS}"))
                .with_help("let an Alertmanager fan out to so many");
            self.report(problem);
        }
        Settings {
            instance,
            playbook: self.address("notify.playbook", notify.playbook.as_deref()),
            dashboard: self.address("notify.dashboard", notify.dashboard.as_deref()),
            destinations,
        }
    }

    fn destination_name<'n>(
        &mut self,
        path: &str,
        name: &'n str,
        names: &mut BTreeMap<&'n str, String>,
    ) {
        let path = format!("{path}.name");
        let known = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
        if name.is_empty() || !name.chars().all(known) {
            let problem = self
                .wrong(&path, format!("`{name}` cannot be a name"))
                .with_expected("letters, digits, `-`, `_` and `.`");
            self.report(problem);
        }
        if let Some(first) = names.get(name) {
            let problem = self
                .wrong(&path, format!("there are two destinations named `{name}`"))
                .with_related(self.places.place(first), "it is defined here first")
                .with_help("give one of them another name");
            self.report(problem);
        } else {
            names.insert(name, path);
        }
    }

    fn address(&mut self, path: &str, text: Option<&str>) -> Option<Address> {
        match Address::parse(text?) {
            Ok(address) => Some(address),
            Err(gap) => {
                let problem = self
                    .wrong(path, format!("nothing can be put in for `{{{gap}}}`"))
                    .with_expected("`{kind}`, `{zone}`, `{incident}` or `{instance}`");
                self.report(problem);
                None
            }
        }
    }

    fn webhook(&mut self, path: &str, webhook: &file::NotifyWebhook) -> Option<Destination> {
        let mut secrets = Vec::new();
        for (index, name) in webhook.secret_files.iter().enumerate() {
            let setting = format!("{path}.secret-files[{index}]");
            secrets.extend(self.secret_file(&setting, name));
        }
        for (index, name) in webhook.secret_env.iter().enumerate() {
            let setting = format!("{path}.secret-env[{index}]");
            match std::env::var(name) {
                Ok(value) => secrets.extend(self.usable_secret(&setting, &value)),
                Err(_) => {
                    let problem = self
                        .wrong(&setting, format!("there is no variable `{name}`"))
                        .with_expected("the name of a variable in the environment of dnscrub")
                        .with_help(
                            "with systemd: `EnvironmentFile=` in the unit; or use `secret-files`",
                        );
                    self.report(problem);
                }
            }
        }
        if secrets.len() > MAX_SECRETS {
            let problem = self
                .wrong(path, format!("there are {} secrets", secrets.len()))
                .with_expected(format!("at most {MAX_SECRETS}"));
            self.report(problem);
        }
        let access = self.access(path, webhook.token_file.as_ref(), webhook.ca_file.as_ref());
        let limits = self.limits(path, webhook.time_limit, webhook.give_up_after);
        let url = self.url(&format!("{path}.url"), &webhook.url)?;
        Some(Destination {
            name: webhook.name.clone(),
            only: self.only(path, &webhook.only),
            give_up_after: limits.1,
            time_limit: limits.0,
            target: Target::Webhook(Webhook {
                url,
                secrets,
                access,
            }),
        })
    }

    fn alertmanager(&mut self, path: &str, written: &file::NotifyAlertmanager) -> Destination {
        let mut urls = Vec::new();
        for (index, text) in written.urls.iter().enumerate() {
            let setting = format!("{path}.urls[{index}]");
            let Some(url) = self.url(&setting, text) else {
                continue;
            };
            if text.trim_end_matches('/').ends_with("/api/v2") || text.ends_with("/alerts") {
                let problem = self
                    .wrong(&setting, "the path of the API is added by itself")
                    .with_expected("where the Alertmanager is, such as http://127.0.0.1:9093");
                self.report(problem);
            }
            if urls.contains(&url) {
                let problem = self.wrong(&setting, "this Alertmanager is there twice");
                self.report(problem);
            }
            urls.push(url);
        }
        if written.urls.is_empty() || written.urls.len() > MAX_URLS {
            let message = format!("there are {} Alertmanagers", written.urls.len());
            let problem = self
                .wrong(&format!("{path}.urls"), message)
                .with_expected(format!("1 to {MAX_URLS}"));
            self.report(problem);
        }
        let steps: Vec<_> = written.escalate.iter().map(|it| it.0).collect();
        let ascend = steps.is_sorted_by(|one, other| one < other);
        if !ascend || steps.first().is_some_and(|it| it.is_zero()) || steps.len() > MAX_ESCALATIONS
        {
            let problem = self
                .wrong(&format!("{path}.escalate"), "these times do not ascend")
                .with_expected(format!(
                    "at most {MAX_ESCALATIONS} times since an incident was opened, such as [ 5m, 15m ]"
                ));
            self.report(problem);
        }
        if written.resend.0.as_secs() < 1 {
            let problem = self
                .impossible(&format!("{path}.resend"), written.resend)
                .with_expected("1s or more");
            self.report(problem);
        }
        if !written.only.events.is_empty() {
            let problem = self
                .wrong(&format!("{path}.only.events"), "an alert is no event")
                .with_help("remove it: an alert is there as long as its incident is open");
            self.report(problem);
        }
        let access = self.access(path, written.token_file.as_ref(), written.ca_file.as_ref());
        let limits = self.limits(path, written.time_limit, written.give_up_after);
        Destination {
            name: written.name.clone(),
            only: self.only(path, &written.only),
            give_up_after: limits.1,
            time_limit: limits.0,
            target: Target::Alertmanager(Alertmanager {
                urls,
                resend: written.resend.0,
                escalate: steps,
                access,
            }),
        }
    }

    fn command(&mut self, path: &str, written: &file::NotifyCommand) -> Option<Destination> {
        let limits = self.limits(path, written.time_limit, written.give_up_after);
        self.whole(
            &format!("{path}.at-a-time"),
            written.at_a_time,
            1,
            MAX_AT_A_TIME,
        );
        let program = written.run.first().map(PathBuf::from);
        let Some(program) = program.filter(|it| it.is_absolute()) else {
            let problem = self
                .wrong(&format!("{path}.run"), "there is no program to run")
                .with_expected("an absolute path, then the arguments")
                .with_help("for a line of shell: [ /bin/sh, \"-c\", \"…\" ]");
            self.report(problem);
            return None;
        };
        Some(Destination {
            name: written.name.clone(),
            only: self.only(path, &written.only),
            give_up_after: limits.1,
            time_limit: limits.0,
            target: Target::Command(Command {
                program,
                arguments: written.run.iter().skip(1).cloned().collect(),
                retry: written.retry,
                at_a_time: usize::from(written.at_a_time),
            }),
        })
    }

    fn limits(
        &mut self,
        path: &str,
        time: Period,
        age: Period,
    ) -> (std::time::Duration, std::time::Duration) {
        for (key, period) in [("time-limit", time), ("give-up-after", age)] {
            if period.0.is_zero() {
                let problem = self
                    .wrong(
                        &format!("{path}.{key}"),
                        format!("`{key}` cannot be nothing"),
                    )
                    .with_expected("a duration longer than nothing");
                self.report(problem);
            }
        }
        (time.0, age.0)
    }

    fn only(&mut self, path: &str, only: &file::NotifyOnly) -> Filter {
        self.share(&format!("{path}.only.confidence"), only.confidence);
        let mut zones = Vec::new();
        for (index, zone) in only.zones.iter().enumerate() {
            self.domain_name(&format!("{path}.only.zones[{index}]"), zone);
            zones.push(zone.trim_end_matches('.').to_ascii_lowercase());
        }
        Filter {
            events: only.events.iter().map(|it| it.0).collect(),
            kinds: only.kinds.iter().map(|it| it.0).collect(),
            attacks: only.attacks,
            confidence: only.confidence,
            zones,
        }
    }

    fn url(&mut self, setting: &str, text: &str) -> Option<Url> {
        match Url::parse(text) {
            Ok(url) => Some(url),
            Err(expected) => {
                let problem = self
                    .wrong(setting, "nothing can be sent there")
                    .with_expected(expected);
                self.report(problem);
                None
            }
        }
    }

    fn access(&mut self, path: &str, token: Option<&PathBuf>, ca: Option<&PathBuf>) -> Access {
        let token = token.and_then(|name| self.token_file(&format!("{path}.token-file"), name));
        let roots = ca.and_then(|name| self.certificates(&format!("{path}.ca-file"), name));
        Access { token, roots }
    }

    fn file_text(&mut self, setting: &str, what: &str, name: &Path, most: u64) -> Option<String> {
        let path = self.places.resolve(setting, name.as_os_str());
        let read: io::Result<Vec<u8>> = self.source.read(&path, most);
        match read {
            Ok(octets) => Some(String::from_utf8_lossy(&octets).into_owned()),
            Err(error) => {
                let place = self.places.place(setting);
                let problem = unreadable(place, setting, what, &path, &error);
                self.report(problem);
                None
            }
        }
    }

    fn secret_file(&mut self, setting: &str, name: &Path) -> Option<Secret> {
        let text = self.file_text(setting, "the secret file", name, MAX_SECRET_FILE)?;
        self.usable_secret(setting, text.lines().next().unwrap_or_default())
    }

    /// What a receiver gave out: how long it is, is the receiver's affair.
    fn token_file(&mut self, setting: &str, name: &Path) -> Option<Secret> {
        let text = self.file_text(setting, "the token file", name, MAX_SECRET_FILE)?;
        let token = text.lines().next().unwrap_or_default().trim();
        let usable = !token.is_empty() && token.bytes().all(|it| it.is_ascii_graphic());
        if !usable {
            let problem = self
                .wrong(setting, "what stands there is no usable token")
                .with_expected("printable ASCII characters without blanks, in the first line")
                .with_help("put in the token that the receiver gave you");
            self.report(problem);
        }
        usable.then(|| Secret(token.to_owned()))
    }

    fn usable_secret(&mut self, setting: &str, text: &str) -> Option<Secret> {
        let secret = text.trim();
        let usable = secret.len() >= MIN_SECRET && secret.bytes().all(|it| it.is_ascii_graphic());
        if !usable {
            let problem = self
                .wrong(setting, "what stands there is no usable secret")
                .with_expected(format!(
                    "at least {MIN_SECRET} printable ASCII characters without blanks"
                ))
                .with_help("make one with `openssl rand -hex 32`");
            self.report(problem);
        }
        usable.then(|| Secret(secret.to_owned()))
    }

    fn certificates(&mut self, setting: &str, name: &Path) -> Option<Vec<Vec<u8>>> {
        let text = self.file_text(setting, "the certificate file", name, MAX_CA_FILE)?;
        let parsed = ureq::tls::parse_pem(text.as_bytes());
        let found = parsed.filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate.der().to_vec()),
            _ => None,
        });
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            let problem = self
                .wrong(
                    setting,
                    format!("`{}` holds no certificate", name.display()),
                )
                .with_expected(
                    "certificates in PEM, which begin with `-----BEGIN CERTIFICATE-----`",
                );
            self.report(problem);
            return None;
        }
        Some(found)
    }
}
