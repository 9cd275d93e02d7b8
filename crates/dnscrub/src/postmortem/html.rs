//! An account as one page: no script, nothing to fetch, light or dark as the reader's system is, and fit to be
//! printed.

use std::fmt::Write as _;

use super::{Account, Cell, Part, Plot, Table};
use crate::legible::rate;
use crate::report::markup::{self, escape};
use crate::report::plot::{self, HEIGHT, Tick, area, figure, grid, hover};
use crate::unix_time::time_of_day;

/// Marks of a time axis.
const MARKS: [f64; 14] = [
    5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0,
    86_400.0,
];

/// The page.
#[must_use]
pub fn page(account: &Account) -> String {
    let mut text = markup::head(&account.title, include_str!("page.css"));
    let _ = writeln!(
        text,
        "<header><h1>{}</h1></header>\n<section>",
        escape(&account.title)
    );
    for part in &account.parts {
        match part {
            Part::Heading(heading) => {
                let _ = writeln!(text, "</section>\n<section><h2>{heading}</h2>");
            }
            Part::Text(words) => {
                let _ = writeln!(text, "<p>{}</p>", escape(words));
            }
            Part::Notice(words) => {
                let _ = writeln!(text, "<p class=\"notice\">{}</p>", escape(words));
            }
            Part::List(things) => {
                text.push_str("<ul>");
                for thing in things {
                    let _ = write!(text, "<li>{}</li>", escape(thing));
                }
                text.push_str("</ul>\n");
            }
            Part::Table(table) => write_table(&mut text, table),
            Part::Plot(plot) => write_plot(&mut text, plot),
        }
    }
    text.push_str("</section>\n</main>\n</body>\n</html>\n");
    text
}

fn write_table(text: &mut String, table: &Table) {
    text.push_str("<div class=\"scroll\"><table><thead><tr>");
    let class = |numbers: bool| if numbers { " class=\"n\"" } else { "" };
    for (title, numbers) in &table.heading {
        let _ = write!(text, "<th scope=\"col\"{}>{title}</th>", class(*numbers));
    }
    text.push_str("</tr></thead><tbody>");
    for row in &table.rows {
        text.push_str("<tr>");
        for (cell, (_, numbers)) in row.iter().zip(&table.heading) {
            let _ = match cell {
                Cell::Text(words) => write!(text, "<td{}>{}</td>", class(*numbers), escape(words)),
                Cell::Code(code) => write!(text, "<td class=\"key\">{}</td>", escape(code)),
            };
        }
        text.push_str("</tr>");
    }
    text.push_str("</tbody></table></div>\n");
}

fn write_plot(text: &mut String, drawn: &Plot) {
    let (Some(from), Some(to)) = (drawn.edges.first(), drawn.edges.last()) else {
        return;
    };
    let steps = drawn.edges.len().saturating_sub(1);
    let sums: Vec<f64> = (0..steps)
        .map(|step| {
            let values = drawn
                .layers
                .iter()
                .filter_map(|layer| layer.values.get(step));
            values.sum()
        })
        .collect();
    let (ceiling, ticks) = plot::scale(sums.iter().copied().fold(0.0, f64::max));
    let wide = (to - from).max(1.0);
    let edges: Vec<f64> = drawn.edges.iter().map(|edge| tenth(edge - from)).collect();
    let mut drawing = String::new();
    grid(&mut drawing, &ticks, wide);
    let height = |value: f64| HEIGHT * (1.0 - value / ceiling);
    let mut below = vec![0.0; steps];
    for layer in &drawn.layers {
        let above: Vec<f64> = below
            .iter()
            .zip(&layer.values)
            .map(|(below, value)| below + value)
            .collect();
        if layer.values.iter().any(|value| *value > 0.0) {
            let heights = |values: &[f64]| values.iter().copied().map(height).collect::<Vec<_>>();
            drawing.push_str(&area(
                layer.class,
                &edges,
                &heights(&below),
                &heights(&above),
            ));
        }
        below = above;
    }
    for moment in &drawn.moments {
        if moment > from && moment < to {
            let x = tenth(moment - from);
            let _ = write!(drawing, r#"<path class="moment" d="M{x} 0V{HEIGHT}"/>"#);
        }
    }
    for (step, pair) in drawn.edges.windows(2).enumerate() {
        let &[begin, end] = pair else { continue };
        let mut words = time_of_day(begin);
        for layer in &drawn.layers {
            let value = layer.values.get(step).copied().unwrap_or(0.0);
            let _ = write!(words, "\n{}: {}", layer.label, rate(value));
        }
        hover(
            &mut drawing,
            tenth(begin - from),
            tenth(end - begin),
            &words,
        );
    }
    let _ = write!(text, "<h3>{}</h3><ul class=\"legend\">", drawn.title);
    for layer in &drawn.layers {
        let _ = write!(
            text,
            "<li><i class=\"{}\"></i>{}</li>",
            layer.class, layer.label
        );
    }
    text.push_str("<li class=\"dashes\">began, named, over</li></ul>");
    text.push_str(&figure(
        &drawing,
        wide,
        &ticks,
        &times(*from, *to),
        drawn.title,
    ));
    text.push('\n');
}

/// Marks at round times of day.
fn times(from: f64, to: f64) -> Vec<Tick> {
    let span = (to - from).max(1.0);
    let step = MARKS
        .into_iter()
        .find(|step| span / step <= 7.0)
        .unwrap_or(604_800.0);
    let mut ticks = Vec::new();
    let mut at = (from / step).ceil() * step;
    while at <= to {
        ticks.push(Tick {
            at: (at - from) / span,
            label: time_of_day(at),
        });
        at += step;
    }
    ticks
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
