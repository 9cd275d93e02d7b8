//! Tables, numbers, times and colours.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use crate::legible::{grouped, rate};

/// How something is painted, where there is colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Paint {
    /// As it is.
    #[default]
    Plain,
    /// Stands out.
    Bold,
    /// Stands back.
    Dim,
    /// All is well.
    Good,
    /// To be looked at.
    Doubtful,
    /// Something is wrong.
    Bad,
}

/// Whether there is colour.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    pub(super) colour: bool,
}

impl Style {
    /// For standard output: colour on a terminal, unless `NO_COLOR` is set.
    pub(super) fn of_stdout() -> Self {
        Self {
            colour: io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
        }
    }

    /// The same for standard error.
    pub(super) fn of_stderr() -> Self {
        Self {
            colour: io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
        }
    }

    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Plain => "",
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Good => "32",
            Paint::Doubtful => "33",
            Paint::Bad => "31",
        };
        if self.colour && !code.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
    right: bool,
}

impl Cell {
    pub(super) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self {
            paint,
            ..text.into().into()
        }
    }

    /// A count, to the right of its column.
    pub(super) fn count(number: u64) -> Self {
        Self {
            text: grouped(number),
            right: true,
            paint: Paint::Plain,
        }
    }

    /// Text to the right of its column.
    pub(super) fn right(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            right: true,
            paint: Paint::Plain,
        }
    }
}

impl From<String> for Cell {
    /// Control characters, which could come from a list file or a name, would disturb the terminal.
    fn from(text: String) -> Self {
        Self {
            text: text.replace(char::is_control, "\u{fffd}"),
            ..Self::default()
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// A table with a heading, columns aligned, two blanks between them. A heading is aligned as the
/// column's first cell.
pub(super) fn table(style: Style, heading: &[&str], rows: &[Vec<Cell>]) -> String {
    let columns = heading.len();
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(&cell.text));
            cells
                .chain(heading.get(column).map(|text| width(text)))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let heading: Vec<Cell> = heading
        .iter()
        .enumerate()
        .map(|(column, text)| Cell {
            text: (*text).to_owned(),
            paint: Paint::Dim,
            right: rows
                .first()
                .and_then(|row| row.get(column))
                .is_some_and(|cell| cell.right),
        })
        .collect();
    let mut out = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        let mut pending = 0;
        for (cell, &wide) in row.iter().zip(&widths) {
            let gap = wide.saturating_sub(width(&cell.text));
            let before = if cell.right { gap } else { 0 };
            // blanks are written when something follows them
            if !cell.text.is_empty() {
                line.push_str(&" ".repeat(pending + before));
                line.push_str(&style.paint(cell.paint, &cell.text));
                pending = 0;
            } else {
                pending += before;
            }
            pending += gap - before + 2;
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// A number of things: `1 entry`, `2 entries`.
pub(super) fn things(number: usize, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number as u64),
        if number == 1 { one } else { many }
    )
}

/// A time in its two largest units: `9m 41s`, `3d 4h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let Some(first) = units.iter().position(|(unit, _)| seconds >= *unit) else {
        return "0s".to_owned();
    };
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, name) in units.iter().skip(first).take(2) {
        let number = rest / unit;
        rest %= unit;
        if number > 0 {
            parts.push(format!("{number}{name}"));
        }
    }
    parts.join(" ")
}

/// How long it is from one instant to another, in seconds since 1970; `0s` when it is over.
pub(super) fn between(from: f64, to: f64) -> String {
    duration(Duration::try_from_secs_f64(to - from).unwrap_or_default())
}

/// Events a second: `4.2/s`.
pub(super) fn per_second(events: f32) -> String {
    format!("{}/s", rate(events.into()))
}

/// How long ago: `3m 12s ago`.
pub(super) fn ago(now: SystemTime, then: SystemTime) -> String {
    match now.duration_since(then) {
        Ok(since) if since < Duration::from_secs(1) => "just now".to_owned(),
        Ok(since) => format!("{} ago", duration(since)),
        // clocks differ
        Err(_) => "just now".to_owned(),
    }
}

/// When it ends: `in 9m 41s`, `never`.
pub(super) fn until(now: SystemTime, end: Option<SystemTime>) -> String {
    match end.map(|end| end.duration_since(now)) {
        None => "never".to_owned(),
        Some(Ok(left)) => format!("in {}", duration(left.max(Duration::from_secs(1)))),
        Some(Err(_)) => "now".to_owned(),
    }
}

/// Prints an answer. A reader that has gone away, such as `head`, is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(failure) if failure.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let rows = [
            vec![Cell::from("a"), Cell::count(1), Cell::from("")],
            vec![Cell::from("longer"), Cell::count(12_345), Cell::from("x")],
        ];
        let text = table(Style::default(), &["NAME", "HITS", "WHY"], &rows);
        assert_eq!(
            text,
            "NAME      HITS  WHY\na            1\nlonger  12,345  x\n"
        );
    }

    #[test]
    fn colour_does_not_disturb_the_columns() {
        let rows = [
            vec![Cell::painted("up", Paint::Good), Cell::from("x")],
            vec![Cell::from("down"), Cell::from("y")],
        ];
        let text = table(Style { colour: true }, &["STATE", "NAME"], &rows);
        assert_eq!(
            text,
            "\x1b[2mSTATE\x1b[0m  \x1b[2mNAME\x1b[0m\n\x1b[32mup\x1b[0m     x\ndown   y\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = table(
            Style::default(),
            &["WHY"],
            &[vec![Cell::from("\x1b[31mred\n")]],
        );
        assert!(!text.contains('\x1b'));
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn times_and_numbers_are_for_people() {
        let seconds = Duration::from_secs;
        for (time, text) in [
            (0, "0s"),
            (59, "59s"),
            (581, "9m 41s"),
            (600, "10m"),
            (90_000, "1d 1h"),
            (86_400 + 60, "1d"),
        ] {
            assert_eq!(duration(seconds(time)), text);
        }
        let now = SystemTime::UNIX_EPOCH + seconds(1000);
        assert_eq!(until(now, Some(now + seconds(581))), "in 9m 41s");
        assert_eq!(
            (until(now, None), until(now, Some(now - seconds(1)))),
            ("never".to_owned(), "now".to_owned())
        );
        assert_eq!(
            (ago(now, now - seconds(90)), ago(now, now)),
            ("1m 30s ago".to_owned(), "just now".to_owned())
        );
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_234_567)),
            ("0".to_owned(), "999".to_owned(), "1,234,567".to_owned())
        );
    }
}
