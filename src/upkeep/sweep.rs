//! Takes out what has expired, and brings the figures of tables up to date.

use crate::runtime::Runtime;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Sweeps until the process ends.
#[expect(
    clippy::disallowed_methods,
    reason = "upkeep asks the clock for the rooms below"
)]
pub(super) async fn run(runtime: Arc<Runtime>) {
    let mut rounds = tokio::time::interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        sweep(&runtime, Instant::now());
    }
}

fn sweep(runtime: &Runtime, now: Instant) {
    let expired = runtime.sessions.sweep(now);
    if expired > 0 {
        tracing::debug!(expired, "sessions expired");
    }
    runtime.metrics.set_sessions(runtime.sessions.len());
}

/// Sessions live for minutes; a few seconds more cost a little memory and nothing else, because
/// look-ups check the time themselves.
const EVERY: Duration = Duration::from_secs(2);
