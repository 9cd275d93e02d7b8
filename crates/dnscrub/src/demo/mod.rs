//! `dnscrub demo`: the proxy at work on one machine, without root and without anything else.
//!
//! Two embedded name servers, the real proxy with a real configuration in front of them, a polite
//! client, and after some seconds an attack on it; shown live, and summed up at the end. Everything
//! is on loopback, the attack is bounded in rate and time, and nothing is left behind.

mod attack;
mod interrupt;
mod numbers;
mod polite;
mod readings;
mod report;
mod screen;
mod script;
mod stage;
mod zones;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnscrub_detection::{Incident, Kind};

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::program::StartError;
use attack::{Attack, Spoils};
use interrupt::Interrupt;
use polite::{Leg, Polite};
use readings::{History, Totals};
use report::{Facts, Summary};
use screen::{PoliteNow, Screen, View};
use script::{Phase, Script};
use stage::Stage;

/// How the demonstration is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long it takes, in seconds; 5 to 3,600.
    pub seconds: u64,
    /// A line a second instead of the live view, also on a terminal.
    pub plain: bool,
    /// The attack's queries per second; up to 100,000.
    pub attack_rate: u32,
    /// The polite client's queries per second; 10 to 4,000.
    pub polite_rate: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: 30,
            plain: false,
            attack_rate: 8_000,
            polite_rate: 300,
        }
    }
}

/// Why the demonstration failed.
#[derive(Debug)]
pub enum Failure {
    /// The proxy did not start.
    Start(StartError),
    /// The operating system refused something.
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
    /// The polite client lost more than [`TOLERATED_LOSS`] of its queries.
    PoliteClientNoticed {
        /// Lost queries as a share of all, 0 to 1.
        loss: f64,
    },
}

/// The share of the polite client's queries that may get lost, 0 to 1.
pub const TOLERATED_LOSS: f64 = 0.01;

impl Failure {
    fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::System { doing, cause }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(cause) => cause.fmt(f),
            Self::System { doing, cause } => write!(f, "{doing}: {cause}"),
            Self::PoliteClientNoticed { loss } => write!(
                f,
                "the polite client lost {:.2} % of its queries, more than {:.0} %",
                loss * 100.0,
                TOLERATED_LOSS * 100.0
            ),
        }
    }
}

impl std::error::Error for Failure {}

/// How often counters are read and the view is drawn.
const FRAME: Duration = Duration::from_millis(250);
/// Frames between two lines in plain mode.
const FRAMES_A_LINE: u32 = 4;
/// How long queries in flight may take to end after the last one was sent.
const LAST_PATIENCE: Duration = Duration::from_secs(4);

/// Gives the demonstration, until its time is over or SIGINT or SIGTERM ends it.
///
/// # Errors
/// Something could not be started or written, or the polite client noticed the attack.
pub fn run(options: Options) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::system("cannot start the runtime"))?
        .block_on(give(options))
}

async fn give(options: Options) -> Result<(), Failure> {
    let mut interrupt = Interrupt::listen().map_err(Failure::system("cannot wait for signals"))?;
    let stage = Stage::set().await?;
    let facts = Facts::of(&stage);
    let script = Script {
        total: Duration::from_secs(options.seconds.clamp(5, 3600)),
    };
    let live = !options.plain && io::stdout().is_terminal();
    print(&report::opening(&facts, script))?;

    let mut show = Show::open(&stage, script, options)?;
    show.go_on(&facts, live, &mut interrupt).await?;
    let summary = show.end(&stage).await?;
    print(&report::closing(&summary))?;
    stage.clear().await?;
    match summary.polite.loss() {
        loss if loss > TOLERATED_LOSS => Err(Failure::PoliteClientNoticed { loss }),
        _ => Ok(()),
    }
}

/// The part with clients.
struct Show<'a> {
    stage: &'a Stage,
    script: Script,
    start: Instant,
    polite: Polite,
    attack: Attack,
    history: History,
}

impl<'a> Show<'a> {
    fn open(stage: &'a Stage, script: Script, options: Options) -> Result<Self, Failure> {
        let start = Instant::now();
        let polite_rate = options.polite_rate.clamp(10, 4_000);
        let attack_rate = options.attack_rate.min(100_000);
        Ok(Self {
            stage,
            script,
            start,
            polite: Polite::start(stage.address, script, start, polite_rate)
                .map_err(Failure::system("cannot start the polite client"))?,
            attack: Attack::start(stage.address, script, start, attack_rate)
                .map_err(Failure::system("cannot start the attack"))?,
            history: History::default(),
        })
    }

    /// Shows what happens until the time is over or somebody ends it.
    async fn go_on(
        &mut self,
        facts: &Facts,
        live: bool,
        interrupt: &mut Interrupt,
    ) -> Result<(), Failure> {
        let mut screen = live
            .then(|| Screen::open(interrupt))
            .transpose()
            .map_err(Failure::system("cannot use the terminal"))?;
        let mut frame = interval(FRAME);
        frame.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut told = None;
        let mut named: HashMap<u64, Kind> = HashMap::new();
        let mut recent = Leg::default();
        for number in 0.. {
            tokio::select! {
                _ = frame.tick() => {}
                () = interrupt.wait() => return Ok(()),
            }
            let elapsed = self.start.elapsed();
            if elapsed >= self.script.total {
                return Ok(());
            }
            let seen = self.polite.legs(|_| true);
            self.history.add(elapsed, self.totals(), seen.answered);
            // long enough that a percentile means something
            if number % FRAMES_A_LINE == 0 {
                recent = self.polite.take_recent();
            }
            let incidents = self.incidents();
            let view = View {
                incidents: &incidents,
                facts,
                script: self.script,
                elapsed,
                history: &self.history,
                polite: PoliteNow {
                    answered: seen.answered,
                    lost: seen.lost,
                    median: recent.latency(0.5),
                    p99: recent.latency(0.99),
                },
            };
            match &mut screen {
                Some(screen) => screen
                    .draw(&view)
                    .map_err(Failure::system("cannot draw on the terminal"))?,
                None => {
                    let phase = self.script.at(elapsed);
                    if number % FRAMES_A_LINE == 0 && number > 0 {
                        print(&report::line(&view))?;
                    }
                    if told.replace(phase) != Some(phase) {
                        print(&report::heading(phase))?;
                    }
                    for incident in &incidents {
                        if named.insert(incident.number, incident.kind) != Some(incident.kind) {
                            print(&report::named(incident))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What was noticed, the first one first.
    fn incidents(&self) -> Vec<Arc<Incident>> {
        let mut incidents = self.stage.running.supervisor.shared.incidents.all();
        incidents.reverse();
        incidents
    }

    fn totals(&self) -> Totals {
        Totals::read(&self.stage.running.supervisor.shared, Instant::now())
    }

    /// Ends the clients, waits for what is in flight, and sums up.
    async fn end(self, stage: &Stage) -> Result<Summary, Failure> {
        let took = self.start.elapsed().min(self.script.total);
        let incidents = self.incidents();
        let Self {
            mut polite, attack, ..
        } = self;
        // both wait for their threads
        let (polite, spoils): (Polite, Spoils) = tokio::task::spawn_blocking(move || {
            polite.finish();
            let spoils = attack.spoils();
            drop(attack);
            (polite, spoils)
        })
        .await
        .map_err(|failure| Failure::system("cannot end the clients")(failure.into()))?;
        let shared = &stage.running.supervisor.shared;
        let patience = Instant::now() + LAST_PATIENCE;
        let totals = loop {
            let totals = Totals::read(shared, Instant::now());
            if totals.settled() == totals.received || Instant::now() >= patience {
                break totals;
            }
            sleep(Duration::from_millis(20)).await;
        };
        Ok(Summary {
            took,
            totals,
            spoils,
            incidents,
            before: polite.leg(Phase::Before),
            during: polite.legs(Phase::is_attack),
            after: polite.leg(Phase::After),
            polite: polite.legs(|_| true),
        })
    }
}

/// Writes to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::system("cannot write to standard output"))
}
