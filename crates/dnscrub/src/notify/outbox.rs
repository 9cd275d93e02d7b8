//! What waits for webhooks and commands, on a clock that is an argument.
//!
//! Each destination has a line of its own. Notices of one incident go to a destination one after
//! the other, in their order; those of different incidents do not wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dnscrub_detection::Happened;

use super::notice::{End, Notice, Outcome, not_far, pause};

/// Notices that wait, of all destinations together. At this bound the oldest notice of a change gives
/// way; there are always newer ones of the same incident.
pub(super) const MOST: usize = 4_096;
/// Openings and ends of incidents are taken up to this bound.
pub(super) const MOST_VITAL: usize = 2 * MOST;
/// Incidents remembered of which a destination was told.
const MOST_HEARD: usize = 1_024;

/// How a destination is treated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Manner {
    /// Notices on their way at a time.
    pub(super) at_a_time: usize,
    /// Whether what fails is tried again.
    pub(super) retry: bool,
    /// How old a notice may get.
    pub(super) give_up_after: Duration,
}

/// An attempt to be made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attempt {
    /// For whom.
    pub(super) destination: String,
    /// What.
    pub(super) notice: Arc<Notice>,
    /// Which attempt it is since the program's start, from 1.
    pub(super) attempt: u32,
}

/// What became of a notice at last.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    /// For whom it was.
    pub(super) destination: String,
    /// What it was.
    pub(super) notice: Arc<Notice>,
    /// How it ended.
    pub(super) end: End,
    /// Why, unless it was delivered.
    pub(super) why: String,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lines: BTreeMap<String, Line>,
    total: usize,
}

#[derive(Debug)]
struct Line {
    manner: Manner,
    waiting: BTreeMap<u64, Waiting>,
    /// Incidents whose opening or change was sent there.
    heard: BTreeSet<u64>,
}

#[derive(Debug)]
struct Waiting {
    notice: Arc<Notice>,
    failures: u32,
    due: f64,
    sending: bool,
}

impl Outbox {
    /// There are these destinations now. What waits for others is taken out and returned.
    pub(super) fn adopt(&mut self, manners: BTreeMap<String, Manner>) -> Vec<Ended> {
        let mut old = std::mem::take(&mut self.lines);
        for (name, manner) in manners {
            let line = old.remove(&name).map_or_else(
                || Line {
                    manner,
                    waiting: BTreeMap::new(),
                    heard: BTreeSet::new(),
                },
                |line| Line { manner, ..line },
            );
            self.lines.insert(name, line);
        }
        let mut gone = Vec::new();
        for (destination, line) in old {
            self.total = self.total.saturating_sub(line.waiting.len());
            gone.extend(line.waiting.into_values().map(|waiting| Ended {
                destination: destination.clone(),
                notice: waiting.notice,
                end: End::Dropped,
                why: "the destination is no longer in the configuration".to_owned(),
            }));
        }
        gone
    }

    /// Whether the destination was told of this incident, or will be.
    #[must_use]
    pub(super) fn has_heard(&self, destination: &str, incident: u64) -> bool {
        self.lines
            .get(destination)
            .is_some_and(|line| line.heard.contains(&incident))
    }

    /// The destination was told of this incident before the restart.
    pub(super) fn restore_heard(&mut self, destination: &str, incident: u64) {
        if let Some(line) = self.lines.get_mut(destination) {
            line.heard.insert(incident);
        }
    }

    /// Takes a notice for a destination. Returns what had to give way, which may be the notice itself.
    pub(super) fn take(
        &mut self,
        destination: &str,
        notice: &Arc<Notice>,
        now: f64,
    ) -> Option<Ended> {
        let evicted = if self.total < MOST {
            None
        } else {
            self.evict()
        };
        let refused =
            self.total >= MOST && (notice.event == Happened::Changed || self.total >= MOST_VITAL);
        if refused {
            return Some(Ended {
                destination: destination.to_owned(),
                notice: Arc::clone(notice),
                end: End::Dropped,
                why: format!("{} notices wait already", self.total),
            });
        }
        let line = self.lines.get_mut(destination)?;
        let waiting = Waiting {
            notice: Arc::clone(notice),
            failures: 0,
            due: now,
            sending: false,
        };
        if line.waiting.insert(notice.number, waiting).is_none() {
            self.total += 1;
        }
        if notice.event == Happened::Closed {
            line.heard.remove(&notice.incident.number);
        } else {
            line.heard.insert(notice.incident.number);
            if line.heard.len() > MOST_HEARD {
                line.heard.pop_first();
            }
        }
        evicted
    }

    /// Takes out the oldest notice of a change that is not on its way.
    fn evict(&mut self) -> Option<Ended> {
        let oldest = |(name, line): (&String, &Line)| {
            let found = line
                .waiting
                .values()
                .find(|it| it.notice.event == Happened::Changed && !it.sending)?;
            Some((found.notice.number, name.clone()))
        };
        let (number, destination) = self.lines.iter().filter_map(oldest).min()?;
        let waiting = self.lines.get_mut(&destination)?.waiting.remove(&number)?;
        self.total -= 1;
        Some(Ended {
            destination,
            notice: waiting.notice,
            end: End::Dropped,
            why: format!("{MOST} notices wait, and this was the oldest of a change"),
        })
    }

    /// What is to be sent now. Each attempt must be followed by [`Outbox::done`].
    pub(super) fn due(&mut self, now: f64) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for (destination, line) in &mut self.lines {
            let sending = line.waiting.values().filter(|it| it.sending).count();
            let mut room = line.manner.at_a_time.saturating_sub(sending);
            let mut incidents = BTreeSet::new();
            for waiting in line.waiting.values_mut() {
                let first = incidents.insert(waiting.notice.incident.number);
                waiting.due = not_far(waiting.due, now);
                if room == 0 {
                    break;
                }
                if first && !waiting.sending && waiting.due <= now {
                    waiting.sending = true;
                    room -= 1;
                    attempts.push(Attempt {
                        destination: destination.clone(),
                        notice: Arc::clone(&waiting.notice),
                        attempt: waiting.failures.saturating_add(1),
                    });
                }
            }
        }
        attempts
    }

    /// When something is due next; nothing if it depends on attempts under way.
    #[must_use]
    pub(super) fn next_due(&self) -> Option<f64> {
        let of_line = |line: &Line| {
            let sending = line.waiting.values().filter(|it| it.sending).count();
            if sending >= line.manner.at_a_time {
                return None;
            }
            let mut incidents = BTreeSet::new();
            line.waiting
                .values()
                .filter(|it| incidents.insert(it.notice.incident.number) && !it.sending)
                .map(|it| it.due)
                .min_by(f64::total_cmp)
        };
        self.lines
            .values()
            .filter_map(of_line)
            .min_by(f64::total_cmp)
    }

    /// What became of an attempt. `chance` is from 0 to 1. Returns how the notice ended, if it did.
    pub(super) fn done(
        &mut self,
        destination: &str,
        number: u64,
        outcome: Outcome,
        now: f64,
        chance: f64,
    ) -> Option<Ended> {
        let line = self.lines.get_mut(destination)?;
        let waiting = line.waiting.get_mut(&number)?;
        waiting.sending = false;
        let (end, why) = match outcome {
            Outcome::Delivered => (End::Delivered, String::new()),
            Outcome::Never(why) => (End::Failed, why),
            Outcome::Later { why, .. } if !line.manner.retry => (End::Failed, why),
            Outcome::Later { why, after } => {
                waiting.failures = waiting.failures.saturating_add(1);
                let pause = pause(waiting.failures, chance, after);
                let limit = waiting.notice.made + line.manner.give_up_after.as_secs_f64();
                if now + pause <= limit {
                    waiting.due = now + pause;
                    return None;
                }
                let attempts = waiting.failures;
                (
                    End::Expired,
                    format!("given up after {attempts} attempts: {why}"),
                )
            }
        };
        let waiting = line.waiting.remove(&number)?;
        self.total -= 1;
        Some(Ended {
            destination: destination.to_owned(),
            notice: waiting.notice,
            end,
            why,
        })
    }

    /// Whether attempts are under way.
    #[must_use]
    pub(super) fn is_sending(&self) -> bool {
        let mut lines = self.lines.values();
        lines.any(|line| line.waiting.values().any(|it| it.sending))
    }

    /// Everything that waits, by destination.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&str, &Arc<Notice>)> {
        self.lines.iter().flat_map(|(name, line)| {
            let waiting = line.waiting.values();
            waiting.map(|it| (name.as_str(), &it.notice))
        })
    }

    /// How many notices wait for a destination, those on their way included.
    #[must_use]
    pub(super) fn queued(&self, destination: &str) -> usize {
        self.lines
            .get(destination)
            .map_or(0, |line| line.waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::super::testing::notice;
    use super::*;

    const HOUR: f64 = 3600.0;

    fn manner() -> Manner {
        Manner {
            at_a_time: 2,
            retry: true,
            give_up_after: Duration::from_secs(86_400),
        }
    }

    fn outbox(names: &[&str]) -> Outbox {
        let mut outbox = Outbox::default();
        let manners = names.iter().map(|name| ((*name).to_owned(), manner()));
        assert!(outbox.adopt(manners.collect()).is_empty());
        outbox
    }

    fn numbers(attempts: &[Attempt]) -> Vec<u64> {
        attempts.iter().map(|it| it.notice.number).collect()
    }

    fn later() -> Outcome {
        Outcome::Later {
            why: "down".to_owned(),
            after: None,
        }
    }

    #[test]
    fn an_incidents_notices_keep_their_order_and_others_do_not_wait() {
        let mut outbox = outbox(&["a"]);
        for (number, event, incident) in [
            (1, Happened::Opened, 7),
            (2, Happened::Changed, 7),
            (3, Happened::Opened, 8),
            (4, Happened::Opened, 9),
        ] {
            let notice = notice(number, event, incident);
            assert_eq!(outbox.take("a", &notice, 0.0), None);
        }
        let attempts = outbox.due(0.0);
        assert_eq!(numbers(&attempts), [1, 3], "two at a time");
        assert!(outbox.due(0.0).is_empty() && outbox.next_due().is_none());
        assert_eq!(outbox.done("a", 1, later(), 0.0, 1.0), None);
        assert_eq!(
            numbers(&outbox.due(0.0)),
            [4],
            "the second of incident 7 waits for its first"
        );
        let ended = outbox.done("a", 3, Outcome::Delivered, 1.0, 0.0).unwrap();
        assert_eq!(ended.end, End::Delivered);
        assert_eq!(outbox.next_due(), Some(2.0));
        assert!(outbox.due(1.9).is_empty());
        let attempts = outbox.due(2.0);
        assert_eq!((numbers(&attempts), attempts[0].attempt), (vec![1], 2));
        outbox.done("a", 1, Outcome::Delivered, 2.0, 0.0).unwrap();
        assert_eq!(numbers(&outbox.due(2.0)), [2]);
        assert_eq!(outbox.queued("a"), 2);
    }

    #[test]
    fn a_destination_that_is_down_for_hours_gets_it_all_and_after_a_day_it_is_given_up() {
        let mut outbox = outbox(&["a"]);
        outbox.take("a", &notice(1, Happened::Opened, 1), 0.0);
        let mut now = 0.0;
        let mut attempts = 0;
        while now < 23.0 * HOUR {
            let due = outbox.due(now);
            assert_eq!(numbers(&due), [1]);
            attempts += 1;
            assert_eq!(outbox.done("a", 1, later(), now, 0.5), None);
            now = outbox.next_due().unwrap();
        }
        assert!((300..600).contains(&attempts), "{attempts}");
        let mut ended = None;
        while ended.is_none() {
            outbox.due(now);
            ended = outbox.done("a", 1, later(), now, 0.5);
            now = outbox.next_due().unwrap_or(now);
        }
        let ended = ended.unwrap();
        assert_eq!(ended.end, End::Expired);
        assert!(
            now <= 24.0 * HOUR && ended.why.contains("down"),
            "{ended:?}"
        );
        assert_eq!((outbox.queued("a"), outbox.total), (0, 0));
    }

    #[test]
    fn what_an_age_limit_would_cut_off_gets_one_attempt() {
        let mut outbox = outbox(&["a"]);
        // it waited on the disk for two days
        outbox.take("a", &notice(1, Happened::Opened, 1), 48.0 * HOUR);
        assert_eq!(numbers(&outbox.due(48.0 * HOUR)), [1]);
        let ended = outbox.done("a", 1, later(), 48.0 * HOUR, 0.0).unwrap();
        assert_eq!(ended.end, End::Expired);
    }

    #[test]
    fn what_a_receiver_refuses_is_not_tried_again() {
        let mut outbox = outbox(&["a"]);
        outbox.take("a", &notice(1, Happened::Opened, 1), 0.0);
        outbox.due(0.0);
        let never = Outcome::Never("404".to_owned());
        let ended = outbox.done("a", 1, never, 0.0, 0.0).unwrap();
        assert_eq!((ended.end, ended.why.as_str()), (End::Failed, "404"));
        let once = Manner {
            retry: false,
            ..manner()
        };
        outbox.adopt([("a".to_owned(), once)].into());
        outbox.take("a", &notice(2, Happened::Opened, 1), 0.0);
        outbox.due(0.0);
        assert_eq!(
            outbox.done("a", 2, later(), 0.0, 0.0).unwrap().end,
            End::Failed
        );
    }

    #[test]
    fn at_the_bound_changes_give_way_and_openings_and_ends_do_not() {
        let mut outbox = outbox(&["a", "b"]);
        let total = MOST as u64;
        for number in 0..total {
            let event = match number {
                5 | 9 => Happened::Changed,
                _ => Happened::Opened,
            };
            let to = if number == 5 { "b" } else { "a" };
            assert_eq!(outbox.take(to, &notice(number, event, number), 0.0), None);
        }
        let gave_way = outbox.take("a", &notice(total, Happened::Closed, 3), 0.0);
        let gave_way = gave_way.unwrap();
        assert_eq!(
            (gave_way.notice.number, gave_way.destination.as_str()),
            (5, "b"),
            "the oldest change, whoever it is for"
        );
        let gave_way = outbox.take("a", &notice(total + 1, Happened::Changed, 3), 0.0);
        assert_eq!(gave_way.unwrap().notice.number, 9);
        // it is the only change now, and gives way to an end
        let gave_way = outbox.take("a", &notice(total + 2, Happened::Closed, 4), 0.0);
        assert_eq!(gave_way.unwrap().notice.number, total + 1);
        assert_eq!(outbox.total, MOST);
        let refused = outbox.take("a", &notice(total + 3, Happened::Changed, 3), 0.0);
        assert_eq!(refused.unwrap().notice.number, total + 3);
        // what opens and ends is taken all the same, up to a bound of its own
        for number in 0..total {
            let number = total + 4 + number;
            assert_eq!(
                outbox.take("a", &notice(number, Happened::Closed, number), 0.0),
                None
            );
        }
        assert_eq!(outbox.total, MOST_VITAL);
        let refused = outbox.take("a", &notice(3 * total, Happened::Opened, 1), 0.0);
        assert_eq!(refused.unwrap().end, End::Dropped);
    }

    #[test]
    fn what_waits_for_a_destination_that_is_gone_is_dropped_and_told() {
        let mut outbox = outbox(&["a", "b"]);
        for to in ["a", "b"] {
            outbox.take(to, &notice(1, Happened::Opened, 1), 0.0);
        }
        outbox.due(0.0);
        let gone = outbox.adopt([("b".to_owned(), manner())].into());
        assert_eq!(gone.len(), 1);
        assert_eq!(
            (gone[0].destination.as_str(), gone[0].end),
            ("a", End::Dropped)
        );
        assert_eq!(outbox.queued("b"), 1);
        // the attempt that was under way comes to its end
        assert_eq!(outbox.done("a", 1, Outcome::Delivered, 0.0, 0.0), None);
        assert!(outbox.done("b", 1, Outcome::Delivered, 0.0, 0.0).is_some());
        assert_eq!(outbox.total, 0);
    }

    #[test]
    fn who_was_told_of_an_incident_is_known_until_its_end() {
        let mut outbox = outbox(&["a"]);
        outbox.take("a", &notice(1, Happened::Changed, 4), 0.0);
        assert!(outbox.has_heard("a", 4) && !outbox.has_heard("a", 5));
        assert!(!outbox.has_heard("b", 4));
        outbox.take("a", &notice(2, Happened::Closed, 4), 0.0);
        assert!(!outbox.has_heard("a", 4));
    }

    /// Whatever fails, and however often the program is restarted in between, everything is delivered
    /// once, and what belongs to one incident in its order.
    #[test]
    fn everything_is_delivered_once_and_in_order_whatever_happens() {
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut outbox = outbox(&["a", "b"]);
            let mut delivered = BTreeMap::<(String, u64), Vec<u64>>::new();
            let (mut now, mut number, mut under_way) = (0.0, 0, Vec::new());
            loop {
                let taking = number < 60;
                match random.random_range(0..10) {
                    0..3 if taking => {
                        number += 1;
                        let event = match random.random_range(0..3) {
                            0 => Happened::Opened,
                            1 => Happened::Changed,
                            _ => Happened::Closed,
                        };
                        let notice = notice(number, event, random.random_range(1..5));
                        for to in ["a", "b"] {
                            assert_eq!(outbox.take(to, &notice, now), None);
                        }
                    }
                    3 if under_way.is_empty() => {
                        let kept: Vec<_> = outbox
                            .waiting()
                            .map(|(to, notice)| (to.to_owned(), Arc::clone(notice)))
                            .collect();
                        outbox = self::outbox(&["a", "b"]);
                        for (to, notice) in kept {
                            outbox.take(&to, &notice, now);
                        }
                    }
                    4..7 => under_way.extend(outbox.due(now)),
                    _ if !under_way.is_empty() => {
                        let at = random.random_range(0..under_way.len());
                        let Attempt {
                            destination,
                            notice,
                            ..
                        } = under_way.swap_remove(at);
                        let outcome = match random.random_range(0..3) {
                            0 => Outcome::Delivered,
                            _ => later(),
                        };
                        let chance = random.random();
                        let ended = outbox.done(&destination, notice.number, outcome, now, chance);
                        if let Some(ended) = ended {
                            assert_eq!(ended.end, End::Delivered);
                            let key = (destination, notice.incident.number);
                            delivered.entry(key).or_default().push(notice.number);
                        }
                    }
                    _ if !taking && outbox.total == 0 => break,
                    _ => now = outbox.next_due().unwrap_or(now).max(now),
                }
            }
            let all: usize = delivered.values().map(Vec::len).sum();
            assert_eq!(all, 120, "seed {seed}");
            for (key, numbers) in delivered {
                assert!(numbers.is_sorted(), "seed {seed}, {key:?}: {numbers:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_was_put_back_holds_nothing_up() {
        let mut outbox = outbox(&["a"]);
        outbox.take("a", &notice(1, Happened::Opened, 1), 100_000.0);
        assert_eq!(numbers(&outbox.due(50_000.0)), [1]);
    }
}
