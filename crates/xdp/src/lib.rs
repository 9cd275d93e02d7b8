//! Limits queries in the kernel, before a socket sees them: one XDP program, its object, its loader.
//!
//! The program (`bpf/dnscrub.bpf.c`) looks at every packet that comes in on an interface. All that is not a whole
//! UDP query to one of the services passes. While a limit is switched on, queries are counted for the prefixes of
//! their source, one for each configured length, and dropped while one of them is over its limit. Every packet
//! has exactly one [`Outcome`], which is counted.
//!
//! [`Program`] loads it and keeps its maps as user space wants them ([`Wanted`]); [`Program::attach`] puts it to work on an
//! interface for as long as the [`Attached`] lives. Nothing is pinned, so the kernel takes it away with the process,
//! however that ends.
//!
//! Linux 5.12 or later, `CAP_BPF`, `CAP_PERFMON` and `CAP_NET_ADMIN`. The object is committed: a build needs no compiler for it.
//! `crates/xdp/compile` makes it.
//!
//! # Bounds
//!
//! | map | bound | when it is full |
//! |---|---|---|
//! | buckets of prefixes | [`MOST_BUCKETS`] | the one that was idle for longest is forgotten and begins afresh; a packet for which there is no room passes |
//! | exempt prefixes, of each family | [`MOST_EXEMPT`] | refused: the limit stays off |
//! | prefixes with a limit of their own | [`MOST_ALLOWANCES`] | refused: the limit stays off |
//! | services | [`MOST_SERVICES`] | refused |

mod attach;
mod layout;
mod limit;
mod outcome;
mod program;

pub use attach::{AttachError, Attached, Mode};
pub use limit::{Limit, MOST_STEPS, Pace, prefix_of};
pub use outcome::{Fate, Outcome};
pub use program::{
    ApplyError, Clock, LoadError, MOST_ALLOWANCES, MOST_BUCKETS, MOST_EXEMPT, MOST_SERVICES,
    Program, TestRun, Wanted,
};
