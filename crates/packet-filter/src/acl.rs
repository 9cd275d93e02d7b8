//! Who is served at all: allow and deny lists of prefixes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::filter::{FilterReason, Refusal, Verdict};
use crate::prefix_table::PrefixMap;

/// The access list. The longest prefix that covers a source decides; where the same prefix is in
/// both lists, deny wins. A source in neither list is served when the allow list is empty, and
/// denied otherwise. The default serves everybody.
///
/// Source addresses of UDP queries can be forged: the list keeps strangers' load away, it does not
/// prove who asks.
#[derive(Debug, Default)]
pub struct Acl {
    prefixes: PrefixMap,
    allow_listed_only: bool,
    denied: Refusal,
}

const DENY: u32 = 0;
const ALLOW: u32 = 1;

impl Acl {
    /// Builds the list; `refuse` answers the denied with REFUSED instead of silence.
    #[must_use]
    pub fn new(
        allow: impl IntoIterator<Item = IpNet>,
        deny: impl IntoIterator<Item = IpNet>,
        refuse: bool,
    ) -> Self {
        let mut allow_listed_only = false;
        let allow = allow
            .into_iter()
            .inspect(|_| allow_listed_only = true)
            .map(|prefix| (prefix, ALLOW));
        // Deny comes later, so that it wins over an equal allow prefix.
        let prefixes = PrefixMap::new(allow.chain(deny.into_iter().map(|prefix| (prefix, DENY))));
        Self {
            prefixes,
            allow_listed_only,
            denied: if refuse {
                Refusal::Refuse
            } else {
                Refusal::Drop
            },
        }
    }

    /// Whether a source is served.
    #[must_use]
    #[inline]
    pub fn allows(&self, source: IpAddr) -> bool {
        if self.prefixes.is_empty() {
            return true;
        }
        match self.prefixes.lookup(source) {
            Some(list) => list == ALLOW,
            None => !self.allow_listed_only,
        }
    }

    #[inline]
    pub(crate) fn verdict(&self, source: IpAddr) -> Verdict {
        if self.allows(source) {
            Verdict::Admit
        } else {
            self.denied.verdict(FilterReason::AclDenied)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn everybody_is_served_by_default() {
        let acl = Acl::default();
        assert!(acl.allows(address("192.0.2.1")) && acl.allows(address("2001:db8::1")));
    }

    #[test]
    fn a_deny_list_alone_leaves_the_others_served() {
        let acl = Acl::new([], nets(&["192.0.2.0/24", "2001:db8::/32"]), false);
        assert!(!acl.allows(address("192.0.2.1")) && !acl.allows(address("2001:db8::1")));
        assert!(acl.allows(address("198.51.100.1")) && acl.allows(address("2001:db9::1")));
    }

    #[test]
    fn an_allow_list_denies_everybody_else() {
        let acl = Acl::new(nets(&["192.0.2.0/24"]), [], false);
        assert!(acl.allows(address("192.0.2.1")));
        assert!(!acl.allows(address("198.51.100.1")) && !acl.allows(address("2001:db8::1")));
    }

    #[test]
    fn the_longest_prefix_decides_and_deny_wins_a_tie() {
        let acl = Acl::new(
            nets(&["192.0.2.0/24", "192.0.2.7/32", "198.51.100.0/24"]),
            nets(&["192.0.2.0/28", "198.51.100.0/24"]),
            false,
        );
        assert!(acl.allows(address("192.0.2.200")));
        assert!(!acl.allows(address("192.0.2.1")));
        assert!(acl.allows(address("192.0.2.7")));
        assert!(!acl.allows(address("198.51.100.1")));
    }

    #[test]
    fn mapped_sources_are_matched_as_ipv4() {
        let acl = Acl::new([], nets(&["192.0.2.0/24"]), false);
        assert!(!acl.allows(address("::ffff:192.0.2.1")));
        let acl = Acl::new([], nets(&["::ffff:192.0.2.0/120"]), false);
        assert!(!acl.allows(address("192.0.2.1")));
    }
}
