//! The command line, as it is given. The doc comments are the help, the manual page and
//! `docs/reference/cli.md`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::control::api::{ExplainQuery, ListQuery};

/// Where the program's socket is unless told otherwise.
pub(super) const SOCKET: &str = "/run/dnscrub/control.sock";
/// Where the socket for ExaBGP's process is unless told otherwise.
pub(super) const ROUTES_SOCKET: &str = "/run/dnscrub-routes/exabgp.sock";
/// Where the configuration is unless told otherwise.
pub(super) const CONFIG: &str = "/etc/dnscrub/dnscrub.yaml";

/// Inline DNS scrubbing proxy: stands in front of authoritative name servers, scores every query,
/// sheds the malicious ones and forwards the rest to a health-checked pool.
#[derive(Debug, Parser)]
#[command(name = "dnscrub", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

pub(super) const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage or a wrong configuration, 3 the running program cannot be reached.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the proxy until SIGTERM or SIGINT. SIGHUP reloads the configuration.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
    },
    /// Say what a configuration means, or what is wrong with it.
    Check {
        /// The configuration file.
        #[arg(value_name = "FILE", default_value = CONFIG)]
        file: PathBuf,
        #[command(flatten)]
        format: Format,
    },
    /// Have the running program read its configuration again. A wrong one leaves the old one in force.
    Reload {
        #[command(flatten)]
        ask: Ask,
    },
    /// Say how the running program is.
    Status {
        #[command(flatten)]
        ask: Ask,
    },
    /// Show and change who is blocked.
    #[command(subcommand)]
    Blocklist(Blocklist),
    /// Show the pools' upstreams: state, load, latency.
    Upstreams {
        #[command(flatten)]
        ask: Ask,
    },
    /// Show the zones: what is known of their names, and how good that knowledge is.
    Zones {
        #[command(flatten)]
        ask: Ask,
    },
    /// Show the defence levels of the whole and of the zones: calm, alert or attack, since when and why.
    Levels {
        #[command(flatten)]
        ask: Ask,
    },
    /// Show, set and release levels by hand, whatever the signals see.
    #[command(args_conflicts_with_subcommands = true)]
    Level {
        #[command(subcommand)]
        command: Option<Level>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Show what went wrong, or does: attacks, and what was done about them.
    #[command(subcommand)]
    Incidents(Incidents),
    /// Show and change what is announced to the routers in front.
    #[command(subcommand)]
    Routes(Routes),
    /// Show the signals and bands: their mode, how often each had a say, what observe mode held back.
    Signals {
        #[command(flatten)]
        ask: Ask,
    },
    /// Show the rules, and how often each matched and decided.
    Rules {
        #[command(flatten)]
        ask: Ask,
    },
    /// Show the last ten minutes and seconds live: rates, upstreams, the busiest zones, names and sources, incidents.
    Top {
        /// One snapshot instead of the live view; so it is also without a terminal.
        #[arg(long)]
        plain: bool,
        /// The running program's control socket.
        #[arg(long, value_name = "PATH", default_value = SOCKET)]
        socket: PathBuf,
    },
    /// Say what would happen to a query and why: signal by signal, rule by rule.
    Explain {
        #[command(flatten)]
        query: Box<Query>,
        /// Ask this configuration instead of a running program. Nothing is known of the source then.
        #[arg(long, value_name = "FILE", conflicts_with = "socket")]
        config: Option<PathBuf>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Show who is told of incidents, and try it.
    #[command(subcommand)]
    Notify(Notify),
    /// Put a recorded trace through the rules, on the trace's own clock and faster than it.
    Replay(Replay),
    /// Show the proxy at work: two name servers, a polite client and an attack, all on this machine.
    Demo {
        /// How long it takes, in seconds.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
        seconds: u64,
        /// A line a second instead of the live view.
        #[arg(long)]
        plain: bool,
        /// The attack's queries per second.
        #[arg(long, value_name = "RATE", default_value_t = 8_000, value_parser = clap::value_parser!(u32).range(..=100_000))]
        attack_rate: u32,
        /// The polite client's queries per second.
        #[arg(long, value_name = "RATE", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=4_000))]
        polite_rate: u32,
    },
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
    /// Print the reference manual, which is made from the program itself.
    #[command(hide = true)]
    Reference {
        /// Write its pages into this folder instead.
        #[arg(long, value_name = "FOLDER")]
        write: Option<PathBuf>,
    },
}

/// Which incident to write down, and how.
#[derive(Clone, Debug, Args)]
pub(super) struct Export {
    /// The incident's number.
    #[arg(value_name = "NUMBER", required_unless_present = "file")]
    pub(super) number: Option<u64>,
    /// As what.
    #[arg(long, value_enum, default_value_t = ExportFormat::Markdown)]
    pub(super) format: ExportFormat,
    /// Write it into this file instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Take the incident from this file, as `--format json` writes it, instead of asking the running program.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["number", "socket"])]
    pub(super) file: Option<PathBuf>,
    /// The running program's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub(super) socket: PathBuf,
}

/// As what an incident is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportFormat {
    /// Text for a wiki or a ticket.
    Markdown,
    /// One page with its plots, which needs nothing else.
    Html,
    /// The whole record, for programs.
    Json,
}

/// What to replay, and with what.
#[derive(Clone, Debug, Args)]
pub(super) struct Replay {
    /// A capture (pcap or pcapng), or a trace of the quality suite (`trace.ndjson`).
    #[arg(value_name = "FILE", required_unless_present = "suite")]
    pub(super) trace: Option<PathBuf>,
    /// The configuration to put it through.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub(super) config: PathBuf,
    /// Another configuration: says what it would newly stop or let pass.
    #[arg(long, value_name = "FILE")]
    pub(super) against: Option<PathBuf>,
    /// Write the report with its plots as one HTML file, too.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Write the incidents noticed to a file, too, a line of JSON each. Times are seconds since the
    /// first query.
    #[arg(long, value_name = "FILE")]
    pub(super) incidents: Option<PathBuf>,
    /// The server's port in the capture.
    #[arg(long, value_name = "PORT", default_value_t = 53)]
    pub(super) port: u16,
    /// A folder of the quality suite instead: prints a verdict for each query of its
    /// `trace.ndjson`, with the default configuration and the zones in `zones/`.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["trace", "config", "against", "html", "port", "json"])]
    pub(super) suite: Option<PathBuf>,
    /// With --suite: without the zones.
    #[arg(long, requires = "suite", conflicts_with = "trace")]
    pub(super) blind: bool,
    /// Say on standard error how long judging a query took.
    #[arg(long)]
    pub(super) timing: bool,
    #[command(flatten)]
    pub(super) format: Format,
}

/// How the answer is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Format {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Whom to ask, and how the answer is printed.
#[derive(Clone, Debug, Args)]
pub(super) struct Ask {
    /// The running program's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub(super) socket: PathBuf,
    #[command(flatten)]
    pub(super) format: Format,
}

/// A defence level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LevelName {
    /// At least attack.
    Attack,
    /// At least alert.
    Alert,
    /// Calm, whatever alarms and incidents say.
    Calm,
}

#[derive(Debug, Subcommand)]
pub(super) enum Level {
    /// Set the level of a zone, or of the whole. It is on the disk when this returns.
    Set {
        /// `attack` and `alert` are the least it is; `calm` holds alarms down.
        level: LevelName,
        /// The zone; the whole if not given.
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
        /// For how long, such as 30m or 2h; an hour if not given.
        #[arg(long = "for", value_name = "TIME")]
        lifetime: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Let the level follow what is seen again.
    Release {
        /// The zone; the whole if not given.
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Incidents {
    /// List incidents, the newest first.
    List {
        /// Only those that are going on.
        #[arg(long)]
        open: bool,
        /// Only those that were going on since: how long ago, such as 2h or 7d, or a date.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// How many to show.
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        ask: Ask,
    },
    /// Show one: what, since when, where, from whom, what was done, what it cost.
    Show {
        /// Its number; without one, the newest that is going on, or else the newest.
        number: Option<u64>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Add a remark to its time line.
    Note {
        /// Its number.
        number: u64,
        /// The remark.
        text: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Write a post-mortem: time line, impact on legitimate clients, cause, what was done, what is open.
    Export(Export),
    /// Close one by hand, as a false alarm. What was done because of it is undone.
    Close {
        /// Its number.
        number: u64,
        /// A remark on why.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Blocklist {
    /// List entries.
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many to leave out at the beginning.
        #[arg(long, value_name = "COUNT", default_value_t = 0)]
        offset: usize,
        /// How many to show, up to 10,000.
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        ask: Ask,
    },
    /// Say whether an address or prefix is blocked, by which entry, why, since when, until when.
    Show {
        /// The address or prefix.
        #[arg(value_name = "ADDRESS|PREFIX")]
        prefix: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Block a prefix. It is on the disk when this returns.
    Add {
        /// The address or prefix.
        #[arg(value_name = "ADDRESS|PREFIX")]
        prefix: String,
        /// For how long, such as 10m or 2h; for ever if not given.
        #[arg(long = "for", value_name = "TIME")]
        lifetime: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Remove an entry that a rule or an operator added.
    Remove {
        /// Exactly its prefix.
        #[arg(value_name = "ADDRESS|PREFIX")]
        prefix: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Block every prefix in a file: one a line, with a reason after it if there is one.
    Import {
        /// The file; - for standard input.
        file: PathBuf,
        /// For how long, such as 10m or 2h; for ever if not given.
        #[arg(long = "for", value_name = "TIME")]
        lifetime: Option<String>,
        /// Why, for lines without a reason.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Print entries as a list file, which `import` and `blocklist.files` take; with --json as one
    /// JSON object with their origins and times.
    Export {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        ask: Ask,
    },
    /// Show how full it is, its list files, and whether it is saved.
    Stats {
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Notify {
    /// Show the destinations: how many notices wait, when each was last reached, what went wrong.
    Status {
        #[command(flatten)]
        ask: Ask,
    },
    /// Send a test to every destination, or to one, and say what came of it.
    Test {
        /// Only this destination.
        #[arg(value_name = "DESTINATION")]
        destination: Option<String>,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Routes {
    /// List routes: wanted, announced, waiting, refused, and why.
    List {
        #[command(flatten)]
        ask: Ask,
    },
    /// Have a route announced: a rule against a source, or a blackhole of an address of ours. The limits
    /// in the configuration count here, too.
    Announce {
        /// A FlowSpec rule against this source.
        #[arg(
            long,
            value_name = "ADDRESS|PREFIX",
            required_unless_present = "blackhole",
            conflicts_with = "blackhole"
        )]
        source: Option<String>,
        /// Only to this address of ours; to all in `routes.services` if not given.
        #[arg(long, value_name = "ADDRESS", requires = "source")]
        destination: Option<String>,
        /// A blackhole of this address of ours.
        #[arg(long, value_name = "ADDRESS")]
        blackhole: Option<String>,
        /// For how long, such as 10m or 2h; `routes.limits.ttl` if not given.
        #[arg(long = "for", value_name = "TIME")]
        lifetime: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Approve a route that waits, or have one back that was withdrawn by hand.
    Approve {
        /// Its number in the list, or `anycast`.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Withdraw a route. An incident does not bring it back.
    Withdraw {
        /// Its number in the list, or `anycast`.
        #[arg(
            value_name = "ID",
            required_unless_present = "all",
            conflicts_with = "all"
        )]
        id: Option<String>,
        /// Every route but the anycast route.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Speak to ExaBGP, which starts this as its process: announces what the running program wants, and
    /// nothing when that is gone.
    Exabgp {
        /// The running program's socket for it (`routes.socket`).
        #[arg(long, value_name = "PATH", default_value = ROUTES_SOCKET)]
        socket: PathBuf,
    },
}

/// Which entries.
#[derive(Clone, Debug, Args)]
pub(super) struct Filter {
    /// Only of this origin: list, rule, incident, api, cli, or one of these with a name, such as rule:NAME.
    #[arg(long)]
    pub(super) origin: Option<String>,
    /// Only this prefix and those inside it.
    #[arg(long, value_name = "PREFIX")]
    pub(super) within: Option<String>,
    /// Only with this text in the reason.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

impl Filter {
    pub(super) fn query(self, offset: Option<usize>, limit: Option<usize>) -> ListQuery {
        ListQuery {
            origin: self.origin,
            within: self.within,
            reason: self.reason,
            offset,
            limit,
        }
    }
}

/// A query to explain.
#[derive(Clone, Debug, Args)]
pub(super) struct Query {
    /// Who asks.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) source: IpAddr,
    /// For which name.
    #[arg(long, value_name = "NAME")]
    pub(super) qname: String,
    /// For which type.
    #[arg(long, value_name = "TYPE", default_value = "A")]
    pub(super) qtype: String,
    /// Over TCP instead of UDP.
    #[arg(long)]
    pub(super) tcp: bool,
    /// With EDNS.
    #[arg(long)]
    pub(super) edns: bool,
    /// With EDNS and its flag DO (DNSSEC OK).
    #[arg(long = "do")]
    pub(super) dnssec_ok: bool,
    /// With EDNS and this buffer size.
    #[arg(long, value_name = "OCTETS")]
    pub(super) buffer_size: Option<u16>,
    /// Through this listener; the first one if not given.
    #[arg(long, value_name = "NAME")]
    pub(super) listener: Option<String>,
}

impl From<Query> for ExplainQuery {
    fn from(query: Query) -> Self {
        let Query {
            source,
            qname,
            qtype,
            tcp,
            edns,
            dnssec_ok,
            buffer_size,
            listener,
        } = query;
        Self {
            source,
            qname,
            qtype,
            tcp,
            edns,
            dnssec_ok,
            buffer_size,
            listener,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_of_the_manual_are_understood() {
        for line in [
            "dnscrub run --config dnscrub.yaml",
            "dnscrub check dnscrub.yaml --json",
            "dnscrub reload --socket /tmp/x",
            "dnscrub level --json",
            "dnscrub level set attack --zone example.com --for 30m --reason drill",
            "dnscrub level release --socket /tmp/x",
            "dnscrub incidents list --open --since 7d --json",
            "dnscrub incidents show 17",
            "dnscrub incidents show",
            "dnscrub incidents note 17 remark",
            "dnscrub incidents close 17 --note false",
            "dnscrub blocklist list --origin rule:x --within 192.0.2.0/24 --limit 5 --json",
            "dnscrub blocklist add 192.0.2.0/24 --for 10m --reason flood",
            "dnscrub blocklist import -",
            "dnscrub explain --source 192.0.2.7 --qname x.example.com --qtype A --tcp --do --config f.yaml",
            "dnscrub notify status --json",
            "dnscrub notify test chat",
            "dnscrub replay a.pcap --config a.yaml --against b.yaml --html r.html --port 5353 --json",
            "dnscrub replay --suite folder --blind --timing",
            "dnscrub completions bash",
            "dnscrub top --plain --socket /tmp/x",
            "dnscrub incidents export 3 --format html --output r.html",
            "dnscrub incidents export --file incident.json",
        ] {
            Cli::try_parse_from(line.split(' '))
                .unwrap_or_else(|failure| panic!("{line}: {failure}"));
        }
        for line in [
            "dnscrub",
            "dnscrub blocklist add",
            "dnscrub level set",
            "dnscrub level set war",
            "dnscrub incidents",
            "dnscrub incidents show x",
            "dnscrub explain --source x --qname y",
            "dnscrub demo --seconds 1",
            "dnscrub replay",
            "dnscrub replay a.pcap --blind",
            "dnscrub replay --blind",
            "dnscrub replay a.pcap --suite folder",
            "dnscrub incidents export",
            "dnscrub incidents export 3 --file incident.json",
            "dnscrub incidents export 3 --format pdf",
        ] {
            assert_eq!(
                Cli::try_parse_from(line.split(' '))
                    .unwrap_err()
                    .exit_code(),
                2,
                "{line}"
            );
        }
    }
}
