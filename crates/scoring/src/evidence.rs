//! Points by kind of evidence.
//!
//! Evidence of one kind is capped, so that however much there is of it, it takes two kinds, or
//! certainty about the name, to drop a query. Beside all evidence stands the part that is *certain*
//! because an alarm says that it is an attack's: that part is enforced while there is room, too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What evidence is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Kind {
    /// The name asked for.
    Name,
    /// Who the source is, or is not.
    Source,
    /// What the source does.
    Conduct,
    /// What the operator says of it: rules and lists. Not capped.
    Standing,
}

impl Kind {
    /// The word in the manual, and in `scrubbing.caps`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Source => "source",
            Self::Conduct => "conduct",
            Self::Standing => "standing",
        }
    }
}

/// The most points that evidence of one kind counts.
///
/// ```yaml
/// scrubbing:
///   caps: { name: 60, source: 35, conduct: 35 }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Caps {
    /// About the name asked for.
    pub name: u16,
    /// About who the source is.
    pub source: u16,
    /// About what the source does.
    pub conduct: u16,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            name: 60,
            source: 35,
            conduct: 35,
        }
    }
}

/// What a signal says of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// Points; negative ones are a credit.
    pub(crate) points: i32,
    /// An alarm says that this is an attack's.
    pub(crate) certain: bool,
}

impl Given {
    pub(crate) const NOTHING: Self = Self {
        points: 0,
        certain: false,
    };

    /// Points that only count under pressure.
    pub(crate) const fn doubtful(points: i32) -> Self {
        Self {
            points,
            certain: false,
        }
    }

    /// Points that count while there is room, too.
    pub(crate) const fn certain(points: i32) -> Self {
        Self {
            points,
            certain: true,
        }
    }
}

/// Points of one query so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Of all evidence, by kind.
    all: [i32; 4],
    /// Of that, what is certain.
    certain: [i32; 4],
}

impl Tally {
    #[inline]
    pub(crate) const fn add(&mut self, kind: Kind, given: Given) {
        let [name, source, conduct, standing] = &mut self.all;
        let [sure_name, sure_source, sure_conduct, sure_standing] = &mut self.certain;
        let (sum, sure) = match kind {
            Kind::Name => (name, sure_name),
            Kind::Source => (source, sure_source),
            Kind::Conduct => (conduct, sure_conduct),
            Kind::Standing => (standing, sure_standing),
        };
        *sum = sum.saturating_add(given.points);
        // a credit and what the operator says count in either sum
        if given.certain || given.points < 0 || matches!(kind, Kind::Standing) {
            *sure = sure.saturating_add(given.points);
        }
    }

    /// Whether there is evidence of a kind.
    pub(crate) const fn has(&self, kind: Kind) -> bool {
        let [name, source, conduct, standing] = self.all;
        let points = match kind {
            Kind::Name => name,
            Kind::Source => source,
            Kind::Conduct => conduct,
            Kind::Standing => standing,
        };
        points > 0
    }

    /// Points of all evidence.
    pub(crate) fn total(&self, caps: Caps) -> i32 {
        sum(self.all, caps)
    }

    /// Points of what is certain, together with credits and what the operator says; 0 where no
    /// signal is certain.
    pub(crate) fn certain(&self, caps: Caps) -> i32 {
        let [name, source, conduct, _] = self.certain;
        if name > 0 || source > 0 || conduct > 0 {
            sum(self.certain, caps)
        } else {
            0
        }
    }

    /// Certain points about source and conduct: what a proof of the source's address would refute.
    pub(crate) fn certain_of_source(&self, caps: Caps) -> i32 {
        let [_, source, conduct, standing] = self.certain;
        sum([0, source, conduct, standing], caps)
    }

    /// What the operator says: all that counts at rest.
    pub(crate) const fn standing(&self) -> i32 {
        let [.., standing] = self.all;
        standing
    }
}

fn sum([name, source, conduct, standing]: [i32; 4], caps: Caps) -> i32 {
    name.min(caps.name.into())
        .saturating_add(source.min(caps.source.into()))
        .saturating_add(conduct.min(caps.conduct.into()))
        .saturating_add(standing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_is_capped_and_two_are_not_one() {
        let mut tally = Tally::default();
        tally.add(Kind::Source, Given::certain(30));
        tally.add(Kind::Source, Given::certain(30));
        assert_eq!(tally.certain(Caps::default()), 35);
        tally.add(Kind::Conduct, Given::doubtful(30));
        assert_eq!(tally.certain(Caps::default()), 35);
        assert_eq!(tally.total(Caps::default()), 65);
    }

    #[test]
    fn credits_count_against_what_is_certain() {
        let mut tally = Tally::default();
        tally.add(Kind::Conduct, Given::certain(30));
        tally.add(Kind::Source, Given::doubtful(-20));
        assert_eq!(tally.certain(Caps::default()), 10);
        assert_eq!(tally.standing(), 0);
    }
}
