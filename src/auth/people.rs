//! How often each user was revoked, for as long as anything is believed of that user.

use crate::ids::UserName;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Everybody of whom something is believed or being judged. Nobody else needs an entry: of whom nothing
/// is believed, nothing has to be taken back.
///
/// Bounded by the cache of beliefs, the connections and the verifications under way, and up to as many
/// again that are not swept out yet.
///
/// There is one for as long as the process lives: what was believed under an earlier configuration can be taken
/// back under every later one.
#[derive(Default)]
pub(super) struct People {
    table: Mutex<Table>,
    epoch: AtomicU64,
}

#[derive(Default)]
struct Table {
    known: HashMap<UserName, Weak<Person>>,
    sweep_at: usize,
}

struct Person {
    revocations: AtomicU64,
}

/// A user as not revoked since then. Cheap to clone and to ask.
#[derive(Clone)]
pub(super) struct Standing {
    person: Arc<Person>,
    revocations: u64,
}

impl People {
    /// The user's standing from now on. Takes a lock: for verifications, not for requests.
    pub(super) fn standing(&self, user: &UserName) -> Standing {
        let mut table = self.table.lock();
        let person = match table.known.get(user).and_then(Weak::upgrade) {
            Some(person) => person,
            None => table.enter(user),
        };
        let revocations = person.revocations.load(Ordering::Acquire);
        Standing {
            person,
            revocations,
        }
    }

    /// The number of times everybody was revoked at once.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Ends what is believed of everybody.
    pub(super) fn revoke_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends every standing of this user; false where there was none.
    pub(super) fn revoke(&self, user: &UserName) -> bool {
        let person = self.table.lock().known.get(user).and_then(Weak::upgrade);
        person
            .inspect(|person| _ = person.revocations.fetch_add(1, Ordering::AcqRel))
            .is_some()
    }
}

impl Table {
    fn enter(&mut self, user: &UserName) -> Arc<Person> {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, person| person.strong_count() > 0);
            self.sweep_at = (2 * self.known.len()).max(SWEEP_AT_LEAST);
        }
        let person = Arc::new(Person {
            revocations: AtomicU64::new(0),
        });
        self.known.insert(user.clone(), Arc::downgrade(&person));
        person
    }
}

impl Standing {
    /// Not revoked since.
    pub(super) fn stands(&self) -> bool {
        self.revocations == self.person.revocations.load(Ordering::Acquire)
    }
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "People({})", self.table.lock().known.len())
    }
}

/// Sweeping fewer would cost more than it frees.
const SWEEP_AT_LEAST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_ends_what_stood_and_nothing_later() {
        let people = People::default();
        let (user1, user2) = (UserName::new("user1"), UserName::new("user2"));
        let (before, other) = (people.standing(&user1), people.standing(&user2));

        assert!(people.revoke(&user1));

        assert!(!before.stands());
        assert!(other.stands());
        assert!(people.standing(&user1).stands());
        assert!(!people.revoke(&UserName::new("nobody")));
    }

    #[test]
    fn who_is_believed_no_more_is_swept_out() {
        let people = People::default();
        let kept = people.standing(&UserName::new("kept"));

        for number in 0..10 * SWEEP_AT_LEAST {
            people.standing(&UserName::new(format!("user{number}")));
        }

        assert!(people.table.lock().known.len() <= SWEEP_AT_LEAST);
        assert!(people.revoke(&UserName::new("kept")));
        assert!(!kept.stands());
    }
}
