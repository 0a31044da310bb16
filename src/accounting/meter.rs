//! CPU time of a task: the thread's CPU clock around every poll.
//!
//! The clock is a system call of about 0.2 µs and counts only what this thread spent on a core: being
//! preempted is not charged, as it would be with a wall clock or a cycle counter.

use pin_project_lite::pin_project;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Nanoseconds this thread has spent on a core.
pub fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (
        u64::try_from(now.tv_sec).unwrap_or(0),
        u64::try_from(now.tv_nsec).unwrap_or(0),
    );
    seconds * 1_000_000_000 + nanoseconds
}

thread_local! {
    /// Of the task being polled now: nanoseconds of its earlier polls, the clock when this poll began.
    static POLL: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
    /// The clock when the last metered poll of this thread ended; 0 before the first.
    static LAST_END: Cell<u64> = const { Cell::new(0) };
    /// The clock as it was last read within a poll; 0 where it was not.
    static READ: Cell<u64> = const { Cell::new(0) };
}

/// Nanoseconds spent so far by the task that is being polled; 0 where it is not metered. One clock read.
pub fn cpu_so_far() -> u64 {
    POLL.get().map_or(0, |(before, began)| {
        let now = thread_cpu_ns();
        READ.set(now);
        before + now.saturating_sub(began)
    })
}

/// The same for a look in the middle of a poll: what comes after it stays with this task.
pub fn glance() -> u64 {
    POLL.get().map_or(0, |(before, began)| {
        before + thread_cpu_ns().saturating_sub(began)
    })
}

pin_project! {
    /// Meters a future. One clock read per poll: it begins where the last metered poll of its thread
    /// ended, so that what the thread did in between (the scheduler, the look for ready sockets) is
    /// charged to whom it was done for.
    #[derive(Debug)]
    pub struct Metered<F> {
        #[pin]
        inner: F,
        spent_ns: u64,
    }
}

impl<F> Metered<F> {
    /// Starts at zero.
    pub fn new(inner: F) -> Self {
        Self { inner, spent_ns: 0 }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let began = match LAST_END.get() {
            0 => thread_cpu_ns(),
            last_end => last_end,
        };
        // A metered task polled inside another one's poll takes over for as long as it lasts.
        let outer = POLL.replace(Some((*this.spent_ns, began)));
        let outcome = this.inner.poll(cx);
        // A bill that was settled in this poll has read the clock: what little came after it is charged
        // to the next poll, and a second reading is saved.
        let ended = match READ.replace(0) {
            0 => thread_cpu_ns(),
            read => read,
        };
        *this.spent_ns += ended.saturating_sub(began);
        LAST_END.set(ended);
        POLL.set(outer);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn(nanoseconds: u64) {
        let began = thread_cpu_ns();
        while thread_cpu_ns() - began < nanoseconds {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn polls_are_summed_and_waiting_is_free() {
        let spent = Metered::new(async {
            burn(2_000_000);
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            burn(1_000_000);
            cpu_so_far()
        })
        .await;

        assert!((3_000_000..13_000_000).contains(&spent), "{spent} ns");
    }

    #[tokio::test]
    async fn a_glance_takes_nothing_from_the_task() {
        let spent = Metered::new(async {
            burn(1_000_000);
            let glance = glance();
            burn(2_000_000);
            tokio::task::yield_now().await;
            (glance, cpu_so_far())
        })
        .await;

        assert!((1_000_000..11_000_000).contains(&spent.0), "{spent:?}");
        assert!(spent.1 >= spent.0 + 2_000_000, "{spent:?}");
    }

    #[test]
    fn outside_a_metered_task_nothing_is_charged() {
        assert_eq!(cpu_so_far(), 0);
    }
}
