//! CPU time of a task: the thread's CPU clock around its polls.
//!
//! The clock is a system call and counts only what this thread spent on a core: being preempted is not
//! charged, as it would be with a wall clock or a cycle counter. It costs 0.15 µs by itself and twice that
//! between other work, which is too much for every poll of every request. So a task is measured for a
//! while and then not ([`look`]): one request in so many is measured in whole and stands for the others,
//! and one in more is looked at phase by phase. Who is measured is drawn by lot before anything is known
//! of the request, so that sums are right on the average whatever the requests are like.
//!
//! What a thread does between two polls (the scheduler, the look for ready sockets) is charged to the poll
//! that follows where both are always measured, else it is on an account of its own: [`take_between`].

use super::phase::{Phase, Times};
use crate::config::settings::CpuSampling;
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
    /// Ends the present stretch, which was spent in this phase, the part in `aside` excepted.
    fn lap(&mut self, phase: Phase, now: u64, aside: u64) {
        // The clock of one thread does not go back; should it, nothing is charged.
        let spent = now.saturating_sub(self.since);
        self.spent.add(phase, spent.saturating_sub(aside));
        self.since = self.since.max(now);
    }
}

/// How the task that is being polled is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What is measured stands for so many like it; 0: nothing is measured.
    stands_for: u32,
    /// Its phases stand for so many; 0: the clock is read where polls begin and end, and not in between.
    closely_for: u32,
}

impl Look {
    /// Nothing is measured.
    pub const AWAY: Self = Self {
        stands_for: 0,
        closely_for: 0,
    };
    /// Everything is measured, and stands for itself alone.
    pub const ALWAYS: Self = Self {
        stands_for: 1,
        closely_for: 0,
    };

    /// For what is rare: each is measured where any are.
    pub fn always(sampling: Option<CpuSampling>) -> Self {
        sampling.map_or(Self::AWAY, |_| Self::ALWAYS)
    }

    /// Draws by lot: one in `every` is measured, and one in `closely_every` is looked at closely, which
    /// is one of those that are measured. A few nanoseconds.
    pub fn draw(sampling: Option<CpuSampling>) -> Self {
        let Some(CpuSampling {
            every,
            closely_every,
        }) = sampling
        else {
            return Self::AWAY;
        };
        let is_drawn = |among: u32| among == 1 || fastrand::u32(..among) == 0;
        if !is_drawn(every.get()) {
            return Self::AWAY;
        }
        let among_those = (closely_every.get() / every).max(1);
        let closely_for = every.get().saturating_mul(among_those);
        Self {
            stands_for: every.get(),
            closely_for: if is_drawn(among_those) {
                closely_for
            } else {
                0
            },
        }
    }

    /// Something is measured.
    pub fn is_on(self) -> bool {
        self.stands_for > 0
    }

    /// The clock is read where the phase changes as well.
    pub fn is_close(self) -> bool {
        self.closely_for > 0
    }

    /// For how many requests this one stands; 0 where it was not measured.
    pub fn stands_for(self) -> u32 {
        self.stands_for
    }

    /// What all of them together are estimated to have spent.
    pub fn scaled(self, nanoseconds: u64) -> u64 {
        nanoseconds.saturating_mul(self.stands_for.into())
    }

    /// The same of a phase.
    pub fn scaled_closely(self, nanoseconds: u64) -> u64 {
        nanoseconds.saturating_mul(self.closely_for.into())
    }
}

/// The end of the last poll of a thread, where that was measured.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    at: u64,
    /// 0: it was not.
    stands_for: u32,
}

thread_local! {
    // Each by itself: a change of phase, which every request makes several times, writes one byte.
    static PHASE: Cell<Phase> = const { Cell::new(Phase::Idle) };
    static LOOK: Cell<Look> = const { Cell::new(Look::AWAY) };
    static RUNNING: Cell<Running> = const { Cell::new(Running { since: 0, spent: Times::ZERO }) };
    static LAST: Cell<Ended> = const { Cell::new(Ended { at: 0, stands_for: 0 }) };
    /// The clock as a settlement within this poll read it; 0 where none did.
    static READ: Cell<u64> = const { Cell::new(0) };
    /// Nanoseconds spent between polls that nobody has been charged for.
    static BETWEEN: Cell<u64> = const { Cell::new(0) };
    /// Nanoseconds that reading the clock takes this thread; 0 before it was tried.
    static READING: Cell<u64> = const { Cell::new(0) };
}

/// Ends the present stretch.
fn lap(now: u64) -> Running {
    let mut running = RUNNING.get();
    running.lap(PHASE.get(), now, set_aside(LOOK.get().stands_for));
    RUNNING.set(running);
    running
}

/// What reading the clock took of a stretch that stands for others: they were not measured, and spent
/// nothing on it.
fn set_aside(stands_for: u32) -> u64 {
    if stands_for <= 1 {
        return 0;
    }
    if READING.get() == 0 {
        let readings = [(); READINGS].map(|()| thread_cpu_ns());
        let pairs = readings.iter().zip(readings.iter().skip(1));
        let costs = pairs.map(|(one, next)| next.saturating_sub(*one));
        let warm = costs.min().unwrap_or(0);
        READING.set((warm * COLD.0 / COLD.1).max(1));
    }
    let reading = READING.get();
    BETWEEN.set(BETWEEN.get().saturating_add(reading));
    reading
}

/// The task that is being polled goes into another phase. Reads the clock only where the task is looked
/// at closely; elsewhere the time up to now goes to the phase that is the present one when it is read.
pub fn enter(phase: Phase) {
    if LOOK.get().is_close() {
        lap(thread_cpu_ns());
    }
    PHASE.set(phase);
}

/// What was spent since the clock was last read belongs to this phase, as does what comes.
pub fn belongs_to(phase: Phase) {
    PHASE.set(phase);
}

/// How the task that is being polled is measured from now on; [`settle`] before, what is not settled is
/// lost. Reads the clock where measuring begins.
pub fn look(how: Look) {
    let before = LOOK.replace(how);
    if how.is_on() && !before.is_on() {
        RUNNING.set(Running {
            since: thread_cpu_ns(),
            spent: Times::ZERO,
        });
    }
}

/// How the task that is being polled is measured.
pub fn looking() -> Look {
    LOOK.get()
}

/// Takes what the task that is being polled has spent since this was last done; all zero where it is not
/// measured. One clock read.
pub fn settle() -> Times {
    if !LOOK.get().is_on() {
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

/// Nanoseconds a request has spent since the last settlement, without settling; `None` where it is not
/// measured. One clock read.
pub fn glance() -> Option<u64> {
    let is_on = LOOK.get().is_on();
    is_on.then(|| lap(thread_cpu_ns()).spent.of_request())
}

/// Takes the nanoseconds this thread has spent between polls, estimated from those after which they were
/// measured.
pub fn take_between() -> u64 {
    BETWEEN.take()
}

pin_project! {
    /// Meters a future: one clock read per poll where everything is measured, else two for a poll that
    /// is and a third where the next one begins.
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
    /// Starts at zero, in this phase. The future may have itself looked at in another way: [`look`].
    pub fn new(inner: F, phase: Phase, look: Look) -> Self {
        Self {
            inner,
            look,
            phase,
            spent: Times::ZERO,
        }
    }
}

/// The clock where a poll begins; 0 where nobody wants to know.
fn begin(look: Look) -> u64 {
    let last = LAST.replace(Ended::default());
    match (last.stands_for, look.stands_for) {
        (0, 0) => 0,
        (0, _) => thread_cpu_ns(),
        // What the thread did in between is charged to whom it was done for.
        (1, 1) => last.at,
        (stands_for, _) => {
            let now = thread_cpu_ns();
            let aside = set_aside(stands_for);
            let spent = now.saturating_sub(last.at).saturating_sub(aside);
            let scaled = spent.saturating_mul(stands_for.into());
            BETWEEN.set(BETWEEN.get().saturating_add(scaled));
            now
        }
    }
}

/// The clock where a poll ends.
fn end(look: Look) -> u64 {
    match READ.replace(0) {
        // A bill that was settled in this poll has read it: what little came after is charged to the
        // next poll, and a second reading is saved.
        read if read > 0 && look.stands_for == 1 => read,
        _ => thread_cpu_ns(),
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let since = begin(*this.look);
        // A metered task polled inside another one's poll takes over for as long as it lasts.
        let outer = (LOOK.replace(*this.look), PHASE.replace(*this.phase));
        let outer_running = outer.0.is_on().then(|| RUNNING.get());
        if this.look.is_on() {
            let spent = *this.spent;
            RUNNING.set(Running { since, spent });
        }
        let outcome = this.inner.poll(cx);
        (*this.look, *this.phase) = (LOOK.get(), PHASE.get());
        if this.look.is_on() {
            let at = end(*this.look);
            *this.spent = lap(at).spent;
            let stands_for = this.look.stands_for;
            LAST.set(Ended { at, stands_for });
        }
        LOOK.set(outer.0);
        READ.set(0);
        PHASE.set(outer.1);
        if let Some(running) = outer_running {
            RUNNING.set(running);
        }
        outcome
    }
}

/// How much longer a reading takes between other work than after another reading. Measured: with less,
/// the accounts of a server under load were more than it had spent.
const COLD: (u64, u64) = (8, 5);
/// Enough for one that nothing disturbed.
const READINGS: usize = 16;

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
        let spent = Metered::new(life, Phase::Head, Look::ALWAYS).await;

        roughly(spent.of_request(), 3);
    }

    #[tokio::test]
    async fn a_close_look_tells_where_the_time_went() {
        let life = async {
            look(Look {
                closely_for: 1,
                ..Look::ALWAYS
            });
            burn(20_000_000);
            enter(Phase::Auth);
            burn(40_000_000);
            tokio::task::yield_now().await;
            burn(1_000_000);
            enter(Phase::Idle);
            burn(60_000_000);
            settle()
        };
        let spent = Metered::new(life, Phase::Head, Look::ALWAYS).await;

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
        let spent = Metered::new(life, Phase::Head, Look::ALWAYS).await;

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
        let (first, second) = Metered::new(life, Phase::Relay, Look::ALWAYS).await;

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
            Metered::new(life, Phase::Head, Look::AWAY).await,
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
            (seen.unwrap(), settle())
        };
        let (seen, spent) = Metered::new(life, Phase::Head, Look::ALWAYS).await;

        roughly(seen, 10);
        roughly(spent.of_request(), 20);
    }

    #[test]
    fn a_clock_that_goes_back_charges_nothing() {
        let mut running = Running {
            since: 1000,
            ..Running::default()
        };
        running.lap(Phase::Idle, 400, 0);
        running.lap(Phase::Idle, 1500, 0);
        assert_eq!(running.spent.of(Phase::Idle), 500);
        running.lap(Phase::Idle, 1600, 150);
        assert_eq!(running.spent.of(Phase::Idle), 500);
    }

    #[tokio::test]
    async fn a_task_is_measured_from_where_it_is_looked_at_until_it_is_not() {
        let life = async {
            burn(1_000_000);
            look(Look::ALWAYS);
            burn(2_000_000);
            tokio::task::yield_now().await;
            burn(3_000_000);
            let spent = settle();
            look(Look::AWAY);
            burn(4_000_000);
            tokio::task::yield_now().await;
            (spent, settle())
        };
        let (spent, after) = Metered::new(life, Phase::Head, Look::AWAY).await;

        roughly(spent.of_request(), 5);
        assert_eq!(after, Times::default());
    }

    #[tokio::test]
    async fn one_task_measured_and_one_not_do_not_pay_for_each_other() {
        let measured = async {
            burn(2_000_000);
            tokio::task::yield_now().await;
            burn(2_000_000);
            settle()
        };
        let other = async {
            burn(20_000_000);
            tokio::task::yield_now().await;
            burn(20_000_000);
        };
        let (spent, ()) = tokio::join!(
            Metered::new(measured, Phase::Head, Look::ALWAYS),
            Metered::new(other, Phase::Head, Look::AWAY)
        );

        roughly(spent.of_request(), 4);
    }

    #[tokio::test]
    async fn what_a_thread_does_after_a_drawn_poll_is_on_an_account_of_its_own() {
        let drawn = Look {
            stands_for: 10,
            closely_for: 0,
        };
        take_between();
        Metered::new(async { burn(1_000_000) }, Phase::Head, drawn).await;
        burn(2_000_000);
        Metered::new(async { burn(1_000_000) }, Phase::Head, Look::AWAY).await;

        roughly(take_between(), 20);
        assert_eq!(take_between(), 0);
    }

    #[test]
    fn those_drawn_stand_for_all() {
        let number = |number| std::num::NonZeroU32::new(number).unwrap();
        for (every, closely_every) in [(1, 1), (1, 64), (16, 64), (16, 4), (7, 100)] {
            let sampling = CpuSampling {
                every: number(every),
                closely_every: number(closely_every),
            };
            let draw = || Look::draw(Some(sampling));
            let looks: Vec<Look> = std::iter::repeat_with(draw).take(200_000).collect();
            let sums = looks.iter().fold((0, 0), |sums, look| {
                (sums.0 + look.scaled(1), sums.1 + look.scaled_closely(1))
            });

            assert!((180_000..220_000).contains(&sums.0), "{every} {sums:?}");
            assert!(
                (170_000..230_000).contains(&sums.1),
                "{closely_every} {sums:?}"
            );
            assert!(looks.iter().all(|look| look.is_on() || !look.is_close()));
        }
    }
}
