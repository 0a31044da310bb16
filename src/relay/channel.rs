//! Outlook Anywhere at the door: what a channel asks for, and which server it goes to.
//!
//! A channel is a request whose body or whose answer lasts for hours. Its head says who asks and for which mailbox; the
//! first PDU of its body says which virtual connection it belongs to, and every channel of that goes to one server. So
//! that PDU is read before a server is chosen, and nothing behind it is looked at.

mod stream;

use super::admit::{Admitted, By, Caller, Chosen, Local, Pinning, Proof, asked_for, ready};
use super::bill::Bill;
use super::head::{BodyLength, Method, RequestHead};
use super::pinned;
use super::slow::Slow;
use crate::accounting::Phase;
use crate::accounting::meter::enter;
use crate::auth::Identity;
use crate::channels::{Claim, NoSeat, Seat};
use crate::config::settings::Scheme;
use crate::health::Ward;
use crate::ids::{DatabaseName, MailboxId, ServerName};
use crate::mapi::{Endpoint, RequestType};
use crate::refusal::Refusal;
use crate::routing::{self, RouteReason};
use crate::rpch::rts::{Beginning, First, first};
use crate::rpch::{Opening, Verb};
use crate::runtime::{Runtime, Snapshot};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request of Outlook Anywhere on its way to a server.
#[derive(Debug)]
pub(crate) struct Channel {
    verb: Verb,
    /// Its place in its virtual connection; `None`: it only asks whether anybody is there.
    seat: Option<Seat>,
    /// We know who opened it; else only the server does.
    is_known: bool,
    /// The client is to be heard of within this.
    keepalive: Duration,
}

/// Judges the head of a channel's request, and the bytes behind it as far as they are here. Nothing of MAPI over HTTP
/// comes here.
///
/// # Errors
/// Why not; no byte went to a server.
#[cold]
pub(super) fn admit(
    head: &RequestHead<'_, '_>,
    body: &[u8],
    name: Option<usize>,
    runtime: &Runtime,
    world: &Snapshot,
    mut caller: Caller<'_>,
    now: Instant,
    bill: &mut Bill<'_>,
    out: &mut Vec<u8>,
) -> Result<Admitted, Refusal> {
    if !world.settings.autodiscover.outlook_anywhere {
        return Err(Refusal::UnknownPath);
    }
    let Method::Rpc(verb) = head.method else {
        return Err(Refusal::VerbNotAllowed);
    };
    note(head, verb, bill);
    let opening = match head.body {
        BodyLength::Counted(length) => Opening::of(verb, length),
        BodyLength::Chunked => None,
    };
    let opening = opening.ok_or(Refusal::Malformed("length of a channel"))?;
    enter(Phase::Auth);
    let offered = name.and_then(|name| world.settings.names.get(name));
    let offered = offered.ok_or(Refusal::UnknownHost)?.offered_to_channels();
    let asker = caller.asker(head, offered, (now, bill.time))?;
    let (identity, left) = match pinned::who(head, &asker, world, &mut caller, runtime, bill)? {
        Ok(known) => known,
        Err(slow) => return Ok(Admitted::Wait(slow)),
    };
    enter(Phase::Route);
    if head.target.mailbox.is_none() {
        return match opening {
            // Clients ask for challenges this way, before they say what they want.
            Opening::Echo => Ok(Admitted::Local(Local::Echo)),
            Opening::Channel => Err(Refusal::Malformed("channel without a destination")),
        };
    }
    let proof = caller.memo.answer().map(|lines| Proof(lines.into()));
    let opens = Opens {
        head,
        body,
        verb,
        opening,
        runtime,
        world,
        identity: &identity,
        left,
    };
    let mut admitted = opens.route(caller, now, bill, out)?;
    if let Admitted::Forward(plan) = &mut admitted {
        plan.name = name;
        plan.proof = proof.map(Box::new);
    }
    Ok(admitted)
}

pub(super) fn note(head: &RequestHead<'_, '_>, verb: Verb, bill: &mut Bill<'_>) {
    bill.channel = Some(verb);
    let agent = head.user_agent.unwrap_or_default();
    let mailbox = head.target.mailbox.unwrap_or_default().as_bytes();
    let host = head.host.as_bytes();
    bill.keep_texts([&[], &[], mailbox, host, agent, agent, &[]]);
}

/// A channel whose user is known.
struct Opens<'a, 'h, 'b> {
    head: &'a RequestHead<'h, 'b>,
    body: &'a [u8],
    verb: Verb,
    opening: Opening,
    runtime: &'a Runtime,
    world: &'a Snapshot,
    identity: &'a Arc<Identity>,
    left: Option<Scheme>,
}

impl Opens<'_, '_, '_> {
    fn route(
        &self,
        mut caller: Caller<'_>,
        now: Instant,
        bill: &mut Bill<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Admitted, Refusal> {
        let (head, world, identity) = (self.head, self.world, self.identity);
        // Nobody is called what a stranger is filed under.
        let user = self.left.is_none().then_some(&identity.user);
        let (mailbox, database) = match asked_for(&head.target, world, user, caller.known, now)? {
            Ok(found) => found,
            Err(lookups) => {
                return Ok(Admitted::Wait(Slow::Lookup(Arc::clone(identity), lookups)));
            }
        };
        let decide = |home: Option<&ServerName>| self.server(&database, home, caller.tried);
        let beginning = match (self.opening, first(self.body)) {
            (Opening::Echo, _) => None,
            (Opening::Channel, First::Is(beginning)) => Some(self.fitting(beginning)?),
            (Opening::Channel, First::Wrong) => {
                return Err(Refusal::BadChannel("no PDU that begins one"));
            }
            (Opening::Channel, First::Short) => {
                // Where nobody can take it, its body need not come.
                decide(None)?;
                return Ok(Admitted::Peek(Arc::clone(identity)));
            }
        };
        let (server, reason, seat) = match beginning {
            None => {
                let (server, reason) = decide(None)?;
                (server, reason, None)
            }
            Some(beginning) => {
                let (server, reason, seat) = self.sit_down(beginning, &mailbox, now, decide)?;
                (server, reason, Some(seat))
            }
        };
        // A channel goes by a connection of its own, which nobody has used and nobody will.
        caller.signs_on |= seat.is_some();
        let chosen = Chosen {
            mailbox,
            database: &database,
            server: &server,
            reason,
            strip: false,
        };
        let (runtime, left) = (self.runtime, self.left);
        let ready = ready(
            head, world, runtime, identity, left, &caller, now, &chosen, bill, out,
        )?;
        let mut ready = match ready {
            Ok(ready) => ready,
            Err(slow) => return Ok(Admitted::Wait(slow)),
        };
        if seat.is_some() && !matches!(ready.by, By::Own(..)) {
            ready.by = By::New;
        }
        let channel = Channel {
            verb: self.verb,
            seat,
            is_known: self.left.is_none(),
            keepalive: keepalive(beginning, world.settings.limits.pending_missed),
        };
        let pin = Pinning {
            endpoint: Endpoint::Emsmdb,
            request_type: RequestType::Missing,
            user: identity.user.clone(),
            mailbox: chosen.mailbox,
            database: database.clone(),
            session: None,
            is_known: false,
        };
        let plan = ready.plan(pin, None, Some(Box::new(channel)));
        Ok(Admitted::Forward(plan))
    }

    /// A beginning that is one of this verb's, and of this length's.
    fn fitting(&self, beginning: Beginning) -> Result<Beginning, Refusal> {
        let length = match self.head.body {
            BodyLength::Counted(length) => length,
            BodyLength::Chunked => 0,
        };
        match beginning.verb() == self.verb && beginning.fits(length) {
            true => Ok(beginning),
            false => Err(Refusal::BadChannel(
                "a PDU that begins another kind of channel",
            )),
        }
    }

    fn server(
        &self,
        database: &DatabaseName,
        home: Option<&ServerName>,
        tried: &[ServerName],
    ) -> Result<(ServerName, RouteReason), Refusal> {
        let world = self.world;
        let capable = |server: &ServerName| {
            let known = world.settings.servers.get(server);
            known.is_some_and(|server| server.capable.outlook_anywhere)
        };
        let (placement, health) = (&world.placement, &world.health);
        let wards = world.wards.of(Ward::Rpc);
        let chosen = routing::channel(database, home, tried, placement, health, wards, capable)?;
        Ok((chosen.0.clone(), chosen.1))
    }

    /// The channel's place in its virtual connection, at the server of that.
    fn sit_down(
        &self,
        beginning: Beginning,
        mailbox: &MailboxId,
        now: Instant,
        decide: impl FnOnce(Option<&ServerName>) -> Result<(ServerName, RouteReason), Refusal>,
    ) -> Result<(ServerName, RouteReason, Seat), Refusal> {
        let claim = Claim {
            connection: beginning.connection(),
            verb: self.verb,
            user: &self.identity.user,
            mailbox,
        };
        let joined = self.runtime.channels.join(claim, now, decide);
        match joined {
            Ok((seat, server, reason)) => Ok((server, reason, seat)),
            Err(NoSeat::Foreign) => Err(Refusal::ForeignChannel),
            Err(NoSeat::Full) => Err(Refusal::TooBusy("limits.virtual_connections")),
            Err(NoSeat::Decided(refusal)) => Err(refusal),
        }
    }
}

/// The client is to be heard of within this: so many of its own intervals, which begin at five minutes where it names
/// none or a shorter one. `[MS-RPCH] 2.2.3.5.6`
fn keepalive(beginning: Option<Beginning>, missed: u32) -> Duration {
    let told = match beginning {
        Some(Beginning::In { keepalive, .. }) => Duration::from_millis(keepalive.into()),
        _ => Duration::ZERO,
    };
    told.clamp(KEEPALIVE, KEEPALIVE_MAX) * missed
}

/// What clients send a sign of life in. `[MS-RPCH] 2.2.3.5.6`
const KEEPALIVE: Duration = Duration::from_secs(300);
/// Nobody is believed beyond this. `[MS-RPCH] 2.1.2.1.1`
const KEEPALIVE_MAX: Duration = Duration::from_secs(4 * 3600);
