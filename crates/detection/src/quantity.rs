//! What is followed from second to second, of the whole and of each zone.

use crate::measure::Measure;
use crate::window::{Counts, Window, ZoneWindow};

/// Queries a second.
pub(crate) const QUERIES: usize = 0;
/// Queries a second for names that are made up: never answered, without a slip of the pen that explains them.
pub(crate) const MADE_UP: usize = 1;
/// From strangers, for names that exist and answers that are small.
pub(crate) const STRANGE: usize = 2;
/// For large answers, without a proof of address.
pub(crate) const BULKY: usize = 3;
/// From known sources over an odd path.
pub(crate) const ODD_HOPS: usize = 4;
/// From known sources, for names that exist.
pub(crate) const KNOWN: usize = 5;
/// NXDOMAIN of all answers.
pub(crate) const NXDOMAIN: usize = 6;
/// Distinct sources a second.
pub(crate) const SOURCES: usize = 7;
/// From sources never seen before.
pub(crate) const NEW_SOURCES: usize = 8;
/// For names never seen before.
pub(crate) const NEW_NAMES: usize = 9;
/// Quantities of a zone; the whole has these and those that follow.
pub(crate) const OF_ZONE: usize = 10;
/// Malformed packets a second.
pub(crate) const MALFORMED: usize = 10;
/// TCP connections a second.
pub(crate) const CONNECTIONS: usize = 11;
/// Zone transfers a second.
pub(crate) const TRANSFERS: usize = 12;
/// Median latency.
pub(crate) const LATENCY: usize = 13;
/// Share of forwarded queries without an answer.
pub(crate) const LOSS: usize = 14;
/// SERVFAIL of all answers.
pub(crate) const SERVFAIL: usize = 15;
/// Octets out to octets in.
pub(crate) const AMPLIFICATION: usize = 16;
/// Entropy of first labels.
pub(crate) const ENTROPY: usize = 17;
/// How far the mix of types is from the usual.
pub(crate) const MIX: usize = 18;
/// Malformed packets of all.
pub(crate) const MALFORMED_SHARE: usize = 19;
/// Quantities of the whole.
pub(crate) const OF_WHOLE: usize = 20;

/// What is a small value of each quantity.
pub(crate) const FLOORS: [f32; OF_WHOLE] = [
    10.0, 2.0, 10.0, 5.0, 10.0, 10.0, 0.05, 10.0, 5.0, 5.0, 5.0, 5.0, 1.0, 0.005, 0.02, 0.02, 1.0,
    0.3, 0.1, 0.02,
];

/// The floors of a zone's.
pub(crate) fn zone_floors() -> [f32; OF_ZONE] {
    let mut floors = [0.0; OF_ZONE];
    for (to, from) in floors.iter_mut().zip(FLOORS) {
        *to = from;
    }
    floors
}

/// The quantity that a measure is about.
pub(crate) const fn of_measure(measure: Measure) -> usize {
    match measure {
        Measure::Queries => QUERIES,
        Measure::NxdomainShare => NXDOMAIN,
        Measure::ServfailShare => SERVFAIL,
        Measure::Sources => SOURCES,
        Measure::NewSources => NEW_SOURCES,
        Measure::NewNames => NEW_NAMES,
        Measure::QtypeMix => MIX,
        Measure::NameEntropy => ENTROPY,
        Measure::Amplification => AMPLIFICATION,
        Measure::TcpConnections => CONNECTIONS,
        Measure::MalformedShare => MALFORMED_SHARE,
        Measure::Latency => LATENCY,
        Measure::Loss => LOSS,
    }
}

/// A part of a whole, 0 where there is too little to say.
pub(crate) fn share(part: u32, whole: u32) -> f32 {
    if whole < 5 {
        return 0.0;
    }
    part as f32 / whole as f32
}

/// The quantities of a zone. `made_up`: the part of its doubtful names that are.
pub(crate) fn of_zone(window: &Window, zone: &ZoneWindow, made_up: f32) -> [f32; OF_ZONE] {
    let seconds = window.seconds.max(1.0);
    common(
        window,
        &zone.counts,
        made_up,
        zone.sources.estimate() / seconds,
    )
}

fn common(window: &Window, counts: &Counts, made_up: f32, sources: f32) -> [f32; OF_ZONE] {
    let rate = |count: u32| window.rate(count);
    let denied = counts.nxdomain.saturating_add(counts.denied);
    let answers = counts.answers.saturating_add(counts.denied);
    [
        rate(counts.queries),
        rate(counts.doubtful) * made_up,
        rate(counts.strange),
        rate(counts.bulky),
        rate(counts.odd_hops),
        rate(counts.known),
        share(denied, answers),
        sources,
        rate(counts.new_sources),
        rate(counts.new_names),
    ]
}

/// The quantities of the whole. What there is no telling of is as usual: `usual`.
pub(crate) fn of_whole(
    window: &Window,
    made_up: f32,
    (entropy, mix): (Option<f32>, f32),
    usual: impl Fn(usize) -> f32,
) -> [f32; OF_WHOLE] {
    let whole = &window.totals.counts;
    let sources = window.totals.sources.estimate() / window.seconds.max(1.0);
    let mut values = [0.0; OF_WHOLE];
    for (to, from) in values
        .iter_mut()
        .zip(common(window, whole, made_up, sources))
    {
        *to = from;
    }
    let amplification = if whole.octets_asked > 500 {
        whole.octets_out as f32 / whole.octets_asked as f32
    } else {
        usual(AMPLIFICATION)
    };
    let sent = whole.answers.saturating_add(whole.expired);
    let all = whole.queries.saturating_add(window.totals.malformed);
    for (quantity, value) in [
        (MALFORMED, window.rate(window.totals.malformed)),
        (
            CONNECTIONS,
            window.rate(
                window
                    .totals
                    .connections
                    .saturating_add(window.totals.turned_away),
            ),
        ),
        (TRANSFERS, window.rate(window.totals.transfers)),
        (LATENCY, window.latency().unwrap_or_else(|| usual(LATENCY))),
        (LOSS, share(whole.expired, sent)),
        (SERVFAIL, share(whole.servfail, whole.answers)),
        (AMPLIFICATION, amplification),
        (ENTROPY, entropy.unwrap_or_else(|| usual(ENTROPY))),
        (MIX, mix),
        (MALFORMED_SHARE, share(window.totals.malformed, all)),
    ] {
        if let Some(to) = values.get_mut(quantity) {
            *to = value;
        }
    }
    values
}
