//! What is written about an incident when it is over, or while it goes on: a pure function of the record.
//!
//! [`account`] says what there is to say, in parts; [`markdown`] and [`html`] write the parts down.

pub mod account;
pub mod html;
pub mod markdown;
#[cfg(test)]
mod tests;

use crate::unix_time;

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

/// `2026-11-25 23:31:44 UTC`, from seconds since 1970.
fn moment(at: f64) -> String {
    format!("{} UTC", unix_time::date(at))
}
