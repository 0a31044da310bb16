//! Where a request goes, or why it goes nowhere.
//!
//! One pure function. The placement map alone says which server owns a database; health only vetoes.
//! A passive copy is never chosen, because it holds the mailbox but may not serve it. Knows nothing of
//! sockets, so that it can be simulated.

use crate::health::HealthView;
use crate::ids::{DatabaseName, ServerName};
use crate::mapi::RequestType;
use crate::placement::Placement;
use crate::refusal::Refusal;

/// All that matters about a request when its server is sought.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What it asks for.
    pub request_type: RequestType,
    /// It carries a context cookie.
    pub carries_context: bool,
    /// Where its session lives, as the session table or an opened route cookie says. Already proven to
    /// be this user's. For `Connect` and `Bind` only the table's word is to be taken: a route cookie
    /// outlives the context, and a server that no longer has it would reject the request.
    pub session: Option<Pin<'a>>,
    /// The database of the mailbox in the URL, as the directory says.
    pub database: Option<&'a DatabaseName>,
    /// Servers this very request was to go to and could not reach; no byte of it was sent to them.
    pub tried: &'a [ServerName],
}

/// Where a session was opened. The database is what pins it: the server may no longer be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin<'a> {
    /// The mailbox's database then.
    pub database: &'a DatabaseName,
    /// The server that holds the context.
    pub server: &'a ServerName,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Send it there.
    Forward {
        /// The server that holds the active copy.
        server: &'a ServerName,
        /// The database it is for.
        database: &'a DatabaseName,
        /// Why there.
        reason: RouteReason,
        /// Take the session cookies out first: another server issued them. A new server rejects a
        /// context cookie it does not know even on `Connect`, which is to replace it.
        strip_session_cookies: bool,
    },
    /// Answer it ourselves.
    Refuse(Refusal),
    /// The session it ends is out of reach, which is as good as ended: answer success ourselves.
    EndSession,
}

/// Why a server was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteReason {
    /// Its session lives there.
    Pinned,
    /// A new session, begun at the active copy.
    ActiveCopy,
    /// Its session is not known here; the mailbox decided, and the server will know the session or not.
    Stateless,
    /// Another server could not be reached, and the database has moved since.
    Retried,
}

impl RouteReason {
    /// All of them, for metrics that must exist before they happen.
    pub const ALL: [Self; 4] = [
        Self::Pinned,
        Self::ActiveCopy,
        Self::Stateless,
        Self::Retried,
    ];

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::ActiveCopy => "active_copy",
            Self::Stateless => "stateless",
            Self::Retried => "retried",
        }
    }
}

/// Decides about one request. `capable` says whether a server speaks MAPI over HTTP.
///
/// A session whose database is active elsewhere by now gets "context not found", upon which the client
/// connects again by itself; 503 is kept for a mailbox that is nowhere to be had.
/// `[MS-OXCMAPIHTTP] 3.1.5.7, 3.2.5.6`
pub fn decide<'a>(
    question: &Question<'a>,
    placement: &'a Placement,
    health: &HealthView,
    capable: impl Fn(&ServerName) -> bool,
) -> Decision<'a> {
    match route(question, placement, health, capable) {
        Ok(forward) => forward,
        Err(refusal) if is_as_good_as_ended(question, &refusal) => Decision::EndSession,
        Err(refusal) => Decision::Refuse(refusal),
    }
}

/// The server a request that knows no sessions goes to: that of the active copy, where it is up. `wards` is
/// the health of what the request is for. A few look-ups.
///
/// # Errors
/// Why no server may have it.
pub fn home<'a>(
    database: &DatabaseName,
    placement: &'a Placement,
    health: &HealthView,
    wards: &HealthView,
    tried: &[ServerName],
) -> Result<&'a ServerName, Refusal> {
    let refuse = |why| Refusal::NoEligibleCopy {
        database: database.clone(),
        why,
    };
    let homeless = || refuse(placement.homes().why_homeless(database));
    let server = placement.active(database).ok_or_else(homeless)?;
    if tried.contains(server) {
        return Err(refuse(UNREACHABLE));
    }
    if !health.is_eligible(server) {
        return Err(refuse(health.reason(server).unwrap_or(DOWN)));
    }
    match wards.is_eligible(server) {
        true => Ok(server),
        false => Err(refuse(OUT_OF_SERVICE)),
    }
}

fn route<'a>(
    question: &Question<'a>,
    placement: &'a Placement,
    health: &HealthView,
    capable: impl Fn(&ServerName) -> bool,
) -> Result<Decision<'a>, Refusal> {
    let opens = question.request_type.opens_session();
    // Where the directory and the session differ, the mailbox has moved to another database since.
    // A new session goes by the directory alone: an old one is no proof of where the mailbox is.
    let pinned = question.session.filter(|_| !opens);
    let database = question.database.or(pinned.map(|pin| pin.database));
    let database = database.ok_or(Refusal::UnknownMailbox)?;
    let active = placement.active(database);

    let reason = match pinned {
        None if opens => RouteReason::ActiveCopy,
        None => RouteReason::Stateless,
        Some(pin) if active == Some(pin.server) => RouteReason::Pinned,
        Some(_) if active.is_some() => return Err(Refusal::SessionGone(MOVED)),
        Some(_) => return Err(Refusal::SessionGone(UNCONFIGURED)),
    };
    let server = active.ok_or_else(|| Refusal::NoEligibleCopy {
        database: database.clone(),
        why: placement.homes().why_homeless(database),
    })?;
    vet(question, server, database, health, capable)?;

    // The server that issued a context destroys it when a Connect brings it along; for any other it
    // is a stranger's. [MS-OXCMAPIHTTP] 3.2.5.6
    let is_issuer = question.session.is_some_and(|pin| pin.server == server);
    Ok(Decision::Forward {
        server,
        database,
        reason: match question.tried {
            [] => reason,
            _ => RouteReason::Retried,
        },
        strip_session_cookies: opens && !is_issuer,
    })
}

/// Decides about a channel of Outlook Anywhere. `home` is the server that the other channels of its virtual connection
/// are at; without one, the active copy decides. `wards` is the health of Outlook Anywhere itself; `capable` says whether
/// a server speaks it.
///
/// # Errors
/// Nobody has the mailbox, or its virtual connection is at a server that has it no more: a virtual connection
/// cannot be moved, and the client begins a new one. `[MS-RPCH] 3.2.1.5.3`
pub fn channel<'a>(
    database: &'a DatabaseName,
    home: Option<&ServerName>,
    tried: &[ServerName],
    placement: &'a Placement,
    health: &HealthView,
    wards: &HealthView,
    capable: impl Fn(&ServerName) -> bool,
) -> Result<(&'a ServerName, RouteReason), Refusal> {
    let nobody = |why| Refusal::NoEligibleCopy {
        database: database.clone(),
        why,
    };
    let homeless = || nobody(placement.homes().why_homeless(database));
    let server = placement.active(database).ok_or_else(homeless)?;
    if home.is_some_and(|home| home != server) {
        return Err(Refusal::ChannelGone(MOVED));
    }
    let why = if !capable(server) {
        SPEAKS_NO_RPC
    } else if tried.contains(server) {
        UNREACHABLE
    } else if !health.is_eligible(server) {
        health.reason(server).unwrap_or(DOWN)
    } else if !wards.is_eligible(server) {
        OUT_OF_SERVICE
    } else {
        let reason = match (tried, home) {
            ([], Some(_)) => RouteReason::Pinned,
            ([], None) => RouteReason::ActiveCopy,
            _ => RouteReason::Retried,
        };
        return Ok((server, reason));
    };
    Err(nobody(why))
}

/// What speaks against the server of the active copy.
fn vet(
    question: &Question<'_>,
    server: &ServerName,
    database: &DatabaseName,
    health: &HealthView,
    capable: impl Fn(&ServerName) -> bool,
) -> Result<(), Refusal> {
    if !capable(server) {
        let server = server.clone();
        return Err(Refusal::NotCapable { server });
    }
    let why = if question.tried.contains(server) {
        UNREACHABLE
    } else if !health.is_eligible(server) {
        health.reason(server).unwrap_or(DOWN)
    } else {
        return Ok(());
    };
    let database = database.clone();
    Err(Refusal::NoEligibleCopy { database, why })
}

/// A client that leaves gets what it wants: a context out of reach is gone or expires where it is.
fn is_as_good_as_ended(question: &Question<'_>, refusal: &Refusal) -> bool {
    question.request_type.closes_session()
        && (question.session.is_some() || question.carries_context)
        && matches!(
            refusal,
            Refusal::SessionGone(_) | Refusal::NoEligibleCopy { .. } | Refusal::NotCapable { .. }
        )
}

const MOVED: &str = "its database moved";
const UNCONFIGURED: &str = "its database is no longer configured";
const UNREACHABLE: &str = "the server of the active copy could not be reached";
const SPEAKS_NO_RPC: &str = "the server of the active copy does not speak Outlook Anywhere";
const OUT_OF_SERVICE: &str = "the server of the active copy does not serve this directory";
const DOWN: &str = "the server of the active copy is down";

#[cfg(test)]
mod tests;
