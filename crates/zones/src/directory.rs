//! The configured zones, found by name.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use dnscrub_wire::Name;

use crate::zone::Zone;

/// The configured zones. Of several that fit a name the longest counts.
///
/// Immutable: another configuration makes another one, which shares with it the zones that stayed
/// the same.
#[derive(Debug)]
pub struct Zones {
    zones: Vec<Arc<Zone>>,
    /// Places in `zones`, by name in lower-case wire format.
    places: HashMap<Box<[u8]>, u16, RandomState>,
    /// Bit n: there is a zone of n labels.
    depths: u128,
}

impl Zones {
    /// Those zones, in that order. The first 65,536 count, and of zones of the same name the first.
    #[must_use]
    pub fn new(zones: Vec<Arc<Zone>>, hasher: RandomState) -> Self {
        let mut places = HashMap::with_hasher(hasher);
        let mut depths = 0;
        for (zone, place) in zones.iter().zip(0..=u16::MAX) {
            places.entry(zone.name().as_wire().into()).or_insert(place);
            depths |= bit(zone.name().label_count());
        }
        Self {
            zones,
            places,
            depths,
        }
    }

    /// The zone that this name is in, and its place among the zones. Costs one look-up for each
    /// number of labels that some zone has, or next to nothing without zones.
    #[inline]
    #[must_use]
    pub fn find(&self, qname: &Name) -> Option<(u16, &Arc<Zone>)> {
        if self.zones.is_empty() {
            return None;
        }
        let labels = qname.label_count();
        qname
            .suffixes()
            .zip((0..=labels).rev())
            .filter(|(_, labels)| self.depths & bit(*labels) != 0)
            .find_map(|(suffix, _)| self.places.get(suffix).copied())
            .and_then(|place| Some((place, self.zones.get(usize::from(place))?)))
    }

    /// The zone of exactly this name.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&Arc<Zone>> {
        let place = self.places.get(name.as_wire())?;
        self.zones.get(usize::from(*place))
    }

    /// All zones, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Zone>> {
        self.zones.iter()
    }

    /// How many zones there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.zones.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }
}

impl Default for Zones {
    /// No zone.
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            places: HashMap::with_hasher(RandomState::with_seeds(0, 0, 0, 0)),
            depths: 0,
        }
    }
}

fn bit(labels: usize) -> u128 {
    u32::try_from(labels)
        .ok()
        .and_then(|labels| 1_u128.checked_shl(labels))
        .unwrap_or(0)
}
