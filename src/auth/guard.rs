//! The lockout guard: wrong passwords end here before the domain counts them.
//!
//! A domain locks an account after some wrong passwords, whoever sends them. The guard counts lower: at
//! its threshold the verifier is not asked any more, so that guessing at a user's password costs the user
//! nothing but fresh logins. It counts different credentials that a verifier found wrong; the same one
//! shown again and again is answered from memory. Requests without credentials, tickets, halves of a handshake and
//! credentials nobody could look at are not counted. Of NTLM each wrong proof is another credential, because it is made
//! for a challenge that never comes again.
//!
//! What is believed goes on being believed, and a credential that was right within a day may still be
//! asked about: the owner's own programs are not locked out by a stranger's guesses.
//!
//! Names nobody has are counted like those somebody has.

mod count;
mod table;

use super::cache::Digest;
use super::{Denied, Guarded};
use crate::config::settings::{LockoutGuard, SourceGuard};
use crate::ids::UserName;
use count::{Count, Forgets, Guess, Rule, Say};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use table::Table;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

/// Wrong credentials of late, by user and by source. Bounded; outlives a reload that does not change its
/// terms.
#[derive(Debug)]
pub(super) struct Guard {
    terms: LockoutGuard,
    users: Mutex<Table>,
    sources: Option<Mutex<Table>>,
    trips: [AtomicU64; 2],
    /// The latest time anybody told: a verdict comes later than its question was asked, and a window
    /// begins with the verdict.
    latest: Mutex<Option<Instant>>,
    pit: Arc<Semaphore>,
}

/// What the guard knows, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardFacts {
    /// Users of whom wrong credentials are remembered, and of these the refused ones.
    pub users: (usize, usize),
    /// The same for sources.
    pub sources: (usize, usize),
    /// Users and sources that came to be refused since this was last asked.
    pub trips: [u64; 2],
    /// Answers that are held back now.
    pub delayed: usize,
}

/// An answer that is held back for a while, and one of the places there are for such.
#[derive(Debug)]
pub struct Delay {
    /// How long.
    pub wait: Duration,
    _place: OwnedSemaphorePermit,
}

impl Guard {
    pub(super) fn new(terms: &LockoutGuard) -> Self {
        let user = Rule {
            failures: terms.user_failures.max(1),
            window: terms.user_window,
            forgets: Forgets::All,
        };
        let source = |source: &SourceGuard| Rule {
            failures: source.failures.max(1),
            window: source.window,
            forgets: Forgets::Each,
        };
        let sources = terms.per_source.as_ref();
        Self {
            users: Mutex::new(Table::new(user, USERS_MAX)),
            sources: sources.map(|terms| Mutex::new(Table::new(source(terms), SOURCES_MAX))),
            trips: Default::default(),
            latest: Mutex::default(),
            pit: Arc::new(Semaphore::new(terms.delays_max.min(Semaphore::MAX_PERMITS))),
            terms: terms.clone(),
        }
    }

    pub(super) fn terms(&self) -> &LockoutGuard {
        &self.terms
    }

    /// A place to hold an answer back; `None` where answers are not held back, or too many are already.
    pub(super) fn delay(&self) -> Option<Delay> {
        let wait = Some(self.terms.delay).filter(|wait| !wait.is_zero())?;
        let place = Arc::clone(&self.pit).try_acquire_owned().ok()?;
        Some(Delay {
            wait,
            _place: place,
        })
    }

    /// Forgets what one user got wrong; false where nothing is known of it.
    pub(super) fn pardon(&self, user: &UserName) -> bool {
        let mut users = self.users.lock();
        let key = users.key(user);
        let count = users.known(key);
        let was_known = count.map(Count::clear).is_some();
        users.tidy(key);
        was_known
    }

    /// Forgets what everybody got wrong.
    pub(super) fn pardon_all(&self) {
        self.users.lock().clear();
        if let Some(sources) = &self.sources {
            sources.lock().clear();
        }
    }

    /// Forgets what is over, and says what is left.
    pub(super) fn sweep(&self, now: Instant) -> GuardFacts {
        let now = self.latest(now);
        let sources = self.sources.as_ref();
        let delays = self.terms.delays_max.min(Semaphore::MAX_PERMITS);
        GuardFacts {
            users: self.users.lock().sweep(now),
            sources: sources.map_or((0, 0), |sources| sources.lock().sweep(now)),
            trips: self.trips.each_ref().map(|n| n.swap(0, Ordering::Relaxed)),
            delayed: delays.saturating_sub(self.pit.available_permits()),
        }
    }

    /// The time, as far as anybody has told it.
    fn latest(&self, now: Instant) -> Instant {
        let mut latest = self.latest.lock();
        let time = latest.map_or(now, |latest| latest.max(now));
        *latest = Some(time);
        time
    }

    /// The network that counts as one source; `None` where it is not counted.
    fn source(&self, address: IpAddr) -> Option<(&Mutex<Table>, IpAddr)> {
        let terms = self.terms.per_source.as_ref()?;
        let address = address.to_canonical();
        if terms.exempt.iter().any(|net| net.contains(address)) {
            return None;
        }
        Some((self.sources.as_ref()?, network(address, terms)))
    }
}

/// One credential before the guard: what is found of it is counted against these.
pub(super) struct Suspicion {
    guard: Option<Arc<Guard>>,
    address: IpAddr,
    guess: Guess,
    /// It was right within a day.
    is_vouched: bool,
    now: Instant,
    /// Counted as on their way, for these users and whether for the source too.
    begun: Mutex<Begun>,
    /// Kept until the verdict is counted: the user's next credential is judged by it.
    _turn: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Begun {
    users: Vec<UserName>,
    source: bool,
}

impl Suspicion {
    pub(super) fn new(
        guard: Option<&Arc<Guard>>,
        address: IpAddr,
        (digest, serial): (&Digest, u64),
        is_vouched: bool,
        now: Instant,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            guard: guard.cloned(),
            address,
            guess: Guess {
                lot: digest.lot(),
                serial,
            },
            is_vouched,
            now,
            begun: Mutex::default(),
            _turn: turn,
        }
    }

    /// Of a proof that is never the same twice: by its number it is told from others, and nothing vouches for it.
    pub(super) fn of_conversation(
        guard: &Arc<Guard>,
        address: IpAddr,
        lot: u64,
        now: Instant,
    ) -> Self {
        Self {
            guard: Some(Arc::clone(guard)),
            address,
            guess: Guess { lot, serial: 0 },
            is_vouched: false,
            now,
            begun: Mutex::default(),
            _turn: None,
        }
    }

    /// Whether anything from this source may be asked about, whoever it will be about.
    pub(super) fn look_around(&self) -> Result<(), Denied> {
        match &self.guard {
            Some(guard) => self.look_at_source(guard),
            None => Ok(()),
        }
    }

    /// Whether the verifier may be asked about a credential of this user, without asking it.
    pub(super) fn look(&self, user: &UserName) -> Result<(), Denied> {
        let Some(guard) = &self.guard else {
            return Ok(());
        };
        let mut users = guard.users.lock();
        let key = users.key(user);
        self.judge(&mut users, key, Guarded::User)?;
        drop(users);
        self.look_at_source(guard)
    }

    fn look_at_source(&self, guard: &Guard) -> Result<(), Denied> {
        let Some((sources, network)) = guard.source(self.address) else {
            return Ok(());
        };
        let mut sources = sources.lock();
        let key = sources.key(network);
        self.judge(&mut sources, key, Guarded::Source)
    }

    /// The verifier is about to be asked about a credential of this user. Where a directory has told
    /// another name of the same account, it is called again with that one, and both are counted.
    pub(super) fn begin(&self, user: &UserName) -> Result<(), Denied> {
        let Some(guard) = &self.guard else {
            return Ok(());
        };
        let mut begun = self.begun.lock();
        if begun.users.contains(user) {
            return Ok(());
        }
        if !begun.source {
            self.look_at_source(guard)?;
        }
        guard.latest(self.now);
        let mut users = guard.users.lock();
        let key = users.key(user);
        // Judged and begun in one go: of two at once, the second sees the first.
        self.judge(&mut users, key, Guarded::User)?;
        users.count(key, self.now).begin();
        drop(users);
        begun.users.push(user.clone());
        if let Some((sources, network)) = guard.source(self.address)
            && !std::mem::replace(&mut begun.source, true)
        {
            let mut sources = sources.lock();
            let key = sources.key(network);
            sources.count(key, self.now).begin();
        }
        Ok(())
    }

    /// The verifier found the credential wrong.
    pub(super) fn refused(&self, denied: Denied) {
        let Some(guard) = &self.guard else {
            return;
        };
        let now = guard.latest(self.now);
        let begun = self.begun.lock();
        for user in &begun.users {
            let mut users = guard.users.lock();
            let (rule, key) = (users.rule(), users.key(user));
            let has_tripped = users.count(key, now).refuse(rule, self.guess, denied, now);
            // Everybody's logins wait for this table; none is to wait for the log as well.
            drop(users);
            if has_tripped {
                guard.trips[0].fetch_add(1, Ordering::Relaxed);
                let window = humantime::format_duration(rule.window);
                warn!(%user, from = %self.address, wrong = rule.failures, %window, "too many wrong passwords for this user, others are refused unasked until so long after the last");
            }
        }
        if let Some((sources, network)) = guard.source(self.address).filter(|_| begun.source) {
            let mut sources = sources.lock();
            let (rule, key) = (sources.rule(), sources.key(network));
            let has_tripped = sources
                .count(key, now)
                .refuse(rule, self.guess, denied, now);
            drop(sources);
            if has_tripped {
                guard.trips[1].fetch_add(1, Ordering::Relaxed);
                let window = humantime::format_duration(rule.window);
                warn!(source = %network, wrong = rule.failures, %window, "too many wrong passwords from this address, others are refused unasked until fewer are that young");
            }
        }
    }

    /// The verifier found the credential right.
    pub(super) fn cleared(&self) {
        let Some(guard) = &self.guard else {
            return;
        };
        for user in &self.begun.lock().users {
            guard.pardon(user);
        }
    }

    fn judge(&self, table: &mut Table, key: u64, by: Guarded) -> Result<(), Denied> {
        let rule = table.rule();
        let said = table
            .known(key)
            .map(|c| c.judge(rule, self.guess, self.now));
        match (said.unwrap_or(Say::Ask), by) {
            (Say::Ask, _) => Ok(()),
            (Say::Wrong(denied), Guarded::User) => Err(denied),
            _ if self.is_vouched => Ok(()),
            // Many people may be behind one address: what one of them got wrong is asked of another.
            (Say::Wrong(_) | Say::Wait, Guarded::Source) => Ok(()),
            (Say::Wait, Guarded::User) => {
                Err(Denied::Busy("other credentials of this user are under way"))
            }
            (Say::TooMany, by) => Err(Denied::Guarded(by)),
        }
    }
}

impl Drop for Suspicion {
    fn drop(&mut self) {
        let Some(guard) = &self.guard else {
            return;
        };
        let begun = self.begun.get_mut();
        for user in &begun.users {
            let mut users = guard.users.lock();
            let key = users.key(user);
            users.known(key).into_iter().for_each(Count::end);
            users.tidy(key);
        }
        if let Some((sources, network)) = guard.source(self.address).filter(|_| begun.source) {
            let mut sources = sources.lock();
            let key = sources.key(network);
            sources.known(key).into_iter().for_each(Count::end);
            sources.tidy(key);
        }
    }
}

/// The first address of the network that counts as one source.
fn network(address: IpAddr, terms: &SourceGuard) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(terms.v4_prefix.min(32)));
            (u32::from(v4) & mask.unwrap_or(0)).to_be_bytes().into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(terms.v6_prefix.min(128)));
            (u128::from(v6) & mask.unwrap_or(0)).to_be_bytes().into()
        }
    }
}

/// Users remembered at once: some 200 bytes each with the default threshold.
const USERS_MAX: usize = 65_536;
/// Sources remembered at once: up to 2 KB each with the default threshold.
const SOURCES_MAX: usize = 16_384;

#[cfg(test)]
mod tests;
