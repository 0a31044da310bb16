//! Whose bytes a connection carries, and how far each answer is on its way.
//!
//! HTTP/2 packs the heads of requests by what went before on the connection, and sends frames that are
//! nobody's. So bytes are counted frame by frame, where they go by. What is a strand's, its request is
//! billed for, once; the rest is booked with the connection when the last of both is gone, and the sum is
//! what was on the wire.

use super::flood::Bucket;
use super::frames::{Frame, Frames, Kind as FrameKind};
use super::guards::{Guard, stands};
use crate::accounting::{Bytes, Kind, Kinds};
use crate::metrics::{LegSide, Side};
use crate::runtime::Runtime;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// What a connection and its strands share.
#[derive(Debug)]
pub(super) struct Book {
    pages: Mutex<Pages>,
    runtime: Arc<Runtime>,
}

#[derive(Debug)]
struct Pages {
    inbound: Frames,
    outbound: Frames,
    /// Bytes on the wire since the handshake.
    wire: Bytes,
    /// The same before TLS.
    plain: Bytes,
    /// Of those on the wire, the ones somebody was billed for.
    claimed: Bytes,
    tabs: HashMap<u32, Tab>,
    /// The highest number a client has given to a stream.
    last: u32,
    /// Streams whose frames have been sent and not yet flushed.
    unflushed: Vec<u32>,
    /// Frames that ask nothing of us.
    noise: Bucket,
    /// Requests given up before they were answered.
    given_up: Bucket,
    is_flood: bool,
    is_closed: bool,
}

/// What a strand has had.
#[derive(Debug, Default)]
struct Tab {
    received: Kinds,
    sent: Kinds,
    passed: Mark,
    flushed: Mark,
    waits: Option<Waker>,
    /// A strand reads it.
    is_read: bool,
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Heads, interim ones included.
    pub(super) heads: u32,
    /// Bytes of its body.
    pub(super) payload: u64,
    /// Its end.
    pub(super) is_ended: bool,
}

impl Book {
    /// Of a connection whose handshake is billed.
    pub(super) fn new(runtime: Arc<Runtime>) -> Arc<Self> {
        let pages = Pages {
            inbound: Frames::of_client(),
            outbound: Frames::of_server(),
            wire: Bytes::default(),
            plain: Bytes::default(),
            claimed: Bytes::default(),
            tabs: HashMap::new(),
            last: 0,
            unflushed: Vec::new(),
            noise: Bucket::new(NOISE_MAX, NOISE_PER_SECOND),
            given_up: Bucket::new(GIVEN_UP_MAX, GIVEN_UP_PER_SECOND),
            is_flood: false,
            is_closed: false,
        };
        Arc::new(Self {
            pages: Mutex::new(pages),
            runtime,
        })
    }

    /// These bytes came. `wire`: what has been on the wire by now.
    pub(super) fn received(&self, bytes: &[u8], wire: Bytes, now: impl Fn() -> Instant) {
        let mut pages = self.pages.lock();
        pages.wire = wire;
        pages.plain.received += bytes.len() as u64;
        let Pages {
            inbound,
            tabs,
            last,
            noise,
            given_up,
            is_flood,
            ..
        } = &mut *pages;
        inbound.follow(bytes, |frame| {
            self.tell(Side::Client, &frame);
            if frame.kind == FrameKind::Headers && frame.stream > *last {
                *last = frame.stream;
                if tabs.len() < TABS_MAX {
                    tabs.insert(frame.stream, Tab::default());
                }
            }
            match frame.kind {
                FrameKind::Headers => noise.work(WORK),
                FrameKind::Data if frame.payload() > 0 => {}
                FrameKind::Reset => {
                    let answered = |tab: &Tab| tab.passed.is_ended;
                    let is_answered = tabs.get(&frame.stream).is_none_or(answered);
                    if !is_answered {
                        *is_flood |= !given_up.fill(1, now());
                    }
                    *is_flood |= !noise.fill(1, now());
                }
                _ => *is_flood |= !noise.fill(1, now()),
            }
            if let Some(tab) = tabs.get_mut(&frame.stream) {
                count(&mut tab.received, &frame);
            }
        });
    }

    /// These bytes went out, perhaps no further than into TLS.
    pub(super) fn sent(&self, bytes: &[u8], wire: Bytes) {
        let mut pages = self.pages.lock();
        pages.wire = wire;
        pages.plain.sent += bytes.len() as u64;
        let Pages {
            outbound,
            tabs,
            unflushed,
            noise,
            given_up,
            ..
        } = &mut *pages;
        outbound.follow(bytes, |frame| {
            self.tell(Side::Us, &frame);
            if frame.kind == FrameKind::Data {
                // A client opens its windows as it takes what we send.
                noise.work(WORK);
            }
            let Some(tab) = tabs.get_mut(&frame.stream) else {
                return;
            };
            count(&mut tab.sent, &frame);
            tab.passed.heads += u32::from(frame.kind == FrameKind::Headers);
            tab.passed.payload += frame.payload();
            if frame.ends_stream() {
                tab.passed.is_ended = true;
                given_up.work(1);
            }
            if frame.kind == FrameKind::Reset && !tab.is_read {
                // Refused before it was anybody's.
                tabs.remove(&frame.stream);
            } else if !unflushed.contains(&frame.stream) {
                unflushed.push(frame.stream);
            }
        });
    }

    /// Everything that went out is on the wire.
    pub(super) fn flushed(&self, wire: Bytes) {
        let mut pages = self.pages.lock();
        pages.wire = wire;
        let Pages {
            tabs, unflushed, ..
        } = &mut *pages;
        for stream in unflushed.drain(..) {
            if let Some(tab) = tabs.get_mut(&stream) {
                tab.flushed = tab.passed;
                if let Some(waits) = tab.waits.take() {
                    waits.wake();
                }
            }
        }
    }

    /// The connection is gone. `wire`: all that it has carried.
    pub(super) fn close(&self, wire: Bytes) {
        let mut pages = self.pages.lock();
        (pages.wire, pages.is_closed) = (wire, true);
        let waiting = pages.tabs.values_mut().filter_map(|tab| tab.waits.take());
        waiting.for_each(Waker::wake);
    }

    /// More came that asks nothing of us than anybody honest sends.
    pub(super) fn is_flood(&self) -> bool {
        self.pages.lock().is_flood && stands(Guard::Flood)
    }

    /// A strand reads what is told of its stream.
    pub(super) fn open(&self, stream: u32) {
        let mut pages = self.pages.lock();
        pages.tabs.entry(stream).or_default().is_read = true;
    }

    /// Ready once an answer is as far on the wire.
    pub(super) fn poll_flushed(
        &self,
        stream: u32,
        mark: Mark,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pages = self.pages.lock();
        let is_closed = pages.is_closed;
        let Some(tab) = pages.tabs.get_mut(&stream) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if tab.flushed == mark {
            return Poll::Ready(Ok(()));
        }
        if is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        tab.waits = Some(cx.waker().clone());
        Poll::Pending
    }

    /// True where it is.
    pub(super) fn is_flushed(&self, stream: u32, mark: Mark) -> bool {
        let pages = self.pages.lock();
        pages
            .tabs
            .get(&stream)
            .is_some_and(|tab| tab.flushed == mark)
    }

    /// Takes what a stream has carried so far and nobody was billed for: from the client, and to it. Never
    /// more than was on the wire.
    pub(super) fn claim(&self, stream: u32) -> [Kinds; 2] {
        let mut pages = self.pages.lock();
        let free = pages.wire.since(pages.claimed);
        let Some(tab) = pages.tabs.get_mut(&stream) else {
            return <[Kinds; 2]>::default();
        };
        let mut claims = [
            std::mem::take(&mut tab.received),
            std::mem::take(&mut tab.sent),
        ];
        for (claim, free) in claims.iter_mut().zip([free.received, free.sent]) {
            claim.fit(claim.total().min(free), Kind::Framing);
        }
        let [received, sent] = &claims;
        pages.claimed.received += received.total();
        pages.claimed.sent += sent.total();
        claims
    }

    /// The strand is gone. What its stream still carries is the connection's.
    pub(super) fn forget(&self, stream: u32) {
        self.pages.lock().tabs.remove(&stream);
    }

    fn tell(&self, by: Side, frame: &Frame) {
        let metrics = &self.runtime.metrics;
        match (frame.kind, frame.code()) {
            (FrameKind::Reset, Some(code)) => metrics.http2_reset(by, code),
            (FrameKind::GoAway, Some(code)) => metrics.http2_goaway(by, code),
            _ => {}
        }
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        let pages = self.pages.get_mut();
        let rest = pages.wire.since(pages.claimed);
        let beside = pages.wire.since(pages.plain);
        let tls = Bytes {
            received: beside.received.min(rest.received),
            sent: beside.sent.min(rest.sent),
        };
        let metrics = &self.runtime.metrics;
        metrics.bytes_beside(LegSide::Client, Kind::Tls, tls);
        metrics.bytes_beside(LegSide::Client, Kind::Connection, rest.since(tls));
    }
}

fn count(kinds: &mut Kinds, frame: &Frame) {
    let payload = frame.payload();
    let head = match frame.kind {
        FrameKind::Headers | FrameKind::Continuation => frame.length.into(),
        _ => 0,
    };
    kinds.add(Kind::Payload, payload);
    kinds.add(Kind::Headers, head);
    kinds.add(Kind::Framing, frame.bytes() - payload - head);
}

/// Streams that are told of: more than may be open, those included that nobody has read yet.
const TABS_MAX: usize = 512;
/// Frames that ask nothing of us, at once and in the long run.
const NOISE_MAX: u32 = 1000;
const NOISE_PER_SECOND: u32 = 20;
/// How many of them a frame of somebody's request or answer makes up for.
const WORK: u32 = 4;
/// Requests given up before their answer, at once and in the long run. Who leaves a page gives up as many as
/// were under way.
const GIVEN_UP_MAX: u32 = 200;
const GIVEN_UP_PER_SECOND: u32 = 10;
