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
use dnscrub_forwarding::config::WhenNone;
use dnscrub_forwarding::{
    Admission, Arrival, Client, Forwarder, Released, SocketRef, Step, StrayReason, UpstreamIndex,
};
use dnscrub_net::{BUFFER, Outgoing, PacketIo, RecvBatch, SendBatch, SendReport};
use dnscrub_packet_filter::{BlockTable, MalformedAnswer, PacketFilter, Verdict};
use dnscrub_scoring::{Cause, Context, Scorer, Transport};
use dnscrub_wire::edit::{self, ExtendedError};
use dnscrub_wire::{Malformed, Query, qtype};

use crate::config::runtime::Reloadable;
use crate::counters::WorkerCounters;
use crate::explain::{self, ExplainRequest, Explanation, Knowledge};
use crate::outcome::{self, Answer, Outcome, Reason, ResponseOutcome};
use crate::overload::Overload;

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
        let packet = round
            .responses
            .buffer_mut(index)
            .get_mut(..len)
            .unwrap_or_default();
        if let Some(client) = path.on_response(from, packet, now) {
            round.deliveries.push((client, index));
        }
    }
    let Round {
        responses,
        sender,
        deliveries,
        ..
    } = round;
    deliveries.sort_unstable_by_key(|(client, index)| (client.endpoint, *index));
    for group in deliveries.chunk_by(|a, b| a.0.endpoint == b.0.endpoint) {
        let listener = group
            .first()
            .and_then(|(client, _)| sockets.listener(client.endpoint));
        let Some(listener) = listener else { continue };
        let packets = group.iter().map(|&(client, index)| Outgoing {
            packet: responses.packet(index),
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
    deliveries: Vec<(Client, usize)>,
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
    counters: Arc<WorkerCounters>,
    blocks: SyncSender<BlockRequest>,
    scratch: Box<[u8]>,
    overload: Overload,
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
            counters,
            blocks,
            scratch: vec![0; BUFFER].into_boxed_slice(),
            overload: Overload::new(now),
            sockets_chosen: now,
        }
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
            ControlFlow::Break(outcome) => return self.conclude(buffer, len, outcome),
        };
        if cleared.query.qtype == qtype::AXFR {
            let outcome = Outcome::Answered(Answer::Refused, Reason::TransferOverUdp);
            return self.conclude(buffer, len, outcome);
        }
        let client = Client {
            address: origin.client,
            reply_from: origin.reply_from,
            endpoint: origin.endpoint.index,
            id: cleared.query.id,
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
                let outcome = self.unserved(cleared.pool, Reason::NoUpstream);
                self.conclude(buffer, len, outcome)
            }
            Admission::TableFull => self.conclude(buffer, len, Outcome::Dropped(Reason::TableFull)),
            Admission::QueueFull => self.conclude(buffer, len, Outcome::Dropped(Reason::QueueFull)),
            Admission::Queued {
                in_place_of_another,
            } => {
                if in_place_of_another {
                    let outcome = Outcome::Dropped(Reason::QueueFull);
                    self.counters.queries(Transport::Udp).settle(outcome);
                }
                Disposition::Silence
            }
        }
    }

    /// Parse, filter, score, decide: the same for every transport. Counts nothing but rule hits.
    pub fn judge(
        &mut self,
        buffer: &[u8],
        len: usize,
        origin: &Origin,
        source: Verdict,
        now: Instant,
    ) -> ControlFlow<Outcome, Cleared> {
        let policy = &*self.policy;
        let packet = buffer.get(..len).unwrap_or_default();
        let parsed = Query::parse(packet);

        let query = match (parsed, source) {
            (Ok(query), _) => {
                filtered(source)?;
                query
            }
            // a source is dropped whatever it sends; but what is no query cannot be refused
            (Err(_), Verdict::Drop(reason)) => {
                return ControlFlow::Break(Outcome::Dropped(Reason::Filter(reason)));
            }
            (Err(kind), _) => return ControlFlow::Break(of_malformed(&policy.filter, kind)),
        };
        filtered(policy.filter.admit_query(&query, origin.client.ip()))?;

        let pool = policy.routes.pool(&query.qname);
        let context = context(origin, &query);
        let pressure = self.overload.pressure().max(self.forwarder.pressure(pool));
        let judgement = self
            .scorer
            .judge(&policy.scoring, &query, packet, &context, pressure, now);
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
        match outcome::of_action(judgement.action, judgement.cause) {
            Some(outcome) => ControlFlow::Break(outcome),
            None => ControlFlow::Continue(Cleared {
                query,
                pool: judgement.pool.map_or(pool, usize::from),
                points: match judgement.cause {
                    Cause::Allow(_) => 0,
                    _ => judgement.points,
                },
            }),
        }
    }

    /// Whether a connection from this source is worth having: not if every query on it would be dropped.
    pub fn admits_connection(&mut self, source: IpAddr) -> bool {
        !matches!(self.admit_source(source), Verdict::Drop(_))
    }

    /// Counts the outcome of the UDP query in the buffer and makes its answer, if it gets one.
    fn conclude(&mut self, buffer: &mut [u8], len: usize, outcome: Outcome) -> Disposition {
        self.counters.queries(Transport::Udp).settle(outcome);
        match make_answer(buffer, len, outcome) {
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
        let Self {
            forwarder,
            counters,
            scratch,
            ..
        } = self;
        forwarder.on_tick(now, &mut |step| {
            carry_out(step, counters, scratch, &mut |effect| {
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
        let Self {
            forwarder,
            counters,
            scratch,
            ..
        } = self;
        // a refusal never closes sockets
        forwarder.on_refused(at, now, &mut |step| {
            carry_out(step, counters, scratch, &mut |effect| {
                perform(effect, sockets, round);
            });
        });
    }

    /// Goes over to another policy; nothing in flight is lost. Sockets are wanted for all of the
    /// forwarder's upstreams afterwards.
    pub fn adopt(&mut self, policy: Arc<Reloadable>, now: Instant) {
        self.scorer.adopt(&policy.scoring);
        self.forwarder.adopt(Arc::clone(&policy.forwarding), now);
        self.policy = policy;
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

    /// A packet from an upstream: on a match it carries the client's id again and is to be sent to
    /// the client returned.
    pub fn on_response(
        &mut self,
        from: SocketRef,
        packet: &mut [u8],
        now: Instant,
    ) -> Option<Client> {
        match self.forwarder.on_response(from, packet, now) {
            Arrival::Deliver(delivery) => {
                self.counters.response(ResponseOutcome::Delivered);
                self.counters
                    .queries(Transport::Udp)
                    .settle(Outcome::Forwarded);
                self.counters.upstream_latency.record(delivery.latency);
                let client = &delivery.client;
                let context = Context {
                    source: client.address.ip(),
                    transport: Transport::Udp,
                    listener: 0,
                    hop_ttl: None,
                    len: delivery.query_len,
                };
                let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
                self.scorer.observe_response(
                    &self.policy.scoring,
                    &context,
                    delivery.query_len,
                    len,
                    now,
                );
                Some(delivery.client)
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

const fn unserved(when_none: WhenNone, reason: Reason) -> Outcome {
    match (when_none, reason) {
        (WhenNone::Servfail, _) => Outcome::Answered(Answer::ServFail, reason),
        (WhenNone::Silence, Reason::Expired) => Outcome::Expired,
        (WhenNone::Silence, _) => Outcome::Dropped(reason),
    }
}

fn carry_out(
    step: Step<'_>,
    counters: &WorkerCounters,
    scratch: &mut [u8],
    act: &mut impl FnMut(Effect<'_>),
) {
    match step {
        Step::Resend { socket, packet } => {
            counters.retries.add(1);
            act(Effect::Forward(socket, packet));
        }
        Step::Expired {
            client,
            query,
            when_none,
            ..
        } => {
            let outcome = unserved(when_none, Reason::Expired);
            counters.queries(Transport::Udp).settle(outcome);
            if let Some(room) = scratch.get_mut(..query.len()) {
                room.copy_from_slice(query);
                if let Some(answer) =
                    make_answer(scratch, query.len(), outcome).and_then(|len| scratch.get(..len))
                {
                    act(Effect::Reply(client, answer));
                }
            }
        }
        Step::Unserved { overrun, .. } => {
            let reason = if overrun {
                Reason::QueueFull
            } else {
                Reason::QueueTimeout
            };
            counters
                .queries(Transport::Udp)
                .settle(Outcome::Dropped(reason));
        }
        Step::Close(upstream) => act(Effect::Close(upstream)),
    }
}

fn context(origin: &Origin, query: &Query) -> Context {
    Context {
        source: origin.client.ip(),
        transport: origin.transport,
        listener: origin.endpoint.listener,
        hop_ttl: origin.ttl,
        len: query.len,
    }
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
pub fn make_answer(buffer: &mut [u8], len: usize, outcome: Outcome) -> Option<usize> {
    let Outcome::Answered(answer, reason) = outcome else {
        return None;
    };
    let Ok(query) = Query::parse(buffer.get(..len)?) else {
        return edit::format_error(buffer.get_mut(..len)?);
    };
    let error = extended_error(reason);
    Some(edit::answer(
        buffer,
        &query,
        answer.rcode(),
        answer == Answer::Truncated,
        error,
    ))
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
