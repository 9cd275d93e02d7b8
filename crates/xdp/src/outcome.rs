//! What becomes of a packet in the kernel.

/// The one outcome of a packet. The program's `enum outcome`, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// It is no whole UDP packet to one of the services: another protocol or port, a fragment, an IPv6 packet with
    /// extension headers, a packet that is cut.
    NotOurs,
    /// It has QR=1, or no whole DNS header: user space counts these.
    Response,
    /// No limit is switched on.
    Unlimited,
    /// Its source is exempt.
    Exempt,
    /// It is within all limits.
    Within,
    /// The kernel's table took no entry for its source.
    NoRoom,
    /// Its source is over the limit of the longest prefix length.
    OverFirst,
    /// A wider prefix is over its limit.
    OverWider,
}

/// Whether a packet goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does.
    Passed,
    /// It does not.
    Dropped,
}

impl Outcome {
    /// Every outcome, in the order of its discriminant.
    pub const ALL: [Self; 8] = [
        Self::NotOurs,
        Self::Response,
        Self::Unlimited,
        Self::Exempt,
        Self::Within,
        Self::NoRoom,
        Self::OverFirst,
        Self::OverWider,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::Response => "response",
            Self::Unlimited => "unlimited",
            Self::Exempt => "exempt",
            Self::Within => "within_limit",
            Self::NoRoom => "no_room",
            Self::OverFirst => "source_limit",
            Self::OverWider => "network_limit",
        }
    }

    /// What it means, in a sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NotOurs => {
                "Not a whole UDP packet to one of the listeners: another protocol or port, a fragment, an IPv6 packet with extension headers, or cut."
            }
            Self::Response => {
                "To a listener, but a response (QR=1) or without a whole DNS header; dnscrub itself drops and counts it."
            }
            Self::Unlimited => "A query to a listener while no limit is switched on.",
            Self::Exempt => "Its source is exempt from the limits.",
            Self::Within => "Within all limits.",
            Self::NoRoom => "The kernel's table took no entry for its source.",
            Self::OverFirst => "Its source is over the limit of the longest prefix length.",
            Self::OverWider => "The network around its source is over its limit.",
        }
    }

    /// Whether the packet goes on.
    #[must_use]
    pub const fn fate(self) -> Fate {
        match self {
            Self::NotOurs
            | Self::Response
            | Self::Unlimited
            | Self::Exempt
            | Self::Within
            | Self::NoRoom => Fate::Passed,
            Self::OverFirst | Self::OverWider => Fate::Dropped,
        }
    }
}

impl Fate {
    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Dropped => "dropped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_has_the_same_outcomes_and_drops_the_same() {
        let source = include_str!("../bpf/dnscrub.bpf.c");
        let (_, rest) = source.split_once("enum outcome {\n").unwrap();
        let (names, _) = rest.split_once("\tOUTCOMES,\n").unwrap();
        let names: Vec<String> = names
            .lines()
            .map(|line| {
                line.trim()
                    .split(',')
                    .next()
                    .unwrap()
                    .replace('_', "")
                    .to_lowercase()
            })
            .collect();
        let ours = Outcome::ALL.map(|it| format!("{it:?}").to_lowercase());
        assert_eq!(names, ours);
        for (number, outcome) in (0..).zip(Outcome::ALL) {
            assert_eq!(outcome as u8, number);
        }
        let (_, rest) = source.split_once("switch (outcome) {\n").unwrap();
        let (dropped, _) = rest.split_once("return XDP_DROP").unwrap();
        let dropped: Vec<String> = dropped
            .lines()
            .filter_map(|line| line.trim().strip_prefix("case ")?.strip_suffix(':'))
            .map(|it| it.replace('_', "").to_lowercase())
            .collect();
        let ours = Outcome::ALL
            .into_iter()
            .filter(|it| it.fate() == Fate::Dropped);
        let ours: Vec<_> = ours.map(|it| format!("{it:?}").to_lowercase()).collect();
        assert_eq!(dropped, ours);
    }
}
