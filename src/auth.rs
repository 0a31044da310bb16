//! Who is asking: a chain of authentication schemes, and what is remembered of their verdicts.
//!
//! A request pays for one keyed mark. The connection's [`Memo`] knows the mark of its last good
//! credential; a bounded cache knows those of other connections, and which credentials were refused a
//! moment ago. Only a credential that neither knows is verified, beside the worker threads, by
//! [`Verification::run`].
//!
//! Unknown names and wrong passwords are one and the same here: same verdict, same words, same time. What
//! is wrong with a token is told, because only who made the token could make use of it.
//!
//! What is believed ends early when the user is revoked, when the credential itself expires, or when what
//! it rests on changes or goes: the user's line in the password file, the key that signed a token. Others'
//! lines do not matter, so that a site does not hash all passwords again because one was changed. What is disbelieved ends with any
//! change, since the change may have made it right.
//!
//! A further scheme is a file that implements `Method`, and a field of `Schemes`.

mod basic;
mod bearer;
mod cache;
pub mod handoff;
mod method;
mod names;
pub mod passwords;
mod people;
mod verify;

pub use crate::config::settings::Scheme;
#[cfg(test)]
pub(crate) use bearer::mint;
pub use bearer::{Fetch, KeyRing, KeySetProblem, Put};
pub use cache::Memo;
pub use handoff::{HandOff, HandOffError};
pub use names::{NAME_BYTES_MAX, append_canonical, canonical};
pub use verify::{Tally, Verification};

use crate::config::settings::AuthSettings;
use crate::gss::Evidence;
use crate::ids::UserName;
use crate::metrics::AuthOutcome;
use crate::refusal::{Diagnosis, Refusal};
use basic::Basic;
use bearer::Bearer;
use cache::Beliefs;
use method::Method;
use passwords::PasswordProblem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use verify::{Case, Desk};

/// Somebody whose credential was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The canonical name; see [`canonical`].
    pub user: UserName,
    /// What proved it.
    pub scheme: Scheme,
    /// When the credential stops proving it; `None` where it does not say. Requests that began before
    /// are finished.
    pub expires: Option<SystemTime>,
    /// The ticket that proved it, where it lets us act for the user.
    pub evidence: Option<Evidence>,
}

/// What to do with a request, as far as its sender is concerned.
#[derive(Debug)]
pub enum AuthStep {
    /// The sender is known.
    Granted(Arc<Identity>),
    /// Only slow work can tell.
    Verify(Verification),
    /// Answer 401 with the challenges. Nothing was shown: [`BEARER_PROBE`] and [`NO_CREDENTIALS`] are the
    /// normal beginning of a conversation.
    Challenge(&'static str),
    /// What was shown proves nothing; `None` where it is of no scheme that is offered.
    Deny(Option<Scheme>, Denied),
}

/// The reason of a request without credentials.
pub const NO_CREDENTIALS: &str = "no credentials";

/// The reason of a bare `Authorization: Bearer`, by which Outlook asks for the challenges.
pub const BEARER_PROBE: &str = "bearer probe";

/// A credential without success. The reason is for the log; it names nobody, and no reason tells a wrong
/// password from an unknown name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The credential proves nothing: answer 401 with the challenges.
    #[error("{0}")]
    Credentials(&'static str),
    /// The token proves nothing: answer 401 with the challenges and the diagnosis.
    #[error("{}", .0.why)]
    Token(&'static Diagnosis),
    /// Nobody could look at it: too many others wait, or what it is held against cannot be had. Answer 503.
    #[error("{0}")]
    Busy(&'static str),
}

impl Denied {
    /// How metrics count it.
    pub fn outcome(self) -> AuthOutcome {
        match self {
            Self::Credentials(_) | Self::Token(_) => AuthOutcome::Denied,
            Self::Busy(_) => AuthOutcome::Busy,
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Credentials(reason) => Self::Unauthenticated(reason),
            Denied::Token(diagnosis) => Self::TokenRefused(diagnosis),
            Denied::Busy(reason) => Self::TooBusy(reason),
        }
    }
}

/// The configured schemes, in one place that judges every request. Immutable, but for what it remembers.
#[derive(Debug)]
pub struct Authenticator {
    schemes: Schemes,
    chain: Vec<Arc<dyn Method>>,
    /// Schemes that servers judge: here they are only offered.
    untouched: Vec<Scheme>,
    memory: Memory,
}

/// The schemes by name, for those who ask one of them.
#[derive(Debug, Default)]
struct Schemes {
    basic: Option<Arc<Basic>>,
    bearer: Option<Arc<Bearer>>,
}

impl Schemes {
    fn new(settings: &AuthSettings, earlier: &Self) -> Result<Self, AuthError> {
        let basic = settings.basic.as_ref().map(|basic| {
            let made = Basic::new(basic, earlier.basic.as_deref());
            made.map(Arc::new)
        });
        let bearer = settings.bearer.as_ref().map(|bearer| {
            let made = Bearer::new(bearer, earlier.bearer.as_deref());
            made.map(Arc::new)
        });
        Ok(Self {
            basic: basic.transpose()?,
            bearer: bearer.transpose()?,
        })
    }

    /// All of them, as links of the chain.
    fn chain(&self) -> Vec<Arc<dyn Method>> {
        let basic = self.basic.clone().map(|basic| basic as Arc<dyn Method>);
        let bearer = self.bearer.clone().map(|bearer| bearer as Arc<dyn Method>);
        [basic, bearer].into_iter().flatten().collect()
    }
}

impl Authenticator {
    /// Prepares the configured schemes and reads their files. Blocks on the disk.
    ///
    /// `keep` is the authenticator of the running configuration. Its memory goes on in the new one,
    /// unless the settings that shaped it changed (lifetimes, capacity). Either of the two may go on
    /// being used, whichever gets published.
    pub fn new(settings: &AuthSettings, keep: Option<&Self>) -> Result<Self, AuthError> {
        let kept = keep.filter(|earlier| earlier.memory.terms.remembers_like(settings));
        let none = Schemes::default();
        let schemes = Schemes::new(settings, keep.map_or(&none, |earlier| &earlier.schemes))?;
        Ok(Self {
            chain: schemes.chain(),
            untouched: match &settings.passthrough {
                Some(untouched) => untouched.schemes.clone(),
                None => Vec::new(),
            },
            schemes,
            memory: Memory::new(settings, kept.map(|earlier| &earlier.memory))?,
        })
    }

    /// Judges the value of a request's `Authorization` header, if it has one, at time `now`. Only the
    /// schemes in `offered` are looked at.
    ///
    /// Takes about a microsecond. The caller refuses requests with several such headers before.
    pub fn step(
        &self,
        authorization: Option<&[u8]>,
        offered: &[Scheme],
        memo: &mut Memo,
        now: (Instant, SystemTime),
    ) -> AuthStep {
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
        // Scheme words are compared without regard to case. RFC 9110 11.1
        let mut chain = self.chain.iter();
        let Some(method) = chain.find(|method| {
            let scheme = method.scheme();
            word.eq_ignore_ascii_case(scheme.word().as_bytes()) && offered.contains(&scheme)
        }) else {
            return AuthStep::Deny(None, Denied::Credentials("scheme not offered"));
        };
        let denied = |denied| AuthStep::Deny(Some(method.scheme()), denied);
        if let Err(reason) = method.measure(value.len()) {
            return denied(reason);
        }
        let beliefs = &self.memory.beliefs;
        let (mark, epoch) = (beliefs.mark(value), beliefs.epoch());
        if let Some(identity) = memo.recall(&mark, &**method, epoch, now.0) {
            return AuthStep::Granted(Arc::clone(identity));
        }
        let digest = beliefs.digest(value);
        // Read before the belief is looked at: what changes meanwhile is looked at again.
        let serial = method.serial();
        if let Some(belief) = beliefs.good(&digest, &**method, now.0) {
            let identity = Arc::clone(&belief.identity);
            memo.keep(mark, belief, serial);
            return AuthStep::Granted(identity);
        }
        if let Some(reason) = beliefs.bad(&digest, &**method, now.0) {
            return denied(reason);
        }
        match method.look(token, now) {
            Err(reason) => denied(reason),
            Ok(work) => AuthStep::Verify(Verification::new(
                &self.memory.desk,
                Case {
                    method: Arc::clone(method),
                    work,
                    digest,
                    beliefs: Arc::clone(beliefs),
                    epoch,
                    asked_at: now,
                },
            )),
        }
    }

    /// Challenge lines, each complete with its line end, for those of `schemes` that are configured, in
    /// the order of `schemes`: clients try them in the order they come. `refused` is the scheme whose
    /// credential was refused, where that is to be said. RFC 9110 11.6.1
    pub fn challenges<'a>(
        &'a self,
        schemes: &'a [Scheme],
        refused: Option<Scheme>,
    ) -> impl Iterator<Item = &'a str> {
        let line = move |scheme: &Scheme| {
            let Some(method) = self.chain.iter().find(|m| m.scheme() == *scheme) else {
                return self.untouched.contains(scheme).then_some(match scheme {
                    Scheme::Ntlm => "WWW-Authenticate: NTLM\r\n",
                    _ => "WWW-Authenticate: Negotiate\r\n",
                });
            };
            Some(match refused == Some(*scheme) {
                true => method.challenge_to_refused(),
                false => method.challenge(),
            })
        };
        schemes.iter().filter_map(line)
    }

    /// The keys of identity providers, for the one who fetches them.
    pub fn key_rings(&self) -> impl Iterator<Item = &Arc<KeyRing>> {
        self.schemes.bearer.iter().flat_map(|bearer| bearer.rings())
    }

    /// Forgets every credential: the next request of everybody is verified anew.
    pub fn revoke_all(&self) {
        self.memory.beliefs.forget_all();
    }

    /// Forgets every credential of one user; false where nothing is known of such a user.
    pub fn revoke(&self, user: &UserName) -> bool {
        let was_believed = self.memory.beliefs.people().revoke(user);
        was_believed || self.chain.iter().any(|method| method.knows(user))
    }

    /// Processor time of verifications since this was last asked, in nanoseconds: whoever asks is charged.
    pub fn take_cpu_ns(&self) -> u64 {
        self.memory.desk.take_cpu_ns()
    }

    /// What verification has cost since the process started.
    pub fn tally(&self) -> Tally {
        self.memory.desk.tally()
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
        let terms = Terms {
            cache_ttl: settings.cache_ttl,
            negative_ttl: settings.negative_ttl,
            cache_capacity: settings.cache_capacity,
            verifications_max: settings.verifications_max,
        };
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
            Some(earlier) if earlier.terms.verifications_max == settings.verifications_max => {
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
struct Terms {
    cache_ttl: Duration,
    negative_ttl: Duration,
    cache_capacity: usize,
    verifications_max: usize,
}

impl Terms {
    fn remembers_like(&self, settings: &AuthSettings) -> bool {
        self.cache_ttl == settings.cache_ttl
            && self.negative_ttl == settings.negative_ttl
            && self.cache_capacity == settings.cache_capacity
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
    /// A part of the Bearer challenge cannot be said in a header.
    #[error("auth.bearer.challenge has quotation marks or control characters")]
    Challenge,
    /// The key set of an issuer is of no use.
    #[error("auth.bearer.issuers: keys of {issuer}: {problem}")]
    Keys {
        /// The issuer.
        issuer: String,
        /// What is wrong with them.
        problem: KeySetProblem,
    },
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

#[cfg(test)]
#[path = "auth/tests.rs"]
mod tests;
