//! Answers of our own, and what becomes of the request they answer.

use super::admit::{Local, Shape};
use super::bill::Bill;
use super::connection::{Connection, LAST_WORDS, Next, Stop, Stream, after};
use super::head::{BodyLength, first_line};
use super::refuse::{self, Manner};
use super::vdir;
use crate::accounting::{HeadBytes, Kind};
use crate::auth::Scheme;
use crate::buffers::Scratch;
use crate::mapi::ResponseCode;
use crate::mapi::framing::Body;
use crate::metrics::Outcome;
use crate::refusal::Refusal;
use crate::runtime::{Runtime, Snapshot};
use std::borrow::Cow;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

impl<S: Stream> Connection<S> {
    /// Answers what needs no server.
    ///
    /// # Errors
    /// The client went away.
    pub(super) async fn answer_locally(
        &mut self,
        local: Local,
        world: &Snapshot,
        runtime: &Runtime,
        shape: Option<Shape>,
        bill: &mut Bill<'_>,
    ) -> Result<Next, Stop> {
        let manner = self.manner(shape, false);
        let mut out = Scratch::new();
        match local {
            Local::Health(page) => {
                let told = vdir::page(page, world, runtime.is_open());
                bill.status = if told.is_ok() { 200 } else { 503 };
                let host = world
                    .settings
                    .names
                    .first()
                    .map_or("", |name| name.host.as_str());
                let words = match told {
                    Ok(()) => host.to_owned(),
                    Err(why) => format!("{host}<br/>{why}"),
                };
                refuse::health(told.is_ok(), &words, manner, &mut out.0);
            }
            Local::SessionEnded => {
                bill.status = 200;
                bill.code = Some(ResponseCode::SUCCESS);
                let proof = self.memo.answer();
                refuse::session_ended(bill, proof, manner, &mut out.0);
            }
            Local::Echo => {
                bill.status = 200;
                refuse::echo(self.memo.answer(), manner, &mut out.0);
            }
        }
        bill.outcome = Outcome::Local;
        self.finish(&out.0, shape, manner, bill).await
    }

    /// Says no, in the protocol's words where it has some.
    pub(super) async fn refuse(
        &mut self,
        refusal: Refusal,
        shape: Option<Shape>,
        runtime: &Runtime,
        bill: &mut Bill<'_>,
    ) -> Next {
        if matches!(refusal, Refusal::NeedsHttp11(_)) {
            self.stream.send_away();
            bill.refuse(refusal);
            return Next::Break;
        }
        let world = runtime.snapshot();
        if matches!(refusal, Refusal::Guarded(_)) {
            self.hold_back(&world, runtime).await;
        }
        let mut manner = self.manner(shape, refusal.ends_connection());
        // A head that was refused has no shape, but its method still forbids a body.
        manner.is_head |=
            shape.is_none() && bill.is_of_nothing() && self.input.data().starts_with(b"HEAD ");
        let offered;
        let challenges: Vec<&str> = match (&refusal, self.memo.answer()) {
            // The next word of a conversation, or its last, which is owed whatever becomes of the request.
            (_, Some(word)) => vec![word],
            (
                Refusal::Unauthenticated(_) | Refusal::TokenRefused(_) | Refusal::Guarded(_),
                None,
            ) => {
                let refused = refusal.diagnosis().map(|_| Scheme::Bearer);
                let name = shape.and_then(|shape| shape.name);
                let is_bindable = self.memo.is_bindable();
                offered = self::offered(&world, name, bill);
                let lines = world.auth.challenges(&offered, refused, is_bindable);
                lines.collect()
            }
            _ => Vec::new(),
        };
        let mut out = Scratch::new();
        let allowed = match bill.vdir {
            Some((directory, _)) => Cow::Owned(vdir::allowed(&world, directory)),
            None => Cow::Borrowed("POST"),
        };
        refuse::refusal(&refusal, &challenges, &allowed, bill, manner, &mut out.0);
        bill.refuse(refusal);
        self.finish(&out.0, shape, manner, bill)
            .await
            .unwrap_or(Next::Close)
    }

    /// Lets somebody wait whose passwords are not looked at any more: guessing is to be slow work. No
    /// longer than we are here.
    async fn hold_back(&mut self, world: &Snapshot, runtime: &Runtime) {
        let delay = world.auth.delay();
        runtime.metrics.guard_delay(delay.is_some());
        let Some(delay) = delay else {
            return;
        };
        self.late.set(after(delay.wait));
        poll_fn(|cx| {
            while self.asks.poll(cx).is_ready() {}
            match self.asks.now().leaving {
                true => Poll::Ready(()),
                false => self.late.poll(cx),
            }
        })
        .await;
    }

    pub(super) fn manner(&self, shape: Option<Shape>, ends: bool) -> Manner {
        // Where the body is long or of unknown length, a new connection is cheaper than reading it.
        let skippable = |shape: Shape| matches!(shape.body, BodyLength::Counted(length) if length <= SKIPPED_MAX);
        let stays = shape
            .is_some_and(|shape| shape.keep_alive && skippable(shape) && !shape.expects_continue);
        Manner {
            close: ends || !stays || self.must_end || self.asks.now().leaving,
            is_head: shape.is_some_and(|shape| shape.is_head),
        }
    }

    /// Writes an answer of ours and passes over the request's body.
    pub(super) async fn finish(
        &mut self,
        out: &[u8],
        shape: Option<Shape>,
        manner: Manner,
        bill: &mut Bill<'_>,
    ) -> Result<Next, Stop> {
        let line = first_line(out);
        let head_end = memchr::memmem::find(out, b"\r\n\r\n").map_or(out.len(), |end| end + 4);
        bill.ledger.client_out.add_head(HeadBytes {
            total: head_end,
            line,
            ..HeadBytes::default()
        });
        let payload = (out.len() - head_end) as u64;
        bill.ledger.client_out.add(Kind::Payload, payload);
        self.late.set(after(LAST_WORDS));
        self.write(out).await?;
        let Some(shape) = shape.filter(|_| !manner.close) else {
            return Ok(Next::Linger);
        };
        let BodyLength::Counted(length) = shape.body else {
            return Ok(Next::Close);
        };
        self.input.consume(shape.length);
        let mut body = Body::of_length(length);
        loop {
            let taken = body
                .follow(self.input.data(), |_| {})
                .map_err(|_counted| Stop::ClientGone)?;
            self.input.consume(taken.wire);
            bill.ledger.client_in.add(Kind::Payload, taken.wire as u64);
            if body.is_done() {
                return Ok(Next::Request);
            }
            self.more_body().await?;
        }
    }

    /// Takes what is still on its way for a moment after a last answer: closing on unread bytes resets
    /// the connection, and the client would lose the answer.
    pub(super) async fn linger(&mut self) {
        let _eof = tokio::time::timeout(LAST_WORDS, self.stream.shutdown()).await;
        self.late.set(after(LINGER));
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            let here = self.input.data().len();
            self.input.consume(here);
            left = left.saturating_sub(here.max(1));
            if self.more_body().await.is_err() {
                return;
            }
        }
    }
}

/// The schemes of the path that was asked for, in the order of their challenges.
pub(super) fn offered<'w>(
    world: &'w Snapshot,
    name: Option<usize>,
    bill: &Bill<'_>,
) -> Cow<'w, [Scheme]> {
    let Some(name) = world.settings.names.get(name.unwrap_or(0)) else {
        return Cow::Borrowed(&[]);
    };
    match (bill.channel, bill.vdir) {
        (Some(_), _) => Cow::Borrowed(name.offered_to_channels()),
        (None, Some((directory, _))) => vdir::schemes(world, directory, name),
        (None, None) => Cow::Borrowed(name.offered(bill.endpoint)),
    }
}

/// How long unread bytes are taken after a last answer.
const LINGER: Duration = Duration::from_secs(1);
/// How many of them.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// A refused request's body up to this is read and dropped, so that the connection can stay.
const SKIPPED_MAX: u64 = 64 * 1024;
