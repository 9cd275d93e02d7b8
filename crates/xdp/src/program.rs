//! The program in the kernel, and its maps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use ipnet::IpNet;

use crate::attach::{AttachError, Attached, Mode, attach};
use crate::layout::{Allowance, Control, ExemptKey, Limits, Prefix, SLOTS, Service};
use crate::limit::{Limit, Pace};
use crate::outcome::Outcome;

/// Prefixes that are counted at a time: those of the sources that sent last.
pub const MOST_BUCKETS: u32 = 131_072;
/// Exempt prefixes, of each family.
pub const MOST_EXEMPT: usize = 65_536;
/// Prefixes with a limit of their own.
pub const MOST_ALLOWANCES: usize = 16_384;
/// Addresses and ports that are looked at.
pub const MOST_SERVICES: usize = 4_096;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/dnscrub.bpf.o");
const NAME: &str = "dnscrub";

/// Where the program has its time from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The kernel.
    Kernel,
    /// What [`Program::set_now`] says: for tests.
    Set,
}

/// What is to be in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The limit; nothing for none.
    pub limit: Option<Limit>,
    /// Prefixes that it is not for.
    pub exempt: Arc<BTreeSet<IpNet>>,
    /// Prefixes with a pace of their own, each of a length that the limit has.
    pub allowances: BTreeMap<IpNet, Pace>,
}

/// The program in the kernel, and its maps as they are.
pub struct Program {
    ebpf: Ebpf,
    control: Array<MapData, Control>,
    limits: Array<MapData, Limits>,
    services: HashMap<MapData, Service, u32>,
    exempt4: LpmTrie<MapData, [u8; 4], u32>,
    exempt6: LpmTrie<MapData, [u8; 16], u32>,
    allowances: HashMap<MapData, Prefix, Allowance>,
    outcomes: PerCpuArray<MapData, u64>,
    clock: Array<MapData, u64>,
    /// What was wanted last, if all of it is in force.
    in_force: Option<Wanted>,
    /// What stands in the maps.
    exempt: BTreeSet<IpNet>,
    allowed: BTreeMap<IpNet, Pace>,
    slot: u32,
    generation: u64,
}

impl Program {
    /// Loads it into the kernel. Nothing is limited, and it is on no interface.
    ///
    /// # Errors
    /// The kernel refuses it: it is too old, or the rights are missing.
    pub fn load(clock: Clock) -> Result<Self, LoadError> {
        Self::load_with(clock, MOST_BUCKETS)
    }

    /// The same with so many buckets, for tests of what happens when they are all taken.
    ///
    /// # Errors
    /// As [`Program::load`].
    pub fn load_with(clock: Clock, buckets: u32) -> Result<Self, LoadError> {
        let virtual_time = u8::from(clock == Clock::Set);
        // nothing of the kernel's own structures is read, so its type information is not needed
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global("virtual_time", &virtual_time, true)
            .map_max_entries("buckets", buckets)
            .load(OBJECT)?;
        let program: &mut Xdp = ebpf
            .program_mut(NAME)
            .ok_or_else(|| LoadError::Object(format!("no program {NAME}")))?
            .try_into()?;
        program.load()?;
        Ok(Self {
            control: Array::try_from(map(&mut ebpf, "control")?)?,
            limits: Array::try_from(map(&mut ebpf, "limits")?)?,
            services: HashMap::try_from(map(&mut ebpf, "services")?)?,
            exempt4: LpmTrie::try_from(map(&mut ebpf, "exempt4")?)?,
            exempt6: LpmTrie::try_from(map(&mut ebpf, "exempt6")?)?,
            allowances: HashMap::try_from(map(&mut ebpf, "allowances")?)?,
            outcomes: PerCpuArray::try_from(map(&mut ebpf, "outcomes")?)?,
            clock: Array::try_from(map(&mut ebpf, "clock")?)?,
            ebpf,
            in_force: Some(Wanted::default()),
            exempt: BTreeSet::new(),
            allowed: BTreeMap::new(),
            slot: 0,
            generation: 0,
        })
    }

    /// Has it look at packets to these addresses; an unspecified address stands for all of its family.
    ///
    /// # Errors
    /// There are more than [`MOST_SERVICES`], or the kernel refuses.
    pub fn add_services(
        &mut self,
        services: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<(), ApplyError> {
        for service in services {
            self.services.insert(Service::from(service), 1, 0)?;
        }
        Ok(())
    }

    /// Puts in force what is wanted, in the order that nobody is limited wrongly meanwhile. A source that is counted
    /// already goes on from where it is.
    ///
    /// # Errors
    /// More is wanted than there is room for, or the kernel refuses. Nothing is limited then.
    pub fn apply(&mut self, wanted: &Wanted) -> Result<(), ApplyError> {
        if self.in_force.as_ref() == Some(wanted) {
            return Ok(());
        }
        self.in_force = None;
        let done = check(wanted).and_then(|()| self.reconcile(wanted));
        match done {
            Ok(()) => self.in_force = Some(wanted.clone()),
            Err(_) => self.switch(None)?,
        }
        done
    }

    fn reconcile(&mut self, wanted: &Wanted) -> Result<(), ApplyError> {
        // who becomes exempt does so before, who ceases to be so after the limit is another one
        let (exempt, allowances) = (&*wanted.exempt, &wanted.allowances);
        let added: Vec<IpNet> = exempt.difference(&self.exempt).copied().collect();
        let removed: Vec<IpNet> = self.exempt.difference(exempt).copied().collect();
        for prefix in added {
            match ExemptKey::from(prefix) {
                ExemptKey::V4(key) => self.exempt4.insert(&key, 1, 0)?,
                ExemptKey::V6(key) => self.exempt6.insert(&key, 1, 0)?,
            }
            self.exempt.insert(prefix);
        }
        let mut gone: Vec<IpNet> = self.allowed.keys().copied().collect();
        gone.retain(|prefix| !allowances.contains_key(prefix));
        for prefix in gone {
            self.allowances.remove(&Prefix::from(prefix))?;
            self.allowed.remove(&prefix);
        }
        for (&prefix, &pace) in allowances {
            if self.allowed.get(&prefix) != Some(&pace) {
                self.allowances
                    .insert(Prefix::from(prefix), Allowance::from(pace), 0)?;
                self.allowed.insert(prefix, pace);
            }
        }
        self.switch(wanted.limit.as_ref())?;
        for prefix in removed {
            match ExemptKey::from(prefix) {
                ExemptKey::V4(key) => self.exempt4.remove(&key)?,
                ExemptKey::V6(key) => self.exempt6.remove(&key)?,
            }
            self.exempt.remove(&prefix);
        }
        Ok(())
    }

    /// Writes a limit where none is read from, and has it read.
    fn switch(&mut self, limit: Option<&Limit>) -> Result<(), ApplyError> {
        let Some(limit) = limit else {
            self.control.set(0, Control::new(0), 0)?;
            return Ok(());
        };
        self.generation = self.generation.wrapping_add(1);
        self.slot = self.slot % (SLOTS - 1) + 1;
        let exempt = &self.exempt;
        let families = [
            exempt.iter().any(|it| matches!(it, IpNet::V4(_))),
            exempt.iter().any(|it| matches!(it, IpNet::V6(_))),
        ];
        let limits = Limits::new(limit, self.generation, families);
        self.limits.set(self.slot, limits, 0)?;
        self.control.set(0, Control::new(self.slot), 0)?;
        Ok(())
    }

    /// Puts it to work on an interface, in the first of these modes that the interface takes.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(&self, interface: &str, modes: &[Mode]) -> Result<Attached, AttachError> {
        let refused = |failure| {
            let mode = modes.last().copied().unwrap_or(Mode::Generic);
            AttachError::Refused(interface.to_owned(), mode, io::Error::other(failure))
        };
        let program = self.xdp().map_err(refused)?;
        let descriptor = program.fd().map_err(refused)?;
        attach(descriptor.as_fd(), interface, modes)
    }

    /// Packets by what became of them, on all interfaces and processors, since it was loaded.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counts(&self) -> Result<[u64; Outcome::ALL.len()], ApplyError> {
        let mut counts = [0; Outcome::ALL.len()];
        for (outcome, count) in (0..).zip(&mut counts) {
            let by_processor = self.outcomes.get(&outcome, 0)?;
            *count = by_processor.iter().copied().fold(0, u64::wrapping_add);
        }
        Ok(counts)
    }

    /// Sets the time of a program with [`Clock::Set`], in nanoseconds.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_now(&mut self, now: u64) -> Result<(), ApplyError> {
        Ok(self.clock.set(0, now, 0)?)
    }

    /// Has the kernel run it on a frame of at least 14 octets, `repeat` times, on no interface: for tests and
    /// measurements.
    ///
    /// # Errors
    /// The kernel refuses the frame.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<TestRun, LoadError> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let result = self.xdp()?.test_run(options)?;
        Ok(TestRun {
            passes: result.return_value == XDP_PASS,
            time: result.duration,
        })
    }

    fn xdp(&self) -> Result<&Xdp, ProgramError> {
        let program = self.ebpf.program(NAME).ok_or(ProgramError::NotLoaded)?;
        program.try_into()
    }
}

const XDP_PASS: u32 = 2;

/// What a test run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// The frame passes.
    pub passes: bool,
    /// Mean time of a run.
    pub time: Duration,
}

fn map(ebpf: &mut Ebpf, name: &str) -> Result<Map, LoadError> {
    ebpf.take_map(name)
        .ok_or_else(|| LoadError::Object(format!("no map {name}")))
}

fn check(wanted: &Wanted) -> Result<(), ApplyError> {
    let v4 = wanted.exempt.iter().filter(|it| matches!(it, IpNet::V4(_)));
    let v4 = v4.count();
    let v6 = wanted.exempt.len() - v4;
    for (what, found, most) in [
        ("exempt prefixes of IPv4", v4, MOST_EXEMPT),
        ("exempt prefixes of IPv6", v6, MOST_EXEMPT),
        (
            "prefixes with a limit of their own",
            wanted.allowances.len(),
            MOST_ALLOWANCES,
        ),
    ] {
        if found > most {
            return Err(ApplyError::TooMany { what, found, most });
        }
    }
    Ok(())
}

/// Why the program is not in the kernel.
#[derive(Debug)]
pub enum LoadError {
    /// The kernel refused it, in the words of the library.
    Kernel(String, Option<i32>),
    /// The object that this was built with is not the one it should be.
    Object(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(words, code) => {
                write!(f, "the kernel does not take the program: {words}")?;
                match code {
                    Some(libc::EPERM | libc::EACCES) => {
                        f.write_str(": it takes CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")
                    }
                    Some(libc::EINVAL | libc::ENOSYS) => {
                        f.write_str(": it takes Linux 5.12 or later")
                    }
                    _ => Ok(()),
                }
            }
            Self::Object(words) => write!(f, "the program's object is damaged: {words}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// The innermost cause that the operating system told of.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    let mut found = None;
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            found = error.raw_os_error().or(found);
        }
        cause = error.source();
    }
    found
}

/// Octets shown of an error's beginning, and of its end: between them the kernel's verifier writes thousands of lines.
const MOST_WORDS: usize = 200;

/// An error and its causes, without what repeats.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    shortened(&words)
}

fn shortened(words: &str) -> String {
    let first = words.char_indices().nth(MOST_WORDS).map(|(at, _)| at);
    let last = words
        .char_indices()
        .rev()
        .nth(MOST_WORDS - 1)
        .map(|(at, _)| at);
    match (first, last) {
        (Some(first), Some(last)) if first < last => {
            let parts = words.get(..first).zip(words.get(last..));
            parts.map_or_else(String::new, |(first, last)| format!("{first} […] {last}"))
        }
        _ => words.to_owned(),
    }
}

impl From<EbpfError> for LoadError {
    fn from(error: EbpfError) -> Self {
        Self::Kernel(words(&error), os_error(&error))
    }
}

impl From<ProgramError> for LoadError {
    fn from(error: ProgramError) -> Self {
        Self::Kernel(words(&error), os_error(&error))
    }
}

impl From<MapError> for LoadError {
    fn from(error: MapError) -> Self {
        Self::Kernel(words(&error), os_error(&error))
    }
}

/// Why something is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// There are more of them than there is room for.
    TooMany {
        /// What.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// The kernel refused, in the words of the library.
    Kernel(String),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { what, found, most } => {
                write!(f, "found {found} {what}, expected at most {most}")
            }
            Self::Kernel(words) => write!(f, "the kernel refuses: {words}"),
        }
    }
}

impl std::error::Error for ApplyError {}

impl From<MapError> for ApplyError {
    fn from(error: MapError) -> Self {
        Self::Kernel(words(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_errors_the_beginning_and_the_end_are_shown() {
        assert_eq!(shortened("short"), "short");
        let just = "é".repeat(2 * MOST_WORDS);
        assert_eq!(shortened(&just), just);
        let long = format!("{}x{}", "a".repeat(MOST_WORDS), "b".repeat(MOST_WORDS));
        let expected = format!("{} […] {}", "a".repeat(MOST_WORDS), "b".repeat(MOST_WORDS));
        assert_eq!(shortened(&long), expected);
    }

    #[test]
    fn missing_rights_are_named() {
        let refused = |code| LoadError::Kernel("no".to_owned(), Some(code)).to_string();
        for code in [libc::EPERM, libc::EACCES] {
            assert!(refused(code).ends_with("CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"));
        }
        assert!(refused(libc::EINVAL).ends_with("Linux 5.12 or later"));
        assert_eq!(
            refused(libc::ENOMEM),
            "the kernel does not take the program: no"
        );
    }
}
