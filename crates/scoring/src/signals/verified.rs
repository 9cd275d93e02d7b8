//! `verified`: the source proved that its address is its own.
//!
//! Who completes a TCP handshake, or shows a valid server cookie (RFC 7873), receives what is sent to
//! its address. For some minutes after that its queries over UDP get a credit, and it counts as known
//! to the signals about sources: that is what a challenge (TC=1) is for.
//!
//! ```yaml
//! signals:
//!   verified: { credit: 20, for: 10m }
//! ```
//!
//! The proof is of the address only: its sender may still attack, and evidence about names counts as
//! before. Somebody else who forges the address within that time gets the credit too, unless the
//! IP TTL gives him away (`hop-count`). Proofs are kept in the table of sources; see `hop-count`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Building, Input, Signal};
use crate::config::{Mode, Span};
use crate::evidence::{Given, Kind};
use crate::recorder::Recorder;

/// Settings of the `verified` signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(rename = "VerifiedSignal")]
pub struct Config {
    /// `observe`: the credit only counts for what would have happened.
    pub mode: Mode,
    /// Points taken off.
    pub credit: u16,
    /// For how long after the proof, at most a day.
    pub r#for: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            credit: 20,
            r#for: Span(Duration::from_secs(600)),
        }
    }
}

/// The `verified` signal.
#[derive(Debug)]
pub(crate) struct Verified {
    credit: i32,
}

impl Signal for Verified {
    type Config = Config;
    type State = ();
    const KIND: Kind = Kind::Source;

    fn build(config: &Config, building: &mut Building<'_>) -> Self {
        if config.r#for.0 > Duration::from_secs(86_400) {
            building.wrong(
                "for",
                "found more than a day, expected at most 24h".to_owned(),
            );
        }
        Self {
            credit: config.credit.into(),
        }
    }

    #[inline]
    fn judge<R: Recorder>(&self, (): &mut (), input: &Input<'_>, recorder: &mut R) -> Given {
        if !input.sighting.verified {
            return Given::NOTHING;
        }
        recorder.say(|| "proved its address by TCP or a cookie".to_owned());
        Given::doubtful(self.credit.saturating_neg())
    }
}
