//! One question to an admin address.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Which running process is spoken to.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AdminAddress {
    /// Admin address of the running process, as under admin.address
    #[arg(
        id = "admin",
        long = "admin",
        value_name = "ADDRESS",
        env = "MAPIGATE_ADMIN",
        default_value = "127.0.0.1:9080"
    )]
    pub(super) address: SocketAddr,
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// One request without a body, one answer: status and body. Waits as long as a large directory takes to be read.
///
/// # Errors
/// Nobody listens, nobody answers in time, or what comes is not HTTP.
pub(super) fn ask(admin: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, CONNECT)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(CONNECT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    read_answer(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

fn read_answer(answer: &[u8]) -> Option<(u16, String)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(answer).ok()? else {
        return None;
    };
    let is_chunked = response.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("transfer-encoding")
            && header.value.eq_ignore_ascii_case(b"chunked")
    });
    let body = answer.get(length..)?;
    let body = match is_chunked {
        true => String::from_utf8_lossy(&joined(body)?).into_owned(),
        false => String::from_utf8_lossy(body).into_owned(),
    };
    Some((response.code?, body))
}

/// A chunked body without its framing; `None` where it is cut off.
fn joined(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(body.len());
    loop {
        let httparse::Status::Complete((begin, size)) = httparse::parse_chunk_size(body).ok()?
        else {
            return None;
        };
        if size == 0 {
            return Some(whole);
        }
        let end = begin.checked_add(usize::try_from(size).ok()?)?;
        whole.extend_from_slice(body.get(begin..end)?);
        body = body.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

const CONNECT: Duration = Duration::from_secs(5);
/// A large directory takes a while to read.
const ANSWER: Duration = Duration::from_secs(120);
const ANSWER_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_splits_into_status_and_body() {
        let answer = b"HTTP/1.1 422 Unprocessable\r\nContent-Length: 2\r\n\r\n{}";

        assert_eq!(read_answer(answer), Some((422, "{}".to_owned())));
        assert_eq!(read_answer(b"SSH-2.0"), None);
    }

    #[test]
    fn a_chunked_answer_is_joined_and_half_of_one_is_none() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";

        assert_eq!(read_answer(answer), Some((200, "abc0123456789".to_owned())));
        assert_eq!(read_answer(&answer[..answer.len() - 10]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(head in "HTTP/1.1 200 OK\r\n(Transfer-Encoding: chunked\r\n)?\r\n", body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let answer = [head.as_bytes(), &body].concat();
            let _either = read_answer(&answer);
            let _none = read_answer(&body);
        }
    }
}
