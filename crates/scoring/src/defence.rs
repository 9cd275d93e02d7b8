//! The defence level: how much is known to be wrong.

use serde::{Deserialize, Serialize};

/// How much is known to be wrong, for a zone or for the whole.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Level {
    /// Nothing: no query is shed for what signals say.
    #[default]
    Calm,
    /// Something is unusual, or was a moment ago: pressure decides.
    Alert,
    /// An attack is on: certain evidence is enforced even while there is room.
    Attack,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Alert, Self::Attack];

    /// The metric label and word in listings.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Alert => "alert",
            Self::Attack => "attack",
        }
    }
}
