//! Background loops, each the only writer of one part of the world.

mod check;
mod copies;
mod documents;
mod files;
mod judge;
mod people;
mod probes;
mod providers;
mod reload;
mod sweep;
mod wards;
mod watch;

pub use copies::read as read_copies;
pub use judge::appoint_judge;
pub use providers::fetch_keys;
pub use reload::{Loader, Reloaded, Reloader};

use crate::certs::FrontTls;
use crate::runtime::{Runtime, Sighting, Snapshot};
use reload::ReloadLoop;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch as channel};
use tracing::info;
use watch::Watch;

/// The TLS sides of the listeners, by address: their certificates and ticket keys change under way.
pub type Fronts = Vec<(SocketAddr, Arc<FrontTls>)>;

/// All loops, ready to run.
#[derive(Debug)]
pub struct Upkeep {
    runtime: Arc<Runtime>,
    watch: Watch,
    reload: ReloadLoop,
    fronts: Fronts,
}

impl Upkeep {
    /// Prepares the loops; nothing happens before [`Self::run`]. `seen` is what requests report of
    /// servers, `load` reads the configuration.
    pub fn new(
        runtime: Arc<Runtime>,
        seen: mpsc::Receiver<Sighting>,
        load: Loader,
        fronts: Fronts,
        now: Instant,
    ) -> (Self, Reloader) {
        judge::appoint(&runtime);
        let (reload, reloader) = ReloadLoop::new(Arc::clone(&runtime), load, fronts.clone());
        let upkeep = Self {
            watch: Watch::new(Arc::clone(&runtime), seen, now),
            runtime,
            reload,
            fronts,
        };
        (upkeep, reloader)
    }

    /// Runs until the last [`Reloader`] is gone; in a running process that is never.
    pub async fn run(self) {
        let (announce, generation) = channel::channel(self.runtime.snapshot().generation);
        tokio::select! {
            () = providers::keys(Arc::clone(&self.runtime), generation.clone()) => {}
            () = people::directory(Arc::clone(&self.runtime), generation.clone()) => {}
            () = copies::copies(Arc::clone(&self.runtime), generation.clone()) => {}
            () = wards::watch(Arc::clone(&self.runtime), generation.clone()) => {}
            () = probes::probes(Arc::clone(&self.runtime), generation.clone()) => {}
            () = self.watch.run(generation) => {}
            () = self.reload.run(announce) => {}
            () = sweep::sessions(Arc::clone(&self.runtime)) => {}
            () = sweep::tickets(self.runtime, self.fronts) => {}
        }
    }
}

/// Says which databases are elsewhere than in the world `before`, and lets held polls look.
fn tell_of_moves(runtime: &Runtime, before: &Snapshot) {
    let now = runtime.snapshot();
    let moved: Vec<_> = before.placement.moved_in(&now.placement).collect();
    if !moved.is_empty() {
        info!(databases = ?moved, epoch = now.placement.epoch().0, "databases moved");
        runtime.wake_polls();
    }
}

#[cfg(test)]
pub(crate) mod world;

#[cfg(test)]
mod tests;
