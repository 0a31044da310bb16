//! The head a server gets below another virtual directory: the client's, less what only we may say.

use super::{Guard, stands};
use crate::accounting::HeadBytes;
use crate::relay::fields::{self, Fate};
use crate::relay::head::{RequestHead, line, line_length, write_cookies};
use crate::vdir::Verb;
use httparse::Header;

/// What we say of a request to the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarded<'a> {
    /// The client's address, as text.
    pub(super) client: &'a str,
    /// `https`, or `http` from a plain listener.
    pub(super) scheme: &'a str,
    /// The `Authorization` the server gets.
    pub(super) authorization: Option<&'a [u8]>,
    /// The name of a field that is ours: what a client sends under it stays here.
    pub(super) own: Option<&'a str>,
    /// A field of ours with the user's name.
    pub(super) user: Option<(&'a str, &'a str)>,
    /// Name of our route cookie, which goes no further.
    pub(super) route_cookie: Option<&'a str>,
    /// The mailbox that a header named, and that was gone by.
    pub(super) anchor: Option<&'a str>,
    /// How it was asked.
    pub(super) verb: Verb,
    /// The client asks for a tunnel.
    pub(super) is_upgrade: bool,
}

/// Appends the head, without what says where the body ends and without the empty line.
pub(super) fn write(
    head: &RequestHead<'_, '_>,
    with: &Forwarded<'_>,
    out: &mut Vec<u8>,
) -> HeadBytes {
    let begin = out.len();
    out.extend_from_slice(with.verb.as_str().as_bytes());
    out.push(b' ');
    head.target.write(out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut bytes = HeadBytes {
        line: out.len() - begin,
        ..HeadBytes::default()
    };
    for Header { name, value } in head.fields {
        if name.eq_ignore_ascii_case("cookie") {
            let before = out.len();
            let passes = |name: &[u8]| {
                let is_harmless =
                    !fields::chooses_server(name) && fields::cookie_passes(name, with.route_cookie);
                is_harmless || !stands(Guard::Cookies)
            };
            write_cookies(value, passes, out);
            bytes.cookies += out.len() - before;
        } else if !name.eq_ignore_ascii_case("authorization") && passes(name, with.own) {
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
    if let Some(anchor) = with.anchor {
        line(out, b"X-AnchorMailbox", anchor.as_bytes());
    }
    if with.is_upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    }
    line(out, b"X-Forwarded-For", with.client.as_bytes());
    line(out, b"X-Forwarded-Proto", with.scheme.as_bytes());
    bytes.total = out.len() - begin;
    bytes
}

fn passes(name: &str, own: Option<&str>) -> bool {
    fields::of_request(name, own) == Fate::Pass
        || (!stands(Guard::Claims) && fields::is_claim_in_query(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::head::{Fields, Gate, read};

    const PLAIN: Forwarded<'_> = Forwarded {
        client: "192.0.2.7",
        scheme: "https",
        authorization: None,
        own: None,
        user: None,
        route_cookie: Some("MapigateRoute"),
        anchor: None,
        verb: Verb::Post,
        is_upgrade: false,
    };

    fn written(head: &str, with: &Forwarded<'_>) -> String {
        let gate = Gate {
            head_max: 65_536,
            route_cookie: Some("MapigateRoute"),
            has_vdirs: true,
        };
        let mut room = Fields::new();
        let head = read(head.as_bytes(), gate, &mut room).unwrap().unwrap();
        let with = Forwarded {
            verb: head.method.verb().unwrap(),
            ..*with
        };
        let mut out = Vec::new();
        write(&head, &with, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_is_passed_on_as_it_is_but_for_what_only_we_may_say() {
        let head = "PUT /api/v2.0/me?x=%2F HTTP/1.1\r\nHost: mail.contoso.test\r\nAuthorization: Basic eA==\r\n\
                    If-Match: \"a\"\r\nX-CommonAccessToken: x\r\nX_Rps_CAT: x\r\nX-HTTP-Method-Override: DELETE\r\n\
                    Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n\
                    Cookie: a=1; X-BEResource=mbx9; X-BackEndCookie=b; MapigateRoute=r; c=d\r\n\
                    cookie: X-BackEndOverrideCookie=mbx9~1\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Length: 0\r\n\r\n";

        assert_eq!(
            written(head, &PLAIN),
            "PUT /api/v2.0/me?x=%2F HTTP/1.1\r\nHost: mail.contoso.test\r\nIf-Match: \"a\"\r\n\
             Cookie: a=1; c=d\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
        );
    }

    #[test]
    fn what_we_say_ourselves_is_said_once() {
        let head = "GET /ews/ HTTP/1.1\r\nHost: mail.contoso.test\r\nX-AnchorMailbox: evil@contoso.test\r\n\
                    X-Site-User: evil\r\nAuthorization: Basic eA==\r\n\r\n";
        let with = Forwarded {
            authorization: Some(b"Negotiate YII="),
            own: Some("X-Site-User"),
            user: Some(("X-Site-User", "user1@contoso.test")),
            anchor: Some("user2@contoso.test"),
            is_upgrade: true,
            ..PLAIN
        };

        assert_eq!(
            written(head, &with),
            "GET /ews/ HTTP/1.1\r\nHost: mail.contoso.test\r\nAuthorization: Negotiate YII=\r\n\
             X-Site-User: user1@contoso.test\r\nX-AnchorMailbox: user2@contoso.test\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
        );
    }
}
