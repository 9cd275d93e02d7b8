//! A backend that can do 5,000 queries a second, 1,000 legitimate ones a second, and a flood beside them,
//! on virtual time: from the third second on the legitimate ones are answered, and what the backend can do
//! is used up.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnscrub::outcome::Reason;
use dnscrub_testkit::SimUpstream;
use dnscrub_testkit::authority::{Authority, Zone};
use dnscrub_testkit::message::a_query;
use dnscrub_tests::Simulation;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Queries a second that the backend can do.
const CAPACITY: u32 = 5_000;
const LEGITIMATE: u32 = 1_000;
const FLOOD: u32 = 20_000;

fn backend() -> SocketAddr {
    (Ipv4Addr::new(198, 51, 100, 1), 53).into()
}

/// One of many sources, each in a /24 of its own.
fn source(network: u8, number: u32) -> SocketAddr {
    let [.., high, low] = number.to_be_bytes();
    (Ipv4Addr::new(network, high, low, 7), 5_353).into()
}

/// What a rule says of the flood's names.
fn points(points: u16) -> String {
    format!(
        "rules: [ {{ name: flood, when: {{ qname: {{ under: flood.example.com }} }}, do: {{ score: {points} }} }} ]\n"
    )
}

struct Attack {
    simulation: Simulation,
    start: Instant,
    asked: u32,
    flooded: u32,
}

impl Attack {
    /// A backend that lets queries wait for so long at the most.
    fn on(yaml: &str, max_wait: Duration) -> Self {
        let pools = "pools: { default: { upstreams: [ { address: \"198.51.100.1:53\" } ] } }\n";
        let mut simulation = Simulation::new(&(pools.to_owned() + yaml), 1);
        let zone = "@ 60 IN SOA ns1 h 1 1 1 1 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n*.w 60 IN A 192.0.2.9\n";
        let authority = Authority::new([Zone::parse("example.com", zone).unwrap()]);
        let start = simulation.network.now();
        let server = SimUpstream::with_latency(Arc::new(authority), start, MS);
        server.behaviour().set_capacity(CAPACITY, max_wait);
        simulation.network.add_upstream(backend(), server);
        Self {
            simulation,
            start,
            asked: 0,
            flooded: 0,
        }
    }

    /// So many seconds of legitimate queries, with a flood or without. Returns the share of the
    /// legitimate ones that were answered, a second later at the latest, and of the capacity that was
    /// used.
    fn run(&mut self, seconds: u32, flood: u32) -> (f64, f64) {
        let first = self.asked;
        let served = self.simulation.network.upstream(backend()).answered();
        for _ in 0..seconds * 100 {
            let now = self.simulation.network.now();
            for number in 0..flood / 100 {
                let when = now + 10 * MS * number / (flood / 100);
                let query = a_query(&format!("x{}.flood.example.com", self.flooded), 1);
                self.simulation.ask(when, source(100, self.flooded), &query);
                self.flooded += 1;
            }
            for number in 0..LEGITIMATE / 100 {
                let query = a_query(&format!("n{}.w.example.com", self.asked), 2);
                let when = now + MS * number;
                self.simulation.ask(when, source(10, self.asked), &query);
                self.asked += 1;
            }
            self.simulation.run_for(10 * MS);
        }
        let served = self.simulation.network.upstream(backend()).answered() - served;
        let answered = (first..self.asked)
            .filter(|&number| self.simulation.answers.contains_key(&source(10, number)))
            .count();
        // those of the last moments have not had their time
        let waiting = (self.asked - first) as usize - answered;
        let young = waiting.min(LEGITIMATE as usize / 100);
        (
            (answered + young) as f64 / f64::from(self.asked - first),
            served as f64 / f64::from(CAPACITY * seconds),
        )
    }

    fn elapsed(&self) -> Duration {
        self.simulation.network.now() - self.start
    }
}

/// A backend with a long queue, with the queue of an ordinary receive buffer, and one that drops at once
/// what is too much; a flood whose points pressure turns into an action, and one that only the queue tells
/// apart.
#[test]
fn the_legitimate_are_answered_and_the_backend_is_busy() {
    for max_wait in [SECOND, 50 * MS, MS] {
        for flood_points in [50, 10] {
            let mut attack = Attack::on(&points(flood_points), max_wait);
            let case = format!("{max_wait:?}, {flood_points} points");
            let (answered, _) = attack.run(2, 0);
            assert_eq!(answered, 1.0, "{case}: in peace");
            attack.run(3, FLOOD);
            assert_eq!(attack.elapsed(), 5 * SECOND);
            let (answered, busy) = attack.run(6, FLOOD);
            assert!(answered >= 0.999, "{case}: {answered} answered");
            assert!(busy >= 0.95, "{case}: {busy} busy");
            assert!(attack.simulation.count(Reason::QueueTimeout) > 0 || flood_points > 40);
            attack.run(1, 0);
            attack.simulation.run_for(3 * SECOND);
            let pressure = attack.simulation.path.forwarder().pressure(0);
            assert_eq!(pressure, 0.0, "{case}: rest is rest");
        }
    }
}

/// Points alone drop nothing while there is room.
#[test]
fn at_rest_nobody_is_touched_whatever_his_points() {
    let mut attack = Attack::on(&points(59), SECOND);
    attack.run(5, 3_500);
    attack.simulation.run_for(3 * SECOND);
    let books = attack.simulation.books();
    assert_eq!(books.forwarded, books.received, "{books:?}");
}
