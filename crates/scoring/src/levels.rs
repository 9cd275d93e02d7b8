//! Defence levels to look at, and to share between workers.

use dnscrub_wire::Name;

use crate::defence::Level;

/// Zones and suffixes with an alarm that are told of; beyond that those with the milder ones are left
/// out.
pub const MOST_ALARMS: usize = 100;
/// The signal that alarms about doubtful names.
pub(crate) const DOUBTFUL_NAMES: &str = "suffix-flood";

/// The alarm of a signal, about all zones together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignalAlarm {
    /// The signal. `suffix-flood` stands for doubtful names, whether missing or unknown.
    pub signal: &'static str,
    /// Its level.
    pub level: Level,
    /// Events a second now.
    pub rate: f32,
    /// Events a second in calm times.
    pub usual: f32,
}

/// The alarm of a zone, or of another name that doubtful names stand under.
#[derive(Clone, Debug, PartialEq)]
pub struct SuffixAlarm {
    /// Its name.
    pub name: Name,
    /// Its level.
    pub level: Level,
    /// Doubtful names a second now.
    pub rate: f32,
    /// The same in calm times.
    pub usual: f32,
    /// Distinct doubtful names of the last seconds, about.
    pub distinct: f32,
}

/// What one worker sees, or all of them together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Levels {
    /// Every signal that can have an alarm, calm ones as well.
    pub signals: Vec<SignalAlarm>,
    /// Zones and suffixes with an alarm, the worst first; at most [`MOST_ALARMS`].
    pub suffixes: Vec<SuffixAlarm>,
}

impl Levels {
    /// The level of the whole: the highest of the signals'.
    #[must_use]
    pub fn whole(&self) -> Level {
        self.worst().map_or(Level::Calm, |alarm| alarm.level)
    }

    /// The signal that the level of the whole is due to: of those with the highest level the one
    /// that is furthest above what is usual.
    #[must_use]
    pub fn worst(&self) -> Option<&SignalAlarm> {
        let times = |alarm: &SignalAlarm| alarm.rate / alarm.usual.max(1.0);
        self.signals
            .iter()
            .max_by(|a, b| a.level.cmp(&b.level).then(times(a).total_cmp(&times(b))))
    }

    /// The highest level of a signal that passes `which`.
    fn highest(&self, which: impl Fn(&str) -> bool) -> Level {
        let levels = self.signals.iter().filter(|alarm| which(alarm.signal));
        levels.map(|alarm| alarm.level).max().unwrap_or(Level::Calm)
    }

    /// The level for doubtful names of the whole.
    pub(crate) fn doubtful_names(&self) -> Level {
        self.highest(|signal| signal == DOUBTFUL_NAMES)
    }

    /// The level of the signals about sources.
    pub(crate) fn sources(&self) -> Level {
        self.highest(|signal| signal != DOUBTFUL_NAMES)
    }

    /// Adds what another worker sees: the highest level counts, and rates add up, since each worker
    /// has its part of the sources.
    pub fn merge(&mut self, other: &Self) {
        for alarm in &other.signals {
            let known = self.signals.iter_mut();
            match known.into_iter().find(|known| known.signal == alarm.signal) {
                Some(known) => {
                    known.level = known.level.max(alarm.level);
                    known.rate += alarm.rate;
                    known.usual += alarm.usual;
                }
                None => self.signals.push(*alarm),
            }
        }
        for alarm in &other.suffixes {
            let known = self.suffixes.iter_mut();
            match known.into_iter().find(|known| known.name == alarm.name) {
                Some(known) => {
                    known.level = known.level.max(alarm.level);
                    known.rate += alarm.rate;
                    known.usual += alarm.usual;
                    known.distinct += alarm.distinct;
                }
                None => self.suffixes.push(alarm.clone()),
            }
        }
        self.arrange();
    }

    /// The worst suffixes first, and no more than there is room for.
    pub(crate) fn arrange(&mut self) {
        self.suffixes.sort_by(|a, b| {
            b.level
                .cmp(&a.level)
                .then(b.rate.total_cmp(&a.rate))
                .then_with(|| a.name.as_wire().cmp(b.name.as_wire()))
        });
        self.suffixes.truncate(MOST_ALARMS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(level: Level, rate: f32, zone: &str) -> Levels {
        Levels {
            signals: vec![SignalAlarm {
                signal: DOUBTFUL_NAMES,
                level,
                rate,
                usual: 1.0,
            }],
            suffixes: vec![SuffixAlarm {
                name: zone.parse().unwrap(),
                level: Level::Alert,
                rate,
                usual: 2.0,
                distinct: rate,
            }],
        }
    }

    #[test]
    fn the_highest_level_counts_and_rates_add_up() {
        let mut levels = Levels::default();
        assert_eq!(levels.whole(), Level::Calm);
        levels.merge(&seen(Level::Calm, 10.0, "a.example"));
        levels.merge(&seen(Level::Attack, 30.0, "a.example"));
        levels.merge(&seen(Level::Alert, 50.0, "b.example"));
        assert_eq!(levels.whole(), Level::Attack);
        assert_eq!(levels.doubtful_names(), Level::Attack);
        assert_eq!(levels.sources(), Level::Calm);
        let worst = levels.worst().unwrap();
        assert_eq!(
            (worst.signal, worst.rate, worst.usual),
            ("suffix-flood", 90.0, 3.0)
        );
        let suffixes: Vec<_> = levels
            .suffixes
            .iter()
            .map(|alarm| (alarm.name.to_string(), alarm.rate, alarm.distinct))
            .collect();
        assert_eq!(
            suffixes,
            [
                ("b.example".to_owned(), 50.0, 50.0),
                ("a.example".to_owned(), 40.0, 40.0)
            ]
        );
    }

    #[test]
    fn the_mildest_alarms_are_left_out_where_there_are_too_many() {
        let mut levels = Levels::default();
        for number in 0..2 * MOST_ALARMS {
            levels.merge(&seen(
                Level::Alert,
                number as f32,
                &format!("n{number}.example"),
            ));
        }
        assert_eq!(levels.suffixes.len(), MOST_ALARMS);
        assert!(levels.suffixes.iter().all(|alarm| alarm.rate >= 100.0));
    }
}
