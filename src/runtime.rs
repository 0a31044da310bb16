//! The world now, and what outlives it.

use crate::accounting::Usage;
use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::auth::handoff::HandOff;
use crate::backend::Backends;
use crate::certs;
use crate::channels::ChannelTable;
use crate::config::Settings;
use crate::config::settings::{BasicVerify, CopiesFrom};
use crate::directory::Directory;
use crate::health::{HealthView, Observation, Wards};
use crate::ids::{Generation, RequestId, ServerName};
use crate::journal::Journal;
use crate::ldap::Book;
use crate::metrics::Metrics;
use crate::placement::{Homes, Placement, Reading};
use crate::probe;
use crate::seal::Sealer;
use crate::sessions::SessionTable;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};
use tokio::sync::{mpsc, watch};

/// Everything a decision reads, frozen. A request takes one and keeps it to its last byte.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which configuration this is.
    pub generation: Generation,
    /// What it says.
    pub settings: Arc<Settings>,
    /// Who a client is.
    pub auth: Arc<Authenticator>,
    /// Whose credentials servers see.
    pub handoff: Arc<HandOff>,
    /// The directory service, where there is one.
    pub book: Option<Arc<Book>>,
    /// Where mailboxes live.
    pub directory: Arc<Directory>,
    /// What the directory service tells of the copies of databases; upkeep alone replaces it.
    pub copies: Arc<Reading>,
    /// Where databases are active: what follows from `settings` and `copies`, and from nothing else.
    pub placement: Arc<Placement>,
    /// Which servers are up; upkeep alone replaces it.
    pub health: Arc<HealthView>,
    /// Which of them serve which of the other virtual directories; upkeep alone replaces it.
    pub wards: Arc<Wards>,
    /// The servers.
    pub servers: Arc<Backends>,
    /// The route cookie, where it is switched on.
    pub sealer: Option<Arc<Sealer>>,
}

impl Snapshot {
    /// The world that a configuration describes. What did not change is carried over from `previous`:
    /// verified credentials, kept connections, the placement's epoch, the servers' health.
    ///
    /// Reads the files that the configuration names: not for a worker thread.
    ///
    /// # Errors
    /// Every reason why not, each a sentence that names its file. Nothing of it takes effect.
    pub fn build(settings: Settings, previous: Option<&Self>) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut note = |problem: &dyn std::fmt::Display| problems.push(problem.to_string());
        let book = book(&settings, previous.and_then(|world| world.book.as_ref()));
        let Ok(book) = book.map_err(|problem| note(&problem)) else {
            return Err(problems);
        };
        let keep = previous.map(|world| &*world.auth);
        let auth = Authenticator::with_directory(&settings.auth, book.as_ref(), keep)
            .map_err(|problem| note(&problem))
            .ok();
        let handoff = HandOff::new(
            &settings.backend_identity,
            previous.map(|world| &*world.handoff),
        )
        .map_err(|problem| note(&problem))
        .ok();
        let default_domain = settings
            .auth
            .basic
            .as_ref()
            .and_then(|basic| basic.default_domain.as_deref());
        let (place, databases) = (&settings.directory, &settings.databases);
        let directory = match &book {
            Some(book) => Some(Directory::of_service(place, databases, Arc::clone(book))),
            None => Directory::load(place, databases, default_domain)
                .map_err(|found| found.iter().for_each(|problem| note(problem)))
                .ok(),
        };
        let servers = Backends::new(&settings.servers, previous.map(|world| &*world.servers))
            .map_err(|found| found.iter().for_each(|problem| note(problem)))
            .ok();
        let (Some(auth), Some(handoff), Some(directory), Some(servers)) =
            (auth, handoff, directory, servers)
        else {
            return Err(problems);
        };
        let copies = previous.map_or_else(Arc::default, |world| kept(&settings, &world.copies));
        let homes = Homes::of(&settings, copies.copies.as_deref());
        let placement = match previous {
            Some(world) => world.placement.next(homes),
            None => Placement::new(homes),
        };
        let generation = previous.map_or(0, |world| world.generation.0) + 1;
        Ok(Self {
            generation: Generation(generation),
            auth: Arc::new(auth),
            handoff: Arc::new(handoff),
            book,
            directory: Arc::new(directory),
            copies,
            placement: Arc::new(placement),
            health: previous.map_or_else(Arc::default, |world| world.health.clone()),
            wards: previous.map_or_else(Arc::default, |world| world.wards.clone()),
            servers: Arc::new(servers),
            sealer: settings
                .sessions
                .route_cookie
                .as_ref()
                .map(|cookie| Arc::new(Sealer::new(cookie))),
            settings: Arc::new(settings),
        })
    }

    /// The same world after the directory service was read again.
    #[must_use]
    pub fn told(&self, copies: Reading) -> Self {
        let homes = Homes::of(&self.settings, copies.copies.as_deref());
        Self {
            placement: Arc::new(self.placement.next(homes)),
            copies: Arc::new(copies),
            ..self.clone()
        }
    }

    /// This world in place of `now`, which others have written their parts of while this one was being built.
    #[must_use]
    pub fn in_place_of(&self, now: &Self) -> Self {
        let mut copies = kept(&self.settings, &now.copies);
        if copies.copies.is_none() {
            copies = Arc::clone(&self.copies);
        }
        let homes = Homes::of(&self.settings, copies.copies.as_deref());
        Self {
            health: now.health.clone(),
            wards: now.wards.clone(),
            placement: Arc::new(now.placement.next(homes)),
            copies,
            ..self.clone()
        }
    }
}

/// What a directory told stays after a reload, where copies still come from one.
fn kept(settings: &Settings, copies: &Arc<Reading>) -> Arc<Reading> {
    match settings.copies_from {
        CopiesFrom::Directory { .. } => Arc::clone(copies),
        CopiesFrom::Configuration => Arc::default(),
    }
}

/// The directory service of a configuration, where it names one. `earlier` goes on where nothing changed.
///
/// # Errors
/// An authority that cannot be used.
pub fn book(settings: &Settings, earlier: Option<&Arc<Book>>) -> Result<Option<Arc<Book>>, String> {
    let Some(ldap) = &settings.directory.ldap else {
        return Ok(None);
    };
    let basic = settings.auth.basic.as_ref();
    let login = match basic.map(|basic| &basic.verify) {
        Some(BasicVerify::LdapBind { name }) => name,
        _ => UPN,
    };
    if let Some(earlier) = earlier.filter(|earlier| earlier.is_of(ldap, login)) {
        return Ok(Some(Arc::clone(earlier)));
    }
    let tls = ldap.starttls || ldap.servers.iter().any(|server| server.tls);
    let tls = tls.then(|| certs::ldap_config(ldap.ca.as_ref()));
    let tls = tls.transpose().map_err(|problem| problem.to_string())?;
    let book = Book::new(ldap, login, tls).map_err(|problem| problem.to_string())?;
    Ok(Some(book))
}

/// What a world is, in figures.
fn tell(metrics: &Metrics, world: &Snapshot) {
    metrics.set_generation(world.generation);
    metrics.set_placement_epoch(world.placement.epoch());
    let read = world.copies.read_at;
    let read = read.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let (copies, databases) = world.placement.homes().left_out();
    metrics.set_copies(read.unwrap_or_default(), copies, databases);
}

/// Nobody logs on with it where passwords are held against something else.
const UPN: &str = "{upn}";

/// What the outside may ask of every connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Counts the times held polls were asked to look whether their database is where it was.
    pub turn: u64,
    /// We are going away.
    pub leaving: bool,
}

/// One thing seen of a server, on its way to the health table.
pub type Sighting = (ServerName, Observation);

/// Everything that outlives a reload.
#[derive(Debug)]
pub struct Runtime {
    current: ArcSwap<Snapshot>,
    /// Which session is where.
    pub sessions: SessionTable,
    /// Which virtual connection of Outlook Anywhere is where.
    pub channels: Arc<ChannelTable>,
    /// How many requests run for whom.
    pub admission: Admission,
    /// The metric families.
    pub metrics: Metrics,
    /// The access log.
    pub journal: Journal,
    /// Who used how much.
    pub usage: Usage,
    /// What came of the probes that are run from time to time.
    pub probes: probe::Table,
    sightings: mpsc::Sender<Sighting>,
    /// Observations on their way to upkeep.
    unheard: AtomicUsize,
    asks: watch::Sender<Ask>,
    last_request: AtomicU64,
    listening: AtomicBool,
    started: (Instant, SystemTime),
}

/// Observations that may wait for upkeep; more are lost, because the next request makes another.
const SIGHTINGS_MAX: usize = 4096;

impl Runtime {
    /// Begins with the first world. The receiver is for the health loop alone.
    pub fn new(
        first: Snapshot,
        (sessions, channels): (SessionTable, ChannelTable),
        metrics: Metrics,
        journal: Journal,
        started: (Instant, SystemTime),
    ) -> (Arc<Self>, mpsc::Receiver<Sighting>) {
        let (sightings, seen) = mpsc::channel(SIGHTINGS_MAX);
        tell(&metrics, &first);
        let usage = Usage::new(first.settings.accounting.usage_entries, started.1);
        let runtime = Self {
            current: ArcSwap::from_pointee(first),
            sessions,
            channels: Arc::new(channels),
            admission: Admission::new(),
            metrics,
            journal,
            usage,
            probes: probe::Table::default(),
            sightings,
            unheard: AtomicUsize::new(0),
            asks: watch::channel(Ask::default()).0,
            last_request: AtomicU64::new(fastrand::u64(..)),
            listening: AtomicBool::new(false),
            started,
        };
        (Arc::new(runtime), seen)
    }

    /// The world now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the world with one that differs in a part. Writers of different parts do not overwrite
    /// each other: `change` may be called again on a newer world. Gives the world that was replaced.
    pub fn publish(&self, mut change: impl FnMut(&Snapshot) -> Snapshot) -> Arc<Snapshot> {
        let before = self.current.rcu(|now| change(now));
        tell(&self.metrics, &self.current.load());
        before
    }

    /// The number of the next request.
    pub fn next_request(&self) -> RequestId {
        RequestId(self.last_request.fetch_add(1, Ordering::Relaxed))
    }

    /// Tells upkeep what was seen of a server; never waits.
    pub fn observe(&self, server: &ServerName, observation: Observation) {
        self.unheard.fetch_add(1, Ordering::Relaxed);
        let sent = self.sightings.try_send((server.clone(), observation));
        if sent.is_err() {
            self.heard(1);
        }
    }

    /// Tells upkeep that a server answered. Good news is worth a message only where bad news came
    /// before: nothing is sent while the server is up, has no failure to make up for, and none that upkeep
    /// has not heard of yet.
    pub fn observe_answered(&self, server: &ServerName) {
        let is_news = self.unheard.load(Ordering::Relaxed) > 0
            || !self.current.load().health.is_steady(server);
        if is_news {
            self.observe(server, Observation::Answered);
        }
    }

    /// Upkeep has taken so many observations, and what follows from them is published.
    pub fn heard(&self, count: usize) {
        self.unheard.fetch_sub(count, Ordering::Relaxed);
    }

    /// What connections listen to.
    pub fn asks(&self) -> watch::Receiver<Ask> {
        self.asks.subscribe()
    }

    /// Held polls look whether their database is still where it was.
    pub fn wake_polls(&self) {
        self.asks.send_modify(|ask| ask.turn += 1);
    }

    /// From now on we are going away: connections end at the next good moment.
    pub fn leave(&self) {
        self.asks.send_modify(|ask| ask.leaving = true);
    }

    /// True once we are going away.
    pub fn is_leaving(&self) -> bool {
        self.asks.borrow().leaving
    }

    /// Listeners, and every connection they accepted, still there.
    pub fn listeners_and_connections(&self) -> usize {
        self.asks.receiver_count()
    }

    /// Whether clients can reach us; the listener says so.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Relaxed);
    }

    /// True while clients can reach us and we are not going away.
    pub fn is_open(&self) -> bool {
        self.listening.load(Ordering::Relaxed) && !self.is_leaving()
    }

    /// True while clients can reach us, we are not going away, and it is known where databases are.
    pub fn is_ready(&self) -> bool {
        self.is_open() && !self.current.load().placement.homes().is_awaited()
    }

    /// When the process began, by both clocks.
    pub fn started(&self) -> (Instant, SystemTime) {
        self.started
    }
}
