//! What we answer ourselves: refusals, the health page, the end of a session that is gone already.

use super::bill::Bill;
use super::head::line;
use crate::mapi::{RequestType, ResponseCode};
use crate::refusal::{Diagnosis, Refusal};
use crate::rpch::Rts;

/// What clients take a MAPI server to call itself; the grammar is fixed. `[MS-OXCMAPIHTTP] 2.2.3.3.7`
const SERVER_APPLICATION: &str = "Exchange/15.00.0847.4040";

/// How an answer of ours ends the connection or not, and whether its body is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// The connection ends after it.
    pub(crate) close: bool,
    /// The request was HEAD.
    pub(crate) is_head: bool,
}

/// Appends a refusal. MAPI clients read the code and the echoes, people the sentence; the id in it is in
/// the access log. `challenges`: header lines of the schemes.
/// `allowed`: methods, for one that is not.
pub(crate) fn refusal(
    refusal: &Refusal,
    challenges: &[&str],
    allowed: &str,
    bill: &Bill<'_>,
    manner: Manner,
    out: &mut Vec<u8>,
) {
    let id = bill.id.letters();
    let body = [
        b"<html><body>",
        refusal.public_words().as_bytes(),
        b" (",
        &id,
        b")</body></html>\r\n",
    ]
    .concat();
    match (bill.channel, refusal.status()) {
        // Clients of Outlook Anywhere look for the error in the reason phrase. [MS-RPCH] 2.1.2.1.3
        (Some(_), 503) => {
            let error = refusal.rpc_error();
            out.extend_from_slice(format!("HTTP/1.1 503 {error}\r\n").as_bytes());
        }
        (_, status) => status_line(status, out),
    }
    line(out, b"Cache-Control", b"private");
    line(out, b"Content-Type", b"text/html");
    let speaks_mapi = bill.channel.is_none() && bill.vdir.is_none();
    if let Some(code) = refusal.code().filter(|_| speaks_mapi) {
        mapi_fields(code, bill, out);
    }
    for challenge in challenges {
        out.extend_from_slice(challenge.as_bytes());
    }
    if let Some(diagnosis) = refusal.diagnosis() {
        let Diagnosis {
            number,
            words,
            category,
            ..
        } = diagnosis;
        let value = format!("{number};reason=\"{words}\";error_category=\"{category}\"");
        line(out, b"x-ms-diagnostics", value.as_bytes());
    }
    if let Some(seconds) = refusal.retry_after_seconds() {
        line(
            out,
            b"Retry-After",
            itoa::Buffer::new().format(seconds).as_bytes(),
        );
    }
    match refusal {
        Refusal::MethodNotAllowed => line(out, b"Allow", allowed.as_bytes()),
        Refusal::VerbNotAllowed => line(out, b"Allow", b"RPC_IN_DATA, RPC_OUT_DATA"),
        Refusal::OtherName { url } => line(out, b"X-MS-Location", url.as_bytes()),
        _ => {}
    }
    end(&body, manner, out);
}

/// Appends success for a `Disconnect` or `Unbind` whose session is as good as ended.
/// `[MS-OXCMAPIHTTP] 2.2.4.3.2, 2.2.5.2.2`
/// `proof`: header lines of the sender's scheme.
pub(crate) fn session_ended(
    bill: &Bill<'_>,
    proof: Option<&str>,
    manner: Manner,
    out: &mut Vec<u8>,
) {
    // StatusCode, ErrorCode (Unbind calls success 1), AuxiliaryBufferSize.
    let mut body = *b"\0\0\0\0\0\0\0\0\0\0\0\0";
    if bill.request_type == Some(RequestType::Unbind) {
        body[4] = 1;
    }
    status_line(200, out);
    line(out, b"Cache-Control", b"private");
    line(out, b"Content-Type", b"application/mapi-http");
    mapi_fields(ResponseCode::SUCCESS, bill, out);
    out.extend_from_slice(proof.unwrap_or_default().as_bytes());
    let tagged = [
        &b"PROCESSING\r\nDONE\r\nX-ElapsedTime: 0\r\n\r\n"[..],
        &body,
    ]
    .concat();
    end(&tagged, manner, out);
}

/// Appends the answer to whoever asks whether anybody is there. `proof`: header lines of the sender's scheme.
/// `[MS-RPCH] 2.1.2.1.5, 2.2.4.48`
pub(crate) fn echo(proof: Option<&str>, manner: Manner, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 Success\r\n");
    line(out, b"Cache-Control", b"private");
    line(out, b"Content-Type", b"application/rpc");
    out.extend_from_slice(proof.unwrap_or_default().as_bytes());
    end(&Rts::echo().encode(), manner, out);
}

/// Appends the health page, as a load balancer in front expects it of Exchange.
pub(crate) fn health(is_healthy: bool, host: &str, manner: Manner, out: &mut Vec<u8>) {
    let (status, words) = if is_healthy {
        (200, "200 OK")
    } else {
        (503, "503 Service Unavailable")
    };
    status_line(status, out);
    line(out, b"Cache-Control", b"no-cache");
    line(out, b"Content-Type", b"text/html");
    end(format!("{words}<br/>{host}").as_bytes(), manner, out);
}

fn mapi_fields(code: ResponseCode, bill: &Bill<'_>, out: &mut Vec<u8>) {
    if let Some(word) = bill.request_type.and_then(RequestType::spelling) {
        line(out, b"X-RequestType", word.as_bytes());
    }
    for (name, value) in [
        (&b"X-RequestId"[..], bill.request_id()),
        (b"X-ClientInfo", bill.client_info()),
    ] {
        if !value.is_empty() {
            line(out, name, value);
        }
    }
    line(
        out,
        b"X-ResponseCode",
        itoa::Buffer::new().format(code.0).as_bytes(),
    );
    line(out, b"X-ServerApplication", SERVER_APPLICATION.as_bytes());
}

pub(super) fn end(body: &[u8], manner: Manner, out: &mut Vec<u8>) {
    line(
        out,
        b"Content-Length",
        itoa::Buffer::new().format(body.len()).as_bytes(),
    );
    if manner.close {
        line(out, b"Connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    if !manner.is_head {
        out.extend_from_slice(body);
    }
}

pub(super) fn status_line(status: u16, out: &mut Vec<u8>) {
    let reason = match status {
        // To devices it means that, and to nobody else it is said. [MS-ASHTTP] 3.1.5.2.2
        451 => "Redirect",
        _ => http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown"),
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}
