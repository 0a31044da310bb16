//! Autodiscover at the door: who asks, for whom, and what the answer is.
//!
//! The whole request is read before anything is decided, because what is asked stands in its body. Nobody
//! learns more of another's mailbox than the site lets him open: an address that does not exist and one that
//! is not his business get the same answer, and no server is asked about either.

mod proxied;
mod whose;

use super::admit::{Admitted, Caller, Shape, who};
use super::bill::Bill;
use super::connection::{Connection, Next, Stop, Stream, after};
use super::head::{BodyLength, Method, RequestHead, line};
use super::public::place;
use super::refuse::{Manner, end, status_line};
use crate::accounting::Phase;
use crate::accounting::meter::enter;
use crate::admission::{Permit, Quota};
use crate::auth::Identity;
use crate::autodiscover::json::{JsonRequest, Services};
use crate::autodiscover::{Client, Dialect, REQUEST_MAX, Wrong};
use crate::autodiscover::{pox, soap};
use crate::buffers::Scratch;
use crate::config::settings::{AutodiscoverMode, PublicName};
use crate::ids::ServerName;
use crate::ldap::Findings;
use crate::metrics::{Outcome, Told};
use crate::refusal::Refusal;
use crate::runtime::{Runtime, Snapshot};
use std::sync::Arc;
use std::time::Instant;
use whose::{Question, Verdict};
use zeroize::Zeroizing;

/// An Autodiscover request whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Inquiry {
    dialect: Dialect,
    kind: Kind,
    /// Which of the configured names was asked for.
    name: usize,
    client: Client,
}

/// What is to be done with it.
#[derive(Debug)]
enum Kind {
    /// The answer is known.
    Known(Reply),
    /// Its body decides.
    Body(Asking),
}

/// Who asks, and what a server would be told of the request.
#[derive(Debug)]
struct Asking {
    identity: Arc<Identity>,
    /// The head a server gets, but for its length and end.
    head: Vec<u8>,
    /// Bodies take memory, and one user has so many requests and no more.
    permit: Permit,
    /// What the client showed, where servers are shown the same.
    authorization: Option<Zeroizing<Vec<u8>>>,
}

/// An answer as a whole.
#[derive(Debug)]
struct Reply {
    status: u16,
    content_type: &'static str,
    location: Option<String>,
    body: Vec<u8>,
    told: Told,
}

impl Reply {
    fn xml(body: impl Into<Vec<u8>>, told: Told) -> Self {
        Self {
            status: 200,
            content_type: XML,
            location: None,
            body: body.into(),
            told,
        }
    }
}

const XML: &str = "text/xml; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "text/html";

/// Times one request has the directory service asked, one after the other. Of SOAP's hundred addresses the rest is told
/// that we are busy: one request must not cost a hundred searches.
const LOOKS_MAX: usize = 16;

/// Judges the head of an Autodiscover request. Nothing of MAPI comes here.
///
/// # Errors
/// Why not; no byte went to a server.
#[cold]
pub(super) fn admit(
    head: &RequestHead<'_, '_>,
    dialect: Dialect,
    name: Option<usize>,
    runtime: &Runtime,
    world: &Snapshot,
    mut caller: Caller<'_>,
    now: Instant,
    bill: &mut Bill<'_>,
) -> Result<Admitted, Refusal> {
    bill.dialect = Some(dialect);
    let agent = head.user_agent.unwrap_or_default();
    bill.keep_texts([&[], &[], &[], head.host.as_bytes(), agent, agent, &[]]);
    let limit = REQUEST_MAX as u64;
    if matches!(head.body, BodyLength::Counted(length) if length > limit) {
        return Err(Refusal::BodyTooLarge { limit });
    }
    let name = name.ok_or(Refusal::UnknownHost)?;
    let public = world.settings.names.get(name).ok_or(Refusal::UnknownHost)?;
    if public.autodiscover == AutodiscoverMode::Off {
        return Err(Refusal::UnknownPath);
    }
    let inquire = |kind| {
        Ok(Admitted::Inquire(Box::new(Inquiry {
            dialect,
            kind,
            name,
            client: Client::read(
                head.field("X-MapiHttpCapability"),
                head.field("X-ClientCanHandle"),
            ),
        })))
    };
    if dialect == Dialect::Json {
        return inquire(Kind::Known(json(head, public, world)?));
    }
    // Whoever asks without TLS is sent to where there is TLS, before he shows a password.
    // [MS-OXDISCO] 3.1.5.4
    if head.method != Method::Post && head.authorization.is_none() && caller.scheme == "http" {
        return inquire(Kind::Known(Reply {
            status: 302,
            content_type: HTML,
            location: Some(format!("https://{}{}", public.host, dialect.path())),
            body: Vec::new(),
            told: Told::Elsewhere,
        }));
    }
    enter(Phase::Auth);
    let asker = caller.asker(head, &public.authentication, (now, bill.time))?;
    let identity = match who(&asker, world, &mut caller, runtime)? {
        Ok(identity) => identity,
        Err(slow) => return Ok(Admitted::Wait(slow)),
    };
    bill.user = Some(identity.user.clone());
    bill.scheme = Some(identity.scheme);
    enter(Phase::Route);
    if head.method != Method::Post {
        // People look with a browser whether somebody is there; there is nothing in the request.
        let body = pox::fault(pox::Fault::InvalidRequest, &time_of_day(bill), number(bill));
        return inquire(Kind::Known(Reply::xml(body, Told::Fault)));
    }
    let quota = Quota {
        per_user: world.settings.limits.requests_per_user,
        per_server: usize::MAX,
    };
    let permit = runtime
        .admission
        .admit(&identity.user, &ServerName::new(""), quota)?;
    let asking = Asking {
        permit,
        head: match public.autodiscover {
            AutodiscoverMode::Proxy => proxied::head(head, dialect, &caller),
            AutodiscoverMode::Answer | AutodiscoverMode::Off => Vec::new(),
        },
        authorization: head
            .authorization
            .map(|value| Zeroizing::new(value.to_vec())),
        identity,
    };
    inquire(Kind::Body(asking))
}

/// V2 JSON is answered by what is configured alone, whoever asks for whomever.
fn json(head: &RequestHead<'_, '_>, name: &PublicName, world: &Snapshot) -> Result<Reply, Refusal> {
    let asked = JsonRequest::read(head.target.mailbox, head.target.query);
    let asked = asked.map_err(Refusal::Malformed)?;
    let settings = &world.settings.autodiscover;
    let services = Services {
        ews: settings.ews_url.as_deref(),
        activesync: settings.activesync_url.as_deref(),
    };
    let (status, body) = asked.answer(&name.host, services);
    Ok(Reply {
        status,
        content_type: JSON,
        location: None,
        body: body.into_bytes(),
        told: match status {
            200 => Told::Elsewhere,
            _ => Told::Fault,
        },
    })
}

impl<S: Stream> Connection<S> {
    /// Reads the rest of the request and answers it.
    ///
    /// # Errors
    /// It cannot be answered, or the client went away.
    pub(super) async fn discover(
        &mut self,
        inquiry: Box<Inquiry>,
        world: &Snapshot,
        runtime: &Runtime,
        shape: Option<Shape>,
        bill: &mut Bill<'_>,
    ) -> Result<Next, Stop> {
        let this = shape.ok_or(Refusal::Malformed("head"))?;
        let Inquiry {
            dialect,
            kind,
            name,
            client,
        } = *inquiry;
        let name = world.settings.names.get(name).ok_or(Refusal::UnknownHost)?;
        let reply = match kind {
            Kind::Known(reply) => reply,
            Kind::Body(asking) => {
                let body = Box::pin(self.whole_body(this, world, bill)).await?;
                enter(Phase::Route);
                let identity = Arc::clone(&asking.identity);
                let mut findings = Findings::default();
                let mut looks = 0;
                match Question::read(dialect, &body) {
                    Err(wrong) => not_a_request(dialect, wrong, bill)?,
                    Ok(question) => loop {
                        let scene = whose::Scene {
                            world,
                            name,
                            client,
                            user: &identity.user,
                            from: place(self.client.ip(), &world.settings),
                            findings: &findings,
                            may_look: looks < LOOKS_MAX,
                            now: bill.began,
                        };
                        match scene.judge(&question, bill) {
                            Ok(Verdict::Say(reply)) => break reply,
                            Ok(Verdict::Ask(errand)) => {
                                let asked =
                                    proxied::ask(&scene, *errand, asking, &body, runtime, bill);
                                break Box::pin(asked).await?;
                            }
                            Ok(Verdict::Look(lookups)) => {
                                looks += 1;
                                let done = Box::pin(lookups.run(&mut findings)).await;
                                done.map_err(|trouble| {
                                    Refusal::DirectoryUnavailable(trouble.words())
                                })?;
                            }
                            Ok(Verdict::Refuse(refusal)) => return Err(refusal.into()),
                            Err(wrong) => break not_a_request(dialect, wrong, bill)?,
                        }
                    },
                }
            }
        };
        runtime.metrics.told(dialect, reply.told);
        if bill.outcome == Outcome::Aborted {
            bill.outcome = Outcome::Local;
        }
        bill.status = reply.status;
        let manner = self.manner(shape, false);
        let mut out = Scratch::new();
        write(&reply, manner, &mut out.0);
        self.finish(&out.0, shape, manner, bill).await
    }

    /// The request's body as a whole. It stays in the input as well, to be passed over with the head.
    async fn whole_body(
        &mut self,
        shape: Shape,
        world: &Snapshot,
        bill: &mut Bill<'_>,
    ) -> Result<Vec<u8>, Stop> {
        let limits = &world.settings.limits;
        let limit = REQUEST_MAX as u64;
        let BodyLength::Counted(length) = shape.body else {
            let measured = self.measure(shape, limits, bill).await?;
            return match measured.payload.len() > REQUEST_MAX {
                true => Err(Refusal::BodyTooLarge { limit }.into()),
                false => Ok(measured.payload),
            };
        };
        // Looked at with the head: it is not more than the limit.
        let length = usize::try_from(length).unwrap_or(REQUEST_MAX);
        self.late.set(after(limits.body_timeout));
        let whole = shape.length..shape.length + length;
        if shape.expects_continue && self.input.data().len() < whole.end {
            self.go_on(bill).await?;
        }
        while self.input.data().len() < whole.end {
            self.more_body().await?;
        }
        Ok(self.input.data().get(whole).unwrap_or_default().to_vec())
    }
}

/// A body that is no request: a number in POX, a fault in SOAP; a body that is too large is refused.
fn not_a_request(dialect: Dialect, wrong: Wrong, bill: &Bill<'_>) -> Result<Reply, Refusal> {
    if let Wrong::TooLarge(limit) = wrong {
        let limit = limit as u64;
        return Err(Refusal::BodyTooLarge { limit });
    }
    tracing::debug!(%wrong, dialect = dialect.as_str(), "autodiscover request not understood");
    Ok(match dialect {
        Dialect::Soap => Reply {
            status: 500,
            ..Reply::xml(soap::fault(&wrong.to_string()), Told::Fault)
        },
        _ => pox_fault(pox::Fault::InvalidRequest, bill),
    })
}

fn pox_fault(fault: pox::Fault, bill: &Bill<'_>) -> Reply {
    let told = match fault {
        pox::Fault::NotFound => Told::NotFound,
        _ => Told::Fault,
    };
    Reply::xml(pox::fault(fault, &time_of_day(bill), number(bill)), told)
}

/// Autodiscover differs by user, client and hour: nobody may keep an answer.
fn write(reply: &Reply, manner: Manner, out: &mut Vec<u8>) {
    status_line(reply.status, out);
    line(out, b"Cache-Control", b"private, no-store");
    if let Some(location) = &reply.location {
        line(out, b"Location", location.as_bytes());
    }
    line(out, b"Content-Type", reply.content_type.as_bytes());
    end(&reply.body, manner, out);
}

/// `HH:MM:SS.fffffff`, as Exchange writes it.
fn time_of_day(bill: &Bill<'_>) -> String {
    let time = time::OffsetDateTime::from(bill.time);
    let (hour, minute, second, nanosecond) = time.to_hms_nano();
    format!("{hour:02}:{minute:02}:{second:02}.{:07}", nanosecond / 100)
}

/// A number by which the request is found: the last letters of its name in the access log, as a number.
fn number(bill: &Bill<'_>) -> u32 {
    u32::try_from(bill.id.0 & 0x7fff_ffff).unwrap_or_default()
}
