//! Proof by words and answers on one connection: Negotiate and NTLM. RFC 4559, `[MS-NTHT]`
//!
//! Such a scheme does not prove requests but the connection: what a client says means something only after what was
//! said before it, and nothing of it is good anywhere else. So nothing of it enters the cache that connections share.
//! Who was proven stays with the connection, in its [`Memo`], and goes with it.

mod guess;
mod open;

pub(super) use guess::{Guess, Guessed, Watch};
pub use open::HandshakeFacts;
pub(super) use open::{Open, Place};

use super::binding::ChannelBinding;
use super::cache::{Beliefs, Mark};
use super::names;
use super::negotiate::Context;
use super::ntlm::Lease;
use super::people::Standing;
use super::verify::Desk;
use super::{Denied, Identity, Memo, Scheme};
use crate::gss::Evidence;
use crate::ids::UserName;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

/// A scheme that proves connections, as the settings shape it.
#[async_trait]
pub(super) trait Dialogue: fmt::Debug + Send + Sync {
    /// Which scheme it is.
    fn scheme(&self) -> Scheme;

    /// The challenge, a whole header line with its line end.
    fn challenge(&self) -> &str;

    /// Changes when what was proven has to be proven anew, because it was proven under other rules.
    fn serial(&self) -> u64;

    /// What follows on a proven connection without a credential is the same user's.
    fn persists(&self) -> bool;

    /// How long a conversation may take from its first word to its last.
    fn patience(&self) -> Duration;

    /// True where the client's word begins a conversation, whatever was said before.
    fn begins(&self, word: &[u8]) -> bool;

    /// What can be guessed by this word; `home` is the mail domain of names without one.
    fn guess(&self, word: &[u8], home: Option<&str>) -> Guess;

    /// Hears the client's next word. Nothing of it runs on this thread for longer than a poll.
    async fn hear(&self, word: Word) -> Heard;
}

/// What a client said.
pub(super) struct Word {
    /// Its token, decoded.
    pub(super) token: Zeroizing<Vec<u8>>,
    /// The conversation it belongs to; `None`: it is the first word of one.
    pub(super) talk: Option<Talk>,
    /// What the client's proof can be bound to on this connection.
    pub(super) binding: Option<ChannelBinding>,
    /// The network it comes from; `None` where many share it.
    pub(super) source: Option<IpAddr>,
    /// Who counts the processor time.
    pub(super) desk: Arc<Desk>,
    /// When it came.
    pub(super) heard_at: Instant,
}

/// A conversation between two words.
pub(super) enum Talk {
    Negotiate(Context),
    Ntlm(Lease),
}

/// What came of a word.
pub(super) enum Heard {
    /// The conversation goes on with this answer.
    More(Talk, Zeroizing<Vec<u8>>),
    /// It proved somebody.
    Proven(Known),
    /// It proved nothing.
    Nothing(Denied),
}

/// Somebody whom a conversation proved.
pub(super) struct Known {
    /// The canonical name.
    pub(super) user: UserName,
    /// How long the proof is good, where it says so.
    pub(super) good_for: Option<Duration>,
    /// The last answer, by which we prove ourselves to the client.
    pub(super) answer: Option<Zeroizing<Vec<u8>>>,
    /// What lets us act for the user, where the site hands on tickets.
    pub(super) evidence: Option<Evidence>,
}

/// The next word of a conversation, on its way to whoever understands it.
#[must_use = "nothing is heard until it runs"]
pub struct Handshake {
    pub(super) dialogue: Arc<dyn Dialogue>,
    pub(super) word: Word,
    /// The place of a conversation that was half done.
    pub(super) place: Option<Place>,
    pub(super) open: Arc<Open>,
    pub(super) watch: Watch,
    pub(super) mark: Mark,
    pub(super) beliefs: Arc<Beliefs>,
    pub(super) epoch: u64,
    pub(super) connection_ttl: Duration,
    pub(super) asked_at: (Instant, SystemTime),
}

/// What became of a handshake.
#[derive(Debug)]
pub enum Shaken {
    /// The client is known; the connection remembers it.
    Proven(Arc<Identity>),
    /// The client must speak again, on this connection. Answer 401 with [`Memo::answer`] alone.
    More,
}

impl Handshake {
    /// The scheme that is spoken.
    pub fn scheme(&self) -> Scheme {
        self.dialogue.scheme()
    }

    /// Hears the word, and lets the connection remember what came of it. Must be awaited inside a tokio runtime, with
    /// the memo that [`super::Authenticator::step`] was asked with.
    ///
    /// # Errors
    /// The word proves nothing, or nobody can tell now. The conversation is over then.
    pub async fn run(self, memo: &mut Memo) -> Result<Shaken, Denied> {
        let (scheme, patience) = (self.dialogue.scheme(), self.dialogue.patience());
        let (watch, mut place) = (self.watch, self.place);
        let guess = self.dialogue.guess(&self.word.token, watch.home.as_deref());
        let is_guess = matches!(guess, Guess::Made(_));
        let watched = match guess {
            Guess::Nothing => None,
            Guess::Begun => {
                watch.look_around()?;
                // Before a helper is lent: whoever waits for one is on the way to be half done.
                place = Some(self.open.enter(watch.source, watch.asked_at)?);
                None
            }
            Guess::Made(guessed) => {
                let desk = &self.word.desk;
                watch.begin(&guessed, desk, scheme, patience).await?
            }
        };
        let heard = self.dialogue.hear(self.word).await;
        // What proves somebody, or is counted as a guess, was gone on with; and a busy site is not the client's fault.
        let is_left = match &heard {
            Heard::More(..) => true,
            Heard::Proven(_) | Heard::Nothing(Denied::Busy(_)) => false,
            Heard::Nothing(_) => !is_guess,
        };
        if !is_left && let Some(place) = place.take() {
            place.ended();
        }
        let bond = memo.bond();
        match heard {
            Heard::Nothing(denied) => {
                // Whatever the domain refuses it may have counted. What nobody could judge it has not.
                if let (Some(watched), Denied::Credentials(_)) = (&watched, denied) {
                    watched.refused(denied);
                }
                Err(denied)
            }
            Heard::More(talk, answer) => {
                let place = match place {
                    Some(place) => place,
                    None => self.open.enter(watch.source, watch.asked_at)?,
                };
                bond.answer = Some(line(scheme, &answer, false));
                bond.half = Some(Half::new(scheme, (talk, place), patience));
                Ok(Shaken::More)
            }
            Heard::Proven(known) => {
                if let Some(watched) = &watched {
                    watched.cleared();
                }
                let (instant, wall) = self.asked_at;
                let good_for = known.good_for.unwrap_or(self.connection_ttl);
                let identity = Arc::new(Identity {
                    evidence: known.evidence,
                    expires: known.good_for.and_then(|time| wall.checked_add(time)),
                    scheme,
                    user: known.user,
                });
                let persists = self.dialogue.persists();
                bond.answer = match &known.answer {
                    Some(answer) => Some(line(scheme, answer, persists)),
                    None => persists.then(|| PERSISTENT.into()),
                };
                bond.proven = Some(Proven {
                    mark: self.mark,
                    standing: self.beliefs.people().standing(&identity.user),
                    identity: Arc::clone(&identity),
                    epoch: self.epoch,
                    until: instant
                        .checked_add(good_for.min(self.connection_ttl))
                        .unwrap_or(instant),
                    serial: self.dialogue.serial(),
                });
                Ok(Shaken::Proven(identity))
            }
        }
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handshake({:?}, …)", self.scheme())
    }
}

/// What conversations have left behind on one connection.
#[derive(Default)]
pub(super) struct Bond {
    /// A conversation that waits for the client's next word.
    half: Option<Half>,
    proven: Option<Proven>,
    /// Header lines that go with the next answer.
    answer: Option<Box<str>>,
}

/// Who was proven on a connection, until something speaks against it.
struct Proven {
    identity: Arc<Identity>,
    /// Of the `Authorization` value that finished the proof: a client may repeat it on its own connection.
    mark: Mark,
    standing: Standing,
    epoch: u64,
    until: Instant,
    serial: u64,
}

impl Bond {
    /// Who was proven here, if that still stands in the eyes of this scheme. `mark`: what is shown, if anything is.
    pub(super) fn recall(
        &self,
        dialogue: &dyn Dialogue,
        mark: Option<&Mark>,
        epoch: u64,
        now: Instant,
    ) -> Option<&Arc<Identity>> {
        let proven = self.proven.as_ref()?;
        let is_shown = match mark {
            Some(mark) => proven.mark.matches(mark),
            None => dialogue.persists(),
        };
        let stands = is_shown
            && proven.identity.scheme == dialogue.scheme()
            && now < proven.until
            && proven.epoch == epoch
            && proven.serial == dialogue.serial()
            && proven.standing.stands();
        stands.then_some(&proven.identity)
    }

    /// The scheme by which somebody was proven here.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        self.proven.as_ref().map(|proven| proven.identity.scheme)
    }

    /// Forgets who was proven, and takes out the conversation that waits for a word of this scheme.
    pub(super) fn begin(&mut self, scheme: Scheme) -> Waiting {
        self.proven = None;
        self.answer = None;
        match self.half.take() {
            Some(half) if half.scheme == scheme => match half.talk.lock().take() {
                Some((talk, place)) => Waiting::For(talk, place),
                None => Waiting::TooLong,
            },
            _ => Waiting::Nobody,
        }
    }

    pub(super) fn answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    pub(super) fn forget_answer(&mut self) {
        self.answer = None;
    }
}

impl fmt::Debug for Bond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.proven.as_ref().map(|proven| &proven.identity.user);
        write!(f, "Bond({user:?}, half: {})", self.half.is_some())
    }
}

/// Whether a connection waits for the next word of a conversation.
pub(super) enum Waiting {
    For(Talk, Place),
    /// It did, and its time is over.
    TooLong,
    Nobody,
}

/// A conversation that waits for the client, not for ever: when its time is over it is dropped, with whatever it
/// holds.
struct Half {
    scheme: Scheme,
    talk: Arc<Mutex<Option<(Talk, Place)>>>,
    timer: AbortHandle,
}

impl Half {
    fn new(scheme: Scheme, talk: (Talk, Place), patience: Duration) -> Self {
        let talk = Arc::new(Mutex::new(Some(talk)));
        let waiting = Arc::clone(&talk);
        let timer = tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            drop(waiting.lock().take());
        });
        Self {
            scheme,
            talk,
            timer: timer.abort_handle(),
        }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// Reads the token behind the scheme word.
pub(super) fn read(token: &[u8]) -> Result<Zeroizing<Vec<u8>>, Denied> {
    // Room for everything from the start: a buffer that grows leaves its old self in memory.
    let room = base64::decoded_len_estimate(token.len());
    if room > TOKEN_BYTES_MAX + 2 {
        return Err(Denied::Credentials("handshake token longer than 64 KiB"));
    }
    let mut clear = Zeroizing::new(Vec::with_capacity(room));
    STANDARD
        .decode_vec(token, &mut clear)
        .map_err(|_place| Denied::Credentials("malformed handshake: not base64"))?;
    Ok(clear)
}

/// Header lines with our word to the client.
fn line(scheme: Scheme, answer: &[u8], persists: bool) -> Box<str> {
    let mut line = format!("WWW-Authenticate: {} ", scheme.word());
    STANDARD.encode_string(answer, &mut line);
    line.push_str("\r\n");
    if persists {
        line.push_str(PERSISTENT);
    }
    line.into()
}

/// Names of users as domain controllers say them, brought into our spelling.
#[derive(Debug)]
pub(super) struct Realms(BTreeMap<String, String>);

impl Realms {
    /// By realm or Windows domain name, the mail domain of its users.
    pub(super) fn new(map: &BTreeMap<String, String>) -> Self {
        let upper = map.iter();
        Self(
            upper
                .map(|(realm, domain)| (realm.to_ascii_uppercase(), domain.clone()))
                .collect(),
        )
    }

    /// The mail domain of this realm's or Windows domain's users, where somebody has said it.
    fn domain(&self, realm: &str) -> Option<&str> {
        let domain = self.0.get(&realm.to_ascii_uppercase());
        domain.map(String::as_str)
    }

    /// The one mail domain there is.
    fn only(&self) -> Option<&str> {
        let mut domains = self.0.values().map(String::as_str);
        let first = domains.next()?;
        domains.all(|domain| domain == first).then_some(first)
    }

    /// The user of a Kerberos principal such as `alice@CONTOSO.TEST`. A realm that is not in the map is its own mail
    /// domain. `None` for what is no user: a name with an escaped character could be read in two ways.
    pub(super) fn of_principal(&self, principal: &str) -> Option<UserName> {
        let (name, realm) = principal.rsplit_once('@')?;
        if name.is_empty() || name.contains(['\\', '@']) || realm.is_empty() {
            return None;
        }
        let domain = self.domain(realm).unwrap_or(realm);
        names::canonical(&format!("{name}@{domain}"), None)
    }

    /// The user of a Windows account such as `CONTOSO\alice`; a domain that is not in the map stays in front of the
    /// name. Some of those who say such names end them with a zero byte.
    pub(super) fn of_account(&self, account: &str) -> Option<UserName> {
        let account = account.trim_end_matches('\0');
        let (domain, name) = account.split_once('\\')?;
        if name.is_empty() || name.contains('\\') {
            return None;
        }
        match self.domain(domain) {
            Some(_) if name.contains('@') => None,
            Some(domain) => names::canonical(&format!("{name}@{domain}"), None),
            None => names::canonical(account, None),
        }
    }
}

/// Clients that authenticate connections need not do it again on this one. `[MS-N2HT]`
const PERSISTENT: &str = "Persistent-Auth: true\r\n";

/// The longest token; Windows allows its own 48,000 bytes, and 65,535 where an administrator raised that.
const TOKEN_BYTES_MAX: usize = 65_536;

/// The longest `Authorization` value with such a token.
pub(super) const VALUE_BYTES_MAX: usize = "Negotiate ".len() + TOKEN_BYTES_MAX.div_ceil(3) * 4;

#[cfg(test)]
mod tests;
