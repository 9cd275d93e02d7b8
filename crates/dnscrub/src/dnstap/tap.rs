//! A worker's end: copies what is asked and answered into rings that were allocated at the start. No
//! lock, no allocation, no clock, no wait; what finds no room is lost and counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use dnscrub_scoring::Transport;
use rtrb::{Consumer, Producer, RingBuffer};

use super::config::{Outcomes, Settings};
use crate::counters::WorkerCounters;
use crate::outcome::{Outcome, Reason};

/// Octets of the ring for each place in the ring of heads: about a small query without an answer.
const OCTETS_PER_HEAD: usize = 256;
/// Longest message, in octets (RFC 1035 section 4.2.2).
const LONGEST: usize = u16::MAX as usize;

/// What is known of a query beside its octets and those of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) transport: Transport,
    pub(super) outcome: Outcome,
    /// Points, where it was scored in the moment it was settled.
    pub(super) points: Option<u16>,
    pub(super) asked: Instant,
    pub(super) settled: Instant,
    /// The client's id, where the copies may have another.
    pub(super) id: Option<u16>,
    pub(super) query_len: u16,
    pub(super) answer_len: u16,
}

/// Who asked, and whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) client: SocketAddr,
    /// The address that was asked, on wildcard listeners.
    pub(crate) reply_from: Option<(IpAddr, u32)>,
    /// Index of the endpoint.
    pub(crate) endpoint: u16,
    pub(crate) transport: Transport,
}

/// A query that is settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled<'a> {
    pub(crate) query: &'a [u8],
    /// The client's id, where the octets may have another.
    pub(crate) id: Option<u16>,
    pub(crate) outcome: Outcome,
    pub(crate) answer: &'a [u8],
    pub(crate) asked: Instant,
    pub(crate) now: Instant,
}

/// A worker's end of dnstap.
pub struct Tap {
    only: Outcomes,
    sample: u32,
    /// State of the generator that draws the sample.
    dice: u64,
    /// The address of each endpoint, by its index.
    endpoints: Arc<[SocketAddr]>,
    octets: Producer<u8>,
    heads: Producer<Head>,
    counters: Arc<WorkerCounters>,
    /// A query that is about to be overwritten by its answer.
    held: Box<[u8]>,
    held_len: Option<usize>,
    /// Points of the query judged last.
    points: u16,
}

/// The writer's end.
pub(super) struct Drain {
    pub(super) octets: Consumer<u8>,
    pub(super) heads: Consumer<Head>,
}

/// A worker's tap and the writer's end of it. `seed` must not be foreseeable, or a sample could be evaded.
pub(super) fn pair(
    settings: &Settings,
    endpoints: Arc<[SocketAddr]>,
    counters: Arc<WorkerCounters>,
    seed: u64,
) -> (Tap, Drain) {
    let (octets, written_octets) = RingBuffer::new(settings.buffer);
    let (heads, written_heads) = RingBuffer::new(settings.buffer / OCTETS_PER_HEAD);
    let tap = Tap {
        only: settings.only,
        sample: settings.sample,
        dice: seed | 1,
        endpoints,
        octets,
        heads,
        counters,
        held: vec![0; LONGEST].into_boxed_slice(),
        held_len: None,
        points: 0,
    };
    let drain = Drain {
        octets: written_octets,
        heads: written_heads,
    };
    (tap, drain)
}

impl Tap {
    /// The query that follows was given so many points.
    pub(crate) const fn judged(&mut self, points: u16) {
        self.points = points;
    }

    /// A query is about to be settled, and to be overwritten: keeps it, if it is in the sample.
    pub(crate) fn hold(&mut self, query: &[u8]) {
        self.held_len = None;
        if !self.is_in_sample() {
            return;
        }
        if let Some(room) = self.held.get_mut(..query.len()) {
            room.copy_from_slice(query);
            self.held_len = Some(query.len());
        }
    }

    /// The query held was settled in the moment it came.
    pub(crate) fn settle_held(
        &mut self,
        asker: &Asker,
        outcome: Outcome,
        answer: Option<&[u8]>,
        now: Instant,
    ) {
        let Some(len) = self.held_len.take() else {
            return;
        };
        let points = was_scored(outcome).then_some(self.points);
        // the buffer is put back below
        let held = std::mem::take(&mut self.held);
        let settled = Settled {
            query: held.get(..len).unwrap_or_default(),
            id: None,
            outcome,
            answer: answer.unwrap_or_default(),
            asked: now,
            now,
        };
        self.write(asker, &settled, points);
        self.held = held;
    }

    /// A query was settled some time after it came.
    pub(crate) fn settle(&mut self, asker: &Asker, settled: &Settled<'_>) {
        if self.is_in_sample() {
            self.write(asker, settled, None);
        }
    }

    fn write(&mut self, asker: &Asker, settled: &Settled<'_>, points: Option<u16>) {
        if !self.only.has(settled.outcome) {
            return;
        }
        let (query, answer) = (settled.query, settled.answer);
        let lens = u16::try_from(query.len())
            .ok()
            .zip(u16::try_from(answer.len()).ok());
        let Some((query_len, answer_len)) = lens else {
            return self.counters.dnstap_lost.add(1);
        };
        let octets = query.len().saturating_add(answer.len());
        if self.heads.is_full() || self.octets.slots() < octets {
            return self.counters.dnstap_lost.add(1);
        }
        let head = Head {
            client: asker.client,
            server: self.server(asker),
            transport: asker.transport,
            outcome: settled.outcome,
            points,
            asked: settled.asked,
            settled: settled.now,
            id: settled.id,
            query_len,
            answer_len,
        };
        // there is room for all of it, and only this end takes room away; a head that is seen has its
        // octets before it
        let written = self.octets.push_entire_slice(query).is_ok()
            && self.octets.push_entire_slice(answer).is_ok()
            && self.heads.push(head).is_ok();
        debug_assert!(written, "there was room");
    }

    /// One of `sample`, by a xorshift generator.
    const fn is_in_sample(&mut self) -> bool {
        if self.sample <= 1 {
            return true;
        }
        let mut dice = self.dice;
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        self.dice = dice;
        (dice >> 32).is_multiple_of(self.sample as u64)
    }

    /// The address that was asked.
    fn server(&self, asker: &Asker) -> SocketAddr {
        let bound = self.endpoints.get(usize::from(asker.endpoint));
        let mut server = bound.copied().unwrap_or(SocketAddr::from(([0; 4], 0)));
        if let Some((address, _)) = asker.reply_from {
            server.set_ip(address);
        }
        server
    }
}

/// Whether a query that was settled so in the moment it came got as far as scoring.
const fn was_scored(outcome: Outcome) -> bool {
    let (Outcome::Dropped(reason) | Outcome::Answered(_, reason)) = outcome else {
        return false;
    };
    matches!(
        reason,
        Reason::Rule
            | Reason::RateLimit
            | Reason::Band
            | Reason::NonexistentName
            | Reason::QueueFull
    )
}
