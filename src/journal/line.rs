//! One request as one line of JSON.
//!
//! Whatever others wrote comes out as one line of valid JSON without anything that moves a
//! terminal's cursor, and is cut at a length.

use super::Entry;
use crate::metrics::Bytes;
use std::cell::Cell;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    text(
        line,
        key!("endpoint"),
        entry.endpoint.map_or("", |e| e.as_str()).as_bytes(),
    );
    text(
        line,
        key!("type"),
        entry.request_type.map_or("", |t| t.as_str()).as_bytes(),
    );
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
    thousandths(line, key!("cpu_us"), entry.cpu.as_nanos());
    both(line, key!("head_in"), key!("head_out"), entry.head);
    both(line, key!("body_in"), key!("body_out"), entry.body);
    both(line, key!("tls_in"), key!("tls_out"), entry.tls);
    both(line, key!("server_in"), key!("server_out"), entry.backend);
    flag(line, key!("client_reused"), entry.client_reused);
    flag(line, key!("server_reused"), entry.server_reused);
    line.extend_from_slice(b"}\n");
}

fn number(line: &mut Vec<u8>, key: &str, value: u64) {
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn both(line: &mut Vec<u8>, received: &str, sent: &str, bytes: Bytes) {
    number(line, received, bytes.received);
    number(line, sent, bytes.sent);
}

fn flag(line: &mut Vec<u8>, key: &str, value: bool) {
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(if value { b"true" } else { b"false" });
}

/// A count of thousandths, written with its decimal point.
fn thousandths(line: &mut Vec<u8>, key: &str, count: u128) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    number(line, key, count / 1000);
    line.push(b'.');
    digits(line, count % 1000, 3);
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
        c if c.is_control() || is_direction(c) => {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing into memory does not fail.
                let _ = std::io::Write::write_fmt(line, format_args!("\\u{unit:04x}"));
            }
        }
        c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// True for characters that turn the text around them, or break lines for some readers.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
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

fn address(client: SocketAddr, line: &mut Vec<u8>) {
    match client {
        SocketAddr::V4(v4) => {
            for (position, octet) in v4.ip().octets().into_iter().enumerate() {
                if position > 0 {
                    line.push(b'.');
                }
                line.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
            line.push(b':');
            line.extend_from_slice(itoa::Buffer::new().format(v4.port()).as_bytes());
        }
        SocketAddr::V6(v6) => {
            // Writing into memory does not fail.
            let _ = std::io::Write::write_fmt(line, format_args!("{v6}"));
        }
    }
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(time: SystemTime, line: &mut Vec<u8>) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (mut second, mut written) = SECOND.get();
    if second != since.as_secs() {
        second = since.as_secs();
        written = date_and_time(second);
        SECOND.set((second, written));
    }
    line.extend_from_slice(&written);
    line.push(b'.');
    digits(line, since.subsec_millis().into(), 3);
    line.push(b'Z');
}

fn date_and_time(seconds: u64) -> [u8; 19] {
    let mut written = Vec::with_capacity(19);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    for (number, width, after) in [
        (year.min(9999), 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (rest / 3600, 2, b':'),
        (rest / 60 % 60, 2, b':'),
        (rest % 60, 2, b'.'),
    ] {
        digits(&mut written, number, width);
        written.push(after);
    }
    written
        .first_chunk()
        .copied()
        .unwrap_or(*b"1970-01-01T00:00:00")
}

/// The date of a day since 1970 in the Gregorian calendar, whose years are taken to begin in March
/// so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1460 + day_of_era / 146_096;
    let year_of_era = (day_of_era + day_of_era / 36_524 - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Decimal digits with leading zeros.
fn digits(line: &mut Vec<u8>, number: u64, width: u32) {
    for position in (0..width).rev() {
        let digit = number / 10_u64.pow(position) % 10;
        line.push(b'0' + digit as u8);
    }
}

/// Bytes of a value somebody else wrote.
const TEXT_MAX: usize = 128;
/// Characters of a refusal's own words.
const WHY_MAX: usize = 256;

thread_local! {
    /// The last second that was written, and how: a busy worker writes many lines in one.
    static SECOND: Cell<(u64, [u8; 19])> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, millis: u32) -> String {
        let mut line = Vec::new();
        timestamp(
            UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000),
            &mut line,
        );
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        assert_eq!(at(0, 7), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_827_696, 0), "2000-02-29T12:34:56.000Z");
        assert_eq!(at(1_735_689_599, 999), "2024-12-31T23:59:59.999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn every_day_of_four_centuries_is_the_day_after_the_one_before() {
        let mut before = civil(0);
        for days in 1..146_097 {
            let (year, month, day) = civil(days);
            let (y, m, d) = before;
            let follows = (year, month, day) == (y, m, d + 1)
                || (year, month, day) == (y, m + 1, 1)
                || (year, month, day) == (y + 1, 1, 1);
            assert!(
                follows && (1..=31).contains(&day),
                "{before:?} {:?}",
                (year, month, day)
            );
            before = (year, month, day);
        }
        assert_eq!(before, (2369, 12, 31));
    }
}
