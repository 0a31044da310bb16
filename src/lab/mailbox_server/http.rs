//! Requests as they arrive: heads read by hand, with the habits of each flavour.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::lab::wire::Wire;
use crate::mapi::cookies;

/// Bytes of one header line.
const LINE_MAX: usize = 64 * 1024;
/// Bytes of a whole head.
const HEAD_MAX: usize = 512 * 1024;
/// Bytes of a request target.
const TARGET_MAX: usize = 8000;

/// A request's head, as it was on the wire.
#[derive(Clone, Debug)]
pub(in crate::lab) struct Head {
    pub(in crate::lab) raw: Vec<u8>,
    pub(in crate::lab) method: String,
    pub(in crate::lab) target: String,
    pub(in crate::lab) minor: u8,
    pub(in crate::lab) headers: Vec<(String, Vec<u8>)>,
}

/// Why there is no head.
#[derive(Debug)]
pub(in crate::lab) enum NoHead {
    /// The client closed or reset between requests.
    Closed,
    /// Nothing came for the idle time.
    Idle,
    /// Not a head as this server reads it.
    Malformed,
    /// The target is too long.
    TargetTooLong,
}

/// The reading side of a connection with what was read beyond the last request.
#[derive(Debug)]
pub(in crate::lab) struct Inbound {
    pub(in crate::lab) wire: Wire,
    buffer: Vec<u8>,
}

impl Inbound {
    pub(in crate::lab) fn new(wire: Wire) -> Self {
        Self {
            wire,
            buffer: Vec::new(),
        }
    }

    /// The connection, and what was read beyond the last request.
    pub(in crate::lab) fn into_parts(self) -> (Wire, Vec<u8>) {
        (self.wire, self.buffer)
    }

    /// Reads more into the buffer; 0 is the end.
    pub(in crate::lab) async fn more(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        let count = self.wire.read(&mut piece).await?;
        self.buffer
            .extend_from_slice(piece.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// Bytes read and not used.
    pub(in crate::lab) fn ahead(&self) -> usize {
        self.buffer.len()
    }

    /// The next request's head.
    pub(in crate::lab) async fn head(&mut self, idle: Duration) -> Result<Head, NoHead> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                let raw: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return read(raw);
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(NoHead::Malformed);
            }
            match timeout(idle, self.more()).await {
                Err(_) => return Err(NoHead::Idle),
                Ok(Ok(0) | Err(_)) => return Err(NoHead::Closed),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Exactly `count` bytes of body.
    pub(in crate::lab) async fn body(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.some().await?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// A chunked body of at most `limit` bytes; the outer error is the connection's, the inner is malformed.
    pub(in crate::lab) async fn chunked_body(
        &mut self,
        limit: usize,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let Some(size) = std::str::from_utf8(digits.trim_ascii())
                .ok()
                .and_then(|digits| usize::from_str_radix(digits, 16).ok())
                .filter(|size| body.len() + size <= limit)
            else {
                return Ok(None);
            };
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(Some(body));
            }
            body.extend(self.body(size).await?);
            if !self.line().await?.is_empty() {
                return Ok(None);
            }
        }
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(line);
            }
            if self.buffer.len() > LINE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.some().await?;
        }
    }

    async fn some(&mut self) -> io::Result<()> {
        match self.more().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Head {
    /// The first header of this name.
    pub(in crate::lab) fn header(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The last header of this name, which is the one gromox believes.
    pub(in crate::lab) fn last(&self, name: &str) -> Option<&[u8]> {
        self.all(name).last()
    }

    /// The first header of this name, as text.
    pub(in crate::lab) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// The value of a cookie, from all `Cookie` lines.
    pub(in crate::lab) fn cookie(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .all("cookie")
            .flat_map(cookies::pairs)
            .find(|(known, _)| *known == name.as_bytes())?;
        std::str::from_utf8(value).ok()
    }

    /// The client wants the connection closed after the answer.
    pub(in crate::lab) fn closes(&self) -> bool {
        self.minor == 0
            || self
                .text("connection")
                .is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }

    /// The value of `MailboxId`, lower case.
    pub(in crate::lab) fn mailbox(&self) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case("mailboxid"))
            .map(|(_, value)| value.to_ascii_lowercase())
    }
}

fn read(raw: Vec<u8>) -> Result<Head, NoHead> {
    let text = raw.strip_suffix(b"\r\n\r\n").unwrap_or(&raw);
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let (line, left) = rest.split_at(end);
        lines.push(line);
        rest = left.get(2..).unwrap_or_default();
    }
    lines.push(rest);
    let mut lines = lines.into_iter();

    let first = lines.next().ok_or(NoHead::Malformed)?;
    let first = std::str::from_utf8(first).map_err(|_cause| NoHead::Malformed)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(NoHead::Malformed);
    };
    if target.len() > TARGET_MAX {
        return Err(NoHead::TargetTooLong);
    }
    let minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        _ => return Err(NoHead::Malformed),
    };
    let (method, target) = (method.to_owned(), target.to_owned());

    let mut headers = Vec::new();
    for line in lines {
        if line.len() > LINE_MAX {
            return Err(NoHead::Malformed);
        }
        let colon = memchr::memchr(b':', line).ok_or(NoHead::Malformed)?;
        let (name, value) = line.split_at(colon);
        let name = std::str::from_utf8(name).map_err(|_cause| NoHead::Malformed)?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        headers.push((name.to_owned(), value.to_vec()));
    }
    Ok(Head {
        method,
        target,
        minor,
        headers,
        raw,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_written() {
        let head = read(
            b"POST /mapi/emsmdb/?MailboxId=A@B HTTP/1.1\r\nHost: x\r\nCookie: a=1\r\ncookie: b=2=\r\n\
              Content-Length: 5\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
        )
        .unwrap();

        assert_eq!(head.mailbox().as_deref(), Some("a@b"));
        assert_eq!(head.cookie("b"), Some("2="));
        assert_eq!(head.header("content-length"), Some(&b"5"[..]));
        assert_eq!(head.last("content-length"), Some(&b"0"[..]));
        assert!(!head.closes());
    }

    #[test]
    fn other_versions_and_long_targets_are_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(8100));

        assert!(matches!(
            read(b"PRI * HTTP/2.0\r\n\r\n".to_vec()),
            Err(NoHead::Malformed)
        ));
        assert!(matches!(
            read(long.into_bytes()),
            Err(NoHead::TargetTooLong)
        ));
    }
}
