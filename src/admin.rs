//! The administrator's door: metrics, status, reload, drain.
//!
//! Whoever reaches its address may read everything and reload; it listens on loopback unless the
//! configuration says otherwise. It changes nothing that the configuration does not say.

mod door;
mod gate;
mod page;
mod report;
mod status;
mod usage;

pub use door::Door;
pub use status::Status;

use crate::auth::canonical;
use crate::explain::{self, Health};
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::upkeep::Reloader;
use async_trait::async_trait;
use gate::{Ask, Denied};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::sync::Notify;
use tracing::info;
use usage::Question;

/// What answers at the administrator's door.
#[derive(Debug)]
pub struct Admin {
    runtime: Arc<Runtime>,
    reloader: Reloader,
    drain: Arc<Notify>,
}

impl Admin {
    /// Answers for this process. `drain` is rung when an administrator asks us to leave.
    pub fn new(runtime: Arc<Runtime>, reloader: Reloader, drain: Arc<Notify>) -> Self {
        Self {
            runtime,
            reloader,
            drain,
        }
    }

    async fn answer(&self, ask: Ask, uri: &Uri) -> Response<Vec<u8>> {
        match ask {
            Ask::Page => {
                let heaviest = page::Heaviest::of(&self.runtime.usage);
                answer(200, HTML, page::page(&self.status(), &heaviest))
            }
            Ask::Metrics => answer(200, Metrics::CONTENT_TYPE, self.runtime.metrics.render()),
            Ask::Live => answer(200, TEXT, "alive\n"),
            Ask::Ready if self.runtime.is_ready() => answer(200, TEXT, "ready\n"),
            Ask::Ready => answer(503, TEXT, format!("{}\n", report::not_ready(&self.runtime))),
            Ask::Status => json(200, &self.status()),
            Ask::Explain => self.explain(uri.query().unwrap_or_default()).await,
            Ask::Probes => json(200, &report::probes(&self.runtime)),
            Ask::Usage => self.usage(uri.query().unwrap_or_default()),
            Ask::Reload => {
                info!("reload asked for at the admin address");
                let outcome = self.reloader.request().await;
                json(if outcome.is_ok { 200 } else { 422 }, &outcome)
            }
            Ask::Drain => {
                info!("drain asked for at the admin address");
                self.drain.notify_one();
                answer(202, TEXT, "draining\n")
            }
            Ask::Revoke => self.revoke(uri.query().unwrap_or_default()),
        }
    }

    /// What would become of somebody's request in this configuration, and why.
    #[expect(
        clippy::disallowed_methods,
        reason = "a door asks the clock for the rooms below"
    )]
    async fn explain(&self, query: &str) -> Response<Vec<u8>> {
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(known, _)| *known == name)?;
            decoded(value)
        };
        let Some(subject) = value("subject") else {
            let words = "say `subject`: a URL, a user or a MailboxId; name, client, capability, from and user may be said\n";
            return answer(400, TEXT, words);
        };
        let words = ["name", "client", "capability", "from", "user"].map(value);
        let [name, client, capability, from, user] = &words;
        let question = explain::Question::read(explain::Typed {
            subject: &subject,
            name: name.as_deref(),
            client: client.as_deref(),
            capability: capability.as_deref(),
            from: from.as_deref(),
            user: user.as_deref(),
        });
        let question = match question {
            Ok(question) => question,
            Err(words) => return answer(400, TEXT, format!("{words}\n")),
        };
        let world = self.runtime.snapshot();
        match explain::explain(&world, &question, Health::Watched, Instant::now()).await {
            Ok(explanation) => json(200, &explanation),
            Err(trouble) => answer(503, TEXT, format!("{trouble}\n")),
        }
    }

    /// Who used how much.
    fn usage(&self, query: &str) -> Response<Vec<u8>> {
        if !self.runtime.usage.is_on() {
            let words = "nobody is listed: accounting.usage_entries is 0\n";
            return answer(404, TEXT, words);
        }
        match Question::read(query) {
            Ok(question) => json(200, &question.answer(&self.runtime.usage)),
            Err(words) => answer(400, TEXT, format!("{words}\n")),
        }
    }

    /// Forgets what is believed of one user, or, where nothing is said, of everybody. What is said and not
    /// understood was perhaps to spare the others.
    fn revoke(&self, query: &str) -> Response<Vec<u8>> {
        let world = self.runtime.snapshot();
        let auth = &world.auth;
        if query.is_empty() {
            auth.revoke_all();
            info!("credentials of everybody revoked");
            return answer(200, TEXT, "everybody is verified anew\n");
        }
        let name = query
            .strip_prefix("user=")
            .filter(|name| !name.contains('&'));
        let Some(name) = name else {
            let words = "`user` may be said, once; without a query everybody is verified anew\n";
            return answer(400, TEXT, words);
        };
        let basic = world.settings.auth.basic.as_ref();
        let domain = basic.and_then(|basic| basic.default_domain.as_deref());
        let Some(user) = decoded(name).and_then(|name| canonical(&name, domain)) else {
            return answer(400, TEXT, "this is no user name\n");
        };
        if !auth.revoke(&user) {
            return answer(404, TEXT, "nothing is known of this user\n");
        }
        info!(%user, "credentials revoked");
        answer(200, TEXT, "the user is verified anew\n")
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a door asks the clock for the rooms below"
    )]
    fn status(&self) -> Status {
        report::status(
            &self.runtime,
            &self.reloader,
            Instant::now(),
            SystemTime::now(),
        )
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        match gate::read(&head.method, head.uri.path(), &head.headers) {
            Ok(ask) => {
                let uri = head.uri.clone();
                self.answer(ask, &uri).await
            }
            Err(Denied {
                status,
                allow,
                words,
            }) => {
                let mut refused = answer(status, TEXT, format!("{words}\n"));
                if let Some(allow) = allow {
                    refused
                        .headers_mut()
                        .insert(ALLOW, HeaderValue::from_static(allow));
                }
                refused
            }
        }
    }
}

fn json(status: u16, value: &impl serde::Serialize) -> Response<Vec<u8>> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            answer(status, "application/json", body)
        }
        Err(error) => answer(500, TEXT, format!("{error}\n")),
    }
}

fn answer(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Response<Vec<u8>> {
    let body = body.into();
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in SAFE {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Undoes percent signs and plus signs; `None` where the result is not text.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// What a browser is to make of our answers: nothing but what they say they are.
const SAFE: [(&str, &str); 3] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'",
    ),
];

#[cfg(test)]
mod tests;
