//! Where clients arrive: a Pingora service with accept loops, TLS and limits of our own.
//!
//! It shares the server's life cycle (inherited sockets, shutdown watch) and takes nothing else from it:
//! each worker thread has a runtime of its own, so that a connection, its back leg and their buffers stay
//! on one thread for life.

mod accept;
mod front;
mod proxy_protocol;
mod shares;

pub use front::Front;

use crate::accounting::meter::{Look, settle, take_between};
use crate::accounting::{Metered, Phase};
use crate::backend::pool;
use crate::certs::CertError;
use crate::metrics::Account;
use crate::runtime::Runtime;
use crate::upkeep::Fronts;
use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// The service that clients connect to.
#[derive(Debug)]
pub struct Listener {
    runtime: Arc<Runtime>,
    fronts: Vec<Arc<Front>>,
    /// Sockets opened before the service starts.
    open: Vec<TcpListener>,
}

impl Listener {
    /// A service for the listeners of the settings; opens no socket yet.
    ///
    /// # Errors
    /// A certificate that rustls refuses.
    pub fn new(runtime: Arc<Runtime>) -> Result<Self, CertError> {
        let fronts = front::fronts(&runtime.snapshot().settings)?;
        Ok(Self {
            runtime,
            fronts,
            open: Vec::new(),
        })
    }

    /// Opens the sockets now, so that a process that could not listen does not start at all. Not for a
    /// process that takes sockets over.
    ///
    /// # Errors
    /// The first address we cannot listen on.
    pub fn bind(&mut self) -> io::Result<()> {
        let listen = |front: &Arc<Front>| open(front, None);
        self.open = self.fronts.iter().map(listen).collect::<io::Result<_>>()?;
        Ok(())
    }

    /// The TLS sides, for upkeep.
    pub fn fronts(&self) -> Fronts {
        let tls = |front: &Arc<Front>| Some((front.address(), front.front_tls()?.clone()));
        self.fronts.iter().filter_map(tls).collect()
    }

    /// The sockets of every front: those opened before, else those inherited, else new ones.
    fn sockets(&mut self, fds: &ListenFds) -> Vec<(Arc<Front>, TcpListener)> {
        let mut opened = std::mem::take(&mut self.open).into_iter();
        let mut sockets = Vec::with_capacity(self.fronts.len());
        for front in &self.fronts {
            let key = front.address().to_string();
            let inherited = fds.lock().get(&key).copied();
            let socket = match opened.next() {
                Some(socket) => Ok(socket),
                None => open(front, inherited),
            };
            match socket {
                Ok(socket) => {
                    if let Ok(bound) = socket.local_addr() {
                        tracing::info!(address = %bound, inherited = inherited.is_some(), "listening");
                    }
                    if inherited.is_none() {
                        fds.lock().add(key, socket.as_raw_fd());
                    }
                    sockets.push((front.clone(), socket));
                }
                // The process that handed over has left: the other addresses must be served.
                Err(cause) => tracing::error!(%cause, "an address is not served"),
            }
        }
        sockets
    }
}

fn open(front: &Front, inherited: Option<RawFd>) -> io::Result<TcpListener> {
    front::listen(front.address(), inherited).map_err(|cause| {
        io::Error::new(
            cause.kind(),
            format!("cannot listen on {}: {cause}", front.address()),
        )
    })
}

#[async_trait]
impl Service for Listener {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        mut shutdown: ShutdownWatch,
        _tasks: usize,
    ) {
        let sockets = fds
            .as_ref()
            .map(|fds| self.sockets(fds))
            .unwrap_or_default();
        let workers = self.runtime.snapshot().settings.workers.max(1);
        let started =
            (0..workers).filter(
                |number| match start_worker(*number, &sockets, &self.runtime) {
                    Ok(()) => true,
                    Err(cause) => {
                        tracing::error!(%cause, "a worker could not be started");
                        false
                    }
                },
            );
        let is_listening = started.count() > 0 && !sockets.is_empty();
        self.runtime.set_listening(is_listening);
        // The sockets stay open here until we leave: they are what we hand over. Then they close, so
        // that a client is refused at once instead of waiting in a queue that nobody serves; a process
        // that took them over has its own.
        let mut asks = self.runtime.asks();
        tokio::select! {
            _closed = shutdown.changed() => self.runtime.leave(),
            _leaving = asks.wait_for(|ask| ask.leaving) => {}
        }
        self.runtime.set_listening(false);
        drop(sockets);
    }

    fn name(&self) -> &'static str {
        "mapi"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    /// Without this Pingora gives up cleaning inherited sockets for the whole server.
    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(
            self.fronts
                .iter()
                .map(|front| front.address().to_string())
                .collect(),
        )
    }
}

fn start_worker(
    number: usize,
    sockets: &[(Arc<Front>, TcpListener)],
    runtime: &Arc<Runtime>,
) -> io::Result<()> {
    let mut shares = Vec::with_capacity(sockets.len());
    for (front, socket) in sockets {
        // One socket, a descriptor per worker: no connection waits in the queue of a worker that is gone.
        shares.push((front.clone(), socket.try_clone()?));
    }
    let runtime = runtime.clone();
    std::thread::Builder::new()
        .name(format!("mapi-{number}"))
        .spawn(move || work(&runtime, shares))?;
    Ok(())
}

/// One worker thread, until the process ends.
fn work(runtime: &Arc<Runtime>, shares: Vec<(Arc<Front>, TcpListener)>) {
    // Threads that hash passwords and verify signatures for this worker have an account of their own.
    let built = tokio::runtime::Builder::new_current_thread()
        .thread_name("verification")
        .enable_all()
        .build();
    let reactor = match built {
        Ok(reactor) => reactor,
        Err(cause) => {
            tracing::error!(%cause, "a worker thread has no reactor and serves nobody");
            return;
        }
    };
    let look = Look::always(runtime.snapshot().settings.accounting.cpu);
    reactor.block_on(async {
        for (front, socket) in shares {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => {
                    let accepting = accept::accept_loop(socket, front, runtime.clone());
                    tokio::spawn(Metered::new(accepting, Phase::Idle, look));
                }
                Err(cause) => {
                    tracing::error!(%cause, "a worker thread cannot use a listening socket");
                }
            }
        }
        Metered::new(tidy_up(runtime), Phase::Idle, look).await;
    });
}

/// Closes this worker's kept connections that are over their time or have turned readable, and hands over
/// what it has counted of who used how much.
async fn tidy_up(runtime: &Runtime) {
    let mut turns = tokio::time::interval(TIDY_EVERY);
    loop {
        let now = turns.tick().await;
        pool::retire(now.into());
        runtime.usage.hand_over();
        runtime.metrics.cpu(Account::Pool, settle().of(Phase::Idle));
        runtime.metrics.cpu(Account::Worker, take_between());
    }
}

/// A server's close is noticed within this; a request in between notices it by itself. What the
/// administrator reads of usage is no older.
const TIDY_EVERY: Duration = Duration::from_secs(1);
