//! NTLM as it is, by helper processes of Samba. `[MS-NLMP]`, `[MS-NTHT]`
//!
//! A helper asks winbind, winbind asks a domain controller: lockout, expiry and trusts are the domain's own. A helper
//! hears one conversation at a time, so it is lent to a connection from the first message to the last, not for
//! longer than `auth.ntlm.handshake_timeout`. A conversation that is left in its middle costs no helper: the first word
//! of the next one (`YR`) makes it forget what it has heard.
//!
//! The helper cannot tell what a proof was bound to: a site that requires channel bindings does not offer this.

pub(super) mod claim;
mod helper;

use super::dialogue::{Dialogue, Guess, Guessed, Heard, Known, Realms, Talk, Word};
use super::method::serial;
use super::verify::Desk;
use super::{Denied, Scheme};
use crate::config::settings::NtlmAuth;
use async_trait::async_trait;
use helper::{Helper, Reply};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The helpers as the settings name them.
pub(super) struct Ntlm {
    settings: NtlmAuth,
    pool: Arc<Pool>,
    realms: Realms,
    serial: u64,
}

/// Helpers that are lent to nobody, and how many there may be.
struct Pool {
    command: Vec<String>,
    rested: Mutex<Vec<Helper>>,
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// So many one source may hold.
    share: usize,
    shares: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

impl Ntlm {
    /// Starts no helper yet: each is started when a client needs it.
    pub(super) fn new(settings: &NtlmAuth, earlier: Option<&Self>) -> Self {
        let same = earlier.filter(|earlier| earlier.settings == *settings);
        Self {
            pool: match same {
                Some(same) => Arc::clone(&same.pool),
                None => Arc::new(Pool {
                    command: settings.helper.clone(),
                    rested: Mutex::default(),
                    places: Arc::new(Semaphore::new(settings.pool)),
                    waiting: Arc::new(Semaphore::new(settings.pool * WAITING_PER_HELPER)),
                    share: settings.pool.div_ceil(2),
                    shares: Mutex::default(),
                }),
            },
            realms: Realms::new(&settings.realm_map),
            serial: same.map_or_else(serial, |same| same.serial),
            settings: settings.clone(),
        }
    }
}

impl fmt::Debug for Ntlm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ntlm")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A helper that is lent to one conversation, given back when dropped, wherever the conversation stands then: each
/// begins with `YR`, and what came before that means nothing to the helper any more.
pub(super) struct Lease {
    /// One that waits for a word; `None` before the first, and after one that it failed to answer.
    helper: Option<Helper>,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// What one source may hold of the helpers.
    fn share(&self, source: IpAddr) -> Arc<Semaphore> {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(&source).and_then(Weak::upgrade) {
            return share;
        }
        // Those that nobody holds or waits for.
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.share));
        shares.insert(source, Arc::downgrade(&share));
        share
    }
}

impl Lease {
    /// Says a word to the helper, which is started where none rested. One that fails is ended. Blocks.
    fn ask(&mut self, verb: &str, token: &[u8], patience: Duration) -> io::Result<Reply> {
        let mut helper = match self.helper.take() {
            Some(helper) => helper,
            None => Helper::start(&self.pool.command)?,
        };
        let reply = helper.ask(verb, token, patience)?;
        self.helper = Some(helper);
        Ok(reply)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Before the place, so that whoever gets that finds a helper.
        if let Some(helper) = self.helper.take() {
            self.pool.rested.lock().push(helper);
        }
    }
}

#[async_trait]
impl Dialogue for Ntlm {
    fn scheme(&self) -> Scheme {
        Scheme::Ntlm
    }

    fn challenge(&self) -> &str {
        "WWW-Authenticate: NTLM\r\n"
    }

    fn serial(&self) -> u64 {
        self.serial
    }

    fn persists(&self) -> bool {
        true
    }

    fn patience(&self) -> Duration {
        self.settings.handshake_timeout
    }

    fn begins(&self, word: &[u8]) -> bool {
        // [MS-NLMP] 2.2.1.1
        word.starts_with(b"NTLMSSP\0\x01")
    }

    fn guess(&self, word: &[u8], home: Option<&str>) -> Guess {
        guess(word, self.begins(word), &self.realms, home)
    }

    async fn hear(&self, word: Word) -> Heard {
        let (verb, lease) = match word.talk {
            Some(Talk::Ntlm(lease)) => (LAST, lease),
            _ => match self.lend(&word.desk, word.source).await {
                Ok(lease) => (FIRST, lease),
                Err(denied) => return Heard::Nothing(denied),
            },
        };
        let patience = self.settings.handshake_timeout;
        let token = word.token;
        // The helpers are as many as may wait at once: no other permit is needed.
        let asked = word.desk.aside(None, move || {
            let mut lease = lease;
            let reply = lease.ask(verb, &token, patience);
            (lease, reply)
        });
        let Some((mut lease, reply)) = asked.await else {
            return Heard::Nothing(Denied::Busy("the handshake was interrupted"));
        };
        match reply {
            Ok(Reply::Challenge(answer)) if verb == FIRST => Heard::More(Talk::Ntlm(lease), answer),
            Ok(Reply::Proven(account)) => {
                drop(lease);
                match self.realms.of_account(&account) {
                    Some(user) => Heard::Proven(Known {
                        evidence: None,
                        user,
                        good_for: None,
                        answer: None,
                    }),
                    None => Heard::Nothing(Denied::Credentials("not the name of a user")),
                }
            }
            Ok(Reply::Refused(why)) => {
                drop(lease);
                Heard::Nothing(denied(&why))
            }
            Ok(Reply::Challenge(_)) => {
                drop(lease.helper.take());
                Heard::Nothing(Denied::Busy("the NTLM helper lost its place"))
            }
            Err(error) => Heard::Nothing(broken(&error)),
        }
    }
}

impl Ntlm {
    /// A helper for a new conversation; where none rests, the first word starts one. Whoever is at one address waits for the others there
    /// first: half of the helpers are for everybody else.
    async fn lend(&self, desk: &Desk, source: Option<IpAddr>) -> Result<Lease, Denied> {
        let pool = &self.pool;
        let Ok(_waiting) = pool.waiting.try_acquire() else {
            desk.shed();
            return Err(Denied::Busy("too many handshakes wait"));
        };
        let mut lacks = "every NTLM helper that one address may hold is lent";
        let permits = async {
            let share = match source {
                Some(source) => Some(pool.share(source).acquire_owned().await.ok()?),
                None => None,
            };
            lacks = "every NTLM helper is lent";
            let place = Arc::clone(&pool.places).acquire_owned();
            Some((place.await.ok()?, share))
        };
        let permits = tokio::time::timeout(self.settings.handshake_timeout, permits).await;
        let Ok(Some((place, share))) = permits else {
            desk.shed();
            return Err(Denied::Busy(lacks));
        };
        Ok(Lease {
            helper: pool.rested.lock().pop(),
            pool: Arc::clone(pool),
            _place: place,
            _share: share,
        })
    }
}

/// What can be guessed by a word of NTLM, as it is or inside of Negotiate.
pub(super) fn guess(word: &[u8], begins: bool, realms: &Realms, home: Option<&str>) -> Guess {
    match claim::claims(word) {
        Some(claims) => {
            let read = claims.iter();
            let guessed = read.filter_map(|claim| Guessed::of(claim, realms, home));
            Guess::Made(guessed.collect())
        }
        None if begins => Guess::Begun,
        None => Guess::Nothing,
    }
}

fn broken(error: &io::Error) -> Denied {
    tracing::warn!(%error, "an NTLM helper failed");
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            Denied::Busy("the NTLM helper cannot be started")
        }
        io::ErrorKind::TimedOut => Denied::Busy("the NTLM helper does not answer"),
        _ => Denied::Busy("the NTLM helper failed"),
    }
}

/// The denial of a helper's `NA` or `BH`, whose words are Windows' own. Of a wrong name and a wrong password it is the
/// same. `[MS-ERREF] 2.3.1`
fn denied(why: &str) -> Denied {
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    // A name with a domain of its own that nobody has is not found, where a bare one is no such user.
    if says(&[
        "LOGON_FAILURE",
        "WRONG_PASSWORD",
        "NO_SUCH_USER",
        "STATUS_NOT_FOUND",
    ]) {
        Denied::Credentials("wrong name or password")
    } else if says(&["ACCOUNT_LOCKED_OUT"]) {
        Denied::Credentials("account is locked in the domain")
    } else if says(&["ACCOUNT_DISABLED", "ACCOUNT_EXPIRED", "ACCOUNT_RESTRICTION"]) {
        Denied::Credentials("account is disabled or restricted in the domain")
    } else if says(&["PASSWORD_EXPIRED", "PASSWORD_MUST_CHANGE"]) {
        Denied::Credentials("password has expired in the domain")
    } else if says(&MALFORMED) {
        Denied::Credentials("malformed handshake")
    } else {
        tracing::warn!(why, "an NTLM helper cannot judge");
        Denied::Busy("winbind or the domain controller does not answer")
    }
}

/// A conversation's first message, and its last. Samba's `ntlm_auth(1)`, `squid-2.5-ntlmssp`
const FIRST: &str = "YR";
const LAST: &str = "KK";

/// What Samba says of messages that make no sense; the last where a length in one is too great.
const MALFORMED: [&str; 5] = [
    "INVALID_PARAMETER",
    "BUFFER_TOO_SMALL",
    "NTLMSSP",
    "decode",
    "NO_MEMORY",
];

/// Clients that wait for each helper; more are turned away.
const WAITING_PER_HELPER: usize = 16;

#[cfg(test)]
mod tests;
