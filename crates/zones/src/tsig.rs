//! Transaction signatures (RFC 8945).

use std::fmt;
use std::sync::Arc;

use dnscrub_wire::Name;
use domain::base::iana::Rtype;
use domain::base::message_builder::AdditionalBuilder;
use domain::base::rdata::UnknownRecordData;
use domain::base::{Message, MessageBuilder, Ttl};
use domain::rdata::tsig::Time48;
use domain::tsig::{Algorithm, ClientSequence, Key, KeyName};

use crate::transfer::TransferError;

/// How messages are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TsigAlgorithm {
    /// HMAC-SHA-256.
    HmacSha256,
    /// HMAC-SHA-384.
    HmacSha384,
    /// HMAC-SHA-512.
    HmacSha512,
}

/// A secret shared with a server.
#[derive(Clone)]
pub struct TsigKey(Arc<Key>);

impl fmt::Debug for TsigKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TsigKey({} {})", self.0.name(), self.0.algorithm())
    }
}

/// A secret that is not written in Base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSecret;

impl fmt::Display for BadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the secret is not Base64")
    }
}

impl std::error::Error for BadSecret {}

impl TsigKey {
    /// A key of this name, its secret written in Base64 as `tsig-keygen` writes it.
    ///
    /// # Errors
    /// The secret cannot be read, or is empty.
    pub fn new(name: &Name, algorithm: TsigAlgorithm, secret: &str) -> Result<Self, BadSecret> {
        let secret: Vec<u8> = domain::utils::base64::decode(secret).map_err(|_| BadSecret)?;
        if secret.is_empty() {
            return Err(BadSecret);
        }
        let algorithm = match algorithm {
            TsigAlgorithm::HmacSha256 => Algorithm::Sha256,
            TsigAlgorithm::HmacSha384 => Algorithm::Sha384,
            TsigAlgorithm::HmacSha512 => Algorithm::Sha512,
        };
        let name = KeyName::from_octets(octets_of(name)?).map_err(|_| BadSecret)?;
        let key = Key::new(algorithm, &secret, name, None, None).map_err(|_| BadSecret)?;
        Ok(Self(Arc::new(key)))
    }
}

fn octets_of(name: &Name) -> Result<domain::dep::octseq::Array<255>, BadSecret> {
    domain::dep::octseq::Array::try_from(name.as_wire()).map_err(|_| BadSecret)
}

/// A query's signature, against which the responses are checked.
#[derive(Debug)]
pub(crate) struct Signatures(ClientSequence<Arc<Key>>);

/// A query of ours for the zone, signed where there is a key; an IXFR query names the version that
/// we have. `time` is in seconds since 1970.
pub(crate) fn query(
    zone: &Name,
    qtype: u16,
    have: Option<u32>,
    id: u16,
    key: Option<&TsigKey>,
    time: u64,
) -> Option<(Vec<u8>, Option<Signatures>)> {
    let name = domain::base::Name::from_octets(zone.as_wire()).ok()?;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    let mut builder = builder.question();
    builder.push((&name, Rtype::from_int(qtype))).ok()?;
    let mut builder = builder.authority();
    if let Some(serial) = have {
        // only the serial is looked at (RFC 1995 section 3)
        let [a, b, c, d] = serial.to_be_bytes();
        let mut data = [0; 22];
        if let Some(to) = data.get_mut(2..6) {
            to.copy_from_slice(&[a, b, c, d]);
        }
        let data = UnknownRecordData::from_octets(Rtype::SOA, data).ok()?;
        builder.push((&name, Ttl::ZERO, data)).ok()?;
    }
    let mut builder: AdditionalBuilder<Vec<u8>> = builder.additional();
    let signatures = match key {
        Some(key) => {
            let key = Arc::clone(&key.0);
            Some(ClientSequence::request(key, &mut builder, Time48::from_u64(time)).ok()?)
        }
        None => None,
    };
    Some((builder.finish(), signatures.map(Signatures)))
}

impl Signatures {
    /// Checks the next response. Some may come without a signature, but the first and the last.
    pub(crate) fn check(&mut self, message: &mut Vec<u8>, time: u64) -> Result<(), TransferError> {
        let mut checked = Message::from_octets(std::mem::take(message))
            .map_err(|_| TransferError::Malformed("a message without a header"))?;
        let result = self.0.answer(&mut checked, Time48::from_u64(time));
        *message = checked.into_octets();
        result.map_err(|failure| TransferError::Tsig(failure.to_string()))
    }

    /// Checks that the last response was signed.
    pub(crate) fn done(self) -> Result<(), TransferError> {
        self.0
            .done()
            .map_err(|failure| TransferError::Tsig(failure.to_string()))
    }
}
