//! Resolvers, zones and names, and what a worker would make of their queries: fast enough for days.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test stops at the first thing wrong, and any instant does as the beginning of time"
)]

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ahash::RandomState;
use dnscrub_detection::{
    Acquaintance, Answered, Asked, Book, Detector, Fate, Happened, Incident, Place, Standing,
    UpstreamSecond, Watch,
};
use dnscrub_wire::Name;

/// Numbers by lot, the same for the same seed.
pub(crate) struct Lot(u64);

impl Lot {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// How many events there are where so many are expected.
    pub(crate) fn poisson(&mut self, mean: f64) -> usize {
        if mean > 50.0 {
            let normal = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
            return (mean + normal * mean.sqrt()).max(0.0) as usize;
        }
        let (limit, mut product, mut n) = ((-mean).exp(), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            n += 1;
        }
        n
    }

    /// One of `n`, the first ones most often.
    pub(crate) fn ranked(&mut self, n: usize) -> usize {
        let x = ((n as f64 + 1.0).ln() * self.unit()).exp() - 1.0;
        (x as usize).min(n - 1)
    }

    pub(crate) fn label(&mut self, len: usize) -> String {
        (0..len)
            .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[self.below(36)]))
            .collect()
    }
}

const WORDS: [&str; 24] = [
    "www", "mail", "api", "shop", "static", "login", "cdn", "docs", "forum", "river", "harbor",
    "green", "metro", "cloud", "vision", "garden", "market", "studio", "planet", "silver",
    "window", "travel", "coffee", "summit",
];

/// A query as somebody sends it.
pub(crate) struct Question {
    pub(crate) source: IpAddr,
    pub(crate) zone: usize,
    pub(crate) labels: String,
    pub(crate) qtype: u16,
    pub(crate) odd_hops: bool,
}

/// See the module.
pub(crate) struct World {
    pub(crate) lot: Lot,
    pub(crate) now: f64,
    began: Instant,
    hasher: RandomState,
    pub(crate) zones: Vec<Name>,
    names: Vec<Vec<String>>,
    exist: Vec<HashSet<String>>,
    pub(crate) resolvers: Vec<IpAddr>,
    known: HashMap<IpAddr, f64>,
    seen: HashSet<u64>,
    /// Whether the zones are loaded.
    pub(crate) aware: bool,
    pub(crate) watch: Watch,
    pub(crate) detector: Detector,
    pub(crate) book: Book,
    /// Queries a second, usually.
    pub(crate) rate: f64,
    pub(crate) nxdomain: f64,
    /// Microseconds until an answer.
    pub(crate) latency: u32,
    /// What each second says of the servers behind.
    pub(crate) upstreams: Vec<UpstreamSecond>,
}

impl World {
    pub(crate) fn new(seed: u64, rate: f64, aware: bool) -> Self {
        let mut lot = Lot::new(seed);
        let zones: Vec<Name> = (0..12)
            .map(|n| Name::from_text(&format!("{}{n}.example", WORDS[lot.below(24)])).unwrap())
            .collect();
        let names: Vec<Vec<String>> = zones
            .iter()
            .map(|_| {
                (0..120)
                    .map(|n| match n {
                        0..24 => WORDS[n].to_owned(),
                        _ => format!("{}-{}{n}", WORDS[lot.below(24)], WORDS[lot.below(24)]),
                    })
                    .collect()
            })
            .collect();
        let exist = names
            .iter()
            .map(|it| it.iter().cloned().collect())
            .collect();
        let resolvers = (0..400)
            .map(|_| IpAddr::V4(Ipv4Addr::from_bits(lot.next() as u32)))
            .collect();
        let began = Instant::now();
        let configured: Vec<&Name> = if aware {
            zones.iter().collect()
        } else {
            Vec::new()
        };
        Self {
            watch: Watch::new(configured, began),
            lot,
            now: 0.0,
            began,
            hasher: RandomState::with_seeds(1, 2, 3, 4),
            zones,
            names,
            exist,
            resolvers,
            known: HashMap::new(),
            seen: HashSet::new(),
            aware,
            detector: Detector::new(),
            book: Book::default(),
            rate,
            nxdomain: 0.07,
            latency: 400,
            upstreams: Vec::new(),
        }
    }

    pub(crate) fn resolver(&mut self) -> IpAddr {
        self.resolvers[self.lot.ranked(self.resolvers.len())]
    }

    pub(crate) fn stranger(&mut self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self.lot.next() as u32))
    }

    pub(crate) fn existing(&mut self, zone: usize) -> String {
        let rank = self.lot.ranked(self.names[zone].len());
        self.names[zone][rank].clone()
    }

    pub(crate) fn typo(&mut self, zone: usize) -> String {
        let mut name = self.existing(zone);
        let place = self.lot.below(name.len());
        if self.lot.chance(0.5) && name.len() > 2 {
            name.remove(place);
        } else {
            name.insert(place, char::from(b'a' + self.lot.below(26) as u8));
        }
        name
    }

    /// Names that exist from now on.
    pub(crate) fn deploy(&mut self, zone: usize, many: usize) {
        for _ in 0..many {
            let name = format!("{}-{}", WORDS[self.lot.below(24)], self.lot.label(5));
            self.names[zone].insert(self.lot.below(30), name.clone());
            self.exist[zone].insert(name);
        }
    }

    /// A usual query.
    pub(crate) fn legitimate(&mut self) -> Question {
        let zone = self.lot.ranked(self.zones.len());
        let source = self.resolver();
        let labels = if !self.lot.chance(self.nxdomain) {
            self.existing(zone)
        } else if self.lot.chance(0.6) {
            format!("old-{}", self.lot.below(8))
        } else {
            self.typo(zone)
        };
        let qtype = [1, 1, 1, 1, 28, 28, 65, 15, 16, 2][self.lot.below(10)];
        Question {
            source,
            zone,
            labels,
            qtype,
            odd_hops: false,
        }
    }

    pub(crate) fn ask(&mut self, question: &Question) {
        // a source's packets come the same way
        let hops = 6 + self.hasher.hash_one(question.source) % 18;
        self.ask_over(hops as u8, question);
    }

    /// A query that comes over so many hops.
    pub(crate) fn ask_over(&mut self, hops: u8, question: &Question) {
        let hop_ttl = Some(64 - hops);
        let Question {
            source,
            zone,
            ref labels,
            qtype,
            odd_hops,
        } = *question;
        let text = format!("{labels}.{}", self.zones[zone]);
        let name = Name::from_text(text.trim_start_matches('.')).unwrap();
        let exists = labels.is_empty() || self.exist[zone].contains(labels);
        let name_hash = self.hasher.hash_one(name.as_wire());
        let name_seen = self.seen.contains(&name_hash);
        let standing = match (self.aware, exists, name_seen) {
            (true, true, _) | (false, true, true) => Standing::Exists,
            (true, false, _) => Standing::Missing,
            (false, false, true) => Standing::FailedBefore,
            (false, _, false) => Standing::Unknown,
        };
        let first = *self.known.entry(source).or_insert(self.now);
        let acquaintance = match self.now - first {
            0.0 => Acquaintance::New,
            since if since < 8.0 => Acquaintance::Recent,
            _ => Acquaintance::Known,
        };
        let place = Place {
            zone: self.aware.then_some(zone as u16),
            hash: self.hasher.hash_one(self.zones[zone].as_wire()),
            cut: (name.len() - self.zones[zone].len()) as u8,
        };
        let asked = Asked {
            source,
            source_hash: self.hasher.hash_one(source),
            acquaintance,
            verified: false,
            odd_hops,
            hop_ttl,
            standing,
            name_seen,
            name_hash,
            place,
            qtype,
            len: 50,
            tcp: false,
            fate: Fate::Passed,
        };
        self.watch.query(&asked, &name);
        self.watch.answer(&Answered {
            place,
            rcode: if exists { 0 } else { 3 },
            latency: Some(self.latency),
            octets: Some((50, if exists { 90 } else { 110 })),
        });
        self.seen.insert(name_hash);
    }

    /// A second of usual traffic, `times` as much of it.
    pub(crate) fn usual(&mut self, times: f64) {
        for _ in 0..self.lot.poisson(self.rate * times) {
            let question = self.legitimate();
            self.ask(&question);
        }
    }

    /// Ends the second.
    pub(crate) fn tick(&mut self) -> Vec<(Happened, Incident)> {
        self.now += 1.0;
        let mut window = self
            .watch
            .take(self.began + Duration::from_secs_f64(self.now));
        window.upstreams = self.upstreams.clone();
        let happened = self.detector.observe(&window, self.now, &mut self.book);
        let find = |number| {
            let incident = self.book.open.iter().find(|it| it.number == number);
            incident.unwrap().clone()
        };
        let events: Vec<_> = happened
            .into_iter()
            .map(|(number, what)| (what, find(number)))
            .collect();
        self.book.open.retain(Incident::is_open);
        // what comes once is not remembered for ever
        if self.seen.len() > 200_000 {
            self.seen.clear();
        }
        if self.known.len() > 200_000 {
            let resolvers: HashSet<_> = self.resolvers.iter().copied().collect();
            self.known.retain(|source, _| resolvers.contains(source));
        }
        events
    }

    /// Seconds of calm.
    pub(crate) fn calm(&mut self, seconds: usize) {
        for _ in 0..seconds {
            self.usual(1.0);
            let events = self.tick();
            assert!(events.is_empty(), "{}: {events:?}", self.now);
        }
    }
}
