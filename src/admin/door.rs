//! The administrator's socket: few connections, on one thread, with Pingora's HTTP server behind it.

use super::Admin;
use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::apps::http_app::HttpServer;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

/// A bound socket with what answers on it.
pub struct Door {
    app: Arc<HttpServer<Admin>>,
    socket: Option<StdListener>,
    address: SocketAddr,
    closing: Arc<Notify>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Door {
    /// Binds the address; port 0 takes a free one. A process that takes over from another binds
    /// beside it, and `closing` tells the older one to close.
    ///
    /// # Errors
    /// The address is not ours or is taken.
    pub fn bind(admin: Admin, address: SocketAddr, closing: Arc<Notify>) -> io::Result<Self> {
        let socket = bind(address)?;
        Ok(Self {
            app: Arc::new(HttpServer::new_app(admin)),
            address: socket.local_addr()?,
            socket: Some(socket),
            closing,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `closing` is rung.
    async fn serve(&mut self, shutdown: ShutdownWatch) -> io::Result<()> {
        let Some(socket) = self.socket.take() else {
            return Ok(());
        };
        let socket = TcpListener::from_std(socket)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = self.closing.notified() => return Ok(()),
            };
            let Ok((connection, _)) = accepted else {
                // No descriptor left, most likely; they come back.
                tokio::time::sleep(BREATH).await;
                continue;
            };
            // Over the cap the newcomer is closed: monitoring asks again.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let (app, shutdown) = (Arc::clone(&self.app), shutdown.clone());
            tokio::spawn(async move {
                // Pingora answers request after request on it, and closes it.
                app.process_new(Box::new(Stream::from(connection)), &shutdown)
                    .await;
                drop(place);
            });
        }
    }
}

#[async_trait]
impl Service for Door {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        if let Err(error) = self.serve(shutdown).await {
            tracing::error!(%error, "the admin address is not served");
        }
    }

    fn name(&self) -> &'static str {
        "admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        // Its socket is not handed over.
        Some(Vec::new())
    }
}

fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(64)?;
    Ok(socket.into())
}

/// Monitoring needs a few, a page a few more.
const CONNECTIONS_MAX: usize = 64;
/// Between two attempts to accept when descriptors are short.
const BREATH: Duration = Duration::from_millis(100);
