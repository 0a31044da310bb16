//! Which servers of the directory may be asked: who failed rests, a little longer each time.

use crate::config::settings::LdapServer;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tracing::{info, warn};

/// The servers in the order of preference.
#[derive(Debug)]
pub(super) struct Servers(Vec<Server>);

#[derive(Debug)]
struct Server {
    server: LdapServer,
    /// Of the server, for the operator.
    url: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    is_resting: bool,
    why: String,
}

impl Servers {
    pub(super) fn new(servers: &[LdapServer]) -> Self {
        let server = |server: &LdapServer| Server {
            url: server.to_string(),
            server: server.clone(),
            state: Mutex::default(),
        };
        Self(servers.iter().map(server).collect())
    }

    /// Those that do not rest, the preferred one first.
    pub(super) fn awake(&self) -> impl Iterator<Item = (usize, &LdapServer)> {
        let servers = self.0.iter().enumerate();
        let awake = servers.filter(|(_, server)| !server.state.lock().is_resting);
        awake.map(|(number, server)| (number, &server.server))
    }

    /// It answered.
    pub(super) fn worked(&self, number: usize) {
        let Some(server) = self.0.get(number) else {
            return;
        };
        let failures = std::mem::take(&mut server.state.lock().failures);
        if failures > 0 {
            info!(
                server = server.url,
                failures, "directory server answers again"
            );
        }
    }

    /// It failed, and rests for a moment, of `least` at least. Said once, until it works again.
    pub(super) fn failed(
        self: &Arc<Self>,
        number: usize,
        why: &str,
        least: Duration,
        home: &Handle,
    ) {
        let Some(server) = self.0.get(number) else {
            return;
        };
        let mut state = server.state.lock();
        if state.is_resting {
            return;
        }
        state.is_resting = true;
        state.failures = state.failures.saturating_add(1);
        let failures = state.failures;
        why.clone_into(&mut state.why);
        drop(state);
        if failures == 1 {
            warn!(server = server.url, why, "directory server cannot be used");
        }
        let servers = Arc::downgrade(self);
        home.spawn(async move {
            tokio::time::sleep(rest(failures).max(least)).await;
            if let Some(servers) = servers.upgrade()
                && let Some(server) = servers.0.get(number)
            {
                server.state.lock().is_resting = false;
            }
        });
    }

    /// All of them, and why those that failed and have not worked since did.
    pub(super) fn states(&self) -> Vec<(String, Option<String>)> {
        let state = |server: &Server| {
            let state = server.state.lock();
            let why = (state.failures > 0).then(|| state.why.clone());
            (server.url.clone(), why)
        };
        self.0.iter().map(state).collect()
    }
}

/// Doubles with each failure, and differs a little, so that nodes do not come back all at once.
fn rest(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(REST_DOUBLINGS);
    (REST_FIRST * 2u32.pow(doublings)).mul_f64(fastrand::f64().mul_add(0.4, 0.8))
}

/// After a first failure.
const REST_FIRST: Duration = Duration::from_millis(250);
/// Up to four seconds: whoever waits for mail waits for this.
const REST_DOUBLINGS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Arc<Servers> {
        let server = |host: &str| LdapServer {
            host: host.to_owned(),
            port: 389,
            tls: false,
        };
        Arc::new(Servers::new(&[server("a"), server("b")]))
    }

    fn awake(servers: &Servers) -> Vec<usize> {
        servers.awake().map(|(number, _)| number).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_failed_rests_and_comes_back_to_its_place() {
        let servers = two();

        servers.failed(0, "no answer", Duration::ZERO, &Handle::current());
        assert_eq!(awake(&servers), [1]);

        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(awake(&servers), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_makes_the_rest_longer_up_to_five_seconds() {
        let servers = two();
        for _ in 0..10 {
            servers.failed(0, "no answer", Duration::ZERO, &Handle::current());
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(awake(&servers), [0, 1]);
        }
        servers.failed(0, "no answer", Duration::ZERO, &Handle::current());
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(awake(&servers), [1]);

        tokio::time::sleep(Duration::from_secs(5)).await;
        servers.worked(0);
        servers.failed(0, "no answer", Duration::ZERO, &Handle::current());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(awake(&servers), [0, 1]);
    }
}
