//! Queries of usual clients and of floods, on virtual time, the same for the same seed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use dnscrub_detection::{self as detection, Asked, Fate, Place, Standing, Watch};
use dnscrub_scoring::{
    Acquaintance, Action, Case, Context, Judgement, NameStanding, Names, Policy, Reply, Scorer,
    Transport, config,
};
use dnscrub_wire::{Name, Query, Rcode};
use dnscrub_zones::master_file::MasterFile;
use dnscrub_zones::{Limits, Zone, Zones};

/// Queries that a worker takes from its socket at once.
pub(crate) const BATCH: usize = 64;
/// Names of the zone that is known as a whole.
const ZONE_NAMES: u32 = 100_000;
/// Usual clients, the zones they ask for, and the names of each.
const CLIENTS: u32 = 1000;
const USUAL_ZONES: u32 = 50;
const USUAL_NAMES: u32 = 100;

/// What is asked for, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Known clients ask for names they asked for before.
    Calm,
    /// Random names of one zone, each from another source.
    RandomNames,
    /// Random names below random parents, each from another source.
    RandomParents,
    /// Names that exist, each from another source.
    UsualNames,
    /// One name that exists, each time from another source.
    OneName,
}

/// A query as a worker has it before judging.
pub(crate) struct Arrived {
    query: Query,
    packet: Vec<u8>,
    source: IpAddr,
    hop_ttl: u8,
}

impl Arrived {
    fn context(&self) -> Context {
        Context {
            source: self.source,
            transport: Transport::Udp,
            listener: 0,
            hop_ttl: Some(self.hop_ttl),
            proven: false,
            len: self.query.len,
        }
    }
}

/// A scorer with default settings, its policy, its clock and what comes in.
pub(crate) struct Traffic {
    policy: Policy,
    scorer: Scorer,
    watch: Watch,
    now: Instant,
    /// When the watch handed over what it had counted.
    taken: Instant,
    random: u64,
    knows_zone: bool,
    batch: Vec<Arrived>,
    judgements: Vec<Judgement>,
}

impl Traffic {
    /// After `usual` queries of usual traffic, 2,000 a second, and then `flood` of `kind` at a million a
    /// second. `knows_zone`: the zone under attack is loaded, with 100,000 names.
    pub(crate) fn warmed(kind: Kind, knows_zone: bool, usual: usize, flood: usize) -> Self {
        let known = Names {
            pools: &[],
            listeners: &[],
            lists: &BTreeMap::new(),
        };
        let mut policy = Policy::build(
            &config::Scrubbing::default(),
            &config::Signals::default(),
            &[],
            &known,
            1,
        )
        .unwrap();
        policy.forget([5, 6, 7, 8]);
        // an Instant cannot be made otherwise; where it begins means nothing
        let now = Instant::now();
        if knows_zone {
            policy.set_zones(zone(now));
        }
        let mut traffic = Self {
            scorer: Scorer::new(0, &policy, [1, 2, 3, 4], now),
            watch: Watch::new(knows_zone.then_some(&"victim.test".parse().unwrap()), now),
            policy,
            now,
            taken: now,
            random: 0x9e37_79b9_7f4a_7c15,
            knows_zone,
            batch: Vec::new(),
            judgements: Vec::with_capacity(BATCH),
        };
        for _ in 0..usual / BATCH {
            let later = Duration::from_secs(40) * BATCH as u32 / usual as u32;
            traffic.arrive(Kind::Calm, later);
            traffic.notice();
            traffic.answer();
        }
        for _ in 0..flood / BATCH {
            traffic.arrive(kind, Duration::from_micros(64));
            traffic.notice();
            traffic.answer();
        }
        traffic
    }

    fn random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as u32
    }

    /// The next batch comes in, `later` than the one before.
    pub(crate) fn arrive(&mut self, kind: Kind, later: Duration) {
        self.now += later;
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        for _ in 0..BATCH {
            batch.push(self.query(kind));
        }
        self.batch = batch;
    }

    fn query(&mut self, kind: Kind) -> Arrived {
        let (number, letters) = (self.random(), self.random());
        let zone = if self.knows_zone {
            "victim.test".to_owned()
        } else {
            format!("zone{}.test", number % USUAL_ZONES)
        };
        let name = match kind {
            Kind::RandomNames => format!("{letters:07x}{:05x}.victim.test", self.random() >> 12),
            Kind::RandomParents => format!("www.{letters:07x}.victim.test"),
            Kind::OneName => format!(
                "host1.{}",
                if self.knows_zone { &zone } else { "zone1.test" }
            ),
            Kind::Calm | Kind::UsualNames => format!("host{}.{zone}", letters % USUAL_NAMES),
        };
        let (source, hop_ttl) = if kind == Kind::Calm {
            let client = self.random() % CLIENTS;
            (client.wrapping_mul(2_654_435_761), 44 + (client % 16) as u8)
        } else {
            (self.random(), 30 + (self.random() % 34) as u8)
        };
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(name.parse::<Name>().unwrap().as_wire());
        packet.extend([0, 1, 0, 1]);
        Arrived {
            query: Query::parse(&packet).unwrap(),
            packet,
            source: Ipv4Addr::from(source).into(),
            hop_ttl,
        }
    }

    /// Judges the batch: what is measured.
    #[inline(never)]
    pub(crate) fn judge(&mut self) {
        self.judgements.clear();
        for arrived in &self.batch {
            let context = arrived.context();
            self.judgements.push(self.scorer.judge(Case {
                policy: &self.policy,
                query: &arrived.query,
                packet: &arrived.packet,
                context: &context,
                pressure: 0.0,
                now: self.now,
            }));
        }
    }

    /// Judges the batch and counts it for the detector, as the program's data path does.
    #[inline(never)]
    pub(crate) fn notice(&mut self) {
        self.judgements.clear();
        for arrived in &self.batch {
            let context = arrived.context();
            let judgement = self.scorer.judge(Case {
                policy: &self.policy,
                query: &arrived.query,
                packet: &arrived.packet,
                context: &context,
                pressure: 0.0,
                now: self.now,
            });
            let seen = self.scorer.seen();
            let home = seen.home();
            let asked = Asked {
                source: context.source,
                source_hash: seen.source_hash(),
                acquaintance: match seen.acquaintance() {
                    Acquaintance::Known => detection::Acquaintance::Known,
                    Acquaintance::Recent => detection::Acquaintance::Recent,
                    Acquaintance::New => detection::Acquaintance::New,
                },
                verified: seen.is_verified(),
                odd_hops: seen.has_odd_hops(),
                hop_ttl: context.hop_ttl,
                standing: match seen.name() {
                    NameStanding::Exists => Standing::Exists,
                    NameStanding::Covered => Standing::Covered,
                    NameStanding::Missing { .. } => Standing::Missing,
                    NameStanding::FailedBefore => Standing::FailedBefore,
                    NameStanding::Unknown => Standing::Unknown,
                },
                name_seen: seen.is_name_seen(),
                name_hash: seen.name_hash(),
                place: Place {
                    zone: home.zone,
                    hash: home.hash,
                    cut: home.cut,
                },
                qtype: arrived.query.qtype,
                len: arrived.query.len,
                tcp: false,
                fate: match judgement.action {
                    Action::Pass => Fate::Passed,
                    Action::NxDomain => Fate::Denied,
                    Action::Truncate => Fate::Challenged,
                    Action::Refuse => Fate::Refused,
                    Action::Drop => Fate::Dropped,
                },
            };
            self.watch.query(&asked, &arrived.query.qname);
            self.judgements.push(judgement);
        }
    }

    /// The upstream answers what was let through of the batch.
    pub(crate) fn answer(&mut self) {
        if self.now.saturating_duration_since(self.taken) >= Duration::from_secs(1) {
            self.taken = self.now;
            std::hint::black_box(self.watch.take(self.now));
        }
        for (arrived, judgement) in self.batch.iter().zip(&self.judgements) {
            if judgement.action != Action::Pass {
                continue;
            }
            let name = &arrived.query.qname;
            let exists = name.first_label().starts_with(b"host");
            let reply = Reply {
                source: arrived.source,
                transport: Transport::Udp,
                qname: name,
                rcode: if exists {
                    Rcode::NOERROR
                } else {
                    Rcode::NXDOMAIN
                },
                latency: Duration::from_micros(500),
                query_len: arrived.query.len,
                response_len: 120,
            };
            self.scorer.observe_response(&self.policy, &reply, self.now);
        }
    }

    /// How many of the last batch were given each action: it tells that a case is what it is meant to be.
    pub(crate) fn actions(&self) -> BTreeMap<String, usize> {
        let mut actions = BTreeMap::new();
        for judgement in &self.judgements {
            *actions
                .entry(format!("{:?}", judgement.action))
                .or_default() += 1;
        }
        actions
    }
}

/// `victim.test`, with 100,000 names.
fn zone(now: Instant) -> Arc<Zones> {
    let hasher = RandomState::with_seeds(9, 10, 11, 12);
    let name: Name = "victim.test".parse().unwrap();
    let zone = Zone::new(name, Limits::default(), hasher.clone(), now);
    let mut text = "@ 60 IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\n".to_owned();
    for number in 0..ZONE_NAMES {
        text.push_str(&format!("host{number} A 192.0.2.1\n"));
    }
    let mut file = MasterFile::new(&name, zone.builder());
    file.feed(text.as_bytes()).unwrap();
    let contents = file.finish().unwrap().finish().unwrap();
    zone.load(contents, Duration::from_secs(86_400), now);
    Arc::new(Zones::new(vec![Arc::new(zone)], hasher))
}
