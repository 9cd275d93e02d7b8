//! Rules: compiled from what was written into conditions, effects and an index.

mod build;
mod condition;
mod index;
mod patterns;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use condition::{Expr, Facts};
pub(crate) use index::{Index, Scratch};

use crate::cells::Limit;
use crate::defence::Level;
use crate::judgement::Action;

/// All rules, compiled.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<Rule>,
    pub(crate) index: Index,
    /// Whether a table for rate limits is needed.
    pub(crate) limits: bool,
}

/// A rule, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) observe: bool,
    /// It counts only where the level is at least this.
    pub(crate) from_level: Level,
    pub(crate) when: Expr,
    pub(crate) effect: Effect,
    pub(crate) counters: Arc<Counters>,
}

/// What a rule does.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    pub(crate) score: i32,
    /// What it decides, if it always does.
    pub(crate) action: Option<Action>,
    pub(crate) limit: Option<RateLimit>,
    pub(crate) pool: Option<u16>,
    pub(crate) block: Option<Duration>,
}

/// A rule's rate limit.
#[derive(Debug)]
pub(crate) struct RateLimit {
    pub(crate) limit: Limit,
    /// Prefix lengths that make a source; none for all queries together.
    pub(crate) per: Option<(u8, u8)>,
    pub(crate) over: Action,
    /// Tells the rule's cells from others'; made of the rule's name, so that they survive a reload.
    pub(crate) id: u64,
}

/// A worker's hit counters of a rule: one cache line, written by that worker alone.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Hits {
    pub(crate) matched: AtomicU64,
    /// By action, in the order of [`Action::ALL`].
    pub(crate) acted: [AtomicU64; 5],
    pub(crate) held_back: AtomicU64,
    pub(crate) routed: AtomicU64,
}

/// A rule's hit counters by worker.
pub(crate) type Counters = Box<[Hits]>;

/// Adds one to a counter that only the caller writes.
#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
}
