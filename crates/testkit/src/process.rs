//! Programs that end with the test: children with a bounded life.
#![allow(unsafe_code, reason = "kill(2) to a process group has no safe wrapper")]

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at whether a child has ended.
const POLL: Duration = Duration::from_millis(5);

/// A command that gets SIGTERM when this process dies, and has a process group of its own.
///
/// # Panics
/// The program is not there; the message names the Debian package that brings it.
pub(crate) fn bounded_command(program: &str, package: &str) -> Command {
    for needed in [(program, package), ("/usr/bin/setpriv", "util-linux")] {
        assert!(
            std::path::Path::new(needed.0).exists(),
            "{} is not there: install the Debian package {}",
            needed.0,
            needed.1
        );
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command
        .args(["--pdeathsig", "TERM", "--", program])
        .stdin(Stdio::null())
        .process_group(0);
    command
}

/// Starts the command from a thread that lives as long as this process: the death signal of a
/// child is bound to the thread that started it, and a test's own thread may end sooner.
///
/// # Panics
/// The command cannot be started.
pub(crate) fn start(command: Command) -> Child {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static ORDERS: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = channel::<Order>();
        std::thread::Builder::new()
            .name("starter".to_owned())
            .spawn(move || {
                for (mut command, reply) in receiver {
                    // Whoever gave the order waits for the reply.
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread starts");
        Mutex::new(sender)
    });
    let (reply, child) = channel();
    orders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .expect("the starting thread lives");
    child
        .recv()
        .expect("the starting thread replies")
        .expect("the program starts")
}

/// Sends `signal` to the child's process group: to the child and to what it forked. Nothing
/// happens once the child has ended.
pub(crate) fn signal(child: &mut Child, signal: libc::c_int) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let group = libc::pid_t::try_from(child.id()).expect("a process id fits");
    // SAFETY: kill takes two integers and touches no memory. The group's number cannot belong to
    // anybody else: its leader is our child, which has not been waited for.
    unsafe {
        libc::kill(-group, signal);
    }
}

/// The processes of the child's group that have no child of their own there: those of a server that
/// forks its workers, without the processes that look after them. Empty for a child that forks
/// nothing.
pub(crate) fn workers(child: &Child) -> Vec<u32> {
    let family: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .expect("Linux has /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| parent_and_group(pid).map(|(parent, group)| (pid, parent, group)))
        .filter(|&(_, _, group)| group == child.id())
        .map(|(pid, parent, _)| (pid, parent))
        .collect();
    family
        .iter()
        .map(|&(pid, _)| pid)
        .filter(|&pid| pid != child.id() && family.iter().all(|&(_, parent)| parent != pid))
        .collect()
}

/// Whether the process is there and runs: one that has ended and was not waited for does not.
pub(crate) fn runs(pid: u32) -> bool {
    parent_and_group(pid).is_some()
}

/// The parent and the process group of a process that runs, by proc_pid_stat(5).
fn parent_and_group(pid: u32) -> Option<(u32, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the program's name stands in brackets and may hold anything
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Waits for the child's end, at most for `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Runs the command to its end and returns what it wrote to standard output.
///
/// # Panics
/// It fails, or is not done after `limit`; then it is killed.
pub(crate) fn output(command: Command, limit: Duration) -> String {
    let shown = format!("{command:?}");
    let (status, stdout, stderr) = run(command, limit);
    assert!(status.success(), "{shown}: {status}\n{stdout}\n{stderr}");
    stdout
}

/// [`output`], for a program whose failure is a result like any other.
///
/// # Panics
/// It is not done after `limit`; then it is killed.
pub(crate) fn output_of_any_end(command: Command, limit: Duration) -> String {
    run(command, limit).1
}

fn run(mut command: Command, limit: Duration) -> (ExitStatus, String, String) {
    let shown = format!("{command:?}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(command);
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child, limit);
    if status.is_none() {
        signal(&mut child, libc::SIGKILL);
        child.wait().expect("our own child can be waited for");
    }
    let (stdout, stderr) = (
        stdout.join().unwrap_or_default(),
        stderr.join().unwrap_or_default(),
    );
    match status {
        Some(status) => (status, stdout, stderr),
        None => panic!("{shown}: not done after {limit:?}\n{stdout}\n{stderr}"),
    }
}

/// Reads to the end on a thread, so that a full pipe does not block the child.
fn drain(source: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut octets = Vec::new();
        if let Some(mut source) = source {
            // What was read before an error is what there is to show.
            let _ = source.read_to_end(&mut octets);
        }
        String::from_utf8_lossy(&octets).into_owned()
    })
}
