//! A held poll: when it must end, and why.

use super::respond::Scene;
use crate::metrics::{Counted, PollEnd};
use std::time::{Duration, Instant};

/// The state of a held NotificationWait; for any other request it does nothing.
#[derive(Debug)]
pub(super) struct Hold {
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    _gauge: Counted,
    /// The protocol's own end, with some slack. `[MS-OXCMAPIHTTP] 3.1.5.5`
    limit: Instant,
    /// Something else ends it then.
    ending: Option<(Instant, PollEnd)>,
    last_sign: Instant,
}

impl Hold {
    pub(super) fn new(scene: &Scene<'_>, began: Instant) -> Self {
        let held = scene.plan.pin.request_type.is_held().then(|| Held {
            _gauge: scene.runtime.metrics.poll_held(),
            limit: began + scene.world.settings.limits.notification_wait,
            ending: None,
            last_sign: began,
        });
        let mut hold = Self { held };
        // What was asked before we listened counts as well.
        hold.look(scene);
        hold
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// True while a word from outside can still change something.
    pub(super) fn listens(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.ending.is_none())
    }

    /// Looks at the world as it is now: is the database where this poll is held?
    pub(super) fn look(&mut self, scene: &Scene<'_>) {
        let Some(held) = self.held.as_mut().filter(|held| held.ending.is_none()) else {
            return;
        };
        let (now, server) = (scene.runtime.snapshot(), scene.plan.server.name());
        let is_here = now.placement.is_active(&scene.plan.pin.database, server);
        let reason = match (
            is_here,
            now.health.is_eligible(server),
            scene.runtime.is_leaving(),
        ) {
            (false, _, _) => PollEnd::Moved,
            (true, false, _) => PollEnd::ServerLost,
            (true, true, true) => PollEnd::Drain,
            (true, true, false) => return,
        };
        held.ending = Some((scene.now() + jitter(scene), reason));
    }

    /// True where the poll is to end because its session is elsewhere.
    pub(super) fn has_moved(&self) -> bool {
        let ending = self.held.as_ref().and_then(|held| held.ending);
        matches!(ending, Some((_, PollEnd::Moved | PollEnd::ServerLost)))
    }

    /// The server broke off: the poll ends after its moment.
    pub(super) fn lost(&mut self, scene: &Scene<'_>) {
        let at = scene.now() + jitter(scene);
        if let Some(held) = &mut self.held {
            let earlier = held.ending.map(|(at, _)| at);
            held.ending = Some((earlier.unwrap_or(at).min(at), PollEnd::ServerLost));
        }
    }

    /// The next deadline, given when silence becomes too long. Where its time is up inside a chunk or
    /// a tag, the rest of that is waited for, not for long.
    pub(super) fn deadline(&self, silence: Instant, at_boundary: bool) -> Instant {
        let Some(held) = &self.held else {
            return silence;
        };
        let patience = if at_boundary {
            Duration::ZERO
        } else {
            MID_CHUNK
        };
        silence.min(held.ends() + patience)
    }

    /// Why the poll is to end now; `None`: it is not.
    pub(super) fn due(&self, now: Instant) -> Option<PollEnd> {
        let held = self.held.as_ref()?;
        match held.ending {
            Some((at, reason)) if now >= at => Some(reason),
            _ if now >= held.limit => Some(PollEnd::Limit),
            _ => None,
        }
    }

    /// A sign of life.
    pub(super) fn pending(&mut self, scene: &Scene<'_>, now: Instant) {
        if let Some(held) = &mut self.held {
            let gap = now.saturating_duration_since(held.last_sign);
            scene
                .runtime
                .metrics
                .pending_gap(scene.plan.pin.endpoint, gap);
            held.last_sign = now;
        }
    }

    /// The poll is over.
    pub(super) fn ended(&mut self, scene: &Scene<'_>, reason: PollEnd) {
        if self.held.take().is_some() {
            scene.runtime.metrics.poll_ended(reason);
        }
    }
}

impl Held {
    /// When it ends at the latest.
    fn ends(&self) -> Instant {
        self.ending.map_or(self.limit, |(at, _)| at.min(self.limit))
    }
}

/// Thousands of polls do not end in the same instant.
fn jitter(scene: &Scene<'_>) -> Duration {
    scene
        .world
        .settings
        .limits
        .move_jitter
        .mul_f64(fastrand::f64())
}

/// How long the rest of a chunk or a tag is waited for.
const MID_CHUNK: Duration = Duration::from_secs(1);
