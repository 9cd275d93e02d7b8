//! One worker's forwarding: admits queries, matches responses, sends again, gives up.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnscrub_wire::edit::set_id;
use dnscrub_wire::{HEADER_LEN, Name, Query, Rcode, Response};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::balance::{Candidate, Choice, Rotation, Standing};
use crate::config::{Balancing, WhenNone};
use crate::ids::{Ids, Lead};
use crate::in_flight::{
    Attempt, MAX_TRIES, NO_ATTEMPT, STORED, Slot, Status, Table, is_response_to,
};
use crate::limit::{Bounds, Samples};
use crate::policy::{Policy, Pool};
use crate::pressure::pressure_of;
use crate::queue::{Links, Queue};
use crate::upstream::{Epoch, State, Tally, Upstream, span};
use crate::wheel::Wheel;

/// Most queries in flight a worker can be given.
pub const MAX_CAPACITY: usize = 1 << 20;

/// Unanswered queries in a row, with no other sign of life, that make an upstream suspect.
const SUSPICIOUS_RUN: u32 = 8;

/// An upstream's place in one worker's tables. It stays the same across reloads until
/// [`Step::Close`] ends it; then it may be given to another upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamIndex(pub u16);

/// One of a worker's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketRef {
    /// The upstream it is connected to.
    pub upstream: UpstreamIndex,
    /// Which of the sockets to that upstream, from 0.
    pub socket: u8,
}

/// Who asked, and where the answer must leave from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address and port.
    pub address: SocketAddr,
    /// The address and interface its answer must leave from, where it came in on a wildcard address.
    pub reply_from: Option<(IpAddr, u32)>,
    /// Where its query came in, in the caller's numbering.
    pub endpoint: u16,
    /// Its own message id.
    pub id: u16,
    /// The caller's note that its address is known not to be forged.
    pub verified: bool,
    /// The caller's note that it surely means well, for those who count what is lost.
    pub known: bool,
}

/// What became of a query that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Send it on this socket. It is in flight and ends in a delivery or an expiry.
    Forward(SocketRef),
    /// No upstream of the pool can be used. The packet is unchanged.
    NoUpstream,
    /// The table of queries in flight is full. The packet is unchanged.
    TableFull,
    /// It waits for room at an upstream; [`Forwarder::release`] will tell, or [`Step::Unserved`]. If
    /// `in_place_of_another`, the queue was full, and one with more points was dropped for it.
    Queued {
        /// Whether another query ended for this one.
        in_place_of_another: bool,
    },
    /// All upstreams are at their limits, and the queue is full of queries that are no worse; or the
    /// query is longer than what can wait. The packet is unchanged.
    QueueFull,
}

/// A query that waited and is to be sent now; its octets are [`Forwarder::released`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Where to.
    pub socket: SocketRef,
    /// How long it waited.
    pub waited: Duration,
    /// It was sent before, and is sent again.
    pub again: bool,
    number: u32,
    len: u16,
}

/// What a packet from an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Arrival {
    /// The answer to a query in flight, which ends with it. The packet has the client's id again.
    Deliver(Delivery),
    /// Nothing of ours: to be counted and dropped.
    Stray(StrayReason),
}

/// An answer on its way to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who gets it.
    pub client: Client,
    /// Who answered.
    pub upstream: UpstreamIndex,
    /// Index of the pool; nothing when a reload removed it meanwhile.
    pub pool: Option<usize>,
    /// From sending the query to this upstream to now.
    pub latency: Duration,
    /// From the client's query to now.
    pub waited: Duration,
    /// Octets of the query.
    pub query_len: u16,
    /// How often the query was sent, 1 for once.
    pub tries: u8,
    /// What the answer is.
    pub response: Response,
    /// The query's place in the table, and how many octets of it are kept there.
    number: u32,
    kept: u16,
}

/// Why a packet from an upstream is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StrayReason {
    /// Not a whole, well-formed response (a truncated one may end anywhere).
    Malformed,
    /// An answer to a query that lately ended: a late one, or a second one. The last few thousand
    /// ends are remembered.
    Late,
    /// No query with this id was sent on this socket: perhaps forged.
    UnknownId,
    /// The id is known, the question is another: perhaps forged.
    WrongQuestion,
}

impl StrayReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [
        Self::Malformed,
        Self::Late,
        Self::UnknownId,
        Self::WrongQuestion,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Late => "late",
            Self::UnknownId => "unknown_id",
            Self::WrongQuestion => "wrong_question",
        }
    }

    /// The reason in words.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Malformed => "the packet is no well-formed DNS response",
            Self::Late => "the query was answered or given up already",
            Self::UnknownId => "no query with this id was sent on this socket",
            Self::WrongQuestion => "the response is to another question than the one asked",
        }
    }
}

/// Something the worker has to do.
#[derive(Debug)]
pub enum Step<'a> {
    /// Send this query on this socket: it goes to another upstream, or once more to the same.
    Resend {
        /// Where to.
        socket: SocketRef,
        /// The query, with its new id.
        packet: &'a [u8],
    },
    /// A query was given up.
    Expired {
        /// Who asked.
        client: Client,
        /// The query with the client's id, as it came. Of one of more than 512 octets only header
        /// and question, with the counts of the other sections set to 0.
        query: &'a [u8],
        /// Index of its pool; nothing when a reload removed it meanwhile.
        pool: Option<usize>,
        /// What the client gets.
        when_none: WhenNone,
        /// Since it came.
        waited: Duration,
    },
    /// A query waited for room at an upstream until its time was over, until a reload removed its pool,
    /// or, if `overrun`, until a better one needed its place. It was never sent.
    Unserved {
        /// Who asked.
        client: Client,
        /// The query as it came.
        query: &'a [u8],
        /// Whether it gave way to another.
        overrun: bool,
        /// Since it came.
        waited: Duration,
    },
    /// Close the sockets to this upstream: a reload removed it, and nothing is in flight there.
    Close(UpstreamIndex),
}

/// A query that ended while it waited for room.
#[derive(Clone, Copy)]
struct Ended {
    client: Client,
    admitted: u64,
    number: u32,
    stored_len: u16,
}

impl Ended {
    const fn of(number: u32, slot: &Slot) -> Self {
        Self {
            client: slot.client,
            admitted: slot.admitted,
            number,
            stored_len: slot.stored_len,
        }
    }
}

/// What a reload asks of a worker's sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketChanges {
    /// Open sockets to these.
    pub open: Vec<(UpstreamIndex, SocketAddr)>,
    /// These get no new queries and will be closed by [`Step::Close`]; until then responses count.
    pub drain: Vec<UpstreamIndex>,
}

/// Queries in flight of one worker, and the choice of an upstream for each.
///
/// All memory is reserved at construction and when a reload adds upstreams; the table for
/// `capacity` queries is touched only as far as it was ever full. When it is full, new queries are
/// refused with [`Admission::TableFull`] and those in flight are not disturbed.
///
/// A query is *outstanding* at an upstream from its sending until it is answered, overdue
/// (`retry-after`) or refused. Its ids stay valid until it ends:
/// the first answer from any upstream it was sent to is delivered, and what comes later is a stray.
///
/// While all upstreams of a pool are at their limits, queries wait in the pool's queue. They take slots
/// of the same table. Whoever calls [`Self::on_response`], [`Self::admit`] or [`Self::on_tick`] calls
/// [`Self::release`] afterwards, once for a batch, and sends what it gives.
///
/// An upstream's limit is for all workers together, and each sees the others as of its last tick. A
/// worker may always have its share, the limit divided by the workers that use the upstream; beyond
/// that it may have what the others leave. So no worker is shut out by another, and the limit can be
/// exceeded by less than itself times the number of workers, for as long as a tick.
///
/// Counters reach the shared [`Upstream`]s, and health changes reach the choice, with
/// [`Self::on_tick`], which is to be called every few milliseconds.
#[derive(Debug)]
pub struct Forwarder {
    policy: Arc<Policy>,
    epoch: Epoch,
    attached: Vec<Option<Attached>>,
    rotations: Vec<Rotation>,
    table: Table,
    ids: Ids,
    wheel: Wheel,
    /// By the pool's index.
    queues: Vec<PoolQueue>,
    links: Links,
    rng: StdRng,
    sockets: u8,
    batch: u32,
}

/// A pool's queue in this worker.
#[derive(Debug)]
struct PoolQueue {
    queue: Queue,
    /// Its length as last published.
    published: u32,
    /// Queries left it unserved since the last tick.
    overrun: bool,
}

/// An upstream with sockets of this worker.
#[derive(Debug)]
struct Attached {
    shared: Arc<Upstream>,
    /// Ids in use on its sockets.
    ids: u32,
    /// Queries sent there since a refusal last made queries move.
    sent_since_refusal: u32,
    /// Index of its pool; nothing when it drains.
    pool: Option<u16>,
    /// Outstanding queries of this worker, now and as last published.
    outstanding: u32,
    published: u32,
    /// Outstanding queries of the other workers at the last tick.
    others: u32,
    /// How many there may be of all workers, and how many of this one whatever the others have.
    limit: u32,
    share: u32,
    /// Most outstanding queries of this worker since the last tick.
    peak: u32,
    /// Those over TCP, which are among the outstanding ones.
    streams: u32,
    /// Whether this worker counts among the users.
    used: bool,
    bounds: Bounds,
    samples: Box<Samples>,
    tally: Tally,
    /// When an answer last came, until published.
    answered_at: Option<u64>,
    /// Unanswered queries since the last answer, and when the first of them was sent.
    silent_run: u32,
    silent_since: u64,
    /// The batch `socket` was picked for.
    batch: u32,
    socket: u8,
}

impl Forwarder {
    /// A worker's forwarder for `capacity` queries in flight (1 to [`MAX_CAPACITY`], others are
    /// moved into that range) with at least one socket per upstream. `seed` must be unpredictable:
    /// query ids are drawn from it. Sockets are to be opened for all of [`Self::upstreams`].
    #[must_use]
    pub fn new(
        policy: Arc<Policy>,
        sockets_per_upstream: u8,
        capacity: usize,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        let mut forwarder = Self {
            epoch: policy.epoch(),
            policy: Arc::clone(&policy),
            attached: Vec::new(),
            rotations: Vec::new(),
            table: Table::new(capacity),
            ids: Ids::new(capacity.saturating_mul(MAX_TRIES)),
            wheel: Wheel::new(capacity),
            queues: Vec::new(),
            links: Links::new(capacity),
            rng: StdRng::from_seed(seed),
            sockets: sockets_per_upstream.max(1),
            batch: 0,
        };
        forwarder.adopt(policy, now);
        forwarder
    }

    /// Every upstream with sockets, draining ones included.
    pub fn upstreams(&self) -> impl Iterator<Item = (UpstreamIndex, &Arc<Upstream>)> {
        let numbered = self.attached.iter().enumerate();
        numbered.filter_map(|(place, attached)| {
            Some((
                UpstreamIndex(u16::try_from(place).ok()?),
                &attached.as_ref()?.shared,
            ))
        })
    }

    /// The upstream at this index.
    #[must_use]
    pub fn upstream(&self, index: UpstreamIndex) -> Option<&Arc<Upstream>> {
        self.attached(index).map(|attached| &attached.shared)
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Goes over to another policy. Queries in flight stay in flight; those whose pool is gone are
    /// not sent again. Upstreams that are gone drain; one that comes back while it still drains is
    /// used again with the sockets it has.
    pub fn adopt(&mut self, policy: Arc<Policy>, now: Instant) -> SocketChanges {
        let mut changes = SocketChanges::default();
        let pool_moves: Vec<Option<u16>> = self
            .policy
            .pools()
            .iter()
            .map(|old| index_of(&policy, &old.name))
            .collect();
        for slot in self.table.slots_mut() {
            slot.pool = slot
                .pool
                .and_then(|old| pool_moves.get(usize::from(old)).copied().flatten());
        }
        self.move_queues(&policy, &pool_moves, now);
        let served_before: Vec<bool> = self
            .attached
            .iter()
            .map(|attached| {
                attached
                    .as_ref()
                    .is_some_and(|attached| attached.pool.is_some())
            })
            .collect();
        for attached in self.attached.iter_mut().flatten() {
            attached.pool = None;
        }
        self.rotations.clear();
        for (pool_index, pool) in policy.pools().iter().enumerate() {
            let mut candidates = Vec::with_capacity(pool.members.len());
            for (member_index, member) in pool.members.iter().enumerate() {
                let Some((index, new)) = self.attach(&member.upstream) else {
                    continue;
                };
                if new {
                    changes.open.push((index, member.upstream.address()));
                }
                if let Some(attached) = self.attached_mut(index) {
                    attached.pool = u16::try_from(pool_index).ok();
                    attached.bounds = bounds(pool, member.max_outstanding);
                    attached.look_at_limit();
                }
                candidates.push(Candidate {
                    index,
                    member: member_index,
                    weight: 1,
                    standing: Standing::Out,
                    key: policy.address_key(member.upstream.address()),
                    credit: 0,
                });
            }
            self.rotations.push(Rotation {
                balancing: pool.balancing,
                candidates,
            });
        }
        for (place, served) in served_before.iter().enumerate() {
            let index = UpstreamIndex(place as u16);
            if *served
                && self
                    .attached(index)
                    .is_some_and(|attached| attached.pool.is_none())
            {
                changes.drain.push(index);
            }
        }
        self.policy = policy;
        self.refresh(self.epoch.nanos(now));
        changes
    }

    /// Begins a batch: each upstream's queries of one batch use one socket, chosen at random when
    /// the first of them is admitted, so that they can be sent with one system call.
    pub const fn begin_batch(&mut self) {
        self.batch = self.batch.wrapping_add(1);
    }

    /// Takes a query in. If it is to be forwarded, `packet` (the query's octets) has a fresh random
    /// id afterwards and is otherwise unchanged. Where there is room its `points` do not matter; in the
    /// queue, those with fewer go first.
    pub fn admit(
        &mut self,
        pool: usize,
        query: &Query,
        packet: &mut [u8],
        client: Client,
        points: u16,
        now: Instant,
    ) -> Admission {
        let now = self.epoch.nanos(now);
        let Some(settings) = self.policy.pools().get(pool) else {
            return Admission::NoUpstream;
        };
        let name_key = match settings.balancing {
            Balancing::ConsistentHash => self.policy.name_key(&query.qname),
            _ => 0,
        };
        let expires = now.saturating_add(span(settings.patience));
        let due = now.saturating_add(span(settings.retry_after)).min(expires);
        let (length, max_wait) = (settings.queue_length, settings.max_wait);
        let waiting = self.queues.get(pool).map_or(0, |it| it.queue.len());
        let upstream = match self.choose_with_room(pool, name_key, &[], length > 0) {
            // those that wait have been here longer, but the new one may be better
            Choice::Upstream(upstream) if waiting == 0 => Some(upstream),
            Choice::Upstream(_) | Choice::Full => None,
            Choice::Nobody => return Admission::NoUpstream,
        };
        let whole = packet.len() <= STORED;
        let mut in_place_of_another = false;
        if upstream.is_none() {
            if !whole {
                return self.overrun(pool);
            }
            // a place in the queue, and one in the table
            if waiting >= length || self.table.is_full() {
                match self.drop_worse_than(points, pool) {
                    Some(ended) => in_place_of_another = ended.is_some(),
                    None => return self.overrun(pool),
                }
            }
        }
        if self.table.is_full() {
            return Admission::TableFull;
        }
        let kept = if whole {
            packet.len()
        } else {
            usize::from(query.question_end)
        };
        let slot = Slot {
            client,
            admitted: now,
            expires,
            name_key,
            pool: u16::try_from(pool).ok(),
            points,
            query_len: packet.len() as u16,
            stored_len: kept as u16,
            question_end: query.question_end,
            whole,
            tries: 0,
            attempts: [NO_ATTEMPT; MAX_TRIES],
        };
        let Some(number) = self
            .table
            .insert(slot, packet.get(..kept).unwrap_or_default())
        else {
            return Admission::TableFull;
        };
        let Some(upstream) = upstream else {
            if let Some(waiting) = self.queues.get_mut(pool) {
                waiting.queue.push(&mut self.links, number, points);
            }
            let until = now.saturating_add(span(max_wait)).min(expires);
            self.wheel.schedule(number, until);
            return Admission::Queued {
                in_place_of_another,
            };
        };
        let Some((socket, id)) = self.attempt(number, upstream, now) else {
            // nearly all ids of all sockets to this upstream are in use
            self.table.remove(number);
            return Admission::TableFull;
        };
        if !whole
            && let Some(counts) = self
                .table
                .stored_mut(number, kept)
                .and_then(|query| query.get_mut(6..12))
        {
            counts.fill(0);
        }
        self.wheel.schedule(number, due);
        set_id(packet, id);
        Admission::Forward(socket)
    }

    /// Takes a packet that arrived on a socket. If it answers a query in flight, that query has
    /// ended and `packet` has the client's id again; otherwise `packet` is unchanged. Id, socket
    /// and question must match, the name in the question whatever its case.
    pub fn on_response(&mut self, from: SocketRef, packet: &mut [u8], now: Instant) -> Arrival {
        let now = self.epoch.nanos(now);
        let Ok(response) = Response::parse(packet) else {
            return Arrival::Stray(StrayReason::Malformed);
        };
        let number = match self.ids.lookup(from, response.id) {
            Lead::Slot(number) => number,
            Lead::Late => return Arrival::Stray(StrayReason::Late),
            Lead::Unknown => return Arrival::Stray(StrayReason::UnknownId),
        };
        let Some(slot) = self.table.get(number) else {
            return Arrival::Stray(StrayReason::UnknownId);
        };
        let question = self
            .table
            .stored(number, slot.question_end.into())
            .get(HEADER_LEN..);
        if !is_response_to(&response, packet, question.unwrap_or_default()) {
            return Arrival::Stray(StrayReason::WrongQuestion);
        }
        let answered = slot
            .attempts()
            .iter()
            .find(|attempt| attempt.socket == from && attempt.id == response.id);
        let latency = now.saturating_sub(answered.map_or(now, |attempt| attempt.sent));
        let late = answered.is_some_and(|attempt| attempt.status == Status::GivenUp);
        let delivery = Delivery {
            client: slot.client,
            upstream: from.upstream,
            pool: slot.pool.map(usize::from),
            latency: Duration::from_nanos(latency),
            waited: Duration::from_nanos(now.saturating_sub(slot.admitted)),
            query_len: slot.query_len,
            tries: slot.tries,
            response,
            number,
            kept: slot.stored_len,
        };
        self.finish(number);
        if let Some(attached) = self.attached_mut(from.upstream) {
            attached.tally.answered = attached.tally.answered.saturating_add(1);
            let servfail = u64::from(delivery.response.rcode == Rcode::SERVFAIL);
            attached.tally.servfails = attached.tally.servfails.saturating_add(servfail);
            attached.tally.latency = attached.tally.latency.saturating_add(latency);
            attached.samples.answer(latency, late);
            attached.answered_at = Some(now);
            attached.silent_run = 0;
        }
        set_id(packet, delivery.client.id);
        Arrival::Deliver(delivery)
    }

    /// The query that an answer is to, as it came but perhaps with another id; to be read before
    /// the next query is admitted. Of one of more than 512 octets only header and question, with
    /// the counts of the other sections set to 0.
    #[must_use]
    pub fn query_of(&self, delivery: &Delivery) -> &[u8] {
        self.table
            .stored(delivery.number, usize::from(delivery.kept))
    }

    /// ICMP said that nobody listens at the other end of a socket. The upstream becomes suspect,
    /// and what is outstanding there on any socket moves to other upstreams at once, as far as
    /// there are good ones and the queries may be sent again. What cannot move waits on, as a
    /// server that is restarting will be back soon.
    pub fn on_refused(&mut self, socket: SocketRef, now: Instant, sink: &mut impl FnMut(Step<'_>)) {
        let now = self.epoch.nanos(now);
        let upstream = socket.upstream;
        let Some(attached) = self.attached_mut(upstream) else {
            return;
        };
        attached.tally.refused = attached.tally.refused.saturating_add(1);
        attached.shared.suspect(now);
        self.refresh(now);
        let alternatives = self
            .rotations
            .iter()
            .any(|rotation| rotation.has_alternative(upstream));
        let news = self
            .attached(upstream)
            .is_some_and(|attached| attached.sent_since_refusal > 0);
        if !alternatives || !news {
            return;
        }
        for number in 0..self.table.touched() {
            if self
                .attached(upstream)
                .is_none_or(|attached| attached.outstanding == 0)
            {
                break;
            }
            self.move_away(number, upstream, now, sink);
        }
        if let Some(attached) = self.attached_mut(upstream) {
            attached.sent_since_refusal = 0;
        }
    }

    /// Does what is due: sends again, gives up, closes what has drained; exchanges counters and
    /// health with the other workers. To be called every few milliseconds; it costs what is due,
    /// not what is in flight.
    pub fn on_tick(&mut self, now: Instant, sink: &mut impl FnMut(Step<'_>)) {
        let now = self.epoch.nanos(now);
        self.publish(now);
        self.refresh(now);
        while let Some(number) = self.wheel.pop(now) {
            self.on_due(number, now, sink);
        }
        self.publish(now);
        self.publish_queues(now);
        for (place, slot) in self.attached.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|attached| {
                attached.pool.is_none() && attached.ids == 0 && attached.streams == 0
            }) {
                *slot = None;
                sink(Step::Close(UpstreamIndex(place as u16)));
            }
        }
    }

    /// Chooses an upstream for a query that travels outside this table (TCP). Those in `exclude`
    /// are chosen only when no other is left.
    pub fn pick(
        &mut self,
        pool: usize,
        qname: &Name,
        exclude: &[UpstreamIndex],
    ) -> Option<UpstreamIndex> {
        let name_key = self.policy.name_key(qname);
        self.choose(Some(pool), name_key, exclude)
    }

    /// So many queries are outstanding at an upstream outside this table (over TCP). They count towards
    /// its limit.
    pub fn set_streams(&mut self, upstream: UpstreamIndex, outstanding: u32) {
        if let Some(attached) = self.attached_mut(upstream) {
            let udp = attached.outstanding.saturating_sub(attached.streams);
            attached.streams = outstanding;
            attached.outstanding = udp.saturating_add(outstanding);
        }
    }

    /// A query was sent to an upstream outside this table (over TCP).
    pub fn stream_sent(&mut self, upstream: UpstreamIndex) {
        if let Some(attached) = self.attached_mut(upstream) {
            attached.tally.forwarded = attached.tally.forwarded.saturating_add(1);
        }
    }

    /// An answer came outside this table (over TCP).
    pub fn stream_answered(&mut self, upstream: UpstreamIndex, now: Instant) {
        let now = self.epoch.nanos(now);
        if let Some(attached) = self.attached_mut(upstream) {
            attached.tally.stream_answers = attached.tally.stream_answers.saturating_add(1);
            attached.answered_at = Some(now);
        }
    }

    /// A query outside this table (over TCP) was not answered in time.
    pub fn stream_overdue(&mut self, upstream: UpstreamIndex) {
        if let Some(attached) = self.attached_mut(upstream) {
            attached.tally.timeouts = attached.tally.timeouts.saturating_add(1);
        }
    }

    /// Sends what has waited, best first, as far as there is room by now: appends to `released`, but not
    /// beyond its capacity. Returns whether there is more.
    pub fn release(&mut self, released: &mut Vec<Released>, now: Instant) -> bool {
        let now = self.epoch.nanos(now);
        for pool in 0..self.queues.len() {
            while let Some(number) = self.queues.get(pool).and_then(|it| it.queue.best()) {
                if released.len() >= released.capacity() {
                    return true;
                }
                let Some(free) = self.release_one(pool, number, now) else {
                    break;
                };
                released.push(free);
            }
        }
        false
    }

    /// The octets of a released query, with its new id; until the next call of another method.
    #[must_use]
    pub fn released(&self, released: &Released) -> &[u8] {
        self.table.stored(released.number, released.len.into())
    }

    /// Queries in flight: sent, without an answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.table.in_flight().saturating_sub(self.queued())
    }

    /// Queries that wait for room at an upstream.
    #[must_use]
    pub fn queued(&self) -> usize {
        let lengths = self.queues.iter().map(|waiting| waiting.queue.len());
        lengths.fold(0, usize::saturating_add)
    }

    /// Most queries that can be in flight.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// How close the pool is to its limit, 0 to 1: 0 while half of its upstreams' limits is free, one half
    /// when all is used, 1 when its queue builds up. It takes both: that the pool was so for a tenth of
    /// a second, and that it still is, so that a burst does not raise it, and nothing is shed for a
    /// pressure that is over. 1 for a pool that does not exist.
    #[must_use]
    pub fn pressure(&self, pool: usize) -> f32 {
        let Some(settings) = self.policy.pools().get(pool) else {
            return 1.0;
        };
        let lately = settings.load.pressure();
        if lately == 0.0 {
            return 0.0;
        }
        let (outstanding, room) = self
            .rotations
            .get(pool)
            .map_or((0, 0), |it| usage(&self.attached, it));
        let waiting = self.queues.get(pool).map_or(0, |it| it.queue.len());
        let fill = waiting as f32 / settings.queue_length.max(1) as f32;
        lately.min(pressure_of(fill, outstanding, room))
    }

    fn attached(&self, index: UpstreamIndex) -> Option<&Attached> {
        self.attached.get(usize::from(index.0))?.as_ref()
    }

    fn attached_mut(&mut self, index: UpstreamIndex) -> Option<&mut Attached> {
        self.attached.get_mut(usize::from(index.0))?.as_mut()
    }

    /// The upstream's index, and whether it is new here.
    fn attach(&mut self, upstream: &Arc<Upstream>) -> Option<(UpstreamIndex, bool)> {
        let is_it = |slot: &Option<Attached>| {
            slot.as_ref()
                .is_some_and(|attached| Arc::ptr_eq(&attached.shared, upstream))
        };
        if let Some(place) = self.attached.iter().position(is_it) {
            return Some((UpstreamIndex(u16::try_from(place).ok()?), false));
        }
        let place = self
            .attached
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.attached.len());
        let index = UpstreamIndex(u16::try_from(place).ok()?);
        let attached = Some(Attached {
            shared: Arc::clone(upstream),
            ids: 0,
            sent_since_refusal: 0,
            pool: None,
            outstanding: 0,
            published: 0,
            others: 0,
            limit: 0,
            share: 0,
            peak: 0,
            streams: 0,
            used: false,
            bounds: Bounds {
                ceiling: 1,
                overdue: 0,
            },
            samples: Box::default(),
            tally: Tally::default(),
            answered_at: None,
            silent_run: 0,
            silent_since: 0,
            batch: self.batch.wrapping_sub(1),
            socket: 0,
        });
        match self.attached.get_mut(place) {
            Some(free) => *free = attached,
            None => self.attached.push(attached),
        }
        Some((index, true))
    }

    fn choose(
        &mut self,
        pool: Option<usize>,
        name_key: u64,
        exclude: &[UpstreamIndex],
    ) -> Option<UpstreamIndex> {
        let random = self.rng.next_u64();
        let rotation = self.rotations.get_mut(pool?)?;
        rotation.choose(name_key, random, exclude, |index| {
            load(&self.attached, index)
        })
    }

    /// Chooses an upstream that is below its limit; any, where there is none.
    fn choose_with_room(
        &mut self,
        pool: usize,
        name_key: u64,
        exclude: &[UpstreamIndex],
        limited: bool,
    ) -> Choice {
        let random = self.rng.next_u64();
        let Some(rotation) = self.rotations.get_mut(pool) else {
            return Choice::Nobody;
        };
        rotation.choose_with_room(
            name_key,
            random,
            exclude,
            |index| load(&self.attached, index),
            |index| !limited || has_room(&self.attached, index),
        )
    }

    /// Notes that a query could not even wait.
    fn overrun(&mut self, pool: usize) -> Admission {
        if let Some(waiting) = self.queues.get_mut(pool) {
            waiting.overrun = true;
        }
        Admission::QueueFull
    }

    /// Takes the oldest of those with the most points out of the queue, if these are more than `points`.
    /// It ends and is returned, unless it was sent before: then it waits on for an answer.
    fn drop_worse_than(&mut self, points: u16, pool: usize) -> Option<Option<Ended>> {
        let waiting = self.queues.get_mut(pool)?;
        let worst = waiting.queue.worse_than(points)?;
        waiting.overrun = true;
        let slot = self.table.get(worst)?;
        let (ended, sent, expires) = (Ended::of(worst, slot), slot.tries > 0, slot.expires);
        if sent {
            self.leave_queue(worst);
            self.wheel.schedule(worst, expires);
            return Some(None);
        }
        self.finish(worst);
        Some(Some(ended))
    }

    /// Tells of a query that ended while it waited; to be called before the next one is admitted.
    fn tell_unserved(
        &self,
        ended: Ended,
        overrun: bool,
        now: u64,
        sink: &mut impl FnMut(Step<'_>),
    ) {
        sink(Step::Unserved {
            client: ended.client,
            query: self.table.stored(ended.number, ended.stored_len.into()),
            overrun,
            waited: Duration::from_nanos(now.saturating_sub(ended.admitted)),
        });
    }

    /// Takes a query out of its pool's queue, if it waits there.
    fn leave_queue(&mut self, number: u32) {
        if !self.links.waits(number) {
            return;
        }
        let pool = self.table.get(number).and_then(|slot| slot.pool);
        if let Some(waiting) = pool.and_then(|pool| self.queues.get_mut(usize::from(pool))) {
            waiting.queue.remove(&mut self.links, number);
        }
    }

    /// Sends the query that is next in the pool's queue, if an upstream has room.
    fn release_one(&mut self, pool: usize, number: u32, now: u64) -> Option<Released> {
        let slot = self.table.get(number)?;
        let (name_key, admitted, expires, len) =
            (slot.name_key, slot.admitted, slot.expires, slot.stored_len);
        let (tried, tries) = slot.tried();
        let tried = tried.get(..tries).unwrap_or_default();
        let Choice::Upstream(upstream) = self.choose_with_room(pool, name_key, tried, true) else {
            return None;
        };
        let (socket, id) = self.attempt(number, upstream, now)?;
        self.leave_queue(number);
        let settings = self.policy.pools().get(pool)?;
        let due = now.saturating_add(span(settings.retry_after)).min(expires);
        self.wheel.schedule(number, due);
        set_id(self.table.stored_mut(number, len.into())?, id);
        Some(Released {
            socket,
            waited: Duration::from_nanos(now.saturating_sub(admitted)),
            again: tries > 0,
            number,
            len,
        })
    }

    /// A query has waited for its time. Returns whether that was its end.
    fn end_waiting(&mut self, number: u32, now: u64, sink: &mut impl FnMut(Step<'_>)) -> bool {
        let Some(slot) = self.table.get(number) else {
            return false;
        };
        let (ended, sent, pool) = (Ended::of(number, slot), slot.tries > 0, slot.pool);
        if self.links.waits(number)
            && let Some(waiting) = pool.and_then(|pool| self.queues.get_mut(usize::from(pool)))
        {
            waiting.overrun = true;
        }
        if sent {
            self.leave_queue(number);
            return false;
        }
        self.finish(number);
        self.tell_unserved(ended, false, now, sink);
        true
    }

    /// Queues go with their pools. What waits in one whose pool is gone ends at the next tick.
    fn move_queues(&mut self, policy: &Policy, moves: &[Option<u16>], now: Instant) {
        let fresh = || PoolQueue {
            queue: Queue::new(),
            published: 0,
            overrun: false,
        };
        let mut queues: Vec<PoolQueue> = policy.pools().iter().map(|_| fresh()).collect();
        let before = std::mem::take(&mut self.queues);
        for ((mut waiting, old), moved) in before.into_iter().zip(self.policy.pools()).zip(moves) {
            if let Some(place) = moved.and_then(|new| queues.get_mut(usize::from(new))) {
                *place = waiting;
                continue;
            }
            old.load.publish_queued(waiting.published, 0);
            while let Some(number) = waiting.queue.best() {
                waiting.queue.remove(&mut self.links, number);
                self.wheel.schedule(number, self.epoch.nanos(now));
            }
        }
        self.queues = queues;
    }

    /// Exchanges what waits, and has the pressure worked out.
    fn publish_queues(&mut self, now: u64) {
        let pools = self.policy.pools().iter().zip(&mut self.queues);
        for ((pool, waiting), rotation) in pools.zip(&self.rotations) {
            let len = u32::try_from(waiting.queue.len()).unwrap_or(u32::MAX);
            if len != waiting.published {
                pool.load.publish_queued(waiting.published, len);
                waiting.published = len;
            }
            let fill = if std::mem::take(&mut waiting.overrun) {
                1.0
            } else {
                len as f32 / pool.queue_length.max(1) as f32
            };
            let (outstanding, room) = usage(&self.attached, rotation);
            pool.load.update(fill, outstanding, room, now);
        }
    }

    /// Books one more sending of the query to `upstream`.
    fn attempt(
        &mut self,
        number: u32,
        upstream: UpstreamIndex,
        now: u64,
    ) -> Option<(SocketRef, u16)> {
        let attached = self.attached.get_mut(usize::from(upstream.0))?.as_mut()?;
        if attached.batch != self.batch {
            attached.batch = self.batch;
            attached.socket = (self.rng.next_u32() as u8).checked_rem(self.sockets)?;
        }
        let slot = self.table.get_mut(number)?;
        let attempt = slot.attempts.get_mut(usize::from(slot.tries))?;
        let (socket, id) = (0..self.sockets).find_map(|step| {
            let socket = u16::from(attached.socket).saturating_add(step.into());
            let socket = socket.checked_rem(self.sockets.into())? as u8;
            let socket = SocketRef { upstream, socket };
            Some((socket, self.ids.claim(socket, number, &mut self.rng)?))
        })?;
        attached.ids = attached.ids.saturating_add(1);
        attached.sent_since_refusal = attached.sent_since_refusal.saturating_add(1);
        *attempt = Attempt {
            socket,
            id,
            status: Status::Waiting,
            sent: now,
        };
        slot.tries = slot.tries.saturating_add(1);
        attached.outstanding = attached.outstanding.saturating_add(1);
        attached.peak = attached.peak.max(attached.outstanding);
        attached.tally.forwarded = attached.tally.forwarded.saturating_add(1);
        Some((socket, id))
    }

    /// Ends a query: frees its ids and its slot.
    fn finish(&mut self, number: u32) {
        self.wheel.cancel(number);
        self.leave_queue(number);
        let Some(slot) = self.table.get(number) else {
            return;
        };
        for attempt in slot.attempts() {
            self.ids.release(attempt.socket, attempt.id);
            let Some(attached) = self
                .attached
                .get_mut(usize::from(attempt.socket.upstream.0))
                .and_then(Option::as_mut)
            else {
                continue;
            };
            attached.ids = attached.ids.saturating_sub(1);
            if attempt.status == Status::Waiting {
                attached.outstanding = attached.outstanding.saturating_sub(1);
            }
        }
        self.table.remove(number);
    }

    fn on_due(&mut self, number: u32, now: u64, sink: &mut impl FnMut(Step<'_>)) {
        let waited = self.links.waits(number);
        if self.end_waiting(number, now, sink) {
            return;
        }
        self.give_up_overdue(number, now);
        let Some(slot) = self.table.get(number) else {
            return;
        };
        let (client, pool, admitted, expires, stored_len) = (
            slot.client,
            slot.pool.map(usize::from),
            slot.admitted,
            slot.expires,
            slot.stored_len.into(),
        );
        if now < expires {
            if waited {
                // there was no room to send it again
                self.wheel.schedule(number, expires);
            } else {
                self.send_again(number, now, sink);
            }
            return;
        }
        self.finish(number);
        if let Some(query) = self.table.stored_mut(number, stored_len) {
            set_id(query, client.id);
        }
        let when_none = pool
            .and_then(|pool| self.policy.pools().get(pool))
            .map(|pool| pool.when_none)
            .unwrap_or_default();
        sink(Step::Expired {
            client,
            query: self.table.stored(number, stored_len),
            pool,
            when_none,
            waited: Duration::from_nanos(now.saturating_sub(admitted)),
        });
    }

    /// The last sending of the query was not answered in time.
    fn give_up_overdue(&mut self, number: u32, now: u64) {
        let Some(attempt) = self.table.get_mut(number).and_then(Slot::last_attempt) else {
            return;
        };
        if attempt.status == Status::GivenUp {
            return;
        }
        attempt.status = Status::GivenUp;
        let Attempt { socket, sent, .. } = *attempt;
        let Some(attached) = self.attached_mut(socket.upstream) else {
            return;
        };
        attached.outstanding = attached.outstanding.saturating_sub(1);
        attached.tally.timeouts = attached.tally.timeouts.saturating_add(1);
        attached.samples.lost();
        if attached.silent_run == 0 {
            attached.silent_since = sent;
        }
        attached.silent_run = attached.silent_run.saturating_add(1);
        // Answers to other workers and health probes are signs of life as well.
        let silent = attached.silent_run >= SUSPICIOUS_RUN
            && attached.shared.last_alive() <= attached.silent_since;
        if attached.silent_run >= SUSPICIOUS_RUN && !silent {
            attached.silent_run = 0;
        }
        if silent && !attached.shared.suspect_at(now) {
            attached.shared.suspect(now);
            self.refresh(now);
        }
    }

    /// Sends a query to an upstream it was not sent to before, or, if there is none, to any; then
    /// sets the time at which it is due next. Where there is no room it waits for it, like a new one.
    fn send_again(&mut self, number: u32, now: u64, sink: &mut impl FnMut(Step<'_>)) {
        let Some(slot) = self.table.get(number) else {
            return;
        };
        let (pool, expires, name_key, stored_len, points) = (
            slot.pool.map(usize::from),
            slot.expires,
            slot.name_key,
            slot.stored_len,
            slot.points,
        );
        let settings = pool.and_then(|pool| Some((pool, self.policy.pools().get(pool)?)));
        let Some((pool, settings)) =
            settings.filter(|(_, settings)| slot.whole && slot.tries <= settings.retries)
        else {
            self.wheel.schedule(number, expires);
            return;
        };
        let due = now.saturating_add(span(settings.retry_after)).min(expires);
        let queues = settings.queue_length > 0;
        let (tried, tries) = slot.tried();
        let tried = tried.get(..tries).unwrap_or_default();
        let waiting = self.queues.get(pool).map_or(0, |it| it.queue.len());
        let upstream = match self.choose_with_room(pool, name_key, tried, queues) {
            Choice::Upstream(upstream) if waiting == 0 => upstream,
            Choice::Upstream(_) | Choice::Full => {
                self.wait_again(number, pool, points, now, sink);
                return;
            }
            Choice::Nobody => {
                self.wheel.schedule(number, due);
                return;
            }
        };
        let sent = self.attempt(number, upstream, now);
        self.wheel.schedule(number, due);
        let Some((socket, id)) = sent else { return };
        if let Some(packet) = self.table.stored_mut(number, stored_len.into()) {
            set_id(packet, id);
        }
        sink(Step::Resend {
            socket,
            packet: self.table.stored(number, stored_len.into()),
        });
    }

    /// Has a query wait that was sent before; until it expires it may still be answered.
    fn wait_again(
        &mut self,
        number: u32,
        pool: usize,
        points: u16,
        now: u64,
        sink: &mut impl FnMut(Step<'_>),
    ) {
        let expires = self.table.get(number).map_or(now, |slot| slot.expires);
        let settings = self.policy.pools().get(pool);
        let (length, max_wait) = settings.map_or((0, 0), |it| (it.queue_length, span(it.max_wait)));
        let until = now.saturating_add(max_wait).min(expires);
        let full = self
            .queues
            .get(pool)
            .is_none_or(|it| it.queue.len() >= length);
        if full {
            match self.drop_worse_than(points, pool) {
                Some(Some(ended)) => self.tell_unserved(ended, true, now, sink),
                Some(None) => {}
                None => return self.wheel.schedule(number, expires),
            }
        }
        if let Some(waiting) = self.queues.get_mut(pool) {
            waiting.queue.push(&mut self.links, number, points);
        }
        self.wheel.schedule(number, until);
    }

    /// Sends a query that waits for `upstream` to another one, if it can be.
    fn move_away(
        &mut self,
        number: u32,
        upstream: UpstreamIndex,
        now: u64,
        sink: &mut impl FnMut(Step<'_>),
    ) {
        let Some(slot) = self.table.get_mut(number) else {
            return;
        };
        let (pool, whole, tries) = (slot.pool.map(usize::from), slot.whole, slot.tries);
        let may =
            pool.and_then(|pool| Some((self.policy.pools().get(pool)?, self.rotations.get(pool)?)));
        let may = may.is_some_and(|(settings, rotation)| {
            whole && tries <= settings.retries && rotation.has_alternative(upstream)
        });
        let Some(attempt) = slot.last_attempt() else {
            return;
        };
        if !may || attempt.status != Status::Waiting || attempt.socket.upstream != upstream {
            return;
        }
        attempt.status = Status::GivenUp;
        if let Some(attached) = self.attached_mut(upstream) {
            attached.outstanding = attached.outstanding.saturating_sub(1);
        }
        self.send_again(number, now, sink);
    }

    /// Looks again at who may be chosen and with what weight.
    fn refresh(&mut self, now: u64) {
        for (pool, rotation) in self.policy.pools().iter().zip(&mut self.rotations) {
            refresh_rotation(pool, rotation, now);
        }
    }

    fn publish(&mut self, now: u64) {
        for attached in self.attached.iter_mut().flatten() {
            let shared = &attached.shared;
            if let Some(answered_at) = attached.answered_at.take() {
                shared.alive(answered_at.min(now));
            }
            let tally = std::mem::take(&mut attached.tally);
            shared.publish(&tally);
            attached.samples.count(tally.answered, tally.latency);
            if attached.outstanding != attached.published {
                shared.publish_outstanding(attached.published, attached.outstanding);
                attached.published = attached.outstanding;
            }
            attached.others = shared.outstanding().saturating_sub(attached.published);
            let peak = attached.peak.saturating_add(attached.others);
            attached.samples.outstanding(peak);
            attached.peak = attached.outstanding;
            shared.learn(&mut attached.samples, attached.bounds, now);
            let waits = attached
                .pool
                .and_then(|pool| self.queues.get(usize::from(pool)))
                .is_some_and(|waiting| waiting.queue.len() > 0);
            let used = attached.outstanding > 0 || waits;
            shared.publish_use(attached.used, used);
            attached.used = used;
            attached.look_at_limit();
        }
    }
}

impl Attached {
    /// What is outstanding there, of all workers as far as known here.
    const fn load(&self) -> u32 {
        self.others.saturating_add(self.outstanding)
    }

    /// Whether this worker may send another query there.
    const fn has_room(&self) -> bool {
        self.outstanding < self.share || self.load() < self.limit
    }

    fn look_at_limit(&mut self) {
        self.limit = self.shared.limit(self.bounds.ceiling);
        let others = self.shared.users().saturating_sub(self.used.into());
        let users = others.saturating_add(1);
        self.share = self.limit.checked_div(users).unwrap_or(0).max(1);
    }
}

fn bounds(pool: &Pool, max_outstanding: u32) -> Bounds {
    Bounds {
        ceiling: max_outstanding,
        overdue: span(pool.retry_after.min(pool.patience)),
    }
}

/// A worker that ends takes its part out of what is outstanding and what waits.
impl Drop for Forwarder {
    fn drop(&mut self) {
        for attached in self.attached.iter_mut().flatten() {
            attached.shared.publish(&attached.tally);
            attached.shared.publish_outstanding(attached.published, 0);
            attached.shared.publish_use(attached.used, false);
        }
        for (pool, waiting) in self.policy.pools().iter().zip(&self.queues) {
            pool.load.publish_queued(waiting.published, 0);
        }
    }
}

fn index_of(policy: &Policy, pool: &str) -> Option<u16> {
    policy
        .pool_index(pool)
        .and_then(|index| u16::try_from(index).ok())
}

/// What is outstanding at an upstream, of all workers as far as known here.
fn load(attached: &[Option<Attached>], index: UpstreamIndex) -> u32 {
    let attached = attached.get(usize::from(index.0)).and_then(Option::as_ref);
    attached.map_or(0, Attached::load)
}

fn has_room(attached: &[Option<Attached>], index: UpstreamIndex) -> bool {
    let attached = attached.get(usize::from(index.0)).and_then(Option::as_ref);
    attached.is_some_and(Attached::has_room)
}

/// What is outstanding at the upstreams in use, and what may be.
fn usage(attached: &[Option<Attached>], rotation: &Rotation) -> (u64, u64) {
    let (mut outstanding, mut room) = (0_u64, 0_u64);
    for candidate in &rotation.candidates {
        let attached = attached.get(usize::from(candidate.index.0));
        let Some(attached) = attached.and_then(Option::as_ref) else {
            continue;
        };
        if candidate.standing != Standing::Out {
            outstanding = outstanding.saturating_add(attached.load().into());
            room = room.saturating_add(attached.limit.into());
        }
    }
    (outstanding, room)
}

fn refresh_rotation(pool: &Pool, rotation: &mut Rotation, now: u64) {
    let standing = |upstream: &Upstream| {
        if upstream.suspect_at(now) {
            Standing::Suspect
        } else {
            Standing::Good
        }
    };
    let mut active = 0_usize;
    for candidate in &mut rotation.candidates {
        let Some(member) = pool.members.get(candidate.member) else {
            continue;
        };
        let upstream = &member.upstream;
        candidate.weight = member
            .weight
            .saturating_mul(upstream.ramp(pool.slow_start, now))
            .max(1);
        let down = pool.health.is_some() && upstream.state() == State::Down;
        candidate.standing = if down {
            Standing::Out
        } else {
            standing(upstream)
        };
        active = active.saturating_add(usize::from(!down));
    }
    while active < pool.minimum_active {
        let failures = |candidate: &Candidate| {
            pool.members
                .get(candidate.member)
                .map(|member| member.upstream.failures())
        };
        let out = rotation
            .candidates
            .iter_mut()
            .filter(|candidate| candidate.standing == Standing::Out);
        let Some(least_bad) = out.min_by_key(|candidate| failures(candidate)) else {
            return;
        };
        let Some(member) = pool.members.get(least_bad.member) else {
            return;
        };
        least_bad.standing = standing(&member.upstream);
        active = active.saturating_add(1);
    }
}
