//! Counters of one worker: written by it alone, read and summed at scrape.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dnscrub_scoring::response_limit::Over;
use dnscrub_scoring::{Action, Transport};

use crate::outcome::{Answer, LimitResult, Outcome, Reason, ResponseOutcome};

/// A counter with a single writer: a relaxed load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets the counter, for values that the kernel counts.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the latency histogram's buckets, in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 12] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 200_000, 500_000, 2_000_000,
];

/// A fixed-bucket histogram of latencies.
#[derive(Debug, Default)]
pub struct LatencyHistogram {
    buckets: [Counter; LATENCY_BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl LatencyHistogram {
    /// Records one latency.
    pub fn record(&self, latency: std::time::Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let index = LATENCY_BOUNDS_US
            .iter()
            .position(|&bound| us <= bound)
            .unwrap_or(LATENCY_BOUNDS_US.len());
        if let Some(bucket) = self.buckets.get(index) {
            bucket.add(1);
        }
        self.sum_us.add(us);
    }

    /// Counts per bucket (the last is unbounded) and the sum in microseconds.
    #[must_use]
    pub fn read(&self) -> ([u64; LATENCY_BOUNDS_US.len() + 1], u64) {
        (
            std::array::from_fn(|i| self.buckets.get(i).map_or(0, Counter::get)),
            self.sum_us.get(),
        )
    }
}

/// The outcomes of one transport's queries.
#[derive(Debug)]
pub struct QueryCounters {
    received: Counter,
    forwarded: Counter,
    expired: Counter,
    dropped: [Counter; Reason::COUNT],
    answered: [[Counter; Reason::COUNT]; Answer::ALL.len()],
}

impl Default for QueryCounters {
    fn default() -> Self {
        Self {
            received: Counter::default(),
            forwarded: Counter::default(),
            expired: Counter::default(),
            dropped: std::array::from_fn(|_| Counter::default()),
            answered: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
        }
    }
}

impl QueryCounters {
    /// Counts a query that came in.
    pub fn receive(&self) {
        self.received.add(1);
    }

    /// Counts a query's one outcome.
    pub fn settle(&self, outcome: Outcome) {
        match outcome {
            Outcome::Forwarded => self.forwarded.add(1),
            Outcome::Expired => self.expired.add(1),
            Outcome::Dropped(reason) => {
                if let Some(counter) = self.dropped.get(reason.index()) {
                    counter.add(1);
                }
            }
            Outcome::Answered(answer, reason) => {
                let row = self.answered.get(answer as usize);
                if let Some(counter) = row.and_then(|row| row.get(reason.index())) {
                    counter.add(1);
                }
            }
        }
    }

    /// Queries that came in.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Every outcome with its count, zero or not.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        let fixed = [
            (Outcome::Forwarded, self.forwarded.get()),
            (Outcome::Expired, self.expired.get()),
        ];
        let dropped = Reason::all()
            .zip(&self.dropped)
            .map(|(reason, c)| (Outcome::Dropped(reason), c.get()));
        let answered = Answer::ALL
            .iter()
            .zip(&self.answered)
            .flat_map(|(&answer, row)| {
                Reason::all()
                    .zip(row)
                    .map(move |(reason, c)| (Outcome::Answered(answer, reason), c.get()))
            });
        fixed.into_iter().chain(dropped).chain(answered)
    }
}

/// All counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    udp: QueryCounters,
    tcp: QueryCounters,
    responses: [Counter; ResponseOutcome::ALL.len()],
    would: [Counter; Action::ALL.len()],
    response_limited: [[Counter; LimitResult::ALL.len()]; Over::ALL.len()],
    /// Latency of upstream answers, from the first forward to the answer.
    pub upstream_latency: LatencyHistogram,
    /// Queries that wait for room at an upstream now; over UDP only.
    pub queued: Counter,
    /// How long those waited that were sent then.
    pub queue_wait: LatencyHistogram,
    /// Pressure of the worker itself now, in thousandths.
    pub own_pressure: Counter,
    /// Queries in flight over UDP now.
    pub in_flight_udp: Counter,
    /// Queries in flight over TCP now.
    pub in_flight_tcp: Counter,
    /// Queries sent again to an upstream.
    pub retries: Counter,
    /// Datagrams the kernel did not take from us.
    pub send_failures: Counter,
    /// Datagrams the kernel dropped because a listener's receive queue was full.
    pub receive_queue_drops: Counter,
    /// Blocks asked for by rules that could not be handed to the blocklist in time.
    pub lost_blocks: Counter,
    /// Settled queries that found no room in the ring of dnstap.
    pub dnstap_lost: Counter,
    /// TCP connections accepted.
    pub tcp_accepted: Counter,
    /// TCP connections turned away, by limit.
    pub tcp_turned_away: Counter,
    /// TCP connections open now.
    pub tcp_open: Counter,
    /// TCP connections cut off because the client read or wrote too slowly.
    pub tcp_too_slow: Counter,
    /// Zone transfers passed through.
    pub transfers: Counter,
}

impl WorkerCounters {
    /// The query counters of a transport.
    #[must_use]
    pub const fn queries(&self, transport: Transport) -> &QueryCounters {
        match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
        }
    }

    /// Counts a packet from an upstream.
    pub fn response(&self, outcome: ResponseOutcome) {
        if let Some(counter) = self.responses.get(outcome as usize) {
            counter.add(1);
        }
    }

    /// Packets from upstreams by outcome.
    pub fn responses(&self) -> impl Iterator<Item = (ResponseOutcome, u64)> + '_ {
        ResponseOutcome::ALL
            .iter()
            .zip(&self.responses)
            .map(|(&outcome, c)| (outcome, c.get()))
    }

    /// Counts an answer over a response limit.
    pub fn response_limited(&self, over: Over, result: LimitResult) {
        let row = self.response_limited.get(over as usize);
        if let Some(counter) = row.and_then(|row| row.get(result as usize)) {
            counter.add(1);
        }
    }

    /// Answers over a response limit, by limit and by what was done.
    pub fn responses_limited(&self) -> impl Iterator<Item = (Over, LimitResult, u64)> + '_ {
        Over::ALL
            .iter()
            .zip(&self.response_limited)
            .flat_map(|(&over, row)| {
                LimitResult::ALL
                    .iter()
                    .zip(row)
                    .map(move |(&result, c)| (over, result, c.get()))
            })
    }

    /// Counts what observe mode held back.
    pub fn held_back(&self, action: Action) {
        if let Some(counter) = self.would.get(action as usize) {
            counter.add(1);
        }
    }

    /// What observe mode held back, by action.
    pub fn would(&self) -> impl Iterator<Item = (Action, u64)> + '_ {
        Action::ALL
            .iter()
            .zip(&self.would)
            .map(|(&action, c)| (action, c.get()))
    }
}
