//! Which kinds of query are served.

use std::net::IpAddr;

use dnscrub_wire::{Opcode, Rcode};
use ipnet::IpNet;

use crate::filter::{FilterReason, Verdict};
use crate::prefix_table::PrefixMap;

/// What a query of one opcode gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpcodeRule {
    /// It is served.
    Serve,
    /// Rcode REFUSED.
    Refuse,
    /// Rcode NOTIMP.
    NotImplemented,
    /// Silence.
    Drop,
}

impl OpcodeRule {
    const fn verdict(self, reason: FilterReason) -> Verdict {
        match self {
            Self::Serve => Verdict::Admit,
            Self::Refuse => Verdict::Refuse(reason, Rcode::REFUSED),
            Self::NotImplemented => Verdict::Refuse(reason, Rcode::NOTIMP),
            Self::Drop => Verdict::Drop(reason),
        }
    }
}

/// What is done with each opcode, and from where. By default QUERY is served, NOTIFY and UPDATE
/// are refused until prefixes are listed for them, and all others get NOTIMP.
///
/// NOTIFY and UPDATE change what a backend does, and behind the proxy the backend no longer sees
/// who sent them; so they are served only from listed prefixes. Over UDP the source can be forged:
/// the backend should still ask for TSIG.
#[derive(Debug)]
pub struct OpcodePolicy {
    /// By the opcode's number.
    rules: [OpcodeRule; 16],
    /// Where opcodes are served from that are not served from everywhere, with what all others get.
    listed: Vec<(Opcode, PrefixMap)>,
}

impl Default for OpcodePolicy {
    fn default() -> Self {
        Self {
            rules: [OpcodeRule::NotImplemented; 16],
            listed: Vec::new(),
        }
        .with(Opcode::QUERY, OpcodeRule::Serve)
        .with(Opcode::NOTIFY, OpcodeRule::Refuse)
        .with(Opcode::UPDATE, OpcodeRule::Refuse)
    }
}

impl OpcodePolicy {
    /// One rule for every opcode.
    #[must_use]
    pub const fn uniform(rule: OpcodeRule) -> Self {
        Self {
            rules: [rule; 16],
            listed: Vec::new(),
        }
    }

    /// The same policy with another rule for one opcode, whatever the source.
    #[must_use]
    pub fn with(mut self, opcode: Opcode, rule: OpcodeRule) -> Self {
        self.listed.retain(|(listed, _)| *listed != opcode);
        if let Some(slot) = self.rules.get_mut(usize::from(opcode.0)) {
            *slot = rule;
        }
        self
    }

    /// The same policy with one opcode served from these prefixes; all other sources get
    /// `otherwise`.
    #[must_use]
    pub fn with_listed(
        self,
        opcode: Opcode,
        from: impl IntoIterator<Item = IpNet>,
        otherwise: OpcodeRule,
    ) -> Self {
        let from = PrefixMap::new(from.into_iter().map(|prefix| (prefix, 0)));
        let mut policy = self.with(opcode, otherwise);
        if !from.is_empty() {
            policy.listed.push((opcode, from));
        }
        policy
    }

    #[inline]
    pub(crate) fn verdict(&self, opcode: Opcode, source: IpAddr) -> Verdict {
        let rule = self
            .rules
            .get(usize::from(opcode.0))
            .copied()
            .unwrap_or(OpcodeRule::NotImplemented);
        if rule == OpcodeRule::Serve {
            return Verdict::Admit;
        }
        match self.listed.iter().find(|(listed, _)| *listed == opcode) {
            Some((_, from)) if from.lookup(source).is_some() => Verdict::Admit,
            Some(_) => rule.verdict(FilterReason::OpcodeSource),
            None => rule.verdict(FilterReason::OpcodeNotServed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    #[test]
    fn only_query_is_served_by_default() {
        let policy = OpcodePolicy::default();
        let refused = Verdict::Refuse(FilterReason::OpcodeNotServed, Rcode::REFUSED);
        let not_implemented = Verdict::Refuse(FilterReason::OpcodeNotServed, Rcode::NOTIMP);
        for number in 0..16 {
            let expected = match number {
                0 => Verdict::Admit,
                4 | 5 => refused,
                _ => not_implemented,
            };
            assert_eq!(
                policy.verdict(Opcode(number), PRIMARY),
                expected,
                "{number}"
            );
        }
    }

    #[test]
    fn listed_prefixes_may_notify() {
        let policy = OpcodePolicy::default().with_listed(
            Opcode::NOTIFY,
            ["192.0.2.0/24".parse().unwrap()],
            OpcodeRule::Refuse,
        );
        assert_eq!(policy.verdict(Opcode::NOTIFY, PRIMARY), Verdict::Admit);
        assert_eq!(
            policy.verdict(Opcode::NOTIFY, "::ffff:192.0.2.1".parse().unwrap()),
            Verdict::Admit
        );
        assert_eq!(
            policy.verdict(Opcode::NOTIFY, OTHER),
            Verdict::Refuse(FilterReason::OpcodeSource, Rcode::REFUSED)
        );
        assert_eq!(
            policy.verdict(Opcode::UPDATE, PRIMARY),
            Verdict::Refuse(FilterReason::OpcodeNotServed, Rcode::REFUSED)
        );
    }

    #[test]
    fn each_rule_has_its_verdict() {
        let reason = FilterReason::OpcodeNotServed;
        for (rule, verdict) in [
            (OpcodeRule::Serve, Verdict::Admit),
            (OpcodeRule::Refuse, Verdict::Refuse(reason, Rcode::REFUSED)),
            (
                OpcodeRule::NotImplemented,
                Verdict::Refuse(reason, Rcode::NOTIMP),
            ),
            (OpcodeRule::Drop, Verdict::Drop(reason)),
        ] {
            assert_eq!(
                OpcodePolicy::uniform(rule).verdict(Opcode::STATUS, OTHER),
                verdict
            );
        }
    }
}
