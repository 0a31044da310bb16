//! What a simulated server answers: heads, codes and framing, each flavour in its own spelling.
#![expect(
    clippy::disallowed_methods,
    reason = "answers carry the date, and this is the lab"
)]

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::Options;
use super::contexts::Visit;
use super::cookies;
use super::http::Head;
use crate::ids::ServerName;
use crate::mapi::{Endpoint, Flavour, RequestType};

/// Why a request is refused with a code of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    MissingType,
    UnknownType,
    MissingHeader,
    NoCookie,
    MalformedCookie,
    UnknownContext,
    Foreign,
    Sequence,
    BadBody,
}

impl Refused {
    /// The number in the flavour's own counting; measured on gromox 3.10 and Exchange SE.
    pub(super) fn code(self, flavour: Flavour) -> u32 {
        match (flavour, self) {
            (Flavour::Gromox, Self::MissingType) => 1,
            (Flavour::Gromox, Self::UnknownContext | Self::MalformedCookie) => 2,
            (Flavour::Gromox, Self::MissingHeader) => 3,
            (Flavour::Gromox, Self::Foreign) => 4,
            (Flavour::Gromox, Self::BadBody) => 5,
            (Flavour::Gromox, Self::NoCookie) => 6,
            (Flavour::Gromox, Self::Sequence) => 7,
            (Flavour::Gromox, Self::UnknownType) => 8,
            (Flavour::Exchange, Self::MissingType | Self::UnknownType) => 5,
            (Flavour::Exchange, Self::MalformedCookie) => 6,
            (Flavour::Exchange, Self::MissingHeader) => 7,
            (Flavour::Exchange, Self::UnknownContext) => 10,
            (Flavour::Exchange, Self::Foreign) => 11,
            (Flavour::Exchange, Self::BadBody) => 12,
            (Flavour::Exchange, Self::NoCookie) => 13,
            (Flavour::Exchange, Self::Sequence) => 15,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::MissingType => "no request type",
            Self::UnknownType => "unknown request type",
            Self::MissingHeader => "a required header is missing",
            Self::NoCookie => "a required cookie is missing",
            Self::MalformedCookie => "malformed context cookie",
            Self::UnknownContext => "context not found",
            Self::Foreign => "the context is another user's",
            Self::Sequence => "out of sequence",
            Self::BadBody => "malformed body",
        }
    }
}

/// An answer ready to be delivered: head lines without their end, and the body as it goes on the wire.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Payload,
    pub(super) closes: bool,
}

/// How a body is framed.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// Behind `Content-Length`.
    Counted(Vec<u8>),
    /// In these chunks, then the last chunk.
    Chunks(Vec<Vec<u8>>),
    /// In these chunks, and more to come.
    Open(Vec<Vec<u8>>),
}

impl Reply {
    /// An answer in plain text, as servers give them outside of MAPI.
    pub(super) fn plain(status: &str, words: &str, flavour: Flavour, closes: bool) -> Self {
        let body = format!("{words}\r\n").into_bytes();
        let mut headers = vec![("Date", http_date())];
        if flavour == Flavour::Exchange {
            headers.insert(0, ("Server", "Microsoft-IIS/10.0".to_owned()));
        }
        headers.push(("Content-Length", body.len().to_string()));
        headers.push(("Content-Type", "text/plain; charset=utf-8".to_owned()));
        if closes {
            headers.push(("Connection", "close".to_owned()));
        } else if flavour == Flavour::Gromox {
            headers.push(("Connection", "keep-alive".to_owned()));
            headers.push(("Keep-Alive", "timeout=180".to_owned()));
        }
        Self {
            status: status.to_owned(),
            headers,
            body: Payload::Counted(body),
            closes,
        }
    }

    /// 401 with the flavour's challenge.
    pub(super) fn challenge(options: &Options) -> Self {
        let mut reply = Self::plain("401 Unauthorized", "Unauthorized", options.flavour, false);
        let realm = match options.flavour {
            Flavour::Gromox => "Basic realm=\"msrpc realm\", charset=\"utf-8\"".to_owned(),
            Flavour::Exchange => format!("Basic realm=\"{}\"", options.host),
        };
        let mut challenges = vec![realm];
        if options.authenticate != super::Authenticate::Requests {
            // gromox names it last, Exchange first.
            let at = match options.flavour {
                Flavour::Gromox => challenges.len(),
                Flavour::Exchange => 0,
            };
            challenges.insert(at, "Negotiate".to_owned());
        }
        let lines = challenges
            .into_iter()
            .map(|words| ("WWW-Authenticate", words));
        reply.headers.extend(lines);
        reply
    }

    /// 200 with a code other than 0. gromox echoes nothing and sets no cookie.
    pub(super) fn refused(why: Refused, request: &Head, options: &Options) -> Self {
        let body = format!("<html><body>{}</body></html>\r\n", why.words()).into_bytes();
        let mut headers = vec![
            ("Cache-Control", "private".to_owned()),
            ("Content-Type", "text/html".to_owned()),
        ];
        if options.flavour == Flavour::Exchange {
            headers.push(("Server", "Microsoft-IIS/10.0".to_owned()));
            echo(&mut headers, request, |word| word.to_owned());
        }
        headers.push(("X-ResponseCode", why.code(options.flavour).to_string()));
        headers.push(("Content-Length", body.len().to_string()));
        headers.push(("X-ServerApplication", application(options.flavour)));
        headers.push(("Date", http_date()));
        Self {
            status: "200 OK".to_owned(),
            headers,
            body: Payload::Counted(body),
            closes: false,
        }
    }
}

/// Which cookies an answer sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cookies {
    /// None: a `Connect` that opened nothing.
    None,
    /// The context alone: gromox on PING, NotificationWait and Unbind.
    Context,
    /// Context and sequence.
    Both,
}

/// The parts of a successful answer that depend on the request.
#[derive(Debug)]
pub(super) struct Success<'a> {
    pub(super) request: &'a Head,
    pub(super) kind: RequestType,
    pub(super) endpoint: Endpoint,
    pub(super) visit: Option<&'a Visit>,
    pub(super) cookies: Cookies,
}

impl Success<'_> {
    /// The head, and the framing header where the flavour puts it.
    fn head(&self, options: &Options, framing: (&'static str, String)) -> Reply {
        let mut headers = vec![
            ("Cache-Control", "private".to_owned()),
            ("Content-Type", "application/mapi-http".to_owned()),
        ];
        if options.flavour == Flavour::Exchange {
            headers.push(("Server", "Microsoft-IIS/10.0".to_owned()));
            headers.push(("request-id", crate::lab::guid()));
            headers.push(("X-CalculatedBETarget", options.host.clone()));
            headers.push(("X-BEServer", options.name.as_str().to_uppercase()));
        }
        // gromox writes the types of the address book in lower case, PING excepted.
        let lowered = options.flavour == Flavour::Gromox
            && self.endpoint == Endpoint::Nspi
            && self.kind != RequestType::Ping;
        echo(&mut headers, self.request, |word| match lowered {
            true => word.to_ascii_lowercase(),
            false => word.to_owned(),
        });
        let lifetime = options.lifetime.as_millis();
        // Exchange promises less until the first request after Connect.
        let announced = match (options.flavour, self.kind) {
            (Flavour::Exchange, RequestType::Connect | RequestType::Bind) => lifetime / 3,
            _ => lifetime,
        };
        headers.extend([
            ("X-ResponseCode", "0".to_owned()),
            (
                "X-PendingPeriod",
                options.pending_period.as_millis().to_string(),
            ),
            ("X-ExpirationInfo", announced.to_string()),
            ("X-ServerApplication", application(options.flavour)),
            ("Date", http_date()),
        ]);
        self.set_cookies(options, &mut headers, framing);
        Reply {
            status: "200 OK".to_owned(),
            headers,
            body: Payload::Counted(Vec::new()),
            closes: false,
        }
    }

    fn set_cookies(
        &self,
        options: &Options,
        headers: &mut Vec<(&'static str, String)>,
        framing: (&'static str, String),
    ) {
        let Some(visit) = self.visit.filter(|_| self.cookies != Cookies::None) else {
            headers.push(framing);
            return;
        };
        match options.flavour {
            Flavour::Gromox => {
                headers.push(("Set-Cookie", format!("sid={}", visit.cookie)));
                headers.push(framing);
                if self.cookies == Cookies::Both {
                    headers.push(("Set-Cookie", format!("sequence={}", visit.sequence)));
                }
            }
            // All four on every answer, whatever it answers.
            Flavour::Exchange => {
                let endpoint = self.endpoint.path().trim_end_matches('/');
                let routing = crate::lab::hex(options.name.as_str().as_bytes());
                headers.extend([
                    (
                        "Set-Cookie",
                        format!("MapiRouting={routing}=; path=/mapi/; secure; HttpOnly"),
                    ),
                    (
                        "Set-Cookie",
                        format!("MapiContext={}; path={endpoint}; secure; HttpOnly", visit.cookie),
                    ),
                    (
                        "Set-Cookie",
                        format!("MapiSequence={}; path={endpoint}; secure; HttpOnly", visit.sequence),
                    ),
                    (
                        "Set-Cookie",
                        format!(
                            "X-BackEndCookie={}~u56Lnp2ejJqBz8jO=; expires={}; path=/mapi; secure; HttpOnly",
                            visit.mailbox,
                            http_date_in(time::Duration::days(30)),
                        ),
                    ),
                    framing,
                ]);
            }
        }
    }

    /// A finished answer: the meta tags and the body.
    pub(super) fn done(&self, options: &Options, seconds: Elapsed, body: Vec<u8>) -> Reply {
        let done = done_lines(options.flavour, seconds);
        if self.kind == RequestType::Ping {
            let whole = [b"PROCESSING\r\n".as_slice(), &done].concat();
            let mut reply = self.head(options, ("Content-Length", whole.len().to_string()));
            reply.body = Payload::Counted(whole);
            return reply;
        }
        let mut reply = self.head(options, ("Transfer-Encoding", "chunked".to_owned()));
        reply.body = Payload::Chunks(match options.flavour {
            // Tags in one chunk, the body in the next.
            Flavour::Gromox => vec![[b"PROCESSING\r\n".as_slice(), &done].concat(), body],
            // A chunk per tag, the last with the body behind it. [MS-OXCMAPIHTTP] 4.2
            Flavour::Exchange => vec![b"PROCESSING\r\n".to_vec(), [done, body].concat()],
        });
        reply
    }

    /// The beginning of an answer that takes its time.
    pub(super) fn begun(&self, options: &Options) -> Reply {
        let mut reply = self.head(options, ("Transfer-Encoding", "chunked".to_owned()));
        reply.body = Payload::Open(vec![b"PROCESSING\r\n".to_vec()]);
        reply
    }
}

/// The PENDING tag. gromox forgets the line end.
pub(super) fn pending_tag(flavour: Flavour) -> &'static [u8] {
    match flavour {
        Flavour::Gromox => b"PENDING",
        Flavour::Exchange => b"PENDING\r\n",
    }
}

/// How long a request took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Elapsed(pub(super) std::time::Duration);

/// The last chunk of an answer that was begun. gromox says PROCESSING again.
pub(super) fn last_piece(flavour: Flavour, elapsed: Elapsed, body: &[u8]) -> Vec<u8> {
    let again: &[u8] = match flavour {
        Flavour::Gromox => b"PROCESSING\r\n",
        Flavour::Exchange => b"",
    };
    [again, &done_lines(flavour, elapsed), body].concat()
}

/// The last chunk of an answer whose context went away meanwhile. `[MS-OXCMAPIHTTP] 3.2.5.2`
pub(super) fn lost_piece() -> Vec<u8> {
    format!(
        "DONE\r\nX-ResponseCode: 10\r\nX-StartTime: {}\r\n\r\n",
        http_date()
    )
    .into_bytes()
}

fn done_lines(flavour: Flavour, Elapsed(elapsed): Elapsed) -> Vec<u8> {
    let date = http_date();
    match flavour {
        // gromox counts seconds where the specification counts milliseconds.
        Flavour::Gromox => format!(
            "DONE\r\nX-ElapsedTime: {}\r\nX-StartTime: {date}\r\n\r\n",
            elapsed.as_secs()
        ),
        Flavour::Exchange => format!(
            "DONE\r\nX-ResponseCode: 0\r\nX-ElapsedTime: {}\r\nX-StartTime: {date}\r\n\r\n",
            elapsed.as_millis()
        ),
    }
    .into_bytes()
}

/// One chunk. gromox writes sizes in lower case.
pub(super) fn chunk(flavour: Flavour, piece: &[u8]) -> Vec<u8> {
    let size = match flavour {
        Flavour::Gromox => format!("{:x}\r\n", piece.len()),
        Flavour::Exchange => format!("{:X}\r\n", piece.len()),
    };
    [size.as_bytes(), piece, b"\r\n"].concat()
}

/// The page load balancers ask for.
pub(super) fn health_page(name: &ServerName, flavour: Flavour) -> Reply {
    let mut reply = Reply::plain("200 OK", "", flavour, false);
    let body = format!("200 OK<br/>{name}").into_bytes();
    reply.headers = vec![
        ("Cache-Control", "private".to_owned()),
        ("Content-Length", body.len().to_string()),
        ("Content-Type", "text/html".to_owned()),
        ("Date", http_date()),
    ];
    reply.body = Payload::Counted(body);
    reply
}

/// A context cookie line for the faults that forge one.
pub(super) fn forged_cookie(flavour: Flavour, cookie: Option<String>) -> String {
    let cookie = cookie.unwrap_or_else(|| cookies::new_cookie(flavour));
    format!("{}={cookie}", flavour.cookies().context)
}

fn echo(
    headers: &mut Vec<(&'static str, String)>,
    request: &Head,
    spelling: impl Fn(&str) -> String,
) {
    for name in ["X-RequestType", "X-RequestId", "X-ClientInfo"] {
        if let Some(value) = request.text(name) {
            let value = match name {
                "X-RequestType" => spelling(value),
                _ => value.to_owned(),
            };
            headers.push((name, value));
        }
    }
}

fn application(flavour: Flavour) -> String {
    match flavour {
        Flavour::Gromox => "Exchange/15.00.0847.4040",
        Flavour::Exchange => "Exchange/15.02.2562.045",
    }
    .to_owned()
}

const HTTP_DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// Now, as HTTP writes it.
pub(in crate::lab) fn http_date() -> String {
    http_date_in(time::Duration::ZERO)
}

fn http_date_in(later: time::Duration) -> String {
    (OffsetDateTime::from(SystemTime::now()) + later)
        .format(HTTP_DATE)
        .unwrap_or_default()
}
