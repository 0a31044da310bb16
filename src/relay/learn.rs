//! What an answer teaches about its session.

use super::admit::Pinning;
use super::answer::AnswerHead;
use crate::ids::ServerName;
use crate::mapi::ResponseCode;
use crate::runtime::{Runtime, Snapshot};
use crate::seal::Ticket;
use crate::sessions::{Opened, Session, SessionKey};
use std::time::{Duration, Instant};

/// Sessions learned from an answer's head. `code` is in the specification's numbers. Returns the session
/// the client is in from now on.
pub(crate) fn from_head(
    head: &AnswerHead<'_, '_>,
    code: Option<ResponseCode>,
    pin: &Pinning,
    server: &ServerName,
    runtime: &Runtime,
    world: &Snapshot,
    now: Instant,
) -> Option<SessionKey> {
    let sessions = &runtime.sessions;
    let settings = &world.settings.sessions;
    let lifetime = head.expiration.unwrap_or(settings.default_expiration) + settings.grace;
    if head.status != 200 || code != Some(ResponseCode::SUCCESS) {
        if ends_session(code) {
            close(pin.session, runtime);
        }
        return pin.session;
    }
    if pin.request_type.closes_session() {
        close(pin.session, runtime);
        return None;
    }
    let set = head.context.filter(|value| !value.is_empty());
    let named = set.map(|value| sessions.key(pin.endpoint, value));
    if pin.request_type.opens_session() && named != pin.session {
        // The server destroyed the old context in favour of the new one. [MS-OXCMAPIHTTP] 3.2.5.6
        close(pin.session, runtime);
    }
    let current = match named {
        Some(key) => Some(key),
        // A server that names none on Connect opened none.
        None if pin.request_type.opens_session() => None,
        None => pin.session,
    }?;
    let is_known = pin.is_known && pin.session == Some(current);
    if is_known && sessions.touch(current, now, lifetime) {
        return Some(current);
    }
    let session = Session {
        mailbox: pin.mailbox.clone(),
        database: pin.database.clone(),
        server: server.clone(),
        user: pin.user.clone(),
    };
    match sessions.open(current, session, now, lifetime) {
        Opened::Kept => {}
        // The session works all the same: the route cookie or the mailbox finds its server.
        Opened::Full => runtime.metrics.session_table_full(),
        Opened::Foreign => {
            tracing::warn!(%server, user = %pin.user, "server gave out a context cookie that is another user's");
        }
    }
    Some(current)
}

/// What the code after DONE teaches, which overrides the head's. `[MS-OXCMAPIHTTP] 3.2.5.2`
pub(crate) fn from_final_code(code: ResponseCode, session: Option<SessionKey>, runtime: &Runtime) {
    if ends_session(Some(code)) {
        close(session, runtime);
    }
}

/// A held answer has ended: the context's idle time begins now. `[MS-OXCMAPIHTTP] 3.1.2`
pub(crate) fn from_end_of_wait(
    session: Option<SessionKey>,
    expiration: Option<Duration>,
    runtime: &Runtime,
    world: &Snapshot,
    now: Instant,
) {
    let settings = &world.settings.sessions;
    let lifetime = expiration.unwrap_or(settings.default_expiration) + settings.grace;
    if let Some(key) = session {
        runtime.sessions.touch(key, now, lifetime);
    }
}

/// Our cookie for the session that an answer opens or goes on with.
pub(crate) fn ticket(pin: &Pinning, server: &ServerName, unix_seconds: u64) -> Ticket {
    Ticket {
        database: pin.database.clone(),
        server: server.clone(),
        mailbox: pin.mailbox.clone(),
        issued: unix_seconds,
    }
}

fn ends_session(code: Option<ResponseCode>) -> bool {
    code == Some(ResponseCode::CONTEXT_NOT_FOUND)
}

fn close(session: Option<SessionKey>, runtime: &Runtime) {
    if let Some(key) = session {
        runtime.sessions.close(key);
    }
}
