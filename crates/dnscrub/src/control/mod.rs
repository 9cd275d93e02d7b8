//! Speaking to the running program: a JSON API over a Unix socket and, with a token, over HTTP.

pub mod api;
pub mod client;
pub mod server;
pub(crate) mod socket;
#[cfg(test)]
pub(crate) mod testing;
