//! Zone knowledge: which names of a zone exist, and what denies the others.
//!
//! [`Zones`] finds the zone of a name, [`Zone::look_up`] says what is known of the name in it, and
//! [`Zone::negative_answer`] gives the records that deny it. All three allocate nothing, take no
//! lock and cannot panic. What feeds a zone (a transfer, a file) builds [`Contents`] beside it with
//! a [`Builder`], or [`Changes`] to it, on the control side.
//!
//! Knowledge errs to the mild side only: a name that exists is never called missing. A missing name
//! may be taken for an existing one where two hashes collide; see [`table`].

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod changes;
mod contents;
mod denial;
mod directory;
pub mod master_file;
mod message;
mod record;
pub mod table;
pub mod transfer;
mod tsig;
mod zone;

pub use changes::{Changes, TooLarge};
pub use contents::{Builder, Contents, Limits, LoadError};
pub use denial::{Authority, NoAnswer, Proof};
pub use directory::Zones;
pub use record::{Record, Soa};
pub use table::NameTable;
pub use zone::{Certainty, Condition, Finding, Inconsistent, Presence, Size, Zone};
