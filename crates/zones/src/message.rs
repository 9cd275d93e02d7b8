//! Records of a response message, their names put together again (RFC 1035 section 4.1).

use dnscrub_wire::{Flags, HEADER_LEN, MAX_NAME_LEN, Name, Opcode, qtype};

use crate::record::Record;
use crate::transfer::TransferError;

/// The header of a response to our query, and its records to be read.
#[derive(Debug)]
pub(crate) struct Answers<'a> {
    message: &'a [u8],
    at: usize,
    left: u16,
    pub(crate) flags: Flags,
    /// Records in the answer section.
    pub(crate) count: u16,
}

impl<'a> Answers<'a> {
    /// Reads header and question of a response to `id`.
    pub(crate) fn read(message: &'a [u8], id: u16) -> Result<Self, TransferError> {
        let header = message
            .first_chunk::<HEADER_LEN>()
            .ok_or(TransferError::Malformed("a message without a header"))?;
        let [i0, i1, f0, f1, q0, q1, a0, a1, ..] = *header;
        let flags = Flags(u16::from_be_bytes([f0, f1]));
        if u16::from_be_bytes([i0, i1]) != id
            || !flags.is_response()
            || flags.opcode() != Opcode::QUERY
        {
            return Err(TransferError::Malformed(
                "a message that answers no query of ours",
            ));
        }
        let mut at = HEADER_LEN;
        for _ in 0..u16::from_be_bytes([q0, q1]) {
            let (_, end) = name_at(message, at)?;
            at = end.saturating_add(4);
        }
        let count = u16::from_be_bytes([a0, a1]);
        Ok(Self {
            message,
            at,
            left: count,
            flags,
            count,
        })
    }

    /// The next record of class IN; `scratch` is for its data where names in it are compressed.
    pub(crate) fn next<'s>(
        &mut self,
        scratch: &'s mut Vec<u8>,
    ) -> Result<Option<Record<'s>>, TransferError>
    where
        'a: 's,
    {
        while self.left > 0 {
            self.left = self.left.saturating_sub(1);
            let (owner, at) = name_at(self.message, self.at)?;
            let fixed = self
                .message
                .get(at..)
                .and_then(<[u8]>::first_chunk::<10>)
                .ok_or(CUT)?;
            let [t0, t1, c0, c1, l0, l1, l2, l3, d0, d1] = *fixed;
            let data_at = at.saturating_add(10);
            self.at = data_at.saturating_add(usize::from(u16::from_be_bytes([d0, d1])));
            let data = self.message.get(data_at..self.at).ok_or(CUT)?;
            if [c0, c1] != [0, 1] {
                continue;
            }
            let rtype = u16::from_be_bytes([t0, t1]);
            let data = match rtype {
                qtype::SOA => {
                    self.soa(data_at, scratch)?;
                    scratch.as_slice()
                }
                qtype::NSEC => plain_name(data, 0)?,
                qtype::RRSIG => plain_name(data, 18)?,
                _ => data,
            };
            return Ok(Some(Record {
                owner,
                rtype,
                ttl: u32::from_be_bytes([l0, l1, l2, l3]),
                data,
            }));
        }
        Ok(None)
    }

    fn soa(&self, at: usize, to: &mut Vec<u8>) -> Result<(), TransferError> {
        let (primary, at) = name_at(self.message, at)?;
        let (mailbox, at) = name_at(self.message, at)?;
        let numbers = self.message.get(at..).and_then(<[u8]>::first_chunk::<20>);
        to.clear();
        to.extend_from_slice(primary.as_wire());
        to.extend_from_slice(mailbox.as_wire());
        to.extend_from_slice(numbers.ok_or(CUT)?);
        if at.saturating_add(20) == self.at {
            Ok(())
        } else {
            Err(TransferError::Malformed("a SOA record of a wrong length"))
        }
    }
}

const CUT: TransferError = TransferError::Malformed("a record that is cut off");

/// In the data of NSEC and RRSIG records names are not compressed (RFC 4034 sections 3.1.7, 4.1.1).
fn plain_name(data: &[u8], at: usize) -> Result<&[u8], TransferError> {
    match Name::from_wire(data.get(at..).unwrap_or_default()) {
        Ok(_) => Ok(data),
        Err(_) => Err(TransferError::Malformed(
            "an NSEC or RRSIG record whose name is broken or compressed",
        )),
    }
}

/// The name at an offset, and the offset behind it. Pointers must point backwards.
fn name_at(message: &[u8], start: usize) -> Result<(Name, usize), TransferError> {
    const BAD: TransferError = TransferError::Malformed("a broken name");
    let mut octets = [0_u8; MAX_NAME_LEN];
    let (mut len, mut at, mut end) = (0_usize, start, None);
    let mut lowest = start;
    loop {
        let label = message.get(at..).ok_or(BAD)?;
        let &head = label.first().ok_or(BAD)?;
        match head {
            0 => break,
            1..=63 => {
                let label_len = usize::from(head).saturating_add(1);
                let next = len.saturating_add(label_len);
                octets
                    .get_mut(len..next)
                    .ok_or(BAD)?
                    .copy_from_slice(label.get(..label_len).ok_or(BAD)?);
                len = next;
                at = at.saturating_add(label_len);
            }
            0xc0.. => {
                let [high, low] = *label.first_chunk::<2>().ok_or(BAD)?;
                end.get_or_insert(at.saturating_add(2));
                at = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                if at >= lowest {
                    return Err(BAD);
                }
                lowest = at;
            }
            _ => return Err(BAD),
        }
    }
    let name = Name::from_wire(&octets).map_err(|_| BAD)?;
    Ok((name, end.unwrap_or(at.saturating_add(1))))
}
