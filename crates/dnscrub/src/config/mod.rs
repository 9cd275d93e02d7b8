//! The configuration: read, checked, explained.
//!
//! What the user writes ([`mod@file`]) is not what the program uses ([`runtime`]): [`runtime::load`] reads the
//! file and its includes, checks everything, and builds the whole or nothing. What is wrong is told
//! as [`Problems`], with the place in the file.

mod build;
mod explain;
pub mod file;
mod load;
mod nearest;
mod problem;
pub mod reference;
pub mod runtime;
mod source;
pub mod summary;
#[cfg(test)]
mod tests;
mod value;
mod words;
mod yaml;

pub use problem::{Place, Problem, Problems, Related};
pub use source::{Disk, Memory, Source};
pub use summary::Summary;
