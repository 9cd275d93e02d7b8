//! The program's structures, as its maps hold them. Twins of those in `bpf/dnscrub.bpf.c`.

use std::net::{IpAddr, SocketAddr};

use aya::Pod;
use aya::maps::lpm_trie::Key as LpmKey;
use ipnet::IpNet;

use crate::limit::{Limit, MOST_STEPS, Pace};

/// Slots for limits: the one in force and the next one, from 1; 0 stands for none.
pub(crate) const SLOTS: u32 = 3;
/// Marks a prefix of IPv6.
const FAMILY_BIT: u32 = 0x100;

/// `struct step`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Step {
    interval: u64,
    burst: u64,
    length: u32,
    pad: u32,
}

/// `struct limits`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Limits {
    steps: [[Step; MOST_STEPS]; 2],
    generation: u64,
    exempt: [u32; 2],
}

/// `struct control`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Control {
    pub(crate) slot: u32,
    pad: u32,
}

/// `struct service`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Service {
    address: [u8; 16],
    port: [u8; 2],
    family: u16,
}

/// `struct prefix`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Prefix {
    length: u32,
    address: [u8; 16],
}

/// `struct allowance`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Allowance {
    interval: u64,
    burst: u64,
}

// SAFETY: repr(C), of integers only, without padding (the test below compares each with the sum of its parts),
// and any bits are a value.
unsafe impl Pod for Limits {}
// SAFETY: as above.
unsafe impl Pod for Control {}
// SAFETY: as above.
unsafe impl Pod for Service {}
// SAFETY: as above.
unsafe impl Pod for Prefix {}
// SAFETY: as above.
unsafe impl Pod for Allowance {}

impl Limits {
    /// `exempt`: whether there are exempt prefixes, by family.
    pub(crate) fn new(limit: &Limit, generation: u64, exempt: [bool; 2]) -> Self {
        let mut limits = Self {
            generation,
            exempt: exempt.map(u32::from),
            ..Self::default()
        };
        for (to, from) in limits.steps.iter_mut().zip([&limit.v4, &limit.v6]) {
            for (to, &(length, pace)) in to.iter_mut().zip(from) {
                *to = Step {
                    interval: pace.interval,
                    burst: pace.burst,
                    length: length.into(),
                    pad: 0,
                };
            }
        }
        limits
    }
}

impl Control {
    pub(crate) const fn new(slot: u32) -> Self {
        Self { slot, pad: 0 }
    }
}

/// An address's octets, those of IPv4 first, and its family.
fn octets(address: IpAddr) -> ([u8; 16], u16) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&[a, b, c, d]);
            (octets, 0)
        }
        IpAddr::V6(address) => (address.octets(), 1),
    }
}

impl From<SocketAddr> for Service {
    fn from(service: SocketAddr) -> Self {
        let (address, family) = octets(service.ip());
        Self {
            address,
            port: service.port().to_be_bytes(),
            family,
        }
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        let (address, family) = octets(net.network());
        let bit = if family == 1 { FAMILY_BIT } else { 0 };
        Self {
            length: u32::from(net.prefix_len()) | bit,
            address,
        }
    }
}

impl From<Pace> for Allowance {
    fn from(pace: Pace) -> Self {
        Self {
            interval: pace.interval,
            burst: pace.burst,
        }
    }
}

/// A key of `exempt4` or `exempt6`.
pub(crate) enum ExemptKey {
    V4(LpmKey<[u8; 4]>),
    V6(LpmKey<[u8; 16]>),
}

impl From<IpNet> for ExemptKey {
    fn from(net: IpNet) -> Self {
        let length = u32::from(net.prefix_len());
        match net.network() {
            IpAddr::V4(address) => Self::V4(LpmKey::new(length, address.octets())),
            IpAddr::V6(address) => Self::V6(LpmKey::new(length, address.octets())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    #[test]
    fn nothing_is_padded() {
        assert_eq!(size_of::<Step>(), 24);
        assert_eq!(size_of::<Limits>(), 2 * MOST_STEPS * 24 + 8 + 8);
        assert_eq!(size_of::<Control>(), 8);
        assert_eq!(size_of::<Service>(), 20);
        assert_eq!(size_of::<Prefix>(), 20);
        assert_eq!(size_of::<Allowance>(), 16);
    }

    #[test]
    fn constants_are_those_of_the_program() {
        let source = include_str!("../bpf/dnscrub.bpf.c");
        for line in [
            format!("enum {{ STEPS = {MOST_STEPS}, SLOTS = {SLOTS} }};"),
            format!("enum {{ FAMILY_BIT = {FAMILY_BIT:#x} }};"),
            "enum { V4, V6 };".to_owned(),
        ] {
            assert!(source.contains(&line), "{line}");
        }
    }
}
