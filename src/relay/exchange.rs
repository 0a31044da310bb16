//! Both legs of one exchange while bodies may flow.
//!
//! Waiting is one poll function over all that can happen: an answer's bytes, the request's rest, the
//! client's close, a word from outside, a deadline. It needs no future kept alive per side and no
//! buffer per side, and full duplex falls out of it.

use super::asks::Asks;
use super::buffer::{Buffer, poll_send, poll_write_from};
use super::connection::{Connection, Stop, Stream};
use super::deadline::Deadline;
use crate::accounting::Ledger;
use crate::backend::Leg;
use crate::mapi::framing::Body;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// What happened while we waited.
#[derive(Debug)]
pub(super) enum Event {
    /// So many bytes of the answer came; 0 is the end of the leg.
    Answer(usize),
    /// The leg failed.
    LegFailed(io::Error),
    /// The client closed.
    ClientGone,
    /// Something is asked from outside.
    Asked,
    /// The deadline passed.
    Late,
    /// The request's body is larger than it may be.
    TooLarge,
}

/// One exchange. Borrows the connection for as long as it lasts.
#[derive(Debug)]
pub(super) struct Exchange<'c, S> {
    pub(super) stream: &'c mut S,
    pub(super) input: &'c mut Buffer,
    pub(super) late: &'c mut Deadline,
    pub(super) asks: &'c mut Asks,
    pub(super) leg: &'c mut Leg,
    /// The rest of the request's body.
    request: Body,
    /// Of the input, the piece that is being written to the leg, how much of it is no framing, and how far it is.
    piece: usize,
    piece_payload: u64,
    at: usize,
    /// The answer's bytes that are here.
    pub(super) output: Buffer,
    /// What of the request's body has moved since the first write, on the wire.
    pub(super) moved: u64,
    /// The same without its framing.
    pub(super) moved_payload: u64,
    /// So much of that may move.
    pub(super) payload_max: u64,
}

impl<'c, S: Stream> Exchange<'c, S> {
    pub(super) fn new(connection: &'c mut Connection<S>, leg: &'c mut Leg, request: Body) -> Self {
        Self {
            stream: &mut connection.stream,
            input: &mut connection.input,
            late: &mut connection.late,
            asks: &mut connection.asks,
            leg,
            request,
            piece: 0,
            piece_payload: 0,
            at: 0,
            output: Buffer::default(),
            moved: 0,
            moved_payload: 0,
            payload_max: u64::MAX,
        }
    }

    /// True once the whole request is with the server.
    pub(super) fn is_request_done(&self) -> bool {
        self.request.is_done() && self.piece == 0
    }

    /// True while it is the client who keeps the server waiting.
    pub(super) fn waits_for_client(&self) -> bool {
        !self.request.is_done() && self.piece == 0
    }

    /// How far the request is: differs whenever some of it has moved.
    pub(super) fn progress(&self) -> (u64, usize, bool) {
        (self.moved, self.at, self.is_request_done())
    }

    /// Moves the request on as far as it goes without waiting. Ready when it is complete.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Event>> {
        loop {
            if self.at < self.piece {
                let piece = self.input.data().get(..self.piece).unwrap_or_default();
                let written = poll_write_from(self.leg, piece, &mut self.at, cx);
                ready!(written).map_err(Event::LegFailed)?;
                self.moved += self.piece as u64;
                self.moved_payload += self.piece_payload;
                self.input.consume(self.piece);
                (self.piece, self.at) = (0, 0);
            }
            if self.request.is_done() {
                return Pin::new(&mut *self.leg)
                    .poll_flush(cx)
                    .map_err(Event::LegFailed);
            }
            if self.input.is_empty() {
                match self.input.poll_fill(self.stream, usize::MAX, cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Event::ClientGone)),
                    Poll::Ready(Ok(_)) => {}
                    // What a TLS session has taken and its socket not yet, must not wait for what
                    // the client says next: that may be hours away.
                    Poll::Pending => {
                        return match Pin::new(&mut *self.leg).poll_flush(cx) {
                            Poll::Ready(Err(error)) => Poll::Ready(Err(Event::LegFailed(error))),
                            _ => Poll::Pending,
                        };
                    }
                }
            }
            let taken = self.request.follow_request(self.input.data());
            let taken = taken.map_err(|_bad| Event::ClientGone)?;
            (self.piece, self.piece_payload) = (taken.wire, taken.payload);
            if self.moved_payload.saturating_add(taken.payload) > self.payload_max {
                self.piece = 0;
                return Poll::Ready(Err(Event::TooLarge));
            }
        }
    }

    /// Sends the rest of the request on, though its answer is over. False: it did not come in time.
    pub(super) async fn finish_request(&mut self) -> bool {
        poll_fn(|cx| match self.poll_request(cx) {
            Poll::Ready(moved) => Poll::Ready(moved.is_ok()),
            Poll::Pending => self.late.poll(cx).map(|()| false),
        })
        .await
    }

    /// Says on the leg that no more comes, once everything that came is with the server; under the deadline.
    pub(super) async fn hang_up(&mut self) {
        poll_fn(|cx| match Pin::new(&mut *self.leg).poll_shutdown(cx) {
            Poll::Ready(_ended) => Poll::Ready(()),
            Poll::Pending => self.late.poll(cx),
        })
        .await;
    }

    /// Puts what has moved on the account.
    pub(super) fn book(&self, ledger: &mut Ledger) {
        ledger.client_in.add_body(self.moved, self.moved_payload, 0);
        ledger
            .server_out
            .add_body(self.moved, self.moved_payload, 0);
    }

    /// Waits for the next thing to happen. `listens`: to the outside as well.
    pub(super) async fn next(&mut self, listens: bool) -> Event {
        poll_fn(|cx| self.poll_next(listens, cx)).await
    }

    fn poll_next(&mut self, listens: bool, cx: &mut Context<'_>) -> Poll<Event> {
        match self.output.poll_fill(self.leg, usize::MAX, cx) {
            Poll::Ready(Ok(bytes)) => return Poll::Ready(Event::Answer(bytes)),
            Poll::Ready(Err(error)) => return Poll::Ready(Event::LegFailed(error)),
            Poll::Pending => {}
        }
        match self.poll_request(cx) {
            Poll::Ready(Err(event)) => return Poll::Ready(event),
            Poll::Pending => {}
            // Nothing is owed to us now: a close is an abort. Early bytes are the next request and wait
            // here, once; from then on an abort is seen when the answer is written.
            Poll::Ready(Ok(())) if self.input.is_empty() => {
                if let Poll::Ready(Ok(0) | Err(_)) =
                    self.input.poll_fill(self.stream, usize::MAX, cx)
                {
                    return Poll::Ready(Event::ClientGone);
                }
            }
            Poll::Ready(Ok(())) => {}
        }
        if listens && self.asks.poll(cx).is_ready() {
            return Poll::Ready(Event::Asked);
        }
        self.late.poll(cx).map(|()| Event::Late)
    }

    /// Waits for the deadline with the leg already gone. True: it passed; false: the client left.
    pub(super) async fn rest(&mut self) -> bool {
        poll_fn(|cx| {
            if self.input.is_empty()
                && let Poll::Ready(Ok(0) | Err(_)) =
                    self.input.poll_fill(self.stream, usize::MAX, cx)
            {
                return Poll::Ready(false);
            }
            self.late.poll(cx).map(|()| true)
        })
        .await
    }

    /// Writes to the client under the deadline; while it is slow the request may still move, because both
    /// sides of a duplex pair may be full.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut at = 0;
        poll_fn(|cx| {
            let written = poll_send(self.stream, bytes, &mut at, cx);
            if let Poll::Ready(outcome) = written {
                return Poll::Ready(outcome.map_err(|_gone| Stop::ClientGone));
            }
            if !self.is_request_done() {
                // An error of the leg shows again at the next read; the client gets what is here first.
                let _seen_later = self.poll_request(cx);
            }
            self.late.poll(cx).map(|()| Err(Stop::ClientGone))
        })
        .await
    }
}
