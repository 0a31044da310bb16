//! A channel while it lives: bytes one way for hours, and the ways it ends.
//!
//! Nothing of what runs on it is kept, changed or understood, but for the server's first word on an OUT channel, which
//! says how often it is to be heard of. Whoever waits owns no buffer.

use super::{Channel, KEEPALIVE, KEEPALIVE_MAX};
use crate::accounting::Kind;
use crate::auth::Lasting;
use crate::buffers::Scratch;
use crate::directory::Whose;
use crate::health::Observation;
use crate::ldap::Findings;
use crate::mapi::framing::Body;
use crate::metrics::{ChannelEnd, Outcome};
use crate::refusal::Refusal;
use crate::relay::answer::{self, Rewrite};
use crate::relay::bill::Bill;
use crate::relay::connection::{LAST_WORDS, Next, Stop, Stream, after};
use crate::relay::exchange::{Event, Exchange};
use crate::relay::head::Fields;
use crate::relay::respond::Scene;
use crate::rpch::rts::{Command, Rts};
use crate::rpch::{Verb, pdu};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// An answer whose head has passed.
struct Answer {
    body: Body,
    reusable: bool,
    closes: bool,
    /// The first PDU of an OUT channel, until it has been read.
    first: Option<Vec<u8>>,
}

/// How it ended: the word for it, and what becomes of the connection.
type Ended = (ChannelEnd, Result<(Next, bool), Stop>);

impl Scene<'_> {
    /// Carries a channel to its end. Second of the outcome: the leg may carry another request.
    ///
    /// # Errors
    /// It did not end as channels end; the client is told, or sees it break off.
    pub(in crate::relay) async fn channel<S: Stream>(
        &self,
        channel: &Channel,
        exchange: &mut Exchange<'_, S>,
        bill: &mut Bill<'_>,
    ) -> Result<(Next, bool), Stop> {
        let Some(seat) = &channel.seat else {
            return self.carry(channel, exchange, bill).await.1;
        };
        seat.establish();
        let _open = self.runtime.metrics.channel_opened(channel.verb);
        let (reason, outcome) = self.carry(channel, exchange, bill).await;
        self.runtime.metrics.channel_ended(channel.verb, reason);
        outcome
    }

    async fn carry<S: Stream>(
        &self,
        channel: &Channel,
        exchange: &mut Exchange<'_, S>,
        bill: &mut Bill<'_>,
    ) -> Ended {
        let mut watch = Watch::new(self, channel);
        let mut answer = None;
        loop {
            let mut out = Scratch::new();
            if let Err(stop) = self.take(exchange, &mut answer, &mut watch, bill, &mut out.0) {
                return (ChannelEnd::ServerLost, Err(stop));
            }
            if !out.0.is_empty() {
                let patience = self.world.settings.limits.body_timeout;
                exchange.late.set(after(patience));
                if let Err(stop) = exchange.write(&out.0).await {
                    return (ChannelEnd::ClientLeft, Err(stop));
                }
            }
            drop(out);
            if let Some(answer) = answer.as_ref().filter(|answer| answer.body.is_done()) {
                return self.answered(answer, exchange, bill);
            }
            exchange.late.set(watch.deadline());
            let event = exchange.next(watch.listens()).await;
            bill.clock = self.now();
            let now = after(Duration::ZERO);
            let reason = match event {
                Event::Answer(1..) => {
                    watch.heard = now;
                    continue;
                }
                Event::Asked => {
                    watch.look(self);
                    continue;
                }
                Event::Late if watch.is_to_be_judged(now) => {
                    // Boxed: every five minutes, and every parked channel would keep room for it.
                    match Box::pin(self.judge_again(&mut watch)).await {
                        Ok(()) => continue,
                        Err(refusal) => {
                            let stop = after_head(Stop::Refuse(refusal), &answer);
                            return (ChannelEnd::Revoked, Err(stop));
                        }
                    }
                }
                Event::Late => match watch.due(now, exchange.progress()) {
                    Some(reason) => reason,
                    None => continue,
                },
                Event::Answer(_) => ChannelEnd::ServerClosed,
                // Most servers end TLS without a word of farewell.
                Event::LegFailed(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    ChannelEnd::ServerClosed
                }
                Event::LegFailed(error) => {
                    self.observe_reset(exchange);
                    let stop = self.failed(exchange, &error.to_string());
                    return (ChannelEnd::ServerLost, Err(after_head(stop, &answer)));
                }
                Event::ClientGone | Event::TooLarge => {
                    // What it said is with the server before the server sees that it is gone.
                    exchange.late.set(after(LAST_WORDS));
                    exchange.hang_up().await;
                    ChannelEnd::ClientLeft
                }
            };
            // Whose move it was that both channels end together: the server and the client see the other go first.
            let reason = watch.moved().unwrap_or(reason);
            let outcome = match reason {
                // It is not the server's fault.
                ChannelEnd::Silent if self.is_in() || exchange.waits_for_client() => {
                    Err(after_head(Stop::Refuse(Refusal::BodyTimeout), &answer))
                }
                _ => self.ended(reason, &answer, bill),
            };
            return (reason, outcome);
        }
    }

    /// The server's answer is complete: it refused, or it was asked for an echo.
    fn answered<S: Stream>(
        &self,
        answer: &Answer,
        exchange: &Exchange<'_, S>,
        bill: &mut Bill<'_>,
    ) -> Ended {
        bill.outcome = match bill.status {
            200 => Outcome::Ok,
            _ => Outcome::Status,
        };
        let is_done = exchange.is_request_done();
        // What has carried a channel carries nothing else, unless it is the client's own.
        let may_stay = self.is_own() || !self.is_channel();
        let clean = may_stay && is_done && exchange.output.is_empty() && answer.reusable;
        let next = match answer.closes || !is_done {
            true => Next::Close,
            false => Next::Request,
        };
        (ChannelEnd::Answered, Ok((next, clean)))
    }

    /// What the client is told of an end that the server did not tell it.
    fn ended(
        &self,
        reason: ChannelEnd,
        answer: &Option<Answer>,
        bill: &mut Bill<'_>,
    ) -> Result<(Next, bool), Stop> {
        let server = self.server_name();
        let refusal = match reason {
            ChannelEnd::ClientLeft => {
                bill.outcome = Outcome::Ok;
                return Ok((Next::Close, false));
            }
            // On an IN channel nothing else is ever heard of the end of its virtual connection.
            ChannelEnd::ServerClosed if self.is_in() => {
                bill.outcome = Outcome::Ok;
                return Ok((Next::Close, false));
            }
            ChannelEnd::ServerClosed | ChannelEnd::Drain if answer.is_some() => {
                bill.outcome = match reason {
                    ChannelEnd::Drain => Outcome::Ended,
                    _ => Outcome::Ok,
                };
                return Ok((Next::Close, false));
            }
            ChannelEnd::Answered | ChannelEnd::ServerClosed => {
                Refusal::ChannelGone("its server ended it")
            }
            ChannelEnd::Moved => Refusal::ChannelGone("its database moved"),
            ChannelEnd::Revoked => Refusal::MailboxForbidden,
            ChannelEnd::ServerLost => Refusal::ChannelGone("its server is down"),
            ChannelEnd::NoPartner => Refusal::BadChannel("the other direction did not come"),
            ChannelEnd::Drain => Refusal::ShuttingDown,
            ChannelEnd::Silent => {
                if answer.is_none() {
                    self.runtime.observe(&server, Observation::Deadline);
                }
                Refusal::ServerSilent { server }
            }
        };
        Err(after_head(Stop::Refuse(refusal), answer))
    }

    fn is_channel(&self) -> bool {
        let channel = self.plan.channel.as_ref();
        channel.is_some_and(|channel| channel.seat.is_some())
    }

    fn is_in(&self) -> bool {
        let channel = self.plan.channel.as_ref();
        self.is_channel() && channel.is_some_and(|channel| channel.is_in())
    }

    /// Whether the channel would be let in now. A right that has ended ends what was opened by it, as it ends the
    /// requests of MAPI over HTTP. A directory that cannot say leaves it as it is.
    async fn judge_again(&self, watch: &mut Watch<'_>) -> Result<(), Refusal> {
        let world = self.runtime.snapshot();
        if !world.settings.autodiscover.outlook_anywhere {
            return Err(Refusal::UnknownPath);
        }
        let pin = &self.plan.pin;
        let user = watch.channel.is_known.then_some(&pin.user);
        if watch
            .lasting
            .as_ref()
            .is_some_and(|lasting| !lasting.stands())
        {
            return Err(Refusal::Unauthenticated("revoked"));
        }
        let mut findings = Findings::default();
        for _ in 0..LOOKS_MAX {
            let id = Some(pin.mailbox.as_str());
            match world.directory.whose(id, user, &findings, self.now()) {
                Whose::Mailbox(_, database) if database == pin.database => return Ok(()),
                Whose::Mailbox(..) => {
                    return Err(Refusal::ChannelGone("its mailbox is in another database"));
                }
                Whose::Unknown => return Err(Refusal::UnknownMailbox),
                Whose::Forbidden => return Err(Refusal::MailboxForbidden),
                Whose::Disabled => {
                    return Err(Refusal::Unauthenticated("disabled in the directory"));
                }
                Whose::Ask(lookups) => {
                    if lookups.run(&mut findings).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what is here of the answer into `out`: its head, and its body as it is.
    fn take<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        answer: &mut Option<Answer>,
        watch: &mut Watch<'_>,
        bill: &mut Bill<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let nonsense = |what| Refusal::ServerNonsense {
            server: self.server_name(),
            what,
        };
        let under = loop {
            if let Some(under) = answer {
                break under;
            }
            let mut room = Fields::new();
            let data = exchange.output.data();
            let head = answer::read(data, self.flavour(), &mut room).map_err(nonsense)?;
            let Some(head) = head else { return Ok(()) };
            let length = head.length;
            match head.status {
                101 => return Err(nonsense("101").into()),
                // We have told the client to go on ourselves.
                ..200 => bill.ledger.server_in.add(Kind::Headers, length as u64),
                status => {
                    self.check_status(&head)?;
                    let is_channel = status == 200 && watch.channel.seat.is_some();
                    let keep = self.keep_alive
                        && !exchange.asks.now().leaving
                        && exchange.is_request_done()
                        && (!self.is_own() || head.reusable);
                    let challenges = self.challenges(status, bill);
                    let written = head.write(
                        &Rewrite {
                            code: None,
                            echo: None,
                            route_cookie: None,
                            own_cookie: self.world.sealer.as_ref().map(|sealer| sealer.name()),
                            challenges: challenges.as_deref(),
                            device: self.device(bill),
                            // A channel is its connection's last anyway, and clients know.
                            close: !keep && !is_channel,
                        },
                        out,
                    );
                    let now = self.now();
                    bill.clock = now;
                    let since = |sent| now.saturating_duration_since(sent);
                    bill.first_byte = bill.sent.map(since);
                    bill.status = status;
                    bill.ledger.server_in.add_head(head.bytes);
                    bill.ledger.client_out.add_head(written);
                    self.runtime.observe_answered(self.plan.server.name());
                    watch.answers();
                    *answer = Some(Answer {
                        body: head.body,
                        reusable: head.reusable,
                        closes: !keep || head.body == Body::UntilClose,
                        first: (is_channel && !watch.channel.is_in()).then(Vec::new),
                    });
                }
            }
            exchange.output.consume(length);
        };
        let data = exchange.output.data();
        let first = &mut under.first;
        let taken = under.body.follow(data, |run| {
            if let Some(first) = first {
                let room = FIRST_BYTES.saturating_sub(first.len()).min(run.len());
                first.extend_from_slice(run.get(..room).unwrap_or_default());
            }
        });
        let taken = taken.map_err(|bad| Stop::Cut(nonsense(bad.0)))?;
        out.extend_from_slice(data.get(..taken.wire).unwrap_or_default());
        exchange.output.consume(taken.wire);
        for side in [&mut bill.ledger.server_in, &mut bill.ledger.client_out] {
            side.add_body(taken.wire as u64, taken.payload, 0);
        }
        if let Some(told) = under.first.as_deref().and_then(connection_timeout) {
            under.first = None;
            watch.silence = told.unwrap_or(SILENCE) * self.world.settings.limits.pending_missed;
        }
        Ok(())
    }
}

impl Channel {
    fn is_in(&self) -> bool {
        self.verb == Verb::In
    }
}

/// Once the client has an answer's head, it can only see the rest break off.
fn after_head(stop: Stop, answer: &Option<Answer>) -> Stop {
    match stop {
        Stop::Refuse(refusal) if answer.is_some() => Stop::Cut(refusal),
        other => other,
    }
}

/// How often the server is to be heard of, by the first PDU it says; `None`: that is not here yet. Inside: it does not
/// say. `[MS-RPCH] 2.2.4.4, 2.2.3.5.3`
fn connection_timeout(first: &[u8]) -> Option<Option<Duration>> {
    let head = pdu::Head::read(first).ok();
    let whole = match head {
        Some(head) => first.get(..usize::from(head.length)),
        None => None,
    };
    let Some(whole) = whole else {
        return (first.len() >= FIRST_BYTES).then_some(None);
    };
    let rts = Rts::decode(whole).ok();
    let told = rts.and_then(|rts| match rts.commands.as_slice() {
        [Command::ConnectionTimeout(milliseconds)] => {
            Some(Duration::from_millis((*milliseconds).into()))
        }
        _ => None,
    });
    Some(told.map(|told| told.clamp(KEEPALIVE, KEEPALIVE_MAX)))
}

/// When a channel is to end, and why.
struct Watch<'a> {
    channel: &'a Channel,
    /// Something ends it then.
    ending: Option<(Instant, ChannelEnd)>,
    /// The other direction is to be there by then.
    partner_by: Option<Instant>,
    /// When a channel's rights are looked at again.
    judged_at: Instant,
    /// What is no channel, as an echo, is over by then, however slowly either side goes on.
    over_by: Option<Instant>,
    lasting: Option<Lasting>,
    /// The last sign of life.
    heard: Instant,
    /// The next one is due after this.
    silence: Duration,
    /// How far the request was when somebody last looked.
    progress: (u64, usize, bool),
    share: f64,
}

impl<'a> Watch<'a> {
    fn new(scene: &Scene<'_>, channel: &'a Channel) -> Self {
        let now = after(Duration::ZERO);
        let first_byte = scene.world.settings.limits.first_byte_timeout;
        let mut watch = Self {
            channel,
            ending: None,
            partner_by: channel.seat.is_some().then(|| now + PARTNER),
            judged_at: now + RIGHTS,
            over_by: channel.seat.is_none().then(|| now + first_byte),
            lasting: channel
                .is_known
                .then(|| scene.world.auth.lasting(&scene.plan.pin.user)),
            heard: now,
            silence: match channel.is_in() && channel.seat.is_some() {
                true => channel.keepalive,
                false => first_byte,
            },
            progress: (0, 0, false),
            share: channel.seat.as_ref().map_or(0.0, |seat| seat.share()),
        };
        // What was asked before we listened counts as well.
        watch.look(scene);
        watch
    }

    /// True while a word from outside can still change something.
    fn listens(&self) -> bool {
        self.channel.seat.is_some()
            && !matches!(self.ending, Some((_, reason)) if reason != ChannelEnd::Drain)
    }

    /// Looks at the world as it is now: is the mailbox where this channel goes? Both channels of a virtual connection end
    /// at one moment, which differs from one virtual connection to the next.
    fn look(&mut self, scene: &Scene<'_>) {
        if !self.listens() {
            return;
        }
        let (now, server) = (scene.runtime.snapshot(), scene.plan.server.name());
        let is_here = now.placement.is_active(&scene.plan.pin.database, server);
        let is_up = now.health.is_eligible(server);
        let reason = match (is_here, is_up, scene.runtime.is_leaving()) {
            (false, _, _) => ChannelEnd::Moved,
            (true, false, _) => ChannelEnd::ServerLost,
            (true, true, true) => ChannelEnd::Drain,
            (true, true, false) => return,
        };
        if self.ending.is_some_and(|(_, before)| before == reason) {
            return;
        }
        let within = scene.world.settings.limits.move_jitter;
        self.ending = Some((after(within.mul_f64(self.share)), reason));
    }

    /// Its database has moved.
    fn moved(&self) -> Option<ChannelEnd> {
        let (_, reason) = self.ending?;
        (reason == ChannelEnd::Moved).then_some(reason)
    }

    /// The answer has begun.
    fn answers(&mut self) {
        self.heard = after(Duration::ZERO);
        if self.channel.seat.is_some() && !self.channel.is_in() {
            self.silence = SILENCE;
        }
    }

    fn deadline(&self) -> Instant {
        let ending = self.ending.map(|(at, _)| at);
        let judged_at = self.channel.seat.is_some().then_some(self.judged_at);
        [ending, self.partner_by, judged_at, self.over_by]
            .into_iter()
            .flatten()
            .fold(self.heard + self.silence, Instant::min)
    }

    /// True where it is time to look at its rights, which is noted.
    fn is_to_be_judged(&mut self, now: Instant) -> bool {
        let is_due = self.channel.seat.is_some() && now >= self.judged_at;
        if is_due {
            self.judged_at = now + RIGHTS;
        }
        is_due
    }

    /// Why it is to end now; `None`: it is not.
    fn due(&mut self, now: Instant, progress: (u64, usize, bool)) -> Option<ChannelEnd> {
        let has_moved = progress != self.progress;
        self.progress = progress;
        if has_moved && self.channel.is_in() {
            // When exactly, nobody noted: from now on counts what comes now.
            self.heard = now;
        }
        if self.over_by.is_some_and(|by| now >= by) {
            return Some(ChannelEnd::Silent);
        }
        if self.partner_by.is_some_and(|by| now >= by) {
            self.partner_by = None;
            let seat = self.channel.seat.as_ref();
            if seat.is_some_and(|seat| !seat.has_partner()) {
                return Some(ChannelEnd::NoPartner);
            }
        }
        if let Some((at, reason)) = self.ending
            && now >= at
        {
            let is_busy = now.saturating_duration_since(self.heard) < QUIET;
            if reason != ChannelEnd::Drain || !is_busy {
                return Some(reason);
            }
            self.ending = Some((now + QUIET, reason));
        }
        (now >= self.heard + self.silence).then_some(ChannelEnd::Silent)
    }
}

/// A direction without the other is ended after this. Servers give it ten seconds.
const PARTNER: Duration = Duration::from_secs(30);
/// What a server that does not say is taken to be heard of in: the longest it may name. `[MS-RPCH] 2.2.3.5.3`
const SILENCE: Duration = Duration::from_secs(1800);
/// Rights are looked at anew as often as they are where a held poll ends and the next one begins.
const RIGHTS: Duration = Duration::from_secs(300);
/// Looks at the directory service for one judgement.
const LOOKS_MAX: usize = 4;
/// A channel that is to end when we leave ends between two things it carries.
const QUIET: Duration = Duration::from_secs(1);
/// Bytes of the longest first PDU that is waited for.
const FIRST_BYTES: usize = 64;
