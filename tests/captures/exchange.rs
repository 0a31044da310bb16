//! A recorded exchange, as the files beside this one tell it.

use mapigate::mapi::cookies;

/// One request and the answer it got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) name: String,
    /// `nobody`, `USER` or `USER:PASSWORD`.
    pub(crate) user: String,
    /// Seconds until the answer ended, where that says something.
    pub(crate) seconds: Option<f64>,
    /// Told by a client's library: header names in lower case, headers of one name together, no framing.
    pub(crate) by_library: bool,
    /// Request line and header lines.
    pub(crate) request: Vec<String>,
    pub(crate) body: Vec<u8>,
    /// The answer's status line.
    pub(crate) status: String,
    pub(crate) headers: Vec<(String, String)>,
    /// The answer's body as it was on the wire, chunk framing and all; empty for a page of HTML.
    pub(crate) wire: Vec<u8>,
    /// The answer's body as a library showed it, without its framing; `None` for a byte that was not shown.
    pub(crate) shown: Vec<Option<u8>>,
    /// What was shown is the whole body.
    pub(crate) is_whole: bool,
}

/// The client that tries one thing after the other, woken once.
pub(crate) fn gromox() -> Vec<Recorded> {
    read(include_str!("gromox.txt"))
}

/// The same with held requests.
pub(crate) fn gromox_wait() -> Vec<Recorded> {
    read(include_str!("gromox-wait.txt"))
}

/// A Rust client that reads and writes mail.
pub(crate) fn mapi_client() -> Vec<Recorded> {
    read(include_str!("mapi-client.txt"))
}

/// Single requests of curl.
pub(crate) fn curl() -> Vec<Recorded> {
    read(include_str!("curl.txt"))
}

fn read(text: &str) -> Vec<Recorded> {
    let mut all: Vec<Recorded> = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark == "==" {
            all.push(Recorded {
                name: rest.to_owned(),
                is_whole: true,
                ..Recorded::default()
            });
            continue;
        }
        let Some(last) = all.last_mut() else { continue };
        match mark {
            "" => {}
            "as" => last.user = rest.to_owned(),
            "by" => last.by_library = true,
            "~" => last.seconds = Some(rest.parse().unwrap()),
            ">" => last.request.push(rest.to_owned()),
            ">>" => last.body.extend(unhex(rest)),
            "<" if last.status.is_empty() => last.status = rest.to_owned(),
            "<" => {
                let (name, value) = rest.split_once(": ").unwrap();
                last.headers.push((name.to_owned(), value.to_owned()));
            }
            "<<" => last.wire.extend(unhex(rest)),
            "<~" if rest == ".." => last.is_whole = false,
            "<~" => last.shown.extend(bytes(rest)),
            _ => panic!("{}: {line}", last.name),
        }
    }
    all
}

fn bytes(hex: &str) -> impl Iterator<Item = Option<u8>> {
    hex.as_bytes().chunks(2).map(|pair| match pair {
        b"??" => None,
        pair => Some(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()),
    })
}

/// Nothing is lost on the wire.
fn unhex(hex: &str) -> impl Iterator<Item = u8> {
    bytes(hex).map(Option::unwrap)
}

impl Recorded {
    /// The `X-RequestType` asked for.
    pub(crate) fn kind(&self) -> &str {
        self.asked("X-RequestType").unwrap_or_default()
    }

    /// A header of the request.
    pub(crate) fn asked(&self, name: &str) -> Option<&str> {
        self.request
            .iter()
            .filter_map(|line| line.split_once(": "))
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// A header of the answer.
    pub(crate) fn answered(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// `X-ResponseCode` of the answer.
    pub(crate) fn code(&self) -> Option<u32> {
        self.answered("X-ResponseCode")
            .map(|code| code.parse().unwrap())
    }

    /// The cookies sent.
    pub(crate) fn cookies(&self) -> Vec<(String, String)> {
        let line = self.asked("Cookie").unwrap_or_default();
        owned(cookies::pairs(line.as_bytes()))
    }

    /// The value of a cookie sent.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        let found = self.cookies().into_iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    /// The recorded body as chunks, or as one piece.
    pub(crate) fn pieces(&self) -> Vec<Vec<u8>> {
        if self.answered("Transfer-Encoding").is_none() {
            return vec![self.wire.clone()];
        }
        let mut pieces = Vec::new();
        let mut rest = &self.wire[..];
        loop {
            let end = memchr::memmem::find(rest, b"\r\n").unwrap();
            let size = std::str::from_utf8(&rest[..end]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                return pieces;
            }
            pieces.push(rest[end + 2..end + 2 + size].to_vec());
            rest = &rest[end + 2 + size + 2..];
        }
    }
}

/// The cookies an answer sets.
pub(crate) fn set_cookies(headers: &[(String, String)]) -> Vec<(String, String)> {
    owned(
        headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("Set-Cookie"))
            .filter_map(|(_, value)| cookies::set_cookie(value.as_bytes())),
    )
}

fn owned<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    pairs
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}
