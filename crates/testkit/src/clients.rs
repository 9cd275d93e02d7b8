//! Real DNS clients, from Debian's packages.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::process;

/// What kdig (package `knot-dnsutils`) printed about one answer, or one zone transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kdig {
    /// "NOERROR", "NXDOMAIN" and so on; empty without an answer and after a zone transfer.
    pub status: String,
    /// The header's flags, such as "qr", "aa", "tc".
    pub flags: Vec<String>,
    /// Records of the answer section, or of the whole transfer, one line each.
    pub answers: Vec<String>,
    /// Records of the authority section.
    pub authorities: Vec<String>,
    /// Records of the additional section.
    pub additionals: Vec<String>,
    /// The lines about EDNS.
    pub edns: Vec<String>,
    /// Messages that made up the answer: more than 1 in a long zone transfer, 0 without an answer.
    pub messages: u32,
    /// Everything that was printed.
    pub text: String,
}

impl Kdig {
    /// Asks `server`: `arguments` are kdig's own, for instance
    /// `["www.example.com", "A", "+tcp", "+bufsize=1232"]`. One try of 5 s unless they say
    /// otherwise. No answer is no failure, but a result with an empty status.
    ///
    /// # Panics
    /// kdig is not installed, or runs longer than 60 s.
    #[must_use]
    pub fn ask(server: SocketAddr, arguments: &[&str]) -> Self {
        let mut command = process::bounded_command("/usr/bin/kdig", "knot-dnsutils");
        command
            .arg(format!("@{}", server.ip()))
            .arg("-p")
            .arg(server.port().to_string());
        command.args(["+timeout=5", "+retry=0"]).args(arguments);
        Self::read(&process::output_of_any_end(
            command,
            Duration::from_secs(60),
        ))
    }

    fn read(text: &str) -> Self {
        let mut result = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        // Records without a section's heading are those of a transfer.
        let mut section = "ANSWER";
        for line in text.lines().map(str::trim_end) {
            if let Some(rest) = line.strip_prefix(";; ") {
                if let Some(status) = between(rest, "status: ", ";") {
                    result.status = status.to_owned();
                } else if let Some(flags) = between(rest, "Flags: ", ";") {
                    result.flags = flags.split_whitespace().map(str::to_owned).collect();
                } else if let Some(name) = rest.strip_suffix(" SECTION:") {
                    section = name;
                } else if rest.starts_with("EDNS PSEUDOSECTION") {
                    section = "EDNS";
                } else if rest.starts_with("Received ") {
                    result.messages = between(rest, "(", " messages")
                        .map_or(1, |count| count.parse().unwrap_or(1));
                } else if section == "EDNS" {
                    result.edns.push(rest.to_owned());
                }
            } else if !line.is_empty() && !line.starts_with(';') {
                let records = match section {
                    "ANSWER" => &mut result.answers,
                    "AUTHORITY" => &mut result.authorities,
                    "ADDITIONAL" => &mut result.additionals,
                    _ => continue,
                };
                records.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        result
    }
}

/// A run of dnsperf (package `dnsperf`).
#[derive(Clone, Debug)]
pub struct Dnsperf {
    server: SocketAddr,
    seconds: u32,
    arguments: Vec<String>,
}

/// What dnsperf measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DnsperfReport {
    /// Queries sent.
    pub sent: u64,
    /// Queries that were answered.
    pub completed: u64,
    /// Queries that were not answered within 5 s, or what `-t` says.
    pub lost: u64,
    /// Answers by the name of their rcode.
    pub rcodes: BTreeMap<String, u64>,
    /// Answers a second.
    pub queries_per_second: f64,
    /// Mean latency.
    pub latency: Duration,
    /// Longest latency.
    pub max_latency: Duration,
    /// What was printed, but for a line about each query that was not answered.
    pub text: String,
}

impl Dnsperf {
    /// A run against `server` of one second, as fast as the server answers.
    #[must_use]
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            seconds: 1,
            arguments: Vec::new(),
        }
    }

    /// Runs for so long.
    #[must_use]
    pub fn seconds(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    /// Further arguments, for instance `["-Q", "1000", "-m", "tcp"]`.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Asks `questions`, (name, type) pairs, over and over.
    ///
    /// # Panics
    /// dnsperf is not installed, fails, or takes 30 s more than it was given.
    #[must_use]
    pub fn run(&self, questions: &[(&str, &str)]) -> DnsperfReport {
        let mut lines = String::new();
        for (name, rtype) in questions {
            let _ = writeln!(lines, "{name} {rtype}");
        }
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(lines.as_bytes()).expect("the file is ours");
        let mut command = process::bounded_command("/usr/bin/dnsperf", "dnsperf");
        command
            .args([
                "-s",
                &self.server.ip().to_string(),
                "-p",
                &self.server.port().to_string(),
            ])
            .args(["-l", &self.seconds.to_string(), "-d"])
            .arg(file.path())
            .args(&self.arguments);
        let limit = Duration::from_secs(u64::from(self.seconds) + 30);
        DnsperfReport::read(&process::output(command, limit))
    }
}

impl DnsperfReport {
    fn read(text: &str) -> Self {
        let mut report = Self {
            text: text
                .lines()
                .filter(|line| !line.starts_with("[Timeout]"))
                .fold(String::new(), |shown, line| shown + line + "\n"),
            ..Self::default()
        };
        for line in text.lines() {
            let Some((what, value)) = line.trim().split_once(':') else {
                continue;
            };
            let value = value.trim();
            let first = value.split_whitespace().next().unwrap_or_default();
            match what {
                "Queries sent" => report.sent = first.parse().unwrap_or_default(),
                "Queries completed" => report.completed = first.parse().unwrap_or_default(),
                "Queries lost" => report.lost = first.parse().unwrap_or_default(),
                "Queries per second" => {
                    report.queries_per_second = first.parse().unwrap_or_default()
                }
                "Average Latency (s)" => {
                    report.latency = seconds(first);
                    report.max_latency =
                        between(value, "max ", ")").map_or(Duration::ZERO, seconds);
                }
                "Response codes" => {
                    for part in value.split(", ") {
                        if let Some((name, count)) = part.split_once(' ') {
                            let count = count.split_whitespace().next().unwrap_or_default();
                            report
                                .rcodes
                                .insert(name.to_owned(), count.parse().unwrap_or_default());
                        }
                    }
                }
                _ => {}
            }
        }
        report
    }
}

fn seconds(text: &str) -> Duration {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or_default()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    Some(rest.split_once(after).map_or(rest, |(inside, _)| inside))
}
