//! The client's side of HTTP/1.1: one connection, requests out, answers read piece by piece.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tap::Ear;
use super::wire::Wire;

/// Where a client connects to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address of the socket.
    pub address: SocketAddr,
    /// What `Host` and TLS call the server; a port may follow the name.
    pub host: String,
    /// TLS, unless the connection is plain.
    pub tls: Option<Arc<ClientConfig>>,
}

/// When an exchange failed; the protocol gives each its own cure. `[MS-OXCMAPIHTTP] 3.1.7`
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent.
    #[error("cannot connect: {0}")]
    Connecting(io::Error),
    /// The request was not sent as a whole.
    #[error("cannot send: {0}")]
    Sending(io::Error),
    /// The request was sent; the answer did not come as a whole.
    #[error("cannot read the answer: {0}")]
    Reading(io::Error),
}

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub struct AnswerHead {
    /// As it was on the wire, up to and with the empty line.
    pub raw: Vec<u8>,
    /// The HTTP status.
    pub status: u16,
    /// Names as written, values trimmed, in order.
    pub headers: Vec<(String, String)>,
}

impl AnswerHead {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every header of this name.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The number in `X-ResponseCode`.
    pub fn code(&self) -> Option<u32> {
        self.header("x-responsecode")?.trim().parse().ok()
    }

    /// Framed by chunks.
    pub fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its head.
    pub head: AnswerHead,
    /// The chunks as they came, or the counted body as one.
    pub pieces: Vec<Vec<u8>>,
}

impl Answer {
    /// The body, framing removed.
    pub fn body(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    /// The body read as meta tags, headers behind DONE and what follows them. `[MS-OXCMAPIHTTP] 2.2.7`
    pub fn tagged(&self) -> Option<Tagged> {
        Tagged::read(&self.body())
    }

    /// The code that counts: behind DONE if there is one, else the header's. `[MS-OXCMAPIHTTP] 3.2.5.2`
    pub fn code(&self) -> Option<u32> {
        self.tagged()
            .and_then(|tagged| tagged.code())
            .or_else(|| self.head.code())
    }
}

/// The inner stream of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tagged {
    /// PROCESSING, PENDING and DONE as they came.
    pub tags: Vec<&'static str>,
    /// The headers behind DONE.
    pub headers: Vec<(String, String)>,
    /// The binary body.
    pub body: Vec<u8>,
}

impl Tagged {
    /// Reads the stream; `None` when it does not end with DONE. gromox' PENDING without a line end is read too.
    pub fn read(stream: &[u8]) -> Option<Self> {
        let mut tags = Vec::new();
        let mut rest = stream;
        loop {
            let (tag, left) = [
                ("PROCESSING", "PROCESSING\r\n"),
                ("PENDING", "PENDING\r\n"),
                ("PENDING", "PENDING"),
                ("DONE", "DONE\r\n"),
            ]
            .into_iter()
            .find_map(|(tag, written)| Some((tag, rest.strip_prefix(written.as_bytes())?)))?;
            tags.push(tag);
            rest = left;
            if tag == "DONE" {
                break;
            }
        }
        let mut headers = Vec::new();
        loop {
            let end = memchr::memmem::find(rest, b"\r\n")?;
            let (line, left) = rest.split_at(end);
            rest = left.get(2..).unwrap_or_default();
            if line.is_empty() {
                break;
            }
            let line = std::str::from_utf8(line).ok()?;
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Some(Self {
            tags,
            headers,
            body: rest.to_vec(),
        })
    }

    /// `X-ResponseCode` behind DONE.
    pub fn code(&self) -> Option<u32> {
        self.headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("x-responsecode"))
            .and_then(|(_, value)| value.parse().ok())
    }
}

/// What is left to be read of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Counted(usize),
    Chunks,
    /// Until the other side closes: no length, and it said so.
    ToTheEnd,
}

/// One connection.
#[derive(Debug)]
pub struct Line {
    wire: Wire,
    buffer: Vec<u8>,
    left: Left,
    closes: bool,
    ear: Option<Ear>,
}

impl Line {
    /// Connects, with TLS where the target has it.
    ///
    /// # Errors
    /// [`Failure::Connecting`].
    pub async fn connect(target: &Target) -> Result<Self, Failure> {
        let wire = dial(target).await.map_err(Failure::Connecting)?;
        Ok(Self {
            wire,
            buffer: Vec::new(),
            left: Left::Nothing,
            closes: false,
            ear: None,
        })
    }

    /// Lets somebody hear what is said from now on.
    pub fn let_hear(&mut self, ear: Option<Ear>) {
        self.ear = ear;
    }

    /// The connection itself, to look at: what is read or written on it is lost here.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The local end, by which a proxy's log knows this client.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.wire.tcp().local_addr()
    }

    /// No request may be sent on it any more: it ended, or something came that nobody asked for.
    pub async fn is_dead(&mut self) -> bool {
        if self.closes || self.left != Left::Nothing || !self.buffer.is_empty() {
            return true;
        }
        let mut byte = [0];
        let mut into = ReadBuf::new(&mut byte);
        poll_fn(|cx| Poll::Ready(Pin::new(&mut self.wire).poll_read(cx, &mut into).is_ready()))
            .await
    }

    /// Sends a whole request.
    ///
    /// # Errors
    /// [`Failure::Sending`].
    pub async fn send(&mut self, request: &[u8]) -> Result<(), Failure> {
        if let Some(ear) = &self.ear {
            ear.sent(request);
        }
        self.wire
            .write_all(request)
            .await
            .map_err(Failure::Sending)?;
        self.wire.flush().await.map_err(Failure::Sending)
    }

    /// Reads the head of the answer; interim answers are passed over.
    ///
    /// # Errors
    /// [`Failure::Reading`].
    pub async fn head(&mut self) -> Result<AnswerHead, Failure> {
        loop {
            let raw = loop {
                if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                    break self.buffer.drain(..end + 4).collect::<Vec<u8>>();
                }
                self.more().await?;
            };
            let head = read_head(raw).ok_or_else(|| nonsense("no HTTP head"))?;
            if head.status / 100 == 1 {
                continue;
            }
            self.closes = head.closes();
            self.left = match head.header("content-length") {
                _ if head.is_chunked() => Left::Chunks,
                None if self.closes => Left::ToTheEnd,
                None => Left::Counted(0),
                Some(digits) => {
                    let length = digits.parse();
                    Left::Counted(length.map_err(|_cause| nonsense("Content-Length"))?)
                }
            };
            return Ok(head);
        }
    }

    /// The next chunk, or the counted body as a whole; `None` at the end of the answer.
    ///
    /// # Errors
    /// [`Failure::Reading`].
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match self.left {
            Left::Nothing => Ok(None),
            Left::Counted(length) => {
                let body = self.exactly(length).await?;
                self.left = Left::Nothing;
                Ok(Some(body).filter(|body| !body.is_empty()))
            }
            Left::ToTheEnd => {
                while self.more().await.is_ok() {}
                self.left = Left::Nothing;
                let body = std::mem::take(&mut self.buffer);
                Ok(Some(body).filter(|body| !body.is_empty()))
            }
            Left::Chunks => {
                let size = self.line().await?;
                let digits = size.split(';').next().unwrap_or_default().trim();
                let size =
                    usize::from_str_radix(digits, 16).map_err(|_cause| nonsense("chunk size"))?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    self.left = Left::Nothing;
                    return Ok(None);
                }
                let piece = self.exactly(size).await?;
                match self.line().await?.is_empty() {
                    true => Ok(Some(piece)),
                    false => Err(nonsense("chunk end")),
                }
            }
        }
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// [`Failure::Reading`].
    pub async fn answer(&mut self) -> Result<Answer, Failure> {
        let head = self.head().await?;
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while let Some(piece) = self.piece().await? {
            bytes += piece.len();
            if bytes > AHEAD_MAX {
                return Err(nonsense("too much"));
            }
            pieces.push(piece);
        }
        Ok(Answer { head, pieces })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// Any [`Failure`] but connecting.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        self.send(request).await?;
        self.answer().await
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.wire.reset();
    }

    async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_cause| nonsense("chunk line"));
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        while self.buffer.len() < count {
            self.more().await?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    async fn more(&mut self) -> Result<(), Failure> {
        if self.buffer.len() > AHEAD_MAX {
            return Err(nonsense("too much"));
        }
        match self.wire.read_buf(&mut self.buffer).await {
            Ok(0) => Err(Failure::Reading(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                let before = self.buffer.len() - count;
                if let (Some(ear), Some(heard)) = (&self.ear, self.buffer.get(before..)) {
                    ear.received(heard);
                }
                Ok(())
            }
            Err(cause) => Err(Failure::Reading(cause)),
        }
    }
}

/// Bytes that a client of ours is ready to keep of one answer.
const AHEAD_MAX: usize = 64 << 20;

/// A connection to the target, with TLS where it has it.
///
/// # Errors
/// Those of the system, and of TLS.
pub async fn dial(target: &Target) -> io::Result<Wire> {
    let tcp = TcpStream::connect(target.address).await?;
    tcp.set_nodelay(true)?;
    let Some(config) = &target.tls else {
        return Ok(Wire::Plain(tcp));
    };
    let name = match target.host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => &target.host,
    };
    let name = ServerName::try_from(name.to_owned())
        .map_err(|cause| io::Error::new(io::ErrorKind::InvalidInput, cause))?;
    let tls = TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await?;
    Ok(Wire::Tls(Box::new(tls.into())))
}

fn nonsense(what: &'static str) -> Failure {
    Failure::Reading(io::Error::new(io::ErrorKind::InvalidData, what))
}

fn read_head(raw: Vec<u8>) -> Option<AnswerHead> {
    let text = std::str::from_utf8(raw.strip_suffix(b"\r\n\r\n")?).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.splitn(3, ' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = words.next()?.parse().ok()?;
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        })
        .collect::<Option<_>>()?;
    Some(AnswerHead {
        raw,
        status,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_with_and_without_line_ends() {
        let stream =
            b"PROCESSING\r\nPENDINGPENDING\r\nPROCESSING\r\nDONE\r\nX-ResponseCode: 10\r\n\r\nbody";
        let tagged = Tagged::read(stream).unwrap();

        assert_eq!(
            tagged.tags,
            ["PROCESSING", "PENDING", "PENDING", "PROCESSING", "DONE"]
        );
        assert_eq!(tagged.code(), Some(10));
        assert_eq!(tagged.body, b"body");
    }

    #[test]
    fn a_stream_that_does_not_end_is_no_answer() {
        for stream in [
            &b""[..],
            b"PROCESSING\r\n",
            b"DONE\r\nX: 1\r\n",
            b"NONSENSE",
        ] {
            assert_eq!(Tagged::read(stream), None);
        }
    }
}
