//! The one writer of the servers' health: checks at an interval, observations from requests.

use super::check::look_at;
use crate::backend::BackServer;
use crate::config::Settings;
use crate::health::{Flip, HealthTable, Observation};
use crate::ids::{Generation, ServerName};
use crate::runtime::{Runtime, Snapshot};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{info, warn};

/// Watches the servers until the process ends.
pub(super) struct Watch {
    runtime: Arc<Runtime>,
    /// What requests saw.
    seen: mpsc::Receiver<(ServerName, Observation)>,
    table: HealthTable,
    /// Servers with failures that are not made up for yet: requests report their successes too
    /// while a server is one of these.
    troubled: BTreeSet<ServerName>,
    checks: JoinSet<(ServerName, Observation)>,
    under_way: BTreeSet<ServerName>,
}

impl Watch {
    pub(super) fn new(
        runtime: Arc<Runtime>,
        seen: mpsc::Receiver<(ServerName, Observation)>,
        now: Instant,
    ) -> Self {
        let snapshot = runtime.snapshot();
        let settings = &snapshot.settings;
        let table = HealthTable::new(&settings.health, weights(settings), now);
        Self {
            runtime,
            seen,
            table,
            troubled: BTreeSet::new(),
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
                    self.take(&server, observation, Instant::now());
                    // One publication for a burst.
                    while let Ok((server, observation)) = self.seen.try_recv() {
                        self.take(&server, observation, Instant::now());
                    }
                    self.publish();
                }
                Some(checked) = self.checks.join_next() => {
                    if let Ok((server, observation)) = checked {
                        self.under_way.remove(&server);
                        self.take(&server, observation, Instant::now());
                        self.publish();
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
            let settings = Arc::clone(&snapshot.settings);
            self.checks.spawn(async move {
                tokio::time::sleep((between * position).min(SPREAD_MAX)).await;
                let found = look_at(&server, &settings.health).await;
                (server.name().clone(), found)
            });
        }
    }

    fn take(&mut self, server: &ServerName, observation: Observation, now: Instant) {
        if let Some(flip) = self.table.observe(server, observation, now) {
            report(&flip);
            self.runtime.metrics.set_server_up(server, flip.is_up);
            // Polls held on it look at the new world and end by themselves.
            self.troubled.remove(server);
            self.force_publication();
        }
    }

    /// Shows requests the new verdicts, where there are any.
    fn publish(&mut self) {
        let view = self.table.view();
        let troubled: BTreeSet<ServerName> = view
            .iter()
            .filter(|(_, health)| !health.is_up || health.failures > 0)
            .map(|(name, _)| name.clone())
            .collect();
        if troubled == self.troubled {
            return;
        }
        self.troubled = troubled;
        let view = Arc::new(view);
        self.runtime.publish(|world| Snapshot { health: Arc::clone(&view), ..world.clone() });
    }

    fn force_publication(&mut self) {
        let view = Arc::new(self.table.view());
        self.runtime.publish(|world| Snapshot { health: Arc::clone(&view), ..world.clone() });
        self.runtime.wake_held_polls();
    }

    fn reconfigure(&mut self, now: Instant) -> Interval {
        let snapshot = self.runtime.snapshot();
        let settings = &snapshot.settings;
        self.table.reconfigure(&settings.health, weights(settings), now);
        self.force_publication();
        self.runtime.metrics.keep_servers(settings.servers.keys());
        for (name, health) in self.table.view().iter() {
            self.runtime.metrics.set_server_up(name, health.is_up);
        }
        rounds(settings.health.interval)
    }
}

fn rounds(interval: Duration) -> Interval {
    let mut rounds = tokio::time::interval(interval.max(INTERVAL_MIN));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}

fn weights(settings: &Settings) -> impl Iterator<Item = (ServerName, u32)> + '_ {
    settings.servers.iter().map(|(name, server)| (name.clone(), server.health_weight))
}

fn count(servers: &[Arc<BackServer>]) -> u32 {
    u32::try_from(servers.len()).unwrap_or(u32::MAX - 1)
}

/// Says once that a server changed sides.
fn report(flip: &Flip) {
    let Flip { server, reason, in_a_row, .. } = flip;
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
