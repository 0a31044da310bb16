//! What came of one credential, for people and for programs.

use serde::Serialize;
use std::fmt;

/// What came of one credential.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The scheme it was tried with.
    pub(super) scheme: &'static str,
    /// It opens a mailbox.
    pub(super) is_good: bool,
    /// What was done, and what was found, in order.
    pub(super) steps: Vec<Step>,
}

/// One step: what was looked at, and what was found.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// One word.
    pub(super) what: &'static str,
    /// A sentence without a secret.
    pub(super) found: String,
}

impl Report {
    pub(super) fn of(scheme: &'static str) -> Self {
        Self {
            scheme,
            is_good: true,
            steps: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, what: &'static str, found: impl Into<String>) {
        self.steps.push(Step {
            what,
            found: found.into(),
        });
    }

    /// The last step: it is not good, and what to do next.
    pub(super) fn fail(mut self, next: impl Into<String>) -> Self {
        self.is_good = false;
        self.step("next", next);
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_good { "good" } else { "not good" };
        writeln!(f, "{}: {verdict}", self.scheme)?;
        for Step { what, found } in &self.steps {
            writeln!(f, "  {what:<9} {found}")?;
        }
        Ok(())
    }
}
