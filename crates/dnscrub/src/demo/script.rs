//! What happens when: the phases of the demonstration.

use std::time::Duration;

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Only the polite client asks.
    Before,
    /// Random names, which do not exist, from sources all over 127.0.0.0/8.
    RandomNames,
    /// One network asks for names that exist, far beyond its share.
    OneNetwork,
    /// A few sources ask for ANY.
    AnyFlood,
    /// Only the polite client asks.
    After,
}

impl Phase {
    /// Every phase, in the order in which they come.
    pub(super) const ALL: [Self; 5] = [
        Self::Before,
        Self::RandomNames,
        Self::OneNetwork,
        Self::AnyFlood,
        Self::After,
    ];

    /// In two words, at most a dozen letters.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Before | Self::After => "calm",
            Self::RandomNames => "random names",
            Self::OneNetwork => "one /24",
            Self::AnyFlood => "ANY flood",
        }
    }

    /// In a sentence.
    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Before => "only the polite client asks",
            Self::RandomNames => "names that do not exist, from all over 127.0.0.0/8",
            Self::OneNetwork => "127.66.6.0/24 asks far beyond its share",
            Self::AnyFlood => "a dozen sources ask for ANY, over and over",
            Self::After => "the attack is over",
        }
    }

    /// Whether an attack is on.
    pub(super) const fn is_attack(self) -> bool {
        !matches!(self, Self::Before | Self::After)
    }

    /// Its part of the time, in thirtieths.
    const fn share(self) -> u32 {
        match self {
            Self::Before => 5,
            Self::RandomNames => 8,
            Self::OneNetwork => 5,
            Self::AnyFlood | Self::After => 6,
        }
    }
}

/// The phases laid out over the whole time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    /// The whole time.
    pub(super) total: Duration,
}

impl Script {
    /// When a phase begins and ends, from the start.
    pub(super) fn span(self, phase: Phase) -> (Duration, Duration) {
        let before: u32 = Phase::ALL
            .iter()
            .take_while(|each| **each != phase)
            .map(|each| each.share())
            .sum();
        let at = |thirtieths: u32| self.total * thirtieths / 30;
        (at(before), at(before + phase.share()))
    }

    /// The phase so long after the start; the last one for ever.
    pub(super) fn at(self, elapsed: Duration) -> Phase {
        Phase::ALL
            .into_iter()
            .find(|&phase| elapsed < self.span(phase).1)
            .unwrap_or(Phase::After)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_fill_the_time_without_a_gap() {
        let script = Script {
            total: Duration::from_secs(30),
        };
        let mut end = Duration::ZERO;
        for phase in Phase::ALL {
            let span = script.span(phase);
            assert_eq!(span.0, end, "{phase:?}");
            assert_eq!(script.at(span.0), phase);
            end = span.1;
        }
        assert_eq!(end, script.total);
        assert_eq!(script.at(script.total * 2), Phase::After);
    }
}
