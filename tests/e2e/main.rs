//! mapigate as its own process between simulated Outlooks and simulated mailbox servers.
#![allow(unreachable_pub, reason = "modules of one test program share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected ends there; waiting is by the clock"
)]

mod rig;
mod support;

mod conformance;
mod continuity;
mod failover;
mod journey;
mod streaming;
