//! The verdict on one server: streaks, hysteresis, hold-down.

use super::{Observation, ServerHealth};
use std::time::{Duration, Instant};

/// One server under watch.
#[derive(Debug)]
pub(super) struct Watched {
    weight: u32,
    health: ServerHealth,
    /// Failures since the last success of any kind.
    failures: u32,
    /// Failures only a check can see, since the last check that passed.
    check_failures: u32,
    /// Successes since the last failure; counted while down.
    successes: u32,
    came_up: Option<Instant>,
    hold: Duration,
}

/// A verdict that has just turned.
pub(super) struct Turn {
    pub(super) is_up: bool,
    pub(super) in_a_row: u32,
    pub(super) after: Duration,
}

impl Watched {
    pub(super) fn new(weight: u32, now: Instant) -> Self {
        let health = ServerHealth {
            is_up: true,
            reason: None,
            since: now,
            last: None,
            failures: 0,
            successes: 0,
        };
        Self {
            weight,
            health,
            failures: 0,
            check_failures: 0,
            successes: 0,
            came_up: None,
            hold: HOLD,
        }
    }

    pub(super) fn with_weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    pub(super) fn is_up(&self) -> bool {
        self.health.is_up
    }

    pub(super) fn health(&self) -> ServerHealth {
        ServerHealth {
            failures: self.failures_in_a_row(),
            successes: self.successes,
            ..self.health.clone()
        }
    }

    pub(super) fn observe(
        &mut self,
        observation: Observation,
        fall: u32,
        rise: u32,
        now: Instant,
    ) -> Option<Turn> {
        self.health.last = Some((observation, now));
        self.count(observation);
        if self.health.is_up {
            (self.failures_in_a_row() >= fall).then(|| self.go_down(observation, now))
        } else if self.successes >= rise && self.may_come_up(now) {
            Some(self.come_up(now))
        } else {
            if !observation.is_success() {
                self.health.reason = Some(observation.as_str());
            }
            None
        }
    }

    fn count(&mut self, observation: Observation) {
        match observation {
            Observation::CheckPassed => {
                self.failures = 0;
                self.check_failures = 0;
                self.successes = self.successes.saturating_add(1);
            }
            Observation::Answered => {
                self.failures = 0;
                if self.check_failures == 0 {
                    self.successes = self.successes.saturating_add(1);
                }
            }
            failure if failure.is_seen_by_checks_only() => {
                self.check_failures = self.check_failures.saturating_add(1);
                self.successes = 0;
            }
            _ => {
                self.failures = self.failures.saturating_add(1);
                self.successes = 0;
            }
        }
    }

    fn failures_in_a_row(&self) -> u32 {
        self.failures.saturating_add(self.check_failures)
    }

    /// Coming up is rationed, going down is not: a request sent to a dead server is lost time for
    /// somebody, a server that joins some seconds later is not.
    fn may_come_up(&self, now: Instant) -> bool {
        self.came_up
            .is_none_or(|before| now.saturating_duration_since(before) >= self.hold)
    }

    fn go_down(&mut self, observation: Observation, now: Instant) -> Turn {
        if let Some(before) = self.came_up {
            let stood = now.saturating_duration_since(before);
            self.hold = if stood < self.hold {
                (self.hold * 2).min(HOLD_MAX)
            } else {
                HOLD
            };
        }
        let in_a_row = self.failures_in_a_row();
        self.turn(false, Some(observation.as_str()), in_a_row, now)
    }

    fn come_up(&mut self, now: Instant) -> Turn {
        self.came_up = Some(now);
        self.turn(true, None, self.successes, now)
    }

    fn turn(
        &mut self,
        is_up: bool,
        reason: Option<&'static str>,
        in_a_row: u32,
        now: Instant,
    ) -> Turn {
        let after = now.saturating_duration_since(self.health.since);
        self.health.is_up = is_up;
        self.health.reason = reason;
        self.health.since = now;
        self.successes = 0;
        Turn {
            is_up,
            in_a_row,
            after,
        }
    }
}

/// A server comes up at most once in this time.
const HOLD: Duration = Duration::from_secs(10);
/// One that keeps flapping waits at most this long.
const HOLD_MAX: Duration = Duration::from_secs(80);
