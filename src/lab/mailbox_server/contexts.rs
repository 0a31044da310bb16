//! Session contexts, in the memory of one server.
#![expect(
    clippy::disallowed_methods,
    reason = "contexts expire by tokio's clock, which tests can pause"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answers::Refused;
use super::cookies::{is_well_formed, new_cookie, new_sequence};
use crate::ids::{DatabaseName, UserName};
use crate::mapi::{Endpoint, Flavour};

/// One session context.
#[derive(Debug)]
struct Context {
    endpoint: Endpoint,
    user: UserName,
    mailbox: String,
    database: Option<DatabaseName>,
    sequence: String,
    last_used: Instant,
    /// Ordinary requests being served.
    ordinary: u32,
    /// Held requests being served, or lingering after their client left.
    waits: u32,
    /// Asked to be told of events.
    registered: bool,
    /// Events not collected yet.
    events: u32,
    bell: Arc<Notify>,
}

/// What a request may know of its context.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) cookie: String,
    /// The sequence cookie to be sent back.
    pub(super) sequence: String,
    pub(super) mailbox: String,
    pub(super) database: Option<DatabaseName>,
    pub(super) bell: Arc<Notify>,
}

/// Who comes with which cookies.
#[derive(Debug)]
pub(super) struct Visitor<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) user: &'a UserName,
    pub(super) cookie: &'a str,
    pub(super) sequence: Option<&'a str>,
}

/// The rules a request is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// The sequence cookie must be the last one issued.
    pub(super) checks_sequence: bool,
    /// A new sequence cookie is issued.
    pub(super) rotates: bool,
    /// Counts as the one ordinary request of the context.
    pub(super) one_at_a_time: bool,
}

/// All contexts of one server.
#[derive(Debug)]
pub(super) struct Contexts {
    flavour: Flavour,
    lifetime: Duration,
    table: Mutex<HashMap<String, Context>>,
}

impl Contexts {
    pub(super) fn new(flavour: Flavour, lifetime: Duration) -> Self {
        Self {
            flavour,
            lifetime,
            table: Mutex::new(HashMap::new()),
        }
    }

    /// Opens a context; `None` when the user has `limit` of them.
    pub(super) fn open(
        &self,
        endpoint: Endpoint,
        user: &UserName,
        mailbox: &str,
        database: Option<DatabaseName>,
        limit: usize,
        cookie: Option<String>,
    ) -> Option<Visit> {
        let now = Instant::now();
        let mut table = self.table.lock();
        table.retain(|_, context| context.is_alive(now, self.lifetime));
        if table
            .values()
            .filter(|context| context.user == *user && context.endpoint == endpoint)
            .count()
            >= limit
        {
            return None;
        }
        let cookie = cookie.unwrap_or_else(|| new_cookie(self.flavour));
        let context = Context {
            endpoint,
            user: user.clone(),
            mailbox: mailbox.to_owned(),
            database,
            sequence: new_sequence(self.flavour),
            last_used: now,
            ordinary: 0,
            waits: 0,
            registered: false,
            events: 0,
            bell: Arc::new(Notify::new()),
        };
        let visit = context.visit(&cookie);
        table.insert(cookie, context);
        Some(visit)
    }

    /// Lets a request in, or says why not. What is rotated stays rotated even if the request then fails.
    pub(super) fn enter(
        self: &Arc<Self>,
        visitor: &Visitor<'_>,
        rules: Rules,
    ) -> Result<(Visit, InFlight), Refused> {
        let now = Instant::now();
        let mut table = self.table.lock();
        let context = self.find(&mut table, visitor, now)?;
        if rules.checks_sequence {
            if rules.one_at_a_time && self.flavour == Flavour::Exchange && context.ordinary > 0 {
                return Err(Refused::Sequence);
            }
            if visitor.sequence != Some(context.sequence.as_str()) {
                return Err(Refused::Sequence);
            }
        }
        if rules.rotates {
            context.sequence = new_sequence(self.flavour);
        }
        context.ordinary += 1;
        Ok((
            context.visit(visitor.cookie),
            self.in_flight(visitor.cookie, Kind::Ordinary),
        ))
    }

    /// Lets a held request in; the outer error refuses it, the inner says that one is held already.
    pub(super) fn wait(
        self: &Arc<Self>,
        visitor: &Visitor<'_>,
    ) -> Result<(Visit, Option<InFlight>), Refused> {
        let now = Instant::now();
        let mut table = self.table.lock();
        let context = self.find(&mut table, visitor, now)?;
        if context.waits > 0 {
            return Ok((context.visit(visitor.cookie), None));
        }
        context.waits += 1;
        Ok((
            context.visit(visitor.cookie),
            Some(self.in_flight(visitor.cookie, Kind::Held)),
        ))
    }

    fn find<'t>(
        &self,
        table: &'t mut HashMap<String, Context>,
        visitor: &Visitor<'_>,
        now: Instant,
    ) -> Result<&'t mut Context, Refused> {
        if table
            .get(visitor.cookie)
            .is_some_and(|context| !context.is_alive(now, self.lifetime))
        {
            table.remove(visitor.cookie);
        }
        let context = table
            .get_mut(visitor.cookie)
            .filter(|context| context.endpoint == visitor.endpoint)
            .ok_or(match is_well_formed(self.flavour, visitor.cookie) {
                true => Refused::UnknownContext,
                false => Refused::MalformedCookie,
            })?;
        if context.user != *visitor.user {
            return Err(Refused::Foreign);
        }
        context.last_used = now;
        Ok(context)
    }

    /// Ends a context. A held request of it is not ended: its bell rings only for Exchange.
    pub(super) fn close(&self, cookie: &str) {
        let gone = self.table.lock().remove(cookie);
        if let (Some(context), Flavour::Exchange) = (gone, self.flavour) {
            context.bell.notify_one();
        }
    }

    /// The context still exists.
    pub(super) fn lives(&self, cookie: &str) -> bool {
        self.table.lock().contains_key(cookie)
    }

    /// Asks for events of the mailbox.
    pub(super) fn register(&self, cookie: &str) {
        if let Some(context) = self.table.lock().get_mut(cookie) {
            context.registered = true;
        }
    }

    /// Events waiting; they stay until collected.
    pub(super) fn has_events(&self, cookie: &str) -> bool {
        self.table
            .lock()
            .get(cookie)
            .is_some_and(|context| context.events > 0)
    }

    /// Takes the events of a context.
    pub(super) fn collect(&self, cookie: &str) -> u32 {
        self.table
            .lock()
            .get_mut(cookie)
            .map_or(0, |context| std::mem::take(&mut context.events))
    }

    /// Something happened in a mailbox: every other context that asked is told.
    pub(super) fn event_in(&self, mailbox: &str, by: &str) {
        for (cookie, context) in self.table.lock().iter_mut() {
            if context.mailbox == mailbox && context.registered && cookie != by {
                context.ring();
            }
        }
    }

    /// Tells every context of the user, or of everybody, whether it asked or not. Returns how many.
    pub(super) fn wake(&self, user: Option<&UserName>) -> usize {
        let mut woken = 0;
        for context in self.table.lock().values_mut() {
            if context.endpoint == Endpoint::Emsmdb && user.is_none_or(|user| context.user == *user)
            {
                context.ring();
                woken += 1;
            }
        }
        woken
    }

    /// Forgets the contexts of a database, or all; held requests end. Returns how many.
    pub(super) fn forget(&self, database: Option<&DatabaseName>) -> usize {
        let mut table = self.table.lock();
        let before = table.len();
        table.retain(|_, context| {
            let stays =
                database.is_some_and(|database| context.database.as_ref() != Some(database));
            if !stays {
                context.bell.notify_one();
            }
            stays
        });
        before - table.len()
    }

    /// The cookie of some other live context.
    pub(super) fn another(&self, than: &str) -> Option<String> {
        self.table
            .lock()
            .keys()
            .find(|cookie| *cookie != than)
            .cloned()
    }

    /// Contexts alive now.
    pub(super) fn len(&self) -> usize {
        let now = Instant::now();
        let mut table = self.table.lock();
        table.retain(|_, context| context.is_alive(now, self.lifetime));
        table.len()
    }

    fn in_flight(self: &Arc<Self>, cookie: &str, kind: Kind) -> InFlight {
        InFlight {
            contexts: Arc::clone(self),
            cookie: cookie.to_owned(),
            kind,
        }
    }
}

impl Context {
    /// The idle timer runs only while no request is being served. `[MS-OXCMAPIHTTP] 3.1.2`
    fn is_alive(&self, now: Instant, lifetime: Duration) -> bool {
        self.ordinary > 0 || self.waits > 0 || now.duration_since(self.last_used) <= lifetime
    }

    fn ring(&mut self) {
        self.events += 1;
        self.bell.notify_one();
    }

    fn visit(&self, cookie: &str) -> Visit {
        Visit {
            cookie: cookie.to_owned(),
            sequence: self.sequence.clone(),
            mailbox: self.mailbox.clone(),
            database: self.database.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ordinary,
    Held,
}

/// A request being served; dropping it restarts the context's idle timer.
#[derive(Debug)]
pub(super) struct InFlight {
    contexts: Arc<Contexts>,
    cookie: String,
    kind: Kind,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(context) = self.contexts.table.lock().get_mut(&self.cookie) {
            let count = match self.kind {
                Kind::Ordinary => &mut context.ordinary,
                Kind::Held => &mut context.waits,
            };
            // A context opened again under the same cookie starts at zero.
            *count = count.saturating_sub(1);
            context.last_used = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDINARY: Rules = Rules {
        checks_sequence: true,
        rotates: true,
        one_at_a_time: true,
    };

    fn open(contexts: &Contexts, user: &UserName) -> Visit {
        contexts
            .open(Endpoint::Emsmdb, user, "box@contoso.test", None, 9, None)
            .unwrap()
    }

    fn visitor<'a>(user: &'a UserName, cookie: &'a str, sequence: &'a str) -> Visitor<'a> {
        Visitor {
            endpoint: Endpoint::Emsmdb,
            user,
            cookie,
            sequence: Some(sequence),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_context_expires_when_idle_and_not_while_a_request_is_held() {
        let contexts = Arc::new(Contexts::new(Flavour::Gromox, Duration::from_secs(900)));
        let user = UserName::new("user1@contoso.test");
        let opened = open(&contexts, &user);
        let who = visitor(&user, &opened.cookie, "");
        let (_, held) = contexts.wait(&who).unwrap();

        tokio::time::advance(Duration::from_secs(901)).await;
        assert!(contexts.wait(&who).is_ok());
        drop(held);
        tokio::time::advance(Duration::from_secs(899)).await;
        assert!(contexts.wait(&who).is_ok());
        tokio::time::advance(Duration::from_secs(901)).await;

        assert_eq!(contexts.wait(&who).unwrap_err(), Refused::UnknownContext);
        assert_eq!(contexts.len(), 0);
    }

    #[tokio::test]
    async fn a_stale_sequence_is_refused_and_rotates_nothing() {
        let contexts = Arc::new(Contexts::new(Flavour::Gromox, Duration::from_secs(900)));
        let user = UserName::new("user1@contoso.test");
        let opened = open(&contexts, &user);

        let first = visitor(&user, &opened.cookie, &opened.sequence);
        let (visit, _) = contexts.enter(&first, ORDINARY).unwrap();
        let stale = contexts.enter(&first, ORDINARY).map(|_| ());
        let next = visitor(&user, &opened.cookie, &visit.sequence);

        assert_eq!(stale, Err(Refused::Sequence));
        assert!(contexts.enter(&next, ORDINARY).is_ok());
    }

    #[tokio::test]
    async fn exchange_serves_one_ordinary_request_at_a_time() {
        let contexts = Arc::new(Contexts::new(Flavour::Exchange, Duration::from_secs(900)));
        let user = UserName::new("user1@contoso.test");
        let opened = open(&contexts, &user);

        let first = visitor(&user, &opened.cookie, &opened.sequence);
        let (visit, running) = contexts.enter(&first, ORDINARY).unwrap();
        let second = visitor(&user, &opened.cookie, &visit.sequence);

        assert!(contexts.enter(&second, ORDINARY).is_err());
        drop(running);
        assert!(contexts.enter(&second, ORDINARY).is_ok());
    }

    #[tokio::test]
    async fn another_user_and_an_impossible_cookie_are_told_apart() {
        let contexts = Arc::new(Contexts::new(Flavour::Exchange, Duration::from_secs(900)));
        let (user, other) = (UserName::new("a@b"), UserName::new("c@b"));
        let opened = open(&contexts, &user);

        let foreign = contexts
            .wait(&visitor(&other, &opened.cookie, ""))
            .unwrap_err();
        let malformed = contexts
            .wait(&visitor(&user, "Invalid cookie", ""))
            .unwrap_err();
        let unknown = contexts
            .wait(&visitor(&user, &new_cookie(Flavour::Exchange), ""))
            .unwrap_err();

        assert_eq!(foreign, Refused::Foreign);
        assert_eq!(malformed, Refused::MalformedCookie);
        assert_eq!(unknown, Refused::UnknownContext);
    }
}
