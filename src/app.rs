//! The whole, put together.

mod departure;
mod sockets;
mod sparing;
mod words;

use crate::admin::{Admin, Door};
use crate::channels::ChannelTable;
use crate::config::{self, Loaded, Problem, Settings, Severity};
use crate::journal::Journal;
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::placement::Reading;
use crate::runtime::{Runtime, Sighting, Snapshot, book};
use crate::sessions::SessionTable;
use crate::upkeep::{Loader, Reloader, Upkeep, read_copies};
use anyhow::{Context, anyhow, bail};
use async_trait::async_trait;
use departure::Departure;
use parking_lot::Mutex;
use pingora_core::server::configuration::{Opt, ServerConf};
use pingora_core::server::{RunArgs, Server, ShutdownWatch};
use pingora_core::services::background::{BackgroundService, background_service};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sockets::{Sockets, make_folder, upgrade_socket};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tracing::{info, warn};

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// The configuration file.
    pub config: PathBuf,
    /// Take the listening sockets over from a process that is told SIGQUIT meanwhile.
    pub takes_over: bool,
    /// Where sockets are handed over; `None`: a private folder of the service or the user.
    pub upgrade_socket: Option<PathBuf>,
    /// Where our process number is written while we run.
    pub pid_file: Option<PathBuf>,
}

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong; every problem with its place and its cure.
    #[error("{0}")]
    Configuration(String),
    /// The system does not give what is needed.
    #[error("{0:#}")]
    System(#[from] anyhow::Error),
}

/// Runs until a signal or an administrator ends it, and what was under way has been finished.
///
/// # Errors
/// Whatever keeps the process from starting. Once it serves, nothing ends it but being told to.
pub fn run(start: &Start) -> Result<(), StartError> {
    let (now, wall) = clocks();
    let Loaded { settings, warnings } = config::load(&start.config, unix_seconds(wall))
        .map_err(|problems| StartError::Configuration(problems.to_string()))?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    // Its end is ours: every line is written before whoever started us says why we ended.
    let _words = words::begin(&settings.logging, metrics.operator_log_dropped())?;
    for warning in &warnings.0 {
        warn!("{}", in_a_line(warning));
    }
    allow_many_descriptors();
    let (runtime, seen) = world(settings, metrics, (now, wall))?;
    serve(start, runtime, seen, now)?;
    Ok(())
}

/// The first world, and the tables around it.
fn world(
    settings: Settings,
    metrics: Metrics,
    started: (Instant, SystemTime),
) -> Result<(Arc<Runtime>, mpsc::Receiver<Sighting>), StartError> {
    let journal = Journal::start(&settings.logging, &metrics).context("logging.access")?;
    let mut hash_key = [0; 16];
    aws_lc_rs::rand::fill(&mut hash_key)
        .map_err(|_unspecified| anyhow!("the system gives no random bytes"))?;
    let sessions = SessionTable::new(settings.sessions.capacity, hash_key, started.0);
    let channels = ChannelTable::new(settings.limits.virtual_connections, hash_key, started.0);
    let first = Snapshot::build(settings, None)
        .map_err(|problems| StartError::Configuration(problems.join("\n")))?;
    let since = started.1.duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics.started(since.as_secs_f64());
    Ok(Runtime::new(
        first,
        (sessions, channels),
        metrics,
        journal,
        started,
    ))
}

fn serve(
    start: &Start,
    runtime: Arc<Runtime>,
    seen: mpsc::Receiver<Sighting>,
    now: Instant,
) -> anyhow::Result<()> {
    let world = runtime.snapshot();
    let upgrade_socket = upgrade_socket(start.upgrade_socket.as_deref())?;
    let options = Opt {
        upgrade: start.takes_over,
        ..Opt::default()
    };
    let conf = ServerConf {
        threads: 1,
        // A connection stays on the worker that accepted it: pools and buffers are the worker's own.
        work_stealing: false,
        upgrade_sock: upgrade_socket.display().to_string(),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(options, conf);
    let mut listener = Listener::new(Arc::clone(&runtime)).context("listeners")?;
    if !start.takes_over {
        listener.bind()?;
    }
    let load = loader(start.config.clone());
    let (upkeep, reloader) = Upkeep::new(Arc::clone(&runtime), seen, load, listener.fronts(), now);
    let (drain, door_closing) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    if let Some(address) = world.settings.admin.address {
        let admin = Admin::new(Arc::clone(&runtime), reloader.clone(), Arc::clone(&drain));
        let door = Door::bind(admin, address, Arc::clone(&door_closing))
            .with_context(|| format!("admin.address {address}"))?;
        info!(address = %door.address(), "admin address open");
        server.add_service(door);
    }
    let sockets = Sockets::default();
    server.add_service(sockets.clone());
    server.add_service(listener);
    server.add_service(background_service(
        "upkeep",
        Loops(Mutex::new(Some(upkeep))),
    ));

    let _pid_file = start.pid_file.as_deref().map(PidFile::write).transpose()?;
    drop(world);
    learn_of_copies(&runtime, start.takes_over)?;
    let world = runtime.snapshot();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        generation = world.generation.0,
        config = %world.settings.source.display(),
        servers = world.settings.servers.len(),
        databases = world.placement.iter().count(),
        mailboxes = world.directory.len(),
        "starting"
    );
    drop(world);
    if start.takes_over {
        // Last of all: whatever could be wrong with us leaves the running process in service.
        make_folder(&upgrade_socket)?;
        info!(socket = %upgrade_socket.display(), "waiting for the sockets of the running process");
    }
    server.bootstrap();
    let departure = departure(
        &runtime,
        &reloader,
        sockets,
        upgrade_socket,
        drain,
        door_closing,
    );
    server.run(RunArgs {
        shutdown_signal: Box::new(departure),
    });
    if !runtime.journal.close(FLUSH) {
        warn!(
            dropped = runtime.journal.dropped(),
            "access lines could not all be written"
        );
    }
    info!("stopped");
    Ok(())
}

/// Asks the directory where databases are before anybody is served, where it is to say so. Who takes over does not
/// begin without: the running process knows.
fn learn_of_copies(runtime: &Runtime, must_know: bool) -> anyhow::Result<()> {
    let world = runtime.snapshot();
    if !world.placement.homes().is_awaited() {
        return Ok(());
    }
    // Of a book and a reactor of its own: what is begun here ends here.
    let alone = Snapshot {
        book: book(&world.settings, None).map_err(|problem| anyhow!(problem))?,
        ..Snapshot::clone(&world)
    };
    let reactor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let told = reactor.block_on(async { timeout(FIRST_WORD, read_copies(&alone)).await });
    match told {
        Ok(told) if !told.placement.homes().is_awaited() => {
            let copies = Reading::clone(&told.copies);
            runtime.publish(|first| first.told(copies.clone()));
        }
        Ok(told) if must_know => {
            let trouble = told.copies.trouble.as_deref().unwrap_or_default();
            bail!("databases.copies_from: {trouble}");
        }
        Err(_elapsed) if must_know => {
            bail!("databases.copies_from: the directory did not answer in time")
        }
        // It will be asked again.
        _ => {}
    }
    Ok(())
}

fn departure(
    runtime: &Arc<Runtime>,
    reloader: &Reloader,
    sockets: Sockets,
    upgrade_socket: PathBuf,
    drain: Arc<Notify>,
    door_closing: Arc<Notify>,
) -> Departure {
    Departure {
        runtime: Arc::clone(runtime),
        reloader: reloader.clone(),
        sockets,
        upgrade_socket,
        drain,
        door_closing,
    }
}

/// How the configuration is read again: as at the start, each problem a text of its own.
fn loader(file: PathBuf) -> Loader {
    Arc::new(move || {
        let texts = |problems: &[Problem]| problems.iter().map(in_a_line).collect::<Vec<_>>();
        match config::load(&file, unix_seconds(clocks().1)) {
            Ok(Loaded { settings, warnings }) => Ok((settings, texts(&warnings.0))),
            Err(problems) => Err(texts(&problems.0)),
        }
    })
}

/// A problem in the one line that a log wants: place first, as editors jump to it.
fn in_a_line(problem: &Problem) -> String {
    let Problem {
        file,
        line,
        column,
        path,
        what,
        cure,
        ..
    } = problem;
    let severity = match problem.severity {
        Severity::Error => "",
        Severity::Warning => "warning: ",
    };
    let meant = problem
        .did_you_mean
        .as_ref()
        .map(|word| format!("; did you mean {word}?"));
    let colon = if path.is_empty() { "" } else { ": " };
    format!(
        "{}:{line}:{column}: {severity}{path}{colon}{what}; {cure}{}",
        file.display(),
        meant.unwrap_or_default()
    )
}

/// The loops of upkeep as a service.
struct Loops(Mutex<Option<Upkeep>>);

#[async_trait]
impl BackgroundService for Loops {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let upkeep = self.0.lock().take();
        if let Some(upkeep) = upkeep {
            upkeep.run().await;
        }
    }
}

/// Our process number in a file, for as long as we run.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> anyhow::Result<Self> {
        fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("pid file {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A process that took over from us has written its own number.
        let ours = std::process::id().to_string();
        if fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == ours) {
            // Nobody is left whom a stale file could be reported to.
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// Each held poll needs two descriptors: the soft limit that shells give is for other programs.
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, current = ?limit.current, "limit of open files not raised");
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the roof asks the clock for the rooms below"
)]
fn clocks() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

/// The directory gets this long to say where databases are before we begin.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// The disk gets this long for the last access lines.
const FLUSH: Duration = Duration::from_secs(5);
