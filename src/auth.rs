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
//! A further scheme is a file that implements `Method`, and a field of `Schemes`. Schemes that prove a connection by
//! words and answers implement `Dialogue` instead; of them only the connection knows.

mod basic;
mod bearer;
mod bind;
mod binding;
mod by_file;
mod by_server;
mod cache;
mod certificate;
mod guard;
mod dialogue;
pub mod handoff;
mod lasting;
mod method;
mod names;
mod negotiate;
mod ntlm;
pub mod passwords;
mod people;
mod verify;

pub use crate::config::settings::Scheme;
#[cfg(test)]
pub(crate) use bearer::mint;
pub use bearer::{Fetch, KeyRing, KeySetProblem, Put};
pub use binding::ChannelBinding;
pub use by_server::{About, Judge, Login};
pub use cache::Memo;
pub use certificate::{
    Certified, Claim, Holder, Holders, Presented, Trust, Trusts, Whose, words as certificate_words,
};
pub use dialogue::{Handshake, HandshakeFacts, Shaken};
pub use guard::{Delay, GuardFacts};
pub use handoff::{HandOff, HandOffError};
pub use lasting::Lasting;
pub use names::{NAME_BYTES_MAX, append_canonical, canonical};
pub use verify::{Tally, Verification};

use crate::config::settings::{AuthSettings, BasicVerify};
use crate::gss::Evidence;
use crate::ids::UserName;
use crate::ldap::{Book, Lookups};
use crate::metrics::AuthOutcome;
use crate::refusal::{Diagnosis, Refusal};
use basic::Basic;
use bearer::Bearer;
use bind::Bind;
use by_file::ByFile;
use by_server::{Bench, ByServer};
use cache::Beliefs;
use certificate::{Certificate, Holding};
use dialogue::{Dialogue, Open, Waiting, Watch, Word};
use guard::Guard;
use method::Method;
use negotiate::Negotiate;
use ntlm::Ntlm;
use passwords::PasswordProblem;
use std::net::IpAddr;
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
    /// The ticket that proved it, where the site hands on tickets.
    pub evidence: Option<Evidence>,
}

/// What a request shows of its sender, where, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The value of its `Authorization` header. The caller refuses requests with several.
    pub authorization: Option<&'a [u8]>,
    /// The schemes that are looked at where it came in.
    pub offered: &'a [Scheme],
    /// The address it comes from.
    pub source: IpAddr,
    /// The time, by both clocks.
    pub now: (Instant, SystemTime),
}

/// What to do with a request, as far as its sender is concerned.
#[derive(Debug)]
pub enum AuthStep {
    /// The sender is known.
    Granted(Arc<Identity>),
    /// Only slow work can tell.
    Verify(Verification),
    /// A word of a conversation that proves the connection: it must be heard.
    Shake(Box<Handshake>),
    /// Answer 401 with the challenges. Nothing was shown: [`BEARER_PROBE`] and [`NO_CREDENTIALS`] are the
    /// normal beginning of a conversation.
    Challenge(&'static str),
    /// What was shown proves nothing; `None` where it is of no scheme that is offered.
    Deny(Option<Scheme>, Denied),
}

/// The reason of a request without credentials.
pub const NO_CREDENTIALS: &str = "no credentials";

/// The reason of a 401 in mid-conversation.
pub const HANDSHAKE: &str = "handshake goes on";

/// The reason of a bare `Authorization: Bearer`, by which Outlook asks for the challenges.
pub const BEARER_PROBE: &str = "bearer probe";

/// A credential without success. The reason is for the log; it names nobody. What a client gets is the same
/// for a wrong password and an unknown name.
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
    /// It was not looked at, because too many others were wrong: answer as to [`Self::Credentials`], only
    /// later.
    #[error("{}", .0.words())]
    Guarded(Guarded),
    /// The directory that it is held against does not answer. Answer 503.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The mailbox server that it is held against says neither yes nor no. Answer 503.
    #[error("{0}")]
    Unjudged(&'static str),
}

/// Of whom too many credentials were wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// The user it names.
    User,
    /// The address it comes from.
    Source,
}

impl Guarded {
    /// The reason, for the log.
    pub const fn words(self) -> &'static str {
        match self {
            Self::User => "too many wrong passwords of this user, not looked at",
            Self::Source => "too many wrong passwords from this address, not looked at",
        }
    }
}

impl Denied {
    /// How metrics count it.
    pub fn outcome(self) -> AuthOutcome {
        match self {
            Self::Credentials(_) | Self::Token(_) => AuthOutcome::Denied,
            Self::Busy(_) | Self::Unavailable(_) | Self::Unjudged(_) => AuthOutcome::Busy,
            Self::Guarded(_) => AuthOutcome::Guarded,
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Credentials(reason) => Self::Unauthenticated(reason),
            Denied::Token(diagnosis) => Self::TokenRefused(diagnosis),
            Denied::Busy(reason) => Self::TooBusy(reason),
            Denied::Guarded(by) => Self::Guarded(by.words()),
            Denied::Unavailable(reason) => Self::DirectoryUnavailable(reason),
            Denied::Unjudged(reason) => Self::Unjudged(reason),
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
    dialogues: Vec<Arc<dyn Dialogue>>,
    connection_ttl: Duration,
    /// Who knows under which names an account may be guessed at.
    book: Option<Arc<Book>>,
    /// The mail domain of names without one.
    home: Option<Arc<str>>,
    bench: Bench,
    memory: Memory,
}

/// The schemes by name, for those who ask one of them.
#[derive(Debug, Default)]
struct Schemes {
    by_file: Option<Arc<Basic<ByFile>>>,
    bind: Option<Arc<Basic<Bind>>>,
    by_server: Option<Arc<Basic<ByServer>>>,
    bearer: Option<Arc<Bearer>>,
    certificate: Option<Arc<Certificate>>,
    negotiate: Option<Arc<Negotiate>>,
    ntlm: Option<Arc<Ntlm>>,
}

impl Schemes {
    fn new(
        settings: &AuthSettings,
        book: Option<&Arc<Book>>,
        bench: &Bench,
        earlier: &Self,
    ) -> Result<Self, AuthError> {
        let (mut by_file, mut bind, mut by_server) = (None, None, None);
        if let Some(settings) = &settings.basic {
            match &settings.verify {
                BasicVerify::File(file) => {
                    let domain = settings.default_domain.as_deref();
                    let made = Basic::new(settings, earlier.by_file.as_deref(), |earlier| {
                        ByFile::new(file, domain, earlier)
                    });
                    by_file = Some(made.map(Arc::new));
                }
                BasicVerify::LdapBind { .. } => {
                    let book = book.ok_or(AuthError::Directory)?;
                    let made = Basic::new(settings, earlier.bind.as_deref(), |earlier| {
                        Ok(Bind::new(book, earlier))
                    });
                    bind = Some(made.map(Arc::new));
                }
                BasicVerify::Backend => {
                    let made = Basic::new(settings, earlier.by_server.as_deref(), |earlier| {
                        Ok(ByServer::new(bench, earlier))
                    });
                    by_server = Some(made.map(Arc::new));
                }
            }
        }
        let bearer = settings.bearer.as_ref().map(|bearer| {
            let made = Bearer::new(bearer, earlier.bearer.as_deref());
            made.map(Arc::new)
        });
        let negotiate = settings.negotiate.as_ref().map(|negotiate| {
            let made = Negotiate::new(negotiate, earlier.negotiate.as_deref());
            made.map(Arc::new)
        });
        let ntlm = settings
            .ntlm
            .as_ref()
            .map(|ntlm| Arc::new(Ntlm::new(ntlm, earlier.ntlm.as_deref())));
        Ok(Self {
            by_file: by_file.transpose()?,
            bind: bind.transpose()?,
            by_server: by_server.transpose()?,
            bearer: bearer.transpose()?,
            certificate: Some(
                Certificate::new(&settings.certificate, earlier.certificate.as_ref())
                    .map_err(|why| AuthError::Issuers(why.to_string()))?,
            ),
            negotiate: negotiate.transpose()?,
            ntlm,
        })
    }

    /// Those that prove connections.
    fn dialogues(&self) -> Vec<Arc<dyn Dialogue>> {
        let negotiate = self.negotiate.clone().map(|one| one as Arc<dyn Dialogue>);
        let ntlm = self.ntlm.clone().map(|one| one as Arc<dyn Dialogue>);
        [negotiate, ntlm].into_iter().flatten().collect()
    }

    /// Those that prove requests, as links of the chain.
    fn chain(&self) -> Vec<Arc<dyn Method>> {
        let by_file = self.by_file.clone().map(|one| one as Arc<dyn Method>);
        let bind = self.bind.clone().map(|one| one as Arc<dyn Method>);
        let by_server = self.by_server.clone().map(|one| one as Arc<dyn Method>);
        let bearer = self.bearer.clone().map(|bearer| bearer as Arc<dyn Method>);
        [by_file, bind, by_server, bearer]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Authenticator {
    /// Prepares the configured schemes and reads their files. Blocks on the disk.
    ///
    /// `keep` is the authenticator of the running configuration. Each part of its memory goes on in the new one,
    /// unless the settings that shaped it changed (lifetimes, capacity, the guard's terms); who can be revoked goes on
    /// always. Either of the two may go on being used, whichever gets published.
    pub fn new(settings: &AuthSettings, keep: Option<&Self>) -> Result<Self, AuthError> {
        Self::with_directory(settings, None, keep)
    }

    /// The same, where `book` is the directory service that passwords may be held against.
    pub fn with_directory(
        settings: &AuthSettings,
        book: Option<&Arc<Book>>,
        keep: Option<&Self>,
    ) -> Result<Self, AuthError> {
        let none = Schemes::default();
        let bench = keep.map_or_else(Bench::default, |earlier| Arc::clone(&earlier.bench));
        let schemes = Schemes::new(
            settings,
            book,
            &bench,
            keep.map_or(&none, |earlier| &earlier.schemes),
        )?;
        Ok(Self {
            chain: schemes.chain(),
            dialogues: schemes.dialogues(),
            untouched: match &settings.passthrough {
                Some(untouched) => untouched.schemes.clone(),
                None => Vec::new(),
            },
            schemes,
            bench,
            connection_ttl: settings.connection_ttl,
            book: book.cloned(),
            home: settings
                .basic
                .as_ref()
                .and_then(|basic| basic.default_domain.as_deref().map(Arc::from)),
            memory: Memory::new(settings, keep.map(|earlier| &earlier.memory))?,
        })
    }

    /// Says who asks mailbox servers about passwords, from now on and after every reload; whoever was appointed
    /// first goes on.
    pub fn appoint(&self, judge: Arc<dyn Judge>) {
        let _first_stays = self.bench.set(judge);
    }

    /// Judges what a request shows. Takes about a microsecond.
    pub fn step(&self, asker: &Asker<'_>, memo: &mut Memo) -> AuthStep {
        let Asker {
            authorization,
            offered,
            source,
            now,
        } = *asker;
        let value = authorization.unwrap_or_default().trim_ascii();
        if value.is_empty() {
            return match self.proven(offered, memo, now.0) {
                Some(identity) => AuthStep::Granted(identity),
                None => AuthStep::Challenge(NO_CREDENTIALS),
            };
        }
        let end = memchr::memchr(b' ', value).unwrap_or(value.len());
        let (word, token) = value.split_at(end);
        let token = token.trim_ascii_start();
        if word.eq_ignore_ascii_case(b"Bearer") && token.is_empty() {
            return AuthStep::Challenge(BEARER_PROBE);
        }
        let is_spoken = |scheme: Scheme| {
            word.eq_ignore_ascii_case(scheme.word().as_bytes()) && offered.contains(&scheme)
        };
        let mut dialogues = self.dialogues.iter().filter(|_| memo.is_bindable());
        if let Some(dialogue) = dialogues.find(|dialogue| is_spoken(dialogue.scheme())) {
            return self.hear(dialogue, (value, token), memo, source, now);
        }
        memo.part();
        // Scheme words are compared without regard to case. RFC 9110 11.1
        let mut chain = self.chain.iter();
        let Some(method) = chain.find(|method| is_spoken(method.scheme())) else {
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
        let work = match method.look(token, now) {
            Err(reason) => return denied(reason),
            Ok(work) => work,
        };
        let case = Case {
            method: Arc::clone(method),
            work,
            digest,
            beliefs: Arc::clone(beliefs),
            guard: self.memory.guard.clone(),
            source,
            epoch,
            asked_at: now,
        };
        match case.look() {
            Err(reason) => denied(reason),
            Ok(()) => AuthStep::Verify(Verification::new(&self.memory.desk, case)),
        }
    }

    /// A place to hold back the answer to somebody the guard refused; `None`: answer at once.
    pub fn delay(&self) -> Option<Delay> {
        self.memory.guard.as_ref()?.delay()
    }

    /// Lets the guard forget what is over, and says what it knows.
    pub fn sweep_guard(&self, now: Instant) -> GuardFacts {
        let guard = self.memory.guard.as_ref();
        guard.map(|guard| guard.sweep(now)).unwrap_or_default()
    }

    /// How many handshakes are half done, and how many more were refused since this was last asked.
    pub fn handshakes(&self) -> HandshakeFacts {
        self.memory.open.facts()
    }

    /// Whose the certificate is that the connection showed. For requests that show nothing else: what a
    /// request says of itself counts before what the connection once showed.
    ///
    /// `configuration` numbers the directory that `holders` asks; a request of a connection whose
    /// certificate was looked at under the same one, within `auth.cache_ttl`, costs some comparisons.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub fn by_certificate(
        &self,
        shown: &Presented,
        memo: &mut Memo,
        holders: &dyn Holders,
        configuration: u64,
        now: SystemTime,
    ) -> Result<Certified, Denied> {
        let certificate = self.schemes.certificate.as_ref();
        let certificate = certificate.ok_or(Denied::Credentials("scheme not offered"))?;
        shown.stands(now).map_err(Denied::Credentials)?;
        let beliefs = &self.memory.beliefs;
        let when = [certificate.serial(), configuration, beliefs.epoch()];
        if let Some(identity) = memo.holding(when, now) {
            return Ok(Certified::Known(Arc::clone(identity), false));
        }
        let proven = match certificate.judge(shown, beliefs.people(), holders, now)? {
            Ok(proven) => proven,
            Err(first) => {
                let lookups = Lookups {
                    first,
                    second: None,
                };
                return Ok(Certified::Ask(Box::new(lookups)));
            }
        };
        let until = now.checked_add(self.memory.terms.cache_ttl).unwrap_or(now);
        let holding = Holding::new(proven, when, until);
        let identity = Arc::clone(&holding.identity);
        memo.hold(holding);
        Ok(Certified::Known(identity, true))
    }

    /// Who was proven on this connection as a whole, by a scheme that is offered.
    fn proven(&self, offered: &[Scheme], memo: &Memo, now: Instant) -> Option<Arc<Identity>> {
        let bond = memo.known_bond()?;
        let scheme = bond.scheme().filter(|scheme| offered.contains(scheme))?;
        let mut dialogues = self.dialogues.iter();
        let dialogue = dialogues.find(|dialogue| dialogue.scheme() == scheme)?;
        let epoch = self.memory.beliefs.epoch();
        bond.recall(&**dialogue, None, epoch, now).cloned()
    }

    /// A word of a conversation. Whoever begins one anew is nobody until it ends well.
    fn hear(
        &self,
        dialogue: &Arc<dyn Dialogue>,
        (value, token): (&[u8], &[u8]),
        memo: &mut Memo,
        source: IpAddr,
        now: (Instant, SystemTime),
    ) -> AuthStep {
        let scheme = dialogue.scheme();
        let denied = |denied| AuthStep::Deny(Some(scheme), denied);
        if value.len() > dialogue::VALUE_BYTES_MAX {
            memo.part();
            return denied(Denied::Credentials("handshake token longer than 64 KiB"));
        }
        let beliefs = &self.memory.beliefs;
        let (mark, epoch) = (beliefs.mark(value), beliefs.epoch());
        let known = memo.known_bond();
        if let Some(identity) =
            known.and_then(|bond| bond.recall(&**dialogue, Some(&mark), epoch, now.0))
        {
            return AuthStep::Granted(Arc::clone(identity));
        }
        let waiting = memo.bond().begin(scheme);
        if token.is_empty() {
            return AuthStep::Challenge(NO_CREDENTIALS);
        }
        let token = match dialogue::read(token) {
            Ok(token) => token,
            Err(reason) => return denied(reason),
        };
        let (talk, place) = match waiting {
            _ if dialogue.begins(&token) => (None, None),
            Waiting::For(talk, place) => (Some(talk), Some(place)),
            Waiting::TooLong => return denied(Denied::Credentials("handshake took too long")),
            Waiting::Nobody => {
                return denied(Denied::Credentials(
                    "malformed handshake: not its beginning",
                ));
            }
        };
        let open = &self.memory.open;
        AuthStep::Shake(Box::new(Handshake {
            place,
            watch: Watch {
                guard: self.memory.guard.clone(),
                book: self.book.clone(),
                home: self.home.clone(),
                source,
                lot: mark.lot(),
                asked_at: now.0,
            },
            dialogue: Arc::clone(dialogue),
            word: Word {
                token,
                talk,
                binding: memo.binding().cloned(),
                source: open.source(source),
                desk: Arc::clone(&self.memory.desk),
                heard_at: now.0,
            },
            open: Arc::clone(open),
            mark,
            beliefs: Arc::clone(beliefs),
            epoch,
            connection_ttl: self.connection_ttl,
            asked_at: now,
        }))
    }

    /// Challenge lines, each complete with its line end, for those of `schemes` that are configured, in
    /// the order of `schemes`: clients try them in the order they come. `refused` is the scheme whose
    /// credential was refused, where that is to be said. `is_bindable`: the connection may be proven as a whole.
    /// RFC 9110 11.6.1
    pub fn challenges<'a>(
        &'a self,
        schemes: &'a [Scheme],
        refused: Option<Scheme>,
        is_bindable: bool,
    ) -> impl Iterator<Item = &'a str> {
        let line = move |scheme: &Scheme| {
            let mut dialogues = self.dialogues.iter();
            if let Some(dialogue) = dialogues.find(|dialogue| dialogue.scheme() == *scheme) {
                return is_bindable.then(|| dialogue.challenge());
            }
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

    /// Forgets every credential, right or wrong: the next request of everybody is verified anew.
    pub fn revoke_all(&self) {
        self.memory.beliefs.forget_all();
        if let Some(guard) = &self.memory.guard {
            guard.pardon_all();
        }
    }

    /// Forgets every credential of one user, and what was wrong of late; false where nothing was known of
    /// such a user and no scheme lists one.
    pub fn revoke(&self, user: &UserName) -> bool {
        let guard = self.memory.guard.as_ref();
        let was_suspected = guard.is_some_and(|guard| guard.pardon(user));
        let was_believed = self.memory.beliefs.people().revoke(user);
        was_suspected || was_believed || self.chain.iter().any(|method| method.knows(user))
    }

    /// True where a scheme itself lists its users, and this is one of them.
    pub fn lists(&self, user: &UserName) -> bool {
        self.chain.iter().any(|method| method.knows(user))
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
    guard: Option<Arc<Guard>>,
    open: Arc<Open>,
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
            Some(earlier) if earlier.terms.remembers_like(settings) => Arc::clone(&earlier.beliefs),
            _ => Arc::new(
                Beliefs::new(
                    settings.cache_capacity,
                    settings.cache_ttl,
                    settings.negative_ttl,
                    // Who signed on before can be revoked for as long as the connection lives.
                    earlier
                        .map_or_else(Arc::default, |earlier| Arc::clone(earlier.beliefs.people())),
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
        let open = earlier.map(|earlier| &earlier.open);
        let open = match open.filter(|open| *open.limits() == settings.handshakes) {
            Some(open) => Arc::clone(open),
            None => Arc::new(Open::new(&settings.handshakes)),
        };
        let guard = settings.lockout_guard.as_ref().map(|wanted| {
            let earlier = earlier.and_then(|earlier| earlier.guard.as_ref());
            match earlier.filter(|earlier| earlier.terms() == wanted) {
                Some(earlier) => Arc::clone(earlier),
                None => Arc::new(Guard::new(wanted)),
            }
        });
        Ok(Self {
            beliefs,
            desk,
            guard,
            open,
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
    /// Passwords are to be held against a directory service, and there is none.
    #[error("auth.basic.verify: there is no directory service")]
    Directory,
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
    /// An authority that is to name users cannot be used.
    #[error("auth.certificate.issuers: {0}")]
    Issuers(String),
    /// The keys of Kerberos are of no use.
    #[error("auth.negotiate.keytab: {}: {cause}", file.display())]
    Keytab {
        /// The file.
        file: PathBuf,
        /// What the Kerberos library says.
        cause: String,
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
