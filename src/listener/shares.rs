//! So much for each source of connections, so that none of them leaves nothing for the others.

use crate::ids::network;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How much of something each source may hold. Knows those that hold or wait for some, and nobody else.
#[derive(Debug)]
pub(super) struct Shares {
    each: usize,
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, Source>>; SHARDS],
}

#[derive(Debug)]
struct Source {
    /// Shares of it, those that wait included.
    shares: usize,
    places: Arc<Semaphore>,
}

/// One place of a source, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: Arc<Shares>,
    source: IpAddr,
    places: Arc<Semaphore>,
    is_held: bool,
}

impl Shares {
    /// `each`: places of one source; at least one.
    pub(super) fn new(each: usize) -> Self {
        Self {
            each: each.clamp(1, Semaphore::MAX_PERMITS),
            hasher: RandomState::new(),
            shards: Default::default(),
        }
    }

    /// A place of this address' source, if it has one left. Costs two short locks and no system call.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let mut share = self.enter(address);
        share.places.try_acquire().ok()?.forget();
        share.is_held = true;
        Some(share)
    }

    /// Waits for one.
    ///
    /// # Errors
    /// None today.
    pub(super) async fn wait(self: &Arc<Self>, address: IpAddr) -> io::Result<Share> {
        let mut share = self.enter(address);
        let place = share.places.acquire().await;
        place.map_err(io::Error::other)?.forget();
        share.is_held = true;
        Ok(share)
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Share {
        let source = network(address);
        let mut shard = self.shard(source).lock();
        let known = shard.entry(source).or_insert_with(|| Source {
            shares: 0,
            places: Arc::new(Semaphore::new(self.each)),
        });
        known.shares += 1;
        Share {
            of: Arc::clone(self),
            source,
            places: Arc::clone(&known.places),
            is_held: false,
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the remainder is below the number of shards"
    )]
    fn shard(&self, source: IpAddr) -> &Mutex<HashMap<IpAddr, Source>> {
        let hash = usize::try_from(self.hasher.hash_one(source) % SHARDS as u64);
        &self.shards[hash.unwrap_or_default() % SHARDS]
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.is_held {
            self.places.add_permits(1);
        }
        let mut shard = self.of.shard(self.source).lock();
        if let Some(known) = shard.get_mut(&self.source) {
            known.shares = known.shares.saturating_sub(1);
            if known.shares == 0 {
                shard.remove(&self.source);
            }
        }
    }
}

/// Workers that come at the same moment seldom wait for each other.
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;
    use std::time::Duration;

    fn known(shares: &Shares) -> usize {
        let shards = shares.shards.iter();
        shards.map(|shard| shard.lock().len()).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_his_share_waits_and_nobody_else_does() {
        let shares = Arc::new(Shares::new(2));
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = shares.wait(one).await.unwrap();
        let _second = shares.wait(one).await.unwrap();

        let third = tokio::time::timeout(Duration::from_secs(60), shares.wait(one)).await;
        assert!(third.is_err());
        let _other = shares.wait(two).await.unwrap();
        drop(first);
        let third = tokio::time::timeout(Duration::from_secs(60), shares.wait(one)).await;

        assert!(third.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_holds_nothing_is_forgotten() {
        let shares = Arc::new(Shares::new(1));
        let of = |host: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        let held = shares.wait(of(1)).await.unwrap();
        // Of the same 64 bits.
        let waited = tokio::time::timeout(Duration::from_secs(60), shares.wait(of(2))).await;
        assert!(waited.is_err());
        assert_eq!(known(&shares), 1);

        drop(held);

        assert_eq!(known(&shares), 0);
    }
}
