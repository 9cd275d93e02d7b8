//! The demonstration, from start to end, through the program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of these demonstrations may take, on a slow and busy machine.
const LONGEST: Duration = Duration::from_secs(60);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dnscrub"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn demo(seconds: u64) -> Child {
    program()
        .args([
            "demo",
            "--plain",
            "--attack-rate",
            "2000",
            "--polite-rate",
            "100",
        ])
        .args(["--seconds", &seconds.to_string()])
        .spawn()
        .unwrap()
}

/// Waits for the end, but not for ever.
fn finish(mut child: Child) -> Output {
    let patience = Instant::now() + LONGEST;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > patience {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// The number after `label` in `text`.
fn number(text: &str, label: &str) -> u64 {
    let (_, after) = text
        .split_once(label)
        .unwrap_or_else(|| panic!("no {label:?} in\n{text}"));
    let number = after.trim_start().split([' ', '\n']).next().unwrap();
    number
        .replace(',', "")
        .parse()
        .unwrap_or_else(|_| panic!("no number after {label:?} in\n{text}"))
}

/// What stands after `label` on its line.
fn rest<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label:?} in\n{text}"))
        .trim()
}

#[test]
fn the_attack_is_shed_and_the_polite_client_loses_nothing() {
    // the calm at its beginning is long enough to learn what is usual
    let output = finish(demo(15));
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{text}");

    let polite = rest(&text, "polite client");
    let asked = number(polite, "");
    assert!(asked > 200, "{text}");
    assert!(polite.ends_with("answered (100 %), 0 lost"), "{text}");
    assert!(text.contains("did not notice the attack"), "{text}");

    let attack = rest(&text, "attack");
    let (sent, answered) = (number(attack, ""), number(attack, "sent,"));
    assert!(sent > 2_000, "{text}");
    assert!(answered < sent / 2, "{text}");
    for rule in ["any-flood", "any-over-udp", "one-network"] {
        let line = text
            .lines()
            .find(|line| line.trim_end().ends_with(&format!("  {rule}")));
        let line = line.unwrap_or_else(|| panic!("no {rule} in\n{text}"));
        assert!(number(line, "") > 0, "{rule} did nothing:\n{text}");
    }
    assert!(
        text.contains("dropped: The source is on the blocklist"),
        "{text}"
    );
    let denied = "nxdomain: Its zone does not have the name, and the query's score reached a band";
    assert!(text.contains(denied), "{text}");

    let parts = ["forwarded", "answered", "dropped", "expired"];
    let books = text.split_once("\nreceived").unwrap().1;
    let sum: u64 = parts.iter().map(|part| number(books, part)).sum();
    assert_eq!(number(books, ""), sum, "the books do not balance:\n{text}");
    assert!(!books.contains("in flight"), "{text}");

    let configuration = Path::new(rest(&text, "configuration"));
    assert!(
        !configuration.parent().unwrap().exists(),
        "the folder is left behind"
    );
}

#[test]
fn it_can_be_asked_while_it_runs_and_ended_early() {
    let mut child = demo(40);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut opening = String::new();
    for line in lines.by_ref() {
        let line = line.unwrap();
        opening += &line;
        opening.push('\n');
        if line.starts_with("--") {
            break;
        }
    }

    // the commands that it prints, as they are
    let configuration = rest(&opening, "configuration");
    assert!(Path::new(configuration).exists());
    let checked = program().args(["check", configuration]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let printed = |label| {
        let line = rest(&opening, label).to_owned();
        let arguments: Vec<_> = line.split(' ').skip(1).map(str::to_owned).collect();
        let output = program().args(arguments).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    printed("who is blocked");
    let explained = printed("and why");
    assert!(
        explained.contains("the zone does not have this name"),
        "{explained}"
    );

    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let mut closing = String::new();
    for line in lines {
        closing += &line.unwrap();
        closing.push('\n');
    }
    let mut errors = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    let output = finish(child);
    assert!(output.status.success(), "{errors}\n{closing}");
    assert!(
        closing.contains("It ended before the attack began."),
        "{closing}"
    );
    assert!(!Path::new(configuration).parent().unwrap().exists());
}
