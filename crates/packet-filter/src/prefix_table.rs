//! Longest-prefix match over a flat, sorted array.
//!
//! Prefixes are sorted by address, then length. Prefixes nest or are disjoint, so the last one that
//! starts at or before an address either covers it, and is the longest that does, or every prefix
//! that covers the address also covers that one: the answer is found on the way up through its
//! parents. A directory over the leading bits narrows the search to a few neighbours, so that
//! a look-up in a million prefixes touches two or three cache lines, whatever their lengths.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::prefix::{v4_net, v6_net};

/// An address of one family as a number.
pub(crate) trait Key: Copy + Ord {
    /// Whether the leading `len` bits are those of `other`.
    fn covers(self, len: u8, other: Self) -> bool;
    /// The leading `bits` (1 to 24) bits.
    fn leading(self, bits: u32) -> usize;
    /// The prefix that starts here.
    fn net(self, len: u8) -> IpNet;
}

impl Key for u32 {
    fn covers(self, len: u8, other: Self) -> bool {
        (self ^ other)
            .checked_shr(Self::BITS.saturating_sub(Self::from(len)))
            .unwrap_or(0)
            == 0
    }

    fn leading(self, bits: u32) -> usize {
        self.checked_shr(Self::BITS.saturating_sub(bits))
            .unwrap_or(0) as usize
    }

    fn net(self, len: u8) -> IpNet {
        v4_net(self, len)
    }
}

impl Key for u128 {
    fn covers(self, len: u8, other: Self) -> bool {
        (self ^ other)
            .checked_shr(Self::BITS.saturating_sub(u32::from(len)))
            .unwrap_or(0)
            == 0
    }

    fn leading(self, bits: u32) -> usize {
        self.checked_shr(Self::BITS.saturating_sub(bits))
            .unwrap_or(0) as usize
    }

    fn net(self, len: u8) -> IpNet {
        v6_net(self, len)
    }
}

/// One prefix. Everything a look-up needs stands together, in one cache line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<K> {
    pub(crate) start: K,
    /// Position of the longest prefix that is shorter and covers this one; [`NO_PARENT`] without.
    parent: u32,
    /// What the owner of the table keeps for this prefix.
    pub(crate) value: u32,
    pub(crate) len: u8,
}

/// Lies behind the end of every table.
const NO_PARENT: u32 = u32::MAX;

/// The prefixes of one family. The same prefix may stand in it several times; a look-up finds the
/// last of them.
#[derive(Debug)]
pub(crate) struct Prefixes<K> {
    nodes: Box<[Node<K>]>,
    /// For each value of the leading bits, the first position whose prefix starts with it or with
    /// a greater one; one more at the end.
    directory: Box<[u32]>,
    directory_bits: u32,
}

impl<K> Default for Prefixes<K> {
    fn default() -> Self {
        Self {
            nodes: Box::default(),
            directory: Box::default(),
            directory_bits: 0,
        }
    }
}

impl<K: Key> Prefixes<K> {
    /// The longest prefix that covers `address`.
    #[inline]
    pub(crate) fn lookup(&self, address: K) -> Option<&Node<K>> {
        let mut at = self.last_at_or_before(address)?;
        loop {
            let node = self.nodes.get(at)?;
            if node.start.covers(node.len, address) {
                return Some(node);
            }
            at = node.parent as usize;
        }
    }

    /// Position of the last prefix that starts at or before `address`.
    #[inline]
    fn last_at_or_before(&self, address: K) -> Option<usize> {
        let slot = address.leading(self.directory_bits);
        let from = *self.directory.get(slot)? as usize;
        let to = *self.directory.get(slot.saturating_add(1))? as usize;
        let neighbours = self.nodes.get(from..to)?;
        from.saturating_add(neighbours.partition_point(|node| node.start <= address))
            .checked_sub(1)
    }

    /// Positions of all prefixes that cover the one told, itself included, longest first.
    pub(crate) fn covering(&self, start: K, len: u8) -> impl Iterator<Item = usize> + '_ {
        let mut next = self.behind(start, len).checked_sub(1);
        std::iter::from_fn(move || {
            loop {
                let at = next?;
                let node = self.nodes.get(at)?;
                // Equal prefixes stand side by side and share their parent.
                next = match at.checked_sub(1).and_then(|before| self.nodes.get(before)) {
                    Some(twin) if (twin.start, twin.len) == (node.start, node.len) => {
                        at.checked_sub(1)
                    }
                    _ => Some(node.parent as usize),
                };
                if node.len <= len && node.start.covers(node.len, start) {
                    return Some(at);
                }
            }
        })
    }

    /// Positions of all prefixes that lie inside the one told, itself not included, by address.
    pub(crate) fn inside(&self, start: K, len: u8) -> std::ops::Range<usize> {
        let from = self.behind(start, len);
        let rest = self.nodes.get(from..).unwrap_or_default();
        from..from.saturating_add(rest.partition_point(|node| start.covers(len, node.start)))
    }

    /// Position behind the last prefix equal to the one told or sorted before it.
    fn behind(&self, start: K, len: u8) -> usize {
        self.nodes
            .partition_point(|node| (node.start, node.len) <= (start, len))
    }

    pub(crate) fn nodes(&self) -> &[Node<K>] {
        &self.nodes
    }
}

/// Takes prefixes in the order of address, then length.
#[derive(Debug)]
pub(crate) struct Builder<K> {
    nodes: Vec<Node<K>>,
    /// Positions of the prefixes that cover the place where the last one starts, each inside the
    /// one before.
    open: Vec<u32>,
}

impl<K: Key> Builder<K> {
    pub(crate) fn with_capacity(prefixes: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(prefixes),
            open: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, start: K, len: u8, value: u32) {
        while let Some(node) = self.innermost() {
            if node.len < len && node.start.covers(node.len, start) {
                break;
            }
            self.open.pop();
        }
        let parent = self.open.last().copied().unwrap_or(NO_PARENT);
        self.open
            .push(u32::try_from(self.nodes.len()).unwrap_or(NO_PARENT));
        self.nodes.push(Node {
            start,
            parent,
            value,
            len,
        });
    }

    fn innermost(&self) -> Option<&Node<K>> {
        self.nodes.get(*self.open.last()? as usize)
    }

    pub(crate) fn build(self) -> Prefixes<K> {
        let nodes = self.nodes.into_boxed_slice();
        // One slot for each prefix or two: 4 MiB for a million prefixes.
        let directory_bits = nodes
            .len()
            .checked_ilog2()
            .unwrap_or(0)
            .saturating_add(1)
            .min(MAX_DIRECTORY_BITS);
        if nodes.is_empty() {
            return Prefixes::default();
        }
        let slots = 1_usize << directory_bits;
        let mut directory = Vec::with_capacity(slots.saturating_add(1));
        for (at, node) in nodes.iter().enumerate() {
            let slot = node.start.leading(directory_bits);
            if slot >= directory.len() {
                directory.resize(
                    slot.saturating_add(1),
                    u32::try_from(at).unwrap_or(NO_PARENT),
                );
            }
        }
        directory.resize(
            slots.saturating_add(1),
            u32::try_from(nodes.len()).unwrap_or(NO_PARENT),
        );
        Prefixes {
            nodes,
            directory: directory.into_boxed_slice(),
            directory_bits,
        }
    }
}

const MAX_DIRECTORY_BITS: u32 = 20;

/// Prefixes of both families, each with a number; the later of two equal prefixes counts.
#[derive(Debug, Default)]
pub(crate) struct PrefixMap {
    v4: Prefixes<u32>,
    v6: Prefixes<u128>,
}

impl PrefixMap {
    pub(crate) fn new(prefixes: impl IntoIterator<Item = (IpNet, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, value) in prefixes {
            match crate::prefix::canonical(prefix) {
                IpNet::V4(net) => v4.push((u32::from(net.addr()), net.prefix_len(), value)),
                IpNet::V6(net) => v6.push((u128::from(net.addr()), net.prefix_len(), value)),
            }
        }
        Self {
            v4: sorted(v4),
            v6: sorted(v6),
        }
    }

    /// The number of the longest prefix that covers `address`.
    #[inline]
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<u32> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.lookup(u32::from(v4)).map(|node| node.value),
            IpAddr::V6(v6) => self.v6.lookup(u128::from(v6)).map(|node| node.value),
        }
    }

    /// The longest prefix that covers all of `prefix`.
    pub(crate) fn covering(&self, prefix: IpNet) -> Option<IpNet> {
        fn first<K: Key>(prefixes: &Prefixes<K>, start: K, len: u8) -> Option<IpNet> {
            let node = prefixes
                .nodes()
                .get(prefixes.covering(start, len).next()?)?;
            Some(node.start.net(node.len))
        }
        match crate::prefix::canonical(prefix) {
            IpNet::V4(net) => first(&self.v4, u32::from(net.addr()), net.prefix_len()),
            IpNet::V6(net) => first(&self.v6, u128::from(net.addr()), net.prefix_len()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.nodes().is_empty() && self.v6.nodes().is_empty()
    }
}

fn sorted<K: Key>(mut prefixes: Vec<(K, u8, u32)>) -> Prefixes<K> {
    prefixes.sort_by_key(|(start, len, _)| (*start, *len));
    let mut builder = Builder::with_capacity(prefixes.len());
    for (start, len, value) in prefixes {
        builder.push(start, len, value);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Addresses that share many leading bits, so that prefixes nest and touch.
    fn v4_prefix() -> impl Strategy<Value = IpNet> {
        let address = prop_oneof![any::<u32>(), (0_u32..64).prop_map(|low| 0xc000_0200 | low)];
        (address, 0..=32_u8).prop_map(|(address, len)| {
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), len).unwrap()).trunc()
        })
    }

    fn v6_prefix() -> impl Strategy<Value = IpNet> {
        let near = (0_u128..64, 0..120_u32)
            .prop_map(|(low, shift)| (0x2001_0db8_u128 << 96) | (low << shift));
        (prop_oneof![any::<u128>(), near], 0..=128_u8).prop_map(|(address, len)| {
            IpNet::V6(Ipv6Net::new(Ipv6Addr::from(address), len).unwrap()).trunc()
        })
    }

    /// Addresses at, before and behind the edges of the prefixes, where mistakes are.
    fn edges(prefixes: &[IpNet]) -> Vec<IpAddr> {
        fn step(address: IpAddr, by: i8) -> IpAddr {
            match address {
                IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_add_signed(by.into()).into()),
                IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_add_signed(by.into()).into()),
            }
        }
        prefixes
            .iter()
            .flat_map(|prefix| {
                let (first, last) = (prefix.network(), prefix.broadcast());
                [first, last, step(first, -1), step(last, 1)]
            })
            .collect()
    }

    fn naive(prefixes: &[IpNet], address: IpAddr) -> Option<u32> {
        let address = address.to_canonical();
        let covering = prefixes
            .iter()
            .zip(0..)
            .filter(|(prefix, _)| canonical(**prefix).contains(&address));
        // The last of equal ones.
        covering
            .max_by_key(|(prefix, at)| (canonical(**prefix).prefix_len(), *at))
            .map(|(_, at)| at)
    }

    use crate::prefix::canonical;

    proptest! {
        #[test]
        fn lookup_is_the_longest_match(
            prefixes in vec(prop_oneof![v4_prefix(), v6_prefix()], 0..60),
            addresses in vec(any::<u128>(), 20),
        ) {
            let map = PrefixMap::new(prefixes.iter().copied().zip(0..));
            let random = addresses.iter().flat_map(|address| {
                [IpAddr::V4(Ipv4Addr::from(*address as u32)), IpAddr::V6(Ipv6Addr::from(*address))]
            });
            for address in edges(&prefixes).into_iter().chain(random) {
                prop_assert_eq!(map.lookup(address), naive(&prefixes, address), "{}", address);
            }
        }

        #[test]
        fn covering_and_inside_are_complete(
            mut prefixes in vec(v4_prefix(), 0..60),
            asked in v4_prefix(),
        ) {
            prefixes.sort();
            let mut builder = Builder::with_capacity(prefixes.len());
            for prefix in &prefixes {
                let IpNet::V4(net) = prefix else { unreachable!() };
                builder.push(u32::from(net.addr()), net.prefix_len(), 0);
            }
            let table = builder.build();
            let IpNet::V4(net) = asked else { unreachable!() };
            let (start, len) = (u32::from(net.addr()), net.prefix_len());

            let covering: Vec<usize> = table.covering(start, len).collect();
            let expected: Vec<usize> =
                (0..prefixes.len()).rev().filter(|at| prefixes[*at].contains(&asked)).collect();
            prop_assert_eq!(covering, expected);

            let inside: Vec<usize> = table.inside(start, len).collect();
            let expected: Vec<usize> = (0..prefixes.len())
                .filter(|at| prefixes[*at] != asked && asked.contains(&prefixes[*at]))
                .collect();
            prop_assert_eq!(inside, expected);
        }
    }

    #[test]
    fn an_empty_map_finds_nothing() {
        let map = PrefixMap::default();
        assert_eq!(map.lookup("192.0.2.1".parse().unwrap()), None);
        assert_eq!(map.lookup("::".parse().unwrap()), None);
        assert_eq!(map.covering("::/0".parse().unwrap()), None);
    }

    #[test]
    fn the_whole_address_space_can_be_one_prefix() {
        let map = PrefixMap::new([
            ("0.0.0.0/0".parse().unwrap(), 4),
            ("::/0".parse().unwrap(), 6),
        ]);
        for address in ["0.0.0.0", "255.255.255.255", "::ffff:192.0.2.1"] {
            assert_eq!(map.lookup(address.parse().unwrap()), Some(4), "{address}");
        }
        for address in ["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert_eq!(map.lookup(address.parse().unwrap()), Some(6), "{address}");
        }
    }
}
