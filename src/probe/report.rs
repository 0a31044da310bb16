//! What came of a probe: a verdict for each step, and for each failure what to do.

use super::step::Step;
use serde::Serialize;

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should.
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// Not as it should.
    Failed,
    /// Not tried: not asked for, or not offered.
    Skipped,
    /// Not tried: something it needs did not work.
    NotRun,
}

impl Verdict {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
            Self::NotRun => "not run",
        }
    }
}

/// What was expected, what came, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What should have come.
    pub expected: String,
    /// What came.
    pub came: String,
    /// Where to look, and what to do.
    pub next: String,
}

impl Trouble {
    /// All three.
    pub fn new(
        expected: impl Into<String>,
        came: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            expected: expected.into(),
            came: came.into(),
            next: next.into(),
        }
    }
}

/// What came of one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The step.
    pub step: Step,
    /// How it went.
    pub verdict: Verdict,
    /// How long it took; 0 for one that was not tried.
    pub milliseconds: f64,
    /// What was found, or why it was not tried.
    pub words: String,
    /// What is wrong; always with a failure, sometimes with a warning.
    #[serde(flatten)]
    pub trouble: Option<Trouble>,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was tried.
    pub target: String,
    /// No step failed.
    pub is_good: bool,
    /// Time of all steps.
    pub milliseconds: f64,
    /// Every step, in order.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(target: String, findings: Vec<Finding>) -> Self {
        let failed = |finding: &Finding| matches!(finding.verdict, Verdict::Failed);
        Self {
            target,
            is_good: !findings.iter().any(failed),
            milliseconds: findings.iter().map(|finding| finding.milliseconds).sum(),
            findings,
        }
    }

    /// What came of this step.
    pub fn of(&self, step: Step) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.step == step)
    }

    /// The first step that failed.
    pub fn first_failure(&self) -> Option<&Finding> {
        let mut findings = self.findings.iter();
        findings.find(|finding| finding.verdict == Verdict::Failed)
    }
}

/// Why a step was not tried that is not among those that were asked for.
pub(super) const UNASKED: &str = "not asked for";

/// What a step found when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Good {
    pub(super) verdict: Verdict,
    pub(super) words: String,
    pub(super) trouble: Option<Trouble>,
}

impl Good {
    pub(super) fn ok(words: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            words: words.into(),
            trouble: None,
        }
    }

    pub(super) fn skipped(words: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Skipped,
            ..Self::ok(words)
        }
    }

    /// It works, and this should be looked at all the same.
    pub(super) fn but(mut self, trouble: Trouble) -> Self {
        self.verdict = Verdict::Warning;
        self.trouble.get_or_insert(trouble);
        self
    }
}

/// What came of a step that was tried.
pub(super) type Tried = Result<Good, Trouble>;
