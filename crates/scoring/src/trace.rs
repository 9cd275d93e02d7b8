//! What each signal and rule did with one query, in numbers: for a replay, which tallies it.

use crate::judgement::{Action, Cause};
use crate::recorder::Recorder;

/// What happened while a query was judged; filled by [`crate::Scorer::judge_traced`].
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Every signal in order.
    pub signals: Vec<SignalMark>,
    /// Every rule that matched, up to the one that decided.
    pub rules: Vec<RuleMark>,
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

/// What a matching rule did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleMark {
    /// Its number, from 0.
    pub rule: u16,
    /// The rule, or everything, is in observe mode.
    pub observed: bool,
    /// What it decided, if it did.
    pub act: Option<(Action, Cause)>,
}

impl Trace {
    pub(crate) fn clear(&mut self) {
        self.signals.clear();
        self.rules.clear();
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

    fn rule(
        &mut self,
        rule: u16,
        observed: bool,
        _over_limit: Option<bool>,
        act: Option<(Action, Cause)>,
    ) {
        self.rules.push(RuleMark {
            rule,
            observed,
            act,
        });
    }
}
