//! The way out: a leg to the server, and the first write on it.

use super::admit::{By, Plan, Shape};
use super::bill::Bill;
use super::buffer::poll_send;
use super::connection::{Connection, Stop, Stream, after};
use super::head::{BodyLength, finish};
use super::pinned::Pinned;
use crate::accounting::meter::enter;
use crate::accounting::{Kind, Phase, Wire};
use crate::backend::{BackServer, ConnectError, Leg};
use crate::buffers::Scratch;
use crate::config::settings::Limits;
use crate::health::Observation;
use crate::mapi::framing::Body;
use crate::metrics::{ConnectOutcome, LegSide, RetryReason};
use crate::refusal::Refusal;
use crate::runtime::{Runtime, Snapshot};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

/// A request whose head is on its way, with as much of its body as was here.
pub(super) struct Sent {
    pub(super) leg: Leg,
    /// The rest of the request's body.
    pub(super) body: Body,
}

/// What goes to a server by some connection.
pub(super) trait Carriage {
    fn server(&self) -> &Arc<BackServer>;
    /// Which kept connections may carry it.
    fn lane(&self) -> Option<u128>;
    /// Which of them does.
    fn by(&mut self) -> &mut By;
}

impl Carriage for Plan {
    fn server(&self) -> &Arc<BackServer> {
        &self.server
    }

    fn lane(&self) -> Option<u128> {
        self.lane
    }

    fn by(&mut self) -> &mut By {
        &mut self.by
    }
}

/// Why a request of which no byte left us is still here.
pub(super) enum Unsent {
    /// The server cannot be reached.
    Unreachable(Refusal),
    /// The connection that knew the user is gone: the request must say it again.
    LegGone,
}

impl<S: Stream> Connection<S> {
    /// Sends the request, as far as its bytes are here. `Ok(Err(_))`: the server could not be reached
    /// and no byte of the request was written, so it may go elsewhere, whatever its type.
    ///
    /// # Errors
    /// Bytes were written and the rest was not taken: the request is never sent again.
    pub(super) async fn forward(
        &mut self,
        runtime: &Runtime,
        world: &Snapshot,
        plan: &mut Plan,
        shape: Shape,
        out: &mut Scratch,
        bill: &mut Bill<'_>,
    ) -> Result<Result<Sent, Unsent>, Stop> {
        enter(Phase::Upstream);
        let limits = &world.settings.limits;
        let begun = out.0.len();
        let (body, taken, head_end) = match shape.body {
            BodyLength::Counted(length) => {
                finish(length, &mut out.0);
                let head_end = out.0.len();
                if self.wants_invitation(shape, length) {
                    Box::pin(self.go_on(bill)).await?;
                }
                let (body, taken) = self
                    .first_piece(shape, length, limits.body_timeout, out)
                    .await?;
                (body, taken, head_end)
            }
            // Servers want a length, so a chunked body is measured first.
            BodyLength::Chunked => {
                let measured = Box::pin(self.measure(shape, limits, bill)).await?;
                finish(measured.payload.len() as u64, &mut out.0);
                let head_end = out.0.len();
                out.0.extend_from_slice(&measured.payload);
                (Body::Done, measured.wire, head_end)
            }
        };
        let payload = (out.0.len() - head_end) as u64;
        let to_server = &mut bill.ledger.server_out;
        to_server.add(Kind::Headers, (head_end - begun) as u64);
        to_server.add(Kind::Payload, payload);
        let leg = match self.first_write(runtime, world, plan, &out.0, bill).await? {
            Ok(written) => written,
            Err(unsent) => return Ok(Err(unsent)),
        };
        // Only now: a request that was not written is read from its head again.
        let wire = taken.saturating_sub(shape.length) as u64;
        bill.ledger.client_in.add_body(wire, payload, 0);
        self.input.consume(taken);
        Ok(Ok(Sent { leg, body }))
    }

    /// True where the client waits to be told to send its body.
    pub(super) fn wants_invitation(&self, shape: Shape, length: u64) -> bool {
        let here = self.input.data().len().saturating_sub(shape.length) as u64;
        shape.expects_continue && !shape.invited && here < length
    }

    /// Tells it to.
    pub(super) async fn go_on(&mut self, bill: &mut Bill<'_>) -> Result<(), Stop> {
        const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        bill.ledger.client_out.add(Kind::Line, GO_ON.len() as u64);
        self.write(GO_ON).await
    }

    /// Appends as much of the body as is here, or comes without waiting. Returns what is left of it, and
    /// the bytes of the input, head included, that are now in `out`.
    pub(super) async fn first_piece(
        &mut self,
        shape: Shape,
        length: u64,
        patience: std::time::Duration,
        out: &mut Scratch,
    ) -> Result<(Body, usize), Stop> {
        let here = self.input.data().len().saturating_sub(shape.length) as u64;
        if here < length {
            // One more read, if it costs no waiting: head and body in one write.
            self.late.set(after(patience));
            let limit = self.input.data().len() + INPUT_AHEAD;
            match self.input.fill_now(&mut self.stream, limit).await {
                Ok(Some(0)) => return Err(Stop::ClientGone),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {}
                Err(_) => return Err(Stop::ClientGone),
            }
        }
        let mut body = Body::of_length(length);
        let piece = self.input.data().get(shape.length..).unwrap_or_default();
        let taken = body
            .follow(piece, |run| out.0.extend_from_slice(run))
            .unwrap_or_default();
        Ok((body, shape.length + taken.wire))
    }

    /// Reads a chunked body to its end.
    pub(super) async fn measure(
        &mut self,
        shape: Shape,
        limits: &Limits,
        bill: &mut Bill<'_>,
    ) -> Result<Measured, Stop> {
        let limit = limits.chunked_body;
        self.late.set(after(limits.body_timeout));
        if shape.expects_continue {
            self.go_on(bill).await?;
        }
        let mut measured = Measured {
            payload: Vec::new(),
            wire: shape.length,
        };
        let mut body = Body::CHUNKED;
        loop {
            let piece = self.input.data().get(measured.wire..).unwrap_or_default();
            let payload = &mut measured.payload;
            let taken = body
                .follow(piece, |run| payload.extend_from_slice(run))
                .map_err(|bad| Refusal::Malformed(bad.0))?;
            measured.wire += taken.wire;
            if measured.payload.len() > limit {
                return Err(Refusal::BodyTooLarge {
                    limit: limit as u64,
                }
                .into());
            }
            if body.is_done() {
                return Ok(measured);
            }
            // Framing may be larger than what it frames; past this it is only framing.
            if measured.wire > shape.length + 2 * limit + INPUT_AHEAD {
                return Err(Refusal::BodyTooLarge {
                    limit: limit as u64,
                }
                .into());
            }
            self.more_body().await?;
        }
    }

    /// Gets a leg and writes. A kept leg that turns out to be dead before it took a byte is replaced by
    /// a new one, once.
    #[expect(
        clippy::disallowed_methods,
        reason = "the time to the first byte counts from here"
    )]
    pub(super) async fn first_write(
        &mut self,
        runtime: &Runtime,
        world: &Snapshot,
        plan: &mut impl Carriage,
        bytes: &[u8],
        bill: &mut Bill<'_>,
    ) -> Result<Result<Leg, Unsent>, Stop> {
        let limits = &world.settings.limits;
        // A request that says nothing of its user goes by the connection that knows, or not at all.
        let is_bound = matches!(plan.by(), By::SignedOn(_));
        let mut kept = self.choose(runtime, world, plan, bill.began)?;
        let is_own = matches!(plan.by(), By::Own(..));
        let lane = plan.lane();
        let server = plan.server();
        let meters = server.meters(&runtime.metrics);
        loop {
            let mut leg = match kept.take() {
                Some(leg) => {
                    meters.reused();
                    leg
                }
                // Boxed: this future has room for a TLS handshake, and an exchange would have it for
                // as long as it lives.
                None => match Box::pin(server.connect(
                    limits.connect_timeout,
                    runtime.metrics.unbilled(LegSide::Server),
                ))
                .await
                {
                    Ok(mut leg) => {
                        meters.connected(ConnectOutcome::Ok);
                        let handshake = leg.bill(0);
                        runtime
                            .metrics
                            .bytes_beside(LegSide::Server, Kind::Handshake, handshake);
                        leg
                    }
                    Err(error) => {
                        let (observation, outcome) = seen(&error);
                        meters.connected(outcome);
                        if error.is_ours() {
                            return Err(Refusal::TooBusy("no descriptor for a connection").into());
                        }
                        runtime.observe(server.name(), observation);
                        return Ok(Err(Unsent::Unreachable(Refusal::ServerUnreachable {
                            server: server.name().clone(),
                            cause: error.to_string(),
                        })));
                    }
                },
            };
            let was_used = leg.is_used();
            if !leg.carry(lane) {
                runtime.metrics.identity_fence_tripped();
                tracing::error!(server = %server.name(), "identity fence tripped: connection dropped");
                if is_bound {
                    return Ok(Err(Unsent::LegGone));
                }
                continue;
            }
            let before = leg.wire();
            let now = Instant::now();
            self.late.set((now + limits.first_byte_timeout).into());
            let written = self.write_to(&mut leg, bytes).await;
            let sent = leg.wire().since(before).sent;
            match written {
                Ok(()) => {
                    bill.server_reused = was_used;
                    bill.sent = Some(now);
                    return Ok(Ok(leg));
                }
                Err(_) if sent == 0 && was_used && is_own => {
                    return Err(
                        Refusal::Unauthenticated("signed on at a connection that is gone").into(),
                    );
                }
                Err(_) if sent == 0 && was_used => {
                    runtime.metrics.retried(RetryReason::StaleConnection);
                    if is_bound {
                        return Ok(Err(Unsent::LegGone));
                    }
                }
                Err(error) if sent == 0 => {
                    runtime.observe(server.name(), Observation::Reset);
                    return Ok(Err(Unsent::Unreachable(Refusal::ServerUnreachable {
                        server: server.name().clone(),
                        cause: error.to_string(),
                    })));
                }
                Err(error) => {
                    runtime.observe(server.name(), Observation::Reset);
                    bill.fit_server(&mut leg);
                    return Err(Refusal::ServerFailed {
                        server: server.name().clone(),
                        written: sent,
                        cause: error.to_string(),
                    }
                    .into());
                }
            }
        }
    }

    /// The kept leg to begin with; `None`: a new one.
    fn choose(
        &mut self,
        runtime: &Runtime,
        world: &Snapshot,
        plan: &mut impl Carriage,
        now: Instant,
    ) -> Result<Option<Leg>, Stop> {
        // Whoever shows something else now does not go on with what was owned before.
        let own = self.pinned.take();
        match std::mem::replace(plan.by(), By::New) {
            By::Any => {
                *plan.by() = By::Any;
                Ok(plan.server().reuse(plan.lane(), now))
            }
            By::New => Ok(None),
            By::SignedOn(leg) => Ok(Some(*leg)),
            By::Own(scheme, _) => {
                // Until the answer is over: whatever goes wrong ends both connections.
                self.must_end = true;
                if let Some(own) = own.filter(|own| own.leads_to(plan.server())) {
                    let Pinned { leg, seat, .. } = *own;
                    *plan.by() = By::Own(scheme, Some(seat));
                    return Ok(Some(leg));
                }
                let most = &world.settings.auth.passthrough;
                let most = most
                    .as_ref()
                    .map_or(0, |untouched| untouched.connections_max);
                let seat = runtime.metrics.pinned(most);
                let seat = seat.ok_or(Refusal::TooBusy("auth.passthrough.connections"))?;
                *plan.by() = By::Own(scheme, Some(seat));
                Ok(None)
            }
        }
    }

    async fn write_to(&mut self, leg: &mut Leg, bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        poll_fn(|cx| {
            let written = poll_send(leg, bytes, &mut at, cx);
            match written {
                Poll::Ready(outcome) => Poll::Ready(outcome),
                Poll::Pending => self
                    .late
                    .poll(cx)
                    .map(|()| Err(io::ErrorKind::TimedOut.into())),
            }
        })
        .await
    }
}

/// A chunked body, read to its end.
pub(super) struct Measured {
    pub(super) payload: Vec<u8>,
    /// Bytes of the input it took, head included.
    wire: usize,
}

fn seen(error: &ConnectError) -> (Observation, ConnectOutcome) {
    match error {
        ConnectError::Deadline(_) => (Observation::Deadline, ConnectOutcome::Timeout),
        ConnectError::Io(_) => (Observation::Refused, ConnectOutcome::Refused),
        ConnectError::Tls(_) => (Observation::TlsFailed, ConnectOutcome::Tls),
    }
}

/// Bytes of a request's body that are read before its first write.
const INPUT_AHEAD: usize = 64 * 1024;
