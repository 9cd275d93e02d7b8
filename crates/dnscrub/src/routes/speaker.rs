//! `dnscrub routes exabgp`: what ExaBGP starts as its process. It connects to the running program and
//! has ExaBGP announce exactly what that wants, line by line.
//!
//! It fails towards withdrawing. When the program is gone, or has said nothing for [`SILENCE`], everything is
//! withdrawn. When this process dies, ExaBGP starts it anew, and it begins by withdrawing whatever an
//! earlier one left.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::route::Order;

/// How long the program may say nothing, in seconds. It repeats itself every two seconds.
pub const SILENCE: f64 = 10.0;
/// How long ExaBGP may take to say that it has done something, in seconds. After that nobody knows what
/// it announces, and this process ends, to begin anew.
const PATIENCE: f64 = 15.0;
/// Until a route that ExaBGP refused is tried again, in seconds.
const AGAIN: f64 = 10.0;
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);
/// BGP sessions that are told of.
const MOST_SESSIONS: usize = 32;

/// What the program wants announced: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The routes.
    pub routes: Vec<Order>,
}

/// What has become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Names of the routes that ExaBGP has taken.
    pub announced: Vec<String>,
    /// Names of those that it has not, and why.
    pub failed: BTreeMap<String, String>,
    /// BGP sessions by the other end, and their states; empty unless ExaBGP tells of them.
    pub sessions: BTreeMap<String, String>,
}

/// Decides what ExaBGP is told. Instants are in seconds.
#[derive(Debug)]
pub struct Speaker {
    wanted: BTreeMap<String, String>,
    /// What ExaBGP has, by its name.
    announced: BTreeMap<String, String>,
    failed: BTreeMap<String, (String, f64)>,
    sessions: BTreeMap<String, String>,
    heard: Option<f64>,
    /// What ExaBGP was told and has not confirmed.
    pending: Option<(Step, f64)>,
    queue: VecDeque<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Clear,
    Announce(Order),
    Withdraw(String),
}

impl Default for Speaker {
    fn default() -> Self {
        Self {
            wanted: BTreeMap::new(),
            announced: BTreeMap::new(),
            failed: BTreeMap::new(),
            sessions: BTreeMap::new(),
            heard: None,
            pending: None,
            // an earlier process may have left routes that nobody knows of any more
            queue: VecDeque::from([Step::Clear]),
        }
    }
}

impl Speaker {
    /// The program says what it wants.
    pub fn hear(&mut self, now: f64, wanted: Wanted) {
        self.heard = Some(now);
        self.wanted = wanted
            .routes
            .into_iter()
            .map(|order| (order.name, order.text))
            .collect();
        let wanted = &self.wanted;
        self.failed.retain(|name, _| wanted.contains_key(name));
    }

    /// The program is gone.
    pub fn lose(&mut self) {
        self.heard = None;
        self.wanted.clear();
        self.failed.clear();
    }

    /// ExaBGP says something: that it has done what it was told, or what its sessions do.
    pub fn answer(&mut self, now: f64, line: &str) {
        match line.trim() {
            "done" => {
                if let Some((step, _)) = self.pending.take() {
                    self.settle(step);
                }
            }
            "error" => self.fail(now, "ExaBGP refused it; its log says why"),
            line if line.starts_with('{') => self.session(line),
            _ => {}
        }
    }

    /// The next line for ExaBGP, if there is one now.
    pub fn next(&mut self, now: f64) -> Option<String> {
        if self.heard.is_some_and(|heard| now - heard > SILENCE) {
            self.lose();
        }
        if self.pending.is_some() {
            return None;
        }
        let step = self.queue.pop_front().or_else(|| self.difference(now))?;
        let line = match &step {
            Step::Clear => "clear adj-rib out".to_owned(),
            Step::Announce(order) => format!("announce {}", order.text),
            Step::Withdraw(name) => format!("withdraw {name}"),
        };
        self.pending = Some((step, now));
        Some(line)
    }

    /// Whether ExaBGP has not said for too long that it is done.
    #[must_use]
    pub fn is_overdue(&self, now: f64) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|(_, since)| now - since > PATIENCE)
    }

    /// How things are.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            announced: self.announced.keys().cloned().collect(),
            failed: self
                .failed
                .iter()
                .map(|(name, (why, _))| (name.clone(), why.clone()))
                .collect(),
            sessions: self.sessions.clone(),
        }
    }

    /// The first difference between what is wanted and what is announced. Withdrawals come first.
    fn difference(&self, now: f64) -> Option<Step> {
        let gone = self
            .announced
            .keys()
            .find(|name| !self.wanted.contains_key(*name));
        if let Some(name) = gone {
            return Some(Step::Withdraw(name.clone()));
        }
        let (name, text) = self.wanted.iter().find(|(name, text)| {
            let failed = self.failed.get(*name);
            self.announced.get(*name) != Some(text)
                && failed.is_none_or(|(_, since)| now - since >= AGAIN)
        })?;
        Some(Step::Announce(Order {
            name: name.clone(),
            text: text.clone(),
        }))
    }

    fn settle(&mut self, step: Step) {
        match step {
            Step::Clear => {}
            Step::Announce(order) => {
                self.failed.remove(&order.name);
                self.announced.insert(order.name, order.text);
            }
            Step::Withdraw(name) => {
                self.announced.remove(&name);
            }
        }
    }

    fn fail(&mut self, now: f64, why: &str) {
        match self.pending.take() {
            Some((Step::Announce(order), _)) => {
                self.failed.insert(order.name, (why.to_owned(), now));
            }
            // whatever ExaBGP has, it goes, and what is wanted comes back
            Some((Step::Withdraw(name), _)) => {
                self.queue.push_back(Step::Clear);
                self.announced.clear();
                self.failed.remove(&name);
            }
            Some((Step::Clear, _)) | None => {}
        }
    }

    fn session(&mut self, line: &str) {
        let Ok(told) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let neighbor = &told["neighbor"];
        let (peer, state) = (&neighbor["address"]["peer"], &neighbor["state"]);
        if let (Some(peer), Some(state)) = (peer.as_str(), state.as_str())
            && (self.sessions.len() < MOST_SESSIONS || self.sessions.contains_key(peer))
        {
            self.sessions.insert(peer.to_owned(), state.to_owned());
        }
    }
}

enum Heard {
    Wanted(Wanted),
    Lost,
    Exabgp(String),
    ExabgpGone,
}

/// Speaks between the program at this socket and the ExaBGP that started this process, until
/// ExaBGP is gone.
///
/// # Errors
/// ExaBGP no longer takes lines, or no longer says that it has done what they say.
pub fn run(socket: &Path) -> io::Result<()> {
    let (sender, receiver) = channel();
    let from_exabgp = sender.clone();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if from_exabgp.send(Heard::Exabgp(line)).is_err() {
                return;
            }
        }
        let _ = from_exabgp.send(Heard::ExabgpGone);
    });
    let report = Arc::new(Mutex::new(Report::default()));
    let (socket, to_program) = (socket.to_owned(), Arc::clone(&report));
    std::thread::spawn(move || connections(&socket, &sender, &to_program));
    speak(&receiver, &report, &mut io::stdout().lock())
}

fn speak(
    heard: &Receiver<Heard>,
    report: &Mutex<Report>,
    exabgp: &mut impl io::Write,
) -> io::Result<()> {
    let start = Instant::now();
    let mut speaker = Speaker::default();
    loop {
        let first = heard.recv_timeout(TICK);
        let now = start.elapsed().as_secs_f64();
        match first {
            Ok(Heard::Wanted(wanted)) => speaker.hear(now, wanted),
            Ok(Heard::Lost) => speaker.lose(),
            Ok(Heard::Exabgp(line)) => speaker.answer(now, &line),
            Ok(Heard::ExabgpGone) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(line) = speaker.next(now) {
            writeln!(exabgp, "{line}")?;
            exabgp.flush()?;
        }
        if speaker.is_overdue(now) {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "ExaBGP does not say that it is done: is `exabgp.api.ack` false?",
            ));
        }
        *report.lock().unwrap_or_else(PoisonError::into_inner) = speaker.report();
    }
}

/// Connects to the program, again and again.
fn connections(socket: &Path, heard: &Sender<Heard>, report: &Mutex<Report>) {
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            let _ = converse(&stream, heard, report);
            if heard.send(Heard::Lost).is_err() {
                return;
            }
        }
        std::thread::sleep(RECONNECT);
    }
}

/// Until the connection ends: takes what is wanted, and reports what has changed.
fn converse(stream: &UnixStream, heard: &Sender<Heard>, report: &Mutex<Report>) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let reading = stream.try_clone()?;
    let heard = heard.clone();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(reading).lines() {
            let Ok(line) = line else { return };
            // a program of another version may say more, but not something else
            let Ok(wanted) = serde_json::from_str(&line) else {
                return;
            };
            if heard.send(Heard::Wanted(wanted)).is_err() {
                return;
            }
        }
    });
    let mut last = None;
    let mut writing = stream;
    while !reader.is_finished() {
        std::thread::sleep(TICK);
        let report = report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if last.as_ref() == Some(&report) {
            continue;
        }
        let mut line = serde_json::to_vec(&report)?;
        line.push(b'\n');
        if writing.write_all(&line).is_err() {
            break;
        }
        last = Some(report);
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = reader.join();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(routes: &[(&str, &str)]) -> Wanted {
        let routes = routes.iter().map(|(name, rest)| Order {
            name: (*name).to_owned(),
            text: format!("{name}{rest}"),
        });
        Wanted {
            routes: routes.collect(),
        }
    }

    /// A speaker that has said what it says first.
    fn speaker() -> Speaker {
        let mut speaker = Speaker::default();
        assert_eq!(speaker.next(0.0).as_deref(), Some("clear adj-rib out"));
        speaker.answer(0.0, "done");
        speaker
    }

    /// All lines, each confirmed at once.
    fn said(speaker: &mut Speaker, now: f64) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = speaker.next(now) {
            lines.push(line);
            speaker.answer(now, "done");
        }
        lines
    }

    #[test]
    fn what_is_wanted_is_announced_and_what_is_not_is_withdrawn() {
        let mut speaker = speaker();
        assert_eq!(speaker.next(0.0), None);
        speaker.hear(0.0, wanted(&[("route a", " x"), ("route b", " x")]));
        assert_eq!(speaker.next(0.0).as_deref(), Some("announce route a x"));
        assert_eq!(speaker.next(0.1), None, "one at a time");
        assert_eq!(speaker.report().announced, [""; 0]);
        speaker.answer(0.1, "done");
        assert_eq!(speaker.report().announced, ["route a"]);
        assert_eq!(said(&mut speaker, 0.2), ["announce route b x"]);
        // other attributes take the place of the old ones: there is no moment without the route
        speaker.hear(1.0, wanted(&[("route b", " y")]));
        assert_eq!(
            said(&mut speaker, 1.0),
            ["withdraw route a", "announce route b y"]
        );
        assert_eq!(speaker.report().announced, ["route b"]);
    }

    #[test]
    fn a_program_that_is_gone_or_silent_leaves_nothing() {
        let mut speaker = speaker();
        speaker.hear(0.0, wanted(&[("route a", "")]));
        assert_eq!(said(&mut speaker, 0.0), ["announce route a"]);
        speaker.lose();
        assert_eq!(said(&mut speaker, 0.1), ["withdraw route a"]);
        speaker.hear(1.0, wanted(&[("route a", "")]));
        assert_eq!(said(&mut speaker, 1.0), ["announce route a"]);
        assert_eq!(said(&mut speaker, 1.0 + SILENCE), [""; 0]);
        assert_eq!(said(&mut speaker, 1.1 + SILENCE), ["withdraw route a"]);
        assert_eq!(speaker.report(), Report::default());
    }

    #[test]
    fn a_refused_route_is_told_and_tried_again_later() {
        let mut speaker = speaker();
        speaker.hear(0.0, wanted(&[("route a", ""), ("route b", "")]));
        assert!(speaker.next(0.0).is_some());
        speaker.answer(0.0, "error");
        assert_eq!(said(&mut speaker, 0.0), ["announce route b"]);
        let report = speaker.report();
        assert_eq!(report.announced, ["route b"]);
        assert!(report.failed["route a"].contains("refused"));
        speaker.hear(9.0, wanted(&[("route a", ""), ("route b", "")]));
        assert_eq!(said(&mut speaker, 9.0), [""; 0]);
        assert_eq!(said(&mut speaker, 10.0), ["announce route a"]);
        assert!(speaker.report().failed.is_empty());
    }

    #[test]
    fn a_withdrawal_that_fails_becomes_a_clean_slate() {
        let mut speaker = speaker();
        speaker.hear(0.0, wanted(&[("route a", ""), ("route b", "")]));
        said(&mut speaker, 0.0);
        speaker.hear(1.0, wanted(&[("route b", "")]));
        assert_eq!(speaker.next(1.0).as_deref(), Some("withdraw route a"));
        speaker.answer(1.0, "error");
        assert_eq!(
            said(&mut speaker, 1.0),
            ["clear adj-rib out", "announce route b"]
        );
    }

    #[test]
    fn an_exabgp_that_says_nothing_is_given_up() {
        let mut speaker = speaker();
        speaker.hear(0.0, wanted(&[("route a", "")]));
        assert!(speaker.next(0.0).is_some() && !speaker.is_overdue(PATIENCE));
        assert!(speaker.is_overdue(PATIENCE + 0.1));
        speaker.answer(1.0, "done");
        assert!(!speaker.is_overdue(PATIENCE + 0.1));
    }

    #[test]
    fn sessions_are_taken_from_exabgps_messages() {
        let mut speaker = speaker();
        let line = |state: &str| {
            format!(
                r#"{{ "exabgp": "4.0.1", "type": "state", "neighbor": {{ "address": {{ "local": "192.0.2.1", "peer": "192.0.2.2" }}, "state": "{state}" }} }}"#
            )
        };
        speaker.answer(0.0, &line("up"));
        speaker.answer(0.0, "{ nonsense");
        assert_eq!(speaker.report().sessions["192.0.2.2"], "up");
        speaker.answer(0.0, &line("down"));
        assert_eq!(speaker.report().sessions["192.0.2.2"], "down");
    }
}
