//! Bar charts of the results as SVG files, readable without the tables.

use crate::plan::{MAPIGATE, Plan, YARDSTICK};
use crate::report::{POLL_KB_MAX, Results, Spread, Work};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 120.0;
const RIGHT: f64 = 190.0;
const LABELS: f64 = WIDTH - RIGHT + 16.0;
const TOP: f64 = 92.0;
const BAR: f64 = 22.0;
const STEP: f64 = 28.0;
const HEADING: f64 = 34.0;
const FONT: &str = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\"";

/// Bars under one heading, on one scale.
#[derive(Debug)]
struct Group {
    heading: String,
    bars: Vec<Bar>,
    /// Where mapigate wants to be: at or left of this.
    target: Option<f64>,
}

#[derive(Debug)]
struct Bar {
    peer: String,
    spread: Spread,
    label: String,
}

/// A whole picture.
#[derive(Debug)]
struct Chart {
    title: &'static str,
    subtitle: String,
    unit: &'static str,
    /// A line across all groups, with its name.
    reference: Option<(f64, &'static str)>,
    groups: Vec<Group>,
}

/// Draws what there is figures for; a smoke run has a folder of its own.
pub(crate) fn write(plan: &Plan, results: &Results) -> Result<()> {
    let folder = if plan.smoke {
        plan.charts.join("smoke")
    } else {
        plan.charts.clone()
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    for (name, chart) in [
        ("ratios.svg", ratios(results)),
        ("polls.svg", polls(results)),
    ] {
        if chart.groups.is_empty() {
            continue;
        }
        let file = folder.join(name);
        std::fs::write(&file, chart.draw()).with_context(|| format!("{}", file.display()))?;
        println!("chart: {}", file.display());
    }
    Ok(())
}

fn ratios(results: &Results) -> Chart {
    let mut groups = Vec::new();
    for work in Work::ALL
        .into_iter()
        .filter(|work| *work != Work::Returning)
    {
        let Some(peers) = results.works.get(&work) else {
            continue;
        };
        let bars = peers.keys().filter_map(|peer| {
            let spread = results.ratio(work, peer)?;
            let cpu = results.cpu(work, peer)?.median;
            Some(Bar {
                peer: peer.clone(),
                spread,
                label: format!("{:.2} × ({} µs)", spread.median, figure(cpu)),
            })
        });
        let bars = in_order(bars);
        if !bars.is_empty() {
            groups.push(Group {
                heading: work.title().to_owned(),
                bars,
                target: work.target(),
            });
        }
    }
    Chart {
        title: "CPU time of the proxy per request, compared with nginx",
        subtitle: "Shorter is better. One worker alone on one core; median of all rounds, whiskers from the smallest to the largest.".to_owned(),
        unit: "× nginx in the same round",
        reference: Some((1.0, YARDSTICK)),
        groups,
    }
}

fn polls(results: &Results) -> Chart {
    let count = results
        .polls
        .values()
        .flatten()
        .map(|found| found.polls)
        .max()
        .unwrap_or(0);
    let memory = results.polls.keys().filter_map(|peer| {
        let spread = results.poll_kb(peer)?;
        Some(Bar {
            peer: peer.clone(),
            spread,
            label: format!("{:.1} KB", spread.median),
        })
    });
    let bars = in_order(memory);
    let groups = if bars.is_empty() {
        Vec::new()
    } else {
        vec![Group {
            heading: "C: resident memory of the proxy".to_owned(),
            bars,
            target: Some(POLL_KB_MAX),
        }]
    };
    Chart {
        title: "Memory per held NotificationWait",
        subtitle: format!(
            "Shorter is better. {count} polls over TLS, after PENDINGs have passed through each."
        ),
        unit: "KB per held poll",
        reference: None,
        groups,
    }
}

/// Ours first, then the others by name.
fn in_order(bars: impl Iterator<Item = Bar>) -> Vec<Bar> {
    let mut bars: Vec<Bar> = bars.collect();
    bars.sort_by_key(|bar| (bar.peer != MAPIGATE, bar.peer.clone()));
    bars
}

impl Chart {
    fn draw(&self) -> String {
        let rows: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let bottom = TOP + rows as f64 * STEP + self.groups.len() as f64 * HEADING;
        let height = bottom + 58.0;
        let largest = self
            .groups
            .iter()
            .flat_map(|group| {
                group
                    .bars
                    .iter()
                    .map(|bar| bar.spread.max)
                    .chain(group.target)
            })
            .chain(self.reference.map(|(at, _)| at))
            .fold(0.0, f64::max);
        let tick = nice_step(largest);
        let end = (largest / tick).ceil() * tick;
        let x = |value: f64| LEFT + value / end * (WIDTH - LEFT - RIGHT);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" {FONT}>\n\
             <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            title = escape(self.title)
        );
        text(
            &mut svg,
            (24.0, 34.0),
            "start",
            "font-size=\"19\" font-weight=\"600\" fill=\"#16202a\"",
            self.title,
        );
        text(
            &mut svg,
            (24.0, 57.0),
            "start",
            "font-size=\"13\" fill=\"#55636f\"",
            &self.subtitle,
        );
        self.draw_scale(&mut svg, bottom, end, tick, x);
        let mut y = TOP;
        for group in &self.groups {
            y = group.draw(&mut svg, y, x);
        }
        if let Some((at, name)) = self.reference {
            line(
                &mut svg,
                (x(at), TOP - 6.0),
                (x(at), bottom + 4.0),
                "stroke=\"#16202a\" stroke-width=\"1.2\"",
            );
            text(
                &mut svg,
                (x(at), TOP - 11.0),
                "middle",
                "font-size=\"11\" fill=\"#16202a\"",
                name,
            );
        }
        svg + "</svg>\n"
    }

    fn draw_scale(
        &self,
        svg: &mut String,
        bottom: f64,
        end: f64,
        tick: f64,
        x: impl Fn(f64) -> f64,
    ) {
        let mut value = 0.0;
        while value <= end + tick / 2.0 {
            line(
                svg,
                (x(value), TOP - 4.0),
                (x(value), bottom + 4.0),
                "stroke=\"#e6ebef\"",
            );
            let label = if tick < 1.0 {
                format!("{value:.1}")
            } else {
                format!("{value:.0}")
            };
            text(
                svg,
                (x(value), bottom + 20.0),
                "middle",
                "font-size=\"12\" fill=\"#55636f\"",
                &label,
            );
            value += tick;
        }
        text(
            svg,
            (x(end / 2.0), bottom + 42.0),
            "middle",
            "font-size=\"12.5\" fill=\"#33414d\"",
            self.unit,
        );
    }
}

impl Group {
    /// Draws from `y` down; returns where the next group begins.
    fn draw(&self, svg: &mut String, y: f64, x: impl Fn(f64) -> f64) -> f64 {
        text(
            svg,
            (24.0, y + 21.0),
            "start",
            "font-size=\"13.5\" font-weight=\"600\" fill=\"#16202a\"",
            &self.heading,
        );
        let first = y + HEADING;
        let mut y = first;
        for bar in &self.bars {
            let (colour, weight) = match bar.peer.as_str() {
                MAPIGATE => ("#0b7a75", "600"),
                YARDSTICK => ("#9aa7b2", "400"),
                _ => ("#c3ccd4", "400"),
            };
            let middle = y + BAR / 2.0;
            let style = format!("font-size=\"13\" font-weight=\"{weight}\" fill=\"#33414d\"");
            text(svg, (LEFT - 10.0, middle + 4.5), "end", &style, &bar.peer);
            let width = x(bar.spread.median) - LEFT;
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{colour}\"/>"
            );
            let (from, to) = (x(bar.spread.min), x(bar.spread.max));
            let whisker = "stroke=\"#16202a\" stroke-opacity=\"0.65\"";
            line(svg, (from, middle), (to, middle), whisker);
            for end in [from, to] {
                line(svg, (end, middle - 4.0), (end, middle + 4.0), whisker);
            }
            // All labels in a column of their own, where no line crosses them.
            text(svg, (LABELS, middle + 4.5), "start", &style, &bar.label);
            y += STEP;
        }
        if let Some(target) = self.target {
            let at = x(target);
            line(
                svg,
                (at, first - 4.0),
                (at, y - 2.0),
                "stroke=\"#c2410c\" stroke-width=\"1.6\" stroke-dasharray=\"4 3\"",
            );
            let style = "font-size=\"12.5\" fill=\"#c2410c\"";
            let words = format!("target: at most {target}");
            text(svg, (LABELS, first - 13.0), "start", style, &words);
        }
        y
    }
}

/// A step of 1, 2 or 5 times a power of ten that divides the scale into at most eight.
fn nice_step(largest: f64) -> f64 {
    let rough = (largest / 7.0).max(1e-6);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough);
    step.unwrap_or(10.0 * power)
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {style}/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, style: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" {style}>{}</text>",
        at.0,
        at.1,
        escape(words)
    );
}

fn escape(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
