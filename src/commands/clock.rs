//! What time it is, for the rooms below, which are told.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, by which certificates are judged.
#[expect(
    clippy::disallowed_methods,
    reason = "the roof asks the clock for the rooms below"
)]
pub(super) fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
