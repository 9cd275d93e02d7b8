//! The last seconds of a quantity, and whether they are out of the ordinary.

/// Seconds kept.
pub(crate) const KEPT: usize = 8;

/// The last seconds, the newest first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ring([f32; KEPT]);

/// What is out of the ordinary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Surge {
    /// More than usual, a second.
    pub(crate) excess: f32,
    /// It shows in a single second.
    pub(crate) plain: bool,
}

/// What a quantity is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) usual: f32,
    pub(crate) spread: f32,
    /// More than usual by less is never a surge, however long it lasts.
    pub(crate) floor: f32,
    /// There was time to learn what is usual.
    pub(crate) seasoned: bool,
}

/// Seconds looked at, times the floor, times the usual, and standard deviations that a surge exceeds: the
/// shorter the look, the more.
const LOOKS: [(usize, f32, f32, f32); 4] = [
    (1, 20.0, 3.0, 8.0),
    (2, 5.0, 2.0, 6.0),
    (4, 1.5, 1.0, 6.0),
    (8, 1.0, 0.6, 6.0),
];

impl Ring {
    pub(crate) const fn push(&mut self, value: f32) {
        self.0.rotate_right(1);
        let [first, ..] = &mut self.0;
        *first = value;
    }

    /// The average of the last seconds.
    pub(crate) fn mean(&self, seconds: usize) -> f32 {
        let seconds = seconds.clamp(1, KEPT);
        self.0.iter().take(seconds).sum::<f32>() / seconds as f32
    }

    /// The least of the last seconds.
    pub(crate) fn least(&self, seconds: usize) -> f32 {
        let seconds = seconds.clamp(1, KEPT);
        self.0
            .iter()
            .take(seconds)
            .copied()
            .fold(f32::MAX, f32::min)
    }

    /// Whether the last seconds are a surge.
    pub(crate) fn surge(&self, bar: Bar) -> Option<Surge> {
        let Bar {
            usual,
            spread,
            floor,
            seasoned,
        } = bar;
        LOOKS
            .iter()
            .filter(|(seconds, ..)| seasoned || *seconds <= 2)
            .find_map(|(seconds, floors, factor, deviations)| {
                let excess = self.mean(*seconds) - usual;
                // seconds are not independent of each other: the spread of their mean falls slowly
                let own = 1.25 * spread / (*seconds as f32).powf(0.25);
                let chance = (usual.max(0.1) / *seconds as f32).sqrt();
                let caution = if seasoned { 1.0 } else { 4.0 };
                // what is over is none any more, however large it was
                let goes_on = self.mean(1) - usual >= 0.3 * excess;
                let surges = goes_on
                    && excess >= floor * floors * caution
                    && excess >= usual * factor
                    && excess >= deviations * own.hypot(chance);
                surges.then_some(Surge {
                    excess,
                    plain: *seconds == 1,
                })
            })
    }

    /// Whether there is a little more than usual, as there is in each part of something thin.
    pub(crate) fn is_elevated(&self, bar: Bar, least: f32) -> bool {
        let excess = self.mean(4) - bar.usual;
        let chance = (bar.usual.max(0.1) / 4.0).sqrt();
        self.mean(1) >= bar.usual
            && excess >= least
            && excess >= 3.0 * bar.spread.hypot(chance)
            && excess >= bar.usual
    }
}
