//! Background loops, each the only writer of one part of the world.

mod check;
mod files;
mod reload;
mod sweep;
mod watch;

pub use reload::{Loader, Reloaded, Reloader};

use crate::config::Settings;
use crate::runtime::{Runtime, Sighting};
use reload::ReloadLoop;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch as channel};
use watch::Watch;

/// What the doors have to do with a new configuration. Upkeep cannot know them: they are above it.
pub trait Doors: Send + Sync {
    /// Takes over what a running door can take over, before any request sees the configuration. Says
    /// what it could not.
    ///
    /// # Errors
    /// Why the configuration is not to be put in force.
    fn adopt(&self, settings: &Settings) -> Result<Vec<String>, Vec<String>>;

    /// Begins new keys for TLS tickets.
    ///
    /// # Errors
    /// Why the old ones stay.
    fn rotate_tickets(&self) -> Result<(), String>;
}

/// All loops, ready to run.
pub struct Upkeep {
    runtime: Arc<Runtime>,
    watch: Watch,
    reload: ReloadLoop,
    doors: Arc<dyn Doors>,
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep")
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

impl Upkeep {
    /// Prepares the loops; nothing happens before [`Self::run`]. `seen` is what requests report of
    /// servers, `load` reads the configuration.
    pub fn new(
        runtime: Arc<Runtime>,
        seen: mpsc::Receiver<Sighting>,
        load: Loader,
        doors: Arc<dyn Doors>,
        now: Instant,
    ) -> (Self, Reloader) {
        let (reload, reloader) = ReloadLoop::new(Arc::clone(&runtime), load, Arc::clone(&doors));
        let upkeep = Self {
            watch: Watch::new(Arc::clone(&runtime), seen, now),
            runtime,
            reload,
            doors,
        };
        (upkeep, reloader)
    }

    /// Runs until the last [`Reloader`] is gone; in a running process that is never.
    pub async fn run(self) {
        let (announce, generation) = channel::channel(self.runtime.snapshot().generation);
        tokio::select! {
            () = self.watch.run(generation) => {}
            () = self.reload.run(announce) => {}
            () = sweep::sessions(Arc::clone(&self.runtime)) => {}
            () = sweep::tickets(self.runtime, self.doors) => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod world;

#[cfg(test)]
mod tests;
