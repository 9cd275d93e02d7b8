//! What an incident is: the kinds, in words.

use serde::{Deserialize, Serialize};

/// What is going on. The label is the metric's, the alert's, and the playbook's file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Kind {
    /// Names that do not exist, or exist by a wildcard only, below one zone or many: each asked once,
    /// so that no cache keeps them from the servers. Also called water torture.
    RandomSubdomains,
    /// Few sources with their own addresses, or names that exist, far more often than usual.
    DirectFlood,
    /// Questions with large answers, in the names of victims that never asked.
    Reflection,
    /// Questions for existing names from addresses that come once: no source stands out.
    SpoofedCarpet,
    /// Questions in the names of resolvers that are known here.
    SpoofedResolvers,
    /// A flood that comes and goes, to outlast what watches for it.
    Pulse,
    /// Connections or zone transfers that use up what there is of them.
    TcpExhaustion,
    /// Packets that are no well-formed queries.
    MalformedFlood,
    /// The same questions again and again from the same resolvers, because something does not get, or
    /// does not take, its answer.
    QueryLoop,
    /// Many people want the same thing at once. Not an attack.
    FlashCrowd,
    /// The name servers behind do not answer as they should. Not an attack.
    UpstreamFailure,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::RandomSubdomains,
        Self::DirectFlood,
        Self::Reflection,
        Self::SpoofedCarpet,
        Self::SpoofedResolvers,
        Self::Pulse,
        Self::TcpExhaustion,
        Self::MalformedFlood,
        Self::QueryLoop,
        Self::FlashCrowd,
        Self::UpstreamFailure,
    ];

    /// The label of metrics and alerts, and the name of the playbook.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RandomSubdomains => "random-subdomains",
            Self::DirectFlood => "direct-flood",
            Self::Reflection => "reflection",
            Self::SpoofedCarpet => "spoofed-carpet",
            Self::SpoofedResolvers => "spoofed-resolvers",
            Self::Pulse => "pulse",
            Self::TcpExhaustion => "tcp-exhaustion",
            Self::MalformedFlood => "malformed-flood",
            Self::QueryLoop => "query-loop",
            Self::FlashCrowd => "flash-crowd",
            Self::UpstreamFailure => "upstream-failure",
        }
    }

    /// The name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::RandomSubdomains => "random-subdomain flood",
            Self::DirectFlood => "direct flood",
            Self::Reflection => "reflection and amplification",
            Self::SpoofedCarpet => "spoofed carpet",
            Self::SpoofedResolvers => "spoofed resolvers",
            Self::Pulse => "pulsing flood",
            Self::TcpExhaustion => "transfer or TCP exhaustion",
            Self::MalformedFlood => "malformed flood",
            Self::QueryLoop => "query loop",
            Self::FlashCrowd => "flash crowd",
            Self::UpstreamFailure => "upstream failure",
        }
    }

    /// Whether somebody means harm, as far as can be told. A query loop is a mistake, a flash crowd a
    /// success and an upstream failure a fault.
    #[must_use]
    pub const fn is_attack(self) -> bool {
        !matches!(
            self,
            Self::QueryLoop | Self::FlashCrowd | Self::UpstreamFailure
        )
    }
}
