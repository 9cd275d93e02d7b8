//! Speaking to the running program: a JSON API over a Unix socket and, for those who may, over HTTP, where the
//! status page is as well.

mod access;
pub mod api;
pub mod client;
mod page;
pub mod server;
pub(crate) mod socket;
#[cfg(test)]
pub(crate) mod testing;
