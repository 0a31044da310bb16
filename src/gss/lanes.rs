//! Threads for work with tickets: who waits for a KDC keeps nobody waiting who needs none, or another.
//!
//! A thread that waits for a KDC cannot be called back. The library gives up by itself, after half a minute.

use super::ticket::TicketError;
use moka::sync::Cache;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The threads of one account.
pub(super) struct Lanes {
    /// For work whose tickets are here.
    quick: Arc<Semaphore>,
    /// For what asks a KDC, by the realm of the user.
    asking: Cache<String, Arc<Semaphore>>,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            quick: Arc::new(Semaphore::new(THREADS)),
            asking: Cache::new(REALMS_MAX),
        }
    }

    /// A thread for work that takes no KDC.
    pub(super) async fn quick(&self) -> Result<OwnedSemaphorePermit, TicketError> {
        permit(Arc::clone(&self.quick)).await
    }

    /// A thread to ask the KDC of this realm.
    pub(super) async fn asking(&self, realm: &str) -> Result<OwnedSemaphorePermit, TicketError> {
        let lane = || Arc::new(Semaphore::new(THREADS));
        permit(self.asking.get_with_by_ref(realm, lane)).await
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lanes(…)")
    }
}

async fn permit(lane: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, TicketError> {
    let permit = lane.acquire_owned().await;
    permit.map_err(|_closed| TicketError::Unavailable("closing".into()))
}

/// Threads of one lane at once.
const THREADS: usize = 4;
/// Realms with a lane of their own. A site has a few; of more, those who asked longest ago begin anew.
const REALMS_MAX: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_one_realm_takes_no_thread_of_another_or_of_those_who_wait_for_none() {
        let lanes = Lanes::new();
        let now = async |realm| {
            let soon = Duration::from_secs(1);
            let permit = tokio::time::timeout(soon, lanes.asking(realm)).await;
            permit.ok().map(Result::unwrap)
        };
        let mut waiting = Vec::new();

        for _ in 0..THREADS {
            waiting.push(now("SILENT.TEST").await.unwrap());
        }

        assert!(now("SILENT.TEST").await.is_none());
        assert!(now("CONTOSO.TEST").await.is_some());
        assert!(lanes.quick().await.is_ok());
        drop(waiting);
        assert!(now("SILENT.TEST").await.is_some());
    }
}
