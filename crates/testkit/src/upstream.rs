//! A name server in the simulated network.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dnscrub_embedded_authority::{Authority, Behaviour, Fate, Reply, Transport};
use dnscrub_wire::HEADER_LEN;

/// An [`Authority`] in the simulated network. Delay, loss, hanging, forced rcodes and capacity
/// come from its [`Behaviour`], on virtual time; what a process that is down or hostile does comes
/// from its [`Mood`].
#[derive(Debug)]
pub struct SimUpstream {
    authority: Arc<Authority>,
    behaviour: Behaviour,
    start: Instant,
    mood: Mood,
    flapping: Option<(Duration, Duration)>,
    received: u64,
    answered: u64,
}

/// How an upstream meets a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It answers.
    #[default]
    Up,
    /// The host is gone: nothing comes back.
    Dead,
    /// The host is there, the server is not: the sender learns that the port is closed (ICMP).
    Refusing,
    /// Every answer is this lie.
    Lying(Lie),
    /// This lie comes, and behind it the true answer.
    Spoofed(Lie),
}

/// An answer that must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Another message id.
    WrongId,
    /// Another name in the question.
    WrongQuestion,
    /// The query itself comes back, QR=0.
    Echo,
    /// Octets that are no message.
    Garbage,
    /// An empty datagram.
    Empty,
    /// The right answer, cut in the middle of its question.
    Cut,
}

/// What an upstream does about one query.
pub(crate) enum Reaction {
    Nothing,
    Refuse,
    /// These datagrams, in their order, at that instant.
    Answer(Instant, Vec<Vec<u8>>),
}

impl SimUpstream {
    /// An upstream that answers at once; `now` is the origin of its times.
    #[must_use]
    pub fn new(authority: Arc<Authority>, now: Instant) -> Self {
        Self {
            authority,
            behaviour: Behaviour::new(now),
            start: now,
            mood: Mood::Up,
            flapping: None,
            received: 0,
            answered: 0,
        }
    }

    /// [`new`](Self::new), every answer taking `latency`.
    #[must_use]
    pub fn with_latency(authority: Arc<Authority>, now: Instant, latency: Duration) -> Self {
        let upstream = Self::new(authority, now);
        upstream.behaviour.set_delay(latency, Duration::ZERO);
        upstream
    }

    /// Delay, loss, hanging, forced rcode, truncation and capacity.
    #[must_use]
    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// Changes how it meets queries from now on, and ends flapping.
    pub fn set_mood(&mut self, mood: Mood) {
        self.mood = mood;
        self.flapping = None;
    }

    /// From `now` on, answers for the time `up`, is in `mood` for the time `down`, and so on.
    pub fn flap(&mut self, now: Instant, up: Duration, down: Duration, mood: Mood) {
        self.start = now;
        self.mood = mood;
        self.flapping = Some((up, down));
    }

    /// Datagrams that reached it, whatever it did about them. None does while it is dead or
    /// refuses.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Queries it answered, with the truth or a lie.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// How it meets a query at `now`.
    #[must_use]
    pub fn mood_at(&self, now: Instant) -> Mood {
        match self.flapping {
            Some((up, down)) => {
                let round = (up + down).as_nanos().max(1);
                let into = now.saturating_duration_since(self.start).as_nanos() % round;
                if into < up.as_nanos() {
                    Mood::Up
                } else {
                    self.mood
                }
            }
            None => self.mood,
        }
    }

    pub(crate) fn on_datagram(&mut self, packet: &[u8], now: Instant, random: u64) -> Reaction {
        let mood = self.mood_at(now);
        match mood {
            Mood::Dead => return Reaction::Nothing,
            Mood::Refusing => return Reaction::Refuse,
            Mood::Up | Mood::Lying(_) | Mood::Spoofed(_) => {}
        }
        self.received += 1;
        let due = match self.behaviour.fate(now, random) {
            Fate::Swallow(_) => return Reaction::Nothing,
            Fate::Answer(due) => due.unwrap_or(now),
        };
        let mut truth = Vec::new();
        if !matches!(self.reply(packet, &mut truth), Reply::Message { .. }) {
            return Reaction::Nothing;
        }
        self.answered += 1;
        let answers = match mood {
            Mood::Lying(lie) => vec![lie.told(packet, &truth)],
            Mood::Spoofed(lie) => vec![lie.told(packet, &truth), truth],
            _ => vec![truth],
        };
        Reaction::Answer(due, answers)
    }

    fn reply(&self, packet: &[u8], out: &mut Vec<u8>) -> Reply {
        let forced = match self.behaviour.rcode() {
            Some(rcode) => Some((rcode, false)),
            None => self
                .behaviour
                .truncates()
                .then_some((dnscrub_wire::Rcode::NOERROR, true)),
        };
        match forced.zip(dnscrub_wire::Query::parse(packet).ok()) {
            Some(((rcode, truncated), query)) => self
                .authority
                .answer_with(&query, packet, rcode, truncated, out),
            None => self.authority.answer(packet, Transport::Udp, out),
        }
    }
}

impl Lie {
    fn told(self, query: &[u8], truth: &[u8]) -> Vec<u8> {
        let mut lie = truth.to_vec();
        match self {
            Self::WrongId => lie[1] ^= 0x55,
            Self::WrongQuestion => {
                // the first octet of the first label, so that another name stands there
                if let Some(octet) = lie.get_mut(HEADER_LEN + 1) {
                    *octet = if octet.eq_ignore_ascii_case(&b'q') {
                        b'z'
                    } else {
                        b'q'
                    };
                }
            }
            Self::Echo => lie = query.to_vec(),
            Self::Garbage => lie = vec![0xff; 40],
            Self::Empty => lie.clear(),
            Self::Cut => lie.truncate(HEADER_LEN + 3),
        }
        lie
    }
}
