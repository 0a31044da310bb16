//! When wrong credentials are too many: counted, forgotten, judged.
//!
//! Pure rules; a count knows neither whose it is nor the clock.

use super::super::Denied;
use std::time::{Duration, Instant};

/// How many wrong credentials are too many, and how they are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// So many are too many; at least one.
    pub(super) failures: usize,
    /// They are forgotten after this.
    pub(super) window: Duration,
    /// Which of them.
    pub(super) forgets: Forgets,
}

/// Which wrong credentials are forgotten once a window has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forgets {
    /// All of them, a window after the last. A domain counts like this: one wrong password every nine
    /// minutes locks an account whose counter is reset after ten.
    All,
    /// Each a window after it came. Whoever shares an address with a thousand others is forgiven what
    /// they did an hour ago, however busy they are.
    Each,
}

/// Wrong credentials of one user, or from one source, and those on their way to a verdict.
#[derive(Debug, Default)]
pub(super) struct Count {
    wrong: Vec<Wrong>,
    /// Asked about and not answered yet; each may turn out wrong.
    pending: usize,
}

/// A credential that was found wrong.
#[derive(Clone, Copy, Debug)]
struct Wrong {
    /// A keyed digest's number; tells credentials apart and nothing else.
    lot: u64,
    /// What the verifier knew then, as a number.
    serial: u64,
    denied: Denied,
    at: Instant,
}

/// A credential in the eyes of a verifier as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) lot: u64,
    pub(super) serial: u64,
}

/// What a count says to one more credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// The verifier may be asked.
    Ask,
    /// The verifier said so of this very credential, and would say it again.
    Wrong(Denied),
    /// Too many were wrong.
    TooMany,
    /// Too many would be, if those on their way turn out wrong.
    Wait,
}

impl Count {
    /// What to do with this credential at `now`.
    pub(super) fn judge(&mut self, rule: Rule, guess: Guess, now: Instant) -> Say {
        self.forget(rule, now);
        let same = |wrong: &&Wrong| wrong.lot == guess.lot && wrong.serial == guess.serial;
        if let Some(known) = self.wrong.iter().find(same) {
            return Say::Wrong(known.denied);
        }
        if self.wrong.len() >= rule.failures {
            return Say::TooMany;
        }
        if self.wrong.len() + self.pending >= rule.failures {
            return Say::Wait;
        }
        Say::Ask
    }

    /// One more is asked about.
    pub(super) fn begin(&mut self) {
        self.pending += 1;
    }

    /// One of those asked about has its answer, or will never have one.
    pub(super) fn end(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// A credential was found wrong. True where this makes them too many.
    ///
    /// Of a user, every verdict counts, because whoever stands behind the verifier counts it; the same
    /// credential has a second one only where two were under way, or the verifier has changed. From a
    /// source, credentials count.
    pub(super) fn refuse(
        &mut self,
        rule: Rule,
        guess: Guess,
        denied: Denied,
        now: Instant,
    ) -> bool {
        self.forget(rule, now);
        if rule.forgets == Forgets::Each && self.wrong.iter().any(|wrong| wrong.lot == guess.lot) {
            return false;
        }
        // No more are kept than it takes to say that they are too many.
        if self.wrong.len() >= rule.failures {
            if let (Forgets::All, Some(last)) = (rule.forgets, self.wrong.last_mut()) {
                last.at = last.at.max(now);
            }
            return false;
        }
        self.wrong.push(Wrong {
            lot: guess.lot,
            serial: guess.serial,
            denied,
            at: now,
        });
        self.wrong.len() == rule.failures
    }

    /// A right credential was shown: the domain begins anew, and so does this.
    pub(super) fn clear(&mut self) {
        self.wrong.clear();
    }

    /// True while the verifier is not asked.
    pub(super) fn is_tripped(&self, rule: Rule) -> bool {
        self.wrong.len() >= rule.failures
    }

    /// Nothing is known and nobody waits: the count can go.
    pub(super) fn is_empty(&self) -> bool {
        self.wrong.is_empty() && self.pending == 0
    }

    /// When the last one was found wrong.
    pub(super) fn last(&self) -> Option<Instant> {
        self.wrong.iter().map(|wrong| wrong.at).max()
    }

    /// Forgets what is over.
    pub(super) fn forget(&mut self, rule: Rule, now: Instant) {
        let is_over = |at: Instant| now.saturating_duration_since(at) >= rule.window;
        match rule.forgets {
            Forgets::All if self.last().is_some_and(is_over) => self.wrong.clear(),
            Forgets::All => {}
            Forgets::Each => self.wrong.retain(|wrong| !is_over(wrong.at)),
        }
    }
}
