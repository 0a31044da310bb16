//! One request of a connection, as the HTTP/1.1 connection that the relay takes it for.
//!
//! Reading gives the request's text, and then its body as its frames come; writing takes the answer's text
//! and makes frames of it. Nothing is kept between the two but the piece at hand: who is slow on one side
//! makes the other wait, through the windows of its stream alone.

use super::answered::{Answered, Step};
use super::asked::{Asked, Written, is_bare};
use super::book::{Book, Mark};
use crate::accounting::{Bytes, Kinds, Wire};
use crate::relay::{Shared, Stream, Wrong};
use bytes::Bytes as Piece;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of HTTP/2, from its request to its end.
#[derive(Debug)]
pub(super) struct Strand {
    number: u32,
    book: Arc<Book>,
    shared: Shared,
    request: Incoming,
    respond: Option<SendResponse<Piece>>,
    send: Option<SendStream<Piece>>,
    answer: Answered,
    /// What has been handed over to be sent.
    queued: Mark,
    /// It was broken off, by one side or the other.
    is_over: bool,
}

/// A request on its way in.
#[derive(Debug)]
struct Incoming {
    /// Text that comes before what the frames bring.
    text: Piece,
    /// Of a DATA frame, what nobody has read.
    piece: Piece,
    frames: RecvStream,
    at: At,
}

/// How far it is.
#[derive(Debug)]
enum At {
    /// Nobody knows yet whether there is a body.
    Head(Written),
    /// In a body of which so much is to come.
    Counted(u64),
    /// In a body of chunks.
    Chunked,
    /// Behind the body; fields that come there are dropped.
    Trailers(Box<Self>),
    /// All of it is here.
    End,
}

impl Strand {
    /// A request that has come. `name`: what its connection was made for. `is_later`: it is not the first.
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Piece>,
        name: &str,
        is_later: bool,
        book: Arc<Book>,
    ) -> Self {
        let (head, frames) = request.into_parts();
        let number = respond.stream_id().as_u32();
        book.open(number);
        let path = head.uri.path_and_query();
        let asked = Asked {
            method: head.method.as_str().as_bytes(),
            scheme: head.uri.scheme_str().map(str::as_bytes),
            authority: head.uri.authority().map(|it| it.as_str().as_bytes()),
            path: path.map_or("", |path| path.as_str()).as_bytes(),
            fields: head
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
        };
        let has_ended = frames.is_end_stream();
        let mut shared = Shared {
            wrong: None,
            is_later,
        };
        let written = asked.write(name).and_then(|written| {
            let promised = written.length.unwrap_or(0);
            match has_ended && promised > 0 {
                true => Err(Wrong::Malformed("content-length without a body")),
                false => Ok(written),
            }
        });
        let (text, at) = match written {
            Ok(written) => match (written.length, has_ended) {
                // A client may say of a GET only with its first DATA frame that it has no body.
                (None, false) if is_bare(head.method.as_str()) => (Vec::new(), At::Head(written)),
                _ => begin(written, !has_ended),
            },
            Err(wrong) => {
                shared.wrong = Some(wrong);
                // Nobody reads it; but an answer to HEAD has no body.
                (format!("{} ", head.method).into_bytes(), At::Chunked)
            }
        };
        Self {
            number,
            book,
            shared,
            request: Incoming {
                text: text.into(),
                piece: Piece::new(),
                frames,
                at,
            },
            respond: Some(respond),
            send: None,
            answer: Answered::new(head.method == http::Method::HEAD),
            queued: Mark::default(),
            is_over: false,
        }
    }

    /// Breaks it off.
    fn reset(&mut self, reason: Reason) {
        if !std::mem::replace(&mut self.is_over, true) {
            match (&mut self.send, &mut self.respond) {
                (Some(send), _) => send.send_reset(reason),
                (None, Some(respond)) => respond.send_reset(reason),
                (None, None) => {}
            }
        }
    }

    /// Ready with an error once the stream is broken off, or its connection is gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let gone = match (&mut self.send, &mut self.respond) {
            (Some(send), _) => send.poll_reset(cx).map(|_why| ()),
            (None, Some(respond)) => respond.poll_reset(cx).map(|_why| ()),
            (None, None) => Poll::Ready(()),
        };
        gone.map(|()| {
            self.is_over = true;
            io::ErrorKind::ConnectionReset.into()
        })
    }

    /// Sends what waits, as far as the client has room for it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(send) = &mut self.send else {
            return Poll::Ready(Ok(()));
        };
        if self.queued.is_ended {
            return Poll::Ready(Ok(()));
        }
        let is_complete = self.answer.is_done();
        let payload = &mut self.answer.payload;
        while !payload.is_empty() {
            send.reserve_capacity(payload.len());
            let room = match send.capacity() {
                0 => match ready!(send.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(Err(gone())),
                },
                room => room,
            };
            let piece = payload.split_to(room.min(payload.len())).freeze();
            let length = piece.len() as u64;
            let is_last = payload.is_empty() && is_complete;
            send.send_data(piece, is_last).map_err(|_gone| gone())?;
            self.queued.payload += length;
            self.queued.is_ended = is_last;
        }
        if is_complete && !self.queued.is_ended {
            send.send_data(Piece::new(), true).map_err(|_gone| gone())?;
            self.queued.is_ended = true;
        }
        Poll::Ready(Ok(()))
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        let Some(respond) = &mut self.respond else {
            return Ok(());
        };
        match step {
            Step::More => return Ok(()),
            Step::Interim(response) => respond
                .send_informational(response)
                .map_err(|_gone| gone())?,
            Step::Head(response) => {
                let is_last = self.answer.is_done();
                let send = respond.send_response(response, is_last);
                self.send = Some(send.map_err(|_gone| gone())?);
                self.queued.is_ended = is_last;
                self.respond = None;
            }
        }
        self.queued.heads += 1;
        Ok(())
    }
}

/// Ends a head, where it is known whether there is a body.
fn begin(mut written: Written, has_body: bool) -> (Vec<u8>, At) {
    let is_chunked = written.finish(has_body);
    let at = match (has_body, is_chunked) {
        (false, _) => At::End,
        (true, true) => At::Chunked,
        (true, false) => At::Counted(written.length.unwrap_or(0)),
    };
    (written.text, at)
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Incoming {
    /// Makes the next bytes ready, where none are. True: there are none to come.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.text.is_empty() && self.piece.is_empty() {
            match &mut self.at {
                At::End => return Poll::Ready(Ok(true)),
                At::Trailers(before) => {
                    match ready!(self.frames.poll_trailers(cx)) {
                        Ok(_dropped) => {}
                        Err(_gone) => return Poll::Ready(Err(gone())),
                    }
                    let before = std::mem::replace(&mut **before, At::End);
                    self.end(before)?;
                }
                At::Head(_) | At::Counted(_) | At::Chunked => {
                    match ready!(self.frames.poll_data(cx)) {
                        Some(Ok(piece)) => self.data(piece)?,
                        Some(Err(_gone)) => return Poll::Ready(Err(gone())),
                        None => {
                            let before = std::mem::replace(&mut self.at, At::End);
                            self.at = At::Trailers(Box::new(before));
                        }
                    }
                }
            }
        }
        Poll::Ready(Ok(false))
    }

    /// A DATA frame.
    fn data(&mut self, piece: Piece) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        if let At::Head(_) = &self.at
            && let At::Head(written) = std::mem::replace(&mut self.at, At::End)
        {
            let (text, at) = begin(written, true);
            (self.text, self.at) = (text.into(), at);
        }
        match &mut self.at {
            At::Counted(left) => match left.checked_sub(piece.len() as u64) {
                Some(rest) => *left = rest,
                None => return Err(io::ErrorKind::InvalidData.into()),
            },
            _ => {
                let size = format!("{:x}\r\n", piece.len());
                self.text = [&self.text, size.as_bytes()].concat().into();
            }
        }
        self.piece = piece;
        Ok(())
    }

    /// The last frame has come.
    fn end(&mut self, before: At) -> io::Result<()> {
        self.at = At::End;
        match before {
            At::Head(written) => self.text = begin(written, false).0.into(),
            At::Counted(1..) => return Err(io::ErrorKind::InvalidData.into()),
            At::Chunked => self.text = Piece::from_static(b"0\r\n\r\n"),
            _ => {}
        }
        Ok(())
    }

    /// Hands over what is ready.
    fn deliver(&mut self, into: &mut ReadBuf<'_>) {
        let text = self.text.len().min(into.remaining());
        into.put_slice(&self.text.split_to(text));
        let length = self.piece.len().min(into.remaining());
        if length == 0 {
            return;
        }
        into.put_slice(&self.piece.split_to(length));
        // The client may send as much again. It cannot fail for what has been received.
        let _released = self.frames.flow_control().release_capacity(length);
        if self.piece.is_empty() && matches!(self.at, At::Chunked) {
            self.text = Piece::from_static(b"\r\n");
        }
    }
}

impl AsyncRead for Strand {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        while into.remaining() > 0 {
            if this.is_over {
                return Poll::Ready(Err(gone()));
            }
            match this.request.poll_more(cx) {
                Poll::Ready(Ok(false)) => this.request.deliver(into),
                _ if into.filled().len() > before => break,
                Poll::Ready(Err(error)) => {
                    // What was asked is not what was promised, or nobody asks any more.
                    this.reset(Reason::PROTOCOL_ERROR);
                    return Poll::Ready(Err(error));
                }
                // While an answer is due, an end of the stream would read as a client that left.
                Poll::Ready(Ok(true)) if this.queued.is_ended => break,
                Poll::Ready(Ok(true)) | Poll::Pending => {
                    return this.poll_gone(cx).map(Err);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Strand {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(Err(gone()));
        }
        ready!(this.poll_drain(cx))?;
        let from = from.get(..WRITE_MAX).unwrap_or(from);
        let (taken, step) = match this.answer.take(from) {
            Ok(taken) => taken,
            Err(unfit) => {
                tracing::error!(%unfit, "an answer cannot be sent by HTTP/2");
                this.reset(Reason::INTERNAL_ERROR);
                return Poll::Ready(Err(gone()));
            }
        };
        this.step(step)?;
        // Taken is taken: what the client has no room for goes before the next write, or with a flush.
        let _tried = this.poll_drain(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(Err(gone()));
        }
        let sent = match this.poll_drain(cx) {
            Poll::Ready(Ok(())) => this.book.poll_flushed(this.number, this.queued, cx),
            other => other,
        };
        match sent {
            // Who breaks it off will not take the rest.
            Poll::Pending => this.poll_gone(cx).map(Err),
            sent => sent,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(Ok(()));
        }
        // An answer that ends with its connection ends here, if all of it has gone: else the client was too
        // slow, and must not take what it has for the whole.
        let is_whole = this.answer.is_done() || this.book.is_flushed(this.number, this.queued);
        if !is_whole || !this.answer.end() {
            this.reset(Reason::INTERNAL_ERROR);
            return Poll::Ready(Ok(()));
        }
        Pin::new(this).poll_flush(cx)
    }
}

impl Wire for Strand {
    fn wire(&self) -> Bytes {
        Bytes::default()
    }

    /// Nothing: see [`Stream::counted`].
    fn bill(&mut self, _read_ahead: u64) -> Bytes {
        Bytes::default()
    }
}

impl Stream for Strand {
    fn shared(&self) -> Option<Shared> {
        Some(self.shared)
    }

    fn send_away(&mut self) {
        self.reset(Reason::HTTP_1_1_REQUIRED);
    }

    fn counted(&mut self) -> Option<[Kinds; 2]> {
        Some(self.book.claim(self.number))
    }
}

impl Drop for Strand {
    fn drop(&mut self) {
        let whole = matches!(self.request.at, At::End);
        if !self.queued.is_ended {
            // Never a clean end.
            self.reset(Reason::INTERNAL_ERROR);
        } else if !whole && matches!(self.shared.wrong, Some(Wrong::Malformed(_))) {
            // RFC 9113 section 8.1.1; what was well asked and is not wanted ends without an error.
            self.reset(Reason::PROTOCOL_ERROR);
        }
        self.book.forget(self.number);
    }
}

/// Bytes of an answer taken by one write.
const WRITE_MAX: usize = 64 * 1024;
