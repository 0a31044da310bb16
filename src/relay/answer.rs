//! An answer's head, read from the server and written anew for the client.

use super::device::{self, Device};
use super::fields::{self, Fate};
use super::head::{Fields, canonical_length, first_line, has_bare_line_feed, line, line_length};
use crate::accounting::HeadBytes;
use crate::mapi::cookies::set_cookie;
use crate::mapi::framing::Body;
use crate::mapi::{Flavour, ResponseCode};
use httparse::{Header, Status};
use std::time::Duration;

/// Bytes of an answer's head.
pub(crate) const HEAD_MAX: usize = 64 * 1024;
/// No server's timer is believed beyond this.
const TIMER_MAX_MS: u64 = 24 * 3600 * 1000;

/// What the door needs to know of an answer. Borrows from the buffer it was read from.
#[derive(Debug)]
pub(crate) struct AnswerHead<'h, 'b> {
    /// Bytes of the head, its empty line included.
    pub(crate) length: usize,
    /// HTTP status.
    pub(crate) status: u16,
    pub(super) reason: &'b str,
    /// Where the body ends.
    pub(crate) body: Body,
    /// The connection may carry another request afterwards.
    pub(crate) reusable: bool,
    /// `X-ResponseCode` in the server's own numbers.
    pub(crate) code: Option<ResponseCode>,
    /// `X-ExpirationInfo`. `[MS-OXCMAPIHTTP] 2.2.3.3.8`
    pub(crate) expiration: Option<Duration>,
    /// `X-PendingPeriod`. `[MS-OXCMAPIHTTP] 2.2.3.3.5`
    pub(crate) pending_period: Option<Duration>,
    /// The context cookie it sets, by its flavour's name; empty where it clears it.
    pub(crate) context: Option<&'b [u8]>,
    /// Its bytes by what they are.
    pub(crate) bytes: HeadBytes,
    echoes: Echoes,
    pub(crate) fields: &'h [Header<'b>],
}

/// Which of the echo headers are there.
#[derive(Clone, Copy, Debug, Default)]
struct Echoes {
    request_type: bool,
    request_id: bool,
    client_info: bool,
}

/// Reads a head. `Ok(None)`: it is not complete yet.
///
/// # Errors
/// What is wrong with it. Nothing of it may reach the client.
pub(crate) fn read<'h, 'b>(
    bytes: &'b [u8],
    flavour: Flavour,
    room: &'h mut Fields<'b>,
) -> Result<Option<AnswerHead<'h, 'b>>, &'static str> {
    let mut parsed = httparse::Response::new(&mut []);
    let outcome = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut room.0,
    );
    let length = match outcome {
        Ok(Status::Complete(length)) if length <= HEAD_MAX => length,
        Ok(Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(_) => return Err("head too large"),
        Err(_) => return Err("head is not HTTP"),
    };
    if has_bare_line_feed(bytes.get(..length).unwrap_or_default()) {
        return Err("bare line feed");
    }
    let status = parsed.code.unwrap_or_default();
    let fields: &'h [Header<'b>] = parsed.headers;
    let mut head = AnswerHead {
        length,
        status,
        reason: parsed.reason.unwrap_or_default(),
        body: Body::Done,
        reusable: parsed.version == Some(1),
        code: None,
        expiration: None,
        pending_period: None,
        context: None,
        bytes: HeadBytes {
            total: length,
            line: first_line(bytes),
            ..HeadBytes::default()
        },
        echoes: Echoes::default(),
        fields,
    };
    let (mut counted, mut chunked) = (None, false);
    let context = flavour.cookies().context.as_bytes();
    for Header { name, value } in fields.iter().copied() {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            10 if is("connection") => {
                head.reusable &= !says_close(value);
            }
            10 if is("set-cookie") => {
                head.bytes.cookies += line_length(name, value);
                if let Some((_, value)) = set_cookie(value).filter(|(name, _)| *name == context) {
                    head.context = Some(value);
                }
            }
            11 if is("x-requestid") => head.echoes.request_id = true,
            12 if is("x-clientinfo") => head.echoes.client_info = true,
            13 if is("x-requesttype") => head.echoes.request_type = true,
            14 if is("x-responsecode") => {
                head.code =
                    Some(ResponseCode::read(value).ok_or("X-ResponseCode is not a number")?);
            }
            14 if is("content-length") => {
                let value = canonical_length(value).ok_or("Content-Length")?;
                if counted.replace(value).is_some() {
                    return Err("Content-Length twice");
                }
            }
            15 if is("x-pendingperiod") => head.pending_period = milliseconds(value),
            16 if is("x-expirationinfo") => head.expiration = milliseconds(value),
            17 if is("transfer-encoding") => {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("Transfer-Encoding");
                }
                chunked = true;
            }
            _ => {}
        }
    }
    head.body = match (counted, chunked) {
        (Some(_), true) => return Err("Content-Length and Transfer-Encoding"),
        _ if status < 200 || status == 204 || status == 304 => Body::Done,
        (None, true) => Body::CHUNKED,
        (Some(length), false) => Body::of_length(length),
        (None, false) => Body::UntilClose,
    };
    head.reusable &= head.body != Body::UntilClose;
    Ok(Some(head))
}

fn says_close(value: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn milliseconds(value: &[u8]) -> Option<Duration> {
    canonical_length(value).map(|value| Duration::from_millis(value.min(TIMER_MAX_MS)))
}

/// What we change on the way to the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite<'a> {
    /// The code in the specification's numbers, where it differs from the server's.
    pub(crate) code: Option<ResponseCode>,
    /// Put back what the protocol wants echoed and the server left out.
    pub(crate) echo: Option<Echo<'a>>,
    /// Our own cookie: name, value, path.
    pub(crate) route_cookie: Option<(&'a str, &'a [u8], &'a str)>,
    /// Name of our cookie, which no server may set.
    pub(crate) own_cookie: Option<&'a str>,
    /// Lines of the schemes, challenges or the last word of one, that stand for the server's own.
    pub(crate) challenges: Option<&'a str>,
    /// Our stamp, where it is wanted. Those of devices behind us pass.
    pub(crate) device: Option<Device<'a>>,
    /// The connection ends after this answer.
    pub(crate) close: bool,
}

/// What the protocol wants echoed. `[MS-OXCMAPIHTTP] 2.2.2.2`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo<'a> {
    /// `X-RequestType`; `None` for a word we do not know, of which nothing was kept.
    pub(crate) request_type: Option<&'a str>,
    /// `X-RequestId`, as the client wrote it.
    pub(crate) request_id: &'a [u8],
    /// `X-ClientInfo`, as the client wrote it.
    pub(crate) client_info: &'a [u8],
}

impl AnswerHead<'_, '_> {
    /// True where the next request on the connection may be anybody's, as far as the head tells. A server that refuses
    /// a request before it has all of it may not read the rest, and one that refuses somebody may count that against
    /// whoever comes next.
    pub(crate) fn leaves_it_to_others(&self, request_is_done: bool) -> bool {
        self.reusable && self.status != 401 && (request_is_done || self.status < 400)
    }

    /// A field that is not among the facts; the first of several. Looks through all of them.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        fields
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// Appends the head the client gets. `Set-Cookie` lines pass unmerged and in order. Returns its bytes.
    pub(crate) fn write(&self, with: &Rewrite<'_>, out: &mut Vec<u8>) -> HeadBytes {
        let begin = out.len();
        let mut bytes = HeadBytes::default();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        bytes.line = out.len() - begin;
        let mut others: Option<usize> = None;
        for Header { name, value } in self.fields {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if with.device.is_some() && is(device::NAME) {
                others = Some(others.map_or(0, |length| length + 2) + value.len());
            }
            if fields::of_answer(name) == Fate::Drop
                || (with.challenges.is_some() && is("www-authenticate"))
            {
                continue;
            }
            match with.code {
                Some(code) if is("x-responsecode") => {
                    line(
                        out,
                        name.as_bytes(),
                        itoa::Buffer::new().format(code.0).as_bytes(),
                    );
                }
                _ if is("set-cookie") => {
                    if !is_ours(value, with.own_cookie) {
                        line(out, name.as_bytes(), value);
                        bytes.cookies += line_length(name, value);
                    }
                }
                _ => line(out, name.as_bytes(), value),
            }
        }
        if let Some(echo) = with.echo {
            self.echo(&echo, out);
        }
        if let Some((name, value, path)) = with.route_cookie {
            let before = out.len();
            write_route_cookie(name, value, path, out);
            bytes.cookies += out.len() - before;
        }
        if let Some(challenges) = with.challenges {
            out.extend_from_slice(challenges.as_bytes());
        }
        if let Some(device) = with.device {
            device.write(others, out);
        }
        match self.body {
            Body::Chunked(_) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Body::Length(length) => {
                line(
                    out,
                    b"Content-Length",
                    itoa::Buffer::new().format(length).as_bytes(),
                );
            }
            Body::Done if self.status >= 200 && self.status != 204 && self.status != 304 => {
                out.extend_from_slice(b"Content-Length: 0\r\n");
            }
            Body::Done | Body::UntilClose => {}
        }
        if with.close || self.body == Body::UntilClose {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        bytes.total = out.len() - begin;
        bytes
    }

    fn echo(&self, echo: &Echo<'_>, out: &mut Vec<u8>) {
        if let (false, Some(word)) = (self.echoes.request_type, echo.request_type) {
            line(out, b"X-RequestType", word.as_bytes());
        }
        if !self.echoes.request_id && !echo.request_id.is_empty() {
            line(out, b"X-RequestId", echo.request_id);
        }
        if !self.echoes.client_info && !echo.client_info.is_empty() {
            line(out, b"X-ClientInfo", echo.client_info);
        }
    }
}

fn is_ours(value: &[u8], own: Option<&str>) -> bool {
    own.is_some_and(|own| {
        set_cookie(value).is_some_and(|(name, _)| name.eq_ignore_ascii_case(own.as_bytes()))
    })
}

/// Appends our cookie. Bound to the endpoint by its path, so that the two jars stay apart.
pub(crate) fn write_route_cookie(name: &str, value: &[u8], path: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Set-Cookie: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value);
    out.extend_from_slice(b"; path=");
    out.extend_from_slice(path.trim_end_matches('/').as_bytes());
    out.extend_from_slice(b"; secure; HttpOnly\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AS_IS: Rewrite<'_> = Rewrite {
        code: None,
        echo: None,
        route_cookie: None,
        own_cookie: Some("MapigateRoute"),
        challenges: None,
        device: None,
        close: false,
    };

    fn written(head: &str, flavour: Flavour, with: &Rewrite<'_>) -> String {
        let mut room = Fields::new();
        let head = read(head.as_bytes(), flavour, &mut room).unwrap().unwrap();
        let mut out = Vec::new();
        head.write(with, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_smuggles_an_answer_is_nonsense() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +1\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "X: a\nY: b\r\n",
            "X: \0\r\n",
            "X-ResponseCode: ten\r\n",
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert!(
                read(head.as_bytes(), Flavour::Exchange, &mut Fields::new()).is_err(),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn cookies_pass_unmerged_and_in_order_except_one_that_claims_to_be_ours() {
        let head = "HTTP/1.1 200 OK\r\nSet-Cookie: MapiContext=a=b; path=/mapi/emsmdb; secure; HttpOnly\r\n\
                    Set-Cookie: MapigateRoute=evil\r\nSet-Cookie: MapiSequence=~+\r\nContent-Length: 3\r\n\r\n";
        let out = written(head, Flavour::Exchange, &AS_IS);
        assert_eq!(
            out,
            "HTTP/1.1 200 OK\r\nSet-Cookie: MapiContext=a=b; path=/mapi/emsmdb; secure; HttpOnly\r\n\
             Set-Cookie: MapiSequence=~+\r\nContent-Length: 3\r\n\r\n"
        );
    }

    #[test]
    fn a_gromox_error_reads_as_the_specification_has_it() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-ResponseCode: 2\r\nContent-Length: 5\r\n\r\n";
        let echo = Echo {
            request_type: Some("Execute"),
            request_id: b"{A}:1",
            client_info: b"{B}:2",
        };
        let with = Rewrite {
            code: Some(ResponseCode::CONTEXT_NOT_FOUND),
            echo: Some(echo),
            ..AS_IS
        };
        assert_eq!(
            written(head, Flavour::Gromox, &with),
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-ResponseCode: 10\r\nX-RequestType: Execute\r\n\
             X-RequestId: {A}:1\r\nX-ClientInfo: {B}:2\r\nContent-Length: 5\r\n\r\n"
        );
    }

    #[test]
    fn timers_and_the_context_cookie_are_read_by_flavour() {
        let head = "HTTP/1.1 200 OK\r\nX-PendingPeriod: 30000\r\nX-ExpirationInfo: 900000\r\nSet-Cookie: sid=abc\r\nSet-Cookie: MapiContext=x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut room = Fields::new();
        let read = read(head.as_bytes(), Flavour::Gromox, &mut room)
            .unwrap()
            .unwrap();
        assert_eq!(read.pending_period, Some(Duration::from_secs(30)));
        assert_eq!(read.expiration, Some(Duration::from_secs(900)));
        assert_eq!(read.context, Some(&b"abc"[..]));
        assert_eq!(read.body, Body::CHUNKED);
    }

    #[test]
    fn an_answer_without_length_ends_the_connection() {
        let out = written("HTTP/1.1 200 OK\r\nX: y\r\n\r\n", Flavour::Exchange, &AS_IS);
        assert_eq!(out, "HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\n");
        let out = written(
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            Flavour::Exchange,
            &AS_IS,
        );
        assert_eq!(out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn our_challenges_stand_for_the_servers() {
        let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
        let with = Rewrite {
            challenges: Some("WWW-Authenticate: Basic realm=\"m\"\r\n"),
            ..AS_IS
        };
        let out = written(head, Flavour::Exchange, &with);
        assert!(out.contains("Basic realm") && !out.contains("NTLM") && !out.contains("Negotiate"));
    }

    #[test]
    fn our_stamp_comes_after_a_stamp_from_behind_us_if_both_have_room() {
        let stamped = |theirs: &str| {
            let head =
                format!("HTTP/1.1 200 OK\r\nx-deviceinfo: {theirs}\r\nContent-Length: 0\r\n\r\n");
            let device = Device {
                id: "front1",
                server: "MBX2",
                queue_us: 1_200,
                cpu_ns: Some(5_000),
            };
            let with = Rewrite {
                device: Some(device),
                ..AS_IS
            };
            written(&head, Flavour::Exchange, &with)
        };

        assert_eq!(
            stamped("lb7"),
            "HTTP/1.1 200 OK\r\nx-deviceinfo: lb7\r\nX-DeviceInfo: front1;MBX2;q=1.200;cpu=5\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let long = "x".repeat(60);
        assert_eq!(
            stamped(&long),
            format!("HTTP/1.1 200 OK\r\nx-deviceinfo: {long}\r\nContent-Length: 0\r\n\r\n")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _read = read(&bytes, Flavour::Exchange, &mut Fields::new());
        }
    }
}
