//! `dnscrub replay`.

use std::io::Write as _;

use super::Exit;
use super::arguments::Replay;
use super::output::count;
use crate::replay::{self, ReplayError};

impl From<ReplayError> for Exit {
    fn from(failure: ReplayError) -> Self {
        match failure {
            ReplayError::Configuration(problems) => problems.into(),
            failure => Self::failed(failure.to_string()),
        }
    }
}

pub(super) fn run(options: &Replay) -> Result<String, Exit> {
    let Some(folder) = &options.suite else {
        return Err(Exit::configuration("nothing to replay"));
    };
    let (verdicts, timing) = replay::suite::run(folder, options.blind)?;
    if options.timing {
        say_timing(timing);
    }
    Ok(verdicts)
}

fn say_timing(timing: replay::Timing) {
    let replay::Timing {
        queries,
        judging,
        whole,
    } = timing;
    let each = judging.as_nanos() / u128::from(queries.max(1));
    let _ = writeln!(
        std::io::stderr(),
        "{} queries in {:.2} s; {each} ns each to judge one and learn its answer",
        count(queries),
        whole.as_secs_f64(),
    );
}
