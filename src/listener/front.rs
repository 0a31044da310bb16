//! One listening address: its socket, its TLS, its limits.

use crate::certs::{CertError, FrontTls};
use crate::config::Settings;
use crate::config::settings::IpNet;
use parking_lot::Mutex;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;

/// One listening address.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    bound: OnceLock<SocketAddr>,
    tls: Option<FrontTls>,
    proxy_protocol_from: Vec<IpNet>,
    pub(super) handshake_timeout: Duration,
    pub(super) limits: Arc<FrontLimits>,
}

/// What all addresses share.
#[derive(Debug)]
pub(super) struct FrontLimits {
    pub(super) connections: Arc<Semaphore>,
    pub(super) handshakes: Semaphore,
}

impl Front {
    /// As configured; port 0 asks the system for one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As it came to be, once the socket is open.
    pub fn bound(&self) -> Option<SocketAddr> {
        self.bound.get().copied()
    }

    pub(super) fn set_bound(&self, address: SocketAddr) {
        let _twice_the_same = self.bound.set(address);
    }

    /// The TLS configuration; `None` on a plain listener.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(FrontTls::config)
    }

    /// True where this peer must begin with a PROXY protocol head, and is believed.
    pub(super) fn expects_proxy_head(&self, peer: IpAddr) -> bool {
        self.proxy_protocol_from
            .iter()
            .any(|net| net.contains(peer))
    }
}

/// All listening addresses.
#[derive(Debug)]
pub struct Fronts {
    fronts: Vec<Arc<Front>>,
    ticket_rotation: Duration,
    sockets: Mutex<Vec<TcpListener>>,
}

impl Fronts {
    /// What the settings say; opens no socket yet.
    ///
    /// # Errors
    /// A certificate that rustls refuses.
    pub fn new(settings: &Settings) -> Result<Self, CertError> {
        let limits = Arc::new(FrontLimits {
            connections: Arc::new(Semaphore::new(
                settings.limits.connections.min(Semaphore::MAX_PERMITS),
            )),
            handshakes: Semaphore::new(settings.tls.handshakes_max.min(Semaphore::MAX_PERMITS)),
        });
        let mut fronts = Vec::with_capacity(settings.listeners.len());
        for listener in &settings.listeners {
            let tls = match listener.plain_http {
                true => None,
                false => Some(FrontTls::new(&settings.tls, &listener.certificates)?),
            };
            fronts.push(Arc::new(Front {
                address: listener.address,
                bound: OnceLock::new(),
                tls,
                proxy_protocol_from: listener.proxy_protocol_from.clone(),
                handshake_timeout: settings.tls.handshake_timeout,
                limits: limits.clone(),
            }));
        }
        Ok(Self {
            fronts,
            ticket_rotation: settings.tls.ticket_rotation,
            sockets: Mutex::default(),
        })
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Front>> {
        self.fronts.iter()
    }

    /// What a running process cannot change about how it listens; empty where the settings change
    /// nothing of it.
    pub fn fixed(&self, settings: &Settings) -> Vec<String> {
        let same = self.fronts.len() == settings.listeners.len()
            && self
                .fronts
                .iter()
                .zip(&settings.listeners)
                .all(|(front, listener)| {
                    front.address == listener.address
                        && front.tls.is_none() == listener.plain_http
                        && front.proxy_protocol_from == listener.proxy_protocol_from
                });
        if same {
            return Vec::new();
        }
        vec![
            "listeners: addresses, plain_http and proxy_protocol_from cannot change while running; \
             restart, or hand over to a new process with --upgrade"
                .to_owned(),
        ]
    }

    /// Replaces the certificates; connections are not touched. Call it only for settings of which
    /// [`Self::fixed`] has nothing to say.
    ///
    /// # Errors
    /// A certificate that rustls refuses; those before it are in use.
    pub fn swap_certificates(&self, settings: &Settings) -> Result<(), CertError> {
        for (front, listener) in self.fronts.iter().zip(&settings.listeners) {
            if let Some(tls) = &front.tls {
                tls.swap_certificates(&listener.certificates)?;
            }
        }
        Ok(())
    }

    /// How often [`Self::rotate_tickets`] is to be called.
    pub fn ticket_rotation(&self) -> Duration {
        self.ticket_rotation
    }

    /// Begins new ticket keys; the last ones stay good for one more turn.
    ///
    /// # Errors
    /// The system gives no random bytes; the old keys stay.
    pub fn rotate_tickets(&self) -> Result<(), CertError> {
        self.fronts
            .iter()
            .filter_map(|front| front.tls.as_ref())
            .try_for_each(FrontTls::rotate_tickets)
    }

    pub(super) fn keep(&self, sockets: Vec<TcpListener>) {
        *self.sockets.lock() = sockets;
    }
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
