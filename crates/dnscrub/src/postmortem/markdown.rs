//! An account as Markdown (CommonMark, with GitHub's tables). Plots are lines of blocks.

use std::fmt::Write as _;

use super::{Account, Cell, Part, Plot, Table};
use crate::legible::rate;
use crate::unix_time::time_of_day;

/// Columns of a plot.
const COLUMNS: usize = 60;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The text.
#[must_use]
pub fn text(account: &Account) -> String {
    let mut text = format!("# {}\n", escape(&account.title));
    for part in &account.parts {
        text.push('\n');
        match part {
            Part::Heading(heading) => {
                let _ = writeln!(text, "## {heading}");
            }
            Part::Text(words) => {
                let _ = writeln!(text, "{}", escape(words));
            }
            Part::Notice(words) => {
                let _ = writeln!(text, "> {}", escape(words));
            }
            Part::List(things) => {
                for thing in things {
                    let _ = writeln!(text, "- {}", escape(thing));
                }
            }
            Part::Table(table) => write_table(&mut text, table),
            Part::Plot(plot) => write_plot(&mut text, plot),
        }
    }
    text
}

fn write_table(text: &mut String, table: &Table) {
    text.push('|');
    for (title, _) in &table.heading {
        let _ = write!(text, " {title} |");
    }
    text.push_str("\n|");
    for (_, numbers) in &table.heading {
        text.push_str(if *numbers { "---:|" } else { "---|" });
    }
    text.push('\n');
    for row in &table.rows {
        text.push('|');
        for cell in row {
            let written = match cell {
                Cell::Text(words) => escape(words),
                // in a table a bar ends the cell, in code as well
                Cell::Code(code) => span(code).replace('|', "\\|"),
            };
            let _ = write!(text, " {written} |");
        }
        text.push('\n');
    }
}

/// The layers one below the other, each on the scale of the highest of all.
fn write_plot(text: &mut String, plot: &Plot) {
    let (Some(from), Some(to)) = (plot.edges.first(), plot.edges.last()) else {
        return;
    };
    let rows: Vec<Vec<f64>> = plot
        .layers
        .iter()
        .map(|layer| columns(&plot.edges, &layer.values, *from, *to))
        .collect();
    let top = rows.iter().flatten().copied().fold(0.0, f64::max);
    let wide = plot
        .layers
        .iter()
        .map(|layer| layer.label.len())
        .max()
        .unwrap_or(0);
    let _ = writeln!(text, "{}:\n\n```text", plot.title);
    for (layer, row) in plot.layers.iter().zip(&rows) {
        let bars: String = row.iter().map(|value| block(*value, top)).collect();
        let most = layer.values.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "{:<wide$}  {bars}  at most {}",
            layer.label,
            rate(most)
        );
    }
    let _ = writeln!(
        text,
        "{:<wide$}  {:<half$}{:>half$}\n```",
        "",
        time_of_day(*from),
        time_of_day(*to),
        half = COLUMNS / 2
    );
}

/// The highest value in each column's time.
#[allow(clippy::cast_precision_loss, reason = "a drawing")]
fn columns(edges: &[f64], values: &[f64], from: f64, to: f64) -> Vec<f64> {
    let wide = (to - from).max(1e-9) / COLUMNS as f64;
    (0..COLUMNS)
        .map(|column| {
            let begin = from + column as f64 * wide;
            let end = begin + wide;
            edges
                .windows(2)
                .zip(values)
                .filter(|(edges, _)| matches!(edges, [a, b] if *a < end && *b > begin))
                .map(|(_, value)| *value)
                .fold(0.0, f64::max)
        })
        .collect()
}

/// What is not nothing shows.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of eight"
)]
fn block(value: f64, top: f64) -> char {
    if value <= 0.0 || top <= 0.0 {
        return ' ';
    }
    let eighths = (value / top * 8.0).round().clamp(1.0, 8.0) as usize;
    BLOCKS.get(eighths).copied().unwrap_or(' ')
}

/// Words that cannot be taken for markup, wherever they stand in a line.
pub(super) fn escape(words: &str) -> String {
    let mut escaped = String::with_capacity(words.len());
    for (at, character) in words.char_indices() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' => {
                escaped.push('\\');
                escaped.push(character);
            }
            // at the beginning it would be a list or a line
            '-' | '+' | '=' if at == 0 => {
                escaped.push('\\');
                escaped.push(character);
            }
            // an address must not become a link of its own
            ':' if words.get(at..).is_some_and(|rest| rest.starts_with("://")) => {
                escaped.push_str("\\:");
            }
            '@' => escaped.push_str("\\@"),
            character => escaped.push(character),
        }
    }
    escaped.replace("www.", "www\\.")
}

/// A code span: it begins and ends with more backticks than there are in it.
fn span(code: &str) -> String {
    let longest = code
        .split(|character| character != '`')
        .map(str::len)
        .max()
        .unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if code.starts_with('`') || code.ends_with('`') {
        " "
    } else {
        ""
    };
    format!("{fence}{pad}{code}{pad}{fence}")
}
