//! What is written about an incident when it is over, or while it goes on: a pure function of the record.
//!
//! [`account`] says what there is to say, in parts; [`markdown`] and [`html`] write the parts down.

pub mod account;
pub mod html;
pub mod markdown;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

/// A part of an account.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A heading.
    Heading(&'static str),
    /// A sentence or two.
    Text(String),
    /// Something that is to be seen first.
    Notice(String),
    /// Things, one below the other.
    List(Vec<String>),
    /// A table.
    Table(Table),
    /// A plot over time.
    Plot(Plot),
}

/// A table; each row has as many cells as the heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The columns' titles, and whether what is below is numbers.
    pub heading: Vec<(&'static str, bool)>,
    /// The cells.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Words and numbers.
    Text(String),
    /// A name or an address, letter by letter.
    Code(String),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Rates over time, stacked.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// What it shows.
    pub title: &'static str,
    /// The steps' edges, in seconds since 1970: one more than steps.
    pub edges: Vec<f64>,
    /// What is stacked, the lowest first.
    pub layers: Vec<Layer>,
    /// Moments to be marked.
    pub moments: Vec<f64>,
}

/// A layer of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// What it is.
    pub label: &'static str,
    /// Its class in the page's style sheet.
    pub class: &'static str,
    /// Its values, one a step.
    pub values: Vec<f64>,
}

/// All that there is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The heading of all.
    pub title: String,
    /// In their order.
    pub parts: Vec<Part>,
}

/// Text of strangers with everything visible: characters that control, hide or reorder what stands around them are
/// written as `\u{…}`.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for character in text.chars() {
        let unseen = character.is_control()
            || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
        if unseen {
            let _ = write!(seen, "\\u{{{:x}}}", u32::from(character));
        } else {
            seen.push(character);
        }
    }
    seen
}

/// `2026-11-25 23:31:44 UTC`, from seconds since 1970.
fn moment(at: f64) -> String {
    let text = rfc3339(at);
    format!("{} UTC", text.replace('T', " ").trim_end_matches('Z'))
}

/// `23:31:44`.
fn clock(at: f64) -> String {
    let text = rfc3339(at);
    let time = text.split('T').nth(1).unwrap_or(&text);
    time.trim_end_matches('Z').to_owned()
}

fn rfc3339(at: f64) -> String {
    // what no calendar holds is shown as the beginning of time
    let since = Duration::try_from_secs_f64(at.clamp(0.0, 2e11)).unwrap_or_default();
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
