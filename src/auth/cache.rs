//! What is remembered of credentials: which were good, which were not, both only by keyed digest.

use super::binding::ChannelBinding;
use super::certificate::Holding;
use super::dialogue::Bond;
use super::method::{Grounds, Method, Proven};
use super::people::{People, Standing};
use super::{Denied, Identity};
use crate::digested::ByOwnBytes;
use aws_lc_rs::hmac;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use siphasher::sip128::SipHasher24;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use subtle::ConstantTimeEq;

/// Good and bad credentials of late. Bounded; outlives a reload.
pub(super) struct Beliefs {
    key: hmac::Key,
    memo_key: [u8; 16],
    good: Cache<Digest, Arc<Belief>, ByOwnBytes>,
    bad: Cache<Digest, Disbelief, ByOwnBytes>,
    /// Those that were right within [`VOUCHED_FOR`] and that the lockout guard counts.
    vouched: Cache<Digest, (), ByOwnBytes>,
    people: Arc<People>,
    believed_for: Duration,
    disbelieved_for: Duration,
}

impl Beliefs {
    /// Remembers `capacity` good and as many bad credentials, the least recently used making room:
    /// a new one always gets in, or a full cache would hash every request of a newcomer.
    ///
    /// `people`: those of the memory before this one, where there was one. The key is new each time, and so nothing in memory lets a password be guessed elsewhere.
    pub(super) fn new(
        capacity: usize,
        believed_for: Duration,
        disbelieved_for: Duration,
        people: Arc<People>,
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let mut memo_key = [0; 16];
        aws_lc_rs::rand::fill(&mut memo_key)?;
        let capacity = u64::try_from(capacity).unwrap_or(u64::MAX);
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &random)?,
            memo_key,
            good: cache(capacity, believed_for),
            bad: cache(capacity, disbelieved_for),
            vouched: cache(capacity, VOUCHED_FOR),
            people,
            believed_for,
            disbelieved_for,
        })
    }

    /// The digest of an `Authorization` value: scheme and credential in one, as they were sent.
    pub(super) fn digest(&self, value: &[u8]) -> Digest {
        let mut digest = [0; 32];
        let tag = hmac::sign(&self.key, value);
        digest
            .iter_mut()
            .zip(tag.as_ref())
            .for_each(|(to, from)| *to = *from);
        Digest(digest)
    }

    /// The mark by which one connection knows its last good credential again. A tenth of a digest's
    /// cost; it never leaves the connection, and 128 keyed bits do for a comparison of two values.
    pub(super) fn mark(&self, value: &[u8]) -> Mark {
        Mark(
            SipHasher24::new_with_key(&self.memo_key)
                .hash(value)
                .as_bytes(),
        )
    }

    /// The number of times everything was forgotten.
    pub(super) fn epoch(&self) -> u64 {
        self.people.epoch()
    }

    /// Forgets everything, and makes connections forget.
    pub(super) fn forget_all(&self) {
        self.people.revoke_all();
        self.good.invalidate_all();
        self.bad.invalidate_all();
        self.vouched.invalidate_all();
    }

    /// True for a credential that was right within a day, whatever is believed of it now.
    pub(super) fn is_vouched(&self, digest: &Digest) -> bool {
        self.vouched.contains_key(digest)
    }

    /// A credential was right a moment ago.
    pub(super) fn vouch(&self, digest: Digest) {
        self.vouched.insert(digest, ());
    }

    /// It is not right any more.
    pub(super) fn unvouch(&self, digest: &Digest) {
        self.vouched.invalidate(digest);
    }

    /// Who may be revoked.
    pub(super) fn people(&self) -> &Arc<People> {
        &self.people
    }

    /// A belief that stands now, in the eyes of this method.
    pub(super) fn good(
        &self,
        digest: &Digest,
        method: &dyn Method,
        now: Instant,
    ) -> Option<Arc<Belief>> {
        let belief = self.good.get(digest)?;
        let stands = belief.stands(self.epoch(), now) && belief.rests_on(method);
        if !stands {
            self.good.invalidate(digest);
        }
        stands.then_some(belief)
    }

    /// Why this method refused the credential a short while ago.
    pub(super) fn bad(&self, digest: &Digest, method: &dyn Method, now: Instant) -> Option<Denied> {
        let disbelief = self.bad.get(digest).filter(|disbelief| {
            now < disbelief.until
                && disbelief.epoch == self.epoch()
                && disbelief.serial == method.serial()
        })?;
        Some(disbelief.denied)
    }

    /// Remembers from `asked_at` on that the credential proved somebody, for no longer than it does.
    pub(super) fn believe(
        &self,
        digest: Digest,
        identity: Arc<Identity>,
        proven: Proven,
        epoch: u64,
        asked_at: (Instant, SystemTime),
    ) {
        let (instant, wall) = asked_at;
        let lifetime = proven.expires.map_or(self.believed_for, |expires| {
            let left = expires.duration_since(wall).unwrap_or_default();
            left.min(self.believed_for)
        });
        let belief = Belief {
            identity,
            standing: proven.standing,
            grounds: proven.grounds,
            epoch,
            until: after(instant, lifetime),
        };
        self.bad.invalidate(&digest);
        self.good.insert(digest, Arc::new(belief));
    }

    /// Remembers why the credential proved nothing at `asked_at`, in the eyes of the method as it was
    /// when it had this serial.
    pub(super) fn disbelieve(
        &self,
        digest: Digest,
        denied: Denied,
        serial: u64,
        epoch: u64,
        asked_at: Instant,
    ) {
        let disbelief = Disbelief {
            denied,
            until: after(asked_at, self.disbelieved_for),
            epoch,
            serial,
        };
        self.bad.insert(digest, disbelief);
    }
}

impl fmt::Debug for Beliefs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beliefs")
            .field("good", &self.good.entry_count())
            .field("bad", &self.bad.entry_count())
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}

/// That a credential proves an identity, until something speaks against it.
pub(super) struct Belief {
    pub(super) identity: Arc<Identity>,
    standing: Standing,
    grounds: Grounds,
    epoch: u64,
    until: Instant,
}

impl Belief {
    /// Not expired and not revoked.
    pub(super) fn stands(&self, epoch: u64, now: Instant) -> bool {
        now < self.until && self.epoch == epoch && self.standing.stands()
    }

    /// What proved it still proves it: no account, rule or key was changed under it.
    pub(super) fn rests_on(&self, method: &dyn Method) -> bool {
        method.upholds(&self.identity.user, self.grounds)
    }
}

impl fmt::Debug for Belief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Belief({}, …)", self.identity.user)
    }
}

#[derive(Clone, Copy)]
struct Disbelief {
    denied: Denied,
    until: Instant,
    epoch: u64,
    serial: u64,
}

/// The last good credential of one client connection. Makes every request but the first of a
/// connection cost one mark and one comparison.
///
/// Keep one per client connection and hand it to [`super::Authenticator::step`]; a memo means nothing
/// to another connection, and does no harm there.
#[derive(Debug, Default)]
pub struct Memo {
    believed: Option<(Mark, Arc<Belief>)>,
    /// The method's serial when the belief was last found to rest on something.
    serial: u64,
    /// Whose the connection's certificate is.
    holding: Option<Box<Holding>>,
    /// What conversations have left behind; most connections have none.
    bond: Option<Box<Bond>>,
    /// `None` where the connection cannot be proven as a whole.
    binding: Option<ChannelBinding>,
}

impl Memo {
    /// For a connection whose TLS ends here, so that it can be proven as a whole. `binding`: the certificate that the
    /// client was shown.
    pub fn over_tls(binding: Option<ChannelBinding>) -> Self {
        Self {
            binding: Some(binding.unwrap_or_else(ChannelBinding::to_nothing)),
            ..Self::default()
        }
    }

    /// Header lines of the scheme for the answer to this request: the next word of a conversation, or its last.
    pub fn answer(&self) -> Option<&str> {
        self.bond.as_ref()?.answer()
    }

    /// Those lines went with an answer.
    pub fn forget_answer(&mut self) {
        if let Some(bond) = &mut self.bond {
            bond.forget_answer();
        }
    }

    /// True where connections may be proven: see [`Self::over_tls`].
    pub fn is_bindable(&self) -> bool {
        self.binding.is_some()
    }

    pub(super) fn binding(&self) -> Option<&ChannelBinding> {
        self.binding.as_ref().filter(|binding| binding.is_some())
    }

    pub(super) fn bond(&mut self) -> &mut Bond {
        self.bond.get_or_insert_default()
    }

    pub(super) fn known_bond(&self) -> Option<&Bond> {
        self.bond.as_deref()
    }

    /// Somebody else may be speaking now.
    pub(super) fn part(&mut self) {
        self.bond = None;
    }

    /// The remembered belief, if this is its credential and it stands.
    pub(super) fn recall(
        &mut self,
        mark: &Mark,
        method: &dyn Method,
        epoch: u64,
        now: Instant,
    ) -> Option<&Arc<Identity>> {
        let (remembered, belief) = self.believed.as_ref()?;
        if !remembered.matches(mark) || !belief.stands(epoch, now) {
            return None;
        }
        let serial = method.serial();
        if self.serial != serial {
            if !belief.rests_on(method) {
                return None;
            }
            self.serial = serial;
        }
        Some(&belief.identity)
    }

    /// Whose the connection's certificate is, unless something has changed since.
    pub(super) fn holding(&self, when: [u64; 3], now: SystemTime) -> Option<&Arc<Identity>> {
        let holding = self.holding.as_deref()?;
        holding.stands(when, now).then_some(&holding.identity)
    }

    /// Remembers whose the connection's certificate is.
    pub(super) fn hold(&mut self, holding: Holding) {
        self.holding = Some(Box::new(holding));
    }

    /// Remembers a belief that was found to stand when the method had this serial.
    pub(super) fn keep(&mut self, mark: Mark, belief: Arc<Belief>, serial: u64) {
        self.believed = Some((mark, belief));
        self.serial = serial;
    }
}

/// A keyed digest of a credential: HMAC-SHA-256 under a key nobody outside this process knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

/// SipHash-2-4 of a credential under a key nobody outside this process knows.
#[derive(Clone, Copy)]
pub(super) struct Mark([u8; 16]);

impl Mark {
    /// A number of these bytes, as random as they are.
    pub(super) fn lot(&self) -> u64 {
        let first = self.0.first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(first)
    }

    pub(super) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark(…)")
    }
}

impl Digest {
    /// A digest with this number.
    #[cfg(test)]
    pub(super) fn of_lot(lot: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&lot.to_le_bytes());
        Self(bytes)
    }

    /// A number of these bytes, as random as they are.
    pub(super) fn lot(&self) -> u64 {
        let first = self.0.first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(first)
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.lot());
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// The cache's own clock only frees memory; what counts is the `until` inside, against the caller's.
fn cache<V: Clone + Send + Sync + 'static>(
    capacity: u64,
    lifetime: Duration,
) -> Cache<Digest, V, ByOwnBytes> {
    Cache::builder()
        .max_capacity(capacity)
        .time_to_live(lifetime.min(LIFETIME_MAX))
        .eviction_policy(EvictionPolicy::lru())
        .build_with_hasher(ByOwnBytes::default())
}

fn after(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait.min(LIFETIME_MAX)).unwrap_or(start)
}

/// A credential that was right is asked about even where others of its user are not.
const VOUCHED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Nothing is believed longer; keeps the arithmetic of clocks within their range.
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
