//! An answer of HTTP/1.1 on its way into frames. RFC 9113 section 8.1

use crate::mapi::Flavour;
use crate::mapi::framing::Body;
use crate::relay::head::Fields;
use crate::relay::{self, AnswerHead};
use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

/// The text of an answer, read as it is written.
#[derive(Debug)]
pub(super) struct Answered {
    /// Of a head, what is here.
    head: Vec<u8>,
    body: Option<Body>,
    /// Of a body, what waits to be sent.
    pub(super) payload: BytesMut,
    is_head: bool,
}

/// What a piece of it was.
#[derive(Debug)]
pub(super) enum Step {
    /// More is needed.
    More,
    /// An interim answer.
    Interim(Response<()>),
    /// The head; the body follows where there is one.
    Head(Response<()>),
}

/// It is no answer that could be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unfit(pub(super) &'static str);

impl Answered {
    /// Nothing yet. `is_head`: of a HEAD, whose answer has no body whatever it says.
    pub(super) fn new(is_head: bool) -> Self {
        Self {
            head: Vec::new(),
            body: None,
            payload: BytesMut::new(),
            is_head,
        }
    }

    /// Takes the next piece, up to the end of a head at most. Returns the bytes of it that were taken.
    ///
    /// # Errors
    /// It is no answer; nothing after it can be trusted.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(usize, Step), Unfit> {
        match &mut self.body {
            None => self.take_head(piece),
            Some(body) => {
                let payload = &mut self.payload;
                let taken = body
                    .follow(piece, |run| payload.extend_from_slice(run))
                    .map_err(|bad| Unfit(bad.0))?;
                match taken.wire == piece.len() {
                    true => Ok((taken.wire, Step::More)),
                    false => Err(Unfit("bytes behind the answer")),
                }
            }
        }
    }

    fn take_head(&mut self, piece: &[u8]) -> Result<(usize, Step), Unfit> {
        let before = self.head.len();
        self.head.extend_from_slice(piece);
        // The end may stand across both.
        let from = before.saturating_sub(END.len() - 1);
        let behind = self.head.get(from..).unwrap_or_default();
        let Some(end) = memchr::memmem::find(behind, END) else {
            return match self.head.len() > HEAD_MAX {
                true => Err(Unfit("head too large")),
                false => Ok((piece.len(), Step::More)),
            };
        };
        let end = from + end + END.len();
        self.head.truncate(end);
        let mut room = Fields::new();
        // What is read besides, as the flavour has it, is nobody's business here.
        let head = relay::read_answer(&self.head, Flavour::Exchange, &mut room)
            .map_err(Unfit)?
            .ok_or(Unfit("half a head"))?;
        let response = response(&head)?;
        let step = match head.status {
            101 => return Err(Unfit("101")),
            ..200 => Step::Interim(response),
            _ => {
                self.body = Some(match self.is_head {
                    true => Body::Done,
                    false => head.body,
                });
                Step::Head(response)
            }
        };
        self.head = Vec::new();
        Ok((end - before, step))
    }

    /// True once nothing more belongs to it.
    pub(super) fn is_done(&self) -> bool {
        self.body == Some(Body::Done)
    }

    /// The relay says that there is no more. False: more was promised.
    pub(super) fn end(&mut self) -> bool {
        if self.body == Some(Body::UntilClose) {
            self.body = Some(Body::Done);
        }
        self.is_done()
    }
}

/// The head as HTTP/2 has it: without what is a connection's own.
fn response(head: &AnswerHead<'_, '_>) -> Result<Response<()>, Unfit> {
    let mut fields = HeaderMap::with_capacity(head.fields.len());
    for field in head.fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_bad| Unfit("field name"))?;
        if OF_CONNECTIONS.contains(&name.as_str()) {
            continue;
        }
        let value = HeaderValue::from_bytes(field.value);
        let value = value.map_err(|_bad| Unfit("field value"))?;
        fields
            .try_append(name, value)
            .map_err(|_full| Unfit("too many header fields"))?;
    }
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(head.status).map_err(|_bad| Unfit("no status"))?;
    *response.headers_mut() = fields;
    Ok(response)
}

/// RFC 9113 section 8.2.2
const OF_CONNECTIONS: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
];
const END: &[u8] = b"\r\n\r\n";
/// More than any head of ours has.
const HEAD_MAX: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a client gets of an answer that is written in these pieces.
    fn told(pieces: &[&[u8]], is_head: bool) -> Result<(Vec<u16>, String, String, bool), Unfit> {
        let mut answered = Answered::new(is_head);
        let (mut statuses, mut fields) = (Vec::new(), String::new());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (taken, step) = answered.take(rest)?;
                assert!(taken > 0);
                rest = &rest[taken..];
                if let Step::Interim(response) | Step::Head(response) = step {
                    statuses.push(response.status().as_u16());
                    fields = response
                        .headers()
                        .iter()
                        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
                        .collect();
                }
            }
        }
        let is_done = answered.end();
        let payload = String::from_utf8_lossy(&answered.payload).into_owned();
        Ok((statuses, fields, payload, is_done))
    }

    #[test]
    fn bodies_end_where_their_framing_ends_them() {
        for (answer, fields, payload) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
                "content-length: 3\n",
                "abc",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                "x-a: b\n",
                "abc",
            ),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", "", "abc"),
            ("HTTP/1.1 204 No Content\r\n\r\n", "", ""),
            (
                "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
                "etag: x\n",
                "",
            ),
        ] {
            let expected = (
                vec![answer.get(9..12).unwrap().parse().unwrap()],
                fields.to_owned(),
                payload.to_owned(),
                true,
            );
            assert_eq!(told(&[answer.as_bytes()], false), Ok(expected), "{answer}");
        }
    }

    #[test]
    fn a_head_alone_keeps_the_length_of_what_it_stands_for() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n";
        let expected = (
            vec![200],
            "content-length: 300\n".to_owned(),
            String::new(),
            true,
        );
        assert_eq!(told(&[answer], true), Ok(expected));
    }

    #[test]
    fn an_interim_answer_comes_before_the_answer() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
        let (statuses, _, payload, is_done) = told(&[answer], false).unwrap();
        assert_eq!(
            (statuses, payload.as_str(), is_done),
            (vec![100, 200], "x", true)
        );
    }

    #[test]
    fn what_breaks_off_is_not_done() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"",
        ] {
            let (.., is_done) = told(&[answer], false).unwrap();
            assert!(!is_done, "{answer:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_not_passed_on() {
        for answer in [
            &b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
        ] {
            assert!(told(&[answer], false).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn cookies_stay_apart() {
        let answer =
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n";
        let (_, fields, ..) = told(&[answer], false).unwrap();
        assert_eq!(
            fields,
            "set-cookie: a=1\nset-cookie: b=2\ncontent-length: 0\n"
        );
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_it_is_written(cuts in proptest::collection::vec(0..150_usize, 0..20)) {
            let answer: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(answer.len())).collect();
            cuts.extend([0, answer.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &answer[pair[0]..pair[1]]).collect();

            prop_assert_eq!(told(&pieces, false), told(&[answer], false));
        }
    }
}
