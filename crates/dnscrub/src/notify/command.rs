//! Runs a command that is told of an incident.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process;
use tracing::info;

use super::message::Message;
use super::notice::Outcome;
use super::settings::Command;

/// Octets kept of what it writes.
const OUTPUT: usize = 4_096;
/// How long what it has left behind may hold its output open.
const LINGER: Duration = Duration::from_secs(1);
/// What it gets of our own environment; the rest may hold secrets.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// Runs it and waits for its end, at most for `limit`; then it is killed with its process group.
pub(super) fn run(command: &Command, message: &Message<'_>, limit: Duration) -> Outcome {
    let later = |why: String| Outcome::Later { why, after: None };
    // a runtime of its own: it waits for the child, its pipes and the clock at once
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime
            .block_on(run_within(command, message, limit))
            .unwrap_or_else(later),
        Err(failure) => later(failure.to_string()),
    }
}

async fn run_within(
    command: &Command,
    message: &Message<'_>,
    limit: Duration,
) -> Result<Outcome, String> {
    let mut child = process::Command::new(&command.program)
        .args(&command.arguments)
        .env_clear()
        .envs(
            PASSED_ON
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .envs(environment(message))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|failure| format!("{} does not start: {failure}", command.program.display()))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let body = message.body();
    let fed = async {
        if let Some(mut stdin) = stdin {
            // a command need not read it
            let _ = stdin.write_all(&body).await;
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let leader = child.id();
    let ended = {
        let mut drained = false;
        let piped = async {
            tokio::join!(fed, drain(stdout, &mut out), drain(stderr, &mut err));
        };
        tokio::pin!(piped);
        let ended = tokio::time::timeout(limit, async {
            tokio::select! {
                status = child.wait() => status,
                () = &mut piped => {
                    drained = true;
                    child.wait().await
                }
            }
        });
        let ended = ended.await;
        if ended.is_err()
            && let Some(leader) = leader
        {
            dnscrub_net::process::kill_group(leader);
        }
        // what it wrote last; whoever it has left running may hold the pipes for ever
        if !drained {
            let _ = tokio::time::timeout(LINGER, piped).await;
        }
        ended
    };
    let said = said(&out, &err);
    let Ok(status) = ended else {
        // it is dead already; this only takes it from the table of processes
        let _ = child.wait().await;
        return Err(format!("killed after {limit:?}{said}"));
    };
    let status = status.map_err(|failure| failure.to_string())?;
    info!(program = %command.program.display(), %status, "a command was told of an incident{said}");
    match status.success() {
        true => Ok(Outcome::Delivered),
        false => Err(format!("{status}{said}")),
    }
}

fn environment(message: &Message<'_>) -> Vec<(&'static str, String)> {
    let incident = message.incident;
    let zone = incident.zones.first().map_or("", |part| part.zone.as_str());
    vec![
        ("DNSCRUB_EVENT", message.event.to_owned()),
        ("DNSCRUB_INCIDENT", incident.number.to_string()),
        ("DNSCRUB_KIND", incident.kind.label().to_owned()),
        ("DNSCRUB_ATTACK", incident.kind.is_attack().to_string()),
        ("DNSCRUB_CONFIDENCE", format!("{:.2}", incident.confidence)),
        ("DNSCRUB_ZONE", zone.to_owned()),
        ("DNSCRUB_SENTENCE", incident.sentence.clone()),
        ("DNSCRUB_INSTANCE", message.instance().to_owned()),
        ("DNSCRUB_ID", message.id().to_owned()),
        ("DNSCRUB_ATTEMPT", message.attempt().to_string()),
    ]
    .into_iter()
    // text with a NUL cannot be passed
    .map(|(name, value)| (name, value.replace('\0', "")))
    .collect()
}

/// Reads to the end and keeps the first [`OUTPUT`] octets.
async fn drain(source: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut source) = source else { return };
    let mut part = [0; 1_024];
    while let Ok(len @ 1..) = source.read(&mut part).await {
        let room = OUTPUT.saturating_sub(kept.len());
        kept.extend(part.iter().take(len.min(room)));
    }
}

/// What it wrote, on one line.
fn said(out: &[u8], err: &[u8]) -> String {
    let text = [out, err].map(|octets| String::from_utf8_lossy(octets).into_owned());
    let lines = text.iter().flat_map(|text| text.lines()).map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!(
            ": {}",
            lines.join(" | ").replace(char::is_control, "\u{fffd}")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use dnscrub_detection::Happened;

    use super::super::testing::notice;
    use super::*;

    fn run_shell(script: &str, limit: Duration) -> Outcome {
        let command = Command {
            program: Path::new("/bin/sh").to_owned(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            retry: false,
            at_a_time: 1,
        };
        let notice = notice(3, Happened::Opened, 12);
        run(
            &command,
            &Message::new(&notice, 2, "edge-1", 1.0, false),
            limit,
        )
    }

    const LONG: Duration = Duration::from_secs(60);

    fn why(outcome: Outcome) -> String {
        match outcome {
            Outcome::Later { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_gets_the_notice_and_its_exit_status_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (input, variables) = (folder.path().join("in"), folder.path().join("env"));
        let script = format!("cat > {} ; env > {}", input.display(), variables.display());
        assert_eq!(run_shell(&script, LONG), Outcome::Delivered);
        let body: serde_json::Value =
            serde_json::from_slice(&std::fs::read(input).unwrap()).unwrap();
        assert_eq!(
            (&body["event"], &body["incident"]["number"]),
            (&"opened".into(), &12.into())
        );
        let variables = std::fs::read_to_string(variables).unwrap();
        for line in [
            "DNSCRUB_EVENT=opened",
            "DNSCRUB_INCIDENT=12",
            "DNSCRUB_KIND=random-subdomains",
            "DNSCRUB_ATTACK=true",
            "DNSCRUB_ZONE=example.com",
            "DNSCRUB_ATTEMPT=2",
        ] {
            assert!(
                variables.lines().any(|it| it == line),
                "{line}: {variables}"
            );
        }
        assert!(
            !variables.contains("CARGO"),
            "our own environment stays here"
        );
        let why = why(run_shell("echo one; echo two >&2; exit 3", LONG));
        assert_eq!(why, "exit status: 3: one | two");
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!(
            "sleep 600 & echo $! > {}; echo waiting; wait",
            pid.display()
        );
        let said = why(run_shell(&script, Duration::from_millis(500)));
        assert_eq!(said, "killed after 500ms: waiting");
        let pid = std::fs::read_to_string(pid).unwrap();
        let stat = Path::new("/proc").join(pid.trim()).join("stat");
        let end = Instant::now() + LONG;
        // a process that nobody has waited for yet is dead all the same
        while std::fs::read_to_string(&stat).is_ok_and(|it| !it.contains(") Z")) {
            assert!(Instant::now() < end, "its child lives");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_it_leaves_running_and_what_it_writes_is_bounded() {
        // the child left behind holds the pipes
        assert_eq!(run_shell("sleep 30 & exit 0", LONG), Outcome::Delivered);
        let said = why(run_shell(
            "head -c 1000000 /dev/zero | tr '\\0' x; exit 1",
            LONG,
        ));
        assert!((4_000..5_000).contains(&said.len()), "{}", said.len());
        // one that reads nothing is no failure
        assert_eq!(run_shell("exec <&-; exit 0", LONG), Outcome::Delivered);
    }

    #[test]
    fn one_that_is_not_there_says_so() {
        let command = Command {
            program: Path::new("/nonexistent/page").to_owned(),
            arguments: Vec::new(),
            retry: true,
            at_a_time: 1,
        };
        let notice = notice(3, Happened::Opened, 12);
        let message = Message::new(&notice, 1, "x", 1.0, false);
        let said = why(run(&command, &message, LONG));
        assert!(
            said.starts_with("/nonexistent/page does not start: No such file"),
            "{said}"
        );
    }
}
