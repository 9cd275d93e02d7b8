//! Under any schedule of answers, losses, refusals and reloads the books balance: every query that
//! was admitted ends in exactly one of delivered and expired.

mod common;

use std::collections::{HashMap, HashSet};

use common::*;
use dnscrub_forwarding::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    /// A query with so many points.
    Ask(u16),
    /// An upstream answers one of the queries that reached it (possibly again, possibly late).
    Answer(usize),
    /// Somebody forges an answer to one of them, with an id that is off by this.
    Forge(usize, u16),
    Refuse(usize),
    Advance(u16),
    Reload(Vec<usize>, u8, bool, u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0u16..300).prop_map(Event::Ask),
        6 => any::<usize>().prop_map(Event::Answer),
        1 => (any::<usize>(), 1u16..).prop_map(|(which, off)| Event::Forge(which, off)),
        1 => any::<usize>().prop_map(Event::Refuse),
        4 => (0u16..400).prop_map(Event::Advance),
        1 => (prop::collection::hash_set(1usize..5, 1..4), 0u8..4, any::<bool>(), 1u8..12)
            .prop_map(|(hosts, retries, other, most)| Event::Reload(hosts.into_iter().collect(), retries, other, most)),
    ]
}

const POLICIES: [&str; 5] = [
    "least-outstanding",
    "weighted-random",
    "round-robin",
    "consistent-hash",
    "ordered",
];

/// A pool of upstreams that take `most` queries each, with a queue of seven.
fn pools(hosts: Vec<usize>, retries: u8, other: bool, most: u8, policy: &str) -> String {
    let settings =
        format!(r#", "policy": "{policy}", "retries": {retries}, "queue": {{"length": 7}}"#);
    let mut pools = pool_of(hosts, &settings)
        .replace(r#""},"#, &format!(r#"", "max-outstanding": {most}}},"#))
        .replace(r#""}]"#, &format!(r#"", "max-outstanding": {most}}}]"#));
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
        let mut world = World::with_capacity(&pools(vec![1, 2, 3], 2, false, 4, policy), 24);
        let mut open: HashSet<u16> = HashSet::new();
        let mut sent: Vec<Sent> = Vec::new();
        // queries that were admitted and have not ended, those included that were never sent
        let mut alive = 0;
        // by socket and id, the client they lead to
        let mut valid: HashMap<(SocketRef, u16), u16> = HashMap::new();
        for event in events {
            let mut steps = Steps::default();
            match event {
                Event::Ask(points) => {
                    let client = world.next_client;
                    world.forwarder.begin_batch();
                    match world.ask_with(&format!("n{client}.example.com"), points) {
                        Ok(query) => {
                            alive += 1;
                            prop_assert!(open.insert(client));
                            let fresh = valid.insert((query.socket, id_of(&query.packet)), client).is_none();
                            prop_assert!(fresh, "an id is in use once on a socket");
                            sent.push(query);
                        }
                        Err(Admission::TableFull) => prop_assert_eq!(alive, 24),
                        Err(Admission::Queued { in_place_of_another }) => {
                            alive += usize::from(!in_place_of_another);
                        }
                        Err(Admission::QueueFull) => prop_assert!(world.forwarder.queued() == 7 || alive == 24),
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
                            alive -= 1;
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
                Event::Reload(hosts, retries, other, most) => {
                    world.reload(&pools(hosts, retries, other, most, policy));
                }
                _ => {}
            }
            alive -= steps.unserved.len() + steps.expired.len();
            for query in world.release() {
                let client = client_of(&query);
                open.insert(client);
                let fresh = valid.insert((query.socket, id_of(&query.packet)), client).is_none();
                prop_assert!(fresh, "an id is in use once on a socket");
                sent.push(query);
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
            prop_assert_eq!(world.forwarder.in_flight() + world.forwarder.queued(), alive);
        }
        let rest = world.run(2500 * MS);
        prop_assert_eq!(rest.unserved.len() + rest.expired.len(), alive);
        let rest = rest.expired;
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

/// The number in the name that the client asked for.
fn client_of(sent: &Sent) -> u16 {
    let label = &sent.packet[14..13 + usize::from(sent.packet[12])];
    let digit = |number: u16, digit: &u8| number * 10 + u16::from(digit - b'0');
    label.iter().fold(0, digit)
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
