//! Plots as inline SVG. The drawing stretches to the width there is; its labels are text of the page
//! beside it, so that they stay legible on a phone.

use std::fmt::Write as _;

use super::markup::escape;
use crate::legible::whole;

/// Height of a drawing in its own units.
pub(crate) const HEIGHT: f64 = 1000.0;

/// A mark on an axis: where, from 0 to 1, and what stands there.
pub(crate) struct Tick {
    pub(crate) at: f64,
    pub(crate) label: String,
}

/// The area between two lines of steps, in heights of the drawing; `edges` are where steps begin, and the last one's
/// end.
pub(crate) fn area(class: &str, edges: &[f64], below: &[f64], above: &[f64]) -> String {
    let mut path = String::new();
    for (place, (y, to)) in above.iter().zip(edges.iter().skip(1)).enumerate() {
        let _ = match (place, edges.first()) {
            (0, Some(from)) => write!(path, "M{from} {y:.1}H{to}"),
            _ => write!(path, "V{y:.1}H{to}"),
        };
    }
    for (y, from) in below.iter().zip(edges).rev() {
        let _ = write!(path, "V{y:.1}H{from}");
    }
    format!(r#"<path class="{class}" d="{path}Z"/>"#)
}

/// A line at each mark of the upright axis.
pub(crate) fn grid(drawing: &mut String, ticks: &[Tick], width: f64) {
    for tick in ticks {
        let y = HEIGHT * (1.0 - tick.at);
        let _ = write!(drawing, r#"<path class="grid" d="M0 {y:.1}H{width}"/>"#);
    }
}

/// What a browser shows when the pointer rests on a step.
pub(crate) fn hover(drawing: &mut String, from: f64, wide: f64, words: &str) {
    let _ = write!(
        drawing,
        r#"<rect class="hover" x="{from}" y="0" width="{wide}" height="{HEIGHT}"><title>{}</title></rect>"#,
        escape(words)
    );
}

/// A drawing of this width in its own units, with its labels.
pub(crate) fn figure(drawing: &str, width: f64, y: &[Tick], x: &[Tick], describe: &str) -> String {
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
pub(crate) fn scale(top: f64) -> (f64, Vec<Tick>) {
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
pub(crate) fn time_scale(seconds: f64) -> (f64, Vec<f64>) {
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

/// A time since the beginning, in seconds.
pub(crate) fn time(seconds: f64) -> String {
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

/// A number of a small axis, without a needless fraction.
pub(crate) fn decimal(value: f64) -> String {
    if value.fract().abs() < 1e-6 {
        whole(value)
    } else {
        trimmed(value)
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
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
}
