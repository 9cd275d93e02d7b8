//! May this packet be a query for us, from a source we serve?
//!
//! Four questions, each with its own type and its own section of the configuration file:
//!
//! - the source: [`Acl`] (`acl:`), then the blocklist (`blocklist:`, [`BlockTable`]),
//! - the shape: [`SanityPolicy`] (`sanity:`) says what a malformed packet gets,
//! - the kind of query: [`OpcodePolicy`] (`opcodes:`) and [`ClassPolicy`] (`sanity:`).
//!
//! [`PacketFilter`] asks them for the worker. It and the [`BlockTable`] are immutable and shared by
//! all workers; [`BlocklistStore`] is the control side, the one owner of the blocklist's truth, and
//! publishes tables. Nothing here reads a clock, a file or a socket.
//!
//! An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) is matched as the IPv4 address it stands for,
//! in sources and in prefixes alike.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod acl;
mod blocklist;
mod class;
pub mod config;
mod filter;
mod opcode;
mod prefix;
mod prefix_table;
mod sanity;

pub use acl::Acl;
pub use blocklist::{
    AddError, AddOutcome, Added, BlockTable, BlocklistStats, BlocklistStore, Entry, EntryFilter,
    Hit, Limits, ListError, ListLine, ListReport, ListStats, Origin, RestoreReport, list_lines,
};
pub use class::ClassPolicy;
pub use filter::{FilterReason, PacketFilter, Verdict};
pub use opcode::{OpcodePolicy, OpcodeRule};
pub use prefix::{Prefix, PrefixError};
pub use sanity::{MalformedAnswer, SanityPolicy};
