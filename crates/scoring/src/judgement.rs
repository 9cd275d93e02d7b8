//! What judging a query comes to.

use std::time::Duration;

use serde::Serialize;

use crate::config::{Act, BandAction, Over};

/// What to do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Forward it.
    Pass,
    /// Say nothing.
    Drop,
    /// Answer REFUSED.
    Refuse,
    /// Answer NXDOMAIN.
    NxDomain,
    /// Answer empty with TC=1. Never the outcome of a query over TCP.
    Truncate,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 5] = [
        Self::Pass,
        Self::Drop,
        Self::Refuse,
        Self::NxDomain,
        Self::Truncate,
    ];

    /// The metric label, log field and word in `explain`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Refuse => "refuse",
            Self::NxDomain => "nxdomain",
            Self::Truncate => "truncate",
        }
    }
}

impl From<BandAction> for Action {
    fn from(action: BandAction) -> Self {
        match action {
            BandAction::Truncate => Self::Truncate,
            BandAction::Refuse => Self::Refuse,
            BandAction::Nxdomain => Self::NxDomain,
            BandAction::Drop => Self::Drop,
        }
    }
}

impl From<Over> for Action {
    fn from(over: Over) -> Self {
        match over {
            Over::Drop => Self::Drop,
            Over::Truncate => Self::Truncate,
            Over::Refuse => Self::Refuse,
        }
    }
}

impl From<Act> for Action {
    fn from(act: Act) -> Self {
        match act {
            Act::Drop => Self::Drop,
            Act::Refuse => Self::Refuse,
            Act::Nxdomain => Self::NxDomain,
            Act::Truncate => Self::Truncate,
            Act::Allow => Self::Pass,
        }
    }
}

/// What decided. Numbers are positions in the configuration's lists, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing did: the query passes.
    None,
    /// A rule's action.
    Rule(u16),
    /// A band that the points reached.
    Band(u8),
    /// A band, for a name that its zone does not have.
    Missing,
    /// A rule's rate limit.
    RateLimit(u16),
    /// A rule that lets pass.
    Allow(u16),
    /// The defence level, at which such sources prove their address first.
    Level,
}

impl Cause {
    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rule(_) => "rule",
            Self::Band(_) => "band",
            Self::Missing => "missing",
            Self::RateLimit(_) => "rate-limit",
            Self::Allow(_) => "allow",
            Self::Level => "level",
        }
    }

    /// The rule that decided, if one did.
    #[must_use]
    pub const fn rule(self) -> Option<u16> {
        match self {
            Self::Rule(rule) | Self::RateLimit(rule) | Self::Allow(rule) => Some(rule),
            Self::None | Self::Band(_) | Self::Missing | Self::Level => None,
        }
    }
}

/// The source is to be blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// For how long.
    #[serde(with = "seconds")]
    pub lifetime: Duration,
    /// The rule that asks for it.
    pub rule: u16,
}

mod seconds {
    pub(super) fn serialize<S: serde::Serializer>(
        lifetime: &std::time::Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(lifetime.as_secs_f64())
    }
}

/// What judging a query comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// What to do.
    pub action: Action,
    /// What decided it.
    pub cause: Cause,
    /// Points of the signals and of the rules gone through; the order in which a queue serves,
    /// lowest first. A sum below zero is 0.
    pub points: u16,
    /// The pool to forward to, as an index into [`crate::Names::pools`]; none for the default.
    pub pool: Option<u16>,
    /// The query itself proves its source's address.
    pub proven: bool,
    /// The source is to be blocked.
    pub block_source: Option<Block>,
    /// What would have happened if nothing were in observe mode, where that differs.
    pub would: Option<(Action, Cause)>,
}
