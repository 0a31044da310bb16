//! How long a client tries.
#![expect(
    clippy::disallowed_methods,
    reason = "a client has patience, and the lab measures how much"
)]

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::wire::Answer;
use super::{Options, Trouble};

/// How long one thing is tried, and the pauses in between.
#[derive(Debug)]
pub(super) struct Patience {
    ends: Instant,
    pause: Duration,
    pause_max: Duration,
}

impl Patience {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            ends: Instant::now() + options.patience,
            pause: Duration::from_millis(10),
            pause_max: options.pause_max,
        }
    }

    /// A pause before the next try, or the end of patience.
    pub(super) async fn next(&mut self, problem: &str) -> Result<(), Trouble> {
        self.pause_a_little(problem).await?;
        self.pause = (self.pause * 2).min(self.pause_max);
        Ok(())
    }

    pub(super) async fn pause_a_little(&mut self, problem: &str) -> Result<(), Trouble> {
        if Instant::now() >= self.ends {
            return Err(Trouble::Impatient(problem.to_owned()));
        }
        sleep(self.pause).await;
        Ok(())
    }

    /// The pause the server asked for, as far as the client is ready to.
    pub(super) async fn pause_as_told(&self, answer: &Answer) {
        let seconds = answer
            .head
            .header("retry-after")
            .and_then(|value| value.parse().ok())
            .unwrap_or(0);
        sleep(Duration::from_secs(seconds).min(self.pause_max)).await;
    }
}
