//! A mailbox server behind RPC over HTTP, and both proxies of the protocol with it.
//!
//! A session lives as long as the virtual connection it was opened on: when either channel is lost, it is gone.

mod channels;
mod line;
mod store;
mod virtual_connection;

use super::window::WINDOW;
use crate::ids::{ServerName, UserName};
use crate::lab::mailbox_server::Users;
use crate::lab::mailbox_server::connection::read_basic;
use crate::lab::mailbox_server::http::{Head, Inbound};
use crate::rpch::Cookie;
use crate::rpch::verbs::LIFETIME;
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use virtual_connection::Virtual;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: ServerName,
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// TLS, or none.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who may come in. With any, credentials of every scheme are taken.
    pub users: Users,
    /// Room for what the client sends, in bytes.
    pub window: u32,
    /// Bytes after which an OUT channel asks for a successor.
    pub out_lifetime: u32,
    /// Idle time it announces.
    pub connection_timeout: Duration,
    /// How long one channel waits for the other.
    pub partner_timeout: Duration,
    /// How long a wait for events is held at most.
    pub wait_limit: Duration,
    /// Bytes of the ROP buffer in the answer to an operation that asks for no size.
    pub answer_bytes: usize,
}

impl Options {
    /// A server that lets everybody in.
    pub fn new(name: &str) -> Self {
        Self {
            name: ServerName::new(name),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            users: Users::Any,
            window: WINDOW,
            // Room is left to carry on until the successor is there.
            out_lifetime: LIFETIME - (4 << 20),
            connection_timeout: Duration::from_secs(120),
            partner_timeout: Duration::from_secs(10),
            wait_limit: Duration::from_secs(300),
            answer_bytes: 4096,
        }
    }
}

/// A running server. Dropping it ends it and every connection.
#[derive(Debug)]
pub struct RpcServer {
    server: Arc<Server>,
    acceptor: JoinHandle<()>,
    address: SocketAddr,
}

/// What the tasks of one server share.
#[derive(Debug)]
struct Server {
    options: Options,
    virtuals: Mutex<HashMap<Cookie, Arc<Virtual>>>,
    heads: Mutex<VecDeque<Vec<u8>>>,
    /// Counts up when something happened that waits are told of.
    events: watch::Sender<u64>,
    /// Counts up when connections are cut.
    cut: watch::Sender<u64>,
    open: AtomicUsize,
    sessions: AtomicU64,
    executes: AtomicU64,
    successors: AtomicU64,
    waits: AtomicUsize,
}

impl RpcServer {
    /// Starts a server on the current runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn spawn(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let server = Arc::new(Server::new(options));
        let acceptor = tokio::spawn(accept(Arc::clone(&server), listener));
        Ok(Self {
            server,
            acceptor,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Something happened: everybody who waits is told.
    pub fn wake(&self) {
        self.server.events.send_modify(|count| *count += 1);
    }

    /// Ends every connection now; new ones are accepted.
    pub fn cut_connections(&self) {
        self.server.cut.send_modify(|count| *count += 1);
    }

    /// TCP connections open now.
    pub fn connections_open(&self) -> usize {
        self.server.open.load(Ordering::Relaxed)
    }

    /// The last request heads as they were on the wire, oldest first.
    pub fn heads(&self) -> Vec<Vec<u8>> {
        self.server.heads.lock().iter().cloned().collect()
    }

    /// Signs of life sent on the virtual connections that are open now.
    pub fn pings(&self) -> u64 {
        let virtuals = self.server.virtuals.lock();
        virtuals.values().map(|found| found.pings()).sum()
    }

    /// Virtual connections of which a channel is open now.
    pub fn virtual_connections(&self) -> usize {
        self.server.virtuals.lock().len()
    }

    /// Sessions opened so far.
    pub fn sessions_opened(&self) -> u64 {
        self.server.sessions.load(Ordering::Relaxed)
    }

    /// Calls of `EcDoRpcExt2` so far.
    pub fn executes(&self) -> u64 {
        self.server.executes.load(Ordering::Relaxed)
    }

    /// Channels that took over from another so far.
    pub fn successors(&self) -> u64 {
        self.server.successors.load(Ordering::Relaxed)
    }

    /// Waits for events held now.
    pub fn waits_held(&self) -> usize {
        self.server.waits.load(Ordering::Relaxed)
    }
}

impl Drop for RpcServer {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.cut_connections();
    }
}

/// The protocol without a door of its own, for a server that has one.
#[derive(Debug)]
pub(in crate::lab) struct Room(Arc<Server>);

impl Room {
    pub(in crate::lab) fn new(options: Options) -> Self {
        Self(Arc::new(Server::new(options)))
    }

    /// Serves a request of the protocol. The connection comes back where it can carry another.
    pub(in crate::lab) async fn speak(
        &self,
        inbound: Inbound,
        head: &Head,
    ) -> io::Result<Option<Inbound>> {
        channels::speak(&self.0, inbound, head).await
    }
}

impl Server {
    fn new(options: Options) -> Self {
        Self {
            options,
            virtuals: Mutex::default(),
            heads: Mutex::default(),
            events: watch::Sender::new(0),
            cut: watch::Sender::new(0),
            open: AtomicUsize::new(0),
            sessions: AtomicU64::new(0),
            executes: AtomicU64::new(0),
            successors: AtomicU64::new(0),
            waits: AtomicUsize::new(0),
        }
    }

    fn record(&self, head: &[u8]) {
        let mut heads = self.heads.lock();
        if heads.len() >= HEADS_KEPT {
            heads.pop_front();
        }
        heads.push_back(head.to_vec());
    }

    /// Who asks, by the value of `Authorization`.
    fn user(&self, authorization: Option<&str>) -> Option<UserName> {
        let authorization = authorization?;
        match (&self.options.users, read_basic(authorization)) {
            (Users::Any, Some((user, _))) => Some(user),
            (Users::Any, None) => Some(UserName::new("anybody")),
            (Users::Listed(users), Some((user, password))) => users
                .get(&user)
                .is_some_and(|known| *known == password)
                .then_some(user),
            (Users::Listed(_), None) => None,
        }
    }

    /// The virtual connection of this name: made by whichever channel comes first. Another user's is not found.
    fn virtual_connection(&self, cookie: Cookie, user: &UserName) -> Option<Arc<Virtual>> {
        let mut virtuals = self.virtuals.lock();
        let found = virtuals
            .entry(cookie)
            .or_insert_with(|| Arc::new(Virtual::new(user.clone(), self.options.window)));
        found.is_of(user).then(|| Arc::clone(found))
    }

    /// A channel was lost, and with it everything it was for.
    fn end(&self, cookie: Cookie) {
        if let Some(ended) = self.virtuals.lock().remove(&cookie) {
            ended.end();
        }
    }
}

async fn accept(server: Arc<Server>, listener: TcpListener) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            // No descriptors left: others must end first.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let open = Open::new(&server);
        let mut cut = server.cut.subscribe();
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let _open = open;
            tokio::select! {
                // However it ends, the client sees it.
                _ended = channels::serve(server, tcp) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

/// Request heads that are kept.
const HEADS_KEPT: usize = 64;

/// Counts a connection while it lives.
#[derive(Debug)]
struct Open(Arc<Server>);

impl Open {
    fn new(server: &Arc<Server>) -> Self {
        server.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(server))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
