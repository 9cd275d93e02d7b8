//! `notify`: who is told of incidents, as it is written.

use std::path::PathBuf;

use dnscrub_detection::Happened;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{IncidentKind, Period};

/// Who is told of incidents, and how. Notices wait in a queue on the disk until they are delivered.
///
/// ```yaml
/// notify:
///   webhooks:
///     - { name: chat, url: "https://chat.example/hooks/dns", secret-env: [ CHAT_SECRET ] }
///   alertmanagers:
///     - { name: on-call, urls: [ "http://127.0.0.1:9093" ], escalate: [ 5m, 15m ] }
/// ```
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Notify {
    /// What this dnscrub is called in notices. Default: the machine's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The address of the page that says what to do. `{kind}`, `{zone}`, `{incident}` and `{instance}` are
    /// replaced by those of the incident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub playbook: Option<String>,
    /// The address of a dashboard, with the same replacements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<String>,
    /// HTTP servers that get each event as signed JSON.
    pub webhooks: Vec<NotifyWebhook>,
    /// Prometheus Alertmanagers that get an alert for each open incident.
    pub alertmanagers: Vec<NotifyAlertmanager>,
    /// Programs that are run for each event.
    pub commands: Vec<NotifyCommand>,
}

/// An HTTP server that gets each event as JSON in a POST request, signed with HMAC-SHA-256.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NotifyWebhook {
    /// A name for logs, metrics and `dnscrub notify`.
    pub name: String,
    /// Where it is sent. Only the host is shown in logs, since such addresses often are secrets.
    pub url: String,
    /// Files whose first line is a secret of at least 16 characters. There is a signature for each secret, so that a
    /// receiver can change from one to the next.
    #[serde(default)]
    pub secret_files: Vec<PathBuf>,
    /// The same from variables of the program's environment.
    #[serde(default)]
    pub secret_env: Vec<String>,
    /// A file whose first line is sent as `Authorization: Bearer …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) that are trusted instead of the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long an attempt may take.
    #[serde(default = "ten_seconds")]
    pub time_limit: Period,
    /// How old a notice may get before it is given up.
    #[serde(default = "a_day")]
    pub give_up_after: Period,
    /// Which incidents and events. Default: all.
    #[serde(default)]
    pub only: NotifyOnly,
}

/// Prometheus Alertmanagers: an alert is there as long as its incident is open.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NotifyAlertmanager {
    /// A name for logs, metrics and `dnscrub notify`.
    pub name: String,
    /// Their addresses, without `/api/v2`. All of them are sent everything: they agree among themselves
    /// who notifies.
    pub urls: Vec<String>,
    /// How often an alert is sent again. One that is not sent five times as long resolves by itself.
    #[serde(default = "a_minute")]
    pub resend: Period,
    /// After how long an attack or a failure of the servers behind that is still open gets a further alert, with the
    /// label `escalation` counting from 1.
    #[serde(default)]
    pub escalate: Vec<Period>,
    /// A file whose first line is sent as `Authorization: Bearer …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) that are trusted instead of the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long an attempt may take.
    #[serde(default = "ten_seconds")]
    pub time_limit: Period,
    /// For how long after its end an Alertmanager that cannot be reached is still to be told of an incident.
    #[serde(default = "a_day")]
    pub give_up_after: Period,
    /// Which incidents. Default: all.
    #[serde(default)]
    pub only: NotifyOnly,
}

/// A program that is run for each event: the notice as JSON on its standard input, the main facts in
/// its environment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NotifyCommand {
    /// A name for logs, metrics and `dnscrub notify`.
    pub name: String,
    /// The program by its absolute path, and its arguments. There is no shell in between.
    pub run: Vec<String>,
    /// How long it may take; then it is killed with all that it has started.
    #[serde(default = "half_a_minute")]
    pub time_limit: Period,
    /// Whether it is run again when it fails.
    #[serde(default)]
    pub retry: bool,
    /// How many of it may run at a time, for different incidents.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 16))]
    pub at_a_time: u8,
    /// With `retry`: how old a notice may get before it is given up.
    #[serde(default = "a_day")]
    pub give_up_after: Period,
    /// Which incidents and events. Default: all.
    #[serde(default)]
    pub only: NotifyOnly,
}

/// Which incidents and events a destination is told of: those that fit all that is written here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NotifyOnly {
    /// Only these events. Alertmanagers are always told of all.
    pub events: Vec<EventName>,
    /// Only these kinds of incidents.
    pub kinds: Vec<IncidentKind>,
    /// Only attacks: no query loops, flash crowds and upstream failures.
    pub attacks: bool,
    /// Only incidents whose kind is at least so sure, 0 to 1.
    pub confidence: f32,
    /// Only incidents about these zones or zones below them, or about no zone in particular.
    pub zones: Vec<String>,
}

/// An event by its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventName(pub Happened);

impl JsonSchema for EventName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IncidentEvent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "What happened to an incident.",
            "enum": ["opened", "changed", "closed"],
        })
    }
}

const fn ten_seconds() -> Period {
    Period::secs(10)
}

const fn half_a_minute() -> Period {
    Period::secs(30)
}

const fn a_minute() -> Period {
    Period::secs(60)
}

const fn a_day() -> Period {
    Period::secs(86_400)
}

const fn two() -> u8 {
    2
}
