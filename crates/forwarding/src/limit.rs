//! How many queries an upstream may have without an answer: learned from its latency and losses.
//!
//! A server that gets more than it can do either lets queries wait, and everything becomes slow, or
//! loses them. Both cost more than they bring. What it can do is learned, by windows of a tenth of a
//! second or two round trips, whichever is longer:
//!
//! - *Growth.* While half of the limit is used and nothing speaks against it, it doubles from window to
//!   window, as long as doubling brings more answers; then, and after the first cut, it grows by its square
//!   root. What is not used does not grow.
//! - *Latency.* The target is twice the shortest latency known plus two milliseconds. Above it the
//!   limit is cut in proportion. The window's latency is its *first decile*: names that are slow for
//!   their own reasons, up to nine tenths of all, do not change it, while a server's queue delays every
//!   query.
//! - *Losses.* Where more than a hundredth is lost, the limit is cut to what the answers that do come need
//!   and half as many losses would, a tenth at the least. An answer that comes after all takes its loss back.
//! - *What gets no better is not our load.* After a cut to three fifths or less, latency or losses that
//!   stay as they were have another cause: a server that became slower, a lossy path, names that are
//!   never answered. The limit is put back; the latency is accepted as the new shortest one, and losses
//!   are left out of account for a while. So neither of them makes the limit collapse.
//! - *Forgetting.* The shortest latency is learned anew every ten seconds: where the limit was reached,
//!   from two windows at half the throughput, in which the server's queue empties, so that an attack's
//!   own queue is never taken for the server's latency.
//!
//! An upstream that answers nothing is not overloaded but dead: that is for health checks and suspicion.

use std::time::Duration;

use crate::upstream::span;

/// Limit of an upstream of which nothing is known.
pub(crate) const FIRST: f64 = 500.0;
/// The limit does not fall below this: enough for a lone slow server.
const FLOOR: f64 = 16.0;
/// The least limit while the shortest latency is learned anew.
const PROBE_FLOOR: f64 = 4.0;
/// Shortest window.
const WINDOW: u64 = span(Duration::from_millis(100));
/// Longest window.
const LONGEST_WINDOW: u64 = span(Duration::from_secs(1));
/// How often the shortest latency is learned anew.
const PERIOD: u64 = span(Duration::from_secs(10));
/// The same for the first time: it may have been learned in the midst of an attack.
const FIRST_PERIOD: u64 = span(Duration::from_secs(1));
/// What latency may grow by whatever the shortest is, in nanoseconds: batching and schedulers do that.
const GRACE: f64 = 2e6;
/// Answers in a window from which its latency counts.
const ENOUGH: u32 = 8;
/// Time over which losses are counted, at least; and never less than it takes to notice one, since what
/// was lost together is noticed together.
const LOSS_EPOCH: u64 = span(Duration::from_millis(200));
/// Losses are noticed so much later than they are due.
const SLACK: u64 = span(Duration::from_millis(20));
/// Growth of the answers that a doubled limit has to bring.
const WORTHWHILE: f64 = 1.25;
/// Losses in that time from which they count.
const LOSSES: f64 = 8.0;
/// Share of what was sent from which losses count.
const LOSS_SHARE: f64 = 0.01;
/// How long losses are ignored that a cut did not make fewer: at first, and at the most, since it doubles
/// each time that is found again.
const IGNORED: u64 = span(Duration::from_secs(5));
const LONGEST_IGNORED: u64 = span(Duration::from_secs(80));
/// How long the limit stays below one at which it lost queries.
const LID_MEMORY: u64 = span(Duration::from_secs(10));

/// Histogram buckets: four to an octave, from 2^10 ns (a microsecond) on.
const BUCKETS: usize = 96;
const FIRST_OCTAVE: u32 = 10;

/// What a worker saw of an upstream since it last handed it over. No answer's latency is kept, only how
/// many fell into each bucket of about a fifth's width.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    latencies: [u32; BUCKETS],
    answered: u32,
    /// Sum of the latencies.
    busy: u64,
    lost: u32,
    recovered: u32,
    /// Most that were outstanding.
    peak: u32,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            latencies: [0; BUCKETS],
            answered: 0,
            busy: 0,
            lost: 0,
            recovered: 0,
            peak: 0,
        }
    }
}

impl Samples {
    /// An answer came after so many nanoseconds; `late` if the query was counted as lost. To be counted in
    /// [`Self::count`] as well.
    pub(crate) fn answer(&mut self, latency: u64, late: bool) {
        if let Some(count) = self.latencies.get_mut(bucket_of(latency)) {
            *count = count.saturating_add(1);
        }
        if late {
            self.recovered = self.recovered.saturating_add(1);
        }
    }

    /// So many answers have come, after so many nanoseconds in all.
    pub(crate) fn count(&mut self, answered: u64, busy: u64) {
        let answered = u32::try_from(answered).unwrap_or(u32::MAX);
        self.answered = self.answered.saturating_add(answered);
        self.busy = self.busy.saturating_add(busy);
    }

    /// A query was not answered in time.
    pub(crate) fn lost(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    /// So many were outstanding at once, of all workers.
    pub(crate) fn outstanding(&mut self, outstanding: u32) {
        self.peak = self.peak.max(outstanding);
    }

    /// Adds what another worker saw, and empties it.
    fn take(&mut self, other: &mut Self) {
        if other.answered > 0 {
            for (mine, theirs) in self.latencies.iter_mut().zip(&mut other.latencies) {
                *mine = mine.saturating_add(std::mem::take(theirs));
            }
        }
        self.answered = self.answered.saturating_add(other.answered);
        self.busy = self.busy.saturating_add(other.busy);
        self.lost = self.lost.saturating_add(other.lost);
        self.recovered = self.recovered.saturating_add(other.recovered);
        self.peak = self.peak.max(other.peak);
        (other.answered, other.busy, other.lost) = (0, 0, 0);
        (other.recovered, other.peak) = (0, 0);
    }

    /// The first decile of the latencies, in nanoseconds; nothing when there are too few.
    fn decile(&self) -> Option<f64> {
        if self.answered < ENOUGH {
            return None;
        }
        let wanted = f64::from(self.answered) / 10.0;
        let mut below = 0.0;
        for (bucket, &count) in self.latencies.iter().enumerate() {
            let count = f64::from(count);
            if count > 0.0 && below + count >= wanted {
                let inside = (wanted - below) / count;
                let (from, to) = (lower_bound(bucket), lower_bound(bucket.saturating_add(1)));
                return Some(from + (to - from) * inside);
            }
            below += count;
        }
        None
    }
}

const fn bucket_of(latency: u64) -> usize {
    let latency = if latency < 1 << FIRST_OCTAVE {
        1 << FIRST_OCTAVE
    } else {
        latency
    };
    let octave = latency.ilog2();
    let quarter = (latency >> octave.saturating_sub(2)) & 3;
    let bucket = (octave.saturating_sub(FIRST_OCTAVE) as usize)
        .saturating_mul(4)
        .saturating_add(quarter as usize);
    if bucket < BUCKETS {
        bucket
    } else {
        BUCKETS - 1
    }
}

fn lower_bound(bucket: usize) -> f64 {
    let octave = (bucket / 4) as i32;
    let quarter = (bucket % 4) as f64;
    f64::from(1 << FIRST_OCTAVE) * 2_f64.powi(octave) * (1.0 + quarter / 4.0)
}

/// What an upstream's limit depends on beside its behaviour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The limit never exceeds this.
    pub(crate) ceiling: u32,
    /// How long after its sending a query counts as lost, in nanoseconds.
    pub(crate) overdue: u64,
}

/// Learns one upstream's limit. A pure function of what it is given: samples and the time.
#[derive(Debug)]
pub(crate) struct Controller {
    limit: f64,
    window: Samples,
    window_start: u64,
    /// The shortest latency, in nanoseconds; 0 for none yet.
    shortest: f64,
    period: Period,
    probe: Option<Probe>,
    /// It doubles, with so many answers in a nanosecond before it last did.
    fast: Option<f64>,
    /// What the latency was before the cut that is being judged.
    slow: Option<Before>,
    /// What is measured before then still shows the time before a cut.
    settled_at: u64,
    losses: Losses,
}

/// The time since the shortest latency was last learned.
#[derive(Clone, Copy, Debug)]
struct Period {
    end: u64,
    shortest: f64,
    bound: bool,
}

/// The shortest latency is being learned at a low limit.
#[derive(Clone, Copy, Debug)]
struct Probe {
    resume: f64,
    windows: u8,
}

/// The state before a cut.
#[derive(Clone, Copy, Debug)]
struct Before {
    limit: f64,
    /// Latency in nanoseconds, or share of losses.
    value: f64,
}

impl Before {
    /// Whether the limit was cut deeply and `value` is hardly less.
    fn was_in_vain(self, limit: f64, value: f64) -> bool {
        limit <= self.limit * 0.6 && value >= self.value * 0.75
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    start: u64,
    answered: u32,
    lost: u32,
    recovered: u32,
    busy: u64,
    /// Half of the limit was used.
    used: bool,
    before: Option<Before>,
    ignored_until: u64,
    ignored: u64,
    /// The limit stays below this until then.
    lid: Option<(f64, u64)>,
}

impl Controller {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            limit: FIRST,
            window: Samples::default(),
            window_start: now,
            shortest: 0.0,
            period: Period::until(now.saturating_add(FIRST_PERIOD)),
            probe: None,
            fast: Some(0.0),
            slow: None,
            settled_at: now,
            losses: Losses {
                start: now,
                ..Losses::default()
            },
        }
    }

    /// The limit in force.
    pub(crate) fn limit(&self, bounds: Bounds) -> u32 {
        // a cast saturates
        (self.limit as u32).clamp(1, bounds.ceiling.max(1))
    }

    /// Takes what a worker saw, empties it, and learns from the window that is over, if one is.
    pub(crate) fn feed(&mut self, samples: &mut Samples, bounds: Bounds, now: u64) {
        self.losses.take(samples, now);
        self.window.take(samples);
        if now < self.settled_at {
            // answers to what was sent before a cut
            self.window = Samples::default();
            self.window_start = now;
        }
        let elapsed = now.saturating_sub(self.window_start);
        if elapsed < self.window_length() {
            return;
        }
        let window = std::mem::take(&mut self.window);
        self.window_start = now;
        self.learn(&window, elapsed as f64, bounds, now);
        let floor = match self.probe {
            Some(_) => PROBE_FLOOR,
            None => FLOOR,
        };
        self.limit = self.limit.max(floor).min(f64::from(bounds.ceiling.max(1)));
    }

    fn window_length(&self) -> u64 {
        ((self.shortest * 2.0) as u64).clamp(WINDOW, LONGEST_WINDOW)
    }

    /// What the window's latency should not exceed, in nanoseconds.
    fn target(&self) -> f64 {
        self.shortest * 2.0 + GRACE
    }

    fn learn(&mut self, window: &Samples, elapsed: f64, bounds: Bounds, now: u64) {
        let latency = window.decile();
        if let Some(latency) = latency {
            self.period.shortest = self.period.shortest.min(latency);
        }
        if self.probe.is_some() {
            self.learn_shortest(latency, bounds, now);
            return;
        }
        if let Some(latency) = latency
            && (self.shortest == 0.0 || latency < self.shortest)
        {
            self.shortest = latency;
        }
        let rate = f64::from(window.answered) / elapsed;
        let used = f64::from(window.peak) * 2.0 >= self.limit;
        self.period.bound |= f64::from(window.peak) >= self.limit * 0.9;
        self.losses.used |= used;
        if self.look_at_losses(bounds, now) {
            return;
        }
        match latency {
            Some(latency) if latency > self.target() => {
                self.too_slow(latency, rate, window.peak.into(), now);
            }
            _ => {
                self.slow = None;
                let near = latency.is_some_and(|it| it * 2.0 > self.shortest + self.target());
                if used && window.answered > 0 && !near {
                    self.grow(rate, now);
                }
            }
        }
        if now >= self.period.end && latency.is_some() {
            self.end_period(rate, now);
        }
    }

    fn grow(&mut self, rate: f64, now: u64) {
        match self.fast {
            Some(before) if rate < before * WORTHWHILE => {
                self.fast = None;
                self.limit /= 2.0;
            }
            Some(_) => {
                self.fast = Some(rate);
                self.limit *= 2.0;
            }
            None => self.limit += self.limit.sqrt(),
        }
        match self.losses.lid {
            Some((lid, until)) if now < until => self.limit = self.limit.min(lid),
            _ => self.losses.lid = None,
        }
    }

    fn too_slow(&mut self, latency: f64, rate: f64, peak: f64, now: u64) {
        let in_vain = self
            .slow
            .filter(|before| before.was_in_vain(self.limit, latency));
        if let Some(before) = in_vain {
            self.shortest = latency;
            self.limit = before.limit;
            self.slow = None;
            self.fast = Some(0.0);
            return;
        }
        if peak * 2.0 < self.limit {
            // the little that is outstanding cannot be why
            return;
        }
        // time that everything outstanding takes (Little's law): while a queue still grows, those that
        // are answered have waited less
        let whole = latency.max(peak / rate);
        self.slow = Some(Before {
            limit: self.limit,
            value: whole,
        });
        let share = (self.target() / latency).max(0.25);
        // what it answers at its shortest latency is its own, whatever else is the matter
        let needed = rate * self.shortest;
        self.limit = (self.limit * share).max(needed).max(FLOOR).min(self.limit);
        self.fast = None;
        let settling = ((whole + latency) as u64).min(LONGEST_WINDOW);
        self.settled_at = now.saturating_add(settling);
    }

    /// Whether the limit was changed.
    fn look_at_losses(&mut self, bounds: Bounds, now: u64) -> bool {
        let losses = &mut self.losses;
        let elapsed = now.saturating_sub(losses.start);
        if now < losses.ignored_until || elapsed < LOSS_EPOCH.max(bounds.overdue) {
            return false;
        }
        let (answered, lost) = (
            f64::from(losses.answered),
            f64::from(losses.lost.saturating_sub(losses.recovered)),
        );
        let share = lost / (answered + lost).max(1.0);
        let many = lost >= LOSSES && losses.answered > 0 && share > LOSS_SHARE;
        let used = losses.used;
        // queries that are being answered at any time (Little's law)
        let busy = losses.busy as f64 / elapsed as f64;
        losses.begin(now);
        if !many {
            losses.before = None;
            return false;
        }
        if let Some(before) = losses
            .before
            .filter(|before| before.was_in_vain(self.limit, share))
        {
            losses.before = None;
            losses.ignored = losses
                .ignored
                .saturating_mul(2)
                .clamp(IGNORED, LONGEST_IGNORED);
            losses.ignored_until = now.saturating_add(losses.ignored);
            losses.lid = None;
            self.limit = before.limit;
            self.fast = Some(0.0);
            return true;
        }
        if !used {
            return false;
        }
        if losses.before.is_some() {
            // the cut did help, so it is the load
            losses.ignored = 0;
        }
        losses.before = Some(Before {
            limit: self.limit,
            value: share,
        });
        // losses of what is out already come in until then
        losses.begin_after(now, bounds);
        // each loss takes its place until it is noticed
        let tolerable = answered / elapsed as f64 * bounds.overdue as f64 * LOSS_SHARE * 0.5;
        let wanted = (busy + tolerable).max(self.limit * 0.1);
        let lid = wanted.max(self.limit * 0.7).max(FLOOR);
        losses.lid = Some((lid, now.saturating_add(LID_MEMORY)));
        self.limit = wanted.max(FLOOR).min(self.limit);
        self.fast = None;
        true
    }

    fn end_period(&mut self, rate: f64, now: u64) {
        if self.period.bound {
            self.probe = Some(Probe {
                resume: self.limit,
                windows: 0,
            });
            self.limit = rate * self.shortest * 0.5;
        } else if self.period.shortest.is_finite() {
            self.shortest = self.period.shortest;
        }
        self.period = Period::until(now.saturating_add(PERIOD));
    }

    /// The first window of a probe lets the server's queue empty; the second one counts.
    fn learn_shortest(&mut self, latency: Option<f64>, bounds: Bounds, now: u64) {
        let Some(probe) = &mut self.probe else { return };
        probe.windows = probe.windows.saturating_add(1);
        if probe.windows < 2 {
            return;
        }
        if let Some(latency) = latency {
            if latency < self.shortest * 0.75 {
                // what half the throughput was, was not known: nor may it be now
                self.period.end = now.saturating_add(FIRST_PERIOD / 2);
                self.period.bound = true;
            }
            self.shortest = latency;
        }
        self.limit = probe.resume;
        self.probe = None;
        self.slow = None;
        // neither these windows nor the burst that follows say anything about losses at the limit
        self.losses.begin_after(now, bounds);
    }
}

impl Losses {
    fn take(&mut self, samples: &Samples, now: u64) {
        if now > self.start {
            self.answered = self.answered.saturating_add(samples.answered);
            self.lost = self.lost.saturating_add(samples.lost);
            self.recovered = self.recovered.saturating_add(samples.recovered);
            self.busy = self.busy.saturating_add(samples.busy);
        }
    }

    /// Leaves out what was sent before now.
    fn begin_after(&mut self, now: u64, bounds: Bounds) {
        self.begin(now.saturating_add(bounds.overdue).saturating_add(SLACK));
    }

    fn begin(&mut self, start: u64) {
        self.start = start;
        (self.answered, self.lost, self.recovered) = (0, 0, 0);
        (self.busy, self.used) = (0, false);
    }
}

impl Period {
    const fn until(end: u64) -> Self {
        Self {
            end,
            shortest: f64::INFINITY,
            bound: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const US: u64 = 1_000;
    const MS: u64 = 1_000 * US;
    const SECOND: u64 = 1_000 * MS;
    /// A step of the simulation.
    const STEP: u64 = 100 * US;
    const BOUNDS: Bounds = Bounds {
        ceiling: 2_000,
        overdue: 300 * MS,
    };

    /// A server: a queue before one that serves at a rate, both behind a path; and a proxy that keeps
    /// `limit` queries outstanding there as far as it has some.
    struct World {
        controller: Controller,
        samples: Samples,
        now: u64,
        /// Queries a second that the server can do, and that are there to be sent.
        rate: f64,
        demand: f64,
        path: u64,
        /// Queries that its queue holds.
        room: usize,
        /// Share of the names that are slow, and by how much; that are never answered.
        slow: (f64, u64),
        never: f64,
        queue: VecDeque<u64>,
        credit: f64,
        wish: f64,
        /// When answers arrive, and of queries sent when; when losses are noticed.
        answers: Vec<(u64, u64)>,
        losses: VecDeque<u64>,
        outstanding: usize,
        random: u64,
        tally: Tally,
    }

    #[derive(Clone, Copy, Debug, Default)]
    struct Tally {
        sent: u64,
        answered: u64,
        lost: u64,
        latency: u64,
        least: u32,
        most: u32,
    }

    impl Tally {
        fn latency(&self) -> u64 {
            self.latency / self.answered.max(1)
        }

        fn lost_share(&self) -> f64 {
            self.lost as f64 / self.sent.max(1) as f64
        }
    }

    impl World {
        fn new(rate: f64, room: usize, path: u64, demand: f64) -> Self {
            Self {
                controller: Controller::new(0),
                samples: Samples::default(),
                now: 0,
                rate,
                demand,
                path,
                room,
                slow: (0.0, 0),
                never: 0.0,
                queue: VecDeque::new(),
                credit: 0.0,
                wish: 0.0,
                answers: Vec::new(),
                losses: VecDeque::new(),
                outstanding: 0,
                random: 1,
                tally: Tally::default(),
            }
        }

        fn draw(&mut self) -> f64 {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.random >> 11) as f64 / (1_u64 << 53) as f64
        }

        fn limit(&self) -> u32 {
            self.controller.limit(BOUNDS)
        }

        fn step(&mut self) {
            self.now += STEP;
            let seconds = STEP as f64 / SECOND as f64;
            let now = self.now;
            let (done, still): (Vec<_>, Vec<_>) =
                self.answers.iter().partition(|(due, _)| *due <= now);
            self.answers = still;
            for (_, sent) in done {
                self.outstanding -= 1;
                self.tally.answered += 1;
                self.tally.latency += now - sent;
                self.samples.answer(now - sent, false);
                self.samples.count(1, now - sent);
            }
            while self.losses.front().is_some_and(|due| *due <= now) {
                self.losses.pop_front();
                self.outstanding -= 1;
                self.tally.lost += 1;
                self.samples.lost();
            }
            self.wish = (self.wish + self.demand * seconds).min(4_096.0);
            while self.wish >= 1.0 && self.outstanding < self.limit() as usize {
                self.wish -= 1.0;
                self.outstanding += 1;
                self.tally.sent += 1;
                let never = self.draw() < self.never;
                if never || self.queue.len() > self.room {
                    self.losses.push_back(now + BOUNDS.overdue);
                } else {
                    self.queue.push_back(now);
                }
            }
            self.samples.outstanding(self.outstanding as u32);
            self.credit = (self.credit + self.rate * seconds).min(self.rate * seconds + 1.0);
            while self.credit >= 1.0 {
                let Some(sent) = self.queue.pop_front() else {
                    break;
                };
                self.credit -= 1.0;
                let (share, delay) = self.slow;
                let more = if self.draw() < share { delay } else { 0 };
                self.answers.push((now + self.path + more, sent));
            }
            if now.is_multiple_of(10 * MS) {
                self.controller.feed(&mut self.samples, BOUNDS, now);
            }
            self.tally.least = self.tally.least.min(self.limit());
            self.tally.most = self.tally.most.max(self.limit());
        }

        /// Runs on, and says what happened in that time.
        fn run(&mut self, length: u64) -> Tally {
            self.tally = Tally {
                least: u32::MAX,
                ..Tally::default()
            };
            let end = self.now + length;
            while self.now < end {
                self.step();
            }
            self.tally
        }
    }

    #[test]
    fn a_server_with_a_long_queue_is_kept_busy_and_its_queue_short() {
        for (rate, path) in [(5_000.0, MS), (2_000.0, 20 * MS)] {
            let mut world = World::new(rate, 100_000, path, rate * 5.0);
            world.run(3 * SECOND);
            for _ in 0..3 {
                let tally = world.run(15 * SECOND);
                let busy = tally.answered as f64 / (15.0 * rate);
                assert!(busy > 0.95, "{rate}: {busy} {tally:?}");
                assert!(
                    tally.latency() < 3 * path + 4 * MS,
                    "{rate}: {tally:?} with {}",
                    world.limit()
                );
                assert_eq!(tally.lost, 0);
            }
        }
    }

    #[test]
    fn a_server_that_silently_drops_what_is_too_much_loses_little() {
        // a policer's bucket, or a small receive queue
        for (rate, room) in [(5_000.0, 8), (30_000.0, 30)] {
            let mut world = World::new(rate, room, MS, rate * 5.0);
            world.run(3 * SECOND);
            for _ in 0..2 {
                let tally = world.run(15 * SECOND);
                let busy = tally.answered as f64 / (15.0 * rate);
                assert!(busy > 0.9, "{rate}: {busy} {tally:?}");
                assert!(tally.lost_share() < 0.015, "{rate}: {tally:?}");
            }
        }
    }

    #[test]
    fn a_receive_buffer_that_overflows_is_avoided() {
        let mut world = World::new(5_000.0, 400, MS, 25_000.0);
        world.run(2 * SECOND);
        let tally = world.run(20 * SECOND);
        assert_eq!(tally.lost, 0, "{tally:?}");
        assert!(tally.answered > 95_000, "{tally:?}");
    }

    #[test]
    fn it_recovers_when_the_overload_is_over_and_never_falls_to_nothing() {
        let mut world = World::new(1_000.0, 300, MS, 20_000.0);
        let tally = world.run(20 * SECOND);
        assert!(tally.least >= PROBE_FLOOR as u32, "{tally:?}");
        // ten times the capacity: as much as that is taken, soon
        world.rate = 10_000.0;
        world.run(3 * SECOND);
        let tally = world.run(10 * SECOND);
        assert!(tally.answered > 92_000, "{tally:?}");
    }

    #[test]
    fn a_far_server_is_not_held_back() {
        let mut world = World::new(1e6, 100_000, 50 * MS, 20_000.0);
        world.run(2 * SECOND);
        let tally = world.run(30 * SECOND);
        assert!(tally.answered > 597_000, "{tally:?}");
        assert!(world.limit() >= 2_000, "{}", world.limit());
    }

    #[test]
    fn a_server_that_became_slower_for_good_is_accepted() {
        let mut world = World::new(1e6, 100_000, MS, 20_000.0);
        world.run(5 * SECOND);
        world.path = 30 * MS;
        world.run(3 * SECOND);
        let tally = world.run(20 * SECOND);
        assert!(tally.answered > 395_000, "{tally:?} {:?}", world.controller);
        // and faster again
        world.path = MS;
        world.rate = 5_000.0;
        world.run(5 * SECOND);
        let tally = world.run(10 * SECOND);
        assert!(tally.latency() < 7 * MS, "{tally:?}");
    }

    #[test]
    fn slow_names_do_not_make_it_collapse() {
        for share in [0.3, 0.8] {
            let mut world = World::new(1e6, 100_000, MS, 5_000.0);
            world.slow = (share, 100 * MS);
            world.run(3 * SECOND);
            let tally = world.run(30 * SECOND);
            assert!(tally.answered > 148_000, "{share}: {tally:?}");
        }
    }

    #[test]
    fn names_that_are_never_answered_do_not_make_it_collapse() {
        let mut world = World::new(1e6, 100_000, MS, 3_000.0);
        world.never = 0.3;
        world.run(4 * SECOND);
        let tally = world.run(60 * SECOND);
        let served = (tally.answered + tally.lost) as f64 / 180_000.0;
        assert!(served > 0.95, "{tally:?} {:?}", world.controller);
    }

    #[test]
    fn what_is_not_used_does_not_grow_and_a_dead_server_changes_nothing() {
        let mut world = World::new(1e6, 100_000, MS, 1_000.0);
        world.run(30 * SECOND);
        assert_eq!(world.limit(), FIRST as u32);
        world.never = 1.0;
        world.demand = 20_000.0;
        world.run(MS);
        let before = world.run(SECOND).least;
        let tally = world.run(10 * SECOND);
        assert!(tally.least >= before, "{tally:?}");
    }

    #[test]
    fn the_ceiling_holds() {
        let bounds = Bounds {
            ceiling: 10,
            ..BOUNDS
        };
        let mut controller = Controller::new(0);
        assert_eq!(controller.limit(bounds), 10);
        for window in 1..100 {
            let mut samples = Samples::default();
            samples.outstanding(10);
            (0..100).for_each(|_| samples.answer(MS, false));
            samples.count(100, 100 * MS);
            controller.feed(&mut samples, bounds, window * WINDOW);
            assert!(controller.limit(bounds) <= 10);
            assert_eq!(samples.answered + samples.peak, 0, "taken");
        }
    }

    #[test]
    fn buckets_are_a_fifth_wide_and_cover_everything() {
        for latency in [0, 1, 1_024, 5_000, 1_000_000, 250_000_000, u64::MAX] {
            let bucket = bucket_of(latency);
            assert!(bucket < BUCKETS);
            if (1_024..SECOND).contains(&latency) {
                assert!(lower_bound(bucket) <= latency as f64);
                assert!(lower_bound(bucket + 1) > latency as f64);
                assert!(lower_bound(bucket + 1) <= lower_bound(bucket) * 1.25);
            }
        }
    }
}
