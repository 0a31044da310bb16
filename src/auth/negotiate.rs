//! Negotiate: Kerberos, and NTLM inside of it where the site allows that. RFC 4559, RFC 4178, RFC 4121
//!
//! A ticket is judged with the key in the keytab; the domain controller is not asked. That is processor work and one
//! small file written, the replay cache; NTLM is winbind's word, and winbind may take its time. Both happen on threads
//! beside the workers, at most `auth.negotiate.threads` at once.

mod credential;
mod trouble;
mod winbind;

use super::binding::ChannelBinding;
use super::dialogue::{Dialogue, Guess, Heard, Known, Realms, Talk, Word};
use super::method::serial;
use super::{AuthError, Denied, Scheme, ntlm};
use crate::config::settings::{BindingRule, NegotiateAuth};
use crate::gss::Evidence;
use async_trait::async_trait;
use credential::Replays;
use libgssapi::context::{CtxFlags, SecurityContext, ServerCtx};
use libgssapi::credential::Cred;
use libgssapi::oid::GSS_MECH_KRB5;
use parking_lot::Mutex;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use trouble::Trouble;
use winbind::Winbind;
use zeroize::Zeroizing;

/// The service as the settings name it.
pub(super) struct Negotiate {
    settings: NegotiateAuth,
    acceptor: Arc<Acceptor>,
    /// Tickets are judged here, which is work of ours and soon done.
    tickets: Arc<Lane>,
    /// Passwords are judged by winbind, which may take its time; tickets do not wait for it.
    passwords: Arc<Lane>,
    winbind: Winbind,
    serial: u64,
}

/// Threads that judge words, and those who wait for one.
struct Lane {
    /// At most this many words are judged at once.
    threads: Arc<Semaphore>,
    /// More words than this do not even wait.
    waiting: Semaphore,
}

impl Lane {
    fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            threads: Arc::new(Semaphore::new(threads)),
            waiting: Semaphore::new(WAITING_MAX),
        })
    }
}

/// Everything a thread needs to judge a word.
struct Acceptor {
    credential: Cred,
    /// The same without a replay cache: it tells which certificate a client has bound its proof to, where that may be
    /// another's than ours. Nobody is let in by its word.
    oracle: Option<Cred>,
    extra: Vec<ChannelBinding>,
    rule: BindingRule,
    allows_ntlm: bool,
    realms: Realms,
    /// The keytab, where tickets are kept to be handed on.
    evidence: Option<Arc<Path>>,
    words: Mutex<trouble::Words>,
}

impl Negotiate {
    /// Reads the keytab. Blocks on the disk. What was proven under the same rules goes on being believed, whatever
    /// keys are in the keytab now.
    pub(super) fn new(settings: &NegotiateAuth, earlier: Option<&Self>) -> Result<Self, AuthError> {
        let unusable = |cause: String| AuthError::Keytab {
            file: settings.keytab.clone(),
            cause,
        };
        // The library opens it with the first ticket, and would tell the client instead of the administrator.
        File::open(&settings.keytab).map_err(|cause| unusable(cause.to_string()))?;
        let acquire = |replays: Replays<'_>| {
            credential::acquire(&settings.keytab, replays)
                .map_err(|cause| unusable(cause.to_string()))
        };
        let kept = settings.replay_cache.as_deref();
        let extra = settings.extra_channel_bindings.iter();
        let extra: Vec<_> = extra.filter_map(|der| ChannelBinding::of(der)).collect();
        let acceptor = Acceptor {
            credential: acquire(kept.map_or(Replays::Usual, Replays::In))?,
            oracle: match extra.is_empty() {
                true => None,
                false => Some(acquire(Replays::Unseen)?),
            },
            extra,
            rule: settings.channel_binding,
            allows_ntlm: settings.allow_ntlm_in_spnego,
            realms: Realms::new(&settings.realm_map),
            evidence: match settings.keeps_tickets {
                true => Some(settings.keytab.as_path().into()),
                false => None,
            },
            words: Mutex::default(),
        };
        let same = earlier.filter(|earlier| earlier.settings.rules() == settings.rules());
        let pool = earlier.filter(|earlier| earlier.settings.threads == settings.threads);
        Ok(Self {
            acceptor: Arc::new(acceptor),
            tickets: match pool {
                Some(pool) => Arc::clone(&pool.tickets),
                None => Lane::new(settings.threads),
            },
            passwords: match pool {
                Some(pool) => Arc::clone(&pool.passwords),
                None => Lane::new(settings.threads),
            },
            winbind: Winbind::new(),
            serial: same.map_or_else(serial, |same| same.serial),
            settings: settings.clone(),
        })
    }
}

impl fmt::Debug for Negotiate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Negotiate")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A conversation between two words.
pub(super) struct Context {
    gss: ServerCtx,
    /// It was begun as NTLM, with no key of ours.
    is_ntlm: bool,
}

#[cfg(test)]
impl Context {
    /// One that has heard nothing.
    pub(super) fn for_tests() -> Self {
        Self {
            gss: ServerCtx::new(None),
            is_ntlm: false,
        }
    }
}

#[async_trait]
impl Dialogue for Negotiate {
    fn scheme(&self) -> Scheme {
        Scheme::Negotiate
    }

    fn challenge(&self) -> &str {
        "WWW-Authenticate: Negotiate\r\n"
    }

    fn serial(&self) -> u64 {
        self.serial
    }

    fn persists(&self) -> bool {
        self.settings.persist
    }

    fn patience(&self) -> Duration {
        self.settings.handshake_timeout
    }

    fn begins(&self, word: &[u8]) -> bool {
        // The frame of a first token, or NTLM's first message as it is. RFC 2743 3.1, [MS-NLMP] 2.2.1.1
        word.first() == Some(&0x60) || word.starts_with(b"NTLMSSP\0\x01")
    }

    fn guess(&self, word: &[u8], home: Option<&str>) -> Guess {
        if !self.acceptor.allows_ntlm {
            return Guess::Nothing;
        }
        ntlm::guess(word, is_ntlm(word), &self.acceptor.realms, home)
    }

    async fn hear(&self, word: Word) -> Heard {
        let Word {
            token,
            talk,
            binding,
            desk,
            heard_at,
            source: _,
        } = word;
        let context = match talk {
            Some(Talk::Negotiate(context)) => Some(context),
            _ => None,
        };
        let is_password = match &context {
            Some(context) => context.is_ntlm,
            None => self.acceptor.allows_ntlm && is_ntlm(&token),
        };
        let lane = match is_password {
            true => &self.passwords,
            false => &self.tickets,
        };
        let Ok(_waiting) = lane.waiting.try_acquire() else {
            desk.shed();
            return Heard::Nothing(Denied::Busy("too many handshakes wait"));
        };
        let acceptor = Arc::clone(&self.acceptor);
        let judged = async {
            let permit = Arc::clone(&lane.threads).acquire_owned().await.ok()?;
            let judged = Arc::clone(&desk).aside(Some(permit), move || {
                acceptor.judge(context, token, binding.as_ref(), heard_at)
            });
            judged.await
        };
        let judged = match is_password {
            false => judged.await,
            // A thread that waits for winbind cannot be called back; whoever waits for the thread can.
            true => match tokio::time::timeout(self.settings.handshake_timeout, judged).await {
                Ok(judged) => judged,
                Err(_elapsed) => {
                    desk.shed();
                    return Heard::Nothing(Trouble::Winbind.denied());
                }
            },
        };
        match judged {
            Some(Judged::More(context, answer)) => Heard::More(Talk::Negotiate(context), answer),
            Some(Judged::Proven(known)) => Heard::Proven(known),
            Some(Judged::Nothing(denied)) => Heard::Nothing(denied),
            Some(Judged::Refused) => {
                let trouble = match self.winbind.reaches_a_controller().await {
                    Some(false) => Trouble::Away,
                    Some(true) | None => Trouble::Password,
                };
                Heard::Nothing(self.acceptor.told(trouble, &"winbind refuses"))
            }
            None => Heard::Nothing(Denied::Busy("the handshake was interrupted")),
        }
    }
}

/// What a thread found out.
enum Judged {
    More(Context, Zeroizing<Vec<u8>>),
    Proven(Known),
    Nothing(Denied),
    /// By winbind, which may have asked nobody.
    Refused,
}

impl Acceptor {
    fn judge(
        &self,
        context: Option<Context>,
        token: Zeroizing<Vec<u8>>,
        shown: Option<&ChannelBinding>,
        heard_at: Instant,
    ) -> Judged {
        let is_first = context.is_none();
        let mut context = context.unwrap_or_else(|| {
            let is_ntlm = self.allows_ntlm && is_ntlm(&token);
            // Without a credential every mechanism of the machine answers, NTLM among them.
            let credential = (!is_ntlm).then(|| self.credential.clone());
            Context {
                gss: ServerCtx::new(credential),
                is_ntlm,
            }
        });
        let binding = match self.rule {
            BindingRule::Off => None,
            BindingRule::Accept | BindingRule::Require if is_first => self.choose(&token, shown),
            BindingRule::Accept | BindingRule::Require => shown,
        };
        let answer = match context.gss.step(&token, binding.map(ChannelBinding::bytes)) {
            Ok(answer) => answer.map(|answer| Zeroizing::new(answer.to_vec())),
            Err(error) => {
                return match Trouble::of(&error, context.is_ntlm) {
                    Trouble::Password => Judged::Refused,
                    trouble => Judged::Nothing(self.told(trouble, &error)),
                };
            }
        };
        // Later the plug-in would call the password wrong, and the client would throw it away.
        if let (true, Some(answer)) = (context.is_ntlm && is_first, &answer)
            && knows_no_domain(answer)
        {
            let why = "the plug-in for NTLM knows no domain";
            return Judged::Nothing(self.told(Trouble::Winbind, &why));
        }
        if !context.gss.is_complete() {
            return Judged::More(context, answer.unwrap_or_default());
        }
        // The ticket is in the first word; where that was not all, there is none to be taken out of one word.
        let word = is_first.then_some((token, heard_at));
        match self.who(&context, answer, word) {
            Ok(known) => Judged::Proven(known),
            Err(denied) => Judged::Nothing(denied),
        }
    }

    /// The certificate that a client may have seen: ours, or that of a device in front of us.
    fn choose<'a>(
        &'a self,
        token: &[u8],
        shown: Option<&'a ChannelBinding>,
    ) -> Option<&'a ChannelBinding> {
        let Some(oracle) = &self.oracle else {
            return shown;
        };
        let mut candidates = shown.into_iter().chain(&self.extra);
        let fits = |binding: &&ChannelBinding| {
            let mut trial = ServerCtx::new(Some(oracle.clone()));
            trial.step(token, Some(binding.bytes())).is_ok()
        };
        candidates.find(fits).or(shown).or(self.extra.first())
    }

    /// Who has come to the end of a conversation.
    /// `word` is what was said, where that was a single one.
    fn who(
        &self,
        context: &Context,
        answer: Option<Zeroizing<Vec<u8>>>,
        word: Option<(Zeroizing<Vec<u8>>, Instant)>,
    ) -> Result<Known, Denied> {
        let gss = &context.gss;
        let unreadable = |error: libgssapi::error::Error| {
            let trouble = Trouble::of(&error, context.is_ntlm);
            self.told(trouble, &error)
        };
        let flags = gss.flags().map_err(unreadable)?;
        if flags.contains(CtxFlags::GSS_C_ANON_FLAG) {
            return Err(Denied::Credentials("anonymous"));
        }
        if self.rule == BindingRule::Require && flags.bits() & CHANNEL_BOUND == 0 {
            return Err(Denied::Credentials("handshake without channel binding"));
        }
        let is_kerberos = gss.mechanism().map_err(unreadable)? == GSS_MECH_KRB5;
        // Whoever begins as NTLM and ends with a ticket has shown one for the machine's own key, not for ours.
        if is_kerberos == context.is_ntlm {
            return Err(Denied::Credentials("malformed handshake"));
        }
        let name = gss.source_name().map_err(unreadable)?;
        let name = name.display_name().map_err(unreadable)?;
        let name = std::str::from_utf8(&name)
            .map_err(|_not_text| Denied::Credentials("name is not UTF-8"))?;
        let user = match is_kerberos {
            true => self.realms.of_principal(name),
            false => self.realms.of_account(name),
        };
        let kept = self.evidence.as_ref().filter(|_| is_kerberos).zip(word);
        let evidence = kept.map(|(keytab, (word, at))| Evidence::new(word, name, keytab, at));
        Ok(Known {
            evidence,
            user: user.ok_or(Denied::Credentials("not the name of a user"))?,
            // A ticket says when it ends. winbind says nothing.
            good_for: match is_kerberos {
                true => gss.lifetime().ok(),
                false => None,
            },
            answer,
        })
    }

    /// The denial of a trouble. What an administrator can cure is told once in a while.
    fn told(&self, trouble: Trouble, error: &dyn fmt::Display) -> Denied {
        #[expect(
            clippy::disallowed_methods,
            reason = "only keeps the log from being flooded; nothing is decided by it"
        )]
        let now = Instant::now();
        if self.words.lock().are_due(trouble, now) {
            match trouble.cure() {
                Some(cure) => tracing::warn!(%error, cure, "a handshake failed"),
                None => tracing::debug!(%error, "a handshake failed"),
            }
        }
        trouble.denied()
    }
}

/// True where the word begins with NTLM, in the frame of Negotiate or as it is. `[MS-NLMP] 2.2.1.1`
fn is_ntlm(word: &[u8]) -> bool {
    memchr::memmem::find(word, b"NTLMSSP\0\x01").is_some_and(|at| at < NTLM_BEGINS_MAX)
}

/// True where the answer to NTLM's first message has the name that gss-ntlmssp puts in for the domain's when winbind
/// has told it none.
fn knows_no_domain(answer: &[u8]) -> bool {
    memchr::memmem::find(answer, NO_DOMAIN).is_some()
}

/// The domain's name among the facts of a challenge: kind 2, its length, `WORKSTATION`. `[MS-NLMP] 2.2.2.1`
const NO_DOMAIN: &[u8] = b"\x02\0\x16\0W\0O\0R\0K\0S\0T\0A\0T\0I\0O\0N\0";

/// The flag of a context whose client has bound its proof, and rightly. MIT krb5's `GSS_C_CHANNEL_BOUND_FLAG`
const CHANNEL_BOUND: u32 = 2048;

/// Bytes of the frame in front of NTLM's first message.
const NTLM_BEGINS_MAX: usize = 256;

/// Words that wait for a thread: some tenths of a second of work.
const WAITING_MAX: usize = 1024;

#[cfg(test)]
mod tests;
