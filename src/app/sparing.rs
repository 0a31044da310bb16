//! Keeps what any client can cause from filling the operator's log.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lets some lines of each place in the code through and counts the others. The next that is let through is preceded
/// by their number.
#[derive(Debug, Default)]
pub(super) struct Sparing(Mutex<HashMap<Identifier, Place>>);

/// A place in the code that says something.
#[derive(Clone, Copy, Debug)]
struct Place {
    since: Instant,
    lines: u64,
}

impl Sparing {
    /// Whether a line is told, and how many like it were left out before.
    fn look(&self, place: Identifier, now: Instant) -> Option<u64> {
        let mut places = self.0.lock();
        let fresh = Place {
            since: now,
            lines: 0,
        };
        let place = places.entry(place).or_insert(fresh);
        let is_over = now.saturating_duration_since(place.since) >= WINDOW;
        let left_out = match is_over {
            true => place.lines.saturating_sub(LINES_MAX),
            false => 0,
        };
        if is_over {
            *place = fresh;
        }
        place.lines += 1;
        (place.lines <= LINES_MAX).then_some(left_out)
    }
}

impl<S: Subscriber> Layer<S> for Sparing {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let facts = event.metadata();
        if !BY_CLIENTS.contains(&facts.target()) {
            return true;
        }
        #[expect(clippy::disallowed_methods, reason = "the roof asks the clock")]
        let told = self.look(facts.callsite(), Instant::now());
        if let Some(lines @ 1..) = told {
            warn!(lines, "lines like the next one were left out");
        }
        told.is_some()
    }
}

/// Whose lines come as often as clients like.
const BY_CLIENTS: [&str; 3] = [
    "mapigate::auth::ntlm",
    "mapigate::ldap::client",
    "mapigate::listener::accept",
];
/// Lines of one place that are told within the window.
const LINES_MAX: u64 = 10;
/// After this long a place may speak again.
const WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use tracing::Callsite as _;
    use tracing::callsite::DefaultCallsite;
    use tracing::metadata::{Kind, Level, Metadata};
    use tracing_subscriber::layer::SubscriberExt as _;

    macro_rules! place {
        () => {{
            static PLACE: DefaultCallsite = DefaultCallsite::new(&FACTS);
            static FACTS: Metadata<'static> = tracing::metadata! {
                name: "event", target: "test", level: Level::WARN, fields: &[], callsite: &PLACE, kind: Kind::EVENT
            };
            PLACE.metadata().callsite()
        }};
    }

    #[test]
    fn of_many_lines_some_are_told_and_the_others_counted() {
        let (sparing, start, place) = (Sparing::default(), Instant::now(), place!());

        let told = (0..1000)
            .filter(|_| sparing.look(place.clone(), start).is_some())
            .count();

        assert_eq!(told as u64, LINES_MAX);
        let later = start + WINDOW;
        assert_eq!(sparing.look(place.clone(), later), Some(990));
        assert_eq!(sparing.look(place, later), Some(0));
    }

    /// Counts what is told in the end.
    struct Told(Arc<AtomicU64>);

    impl<S: Subscriber> Layer<S> for Told {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn what_only_we_cause_is_always_told() {
        let told = Arc::<AtomicU64>::default();
        let log = tracing_subscriber::registry().with(Told(Arc::clone(&told)));

        tracing::subscriber::with_default(log.with(Sparing::default()), || {
            for _ in 0..30 {
                warn!(target: "mapigate::auth::ntlm", "an NTLM helper failed");
            }
            assert_eq!(told.swap(0, Relaxed), LINES_MAX);
            for _ in 0..30 {
                warn!(target: "mapigate::upkeep::watch", "server marked down");
            }
        });

        assert_eq!(told.load(Relaxed), 30);
    }

    #[test]
    fn one_place_does_not_silence_another() {
        let (sparing, now, place) = (Sparing::default(), Instant::now(), place!());
        for _ in 0..1000 {
            sparing.look(place.clone(), now);
        }

        assert_eq!(sparing.look(place, now), None);
        assert_eq!(sparing.look(place!(), now), Some(0));
    }
}
