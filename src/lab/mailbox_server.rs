//! A mailbox server that speaks MAPI over HTTP as Exchange or gromox does, and can do each thing wrong.
//!
//! Byte-conformant to `[MS-OXCMAPIHTTP]` and to recorded exchanges where the two flavours differ. What it
//! executes is written into a [`Journal`] first, so that a checker can prove "at most once".
#![expect(
    clippy::disallowed_methods,
    reason = "bans expire by tokio's clock, which tests can pause"
)]

mod address_book;
pub(in crate::lab) mod answers;
mod autodiscover;
pub mod authenticator;
pub(in crate::lab) mod connection;
mod contexts;
pub mod control;
mod cookies;
mod counts;
mod delivery;
mod execute;
mod faults;
pub(in crate::lab) mod http;
mod journal;
mod options;
mod requests;
mod spoil;
mod web;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use counts::Counters;
pub use faults::{Ending, Fault, Place, UnknownFault};
pub use journal::{Executed, Journal};
pub use options::{Authenticate, HealthPage, Mode, Options, Service, Tokens, Told, Users};

use crate::ids::{DatabaseName, ServerName, UserName};
use crate::lab::{identity_provider, rpc_http};
use crate::mapi::RequestType;
use contexts::Contexts;
use counts::Counts;
use faults::Plan;
use http::Head;

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
    /// Directories that take themselves out of service, by their lower-case names.
    closed: Mutex<BTreeSet<String>>,
    /// Counts up when what is held beside MAPI has something to tell.
    news: watch::Sender<u64>,
    banned: Mutex<HashMap<UserName, Instant>>,
    /// Counts up when connections are cut.
    cut: watch::Sender<u64>,
    listening: watch::Sender<bool>,
    frozen: watch::Sender<bool>,
    open: std::sync::atomic::AtomicUsize,
    rpc: rpc_http::server::Room,
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
            closed: Mutex::default(),
            news: watch::Sender::new(0),
            banned: Mutex::default(),
            cut: watch::Sender::new(0),
            listening: watch::Sender::new(true),
            frozen: watch::Sender::new(false),
            open: std::sync::atomic::AtomicUsize::new(0),
            rpc: rpc_http::server::Room::new(rpc_http::server::Options {
                users: options.users.clone(),
                wait_limit: options.wait_limit,
                answer_bytes: options.answer_bytes,
                ..rpc_http::server::Options::new(options.name.as_str())
            }),
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

    /// Stops as a stopped process does, or goes on: the kernel accepts connections and takes bytes,
    /// nobody reads or answers, held requests say nothing more.
    pub fn freeze(&self, is_frozen: bool) {
        self.server.frozen.send_replace(is_frozen);
    }

    /// What the page for load balancers says from now on.
    pub fn set_health_page(&self, page: HealthPage) {
        *self.server.health_page.lock() = page;
    }

    /// Whether the page of a directory beside MAPI, such as `ews`, says that it is in service.
    pub fn serve(&self, directory: &str, is_served: bool) {
        let mut closed = self.server.closed.lock();
        match is_served {
            true => closed.remove(directory),
            false => closed.insert(directory.to_owned()),
        };
    }

    /// Something happens: what is held beside MAPI tells its client. Returns how many were held.
    pub fn news(&self) -> usize {
        self.server.news.send_modify(|count| *count += 1);
        self.server.news.receiver_count()
    }

    /// Requests held beside MAPI.
    pub fn held(&self) -> usize {
        self.server.news.receiver_count()
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

    /// Whose token this is, where the server takes it.
    fn holder_of(&self, authorization: &str) -> Option<UserName> {
        let (scheme, token) = authorization.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let now = crate::lab::unix_micros() / 1_000_000;
        match &self.options.tokens {
            Tokens::None => None,
            Tokens::Any => identity_provider::named_in(token).map(|(user, _)| user),
            Tokens::Signed(keys) => keys.user_of(token, now),
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
            () = unless_frozen(server.frozen.subscribe(), connection::serve(server, tcp, number)) => {}
            _ = cut.changed() => {}
        }
    });
}

/// Runs a future that stands still while the server is frozen.
async fn unless_frozen(mut frozen: watch::Receiver<bool>, future: impl Future<Output = ()>) {
    tokio::pin!(future);
    loop {
        if frozen.wait_for(|is_frozen| !is_frozen).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            _ = frozen.wait_for(|is_frozen| *is_frozen) => {}
            () = &mut future => return,
        }
    }
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
