//! The client's side of zone transfers: AXFR (RFC 5936), IXFR (RFC 1995) and the SOA query before
//! them, over TCP. Takes messages and gives messages; sockets are another's matter.

use std::fmt;

use dnscrub_wire::{Name, Rcode, qtype};

use crate::changes::{Changes, TooLarge};
use crate::contents::{Builder, Contents, LoadError};
use crate::message::Answers;
use crate::record::{Record, Soa};
use crate::tsig::{self, Signatures};
pub use crate::tsig::{BadSecret, TsigAlgorithm, TsigKey};
use crate::zone::Zone;

/// Why a transfer came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// The server answered with this.
    Answer(Rcode),
    /// The signature of a response is missing or wrong, or the server did not like ours.
    Tsig(String),
    /// A message that cannot be read.
    Malformed(&'static str),
    /// Records in an order that makes no transfer.
    Sequence(&'static str),
    /// The zone cannot be loaded.
    Load(LoadError),
    /// An incremental transfer of more than [`Limits::change_octets`](crate::Limits).
    ChangesTooLarge(usize),
    /// A transfer of more than so many octets.
    TooLarge(u64),
}

impl TransferError {
    /// An incremental transfer failed in a way that a whole one may not.
    #[must_use]
    pub const fn try_whole(&self) -> bool {
        matches!(
            self,
            Self::Answer(Rcode::NOTIMP | Rcode::FORMERR | Rcode::SERVFAIL | Rcode::REFUSED)
                | Self::Sequence(_)
                | Self::ChangesTooLarge(_)
        )
    }
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(Rcode::REFUSED) => f.write_str(
                "the server answered REFUSED: allow zone transfers to this proxy (BIND: \
                 allow-transfer, NSD: provide-xfr)",
            ),
            Self::Answer(Rcode::NOTAUTH) => f.write_str(
                "the server answered NOTAUTH: it does not have this zone, or does not know the \
                 TSIG key",
            ),
            Self::Answer(rcode) => write!(f, "the server answered {rcode}"),
            Self::Tsig(what) => write!(
                f,
                "TSIG: {what}; the key's name, algorithm and secret must be the same here and at \
                 the server, and the clocks must agree"
            ),
            Self::Malformed(what) => write!(f, "the server sent {what}"),
            Self::Sequence(what) => write!(f, "this is no zone transfer: {what}"),
            Self::Load(error) => error.fmt(f),
            Self::ChangesTooLarge(limit) => {
                write!(f, "the incremental transfer takes more than {limit} octets")
            }
            Self::TooLarge(limit) => write!(f, "the transfer takes more than {limit} octets"),
        }
    }
}

impl std::error::Error for TransferError {}

impl From<LoadError> for TransferError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<TooLarge> for TransferError {
    fn from(TooLarge(limit): TooLarge) -> Self {
        Self::ChangesTooLarge(limit)
    }
}

/// Whether serial `new` is later than `old` (RFC 1982 section 3.2).
#[must_use]
pub const fn is_later(new: u32, old: u32) -> bool {
    let ahead = new.wrapping_sub(old);
    ahead != 0 && ahead < 1 << 31
}

/// The question which version of the zone the server has.
#[derive(Debug)]
pub struct SoaQuery {
    zone: Name,
    id: u16,
    signatures: Option<Signatures>,
}

impl SoaQuery {
    /// The question, and the message to send. `time` is in seconds since 1970.
    ///
    /// # Errors
    /// The query cannot be signed.
    pub fn new(
        zone: &Name,
        id: u16,
        key: Option<&TsigKey>,
        time: u64,
    ) -> Result<(Self, Vec<u8>), TransferError> {
        let (message, signatures) = made(tsig::query(zone, qtype::SOA, None, id, key, time))?;
        let zone = *zone;
        Ok((
            Self {
                zone,
                id,
                signatures,
            },
            message,
        ))
    }

    /// Reads the response.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn on_message(mut self, message: &mut Vec<u8>, time: u64) -> Result<Soa, TransferError> {
        check(self.signatures.as_mut(), self.id, message, time)?;
        if let Some(signatures) = self.signatures {
            signatures.done()?;
        }
        let mut answers = Answers::read(message, self.id)?;
        let mut scratch = Vec::new();
        while let Some(record) = answers.next(&mut scratch)? {
            if record.rtype == qtype::SOA && record.owner == self.zone {
                return Soa::read(record.data)
                    .ok_or(TransferError::Malformed("a SOA record that cannot be read"));
            }
        }
        Err(TransferError::Sequence(
            "the answer to the SOA query holds no SOA record of the zone",
        ))
    }
}

fn made<T>(query: Option<T>) -> Result<T, TransferError> {
    query.ok_or_else(|| TransferError::Tsig("the query cannot be signed".to_owned()))
}

/// Signature and rcode of a response. An error that concerns the signature comes unsigned, so that
/// the rcode tells more than the missing signature.
fn check(
    signatures: Option<&mut Signatures>,
    id: u16,
    message: &mut Vec<u8>,
    time: u64,
) -> Result<(), TransferError> {
    let flags = Answers::read(message, id)?.flags;
    let failed = flags.rcode() != Rcode::NOERROR;
    if let Some(signatures) = signatures {
        match signatures.check(message, time) {
            Err(_) if failed && flags.rcode() != Rcode::NOTAUTH => {}
            other => other?,
        }
    }
    if failed {
        return Err(TransferError::Answer(flags.rcode()));
    }
    if flags.truncated() {
        return Err(TransferError::Malformed("a truncated message"));
    }
    Ok(())
}

/// What a transfer brought.
#[derive(Debug)]
pub enum Transferred {
    /// What we have is the newest.
    UpToDate,
    /// The zone as a whole.
    Whole(Box<Contents>),
    /// What has changed since the version that we have.
    Changes(Changes),
}

/// A transfer under way.
#[derive(Debug)]
pub struct Transfer {
    zone: Name,
    id: u16,
    signatures: Option<Signatures>,
    state: State,
    octets_left: u64,
    octets: u64,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Parts {
    builder: Builder,
    changes: Changes,
    /// The version that we have; nothing for AXFR.
    have: Option<u32>,
}

#[derive(Debug)]
enum State {
    /// Nothing has come.
    Begin(Box<Parts>),
    /// The SOA record of the new version has come, for IXFR.
    First {
        parts: Box<Parts>,
        soa: Vec<u8>,
        ttl: u32,
        new: u32,
    },
    /// All records of the zone, up to a second SOA record.
    Whole { builder: Box<Builder>, new: u32 },
    /// What the version before lacks from then on.
    Removed { changes: Changes, new: u32 },
    /// What version `to` has more.
    Added { changes: Changes, new: u32, to: u32 },
    /// Complete.
    Done(Transferred),
}

impl Transfer {
    /// A transfer of the whole zone (AXFR), and the message to send. `time` is in seconds since
    /// 1970; `octets` bounds the responses together.
    ///
    /// # Errors
    /// The query cannot be signed.
    pub fn whole(
        zone: &Zone,
        id: u16,
        key: Option<&TsigKey>,
        time: u64,
        octets: u64,
    ) -> Result<(Self, Vec<u8>), TransferError> {
        Self::new(zone, None, id, key, time, octets)
    }

    /// A transfer of what has changed since version `have` (IXFR), and the message to send. The
    /// server may send the whole zone instead.
    ///
    /// # Errors
    /// The query cannot be signed.
    pub fn incremental(
        zone: &Zone,
        have: u32,
        id: u16,
        key: Option<&TsigKey>,
        time: u64,
        octets: u64,
    ) -> Result<(Self, Vec<u8>), TransferError> {
        Self::new(zone, Some(have), id, key, time, octets)
    }

    fn new(
        zone: &Zone,
        have: Option<u32>,
        id: u16,
        key: Option<&TsigKey>,
        time: u64,
        octets: u64,
    ) -> Result<(Self, Vec<u8>), TransferError> {
        let rtype = have.map_or(qtype::AXFR, |_| qtype::IXFR);
        let (message, signatures) = made(tsig::query(zone.name(), rtype, have, id, key, time))?;
        let parts = Parts {
            builder: zone.builder(),
            changes: Changes::new(zone.limits().change_octets),
            have,
        };
        let transfer = Self {
            zone: *zone.name(),
            id,
            signatures,
            state: State::Begin(Box::new(parts)),
            octets_left: octets,
            octets,
            scratch: Vec::new(),
        };
        Ok((transfer, message))
    }

    /// Takes the next response. True when it was the last.
    ///
    /// # Errors
    /// What is wrong with it. The transfer is over then.
    pub fn on_message(&mut self, message: &mut Vec<u8>, time: u64) -> Result<bool, TransferError> {
        self.octets_left = self
            .octets_left
            .checked_sub(message.len() as u64)
            .ok_or(TransferError::TooLarge(self.octets))?;
        check(self.signatures.as_mut(), self.id, message, time)?;
        let mut answers = Answers::read(message, self.id)?;
        if answers.count == 0 {
            return Err(TransferError::Sequence("a response without records"));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(record) = answers.next(&mut scratch)? {
            let state = std::mem::replace(&mut self.state, State::Done(Transferred::UpToDate));
            self.state = state.on_record(&self.zone, &record)?;
        }
        self.scratch = scratch;
        Ok(matches!(self.state, State::Done(_)))
    }

    /// What came, once [`Transfer::on_message`] said that it was the last.
    ///
    /// # Errors
    /// It is not complete, or the last response was not signed.
    pub fn finish(self) -> Result<Transferred, TransferError> {
        if let Some(signatures) = self.signatures {
            signatures.done()?;
        }
        match self.state {
            State::Done(transferred) => Ok(transferred),
            _ => Err(TransferError::Sequence(
                "it ends before its last SOA record",
            )),
        }
    }
}

impl State {
    fn on_record(self, zone: &Name, record: &Record<'_>) -> Result<Self, TransferError> {
        let soa = match record.rtype {
            qtype::SOA if record.owner == *zone => Some(
                Soa::read(record.data)
                    .ok_or(TransferError::Malformed("a SOA record that cannot be read"))?
                    .serial,
            ),
            _ => None,
        };
        match self {
            Self::Begin(mut parts) => {
                let Some(new) = soa else {
                    return Err(TransferError::Sequence(
                        "the first record is not the SOA record of the zone",
                    ));
                };
                match parts.have {
                    None => {
                        parts.builder.add(record)?;
                        let builder = Box::new(parts.builder);
                        Ok(Self::Whole { builder, new })
                    }
                    Some(have) if !is_later(new, have) => Ok(Self::Done(Transferred::UpToDate)),
                    Some(_) => Ok(Self::First {
                        parts,
                        soa: record.data.to_vec(),
                        ttl: record.ttl,
                        new,
                    }),
                }
            }
            Self::First {
                mut parts,
                soa: first,
                ttl,
                new,
            } => match soa {
                Some(serial) if Some(serial) == parts.have => {
                    parts.changes.remove(record)?;
                    let changes = parts.changes;
                    Ok(Self::Removed { changes, new })
                }
                _ => {
                    parts.builder.add(&Record {
                        owner: *zone,
                        rtype: qtype::SOA,
                        ttl,
                        data: &first,
                    })?;
                    let builder = Box::new(parts.builder);
                    Self::Whole { builder, new }.on_record(zone, record)
                }
            },
            Self::Whole { mut builder, new } => match soa {
                None => {
                    builder.add(record)?;
                    Ok(Self::Whole { builder, new })
                }
                Some(serial) if serial == new => {
                    let contents = Box::new(builder.finish()?);
                    Ok(Self::Done(Transferred::Whole(contents)))
                }
                Some(_) => Err(TransferError::Sequence(
                    "its first and its last SOA record differ",
                )),
            },
            Self::Removed { mut changes, new } => match soa {
                None => {
                    changes.remove(record)?;
                    Ok(Self::Removed { changes, new })
                }
                Some(to) => {
                    changes.add(record)?;
                    Ok(Self::Added { changes, new, to })
                }
            },
            Self::Added {
                mut changes,
                new,
                to,
            } => match soa {
                None => {
                    changes.add(record)?;
                    Ok(Self::Added { changes, new, to })
                }
                Some(serial) if serial == to && to == new => {
                    Ok(Self::Done(Transferred::Changes(changes)))
                }
                Some(serial) if serial == to => {
                    changes.remove(record)?;
                    Ok(Self::Removed { changes, new })
                }
                Some(_) => Err(TransferError::Sequence(
                    "a difference does not begin where the one before it ends",
                )),
            },
            Self::Done(_) => Err(TransferError::Sequence(
                "records follow its last SOA record",
            )),
        }
    }
}
