//! What a defence level switches on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a level switches on beside enforcing what is certain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LevelResponse {
    /// Who has to prove its address: queries over UDP of such sources, if nothing else decides, get TC=1, so that
    /// a real client comes back over TCP.
    pub challenge: Challenge,
    /// Points count as if the pressure were at least this, 0 to 1, so that thresholds of bands come
    /// down before an upstream is at its limit.
    pub pressure_floor: f32,
}

/// Which sources have to prove their addresses.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Challenge {
    /// None, but for what a band says.
    #[default]
    Off,
    /// Those that were not here before whatever is going on began.
    New,
    /// All that did not prove theirs lately, by TCP or a cookie. Each resolver then comes over TCP once in a
    /// while (`signals.verified`).
    Unverified,
}
