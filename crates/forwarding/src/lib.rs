//! Pools of name servers: which upstream gets a query, what is in flight, whose health is how.
//!
//! - [`config`]: the `pools:` section of the configuration file.
//! - [`Policy`]: that section, checked and built; immutable, shared, swapped as a whole.
//! - [`Upstream`]: what all workers and the prober know of an upstream together.
//! - [`Forwarder`]: one worker's table of queries in flight, with balancing and resending.
//! - [`Checker`]: active health checks, for the whole program.
//!
//! Nothing here has a clock or a socket. The worker hands in packets and the time, sends what it is
//! told to, and calls [`Forwarder::on_tick`] every few milliseconds.
//!
//! # Limit, queue, pressure
//! How many queries an upstream may have without an answer is learned from its latency and losses,
//! below `max-outstanding`. While all of a pool's upstreams are at their limits, queries wait, and those
//! with the fewest points are sent first; what waits in vain is shed. [`Forwarder::pressure`] says how
//! close a pool is to that, 0 to 1.
//!
//! # Health
//! Two kinds of evidence are kept apart. *Active* checks alone take an upstream down and bring it
//! up. *Passive* signs from live traffic (an ICMP refusal; a run of unanswered queries with no
//! other sign of life from the upstream) make it *suspect* for one to eight seconds: others are
//! preferred while there are any, and it is used as before when there are none. So an attack made
//! of queries that the servers do not answer, or answer badly, cannot take a server out of service.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod balance;
pub mod config;
mod forwarder;
mod health;
mod ids;
mod in_flight;
mod limit;
mod policy;
mod pressure;
mod queue;
mod upstream;
mod wheel;

pub use forwarder::{
    Admission, Arrival, Client, Delivery, Forwarder, MAX_CAPACITY, Released, SocketChanges,
    SocketRef, Step, StrayReason, UpstreamIndex,
};
pub use health::{Checker, Probe, Transition};
pub use policy::{
    ConfigError, HealthPolicy, MAX_QUEUE, MAX_RETRIES, MAX_UPSTREAMS, Member, Policy, Pool,
};
pub use pressure::PoolSnapshot;
pub use upstream::{LastCheck, ProbeResult, State, Upstream, UpstreamSnapshot};
