//! A network on virtual time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::clock::VirtualClock;
use crate::upstream::{Reaction, SimUpstream};

/// A discrete-event simulation of datagrams between addresses. The same seed and the same calls
/// give the same run, octet for octet.
///
/// Endpoints are plain addresses that were [`bind`](Self::bind)ed: the test asks for the next
/// [`Event`], hands it to whoever lives there, and [`send`](Self::send)s what comes out.
/// Upstreams live inside and answer by themselves.
///
/// ```
/// use std::time::Duration;
/// use dnscrub_testkit::{Event, Link, SimNetwork};
///
/// let (client, proxy) = ("192.0.2.1:4000".parse().unwrap(), "192.0.2.53:53".parse().unwrap());
/// let mut network = SimNetwork::new(1);
/// network.set_default_link(Link::with_delay(Duration::from_millis(5)));
/// network.bind(client);
/// network.bind(proxy);
/// network.send(client, proxy, b"hello");
/// let event = network.next(Duration::from_secs(1)).unwrap();
/// assert_eq!(event, Event::Datagram { from: client, to: proxy, payload: b"hello".to_vec() });
/// assert_eq!(network.clock().elapsed(), Duration::from_millis(5));
/// ```
#[derive(Debug)]
pub struct SimNetwork {
    clock: VirtualClock,
    random: StdRng,
    bound: BTreeSet<SocketAddr>,
    upstreams: BTreeMap<SocketAddr, SimUpstream>,
    default_link: Link,
    links: HashMap<(IpAddr, IpAddr), Link>,
    /// By instant, then in the order they were scheduled.
    events: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    tally: Tally,
}

/// What a path does to datagrams. The default is perfect and instant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Time every datagram takes.
    pub delay: Duration,
    /// Up to so much more, uniformly.
    pub jitter: Duration,
    /// Share that is lost, 0.0 to 1.0.
    pub loss: f64,
    /// Share that arrives twice.
    pub duplicates: f64,
    /// Share that is held back by [`hold_back`](Self::hold_back), so that later ones overtake it.
    pub reordered: f64,
    /// How long a reordered datagram is held back.
    pub hold_back: Duration,
}

impl Link {
    /// A perfect link with this delay.
    #[must_use]
    pub fn with_delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }
}

/// Something that happens at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A datagram arrived at `to`.
    Datagram {
        /// Its sender.
        from: SocketAddr,
        /// Where it arrived.
        to: SocketAddr,
        /// Its octets.
        payload: Vec<u8>,
    },
    /// `to` learns that nobody listens at `peer`, to which it has sent (ICMP port unreachable).
    Refused {
        /// Who sent the datagram.
        to: SocketAddr,
        /// Where it was refused.
        peer: SocketAddr,
    },
    /// The timer that was set for `to` went off.
    Timer {
        /// Whose timer.
        to: SocketAddr,
    },
}

impl Event {
    /// The endpoint it happens at.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        match *self {
            Self::Datagram { to, .. } | Self::Refused { to, .. } | Self::Timer { to } => to,
        }
    }
}

/// What became of the datagrams. Once nothing is under way,
/// `sent + duplicated = lost + refused + arrived`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams handed to the network, the upstreams' included.
    pub sent: u64,
    /// Copies the network made.
    pub duplicated: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Arrived where nobody listens.
    pub refused: u64,
    /// Arrived at an endpoint, or at an upstream's host.
    pub arrived: u64,
}

impl SimNetwork {
    /// An empty network with perfect links.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            clock: VirtualClock::new(),
            random: StdRng::seed_from_u64(seed),
            bound: BTreeSet::new(),
            upstreams: BTreeMap::new(),
            default_link: Link::default(),
            links: HashMap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            tally: Tally::default(),
        }
    }

    /// The network's time.
    #[must_use]
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// What every path does that has no link of its own.
    pub fn set_default_link(&mut self, link: Link) {
        self.default_link = link;
    }

    /// What the path between two hosts does, in both directions.
    pub fn set_link(&mut self, one: IpAddr, other: IpAddr, link: Link) {
        self.links.insert((one, other), link);
        self.links.insert((other, one), link);
    }

    /// Somebody listens at `endpoint` from now on: datagrams to it become events.
    pub fn bind(&mut self, endpoint: SocketAddr) {
        self.bound.insert(endpoint);
    }

    /// Nobody listens there any longer: datagrams to it, also those under way, are refused.
    pub fn unbind(&mut self, endpoint: SocketAddr) {
        self.bound.remove(&endpoint);
    }

    /// Puts an upstream at `address`.
    pub fn add_upstream(&mut self, address: SocketAddr, upstream: SimUpstream) {
        self.upstreams.insert(address, upstream);
    }

    /// The upstream at `address`.
    ///
    /// # Panics
    /// There is none.
    pub fn upstream(&mut self, address: SocketAddr) -> &mut SimUpstream {
        self.upstreams
            .get_mut(&address)
            .unwrap_or_else(|| panic!("there is no upstream at {address}"))
    }

    /// Hands a datagram to the network.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.send_at(self.now(), from, to, payload);
    }

    /// Hands a datagram to the network at `when`, now or later: a client's schedule can be
    /// written down in advance.
    pub fn send_at(&mut self, when: Instant, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let link = self
            .links
            .get(&(from.ip(), to.ip()))
            .copied()
            .unwrap_or(self.default_link);
        let mut copies = 1;
        self.tally.sent += 1;
        if self.chance(link.duplicates) {
            copies = 2;
            self.tally.duplicated += 1;
        }
        for _ in 0..copies {
            if self.chance(link.loss) {
                self.tally.lost += 1;
                continue;
            }
            let mut arrival = when.max(self.now()) + link.delay;
            if !link.jitter.is_zero() {
                arrival += link.jitter.mul_f64(self.random.random::<f64>());
            }
            if self.chance(link.reordered) {
                arrival += link.hold_back;
            }
            self.schedule(
                arrival,
                Event::Datagram {
                    from,
                    to,
                    payload: payload.to_vec(),
                },
            );
        }
    }

    /// Has [`Event::Timer`] happen at `endpoint`.
    pub fn set_timer(&mut self, endpoint: SocketAddr, when: Instant) {
        self.schedule(when.max(self.now()), Event::Timer { to: endpoint });
    }

    /// Moves time on to the next event at an endpoint, at most by `patience`. Without one in that
    /// time, `None`, and the whole of `patience` has passed.
    pub fn next(&mut self, patience: Duration) -> Option<Event> {
        self.next_until(self.now() + patience)
    }

    /// Moves time on to the next event at an endpoint, at most to `end`. Without one until then,
    /// `None`, and it is `end`.
    pub fn next_until(&mut self, end: Instant) -> Option<Event> {
        while let Some(first) = self
            .events
            .first_entry()
            .filter(|first| first.key().0 <= end)
        {
            let ((when, _), event) = first.remove_entry();
            self.clock.advance_to(when);
            if let Some(event) = self.arrive(event) {
                return Some(event);
            }
        }
        self.clock.advance_to(end);
        None
    }

    /// Hands every event until `end` to `handle`, which may send and set timers.
    pub fn run_until(&mut self, end: Instant, mut handle: impl FnMut(&mut Self, Event)) {
        while let Some(event) = self.next_until(end) {
            handle(self, event);
        }
    }

    /// What became of the datagrams so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Datagrams, refusals and timers that are still to come.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.events.len()
    }

    /// What an event comes to for the test; nothing for what happens at upstreams and nowhere.
    fn arrive(&mut self, event: Event) -> Option<Event> {
        let Event::Datagram { from, to, payload } = event else {
            return Some(event);
        };
        let now = self.now();
        let random = self.random.next_u64();
        match self
            .upstreams
            .get_mut(&to)
            .map(|upstream| upstream.on_datagram(&payload, now, random))
        {
            None if self.bound.contains(&to) => {
                self.tally.arrived += 1;
                return Some(Event::Datagram { from, to, payload });
            }
            None | Some(Reaction::Refuse) => {
                self.tally.refused += 1;
                self.refuse(from, to);
            }
            Some(Reaction::Nothing) => self.tally.arrived += 1,
            Some(Reaction::Answer(due, answers)) => {
                self.tally.arrived += 1;
                for answer in answers {
                    self.send_at(due, to, from, &answer);
                }
            }
        }
        None
    }

    /// The notice travels back with the path's delay; it is not lost, so that tests of refusals
    /// are about refusals.
    fn refuse(&mut self, sender: SocketAddr, peer: SocketAddr) {
        if self.bound.contains(&sender) {
            let link = self
                .links
                .get(&(peer.ip(), sender.ip()))
                .copied()
                .unwrap_or(self.default_link);
            self.schedule(self.now() + link.delay, Event::Refused { to: sender, peer });
        }
    }

    fn schedule(&mut self, when: Instant, event: Event) {
        self.scheduled += 1;
        self.events.insert((when, self.scheduled), event);
    }

    /// Draws only where there is something to decide, so that a perfect link costs no randomness.
    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.random::<f64>() < probability
    }
}
