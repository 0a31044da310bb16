//! A request of HTTP/2 written as the one of HTTP/1.1 that everybody reads alike. RFC 9113 section 8.3
//!
//! Whatever HTTP/1.1 could not say, or could say in two ways, is refused here, also where the crate that
//! reads the frames refuses it before: two requests out of one is how front ends were passed by.

use super::guards::{Guard, stands};
use crate::relay::Wrong;
use crate::relay::head::{canonical_length, host};
use crate::vdir::Verb;

/// A request as its frames have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a, F> {
    pub(super) method: &'a [u8],
    pub(super) scheme: Option<&'a [u8]>,
    pub(super) authority: Option<&'a [u8]>,
    pub(super) path: &'a [u8],
    /// Names and values in their order.
    pub(super) fields: F,
}

/// The same as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// The head, but for what says where the body ends and for the empty line.
    pub(super) text: Vec<u8>,
    /// Bytes of the body, where it says so.
    pub(super) length: Option<u64>,
}

impl<'a, F: Iterator<Item = (&'a [u8], &'a [u8])>> Asked<'a, F> {
    /// Writes it. `name`: what the connection was made for.
    ///
    /// # Errors
    /// Why it is not to be written.
    pub(super) fn write(self, name: &str) -> Result<Written, Wrong> {
        let Self {
            method,
            scheme,
            authority,
            path,
            fields,
        } = self;
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) || method == b"CONNECT" {
            return Err(Wrong::Malformed("method"));
        }
        if !is_origin_form(path) {
            return Err(Wrong::Malformed(":path"));
        }
        let mut host_field = None;
        let (mut cookies, mut length): (Option<Vec<u8>>, _) = (None, None);
        let mut lines = Vec::with_capacity(512);
        for (name, value) in fields {
            if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
                return Err(Wrong::Malformed("field name"));
            }
            if name.iter().any(u8::is_ascii_uppercase) {
                return Err(Wrong::Malformed("field name in capitals"));
            }
            if !is_value(value) {
                return Err(Wrong::Malformed("field value"));
            }
            match name {
                b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
                | b"upgrade" | b"http2-settings" => {
                    return Err(Wrong::Malformed("field of a connection"));
                }
                b"te" if value == b"trailers" => {}
                b"te" => return Err(Wrong::Malformed("TE")),
                b"host" if host_field.replace(value).is_some() => {
                    return Err(Wrong::Malformed("host twice"));
                }
                b"host" => {}
                b"content-length" => {
                    let value =
                        canonical_length(value).ok_or(Wrong::Malformed("content-length"))?;
                    if length.replace(value).is_some() {
                        return Err(Wrong::Malformed("content-length twice"));
                    }
                }
                b"cookie" => {
                    // Crumbs of one cookie line. RFC 9113 section 8.2.3
                    if let Some(before) = &mut cookies {
                        before.extend_from_slice(b"; ");
                    }
                    cookies.get_or_insert_default().extend_from_slice(value);
                }
                _ => line(&mut lines, name, value),
            }
        }
        // Where a proxy wrote it out of HTTP/1.1 it may have left `:authority` out; the crate then keeps the
        // scheme to itself. RFC 9113 section 8.3.1
        let whom = match (authority, scheme, host_field) {
            (Some(_), Some(scheme), _) if scheme != b"https" && stands(Guard::Scheme) => {
                return Err(Wrong::Malformed(":scheme"));
            }
            (Some(authority), _, Some(host))
                if !authority.eq_ignore_ascii_case(host) && stands(Guard::Host) =>
            {
                return Err(Wrong::Malformed("host is not :authority"));
            }
            (Some(whom), ..) | (None, _, Some(whom)) => whom,
            (None, _, None) => return Err(Wrong::Malformed("no :authority")),
        };
        let asked_for = host(whom).map_err(|_refusal| Wrong::Malformed(":authority"))?;
        if !asked_for.eq_ignore_ascii_case(name) && stands(Guard::Authority) {
            return Err(Wrong::Misdirected);
        }
        let more = cookies.as_ref().map_or(0, Vec::len);
        let mut text = Vec::with_capacity(lines.len() + more + path.len() + 128);
        text.extend_from_slice(method);
        text.push(b' ');
        text.extend_from_slice(path);
        text.extend_from_slice(b" HTTP/1.1\r\n");
        line(&mut text, b"host", whom);
        text.append(&mut lines);
        if let Some(cookies) = cookies {
            line(&mut text, b"cookie", &cookies);
        }
        Ok(Written { text, length })
    }
}

impl Written {
    /// Says where the body ends, and ends the head. True: the body is to be written in chunks. `has_body`: there
    /// is one.
    pub(super) fn finish(&mut self, has_body: bool) -> bool {
        let is_chunked = match (self.length, has_body) {
            (Some(length), _) => {
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(length).as_bytes();
                line(&mut self.text, b"content-length", digits);
                false
            }
            (None, true) => {
                line(&mut self.text, b"transfer-encoding", b"chunked");
                true
            }
            (None, false) => false,
        };
        self.text.extend_from_slice(b"\r\n");
        is_chunked
    }
}

/// True where a body would be nothing anybody reads.
pub(super) fn is_bare(method: &str) -> bool {
    Verb::read(method).is_some_and(|verb| !verb.has_body())
}

fn line(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    text.extend_from_slice(name);
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

/// RFC 9110 section 5.6.2
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// A path and a query, and nothing that ends a request line. RFC 9112 section 3.2.1
fn is_origin_form(path: &[u8]) -> bool {
    path.starts_with(b"/")
        && path
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'#')
}

/// No line end, nothing that a terminal minds, and no blank around it. RFC 9113 section 8.2.1
fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_wrapped = is_blank(value.first()) || is_blank(value.last());
    (!is_wrapped || !stands(Guard::Values))
        && value
            .iter()
            .all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::head::{BodyLength, Fields, Gate, RequestHead, read};
    use proptest::prelude::*;

    const NAME: &str = "mail.contoso.test";

    type Pair<'a> = (&'a [u8], &'a [u8]);

    fn asked<'a>(
        path: &'a [u8],
        fields: &'a [Pair<'a>],
    ) -> Asked<'a, impl Iterator<Item = Pair<'a>> + Clone> {
        Asked {
            method: b"POST",
            scheme: Some(b"https"),
            authority: Some(NAME.as_bytes()),
            path,
            fields: fields.iter().copied(),
        }
    }

    fn written(fields: &[Pair<'_>]) -> Result<String, Wrong> {
        let written = asked(b"/ews/x?y=z", fields).write(NAME)?;
        Ok(String::from_utf8_lossy(&written.text).into_owned())
    }

    fn wrong(fields: &[Pair<'_>]) -> &'static str {
        match written(fields) {
            Err(Wrong::Malformed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_written_in_its_order_with_its_crumbs_in_one_line() {
        let fields: [Pair<'_>; 6] = [
            (b"cookie", b"a=1"),
            (b"user-agent", b"curl"),
            (b"te", b"trailers"),
            (b"cookie", b"b=2; c=3"),
            (b"x-empty", b""),
            (b"host", b"MAIL.contoso.test"),
        ];
        assert_eq!(
            written(&fields).unwrap(),
            "POST /ews/x?y=z HTTP/1.1\r\nhost: mail.contoso.test\r\nuser-agent: curl\r\nx-empty: \r\n\
             cookie: a=1; b=2; c=3\r\n"
        );
    }

    #[test]
    fn a_body_is_counted_where_it_says_so_and_else_in_chunks() {
        for (fields, has_body, end) in [
            (
                &[(&b"content-length"[..], &b"12"[..])][..],
                true,
                "content-length: 12\r\n\r\n",
            ),
            (&[], true, "transfer-encoding: chunked\r\n\r\n"),
            (&[], false, "test\r\n\r\n"),
        ] {
            let mut written = asked(b"/ews/x", fields).write(NAME).unwrap();
            let is_chunked = written.finish(has_body);
            assert!(String::from_utf8_lossy(&written.text).ends_with(end));
            assert_eq!(is_chunked, end.contains("chunked"));
        }
    }

    #[test]
    fn what_would_be_a_second_request_is_refused() {
        for value in [
            &b"x\r\ny: z"[..],
            b"x\ny",
            b"x\ry",
            b"x\0y",
            b"x\x7fy",
            b"x\x0by",
            b" x",
            b"x ",
            b"\tx",
            b"x\t",
            b" ",
        ] {
            assert_eq!(wrong(&[(b"x-a", value)]), "field value", "{value:?}");
            assert_eq!(wrong(&[(b"cookie", value)]), "field value", "{value:?}");
        }
        for name in [
            &b""[..],
            b"x y",
            b"x:y",
            b":path",
            b"x\r\ny",
            b"x\0",
            b"\xe9",
            b"x\ty",
            b"x,y",
            b"(x)",
        ] {
            assert_eq!(wrong(&[(name, b"x")]), "field name", "{name:?}");
        }
        assert_eq!(wrong(&[(b"X-a", b"x")]), "field name in capitals");
    }

    #[test]
    fn fields_of_a_connection_are_refused() {
        for name in [
            &b"connection"[..],
            b"keep-alive",
            b"proxy-connection",
            b"transfer-encoding",
            b"upgrade",
            b"http2-settings",
        ] {
            for value in [&b"chunked"[..], b"close", b"h2c", b""] {
                assert_eq!(wrong(&[(name, value)]), "field of a connection", "{name:?}");
            }
        }
        for value in [&b"gzip"[..], b"trailers, gzip", b"Trailers", b""] {
            assert_eq!(wrong(&[(b"te", value)]), "TE");
        }
    }

    #[test]
    fn a_length_is_said_once_and_in_one_way() {
        for value in [
            &b"+1"[..],
            b"01",
            b"1, 1",
            b"0x1",
            b"",
            b"-1",
            b"1 1",
            b"9999999999999999",
        ] {
            assert_eq!(
                wrong(&[(b"content-length", value)]),
                "content-length",
                "{value:?}"
            );
        }
        let twice: [Pair<'_>; 2] = [(b"content-length", b"1"), (b"content-length", b"1")];
        assert_eq!(wrong(&twice), "content-length twice");
    }

    #[test]
    fn a_path_is_in_origin_form() {
        for path in [
            &b""[..],
            b"*",
            b"ews",
            b"https://mail.contoso.test/ews/x",
            b"//evil.test/ews\r\n",
            b"/ews x",
            b"/ews\tx",
            b"/ews\r\nX: y",
            b"/ews\0",
            b"/ews#x",
            b"/ews\xc3\xa9",
            b"/ews HTTP/1.1\r\nHost: evil\r\n\r\nGET /x",
            b"\\ews",
            b"?x",
        ] {
            let outcome = asked(path, &[]).write(NAME);
            assert_eq!(outcome, Err(Wrong::Malformed(":path")), "{path:?}");
        }
    }

    #[test]
    fn methods_are_tokens_and_tunnels_are_not_opened() {
        for method in [&b""[..], b"GET /x", b"GE\r\nT", b"CONNECT", b"G:T", b"\xe9"] {
            let asked = Asked {
                method,
                ..asked(b"/ews", &[])
            };
            assert_eq!(
                asked.write(NAME),
                Err(Wrong::Malformed("method")),
                "{method:?}"
            );
        }
    }

    #[test]
    fn the_host_is_the_one_the_connection_was_made_for() {
        let of = |authority: Option<&'static str>, fields: &[Pair<'static>]| {
            let asked = Asked {
                authority: authority.map(str::as_bytes),
                scheme: authority.map(|_| &b"https"[..]),
                ..asked(b"/ews", fields)
            };
            asked.write(NAME).map(|_| ())
        };
        assert_eq!(of(Some("MAIL.contoso.test:443"), &[]), Ok(()));
        assert_eq!(of(None, &[(b"host", b"mail.contoso.test")]), Ok(()));
        let malformed = |why| Err(Wrong::Malformed(why));
        assert_eq!(of(None, &[]), malformed("no :authority"));
        for other in [
            "owa.contoso.test",
            "contoso.test",
            "evil.mail.contoso.test",
            "mail.contoso.test.",
        ] {
            assert_eq!(of(Some(other), &[]), Err(Wrong::Misdirected), "{other}");
        }
        assert_eq!(
            of(None, &[(b"host", b"owa.contoso.test")]),
            Err(Wrong::Misdirected)
        );
        for broken in [
            "",
            "u@mail.contoso.test",
            "mail.contoso.test:x",
            "mail contoso",
            "a/b",
        ] {
            assert_eq!(of(Some(broken), &[]), malformed(":authority"), "{broken}");
        }
        for (authority, host) in [
            (NAME, &b"owa.contoso.test"[..]),
            (NAME, b"mail.contoso.test:443"),
            ("owa", b"mail.contoso.test"),
        ] {
            assert_eq!(
                of(Some(authority), &[(b"host", host)]),
                malformed("host is not :authority")
            );
        }
        let twice: [Pair<'_>; 2] = [(b"host", NAME.as_bytes()), (b"host", NAME.as_bytes())];
        assert_eq!(of(Some(NAME), &twice), malformed("host twice"));
    }

    #[test]
    fn what_did_not_come_by_tls_is_refused() {
        for scheme in [&b"http"[..], b"HTTPS", b"wss", b""] {
            let asked = Asked {
                scheme: Some(scheme),
                ..asked(b"/ews", &[])
            };
            assert_eq!(asked.write(NAME), Err(Wrong::Malformed(":scheme")));
        }
    }

    const GATE: Gate<'_> = Gate {
        head_max: 1 << 20,
        route_cookie: None,
        has_vdirs: true,
    };

    /// What the gate reads is what was asked for, and nothing is left over.
    fn reads_alike(
        text: &[u8],
        method: &[u8],
        path: &[u8],
        fields: &[(Vec<u8>, Vec<u8>)],
        length: Option<u64>,
    ) {
        let mut room = Fields::new();
        let head: RequestHead<'_, '_> = match read(text, GATE, &mut room) {
            Ok(Some(head)) => head,
            // The gate may say no to it. What it must not do is to wait for more of it.
            Err(_) => return,
            Ok(None) => panic!("half a head: {:?}", String::from_utf8_lossy(text)),
        };
        assert_eq!(head.length, text.len());
        assert_eq!(
            head.method.verb().map(Verb::as_str).map(str::as_bytes),
            Some(method)
        );
        let mut target = Vec::new();
        head.target.write(&mut target);
        assert!(target.eq_ignore_ascii_case(path));
        assert_eq!(head.host, NAME);
        assert_eq!(head.body, BodyLength::Counted(length.unwrap_or(0)));
        let told = head.fields.iter();
        let mut told: Vec<_> = told
            .map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec()))
            .filter(|(name, _)| name != b"host" && name != b"content-length" && name != b"cookie")
            .collect();
        let is_kept =
            |name: &[u8]| !matches!(name, b"host" | b"content-length" | b"cookie" | b"te");
        let mut given: Vec<_> = fields
            .iter()
            .filter(|(name, _)| is_kept(name))
            .cloned()
            .collect();
        told.sort();
        given.sort();
        assert_eq!(told, given);
        let crumbs = fields.iter().filter(|(name, _)| name == b"cookie");
        let crumbs: Vec<_> = crumbs.map(|(_, value)| value.as_slice()).collect();
        let cookie = head.field("cookie").unwrap_or_default();
        assert_eq!(cookie, crumbs.join(&b"; "[..]));
    }

    /// Names, mostly some that mean something.
    fn names() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => prop::sample::select(vec![
                "host", "cookie", "content-length", "te", "transfer-encoding", "connection", "authorization",
                "expect", "user-agent", "x-requestid", "upgrade", "accept", "x_y",
            ])
            .prop_map(|name| name.as_bytes().to_vec()),
            3 => "[a-z][a-z0-9-]{0,20}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..12),
        ]
    }

    fn values() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            2 => prop::sample::select(vec![
                "mail.contoso.test", "a=b", "12", "trailers", "chunked", "close", "", "100-continue", "Basic eA==",
                "a\r\nb: c", "x\r\n\r\nGET /ews HTTP/1.1\r\n\r\n",
            ])
            .prop_map(|value| value.as_bytes().to_vec()),
            3 => "[ -~]{0,30}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..12),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn any_list_is_refused_or_is_one_head_that_the_gate_reads_to_the_same_fields(
            method in prop_oneof![4 => Just(b"POST".to_vec()), 1 => Just(b"GET".to_vec()), 1 => proptest::collection::vec(any::<u8>(), 0..6)],
            path in prop_oneof![
                4 => "/ews/[a-z0-9/.%?=&@;]{0,20}".prop_map(String::into_bytes),
                1 => proptest::collection::vec(any::<u8>(), 0..30),
            ],
            fields in proptest::collection::vec((names(), values()), 0..12),
        ) {
            let pairs: Vec<Pair<'_>> = fields.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            let asked = Asked { method: &method, ..asked(&path, &pairs) };
            if let Ok(mut written) = asked.write(NAME) {
                let length = written.length;
                prop_assert!(!written.finish(length.is_some()));
                reads_alike(&written.text, &method, &path, &fields, length);
            }
        }
    }
}
