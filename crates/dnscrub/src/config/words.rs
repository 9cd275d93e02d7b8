//! Rules, said in words.

use std::fmt::Display;

use dnscrub_scoring::config::{
    Act, Alphabet, Bound, Do, Edns, Flags, FromLevel, OneOrMany, Over, Per, Qname, Range,
    RateLimit, Rule, Source, TransportName, Under, When,
};

use super::value::Period;

/// A rule as a sentence without its name, such as "queries of type ANY and over UDP: dropped in
/// silence".
pub(super) fn rule(rule: &Rule) -> String {
    let conditions = conditions(&rule.when);
    let which = match conditions.as_slice() {
        [] => "every query".to_owned(),
        conditions => format!("queries {}", conditions.join(" and ")),
    };
    let from = match rule.from_level {
        FromLevel::Calm => "",
        FromLevel::Alert => "from level alert on, ",
        FromLevel::Attack => "at level attack, ",
    };
    format!("{from}{which}: {}", deeds(&rule.act).join(", "))
}

/// Whether a rule decides every query that comes to it.
pub(super) fn decides_everything(rule: &Rule) -> bool {
    conditions(&rule.when).is_empty() && decides(rule)
}

/// Whether a rule decides every query that it matches.
pub(super) fn decides(rule: &Rule) -> bool {
    let over_tcp_too = !matches!(rule.act.action, Some(Act::Truncate));
    let acts = rule.act.action.is_some() || rule.act.block.is_some();
    let always = rule.from_level == FromLevel::Calm;
    acts && always && over_tcp_too && rule.act.rate_limit.is_none() && !rule.observe
}

/// The named lists that a rule refers to.
pub(super) fn lists(when: &When) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    if let Some(source) = &when.source {
        for list in [&source.within, &source.not_in].into_iter().flatten() {
            names.extend(list.0.iter().map(String::as_str));
        }
    }
    if let Some(Under::Lists { list }) = when.qname.as_ref().and_then(|it| it.under.as_ref()) {
        names.extend(list.0.iter().map(String::as_str));
    }
    let parts = when.all.iter().chain(&when.any).flatten();
    for part in parts.chain(when.not.as_deref()) {
        names.extend(lists(part));
    }
    names
}

fn conditions(when: &When) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(source) = &when.source {
        said.extend(of_source(source));
    }
    if let Some(qname) = &when.qname {
        said.extend(of_qname(qname));
    }
    if let Some(types) = &when.qtype {
        said.push(format!("of type {}", either(types)));
    }
    if let Some(classes) = &when.qclass {
        said.push(format!("of class {}", either(classes)));
    }
    if let Some(opcodes) = &when.opcode {
        said.push(format!("with opcode {}", either(opcodes)));
    }
    if let Some(flags) = &when.flags {
        said.extend(of_flags(flags));
    }
    if let Some(edns) = &when.edns {
        said.extend(of_edns(edns));
    }
    if let Some(transports) = &when.transport {
        let names: Vec<&str> = transports
            .0
            .iter()
            .map(|transport| match transport {
                TransportName::Udp => "UDP",
                TransportName::Tcp => "TCP",
            })
            .collect();
        said.push(format!("over {}", names.join(" or ")));
    }
    if let Some(listeners) = &when.listener {
        said.push(format!("on the listener {}", either(listeners)));
    }
    for part in when.all.iter().flatten() {
        said.extend(conditions(part));
    }
    if let Some(parts) = &when.any {
        let parts: Vec<String> = parts.iter().map(together).collect();
        said.push(format!("either {}", parts.join(" or ")));
    }
    if let Some(part) = &when.not {
        said.push(format!("not {}", together(part)));
    }
    said
}

fn together(when: &When) -> String {
    match conditions(when).as_slice() {
        [] => "(any)".to_owned(),
        [one] => one.clone(),
        many => format!("({})", many.join(" and ")),
    }
}

fn of_source(source: &Source) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(prefixes) = &source.prefix {
        said.push(format!("from {}", either(prefixes)));
    }
    if let Some(lists) = &source.within {
        said.push(format!("from the list {}", either(lists)));
    }
    if let Some(lists) = &source.not_in {
        said.push(format!("not from the list {}", either(lists)));
    }
    said
}

fn of_qname(qname: &Qname) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(names) = &qname.exact {
        said.push(format!("for {}", either(names)));
    }
    match &qname.under {
        Some(Under::Names(names)) => said.push(format!("under {}", either(names))),
        Some(Under::Lists { list }) => {
            said.push(format!("under a name of the list {}", either(list)));
        }
        None => {}
    }
    if let Some(globs) = &qname.glob {
        said.push(format!("for names like {}", either(globs)));
    }
    if let Some(regexes) = &qname.regex {
        said.push(format!("for names matching {}", either(regexes)));
    }
    if let Some(label) = &qname.first_label {
        if let Some(length) = label.length {
            said.push(format!("whose first label has {} octets", range(length)));
        }
        if let Some(alphabet) = label.alphabet {
            let kind = match alphabet {
                Alphabet::Digits => "digits",
                Alphabet::Alpha => "letters",
                Alphabet::Hex => "hexadecimal digits",
                Alphabet::Alnum => "letters and digits",
                Alphabet::Ldh => "letters, digits and hyphens",
            };
            said.push(format!("whose first label is all {kind}"));
        }
        if let Some(entropy) = label.entropy {
            said.push(format!(
                "whose first label has an entropy of {} bits an octet",
                range(entropy)
            ));
        }
    }
    if let Some(labels) = qname.labels {
        said.push(format!("for names of {} labels", range(labels)));
    }
    said
}

fn of_flags(flags: &Flags) -> Vec<String> {
    [
        ("AA", flags.aa),
        ("TC", flags.tc),
        ("RD", flags.rd),
        ("RA", flags.ra),
        ("AD", flags.ad),
        ("CD", flags.cd),
    ]
    .into_iter()
    .filter_map(|(name, flag)| Some(format!("with {name} {}", set(flag?))))
    .collect()
}

fn of_edns(edns: &Edns) -> Vec<String> {
    let mut said = Vec::new();
    match edns.present {
        Some(true) => said.push("with EDNS".to_owned()),
        Some(false) => said.push("without EDNS".to_owned()),
        None => {}
    }
    if let Some(version) = edns.version {
        said.push(format!("with EDNS version {}", range(version)));
    }
    if let Some(flag) = edns.dnssec_ok {
        said.push(format!("with DO {}", set(flag)));
    }
    if let Some(size) = edns.buffer_size {
        said.push(format!("with an EDNS buffer of {} octets", range(size)));
    }
    if let Some(options) = &edns.options {
        said.push(format!("with EDNS option {}", either(options)));
    }
    said
}

const fn set(flag: bool) -> &'static str {
    if flag { "set" } else { "clear" }
}

fn deeds(act: &Do) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(limit) = &act.rate_limit {
        said.push(of_limit(limit));
    }
    if let Some(action) = act.action {
        said.push(
            match action {
                Act::Drop => "dropped in silence",
                Act::Refuse => "answered REFUSED",
                Act::Nxdomain => "answered NXDOMAIN",
                Act::Truncate => "answered empty with TC=1 (over UDP)",
                Act::Allow => "let pass",
            }
            .to_owned(),
        );
    }
    match act.score {
        Some(1) => said.push("1 point".to_owned()),
        Some(points) => said.push(format!("{points} points")),
        None => {}
    }
    if let Some(pool) = &act.pool {
        said.push(format!("sent to the pool {pool}"));
    }
    if let Some(lifetime) = act.block {
        said.push(format!("the source blocked for {}", Period(lifetime.0)));
    }
    if said.is_empty() {
        said.push("counted only".to_owned());
    }
    said
}

fn of_limit(limit: &RateLimit) -> String {
    let whom = match limit.per {
        Per::Whole => "in all".to_owned(),
        Per::Source(prefix) => format!("for each IPv4 /{} and IPv6 /{}", prefix.v4, prefix.v6),
    };
    let burst = limit
        .burst
        .map_or_else(String::new, |burst| format!(", {burst} at once"));
    let over = match limit.over {
        Over::Drop => "dropped in silence",
        Over::Truncate => "answered empty with TC=1 (over UDP)",
        Over::Refuse => "answered REFUSED",
    };
    format!("what exceeds {} {whom}{burst} is {over}", limit.rate)
}

fn range<T: Bound>(range: Range<T>) -> String {
    let Range { from, to } = range;
    if from == to {
        from.to_string()
    } else if to == T::MAX {
        format!("at least {from}")
    } else if from == T::MIN {
        format!("at most {to}")
    } else {
        format!("{from} to {to}")
    }
}

fn either<T: Display>(values: &OneOrMany<T>) -> String {
    let words: Vec<String> = values.0.iter().map(ToString::to_string).collect();
    match words.as_slice() {
        [first, .., last] if words.len() > 8 => {
            format!("{first} … {last} ({} values)", words.len())
        }
        _ => words.join(" or "),
    }
}
