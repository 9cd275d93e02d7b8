//! What is wrong with a configuration, said so that it can be mended without the manual.

use std::fmt;

use serde::Serialize;

use crate::legible::visible;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong, in one line, for example "unknown key `lissten`".
    pub message: String,
    /// The setting concerned, as a dotted path such as `rules[3].when.qname`; empty where the
    /// problem concerns the file as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Where it is written; `None` only where there is no text to point at (a missing file).
    #[serde(flatten)]
    pub place: Place,
    /// What stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What could stand there instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The known name that resembles an unknown one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Another place that belongs to the problem, such as the first of two equal names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Place {
    /// The file, as it was named by the user or by the file that includes it.
    pub file: String,
    /// The line, counted from 1; 0 where the file has no text to point at.
    pub line: usize,
    /// The column in characters, counted from 1; 0 where the line as a whole is meant.
    pub column: usize,
    /// How many characters are meant.
    #[serde(skip)]
    pub width: usize,
    /// The line's text.
    #[serde(rename = "text", skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// A second place, and what it has to do with the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// What is there, for example "`web` is defined here first".
    pub message: String,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
}

/// The longest "expected" text that still goes beside the caret instead of below the source line.
const LABEL_LIMIT: usize = 72;

impl Problem {
    /// A problem at a place; the rest is added by the `with_` methods.
    #[must_use]
    pub fn new(place: Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            path: path.into(),
            place,
            found: None,
            expected: None,
            suggestion: None,
            help: None,
            related: None,
        }
    }

    /// Says what stands there.
    #[must_use]
    pub fn with_found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    /// Says what could stand there.
    #[must_use]
    pub fn with_expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Names the known name of `known` that is nearest to `unknown`, if one is near enough.
    #[must_use]
    pub fn with_nearest<'a>(
        mut self,
        unknown: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        self.suggestion = super::nearest::nearest(unknown, known).map(str::to_owned);
        self
    }

    /// Points at a second place.
    #[must_use]
    pub fn with_related(mut self, place: Place, message: impl Into<String>) -> Self {
        self.related = Some(Related {
            message: message.into(),
            place,
        });
        self
    }
}

impl fmt::Display for Problem {
    /// The message, the place, the source line with the place underlined, and what to do. What a terminal would obey or
    /// hide is escaped: the file may be anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", visible(&self.message))?;
        let label = self
            .expected
            .as_ref()
            .filter(|text| text.chars().count() <= LABEL_LIMIT && !self.place.source.is_empty());
        let margin = self
            .place
            .line
            .max(self.related.as_ref().map_or(0, |it| it.place.line))
            .to_string()
            .len();
        self.place.write(
            f,
            margin,
            &label.map_or_else(String::new, |text| format!("expected {}", visible(text))),
        )?;
        if let Some(related) = &self.related {
            related.place.write(f, margin, &visible(&related.message))?;
        }
        if let Some(found) = &self.found {
            write!(f, "\n{:margin$} = found: {}", "", visible(found))?;
        }
        if let (None, Some(expected)) = (label, &self.expected) {
            write!(f, "\n{:margin$} = expected: {}", "", visible(expected))?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(
                f,
                "\n{:margin$} = help: did you mean `{}`?",
                "",
                visible(suggestion)
            )?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{:margin$} = help: {}", "", visible(help))?;
        }
        Ok(())
    }
}

impl Place {
    /// A file as a whole.
    #[must_use]
    pub fn file(name: impl Into<String>) -> Self {
        Self {
            file: name.into(),
            ..Self::default()
        }
    }

    /// A place in a text, given as line and column, both counted from 1. The width is cut at the
    /// line's end, and is at least one character.
    #[must_use]
    pub fn in_text(
        name: impl Into<String>,
        text: &str,
        line: usize,
        column: usize,
        width: usize,
    ) -> Self {
        let source = text
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default()
            .trim_end();
        let left = source.chars().count().saturating_sub(column.max(1) - 1);
        Self {
            file: name.into(),
            line,
            column,
            width: width.min(left).max(1),
            source: source.to_owned(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, margin: usize, label: &str) -> fmt::Result {
        write!(f, "\n{:margin$}--> {}", "", visible(&self.file))?;
        if self.line == 0 {
            return Ok(());
        }
        write!(f, ":{}", self.line)?;
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        // A tab is as wide as the reader's terminal makes it; one blank keeps the caret in place.
        let source = self.source.replace('\t', " ");
        write!(
            f,
            "\n{:margin$} |\n{:>margin$} | {}\n{:margin$} | ",
            "",
            self.line,
            visible(&source),
            ""
        )?;
        // characters of the line as they are shown; one where there is none
        let shown = |from: usize, count: usize| {
            let part: String = source.chars().skip(from).take(count).collect();
            let beyond = count.saturating_sub(part.chars().count());
            visible(&part).chars().count() + beyond
        };
        let before = self.column.saturating_sub(1);
        let (indent, width) = (shown(0, before), shown(before, self.width));
        write!(f, "{:indent$}{:^<width$}", "", "")?;
        if label.is_empty() {
            return Ok(());
        }
        write!(f, " {label}")
    }
}

/// Everything found wrong with a configuration; never empty when it is returned as an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Puts problems in the order in which a reader meets them, file by file from top to bottom,
    /// and drops repetitions.
    #[must_use]
    pub fn in_order(mut problems: Vec<Problem>) -> Self {
        let mut files: Vec<String> = Vec::new();
        for problem in &problems {
            if !files.contains(&problem.place.file) {
                files.push(problem.place.file.clone());
            }
        }
        problems.sort_by_key(|problem| {
            let file = files.iter().position(|it| *it == problem.place.file);
            (file, problem.place.line, problem.place.column)
        });
        problems.dedup();
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            write!(f, "{problem}\n\n")?;
        }
        match self.0.len() {
            1 => write!(f, "1 error: the configuration is not used"),
            count => write!(f, "{count} errors: the configuration is not used"),
        }
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_of_a_file_does_nothing_to_a_terminal() {
        let text = "a\u{1b}[31m\tb\u{9b}x: y\n";
        let problem = Problem::new(
            Place::in_text("it\u{1b}.yaml", text, 1, 8, 2),
            "",
            "no \u{7f}",
        )
        .with_found("\u{202e}")
        .with_expected("b")
        .with_help("c\r")
        .with_related(Place::in_text("it", text, 1, 9, 99), "d\u{1b}");
        let told = problem.to_string();
        let expected = [
            "error: no \\u{7f}",
            " --> it\\u{1b}.yaml:1:8",
            "  |",
            "1 | a\\u{1b}[31m b\\u{9b}x: y",
            &format!("  | {:12}^^^^^^^ expected b", ""),
            " --> it:1:9",
            "  |",
            "1 | a\\u{1b}[31m b\\u{9b}x: y",
            &format!("  | {:13}^^^^^^^^^^ d\\u{{1b}}", ""),
            "  = found: \\u{202e}",
            "  = help: c\\u{d}",
        ];
        assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    }
}
