//! What has to happen from time to time: expired sessions go, ticket keys are replaced.

use super::Fronts;
use crate::runtime::Runtime;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Takes expired sessions out of their table, and wrong passwords that are forgotten out of theirs, for ever.
#[expect(
    clippy::disallowed_methods,
    reason = "upkeep asks the clock for the rooms below"
)]
pub(super) async fn sessions(runtime: Arc<Runtime>) {
    let mut rounds = tokio::time::interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let expired = runtime.sessions.sweep(Instant::now());
        if expired > 0 {
            tracing::debug!(expired, "sessions expired");
        }
        runtime.metrics.set_sessions(runtime.sessions.len());
        runtime.channels.sweep(Instant::now());
        let channels = runtime.channels.len();
        runtime.metrics.set_virtual_connections(channels);
        let guard = runtime.snapshot().auth.sweep_guard(Instant::now());
        runtime
            .metrics
            .set_guard(guard.trips, [guard.users.1, guard.sources.1], guard.delayed);
        let handshakes = runtime.snapshot().auth.handshakes();
        runtime
            .metrics
            .set_handshakes(handshakes.open, handshakes.refused);
    }
}

/// Replaces the keys of TLS tickets as often as the settings say, for ever.
pub(super) async fn tickets(runtime: Arc<Runtime>, fronts: Fronts) {
    loop {
        let rotation = runtime.snapshot().settings.tls.ticket_rotation;
        tokio::time::sleep(rotation.max(ROTATION_MIN)).await;
        for (listener, front) in &fronts {
            if let Err(error) = front.rotate_tickets() {
                tracing::warn!(%listener, %error, "ticket key not replaced, the old one stays");
            }
        }
    }
}

/// Sessions live for minutes; a few seconds more cost a little memory and nothing else, because
/// look-ups check the time themselves.
const EVERY: Duration = Duration::from_secs(2);
/// Tickets that live shorter than this would not be worth their bytes.
const ROTATION_MIN: Duration = Duration::from_secs(60);
