//! Both ends by hand: a client whose every byte is written by the test, and a server likewise.

use crate::support::{TestSite, line};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mapigate::ids::DatabaseName;
use mapigate::lab::checker::{self, Violation};
use mapigate::lab::outlook::Sent;
use mapigate::lab::outlook::wire::{Answer, AnswerHead, Line};
use mapigate::lab::site::{DATABASE, HOST, PASSWORD, Plan, Site, mailbox, user};
use mapigate::mapi::bodies::rops::{write_chain, write_payload};
use mapigate::mapi::bodies::{
    Body, ConnectRequest, DisconnectRequest, ExecuteRequest, NotificationWaitRequest,
};
use mapigate::mapi::{Endpoint, Flavour, RequestType, cookies};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A client's side of one session, by hand.
pub(crate) struct Hand {
    pub(crate) line: Line,
    pub(crate) cookies: Vec<(String, String)>,
    /// More lines of every head, each with its line end.
    pub(crate) headers: String,
    /// Whose mailbox is asked for, by its user's number.
    pub(crate) mailbox: usize,
    number: usize,
    counter: u32,
}

impl Hand {
    /// Of user `number`, on a connection of its own.
    pub(crate) async fn new(site: &TestSite, number: usize) -> Self {
        Self::on(line(&site.target().unwrap()).await, number)
    }

    /// Of user `number`, on this connection.
    pub(crate) fn on(line: Line, number: usize) -> Self {
        Self {
            line,
            cookies: Vec::new(),
            headers: String::new(),
            mailbox: number,
            number,
            counter: 0,
        }
    }

    /// With its session open.
    pub(crate) async fn connected(site: &TestSite, number: usize) -> Self {
        let mut hand = Self::new(site, number).await;
        let answer = hand.ask(RequestType::Connect).await;
        assert_eq!((answer.head.status, answer.code()), (200, Some(0)));
        hand
    }

    /// The same session on another connection.
    pub(crate) async fn beside(&self, site: &TestSite) -> Self {
        let mut other = Self::new(site, self.number).await;
        other.cookies = self.cookies.clone();
        other.counter = self.counter + 1000;
        other
    }

    /// A request's head with this body length.
    pub(crate) fn head(&mut self, kind: RequestType, body_length: usize) -> Vec<u8> {
        self.counter += 1;
        let endpoint = match kind {
            RequestType::Bind | RequestType::Unbind => Endpoint::Nspi,
            _ => Endpoint::Emsmdb,
        };
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let cookies = match cookies.is_empty() {
            true => String::new(),
            false => format!("Cookie: {}\r\n", cookies.join("; ")),
        };
        format!(
            "POST {}?MailboxId={} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic {}\r\n\
             Content-Type: application/mapi-http\r\nX-RequestType: {}\r\n\
             X-RequestId: {{00000000-0000-4000-8000-000000000000}}:{}\r\nX-ClientInfo: {{1}}:1\r\n\
             X-ClientApplication: Outlook/16.0.17126.20132\r\n{}{cookies}Content-Length: {body_length}\r\n\r\n",
            endpoint.path(),
            mailbox(self.mailbox),
            STANDARD.encode(format!("{}:{PASSWORD}", user(self.number))),
            kind.as_str(),
            self.counter,
            self.headers,
        )
        .into_bytes()
    }

    /// A whole request with the body its type has.
    pub(crate) fn request(&mut self, kind: RequestType) -> Vec<u8> {
        let body = body_of(kind);
        let mut bytes = self.head(kind, body.len());
        bytes.extend(body);
        bytes
    }

    /// Sends a request; the answer is read by somebody else.
    pub(crate) async fn send(&mut self, kind: RequestType) {
        let bytes = self.request(kind);
        self.line.send(&bytes).await.unwrap();
    }

    /// Sends a request and takes the answer with its cookies.
    pub(crate) async fn ask(&mut self, kind: RequestType) -> Answer {
        self.send(kind).await;
        self.answer().await
    }

    /// The answer to what was sent.
    pub(crate) async fn answer(&mut self) -> Answer {
        let answer = in_time("an answer", self.line.answer()).await.unwrap();
        self.take(&answer.head);
        answer
    }

    /// Begins to wait; returns when the server holds it.
    pub(crate) async fn begin_wait(&mut self) -> AnswerHead {
        self.send(RequestType::NotificationWait).await;
        let head = in_time("a head", self.line.head()).await.unwrap();
        assert_eq!(head.status, 200);
        head
    }

    /// The rest of an answer whose head is here already.
    pub(crate) async fn rest(&mut self, head: AnswerHead) -> Answer {
        let mut answer = Answer {
            head,
            pieces: Vec::new(),
        };
        while let Some(piece) = in_time("a piece", self.line.piece()).await.unwrap() {
            answer.pieces.push(piece);
        }
        answer
    }

    fn take(&mut self, head: &AnswerHead) {
        for line in head.all("set-cookie") {
            let (name, value) = cookies::set_cookie(line.as_bytes()).unwrap();
            let name = String::from_utf8_lossy(name).into_owned();
            let value = String::from_utf8_lossy(value).into_owned();
            self.cookies.retain(|(known, _)| *known != name);
            self.cookies.push((name, value));
        }
    }
}

/// The body a request of this type has.
pub(crate) fn body_of(kind: RequestType) -> Vec<u8> {
    match kind {
        RequestType::Connect => {
            let dn = "/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=user1";
            ConnectRequest::of(dn).encode()
        }
        RequestType::Execute => {
            let payload = write_payload(&[mapigate::lab::LAB_OPERATION; 20], &[]);
            ExecuteRequest::of(write_chain(&[payload])).encode()
        }
        RequestType::NotificationWait => NotificationWaitRequest::default().encode(),
        RequestType::Disconnect | RequestType::Unbind => DisconnectRequest::default().encode(),
        _ => Vec::new(),
    }
}

/// What a future gives, or the test's end.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect(what)
}

/// A mailbox server whose every byte the test writes.
pub(crate) struct Puppet(TcpListener);

/// A request at a puppet.
pub(crate) struct Asked {
    pub(crate) stream: TcpStream,
    pub(crate) head: String,
    /// As much of the body as came with the head.
    pub(crate) body: Vec<u8>,
}

impl Puppet {
    pub(crate) async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// A site whose active server it is; MBX2 is the lab's own in name only.
    pub(crate) fn plan(&self, keys: &str) -> Plan {
        let address = self.0.local_addr().unwrap();
        let server = |name: &str, address: &str| {
            format!(
                "{name}: {{ address: '{address}', tls: off, flavour: exchange, authenticates: requests{keys} }}"
            )
        };
        let servers = format!(
            "{{ {}, {} }}",
            server("MBX1", &address.to_string()),
            server("MBX2", "127.0.0.1:9")
        );
        Plan::new(Flavour::Exchange, &["MBX1", "MBX2"])
            .section("servers", &servers)
            .section("health", "{ interval: 1h, panic_threshold: 0 }")
    }

    /// The next request on a new connection. Those that say nothing, as health checks, are passed over.
    pub(crate) async fn asked(&self) -> Asked {
        in_time("a request at the server", async {
            loop {
                let (stream, _) = self.0.accept().await.unwrap();
                if let Some(asked) = Asked::read(stream, Vec::new()).await {
                    return asked;
                }
            }
        })
        .await
    }

    /// Answers a Connect as a server would, and keeps the connection.
    pub(crate) async fn connects(&self, period: Duration) -> Asked {
        let mut asked = self.asked().await;
        asked.say(&connected(period)).await;
        asked
    }
}

impl Asked {
    async fn read(mut stream: TcpStream, mut bytes: Vec<u8>) -> Option<Self> {
        loop {
            if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
                let body = bytes.split_off(end + 4);
                return Some(Self {
                    stream,
                    head: String::from_utf8(bytes).unwrap(),
                    body,
                });
            }
            if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// The next request on this connection; `None`: it was closed.
    pub(crate) async fn next(mut self) -> Option<Self> {
        self.whole().await;
        let length = self.length();
        let Self { stream, body, .. } = self;
        let behind = body.get(length..).unwrap_or_default().to_vec();
        in_time("the next request", Self::read(stream, behind)).await
    }

    fn length(&self) -> usize {
        let digits = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        digits.unwrap_or("0").parse().unwrap()
    }

    /// Reads the whole body.
    pub(crate) async fn whole(&mut self) {
        let length = self.length();
        while self.body.len() < length {
            self.some().await;
        }
    }

    /// Reads some of the body.
    pub(crate) async fn some(&mut self) {
        let read = in_time("the body", self.stream.read_buf(&mut self.body)).await;
        assert!(read.unwrap() > 0, "the body broke off");
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends some of these bytes, as many as are taken.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> usize {
        self.stream.write(bytes).await.unwrap()
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(&mut self) {
        let end = async {
            let mut bytes = [0; 4096];
            while matches!(self.stream.read(&mut bytes).await, Ok(1..)) {}
        };
        in_time("the end of the connection", end).await;
    }
}

/// The head of an answer in chunks.
pub(crate) fn chunked_head(kind: RequestType, period: Duration) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/mapi-http\r\nX-RequestType: {}\r\nX-ResponseCode: 0\r\n\
         X-PendingPeriod: {}\r\nX-ExpirationInfo: 900000\r\nSet-Cookie: MapiContext=ctx1; path=/mapi/emsmdb\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        kind.as_str(),
        period.as_millis()
    )
    .into_bytes()
}

/// A chunk.
pub(crate) fn chunk(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn connected(period: Duration) -> Vec<u8> {
    let mut bytes = chunked_head(RequestType::Connect, period);
    bytes.extend(chunk(
        b"PROCESSING\r\nDONE\r\nX-ElapsedTime: 1\r\n\r\n\0\0\0\0",
    ));
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// The broken promises of what these clients sent and the site's servers executed.
pub(crate) fn broken(site: &Site, sent: &[Sent]) -> Vec<Violation> {
    let journal = site.plan().servers[0].journal.entries();
    let home = |_mailbox: &str| Some(DatabaseName::new(DATABASE));
    checker::check(sent, &journal, home, site.history())
}

/// How long something takes.
pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let value = future.await;
    (value, began.elapsed())
}
