//! Who listens while a query is judged: nobody on the packet path, [`crate::Trace`] in a replay,
//! [`crate::Explanation`] otherwise. All go through the same code, so an explanation cannot differ from a judgement.

use crate::bands::Weighed;
use crate::defence::Level;
use crate::judgement::{Action, Cause};
use crate::memory::Sighting;

/// A listener.
pub(crate) trait Recorder {
    /// Whether the query counts: tables and hit counters change.
    const COMMIT: bool;

    /// What is known of the source and the name.
    fn sighting(&mut self, _: &Sighting) {}
    /// A rule would match, but waits for this level; told only where nothing is committed.
    fn waiting_rule(&mut self, _rule: u16, _level: Level) {}
    /// A reason for the points of the signal that is being asked.
    fn say(&mut self, why: impl FnOnce() -> String);
    /// A signal gave its points.
    fn signal(&mut self, name: &'static str, points: i32, observed: bool);
    /// What the bands are compared with; told only where nothing is committed.
    fn weighed(&mut self, _: Weighed) {}
    /// A rule matched; `act` if it also decided.
    fn rule(
        &mut self,
        rule: u16,
        observed: bool,
        over_limit: Option<bool>,
        act: Option<(Action, Cause)>,
    );
}

/// The packet path.
pub(crate) struct Silent;

impl Recorder for Silent {
    const COMMIT: bool = true;

    #[inline]
    fn say(&mut self, _: impl FnOnce() -> String) {}
    #[inline]
    fn signal(&mut self, _: &'static str, _: i32, _: bool) {}
    #[inline]
    fn rule(&mut self, _: u16, _: bool, _: Option<bool>, _: Option<(Action, Cause)>) {}
}
