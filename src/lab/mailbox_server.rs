//! A mailbox server that speaks MAPI over HTTP as Exchange or gromox does, and can do each thing wrong.
//!
//! Byte-conformant to `[MS-OXCMAPIHTTP]` and to recorded exchanges where the two flavours differ. What it
//! executes is written into a [`Journal`] first, so that a checker can prove "at most once".
#![expect(
    clippy::disallowed_methods,
    reason = "bans expire by tokio's clock, which tests can pause"
)]

mod answers;
mod connection;
mod contexts;
pub mod control;
mod counts;
mod delivery;
mod execute;
mod faults;
mod http;
mod journal;
mod requests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use counts::Counters;
pub use faults::{Ending, Fault, Place, UnknownFault};
pub use journal::{Executed, Journal};

use crate::ids::{DatabaseName, ServerName, UserName};
use crate::mapi::{Flavour, RequestType};
use contexts::Contexts;
use counts::Counts;
use faults::Plan;
use http::Head;

/// What a server checks before it executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Stale sequences and second requests of a context are refused.
    Validating,
    /// Every Execute of a known context is executed: whoever repeats one is caught.
    Naive,
}

/// What credentials are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticate {
    /// Each request by itself.
    Requests,
    /// The connection: later requests without credentials are the same user.
    Connections,
}

/// Who may come in.
#[derive(Clone, Debug)]
pub enum Users {
    /// Everybody, with any password.
    Any,
    /// These, with these passwords. Names are lower case.
    Listed(BTreeMap<UserName, String>),
}

impl Users {
    fn names(&self) -> impl Iterator<Item = &UserName> {
        match self {
            Self::Any => None,
            Self::Listed(users) => Some(users.keys()),
        }
        .into_iter()
        .flatten()
    }
}

/// The account of a front end that names the user in a header.
#[derive(Clone, Debug)]
pub struct Service {
    /// The account.
    pub user: UserName,
    /// The header that names the user.
    pub header: String,
}

/// What the page for load balancers says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthPage {
    /// 200.
    Served,
    /// 500.
    Failing,
    /// 404.
    Missing,
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: ServerName,
    /// What it calls its host in headers and URLs.
    pub host: String,
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// TLS, with or without client certificates.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whose habits it has.
    pub flavour: Flavour,
    /// What it checks.
    pub mode: Mode,
    /// Who may come in.
    pub users: Users,
    /// What credentials are good for.
    pub authenticate: Authenticate,
    /// The account of a front end.
    pub service: Option<Service>,
    /// Databases active here at the start.
    pub databases: BTreeSet<DatabaseName>,
    /// Which database a mailbox is in, by lower-case `MailboxId`.
    pub mailboxes: HashMap<String, DatabaseName>,
    /// The database of every other mailbox.
    pub default_database: Option<DatabaseName>,
    /// Contexts of databases not active here are unknown.
    pub strict_databases: bool,
    /// `UserDn` of a Connect must be the user's own.
    pub checks_dn: bool,
    /// Idle time after which a context is gone; announced as `X-ExpirationInfo`.
    pub lifetime: Duration,
    /// Time between PENDINGs; announced as `X-PendingPeriod`.
    pub pending_period: Duration,
    /// How long a request is held at most.
    pub wait_limit: Duration,
    /// How long a held request stays after its client left.
    pub lingering_wait: Duration,
    /// Idle time after which a connection is closed.
    pub idle_timeout: Duration,
    /// How long wrong credentials are thought about.
    pub wrong_password_delay: Duration,
    /// Time between bytes that drip.
    pub drip_interval: Duration,
    /// Bytes of a request body.
    pub body_max: usize,
    /// Bytes of the ROP buffer in the answer to the lab's own Execute.
    pub answer_bytes: usize,
    /// Contexts one user may have per endpoint.
    pub contexts_per_user: usize,
    /// Connections served at once; the next gets 503 before TLS.
    pub connections_max: usize,
    /// The page for load balancers.
    pub health_page: HealthPage,
    /// Where executes are written down; clones of it may be shared by servers.
    pub journal: Journal,
    /// Executes are written down. Off only for benches.
    pub writes_journal: bool,
    /// Request heads remembered.
    pub heads_kept: usize,
}

impl Options {
    /// A server of this flavour with the measured habits and limits of the real one, and everybody let in.
    pub fn new(name: &str, flavour: Flavour) -> Self {
        let exchange = flavour == Flavour::Exchange;
        Self {
            name: ServerName::new(name),
            host: format!("{}.contoso.test", name.to_ascii_lowercase()),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            flavour,
            mode: Mode::Validating,
            users: Users::Any,
            authenticate: Authenticate::Requests,
            service: None,
            databases: BTreeSet::new(),
            mailboxes: HashMap::new(),
            default_database: None,
            strict_databases: false,
            checks_dn: false,
            lifetime: Duration::from_secs(900),
            pending_period: Duration::from_secs(30),
            wait_limit: Duration::from_secs(300),
            lingering_wait: Duration::from_secs(if exchange { 0 } else { 35 }),
            idle_timeout: Duration::from_secs(if exchange { 120 } else { 180 }),
            wrong_password_delay: Duration::ZERO,
            drip_interval: Duration::from_millis(2),
            body_max: if exchange { 4 << 20 } else { 50 << 20 },
            answer_bytes: 4096,
            contexts_per_user: 100,
            connections_max: usize::MAX,
            health_page: if exchange {
                HealthPage::Served
            } else {
                HealthPage::Missing
            },
            journal: Journal::default(),
            writes_journal: true,
            heads_kept: 1024,
        }
    }
}

/// A running server; dropping it kills the server as `kill -9` would.
#[derive(Debug)]
pub struct MailboxServer {
    server: Arc<Server>,
    acceptor: JoinHandle<()>,
    address: SocketAddr,
}

/// What the tasks of one server share.
#[derive(Debug)]
struct Server {
    options: Options,
    contexts: Arc<Contexts>,
    mounted: Mutex<BTreeSet<DatabaseName>>,
    faults: Mutex<Plan>,
    counts: Counts,
    heads: Mutex<VecDeque<Vec<u8>>>,
    health_page: Mutex<HealthPage>,
    banned: Mutex<HashMap<UserName, Instant>>,
    /// Counts up when connections are cut.
    cut: watch::Sender<u64>,
    listening: watch::Sender<bool>,
    open: std::sync::atomic::AtomicUsize,
}

impl MailboxServer {
    /// Starts a server on the current runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn spawn(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let server = Arc::new(Server {
            contexts: Arc::new(Contexts::new(options.flavour, options.lifetime)),
            mounted: Mutex::new(options.databases.clone()),
            faults: Mutex::default(),
            counts: Counts::default(),
            heads: Mutex::default(),
            health_page: Mutex::new(options.health_page),
            banned: Mutex::default(),
            cut: watch::Sender::new(0),
            listening: watch::Sender::new(true),
            open: std::sync::atomic::AtomicUsize::new(0),
            options,
        });
        let acceptor = tokio::spawn(accept(Arc::clone(&server), listener, address));
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

    /// Its name.
    pub fn name(&self) -> &ServerName {
        &self.server.options.name
    }

    /// How it was set up; a server started with the same is its successor.
    pub fn options(&self) -> &Options {
        &self.server.options
    }

    /// Plans a wrong thing for the next `count` requests of this type, or of any.
    pub fn fault(&self, fault: Fault, count: u64, only: Option<RequestType>) {
        self.server.faults.lock().add(fault, count, only);
    }

    /// Nothing wrong any more.
    pub fn clear_faults(&self) {
        self.server.faults.lock().clear();
    }

    /// Something happened: the user's held requests, or everybody's, are answered. Returns how many contexts
    /// were told.
    pub fn wake(&self, user: Option<&str>) -> usize {
        let user = user.map(UserName::new);
        self.server.contexts.wake(user.as_ref())
    }

    /// Makes a database active here, or not. With `strict_databases` its contexts are gone with it.
    pub fn set_active(&self, database: &str, is_active: bool) {
        let database = DatabaseName::new(database);
        let mut mounted = self.server.mounted.lock();
        if is_active {
            mounted.insert(database);
        } else {
            mounted.remove(&database);
            if self.server.options.strict_databases {
                self.server.contexts.forget(Some(&database));
            }
        }
    }

    /// Forgets every context, as a restart would. Returns how many.
    pub fn forget(&self) -> usize {
        self.server.contexts.forget(None)
    }

    /// Ends every connection now; new ones are accepted.
    pub fn cut_connections(&self) {
        self.server.cut.send_modify(|count| *count += 1);
    }

    /// Stops or starts listening: connections are refused meanwhile, those that exist go on.
    pub fn listen(&self, is_listening: bool) {
        self.server.listening.send_replace(is_listening);
    }

    /// What the page for load balancers says from now on.
    pub fn set_health_page(&self, page: HealthPage) {
        *self.server.health_page.lock() = page;
    }

    /// What was executed, in order.
    pub fn executed(&self) -> Vec<Executed> {
        self.server.options.journal.entries()
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        Counters {
            contexts: u64::try_from(self.server.contexts.len()).unwrap_or(u64::MAX),
            faults_left: self.server.faults.lock().left(),
            ..self.server.counts.read()
        }
    }

    /// MAPI requests of this type whose head was read.
    pub fn requests(&self, kind: RequestType) -> u64 {
        self.server.counts.of(kind)
    }

    /// Connections open now.
    pub fn connections_open(&self) -> usize {
        self.server.open.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The last request heads as they were on the wire, oldest first.
    pub fn heads(&self) -> Vec<Vec<u8>> {
        self.server.heads.lock().iter().cloned().collect()
    }

    /// Kills the server: the listener and every connection are gone when this returns.
    pub async fn kill(mut self) -> Options {
        self.cut_connections();
        self.acceptor.abort();
        // Aborted on purpose: there is nothing to learn from its end.
        let _ = (&mut self.acceptor).await;
        while self.connections_open() > 0 {
            tokio::task::yield_now().await;
        }
        let mut options = self.server.options.clone();
        options.listen = self.address;
        options
    }
}

impl Drop for MailboxServer {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.cut_connections();
    }
}

impl Server {
    fn record(&self, head: &Head) {
        let kept = self.options.heads_kept;
        if kept == 0 {
            return;
        }
        let mut heads = self.heads.lock();
        while heads.len() >= kept {
            heads.pop_front();
        }
        heads.push_back(head.raw.clone());
    }

    fn health_page(&self) -> HealthPage {
        *self.health_page.lock()
    }

    fn admits(&self, user: &UserName, password: &str) -> bool {
        let banned = self.banned.lock().get(user).copied();
        if banned.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        match &self.options.users {
            Users::Any => true,
            Users::Listed(users) => users.get(user).is_some_and(|known| known == password),
        }
    }

    /// Locks a user out for a minute, good password included.
    fn ban(&self, user: &UserName) {
        let until = Instant::now() + Duration::from_secs(60);
        self.banned.lock().insert(user.clone(), until);
    }
}

/// Accepts connections while listening is wanted.
async fn accept(server: Arc<Server>, listener: TcpListener, address: SocketAddr) {
    let mut wanted = server.listening.subscribe();
    let mut listener = Some(listener);
    loop {
        let is_wanted = *wanted.borrow_and_update();
        if !is_wanted {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let Some(listening) = &listener else {
            // Unwanted, or the port is still taken: then try again soon.
            let patience = Duration::from_millis(if is_wanted { 5 } else { 60_000 });
            let _ = tokio::time::timeout(patience, wanted.changed()).await;
            continue;
        };
        let accepted = tokio::select! {
            accepted = listening.accept() => accepted,
            changed = wanted.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok((tcp, _)) = accepted else {
            // No descriptors left: others must end first.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        admit(&server, tcp);
    }
}

fn admit(server: &Arc<Server>, tcp: tokio::net::TcpStream) {
    let number = server.counts.connection();
    let open = Open::new(server);
    let is_full = open.others >= server.options.connections_max;
    let mut cut = server.cut.subscribe();
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let _open = open;
        if is_full {
            let words = b"HTTP/1.1 503 L-202 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = tcp.try_write(words);
            return;
        }
        tokio::select! {
            () = connection::serve(server, tcp, number) => {}
            _ = cut.changed() => {}
        }
    });
}

/// Counts a connection while it lives.
#[derive(Debug)]
struct Open {
    server: Arc<Server>,
    others: usize,
}

impl Open {
    fn new(server: &Arc<Server>) -> Self {
        let others = server
            .open
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self {
            server: Arc::clone(server),
            others,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.server
            .open
            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}
