//! What is measured each second, of the whole and of each zone.

use serde::{Deserialize, Serialize};

/// A measure. Each is compared with what it usually is at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Measure {
    /// Queries a second.
    Queries,
    /// NXDOMAIN of all answers, the proxy's own among them.
    NxdomainShare,
    /// SERVFAIL of all answers.
    ServfailShare,
    /// Distinct sources a second.
    Sources,
    /// Queries a second from sources never seen before.
    NewSources,
    /// Queries a second for names never seen before.
    NewNames,
    /// How far the mix of query types is from the usual: 0 the same, 1 nothing in common.
    QtypeMix,
    /// Entropy of the names' first labels, bits a character.
    NameEntropy,
    /// Octets out to octets in.
    Amplification,
    /// TCP connections opened a second.
    TcpConnections,
    /// Malformed packets of all.
    MalformedShare,
    /// Median latency of the upstreams, in seconds.
    Latency,
    /// Forwarded queries that no upstream answered, of all.
    Loss,
}

impl Measure {
    /// Every measure.
    pub const ALL: [Self; 13] = [
        Self::Queries,
        Self::NxdomainShare,
        Self::ServfailShare,
        Self::Sources,
        Self::NewSources,
        Self::NewNames,
        Self::QtypeMix,
        Self::NameEntropy,
        Self::Amplification,
        Self::TcpConnections,
        Self::MalformedShare,
        Self::Latency,
        Self::Loss,
    ];

    /// The label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::NxdomainShare => "nxdomain-share",
            Self::ServfailShare => "servfail-share",
            Self::Sources => "sources",
            Self::NewSources => "new-sources",
            Self::NewNames => "new-names",
            Self::QtypeMix => "qtype-mix",
            Self::NameEntropy => "name-entropy",
            Self::Amplification => "amplification",
            Self::TcpConnections => "tcp-connections",
            Self::MalformedShare => "malformed-share",
            Self::Latency => "latency",
            Self::Loss => "loss",
        }
    }
}
