//! The compiled rules against a plain reading of what was written, on random rules and queries.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use dnscrub_wire::{Name, Query};
use proptest::prelude::*;
use proptest::sample::select;

use crate::bands::Pressure;
use crate::config::{self, Act, Alphabet, Mode, Over, Per, Rate, Rule, TransportName, Under, When};
use crate::context::{Context, Transport};
use crate::judgement::{Action, Cause};
use crate::lists::List;
use crate::policy::{Names, Policy};
use crate::scorer::{Case, Scorer};
use crate::testing::{LISTENERS, POOLS, lists, query_with};

const NAMES: [&str; 10] = [
    ".",
    "test",
    "a.test",
    "b.test",
    "www.a.test",
    "x.www.a.test",
    "aaaaaaaaaaaa1.b.test",
    "0123.test",
    "a_b.c-d.a.test",
    "\\000.b.test",
];
const SOURCES: [&str; 7] = [
    "192.0.2.1",
    "192.0.2.200",
    "198.51.100.1",
    "10.9.8.7",
    "2001:db8::1",
    "2001:db8:1::1",
    "::ffff:192.0.2.1",
];
const LISTS: &str = "{ near: { prefixes: [192.0.2.0/25, '2001:db8::/48'] }, far: { prefixes: [198.51.100.0/24] }, \
                       zones: { names: [a.test, 0123.test] } }";

fn part(kind: usize, choice: usize) -> String {
    let pick = |of: &[&str]| of[choice % of.len()].to_owned();
    let name = pick(&NAMES);
    let other = NAMES[(choice / 3) % NAMES.len()];
    match kind {
        0 => format!(
            "source: {}",
            pick(&[
                "192.0.2.1",
                "192.0.2.0/24",
                "[10.0.0.0/8, '2001:db8::/32']",
                "0.0.0.0/0",
                "'::/0'"
            ])
        ),
        1 => format!(
            "source: {}",
            pick(&[
                "{ in: near }",
                "{ not-in: near }",
                "{ in: [near, far] }",
                "{ not-in: [near, far] }",
                "{ prefix: 192.0.0.0/16, not-in: near }"
            ])
        ),
        2 => format!("qname: '{name}'"),
        3 => format!("qname: {{ under: ['{name}', '{other}'] }}"),
        4 => format!(
            "qname: {{ exact: ['{name}', '{other}'], labels: {} }}",
            pick(&["2..", "..3", "0"])
        ),
        5 => format!(
            "qname: {{ glob: {} }}",
            pick(&["'*.test'", "'**.test'", "'?.test'", "['a*', '**b.test']"])
        ),
        6 => format!(
            "qname: {{ regex: {} }}",
            pick(&["'^w'", "'[0-9]{3,}'", "['_', '^\\\\000']", "'test$'"])
        ),
        7 => format!(
            "qname: {{ first-label: {{ {} }} }}",
            pick(&[
                "length: 4..",
                "alphabet: alnum",
                "alphabet: hex",
                "entropy: 1.5..",
                "length: ..3, alphabet: ldh",
                "alphabet: digits",
                "alphabet: alpha"
            ])
        ),
        8 => format!(
            "qname: {{ under: {{ list: zones }} {} }}",
            pick(&["", ", labels: 2.."])
        ),
        9 => format!("qtype: {}", pick(&["A", "ANY", "[A, TXT]", "TYPE255"])),
        10 => format!(
            "flags: {{ {} }}",
            pick(&["rd: true", "rd: false, cd: true", "ad: true"])
        ),
        11 => format!(
            "edns: {{ {} }}",
            pick(&[
                "present: true",
                "present: false",
                "do: true",
                "version: 1..",
                "buffer-size: 1000..",
                "options: [10]"
            ])
        ),
        12 => format!("transport: {}", pick(&["udp", "tcp", "[udp, tcp]"])),
        13 => format!("listener: {}", pick(&["public", "inside"])),
        14 => format!("qclass: {}", pick(&["IN", "CH", "[IN, CH]"])),
        _ => format!("opcode: {}", pick(&["query", "notify"])),
    }
}

fn when() -> impl Strategy<Value = String> {
    let leaf =
        proptest::collection::btree_map(0_usize..16, any::<usize>(), 0..3).prop_map(|parts| {
            // one field may stand once
            let mut seen = Vec::new();
            parts
                .into_iter()
                .map(|(kind, choice)| part(kind, choice))
                .filter(|part| {
                    let field = part.split(':').next().unwrap().to_owned();
                    let new = !seen.contains(&field);
                    seen.push(field);
                    new
                })
                .collect::<Vec<_>>()
                .join(", ")
        });
    leaf.prop_map(|parts| format!("{{ {parts} }}"))
        .prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..4)
                    .prop_map(|parts| format!("{{ any: [{}] }}", parts.join(", "))),
                proptest::collection::vec(inner.clone(), 1..4)
                    .prop_map(|parts| format!("{{ all: [{}] }}", parts.join(", "))),
                inner.clone().prop_map(|part| format!("{{ not: {part} }}")),
                (inner, 0_usize..16, any::<usize>()).prop_map(|(inner, kind, choice)| format!(
                    "{{ {}, not: {inner} }}",
                    part(kind, choice)
                )),
            ]
        })
}

fn act() -> impl Strategy<Value = &'static str> {
    select(vec![
        "drop",
        "refuse",
        "nxdomain",
        "truncate",
        "allow",
        "{ score: 15 }",
        "{ score: 40 }",
        "{ score: -20 }",
        "{ pool: slow }",
        "{ score: 30, pool: default }",
        "{ block: 10m }",
        "{ rate-limit: { rate: 1/s, over: truncate } }",
        "{ rate-limit: { rate: 2/s, per: { v4: 24, v6: 48 } }, score: 5 }",
        "{ rate-limit: { rate: 1/s, per: whole, burst: 2, over: refuse }, block: 1m }",
    ])
}

#[derive(Clone, Debug)]
struct Asked {
    name: &'static str,
    qtype: u16,
    qclass: u16,
    flags: u16,
    opt: Option<Vec<u8>>,
    source: &'static str,
    tcp: bool,
    listener: u16,
    pressure: f32,
    wait: u64,
}

fn asked() -> impl Strategy<Value = Asked> {
    let question = (
        select(&NAMES[..]),
        select(vec![1_u16, 16, 255]),
        select(vec![1_u16, 3]),
        select(vec![0_u16, 0x0100, 0x0110, 0x0020, 0x2000]),
    );
    let opt = select(vec![
        None,
        Some(vec![4, 208, 0, 0, 0, 0, 0, 0]),
        Some(vec![2, 0, 0, 1, 0x80, 0, 0, 4, 0, 10, 0, 0]),
    ]);
    let way = (
        select(&SOURCES[..]),
        any::<bool>(),
        0_u16..2,
        select(vec![0.0_f32, 0.3, 1.0]),
        select(vec![0_u64, 0, 400]),
    );
    (question, opt, way).prop_map(
        |((name, qtype, qclass, flags), opt, (source, tcp, listener, pressure, wait))| Asked {
            name,
            qtype,
            qclass,
            flags,
            opt,
            source,
            tcp,
            listener,
            pressure,
            wait,
        },
    )
}

/// The rules read plainly, one after the other.
struct Plain<'a> {
    rules: &'a [Rule],
    lists: &'a std::collections::BTreeMap<String, List>,
    scrubbing: &'a config::Scrubbing,
    /// When the next query is due, by rule and source.
    paid: HashMap<(usize, String), u64>,
}

impl Plain<'_> {
    fn holds(&self, when: &When, query: &Query, packet: &[u8], context: &Context) -> bool {
        let source = context.source.to_canonical();
        let text = query.qname.to_string();
        let mut all = vec![];
        if let Some(parts) = &when.all {
            all.push(
                parts
                    .iter()
                    .all(|part| self.holds(part, query, packet, context)),
            );
        }
        if let Some(parts) = &when.any {
            all.push(
                parts
                    .iter()
                    .any(|part| self.holds(part, query, packet, context)),
            );
        }
        if let Some(part) = &when.not {
            all.push(!self.holds(part, query, packet, context));
        }
        if let Some(config::Source {
            prefix,
            within,
            not_in,
        }) = &when.source
        {
            let listed = |names: &config::OneOrMany<String>| {
                names.0.iter().any(
                    |name| matches!(&self.lists[name], List::Prefixes(set) if set.contains(source)),
                )
            };
            all.extend(
                prefix
                    .as_ref()
                    .map(|prefixes| prefixes.0.iter().any(|prefix| prefix.0.contains(&source))),
            );
            all.extend(within.as_ref().map(listed));
            all.extend(not_in.as_ref().map(|names| !listed(names)));
        }
        if let Some(config::Qname {
            exact,
            under,
            glob,
            regex,
            first_label,
            labels,
        }) = &when.qname
        {
            let parse = |text: &String| text.parse::<Name>().unwrap();
            all.extend(
                exact
                    .as_ref()
                    .map(|names| names.0.iter().any(|name| parse(name) == query.qname)),
            );
            all.extend(under.as_ref().map(|under| match under {
                Under::Names(names) => names.0.iter().any(|name| query.qname.is_under(&parse(name))),
                Under::Lists { list } => {
                    list.0.iter().any(|name| matches!(&self.lists[name], List::Names(set) if set.covers(&query.qname)))
                }
            }));
            all.extend(glob.as_ref().map(|globs| {
                globs
                    .0
                    .iter()
                    .any(|glob| glob_matches(glob.as_bytes(), text.as_bytes()))
            }));
            all.extend(regex.as_ref().map(|all| {
                all.0.iter().any(|expression| {
                    use regex_automata::dfa::{Automaton, dense::DFA};
                    DFA::new(expression)
                        .unwrap()
                        .try_search_fwd(&regex_automata::Input::new(&text))
                        .unwrap()
                        .is_some()
                })
            }));
            if let Some(config::FirstLabel {
                length,
                alphabet,
                entropy,
            }) = first_label
            {
                let label = query.qname.first_label();
                all.push(!label.is_empty());
                all.extend(length.map(|range| range.contains(label.len() as u8)));
                all.extend(entropy.map(|range| range.contains(crate::label::entropy(label))));
                all.extend(alphabet.map(|alphabet| {
                    label.iter().all(|octet| match alphabet {
                        Alphabet::Digits => octet.is_ascii_digit(),
                        Alphabet::Alpha => octet.is_ascii_lowercase(),
                        Alphabet::Hex => octet.is_ascii_hexdigit(),
                        Alphabet::Alnum => octet.is_ascii_alphanumeric(),
                        Alphabet::Ldh => octet.is_ascii_alphanumeric() || *octet == b'-',
                    })
                }));
            }
            all.extend(labels.map(|range| range.contains(query.qname.label_count() as u8)));
        }
        all.extend(
            when.qtype
                .as_ref()
                .map(|types| types.0.iter().any(|qtype| qtype.0 == query.qtype)),
        );
        all.extend(
            when.qclass
                .as_ref()
                .map(|classes| classes.0.iter().any(|class| class.0 == query.qclass)),
        );
        all.extend(when.opcode.as_ref().map(|opcodes| {
            opcodes
                .0
                .iter()
                .any(|opcode| opcode.0 == query.flags.opcode().0)
        }));
        if let Some(flags) = &when.flags {
            all.extend(flags.rd.map(|set| query.flags.recursion_desired() == set));
            all.extend(flags.ad.map(|set| query.flags.authentic_data() == set));
            all.extend(flags.cd.map(|set| query.flags.checking_disabled() == set));
        }
        if let Some(edns) = &when.edns {
            all.push(query.edns.is_some() != (edns.present == Some(false)));
            if let Some(found) = query.edns {
                all.extend(edns.version.map(|range| range.contains(found.version)));
                all.extend(edns.dnssec_ok.map(|set| found.dnssec_ok == set));
                all.extend(edns.buffer_size.map(|range| range.contains(found.udp_size)));
                all.extend(edns.options.as_ref().map(|codes| {
                    query
                        .options(packet)
                        .any(|option| codes.0.contains(&option.code))
                }));
            }
        }
        all.extend(when.transport.as_ref().map(|names| {
            names.0.iter().any(|name| {
                matches!(
                    (name, context.transport),
                    (TransportName::Udp, Transport::Udp) | (TransportName::Tcp, Transport::Tcp)
                )
            })
        }));
        all.extend(when.listener.as_ref().map(|names| {
            names
                .0
                .iter()
                .any(|name| name == LISTENERS[usize::from(context.listener)])
        }));
        all.into_iter().all(|held| held)
    }

    fn over(&mut self, index: usize, limit: &config::RateLimit, source: IpAddr, now: u64) -> bool {
        let key = match limit.per {
            Per::Whole => String::new(),
            Per::Source(lengths) => {
                let length = if source.is_ipv4() {
                    lengths.v4
                } else {
                    lengths.v6
                };
                ipnet::IpNet::new(source, length)
                    .unwrap()
                    .trunc()
                    .to_string()
            }
        };
        let Rate::Limit { events, per } = limit.rate else {
            unreachable!()
        };
        let interval = per.as_nanos() as u64 / u64::from(events);
        let burst = limit.burst.unwrap_or(events);
        let paid = self.paid.entry((index, key)).or_default();
        let due = (*paid).max(now);
        if due - now > interval * u64::from(burst - 1) {
            return true;
        }
        *paid = due + interval;
        false
    }

    /// (action, cause, points, pool, rule that blocks, what would have been).
    #[allow(clippy::type_complexity, reason = "a test's tuple")]
    fn judge(
        &mut self,
        query: &Query,
        packet: &[u8],
        context: &Context,
        pressure: f32,
        now: u64,
    ) -> (
        Action,
        Cause,
        u16,
        Option<u16>,
        Option<u16>,
        Option<(Action, Cause)>,
    ) {
        let observe_all = self.scrubbing.mode == Mode::Observe;
        let (mut points, mut all_points, mut pool, mut block) = (0_i32, 0_i32, None, None);
        let (mut decided, mut would): (Option<(Action, Cause)>, Option<(Action, Cause)>) =
            (None, None);
        for (index, rule) in self.rules.iter().enumerate() {
            if decided.is_some() || !self.holds(&rule.when, query, packet, context) {
                continue;
            }
            let act = &rule.act;
            if let Some(name) = &act.pool
                && !rule.observe
                && pool.is_none()
            {
                pool = POOLS
                    .iter()
                    .position(|known| known == name)
                    .map(|index| index as u16);
            }
            if observe_all && would.is_some() {
                continue;
            }
            let observed = observe_all || rule.observe;
            all_points += i32::from(act.score.unwrap_or_default());
            points += if observed {
                0
            } else {
                i32::from(act.score.unwrap_or_default())
            };
            let number = index as u16;
            let mut done = match act.action {
                Some(Act::Drop) => Some((Action::Drop, Cause::Rule(number))),
                Some(Act::Refuse) => Some((Action::Refuse, Cause::Rule(number))),
                Some(Act::Nxdomain) => Some((Action::NxDomain, Cause::Rule(number))),
                Some(Act::Truncate) => Some((Action::Truncate, Cause::Rule(number))),
                Some(Act::Allow) => Some((Action::Pass, Cause::Allow(number))),
                None if act.block.is_some() && act.rate_limit.is_none() => {
                    Some((Action::Drop, Cause::Rule(number)))
                }
                None => None,
            };
            if let Some(limit) = &act.rate_limit
                && self.over(index, limit, context.source.to_canonical(), now)
            {
                let action = match limit.over {
                    Over::Drop => Action::Drop,
                    Over::Truncate => Action::Truncate,
                    Over::Refuse => Action::Refuse,
                };
                done = Some((action, Cause::RateLimit(number)));
            }
            done = done.filter(|(action, _)| {
                *action != Action::Truncate || context.transport == Transport::Udp
            });
            would = would.or(done);
            if !observed && done.is_some() {
                decided = done;
                block = act.block.map(|_| number);
            }
        }
        let band = |points: i32| {
            let mut reached = (Action::Pass, Cause::None);
            for (index, band) in self.scrubbing.bands.iter().enumerate() {
                let permille = Pressure::new(pressure).fraction();
                let threshold =
                    f32::from(band.at) - f32::from(band.at - band.under_pressure) * permille;
                let action = Action::from(band.action);
                if points as f32 >= threshold
                    && !(action == Action::Truncate && context.transport == Transport::Tcp)
                {
                    reached = (action, Cause::Band(index as u8));
                }
            }
            reached
        };
        let decided = decided.unwrap_or_else(|| {
            if observe_all {
                (Action::Pass, Cause::None)
            } else {
                band(points)
            }
        });
        let would = would.unwrap_or_else(|| band(all_points));
        (
            decided.0,
            decided.1,
            points.max(0) as u16,
            pool,
            block,
            Some(would).filter(|would| would.0 != decided.0),
        )
    }
}

fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    match (glob, text) {
        ([], []) => true,
        ([b'*', b'*', rest @ ..], _) => (0..=text.len()).any(|at| glob_matches(rest, &text[at..])),
        ([b'*', rest @ ..], _) => {
            let label = text
                .iter()
                .position(|octet| *octet == b'.')
                .unwrap_or(text.len());
            (0..=label).any(|at| glob_matches(rest, &text[at..]))
        }
        ([b'?', rest @ ..], [octet, text @ ..]) if *octet != b'.' => glob_matches(rest, text),
        ([same, rest @ ..], [octet, text @ ..]) if same == octet => glob_matches(rest, text),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn compiled_rules_do_what_is_written(
        rules in proptest::collection::vec((when(), act(), proptest::bool::weighted(0.25)), 0..12),
        observe in proptest::bool::weighted(0.2),
        queries in proptest::collection::vec(asked(), 1..25),
    ) {
        let rules: Vec<Rule> = rules.iter().enumerate().map(|(index, (when, act, observe))| {
            let yaml = format!("{{ name: r{index}, observe: {observe}, when: {when}, do: {act} }}");
            serde_yaml::from_str(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
        }).collect();
        let scrubbing = config::Scrubbing { mode: if observe { Mode::Observe } else { Mode::Enforce }, ..Default::default() };
        let signals: config::Signals = serde_yaml::from_str("{ rate: { v4: {}, v6: {} }, shape: { at-most: 0 }, amplification: { any: 0, ratio: 0 }, verified: { credit: 0 } }").unwrap();
        let lists = lists(LISTS);
        let (pools, listeners) = (POOLS.map(str::to_owned), LISTENERS.map(str::to_owned));
        let policy = Policy::build(&scrubbing, &signals, &rules, &Names { pools: &pools, listeners: &listeners, lists: &lists }, 1).unwrap();
        #[allow(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
        let began = std::time::Instant::now();
        let mut now = 0_u64;
        let mut scorer = Scorer::new(0, &policy, [5, 6, 7, 8], began);
        let mut plain = Plain { rules: &rules, lists: &lists, scrubbing: &scrubbing, paid: HashMap::new() };
        for asked in &queries {
            now += asked.wait * 1_000_000;
            let (query, packet) = query_with(&asked.name.parse().unwrap(), asked.qtype, asked.qclass, asked.flags, asked.opt.as_deref());
            let context = Context {
                source: asked.source.parse().unwrap(),
                transport: if asked.tcp { Transport::Tcp } else { Transport::Udp },
                listener: asked.listener, hop_ttl: None, proven: false, len: query.len,
            };
            let at = began + Duration::from_nanos(now);
            let case = Case { policy: &policy, query: &query, packet: &packet, context: &context, pressure: asked.pressure, now: at };
            let explained = scorer.explain(case);
            let judged = scorer.judge(case);
            prop_assert_eq!(explained.judgement, judged);
            let expected = plain.judge(&query, &packet, &context, asked.pressure, now);
            let found = (judged.action, judged.cause, judged.points, judged.pool, judged.block_source.map(|block| block.rule), judged.would);
            prop_assert_eq!(found, expected, "{:?}", asked);
        }
    }
}
