//! `dnscrub blocklist`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use axum::http::Method;
use dnscrub_packet_filter::{Entry, Origin};

use super::arguments::Blocklist;
use super::output::{Cell, Paint, Style, ago, duration, table, things, until};
use super::{Asker, Exit, json_text};
use crate::blocklist::ImportReport;
use crate::control::api::{
    AddReply, AddRequest, BlocklistStatus, Caller, Covering, ImportQuery, ListPage, ListQuery,
    PrefixQuery,
};
use crate::legible::grouped;

pub(super) fn run(command: Blocklist, style: Style) -> Result<String, Exit> {
    let now = SystemTime::now();
    match command {
        Blocklist::List {
            filter,
            offset,
            limit,
            ask,
        } => {
            let asker = Asker::new(&ask);
            let path = path("/v1/blocklist", &filter.query(Some(offset), Some(limit)))?;
            asker.show(Method::GET, &path, Vec::new(), |page| {
                list(&page, style, now)
            })
        }
        Blocklist::Show { prefix, ask } => {
            let path = path("/v1/blocklist/entry", &PrefixQuery { prefix })?;
            Asker::new(&ask).show(Method::GET, &path, Vec::new(), |covering| {
                show(&covering, style, now)
            })
        }
        Blocklist::Add {
            prefix,
            lifetime,
            reason,
            ask,
        } => {
            let request = AddRequest {
                prefix,
                lifetime,
                reason,
                by: Caller::Cli,
            };
            Asker::new(&ask).show(
                Method::POST,
                "/v1/blocklist",
                json_text(&request)?.into_bytes(),
                |reply| added(&reply, now),
            )
        }
        Blocklist::Remove { prefix, ask } => {
            let path = path("/v1/blocklist", &PrefixQuery { prefix })?;
            Asker::new(&ask).show(Method::DELETE, &path, Vec::new(), |entry: Entry| {
                format!(
                    "removed {} ({}, {})\n",
                    entry.prefix,
                    origin(&entry.origin),
                    things_hit(entry.hits)
                )
            })
        }
        Blocklist::Import {
            file,
            lifetime,
            reason,
            ask,
        } => {
            let text = read(&file)?;
            let query = ImportQuery {
                lifetime,
                reason: Some(reason),
                by: Caller::Cli,
            };
            Asker::new(&ask).show(
                Method::POST,
                &path("/v1/blocklist/import", &query)?,
                text,
                |report| imported(&report),
            )
        }
        Blocklist::Export { filter, ask } => {
            let query = filter.query(None, None);
            let asker = Asker::new(&ask);
            if ask.format.json {
                export_json(&asker, &query)
            } else {
                asker.text(&path("/v1/blocklist/export", &query)?)
            }
        }
        Blocklist::Stats { ask } => {
            Asker::new(&ask).show(Method::GET, "/v1/blocklist/stats", Vec::new(), |status| {
                stats(&status, style, now)
            })
        }
    }
}

/// Pages of entries put together.
fn export_json(asker: &Asker, query: &ListQuery) -> Result<String, Exit> {
    const PAGE: usize = 10_000;
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let part = ListQuery {
            offset: Some(entries.len()),
            limit: Some(PAGE),
            ..query.clone()
        };
        let page: ListPage = asker.json(Method::GET, &path("/v1/blocklist", &part)?, Vec::new())?;
        let got = page.entries.len();
        entries.extend(page.entries);
        if got < PAGE {
            return json_text(&serde_json::json!({ "entries": entries }));
        }
    }
}

/// A path with its query.
pub(super) fn path(path: &str, query: &impl serde::Serialize) -> Result<String, Exit> {
    let fields =
        serde_json::to_value(query).map_err(|failure| Exit::failed(failure.to_string()))?;
    let fields = fields
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null());
    let mut text = path.to_owned();
    for (at, (name, value)) in fields.enumerate() {
        let plain = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(
            text,
            "{}{name}={}",
            if at == 0 { '?' } else { '&' },
            percent(&plain)
        );
    }
    Ok(text)
}

/// Percent-encoding (RFC 3986 section 2.1) of everything that is not unreserved.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, octet| {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            encoded.push(char::from(octet));
        } else {
            let _ = write!(encoded, "%{octet:02X}");
        }
        encoded
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Exit> {
    let mut text = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut text).map(drop)
    } else {
        std::fs::read(file).map(|octets| text = octets)
    };
    read.map_err(|failure| Exit::failed(format!("cannot read {}: {failure}", file.display())))?;
    Ok(text)
}

fn entries(entries: &[Entry], style: Style, now: SystemTime) -> String {
    let rows: Vec<Vec<Cell>> = entries
        .iter()
        .map(|entry| {
            vec![
                Cell::painted(entry.prefix.to_string(), Paint::Bold),
                Cell::count(entry.hits),
                origin(&entry.origin).into(),
                ago(now, entry.created).into(),
                until(now, entry.expires).into(),
                entry.reason.as_str().into(),
            ]
        })
        .collect();
    table(
        style,
        &["PREFIX", "HITS", "ORIGIN", "ADDED", "EXPIRES", "REASON"],
        &rows,
    )
}

/// The origin, with words for a rule that is not known any more.
fn origin(origin: &Origin) -> String {
    match origin.name() {
        Some("") => format!("{} (gone)", origin.kind()),
        _ => origin.to_string(),
    }
}

fn things_hit(hits: u64) -> String {
    if hits == 1 {
        "1 hit".to_owned()
    } else {
        format!("{} hits", grouped(hits))
    }
}

pub(super) fn list(page: &ListPage, style: Style, now: SystemTime) -> String {
    if page.entries.is_empty() {
        return if page.total == 0 {
            "no entries\n".to_owned()
        } else {
            format!(
                "no entries from the {}th on; there are {}\n",
                grouped(page.offset as u64 + 1),
                grouped(page.total as u64)
            )
        };
    }
    let mut text = entries(&page.entries, style, now);
    if page.entries.len() < page.total {
        let _ = writeln!(
            text,
            "\n{} of {}; --offset and --limit show others",
            grouped(page.entries.len() as u64),
            things(page.total, "entry", "entries")
        );
    }
    text
}

pub(super) fn show(covering: &Covering, style: Style, now: SystemTime) -> String {
    let Covering {
        prefix,
        blocked,
        never_blocked,
        entries: found,
    } = covering;
    let name = if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    };
    let verdict = match (never_blocked, blocked) {
        (Some(by), _) => style.paint(
            Paint::Good,
            &format!("{name} is never blocked: blocklist.never-block has {by}"),
        ),
        (None, true) => style.paint(Paint::Bad, &format!("{name} is blocked")),
        (None, false) if found.is_empty() => {
            style.paint(Paint::Good, &format!("{name} is not blocked"))
        }
        (None, false) => style.paint(
            Paint::Doubtful,
            &format!("{name} is not blocked as a whole, but parts of it are"),
        ),
    };
    if found.is_empty() {
        return format!("{verdict}\n");
    }
    let first = match (blocked, found.len()) {
        (true, 2..) => "\nThe first entry is the one that counts.\n",
        _ => "",
    };
    format!("{verdict}\n\n{}{first}", entries(found, style, now))
}

pub(super) fn added(reply: &AddReply, now: SystemTime) -> String {
    let Some(entry) = &reply.entry else {
        return "blocked, and removed again meanwhile\n".to_owned();
    };
    let time = match entry.expires {
        None => "until it is removed".to_owned(),
        // rounded, since a moment has passed since it was added
        Some(end) => {
            let left = end.duration_since(now).unwrap_or_default();
            format!(
                "for {}",
                duration(std::time::Duration::from_secs(
                    left.as_secs_f64().round() as u64
                ))
            )
        }
    };
    let what = if reply.added {
        "blocked"
    } else {
        "changed the block of"
    };
    let mut text = format!("{what} {} {time}\n", entry.prefix);
    if let Some(evicted) = &reply.evicted {
        let _ = writeln!(
            text,
            "the blocklist is full: {} ({}) had to make room",
            evicted.prefix,
            origin(&evicted.origin)
        );
    }
    text
}

pub(super) fn imported(report: &ImportReport) -> String {
    let mut text = format!(
        "{} added, {} changed\n",
        things(report.added, "entry", "entries"),
        grouped(report.renewed as u64)
    );
    if report.evicted > 0 {
        let _ = writeln!(
            text,
            "the blocklist is full: {} had to make room",
            things(report.evicted, "entry", "entries")
        );
    }
    if report.refused > 0 {
        let _ = writeln!(
            text,
            "{} not taken:",
            things(report.refused, "line was", "lines were")
        );
        for refusal in &report.refusals {
            let _ = writeln!(text, "  {refusal}");
        }
        if report.refused > report.refusals.len() {
            let _ = writeln!(
                text,
                "  and {} more",
                grouped((report.refused - report.refusals.len()) as u64)
            );
        }
    }
    text
}

pub(super) fn stats(status: &BlocklistStatus, style: Style, now: SystemTime) -> String {
    let of = |entries: usize, limit: usize| {
        format!("{} of {}", grouped(entries as u64), grouped(limit as u64))
    };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "dynamic entries  {}",
        of(status.dynamic_entries, status.dynamic_limit)
    );
    let _ = writeln!(
        text,
        "static entries   {}",
        of(status.static_entries, status.static_limit)
    );
    let _ = writeln!(
        text,
        "since the start  {} expired, {} evicted, {} of rules refused",
        grouped(status.expired),
        grouped(status.evicted),
        grouped(status.refused)
    );
    match &status.unsaved {
        None => {
            let _ = writeln!(text, "saved in         {}", status.state_file);
        }
        Some(failure) => {
            let _ = writeln!(
                text,
                "{}",
                style.paint(Paint::Bad, &format!("NOT SAVED        {failure}"))
            );
        }
    }
    if !status.files.is_empty() {
        let rows: Vec<Vec<Cell>> = status
            .files
            .iter()
            .map(|file| {
                vec![
                    file.name.as_str().into(),
                    Cell::count(file.entries as u64),
                    Cell::count(file.duplicates as u64),
                    ago(now, file.loaded).into(),
                    match &file.failure {
                        None => Cell::painted("in force", Paint::Good),
                        Some(failure) => Cell::painted(
                            format!("an older version is in force: {failure}"),
                            Paint::Bad,
                        ),
                    },
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(
            style,
            &["FILE", "ENTRIES", "REPEATED", "LOADED", "STATE"],
            &rows,
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::api::ListFileStatus;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn now() -> SystemTime {
        NOW + Duration::from_secs(1_700_000_000)
    }

    fn entry(prefix: &str, origin: &str, reason: &str, left: Option<u64>, hits: u64) -> Entry {
        Entry {
            prefix: prefix.parse().unwrap(),
            reason: reason.to_owned(),
            origin: origin.parse().unwrap(),
            created: now() - Duration::from_secs(19),
            expires: left.map(|left| now() + Duration::from_secs(left)),
            hits,
        }
    }

    fn examples() -> Vec<Entry> {
        vec![
            entry(
                "192.0.2.7/32",
                "rule:any-flood",
                "rule any-flood",
                Some(581),
                1_234_567,
            ),
            entry("192.0.2.0/24", "list:lists/drop.txt", "SBL123", None, 0),
            entry("2001:db8::/32", "cli", "", Some(86_400), 3),
        ]
    }

    #[test]
    fn listing() {
        let page = ListPage {
            total: 2_000,
            offset: 0,
            entries: examples(),
        };
        insta::assert_snapshot!(list(&page, Style::default(), now()));
        let none = ListPage {
            total: 0,
            offset: 0,
            entries: Vec::new(),
        };
        assert_eq!(list(&none, Style::default(), now()), "no entries\n");
    }

    #[test]
    fn showing() {
        let mut covering = Covering {
            prefix: "192.0.2.7/32".parse().unwrap(),
            blocked: true,
            never_blocked: None,
            entries: examples().into_iter().take(2).collect(),
        };
        insta::assert_snapshot!(show(&covering, Style::default(), now()));
        covering.never_blocked = Some("192.0.2.0/28".parse().unwrap());
        assert!(
            show(&covering, Style::default(), now()).starts_with(
                "192.0.2.7 is never blocked: blocklist.never-block has 192.0.2.0/28\n"
            )
        );
        covering = Covering {
            blocked: false,
            never_blocked: None,
            entries: Vec::new(),
            ..covering
        };
        assert_eq!(
            show(&covering, Style::default(), now()),
            "192.0.2.7 is not blocked\n"
        );
    }

    #[test]
    fn adding_and_importing() {
        let entry = entry("192.0.2.0/24", "cli", "flood", Some(600), 0);
        let mut reply = AddReply {
            added: true,
            entry: Some(entry),
            evicted: None,
        };
        assert_eq!(
            added(&reply, now() + Duration::from_millis(20)),
            "blocked 192.0.2.0/24 for 10m\n"
        );
        reply.evicted = examples().pop();
        assert!(added(&reply, now()).contains("2001:db8::/32 (cli) had to make room"));
        let report = ImportReport {
            added: 1,
            renewed: 2,
            evicted: 0,
            refused: 2,
            refusals: vec![
                "line 3: 203.0.113.7/32: 203.0.113.0/24 is never blocked (blocklist.never-block)"
                    .to_owned(),
            ],
        };
        insta::assert_snapshot!(imported(&report));
    }

    #[test]
    fn statistics() {
        let file = |name: &str, failure: Option<&str>| ListFileStatus {
            name: name.to_owned(),
            entries: 1_000_000,
            duplicates: 12,
            loaded: now() - Duration::from_secs(7_200),
            failure: failure.map(str::to_owned),
        };
        let status = BlocklistStatus {
            static_entries: 2_000_000,
            static_limit: 3_000_000,
            dynamic_entries: 17,
            dynamic_limit: 100_000,
            expired: 4,
            evicted: 0,
            refused: 1,
            state_file: "/var/lib/dnscrub/blocklist.json".to_owned(),
            unsaved: None,
            files: vec![
                file("lists/drop.txt", None),
                file(
                    "lists/feed.txt",
                    Some("line 7: found \"x\", expected an address"),
                ),
            ],
        };
        insta::assert_snapshot!(stats(&status, Style::default(), now()));
        let unsaved = BlocklistStatus {
            unsaved: Some("cannot write /x: No space left on device".to_owned()),
            ..status
        };
        assert!(
            stats(&unsaved, Style::default(), now())
                .contains("NOT SAVED        cannot write /x: No space")
        );
    }

    #[test]
    fn queries_are_encoded() {
        let query = ListQuery {
            reason: Some("a b&c=ü".to_owned()),
            limit: Some(5),
            ..ListQuery::default()
        };
        assert_eq!(
            path("/p", &query).unwrap(),
            "/p?reason=a%20b%26c%3D%C3%BC&limit=5"
        );
    }
}
