//! What webhooks and commands get: the body, its signature, how it is sent.

use std::io::Read as _;
use std::time::{Duration, SystemTime};

use dnscrub_detection::Incident;
use ring::hmac;
use serde::Serialize;
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::alerts::Alert;
use super::notice::{Notice, Outcome};
use super::settings::{Access, Secret, Url, Webhook};

/// The header with the signatures.
const SIGNATURE: &str = "Dnscrub-Signature";
/// The header with the event.
const EVENT: &str = "Dnscrub-Event";
/// The header with the notice's id.
const KEY: &str = "Idempotency-Key";
/// Octets of an answer that are looked at.
const ANSWER: u64 = 512;

/// What is told in one attempt.
#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    /// `opened`, `changed`, `closed` or `test`.
    pub(super) event: &'static str,
    /// Unique to the notice, the same in each attempt.
    id: &'a str,
    /// When this attempt was made, in seconds since 1970.
    sent: f64,
    /// Which attempt it is, from 1.
    attempt: u32,
    /// Who tells.
    program: Program<'a>,
    /// The incident as it was when that happened.
    pub(super) incident: &'a Incident,
}

#[derive(Debug, Serialize)]
struct Program<'a> {
    name: &'static str,
    version: &'static str,
    host: &'a str,
}

impl<'a> Message<'a> {
    /// `test` says that nothing has happened.
    pub(super) fn new(
        notice: &'a Notice,
        attempt: u32,
        instance: &'a str,
        sent: f64,
        test: bool,
    ) -> Self {
        Self {
            event: if test { "test" } else { notice.event.label() },
            id: &notice.id,
            sent,
            attempt,
            program: Program {
                name: "dnscrub",
                version: env!("CARGO_PKG_VERSION"),
                host: instance,
            },
            incident: &notice.incident,
        }
    }

    pub(super) const fn id(&self) -> &str {
        self.id
    }

    pub(super) const fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(super) const fn instance(&self) -> &str {
        self.program.host
    }

    /// As JSON.
    pub(super) fn body(&self) -> Vec<u8> {
        // maps with keys of text cannot fail
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The value of the signature's header: the time in whole seconds since 1970, and for each secret the
/// HMAC-SHA-256 (RFC 2104, FIPS 180-4) of that time, a dot and the body, in hexadecimal digits.
fn signature(secrets: &[Secret], time: u64, body: &[u8]) -> String {
    let mut header = format!("t={time}");
    for secret in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.0.as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{time}.").as_bytes());
        context.update(body);
        header.push_str(",v1=");
        for octet in context.sign().as_ref() {
            header.push_str(&format!("{octet:02x}"));
        }
    }
    header
}

/// Sends a message to a webhook. Waits for the answer.
pub(super) fn post(webhook: &Webhook, message: &Message<'_>, limit: Duration) -> Outcome {
    let body = message.body();
    let mut headers = vec![
        (EVENT, message.event.to_owned()),
        (KEY, message.id.to_owned()),
    ];
    if !webhook.secrets.is_empty() {
        let time = message.sent.max(0.0) as u64;
        headers.push((SIGNATURE, signature(&webhook.secrets, time, &body)));
    }
    send(
        webhook.url.as_str(),
        &webhook.access,
        &headers,
        &body,
        limit,
    )
}

/// Sends alerts to an Alertmanager. Waits for the answer.
pub(super) fn post_alerts(
    url: &Url,
    access: &Access,
    alerts: &[Alert],
    limit: Duration,
) -> Outcome {
    let url = format!("{}/api/v2/alerts", url.as_str().trim_end_matches('/'));
    let body = serde_json::to_vec(alerts).unwrap_or_default();
    send(&url, access, &[], &body, limit)
}

fn send(
    url: &str,
    access: &Access,
    headers: &[(&str, String)],
    body: &[u8],
    limit: Duration,
) -> Outcome {
    let mut tls = TlsConfig::builder();
    if let Some(roots) = &access.roots {
        let roots: Vec<_> = roots
            .iter()
            .map(|der| Certificate::from_der(der).to_owned())
            .collect();
        tls = tls.root_certs(RootCerts::from(roots));
    }
    // a redirection is an answer like any other: what is signed for one server is not for another
    let agent = Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("dnscrub/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build())
        .build()
        .new_agent();
    let mut request = agent.post(url).header("Content-Type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    if let Some(token) = &access.token {
        request = request.header("Authorization", format!("Bearer {}", token.0));
    }
    match request.send(body) {
        Ok(answer) => judge(answer),
        Err(failure) => Outcome::Later {
            why: failure.to_string(),
            after: None,
        },
    }
}

fn judge(answer: Response<Body>) -> Outcome {
    let status = answer.status();
    if status.is_success() {
        return Outcome::Delivered;
    }
    let after = answer
        .headers()
        .get("Retry-After")
        .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
    let mut said = Vec::new();
    // how the answer ends does not matter any more
    let _ = answer
        .into_body()
        .into_reader()
        .take(ANSWER)
        .read_to_end(&mut said);
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().next().unwrap_or_default().trim();
    let line = line.replace(char::is_control, "\u{fffd}");
    let why = match line.is_empty() {
        true => format!("HTTP status {status}"),
        false => format!("HTTP status {status}: {line}"),
    };
    let passes = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    match status.is_server_error() || passes.contains(&status) {
        true => Outcome::Later { why, after },
        false => Outcome::Never(why),
    }
}

/// What `Retry-After` asks for (RFC 9110 section 10.2.3): seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value)
            .ok()?
            .duration_since(now)
            .ok(),
    }
}

#[cfg(test)]
mod tests {
    use dnscrub_detection::Happened;

    use super::super::testing::notice;
    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard() {
        // computed with `openssl dgst -sha256 -hmac Jefe`
        let secrets = [Secret("Jefe".to_owned()), Secret("next".to_owned())];
        let header = signature(&secrets, 1_764_000_000, b"what do ya want for nothing?");
        let parts: Vec<_> = header.split(',').collect();
        assert_eq!(parts[0], "t=1764000000");
        assert_eq!(
            parts[1],
            "v1=5a69bfde1efa679057c0e479ffb71239b5e86b5acad1945a56c0fc0a3c714843"
        );
        assert_eq!(parts.len(), 3);
        assert_ne!(parts[1], parts[2]);
    }

    #[test]
    fn a_message_holds_what_is_promised() {
        let notice = notice(3, Happened::Opened, 12);
        let message = Message::new(&notice, 2, "edge-1", 1234.5, false);
        let body: serde_json::Value = serde_json::from_slice(&message.body()).unwrap();
        assert_eq!(body["event"], "opened");
        assert_eq!((&body["id"], &body["attempt"]), (&"n3".into(), &2.into()));
        assert_eq!(body["sent"], 1234.5);
        assert_eq!(body["program"]["host"], "edge-1");
        assert_eq!(body["incident"]["number"], 12);
        assert_eq!(body["incident"]["kind"], "random-subdomains");
        let message = Message::new(&notice, 1, "edge-1", 1234.5, true);
        assert_eq!(message.event, "test");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let after = |value| retry_after(value, now);
        assert_eq!(after(" 120 "), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:50:37 GMT";
        assert_eq!(after(date), Some(Duration::from_secs(60)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:00 GMT"), None);
        assert_eq!(after("soon"), None);
    }
}
