//! The one writer of which servers serve which of the other virtual directories: their health pages.

use super::check::look_at_page;
use crate::backend::BackServer;
use crate::config::Settings;
use crate::config::settings::{HealthSettings, VdirPage};
use crate::health::{Flip, HealthTable, Observation, Wards};
use crate::ids::{Generation, ServerName};
use crate::mapi::Flavour;
use crate::runtime::{Runtime, Snapshot};
use crate::vdir::Vdir;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{info, warn};

/// Watches until the reloader is gone.
#[expect(
    clippy::disallowed_methods,
    reason = "upkeep asks the clock for the rooms below"
)]
pub(super) async fn watch(runtime: Arc<Runtime>, mut generation: watch::Receiver<Generation>) {
    let mut round = Round {
        tables: BTreeMap::new(),
        checks: JoinSet::new(),
        under_way: BTreeSet::new(),
        runtime,
    };
    let mut rounds = round.reconfigure(Instant::now());
    loop {
        tokio::select! {
            _ = rounds.tick() => round.start(),
            Some(checked) = round.checks.join_next() => {
                if let Ok((vdir, server, found)) = checked {
                    round.take(vdir, server, found, Instant::now());
                }
            }
            changed = generation.changed() => match changed {
                Ok(()) => rounds = round.reconfigure(Instant::now()),
                Err(_gone) => return,
            },
        }
    }
}

struct Round {
    runtime: Arc<Runtime>,
    tables: BTreeMap<Vdir, HealthTable>,
    checks: JoinSet<(Vdir, ServerName, Option<Observation>)>,
    under_way: BTreeSet<(Vdir, ServerName)>,
}

impl Round {
    /// Asks every server for every page that is not being asked for already, spread over the interval.
    fn start(&mut self) {
        let snapshot = self.runtime.snapshot();
        let settings = &snapshot.settings;
        let mut due = Vec::new();
        for (vdir, page) in pages(settings) {
            let servers = watched(settings, page);
            let free = servers.filter(|name| !self.under_way.contains(&(vdir, name.clone())));
            let known = free.filter_map(|name| snapshot.servers.get(&name).cloned());
            due.extend(known.map(|server| (vdir, page.path.clone(), server)));
        }
        let all = u32::try_from(due.len()).unwrap_or(u32::MAX - 1);
        let between = settings.health.interval / (all + 1);
        for ((vdir, page, server), position) in due.into_iter().zip(0..) {
            self.under_way.insert((vdir, server.name().clone()));
            let after = (between * position).min(SPREAD_MAX);
            let runtime = Arc::clone(&self.runtime);
            let how = settings.health.clone();
            self.checks
                .spawn(async move { look(vdir, &page, &server, &how, after, &runtime).await });
        }
    }

    fn take(&mut self, vdir: Vdir, server: ServerName, found: Option<Observation>, now: Instant) {
        let key = (vdir, server);
        self.under_way.remove(&key);
        let (_, server) = key;
        let table = self.tables.get_mut(&vdir);
        let Some((table, found)) = table.zip(found) else {
            return;
        };
        if let Some(flip) = table.observe(&server, found, now) {
            report(vdir, &flip);
            self.publish();
        }
    }

    fn publish(&self) {
        let views = self
            .tables
            .iter()
            .map(|(vdir, table)| (*vdir, table.view()));
        let views: Vec<_> = views.collect();
        let shown = views.iter().flat_map(|(vdir, view)| {
            let servers = view.iter();
            servers.map(|(server, health)| (server, *vdir, health.is_up))
        });
        self.runtime.metrics.set_vdirs_up(shown);
        let wards = Arc::new(Wards::new(views));
        self.runtime.publish(|world| Snapshot {
            wards: Arc::clone(&wards),
            ..world.clone()
        });
    }

    fn reconfigure(&mut self, now: Instant) -> Interval {
        let snapshot = self.runtime.snapshot();
        let settings = &snapshot.settings;
        let mut before = std::mem::take(&mut self.tables);
        for (vdir, page) in pages(settings) {
            let servers = watched(settings, page).map(|name| (name, 1));
            let table = match before.remove(&vdir) {
                Some(mut known) => {
                    known.reconfigure(&settings.health, servers, now);
                    known
                }
                None => HealthTable::new(&settings.health, servers, now),
            };
            self.tables.insert(vdir, table);
        }
        // Most sites have none: then there is nothing to say, unless there was.
        if !self.tables.is_empty() || *snapshot.wards != Wards::default() {
            self.publish();
        }
        rounds(settings.health.interval)
    }
}

/// The pages that are looked at.
fn pages(settings: &Settings) -> impl Iterator<Item = (Vdir, &VdirPage)> {
    let served = settings.vdirs.iter();
    served.filter_map(|(vdir, settings)| Some((vdir, settings.page.as_ref()?)))
}

/// The servers that have a page.
fn watched<'a>(
    settings: &'a Settings,
    page: &'a VdirPage,
) -> impl Iterator<Item = ServerName> + 'a {
    let servers = settings.servers.values();
    servers
        .filter(|server| page.is_everywhere || server.flavour == Flavour::Exchange)
        .map(|server| server.name.clone())
}

async fn look(
    vdir: Vdir,
    page: &str,
    server: &BackServer,
    how: &HealthSettings,
    after: Duration,
    runtime: &Runtime,
) -> (Vdir, ServerName, Option<Observation>) {
    tokio::time::sleep(after).await;
    let found = look_at_page(server, page, how, &runtime.metrics).await;
    (vdir, server.name().clone(), found)
}

fn rounds(interval: Duration) -> Interval {
    let mut rounds = tokio::time::interval(interval.max(INTERVAL_MIN));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}

/// Says once that a server changed sides.
fn report(vdir: Vdir, flip: &Flip) {
    let Flip {
        server,
        reason,
        in_a_row,
        ..
    } = flip;
    let directory = vdir.as_str();
    if flip.is_up {
        info!(%server, directory, successes = in_a_row, "server serves the directory again");
    } else {
        warn!(%server, directory, reason, failures = in_a_row, "server does not serve the directory");
    }
}

/// A mistyped interval must not become a flood of checks.
const INTERVAL_MIN: Duration = Duration::from_millis(50);
/// A round is not spread further than this.
const SPREAD_MAX: Duration = Duration::from_secs(5);
