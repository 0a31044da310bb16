//! The part of the page that tells who used how much.

use super::Text;
use crate::accounting::Usage;
use crate::accounting::usage::{Dimension, List, Row, Used, Weight};
use bytesize::ByteSize;
use std::fmt::{self, Write};

/// The heaviest names of each kind.
#[derive(Debug)]
pub(crate) struct Heaviest(Vec<(Dimension, List)>);

impl Heaviest {
    /// As they are now.
    pub(crate) fn of(usage: &Usage) -> Self {
        let list = |dimension| (dimension, usage.list(dimension, BY, ROWS));
        Self(match usage.is_on() {
            true => Dimension::ALL.map(list).into(),
            false => Vec::new(),
        })
    }
}

pub(super) fn write(html: &mut String, heaviest: &Heaviest) -> fmt::Result {
    let Some((_, any)) = heaviest.0.first() else {
        return Ok(());
    };
    write!(
        html,
        "<h2>Usage</h2><p>{} requests, {} of processor time, {} in, {} out. Of each kind, who took most time:</p>",
        any.total.requests,
        cpu(any.total.cpu_ns),
        bytes(any.total.bytes_in),
        bytes(any.total.bytes_out),
    )?;
    html.write_str("<div class=usage>")?;
    for (dimension, list) in &heaviest.0 {
        write_list(html, *dimension, list)?;
    }
    html.write_str("</div>")
}

fn write_list(html: &mut String, dimension: Dimension, list: &List) -> fmt::Result {
    let total = list.total.of(BY);
    write!(
        html,
        "<table><tr><th>{}<th class=n>Requests<th class=n>CPU<th class=n>Share<th class=n>In<th class=n>Out",
        heading(dimension),
    )?;
    for Row {
        name,
        used,
        overestimate_max,
        ..
    } in &list.rows
    {
        write!(html, "<tr><td>{}", Text(name))?;
        write_used(html, used, *overestimate_max, total)?;
    }
    let mut others = list.total;
    others.requests -= list.listed.requests.min(others.requests);
    others.cpu_ns -= list.listed.cpu_ns.min(others.cpu_ns);
    others.bytes_in -= list.listed.bytes_in.min(others.bytes_in);
    others.bytes_out -= list.listed.bytes_out.min(others.bytes_out);
    let word = dimension.as_str();
    write!(
        html,
        "<tr class=rest><td>all others · <a href=\"/usage.json?by={word}&amp;sort=cpu&amp;top=100\">more</a>"
    )?;
    write_used(html, &others, 0, total)?;
    html.write_str("</table>")
}

/// Figures of one line. `more`: what may have been missed.
fn write_used(html: &mut String, used: &Used, more: u64, total: u64) -> fmt::Result {
    write!(
        html,
        "<td class=n>{}<td class=n>{}",
        used.requests,
        cpu(used.cpu_ns)
    )?;
    if more > 0 {
        write!(html, " to {}", cpu(used.cpu_ns.saturating_add(more)))?;
    }
    let percent = match total {
        0 => 0.0,
        total => used.of(BY) as f64 * 100.0 / total as f64,
    };
    write!(
        html,
        "<td class=n>{percent:.1} %<td class=n>{}<td class=n>{}",
        bytes(used.bytes_in),
        bytes(used.bytes_out),
    )
}

fn heading(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::User => "User",
        Dimension::Mailbox => "Mailbox",
        Dimension::Client => "Client",
        Dimension::Database => "Database",
    }
}

fn cpu(nanoseconds: u64) -> String {
    let seconds = nanoseconds as f64 / 1e9;
    match seconds {
        0.0..1.0 => format!("{:.1} ms", seconds * 1e3),
        1.0..1000.0 => format!("{seconds:.1} s"),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

fn bytes(count: u64) -> String {
    ByteSize(count).display().iec().to_string()
}

/// What the page sorts by, and shows the share of.
const BY: Weight = Weight::Cpu;
/// Names of each kind.
const ROWS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::usage::Names;
    use std::time::SystemTime;

    fn page_of(entries: usize, users: &[(&str, u64)]) -> String {
        let usage = Usage::new(entries, SystemTime::UNIX_EPOCH);
        for (user, cpu_ns) in users {
            let names = Names {
                user,
                ..Names::default()
            };
            let used = Used {
                requests: 1,
                cpu_ns: *cpu_ns,
                bytes_in: 2048,
                bytes_out: 1_000,
            };
            usage.charge(&names, used);
        }
        usage.hand_over();
        let mut html = String::new();
        write(&mut html, &Heaviest::of(&usage)).unwrap();
        html
    }

    #[test]
    fn the_heaviest_come_first_with_their_share_and_the_others_in_one_line() {
        let users = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 85)];
        let html = page_of(10, &users.map(|(name, ms)| (name, ms * 1_000_000)));

        let first = "<tr><td>f<td class=n>1<td class=n>85.0 ms<td class=n>85.0 %<td class=n>2.0 KiB<td class=n>1000 B";
        assert!(html.contains(&format!("Out{first}<tr><td>e")), "{html}");
        assert!(!html.contains("<td>a<"));
        assert!(html.contains("more</a><td class=n>1<td class=n>1.0 ms<td class=n>1.0 %"));
        assert!(html.contains("6 requests, 100.0 ms of processor time"));
    }

    #[test]
    fn what_may_have_been_missed_is_shown() {
        let names: Vec<String> = (0..9).map(|n| format!("user{n}")).collect();
        let users: Vec<(&str, u64)> = names
            .iter()
            .map(|name| (name.as_str(), 2_000_000))
            .collect();
        let html = page_of(1, &users);

        assert!(html.contains("<td class=n>2.0 ms to 4.0 ms"), "{html}");
    }

    #[test]
    fn a_name_is_text_and_a_site_that_counts_nothing_has_no_such_part() {
        let html = page_of(10, &[("<img src=x onerror=alert(1)>", 1)]);
        assert!(html.contains("&lt;img") && !html.contains("<img"));
        assert_eq!(page_of(0, &[("a", 1)]), "");
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(cpu(999_000), "1.0 ms");
        assert_eq!(cpu(1_500_000_000), "1.5 s");
        assert_eq!(cpu(7_200_000_000_000), "2.0 h");
    }
}
