//! Scoring: signals give points, rules add to them or act, bands turn points into an action.
//!
//! [`Policy`] is what was configured, built once and shared. Each worker has a [`Scorer`], which
//! holds what it remembers of sources in tables of fixed size. [`Scorer::judge`] allocates nothing,
//! takes no lock and cannot panic; [`Scorer::explain`] runs the same code and says why.
//!
//! The order is: all signals; the rules as they are written, until one acts; the bands, if none did.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod bands;
mod cells;
pub mod config;
mod context;
pub mod cookies;
mod counts;
mod defence;
mod evidence;
mod explain;
mod judgement;
mod label;
mod levels;
mod lists;
pub mod manual;
mod memory;
mod names;
mod orders;
mod policy;
mod recorder;
pub mod response_limit;
mod rules;
mod scorer;
mod seen;
mod signals;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trace;

pub use context::{Context, Transport};
pub use counts::{BandView, SignalView};
pub use defence::Level;
pub use evidence::Kind;
pub use explain::{BandStep, Explanation, Known, RuleStep, SignalStep};
pub use judgement::{Action, Block, Cause, Judgement};
pub use levels::{Levels, MOST_ALARMS, SignalAlarm, SuffixAlarm};
pub use lists::{List, ListError, NameSet, PrefixSet};
pub use orders::{MOST_ORDERED, Order, Orders};
pub use policy::{Names, Policy, RuleView};
pub use scorer::{Case, Reply, Restored, SavedPart, Scorer};
pub use seen::{Acquaintance, Home, NameStanding, Seen};
pub use trace::{SignalMark, Trace};
