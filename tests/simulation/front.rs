//! The front end without its sockets: the real tables and the real rules, called in the order of a
//! request.

use crate::server::{Answer, Arrival, EXPIRATION, Server};
use crate::{Decide, Rules};
use mapigate::config::settings::{Database, HealthSettings, RouteCookie, SealKey};
use mapigate::health::{HealthTable, HealthView, Observation};
use mapigate::ids::{DatabaseName, MailboxId, ServerName, UserName};
use mapigate::mapi::{Endpoint, RequestType};
use mapigate::placement::Placement;
use mapigate::refusal::Refusal;
use mapigate::routing::{Decision, Pin, Question};
use mapigate::seal::{Sealer, Ticket};
use mapigate::sessions::{Opened, Session, SessionTable};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const LIFETIME: Duration = Duration::from_secs(EXPIRATION + 5 * 60);
const EPOCH: u64 = 1_800_000_000;

/// A request as the client sends it, its credentials checked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) kind: RequestType,
    pub(crate) user: UserName,
    pub(crate) mailbox: MailboxId,
    pub(crate) context: Option<String>,
    pub(crate) route: Option<String>,
    pub(crate) nonce: u64,
}

/// What the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Success {
        /// `None`: answered by the front end.
        by: Option<ServerName>,
        context: Option<String>,
        route: Option<String>,
    },
    /// Code 10.
    Gone,
    /// Code 13.
    MissingCookie,
    /// 503.
    Unavailable,
    /// 502: the server may have executed it.
    Failed,
}

pub(crate) struct Front {
    pub(crate) placement: Placement,
    pub(crate) sessions: SessionTable,
    pub(crate) view: HealthView,
    /// Where mailboxes live.
    pub(crate) directory: BTreeMap<MailboxId, DatabaseName>,
    pub(crate) full: u64,
    health: HealthTable,
    sealer: Sealer,
    capacity: usize,
    start: Instant,
    rules: Rules,
}

/// Everything a request meets on its way.
pub(crate) struct Site<'a> {
    pub(crate) servers: &'a mut BTreeMap<ServerName, Server>,
    pub(crate) journal: &'a mut BTreeMap<u64, u32>,
    pub(crate) now: u64,
}

impl Front {
    pub(crate) fn new(
        databases: &BTreeMap<DatabaseName, Database>,
        directory: BTreeMap<MailboxId, DatabaseName>,
        servers: &BTreeMap<ServerName, Server>,
        capacity: usize,
        start: Instant,
        rules: Rules,
    ) -> Self {
        let health = HealthTable::new(&judging(), weights(servers), start);
        Self {
            placement: Placement::new(databases),
            sessions: SessionTable::new(capacity, [1; 16], start),
            view: health.view(),
            directory,
            full: 0,
            health,
            sealer: Sealer::new(&RouteCookie {
                name: "mapigate".to_owned(),
                keys: vec![SealKey {
                    id: 1,
                    key: Zeroizing::new([9; 32]),
                }],
            }),
            capacity,
            start,
            rules,
        }
    }

    /// A new process: it has the keys and the files, and no memory.
    pub(crate) fn restart(&mut self, servers: &BTreeMap<ServerName, Server>, seed: u8, now: u64) {
        self.sessions = SessionTable::new(self.capacity, [seed; 16], self.start);
        self.health = HealthTable::new(&judging(), weights(servers), self.at(now));
        self.view = self.health.view();
    }

    pub(crate) fn reload(
        &mut self,
        databases: &BTreeMap<DatabaseName, Database>,
        servers: &BTreeMap<ServerName, Server>,
        now: u64,
    ) {
        self.placement = self.placement.next(databases);
        let now = self.at(now);
        self.health.reconfigure(&judging(), weights(servers), now);
        self.view = self.health.view();
    }

    pub(crate) fn observe(&mut self, server: &ServerName, observation: Observation, now: u64) {
        if self
            .health
            .observe(server, observation, self.at(now))
            .is_some()
        {
            self.view = self.health.view();
        }
    }

    pub(crate) fn at(&self, now: u64) -> Instant {
        self.start + Duration::from_secs(now)
    }

    /// The session of a request, from the table or from its ticket; `Err` when it is another user's.
    pub(crate) fn session_of(&self, asked: &Asked, now: u64) -> Result<Option<Session>, Refusal> {
        let Some(cookie) = &asked.context else {
            return Ok(None);
        };
        let key = self.sessions.key(Endpoint::Emsmdb, cookie.as_bytes());
        match self.sessions.find(key, self.at(now)) {
            Some(session) if session.user == asked.user || self.rules.ignores_owner => {
                Ok(Some((*session).clone()))
            }
            Some(_) if asked.kind.opens_session() => Ok(None),
            Some(_) => Err(Refusal::ForeignSession),
            // A ticket outlives the context; a server that no longer has it would reject a Connect.
            None if asked.kind.opens_session() => Ok(None),
            None => Ok(self.ticket_of(asked, now)),
        }
    }

    fn ticket_of(&self, asked: &Asked, now: u64) -> Option<Session> {
        let value = asked.route.as_ref()?;
        let ticket = self
            .sealer
            .open(value.as_bytes(), Endpoint::Emsmdb, &asked.user)?;
        let is_his = ticket.mailbox == asked.mailbox && ticket.is_fresh(EPOCH + now, LIFETIME);
        is_his.then(|| Session {
            mailbox: ticket.mailbox,
            database: ticket.database,
            server: ticket.server,
            user: asked.user.clone(),
        })
    }

    /// One request from beginning to end. `Err` when an invariant breaks.
    pub(crate) fn handle(&mut self, asked: &Asked, site: &mut Site<'_>) -> Result<Reply, String> {
        let Ok(session) = self.session_of(asked, site.now) else {
            return Ok(Reply::Gone);
        };
        let pin = session.as_ref().map(|session| Pin {
            database: &session.database,
            server: &session.server,
        });
        let home = self.directory.get(&asked.mailbox).cloned();
        let decide: Decide = self.rules.decide;
        let mut tried = Vec::new();
        loop {
            let question = Question {
                request_type: asked.kind,
                carries_context: asked.context.is_some(),
                session: pin,
                database: home.as_ref(),
                tried: &tried,
            };
            let (server, database, strip) = match decide(&question, &self.placement, &self.view) {
                Decision::Forward {
                    server,
                    database,
                    strip_session_cookies,
                    ..
                } => (server.clone(), database.clone(), strip_session_cookies),
                Decision::EndSession => return Ok(self.end(asked, pin.is_some())),
                Decision::Refuse(refusal) => {
                    return Ok(self.refuse(asked, pin.is_some(), &refusal));
                }
            };
            self.check_route(&server, home.as_ref(), &tried, session.as_ref(), asked)?;
            let reachable = site.servers.get(&server).is_some_and(Server::is_reachable);
            if !reachable {
                self.observe(&server, Observation::Refused, site.now);
                tried.push(server);
                continue;
            }
            let arrival = Arrival {
                kind: asked.kind,
                user: asked.user.clone(),
                database: database.clone(),
                context: asked.context.clone().filter(|_| !strip),
                nonce: asked.nonce,
            };
            return Ok(self.forward(asked, &server, &database, &arrival, session.is_some(), site));
        }
    }

    fn check_route(
        &self,
        server: &ServerName,
        home: Option<&DatabaseName>,
        tried: &[ServerName],
        session: Option<&Session>,
        asked: &Asked,
    ) -> Result<(), String> {
        let active = home.and_then(|home| self.placement.active(home));
        if active != Some(server) {
            return Err(format!(
                "{asked:?} routed to {server}, active is {active:?}"
            ));
        }
        if tried.contains(server) {
            return Err(format!("{asked:?} tried again at {server}"));
        }
        if session.is_some_and(|session| session.user != asked.user) {
            return Err(format!("{asked:?} uses the session {session:?}"));
        }
        Ok(())
    }

    fn forward(
        &mut self,
        asked: &Asked,
        server: &ServerName,
        database: &DatabaseName,
        arrival: &Arrival,
        has_session: bool,
        site: &mut Site<'_>,
    ) -> Reply {
        let Some(there) = site.servers.get_mut(server) else {
            return Reply::Unavailable;
        };
        let mut answer = there.serve(arrival, site.now, site.journal);
        if answer.is_none() && self.rules.repeats_after_reset {
            answer = there.serve(arrival, site.now, site.journal);
        }
        let Some(answer) = answer else {
            // It may have been executed, so it goes nowhere else.
            self.observe(server, Observation::Reset, site.now);
            return Reply::Failed;
        };
        self.observe(server, Observation::Answered, site.now);
        self.learn(asked, server, database, &answer, has_session, site.now)
    }

    fn learn(
        &mut self,
        asked: &Asked,
        server: &ServerName,
        database: &DatabaseName,
        answer: &Answer,
        is_his: bool,
        now: u64,
    ) -> Reply {
        match answer {
            Answer::Gone => {
                self.forget(asked, is_his);
                return Reply::Gone;
            }
            Answer::MissingCookie => return Reply::MissingCookie,
            Answer::Success(_) if asked.kind.opens_session() || asked.kind.closes_session() => {
                self.forget(asked, is_his);
            }
            Answer::Success(_) => {}
        }
        let (mut context, mut route) = (None, None);
        if let Answer::Success(Some(cookie)) = answer {
            let ticket = Ticket {
                database: database.clone(),
                server: server.clone(),
                mailbox: asked.mailbox.clone(),
                issued: EPOCH + now,
            };
            route = self.sealer.seal(&ticket, Endpoint::Emsmdb, &asked.user);
            context = Some(cookie.clone());
        }
        // A session unknown so far is known from its first success on.
        let living = asked
            .context
            .as_ref()
            .filter(|_| !asked.kind.closes_session());
        if let Some(cookie) = context.as_ref().or(living) {
            self.remember(asked, cookie, server, database, now);
        }
        Reply::Success {
            by: Some(server.clone()),
            context,
            route,
        }
    }

    fn remember(
        &mut self,
        asked: &Asked,
        cookie: &str,
        server: &ServerName,
        database: &DatabaseName,
        now: u64,
    ) {
        let key = self.sessions.key(Endpoint::Emsmdb, cookie.as_bytes());
        if self.sessions.touch(key, self.at(now), LIFETIME) {
            return;
        }
        let session = Session {
            mailbox: asked.mailbox.clone(),
            database: database.clone(),
            server: server.clone(),
            user: asked.user.clone(),
        };
        let opened = self.sessions.open(key, session, self.at(now), LIFETIME);
        self.full += u64::from(opened == Opened::Full);
    }

    fn end(&self, asked: &Asked, is_his: bool) -> Reply {
        self.forget(asked, is_his);
        Reply::Success {
            by: None,
            context: None,
            route: None,
        }
    }

    fn refuse(&self, asked: &Asked, is_his: bool, refusal: &Refusal) -> Reply {
        match refusal {
            Refusal::SessionGone(_) => {
                self.forget(asked, is_his);
                Reply::Gone
            }
            _ => Reply::Unavailable,
        }
    }

    fn forget(&self, asked: &Asked, is_his: bool) {
        if let Some(cookie) = asked.context.as_ref().filter(|_| is_his) {
            let key = self.sessions.key(Endpoint::Emsmdb, cookie.as_bytes());
            self.sessions.close(key);
        }
    }
}

fn weights(servers: &BTreeMap<ServerName, Server>) -> Vec<(ServerName, u32)> {
    servers.keys().map(|name| (name.clone(), 1)).collect()
}

fn judging() -> HealthSettings {
    HealthSettings {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        fall: 2,
        rise: 2,
        panic_threshold: 30,
        page: None,
        rpc_page: None,
        probe: None,
    }
}
