//! The playbooks as pages: as they are in docs/playbooks of this version, since whoever needs them at night may not reach
//! anything else.

use dnscrub_detection::Kind;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};

use crate::report::markup::escape;

/// A playbook.
#[derive(Clone, Copy, Debug)]
pub(super) struct Playbook {
    /// Its name; empty for the page that leads to the others.
    name: &'static str,
    /// As it is written.
    text: &'static str,
}

macro_rules! playbook {
    ($name:literal) => {
        playbook!($name, $name)
    };
    ($name:literal, $file:literal) => {
        Playbook {
            name: $name,
            text: include_str!(concat!("../../../../../docs/playbooks/", $file, ".md")),
        }
    };
}

const INDEX: Playbook = playbook!("", "README");
const NOT_DNS: Playbook = playbook!("it-is-not-dns");

const fn of(kind: Kind) -> Playbook {
    match kind {
        Kind::RandomSubdomains => playbook!("random-subdomains"),
        Kind::DirectFlood => playbook!("direct-flood"),
        Kind::Reflection => playbook!("reflection"),
        Kind::SpoofedCarpet => playbook!("spoofed-carpet"),
        Kind::SpoofedResolvers => playbook!("spoofed-resolvers"),
        Kind::Pulse => playbook!("pulse"),
        Kind::TcpExhaustion => playbook!("tcp-exhaustion"),
        Kind::MalformedFlood => playbook!("malformed-flood"),
        Kind::QueryLoop => playbook!("query-loop"),
        Kind::FlashCrowd => playbook!("flash-crowd"),
        Kind::UpstreamFailure => playbook!("upstream-failure"),
    }
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Playbook> {
    [INDEX, NOT_DNS]
        .into_iter()
        .chain(Kind::ALL.into_iter().map(of))
}

impl Playbook {
    /// Where it is served.
    pub(super) fn path(self) -> String {
        format!("/playbooks/{}", self.name)
    }

    /// As a page.
    pub(super) fn page(self) -> String {
        let title = self.text.lines().next().unwrap_or_default();
        let title = escape(title.trim_start_matches(['#', ' ']));
        let mut body = String::new();
        html::push_html(&mut body, events(self.text).into_iter());
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{title} – dnscrub</title>\n\
             <link rel=\"icon\" href=\"/page/icon.svg\" type=\"image/svg+xml\"/>\n\
             <link rel=\"stylesheet\" href=\"/page/page.css\"/>\n</head>\n<body>\n\
             <header class=\"bar\"><p><a href=\"/\">← Status</a></p><p><a href=\"/playbooks/\">All playbooks</a></p></header>\n\
             <main class=\"playbook card\">\n{body}</main>\n</body>\n</html>\n"
        )
    }
}

/// What is written, with names for headings, and with links to what is served.
fn events(text: &'static str) -> Vec<Event<'static>> {
    let mut events: Vec<Event> = Parser::new_ext(text, Options::ENABLE_TABLES).collect();
    let mut heading = None;
    let mut said = String::new();
    for at in 0..events.len() {
        let name = match events.get(at) {
            Some(Event::Start(Tag::Heading { .. })) => {
                heading = Some(at);
                said.clear();
                continue;
            }
            Some(Event::Text(text) | Event::Code(text)) => {
                said.push_str(text);
                continue;
            }
            Some(Event::End(TagEnd::Heading(_))) => anchor(&said),
            _ => continue,
        };
        let start = heading.and_then(|heading| events.get_mut(heading));
        if let Some(Event::Start(Tag::Heading { id, .. })) = start {
            *id = Some(name.into());
        }
    }
    // a link that leads to what is not served ends where it began
    let mut dead = false;
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Start(Tag::Link {
                link_type,
                dest_url,
                title,
                id,
            }) => {
                let target = target(&dest_url);
                dead = target.is_none();
                target.map(|dest_url| {
                    Event::Start(Tag::Link {
                        link_type,
                        dest_url,
                        title,
                        id,
                    })
                })
            }
            Event::End(TagEnd::Link) if std::mem::take(&mut dead) => None,
            // there is none in them, and none is to come in
            Event::Html(text) | Event::InlineHtml(text) => Some(Event::Text(text)),
            event => Some(event),
        })
        .collect()
}

/// What a link of a playbook leads to here: another playbook or a place in this one. The rest of docs/ is not served.
fn target(link: &str) -> Option<CowStr<'static>> {
    if link.starts_with('#') {
        return Some(link.to_owned().into());
    }
    let (file, place) = match link.split_once('#') {
        Some((file, place)) => (file, format!("#{place}")),
        None => (link, String::new()),
    };
    let name = file.strip_suffix(".md")?;
    let name = if name == "README" { "" } else { name };
    all()
        .any(|playbook| playbook.name == name)
        .then(|| format!("/playbooks/{name}{place}").into())
}

/// The name of a heading, as GitHub makes it, so that links work in both places.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|it| match it {
        ' ' | '-' => Some('-'),
        it if it.is_alphanumeric() || it == '_' => Some(it.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::report::markup::assert_well_formed;

    #[test]
    fn every_kind_of_incident_has_its_playbook() {
        let paths: BTreeSet<String> = all().map(Playbook::path).collect();
        assert_eq!(paths.len(), Kind::ALL.len() + 2);
        for kind in Kind::ALL {
            assert!(
                paths.contains(&format!("/playbooks/{}", kind.label())),
                "{kind:?}"
            );
            assert_eq!(of(kind).name, kind.label());
        }
        assert!(all().all(|it| it.text.starts_with("# ")));
    }

    /// The values of an attribute, wherever it stands.
    fn values<'a>(page: &'a str, attribute: &str) -> Vec<&'a str> {
        let opening = format!(" {attribute}=\"");
        let parts = page.split(opening.as_str()).skip(1);
        parts.map(|part| part.split('"').next().unwrap()).collect()
    }

    #[test]
    fn pages_are_whole_and_their_links_lead_somewhere() {
        let pages: BTreeMap<String, String> = all().map(|it| (it.path(), it.page())).collect();
        for (path, page) in &pages {
            assert_well_formed(page);
            assert!(page.contains("<h1 id="), "{path}");
            for active in ["<script", "<style", "<img", "<iframe", " style="] {
                assert!(!page.contains(active), "{path}: {active}");
            }
            for href in values(page, "href") {
                let (to, place) = href.split_once('#').unwrap_or((href, ""));
                let target = match to {
                    "" => page,
                    "/" | "/page/icon.svg" | "/page/page.css" => continue,
                    to => pages.get(to).unwrap_or_else(|| panic!("{path}: {href}")),
                };
                assert!(
                    place.is_empty() || values(target, "id").contains(&place),
                    "{path}: {href}"
                );
            }
        }
        let index = &pages["/playbooks/"];
        assert!(index.contains("<table>") && index.contains("href=\"/playbooks/it-is-not-dns\""));
        // docs/replay.md is not served: it is named, without a link
        assert!(
            index.contains("replay") && !index.contains("../"),
            "{index}"
        );
    }

    #[test]
    fn markup_in_a_playbook_is_text() {
        let mut body = String::new();
        html::push_html(
            &mut body,
            events("# a\n\n<script>x</script>\n\nb <b>c</b>\n").into_iter(),
        );
        assert!(!body.contains("<script") && !body.contains("<b>"), "{body}");
    }
}
