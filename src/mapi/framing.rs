//! Where an HTTP/1.1 message body ends.
//!
//! Bytes are passed on as they were read; this only follows them, strictly: what two parsers could
//! read differently is refused. RFC 9112 section 7.1.

/// Hexadecimal digits of a chunk size we follow: 4 GiB - 1 in one chunk is more than anybody sends.
const SIZE_DIGITS_MAX: u8 = 8;
/// Bytes of one trailer line.
const TRAILER_LINE_MAX: u16 = 4096;
/// Trailer lines of one body.
const TRAILER_LINES_MAX: u8 = 32;

/// How far a body has been followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none, or all of it has passed.
    Done,
    /// This many bytes are still to come; never 0.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunk),
    /// Until the peer closes; answers only.
    UntilClose,
}

/// Where in a chunked body we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// In the size line.
    Size {
        /// Value of the digits so far.
        value: u64,
        /// Digits so far.
        digits: u8,
        /// The line's CR has been seen.
        cr: bool,
    },
    /// In the data; this many bytes are left, never 0.
    Data(u64),
    /// After the data, expecting CR.
    DataCr,
    /// After the data's CR, expecting LF.
    DataLf,
    /// After the last chunk.
    Trailer {
        /// Bytes of the current line.
        length: u16,
        /// Lines before it.
        lines: u8,
        /// The line's CR has been seen.
        cr: bool,
    },
}

/// The body breaks a rule of its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFraming(pub &'static str);

/// What a piece of wire contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the piece that belong to this body.
    pub wire: usize,
    /// Of those, bytes that are not framing.
    pub payload: u64,
}

impl Body {
    /// A chunked body before its first byte.
    pub const CHUNKED: Self = Self::Chunked(Chunk::Size {
        value: 0,
        digits: 0,
        cr: false,
    });

    /// A body of so many bytes.
    pub fn of_length(length: u64) -> Self {
        if length == 0 {
            Self::Done
        } else {
            Self::Length(length)
        }
    }

    /// True once nothing more belongs to this body.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// True where a chunk of our own may be put in without breaking the peer's.
    pub fn at_chunk_boundary(&self) -> bool {
        matches!(
            self,
            Self::Chunked(Chunk::Size {
                digits: 0,
                cr: false,
                ..
            })
        )
    }

    /// Follows a piece, handing each run of payload to `payload`. Stops at the end of the body: what
    /// is left of the piece belongs to the next message. Costs a few nanoseconds per chunk.
    ///
    /// # Errors
    /// The piece breaks the framing; nothing after it can be trusted.
    pub fn follow(
        &mut self,
        piece: &[u8],
        payload: impl FnMut(&[u8]),
    ) -> Result<Taken, BadFraming> {
        self.follow_with(piece, payload, true)
    }

    /// The same for a request's body, which is passed on with its framing: header fields behind the last
    /// chunk would pass every gate, and are refused.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn follow_request(&mut self, piece: &[u8]) -> Result<Taken, BadFraming> {
        self.follow_with(piece, |_| {}, false)
    }

    fn follow_with(
        &mut self,
        piece: &[u8],
        mut payload: impl FnMut(&[u8]),
        takes_trailers: bool,
    ) -> Result<Taken, BadFraming> {
        match self {
            Self::Done => Ok(Taken::default()),
            Self::UntilClose => {
                payload(piece);
                Ok(Taken {
                    wire: piece.len(),
                    payload: piece.len() as u64,
                })
            }
            Self::Length(left) => {
                let (run, taken) = split(piece, *left);
                payload(run);
                *left -= taken;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Taken {
                    wire: run.len(),
                    payload: taken,
                })
            }
            Self::Chunked(chunk) => {
                let mut rest = piece;
                let mut sum = 0;
                while let Some((&byte, after)) = rest.split_first() {
                    match *chunk {
                        Chunk::Data(left) => {
                            let (run, taken) = split(rest, left);
                            payload(run);
                            sum += taken;
                            rest = rest.get(run.len()..).unwrap_or_default();
                            *chunk = match left - taken {
                                0 => Chunk::DataCr,
                                left => Chunk::Data(left),
                            };
                        }
                        Chunk::Trailer {
                            length: 0,
                            cr: false,
                            ..
                        } if !takes_trailers && byte != b'\r' => {
                            return Err(BadFraming("header fields behind the body"));
                        }
                        framing => match framing.after(byte)? {
                            Some(next) => {
                                *chunk = next;
                                rest = after;
                            }
                            None => {
                                *self = Self::Done;
                                return Ok(Taken {
                                    wire: piece.len() - after.len(),
                                    payload: sum,
                                });
                            }
                        },
                    }
                }
                Ok(Taken {
                    wire: piece.len(),
                    payload: sum,
                })
            }
        }
    }
}

impl Chunk {
    /// The state after one byte of framing; `None` after the last byte of the body.
    fn after(self, byte: u8) -> Result<Option<Self>, BadFraming> {
        let next = match (self, byte) {
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size {
                value: 0,
                digits: 0,
                cr: false,
            },
            (
                Self::Size {
                    digits: 1..,
                    value: 0,
                    cr: true,
                },
                b'\n',
            ) => Self::Trailer {
                length: 0,
                lines: 0,
                cr: false,
            },
            (
                Self::Size {
                    digits: 1..,
                    value,
                    cr: true,
                },
                b'\n',
            ) => Self::Data(value),
            (
                Self::Size {
                    digits: digits @ 1..,
                    value,
                    cr: false,
                },
                b'\r',
            ) => Self::Size {
                value,
                digits,
                cr: true,
            },
            (
                Self::Size {
                    digits: SIZE_DIGITS_MAX..,
                    cr: false,
                    ..
                },
                _,
            ) => {
                return Err(BadFraming("chunk size too long"));
            }
            (
                Self::Size {
                    value,
                    digits,
                    cr: false,
                },
                _,
            ) => {
                // Extensions are refused: nobody in this protocol sends them, and parsers differ on them.
                let digit = char::from(byte)
                    .to_digit(16)
                    .ok_or(BadFraming("bad chunk size"))?;
                Self::Size {
                    value: value * 16 + u64::from(digit),
                    digits: digits + 1,
                    cr: false,
                }
            }
            (
                Self::Trailer {
                    length: 0,
                    cr: true,
                    ..
                },
                b'\n',
            ) => return Ok(None),
            (
                Self::Trailer {
                    lines, cr: true, ..
                },
                b'\n',
            ) if lines < TRAILER_LINES_MAX => Self::Trailer {
                length: 0,
                lines: lines + 1,
                cr: false,
            },
            (
                Self::Trailer {
                    length,
                    lines,
                    cr: false,
                },
                b'\r',
            ) => Self::Trailer {
                length,
                lines,
                cr: true,
            },
            (
                Self::Trailer {
                    length,
                    lines,
                    cr: false,
                },
                _,
            ) if byte != b'\n' && length < TRAILER_LINE_MAX => Self::Trailer {
                length: length + 1,
                lines,
                cr: false,
            },
            (Self::Trailer { .. }, _) => return Err(BadFraming("bad trailer")),
            _ => return Err(BadFraming("bad chunk end")),
        };
        Ok(Some(next))
    }
}

/// The part of `piece` that belongs to a run with `left` bytes to go, and its length.
fn split(piece: &[u8], left: u64) -> (&[u8], u64) {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
    (piece.get(..length).unwrap_or_default(), length as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WAIT: &[u8] = b"9\r\nPENDING\r\n\r\n6\r\nDONE\r\n\r\n0\r\n\r\nHTTP";

    fn followed(wire: &[u8], step: usize) -> (usize, Vec<u8>, bool) {
        let (mut body, mut at, mut payload) = (Body::CHUNKED, 0, Vec::new());
        for piece in wire.chunks(step) {
            at += body
                .follow(piece, |run| payload.extend_from_slice(run))
                .unwrap()
                .wire;
            if body.is_done() {
                break;
            }
        }
        (at, payload, body.is_done())
    }

    #[test]
    fn a_request_body_has_no_header_fields_behind_it() {
        let whole = b"3\r\nabc\r\n0\r\n\r\nGET";
        let fields = b"3\r\nabc\r\n0\r\nX: y\r\n\r\n";
        for cut in 0..whole.len() - 3 {
            let (first, second) = whole.split_at(cut);
            let mut body = Body::CHUNKED;
            let taken = body.follow_request(first).unwrap().wire;
            let taken = taken + body.follow_request(second).unwrap().wire;
            assert_eq!((taken, body), (whole.len() - 3, Body::Done));
        }
        for cut in 0..fields.len() {
            let (first, second) = fields.split_at(cut);
            let mut body = Body::CHUNKED;
            let outcome = body.follow_request(first);
            assert!(
                outcome.is_err() || body.follow_request(second).is_err(),
                "{cut}"
            );
            let mut answer = Body::CHUNKED;
            assert!(answer.follow(fields, |_| {}).is_ok());
        }
    }

    #[test]
    fn a_chunked_body_ends_at_its_last_chunk_however_it_is_cut() {
        for step in [1, 2, 3, 7, WAIT.len()] {
            let (at, payload, done) = followed(WAIT, step);
            assert_eq!((at, done), (WAIT.len() - 4, true), "step {step}");
            assert_eq!(payload, b"PENDING\r\nDONE\r\n");
        }
    }

    #[test]
    fn what_two_parsers_may_read_differently_is_refused() {
        for bad in [
            &b"5;x=y\r\n"[..],
            b" 5\r\n",
            b"+5\r\n",
            b"0x5\r\n",
            b"\r\n",
            b"5\n",
            b"5 \r\n",
            b"123456789\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"0\r\nx\n",
        ] {
            let mut body = Body::CHUNKED;
            assert!(body.follow(bad, |_| {}).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_chunk_of_ours_fits_only_between_two_of_theirs() {
        let mut body = Body::CHUNKED;
        for (piece, fits) in [
            (&b"9\r\nPEND"[..], false),
            (b"ING\r\n", false),
            (b"\r\n", true),
            (b"6", false),
        ] {
            body.follow(piece, |_| {}).unwrap();
            assert_eq!(body.at_chunk_boundary(), fits, "{piece:?}");
        }
    }

    #[test]
    fn a_counted_body_leaves_the_next_message_alone() {
        let mut body = Body::of_length(3);
        assert_eq!(
            body.follow(b"ab", |_| {}).unwrap(),
            Taken {
                wire: 2,
                payload: 2
            }
        );
        assert_eq!(
            body.follow(b"cPOST", |_| {}).unwrap(),
            Taken {
                wire: 1,
                payload: 1
            }
        );
        assert!(body.is_done());
        assert!(Body::of_length(0).is_done());
    }

    #[test]
    fn trailers_are_followed_and_bounded() {
        let mut body = Body::CHUNKED;
        let wire = b"0\r\nX-A: 1\r\nX-B: 2\r\n\r\n";
        assert_eq!(body.follow(wire, |_| {}).unwrap().wire, wire.len());
        assert!(body.is_done());
        let mut endless = Body::CHUNKED;
        endless.follow(b"0\r\n", |_| {}).unwrap();
        let lines = b"a\r\n".repeat(usize::from(TRAILER_LINES_MAX) + 1);
        assert!(endless.follow(&lines, |_| {}).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_mean_the_same(wire in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..9) {
            let mut whole = Body::CHUNKED;
            let at_once = whole.follow(&wire, |_| {});
            let mut piecewise = Body::CHUNKED;
            let mut outcome = Ok(0);
            for piece in wire.chunks(step) {
                match piecewise.follow(piece, |_| {}) {
                    Ok(taken) => outcome = outcome.map(|sum: usize| sum + taken.wire),
                    Err(error) => { outcome = Err(error); break }
                }
                if piecewise.is_done() { break }
            }
            prop_assert_eq!(at_once.map(|taken| taken.wire), outcome);
        }
    }
}
