//! Views of DNS messages: parsed once, then read without failing; edited in place.
//!
//! Nothing here performs IO or can panic, and nothing allocates but [`QueryBuilder`]. A message is
//! checked in one pass ([`Query::parse`], [`Response::parse`]), and what is wrong with it is one
//! [`Malformed`] or [`MalformedResponse`] kind.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod builder;
pub mod cookie;
pub mod edit;
mod header;
mod malformed;
mod name;
mod query;
mod record;
pub mod records;
mod response;

pub use builder::QueryBuilder;
pub use header::{Flags, HEADER_LEN, Opcode, Rcode};
pub use malformed::{Malformed, MalformedResponse};
pub use name::{Labels, MAX_LABEL_LEN, MAX_NAME_LEN, Name, NameError, Suffixes};
pub use query::{Edns, EdnsOption, Query};
pub use records::{qclass, qtype};
pub use response::Response;
