//! Traces of the quality suite: a query a line, as JSON.
//!
//! A record is read in steps. What is decided on is `Query`, which has no field for the label: nothing
//! here can look at it. What the backend answers, `Aftermath`, is read after the decision.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dnscrub_scoring::Transport;
use serde::Deserialize;

use super::ReplayError;
use super::lane::Arrived;

/// A record before it is decided.
#[derive(Deserialize)]
struct Query<'a> {
    i: u64,
    t: f64,
    #[serde(borrow)]
    src: &'a str,
    ttl: u8,
    sport: u16,
    #[serde(borrow)]
    proto: &'a str,
    #[serde(borrow)]
    q: &'a str,
    #[serde(default)]
    att: u32,
}

/// To which transaction a record belongs; retries are skipped by it.
#[derive(Deserialize)]
struct Transaction {
    txn: u64,
}

/// What is known after the decision.
#[derive(Deserialize)]
pub(super) struct Aftermath {
    /// The rcode of the backend's answer.
    pub(super) exp: u16,
    /// The transaction that is answered by it.
    pub(super) txn: u64,
}

/// A trace that is being read.
pub(super) struct Trace {
    path: PathBuf,
    file: BufReader<File>,
    line: Vec<u8>,
    message: Vec<u8>,
    number: u64,
}

/// One record.
pub(super) struct Record<'a> {
    path: &'a Path,
    line: &'a [u8],
    at_line: u64,
    /// Its number in the trace.
    pub(super) number: u64,
    /// It is sent only if its transaction was not answered before.
    pub(super) is_retry: bool,
    /// What arrives. Nothing for a SYN, which carries no query.
    pub(super) packet: Option<Arrived<'a>>,
}

impl Trace {
    pub(super) fn open(path: &Path) -> Result<Self, ReplayError> {
        let file =
            File::open(path).map_err(|failure| ReplayError::Read(path.to_owned(), failure))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(1 << 18, file),
            line: Vec::new(),
            message: Vec::new(),
            number: 0,
        })
    }

    /// The next record; nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, ReplayError> {
        loop {
            self.line.clear();
            self.number += 1;
            let read = self
                .file
                .read_until(b'\n', &mut self.line)
                .map_err(|failure| ReplayError::Read(self.path.clone(), failure))?;
            if read == 0 {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let wrong = |problem: String| wrong(&self.path, self.number, problem);
        let query: Query<'_> = parse(&self.line).map_err(wrong)?;
        let source: IpAddr = query
            .src
            .parse()
            .map_err(|_| wrong(format!("`src` is {:?}, not an address", query.src)))?;
        let at = Duration::try_from_secs_f64(query.t)
            .map_err(|_| wrong(format!("`t` is {}, not a time", query.t)))?;
        if !decode_hex(query.q, &mut self.message) {
            return Err(wrong(format!("`q` is {:?}, not hexadecimal", query.q)));
        }
        let transport = match query.proto {
            "udp" => Some(Transport::Udp),
            "tcp" => Some(Transport::Tcp),
            "syn" => None,
            other => {
                return Err(wrong(format!(
                    "`proto` is {other:?}; expected udp, tcp or syn"
                )));
            }
        };
        Ok(Some(Record {
            path: &self.path,
            line: &self.line,
            at_line: self.number,
            number: query.i,
            is_retry: query.att > 0,
            packet: transport.map(|transport| Arrived {
                at,
                client: SocketAddr::new(source, query.sport),
                hop_ttl: Some(query.ttl),
                transport,
                message: &self.message,
            }),
        }))
    }
}

impl Record<'_> {
    /// The transaction a retry belongs to.
    pub(super) fn transaction(&self) -> Result<u64, ReplayError> {
        parse(self.line)
            .map(|Transaction { txn }| txn)
            .map_err(|problem| wrong(self.path, self.at_line, problem))
    }

    /// What happened after the decision; not to be called before.
    pub(super) fn aftermath(&self) -> Result<Aftermath, ReplayError> {
        parse(self.line).map_err(|problem| wrong(self.path, self.at_line, problem))
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|failure| {
        // a line is a document of its own, so the line that the parser counts says nothing
        let text = failure.to_string();
        let problem = text.split(" at line ").next().unwrap_or_default();
        format!("column {}: {problem}", failure.column())
    })
}

fn wrong(path: &Path, line: u64, problem: String) -> ReplayError {
    ReplayError::Trace {
        path: path.to_owned(),
        line,
        problem,
    }
}

/// Octets from hexadecimal; false if it is none.
fn decode_hex(text: &str, octets: &mut Vec<u8>) -> bool {
    octets.clear();
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    for &[high, low] in pairs {
        let (Some(high), Some(low)) = (digit(high), digit(low)) else {
            return false;
        };
        octets.push(high << 4 | low);
    }
    rest.is_empty()
}

const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}
