//! The slow look at a password: each credential once, each user in turn, a few at a time.
//!
//! A bcrypt or argon2id hash costs milliseconds of CPU by design, which makes it a lever for whoever
//! wants to keep us busy. So verifications run beside the worker threads, at most
//! `auth.verifications_max` at once. A user has one at a time and few waiting; a thousand wrong
//! passwords for one name take one place in the common queue and delay others by one hash.

use super::cache::{Beliefs, Digest, Proven};
use super::passwords::{self, Passwords};
use super::{Denied, Identity, Scheme, WRONG};
use crate::accounting::meter::thread_cpu_ns;
use crate::ids::UserName;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use zeroize::Zeroizing;

/// A credential that only a slow hash can judge.
///
/// Dropping it, or the future of [`Self::run`], takes nothing from others: what is under way is
/// finished or given back, and other requests with the same credential get their verdict.
#[must_use = "nothing is verified until it runs"]
pub struct Verification {
    desk: Arc<Desk>,
    work: Arc<Work>,
}

impl Verification {
    pub(super) fn new(desk: &Arc<Desk>, work: Work) -> Self {
        Self {
            desk: Arc::clone(desk),
            work: Arc::new(work),
        }
    }

    /// Judges the credential; must be awaited inside a tokio runtime.
    ///
    /// The verdict is remembered, so that the same credential is judged at once by the next
    /// [`super::Authenticator::step`].
    pub async fn run(self) -> Result<Arc<Identity>, Denied> {
        for _ in 0..ATTEMPTS {
            let mut verdict = match self.desk.board(&self.work)? {
                Boarding::Known(verdict) => return verdict,
                Boarding::Flight(verdict) => verdict,
            };
            // An error means that the flight ended without a verdict, because the runtime that
            // carried it stopped: another one may still carry it.
            let landed = verdict.wait_for(Option::is_some).await.map(|v| v.clone());
            if let Ok(Some(verdict)) = landed {
                return verdict;
            }
        }
        Err(Denied::Busy("password verification was interrupted"))
    }
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verification(…)")
    }
}

/// Everything a verdict needs.
pub(super) struct Work {
    pub(super) digest: Digest,
    pub(super) user: UserName,
    pub(super) password: Zeroizing<Vec<u8>>,
    pub(super) passwords: Arc<Passwords>,
    pub(super) beliefs: Arc<Beliefs>,
    /// The epoch of the beliefs when the request was read: a revocation since then counts.
    pub(super) epoch: u64,
    /// When the request was read; what is remembered lasts from here.
    pub(super) asked_at: Instant,
}

impl Work {
    fn known(&self) -> Option<Verdict> {
        let (digest, passwords, now) = (&self.digest, &self.passwords, self.asked_at);
        if let Some(belief) = self.beliefs.good(digest, passwords, now) {
            return Some(Ok(Arc::clone(&belief.identity)));
        }
        let is_bad = self.beliefs.is_bad(digest, passwords, now);
        is_bad.then_some(Err(Denied::Credentials(WRONG)))
    }

    /// The slow part. A name without an account costs what one with an account costs.
    fn judge(&self) -> Option<Proven> {
        let lot = self.beliefs.digest(self.user.as_str().as_bytes()).lot();
        let account = self.passwords.account(&self.user);
        // Read before the hash: who is revoked while it runs is not believed afterwards.
        let revocations = account.map_or(0, |account| account.revocations());
        let is_proven = match account.or_else(|| self.passwords.stand_in(lot)) {
            Some(judged) => judged.proves(&self.password),
            None => passwords::spend_time(&self.password),
        };
        account.filter(|_| is_proven).map(|account| Proven {
            account: Arc::clone(account),
            revocations,
        })
    }

    fn remember(&self, proven: Option<Proven>) -> Verdict {
        let Some(proven) = proven else {
            self.beliefs
                .disbelieve(self.digest, &self.passwords, self.epoch, self.asked_at);
            return Err(Denied::Credentials(WRONG));
        };
        let identity = Arc::new(Identity {
            user: proven.account.user.clone(),
            scheme: Scheme::Basic,
        });
        let granted = Arc::clone(&identity);
        self.beliefs
            .believe(self.digest, granted, proven, self.epoch, self.asked_at);
        Ok(identity)
    }
}

type Verdict = Result<Arc<Identity>, Denied>;

/// Where verifications queue. One for the process, across reloads.
pub(super) struct Desk {
    permits: Arc<Semaphore>,
    board: Mutex<Board>,
    tally: Counters,
}

/// A credential in the eyes of one reading of the password file.
type FlightKey = (Digest, u64);

#[derive(Default)]
struct Board {
    flights: HashMap<FlightKey, watch::Sender<Option<Verdict>>>,
    queues: HashMap<UserName, Queue>,
}

struct Queue {
    gate: Arc<Semaphore>,
    length: usize,
}

enum Boarding {
    Known(Verdict),
    Flight(watch::Receiver<Option<Verdict>>),
}

impl Desk {
    pub(super) fn new(verifications_max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(
                verifications_max.clamp(1, Semaphore::MAX_PERMITS),
            )),
            board: Mutex::default(),
            tally: Counters::default(),
        }
    }

    /// Joins the flight of this credential, or starts it.
    fn board(self: &Arc<Self>, work: &Arc<Work>) -> Result<Boarding, Denied> {
        let runtime = Handle::try_current()
            .map_err(|_none| Denied::Busy("password verification outside a runtime"))?;
        let key = (work.digest, work.passwords.serial());
        let mut board = self.board.lock();
        if let Some(flight) = board.flights.get(&key) {
            self.tally.joined.fetch_add(1, Ordering::Relaxed);
            return Ok(Boarding::Flight(flight.subscribe()));
        }
        // It may have landed between the look of `step` and now; flights land before they leave the board.
        if let Some(verdict) = work.known() {
            return Ok(Boarding::Known(verdict));
        }
        if board.flights.len() >= FLIGHTS_MAX {
            self.tally.shed.fetch_add(1, Ordering::Relaxed);
            return Err(Denied::Busy("too many passwords to verify"));
        }
        let queue = board
            .queues
            .entry(work.user.clone())
            .or_insert_with(|| Queue {
                gate: Arc::new(Semaphore::new(1)),
                length: 0,
            });
        if queue.length >= FLIGHTS_PER_USER_MAX {
            self.tally.shed.fetch_add(1, Ordering::Relaxed);
            return Err(Denied::Busy("too many passwords of one user to verify"));
        }
        queue.length += 1;
        let gate = Arc::clone(&queue.gate);
        let (sender, receiver) = watch::channel(None);
        board.flights.insert(key, sender.clone());
        drop(board);
        let flight = Flight {
            desk: Arc::clone(self),
            work: Arc::clone(work),
            key,
            gate,
            verdict: sender,
        };
        runtime.spawn(flight.fly());
        Ok(Boarding::Flight(receiver))
    }

    /// Processor time of hashes since this was last asked, in nanoseconds.
    pub(super) fn take_cpu_ns(&self) -> u64 {
        self.tally.cpu_ns.swap(0, Ordering::Relaxed)
    }

    pub(super) fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            hashed: read(&self.tally.hashed),
            joined: read(&self.tally.joined),
            shed: read(&self.tally.shed),
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("permits", &self.permits.available_permits())
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}

/// One credential under verification, for everybody who sent it meanwhile.
struct Flight {
    desk: Arc<Desk>,
    work: Arc<Work>,
    key: FlightKey,
    gate: Arc<Semaphore>,
    verdict: watch::Sender<Option<Verdict>>,
}

impl Flight {
    async fn fly(self) {
        let held = tokio::select! {
            biased;
            held = self.turn() => held,
            () = self.deserted() => None,
        };
        let Some(held) = held else {
            return;
        };
        // From here on it is finished whoever leaves: the hash cannot be stopped, and its verdict is
        // worth remembering. Turn and permit go along, because the hash runs on even if we are dropped.
        let work = Arc::clone(&self.work);
        self.desk.tally.hashed.fetch_add(1, Ordering::Relaxed);
        let desk = Arc::clone(&self.desk);
        let judged = tokio::task::spawn_blocking(move || {
            let before = thread_cpu_ns();
            let account = work.judge();
            let spent = thread_cpu_ns().saturating_sub(before);
            desk.tally.cpu_ns.fetch_add(spent, Ordering::Relaxed);
            drop(held);
            account
        });
        if let Ok(account) = judged.await {
            let verdict = self.work.remember(account);
            self.verdict.send_replace(Some(verdict));
        }
    }

    /// This user's turn, then one of everybody's permits. `None` only when the desk is gone.
    async fn turn(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let turn = Arc::clone(&self.gate).acquire_owned().await.ok()?;
        let permit = Arc::clone(&self.desk.permits).acquire_owned().await.ok()?;
        Some((turn, permit))
    }

    /// Ends when nobody waits for the verdict any more, and nobody can begin to.
    async fn deserted(&self) {
        loop {
            self.verdict.closed().await;
            let mut board = self.desk.board.lock();
            if self.verdict.receiver_count() == 0 {
                board.flights.remove(&self.key);
                return;
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut board = self.desk.board.lock();
        // A deserted flight has left the board already, and its place may be another's by now.
        if board
            .flights
            .get(&self.key)
            .is_some_and(|flight| flight.same_channel(&self.verdict))
        {
            board.flights.remove(&self.key);
        }
        if let Some(queue) = board.queues.get_mut(&self.work.user) {
            queue.length = queue.length.saturating_sub(1);
            if queue.length == 0 {
                board.queues.remove(&self.work.user);
            }
        }
    }
}

#[derive(Default)]
struct Counters {
    hashed: AtomicU64,
    joined: AtomicU64,
    shed: AtomicU64,
    /// Spent on hashes that nobody has been charged for.
    cpu_ns: AtomicU64,
}

/// What verification has cost since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passwords hashed.
    pub hashed: u64,
    /// Requests that waited for the same credential's verdict instead of asking for a hash of their own.
    pub joined: u64,
    /// Requests turned away because too many were waiting.
    pub shed: u64,
}

/// Credentials under verification at once, waiting ones included: some seconds of work at most.
const FLIGHTS_MAX: usize = 1024;

/// Different passwords of one user under verification at once.
const FLIGHTS_PER_USER_MAX: usize = 8;

const ATTEMPTS: usize = 3;
