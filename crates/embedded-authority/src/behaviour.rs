//! What a server does wrong on purpose. Everything can be changed while it runs.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dnscrub_wire::Rcode;

/// Faults of a running server, shared by its threads. Without any set, every query is answered
/// at once.
#[derive(Debug)]
pub struct Behaviour {
    /// Times of the capacity's queue are counted from here.
    start: Instant,
    hang: AtomicBool,
    truncate: AtomicBool,
    delay_us: AtomicU64,
    jitter_us: AtomicU64,
    loss_per_million: AtomicU32,
    /// Above any rcode: none.
    rcode: AtomicU32,
    /// Queries per second, 0 for no limit.
    capacity: AtomicU32,
    max_wait_us: AtomicU64,
    /// When the server that the capacity models is free again, in nanoseconds from `start`.
    free_at_ns: AtomicU64,
}

/// What becomes of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered, at once or at that instant.
    Answer(Option<Instant>),
    /// It is never answered.
    Swallow(Fault),
}

/// Why a query was never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server hangs.
    Hang,
    /// Random loss.
    Loss,
    /// More queries came than the capacity allows, and the queue was full.
    Overload,
}

const NO_RCODE: u32 = u32::MAX;

impl Behaviour {
    /// A server without faults; `now` is the origin of its times.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            hang: AtomicBool::new(false),
            truncate: AtomicBool::new(false),
            delay_us: AtomicU64::new(0),
            jitter_us: AtomicU64::new(0),
            loss_per_million: AtomicU32::new(0),
            rcode: AtomicU32::new(NO_RCODE),
            capacity: AtomicU32::new(0),
            max_wait_us: AtomicU64::new(0),
            free_at_ns: AtomicU64::new(0),
        }
    }

    /// Swallows every query while on.
    pub fn set_hang(&self, on: bool) {
        self.hang.store(on, Relaxed);
    }

    /// Answers every UDP query with TC=1 and no records while on.
    pub fn set_truncate(&self, on: bool) {
        self.truncate.store(on, Relaxed);
    }

    /// Delays every answer by `delay` and up to `jitter` more.
    pub fn set_delay(&self, delay: Duration, jitter: Duration) {
        self.delay_us.store(micros(delay), Relaxed);
        self.jitter_us.store(micros(jitter), Relaxed);
    }

    /// Swallows this share of the queries, 0.0 to 1.0.
    pub fn set_loss(&self, probability: f64) {
        self.loss_per_million
            .store((probability.clamp(0.0, 1.0) * 1e6) as u32, Relaxed);
    }

    /// Answers every query with this rcode and no records; `None` answers from the zones again.
    pub fn set_rcode(&self, rcode: Option<Rcode>) {
        self.rcode
            .store(rcode.map_or(NO_RCODE, |rcode| u32::from(rcode.0)), Relaxed);
    }

    /// Serves at most `queries_per_second`, one after the other; a query that would wait longer
    /// than `max_wait` is swallowed, as a real server's full receive buffer does. 0 lifts the
    /// limit.
    pub fn set_capacity(&self, queries_per_second: u32, max_wait: Duration) {
        self.max_wait_us.store(micros(max_wait), Relaxed);
        self.capacity.store(queries_per_second, Relaxed);
    }

    /// Whether UDP answers are truncated.
    #[must_use]
    pub fn truncates(&self) -> bool {
        self.truncate.load(Relaxed)
    }

    /// The rcode every query is answered with.
    #[must_use]
    pub fn rcode(&self) -> Option<Rcode> {
        u16::try_from(self.rcode.load(Relaxed)).ok().map(Rcode)
    }

    /// Decides about one query that came at `now`; `random` is uniform over all 64 bits.
    #[must_use]
    pub fn fate(&self, now: Instant, random: u64) -> Fate {
        if self.hang.load(Relaxed) {
            return Fate::Swallow(Fault::Hang);
        }
        let loss = self.loss_per_million.load(Relaxed);
        if loss > 0 && random % 1_000_000 < u64::from(loss) {
            return Fate::Swallow(Fault::Loss);
        }
        let mut due = None;
        let capacity = self.capacity.load(Relaxed);
        if capacity > 0 {
            match self.serve(now, capacity) {
                Some(served) => due = Some(served),
                None => return Fate::Swallow(Fault::Overload),
            }
        }
        let jitter = self.jitter_us.load(Relaxed);
        let delay = self.delay_us.load(Relaxed)
            + if jitter > 0 {
                (random >> 20) % jitter
            } else {
                0
            };
        if delay > 0 {
            due = Some(due.unwrap_or(now) + Duration::from_micros(delay));
        }
        Fate::Answer(due)
    }

    /// When the one server behind a queue is done with this query, unless the queue is too long.
    fn serve(&self, now: Instant, capacity: u32) -> Option<Instant> {
        let now_ns =
            u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let max_wait_ns = self.max_wait_us.load(Relaxed).saturating_mul(1000);
        let service_ns = 1_000_000_000 / u64::from(capacity);
        let advance = |free_at: u64| {
            let begin = free_at.max(now_ns);
            (begin - now_ns <= max_wait_ns).then(|| begin.saturating_add(service_ns))
        };
        let before = self
            .free_at_ns
            .fetch_update(Relaxed, Relaxed, advance)
            .ok()?;
        advance(before).map(|done| self.start + Duration::from_nanos(done))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_serves_its_rate_and_swallows_the_rest() {
        let start = Instant::now();
        let behaviour = Behaviour::new(start);
        behaviour.set_capacity(1000, Duration::from_millis(10));
        let mut answered = 0;
        let mut swallowed = 0;
        // ten times the capacity for a second
        for query in 0..10_000_u32 {
            let now = start + Duration::from_micros(100) * query;
            match behaviour.fate(now, 0) {
                Fate::Answer(Some(due)) => {
                    assert!(due > now && due <= now + Duration::from_millis(11));
                    answered += 1;
                }
                Fate::Swallow(Fault::Overload) => swallowed += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!((1000..=1012).contains(&answered), "{answered}");
        assert_eq!(answered + swallowed, 10_000);
    }

    #[test]
    fn faults_can_be_set_and_lifted() {
        let now = Instant::now();
        let behaviour = Behaviour::new(now);
        assert_eq!(behaviour.fate(now, 7), Fate::Answer(None));
        behaviour.set_hang(true);
        assert_eq!(behaviour.fate(now, 7), Fate::Swallow(Fault::Hang));
        behaviour.set_hang(false);
        behaviour.set_loss(0.5);
        assert_eq!(behaviour.fate(now, 499_999), Fate::Swallow(Fault::Loss));
        assert_eq!(behaviour.fate(now, 500_000), Fate::Answer(None));
        behaviour.set_loss(0.0);
        behaviour.set_delay(Duration::from_millis(5), Duration::from_millis(5));
        let Fate::Answer(Some(due)) = behaviour.fate(now, u64::MAX) else {
            panic!("no delay")
        };
        assert!(due >= now + Duration::from_millis(5) && due < now + Duration::from_millis(10));
        behaviour.set_rcode(Some(Rcode::SERVFAIL));
        assert_eq!(behaviour.rcode(), Some(Rcode::SERVFAIL));
        behaviour.set_rcode(None);
        assert_eq!(behaviour.rcode(), None);
    }
}
