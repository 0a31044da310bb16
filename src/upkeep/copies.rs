//! The one writer of what the directory service tells of databases: which servers hold their copies.

use super::tell_of_moves;
use crate::config::Settings;
use crate::config::settings::CopiesFrom;
use crate::ids::Generation;
use crate::ldap::{Book, Trouble};
use crate::placement::{Copies, Difference};
use crate::runtime::{Runtime, Snapshot};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// Reads from the book of the configuration, whichever that is, where copies come from it, for ever.
pub(super) async fn copies(runtime: Arc<Runtime>, mut generation: watch::Receiver<Generation>) {
    let said = Said::default();
    loop {
        said.differences(&runtime);
        let book = source(&runtime.snapshot());
        let reading = async {
            match &book {
                Some(book) => keep_reading(&runtime, book, &said).await,
                None => std::future::pending().await,
            }
        };
        let replaced = async {
            while generation.changed().await.is_ok() {
                let now = source(&runtime.snapshot());
                if book.as_ref().map(Arc::as_ptr) != now.as_ref().map(Arc::as_ptr) {
                    return true;
                }
                // Other servers may hold copies now.
                said.differences(&runtime);
            }
            false
        };
        tokio::select! {
            () = reading => return,
            is_replaced = replaced => if !is_replaced { return },
        }
    }
}

/// This world with what its directory tells now: for who begins, and cannot wait for the loop.
#[expect(
    clippy::disallowed_methods,
    reason = "upkeep asks the clock for the rooms below"
)]
pub async fn read(world: &Snapshot) -> Snapshot {
    let Some(book) = source(world) else {
        return world.clone();
    };
    let told = in_words(book.copies().await);
    world.told(world.copies.after(told, SystemTime::now()))
}

/// The book that tells of copies.
fn source(world: &Snapshot) -> Option<Arc<Book>> {
    match comes_from_directory(&world.settings) {
        true => world.book.clone(),
        false => None,
    }
}

fn comes_from_directory(settings: &Settings) -> bool {
    matches!(settings.copies_from, CopiesFrom::Directory { .. })
}

#[expect(
    clippy::disallowed_methods,
    reason = "upkeep asks the clock for the rooms below"
)]
async fn keep_reading(runtime: &Runtime, book: &Book, said: &Said) {
    let refresh = book.settings().refresh;
    let mut failures = 0;
    loop {
        let told = book.copies().await;
        let pause = match &told {
            Ok(_) => {
                failures = 0;
                refresh
            }
            // It has answered, and will answer the same to who asks again at once.
            Err(Trouble::Answer) => refresh,
            Err(_) => {
                failures += 1;
                soon(failures).min(refresh)
            }
        };
        take(runtime, in_words(told), SystemTime::now());
        said.differences(runtime);
        tokio::time::sleep(pause.mul_f64(fastrand::f64().mul_add(0.2, 0.8))).await;
    }
}

/// Puts into force what an attempt to read has brought.
fn take(runtime: &Runtime, told: Result<Copies, String>, now: SystemTime) {
    let before = runtime.publish(|world| match comes_from_directory(&world.settings) {
        true => world.told(world.copies.after(told.clone(), now)),
        // A reload has taken the directory away meanwhile.
        false => world.clone(),
    });
    let world = runtime.snapshot();
    let (was, is) = (&before.copies, &world.copies);
    match (&was.trouble, &is.trouble) {
        (None, Some(trouble)) => {
            warn!(
                trouble,
                "where databases are cannot be read from the directory, what is known of it stays"
            );
        }
        (Some(_), Some(trouble)) => debug!(trouble, "where databases are still cannot be read"),
        (Some(_), None) => info!("where databases are is read from the directory again"),
        (None, None) => {}
    }
    if let (None, Some(copies)) = (&was.copies, &is.copies) {
        let databases = copies.len();
        info!(
            databases,
            "the directory has told where copies of databases are"
        );
    }
    tell_of_moves(runtime, &before);
}

fn in_words(told: Result<Copies, Trouble>) -> Result<Copies, String> {
    told.map_err(|trouble| trouble.words().to_owned())
}

/// Doubles with every failure.
fn soon(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(SOON_DOUBLINGS);
    SOON * 2u32.pow(doublings)
}

/// What has been said of differences: each is said once, until it is gone.
#[derive(Default)]
struct Said(Mutex<BTreeSet<Difference>>);

impl Said {
    fn differences(&self, runtime: &Runtime) {
        let world = runtime.snapshot();
        let now = world.placement.homes().differences();
        let mut said = self.0.lock();
        let news: Vec<_> = now.difference(&said).collect();
        for difference in news.iter().take(SAID_MAX) {
            warn!("{difference}");
        }
        if let Some(more) = news.len().checked_sub(SAID_MAX).filter(|more| *more > 0) {
            warn!(
                more,
                "such differences between the directory and the configuration, see the status page"
            );
        }
        for difference in said.difference(now) {
            info!("no longer so: {difference}");
        }
        now.clone_into(&mut said);
    }
}

/// After a first failure.
const SOON: Duration = Duration::from_millis(250);
/// Up to four seconds.
const SOON_DOUBLINGS: u32 = 4;
/// Lines of the log at once.
const SAID_MAX: usize = 50;

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
