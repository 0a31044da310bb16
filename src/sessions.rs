//! Which user, mailbox, database and server a context cookie belongs to.
//!
//! A session is known by a keyed digest of its context cookie, so that the table holds no cookie and
//! nobody can choose where an entry lands. It outlives connections and addresses; it ends by
//! `Disconnect`, by a failover, or by expiry. `[MS-OXCMAPIHTTP] 3.1.1, 3.1.5.7`
//!
//! An entry costs at most 200 bytes beside the letters of its names, which it shares with the
//! directory, the authenticator and the configuration.

mod shard;
mod wheel;

use crate::ids::{DatabaseName, MailboxId, ServerName, UserName};
use crate::mapi::Endpoint;
use parking_lot::RwLock;
use shard::{Filed, Shard};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a context cookie stands for. `[MS-OXCMAPIHTTP] 3.2.1`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The mailbox it was opened for.
    pub mailbox: MailboxId,
    /// The mailbox's database at that time.
    pub database: DatabaseName,
    /// The server that holds the context.
    pub server: ServerName,
    /// Whose it is. A request of anybody else must not use it. `[MS-OXCMAPIHTTP] 3.2.5.1`
    pub user: UserName,
}

/// A context cookie, digested with a key of this process: 128 bits, so that two cookies never meet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(u128);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// What became of a session that was to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is remembered.
    Kept,
    /// The table is full of sessions in use; this one is not remembered.
    Full,
    /// The same cookie is in use by another user, whose session stays as it is.
    Foreign,
}

/// All sessions, spread over shards. Bounded; safe to use from any thread; holds its locks briefly.
pub struct SessionTable {
    shards: Box<[Lane]>,
    digest: SipHasher13,
    start: Instant,
    capacity: AtomicUsize,
    len: AtomicUsize,
    /// Second in which the table was last swept for want of room.
    squeezed: AtomicU32,
}

/// A shard on cache lines of its own.
#[repr(align(64))]
struct Lane(RwLock<Shard>);

impl SessionTable {
    /// An empty table for at most `capacity` sessions. `hash_key` should be random and new in each
    /// process; `start` is an instant not later than any it will hear of.
    pub fn new(capacity: usize, hash_key: [u8; 16], start: Instant) -> Self {
        Self {
            shards: (0..SHARDS)
                .map(|_| Lane(RwLock::new(Shard::new())))
                .collect(),
            digest: SipHasher13::new_with_key(&hash_key),
            start,
            capacity: AtomicUsize::new(capacity),
            len: AtomicUsize::new(0),
            squeezed: AtomicU32::new(u32::MAX),
        }
    }

    /// The key of a context cookie's value. The endpoints count their contexts separately.
    pub fn key(&self, endpoint: Endpoint, context_cookie: &[u8]) -> SessionKey {
        let mut digest = self.digest;
        digest.write_u8(match endpoint {
            Endpoint::Emsmdb => 0,
            Endpoint::Nspi => 1,
        });
        digest.write(context_cookie);
        SessionKey(digest.finish128().as_u128())
    }

    /// The session of this key, unless it is unknown or expired. The caller compares the user.
    pub fn find(&self, key: SessionKey, now: Instant) -> Option<Arc<Session>> {
        self.lane(key)?.0.read().find(key.0, self.second(now))
    }

    /// Remembers a session for `lifetime`. At the cap, expired ones make room; those in use never do,
    /// so that a flood of new sessions cannot push anybody out. A session that is known already is
    /// replaced, and ends no sooner than it would have.
    pub fn open(
        &self,
        key: SessionKey,
        session: Session,
        now: Instant,
        lifetime: Duration,
    ) -> Opened {
        let Some(lane) = self.lane(key) else {
            return Opened::Full;
        };
        let (second, deadline) = (self.second(now), self.deadline(now, lifetime));
        let session = Arc::new(session);
        let mut may_squeeze = true;
        loop {
            let filed = lane
                .0
                .write()
                .file(key.0, &session, second, deadline, || self.take_room());
            match filed {
                Filed::Kept => return Opened::Kept,
                Filed::Foreign => return Opened::Foreign,
                Filed::NoRoom if may_squeeze && self.may_squeeze(second) => {
                    may_squeeze = false;
                    self.sweep(now);
                }
                Filed::NoRoom => return Opened::Full,
            }
        }
    }

    /// Puts off a session's expiry to `lifetime` from now; never nearer. False when the session is
    /// unknown or already expired.
    pub fn touch(&self, key: SessionKey, now: Instant, lifetime: Duration) -> bool {
        let deadline = self.deadline(now, lifetime);
        self.lane(key)
            .is_some_and(|lane| lane.0.read().touch(key.0, self.second(now), deadline))
    }

    /// Forgets a session and returns what was known of it.
    pub fn close(&self, key: SessionKey) -> Option<Arc<Session>> {
        let closed = self.lane(key)?.0.write().close(key.0)?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(closed)
    }

    /// Drops what has expired and returns how many that were. To be called every few seconds; costs
    /// as much as there is to drop or to file anew, not as much as there is.
    pub fn sweep(&self, now: Instant) -> usize {
        let second = self.second(now);
        let mut expired = 0;
        for lane in &self.shards {
            expired += lane.0.write().sweep(second);
        }
        self.len.fetch_sub(expired, Ordering::Relaxed);
        expired
    }

    /// Sessions remembered, among them those that expired since the last sweep.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// True when no session is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sessions may be remembered at once.
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Changes the cap. Sessions beyond a lower one stay until they end; no new ones join meanwhile.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Live sessions of each database. Looks at every entry: for the status page, not for requests.
    pub fn count_by_database(&self, now: Instant) -> BTreeMap<DatabaseName, usize> {
        let second = self.second(now);
        let mut counts = BTreeMap::new();
        for lane in &self.shards {
            lane.0.read().count_by_database(second, &mut counts);
        }
        counts
    }

    /// Memory the table occupies, in bytes, without the letters of names. Looks at every slot of the
    /// wheels: for the status page, not for requests.
    pub fn memory_bytes(&self) -> usize {
        let shards = self.shards.iter().map(|lane| lane.0.read().memory_bytes());
        shards.sum::<usize>() + size_of_val(&*self.shards)
    }

    fn lane(&self, key: SessionKey) -> Option<&Lane> {
        // The map inside a shard looks at the lower half of the digest.
        self.shards
            .get((key.0 >> (u128::BITS - SHARD_BITS)) as usize)
    }

    fn take_room(&self) -> bool {
        let capacity = self.capacity();
        self.len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |len| {
                (len < capacity).then_some(len + 1)
            })
            .is_ok()
    }

    /// Once a second is enough: nothing expires more finely than that.
    fn may_squeeze(&self, second: u32) -> bool {
        self.squeezed.swap(second, Ordering::Relaxed) != second
    }

    fn second(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.start).as_secs();
        u32::try_from(since).unwrap_or(u32::MAX)
    }

    /// The second from which on a session is expired; rounded up, because a session must not end
    /// before the server's own does.
    fn deadline(&self, now: Instant, lifetime: Duration) -> u32 {
        let since = now.saturating_duration_since(self.start);
        let until = since.saturating_add(lifetime);
        let seconds = until.as_secs() + u64::from(until.subsec_nanos() > 0);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for SessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTable")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;

#[cfg(test)]
mod tests;
