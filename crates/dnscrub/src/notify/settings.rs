//! Who is told, checked and built.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use dnscrub_detection::{Happened, Incident, Kind};

/// Who is told of incidents.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What this program is called.
    pub instance: String,
    /// The address of the page that says what to do.
    pub playbook: Option<Address>,
    /// The address of a dashboard.
    pub dashboard: Option<Address>,
    /// Everybody, each with a name of its own.
    pub destinations: Vec<Destination>,
}

impl Settings {
    /// Programs that are to be run and cannot be, in words. What is there may change until they are.
    #[must_use]
    pub fn missing_programs(&self) -> Vec<String> {
        let commands = self.destinations.iter().filter_map(|it| match &it.target {
            Target::Command(command) => Some((&it.name, &command.program)),
            Target::Webhook(_) | Target::Alertmanager(_) => None,
        });
        let wrong = commands.filter_map(|(name, program)| {
            let why = match fs::metadata(program) {
                Err(failure) => failure.to_string(),
                Ok(found) if !found.is_file() => "it is no file".to_owned(),
                Ok(found) if found.permissions().mode() & 0o111 == 0 => {
                    "nobody may execute it".to_owned()
                }
                Ok(_) => return None,
            };
            let program = program.display();
            Some(format!(
                "the command `{name}` cannot run {program}: {why}; nobody is told by it"
            ))
        });
        wrong.collect()
    }
}

/// Somebody who is told.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its name in logs, metrics and commands.
    pub name: String,
    /// What it is told of.
    pub only: Filter,
    /// How old a notice may get.
    pub give_up_after: Duration,
    /// How long an attempt may take.
    pub time_limit: Duration,
    /// How it is told.
    pub target: Target,
}

/// How somebody is told.
#[derive(Clone, Debug)]
pub enum Target {
    /// By a POST request.
    Webhook(Webhook),
    /// By alerts.
    Alertmanager(Alertmanager),
    /// By running a program.
    Command(Command),
}

impl Target {
    /// In a word.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Alertmanager(_) => "alertmanager",
            Self::Command(_) => "command",
        }
    }
}

/// A webhook.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where it is sent.
    pub url: Url,
    /// Secrets that it is signed with; may be none.
    pub secrets: Vec<Secret>,
    /// How the server is reached.
    pub access: Access,
}

/// A group of Alertmanagers that know each other.
#[derive(Clone, Debug)]
pub struct Alertmanager {
    /// Where their API begins.
    pub urls: Vec<Url>,
    /// How often an alert is sent again.
    pub resend: Duration,
    /// When further alerts come, since the incident was opened; ascending.
    pub escalate: Vec<Duration>,
    /// How the servers are reached.
    pub access: Access,
}

/// A program to run.
#[derive(Clone, Debug)]
pub struct Command {
    /// Its absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether it is run again when it fails.
    pub retry: bool,
    /// How many may run at a time.
    pub at_a_time: usize,
}

/// How an HTTP server is reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A bearer token.
    pub token: Option<Secret>,
    /// Certificates that are trusted instead of the usual ones, DER.
    pub roots: Option<Vec<Vec<u8>>>,
}

/// What nobody may read in a log.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// An address that requests are sent to. It shows only its host: paths of webhooks often are secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    whole: String,
    shown: String,
}

impl Url {
    /// An address of HTTP or HTTPS.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "an address such as https://host.example/path";
        let parsed: axum::http::Uri = text.parse().map_err(|_| EXPECTED)?;
        let scheme = parsed
            .scheme_str()
            .filter(|it| ["http", "https"].contains(it));
        let (Some(scheme), Some(host)) = (scheme, parsed.host().filter(|it| !it.is_empty())) else {
            return Err(EXPECTED);
        };
        if parsed
            .authority()
            .is_some_and(|it| it.as_str().contains('@'))
        {
            return Err("an address without a user; a token goes into `token-file`");
        }
        let port = parsed
            .port()
            .map_or_else(String::new, |port| format!(":{port}"));
        Ok(Self {
            whole: text.to_owned(),
            shown: format!("{scheme}://{host}{port}"),
        })
    }

    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.whole
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// An address for people, with gaps that an incident fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

/// Gaps of an [`Address`].
const GAPS: [&str; 4] = ["kind", "zone", "incident", "instance"];

impl Address {
    /// An address with gaps.
    ///
    /// # Errors
    /// The gap that there is not.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unknown = text.split('{').skip(1).find_map(|part| {
            let name = part.split('}').next().unwrap_or_default();
            (!GAPS.contains(&name)).then(|| name.to_owned())
        });
        match unknown {
            Some(unknown) => Err(unknown),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The address for an incident.
    #[must_use]
    pub fn of(&self, instance: &str, incident: &Incident) -> String {
        let zone = incident.zones.first().map_or("", |part| part.zone.as_str());
        self.0
            .replace("{kind}", incident.kind.label())
            .replace("{zone}", &escaped(zone))
            .replace("{incident}", &incident.number.to_string())
            .replace("{instance}", &escaped(instance))
    }
}

/// As part of an address (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            escaped.push(char::from(octet));
        } else {
            escaped.push_str(&format!("%{octet:02X}"));
        }
    }
    escaped
}

/// What a destination is told of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only these events; empty for all.
    pub events: Vec<Happened>,
    /// Only these kinds; empty for all.
    pub kinds: Vec<Kind>,
    /// Only attacks.
    pub attacks: bool,
    /// At least so sure.
    pub confidence: f32,
    /// Only about these zones or below them, in lower case without a dot at the end; empty for all.
    pub zones: Vec<String>,
}

impl Filter {
    /// Whether it is told of this. Who has `heard` of an incident is told that it is over, whatever
    /// became of it.
    #[must_use]
    pub fn takes(&self, event: Happened, incident: &Incident, heard: bool) -> bool {
        let listens = self.events.is_empty() || self.events.contains(&event);
        listens && (self.concerns(incident) || (heard && event == Happened::Closed))
    }

    /// Whether the incident is one it is told of.
    #[must_use]
    pub fn concerns(&self, incident: &Incident) -> bool {
        let inside = |zone: &str| {
            let zone = zone.trim_end_matches('.').to_ascii_lowercase();
            self.zones.iter().any(|outer| {
                zone.strip_suffix(outer.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.') || outer.is_empty())
            })
        };
        (self.kinds.is_empty() || self.kinds.contains(&incident.kind))
            && (!self.attacks || incident.kind.is_attack())
            && incident.confidence >= self.confidence
            && (self.zones.is_empty()
                || incident.zones.is_empty()
                || incident.zones.iter().any(|part| inside(&part.zone)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::incident;
    use super::*;

    #[test]
    fn a_filter_takes_what_fits_all_of_it() {
        let flood = incident(1);
        let crowd = Incident {
            kind: Kind::FlashCrowd,
            ..incident(2)
        };
        let takes =
            |filter: &Filter, incident: &Incident| filter.takes(Happened::Opened, incident, false);
        let all = Filter::default();
        assert!(takes(&all, &flood) && takes(&all, &crowd));
        let attacks = Filter {
            attacks: true,
            ..Filter::default()
        };
        assert!(takes(&attacks, &flood) && !takes(&attacks, &crowd));
        // once told of it, the end is told as well, even of what it became
        assert!(attacks.takes(Happened::Closed, &crowd, true));
        assert!(!attacks.takes(Happened::Changed, &crowd, true));
        let kinds = Filter {
            kinds: vec![Kind::FlashCrowd],
            ..Filter::default()
        };
        assert!(!takes(&kinds, &flood) && takes(&kinds, &crowd));
        let ends = Filter {
            events: vec![Happened::Closed],
            ..Filter::default()
        };
        assert!(!takes(&ends, &flood) && ends.takes(Happened::Closed, &flood, false));
        let sure = Filter {
            confidence: 0.95,
            ..Filter::default()
        };
        assert!(!takes(&sure, &flood));
        for (zone, fits) in [
            ("example.com", true),
            ("com", true),
            ("ample.com", false),
            ("", true),
            ("example.net", false),
        ] {
            let filter = Filter {
                zones: vec![zone.to_owned()],
                ..Filter::default()
            };
            assert_eq!(takes(&filter, &flood), fits, "{zone}");
        }
    }

    #[test]
    fn addresses_are_filled_and_shown_without_what_may_be_secret() {
        let page = Address::parse("https://w.example/{kind}.md?zone={zone}&n={incident}").unwrap();
        assert_eq!(
            page.of("edge", &incident(7)),
            "https://w.example/random-subdomains.md?zone=example.com&n=7"
        );
        assert_eq!(Address::parse("x/{knid}"), Err("knid".to_owned()));
        let url = Url::parse("https://chat.example:8443/hooks/T0PS3CRET?x=1").unwrap();
        assert_eq!(
            format!("{url} {url:?}"),
            "https://chat.example:8443 https://chat.example:8443"
        );
        for wrong in ["", "chat.example", "ftp://x/", "https://", "http://u:p@x/"] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(format!("{:?}", Secret("x".to_owned())), "…");
        assert_eq!(escaped("a b/ü"), "a%20b%2F%C3%BC");
    }
}
