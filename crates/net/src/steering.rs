//! Steering: the kernel picks the worker by the source's prefix.
//!
//! The sockets of a `SO_REUSEPORT` group get packets by a hash of addresses and ports, so one source's
//! packets land everywhere. A classic BPF program, attached to the group, picks the socket by IPv4
//! /24 or IPv6 /48 instead: what a worker knows about a source is then all there is to know.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MEM,
    BPF_MISC, BPF_MOD, BPF_MUL, BPF_RET, BPF_RSH, BPF_ST, BPF_TAX, BPF_W, BPF_X, BPF_XOR,
    sock_filter,
};

/// Has the kernel pick the socket of a `SO_REUSEPORT` group by the packet's source prefix: IPv4 /24,
/// IPv6 /48. For UDP and TCP; with the same `seed`, a source meets the same worker by both.
///
/// The sockets are numbered in the order in which they were bound, so worker 0 binds first. `socket` is
/// any of the group; the program is kept by the group. Attach it as soon as the first socket is
/// bound: with fewer sockets than `workers` the kernel uses its own hash for packets of those missing.
/// Closing one renumbers the last, so open and close all together.
///
/// `seed` keeps others from working out which prefixes share a worker; choose it at random.
///
/// # Errors
///
/// [`SteeringError`]; the group then goes on with the kernel's own hash.
pub fn steer_by_source(socket: impl AsFd, workers: usize, seed: u32) -> Result<(), SteeringError> {
    let Ok(count @ 1..=65_535) = u32::try_from(workers) else {
        return Err(SteeringError::Workers(workers));
    };
    let program = program(count, seed);
    let descriptor = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions from the program, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const descriptor).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(SteeringError::Refused(io::Error::last_os_error()));
    }
    Ok(())
}

/// Why a group is not steered.
#[derive(Debug)]
pub enum SteeringError {
    /// The number of workers is 0 or above 65,535.
    Workers(usize),
    /// The kernel refused the program: it is older than 4.5, a sandbox forbids it, or the socket does
    /// not share its port.
    Refused(io::Error),
}

impl fmt::Display for SteeringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workers(workers) => {
                write!(
                    f,
                    "cannot steer to {workers} workers: 1 to 65535 are possible"
                )
            }
            Self::Refused(error) => write!(
                f,
                "the kernel refused to steer sources to workers ({error}); packets are spread by \
                 address and port, so that each worker sees a part of every source"
            ),
        }
    }
}

impl Error for SteeringError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Workers(_) => None,
            Self::Refused(error) => Some(error),
        }
    }
}

/// Where loads relative to the IP header start. Plain offsets would be relative to the payload, for
/// the kernel runs the program after it has taken the UDP or TCP header off.
const IP: u32 = libc::SKF_NET_OFF.cast_unsigned();
/// The version is the upper half of the first octet (RFC 791, section 3.1; RFC 8200, section 3).
const VERSION: u32 = IP;
const V4_SOURCE: u32 = IP.wrapping_add(12);
const V6_SOURCE: u32 = IP.wrapping_add(8);

/// Odd numbers of the "lowbias32" integer mixer (Wellons, 2018).
const MIX: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

/// The program: A is the accumulator, X the index register, M\[0\] the one scratch word used.
fn program(workers: u32, seed: u32) -> Vec<sock_filter> {
    let load = |size, offset| statement(BPF_LD | size | BPF_ABS, offset);
    let alu = |operation, operand| statement(BPF_ALU | operation | BPF_K, operand);
    let xor_x = statement(BPF_ALU | BPF_XOR | BPF_X, 0);
    let copy_to_x = statement(BPF_MISC | BPF_TAX, 0);

    let v6 = [
        // M[0] = the first 32 bits of the source, mixed; A = the next 16
        load(BPF_W, V6_SOURCE),
        alu(BPF_MUL, MIX[0]),
        statement(BPF_ST, 0),
        load(BPF_H, V6_SOURCE.wrapping_add(4)),
        statement(BPF_LDX | BPF_W | BPF_MEM, 0),
        xor_x,
        // past the IPv4 part
        statement(BPF_JMP | libc::BPF_JA, 2),
    ];
    let v4 = [load(BPF_W, V4_SOURCE), alu(BPF_AND, 0xffff_ff00)];

    let mut program = vec![load(BPF_B, VERSION), alu(BPF_RSH, 4)];
    program.push(sock_filter {
        jf: v6.len() as u8,
        ..statement(BPF_JMP | BPF_JEQ | BPF_K, 6)
    });
    program.extend(v6);
    program.extend(v4);
    program.push(alu(BPF_XOR, seed));
    for (shift, factor) in [(16, Some(MIX[0])), (15, Some(MIX[1])), (16, None)] {
        // A ^= A >> shift; A *= factor
        program.extend([copy_to_x, alu(BPF_RSH, shift), xor_x]);
        program.extend(factor.map(|factor| alu(BPF_MUL, factor)));
    }
    program.push(alu(BPF_MOD, workers));
    program.push(statement(BPF_RET | libc::BPF_A, 0));
    program
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use super::*;
    use crate::test_support::{address_of, has_ipv6, listener, readable};
    use crate::{BATCH, RecvBatch, Transport, bind};

    /// What the kernel's interpreter does with the instructions used here. `None` where it would
    /// refuse the program or read past the header.
    fn run(program: &[sock_filter], ip_header: &[u8]) -> Option<u32> {
        let (mut a, mut x, mut m) = (0_u32, 0_u32, [0_u32; 16]);
        let mut next = 0;
        loop {
            let &sock_filter { code, jt, jf, k } = program.get(next)?;
            next += 1;
            let code = u32::from(code);
            let load = |len: usize| {
                let start = k.wrapping_sub(IP) as usize;
                let octets = ip_header.get(start..start + len)?;
                Some(octets.iter().fold(0, |n, &o| n << 8 | u32::from(o)))
            };
            match code {
                c if c == BPF_LD | BPF_W | BPF_ABS => a = load(4)?,
                c if c == BPF_LD | BPF_H | BPF_ABS => a = load(2)?,
                c if c == BPF_LD | BPF_B | BPF_ABS => a = load(1)?,
                c if c == BPF_LDX | BPF_W | BPF_MEM => x = m[k as usize],
                c if c == BPF_ST => m[k as usize] = a,
                c if c == BPF_MISC | BPF_TAX => x = a,
                c if c == BPF_ALU | BPF_AND | BPF_K => a &= k,
                c if c == BPF_ALU | BPF_MUL | BPF_K => a = a.wrapping_mul(k),
                c if c == BPF_ALU | BPF_RSH | BPF_K => a >>= k,
                c if c == BPF_ALU | BPF_MOD | BPF_K => a = a.checked_rem(k)?,
                c if c == BPF_ALU | BPF_XOR | BPF_K => a ^= k,
                c if c == BPF_ALU | BPF_XOR | BPF_X => a ^= x,
                c if c == BPF_JMP | libc::BPF_JA => next += k as usize,
                c if c == BPF_JMP | BPF_JEQ | BPF_K => {
                    next += usize::from(if a == k { jt } else { jf });
                }
                c if c == BPF_RET | libc::BPF_A => return Some(a),
                _ => return None,
            }
        }
    }

    fn header(source: IpAddr) -> Vec<u8> {
        match source {
            IpAddr::V4(source) => {
                let mut header = vec![0; 20];
                header[0] = 0x45;
                header[12..16].copy_from_slice(&source.octets());
                header
            }
            IpAddr::V6(source) => {
                let mut header = vec![0; 40];
                header[0] = 0x60;
                header[8..24].copy_from_slice(&source.octets());
                header
            }
        }
    }

    fn worker(source: impl Into<IpAddr>, workers: u32, seed: u32) -> u32 {
        run(&program(workers, seed), &header(source.into())).unwrap()
    }

    #[test]
    fn a_prefix_has_one_worker() {
        for seed in [0, 1, 0xdead_beef] {
            let of_24 = worker(Ipv4Addr::new(192, 0, 2, 0), 7, seed);
            let of_48 = worker("2001:db8:5::".parse::<Ipv6Addr>().unwrap(), 7, seed);
            for last in 0..=255 {
                assert_eq!(worker(Ipv4Addr::new(192, 0, 2, last), 7, seed), of_24);
                let address = Ipv6Addr::new(0x2001, 0xdb8, 5, last.into(), 1, 2, 3, last.into());
                assert_eq!(worker(address, 7, seed), of_48);
            }
        }
    }

    #[test]
    fn prefixes_spread_evenly() {
        const WORKERS: u32 = 6;
        let v4: fn(u16) -> IpAddr = |n| Ipv4Addr::from(u32::from(n) << 8).into();
        let v6_sites: fn(u16) -> IpAddr = |n| Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0, 1).into();
        let v6_providers: fn(u16) -> IpAddr = |n| Ipv6Addr::new(0x2400, n, 0, 0, 0, 0, 0, 1).into();
        for source in [v4, v6_sites, v6_providers] {
            let mut counts = [0_u32; WORKERS as usize];
            for n in 0..12_000 {
                counts[worker(source(n), WORKERS, 0x1234_5678) as usize] += 1;
            }
            for count in counts {
                assert!((1_800..2_200).contains(&count), "{counts:?}");
            }
        }
    }

    #[test]
    fn the_seed_changes_who_shares_a_worker() {
        let differing = (0..=255)
            .map(|n| Ipv4Addr::new(10, 0, n, 1))
            .filter(|&source| worker(source, 4, 1) != worker(source, 4, 2))
            .count();
        assert!((128..256).contains(&differing), "{differing}");
    }

    #[test]
    fn one_worker_gets_everything() {
        assert_eq!(worker(Ipv4Addr::new(198, 51, 100, 7), 1, 9), 0);
        assert_eq!(worker(Ipv6Addr::LOCALHOST, 1, 9), 0);
    }

    /// The kernel runs the very program: it sends each source where the interpreter says.
    #[test]
    fn the_kernel_agrees_with_the_interpreter() {
        const WORKERS: usize = 4;
        const SEED: u32 = 0x0bad_cafe;
        let v4 = (0..64_u8)
            .flat_map(|net| [1, 77, 254].map(|host| Ipv4Addr::new(127, 3, net, host).into()))
            .collect();
        let v6 = (0..64_u16)
            .flat_map(|site| {
                [1, 77, 254].map(|n| Ipv6Addr::new(0x2001, 0xdb8, site, n, 0, 0, 0, n).into())
            })
            .collect();
        let cases: [(&str, Vec<IpAddr>); 2] = [("127.0.0.1:0", v4), ("[::1]:0", v6)];
        for (local, sources) in cases {
            if local.contains('[') && !has_ipv6() {
                continue;
            }
            let first = listener(local);
            let address = address_of(&first);
            steer_by_source(&first, WORKERS, SEED).unwrap();
            let mut group = vec![first];
            while group.len() < WORKERS {
                group.push(listener(&address.to_string()));
            }
            let mut expected = [const { Vec::new() }; WORKERS];
            for source in sources {
                // several ports of each source, which the kernel's own hash would scatter
                for _ in 0..2 {
                    let from = SocketAddr::new(source, 0);
                    // freely bound, for the IPv6 addresses are not this machine's
                    let client = bind::open(from, Transport::Udp, true).unwrap();
                    client.bind(&from.into()).unwrap();
                    client.send_to(b"?", &address.into()).unwrap();
                    let from = client.local_addr().unwrap().as_socket().unwrap();
                    expected[worker(source, WORKERS as u32, SEED) as usize].push(from);
                }
            }
            for (socket, mut expected) in group.iter().zip(expected) {
                assert!(!expected.is_empty());
                let mut batch = RecvBatch::new(BATCH, 512);
                let mut found = Vec::new();
                while found.len() < expected.len() {
                    readable(socket);
                    let taken = batch.receive(socket).unwrap();
                    found.extend((0..taken).map(|index| batch.source(index)));
                }
                found.sort();
                expected.sort();
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn what_cannot_be_steered_says_so() {
        let alone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(matches!(
            steer_by_source(&alone, 2, 0),
            Err(SteeringError::Refused(_))
        ));
        for workers in [0, 65_536] {
            let error = steer_by_source(&alone, workers, 0).unwrap_err();
            assert!(error.to_string().contains(&workers.to_string()));
        }
    }
}
