//! Outlook Anywhere through mapigate, with servers and clients of ours, by hand, and with a client of others.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "waiting for a process has a deadline"
)]

mod door;
mod forms;
mod hand;
mod house;
mod impacket;
mod journey;
mod long;
mod python;
mod refused;
mod time;
