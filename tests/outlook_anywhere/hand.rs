//! Channels by hand: every byte is the test's.

use crate::house::{House, PATIENCE, in_time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mapigate::lab::site::{HOST, PASSWORD, Site, mailbox, user};
use mapigate::rpch::{Cookie, Rts, Verb};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const ONE: Cookie = Cookie([1; 16]);
pub(crate) const TWO: Cookie = Cookie([2; 16]);
pub(crate) const THREE: Cookie = Cookie([3; 16]);

/// `CONN/A1` of a virtual connection.
pub(crate) fn a1(connection: Cookie) -> Vec<u8> {
    Rts::conn_a1(connection, TWO, 65_536).encode()
}

/// `CONN/B1` of a virtual connection.
pub(crate) fn b1(connection: Cookie) -> Vec<u8> {
    Rts::conn_b1(connection, THREE, 1 << 30, 300_000, ONE).encode()
}

/// A request's head, to be written, and to be written wrong.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) fields: Vec<String>,
}

impl Head {
    /// Of user `number`, for its own mailbox.
    pub(crate) fn new(verb: Verb, number: usize, length: u64) -> Self {
        Self::to(verb, &format!("?{}:6001", mailbox(number)), number, length)
    }

    /// With this query.
    pub(crate) fn to(verb: Verb, query: &str, number: usize, length: u64) -> Self {
        let credentials = STANDARD.encode(format!("{}:{PASSWORD}", user(number)));
        Self {
            line: format!("{verb} /rpc/rpcproxy.dll{query} HTTP/1.1"),
            fields: vec![
                format!("Host: {HOST}"),
                "Cache-Control: no-cache".to_owned(),
                "Connection: Keep-Alive".to_owned(),
                "Pragma: No-cache".to_owned(),
                "Accept: application/rpc".to_owned(),
                "User-Agent: MSRPC".to_owned(),
                format!("Authorization: Basic {credentials}"),
                format!("Content-Length: {length}"),
            ],
        }
    }

    pub(crate) fn field(mut self, field: &str) -> Self {
        self.fields.push(field.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|field| !field.starts_with(name));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        format!("{}\r\n{}\r\n\r\n", self.line, self.fields.join("\r\n")).into_bytes()
    }
}

/// A connection to mapigate.
pub(crate) struct Line(pub(crate) TlsStream<TcpStream>);

impl Line {
    pub(crate) async fn open(site: &Site) -> Self {
        let target = site.target().unwrap();
        let tcp = TcpStream::connect(target.address).await.unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let connector = TlsConnector::from(target.tls.unwrap());
        Self(connector.connect(name, tcp).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// A channel, begun.
    pub(crate) async fn channel(house: &House, head: &Head, first: &[u8]) -> Self {
        let mut line = Self::open(house).await;
        line.send(&[head.bytes(), first.to_vec()].concat()).await;
        line
    }

    /// What comes until there are so many bytes behind the first head.
    pub(crate) async fn answer(&mut self, body: usize) -> (String, Vec<u8>) {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n")
                && bytes.len() >= end + 4 + body
            {
                let body = bytes.split_off(end + 4);
                return (String::from_utf8(bytes).unwrap(), body);
            }
            let read = in_time("an answer", self.0.read_buf(&mut bytes)).await;
            let read = read.unwrap_or(0);
            assert!(read > 0, "ended: {}", String::from_utf8_lossy(&bytes));
        }
    }

    /// What comes until the end.
    pub(crate) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(read.is_ok(), "still open: {text}");
        text
    }
}

/// The status line of a refusal, with the connection at its end.
pub(crate) async fn refused(house: &House, head: &Head, first: &[u8]) -> String {
    let mut line = Line::channel(house, head, first).await;
    line.answer(0).await.0
}

/// A server whose every byte the test writes.
pub(crate) struct Puppet(pub(crate) TcpListener);

impl Puppet {
    pub(crate) async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// The next request, with so many bytes of its body.
    pub(crate) async fn asked(&self, body: usize) -> (TcpStream, String, Vec<u8>) {
        let asked = async {
            loop {
                let (mut stream, _) = self.0.accept().await.unwrap();
                let mut bytes = Vec::new();
                loop {
                    if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n")
                        && bytes.len() >= end + 4 + body
                    {
                        let body = bytes.split_off(end + 4);
                        return (stream, String::from_utf8(bytes).unwrap(), body);
                    }
                    if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
            }
        };
        in_time("a request at the server", asked).await
    }
}

impl Line {
    /// So many more bytes of an answer whose head is here already.
    pub(crate) async fn answer_more(&mut self, count: usize) -> (String, Vec<u8>) {
        let mut bytes = vec![0; count];
        let read = in_time("more of the answer", self.0.read_exact(&mut bytes)).await;
        read.unwrap();
        (String::new(), bytes)
    }
}
