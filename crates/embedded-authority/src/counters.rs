//! What a server has seen and done.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dnscrub_wire::{Name, Rcode};

use crate::behaviour::Fault;

/// Counts of a running server, from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages received over UDP.
    pub udp_queries: u64,
    /// Messages received over TCP.
    pub tcp_queries: u64,
    /// TCP connections accepted.
    pub tcp_connections: u64,
    /// Answers by rcode, 0 to 16 (BADVERS).
    pub answers: [u64; 17],
    /// Answers with TC=1.
    pub truncated: u64,
    /// Zone transfers started.
    pub transfers: u64,
    /// Packets that deserve no answer: responses, and less than a header.
    pub silent: u64,
    /// Queries swallowed because the server hangs.
    pub hung: u64,
    /// Queries swallowed by random loss.
    pub lost: u64,
    /// Queries swallowed because the capacity was exhausted, or too many delayed answers waited.
    pub overloaded: u64,
}

impl Counts {
    /// Messages received.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.udp_queries + self.tcp_queries
    }

    /// Answers with this rcode; 0 for one above 16.
    #[must_use]
    pub fn answers_with(&self, rcode: Rcode) -> u64 {
        self.answers.get(usize::from(rcode.0)).copied().unwrap_or(0)
    }
}

/// The live counters, shared by the threads.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) udp_queries: AtomicU64,
    pub(crate) tcp_queries: AtomicU64,
    pub(crate) tcp_connections: AtomicU64,
    answers: [AtomicU64; 17],
    truncated: AtomicU64,
    pub(crate) transfers: AtomicU64,
    pub(crate) silent: AtomicU64,
    hung: AtomicU64,
    lost: AtomicU64,
    overloaded: AtomicU64,
}

impl Counters {
    pub(crate) fn answered(&self, rcode: Rcode, truncated: bool) {
        if let Some(count) = self.answers.get(usize::from(rcode.0)) {
            count.fetch_add(1, Relaxed);
        }
        if truncated {
            self.truncated.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn swallowed(&self, fault: Fault) {
        match fault {
            Fault::Hang => &self.hung,
            Fault::Loss => &self.lost,
            Fault::Overload => &self.overloaded,
        }
        .fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Counts {
        Counts {
            udp_queries: self.udp_queries.load(Relaxed),
            tcp_queries: self.tcp_queries.load(Relaxed),
            tcp_connections: self.tcp_connections.load(Relaxed),
            answers: std::array::from_fn(|rcode| self.answers[rcode].load(Relaxed)),
            truncated: self.truncated.load(Relaxed),
            transfers: self.transfers.load(Relaxed),
            silent: self.silent.load(Relaxed),
            hung: self.hung.load(Relaxed),
            lost: self.lost.load(Relaxed),
            overloaded: self.overloaded.load(Relaxed),
        }
    }
}

/// What was asked: the distinct names, and the last messages as they came.
pub(crate) struct Memory {
    max_names: usize,
    max_messages: usize,
    names: Mutex<HashSet<Box<[u8]>, ahash::RandomState>>,
    messages: Mutex<VecDeque<Vec<u8>>>,
}

impl Memory {
    pub(crate) fn new(max_names: usize, max_messages: usize) -> Self {
        Self {
            max_names,
            max_messages,
            names: Mutex::default(),
            messages: Mutex::default(),
        }
    }

    /// Keeps the message and its name. Full: no further name is kept, and the oldest message goes.
    pub(crate) fn remember(&self, packet: &[u8]) {
        if self.max_names > 0
            && let Some(Ok(name)) = packet.get(dnscrub_wire::HEADER_LEN..).map(Name::from_wire)
        {
            let mut names = lock(&self.names);
            if names.len() < self.max_names && !names.contains(name.as_wire()) {
                names.insert(name.as_wire().into());
            }
        }
        if self.max_messages > 0 {
            let mut messages = lock(&self.messages);
            while messages.len() >= self.max_messages {
                messages.pop_front();
            }
            messages.push_back(packet.to_vec());
        }
    }

    pub(crate) fn distinct_names(&self) -> usize {
        lock(&self.names).len()
    }

    pub(crate) fn was_asked(&self, name: &Name) -> bool {
        lock(&self.names).contains(name.as_wire())
    }

    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        lock(&self.messages).iter().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
