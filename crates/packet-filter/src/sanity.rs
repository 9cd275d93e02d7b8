//! What a packet gets that is not a well-formed query.

use dnscrub_wire::Malformed;

/// The answer to a malformed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedAnswer {
    /// Silence.
    Drop,
    /// A bare header with rcode FORMERR.
    FormatError,
}

/// What malformed packets get. A response is never answered, or two servers could be made to talk
/// to each other for ever; nor is a packet without a whole header, which leaves nothing to answer.
/// Ambiguous EDNS always gets FORMERR (RFC 6891 section 6.1.1). Everything else gets silence by
/// default, since most of it is forged or noise, or FORMERR as told.
#[derive(Clone, Copy, Debug, Default)]
pub struct SanityPolicy {
    answer_format_error: bool,
}

impl SanityPolicy {
    /// With `answer_format_error`, malformed packets with a whole header get FORMERR.
    #[must_use]
    pub const fn new(answer_format_error: bool) -> Self {
        Self {
            answer_format_error,
        }
    }

    /// What this kind of malformed packet gets.
    #[must_use]
    pub const fn answer(self, malformed: Malformed) -> MalformedAnswer {
        match malformed {
            Malformed::ShortHeader | Malformed::Response => MalformedAnswer::Drop,
            _ if malformed.is_ambiguous_edns() || self.answer_format_error => {
                MalformedAnswer::FormatError
            }
            _ => MalformedAnswer::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_default_but_for_ambiguous_edns() {
        for malformed in Malformed::ALL {
            let expected = if malformed.is_ambiguous_edns() {
                MalformedAnswer::FormatError
            } else {
                MalformedAnswer::Drop
            };
            assert_eq!(
                SanityPolicy::default().answer(*malformed),
                expected,
                "{malformed:?}"
            );
        }
    }

    #[test]
    fn a_response_is_never_answered() {
        for malformed in Malformed::ALL {
            let expected = match malformed {
                Malformed::ShortHeader | Malformed::Response => MalformedAnswer::Drop,
                _ => MalformedAnswer::FormatError,
            };
            assert_eq!(
                SanityPolicy::new(true).answer(*malformed),
                expected,
                "{malformed:?}"
            );
        }
    }
}
