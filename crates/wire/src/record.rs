//! One resource record within a message (RFC 1035 section 4.1.3), for the walks over whole
//! messages.

use crate::header::HEADER_LEN;
use crate::name::MAX_NAME_LEN;
use crate::query::Edns;

/// A record whose owner was skipped and whose fixed part was read.
pub(crate) struct Record<'a> {
    /// The owner is written as the single zero octet of the root.
    pub(crate) at_root: bool,
    pub(crate) rtype: u16,
    /// Class and TTL, which OPT gives other meanings.
    class: u16,
    ttl: [u8; 4],
    /// Offset of the data in the message.
    data_at: usize,
    pub(crate) data: &'a [u8],
    /// Offset of what follows the record.
    pub(crate) end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordDefect {
    Cut,
    Name,
}

impl<'a> Record<'a> {
    #[inline]
    pub(crate) fn read(packet: &'a [u8], at: usize) -> Result<Self, RecordDefect> {
        let at_root = packet.get(at) == Some(&0);
        let fixed_at = if at_root {
            at.saturating_add(1)
        } else {
            skip_owner(packet, at)?
        };
        let fixed = packet
            .get(fixed_at..)
            .and_then(<[u8]>::first_chunk::<10>)
            .ok_or(RecordDefect::Cut)?;
        let [t0, t1, c0, c1, ttl @ .., l0, l1] = *fixed;
        let data_at = fixed_at.saturating_add(10);
        let end = data_at.saturating_add(usize::from(u16::from_be_bytes([l0, l1])));
        let data = packet.get(data_at..end).ok_or(RecordDefect::Cut)?;
        Ok(Self {
            at_root,
            rtype: u16::from_be_bytes([t0, t1]),
            class: u16::from_be_bytes([c0, c1]),
            ttl,
            data_at,
            data,
            end,
        })
    }

    /// The record read as OPT (RFC 6891 section 6.1.3). The message must not be longer than
    /// 65,535 octets.
    pub(crate) fn edns(&self) -> Edns {
        let [extended_rcode, version, z, _] = self.ttl;
        Edns {
            udp_size: self.class,
            extended_rcode,
            version,
            dnssec_ok: z & 0x80 != 0,
            options_at: self.data_at as u16,
            options_len: self.data.len() as u16,
        }
    }
}

/// The offset behind an owner name. It may be compressed: a pointer, which must point backwards
/// and behind the header, ends it.
fn skip_owner(packet: &[u8], start: usize) -> Result<usize, RecordDefect> {
    let mut at = start;
    loop {
        let len = *packet.get(at).ok_or(RecordDefect::Cut)?;
        match len {
            0 => return Ok(at.saturating_add(1)),
            1..=63 => at = at.saturating_add(usize::from(len)).saturating_add(1),
            192..=255 => {
                let low = *packet.get(at.saturating_add(1)).ok_or(RecordDefect::Cut)?;
                let target = usize::from(u16::from_be_bytes([len & 0x3f, low]));
                if target < HEADER_LEN || target >= start {
                    return Err(RecordDefect::Name);
                }
                return Ok(at.saturating_add(2));
            }
            _ => return Err(RecordDefect::Name),
        }
        if at.saturating_sub(start) >= MAX_NAME_LEN {
            return Err(RecordDefect::Name);
        }
    }
}
