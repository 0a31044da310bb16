//! The one writer of which servers serve which of the other virtual directories, and Outlook Anywhere: their health
//! pages.

use super::check::look_at_page;
use crate::backend::BackServer;
use crate::config::Settings;
use crate::config::settings::{HealthSettings, Server, VdirPage};
use crate::health::{Flip, HealthTable, Observation, Ward, Wards};
use crate::ids::{Generation, ServerName};
use crate::mapi::Flavour;
use crate::runtime::{Runtime, Snapshot};
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
                if let Ok((ward, server, found)) = checked {
                    round.take(ward, server, found, Instant::now());
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
    tables: BTreeMap<Ward, HealthTable>,
    checks: JoinSet<(Ward, ServerName, Option<Observation>)>,
    under_way: BTreeSet<(Ward, ServerName)>,
}

impl Round {
    /// Asks every server for every page that is not being asked for already, spread over the interval.
    fn start(&mut self) {
        let snapshot = self.runtime.snapshot();
        let settings = &snapshot.settings;
        let mut due = Vec::new();
        for (ward, page) in pages(settings) {
            let servers = watched(settings, page);
            let free = servers.filter(|name| !self.under_way.contains(&(ward, name.clone())));
            let known = free.filter_map(|name| snapshot.servers.get(&name).cloned());
            due.extend(known.map(|server| (ward, page.path().to_owned(), server)));
        }
        let all = u32::try_from(due.len()).unwrap_or(u32::MAX - 1);
        let between = settings.health.interval / (all + 1);
        for ((ward, page, server), position) in due.into_iter().zip(0..) {
            self.under_way.insert((ward, server.name().clone()));
            let after = (between * position).min(SPREAD_MAX);
            let runtime = Arc::clone(&self.runtime);
            let how = settings.health.clone();
            self.checks
                .spawn(async move { look(ward, &page, &server, &how, after, &runtime).await });
        }
    }

    fn take(&mut self, ward: Ward, server: ServerName, found: Option<Observation>, now: Instant) {
        let key = (ward, server);
        self.under_way.remove(&key);
        let (_, server) = key;
        let table = self.tables.get_mut(&ward);
        let Some((table, found)) = table.zip(found) else {
            return;
        };
        if let Some(flip) = table.observe(&server, found, now) {
            report(ward, &flip);
            self.publish();
        }
    }

    fn publish(&self) {
        let views = self
            .tables
            .iter()
            .map(|(ward, table)| (*ward, table.view()));
        let views: Vec<_> = views.collect();
        let shown = views.iter().flat_map(|(ward, view)| {
            let servers = view.iter();
            servers.map(|(server, health)| (server, *ward, health.is_up))
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
        for (ward, page) in pages(settings) {
            let servers = watched(settings, page).map(|name| (name, 1));
            let table = match before.remove(&ward) {
                Some(mut known) => {
                    known.reconfigure(&settings.health, servers, now);
                    known
                }
                None => HealthTable::new(&settings.health, servers, now),
            };
            self.tables.insert(ward, table);
        }
        // Most sites have none: then there is nothing to say, unless there was.
        if !self.tables.is_empty() || *snapshot.wards != Wards::default() {
            self.publish();
        }
        rounds(settings.health.interval)
    }
}

/// A page that is looked at.
#[derive(Clone, Copy)]
enum Page<'a> {
    Vdir(&'a VdirPage),
    Rpc(&'a str),
}

impl Page<'_> {
    fn path(&self) -> &str {
        match self {
            Self::Vdir(page) => &page.path,
            Self::Rpc(path) => path,
        }
    }

    /// The server has it.
    fn is_on(&self, server: &Server) -> bool {
        match self {
            Self::Vdir(page) => page.is_everywhere || server.flavour == Flavour::Exchange,
            Self::Rpc(_) => server.capable.outlook_anywhere,
        }
    }
}

/// The pages that are looked at.
fn pages(settings: &Settings) -> impl Iterator<Item = (Ward, Page<'_>)> {
    let vdirs = settings.vdirs.iter();
    let vdirs = vdirs.filter_map(|(vdir, settings)| {
        Some((Ward::Vdir(vdir), Page::Vdir(settings.page.as_ref()?)))
    });
    let rpc = settings.health.rpc_page.as_deref();
    let rpc = rpc.filter(|_| settings.autodiscover.outlook_anywhere);
    vdirs.chain(rpc.map(|path| (Ward::Rpc, Page::Rpc(path))))
}

/// The servers that have a page.
fn watched<'a>(settings: &'a Settings, page: Page<'a>) -> impl Iterator<Item = ServerName> + 'a {
    let servers = settings.servers.values();
    servers
        .filter(move |server| page.is_on(server))
        .map(|server| server.name.clone())
}

async fn look(
    ward: Ward,
    page: &str,
    server: &BackServer,
    how: &HealthSettings,
    after: Duration,
    runtime: &Runtime,
) -> (Ward, ServerName, Option<Observation>) {
    tokio::time::sleep(after).await;
    let found = look_at_page(server, page, how, &runtime.metrics).await;
    (ward, server.name().clone(), found)
}

fn rounds(interval: Duration) -> Interval {
    let mut rounds = tokio::time::interval(interval.max(INTERVAL_MIN));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}

/// Says once that a server changed sides.
fn report(ward: Ward, flip: &Flip) {
    let Flip {
        server,
        reason,
        in_a_row,
        ..
    } = flip;
    let directory = ward.as_str();
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
