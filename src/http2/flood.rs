//! How much of what is no request a client may send.
//!
//! Each frame costs us a look, and some cost an answer; a stream that is opened and given up at once may
//! cost a mailbox server a request. Honest clients do a little of both, so what counts is how much for how
//! much work, with something on account for bursts.

use std::time::Instant;

/// Fills with what a client does to us, leaks with time and with work done for it.
#[derive(Debug)]
pub(super) struct Bucket {
    level: u32,
    room: u32,
    leaks_per_second: u32,
    leaked: Option<Instant>,
}

impl Bucket {
    /// An empty one.
    pub(super) const fn new(room: u32, leaks_per_second: u32) -> Self {
        Self {
            level: 0,
            room,
            leaks_per_second,
            leaked: None,
        }
    }

    /// Adds to it. False: it runs over.
    pub(super) fn fill(&mut self, by: u32, now: Instant) -> bool {
        let since = *self.leaked.get_or_insert(now);
        let seconds = now.saturating_duration_since(since).as_secs();
        if seconds > 0 {
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.work(seconds.saturating_mul(self.leaks_per_second));
            self.leaked = Some(now);
        }
        self.level = self.level.saturating_add(by);
        self.level <= self.room
    }

    /// Work was done for the client: so much is forgiven.
    pub(super) fn work(&mut self, by: u32) {
        self.level = self.level.saturating_sub(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_fits_and_a_flood_does_not() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut bucket = Bucket::new(100, 10);
        assert!((0..100).all(|_| bucket.fill(1, now)));
        assert!(!bucket.fill(1, now));
    }

    #[test]
    fn time_and_work_make_room() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut bucket = Bucket::new(100, 10);
        assert!(bucket.fill(100, now));
        bucket.work(5);
        assert!(bucket.fill(5, now));
        let later = now + Duration::from_secs(3);
        assert!(bucket.fill(30, later));
        assert!(!bucket.fill(1, later));
    }

    #[test]
    fn what_comes_slowly_for_days_never_runs_over() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut bucket = Bucket::new(100, 1);
        assert!((0..100_000).all(|second| bucket.fill(1, now + Duration::from_secs(second))));
    }
}
