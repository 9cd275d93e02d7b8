//! Attaching to an interface, by a link that dies with its descriptor.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Where in the kernel packets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the network card's driver, before the kernel has made anything of a packet.
    Driver,
    /// In the kernel's own code, after that; for drivers that cannot. Dearer, and still before a socket.
    Generic,
}

impl Mode {
    /// In a word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
        }
    }

    /// `XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE`.
    const fn flags(self) -> u32 {
        match self {
            Self::Driver => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }
}

/// The program on an interface. It is taken away when this is dropped, and with the process.
#[derive(Debug)]
pub struct Attached {
    interface: String,
    index: u32,
    mode: Mode,
    _link: OwnedFd,
}

impl Attached {
    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Where packets are looked at.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the interface of this name is still the one it was attached to: one that went and came back has
    /// lost the program.
    #[must_use]
    pub fn is_there(&self) -> bool {
        index_of(&self.interface) == Some(self.index)
    }
}

/// Why the program is not on an interface.
#[derive(Debug)]
pub enum AttachError {
    /// There is none of this name; those that there are.
    NoInterface(String, Vec<String>),
    /// The kernel or the driver refused, in the last mode that was tried.
    Refused(String, Mode, io::Error),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface(name, known) => {
                write!(
                    f,
                    "there is no interface {name}; found {}",
                    known.join(", ")
                )
            }
            Self::Refused(name, mode, failure) => {
                write!(
                    f,
                    "cannot attach to {name} in {} mode: {failure}",
                    mode.label()
                )?;
                match failure.raw_os_error() {
                    Some(libc::EPERM) => f.write_str(": it takes CAP_NET_ADMIN and CAP_BPF"),
                    Some(libc::EBUSY | libc::EEXIST) => write!(
                        f,
                        ": another XDP program is on it (`ip link show dev {name}` shows it)"
                    ),
                    Some(libc::EOPNOTSUPP) => f.write_str(": the driver has no XDP; use `generic`"),
                    Some(libc::EINVAL) => f.write_str(
                        ": Linux 5.12 or later is needed, and an MTU that fits one page for `driver`",
                    ),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for AttachError {}

/// Tries the modes in their order.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    interface: &str,
    modes: &[Mode],
) -> Result<Attached, AttachError> {
    let Some(index) = index_of(interface) else {
        return Err(AttachError::NoInterface(interface.to_owned(), names()));
    };
    let mut refused = None;
    for &mode in modes {
        match create_link(program, index, mode) {
            Ok(link) => {
                return Ok(Attached {
                    interface: interface.to_owned(),
                    index,
                    mode,
                    _link: link,
                });
            }
            Err(failure) => {
                // what is taken is so in every mode
                let taken = failure.raw_os_error() == Some(libc::EBUSY);
                refused = Some((mode, failure));
                if taken {
                    break;
                }
            }
        }
    }
    let (mode, failure) =
        refused.unwrap_or_else(|| (Mode::Generic, io::ErrorKind::InvalidInput.into()));
    Err(AttachError::Refused(interface.to_owned(), mode, failure))
}

fn index_of(interface: &str) -> Option<u32> {
    let name = CString::new(interface).ok()?;
    // SAFETY: the name ends in a zero octet and lives until the call returns.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index > 0).then_some(index)
}

/// The interfaces of this network namespace.
fn names() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// `bpf(BPF_LINK_CREATE)`. Not by way of the library: where the kernel refuses a link it attaches over netlink, and
/// such a program stays when the process dies.
fn create_link(program: BorrowedFd<'_>, index: u32, mode: Mode) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_long = 28;
    const BPF_XDP: u32 = 37;
    /// The part of `union bpf_attr` for this command.
    #[repr(C)]
    struct LinkCreate {
        program: i32,
        interface: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes = LinkCreate {
        program: program.as_raw_fd(),
        interface: index,
        attach_type: BPF_XDP,
        flags: mode.flags(),
    };
    // SAFETY: the kernel reads so many octets of the structure, which lives until the call returns, and writes none.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw const attributes,
            size_of::<LinkCreate>(),
        )
    };
    let descriptor = i32::try_from(descriptor).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made it for us just now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
