//! Which server a virtual connection of Outlook Anywhere lives on.
//!
//! Its channels are TCP connections of their own and come in any order; whichever comes first decides, and every other
//! one follows. A virtual connection is known by a keyed digest of its cookie, so that the table holds no cookie and
//! nobody can choose where an entry lands. It belongs to the user and the mailbox it was begun for. `[MS-RPCH] 1.3, 3.2.1.5.3`
//!
//! An entry costs about 150 bytes beside the letters of its names, which it shares with the directory, the authenticator
//! and the configuration.

use crate::ids::{MailboxId, ServerName, UserName};
use crate::rpch::{Cookie, Verb};
use hashbrown::HashMap;
use parking_lot::Mutex;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::VecDeque;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// All virtual connections. Bounded; safe to use from any thread; holds its lock for a look-up and a decision.
pub struct ChannelTable {
    state: Mutex<State>,
    digest: SipHasher13,
    capacity: AtomicUsize,
}

struct State {
    entries: HashMap<u128, Entry>,
    /// The latest time that anybody has told.
    now: Instant,
    /// Those without a channel, by when they are forgotten. An entry that had one again since has a later record.
    idle: VecDeque<(Instant, u128)>,
}

struct Entry {
    user: UserName,
    mailbox: MailboxId,
    server: ServerName,
    /// Channels open now, by direction.
    open: [u32; 2],
    /// Directions that ever were.
    seen: [bool; 2],
    /// A channel has reached the server: from then on it cannot be elsewhere.
    is_established: bool,
    /// When it is forgotten, while no channel is open.
    until: Option<Instant>,
}

/// A channel that wants to join.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The cookie of the virtual connection.
    pub connection: Cookie,
    /// Which way it carries.
    pub verb: Verb,
    /// Who opens it, proven.
    pub user: &'a UserName,
    /// The mailbox its URL names.
    pub mailbox: &'a MailboxId,
}

/// Why a channel does not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSeat<E> {
    /// The virtual connection is another user's or another mailbox'.
    Foreign,
    /// The table is full of virtual connections in use.
    Full,
    /// Nobody takes it.
    Decided(E),
}

impl ChannelTable {
    /// An empty table for at most `capacity` virtual connections. `hash_key` should be random and new in each process;
    /// `start` is an instant not later than any it will hear of.
    pub fn new(capacity: usize, hash_key: [u8; 16], start: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                entries: HashMap::new(),
                now: start,
                idle: VecDeque::new(),
            }),
            digest: SipHasher13::new_with_key(&hash_key),
            capacity: AtomicUsize::new(capacity),
        }
    }

    /// Gives a channel its seat, and the server of its virtual connection. `decide` is asked for the server, with whatever
    /// else it has to say, and told where the virtual connection lives already; nobody else joins it meanwhile, so that two channels that come at once
    /// never get two answers.
    ///
    /// # Errors
    /// See [`NoSeat`].
    pub fn join<T, E>(
        self: &Arc<Self>,
        claim: Claim<'_>,
        now: Instant,
        decide: impl FnOnce(Option<&ServerName>) -> Result<(ServerName, T), E>,
    ) -> Result<(Seat, ServerName, T), NoSeat<E>> {
        let key = self.key(claim.connection);
        let mut state = self.state.lock();
        state.forget(now);
        let capacity = self.capacity.load(Ordering::Relaxed);
        let has_room =
            state.entries.contains_key(&key) || state.entries.len() < capacity || state.make_room();
        let (server, more) = match state.entries.get_mut(&key) {
            Some(known) => {
                if known.user != *claim.user || known.mailbox != *claim.mailbox {
                    return Err(NoSeat::Foreign);
                }
                let (_, more) = decide(Some(&known.server)).map_err(NoSeat::Decided)?;
                known.enter(claim.verb);
                // Whatever was decided: a virtual connection has one server.
                (known.server.clone(), more)
            }
            None if !has_room => return Err(NoSeat::Full),
            None => {
                let (server, more) = decide(None).map_err(NoSeat::Decided)?;
                let mut entry = Entry {
                    user: claim.user.clone(),
                    mailbox: claim.mailbox.clone(),
                    server: server.clone(),
                    open: [0; 2],
                    seen: [false; 2],
                    is_established: false,
                    until: None,
                };
                entry.enter(claim.verb);
                state.entries.insert(key, entry);
                (server, more)
            }
        };
        drop(state);
        let seat = Seat {
            table: Arc::clone(self),
            key,
            verb: claim.verb,
        };
        Ok((seat, server, more))
    }

    /// Forgets those that have had no channel for a while. To be called every few seconds; costs as much as there is to
    /// forget.
    pub fn sweep(&self, now: Instant) {
        let mut state = self.state.lock();
        state.forget(now);
        // What a flood left behind is given back once it is over.
        if state.entries.capacity() > 8 * state.entries.len() + SPARE_ENTRIES {
            let keep = 2 * state.entries.len();
            state.entries.shrink_to(keep);
        }
    }

    /// Virtual connections remembered, among them those whose last channel closed a moment ago.
    pub fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    /// True when none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes the cap. Those beyond a lower one stay until they end.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    fn key(&self, cookie: Cookie) -> u128 {
        let mut digest = self.digest;
        digest.write(&cookie.0);
        digest.finish128().as_u128()
    }

    fn leave(&self, key: u128, verb: Verb) {
        let mut state = self.state.lock();
        // As it was last told; nothing here is more exact than the rounds of upkeep.
        let until = state.now + LINGER;
        let Some(entry) = state.entries.get_mut(&key) else {
            return;
        };
        if let Some(open) = entry.open.get_mut(verb.index()) {
            *open = open.saturating_sub(1);
        }
        if entry.open != [0; 2] {
            return;
        }
        if entry.is_established {
            entry.until = Some(until);
            state.idle.push_back((until, key));
        } else {
            // Nothing of it is at any server: whoever tries again may find another.
            state.entries.remove(&key);
        }
    }
}

impl fmt::Debug for ChannelTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelTable")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        self.now = self.now.max(now);
        while let Some((until, key)) = self.idle.front().copied()
            && until <= now
        {
            self.idle.pop_front();
            self.drop_idle(key, until);
        }
    }

    /// Forgets one without a channel before its time. False: all are in use, and those are never pushed out.
    fn make_room(&mut self) -> bool {
        while let Some((until, key)) = self.idle.pop_front() {
            if self.drop_idle(key, until) {
                return true;
            }
        }
        false
    }

    fn drop_idle(&mut self, key: u128, until: Instant) -> bool {
        let is_it = |entry: &Entry| entry.until == Some(until);
        let is_idle = self.entries.get(&key).is_some_and(is_it);
        is_idle && self.entries.remove(&key).is_some()
    }
}

impl Entry {
    fn enter(&mut self, verb: Verb) {
        self.until = None;
        if let Some(open) = self.open.get_mut(verb.index()) {
            *open += 1;
        }
        if let Some(seen) = self.seen.get_mut(verb.index()) {
            *seen = true;
        }
    }
}

/// A channel's place in its virtual connection. Dropping it gives it back.
pub struct Seat {
    table: Arc<ChannelTable>,
    key: u128,
    verb: Verb,
}

impl Seat {
    /// The server has heard of the channel: the virtual connection cannot be elsewhere from now on.
    pub fn establish(&self) {
        if let Some(entry) = self.table.state.lock().entries.get_mut(&self.key) {
            entry.is_established = true;
        }
    }

    /// True once a channel of the other direction has come.
    pub fn has_partner(&self) -> bool {
        let state = self.table.state.lock();
        let entry = state.entries.get(&self.key);
        entry.is_some_and(|entry| entry.seen == [true; 2])
    }

    /// A number in 0..1 that is the same for every channel of the virtual connection: what ends them all ends them
    /// together.
    pub fn share(&self) -> f64 {
        let [.., first, second] = self.key.to_le_bytes();
        f64::from(u16::from_le_bytes([first, second])) / f64::from(u16::MAX)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.leave(self.key, self.verb);
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("verb", &self.verb)
            .finish_non_exhaustive()
    }
}

/// How long a virtual connection without a channel is remembered: a channel that was on its way when the last one
/// closed still finds its server, or is told that it is gone.
const LINGER: Duration = Duration::from_secs(30);
/// Free room in the map that is not worth giving back.
const SPARE_ENTRIES: usize = 1024;

#[cfg(test)]
mod tests;
