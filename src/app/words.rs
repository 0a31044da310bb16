//! The operator's log: its filter, its form and its way out.

use super::sparing::Sparing;
use crate::config::settings::Logging;
use crate::journal::OperatorLog;
use crate::metrics::Tally;
use anyhow::Context;
use std::io::IsTerminal;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The operator's log while it is open. Dropping it writes what is left, for whoever speaks to standard error
/// afterwards.
#[derive(Debug)]
pub(super) struct Words(OperatorLog);

/// Begins the operator's log on standard error. `dropped` counts lines that are lost because nobody reads them.
pub(super) fn begin(logging: &Logging, dropped: Tally) -> anyhow::Result<Words> {
    // Pingora tells of every step of its life at `info`, and of waiting for sockets as of an error; we
    // tell what matters of it ourselves.
    let quiet = "pingora_core=warn,pingora_core::server::transfer_fd=off";
    let filter = format!("{quiet},{}", logging.level);
    let filter = EnvFilter::try_new(filter).context("logging.level")?;
    let log = OperatorLog::start(dropped).context("the log could not begin")?;
    let words = Words(log.clone());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone())
        .with_ansi(std::io::stderr().is_terminal());
    let begun = if logging.json {
        let subscriber = subscriber.json().flatten_event(true).finish();
        subscriber.with(Sparing::default()).try_init()
    } else {
        let subscriber = subscriber.finish();
        subscriber.with(Sparing::default()).try_init()
    };
    begun.map_err(|error| anyhow::anyhow!("the log could not begin: {error}"))?;
    // What led to a panic stands above it.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log.flush(LAST_WORDS);
        tell(panic);
    }));
    Ok(words)
}

impl Drop for Words {
    fn drop(&mut self) {
        // Nobody is left who could be told that nobody reads.
        self.0.close(LAST_WORDS);
    }
}

/// A reader of standard error gets this long for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);
