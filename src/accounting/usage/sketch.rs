//! The heaviest names of an endless stream, in bounded memory.
//!
//! A Space-Saving summary (Metwally, Agrawal, El Abbadi, ICDT 2005) that evicts in batches (Anderson et
//! al., IMC 2017), so that adding to a name that is listed is one look-up, whatever the weight; and that
//! keeps the heaviest by each of three weights, which one order alone would not.
//!
//! With `n` entries, at most `4 n` names are kept. When there is no more room, those stay that are among
//! the `n` heaviest by requests, by processor time or by bytes. For each weight the *floor* is the most
//! that any name may have had when it went. A name that comes again, or for the first time, may have had
//! as much before: that is its `missed_max`. So for every weight:
//!
//! * what a listed name used is at least what was counted, and at most that and its `missed_max`;
//! * a name that is not listed used at most the floor;
//! * the floor is at most the total divided by `n`: each time it rises by some amount, `n` names have
//!   lost that much of what was counted for them. The same reckoning without the `k` heaviest names says
//!   that it is at most *the rest* divided by `n - k` (Berinde et al., TODS 2010): whoever floods a list
//!   with names must spend as much as those who shall be hidden used, `n - k` times over;
//! * so every name with more than a share of `1/n` is listed, and among the first `n`.

use super::{Used, Weight};
use hashbrown::HashTable;
use std::cmp::Reverse;
use std::sync::Arc;

/// One dimension's names.
pub(super) struct Sketch {
    entries: usize,
    names: Vec<Named>,
    /// Places in `names`, by digest.
    index: HashTable<u32>,
    /// By weight.
    floor: PerWeight,
    total: Used,
    unnamed: Used,
}

type PerWeight = [u64; Weight::ALL.len()];

struct Named {
    name: Arc<str>,
    digest: u64,
    used: Used,
    /// The floor when it came.
    missed_max: PerWeight,
}

impl Named {
    fn estimate(&self, weight: Weight) -> u64 {
        let missed = self.missed_max.get(weight as usize).copied();
        self.used.of(weight).saturating_add(missed.unwrap_or(0))
    }
}

/// The heaviest names of a dimension.
#[derive(Clone, Debug)]
pub struct List {
    /// Everything that was charged, with a name or without, listed or not. Exact.
    pub total: Used,
    /// What had no name of this dimension, as before authentication. Exact.
    pub unnamed: Used,
    /// What was counted for the names in `rows`.
    pub listed: Used,
    /// Names kept, of which `rows` are the heaviest.
    pub names: usize,
    /// A name that is not kept used at most this, by the weight of the list.
    pub unlisted_max: u64,
    /// The names, heaviest first by their estimate.
    pub rows: Vec<Row>,
}

/// One name of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The name.
    pub name: Arc<str>,
    /// What was counted for it since it is listed: it used no less.
    pub used: Used,
    /// The list's weight of it, with all that may have been missed: it used no more.
    pub estimate: u64,
    /// The most by which the estimate may be too high; 0 where the figures are exact.
    pub overestimate_max: u64,
}

impl Sketch {
    /// An empty one with so many entries.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            entries,
            names: Vec::new(),
            index: HashTable::new(),
            floor: PerWeight::default(),
            total: Used::default(),
            unnamed: Used::default(),
        }
    }

    /// Changes the number of entries; with 0 everything is forgotten.
    pub(super) fn set_entries(&mut self, entries: usize) {
        if entries == 0 {
            *self = Self::new(0);
            return;
        }
        self.entries = entries;
        if self.names.len() > self.capacity() {
            self.make_room();
            self.names.shrink_to_fit();
        }
    }

    /// Charges what no name can be given for.
    pub(super) fn add_unnamed(&mut self, used: &Used) {
        if self.entries > 0 {
            self.total.add(used);
            self.unnamed.add(used);
        }
    }

    /// Charges a name. `digest` must be the same for the same name, and spread names evenly.
    pub(super) fn add(&mut self, name: &Arc<str>, digest: u64, used: &Used) {
        if self.entries == 0 {
            return;
        }
        self.total.add(used);
        let names = &self.names;
        let is_it = |place: &u32| {
            let known = names.get(*place as usize);
            known.is_some_and(|known| known.digest == digest && known.name == *name)
        };
        if let Some(place) = self.index.find(digest, is_it).copied() {
            if let Some(known) = self.names.get_mut(place as usize) {
                known.used.add(used);
            }
            return;
        }
        if self.names.len() >= self.capacity() {
            self.make_room();
        }
        self.names.push(Named {
            name: Arc::clone(name),
            digest,
            used: *used,
            missed_max: self.floor,
        });
        self.file(self.names.len() - 1);
    }

    /// The heaviest by a weight.
    pub(super) fn list(&self, by: Weight, top: usize) -> List {
        let mut heaviest: Vec<&Named> = self.names.iter().collect();
        // By name where two are alike, so that two readings show the same order.
        heaviest.sort_unstable_by_key(|named| (Reverse(named.estimate(by)), &named.name));
        heaviest.truncate(top);
        let mut listed = Used::default();
        let row = |named: &&Named| {
            listed.add(&named.used);
            let estimate = named.estimate(by);
            Row {
                name: Arc::clone(&named.name),
                used: named.used,
                estimate,
                overestimate_max: estimate - named.used.of(by),
            }
        };
        let rows = heaviest.iter().map(row).collect();
        List {
            total: self.total,
            unnamed: self.unnamed,
            listed,
            names: self.names.len(),
            unlisted_max: self.floor.get(by as usize).copied().unwrap_or(0),
            rows,
        }
    }

    /// Names kept at most.
    fn capacity(&self) -> usize {
        self.entries.saturating_mul(4)
    }

    /// Lets those go that are not among the heaviest by any weight. At least a quarter of the places is
    /// free afterwards, so that it does not come often.
    #[cold]
    fn make_room(&mut self) {
        let mut lines = Weight::ALL.map(|weight| Line::drawn(&self.names, weight, self.entries));
        let floor = &mut self.floor;
        self.names.retain(|named| {
            // Each line counts those that it keeps, so all three are asked.
            let kept = lines
                .iter_mut()
                .fold(false, |kept, line| line.keeps(named) | kept);
            if !kept {
                for (line, floor) in lines.iter().zip(&mut *floor) {
                    *floor = named.estimate(line.weight).max(*floor);
                }
            }
            kept
        });
        self.index.clear();
        for place in 0..self.names.len() {
            self.file(place);
        }
    }

    fn file(&mut self, place: usize) {
        let names = &self.names;
        let digest = |place: &u32| names.get(*place as usize).map_or(0, |named| named.digest);
        if let Ok(place) = u32::try_from(place) {
            self.index.insert_unique(digest(&place), place, digest);
        }
    }
}

/// Divides names into the `n` heaviest by one weight and the others.
struct Line {
    weight: Weight,
    /// Heavier ones stay.
    estimate: u64,
    /// How many of those that weigh just this stay.
    alike: usize,
}

impl Line {
    fn drawn(names: &[Named], weight: Weight, n: usize) -> Self {
        let mut estimates: Vec<u64> = names.iter().map(|named| named.estimate(weight)).collect();
        let last = n.min(estimates.len()).saturating_sub(1);
        let (heavier, estimate) = match estimates.is_empty() {
            true => (0, 0),
            false => {
                let (before, at, _) = estimates.select_nth_unstable_by_key(last, |e| Reverse(*e));
                let at = *at;
                (before.iter().filter(|estimate| **estimate > at).count(), at)
            }
        };
        Self {
            weight,
            estimate,
            alike: n - heavier.min(n),
        }
    }

    fn keeps(&mut self, named: &Named) -> bool {
        let estimate = named.estimate(self.weight);
        if estimate == self.estimate && self.alike > 0 {
            self.alike -= 1;
            return true;
        }
        estimate > self.estimate
    }
}
