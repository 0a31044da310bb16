//! How times, numbers and what others wrote stand in a line, whatever the line's format.

use crate::ids::disturbs;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A character, escaped as in JSON where it would move a cursor, turn the text around it or end a line.
pub(super) fn harmless(line: &mut Vec<u8>, c: char) {
    if !disturbs(c) {
        return line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    let mut units = [0; 2];
    for unit in c.encode_utf16(&mut units) {
        // Writing into memory does not fail.
        let _ = std::io::Write::write_fmt(line, format_args!("\\u{unit:04x}"));
    }
}

/// Address and port.
pub(super) fn address(client: SocketAddr, line: &mut Vec<u8>) {
    match client {
        SocketAddr::V4(v4) => {
            host_address(IpAddr::V4(*v4.ip()), line);
            line.push(b':');
            line.extend_from_slice(itoa::Buffer::new().format(v4.port()).as_bytes());
        }
        SocketAddr::V6(v6) => {
            // Writing into memory does not fail.
            let _ = std::io::Write::write_fmt(line, format_args!("{v6}"));
        }
    }
}

/// An address without a port.
pub(super) fn host_address(ip: IpAddr, line: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(v4) => {
            for (position, octet) in v4.octets().into_iter().enumerate() {
                if position > 0 {
                    line.push(b'.');
                }
                line.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(v6) => {
            // Writing into memory does not fail.
            let _ = std::io::Write::write_fmt(line, format_args!("{v6}"));
        }
    }
}

/// RFC 3339 in UTC with milliseconds.
pub(super) fn timestamp(time: SystemTime, line: &mut Vec<u8>) {
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

/// A count of thousandths, with its decimal point.
pub(super) fn thousandths(line: &mut Vec<u8>, count: u128) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    line.extend_from_slice(itoa::Buffer::new().format(count / 1000).as_bytes());
    line.push(b'.');
    digits(line, count % 1000, 3);
}

/// Decimal digits with leading zeros.
fn digits(line: &mut Vec<u8>, number: u64, width: u32) {
    for position in (0..width).rev() {
        let digit = number / 10_u64.pow(position) % 10;
        line.push(b'0' + digit as u8);
    }
}

/// Bytes of a value somebody else wrote.
pub(super) const TEXT_MAX: usize = 128;
/// Characters of a refusal's own words.
pub(super) const WHY_MAX: usize = 256;

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
