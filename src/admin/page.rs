//! The status page for people: one HTML text, no script, everything escaped.

mod usage;

pub(super) use usage::Heaviest;

use super::status::{
    CertificateStatus, CopiesStatus, DatabaseStatus, DirectoryServer, ProbeStatus, ReloadStatus,
    ServerStatus, Status,
};
use crate::placement::Source;
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// The whole page. It asks the browser to come back every few seconds.
pub(super) fn page(status: &Status, heaviest: &Heaviest) -> String {
    let mut html = String::with_capacity(8 * 1024);
    // Writing into a string does not fail.
    let _ = write_page(&mut html, status, heaviest);
    html
}

fn write_page(html: &mut String, status: &Status, heaviest: &Heaviest) -> fmt::Result {
    html.write_str(HEAD)?;
    write!(
        html,
        "<header><h1>mapigate</h1><p>{} · <b class=\"{}\">{}</b> · generation {} · up {}</p></header>",
        Text(status.version),
        if status.phase == "serving" {
            "good"
        } else {
            "bad"
        },
        Text(status.phase),
        status.generation,
        duration(status.uptime_seconds),
    )?;
    write_figures(html, status)?;
    write_servers(html, &status.servers, status.health_panics)?;
    write_databases(html, &status.databases)?;
    write_copies(html, status.copies.as_ref())?;
    write_directory(html, &status.directory, status.directory_entries)?;
    write_probes(html, &status.probes)?;
    usage::write(html, heaviest)?;
    write_reload(html, &status.last_reload)?;
    write_certificates(html, &status.certificates)?;
    html.write_str(FOOT)
}

fn write_figures(html: &mut String, status: &Status) -> fmt::Result {
    html.write_str("<ul class=\"figures\">")?;
    let dropped = status.access_log_dropped;
    for (figure, words) in [
        (status.connections.to_string(), "connections"),
        (status.requests_in_flight.to_string(), "requests under way"),
        (status.held_polls.to_string(), "held polls"),
        (
            format!("{} / {}", status.sessions, status.sessions_capacity),
            "sessions",
        ),
        (status.mailboxes.to_string(), "mailboxes"),
        (status.placement_epoch.to_string(), "placement epoch"),
        (dropped.to_string(), "access lines lost"),
    ] {
        write!(html, "<li><b>{}</b>{}</li>", Text(figure), Text(words))?;
    }
    html.write_str("</ul>")
}

fn write_servers(html: &mut String, servers: &[ServerStatus], panics: bool) -> fmt::Result {
    html.write_str("<h2>Servers</h2>")?;
    if panics {
        html.write_str(
            "<p class=\"bad\">Too few servers look healthy to believe it: all of them are given requests.</p>",
        )?;
    }
    html.write_str(
        "<table><tr><th>Server<th>Address<th>Flavour<th>Health<th>For<th class=n>Under way",
    )?;
    for server in servers {
        let health = match (server.is_up, server.reason) {
            (true, _) if !server.vdirs_down.is_empty() => {
                format!("up, without {}", server.vdirs_down.join(", "))
            }
            (true, _) => "up".to_owned(),
            (false, None) => "down".to_owned(),
            (false, Some(reason)) => format!("down: {reason}"),
        };
        write!(
            html,
            "<tr><td>{}<td>{}<td>{}<td class=\"{}\">{}<td>{}<td class=n>{}",
            Text(&server.name),
            Text(&server.address),
            Text(format!("{:?}", server.flavour).to_lowercase()),
            if server.is_up { "good" } else { "bad" },
            Text(health),
            duration(server.since_seconds),
            server.inflight,
        )?;
    }
    html.write_str("</table>")
}

fn write_databases(html: &mut String, databases: &[DatabaseStatus]) -> fmt::Result {
    html.write_str(
        "<h2>Databases</h2><table><tr><th>Database<th>Active on<th>Copies<th>By<th>State",
    )?;
    for database in databases {
        let copies: Vec<&str> = database.copies.iter().map(|copy| copy.as_str()).collect();
        write!(
            html,
            "<tr><td>{}<td>{}<td>{}<td>{}<td class=\"{}\">{}",
            Text(&database.name),
            Text(&database.active),
            Text(copies.join(", ")),
            match database.source {
                Source::Configuration => "configuration",
                Source::Directory => "directory",
                Source::Both => "directory, active by configuration",
            },
            if database.is_available { "good" } else { "bad" },
            if database.is_available {
                "available"
            } else {
                "not available"
            },
        )?;
    }
    html.write_str("</table>")
}

/// Nothing where the configuration lists all copies.
fn write_copies(html: &mut String, copies: Option<&CopiesStatus>) -> fmt::Result {
    let Some(copies) = copies else {
        return Ok(());
    };
    match copies.read_seconds_ago {
        Some(seconds) => write!(
            html,
            "<p>The directory told of copies {} ago.</p>",
            duration(seconds)
        )?,
        None => html.write_str("<p class=bad>The directory has not told of copies yet.</p>")?,
    }
    if let Some(trouble) = &copies.trouble {
        write!(html, "<p class=bad>{}</p>", Text(trouble))?;
    }
    if !copies.differences.is_empty() {
        html.write_str("<ul>")?;
        for difference in copies.differences.iter().take(DIFFERENCES_SHOWN) {
            write!(html, "<li>{}", Text(difference))?;
        }
        let more = copies.differences.len().saturating_sub(DIFFERENCES_SHOWN);
        if more > 0 {
            write!(html, "<li>and {more} more, in status.json")?;
        }
        html.write_str("</ul>")?;
    }
    Ok(())
}

/// Nothing where mailboxes come from a file.
fn write_directory(html: &mut String, servers: &[DirectoryServer], entries: u64) -> fmt::Result {
    if servers.is_empty() {
        return Ok(());
    }
    write!(
        html,
        "<h2>Directory</h2><p>{entries} names and mailboxes remembered</p><table><tr><th>Server<th>State"
    )?;
    for server in servers {
        let (class, words) = match &server.trouble {
            None => ("good", "usable"),
            Some(trouble) => ("bad", trouble.as_str()),
        };
        write!(
            html,
            "<tr><td>{}<td class=\"{class}\">{}",
            Text(&server.url),
            Text(words)
        )?;
    }
    html.write_str("</table>")
}

/// Nothing where none is configured.
fn write_probes(html: &mut String, probes: &[ProbeStatus]) -> fmt::Result {
    if probes.is_empty() {
        return Ok(());
    }
    html.write_str("<h2>Probes</h2><table><tr><th>Probe<th>State<th>At")?;
    for probe in probes {
        let (class, words) = match &probe.failed {
            None => ("good", "every step went well"),
            Some(failed) => ("bad", failed.as_str()),
        };
        write!(
            html,
            "<tr><td>{}<td class=\"{class}\">{}<td>{}",
            Text(&probe.name),
            Text(words),
            Text(&probe.time)
        )?;
    }
    html.write_str("</table>")
}

fn write_reload(html: &mut String, reload: &ReloadStatus) -> fmt::Result {
    write!(
        html,
        "<h2>Configuration</h2><p><b class=\"{}\">{}</b> at {}</p>",
        if reload.is_ok { "good" } else { "bad" },
        if reload.is_ok {
            "accepted"
        } else {
            "rejected, the one before stays in force"
        },
        Text(&reload.time),
    )?;
    for problem in &reload.problems {
        write!(html, "<pre>{}</pre>", Text(problem))?;
    }
    Ok(())
}

fn write_certificates(html: &mut String, certificates: &[CertificateStatus]) -> fmt::Result {
    html.write_str(
        "<h2>Certificates</h2><table><tr><th>Names<th>File<th>Expires<th class=n>Days left",
    )?;
    for certificate in certificates {
        write!(
            html,
            "<tr><td>{}<td>{}<td>{}<td class=\"n {}\">{}",
            Text(certificate.names.join(", ")),
            Text(&certificate.file),
            Text(&certificate.not_after),
            if certificate.days_left > DAYS_WORRYING {
                "good"
            } else {
                "bad"
            },
            certificate.days_left,
        )?;
    }
    html.write_str("</table>")
}

fn duration(seconds: u64) -> impl Display {
    humantime::format_duration(Duration::from_secs(seconds))
}

/// A text in HTML, whoever wrote it.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Escaping<'_, '_> {
            fn write_str(&mut self, part: &str) -> fmt::Result {
                part.chars().try_for_each(|c| match c {
                    '&' => self.0.write_str("&amp;"),
                    '<' => self.0.write_str("&lt;"),
                    '>' => self.0.write_str("&gt;"),
                    '"' => self.0.write_str("&quot;"),
                    '\'' => self.0.write_str("&#39;"),
                    c => self.0.write_char(c),
                })
            }
        }
        write!(Escaping(f), "{}", self.0)
    }
}

/// A certificate with fewer days left is shown in the colour of trouble.
const DAYS_WORRYING: i64 = 14;

/// Differences between directory and configuration that the page has room for.
const DIFFERENCES_SHOWN: usize = 20;

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>\
<meta name=viewport content=\"width=device-width\"><title>mapigate</title><style>\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
h1{margin:0;font-size:1.6rem}h2{margin:2rem 0 .5rem;font-size:1.1rem}header p{margin:.2rem 0 1rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884}\
th{font-weight:600}.n{text-align:right}.good{color:#1a7f37}.bad{color:#cf222e;font-weight:600}\
.figures{display:flex;flex-wrap:wrap;gap:1rem 2rem;list-style:none;padding:0}.figures b{display:block;font-size:1.4rem}\
tr.rest{opacity:.7}.usage{overflow-x:auto}.usage table{margin-bottom:1.2rem;table-layout:fixed;min-width:48rem}.usage th:first-child{width:40%}.usage td:first-child{overflow-wrap:anywhere}.usage .n{white-space:nowrap}\
pre{overflow-x:auto;padding:.6rem;background:#8882;border-radius:6px}footer{margin-top:2rem;opacity:.7}</style>";

const FOOT: &str = "<footer><a href=/status.json>status.json</a> · <a href=/usage.json>usage.json</a> · <a href=/probes.json>probes.json</a> · <a href=/metrics>metrics</a> · \
<a href=/ready>ready</a></footer></html>\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::Usage;
    use crate::ids::ServerName;
    use crate::mapi::Flavour;
    use std::time::SystemTime;

    fn html() -> String {
        let usage = Usage::new(0, SystemTime::UNIX_EPOCH);
        page(&status(), &Heaviest::of(&usage))
    }

    fn status() -> Status {
        Status {
            version: "1.2.3",
            phase: "serving",
            generation: 4,
            uptime_seconds: 3_661,
            servers: vec![ServerStatus {
                name: ServerName::new("<script>alert(1)</script>"),
                address: "mbx1:443".to_owned(),
                flavour: Flavour::Gromox,
                is_up: false,
                is_eligible: false,
                reason: Some("connection refused"),
                vdirs_down: Vec::new(),
                since_seconds: 61,
                inflight: 3,
            }],
            health_panics: false,
            databases: Vec::new(),
            copies: Some(CopiesStatus {
                read_seconds_ago: Some(61),
                trouble: Some("<script>late</script>".to_owned()),
                differences: (0..25).map(|n| format!("<img> {n}")).collect(),
            }),
            placement_epoch: 1,
            mailboxes: 10,
            directory: vec![DirectoryServer {
                url: "ldaps://dc1".to_owned(),
                trouble: Some("<script>it refuses</script>".to_owned()),
            }],
            directory_entries: 17,
            sessions: 2,
            sessions_capacity: 100,
            connections: 5,
            requests_in_flight: 1,
            held_polls: 1,
            access_log_dropped: 0,
            probes: vec![ProbeStatus {
                name: "front".to_owned(),
                is_good: false,
                time: "2025-01-01T00:00:00Z".to_owned(),
                failed: Some("tls: <script>".to_owned()),
            }],
            last_reload: ReloadStatus {
                is_ok: false,
                time: "2025-01-01T00:00:00Z".to_owned(),
                problems: vec!["\"><img src=x onerror=alert(1)>".to_owned()],
            },
            certificates: Vec::new(),
        }
    }

    #[test]
    fn nothing_that_others_wrote_becomes_markup() {
        let html = html();

        assert!(!html.contains("<script") && !html.contains("<img"));
        assert!(html.contains("&lt;script&gt;") && html.contains("&quot;&gt;&lt;img"));
    }

    #[test]
    fn the_page_says_what_the_directory_told_and_what_is_left_out() {
        let html = html();

        assert!(html.contains("told of copies 1m 1s ago"));
        assert!(html.contains("late") && html.contains("&lt;img&gt; 19"));
        assert!(html.contains("and 5 more") && !html.contains("&lt;img&gt; 20"));
    }

    #[test]
    fn the_page_says_what_is_down_and_why() {
        let html = html();

        assert!(html.contains("down: connection refused"));
        assert!(html.contains("ldaps://dc1") && html.contains("it refuses"));
        assert!(html.contains("tls: &lt;script&gt;"));
        assert!(html.contains("rejected, the one before stays in force"));
        assert!(html.contains("1h 1m 1s"));
    }
}
