//! A backend that can do 5,000 queries a second, 1,000 legitimate ones a second, and a flood beside them,
//! on virtual time: from the third second on the legitimate ones are answered, and what the backend can do
//! is used up.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dnscrub::outcome::Reason;
use dnscrub_testkit::SimUpstream;
use dnscrub_testkit::authority::{Authority, Zone};
use dnscrub_testkit::message::a_query;
use dnscrub_tests::Simulation;
use dnscrub_wire::Name;
use dnscrub_zones::master_file::MasterFile;

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
        "signals: {{ suffix-flood: {{ mode: observe }}, loyalty: {{ mode: observe }} }}\n\
         rules: [ {{ name: flood, when: {{ qname: {{ under: flood.example.com }} }}, do: {{ score: {points} }} }} ]\n"
    )
}

struct Attack {
    simulation: Simulation,
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
            asked: 0,
            flooded: 0,
        }
    }

    /// So many seconds of legitimate queries, with a flood or without. Returns the numbers of the
    /// legitimate ones, and the share of the capacity that was used.
    fn run(&mut self, seconds: u32, flood: u32) -> (Range<u32>, f64) {
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
        let busy = served as f64 / f64::from(CAPACITY * seconds);
        (first..self.asked, busy)
    }

    /// The share of these legitimate queries that the backend answered.
    fn answered(&self, queries: Range<u32>) -> f64 {
        let all = f64::from(queries.end - queries.start);
        let answer = |number| self.simulation.answers.get(&source(10, number));
        let answers = queries.filter_map(answer).flatten();
        // NOERROR
        answers.filter(|answer| answer[3] & 0x0f == 0).count() as f64 / all
    }
}

/// A backend that lets queries wait for so long, and a flood of so many points: beside the default bands 50
/// are enough for an action under pressure, and 10 are not.
fn the_legitimate_are_answered_and_the_backend_is_busy(cases: &[(Duration, u16)]) {
    for &(max_wait, flood_points) in cases {
        let mut attack = Attack::on(&points(flood_points), max_wait);
        let case = format!("{max_wait:?}, {flood_points} points");
        let (peaceful, _) = attack.run(1, 0);
        attack.run(3, FLOOD);
        let (queries, busy) = attack.run(3, FLOOD);
        // the last of them have their time, in the midst of the flood
        attack.run(1, FLOOD);
        let answered = attack.answered(queries);
        assert_eq!(attack.answered(peaceful), 1.0, "{case}: in peace");
        assert!(answered >= 0.999, "{case}: {answered} answered");
        assert!(busy >= 0.95, "{case}: {busy} busy");
        attack.run(1, 0);
        attack.simulation.run_for(3 * SECOND);
        let pressure = attack.simulation.path.forwarder().pressure(0);
        assert_eq!(pressure, 0.0, "{case}: rest is rest");
    }
}

#[test]
fn before_a_pressure_that_sheds() {
    the_legitimate_are_answered_and_the_backend_is_busy(&[(10 * MS, 50), (SECOND, 50)]);
}

#[test]
fn by_the_queue_alone() {
    the_legitimate_are_answered_and_the_backend_is_busy(&[(50 * MS, 10)]);
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

/// A worker that knows which names example.com has.
fn knowing() -> Simulation {
    let yaml = "pools: { default: { upstreams: [ { address: \"198.51.100.1:53\" } ] } }\n\
                zones: [ { name: example.com, names: { axfr: \"198.51.100.1:53\" } } ]\n";
    let mut simulation = Simulation::new(yaml, 1);
    let text = "@ 60 IN SOA ns1 h 1 1 1 1000 1\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.1\n";
    let name = Name::from_text("example.com").unwrap();
    let now = simulation.network.now();
    let (_, zone) = simulation.path.policy().zones.find(&name).unwrap();
    let mut file = MasterFile::new(&name, zone.builder());
    file.feed(text.as_bytes()).unwrap();
    let contents = file.finish().unwrap().finish().unwrap();
    zone.load(contents, 1_000 * SECOND, now);
    let authority = Authority::new([Zone::parse("example.com", text).unwrap()]);
    let server = SimUpstream::with_latency(Arc::new(authority), now, MS);
    simulation.network.add_upstream(backend(), server);
    simulation
}

#[test]
fn while_the_receive_queue_overflows_missing_names_are_dropped_and_others_are_served() {
    let mut simulation = knowing();
    let mut asked = 0;
    // a second of a flood from sources that are used once, with one query for a name that exists
    let mut flood = |simulation: &mut Simulation| {
        let start = simulation.network.now();
        for number in 0..2_000 {
            asked += 1;
            let query = a_query(&format!("x{asked}.example.com"), number as u16);
            simulation.ask(start + number * SECOND / 2_000, source(10, asked), &query);
        }
        let before = simulation.count(Reason::NonexistentName);
        let answered = simulation.answered();
        simulation.ask(
            start + SECOND / 2,
            source(11, 1),
            &a_query("ns1.example.com", 1),
        );
        simulation.run_for(2 * SECOND);
        let counted = simulation.count(Reason::NonexistentName) - before;
        assert!(!simulation.answers[&source(11, 1)].is_empty());
        (counted, simulation.answered() - answered)
    };
    flood(&mut simulation);
    // at level attack all of them are answered here
    assert_eq!(flood(&mut simulation), (2_000, 2_001));
    let now = simulation.network.now();
    simulation.path.receive_queue_drops(1_000, now);
    assert_eq!(
        flood(&mut simulation),
        (2_000, 1),
        "there is no time for answers"
    );
    let now = simulation.network.now() + 20 * SECOND;
    simulation.path.receive_queue_drops(1_000, now);
    assert_eq!(flood(&mut simulation), (2_000, 2_001), "it is over");
}
