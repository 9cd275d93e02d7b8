//! Notices that something is wrong, says what it is, and keeps the record of it.
//!
//! An [`Incident`] is that record. Its [`Kind`] says what it is taken for, which is not always an attack.
//!
//! Each worker has a [`Watch`], which counts on the packet path and allocates nothing there. Once a second
//! it hands over a [`Window`]; those of all workers are merged, and a [`Detector`] compares them with what
//! is usual, and opens, changes and closes incidents in a [`Book`].

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod asked;
mod book;
mod cases;
mod detector;
mod diagnosis;
pub mod incident;
mod kind;
mod measure;
mod overview;
mod picture;
mod point;
mod quantity;
mod record;
mod ring;
mod sample;
mod servers;
mod sketch;
mod spelling;
mod tally;
mod usual;
mod watch;
mod window;
mod words;

pub use asked::{Acquaintance, Answered, Asked, Fate, Place, Standing, is_bulky};
pub use book::{Book, MOST_OPEN};
pub use detector::{Detector, MOST_ZONES};
pub use incident::{Happened, Incident};
pub use kind::Kind;
pub use measure::Measure;
pub use overview::{Overview, ZoneOverview};
pub use point::Point;
pub use sample::Sample;
pub use servers::UpstreamSecond;
pub use sketch::Sketch;
pub use watch::{SUFFIXES, Watch};
pub use window::{Counts, LATENCIES, QTYPE_COUNTS, QTYPES, Totals, Window, ZoneWindow};
