//! Regular expressions and globs of all rules, as few automata as possible.
//!
//! The automata are complete (dense) and built beforehand: a search walks one table, one step an
//! octet, and neither allocates nor locks whatever it is given. The price is that an expression
//! whose automaton would be large is refused when the configuration is read.

use dnscrub_wire::Name;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, PatternSet};

/// Longest presentation form: every octet of the longest name written as `\` and three digits.
pub(crate) const MAX_TEXT_LEN: usize = 1024;
/// Most memory of an expression's own automaton.
const OWN_LIMIT: usize = 1 << 20;
/// Most memory of a common automaton; expressions that would exceed it together are parted.
const COMMON_LIMIT: usize = 4 << 20;
/// Expressions are joined if that takes at most so many times the memory of them apart,
const JOIN_FACTOR: usize = 8;
/// or at most this much.
const JOIN_ALWAYS: usize = 64 << 10;
/// Most expressions in one automaton.
const COMMON_COUNT: usize = 256;

/// Expressions, matched all at once.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    automaton: dense::DFA<Vec<u32>>,
    /// The number of the group's first expression.
    first: u32,
}

impl Patterns {
    /// Each of `expressions` passed [`check`].
    pub(crate) fn new(expressions: &[String]) -> Self {
        let mut patterns = Self::default();
        for (index, chunk) in expressions.chunks(COMMON_COUNT).enumerate() {
            patterns.add(chunk, index.saturating_mul(COMMON_COUNT) as u32);
        }
        patterns
    }

    fn add(&mut self, expressions: &[String], first: u32) {
        // What needs much more together than apart would cost far too much when all of it is
        // joined, so it is found out early.
        let apart = expressions
            .iter()
            .filter_map(|one| build(&[one], OWN_LIMIT).ok())
            .map(|one| one.memory_usage());
        let apart: usize = apart.fold(0, usize::saturating_add);
        self.join(
            expressions,
            first,
            apart
                .saturating_mul(JOIN_FACTOR)
                .clamp(JOIN_ALWAYS, COMMON_LIMIT),
        );
    }

    fn join(&mut self, expressions: &[String], first: u32, limit: usize) {
        let limit = if expressions.len() == 1 {
            OWN_LIMIT
        } else {
            limit
        };
        if let Ok(automaton) = build(expressions, limit) {
            self.groups.push(Group { automaton, first });
        } else if expressions.len() > 1 {
            let (left, right) = expressions.split_at(expressions.len() / 2);
            let half = (limit / 2).max(JOIN_ALWAYS);
            self.join(left, first, half);
            self.join(right, first.saturating_add(left.len() as u32), half);
        }
    }

    /// Room for the matches of any search.
    pub(crate) fn room(&self) -> PatternSet {
        PatternSet::new(
            self.groups
                .iter()
                .map(|group| group.automaton.pattern_len())
                .max()
                .unwrap_or_default(),
        )
    }

    /// Calls `found` with the number of each expression that matches `text`.
    #[inline]
    pub(crate) fn search(&self, text: &[u8], room: &mut PatternSet, mut found: impl FnMut(u32)) {
        for group in &self.groups {
            room.clear();
            // It fails only for searches that this kind of automaton is not built for.
            if group
                .automaton
                .try_which_overlapping_matches(&Input::new(text), room)
                .is_ok()
                && !room.is_empty()
            {
                for pattern in room.iter() {
                    found(group.first.saturating_add(pattern.as_u32()));
                }
            }
        }
    }
}

/// Whether an expression can be used; if not, why and what to do.
pub(crate) fn check(expression: &str) -> Result<(), String> {
    let Err(error) = build(&[expression], OWN_LIMIT) else {
        return Ok(());
    };
    if let Some(syntax) = std::error::Error::source(&error).and_then(std::error::Error::source) {
        let syntax = syntax.to_string();
        let reason = syntax
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        return Err(format!(
            "found \"{expression}\", expected a regular expression: {reason}"
        ));
    }
    Err(format!(
        "found \"{expression}\", whose automaton needs more than {} KiB; anchor it with ^, or shorten its counted repetitions",
        OWN_LIMIT >> 10
    ))
}

fn build<P: AsRef<str>>(
    expressions: &[P],
    limit: usize,
) -> Result<dense::DFA<Vec<u32>>, Box<dense::BuildError>> {
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .match_kind(MatchKind::All)
                .start_kind(StartKind::Unanchored)
                .dfa_size_limit(Some(limit))
                .determinize_size_limit(Some(limit.saturating_mul(4))),
        )
        .thompson(
            thompson::Config::new()
                .utf8(false)
                .nfa_size_limit(Some(limit)),
        )
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .build_many(expressions)
        .map_err(Box::new)
}

/// A glob as a regular expression for the whole name.
pub(crate) fn glob(glob: &str) -> String {
    let mut expression = String::from("^");
    let mut rest = glob.trim_end_matches('.').chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.peek() == Some(&'*') => {
                rest.next();
                expression.push_str(".*");
            }
            '*' => expression.push_str("[^.]*"),
            '?' => expression.push_str("[^.]"),
            c if c.is_ascii_alphanumeric() => expression.push(c.to_ascii_lowercase()),
            c if c.is_ascii() => {
                expression.push('\\');
                expression.push(c);
            }
            c => expression.push(c),
        }
    }
    expression.push('$');
    expression
}

/// Writes a name's presentation form, lower case, without the final dot ("." for the root).
#[inline]
pub(crate) fn write_text<'a>(name: &Name, text: &'a mut [u8; MAX_TEXT_LEN]) -> &'a [u8] {
    let mut at = 0_usize;
    let mut put = |octet: u8| {
        if let Some(place) = text.get_mut(at) {
            *place = octet;
            at = at.wrapping_add(1);
        }
    };
    let mut first = true;
    for label in name.labels() {
        if !first {
            put(b'.');
        }
        first = false;
        for &octet in label {
            match octet {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' | b'/' => put(octet),
                _ => {
                    put(b'\\');
                    put(b'0'.wrapping_add(octet / 100));
                    put(b'0'.wrapping_add(octet / 10 % 10));
                    put(b'0'.wrapping_add(octet % 10));
                }
            }
        }
    }
    if first {
        put(b'.');
    }
    text.get(..at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(expressions: &[&str], text: &str) -> Vec<u32> {
        let patterns = Patterns::new(
            &expressions
                .iter()
                .map(|e| (*e).to_owned())
                .collect::<Vec<_>>(),
        );
        let mut found = Vec::new();
        patterns.search(text.as_bytes(), &mut patterns.room(), |n| found.push(n));
        found
    }

    #[test]
    fn every_matching_expression_is_found() {
        assert_eq!(
            matches(&["^www\\.", "example", "^x$", "com$"], "www.example.com"),
            [0, 1, 3]
        );
        assert_eq!(matches(&[], "www.example.com"), [0_u32; 0]);
        assert_eq!(matches(&["^$", "^\\.$"], "."), [1]);
    }

    #[test]
    fn expressions_that_do_not_fit_together_are_parted() {
        let expressions: Vec<String> = (0..30).map(|n| format!("a{n}.*b{n}.*c{n}")).collect();
        let patterns = Patterns::new(&expressions);
        assert!(patterns.groups.len() > 1);
        let mut found = Vec::new();
        patterns.search(b"a7xxb7yyc7-a19b19c19", &mut patterns.room(), |n| {
            found.push(n)
        });
        assert_eq!(found, [1, 7, 19]);
    }

    #[test]
    fn what_cannot_be_used_is_said_with_the_reason() {
        assert!(check("^[a-z0-9]{16,}\\.r17\\.").is_ok());
        assert!(
            check("(abc").unwrap_err().contains("unclosed group"),
            "{}",
            check("(abc").unwrap_err()
        );
        assert!(check("[a-z]*x.{20}y").unwrap_err().contains("automaton"));
        assert!(
            check("((a{100}){100}){100}")
                .unwrap_err()
                .contains("automaton")
        );
    }

    #[test]
    fn globs_keep_to_labels_unless_doubled() {
        let expressions = [
            "*.example.com",
            "**.example.com",
            "w?w.example.com.",
            "a-b_c",
        ]
        .map(glob);
        let expressions: Vec<&str> = expressions.iter().map(String::as_str).collect();
        assert_eq!(matches(&expressions, "www.example.com"), [0, 1, 2]);
        assert_eq!(matches(&expressions, "a.b.example.com"), [1]);
        assert_eq!(matches(&expressions, "wwwxexample.com"), [0_u32; 0]);
        assert_eq!(matches(&expressions, "a-b_c"), [3]);
    }

    proptest! {
        #[test]
        fn the_text_is_the_presentation_form(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(label.len() as u8);
                wire.extend_from_slice(label);
            }
            wire.push(0);
            let name = Name::from_wire(&wire).unwrap();
            let mut text = [0; MAX_TEXT_LEN];
            let expected = name.to_string();
            prop_assert_eq!(write_text(&name, &mut text), expected.as_bytes());
        }
    }
}
