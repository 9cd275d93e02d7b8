//! The harness of the quality suite: reads a scenario's trace, prints a verdict for each query.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ahash::RandomState;
use dnscrub_detection::Incident;
use dnscrub_wire::Rcode;
use serde_json::json;

use super::lane::Lane;
use super::trace::Trace;
use super::{ReplayError, Timing, for_one_worker};
use crate::config::Memory;
use crate::config::runtime::Configuration;
use crate::outcome::{Answer, Outcome};

/// The default configuration: everything that a configuration need not say is left out.
const DEFAULT: &str = r#"
listen: [ { name: main, address: "127.0.0.1:53" } ]
pools: { default: { upstreams: [ { address: "127.0.0.1:5300" } ] } }
"#;
/// The penalty of what never gets to be scored, for it is not a query: worse than any score.
const UNSCORED: u16 = 1000;

/// Puts the scenario in `folder` through the default configuration. Returns a line `i verdict points` for
/// each query that was presented, and the incidents noticed; their times are seconds since the beginning.
///
/// # Errors
/// The trace cannot be read, or a line of it is not understood.
pub fn run(folder: &Path, blind: bool) -> Result<Outcomes, ReplayError> {
    let began = Instant::now();
    let mut trace = Trace::open(&folder.join("trace.ndjson"))?;
    let configuration = suite_configuration(folder, blind)?;
    let mut lane = Lane::new(configuration, began)?;
    let mut answered = HashSet::with_hasher(RandomState::with_seeds(1, 2, 3, 4));
    let mut verdicts = String::new();
    let mut timing = Timing::default();
    let mut last = Duration::ZERO;
    while let Some(record) = trace.next()? {
        if record.is_retry && answered.contains(&record.transaction()?) {
            continue;
        }
        let number = record.number;
        let Some(packet) = record.packet else {
            // The kernel answers or drops a SYN; none becomes a query by itself.
            let _ = writeln!(verdicts, "{number} d 0");
            continue;
        };
        last = packet.at;
        let start = Instant::now();
        let decision = lane.decide(&packet);
        let mut judging = start.elapsed();
        let verdict = verdict(decision.outcome);
        let points = decision
            .judgement
            .map_or(UNSCORED, |judgement| judgement.points);
        let _ = writeln!(verdicts, "{number} {verdict} {points}");
        if is_answered(decision.outcome) {
            let aftermath = record.aftermath()?;
            answered.insert(aftermath.txn);
            if let ('p', Some(query)) = (verdict, &decision.query) {
                let start = Instant::now();
                lane.answered(&packet, query, Rcode(aftermath.exp));
                judging += start.elapsed();
            }
        }
        timing.queries += 1;
        timing.judging += judging;
    }
    // the second that was running at the end
    lane.advance(last + Duration::from_secs(1));
    timing.whole = began.elapsed();
    Ok(Outcomes {
        verdicts,
        incidents: lane.incidents().to_vec(),
        timing,
    })
}

/// What comes of a scenario.
#[derive(Debug)]
pub struct Outcomes {
    /// A line for each query.
    pub verdicts: String,
    /// What was noticed.
    pub incidents: Vec<Incident>,
    /// How long it took.
    pub timing: Timing,
}

/// What the suite runs with, the same for each scenario: the default configuration, and the names of
/// the scenario's zones, unless `blind`.
fn suite_configuration(folder: &Path, blind: bool) -> Result<Configuration, ReplayError> {
    let path = Path::new("default.yaml");
    let mut text = DEFAULT.to_owned();
    let mut source = Memory::default();
    if !blind {
        let folder = std::path::absolute(folder.join("zones"))
            .map_err(|failure| ReplayError::Read(folder.to_owned(), failure))?;
        let unreadable = |failure| ReplayError::Read(folder.clone(), failure);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            files.push(entry.map_err(unreadable)?.path());
        }
        files.sort();
        let zones: Vec<_> = files
            .iter()
            .filter(|file| {
                file.extension()
                    .is_some_and(|extension| extension == "zone")
            })
            .map(|file| {
                let name = file.file_stem().unwrap_or_default().to_string_lossy();
                json!({ "name": name, "names": { "file": file } })
            })
            .collect();
        // the configuration only asks whether they are there; they are read when it is built
        source
            .0
            .extend(files.into_iter().map(|file| (file, Vec::new())));
        // JSON is YAML
        text.push_str(&format!("zones: {}\n", json!(zones)));
    }
    Ok(for_one_worker(path, &source.with(path, text))?)
}

/// Whether a client has got what it asked for, or knows how to, and does not ask again.
pub(super) const fn is_answered(outcome: Outcome) -> bool {
    matches!(verdict(outcome), 'p' | 't' | 'n')
}

const fn verdict(outcome: Outcome) -> char {
    match outcome {
        Outcome::Forwarded => 'p',
        Outcome::Dropped(_) | Outcome::Expired => 'd',
        Outcome::Answered(Answer::Truncated, _) => 't',
        Outcome::Answered(Answer::NxDomain, _) => 'n',
        Outcome::Answered(
            Answer::Refused
            | Answer::NotImp
            | Answer::FormErr
            | Answer::ServFail
            | Answer::BadCookie,
            _,
        ) => 'r',
    }
}
