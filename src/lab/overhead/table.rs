//! The figures as tables, for people.

use super::facts::{BASIC, BEARER, Facts, KERBEROS, MAPI, RPC, RPC_SEALED, Row};
use crate::prose::wrapped;
use std::fmt::{self, Write as _};

/// All tables, the published figures beside ours, and how it was measured.
pub fn table(facts: &Facts) -> String {
    let mut text = String::new();
    // Writing into memory does not fail.
    let _infallible = write(&mut text, facts);
    text
}

fn write(text: &mut String, facts: &Facts) -> fmt::Result {
    writeln!(
        text,
        "What MAPI over HTTP costs beside RPC over HTTP: mapigate {}, measured in {:.0} s\n",
        facts.version, facts.seconds
    )?;
    bytes(text, facts)?;
    sessions(text, facts)?;
    processor(text, facts)?;
    writeln!(text, "Beside the published figures")?;
    for claim in &facts.published {
        writeln!(text, "\n  {}", claim.what)?;
        writeln!(text, "    published: {}", claim.published)?;
        let ours = format!("ours: {}", claim.ours);
        wrapped(text, "    ", &ours)?;
        wrapped(text, "    ", &claim.why)?;
    }
    writeln!(text, "\nHow it was measured")?;
    for note in &facts.notes {
        writeln!(text)?;
        wrapped(text, "  ", note)?;
    }
    Ok(())
}

fn bytes(text: &mut String, facts: &Facts) -> fmt::Result {
    writeln!(
        text,
        "Bytes for the same work, both ways together, the session being open\n\n\
         {:<11} {:<22} {:>8} {:>9} {:>9} {:>11} {:>10} {:>9}",
        "payload", "", "requests", "headers", "framing", "on the wire", "overhead", "more"
    )?;
    for work in &facts.work {
        let mut name = work.name;
        for row in &work.rows {
            let more = match (row.protocol, row.more_than_rpc_percent) {
                (RPC, _) => String::new(),
                (_, more) => format!("{more:+.2} %"),
            };
            writeln!(
                text,
                "{name:<11} {:<22} {:>8} {:>9} {:>9} {:>11} {:>8.2} % {more:>9}",
                title(row),
                row.requests,
                row.total().headers(),
                row.total().around(),
                row.wire,
                row.overhead_percent,
            )?;
            name = "";
        }
    }
    writeln!(
        text,
        "\n  framing: chunks, meta tags, heads of fragments, flow control, binary fields, TLS records\n  \
         more: on the wire, than RPC/HTTP\n  \
         * computed from the row above it that was measured; a check of it: {} bytes computed, {} carried\n",
        facts.check.computed, facts.check.measured
    )
}

/// What people call a row; computed ones have a mark.
fn title(row: &Row) -> String {
    let name = match (row.protocol, row.authorization) {
        (RPC, _) => "RPC/HTTP",
        (RPC_SEALED, _) => "RPC/HTTP, sealed",
        (MAPI, BASIC) => "MAPI/HTTP, Basic",
        (MAPI, BEARER) => "MAPI/HTTP, Bearer",
        (MAPI, KERBEROS) => "MAPI/HTTP, Kerberos",
        (other, _) => other,
    };
    let mark = if row.is_measured { "" } else { " *" };
    format!("{name}{mark}")
}

fn protocol(name: &str) -> &str {
    match name {
        RPC => "RPC/HTTP",
        MAPI => "MAPI/HTTP",
        other => other,
    }
}

fn sessions(text: &mut String, facts: &Facts) -> fmt::Result {
    writeln!(
        text,
        "Sessions: bytes both ways, TLS handshakes included, computed for Bearer and Kerberos\n\n\
         {:<42} {:>8} {:>11} {:>9} {:>9} {:>9}",
        "", "requests", "connections", "Basic", "Bearer", "Kerberos"
    )?;
    for session in &facts.sessions {
        let what = match session.what {
            "opened" => "opened and waiting",
            "resumed" => "after a cut: resumed",
            _ if session.protocol == MAPI => "forgotten by the server: rebuilt",
            _ => "after a cut: rebuilt",
        };
        writeln!(
            text,
            "{:<42} {:>8} {:>11} {:>9} {:>9} {:>9}",
            format!("{}, {what}", protocol(session.protocol)),
            session.requests,
            session.connections,
            session.wire,
            session.wire_bearer,
            session.wire_kerberos
        )?;
    }
    for transfer in &facts.interrupted {
        writeln!(
            text,
            "{:<62} {:>9}",
            format!(
                "{}, after a sync was cut at half: {} Executes",
                protocol(transfer.protocol),
                transfer.executes
            ),
            transfer.wire
        )?;
    }
    writeln!(text)?;
    for found in &facts.connections {
        writeln!(
            text,
            "  {}: connections that stay: {}; beside them at most, while it works: {}",
            protocol(found.protocol),
            found.long,
            found.short_peak
        )?;
    }
    writeln!(text)
}

fn processor(text: &mut String, facts: &Facts) -> fmt::Result {
    let rounds = match facts.rounds {
        1 => "one round".to_owned(),
        rounds => format!("medians of {rounds} rounds"),
    };
    writeln!(
        text,
        "Processor time of the front end in microseconds, {rounds}\n\n\
         {:<54} {:>9} {:>9} {:>9} {:>8} {:>8}\n{:<54} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "",
        "mapigate",
        "stand-in",
        "stand-in",
        "mapigate",
        "stand-in",
        "",
        "MAPI",
        "MAPI",
        "RPC",
        "on RPC",
        "on RPC"
    )?;
    for cpu in &facts.cpu {
        writeln!(
            text,
            "{:<54} {:>9.1} {:>9.1} {:>9.1} {:>+6.0} % {:>+6.0} %",
            cpu.name,
            cpu.mapigate_us,
            cpu.tunnel_mapi_us,
            cpu.tunnel_rpc_us,
            cpu.more_percent,
            cpu.protocol_more_percent
        )?;
    }
    writeln!(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::overhead::samples;

    #[test]
    fn rows_stand_under_their_headings_and_computed_ones_are_marked() {
        let text = table(&samples::facts());

        let lines: Vec<&str> = text.lines().collect();
        let heading = lines
            .iter()
            .find(|line| line.starts_with("payload"))
            .unwrap();
        let basic = lines
            .iter()
            .find(|line| line.contains("MAPI/HTTP, Basic"))
            .unwrap();
        assert_eq!(heading.find("on the wire").map(|at| at + 11), {
            let wire = samples::wire(1, BASIC).to_string();
            basic.find(&wire).map(|at| at + wire.len())
        });
        assert!(text.contains("MAPI/HTTP, Bearer *"));
        assert!(!text.contains("MAPI/HTTP, Basic *"));
        assert!(lines.iter().all(|line| line.len() <= 110), "{text}");
    }
}
