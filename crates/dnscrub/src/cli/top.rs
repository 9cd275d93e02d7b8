//! `dnscrub top`: what goes on, live in a terminal, or once as text.

mod draw;
mod pane;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use axum::http::Method;
use dnscrub_detection::Point;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::pane::Pane;
use super::Exit;
use super::output::{Paint, Style};
use crate::control::api::{IncidentRow, Status, Upstreams};
use crate::control::client::{Client, ClientError};
use crate::legible::{visible, whole};
use crate::live::Live;
use crate::unix_time::{self, time_of_day};

/// Between two readings.
const EVERY: Duration = Duration::from_secs(1);
/// How often the keyboard's thread looks whether it is still wanted.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Seconds in which known clients are counted.
const MINUTE: f64 = 60.0;

/// One reading of the running program.
#[derive(Clone, Debug)]
struct Reading {
    live: Live,
    status: Status,
    upstreams: Upstreams,
    incidents: Vec<IncidentRow>,
}

/// What is shown.
#[derive(Debug)]
struct View {
    reading: Reading,
    pane: Pane,
    paused: bool,
    /// Since when the program does not answer, and why.
    lost: Option<(SystemTime, String)>,
    now: SystemTime,
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    End,
    Next,
    Previous,
    Pause,
    Redraw,
}

/// Shows it until somebody ends it; once as text with `plain`, or without a terminal.
pub(super) fn run(socket: PathBuf, plain: bool, style: Style) -> Result<String, Exit> {
    let failed = |failure: io::Error| Exit::failed(failure.to_string());
    let client = Client::new(socket);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        let reading = read(&client).await?;
        if plain || !io::stdout().is_terminal() {
            return Ok(text(&reading, style, SystemTime::now()));
        }
        watch(&client, reading).await.map_err(failed)?;
        Ok(String::new())
    })
}

async fn read(client: &Client) -> Result<Reading, ClientError> {
    let get = Method::GET;
    Ok(Reading {
        live: client.json(get.clone(), "/v1/live", Vec::new()).await?,
        status: client.json(get.clone(), "/v1/status", Vec::new()).await?,
        upstreams: client
            .json(get.clone(), "/v1/upstreams", Vec::new())
            .await?,
        incidents: client.json(get, "/v1/incidents", Vec::new()).await?,
    })
}

/// The live view, until q, Escape, Ctrl-C, SIGINT or SIGTERM.
async fn watch(client: &Client, reading: Reading) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (sender, mut wishes) = mpsc::unbounded_channel();
    let mut terminal = ratatui::try_init()?;
    let keyboard = thread::Builder::new()
        .name("keyboard".to_owned())
        .spawn(move || listen(&sender));
    let mut view = View {
        reading,
        pane: Pane::Zones,
        paused: false,
        lost: None,
        now: SystemTime::now(),
    };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let shown = loop {
        if let Err(failure) = terminal.draw(|frame| draw::draw(frame, &view)) {
            break Err(failure);
        }
        tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            wish = wishes.recv() => match wish {
                None | Some(Wish::End) => break Ok(()),
                Some(Wish::Next) => view.pane = view.pane.next(),
                Some(Wish::Previous) => view.pane = view.pane.previous(),
                Some(Wish::Pause) => view.paused = !view.paused,
                Some(Wish::Redraw) => {}
            },
            _ = ticks.tick() => if !view.paused {
                view.take(read(client).await, SystemTime::now());
            },
        }
    };
    // the keyboard's thread ends when nobody hears it any more
    drop(wishes);
    if let Ok(keyboard) = keyboard {
        let _ = keyboard.join();
    }
    ratatui::restore();
    shown
}

fn listen(wishes: &mpsc::UnboundedSender<Wish>) {
    while !wishes.is_closed() {
        let wish = match event::poll(KEY_WAIT) {
            Ok(false) => continue,
            Ok(true) => match event::read() {
                Ok(Event::Key(key)) => wish(key),
                Ok(Event::Resize(..)) => Some(Wish::Redraw),
                Ok(_) => None,
                Err(_) => return,
            },
            // no keyboard: signals still work, and so does looking
            Err(_) => {
                thread::sleep(KEY_WAIT);
                continue;
            }
        };
        if let Some(wish) = wish
            && wishes.send(wish).is_err()
        {
            return;
        }
    }
}

fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::End),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::End),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        KeyCode::Tab | KeyCode::Right | KeyCode::Down => Some(Wish::Next),
        KeyCode::BackTab | KeyCode::Left | KeyCode::Up => Some(Wish::Previous),
        _ => None,
    }
}

impl View {
    /// The newest reading; without one the last stays, and it is said since when.
    fn take(&mut self, reading: Result<Reading, ClientError>, now: SystemTime) {
        self.now = now;
        match reading {
            Ok(reading) => {
                self.reading = reading;
                self.lost = None;
            }
            Err(failure) => {
                let why = failure.to_string();
                let why = why.lines().next().unwrap_or_default().to_owned();
                let since = self.lost.take().map_or(now, |(since, _)| since);
                self.lost = Some((since, why));
            }
        }
    }
}

impl Reading {
    fn last(&self) -> Point {
        self.live.points.last().copied().unwrap_or_default()
    }

    fn peak(&self) -> f32 {
        let rates = self.live.points.iter().map(|point| point.queries);
        rates.fold(0.0, f32::max)
    }

    /// The highest of all pools' and the proxy's own.
    fn pressure(&self) -> f64 {
        let pools = self
            .status
            .pools
            .iter()
            .map(|pool| f64::from(pool.pressure));
        pools.fold(self.status.proxy_pressure, f64::max)
    }

    fn level(&self) -> &str {
        self.status
            .level
            .as_ref()
            .map_or("-", |level| level.level.as_str())
    }

    /// Queries of known clients in the last minute, and how many of them were lost.
    fn known(&self) -> (f64, f64) {
        let end = self.last().at;
        let minute = self
            .live
            .points
            .iter()
            .filter(|point| point.at > end - MINUTE);
        minute.fold((0.0, 0.0), |(asked, lost), point| {
            let seconds = f64::from(point.seconds);
            (
                asked + f64::from(point.known) * seconds,
                lost + f64::from(point.known_lost) * seconds,
            )
        })
    }

    fn open(&self) -> impl Iterator<Item = &IncidentRow> {
        self.incidents
            .iter()
            .filter(|incident| incident.closed.is_none())
    }
}

/// `98.2 %` of known clients' queries were kept; never rounded up to all.
fn kept((asked, lost): (f64, f64)) -> String {
    if asked <= 0.0 {
        return "none asked".to_owned();
    }
    // what is given up now was asked some seconds ago: it may be more than is asked now
    let share = (1.0 - lost / asked).max(0.0);
    let hundredths = (share * 10_000.0 + 1e-6).floor() / 100.0;
    format!("{hundredths} % kept")
}

fn percent(share: f32) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `random-subdomain flood on example.com`.
fn titled(incident: &IncidentRow) -> String {
    let more = incident.zones.len().saturating_sub(1) + incident.more_zones;
    let zones = match incident.zones.first() {
        None => String::new(),
        Some(one) if more == 0 => format!(" on {}", visible(one)),
        Some(one) => format!(" on {} and {more} more", visible(one)),
    };
    format!("{}{zones}", incident.kind.title())
}

/// One snapshot.
fn text(reading: &Reading, style: Style, now: SystemTime) -> String {
    let last = reading.last();
    let mut lines = vec![
        style.paint(
            Paint::Bold,
            &format!(
                "dnscrub {}, {} UTC",
                reading.status.version,
                time_of_day(unix_time::from(now))
            ),
        ),
        format!(
            "defence level  {}\npressure       {:.2}\nknown clients  {} in the last minute\n\
             a second       {} queries: {} forwarded, {} answered here, {} dropped, {} expired; peak {}",
            visible(reading.level()),
            reading.pressure(),
            kept(reading.known()),
            whole(last.queries.into()),
            whole(last.forwarded.into()),
            whole(last.answered.into()),
            whole(last.dropped.into()),
            whole(last.expired.into()),
            whole(reading.peak().into())
        ),
    ];
    for pane in Pane::ALL {
        let rows = pane.rows(reading, usize::MAX);
        lines.push(String::new());
        lines.push(pane.text(&rows, style));
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use dnscrub_testkit::incident;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    const NOW: f64 = 1_795_649_504.0;

    fn reading() -> Reading {
        let status = serde_json::json!({
            "version": "0.1.0", "pid": 7, "started": NOW - 4_000.0, "uptime_seconds": 4_000.0, "workers": 2,
            "configuration": { "file": "/etc/dnscrub/dnscrub.yaml", "generation": 1, "loaded": NOW - 4_000.0, "reload_failure": null },
            "listeners": [],
            "udp": { "received": 9, "forwarded": 9, "answered": 0, "dropped": 0, "expired": 0, "in_flight": 0 },
            "tcp": { "received": 0, "forwarded": 0, "answered": 0, "dropped": 0, "expired": 0, "in_flight": 0 },
            "upstreams": { "total": 2, "usable": 1 },
            "pools": [ { "name": "default", "pressure": 0.21, "queued": 3 } ],
            "level": { "scope": "whole", "level": "attack", "since": NOW - 240.0, "why": "suffix-flood", "rate": 1.0, "usual": 1.0, "distinct": 1.0 },
            "rules": 3,
            "blocklist": { "static_entries": 0, "static_limit": 1, "dynamic_entries": 1, "dynamic_limit": 1, "expired": 0, "evicted": 0, "refused": 0, "state_file": "", "unsaved": null, "files": [] }
        });
        let upstream = |name: &str, state: &str, latency: Option<f64>| {
            serde_json::json!({
                "name": name, "address": "192.0.2.1:53", "pool": "default", "state": state, "since_seconds": 3_700.0, "weight": 1,
                "outstanding": 12, "limit": 480, "max_outstanding": 2_000, "forwarded": 1_234_567, "answered": 1_234_000,
                "timeouts": 31, "refused": 0, "latency_ms": latency, "last_check": null
            })
        };
        let upstreams = serde_json::json!([
            upstream("ns1", "up", Some(2.1)),
            upstream("ns2", "down", None)
        ]);
        let incidents = [
            incident::flood(7, NOW - 240.0, None),
            incident::crowd(6, NOW - 90_000.0),
        ];
        Reading {
            live: Live {
                overview: incident::overview(NOW),
                points: incident::ten_minutes(NOW),
            },
            status: serde_json::from_value(status).unwrap(),
            upstreams: serde_json::from_value(upstreams).unwrap(),
            incidents: incidents.iter().map(IncidentRow::of).collect(),
        }
    }

    fn view(pane: Pane) -> View {
        View {
            reading: reading(),
            pane,
            paused: false,
            lost: None,
            now: UNIX_EPOCH + Duration::from_secs_f64(NOW),
        }
    }

    fn shown(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw::draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| {
            let row: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
            row.trim_end().to_owned()
        };
        (0..height).map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_small_terminal_shows_a_pane_at_a_time() {
        insta::assert_snapshot!(shown(&view(Pane::Zones), 80, 24));
        for (pane, told) in [
            (Pane::Upstreams, "ns2"),
            (Pane::Names, "<script>alert(1)</script>\\u{1b}[31m"),
            (Pane::Sources, "2001:db8:77:3::53"),
            (Pane::Incidents, "flash crowd on example.net"),
        ] {
            let all = shown(&view(pane), 80, 24);
            assert!(all.contains(told), "{told}: {all}");
        }
    }

    #[test]
    fn a_narrow_terminal_leaves_out_what_it_has_no_room_for() {
        let mut view = view(Pane::Incidents);
        let line = |view: &View, at: usize| {
            let all = shown(view, 40, 24);
            all.lines().nth(at).unwrap().to_owned()
        };
        assert_eq!(line(&view, 0), " attack  pressure 0.21  upstreams 1/2");
        assert_eq!(line(&view, 23), " tab: next table   p: pause   q: end");
        let all = shown(&view, 40, 24);
        assert!(all.lines().any(|line| line.trim() == "incidents"), "{all}");
        assert!(all.contains(" 16,085/s "), "{all}");
        // each is whole or not there
        for width in 10..110 {
            let all = shown(&view, width, 24);
            let title = all.lines().next().unwrap().to_owned();
            for (head, whole) in [
                ("pressure", "pressure 0.21"),
                ("upstreams", "upstreams 1/2"),
                ("known", "% kept"),
                ("dns", "dnscrub"),
            ] {
                assert_eq!(title.contains(head), title.contains(whole), "{title}");
            }
        }
        view.paused = true;
        assert_eq!(line(&view, 0), " attack  pressure 0.21           paused");
    }

    #[test]
    fn a_large_terminal_shows_all_panes() {
        insta::assert_snapshot!(shown(&view(Pane::Zones), 140, 44));
    }

    #[test]
    fn one_snapshot_as_text() {
        let now = UNIX_EPOCH + Duration::from_secs_f64(NOW);
        let text = text(&reading(), Style::default(), now);
        assert!(!text.contains('\u{1b}'), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn no_size_is_too_small_and_nothing_is_not_too_little() {
        let mut bare = view(Pane::Names);
        bare.reading.live = Live::default();
        bare.reading.upstreams.clear();
        bare.reading.incidents.clear();
        bare.reading.status.level = None;
        for (width, height) in [(1, 1), (10, 3), (40, 10), (79, 23), (120, 30), (300, 100)] {
            shown(&view(Pane::Incidents), width, height);
            shown(&bare, width, height);
        }
        assert!(shown(&bare, 80, 24).contains("nothing measured yet"));
    }

    #[test]
    fn a_lost_connection_is_said_until_it_is_back() {
        let mut view = view(Pane::Zones);
        let at = |seconds: f64| UNIX_EPOCH + Duration::from_secs_f64(NOW + seconds);
        let dead = || ClientError::Dead("/run/dnscrub/control.sock".into());
        view.take(Err(dead()), at(1.0));
        view.take(Err(dead()), at(5.0));
        let all = shown(&view, 80, 24);
        assert!(
            all.contains("connection lost, since 23:31:45")
                && all.contains("nobody answers")
                && all.contains("15,204"),
            "{all}"
        );
        view.take(Ok(reading()), at(6.0));
        assert!(!shown(&view, 80, 24).contains("lost, since"));
    }

    #[test]
    fn keys_are_understood() {
        let press = |code| wish(KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(press(KeyCode::Char('q')), Some(Wish::End));
        assert_eq!(press(KeyCode::Char('p')), Some(Wish::Pause));
        assert_eq!(press(KeyCode::Char('c')), None);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(wish(control_c), Some(Wish::End));
        let mut pane = Pane::Upstreams;
        for _ in Pane::ALL {
            assert_eq!(pane.next().previous(), pane);
            pane = pane.next();
        }
        assert_eq!(pane, Pane::Upstreams);
        assert_eq!(
            (press(KeyCode::Tab), press(KeyCode::BackTab)),
            (Some(Wish::Next), Some(Wish::Previous))
        );
    }
}
