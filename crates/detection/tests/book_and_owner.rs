//! The owner of the book may put incidents of before a restart into it, and take out those that somebody closed.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::time::{Duration, Instant};

use dnscrub_detection::{Book, Detector, Happened, Kind, Window};

/// A clock, a detector and its book.
struct Bench {
    detector: Detector,
    book: Book,
    /// Where it stands means nothing.
    start: Instant,
    seconds: u32,
}

impl Bench {
    fn new() -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "an Instant cannot be made otherwise"
        )]
        let start = Instant::now();
        Self {
            detector: Detector::new(),
            book: Book::default(),
            start,
            seconds: 0,
        }
    }

    /// So many seconds with 100 queries and so many malformed packets each; what happened in them.
    fn pass(&mut self, seconds: u32, malformed: u32) -> Vec<(u64, Happened)> {
        let mut happened = Vec::new();
        for _ in 0..seconds {
            self.seconds += 1;
            let until = self.start + Duration::from_secs(self.seconds.into());
            let mut window = Window::empty(until, 1.0);
            window.totals.counts.queries = 100;
            window.totals.counts.passed = 100;
            window.totals.counts.answers = 100;
            window.totals.malformed = malformed;
            let now = 1_700_000_000.0 + f64::from(self.seconds);
            happened.extend(self.detector.observe(&window, now, &mut self.book));
        }
        happened
    }
}

#[test]
fn an_incident_of_before_a_restart_goes_on_under_its_number() {
    let mut bench = Bench::new();
    assert_eq!(bench.pass(120, 0), []);
    assert_eq!(bench.pass(10, 5_000)[0], (1, Happened::Opened));
    assert_eq!(bench.book.open[0].kind, Kind::MalformedFlood);
    let began = bench.book.open[0].began;
    let usual = bench.detector.save();
    bench.detector = Detector::new();
    assert!(bench.detector.restore(&usual));
    let happened = bench.pass(10, 5_000);
    assert!(happened.contains(&(1, Happened::Changed)), "{happened:?}");
    assert!(
        happened
            .iter()
            .all(|&(number, what)| number == 1 && what != Happened::Opened)
    );
    assert_eq!(
        (bench.book.open.len(), bench.book.open[0].began),
        (1, began)
    );
    let happened = bench.pass(60, 0);
    assert_eq!(happened.last(), Some(&(1, Happened::Closed)));
}

#[test]
fn what_was_closed_by_hand_is_not_opened_again_while_it_goes_on() {
    let mut bench = Bench::new();
    bench.pass(120, 0);
    assert_eq!(bench.pass(10, 5_000)[0], (1, Happened::Opened));
    bench.book.open.clear();
    assert_eq!(bench.pass(120, 5_000), []);
    assert!(bench.book.open.is_empty());
    bench.pass(60, 0);
    let opened = bench.pass(10, 50_000);
    assert_eq!(
        opened.first(),
        Some(&(2, Happened::Opened)),
        "another time it is news"
    );
}

#[test]
fn what_is_stopped_before_it_is_counted_goes_on_while_the_owner_says_so() {
    let mut bench = Bench::new();
    assert_eq!(bench.pass(120, 0), []);
    assert_eq!(bench.pass(10, 5_000)[0], (1, Happened::Opened));
    bench.book.going_on = vec![1];
    assert_eq!(bench.pass(300, 0), []);
    // what comes through again is no pulse
    assert_eq!(bench.pass(10, 5_000), []);
    bench.book.going_on.clear();
    assert_eq!(bench.pass(20, 0), [(1, Happened::Closed)]);
    assert_eq!(bench.book.open[0].kind, Kind::MalformedFlood);
}
