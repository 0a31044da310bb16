//! One connection to a simulated server: request after request, each with its identity.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::answers::{Payload, Reply, health_page};
use super::authenticator::{Judged, Who};
use super::delivery::{self, Then};
use super::faults::{Ending, Fault, Place};
use super::http::{Head, Inbound, NoHead};
use super::requests::{Asked, Outcome};
use super::{HealthPage, Server};
use crate::ids::UserName;
use crate::lab::wire::Wire;
use crate::mapi::{Endpoint, Flavour, RequestType};
use crate::rpch::Verb;

/// What one connection remembers.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    number: u64,
    pub(super) inbound: Inbound,
    pub(super) who: Who,
    /// A request of Outlook Anywhere that is to be answered next.
    channel: Option<Box<Head>>,
}

/// Serves a connection to its end.
pub(super) async fn serve(server: Arc<Server>, tcp: TcpStream, number: u64) {
    let _ = tcp.set_nodelay(true);
    let on_accept = server.faults.lock().take_on_accept();
    let wire = match on_accept {
        Some(Fault::End(Ending::Reset, _)) => return Wire::Plain(tcp).reset(),
        Some(_) => return,
        None => match &server.options.tls {
            None => Wire::Plain(tcp),
            Some(config) => match TlsAcceptor::from(Arc::clone(config)).accept(tcp).await {
                Ok(tls) => Wire::Tls(Box::new(tls.into())),
                Err(_) => return server.counts.tls_failed(),
            },
        },
    };
    let mut connection = Connection {
        server,
        number,
        inbound: Inbound::new(wire),
        who: Who::default(),
        channel: None,
    };
    loop {
        if let Some(head) = connection.channel.take() {
            let spoken = connection.server.rpc.speak(connection.inbound, &head);
            let Ok(Some(inbound)) = spoken.await else {
                return;
            };
            connection.inbound = inbound;
        }
        match connection.exchange().await {
            Ok(Then::Go) => {}
            Ok(Then::End(Ending::Close)) | Err(_) => {
                use tokio::io::AsyncWriteExt as _;
                let _ = connection.inbound.wire.shutdown().await;
                return;
            }
            Ok(Then::End(Ending::Reset)) => return connection.inbound.wire.reset(),
        }
    }
}

impl Connection {
    async fn exchange(&mut self) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let flavour = server.options.flavour;
        let head = match self.inbound.head(server.options.idle_timeout).await {
            Ok(head) => head,
            Err(NoHead::Closed) => return Ok(Then::End(Ending::Close)),
            Err(NoHead::Idle) => {
                if flavour == Flavour::Gromox {
                    let words = delivery::timed_out(flavour);
                    server.send(&mut self.inbound, &words).await?;
                }
                return Ok(Then::End(Ending::Close));
            }
            Err(NoHead::Malformed) => return self.say("400 Bad Request", "Bad Request").await,
            Err(NoHead::TargetTooLong) => {
                return self.say("414 URI Too Long", "URI Too Long").await;
            }
        };
        server.record(&head);

        let is_channel = Verb::read(head.method.as_bytes()).is_some();
        if is_channel && server.options.outlook_anywhere {
            self.channel = Some(Box::new(head));
            return Ok(Then::Go);
        }
        if let Some(dialect) = Self::is_autodiscover(&head) {
            return self.autodiscover(&head, dialect).await;
        }
        if Self::is_web(&head) {
            let then = self.web(&head).await?;
            return Ok(match then {
                Then::Go if head.closes() => Then::End(Ending::Close),
                then => then,
            });
        }
        let (endpoint, kind) = match self.destination(&head) {
            Ok(destination) => destination,
            Err(reply) => {
                // Bodies of requests nobody serves are not waited for.
                let mut reply = *reply;
                reply.closes |= head.closes() || has_body(&head);
                return server.deliver(&mut self.inbound, reply, None).await;
            }
        };
        server.counts.request(kind, head.raw.len());

        let fault = server.faults.lock().take_for(kind);
        match fault {
            Some(Fault::AnswerEarly) => {
                let reply = delivery::status(413, flavour);
                return server.deliver(&mut self.inbound, reply, None).await;
            }
            Some(Fault::End(ending, Place::MidRequest)) => {
                // Some of the body, so that the request is surely cut in the middle.
                if has_body(&head) && self.inbound.ahead() == 0 {
                    self.inbound.more().await?;
                }
                return Ok(Then::End(ending));
            }
            _ => {}
        }

        let body = match self.body(&head).await? {
            Ok(body) => body,
            Err((status, words)) => return self.say(status, words).await,
        };
        server.counts.body(body.len());

        let shows_certificate = self.inbound.wire.shows_certificate();
        let user = match self.who.user(&server, &head, shows_certificate).await {
            Judged::User(user) => user,
            Judged::Nobody => {
                let reply = Reply::challenge(&server.options);
                return server.deliver(&mut self.inbound, reply, None).await;
            }
            Judged::More(token) => {
                let mut reply = Reply::challenge(&server.options);
                reply
                    .headers
                    .retain(|(name, _)| *name != "WWW-Authenticate");
                reply
                    .headers
                    .push(("WWW-Authenticate", format!("NTLM {token}")));
                return server.deliver(&mut self.inbound, reply, None).await;
            }
        };
        let owner = head
            .mailbox()
            .and_then(|id| server.options.owners.get(&id).cloned());
        if owner.is_some_and(|owner| owner != user) {
            server.counts.crossed();
        }
        if let Some(Fault::Status(code)) = fault {
            let reply = delivery::status(code, flavour);
            return server.deliver(&mut self.inbound, reply, None).await;
        }

        let asked = Asked {
            head: &head,
            endpoint,
            kind,
            body: &body,
            user: &user,
            connection: self.number,
        };
        let then = match server.answer(&asked)? {
            Outcome::Reply(reply) => server.deliver(&mut self.inbound, reply, fault).await?,
            Outcome::Late(late) => server.deliver_late(&mut self.inbound, late, fault).await?,
            Outcome::Held {
                begun,
                visit,
                in_flight,
            } => {
                server
                    .hold(&mut self.inbound, begun, visit, in_flight, fault)
                    .await?
            }
        };
        match then {
            Then::Go if head.closes() => Ok(Then::End(Ending::Close)),
            then => Ok(then),
        }
    }

    pub(super) async fn say(&mut self, status: &str, words: &str) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let reply = Reply::plain(status, words, server.options.flavour, true);
        server.deliver(&mut self.inbound, reply, None).await
    }

    /// Where a request goes, or the page it gets instead.
    fn destination(&self, head: &Head) -> Result<(Endpoint, RequestType), Box<Reply>> {
        let options = &self.server.options;
        let flavour = options.flavour;
        let not_found = || Box::new(Reply::plain("404 Not Found", "Not Found", flavour, false));
        let path = head.target.split('?').next().unwrap_or_default();
        if head.method == "GET" && path.eq_ignore_ascii_case("/mapi/healthcheck.htm") {
            return Err(match self.server.health_page() {
                HealthPage::Served => Box::new(health_page(&options.name, flavour)),
                HealthPage::Failing => Box::new(delivery::status(500, flavour)),
                HealthPage::Missing => not_found(),
            });
        }
        let target = head.target.to_ascii_lowercase();
        let endpoint = Endpoint::ALL.into_iter().find(|endpoint| match flavour {
            // A prefix, nothing cleverer: no other order of parameters, no missing slash.
            Flavour::Gromox => target.starts_with(&format!("{}?mailboxid=", endpoint.path())),
            Flavour::Exchange => path
                .trim_end_matches('/')
                .eq_ignore_ascii_case(endpoint.path().trim_end_matches('/')),
        });
        let is_served = head.method == "POST" && options.mapi_http;
        let has = |endpoint: &Endpoint| *endpoint != Endpoint::Nspi || options.address_book;
        let Some(endpoint) = endpoint.filter(|endpoint| is_served && has(endpoint)) else {
            return Err(not_found());
        };
        if head.mailbox().is_none() {
            let mut reply = Reply::plain("400 Bad Request", "", flavour, false);
            set_empty(&mut reply);
            return Err(Box::new(reply));
        }
        let kind = head
            .header("x-requesttype")
            .map_or(RequestType::Missing, RequestType::read);
        Ok((endpoint, kind))
    }

    /// The request's body, or the status and words it is refused with.
    pub(super) async fn body(
        &mut self,
        head: &Head,
    ) -> io::Result<Result<Vec<u8>, (&'static str, &'static str)>> {
        let server = Arc::clone(&self.server);
        let flavour = server.options.flavour;
        let limit = server.options.body_max;
        if head.header("transfer-encoding").is_some() {
            if flavour == Flavour::Gromox {
                return Ok(Err(("400 Bad Request", "Bad Request")));
            }
            self.go_on(head).await?;
            return Ok(self
                .inbound
                .chunked_body(limit)
                .await?
                .ok_or(("400 Bad Request", "Bad Request")));
        }
        // The last of several wins, as in gromox: whoever forwards two lets requests be smuggled.
        let Some(length) = head.last("content-length") else {
            return Ok(match flavour {
                Flavour::Gromox => Ok(Vec::new()),
                Flavour::Exchange => Err(("411 Length Required", "Length Required")),
            });
        };
        let Some(length) = std::str::from_utf8(length)
            .ok()
            .and_then(|digits| digits.trim().parse::<usize>().ok())
        else {
            return Ok(Err(("400 Bad Request", "Bad Request")));
        };
        if length > limit {
            return Ok(Err((
                "413 Request Entity Too Large",
                "Request Entity Too Large",
            )));
        }
        self.go_on(head).await?;
        Ok(Ok(self.inbound.body(length).await?))
    }

    /// Exchange lets a waiting client go on; gromox does not, and the client's patience decides.
    async fn go_on(&mut self, head: &Head) -> io::Result<()> {
        let server = Arc::clone(&self.server);
        if server.options.flavour == Flavour::Exchange && head.header("expect").is_some() {
            server
                .send(&mut self.inbound, b"HTTP/1.1 100 Continue\r\n\r\n")
                .await?;
        }
        Ok(())
    }
}

/// User, lower case, and password of Basic credentials.
pub(in crate::lab) fn read_basic(authorization: &str) -> Option<(UserName, String)> {
    let (scheme, credentials) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(credentials.trim())
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    if user.is_empty() {
        return None;
    }
    Some((
        UserName::new(user.to_ascii_lowercase()),
        password.to_owned(),
    ))
}

fn has_body(head: &Head) -> bool {
    head.header("transfer-encoding").is_some()
        || head
            .last("content-length")
            .is_some_and(|length| length != b"0")
}

fn set_empty(reply: &mut Reply) {
    reply
        .headers
        .retain(|(name, _)| !matches!(*name, "Content-Length" | "Content-Type"));
    reply.headers.push(("Content-Length", "0".to_owned()));
    reply.body = Payload::Counted(Vec::new());
}
