//! What is done about incidents, as the program uses it.

use std::time::Duration;

use dnscrub_detection::Kind;
use dnscrub_scoring::Level;

/// What is done about incidents.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The level that an attack raises its zones to; nothing for none.
    pub raise_to: Option<Level>,
    /// How sure its kind must be, 0 to 1.
    pub raise_from: f32,
    /// Blocks of sources.
    pub blocks: BlockSettings,
    /// How long incidents are kept that are over.
    pub keep_for: Duration,
    /// How many incidents are kept.
    pub keep_at_most: usize,
}

/// Blocks of sources because of an incident.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSettings {
    /// Whether it is considered at all.
    pub on: bool,
    /// Whether it is only said whom it would be.
    pub observe: bool,
    /// For which kinds.
    pub kinds: Vec<Kind>,
    /// For how long.
    pub lifetime: Duration,
    /// How many entries at a time.
    pub at_most: usize,
    /// Queries a second below which nobody is blocked,
    pub least_rate: f32,
    /// and times the busiest source in calm times.
    pub factor: f32,
}
