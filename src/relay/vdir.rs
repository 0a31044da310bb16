//! The other virtual directories at the door: to whom they are open, who asks, which server has the mailbox.
//!
//! The same gate, the same logon, the same accounts as for MAPI. What differs is that a request is passed on
//! as it is, whatever it means, and that its mailbox mostly is the user's own.

mod anchor;
mod answer;
mod carry;
mod guards;
mod guest;
mod health;
mod passage;
pub(crate) mod rules;
mod tunnel;

pub(super) use carry::Carried;
pub(super) use guards::{Guard, stands};
pub(crate) use health::page;

use super::admit::{Admitted, By, Caller, Proof, introduce, who};
use super::bill::{Bill, Routed};
use super::forward::Carriage;
use super::head::{BodyLength, RequestHead};
use super::public::place;
use super::slow::Slow;
use crate::accounting::meter::enter;
use crate::accounting::{Kinds, Phase};
use crate::admission::{Permit, Quota};
use crate::auth::Scheme;
use crate::backend::BackServer;
use crate::config::settings::{PublicName, VdirLogon, VdirSettings};
use crate::ids::{DatabaseName, MailboxId, ServerName, UserName};
use crate::metrics::Counted;
use crate::refusal::Refusal;
use crate::routing;
use crate::runtime::{Runtime, Snapshot};
use crate::vdir::{Vdir, Verb};
use passage::Forwarded;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A request on its way to a server, below another virtual directory.
#[derive(Debug)]
pub(crate) struct Errand {
    server: Arc<BackServer>,
    lane: Option<u128>,
    by: By,
    vdir: Vdir,
    verb: Verb,
    /// Which of the configured names was asked for.
    name: usize,
    /// Who asks; `None` where only the server finds out.
    user: Option<UserName>,
    /// The database it is for; `None` where only the server finds out.
    database: Option<DatabaseName>,
    /// The client wants a tunnel, and may have one.
    is_upgrade: bool,
    /// A header line of ours for the answer: a cookie that leads back to this server.
    cookie: Option<Box<str>>,
    /// Header lines of the sender's scheme, which go with the answer whoever gives it.
    proof: Option<Proof>,
    silence: Duration,
    body_max: u64,
    _permit: Permit,
    _in_flight: Counted,
}

impl Carriage for Errand {
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

/// Judges the head of a request below another virtual directory.
///
/// # Errors
/// Why not; no byte went to a server.
#[cold]
pub(super) fn admit(
    head: &RequestHead<'_, '_>,
    vdir: Vdir,
    name: Option<usize>,
    runtime: &Runtime,
    world: &Snapshot,
    mut caller: Caller<'_>,
    now: Instant,
    bill: &mut Bill<'_>,
    out: &mut Vec<u8>,
) -> Result<Admitted, Refusal> {
    let verb = head.method.verb().ok_or(Refusal::MethodNotAllowed)?;
    note(head, (vdir, verb), bill);
    let side = place(caller.source, &world.settings);
    let settings = rules::open_to(vdir, &world.settings, side)?;
    if !settings.verbs.contains(&verb) {
        return Err(Refusal::MethodNotAllowed);
    }
    let limit = settings.body_max;
    if matches!(head.body, BodyLength::Counted(length) if length > limit) {
        return Err(Refusal::BodyTooLarge { limit });
    }
    let name = name.ok_or(Refusal::UnknownHost)?;
    let public = world.settings.names.get(name).ok_or(Refusal::UnknownHost)?;
    let scene = Scene {
        head,
        vdir,
        verb,
        settings,
        name,
        runtime,
        world,
        now: (now, bill.time),
    };
    enter(Phase::Auth);
    let offered = rules::offered(settings, public, &world.settings);
    let asker = caller.asker(head, &offered, (now, bill.time))?;
    if settings.logon == VdirLogon::Server || !stands(Guard::Logon) {
        enter(Phase::Route);
        return guest::route(&scene, &caller, bill, out);
    }
    let identity = match who(&asker, world, &mut caller, runtime)? {
        Ok(identity) => identity,
        Err(slow) => return Ok(Admitted::Wait(slow)),
    };
    bill.user = Some(identity.user.clone());
    bill.scheme = Some(identity.scheme);
    enter(Phase::Route);
    let anchored = match scene.anchor(&identity.user, &caller.known.findings)? {
        Ok(anchored) => anchored,
        Err(lookups) => return Ok(Admitted::Wait(Slow::Lookup(identity, lookups))),
    };
    let server = scene.server(&anchored.database, caller.tried)?;
    bill.route = Some(Routed {
        mailbox: anchored.mailbox.clone(),
        database: anchored.database.clone(),
        server: server.clone(),
        reason: anchored.reason,
    });
    let backend = scene.backend(server, &anchored.database)?;
    rules::stays(vdir, public, backend.settings(), &world.settings, side)?;
    let authenticates = backend.settings().authenticates;
    let handoff = &world.handoff;
    let lane = handoff.lane(authenticates, &identity, head.authorization);
    let introduced = introduce(
        head, world, &identity, None, &caller, backend, lane, scene.now,
    )?;
    let (by, shown) = match introduced {
        Ok(introduced) => introduced,
        Err(slow) => return Ok(Admitted::Wait(slow)),
    };
    let permit = scene.permit(
        &identity.user,
        world.settings.limits.requests_per_user,
        backend,
    )?;
    let own_field = shown.field.as_ref();
    let written = passage::write(
        head,
        &Forwarded {
            client: caller.address,
            scheme: caller.scheme,
            authorization: shown.authorization.as_deref(),
            own: handoff.own_header(),
            user: own_field.map(|(name, value)| (*name, value.as_str())),
            route_cookie: world.sealer.as_ref().map(|sealer| sealer.name()),
            anchor: anchored.header.as_deref(),
            verb: scene.verb,
            is_upgrade: scene.is_upgrade(),
        },
        out,
    );
    bill.ledger.server_out = Kinds::of_head(written);
    let proof = caller.memo.answer().map(|lines| Proof(lines.into()));
    Ok(Admitted::Carry(Box::new(Errand {
        server: Arc::clone(backend),
        lane,
        by,
        vdir,
        verb,
        name,
        cookie: scene.affinity(&anchored, server, &identity.user),
        user: Some(identity.user.clone()),
        database: Some(anchored.database),
        is_upgrade: scene.is_upgrade(),
        proof,
        silence: settings.silence,
        body_max: settings.body_max,
        _permit: permit,
        _in_flight: backend.meters(&runtime.metrics).request_started(),
    })))
}

/// What one decision looks at.
struct Scene<'a, 'h, 'b> {
    head: &'a RequestHead<'h, 'b>,
    vdir: Vdir,
    verb: Verb,
    settings: &'a VdirSettings,
    name: usize,
    runtime: &'a Runtime,
    world: &'a Snapshot,
    now: (Instant, SystemTime),
}

impl<'a> Scene<'a, '_, '_> {
    /// The server of the active copy, where it is up and serves the directory.
    fn server(
        &self,
        database: &DatabaseName,
        tried: &[ServerName],
    ) -> Result<&'a ServerName, Refusal> {
        let world = self.world;
        let wards = &world.wards.of(self.vdir);
        routing::home(database, &world.placement, &world.health, wards, tried)
    }

    fn backend(
        &self,
        server: &ServerName,
        database: &DatabaseName,
    ) -> Result<&'a Arc<BackServer>, Refusal> {
        let server = self.world.servers.get(server);
        server.ok_or_else(|| Refusal::NoEligibleCopy {
            database: database.clone(),
            why: "its server is not configured",
        })
    }

    fn permit(
        &self,
        payer: &UserName,
        per_user: usize,
        backend: &BackServer,
    ) -> Result<Permit, Refusal> {
        let quota = Quota {
            per_user,
            per_server: backend.settings().requests_max,
        };
        let admission = &self.runtime.admission;
        admission.admit(payer, backend.name(), quota)
    }

    /// The client asks for a WebSocket, and the directory has them. RFC 6455 section 4.1
    fn is_upgrade(&self) -> bool {
        let wants = |field: Option<&[u8]>| {
            field.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        };
        let names_it = self.head.field("Connection").is_some_and(|value| {
            let mut tokens = value.split(|byte| *byte == b',');
            tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        });
        self.settings.websocket
            && self.verb == Verb::Get
            && names_it
            && wants(self.head.field("Upgrade"))
    }
}

/// The schemes below a directory, in the order of their challenges.
pub(super) fn schemes<'w>(
    world: &'w Snapshot,
    vdir: Vdir,
    name: &'w PublicName,
) -> Cow<'w, [Scheme]> {
    match world.settings.vdirs.get(vdir) {
        Some(settings) => rules::offered(settings, name, &world.settings),
        None => Cow::Borrowed(&[]),
    }
}

/// Header lines of the challenges below a directory, in the server's place.
pub(super) fn challenges(world: &Snapshot, vdir: Vdir, name: usize, is_bindable: bool) -> String {
    let Some(name) = world.settings.names.get(name) else {
        return String::new();
    };
    let schemes = schemes(world, vdir, name);
    world.auth.challenges(&schemes, None, is_bindable).collect()
}

/// Methods a directory takes, as `Allow` lists them. RFC 9110 section 10.2.1
pub(super) fn allowed(world: &Snapshot, vdir: Vdir) -> String {
    let settings = world.settings.vdirs.get(vdir);
    let verbs = settings.map_or(&[][..], |settings| &settings.verbs);
    let words: Vec<_> = verbs.iter().map(|verb| verb.as_str()).collect();
    words.join(", ")
}

pub(super) fn note(head: &RequestHead<'_, '_>, asked: (Vdir, Verb), bill: &mut Bill<'_>) {
    bill.vdir = Some(asked);
    let agent = head.user_agent.unwrap_or_default();
    bill.keep_texts([
        &[],
        &[],
        &[],
        head.host.as_bytes(),
        agent,
        head.client_application.unwrap_or(agent),
        head.target.path.as_bytes(),
    ]);
}

/// A request whose mailbox nobody here can tell.
const NOBODYS: &str = "";

fn nobodys() -> (MailboxId, DatabaseName) {
    (MailboxId::new(NOBODYS), DatabaseName::new(NOBODYS))
}
