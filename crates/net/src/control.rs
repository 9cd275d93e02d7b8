//! Control messages: the address a packet was sent to, its hop limit, the address it shall leave from.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use crate::receive::PacketInfo;

/// Room for what a listener asks for: `IPV6_PKTINFO` (40 octets) and `IPV6_HOPLIMIT` (24), or the
/// smaller IPv4 pair (32 and 24). One cache line.
pub(crate) type ReceiveSpace = [u64; 8];

pub(crate) const RECEIVE_LEN: usize = size_of::<ReceiveSpace>();

/// Reads the control messages of a received message.
///
/// # Safety
///
/// `message` must be as `recvmmsg` left it: `msg_control` null, or pointing at `msg_controllen`
/// readable octets that nobody writes meanwhile.
pub(crate) unsafe fn read(message: &libc::msghdr) -> PacketInfo {
    let mut info = PacketInfo::default();
    // SAFETY: the caller vouches for the control space; the walk stays within `msg_controllen`.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: `next` is null or a whole header inside the control space, aligned as the space is.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: as above; only the address is computed.
        let data = unsafe { libc::CMSG_DATA(next) };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel writes a whole in_pktinfo with this level and type.
                let found = unsafe { ptr::read_unaligned(data.cast::<libc::in_pktinfo>()) };
                info.local = Some(IpAddr::V4(Ipv4Addr::from(
                    found.ipi_addr.s_addr.to_ne_bytes(),
                )));
                info.interface = found.ipi_ifindex.cast_unsigned();
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel writes a whole in6_pktinfo with this level and type.
                let found = unsafe { ptr::read_unaligned(data.cast::<libc::in6_pktinfo>()) };
                info.local = Some(IpAddr::V6(Ipv6Addr::from(found.ipi6_addr.s6_addr)));
                info.interface = found.ipi6_ifindex;
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                // SAFETY: the kernel writes an int with these levels and types.
                let found = unsafe { ptr::read_unaligned(data.cast::<libc::c_int>()) };
                info.ttl = u8::try_from(found).ok();
            }
            _ => {}
        }
        // SAFETY: as for the first header.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    info
}

/// Room for one packet information message on the way out.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union SendSpace {
    v4: Message<libc::in_pktinfo>,
    v6: Message<libc::in6_pktinfo>,
    /// for the alignment and the padding that `CMSG_SPACE` counts
    whole: [u64; 5],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Message<T> {
    header: libc::cmsghdr,
    data: T,
}

impl SendSpace {
    pub(crate) const fn zeroed() -> Self {
        Self { whole: [0; 5] }
    }

    /// Writes packet information; the octets that count (`CMSG_SPACE` of the message).
    pub(crate) fn set(&mut self, from: IpAddr, interface: u32) -> usize {
        match from {
            IpAddr::V4(address) => {
                self.v4 = Message {
                    header: header::<libc::in_pktinfo>(libc::IPPROTO_IP, libc::IP_PKTINFO),
                    data: libc::in_pktinfo {
                        ipi_ifindex: interface.cast_signed(),
                        ipi_spec_dst: libc::in_addr {
                            s_addr: u32::from_ne_bytes(address.octets()),
                        },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    },
                };
                space::<libc::in_pktinfo>()
            }
            IpAddr::V6(address) => {
                self.v6 = Message {
                    header: header::<libc::in6_pktinfo>(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO),
                    data: libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr {
                            s6_addr: address.octets(),
                        },
                        ipi6_ifindex: interface,
                    },
                };
                space::<libc::in6_pktinfo>()
            }
        }
    }
}

const fn header<T>(level: libc::c_int, kind: libc::c_int) -> libc::cmsghdr {
    // SAFETY: zero is a valid value of every field (and of the padding some C libraries have).
    let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
    // SAFETY: arithmetic on a constant only.
    header.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<T>() as u32) } as _;
    header.cmsg_level = level;
    header.cmsg_type = kind;
    header
}

const fn space<T>() -> usize {
    // SAFETY: arithmetic on a constant only.
    unsafe { libc::CMSG_SPACE(size_of::<T>() as u32) as usize }
}

// `Message` puts the data where CMSG_DATA expects it, and the union holds the padded message.
const _: () = {
    // SAFETY: arithmetic on a constant only.
    const DATA: usize = unsafe { libc::CMSG_LEN(0) } as usize;
    assert!(mem::offset_of!(Message<libc::in_pktinfo>, data) == DATA);
    assert!(mem::offset_of!(Message<libc::in6_pktinfo>, data) == DATA);
    assert!(space::<libc::in_pktinfo>() <= size_of::<SendSpace>());
    assert!(space::<libc::in6_pktinfo>() <= size_of::<SendSpace>());
    assert!(space::<libc::in6_pktinfo>().saturating_add(space::<libc::c_int>()) <= RECEIVE_LEN);
};
