//! The head a client gets below another virtual directory: the server's, less what tells of the site's inside.

use super::{Guard, stands};
use crate::accounting::HeadBytes;
use crate::autodiscover::{host_of, with_authority};
use crate::mapi::cookies::set_cookie;
use crate::mapi::framing::Body;
use crate::relay::answer::AnswerHead;
use crate::relay::fields::{self, Fate};
use crate::relay::head::{canonical_length, line, line_length};
use httparse::Header;
use std::borrow::Cow;

/// What we change on the way to the client.
pub(super) struct Outward<'a> {
    /// True for a host that is a mailbox server's.
    pub(super) is_back_end: &'a dyn Fn(&str) -> bool,
    /// The name the client asked for, which stands for any mailbox server's.
    pub(super) public: &'a str,
    /// Name of our cookie, which no server may set.
    pub(super) own_cookie: Option<&'a str>,
    /// Header lines of ours: challenges, the proof of a scheme, a cookie.
    pub(super) ours: [&'a str; 2],
    /// The answer has a head alone.
    pub(super) is_head: bool,
    /// The connection becomes a tunnel.
    pub(super) is_upgrade: bool,
    /// The connection ends after this answer.
    pub(super) close: bool,
}

/// Appends the head. Returns its bytes.
pub(super) fn write(
    head: &AnswerHead<'_, '_>,
    body: Body,
    with: &Outward<'_>,
    out: &mut Vec<u8>,
) -> HeadBytes {
    let begin = out.len();
    let mut bytes = HeadBytes::default();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    bytes.line = out.len() - begin;
    let mut length = None;
    for Header { name, value } in head.fields {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("content-length") {
            length = canonical_length(value);
        }
        // What else is spoken where a mailbox server is, is not spoken here.
        let stays =
            fields::of_answer(name) == Fate::Drop || is("www-authenticate") || is("alt-svc");
        if stays && (stands(Guard::Answers) || !name.starts_with("X-")) {
            continue;
        }
        if is("set-cookie") {
            if let Some(kept) = cookie(value, with) {
                line(out, name.as_bytes(), &kept);
                bytes.cookies += line_length(name, &kept);
            }
            continue;
        }
        if is("location") || is("content-location") || is("x-ms-location") {
            line(out, name.as_bytes(), &location(value, with));
            continue;
        }
        line(out, name.as_bytes(), value);
    }
    for ours in with.ours {
        out.extend_from_slice(ours.as_bytes());
    }
    let mut say_length = |length: u64| {
        let mut digits = itoa::Buffer::new();
        line(out, b"Content-Length", digits.format(length).as_bytes());
    };
    let has_none = head.status < 200 || head.status == 204 || head.status == 304;
    match body {
        Body::Chunked(_) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Body::Length(length) => say_length(length),
        Body::Done if with.is_head => {
            if let Some(length) = length {
                say_length(length);
            }
        }
        Body::Done if !has_none => say_length(0),
        Body::Done | Body::UntilClose => {}
    }
    if with.is_upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if with.close || body == Body::UntilClose {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    bytes.total = out.len() - begin;
    bytes
}

/// A cookie as the client gets it; `None`: not at all. One for the domain of a mailbox server is for the
/// name that was asked for.
fn cookie<'v>(value: &'v [u8], with: &Outward<'_>) -> Option<Cow<'v, [u8]>> {
    if !stands(Guard::Answers) {
        return Some(Cow::Borrowed(value));
    }
    let (name, _) = set_cookie(value)?;
    let name = name.trim_ascii();
    if fields::chooses_server(name) || !fields::cookie_passes(name, with.own_cookie) {
        return None;
    }
    let is_inside = |attribute: &[u8]| {
        let (name, domain) = match memchr::memchr(b'=', attribute) {
            Some(at) => attribute.split_at(at),
            None => (attribute, &b""[..]),
        };
        let domain = std::str::from_utf8(domain).unwrap_or_default();
        let domain = domain
            .trim_start_matches('=')
            .trim()
            .trim_start_matches('.');
        name.trim_ascii().eq_ignore_ascii_case(b"domain") && (with.is_back_end)(domain)
    };
    let attributes = || value.split(|byte| *byte == b';');
    if !attributes().skip(1).any(is_inside) {
        return Some(Cow::Borrowed(value));
    }
    let mut kept = attributes();
    let first = kept.next().unwrap_or_default();
    let rest = kept.filter(|attribute| !is_inside(attribute));
    let parts: Vec<_> = std::iter::once(first).chain(rest).collect();
    Some(Cow::Owned(parts.join(&b';')))
}

/// Where the client is sent, never to a mailbox server.
fn location<'v>(value: &'v [u8], with: &Outward<'_>) -> Cow<'v, [u8]> {
    let Ok(text) = std::str::from_utf8(value) else {
        return Cow::Borrowed(value);
    };
    // `//host/path` is a URL without its scheme.
    let whole = match text.starts_with("//") {
        true => Cow::Owned(format!("https:{text}")),
        false => Cow::Borrowed(text),
    };
    match (with.is_back_end)(host_of(&whole)) {
        true => Cow::Owned(with_authority(&whole, with.public).into_bytes()),
        false => Cow::Borrowed(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapi::Flavour;
    use crate::relay::answer::read;
    use crate::relay::head::Fields;

    fn written(head: &str, is_head: bool) -> String {
        let is_back_end = |host: &str| host.starts_with("mbx1");
        let with = Outward {
            is_back_end: &is_back_end,
            public: "mail.contoso.test",
            own_cookie: Some("MapigateRoute"),
            ours: ["", "Set-Cookie: o=1\r\n"],
            is_head,
            is_upgrade: false,
            close: false,
        };
        let mut room = Fields::new();
        let head = read(head.as_bytes(), Flavour::Exchange, &mut room)
            .unwrap()
            .unwrap();
        let body = if is_head { Body::Done } else { head.body };
        let mut out = Vec::new();
        write(&head, body, &with, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_tells_of_the_inside() {
        let head = "HTTP/1.1 451 Moved\r\nX-MS-Location: https://mbx1.contoso.test:444/Microsoft-Server-ActiveSync\r\n\
                    Location: //mbx1/owa/?x=y\r\nContent-Location: /owa/x\r\nServer: Microsoft-IIS/10.0\r\n\
                    X-FEServer: MBX1\r\nX-CalculatedBETarget: mbx1\r\nX-DiagInfo: MBX1\r\nX-BEServer: MBX1\r\n\
                    X-Powered-By: ASP.NET\r\nWWW-Authenticate: Negotiate\r\nAlt-Svc: h3=\":443\"\r\n\
                    Set-Cookie: UC=1; Domain=.mbx1.contoso.test; path=/; secure\r\n\
                    Set-Cookie: keep=1; domain=contoso.test; path=/owa\r\nSet-Cookie: MapigateRoute=evil\r\n\
                    Set-Cookie: X-BackEndCookie=x; path=/owa\r\nset-cookie: X-BackEndOverrideCookie=mbx1~1\r\n\
                    X-OWA-Version: 15.1\r\nContent-Length: 0\r\n\r\n";

        assert_eq!(
            written(head, false),
            "HTTP/1.1 451 Moved\r\nX-MS-Location: https://mail.contoso.test/Microsoft-Server-ActiveSync\r\n\
             Location: https://mail.contoso.test/owa/?x=y\r\nContent-Location: /owa/x\r\n\
             Set-Cookie: UC=1; path=/; secure\r\nSet-Cookie: keep=1; domain=contoso.test; path=/owa\r\n\
             X-OWA-Version: 15.1\r\nSet-Cookie: o=1\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_place_outside_of_the_site_is_left_alone() {
        let head = "HTTP/1.1 302 Found\r\nLocation: https://login.fabrikam.test/?x\r\nContent-Length: 0\r\n\r\n";
        assert!(written(head, false).contains("Location: https://login.fabrikam.test/?x\r\n"));
    }

    #[test]
    fn a_head_alone_keeps_the_length_of_what_it_stands_for() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\n";
        assert!(written(head, true).contains("Content-Length: 123\r\n"));
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            written(head, true),
            "HTTP/1.1 200 OK\r\nSet-Cookie: o=1\r\n\r\n"
        );
        let head = "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n";
        assert!(!written(head, false).contains("Content-Length"));
    }
}
