//! What became of all queries.

use dnscrub::counters::{QueryCounters, WorkerCounters};
use dnscrub::outcome::{Outcome, Reason};
use dnscrub_scoring::Transport;

/// The outcomes of queries, summed over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Queries that came in.
    pub received: u64,
    /// An upstream's answer went back.
    pub forwarded: u64,
    /// The proxy answered by itself.
    pub answered: u64,
    /// Silence on purpose.
    pub dropped: u64,
    /// No upstream answered, and no answer was made.
    pub expired: u64,
}

impl Books {
    /// Of one transport, over these workers.
    pub fn of<'a>(
        workers: impl IntoIterator<Item = &'a WorkerCounters>,
        transport: Transport,
    ) -> Self {
        let mut books = Self::default();
        for worker in workers {
            books.enter(worker.queries(transport));
        }
        books
    }

    fn enter(&mut self, queries: &QueryCounters) {
        self.received += queries.received();
        for (outcome, count) in queries.outcomes() {
            *match outcome {
                Outcome::Forwarded => &mut self.forwarded,
                Outcome::Answered(..) => &mut self.answered,
                Outcome::Dropped(_) => &mut self.dropped,
                Outcome::Expired => &mut self.expired,
            } += count;
        }
    }

    /// Queries whose outcome is known.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.forwarded + self.answered + self.dropped + self.expired
    }

    /// Queries that no outcome was counted for yet; negative where one was counted twice.
    #[must_use]
    pub const fn open(&self) -> i64 {
        self.received as i64 - self.settled() as i64
    }
}

/// Queries of a transport that ended for this reason, whichever way.
#[must_use]
pub(crate) fn count_of(worker: &WorkerCounters, transport: Transport, reason: Reason) -> u64 {
    let outcomes = worker.queries(transport).outcomes();
    outcomes
        .filter(|&(outcome, _)| match outcome {
            Outcome::Dropped(found) | Outcome::Answered(_, found) => found == reason,
            Outcome::Forwarded | Outcome::Expired => false,
        })
        .map(|(_, count)| count)
        .sum()
}
