//! The section `dnstap` as it is written, and as it is used.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::file::{HttpAddress, Size};
use crate::outcome::Outcome;

const MIN_BUFFER: u64 = 256 << 10;
const MAX_BUFFER: u64 = 1 << 30;
const MIN_ROTATE_AT: u64 = 1 << 20;
const MAX_KEEP: u16 = 1000;
const MAX_IDENTITY: usize = 255;

/// Copies of queries and answers for other programs, in the format of dnstap (dnstap.info). Off without
/// this. One of `file`, `unix` and `tcp` says where they go.
///
/// ```yaml
/// dnstap: { file: /var/log/dnscrub/queries.dnstap, sample: 1/100 }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// A file, which is begun anew at every start; the last one is kept as `rotate-at` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The Unix socket of a program that collects them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<PathBuf>,
    /// The TCP address of such a program. The connection is not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<HttpAddress>,
    /// Which share of the queries: "1/100" takes one of a hundred, at random. Default: all.
    pub sample: Sample,
    /// Only queries with these outcomes. Default: all.
    pub only: Vec<Which>,
    /// Who says it, for the program that collects them. Default: the machine's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Room for what is not written yet, of each worker; half as much again is needed beside. Where it is
    /// full, copies are lost and counted. The packets themselves never wait.
    pub buffer: Size,
    /// At this size the file is closed, gets `.1` behind its name, and a new one is begun.
    pub rotate_at: Size,
    /// How many closed files are kept: `.1` is the newest. The oldest is removed.
    #[schemars(range(max = 1000))]
    pub keep: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            unix: None,
            tcp: None,
            sample: Sample::default(),
            only: Vec::new(),
            identity: None,
            buffer: Size::mib(4),
            rotate_at: Size::mib(100),
            keep: 5,
        }
    }
}

/// Outcomes of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// An upstream answered.
    Forwarded,
    /// dnscrub answered by itself.
    Answered,
    /// There was no answer, on purpose.
    Dropped,
    /// No upstream answered in time.
    Expired,
}

/// A share: one of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample(pub u32);

impl Default for Sample {
    fn default() -> Self {
        Self(1)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1/{}", self.0)
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Sample;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as \"1/100\": one of a hundred")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sample, E> {
                let parts = text.split_once('/');
                let of = parts.filter(|(one, _)| one.trim() == "1");
                of.and_then(|(_, of)| of.trim().parse().ok())
                    .filter(|of| *of > 0)
                    .map(Sample)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Sample {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sample".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^1/[1-9][0-9]*$",
            "description": "A share: \"1/100\" is one of a hundred.",
            "examples": ["1/100"],
        })
    }
}

/// The section as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where copies go.
    pub target: Target,
    /// One of so many queries.
    pub sample: u32,
    /// Which outcomes.
    pub only: Outcomes,
    /// Who says it; nothing for the machine's name.
    pub identity: Option<String>,
    /// Octets of a worker's ring.
    pub buffer: usize,
}

impl fmt::Display for Settings {
    /// Such as "1/100 of the queries, only dropped, to /run/dnstap.sock".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sample {
            1 => f.write_str("all queries")?,
            sample => write!(f, "{} of the queries", Sample(sample))?,
        }
        if self.only != Outcomes::of(&[]) {
            write!(f, ", only {}", self.only)?;
        }
        write!(f, ", to {}", self.target)
    }
}

/// Where copies go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To a file.
    File {
        /// Its path.
        path: PathBuf,
        /// Octets at which it is closed.
        rotate_at: u64,
        /// Closed files to keep.
        keep: u16,
    },
    /// To a collector at a Unix socket.
    Unix(PathBuf),
    /// To a collector at an address.
    Tcp(SocketAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } | Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// A set of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcomes(u8);

impl Outcomes {
    /// All of them where none is named.
    #[must_use]
    pub fn of(which: &[Which]) -> Self {
        let bits = which.iter().map(|it| 1 << *it as u8);
        Self(if which.is_empty() {
            u8::MAX
        } else {
            bits.fold(0, |all, bit: u8| all | bit)
        })
    }

    /// Whether this one is in it.
    #[must_use]
    pub const fn has(self, outcome: Outcome) -> bool {
        self.names(match outcome {
            Outcome::Forwarded => Which::Forwarded,
            Outcome::Answered(..) => Which::Answered,
            Outcome::Dropped(_) => Which::Dropped,
            Outcome::Expired => Which::Expired,
        })
    }

    const fn names(self, which: Which) -> bool {
        self.0 & (1 << which as u8) != 0
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (Which::Forwarded, "forwarded"),
            (Which::Answered, "answered"),
            (Which::Dropped, "dropped"),
            (Which::Expired, "expired"),
        ];
        let named: Vec<&str> = all
            .into_iter()
            .filter(|(which, _)| self.names(*which))
            .map(|(_, word)| word)
            .collect();
        f.write_str(&named.join(", "))
    }
}

/// What is wrong with the section: the setting, what was found, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Name of the setting inside the section; empty for the section as a whole.
    pub setting: &'static str,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

impl Config {
    /// Checks the section. `resolve` says where a path leads that may be relative to the configuration.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn build(
        &self,
        resolve: impl Fn(&'static str, &Path) -> PathBuf,
    ) -> Result<Settings, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut complain = |setting, found: String, expected: &str| {
            wrong.push(Wrong {
                setting,
                found,
                expected: expected.to_owned(),
            });
        };
        let target = match (&self.file, &self.unix, &self.tcp) {
            (Some(path), None, None) => Some(Target::File {
                path: resolve("file", path),
                rotate_at: self.rotate_at.0,
                keep: self.keep,
            }),
            (None, Some(path), None) => Some(Target::Unix(resolve("unix", path))),
            (None, None, Some(address)) => Some(Target::Tcp(address.0)),
            _ => None,
        };
        if target.is_none() {
            let given = [self.file.is_some(), self.unix.is_some(), self.tcp.is_some()];
            let given = given.iter().filter(|it| **it).count();
            complain(
                "",
                format!("`dnstap` names {given} places to write to"),
                "one of `file`, `unix` and `tcp`",
            );
        }
        if self.tcp.is_some_and(|address| address.0.port() == 0) {
            complain(
                "tcp",
                "the address has port 0".to_owned(),
                "a port from 1 to 65535",
            );
        }
        if !(MIN_BUFFER..=MAX_BUFFER).contains(&self.buffer.0) {
            let found = format!("`buffer` cannot be {}", self.buffer);
            complain("buffer", found, "a size from 256KiB to 1GiB");
        }
        if self.rotate_at.0 < MIN_ROTATE_AT {
            let found = format!("`rotate-at` cannot be {}", self.rotate_at);
            complain("rotate-at", found, "a size of 1MiB or more");
        }
        if self.keep > MAX_KEEP {
            let found = format!("`keep` cannot be {}", self.keep);
            complain("keep", found, "a whole number from 0 to 1000");
        }
        if self
            .identity
            .as_ref()
            .is_some_and(|it| it.is_empty() || it.len() > MAX_IDENTITY)
        {
            let found = "`identity` is empty or too long".to_owned();
            complain("identity", found, "1 to 255 octets");
        }
        match target {
            Some(target) if wrong.is_empty() => Ok(Settings {
                target,
                sample: self.sample.0,
                only: Outcomes::of(&self.only),
                identity: self.identity.clone(),
                buffer: usize::try_from(self.buffer.0).unwrap_or(usize::MAX),
            }),
            _ => Err(wrong),
        }
    }
}
