//! How often signals and bands did something, and how often observe mode held it back.
//!
//! Counters belong to one worker each, which alone writes them; whoever wants a sum adds up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::judgement::Action;
use crate::rules::count;
use crate::signals::{COUNT, LABELS};

/// A worker's counters of a signal.
#[derive(Debug, Default)]
pub(crate) struct SignalHits {
    pub(crate) queries: AtomicU64,
    pub(crate) points: AtomicU64,
    pub(crate) held_back: AtomicU64,
}

/// A worker's counters of all signals, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct SignalCounters(pub(crate) [SignalHits; COUNT]);

impl SignalCounters {
    /// A signal gave points, or took some away.
    #[inline]
    pub(crate) fn gave(&self, signal: usize, points: i32) {
        if let Some(hits) = self.0.get(signal) {
            count(&hits.queries);
            let sum = hits.points.load(Ordering::Relaxed);
            hits.points.store(
                sum.wrapping_add(points.unsigned_abs().into()),
                Ordering::Relaxed,
            );
        }
    }

    /// A signal would have changed what became of a query.
    #[inline]
    pub(crate) fn held_back(&self, signal: usize) {
        self.0
            .get(signal)
            .into_iter()
            .for_each(|hits| count(&hits.held_back));
    }
}

/// The signals' counters by worker.
pub(crate) type BySignal = Arc<[SignalCounters]>;

/// A worker's counters of a band, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct BandHits {
    pub(crate) acted: AtomicU64,
    pub(crate) held_back: AtomicU64,
}

/// A band's counters by worker.
pub(crate) type ByWorker = Arc<[BandHits]>;

/// Fresh counters for so many workers.
pub(crate) fn fresh<T: Default>(workers: usize) -> Arc<[T]> {
    (0..workers).map(|_| T::default()).collect()
}

/// A signal and how often it had something to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SignalView {
    /// Its name.
    pub name: &'static str,
    /// It is in observe mode, by itself or because everything is.
    pub observe: bool,
    /// Queries it gave points to, or took some from.
    pub queries: u64,
    /// These points in all, without their sign.
    pub points: u64,
    /// Queries that would have been treated otherwise, were this signal not in observe mode by
    /// itself. Where everything is in observe mode, the bands count instead.
    pub held_back: u64,
}

/// A band and how often it decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BandView {
    /// Its action and threshold, such as `drop-90`.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// The points that reach it without pressure.
    pub at: i32,
    /// The same under full pressure.
    pub under_pressure: i32,
    /// It is in observe mode, by itself or because everything is.
    pub observe: bool,
    /// Queries it decided.
    pub acted: u64,
    /// Queries it would have decided, were nothing in observe mode.
    pub held_back: u64,
}

/// The views of all signals, their counters summed.
pub(crate) fn signals(counters: &[SignalCounters], observed: [bool; COUNT]) -> Vec<SignalView> {
    let sum = |signal: usize, of: fn(&SignalHits) -> &AtomicU64| {
        let hits = counters
            .iter()
            .filter_map(|SignalCounters(hits)| hits.get(signal));
        hits.map(|hits| of(hits).load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    };
    let each = LABELS.iter().zip(observed).enumerate();
    each.map(|(signal, (name, observe))| SignalView {
        name,
        observe,
        queries: sum(signal, |hits| &hits.queries),
        points: sum(signal, |hits| &hits.points),
        held_back: sum(signal, |hits| &hits.held_back),
    })
    .collect()
}
