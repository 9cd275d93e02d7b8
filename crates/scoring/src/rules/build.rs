//! From rules as they are written to rules that run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use dnscrub_wire::Name;

use super::condition::{Expr, Test};
use super::index::{Gathered, Key};
use super::patterns::{check, glob};
use super::{Effect, Hits, RateLimit, Rule, Rules};
use crate::cells::Limit;
use crate::config::{self, Act, ConfigError, OneOrMany, Per, Rate, TransportName, Under, When};
use crate::context::Transport;
use crate::judgement::Action;
use crate::lists::{List, NameSet, PrefixSet};
use crate::policy::{Names, unknown};

/// Most rules.
const MAX_RULES: usize = u16::MAX as usize;
/// Prefix lengths that decide which worker a source's queries come to.
const STEERED_V4: u8 = 24;
const STEERED_V6: u8 = 48;
/// Deepest nesting of `all`, `any` and `not`.
const MAX_DEPTH: usize = 16;
/// More prefixes or names than this in one condition become a list of its own.
const LARGE: usize = 256;

impl Rules {
    pub(crate) fn build(
        rules: &[config::Rule],
        names: &Names<'_>,
        workers: usize,
        errors: &mut Vec<ConfigError>,
    ) -> Self {
        if rules.len() > MAX_RULES {
            let message = format!("found {} rules, expected at most {MAX_RULES}", rules.len());
            errors.push(ConfigError {
                path: "rules".into(),
                message,
            });
        }
        let mut builder = Builder {
            names,
            workers: u32::try_from(workers).unwrap_or(u32::MAX).max(1),
            errors,
            gathered: Gathered::default(),
        };
        let mut seen = BTreeMap::new();
        let mut built = Vec::new();
        let mut keys = Vec::new();
        for (index, rule) in rules.iter().take(MAX_RULES).enumerate() {
            let path = format!("rules[{index}]");
            if rule.name.trim().is_empty() {
                builder.wrong(
                    &format!("{path}.name"),
                    "found an empty name, expected one to know the rule by",
                );
            }
            if let Some(before) = seen.insert(rule.name.as_str(), index) {
                let message = format!(
                    "found \"{}\", which is the name of rules[{before}] already; give it another",
                    rule.name
                );
                builder.wrong(&format!("{path}.name"), message);
            }
            let when = builder.when(&rule.when, &format!("{path}.when"), 0);
            let effect = builder.effect(rule, &format!("{path}.do"));
            keys.push(keys_of(&when).map(|(_, keys)| keys));
            built.push(Rule {
                name: rule.name.clone(),
                observe: rule.observe,
                from_level: rule.from_level.into(),
                when,
                effect,
                counters: Arc::new((0..workers).map(|_| Hits::default()).collect()),
            });
        }
        let limits = built.iter().any(|rule| rule.effect.limit.is_some());
        Self {
            rules: built,
            index: builder.gathered.finish(&keys),
            limits,
        }
    }
}

struct Builder<'a, 'n> {
    names: &'a Names<'n>,
    workers: u32,
    errors: &'a mut Vec<ConfigError>,
    gathered: Gathered,
}

impl Builder<'_, '_> {
    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(ConfigError {
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// The conditions, cheap ones first.
    fn when(&mut self, when: &When, path: &str, depth: usize) -> Expr {
        if depth > MAX_DEPTH {
            self.wrong(
                path,
                format!(
                    "found conditions nested deeper than {MAX_DEPTH}; make several rules of it"
                ),
            );
            return Expr::All(Vec::new());
        }
        let mut tests = Vec::new();
        let mut add = |test| tests.push(Expr::Test(test));
        if let Some(transports) = &when.transport {
            add(Test::Transport(
                transports
                    .0
                    .iter()
                    .map(|name| match name {
                        TransportName::Udp => Transport::Udp,
                        TransportName::Tcp => Transport::Tcp,
                    })
                    .collect(),
            ));
        }
        if let Some(opcodes) = &when.opcode {
            add(Test::Opcode(
                opcodes.0.iter().map(|opcode| opcode.0).collect(),
            ));
        }
        if let Some(classes) = &when.qclass {
            add(Test::Qclass(
                classes.0.iter().map(|class| class.0).collect(),
            ));
        }
        if let Some(types) = &when.qtype {
            add(Test::Qtype(types.0.iter().map(|qtype| qtype.0).collect()));
        }
        if let Some(flags) = &when.flags {
            let bits = [
                (0x0400, flags.aa),
                (0x0200, flags.tc),
                (0x0100, flags.rd),
                (0x0080, flags.ra),
                (0x0020, flags.ad),
                (0x0010, flags.cd),
            ];
            let (mut mask, mut value) = (0_u16, 0_u16);
            for (bit, wanted) in bits {
                mask |= if wanted.is_some() { bit } else { 0 };
                value |= if wanted == Some(true) { bit } else { 0 };
            }
            add(Test::Flags { mask, value });
        }
        if let Some(listeners) = &when.listener {
            let known: Vec<u16> = listeners
                .0
                .iter()
                .enumerate()
                .filter_map(|(index, name)| {
                    self.position(
                        "listener",
                        name,
                        self.names.listeners,
                        &item(path, "listener", listeners, index),
                    )
                })
                .collect();
            tests.push(Expr::Test(Test::Listener(known.into())));
        }
        if let Some(edns) = &when.edns {
            self.edns(edns, &format!("{path}.edns"), &mut tests);
        }
        if let Some(source) = &when.source {
            self.source(source, &format!("{path}.source"), &mut tests);
        }
        if let Some(qname) = &when.qname {
            self.qname(qname, &format!("{path}.qname"), &mut tests);
        }
        if let Some(all) = &when.all {
            for (index, part) in all.iter().enumerate() {
                tests.push(self.when(
                    part,
                    &format!("{path}.all[{index}]"),
                    depth.saturating_add(1),
                ));
            }
        }
        if let Some(any) = &when.any {
            if any.is_empty() {
                self.wrong(
                    &format!("{path}.any"),
                    "found an empty list, which nothing matches; leave it out or name a condition",
                );
            }
            let parts = any
                .iter()
                .enumerate()
                .map(|(index, part)| {
                    self.when(
                        part,
                        &format!("{path}.any[{index}]"),
                        depth.saturating_add(1),
                    )
                })
                .collect();
            tests.push(Expr::Any(parts));
        }
        if let Some(not) = &when.not {
            tests.push(Expr::Not(Box::new(self.when(
                not,
                &format!("{path}.not"),
                depth.saturating_add(1),
            ))));
        }
        match tests.pop() {
            Some(only) if tests.is_empty() => only,
            Some(last) => {
                tests.push(last);
                Expr::All(tests)
            }
            None => Expr::All(tests),
        }
    }

    fn edns(&mut self, edns: &config::Edns, path: &str, tests: &mut Vec<Expr>) {
        let config::Edns {
            present,
            version,
            dnssec_ok,
            buffer_size,
            options,
        } = edns;
        let others =
            version.is_some() || dnssec_ok.is_some() || buffer_size.is_some() || options.is_some();
        if *present == Some(false) && others {
            self.wrong(&format!("{path}.present"), "found false beside conditions on what EDNS says, which never hold then; leave one out");
        }
        if present.is_none() && !others {
            self.wrong(
                path,
                "found no condition, expected present, version, do, buffer-size or options",
            );
        }
        let mut add = |test| tests.push(Expr::Test(test));
        if let Some(present) = present {
            add(Test::EdnsPresent(*present));
        }
        if let Some(range) = version {
            add(Test::EdnsVersion(*range));
        }
        if let Some(set) = dnssec_ok {
            add(Test::EdnsDnssecOk(*set));
        }
        if let Some(range) = buffer_size {
            add(Test::EdnsBufferSize(*range));
        }
        if let Some(codes) = options {
            add(Test::EdnsOptions(codes.0.clone().into()));
        }
    }

    fn source(&mut self, source: &config::Source, path: &str, tests: &mut Vec<Expr>) {
        if source.prefix.is_none() && source.within.is_none() && source.not_in.is_none() {
            self.wrong(path, "found no condition, expected prefix, in or not-in");
        }
        if let Some(prefixes) = &source.prefix {
            let test = if prefixes.0.len() > LARGE {
                let set = Arc::new(PrefixSet::new(prefixes.0.iter().map(|prefix| prefix.0)));
                Test::SourceList(self.gathered.source_list(&set))
            } else {
                let mark = self.gathered.mark();
                // equal prefixes would only be marked twice
                for prefix in prefixes
                    .0
                    .iter()
                    .map(|prefix| prefix.0.trunc())
                    .collect::<BTreeSet<_>>()
                {
                    self.gathered.prefix(prefix, mark);
                }
                Test::Mark(mark)
            };
            tests.push(Expr::Test(test));
        }
        if let Some(lists) = &source.within {
            tests.push(Expr::Any(self.source_lists(lists, path, "in")));
        }
        if let Some(lists) = &source.not_in {
            tests.push(Expr::Not(Box::new(Expr::Any(
                self.source_lists(lists, path, "not-in"),
            ))));
        }
    }

    fn source_lists(&mut self, lists: &OneOrMany<String>, path: &str, field: &str) -> Vec<Expr> {
        let mut tests = Vec::new();
        for (index, name) in lists.0.iter().enumerate() {
            let path = item(path, field, lists, index);
            match self.list(name, &path) {
                Some(List::Prefixes(list)) => {
                    let number = self.gathered.source_list(&list);
                    tests.push(Expr::Test(Test::SourceList(number)));
                }
                Some(List::Names(_)) => {
                    self.wrong(
                        &path,
                        format!(
                            "found list \"{name}\", which holds names; expected a list of prefixes"
                        ),
                    );
                }
                None => {}
            }
        }
        tests
    }

    fn list(&mut self, name: &str, path: &str) -> Option<List> {
        let found = self.names.lists.get(name).cloned();
        if found.is_none() {
            let message = unknown("list", name, self.names.lists.keys().map(String::as_str));
            self.wrong(path, message);
        }
        found
    }

    fn position(&mut self, kind: &str, name: &str, known: &[String], path: &str) -> Option<u16> {
        let found = known
            .iter()
            .position(|known| known == name)
            .and_then(|index| u16::try_from(index).ok());
        if found.is_none() {
            self.wrong(path, unknown(kind, name, known.iter().map(String::as_str)));
        }
        found
    }

    fn qname(&mut self, qname: &config::Qname, path: &str, tests: &mut Vec<Expr>) {
        let config::Qname {
            exact,
            under,
            glob: globs,
            regex,
            first_label,
            labels,
        } = qname;
        if exact.is_none()
            && under.is_none()
            && globs.is_none()
            && regex.is_none()
            && first_label.is_none()
            && labels.is_none()
        {
            self.wrong(
                path,
                "found no condition, expected exact, under, glob, regex, first-label or labels",
            );
        }
        if let Some(range) = labels {
            tests.push(Expr::Test(Test::Labels(*range)));
        }
        if let Some(label) = first_label {
            let config::FirstLabel {
                length,
                alphabet,
                entropy,
            } = label;
            if length.is_none() && alphabet.is_none() && entropy.is_none() {
                self.wrong(
                    &format!("{path}.first-label"),
                    "found no condition, expected length, alphabet or entropy",
                );
            }
            let found = [
                length.map(Test::Length),
                alphabet.map(Test::Alphabet),
                entropy.map(Test::Entropy),
            ];
            tests.extend(found.into_iter().flatten().map(Expr::Test));
        }
        if let Some(names) = exact {
            let mark = self.gathered.mark();
            for name in self.parse_names(names, path, "exact") {
                self.gathered.name(name.as_wire(), mark, true);
            }
            tests.push(Expr::Test(Test::Mark(mark)));
        }
        match under {
            None => {}
            Some(Under::Names(names)) => {
                let parsed = self.parse_names(names, path, "under");
                let test = if parsed.len() > LARGE {
                    Test::NameList(
                        self.gathered
                            .name_list(&Arc::new(NameSet::new(parsed.iter()))),
                    )
                } else {
                    let mark = self.gathered.mark();
                    for name in &parsed {
                        self.gathered.name(name.as_wire(), mark, false);
                    }
                    Test::Mark(mark)
                };
                tests.push(Expr::Test(test));
            }
            Some(Under::Lists { list: lists }) => {
                let mut any = Vec::new();
                for (index, name) in lists.0.iter().enumerate() {
                    let path = item(path, "under.list", lists, index);
                    match self.list(name, &path) {
                        Some(List::Names(list)) => {
                            let number = self.gathered.name_list(&list);
                            any.push(Expr::Test(Test::NameList(number)));
                        }
                        Some(List::Prefixes(_)) => {
                            self.wrong(&path, format!("found list \"{name}\", which holds prefixes; expected a list of names"));
                        }
                        None => {}
                    }
                }
                tests.push(Expr::Any(any));
            }
        }
        if let Some(globs) = globs {
            tests.push(self.patterns(globs, path, "glob", glob));
        }
        if let Some(expressions) = regex {
            tests.push(self.patterns(expressions, path, "regex", str::to_owned));
        }
    }

    fn patterns(
        &mut self,
        written: &OneOrMany<String>,
        path: &str,
        field: &str,
        expression: impl Fn(&str) -> String,
    ) -> Expr {
        let mark = self.gathered.mark();
        for (index, text) in written.0.iter().enumerate() {
            let expression = expression(text);
            match check(&expression) {
                Ok(()) => self.gathered.pattern(expression, mark),
                Err(message) => self.wrong(&item(path, field, written, index), message),
            }
        }
        Expr::Test(Test::Pattern(mark))
    }

    fn parse_names(&mut self, names: &OneOrMany<String>, path: &str, field: &str) -> Vec<Name> {
        let mut parsed = Vec::with_capacity(names.0.len());
        for (index, text) in names.0.iter().enumerate() {
            match Name::from_text(text) {
                Ok(name) => parsed.push(name),
                Err(error) => {
                    self.wrong(
                        &item(path, field, names, index),
                        format!("found \"{text}\", expected a domain name: {error}"),
                    );
                }
            }
        }
        parsed
    }

    fn effect(&mut self, rule: &config::Rule, path: &str) -> Effect {
        let config::Do {
            action,
            score,
            rate_limit,
            pool,
            block,
        } = &rule.act;
        if action.is_none()
            && score.is_none()
            && rate_limit.is_none()
            && pool.is_none()
            && block.is_none()
        {
            self.wrong(
                path,
                "found nothing to do, expected action, score, rate-limit, pool or block",
            );
        }
        if action.is_some() && rate_limit.is_some() {
            self.wrong(
                &format!("{path}.rate-limit"),
                "found beside an action, which comes first; say what happens over the rate with rate-limit.over, or make two rules",
            );
        }
        if let (Some(Act::Allow), Some(_)) = (action, block) {
            self.wrong(
                &format!("{path}.block"),
                "found beside action allow; leave one of them out",
            );
        }
        if pool.is_some()
            && (matches!(action, Some(act) if *act != Act::Allow)
                || block.is_some() && rate_limit.is_none())
        {
            self.wrong(
                &format!("{path}.pool"),
                "found beside an action that never forwards; leave one of them out",
            );
        }
        if block.is_some_and(|span| span.0.is_zero() || span.0 > Duration::from_secs(366 * 86_400))
        {
            self.wrong(
                &format!("{path}.block"),
                "found a time that is zero or longer than a year, expected one such as \"10m\"",
            );
        }
        let action = match (action, block, rate_limit) {
            (Some(act), _, _) => Some(Action::from(*act)),
            (None, Some(_), None) => Some(Action::Drop),
            _ => None,
        };
        Effect {
            score: i32::from(score.unwrap_or_default()),
            action,
            limit: rate_limit
                .as_ref()
                .and_then(|limit| self.rate_limit(rule, limit, &format!("{path}.rate-limit"))),
            pool: pool.as_ref().and_then(|pool| {
                self.position("pool", pool, self.names.pools, &format!("{path}.pool"))
            }),
            block: block.map(|span| span.0),
        }
    }

    fn rate_limit(
        &mut self,
        rule: &config::Rule,
        limit: &config::RateLimit,
        path: &str,
    ) -> Option<RateLimit> {
        let Rate::Limit { events, per } = limit.rate else {
            self.wrong(
                &format!("{path}.rate"),
                "found \"off\", expected a rate such as \"20/s\"; remove the rule to have no limit",
            );
            return None;
        };
        if limit.burst == Some(0) {
            self.wrong(
                &format!("{path}.burst"),
                "found 0, which lets nothing through; expected at least 1",
            );
        }
        let sources = match limit.per {
            Per::Whole => None,
            Per::Source(lengths) => Some((lengths.v4, lengths.v6)),
        };
        if let Some((v4, v6)) = sources {
            if v4 > 32 {
                self.wrong(
                    &format!("{path}.per.v4"),
                    format!("found prefix length {v4}, expected 0 to 32"),
                );
            }
            if v6 > 128 {
                self.wrong(
                    &format!("{path}.per.v6"),
                    format!("found prefix length {v6}, expected 0 to 128"),
                );
            }
        }
        let a_second = u128::from(events)
            .saturating_mul(1_000_000_000)
            .checked_div(per.as_nanos())
            .unwrap_or_default();
        let burst = limit
            .burst
            .unwrap_or_else(|| u32::try_from(a_second).unwrap_or(u32::MAX).max(1));
        // What is counted together may come to every worker, so each has its share of the rate. A
        // prefix of the length that queries are steered by, or a longer one, comes to one of them.
        let spread = sources.is_none_or(|(v4, v6)| v4 < STEERED_V4 || v6 < STEERED_V6);
        let share = if spread { self.workers } else { 1 };
        Some(RateLimit {
            limit: Limit::new(events, per.saturating_mul(share), burst.div_ceil(share)),
            per: sources,
            over: limit.over.into(),
            id: fingerprint(&rule.name),
        })
    }
}

/// "path.field", with the position where several are given.
fn item<T>(path: &str, field: &str, all: &OneOrMany<T>, index: usize) -> String {
    match all.0.len() {
        1 => format!("{path}.{field}"),
        _ => format!("{path}.{field}[{index}]"),
    }
}

/// A number for a rule's name (FNV-1a), the same in every run. Above all prefix scopes.
fn fingerprint(name: &impl Display) -> u64 {
    name.to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3)
        })
}

/// What a query must have so that the conditions can hold: the most telling that is to be had,
/// with a number that is smaller for more telling ones.
fn keys_of(expr: &Expr) -> Option<(u8, Vec<Key>)> {
    match expr {
        Expr::Not(_) => None,
        Expr::All(parts) => parts
            .iter()
            .filter_map(keys_of)
            .min_by_key(|(rank, keys)| (*rank, keys.len())),
        Expr::Any(parts) => {
            let mut worst = 0;
            let mut all = Vec::new();
            for part in parts {
                let (rank, keys) = keys_of(part)?;
                worst = worst.max(rank);
                all.extend(keys);
            }
            Some((worst, all))
        }
        Expr::Test(test) => match test {
            Test::Mark(mark) => Some((0, vec![Key::Mark(*mark)])),
            Test::Qtype(types) => Some((1, types.iter().copied().map(Key::Qtype).collect())),
            Test::NameList(list) => Some((2, vec![Key::NameList(*list)])),
            Test::SourceList(list) => Some((2, vec![Key::SourceList(*list)])),
            Test::Pattern(mark) => Some((3, vec![Key::Pattern(*mark)])),
            _ => None,
        },
    }
}
