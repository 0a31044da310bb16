//! Connections to mailbox servers.

mod defences;
pub mod leg;
pub mod pool;

pub(crate) use defences::stands;
pub use leg::Leg;

use crate::accounting::Unbilled;
use crate::certs::{CertError, client_config};
use crate::config::settings::Server;
use crate::ids::ServerName;
use crate::metrics::{Metrics, ServerMeters};
use hashbrown::HashMap;
use rustix::io::Errno;
use rustls::pki_types::ServerName as TlsName;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

/// A mailbox server as this generation knows it.
pub struct BackServer {
    settings: Arc<Server>,
    /// Differs for each definition of a server that has ever been: a pooled connection opened under
    /// one address, authority or certificate is never used under another.
    key: u64,
    tls: Option<(TlsConnector, TlsName<'static>)>,
    meters: OnceLock<ServerMeters>,
}

impl std::fmt::Debug for BackServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackServer")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Why a server of the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Its TLS settings make no configuration.
    #[error("server {server}: {cause}")]
    Tls {
        /// The server.
        server: ServerName,
        /// Why.
        cause: CertError,
    },
    /// `tls.name` is neither a host name nor an address.
    #[error("server {server}: `{name}` is not a name a certificate can carry")]
    Name {
        /// The server.
        server: ServerName,
        /// The name.
        name: String,
    },
}

/// Why there is no connection. Nothing of a request was written.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The deadline passed.
    #[error("no connection within {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The system refused.
    #[error("{0}")]
    Io(io::Error),
    /// The server's certificate, name or TLS version does not do.
    #[error("TLS: {0}")]
    Tls(io::Error),
}

impl ConnectError {
    /// True where it is we who lack something, descriptors or memory: that says nothing of the server.
    pub fn is_ours(&self) -> bool {
        const OURS: [Errno; 5] = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::ADDRNOTAVAIL,
        ];
        match self {
            Self::Io(error) => {
                Errno::from_io_error(error).is_some_and(|errno| OURS.contains(&errno))
            }
            Self::Deadline(_) | Self::Tls(_) => false,
        }
    }
}

impl BackServer {
    fn new(settings: Arc<Server>) -> Result<Self, BackendError> {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let server = || settings.name.clone();
        let tls = match &settings.tls {
            None => None,
            Some(tls) => {
                let config = client_config(tls).map_err(|cause| BackendError::Tls {
                    server: server(),
                    cause,
                })?;
                let name = TlsName::try_from(tls.name.clone()).map_err(|_not_a_name| {
                    BackendError::Name {
                        server: server(),
                        name: tls.name.clone(),
                    }
                })?;
                Some((TlsConnector::from(config), name))
            }
        };
        Ok(Self {
            settings,
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            tls,
            meters: OnceLock::new(),
        })
    }

    /// Its counters, resolved once.
    pub fn meters(&self, metrics: &Metrics) -> &ServerMeters {
        self.meters.get_or_init(|| metrics.server(self.name()))
    }

    /// What the configuration says about it.
    pub fn settings(&self) -> &Server {
        &self.settings
    }

    /// Its name.
    pub fn name(&self) -> &ServerName {
        &self.settings.name
    }

    /// A kept connection of this worker and lane. Dead ones are dropped on the way. No system call
    /// unless something did arrive on it.
    pub fn reuse(&self, lane: Option<u128>, now: Instant) -> Option<Leg> {
        pool::take(self.key, lane, now)
    }

    /// A new connection, TLS included, within the deadline. `unbilled` takes the bytes that nobody is
    /// billed for. The future is large: box it.
    ///
    /// # Errors
    /// Why not; nothing of a request was written.
    pub async fn connect(
        &self,
        deadline: Duration,
        unbilled: Option<Arc<dyn Unbilled>>,
    ) -> Result<Leg, ConnectError> {
        let connecting = leg::connect(&self.settings, self.tls.as_ref(), unbilled);
        tokio::time::timeout(deadline, connecting)
            .await
            .map_err(|_elapsed| ConnectError::Deadline(deadline))?
    }

    /// Keeps a connection whose last exchange ended cleanly; over `idle_connections` it is closed.
    pub fn give_back(&self, leg: Leg, lane: Option<u128>, now: Instant) {
        let (cap, until) = (
            self.settings.idle_connections_max,
            now + self.settings.idle_timeout,
        );
        pool::keep(self.key, lane, leg, until, cap);
    }
}

/// The servers of one generation by name.
#[derive(Debug, Default)]
pub struct Backends(HashMap<ServerName, Arc<BackServer>>);

impl Backends {
    /// Makes what the settings say. A server whose definition did not change keeps its kept connections
    /// and its TLS sessions.
    ///
    /// # Errors
    /// Every server that cannot be used.
    pub fn new(
        servers: &BTreeMap<ServerName, Arc<Server>>,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<BackendError>> {
        let mut by_name = HashMap::with_capacity(servers.len());
        let mut problems = Vec::new();
        for (name, settings) in servers {
            let kept = previous
                .and_then(|previous| previous.0.get(name))
                .filter(|kept| kept.settings == *settings);
            match kept.map_or_else(
                || BackServer::new(settings.clone()).map(Arc::new),
                |kept| Ok(kept.clone()),
            ) {
                Ok(server) => {
                    by_name.insert(name.clone(), server);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(Self(by_name))
        } else {
            Err(problems)
        }
    }

    /// The server of this name.
    pub fn get(&self, name: &ServerName) -> Option<&Arc<BackServer>> {
        self.0.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<BackServer>> {
        self.0.values()
    }
}
