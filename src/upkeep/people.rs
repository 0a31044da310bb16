//! Keeps what is remembered of the directory service true: looks for changes, and ends what was verified of
//! whom they concern.

use crate::auth::Authenticator;
use crate::ids::Generation;
use crate::ldap::{Book, Changes, Departed};
use crate::runtime::Runtime;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// Keeps the book of the configuration, whichever that is, for ever.
pub(super) async fn directory(runtime: Arc<Runtime>, mut generation: watch::Receiver<Generation>) {
    loop {
        let book = runtime.snapshot().book.clone();
        let is_another = |now: &Option<Arc<Book>>| match (&book, now) {
            (Some(book), Some(now)) => !Arc::ptr_eq(book, now),
            (None, None) => false,
            _ => true,
        };
        let keeping = async {
            match &book {
                Some(book) => keep(&runtime, book).await,
                None => std::future::pending().await,
            }
        };
        let replaced = async {
            while generation.changed().await.is_ok() {
                if is_another(&runtime.snapshot().book) {
                    return true;
                }
            }
            false
        };
        tokio::select! {
            () = keeping => return,
            is_replaced = replaced => if !is_replaced { return },
        }
    }
}

async fn keep(runtime: &Arc<Runtime>, book: &Arc<Book>) {
    let meters = runtime.metrics.ldap();
    book.client().live_on(Handle::current(), meters.clone());
    let refresh = book.settings().refresh;
    let looking = async {
        let (mut changes, mut has_failed) = (Changes::default(), false);
        loop {
            match changes.look(book).await {
                Ok(changed) => {
                    if has_failed {
                        info!(changed, "changes of the directory are seen again");
                    } else if changed > 0 {
                        debug!(changed, "entries of the directory changed");
                    }
                    has_failed = false;
                }
                Err(trouble) if has_failed => {
                    debug!(%trouble, "changes of the directory still not seen");
                }
                Err(trouble) => {
                    warn!(%trouble, "changes of the directory are not seen, what is remembered of it stays");
                    has_failed = true;
                }
            }
            meters.set_entries(book.len());
            let pause = if has_failed {
                refresh.min(RETRY)
            } else {
                refresh
            };
            tokio::time::sleep(pause.mul_f64(fastrand::f64().mul_add(0.2, 0.8))).await;
        }
    };
    let leaving = async {
        loop {
            let departed = book.departures().await;
            let auth = Arc::clone(&runtime.snapshot().auth);
            for _ in 0..revoke(&auth, &departed) {
                meters.revoked();
            }
        }
    };
    tokio::select! {
        () = looking => {}
        () = leaving => {}
    }
}

/// How many users it concerned of whom something was believed.
fn revoke(auth: &Authenticator, departed: &Departed) -> usize {
    if departed.everybody {
        auth.revoke_all();
        return 1;
    }
    let revoked = departed.users.iter().filter(|user| auth.revoke(user));
    revoked.count()
}

/// A look that failed is repeated after this at the latest.
const RETRY: Duration = Duration::from_secs(5);
