//! A site whose mailbox servers speak RPC over HTTP.

use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::Users;
use mapigate::lab::rpc_http::{RpcOutlook, RpcServer, client, server};
use mapigate::lab::site::{PASSWORD, Plan, Site, mailbox, user};
use mapigate::mapi::Flavour;
use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_mapigate");
/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// mapigate in front of two of them.
pub(crate) struct House {
    site: Site,
    pub(crate) servers: [RpcServer; 2],
    _folder: TempDir,
}

impl Deref for House {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl DerefMut for House {
    fn deref_mut(&mut self) -> &mut Site {
        &mut self.site
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(|_| (), |plan| plan).await
    }

    /// With other servers, and another configuration.
    pub(crate) async fn with(
        change: impl Fn(&mut server::Options),
        plan: impl FnOnce(Plan) -> Plan,
    ) -> Self {
        let mut servers = Vec::new();
        for name in ["MBX1", "MBX2"] {
            let mut options = server::Options::new(name);
            let listed = (1..=20).map(|number| (UserName::new(user(number)), PASSWORD.to_owned()));
            options.users = Users::Listed(listed.collect());
            change(&mut options);
            servers.push(RpcServer::spawn(options).await.unwrap());
        }
        let servers: [RpcServer; 2] = servers.try_into().unwrap();
        let addresses = [servers[0].address(), servers[1].address()];
        let ours = Plan::new(Flavour::Exchange, &["MBX1", "MBX2"])
            .section("servers", &section(&addresses.map(|a| a.to_string()), ""))
            .section("health", "{ interval: 1h, panic_threshold: 0 }");
        let (site, folder) = start(plan(ours)).await;
        Self {
            site,
            servers,
            _folder: folder,
        }
    }

    /// How a client of user `number` is set up.
    pub(crate) fn options(&self, number: usize) -> client::Options {
        client::Options::new(
            self.target().unwrap(),
            &user(number),
            PASSWORD,
            &mailbox(number),
        )
    }

    /// A client of user `number`, with its session open.
    pub(crate) async fn open(&self, number: usize) -> RpcOutlook {
        RpcOutlook::open(self.options(number)).await.unwrap()
    }

    /// Waits until a sample is so much: a request is booked after its answer.
    pub(crate) async fn counts(&self, sample: &str, expected: f64) {
        eventually(&format!("{sample} {expected}"), || async {
            (self.metric(sample).await - expected).abs() < 0.1
        })
        .await;
    }

    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        self.gate().unwrap().admin().metric(sample).await.unwrap()
    }

    /// The access lines of Outlook Anywhere, once there are so many.
    pub(crate) async fn lines(&self, count: usize) -> Vec<serde_json::Value> {
        let ours = || {
            let lines = self.access_lines().unwrap();
            let is_ours = |line: &serde_json::Value| line["endpoint"] == "outlook_anywhere";
            lines.into_iter().filter(is_ours).collect::<Vec<_>>()
        };
        eventually("access lines", || async { ours().len() >= count }).await;
        ours()
    }

    /// No server has heard of anything.
    pub(crate) fn nobody_was_reached(&self) {
        for server in &self.servers {
            assert_eq!(server.heads(), Vec::<Vec<u8>>::new());
        }
    }
}

/// Servers at these addresses.
pub(crate) fn section(addresses: &[String; 2], keys: &str) -> String {
    let mut text = String::new();
    for (name, address) in ["MBX1", "MBX2"].iter().zip(addresses) {
        let line =
            format!("  {name}: {{ address: '{address}', tls: off, flavour: exchange{keys} }}");
        writeln!(text, "{line}").unwrap();
    }
    text
}

/// Starts mapigate and what its plan names.
pub(crate) async fn start(plan: Plan) -> (Site, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    match Site::start(Path::new(PROGRAM), folder.path(), plan).await {
        Ok(site) => (site, folder),
        Err(error) => panic!("{error:#}"),
    }
}

/// Waits until something is true, and says what when it does not become so.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut is_true: impl FnMut() -> F,
) {
    let until = Instant::now() + PATIENCE;
    while !is_true().await {
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a future gives, or the test's end.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect(what)
}
