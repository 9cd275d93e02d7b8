//! Which classes are served.

use dnscrub_wire::qclass;

use crate::filter::{FilterReason, Refusal, Verdict};

/// The classes that are served; by default IN and CH (`version.bind` and its like), others refused.
#[derive(Clone, Debug)]
pub struct ClassPolicy {
    served: Box<[u16]>,
    others: Refusal,
}

impl Default for ClassPolicy {
    fn default() -> Self {
        Self {
            served: Box::new([qclass::IN, qclass::CH]),
            others: Refusal::Refuse,
        }
    }
}

impl ClassPolicy {
    /// Serves these classes; the others get REFUSED, or silence with `drop_others`.
    #[must_use]
    pub fn new(served: impl IntoIterator<Item = u16>, drop_others: bool) -> Self {
        Self {
            served: served.into_iter().collect(),
            others: if drop_others {
                Refusal::Drop
            } else {
                Refusal::Refuse
            },
        }
    }

    #[inline]
    pub(crate) fn verdict(&self, qclass: u16) -> Verdict {
        if self.served.contains(&qclass) {
            Verdict::Admit
        } else {
            self.others.verdict(FilterReason::ClassNotServed)
        }
    }
}

#[cfg(test)]
mod tests {
    use dnscrub_wire::Rcode;

    use super::*;

    #[test]
    fn serves_in_and_ch_by_default() {
        let policy = ClassPolicy::default();
        assert_eq!(policy.verdict(qclass::IN), Verdict::Admit);
        assert_eq!(policy.verdict(qclass::CH), Verdict::Admit);
        for class in [0, 2, 4, qclass::NONE, qclass::ANY, 65_535] {
            assert_eq!(
                policy.verdict(class),
                Verdict::Refuse(FilterReason::ClassNotServed, Rcode::REFUSED),
                "{class}"
            );
        }
    }

    #[test]
    fn others_can_get_silence() {
        let policy = ClassPolicy::new([qclass::IN], true);
        assert_eq!(
            policy.verdict(qclass::CH),
            Verdict::Drop(FilterReason::ClassNotServed)
        );
    }
}
