//! A small authoritative name server that is embedded in a program: the backend of the
//! demonstration and of the tests.
//!
//! [`Zone`] is what it serves, parsed from master-file text; [`Authority`] turns a query's octets
//! into an answer's octets, without clocks or sockets; [`Behaviour`] is what goes wrong on
//! purpose (delay, loss, silence, a limited capacity); [`Server`] puts them behind UDP and TCP
//! sockets, on threads of its own.
//!
//! ```
//! use dnscrub_embedded_authority::{Authority, Server, Settings, Zone};
//!
//! let zone = Zone::parse("example.com", "
//! @    3600 IN SOA ns1 hostmaster 1 3600 600 604800 300
//! @    3600 IN NS  ns1
//! ns1  3600 IN A   192.0.2.1
//! www   300 IN A   192.0.2.80
//! ")?;
//! let server = Server::start(Authority::new([zone]), &Settings::default())?;
//! assert!(server.address().ip().is_loopback());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It is a real name server in what it answers (RFC 1034 section 4.3.2, wildcards by RFC 4592,
//! EDNS by RFC 6891, transfers by RFC 5936), but it has no DNSSEC, no dynamic update and no
//! access control: keep it on loopback.

mod authority;
mod behaviour;
mod counters;
mod server;
mod tcp;
mod udp;
mod zone;

pub use authority::{Authority, Limits, Reply, Transfer, Transport};
pub use behaviour::{Behaviour, Fate, Fault};
pub use counters::Counts;
pub use server::{Server, Settings, TcpOrder};
pub use zone::{Zone, ZoneError};
