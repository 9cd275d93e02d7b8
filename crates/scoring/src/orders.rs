//! Levels that the signals did not come to by themselves: an operator's, or an incident's.
//!
//! An order says for a zone, or for the whole, what counts as its level. An incident may be mistaken in who
//! or what it is about, so it makes evidence about names certain at most, never evidence about sources;
//! an operator's word makes both.

use dnscrub_wire::Name;

use crate::defence::Level;

/// Zones with an order of their own; further ones are not taken over.
pub const MOST_ORDERED: usize = 256;

/// What is ordered for a zone, or for the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Its level is at least this: for what the level switches on, and for rules that wait for it.
    pub least: Level,
    /// The level that evidence about names counts by, at least.
    pub names: Level,
    /// The same for evidence about sources.
    pub sources: Level,
    /// Its level is calm whatever else is ordered or seen: nothing is certain.
    pub calm: bool,
}

impl Order {
    /// Whether it orders anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// All orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// For zones without one of their own.
    pub whole: Order,
    /// Zones with one of their own, which holds what is ordered for the whole as well.
    pub zones: Vec<(Name, Order)>,
}

/// The orders as a worker looks them up: by a keyed hash of the zone's name.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    whole: Order,
    zones: Vec<(u64, Order)>,
    /// Some order is above calm.
    raised: bool,
}

impl Ordered {
    /// Takes over other orders. Not for the packet path.
    pub(crate) fn set(&mut self, orders: &Orders, hash: impl Fn(&Name) -> u64) {
        self.whole = orders.whole;
        self.zones.clear();
        let zones = orders.zones.iter().take(MOST_ORDERED);
        self.zones
            .extend(zones.map(|(zone, order)| (hash(zone), *order)));
        self.zones.sort_unstable_by_key(|&(hash, _)| hash);
        let all = self.zones.iter().map(|(_, order)| order);
        self.raised = all
            .chain([&self.whole])
            .any(|order| order.least > Level::Calm);
    }

    /// What is ordered for the zone whose name has this hash.
    #[inline]
    pub(crate) fn of(&self, zone: u64) -> Order {
        if self.zones.is_empty() {
            return self.whole;
        }
        let place = self.zones.binary_search_by_key(&zone, |&(hash, _)| hash);
        let found = place.ok().and_then(|place| self.zones.get(place));
        found.map_or(self.whole, |&(_, order)| order)
    }

    /// Whether a level is raised somewhere: then nothing new is learned of sources.
    pub(crate) const fn is_raised(&self) -> bool {
        self.raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(name: &Name) -> u64 {
        let octets = name.as_wire().iter();
        octets.fold(7, |sum: u64, &octet| {
            sum.wrapping_mul(31).wrapping_add(u64::from(octet))
        })
    }

    #[test]
    fn a_zone_has_its_own_order_or_that_of_the_whole() {
        let attack = Order {
            least: Level::Attack,
            ..Order::default()
        };
        let calm = Order {
            calm: true,
            ..Order::default()
        };
        let zone = |name: &str| name.parse::<Name>().unwrap();
        let mut ordered = Ordered::default();
        assert!(ordered.of(1).is_empty() && !ordered.is_raised());
        let zones = (0..2 * MOST_ORDERED).map(|number| (zone(&format!("z{number}.example")), calm));
        let orders = Orders {
            whole: attack,
            zones: zones.collect(),
        };
        ordered.set(&orders, hash);
        assert!(ordered.is_raised());
        assert_eq!(ordered.of(hash(&zone("z7.example"))), calm);
        assert_eq!(ordered.of(hash(&zone("other.example"))), attack);
        let beyond = zone(&format!("z{MOST_ORDERED}.example"));
        assert_eq!(
            ordered.of(hash(&beyond)),
            attack,
            "no more than there is room for"
        );
        ordered.set(&Orders::default(), hash);
        assert!(ordered.of(hash(&zone("z7.example"))).is_empty() && !ordered.is_raised());
    }
}
