//! The one writer of the servers' health: checks at an interval, observations from requests.

use super::check::look_at;
use crate::backend::BackServer;
use crate::config::Settings;
use crate::health::{Flip, HealthTable, HealthView, Observation};
use crate::ids::{Generation, ServerName};
use crate::runtime::{Runtime, Sighting, Snapshot};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{info, warn};

/// Watches the servers until the process ends.
#[derive(Debug)]
pub(super) struct Watch {
    runtime: Arc<Runtime>,
    /// What requests saw.
    seen: mpsc::Receiver<Sighting>,
    table: HealthTable,
    shown: Shown,
    checks: JoinSet<(ServerName, Option<Observation>)>,
    under_way: BTreeSet<ServerName>,
}

/// What of the health requests were shown last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    down: BTreeSet<ServerName>,
    /// Failing and not made up for: requests report their successes too while a server is here.
    troubled: BTreeSet<ServerName>,
    panics: bool,
}

impl Watch {
    pub(super) fn new(runtime: Arc<Runtime>, seen: mpsc::Receiver<Sighting>, now: Instant) -> Self {
        let snapshot = runtime.snapshot();
        let settings = &snapshot.settings;
        let table = HealthTable::new(&settings.health, weights(settings), now);
        show_all(&table, &runtime);
        Self {
            runtime,
            seen,
            table,
            shown: Shown::default(),
            checks: JoinSet::new(),
            under_way: BTreeSet::new(),
        }
    }

    /// Runs until the reloader is gone.
    #[expect(
        clippy::disallowed_methods,
        reason = "upkeep asks the clock for the rooms below"
    )]
    pub(super) async fn run(mut self, mut generation: watch::Receiver<Generation>) {
        let mut rounds = rounds(self.runtime.snapshot().settings.health.interval);
        loop {
            tokio::select! {
                _ = rounds.tick() => self.start_round(),
                Some((server, observation)) = self.seen.recv() => {
                    let mut count = 1;
                    self.take(&server, observation, Instant::now());
                    // One publication for a burst.
                    while let Ok((server, observation)) = self.seen.try_recv() {
                        self.take(&server, observation, Instant::now());
                        count += 1;
                    }
                    self.publish();
                    self.runtime.heard(count);
                }
                Some(checked) = self.checks.join_next() => {
                    if let Ok((server, observation)) = checked {
                        self.under_way.remove(&server);
                        if let Some(observation) = observation {
                            self.take(&server, observation, Instant::now());
                            self.publish();
                        }
                    }
                }
                changed = generation.changed() => match changed {
                    Ok(()) => rounds = self.reconfigure(Instant::now()),
                    Err(_gone) => return,
                },
            }
        }
    }

    /// Starts a check of every server that is not being checked already, spread over the interval
    /// so that a large site is not checked in one burst.
    fn start_round(&mut self) {
        let snapshot = self.runtime.snapshot();
        let servers: Vec<Arc<BackServer>> = snapshot
            .servers
            .iter()
            .filter(|server| !self.under_way.contains(server.name()))
            .cloned()
            .collect();
        let between = snapshot.settings.health.interval / (count(&servers) + 1);
        for (server, position) in servers.into_iter().zip(0..) {
            self.under_way.insert(server.name().clone());
            let (settings, runtime) = (Arc::clone(&snapshot.settings), Arc::clone(&self.runtime));
            self.checks.spawn(async move {
                tokio::time::sleep((between * position).min(SPREAD_MAX)).await;
                let found = look_at(&server, &settings.health, &runtime.metrics).await;
                (server.name().clone(), found)
            });
        }
    }

    fn take(&mut self, server: &ServerName, observation: Observation, now: Instant) {
        let Some(flip) = self.table.observe(server, observation, now) else {
            return;
        };
        report(&flip);
        self.runtime.metrics.set_server_up(server, flip.is_up);
        self.publish();
        if !flip.is_up {
            // Polls held on it look at the new world and end by themselves.
            self.runtime.wake_polls();
        }
    }

    /// Shows requests the world as the table sees it, where that differs from what they see: after a
    /// flip, and when a server begins to fail or has made up for its failures.
    fn publish(&mut self) {
        let view = self.table.view();
        let shown = Shown {
            down: names(&view, |name| !view.is_up(name)),
            troubled: names(&view, |name| !view.is_steady(name)),
            panics: view.panics(),
        };
        if shown != self.shown {
            self.shown = shown;
            let view = Arc::new(view);
            self.runtime.publish(|world| Snapshot {
                health: Arc::clone(&view),
                ..world.clone()
            });
        }
    }

    fn reconfigure(&mut self, now: Instant) -> Interval {
        let snapshot = self.runtime.snapshot();
        let settings = &snapshot.settings;
        self.table
            .reconfigure(&settings.health, weights(settings), now);
        self.publish();
        self.runtime.metrics.keep_servers(settings.servers.keys());
        show_all(&self.table, &self.runtime);
        rounds(settings.health.interval)
    }
}

fn names(view: &HealthView, is_meant: impl Fn(&ServerName) -> bool) -> BTreeSet<ServerName> {
    view.iter()
        .map(|(name, _)| name)
        .filter(|name| is_meant(name))
        .cloned()
        .collect()
}

/// Every server's health in the metrics.
fn show_all(table: &HealthTable, runtime: &Runtime) {
    for (name, health) in table.view().iter() {
        runtime.metrics.set_server_up(name, health.is_up);
    }
}

fn rounds(interval: Duration) -> Interval {
    let mut rounds = tokio::time::interval(interval.max(INTERVAL_MIN));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}

fn weights(settings: &Settings) -> impl Iterator<Item = (ServerName, u32)> + '_ {
    settings
        .servers
        .iter()
        .map(|(name, server)| (name.clone(), server.health_weight))
}

fn count(servers: &[Arc<BackServer>]) -> u32 {
    u32::try_from(servers.len()).unwrap_or(u32::MAX - 1)
}

/// Says once that a server changed sides.
fn report(flip: &Flip) {
    let Flip {
        server,
        reason,
        in_a_row,
        ..
    } = flip;
    let after = humantime::format_duration(Duration::from_secs(flip.after.as_secs()));
    if flip.is_up {
        info!(%server, successes = in_a_row, down_for = %after, "server marked up");
    } else {
        warn!(%server, reason, failures = in_a_row, up_for = %after, "server marked down");
    }
    match flip.panic {
        Some(true) => warn!("too few servers look healthy to believe it, all count as eligible"),
        Some(false) => info!("enough servers are healthy, health is believed again"),
        None => {}
    }
}

/// A mistyped interval must not become a flood of checks.
const INTERVAL_MIN: Duration = Duration::from_millis(50);
/// A round is not spread further than this.
const SPREAD_MAX: Duration = Duration::from_secs(5);
