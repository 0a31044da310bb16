//! From a request with its body and its user to the answer: the protocol's rules, in each flavour's order.

use std::time::Duration;

use super::address_book::local_and_domain;
use super::answers::{Cookies, Elapsed, Refused, Reply, Success};
use super::contexts::{InFlight, Rules, Visit, Visitor};
use super::execute::Wishes;
use super::http::Head;
use super::journal::Executed;
use super::{Mode, Server};
use crate::ids::{DatabaseName, UserName};
use crate::lab::{digest, hex, unix_micros};
use crate::mapi::bodies::nspi::{BindRequest, BindSuccess, UnbindRequest};
use crate::mapi::bodies::{
    Answer, Body, BodyError, ConnectRequest, ConnectSuccess, DisconnectRequest, EndSuccess,
    ExecuteRequest, NotificationWaitRequest, NotificationWaitSuccess, wide,
};
use crate::mapi::{Endpoint, Flavour, RequestType};

/// The user may not open this mailbox.
const EC_ACCESS_DENIED: u32 = 0x8007_0005;
/// The user has too many contexts.
const EC_LOGIN_FAILURE: u32 = 0x8004_0111;
/// A request is held for this context already. `[MS-OXCRPC] 3.3.4.1`
const EC_REJECTED: u32 = 0x7ee;

/// What a server tells of itself when a mailbox is opened: organisation, client control, endpoint capabilities.
/// `[MS-OXCRPC] 2.2.2.2`
const CAPABILITIES: [u8; 36] = [
    0, 0, 4, 0, 28, 0, 28, 0, // one plain block
    8, 0, 1, 0x17, 3, 0, 0, 0, // AUX_EXORGINFO
    12, 0, 1, 0x0a, 0x0c, 0, 0, 0, 0, 0x84, 0x0c, 0x24, // AUX_CLIENT_CONTROL
    8, 0, 1, 0x48, 1, 0, 0, 0, // AUX_ENDPOINT_CAPABILITIES
];

/// A whole request of a known user.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) head: &'a Head,
    pub(super) endpoint: Endpoint,
    pub(super) kind: RequestType,
    pub(super) body: &'a [u8],
    pub(super) user: &'a UserName,
    pub(super) connection: u64,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// This answer.
    Reply(Reply),
    /// This answer, after a delay in which the context is busy.
    Late(Late),
    /// Held until something happens.
    Held {
        begun: Reply,
        visit: Visit,
        in_flight: InFlight,
    },
}

/// An answer to be given later.
#[derive(Debug)]
pub(super) struct Late {
    /// Its beginning, where the flavour sends one at once.
    pub(super) begun: Reply,
    /// The whole answer.
    pub(super) reply: Reply,
    /// The body by itself.
    pub(super) body: Vec<u8>,
    pub(super) delay: Duration,
    pub(super) _in_flight: InFlight,
}

impl Server {
    /// Answers a request.
    ///
    /// # Errors
    /// When the journal cannot be written: then nothing was executed.
    pub(super) fn answer(&self, asked: &Asked<'_>) -> std::io::Result<Outcome> {
        match self.judged(asked) {
            Ok(outcome) => Ok(outcome),
            Err(Stop::Refused(why)) => Ok(Outcome::Reply(Reply::refused(
                why,
                asked.head,
                &self.options,
            ))),
            Err(Stop::Journal(cause)) => Err(cause),
        }
    }

    fn judged(&self, asked: &Asked<'_>) -> Result<Outcome, Stop> {
        self.headers_are_there(asked)?;
        let known = match asked.endpoint {
            Endpoint::Emsmdb => matches!(
                asked.kind,
                RequestType::Connect
                    | RequestType::Execute
                    | RequestType::NotificationWait
                    | RequestType::Disconnect
                    | RequestType::Ping
            ),
            Endpoint::Nspi => matches!(
                asked.kind,
                RequestType::Bind
                    | RequestType::Unbind
                    | RequestType::QueryRows
                    | RequestType::ResolveNames
                    | RequestType::GetMailboxUrl
                    | RequestType::GetAddressBookUrl
                    | RequestType::Ping
            ),
        };
        match asked.kind {
            RequestType::Connect | RequestType::Bind if known => self.open(asked),
            RequestType::NotificationWait if known => self.wait(asked),
            RequestType::Disconnect | RequestType::Unbind if known => self.close(asked),
            RequestType::Ping => self.ping(asked),
            // Exchange knows its types before it looks at cookies; gromox rotates the sequence first.
            _ if !known && self.options.flavour == Flavour::Exchange => {
                Err(Refused::UnknownType.into())
            }
            _ => self.operate(asked, known),
        }
    }

    fn headers_are_there(&self, asked: &Asked<'_>) -> Result<(), Refused> {
        let needed: &[&str] = match self.options.flavour {
            Flavour::Gromox => &["X-RequestId", "X-ClientInfo"],
            Flavour::Exchange => &["X-RequestId", "X-ClientApplication"],
        };
        if asked.kind == RequestType::Missing {
            return Err(Refused::MissingType);
        }
        match needed.iter().all(|name| asked.head.header(name).is_some()) {
            true => Ok(()),
            false => Err(Refused::MissingHeader),
        }
    }

    fn visitor<'a>(&self, asked: &'a Asked<'_>) -> Result<Visitor<'a>, Refused> {
        let names = self.options.flavour.cookies();
        Ok(Visitor {
            endpoint: asked.endpoint,
            user: asked.user,
            cookie: asked.head.cookie(names.context).ok_or(Refused::NoCookie)?,
            sequence: asked.head.cookie(names.sequence),
        })
    }

    fn open(&self, asked: &Asked<'_>) -> Result<Outcome, Stop> {
        let flavour = self.options.flavour;
        let old = asked.head.cookie(flavour.cookies().context);
        let mailbox = asked.head.mailbox().unwrap_or_default();
        let database = self.database_of(&mailbox);
        if flavour == Flavour::Gromox && asked.head.header("cookie").is_some() {
            // gromox takes any cookie at all for a promise that there is a context.
            self.enter(asked, RULES_OF_OPENING)?;
        }
        if !self.holds(database.as_ref()) {
            return Err(Refused::UnknownContext.into());
        }
        let error_code = match asked.kind {
            RequestType::Connect => {
                let request = ConnectRequest::decode(asked.body)?;
                match self.options.checks_dn && !is_dn_of(&request.user_dn, asked.user) {
                    true => EC_ACCESS_DENIED,
                    false => 0,
                }
            }
            _ => {
                BindRequest::decode(asked.body)?;
                0
            }
        };
        if error_code != 0 {
            return Ok(self.opened(asked, None, error_code));
        }
        if let Some(old) = old {
            self.contexts.close(old);
        }
        let kept = old
            .filter(|_| flavour == Flavour::Gromox)
            .map(ToOwned::to_owned);
        let visit = self.contexts.open(
            asked.endpoint,
            asked.user,
            &mailbox,
            database,
            self.options.contexts_per_user,
            kept,
        );
        let error_code = if visit.is_some() { 0 } else { EC_LOGIN_FAILURE };
        Ok(self.opened(asked, visit.as_ref(), error_code))
    }

    fn opened(&self, asked: &Asked<'_>, visit: Option<&Visit>, error_code: u32) -> Outcome {
        let (local, _) = local_and_domain(asked.user);
        let refused = visit.is_none();
        let body = match asked.kind {
            RequestType::Connect => Answer::Success(ConnectSuccess {
                error_code,
                polls_max: if refused { 0 } else { 60_000 },
                retry_count: if refused { 0 } else { 6 },
                retry_delay: if refused { 0 } else { 10_000 },
                dn_prefix: Vec::new(),
                display_name: wide(if refused { "" } else { local }),
                auxiliary: CAPABILITIES.to_vec(),
            })
            .encode(),
            _ => Answer::Success(BindSuccess {
                error_code,
                server_guid: digest(self.options.name.as_str().as_bytes()),
                auxiliary: Vec::new(),
            })
            .encode(),
        };
        let cookies = if refused {
            Cookies::None
        } else {
            Cookies::Both
        };
        self.done(asked, visit, cookies, body)
    }

    fn ping(&self, asked: &Asked<'_>) -> Result<Outcome, Stop> {
        // Exchange answers a PING that has no context; gromox does not.
        let visitor = self.visitor(asked);
        if visitor.is_err() && self.options.flavour == Flavour::Exchange {
            return Ok(self.done(asked, None, Cookies::None, Vec::new()));
        }
        let (visit, _in_flight) = self.contexts.enter(&visitor?, QUIET)?;
        Ok(self.done(asked, Some(&visit), self.context_alone(), Vec::new()))
    }

    fn wait(&self, asked: &Asked<'_>) -> Result<Outcome, Stop> {
        let (visit, in_flight) = self.contexts.wait(&self.visitor(asked)?)?;
        NotificationWaitRequest::decode(asked.body)?;
        let Some(in_flight) = in_flight else {
            let body = Answer::Success(NotificationWaitSuccess {
                error_code: EC_REJECTED,
                ..NotificationWaitSuccess::default()
            });
            return Ok(self.done(asked, Some(&visit), self.context_alone(), body.encode()));
        };
        let begun = self
            .success(asked, Some(&visit), self.context_alone())
            .begun(&self.options);
        Ok(Outcome::Held {
            begun,
            visit,
            in_flight,
        })
    }

    fn close(&self, asked: &Asked<'_>) -> Result<Outcome, Stop> {
        let rules = Rules {
            rotates: self.options.flavour == Flavour::Exchange,
            ..QUIET
        };
        let (visit, in_flight) = self.contexts.enter(&self.visitor(asked)?, rules)?;
        let (error_code, cookies) = match asked.kind {
            RequestType::Disconnect => {
                DisconnectRequest::decode(asked.body)?;
                (0, Cookies::Both)
            }
            _ => {
                UnbindRequest::decode(asked.body)?;
                (1, self.context_alone())
            }
        };
        drop(in_flight);
        self.contexts.close(&visit.cookie);
        let body = Answer::Success(EndSuccess {
            error_code,
            auxiliary: Vec::new(),
        });
        Ok(self.done(asked, Some(&visit), cookies, body.encode()))
    }

    /// Everything that rotates the sequence: Execute, and the address book's operations.
    fn operate(&self, asked: &Asked<'_>, known: bool) -> Result<Outcome, Stop> {
        let validating = self.options.mode == Mode::Validating;
        let rules = Rules {
            checks_sequence: validating && known,
            rotates: true,
            one_at_a_time: validating,
        };
        let (visit, in_flight) = self.enter(asked, rules)?;
        if !known {
            return Err(Refused::UnknownType.into());
        }
        if !self.holds(visit.database.as_ref()) {
            drop(in_flight);
            self.contexts.close(&visit.cookie);
            return Err(Refused::UnknownContext.into());
        }
        let wishes = wishes(asked.head);
        let body = match asked.kind {
            RequestType::Execute => {
                let request = ExecuteRequest::decode(asked.body)?;
                self.write_down(asked, &visit).map_err(Stop::Journal)?;
                Answer::Success(self.execute(&visit, &request, asked.body, wishes)).encode()
            }
            RequestType::QueryRows => self.query_rows(asked)?,
            RequestType::ResolveNames => self.resolve_names(asked)?,
            _ => self.url(asked, &visit)?,
        };
        let success = self.success(asked, Some(&visit), Cookies::Both);
        let elapsed = Elapsed(wishes.delay);
        let reply = success.done(&self.options, elapsed, body.clone());
        if wishes.delay.is_zero() {
            return Ok(Outcome::Reply(reply));
        }
        Ok(Outcome::Late(Late {
            begun: success.begun(&self.options),
            reply,
            body,
            delay: wishes.delay,
            _in_flight: in_flight,
        }))
    }

    fn write_down(&self, asked: &Asked<'_>, visit: &Visit) -> std::io::Result<()> {
        self.counts.execute();
        if !self.options.writes_journal {
            return Ok(());
        }
        self.options.journal.write(Executed {
            server: self.options.name.clone(),
            nonce: asked
                .head
                .text("X-RequestId")
                .unwrap_or_default()
                .to_owned(),
            user: asked.user.clone(),
            mailbox: visit.mailbox.clone(),
            database: visit.database.clone(),
            context: visit.cookie.clone(),
            connection: asked.connection,
            body: hex(&digest(asked.body)),
            body_bytes: asked.body.len(),
            at: unix_micros(),
        })
    }

    fn enter(&self, asked: &Asked<'_>, rules: Rules) -> Result<(Visit, InFlight), Refused> {
        self.contexts.enter(&self.visitor(asked)?, rules)
    }

    fn success<'a>(
        &self,
        asked: &'a Asked<'_>,
        visit: Option<&'a Visit>,
        cookies: Cookies,
    ) -> Success<'a> {
        Success {
            request: asked.head,
            kind: asked.kind,
            endpoint: asked.endpoint,
            visit,
            cookies,
        }
    }

    fn done(
        &self,
        asked: &Asked<'_>,
        visit: Option<&Visit>,
        cookies: Cookies,
        body: Vec<u8>,
    ) -> Outcome {
        let success = self.success(asked, visit, cookies);
        Outcome::Reply(success.done(&self.options, Elapsed::default(), body))
    }

    /// The cookies of answers on which gromox leaves the sequence out.
    fn context_alone(&self) -> Cookies {
        match self.options.flavour {
            Flavour::Gromox => Cookies::Context,
            Flavour::Exchange => Cookies::Both,
        }
    }

    fn database_of(&self, mailbox: &str) -> Option<DatabaseName> {
        self.options
            .mailboxes
            .get(mailbox)
            .or(self.options.default_database.as_ref())
            .cloned()
    }

    /// The server may serve mailboxes of this database. Without `strict_databases` it serves every one.
    fn holds(&self, database: Option<&DatabaseName>) -> bool {
        !self.options.strict_databases
            || database.is_some_and(|database| self.mounted.lock().contains(database))
    }
}

/// PING and the ends of contexts: no sequence is looked at.
const QUIET: Rules = Rules {
    checks_sequence: false,
    rotates: false,
    one_at_a_time: false,
};
const RULES_OF_OPENING: Rules = QUIET;

/// Why there is no outcome.
#[derive(Debug)]
enum Stop {
    Refused(Refused),
    Journal(std::io::Error),
}

impl From<Refused> for Stop {
    fn from(why: Refused) -> Self {
        Self::Refused(why)
    }
}

impl From<BodyError> for Stop {
    fn from(_: BodyError) -> Self {
        Self::Refused(Refused::BadBody)
    }
}

fn wishes(head: &Head) -> Wishes {
    let number = |name| head.text(name).and_then(|text| text.parse::<u64>().ok());
    Wishes {
        // As much as a client may ask for, and a little more for trying it out.
        answer_bytes: number("X-Lab-Answer-Bytes")
            .map(|bytes| usize::try_from(bytes.min(64 << 20)).unwrap_or(usize::MAX)),
        delay: Duration::from_millis(number("X-Lab-Delay").unwrap_or(0)),
    }
}

/// The last part of the distinguished name is the user's, as `cn=user1` or `cn=0100…-user1`.
fn is_dn_of(dn: &[u8], user: &UserName) -> bool {
    let dn = String::from_utf8_lossy(dn).to_ascii_lowercase();
    let last = dn.rsplit("cn=").next().unwrap_or_default();
    let last = last.rsplit('-').next().unwrap_or_default();
    last == local_and_domain(user).0
}
