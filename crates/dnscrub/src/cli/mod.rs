//! The command line.
//!
//! Commands return what is to be printed, for people or as JSON; only [`main`] prints, and only it
//! decides the exit code: 0 done, 1 failed, 2 wrong usage or a wrong configuration, 3 the running
//! program cannot be reached.

mod arguments;
mod blocklist;
mod check;
mod explain;
mod incidents;
mod level;
mod notify;
mod output;
mod postmortem;
mod reference;
mod replay;
mod routes;
mod top;
mod views;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use axum::http::Method;
use clap::{CommandFactory as _, Parser as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::arguments::{Ask, Cli, Command};
use self::output::{Paint, Style};
use crate::config::Problems;
use crate::control::api::{ExplainQuery, Failure};
use crate::control::client::{Client, ClientError};
use crate::demo;
use crate::legible::visible_lines;
use crate::program::{self, StartError};

/// A command's bad end.
#[derive(Debug)]
struct Exit {
    /// The exit code.
    code: u8,
    /// For standard error.
    message: String,
    /// For standard output: the answer that says so, when JSON was asked for.
    printed: String,
}

impl Exit {
    fn failed(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
            printed: String::new(),
        }
    }

    fn configuration(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            ..Self::failed(message)
        }
    }

    /// What is told, behind "error: ". It may quote files and what a server says: what a terminal would obey is escaped.
    fn in_words(&self) -> String {
        let message = self.message.trim_end();
        visible_lines(message.strip_prefix("error: ").unwrap_or(message))
    }
}

impl From<Problems> for Exit {
    fn from(problems: Problems) -> Self {
        Self::configuration(problems.to_string())
    }
}

impl From<Failure> for Exit {
    /// Something on the command line that is not understood.
    fn from(failure: Failure) -> Self {
        Self::configuration(match failure.hint {
            Some(hint) => format!("{}\nhelp: {hint}", failure.error),
            None => failure.error,
        })
    }
}

impl From<ClientError> for Exit {
    fn from(failure: ClientError) -> Self {
        let code = if failure.is_unreachable() { 3 } else { 1 };
        Self {
            code,
            ..Self::failed(failure.to_string())
        }
    }
}

impl From<StartError> for Exit {
    fn from(failure: StartError) -> Self {
        match failure {
            StartError::Configuration(problems) => problems.into(),
            StartError::System(text) => Self::failed(text),
        }
    }
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    // wrong usage ends here, with code 2; --help and --version with 0
    let cli = Cli::parse();
    match execute(cli.command, Style::of_stdout()) {
        Ok(text) => match output::print(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(exit) => {
            let _ = output::print(&exit.printed);
            if !exit.message.is_empty() {
                let head = Style::of_stderr().paint(Paint::Bad, "error:");
                let _ = writeln!(std::io::stderr(), "{head} {}", exit.in_words());
            }
            ExitCode::from(exit.code)
        }
    }
}

fn execute(command: Command, style: Style) -> Result<String, Exit> {
    let now = SystemTime::now();
    match command {
        Command::Run { config } => program::run(&config)
            .map(|()| String::new())
            .map_err(Exit::from),
        Command::Check { file, format } => check::run(&file, format.json, style),
        Command::Reload { ask } => {
            Asker::new(&ask)
                .show(Method::POST, "/v1/reload", Vec::new(), |report| {
                    views::reloaded(&report, style)
                })
                .map_err(|exit| {
                    // the running program judged a configuration: a wrong one is code 2, here as in `check`
                    if exit.code == 1 {
                        Exit { code: 2, ..exit }
                    } else {
                        exit
                    }
                })
        }
        Command::Status { ask } => {
            Asker::new(&ask).show(Method::GET, "/v1/status", Vec::new(), |status| {
                views::status(&status, style, now)
            })
        }
        Command::Blocklist(command) => blocklist::run(command, style),
        Command::Upstreams { ask } => Asker::new(&ask).show(
            Method::GET,
            "/v1/upstreams",
            Vec::new(),
            |upstreams: Vec<_>| views::upstreams(&upstreams, style),
        ),
        Command::Zones { ask } => {
            Asker::new(&ask).show(Method::GET, "/v1/zones", Vec::new(), |zones: Vec<_>| {
                views::zones(&zones, style)
            })
        }
        Command::Levels { ask } => {
            Asker::new(&ask).show(Method::GET, "/v1/levels", Vec::new(), |levels: Vec<_>| {
                views::levels(&levels, style, now)
            })
        }
        Command::Level { command, ask } => level::run(command, &ask, style),
        Command::Incidents(command) => incidents::run(command, style),
        Command::Routes(command) => routes::run(command, style),
        Command::Signals { ask } => {
            Asker::new(&ask).show(Method::GET, "/v1/signals", Vec::new(), |signals| {
                views::signals(&signals, style)
            })
        }
        Command::Rules { ask } => {
            Asker::new(&ask).show(Method::GET, "/v1/rules", Vec::new(), |rules: Vec<_>| {
                views::rules(&rules, style)
            })
        }
        Command::Top { plain, socket } => top::run(socket, plain, style),
        Command::Explain { query, config, ask } => {
            let query = ExplainQuery::from(*query);
            let asker = Asker::new(&ask);
            let view = |explained| explain::view(&explained, style);
            match config {
                Some(config) => asker.render(explain::offline(&config, &query)?, view),
                None => asker.show(
                    Method::POST,
                    "/v1/explain",
                    json_text(&query)?.into_bytes(),
                    view,
                ),
            }
        }
        Command::Notify(command) => notify::run(command, style, now),
        Command::Replay(options) => replay::run(&options, style),
        Command::Demo {
            seconds,
            plain,
            attack_rate,
            polite_rate,
        } => {
            let options = demo::Options {
                seconds,
                plain,
                attack_rate,
                polite_rate,
            };
            demo::run(options)
                .map(|()| String::new())
                .map_err(|failure| Exit::failed(failure.to_string()))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dnscrub", &mut script);
            Ok(String::from_utf8_lossy(&script).into_owned())
        }
        Command::Man => manual(),
        Command::Reference { write } => reference::run(write.as_deref()),
    }
}

/// One manual page for all commands.
fn manual() -> Result<String, Exit> {
    let failed = |failure: std::io::Error| Exit::failed(failure.to_string());
    let mut root = Cli::command();
    root.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(root.clone())
        .render(&mut page)
        .map_err(failed)?;
    let mut waiting: Vec<clap::Command> = shown_children(&root);
    while let Some(command) = waiting.pop() {
        let children = shown_children(&command);
        if children.is_empty() {
            let name = command
                .get_bin_name()
                .unwrap_or_else(|| command.get_name())
                .to_uppercase();
            page.extend_from_slice(format!(".SH {name}\n").as_bytes());
            let man = clap_mangen::Man::new(command);
            man.render_description_section(&mut page).map_err(failed)?;
            man.render_synopsis_section(&mut page).map_err(failed)?;
            man.render_options_section(&mut page).map_err(failed)?;
        }
        waiting.extend(children);
    }
    // a command's parts are below its own heading
    let text = String::from_utf8_lossy(&page).into_owned();
    let (head, commands) = text
        .find(".SH DNSCRUB ")
        .map_or((text.as_str(), ""), |at| text.split_at(at));
    let commands = commands
        .replace(".SH DESCRIPTION", ".SS Description")
        .replace(".SH SYNOPSIS", ".SS Synopsis")
        .replace(".SH OPTIONS", ".SS Options");
    Ok(format!("{head}{commands}"))
}

/// The visible commands below this one, last first.
fn shown_children(command: &clap::Command) -> Vec<clap::Command> {
    let shown = command
        .get_subcommands()
        .filter(|it| !it.is_hide_set() && it.get_name() != "help");
    let mut children: Vec<_> = shown.cloned().collect();
    children.reverse();
    children
}

/// Asks the running program and shows its answers.
struct Asker {
    client: Client,
    json: bool,
}

impl Asker {
    fn new(ask: &Ask) -> Self {
        Self {
            client: Client::new(ask.socket.clone()),
            json: ask.format.json,
        }
    }

    /// For an answer that is not shown as it is.
    fn of(socket: &Path) -> Self {
        Self {
            client: Client::new(socket.to_owned()),
            json: false,
        }
    }

    /// The answer as it is printed: JSON if that was asked for, or else what `view` makes of it.
    fn show<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        view: impl FnOnce(T) -> String,
    ) -> Result<String, Exit> {
        let answer: Value = self.wait(self.client.json(method, path, body))?;
        self.render(answer, view)
    }

    fn render<T: DeserializeOwned>(
        &self,
        answer: Value,
        view: impl FnOnce(T) -> String,
    ) -> Result<String, Exit> {
        if self.json {
            return json_text(&answer);
        }
        serde_json::from_value(answer)
            .map(view)
            .map_err(|failure| Exit::failed(format!("the answer is not understood: {failure}\nhelp: are dnscrub and this command the same version?")))
    }

    fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Exit> {
        self.wait(self.client.json(method, path, body))
    }

    fn text(&self, path: &str) -> Result<String, Exit> {
        self.wait(self.client.text(Method::GET, path, Vec::new()))
    }

    /// With JSON asked for, a refusal is told in JSON as well.
    fn wait<T>(&self, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|failure| Exit::failed(failure.to_string()))?;
        runtime.block_on(answer).map_err(|failure| {
            let printed = match &failure {
                ClientError::Refused(refused) if self.json => {
                    json_text(&refused.failure).unwrap_or_default()
                }
                failure if self.json => json_text(&Failure {
                    hint: failure.hint(),
                    ..Failure::new(failure.to_string())
                })
                .unwrap_or_default(),
                _ => String::new(),
            };
            Exit {
                printed,
                ..failure.into()
            }
        })
    }
}

/// JSON for people's eyes and programs alike.
fn json_text(value: &impl Serialize) -> Result<String, Exit> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|failure| Exit::failed(failure.to_string()))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::server;
    use crate::control::testing::{PLAIN, program};

    /// Runs a command line beside a running program.
    fn run(line: &str) -> Result<String, Exit> {
        execute(
            Cli::try_parse_from(line.split(' ')).unwrap().command,
            Style::default(),
        )
    }

    #[test]
    fn commands_reach_the_running_program() {
        let program = program(PLAIN);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (started, starting) = std::sync::mpsc::channel();
        let supervisor = std::sync::Arc::clone(&program.supervisor);
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let _server = server::start(&supervisor).await.unwrap();
                started.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        starting.recv().unwrap();
        let socket = program
            .supervisor
            .startup
            .control
            .socket
            .display()
            .to_string();
        let ask = |line: &str| run(&format!("dnscrub {line} --socket {socket}"));

        assert_eq!(
            ask("blocklist add 192.0.2.0/24 --for 10m --reason flood").unwrap(),
            "blocked 192.0.2.0/24 for 10m\n"
        );
        let shown = ask("blocklist show 192.0.2.9").unwrap();
        assert!(
            shown.starts_with("192.0.2.9 is blocked\n") && shown.contains("in 9m 59s")
                || shown.contains("in 10m"),
            "{shown}"
        );
        assert!(ask("blocklist list").unwrap().contains("192.0.2.0/24"));
        assert_eq!(ask("blocklist export").unwrap(), "192.0.2.0/24 # flood\n");
        let exported: Value =
            serde_json::from_str(&ask("blocklist export --json").unwrap()).unwrap();
        assert_eq!(exported["entries"][0]["origin"], "cli");
        let list = program.folder.path().join("more.txt");
        std::fs::write(&list, "198.51.100.0/24 from a file\n").unwrap();
        assert_eq!(
            ask(&format!("blocklist import {}", list.display())).unwrap(),
            "1 entry added, 0 changed\n"
        );
        assert_eq!(
            ask("blocklist remove 192.0.2.0/24").unwrap(),
            "removed 192.0.2.0/24 (cli, 0 hits)\n"
        );
        assert!(
            ask("blocklist stats")
                .unwrap()
                .starts_with("dynamic entries  1 of ")
        );
        assert!(
            ask("status")
                .unwrap()
                .contains("upstreams      1 of 1 usable")
        );
        assert!(ask("rules").unwrap().contains("no-any"));
        let levels = ask("levels").unwrap();
        assert!(
            levels.starts_with("SCOPE") && levels.contains("whole  calm"),
            "{levels}"
        );
        let signals = ask("signals").unwrap();
        assert!(
            signals.contains("suffix-flood") && signals.contains("\nBAND"),
            "{signals}"
        );
        let signals: Value = serde_json::from_str(&ask("signals --json").unwrap()).unwrap();
        assert_eq!(signals["signals"][0]["name"], "rate");
        assert!(ask("routes list").unwrap().starts_with("mode     off"));
        let refused = ask("routes approve 7").unwrap_err();
        assert!(
            refused.message.contains("there is no route 7"),
            "{}",
            refused.message
        );
        assert!(ask("upstreams").unwrap().contains("127.0.0.1:5301"));
        assert!(ask("zones").unwrap().contains("no zones"));
        let config = &program.supervisor.config_path;
        let plain = std::fs::read_to_string(config).unwrap();
        std::fs::write(
            config,
            format!("{plain}zones: [ {{ name: example.org }} ]\n"),
        )
        .unwrap();
        assert!(ask("reload").unwrap().ends_with("is in force\n"));
        let zones = ask("zones").unwrap();
        assert!(
            zones.contains("example.org") && zones.contains("learned"),
            "{zones}"
        );

        let exit = ask("blocklist remove 192.0.2.0/24").unwrap_err();
        assert_eq!(
            (exit.code, exit.message.as_str()),
            (1, "there is no entry for 192.0.2.0/24")
        );
        let exit = ask("blocklist remove 192.0.2.0/24 --json").unwrap_err();
        assert_eq!(
            serde_json::from_str::<Value>(&exit.printed).unwrap()["error"],
            "there is no entry for 192.0.2.0/24"
        );
        std::fs::write(&program.supervisor.config_path, "nonsense: true\n").unwrap();
        assert_eq!(ask("reload").unwrap_err().code, 2);
        drop(stop);
        serving.join().unwrap();
        let exit = ask("status").unwrap_err();
        assert_eq!(exit.code, 3);
        assert!(
            exit.message.contains(&socket) && exit.message.contains("help: is dnscrub running?"),
            "{}",
            exit.message
        );
    }

    #[test]
    fn an_error_does_nothing_to_the_terminal() {
        let exit = Exit::failed("error: found \"\u{1b}]0;title\u{7}\"\nhelp: look\n");
        assert_eq!(
            exit.in_words(),
            "found \"\\u{1b}]0;title\\u{7}\"\nhelp: look"
        );
    }

    #[test]
    fn completions_and_the_manual_page_are_made() {
        assert!(
            run("dnscrub completions bash")
                .unwrap()
                .contains("_dnscrub()")
        );
        let page = run("dnscrub man").unwrap();
        assert!(
            page.contains(".TH dnscrub 1") && page.contains(".SH DNSCRUB BLOCKLIST ADD"),
            "{page}"
        );
    }

    #[test]
    fn a_wrong_configuration_is_code_2() {
        assert_eq!(
            run("dnscrub run --config /nonexistent.yaml")
                .unwrap_err()
                .code,
            2
        );
        assert_eq!(run("dnscrub check /nonexistent.yaml").unwrap_err().code, 2);
    }
}
