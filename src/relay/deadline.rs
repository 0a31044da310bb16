//! Deadlines that cost nothing while things go well.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that is moved with every request and hardly ever met. Moving it later only stores it;
/// the timer is touched when a connection has waited out its old deadline.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(crate) fn new(at: Instant) -> Self {
        Self {
            at,
            sleep: Box::pin(sleep_until(at)),
        }
    }

    /// When it is.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// Moves it.
    pub(crate) fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
    }

    /// Ready once it has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if self.sleep.deadline() >= self.at {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_is_met_where_it_was_last_moved_to() {
        #[expect(clippy::disallowed_methods, reason = "the clock is paused")]
        let start = Instant::now();
        let mut late = Deadline::new(start + Duration::from_secs(10));
        late.set(start + Duration::from_secs(30));
        poll_fn(|cx| late.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 30);

        late.set(start + Duration::from_secs(90));
        late.set(start + Duration::from_secs(40));
        poll_fn(|cx| late.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 40);
    }
}
