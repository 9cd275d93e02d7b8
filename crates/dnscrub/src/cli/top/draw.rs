//! Draws a frame.

use dnscrub_detection::Point;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use super::super::output::Paint;
use super::pane::Pane;
use super::{View, kept, titled};
use crate::legible::{rate, visible, whole};
use crate::unix_time::{self, time_of_day};

/// From this size on all panes are shown at once.
const WIDE: u16 = 110;
const TALL: u16 = 34;
/// Columns before the chart: the rates it reaches.
const LABEL: u16 = 9;
/// Seconds that the chart shows.
const SHOWN: f64 = 600.0;
/// Open incidents named above the chart.
const NAMED: usize = 2;

const QUIET: Style = Style::new().fg(Color::DarkGray);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// A rate of a point.
type RateOf = fn(&Point) -> f32;

/// What becomes of queries: a colour and what it is. Told apart by lightness as well as by hue.
const OUTCOMES: [(&str, Color, RateOf); 4] = [
    ("forwarded", Color::Blue, |point| point.forwarded),
    ("answered", Color::LightCyan, |point| point.answered),
    ("dropped", Color::Yellow, |point| point.dropped),
    ("expired", Color::Red, |point| point.expired),
];

pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let area = frame.area();
    let roomy = area.width >= WIDE && area.height >= TALL;
    let named = view.reading.open().count().min(NAMED) + usize::from(view.lost.is_some());
    let chart = match area.height {
        TALL.. => 10,
        20.. => 6,
        _ => 3,
    };
    let [title, notices, plot, axis, legend, _, panes, hints] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(named as u16),
        Constraint::Length(chart),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(title_line(view, area.width.into()), title);
    frame.render_widget(Paragraph::new(notice_lines(view)), notices);
    draw_chart(frame, view, plot, axis);
    frame.render_widget(legend_line(view, area.width.into()), legend);
    if roomy {
        draw_all(frame, view, panes);
    } else {
        draw_one(frame, view, panes);
    }
    frame.render_widget(hint_line(roomy, area.width.into()), hints);
}

fn of_level(level: &str) -> Style {
    match level {
        "calm" => BOLD.fg(Color::Green),
        "alert" => BOLD.fg(Color::Yellow),
        "attack" => BOLD.fg(Color::Red),
        _ => QUIET,
    }
}

fn title_line(view: &View, width: usize) -> Line<'static> {
    let reading = &view.reading;
    let pressure = reading.pressure();
    let pressed = match pressure {
        calm if calm < 0.05 => Style::new(),
        some if some < 0.5 => Style::new().fg(Color::Yellow),
        _ => Style::new().fg(Color::Red),
    };
    let known = reading.known();
    let well = if known.1 > known.0 / 100.0 {
        Style::new().fg(Color::Red)
    } else {
        Style::new()
    };
    let upstreams = &reading.status.upstreams;
    let usable = match upstreams.usable {
        0 => Style::new().fg(Color::Red),
        some if some < upstreams.total => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    };
    let end = if view.paused {
        Span::styled(" paused ", Style::new().add_modifier(Modifier::REVERSED))
    } else {
        let time = time_of_day(unix_time::from(view.now));
        Span::styled(format!(" {time} "), QUIET)
    };
    // that nothing moves must not go unsaid
    let of_end = if view.paused { 0 } else { 5 };
    let mut parts = vec![
        (3, vec![" dnscrub ".bold()]),
        (
            0,
            vec![
                " ".into(),
                Span::styled(visible(reading.level()), of_level(reading.level())),
            ],
        ),
        (
            1,
            vec![
                Span::styled("  pressure ", QUIET),
                Span::styled(format!("{pressure:.2}"), pressed),
            ],
        ),
        (
            2,
            vec![
                Span::styled("  upstreams ", QUIET),
                Span::styled(format!("{}/{}", upstreams.usable, upstreams.total), usable),
            ],
        ),
        (
            4,
            vec![
                Span::styled("  known ", QUIET),
                Span::styled(kept(known), well),
            ],
        ),
        (of_end, vec![end]),
    ];
    fit(&mut parts, width);
    let used: usize = parts.iter().map(width_of).sum();
    if let Some((_, end)) = parts.last_mut().filter(|(order, _)| *order == of_end) {
        // it stands at the right
        end.insert(0, " ".repeat(width.saturating_sub(used)).into());
    }
    joined(parts)
}

/// A part of a line, and when it is left out: the highest number first, 0 never.
type Part = (u8, Vec<Span<'static>>);

fn width_of((_, spans): &Part) -> usize {
    spans.iter().map(Span::width).sum()
}

fn joined(parts: Vec<Part>) -> Line<'static> {
    let spans = parts.into_iter().flat_map(|(_, part)| part);
    Line::from(spans.collect::<Vec<_>>())
}

/// Leaves parts out until the others fit.
fn fit(parts: &mut Vec<Part>, width: usize) {
    while parts.iter().map(width_of).sum::<usize>() > width {
        let Some(next) = parts
            .iter()
            .map(|(order, _)| *order)
            .max()
            .filter(|it| *it > 0)
        else {
            return;
        };
        parts.retain(|(order, _)| *order != next);
    }
}

fn notice_lines(view: &View) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some((since, why)) = &view.lost {
        lines.push(Line::styled(
            format!(
                " connection lost, since {}: {}",
                time_of_day(unix_time::from(*since)),
                visible(why)
            ),
            Style::new().fg(Color::Red),
        ));
    }
    let open: Vec<_> = view.reading.open().collect();
    for (at, incident) in open.iter().take(NAMED).enumerate() {
        let more = match open.len().saturating_sub(NAMED) {
            more if more > 0 && at + 1 == NAMED => format!("; {more} more"),
            _ => String::new(),
        };
        let colour = if incident.kind.is_attack() {
            Color::Red
        } else {
            Color::Yellow
        };
        lines.push(Line::from(vec![
            Span::styled(" ▌", Style::new().fg(colour)),
            Span::styled(titled(incident), BOLD),
            Span::styled(
                format!(
                    "  no. {}, since {}{more}",
                    incident.number,
                    time_of_day(incident.began)
                ),
                QUIET,
            ),
        ]));
    }
    lines
}

/// What became of queries in each column's time, on average; nothing where nothing was measured.
fn columns(points: &[Point], from: f64, width: usize) -> Vec<Option<[f32; 4]>> {
    let mut sums = vec![([0.0; 4], 0.0_f32); width];
    for point in points {
        let place = (point.at + f64::from(point.seconds) / 2.0 - from) / SHOWN * width as f64;
        if place < 0.0 {
            continue;
        }
        let Some((sum, seconds)) = sums.get_mut(place as usize) else {
            continue;
        };
        for (sum, (_, _, of)) in sum.iter_mut().zip(OUTCOMES) {
            *sum += of(point).max(0.0) * point.seconds;
        }
        *seconds += point.seconds;
    }
    sums.into_iter()
        .map(|(sum, seconds)| (seconds > 0.0).then(|| sum.map(|sum| sum / seconds)))
        .collect()
}

fn draw_chart(frame: &mut Frame<'_>, view: &View, area: Rect, axis: Rect) {
    let points = &view.reading.live.points;
    let Some(last) = points.last() else {
        let said = Line::styled(" nothing measured yet", QUIET);
        frame.render_widget(said, area);
        return;
    };
    let end = last.at + f64::from(last.seconds);
    let [labels, plot] =
        Layout::horizontal([Constraint::Length(LABEL), Constraint::Min(0)]).areas(area);
    let width = usize::from(plot.width.saturating_sub(1));
    let columns = columns(points, end - SHOWN, width);
    let sums = columns.iter().flatten().map(|parts| parts.iter().sum());
    let top: f32 = sums.fold(1.0, f32::max);
    let height = usize::from(plot.height);
    let mut lines = Vec::new();
    for row in (0..height).rev() {
        let spans = columns.iter().map(|column| {
            let (symbol, style) =
                column.map_or((' ', Style::new()), |parts| cell(parts, top, height, row));
            Span::styled(symbol.to_string(), style)
        });
        lines.push(Line::from(spans.collect::<Vec<_>>()));
    }
    frame.render_widget(Paragraph::new(lines), plot);
    let label = |text: String| Line::styled(format!("{text:>7} "), QUIET);
    let mut marks = vec![label(whole(top.into()))];
    marks.resize(height.saturating_sub(1).max(1), Line::default());
    marks.push(label("0".to_owned()));
    marks.truncate(height);
    frame.render_widget(Paragraph::new(marks), labels);
    let now = whole(last.queries.into());
    let peak = whole(view.reading.peak().into());
    let room = width.saturating_sub(16);
    let rates = [
        format!("{now} a second, peak {peak}"),
        format!("{now} a second"),
        format!("{now}/s"),
    ];
    let rates = rates
        .into_iter()
        .find(|rates| rates.len() + 2 <= room)
        .unwrap_or_default();
    let times = format!(
        "{}{rates:^room$}{}",
        time_of_day(end - SHOWN),
        time_of_day(end)
    );
    frame.render_widget(Line::styled(format!("{:9}{times}", ""), QUIET), axis);
}

/// One cell of a stack: the lower part in its outcome's colour before that of what is above.
fn cell(parts: [f32; 4], top: f32, height: usize, row: usize) -> (char, Style) {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let floor = (row * 8) as f32;
    let mut reached = 0.0;
    // what reaches into this cell, with how far up it reaches there
    let mut inside: Vec<(Color, f32)> = Vec::new();
    for (part, (_, colour, _)) in parts.into_iter().zip(OUTCOMES) {
        let before = reached;
        reached += part / top * (height * 8) as f32;
        let up = (reached - floor).clamp(0.0, 8.0);
        if part > 0.0 && reached > floor && before < floor + 8.0 && up > (before - floor).max(0.0) {
            inside.push((colour, up));
        }
    }
    match inside.as_slice() {
        [] => (' ', Style::new()),
        [(colour, up)] => {
            // what is not nothing shows
            let least = usize::from(row == 0);
            let filled = (up.round() as usize).clamp(least, 8);
            let symbol = EIGHTHS.get(filled).copied().unwrap_or(' ');
            (symbol, Style::new().fg(*colour))
        }
        [(lower, up), (upper, reached), rest @ ..] => {
            let end = rest.last().map_or(*reached, |(_, end)| *end);
            let filled = (up.round() as usize).min(8);
            let symbol = EIGHTHS.get(filled).copied().unwrap_or(' ');
            let style = Style::new().fg(*lower);
            // a background fills the cell: where the stack ends halfway, what is above stays away
            if end >= 4.0 {
                (symbol, style.bg(*upper))
            } else {
                (
                    EIGHTHS.get(end.round() as usize).copied().unwrap_or(' '),
                    style,
                )
            }
        }
    }
}

/// What the colours are, and the rates now. What there is nothing of is left out first.
fn legend_line(view: &View, width: usize) -> Line<'static> {
    let reading = &view.reading;
    if reading.live.points.is_empty() {
        return Line::default();
    }
    let last = reading.last();
    let parts = (1..).zip(OUTCOMES).map(|(place, (label, colour, of))| {
        let now = of(&last);
        let none = if now > 0.0 { 0 } else { OUTCOMES.len() as u8 };
        let spans = vec![
            Span::styled(" ■ ", Style::new().fg(colour)),
            Span::styled(format!("{label} "), QUIET),
            Span::raw(format!("{} ", rate(now.into()))),
        ];
        (place + none, spans)
    });
    let mut parts: Vec<Part> = parts.collect();
    fit(&mut parts, width);
    joined(parts)
}

/// One pane, with the others' names above it where there is room for them.
fn draw_one(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let [tabs, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let titles = Pane::ALL.into_iter().map(|pane| {
        let (order, style) = if pane == view.pane {
            (0, BOLD.add_modifier(Modifier::REVERSED))
        } else {
            (1, QUIET)
        };
        let title = Span::styled(format!(" {} ", pane.title()), style);
        (order, vec![Span::raw(" "), title])
    });
    let mut titles: Vec<Part> = titles.collect();
    fit(&mut titles, area.width.into());
    frame.render_widget(joined(titles), tabs);
    draw_table(frame, view, view.pane, below);
}

/// All panes: upstreams over the whole width, the others below in two columns.
fn draw_all(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let upstreams = view.reading.upstreams.len().clamp(1, 6) as u16;
    let [upper, lower] =
        Layout::vertical([Constraint::Length(upstreams + 3), Constraint::Min(0)]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Ratio(1, 2); 2]).areas(lower);
    let [zones, sources] = Layout::vertical([Constraint::Ratio(1, 2); 2]).areas(left);
    let [names, incidents] = Layout::vertical([Constraint::Ratio(1, 2); 2]).areas(right);
    for (pane, area) in [
        (Pane::Upstreams, upper),
        (Pane::Zones, zones),
        (Pane::Names, names),
        (Pane::Sources, sources),
        (Pane::Incidents, incidents),
    ] {
        let [head, below] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        let style = if pane == view.pane {
            BOLD.add_modifier(Modifier::REVERSED)
        } else {
            BOLD
        };
        let title = Span::styled(format!(" {} ", pane.title()), style);
        frame.render_widget(Line::from(title), head);
        draw_table(frame, view, pane, below);
    }
}

const fn style_of(paint: Paint) -> Style {
    match paint {
        Paint::Plain => Style::new(),
        Paint::Bold => BOLD,
        Paint::Dim => QUIET,
        Paint::Good => Style::new().fg(Color::Green),
        Paint::Doubtful => Style::new().fg(Color::Yellow),
        Paint::Bad => Style::new().fg(Color::Red),
    }
}

fn draw_table(frame: &mut Frame<'_>, view: &View, pane: Pane, area: Rect) {
    let room = usize::from(area.height).saturating_sub(1);
    let rows = pane.rows(&view.reading, room);
    if rows.is_empty() {
        let none = match pane {
            Pane::Incidents => " none so far",
            Pane::Upstreams => " none",
            _ => " no queries in the last seconds",
        };
        frame.render_widget(Line::styled(none, QUIET), area);
        return;
    }
    let heading = pane.heading();
    // the first column of words takes what the numbers leave
    let flexible = heading.iter().position(|(_, number)| !number).unwrap_or(0);
    let widths = heading.iter().enumerate().map(|(at, (title, _))| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        let widest = cells
            .map(|(text, _)| text.chars().count())
            .max()
            .unwrap_or(0);
        let wide = widest.max(title.len()) as u16;
        if at == flexible {
            Constraint::Fill(1)
        } else {
            Constraint::Length(wide)
        }
    });
    let widths: Vec<Constraint> = widths.collect();
    let line = |text: &str, style: Style, number: bool| {
        let line = Line::styled(text.to_owned(), style);
        if number { line.right_aligned() } else { line }
    };
    let titles = heading
        .iter()
        .map(|(title, number)| line(title, QUIET, *number));
    let body = rows.iter().map(|row| {
        let cells = row.iter().zip(heading);
        Row::new(cells.map(|((text, paint), (_, number))| line(text, style_of(*paint), *number)))
    });
    let inner = Rect {
        x: area.x.saturating_add(1),
        width: area.width.saturating_sub(2),
        ..area
    };
    let table = Table::new(body.collect::<Vec<_>>(), widths)
        .header(Row::new(titles.collect::<Vec<_>>()))
        .column_spacing(2);
    frame.render_widget(table, inner);
}

fn hint_line(roomy: bool, width: usize) -> Line<'static> {
    let mut parts = vec![(0, vec![Span::styled(" p: pause   q: end", QUIET)])];
    if !roomy {
        parts.insert(0, (0, vec![Span::styled(" tab", QUIET)]));
        parts.insert(1, (1, vec![Span::styled(", arrows", QUIET)]));
        parts.insert(2, (0, vec![Span::styled(": next table  ", QUIET)]));
    }
    fit(&mut parts, width);
    joined(parts)
}
