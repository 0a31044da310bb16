//! The gate: a request head, read strictly and once, and written anew.
//!
//! What a server reads is always our spelling of a request, never the client's bytes.

use super::fields::{self, Fate};
use super::target::{Place, Target};
use crate::accounting::HeadBytes;
use crate::autodiscover::Dialect;
use crate::mapi::cookies::pairs;
use crate::mapi::{Flavour, RequestType};
use crate::refusal::Refusal;
use crate::rpch;
use crate::vdir::Verb;
use httparse::{Header, Status};
use std::mem::MaybeUninit;

/// Header fields of a head, a request's or an answer's.
const FIELDS_MAX: usize = 100;
/// Bytes of a field's name; gromox truncates beyond.
const NAME_MAX: usize = 63;

/// A request's method, of those that are served at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// MAPI.
    Post,
    /// Local pages.
    Get,
    /// Local pages without their body.
    Head,
    /// Outlook Anywhere.
    Rpc(rpch::Verb),
    /// What only other virtual directories know.
    Other(Verb),
}

impl Method {
    /// The same as other virtual directories know it; `None` for what only Outlook Anywhere speaks.
    pub const fn verb(self) -> Option<Verb> {
        match self {
            Self::Post => Some(Verb::Post),
            Self::Get => Some(Verb::Get),
            Self::Head => Some(Verb::Head),
            Self::Rpc(_) => None,
            Self::Other(verb) => Some(verb),
        }
    }
}

/// How a request says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// `Content-Length`, or none of both: nothing.
    Counted(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What the door needs to know of a request. Borrows from the buffer the head was read from.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// Bytes of the head, its empty line included.
    pub length: usize,
    /// The method.
    pub method: Method,
    /// Where to.
    pub target: Target<'b>,
    /// The host name asked for, without its port.
    pub host: &'b str,
    /// The client will send another request on this connection.
    pub keep_alive: bool,
    /// Where the body ends.
    pub body: BodyLength,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// `X-RequestType`.
    pub request_type: RequestType,
    /// `X-RequestId`, as written.
    pub request_id: Option<&'b [u8]>,
    /// `X-ClientInfo`, as written.
    pub client_info: Option<&'b [u8]>,
    /// `User-Agent`, as written; the last of several.
    pub user_agent: Option<&'b [u8]>,
    /// `X-ClientApplication`, as written; the last of several. `[MS-OXCMAPIHTTP] 2.2.3.3.6`
    pub client_application: Option<&'b [u8]>,
    /// `Authorization`, as written.
    pub authorization: Option<&'b [u8]>,
    /// Context cookies, by the name each flavour gives them.
    pub contexts: [Option<&'b [u8]>; 2],
    /// Our own route cookie.
    pub route_cookie: Option<&'b [u8]>,
    /// Its bytes by what they are.
    pub bytes: HeadBytes,
    pub(crate) fields: &'h [Header<'b>],
}

/// Room for the fields of one head; on the stack, and only while the head is read.
pub struct Fields<'b>(pub(super) [MaybeUninit<Header<'b>>; FIELDS_MAX]);

impl Fields<'_> {
    /// Empty room.
    pub fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; FIELDS_MAX])
    }
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fields")
    }
}

/// What is configured and matters to the gate.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// Bytes of a head.
    pub head_max: usize,
    /// Name of our route cookie, where there is one.
    pub route_cookie: Option<&'a str>,
    /// Other virtual directories are served.
    pub has_vdirs: bool,
}

/// Reads a head. `Ok(None)`: it is not complete yet. About 0.8 µs for an Execute of Outlook's.
///
/// # Errors
/// What two parsers could read differently, what is too large, and what this door does not serve.
pub fn read<'h, 'b>(
    bytes: &'b [u8],
    gate: Gate<'_>,
    room: &'h mut Fields<'b>,
) -> Result<Option<RequestHead<'h, 'b>>, Refusal> {
    let mut parsed = httparse::Request::new(&mut []);
    let outcome = parsed.parse_with_uninit_headers(bytes, &mut room.0);
    let length = match outcome {
        Ok(Status::Complete(length)) if length <= gate.head_max => length,
        Ok(Status::Partial) if bytes.len() < gate.head_max => return Ok(None),
        Ok(_) => {
            return Err(Refusal::HeadTooLarge {
                limit: gate.head_max,
            });
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::Malformed("too many header fields"));
        }
        Err(httparse::Error::Version) => return Err(Refusal::Malformed("not HTTP/1.1")),
        Err(_) => return Err(Refusal::Malformed("syntax")),
    };
    if has_bare_line_feed(bytes.get(..length).unwrap_or_default()) {
        return Err(Refusal::Malformed("bare line feed"));
    }
    let method = match parsed.method.unwrap_or_default() {
        "POST" => Method::Post,
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        word => match (rpch::Verb::read(word.as_bytes()), Verb::read(word)) {
            (Some(verb), _) => Method::Rpc(verb),
            (None, Some(verb)) if gate.has_vdirs => Method::Other(verb),
            (None, _) => return Err(Refusal::MethodNotAllowed),
        },
    };
    let fields: &'h [Header<'b>] = parsed.headers;
    let facts = facts(fields, gate)?;
    let target = Target::read_with(parsed.path.unwrap_or_default(), gate.has_vdirs)?;
    match (parsed.version, target.place) {
        (Some(1), _) => {}
        // Load balancers still ask for health in HTTP/1.0.
        (Some(0), Place::Health(_)) if facts.body == BodyLength::Counted(0) => {}
        _ => return Err(Refusal::Malformed("not HTTP/1.1")),
    }
    if parsed.version == Some(1) && facts.host.is_none() {
        return Err(Refusal::Malformed("no Host"));
    }
    match (target.place, method) {
        (Place::Mapi(_), Method::Post)
        | (Place::Health(_), Method::Get | Method::Head)
        // Which of them, it says itself: where Outlook Anywhere is off, there is no such path.
        | (Place::Rpc(_), _)
        // Which of them a directory takes is configured.
        | (Place::Vdir(_), _) => {}
        (Place::Autodiscover(Dialect::Pox), Method::Post | Method::Get | Method::Head)
        | (Place::Autodiscover(Dialect::Soap), Method::Post)
        | (Place::Autodiscover(Dialect::Json), Method::Get | Method::Head) => {}
        _ => return Err(Refusal::MethodNotAllowed),
    }
    let is_bare = method.verb().is_some_and(|verb| !verb.has_body());
    if is_bare && facts.body != BodyLength::Counted(0) {
        return Err(Refusal::Malformed("body on GET"));
    }
    Ok(Some(RequestHead {
        length,
        method,
        target,
        host: facts.host.unwrap_or_default(),
        keep_alive: facts.keep_alive && parsed.version == Some(1),
        body: facts.body,
        expects_continue: facts.expects_continue,
        request_type: facts.request_type.unwrap_or(RequestType::Missing),
        request_id: facts.request_id,
        client_info: facts.client_info,
        user_agent: facts.user_agent,
        bytes: HeadBytes {
            total: length,
            line: first_line(bytes),
            ..facts.bytes
        },
        client_application: facts.client_application,
        authorization: facts.authorization,
        contexts: facts.contexts,
        route_cookie: facts.route_cookie,
        fields,
    }))
}

#[derive(Debug)]
struct Facts<'b> {
    host: Option<&'b str>,
    keep_alive: bool,
    body: BodyLength,
    expects_continue: bool,
    request_type: Option<RequestType>,
    request_id: Option<&'b [u8]>,
    client_info: Option<&'b [u8]>,
    user_agent: Option<&'b [u8]>,
    client_application: Option<&'b [u8]>,
    authorization: Option<&'b [u8]>,
    contexts: [Option<&'b [u8]>; 2],
    route_cookie: Option<&'b [u8]>,
    bytes: HeadBytes,
}

fn facts<'b>(fields: &[Header<'b>], gate: Gate<'_>) -> Result<Facts<'b>, Refusal> {
    let mut facts = Facts {
        host: None,
        keep_alive: true,
        body: BodyLength::Counted(0),
        expects_continue: false,
        request_type: None,
        request_id: None,
        client_info: None,
        user_agent: None,
        client_application: None,
        authorization: None,
        contexts: [None, None],
        route_cookie: None,
        bytes: HeadBytes::default(),
    };
    let (mut length, mut chunked) = (None, false);
    for Header { name, value } in fields.iter().copied() {
        if name.len() > NAME_MAX {
            return Err(Refusal::Malformed("header name too long"));
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is("host") => once(&mut facts.host, host(value)?, "Host twice")?,
            6 if is("cookie") => {
                facts.bytes.cookies += line_length(name, value);
                cookies(value, gate.route_cookie, &mut facts)?;
            }
            6 if is("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::ExpectationFailed);
                }
                facts.expects_continue = true;
            }
            10 if is("connection") => facts.keep_alive &= connection(value)?,
            10 if is("user-agent") => facts.user_agent = Some(value),
            11 if is("x-requestid") => once(&mut facts.request_id, value, "X-RequestId twice")?,
            12 if is("x-clientinfo") => once(&mut facts.client_info, value, "X-ClientInfo twice")?,
            13 if is("authorization") => {
                facts.bytes.authorization += line_length(name, value);
                once(&mut facts.authorization, value, "Authorization twice")?;
            }
            13 if is("x-requesttype") => {
                once(
                    &mut facts.request_type,
                    RequestType::read(value),
                    "X-RequestType twice",
                )?;
            }
            14 if is("content-length") => {
                let value = canonical_length(value).ok_or(Refusal::Malformed("Content-Length"))?;
                once(&mut length, value, "Content-Length twice")?;
            }
            17 if is("transfer-encoding") => {
                if chunked || value != b"chunked" {
                    return Err(Refusal::Malformed("Transfer-Encoding"));
                }
                chunked = true;
            }
            19 if is("x-clientapplication") => facts.client_application = Some(value),
            _ => {}
        }
    }
    facts.body = match (length, chunked) {
        (Some(_), true) => return Err(Refusal::Malformed("Content-Length and Transfer-Encoding")),
        (None, true) => BodyLength::Chunked,
        (length, false) => BodyLength::Counted(length.unwrap_or(0)),
    };
    Ok(facts)
}

fn once<T>(slot: &mut Option<T>, value: T, twice: &'static str) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::Malformed(twice)),
    }
}

/// The name without its port. Only letters a host name or an address can have.
pub(crate) fn host(value: &[u8]) -> Result<&str, Refusal> {
    let bad = Refusal::Malformed("Host");
    let text = std::str::from_utf8(value).map_err(|_not_text| bad.clone())?;
    let name = match text.strip_prefix('[') {
        Some(literal) => literal.split_once(']').ok_or(bad.clone())?.0,
        None => match text.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) => return Err(bad),
            None => text,
        },
    };
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if name.is_empty() || !name.bytes().all(plain) {
        Err(bad)
    } else {
        Ok(name)
    }
}

/// True where the connection stays. Nominating any field that is not the connection's own would ask us
/// to drop a field of the client's choice.
fn connection(value: &[u8]) -> Result<bool, Refusal> {
    let mut keep_alive = true;
    for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if !token.is_empty() && !fields::may_be_nominated(token) {
            return Err(Refusal::Malformed("Connection nominates a header field"));
        }
        keep_alive &= !token.eq_ignore_ascii_case(b"close");
    }
    Ok(keep_alive)
}

fn cookies<'b>(line: &'b [u8], route: Option<&str>, facts: &mut Facts<'b>) -> Result<(), Refusal> {
    for (name, value) in pairs(line) {
        // Some servers read cookie names without regard to case: what they take for a context cookie,
        // so must we.
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let slot = if is(Flavour::Exchange.cookies().context) {
            &mut facts.contexts[0]
        } else if is(Flavour::Gromox.cookies().context) {
            &mut facts.contexts[1]
        } else if route.is_some_and(is) {
            &mut facts.route_cookie
        } else {
            continue;
        };
        // Two contexts would let two readers choose two sessions.
        if slot.replace(value).is_some_and(|before| before != value) {
            return Err(Refusal::Malformed("two values of one session cookie"));
        }
    }
    Ok(())
}

/// `1*DIGIT`, no sign, no leading zero, no list: the one spelling every parser reads alike.
pub(crate) fn canonical_length(value: &[u8]) -> Option<u64> {
    let canonical = matches!(value, [b'0'] | [b'1'..=b'9', ..]) && value.len() <= 15;
    if !canonical || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        value
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')),
    )
}

/// httparse takes a lone LF as a line end; a server may not.
pub(crate) fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head)
        .any(|at| at.checked_sub(1).and_then(|before| head.get(before)) != Some(&b'\r'))
}

/// What we say of a request to the server.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The client's address, as text.
    pub client: &'a str,
    /// `https`, or `http` from a plain listener.
    pub scheme: &'a str,
    /// The `Authorization` the server gets.
    pub authorization: Option<&'a [u8]>,
    /// The name of a field that is ours: what a client sends under it stays here.
    pub own: Option<&'a str>,
    /// A field of ours with the user's name.
    pub user: Option<(&'a str, &'a str)>,
    /// Leave every cookie out: another server set them. Exchange would follow its `X-BackEndCookie`
    /// back there, and gromox refuses a Connect that brings cookies it does not know.
    pub strip_session_cookies: bool,
    /// Name of our route cookie, which goes no further.
    pub route_cookie: Option<&'a str>,
}

impl RequestHead<'_, '_> {
    /// A field that is not among the facts; the first of several. Looks through all of them.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        fields
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// Appends the head a server gets, without `Content-Length` and the empty line; see [`finish`].
    /// Returns its bytes so far.
    pub fn write(&self, with: &Forwarding<'_>, out: &mut Vec<u8>) -> HeadBytes {
        let begin = out.len();
        // What MAPI and Autodiscover bring to a server is posted, however it was asked for.
        let method = match self.method {
            Method::Rpc(verb) => verb.as_str(),
            Method::Post | Method::Get | Method::Head | Method::Other(_) => "POST",
        };
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        self.target.write(out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let mut bytes = HeadBytes {
            line: out.len() - begin,
            ..HeadBytes::default()
        };
        for Header { name, value } in self.fields {
            if name.eq_ignore_ascii_case("cookie") {
                if !with.strip_session_cookies {
                    let before = out.len();
                    let passes = |name: &[u8]| fields::cookie_passes(name, with.route_cookie);
                    write_cookies(value, passes, out);
                    bytes.cookies += out.len() - before;
                }
            } else if !name.eq_ignore_ascii_case("authorization")
                && fields::of_request(name, with.own) == Fate::Pass
            {
                line(out, name.as_bytes(), value);
            }
        }
        if let Some(value) = with.authorization {
            line(out, b"Authorization", value);
            bytes.authorization = line_length("Authorization", value);
        }
        if let Some((field, user)) = with.user {
            line(out, field.as_bytes(), user.as_bytes());
        }
        line(out, b"X-Forwarded-For", with.client.as_bytes());
        line(out, b"X-Forwarded-Proto", with.scheme.as_bytes());
        bytes.total = out.len() - begin;
        bytes
    }
}

/// Ends a head that [`RequestHead::write`] began.
pub fn finish(length: u64, out: &mut Vec<u8>) {
    line(
        out,
        b"Content-Length",
        itoa::Buffer::new().format(length).as_bytes(),
    );
    out.extend_from_slice(b"\r\n");
}

/// Bytes of a header line as it is mostly written.
pub(crate) fn line_length(name: &str, value: &[u8]) -> usize {
    name.len() + value.len() + 4
}

/// Bytes of the first line, its end included.
pub(crate) fn first_line(head: &[u8]) -> usize {
    memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1)
}

/// Appends one header line.
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// One `Cookie` line in, at most one out, order kept.
pub(super) fn write_cookies(value: &[u8], passes: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(b"Cookie: ");
    let empty = out.len();
    for (name, value) in pairs(value) {
        if !passes(name) {
            continue;
        }
        if out.len() > empty {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
    if out.len() == empty {
        out.truncate(begin);
    } else {
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
