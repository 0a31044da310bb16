//! A mailbox server, as far as routing can tell: contexts in memory, and a journal that survives.

use mapigate::ids::{DatabaseName, ServerName, UserName};
use mapigate::mapi::RequestType;
use std::collections::BTreeMap;

/// Seconds an unused context lives.
pub(crate) const EXPIRATION: u64 = 15 * 60;

#[derive(Debug)]
pub(crate) struct Server {
    name: ServerName,
    pub(crate) is_running: bool,
    pub(crate) is_cut_off: bool,
    /// How its next answer is lost, after the request was executed.
    pub(crate) loses_next: Option<Loss>,
    contexts: BTreeMap<String, Context>,
    issued: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The connection is reset.
    Reset,
    /// The server dies.
    Crash,
}

#[derive(Debug)]
struct Context {
    user: UserName,
    database: DatabaseName,
    until: u64,
}

/// A request as it arrives at the server.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) kind: RequestType,
    pub(crate) user: UserName,
    pub(crate) database: DatabaseName,
    pub(crate) context: Option<String>,
    pub(crate) nonce: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Code 0, for `Connect` with a new context cookie.
    Success(Option<String>),
    /// Code 10.
    Gone,
    /// Code 13.
    MissingCookie,
}

impl Server {
    pub(crate) fn new(name: ServerName) -> Self {
        Self {
            name,
            is_running: true,
            is_cut_off: false,
            loses_next: None,
            contexts: BTreeMap::new(),
            issued: 0,
        }
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.is_running && !self.is_cut_off
    }

    /// Its memory is gone with it.
    pub(crate) fn crash(&mut self) {
        self.is_running = false;
        self.loses_next = None;
        self.contexts.clear();
    }

    pub(crate) fn dismount(&mut self, database: &DatabaseName) {
        self.contexts
            .retain(|_, context| context.database != *database);
    }

    pub(crate) fn holds(&self, cookie: &str, user: &UserName, now: u64) -> bool {
        let context = self.contexts.get(cookie);
        context.is_some_and(|context| context.user == *user && now < context.until)
    }

    /// Serves whatever arrives, and does not ask whether it is the one to serve it. `None`: the
    /// answer is lost. An Execute is written down before anything else happens.
    pub(crate) fn serve(
        &mut self,
        arrival: &Arrival,
        now: u64,
        journal: &mut BTreeMap<u64, u32>,
    ) -> Option<Answer> {
        let answer = self.answer(arrival, now);
        if arrival.kind == RequestType::Execute && answer == Answer::Success(None) {
            *journal.entry(arrival.nonce).or_default() += 1;
        }
        match self.loses_next.take() {
            None => Some(answer),
            Some(Loss::Reset) => None,
            Some(Loss::Crash) => {
                self.crash();
                None
            }
        }
    }

    fn answer(&mut self, arrival: &Arrival, now: u64) -> Answer {
        self.contexts.retain(|_, context| now < context.until);
        if arrival.kind.opens_session() {
            return self.connect(arrival, now);
        }
        let Some(cookie) = &arrival.context else {
            return Answer::MissingCookie;
        };
        match self.contexts.get_mut(cookie) {
            Some(context) if context.user == arrival.user => context.until = now + EXPIRATION,
            _ => return Answer::Gone,
        }
        if arrival.kind.closes_session() {
            self.contexts.remove(cookie);
        }
        Answer::Success(None)
    }

    /// Rejects a cookie it does not know, as gromox does; destroys the context of one it knows.
    fn connect(&mut self, arrival: &Arrival, now: u64) -> Answer {
        if let Some(old) = &arrival.context {
            match self.contexts.get(old) {
                Some(context) if context.user == arrival.user => self.contexts.remove(old),
                _ => return Answer::Gone,
            };
        }
        self.issued += 1;
        let cookie = format!("{}-{}-{}", self.name, now, self.issued);
        let context = Context {
            user: arrival.user.clone(),
            database: arrival.database.clone(),
            until: now + EXPIRATION,
        };
        self.contexts.insert(cookie.clone(), context);
        Answer::Success(Some(cookie))
    }
}
