//! The blocklist: who must not be served, why, since when and until when.
//!
//! Static entries come from list files and stay while their list names them; dynamic ones come from
//! rules, incidents, the API and the command line, and may expire. [`BlocklistStore`] owns them all;
//! workers see only the [`BlockTable`] it publishes. Both tables, static and dynamic, may cover the
//! same address: the longest prefix counts the hit, and the dynamic entry of two equal ones.

mod entry;
mod hits;
mod list_file;
mod store;
mod table;

pub use entry::{Entry, EntryFilter, Origin};
pub use list_file::{ListError, ListLine, list_lines};
pub use store::{
    AddError, AddOutcome, Added, BlocklistStats, BlocklistStore, Limits, ListReport, ListStats,
    RestoreReport,
};
pub use table::{BlockTable, Hit};
