//! One listening address: its socket, its TLS, its limits.

use super::shares::{Share, Shares};
use crate::certs::{CertError, FrontTls};
use crate::config::Settings;
use crate::config::settings::{IpNet, Listener};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// One listening address.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    tls: Option<Arc<FrontTls>>,
    proxy_protocol_from: Vec<IpNet>,
    pub(super) handshake_timeout: Duration,
    pub(super) limits: Arc<FrontLimits>,
}

/// What all addresses share.
#[derive(Debug)]
pub(super) struct FrontLimits {
    pub(super) connections: Arc<Semaphore>,
    handshakes: Semaphore,
    handshakes_of_each: Arc<Shares>,
}

impl FrontLimits {
    /// Waits for a place for a handshake of this address: first for one of its own, so that who has too many under
    /// way keeps nobody else waiting. `waits` turns true before it waits.
    pub(super) async fn handshake(
        &self,
        address: IpAddr,
        waits: &mut bool,
    ) -> io::Result<(SemaphorePermit<'_>, Share)> {
        let share = match self.handshakes_of_each.take(address) {
            Some(share) => share,
            None => {
                *waits = true;
                self.handshakes_of_each.wait(address).await?
            }
        };
        let place = match self.handshakes.try_acquire() {
            Ok(place) => place,
            Err(_none) => {
                *waits = true;
                self.handshakes.acquire().await.map_err(io::Error::other)?
            }
        };
        Ok((place, share))
    }
}

impl Front {
    /// As configured; port 0 asks the system for one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The TLS side; `None` on a plain listener.
    pub(super) fn front_tls(&self) -> Option<&Arc<FrontTls>> {
        self.tls.as_ref()
    }

    /// True where this peer must begin with a PROXY protocol head, and is believed.
    pub(super) fn expects_proxy_head(&self, peer: IpAddr) -> bool {
        self.proxy_protocol_from
            .iter()
            .any(|net| net.contains(peer))
    }
}

/// All listening addresses, in the order of the configuration; opens no socket yet.
///
/// # Errors
/// A certificate that rustls refuses.
pub(super) fn fronts(settings: &Settings) -> Result<Vec<Arc<Front>>, CertError> {
    let limits = Arc::new(FrontLimits {
        connections: Arc::new(Semaphore::new(
            settings.limits.connections.min(Semaphore::MAX_PERMITS),
        )),
        handshakes: Semaphore::new(settings.tls.handshakes_max.min(Semaphore::MAX_PERMITS)),
        handshakes_of_each: Arc::new(Shares::new(settings.tls.handshakes_per_address)),
    });
    let front = |listener: &Listener| {
        let tls = match listener.plain_http {
            true => None,
            false => Some(Arc::new(FrontTls::new(
                &settings.tls,
                &listener.certificates,
                listener.client_certificates.as_ref(),
            )?)),
        };
        Ok(Arc::new(Front {
            address: listener.address,
            tls,
            proxy_protocol_from: listener.proxy_protocol_from.clone(),
            handshake_timeout: settings.tls.handshake_timeout,
            limits: limits.clone(),
        }))
    };
    settings.listeners.iter().map(front).collect()
}

/// Takes over an inherited socket, or opens one.
pub(super) fn listen(address: SocketAddr, inherited: Option<RawFd>) -> io::Result<TcpListener> {
    let socket = match inherited {
        Some(descriptor) => {
            #[expect(
                unsafe_code,
                reason = "the old process passed this descriptor to us alone, and nothing else in this \
                          process owns it: Pingora keeps only its number"
            )]
            unsafe {
                Socket::from_raw_fd(descriptor)
            }
        }
        None => {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::STREAM,
                Some(Protocol::TCP),
            )?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            socket
        }
    };
    // Accepted connections inherit all of these: no system call for each of them.
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(VANISHED)
            .with_interval(VANISHED / 3),
    )?;
    socket.set_tcp_user_timeout(Some(VANISHED))?;
    Ok(socket.into())
}

/// Connections the kernel completes before we accept them.
const BACKLOG: i32 = 4096;
/// A client that vanished without a word is noticed after about this.
const VANISHED: Duration = Duration::from_secs(30);
