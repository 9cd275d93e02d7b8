//! Named lists: sets of address prefixes and sets of domain names, immutable once built.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dnscrub_wire::Name;
use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};

use crate::config;
use crate::names::NameMap;

/// A named list. Cloning shares the contents.
#[derive(Clone, Debug)]
pub enum List {
    /// Address prefixes.
    Prefixes(Arc<PrefixSet>),
    /// Domain names.
    Names(Arc<NameSet>),
}

/// Why a line of a list is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListError {
    /// The line, from 1; 0 for an entry of the configuration itself.
    pub line: usize,
    /// What stands there and what was expected.
    pub message: String,
}

impl std::fmt::Display for ListError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}: {}", self.message),
        }
    }
}

impl std::error::Error for ListError {}

impl List {
    /// Builds a list from its configuration and the text of the file it names, if it names one.
    ///
    /// # Errors
    /// The first entry that is neither a prefix nor a name, as the list's kind asks for; or that
    /// the list mixes the kinds, or has none.
    pub fn build(config: &config::List, file: Option<&str>) -> Result<Self, ListError> {
        let prefixes = !config.prefixes.is_empty() || config.prefix_file.is_some();
        let names = !config.names.is_empty() || config.name_file.is_some();
        let wrong = |message: &str| {
            Err(ListError {
                line: 0,
                message: message.to_owned(),
            })
        };
        match (prefixes, names) {
            (true, true) => {
                wrong("found both prefixes and names, expected one kind; make two lists of it")
            }
            (false, false) => {
                wrong("found an empty list, expected prefixes, prefix-file, names or name-file")
            }
            (true, false) => {
                let mut all: Vec<IpNet> = config.prefixes.iter().map(|prefix| prefix.0).collect();
                for (line, entry) in entries(file.unwrap_or_default()) {
                    let prefix: config::Prefix = entry
                        .parse()
                        .map_err(|message| ListError { line, message })?;
                    all.push(prefix.0);
                }
                Ok(Self::Prefixes(Arc::new(PrefixSet::new(all))))
            }
            (false, true) => {
                let mut all = Vec::new();
                for (line, entry) in config
                    .names
                    .iter()
                    .map(|name| (0, name.as_str()))
                    .chain(entries(file.unwrap_or_default()))
                {
                    let name = Name::from_text(entry).map_err(|error| ListError {
                        line,
                        message: format!("found \"{entry}\", expected a domain name: {error}"),
                    })?;
                    all.push(name);
                }
                Ok(Self::Names(Arc::new(NameSet::new(all.iter()))))
            }
        }
    }

    /// What it holds, in words.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Prefixes(_) => "prefixes",
            Self::Names(_) => "names",
        }
    }
}

/// The first word of every line that has one, with the line's number from 1.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        line.split_whitespace()
            .next()
            .map(|entry| (index.saturating_add(1), entry))
    })
}

/// A set of address prefixes: 8 octets a separate IPv4 range, 32 an IPv6 one, and an index of
/// 256 KiB from 4096 ranges on. IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Clone, Debug, Default)]
pub struct PrefixSet {
    v4: Ranges<u32>,
    /// Ranges by the first 16 bits of an address: those of `n` begin at entry `n` and reach
    /// to the one that entry `n + 1` begins with. Empty for small sets.
    v4_index: Vec<u32>,
    v6: Ranges<u128>,
    prefixes: usize,
}

const INDEX_FROM: usize = 4096;

impl PrefixSet {
    /// The union of `prefixes`.
    #[must_use]
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        let mut count = 0_usize;
        for prefix in prefixes {
            count = count.saturating_add(1);
            match prefix {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
            }
        }
        let v4 = Ranges::new(v4);
        let mut v4_index = Vec::new();
        if v4.0.len() >= INDEX_FROM {
            for high in 0..=u32::from(u16::MAX) {
                v4_index.push(v4.0.partition_point(|(_, last)| *last < high << 16) as u32);
            }
            v4_index.push(v4.0.len() as u32);
        }
        Self {
            v4,
            v4_index,
            v6: Ranges::new(v6),
            prefixes: count,
        }
    }

    /// Prefixes it was made from.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.prefixes
    }

    /// Whether it contains nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.prefixes == 0
    }

    /// Prefixes that cover the same addresses, none inside another.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        let v4 =
            self.v4.0.iter().map(|&(first, last)| {
                IpSubnets::V4(Ipv4Subnets::new(first.into(), last.into(), 0))
            });
        let v6 =
            self.v6.0.iter().map(|&(first, last)| {
                IpSubnets::V6(Ipv6Subnets::new(first.into(), last.into(), 0))
            });
        v4.chain(v6).flatten()
    }

    /// Whether a prefix contains `address`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.contains_v4(address),
            IpAddr::V6(address) => self.contains_v6(address),
        }
    }

    fn contains_v4(&self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        if self.v4_index.is_empty() {
            return contains(&self.v4.0, address);
        }
        let high = (address >> 16) as usize;
        let from = self.v4_index.get(high).copied().unwrap_or_default() as usize;
        // a range that reaches beyond this block is the first of the next one too
        let to = self
            .v4_index
            .get(high.saturating_add(1))
            .copied()
            .unwrap_or_default()
            .saturating_add(1) as usize;
        let to = to.min(self.v4.0.len());
        contains(self.v4.0.get(from..to).unwrap_or_default(), address)
    }

    fn contains_v6(&self, address: Ipv6Addr) -> bool {
        contains(&self.v6.0, u128::from(address))
    }
}

fn contains<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let at = ranges.partition_point(|(_, last)| *last < address);
    ranges.get(at).is_some_and(|(first, _)| *first <= address)
}

/// Ascending ranges that do not overlap, both ends included.
#[derive(Clone, Debug, Default)]
struct Ranges<T>(Vec<(T, T)>);

impl<T: Copy + Ord> Ranges<T> {
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, reached)) if first <= *reached => *reached = (*reached).max(last),
                _ => merged.push((first, last)),
            }
        }
        merged.shrink_to_fit();
        Self(merged)
    }
}

/// A set of domain names, to ask what stands at or under one of them. 20 to 36 octets a name
/// beside its own octets.
#[derive(Clone, Debug, Default)]
pub struct NameSet(NameMap);

impl NameSet {
    /// The set of `names`.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a Name>) -> Self {
        Self(NameMap::new(
            names.into_iter().map(|name| (name.as_wire(), 0)),
        ))
    }

    /// Different names in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it contains nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `name` or one of its ancestors is in the set.
    #[must_use]
    pub fn covers(&self, name: &Name) -> bool {
        let mut covered = false;
        self.0.ancestors(name, |_, _| {
            covered = true;
            false
        });
        covered
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_is_told_by_prefixes_of_which_none_is_in_another() {
        let parse = |text: &str| text.parse::<IpNet>().unwrap();
        let written = [
            "192.0.2.0/25",
            "192.0.2.128/25",
            "192.0.2.7/32",
            "198.51.100.4/32",
            "2001:db8::/33",
            "2001:db8:8000::/33",
            "::/0",
        ];
        let set = PrefixSet::new(written.map(parse));
        let told: Vec<String> = set.prefixes().map(|it| it.to_string()).collect();
        assert_eq!(
            told,
            ["192.0.2.0/25", "192.0.2.128/25", "198.51.100.4/32", "::/0"]
        );
        let all = PrefixSet::new([parse("0.0.0.0/0")]);
        assert_eq!(all.prefixes().collect::<Vec<_>>(), [parse("0.0.0.0/0")]);
        assert_eq!(PrefixSet::default().prefixes().count(), 0);
    }

    #[test]
    fn lists_are_of_one_kind_and_say_where_they_are_wrong() {
        let prefixes = config::List {
            prefix_file: Some("f".into()),
            ..Default::default()
        };
        let text = "# drop list\n192.0.2.0/24 ; scanners\n\n2001:db8::/32\n";
        let Ok(List::Prefixes(set)) = List::build(&prefixes, Some(text)) else {
            panic!()
        };
        assert_eq!(set.len(), 2);
        assert!(set.contains("192.0.2.77".parse().unwrap()));
        assert!(set.contains("::ffff:192.0.2.77".parse().unwrap()));
        assert!(set.contains("2001:db8:1::".parse().unwrap()));
        assert!(!set.contains("192.0.3.0".parse().unwrap()));

        let error = List::build(&prefixes, Some("192.0.2.0/24\nexample.com\n")).unwrap_err();
        assert_eq!(error.line, 2);
        assert!(
            error.to_string().contains("line 2: found \"example.com\""),
            "{error}"
        );

        let names = config::List {
            names: vec!["Example.com".into()],
            ..Default::default()
        };
        let Ok(List::Names(set)) = List::build(&names, Some("example.org # too\n")) else {
            panic!()
        };
        assert!(set.covers(&"www.EXAMPLE.com".parse().unwrap()));
        assert!(set.covers(&"example.org".parse().unwrap()));
        assert!(!set.covers(&"notexample.org".parse().unwrap()));
        assert!(!set.covers(&"org".parse().unwrap()));

        let both = config::List {
            names: vec!["a".into()],
            prefix_file: Some("f".into()),
            ..Default::default()
        };
        assert!(
            List::build(&both, None)
                .unwrap_err()
                .to_string()
                .contains("two lists")
        );
        assert!(List::build(&config::List::default(), None).is_err());
    }

    #[test]
    fn the_root_in_a_list_covers_everything() {
        let set = NameSet::new([&Name::ROOT]);
        assert!(set.covers(&"a.b".parse().unwrap()));
        assert!(set.covers(&Name::ROOT));
    }

    #[test]
    fn a_wide_range_is_found_through_the_index() {
        let mut prefixes: Vec<IpNet> = (0..u32::from(u16::MAX))
            .step_by(8)
            .map(|n| IpNet::from(IpAddr::from(Ipv4Addr::from(n << 16 | 7))))
            .collect();
        prefixes.push("10.0.0.0/7".parse().unwrap());
        let set = PrefixSet::new(prefixes);
        assert!(!set.v4_index.is_empty());
        for (address, inside) in [
            ("10.0.0.0", true),
            ("11.255.255.255", true),
            ("12.0.0.0", false),
            ("0.0.0.7", true),
            ("255.255.255.255", false),
            ("0.8.0.7", true),
            ("0.8.0.8", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_set_is_the_union_of_its_prefixes(
            nets in proptest::collection::vec((any::<u32>(), 0_u8..=32), 0..50),
            wide in proptest::collection::vec((any::<u128>(), 0_u8..=128), 0..20),
            addresses in proptest::collection::vec(any::<u32>(), 20),
        ) {
            let nets: Vec<IpNet> = nets.into_iter()
                .map(|(a, len)| IpNet::new(IpAddr::from(Ipv4Addr::from(a)), len).unwrap())
                .chain(wide.into_iter().map(|(a, len)| IpNet::new(IpAddr::from(Ipv6Addr::from(a)), len).unwrap()))
                .map(|net| net.trunc())
                .collect();
            let set = PrefixSet::new(nets.iter().copied());
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            for address in addresses.into_iter().map(|a| IpAddr::from(Ipv4Addr::from(a))).chain(edges) {
                let address = address.to_canonical();
                let expected = nets.iter().any(|net| net.contains(&address));
                // a v6 prefix that reaches over the mapped block is about real v6 addresses only
                prop_assert_eq!(set.contains(address), expected);
            }
        }
    }
}
