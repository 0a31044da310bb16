//! Many names in little memory: one text, and where each name ends.

use crate::auth::NAME_BYTES_MAX;
use hashbrown::HashTable;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Names one behind the other, known by their position. Costs four bytes a name beside its letters.
#[derive(Default)]
pub(super) struct Names {
    text: String,
    ends: Vec<u32>,
}

impl Names {
    /// How many names there are; the position of the next one.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// The name at a position; empty where there is none.
    pub(super) fn get(&self, position: u32) -> &str {
        let position = position as usize;
        let end_of = |position: usize| self.ends.get(position).copied().unwrap_or(0) as usize;
        let start = position.checked_sub(1).map_or(0, end_of);
        self.text.get(start..end_of(position)).unwrap_or_default()
    }

    /// Appends what `write` appends to the text as the next name; `None` where it writes none, or
    /// where there is no more room than 4 GiB.
    pub(super) fn push_with(
        &mut self,
        write: impl FnOnce(&mut String) -> Option<()>,
    ) -> Option<u32> {
        let start = self.text.len();
        let position = self.len();
        let end = write(&mut self.text).and_then(|()| u32::try_from(self.text.len()).ok());
        match end.filter(|_| position < u32::MAX) {
            Some(end) => {
                self.ends.push(end);
                Some(position)
            }
            None => {
                self.text.truncate(start);
                None
            }
        }
    }

    /// Takes the last name away again.
    pub(super) fn pop(&mut self) {
        self.ends.pop();
        self.text
            .truncate(self.ends.last().copied().unwrap_or(0) as usize);
    }

    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({})", self.ends.len())
    }
}

/// Finds numbers by names that are kept elsewhere.
pub(super) struct Index<T> {
    table: HashTable<T>,
    hashes: RandomState,
}

impl<T: Copy> Index<T> {
    pub(super) fn new() -> Self {
        Self {
            table: HashTable::new(),
            hashes: RandomState::new(),
        }
    }

    /// The number of a lower-case name; `name_of` tells the name of a number.
    pub(super) fn find<'n>(&self, name: &str, name_of: impl Fn(T) -> &'n str) -> Option<T> {
        self.table
            .find(self.hash(name), |number| name_of(*number) == name)
            .copied()
    }

    /// Adds a number under a name that is not there yet.
    pub(super) fn insert<'n>(&mut self, name: &str, number: T, name_of: impl Fn(T) -> &'n str) {
        let hash = self.hash(name);
        let hashes = &self.hashes;
        self.table
            .insert_unique(hash, number, |number| hash_of(hashes, name_of(*number)));
    }

    fn hash(&self, name: &str) -> u64 {
        hash_of(&self.hashes, name)
    }
}

impl<T> fmt::Debug for Index<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({})", self.table.len())
    }
}

fn hash_of(hashes: &RandomState, name: &str) -> u64 {
    let mut hasher = hashes.build_hasher();
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// Calls `with` on the name in lower case, without an allocation; `None` for a name longer than any.
pub(super) fn lowered<R>(name: &str, with: impl FnOnce(&str) -> R) -> Option<R> {
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(with(name));
    }
    let mut letters = [0; NAME_BYTES_MAX];
    let letters = letters.get_mut(..name.len())?;
    letters.copy_from_slice(name.as_bytes());
    letters.make_ascii_lowercase();
    std::str::from_utf8(letters).ok().map(with)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(names: &mut Names, name: &str) -> u32 {
        let write = |text: &mut String| {
            text.push_str(name);
            Some(())
        };
        names.push_with(write).unwrap()
    }

    #[test]
    fn names_come_back_as_they_went_in() {
        let mut names = Names::default();
        let written = ["a", "", "user1@contoso.test", "\u{e4}"];
        let positions: Vec<u32> = written.iter().map(|name| push(&mut names, name)).collect();
        names.shrink();

        let read: Vec<&str> = positions.iter().map(|p| names.get(*p)).collect();

        assert_eq!(read, written);
        assert_eq!(names.get(4), "");
    }

    #[test]
    fn a_name_that_is_not_written_or_taken_away_leaves_no_letters() {
        let mut names = Names::default();
        push(&mut names, "first");
        let half = names.push_with(|text| {
            text.push_str("half");
            None
        });
        assert_eq!(half, None);
        push(&mut names, "wrong");
        names.pop();

        let second = push(&mut names, "second");

        assert_eq!(names.get(second), "second");
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn an_index_finds_each_name_and_no_other() {
        let mut names = Names::default();
        let mut index = Index::new();
        for number in 0..1000 {
            let position = push(&mut names, &format!("user{number}"));
            index.insert(names.get(position), position, |n| names.get(n));
        }
        for number in 0..1000 {
            assert_eq!(
                index.find(&format!("user{number}"), |n| names.get(n)),
                Some(number)
            );
        }
        assert_eq!(index.find("user1000", |n| names.get(n)), None);
    }

    #[test]
    fn capitals_are_lowered_and_the_endless_is_none() {
        assert_eq!(
            lowered("User1\u{c4}", str::to_owned).unwrap(),
            "user1\u{c4}"
        );
        assert_eq!(lowered(&"A".repeat(400), str::to_owned), None);
    }
}
