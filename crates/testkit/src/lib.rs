//! For tests: everything around the proxy that is not the proxy.
//!
//! - [`message`]: queries, answers, and one sample of every malformed message;
//! - [`VirtualClock`]: time that stands still until it is told to move;
//! - [`SimNetwork`]: clients, a data path and upstreams on virtual time, with loss, delay,
//!   duplicates and reordering, the same for the same seed;
//! - [`CountingAllocator`]: proves that a path allocates nothing;
//! - [`incident`]: a made-up one;
//! - [`browser`]: Chromium, for pages;
//! - [`servers`], [`clients`] and [`alertmanager`]: NSD, BIND, kdig, dnsperf and Alertmanager, the
//!   real ones;
//! - [`taps`]: independent readers of dnstap;
//! - [`bgp`]: ExaBGP and GoBGP, each in a network namespace of its own.
//!
//! The authoritative server itself is `dnscrub-embedded-authority`, exported here as
//! [`authority`]. What goes wrong in here panics, because a test has no use for an error.

pub mod alertmanager;
mod allocations;
pub mod bgp;
pub mod browser;
pub mod clients;
mod clock;
pub mod incident;
pub mod message;
mod network;
mod process;
pub mod servers;
pub mod taps;
mod upstream;

pub use allocations::{Allocations, CountingAllocator};
pub use clock::VirtualClock;
pub use dnscrub_embedded_authority as authority;
pub use network::{Event, Link, SimNetwork, Tally};
pub use upstream::{Lie, Mood, SimUpstream};
