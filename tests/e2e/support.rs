//! What every test here needs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mapigate::lab::outlook::Target;
use mapigate::lab::outlook::wire::{Answer, Line};
use mapigate::lab::site::{HOST, PASSWORD, Plan, Site, mailbox, user};
use mapigate::mapi::Flavour;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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
    start_in(tempfile::tempdir().unwrap(), plan).await
}

/// Starts a site in a folder that has files of the test's own.
pub(crate) async fn start_in(folder: TempDir, plan: Plan) -> TestSite {
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

/// The operator's log, once it has these words: lines are written behind the back of whoever has something to say.
pub(crate) async fn log_with(site: &TestSite, words: &str) -> String {
    let log = || std::fs::read_to_string(site.folder().join("mapigate.log")).unwrap();
    eventually(words, || std::future::ready(log().contains(words))).await;
    log()
}

/// A connection to write by hand.
pub(crate) async fn line(target: &Target) -> Line {
    Line::connect(target).await.unwrap()
}

/// The `Authorization` of user `number`.
pub(crate) fn credentials(number: usize) -> String {
    basic(&user(number), PASSWORD)
}

/// The `Authorization` of a name and a password.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A request to be written, and to be written wrong.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The request line.
    pub(crate) line: String,
    /// Header lines.
    pub(crate) fields: Vec<String>,
    /// The body's bytes as they are sent.
    pub(crate) body: Vec<u8>,
}

impl Ask {
    /// A request of user `number` for its own mailbox, without cookies and without a body.
    pub(crate) fn new(number: usize, kind: &str) -> Self {
        Self {
            line: format!("POST /mapi/emsmdb/?MailboxId={} HTTP/1.1", mailbox(number)),
            fields: vec![
                format!("Host: {HOST}"),
                format!("Authorization: {}", credentials(number)),
                format!("X-RequestType: {kind}"),
                "X-RequestId: {E2E00000-0000-4000-8000-000000000000}:1".to_owned(),
                "X-ClientInfo: {E2E00000-0000-4000-8000-000000000001}:1".to_owned(),
                "X-ClientApplication: Outlook/16.0.0.0".to_owned(),
                "Content-Type: application/mapi-http".to_owned(),
            ],
            body: Vec::new(),
        }
    }

    /// Adds a header line.
    #[must_use]
    pub(crate) fn with(mut self, field: impl Into<String>) -> Self {
        self.fields.push(field.into());
        self
    }

    /// Takes the header lines of this name out.
    #[must_use]
    pub(crate) fn without(mut self, name: &str) -> Self {
        let name = format!("{}:", name.to_ascii_lowercase());
        self.fields
            .retain(|field| !field.to_ascii_lowercase().starts_with(&name));
        self
    }

    /// Puts a request line in place of ours.
    #[must_use]
    pub(crate) fn line(mut self, line: impl Into<String>) -> Self {
        self.line = line.into();
        self
    }

    /// Sends these bytes as the body, framed as the header lines say; with none that say, by their length.
    #[must_use]
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Its bytes. `Content-Length` is added where nothing frames the body yet.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.line);
        for field in &self.fields {
            head.push_str(field);
            head.push_str("\r\n");
        }
        let lower = head.to_ascii_lowercase();
        if !lower.contains("\r\ncontent-length") && !lower.contains("\r\ntransfer-encoding") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a word: nothing was cut off.
    Clean,
    /// By a reset, or without TLS's word of farewell.
    Broken,
}

/// A TLS connection of a client that shows every byte, and how it ended.
pub(crate) struct Raw(TlsStream<TcpStream>);

impl Raw {
    /// Connects to mapigate.
    pub(crate) async fn open(site: &Site) -> Self {
        let tcp = TcpStream::connect(site.gate().unwrap().address())
            .await
            .unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let connector = TlsConnector::from(site.client_config());
        Self(connector.connect(name, tcp).await.unwrap())
    }

    /// Sends bytes; whether the other side still takes them shows when reading.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        if self.0.write_all(bytes).await.is_ok() {
            let _refused = self.0.flush().await;
        }
    }

    /// Everything that comes until the connection ends.
    pub(crate) async fn rest(&mut self) -> (String, End) {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match read {
            Ok(Ok(_)) => (text, End::Clean),
            Ok(Err(_)) => (text, End::Broken),
            Err(_) => panic!("still open after {PATIENCE:?}: {text}"),
        }
    }

    /// What comes until these letters have come.
    pub(crate) async fn until(&mut self, mark: &str) -> String {
        let mut bytes = Vec::new();
        while memchr::memmem::find(&bytes, mark.as_bytes()).is_none() {
            let read = tokio::time::timeout(PATIENCE, self.0.read_buf(&mut bytes)).await;
            let read = read.unwrap_or_else(|_| panic!("never came: {mark:?}"));
            assert!(read.unwrap() > 0, "ended before {mark:?}");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The other side has reset the connection. Some systems throw away what came before.
    pub(crate) fn was_reset(&self) -> bool {
        let tcp = socket2::SockRef::from(self.0.get_ref().0);
        tcp.take_error().unwrap().is_some()
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        let tcp = self.0.get_ref().0;
        let _gone = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

/// Sends bytes on a connection of their own; everything that comes back until it ends.
pub(crate) async fn last_words(site: &Site, bytes: &[u8]) -> (String, End) {
    let mut raw = Raw::open(site).await;
    raw.send(bytes).await;
    raw.rest().await
}

/// Sends a request on a connection of its own; the whole answer.
pub(crate) async fn answer(site: &Site, ask: &Ask) -> Answer {
    let mut line = line(&site.target().unwrap()).await;
    let answer = tokio::time::timeout(PATIENCE, line.ask(&ask.bytes())).await;
    answer
        .unwrap_or_else(|_| panic!("no answer to {ask:?}"))
        .unwrap_or_else(|error| panic!("{error}: {ask:?}"))
}

/// The status of an answer's text; 0 where it is none.
pub(crate) fn status(text: &str) -> u16 {
    let word = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    word.unwrap_or_default()
}

/// No mailbox server has had a connection or a byte for a client's request.
pub(crate) async fn nobody_was_reached(site: &Site) {
    for server in site.servers() {
        assert_eq!(server.heads(), Vec::<Vec<u8>>::new(), "{}", server.name());
    }
    let metrics = site.gate().unwrap().admin().get("/metrics").await.unwrap();
    let reached: Vec<_> = metrics
        .text
        .lines()
        .filter(|line| {
            line.starts_with("mapigate_backend_connections_total")
                || line.starts_with("mapigate_backend_bytes_total")
        })
        .filter(|line| !line.ends_with(" 0"))
        .collect();
    assert!(reached.is_empty(), "{reached:?}");
}

/// Nothing takes longer than this.
const PATIENCE: Duration = Duration::from_secs(15);
