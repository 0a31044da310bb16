//! Counts by whom they are about, so many and no more.

use super::count::{Count, Rule};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Instant;

/// Counts by a keyed hash of a name or an address: nobody outside can make two of them meet.
///
/// At its cap an eighth of it is made free, so that the next names come in without another look at all of it. What
/// matters least goes: those that are not tripped before those that are, older ones before younger. Who floods the
/// table with names forgets names nobody guessed at for long.
#[derive(Debug)]
pub(super) struct Table {
    rule: Rule,
    counts: HashMap<u64, Count>,
    keys: RandomState,
    capacity: usize,
}

impl Table {
    pub(super) fn new(rule: Rule, capacity: usize) -> Self {
        Self {
            rule,
            counts: HashMap::new(),
            keys: RandomState::new(),
            capacity: capacity.max(1),
        }
    }

    pub(super) fn rule(&self) -> Rule {
        self.rule
    }

    /// Where this one's count stands.
    pub(super) fn key(&self, of: impl Hash) -> u64 {
        self.keys.hash_one(of)
    }

    /// The count, if anything is known.
    pub(super) fn known(&mut self, key: u64) -> Option<&mut Count> {
        self.counts.get_mut(&key)
    }

    /// The count, new where nothing was known.
    pub(super) fn count(&mut self, key: u64, now: Instant) -> &mut Count {
        if self.counts.len() >= self.capacity && !self.counts.contains_key(&key) {
            self.make_room(now);
        }
        self.counts.entry(key).or_default()
    }

    /// Forgets what is over. How many are known then, and how many of them are tripped.
    pub(super) fn sweep(&mut self, now: Instant) -> (usize, usize) {
        let rule = self.rule;
        self.counts.retain(|_, count| {
            count.forget(rule, now);
            !count.is_empty()
        });
        let tripped = self.counts.values().filter(|c| c.is_tripped(rule)).count();
        (self.counts.len(), tripped)
    }

    /// Drops a count that says nothing any more.
    pub(super) fn tidy(&mut self, key: u64) {
        if self.counts.get(&key).is_some_and(Count::is_empty) {
            self.counts.remove(&key);
        }
    }

    /// Forgets everybody.
    pub(super) fn clear(&mut self) {
        self.counts.values_mut().for_each(Count::clear);
    }

    fn make_room(&mut self, now: Instant) {
        self.sweep(now);
        let kept = self.capacity - (self.capacity / 8).max(1);
        let mut surplus = self.counts.len().saturating_sub(kept);
        let Some(last) = surplus.checked_sub(1) else {
            return;
        };
        let rule = self.rule;
        let rank = |count: &Count| (count.is_tripped(rule), count.last());
        let mut ranks: Vec<_> = self.counts.values().map(rank).collect();
        let (_, limit, _) = ranks.select_nth_unstable(last);
        let limit = *limit;
        // Of equals, as many as must.
        self.counts.retain(|_, count| {
            let goes = surplus > 0 && rank(count) <= limit;
            surplus -= usize::from(goes);
            !goes
        });
    }
}
