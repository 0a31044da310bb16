//! One request as one line of JSON.
//!
//! Whatever others wrote comes out as one line of valid JSON without anything that moves a
//! terminal's cursor, and is cut at a length.

use super::Entry;
use super::values::{self, TEXT_MAX, WHY_MAX, address, harmless, timestamp};
use crate::accounting::{Kind, Phase};
use crate::autodiscover::Dialect;
use crate::rpch::verbs;
use std::fmt::{self, Write};

/// A key as it stands between two values, in one piece.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// Appends the line, its line end included.
pub(super) fn render(entry: &Entry<'_>, line: &mut Vec<u8>) {
    line.extend_from_slice(b"{\"time\":\"");
    timestamp(entry.time, line);
    line.extend_from_slice(b"\",\"id\":\"");
    line.extend_from_slice(&entry.id.letters());
    line.extend_from_slice(b"\",\"client\":\"");
    address(entry.client, line);
    line.push(b'"');
    text(line, key!("user"), entry.user.as_bytes());
    // What is no endpoint of MAPI: Autodiscover by its dialect, a channel by its direction, another directory by
    // the method.
    let (beside, how) = match (entry.dialect, entry.channel, entry.vdir) {
        (Some(dialect), ..) => (Dialect::ENDPOINT, dialect.as_str()),
        (None, Some(verb), _) => (verbs::ENDPOINT, verb.word()),
        (None, None, Some((vdir, verb))) => (vdir.as_str(), verb.as_str()),
        (None, None, None) => ("", ""),
    };
    text(
        line,
        key!("endpoint"),
        entry.endpoint.map_or(beside, |e| e.as_str()).as_bytes(),
    );
    text(
        line,
        key!("type"),
        entry.request_type.map_or(how, |t| t.as_str()).as_bytes(),
    );
    text(line, key!("path"), entry.path);
    text(line, key!("request_id"), entry.request_id);
    text(line, key!("client_info"), entry.client_info);
    text(line, key!("mailbox"), entry.mailbox);
    text(line, key!("database"), entry.database.as_bytes());
    text(line, key!("server"), entry.server.as_bytes());
    text(line, key!("route"), entry.route.as_bytes());
    number(line, key!("tries"), entry.tries.into());
    number(line, key!("status"), entry.status.into());
    if let Some(code) = entry.code {
        number(line, key!("code"), code.0.into());
    }
    text(line, key!("ending"), entry.ending.as_str().as_bytes());
    if let Some(refusal) = entry.refusal {
        text(line, key!("refusal"), refusal.label().as_bytes());
        text(line, key!("blame"), refusal.blame().as_str().as_bytes());
        line.extend_from_slice(key!("why").as_bytes());
        line.push(b'"');
        // Writing into memory does not fail, and what is too long is cut.
        let _ = write!(
            Escaping {
                line,
                room: WHY_MAX
            },
            "{refusal}"
        );
        line.push(b'"');
    }
    thousandths(line, key!("auth_ms"), entry.auth.as_micros());
    if let Some(first_byte) = entry.first_byte {
        thousandths(line, key!("first_byte_ms"), first_byte.as_micros());
    }
    thousandths(line, key!("total_ms"), entry.total.as_micros());
    if let Some(cpu) = entry.cpu {
        thousandths(line, key!("cpu_us"), cpu.as_nanos());
    }
    if let Some(phases) = entry.phases {
        for (key, phase) in [
            (key!("cpu_head_us"), Phase::Head),
            (key!("cpu_auth_us"), Phase::Auth),
            (key!("cpu_route_us"), Phase::Route),
            (key!("cpu_upstream_us"), Phase::Upstream),
            (key!("cpu_relay_us"), Phase::Relay),
        ] {
            thousandths(line, key, phases.of(phase).into());
        }
    }
    if let Some((cpu, bytes)) = entry.handshake {
        thousandths(line, key!("cpu_handshake_us"), cpu.as_nanos());
        number(line, key!("handshake_in"), bytes.received);
        number(line, key!("handshake_out"), bytes.sent);
    }
    let ledger = entry.ledger;
    let (from, to) = (&ledger.client_in, &ledger.client_out);
    number(line, key!("head_in"), from.head());
    number(line, key!("head_out"), to.head());
    number(line, key!("body_in"), from.body());
    number(line, key!("body_out"), to.body());
    number(line, key!("tls_in"), from.total());
    number(line, key!("tls_out"), to.total());
    number(line, key!("server_in"), ledger.server_in.total());
    number(line, key!("server_out"), ledger.server_out.total());
    for (key, bytes) in [
        (key!("cookies_in"), from.of(Kind::Cookies)),
        (key!("cookies_out"), to.of(Kind::Cookies)),
        (key!("authorization_in"), from.of(Kind::Authorization)),
        (key!("framing_in"), from.of(Kind::Framing)),
        (key!("framing_out"), to.of(Kind::Framing)),
        (key!("tags_out"), to.of(Kind::Tags)),
        (key!("server_head_in"), ledger.server_in.head()),
        (key!("server_head_out"), ledger.server_out.head()),
    ] {
        if bytes > 0 {
            number(line, key, bytes);
        }
    }
    if entry.is_http2 {
        text(line, key!("protocol"), b"h2");
    }
    flag(line, key!("client_reused"), entry.client_reused);
    flag(line, key!("server_reused"), entry.server_reused);
    line.extend_from_slice(b"}\n");
}

fn number(line: &mut Vec<u8>, key: &str, value: u64) {
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn flag(line: &mut Vec<u8>, key: &str, value: bool) {
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(if value { b"true" } else { b"false" });
}

/// A count of thousandths, written with its decimal point.
fn thousandths(line: &mut Vec<u8>, key: &str, count: u128) {
    line.extend_from_slice(key.as_bytes());
    values::thousandths(line, count);
}

/// A value somebody else wrote; left out where it is empty.
fn text(line: &mut Vec<u8>, key: &str, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    line.extend_from_slice(key.as_bytes());
    line.push(b'"');
    let (value, is_cut) = match value.split_at_checked(TEXT_MAX) {
        Some((kept, rest)) if !rest.is_empty() => (kept, true),
        _ => (value, false),
    };
    // Not `all`: without an early end the compiler looks at many bytes at once.
    if value
        .iter()
        .fold(true, |plain, byte| plain & is_plain(byte))
    {
        line.extend_from_slice(value);
    } else {
        for chunk in value.utf8_chunks() {
            chunk.valid().chars().for_each(|c| escaped(line, c));
            if !chunk.invalid().is_empty() {
                escaped(line, char::REPLACEMENT_CHARACTER);
            }
        }
    }
    if is_cut {
        line.extend_from_slice("…".as_bytes());
    }
    line.push(b'"');
}

/// True for the bytes that JSON and a terminal take as they are.
fn is_plain(byte: &u8) -> bool {
    (0x20..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\'
}

fn escaped(line: &mut Vec<u8>, c: char) {
    match c {
        '"' | '\\' => line.extend_from_slice(&[b'\\', c as u8]),
        c => harmless(line, c),
    }
}

/// Escapes what is formatted into it, up to a number of characters.
struct Escaping<'a> {
    line: &'a mut Vec<u8>,
    room: usize,
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for c in part.chars().take(self.room) {
            escaped(self.line, c);
            self.room -= 1;
        }
        Ok(())
    }
}
