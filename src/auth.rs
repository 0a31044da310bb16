//! Who is asking: a chain of authentication schemes, and what is remembered of their verdicts.
//!
//! A request pays for one keyed mark. The connection's [`Memo`] knows the mark of its last good
//! credential; a bounded cache knows those of other connections, and which credentials were refused a
//! moment ago. Only a credential that neither knows is verified, beside the worker threads, by
//! [`Verification::run`].
//!
//! Unknown names and wrong passwords are one and the same here: same verdict, same words, same time.
//!
//! What is believed ends early when the user is revoked, or when the user's line in the password file
//! changes or goes; other users' lines do not matter, so that a site does not hash all passwords again
//! because one was changed. What is disbelieved ends with any change of the file, since the change may
//! have made it right.

mod basic;
mod cache;
pub mod handoff;
mod names;
pub mod passwords;
mod verify;

pub use crate::config::settings::Scheme;
pub use cache::Memo;
pub use handoff::{HandOff, HandOffError};
pub use names::{NAME_BYTES_MAX, append_canonical, canonical};
pub use verify::{Tally, Verification};

use crate::config::settings::{AuthSettings, BasicAuth};
use crate::ids::UserName;
use crate::refusal::Refusal;
use basic::Credentials;
use cache::Beliefs;
use passwords::{PasswordProblem, Passwords};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use verify::{Desk, Work};

/// Somebody whose credential was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The canonical name; see [`canonical`].
    pub user: UserName,
    /// What proved it.
    pub scheme: Scheme,
}

/// What to do with a request, as far as its sender is concerned.
#[derive(Debug)]
pub enum AuthStep {
    /// The sender is known.
    Granted(Arc<Identity>),
    /// Only a slow hash can tell.
    Verify(Verification),
    /// Answer 401 with the challenges. The reason is for the log; it names nobody, and no reason tells
    /// a wrong password from an unknown name. [`BEARER_PROBE`] and [`NO_CREDENTIALS`] are the normal
    /// beginning of a conversation, not failures.
    Challenge(&'static str),
}

/// The reason of a request without credentials.
pub const NO_CREDENTIALS: &str = "no credentials";

/// The reason of a bare `Authorization: Bearer`, by which Outlook asks for the challenges.
pub const BEARER_PROBE: &str = "bearer probe";

/// The reason of every credential that was looked at and found wrong.
const WRONG: &str = "wrong name or password";

/// A verification without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The credential proves nothing: answer 401 with the challenges.
    #[error("{0}")]
    Credentials(&'static str),
    /// Nobody looked at it, because too many others wait: answer 503.
    #[error("{0}")]
    Busy(&'static str),
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Credentials(reason) => Self::Unauthenticated(reason),
            Denied::Busy(reason) => Self::TooBusy(reason),
        }
    }
}

/// The configured schemes, in one place that judges every request. Immutable, but for what it remembers.
#[derive(Debug)]
pub struct Authenticator {
    chain: Vec<Method>,
    memory: Memory,
}

impl Authenticator {
    /// Prepares the configured schemes and reads the password file. Blocks on the disk.
    ///
    /// `keep` is the authenticator of the running configuration. Its memory goes on in the new one,
    /// unless the settings that shaped it changed (lifetimes, capacity, default domain). Either of the
    /// two may go on being used, whichever gets published.
    pub fn new(settings: &AuthSettings, keep: Option<&Self>) -> Result<Self, AuthError> {
        let domain = settings.basic.as_ref().map(|b| b.default_domain.clone());
        let kept = keep.filter(|earlier| {
            earlier.memory.terms.remembers_like(settings)
                && earlier.basic().map(|b| b.default_domain.clone()) == domain
        });
        let mut chain = Vec::new();
        if let Some(basic) = &settings.basic {
            let earlier = kept.and_then(Self::basic);
            chain.push(Method::Basic(Basic::new(basic, earlier)?));
        }
        Ok(Self {
            chain,
            memory: Memory::new(settings, kept.map(|earlier| &earlier.memory))?,
        })
    }

    /// Judges the value of a request's `Authorization` header, if it has one, at time `now`.
    ///
    /// Takes about a microsecond. The caller refuses requests with several such headers before.
    pub fn step(&self, authorization: Option<&[u8]>, memo: &mut Memo, now: Instant) -> AuthStep {
        let value = authorization.unwrap_or_default().trim_ascii();
        if value.is_empty() {
            return AuthStep::Challenge(NO_CREDENTIALS);
        }
        let end = memchr::memchr(b' ', value).unwrap_or(value.len());
        let (word, token) = value.split_at(end);
        let token = token.trim_ascii_start();
        if word.eq_ignore_ascii_case(b"Bearer") && token.is_empty() {
            return AuthStep::Challenge(BEARER_PROBE);
        }
        if value.len() > VALUE_BYTES_MAX {
            return AuthStep::Challenge("malformed credentials: too long");
        }
        match self.chain.iter().find(|method| method.answers_to(word)) {
            Some(Method::Basic(basic)) => basic.step(&self.memory, value, token, memo, now),
            None => AuthStep::Challenge("scheme not offered"),
        }
    }

    /// Challenge lines, each complete with its line end, for those of `schemes` that are configured, in
    /// the order of `schemes`: clients try them in the order they come. RFC 9110 11.6.1
    pub fn challenges<'a>(&'a self, schemes: &'a [Scheme]) -> impl Iterator<Item = &'a str> {
        let line = |scheme: &Scheme| {
            let method = self.chain.iter().find(|m| m.scheme() == *scheme);
            method.map(Method::challenge)
        };
        schemes.iter().filter_map(line)
    }

    /// Forgets every credential: the next request of everybody is verified anew.
    pub fn revoke_all(&self) {
        self.memory.beliefs.forget_all();
    }

    /// Forgets every credential of one user; false if there is no such account.
    pub fn revoke(&self, user: &UserName) -> bool {
        let account = self.basic().and_then(|basic| basic.passwords.account(user));
        account.inspect(|account| account.revoke()).is_some()
    }

    /// Processor time of verifications since this was last asked, in nanoseconds: whoever asks is charged.
    pub fn take_cpu_ns(&self) -> u64 {
        self.memory.desk.take_cpu_ns()
    }

    /// What verification has cost since the process started.
    pub fn tally(&self) -> Tally {
        self.memory.desk.tally()
    }

    fn basic(&self) -> Option<&Basic> {
        self.chain
            .iter()
            .map(|method| match method {
                Method::Basic(basic) => basic,
            })
            .next()
    }
}

/// A link of the chain.
#[derive(Debug)]
enum Method {
    Basic(Basic),
}

impl Method {
    fn scheme(&self) -> Scheme {
        match self {
            Self::Basic(_) => Scheme::Basic,
        }
    }

    /// Scheme words are compared without regard to case. RFC 9110 11.1
    fn answers_to(&self, word: &[u8]) -> bool {
        match self {
            Self::Basic(_) => word.eq_ignore_ascii_case(b"Basic"),
        }
    }

    fn challenge(&self) -> &str {
        match self {
            Self::Basic(basic) => &basic.challenge,
        }
    }
}

/// Basic against the password file.
#[derive(Debug)]
struct Basic {
    challenge: String,
    default_domain: Option<String>,
    passwords: Arc<Passwords>,
}

impl Basic {
    fn new(settings: &BasicAuth, earlier: Option<&Self>) -> Result<Self, AuthError> {
        let file = &settings.password_file;
        let passwords =
            passwords::read(file, settings.default_domain.as_deref()).map_err(|problems| {
                AuthError::Passwords {
                    file: file.clone(),
                    problems,
                }
            })?;
        Ok(Self {
            challenge: basic::challenge(&settings.realm).ok_or(AuthError::Realm)?,
            default_domain: settings.default_domain.clone(),
            passwords: match earlier {
                Some(earlier) => passwords.succeed(&earlier.passwords),
                None => Arc::new(passwords),
            },
        })
    }

    fn step(
        &self,
        memory: &Memory,
        value: &[u8],
        token: &[u8],
        memo: &mut Memo,
        now: Instant,
    ) -> AuthStep {
        let (beliefs, passwords) = (&memory.beliefs, &self.passwords);
        let (mark, epoch) = (beliefs.mark(value), beliefs.epoch());
        if let Some(identity) = memo.recall(&mark, passwords, epoch, now) {
            return AuthStep::Granted(Arc::clone(identity));
        }
        let digest = beliefs.digest(value);
        if let Some(belief) = beliefs.good(&digest, passwords, now) {
            let identity = Arc::clone(&belief.identity);
            memo.keep(mark, belief, passwords);
            return AuthStep::Granted(identity);
        }
        if beliefs.is_bad(&digest, passwords, now) {
            return AuthStep::Challenge(WRONG);
        }
        let Credentials { user, password } =
            match Credentials::read(token, self.default_domain.as_deref()) {
                Ok(credentials) => credentials,
                Err(reason) => return AuthStep::Challenge(reason),
            };
        let work = Work {
            digest,
            user,
            password,
            passwords: Arc::clone(passwords),
            beliefs: Arc::clone(beliefs),
            epoch,
            asked_at: now,
        };
        AuthStep::Verify(Verification::new(&memory.desk, work))
    }
}

/// What outlives a reload.
#[derive(Debug)]
struct Memory {
    beliefs: Arc<Beliefs>,
    desk: Arc<Desk>,
    terms: Terms,
}

impl Memory {
    fn new(settings: &AuthSettings, earlier: Option<&Self>) -> Result<Self, AuthError> {
        let terms = Terms(AuthSettings {
            basic: None,
            ..settings.clone()
        });
        let beliefs = match earlier {
            Some(earlier) => Arc::clone(&earlier.beliefs),
            None => Arc::new(
                Beliefs::new(
                    settings.cache_capacity,
                    settings.cache_ttl,
                    settings.negative_ttl,
                )
                .map_err(|_unspecified| AuthError::Randomness)?,
            ),
        };
        let desk = match earlier {
            Some(earlier) if earlier.terms.0.verifications_max == settings.verifications_max => {
                Arc::clone(&earlier.desk)
            }
            _ => Arc::new(Desk::new(settings.verifications_max)),
        };
        Ok(Self {
            beliefs,
            desk,
            terms,
        })
    }
}

/// The settings a memory was made for.
#[derive(Debug)]
struct Terms(AuthSettings);

impl Terms {
    fn remembers_like(&self, settings: &AuthSettings) -> bool {
        self.0.cache_ttl == settings.cache_ttl
            && self.0.negative_ttl == settings.negative_ttl
            && self.0.cache_capacity == settings.cache_capacity
    }
}

/// Why clients cannot be authenticated as the settings ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The password file has problems.
    #[error("{}: {}", file.display(), first(problems))]
    Passwords {
        /// The file.
        file: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<PasswordProblem>,
    },
    /// The realm cannot be said in a header.
    #[error("auth.basic.realm has control characters")]
    Realm,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Randomness,
}

fn first(problems: &[PasswordProblem]) -> String {
    let more = problems.len().saturating_sub(1);
    match problems.first() {
        None => "unknown problem".to_owned(),
        Some(problem) if more == 0 => format!("line {}: {}", problem.line, problem.what),
        Some(problem) => format!("line {}: {} (and {more} more)", problem.line, problem.what),
    }
}

/// The longest `Authorization` value that is looked at: beyond any name and password.
const VALUE_BYTES_MAX: usize = 4096;

#[cfg(test)]
#[path = "auth/tests.rs"]
mod tests;
