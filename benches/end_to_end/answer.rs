//! Reads HTTP answers as they arrive, keeping little: status, code, cookies, number of body bytes.

use anyhow::{Context as _, Result, bail};

/// The answer to one request, as far as it has been read.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    head: Vec<u8>,
    state: State,
    body: u64,
    cookies: Vec<String>,
}

/// Where in the answer we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The head is incomplete.
    #[default]
    Head,
    /// In a body of known length; bytes to come.
    Length(u64),
    /// In the digits of a chunk's size.
    Size(u64),
    /// After the digits, before the end of the line.
    Extension(u64),
    /// In a chunk; bytes to come, its line end included.
    Chunk(u64),
    /// In the lines after the last chunk; bytes in this line.
    Trailer(u64),
    /// All there.
    Done,
}

impl Answer {
    /// Forgets the answer and begins the next.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.state = State::Head;
        self.body = 0;
        self.cookies.clear();
    }

    /// Reads what has come; true once the answer is complete. Fails for anything but a good MAPI answer.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<bool> {
        if self.state == State::Head {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(used) = self.read_head()? else {
                return Ok(false);
            };
            bytes = bytes.get(used.saturating_sub(before)..).unwrap_or_default();
        }
        while !bytes.is_empty() && self.state != State::Done {
            bytes = self.step(bytes)?;
        }
        if self.state == State::Done && !bytes.is_empty() {
            bail!("{} bytes after the end of an answer", bytes.len());
        }
        Ok(self.state == State::Done)
    }

    /// Body bytes so far, without chunk framing.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body
    }

    /// `name=value` of every cookie set, in order.
    pub(crate) fn cookies(&self) -> &[String] {
        &self.cookies
    }

    fn read_head(&mut self) -> Result<Option<usize>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(used) =
            response.parse(&self.head).context("answer's head")?
        else {
            return Ok(None);
        };
        let mut state = None;
        let mut code = None;
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                state = Some(State::Size(0));
            } else if header.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(header.value)?.parse()?;
                state = Some(if length == 0 {
                    State::Done
                } else {
                    State::Length(length)
                });
            } else if header.name.eq_ignore_ascii_case("x-responsecode") {
                code = Some(header.value);
            } else if header.name.eq_ignore_ascii_case("set-cookie") {
                let pair = header
                    .value
                    .split(|byte| *byte == b';')
                    .next()
                    .unwrap_or_default();
                self.cookies
                    .push(String::from_utf8_lossy(pair).into_owned());
            }
        }
        if response.code != Some(200) || code != Some(b"0") {
            bail!("not a good answer: {}", String::from_utf8_lossy(&self.head));
        }
        self.state = state.context("an answer without framing")?;
        Ok(Some(used))
    }

    /// Reads some of `bytes`, at least one; returns the rest.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let Some((&first, after)) = bytes.split_first() else {
            return Ok(bytes);
        };
        let (state, rest) = match self.state {
            State::Length(left) => {
                let (now, rest) = split(bytes, left);
                self.body += now;
                (
                    if left == now {
                        State::Done
                    } else {
                        State::Length(left - now)
                    },
                    rest,
                )
            }
            State::Chunk(left) => {
                let (now, rest) = split(bytes, left);
                // The last two bytes are the line end, not body.
                self.body += left.saturating_sub(2).min(now);
                (
                    if left == now {
                        State::Size(0)
                    } else {
                        State::Chunk(left - now)
                    },
                    rest,
                )
            }
            State::Size(size) => match char::from(first).to_digit(16) {
                Some(_) if size > 1 << 40 => bail!("a chunk of more than a terabyte"),
                Some(digit) => (State::Size(size * 16 + u64::from(digit)), after),
                None => (State::Extension(size), bytes),
            },
            State::Extension(size) => match (first, size) {
                (b'\n', 0) => (State::Trailer(0), after),
                (b'\n', size) => (State::Chunk(size + 2), after),
                _ => (State::Extension(size), after),
            },
            State::Trailer(length) => match first {
                b'\n' if length == 0 => (State::Done, after),
                b'\n' => (State::Trailer(0), after),
                b'\r' => (State::Trailer(length), after),
                _ => (State::Trailer(length + 1), after),
            },
            State::Head | State::Done => bail!("no body expected"),
        };
        self.state = state;
        Ok(rest)
    }
}

/// The number of bytes of `bytes` that belong to the `left` expected ones, and what comes after them.
fn split(bytes: &[u8], left: u64) -> (u64, &[u8]) {
    let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (now as u64, bytes.get(now..).unwrap_or_default())
}
