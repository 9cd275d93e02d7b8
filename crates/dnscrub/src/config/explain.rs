//! From serde's terse words to a message for the person who wrote the file.

use super::{
    problem::{Place, Problem},
    yaml::{Refusal, Spans, Step, dotted},
};

/// The problem behind a refusal. `path` is the refusal's path in the file as it is written.
pub(super) fn explain(refusal: &Refusal, path: &[Step], spans: &Spans) -> Problem {
    let text = dotted(path);
    let found = spans.find(&text);
    let key = path.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    let what = match (key, path.last()) {
        (Some(key), Some(Step::Index(index))) => {
            format!("item {} of `{key}`", index.saturating_add(1))
        }
        (Some(key), _) => format!("`{key}`"),
        _ => "the file".to_owned(),
    };
    let message = refusal.message.as_str();
    if let Some((unknown, expected)) = split(message, "unknown field ") {
        return unknown_key(path, unknown, expected, spans);
    }
    if let Some((unknown, expected)) = split(message, "unknown variant ") {
        let known = quoted(expected);
        return Problem::new(
            spans.place(found),
            text,
            format!("{what} cannot be `{unknown}`"),
        )
        .with_expected(one_of(&known))
        .with_nearest(unknown, known.iter().copied());
    }
    if let Some(field) = message
        .strip_prefix("missing field ")
        .map(|it| it.trim_matches('`'))
    {
        return missing(path, field, &text, spans);
    }
    if let Some(rest) = message.strip_prefix("invalid type: ")
        && let Some((unexpected, expected)) = rest.split_once(", expected ")
    {
        return wrong_type(&text, &what, unexpected, expected, spans);
    }
    if let Some(rest) = message
        .strip_prefix("invalid value: ")
        .or_else(|| message.strip_prefix("invalid length "))
        && let Some((unexpected, expected)) = rest.split_once(", expected ")
    {
        let value = value_words(unexpected);
        let looks_like_a_name =
            value.contains('.') && value.contains(|c: char| c.is_ascii_alphabetic());
        let problem = Problem::new(
            spans.place(found),
            text,
            format!("{what} cannot be {value}"),
        )
        .with_expected(expected_words(expected));
        return match expected.starts_with("an IP address") && looks_like_a_name {
            true => problem.with_help("names are not looked up: write the address"),
            false => problem,
        };
    }
    if message.contains("did not match any variant") {
        return Problem::new(
            spans.place(found),
            text,
            format!("{what} has none of the forms it can have"),
        )
        .with_help("docs/reference shows the forms");
    }
    in_words(spans.place(found), text, &what, message)
}

/// A problem from a sentence of a builder's: `found "x", expected y; did you mean "z"?`, or any
/// other one. `what` is the setting it is about.
pub(super) fn in_words(place: Place, path: String, what: &str, message: &str) -> Problem {
    let (message, suggestion) = match message.split_once("; did you mean ") {
        Some((message, name)) => (message, Some(name.trim_matches(['"', '?', '`']).to_owned())),
        None => (message, None),
    };
    let (found, rest) = match message
        .strip_prefix("found \"")
        .and_then(|rest| rest.split_once("\", "))
    {
        Some((found, rest)) => (Some(found), rest),
        None => (None, message),
    };
    let (message, expected) = match rest.split_once("expected ") {
        Some((before, expected)) => {
            let before = before.trim_end_matches([' ', ',', ':', ';']);
            (before, Some(expected.to_owned()))
        }
        None => (rest, None),
    };
    let bare = message
        .strip_prefix("found ")
        .filter(|it| !it.contains(' '));
    let unknown = message
        .strip_prefix("found unknown ")
        .and_then(|it| it.strip_suffix('"')?.split_once(" \""));
    let message = match (found, message) {
        _ if let Some((kind, name)) = unknown => format!("there is no {kind} named `{name}`"),
        (None, _) if let Some(bare) = bare => format!("{what} cannot be {bare}"),
        (Some(found), "") => format!("{what} cannot be `{found}`"),
        (Some(found), message) => format!("{what}: `{found}`, {message}"),
        (None, "") => format!("{what} is not what it should be"),
        (None, message) => format!("{what}: {message}"),
    };
    let mut problem = Problem::new(place, path, message);
    problem.expected = expected;
    problem.suggestion = suggestion;
    problem
}

/// The key that was not known, if that is what was wrong: it can be taken out to find further
/// errors.
pub(super) fn unknown_key_of(message: &str) -> Option<&str> {
    split(message, "unknown field ").map(|(key, _)| key)
}

fn unknown_key(path: &[Step], unknown: &str, expected: &str, spans: &Spans) -> Problem {
    // The path may or may not end in the unknown key itself.
    let parent = match path {
        [parent @ .., Step::Key(last)] if last == unknown => parent,
        _ => path,
    };
    let parent = dotted(parent);
    let place = spans
        .place_of_key(spans.find(&parent), unknown)
        .unwrap_or_else(|| spans.place(spans.find(&parent)));
    let known = quoted(expected);
    let path = if parent.is_empty() {
        unknown.to_owned()
    } else {
        format!("{parent}.{unknown}")
    };
    let problem = Problem::new(place, path, format!("unknown key `{unknown}`"))
        .with_nearest(unknown, known.iter().copied());
    if known.is_empty() {
        problem.with_help("this map has no keys")
    } else {
        problem.with_expected(one_of(&known))
    }
}

fn missing(path: &[Step], field: &str, text: &str, spans: &Spans) -> Problem {
    let of = match path.last() {
        Some(Step::Key(key)) => format!(" in `{key}`"),
        Some(Step::Index(index)) => {
            match path.iter().rev().find(|step| matches!(step, Step::Key(_))) {
                Some(Step::Key(list)) => {
                    format!(" in item {} of `{list}`", index.saturating_add(1))
                }
                _ => String::new(),
            }
        }
        None => String::new(),
    };
    Problem::new(
        spans.key_place(spans.find(text)),
        if text.is_empty() {
            field.to_owned()
        } else {
            format!("{text}.{field}")
        },
        format!("the key `{field}` is missing{of}"),
    )
    .with_help(format!("add `{field}: …` here"))
}

fn wrong_type(text: &str, what: &str, unexpected: &str, expected: &str, spans: &Spans) -> Problem {
    let words = expected_words(expected);
    let place: Place = spans.place(spans.find(text));
    let problem = Problem::new(place, text, format!("{what} has the wrong type"))
        .with_found(found_words(unexpected))
        .with_expected(words.clone());
    let is_text = unexpected.starts_with("string");
    let is_single = is_text
        || ["integer", "floating", "boolean"]
            .iter()
            .any(|kind| unexpected.starts_with(kind));
    if words == "text" && is_single {
        problem.with_help("put it in quotes")
    } else if words == "a list" && unexpected == "map" {
        problem.with_help("begin each item with `- `")
    } else if words == "a list" && is_single {
        problem.with_help("write it as a list: [ … ]")
    } else if is_text && words.contains("number") {
        problem.with_help("write the number without quotes and without a unit")
    } else if unexpected == "unit value" {
        problem.with_help("give it a value, or remove the key")
    } else {
        problem
    }
}

/// "PREFIX`x`, expected REST" → x and REST.
fn split<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let rest = message.strip_prefix(prefix)?.strip_prefix('`')?;
    rest.split_once("`, ")
}

/// The names in back quotes in a text of serde's.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn one_of(known: &[&str]) -> String {
    match known {
        [] => "nothing".to_owned(),
        [one] => format!("`{one}`"),
        [first, second] => format!("`{first}` or `{second}`"),
        many => format!(
            "one of {}",
            many.iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// The value alone, without what kind of value it is.
fn value_words(unexpected: &str) -> String {
    let words = found_words(unexpected);
    let bare = words
        .strip_prefix("the text ")
        .or_else(|| words.strip_prefix("the number "));
    bare.unwrap_or(&words).to_owned()
}

fn found_words(unexpected: &str) -> String {
    if let Some(text) = unexpected.strip_prefix("string ") {
        let text: String = serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
        return format!("the text `{text}`");
    }
    for prefix in ["integer ", "floating point "] {
        if let Some(number) = unexpected.strip_prefix(prefix) {
            return format!("the number {}", number.trim_matches('`'));
        }
    }
    match unexpected {
        "sequence" => "a list".to_owned(),
        "map" => "a map".to_owned(),
        "unit value" | "unit" | "Option value" => "nothing".to_owned(),
        text => text.strip_prefix("boolean ").unwrap_or(text).to_owned(),
    }
}

fn expected_words(expected: &str) -> String {
    let whole = |max: &str| format!("a whole number from 0 to {max}");
    match expected {
        "u8" => whole("255"),
        "u16" => whole("65535"),
        "u32" => whole("4294967295"),
        "u64" | "usize" => "a whole number".to_owned(),
        "i64" | "i32" => "a whole number, which may be negative".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a nonzero u8" => "a whole number from 1 to 255".to_owned(),
        "a nonzero u16" => "a whole number from 1 to 65535".to_owned(),
        "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => {
            "a whole number, 1 or more".to_owned()
        }
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" | "string" | "str" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a map of keys".to_owned(),
        text if text.starts_with("struct ") || text.starts_with("map") => {
            "a map of keys".to_owned()
        }
        text if text.starts_with("tuple") => "a list".to_owned(),
        text => text.to_owned(),
    }
}
