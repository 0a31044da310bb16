//! The ticket that a client signed on with, for delegation without S4U2Self.
//!
//! A ticket to us proves to the KDC that its user came to us, and S4U2Proxy takes it for that: the account then
//! needs no right to act for users who never came. The library gives such a ticket back where a word is heard
//! with a credential that may also initiate, and that credential needs a ticket of our own. So the word is kept
//! until the sign-on is done, and heard a second time beside it: no KDC stands in the way of a sign-on.
//! `[MS-SFU] 3.2.5.2`
//!
//! A ticket-granting ticket that a client forwards is thrown away: it opens everything that is the user's.

use super::client::words;
use super::credential;
use super::ticket::Acting;
use libgssapi::context::ServerCtx;
use parking_lot::Mutex;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

/// What a client brought to be acted for. Cheap to clone; equal only to its clones. What it holds goes with the
/// last of them.
#[derive(Clone)]
pub struct Evidence(Arc<Kept>);

struct Kept {
    principal: Box<str>,
    keytab: Arc<Path>,
    heard_at: Instant,
    state: Mutex<State>,
}

enum State {
    /// What the client said; to be heard again soon.
    Word(Zeroizing<Vec<u8>>),
    /// Its ticket.
    Brought(Arc<Brought>),
    /// It was good, and its time is over.
    Over,
    /// It never was of use, and why.
    Useless(Arc<str>),
}

/// A client's ticket with all that acting for the client takes. Shared by the connections of one user.
pub(super) struct Brought {
    pub(super) acting: Acting,
    principal: Box<str>,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

/// Why there is no ticket of a client's.
#[derive(Debug)]
pub(super) enum Lack {
    /// The client must sign on anew.
    Over,
    /// Signing on anew would not help.
    Useless(Arc<str>),
    /// There is no telling now.
    Unavailable(Arc<str>),
}

/// What it takes to hear a word again.
pub(super) struct Hearing<'a> {
    /// The keys of the account that may act for users.
    pub(super) client_keytab: &'a Path,
    /// Where the ticket of that account is, got already.
    pub(super) cache: &'a str,
    /// Places for users' tickets.
    pub(super) places: &'a Arc<Semaphore>,
    /// A ticket is used for this long at most.
    pub(super) ttl: Duration,
    pub(super) now: Instant,
}

impl Evidence {
    /// Of the first and only word of a conversation that proved `principal` at `heard_at` by a key of `keytab`.
    pub fn new(
        word: Zeroizing<Vec<u8>>,
        principal: &str,
        keytab: &Arc<Path>,
        heard_at: Instant,
    ) -> Self {
        Self(Arc::new(Kept {
            principal: principal.into(),
            keytab: Arc::clone(keytab),
            heard_at,
            state: Mutex::new(State::Word(word)),
        }))
    }

    /// The client's ticket, where it was taken out of the word already.
    ///
    /// # Errors
    /// It is over, or never was of use. `Ok(None)`: the word has to be heard.
    pub(super) fn brought(&self, now: Instant) -> Result<Option<Arc<Brought>>, Lack> {
        let mut state = self.0.state.lock();
        match &*state {
            State::Brought(brought) if now < brought.until => Ok(Some(Arc::clone(brought))),
            State::Word(_) if now.saturating_duration_since(self.0.heard_at) < WORD_IS_GOOD => {
                Ok(None)
            }
            State::Useless(why) => Err(Lack::Useless(Arc::clone(why))),
            State::Word(_) | State::Brought(_) | State::Over => {
                *state = State::Over;
                Err(Lack::Over)
            }
        }
    }

    /// Takes the ticket out of the word, or shares `newest`, which another connection of the same user brought.
    /// Blocks for as long as a file takes; the KDC is not asked. To be called after [`Self::brought`], by one
    /// thread at a time for one user.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn hear(
        &self,
        newest: &mut Weak<Brought>,
        hearing: &Hearing<'_>,
    ) -> Result<Arc<Brought>, Lack> {
        let mut state = self.0.state.lock();
        let State::Word(word) = &*state else {
            return Err(Lack::Over);
        };
        let will_do = |brought: &Arc<Brought>| {
            brought.principal == self.0.principal && hearing.now + hearing.ttl / 2 <= brought.until
        };
        if let Some(shared) = newest.upgrade().filter(will_do) {
            *state = State::Brought(Arc::clone(&shared));
            return Ok(shared);
        }
        let heard = self.hear_again(word, hearing);
        match heard {
            Ok(brought) => {
                let brought = Arc::new(brought);
                *newest = Arc::downgrade(&brought);
                *state = State::Brought(Arc::clone(&brought));
                Ok(brought)
            }
            Err(Lack::Useless(why)) => {
                *state = State::Useless(Arc::clone(&why));
                Err(Lack::Useless(why))
            }
            Err(lack) => Err(lack),
        }
    }

    fn hear_again(&self, word: &[u8], hearing: &Hearing<'_>) -> Result<Brought, Lack> {
        let place = Arc::clone(hearing.places).try_acquire_owned();
        let place = place.map_err(|_full| {
            Lack::Unavailable("no room for the tickets of more users: raise `users`".into())
        })?;
        let keytab = &self.0.keytab;
        let ours = credential::both(keytab, hearing.client_keytab, hearing.cache)
            .map_err(|error| Lack::Unavailable(format!("{WHAT}: {}", words(&error)).into()))?;
        let useless = |why: &str| Lack::Useless(format!("{WHAT}: {why}").into());
        let mut context = ServerCtx::new(Some(ours));
        // Bindings and replays were looked at when the word was believed; nobody is let in here.
        context
            .step(word, None)
            .map_err(|error| useless(&words(&error)))?;
        let Some(credential) = context.take_delegated_cred() else {
            return Err(useless("the Kerberos library gave none"));
        };
        let facts = credential.info().map_err(|error| useless(&words(&error)))?;
        if facts.proxy.is_none() {
            return Err(useless("the client forwarded its own instead"));
        }
        if facts.name.to_string() != *self.0.principal {
            return Err(useless("it is in another name"));
        }
        let life = usable(facts.lifetime);
        Ok(Brought {
            acting: Acting::new(credential),
            principal: self.0.principal.clone(),
            until: hearing.now + hearing.ttl.min(life),
            _place: place,
        })
    }
}

impl PartialEq for Evidence {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Evidence {}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Evidence(…)")
    }
}

const WHAT: &str = "ticket of the client";
/// Kerberos itself gives a word five minutes, less what clocks differ. RFC 4120 3.2.3
const WORD_IS_GOOD: Duration = Duration::from_secs(240);
/// How much of its life a ticket is used for: none in its last minutes, because clocks differ by that much, and one
/// that has only minutes left for half of them, lest its owner sign on with every request.
pub(super) fn usable(life: Duration) -> Duration {
    const MARGIN: Duration = Duration::from_secs(600);
    life.saturating_sub(MARGIN.min(life / 2))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has to take some instant")]
mod tests {
    use super::*;
    use libgssapi::credential::Cred;

    fn evidence(now: Instant) -> Evidence {
        let word = Zeroizing::new(b"secret word".to_vec());
        Evidence::new(word, "user1@CONTOSO.TEST", &Path::new("none").into(), now)
    }

    fn hearing(places: &Arc<Semaphore>, now: Instant) -> Hearing<'_> {
        Hearing {
            client_keytab: Path::new("none"),
            cache: "MEMORY:evidence-test",
            places,
            ttl: Duration::from_secs(3600),
            now,
        }
    }

    fn brought(principal: &str, places: &Arc<Semaphore>, until: Instant) -> Arc<Brought> {
        #[expect(
            unsafe_code,
            reason = "a null credential is nobody's, and releasing it does nothing"
        )]
        let credential = unsafe { Cred::from_c(std::ptr::null_mut()) };
        Arc::new(Brought {
            acting: Acting::new(credential),
            principal: principal.into(),
            until,
            _place: Arc::clone(places).try_acquire_owned().unwrap(),
        })
    }

    #[test]
    fn a_word_that_nobody_heard_in_time_is_over() {
        let now = Instant::now();
        let evidence = evidence(now);

        assert!(matches!(evidence.brought(now), Ok(None)));
        let later = evidence.brought(now + WORD_IS_GOOD);
        assert!(matches!(later, Err(Lack::Over)));
        // The word itself is forgotten.
        assert!(matches!(evidence.brought(now), Err(Lack::Over)));
    }

    #[test]
    fn connections_of_one_user_share_a_ticket_that_goes_with_the_last_of_them() {
        let now = Instant::now();
        let places = Arc::new(Semaphore::new(1));
        let first = brought(
            "user1@CONTOSO.TEST",
            &places,
            now + Duration::from_secs(3600),
        );
        let mut newest = Arc::downgrade(&first);
        let evidence = evidence(now);

        let shared = evidence.hear(&mut newest, &hearing(&places, now)).unwrap();

        assert!(Arc::ptr_eq(&first, &shared));
        assert!(matches!(evidence.brought(now), Ok(Some(_))));
        drop((first, shared));
        assert_eq!(places.available_permits(), 0);
        drop(evidence);
        assert_eq!(places.available_permits(), 1);
        assert!(newest.upgrade().is_none());
    }

    #[test]
    fn a_ticket_of_somebody_else_or_near_its_end_is_not_shared() {
        let now = Instant::now();
        let places = Arc::new(Semaphore::new(2));
        let hour = Duration::from_secs(3600);
        let other = brought("user1@FABRIKAM.TEST", &places, now + hour);
        let old = brought("user1@CONTOSO.TEST", &places, now + hour / 3);

        for foreign in [&other, &old] {
            let mut newest = Arc::downgrade(foreign);
            let heard = evidence(now).hear(&mut newest, &hearing(&places, now));
            assert!(matches!(heard, Err(Lack::Unavailable(_))));
        }
    }

    #[test]
    fn tickets_beyond_the_places_are_not_kept() {
        let now = Instant::now();
        let places = Arc::new(Semaphore::new(0));
        let evidence = evidence(now);

        let heard = evidence.hear(&mut Weak::new(), &hearing(&places, now));

        let Err(Lack::Unavailable(why)) = heard else {
            panic!("there is no place");
        };
        assert!(why.contains("no room"), "{why}");
        // It may be heard when there is.
        assert!(matches!(evidence.brought(now), Ok(None)));
    }

    #[test]
    fn a_ticket_is_used_until_its_last_minutes_and_a_short_one_for_half_its_life() {
        let [hour, minute] = [3600, 60].map(Duration::from_secs);

        assert_eq!(usable(10 * hour), 10 * hour - 10 * minute);
        assert_eq!(usable(12 * minute), 6 * minute);
        assert_eq!(usable(minute), minute / 2);
        assert_eq!(usable(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn debug_prints_nothing_of_it() {
        assert_eq!(format!("{:?}", evidence(Instant::now())), "Evidence(…)");
    }
}
