//! The accounts of bytes and of processor time.
//!
//! A request adds to some thirty of them. Each worker has a set of its own, which nobody else writes, so
//! that an addition is an addition and no locked instruction; the sets are summed when somebody asks.

use super::requests::filed_as;
use super::{Bytes, Families};
use crate::accounting::meter::process_cpu_ns;
use crate::accounting::{Kind, Kinds, Ledger, Phase, Unbilled};
use crate::mapi::{Endpoint, RequestType};
use crate::rpch::{self, Verb};
use crate::vdir::Vdir;
use parking_lot::Mutex;
use prometheus::{Counter, CounterVec, Gauge, IntCounter, IntCounterVec};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Which leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegSide {
    /// To a client.
    Client,
    /// To a mailbox server.
    Server,
}

const LEGS: [LegSide; 2] = [LegSide::Client, LegSide::Server];

impl LegSide {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Whose processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Requests, each from its first byte to the settlement of its bill. What verifying credentials takes
    /// beside the workers is on the account of the threads that do it.
    Request,
    /// TLS handshakes with clients, refused ones included.
    Handshake,
    /// Connections between requests.
    Connection,
    /// Taking connections from the kernel.
    Accept,
    /// Looking after the kept connections of a worker.
    Pool,
    /// Workers between two tasks: the scheduler, the look for ready sockets. On the accounts of those it
    /// was done for where each request is measured.
    Worker,
}

impl Account {
    const ALL: [Self; 6] = [
        Self::Request,
        Self::Handshake,
        Self::Connection,
        Self::Accept,
        Self::Pool,
        Self::Worker,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Handshake => "handshake",
            Self::Connection => "connection",
            Self::Accept => "accept",
            Self::Pool => "pool",
            Self::Worker => "worker",
        }
    }
}

/// What was asked for, as far as it was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An endpoint and a type of MAPI over HTTP.
    Mapi(Endpoint, RequestType),
    /// A channel of Outlook Anywhere.
    Channel(Verb),
    /// Another virtual directory.
    Vdir(Vdir),
    /// Nothing of these.
    Other,
}

impl From<Option<(Endpoint, RequestType)>> for Asked {
    fn from(asked: Option<(Endpoint, RequestType)>) -> Self {
        asked.map_or(Self::Other, |(endpoint, kind)| Self::Mapi(endpoint, kind))
    }
}

/// A row of accounts per endpoint and type, one per direction of channels, one per directory, and one for what has
/// none.
const ROWS: usize = DIRECTORIES + Vdir::ALL.len() + 1;
const CHANNELS: usize = Endpoint::ALL.len() * RequestType::ALL.len();
const DIRECTORIES: usize = CHANNELS + Verb::ALL.len();
const DIRECTIONS: [&str; 2] = ["received", "sent"];
const BYTES_PER_ROW: usize = LEGS.len() * DIRECTIONS.len() * Kind::ALL.len();

fn row(asked: Asked) -> usize {
    match asked {
        Asked::Mapi(endpoint, kind) => {
            endpoint.index() * RequestType::ALL.len() + filed_as(endpoint, kind).index()
        }
        Asked::Channel(verb) => CHANNELS + verb.index(),
        Asked::Vdir(vdir) => DIRECTORIES + vdir.index(),
        Asked::Other => ROWS - 1,
    }
}

fn asked(row: usize) -> (&'static str, &'static str) {
    if let Some(vdir) = row.checked_sub(DIRECTORIES) {
        let vdir = Vdir::ALL.get(vdir);
        return (vdir.map_or("none", |vdir| vdir.as_str()), "none");
    }
    if let Some(verb) = row.checked_sub(CHANNELS) {
        let verb = Verb::ALL.get(verb);
        return verb.map_or(("none", "none"), |verb| {
            (rpch::verbs::ENDPOINT, verb.word())
        });
    }
    let types = RequestType::ALL.len();
    let endpoint = Endpoint::ALL.get(row / types);
    let kind = RequestType::ALL.get(row % types);
    match (endpoint, kind) {
        (Some(endpoint), Some(kind)) => (endpoint.as_str(), kind.as_str()),
        _ => ("none", "none"),
    }
}

/// One worker's accounts.
#[derive(Debug)]
struct Shard {
    bytes: Vec<AtomicU64>,
    phases: Vec<AtomicU64>,
    accounts: Vec<AtomicU64>,
}

impl Shard {
    fn new() -> Self {
        let zeros = |count| {
            std::iter::repeat_with(AtomicU64::default)
                .take(count)
                .collect()
        };
        Self {
            bytes: zeros(ROWS * BYTES_PER_ROW),
            phases: zeros(ROWS * Phase::ALL.len()),
            accounts: zeros(Account::ALL.len()),
        }
    }
}

/// Adds to an account that only this thread writes.
fn add(account: Option<&AtomicU64>, more: u64) {
    if let Some(account) = account
        && more > 0
    {
        account.store(account.load(Relaxed).saturating_add(more), Relaxed);
    }
}

/// All shards. Those of threads that have ended stay: their work was done.
#[derive(Debug)]
pub(super) struct Books {
    /// Which books: tests have several.
    number: u64,
    shards: Mutex<Vec<Arc<Shard>>>,
}

thread_local! {
    /// This thread's shard, and of which books.
    static MINE: RefCell<Option<(u64, Arc<Shard>)>> = const { RefCell::new(None) };
}

impl Books {
    fn with_shard(&self, change: impl FnOnce(&Shard)) {
        MINE.with_borrow_mut(|mine| match mine {
            Some((books, shard)) if *books == self.number => change(shard),
            _ => {
                let shard = Arc::new(Shard::new());
                self.shards.lock().push(shard.clone());
                change(&shard);
                *mine = Some((self.number, shard));
            }
        });
    }

    fn kinds(shard: &Shard, row: usize, (leg, direction): (LegSide, usize), kinds: &Kinds) {
        let begin =
            row * BYTES_PER_ROW + (leg as usize * DIRECTIONS.len() + direction) * Kind::ALL.len();
        let accounts = shard.bytes.get(begin..).unwrap_or_default();
        for (kind, bytes) in kinds.iter() {
            add(accounts.get(kind.index()), bytes);
        }
    }

    /// Books a request's bytes.
    pub(super) fn request(&self, of: Asked, ledger: &Ledger) {
        let row = row(of);
        self.with_shard(|shard| {
            Self::kinds(shard, row, (LegSide::Client, 0), &ledger.client_in);
            Self::kinds(shard, row, (LegSide::Client, 1), &ledger.client_out);
            Self::kinds(shard, row, (LegSide::Server, 0), &ledger.server_in);
            Self::kinds(shard, row, (LegSide::Server, 1), &ledger.server_out);
        });
    }

    /// Books bytes that belong to no request.
    pub(super) fn beside(&self, leg: LegSide, kind: Kind, bytes: Bytes) {
        let row = row(Asked::Other);
        self.with_shard(|shard| {
            for (direction, bytes) in [bytes.received, bytes.sent].into_iter().enumerate() {
                let place = row * BYTES_PER_ROW
                    + (leg as usize * DIRECTIONS.len() + direction) * Kind::ALL.len()
                    + kind.index();
                add(shard.bytes.get(place), bytes);
            }
        });
    }

    /// Books processor time, in nanoseconds.
    pub(super) fn cpu(&self, account: Account, nanoseconds: u64) {
        self.with_shard(|shard| add(shard.accounts.get(account as usize), nanoseconds));
    }

    /// Books where a request's time went.
    pub(super) fn phase(&self, of: Asked, phase: Phase, nanoseconds: u64) {
        let place = row(of) * Phase::ALL.len() + phase as usize;
        self.with_shard(|shard| add(shard.phases.get(place), nanoseconds));
    }

    fn sum(&self, of: impl Fn(&Shard) -> &Vec<AtomicU64>, count: usize) -> Vec<u64> {
        let mut sums = vec![0_u64; count];
        for shard in self.shards.lock().iter() {
            for (sum, account) in sums.iter_mut().zip(of(shard)) {
                *sum = sum.saturating_add(account.load(Relaxed));
            }
        }
        sums
    }
}

/// Books what connections of one side carried beside requests, when they are gone.
#[derive(Debug)]
struct Beside {
    books: Arc<Books>,
    leg: LegSide,
}

impl Unbilled for Beside {
    fn book(&self, bytes: Bytes) {
        self.books.beside(self.leg, Kind::Connection, bytes);
    }
}

/// The families that show the accounts, and what they showed last.
#[derive(Debug)]
pub(super) struct LedgerFamilies {
    pub(super) books: Arc<Books>,
    beside: [Arc<dyn Unbilled>; 2],
    bytes: IntCounterVec,
    leg_bytes: [[IntCounter; 2]; 2],
    phases: CounterVec,
    accounts: Vec<Counter>,
    threads: CounterVec,
    unattributed: Gauge,
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    bytes: Vec<u64>,
    phases: Vec<u64>,
    accounts: Vec<u64>,
    /// By thread, what it was last seen with.
    threads: BTreeMap<u64, u64>,
    /// Of threads that have ended since.
    gone: u64,
}

impl LedgerFamilies {
    pub(super) fn new(families: &Families) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let books = Arc::new(Books {
            number: NUMBERS.fetch_add(1, Relaxed),
            shards: Mutex::default(),
        });
        let client = families.counters(
            "client_bytes_total",
            "Bytes exchanged with clients, all of them.",
            &["direction"],
        );
        let server = families.counters(
            "backend_bytes_total",
            "Bytes exchanged with mailbox servers, all of them.",
            &["direction"],
        );
        let cpu = families.float_counters(
            "cpu_seconds_total",
            "Processor time by what it was spent for; threads beside the workers by their name.",
            &["account"],
        );
        Self {
            beside: LEGS.map(|leg| -> Arc<dyn Unbilled> {
                let books = books.clone();
                Arc::new(Beside { books, leg })
            }),
            books,
            bytes: families.counters(
                "bytes_total",
                "Bytes on the wire by what they are; they add up to all that was carried.",
                &["endpoint", "request_type", "leg", "direction", "kind"],
            ),
            leg_bytes: [client, server].map(|family| {
                DIRECTIONS.map(|direction| family.with_label_values(&[direction]))
            }),
            phases: families.float_counters(
                "request_cpu_phase_seconds_total",
                "Processor time of requests by phase, estimated from those that were looked at closely.",
                &["endpoint", "request_type", "phase"],
            ),
            accounts: Account::ALL
                .iter()
                .map(|account| cpu.with_label_values(&[account.as_str()]))
                .collect(),
            threads: cpu,
            unattributed: families.float(
                "cpu_unattributed_ratio",
                "Share of the process' processor time that is on no account, as of this reading.",
            ),
            shown: Mutex::default(),
        }
    }

    /// Who takes what connections carry beside requests.
    pub(super) fn unbilled(&self, leg: LegSide) -> Option<Arc<dyn Unbilled>> {
        self.beside.get(leg as usize).cloned()
    }

    /// Brings the families up to date. Reads a few small files per thread of the process.
    pub(super) fn refresh(&self) {
        let mut shown = self.shown.lock();
        self.refresh_bytes(&mut shown);
        self.refresh_cpu(&mut shown);
    }

    fn refresh_bytes(&self, shown: &mut Shown) {
        let now = self.books.sum(|shard| &shard.bytes, ROWS * BYTES_PER_ROW);
        shown.bytes.resize(now.len(), 0);
        for (place, (before, now)) in shown.bytes.iter().zip(&now).enumerate() {
            let more = now - before;
            if more == 0 {
                continue;
            }
            let kind = place % Kind::ALL.len();
            let direction = place / Kind::ALL.len() % DIRECTIONS.len();
            let leg = place / (Kind::ALL.len() * DIRECTIONS.len()) % LEGS.len();
            let (endpoint, request_type) = asked(place / BYTES_PER_ROW);
            if let (Some(kind), Some(side), Some(word)) = (
                Kind::ALL.get(kind),
                LEGS.get(leg),
                DIRECTIONS.get(direction),
            ) {
                let labels = [endpoint, request_type, side.as_str(), word, kind.as_str()];
                self.bytes.with_label_values(&labels).inc_by(more);
            }
            if let Some(total) = self.leg_bytes.get(leg).and_then(|leg| leg.get(direction)) {
                total.inc_by(more);
            }
        }
        shown.bytes = now;
    }

    fn refresh_cpu(&self, shown: &mut Shown) {
        let phases = self
            .books
            .sum(|shard| &shard.phases, ROWS * Phase::ALL.len());
        shown.phases.resize(phases.len(), 0);
        for (place, (before, now)) in shown.phases.iter().zip(&phases).enumerate() {
            let phase = Phase::ALL.get(place % Phase::ALL.len());
            if let Some(phase) = phase.filter(|_| now > before) {
                let (endpoint, request_type) = asked(place / Phase::ALL.len());
                let labels = [endpoint, request_type, phase.as_str()];
                self.phases
                    .with_label_values(&labels)
                    .inc_by(seconds(now - before));
            }
        }
        shown.phases = phases;

        let accounts = self.books.sum(|shard| &shard.accounts, Account::ALL.len());
        shown.accounts.resize(accounts.len(), 0);
        for (family, (before, now)) in self
            .accounts
            .iter()
            .zip(shown.accounts.iter().zip(&accounts))
        {
            family.inc_by(seconds(now - before));
        }
        shown.accounts = accounts;
        let mut living = BTreeMap::new();
        for (id, name, spent) in threads() {
            // A number may be given to another thread, which begins at nothing.
            let before = shown.threads.remove(&id).filter(|before| *before <= spent);
            let more = spent - before.unwrap_or(0);
            self.threads
                .with_label_values(&[&name])
                .inc_by(seconds(more));
            living.insert(id, spent);
        }
        shown.gone += shown.threads.values().sum::<u64>();
        shown.threads = living;

        let on_accounts = shown.accounts.iter().sum::<u64>();
        let beside = shown.threads.values().sum::<u64>() + shown.gone;
        let process = process_cpu_ns();
        let difference = process.abs_diff(on_accounts + beside);
        self.unattributed
            .set(seconds(difference) / seconds(process.max(1)));
    }
}

/// Threads whose work is booked as it is done: the workers, `mapi-0` and so on.
fn is_on_accounts(name: &str) -> bool {
    let number = name.trim().strip_prefix("mapi-");
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The other threads of the process: number, name, nanoseconds on a core.
fn threads() -> impl Iterator<Item = (u64, String, u64)> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten();
    entries.flatten().filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        if is_on_accounts(&name) {
            return None;
        }
        let schedule = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        let spent = schedule.split_whitespace().next()?.parse().ok()?;
        // Numbered threads of a kind are one account.
        let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit());
        Some((
            id,
            name.trim_end_matches('-').to_lowercase().replace(' ', "_"),
            spent,
        ))
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 104 days of nanoseconds"
)]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    fn ledger(payload: u64) -> Ledger {
        let mut kinds = Kinds::default();
        kinds.add(Kind::Payload, payload);
        kinds.add(Kind::Tls, 22);
        Ledger {
            client_in: kinds,
            ..Ledger::default()
        }
    }

    #[test]
    fn accounts_of_all_threads_are_summed_and_shown_once() {
        let metrics = Metrics::new("test");
        let execute = Asked::Mapi(Endpoint::Emsmdb, RequestType::Execute);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| metrics.ledger.books.request(execute, &ledger(100)));
            }
        });
        let line = r#"mapigate_bytes_total{direction="received",endpoint="emsmdb",kind="payload",leg="client",request_type="Execute"} 300"#;
        for _ in 0..2 {
            let text = metrics.render();
            assert!(text.contains(line), "{text}");
            assert!(text.contains("mapigate_client_bytes_total{direction=\"received\"} 366"));
        }
    }

    #[test]
    fn every_directory_has_an_account_of_its_own() {
        let metrics = Metrics::new("test");
        for (times, vdir) in (1_u64..).zip(Vdir::ALL) {
            metrics.request_bytes(Asked::Vdir(vdir), &ledger(times));
        }
        metrics.request_bytes(None, &ledger(100));
        let text = metrics.render();
        for (times, endpoint) in (1_u64..)
            .zip(Vdir::ALL.map(Vdir::as_str))
            .chain([(100, "none")])
        {
            let line = format!(
                r#"mapigate_bytes_total{{direction="received",endpoint="{endpoint}",kind="payload",leg="client",request_type="none"}} {times}"#
            );
            assert!(text.contains(&line), "{line} not in {text}");
        }
    }

    #[test]
    fn what_a_connection_carried_beside_requests_is_booked_when_it_is_gone() {
        let metrics = Metrics::new("test");
        let unbilled = metrics.unbilled(LegSide::Server).unwrap();
        unbilled.book(Bytes {
            received: 5,
            sent: 7,
        });
        let text = metrics.render();
        assert!(
            text.contains(r#"kind="connection",leg="server",request_type="none"} 5"#),
            "{text}"
        );
        assert!(text.contains("mapigate_backend_bytes_total{direction=\"sent\"} 7"));
    }

    #[test]
    fn processor_time_is_on_its_account_and_the_rest_is_told() {
        let metrics = Metrics::new("test");
        metrics.cpu(Account::Handshake, 1_500_000_000);
        let text = metrics.render();
        assert!(
            text.contains(r#"mapigate_cpu_seconds_total{account="handshake"} 1.5"#),
            "{text}"
        );
        assert!(text.contains("mapigate_cpu_unattributed_ratio"));
    }

    #[test]
    fn an_account_near_its_end_stays_there() {
        let account = AtomicU64::new(u64::MAX - 1);
        add(Some(&account), 5);
        assert_eq!(account.load(Relaxed), u64::MAX);
    }
}
