//! What the report on a replay plots.

use std::fmt::Write as _;

use super::tally::{Class, Classes};
use crate::legible::grouped;
use crate::report::plot::{
    HEIGHT, Tick, area, decimal, figure, grid, hover, scale, time, time_scale,
};

/// Queries a second by class, stacked, over time. `top` is the highest rate the axis must show.
#[allow(clippy::cast_precision_loss, reason = "a drawing")]
pub(super) fn over_time(steps: &[Classes], step_seconds: f64, top: f64, describe: &str) -> String {
    let (ceiling, ticks) = scale(top);
    let width = steps.len().max(1);
    let height = |count: u64| HEIGHT * (1.0 - count as f64 / step_seconds / ceiling);
    let mut drawing = String::new();
    grid(&mut drawing, &ticks, width as f64);
    let edges: Vec<f64> = (0..=steps.len()).map(|edge| edge as f64).collect();
    let mut below = vec![0_u64; steps.len()];
    for class in Class::ALL {
        let above: Vec<u64> = steps
            .iter()
            .zip(&below)
            .map(|(step, below)| below + step.get(class as usize).copied().unwrap_or(0))
            .collect();
        if above != below {
            let heights = |counts: &[u64]| counts.iter().copied().map(height).collect::<Vec<_>>();
            let class = format!("c{}", class as usize);
            drawing.push_str(&area(&class, &edges, &heights(&below), &heights(&above)));
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
        hover(&mut drawing, place as f64, 1.0, &words);
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
    figure(&drawing, width as f64, &ticks, &x, describe)
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
    grid(&mut drawing, &ticks, width as f64);
    for (place, (range, bar)) in bars.iter().enumerate() {
        let all = total(bar);
        let tall = HEIGHT * height(all);
        let mut from = HEIGHT;
        let mut words = format!("{range} points: {}", grouped(all));
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
            let _ = write!(words, "\n{}: {}", class.label(), grouped(*count));
        }
        hover(&mut drawing, place as f64, 1.0, &words);
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
    figure(&drawing, width as f64, &ticks, &x, describe)
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

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn rate(count: u64, seconds: f64) -> String {
    decimal((count as f64 / seconds * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
