//! Views of DNS messages: parsed once, then read without failing; edited in place.
//!
//! Nothing here allocates, performs IO or can panic. A message is checked in one pass
//! ([`Query::parse`]), and what is wrong with it is one [`Malformed`] kind.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod header;
mod malformed;
mod name;
mod query;
mod records;

pub use header::{Flags, HEADER_LEN, Opcode, Rcode};
pub use malformed::Malformed;
pub use name::{Labels, MAX_LABEL_LEN, MAX_NAME_LEN, Name, NameError, Suffixes};
pub use query::{Edns, EdnsOption, Query};
pub use records::{qclass, qtype};
