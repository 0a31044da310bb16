//! The way back: the server's answer, streamed to the client as it comes.

use super::admit::{By, Plan};
use super::answer::{self, AnswerHead, Echo, Rewrite};
use super::bill::Bill;
use super::connection::{Connection, Next, OnTheWay, Stop, Stream, after};
use super::device::Device;
use super::ends::Broken;
use super::exchange::{Event, Exchange};
use super::head::Fields;
use super::hold::Hold;
use super::learn;
use super::local::offered;
use super::pinned::Pinned;
use crate::accounting::meter::enter;
use crate::accounting::{Kind, Phase, Wire};
use crate::buffers::Scratch;
use crate::config::settings::BackendIdentity;
use crate::health::Observation;
use crate::mapi::framing::Body;
use crate::mapi::tags::Tags;
use crate::mapi::{Flavour, ResponseCode};
use crate::metrics::{Outcome, PollEnd};
use crate::refusal::Refusal;
use crate::runtime::{Runtime, Snapshot};
use crate::sessions::SessionKey;
use std::borrow::Cow;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// What one answer needs from the world around it.
pub(super) struct Scene<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) world: &'a Snapshot,
    pub(super) plan: &'a Plan,
    pub(super) keep_alive: bool,
    /// The connection may be proven as a whole.
    pub(super) is_bindable: bool,
}

/// What is known once the answer's head has passed.
pub(super) struct Under {
    pub(super) body: Body,
    pub(super) reusable: bool,
    pub(super) code: Option<ResponseCode>,
    pub(super) session: Option<SessionKey>,
    pub(super) expiration: Option<Duration>,
    pub(super) silence: Duration,
    pub(super) closes: bool,
}

impl<S: Stream> Connection<S> {
    /// Passes the answer on. Returns when its last byte is with the client.
    ///
    /// # Errors
    /// The server failed or the client went away; the request is never sent again.
    pub(super) async fn answer(
        &mut self,
        runtime: &Runtime,
        way: Box<OnTheWay>,
        bill: &mut Bill<'_>,
    ) -> Result<Next, Stop> {
        // Kept in its box: what is moved through a future is paid for twice.
        let mut way = way;
        let OnTheWay {
            world,
            plan,
            keep_alive,
            sent,
        } = &mut *way;
        enter(Phase::Relay);
        let keep_alive = *keep_alive;
        let scene = Scene {
            runtime,
            world,
            plan,
            keep_alive,
            is_bindable: self.memo.is_bindable(),
        };
        let client = self.client.ip();
        let mut exchange = Exchange::new(self, &mut sent.leg, sent.body);
        let names_a_url = scene.plan.pin.request_type.names_a_url();
        let outcome = match (&scene.plan.channel, names_a_url) {
            (None, false) => scene.stream(&mut exchange, bill).await,
            // Boxed: once in a session, and every other answer would keep room for it.
            (None, true) => Box::pin(scene.url(&mut exchange, client, bill)).await,
            (Some(channel), _) => Box::pin(scene.channel(channel, &mut exchange, bill)).await,
        };
        let is_unread = !exchange.is_request_done();
        exchange.book(&mut bill.ledger);
        bill.fit_server(&mut sent.leg);
        let (next, leg_is_clean) = outcome?;
        if let By::Own(scheme, seat) = &mut way.plan.by {
            let (scheme, seat) = (*scheme, seat.take());
            let OnTheWay {
                world, plan, sent, ..
            } = *way;
            let patience = world.settings.auth.passthrough.as_ref();
            let patience = patience.map(|untouched| untouched.handshake_timeout);
            // The answer to half a logon; what a server refuses later is begun anew as well.
            let half_done = patience.filter(|_| bill.status == 401);
            if let Some(seat) = seat.filter(|_| leg_is_clean && next == Next::Request) {
                let until = half_done.map(|patience| bill.clock + patience);
                let own = Pinned::new(sent.leg, plan.server, scheme, seat, until);
                self.pinned = Some(Box::new(own));
                self.must_end = false;
                return Ok(Next::Request);
            }
            return Ok(match next {
                Next::Request => Next::Close,
                other => other,
            });
        }
        if leg_is_clean {
            way.give_back(bill.clock);
        }
        // The server answered before it had the whole request, as with 413.
        Ok(if is_unread { Next::Linger } else { next })
    }
}

impl OnTheWay {
    fn give_back(self, now: Instant) {
        self.plan
            .server
            .give_back(self.sent.leg, self.plan.lane, now);
    }
}

impl Scene<'_> {
    pub(super) fn server_name(&self) -> crate::ids::ServerName {
        self.plan.server.name().clone()
    }

    /// True where the client's connection owns the leg.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.plan.by, By::Own(..))
    }

    pub(super) fn flavour(&self) -> Flavour {
        self.plan.server.settings().flavour
    }

    /// The answer from its first byte to its last. Second of the outcome: the leg may carry another.
    async fn stream<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        bill: &mut Bill<'_>,
    ) -> Result<(Next, bool), Stop> {
        let mut hold = Hold::new(self, bill.began);
        let (mut under, mut out) = loop {
            // Taken anew each time: it is not to be kept while the server thinks.
            let mut out = Scratch::new();
            match self.head(exchange, bill, &mut out.0)? {
                Some(under) => break (under, out),
                None => drop(out),
            }
            self.await_head(exchange, &mut hold).await?;
        };
        let mut tags = Tags::default();
        // Head and first piece in one write: one TLS record, one packet.
        self.piece(exchange, &mut under, &mut tags, &mut hold, bill, &mut out.0)?;
        self.extend_silence(exchange, &under, &tags, &hold, bill.clock);
        exchange.write(&out.0).await?;
        drop(out);
        let broken = loop {
            if under.body.is_done() {
                break None;
            }
            self.extend_silence(exchange, &under, &tags, &hold, bill.clock);
            let event = exchange.next(hold.listens()).await;
            bill.clock = self.now();
            match event {
                Event::Answer(0) if under.body == Body::UntilClose => break None,
                Event::Answer(0) => break Some(Broken::Lost("closed in mid-answer".to_owned())),
                Event::LegFailed(error) => break Some(Broken::Lost(error.to_string())),
                Event::Answer(_) => {
                    let mut out = Scratch::new();
                    self.piece(exchange, &mut under, &mut tags, &mut hold, bill, &mut out.0)?;
                    // The client's time begins now, not when we began to wait for the server.
                    self.extend_silence(exchange, &under, &tags, &hold, bill.clock);
                    exchange.write(&out.0).await?;
                }
                Event::Asked => hold.look(self),
                Event::ClientGone | Event::TooLarge => {
                    hold.ended(self, PollEnd::ClientLeft);
                    return Err(Stop::ClientGone);
                }
                Event::Late => break Some(Broken::Late),
            }
        };
        if let Some(broken) = broken {
            // Boxed: it hardly ever happens, and every held poll would keep room for it.
            let place = (&under, &tags);
            let next = Box::pin(self.end_early(broken, place, exchange, &mut hold, bill)).await?;
            return Ok((next, false));
        }
        self.completed(&under, &tags, &mut hold, bill);
        if self.is_own() && !exchange.is_request_done() {
            // A server that says 401 early still reads what belongs to it; a logon must not end there.
            exchange
                .late
                .set(after(self.world.settings.limits.body_timeout));
            exchange.finish_request().await;
        }
        let clean = exchange.is_request_done() && exchange.output.is_empty() && under.reusable;
        let next = if under.closes || !exchange.is_request_done() {
            Next::Close
        } else {
            Next::Request
        };
        Ok((next, clean))
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
            let head = answer::read(exchange.output.data(), self.flavour(), &mut room).map_err(
                |what| Refusal::ServerNonsense {
                    server: self.server_name(),
                    what,
                },
            )?;
            let Some(head) = head else { return Ok(None) };
            if head.status == 101 {
                return Err(Refusal::ServerNonsense {
                    server: self.server_name(),
                    what: "101",
                }
                .into());
            }
            let length = head.length;
            if head.status < 200 {
                // We have told the client to go on ourselves; a server's own word would be one too many.
                bill.ledger.server_in.add(Kind::Headers, length as u64);
                exchange.output.consume(length);
                continue;
            }
            let under = self.pass_head(
                &head,
                exchange.asks.now().leaving,
                exchange.is_request_done(),
                bill,
                out,
            )?;
            exchange.output.consume(length);
            return Ok(Some(under));
        }
    }

    pub(super) fn pass_head(
        &self,
        head: &AnswerHead<'_, '_>,
        leaving: bool,
        request_is_done: bool,
        bill: &mut Bill<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Under, Stop> {
        let (world, pin, server) = (self.world, &self.plan.pin, self.plan.server.settings());
        let now = self.now();
        bill.clock = now;
        bill.first_byte = bill.sent.map(|sent| now.saturating_duration_since(sent));
        self.check_status(head)?;
        let code = head.code.map(|code| server.flavour.normal(code));
        let session = learn::from_head(head, code, pin, &server.name, self.runtime, world, now);
        let sealed = self.route_cookie(head, code);
        let keep = self.keep_alive
            && !leaving
            && match self.is_own() {
                true => head.reusable,
                false => request_is_done || !head.body.is_done(),
            };
        let challenges = self.challenges(head.status, bill);
        let rewrite = Rewrite {
            code: code.filter(|_| server.normalize && code != head.code),
            echo: head.code.filter(|_| server.normalize).map(|_| Echo {
                request_type: pin.request_type.spelling(),
                request_id: bill.request_id(),
                client_info: bill.client_info(),
            }),
            route_cookie: world
                .sealer
                .as_ref()
                .zip(sealed.as_deref())
                .map(|(sealer, value)| (sealer.name(), value, pin.endpoint.path())),
            own_cookie: world.sealer.as_ref().map(|sealer| sealer.name()),
            challenges: challenges.as_deref(),
            device: self.device(bill),
            close: !keep,
        };
        let written = head.write(&rewrite, out);
        bill.status = head.status;
        bill.code = code;
        bill.ledger.server_in.add_head(head.bytes);
        bill.ledger.client_out.add_head(written);
        let periods = world.settings.limits.pending_missed;
        let period = head
            .pending_period
            .unwrap_or(world.settings.limits.default_pending_period);
        Ok(Under {
            body: head.body,
            reusable: match self.is_own() {
                true => head.reusable,
                false => head.leaves_it_to_others(request_is_done),
            },
            code,
            session,
            expiration: head.expiration,
            silence: (period * periods).max(SILENCE_MIN),
            closes: !keep || head.body == Body::UntilClose,
        })
    }

    /// What stands for the server's own challenges; `None`: they pass.
    pub(super) fn challenges(&self, status: u16, bill: &Bill<'_>) -> Option<Cow<'_, str>> {
        let (world, name) = (self.world, self.plan.name);
        match (status, self.is_own()) {
            (_, true) => None,
            (401, false) => {
                let offered = offered(world, name, bill);
                let lines = world.auth.challenges(&offered, None, self.is_bindable);
                Some(Cow::Owned(lines.collect::<String>()))
            }
            // What the server says to a credential of ours is not the client's business; our own proof is.
            _ => match self.plan.proof.as_deref() {
                Some(proof) => Some(Cow::Borrowed(&*proof.0)),
                None => (!world.handoff.is_passthrough()).then_some(Cow::Borrowed("")),
            },
        }
    }

    /// Our stamp on the answer, where the site wants it.
    pub(super) fn device(&self, bill: &Bill<'_>) -> Option<Device<'_>> {
        let id = self.world.settings.accounting.device_info.as_deref()?;
        let sent = bill.sent.unwrap_or(bill.began);
        let queue = sent.saturating_duration_since(bill.began).as_micros();
        Some(Device {
            id,
            server: self.plan.server.name().as_str(),
            queue_us: u64::try_from(queue).unwrap_or(u64::MAX),
            cpu_ns: bill.cpu_ns_so_far(),
        })
    }

    /// Statuses that are said to us and not to the client.
    pub(super) fn check_status(&self, head: &AnswerHead<'_, '_>) -> Result<(), Stop> {
        let server = || self.server_name();
        let refused = |what| {
            Err(Refusal::ServerNonsense {
                server: server(),
                what,
            }
            .into())
        };
        match (head.status, &self.world.settings.backend_identity) {
            (401, _) if self.is_own() => Ok(()),
            (401, BackendIdentity::BasicService { .. }) => {
                refused("our service account was refused")
            }
            (401, BackendIdentity::Kerberos(_)) => {
                refused("the ticket in the user's name was refused")
            }
            (401, BackendIdentity::Assertion(_)) => refused("our assertion was refused"),
            (401, BackendIdentity::TrustedHeader { .. }) => {
                refused("our word for the user was refused")
            }
            (401, BackendIdentity::Passthrough) => {
                // The server knows another password by now: what we remember is stale.
                self.world.auth.revoke(&self.plan.pin.user);
                Ok(())
            }
            // A server's word to its front end: the mailbox is elsewhere. It did nothing, but the
            // request has been sent, and what has been sent is not sent again.
            (555, _) if self.plan.channel.is_some() => {
                Err(Refusal::ChannelGone("the server says that the mailbox is elsewhere").into())
            }
            (555, _) if self.plan.pin.request_type.opens_session() => {
                Err(Refusal::NoEligibleCopy {
                    database: self.plan.pin.database.clone(),
                    why: "its server says that the mailbox is elsewhere",
                }
                .into())
            }
            (555, _) => {
                Err(Refusal::SessionGone("the server says that the mailbox is elsewhere").into())
            }
            _ => Ok(()),
        }
    }

    /// Our cookie, where the answer sets the session's own: clients send back the cookies of the last
    /// answer that set any. A new one for a new session, else mostly the client's own again: sealing
    /// costs as much as all else that is done for an answer's head.
    fn route_cookie(
        &self,
        head: &AnswerHead<'_, '_>,
        code: Option<ResponseCode>,
    ) -> Option<Cow<'_, [u8]>> {
        let sealer = self.world.sealer.as_ref()?;
        head.context.filter(|value| !value.is_empty())?;
        if code != Some(ResponseCode::SUCCESS) || self.plan.pin.request_type.closes_session() {
            return None;
        }
        let pin = &self.plan.pin;
        let again =
            self.plan.route_cookie.as_ref().filter(|_| {
                !pin.request_type.opens_session() && fastrand::u8(..RESEALED_EVERY) != 0
            });
        Some(match again {
            Some(value) => Cow::Borrowed(value),
            None => {
                let ticket = learn::ticket(pin, self.plan.server.name(), self.unix_seconds());
                let sealed = sealer.seal(&ticket, pin.endpoint, &pin.user)?;
                Cow::Owned(sealed.into_bytes())
            }
        })
    }

    pub(super) async fn await_head<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        hold: &mut Hold,
    ) -> Result<(), Stop> {
        let limits = &self.world.settings.limits;
        if exchange.waits_for_client() {
            exchange.late.set(after(limits.body_timeout));
        }
        let mut seen = exchange.progress();
        loop {
            // The client has had nothing yet, so it can be told in a whole answer.
            if hold.has_moved() {
                return Err(Refusal::SessionGone("database moved while waiting").into());
            }
            return match exchange.next(hold.listens()).await {
                Event::Answer(0) => Err(self.failed(exchange, "closed without an answer")),
                Event::Answer(_) => Ok(()),
                Event::LegFailed(error) => Err(self.failed(exchange, &error.to_string())),
                Event::ClientGone | Event::TooLarge => Err(Stop::ClientGone),
                Event::Asked => {
                    hold.look(self);
                    continue;
                }
                // The request went on meanwhile: the deadline of what is waited for now begins anew.
                Event::Late if exchange.progress() != seen => {
                    seen = exchange.progress();
                    let patience = match exchange.waits_for_client() {
                        true => limits.body_timeout,
                        false => limits.first_byte_timeout,
                    };
                    exchange.late.set(after(patience));
                    continue;
                }
                Event::Late if exchange.waits_for_client() => Err(Refusal::BodyTimeout.into()),
                Event::Late => {
                    let server = self.server_name();
                    self.runtime.observe(&server, Observation::Deadline);
                    Err(Refusal::ServerSilent { server }.into())
                }
            };
        }
    }

    pub(super) fn failed<S: Stream>(&self, exchange: &Exchange<'_, S>, cause: &str) -> Stop {
        self.observe_reset(exchange);
        Refusal::ServerFailed {
            server: self.server_name(),
            written: exchange.leg.wire().sent,
            cause: cause.to_owned(),
        }
        .into()
    }

    /// A server that gives up waiting for the rest of a request does not count as failed, or any client
    /// could bring any server down.
    pub(super) fn observe_reset<S: Stream>(&self, exchange: &Exchange<'_, S>) {
        if !exchange.waits_for_client() {
            self.runtime
                .observe(self.plan.server.name(), Observation::Reset);
        }
    }

    /// Takes what is here of the answer's body into `out`, as it is.
    fn piece<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        under: &mut Under,
        tags: &mut Tags,
        hold: &mut Hold,
        bill: &mut Bill<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let (pending, tag_bytes) = (tags.pending(), tags.bytes());
        let data = exchange.output.data();
        let taken = under
            .body
            .follow(data, |run| tags.read(run))
            .map_err(|bad| {
                Stop::Cut(Refusal::ServerNonsense {
                    server: self.server_name(),
                    what: bad.0,
                })
            })?;
        out.extend_from_slice(data.get(..taken.wire).unwrap_or_default());
        exchange.output.consume(taken.wire);
        let tag_bytes = tags.bytes() - tag_bytes;
        for side in [&mut bill.ledger.server_in, &mut bill.ledger.client_out] {
            side.add_body(taken.wire as u64, taken.payload, tag_bytes);
        }
        if tags.pending() > pending {
            hold.pending(self, self.now());
        }
        Ok(())
    }

    /// The server must be heard of within its own period, times the number that may be missed.
    pub(super) fn extend_silence<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        under: &Under,
        tags: &Tags,
        hold: &Hold,
        now: Instant,
    ) {
        let silence = now + under.silence;
        let deadline = hold.deadline(silence, self.is_between(under, tags));
        exchange.late.set(deadline.into());
    }

    /// True where words of our own may be put in without breaking a chunk or a tag of the server's.
    pub(super) fn is_between(&self, under: &Under, tags: &Tags) -> bool {
        under.body.at_chunk_boundary() && tags.at_boundary(self.flavour())
    }

    /// Both messages are complete.
    pub(super) fn completed(
        &self,
        under: &Under,
        tags: &Tags,
        hold: &mut Hold,
        bill: &mut Bill<'_>,
    ) {
        let code = tags
            .code()
            .map_or(under.code, |code| Some(self.flavour().normal(code)));
        if let Some(code) = tags.code() {
            learn::from_final_code(self.flavour().normal(code), under.session, self.runtime);
        }
        if self.plan.pin.request_type.is_held() {
            learn::from_end_of_wait(
                under.session,
                under.expiration,
                self.runtime,
                self.world,
                self.now(),
            );
        }
        hold.ended(self, PollEnd::Answered);
        bill.code = code;
        bill.outcome = match (bill.status, code) {
            (200, None | Some(ResponseCode::SUCCESS)) => Outcome::Ok,
            (200, Some(_)) => Outcome::Code,
            _ => Outcome::Status,
        };
        self.runtime.observe_answered(self.plan.server.name());
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an answer's deadlines are reckoned where it passes"
    )]
    pub(super) fn now(&self) -> Instant {
        Instant::now()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a ticket says when it was sealed"
    )]
    fn unix_seconds(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }
}

/// No server is given less than this between two signs of life, whatever it says of its period.
const SILENCE_MIN: Duration = Duration::from_secs(2);
/// Of so many answers one seals the cookie anew: a long session follows a change of keys, and its cookie
/// does not grow old.
const RESEALED_EVERY: u8 = 32;
