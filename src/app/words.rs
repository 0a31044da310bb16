//! The operator's log: its filter and its form.

use crate::config::settings::Logging;
use anyhow::Context;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Begins the operator's log on standard error.
pub(super) fn begin(logging: &Logging) -> anyhow::Result<()> {
    // Pingora tells of every step of its life at `info`, and of waiting for sockets as of an error; we
    // tell what matters of it ourselves.
    let quiet = "pingora_core=warn,pingora_core::server::transfer_fd=off";
    let filter = format!("{quiet},{}", logging.level);
    let filter = EnvFilter::try_new(filter).context("logging.level")?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let begun = if logging.json {
        subscriber.json().flatten_event(true).try_init()
    } else {
        subscriber.try_init()
    };
    begun.map_err(|error| anyhow::anyhow!("the log could not begin: {error}"))
}
