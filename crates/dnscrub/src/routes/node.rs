//! Whether this node announces its anycast route: withdrawn when it cannot serve, back when it can and
//! has proved so for a while.
//!
//! A node knows only itself. So there are two guards against a check that is wrong everywhere at once:
//! the time until the route comes back doubles with each withdrawal, and there is a number of
//! withdrawals in an hour that is never exceeded.

use std::collections::VecDeque;

use super::settings::{Anycast, Mode, WhenFailed};

const HOUR: f64 = 3600.0;
/// Longest wait until the route comes back, in seconds.
const LONGEST_HOLD_DOWN: f64 = 1800.0;

/// How the node is, at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Well,
    /// Nothing says so or otherwise.
    Unknown,
    /// It cannot serve, and why.
    Failed(String),
}

/// What the node's route is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not announced: the node has not been well yet, or has failed.
    Out,
    /// Somebody has to approve it.
    Waiting,
    /// Announced.
    In,
    /// Withdrawn by hand.
    Held,
}

/// The node's own route.
#[derive(Debug)]
pub struct Node {
    place: Place,
    /// When it came there.
    since: f64,
    failing_since: Option<f64>,
    well_since: Option<f64>,
    fault: String,
    /// When it was withdrawn, in the last hour.
    withdrawals: VecDeque<f64>,
    /// A withdrawal was refused, and the fault goes on.
    refused: bool,
    was_announced: bool,
}

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is announced.
    Announced,
    /// It waits for approval.
    Waits,
    /// It is withdrawn, or the others are preferred, because of this.
    Failed(String),
    /// It should be withdrawn because of this, but was too often.
    Refused(String),
}

impl Default for Node {
    fn default() -> Self {
        Self {
            place: Place::Out,
            since: 0.0,
            failing_since: None,
            well_since: None,
            fault: "no upstream has answered yet".to_owned(),
            withdrawals: VecDeque::new(),
            refused: false,
            was_announced: false,
        }
    }
}

impl Node {
    /// Takes note of how the node is.
    pub fn observe(
        &mut self,
        now: f64,
        health: Health,
        settings: &Anycast,
        mode: Mode,
    ) -> Option<Change> {
        while self.withdrawals.front().is_some_and(|&at| at <= now - HOUR) {
            self.withdrawals.pop_front();
        }
        match health {
            Health::Well => {
                self.failing_since = None;
                self.refused = false;
                self.well_since.get_or_insert(now);
            }
            Health::Unknown => {}
            Health::Failed(fault) => {
                self.well_since = None;
                self.failing_since.get_or_insert(now);
                self.fault = fault;
            }
        }
        match self.place {
            Place::In => {
                let since = self.failing_since?;
                if now - since < settings.failed_after || self.refused {
                    return None;
                }
                if self.withdrawals.len() >= settings.max_withdrawals {
                    self.refused = true;
                    return Some(Change::Refused(self.fault.clone()));
                }
                self.withdrawals.push_back(now);
                self.go(Place::Out, now);
                Some(Change::Failed(self.fault.clone()))
            }
            Place::Out | Place::Waiting => {
                if self.place == Place::Waiting && self.failing_since.is_some() {
                    self.go(Place::Out, now);
                }
                let since = self.well_since?;
                if now - since < self.hold_down(settings) {
                    return None;
                }
                let next = match mode {
                    Mode::Confirm => Place::Waiting,
                    _ => Place::In,
                };
                if next == self.place {
                    return None;
                }
                self.go(next, now);
                Some(match next {
                    Place::In => Change::Announced,
                    _ => Change::Waits,
                })
            }
            Place::Held => None,
        }
    }

    /// Seconds that the node must be well before its route comes back.
    #[must_use]
    pub fn hold_down(&self, settings: &Anycast) -> f64 {
        let Some(doublings) = self.withdrawals.len().checked_sub(1) else {
            return 0.0;
        };
        let doublings = i32::try_from(doublings).unwrap_or(i32::MAX);
        let longest = LONGEST_HOLD_DOWN.max(settings.hold_down);
        (settings.hold_down * 2_f64.powi(doublings)).min(longest)
    }

    /// An operator approves the route, or has it back. Returns whether that changes anything.
    pub fn approve(&mut self, now: f64) -> bool {
        match self.place {
            Place::Waiting => {
                self.go(Place::In, now);
                true
            }
            Place::Held => {
                // it has to be well first, as ever
                self.go(Place::Out, now);
                true
            }
            Place::In | Place::Out => false,
        }
    }

    /// An operator withdraws the route. Returns whether that changes anything.
    pub fn hold(&mut self, now: f64) -> bool {
        if self.place == Place::Held {
            return false;
        }
        self.go(Place::Held, now);
        true
    }

    /// Where it stands, and since when.
    #[must_use]
    pub const fn place(&self) -> (Place, f64) {
        (self.place, self.since)
    }

    /// Whether the prefixes are announced, and if so, whether other nodes are to be preferred.
    #[must_use]
    pub fn announces(&self, settings: &Anycast) -> Option<bool> {
        match self.place {
            Place::In => Some(false),
            // a node that was never well has nothing to stay with
            Place::Out | Place::Waiting
                if self.was_announced && settings.when_failed == WhenFailed::PreferOthers =>
            {
                Some(true)
            }
            _ => None,
        }
    }

    /// Why it is not announced, or should not be, in a clause.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        let is_faulty = self.failing_since.is_some() || self.well_since.is_none();
        is_faulty.then_some(self.fault.as_str())
    }

    fn go(&mut self, place: Place, now: f64) {
        self.was_announced = match place {
            Place::In => true,
            Place::Held => false,
            _ => self.was_announced,
        };
        self.place = place;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Anycast {
        Anycast {
            failed_after: 5.0,
            hold_down: 30.0,
            max_withdrawals: 3,
            ..Anycast::default()
        }
    }

    fn failed() -> Health {
        Health::Failed("no upstream".to_owned())
    }

    /// Lets so many seconds pass, one by one; returns the changes with their times.
    fn pass(
        node: &mut Node,
        from: u32,
        to: u32,
        health: &Health,
        mode: Mode,
    ) -> Vec<(u32, Change)> {
        (from..to)
            .filter_map(|second| {
                let change = node.observe(second.into(), health.clone(), &settings(), mode)?;
                Some((second, change))
            })
            .collect()
    }

    #[test]
    fn withdrawn_after_some_seconds_and_back_after_the_hold_down() {
        let mut node = Node::default();
        assert_eq!(pass(&mut node, 0, 10, &Health::Unknown, Mode::Announce), []);
        assert_eq!(node.announces(&settings()), None);
        assert_eq!(
            pass(&mut node, 10, 20, &Health::Well, Mode::Announce),
            [(10, Change::Announced)],
            "nothing to wait for at the first time"
        );
        assert_eq!(pass(&mut node, 20, 25, &failed(), Mode::Announce), []);
        assert_eq!(
            pass(&mut node, 25, 26, &Health::Well, Mode::Announce),
            [],
            "a short fault is none"
        );
        assert_eq!(
            pass(&mut node, 30, 50, &failed(), Mode::Announce),
            [(35, Change::Failed("no upstream".to_owned()))]
        );
        assert_eq!(node.announces(&settings()), None);
        assert_eq!(
            pass(&mut node, 50, 200, &Health::Well, Mode::Announce),
            [(80, Change::Announced)]
        );
    }

    #[test]
    fn who_flaps_waits_longer_and_is_then_left_alone() {
        let mut node = Node::default();
        let mut at = 0;
        let mut waits = Vec::new();
        for _ in 0..3 {
            let back = pass(&mut node, at, at + 500, &Health::Well, Mode::Announce);
            waits.push(back[0].0 - at);
            at += 500;
            let out = pass(&mut node, at, at + 10, &failed(), Mode::Announce);
            assert!(matches!(out[..], [(_, Change::Failed(_))]), "{out:?}");
            at += 10;
        }
        assert_eq!(waits, [0, 30, 60]);
        assert_eq!(
            pass(&mut node, at, at + 500, &Health::Well, Mode::Announce),
            [(at + 120, Change::Announced)]
        );
        at += 500;
        let refused = pass(&mut node, at, at + 100, &failed(), Mode::Announce);
        assert_eq!(
            refused,
            [(at + 5, Change::Refused("no upstream".to_owned()))],
            "told once"
        );
        assert_eq!(node.announces(&settings()), Some(false), "the route stays");
        // an hour later there is room again
        at += 3_600;
        pass(&mut node, at, at + 1, &Health::Well, Mode::Announce);
        let out = pass(&mut node, at + 1, at + 10, &failed(), Mode::Announce);
        assert!(matches!(out[..], [(_, Change::Failed(_))]), "{out:?}");
    }

    #[test]
    fn a_failed_node_can_stay_as_the_last_choice() {
        let mut node = Node::default();
        let settings = Anycast {
            when_failed: WhenFailed::PreferOthers,
            ..settings()
        };
        node.observe(0.0, failed(), &settings, Mode::Announce);
        assert_eq!(node.announces(&settings), None, "it was never there");
        node.observe(1.0, Health::Well, &settings, Mode::Announce);
        assert_eq!(node.announces(&settings), Some(false));
        node.observe(2.0, failed(), &settings, Mode::Announce);
        node.observe(7.0, failed(), &settings, Mode::Announce);
        assert_eq!(node.announces(&settings), Some(true));
        assert!(node.hold(8.0));
        assert_eq!(node.announces(&settings), None, "an operator means it");
    }

    #[test]
    fn approval_and_holding_by_hand() {
        let mut node = Node::default();
        assert_eq!(
            pass(&mut node, 0, 10, &Health::Well, Mode::Confirm),
            [(0, Change::Waits)]
        );
        assert_eq!(node.announces(&settings()), None);
        assert!(node.approve(10.0) && !node.approve(10.0));
        assert_eq!(node.announces(&settings()), Some(false));
        let out = pass(&mut node, 11, 30, &failed(), Mode::Confirm);
        assert!(
            matches!(out[..], [(16, Change::Failed(_))]),
            "withdrawing never waits: {out:?}"
        );
        assert_eq!(
            pass(&mut node, 30, 100, &Health::Well, Mode::Confirm),
            [(60, Change::Waits)]
        );
        assert!(node.hold(100.0));
        assert_eq!(pass(&mut node, 100, 300, &Health::Well, Mode::Announce), []);
        assert!(node.approve(300.0));
        assert_eq!(
            pass(&mut node, 300, 301, &Health::Well, Mode::Announce),
            [(300, Change::Announced)]
        );
    }
}
