//! The thread that empties the rings.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dnscrub_wire::edit::set_id;
use dnscrub_wire::{HEADER_LEN, Name};
use tracing::{info, warn};

use super::config::Settings;
use super::frames;
use super::message::{Calendar, Encoder};
use super::sink::Sink;
use super::tap::{Drain, Head};
use crate::config::runtime::Reloadable;
use crate::shared::Shared;

/// How often the rings are looked at: workers wake nobody.
const LOOK: Duration = Duration::from_millis(20);
/// Octets taken from each worker's ring at a time, about.
const BATCH: usize = 256 << 10;
/// Waits between attempts to reach the collector: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The thread that writes.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(
        settings: &Settings,
        drains: Vec<Drain>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let identity = settings
            .identity
            .clone()
            .unwrap_or_else(dnscrub_net::process::host_name);
        let mut work = Work {
            sink: Sink::new(settings.target.clone()),
            target: settings.target.to_string(),
            encoder: Encoder::new(&identity),
            drains,
            shared,
            batch: Vec::with_capacity(BATCH),
            frames: 0,
            message: Vec::new(),
            next_try: Instant::now(),
            wait: FIRST_WAIT,
            told: false,
        };
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("dnstap".to_owned())
            .spawn(move || work.run(&stopping))?;
        Ok(Self { stop, thread })
    }

    /// Writes what is left, and ends. The workers must have ended before.
    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

struct Work {
    sink: Sink,
    target: String,
    encoder: Encoder,
    drains: Vec<Drain>,
    shared: Arc<Shared>,
    /// Whole frames that wait to be written, and how many.
    batch: Vec<u8>,
    frames: u64,
    message: Vec<u8>,
    next_try: Instant,
    wait: Duration,
    /// The log knows that it cannot be written.
    told: bool,
}

impl Work {
    fn run(&mut self, stop: &AtomicBool) {
        loop {
            // read before the rings are, so that nothing is put in after the last look
            let stopping = stop.load(Relaxed);
            self.reach(stopping);
            while self.sink.is_open() && self.write_some() {}
            if stopping {
                break;
            }
            std::thread::park_timeout(LOOK);
        }
        let left: usize = self.drains.iter().map(|drain| drain.heads.slots()).sum();
        self.shared.dnstap.lost.fetch_add(left as u64, Relaxed);
        if let Err(failure) = self.sink.close() {
            warn!(target = self.target, %failure, "the dnstap stream did not end as it should");
        }
        self.shared.dnstap.open.store(false, Relaxed);
    }

    /// Opens the file or finds the collector, when it is time to try.
    fn reach(&mut self, stopping: bool) {
        let now = Instant::now();
        if self.sink.is_open() || (now < self.next_try && !stopping) {
            return;
        }
        match self.sink.open() {
            Ok(()) => {
                info!(target = self.target, "writing dnstap");
                self.shared.dnstap.open.store(true, Relaxed);
                self.told = false;
            }
            Err(failure) => self.failed(&failure),
        }
    }

    fn failed(&mut self, failure: &io::Error) {
        self.shared.dnstap.open.store(false, Relaxed);
        if !std::mem::replace(&mut self.told, true) {
            warn!(target = self.target, %failure, "dnstap cannot be written; trying again");
        }
        self.next_try = Instant::now() + self.wait;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// Writes a batch; whether there may be more.
    fn write_some(&mut self) -> bool {
        let policy = self.shared.policy.load_full();
        let calendar = Calendar::now();
        let mut drains = std::mem::take(&mut self.drains);
        for drain in &mut drains {
            let enough = self.batch.len() + BATCH;
            while self.batch.len() < enough
                && let Ok(head) = drain.heads.pop()
            {
                self.add(&head, drain, &policy, &calendar);
            }
        }
        self.drains = drains;
        if self.batch.is_empty() {
            return false;
        }
        let written = self.sink.write(&self.batch);
        let progress = &self.shared.dnstap;
        match written {
            Ok(()) => {
                progress.frames.fetch_add(self.frames, Relaxed);
                self.wait = FIRST_WAIT;
            }
            Err(failure) => {
                progress.lost.fetch_add(self.frames, Relaxed);
                self.failed(&failure);
            }
        }
        self.batch.clear();
        self.frames = 0;
        true
    }

    /// Takes the octets that belong to a head, and makes frames of both.
    fn add(&mut self, head: &Head, drain: &mut Drain, policy: &Reloadable, calendar: &Calendar) {
        let query_len = usize::from(head.query_len);
        self.message
            .resize(query_len + usize::from(head.answer_len), 0);
        if drain.octets.pop_entire_slice(&mut self.message).is_err() {
            return;
        }
        let (query, answer) = self
            .message
            .split_at_mut_checked(query_len)
            .unwrap_or_default();
        if let Some(id) = head.id {
            set_id(query, id);
            set_id(answer, id);
        }
        let qname = query.get(HEADER_LEN..).map(Name::from_wire);
        let zone = qname
            .and_then(Result::ok)
            .and_then(|qname| policy.zones.find(&qname).map(|(_, zone)| *zone.name()));
        let zone = zone.as_ref().map(Name::as_wire);
        let (batch, frames) = (&mut self.batch, &mut self.frames);
        self.encoder
            .encode(head, calendar, (query, answer), zone, |message| {
                frames::put(batch, message);
                *frames += 1;
            });
    }
}
