//! Bands: thresholds that turn points into an action, and come down under pressure.

use crate::config::{self, ConfigError};
use crate::counts::{self, BandHits, ByWorker};
use crate::judgement::Action;

/// The bands, from mild to severe.
#[derive(Debug)]
pub(crate) struct Bands {
    bands: Vec<Band>,
    /// Some band is in observe mode.
    pub(crate) observe: bool,
}

#[derive(Debug)]
pub(crate) struct Band {
    pub(crate) action: Action,
    at: i32,
    /// How far the threshold comes down under full pressure.
    drop: i32,
    pub(crate) observe: bool,
    pub(crate) counters: ByWorker,
}

/// Pressure in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pressure(i32);

impl Pressure {
    /// None at all.
    pub(crate) const NONE: Self = Self(0);
    /// Full pressure.
    pub(crate) const FULL: Self = Self(1000);

    /// At rest.
    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// 0 (at rest, and for what is not a number) to 1.
    pub(crate) fn new(pressure: f32) -> Self {
        // a cast saturates, and makes 0 of what is not a number
        Self((pressure * 1000.0) as i32).clamped()
    }

    /// 0 to 1.
    pub(crate) fn fraction(self) -> f32 {
        self.0 as f32 / 1000.0
    }

    const fn clamped(self) -> Self {
        Self(if self.0 < 0 {
            0
        } else if self.0 > 1000 {
            1000
        } else {
            self.0
        })
    }
}

/// What a query's points come to before the bands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weighed {
    pub(crate) pressure: Pressure,
    /// Points that count at this pressure.
    pub(crate) counted: i32,
    /// Those that are certain, which count as if the pressure were full.
    pub(crate) certain: i32,
}

impl Weighed {
    /// With which points a band is reached, if it is, and from which on.
    pub(crate) fn reach(self, band: &Band) -> Option<(i32, i32)> {
        [
            (self.counted, band.threshold(self.pressure)),
            (self.certain, band.threshold(Pressure::FULL)),
        ]
        .into_iter()
        .find(|&(points, threshold)| points > 0 && points >= threshold)
    }
}

impl Band {
    /// What it is called where it is counted.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.action.label(), self.at)
    }

    /// The least points that reach it.
    pub(crate) const fn threshold(&self, pressure: Pressure) -> i32 {
        self.at
            .saturating_sub(self.drop.saturating_mul(pressure.0).wrapping_div(1000))
    }
}

impl Bands {
    /// With counters for `workers` workers.
    pub(crate) fn new(
        config: &[config::Band],
        workers: usize,
        errors: &mut Vec<ConfigError>,
    ) -> Self {
        let mut wrong = |index: usize, field: &str, message: String| {
            errors.push(ConfigError {
                path: format!("scrubbing.bands[{index}].{field}"),
                message,
            });
        };
        if config.len() > usize::from(u8::MAX) {
            wrong(
                usize::from(u8::MAX),
                "action",
                format!("found {} bands, expected at most 255", config.len()),
            );
        }
        let mut before: Option<&config::Band> = None;
        for (index, band) in config.iter().enumerate() {
            if band.under_pressure == 0 {
                wrong(
                    index,
                    "under-pressure",
                    "found 0, which every query reaches; expected at least 1".into(),
                );
            }
            if band.under_pressure > band.at {
                let message = format!(
                    "found {}, expected at most {}, the threshold at rest",
                    band.under_pressure, band.at
                );
                wrong(index, "under-pressure", message);
            }
            if let Some(before) = before {
                let fields = [
                    ("at", band.at, before.at),
                    ("under-pressure", band.under_pressure, before.under_pressure),
                ];
                for (field, here, above) in fields {
                    if here < above {
                        let message = format!(
                            "found {here}, expected at least {above}, as in the band before; bands go from mild to severe"
                        );
                        wrong(index, field, message);
                    }
                }
            }
            before = Some(band);
        }
        Self {
            observe: config.iter().any(|band| band.observe),
            bands: config
                .iter()
                .map(|band| Band {
                    action: band.action.into(),
                    at: i32::from(band.at),
                    drop: i32::from(band.at).saturating_sub(i32::from(band.under_pressure)),
                    observe: band.observe,
                    counters: counts::fresh(workers),
                })
                .collect(),
        }
    }

    /// Goes on with the counters of bands of the same action and threshold.
    pub(crate) fn carry_over(&mut self, previous: &Self) {
        for band in &mut self.bands {
            let same = |other: &&Band| (other.action, other.at) == (band.action, band.at);
            if let Some(known) = previous.bands.iter().find(same)
                && known.counters.len() == band.counters.len()
            {
                band.counters = std::sync::Arc::clone(&known.counters);
            }
        }
    }

    /// A worker's counters of a band.
    #[inline]
    pub(crate) fn hits(&self, band: u8, worker: usize) -> Option<&BandHits> {
        self.bands.get(usize::from(band))?.counters.get(worker)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Band> {
        self.bands.iter()
    }

    /// The last band that the points reach, of those that `counts`.
    #[inline]
    pub(crate) fn reached(
        &self,
        points: i32,
        pressure: Pressure,
        counts: impl Fn(&Band) -> bool,
    ) -> Option<(u8, Action)> {
        if points <= 0 {
            return None;
        }
        self.bands
            .iter()
            .enumerate()
            .rev()
            .find(|(_, band)| points >= band.threshold(pressure) && counts(band))
            .map(|(index, band)| (index as u8, band.action))
    }
}
