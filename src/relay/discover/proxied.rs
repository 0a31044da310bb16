//! A mailbox server's own answer: asked for, read whole, changed.

use super::whose::{Errand, Scene, told};
use super::{Asking, HTML, Reply, XML};
use crate::accounting::{Kind, Wire};
use crate::admission::Quota;
use crate::auth::handoff::Shown;
use crate::auth::{Identity, Memo};
use crate::autodiscover::{
    ANSWER_MAX, Dialect, Filter, authority_of, filter, host_of, with_authority,
};
use crate::backend::{BackServer, ConnectError, Leg};
use crate::config::settings::BackendIdentity;
use crate::health::Observation;
use crate::ids::ServerName;
use crate::metrics::{ConnectOutcome, LegSide, Outcome, RetryReason, Told};
use crate::refusal::Refusal;
use crate::relay::admit::Caller;
use crate::relay::answer;
use crate::relay::bill::{Bill, Routed};
use crate::relay::head::{Fields, RequestHead, finish, line};
use crate::relay::public::is_back_end;
use crate::relay::slow::{Known, Slow};
use crate::runtime::Runtime;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Fields that go on. Nothing that says who somebody is or where to go, and no wish for compression.
const PASSED: [&str; 7] = [
    "Host",
    "User-Agent",
    "Content-Type",
    "SOAPAction",
    "X-ClientCanHandle",
    "Accept-Language",
    "client-request-id",
];

/// The head a server gets, but for who asks, its length and its end.
pub(super) fn head(head: &RequestHead<'_, '_>, dialect: Dialect, caller: &Caller<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"POST ");
    out.extend_from_slice(dialect.path().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for name in PASSED {
        if let Some(value) = head.field(name) {
            line(&mut out, name.as_bytes(), value);
        }
    }
    line(&mut out, b"X-Forwarded-For", caller.address.as_bytes());
    line(&mut out, b"X-Forwarded-Proto", caller.scheme.as_bytes());
    out
}

/// Asks the server that holds the active copy, and changes its answer.
///
/// # Errors
/// It cannot be reached, fails, or answers what no client may see.
pub(super) async fn ask(
    scene: &Scene<'_>,
    errand: Errand,
    asking: Asking,
    body: &[u8],
    runtime: &Runtime,
    bill: &mut Bill<'_>,
) -> Result<Reply, Refusal> {
    let world = scene.world;
    let server = eligible(scene, &errand)?;
    bill.route = Some(Routed {
        mailbox: crate::ids::MailboxId::new(errand.mailbox.as_str()),
        database: errand.database.clone(),
        server: server.name().clone(),
        reason: "active_copy",
    });
    let limits = &world.settings.limits;
    let quota = Quota {
        per_user: limits.requests_per_user,
        per_server: server.settings().requests_max,
    };
    // The one for reading is given back first: a user who may have one request may have this one.
    drop(asking.permit);
    let _permit = runtime
        .admission
        .admit(&asking.identity.user, server.name(), quota)?;
    let _in_flight = server.meters(&runtime.metrics).request_started();
    let mut request = asking.head;
    // A server that believes the client capable leaves out what the client is to use instead.
    if let (Some(_), Some(number)) = (errand.offer.mapi_http, scene.client.mapi_http) {
        let number = number.to_string();
        line(&mut request, b"X-MapiHttpCapability", number.as_bytes());
    }
    let original = asking.authorization.as_ref().map(|value| value.as_slice());
    let authenticates = server.settings().authenticates;
    let lane = world
        .handoff
        .lane(authenticates, &asking.identity, original);
    let shown = world
        .handoff
        .show(&asking.identity.user, original, server.name(), bill.time)
        .map_err(|why| Refusal::NotHandedOn(why.to_string().into()))?;
    // A ticket signs a connection on: it is for a new one.
    let is_new = shown.is_none();
    let shown = match shown {
        Some(shown) => shown,
        None => {
            let slow = Slow::Ticket(Arc::clone(&asking.identity), Arc::clone(server));
            let mut known = Known::default();
            known
                .learn(slow, &mut Memo::default(), runtime, world, bill)
                .await?;
            let ticket = known.ticket.as_ref().map(|(_, ticket)| ticket);
            Shown::by_ticket(ticket.ok_or(Refusal::TooBusy("ticket"))?)
        }
    };
    if let Some(value) = &shown.authorization {
        line(&mut request, b"Authorization", value);
    }
    if let Some((field, value)) = &shown.field {
        line(&mut request, field.as_bytes(), value.as_bytes());
    }
    finish(body.len() as u64, &mut request);
    bill.ledger
        .server_out
        .add(Kind::Headers, request.len() as u64);
    bill.ledger.server_out.add(Kind::Payload, body.len() as u64);
    request.extend_from_slice(body);
    let asked = Asked {
        server,
        lane,
        is_new,
        connect_timeout: limits.connect_timeout,
        runtime,
    };
    let patience = limits.first_byte_timeout.min(PATIENCE);
    let answered = tokio::time::timeout(patience, asked.ask(&request, bill)).await;
    let answered = answered.unwrap_or_else(|_elapsed| {
        runtime.observe(server.name(), Observation::Deadline);
        Err(Refusal::ServerSilent {
            server: server.name().clone(),
        })
    })?;
    runtime.observe_answered(server.name());
    reply(
        scene,
        &errand,
        server.name(),
        answered,
        &asking.identity,
        bill,
    )
}

/// The server of the active copy, where it is up.
fn eligible<'a>(scene: &Scene<'a>, errand: &Errand) -> Result<&'a Arc<BackServer>, Refusal> {
    let refused = |why| Refusal::NoEligibleCopy {
        database: errand.database.clone(),
        why,
    };
    let world = scene.world;
    let active = world.placement.active(&errand.database);
    let why = || world.placement.homes().why_homeless(&errand.database);
    let active = active.ok_or_else(|| refused(why()))?;
    if !world.health.is_eligible(active) {
        let why = world.health.reason(active);
        return Err(refused(
            why.unwrap_or("the server of the active copy is down"),
        ));
    }
    let server = world.servers.get(active);
    server.ok_or_else(|| refused("its server is not configured"))
}

/// A server's answer, whole.
struct Answered {
    status: u16,
    location: Option<String>,
    is_packed: bool,
    body: Vec<u8>,
}

struct Asked<'a> {
    server: &'a BackServer,
    lane: Option<u128>,
    /// No kept connection will do.
    is_new: bool,
    connect_timeout: Duration,
    runtime: &'a Runtime,
}

impl Asked<'_> {
    /// Asks on a kept connection, and where that fails, on a new one: the question changes nothing, so it
    /// may be asked twice.
    async fn ask(&self, request: &[u8], bill: &mut Bill<'_>) -> Result<Answered, Refusal> {
        let kept = match self.is_new {
            true => None,
            false => self.server.reuse(self.lane, bill.began),
        };
        if let Some(leg) = kept {
            bill.tries += 1;
            bill.server_reused = true;
            if let Ok(answered) = self.exchange(leg, request, bill).await {
                return answered;
            }
            bill.server_reused = false;
            let metrics = &self.runtime.metrics;
            metrics.retried(RetryReason::StaleConnection);
        }
        bill.tries += 1;
        let name = self.server.name();
        let leg = self.connect().await?;
        let outcome = self.exchange(leg, request, bill).await;
        outcome.unwrap_or_else(|error| {
            self.runtime.observe(name, Observation::Reset);
            Err(Refusal::ServerFailed {
                server: name.clone(),
                written: request.len() as u64,
                cause: error.to_string(),
            })
        })
    }

    async fn connect(&self) -> Result<Leg, Refusal> {
        let metrics = &self.runtime.metrics;
        let meters = self.server.meters(metrics);
        let unbilled = metrics.unbilled(LegSide::Server);
        let error = match Box::pin(self.server.connect(self.connect_timeout, unbilled)).await {
            Ok(mut leg) => {
                meters.connected(ConnectOutcome::Ok);
                let handshake = leg.bill(0);
                metrics.bytes_beside(LegSide::Server, Kind::Handshake, handshake);
                return Ok(leg);
            }
            Err(error) => error,
        };
        let (observation, outcome) = match &error {
            ConnectError::Deadline(_) => (Observation::Deadline, ConnectOutcome::Timeout),
            ConnectError::Io(_) => (Observation::Refused, ConnectOutcome::Refused),
            ConnectError::Tls(_) => (Observation::TlsFailed, ConnectOutcome::Tls),
        };
        meters.connected(outcome);
        if error.is_ours() {
            return Err(Refusal::TooBusy("no descriptor for a connection"));
        }
        self.runtime.observe(self.server.name(), observation);
        Err(Refusal::ServerUnreachable {
            server: self.server.name().clone(),
            cause: error.to_string(),
        })
    }

    /// One question and its answer. The outer error is the connection's, the inner one the answer's.
    async fn exchange(
        &self,
        mut leg: Leg,
        request: &[u8],
        bill: &mut Bill<'_>,
    ) -> io::Result<Result<Answered, Refusal>> {
        if !leg.carry(self.lane) {
            self.runtime.metrics.identity_fence_tripped();
            tracing::error!(server = %self.server.name(), "identity fence tripped: connection dropped");
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let sent = now();
        bill.sent = Some(sent);
        leg.write_all(request).await?;
        leg.flush().await?;
        let mut bytes = Vec::with_capacity(4096);
        let answered = loop {
            match self.read(&bytes) {
                Ok(Some((answered, is_clean))) => break Ok((answered, is_clean)),
                Err(what) => break Err(what),
                Ok(None) => {}
            }
            if bytes.len() > ANSWER_MAX + answer::HEAD_MAX {
                break Err("larger than an answer of Autodiscover");
            }
            let read = leg.read_buf(&mut bytes).await?;
            bill.first_byte
                .get_or_insert_with(|| now().saturating_duration_since(sent));
            if read == 0 {
                match self.ended(&bytes) {
                    Some(answered) => break Ok((answered, false)),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        };
        bill.fit_server(&mut leg);
        Ok(match answered {
            Ok((answered, is_clean)) => {
                if is_clean {
                    self.server.give_back(leg, self.lane, now());
                }
                Ok(answered)
            }
            Err(what) => Err(Refusal::ServerNonsense {
                server: self.server.name().clone(),
                what,
            }),
        })
    }

    /// The answer in these bytes, and whether the connection may carry another; `None`: more is to come.
    fn read(&self, mut bytes: &[u8]) -> Result<Option<(Answered, bool)>, &'static str> {
        loop {
            let mut room = Fields::new();
            let flavour = self.server.settings().flavour;
            let Some(head) = answer::read(bytes, flavour, &mut room)? else {
                return Ok(None);
            };
            let rest = bytes.get(head.length..).unwrap_or_default();
            if head.status < 200 {
                bytes = rest;
                continue;
            }
            let (mut left, mut body) = (head.body, Vec::new());
            let taken = left
                .follow(rest, |run| body.extend_from_slice(run))
                .map_err(|bad| bad.0)?;
            if !left.is_done() {
                return Ok(None);
            }
            let is_clean = head.leaves_it_to_others(true) && taken.wire == rest.len();
            return Ok(Some((answered(&head, body), is_clean)));
        }
    }

    /// The answer of a server that ended the connection to end it.
    fn ended(&self, bytes: &[u8]) -> Option<Answered> {
        let mut room = Fields::new();
        let flavour = self.server.settings().flavour;
        let head = answer::read(bytes, flavour, &mut room).ok().flatten()?;
        let is_until_close = head.body == crate::mapi::framing::Body::UntilClose;
        let body = bytes.get(head.length..).unwrap_or_default().to_vec();
        is_until_close.then(|| answered(&head, body))
    }
}

fn answered(head: &answer::AnswerHead<'_, '_>, body: Vec<u8>) -> Answered {
    let text = |name: &str| {
        let value = head.field(name)?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    };
    Answered {
        status: head.status,
        location: text("Location"),
        is_packed: text("Content-Encoding").is_some_and(|coding| coding != "identity"),
        body,
    }
}

/// What of a server's answer a client gets.
fn reply(
    scene: &Scene<'_>,
    errand: &Errand,
    server: &ServerName,
    answered: Answered,
    identity: &Identity,
    bill: &mut Bill<'_>,
) -> Result<Reply, Refusal> {
    bill.outcome = match answered.status {
        200 => Outcome::Ok,
        _ => Outcome::Status,
    };
    let nonsense = |what| Refusal::ServerNonsense {
        server: server.clone(),
        what,
    };
    let is_back_end = |host: &str| is_back_end(host, &scene.world.settings);
    let urls = scene.urls(&errand.database);
    match answered.status {
        401 => match &scene.world.settings.backend_identity {
            BackendIdentity::Passthrough => {
                // The server knows another password by now: what we remember is stale.
                scene.world.auth.revoke(&identity.user);
                return Err(Refusal::Unauthenticated("the mailbox server refused"));
            }
            _ => return Err(nonsense("our service account was refused")),
        },
        // A server's word to its front end.
        555 => {
            return Err(Refusal::NoEligibleCopy {
                database: errand.database.clone(),
                why: "its server says that the mailbox is elsewhere",
            });
        }
        301 | 302 | 303 | 307 | 308 => {
            let location = answered
                .location
                .ok_or_else(|| nonsense("a redirect to nowhere"))?;
            let location = match is_back_end(host_of(&location)) {
                true => with_authority(&location, authority_of(urls.internal)),
                false => location,
            };
            return Ok(Reply {
                status: answered.status,
                content_type: HTML,
                location: Some(location),
                body: Vec::new(),
                told: Told::Elsewhere,
            });
        }
        _ => {}
    }
    if answered.is_packed {
        return Err(nonsense("packed, though nobody asked for it"));
    }
    let with = Filter {
        offer: errand.offer,
        urls,
        is_back_end: &is_back_end,
    };
    match filter(&answered.body, &with) {
        Ok(body) => Ok(Reply {
            status: answered.status,
            content_type: XML,
            location: None,
            body,
            told: told(&errand.offer),
        }),
        Err(wrong) if answered.status == 200 => {
            tracing::debug!(%server, %wrong, dialect = errand.dialect.as_str(), "autodiscover answer not understood");
            Err(nonsense("its Autodiscover answer is not understood"))
        }
        // The page behind an error tells of the server's inside.
        Err(_) => Ok(Reply {
            status: answered.status,
            content_type: HTML,
            location: None,
            body: Vec::new(),
            told: Told::Fault,
        }),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "times of the phases are read where the phases change"
)]
fn now() -> Instant {
    Instant::now()
}

/// Outlook waits 25 s for Autodiscover; it is to hear from us before.
const PATIENCE: Duration = Duration::from_secs(20);
