//! Which servers answer, judged from checks and real traffic.
//!
//! [`HealthTable`] takes observations and says when a verdict flips; [`HealthView`] is what requests
//! look at. Health never chooses a server, it only vetoes the one that placement chose.

mod server;
mod view;
mod wards;

pub use view::{HealthView, ServerHealth};
pub use wards::{Ward, Wards};

use crate::config::settings::HealthSettings;
use crate::ids::ServerName;
use server::Watched;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What somebody saw of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Observation {
    /// A client's request was answered.
    Answered,
    /// A check went well: the page said so, the probe was accepted, or the connection stood.
    CheckPassed,
    /// It refused the connection, or there was no way to it.
    Refused,
    /// It closed or reset before it had answered.
    Reset,
    /// It did not answer in time.
    Deadline,
    /// Its health page said something else than 200.
    PageFailed,
    /// The authenticated probe was not accepted.
    ProbeFailed,
    /// The TLS handshake failed, or its certificate is not the one expected.
    TlsFailed,
}

impl Observation {
    /// True for what speaks for the server.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Answered | Self::CheckPassed)
    }

    /// The words used as reason in logs, answers of the admin page and refusals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::CheckPassed => "check passed",
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::Deadline => "no answer in time",
            Self::PageFailed => "health page failed",
            Self::ProbeFailed => "probe failed",
            Self::TlsFailed => "TLS failed",
        }
    }

    /// What only a check can see, only a check can disprove: a server that takes itself out of service
    /// by its page still answers the clients it has.
    fn is_seen_by_checks_only(self) -> bool {
        matches!(self, Self::PageFailed | Self::ProbeFailed)
    }
}

/// A verdict that changed; whoever receives it logs it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flip {
    /// The server.
    pub server: ServerName,
    /// The new verdict.
    pub is_up: bool,
    /// What made the difference.
    pub reason: &'static str,
    /// Observations in a row that led to it.
    pub in_a_row: u32,
    /// How long the former verdict had stood.
    pub after: Duration,
    /// `Some` when disbelief in health began (true) or ended (false) with this flip.
    pub panic: Option<bool>,
}

/// All servers under watch. Owned by one writer; requests see [`HealthView`].
#[derive(Debug)]
pub struct HealthTable {
    rules: Rules,
    servers: BTreeMap<ServerName, Watched>,
    panics: bool,
}

/// The part of the settings that judges.
#[derive(Clone, Copy, Debug)]
struct Rules {
    fall: u32,
    rise: u32,
    panic_threshold: u32,
}

impl HealthTable {
    /// Watches these servers, each with its weight in the panic reckoning. All begin up: a front end
    /// that has just started refuses nobody because of checks it has not made yet.
    pub fn new(
        settings: &HealthSettings,
        servers: impl IntoIterator<Item = (ServerName, u32)>,
        now: Instant,
    ) -> Self {
        let servers = servers
            .into_iter()
            .map(|(name, weight)| (name, Watched::new(weight, now)));
        Self {
            rules: Rules::of(settings),
            servers: servers.collect(),
            panics: false,
        }
    }

    /// Takes an observation in. `Some` when the verdict on this server flips by it: `fall` failures in
    /// a row mark it down, `rise` successes in a row mark it up. A server goes up at most once in ten
    /// seconds, and more rarely the more it flaps. A server that is not under watch is passed over.
    pub fn observe(
        &mut self,
        server: &ServerName,
        observation: Observation,
        now: Instant,
    ) -> Option<Flip> {
        let rules = self.rules;
        let watched = self.servers.get_mut(server)?;
        let turn = watched.observe(observation, rules.fall, rules.rise, now)?;
        Some(Flip {
            server: server.clone(),
            is_up: turn.is_up,
            reason: observation.as_str(),
            in_a_row: turn.in_a_row,
            after: turn.after,
            panic: self.reckon(),
        })
    }

    /// Takes new settings and a new list of servers over. Servers that remain keep their verdict and
    /// their history; new ones begin up.
    pub fn reconfigure(
        &mut self,
        settings: &HealthSettings,
        servers: impl IntoIterator<Item = (ServerName, u32)>,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.servers);
        for (name, weight) in servers {
            let watched = before.remove(&name).map_or_else(
                || Watched::new(weight, now),
                |known| known.with_weight(weight),
            );
            self.servers.insert(name, watched);
        }
        self.rules = Rules::of(settings);
        self.reckon();
    }

    /// What requests look at from now on.
    pub fn view(&self) -> HealthView {
        let servers = self
            .servers
            .iter()
            .map(|(name, watched)| (name.clone(), watched.health()));
        HealthView::new(servers.collect(), self.panics)
    }

    /// Reckons whether health is to be believed. When too much seems down at once, the fault is more
    /// likely ours (our network, our checks) than everybody's.
    fn reckon(&mut self) -> Option<bool> {
        let weight = |watched: &Watched| u64::from(watched.weight());
        let all: u64 = self.servers.values().map(weight).sum();
        let up: u64 = self
            .servers
            .values()
            .filter(|watched| watched.is_up())
            .map(weight)
            .sum();
        let panics = all > 0 && up * 100 < all * u64::from(self.rules.panic_threshold);
        let changed = panics != self.panics;
        self.panics = panics;
        changed.then_some(panics)
    }
}

impl Rules {
    fn of(settings: &HealthSettings) -> Self {
        Self {
            fall: settings.fall.max(1),
            rise: settings.rise.max(1),
            panic_threshold: settings.panic_threshold,
        }
    }
}

#[cfg(test)]
mod tests;
