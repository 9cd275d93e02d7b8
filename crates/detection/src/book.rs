//! The incidents that are going on.

use crate::incident::Incident;

/// Incidents that can be open at a time. With more, the newest are not opened: what is going on is plain
/// enough by then.
pub const MOST_OPEN: usize = 32;

/// The open incidents. The detector edits them in place; closed ones stay, with `closed` set, until the owner
/// takes them out.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The number of the next incident, from 1.
    pub next: u64,
    /// Open ones, and those closed since the owner last looked.
    pub open: Vec<Incident>,
    /// Numbers of open ones that go on though little of them is measured, because it is stopped before it is counted.
    /// The owner says so before each look.
    pub going_on: Vec<u64>,
}
