//! What is raised slowly does not become usual, if it is an attack by any sane reading; load that grows does.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dnscrub_detection::{
    Book, Counts, Detector, Happened, Incident, Kind, Sketch, Window, ZoneWindow,
};
use proptest::prelude::*;
use world::Lot;

/// What is raised.
#[derive(Clone, Copy, Debug)]
enum Flood {
    RandomNames,
    LargeAnswers,
    OtherPaths,
    Malformed,
}

impl Flood {
    const ALL: [Self; 4] = [
        Self::RandomNames,
        Self::LargeAnswers,
        Self::OtherPaths,
        Self::Malformed,
    ];

    const fn kind(self) -> Kind {
        match self {
            Self::RandomNames => Kind::RandomSubdomains,
            Self::LargeAnswers => Kind::Reflection,
            Self::OtherPaths => Kind::SpoofedResolvers,
            Self::Malformed => Kind::MalformedFlood,
        }
    }
}

/// Part of the highest load at this second.
fn load(second: f64) -> f64 {
    let day = 2.0 * std::f64::consts::PI * (second / 86_400.0 - 0.2);
    0.65 - 0.35 * day.cos()
}

struct Bench {
    lot: Lot,
    detector: Detector,
    book: Book,
    start: Instant,
    second: u32,
    flood: Flood,
}

impl Bench {
    fn new(seed: u64, second: u32, flood: Flood) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "an Instant cannot be made otherwise"
        )]
        let start = Instant::now();
        Self {
            lot: Lot::new(seed),
            detector: Detector::new(),
            book: Book::default(),
            start,
            second,
            flood,
        }
    }

    /// So many seconds with so many queries meant well and of the flood in each. The attacks that were opened.
    fn pass(&mut self, seconds: u32, well_meant: f64, flood: f64) -> Vec<Incident> {
        let mut n = |mean: f64| self.lot.poisson(mean * f64::from(seconds)) as u32;
        // a hundredth of usual queries is for names that nobody asked for, and so on
        let good = n(well_meant);
        let mut counts = Counts {
            doubtful: n(0.01 * well_meant),
            strange: n(0.02 * well_meant),
            bulky: n(0.003 * well_meant),
            known: good,
            ..Counts::default()
        };
        let mut malformed = n(0.002 * well_meant);
        let flood = n(flood);
        match self.flood {
            Flood::RandomNames => counts.doubtful += flood,
            Flood::LargeAnswers => counts.bulky += flood,
            Flood::OtherPaths => counts.odd_hops += flood,
            Flood::Malformed => malformed += flood,
        }
        counts.queries = good + counts.doubtful + counts.strange + counts.bulky + counts.odd_hops;
        (counts.passed, counts.answers) = (counts.queries, counts.queries);
        counts.nxdomain = counts.doubtful;
        self.second += seconds;
        let until = self.start + Duration::from_secs(self.second.into());
        let mut window = Window::empty(until, seconds as f32);
        window.totals.counts = counts;
        window.totals.malformed = malformed;
        window.zones.push(ZoneWindow {
            zone: Arc::from("example.com"),
            configured: true,
            counts,
            sources: Sketch::default(),
            doubtful_names: Sketch::default(),
        });
        let now = f64::from(self.second);
        let happened = self.detector.observe(&window, now, &mut self.book);
        let opened = happened.iter().filter(|it| it.1 == Happened::Opened);
        let find = |number| self.book.open.iter().find(|it| it.number == number);
        let opened = opened.filter_map(|(number, _)| find(*number)).cloned();
        let attacks = opened.filter(|it| it.kind.is_attack()).collect();
        self.book.open.retain(Incident::is_open);
        attacks
    }
}

/// How high a flood is when it is noticed that grows to e times in so many hours, beside `rate` queries a
/// second at the most.
fn noticed_at(flood: Flood, seed: u64, rate: f64, hours: f64, from: u32) -> f64 {
    let mut bench = Bench::new(seed, from, flood);
    for _ in 0..4 * 3600 {
        let well_meant = rate * load(bench.second.into());
        let attacks = bench.pass(1, well_meant, 0.0);
        assert!(attacks.is_empty(), "{attacks:#?}");
    }
    let mut height = 0.02 * rate;
    while height < 20.0 * rate {
        // the last seconds count, and hours of them are many: each tenth minute is looked at as it is, and
        // the others in long steps
        let well_meant = rate * load(bench.second.into());
        for step in 0..30 {
            let seconds = if step < 12 { 1 } else { 5 };
            let attacks = bench.pass(seconds, well_meant, height);
            if let Some(attack) = attacks.first() {
                assert_eq!(attack.kind, flood.kind(), "{attack:#?}");
                return height;
            }
            height *= (f64::from(seconds) / 3600.0 / hours).exp();
        }
    }
    height
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    /// From a tenth an hour to a hundredth a minute and more: it is named before it is as much as half of the load.
    #[test]
    fn a_flood_that_is_raised_slowly_is_named(
        flood in 0_usize..4,
        seed in 1_u64..1000,
        rate in 200.0_f64..2000.0,
        hours in 0.8_f64..10.5,
        from in 0_u32..86_400,
    ) {
        let height = noticed_at(Flood::ALL[flood], seed, rate, hours, from);
        prop_assert!(height <= 0.5 * rate, "{height} of {rate}");
    }

    /// A fifth more each day, for a week.
    #[test]
    fn load_that_grows_is_no_attack(
        seed in 1_u64..1000,
        rate in 60.0_f64..2000.0,
        from in 0_u32..86_400,
    ) {
        let mut bench = Bench::new(seed, from, Flood::RandomNames);
        let mut grown = 1.0_f64;
        while bench.second < from + 7 * 86_400 {
            for step in 0..30 {
                let seconds = if step < 12 { 1 } else { 15 };
                let well_meant = grown * rate * load(bench.second.into());
                let attacks = bench.pass(seconds, well_meant, 0.0);
                prop_assert!(attacks.is_empty(), "{attacks:#?}");
                grown *= (1.2_f64.ln() * f64::from(seconds) / 86_400.0).exp();
            }
        }
        prop_assert!(grown > 3.4);
    }
}
