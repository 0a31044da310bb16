//! What requests see of the servers' health: a snapshot that does not change.

use super::Observation;
use crate::ids::ServerName;
use std::collections::BTreeMap;
use std::time::Instant;

/// The verdicts of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthView {
    servers: BTreeMap<ServerName, ServerHealth>,
    panics: bool,
}

/// What is known of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHealth {
    /// The verdict.
    pub is_up: bool,
    /// Why it is down; the latest failure counts.
    pub reason: Option<&'static str>,
    /// Since when the verdict stands.
    pub since: Instant,
    /// What was seen last, and when.
    pub last: Option<(Observation, Instant)>,
    /// Failures in a row that nothing has disproved yet.
    pub failures: u32,
    /// Successes in a row since the last failure or flip.
    pub successes: u32,
}

impl HealthView {
    pub(super) fn new(servers: BTreeMap<ServerName, ServerHealth>, panics: bool) -> Self {
        Self { servers, panics }
    }

    /// True unless health vetoes this server: it is up, or nobody watches it, or so much seems down
    /// that health is not believed.
    pub fn is_eligible(&self, server: &ServerName) -> bool {
        self.panics || self.is_up(server)
    }

    /// The verdict itself; a server nobody watches counts as up.
    pub fn is_up(&self, server: &ServerName) -> bool {
        self.servers.get(server).is_none_or(|health| health.is_up)
    }

    /// False while a server has failures that it has not made up for: only then are its successes
    /// worth telling the table, and on all other days a request tells it nothing.
    pub fn is_steady(&self, server: &ServerName) -> bool {
        let steady = |health: &ServerHealth| health.is_up && health.failures == 0;
        self.servers.get(server).is_none_or(steady)
    }

    /// Why a server is down; `None` while it is up.
    pub fn reason(&self, server: &ServerName) -> Option<&'static str> {
        self.servers.get(server)?.reason
    }

    /// True while too little is up for health to be believed.
    pub fn panics(&self) -> bool {
        self.panics
    }

    /// All servers under watch, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ServerName, &ServerHealth)> {
        self.servers.iter()
    }
}
