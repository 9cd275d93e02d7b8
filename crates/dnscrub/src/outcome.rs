//! What became of a query: exactly one counted outcome for each.
//!
//! The enums here are the metric labels, the log fields and the `explain` lines. The books balance:
//! received = forwarded + answered + dropped + expired + in flight + queued.

use dnscrub_packet_filter::FilterReason;
use dnscrub_scoring::{Action, Cause};
use dnscrub_wire::{Malformed, Rcode};

/// The one outcome of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An upstream's answer went back to the client.
    Forwarded,
    /// The proxy answered by itself.
    Answered(Answer, Reason),
    /// No answer at all, on purpose.
    Dropped(Reason),
    /// No upstream answered within the client's patience, and none was made.
    Expired,
}

/// Answers the proxy makes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// FORMERR.
    FormErr,
    /// SERVFAIL with an extended error.
    ServFail,
    /// NXDOMAIN.
    NxDomain,
    /// NOTIMP.
    NotImp,
    /// REFUSED.
    Refused,
    /// An empty answer with TC=1: come back over TCP.
    Truncated,
    /// BADCOOKIE: come back with the cookie in it.
    BadCookie,
}

impl Answer {
    /// Every answer, in the order of its discriminant.
    pub const ALL: [Self; 7] = [
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::Truncated,
        Self::BadCookie,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::FormErr => "formerr",
            Self::ServFail => "servfail",
            Self::NxDomain => "nxdomain",
            Self::NotImp => "notimp",
            Self::Refused => "refused",
            Self::Truncated => "truncated",
            Self::BadCookie => "badcookie",
        }
    }

    /// The rcode in the answer's header.
    #[must_use]
    pub const fn rcode(self) -> Rcode {
        match self {
            Self::FormErr => Rcode::FORMERR,
            Self::ServFail => Rcode::SERVFAIL,
            Self::NxDomain => Rcode::NXDOMAIN,
            Self::NotImp => Rcode::NOTIMP,
            Self::Refused => Rcode::REFUSED,
            Self::Truncated => Rcode::NOERROR,
            Self::BadCookie => Rcode::BADCOOKIE,
        }
    }
}

/// Why a query was answered by the proxy or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The packet is not a well-formed query.
    Malformed(Malformed),
    /// The packet filter did not let it in.
    Filter(FilterReason),
    /// A rule said so.
    Rule,
    /// A rule's rate limit was exceeded.
    RateLimit,
    /// The score reached a band.
    Band,
    /// Its zone does not have the name, and the score reached a band.
    NonexistentName,
    /// The datagram was larger than the receive buffer.
    Oversized,
    /// No upstream of the pool is usable.
    NoUpstream,
    /// The table of queries in flight is full.
    TableFull,
    /// All upstreams of the pool were at their limits, and worse queries than this one did not wait.
    QueueFull,
    /// All upstreams of the pool were at their limits for as long as a query may wait.
    QueueTimeout,
    /// No upstream answered within the client's patience.
    Expired,
    /// Too many zone transfers are running.
    TransferLimit,
    /// The client's TCP connection ended before its answer came.
    ConnectionClosed,
    /// A zone transfer was asked for over UDP, which only TCP can carry.
    TransferOverUdp,
    /// The client's network got too many answers of the kind (`response-limit`).
    ResponseLimit,
    /// At the defence level, such sources prove their address first (`response`).
    Level,
}

const OWN: [Reason; 15] = [
    Reason::Rule,
    Reason::RateLimit,
    Reason::Band,
    Reason::NonexistentName,
    Reason::Oversized,
    Reason::NoUpstream,
    Reason::TableFull,
    Reason::QueueFull,
    Reason::QueueTimeout,
    Reason::Expired,
    Reason::TransferLimit,
    Reason::ConnectionClosed,
    Reason::TransferOverUdp,
    Reason::ResponseLimit,
    Reason::Level,
];

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Malformed::ALL.len() + FilterReason::ALL.len() + OWN.len();

    /// Every reason, in the order of [`Self::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        let malformed = Malformed::ALL.iter().copied().map(Self::Malformed);
        let filter = FilterReason::ALL.iter().copied().map(Self::Filter);
        malformed.chain(filter).chain(OWN)
    }

    /// Position in the counter table.
    #[must_use]
    pub const fn index(self) -> usize {
        const FILTER_AT: usize = Malformed::ALL.len();
        const OWN_AT: usize = FILTER_AT + FilterReason::ALL.len();
        match self {
            Self::Malformed(kind) => kind as usize,
            Self::Filter(reason) => FILTER_AT + reason as usize,
            Self::Rule => OWN_AT,
            Self::RateLimit => OWN_AT + 1,
            Self::Band => OWN_AT + 2,
            Self::NonexistentName => OWN_AT + 3,
            Self::Oversized => OWN_AT + 4,
            Self::NoUpstream => OWN_AT + 5,
            Self::TableFull => OWN_AT + 6,
            Self::QueueFull => OWN_AT + 7,
            Self::QueueTimeout => OWN_AT + 8,
            Self::Expired => OWN_AT + 9,
            Self::TransferLimit => OWN_AT + 10,
            Self::ConnectionClosed => OWN_AT + 11,
            Self::TransferOverUdp => OWN_AT + 12,
            Self::ResponseLimit => OWN_AT + 13,
            Self::Level => OWN_AT + 14,
        }
    }

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed(kind) => kind.label(),
            Self::Filter(reason) => reason.label(),
            Self::Rule => "rule",
            Self::RateLimit => "rate_limit",
            Self::Band => "band",
            Self::NonexistentName => "nonexistent_name",
            Self::Oversized => "oversized",
            Self::NoUpstream => "no_upstream",
            Self::TableFull => "table_full",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Expired => "expired",
            Self::TransferLimit => "transfer_limit",
            Self::ConnectionClosed => "connection_closed",
            Self::TransferOverUdp => "transfer_over_udp",
            Self::ResponseLimit => "response_limit",
            Self::Level => "level",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Malformed(kind) => kind.description(),
            Self::Filter(reason) => reason.description(),
            Self::Rule => "A rule said so.",
            Self::RateLimit => "A rule's rate limit was exceeded.",
            Self::Band => "The query's score reached a band.",
            Self::NonexistentName => {
                "Its zone does not have the name, and the query's score reached a band."
            }
            Self::Oversized => "The datagram was larger than the receive buffer.",
            Self::NoUpstream => "No upstream of the pool is usable.",
            Self::TableFull => "The table of queries in flight is full.",
            Self::QueueFull => {
                "The pool was at its limit, and its queue was full of queries with no more points."
            }
            Self::QueueTimeout => {
                "The pool was at its limit for as long as a query waits in its queue."
            }
            Self::Expired => "No upstream answered within the client's patience.",
            Self::TransferLimit => "Too many zone transfers are running.",
            Self::ConnectionClosed => "The client's TCP connection ended before its answer came.",
            Self::TransferOverUdp => {
                "A zone transfer was asked for over UDP, which only TCP can carry."
            }
            Self::ResponseLimit => "The client's network got too many answers of the kind.",
            Self::Level => "At the defence level, such sources prove their address first.",
        }
    }
}

/// The scoring crate's action, as an outcome; nothing where the query passes.
#[must_use]
pub const fn of_action(action: Action, cause: Cause) -> Option<Outcome> {
    let reason = match cause {
        Cause::Rule(_) | Cause::Allow(_) => Reason::Rule,
        Cause::RateLimit(_) => Reason::RateLimit,
        Cause::Band(_) | Cause::None => Reason::Band,
        Cause::Missing => Reason::NonexistentName,
        Cause::Level => Reason::Level,
    };
    match action {
        Action::Pass => None,
        Action::Drop => Some(Outcome::Dropped(reason)),
        Action::Refuse => Some(Outcome::Answered(Answer::Refused, reason)),
        Action::NxDomain => Some(Outcome::Answered(Answer::NxDomain, reason)),
        Action::Truncate => Some(Outcome::Answered(Answer::Truncated, reason)),
    }
}

/// What response rate limiting did with an answer over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LimitResult {
    /// It was not sent.
    Dropped,
    /// TC=1 was sent instead.
    Truncated,
    /// BADCOOKIE was sent instead.
    BadCookie,
    /// It was sent, in observe mode.
    Observed,
}

impl LimitResult {
    /// Every result, in the order of its discriminant.
    pub const ALL: [Self; 4] = [
        Self::Dropped,
        Self::Truncated,
        Self::BadCookie,
        Self::Observed,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Truncated => "truncated",
            Self::BadCookie => "badcookie",
            Self::Observed => "observed",
        }
    }
}

/// What became of a packet from an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ResponseOutcome {
    /// It answered a query in flight. What the client got is for `dnscrub_queries_total` to say.
    Delivered,
    /// The query was answered or given up already.
    Late,
    /// No query with this id was sent on this socket: perhaps forged.
    UnknownId,
    /// The id matched, the question did not.
    WrongQuestion,
    /// It is not a well-formed response.
    Malformed,
}

impl ResponseOutcome {
    /// Every outcome, in the order of its discriminant.
    pub const ALL: [Self; 5] = [
        Self::Delivered,
        Self::Late,
        Self::UnknownId,
        Self::WrongQuestion,
        Self::Malformed,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Late => "late",
            Self::UnknownId => "unknown_id",
            Self::WrongQuestion => "wrong_question",
            Self::Malformed => "malformed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_index_and_label() {
        let mut labels = std::collections::HashSet::new();
        for (position, reason) in Reason::all().enumerate() {
            assert_eq!(reason.index(), position, "{reason:?}");
            assert!(
                labels.insert(reason.label()),
                "{} stands twice",
                reason.label()
            );
            assert!(reason.description().ends_with('.'), "{reason:?}");
        }
        assert_eq!(labels.len(), Reason::COUNT);
    }
}
