//! The story as a picture: Executes that ended well, per tenth of a second and server, with what happened when.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Mark;
use crate::lab::outlook::{Outcome, Sent};

/// An SVG of the time from `began` to `ended`, microseconds since 1970.
pub(super) fn svg(sent: &[Sent], marks: &[Mark], began: u64, ended: u64) -> String {
    let columns = usize::try_from(ended.saturating_sub(began) / COLUMN).unwrap_or(0) + 1;
    let columns = columns.min(COLUMNS_MAX);
    let servers = columns_of(sent, began, columns);
    let tallest = (0..columns)
        .map(|column| servers.values().map(|counts| at(counts, column)).sum())
        .max()
        .unwrap_or(0);
    let scale = Scale {
        columns,
        top: tallest.next_multiple_of(10).max(10),
    };
    let mut text = String::with_capacity(64 * 1024);
    // Writing into memory does not fail.
    let _infallible = draw(&mut text, &servers, marks, began, &scale);
    text
}

/// How many Executes ended well, by server, then by column.
fn columns_of(sent: &[Sent], began: u64, columns: usize) -> BTreeMap<&str, Vec<u32>> {
    let mut servers: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for entry in sent {
        let (Outcome::Ok, Some(server)) = (&entry.outcome, &entry.server) else {
            continue;
        };
        let column = usize::try_from(entry.ended.saturating_sub(began) / COLUMN);
        let counts = servers.entry(server).or_insert_with(|| vec![0; columns]);
        if let Some(count) = column.ok().and_then(|column| counts.get_mut(column)) {
            *count += 1;
        }
    }
    servers
}

fn at(counts: &[u32], column: usize) -> u32 {
    counts.get(column).copied().unwrap_or(0)
}

/// From figures to places.
struct Scale {
    columns: usize,
    top: u32,
}

impl Scale {
    fn x(&self, column: f64) -> f64 {
        LEFT + column * self.column()
    }

    fn column(&self) -> f64 {
        (WIDTH - LEFT - RIGHT) / f64::from(u32::try_from(self.columns).unwrap_or(u32::MAX))
    }

    fn height(&self, count: u32) -> f64 {
        (BOTTOM - TOP) * f64::from(count) / f64::from(self.top)
    }
}

fn draw(
    text: &mut String,
    servers: &BTreeMap<&str, Vec<u32>>,
    marks: &[Mark],
    began: u64,
    scale: &Scale,
) -> std::fmt::Result {
    let height = BOTTOM + 50.0 + 18.0 * f64::from(u32::try_from(marks.len()).unwrap_or(0));
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>Executes that ended well, per 100 ms</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"24\">Executes that ended well, per 100 ms</text>"
    )?;
    for quarter in 0..=4 {
        let count = scale.top * quarter / 4;
        let y = BOTTOM - scale.height(count);
        writeln!(
            text,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{count}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
        )?;
    }
    for column in (0..scale.columns).step_by(PER_SECOND * 2) {
        let x = scale.x(f64::from(u32::try_from(column).unwrap_or(0)));
        let y = BOTTOM + 16.0;
        writeln!(
            text,
            "<text class=\"middle\" x=\"{x:.1}\" y=\"{y}\">{} s</text>",
            column / PER_SECOND
        )?;
    }
    let mut feet = vec![0; scale.columns];
    for (index, (server, counts)) in servers.iter().enumerate() {
        writeln!(text, "<g class=\"s{}\">", index % COLOURS)?;
        for (column, foot) in feet.iter_mut().enumerate() {
            let count = at(counts, column);
            if count == 0 {
                continue;
            }
            let x = scale.x(f64::from(u32::try_from(column).unwrap_or(0)));
            let (width, tall) = (scale.column() * 0.9, scale.height(count));
            let y = BOTTOM - scale.height(*foot) - tall;
            writeln!(
                text,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{tall:.1}\"/>"
            )?;
            *foot += count;
        }
        let x = WIDTH - RIGHT - 90.0 * f64::from(u32::try_from(servers.len() - index).unwrap_or(0));
        writeln!(
            text,
            "<rect x=\"{x:.1}\" y=\"13\" width=\"12\" height=\"12\"/></g><text x=\"{:.1}\" y=\"24\">{}</text>",
            x + 18.0,
            Escaped(server)
        )?;
    }
    for (index, mark) in marks.iter().enumerate() {
        let micros = u32::try_from(mark.at.saturating_sub(began)).unwrap_or(u32::MAX);
        let x = scale.x(f64::from(micros) / 1e5);
        let (number, seconds) = (index + 1, f64::from(micros) / 1e6);
        // Neighbours do not write over each other.
        let label = TOP - 6.0 - if index % 2 == 0 { 0.0 } else { 14.0 };
        let line = BOTTOM + 44.0 + 18.0 * f64::from(u32::try_from(index).unwrap_or(0));
        writeln!(
            text,
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{BOTTOM}\"/>\
             <text class=\"middle number\" x=\"{x:.1}\" y=\"{label:.1}\">{number}</text>\
             <text class=\"end number\" x=\"{:.1}\" y=\"{line}\">{number}</text>\
             <text x=\"{LEFT}\" y=\"{line}\">{seconds:.2} s  {}</text>",
            label + 2.0,
            LEFT - 6.0,
            Escaped(&mark.words)
        )?;
    }
    writeln!(text, "</svg>")
}

/// Text between tags.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            c => f.write_char(c),
        })
    }
}

/// Microseconds of a column.
const COLUMN: u64 = 100_000;
const PER_SECOND: usize = 10;
/// Ten minutes: a longer story is cut, so that the picture stays one.
const COLUMNS_MAX: usize = 6_000;
const WIDTH: f64 = 1200.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 340.0;
const COLOURS: usize = 3;
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:15px}\
.end{text-anchor:end}.middle{text-anchor:middle}.number{font-weight:600;fill:#cf222e}.paper{fill:#fff}\
.grid{stroke:#8884}.mark{stroke:#cf222e;stroke-dasharray:4 3}\
.s0{fill:#0969da}.s1{fill:#1a7f37}.s2{fill:#9a6700}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}.number{fill:#ff7b72}.mark{stroke:#ff7b72}\
.s0{fill:#58a6ff}.s1{fill:#3fb950}.s2{fill:#d29922}}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserName;

    fn sent(ended: u64, server: &str, outcome: Outcome) -> Sent {
        Sent {
            nonce: "n".to_owned(),
            user: UserName::new("user1@contoso.test"),
            mailbox: "box1@contoso.test".to_owned(),
            body: "aa".to_owned(),
            sent: ended,
            ended,
            outcome,
            code: Some(0),
            echoed: None,
            answered: None,
            server: Some(server.to_owned()),
            tries: 1,
        }
    }

    #[test]
    fn only_what_ended_well_is_counted_in_its_tenth_of_a_second() {
        let entries = [
            sent(1_000_000, "MBX1", Outcome::Ok),
            sent(1_099_999, "MBX1", Outcome::Ok),
            sent(1_100_000, "MBX2", Outcome::Ok),
            sent(1_100_000, "MBX2", Outcome::Failed("code 10".to_owned())),
        ];

        let servers = columns_of(&entries, 1_000_000, 3);

        assert_eq!(servers["MBX1"], [2, 0, 0]);
        assert_eq!(servers["MBX2"], [0, 1, 0]);
    }

    #[test]
    fn a_picture_has_a_line_for_each_mark_and_nothing_in_it_becomes_markup() {
        let marks = [Mark {
            at: 1_500_000,
            words: "MBX1 <killed>".to_owned(),
        }];

        let text = svg(
            &[sent(1_000_000, "MBX1", Outcome::Ok)],
            &marks,
            1_000_000,
            2_000_000,
        );

        assert!(text.contains("0.50 s  MBX1 &lt;killed&gt;</text>"));
        assert_eq!(text.matches("class=\"mark\"").count(), 1);
        assert!(text.ends_with("</svg>\n"));
    }

    #[test]
    fn a_story_without_events_is_still_a_picture() {
        assert!(svg(&[], &[], 5, 5).contains("<svg"));
    }
}
