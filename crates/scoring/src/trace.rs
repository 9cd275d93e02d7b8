//! What each signal gave to one query, in numbers: for a replay, which tallies it.

use crate::judgement::{Action, Cause};
use crate::recorder::Recorder;

/// What happened while a query was judged; filled by [`crate::Scorer::judge_traced`].
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Every signal in order.
    pub signals: Vec<SignalMark>,
}

/// What a signal gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalMark {
    /// Its name.
    pub signal: &'static str,
    /// The points it gave.
    pub points: i32,
    /// It is in observe mode.
    pub observed: bool,
}

impl Trace {
    /// Forgets the query before.
    pub fn clear(&mut self) {
        self.signals.clear();
    }
}

impl Recorder for Trace {
    const COMMIT: bool = true;

    fn say(&mut self, _: impl FnOnce() -> String) {}

    fn signal(&mut self, signal: &'static str, points: i32, observed: bool) {
        self.signals.push(SignalMark {
            signal,
            points,
            observed,
        });
    }

    fn rule(&mut self, _: u16, _: bool, _: Option<bool>, _: Option<(Action, Cause)>) {}
}
