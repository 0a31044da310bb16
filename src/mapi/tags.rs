//! The meta-tags in front of an answer's body: PROCESSING, PENDING, DONE and the headers after it.
//!
//! Read only to know the final code and to count; what passes is never changed. `[MS-OXCMAPIHTTP] 2.2.7`

use super::response::{Flavour, ResponseCode};

/// Bytes of a line that are looked at; the rest of a longer one is passed over.
const LINE_MAX: usize = 32;

/// Follows the payload of an answer up to the blank line after DONE.
#[derive(Clone, Debug, Default)]
pub struct Tags {
    line: [u8; LINE_MAX],
    length: u8,
    stage: Stage,
    code: Option<ResponseCode>,
    pending: u32,
    /// Bytes of tags and of the headers behind DONE, line ends included.
    bytes: u64,
    /// Bytes of the line that is being read, beyond what is looked at as well.
    open: u32,
    /// The last tag was a PENDING, and its line has not ended.
    is_pending_open: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Tags,
    Headers,
    Body,
}

impl Tags {
    /// True once the binary body begins, or where the payload never was a meta-tag stream.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Body
    }

    /// True where a tag of our own may be put in: none is half written, and DONE was not yet.
    pub fn at_boundary(&self, flavour: Flavour) -> bool {
        // gromox never ends the line of a PENDING; of others the line end is still to come.
        let is_ended = !self.is_pending_open || flavour == Flavour::Gromox;
        self.stage == Stage::Tags && self.length == 0 && is_ended
    }

    /// The code after DONE, which overrides the header's. `[MS-OXCMAPIHTTP] 3.2.5.2`
    pub fn code(&self) -> Option<ResponseCode> {
        self.code
    }

    /// Bytes found to be tags or additional headers. A line counts when it has ended.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// PENDING tags seen.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// Takes the next run of payload. Costs nothing once the body has begun.
    pub fn read(&mut self, mut payload: &[u8]) {
        while self.stage != Stage::Body && !payload.is_empty() {
            let line_end = memchr::memchr(b'\n', payload);
            let (part, rest) = payload.split_at(line_end.unwrap_or(payload.len()));
            self.open = self
                .open
                .saturating_add(u32::try_from(part.len()).unwrap_or(u32::MAX));
            self.extend_line(part);
            payload = match rest.split_first() {
                Some((_newline, rest)) => {
                    self.open = self.open.saturating_add(1);
                    self.end_of_line();
                    rest
                }
                None => rest,
            };
        }
    }

    /// Adds to the line that is being read, as much of it as is looked at.
    fn extend_line(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            let room = self
                .line
                .get_mut(usize::from(self.length)..)
                .unwrap_or_default();
            let (taken, rest) = part.split_at(part.len().min(room.len()));
            if taken.is_empty() {
                // No tag is this long: a plain body without meta-tags. Of a header, the rest is passed over.
                if self.stage == Stage::Tags {
                    self.stage = Stage::Body;
                }
                return;
            }
            if let Some(room) = room.get_mut(..taken.len()) {
                room.copy_from_slice(taken);
            }
            // At most a line's length, which is far below 256.
            self.length += u8::try_from(taken.len()).unwrap_or(0);
            part = rest;
            self.count_pending();
        }
    }

    /// gromox sends PENDING without a line end; it is counted when it is complete.
    fn count_pending(&mut self) {
        const PENDING: &[u8] = b"PENDING";
        while self.stage == Stage::Tags
            && self
                .line
                .get(..usize::from(self.length))
                .is_some_and(|line| line.starts_with(PENDING))
        {
            self.line
                .copy_within(PENDING.len()..usize::from(self.length), 0);
            self.length = self.length.saturating_sub(7);
            self.pending += 1;
            self.bytes += PENDING.len() as u64;
            self.open = self.open.saturating_sub(7);
            self.is_pending_open = true;
        }
    }

    fn end_of_line(&mut self) {
        let line = self
            .line
            .get(..usize::from(self.length))
            .unwrap_or_default()
            .trim_ascii();
        let was_tags = self.stage != Stage::Body;
        let is_known = self.stage == Stage::Headers;
        match (self.stage, line) {
            (Stage::Tags, b"DONE") => self.stage = Stage::Headers,
            (Stage::Tags, b"PROCESSING" | b"") => {}
            (Stage::Tags, _) => self.stage = Stage::Body,
            (Stage::Headers, b"") => self.stage = Stage::Body,
            (Stage::Headers, header) => {
                const NAME: &[u8] = b"x-responsecode:";
                if let Some((name, value)) = header.split_at_checked(NAME.len())
                    && name.eq_ignore_ascii_case(NAME)
                {
                    self.code = ResponseCode::read(value).or(self.code);
                }
            }
            (Stage::Body, _) => {}
        }
        // A first line that is no tag is the body already.
        if was_tags && (self.stage != Stage::Body || is_known) {
            self.bytes += u64::from(self.open);
        }
        (self.length, self.open) = (0, 0);
        self.is_pending_open = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(payload: &[u8], step: usize) -> Tags {
        let mut tags = Tags::default();
        payload.chunks(step).for_each(|piece| tags.read(piece));
        tags
    }

    #[test]
    fn the_code_after_done_is_the_final_one() {
        let payload = b"PROCESSING\r\nPENDING\r\nPENDING\r\nDONE\r\nX-ElapsedTime: 4\r\nX-ResponseCode: 10\r\n\r\nX-ResponseCode: 3\r\n";
        for step in [1, 2, 5, payload.len()] {
            let tags = read(payload, step);
            assert_eq!(tags.code(), Some(ResponseCode::CONTEXT_NOT_FOUND));
            assert_eq!(tags.pending(), 2);
            assert!(tags.is_done());
        }
    }

    #[test]
    fn a_pending_without_line_end_is_still_one() {
        let tags = read(
            b"PROCESSING\r\nPENDINGPENDINGPROCESSING\r\nDONE\r\nX-ElapsedTime: 0\r\n\r\n",
            7,
        );
        assert_eq!(
            (tags.pending(), tags.is_done(), tags.code()),
            (2, true, None)
        );
    }

    #[test]
    fn a_tag_is_not_put_inside_another_nor_behind_done() {
        let fits = |payload: &[u8], flavour| read(payload, 1).at_boundary(flavour);
        for outside in [&b""[..], b"PROCESSING\r\n", b"PROCESSING\r\nPENDING\r\n"] {
            assert!(fits(outside, Flavour::Exchange), "{outside:?}");
            assert!(fits(outside, Flavour::Gromox), "{outside:?}");
        }
        for inside in [
            &b"PROCESSING"[..],
            b"PROCESSING\r\nPEND",
            b"PROCESSING\r\nPENDING\r",
            b"PROCESSING\r\nDONE\r\n",
            b"PROCESSING\r\nDONE\r\nX-ElapsedTime: 1\r\n\r\nbody",
        ] {
            assert!(!fits(inside, Flavour::Exchange), "{inside:?}");
            assert!(!fits(inside, Flavour::Gromox), "{inside:?}");
        }
        let open = b"PROCESSING\r\nPENDING";
        assert!(!fits(open, Flavour::Exchange) && fits(open, Flavour::Gromox));
    }

    #[test]
    fn a_body_without_tags_is_left_alone() {
        let tags = read(b"\x00\x00\x00\x00\n\x01\x02", 3);
        assert!(tags.is_done());
        assert_eq!(tags.code(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
            read(&payload, step);
        }
    }
}
