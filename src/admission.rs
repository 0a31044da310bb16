//! Who may begin another request now.
//!
//! A permit is counted for its user and for its server, and given back when dropped. A name that has
//! no request under way takes no memory.

use crate::ids::{ServerName, UserName};
use crate::refusal::Refusal;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// Requests under way, by user and by server. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Admission {
    counts: Arc<Counts>,
}

/// How many requests may be under way at once. Held polls count like any other request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Of one user (`limits.requests_per_user`).
    pub per_user: usize,
    /// At one server (`requests_max` of the server).
    pub per_server: usize,
}

/// Leave for one request of one user at one server, until dropped.
#[must_use = "a permit that is dropped at once permits nothing"]
pub struct Permit {
    counts: Arc<Counts>,
    user: UserName,
    server: ServerName,
}

#[derive(Debug)]
struct Counts {
    users: Tally<UserName>,
    servers: Tally<ServerName>,
}

impl Admission {
    /// Nobody is under way yet.
    pub fn new() -> Self {
        let counts = Counts {
            users: Tally::new(),
            servers: Tally::new(),
        };
        Self {
            counts: Arc::new(counts),
        }
    }

    /// A permit, or [`Refusal::TooBusy`] at a limit; then nothing is counted.
    pub fn admit(
        &self,
        user: &UserName,
        server: &ServerName,
        quota: Quota,
    ) -> Result<Permit, Refusal> {
        if !self.counts.users.enter(user, quota.per_user) {
            return Err(Refusal::TooBusy(USER_LIMIT));
        }
        if !self.counts.servers.enter(server, quota.per_server) {
            self.counts.users.leave(user);
            return Err(Refusal::TooBusy(SERVER_LIMIT));
        }
        Ok(Permit {
            counts: Arc::clone(&self.counts),
            user: user.clone(),
            server: server.clone(),
        })
    }

    /// Requests under way at a server.
    pub fn at_server(&self, server: &ServerName) -> usize {
        self.counts.servers.count(server)
    }

    /// Requests under way of a user.
    pub fn of_user(&self, user: &UserName) -> usize {
        self.counts.users.count(user)
    }

    /// Users with a request under way.
    pub fn users(&self) -> usize {
        self.counts.users.names()
    }
}

impl Permit {
    /// The server it is for.
    pub fn server(&self) -> &ServerName {
        &self.server
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.users.leave(&self.user);
        self.counts.servers.leave(&self.server);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("user", &self.user)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// Counts by name, over shards so that threads seldom meet.
struct Tally<Name> {
    shards: Box<[Shard<Name>]>,
    hasher: DefaultHashBuilder,
}

/// On a cache line of its own.
#[repr(align(64))]
struct Shard<Name>(Mutex<HashTable<(Name, usize)>>);

impl<Name: Clone + Eq + Hash> Tally<Name> {
    fn new() -> Self {
        Self {
            shards: (0..SHARDS)
                .map(|_| Shard(Mutex::new(HashTable::new())))
                .collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    fn enter(&self, name: &Name, limit: usize) -> bool {
        let (digest, Some(shard)) = self.place(name) else {
            return false;
        };
        let rehash = |(known, _): &(Name, usize)| self.hasher.hash_one(known);
        let is_it = |(known, _): &(Name, usize)| known == name;
        match shard.0.lock().entry(digest, is_it, rehash) {
            Entry::Occupied(mut known) if known.get().1 < limit => known.get_mut().1 += 1,
            Entry::Vacant(place) if limit > 0 => {
                place.insert((name.clone(), 1));
            }
            _ => return false,
        }
        true
    }

    fn leave(&self, name: &Name) {
        let (digest, Some(shard)) = self.place(name) else {
            return;
        };
        let mut counts = shard.0.lock();
        let Ok(mut known) = counts.find_entry(digest, |(known, _)| known == name) else {
            return;
        };
        known.get_mut().1 -= 1;
        if known.get().1 == 0 {
            known.remove();
        }
        // What a crowd left behind is given back.
        if counts.capacity() > SPARE_NAMES && counts.len() < counts.capacity() / 8 {
            let room = 2 * counts.len();
            counts.shrink_to(room, |(known, _)| self.hasher.hash_one(known));
        }
    }

    fn count(&self, name: &Name) -> usize {
        let (digest, shard) = self.place(name);
        let count = |shard: &Shard<Name>| {
            let counts = shard.0.lock();
            counts
                .find(digest, |(known, _)| known == name)
                .map_or(0, |(_, count)| *count)
        };
        shard.map_or(0, count)
    }

    fn names(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().len()).sum()
    }

    /// The name's hash, and the shard that it says. Seeded anew in each process; who is counted here has
    /// proved a name that the site gave, so nobody can choose names that collide.
    fn place(&self, name: &Name) -> (u64, Option<&Shard<Name>>) {
        let digest = self.hasher.hash_one(name);
        // The table goes by the lowest and the topmost bits.
        let shard = (digest >> 32) as usize % SHARDS;
        (digest, self.shards.get(shard))
    }
}

impl<Name: Clone + Eq + Hash> fmt::Debug for Tally<Name> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally")
            .field("names", &self.names())
            .finish_non_exhaustive()
    }
}

const USER_LIMIT: &str = "limits.requests_per_user reached";
const SERVER_LIMIT: &str = "requests_max of the server reached";
const SHARDS: usize = 32;
/// Room for names that is not worth giving back.
const SPARE_NAMES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::AssertUnwindSafe;

    const QUOTA: Quota = Quota {
        per_user: 2,
        per_server: 3,
    };

    fn user(name: &str) -> UserName {
        UserName::new(name)
    }

    fn server(name: &str) -> ServerName {
        ServerName::new(name)
    }

    #[test]
    fn a_user_may_begin_as_many_requests_as_the_quota_says() {
        let admission = Admission::new();
        let first = admission.admit(&user("u"), &server("A"), QUOTA).unwrap();
        let _second = admission.admit(&user("u"), &server("B"), QUOTA).unwrap();

        let third = admission.admit(&user("u"), &server("C"), QUOTA);

        assert_eq!(third.unwrap_err(), Refusal::TooBusy(USER_LIMIT));
        assert!(admission.admit(&user("v"), &server("C"), QUOTA).is_ok());
        drop(first);
        assert!(admission.admit(&user("u"), &server("C"), QUOTA).is_ok());
    }

    #[test]
    fn a_server_takes_as_many_requests_as_the_quota_says() {
        let admission = Admission::new();
        let users = ["u", "v", "w"].map(user);
        let permits: Vec<Permit> = users
            .iter()
            .map(|user| admission.admit(user, &server("A"), QUOTA).unwrap())
            .collect();

        let fourth = admission.admit(&user("x"), &server("A"), QUOTA);

        assert_eq!(fourth.unwrap_err(), Refusal::TooBusy(SERVER_LIMIT));
        assert_eq!(admission.at_server(&server("A")), 3);
        assert_eq!(permits[0].server(), &server("A"));
        drop(permits);
        assert_eq!(admission.at_server(&server("A")), 0);
    }

    #[test]
    fn a_refused_request_is_counted_nowhere() {
        let admission = Admission::new();
        let quota = Quota {
            per_server: 0,
            ..QUOTA
        };

        assert!(admission.admit(&user("u"), &server("A"), quota).is_err());

        assert_eq!(admission.of_user(&user("u")), 0);
        assert_eq!(admission.at_server(&server("A")), 0);
        assert_eq!(admission.users(), 0);
    }

    #[test]
    fn a_quota_that_was_lowered_counts_those_under_way() {
        let admission = Admission::new();
        let _first = admission.admit(&user("u"), &server("A"), QUOTA).unwrap();
        let quota = Quota {
            per_user: 1,
            ..QUOTA
        };

        assert!(admission.admit(&user("u"), &server("A"), quota).is_err());
    }

    #[test]
    fn names_vanish_with_their_last_permit() {
        let admission = Admission::new();
        let permits: Vec<Permit> = (0..10_000)
            .map(|i| {
                let quota = Quota {
                    per_server: usize::MAX,
                    ..QUOTA
                };
                admission
                    .admit(&user(&i.to_string()), &server("A"), quota)
                    .unwrap()
            })
            .collect();
        assert_eq!(admission.users(), 10_000);

        drop(permits);

        assert_eq!(admission.users(), 0);
        let shards = admission.counts.users.shards.iter();
        let room: usize = shards.map(|shard| shard.0.lock().capacity()).sum();
        assert!(room <= 2 * SPARE_NAMES * SHARDS, "{room}");
    }

    #[test]
    fn a_panic_gives_its_permit_back() {
        let admission = Admission::new();

        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let _permit = admission.admit(&user("u"), &server("A"), QUOTA).unwrap();
            panic!("on purpose");
        }));

        assert!(outcome.is_err());
        assert_eq!(admission.of_user(&user("u")), 0);
    }

    #[test]
    fn many_threads_never_exceed_a_quota_and_all_come_back() {
        let admission = Admission::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let permit = admission.admit(&user("u"), &server("A"), QUOTA);
                        assert!(admission.of_user(&user("u")) <= QUOTA.per_user);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(
            (admission.users(), admission.at_server(&server("A"))),
            (0, 0)
        );
    }
}
