//! Follows the frames of one direction, to know whose bytes they are. RFC 9113 section 4.1
//!
//! Judges nothing: that is the work of the crate that reads the same bytes.

/// Bytes of a frame's head.
pub(super) const HEAD: usize = 9;
/// What a client says first. RFC 9113 section 3.4
const PREFACE: usize = 24;
/// Bytes of a payload that are looked at: a code at most, and what is before it.
const LOOKED_AT: usize = 8;

/// A frame that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    flags: u8,
    /// 0: the connection's own.
    pub(super) stream: u32,
    /// Bytes behind its head.
    pub(super) length: u32,
    /// The first of them.
    first: [u8; LOOKED_AT],
}

/// What a frame is, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Reset,
    GoAway,
    Continuation,
    /// SETTINGS, PING, WINDOW_UPDATE, PRIORITY, and what nobody knows.
    Other,
}

impl Frame {
    /// The last of its stream in this direction.
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & END_STREAM != 0
    }

    /// Bytes of a DATA frame that are somebody's. RFC 9113 section 6.1
    pub(super) fn payload(&self) -> u64 {
        let padding = match self.kind {
            Kind::Data if self.flags & PADDED != 0 => 1 + u32::from(self.first[0]),
            Kind::Data => 0,
            _ => return 0,
        };
        self.length.saturating_sub(padding).into()
    }

    /// All bytes of it.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.length) + HEAD as u64
    }

    /// The code of RST_STREAM and GOAWAY. RFC 9113 section 7
    pub(super) fn code(&self) -> Option<u32> {
        let [a, b, c, d, e, f, g, h] = self.first;
        match self.kind {
            Kind::Reset => Some(u32::from_be_bytes([a, b, c, d])),
            Kind::GoAway => Some(u32::from_be_bytes([e, f, g, h])),
            _ => None,
        }
    }
}

/// Where in the frames we are.
#[derive(Debug)]
pub(super) struct Frames {
    preface: usize,
    head: [u8; HEAD],
    /// Bytes of the head that are here.
    here: usize,
    /// Bytes of the payload that have passed.
    passed: u32,
    first: [u8; LOOKED_AT],
}

impl Frames {
    /// What a client sends.
    pub(super) fn of_client() -> Self {
        Self {
            preface: PREFACE,
            ..Self::of_server()
        }
    }

    /// What a server sends.
    pub(super) fn of_server() -> Self {
        Self {
            preface: 0,
            head: [0; HEAD],
            here: 0,
            passed: 0,
            first: [0; LOOKED_AT],
        }
    }

    /// Follows some bytes, and tells of every frame that ends in them. Some nanoseconds per frame.
    pub(super) fn follow(&mut self, bytes: &[u8], mut ended: impl FnMut(Frame)) {
        let (_preface, mut rest) = bytes.split_at(self.preface.min(bytes.len()));
        self.preface -= bytes.len() - rest.len();
        loop {
            let wanted = HEAD - self.here;
            if wanted > 0 {
                let (more, after) = rest.split_at(wanted.min(rest.len()));
                if let Some(room) = self.head.get_mut(self.here..self.here + more.len()) {
                    room.copy_from_slice(more);
                }
                self.here += more.len();
                rest = after;
                if self.here < HEAD {
                    return;
                }
            }
            let frame = self.frame();
            let left = (frame.length - self.passed) as usize;
            let (payload, after) = rest.split_at(left.min(rest.len()));
            let looked_at = self.first.iter_mut().skip(self.passed as usize);
            looked_at.zip(payload).for_each(|(to, from)| *to = *from);
            // No more than is left of 24 bits.
            self.passed += u32::try_from(payload.len()).unwrap_or_default();
            rest = after;
            if self.passed < frame.length {
                return;
            }
            ended(self.frame());
            (self.here, self.passed, self.first) = (0, 0, [0; LOOKED_AT]);
        }
    }

    fn frame(&self) -> Frame {
        let [a, b, c, kind, flags, id @ ..] = self.head;
        Frame {
            kind: match kind {
                0 => Kind::Data,
                1 => Kind::Headers,
                3 => Kind::Reset,
                7 => Kind::GoAway,
                9 => Kind::Continuation,
                _ => Kind::Other,
            },
            flags,
            stream: u32::from_be_bytes(id) & 0x7fff_ffff,
            length: u32::from_be_bytes([0, a, b, c]),
            first: self.first,
        }
    }
}

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn wire() -> Vec<u8> {
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[]),
            frame(1, 5, 1, b"head"),
            frame(0, 9, 3, b"\x02payload\0\0"),
            frame(0, 0, 3, &[7; 1000]),
            frame(3, 0, 3, &[0, 0, 0, 8]),
            frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 11, b'x']),
        ]
        .concat()
    }

    fn followed(pieces: &[&[u8]]) -> Vec<Frame> {
        let mut frames = Frames::of_client();
        let mut seen = Vec::new();
        for piece in pieces {
            frames.follow(piece, |frame| seen.push(frame));
        }
        seen
    }

    #[test]
    fn frames_are_told_by_stream_payload_and_code() {
        let seen = followed(&[&wire()]);
        let told: Vec<_> = seen
            .iter()
            .map(|it| {
                (
                    it.kind,
                    it.stream,
                    it.payload(),
                    it.ends_stream(),
                    it.code(),
                )
            })
            .collect();

        assert_eq!(
            told,
            [
                (Kind::Other, 0, 0, false, None),
                (Kind::Headers, 1, 0, true, None),
                (Kind::Data, 3, 7, true, None),
                (Kind::Data, 3, 1000, false, None),
                (Kind::Reset, 3, 0, false, Some(8)),
                (Kind::GoAway, 0, 0, false, Some(11)),
            ]
        );
        let all: u64 = seen.iter().map(Frame::bytes).sum();
        assert_eq!(all + PREFACE as u64, wire().len() as u64);
    }

    proptest! {
        #[test]
        fn they_are_the_same_however_the_bytes_come(cuts in proptest::collection::vec(0..1100_usize, 0..40)) {
            let wire = wire();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(wire.len())).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect();

            prop_assert_eq!(followed(&pieces), followed(&[&wire]));
        }

        #[test]
        fn any_bytes_are_followed_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut sum = 0;
            Frames::of_client().follow(&bytes, |frame| sum += frame.bytes());
            prop_assert!(sum <= bytes.len() as u64);
        }
    }
}
