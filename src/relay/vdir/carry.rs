//! A request to another virtual directory at its server, and the answer on its way to the client.
//!
//! Both are passed on as they come, at once where the server answers early. A request is held as long as
//! the server holds it, up to the directory's patience; it ends when its database moves, for the server
//! that holds it would never hear of what it waits for.

use super::answer::{self, Outward};
use super::tunnel::Tunnel;
use super::{Errand, challenges};
use crate::accounting::meter::enter;
use crate::accounting::{Kind, Phase, Wire};
use crate::auth::Lasting;
use crate::buffers::Scratch;
use crate::config::settings::{BackendIdentity, Limits};
use crate::ids::ServerName;
use crate::mapi::framing::Body;
use crate::metrics::{Outcome, RetryReason};
use crate::refusal::Refusal;
use crate::relay::admit::Shape;
use crate::relay::answer::{AnswerHead, read};
use crate::relay::bill::Bill;
use crate::relay::connection::{Connection, Next, Stop, Stream, after};
use crate::relay::exchange::{Event, Exchange};
use crate::relay::forward::{Sent, Unsent};
use crate::relay::head::{BodyLength, Fields, finish};
use crate::relay::public::is_back_end;
use crate::runtime::{Runtime, Snapshot};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that is with its server.
pub(crate) struct Carried {
    world: Arc<Snapshot>,
    errand: Box<Errand>,
    keep_alive: bool,
    sent: Sent,
    /// Bytes of the request's body that may still come.
    body_left: u64,
}

/// What is known once the answer's head has passed.
struct Under {
    body: Body,
    reusable: bool,
    closes: bool,
    is_tunnel: bool,
}

impl<S: Stream> Connection<S> {
    /// Sends the request. `Ok(Err(_))`: no byte of it was written to this server.
    ///
    /// # Errors
    /// Bytes were written and the rest was not taken: the request is never sent again.
    pub(in crate::relay) async fn carry(
        &mut self,
        runtime: &Runtime,
        world: &Arc<Snapshot>,
        mut errand: Box<Errand>,
        shape: Shape,
        out: &mut Scratch,
        tried: &[ServerName],
        bill: &mut Bill<'_>,
    ) -> Result<Result<Box<Carried>, (Unsent, ServerName)>, Stop> {
        bill.tries += 1;
        if !tried.is_empty() {
            runtime.metrics.retried(RetryReason::ConnectFailed);
        }
        let sent = self
            .forward_errand(runtime, world, &mut errand, shape, out, bill)
            .await?;
        Ok(match sent {
            Ok((sent, payload)) => Ok(Box::new(Carried {
                world: Arc::clone(world),
                keep_alive: shape.keep_alive && !self.must_end,
                body_left: errand.body_max.saturating_sub(payload),
                errand,
                sent,
            })),
            Err(unsent) => Err((unsent, errand.server.name().clone())),
        })
    }

    /// Sends the request as far as its bytes are here, and says how many of them are of its body.
    /// `Ok(Err(_))`: no byte of it was written.
    ///
    /// # Errors
    /// Bytes were written and the rest was not taken: the request is never sent again.
    async fn forward_errand(
        &mut self,
        runtime: &Runtime,
        world: &Snapshot,
        errand: &mut Errand,
        shape: Shape,
        out: &mut Scratch,
        bill: &mut Bill<'_>,
    ) -> Result<Result<(Sent, u64), Unsent>, Stop> {
        enter(Phase::Upstream);
        let limits = &world.settings.limits;
        let begun = out.0.len();
        let (body, taken, head_end, payload) = match shape.body {
            BodyLength::Counted(length) => {
                match length > 0 || errand.verb.has_body() {
                    true => finish(length, &mut out.0),
                    false => out.0.extend_from_slice(b"\r\n"),
                }
                let head_end = out.0.len();
                if self.wants_invitation(shape, length) {
                    Box::pin(self.go_on(bill)).await?;
                }
                let patience = limits.body_timeout;
                let (body, taken) = self.first_piece(shape, length, patience, out).await?;
                let payload = (out.0.len() - head_end) as u64;
                (body, taken, head_end, payload)
            }
            BodyLength::Chunked => {
                out.0
                    .extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                let head_end = out.0.len();
                if shape.expects_continue {
                    Box::pin(self.go_on(bill)).await?;
                }
                let piece = self.input.data().get(shape.length..).unwrap_or_default();
                let mut body = Body::CHUNKED;
                let taken = body
                    .follow_request(piece)
                    .map_err(|bad| Refusal::Malformed(bad.0))?;
                if taken.payload > errand.body_max {
                    let limit = errand.body_max;
                    return Err(Refusal::BodyTooLarge { limit }.into());
                }
                let here = piece.get(..taken.wire).unwrap_or_default();
                out.0.extend_from_slice(here);
                (body, shape.length + taken.wire, head_end, taken.payload)
            }
        };
        let wire = (out.0.len() - head_end) as u64;
        let to_server = &mut bill.ledger.server_out;
        to_server.add(Kind::Headers, (head_end - begun) as u64);
        to_server.add_body(wire, payload, 0);
        let written = self.first_write(runtime, world, errand, &out.0, bill);
        let leg = match written.await? {
            Ok(leg) => leg,
            Err(unsent) => return Ok(Err(unsent)),
        };
        // Only now: a request that was not written is read from its head again.
        bill.ledger.client_in.add_body(wire, payload, 0);
        self.input.consume(taken);
        Ok(Ok((Sent { leg, body }, payload)))
    }

    /// Passes the answer on. Returns when its last byte is with the client.
    ///
    /// # Errors
    /// The server failed or the client went away; the request is never sent again.
    pub(in crate::relay) async fn answer_errand(
        &mut self,
        runtime: &Runtime,
        mut carried: Box<Carried>,
        bill: &mut Bill<'_>,
    ) -> Result<Next, Stop> {
        enter(Phase::Relay);
        let Carried {
            world,
            errand,
            keep_alive,
            sent,
            body_left,
        } = &mut *carried;
        let passing = Passing {
            runtime,
            world,
            errand,
            keep_alive: *keep_alive,
            is_bindable: self.memo.is_bindable(),
        };
        let mut exchange = Exchange::new(self, &mut sent.leg, sent.body);
        exchange.payload_max = *body_left;
        let outcome = passing.stream(&mut exchange, bill).await;
        let is_unread = !exchange.is_request_done();
        exchange.book(&mut bill.ledger);
        bill.fit_server(&mut sent.leg);
        let (next, leg_is_clean) = outcome?;
        if leg_is_clean {
            let Carried { errand, sent, .. } = *carried;
            errand.server.give_back(sent.leg, errand.lane, bill.clock);
        }
        // The server answered before it had the whole request, as with 413.
        Ok(match next {
            Next::Close if is_unread => Next::Linger,
            next => next,
        })
    }
}

/// What one answer needs from the world around it.
struct Passing<'a> {
    runtime: &'a Runtime,
    world: &'a Snapshot,
    errand: &'a Errand,
    keep_alive: bool,
    is_bindable: bool,
}

impl Passing<'_> {
    fn server_name(&self) -> ServerName {
        self.errand.server.name().clone()
    }

    fn limits(&self) -> &Limits {
        &self.world.settings.limits
    }

    /// The answer from its first byte to its last. Second of the outcome: the leg may carry another.
    async fn stream<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        bill: &mut Bill<'_>,
    ) -> Result<(Next, bool), Stop> {
        let (mut under, mut out) = loop {
            // Taken anew each time: it is not to be kept while the server thinks.
            let mut out = Scratch::new();
            match self.head(exchange, bill, &mut out.0)? {
                Some(under) => break (under, out),
                None => drop(out),
            }
            self.await_head(exchange).await?;
        };
        let first = self.piece(exchange, &mut under, bill, &mut out.0);
        first.map_err(|stop| match stop {
            // The client has had nothing yet, so it can be told in a whole answer.
            Stop::Cut(refusal) => Stop::Refuse(refusal),
            other => other,
        })?;
        self.give_client_time(exchange);
        exchange.write(&out.0).await?;
        drop(out);
        if under.is_tunnel {
            Box::pin(self.tunnel(exchange, bill)).await;
            return Ok((Next::Close, false));
        }
        while !under.body.is_done() {
            self.extend(exchange);
            let event = exchange.next(true).await;
            bill.clock = now();
            match event {
                Event::Answer(0) if under.body == Body::UntilClose => break,
                Event::Answer(0) => return Err(self.cut("closed in mid-answer")),
                Event::LegFailed(error) => return Err(self.cut(&error.to_string())),
                Event::Answer(_) => {
                    let mut out = Scratch::new();
                    self.piece(exchange, &mut under, bill, &mut out.0)?;
                    self.give_client_time(exchange);
                    exchange.write(&out.0).await?;
                }
                Event::Asked => {
                    if let Some(refusal) = self.has_moved() {
                        return Err(Stop::Cut(refusal));
                    }
                }
                Event::ClientGone => return Err(Stop::ClientGone),
                Event::TooLarge => return Err(Stop::Cut(self.too_large())),
                Event::Late if exchange.waits_for_client() => {
                    return Err(Stop::Cut(Refusal::BodyTimeout));
                }
                Event::Late => {
                    let server = self.server_name();
                    return Err(Stop::Cut(Refusal::ServerSilent { server }));
                }
            }
        }
        bill.outcome = match bill.status {
            ..400 => Outcome::Ok,
            _ => Outcome::Status,
        };
        self.runtime.observe_answered(self.errand.server.name());
        let is_done = exchange.is_request_done();
        let clean = is_done && exchange.output.is_empty() && under.reusable;
        Ok(match under.closes || !is_done {
            true => (Next::Close, clean),
            false => (Next::Request, clean),
        })
    }

    /// Reads the answer's head, if it is complete, and writes ours.
    fn head<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        bill: &mut Bill<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Under>, Stop> {
        loop {
            let mut room = Fields::new();
            let flavour = self.errand.server.settings().flavour;
            let head = read(exchange.output.data(), flavour, &mut room)
                .map_err(|what| self.nonsense(what))?;
            let Some(head) = head else { return Ok(None) };
            let length = head.length;
            let is_tunnel = head.status == 101;
            if is_tunnel && !self.may_tunnel(&head) {
                return Err(self.nonsense("101 that nobody asked for").into());
            }
            if head.status < 200 && !is_tunnel {
                // We have told the client to go on ourselves; a server's own word would be one too many.
                bill.ledger.server_in.add(Kind::Headers, length as u64);
                exchange.output.consume(length);
                continue;
            }
            let is_done = exchange.is_request_done();
            let under = self.pass_head(&head, exchange.asks.now().leaving, is_done, bill, out)?;
            exchange.output.consume(length);
            return Ok(Some(under));
        }
    }

    fn may_tunnel(&self, head: &AnswerHead<'_, '_>) -> bool {
        let upgrade = head.field("Upgrade").unwrap_or_default();
        self.errand.is_upgrade && upgrade.eq_ignore_ascii_case(b"websocket")
    }

    fn pass_head(
        &self,
        head: &AnswerHead<'_, '_>,
        leaving: bool,
        request_is_done: bool,
        bill: &mut Bill<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Under, Stop> {
        let (errand, world) = (self.errand, self.world);
        bill.clock = now();
        let sent = bill.sent;
        bill.first_byte = sent.map(|sent| bill.clock.saturating_duration_since(sent));
        self.check_status(head.status)?;
        let is_tunnel = head.status == 101;
        let is_head = errand.verb == crate::vdir::Verb::Head;
        let body = if is_head { Body::Done } else { head.body };
        let keep = self.keep_alive && !leaving && (request_is_done || !body.is_done());
        let challenged;
        let proven = match (head.status, &errand.user) {
            (401, Some(_)) => {
                let name = errand.name;
                challenged = challenges(world, errand.vdir, name, self.is_bindable);
                &*challenged
            }
            _ => errand.proof.as_ref().map_or("", |proof| &*proof.0),
        };
        let names = &world.settings.names;
        let outward = Outward {
            is_back_end: &|host| is_back_end(host, &world.settings),
            public: names.get(errand.name).map_or("", |name| &name.host),
            own_cookie: world.sealer.as_ref().map(|sealer| sealer.name()),
            ours: [proven, errand.cookie.as_deref().unwrap_or_default()],
            is_head,
            is_upgrade: is_tunnel,
            close: !keep,
        };
        let written = answer::write(head, body, &outward, out);
        bill.status = head.status;
        bill.ledger.server_in.add_head(head.bytes);
        bill.ledger.client_out.add_head(written);
        Ok(Under {
            body,
            reusable: !is_tunnel && !is_head && head.leaves_it_to_others(request_is_done),
            closes: !keep || is_tunnel || body == Body::UntilClose,
            is_tunnel,
        })
    }

    /// Statuses that are said to us and not to the client.
    fn check_status(&self, status: u16) -> Result<(), Stop> {
        let refused = |what| Err(self.nonsense(what).into());
        match (
            status,
            &self.errand.user,
            &self.world.settings.backend_identity,
        ) {
            (401, Some(user), BackendIdentity::Passthrough) => {
                // The server knows another password by now: what we remember is stale.
                self.world.auth.revoke(user);
                Ok(())
            }
            (401, Some(_), _) => refused("what we showed in the user's name was refused"),
            // A server's word to its front end: the mailbox is elsewhere. The request has been sent, and
            // what has been sent is not sent again.
            (555, ..) => Err(self
                .elsewhere("its server says that the mailbox is elsewhere")
                .into()),
            _ => Ok(()),
        }
    }

    async fn await_head<S: Stream>(&self, exchange: &mut Exchange<'_, S>) -> Result<(), Stop> {
        let patience = |exchange: &Exchange<'_, S>| match exchange.waits_for_client() {
            true => self.limits().body_timeout,
            false => self.errand.silence,
        };
        exchange.late.set(after(patience(exchange)));
        let mut seen = exchange.progress();
        loop {
            if let Some(refusal) = self.has_moved() {
                return Err(refusal.into());
            }
            return match exchange.next(true).await {
                Event::Answer(0) => Err(self.failed(exchange, "closed without an answer")),
                Event::Answer(_) => Ok(()),
                Event::LegFailed(error) => Err(self.failed(exchange, &error.to_string())),
                Event::ClientGone => Err(Stop::ClientGone),
                Event::TooLarge => Err(self.too_large().into()),
                Event::Asked => continue,
                // The request went on meanwhile: the deadline of what is waited for now begins anew.
                Event::Late if exchange.progress() != seen => {
                    seen = exchange.progress();
                    exchange.late.set(after(patience(exchange)));
                    continue;
                }
                Event::Late if exchange.waits_for_client() => Err(Refusal::BodyTimeout.into()),
                Event::Late => {
                    let server = self.server_name();
                    Err(Refusal::ServerSilent { server }.into())
                }
            };
        }
    }

    /// Why a held request is to end now: what it waits for happens elsewhere.
    fn has_moved(&self) -> Option<Refusal> {
        let database = self.errand.database.as_ref()?;
        let (now, server) = (self.runtime.snapshot(), self.errand.server.name());
        if !now.placement.is_active(database, server) {
            return Some(self.elsewhere("its database moved meanwhile"));
        }
        let is_down = !now.health.is_eligible(server);
        is_down.then(|| self.elsewhere("its server went down meanwhile"))
    }

    /// Takes what is here of the answer's body into `out`, as it is.
    fn piece<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        under: &mut Under,
        bill: &mut Bill<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let data = exchange.output.data();
        let taken = under
            .body
            .follow(data, |_| {})
            .map_err(|bad| Stop::Cut(self.nonsense(bad.0)))?;
        out.extend_from_slice(data.get(..taken.wire).unwrap_or_default());
        exchange.output.consume(taken.wire);
        for side in [&mut bill.ledger.server_in, &mut bill.ledger.client_out] {
            side.add_body(taken.wire as u64, taken.payload, 0);
        }
        Ok(())
    }

    /// The client's time begins now, not when we began to wait for the server.
    fn give_client_time<S: Stream>(&self, exchange: &mut Exchange<'_, S>) {
        exchange.late.set(after(self.limits().body_timeout));
    }

    fn extend<S: Stream>(&self, exchange: &mut Exchange<'_, S>) {
        exchange.late.set(after(self.errand.silence));
    }

    /// Both sides at once, until one of them ends, or who opened it may not be here any more.
    async fn tunnel<S: Stream>(&self, exchange: &mut Exchange<'_, S>, bill: &mut Bill<'_>) {
        let mut tunnel = Tunnel::default();
        let user = self.errand.user.as_ref();
        let lasting = user.map(|user| self.world.auth.lasting(user));
        let mut looks = tokio::time::interval(RIGHTS);
        self.extend(exchange);
        loop {
            let goes_on = tokio::select! {
                goes_on = tunnel.carry(exchange) => {
                    self.extend(exchange);
                    goes_on
                }
                _ = looks.tick() => true,
            };
            let is_welcome = lasting.as_ref().is_none_or(Lasting::stands);
            let leaves = exchange.asks.now().leaving || self.has_moved().is_some();
            if !goes_on || !is_welcome || leaves {
                break;
            }
        }
        bill.ledger.client_in.add(Kind::Payload, tunnel.up);
        bill.ledger.server_out.add(Kind::Payload, tunnel.up);
        bill.ledger.server_in.add(Kind::Payload, tunnel.down);
        bill.ledger.client_out.add(Kind::Payload, tunnel.down);
        bill.outcome = Outcome::Ok;
    }

    fn failed<S: Stream>(&self, exchange: &Exchange<'_, S>, cause: &str) -> Stop {
        Refusal::ServerFailed {
            server: self.server_name(),
            written: exchange.leg.wire().sent,
            cause: cause.to_owned(),
        }
        .into()
    }

    fn cut(&self, cause: &str) -> Stop {
        Stop::Cut(Refusal::ServerFailed {
            server: self.server_name(),
            written: 0,
            cause: cause.to_owned(),
        })
    }

    fn nonsense(&self, what: &'static str) -> Refusal {
        let server = self.server_name();
        Refusal::ServerNonsense { server, what }
    }

    fn too_large(&self) -> Refusal {
        let limit = self.errand.body_max;
        Refusal::BodyTooLarge { limit }
    }

    fn elsewhere(&self, why: &'static str) -> Refusal {
        let database = self.errand.database.clone();
        Refusal::NoEligibleCopy {
            database: database.unwrap_or_else(|| super::nobodys().1),
            why,
        }
    }
}

/// How often it is looked whether who opened a tunnel may still be here; each message is a look as well.
const RIGHTS: Duration = Duration::from_secs(30);

#[expect(
    clippy::disallowed_methods,
    reason = "an answer's times are read where it passes"
)]
fn now() -> Instant {
    Instant::now()
}
