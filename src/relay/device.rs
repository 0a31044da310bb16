//! The stamp on an answer that says where it passed and what that took: `X-DeviceInfo`.
//!
//! The field is for devices between client and server, which may add it in either direction; its form is
//! theirs, 64 characters are all it may have, and both ends pass over it. `[MS-OXCMAPIHTTP] 2.2.3.3.11`
//!
//! Ours reads `front1;MBX2;q=0.412;cpu=31`: our name, the server, milliseconds from the request's first
//! byte until it went to the server, microseconds of processor time until the answer's head went back. The
//! last is told of requests that are measured.

/// The field's name.
pub(crate) const NAME: &str = "X-DeviceInfo";
/// Characters the field may have, all its lines together.
const LENGTH_MAX: usize = 64;
/// Characters between two lines when they are read as one. RFC 9110 section 5.3
const BETWEEN: usize = 2;
/// Microseconds beyond this are not told apart: nearly three hours.
const FIGURE_MAX: u64 = 9_999_999_999;

/// What the stamp says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device<'a> {
    /// Our name.
    pub(crate) id: &'a str,
    /// The server that answered.
    pub(crate) server: &'a str,
    /// Microseconds until the request went to the server.
    pub(crate) queue_us: u64,
    /// Nanoseconds of processor time so far; `None` where they are not measured.
    pub(crate) cpu_ns: Option<u64>,
}

impl Device<'_> {
    /// Appends the line. `others` is how long the values are that devices behind us gave the field, in
    /// so many lines: they stay as they are, and where ours has no room beside them it is left out. A
    /// server's name is cut where it is too long.
    pub(crate) fn write(&self, others: Option<usize>, out: &mut Vec<u8>) {
        let taken = others.map_or(0, |length| length.saturating_add(BETWEEN));
        let mut figures = Vec::with_capacity(LENGTH_MAX);
        let (whole, rest) = (
            self.queue_us.min(FIGURE_MAX) / 1000,
            self.queue_us.min(FIGURE_MAX) % 1000,
        );
        figures.extend_from_slice(b";q=");
        figures.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
        figures.push(b'.');
        for unit in [100, 10, 1] {
            figures.push(b'0' + (rest / unit % 10) as u8);
        }
        if let Some(cpu_ns) = self.cpu_ns {
            figures.extend_from_slice(b";cpu=");
            let cpu_us = (cpu_ns / 1000).min(FIGURE_MAX);
            figures.extend_from_slice(itoa::Buffer::new().format(cpu_us).as_bytes());
        }
        // At least one letter of the server's name and the mark before it.
        let room = LENGTH_MAX
            .checked_sub(taken.saturating_add(figures.len() + self.id.len() + 1))
            .filter(|room| *room > 0);
        let Some(room) = room.filter(|_| !self.id.is_empty()) else {
            return;
        };
        out.extend_from_slice(NAME.as_bytes());
        out.extend_from_slice(b": ");
        out.extend(self.id.bytes().map(plain));
        out.push(b';');
        out.extend(self.server.bytes().map(plain).take(room));
        out.extend_from_slice(&figures);
        out.extend_from_slice(b"\r\n");
    }
}

/// A letter that means nothing in a header line, nor between our own marks.
fn plain(byte: u8) -> u8 {
    match byte.is_ascii_graphic() && !b";,=\"\\".contains(&byte) {
        true => byte,
        false => b'-',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEVICE: Device<'_> = Device {
        id: "front1",
        server: "MBX2",
        queue_us: 412,
        cpu_ns: Some(31_999),
    };

    fn written(device: &Device<'_>, others: Option<usize>) -> String {
        let mut out = Vec::new();
        device.write(others, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn value(line: &str) -> &str {
        line.strip_prefix("X-DeviceInfo: ")
            .and_then(|line| line.strip_suffix("\r\n"))
            .unwrap_or_else(|| panic!("{line:?}"))
    }

    #[test]
    fn it_names_us_the_server_the_wait_and_the_work() {
        let line = written(&DEVICE, None);

        assert_eq!(line, "X-DeviceInfo: front1;MBX2;q=0.412;cpu=31\r\n");
    }

    #[test]
    fn the_servers_name_gives_way_and_nothing_else() {
        let device = Device {
            id: "a-front-end-of-24-letter",
            server: &"S".repeat(64),
            queue_us: u64::MAX,
            cpu_ns: Some(u64::MAX),
        };

        let line = written(&device, None);
        assert_eq!(
            value(&line),
            "a-front-end-of-24-letter;SSSSSSSSSS;q=9999999.999;cpu=9999999999"
        );
        assert_eq!(value(&line).len(), 64);
    }

    #[test]
    fn beside_anothers_value_it_stays_within_the_limit_or_away() {
        let ours = value(&written(&DEVICE, None)).len();

        assert_eq!(value(&written(&DEVICE, Some(64 - 2 - ours))).len(), ours);
        // A letter less of the server's name for each that is missing, and then nothing.
        assert!(written(&DEVICE, Some(64 - 2 - ours + 3)).contains(";M;"));
        assert_eq!(written(&DEVICE, Some(64 - 2 - ours + 4)), "");
        assert_eq!(written(&DEVICE, Some(usize::MAX)), "");
    }

    proptest! {
        #[test]
        fn whatever_the_names_it_is_one_line_of_at_most_64_characters(
            id in any::<String>(),
            server in any::<String>(),
            queue_us in any::<u64>(),
            cpu_ns in any::<Option<u64>>(),
            others in proptest::option::of(0_usize..200),
        ) {
            let device = Device { id: &id, server: &server, queue_us, cpu_ns };

            let line = written(&device, others);

            if !line.is_empty() {
                let value = value(&line);
                let all = value.len() + others.map_or(0, |length| length + 2);
                prop_assert!(all <= 64, "{all}: {value}");
                prop_assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{value:?}");
                prop_assert_eq!(value.split(';').count(), 3 + usize::from(cpu_ns.is_some()));
            }
        }

        #[test]
        fn alone_on_an_answer_it_is_never_left_out(
            id in "[!-~]{1,24}",
            server in "[a-zA-Z0-9 ._()@-]{1,64}",
            queue_us in any::<u64>(),
            cpu_ns in any::<Option<u64>>(),
        ) {
            let device = Device { id: &id, server: &server, queue_us, cpu_ns };
            prop_assert!(!written(&device, None).is_empty());
        }
    }
}
