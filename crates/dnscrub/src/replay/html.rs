//! The report as one page: no script, nothing to fetch, light or dark as the reader's system is.

use std::fmt::Write as _;

use dnscrub_detection::Incident;

use super::plot;
use super::report::{Against, Changes, OutcomeRow, Report, RuleRow, TopTable, Transition};
use super::tally::{BAR, Class, Classes};
use crate::legible::grouped;
use crate::report::markup::{self, escape};

/// Bars of the histogram at least: up to the band that drops at rest.
const BARS_SHOWN: usize = 11;

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let facts = &report.trace;
    let mut text = markup::head(&format!("Replay of {}", facts.file), "");
    let _ = writeln!(
        text,
        "<header><h1>Replay of {}</h1><p>{:.1} seconds of traffic through {}</p></header>",
        escape(&facts.file),
        facts.seconds,
        escape(&report.configuration)
    );
    tiles(&mut text, report);
    noticed(&mut text, &report.incidents);
    let highest = plot::highest(&report.over_time.steps, report.over_time.step_seconds);
    let other = report.against.as_ref().map_or(0.0, |against| {
        plot::highest(&against.over_time.steps, against.over_time.step_seconds)
    });
    let top = highest.max(other);
    text.push_str("<section><h2>Queries a second</h2>");
    legend(&mut text, report);
    text.push_str(&plot::over_time(
        &report.over_time.steps,
        report.over_time.step_seconds,
        top,
        "queries a second over time, by what became of them",
    ));
    text.push_str("</section>\n");
    if let Some(against) = &report.against {
        compared(&mut text, against, top);
    }
    text.push_str("<div class=\"pair\">\n<section><h2>What became of them</h2>");
    outcomes(&mut text, &report.outcomes);
    text.push_str("</section>\n<section><h2>Points</h2>");
    scores(&mut text, report);
    text.push_str("</section>\n</div>\n<div class=\"pair\">\n");
    text.push_str("<section><h2>Rules</h2>");
    rules(&mut text, &report.rules);
    text.push_str("</section>\n");
    signals(&mut text, report);
    text.push_str("</div>\n<div class=\"pair\">\n");
    for (heading, caption, top) in [
        ("Names", "", &report.names),
        (
            "Names without their first label",
            "A flood of random names shows here.",
            &report.parents,
        ),
        ("Sources", "", &report.sources),
        ("Prefixes", "/24 of IPv4, /48 of IPv6", &report.prefixes),
    ] {
        most(&mut text, heading, caption, top);
    }
    text.push_str("</div>\n");
    notes(&mut text, report);
    text.push_str("</main>\n</body>\n</html>\n");
    text
}

fn tiles(text: &mut String, report: &Report) {
    let of = |class: Class| report.by_class.get(class as usize).copied().unwrap_or(0);
    let passed = of(Class::Passed) + of(Class::HeldBack);
    text.push_str("<div class=\"tiles\">");
    tile(text, "", &grouped(report.queries), "queries");
    tile(text, "good", &percent(passed, report.queries), "passed");
    let stopped = report.queries - passed;
    tile(text, "bad", &percent(stopped, report.queries), "stopped");
    if of(Class::HeldBack) > 0 {
        let held = percent(of(Class::HeldBack), report.queries);
        tile(text, "odd", &held, "held back by observe mode");
    }
    if let Some(against) = &report.against {
        let counts = [
            ("bad", &against.newly_stopped, "newly stopped"),
            ("good", &against.newly_passed, "newly let pass"),
        ];
        for (class, changes, label) in counts {
            tile(text, class, &grouped(changes.queries), label);
        }
    }
    text.push_str("</div>\n");
}

fn noticed(text: &mut String, incidents: &[Incident]) {
    if incidents.is_empty() {
        return;
    }
    text.push_str(
        "<section><h2>Incidents</h2><table><tr><th class=\"n\">Began</th><th class=\"n\">Named</th>\
         <th class=\"n\">Closed</th><th>What</th></tr>",
    );
    for incident in incidents {
        let closed = incident
            .closed
            .map_or_else(|| "goes on".to_owned(), |at| format!("{at:.0}"));
        let _ = write!(
            text,
            "<tr><td class=\"n\">{:.0}</td><td class=\"n\">{:.0}</td><td class=\"n\">{closed}</td><td>{}</td></tr>",
            incident.began,
            incident.opened,
            escape(&incident.sentence)
        );
    }
    text.push_str("</table><p>In seconds since the first query.</p></section>\n");
}

fn tile(text: &mut String, class: &str, value: &str, label: &str) {
    let _ = write!(
        text,
        "<div class=\"tile {class}\"><b>{value}</b><span>{label}</span></div>"
    );
}

/// The classes that occur in the report.
fn legend(text: &mut String, report: &Report) {
    text.push_str("<ul class=\"legend\">");
    for class in Class::ALL {
        let occurs = |counts: &Classes| counts.get(class as usize).is_some_and(|count| *count > 0);
        let there = occurs(&report.by_class)
            || report
                .against
                .as_ref()
                .is_some_and(|against| occurs(&against.by_class));
        if there {
            let _ = write!(
                text,
                "<li><i class=\"c{}\"></i>{}</li>",
                class as usize,
                class.label()
            );
        }
    }
    text.push_str("</ul>");
}

fn outcomes(text: &mut String, rows: &[OutcomeRow]) {
    text.push_str(
        "<table><tr><th>Outcome</th><th class=\"n\">Queries</th><th class=\"n\">Share</th></tr>",
    );
    for row in rows {
        let _ = write!(
            text,
            "<tr><td class=\"key marked\"><i class=\"mark c{}\"></i>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.2} %</td></tr>",
            row.class as usize,
            escape(&row.outcome),
            grouped(row.queries),
            row.share * 100.0
        );
    }
    text.push_str("</table>");
}

fn scores(text: &mut String, report: &Report) {
    let mut bars: Vec<(String, Classes)> = report
        .scores
        .iter()
        .map(|row| {
            let range = match row.to {
                Some(to) => format!("{}\u{2013}{to}", row.from),
                None => format!("{}+", row.from),
            };
            (range, row.by_class)
        })
        .collect();
    // far enough to see how far the bands are
    for bar in bars.len()..BARS_SHOWN {
        let from = bar * usize::from(BAR);
        let range = format!("{from}\u{2013}{}", from + usize::from(BAR) - 1);
        bars.push((range, Classes::default()));
    }
    text.push_str(&plot::histogram(&bars, "queries by points, logarithmic"));
    text.push_str(
        "<p class=\"caption\">Queries by points; the scale is logarithmic, the colours share a bar in proportion.",
    );
    if report.unscored > 0 {
        let _ = write!(
            text,
            " {} more were ended by the packet filter, before scoring.",
            grouped(report.unscored)
        );
    }
    text.push_str("</p>");
}

fn rules(text: &mut String, rules: &[RuleRow]) {
    if rules.is_empty() {
        text.push_str("<p class=\"dim\">The configuration has none.</p>");
        return;
    }
    text.push_str("<div class=\"scroll\"><table><tr><th>Rule</th><th class=\"n\">Matched</th><th class=\"n\">Acted</th><th class=\"n\">Would have</th></tr>");
    for rule in rules {
        let _ = write!(
            text,
            "<tr><td class=\"key\">{}{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&rule.name),
            observed(rule.observe),
            grouped(rule.matched),
            grouped(rule.acted),
            grouped(rule.would_have)
        );
    }
    text.push_str("</table></div>");
}

fn signals(text: &mut String, report: &Report) {
    text.push_str("<section><h2>Signals</h2><div class=\"scroll\"><table><tr><th>Signal</th><th class=\"n\">Gave points to</th><th class=\"n\">Share</th><th class=\"n\">Points in all</th><th class=\"n\">Of them stopped</th></tr>");
    for signal in &report.signals {
        let sign = if signal.points < 0 { "\u{2212}" } else { "" };
        let _ = write!(
            text,
            "<tr><td class=\"key\">{}{}</td><td class=\"n\">{}</td><td class=\"n\">{:.2} %</td><td class=\"n\">{sign}{}</td><td class=\"n\">{}</td></tr>",
            escape(signal.name),
            observed(signal.observe),
            grouped(signal.queries),
            signal.share * 100.0,
            grouped(signal.points.unsigned_abs()),
            grouped(signal.stopped)
        );
    }
    text.push_str("</table></div></section>\n");
}

const fn observed(observe: bool) -> &'static str {
    if observe {
        " <span class=\"tag\">observe mode</span>"
    } else {
        ""
    }
}

fn most(text: &mut String, heading: &str, caption: &str, top: &TopTable) {
    let _ = write!(text, "<section><h2>{heading}</h2><p class=\"caption\">");
    let _ = match top.known.saturating_sub(top.rows.len()) {
        0 => write!(text, "{caption}"),
        more => write!(
            text,
            "The most frequent of {}. {caption}",
            grouped((top.rows.len() + more) as u64)
        ),
    };
    text.push_str("</p><table><tr><th></th><th class=\"n\">Queries</th><th class=\"share\">Outcomes</th></tr>");
    for row in &top.rows {
        let _ = write!(
            text,
            "<tr><td class=\"key\">{}</td><td class=\"n\">{}</td><td class=\"share\">",
            escape(&row.key),
            grouped(row.queries)
        );
        share_bar(text, &row.by_class, row.queries);
        text.push_str("</td></tr>");
    }
    text.push_str("</table></section>\n");
}

#[allow(clippy::cast_precision_loss, reason = "a drawing")]
fn share_bar(text: &mut String, by_class: &Classes, all: u64) {
    let mut words = String::new();
    let mut parts = String::new();
    for (class, count) in Class::ALL.iter().zip(by_class) {
        if *count == 0 {
            continue;
        }
        let share = 100.0 * *count as f64 / all.max(1) as f64;
        let _ = write!(
            parts,
            "<i class=\"c{}\" style=\"width:{share:.2}%\"></i>",
            *class as usize
        );
        let _ = writeln!(words, "{}: {}", class.label(), grouped(*count));
    }
    let _ = write!(
        text,
        "<div class=\"bar\" title=\"{}\">{parts}</div>",
        escape(words.trim_end())
    );
}

fn compared(text: &mut String, against: &Against, top: f64) {
    let _ = write!(
        text,
        "<section><h2>What {} would change</h2>",
        escape(&against.configuration)
    );
    text.push_str(&plot::over_time(
        &against.over_time.steps,
        against.over_time.step_seconds,
        top,
        "queries a second over time under the other configuration",
    ));
    text.push_str("<div class=\"tiles\">");
    for (class, count, label) in [
        ("bad", against.newly_stopped.queries, "newly stopped"),
        ("good", against.newly_passed.queries, "newly let pass"),
        ("odd", against.otherwise.queries, "otherwise changed"),
        ("", against.unchanged, "the same"),
    ] {
        tile(text, class, &grouped(count), label);
    }
    text.push_str("</div><h3>Its rules</h3>");
    rules(text, &against.rules);
    for (class, heading, changes) in [
        ("bad", "Newly stopped", &against.newly_stopped),
        ("good", "Newly let pass", &against.newly_passed),
        ("odd", "Otherwise changed", &against.otherwise),
    ] {
        if changes.queries > 0 {
            let _ = write!(text, "<h3 class=\"{class}\">{heading}</h3>");
            changed(text, changes);
        }
    }
    text.push_str("</section>\n");
}

fn changed(text: &mut String, changes: &Changes) {
    for (place, transition) in changes.transitions.iter().enumerate() {
        let Transition {
            was,
            would_be,
            queries,
            examples,
        } = transition;
        // the most frequent change is what is looked at first
        let open = if place == 0 { " open=\"\"" } else { "" };
        let _ = write!(
            text,
            "<details{open}><summary><span class=\"key\">{} \u{2192} {}</span> <b>{}</b></summary>",
            escape(was),
            escape(would_be),
            grouped(*queries)
        );
        text.push_str("<div class=\"scroll\"><table class=\"wide\"><tr><th class=\"n\">Second</th><th>Source</th><th>Name</th><th>Type</th><th class=\"n\">Points</th><th>Decided by</th></tr>");
        for example in examples {
            let points = |points: Option<u16>| {
                points.map_or_else(|| "\u{2013}".to_owned(), |points| points.to_string())
            };
            let _ = write!(
                text,
                "<tr><td class=\"n\">{:.3}</td><td class=\"key\">{}</td><td class=\"key\">{}</td><td>{}</td><td class=\"n\">{} \u{2192} {}</td><td>{} \u{2192} {}</td></tr>",
                example.at,
                escape(&example.source),
                escape(&example.name),
                escape(&example.qtype),
                points(example.points),
                points(example.points_then),
                escape(&example.because),
                escape(&example.because_then)
            );
        }
        text.push_str("</table></div></details>");
    }
}

fn notes(text: &mut String, report: &Report) {
    let facts = &report.trace;
    text.push_str("<section><h2>To be kept in mind</h2><ul class=\"notes\">");
    for note in &report.notes {
        let _ = write!(text, "<li>{}</li>", escape(note));
    }
    if facts.answers + facts.answers_unmatched > 0 {
        let _ = write!(
            text,
            "<li>Answers learned from: {}. Without their query, or it did not pass: {}.</li>",
            grouped(facts.answers),
            grouped(facts.answers_unmatched)
        );
    }
    for skipped in &facts.skipped {
        let _ = write!(
            text,
            "<li>Left out: {} {}.</li>",
            grouped(skipped.packets),
            escape(skipped.reason)
        );
    }
    text.push_str("</ul></section>\n");
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn percent(part: u64, all: u64) -> String {
    format!("{:.2} %", 100.0 * part as f64 / all.max(1) as f64)
}
