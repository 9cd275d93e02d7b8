//! What is known about a query beside its octets.

use std::net::IpAddr;

use serde::Serialize;

/// How a query came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// UDP: the source address may be forged.
    Udp,
    /// TCP: the source completed a handshake, so its address is real.
    Tcp,
}

/// Where a query came from.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The client's address. IPv4-mapped IPv6 addresses are judged as IPv4.
    pub source: IpAddr,
    /// How it came in.
    pub transport: Transport,
    /// The listener, as an index into [`crate::Names::listeners`].
    pub listener: u16,
    /// The IP TTL or hop limit it arrived with, where the system tells.
    pub hop_ttl: Option<u8>,
    /// The query shows that its sender receives what is sent to its address, by a valid cookie.
    pub proven: bool,
    /// Octets of the query's message.
    pub len: u16,
}
