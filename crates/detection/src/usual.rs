//! What is usual: a slow, robust average of each quantity, and what it was at this hour of the week.
//!
//! An average follows what is observed in small steps, and each step counts at most a few times the usual
//! spread, so that a burst moves it little. It can grow to no more than about e times in two hours, however
//! long something lasts: who raises a flood slowly does not make it normal. Falling is not limited. The
//! detector stops all learning of what an open incident is about.
//!
//! That alone would let a flood become normal that is raised by a tenth an hour. So what is few by its nature beside
//! what is meant well, such as made-up names or large answers, has a second bound: the part it usually is of
//! that, which takes days to grow, three times over. Load that grows as a whole does not come near it.
//!
//! Once an hour of the week was seen in two weeks, the higher of the recent average and of that hour's counts:
//! so neither the morning's rise nor what has changed since last week is a surprise.

use crate::quantity::{BULKY, KNOWN, MADE_UP, MALFORMED, ODD_HOPS, STRANGE};

/// What is few by its nature beside what is meant well.
const FEW: [usize; 5] = [MADE_UP, STRANGE, BULKY, ODD_HOPS, MALFORMED];
/// Seconds of plain averaging of its part,
const FEW_LEARNED_IN: f32 = 600.0;
/// in which that can grow to e times after them,
const FEW_GROWS_IN: f32 = 4.0 * 86_400.0;
/// and in which it follows when it falls.
const FEW_FALLS_IN: f32 = 86_400.0;
/// How many times its part it may be usually, at some hours,
const FEW_TIMES: f32 = 3.0;
/// and how many times what is a small value, in any case.
const FEW_FLOORS: f32 = 4.0;
/// Hours of a week.
pub(crate) const HOURS: usize = 168;
/// Weeks after which an hour's history counts.
const WEEKS: u8 = 2;
/// Seconds in which an average follows.
const FOLLOWS_IN: f32 = 120.0;
/// Seconds of plain averaging at the start,
const LEARNING: f32 = 30.0;
/// in which it falls faster than it rises, since much is new then that soon will not be.
const FALLS_IN: f32 = 4.0;
/// Seconds in which any step counts in full.
const FIRST: f32 = 15.0;
/// Seconds in which an average can grow to e times.
const GROWS_IN: f32 = 7200.0;
/// Steps count at most so many spreads.
const CLIP: f32 = 4.0;
/// Seconds of an hour that must be learned from for the hour to count.
const ENOUGH: f32 = 900.0;

/// A quantity's usual value and spread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usual {
    /// The average,
    pub(crate) value: f32,
    /// and how far from it single seconds are, on average.
    pub(crate) spread: f32,
    /// The average cannot be higher now.
    limit: f32,
    /// Seconds learned from, up to a few minutes.
    learned: f32,
}

impl Usual {
    /// Keeps the average from being higher.
    fn hold(&mut self, most: f32) {
        if self.value > most {
            self.value = most;
            self.spread = self.spread.min(most.sqrt().max(0.1 * most));
        }
        self.limit = self.limit.min(most);
    }

    /// Learns from a second, or some. `floor`: what is a small value of this quantity.
    pub(crate) fn learn(&mut self, x: f32, seconds: f32, floor: f32) {
        if !x.is_finite() {
            return;
        }
        let first = self.learned == 0.0;
        self.learned = (self.learned + seconds).min(600.0);
        if first {
            self.value = x;
            self.spread = x.sqrt().max(0.1 * floor);
            self.limit = x;
            return;
        }
        let young = self.learned < LEARNING;
        let spread = self.spread;
        let off = x - self.value;
        let step = match (young, off < 0.0) {
            (true, true) => seconds / FALLS_IN,
            (true, false) => seconds / self.learned,
            (false, _) => seconds / FOLLOWS_IN.min(self.learned),
        };
        let most = CLIP * self.spread.max(0.05 * floor);
        let clipped = if self.learned < FIRST {
            off
        } else {
            off.clamp(-most, most)
        };
        self.value += clipped * step.min(1.0);
        let deviation = off.abs().min(most);
        let step = if young && deviation < self.spread {
            0.15
        } else {
            (seconds / 60.0).min(0.2)
        };
        self.spread += (deviation - self.spread) * step;
        if young {
            // what was new at the start says nothing for how much seconds differ
            self.spread = self.spread.min(self.value.max(0.5 * floor));
        }
        if young {
            self.limit = self.value;
        } else {
            // a fall leaves the way back open for as long as it takes to grow
            let grown = self.limit + self.limit.max(floor) * seconds / GROWS_IN;
            self.limit = grown.min(self.value.max(0.0) * 1.3 + 0.3 * floor);
            if self.value > self.limit {
                // how far away it is from where it may not follow says nothing for how much seconds differ
                self.spread = self.spread.min(spread);
                self.value = self.limit;
            }
        }
    }
}

/// What is usual of a zone or of the whole: `N` quantities.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Habits<const N: usize> {
    pub(crate) recent: [Usual; N],
    /// The part of what is meant well that each of the few is.
    parts: [f32; FEW.len()],
    /// Seconds that this was learned from, up to a few minutes.
    parts_learned: f32,
    /// By hour of the week, all quantities of an hour together; empty before the first.
    slots: Vec<u8>,
    /// In how many weeks the hour was seen.
    weeks: Vec<u8>,
    /// The hour that is running, and seconds of it that were learned from.
    hour: usize,
    learned: f32,
}

impl<const N: usize> Default for Habits<N> {
    fn default() -> Self {
        Self {
            recent: [Usual::default(); N],
            parts: [0.0; FEW.len()],
            parts_learned: 0.0,
            slots: Vec::new(),
            weeks: Vec::new(),
            hour: 0,
            learned: 0.0,
        }
    }
}

impl<const N: usize> Habits<N> {
    /// Learns from a second that ended at `now`, in seconds since 1970.
    pub(crate) fn learn(&mut self, values: &[f32; N], floors: &[f32; N], seconds: f32, now: f64) {
        self.turn(now);
        self.learned += seconds;
        for ((usual, value), floor) in self.recent.iter_mut().zip(values).zip(floors) {
            usual.learn(*value, seconds, *floor);
        }
        self.hold(floors, seconds);
    }

    /// Keeps what is few by its nature from becoming many, and learns which part it is.
    fn hold(&mut self, floors: &[f32; N], seconds: f32) {
        let well_meant = self.recent.get(KNOWN).map_or(0.0, |it| it.value).max(1.0);
        let young = self.parts_learned < FEW_LEARNED_IN;
        self.parts_learned = (self.parts_learned + seconds).min(FEW_LEARNED_IN);
        for (part, quantity) in self.parts.iter_mut().zip(FEW) {
            let (Some(usual), Some(floor)) = (self.recent.get_mut(quantity), floors.get(quantity))
            else {
                continue;
            };
            let now = usual.value / well_meant;
            if young {
                *part += (now - *part) * (seconds / self.parts_learned).min(1.0);
                continue;
            }
            if now < *part {
                *part += (now - *part) * (seconds / FEW_FALLS_IN).min(1.0);
            } else {
                let least = part.max(0.1 * floor / well_meant);
                *part = now.min(*part + least * seconds / FEW_GROWS_IN);
            }
            usual.hold(FEW_TIMES * *part * well_meant + FEW_FLOORS * floor);
        }
    }

    /// An hour that is over becomes that hour's history.
    pub(crate) fn turn(&mut self, now: f64) {
        let hour = hour_of(now);
        if hour == self.hour {
            return;
        }
        if self.learned >= ENOUGH {
            if self.slots.is_empty() {
                self.slots = vec![0; HOURS.saturating_mul(N)];
                self.weeks = vec![0; HOURS];
            }
            let first = self.hour.saturating_mul(N);
            let weeks = self.weeks.get_mut(self.hour);
            let seen = weeks.map_or(0, |weeks| std::mem::replace(weeks, weeks.saturating_add(1)));
            for (usual, slot) in self.recent.iter().zip(self.slots.iter_mut().skip(first)) {
                let value = match seen {
                    0 => usual.value,
                    _ => 0.6 * decode(*slot) + 0.4 * usual.value,
                };
                *slot = encode(value);
            }
        }
        self.hour = hour;
        self.learned = 0.0;
    }

    /// What is usual of a quantity now.
    pub(crate) fn usual(&self, quantity: usize, now: f64) -> f32 {
        let recent = self.recent.get(quantity).map_or(0.0, |usual| usual.value);
        let hour = hour_of(now);
        if self.weeks.get(hour).is_none_or(|weeks| *weeks < WEEKS) {
            return recent;
        }
        let slot = hour.saturating_mul(N).saturating_add(quantity);
        let history = self.slots.get(slot).copied().map_or(0.0, decode);
        recent.max(history)
    }

    /// How far single seconds are from that.
    pub(crate) fn spread(&self, quantity: usize) -> f32 {
        self.recent.get(quantity).map_or(0.0, |usual| usual.spread)
    }

    /// Appends it, for a file.
    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        for usual in &self.recent {
            for number in [usual.value, usual.spread, usual.limit, usual.learned] {
                out.extend(number.to_le_bytes());
            }
        }
        for number in self.parts.iter().chain([&self.parts_learned]) {
            out.extend(number.to_le_bytes());
        }
        out.push(u8::from(!self.slots.is_empty()));
        out.extend(&self.slots);
        out.extend(&self.weeks);
    }

    /// Reads what [`Habits::save`] wrote; nothing where it is not that.
    pub(crate) fn restore(octets: &mut &[u8]) -> Option<Self> {
        let mut habits = Self::default();
        let mut number = || {
            let (head, rest) = octets.split_first_chunk::<4>()?;
            *octets = rest;
            Some(f32::from_le_bytes(*head)).filter(|it| it.is_finite() && *it >= 0.0)
        };
        for usual in &mut habits.recent {
            *usual = Usual {
                value: number()?,
                spread: number()?,
                limit: number()?,
                learned: number()?,
            };
        }
        for part in &mut habits.parts {
            *part = number()?;
        }
        habits.parts_learned = number()?;
        let (with_slots, rest) = octets.split_first()?;
        *octets = rest;
        if *with_slots == 1 {
            let (slots, rest) = octets.split_at_checked(HOURS.saturating_mul(N))?;
            let (weeks, rest) = rest.split_at_checked(HOURS)?;
            habits.slots = slots.to_vec();
            habits.weeks = weeks.to_vec();
            *octets = rest;
        }
        Some(habits)
    }

    /// Octets of memory, at most.
    pub(crate) const OCTETS: usize = size_of::<Self>() + HOURS * (N + 1);
}

fn hour_of(now: f64) -> usize {
    ((now / 3600.0) as usize) % HOURS
}

/// A value in an octet, to a seventh of an octave, from 1/16,000 on; 0 for nothing.
fn encode(value: f32) -> u8 {
    if value <= 6.2e-5 {
        return 0;
    }
    ((value.log2() + 14.0) * 7.0).round().clamp(1.0, 255.0) as u8
}

fn decode(octet: u8) -> f32 {
    if octet == 0 {
        return 0.0;
    }
    (f32::from(octet) / 7.0 - 14.0).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seasoned(rate: f32) -> Usual {
        let mut usual = Usual::default();
        for n in 0..600 {
            // a plain zigzag for noise
            usual.learn(rate + if n % 2 == 0 { 3.0 } else { -3.0 }, 1.0, 10.0);
        }
        usual
    }

    #[test]
    fn it_finds_the_average_and_its_spread() {
        let usual = seasoned(100.0);
        assert!((usual.value - 100.0).abs() < 3.0, "{usual:?}");
        assert!((usual.spread - 3.0).abs() < 1.0, "{usual:?}");
    }

    #[test]
    fn a_burst_moves_it_little_and_a_fall_is_followed() {
        let mut usual = seasoned(100.0);
        for _ in 0..60 {
            usual.learn(50_000.0, 1.0, 10.0);
        }
        assert!(usual.value < 135.0, "{usual:?}");
        let mut usual = seasoned(100.0);
        for _ in 0..1200 {
            usual.learn(10.0, 1.0, 10.0);
        }
        assert!(usual.value < 15.0, "{usual:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Whatever somebody sends for an hour, the average is less than two and a half times as high then.
        #[test]
        fn nothing_becomes_usual_within_an_hour(
            parts in proptest::collection::vec((0.0_f32..1e6, 1_usize..400), 1..30),
            ramp in 1.0_f32..1.02,
        ) {
            let mut usual = seasoned(100.0);
            let mut sent = 0;
            let mut rate = 1.0;
            for (height, seconds) in parts.iter().cycle() {
                for _ in 0..*seconds {
                    rate = (rate * ramp).min(1e6);
                    usual.learn(height.max(rate), 1.0, 10.0);
                    sent += 1;
                    if sent == 3600 {
                        prop_assert!(usual.value < 250.0, "{usual:?}");
                        return Ok(());
                    }
                }
            }
        }

        #[test]
        fn an_octet_keeps_a_value_to_a_tenth(value in 1e-3_f32..1e6) {
            let kept = decode(encode(value));
            prop_assert!((kept / value - 1.0).abs() < 0.1, "{value} {kept}");
        }
    }

    #[test]
    fn an_hour_counts_after_two_weeks() {
        let mut habits = Habits::<1>::default();
        let rate = |hour: usize| if hour % 24 == 9 { 1000.0 } else { 100.0 };
        for hour in 0..(2 * HOURS + 12) {
            for minute in 0..60 {
                let now = (hour * 3600 + minute * 60) as f64;
                habits.learn(&[rate(hour)], &[10.0], 60.0, now);
            }
            if hour == HOURS + 8 {
                let nine = ((hour + 1) * 3600) as f64;
                assert!(habits.usual(0, nine) < 200.0, "one week is not enough");
            }
        }
        let nine = ((2 * HOURS + 9) * 3600) as f64;
        let usual = habits.usual(0, nine);
        // the average had an hour to follow, within its limit
        assert!(usual > 200.0, "{usual}");
        let mut octets = Vec::new();
        habits.save(&mut octets);
        let mut rest = &octets[..];
        let restored = Habits::<1>::restore(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!(restored.usual(0, nine), usual);
        for len in 0..octets.len() {
            assert!(Habits::<1>::restore(&mut &octets[..len]).is_none());
        }
    }
}
