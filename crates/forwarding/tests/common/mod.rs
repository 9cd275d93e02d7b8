//! A forwarder on virtual time.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failure here fails the test"
)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dnscrub_forwarding::*;
use dnscrub_testkit::VirtualClock;
use dnscrub_wire::{Name, Query, QueryBuilder, qtype};

pub(crate) const MS: Duration = Duration::from_millis(1);

/// A query that was sent to an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) socket: SocketRef,
    pub(crate) packet: Vec<u8>,
}

/// What came out of a tick or a refusal.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    pub(crate) resent: Vec<Sent>,
    pub(crate) expired: Vec<(Client, Vec<u8>)>,
    pub(crate) unserved: Vec<Client>,
    pub(crate) closed: Vec<UpstreamIndex>,
}

pub(crate) struct World {
    pub(crate) clock: VirtualClock,
    pub(crate) forwarder: Forwarder,
    pub(crate) next_client: u16,
}

impl World {
    pub(crate) fn new(pools: &str) -> Self {
        Self::with_capacity(pools, 1024)
    }

    pub(crate) fn with_capacity(pools: &str, capacity: usize) -> Self {
        let clock = VirtualClock::new();
        let policy = Arc::new(build(pools, None, &clock));
        let forwarder = Forwarder::new(policy, 4, capacity, [7; 32], clock.now());
        Self {
            clock,
            forwarder,
            next_client: 0,
        }
    }

    pub(crate) fn reload(&mut self, pools: &str) -> SocketChanges {
        let policy = build(pools, Some(self.forwarder.policy()), &self.clock);
        self.forwarder.adopt(Arc::new(policy), self.clock.now())
    }

    /// Admits a query of the next client and returns it as sent.
    pub(crate) fn ask(&mut self, qname: &str) -> Result<Sent, Admission> {
        self.ask_packet(0, query(qname, 0))
    }

    /// The same with points.
    pub(crate) fn ask_with(&mut self, qname: &str, points: u16) -> Result<Sent, Admission> {
        self.ask_packet_with(0, query(qname, 0), points)
    }

    /// Sends what has waited.
    pub(crate) fn release(&mut self) -> Vec<Sent> {
        let mut released = Vec::with_capacity(1024);
        while self.forwarder.release(&mut released, self.clock.now()) {
            released.reserve(1024);
        }
        let sent = |it: &Released| Sent {
            socket: it.socket,
            packet: self.forwarder.released(it).to_vec(),
        };
        released.iter().map(sent).collect()
    }

    pub(crate) fn ask_packet(&mut self, pool: usize, packet: Vec<u8>) -> Result<Sent, Admission> {
        self.ask_packet_with(pool, packet, 0)
    }

    fn ask_packet_with(
        &mut self,
        pool: usize,
        mut packet: Vec<u8>,
        points: u16,
    ) -> Result<Sent, Admission> {
        let client = client(self.next_client);
        packet[..2].copy_from_slice(&client.id.to_be_bytes());
        self.next_client += 1;
        let before = packet.clone();
        let query = Query::parse(&packet).unwrap();
        match self
            .forwarder
            .admit(pool, &query, &mut packet, client, points, self.clock.now())
        {
            Admission::Forward(socket) => {
                assert_eq!(packet[2..], before[2..], "only the id changes");
                Ok(Sent { socket, packet })
            }
            refused => {
                assert_eq!(packet, before);
                Err(refused)
            }
        }
    }

    /// The upstream answers.
    pub(crate) fn answer(&mut self, sent: &Sent) -> Arrival {
        self.respond(sent.socket, &mut response(&sent.packet))
    }

    pub(crate) fn respond(&mut self, socket: SocketRef, packet: &mut [u8]) -> Arrival {
        self.forwarder.on_response(socket, packet, self.clock.now())
    }

    pub(crate) fn tick(&mut self, advance: Duration) -> Steps {
        let now = self.clock.advance(advance);
        let mut steps = Steps::default();
        self.forwarder.on_tick(now, &mut |step| steps.take(step));
        steps
    }

    /// Ticks every millisecond.
    pub(crate) fn run(&mut self, length: Duration) -> Steps {
        let mut all = Steps::default();
        for _ in 0..length.as_millis() {
            let steps = self.tick(MS);
            all.resent.extend(steps.resent);
            all.expired.extend(steps.expired);
            all.unserved.extend(steps.unserved);
            all.closed.extend(steps.closed);
        }
        all
    }

    pub(crate) fn refuse(&mut self, socket: SocketRef) -> Steps {
        let mut steps = Steps::default();
        self.forwarder
            .on_refused(socket, self.clock.now(), &mut |step| steps.take(step));
        steps
    }

    pub(crate) fn upstream(&self, place: u16) -> &Arc<Upstream> {
        self.forwarder.upstream(UpstreamIndex(place)).unwrap()
    }

    pub(crate) fn snapshot(&self) -> Vec<UpstreamSnapshot> {
        self.forwarder.policy().snapshot(self.clock.now())
    }

    /// How often each upstream is chosen when every query is answered at once.
    pub(crate) fn shares(&mut self, rounds: u32) -> Vec<f64> {
        let mut shares = vec![0.0; self.forwarder.upstreams().count()];
        for name in 0..rounds {
            let sent = self.ask(&format!("n{name}.example.com")).unwrap();
            shares[usize::from(sent.socket.upstream.0)] += 1.0 / f64::from(rounds);
            assert!(matches!(self.answer(&sent), Arrival::Deliver(_)));
        }
        shares
    }
}

impl Steps {
    fn take(&mut self, step: Step<'_>) {
        match step {
            Step::Resend { socket, packet } => self.resent.push(Sent {
                socket,
                packet: packet.to_vec(),
            }),
            Step::Expired { client, query, .. } => self.expired.push((client, query.to_vec())),
            Step::Unserved { client, .. } => self.unserved.push(client),
            Step::Close(upstream) => self.closed.push(upstream),
        }
    }
}

pub(crate) fn build(pools: &str, previous: Option<&Policy>, clock: &VirtualClock) -> Policy {
    Policy::build(
        &serde_json::from_str(pools).unwrap(),
        previous,
        [1, 2, 3, 4],
        clock.now(),
    )
    .unwrap()
}

/// The `pools:` section with one pool of upstreams 192.0.2.1, 192.0.2.2 and so on.
pub(crate) fn pool(upstreams: usize, settings: &str) -> String {
    pool_of(1..=upstreams, settings)
}

pub(crate) fn pool_of(hosts: impl IntoIterator<Item = usize>, settings: &str) -> String {
    let upstreams: Vec<String> = hosts
        .into_iter()
        .map(|host| format!(r#"{{"address": "192.0.2.{host}"}}"#))
        .collect();
    format!(
        r#"{{"default": {{"upstreams": [{}]{settings}}}}}"#,
        upstreams.join(",")
    )
}

pub(crate) fn client(number: u16) -> Client {
    Client {
        address: SocketAddr::from(([198, 51, 100, 1], number)),
        reply_from: None,
        endpoint: 3,
        id: number ^ 0x5a5a,
        verified: false,
        known: false,
    }
}

pub(crate) fn query(qname: &str, id: u16) -> Vec<u8> {
    QueryBuilder::new(&Name::from_text(qname).unwrap(), qtype::A)
        .id(id)
        .udp_size(1232)
        .build()
}

pub(crate) fn response(query: &[u8]) -> Vec<u8> {
    let mut packet = query.to_vec();
    packet[2] |= 0x80;
    packet
}

pub(crate) fn id_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[0], packet[1]])
}

pub(crate) fn distinct<T: std::hash::Hash + Eq>(items: impl IntoIterator<Item = T>) -> usize {
    items.into_iter().collect::<HashSet<_>>().len()
}
