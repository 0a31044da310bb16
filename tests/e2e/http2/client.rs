//! Clients of HTTP/2: one by the crate, one whose every frame is written by the test.

use crate::rig::in_time;
use crate::support::{TestSite, credentials};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use mapigate::lab::site::HOST;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection that offers these protocols for a name.
pub(super) async fn tls(site: &TestSite, name: &str, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut config = rustls::ClientConfig::clone(&site.client_config());
    config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    tls_with(site, name, config).await.unwrap()
}

pub(super) async fn tls_with(
    site: &TestSite,
    name: &str,
    config: rustls::ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(site.gate().unwrap().address())
        .await
        .unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

/// A client by the crate.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) send: SendRequest<Bytes>,
    pub(super) end: JoinHandle<Result<(), h2::Error>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Told {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A word of the lab's page, such as `server=`.
    pub(super) fn word(&self, name: &str) -> String {
        let text = self.text();
        let mut words = text.split_whitespace();
        let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    }
}

impl Client {
    pub(super) async fn open(site: &TestSite) -> Self {
        Self::open_with(site, &h2::client::Builder::new()).await
    }

    /// With TLS of its own.
    pub(crate) async fn with(site: &TestSite, config: rustls::ClientConfig) -> Self {
        let tls = tls_with(site, HOST, config).await.unwrap();
        let (send, connection) = h2::client::handshake(tls).await.unwrap();
        let end = tokio::spawn(connection);
        Self { send, end }
    }

    pub(super) async fn open_with(site: &TestSite, builder: &h2::client::Builder) -> Self {
        let tls = tls(site, HOST, &[b"h2"]).await;
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) = builder.handshake(tls).await.unwrap();
        let end = tokio::spawn(connection);
        Self { send, end }
    }

    /// Begins a request; its body is to follow where there is one.
    pub(super) async fn begin(
        &mut self,
        request: Request<()>,
        has_body: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut send = self.send.clone().ready().await?;
        send.send_request(request, !has_body)
    }

    /// Asks, with a body where it is not empty.
    pub(crate) async fn ask(
        &mut self,
        request: Request<()>,
        body: &[u8],
    ) -> Result<Told, h2::Error> {
        let (answer, mut send) = self.begin(request, !body.is_empty()).await?;
        if !body.is_empty() {
            send_all(&mut send, body).await?;
        }
        let answer = in_time("an answer", answer).await?;
        let (head, body) = answer.into_parts();
        Ok(Told {
            status: head.status.as_u16(),
            headers: head.headers,
            body: rest(body).await?,
        })
    }

    /// What the stream of a request was broken off with.
    pub(super) async fn reason(&mut self, request: Request<()>) -> Option<Reason> {
        self.ask(request, b"").await.err()?.reason()
    }
}

/// Sends a body as the windows let it go.
pub(super) async fn send_all(send: &mut SendStream<Bytes>, body: &[u8]) -> Result<(), h2::Error> {
    let mut rest = Bytes::copy_from_slice(body);
    while !rest.is_empty() {
        send.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
        let room = room.unwrap_or(Ok(0))?;
        if room == 0 {
            let why = std::future::poll_fn(|cx| send.poll_reset(cx)).await?;
            return Err(why.into());
        }
        let piece = rest.split_to(room.min(rest.len()));
        send.send_data(piece, rest.is_empty())?;
    }
    Ok(())
}

/// The rest of an answer's body.
pub(super) async fn rest(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = in_time("a piece", body.data()).await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// A request of user `number`.
pub(crate) fn request(method: &str, path: &str, number: usize) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("https://{HOST}{path}"))
        .header("authorization", credentials(number))
        .body(())
        .unwrap()
}

/// A client by hand.
pub(super) struct Raw {
    tls: TlsStream<TcpStream>,
    bytes: Vec<u8>,
}

/// A frame by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

impl Frame {
    pub(super) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// A whole head: names and values as they are, packed by nothing.
    pub(super) fn head(stream: u32, flags: u8, fields: &[(&[u8], &[u8])]) -> Self {
        Self::new(HEADERS, END_HEADERS | flags, stream, block(fields))
    }

    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The code of RST_STREAM and GOAWAY.
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// Fields without a table and without Huffman's code. RFC 7541 section 6.2.2
pub(super) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            match u8::try_from(text.len()) {
                Ok(length @ ..127) => block.push(length),
                _ => {
                    block.push(127);
                    let mut rest = text.len() - 127;
                    while rest >= 128 {
                        block.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    block.push(u8::try_from(rest).unwrap());
                }
            }
            block.extend_from_slice(text);
        }
    }
    block
}

impl Raw {
    /// Connects and says hello.
    pub(super) async fn open(site: &TestSite) -> Self {
        let tls = tls(site, HOST, &[b"h2"]).await;
        let mut raw = Self {
            tls,
            bytes: Vec::new(),
        };
        raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        raw.send(&[Frame::new(SETTINGS, 0, 0, [])]).await;
        raw
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        if self.tls.write_all(bytes).await.is_ok() {
            let _refused = self.tls.flush().await;
        }
    }

    pub(super) async fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.write(&bytes).await;
    }

    /// The next frame; `None`: the connection has ended.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        in_time("a frame", async {
            loop {
                if let Some(frame) = self.take() {
                    return Some(frame);
                }
                match self.tls.read_buf(&mut self.bytes).await {
                    Ok(1..) => {}
                    _ => return None,
                }
            }
        })
        .await
    }

    fn take(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.bytes.get(..9)?.try_into().unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.bytes.get(9..9 + length)?.to_vec();
        self.bytes.drain(..9 + length);
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame::new(head[3], head[4], stream, payload))
    }

    /// The next frame of a stream that says how it ended, or of the connection where that ended.
    pub(super) async fn ending(&mut self, stream: u32) -> Ending {
        let mut status = None;
        let mut body = Vec::new();
        loop {
            let Some(frame) = self.next().await else {
                return Ending::Closed;
            };
            match frame.kind {
                GOAWAY if frame.code() != 0 => return Ending::Farewell(frame.code()),
                RST_STREAM if frame.stream == stream && status.is_none() => {
                    return Ending::Reset(frame.code());
                }
                RST_STREAM if frame.stream == stream => {
                    return Ending::BrokenOff(frame.code());
                }
                HEADERS if frame.stream == stream => {
                    status.get_or_insert_with(|| status_of(&frame.payload));
                }
                DATA if frame.stream == stream => body.extend(&frame.payload),
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                let body = String::from_utf8_lossy(&body).into_owned();
                return Ending::Answered(status.unwrap_or_default(), body);
            }
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Answered(u16, String),
    /// Before an answer, with this code.
    Reset(u32),
    /// In its midst.
    BrokenOff(u32),
    /// The connection, with this code.
    Farewell(u32),
    /// The connection, without a word.
    Closed,
}

impl Ending {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Answered(status, _) => *status,
            _ => 0,
        }
    }
}

/// Statuses stand first in a block, by their number in the table or as text. RFC 7541 appendix A
fn status_of(block: &[u8]) -> u16 {
    match block {
        [indexed @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
        }
        [_, length, rest @ ..] if *length & 0x80 == 0 => {
            let text = &rest[..usize::from(*length)];
            std::str::from_utf8(text).unwrap().parse().unwrap()
        }
        // Huffman's code of three digits: 5 bits for 0 to 2, 6 bits for the rest. RFC 7541 appendix B
        [_, length, rest @ ..] => {
            let bits = rest[..usize::from(*length & 0x7f)]
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
            let bits: Vec<u16> = bits.collect();
            let (mut at, mut status) = (0, 0);
            for _ in 0..3 {
                let value = |width: usize| {
                    bits[at..at + width]
                        .iter()
                        .fold(0, |sum, bit| sum * 2 + bit)
                };
                let (digit, width) = match value(5) {
                    digit @ 0..3 => (digit, 5),
                    _ => (value(6) - 0x19 + 3, 6),
                };
                status = status * 10 + digit;
                at += width;
            }
            status
        }
        _ => panic!("no status in {block:?}"),
    }
}
