//! The program in the kernel, as it is configured.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use dnscrub_scoring::Level;
use dnscrub_xdp::{Limit, Mode};
use ipnet::IpNet;

/// What it is attached to, and what it limits at which level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The interfaces; none if it is not configured.
    pub interfaces: Vec<String>,
    /// The modes, in the order in which they are tried.
    pub modes: Vec<Mode>,
    /// The limit at level `alert`.
    pub alert: Option<LevelLimit>,
    /// The limit at level `attack`.
    pub attack: Option<LevelLimit>,
    /// Sources that somebody vouches for. Empty where there is no limit.
    pub exempt: Arc<BTreeSet<IpNet>>,
    /// Nothing is limited, it is only said what would be.
    pub observe: bool,
}

/// The limit of a level.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelLimit {
    /// The rates.
    pub limit: Limit,
    /// Times as much as usual that is let through in any case.
    pub factor: f64,
    /// The rates in words.
    pub words: String,
}

impl Settings {
    /// What a level limits.
    #[must_use]
    pub const fn at(&self, level: Level) -> Option<&LevelLimit> {
        match level {
            Level::Calm => None,
            Level::Alert => self.alert.as_ref(),
            Level::Attack => self.attack.as_ref(),
        }
    }

    /// The prefix lengths of an address's family with a limit at any level, each once.
    pub(super) fn lengths(&self, address: IpAddr) -> impl Iterator<Item = u8> {
        let steps = |limit: &Option<LevelLimit>| {
            let steps = limit.as_ref().map(|it| it.limit.steps(address));
            let lengths = steps.unwrap_or_default().iter().map(|&(length, _)| length);
            lengths.collect::<Vec<u8>>()
        };
        let (mut lengths, attack) = (steps(&self.alert), steps(&self.attack));
        lengths.extend(attack);
        lengths.sort_unstable();
        lengths.dedup();
        lengths.into_iter()
    }

    /// Whether a level limits anything.
    #[must_use]
    pub const fn has_limits(&self) -> bool {
        self.alert.is_some() || self.attack.is_some()
    }
}
