//! Recorded traffic through the rules: the cores of the live proxy on the trace's own clock.
//!
//! A `Lane` is one configuration at work: a [`crate::data_path::DataPath`] whose time is the
//! trace's, with the blocklist its rules fill. Traces are read by `capture` (pcap) and `trace`
//! (NDJSON). Upstreams are supposed to be up and quick: nothing is forwarded.

mod capture;
pub mod html;
mod lane;
mod notice;
mod plot;
pub mod report;
pub mod run;
pub mod suite;
pub mod tally;
#[cfg(test)]
mod tests;
mod trace;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::runtime::{self, Configuration, Surroundings};
use crate::config::{Problems, Source};
use crate::zone_loader;

/// Why a trace could not be replayed.
#[derive(Debug)]
pub enum ReplayError {
    /// The configuration is wrong.
    Configuration(Problems),
    /// A file could not be read.
    Read(PathBuf, io::Error),
    /// A trace says something that is not understood.
    Trace {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What was found and what was expected.
        problem: String,
    },
    /// A capture that is not understood.
    Capture(PathBuf, String),
    /// A list file is not taken.
    List(String),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(problems) => problems.fmt(formatter),
            Self::Read(path, failure) => {
                write!(formatter, "cannot read {}: {failure}", path.display())
            }
            Self::Trace {
                path,
                line,
                problem,
            } => write!(formatter, "{}:{line}: {problem}", path.display()),
            Self::Capture(path, problem) => write!(formatter, "{}: {problem}", path.display()),
            Self::List(problem) => formatter.write_str(problem),
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<Problems> for ReplayError {
    fn from(problems: Problems) -> Self {
        Self::Configuration(problems)
    }
}

/// Reads a configuration for a program of one worker, whatever it says of workers: a replay has
/// one, which sees all queries, so that its share of a rate limit must be the whole. Zone files are
/// loaded; nothing is transferred.
fn for_one_worker(path: &Path, source: &dyn Source) -> Result<Configuration, Problems> {
    let configuration = read_for_one_worker(path, source)?;
    zone_loader::load(&configuration, Instant::now())?;
    Ok(configuration)
}

fn read_for_one_worker(path: &Path, source: &dyn Source) -> Result<Configuration, Problems> {
    let surroundings = Surroundings {
        cores: 1,
        ..Surroundings::at_start()
    };
    let mut configuration = runtime::load(path, source, surroundings)?;
    if configuration.startup.workers == 1 {
        return Ok(configuration);
    }
    // what is built for a running program keeps its workers
    configuration.startup.workers = 1;
    let running = Some((&configuration.startup, &configuration.reloadable));
    let surroundings = Surroundings {
        running,
        ..surroundings
    };
    runtime::load(path, source, surroundings)
}

/// How long a replay took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Queries judged.
    pub queries: u64,
    /// Judging them and learning from their answers.
    pub judging: Duration,
    /// All, with reading the trace.
    pub whole: Duration,
}
