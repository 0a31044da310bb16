//! Where clients arrive: a Pingora service with accept loops, TLS and limits of our own.
//!
//! It shares the server's life cycle (inherited sockets, shutdown watch) and takes nothing else from it:
//! each worker thread has a runtime of its own, so that a connection, its back leg and their buffers stay
//! on one thread for life.

mod accept;
mod front;
mod proxy_protocol;

pub use front::{Front, Fronts};

use crate::backend::pool;
use crate::runtime::Runtime;
use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;

/// The sockets we listen on, by address, for the process that takes over.
pub type Sockets = Arc<OnceLock<ListenFds>>;

/// The service that clients connect to.
pub struct Listener {
    runtime: Arc<Runtime>,
    fronts: Arc<Fronts>,
    sockets: Sockets,
    workers: usize,
    /// Told once, when clients can reach us or why not.
    started: Option<oneshot::Sender<io::Result<()>>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("fronts", &self.fronts)
            .finish_non_exhaustive()
    }
}

impl Listener {
    /// A service for these fronts. `started` hears once whether the sockets are open.
    pub fn new(
        runtime: Arc<Runtime>,
        fronts: Arc<Fronts>,
        sockets: Sockets,
        workers: usize,
        started: oneshot::Sender<io::Result<()>>,
    ) -> Self {
        Self {
            runtime,
            fronts,
            sockets,
            workers: workers.max(1),
            started: Some(started),
        }
    }

    fn open(&self, fds: &ListenFds) -> io::Result<Vec<(Arc<Front>, TcpListener)>> {
        let mut open = Vec::new();
        for front in self.fronts.iter() {
            let key = front.address().to_string();
            let mut fds = fds.lock();
            let inherited = fds.get(&key).copied();
            let socket = front::listen(front.address(), inherited).map_err(|cause| {
                io::Error::new(cause.kind(), format!("cannot listen on {key}: {cause}"))
            })?;
            if inherited.is_none() {
                fds.add(key, socket.as_raw_fd());
            }
            let bound = socket.local_addr()?;
            tracing::info!(address = %bound, inherited = inherited.is_some(), "listening");
            front.set_bound(bound);
            open.push((front.clone(), socket));
        }
        Ok(open)
    }

    fn start(&self, fds: &ListenFds) -> io::Result<()> {
        let sockets = self.open(fds)?;
        for number in 0..self.workers {
            let mut shares = Vec::with_capacity(sockets.len());
            for (front, socket) in &sockets {
                // One socket, a descriptor per worker: no connection waits in the queue of a worker that
                // has gone.
                shares.push((front.clone(), socket.try_clone()?));
            }
            let runtime = self.runtime.clone();
            std::thread::Builder::new()
                .name(format!("mapi-{number}"))
                .spawn(move || work(&runtime, shares))?;
        }
        // The descriptors that the next process would inherit stay open for as long as this one lives.
        self.fronts
            .keep(sockets.into_iter().map(|(_, socket)| socket).collect());
        Ok(())
    }
}

#[async_trait]
impl Service for Listener {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        mut shutdown: ShutdownWatch,
        _tasks: usize,
    ) {
        let outcome = match &fds {
            Some(fds) => self.start(fds),
            None => Err(io::Error::other("the server has no table of sockets")),
        };
        let is_started = outcome.is_ok();
        if let Some(fds) = fds {
            let _told_already = self.sockets.set(fds);
        }
        self.runtime.set_listening(is_started);
        if let Some(started) = self.started.take() {
            // Nobody listening means nobody minds.
            let _ = started.send(outcome);
        }
        let _closed = shutdown.changed().await;
        self.runtime.set_listening(false);
        self.runtime.leave();
    }

    fn name(&self) -> &'static str {
        "mapi"
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

/// One worker thread, until the process ends.
fn work(runtime: &Arc<Runtime>, shares: Vec<(Arc<Front>, TcpListener)>) {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let reactor = match built {
        Ok(reactor) => reactor,
        Err(cause) => {
            tracing::error!(%cause, "a worker thread has no reactor and serves nobody");
            return;
        }
    };
    reactor.block_on(async {
        for (front, socket) in shares {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => {
                    tokio::spawn(accept::accept_loop(socket, front, runtime.clone()));
                }
                Err(cause) => {
                    tracing::error!(%cause, "a worker thread cannot use a listening socket")
                }
            }
        }
        retire_legs().await;
    });
}

/// Closes this worker's kept connections that are over their time or have turned readable.
async fn retire_legs() {
    let mut turns = tokio::time::interval(RETIRE_EVERY);
    loop {
        let now = turns.tick().await;
        pool::retire(now.into());
    }
}

/// A server's close is noticed within this; a request in between notices it by itself.
const RETIRE_EVERY: Duration = Duration::from_secs(1);
