//! CPU time of a task: the thread's CPU clock around every poll.
//!
//! The clock is a system call of about 0.15 µs and counts only what this thread spent on a core: being
//! preempted is not charged, as it would be with a wall clock or a cycle counter. A request's total costs
//! one reading per poll. Where its time went costs one more per change of phase, so only every so many
//! requests are looked at that closely.

use super::phase::{Phase, Times};
use pin_project_lite::pin_project;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Nanoseconds this thread has spent on a core.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

/// Nanoseconds all threads of this process have spent on a core, those that have ended included.
pub fn process_cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let (seconds, nanoseconds) = (
        u64::try_from(now.tv_sec).unwrap_or(0),
        u64::try_from(now.tv_nsec).unwrap_or(0),
    );
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// The task that is being polled now, but for its phase.
#[derive(Clone, Copy, Debug, Default)]
struct Running {
    /// The clock where the present stretch begins.
    since: u64,
    spent: Times,
}

impl Running {
    /// Ends the present stretch, which was spent in this phase.
    fn lap(&mut self, phase: Phase, now: u64) {
        // The clock of one thread does not go back; should it, nothing is charged.
        self.spent.add(phase, now.saturating_sub(self.since));
        self.since = self.since.max(now);
    }
}

/// How closely the task that is being polled is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Look {
    /// Not at all.
    #[default]
    Off,
    /// In all: the clock is read where a poll ends.
    Whole,
    /// Phase by phase: the clock is read where the phase changes as well.
    Close,
}

thread_local! {
    // Each by itself: a change of phase, which every request makes several times, writes one byte.
    static PHASE: Cell<Phase> = const { Cell::new(Phase::Idle) };
    static LOOK: Cell<Look> = const { Cell::new(Look::Off) };
    static RUNNING: Cell<Running> = const { Cell::new(Running { since: 0, spent: Times::ZERO }) };
    /// The clock when the last metered poll of this thread ended; 0 before the first.
    static LAST_END: Cell<u64> = const { Cell::new(0) };
    /// The clock as a settlement within this poll read it; 0 where none did.
    static READ: Cell<u64> = const { Cell::new(0) };
}

/// Ends the present stretch.
fn lap(now: u64) -> Running {
    let mut running = RUNNING.get();
    running.lap(PHASE.get(), now);
    RUNNING.set(running);
    running
}

/// The task that is being polled goes into another phase. Reads the clock only where the task is looked
/// at closely; elsewhere the time up to now goes to the phase that is the present one when it is read.
pub fn enter(phase: Phase) {
    if LOOK.get() == Look::Close {
        lap(thread_cpu_ns());
    }
    PHASE.set(phase);
}

/// What was spent since the clock was last read belongs to this phase, as does what comes.
pub fn belongs_to(phase: Phase) {
    PHASE.set(phase);
}

/// Whether changes of phase read the clock from now on.
pub fn look_closely(is_close: bool) {
    if LOOK.get() != Look::Off {
        LOOK.set(if is_close { Look::Close } else { Look::Whole });
    }
}

/// Charges the task that is being polled for work that another thread did for it.
pub fn charge(phase: Phase, nanoseconds: u64) {
    if LOOK.get() != Look::Off {
        let mut running = RUNNING.get();
        running.spent.add(phase, nanoseconds);
        RUNNING.set(running);
    }
}

/// Takes what the task that is being polled has spent since this was last done; all zero where it is not
/// metered. One clock read.
pub fn settle() -> Times {
    if LOOK.get() == Look::Off {
        return Times::ZERO;
    }
    let now = thread_cpu_ns();
    let spent = lap(now).spent;
    RUNNING.set(Running {
        since: now,
        spent: Times::ZERO,
    });
    READ.set(now);
    spent
}

/// Nanoseconds a request has spent since the last settlement, without settling. One clock read.
pub fn glance() -> u64 {
    match LOOK.get() {
        Look::Off => 0,
        Look::Whole | Look::Close => lap(thread_cpu_ns()).spent.of_request(),
    }
}

pin_project! {
    /// Meters a future. One clock read per poll: it begins where the last metered poll of its thread
    /// ended, so that what the thread did in between (the scheduler, the look for ready sockets) is
    /// charged to whom it was done for.
    #[derive(Debug)]
    pub struct Metered<F> {
        #[pin]
        inner: F,
        look: Look,
        phase: Phase,
        spent: Times,
    }
}

impl<F> Metered<F> {
    /// Starts at zero, in this phase. `is_on`: no clock is read otherwise.
    pub fn new(inner: F, phase: Phase, is_on: bool) -> Self {
        Self {
            inner,
            look: if is_on { Look::Whole } else { Look::Off },
            phase,
            spent: Times::ZERO,
        }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if *this.look == Look::Off {
            return this.inner.poll(cx);
        }
        let began = match LAST_END.get() {
            0 => thread_cpu_ns(),
            last_end => last_end,
        };
        // A metered task polled inside another one's poll takes over for as long as it lasts.
        let outer = (LOOK.replace(*this.look), PHASE.replace(*this.phase));
        let outer_running = RUNNING.replace(Running {
            since: began,
            spent: *this.spent,
        });
        let outcome = this.inner.poll(cx);
        // A bill that was settled in this poll has read the clock: what little came after it is charged
        // to the next poll, and a second reading is saved.
        let ended = match READ.replace(0) {
            0 => thread_cpu_ns(),
            read => read,
        };
        *this.spent = lap(ended).spent;
        (*this.look, *this.phase) = (LOOK.replace(outer.0), PHASE.replace(outer.1));
        RUNNING.set(outer_running);
        LAST_END.set(ended);
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

    fn roughly(spent: u64, milliseconds: u64) {
        let range = milliseconds * 1_000_000..(milliseconds + 10) * 1_000_000;
        assert!(range.contains(&spent), "{spent} ns for {milliseconds} ms");
    }

    #[tokio::test]
    async fn polls_are_summed_and_waiting_is_free() {
        let life = async {
            burn(2_000_000);
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            burn(1_000_000);
            settle()
        };
        let spent = Metered::new(life, Phase::Head, true).await;

        roughly(spent.of_request(), 3);
    }

    #[tokio::test]
    async fn a_close_look_tells_where_the_time_went() {
        let life = async {
            look_closely(true);
            burn(20_000_000);
            enter(Phase::Auth);
            burn(40_000_000);
            tokio::task::yield_now().await;
            burn(1_000_000);
            enter(Phase::Idle);
            burn(60_000_000);
            settle()
        };
        let spent = Metered::new(life, Phase::Head, true).await;

        roughly(spent.of(Phase::Head), 20);
        roughly(spent.of(Phase::Auth), 41);
        roughly(spent.of(Phase::Idle), 60);
        roughly(spent.of_request(), 61);
    }

    #[tokio::test]
    async fn without_one_the_total_is_the_same() {
        let life = async {
            burn(2_000_000);
            enter(Phase::Auth);
            tokio::task::yield_now().await;
            burn(1_000_000);
            enter(Phase::Relay);
            settle()
        };
        let spent = Metered::new(life, Phase::Head, true).await;

        roughly(spent.of_request(), 3);
        assert_eq!(spent.of(Phase::Head), 0);
    }

    #[tokio::test]
    async fn what_is_settled_is_not_settled_again() {
        let life = async {
            burn(2_000_000);
            let first = settle();
            belongs_to(Phase::Idle);
            tokio::task::yield_now().await;
            (first, settle())
        };
        let (first, second) = Metered::new(life, Phase::Relay, true).await;

        roughly(first.of(Phase::Relay), 2);
        assert_eq!(second.of(Phase::Relay), 0);
    }

    #[tokio::test]
    async fn a_task_whose_meter_is_off_is_charged_nothing() {
        let life = async {
            burn(1_000_000);
            enter(Phase::Auth);
            settle()
        };
        assert_eq!(
            Metered::new(life, Phase::Head, false).await,
            Times::default()
        );
        assert_eq!(settle(), Times::default());
    }

    #[tokio::test]
    async fn a_glance_leaves_what_it_saw_on_the_account() {
        let life = async {
            burn(10_000_000);
            let seen = glance();
            burn(10_000_000);
            tokio::task::yield_now().await;
            (seen, settle())
        };
        let (seen, spent) = Metered::new(life, Phase::Head, true).await;

        roughly(seen, 10);
        roughly(spent.of_request(), 20);
    }

    #[test]
    fn a_clock_that_goes_back_charges_nothing() {
        let mut running = Running {
            since: 1000,
            ..Running::default()
        };
        running.lap(Phase::Idle, 400);
        running.lap(Phase::Idle, 1500);
        assert_eq!(running.spent.of(Phase::Idle), 500);
    }
}
