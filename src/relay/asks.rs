//! What the outside asks of a connection, heard without a cost per request.

use crate::runtime::Ask;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::watch;

type Changed = Pin<Box<dyn Future<Output = watch::Receiver<Ask>> + Send>>;

/// One registration for the whole life of a connection: registering per request would cost a lock and
/// a list entry each.
pub(crate) struct Asks {
    changed: Changed,
    now: Ask,
}

impl std::fmt::Debug for Asks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asks")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Asks {
    pub(crate) fn new(mut receiver: watch::Receiver<Ask>) -> Self {
        let now = *receiver.borrow_and_update();
        Self {
            changed: wait(receiver),
            now,
        }
    }

    /// The latest that was heard.
    pub(crate) fn now(&self) -> Ask {
        self.now
    }

    /// Ready when something new is asked.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ask> {
        let mut receiver = ready!(self.changed.as_mut().poll(cx));
        self.now = *receiver.borrow_and_update();
        self.changed = wait(receiver);
        Poll::Ready(self.now)
    }
}

fn wait(mut receiver: watch::Receiver<Ask>) -> Changed {
    Box::pin(async move {
        if receiver.changed().await.is_err() {
            // The sender lives as long as the process; without one nothing will ever be asked.
            std::future::pending::<()>().await;
        }
        receiver
    })
}
