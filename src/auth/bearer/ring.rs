//! The keys of one identity provider as they are now, and how tokens ask for newer ones.
//!
//! Upkeep alone fetches and puts keys; tokens only ask. Good keys are kept for as long as no better ones
//! come: a provider that is down changes nothing for those who have a key it is known by.

use super::keys::{Key, KeySetProblem, Keys};
use crate::auth::Denied;
use crate::config::settings::{KeyPlace, KeySource};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// The keys of one identity provider. One as long as the settings of its source stay the same.
pub struct KeyRing {
    source: KeySource,
    keys: ArcSwap<Keys>,
    /// Changes with the keys.
    serial: AtomicU64,
    asks: Mutex<Asks>,
    /// Wakes whoever fetches.
    wanted: Notify,
    /// Counts fetches that have ended.
    ended: watch::Sender<u64>,
    waiting: Arc<Semaphore>,
}

#[derive(Default)]
struct Asks {
    last: Option<Instant>,
    is_under_way: bool,
    has_failed: bool,
}

/// Why a key cannot be had.
#[derive(Debug)]
pub(super) enum Missing {
    /// The provider was asked a moment ago and has no such key.
    Unknown,
    /// Nobody can tell at the moment.
    Unreachable(&'static str),
    /// It is being fetched: wait, and look again.
    Fetching(Wait),
}

/// A place among those who wait for a fetch to end.
pub(super) struct Wait {
    ended: watch::Receiver<u64>,
    _place: OwnedSemaphorePermit,
}

/// A fetch under way; ends when dropped, and has failed unless it is told otherwise.
#[derive(Debug)]
pub struct Fetch<'a> {
    ring: &'a KeyRing,
    is_good: bool,
}

/// What came of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// How many keys there are.
    pub keys: usize,
    /// They are not the ones there were.
    pub is_new: bool,
}

impl KeyRing {
    /// Without keys yet, unless they are in a file.
    pub(super) fn new(source: &KeySource) -> Result<Self, KeySetProblem> {
        let keys = match &source.place {
            KeyPlace::File { text, .. } => Keys::read(text, &Keys::default())?,
            _ => Keys::default(),
        };
        Ok(Self {
            source: source.clone(),
            keys: ArcSwap::from_pointee(keys),
            serial: AtomicU64::new(super::serial()),
            asks: Mutex::default(),
            wanted: Notify::new(),
            ended: watch::channel(0).0,
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        })
    }

    /// Where the keys come from.
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.keys.load().len()
    }

    /// Waits until a token was seen whose key is missing. For the one who fetches.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Wakes the one who fetches, whatever was asked before.
    #[cfg(test)]
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Begins to fetch. For the one who fetches; tokens with unknown keys wait until it ends.
    pub fn fetch(&self) -> Fetch<'_> {
        self.asks.lock().is_under_way = true;
        Fetch {
            ring: self,
            is_good: false,
        }
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }

    pub(super) fn has(&self, serial: u64) -> bool {
        self.keys.load().has(serial)
    }

    pub(super) fn find(&self, name: Option<&str>) -> Option<Arc<Key>> {
        self.keys.load().find(name).cloned()
    }

    /// Asks for a key that is not here. Whoever sends tokens with made-up keys makes the provider be
    /// asked once in [`ASK_EVERY`], and no oftener.
    pub(super) fn ask(&self, now: Instant) -> Missing {
        if matches!(self.source.place, KeyPlace::File { .. }) {
            return Missing::Unknown;
        }
        let mut asks = self.asks.lock();
        let may_ask = asks
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= ASK_EVERY);
        if !asks.is_under_way {
            if !may_ask {
                return match asks.has_failed {
                    true => Missing::Unreachable(UNREACHABLE),
                    false => Missing::Unknown,
                };
            }
            asks.last = Some(now);
            asks.is_under_way = true;
            self.wanted.notify_one();
        }
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else {
            return Missing::Unreachable("too many tokens wait for the keys of their issuer");
        };
        Missing::Fetching(Wait {
            ended: self.ended.subscribe(),
            _place: place,
        })
    }

    /// What is said of a key that is still missing after a fetch.
    pub(super) fn after_fetch(&self) -> Missing {
        match self.asks.lock().has_failed {
            true => Missing::Unreachable(UNREACHABLE),
            false => Missing::Unknown,
        }
    }
}

impl Wait {
    /// Waits until the fetch ends, for [`PATIENCE`] at most.
    pub(super) async fn end(&self) -> Result<(), Denied> {
        let mut ended = self.ended.clone();
        match tokio::time::timeout(PATIENCE, ended.changed()).await {
            // The sender lives in the ring, which lives as long as its tokens are looked at.
            Ok(_changed) => Ok(()),
            Err(_elapsed) => Err(Denied::Busy(UNREACHABLE)),
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wait")
    }
}

impl Fetch<'_> {
    /// Takes the key set over. What was believed by keys that are gone is not believed any more.
    ///
    /// # Errors
    /// It is of no use; the keys stay as they are.
    pub fn put(mut self, document: &[u8]) -> Result<Put, KeySetProblem> {
        let ring = self.ring;
        let earlier = ring.keys.load_full();
        let keys = Keys::read(document, &earlier)?;
        let put = Put {
            keys: keys.len(),
            is_new: !keys.is_like(&earlier),
        };
        if put.is_new {
            ring.keys.store(Arc::new(keys));
            ring.serial.store(super::serial(), Ordering::Release);
        }
        self.is_good = true;
        Ok(put)
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        let mut asks = self.ring.asks.lock();
        asks.is_under_way = false;
        asks.has_failed = !self.is_good;
        drop(asks);
        self.ring.ended.send_modify(|count| *count += 1);
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("issuer", &self.source.issuer)
            .field("keys", &self.keys.load())
            .finish_non_exhaustive()
    }
}

const UNREACHABLE: &str = "the keys of the token's issuer cannot be fetched";

/// Tokens make a provider be asked this often at most.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(30);

/// How long a token waits for its key.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Tokens that wait for one provider at once.
const WAITING_MAX: usize = 64;
