//! Who asks, for whose mailbox, and so to which server: everything that happens before a backend byte.

use super::bill::{Bill, Routed};
use super::channel::{self, Channel};
use super::discover::{self, Inquiry};
use super::head::{self, BodyLength, Fields, Forwarding, Gate, RequestHead};
use super::pinned::{self, Pinned};
use super::shared::{self, Shared};
use super::slow::{Known, Slow};
use super::target::{Page, Place, Target};
use super::vdir::{self, Errand};
use crate::accounting::meter::enter;
use crate::accounting::{Kinds, Phase};
use crate::admission::{Permit, Quota};
use crate::auth::handoff::Shown;
use crate::auth::{
    Asker, AuthStep, Certified, Denied, Identity, Memo, NO_CREDENTIALS, Presented, Scheme,
};
use crate::backend::{BackServer, Leg};
use crate::directory::Whose;
use crate::gss::Ticket;
use crate::ids::{DatabaseName, MailboxId, ServerName, UserName};
use crate::ldap::Lookups;
use crate::mapi::{Endpoint, RequestType};
use crate::metrics::{AuthOutcome, Counted};
use crate::refusal::Refusal;
use crate::routing::{self, Decision, Pin, Question, RouteReason};
use crate::runtime::{Runtime, Snapshot};
use crate::sessions::SessionKey;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What became of a head.
pub(crate) enum Admitted {
    /// It goes to a server; the head for it is written but for its end.
    Forward(Box<Plan>),
    /// Something must be found out first; then the head is judged again.
    Wait(Slow),
    /// We answer it ourselves.
    Local(Local),
    /// Autodiscover: what is asked stands in its body.
    Inquire(Box<Inquiry>),
    /// Outlook Anywhere: the first bytes of the body decide, and more of them are needed. Who asks is known.
    Peek(Arc<Identity>),
    /// It goes to a server, below another virtual directory; the head for it is written but for its end.
    Carry(Box<Errand>),
}

/// What we answer ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// The health page of a protocol.
    Health(Page),
    /// Success for a session that ended with its server.
    SessionEnded,
    /// That we are here, to whoever asks before a channel is opened. `[MS-RPCH] 2.1.2.1.5`
    Echo,
}

/// A request on its way to a server.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where it goes.
    pub(crate) server: Arc<BackServer>,
    /// Which of the configured names was asked for.
    pub(crate) name: Option<usize>,
    /// Which kept connections may carry it.
    pub(crate) lane: Option<u128>,
    /// Which of them does.
    pub(crate) by: By,
    /// Whose session, and what becomes of it.
    pub(crate) pin: Pinning,
    /// The client's route cookie, to be repeated with the server's own cookies.
    pub(crate) route_cookie: Option<Box<[u8]>>,
    /// Header lines of the sender's scheme, which go with the answer whoever gives it.
    pub(crate) proof: Option<Box<Proof>>,
    /// A channel of Outlook Anywhere. One pointer as well.
    pub(crate) channel: Option<Box<Channel>>,
    _permit: Permit,
    _in_flight: Counted,
}

/// The connection to the server a request goes by.
#[derive(Debug)]
pub(crate) enum By {
    /// Any kept one of its lane, or a new one.
    Any,
    /// This kept one, which knows the user: the head shows nothing.
    SignedOn(Box<Leg>),
    /// A new one: the head signs it on.
    New,
    /// The one that the client's connection owns, or is to own from now on; with its seat, once it has it.
    Own(Scheme, Option<Counted>),
}
/// Header lines of a scheme. One pointer in a plan, because every held poll keeps one.
#[derive(Debug)]
pub(crate) struct Proof(pub(crate) Box<str>);

/// What a session is, or will be once the server's answer opens it.
#[derive(Clone, Debug)]
pub(crate) struct Pinning {
    pub(crate) endpoint: Endpoint,
    pub(crate) request_type: RequestType,
    pub(crate) user: UserName,
    pub(crate) mailbox: MailboxId,
    pub(crate) database: DatabaseName,
    /// The session the request came with.
    pub(crate) session: Option<SessionKey>,
    /// That session is in the table.
    pub(crate) is_known: bool,
}

/// What the connection knows of its client.
pub(crate) struct Caller<'a> {
    /// Where it comes from.
    pub(crate) source: IpAddr,
    /// The same as text.
    pub(crate) address: &'a str,
    /// `https`, or `http` from a plain listener.
    pub(crate) scheme: &'static str,
    /// What its connection knows of the request, where others share it.
    pub(crate) shared: Option<Shared>,
    /// The certificate it showed in its handshake.
    pub(crate) shown: Option<&'a Presented>,
    /// Who it proved to be.
    pub(crate) memo: &'a mut Memo,
    /// What slow work has found out for this request.
    pub(crate) known: &'a Known,
    /// Servers that could not be reached for this request.
    pub(crate) tried: &'a [ServerName],
    /// The server connection it owns.
    pub(crate) pinned: Option<&'a Pinned>,
    /// A connection that was signed on has just failed: not by another of that kind.
    pub(crate) signs_on: bool,
}

/// What is known of a request once its head is read, whatever becomes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bytes of the head.
    pub(crate) length: usize,
    /// Where the body ends.
    pub(crate) body: BodyLength,
    /// The client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    /// It has had it.
    pub(crate) invited: bool,
    /// The client will send another request.
    pub(crate) keep_alive: bool,
    /// The answer goes without its body.
    pub(crate) is_head: bool,
    /// Which of the configured names was asked for.
    pub(crate) name: Option<usize>,
}

/// Reads the head in `bytes` and decides. `Ok(None)`: the head is not complete. `shape` is set as soon
/// as the head is read; `out` gets the head for the server.
///
/// # Errors
/// Why not; no byte went to a server.
pub(crate) fn admit(
    bytes: &[u8],
    runtime: &Runtime,
    world: &Snapshot,
    mut caller: Caller<'_>,
    now: Instant,
    shape: &mut Option<Shape>,
    bill: &mut Bill<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<Admitted>, Refusal> {
    let gate = Gate {
        head_max: world.settings.limits.head,
        route_cookie: world.sealer.as_ref().map(|sealer| sealer.name()),
        has_vdirs: !world.settings.vdirs.is_empty(),
    };
    if let Some(wrong) = caller.shared.and_then(|shared| shared.wrong) {
        return Err(wrong.into());
    }
    let mut room = Fields::new();
    let Some(head) = head::read(bytes, gate, &mut room)? else {
        return Ok(None);
    };
    let mut names = world.settings.names.iter();
    let name = names.position(|name| name.host.eq_ignore_ascii_case(head.host));
    *shape = Some(Shape {
        length: head.length,
        body: head.body,
        // Without a body there is nothing to be told to send.
        expects_continue: head.expects_continue && head.body != BodyLength::Counted(0),
        invited: shape.is_some_and(|before| before.invited),
        keep_alive: head.keep_alive,
        is_head: head.method == head::Method::Head,
        name,
    });
    // Set and not added to: a head is read again after a verification.
    bill.ledger.client_in = Kinds::of_head(head.bytes);
    if caller.shared.is_some() {
        shared::judge(&head, name, world, bill)?;
    }
    let endpoint = match head.target.place {
        Place::Mapi(endpoint) => endpoint,
        Place::Health(page) => return Ok(Some(Admitted::Local(Local::Health(page)))),
        Place::Vdir(vdir) => {
            return vdir::admit(&head, vdir, name, runtime, world, caller, now, bill, out)
                .map(Some);
        }
        Place::Autodiscover(dialect) => {
            return discover::admit(&head, dialect, name, runtime, world, caller, now, bill)
                .map(Some);
        }
        Place::Rpc(_) => {
            let first = bytes.get(head.length..).unwrap_or_default();
            return channel::admit(&head, first, name, runtime, world, caller, now, bill, out)
                .map(Some);
        }
    };
    note(&head, endpoint, bill);
    let limit = world.settings.limits.body;
    if matches!(head.body, BodyLength::Counted(length) if length > limit) {
        return Err(Refusal::BodyTooLarge { limit });
    }
    enter(Phase::Auth);
    let offered = name
        .and_then(|name| world.settings.names.get(name))
        .ok_or(Refusal::UnknownHost)?;
    let offered = offered.offered(Some(endpoint));
    let asker = caller.asker(&head, offered, (now, bill.time))?;
    let (identity, left) = match pinned::who(&head, &asker, world, &mut caller, runtime, bill)? {
        Ok(known) => known,
        Err(slow) => return Ok(Some(Admitted::Wait(slow))),
    };
    enter(Phase::Route);
    let mut admitted = route(
        &head, endpoint, runtime, world, &identity, left, &caller, now, bill, out,
    )?;
    if let Admitted::Forward(plan) = &mut admitted {
        plan.name = name;
        let proof = caller.memo.answer();
        plan.proof = proof.map(|lines| Box::new(Proof(lines.into())));
    }
    Ok(Some(admitted))
}

pub(super) fn note(head: &RequestHead<'_, '_>, endpoint: Endpoint, bill: &mut Bill<'_>) {
    bill.endpoint = Some(endpoint);
    bill.request_type = Some(head.request_type);
    bill.keep_texts([
        head.request_id.unwrap_or_default(),
        head.client_info.unwrap_or_default(),
        head.target.mailbox.unwrap_or_default().as_bytes(),
        head.host.as_bytes(),
        head.user_agent.unwrap_or_default(),
        head.client_application
            .or(head.user_agent)
            .unwrap_or_default(),
        &[],
    ]);
}

impl Caller<'_> {
    /// What a request shows of its sender.
    ///
    /// # Errors
    /// Nobody is served here without a certificate, and that of its handshake does not stand any more: whoever judges
    /// what else is shown, nothing makes up for it.
    pub(super) fn asker<'q>(
        &self,
        head: &RequestHead<'_, 'q>,
        offered: &'q [Scheme],
        now: (Instant, SystemTime),
    ) -> Result<Asker<'q>, Refusal> {
        if let Some(shown) = self.shown.filter(|shown| shown.is_required()) {
            shown.stands(now.1).map_err(Refusal::Certificate)?;
        }
        Ok(Asker {
            authorization: head.authorization,
            offered,
            source: self.source,
            now,
        })
    }
}

/// Who asks: by the connection's memo or the cache, else by slow work. Where a request shows nothing and
/// nobody has signed on to the connection, by the certificate of its handshake.
pub(super) fn who(
    asker: &Asker<'_>,
    world: &Snapshot,
    caller: &mut Caller<'_>,
    runtime: &Runtime,
) -> Result<Result<Arc<Identity>, Slow>, Refusal> {
    if let Some(identity) = &caller.known.identity {
        return Ok(Ok(Arc::clone(identity)));
    }
    let metrics = &runtime.metrics;
    match world.auth.step(asker, caller.memo) {
        AuthStep::Challenge(NO_CREDENTIALS) if asker.offered.contains(&Scheme::Certificate) => {
            by_certificate(asker, world, caller, runtime)
        }
        AuthStep::Granted(identity) => {
            metrics.auth(Some(identity.scheme), AuthOutcome::Remembered);
            Ok(Ok(identity))
        }
        AuthStep::Verify(verification) => Ok(Err(Slow::Verify(verification))),
        AuthStep::Shake(handshake) => Ok(Err(Slow::Shake(handshake))),
        AuthStep::Challenge(reason) => {
            metrics.auth(None, AuthOutcome::Challenged);
            Err(Refusal::Unauthenticated(reason))
        }
        AuthStep::Deny(scheme, denied) => {
            metrics.auth(scheme, denied.outcome());
            Err(match is_alone(asker) {
                true => Refusal::Certificate("credentials of a scheme that is not offered"),
                false => denied.into(),
            })
        }
    }
}

/// Whose the certificate of the connection is. A name that offers nothing else has no challenge to send,
/// and so answers 403: the client has to come again with another certificate.
fn by_certificate(
    asker: &Asker<'_>,
    world: &Snapshot,
    caller: &mut Caller<'_>,
    runtime: &Runtime,
) -> Result<Result<Arc<Identity>, Slow>, Refusal> {
    let metrics = &runtime.metrics;
    let refusal = |why| match is_alone(asker) {
        true => Refusal::Certificate(why),
        false => Refusal::Unauthenticated(why),
    };
    let Some(shown) = caller.shown.filter(|shown| !shown.is_nothing()) else {
        metrics.auth(None, AuthOutcome::Challenged);
        return Err(refusal(NO_CREDENTIALS));
    };
    let outcome = world.auth.by_certificate(
        shown,
        caller.memo,
        &world
            .directory
            .register(&caller.known.findings, asker.now.0),
        world.generation.0,
        asker.now.1,
    );
    let (told, ended) = match outcome {
        Ok(Certified::Ask(lookups)) => return Ok(Err(Slow::Holder(lookups))),
        Ok(Certified::Known(identity, true)) => (AuthOutcome::Verified, Ok(Ok(identity))),
        Ok(Certified::Known(identity, false)) => (AuthOutcome::Remembered, Ok(Ok(identity))),
        Err(Denied::Credentials(why)) => (Denied::Credentials(why).outcome(), Err(refusal(why))),
        Err(denied) => (denied.outcome(), Err(denied.into())),
    };
    metrics.auth(Some(Scheme::Certificate), told);
    ended
}

/// Nothing but certificates is accepted: there is no challenge to send.
fn is_alone(asker: &Asker<'_>) -> bool {
    let mut offered = asker.offered.iter();
    offered.all(|scheme| *scheme == Scheme::Certificate)
}

/// The session a request came with, proven to be this user's.
struct Found {
    key: Option<SessionKey>,
    database: DatabaseName,
    server: ServerName,
    /// It is in the table; else our own cookie told.
    is_known: bool,
    /// The mailbox it was opened for, where the request names another.
    other: Option<MailboxId>,
}

fn route(
    head: &RequestHead<'_, '_>,
    endpoint: Endpoint,
    runtime: &Runtime,
    world: &Snapshot,
    identity: &Arc<Identity>,
    left: Option<Scheme>,
    caller: &Caller<'_>,
    now: Instant,
    bill: &mut Bill<'_>,
    out: &mut Vec<u8>,
) -> Result<Admitted, Refusal> {
    // Nobody is called what a stranger is filed under.
    let user = left.is_none().then_some(&identity.user);
    let wait = |lookups| Ok(Admitted::Wait(Slow::Lookup(Arc::clone(identity), lookups)));
    let (mailbox, home) = match asked_for(&head.target, world, user, caller.known, now)? {
        Ok(found) => found,
        Err(lookups) => return wait(lookups),
    };
    let found = session(
        head,
        endpoint,
        runtime,
        world,
        &identity.user,
        &mailbox,
        (now, bill.time),
    )?;
    // A session opens the mailbox that it was opened for, whichever the request names.
    if let Some(other) = found.as_ref().and_then(|found| found.other.as_ref())
        && let Err(lookups) = whose(Some(other.as_str()), world, user, caller.known, now)?
    {
        return wait(lookups);
    }
    let question = Question {
        request_type: head.request_type,
        carries_context: head.contexts.iter().any(Option::is_some),
        session: found.as_ref().map(|found| Pin {
            database: &found.database,
            server: &found.server,
        }),
        database: Some(&home),
        tried: caller.tried,
    };
    let capable = |server: &ServerName| {
        world
            .settings
            .servers
            .get(server)
            .is_some_and(|settings| settings.capable.mapi_http)
    };
    let (server, database, reason, strip) =
        match routing::decide(&question, &world.placement, &world.health, capable) {
            Decision::Forward {
                server,
                database,
                reason,
                strip_session_cookies,
            } => (server, database, reason, strip_session_cookies),
            Decision::EndSession => {
                if let Some(found) = &found {
                    forget(found, runtime);
                }
                return Ok(Admitted::Local(Local::SessionEnded));
            }
            Decision::Refuse(refusal) => {
                if let (Refusal::SessionGone(_), Some(found)) = (&refusal, &found) {
                    forget(found, runtime);
                    runtime.metrics.session_moved();
                }
                return Err(refusal);
            }
        };
    let chosen = Chosen {
        mailbox,
        database,
        server,
        reason,
        strip,
    };
    let ready = ready(
        head, world, runtime, identity, left, caller, now, &chosen, bill, out,
    )?;
    let ready = match ready {
        Ok(ready) => ready,
        Err(slow) => return Ok(Admitted::Wait(slow)),
    };
    let pin = Pinning {
        endpoint,
        request_type: head.request_type,
        user: identity.user.clone(),
        mailbox: chosen.mailbox,
        database: database.clone(),
        session: found.as_ref().and_then(|found| found.key),
        is_known: found.as_ref().is_some_and(|found| found.is_known),
    };
    let route_cookie = head
        .route_cookie
        .filter(|value| value.len() <= ROUTE_COOKIE_MAX)
        .map(Into::into);
    Ok(Admitted::Forward(ready.plan(pin, route_cookie, None)))
}

/// Where a request goes, once that is decided.
pub(super) struct Chosen<'a> {
    pub(super) mailbox: MailboxId,
    pub(super) database: &'a DatabaseName,
    pub(super) server: &'a ServerName,
    pub(super) reason: RouteReason,
    /// Without its cookies.
    pub(super) strip: bool,
}

/// A request that may go: its head is written.
pub(super) struct Ready {
    server: Arc<BackServer>,
    lane: Option<u128>,
    pub(super) by: By,
    permit: Permit,
    in_flight: Counted,
}

impl Ready {
    pub(super) fn plan(
        self,
        pin: Pinning,
        route_cookie: Option<Box<[u8]>>,
        channel: Option<Box<Channel>>,
    ) -> Box<Plan> {
        Box::new(Plan {
            name: None,
            proof: None,
            lane: self.lane,
            by: self.by,
            pin,
            route_cookie,
            channel,
            _permit: self.permit,
            _in_flight: self.in_flight,
            server: self.server,
        })
    }
}

/// Everything between the decision and the connection: what the server is shown, a permit, the head it gets.
pub(super) fn ready(
    head: &RequestHead<'_, '_>,
    world: &Snapshot,
    runtime: &Runtime,
    identity: &Arc<Identity>,
    left: Option<Scheme>,
    caller: &Caller<'_>,
    now: Instant,
    chosen: &Chosen<'_>,
    bill: &mut Bill<'_>,
    out: &mut Vec<u8>,
) -> Result<Result<Ready, Slow>, Refusal> {
    let Chosen {
        mailbox,
        database,
        server,
        reason,
        strip,
    } = chosen;
    bill.route = Some(Routed {
        mailbox: mailbox.clone(),
        database: (*database).clone(),
        server: (*server).clone(),
        reason: reason.as_str(),
    });
    let backend = world
        .servers
        .get(server)
        .ok_or_else(|| Refusal::NoEligibleCopy {
            database: (*database).clone(),
            why: "its server is not configured",
        })?;
    let lane = match left {
        Some(_) => None,
        None => {
            let authenticates = backend.settings().authenticates;
            let handoff = &world.handoff;
            handoff.lane(authenticates, identity, head.authorization)
        }
    };
    let (by, shown) = match introduce(
        head,
        world,
        identity,
        left,
        caller,
        backend,
        lane,
        (now, bill.time),
    )? {
        Ok(introduced) => introduced,
        Err(slow) => return Ok(Err(slow)),
    };
    let limits = &world.settings.limits;
    let quota = Quota {
        per_user: limits.requests_per_user,
        per_server: backend.settings().requests_max,
    };
    let permit = match left {
        Some(_) => {
            let payer = pinned::payer(identity, caller.pinned, caller.address);
            runtime.admission.admit(&payer, server, quota)?
        }
        None => runtime.admission.admit(&identity.user, server, quota)?,
    };
    let written = head.write(
        &Forwarding {
            client: caller.address,
            scheme: caller.scheme,
            authorization: shown.authorization.as_deref(),
            own: world.handoff.own_header(),
            user: shown
                .field
                .as_ref()
                .map(|(name, value)| (*name, value.as_str())),
            strip_session_cookies: *strip,
            route_cookie: world.sealer.as_ref().map(|sealer| sealer.name()),
        },
        out,
    );
    bill.ledger.server_out = Kinds::of_head(written);
    Ok(Ok(Ready {
        lane,
        by,
        permit,
        in_flight: backend.meters(&runtime.metrics).request_started(),
        server: backend.clone(),
    }))
}

/// By which connection the server learns who the user is, and what it is shown.
pub(super) fn introduce<'a>(
    head: &RequestHead<'_, 'a>,
    world: &'a Snapshot,
    identity: &Arc<Identity>,
    left: Option<Scheme>,
    caller: &Caller<'_>,
    backend: &Arc<BackServer>,
    lane: Option<u128>,
    (now, wall): (Instant, SystemTime),
) -> Result<Result<(By, Shown<'a>), Slow>, Refusal> {
    if let Some(scheme) = left {
        // Only the connection that was signed on knows the user of such a request.
        if head.authorization.is_none() && !caller.pinned.is_some_and(|own| own.leads_to(backend)) {
            return Err(Refusal::Unauthenticated("signed on at another server"));
        }
        let shown = Shown {
            authorization: head.authorization.map(Cow::Borrowed),
            field: None,
        };
        return Ok(Ok((By::Own(scheme, None), shown)));
    }
    let handoff = &world.handoff;
    if let Some(shown) = handoff
        .show(&identity.user, head.authorization, backend.name(), wall)
        .map_err(|why| Refusal::NotHandedOn(why.to_string().into()))?
    {
        return Ok(Ok((By::Any, shown)));
    }
    let each = handoff.signs_each_request();
    if !each
        && !caller.signs_on
        && let Some(leg) = backend.reuse(lane, now)
    {
        return Ok(Ok((By::SignedOn(Box::new(leg)), Shown::default())));
    }
    let for_this = |(server, _): &&(ServerName, Ticket)| server == backend.name();
    let Some((_, ticket)) = caller.known.ticket.as_ref().filter(for_this) else {
        let (identity, server) = (Arc::clone(identity), Arc::clone(backend));
        return Ok(Err(Slow::Ticket(identity, server)));
    };
    let by = if each { By::Any } else { By::New };
    Ok(Ok((by, Shown::by_ticket(ticket))))
}

/// The mailbox that is asked for and its database; without a `MailboxId`, the user's own. `user` is `None`
/// where only the server knows who asks.
pub(super) fn asked_for(
    target: &Target<'_>,
    world: &Snapshot,
    user: Option<&UserName>,
    known: &Known,
    now: Instant,
) -> Result<Result<(MailboxId, DatabaseName), Box<Lookups>>, Refusal> {
    let unescaped;
    let id = match target.mailbox {
        Some(id) if id.contains('%') => {
            unescaped = id.replacen("%40", "@", 1);
            Some(&*unescaped)
        }
        id => id,
    };
    whose(id, world, user, known, now)
}

/// The mailbox of this id and its database, where this user may open it.
fn whose(
    id: Option<&str>,
    world: &Snapshot,
    user: Option<&UserName>,
    known: &Known,
    now: Instant,
) -> Result<Result<(MailboxId, DatabaseName), Box<Lookups>>, Refusal> {
    match world.directory.whose(id, user, &known.findings, now) {
        Whose::Mailbox(mailbox, database) => Ok(Ok((mailbox, database))),
        Whose::Ask(lookups) => Ok(Err(lookups)),
        Whose::Unknown => Err(Refusal::UnknownMailbox),
        Whose::Forbidden => Err(Refusal::MailboxForbidden),
        // As it would be told who logs on now: whatever was proven before counts no more.
        Whose::Disabled => Err(Refusal::Unauthenticated("disabled in the directory")),
    }
}

/// Finds the session by its cookie in the table, else by our own cookie.
fn session(
    head: &RequestHead<'_, '_>,
    endpoint: Endpoint,
    runtime: &Runtime,
    world: &Snapshot,
    user: &UserName,
    mailbox: &MailboxId,
    (now, wall): (Instant, SystemTime),
) -> Result<Option<Found>, Refusal> {
    let (mut key, mut found) = (None, None);
    // All of them: a server reads the one of its own flavour, whichever of them we go by.
    for context in head.contexts.iter().flatten() {
        let this = runtime.sessions.key(endpoint, context);
        key.get_or_insert(this);
        let Some(session) = runtime.sessions.find(this, now) else {
            continue;
        };
        if session.user == *user {
            found.get_or_insert_with(|| Found {
                key: Some(this),
                database: session.database.clone(),
                server: session.server.clone(),
                is_known: true,
                other: (session.mailbox != *mailbox).then(|| session.mailbox.clone()),
            });
            continue;
        }
        // Somebody else's cookie opens nothing. Connect and Bind begin anew, without it.
        if !head.request_type.opens_session() {
            return Err(Refusal::ForeignSession);
        }
        return Ok(None);
    }
    if found.is_some() {
        return Ok(found);
    }
    // A ticket outlives the context it tells of: a server that lost it would refuse every Connect that
    // brought the old cookie along. A new session goes by the directory alone.
    if head.request_type.opens_session() {
        return Ok(None);
    }
    let ticket = world
        .sealer
        .as_ref()
        .zip(head.route_cookie)
        .and_then(|(sealer, value)| sealer.open(value, endpoint, user))
        .filter(|ticket| ticket.mailbox == *mailbox)
        .filter(|ticket| {
            let seconds = wall
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            ticket.is_fresh(seconds, TICKET_LIFETIME)
        });
    Ok(ticket.map(|ticket| Found {
        key,
        database: ticket.database,
        server: ticket.server,
        is_known: false,
        other: None,
    }))
}

fn forget(found: &Found, runtime: &Runtime) {
    if let Some(key) = found.key {
        runtime.sessions.close(key);
    }
}

/// A ticket that has not been sealed anew for so long tells of a session that nobody uses any more.
pub(super) const TICKET_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Characters of a route cookie that is repeated.
const ROUTE_COOKIE_MAX: usize = 512;
