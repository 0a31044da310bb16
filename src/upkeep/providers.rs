//! The one writer of identity providers' keys: fetches them in time, and when a token asks for more.

use super::documents::{Trouble, fetch};
use crate::auth::{KeyRing, Put};
use crate::certs;
use crate::config::settings::{KeyPlace, KeySource, ServerTls};
use crate::ids::Generation;
use crate::runtime::Runtime;
use rustls::ClientConfig;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, info, warn};

/// Keeps the keys of every provider of the configuration, for ever. Each has a task of its own: a slow
/// one keeps nobody waiting.
pub(super) async fn keys(runtime: Arc<Runtime>, mut generation: watch::Receiver<Generation>) {
    let mut tasks = JoinSet::new();
    let mut kept: Vec<(Arc<KeyRing>, AbortHandle)> = Vec::new();
    loop {
        let rings: Vec<Arc<KeyRing>> = runtime.snapshot().auth.key_rings().cloned().collect();
        kept.retain(|(ring, task)| {
            let stays = rings.iter().any(|known| Arc::ptr_eq(known, ring));
            if !stays {
                task.abort();
            }
            stays
        });
        for ring in &rings {
            if kept.iter().any(|(known, _)| Arc::ptr_eq(known, ring)) {
                continue;
            }
            let keeper = Keeper {
                runtime: Arc::clone(&runtime),
                ring: Arc::clone(ring),
                fetcher: Fetcher::default(),
                has_failed: false,
            };
            kept.push((Arc::clone(ring), tasks.spawn(keeper.run())));
        }
        let issuers = rings.iter().map(|ring| ring.source().issuer.as_str());
        runtime.metrics.keep_issuers(issuers);
        if generation.changed().await.is_err() {
            return;
        }
        // Those that were aborted.
        while tasks.try_join_next().is_some() {}
    }
}

/// Fetches the keys of one provider once, for whoever has no time to keep them.
///
/// # Errors
/// Why there are none, as a sentence.
pub async fn fetch_keys(ring: &KeyRing) -> Result<Put, String> {
    let fetched = Fetcher::default().fetch(ring).await;
    fetched.map_err(|trouble| trouble.to_string())
}

/// Fetches documents; knows nothing of when and of whom to tell.
#[derive(Default)]
struct Fetcher {
    tls: Option<Arc<ClientConfig>>,
}

impl Fetcher {
    /// Fetches the keys once and puts them in force.
    async fn fetch(&mut self, ring: &KeyRing) -> Result<Put, Trouble> {
        let fetch = ring.fetch();
        let document = self.document(ring.source()).await?;
        fetch
            .put(&document)
            .map_err(|problem| Trouble::Content(format!("the keys are of no use: {problem}")))
    }

    async fn document(&mut self, source: &KeySource) -> Result<hyper::body::Bytes, Trouble> {
        let url = match &source.place {
            KeyPlace::Url(url) => url.clone(),
            KeyPlace::Discovery(discovery) => {
                let tls = self.tls(discovery, source).await?;
                keys_url(&fetch(discovery, tls).await?, source, discovery)?
            }
            KeyPlace::File { path, .. } => {
                return Err(Trouble::Address(path.display().to_string()));
            }
        };
        let tls = self.tls(&url, source).await?;
        fetch(&url, tls).await
    }

    /// Made when it is first needed: the system's list of authorities is long.
    async fn tls(
        &mut self,
        url: &str,
        source: &KeySource,
    ) -> Result<Option<Arc<ClientConfig>>, Trouble> {
        if self.tls.is_some() || url.starts_with("http:") {
            return Ok(self.tls.clone());
        }
        let settings = ServerTls {
            ca: source.ca.clone(),
            name: String::new(),
            client_certificate: None,
        };
        let made = tokio::task::spawn_blocking(move || certs::client_config(&settings)).await;
        self.tls = match made {
            Ok(Ok(tls)) => Some(tls),
            Ok(Err(error)) => return Err(Trouble::Tls(error.to_string())),
            Err(error) => return Err(Trouble::Tls(error.to_string())),
        };
        Ok(self.tls.clone())
    }
}

/// Keeps the keys of one provider.
struct Keeper {
    runtime: Arc<Runtime>,
    ring: Arc<KeyRing>,
    fetcher: Fetcher,
    /// The last fetch failed, and that has been said.
    has_failed: bool,
}

impl Keeper {
    async fn run(mut self) {
        let ring = Arc::clone(&self.ring);
        if matches!(ring.source().place, KeyPlace::File { .. }) {
            // Nothing to fetch: its age is the file's.
            let metrics = &self.runtime.metrics;
            metrics.set_keys(&ring.source().issuer, ring.count());
            return;
        }
        let mut failures = 0;
        loop {
            let outcome = self.fetcher.fetch(&ring).await;
            failures = match outcome {
                Ok(_) => 0,
                Err(_) => failures + 1,
            };
            self.tell(outcome);
            tokio::select! {
                () = tokio::time::sleep(pause(ring.source().refresh, failures)) => {}
                () = ring.wanted() => {}
            }
        }
    }

    /// Counts, and says what changed.
    fn tell(&mut self, outcome: Result<Put, Trouble>) {
        let issuer = self.ring.source().issuer.as_str();
        let metrics = &self.runtime.metrics;
        match outcome {
            Ok(Put { keys, is_new }) => {
                metrics.keys_fetched(issuer, keys, now());
                if is_new || self.has_failed {
                    info!(
                        issuer,
                        keys, is_new, "keys of the identity provider fetched"
                    );
                }
                self.has_failed = false;
            }
            Err(trouble) => {
                metrics.keys_not_fetched(issuer);
                let keys = self.ring.count();
                if self.has_failed {
                    debug!(issuer, keys, %trouble, "keys of the identity provider still not fetched");
                } else {
                    warn!(issuer, keys, %trouble, "keys of the identity provider not fetched, those we have stay good");
                }
                self.has_failed = true;
            }
        }
    }
}

/// What matters of a discovery document. OpenID Connect Discovery 3
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    /// AD FS signs access tokens under another name than the rest.
    access_token_issuer: Option<String>,
    jwks_uri: String,
}

/// Where the keys are, according to a discovery document that is the issuer's own.
fn keys_url(document: &[u8], source: &KeySource, asked: &str) -> Result<String, Trouble> {
    let found: Discovery = serde_json::from_slice(document)
        .map_err(|cause| Trouble::Content(format!("not a discovery document: {cause}")))?;
    let is_theirs =
        found.issuer == source.issuer || found.access_token_issuer.as_ref() == Some(&source.issuer);
    if !is_theirs {
        return Err(Trouble::Content(format!(
            "the discovery document is of the issuer {:?}",
            found.issuer
        )));
    }
    let place = |url: &str| {
        let uri: http::Uri = url.parse().ok()?;
        Some((uri.scheme_str()?.to_owned(), uri.host()?.to_owned()))
    };
    // Who wrote the document was proven by TLS; keys in clear, or of somebody else, would be worth less.
    if place(&found.jwks_uri).is_none() || place(&found.jwks_uri) != place(asked) {
        return Err(Trouble::Content(format!(
            "the keys are said to be at {:?}, on another host; name it as `jwks_uri` if that is right",
            found.jwks_uri
        )));
    }
    Ok(found.jwks_uri)
}

/// Time until the next fetch: a little different each time and on each node, and soon after a failure.
fn pause(refresh: Duration, failures: u32) -> Duration {
    let wait = match failures.checked_sub(1) {
        None => refresh,
        Some(more) => refresh.min(RETRY_FIRST * 2u32.saturating_pow(more.min(RETRY_DOUBLINGS))),
    };
    wait.mul_f64(fastrand::f64().mul_add(0.2, 0.9))
}

#[expect(
    clippy::disallowed_methods,
    reason = "upkeep asks the clock for the rooms below"
)]
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// After a first failure.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// After more of them the wait is doubled, up to a minute.
const RETRY_DOUBLINGS: u32 = 5;

#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
