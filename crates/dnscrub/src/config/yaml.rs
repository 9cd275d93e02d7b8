//! All the YAML there is: text to values, and paths to places in the text.
//!
//! `serde_yaml` gives the values. It does not tell where a value stood, so a second parser that
//! knows positions keeps the tree of spans beside them; errors found later, by builders that know
//! only a dotted path, are placed with it.

use saphyr_parser::{Event, Parser, Span};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
pub(super) use serde_yaml::Value;

use super::problem::{Place, Problem};

/// Deeper nesting than this is refused; the deepest setting there is needs about a dozen levels.
const MAX_DEPTH: usize = 64;

/// A parsed file.
pub(super) struct Document {
    /// What it says.
    pub(super) value: Value,
    /// Where it says it.
    pub(super) spans: Spans,
}

/// The tree of positions of one file.
pub(super) struct Spans {
    file: String,
    text: String,
    /// The first is the root; empty for an empty file.
    nodes: Vec<Node>,
}

struct Node {
    line: usize,
    column: usize,
    /// In characters; 1 for lists and maps, which are pointed at by their start.
    width: usize,
    kind: Kind,
}

enum Kind {
    Scalar(String),
    List(Vec<usize>),
    /// Key and value.
    Map(Vec<(usize, usize)>),
}

/// Why a value was not accepted.
pub(super) struct Refusal {
    /// The way to the value: keys and indices.
    pub(super) path: Vec<Step>,
    /// serde's own words.
    pub(super) message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Parses one file. `file` is its name as shown to the user.
///
/// # Errors
/// The first error of syntax, or every key that stands twice in one map.
pub(super) fn parse(file: &str, octets: &[u8]) -> Result<Document, Vec<Problem>> {
    let text = text_of(file, octets).map_err(|problem| vec![*problem])?;
    let spans = Spans::of(file, text).map_err(|problem| vec![*problem])?;
    let twice = spans.duplicates();
    if !twice.is_empty() {
        return Err(twice);
    }
    let value = serde_yaml::from_str(&spans.text).map_err(|error| {
        let (line, column) = error
            .location()
            .map_or((1, 1), |at| (at.line().max(1), at.column().max(1)));
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        vec![syntax_error(file, &spans.text, line, column, message)]
    })?;
    Ok(Document { value, spans })
}

/// Turns a value into what the types say, or says where it does not fit.
pub(super) fn decode<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(value).map_err(|error| Refusal {
        path: error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Seq { index } => Some(Step::Index(*index)),
                Segment::Map { key } => Some(Step::Key(key.clone())),
                Segment::Enum { variant } => Some(Step::Key(variant.clone())),
                Segment::Unknown => None,
            })
            .collect(),
        message: error.into_inner().to_string(),
    })
}

/// Takes the value at a path out of the whole.
pub(super) fn remove(value: &mut Value, path: &[Step]) -> bool {
    match (path, value) {
        ([Step::Key(key)], Value::Mapping(map)) => {
            let found = map.keys().find(|it| text_of_key(it) == *key).cloned();
            found.is_some_and(|key| map.remove(&key).is_some())
        }
        ([Step::Index(index)], Value::Sequence(list)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        ([Step::Key(key), rest @ ..], Value::Mapping(map)) => map
            .iter_mut()
            .find(|(it, _)| text_of_key(it) == *key)
            .is_some_and(|(_, value)| remove(value, rest)),
        ([Step::Index(index), rest @ ..], Value::Sequence(list)) => list
            .get_mut(*index)
            .is_some_and(|value| remove(value, rest)),
        _ => false,
    }
}

fn text_of_key(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => String::new(),
    }
}

/// Gives a key another name, unless that is taken.
pub(super) fn rename(value: &mut Value, parent: &[Step], old: &str, new: &str) -> bool {
    let mut at = value;
    for step in parent {
        let next = match (step, at) {
            (Step::Key(key), Value::Mapping(map)) => map
                .iter_mut()
                .find(|(it, _)| text_of_key(it) == *key)
                .map(|(_, value)| value),
            (Step::Index(index), Value::Sequence(list)) => list.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    let Value::Mapping(map) = at else {
        return false;
    };
    if map.contains_key(new) {
        return false;
    }
    match map.remove(old) {
        Some(value) => map.insert(new.into(), value).is_none(),
        None => false,
    }
}

/// A path as it is written: `rules[3].when.qname`.
pub(super) fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
        }
    }
    text
}

/// The node a path leads to, or the last one on the way that exists.
#[derive(Clone, Copy)]
pub(super) struct Found {
    node: usize,
    key: Option<usize>,
}

impl Spans {
    fn of(file: &str, text: String) -> Result<Self, Box<Problem>> {
        let nodes = Builder::default().build(file, &text)?;
        Ok(Self {
            file: file.to_owned(),
            text,
            nodes,
        })
    }

    /// Follows a dotted path. Names in it may themselves contain dots: the longest key that fits
    /// wins.
    pub(super) fn find(&self, path: &str) -> Found {
        let mut at = Found { node: 0, key: None };
        let mut rest = path;
        while !rest.is_empty() {
            let Some((next, left)) = self.step(at.node, rest) else {
                return at;
            };
            (at, rest) = (next, left.strip_prefix('.').unwrap_or(left));
        }
        at
    }

    fn step<'p>(&self, node: usize, rest: &'p str) -> Option<(Found, &'p str)> {
        match &self.nodes.get(node)?.kind {
            Kind::Scalar(_) => None,
            Kind::List(items) => {
                let (index, left) = rest.strip_prefix('[')?.split_once(']')?;
                let node = *items.get(index.parse::<usize>().ok()?)?;
                let found = Found { node, key: None };
                Some((found, left))
            }
            Kind::Map(entries) => {
                let fits = |key: &str| {
                    let left = rest.strip_prefix(key)?;
                    (left.is_empty() || left.starts_with(['.', '['])).then_some(left)
                };
                entries
                    .iter()
                    .filter_map(|&(key, value)| {
                        let text = self.scalar(key)?;
                        Some((text.len(), key, value, fits(text)?))
                    })
                    .max_by_key(|&(length, ..)| length)
                    .map(|(_, key, node, left)| {
                        let found = Found {
                            node,
                            key: Some(key),
                        };
                        (found, left)
                    })
            }
        }
    }

    fn scalar(&self, node: usize) -> Option<&str> {
        match &self.nodes.get(node)?.kind {
            Kind::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// The place of a setting: its value if that is a single one, else its key, else its start.
    pub(super) fn place(&self, found: Found) -> Place {
        match (self.scalar(found.node), found.key) {
            (None, Some(key)) => self.place_of(key),
            _ => self.place_of(found.node),
        }
    }

    /// The place of a setting's name: the key before it, or the start of the item.
    pub(super) fn key_place(&self, found: Found) -> Place {
        self.place_of(found.key.unwrap_or(found.node))
    }

    /// The place of one key inside the map at `found`.
    pub(super) fn place_of_key(&self, found: Found, key: &str) -> Option<Place> {
        let Kind::Map(entries) = &self.nodes.get(found.node)?.kind else {
            return None;
        };
        let (at, _) = entries
            .iter()
            .find(|(it, _)| self.scalar(*it) == Some(key))?;
        Some(self.place_of(*at))
    }

    fn place_of(&self, node: usize) -> Place {
        self.nodes.get(node).map_or_else(
            || Place::file(&self.file),
            |node| Place::in_text(&self.file, &self.text, node.line, node.column, node.width),
        )
    }

    /// Every key that stands twice in one map. (Of two equal keys one would be ignored in silence.)
    fn duplicates(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for node in &self.nodes {
            let Kind::Map(entries) = &node.kind else {
                continue;
            };
            let mut seen = std::collections::HashMap::new();
            for &(key, _) in entries {
                let Some(text) = self.scalar(key) else {
                    continue;
                };
                if let Some(first) = seen.insert(text, key) {
                    seen.insert(text, first);
                    problems.push(
                        Problem::new(
                            self.place_of(key),
                            text,
                            format!("the key `{text}` stands twice in the same map"),
                        )
                        .with_related(self.place_of(first), "it stands here first")
                        .with_help("remove one of them, or merge the two"),
                    );
                }
            }
        }
        problems.sort_by_key(|problem| problem.place.line);
        problems
    }
}

fn text_of(file: &str, octets: &[u8]) -> Result<String, Box<Problem>> {
    let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
    match std::str::from_utf8(octets) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let good = String::from_utf8_lossy(&octets[..error.valid_up_to()]).into_owned();
            let line = good.matches('\n').count() + 1;
            let before = good.rsplit('\n').next().unwrap_or_default();
            let column = before.chars().count() + 1;
            let shown = String::from_utf8_lossy(octets).into_owned();
            let octet = octets[error.valid_up_to()];
            let problem = Problem::new(
                Place::in_text(file, &shown, line, column, 1),
                "",
                format!("the octet 0x{octet:02x} is not UTF-8"),
            )
            .with_expected("text in UTF-8")
            .with_help("save the file in UTF-8");
            Err(Box::new(problem))
        }
    }
}

/// Says a syntax error in the writer's words where the cause is a usual one.
fn syntax_error(file: &str, text: &str, line: usize, column: usize, message: &str) -> Problem {
    // The parsers complain at the tab, or only at what follows it.
    for line in [line, line.saturating_sub(1)] {
        let written = text.lines().nth(line.wrapping_sub(1)).unwrap_or_default();
        let indent = written.len() - written.trim_start().len();
        if let Some(at) = written[..indent].find('\t') {
            return Problem::new(
                Place::in_text(file, text, line, at + 1, 1),
                "",
                "a tab is used for indentation",
            )
            .with_expected("blanks")
            .with_help("YAML knows no tabs: indent with two blanks a level");
        }
    }
    let last = text.lines().count().max(1);
    let (line, column) = if line > last {
        (last, 1)
    } else {
        (line, column)
    };
    let mut problem = Problem::new(
        Place::in_text(file, text, line, column, 1),
        "",
        format!("this is not YAML: {message}"),
    );
    let written = text.lines().nth(line - 1).unwrap_or_default();
    if message.contains("mapping values are not allowed") {
        problem = problem.with_help(
            "a value that contains `: ` needs quotes; or the line is indented differently from its neighbours",
        );
    } else if written
        .trim_start()
        .starts_with(['*', '&', '!', '%', '@', '`'])
        || written.contains(": *")
        || written.contains(": @")
        || written.contains(": %")
    {
        problem = problem.with_help(
            "a value that begins with one of * & ! % @ ` needs quotes: \"*.example.com\"",
        );
    } else {
        problem = problem.with_help(
            "check quotes, brackets and the indentation of this line and the one before",
        );
    }
    problem
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    /// The lists and maps that are open: the node, and the key that waits for its value.
    open: Vec<(usize, Option<usize>)>,
    /// By anchor number.
    anchors: std::collections::HashMap<usize, usize>,
}

impl Builder {
    fn build(mut self, file: &str, text: &str) -> Result<Vec<Node>, Box<Problem>> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let at = error.marker();
                Box::new(syntax_error(
                    file,
                    text,
                    at.line(),
                    at.col() + 1,
                    error.info(),
                ))
            })?;
            match event {
                Event::Scalar(value, _, anchor, _) => {
                    self.add(Kind::Scalar(value.into_owned()), &span, anchor);
                }
                Event::SequenceStart(anchor, _) => {
                    let node = self.add(Kind::List(Vec::new()), &span, anchor);
                    self.open.push((node, None));
                }
                Event::MappingStart(anchor, _) => {
                    let node = self.add(Kind::Map(Vec::new()), &span, anchor);
                    self.open.push((node, None));
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    self.open.pop();
                }
                Event::Alias(anchor) => {
                    if let Some(&node) = self.anchors.get(&anchor) {
                        self.attach(node);
                    }
                }
                Event::DocumentStart(_) if !self.nodes.is_empty() => {
                    let (line, column) = (span.start.line(), span.start.col() + 1);
                    let problem = Problem::new(
                        Place::in_text(file, text, line, column, 3),
                        "",
                        "a second YAML document begins here",
                    );
                    return Err(Box::new(problem.with_help(
                        "a configuration is one document: remove the line `---`, or use `include`",
                    )));
                }
                _ => {}
            }
            if self.open.len() > MAX_DEPTH {
                let (line, column) = (span.start.line(), span.start.col() + 1);
                let place = Place::in_text(file, text, line, column, 1);
                return Err(Box::new(Problem::new(
                    place,
                    "",
                    format!("more than {MAX_DEPTH} lists and maps inside each other"),
                )));
            }
        }
        Ok(self.nodes)
    }

    fn add(&mut self, kind: Kind, span: &Span, anchor: usize) -> usize {
        let node = self.nodes.len();
        let one_line = span.start.line() == span.end.line();
        let width = match kind {
            Kind::Scalar(_) if one_line => span.end.col().saturating_sub(span.start.col()),
            // Cut at the line's end by the place.
            Kind::Scalar(_) => usize::MAX,
            _ => 1,
        };
        self.nodes.push(Node {
            line: span.start.line(),
            column: span.start.col() + 1,
            width: width.max(1),
            kind,
        });
        if anchor > 0 {
            self.anchors.insert(anchor, node);
        }
        self.attach(node);
        node
    }

    /// Hangs a node into the list or map that is open.
    fn attach(&mut self, node: usize) {
        let Some((parent, waiting)) = self.open.last_mut() else {
            return;
        };
        match self.nodes.get_mut(*parent).map(|it| &mut it.kind) {
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map(entries)) => match waiting.take() {
                Some(key) => entries.push((key, node)),
                None => *waiting = Some(node),
            },
            _ => {}
        }
    }
}
