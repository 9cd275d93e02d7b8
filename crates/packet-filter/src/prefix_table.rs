//! Longest-prefix match over a flat, sorted array.
//!
//! Prefixes are sorted by address, then length. Where one ends inside another, a *resumption* of the
//! outer one follows. So the last node that starts at or before an address is the longest prefix
//! that covers it, or none does: no chain of parents is walked, however many lengths there are.
//!
//! A directory over the leading bits says where to look. A crowded part of the address space gets
//! a directory of its own behind the bits its prefixes share, so that IPv6, of which lists fill
//! a few corners densely, is found in as few steps. A look-up in a million prefixes touches two or
//! three cache lines that are not warm.

use std::collections::VecDeque;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::prefix::{v4_net, v6_net};

/// An address of one family.
pub(crate) trait Key: Copy + Ord {
    /// Bits of an address.
    const WIDTH: u8;
    /// Whether the leading `len` bits are those of `other`.
    fn covers(self, len: u8, other: Self) -> bool;
    /// `count` bits (1 to 24) behind the leading `skip` (less than all).
    fn bits(self, skip: u32, count: u32) -> usize;
    /// How many leading bits are those of `other`.
    fn shared(self, other: Self) -> u32;
    /// The first address of the prefix of this length that this one is in.
    fn first(self, len: u8) -> Self;
    /// The address behind the prefix of this length that starts here.
    fn past(self, len: u8) -> Option<Self>;
    /// The prefix of this length that this address is in.
    fn net(self, len: u8) -> IpNet;
}

impl Key for u32 {
    const WIDTH: u8 = 32;

    #[inline]
    fn covers(self, len: u8, other: Self) -> bool {
        let rest = Self::BITS.saturating_sub(Self::from(len));
        (self ^ other).checked_shr(rest).unwrap_or(0) == 0
    }

    #[inline]
    fn bits(self, skip: u32, count: u32) -> usize {
        let rest = Self::BITS.saturating_sub(count);
        self.checked_shl(skip)
            .unwrap_or(0)
            .checked_shr(rest)
            .unwrap_or(0) as usize
    }

    fn shared(self, other: Self) -> u32 {
        (self ^ other).leading_zeros()
    }

    fn first(self, len: u8) -> Self {
        self & !Self::MAX.checked_shr(len.into()).unwrap_or(0)
    }

    fn past(self, len: u8) -> Option<Self> {
        let last = self | Self::MAX.checked_shr(len.into()).unwrap_or(0);
        last.checked_add(1)
    }

    fn net(self, len: u8) -> IpNet {
        v4_net(self, len).trunc()
    }
}

/// An IPv6 address in two halves, which need less alignment than a `u128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct V6(u64, u64);

impl From<u128> for V6 {
    #[inline]
    fn from(address: u128) -> Self {
        Self((address >> 64) as u64, address as u64)
    }
}

impl V6 {
    #[inline]
    fn number(self) -> u128 {
        (u128::from(self.0) << 64) | u128::from(self.1)
    }
}

impl Key for V6 {
    const WIDTH: u8 = 128;

    #[inline]
    fn covers(self, len: u8, other: Self) -> bool {
        let rest = u128::BITS.saturating_sub(u32::from(len));
        (self.number() ^ other.number())
            .checked_shr(rest)
            .unwrap_or(0)
            == 0
    }

    #[inline]
    fn bits(self, skip: u32, count: u32) -> usize {
        let rest = u128::BITS.saturating_sub(count);
        self.number()
            .checked_shl(skip)
            .unwrap_or(0)
            .checked_shr(rest)
            .unwrap_or(0) as usize
    }

    fn shared(self, other: Self) -> u32 {
        (self.number() ^ other.number()).leading_zeros()
    }

    fn first(self, len: u8) -> Self {
        Self::from(self.number() & !u128::MAX.checked_shr(len.into()).unwrap_or(0))
    }

    fn past(self, len: u8) -> Option<Self> {
        let last = self.number() | u128::MAX.checked_shr(len.into()).unwrap_or(0);
        last.checked_add(1).map(Self::from)
    }

    fn net(self, len: u8) -> IpNet {
        v6_net(self.number(), len).trunc()
    }
}

/// A prefix, from where it starts or goes on behind one inside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<K> {
    pub(crate) start: K,
    /// What the owner of the table keeps for this prefix.
    pub(crate) value: u32,
    pub(crate) len: u8,
    resumed: bool,
}

impl<K: Key> Node<K> {
    pub(crate) fn net(&self) -> IpNet {
        self.start.net(self.len)
    }
}

/// The prefixes of one family. The same prefix may stand in it several times; a look-up finds the
/// last of them.
#[derive(Debug)]
pub(crate) struct Prefixes<K> {
    nodes: Box<[Node<K>]>,
    /// Of all directories, one behind the other, the first one in front. For each value of a
    /// directory's bits, the first position whose node has it or a greater one; or, with
    /// [`CROWDED`] set, which of `crowded` to ask.
    slots: Box<[u32]>,
    first_bits: u32,
    crowded: Box<[Crowded<K>]>,
    len: usize,
}

/// A part of the address space with a directory of its own.
#[derive(Clone, Copy, Debug)]
struct Crowded<K> {
    /// One of its nodes; all share the leading `skip` bits.
    start: K,
    from: u32,
    to: u32,
    /// Where its directory starts.
    slots_at: u32,
    skip: u8,
    bits: u8,
}

/// Marks a slot that names a crowded part instead of a position. Owners keep their tables smaller.
const CROWDED: u32 = 1 << 31;

/// More nodes in one slot than this are a crowd.
const CROWD: usize = 12;

/// Directories within directories; past that, the search goes on by halves.
const DEEPEST: u8 = 6;

impl<K> Default for Prefixes<K> {
    fn default() -> Self {
        Self {
            nodes: Box::default(),
            slots: Box::default(),
            first_bits: 1,
            crowded: Box::default(),
            len: 0,
        }
    }
}

impl<K: Key> Prefixes<K> {
    /// The longest prefix that covers `address`.
    #[inline]
    pub(crate) fn lookup(&self, address: K) -> Option<&Node<K>> {
        let hint = self.hint(address)?;
        let rest = self.nodes.get(hint..)?;
        let behind = match rest
            .iter()
            .take(CROWD)
            .position(|node| node.start > address)
        {
            Some(within) => within,
            None if rest.len() <= CROWD => rest.len(),
            // Many lists with the same prefix, or a crowd that could not be dissolved
            None => rest.partition_point(|node| node.start <= address),
        };
        let node = self
            .nodes
            .get(hint.saturating_add(behind).checked_sub(1)?)?;
        node.start.covers(node.len, address).then_some(node)
    }

    /// A position at most that of the first node behind `address`, and seldom far from it.
    #[inline]
    fn hint(&self, address: K) -> Option<usize> {
        let mut slot = *self.slots.get(address.bits(0, self.first_bits))?;
        while slot & CROWDED != 0 {
            let crowded = self.crowded.get((slot & !CROWDED) as usize)?;
            if !crowded.start.covers(crowded.skip, address) {
                slot = if address < crowded.start {
                    crowded.from
                } else {
                    crowded.to
                };
                break;
            }
            let value = address.bits(crowded.skip.into(), crowded.bits.into());
            slot = *self
                .slots
                .get((crowded.slots_at as usize).saturating_add(value))?;
        }
        Some(slot as usize)
    }

    /// All prefixes that cover the one told, itself included, longest first.
    pub(crate) fn covering(&self, start: K, len: u8) -> impl Iterator<Item = &Node<K>> {
        (0..=len).rev().flat_map(move |shorter| {
            let first = start.first(shorter);
            let before = self
                .nodes
                .get(..self.behind(first, shorter))
                .unwrap_or_default();
            before
                .iter()
                .rev()
                .take_while(move |node| (node.start, node.len) == (first, shorter))
        })
    }

    /// All prefixes that lie inside the one told, itself not included, by address.
    pub(crate) fn inside(&self, start: K, len: u8) -> impl Iterator<Item = &Node<K>> {
        let from = self.behind(start, len);
        let behind = self.nodes.get(from..).unwrap_or_default();
        behind
            .iter()
            .take_while(move |node| start.covers(len, node.start))
            .filter(|node| !node.resumed)
    }

    /// All prefixes, by address, then length.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node<K>> {
        self.nodes.iter().filter(|node| !node.resumed)
    }

    /// How many prefixes there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Position behind the last node equal to the prefix told or sorted before it. A resumption is
    /// never equal: it starts inside its prefix.
    fn behind(&self, start: K, len: u8) -> usize {
        self.nodes
            .partition_point(|node| (node.start, node.len) <= (start, len))
    }
}

/// Takes prefixes in the order of address, then length.
#[derive(Debug)]
pub(crate) struct Builder<K> {
    nodes: Vec<Node<K>>,
    /// The prefixes that cover the place where the last one starts, each inside the one before.
    open: Vec<Node<K>>,
    len: usize,
}

impl<K: Key> Builder<K> {
    pub(crate) fn with_capacity(prefixes: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(prefixes),
            open: Vec::new(),
            len: 0,
        }
    }

    pub(crate) fn push(&mut self, start: K, len: u8, value: u32) {
        self.close(Some(start));
        let node = Node {
            start,
            value,
            len,
            resumed: false,
        };
        self.nodes.push(node);
        self.open.push(node);
        self.len = self.len.saturating_add(1);
    }

    /// Ends the open prefixes that do not cover `next`, and resumes those around them.
    fn close(&mut self, next: Option<K>) {
        while let Some(ended) = self
            .open
            .pop_if(|last| !next.is_some_and(|next| last.start.covers(last.len, next)))
        {
            let (Some(outer), Some(start)) = (self.open.last(), ended.start.past(ended.len)) else {
                continue;
            };
            // Not where the outer one ends too, nor where the next one starts at once.
            if outer.start.covers(outer.len, start) && next.is_none_or(|next| start < next) {
                self.nodes.push(Node {
                    start,
                    resumed: true,
                    ..*outer
                });
            }
        }
    }

    pub(crate) fn build(mut self) -> Prefixes<K> {
        self.close(None);
        if self.nodes.is_empty() {
            return Prefixes::default();
        }
        let nodes = self.nodes.into_boxed_slice();
        // About a slot for each node: 4 MiB for a million.
        let first_bits = nodes
            .len()
            .ilog2()
            .saturating_add(1)
            .clamp(1, MOST_FIRST_BITS);
        let directories = Directories::new(&nodes, first_bits);
        Prefixes {
            slots: directories.slots.into_boxed_slice(),
            first_bits,
            crowded: directories.crowded.into_boxed_slice(),
            len: self.len,
            nodes,
        }
    }
}

const MOST_FIRST_BITS: u32 = 20;

struct Directories<K> {
    slots: Vec<u32>,
    crowded: Vec<Crowded<K>>,
    /// Crowded parts that have no directory yet, and how deep they lie.
    waiting: VecDeque<(usize, u8)>,
}

impl<K: Key> Directories<K> {
    fn new(nodes: &[Node<K>], first_bits: u32) -> Self {
        let mut directories = Self {
            slots: Vec::with_capacity(1 << first_bits),
            crowded: Vec::new(),
            waiting: VecDeque::new(),
        };
        directories.add(nodes, 0, nodes.len(), 0, first_bits, 0);
        while let Some((at, depth)) = directories.waiting.pop_front() {
            let slots_at = position(directories.slots.len());
            let Some(crowded) = directories.crowded.get_mut(at) else {
                break;
            };
            crowded.slots_at = slots_at;
            let Crowded {
                from,
                to,
                skip,
                bits,
                ..
            } = *crowded;
            directories.add(
                nodes,
                from as usize,
                to as usize,
                skip.into(),
                bits.into(),
                depth,
            );
        }
        directories.slots.shrink_to_fit();
        directories
    }

    /// Adds the directory of the nodes from `from` to `to`.
    fn add(&mut self, nodes: &[Node<K>], from: usize, to: usize, skip: u32, bits: u32, depth: u8) {
        let mut rest = nodes.get(from..to).unwrap_or_default();
        let mut at = from;
        for value in 0..1_usize << bits {
            let here = rest
                .iter()
                .take_while(|node| node.start.bits(skip, bits) == value)
                .count();
            let (part, behind) = rest.split_at_checked(here).unwrap_or_default();
            let slot = self.crowd(part, at, depth).unwrap_or(position(at));
            self.slots.push(slot);
            at = at.saturating_add(here);
            rest = behind;
        }
    }

    /// Notes that a part needs a directory of its own, if it does.
    fn crowd(&mut self, part: &[Node<K>], from: usize, depth: u8) -> Option<u32> {
        let (first, last) = (part.first()?.start, part.last()?.start);
        let skip = first.shared(last);
        if part.len() <= CROWD || depth >= DEEPEST || skip >= u32::from(K::WIDTH) {
            return None;
        }
        // A slot for two nodes
        let bits = part
            .len()
            .ilog2()
            .min(MOST_FIRST_BITS)
            .min(u32::from(K::WIDTH).saturating_sub(skip));
        let at = self.crowded.len();
        self.crowded.push(Crowded {
            start: first,
            from: position(from),
            to: position(from.saturating_add(part.len())),
            slots_at: 0,
            skip: u8::try_from(skip).ok()?,
            bits: u8::try_from(bits).ok()?,
        });
        self.waiting.push_back((at, depth.saturating_add(1)));
        Some(position(at) | CROWDED)
    }
}

/// Owners keep their tables far smaller than 2^31 nodes.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX) & !CROWDED
}

/// Prefixes of both families, each with a number; the later of two equal prefixes counts.
#[derive(Debug, Default)]
pub(crate) struct PrefixMap {
    v4: Prefixes<u32>,
    v6: Prefixes<V6>,
}

impl PrefixMap {
    pub(crate) fn new(prefixes: impl IntoIterator<Item = (IpNet, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, value) in prefixes {
            match crate::prefix::canonical(prefix) {
                IpNet::V4(net) => v4.push((u32::from(net.addr()), net.prefix_len(), value)),
                IpNet::V6(net) => {
                    v6.push((V6::from(u128::from(net.addr())), net.prefix_len(), value))
                }
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
            IpAddr::V6(v6) => self
                .v6
                .lookup(V6::from(u128::from(v6)))
                .map(|node| node.value),
        }
    }

    /// The longest prefix that covers all of `prefix`.
    pub(crate) fn covering(&self, prefix: IpNet) -> Option<IpNet> {
        match crate::prefix::canonical(prefix) {
            IpNet::V4(net) => self
                .v4
                .covering(u32::from(net.addr()), net.prefix_len())
                .next()
                .map(Node::net),
            IpNet::V6(net) => {
                let start = V6::from(u128::from(net.addr()));
                self.v6
                    .covering(start, net.prefix_len())
                    .next()
                    .map(Node::net)
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.len() == 0 && self.v6.len() == 0
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
            for (prefix, value) in prefixes.iter().zip(0..) {
                let IpNet::V4(net) = prefix else { unreachable!() };
                builder.push(u32::from(net.addr()), net.prefix_len(), value);
            }
            let table = builder.build();
            prop_assert_eq!(table.len(), prefixes.len());
            prop_assert!(table.iter().map(|node| node.value as usize).eq(0..prefixes.len()));
            let IpNet::V4(net) = asked else { unreachable!() };
            let (start, len) = (u32::from(net.addr()), net.prefix_len());

            let covering: Vec<usize> = table.covering(start, len).map(|node| node.value as usize).collect();
            let expected: Vec<usize> =
                (0..prefixes.len()).rev().filter(|at| prefixes[*at].contains(&asked)).collect();
            prop_assert_eq!(covering, expected);

            let inside: Vec<usize> = table.inside(start, len).map(|node| node.value as usize).collect();
            let expected: Vec<usize> = (0..prefixes.len())
                .filter(|at| prefixes[*at] != asked && asked.contains(&prefixes[*at]))
                .collect();
            prop_assert_eq!(inside, expected);
        }

        /// Dense corners in an empty space make directories within directories.
        #[test]
        fn crowds_are_found(corners in vec(any::<u128>(), 1..4), low in vec(0..2000_u128, 100..300), shift in 0..100_u32) {
            let prefixes: Vec<IpNet> = corners
                .iter()
                .flat_map(|corner| low.iter().map(move |low| corner ^ (low << shift)))
                .map(|address| IpNet::from(IpAddr::V6(Ipv6Addr::from(address))))
                .collect();
            let map = PrefixMap::new(prefixes.iter().copied().map(|prefix| (prefix, 1)));
            let known: std::collections::HashSet<IpAddr> = prefixes.iter().map(IpNet::addr).collect();
            for address in edges(&prefixes) {
                if !address.to_canonical().is_ipv4() {
                    prop_assert_eq!(map.lookup(address).is_some(), known.contains(&address), "{}", address);
                }
            }
        }
    }

    #[test]
    fn many_equal_prefixes_are_no_crowd() {
        let prefix: IpNet = "192.0.2.1/32".parse().unwrap();
        let map = PrefixMap::new((0..100).map(|value| (prefix, value)));
        assert_eq!(map.lookup(prefix.addr()), Some(99));
        assert_eq!(map.lookup("192.0.2.2".parse().unwrap()), None);
        assert_eq!(map.lookup("192.0.2.0".parse().unwrap()), None);
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
