//! The manual pages of the signals: the module documentation of each one's file.

use crate::evidence::Kind;
use crate::signals::FILES;

/// A signal's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its name, as in the configuration.
    pub signal: &'static str,
    /// What its evidence is about.
    pub kind: Kind,
    /// What it looks at, in a line.
    pub summary: String,
    /// The rest, as Markdown.
    pub text: String,
}

/// The pages of all signals, in their order.
#[must_use]
pub fn signals() -> Vec<Page> {
    FILES
        .iter()
        .map(|&(signal, kind, source)| {
            let (summary, text) = documentation(signal, source);
            Page {
                signal,
                kind,
                summary,
                text,
            }
        })
        .collect()
}

/// The first paragraph of a file's module documentation, without the signal's name that it begins with;
/// and what follows.
fn documentation(signal: &str, source: &str) -> (String, String) {
    let lines: Vec<&str> = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let all = lines.join("\n");
    let (first, rest) = all.split_once("\n\n").unwrap_or((&all, ""));
    let title = format!("`{signal}`: ");
    let summary = first.strip_prefix(&title).unwrap_or_default();
    let mut letters = summary.chars();
    let capital = letters.next().into_iter().flat_map(char::to_uppercase);
    (
        capital
            .chain(letters)
            .collect::<String>()
            .replace('\n', " "),
        rest.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_stands_above_the_code() {
        let source = "//! `rate`: queries\n//! per time.\n//!\n//! More.\n//!\n//! ```yaml\n//! a:\n//!   b: 1\n//! ```\n\nuse x;\n//! no";
        let (summary, text) = documentation("rate", source);
        assert_eq!(summary, "Queries per time.");
        assert_eq!(text, "More.\n\n```yaml\na:\n  b: 1\n```");
    }

    #[test]
    fn every_signal_has_a_page_with_an_example() {
        let pages = signals();
        assert!(!pages.is_empty());
        for page in pages {
            let name = page.signal;
            assert!(
                page.summary.ends_with('.'),
                "{name}: its file begins with `{name}`: and a sentence"
            );
            let own = format!("signals:\n  {name}:");
            assert!(
                page.text.contains("```yaml\n") && page.text.contains(&own),
                "{name} has no example"
            );
        }
    }
}
