//! The live view.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dnscrub_detection::Incident;
use dnscrub_forwarding::UpstreamSnapshot;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};

use super::interrupt::Interrupt;
use super::numbers::{latency, percent};
use super::readings::{Flow, History, Series};
use super::report::{Facts, in_short, naming_time, sorted};
use super::script::{Phase, Script};
use crate::legible::{grouped, whole};
use crate::outcome::Outcome;

/// How often the keyboard's thread looks whether it is still wanted.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// From this height on there is room for tall charts and more lines.
const ROOMY: u16 = 34;
/// Columns before the charts: a label and a rate.
const LABEL: usize = 24;
/// Rules and reasons shown.
const ROWS: u16 = 4;

/// What is shown.
pub(super) struct View<'a> {
    /// Where everything is.
    pub(super) facts: &'a Facts,
    /// The phases.
    pub(super) script: Script,
    /// Time since the start.
    pub(super) elapsed: Duration,
    /// The proxy's counters.
    pub(super) history: &'a History,
    /// The polite client.
    pub(super) polite: PoliteNow,
    /// What was noticed, the first one first.
    pub(super) incidents: &'a [Arc<Incident>],
}

/// How the polite client fares.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PoliteNow {
    /// Right answers since the start.
    pub(super) answered: u64,
    /// Queries lost since the start.
    pub(super) lost: u64,
    /// Median latency of the last second.
    pub(super) median: Option<Duration>,
    /// 99th percentile of the last second's latency.
    pub(super) p99: Option<Duration>,
}

/// The terminal, taken over. Dropping it gives it back.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    closing: Arc<AtomicBool>,
    keyboard: Option<JoinHandle<()>>,
}

impl Screen {
    /// Takes the terminal over. q, Escape and Ctrl-C go to `interrupt`.
    ///
    /// # Errors
    /// The terminal cannot be set up.
    pub(super) fn open(interrupt: &Interrupt) -> io::Result<Self> {
        let terminal = ratatui::try_init()?;
        let closing = Arc::<AtomicBool>::default();
        let (end, closed) = (interrupt.sender(), Arc::clone(&closing));
        let keyboard = thread::Builder::new()
            .name("keyboard".to_owned())
            .spawn(move || {
                while !closed.load(Relaxed) {
                    match event::poll(KEY_WAIT) {
                        Ok(true) => {
                            if let Ok(Event::Key(key)) = event::read()
                                && ends(key)
                            {
                                let _ = end.send(());
                            }
                        }
                        Ok(false) => {}
                        // no keyboard: signals still work
                        Err(_) => return,
                    }
                }
            })?;
        Ok(Self {
            terminal,
            closing,
            keyboard: Some(keyboard),
        })
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// The terminal's.
    pub(super) fn draw(&mut self, view: &View<'_>) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame, view)).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.closing.store(true, Relaxed);
        if let Some(keyboard) = self.keyboard.take() {
            let _ = keyboard.join();
        }
        ratatui::restore();
    }
}

fn ends(key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// Numbers and labels of the second rank.
const QUIET: Style = Style::new().fg(Color::DarkGray);
const GOOD: Color = Color::Green;
const BAD: Color = Color::Red;
const WARNING: Color = Color::Yellow;

const fn colour(series: Series) -> Color {
    match series {
        Series::Polite => GOOD,
        Series::Received => Color::Reset,
        Series::Forwarded => Color::Cyan,
        Series::Answered => WARNING,
        Series::Dropped => Color::Magenta,
    }
}

fn draw(frame: &mut Frame<'_>, view: &View<'_>) {
    let area = frame.area();
    let roomy = area.height >= ROOMY;
    let gap = u16::from(roomy);
    let chart = if roomy { 3 } else { 1 };
    let upstreams = view
        .history
        .last()
        .map_or(0, |totals| totals.upstreams.len());
    let [
        title,
        polite,
        timeline,
        charts,
        named,
        shed,
        _,
        pool,
        _,
        hints,
    ] = Layout::vertical([
        Constraint::Length(1 + gap),
        Constraint::Length(1 + gap),
        Constraint::Length(2),
        Constraint::Length(chart * Series::ALL.len() as u16),
        Constraint::Length(1),
        Constraint::Length(1 + ROWS),
        Constraint::Length(1),
        Constraint::Length(upstreams as u16 + 1),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(area);
    frame.render_widget(title_line(view, area.width.into()), title);
    frame.render_widget(polite_line(view), polite);
    draw_timeline(frame, view, timeline);
    draw_charts(frame, view, charts, chart.into());
    frame.render_widget(named_line(view), named);
    draw_shed(frame, view, shed);
    draw_pool(frame, view, pool);
    draw_hints(frame, view, hints);
}

fn title_line(view: &View<'_>, width: usize) -> Line<'static> {
    let phase = view.script.at(view.elapsed);
    let clock = format!(
        "{} of {} s ",
        view.elapsed.as_secs(),
        view.script.total.as_secs()
    );
    let style = if phase.is_attack() {
        Style::new().fg(WARNING)
    } else {
        Style::new()
    };
    let (name, what) = (" dnscrub  ", phase.description());
    let gap = width.saturating_sub(name.len() + what.len() + clock.len());
    Line::from(vec![
        name.bold(),
        Span::styled(what, style),
        " ".repeat(gap).into(),
        Span::styled(clock, QUIET),
    ])
}

fn polite_line(view: &View<'_>) -> Line<'static> {
    let PoliteNow {
        answered,
        lost,
        median,
        p99,
    } = view.polite;
    let health = Style::new()
        .fg(if lost == 0 { GOOD } else { BAD })
        .add_modifier(Modifier::BOLD);
    Line::from(vec![
        " polite client  ".into(),
        Span::styled(
            format!("{} answered", percent(answered, answered + lost)),
            health,
        ),
        "   ".into(),
        Span::styled(format!("{} lost", grouped(lost)), health),
        format!(
            "   latency {} median, {} p99",
            latency(median),
            latency(p99)
        )
        .into(),
    ])
}

/// What the proxy itself says is going on.
fn named_line(view: &View<'_>) -> Line<'static> {
    let mut line = vec![Span::styled(" named  ", QUIET)];
    let open = view.incidents.iter().filter(|it| it.is_open());
    for (place, incident) in open.rev().enumerate() {
        if place > 0 {
            line.push(Span::styled(", ", QUIET));
        }
        let style = Style::new().fg(WARNING).add_modifier(Modifier::BOLD);
        line.push(Span::styled(in_short(incident), style));
        line.push(Span::styled(format!(" {}", naming_time(incident)), QUIET));
    }
    if line.len() == 1 {
        Line::default()
    } else {
        Line::from(line)
    }
}

/// The phases above the charts, on the charts' scale.
fn draw_timeline(frame: &mut Frame<'_>, view: &View<'_>, area: Rect) {
    let width = chart_width(area);
    let column = |time: Duration| {
        let share = time.as_secs_f64() / view.script.total.as_secs_f64();
        ((share * width as f64).round() as usize).min(width)
    };
    let now = view.script.at(view.elapsed);
    let past = column(view.elapsed);
    let mut names = vec![Span::raw(" ".repeat(LABEL))];
    let mut ruler = vec![Span::styled(format!("{:>22}  ", "a second"), QUIET)];
    for phase in Phase::ALL {
        let (from, to) = view.script.span(phase);
        let (from, to) = (column(from), column(to));
        let style = match phase {
            _ if phase != now => QUIET,
            _ if phase.is_attack() => Style::new().fg(WARNING).add_modifier(Modifier::BOLD),
            _ => Style::new().fg(GOOD).add_modifier(Modifier::BOLD),
        };
        let room = to.saturating_sub(from);
        names.push(Span::styled(
            format!("{:room$.room$}", phase.label()),
            style,
        ));
        for at in from..to {
            let tick = if at == from { "┬" } else { "─" };
            let style = match at {
                at if at >= past => QUIET,
                _ if phase.is_attack() => Style::new().fg(WARNING),
                _ => Style::new().fg(GOOD),
            };
            ruler.push(Span::styled(tick, style));
        }
    }
    frame.render_widget(
        Paragraph::new(vec![Line::from(names), Line::from(ruler)]),
        area,
    );
}

fn chart_width(area: Rect) -> usize {
    usize::from(area.width).saturating_sub(LABEL + 1)
}

fn draw_charts(frame: &mut Frame<'_>, view: &View<'_>, area: Rect, height: usize) {
    let width = chart_width(area);
    let slices = |series| view.history.slices(series, view.script.total, width);
    let greatest = |values: &[Option<f64>]| values.iter().flatten().copied().fold(0.0, f64::max);
    // one scale for all that passes through the proxy, so that they can be compared
    let common = greatest(&slices(Series::Received));
    let mut lines = Vec::new();
    for series in Series::ALL {
        let values = slices(series);
        let own = series == Series::Polite;
        // the client asks evenly: close to what is usual, its bar is full
        let scale = if own { median(&values) * 0.9 } else { common };
        let Flow { rate, .. } = view.history.series(series);
        let style = Style::new().fg(colour(series));
        for (row, bars) in bars(&values, scale, height).into_iter().enumerate() {
            let label = if row + 1 == height {
                vec![
                    Span::raw(format!(" {:<14}", series.label())),
                    Span::styled(
                        format!("{:>7}  ", whole(rate)),
                        style.add_modifier(Modifier::BOLD),
                    ),
                ]
            } else {
                vec![Span::raw(" ".repeat(LABEL))]
            };
            let mut line = Line::from(label);
            line.push_span(Span::styled(bars, style));
            lines.push(line);
        }
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn median(values: &[Option<f64>]) -> f64 {
    let mut known: Vec<f64> = values.iter().flatten().copied().collect();
    known.sort_by(f64::total_cmp);
    known.get(known.len() / 2).copied().unwrap_or_default()
}

/// Bars of a chart, one a value, the upper row first. What is not nothing shows. The greatest leave
/// a little room to the chart above.
fn bars(values: &[Option<f64>], scale: f64, height: usize) -> Vec<String> {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let full = (height * 8).saturating_sub(if height > 1 { 3 } else { 1 });
    let eighths = |value: f64| {
        let share = if scale > 0.0 { value / scale } else { 0.0 };
        let least = usize::from(value > 0.0);
        ((share * full as f64).round() as usize).clamp(least, full)
    };
    (0..height)
        .rev()
        .map(|row| {
            values
                .iter()
                .map(|value| {
                    let filled = value.map_or(0, eighths).saturating_sub(row * 8).min(8);
                    EIGHTHS.get(filled).copied().unwrap_or(' ')
                })
                .collect()
        })
        .collect()
}

fn draw_shed(frame: &mut Frame<'_>, view: &View<'_>, area: Rect) {
    let [left, right] =
        Layout::horizontal([Constraint::Ratio(23, 40), Constraint::Ratio(17, 40)]).areas(area);
    let Some(last) = view.history.last() else {
        return;
    };
    let received = view.history.series(Series::Received).rate;
    let reasons: Vec<_> = sorted(&last.shed)
        .into_iter()
        .map(|&(outcome, _)| {
            let count = |totals: &super::readings::Totals| {
                let found = totals.shed.iter().find(|(each, _)| *each == outcome);
                found.map_or(0, |(_, count)| *count)
            };
            let (what, reason) = match outcome {
                Outcome::Answered(answer, reason) => (answer.label(), reason.label()),
                Outcome::Dropped(reason) => ("dropped", reason.label()),
                Outcome::Forwarded | Outcome::Expired => ("", ""),
            };
            let series = match outcome {
                Outcome::Dropped(_) => Series::Dropped,
                _ => Series::Answered,
            };
            let label = vec![
                Span::styled(format!("{what:<10}"), Style::new().fg(colour(series))),
                Span::raw(format!("{reason:<16}")),
            ];
            (label, view.history.flow(count))
        })
        .collect();
    let rules: Vec<_> = last
        .rules
        .iter()
        .enumerate()
        .map(|(at, (name, _))| {
            let flow = view
                .history
                .flow(|totals| totals.rules.get(at).map_or(0, |(_, count)| *count));
            (vec![Span::raw(format!("{name:<14}"))], flow)
        })
        .collect();
    draw_table(frame, left, ("shed, and why", 26), reasons, received);
    draw_table(frame, right, ("by rule", 14), rules, received);
}

/// Rows of a label, a rate, a total and, where there is room, the rate as a share of `whole_rate`.
fn draw_table(
    frame: &mut Frame<'_>,
    area: Rect,
    (title, label): (&'static str, usize),
    rows: Vec<(Vec<Span<'static>>, Flow)>,
    whole_rate: f64,
) {
    let room = usize::from(area.width).saturating_sub(label + 22);
    let mut lines = vec![Line::styled(
        format!(" {title:<label$}{:>8}  {:>9}", "a second", "in all"),
        QUIET,
    )];
    for (mut spans, flow) in rows.into_iter().take(ROWS.into()) {
        let style = if flow.rate < 0.5 { QUIET } else { Style::new() };
        spans.insert(0, Span::raw(" "));
        spans.push(Span::styled(
            format!("{:>8}  {:>9}", whole(flow.rate), grouped(flow.total)),
            style,
        ));
        if room >= 8 && flow.rate > 0.0 && whole_rate > 0.0 {
            let width = (flow.rate / whole_rate * (room - 4) as f64).round() as usize;
            let bar = "▪".repeat(width.min(room - 4));
            spans.push(Span::styled(format!("  {bar}"), QUIET));
        }
        lines.push(Line::from(spans));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_pool(frame: &mut Frame<'_>, view: &View<'_>, area: Rect) {
    let Some(last) = view.history.last() else {
        return;
    };
    let mut lines: Vec<_> = last
        .upstreams
        .iter()
        .enumerate()
        .map(|(at, upstream)| {
            let flow = view.history.flow(|totals| {
                let found = totals.upstreams.get(at);
                found.map_or(0, |upstream| upstream.answered)
            });
            upstream_line(upstream, flow)
        })
        .collect();
    let blocked = match last.blocked {
        0 => Span::styled("nobody", QUIET),
        1 => Span::raw("1 address"),
        many => Span::raw(format!("{} addresses", grouped(many as u64))),
    };
    lines.push(Line::from(vec![" blocklist ".into(), blocked]));
    frame.render_widget(Paragraph::new(lines), area);
}

fn upstream_line(upstream: &UpstreamSnapshot, flow: Flow) -> Line<'static> {
    let state = match upstream.state.as_str() {
        "down" | "suspect" => Style::new().fg(BAD),
        "up" => Style::new().fg(GOOD),
        _ => QUIET,
    };
    let average = upstream
        .latency_ms
        .map(|ms| Duration::from_secs_f64(ms / 1000.0));
    Line::from(vec![
        format!(" {:<9} ", upstream.name).into(),
        Span::styled(format!("{:<8}", upstream.state), state),
        format!("{:>6} a second", whole(flow.rate)).into(),
        format!("{:>9}", latency(average)).into(),
        Span::styled(
            format!("{:>9} answered  {}", grouped(flow.total), upstream.address),
            QUIET,
        ),
    ])
}

fn draw_hints(frame: &mut Frame<'_>, view: &View<'_>, area: Rect) {
    let Facts {
        configuration,
        page,
        dig,
        blocklist,
        explain,
    } = view.facts;
    let width = usize::from(area.width);
    let hint = |label: &'static str, text: &str| {
        let label = format!(" {label:<11}");
        let labelled = label.len() + text.len() <= width;
        // without its label a long command may still fit, to be copied whole
        let label = if labelled { label } else { " ".to_owned() };
        Line::from(vec![Span::styled(label, QUIET), Span::raw(text.to_owned())])
    };
    // the same program and socket as in the line above, where all of it does not fit
    let short = || {
        let (_, what) = explain.split_once(" explain ")?;
        let (what, _) = what.split_once(" --socket ")?;
        Some(format!("… explain {what} --socket …"))
    };
    let explain = match short() {
        Some(short) if explain.len() >= width => short,
        _ => explain.clone(),
    };
    let mut lines = vec![
        hint("look at it", page),
        hint("ask it", dig),
        hint("blocked", blocklist),
        hint("explained", &explain),
        hint("configured", configuration),
    ];
    let end = Line::styled(" q or Ctrl-C ends it", QUIET);
    if area.height > 5 {
        lines.push(Line::default());
        lines.push(end);
    }
    frame.render_widget(Paragraph::new(lines), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::readings::Totals;
    use crate::outcome::{Answer, Reason};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::path::Path;

    fn history() -> History {
        let mut history = History::default();
        for quarter in 0..48_u64 {
            let attacked = quarter.saturating_sub(20) * 2_000;
            let totals = Totals {
                received: quarter * 75 + attacked,
                forwarded: quarter * 75,
                dropped: attacked - attacked / 8,
                answered: attacked / 8,
                shed: vec![
                    (
                        Outcome::Answered(Answer::Truncated, Reason::RateLimit),
                        attacked / 8,
                    ),
                    (Outcome::Dropped(Reason::Rule), attacked - attacked / 8),
                ],
                rules: ["any-flood", "any-over-udp", "one-network"]
                    .map(|name| (name.to_owned(), attacked))
                    .into(),
                blocked: 12,
                ..Totals::default()
            };
            history.add(Duration::from_millis(quarter * 250), totals, quarter * 75);
        }
        history
    }

    fn shown(width: u16, height: u16) -> Vec<String> {
        let socket = Path::new("/tmp/dnscrub-a1B2c3/control.sock");
        let configuration = Path::new("/tmp/dnscrub-a1B2c3/dnscrub.yaml");
        let address = "127.0.0.1:53053".parse().unwrap();
        let page = Some("127.0.0.1:53080".parse().unwrap());
        let program = "target/release/dnscrub";
        let facts = Facts::new(address, page, configuration, socket, program);
        let incidents = [Arc::new(dnscrub_testkit::incident::flood(1, 1_000.0, None))];
        let view = View {
            facts: &facts,
            script: Script {
                total: Duration::from_secs(30),
            },
            elapsed: Duration::from_millis(11_750),
            history: &history(),
            polite: PoliteNow {
                answered: 3_525,
                lost: 0,
                median: Some(Duration::from_micros(310)),
                p99: Some(Duration::from_micros(1_240)),
            },
            incidents: &incidents,
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        };
        (0..height)
            .map(row)
            .map(|row: String| row.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn everything_is_on_a_small_terminal() {
        let rows = shown(80, 24);
        let all = rows.join("\n");
        for expected in [
            "names that do not exist, from all over 127.0.0.0/8",
            "11 of 30 s",
            "100 % answered   0 lost   latency 0.31 ms median, 1.24 ms p99",
            "dropped   rule",
            "truncated rate_limit",
            "one-network",
            "12 addresses",
            "named  random-subdomain flood on example.com after 4 s",
            "http://127.0.0.1:53080/",
            "dig @127.0.0.1 -p 53053 www.example.test",
            "target/release/dnscrub blocklist list --socket /tmp/dnscrub-a1B2c3/control.sock",
            "… explain --source 127.99.1.2 --qname k3x9v2m7q1w8.example.test --socket …",
        ] {
            assert!(all.contains(expected), "{expected} is missing from\n{all}");
        }
    }

    #[test]
    fn a_large_terminal_has_taller_charts() {
        let full_bars = |rows: &[String]| rows.iter().filter(|row| row.contains('█')).count();
        assert!(full_bars(&shown(120, 40)) > full_bars(&shown(80, 24)));
    }

    #[test]
    fn no_size_is_too_small() {
        for (width, height) in [(1, 1), (10, 3), (40, 10), (79, 23), (300, 100)] {
            shown(width, height);
        }
    }

    #[test]
    fn bars_are_scaled_and_what_is_not_nothing_shows() {
        let values = [Some(0.0), Some(0.01), Some(50.0), Some(100.0), None];
        assert_eq!(bars(&values, 100.0, 1), [" ▁▄▇ "]);
        assert_eq!(bars(&values, 100.0, 2), ["   ▅ ", " ▁▇█ "]);
        assert_eq!(bars(&values, 0.0, 1), [" ▁▁▁ "]);
    }
}
