//! One packet's way through the proxy: receive → parse → filter → score → decide → forward → reply.
//!
//! [`DataPath`] is one worker's whole state and does no IO: it takes bytes and `now` and says what to
//! send. [`query_round`] and [`response_round`] are the loops around it, generic over [`PacketIo`].
//! TCP shares everything up to the decision through [`DataPath::judge`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use dnscrub_detection::{Answered, Asked, Fate, Place, Watch, Window};
use dnscrub_forwarding::config::WhenNone;
use dnscrub_forwarding::{
    Admission, Arrival, Client, Forwarder, Released, SocketRef, Step, StrayReason, UpstreamIndex,
};
use dnscrub_net::{BUFFER, Outgoing, PacketIo, RecvBatch, SendBatch, SendReport};
use dnscrub_packet_filter::{BlockTable, MalformedAnswer, PacketFilter, Verdict};
use dnscrub_scoring::cookies::Cookie;
use dnscrub_scoring::response_limit::Receiver;
use dnscrub_scoring::{
    Acquaintance, Case, Cause, Context, Home, Judgement, Levels, NameStanding, Orders, Reply,
    Restored, SavedPart, Scorer, Seen, Transport,
};
use dnscrub_wire::edit::{self, ExtendedError};
use dnscrub_wire::{HEADER_LEN, Malformed, Name, Opcode, Query, qtype};
use dnscrub_zones::Zones;

use crate::config::runtime::Reloadable;
use crate::counters::WorkerCounters;
use crate::defence::Sight;
use crate::dnstap::{Asker, Settled, Tap};
use crate::explain::{self, ExplainRequest, Explanation, Knowledge};
use crate::outcome::{self, Answer, Outcome, Reason, ResponseOutcome};
use crate::overload::Overload;
use crate::response_limiter::{Circumstances, ResponseLimiter};

/// The clock of a round: read once, after the packets are in.
pub trait Clock {
    /// The time now.
    fn now(&self) -> Instant;
}

/// A worker's sockets.
pub trait Sockets {
    /// Where queries come from and answers go to.
    type Listener: PacketIo;
    /// Where queries go to and answers come from.
    type Upstream: PacketIo;

    /// The UDP socket of the endpoint with this index, if it has one.
    fn listener(&self, index: u16) -> Option<&Self::Listener>;

    /// The socket to an upstream, while it is open.
    fn upstream(&self, at: SocketRef) -> Option<&Self::Upstream>;
}

/// A batch of queries from a listener: receive, put each through [`DataPath::on_query`], forward,
/// reply. Returns how many packets came; fewer than the batch holds means that the queue is empty.
///
/// # Errors
/// Those of [`PacketIo::receive`].
pub fn query_round<S: Sockets>(
    path: &mut DataPath,
    listener: (Endpoint, &S::Listener),
    sockets: &S,
    round: &mut Round,
    clock: &impl Clock,
) -> io::Result<usize> {
    let (endpoint, listener) = listener;
    let received = listener.receive(&mut round.queries)?;
    let now = clock.now();
    path.choose_sockets(now);
    round.forwards.clear();
    round.replies.clear();
    // all look-ups in a row: where the table is cold, their cache misses overlap
    round.sources.clear();
    round
        .sources
        .extend((0..received).map(|index| path.admit_source(round.queries.source(index).ip())));
    for (index, &source) in round.sources.iter().enumerate() {
        let info = round.queries.info(index);
        let origin = Origin {
            client: round.queries.source(index),
            reply_from: info.reply_from(),
            ttl: info.ttl,
            endpoint,
            transport: Transport::Udp,
        };
        let len = round.queries.len(index);
        let disposition = if round.queries.was_cut(index) {
            path.on_oversized()
        } else {
            path.on_query(round.queries.buffer_mut(index), len, &origin, source, now)
        };
        match disposition {
            Disposition::ToUpstream(socket) => round.forwards.push((socket, index)),
            Disposition::Reply(len) => round.replies.push((index, len)),
            Disposition::Silence => {}
        }
    }
    let Round {
        queries,
        sender,
        connected_sender,
        forwards,
        replies,
        refused,
        ..
    } = round;
    // one system call for each socket used
    forwards.sort_unstable_by_key(|&(socket, index)| (socket.upstream, socket.socket, index));
    for group in forwards.chunk_by(|a, b| a.0 == b.0) {
        let Some(upstream) = group
            .first()
            .and_then(|&(socket, _)| sockets.upstream(socket))
        else {
            continue;
        };
        let packets = group.iter().map(|&(_, index)| Outgoing {
            packet: queries.packet(index),
            to: None,
            from: None,
        });
        let report = upstream.send(connected_sender, packets);
        path.sent(&report);
        if is_refusal(&report) {
            refused.extend(group.first().map(|&(socket, _)| socket));
        }
    }
    if !replies.is_empty() {
        let packets = replies.iter().map(|&(index, len)| Outgoing {
            packet: queries.buffer(index).get(..len).unwrap_or_default(),
            to: Some(queries.source(index)),
            from: queries.info(index).reply_from(),
        });
        path.sent(&listener.send(sender, packets));
    }
    path.release(now, sockets, round);
    Ok(received)
}

/// A batch of packets from an upstream: receive, match each to its query, reply to the clients.
///
/// # Errors
/// Those of [`PacketIo::receive`]; an ICMP refusal among them.
pub fn response_round<S: Sockets>(
    path: &mut DataPath,
    upstream: (SocketRef, &S::Upstream),
    sockets: &S,
    round: &mut Round,
    clock: &impl Clock,
) -> io::Result<usize> {
    let (from, upstream) = upstream;
    let received = upstream.receive(&mut round.responses)?;
    let now = clock.now();
    round.deliveries.clear();
    for index in 0..received {
        let len = round.responses.len(index);
        if round.responses.was_cut(index) {
            path.on_oversized_response();
            continue;
        }
        let buffer = round.responses.buffer_mut(index);
        if let Some((client, len)) = path.on_response(from, buffer, len, now) {
            round.deliveries.push((client, index, len));
        }
    }
    let Round {
        responses,
        sender,
        deliveries,
        ..
    } = round;
    deliveries.sort_unstable_by_key(|(client, index, _)| (client.endpoint, *index));
    for group in deliveries.chunk_by(|a, b| a.0.endpoint == b.0.endpoint) {
        let listener = group
            .first()
            .and_then(|(client, ..)| sockets.listener(client.endpoint));
        let Some(listener) = listener else { continue };
        let packets = group.iter().map(|&(client, index, len)| Outgoing {
            packet: responses.buffer(index).get(..len).unwrap_or_default(),
            to: Some(client.address),
            from: client.reply_from,
        });
        path.sent(&listener.send(sender, packets));
    }
    path.release(now, sockets, round);
    Ok(received)
}

/// Whether the kernel said that nobody listens there.
fn is_refusal(report: &SendReport) -> bool {
    let failure = report.last_error.as_ref();
    failure.is_some_and(|failure| failure.kind() == io::ErrorKind::ConnectionRefused)
}

/// Sends what no packet caused; returns the upstream whose sockets are to be closed, if that is it.
fn perform<S: Sockets>(
    effect: Effect<'_>,
    sockets: &S,
    round: &mut Round,
) -> Option<UpstreamIndex> {
    match effect {
        Effect::Forward(at, packet) => {
            if let Some(upstream) = sockets.upstream(at) {
                upstream.send(
                    &mut round.connected_sender,
                    [Outgoing {
                        packet,
                        to: None,
                        from: None,
                    }],
                );
            }
        }
        Effect::Reply(client, packet) => {
            if let Some(listener) = sockets.listener(client.endpoint) {
                listener.send(
                    &mut round.sender,
                    [Outgoing {
                        packet,
                        to: Some(client.address),
                        from: client.reply_from,
                    }],
                );
            }
        }
        Effect::Close(upstream) => return Some(upstream),
    }
    None
}

/// The buffers of a worker's rounds, allocated once.
pub struct Round {
    queries: RecvBatch,
    sources: Vec<Verdict>,
    responses: RecvBatch,
    sender: SendBatch,
    connected_sender: SendBatch,
    forwards: Vec<(SocketRef, usize)>,
    replies: Vec<(usize, usize)>,
    deliveries: Vec<(Client, usize, usize)>,
    refused: Vec<SocketRef>,
    released: Vec<Released>,
}

impl Round {
    /// For up to `batch` packets in one system call.
    #[must_use]
    pub fn new(batch: usize) -> Self {
        Self {
            queries: RecvBatch::new(batch, BUFFER),
            sources: Vec::with_capacity(batch),
            responses: RecvBatch::connected(batch, BUFFER),
            sender: SendBatch::new(batch),
            connected_sender: SendBatch::new(batch),
            forwards: Vec::with_capacity(batch),
            replies: Vec::with_capacity(batch),
            deliveries: Vec::with_capacity(batch),
            refused: Vec::with_capacity(batch),
            released: Vec::with_capacity(batch),
        }
    }
}

/// One address of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its number among the addresses of all listeners.
    pub index: u16,
    /// Index of the listener in the configuration, which rules know.
    pub listener: u16,
}

/// Where a query came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The client.
    pub client: SocketAddr,
    /// The address and interface that the answer must leave from, where the listener is bound to a
    /// wildcard.
    pub reply_from: Option<(IpAddr, u32)>,
    /// IP TTL or hop limit of the packet.
    pub ttl: Option<u8>,
    /// Where it came in.
    pub endpoint: Endpoint,
    /// UDP or TCP.
    pub transport: Transport,
}

/// A query that may go to an upstream of `pool`.
#[derive(Clone, Copy, Debug)]
pub struct Cleared {
    /// The checked query.
    pub query: Query,
    /// Index of the pool it goes to.
    pub pool: usize,
    /// Its points, which decide where the pool is at its limit; 0 where a rule lets it pass.
    pub points: u16,
    /// It proves its source's address.
    pub proven: bool,
    /// Its source is known, came over its usual path, and asks for a name that exists.
    pub known: bool,
}

/// Who watches while a query is scored: nobody in the proxy, the tally in a replay.
pub(crate) trait Watcher {
    /// Has the scorer judge.
    fn score(&mut self, scorer: &mut Scorer, case: Case<'_>) -> Judgement;
}

/// The proxy's watcher.
struct Nobody;

impl Watcher for Nobody {
    #[inline]
    fn score(&mut self, scorer: &mut Scorer, case: Case<'_>) -> Judgement {
        scorer.judge(case)
    }
}

/// What to do with the packet in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It goes to an upstream as it stands.
    ToUpstream(SocketRef),
    /// Its first `len` octets go back to where the query came from.
    Reply(usize),
    /// Nothing is sent.
    Silence,
}

/// Something to do that no packet caused.
#[derive(Debug)]
enum Effect<'a> {
    /// Send this query again.
    Forward(SocketRef, &'a [u8]),
    /// Send this answer.
    Reply(Client, &'a [u8]),
    /// Close the sockets to this upstream.
    Close(UpstreamIndex),
}

/// A source that a rule wants blocked.
#[derive(Clone, Debug)]
pub struct BlockRequest {
    /// The address.
    pub source: IpAddr,
    /// For how long.
    pub lifetime: Duration,
    /// The rule that asks for it.
    pub rule: u16,
    /// The policy the rule's index belongs to.
    pub policy: u64,
}

/// Sockets of each worker to each upstream, each on a random port of its own (RFC 5452 section 4.5).
pub const SOCKETS_PER_UPSTREAM: u8 = 4;
/// How long a worker stays with one socket of an upstream.
const SOCKET_TURN: Duration = Duration::from_millis(1);
/// Queries a worker can have in flight over UDP.
pub const IN_FLIGHT: usize = 65_536;

/// One worker's state on the packet path.
pub struct DataPath {
    policy: Arc<Reloadable>,
    blocklist: Cache<Arc<ArcSwap<BlockTable>>, Arc<BlockTable>>,
    scorer: Scorer,
    forwarder: Forwarder,
    limiter: ResponseLimiter,
    watch: Watch,
    counters: Arc<WorkerCounters>,
    blocks: SyncSender<BlockRequest>,
    scratch: Box<[u8]>,
    overload: Overload,
    /// What copies queries for dnstap.
    tap: Option<Box<Tap>>,
    /// What is ordered of levels, as the scorer has it.
    orders: Arc<Orders>,
    /// When the sockets to the upstreams last changed.
    sockets_chosen: Instant,
}

impl DataPath {
    /// A worker's path with fresh tables. `seed` keys the hashes of attacker-chosen values.
    #[must_use]
    pub fn new(
        worker: usize,
        policy: Arc<Reloadable>,
        blocklist: Arc<ArcSwap<BlockTable>>,
        counters: Arc<WorkerCounters>,
        blocks: SyncSender<BlockRequest>,
        seed: [u64; 4],
        now: Instant,
    ) -> Self {
        let scorer = Scorer::new(worker, &policy.scoring, seed, now);
        let limiter = ResponseLimiter::new(&policy, seed, now);
        let watch = Watch::new(policy.zones.iter().map(|zone| zone.name()), now);
        let forwarder = Forwarder::new(
            Arc::clone(&policy.forwarding),
            SOCKETS_PER_UPSTREAM,
            IN_FLIGHT,
            rand::random(),
            now,
        );
        Self {
            policy,
            blocklist: Cache::new(blocklist),
            scorer,
            forwarder,
            limiter,
            watch,
            counters,
            blocks,
            scratch: vec![0; BUFFER].into_boxed_slice(),
            overload: Overload::new(now),
            tap: None,
            orders: Arc::default(),
            sockets_chosen: now,
        }
    }

    /// Has queries copied for dnstap from now on, or no longer.
    pub fn set_tap(&mut self, tap: Option<Tap>) {
        self.tap = tap.map(Box::new);
    }

    /// What copies queries for dnstap, for TCP.
    pub(crate) fn tap(&mut self) -> Option<&mut Tap> {
        self.tap.as_deref_mut()
    }

    /// Once before a batch: moves on to other sockets, chosen at random, for what will be forwarded.
    /// Queries of about a millisecond share a socket, so that their answers come in one system call.
    fn choose_sockets(&mut self, now: Instant) {
        if now.saturating_duration_since(self.sockets_chosen) >= SOCKET_TURN {
            self.sockets_chosen = now;
            self.forwarder.begin_batch();
        }
    }

    /// What the packet filter says of a source; counts a hit on the blocklist.
    pub fn admit_source(&mut self, source: IpAddr) -> Verdict {
        let Self {
            policy, blocklist, ..
        } = self;
        policy.filter.admit_source(blocklist.load(), source)
    }

    /// A UDP query stands in the first `len` octets of `buffer`; what is to be sent stands there after.
    /// `source` is what [`Self::admit_source`] said of its client.
    pub fn on_query(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        origin: &Origin,
        source: Verdict,
        now: Instant,
    ) -> Disposition {
        self.counters.queries(Transport::Udp).receive();
        let cleared = match self.judge(buffer, len, origin, source, now) {
            ControlFlow::Continue(cleared) => cleared,
            ControlFlow::Break(outcome) => {
                return self.conclude(buffer, len, outcome, origin, now);
            }
        };
        if let Some(outcome) = unfit_for_udp(&cleared.query) {
            return self.conclude(buffer, len, outcome, origin, now);
        }
        let client = Client {
            address: origin.client,
            reply_from: origin.reply_from,
            endpoint: origin.endpoint.index,
            id: cleared.query.id,
            verified: cleared.proven,
            known: cleared.known,
        };
        let packet = buffer.get_mut(..len).unwrap_or_default();
        match self.forwarder.admit(
            cleared.pool,
            &cleared.query,
            packet,
            client,
            cleared.points,
            now,
        ) {
            Admission::Forward(socket) => Disposition::ToUpstream(socket),
            Admission::NoUpstream => {
                self.found_no_room(&cleared);
                let outcome = self.unserved(cleared.pool, Reason::NoUpstream);
                self.conclude(buffer, len, outcome, origin, now)
            }
            Admission::TableFull => {
                self.found_no_room(&cleared);
                let outcome = Outcome::Dropped(Reason::TableFull);
                self.conclude(buffer, len, outcome, origin, now)
            }
            Admission::QueueFull => {
                self.found_no_room(&cleared);
                let outcome = Outcome::Dropped(Reason::QueueFull);
                self.conclude(buffer, len, outcome, origin, now)
            }
            Admission::Queued {
                in_place_of_another,
            } => {
                if in_place_of_another {
                    self.watch.given_up(None, false, false);
                    let outcome = Outcome::Dropped(Reason::QueueFull);
                    self.counters.queries(Transport::Udp).settle(outcome);
                }
                Disposition::Silence
            }
        }
    }

    /// Parse, filter, score, decide: the same for every transport. Counts hits of rules and what
    /// incidents are noticed by, but not the query itself.
    pub fn judge(
        &mut self,
        buffer: &[u8],
        len: usize,
        origin: &Origin,
        source: Verdict,
        now: Instant,
    ) -> ControlFlow<Outcome, Cleared> {
        self.judge_watched(buffer, len, origin, source, now, &mut Nobody)
    }

    /// [`Self::judge`] with somebody who watches the scoring.
    pub(crate) fn judge_watched<W: Watcher>(
        &mut self,
        buffer: &[u8],
        len: usize,
        origin: &Origin,
        source: Verdict,
        now: Instant,
        watcher: &mut W,
    ) -> ControlFlow<Outcome, Cleared> {
        let policy = &*self.policy;
        let packet = buffer.get(..len).unwrap_or_default();
        let parsed = Query::parse(packet);

        let query = match (parsed, source) {
            (Ok(query), _) => {
                if let ControlFlow::Break(outcome) = filtered(source) {
                    self.watch.blocked();
                    return ControlFlow::Break(outcome);
                }
                query
            }
            // a source is dropped whatever it sends; but what is no query cannot be refused
            (Err(_), Verdict::Drop(reason)) => {
                self.watch.blocked();
                return ControlFlow::Break(Outcome::Dropped(Reason::Filter(reason)));
            }
            (Err(kind), _) => {
                self.scorer
                    .observe_malformed(&policy.scoring, origin.client.ip(), now);
                self.watch.malformed(origin.client.ip());
                return ControlFlow::Break(of_malformed(&policy.filter, kind));
            }
        };
        if let ControlFlow::Break(outcome) =
            filtered(policy.filter.admit_query(&query, origin.client.ip()))
        {
            self.watch.malformed(origin.client.ip());
            return ControlFlow::Break(outcome);
        }

        if query.flags.opcode() == Opcode::NOTIFY
            && let Some(zone) = policy.zones.get(&query.qname)
        {
            zone.notify();
        }
        let pool = policy.routes.pool(&query.qname);
        let cookie = self
            .limiter
            .cookie(policy, &query, packet, origin.client.ip());
        let context = Context {
            proven: cookie == Cookie::Valid,
            ..context(origin, &query)
        };
        let pressure = self.overload.pressure().max(self.forwarder.pressure(pool));
        let case = Case {
            policy: &policy.scoring,
            query: &query,
            packet,
            context: &context,
            pressure,
            now,
        };
        let judgement = watcher.score(&mut self.scorer, case);
        if let Some(tap) = &mut self.tap {
            tap.judged(judgement.points);
        }
        if let Some((action, _)) = judgement.would {
            self.counters.held_back(action);
        }
        if let Some(block) = judgement.block_source {
            let request = BlockRequest {
                source: origin.client.ip(),
                lifetime: block.lifetime,
                rule: block.rule,
                policy: policy.generation,
            };
            if self.blocks.try_send(request).is_err() {
                self.counters.lost_blocks.add(1);
            }
        }
        let outcome = match outcome::of_action(judgement.action, judgement.cause) {
            Some(Outcome::Answered(Answer::NxDomain, Reason::NonexistentName)) => {
                if judgement.proven || self.overload.has_time() {
                    denied(policy, &query, origin.transport)
                } else {
                    Some(Outcome::Dropped(Reason::NonexistentName))
                }
            }
            outcome => outcome,
        };
        let asked = asked(self.scorer.seen(), &query, &context, outcome);
        let known = asked.is_legitimate();
        self.watch.query(&asked, &query.qname);
        match outcome {
            Some(outcome) => ControlFlow::Break(outcome),
            None => ControlFlow::Continue(Cleared {
                query,
                known,
                pool: judgement.pool.map_or(pool, usize::from),
                proven: judgement.proven,
                points: match judgement.cause {
                    Cause::Allow(_) => 0,
                    _ => judgement.points,
                },
            }),
        }
    }

    /// A query that was cleared finds no room.
    fn found_no_room(&mut self, cleared: &Cleared) {
        let home = Scorer::home(&self.policy.scoring, &cleared.query.qname);
        self.watch.given_up(Some(place(home)), false, cleared.known);
    }

    /// Whether a connection from this source is worth having: not if every query on it would be dropped.
    pub fn admits_connection(&mut self, source: IpAddr) -> bool {
        !matches!(self.admit_source(source), Verdict::Drop(_))
    }

    /// Counts the outcome of the UDP query in the buffer and makes its answer, if it gets one.
    fn conclude(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        outcome: Outcome,
        origin: &Origin,
        now: Instant,
    ) -> Disposition {
        let to = Receiver {
            address: origin.client.ip(),
            verified: false,
        };
        let here = Circumstances {
            policy: &self.policy,
            counters: &self.counters,
            now,
        };
        if let Some(tap) = &mut self.tap {
            tap.hold(buffer.get(..len).unwrap_or_default());
        }
        let (outcome, answer) = self.limiter.conclude(here, buffer, len, outcome, to);
        self.counters.queries(Transport::Udp).settle(outcome);
        if let Some(tap) = &mut self.tap {
            let answer = answer.and_then(|len| buffer.get(..len));
            tap.settle_held(&asker_at(origin), outcome, answer, now);
        }
        match answer {
            Some(len) => Disposition::Reply(len),
            None => Disposition::Silence,
        }
    }

    /// What a query gets that no upstream of the pool serves: SERVFAIL or silence, as configured.
    #[must_use]
    pub fn unserved(&self, pool: usize, reason: Reason) -> Outcome {
        let pool = self.policy.forwarding.pools().get(pool);
        unserved(
            pool.map_or_else(WhenNone::default, |pool| pool.when_none),
            reason,
        )
    }

    /// A datagram that did not fit the buffer.
    pub fn on_oversized(&mut self) -> Disposition {
        let counters = self.counters.queries(Transport::Udp);
        counters.receive();
        counters.settle(Outcome::Dropped(Reason::Oversized));
        Disposition::Silence
    }

    /// A response that did not fit the buffer.
    pub fn on_oversized_response(&mut self) {
        self.counters.response(ResponseOutcome::Malformed);
    }

    /// Takes note of what the kernel did not send.
    pub fn sent(&mut self, report: &SendReport) {
        if report.failed > 0 {
            self.counters.send_failures.add(report.failed as u64);
        }
    }

    /// Retries and expiries. Says which upstreams' sockets are no longer needed.
    pub fn tick<S: Sockets>(
        &mut self,
        now: Instant,
        sockets: &S,
        round: &mut Round,
        closed: &mut impl Extend<UpstreamIndex>,
    ) {
        let (forwarder, mut hands) = self.hands(now);
        forwarder.on_tick(now, &mut |step| {
            hands.carry_out(step, &mut |effect| {
                closed.extend(perform(effect, sockets, round))
            });
        });
        self.release(now, sockets, round);
        self.counters
            .in_flight_udp
            .set(self.forwarder.in_flight() as u64);
        self.counters.queued.set(self.forwarder.queued() as u64);
    }

    /// Sends what has waited, as far as there is room by now. The rounds and the tick do it at their end.
    pub fn release<S: Sockets>(&mut self, now: Instant, sockets: &S, round: &mut Round) {
        loop {
            while let Some(socket) = round.refused.pop() {
                self.refused(socket, now, sockets, round);
            }
            round.released.clear();
            let more = self.forwarder.release(&mut round.released, now);
            // one system call for each socket used
            let place = |it: &Released| (it.socket.upstream, it.socket.socket);
            round.released.sort_unstable_by_key(place);
            for group in round.released.chunk_by(|a, b| a.socket == b.socket) {
                for it in group {
                    if it.again {
                        self.counters.retries.add(1);
                    } else {
                        self.counters.queue_wait.record(it.waited);
                    }
                }
                let Some(at) = group.first().map(|it| it.socket) else {
                    continue;
                };
                let Some(upstream) = sockets.upstream(at) else {
                    continue;
                };
                let packets = group.iter().map(|it| Outgoing {
                    packet: self.forwarder.released(it),
                    to: None,
                    from: None,
                });
                let report = upstream.send(&mut round.connected_sender, packets);
                if is_refusal(&report) {
                    round.refused.push(at);
                }
                self.counters.send_failures.add(report.failed as u64);
            }
            if !more && round.refused.is_empty() {
                return;
            }
        }
    }

    /// Takes note of how many datagrams the kernel has dropped, because a listener's receive queue was
    /// full, since the start.
    pub fn receive_queue_drops(&mut self, dropped: u64, now: Instant) {
        self.counters.receive_queue_drops.set(dropped);
        let received = self.counters.queries(Transport::Udp).received();
        self.overload.observe(dropped, received, now);
        // a cast saturates
        let thousandths = (self.overload.pressure() * 1e3) as u64;
        self.counters.own_pressure.set(thousandths);
    }

    /// ICMP said that nobody listens at the other end of a socket: what is outstanding there goes to
    /// other upstreams at once.
    pub fn refused<S: Sockets>(
        &mut self,
        at: SocketRef,
        now: Instant,
        sockets: &S,
        round: &mut Round,
    ) {
        let (forwarder, mut hands) = self.hands(now);
        // a refusal never closes sockets
        forwarder.on_refused(at, now, &mut |step| {
            hands.carry_out(step, &mut |effect| {
                perform(effect, sockets, round);
            });
        });
    }

    /// The forwarder, and what its steps need.
    fn hands(&mut self, now: Instant) -> (&mut Forwarder, Hands<'_>) {
        let hands = Hands {
            here: Circumstances {
                policy: &self.policy,
                counters: &self.counters,
                now,
            },
            limiter: &mut self.limiter,
            watch: &mut self.watch,
            tap: self.tap.as_deref_mut(),
            scratch: &mut self.scratch,
        };
        (&mut self.forwarder, hands)
    }

    /// What time it is, in seconds since 1970: cookies hold a time of day. To be called at the start
    /// and then at least once a minute.
    pub const fn set_unix_time(&mut self, seconds: u32) {
        self.limiter.set_unix_time(seconds);
    }

    /// Goes over to another policy; nothing in flight is lost. Sockets are wanted for all of the
    /// forwarder's upstreams afterwards.
    pub fn adopt(&mut self, policy: Arc<Reloadable>, now: Instant) {
        self.scorer.adopt(&policy.scoring);
        // a memory that begins afresh knows of none
        self.scorer.adopt_orders(&policy.scoring, &self.orders);
        self.limiter.adopt(&policy);
        self.forwarder.adopt(Arc::clone(&policy.forwarding), now);
        self.watch
            .adopt(policy.zones.iter().map(|zone| zone.name()));
        self.policy = policy;
    }

    /// What this worker sees of attacks. Allocates: for about ten times a second.
    pub fn sight(&mut self, now: Instant) -> Sight {
        let scoring = &self.policy.scoring;
        Sight {
            levels: self.scorer.levels(scoring, now),
            scoring_octets: self.scorer.octets(scoring),
            response_limit_octets: self.limiter.octets(),
        }
    }

    /// What was counted since the last time, for the detector. Allocates: for once a second.
    #[must_use]
    pub fn take_window(&mut self, now: Instant) -> Window {
        let pools = 0..self.policy.forwarding.pools().len();
        let pressure = pools
            .map(|pool| self.forwarder.pressure(pool))
            .fold(self.overload.pressure(), f32::max);
        Window {
            pressure,
            ..self.watch.take(now)
        }
    }

    /// What counts for the detector, for TCP.
    pub const fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Takes over what all workers together see.
    pub fn adopt_levels(&mut self, levels: &Levels) {
        self.scorer.adopt_levels(&self.policy.scoring, levels);
    }

    /// Takes over what operators and incidents order of levels.
    pub fn adopt_orders(&mut self, orders: &Arc<Orders>) {
        if !Arc::ptr_eq(orders, &self.orders) {
            self.orders = Arc::clone(orders);
            self.scorer.adopt_orders(&self.policy.scoring, orders);
        }
    }

    /// Appends what was learned, in short steps from 0; whether there are more.
    pub fn save_learned(&mut self, step: usize, part: &mut SavedPart) -> bool {
        self.scorer.save(&self.policy.scoring, step, part)
    }

    /// Takes over what all workers had learned before, before the first query.
    pub fn restore_learned(&mut self, parts: &[&[u8]], now: Instant) -> Restored {
        self.scorer.restore(&self.policy.scoring, parts, now)
    }

    /// What would happen to a query; leaves no trace.
    #[must_use]
    pub fn explain(&mut self, request: &ExplainRequest, now: Instant) -> Explanation {
        let Self {
            policy,
            blocklist,
            scorer,
            forwarder,
            overload,
            ..
        } = self;
        let knowledge = Knowledge {
            policy,
            blocklist: blocklist.load(),
            scorer,
            pressure: &|pool| overload.pressure().max(forwarder.pressure(pool)),
        };
        explain::explain(knowledge, request, now)
    }

    /// Learns from an answer that the table of UDP queries knows nothing of: over TCP, or in a replay.
    /// `measured`: its latency and size are those of a real one.
    pub(crate) fn observe_answer(&mut self, reply: &Reply<'_>, measured: bool, now: Instant) {
        let home = self
            .scorer
            .observe_response(&self.policy.scoring, reply, now);
        self.watch.answer(&answered(reply, home, measured));
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Reloadable> {
        &self.policy
    }

    /// The forwarder, for TCP, which has its own table of queries in flight.
    pub const fn forwarder(&mut self) -> &mut Forwarder {
        &mut self.forwarder
    }

    /// The worker's counters.
    #[must_use]
    pub const fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// A packet from an upstream stands in the first `len` octets of `buffer`: on a match it carries
    /// the client's id again, and what then stands in the octets returned is to be sent to the client
    /// returned. That is the packet, unless too many like it went to the client's network.
    pub fn on_response(
        &mut self,
        from: SocketRef,
        buffer: &mut [u8],
        len: usize,
        now: Instant,
    ) -> Option<(Client, usize)> {
        let packet = buffer.get_mut(..len).unwrap_or_default();
        match self.forwarder.on_response(from, packet, now) {
            Arrival::Deliver(delivery) => {
                self.counters.response(ResponseOutcome::Delivered);
                let asked = self.forwarder.query_of(&delivery);
                let here = Circumstances {
                    policy: &self.policy,
                    counters: &self.counters,
                    now,
                };
                let (outcome, answer) = self.limiter.deliver(here, buffer, len, &delivery, asked);
                self.counters.queries(Transport::Udp).settle(outcome);
                self.counters.upstream_latency.record(delivery.latency);
                if let Some(tap) = &mut self.tap {
                    let asked = self.forwarder.query_of(&delivery);
                    let settled = Settled {
                        query: asked,
                        id: Some(delivery.client.id),
                        outcome,
                        answer: answer.and_then(|len| buffer.get(..len)).unwrap_or_default(),
                        asked: before(now, delivery.waited),
                        now,
                    };
                    tap.settle(&asker_of(&delivery.client), &settled);
                }
                let qname = Name::from_wire(buffer.get(HEADER_LEN..).unwrap_or_default());
                if let Ok(qname) = qname {
                    let reply = Reply {
                        source: delivery.client.address.ip(),
                        transport: Transport::Udp,
                        qname: &qname,
                        rcode: delivery.response.rcode,
                        latency: delivery.latency,
                        query_len: delivery.query_len,
                        // nothing, where the answer is withheld
                        response_len: answer
                            .map_or(0, |answer| u16::try_from(answer).unwrap_or(u16::MAX)),
                    };
                    let home = self
                        .scorer
                        .observe_response(&self.policy.scoring, &reply, now);
                    self.watch.answer(&answered(&reply, home, true));
                }
                Some((delivery.client, answer?))
            }
            Arrival::Stray(reason) => {
                self.counters.response(match reason {
                    StrayReason::Late => ResponseOutcome::Late,
                    StrayReason::UnknownId => ResponseOutcome::UnknownId,
                    StrayReason::WrongQuestion => ResponseOutcome::WrongQuestion,
                    StrayReason::Malformed => ResponseOutcome::Malformed,
                });
                None
            }
        }
    }
}

/// What a cleared query gets that UDP cannot serve: only TCP can carry a zone transfer.
pub(crate) fn unfit_for_udp(query: &Query) -> Option<Outcome> {
    (query.qtype == qtype::AXFR)
        .then_some(Outcome::Answered(Answer::Refused, Reason::TransferOverUdp))
}

const fn unserved(when_none: WhenNone, reason: Reason) -> Outcome {
    match (when_none, reason) {
        (WhenNone::Servfail, _) => Outcome::Answered(Answer::ServFail, reason),
        (WhenNone::Silence, Reason::Expired) => Outcome::Expired,
        (WhenNone::Silence, _) => Outcome::Dropped(reason),
    }
}

/// What it takes to carry out the forwarder's steps.
struct Hands<'a> {
    here: Circumstances<'a>,
    limiter: &'a mut ResponseLimiter,
    watch: &'a mut Watch,
    tap: Option<&'a mut Tap>,
    scratch: &'a mut [u8],
}

impl Hands<'_> {
    fn carry_out(&mut self, step: Step<'_>, act: &mut impl FnMut(Effect<'_>)) {
        match step {
            Step::Resend { socket, packet } => {
                self.here.counters.retries.add(1);
                act(Effect::Forward(socket, packet));
            }
            Step::Expired {
                client,
                query,
                when_none,
                waited,
                ..
            } => {
                let qname = Name::from_wire(query.get(HEADER_LEN..).unwrap_or_default());
                let home = qname.map(|qname| Scorer::home(&self.here.policy.scoring, &qname));
                self.watch
                    .given_up(home.ok().map(place), true, client.known);
                if let Some(room) = self.scratch.get_mut(..query.len()) {
                    room.copy_from_slice(query);
                }
                let to = Receiver {
                    address: client.address.ip(),
                    verified: client.verified,
                };
                let outcome = unserved(when_none, Reason::Expired);
                let (outcome, answer) =
                    self.limiter
                        .conclude(self.here, self.scratch, query.len(), outcome, to);
                self.here.counters.queries(Transport::Udp).settle(outcome);
                let answer = answer.and_then(|len| self.scratch.get(..len));
                if let Some(tap) = &mut self.tap {
                    let now = self.here.now;
                    let settled = Settled {
                        query,
                        id: None,
                        outcome,
                        answer: answer.unwrap_or_default(),
                        asked: before(now, waited),
                        now,
                    };
                    tap.settle(&asker_of(&client), &settled);
                }
                if let Some(answer) = answer {
                    act(Effect::Reply(client, answer));
                }
            }
            Step::Unserved {
                client,
                query,
                overrun,
                waited,
            } => {
                self.watch.given_up(None, false, client.known);
                let reason = if overrun {
                    Reason::QueueFull
                } else {
                    Reason::QueueTimeout
                };
                let outcome = Outcome::Dropped(reason);
                self.here.counters.queries(Transport::Udp).settle(outcome);
                if let Some(tap) = &mut self.tap {
                    let now = self.here.now;
                    let settled = Settled {
                        query,
                        id: None,
                        outcome,
                        answer: &[],
                        asked: before(now, waited),
                        now,
                    };
                    tap.settle(&asker_of(&client), &settled);
                }
            }
            Step::Close(upstream) => act(Effect::Close(upstream)),
        }
    }
}

/// What the detector counts of a query.
#[inline]
fn asked(seen: &Seen, query: &Query, context: &Context, outcome: Option<Outcome>) -> Asked {
    use dnscrub_detection as detection;
    Asked {
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
            NameStanding::Exists => detection::Standing::Exists,
            NameStanding::Covered => detection::Standing::Covered,
            NameStanding::Missing { .. } => detection::Standing::Missing,
            NameStanding::FailedBefore => detection::Standing::FailedBefore,
            NameStanding::Unknown => detection::Standing::Unknown,
        },
        name_seen: seen.is_name_seen(),
        name_hash: seen.name_hash(),
        place: place(seen.home()),
        qtype: query.qtype,
        len: query.len,
        tcp: context.transport == Transport::Tcp,
        fate: match outcome {
            None | Some(Outcome::Forwarded | Outcome::Expired) => Fate::Passed,
            Some(Outcome::Answered(Answer::NxDomain, _)) => Fate::Denied,
            Some(Outcome::Answered(Answer::Truncated | Answer::BadCookie, _)) => Fate::Challenged,
            Some(Outcome::Answered(_, _)) => Fate::Refused,
            Some(Outcome::Dropped(_)) => Fate::Dropped,
        },
    }
}

#[inline]
const fn place(home: Home) -> Place {
    Place {
        zone: home.zone,
        hash: home.hash,
        cut: home.cut,
    }
}

/// What the detector counts of an answer.
#[inline]
fn answered(reply: &Reply<'_>, home: Home, measured: bool) -> Answered {
    let latency = u32::try_from(reply.latency.as_micros()).unwrap_or(u32::MAX);
    Answered {
        place: place(home),
        // the extended part makes no difference for what is counted
        rcode: u8::try_from(reply.rcode.0).unwrap_or(u8::MAX),
        latency: measured.then_some(latency),
        octets: (measured && reply.query_len > 0).then_some((reply.query_len, reply.response_len)),
    }
}

/// Who asked, and where.
pub(crate) const fn asker_at(origin: &Origin) -> Asker {
    Asker {
        client: origin.client,
        reply_from: origin.reply_from,
        endpoint: origin.endpoint.index,
        transport: origin.transport,
    }
}

/// Who asked over UDP.
const fn asker_of(client: &Client) -> Asker {
    Asker {
        client: client.address,
        reply_from: client.reply_from,
        endpoint: client.endpoint,
        transport: Transport::Udp,
    }
}

fn before(now: Instant, waited: Duration) -> Instant {
    now.checked_sub(waited).unwrap_or(now)
}

fn context(origin: &Origin, query: &Query) -> Context {
    Context {
        source: origin.client.ip(),
        transport: origin.transport,
        listener: origin.endpoint.listener,
        hop_ttl: origin.ttl,
        proven: false,
        len: query.len,
    }
}

/// What a query gets whose name its zone does not have. Where the client wants proof of that and none
/// is held, only an upstream can give it: then the client is asked to come over TCP, so that nobody
/// gets this far with a forged address.
fn denied(policy: &Reloadable, query: &Query, transport: Transport) -> Option<Outcome> {
    let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
    let can_deny = policy
        .zones
        .find(&query.qname)
        .is_some_and(|(_, zone)| zone.can_deny(dnssec_ok));
    let answer = match transport {
        _ if can_deny => Answer::NxDomain,
        Transport::Udp => Answer::Truncated,
        Transport::Tcp => return None,
    };
    Some(Outcome::Answered(answer, Reason::NonexistentName))
}

/// What a packet gets that is not a well-formed query.
pub(crate) fn of_malformed(filter: &PacketFilter, kind: Malformed) -> Outcome {
    match filter.answer_malformed(kind) {
        MalformedAnswer::Drop => Outcome::Dropped(Reason::Malformed(kind)),
        MalformedAnswer::FormatError => Outcome::Answered(Answer::FormErr, Reason::Malformed(kind)),
    }
}

pub(crate) fn filtered(verdict: Verdict) -> ControlFlow<Outcome> {
    match verdict {
        Verdict::Admit => ControlFlow::Continue(()),
        Verdict::Drop(reason) => ControlFlow::Break(Outcome::Dropped(Reason::Filter(reason))),
        Verdict::Refuse(reason, rcode) if rcode == dnscrub_wire::Rcode::NOTIMP => {
            ControlFlow::Break(Outcome::Answered(Answer::NotImp, Reason::Filter(reason)))
        }
        Verdict::Refuse(reason, _) => {
            ControlFlow::Break(Outcome::Answered(Answer::Refused, Reason::Filter(reason)))
        }
    }
}

/// Turns the query in the buffer into the answer that the outcome asks for; returns its length.
/// Nothing for outcomes without an answer of ours.
pub fn make_answer(
    zones: Denying<'_>,
    buffer: &mut [u8],
    len: usize,
    outcome: Outcome,
) -> Option<usize> {
    let Outcome::Answered(answer, reason) = outcome else {
        return None;
    };
    match Query::parse(buffer.get(..len)?) {
        Ok(query) => Some(answer_to(zones, buffer, &query, answer, reason)),
        Err(_) => answer_to_malformed(buffer, len),
    }
}

/// What it takes to deny a name.
#[derive(Clone, Copy)]
pub struct Denying<'a> {
    /// What is known of the zones.
    pub zones: &'a Zones,
    /// The time.
    pub now: Instant,
    /// How the answer travels.
    pub transport: Transport,
}

/// Octets of the largest authority section of an answer of ours.
pub(crate) const AUTHORITY: usize = 2048;

impl Denying<'_> {
    /// Turns the query into an answer that its name does not exist, with what its zone has to say so.
    fn deny(self, buffer: &mut [u8], query: &Query) -> Option<usize> {
        let (_, zone) = self.zones.find(&query.qname)?;
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let mut room = [0; AUTHORITY];
        let authority = zone
            .negative_answer(&query.qname, dnssec_ok, self.now, &mut room)
            .ok()?;
        let limit = match self.transport {
            Transport::Udp => query.response_limit().min(usize::from(edit::OUR_UDP_SIZE)),
            Transport::Tcp => buffer.len(),
        };
        let records = room.get(..authority.octets)?;
        edit::name_error(buffer, query, records, authority.records, limit)
    }
}

/// Turns the query in the buffer into this answer; returns its length.
pub(crate) fn answer_to(
    zones: Denying<'_>,
    buffer: &mut [u8],
    query: &Query,
    answer: Answer,
    reason: Reason,
) -> usize {
    if (answer, reason) == (Answer::NxDomain, Reason::NonexistentName) {
        let denied = zones.deny(buffer, query);
        // where the proof does not fit, it is for TCP to carry
        let truncate = zones.transport == Transport::Udp;
        return denied
            .unwrap_or_else(|| edit::answer(buffer, query, answer.rcode(), truncate, None));
    }
    let truncated = answer == Answer::Truncated;
    let error = extended_error(reason);
    edit::answer(buffer, query, answer.rcode(), truncated, error)
}

/// Turns what is no query into FORMERR, unless it is a response; returns its length.
pub(crate) fn answer_to_malformed(buffer: &mut [u8], len: usize) -> Option<usize> {
    edit::format_error(buffer.get_mut(..len)?)
}

/// Why, for the client (RFC 8914).
const fn extended_error(reason: Reason) -> Option<ExtendedError> {
    let (info_code, text) = match reason {
        Reason::NoUpstream => (22, "no name server reachable"),
        Reason::Expired => (23, "no name server answered in time"),
        Reason::Filter(_) => (18, "not allowed here"),
        Reason::Rule | Reason::RateLimit | Reason::Band => (15, "blocked by policy"),
        _ => return None,
    };
    Some(ExtendedError { info_code, text })
}
