//! One configuration at work in a replay: the data path on the trace's clock, with the blocklist that
//! its rules fill.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use dnscrub_detection::Incident;
use dnscrub_net::BUFFER;
use dnscrub_packet_filter::{BlockTable, BlocklistStore, Origin as BlockOrigin};
use dnscrub_scoring::{Case, Judgement, Reply, Scorer, SignalMark, Trace, Transport};
use dnscrub_wire::{HEADER_LEN, Name, Query, Rcode, Response, edit};

use super::ReplayError;
use super::notice::Notice;
use crate::blocklist::{GATHER, KEEP_EVERY, prefix_of};
use crate::config::runtime::{BlocklistFile, Configuration, Reloadable};
use crate::data_path::{BlockRequest, DataPath, Endpoint, Origin, Watcher, unfit_for_udp};
use crate::outcome::{Outcome, Reason};

/// Keys the hashes of tables. A replay has no adversary, and must come to the same result each time.
const SEED: [u64; 4] = [0x5eed, 0x5eed + 1, 0x5eed + 2, 0x5eed + 3];
/// The wall's clock when a trace begins. Only what is later than what matters.
const WALL: SystemTime = SystemTime::UNIX_EPOCH;
/// Blocks between two packets; one packet asks for one at most.
const BLOCKS: usize = 16;

/// A packet that may be a query, and how it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived<'a> {
    /// Since the beginning of the trace.
    pub(super) at: Duration,
    /// The client.
    pub(super) client: SocketAddr,
    /// IP TTL or hop limit, where the trace has it.
    pub(super) hop_ttl: Option<u8>,
    /// UDP or TCP.
    pub(super) transport: Transport,
    /// The message, without TCP's length.
    pub(super) message: &'a [u8],
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision {
    /// Its outcome, supposing that upstreams answer.
    pub(super) outcome: Outcome,
    /// How it was scored, if it got so far.
    pub(super) judgement: Option<Judgement>,
    /// What was asked, where it is a query.
    pub(super) query: Option<Query>,
}

/// A configuration at work.
pub(super) struct Lane {
    path: DataPath,
    began: Instant,
    blocks: Blocks,
    seen: Seen,
    notice: Notice,
    /// Where answers are made for what passes.
    scratch: Box<[u8]>,
}

impl Lane {
    /// Ready for a trace whose beginning is `began`.
    ///
    /// # Errors
    /// A list file that is not taken.
    pub(super) fn new(configuration: Configuration, began: Instant) -> Result<Self, ReplayError> {
        let Configuration {
            startup,
            reloadable,
            blocklists,
            ..
        } = configuration;
        let mut store = BlocklistStore::new(startup.blocklist);
        store.set_never_block(reloadable.never_block.iter().copied());
        for BlocklistFile { path, text, .. } in blocklists {
            let name = path.display().to_string();
            store
                .load_list(&name, &text, WALL)
                .map_err(|failure| ReplayError::List(format!("{name}: {failure}")))?;
        }
        let mut reloadable = reloadable;
        reloadable.scoring.forget(SEED);
        let table = Arc::new(ArcSwap::new(store.publish()));
        let (sender, requests) = sync_channel(BLOCKS);
        let path = DataPath::new(
            0,
            Arc::new(reloadable),
            Arc::clone(&table),
            Arc::default(),
            sender,
            SEED,
            began,
        );
        Ok(Self {
            path,
            began,
            blocks: Blocks {
                requests,
                store,
                table,
                publish_at: None,
                keep_at: Duration::ZERO,
            },
            seen: Seen::default(),
            notice: Notice::default(),
            scratch: vec![0; usize::from(u16::MAX)].into_boxed_slice(),
        })
    }

    /// The policy in force.
    pub(super) fn policy(&self) -> &Reloadable {
        self.path.policy()
    }

    /// Lets time pass for the detector.
    pub(super) fn advance(&mut self, at: Duration) {
        self.notice.advance(&mut self.path, self.began, at);
    }

    /// The incidents noticed, in order; times are seconds since the trace's beginning.
    pub(super) fn incidents(&self) -> &[Incident] {
        self.notice.incidents()
    }

    /// What the signals gave to the packet decided last; empty where scoring did not see it.
    pub(super) fn signals(&self) -> &[SignalMark] {
        &self.seen.trace.signals
    }

    /// Decides on a packet. The same code as in the proxy does it.
    pub(super) fn decide(&mut self, packet: &Arrived<'_>) -> Decision {
        self.blocks.keep(packet.at);
        self.advance(packet.at);
        self.seen.forget();
        let message = packet.message;
        let outcome = if packet.transport == Transport::Udp && message.len() > BUFFER {
            Outcome::Dropped(Reason::Oversized)
        } else {
            let origin = origin(packet);
            let source = self.path.admit_source(packet.client.ip());
            let now = self.began + packet.at;
            let judged = self.path.judge_watched(
                message,
                message.len(),
                &origin,
                source,
                now,
                &mut self.seen,
            );
            match judged {
                ControlFlow::Break(outcome) => outcome,
                ControlFlow::Continue(cleared) if packet.transport == Transport::Udp => {
                    unfit_for_udp(&cleared.query).unwrap_or(Outcome::Forwarded)
                }
                ControlFlow::Continue(_) => Outcome::Forwarded,
            }
        };
        self.blocks.gather(self.path.policy(), packet.at);
        Decision {
            outcome,
            judgement: self.seen.judgement,
            query: self
                .seen
                .query
                .or_else(|| Query::parse(packet.message).ok()),
        }
    }

    /// A query that passed was answered with `rcode` at once; of the answer nothing else is known.
    pub(super) fn answered(&mut self, packet: &Arrived<'_>, query: &Query, rcode: Rcode) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(room) = scratch.get_mut(..packet.message.len()) {
            room.copy_from_slice(packet.message);
            let len = edit::answer(&mut scratch, query, rcode, false, None);
            let answer = scratch.get(..len).unwrap_or_default();
            self.observe(&Asked::new(packet, query), answer, packet.at, false);
        }
        self.scratch = scratch;
    }

    /// Hands an upstream's answer to the scorer, as the proxy does when it delivers one.
    pub(super) fn learn(&mut self, asked: &Asked, answer: &[u8], at: Duration) {
        self.observe(asked, answer, at, true);
    }

    fn observe(&mut self, asked: &Asked, answer: &[u8], at: Duration, measured: bool) {
        let (Ok(response), Ok(qname)) = (
            Response::parse(answer),
            Name::from_wire(answer.get(HEADER_LEN..).unwrap_or_default()),
        ) else {
            return;
        };
        let reply = Reply {
            source: asked.client.ip(),
            transport: asked.transport,
            qname: &qname,
            rcode: response.rcode,
            latency: at.saturating_sub(asked.at),
            query_len: asked.query_len,
            response_len: u16::try_from(answer.len()).unwrap_or(u16::MAX),
        };
        self.path.observe_answer(&reply, measured, self.began + at);
    }
}

/// What is kept of a query that passed until its answer comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    at: Duration,
    client: SocketAddr,
    transport: Transport,
    query_len: u16,
}

impl Asked {
    pub(super) const fn new(packet: &Arrived<'_>, query: &Query) -> Self {
        Self {
            at: packet.at,
            client: packet.client,
            transport: packet.transport,
            query_len: query.len,
        }
    }
}

/// A trace does not say which address was asked: it is the first listener's first.
fn origin(packet: &Arrived<'_>) -> Origin {
    Origin {
        client: packet.client,
        reply_from: None,
        ttl: packet.hop_ttl,
        endpoint: Endpoint {
            index: 0,
            listener: 0,
        },
        transport: packet.transport,
    }
}

/// What scoring did with a packet.
#[derive(Default)]
struct Seen {
    judgement: Option<Judgement>,
    query: Option<Query>,
    trace: Trace,
}

impl Seen {
    fn forget(&mut self) {
        self.judgement = None;
        self.query = None;
        self.trace.clear();
    }
}

impl Watcher for Seen {
    fn score(&mut self, scorer: &mut Scorer, case: Case<'_>) -> Judgement {
        let judgement = scorer.judge_traced(case, &mut self.trace);
        self.judgement = Some(judgement);
        self.query = Some(*case.query);
        judgement
    }
}

/// The blocklist's owner of a replay: in memory only, and on the trace's clock.
struct Blocks {
    requests: Receiver<BlockRequest>,
    store: BlocklistStore,
    table: Arc<ArcSwap<BlockTable>>,
    /// When the gathered blocks come into force.
    publish_at: Option<Duration>,
    /// When expiry is looked after next.
    keep_at: Duration,
}

impl Blocks {
    /// Does what is due before a packet at this time.
    fn keep(&mut self, at: Duration) {
        if at >= self.keep_at {
            self.keep_at = at + KEEP_EVERY;
            self.store.expire(WALL + at);
        } else if self.publish_at.is_none_or(|due| at < due) {
            return;
        }
        self.publish_at = None;
        if self.store.has_changed() {
            self.table.store(self.store.publish());
        }
    }

    /// Takes the block that a rule asked for. One that the blocklist refuses is refused here, too.
    fn gather(&mut self, policy: &Reloadable, at: Duration) {
        while let Ok(request) = self.requests.try_recv() {
            let name = policy.scoring.rule_name(request.rule).unwrap_or_default();
            let added = self.store.add(
                prefix_of(request.source),
                "",
                BlockOrigin::Rule(name.to_owned()),
                WALL + at,
                Some(request.lifetime),
            );
            if added.is_ok() && self.publish_at.is_none() {
                self.publish_at = Some(at + GATHER);
            }
        }
    }
}
