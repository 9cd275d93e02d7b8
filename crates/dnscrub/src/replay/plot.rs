//! Plots as inline SVG. The drawing stretches to the width there is; its labels are text of the page
//! beside it, so that they stay legible on a phone.

use std::fmt::Write as _;

use super::html::{escape, number};
use super::tally::{Class, Classes};

/// Height of a drawing in its own units.
const HEIGHT: f64 = 1000.0;

/// A mark on an axis: where, from 0 to 1, and what stands there.
struct Tick {
    at: f64,
    label: String,
}

/// Queries a second by class, stacked, over time. `top` is the highest rate the axis must show.
#[allow(clippy::cast_precision_loss, reason = "a drawing")]
pub(super) fn over_time(steps: &[Classes], step_seconds: f64, top: f64, describe: &str) -> String {
    let (ceiling, ticks) = scale(top);
    let width = steps.len().max(1);
    let height = |count: u64| HEIGHT * (1.0 - count as f64 / step_seconds / ceiling);
    let mut drawing = String::new();
    grid(&mut drawing, &ticks, width);
    let mut below = vec![0_u64; steps.len()];
    for class in Class::ALL {
        let above: Vec<u64> = steps
            .iter()
            .zip(&below)
            .map(|(step, below)| below + step.get(class as usize).copied().unwrap_or(0))
            .collect();
        if above != below {
            let mut path = String::new();
            for (place, count) in above.iter().enumerate() {
                let y = height(*count);
                let _ = match place {
                    0 => write!(path, "M0 {y:.1}H1"),
                    _ => write!(path, "V{y:.1}H{}", place + 1),
                };
            }
            for (place, count) in below.iter().enumerate().rev() {
                let _ = write!(path, "V{:.1}H{place}", height(*count));
            }
            let _ = write!(
                drawing,
                r#"<path class="c{}" d="{path}Z"/>"#,
                class as usize
            );
        }
        below = above;
    }
    for (place, step) in steps.iter().enumerate() {
        let from = place as f64 * step_seconds;
        let mut words = format!("{} to {}", time(from), time(from + step_seconds));
        for (class, count) in Class::ALL.iter().zip(step) {
            if *count > 0 {
                let _ = write!(
                    words,
                    "\n{}: {}/s",
                    class.label(),
                    rate(*count, step_seconds)
                );
            }
        }
        hover(&mut drawing, place, &words);
    }
    let seconds = width as f64 * step_seconds;
    let (last, marks) = time_scale(seconds);
    let x: Vec<Tick> = marks
        .iter()
        .filter(|mark| **mark <= last)
        .map(|mark| Tick {
            at: mark / seconds,
            label: time(*mark),
        })
        .collect();
    figure(&drawing, width, &ticks, &x, describe)
}

/// The highest rate of all steps.
#[allow(clippy::cast_precision_loss, reason = "a drawing")]
pub(super) fn highest(steps: &[Classes], step_seconds: f64) -> f64 {
    let highest = steps.iter().map(|step| step.iter().sum::<u64>()).max();
    highest.unwrap_or(0) as f64 / step_seconds
}

/// Bars of a logarithmic height, each coloured by the classes' shares in it.
#[allow(clippy::cast_precision_loss, reason = "a drawing")]
pub(super) fn histogram(bars: &[(String, Classes)], describe: &str) -> String {
    let total = |bar: &Classes| bar.iter().sum::<u64>();
    let most = bars.iter().map(|(_, bar)| total(bar)).max().unwrap_or(0);
    // one query is visible: the axis begins below it
    let decades = (most.max(1) as f64).log10().ceil().max(1.0);
    let height = |count: u64| match count {
        0 => 0.0,
        count => ((count as f64).log10() + 0.5) / (decades + 0.5),
    };
    let mut ticks = Vec::new();
    let mut power = 1_u64;
    while height(power) <= 1.0 + 1e-9 {
        ticks.push(Tick {
            at: height(power),
            label: short(power),
        });
        power *= 10;
    }
    let mut drawing = String::new();
    let width = bars.len().max(1);
    grid(&mut drawing, &ticks, width);
    for (place, (range, bar)) in bars.iter().enumerate() {
        let all = total(bar);
        let tall = HEIGHT * height(all);
        let mut from = HEIGHT;
        let mut words = format!("{range} points: {}", number(all));
        for (class, count) in Class::ALL.iter().zip(bar) {
            if *count == 0 {
                continue;
            }
            let part = tall * *count as f64 / all as f64;
            from -= part;
            let x = place as f64 + 0.08;
            let _ = write!(
                drawing,
                r#"<rect class="c{}" x="{x:.2}" y="{from:.1}" width="0.84" height="{part:.1}"/>"#,
                *class as usize
            );
            let _ = write!(words, "\n{}: {}", class.label(), number(*count));
        }
        hover(&mut drawing, place, &words);
    }
    let every = width.div_ceil(8);
    let x: Vec<Tick> = bars
        .iter()
        .enumerate()
        .filter(|(place, _)| place.is_multiple_of(every))
        .map(|(place, (range, _))| Tick {
            at: (place as f64 + 0.5) / width as f64,
            label: range.clone(),
        })
        .collect();
    figure(&drawing, width, &ticks, &x, describe)
}

fn grid(drawing: &mut String, ticks: &[Tick], width: usize) {
    for tick in ticks {
        let y = HEIGHT * (1.0 - tick.at);
        let _ = write!(drawing, r#"<path class="grid" d="M0 {y:.1}H{width}"/>"#);
    }
}

/// What a browser shows when the pointer rests on a step.
fn hover(drawing: &mut String, place: usize, words: &str) {
    let _ = write!(
        drawing,
        r#"<rect class="hover" x="{place}" y="0" width="1" height="{HEIGHT}"><title>{}</title></rect>"#,
        escape(words)
    );
}

fn figure(drawing: &str, width: usize, y: &[Tick], x: &[Tick], describe: &str) -> String {
    let mut text = String::from(r#"<div class="plot"><div class="y" aria-hidden="true">"#);
    for tick in y {
        let _ = write!(
            text,
            r#"<span style="bottom:{:.2}%">{}</span>"#,
            tick.at * 100.0,
            escape(&tick.label)
        );
    }
    let _ = write!(
        text,
        r#"</div><svg viewBox="0 0 {width} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{}">{drawing}</svg><div class="x" aria-hidden="true">"#,
        escape(describe)
    );
    for tick in x {
        let _ = write!(
            text,
            r#"<span style="left:{:.2}%">{}</span>"#,
            tick.at * 100.0,
            escape(&tick.label)
        );
    }
    text.push_str("</div></div>");
    text
}

/// A linear axis from 0: its upper end and its marks.
fn scale(top: f64) -> (f64, Vec<Tick>) {
    let top = top.max(1.0);
    let step = round_up(top / 4.0);
    let ceiling = (top / step).ceil() * step;
    let mut ticks = Vec::new();
    let mut mark = 0.0;
    while mark <= ceiling * 1.000_1 {
        ticks.push(Tick {
            at: mark / ceiling,
            label: decimal(mark),
        });
        mark += step;
    }
    (ceiling, ticks)
}

/// The next of 1, 2, 5, 10, 20, 50, and so on.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .iter()
        .map(|factor| factor * power)
        .find(|step| *step >= value * 0.999_9)
        .unwrap_or(value)
}

/// The last moment worth a mark, and the marks.
fn time_scale(seconds: f64) -> (f64, Vec<f64>) {
    const STEPS: [f64; 20] = [
        0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
        7200.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0, 604_800.0,
    ];
    let step = STEPS
        .iter()
        .copied()
        .find(|step| seconds / step <= 7.0)
        .unwrap_or(seconds / 7.0);
    let mut marks = Vec::new();
    let mut mark = 0.0;
    while mark <= seconds * 1.000_1 {
        marks.push(mark);
        mark += step;
    }
    // a label at the very end would stand out of the plot
    (seconds, marks)
}

fn time(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{} s", trimmed(seconds));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds of a trace"
    )]
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{rest:02}")
    } else {
        format!("{minutes}:{rest:02}")
    }
}

/// A power of ten on a narrow axis.
fn short(power: u64) -> String {
    match power {
        1_000_000_000.. => format!("{}G", power / 1_000_000_000),
        1_000_000.. => format!("{}M", power / 1_000_000),
        1_000.. => format!("{}k", power / 1_000),
        _ => power.to_string(),
    }
}

/// A number of a small axis, without a needless fraction.
fn decimal(value: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "labels of an axis that begins at 0"
    )]
    if value.fract().abs() < 1e-6 {
        number(value.round() as u64)
    } else {
        trimmed(value)
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn rate(count: u64, seconds: f64) -> String {
    decimal((count as f64 / seconds * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_marks() {
        let labels = |top| {
            let (_, ticks) = scale(top);
            ticks.into_iter().map(|tick| tick.label).collect::<Vec<_>>()
        };
        assert_eq!(labels(0.0), ["0", "0.5", "1"]);
        assert_eq!(labels(930.0), ["0", "500", "1,000"]);
        assert_eq!(labels(7_800.0), ["0", "2,000", "4,000", "6,000", "8,000"]);
        assert_eq!(time_scale(60.0).1.len(), 7);
        assert_eq!(
            [time(0.5), time(59.0), time(90.0), time(3_723.0)],
            ["0.5 s", "59 s", "1:30", "1:02:03"]
        );
    }

    #[test]
    fn classes_are_stacked_and_those_without_queries_left_out() {
        let steps = [[10, 0, 0, 0, 0, 0], [10, 0, 0, 0, 0, 30]];
        let text = over_time(&steps, 1.0, highest(&steps, 1.0), "rate");
        assert!(
            text.contains(r#"<path class="c0" d="M0 750.0H1V750.0H2V1000.0H1V1000.0H0Z"/>"#),
            "{text}"
        );
        assert!(
            text.contains(r#"<path class="c5" d="M0 750.0H1V0.0H2V750.0H1V750.0H0Z"/>"#),
            "{text}"
        );
        assert!(!text.contains(r#"class="c2""#), "{text}");
    }
}
