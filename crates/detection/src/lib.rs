//! Notices that something is wrong, says what it is, and keeps the record of it.
//!
//! An [`Incident`] is that record. Its [`Kind`] says what it is taken for, which is not always an attack.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod incident;
mod kind;
mod measure;
mod overview;
mod point;

pub use incident::{Happened, Incident};
pub use kind::Kind;
pub use measure::Measure;
pub use overview::{Overview, ZoneOverview};
pub use point::Point;
