//! How an answer reaches the wire: whole, late, held open, or in one of the wrong ways.
#![expect(
    clippy::disallowed_methods,
    reason = "held requests are timed by tokio's clock, which tests can pause"
)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::Server;
use super::answers::{Elapsed, Payload, Reply, chunk, last_piece, lost_piece, pending_tag};
use super::contexts::{InFlight, Visit};
use super::faults::{Ending, Fault, Place};
use super::http::Inbound;
use super::requests::Late;
use crate::mapi::Flavour;
use crate::mapi::bodies::{Answer, Body as _, NotificationWaitSuccess};

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request may come.
    Go,
    /// It ends.
    End(Ending),
}

const CLOSE: Then = Then::End(Ending::Close);

/// Bytes a client may send ahead while its request is held.
const AHEAD_MAX: usize = 64 * 1024;

impl Server {
    /// Delivers a finished answer.
    pub(super) async fn deliver(
        &self,
        to: &mut Inbound,
        mut reply: Reply,
        fault: Option<Fault>,
    ) -> io::Result<Then> {
        let flavour = self.options.flavour;
        let gone = match fault {
            Some(Fault::End(ending, Place::BeforeHead)) => return Ok(Then::End(ending)),
            Some(Fault::HangBeforeHead) => return self.hang(to).await,
            Some(Fault::Garbage) => {
                let noise = b"\x16\x03\x01 this is not HTTP \0\xff\r\n\r\nat all\r\n\r\n";
                self.send(to, noise).await?;
                return Ok(CLOSE);
            }
            Some(Fault::ContinueFirst) => {
                self.send(to, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                None
            }
            Some(fault) => self.spoil(&mut reply, fault),
            None => None,
        };
        let mut head = written_head(&reply);
        if fault == Some(Fault::NulInHead) {
            // Inside a value, so that a lenient reader goes on.
            if let Some(at) = memchr::memmem::find(&head, b"private") {
                head.splice(at..at, [0]);
            }
        }
        match fault {
            Some(Fault::End(ending, Place::MidHead)) => {
                self.send(to, head.get(..head.len() / 2).unwrap_or_default())
                    .await?;
                return Ok(Then::End(ending));
            }
            Some(Fault::End(ending, Place::AfterHead)) => {
                self.send(to, &head).await?;
                return Ok(Then::End(ending));
            }
            Some(Fault::HangAfterProcessing | Fault::End(_, Place::AfterProcessing)) => {
                head.extend(chunk(flavour, b"PROCESSING\r\n"));
                self.send(to, &head).await?;
                if let Some(Fault::End(ending, _)) = fault {
                    return Ok(Then::End(ending));
                }
                return self.hang(to).await;
            }
            _ => {}
        }

        let mut pieces: Vec<Vec<u8>> = match reply.body {
            Payload::Counted(body) => vec![body],
            Payload::Chunks(pieces) => {
                let mut framed: Vec<_> = pieces
                    .iter()
                    .filter(|piece| !piece.is_empty())
                    .map(|piece| chunk(flavour, piece))
                    .collect();
                if let Some(last) = framed.last_mut() {
                    last.extend_from_slice(b"0\r\n\r\n");
                }
                framed
            }
            Payload::Open(pieces) => pieces.iter().map(|piece| chunk(flavour, piece)).collect(),
        };
        if let Some(Fault::End(ending, Place::MidBody)) = fault {
            let mut body = pieces.concat();
            body.truncate(body.len().saturating_sub(10).max(1));
            head.extend(body);
            self.send(to, &head).await?;
            return Ok(Then::End(ending));
        }
        if fault == Some(Fault::Drip) {
            head.extend(pieces.concat());
            for byte in head {
                self.send(to, &[byte]).await?;
                if !self.options.drip_interval.is_zero() {
                    sleep(self.options.drip_interval).await;
                }
            }
        } else {
            // The head and the first piece leave together, as real servers send them.
            if let Some(first) = pieces.first_mut() {
                head.append(first);
            }
            self.send(to, &head).await?;
            for piece in pieces.iter().skip(1) {
                self.send(to, piece).await?;
            }
        }
        match fault {
            Some(Fault::Unsolicited) => {
                self.send(to, &timed_out(flavour)).await?;
                Ok(CLOSE)
            }
            Some(Fault::End(ending, Place::Idle)) => Ok(Then::End(ending)),
            _ if reply.closes || gone.is_some() => Ok(CLOSE),
            _ => Ok(Then::Go),
        }
    }

    /// Delivers an answer after its delay; Exchange shows that it is at work.
    pub(super) async fn deliver_late(
        &self,
        to: &mut Inbound,
        late: Late,
        fault: Option<Fault>,
    ) -> io::Result<Then> {
        if self.options.flavour == Flavour::Gromox || fault.is_some() {
            sleep(late.delay).await;
            return self.deliver(to, late.reply, fault).await;
        }
        let started = Instant::now();
        self.deliver(to, late.begun, None).await?;
        let mut pending = self.pending();
        let end = sleep_until(started + late.delay);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                _ = pending.tick() => self.send_chunk(to, pending_tag(Flavour::Exchange)).await?,
            }
        }
        let piece = last_piece(Flavour::Exchange, Elapsed(late.delay), &late.body);
        self.finish(to, &piece).await?;
        Ok(Then::Go)
    }

    /// Holds a request: PROCESSING at once, PENDING each period, DONE when something happens or time is up.
    pub(super) async fn hold(
        self: &Arc<Self>,
        to: &mut Inbound,
        begun: Reply,
        visit: Visit,
        in_flight: InFlight,
        fault: Option<Fault>,
    ) -> io::Result<Then> {
        let flavour = self.options.flavour;
        match fault {
            None | Some(Fault::NoPending) => {
                let then = self.deliver(to, begun, None).await?;
                debug_assert_eq!(then, Then::Go);
            }
            Some(fault) => match self.deliver(to, begun, Some(fault)).await? {
                // What is wrong with it shows later.
                Then::Go => {}
                end @ Then::End(_) => return Ok(end),
            },
        }
        self.counts.wait_held();
        let started = Instant::now();
        let mut pending = self.pending();
        let limit = sleep_until(started + self.options.wait_limit);
        tokio::pin!(limit);
        let event = loop {
            if self.contexts.has_events(&visit.cookie) {
                break true;
            }
            if flavour == Flavour::Exchange && !self.contexts.lives(&visit.cookie) {
                self.finish(to, &lost_piece()).await?;
                return Ok(Then::Go);
            }
            tokio::select! {
                () = visit.bell.notified() => {}
                () = &mut limit => break false,
                _ = pending.tick(), if fault != Some(Fault::NoPending) => {
                    self.send_chunk(to, pending_tag(flavour)).await?;
                }
                read = to.more(), if to.ahead() < AHEAD_MAX => {
                    if !matches!(read, Ok(1..)) {
                        self.counts.wait_aborted();
                        self.linger(in_flight);
                        return Ok(CLOSE);
                    }
                }
            }
        };
        drop(in_flight);
        let body = Answer::Success(NotificationWaitSuccess {
            event_pending: u32::from(event),
            ..NotificationWaitSuccess::default()
        });
        let piece = last_piece(flavour, Elapsed(started.elapsed()), &body.encode());
        if let Some(Fault::End(ending, Place::MidBody)) = fault {
            let mut framed = chunk(flavour, &piece);
            framed.truncate(framed.len() - 10);
            self.send(to, &framed).await?;
            return Ok(Then::End(ending));
        }
        self.finish(to, &piece).await?;
        Ok(Then::Go)
    }

    /// The client left; gromox keeps its request for a while, and refuses others meanwhile.
    fn linger(self: &Arc<Self>, in_flight: InFlight) {
        let lingering = self.options.lingering_wait;
        if lingering.is_zero() {
            return;
        }
        tokio::spawn(async move {
            sleep(lingering).await;
            drop(in_flight);
        });
    }

    fn pending(&self) -> tokio::time::Interval {
        // gromox announces 30 s and sends every 27 s.
        let period = match self.options.flavour {
            Flavour::Gromox => self.options.pending_period.mul_f64(0.9),
            Flavour::Exchange => self.options.pending_period,
        };
        let period = period.max(Duration::from_millis(1));
        let mut pending = interval_at(Instant::now() + period, period);
        pending.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pending
    }

    /// Keeps the connection and says nothing until the client leaves.
    async fn hang(&self, to: &mut Inbound) -> io::Result<Then> {
        while to.ahead() < AHEAD_MAX {
            if to.more().await? == 0 {
                return Ok(CLOSE);
            }
        }
        Ok(CLOSE)
    }

    async fn send_chunk(&self, to: &mut Inbound, piece: &[u8]) -> io::Result<()> {
        self.send(to, &chunk(self.options.flavour, piece)).await
    }

    async fn finish(&self, to: &mut Inbound, piece: &[u8]) -> io::Result<()> {
        let mut framed = chunk(self.options.flavour, piece);
        framed.extend_from_slice(b"0\r\n\r\n");
        self.send(to, &framed).await
    }

    pub(super) async fn send(&self, to: &mut Inbound, bytes: &[u8]) -> io::Result<()> {
        self.counts.sent(bytes.len());
        to.wire.write_all(bytes).await?;
        to.wire.flush().await
    }
}

/// What gromox writes on a connection that was idle for too long, before it closes.
pub(super) fn timed_out(flavour: Flavour) -> Vec<u8> {
    let reply = Reply::plain("408 Request Timeout", "Request Timeout", flavour, true);
    let mut bytes = written_head(&reply);
    if let Payload::Counted(body) = reply.body {
        bytes.extend(body);
    }
    bytes
}

fn written_head(reply: &Reply) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// An HTTP status instead of executing.
pub(super) fn status(code: u16, flavour: Flavour) -> Reply {
    let line = match code {
        401 => "401 Unauthorized",
        413 => "413 Request Entity Too Large",
        503 => "503 Service Unavailable",
        555 => "555 Routing Error",
        _ => "500 Internal Server Error",
    };
    let mut reply = Reply::plain(line, line, flavour, code == 413);
    if code == 401 {
        reply
            .headers
            .push(("WWW-Authenticate", "Negotiate".to_owned()));
    }
    if code == 503 {
        reply.headers.push(("Retry-After", "1".to_owned()));
    }
    reply
}
