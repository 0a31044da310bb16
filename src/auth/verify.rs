//! The slow look at a credential: each once, each user in turn, a few at a time.
//!
//! A bcrypt or argon2id hash costs milliseconds of CPU by design, which makes it a lever for whoever
//! wants to keep us busy. So verifications run beside the worker threads, at most `auth.verifications`
//! of a scheme at once: no scheme waits for another's. A user has one at a time and few waiting; a
//! thousand wrong passwords for one name take one place in the common queue and delay others by one hash.

use super::cache::{Beliefs, Digest};
use super::guard::{Guard, Suspicion};
use super::method::{Judged, Method, Work};
use super::{Denied, Identity, Scheme};
use crate::accounting::meter::thread_cpu_ns;
use crate::ids::UserName;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// A credential that only slow work can judge.
///
/// Dropping it, or the future of [`Self::run`], takes nothing from others: what is under way is
/// finished or given back, and other requests with the same credential get their verdict.
#[must_use = "nothing is verified until it runs"]
pub struct Verification {
    desk: Arc<Desk>,
    case: Arc<Case>,
}

impl Verification {
    pub(super) fn new(desk: &Arc<Desk>, case: Case) -> Self {
        Self {
            desk: Arc::clone(desk),
            case: Arc::new(case),
        }
    }

    /// The scheme of the credential.
    pub fn scheme(&self) -> Scheme {
        self.case.method.scheme()
    }

    /// Judges the credential; must be awaited inside a tokio runtime.
    ///
    /// The verdict is remembered, so that the same credential is judged at once by the next
    /// [`super::Authenticator::step`].
    pub async fn run(self) -> Result<Arc<Identity>, Denied> {
        for _ in 0..ATTEMPTS {
            let mut verdict = match self.desk.board(&self.case)? {
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
        Err(Denied::Busy("verification was interrupted"))
    }
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verification({:?}, …)", self.scheme())
    }
}

/// A credential with everything its verdict and the memory of it need.
pub(super) struct Case {
    pub(super) method: Arc<dyn Method>,
    pub(super) work: Arc<dyn Work>,
    pub(super) digest: Digest,
    pub(super) beliefs: Arc<Beliefs>,
    pub(super) guard: Option<Arc<Guard>>,
    /// Where the request came from.
    pub(super) source: IpAddr,
    /// The epoch of the beliefs when the request was read: a revocation since then counts.
    pub(super) epoch: u64,
    /// When the request was read; what is remembered lasts from here.
    pub(super) asked_at: (Instant, SystemTime),
}

impl Case {
    fn known(&self) -> Option<Verdict> {
        let (digest, method, now) = (&self.digest, &*self.method, self.asked_at.0);
        if let Some(belief) = self.beliefs.good(digest, method, now) {
            return Some(Ok(Arc::clone(&belief.identity)));
        }
        self.beliefs.bad(digest, method, now).map(Err)
    }

    /// Nothing is counted of it yet. `turn` is kept for as long as the suspicion is.
    pub(super) fn suspicion(&self, turn: Option<OwnedSemaphorePermit>) -> Suspicion {
        let is_guarded = self.work.suspect().is_some();
        Suspicion::new(
            self.guard.as_ref().filter(|_| is_guarded),
            self.source,
            (&self.digest, self.method.serial()),
            is_guarded && self.beliefs.is_vouched(&self.digest),
            self.asked_at.0,
            turn,
        )
    }

    /// Whether the guard would have the verifier asked.
    pub(super) fn look(&self) -> Result<(), Denied> {
        match self.work.suspect() {
            Some(user) => self.suspicion(None).look(user),
            None => Ok(()),
        }
    }

    /// `serial` is the method's as it was before it judged.
    fn remember(&self, judged: Judged, serial: u64, suspicion: &Suspicion) -> Verdict {
        let (digest, epoch) = (self.digest, self.epoch);
        match judged {
            Judged::Proven(proven) => {
                let identity = Arc::new(Identity {
                    user: proven.user.clone(),
                    scheme: self.method.scheme(),
                    expires: proven.expires,
                    evidence: None,
                });
                let granted = Arc::clone(&identity);
                self.beliefs
                    .believe(digest, granted, proven, epoch, self.asked_at);
                if self.work.suspect().is_some() {
                    self.beliefs.vouch(digest);
                }
                suspicion.cleared();
                Ok(identity)
            }
            Judged::Wrong(denied) => {
                self.beliefs
                    .disbelieve(digest, denied, serial, epoch, self.asked_at.0);
                self.beliefs.unvouch(&digest);
                suspicion.refused(denied);
                Err(denied)
            }
            Judged::NotNow(denied) => Err(denied),
        }
    }
}

/// The right to be worked for, given back when dropped: a user's turn and one of the scheme's permits.
pub(super) struct Held {
    suspicion: Arc<Suspicion>,
    _permit: OwnedSemaphorePermit,
    desk: Arc<Desk>,
}

impl Held {
    /// A directory has told whose account it is: wrong guesses count against this name too, whichever
    /// other name they were made under. To be asked before the verifier is.
    ///
    /// # Errors
    /// The verifier must not be asked; the verdict is `Judged::NotNow`.
    pub(super) fn is_about(&self, account: &UserName) -> Result<(), Denied> {
        self.suspicion.begin(account)
    }
}

/// Does processor work beside the worker threads, and counts what it costs. The work keeps what is held,
/// because it runs on even if nobody waits for it any more. `None` where the runtime stopped.
pub(super) async fn aside<T: Send + 'static>(
    held: Held,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let desk = Arc::clone(&held.desk);
    desk.spend(held, work).await
}

type Verdict = Result<Arc<Identity>, Denied>;

/// Where verifications queue. One for the process, across reloads.
pub(super) struct Desk {
    /// By [`Scheme::index`].
    permits: Vec<Arc<Semaphore>>,
    board: Mutex<Board>,
    tally: Counters,
}

/// A credential in the eyes of a method as it was then.
type FlightKey = (Digest, u64);

#[derive(Default)]
struct Board {
    flights: HashMap<FlightKey, watch::Sender<Option<Verdict>>>,
    /// How many of each scheme.
    counts: [usize; Scheme::ALL.len()],
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
        let permits = verifications_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Scheme::ALL
                .iter()
                .map(|_| Arc::new(Semaphore::new(permits)))
                .collect(),
            board: Mutex::default(),
            tally: Counters::default(),
        }
    }

    /// Joins the flight of this credential, or starts it.
    fn board(self: &Arc<Self>, case: &Arc<Case>) -> Result<Boarding, Denied> {
        let runtime = Handle::try_current()
            .map_err(|_none| Denied::Busy("verification outside a runtime"))?;
        let scheme = case.method.scheme();
        let permits = self
            .permits
            .get(scheme.index())
            .ok_or(Denied::Busy("verification of an unknown scheme"))?;
        let key = (case.digest, case.method.serial());
        let mut board = self.board.lock();
        if let Some(flight) = board.flights.get(&key) {
            self.tally.joined.fetch_add(1, Ordering::Relaxed);
            return Ok(Boarding::Flight(flight.subscribe()));
        }
        // It may have landed between the look of `step` and now; flights land before they leave the board.
        if let Some(verdict) = case.known() {
            return Ok(Boarding::Known(verdict));
        }
        let gate = board
            .enter(scheme, case.work.queue(), FLIGHTS_PER_USER_MAX)
            .inspect_err(|_full| _ = self.tally.shed.fetch_add(1, Ordering::Relaxed))?;
        let (sender, receiver) = watch::channel(None);
        board.flights.insert(key, sender.clone());
        drop(board);
        let flight = Flight {
            desk: Arc::clone(self),
            case: Arc::clone(case),
            key,
            gate,
            permits: Arc::clone(permits),
            verdict: sender,
        };
        runtime.spawn(flight.fly());
        Ok(Boarding::Flight(receiver))
    }

    /// The same for a scheme with permits of its own, of which `permit` is one.
    pub(super) async fn aside<T: Send + 'static>(
        self: Arc<Self>,
        permit: Option<OwnedSemaphorePermit>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.tally.judged.fetch_add(1, Ordering::Relaxed);
        self.spend(permit, work).await
    }

    async fn spend<T: Send + 'static, K: Send + 'static>(
        self: Arc<Self>,
        kept: K,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let done = tokio::task::spawn_blocking(move || {
            let before = thread_cpu_ns();
            let value = work();
            let spent = thread_cpu_ns().saturating_sub(before);
            self.tally.cpu_ns.fetch_add(spent, Ordering::Relaxed);
            drop(kept);
            value
        });
        done.await.ok()
    }

    /// Waits for this user's turn, not longer than `patience`: of two proofs at once the second is to know what came
    /// of the first.
    ///
    /// # Errors
    /// Too many others wait.
    pub(super) async fn turn(
        self: &Arc<Self>,
        scheme: Scheme,
        user: UserName,
        patience: Duration,
    ) -> Result<Turn, Denied> {
        let gate = self
            .board
            .lock()
            .enter(scheme, Some(&user), TURNS_PER_USER_MAX)
            .inspect_err(|_full| _ = self.tally.shed.fetch_add(1, Ordering::Relaxed))?;
        let mut turn = Turn {
            desk: Arc::clone(self),
            scheme,
            user,
            permit: None,
        };
        if let Some(gate) = gate {
            let waited = tokio::time::timeout(patience, gate.acquire_owned()).await;
            let Ok(Ok(permit)) = waited else {
                self.shed();
                return Err(Denied::Busy("other credentials of this user are under way"));
            };
            turn.permit = Some(permit);
        }
        Ok(turn)
    }

    /// Somebody was turned away because too many were waiting.
    pub(super) fn shed(&self) {
        self.tally.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// Processor time of verifications since this was last asked, in nanoseconds.
    pub(super) fn take_cpu_ns(&self) -> u64 {
        self.tally.cpu_ns.swap(0, Ordering::Relaxed)
    }

    pub(super) fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            judged: read(&self.tally.judged),
            joined: read(&self.tally.joined),
            shed: read(&self.tally.shed),
        }
    }
}

impl Board {
    /// Takes a place among the flights of the scheme, and in the user's queue where there is one.
    fn enter(
        &mut self,
        scheme: Scheme,
        user: Option<&UserName>,
        per_user_max: usize,
    ) -> Result<Option<Arc<Semaphore>>, Denied> {
        let count = self.counts.get_mut(scheme.index());
        let count = count
            .filter(|count| **count < FLIGHTS_MAX)
            .ok_or(Denied::Busy("too many credentials to verify"))?;
        let gate = match user {
            None => None,
            Some(user) => {
                let queue = self.queues.entry(user.clone()).or_insert_with(|| Queue {
                    gate: Arc::new(Semaphore::new(1)),
                    length: 0,
                });
                if queue.length >= per_user_max {
                    return Err(Denied::Busy("too many credentials of one user to verify"));
                }
                queue.length += 1;
                Some(Arc::clone(&queue.gate))
            }
        };
        *count += 1;
        Ok(gate)
    }

    /// Gives the places back.
    fn leave(&mut self, scheme: Scheme, user: Option<&UserName>) {
        if let Some(count) = self.counts.get_mut(scheme.index()) {
            *count = count.saturating_sub(1);
        }
        let Some(user) = user else {
            return;
        };
        if let Some(queue) = self.queues.get_mut(user) {
            queue.length = queue.length.saturating_sub(1);
            if queue.length == 0 {
                self.queues.remove(user);
            }
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("tally", &self.tally())
            .finish_non_exhaustive()
    }
}

/// A user's turn, and the place in the queue for it.
pub(super) struct Turn {
    desk: Arc<Desk>,
    scheme: Scheme,
    user: UserName,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut board = self.desk.board.lock();
        board.leave(self.scheme, Some(&self.user));
    }
}

/// One credential under verification, for everybody who sent it meanwhile.
struct Flight {
    desk: Arc<Desk>,
    case: Arc<Case>,
    key: FlightKey,
    gate: Option<Arc<Semaphore>>,
    permits: Arc<Semaphore>,
    verdict: watch::Sender<Option<Verdict>>,
}

impl Flight {
    async fn fly(self) {
        let begun = tokio::select! {
            biased;
            begun = self.begin() => begun,
            () = self.deserted() => None,
        };
        let verdict = match begun {
            None => return,
            Some(Err(denied)) => Err(denied),
            // From here on it is finished whoever leaves: a hash cannot be stopped, and its verdict is
            // worth remembering.
            Some(Ok(held)) => {
                self.desk.tally.judged.fetch_add(1, Ordering::Relaxed);
                let serial = self.case.method.serial();
                let people = Arc::clone(self.case.beliefs.people());
                let suspicion = Arc::clone(&held.suspicion);
                let Some(judged) = Arc::clone(&self.case.work).judge(people, held).await else {
                    return;
                };
                self.case.remember(judged, serial, &suspicion)
            }
        };
        self.verdict.send_replace(Some(verdict));
    }

    /// What the work needs, then this user's turn, then one of everybody's permits. `None` only when the
    /// desk is gone.
    async fn begin(&self) -> Option<Result<Held, Denied>> {
        if let Err(denied) = self.case.work.ready().await {
            return Some(Err(denied));
        }
        let turn = match &self.gate {
            Some(gate) => Some(Arc::clone(gate).acquire_owned().await.ok()?),
            None => None,
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        let suspicion = self.case.suspicion(turn);
        // Again, and now to stay: those before it in the queue have their verdicts.
        if let Some(user) = self.case.work.suspect()
            && let Err(denied) = suspicion.begin(user)
        {
            return Some(Err(denied));
        }
        Some(Ok(Held {
            suspicion: Arc::new(suspicion),
            _permit: permit,
            desk: Arc::clone(&self.desk),
        }))
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
        board.leave(self.case.method.scheme(), self.case.work.queue());
    }
}

#[derive(Default)]
struct Counters {
    judged: AtomicU64,
    joined: AtomicU64,
    shed: AtomicU64,
    /// Spent on work that nobody has been charged for.
    cpu_ns: AtomicU64,
}

/// What verification has cost since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Credentials judged: passwords hashed, signatures verified.
    pub judged: u64,
    /// Requests that waited for the same credential's verdict instead of asking for one of their own.
    pub joined: u64,
    /// Requests turned away because too many were waiting.
    pub shed: u64,
}

/// Credentials of one scheme under verification at once, waiting ones included: some seconds of work at
/// most.
const FLIGHTS_MAX: usize = 1024;

/// Different credentials of one user under verification at once.
const FLIGHTS_PER_USER_MAX: usize = 8;

/// The same for proofs of a conversation, which are all different: a program that keeps many connections signs
/// them all on at once.
const TURNS_PER_USER_MAX: usize = 64;

const ATTEMPTS: usize = 3;
