//! The end of a held answer, in the protocol's own words.
//!
//! One chunk and the last chunk, put between two of the server's. `[MS-OXCMAPIHTTP] 3.2.5.2`

use crate::mapi::{Flavour, ResponseCode};
use std::io::Write as _;
use std::time::Duration;

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The session context is gone: connect again.
    ConnectAgain,
    /// Nothing happened: wait again.
    NothingPending,
}

/// Appends the pieces that end a chunked NotificationWait. `elapsed`: since the request began.
pub(crate) fn end_of_wait(word: Word, flavour: Flavour, elapsed: Duration, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(128);
    // gromox writes PENDING without a line end and PROCESSING again before DONE; so do we behind it,
    // or our DONE would be glued to its PENDING.
    if flavour == Flavour::Gromox {
        payload.extend_from_slice(b"PROCESSING\r\n");
    }
    payload.extend_from_slice(b"DONE\r\nX-ResponseCode: ");
    let code = match word {
        Word::ConnectAgain => ResponseCode::CONTEXT_NOT_FOUND,
        Word::NothingPending => ResponseCode::SUCCESS,
    };
    payload.extend_from_slice(itoa::Buffer::new().format(code.0).as_bytes());
    payload.extend_from_slice(b"\r\nX-ElapsedTime: ");
    payload.extend_from_slice(itoa::Buffer::new().format(elapsed.as_millis()).as_bytes());
    payload.extend_from_slice(b"\r\n\r\n");
    if word == Word::NothingPending {
        // StatusCode, ErrorCode, EventPending and the auxiliary size, all zero. `[MS-OXCMAPIHTTP] 2.2.4.4.2`
        payload.extend_from_slice(&[0; 16]);
    }
    // Writing into memory does not fail.
    let _infallible = write!(out, "{:x}\r\n", payload.len());
    out.extend_from_slice(&payload);
    out.extend_from_slice(b"\r\n0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapi::framing::Body;
    use crate::mapi::tags::Tags;

    #[test]
    fn an_end_is_well_framed_and_says_its_code() {
        for flavour in [Flavour::Exchange, Flavour::Gromox] {
            for (word, code) in [(Word::ConnectAgain, 10), (Word::NothingPending, 0)] {
                let mut wire = b"c\r\nPROCESSING\r\n\r\n".to_vec();
                if flavour == Flavour::Gromox {
                    wire.extend_from_slice(b"7\r\nPENDING\r\n");
                }
                end_of_wait(word, flavour, Duration::from_millis(71_000), &mut wire);

                let (mut body, mut tags) = (Body::CHUNKED, Tags::default());
                let taken = body.follow(&wire, |run| tags.read(run)).unwrap();

                assert_eq!(taken.wire, wire.len());
                assert!(body.is_done() && tags.is_done());
                assert_eq!(tags.code(), Some(ResponseCode(code)));
            }
        }
    }
}
