//! Signals, and the ways a process ends.
//!
//! Pingora's own way sleeps its whole grace period and then cuts what is left. We drain ourselves:
//! connections are asked to leave at their next good moment, held polls end in-band, and the process
//! goes as soon as the last of them has gone.

use super::sockets::Sockets;
use crate::runtime::Runtime;
use crate::upkeep::Reloader;
use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use sd_notify::NotifyState;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{error, info, warn};

/// Waits for the end, and brings it about.
pub(super) struct Departure {
    pub(super) runtime: Arc<Runtime>,
    pub(super) reloader: Reloader,
    pub(super) sockets: Sockets,
    pub(super) upgrade_socket: PathBuf,
    /// An administrator asks us to leave.
    pub(super) drain: Arc<Notify>,
    /// Closes the admin address, where another process of ours has it too.
    pub(super) door_closing: Arc<Notify>,
}

/// The signals we answer to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hangup: Signal,
    reopen: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }
}

#[async_trait]
impl ShutdownSignalWatch for Departure {
    /// Returns when nothing is under way any more, or nobody wants to wait for it: Pingora is then
    /// told to stop at once.
    async fn recv(&self) -> ShutdownSignal {
        match Signals::listen() {
            Ok(mut signals) => self.stay_and_leave(&mut signals).await,
            Err(error) => error!(%error, "signals cannot be heard"),
        }
        ShutdownSignal::FastShutdown
    }
}

impl Departure {
    async fn stay_and_leave(&self, signals: &mut Signals) {
        let mut readiness = interval(READINESS);
        let mut is_open = false;
        let mut hand_over = None;
        loop {
            tokio::select! {
                _ = readiness.tick(), if !is_open => {
                    is_open = self.runtime.is_open();
                    if is_open {
                        // Who waits for the directory serves what needs no directory.
                        match self.runtime.is_ready() {
                            true => info!("ready"),
                            false => info!("open, and not ready: the directory has not told yet where databases are"),
                        }
                        // A process that took over is not the one the service manager started.
                        tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
                    }
                }
                _ = signals.hangup.recv() => {
                    info!("reload asked for by signal");
                    let reloader = self.reloader.clone();
                    tokio::spawn(async move { reloader.request().await });
                }
                _ = signals.reopen.recv() => self.reopen_logs(),
                _ = signals.interrupt.recv() => {
                    info!("interrupted, stopping at once");
                    tell(&[NotifyState::Stopping]);
                    return;
                }
                _ = signals.terminate.recv() => {
                    info!("stopping when idle");
                    tell(&[NotifyState::Stopping]);
                    break;
                }
                () = self.drain.notified() => {
                    tell(&[NotifyState::Stopping]);
                    break;
                }
                _ = signals.quit.recv(), if hand_over.is_none() => {
                    hand_over = Some(self.begin_hand_over());
                }
                sent = outcome(hand_over.as_mut()) => {
                    hand_over = None;
                    match sent {
                        Ok(()) => {
                            info!("sockets handed over, leaving when idle");
                            // The service goes on in the other process: no word of stopping.
                            self.door_closing.notify_one();
                            break;
                        }
                        // Nobody took them, and somebody has to serve.
                        Err(error) => error!("sockets not handed over, serving on: {error:#}"),
                    }
                }
            }
        }
        self.runtime.leave();
        self.wait_for_the_last(signals).await;
    }

    /// Opens the logs of requests anew, as whoever has moved their files asks.
    fn reopen_logs(&self) {
        let runtime = Arc::clone(&self.runtime);
        // A path may block: not on a thread that others wait for.
        tokio::task::spawn_blocking(move || {
            let world = runtime.snapshot();
            match runtime.journal.reopen(&world.settings.logging) {
                Ok(()) => info!("logs of requests opened anew"),
                Err(error) => {
                    error!(%error, "logs of requests not opened anew, lines keep going where they went");
                }
            }
        });
    }

    /// Begins to give the listening sockets to the process that waits for them. It takes seconds to
    /// learn that nobody waits, and meanwhile other signals are heard.
    fn begin_hand_over(&self) -> HandOver {
        info!(socket = %self.upgrade_socket.display(), "handing the sockets over");
        let (sockets, path) = (self.sockets.clone(), self.upgrade_socket.clone());
        tokio::spawn(async move {
            tokio::task::spawn_blocking(move || sockets.send(&path)).await??;
            // The other process looks for them once a second: until then clients come to us.
            tokio::time::sleep(OVERLAP).await;
            Ok(())
        })
    }

    /// Waits until every listener and connection is gone, or `limits.drain` is over, or somebody
    /// insists.
    async fn wait_for_the_last(&self, signals: &mut Signals) {
        let limit = self.runtime.snapshot().settings.limits.drain;
        #[expect(clippy::disallowed_methods, reason = "the roof asks the clock")]
        let began = Instant::now();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = began;
        loop {
            tokio::select! {
                now = looks.tick() => {
                    let left = self.runtime.listeners_and_connections();
                    if left == 0 {
                        info!(took = %rounded(now - began), "idle");
                        return;
                    }
                    if now - told >= TELL {
                        told = now;
                        info!(connections = left, "draining");
                    }
                }
                () = sleep_until(began + limit) => {
                    let left = self.runtime.listeners_and_connections();
                    warn!(connections = left, "limits.drain is over, the rest is cut");
                    return;
                }
                _ = signals.interrupt.recv() => break,
                _ = signals.terminate.recv() => break,
                _ = signals.hangup.recv() => {}
                _ = signals.reopen.recv() => self.reopen_logs(),
                _ = signals.quit.recv() => {}
            }
        }
        let left = self.runtime.listeners_and_connections();
        warn!(connections = left, "told again, the rest is cut");
    }
}

type HandOver = JoinHandle<anyhow::Result<()>>;

/// How the hand-over ended; waits for ever where none was begun.
async fn outcome(hand_over: Option<&mut HandOver>) -> anyhow::Result<()> {
    match hand_over {
        Some(under_way) => under_way.await?,
        None => std::future::pending().await,
    }
}

fn rounded(took: Duration) -> impl std::fmt::Display {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis))
}

/// systemd waits for these; without it nothing happens.
fn tell(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        warn!(%error, "the service manager could not be told");
    }
}

/// How soon after the listener the service manager knows.
const READINESS: Duration = Duration::from_millis(10);
/// How soon after the last connection the process is gone.
const LOOK: Duration = Duration::from_millis(20);
/// Both processes accept for this long.
const OVERLAP: Duration = Duration::from_secs(2);
/// How often a drain says how far it is.
const TELL: Duration = Duration::from_secs(10);
