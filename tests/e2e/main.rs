//! mapigate as its own process between simulated Outlooks and simulated mailbox servers.
#![allow(unreachable_pub, reason = "modules of one test program share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that meets the unexpected ends there; waiting is by the clock; figures are told"
)]

#[path = "../captures/mod.rs"]
#[allow(dead_code, reason = "what only tests of the lab by itself need")]
mod captures;
mod rig;
mod support;

mod accounts;
mod arrivals;
mod autodiscover;
mod bad_input;
mod by_server;
mod certificates;
mod conformance;
mod continuity;
mod directories;
mod explain;
mod failover;
mod gate;
mod guard;
mod handoff;
mod handshakes;
mod http2;
mod journey;
mod ldap;
mod probe;
mod log_parser;
mod replay;
mod size;
mod streaming;
mod tokens;
mod usage;
mod who;
