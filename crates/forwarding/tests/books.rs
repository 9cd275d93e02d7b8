//! Under any schedule of answers, losses, refusals and reloads the books balance: every query that
//! was admitted ends in exactly one of delivered and expired.

mod common;

use std::collections::{HashMap, HashSet};

use common::*;
use dnscrub_forwarding::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    Ask,
    /// An upstream answers one of the queries that reached it (possibly again, possibly late).
    Answer(usize),
    /// Somebody forges an answer to one of them, with an id that is off by this.
    Forge(usize, u16),
    Refuse(usize),
    Advance(u16),
    Reload(Vec<usize>, u8, bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Ask),
        6 => any::<usize>().prop_map(Event::Answer),
        1 => (any::<usize>(), 1u16..).prop_map(|(which, off)| Event::Forge(which, off)),
        1 => any::<usize>().prop_map(Event::Refuse),
        4 => (0u16..400).prop_map(Event::Advance),
        1 => (prop::collection::hash_set(1usize..5, 1..4), 0u8..4, any::<bool>())
            .prop_map(|(hosts, retries, other)| Event::Reload(hosts.into_iter().collect(), retries, other)),
    ]
}

const POLICIES: [&str; 5] = [
    "least-outstanding",
    "weighted-random",
    "round-robin",
    "consistent-hash",
    "ordered",
];

fn pools(hosts: Vec<usize>, retries: u8, other: bool, policy: &str) -> String {
    let settings = format!(r#", "policy": "{policy}", "retries": {retries}"#);
    let mut pools = pool_of(hosts, &settings);
    if other {
        // sorts before `default`, whose index changes with it
        pools.insert_str(
            1,
            r#""another": {"upstreams": [{"address": "192.0.2.77"}]},"#,
        );
    }
    pools
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_query_ends_once(policy in 0..POLICIES.len(), events in prop::collection::vec(event(), 1..250)) {
        let policy = POLICIES[policy];
        let mut world = World::with_capacity(&pools(vec![1, 2, 3], 2, false, policy), 24);
        let mut open: HashSet<u16> = HashSet::new();
        let mut sent: Vec<Sent> = Vec::new();
        // by socket and id, the client they lead to
        let mut valid: HashMap<(SocketRef, u16), u16> = HashMap::new();
        for event in events {
            let mut steps = Steps::default();
            match event {
                Event::Ask => {
                    let client = world.next_client;
                    world.forwarder.begin_batch();
                    match world.ask(&format!("n{client}.example.com")) {
                        Ok(query) => {
                            prop_assert!(open.insert(client));
                            let fresh = valid.insert((query.socket, id_of(&query.packet)), client).is_none();
                            prop_assert!(fresh, "an id is in use once on a socket");
                            sent.push(query);
                        }
                        Err(Admission::TableFull) => prop_assert_eq!(open.len(), 24),
                        Err(other) => prop_assert!(false, "{other:?}"),
                    }
                }
                Event::Answer(which) if !sent.is_empty() => {
                    let query = sent[which % sent.len()].clone();
                    let expected = valid.get(&(query.socket, id_of(&query.packet))).copied();
                    match world.answer(&query) {
                        Arrival::Deliver(delivery) => {
                            let number = delivery.client.address.port();
                            prop_assert_eq!(Some(number), expected);
                            prop_assert!(open.remove(&number), "delivered once");
                            valid.retain(|_, client| *client != number);
                        }
                        // The same id may by now belong to another query with another question.
                        Arrival::Stray(StrayReason::WrongQuestion) => prop_assert!(expected.is_some()),
                        Arrival::Stray(_) => prop_assert_eq!(expected, None),
                    }
                }
                Event::Forge(which, off) if !sent.is_empty() => {
                    let query = &sent[which % sent.len()];
                    let mut packet = response(&query.packet);
                    let id = id_of(&packet).wrapping_add(off);
                    packet[..2].copy_from_slice(&id.to_be_bytes());
                    if !valid.contains_key(&(query.socket, id)) {
                        let socket = query.socket;
                        prop_assert!(matches!(world.respond(socket, &mut packet), Arrival::Stray(_)));
                    }
                }
                Event::Refuse(which) if !sent.is_empty() => {
                    let socket = sent[which % sent.len()].socket;
                    steps = world.refuse(socket);
                }
                Event::Advance(milliseconds) => steps = world.tick(u32::from(milliseconds) * MS),
                Event::Reload(hosts, retries, other) => {
                    world.reload(&pools(hosts, retries, other, policy));
                }
                _ => {}
            }
            for again in steps.resent {
                let key = (again.socket, id_of(&again.packet));
                prop_assert!(!valid.contains_key(&key), "an id is in use once on a socket");
                let owner = owner_of(&again, &sent, &valid);
                prop_assert!(owner.is_some());
                valid.insert(key, owner.unwrap());
                sent.push(again);
            }
            for (client, _) in steps.expired {
                let number = client.address.port();
                prop_assert!(open.remove(&number), "expired once");
                valid.retain(|_, client| *client != number);
            }
            prop_assert_eq!(world.forwarder.in_flight(), open.len());
        }
        let rest = world.run(2100 * MS).expired;
        for (client, _) in &rest {
            prop_assert!(open.remove(&client.address.port()));
        }
        prop_assert!(open.is_empty(), "none is lost");
        prop_assert_eq!(world.forwarder.in_flight(), 0);
        world.tick(MS);
        for (_, upstream) in world.forwarder.upstreams() {
            prop_assert_eq!(upstream.outstanding(), 0);
        }
    }
}

/// The client whose query was sent again: each asks for a name of its own.
fn owner_of(again: &Sent, sent: &[Sent], valid: &HashMap<(SocketRef, u16), u16>) -> Option<u16> {
    sent.iter()
        .filter(|earlier| earlier.packet[2..] == again.packet[2..])
        .find_map(|earlier| {
            valid
                .get(&(earlier.socket, id_of(&earlier.packet)))
                .copied()
        })
}
