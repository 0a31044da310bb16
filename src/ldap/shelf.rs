//! A bounded table that is looked at with every request: a lock that readers share, and two words of memory
//! beyond what is kept.
//!
//! Full, it lets go of what was put in first and was not looked at since.

use super::mark::Mark;
use crate::digested::ByOwnBytes;
use parking_lot::RwLock;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Values by mark.
pub(super) struct Shelf<V> {
    boards: Box<[RwLock<Board<V>>]>,
    per_board: usize,
    count: AtomicU64,
}

struct Board<V> {
    kept: HashMap<Mark, Kept<V>, ByOwnBytes>,
    /// Marks in the order in which they go. Some may be gone already, or be here twice.
    order: VecDeque<Mark>,
}

struct Kept<V> {
    value: V,
    was_used: AtomicBool,
}

impl<V> Shelf<V> {
    /// For so many values, about.
    pub(super) fn new(capacity: usize) -> Self {
        let board = |_| {
            RwLock::new(Board {
                kept: HashMap::default(),
                order: VecDeque::new(),
            })
        };
        Self {
            boards: (0..BOARDS).map(board).collect(),
            per_board: capacity.div_ceil(BOARDS).max(1),
            count: AtomicU64::new(0),
        }
    }

    /// What is made of a value; nobody may change it meanwhile.
    pub(super) fn read<T>(&self, mark: &Mark, make: impl FnOnce(&V) -> T) -> Option<T> {
        let board = self.board(mark)?.read();
        let kept = board.kept.get(mark)?;
        // Written only where it changes: readers share the line.
        if !kept.was_used.load(Ordering::Relaxed) {
            kept.was_used.store(true, Ordering::Relaxed);
        }
        Some(make(&kept.value))
    }

    /// Puts a value in place of what was there, or of what has to go for it.
    pub(super) fn insert(&self, mark: Mark, value: V) {
        let Some(board) = self.board(&mark) else {
            return;
        };
        let kept = Kept {
            value,
            was_used: AtomicBool::new(false),
        };
        let mut board = board.write();
        if board.kept.insert(mark, kept).is_some() {
            return;
        }
        board.order.push_back(mark);
        let removed = board.make_room(self.per_board);
        drop(board);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_sub(removed, Ordering::Relaxed);
    }

    /// Forgets a value.
    pub(super) fn remove(&self, mark: &Mark) {
        let removed = self
            .board(mark)
            .and_then(|board| board.write().kept.remove(mark));
        if removed.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn board(&self, mark: &Mark) -> Option<&RwLock<Board<V>>> {
        self.boards.get(mark.lot() % BOARDS)
    }
}

impl<V> Board<V> {
    /// Lets go of what is too much; gives the number of values that went.
    fn make_room(&mut self, most: usize) -> u64 {
        let mut removed = 0;
        while self.kept.len() > most {
            let Some(first) = self.order.pop_front() else {
                break;
            };
            let was_used = match self.kept.get(&first) {
                None => continue,
                Some(kept) => kept.was_used.swap(false, Ordering::Relaxed),
            };
            if was_used {
                self.order.push_back(first);
            } else {
                self.kept.remove(&first);
                removed += 1;
            }
        }
        if self.order.len() > 2 * most {
            let kept = &self.kept;
            let mut seen = std::collections::HashSet::new();
            self.order
                .retain(|mark| kept.contains_key(mark) && seen.insert(*mark));
        }
        removed
    }
}

/// Parts of the table, each with a lock of its own.
const BOARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::mark::{Marker, Of};
    use super::*;

    fn marks(count: u32) -> Vec<Mark> {
        let marker = Marker::new([3; 16]);
        let mark = |number: u32| marker.mark(Of::User, &number.to_be_bytes());
        (0..count).map(mark).collect()
    }

    #[test]
    fn a_full_shelf_keeps_what_is_looked_at() {
        let shelf = Shelf::new(BOARDS * 4);
        let marks = marks(10_000);
        let [favourite, others @ ..] = &marks[..] else {
            panic!();
        };
        shelf.insert(*favourite, 0);

        for (mark, number) in others.iter().zip(1..) {
            shelf.insert(*mark, number);
            assert_eq!(shelf.read(favourite, |value| *value), Some(0));
        }

        assert_eq!(shelf.len(), (BOARDS * 4) as u64);
        assert_eq!(shelf.read(&marks[1], |value| *value), None);
        assert_eq!(shelf.read(&marks[9999], |value| *value), Some(9999));
    }

    #[test]
    fn what_is_put_in_and_taken_out_for_ever_takes_no_memory() {
        let shelf = Shelf::new(BOARDS * 4);
        let mark = marks(1)[0];

        for number in 0..10_000 {
            shelf.insert(mark, number);
            shelf.insert(mark, number + 1);
            assert_eq!(shelf.read(&mark, |value| *value), Some(number + 1));
            shelf.remove(&mark);
            shelf.remove(&mark);
        }

        assert_eq!(shelf.len(), 0);
        let order = |board: &RwLock<Board<u32>>| board.read().order.len();
        assert!(shelf.boards.iter().map(order).sum::<usize>() <= 9);
    }
}
