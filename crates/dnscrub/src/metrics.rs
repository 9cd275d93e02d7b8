//! Prometheus metrics, in the text format 0.0.4.
//!
//! [`ALL`] defines every metric once: name, kind, labels and help, for the exposition and for the
//! reference page alike. Labels are only what the configuration names (pools, upstreams, rules,
//! lists, zones) and our own words, and all of them are escaped. Nothing comes from a packet but, in
//! `dnscrub_zone_defence_level`, `dnscrub_incident_info` and the levels by hand and by incident, a small number
//! of names that are flooded and that no zone of the configuration has. Every series of our own words is there from the start, with 0.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use dnscrub_detection as incident;
use dnscrub_scoring::response_limit::Over;
use dnscrub_scoring::{Action, Level, Transport};
use dnscrub_xdp::Outcome as KernelOutcome;

use crate::blocklist::BlocklistOwner;
use crate::counters::{LATENCY_BOUNDS_US, LatencyHistogram, WorkerCounters};
use crate::defence::{Sight, WHOLE};
use crate::outcome::{Answer, LimitResult, Outcome, Reason, ResponseOutcome};
use crate::routes::book::Refusal;
use crate::shared::Shared;
use crate::supervisor::Supervisor;
use crate::unix_time;

/// The `Content-Type` of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a metric's values behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the program restarts.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bound (`_bucket`), in all (`_count`), and the sum (`_sum`).
    Histogram,
}

impl Kind {
    const fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric's definition.
#[derive(Debug)]
pub struct Metric {
    /// Its name, with `dnscrub_` in front but for the usual ones of the process.
    pub name: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it is, in a sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(const $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)+

        /// Every metric, in the order of the exposition.
        pub const ALL: &[&Metric] = &[$(&$constant),+];
    };
}

metrics! {
    BUILD_INFO = Gauge "dnscrub_build_info" ["version"] "Always 1; the label says which version runs.";
    WORKERS = Gauge "dnscrub_workers" [] "Worker threads.";

    RECEIVED = Counter "dnscrub_queries_received_total" ["transport"]
        "Packets and messages that came in from clients.";
    QUERIES = Counter "dnscrub_queries_total" ["transport", "outcome", "answer", "reason"]
        "Queries by what became of them. Together with those in flight and those that wait for room they are those received.";
    IN_FLIGHT = Gauge "dnscrub_queries_in_flight" ["transport"] "Queries that wait for an upstream's answer.";
    HELD_BACK = Counter "dnscrub_observed_actions_total" ["action"]
        "Queries that would have been treated so, were it not for observe mode.";
    LIMITED = Counter "dnscrub_response_limited_total" ["class", "result"]
        "Answers over a limit of `response-limit`, by the limit and by what was done.";
    QUEUE_DROPS = Counter "dnscrub_receive_queue_drops_total" []
        "Datagrams the kernel dropped because a listener's receive queue was full.";
    SEND_FAILURES = Counter "dnscrub_send_failures_total" [] "Datagrams the kernel did not take for sending.";

    RESPONSES = Counter "dnscrub_upstream_responses_total" ["outcome"] "Packets from upstreams by what became of them.";
    LATENCY = Histogram "dnscrub_upstream_latency_seconds" []
        "Time from forwarding a query to its answer, over UDP.";
    RETRIES = Counter "dnscrub_retries_total" [] "Queries sent to an upstream again.";
    KERNEL_PACKETS = Counter "dnscrub_kernel_packets_total" ["outcome", "reason"]
        "Packets that came in on the interfaces of `kernel`, by what the program in the kernel did with them. What it drops is no query received. Absent without `kernel`.";
    KERNEL_ATTACHED = Gauge "dnscrub_kernel_attached" ["interface", "mode"]
        "1 if the program is on the interface, in the driver or in the kernel's own code (generic); 0 with mode none if it is not.";
    KERNEL_LIMITING = Gauge "dnscrub_kernel_limiting" [] "1 while a limit is in force in the kernel. Absent without `kernel`.";

    PRESSURE = Gauge "dnscrub_pressure" ["pool"] "How close the pool is to its limit, 0 to 1.";
    PROXY_PRESSURE = Gauge "dnscrub_proxy_pressure" []
        "How much the receive queues overflow, 0 to 1, in the worker where they do most.";
    QUEUE_LENGTH = Gauge "dnscrub_queue_length" ["pool"] "Queries that wait for room at an upstream.";
    QUEUE_WAIT = Histogram "dnscrub_queue_wait_seconds" []
        "Time that queries waited for room at an upstream and were then sent to it.";
    UPSTREAM_STATE = Gauge "dnscrub_upstream_state" ["pool", "upstream", "address", "state"]
        "1 for the upstream's state, 0 for the others.";
    UPSTREAM_QUERIES = Counter "dnscrub_upstream_queries_total" ["pool", "upstream", "address"]
        "Queries sent to the upstream, repeated ones included.";
    UPSTREAM_ANSWERS = Counter "dnscrub_upstream_answers_total" ["pool", "upstream", "address"]
        "Answers of the upstream that went to clients.";
    UPSTREAM_TIMEOUTS = Counter "dnscrub_upstream_timeouts_total" ["pool", "upstream", "address"]
        "Queries that the upstream did not answer in time.";
    UPSTREAM_REFUSALS = Counter "dnscrub_upstream_refusals_total" ["pool", "upstream", "address"]
        "Times the upstream's machine said that nobody listens.";
    UPSTREAM_OUTSTANDING = Gauge "dnscrub_upstream_outstanding_queries" ["pool", "upstream", "address"]
        "Queries without an answer.";
    UPSTREAM_LIMIT = Gauge "dnscrub_upstream_outstanding_limit" ["pool", "upstream", "address"]
        "Most queries without an answer that the upstream may ever have, as configured.";
    UPSTREAM_LEARNED = Gauge "dnscrub_upstream_limit" ["pool", "upstream", "address"]
        "How many queries without an answer the upstream may have, as learned from its latency and losses.";
    UPSTREAM_LATENCY = Gauge "dnscrub_upstream_smoothed_latency_seconds" ["pool", "upstream", "address"]
        "Smoothed time to answer; absent before the first answer.";

    LEVEL = Gauge "dnscrub_defence_level" ["scope"] "Defence level of the whole: 0 calm, 1 alert, 2 attack.";
    ZONE_LEVEL = Gauge "dnscrub_zone_defence_level" ["zone"]
        "The same of each zone of the configuration, names inside it included, and of up to 20 other names that are flooded.";
    LEVEL_BY_HAND = Gauge "dnscrub_level_by_hand" ["zone"]
        "Level that an operator set: 0 calm, 1 alert, 2 attack; `whole` for all zones. Absent where none is set.";
    LEVEL_BY_INCIDENT = Gauge "dnscrub_level_by_incident" ["zone"]
        "Level that an incident raised, in the same way. Absent where none does; 32 zones at most.";
    INCIDENTS_OPEN = Gauge "dnscrub_incidents_open" ["kind"] "Incidents that are going on.";
    INCIDENTS_TOTAL = Counter "dnscrub_incidents_total" ["kind"]
        "Incidents that were opened, by what they were taken for first.";
    INCIDENT_INFO = Gauge "dnscrub_incident_info" ["number", "kind", "zone"]
        "1 for each incident that is going on, 32 at most; the zone is the one most concerned, and empty where it is about none in particular.";
    INCIDENT_NAMING = Gauge "dnscrub_incident_naming_seconds" []
        "How long after its beginning the last incident was noticed and named; absent before the first.";
    INCIDENTS_KEPT = Gauge "dnscrub_incidents_kept" [] "Incidents on record.";
    INCIDENT_SAVE_FAILURES = Counter "dnscrub_incident_save_failures_total" []
        "Times that the record of an incident could not be saved.";
    AUTOMATIC_BLOCKS = Gauge "dnscrub_automatic_blocks" []
        "Entries of the blocklist that are there because of an incident.";
    KNOWN_QUERIES = Counter "dnscrub_known_queries_total" ["result"]
        "Queries of sources known from before, who are taken to mean no harm: served, challenged (told to come back over TCP or with a cookie), lost (dropped, refused, or not answered in time).";
    MEASURE = Gauge "dnscrub_measure" ["measure"]
        "What is measured of the whole, in the last second: rates in events a second, shares from 0 to 1, latency in seconds.";
    MEASURE_USUAL = Gauge "dnscrub_measure_usual" ["measure"] "The same in calm times at this hour; absent before it is learned.";

    ALARM_RATE = Gauge "dnscrub_alarm_rate" ["signal"]
        "Events a second that the signal's alarm goes by; for `suffix-flood` doubtful names.";
    ALARM_USUAL = Gauge "dnscrub_alarm_usual_rate" ["signal"] "How many of them are usual.";
    SIGNAL_QUERIES = Counter "dnscrub_signal_queries_total" ["signal"]
        "Queries that the signal gave points to, or took some from.";
    SIGNAL_POINTS = Counter "dnscrub_signal_points_total" ["signal"] "These points in all, without their sign.";
    SIGNAL_HELD_BACK = Counter "dnscrub_signal_observed_actions_total" ["signal"]
        "Queries that would have been treated otherwise, were the signal not in observe mode by itself.";
    BANDS = Counter "dnscrub_band_total" ["band", "result"]
        "Queries that the band decided (acted), or would have, were it not for observe mode (held_back).";
    SCORING_MEMORY = Gauge "dnscrub_scoring_memory_octets" ["part"]
        "Memory of scoring: what all workers share, their own tables, and those of `response-limit`.";
    LEARNED_SAVES = Counter "dnscrub_learned_saves_total" ["result"]
        "Saves of what was learned by what they came to; they are put off while there is an alarm.";

    RULE_MATCHES = Counter "dnscrub_rule_matches_total" ["rule"]
        "Queries that the rule matched, of those that came as far.";
    RULE_ACTIONS = Counter "dnscrub_rule_actions_total" ["rule", "action"]
        "Queries that the rule decided; absent for actions it has not yet taken.";
    RULE_HELD_BACK = Counter "dnscrub_rule_observed_actions_total" ["rule"]
        "Queries that the rule would have decided, were it not for observe mode.";
    RULE_ROUTED = Counter "dnscrub_rule_routed_total" ["rule"] "Queries that the rule sent to its pool.";
    RULE_OBSERVED = Gauge "dnscrub_rule_observe_mode" ["rule"] "1 if the rule is in observe mode.";

    BLOCK_ENTRIES = Gauge "dnscrub_blocklist_entries" ["kind"]
        "Entries of list files (static) and of rules, incidents and operators (dynamic). Their hits are the queries with reason blocked.";
    BLOCK_LIMIT = Gauge "dnscrub_blocklist_entries_limit" ["kind"] "How many entries there may be.";
    BLOCK_LIST_ENTRIES = Gauge "dnscrub_blocklist_file_entries" ["file"] "Entries of a list file.";
    BLOCK_LIST_LOADED = Gauge "dnscrub_blocklist_file_loaded_timestamp_seconds" ["file"]
        "When the version of the list file that is in force was loaded.";
    BLOCK_LIST_STALE = Gauge "dnscrub_blocklist_file_stale" ["file"]
        "1 if the list file's newest version was refused or cannot be read.";
    BLOCK_EXPIRED = Counter "dnscrub_blocklist_expired_total" [] "Entries that expired.";
    BLOCK_EVICTED = Counter "dnscrub_blocklist_evicted_total" [] "Entries that made room for an operator's.";
    BLOCK_REFUSED = Counter "dnscrub_blocklist_refused_total" [] "Rules' blocks that the blocklist did not take.";
    BLOCK_LOST = Counter "dnscrub_blocklist_lost_total" []
        "Rules' blocks that a worker could not hand over because the queue was full.";
    BLOCK_SAVES = Counter "dnscrub_blocklist_saves_total" [] "Times the dynamic entries were saved.";
    BLOCK_SAVE_FAILURES = Counter "dnscrub_blocklist_save_failures_total" [] "Times they could not be saved.";
    BLOCK_UNSAVED = Gauge "dnscrub_blocklist_unsaved" []
        "1 while the last save has failed, so that a restart would lose changes.";

    TCP_ACCEPTED = Counter "dnscrub_tcp_connections_accepted_total" [] "TCP connections of clients that were accepted.";
    TCP_TURNED_AWAY = Counter "dnscrub_tcp_connections_turned_away_total" []
        "TCP connections of clients that were closed at once because of a limit.";
    TCP_OPEN = Gauge "dnscrub_tcp_connections" [] "TCP connections of clients that are open.";
    TCP_TOO_SLOW = Counter "dnscrub_tcp_connections_too_slow_total" []
        "TCP connections that were closed because the client read or wrote too slowly.";
    TRANSFERS = Counter "dnscrub_zone_transfers_total" [] "Zone transfers that were passed through.";
    TRANSFERS_RUNNING = Gauge "dnscrub_zone_transfers_running" [] "Zone transfers that are running.";

    ZONE_LOADED = Gauge "dnscrub_zone_loaded" ["zone"]
        "1 if it is known which names the zone has: it is loaded and has not expired. Zones whose names are learned are left out, here and below.";
    ZONE_STALE = Gauge "dnscrub_zone_stale" ["zone"] "1 if the zone is loaded and its refresh is overdue.";
    ZONE_SERIAL = Gauge "dnscrub_zone_serial" ["zone"] "The zone's SOA serial; absent before it is loaded.";
    ZONE_NAMES = Gauge "dnscrub_zone_names" ["zone"] "Names in the zone, empty non-terminals included.";
    ZONE_MEMORY = Gauge "dnscrub_zone_memory_bytes" ["zone"] "Memory of what is known of the zone.";
    ZONE_REFRESHED = Gauge "dnscrub_zone_last_refresh_timestamp_seconds" ["zone"]
        "When the zone was last found to be up to date; absent before that.";
    ZONE_TRANSFERS = Counter "dnscrub_zone_transfers_in_total" ["zone", "result"]
        "Refreshes of the zone by what they came to.";

    DNSTAP_OPEN = Gauge "dnscrub_dnstap_open" [] "1 while the file of `dnstap` is open or its collector is there.";
    DNSTAP_FRAMES = Counter "dnscrub_dnstap_frames_total" [] "Messages written to the file or to the collector.";
    DNSTAP_LOST = Counter "dnscrub_dnstap_lost_total" ["reason"]
        "What was not written: queries that found no room in the buffer (buffer_full), and messages whose writing failed (write_failed).";
    NOTICES = Counter "dnscrub_notices_total" ["destination", "result"]
        "Notices of incidents by what became of them: delivered, replaced by a later one before that (alerts only), failed for good, expired, or dropped because the queue was full or the destination is gone.";
    NOTICES_QUEUED = Gauge "dnscrub_notices_queued" ["destination"]
        "Notices that wait for the destination, those on their way included.";
    NOTICES_LOST = Counter "dnscrub_notices_lost_total" []
        "Events that were not taken at once, because too many came; they are told within a minute.";
    NOTICES_UNSAVED = Gauge "dnscrub_notices_unsaved" []
        "1 while the queue of notices cannot be written to the disk, so that a restart would lose some.";
    ROUTES = Gauge "dnscrub_routes" ["kind", "state"]
        "Routes for the routers in front by how they stand; those that are announced are those that ExaBGP has confirmed.";
    ROUTES_REFUSED = Counter "dnscrub_routes_refused_total" ["reason"] "Routes that a limit was against.";
    ROUTES_ANNOUNCED = Counter "dnscrub_routes_announced_total" []
        "FlowSpec rules and blackholes that ExaBGP was asked to announce.";
    ROUTES_WITHDRAWN = Counter "dnscrub_routes_withdrawn_total" [] "Those of them that were withdrawn.";
    ROUTES_CONNECTED = Gauge "dnscrub_routes_exabgp_connections" [] "Processes of ExaBGP that are connected.";

    CONFIG_GENERATION = Gauge "dnscrub_config_generation" [] "Number of the configuration in force, from 1.";
    CONFIG_LOADED = Gauge "dnscrub_config_last_load_timestamp_seconds" [] "When the configuration in force was loaded.";
    CONFIG_SUCCESSFUL = Gauge "dnscrub_config_last_reload_successful" [] "1 unless the last reload has failed.";
    CONFIG_RELOADS = Counter "dnscrub_config_reloads_total" ["result"] "Reloads by their result.";

    PROCESS_START = Gauge "process_start_time_seconds" [] "When the program started.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "CPU time used, in user and kernel mode.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" [] "Memory in RAM.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" [] "Address space in use.";
    PROCESS_FDS = Gauge "process_open_fds" [] "Open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" [] "How many file descriptors may be open.";
}

/// Incidents and zones they raise that have series of their own.
const MOST_INCIDENTS: usize = 32;
/// States of an upstream, as [`dnscrub_forwarding::UpstreamSnapshot::state`] says them.
const UPSTREAM_STATES: [&str; 5] = ["up", "down", "suspect", "untested", "unchecked"];

/// All metrics of the running program. May wait for the blocklist's locks.
#[must_use]
pub fn exposition(supervisor: &Supervisor) -> String {
    let mut page = Page::default();
    let shared = &*supervisor.shared;
    page.one(&BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
    page.one(&WORKERS, &[], shared.counters.len());
    queries(&mut page, &shared.counters);
    kernel(&mut page, shared);
    pressure(&mut page, shared);
    upstreams(&mut page, shared);
    defence(&mut page, supervisor);
    signals(&mut page, supervisor);
    rules(&mut page, shared);
    blocklist(&mut page, shared, &supervisor.blocklist);
    streams(&mut page, shared);
    zones(&mut page, supervisor);
    dnstap(&mut page, shared);
    notices(&mut page, supervisor);
    routes(&mut page, shared);
    configuration(&mut page, supervisor);
    process(&mut page, shared.started);
    page.text
}

fn sum(workers: &[std::sync::Arc<WorkerCounters>], of: impl Fn(&WorkerCounters) -> u64) -> u64 {
    workers
        .iter()
        .map(|worker| of(worker))
        .fold(0, u64::wrapping_add)
}

const TRANSPORTS: [(Transport, &str); 2] = [(Transport::Udp, "udp"), (Transport::Tcp, "tcp")];

fn queries(page: &mut Page, workers: &[std::sync::Arc<WorkerCounters>]) {
    let mut family = page.family(&RECEIVED);
    for (transport, label) in TRANSPORTS {
        family.sample(
            &[label],
            sum(workers, |worker| worker.queries(transport).received()),
        );
    }
    let mut family = page.family(&QUERIES);
    for (transport, label) in TRANSPORTS {
        for (outcome, count) in outcomes(workers, transport) {
            if count > 0 || can_happen(outcome) {
                let (outcome, answer, reason) = outcome_labels(outcome);
                family.sample(&[label, outcome, answer, reason], count);
            }
        }
    }
    let mut family = page.family(&IN_FLIGHT);
    family.sample(&["udp"], sum(workers, |worker| worker.in_flight_udp.get()));
    family.sample(&["tcp"], sum(workers, |worker| worker.in_flight_tcp.get()));
    let mut family = page.family(&HELD_BACK);
    for action in Action::ALL {
        let of = |worker: &WorkerCounters| {
            worker
                .would()
                .filter(|(each, _)| *each == action)
                .map(|(_, count)| count)
                .sum()
        };
        family.sample(&[action.label()], sum(workers, of));
    }
    let mut family = page.family(&LIMITED);
    for over in Over::ALL {
        for result in LimitResult::ALL {
            let of = |worker: &WorkerCounters| {
                worker
                    .responses_limited()
                    .filter(|&(of, how, _)| (of, how) == (over, result))
                    .map(|(_, _, count)| count)
                    .sum()
            };
            family.sample(&[over.label(), result.label()], sum(workers, of));
        }
    }
    page.one(
        &QUEUE_DROPS,
        &[],
        sum(workers, |worker| worker.receive_queue_drops.get()),
    );
    page.one(
        &SEND_FAILURES,
        &[],
        sum(workers, |worker| worker.send_failures.get()),
    );

    let mut family = page.family(&RESPONSES);
    for outcome in ResponseOutcome::ALL {
        let of = |worker: &WorkerCounters| {
            worker
                .responses()
                .filter(|(each, _)| *each == outcome)
                .map(|(_, count)| count)
                .sum()
        };
        family.sample(&[outcome.label()], sum(workers, of));
    }
    let latencies = workers.iter().map(|worker| &worker.upstream_latency);
    histogram(page, &LATENCY, latencies);
    page.one(&RETRIES, &[], sum(workers, |worker| worker.retries.get()));
}

fn routes(page: &mut Page, shared: &Shared) {
    let mut family = page.family(&ROUTES);
    for (kind, state, count) in shared.routes.counts(shared) {
        family.sample(&[kind.label(), state.label()], count);
    }
    let mut family = page.family(&ROUTES_REFUSED);
    for refusal in Refusal::ALL {
        family.sample(&[refusal.label()], shared.routes.refused(refusal));
    }
    let (announced, withdrawn) = shared.routes.totals();
    page.one(&ROUTES_ANNOUNCED, &[], announced);
    page.one(&ROUTES_WITHDRAWN, &[], withdrawn);
    page.one(&ROUTES_CONNECTED, &[], shared.routes.connections());
}

/// Every outcome with its count over all workers.
pub(crate) fn outcomes(
    workers: &[std::sync::Arc<WorkerCounters>],
    transport: Transport,
) -> Vec<(Outcome, u64)> {
    let mut sums: Vec<(Outcome, u64)> = Vec::new();
    for worker in workers {
        if sums.is_empty() {
            sums.extend(worker.queries(transport).outcomes());
        } else {
            for ((_, sum), (_, count)) in sums.iter_mut().zip(worker.queries(transport).outcomes())
            {
                *sum = sum.wrapping_add(count);
            }
        }
    }
    sums
}

/// The values of the labels `outcome`, `answer` and `reason`.
const fn outcome_labels(outcome: Outcome) -> (&'static str, &'static str, &'static str) {
    match outcome {
        Outcome::Forwarded => ("forwarded", "", ""),
        Outcome::Expired => ("expired", "", ""),
        Outcome::Dropped(reason) => ("dropped", "", reason.label()),
        Outcome::Answered(answer, reason) => ("answered", answer.label(), reason.label()),
    }
}

/// Whether there is a series for an outcome that has not happened. Answers are shown only with the
/// reasons that lead to them; should another pair happen, it appears then.
const fn can_happen(outcome: Outcome) -> bool {
    let Outcome::Answered(answer, reason) = outcome else {
        return true;
    };
    match reason {
        Reason::Malformed(_) => matches!(answer, Answer::FormErr),
        Reason::Filter(_) => matches!(answer, Answer::Refused | Answer::NotImp),
        Reason::Rule | Reason::Band => matches!(
            answer,
            Answer::Refused | Answer::NxDomain | Answer::Truncated
        ),
        Reason::RateLimit => matches!(answer, Answer::Refused | Answer::Truncated),
        Reason::NoUpstream | Reason::Expired => matches!(answer, Answer::ServFail),
        Reason::ResponseLimit => matches!(answer, Answer::Truncated | Answer::BadCookie),
        Reason::Level => matches!(answer, Answer::Truncated),
        Reason::TransferLimit | Reason::TransferOverUdp => matches!(answer, Answer::Refused),
        _ => false,
    }
}

fn pressure(page: &mut Page, shared: &Shared) {
    let pools = shared.policy.load().forwarding.pool_snapshots();
    let mut family = page.family(&PRESSURE);
    for pool in &pools {
        family.sample(&[&pool.name], pool.pressure);
    }
    let workers = shared.counters.iter();
    let own = workers.map(|worker| worker.own_pressure.get()).max();
    page.one(&PROXY_PRESSURE, &[], thousandths(own.unwrap_or(0)));
    let mut family = page.family(&QUEUE_LENGTH);
    for pool in &pools {
        family.sample(&[&pool.name], pool.queued);
    }
    let waits = shared.counters.iter().map(|worker| &worker.queue_wait);
    histogram(page, &QUEUE_WAIT, waits);
}

#[expect(clippy::cast_precision_loss, reason = "a thousand at most")]
pub(crate) fn thousandths(number: u64) -> f64 {
    number as f64 / 1e3
}

fn histogram<'a>(
    page: &mut Page,
    metric: &Metric,
    workers: impl Iterator<Item = &'a LatencyHistogram>,
) {
    let mut buckets = [0_u64; LATENCY_BOUNDS_US.len() + 1];
    let mut sum_us = 0_u64;
    for worker in workers {
        let (counts, sum) = worker.read();
        for (total, count) in buckets.iter_mut().zip(counts) {
            *total = total.wrapping_add(count);
        }
        sum_us = sum_us.wrapping_add(sum);
    }
    let mut family = page.family(metric);
    let mut below = 0_u64;
    let bounds = LATENCY_BOUNDS_US
        .iter()
        .map(|&us| seconds(us).to_string())
        .chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(buckets) {
        below = below.wrapping_add(count);
        family.line("_bucket", &[("le", &bound)], &below);
    }
    family.line("_sum", &[], &seconds(sum_us));
    family.line("_count", &[], &below);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds beyond 2^53 are 285 years"
)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Reads a number of an upstream.
type Reading = fn(&dnscrub_forwarding::UpstreamSnapshot) -> u64;

fn zones(page: &mut Page, supervisor: &Supervisor) {
    let zones = supervisor.zones.status();
    let known = || zones.iter().filter(|zone| zone.state != "learned");
    let mut family = page.family(&ZONE_LOADED);
    for zone in known() {
        let loaded = matches!(zone.state.as_str(), "fresh" | "stale");
        family.sample(&[&zone.name], u8::from(loaded));
    }
    let mut family = page.family(&ZONE_STALE);
    for zone in known() {
        family.sample(&[&zone.name], u8::from(zone.state == "stale"));
    }
    let mut family = page.family(&ZONE_SERIAL);
    for zone in known() {
        if let Some(serial) = zone.serial {
            family.sample(&[&zone.name], serial);
        }
    }
    let mut family = page.family(&ZONE_NAMES);
    for zone in known() {
        family.sample(&[&zone.name], zone.names.unwrap_or(0));
    }
    let mut family = page.family(&ZONE_MEMORY);
    for zone in known() {
        family.sample(&[&zone.name], zone.memory.unwrap_or(0));
    }
    let mut family = page.family(&ZONE_REFRESHED);
    let now = unix_time::now();
    for zone in known() {
        if let Some(ago) = zone.refreshed_seconds_ago {
            family.sample(&[&zone.name], format_args!("{:.3}", now - ago));
        }
    }
    let mut family = page.family(&ZONE_TRANSFERS);
    for zone in known() {
        for (result, count) in &zone.refreshes {
            family.sample(&[&zone.name, result], count);
        }
    }
}

fn dnstap(page: &mut Page, shared: &Shared) {
    let progress = &shared.dnstap;
    page.one(&DNSTAP_OPEN, &[], u8::from(progress.is_open()));
    page.one(&DNSTAP_FRAMES, &[], progress.frames());
    let mut family = page.family(&DNSTAP_LOST);
    let full = sum(&shared.counters, |worker| worker.dnstap_lost.get());
    family.sample(&["buffer_full"], full);
    family.sample(&["write_failed"], progress.lost());
}

fn kernel(page: &mut Page, shared: &Shared) {
    let Some(status) = shared.kernel.status(&shared.policy.load().kernel) else {
        return;
    };
    let counts = shared.kernel.counts().unwrap_or_default();
    let mut family = page.family(&KERNEL_PACKETS);
    for (outcome, count) in KernelOutcome::ALL.into_iter().zip(counts) {
        family.sample(&[outcome.fate().label(), outcome.label()], count);
    }
    let mut family = page.family(&KERNEL_ATTACHED);
    for interface in &status.interfaces {
        let mode = interface.mode.as_deref();
        let labels = [interface.name.as_str(), mode.unwrap_or("none")];
        family.sample(&labels, u8::from(mode.is_some()));
    }
    page.one(&KERNEL_LIMITING, &[], u8::from(status.limit.is_some()));
}

fn upstreams(page: &mut Page, shared: &Shared) {
    let upstreams = shared.policy.load().forwarding.snapshot(Instant::now());
    let places: Vec<String> = upstreams
        .iter()
        .map(|upstream| upstream.address.to_string())
        .collect();
    let named = || {
        upstreams
            .iter()
            .zip(&places)
            .map(|(it, address)| (it, [it.pool.as_str(), it.name.as_str(), address]))
    };
    let mut family = page.family(&UPSTREAM_STATE);
    for (upstream, [pool, name, address]) in named() {
        for state in UPSTREAM_STATES {
            family.sample(
                &[pool, name, address, state],
                u8::from(upstream.state == state),
            );
        }
    }
    let counters: [(&Metric, Reading); 7] = [
        (&UPSTREAM_QUERIES, |it| it.forwarded),
        (&UPSTREAM_ANSWERS, |it| it.answered),
        (&UPSTREAM_TIMEOUTS, |it| it.timeouts),
        (&UPSTREAM_REFUSALS, |it| it.refused),
        (&UPSTREAM_OUTSTANDING, |it| it.outstanding.into()),
        (&UPSTREAM_LIMIT, |it| it.max_outstanding.into()),
        (&UPSTREAM_LEARNED, |it| it.limit.into()),
    ];
    for (metric, read) in counters {
        let mut family = page.family(metric);
        for (upstream, labels) in named() {
            family.sample(&labels, read(upstream));
        }
    }
    let mut family = page.family(&UPSTREAM_LATENCY);
    for (upstream, labels) in named() {
        if let Some(ms) = upstream.latency_ms {
            family.sample(&labels, ms / 1e3);
        }
    }
}

fn defence(page: &mut Page, supervisor: &Supervisor) {
    let shared = &*supervisor.shared;
    let policy = shared.policy.load();
    let defence = shared.defence.load();
    let orders = shared.orders.load();
    let whole = orders.effective(None, defence.levels.whole());
    page.one(&LEVEL, &[WHOLE], whole.level as u8);
    let mut family = page.family(&ZONE_LEVEL);
    for (zone, level) in defence.by_zone(&policy.zones) {
        let level = orders.effective(Some(&zone), level).level;
        family.sample(&[&zone], level as u8);
    }
    by_orders(page, shared);
    incidents(page, supervisor);
    let alarms = &defence.levels.signals;
    let mut family = page.family(&ALARM_RATE);
    for alarm in alarms {
        family.sample(&[alarm.signal], alarm.rate);
    }
    let mut family = page.family(&ALARM_USUAL);
    for alarm in alarms {
        family.sample(&[alarm.signal], alarm.usual);
    }
}

/// Levels that the signals did not come to by themselves.
fn by_orders(page: &mut Page, shared: &Shared) {
    let orders = shared.orders.load();
    let mut family = page.family(&LEVEL_BY_HAND);
    for by_hand in &orders.by_hand {
        family.sample(&[by_hand.scope()], by_hand.level as u8);
    }
    let mut family = page.family(&LEVEL_BY_INCIDENT);
    // the highest of those that raise the same zone
    let mut levels: BTreeMap<&str, Level> = BTreeMap::new();
    for raised in &orders.raised {
        let whole = raised.zones.is_empty().then_some(WHOLE);
        for zone in raised.zones.iter().map(String::as_str).chain(whole) {
            let level = levels.entry(zone).or_default();
            *level = raised.level.max(*level);
        }
    }
    for (zone, level) in levels.into_iter().take(MOST_INCIDENTS) {
        family.sample(&[zone], level as u8);
    }
}

fn incidents(page: &mut Page, supervisor: &Supervisor) {
    let incidents = &supervisor.shared.incidents;
    let all = incidents.all();
    let open = || all.iter().filter(|incident| incident.is_open());
    let mut family = page.family(&INCIDENTS_OPEN);
    for kind in incident::Kind::ALL {
        let of_kind = open().filter(|incident| incident.kind == kind).count();
        family.sample(&[kind.label()], of_kind);
    }
    let mut family = page.family(&INCIDENTS_TOTAL);
    for (kind, opened) in incidents.opened() {
        family.sample(&[kind.label()], opened);
    }
    let mut family = page.family(&INCIDENT_INFO);
    for incident in open().take(MOST_INCIDENTS) {
        let zone = incident.zones.first().map_or("", |part| part.zone.as_str());
        family.sample(
            &[&incident.number.to_string(), incident.kind.label(), zone],
            1,
        );
    }
    let mut family = page.family(&INCIDENT_NAMING);
    if let Some(last) = all.first() {
        family.sample(&[], (last.opened - last.began).max(0.0));
    }
    page.one(&INCIDENTS_KEPT, &[], all.len());
    page.one(&INCIDENT_SAVE_FAILURES, &[], incidents.save_failures());
    page.one(&AUTOMATIC_BLOCKS, &[], supervisor.response.blocked());
    let mut family = page.family(&KNOWN_QUERIES);
    for (result, queries) in supervisor.shared.known_queries.all() {
        family.sample(&[result], queries);
    }
    let measures = supervisor.shared.measures.load();
    let mut family = page.family(&MEASURE);
    for reading in measures.iter() {
        family.sample(&[reading.measure.label()], reading.now);
    }
    let mut family = page.family(&MEASURE_USUAL);
    for reading in measures.iter() {
        if let Some(usual) = reading.usual {
            family.sample(&[reading.measure.label()], usual);
        }
    }
}

fn signals(page: &mut Page, supervisor: &Supervisor) {
    let shared = &*supervisor.shared;
    let policy = shared.policy.load();
    let signals = policy.scoring.signals();
    let mut family = page.family(&SIGNAL_QUERIES);
    for signal in &signals {
        family.sample(&[signal.name], signal.queries);
    }
    let mut family = page.family(&SIGNAL_POINTS);
    for signal in &signals {
        family.sample(&[signal.name], signal.points);
    }
    let mut family = page.family(&SIGNAL_HELD_BACK);
    for signal in &signals {
        family.sample(&[signal.name], signal.held_back);
    }
    let mut family = page.family(&BANDS);
    for band in policy.scoring.bands() {
        family.sample(&[&band.name, "acted"], band.acted);
        family.sample(&[&band.name, "held_back"], band.held_back);
    }
    let sum = |of: fn(&Sight) -> usize| -> usize {
        shared.sights.iter().map(|sight| of(&sight.load())).sum()
    };
    let mut family = page.family(&SCORING_MEMORY);
    family.sample(&["shared"], policy.scoring.shared_octets());
    family.sample(&["workers"], sum(|sight| sight.scoring_octets));
    family.sample(
        &["response-limit"],
        sum(|sight| sight.response_limit_octets),
    );
    let mut family = page.family(&LEARNED_SAVES);
    for (result, count) in supervisor.learned.results() {
        family.sample(&[result.label()], count);
    }
}

fn rules(page: &mut Page, shared: &Shared) {
    let policy = shared.policy.load();
    let rules: Vec<_> = policy.scoring.rules().collect();
    let mut family = page.family(&RULE_MATCHES);
    rules
        .iter()
        .for_each(|rule| family.sample(&[rule.name], rule.matched));
    let mut family = page.family(&RULE_ACTIONS);
    for rule in &rules {
        for action in Action::ALL {
            let count = rule.acted(action);
            if count > 0 {
                family.sample(&[rule.name, action.label()], count);
            }
        }
    }
    let mut family = page.family(&RULE_HELD_BACK);
    rules
        .iter()
        .for_each(|rule| family.sample(&[rule.name], rule.held_back));
    let mut family = page.family(&RULE_ROUTED);
    rules
        .iter()
        .for_each(|rule| family.sample(&[rule.name], rule.routed));
    let mut family = page.family(&RULE_OBSERVED);
    rules
        .iter()
        .for_each(|rule| family.sample(&[rule.name], u8::from(rule.observe)));
}

fn blocklist(page: &mut Page, shared: &Shared, blocklist: &BlocklistOwner) {
    let stats = blocklist.stats();
    let mut family = page.family(&BLOCK_ENTRIES);
    family.sample(&["static"], stats.static_entries);
    family.sample(&["dynamic"], stats.dynamic_entries);
    let mut family = page.family(&BLOCK_LIMIT);
    family.sample(&["static"], stats.static_limit);
    family.sample(&["dynamic"], stats.dynamic_limit);
    let mut family = page.family(&BLOCK_LIST_ENTRIES);
    stats
        .lists
        .iter()
        .for_each(|list| family.sample(&[&list.name], list.entries));
    let lists = blocklist.lists();
    let mut family = page.family(&BLOCK_LIST_LOADED);
    lists
        .iter()
        .for_each(|list| family.sample(&[&list.name], unix(list.loaded)));
    let mut family = page.family(&BLOCK_LIST_STALE);
    lists
        .iter()
        .for_each(|list| family.sample(&[&list.name], u8::from(list.failure.is_some())));
    page.one(&BLOCK_EXPIRED, &[], stats.expired);
    page.one(&BLOCK_EVICTED, &[], stats.evicted);
    page.one(&BLOCK_REFUSED, &[], blocklist.refused_blocks());
    page.one(
        &BLOCK_LOST,
        &[],
        sum(&shared.counters, |worker| worker.lost_blocks.get()),
    );
    let saving = blocklist.save_state();
    page.one(&BLOCK_SAVES, &[], saving.saves);
    page.one(&BLOCK_SAVE_FAILURES, &[], saving.failures);
    page.one(&BLOCK_UNSAVED, &[], u8::from(saving.failure.is_some()));
}

fn streams(page: &mut Page, shared: &Shared) {
    let workers = &shared.counters;
    page.one(
        &TCP_ACCEPTED,
        &[],
        sum(workers, |worker| worker.tcp_accepted.get()),
    );
    page.one(
        &TCP_TURNED_AWAY,
        &[],
        sum(workers, |worker| worker.tcp_turned_away.get()),
    );
    page.one(&TCP_OPEN, &[], shared.tcp_connections.load(Relaxed));
    page.one(
        &TCP_TOO_SLOW,
        &[],
        sum(workers, |worker| worker.tcp_too_slow.get()),
    );
    page.one(
        &TRANSFERS,
        &[],
        sum(workers, |worker| worker.transfers.get()),
    );
    page.one(&TRANSFERS_RUNNING, &[], shared.transfers.load(Relaxed));
}

fn notices(page: &mut Page, supervisor: &Supervisor) {
    let status = supervisor.notifier.status();
    // the Alertmanagers of a group are one destination
    let mut ended = BTreeMap::<(&str, &str), u64>::new();
    let mut queued = BTreeMap::<&str, usize>::new();
    for row in &status.destinations {
        *queued.entry(&row.name).or_default() += row.queued;
        for (result, count) in &row.ended {
            *ended.entry((&row.name, result)).or_default() += count;
        }
    }
    let mut family = page.family(&NOTICES);
    for ((destination, result), count) in ended {
        family.sample(&[destination, result], count);
    }
    let mut family = page.family(&NOTICES_QUEUED);
    for (destination, count) in queued {
        family.sample(&[destination], count);
    }
    page.one(&NOTICES_LOST, &[], status.lost);
    page.one(&NOTICES_UNSAVED, &[], u8::from(status.unsaved.is_some()));
}

fn configuration(page: &mut Page, supervisor: &Supervisor) {
    let history = supervisor.history();
    page.one(
        &CONFIG_GENERATION,
        &[],
        supervisor.shared.policy.load().generation,
    );
    page.one(&CONFIG_LOADED, &[], unix(history.loaded));
    page.one(&CONFIG_SUCCESSFUL, &[], u8::from(history.failure.is_none()));
    let (successful, failed) = supervisor.reload_counts();
    let mut family = page.family(&CONFIG_RELOADS);
    family.sample(&["success"], successful);
    family.sample(&["failure"], failed);
}

/// What the kernel says about the process. What cannot be read is left out.
fn process(page: &mut Page, started: SystemTime) {
    page.one(&PROCESS_START, &[], unix(started));
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // the second field, the program's name, may contain blanks and brackets: count from its end
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_ascii_whitespace()
        .collect();
    let field = |number: usize| {
        fields
            .get(number.saturating_sub(3))
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let (Some(user), Some(kernel)) = (field(14), field(15)) {
        // in hundredths of a second, whatever the kernel's own clock does (proc(5), USER_HZ)
        page.one(
            &PROCESS_CPU,
            &[],
            seconds(user.saturating_add(kernel).saturating_mul(10_000)),
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let octets = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    };
    if let Some(resident) = octets("VmRSS:") {
        page.one(&PROCESS_RESIDENT, &[], resident);
    }
    if let Some(size) = octets("VmSize:") {
        page.one(&PROCESS_VIRTUAL, &[], size);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.one(&PROCESS_FDS, &[], open.count());
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    if let Some(limit) =
        open_files.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
    {
        page.one(&PROCESS_MAX_FDS, &[], limit);
    }
}

/// To the millisecond, which is plenty.
fn unix(time: SystemTime) -> f64 {
    (unix_time::from(time) * 1e3).round() / 1e3
}

/// The exposition while it is written.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family<'a>(&'a mut self, metric: &'a Metric) -> Family<'a> {
        let Metric {
            name, help, kind, ..
        } = metric;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(
            self.text,
            "# HELP {name} {help}\n# TYPE {name} {}",
            kind.label()
        );
        Family {
            text: &mut self.text,
            metric,
            seen: HashSet::new(),
        }
    }

    fn one(&mut self, metric: &Metric, labels: &[&str], value: impl Display) {
        self.family(metric).sample(labels, value);
    }
}

/// One metric while its samples are written.
struct Family<'a> {
    text: &'a mut String,
    metric: &'a Metric,
    seen: HashSet<String>,
}

impl Family<'_> {
    /// A sample with these values of the metric's labels, in their order.
    fn sample(&mut self, values: &[&str], value: impl Display) {
        debug_assert_eq!(
            values.len(),
            self.metric.labels.len(),
            "{}",
            self.metric.name
        );
        let labels: Vec<_> = self
            .metric
            .labels
            .iter()
            .copied()
            .zip(values.iter().copied())
            .collect();
        self.line("", &labels, &value);
    }

    /// A line. A series that stands there already is left out: scrapers refuse the whole page for it.
    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: &dyn Display) {
        let mut series = format!("{}{suffix}", self.metric.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            let separator = if at == 0 { '{' } else { ',' };
            let _ = write!(series, "{separator}{name}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() {
            series.push('}');
        }
        if !self.seen.contains(&series) {
            let _ = writeln!(self.text, "{series} {value}");
            self.seen.insert(series);
        }
    }
}

/// A label's value between its quotes.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            character => text.push(character),
        }
    }
    text
}

/// The reference page about metrics.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Generated by `dnscrub reference --write docs/reference`. Changes belong into the source. -->\n\n\
         Served at `/metrics` on the address under `metrics` in the configuration, in the Prometheus text format, \
         and on the control socket at `/metrics` as well.\n\n\
         Labels hold names from the configuration and dnscrub's own words, never anything from a packet but for \
         `dnscrub_zone_defence_level`, up to 20 names that are flooded and that no zone of the configuration has, \
         and `dnscrub_incident_info` and `dnscrub_level_by_incident`, 32 zones at most. The \
         values of `outcome`, `answer` and `reason` are explained in [reasons.md](reasons.md). Counters start at 0 \
         with the program; those of upstreams, signals, bands and rules survive a reload.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for Metric {
        name,
        kind,
        labels,
        help,
    } in ALL
    {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            page,
            "| `{name}` | {} | {} | {help} |",
            kind.label(),
            labels.join(", ")
        );
    }
    let bounds: Vec<String> = LATENCY_BOUNDS_US
        .iter()
        .map(|&us| format!("{}", seconds(us)))
        .collect();
    let _ = write!(
        page,
        "\nUpper bounds of the buckets of `{}`, in seconds: {}.\n\n\
         The books balance: for each transport, `{}` is the sum of `{}` and `{}`.\n",
        LATENCY.name,
        bounds.join(", "),
        RECEIVED.name,
        QUERIES.name,
        IN_FLIGHT.name,
    );
    page
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::control::testing::program;

    const HOSTILE: &str = r#"
listen: [ { address: "127.0.0.1:5399" } ]
pools:
  default:
    upstreams:
      - { address: "127.0.0.1:5301", name: "a\"b\\c\nd" }
      - { address: "127.0.0.1:5302" }
rules:
  - { name: "evil\"} 1\n# HELP x\\", when: { qtype: ANY }, do: drop }
  - { name: ordinary, when: { qtype: TXT }, do: { score: 5 }, observe: true }
kernel: { interface: "e\"th\\0" }
"#;

    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn promtool_is_content_also_with_hostile_names() {
        let program = program(HOSTILE);
        let worker = &program.supervisor.shared.counters[0];
        worker.queries(Transport::Udp).receive();
        worker
            .queries(Transport::Udp)
            .settle(Outcome::Dropped(Reason::Rule));
        worker.upstream_latency.record(Duration::from_micros(300));
        let text = exposition(&program.supervisor);
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed for this test: Debian has it in the package prometheus");
        promtool
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let result = promtool.wait_with_output().unwrap();
        let said = [result.stdout, result.stderr].concat();
        assert!(
            result.status.success() && said.is_empty(),
            "{}\n{text}",
            String::from_utf8_lossy(&said)
        );
    }

    #[test]
    fn names_cannot_break_out_of_their_label() {
        let program = program(HOSTILE);
        let text = exposition(&program.supervisor);
        for line in text.lines() {
            assert!(
                line.starts_with("# HELP ")
                    || line.starts_with("# TYPE ")
                    || line.starts_with("dnscrub_")
                    || line.starts_with("process_"),
                "{line}"
            );
        }
        assert!(
            text.contains(r#"dnscrub_rule_matches_total{rule="evil\"} 1\n# HELP x\\"} 0"#),
            "{text}"
        );
        assert!(
            text.contains(r#"upstream="a\"b\\c\nd",address="127.0.0.1:5301"} 0"#),
            "{text}"
        );
    }

    #[test]
    fn what_is_defined_is_shown_and_what_is_shown_is_defined() {
        let program = program(HOSTILE);
        let text = exposition(&program.supervisor);
        let shown: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let defined: Vec<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(shown, defined);
        let page = reference();
        assert!(
            defined
                .iter()
                .all(|name| page.contains(&format!("`{name}`")))
        );
    }

    #[test]
    fn every_reason_has_its_series_from_the_start() {
        let program = program(HOSTILE);
        let text = exposition(&program.supervisor);
        for transport in ["udp", "tcp"] {
            for reason in Reason::all() {
                let series = format!(
                    "dnscrub_queries_total{{transport=\"{transport}\",outcome=\"dropped\",answer=\"\",reason=\"{}\"}}",
                    reason.label()
                );
                assert_eq!(value(&text, &series), Some(0.0), "{series}");
            }
        }
    }

    #[test]
    fn what_the_kernel_did_is_there_where_it_is_configured() {
        let without = exposition(&program(crate::control::testing::PLAIN).supervisor);
        assert!(!without.contains("\ndnscrub_kernel_"), "{without}");
        let text = exposition(&program(HOSTILE).supervisor);
        for outcome in KernelOutcome::ALL {
            let (fate, reason) = (outcome.fate().label(), outcome.label());
            let series =
                format!("dnscrub_kernel_packets_total{{outcome=\"{fate}\",reason=\"{reason}\"}}");
            assert_eq!(value(&text, &series), Some(0.0), "{series}");
        }
        let attached = r#"dnscrub_kernel_attached{interface="e\"th\\0",mode="none"}"#;
        assert_eq!(value(&text, attached), Some(0.0));
        assert_eq!(value(&text, "dnscrub_kernel_limiting"), Some(0.0));
    }

    #[test]
    fn counts_of_all_workers_are_summed() {
        let program = program(HOSTILE);
        let workers = &program.supervisor.shared.counters;
        assert_eq!(workers.len(), 2);
        for worker in workers {
            worker.queries(Transport::Tcp).receive();
            worker
                .queries(Transport::Tcp)
                .settle(Outcome::Answered(Answer::Refused, Reason::Oversized));
            worker.upstream_latency.record(Duration::from_micros(60));
            worker.upstream_latency.record(Duration::from_secs(5));
        }
        let text = exposition(&program.supervisor);
        assert_eq!(
            value(&text, "dnscrub_queries_received_total{transport=\"tcp\"}"),
            Some(2.0)
        );
        let unforeseen = "dnscrub_queries_total{transport=\"tcp\",outcome=\"answered\",answer=\"refused\",reason=\"oversized\"}";
        assert_eq!(
            value(&text, unforeseen),
            Some(2.0),
            "an unforeseen pair appears when it happens"
        );
        assert_eq!(
            value(
                &text,
                "dnscrub_upstream_latency_seconds_bucket{le=\"0.00005\"}"
            ),
            Some(0.0)
        );
        assert_eq!(
            value(
                &text,
                "dnscrub_upstream_latency_seconds_bucket{le=\"0.0001\"}"
            ),
            Some(2.0)
        );
        assert_eq!(
            value(
                &text,
                "dnscrub_upstream_latency_seconds_bucket{le=\"+Inf\"}"
            ),
            Some(4.0)
        );
        assert_eq!(
            value(&text, "dnscrub_upstream_latency_seconds_count"),
            Some(4.0)
        );
        assert_eq!(
            value(&text, "dnscrub_upstream_latency_seconds_sum"),
            Some(10.00012)
        );
        assert!(value(&text, "process_resident_memory_bytes").unwrap() > 1e6);
        assert!(value(&text, "process_cpu_seconds_total").is_some());
    }

    #[test]
    fn a_series_never_stands_twice() {
        let mut page = Page::default();
        let mut family = page.family(&RULE_MATCHES);
        family.sample(&["same"], 1);
        family.sample(&["same"], 2);
        assert_eq!(page.text.lines().count(), 3);
    }
}
