//! The program dnscrub: configuration, workers, control and metrics around the cores.

pub mod config;
