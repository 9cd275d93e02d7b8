//! Finds the rules that may match a query without asking each.
//!
//! Every rule whose conditions need one of certain names, prefixes, types, expressions or lists is
//! found through what it needs; the others are always candidates. Candidates are asked in the
//! order written.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;
use regex_automata::PatternSet;

use super::condition::Facts;
use super::patterns::{MAX_TEXT_LEN, Patterns, write_text};
use crate::lists::{NameSet, PrefixSet};
use crate::names::NameMap;
use crate::signals::prefix_key;

/// What a candidate is found through. Each belongs to one condition of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Mark(u32),
    Pattern(u32),
    SourceList(u32),
    NameList(u32),
    Qtype(u16),
}

/// No rule is found through this mark.
const NO_RULE: u16 = u16::MAX;

/// The index of all rules.
#[derive(Debug)]
pub(crate) struct Index {
    /// Names of all rules, to ranges of `name_marks`.
    names: NameMap,
    name_ranges: Vec<(u32, u32)>,
    /// Twice the mark, plus one if it asks for the name itself only.
    name_marks: Vec<u32>,
    /// Prefixes of all rules, by length and bits.
    prefixes: HashMap<(u64, u128), Box<[u32]>, RandomState>,
    v4_lengths: Vec<u8>,
    v6_lengths: Vec<u8>,
    patterns: Patterns,
    /// Marks by expression.
    pattern_marks: Vec<u32>,
    /// Some rule is found through an expression.
    patterns_first: bool,
    source_lists: Vec<ByList<PrefixSet>>,
    name_lists: Vec<ByList<NameSet>>,
    qtypes: HashMap<u16, Vec<u16>, RandomState>,
    /// The rule found through a mark.
    rule_of_mark: Vec<u16>,
    always: Vec<u16>,
    rules: usize,
}

#[derive(Debug)]
struct ByList<T> {
    list: Arc<T>,
    /// Rules found through the list.
    rules: Vec<u16>,
}

/// What the rules' conditions refer to, gathered while they are built.
#[derive(Default)]
pub(crate) struct Gathered {
    marks: u32,
    names: Vec<(Box<[u8]>, u32)>,
    prefixes: Vec<(ipnet::IpNet, u32)>,
    expressions: Vec<String>,
    pattern_marks: Vec<u32>,
    source_lists: Vec<Arc<PrefixSet>>,
    name_lists: Vec<Arc<NameSet>>,
}

impl Gathered {
    pub(crate) const fn mark(&mut self) -> u32 {
        let mark = self.marks;
        self.marks = self.marks.saturating_add(1);
        mark
    }

    /// The name (wire format) marks, alone or with all below it.
    pub(crate) fn name(&mut self, wire: &[u8], mark: u32, exact: bool) {
        self.names.push((wire.into(), mark << 1 | u32::from(exact)));
    }

    pub(crate) fn prefix(&mut self, prefix: ipnet::IpNet, mark: u32) {
        self.prefixes.push((prefix, mark));
    }

    pub(crate) fn pattern(&mut self, expression: String, mark: u32) {
        self.expressions.push(expression);
        self.pattern_marks.push(mark);
    }

    /// The number of a list of prefixes; the same list has the same number.
    pub(crate) fn source_list(&mut self, list: &Arc<PrefixSet>) -> u32 {
        number(&mut self.source_lists, list)
    }

    /// The number of a list of names; the same list has the same number.
    pub(crate) fn name_list(&mut self, list: &Arc<NameSet>) -> u32 {
        number(&mut self.name_lists, list)
    }

    /// The index of rules, each with what it is found through; `None` for always.
    pub(crate) fn finish(mut self, keys: &[Option<Vec<Key>>]) -> Index {
        let mut rule_of_mark = vec![NO_RULE; self.marks as usize];
        let mut source_lists: Vec<_> = self
            .source_lists
            .into_iter()
            .map(|list| ByList {
                list,
                rules: Vec::new(),
            })
            .collect();
        let mut name_lists: Vec<_> = self
            .name_lists
            .into_iter()
            .map(|list| ByList {
                list,
                rules: Vec::new(),
            })
            .collect();
        let mut qtypes: HashMap<u16, Vec<u16>, RandomState> = HashMap::default();
        let mut always = Vec::new();
        let mut patterns_first = false;
        for (rule, keys) in keys.iter().enumerate() {
            let rule = rule as u16;
            let Some(keys) = keys else {
                always.push(rule);
                continue;
            };
            for key in keys {
                match *key {
                    Key::Mark(mark) | Key::Pattern(mark) => {
                        patterns_first |= matches!(key, Key::Pattern(_));
                        if let Some(place) = rule_of_mark.get_mut(mark as usize) {
                            *place = rule;
                        }
                    }
                    Key::SourceList(list) => source_lists
                        .get_mut(list as usize)
                        .into_iter()
                        .for_each(|by| by.rules.push(rule)),
                    Key::NameList(list) => name_lists
                        .get_mut(list as usize)
                        .into_iter()
                        .for_each(|by| by.rules.push(rule)),
                    Key::Qtype(qtype) => qtypes.entry(qtype).or_default().push(rule),
                }
            }
        }

        self.names.sort_unstable();
        let mut name_ranges = Vec::new();
        let mut name_marks = Vec::with_capacity(self.names.len());
        let mut different: Vec<(&[u8], u32)> = Vec::new();
        for same in self.names.chunk_by(|left, right| left.0 == right.0) {
            let from = name_marks.len() as u32;
            name_marks.extend(same.iter().map(|(_, mark)| *mark));
            if let Some((wire, _)) = same.first() {
                different.push((wire, name_ranges.len() as u32));
                name_ranges.push((from, name_marks.len() as u32));
            }
        }
        let names = NameMap::new(different.into_iter());

        let mut prefixes: HashMap<(u64, u128), Vec<u32>, RandomState> = HashMap::default();
        let (mut v4_lengths, mut v6_lengths) = (Vec::new(), Vec::new());
        for (prefix, mark) in self.prefixes {
            let length = prefix.prefix_len();
            let lengths = if matches!(prefix, ipnet::IpNet::V4(_)) {
                &mut v4_lengths
            } else {
                &mut v6_lengths
            };
            if !lengths.contains(&length) {
                lengths.push(length);
            }
            prefixes
                .entry(prefix_key(prefix.addr(), length, length))
                .or_default()
                .push(mark);
        }
        Index {
            names,
            name_ranges,
            name_marks,
            prefixes: prefixes
                .into_iter()
                .map(|(key, marks)| (key, marks.into_boxed_slice()))
                .collect(),
            v4_lengths,
            v6_lengths,
            patterns: Patterns::new(&self.expressions),
            pattern_marks: self.pattern_marks,
            patterns_first,
            source_lists,
            name_lists,
            qtypes,
            rule_of_mark,
            always,
            rules: keys.len(),
        }
    }
}

fn number<T>(lists: &mut Vec<Arc<T>>, list: &Arc<T>) -> u32 {
    let known = lists.iter().position(|known| Arc::ptr_eq(known, list));
    let number = known.unwrap_or(lists.len());
    if known.is_none() {
        lists.push(Arc::clone(list));
    }
    number as u32
}

/// A worker's room for judging one query after the other.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// A mark or list answer counts for this query if it is `turn` (no) or `turn + 1` (yes).
    turn: u32,
    marks: Vec<u32>,
    source_lists: Vec<u32>,
    name_lists: Vec<u32>,
    patterns_searched: bool,
    text: Box<[u8; MAX_TEXT_LEN]>,
    found: PatternSet,
    candidates: Candidates,
}

impl Scratch {
    pub(crate) fn new(index: &Index) -> Self {
        Self {
            turn: 0,
            marks: vec![0; index.rule_of_mark.len()],
            source_lists: vec![0; index.source_lists.len()],
            name_lists: vec![0; index.name_lists.len()],
            patterns_searched: false,
            text: Box::new([0; MAX_TEXT_LEN]),
            found: index.patterns.room(),
            candidates: Candidates::new(index.rules),
        }
    }

    /// Forgets the query before.
    #[inline]
    fn begin(&mut self) {
        self.patterns_searched = false;
        self.turn = self.turn.wrapping_add(2);
        if self.turn == 0 {
            for answers in [
                &mut self.marks,
                &mut self.source_lists,
                &mut self.name_lists,
            ] {
                answers.fill(0);
            }
            self.turn = 2;
        }
    }

    #[inline]
    pub(crate) fn is_marked(&self, mark: u32) -> bool {
        self.marks
            .get(mark as usize)
            .is_some_and(|answer| *answer == self.turn | 1)
    }

    #[inline]
    fn mark(&mut self, mark: u32, rule_of_mark: &[u16]) {
        if let Some(answer) = self.marks.get_mut(mark as usize) {
            *answer = self.turn | 1;
        }
        if let Some(&rule) = rule_of_mark.get(mark as usize)
            && rule != NO_RULE
        {
            self.candidates.insert(rule);
        }
    }

    /// Takes the next candidate, in the order written.
    #[inline]
    pub(crate) fn next_candidate(&mut self) -> Option<u16> {
        self.candidates.pop()
    }

    /// Forgets the candidates that are left.
    #[inline]
    pub(crate) fn clear_candidates(&mut self) {
        while self.candidates.pop().is_some() {}
    }
}

impl Index {
    /// Finds the candidates for a query.
    #[inline]
    pub(crate) fn find(&self, scratch: &mut Scratch, facts: &Facts<'_>) {
        scratch.begin();
        for rule in &self.always {
            scratch.candidates.insert(*rule);
        }
        self.names.ancestors(&facts.query.qname, |number, own| {
            if let Some(&(from, to)) = self.name_ranges.get(number as usize) {
                for mark in self
                    .name_marks
                    .get(from as usize..to as usize)
                    .unwrap_or_default()
                {
                    if own || mark & 1 == 0 {
                        scratch.mark(mark >> 1, &self.rule_of_mark);
                    }
                }
            }
            true
        });
        let lengths = match facts.source {
            IpAddr::V4(_) => &self.v4_lengths,
            IpAddr::V6(_) => &self.v6_lengths,
        };
        for length in lengths {
            if let Some(marks) = self
                .prefixes
                .get(&prefix_key(facts.source, *length, *length))
            {
                for mark in marks {
                    scratch.mark(*mark, &self.rule_of_mark);
                }
            }
        }
        if !self.qtypes.is_empty()
            && let Some(rules) = self.qtypes.get(&facts.query.qtype)
        {
            for rule in rules {
                scratch.candidates.insert(*rule);
            }
        }
        for (number, by) in self.source_lists.iter().enumerate() {
            if !by.rules.is_empty() && self.in_source_list(number as u32, scratch, facts) {
                for rule in &by.rules {
                    scratch.candidates.insert(*rule);
                }
            }
        }
        for (number, by) in self.name_lists.iter().enumerate() {
            if !by.rules.is_empty() && self.in_name_list(number as u32, scratch, facts) {
                for rule in &by.rules {
                    scratch.candidates.insert(*rule);
                }
            }
        }
        if self.patterns_first {
            self.search_patterns(scratch, facts);
        }
    }

    /// Marks the expressions that match, once a query. A rule found through one is found before
    /// the first is asked, since then `patterns_first` is set.
    #[inline]
    pub(crate) fn search_patterns(&self, scratch: &mut Scratch, facts: &Facts<'_>) {
        if scratch.patterns_searched {
            return;
        }
        scratch.patterns_searched = true;
        let Scratch {
            text,
            found,
            marks,
            turn,
            candidates,
            ..
        } = scratch;
        let text = write_text(&facts.query.qname, text);
        self.patterns.search(text, found, |pattern| {
            let Some(&mark) = self.pattern_marks.get(pattern as usize) else {
                return;
            };
            if let Some(answer) = marks.get_mut(mark as usize) {
                *answer = *turn | 1;
            }
            if let Some(&rule) = self.rule_of_mark.get(mark as usize)
                && rule != NO_RULE
            {
                candidates.insert(rule);
            }
        });
    }

    #[inline]
    pub(crate) fn in_source_list(
        &self,
        number: u32,
        scratch: &mut Scratch,
        facts: &Facts<'_>,
    ) -> bool {
        let (Some(by), Some(answer)) = (
            self.source_lists.get(number as usize),
            scratch.source_lists.get_mut(number as usize),
        ) else {
            return false;
        };
        once(answer, scratch.turn, || by.list.contains(facts.source))
    }

    #[inline]
    pub(crate) fn in_name_list(
        &self,
        number: u32,
        scratch: &mut Scratch,
        facts: &Facts<'_>,
    ) -> bool {
        let (Some(by), Some(answer)) = (
            self.name_lists.get(number as usize),
            scratch.name_lists.get_mut(number as usize),
        ) else {
            return false;
        };
        once(answer, scratch.turn, || by.list.covers(&facts.query.qname))
    }
}

/// The answer of this turn, found out if it is not there.
#[inline]
fn once(answer: &mut u32, turn: u32, find_out: impl FnOnce() -> bool) -> bool {
    if *answer & !1 != turn {
        *answer = turn | u32::from(find_out());
    }
    *answer & 1 == 1
}

/// A set of rules that gives its members in ascending order: bits, and a bit for each word of them.
#[derive(Debug)]
struct Candidates {
    words: Vec<u64>,
    summary: Vec<u64>,
}

impl Candidates {
    fn new(rules: usize) -> Self {
        let words = rules.div_ceil(64);
        Self {
            words: vec![0; words],
            summary: vec![0; words.div_ceil(64)],
        }
    }

    #[inline]
    fn insert(&mut self, rule: u16) {
        let word = usize::from(rule >> 6);
        if let (Some(bits), Some(summary)) =
            (self.words.get_mut(word), self.summary.get_mut(word >> 6))
        {
            *bits |= 1 << (rule & 63);
            *summary |= 1 << (word & 63);
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<u16> {
        let (high, summary) = self
            .summary
            .iter_mut()
            .enumerate()
            .find(|(_, summary)| **summary != 0)?;
        let word = (high << 6) | summary.trailing_zeros() as usize;
        let bits = self.words.get_mut(word)?;
        let rule = (word as u32) << 6 | bits.trailing_zeros();
        *bits &= bits.wrapping_sub(1);
        if *bits == 0 {
            *summary &= summary.wrapping_sub(1);
        }
        Some(rule as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_come_in_order_and_once() {
        let mut candidates = Candidates::new(65_535);
        for rule in [65_534, 3, 64, 3, 0, 4096, 63, 5000] {
            candidates.insert(rule);
        }
        let all: Vec<u16> = std::iter::from_fn(|| candidates.pop()).collect();
        assert_eq!(all, [0, 3, 63, 64, 4096, 5000, 65_534]);
        assert_eq!(candidates.pop(), None);
    }

    #[test]
    fn answers_of_an_earlier_query_are_forgotten_when_turns_come_round() {
        let index = Gathered {
            marks: 1,
            ..Gathered::default()
        }
        .finish(&[]);
        let mut scratch = Scratch::new(&index);
        scratch.turn = u32::MAX - 3;
        scratch.begin();
        scratch.mark(0, &index.rule_of_mark);
        assert!(scratch.is_marked(0));
        scratch.begin();
        assert_eq!(scratch.turn, 2);
        assert!(!scratch.is_marked(0));
    }
}
