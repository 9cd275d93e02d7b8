//! The program dnscrub: configuration, workers, control and metrics around the cores.

pub mod blocklist;
pub mod cli;
pub mod config;
pub mod control;
pub mod counters;
pub mod data_path;
pub mod defence;
pub mod demo;
pub mod dnstap;
pub mod explain;
pub mod incidents;
pub mod learned;
pub mod live;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod orders;
pub mod outcome;
pub mod overload;
pub mod pace;
pub mod postmortem;
pub mod prober;
pub mod program;
pub mod replay;
mod report;
pub mod response;
mod response_limiter;
pub mod routes;
pub mod shared;
pub mod supervisor;
pub mod tcp;
pub mod worker;
pub mod zone_loader;

mod file_version;
mod state_folder;
mod unix_time;
