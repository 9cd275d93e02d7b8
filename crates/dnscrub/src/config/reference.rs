//! The reference manual, generated from the types: what is documented is what is read.
//!
//! Types are shown by the path at which they are written (`pools.NAME.upstreams[]`), each once, in
//! the order of the file. Single values (durations, prefixes …) are explained at the page's end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dnscrub_scoring::manual::Page;
use serde_json::{Map, Value};

use super::file::File;

/// A configuration that shows every section; the manual's examples are taken from it.
pub const EXAMPLE: &str = include_str!("example.yaml");

const CONFIGURATION_PAGE: &str = "configuration.md";
const RULES_PAGE: &str = "rules.md";

/// The files of the reference: name and content.
#[must_use]
pub fn pages() -> Vec<(String, String)> {
    let mut pages = vec![
        (CONFIGURATION_PAGE.to_owned(), configuration()),
        (RULES_PAGE.to_owned(), rules()),
        ("dnscrub.schema.json".to_owned(), schema()),
    ];
    pages.extend(signals());
    pages
}

/// The JSON Schema of the configuration file, for editors.
#[must_use]
pub fn schema() -> String {
    let mut text = serde_json::to_string_pretty(&schemars::schema_for!(File)).unwrap_or_default();
    text.push('\n');
    text
}

/// The page about the configuration file.
#[must_use]
pub fn configuration() -> String {
    let schema = schemars::schema_for!(File).to_value();
    let mut manual = Manual::new(&schema, CONFIGURATION_PAGE);
    manual.text.push_str("# The configuration file\n\n");
    manual.text.push_str(GENERATED);
    manual.paragraphs(&schema);
    manual.text.push_str(&format!(
        "Rules have a page of their own: [{RULES_PAGE}]({RULES_PAGE}). Editors that know JSON Schema can \
         check a file while it is written: `# yaml-language-server: $schema=dnscrub.schema.json`.\n\n\
         `dnscrub check FILE` says what a file means, or what is wrong with it.\n\n"
    ));
    manual.table(&schema, "");
    manual.sections();
    manual.included();
    manual.values();
    manual.text
}

/// The page about rules.
#[must_use]
pub fn rules() -> String {
    let schema = schemars::schema_for!(File).to_value();
    let mut manual = Manual::new(&schema, RULES_PAGE);
    manual.text.push_str("# Rules\n\n");
    manual.text.push_str(GENERATED);
    let items = &schema["properties"]["rules"]["items"];
    manual.section(items, "rules[]", 2);
    manual.sections();
    manual.values();
    manual.text
}

/// The pages about the signals, and their index.
#[must_use]
pub fn signals() -> Vec<(String, String)> {
    let schema = schemars::schema_for!(File).to_value();
    let settings = &schema["$defs"]["Signals"]["properties"];
    let mut index = format!(
        "# Signals\n\n{GENERATED}What gives a query points, in this order. How points lead to an action: \
         [scoring](../../scoring.md).\n\n| signal | looks at | kind of evidence |\n|---|---|---|\n"
    );
    let mut pages = Vec::new();
    for page in dnscrub_scoring::manual::signals() {
        let Page {
            signal,
            kind,
            summary,
            text,
        } = page;
        let _ = writeln!(
            index,
            "| [`{signal}`]({signal}.md) | {} | {} |",
            cell(&summary),
            kind.label()
        );
        let file = format!("signals/{signal}.md");
        let mut manual = Manual::new(&schema, &file);
        manual.text = format!(
            "# `{signal}`\n\n{GENERATED}{summary} Kind of evidence: \
             [{}](../../scoring.md#points-and-what-they-are-about).\n\n{text}\n\n## Settings\n\n",
            kind.label()
        );
        let path = format!("signals.{signal}");
        manual.depth = 1;
        let name = reference(&settings[signal]).unwrap_or_default();
        manual.shown.insert(name.to_owned(), path.clone());
        if let Some(definition) = manual.definition(name) {
            manual.table(definition, &path);
        }
        manual.sections();
        manual.values();
        while manual.text.ends_with("\n\n") {
            manual.text.pop();
        }
        pages.push((file.clone(), manual.text));
    }
    pages.insert(0, ("signals/README.md".to_owned(), index));
    pages
}

const GENERATED: &str =
    "<!-- Generated from the program's types by `dnscrub reference`. Do not edit. -->\n\n";

struct Manual<'a> {
    schema: &'a Value,
    page: &'a str,
    text: String,
    /// Dots in the path of the page's subject.
    depth: usize,
    /// Where each type is shown, by its name in the schema.
    shown: BTreeMap<String, String>,
    /// What is still to be shown on this page, in order, with the heading's level.
    waiting: Vec<(&'a Value, String, usize)>,
    /// Single values met on this page.
    values: BTreeSet<String>,
}

impl<'a> Manual<'a> {
    fn new(schema: &'a Value, page: &'a str) -> Self {
        Self {
            schema,
            page,
            text: String::new(),
            depth: 0,
            shown: BTreeMap::new(),
            waiting: Vec::new(),
            values: BTreeSet::new(),
        }
    }

    /// Shows what is waiting, depth first, so that parts follow their whole.
    fn sections(&mut self) {
        self.waiting.reverse();
        while let Some((schema, path, level)) = self.waiting.pop() {
            let before = self.waiting.len();
            self.section(schema, &path, level);
            let tail = self.waiting.split_off(before.min(self.waiting.len()));
            self.waiting.extend(tail.into_iter().rev());
        }
    }

    fn section(&mut self, schema: &'a Value, path: &str, level: usize) {
        let Some(name) = reference(schema) else {
            return;
        };
        let Some(definition) = self.definition(name) else {
            return;
        };
        if self.shown.contains_key(name) {
            return;
        }
        self.shown.insert(name.to_owned(), path.to_owned());
        let _ = write!(self.text, "{} `{path}`\n\n", "#".repeat(level.min(6)));
        self.paragraphs(definition);
        if let Some(signal) = path.strip_prefix("signals.").filter(|it| !it.contains('.')) {
            let _ = write!(self.text, "Its page: [{signal}](signals/{signal}.md).\n\n");
        }
        let has_example = definition["description"]
            .as_str()
            .is_some_and(|it| it.contains("```"));
        if let Some(example) = example_of(path).filter(|_| !has_example) {
            let _ = write!(self.text, "```yaml\n{example}```\n\n");
        }
        self.table(definition, path);
    }

    fn included(&mut self) {
        let schema = schemars::schema_for!(super::file::Included).to_value();
        self.text.push_str("## Included files\n\n");
        let mut part = Manual::new(&schema, self.page);
        part.shown.clone_from(&self.shown);
        part.paragraphs(&schema);
        part.table(&schema, "");
        self.text.push_str(&part.text);
    }

    fn paragraphs(&mut self, schema: &Value) {
        if let Some(text) = schema["description"].as_str() {
            let _ = write!(self.text, "{}\n\n", text.trim());
        }
    }

    /// The keys of a map.
    fn table(&mut self, schema: &'a Value, path: &str) {
        let mut keys: Vec<(&'a str, &'a Value, &'a Value)> = Vec::new();
        collect_keys(self.schema, schema, &mut keys, 0);
        if keys.is_empty() {
            return;
        }
        self.text
            .push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
        let mut choices = String::new();
        for (key, property, owner) in keys {
            let at = if path.is_empty() {
                key.to_owned()
            } else {
                format!("{path}.{key}")
            };
            let value = self.kind(property, &at);
            let required = owner["required"]
                .as_array()
                .is_some_and(|all| all.iter().any(|it| it == key));
            let default = match property.get("default") {
                _ if required => "required".to_owned(),
                Some(default) => shown_default(default),
                None => String::new(),
            };
            let meaning = self.meaning(property);
            let _ = writeln!(
                self.text,
                "| `{key}` | {} | {} | {} |",
                cell(&value),
                cell(&default),
                cell(&meaning)
            );
            self.choices(property, key, &mut choices);
        }
        self.text.push('\n');
        self.text.push_str(&choices);
    }

    fn meaning(&self, property: &Value) -> String {
        let own = property["description"].as_str();
        let text = own.or_else(|| {
            let definition = self.definition(reference(property)?)?;
            definition["description"].as_str()
        });
        text.unwrap_or_default().to_owned()
    }

    /// The values of an enumeration, where each has a description.
    fn choices(&self, property: &Value, key: &str, out: &mut String) {
        let Some(variants) = self.variants(property) else {
            return;
        };
        let _ = write!(out, "`{key}`:\n\n");
        for (value, description) in variants {
            let _ = writeln!(out, "- `{value}`: {}", one_line(description));
        }
        out.push('\n');
    }

    fn variants(&self, property: &Value) -> Option<Vec<(&'a str, &'a str)>> {
        let mut name = reference(property).or_else(|| reference(&property["items"]));
        if name.is_none() {
            let parts = property["anyOf"].as_array()?;
            name = parts.iter().find_map(|part| {
                let name = reference(part)?;
                self.definition(name)?["oneOf"].is_array().then_some(name)
            });
        }
        let definition = self.definition(name?)?;
        let variants = definition["oneOf"].as_array()?;
        variants
            .iter()
            .map(|variant| Some((variant["const"].as_str()?, variant["description"].as_str()?)))
            .collect()
    }

    /// What may be written for a value, in words, with links.
    fn kind(&mut self, schema: &'a Value, path: &str) -> String {
        if let Some(name) = reference(schema) {
            return self.named(schema, name, path);
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            if let Some(parts) = schema[key].as_array() {
                let mut words: Vec<String> = Vec::new();
                for part in parts.iter().filter(|part| part["type"] != "null") {
                    let word = self.kind(part, path);
                    if !words.contains(&word) {
                        words.push(word);
                    }
                }
                return words.join(" or ");
            }
        }
        if let Some(value) = schema.get("const") {
            return format!("`{}`", plain(value));
        }
        if let Some(values) = schema["enum"].as_array() {
            return values
                .iter()
                .filter(|value| !value.is_null())
                .map(|value| format!("`{}`", plain(value)))
                .collect::<Vec<_>>()
                .join(", ");
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        let words: Vec<String> = kinds
            .into_iter()
            .filter(|kind| *kind != "null")
            .map(|kind| match kind {
                "array" => format!(
                    "list of {}",
                    self.kind(&schema["items"], &format!("{path}[]"))
                ),
                "object"
                    if schema
                        .get("additionalProperties")
                        .is_some_and(Value::is_object) =>
                {
                    let value = self.kind(&schema["additionalProperties"], &format!("{path}.NAME"));
                    format!("map: name to {value}")
                }
                "object" if schema.get("patternProperties").is_some() => {
                    let pattern = schema["patternProperties"].as_object();
                    let value = pattern.and_then(|it| it.values().next());
                    match value {
                        Some(value) => format!("map: number to {}", self.kind(value, path)),
                        None => "map".to_owned(),
                    }
                }
                "object" => "map".to_owned(),
                "integer" => number(schema, "whole number"),
                "number" => number(schema, "number"),
                "boolean" => "`true` or `false`".to_owned(),
                "string" => "text".to_owned(),
                other => other.to_owned(),
            })
            .collect();
        words.join(" or ")
    }

    /// A type with a name: shown in its own section if it has keys, explained at the end if not.
    fn named(&mut self, schema: &'a Value, name: &'a str, path: &str) -> String {
        let Some(definition) = self.definition(name) else {
            return name.to_owned();
        };
        if let Some(variants) = self.variants(schema) {
            return variants
                .iter()
                .map(|(value, _)| format!("`{value}`"))
                .collect::<Vec<_>>()
                .join(", ");
        }
        let mut keys = Vec::new();
        collect_keys(self.schema, definition, &mut keys, 0);
        if keys.is_empty() {
            if definition["type"] == "array"
                || definition["anyOf"].is_array()
                || definition["enum"].is_array()
            {
                return self.kind(definition, path);
            }
            self.values.insert(name.to_owned());
            return format!("[{}](#{})", value_name(name), anchor(&value_name(name)));
        }
        // Rules have a page of their own.
        if self.page == CONFIGURATION_PAGE && path == "rules[]" {
            return format!("[`{path}`]({RULES_PAGE}#{})", anchor(path));
        }
        let at = match self.shown.get(name) {
            Some(at) => at.clone(),
            None => {
                let waiting = self
                    .waiting
                    .iter()
                    .find(|(it, ..)| reference(it) == Some(name));
                match waiting {
                    Some((_, at, _)) => at.clone(),
                    None => {
                        let dots = path.replace(".NAME", "").matches('.').count();
                        let level = 2 + dots.saturating_sub(self.depth).min(3);
                        self.waiting.push((schema, path.to_owned(), level));
                        path.to_owned()
                    }
                }
            }
        };
        format!("[`{at}`](#{})", anchor(&at))
    }

    /// The single values met on the page.
    fn values(&mut self) {
        if self.values.is_empty() {
            return;
        }
        self.text.push_str("## Values\n\n");
        for name in std::mem::take(&mut self.values) {
            let Some(definition) = self.definition(&name) else {
                continue;
            };
            let _ = write!(self.text, "### {}\n\n", value_name(&name));
            let _ = write!(
                self.text,
                "{}\n\n",
                sentence(definition["description"].as_str().unwrap_or_default())
            );
            if let Some(examples) = definition["examples"].as_array() {
                let examples: Vec<String> = examples
                    .iter()
                    .map(|example| format!("`{}`", plain(example)))
                    .collect();
                let _ = write!(self.text, "Examples: {}\n\n", examples.join(", "));
            }
        }
        while self.text.ends_with("\n\n") {
            self.text.pop();
        }
    }

    fn definition(&self, name: &str) -> Option<&'a Value> {
        self.schema["$defs"].get(name)
    }
}

/// The keys of a map, also where it is put together from parts (`allOf`, flattened `$ref`s, the
/// alternatives of an enumeration).
fn collect_keys<'a>(
    root: &'a Value,
    schema: &'a Value,
    keys: &mut Vec<(&'a str, &'a Value, &'a Value)>,
    depth: usize,
) {
    if depth > 4 {
        return;
    }
    if let Some(properties) = schema["properties"].as_object() {
        for (key, property) in properties {
            if !keys.iter().any(|(known, ..)| known == key) {
                keys.push((key, property, schema));
            }
        }
    }
    for part in ["allOf", "oneOf"] {
        for part in schema[part].as_array().into_iter().flatten() {
            collect_keys(root, part, keys, depth + 1);
        }
    }
    if depth > 0
        && let Some(definition) = reference(schema).and_then(|name| root["$defs"].get(name))
    {
        collect_keys(root, definition, keys, depth + 1);
    }
}

fn reference(schema: &Value) -> Option<&str> {
    let name = |schema: &'_ Value| -> Option<String> {
        Some(
            schema["$ref"]
                .as_str()?
                .strip_prefix("#/$defs/")?
                .to_owned(),
        )
    };
    // An optional named type is written as "this or null".
    if schema.get("$ref").is_some() {
        return schema["$ref"].as_str()?.strip_prefix("#/$defs/");
    }
    let parts = schema["anyOf"].as_array()?;
    match parts.as_slice() {
        [part, null] if null["type"] == "null" && name(part).is_some() => {
            part["$ref"].as_str()?.strip_prefix("#/$defs/")
        }
        _ => None,
    }
}

/// Types of different crates may share a name, which the schema then numbers.
fn value_name(name: &str) -> String {
    name.trim_end_matches(|c: char| c.is_ascii_digit())
        .to_owned()
}

fn number(schema: &Value, word: &str) -> String {
    // Limits of the Rust type rather than of the setting say nothing.
    let minimum = schema["minimum"].as_i64().filter(|min| *min != -32_768);
    let maximum = schema["maximum"]
        .as_i64()
        .filter(|max| ![255, 32_767, 65_535, 4_294_967_295].contains(max));
    match (minimum, maximum) {
        (Some(min), Some(max)) => format!("{word}, {min} to {max}"),
        (Some(min), None) if min > 0 => format!("{word}, {min} or more"),
        _ => word.to_owned(),
    }
}

fn shown_default(default: &Value) -> String {
    match default {
        Value::Null => String::new(),
        Value::Object(map) if map.is_empty() => "none".to_owned(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Object(map) if map.len() > 4 || !map.values().all(is_single) => {
            "see there".to_owned()
        }
        Value::Array(list) if list.len() > 4 => "see there".to_owned(),
        value => format!("`{}`", plain(value)),
    }
}

fn is_single(value: &Value) -> bool {
    !value.is_object() && !value.is_array() && !value.is_null()
}

/// A JSON value as one would write it in YAML, in one line.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(plain).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => plain_map(map),
        // settings have single precision
        Value::Number(number) if number.is_f64() => number
            .as_f64()
            .map_or_else(|| number.to_string(), |it| (it as f32).to_string()),
        other => other.to_string(),
    }
}

fn plain_map(map: &Map<String, Value>) -> String {
    let items: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}: {}", plain(value)))
        .collect();
    format!("{{ {} }}", items.join(", "))
}

/// A description with a capital in front and a full stop behind.
fn sentence(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    one_line(text).replace('|', "\\|")
}

/// The anchor that a heading gets on the usual forges.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// The lines of the example that show a top-level section.
fn example_of(path: &str) -> Option<String> {
    let key = path.trim_end_matches("[]").trim_end_matches(".NAME");
    if key.contains(['.', '[']) {
        return None;
    }
    let start = format!("{key}:");
    let mut lines = EXAMPLE.lines().skip_while(|line| !line.starts_with(&start));
    let mut text = format!("{}\n", lines.next()?);
    for line in lines.take_while(|line| line.starts_with([' ', '-']) || line.is_empty()) {
        text.push_str(line);
        text.push('\n');
    }
    let text = text.trim_end();
    Some(format!("{text}\n"))
}
