//! Memory that is lent while there is something in it.
//!
//! A held poll waits minutes for a few bytes. Were each connection to keep its buffers, they would be
//! most of its memory. So a buffer is borrowed from a small store of the worker's own when bytes are
//! about to come, and goes back when they are consumed: two pointer moves, no lock, no system call.

use std::cell::RefCell;

/// What a buffer is for; each class has one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 16 KiB: the plaintext of a TLS record, and nearly every head.
    Plain,
    /// 64 KiB: plaintext of a transfer that proves to be bulk, for fewer system calls per byte.
    PlainBulk,
    /// 17 KiB: a TLS record of the largest kind.
    Wire,
    /// 68 KiB: four of them.
    WireBulk,
}

impl Class {
    const ALL: [Self; 4] = [Self::Plain, Self::PlainBulk, Self::Wire, Self::WireBulk];

    /// Bytes of a buffer of this class.
    pub const fn size(self) -> usize {
        match self {
            Self::Plain => 16 * 1024,
            Self::PlainBulk => 64 * 1024,
            Self::Wire => 17 * 1024,
            Self::WireBulk => 68 * 1024,
        }
    }
}

/// Buffers of a class that a worker keeps: as many as hold bytes at once, which is few, since a buffer
/// that is waited with is given back.
const SHELF: usize = 4;

#[derive(Default)]
struct Store {
    shelves: [Vec<Box<[u8]>>; Class::ALL.len()],
    scratch: Vec<Vec<u8>>,
}

thread_local! {
    static STORE: RefCell<Store> = RefCell::default();
}

/// Lends a buffer. What an earlier user left in it is still there: read only what you wrote.
pub fn take(class: Class) -> Box<[u8]> {
    let kept = STORE.with_borrow_mut(|store| store.shelves.get_mut(class as usize)?.pop());
    // Zeroed once in its life, not once per use.
    kept.unwrap_or_else(|| vec![0; class.size()].into_boxed_slice())
}

/// Takes memory back. What is no buffer of a class, or one too many, is freed.
pub fn give(memory: Box<[u8]>) {
    let Some(class) = Class::ALL
        .into_iter()
        .find(|class| class.size() == memory.len())
    else {
        return;
    };
    STORE.with_borrow_mut(|store| {
        if let Some(shelf) = store.shelves.get_mut(class as usize)
            && shelf.len() < SHELF
        {
            shelf.push(memory);
        }
    });
}

/// A growing buffer for what is about to be written; its memory goes back to the store.
#[derive(Debug)]
pub struct Scratch(pub Vec<u8>);

impl Scratch {
    /// An empty one, with room for a head.
    pub fn new() -> Self {
        let kept = STORE.with_borrow_mut(|store| store.scratch.pop());
        Self(kept.unwrap_or_else(|| Vec::with_capacity(Class::Plain.size())))
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.0);
        if memory.capacity() > 2 * Class::PlainBulk.size() {
            return;
        }
        memory.clear();
        STORE.with_borrow_mut(|store| {
            if store.scratch.len() < SHELF {
                store.scratch.push(memory);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_given_back_is_lent_again() {
        let mut first = take(Class::Wire);
        first[0] = 7;
        give(first);

        assert_eq!(take(Class::Wire)[0], 7);
        assert_eq!(take(Class::Wire)[0], 0);
    }

    #[test]
    fn classes_differ_in_size_so_that_a_buffer_finds_its_shelf() {
        for class in Class::ALL {
            assert_eq!(take(class).len(), class.size());
            let same = Class::ALL
                .iter()
                .filter(|other| other.size() == class.size());
            assert_eq!(same.count(), 1);
        }
    }

    #[test]
    fn a_shelf_holds_no_more_than_it_has_room_for() {
        let lent: Vec<_> = (0..2 * SHELF).map(|_| take(Class::Plain)).collect();
        lent.into_iter().for_each(give);
        give(vec![0; 5].into_boxed_slice());

        let kept = STORE.with_borrow(|store| store.shelves.iter().map(Vec::len).sum::<usize>());
        assert_eq!(kept, SHELF);
    }

    #[test]
    fn a_scratch_that_grew_large_is_not_kept() {
        let mut scratch = Scratch::new();
        scratch.0.resize(10 * Class::PlainBulk.size(), 1);
        drop(scratch);
        assert!(Scratch::new().0.capacity() < 10 * Class::PlainBulk.size());
    }
}
