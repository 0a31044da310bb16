//! Runs the probes of the configuration when they are due.

use crate::config::settings::ScheduledProbe;
use crate::ids::Generation;
use crate::probe::{Known, Probe, Report, Step, Verdict};
use crate::runtime::Runtime;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

/// Runs every probe of the configuration, for ever. Each has a task of its own, in which its runs follow each other:
/// none overlaps with itself, and a slow one keeps nobody waiting.
pub(super) async fn probes(runtime: Arc<Runtime>, mut generation: watch::Receiver<Generation>) {
    let mut tasks = JoinSet::new();
    let mut kept: Vec<(Arc<ScheduledProbe>, AbortHandle)> = Vec::new();
    loop {
        let wanted = runtime.snapshot().settings.probes.clone();
        kept.retain(|(probe, task)| {
            let stays = wanted.contains(probe);
            if !stays {
                task.abort();
            }
            stays
        });
        runtime.probes.keep(&wanted);
        runtime
            .metrics
            .keep_probes(wanted.iter().map(|probe| probe.name.as_str()));
        for probe in &wanted {
            if !kept.iter().any(|(known, _)| known == probe) {
                let runner = Runner {
                    runtime: Arc::clone(&runtime),
                    probe: Arc::clone(probe),
                    known: None,
                    failing: None,
                };
                kept.push((Arc::clone(probe), tasks.spawn(runner.run())));
            }
        }
        if generation.changed().await.is_err() {
            return;
        }
        // Those that were aborted.
        while tasks.try_join_next().is_some() {}
    }
}

/// Runs one probe.
struct Runner {
    runtime: Arc<Runtime>,
    probe: Arc<ScheduledProbe>,
    /// The mailbox, as the last run found it: the next one tries it though Autodiscover may fail.
    known: Option<Known>,
    /// The step that failed last time, and that has been said.
    failing: Option<Step>,
}

impl Runner {
    async fn run(mut self) {
        while !self.runtime.is_ready() {
            // What is tried is mostly ourselves.
            tokio::time::sleep(NOT_YET).await;
        }
        let mut rounds = tokio::time::interval(self.probe.every);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if self.runtime.is_leaving() {
                // Who leaves takes no new connections, and would look broken.
                return;
            }
            let probe = Probe {
                remembered: self.known.take(),
                ..Probe::scheduled(&self.probe)
            };
            let outcome = Box::pin(probe.run()).await;
            self.known = outcome.known;
            self.tell(outcome.report);
        }
    }

    /// Counts, and says what changed.
    fn tell(&mut self, report: Report) {
        let name = self.probe.name.as_str();
        for finding in &report.findings {
            let was_tried = !matches!(finding.verdict, Verdict::Skipped | Verdict::NotRun);
            let success = match finding.verdict {
                Verdict::Ok | Verdict::Warning => Some(true),
                Verdict::Failed | Verdict::NotRun => Some(false),
                Verdict::Skipped => None,
            };
            let took = was_tried.then(|| Duration::from_secs_f64(finding.milliseconds / 1000.0));
            let step = finding.step.as_str();
            self.runtime.metrics.probed(name, step, success, took);
        }
        let failed = report.first_failure();
        let step = failed.map(|finding| finding.step);
        match failed {
            Some(finding) if self.failing != step => {
                let trouble = finding.trouble.as_ref();
                warn!(
                    probe = name,
                    step = finding.step.as_str(),
                    expected = trouble.map(|trouble| trouble.expected.as_str()),
                    came = finding.words,
                    next = trouble.map(|trouble| trouble.next.as_str()),
                    "probe failed"
                );
            }
            None if self.failing.is_some() => info!(probe = name, "probe succeeds again"),
            _ => {}
        }
        self.failing = step;
        self.runtime.probes.ran(name, report, now());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "upkeep asks the clock for the rooms below"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

const NOT_YET: Duration = Duration::from_millis(100);
