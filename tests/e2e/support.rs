//! What every test here needs.

use mapigate::lab::outlook::Target;
use mapigate::lab::outlook::wire::Line;
use mapigate::lab::site::{Plan, Site};
use mapigate::mapi::Flavour;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mapigate");

/// A site in a folder that goes with it.
pub(crate) struct TestSite {
    site: Site,
    _folder: TempDir,
}

impl Deref for TestSite {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl DerefMut for TestSite {
    fn deref_mut(&mut self) -> &mut Site {
        &mut self.site
    }
}

/// Starts a site, ready to serve.
pub(crate) async fn start(plan: Plan) -> TestSite {
    let folder = tempfile::tempdir().unwrap();
    match Site::start(Path::new(PROGRAM), folder.path(), plan).await {
        Ok(site) => TestSite {
            site,
            _folder: folder,
        },
        Err(error) => panic!("{error:#}"),
    }
}

/// Two servers of a flavour, with timers short enough for tests.
pub(crate) fn brisk(flavour: Flavour) -> Plan {
    Plan::new(flavour, &["MBX1", "MBX2"])
        .each(|server| server.pending_period = Duration::from_millis(300))
        .section("health", "{ interval: 200ms, timeout: 200ms }")
}

/// Waits until something is true, and says what when it does not become so.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut is_true: impl FnMut() -> F,
) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_true().await {
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A connection to write by hand.
pub(crate) async fn line(target: &Target) -> Line {
    Line::connect(target).await.unwrap()
}
