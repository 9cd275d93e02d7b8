//! What is printed: before, after, and in between where there is no live view.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dnscrub_detection::Incident;

use super::attack::Spoils;
use super::numbers::{latency, percent};
use super::polite::Leg;
use super::readings::{Series, Totals};
use super::screen::View;
use super::script::{Phase, Script};
use super::stage::Stage;
use super::{TOLERATED_LOSS, zones};
use crate::legible::{grouped, whole};
use crate::outcome::Outcome;

/// A name that the flood might ask for.
const RANDOM_NAME: &str = "k3x9v2m7q1w8.example.test";

/// What a spectator needs to take part.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The configuration file.
    pub(super) configuration: String,
    /// The status page.
    pub(super) page: String,
    /// Asks the proxy.
    pub(super) dig: String,
    /// Shows the blocklist.
    pub(super) blocklist: String,
    /// Explains a decision.
    pub(super) explain: String,
}

impl Facts {
    /// Where everything is.
    pub(super) fn of(stage: &Stage) -> Self {
        let program = program();
        let Stage {
            address,
            configuration,
            socket,
            control,
            ..
        } = stage;
        Self::new(*address, control.http, configuration, socket, &program)
    }

    /// With the commands spelt out.
    pub(super) fn new(
        address: SocketAddr,
        page: Option<SocketAddr>,
        configuration: &Path,
        socket: &Path,
        program: &str,
    ) -> Self {
        let (ip, port) = (address.ip(), address.port());
        let socket = socket.display();
        Self {
            configuration: configuration.display().to_string(),
            page: page.map_or_else(String::new, |page| format!("http://{page}/")),
            dig: format!("dig @{ip} -p {port} www.{}", zones::ORIGINS[0]),
            blocklist: format!("{program} blocklist list --socket {socket}"),
            explain: format!(
                "{program} explain --source 127.99.1.2 --qname {RANDOM_NAME} --socket {socket}"
            ),
        }
    }
}

/// This program as it can be called from here.
fn program() -> String {
    let plain = env!("CARGO_PKG_NAME").to_owned();
    let Ok(path) = std::env::current_exe() else {
        return plain;
    };
    let on_path = std::env::var_os("PATH").is_some_and(|folders| {
        std::env::split_paths(&folders).any(|folder| folder.join(&plain) == path)
    });
    if on_path {
        return plain;
    }
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here)
        .unwrap_or(&path)
        .display()
        .to_string()
}

/// Said before it begins.
pub(super) fn opening(facts: &Facts, script: Script) -> String {
    let Facts {
        configuration,
        page,
        dig,
        blocklist,
        explain,
    } = facts;
    format!(
        "Two name servers, the proxy in front of them, a polite client, and soon an attack.\n\
         It takes {} s; Ctrl-C ends it.\n\n\
         look at it      {page}\n\
         configuration   {configuration}\n\
         ask it          {dig}\n\
         who is blocked  {blocklist}\n\
         and why         {explain}\n\n",
        script.total.as_secs()
    )
}

/// Said when a phase begins.
pub(super) fn heading(phase: Phase) -> String {
    format!("-- {}: {}\n", phase.label(), phase.description())
}

/// Said when an incident is named, or named anew.
pub(super) fn named(incident: &Incident) -> String {
    format!(
        "** named {}: {}\n",
        naming_time(incident),
        incident.sentence
    )
}

/// An incident in a few words.
pub(super) fn in_short(incident: &Incident) -> String {
    let on = incident
        .zones
        .first()
        .filter(|_| incident.zones.len() == 1)
        .map_or_else(String::new, |part| format!(" on {}", part.zone));
    format!("{}{on}", incident.kind.title())
}

/// How long it took until an incident was named.
pub(super) fn naming_time(incident: &Incident) -> String {
    format!("after {:.0} s", (incident.opened - incident.began).max(0.0))
}

/// One line about the last second.
pub(super) fn line(view: &View<'_>) -> String {
    let rate = |series| whole(view.history.series(series).rate);
    let blocked = view.history.last().map_or(0, |totals| totals.blocked);
    format!(
        "{:>4} s  polite {}/s, {} lost, p99 {}  |  received {}/s: forwarded {}, answered {}, \
         dropped {}  |  blocked {blocked}\n",
        view.elapsed.as_secs(),
        rate(Series::Polite),
        grouped(view.polite.lost),
        latency(view.polite.p99),
        rate(Series::Received),
        rate(Series::Forwarded),
        rate(Series::Answered),
        rate(Series::Dropped),
    )
}

/// How it went.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    /// How long it was shown.
    pub(super) took: Duration,
    /// The proxy's counters when all was quiet again.
    pub(super) totals: Totals,
    /// What the attackers got.
    pub(super) spoils: Spoils,
    /// What was noticed, the first one first.
    pub(super) incidents: Vec<Arc<Incident>>,
    /// The polite client before the attack.
    pub(super) before: Leg,
    /// The polite client during the attack.
    pub(super) during: Leg,
    /// The polite client after the attack.
    pub(super) after: Leg,
    /// The polite client all the time.
    pub(super) polite: Leg,
}

/// Said when it is over.
pub(super) fn closing(summary: &Summary) -> String {
    let Summary {
        took,
        totals,
        spoils,
        incidents,
        polite,
        ..
    } = summary;
    let mut text = format!("\nAfter {:.0} s:\n\n", took.as_secs_f64());
    // writing into a string cannot fail
    let _ = writeln!(text, "{}", books(totals));
    for (outcome, count) in sorted(&totals.shed) {
        let _ = writeln!(text, "{:>24}  {}", grouped(*count), in_words(*outcome));
    }
    let _ = writeln!(text, "rules");
    for (rule, count) in &totals.rules {
        let _ = writeln!(text, "{:>24}  {rule}", grouped(*count));
    }
    if !incidents.is_empty() {
        let _ = writeln!(text, "named");
    }
    for incident in incidents {
        let _ = writeln!(
            text,
            "{:>24}  {}",
            naming_time(incident),
            in_short(incident)
        );
    }
    let _ = writeln!(
        text,
        "attack         {} sent, {} answered ({}), {} told that there is no such name, {} sent on to TCP",
        grouped(spoils.sent),
        grouped(spoils.answered),
        percent(spoils.answered, spoils.sent.max(1)),
        grouped(spoils.denied),
        grouped(spoils.truncated),
    );
    let _ = writeln!(
        text,
        "polite client  {} asked, {} answered ({}), {} lost",
        grouped(polite.asked),
        grouped(polite.answered),
        percent(polite.answered, polite.asked),
        grouped(polite.lost),
    );
    if polite.over_tcp > 0 {
        let _ = writeln!(
            text,
            "  challenged     {} of these queries were sent on to TCP, to prove their address",
            grouped(polite.over_tcp),
        );
    }
    for (when, leg) in [
        ("before", &summary.before),
        ("in the attack", &summary.during),
        ("after", &summary.after),
    ] {
        if leg.asked > 0 {
            let _ = writeln!(
                text,
                "  {when:<13}  {} in the median, {} at the 99th percentile",
                latency(leg.latency(0.5)),
                latency(leg.latency(0.99)),
            );
        }
    }
    let _ = writeln!(text, "\n{}", verdict(summary));
    text
}

/// The books: what came in, and what became of it.
fn books(totals: &Totals) -> String {
    let mut text = format!(
        "received {}\n  = forwarded {} + answered {} + dropped {} + expired {}",
        grouped(totals.received),
        grouped(totals.forwarded),
        grouped(totals.answered),
        grouped(totals.dropped),
        grouped(totals.expired),
    );
    let open = totals.received.saturating_sub(totals.settled());
    if open > 0 {
        let _ = write!(text, " + in flight {}", grouped(open));
    }
    text
}

fn verdict(summary: &Summary) -> String {
    let polite = &summary.polite;
    if summary.during.asked == 0 {
        return "It ended before the attack began.".to_owned();
    }
    match polite.lost {
        0 => "The polite client did not notice the attack.".to_owned(),
        lost if polite.loss() <= TOLERATED_LOSS => {
            format!("The polite client hardly noticed the attack: {lost} of its queries got lost.")
        }
        _ => "The polite client noticed the attack.".to_owned(),
    }
}

/// The most frequent first.
pub(super) fn sorted(shed: &[(Outcome, u64)]) -> Vec<&(Outcome, u64)> {
    let mut sorted: Vec<_> = shed.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sorted
}

fn in_words(outcome: Outcome) -> String {
    let (what, reason) = match outcome {
        Outcome::Dropped(reason) => ("dropped", reason),
        Outcome::Answered(answer, reason) => (answer.label(), reason),
        Outcome::Forwarded => return "forwarded".to_owned(),
        Outcome::Expired => return "expired".to_owned(),
    };
    format!(
        "{what}: {}",
        reason.description().trim().trim_end_matches('.')
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Answer, Reason};

    fn summary(lost: u64) -> Summary {
        let leg = |asked, lost| Leg {
            asked,
            answered: asked - lost,
            lost,
            ..Leg::default()
        };
        Summary {
            took: Duration::from_secs(30),
            totals: Totals {
                received: 1_000_000,
                forwarded: 9_000,
                answered: 1_000,
                dropped: 990_000,
                shed: vec![
                    (
                        Outcome::Answered(Answer::Truncated, Reason::RateLimit),
                        1_000,
                    ),
                    (Outcome::Dropped(Reason::Rule), 990_000),
                ],
                rules: vec![("any-flood".to_owned(), 990_000)],
                ..Totals::default()
            },
            spoils: Spoils {
                sent: 991_000,
                answered: 0,
                denied: 500,
                truncated: 1_000,
            },
            incidents: vec![Arc::new(dnscrub_testkit::incident::flood(1, 1_000.0, None))],
            before: leg(1_000, 0),
            during: leg(5_000, lost),
            after: leg(3_000, 0),
            polite: leg(9_000, lost),
        }
    }

    #[test]
    fn the_closing_shows_that_the_books_balance() {
        let text = closing(&summary(0));
        assert!(text.contains(
            "received 1,000,000\n  = forwarded 9,000 + answered 1,000 + dropped 990,000 + expired 0\n"
        ), "{text}");
        assert!(
            text.contains("990,000  dropped: A rule said so\n"),
            "{text}"
        );
        assert!(
            text.contains("9,000 asked, 9,000 answered (100 %), 0 lost"),
            "{text}"
        );
        assert!(
            text.contains(
                "named\n               after 4 s  random-subdomain flood on example.com\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("did not notice the attack.\n"), "{text}");
    }

    #[test]
    fn what_does_not_balance_is_told() {
        let mut summary = summary(0);
        summary.totals.received += 5;
        assert!(closing(&summary).contains("expired 0 + in flight 5\n"));
    }

    #[test]
    fn the_verdict_follows_the_loss() {
        assert!(verdict(&summary(1)).contains("hardly noticed the attack: 1 of"));
        assert!(verdict(&summary(91)).starts_with("The polite client noticed"));
        let mut early = summary(0);
        early.during = Leg::default();
        assert!(verdict(&early).contains("before the attack"));
    }
}
