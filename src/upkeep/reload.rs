//! The one writer of the configuration's part of the world: read, build, swap or keep.

use super::files::FileWatch;
use super::{Fronts, copies, tell_of_moves};
use crate::config::Settings;
use crate::ids::Generation;
use crate::metrics::ReloadEnd;
use crate::runtime::{Runtime, Snapshot};
use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info, warn};

/// Reads the configuration: settings that are true with what should be said about them, or every
/// reason why not. Blocks on the disk.
pub type Loader = Arc<dyn Fn() -> Result<(Settings, Vec<String>), Vec<String>> + Send + Sync>;

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reloaded {
    /// The configuration was accepted and new requests see it.
    pub is_ok: bool,
    /// The generation in force now, whichever that is.
    pub generation: Generation,
    /// Why the configuration was not accepted; or what was accepted and should be known.
    pub problems: Vec<String>,
    /// When.
    #[serde(skip)]
    pub time: SystemTime,
}

/// Asks for reloads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloader {
    asks: mpsc::Sender<oneshot::Sender<Reloaded>>,
    last: Arc<ArcSwap<Reloaded>>,
    runtime: Arc<Runtime>,
}

impl Reloader {
    /// Reloads and waits for the outcome. When it is good, every request that begins afterwards sees
    /// the new world. Requests that arrive while a reload runs share the next one.
    pub async fn request(&self) -> Reloaded {
        let (answer, outcome) = oneshot::channel();
        if self.asks.send(answer).await.is_ok()
            && let Ok(reloaded) = outcome.await
        {
            return reloaded;
        }
        Reloaded {
            is_ok: false,
            problems: vec!["shutting down".to_owned()],
            generation: self.runtime.snapshot().generation,
            time: self.last.load().time,
        }
    }

    /// How the last reload ended; before the first one, how the start did.
    pub fn last(&self) -> Arc<Reloaded> {
        self.last.load_full()
    }
}

/// Reloads one after the other.
pub(super) struct ReloadLoop {
    runtime: Arc<Runtime>,
    load: Loader,
    fronts: Fronts,
    asks: mpsc::Receiver<oneshot::Sender<Reloaded>>,
    last: Arc<ArcSwap<Reloaded>>,
    /// One opening of the logs at a time: it may hang as long as their disk does.
    opening: Arc<Semaphore>,
}

impl std::fmt::Debug for ReloadLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReloadLoop")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl ReloadLoop {
    pub(super) fn new(runtime: Arc<Runtime>, load: Loader, fronts: Fronts) -> (Self, Reloader) {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let first = Reloaded {
            is_ok: true,
            generation: runtime.snapshot().generation,
            problems: Vec::new(),
            time: runtime.started().1,
        };
        let last = Arc::new(ArcSwap::from_pointee(first));
        announce_certificates(&runtime);
        let reloader = Reloader {
            asks,
            last: Arc::clone(&last),
            runtime: Arc::clone(&runtime),
        };
        (
            Self {
                runtime,
                load,
                fronts,
                asks: asked,
                last,
                opening: Arc::new(Semaphore::new(1)),
            },
            reloader,
        )
    }

    /// Runs until the last [`Reloader`] is gone.
    pub(super) async fn run(mut self, announce: watch::Sender<Generation>) {
        let mut files = self.watch_files();
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                asked = self.asks.recv() => match asked {
                    Some(answer) => waiting.push(answer),
                    None => return,
                },
                () = changed(files.as_mut()) => info!("a file of the configuration changed"),
            }
            // Everybody who asked before the files are read is answered by this reading.
            while let Ok(answer) = self.asks.try_recv() {
                waiting.push(answer);
            }
            let reloaded = self.reload(&announce).await;
            if reloaded.is_ok {
                // Anew, for a folder may be another one by the same name; it compares with what was read.
                files = self.watch_files();
            }
            for answer in waiting {
                // Who asked may have left; the log has the outcome.
                let _ = answer.send(reloaded.clone());
            }
        }
    }

    async fn reload(&self, announce: &watch::Sender<Generation>) -> Reloaded {
        tell_supervisor(Words::Reloading);
        let previous = self.runtime.snapshot();
        let (load, world) = (Arc::clone(&self.load), Arc::clone(&previous));
        // Password and mailbox files may be large: not on a thread that others wait for.
        let built = spawn_blocking(move || build(&load, &world)).await;
        let built = built.unwrap_or_else(|error| Err(vec![format!("reading failed: {error}")]));
        let built = match built {
            Ok((next, warnings)) => first_told(next, &previous)
                .await
                .map(|next| (next, warnings)),
            Err(problems) => Err(problems),
        };
        let outcome = built.and_then(|(next, warnings)| self.swap(&previous, next, warnings));
        let (is_ok, mut problems) = match outcome {
            Ok(warnings) => (true, warnings),
            Err(problems) => (false, problems),
        };
        let world = self.runtime.snapshot();
        // Log rotation asks by the same signal: the file is opened anew whatever the configuration.
        let (runtime, settings) = (Arc::clone(&self.runtime), Arc::clone(&world.settings));
        let open = move || runtime.journal.reopen(&settings.logging);
        if let Err(error) = within(OPENING_MAX, &self.opening, open).await {
            problems.push(format!(
                "logging.access: {error}; lines keep going where they went"
            ));
        }
        announce.send_replace(world.generation);
        let reloaded = Reloaded {
            is_ok,
            generation: world.generation,
            problems,
            time: clock(),
        };
        self.report(&reloaded);
        tell_supervisor(Words::Ready);
        reloaded
    }

    /// Puts the new world in force. Nothing can fail after the first certificate was swapped but the
    /// certificates themselves, and those were found to match their keys when they were read.
    fn swap(
        &self,
        previous: &Snapshot,
        next: Snapshot,
        mut warnings: Vec<String>,
    ) -> Result<Vec<String>, Vec<String>> {
        for (address, front) in &self.fronts {
            let listeners = &next.settings.listeners;
            let Some(listener) = listeners
                .iter()
                .find(|listener| listener.address == *address)
            else {
                continue;
            };
            front
                .swap_certificates(&listener.certificates)
                .and_then(|()| front.swap_clients(listener.client_certificates.as_ref()))
                .map_err(|error| vec![format!("listeners: {address}: {error}")])?;
        }
        warnings.extend(needs_restart(&previous.settings, &next.settings));
        self.runtime
            .sessions
            .set_capacity(next.settings.sessions.capacity);
        let most = next.settings.limits.virtual_connections;
        self.runtime.channels.set_capacity(most);
        self.runtime
            .usage
            .set_entries(next.settings.accounting.usage_entries, clock());
        let before = self.runtime.publish(|world| next.in_place_of(world));
        announce_certificates(&self.runtime);
        tell_of_moves(&self.runtime, &before);
        Ok(warnings)
    }

    fn report(&self, reloaded: &Reloaded) {
        let Reloaded {
            generation,
            problems,
            ..
        } = reloaded;
        let since = reloaded
            .time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if reloaded.is_ok {
            problems.iter().for_each(|problem| warn!("{problem}"));
            info!(generation = generation.0, "configuration reloaded");
            self.runtime
                .metrics
                .reloaded(ReloadEnd::Accepted, since.as_secs_f64());
        } else {
            problems.iter().for_each(|problem| error!("{problem}"));
            error!(
                generation = generation.0,
                "configuration refused, the old one stays in force"
            );
            self.runtime
                .metrics
                .reloaded(ReloadEnd::Rejected, since.as_secs_f64());
        }
        self.last.store(Arc::new(reloaded.clone()));
    }

    fn watch_files(&self) -> Option<FileWatch> {
        let settings = Arc::clone(&self.runtime.snapshot().settings);
        if !settings.watch_files {
            return None;
        }
        FileWatch::new(&settings.files)
            .inspect_err(|error| warn!(%error, "files are not watched, reload by signal"))
            .ok()
    }
}

/// The next world, with what should be said about it.
fn build(load: &Loader, previous: &Snapshot) -> Result<(Snapshot, Vec<String>), Vec<String>> {
    let (settings, warnings) = load()?;
    Ok((Snapshot::build(settings, Some(previous))?, warnings))
}

/// The next world, after the directory has told where databases are that `previous` knew without it: none of them
/// is to be without a home meanwhile.
async fn first_told(next: Snapshot, previous: &Snapshot) -> Result<Snapshot, Vec<String>> {
    let is_awaited = |world: &Snapshot| world.placement.homes().is_awaited();
    if !is_awaited(&next) || is_awaited(previous) {
        return Ok(next);
    }
    let next = copies::read(&next).await;
    match &next.copies.trouble {
        None => Ok(next),
        Some(trouble) => Err(vec![format!("databases.copies_from: {trouble}")]),
    }
}

/// Does what may hang, away from threads that others wait for. It goes on behind our back where it takes longer, and
/// nothing else is begun meanwhile.
async fn within(
    at_most: Duration,
    turn: &Arc<Semaphore>,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let Ok(turn) = Arc::clone(turn).try_acquire_owned() else {
        return Err(io::Error::other(
            "the disk has not answered since the last time",
        ));
    };
    let work = spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    match timeout(at_most, work).await {
        Ok(done) => done?,
        Err(_elapsed) => Err(io::Error::other("the disk does not answer")),
    }
}

/// What is fixed when the process starts.
fn needs_restart(old: &Settings, new: &Settings) -> Vec<String> {
    // Certificates are swapped by address; the rest of a listener is as it was opened.
    let fixed = |settings: &Settings| {
        let listeners = settings.listeners.iter();
        let parts = listeners.map(|l| (l.address, (l.plain_http, l.proxy_protocol_from.clone())));
        parts.collect::<BTreeMap<_, _>>()
    };
    let tls = |settings: &Settings| {
        let tls = &settings.tls;
        let handshakes = (tls.handshakes_max, tls.handshakes_per_address);
        (tls.allow_tls12, tls.handshake_timeout, handshakes)
    };
    [
        ("listeners", fixed(old) != fixed(new)),
        ("workers", old.workers != new.workers),
        ("tls", tls(old) != tls(new)),
        (
            "limits.connections",
            old.limits.connections != new.limits.connections,
        ),
        ("admin.address", old.admin != new.admin),
        (
            "logging",
            (old.logging.json, &old.logging.level) != (new.logging.json, &new.logging.level),
        ),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(key, _)| format!("{key} changed and takes effect when mapigate is restarted"))
    .collect()
}

/// Tells the metrics when the certificates in force expire.
fn announce_certificates(runtime: &Runtime) {
    let snapshot = runtime.snapshot();
    let certificates = snapshot
        .settings
        .listeners
        .iter()
        .flat_map(|l| &l.certificates);
    let named = certificates.filter_map(|c| Some((c.names.first()?.as_str(), c.not_after)));
    runtime.metrics.set_certificates(named);
}

/// The next change of a file, or never where none are watched.
async fn changed(files: Option<&mut FileWatch>) {
    match files {
        Some(files) => files.changed().await,
        None => std::future::pending().await,
    }
}

enum Words {
    Reloading,
    Ready,
}

/// systemd waits for these; without it nothing happens.
fn tell_supervisor(words: Words) {
    let told = match words {
        Words::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Words::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
    };
    if let Err(error) = told {
        warn!(%error, "the service manager could not be told");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "upkeep asks the clock for the rooms below"
)]
fn clock() -> SystemTime {
    SystemTime::now()
}

/// Reloads that may wait for their turn; more wait for a place.
const ASKS_MAX: usize = 64;
/// A log is opened within this long, or its disk hangs.
const OPENING_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_whose_disk_hangs_is_not_waited_for() {
        let turn = Arc::new(Semaphore::new(1));
        let (answer, disk) = std::sync::mpsc::channel();
        let open = move || disk.recv().map_err(io::Error::other);

        let hangs = within(Duration::ZERO, &turn, open).await;
        let still = within(Duration::from_secs(10), &turn, || Ok(())).await;

        assert_eq!(hangs.unwrap_err().to_string(), "the disk does not answer");
        assert!(still.is_err());
        answer.send(()).unwrap();
        // The turn is given back when the disk has answered.
        drop(turn.acquire().await.unwrap());
        assert!(
            within(Duration::from_secs(10), &turn, || Ok(()))
                .await
                .is_ok()
        );
    }
}
