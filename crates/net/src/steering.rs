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
    let workers = match u32::try_from(workers) {
        Ok(workers @ 1..=65_535) => workers,
        _ => return Err(SteeringError::Workers(workers)),
    };
    let program = program(workers, seed);
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
