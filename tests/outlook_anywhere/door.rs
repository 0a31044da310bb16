//! A door in the process of its tests, whose clock can jump.

use mapigate::accounting::Counting;
use mapigate::auth::Memo;
use mapigate::channels::ChannelTable;
use mapigate::config;
use mapigate::journal::Journal;
use mapigate::lab::site::{HOST, PASSWORD, user};
use mapigate::metrics::Metrics;
use mapigate::relay;
use mapigate::runtime::{Runtime, Snapshot};
use mapigate::sessions::SessionTable;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A door in this process.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) runtime: Arc<Runtime>,
    _folder: TempDir,
}

impl Door {
    /// One before this server, with these sections beside what every door has.
    pub(crate) async fn before(server: SocketAddr, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        let hash = bcrypt::hash(PASSWORD, 4).unwrap();
        write("users.htpasswd", format!("{}:{hash}\n", user(1)));
        write(
            "mapigate.yaml",
            format!(
                "version: 1\n\
                 listeners: [{{ address: '127.0.0.1:0', plain_http: true }}]\n\
                 names: [{{ host: {HOST} }}]\n\
                 servers:\n  MBX1: {{ address: '{server}', tls: off }}\n\
                 databases: {{ DB1: {{ copies: [MBX1], active: MBX1 }} }}\n\
                 directory: {{ default_databases: {{ contoso.test: DB1 }} }}\n\
                 auth: {{ basic: {{ password_file: users.htpasswd }} }}\n\
                 logging: {{ access: off }}\n{more}"
            ),
        );
        let now = (Instant::now(), SystemTime::now());
        let loaded = config::load(&folder.path().join("mapigate.yaml"), 0);
        let settings = loaded
            .unwrap_or_else(|problems| panic!("{problems:?}"))
            .settings;
        let metrics = Metrics::new("test");
        let journal = Journal::start(&settings.logging, &metrics).unwrap();
        let tables = (
            SessionTable::new(10, [1; 16], now.0),
            ChannelTable::new(10, [1; 16], now.0),
        );
        let first = Snapshot::build(settings, None).unwrap();
        let (runtime, _seen) = Runtime::new(first, tables, metrics, journal, now);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&runtime);
        tokio::spawn(async move {
            loop {
                let (tcp, peer) = listener.accept().await.unwrap();
                let (runtime, asks) = (Arc::clone(&shared), shared.asks());
                let stream = Counting::new(tcp, None);
                let memo = Memo::default();
                tokio::spawn(relay::serve(
                    stream, peer, "http", memo, None, runtime, asks,
                ));
            }
        });
        Self {
            address,
            runtime,
            _folder: folder,
        }
    }

    /// The value of a metric, as it is written; empty where there is none.
    pub(crate) fn sample(&self, sample: &str) -> String {
        let text = self.runtime.metrics.render();
        let line = text.lines().find(|line| line.starts_with(sample));
        line.and_then(|line| line.rsplit(' ').next())
            .unwrap_or_default()
            .to_owned()
    }
}
