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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scorer::Case;
    use crate::testing::{Bench, context, query};

    #[test]
    fn who_listens_changes_nothing() {
        let yaml = "signals: { rate: { v4: { 32: 5/s }, questions: { points: 0 } } }\nrules: [ { name: it, when: { qtype: ANY }, do: { score: 7 } } ]";
        let (mut silent, mut traced) = (Bench::new(yaml), Bench::new(yaml));
        let mut trace = Trace::default();
        let mut given = 0;
        for number in 0..50 {
            let (query, packet) = query("www.example.com", if number % 3 == 0 { 255 } else { 1 });
            let context = context("192.0.2.1");
            let judged = silent.judge(&(query, packet.clone()), &context);
            let Bench {
                policy,
                scorer,
                now,
                ..
            } = &mut traced;
            let also = scorer.judge_traced(
                Case {
                    policy,
                    query: &query,
                    packet: &packet,
                    context: &context,
                    pressure: 0.0,
                    now: *now,
                },
                &mut trace,
            );
            assert_eq!(also, judged);
            let signals: i32 = trace.signals.iter().map(|mark| mark.points).sum();
            let rule = if number % 3 == 0 { 7 } else { 0 };
            assert_eq!(signals + rule, i32::from(judged.points));
            given += signals;
        }
        assert!(given > 0, "the rate is exceeded, and ANY gives points");
        let matched = |bench: &Bench| bench.policy.rules().map(|rule| rule.matched).sum::<u64>();
        assert_eq!((matched(&silent), matched(&traced)), (17, 17));
    }
}
