//! One part of the session table: its entries and their wheel of expiry.

use super::Session;
use super::wheel::Wheel;
use crate::digested::ByOwnBytes;
use crate::ids::DatabaseName;
use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Entries by digest. Times are whole seconds since the table's start.
pub(super) struct Shard {
    entries: HashMap<u128, Entry, ByOwnBytes>,
    wheel: Wheel,
}

/// Sixteen bytes, so that a bucket of the map is a cache line's half.
struct Entry {
    session: Arc<Session>,
    /// From this second on, it is expired. Touched under the read lock.
    deadline: AtomicU32,
    /// Where the wheel holds its one valid record.
    filed: u32,
}

/// What became of an entry to be filed.
pub(super) enum Filed {
    Kept,
    NoRoom,
    Foreign,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::default(),
            wheel: Wheel::new(),
        }
    }

    pub(super) fn find(&self, key: u128, now: u32) -> Option<Arc<Session>> {
        let entry = self.entries.get(&key)?;
        entry.is_live(now).then(|| Arc::clone(&entry.session))
    }

    pub(super) fn file(
        &mut self,
        key: u128,
        session: &Arc<Session>,
        now: u32,
        deadline: u32,
        take_room: impl FnOnce() -> bool,
    ) -> Filed {
        match self.entries.entry(key) {
            hash_map::Entry::Occupied(mut known) => {
                let entry = known.get_mut();
                if entry.is_live(now) && entry.session.user != session.user {
                    return Filed::Foreign;
                }
                entry.session = Arc::clone(session);
                // Never nearer: the wheel would not look in time.
                entry.deadline.fetch_max(deadline, Ordering::Relaxed);
            }
            hash_map::Entry::Vacant(place) => {
                if !take_room() {
                    return Filed::NoRoom;
                }
                place.insert(Entry {
                    session: Arc::clone(session),
                    deadline: AtomicU32::new(deadline),
                    filed: self.wheel.file(key, deadline),
                });
            }
        }
        Filed::Kept
    }

    pub(super) fn touch(&self, key: u128, now: u32, deadline: u32) -> bool {
        let Some(entry) = self.entries.get(&key).filter(|entry| entry.is_live(now)) else {
            return false;
        };
        entry.deadline.fetch_max(deadline, Ordering::Relaxed);
        true
    }

    pub(super) fn close(&mut self, key: u128) -> Option<Arc<Session>> {
        let closed = self.entries.remove(&key)?;
        // Its record stays in the wheel until its turn comes; many of them are worth a tidying-up.
        if self.wheel.len() > self.entries.len() + self.entries.len() / 4 + STALE_RECORDS {
            self.refile();
        }
        Some(closed.session)
    }

    pub(super) fn sweep(&mut self, now: u32) -> usize {
        let before = self.entries.len();
        for (tick, key) in self.wheel.turn(now) {
            // A record of another tick belongs to a session that was closed under the same cookie.
            let filed = self
                .entries
                .get_mut(&key)
                .filter(|entry| entry.filed == tick);
            let Some(entry) = filed else {
                continue;
            };
            if entry.is_live(now) {
                entry.filed = self.wheel.file(key, *entry.deadline.get_mut());
            } else {
                self.entries.remove(&key);
            }
        }
        // What a flood left behind is given back once it is over.
        if self.entries.capacity() > 8 * self.entries.len() + SPARE_ENTRIES {
            self.entries.shrink_to(2 * self.entries.len());
        }
        before - self.entries.len()
    }

    pub(super) fn count_by_database(&self, now: u32, counts: &mut BTreeMap<DatabaseName, usize>) {
        for entry in self.entries.values().filter(|entry| entry.is_live(now)) {
            match counts.get_mut(&entry.session.database) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(entry.session.database.clone(), 1);
                }
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        // The map keeps a power of two of buckets, an eighth of them free, and a byte beside each.
        let buckets = match self.entries.capacity() {
            0 => 0,
            capacity => (capacity + capacity / 7).next_power_of_two(),
        };
        let map = buckets * (size_of::<(u128, Entry)>() + 1);
        map + self.entries.len() * SESSION_BYTES + self.wheel.memory_bytes()
    }

    #[cfg(test)]
    pub(super) fn records(&self) -> usize {
        self.wheel.len()
    }

    fn refile(&mut self) {
        self.wheel.clear();
        for (key, entry) in &mut self.entries {
            entry.filed = self.wheel.file(*key, *entry.deadline.get_mut());
        }
    }
}

impl Entry {
    fn is_live(&self, now: u32) -> bool {
        now < self.deadline.load(Ordering::Relaxed)
    }
}

/// A session on the heap: two reference counts, four names, and what an allocator adds.
const SESSION_BYTES: usize = 2 * size_of::<usize>() + size_of::<Session>() + 16;
/// Records of closed sessions that are not worth a tidying-up.
const STALE_RECORDS: usize = 64;
/// Free room in the map that is not worth giving back.
const SPARE_ENTRIES: usize = 1024;
