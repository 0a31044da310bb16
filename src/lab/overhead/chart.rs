//! Overhead against payload as a picture.

use super::facts::{BASIC, BEARER, Facts, KERBEROS, MAPI, RPC, RPC_SEALED};
use super::work::Work;
use std::fmt::Write as _;

/// One line of the picture.
struct Series {
    protocol: &'static str,
    authorization: &'static str,
    name: &'static str,
    class: &'static str,
}

/// In the order of the legend.
const SERIES: [Series; 5] = [
    Series {
        protocol: MAPI,
        authorization: BEARER,
        name: "MAPI/HTTP, Bearer",
        class: "a",
    },
    Series {
        protocol: MAPI,
        authorization: BASIC,
        name: "MAPI/HTTP, Basic",
        class: "b",
    },
    Series {
        protocol: MAPI,
        authorization: KERBEROS,
        name: "MAPI/HTTP, Kerberos once per connection",
        class: "c",
    },
    Series {
        protocol: RPC_SEALED,
        authorization: BASIC,
        name: "RPC/HTTP, fragments sealed",
        class: "d",
    },
    Series {
        protocol: RPC,
        authorization: BASIC,
        name: "RPC/HTTP",
        class: "e",
    },
];

/// An SVG of the overhead of both protocols against the payload, on a logarithmic scale. The sync, whose payload is that of
/// the largest transfer in smaller pieces, stands beside it; what was published stands behind all.
pub fn svg(facts: &Facts) -> String {
    let mut text = String::with_capacity(8 * 1024);
    // Writing into memory does not fail.
    let _infallible = draw(&mut text, facts);
    text
}

/// Where a percentage is, from the top.
fn y(percent: f64) -> f64 {
    let share =
        (percent.clamp(LEAST, MOST).log10() - LEAST.log10()) / (MOST.log10() - LEAST.log10());
    BOTTOM - share * (BOTTOM - TOP)
}

/// Where a column is, from the left.
fn x(column: usize) -> f64 {
    let column = f64::from(u32::try_from(column).unwrap_or(u32::MAX));
    let columns = f64::from(u32::try_from(Work::ALL.len()).unwrap_or(1));
    LEFT + (column + 0.5) * (RIGHT - LEFT) / columns
}

fn draw(text: &mut String, facts: &Facts) -> std::fmt::Result {
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
         <title>{TITLE}</title>\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"20\" y=\"28\">{TITLE}</text>\n\
         <text class=\"quiet\" x=\"20\" y=\"48\">In percent of the payload, TLS included, session open. Lower is better; the scale is logarithmic.</text>"
    )?;
    for percent in GRID {
        let y = y(percent);
        writeln!(
            text,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{percent} %</text>",
            LEFT - 8.0,
            y + 4.0
        )?;
    }
    for (column, work) in facts.work.iter().enumerate() {
        let executes = match work.executes {
            1 => "1 Execute".to_owned(),
            count => format!("{count} Executes"),
        };
        writeln!(
            text,
            "<text class=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"middle quiet\" x=\"{x:.1}\" y=\"{:.1}\">{executes}</text>",
            BOTTOM + 20.0,
            work.name,
            BOTTOM + 38.0,
            x = x(column),
        )?;
    }
    published(text, facts)?;
    for (place, series) in SERIES.iter().enumerate() {
        line(text, facts, place, series)?;
    }
    writeln!(text, "</svg>")
}

/// What was published, on top of what RPC over HTTP has here: how much more, in percent, at least and at most.
const PUBLISHED: [(Work, f64, f64); 2] = [(Work::AVERAGE, 1.1, 1.3), (Work::SYNC, 5.0, 10.0)];

fn published(text: &mut String, facts: &Facts) -> std::fmt::Result {
    for (column, work) in facts.work.iter().enumerate() {
        let claim = PUBLISHED.iter().find(|(known, ..)| known.name == work.name);
        let (Some((_, least, most)), Some(rpc)) = (claim, work.row(RPC, BASIC)) else {
            continue;
        };
        let beside =
            |more: f64| ((1.0 + rpc.overhead_percent / 100.0) * (1.0 + more / 100.0) - 1.0) * 100.0;
        let (top, bottom) = (y(beside(*most)), y(beside(*least)));
        writeln!(
            text,
            "<rect class=\"p\" x=\"{:.1}\" y=\"{top:.1}\" width=\"28\" height=\"{:.1}\"/>",
            x(column) - 14.0,
            bottom - top
        )?;
    }
    let y = legend(SERIES.len());
    writeln!(
        text,
        "<rect class=\"p\" x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"8\"/><text x=\"{:.1}\" y=\"{y:.1}\">published for MAPI/HTTP</text>",
        LEGEND - 7.0,
        y - 8.0,
        LEGEND + 12.0,
    )
}

/// Where a line of the legend is, from the top.
fn legend(place: usize) -> f64 {
    TOP + 8.0 + 20.0 * f64::from(u32::try_from(place).unwrap_or(0))
}

fn line(text: &mut String, facts: &Facts, place: usize, series: &Series) -> std::fmt::Result {
    let points: Vec<(f64, f64, f64)> = facts
        .work
        .iter()
        .enumerate()
        .filter_map(|(column, work)| {
            let row = work.row(series.protocol, series.authorization)?;
            Some((x(column), y(row.overhead_percent), row.overhead_percent))
        })
        .collect();
    writeln!(text, "<g class=\"{}\">", series.class)?;
    // The sync is other work of the same payload: no line leads to it.
    let joined = points.len().saturating_sub(1);
    let path: Vec<String> = points
        .iter()
        .take(joined)
        .map(|(x, y, _)| format!("{x:.1},{y:.1}"))
        .collect();
    writeln!(text, "<polyline points=\"{}\"/>", path.join(" "))?;
    for (x, y, percent) in &points {
        writeln!(
            text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}: {percent:.2} %</title></circle>",
            series.name
        )?;
    }
    let y = legend(place);
    writeln!(
        text,
        "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/></g><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        LEGEND,
        y - 4.0,
        LEGEND + 12.0,
        y,
        series.name
    )
}

const TITLE: &str = "Bytes on the wire beside the payload";
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 840.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 376.0;
const LEGEND: f64 = 540.0;
/// The ends of the scale, in percent.
const LEAST: f64 = 0.5;
const MOST: f64 = 300.0;
const GRID: [f64; 9] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:16px}\
.quiet{fill:#57606a;font-size:12px}.end{text-anchor:end}.middle{text-anchor:middle}.paper{fill:#fff}.grid{stroke:#8884}.p{fill:#8885}\
polyline{fill:none;stroke-width:2}\
.a polyline{stroke:#8250df}.a circle{fill:#8250df}.b polyline{stroke:#0969da}.b circle{fill:#0969da}\
.c polyline{stroke:#1a7f37;stroke-dasharray:5 4}.c circle{fill:#1a7f37}\
.d polyline{stroke:#9a6700;stroke-dasharray:2 3}.d circle{fill:#9a6700}.e polyline{stroke:#cf222e}.e circle{fill:#cf222e}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#8d96a0}.paper{fill:#0d1117}\
.a polyline{stroke:#d2a8ff}.a circle{fill:#d2a8ff}.b polyline{stroke:#58a6ff}.b circle{fill:#58a6ff}\
.c polyline{stroke:#3fb950}.c circle{fill:#3fb950}.d polyline{stroke:#d29922}.d circle{fill:#d29922}\
.e polyline{stroke:#ff7b72}.e circle{fill:#ff7b72}}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::overhead::samples;

    #[test]
    fn every_series_has_a_point_for_each_work_and_a_name() {
        let picture = svg(&samples::facts());

        for series in &SERIES {
            let point = format!("<title>{}: ", series.name);
            assert_eq!(picture.matches(&point).count(), 5, "{}", series.name);
            assert!(picture.contains(&format!(">{}</text>", series.name)));
        }
        // The average, the sync, and the legend.
        assert_eq!(picture.matches("class=\"p\"").count(), 3);
        assert!(picture.ends_with("</svg>\n"));
    }

    #[test]
    fn more_overhead_is_higher_and_nothing_leaves_the_picture() {
        assert!(y(10.0) < y(1.0));
        assert!((y(1e9) - TOP).abs() < 1e-6);
        assert!((y(0.0) - BOTTOM).abs() < 1e-6);
        assert!(x(4) < RIGHT);
    }
}
