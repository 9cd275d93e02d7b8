//! Levels that an operator sets or an incident raises, and what comes of them together with what the
//! signals see.

use std::collections::BTreeSet;
use std::sync::Arc;

use dnscrub_scoring::{Level, Order};
use dnscrub_wire::Name;
use dnscrub_zones::Zones;
use serde::{Deserialize, Serialize};

use crate::defence::WHOLE;

/// Levels that operators can set at a time.
pub const MOST_BY_HAND: usize = 64;

/// A level that an operator set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ByHand {
    /// The zone; nothing for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// `attack` and `alert` are the least it is, `calm` is what it is.
    pub level: Level,
    /// Since when, in seconds since 1970,
    pub since: f64,
    /// and until when.
    pub until: f64,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl ByHand {
    /// Its zone, or `whole`.
    #[must_use]
    pub fn scope(&self) -> &str {
        self.zone.as_deref().unwrap_or(WHOLE)
    }
}

/// A level that an incident raised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// The incident's number.
    pub incident: u64,
    /// The least level of its zones.
    pub level: Level,
    /// The zones; empty for the whole.
    pub zones: Vec<String>,
    /// Evidence about names counts by it.
    pub names: bool,
}

/// What a level is due to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// What a signal sees.
    Signal,
    /// An incident.
    Incident,
    /// An operator.
    Operator,
}

impl Origin {
    /// In a word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Incident => "incident",
            Self::Operator => "operator",
        }
    }
}

/// What a level comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effective<'a> {
    /// The level.
    pub level: Level,
    /// What it is due to; nothing while it is calm by itself.
    pub origin: Option<Origin>,
    /// The operator's word for this scope, whether it makes the level or not.
    pub by_hand: Option<&'a ByHand>,
    /// The incident that raises it, whether it makes the level or not.
    pub incident: Option<u64>,
}

/// Everything that is ordered. Published as a whole.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// By operators, the whole first.
    pub by_hand: Vec<ByHand>,
    /// By incidents, the oldest first.
    pub raised: Vec<Raised>,
    /// As workers take it over.
    pub for_workers: Arc<dnscrub_scoring::Orders>,
}

impl Orders {
    /// These together.
    #[must_use]
    pub fn new(mut by_hand: Vec<ByHand>, raised: Vec<Raised>) -> Self {
        by_hand.sort_by(|a, b| a.zone.cmp(&b.zone));
        let mut orders = Self {
            by_hand,
            raised,
            for_workers: Arc::default(),
        };
        let zones = orders.zones();
        // where there are too many, an operator's word is not the one that is left out
        let (by_hand, by_incident): (Vec<_>, Vec<_>) = zones.iter().partition(|zone| {
            let mut own = orders.by_hand.iter();
            own.any(|it| it.zone.as_ref() == Some(*zone))
        });
        let zones = by_hand.into_iter().chain(by_incident).filter_map(|zone| {
            let name = Name::from_text(zone).ok()?;
            Some((name, orders.order(Some(zone))))
        });
        let resolved = dnscrub_scoring::Orders {
            whole: orders.order(None),
            zones: zones.collect(),
        };
        orders.for_workers = Arc::new(resolved);
        orders
    }

    /// Zones with an order of their own.
    #[must_use]
    pub fn zones(&self) -> BTreeSet<String> {
        let by_hand = self.by_hand.iter().filter_map(|it| it.zone.clone());
        let raised = self.raised.iter().flat_map(|it| it.zones.iter().cloned());
        by_hand.chain(raised).collect()
    }

    /// An operator's word for a scope: for the zone, or else for the whole.
    #[must_use]
    pub fn by_hand(&self, zone: Option<&str>) -> Option<&ByHand> {
        let of = |scope: Option<&str>| {
            let mut all = self.by_hand.iter();
            all.find(|it| it.zone.as_deref() == scope)
        };
        zone.and_then(|zone| of(Some(zone))).or_else(|| of(None))
    }

    /// What incidents raise a scope to: those about the zone, and those about no zone in particular.
    fn raised(&self, zone: Option<&str>) -> impl Iterator<Item = &Raised> {
        self.raised.iter().filter(move |it| {
            it.zones.is_empty() || zone.is_some_and(|zone| it.zones.iter().any(|it| it == zone))
        })
    }

    fn order(&self, zone: Option<&str>) -> Order {
        let mut order = Order::default();
        if let Some(by_hand) = self.by_hand(zone) {
            if by_hand.level == Level::Calm {
                return Order {
                    calm: true,
                    ..order
                };
            }
            order = Order {
                least: by_hand.level,
                names: by_hand.level,
                sources: by_hand.level,
                calm: false,
            };
        }
        for raised in self.raised(zone) {
            order.least = order.least.max(raised.level);
            if raised.names {
                order.names = order.names.max(raised.level);
            }
        }
        order
    }

    /// What a scope's level comes to, of which the signals see `seen`.
    #[must_use]
    pub fn effective(&self, zone: Option<&str>, seen: Level) -> Effective<'_> {
        let by_hand = self.by_hand(zone);
        let raised = self.raised(zone).max_by_key(|raised| raised.level);
        let incident = raised.map(|raised| raised.incident);
        let effective = |level, origin| Effective {
            level,
            origin,
            by_hand,
            incident,
        };
        if by_hand.is_some_and(|it| it.level == Level::Calm) {
            return effective(Level::Calm, Some(Origin::Operator));
        }
        let candidates = [
            Some((seen, Origin::Signal)),
            raised.map(|raised| (raised.level, Origin::Incident)),
            by_hand.map(|it| (it.level, Origin::Operator)),
        ];
        // of several that come to the same, what is seen is the better reason
        let mut highest = (Level::Calm, None);
        for (level, origin) in candidates.into_iter().flatten() {
            if level > highest.0 {
                highest = (level, Some(origin));
            }
        }
        effective(highest.0, highest.1)
    }
}

/// The zone by which names are judged: the one of the configuration that holds it, or else its last two
/// labels.
#[must_use]
pub fn zone_of(zones: &Zones, name: &Name) -> Name {
    if let Some((_, zone)) = zones.find(name) {
        return *zone.name();
    }
    let skip = name.label_count().saturating_sub(2);
    let apex = name.suffixes().nth(skip).unwrap_or_default();
    Name::from_wire(apex).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_hand(zone: Option<&str>, level: Level) -> ByHand {
        ByHand {
            zone: zone.map(str::to_owned),
            level,
            since: 0.0,
            until: 3600.0,
            reason: String::new(),
        }
    }

    fn raised(incident: u64, zones: &[&str], names: bool) -> Raised {
        Raised {
            incident,
            level: Level::Attack,
            zones: zones.iter().map(|&zone| zone.to_owned()).collect(),
            names,
        }
    }

    #[test]
    fn an_operator_raises_and_pins_and_a_zone_goes_before_the_whole() {
        let hit = Some("hit.example");
        let orders = Orders::new(
            vec![by_hand(hit, Level::Calm), by_hand(None, Level::Alert)],
            vec![raised(17, &["hit.example", "other.example"], true)],
        );
        let pinned = orders.effective(hit, Level::Attack);
        assert_eq!(
            (pinned.level, pinned.origin, pinned.incident),
            (Level::Calm, Some(Origin::Operator), Some(17))
        );
        let other = orders.effective(Some("other.example"), Level::Calm);
        assert_eq!(
            (other.level, other.origin),
            (Level::Attack, Some(Origin::Incident))
        );
        let whole = orders.effective(None, Level::Calm);
        assert_eq!(
            (whole.level, whole.origin),
            (Level::Alert, Some(Origin::Operator))
        );
        let seen = orders.effective(None, Level::Attack);
        assert_eq!(
            (seen.level, seen.origin),
            (Level::Attack, Some(Origin::Signal))
        );
        let calm = Orders::default();
        assert_eq!(calm.effective(hit, Level::Calm).origin, None);
        assert_eq!(orders.by_hand[0].scope(), "whole");
    }

    #[test]
    fn an_incident_never_makes_evidence_about_sources_certain() {
        let orders = Orders::new(
            Vec::new(),
            vec![raised(1, &["a.example"], true), raised(2, &[], false)],
        );
        let workers = &orders.for_workers;
        let expected = Order {
            least: Level::Attack,
            ..Order::default()
        };
        assert_eq!(workers.whole, expected);
        let zone = &workers.zones[0];
        assert_eq!(zone.0.to_string(), "a.example");
        assert_eq!((zone.1.names, zone.1.sources), (Level::Attack, Level::Calm));
        let orders = Orders::new(vec![by_hand(None, Level::Attack)], Vec::new());
        assert_eq!(orders.for_workers.whole.sources, Level::Attack);
    }

    #[test]
    fn operators_go_first_where_there_are_too_many_zones() {
        let many: Vec<String> = (0..2 * dnscrub_scoring::MOST_ORDERED)
            .map(|number| format!("a{number}.example"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let last = by_hand(Some("z.example"), Level::Calm);
        let orders = Orders::new(vec![last], vec![raised(1, &many, false)]);
        assert_eq!(orders.for_workers.zones[0].0.to_string(), "z.example");
    }

    #[test]
    fn names_are_judged_by_their_zone_or_their_last_two_labels() {
        use dnscrub_zones::{Limits, Zone};
        let hasher = ahash::RandomState::new();
        let zone = Zone::new(
            "a.b.example".parse().unwrap(),
            Limits::default(),
            hasher.clone(),
            std::time::Instant::now(),
        );
        let zones = Zones::new(vec![Arc::new(zone)], hasher);
        for (name, zone) in [
            ("x.a.b.example", "a.b.example"),
            ("x.y.b.example", "b.example"),
            ("example", "example"),
        ] {
            assert_eq!(zone_of(&zones, &name.parse().unwrap()).to_string(), zone);
        }
    }
}
