//! Queries to upstreams and answers to clients, one message at a time.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use dnscrub_forwarding::UpstreamIndex;
use dnscrub_packet_filter::FilterReason;
use dnscrub_scoring::{Reply, Transport};
use dnscrub_wire::{HEADER_LEN, Name, Opcode, Query, Response, qtype};

use super::client::{Client, TOO_MUCH_WAITING};
use super::in_flight::InFlight;
use super::transfer;
use super::upstreams::{Connection, Ending};
use super::{SWEEP, Turn};
use crate::data_path::{AUTHORITY, Cleared, Denying, asker_at, make_answer};
use crate::dnstap::Settled;
use crate::outcome::{Answer, Outcome, Reason, ResponseOutcome};

/// Octets that an answer of ours may be longer than its query: the extended error.
const ANSWER_ROOM: usize = 128;

impl Turn<'_> {
    /// A message has come from a client.
    pub(super) fn on_query(&mut self, client: &Rc<Client>, message: &[u8]) {
        self.counters.queries(Transport::Tcp).receive();
        let source = self.path.admit_source(client.origin.client.ip());
        let cleared =
            match self
                .path
                .judge(message, message.len(), &client.origin, source, self.now)
            {
                ControlFlow::Continue(cleared) => cleared,
                ControlFlow::Break(outcome) => {
                    self.conclude(client, message, outcome);
                    if ends_connection(outcome) {
                        client.wind_up();
                    }
                    return;
                }
            };
        let query = &cleared.query;
        if matches!(query.qtype, qtype::AXFR | qtype::IXFR) && query.flags.opcode() == Opcode::QUERY
        {
            transfer::start(self, client, &cleared, message);
        } else if let Err(outcome) = self.forward(client, &cleared, message) {
            self.conclude(client, message, outcome);
        }
    }

    fn forward(
        &mut self,
        client: &Rc<Client>,
        cleared: &Cleared,
        message: &[u8],
    ) -> Result<(), Outcome> {
        let full = Outcome::Answered(Answer::ServFail, Reason::TableFull);
        let (pool, query) = (cleared.pool, &cleared.query);
        if self.relay.table.is_full() {
            return Err(full);
        }
        let Some(settings) = self.path.policy().forwarding.pools().get(pool) else {
            return Err(self.path.unserved(pool, Reason::NoUpstream));
        };
        let (patience, retry_after) = (settings.patience, settings.retry_after);
        let resends = u8::from(settings.retries > 0);
        let connection = self
            .choose(pool, &query.qname, None)
            .map_err(|reason| match reason {
                Reason::TableFull => full,
                reason => self.path.unserved(pool, reason),
            })?;
        let entry = InFlight {
            client: Rc::clone(client),
            client_id: query.id,
            pool,
            generation: self.path.policy().generation,
            question_end: query.question_end,
            connection: Rc::clone(&connection),
            id: 0,
            sent: self.now,
            deadline: self.now + patience,
            retry_after,
            resends,
        };
        let number = self.relay.table.insert(entry, query, message).ok_or(full)?;
        let Some(id) = connection.send(number, message, self.now) else {
            self.relay.table.remove(number);
            return Err(full);
        };
        if let Some(entry) = self.relay.table.get_mut(number) {
            entry.id = id;
        }
        client.began();
        self.path.forwarder().stream_sent(connection.upstream);
        self.relay.is_dirty(&connection);
        Ok(())
    }

    /// A connection for a query, to another upstream than `tried` if there is one.
    fn choose(
        &mut self,
        pool: usize,
        qname: &Name,
        tried: Option<UpstreamIndex>,
    ) -> Result<Rc<Connection>, Reason> {
        let avoided = self.relay.upstreams.avoided();
        let forwarder = self.path.forwarder();
        let picked = match tried {
            Some(tried) => forwarder.pick(pool, qname, &[&[tried][..], avoided].concat()),
            None => forwarder.pick(pool, qname, avoided),
        };
        let upstream = picked.ok_or(Reason::NoUpstream)?;
        let address = forwarder
            .upstream(upstream)
            .ok_or(Reason::NoUpstream)?
            .address();
        self.relay
            .upstreams
            .connection(self.worker, upstream, address, self.now)
    }

    /// A message has come from an upstream.
    pub(super) fn on_answer(&mut self, connection: &Rc<Connection>, message: &[u8]) {
        let Ok(response) = Response::parse(message) else {
            return self.counters.response(ResponseOutcome::Malformed);
        };
        let Some(number) = connection.number(response.id) else {
            connection.answered_late(response.id);
            return self.counters.response(ResponseOutcome::Late);
        };
        let Some((entry, query)) = self.relay.table.get(number) else {
            return;
        };
        let question = query
            .get(HEADER_LEN..entry.question_end.into())
            .unwrap_or_default();
        // a server that could not read the question, or would not serve it, may leave it out
        let without_question = usize::from(response.question_end) == HEADER_LEN;
        if !without_question && !response.answers_question(message, question) {
            return self.counters.response(ResponseOutcome::WrongQuestion);
        }
        connection.answered(response.id);
        self.path
            .forwarder()
            .stream_answered(connection.upstream, self.now);
        self.counters.response(ResponseOutcome::Delivered);
        let copied = self.path.tap().is_some();
        let Some((entry, query)) = self.relay.table.remove(number) else {
            return;
        };
        // only this copy outlives the slot
        let query = if copied { query.to_vec() } else { Vec::new() };
        if let Ok(qname) = Name::from_wire(message.get(HEADER_LEN..).unwrap_or_default()) {
            let reply = Reply {
                source: entry.client.origin.client.ip(),
                transport: Transport::Tcp,
                qname: &qname,
                rcode: response.rcode,
                latency: self.now.saturating_duration_since(entry.sent),
                query_len: 0,
                response_len: u16::try_from(message.len()).unwrap_or(u16::MAX),
            };
            self.path.observe_answer(&reply, true, self.now);
        }
        self.counters
            .upstream_latency
            .record(self.now.saturating_duration_since(entry.sent));
        let outcome = self.settle(&entry.client, Outcome::Forwarded);
        self.copy_settled(&entry, &query, outcome, message);
        self.finish(&entry.client);
        self.write(&entry.client, |client| {
            client
                .state
                .borrow_mut()
                .link
                .outbox
                .push_with_id(message, entry.client_id)
        });
    }

    /// A connection to an upstream is no more: what waited on it goes to another one.
    pub(super) fn lost(&mut self, connection: &Rc<Connection>, ending: Ending) {
        let numbers = self.relay.upstreams.lost(connection, ending, self.now);
        // queries that were never sent, or that stood behind one that was answered, did not fail
        let innocent = match ending {
            Ending::Retired | Ending::Unreachable => true,
            Ending::Closed { answered } => answered > 0,
        };
        for number in numbers {
            self.fail_over(number, innocent);
        }
    }

    /// Sends a query again whose connection is lost, or gives it up.
    fn fail_over(&mut self, number: u32, innocent: bool) {
        let Some(entry) = self.relay.table.get_mut(number) else {
            return;
        };
        if !entry.client.is_open() || entry.resends == 0 {
            return self.give_up(number, Reason::NoUpstream);
        }
        let tried = if innocent {
            None
        } else {
            entry.resends -= 1;
            Some(entry.connection.upstream)
        };
        if self.send_again(number, tried).is_err() {
            self.give_up(number, Reason::NoUpstream);
        }
    }

    /// Sends a query on another connection.
    fn send_again(&mut self, number: u32, tried: Option<UpstreamIndex>) -> Result<(), Reason> {
        let (entry, packet) = self.relay.table.get(number).ok_or(Reason::NoUpstream)?;
        if entry.generation != self.path.policy().generation {
            // a reload may have given the pool's index to another pool
            return Err(Reason::NoUpstream);
        }
        let (pool, qname) = (
            entry.pool,
            Query::parse(packet).map_err(|_| Reason::NoUpstream)?.qname,
        );
        let connection = self.choose(pool, &qname, tried)?;
        let (_, packet) = self.relay.table.get(number).ok_or(Reason::NoUpstream)?;
        let id = connection
            .send(number, packet, self.now)
            .ok_or(Reason::TableFull)?;
        self.counters.retries.add(1);
        self.path.forwarder().stream_sent(connection.upstream);
        self.relay.is_dirty(&connection);
        if let Some(entry) = self.relay.table.get_mut(number) {
            entry.sent = self.now;
            entry.id = id;
            entry.connection = connection;
        }
        Ok(())
    }

    /// Moves the queries away that have waited too long on a connection without any sign of life, if
    /// there is another upstream for them.
    pub(super) fn move_away(&mut self, connection: &Rc<Connection>) {
        let silence = self.now.saturating_duration_since(connection.alive());
        if silence < SWEEP {
            return;
        }
        let mut moved = false;
        for number in connection.waiting() {
            let Some((entry, packet)) = self.relay.table.get(number) else {
                continue;
            };
            if silence < entry.retry_after || entry.resends == 0 || !entry.client.is_open() {
                continue;
            }
            let Ok(query) = Query::parse(packet) else {
                continue;
            };
            let (pool, id, upstream) = (entry.pool, entry.id, connection.upstream);
            let exclude = [&[upstream][..], self.relay.upstreams.avoided()].concat();
            if self
                .path
                .forwarder()
                .pick(pool, &query.qname, &exclude)
                .is_none_or(|other| other == upstream)
            {
                continue;
            }
            if self.send_again(number, Some(upstream)).is_ok() {
                connection.give_up(id);
                moved = true;
                if let Some(entry) = self.relay.table.get_mut(number) {
                    entry.resends = 0;
                }
            }
        }
        if moved {
            self.relay.upstreams.avoid(connection.upstream, self.now);
            self.relay.upstreams.leave(connection);
        }
    }

    /// Ends a query without an answer of an upstream.
    pub(super) fn give_up(&mut self, number: u32, reason: Reason) {
        let Some((entry, query)) = self.relay.table.remove(number) else {
            return;
        };
        // only this copy outlives the slot
        let query = query.to_vec();
        entry.connection.give_up(entry.id);
        self.path.watch().given_up(None, true, false);
        if reason == Reason::Expired {
            let upstream = entry.connection.upstream;
            self.path.forwarder().stream_overdue(upstream);
        }
        if entry.connection.alive() <= entry.sent {
            // nothing at all has come since: it may lead nowhere
            self.relay.upstreams.leave(&entry.connection);
        }
        let current = entry.generation == self.path.policy().generation;
        let outcome = self
            .path
            .unserved(if current { entry.pool } else { usize::MAX }, reason);
        self.finish(&entry.client);
        self.conclude(&entry.client, &query, outcome);
    }

    /// Counts an outcome of ours and answers as it says.
    pub(super) fn conclude(&mut self, client: &Rc<Client>, query: &[u8], outcome: Outcome) {
        if let Some(tap) = self.path.tap() {
            tap.hold(query);
        }
        let settled = self.settle(client, outcome);
        let copied = self.path.tap().is_some();
        let mut copy = None;
        if let Outcome::Answered(_, reason) = outcome {
            let room = match reason {
                Reason::NonexistentName => ANSWER_ROOM + AUTHORITY,
                _ => ANSWER_ROOM,
            };
            let (policy, now) = (Arc::clone(self.path.policy()), self.now);
            let zones = Denying {
                zones: &policy.zones,
                now,
                transport: Transport::Tcp,
            };
            self.write(client, |client| {
                client
                    .state
                    .borrow_mut()
                    .link
                    .outbox
                    .push_made(query, room, |room| {
                        let len = make_answer(zones, room, query.len(), outcome)?;
                        copy = room.get(..len).filter(|_| copied).map(<[u8]>::to_vec);
                        Some(len)
                    });
            });
        }
        if let Some(tap) = self.path.tap() {
            let asker = asker_at(&client.origin);
            tap.settle_held(&asker, settled, copy.as_deref(), self.now);
        }
    }

    /// Has dnstap copy a query that an upstream has answered.
    fn copy_settled(&mut self, entry: &InFlight, query: &[u8], outcome: Outcome, answer: &[u8]) {
        if let Some(tap) = self.path.tap() {
            let seen = entry.client.is_open();
            let settled = Settled {
                query,
                id: Some(entry.client_id),
                outcome,
                answer: if seen { answer } else { &[] },
                asked: entry.sent,
                now: self.now,
            };
            tap.settle(&asker_at(&entry.client.origin), &settled);
        }
    }

    /// Counts the one outcome of a query, and returns it: what it says only counts if somebody is there to
    /// see it.
    pub(super) fn settle(&self, client: &Client, outcome: Outcome) -> Outcome {
        let seen = client.is_open();
        let outcome = if seen {
            outcome
        } else {
            Outcome::Dropped(Reason::ConnectionClosed)
        };
        self.counters.queries(Transport::Tcp).settle(outcome);
        outcome
    }

    /// One query of this client less is in flight.
    pub(super) fn finish(&mut self, client: &Client) {
        if client.finished(self.now) && client.is_open() {
            self.relay.clients.is_idle(client);
        }
    }

    /// Hands a message to a client, which is cut off if it has too much to read already.
    pub(super) fn write(&mut self, client: &Rc<Client>, put: impl FnOnce(&Client)) {
        if !client.is_open() {
            return;
        }
        put(client);
        if client.state.borrow().link.outbox.len() > TOO_MUCH_WAITING {
            self.counters.tcp_too_slow.add(1);
            self.close(client);
        } else {
            self.relay.is_touched(client);
        }
    }
}

/// Whether nothing sensible can come on the connection after this.
const fn ends_connection(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Dropped(
            Reason::Malformed(_) | Reason::Filter(FilterReason::AclDenied | FilterReason::Blocked)
        )
    )
}
