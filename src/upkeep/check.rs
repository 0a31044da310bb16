//! One look at one mailbox server: does it connect, show its page, answer a request?

use crate::accounting::Unbilled;
use crate::backend::{BackServer, ConnectError, Leg};
use crate::config::settings::{HealthProbe, HealthSettings, Server};
use crate::health::Observation;
use crate::mapi::Endpoint;
use crate::metrics::{LegSide, Metrics};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

/// What one look found; over `health.timeout` it found nothing in time. `None`: we could not look, for
/// want of something of our own.
///
/// Each step has a connection of its own, closed afterwards: a check must not find a kept
/// connection working while new ones fail, and never leaves one behind for somebody's request.
pub(super) async fn look_at(
    server: &BackServer,
    how: &HealthSettings,
    metrics: &Metrics,
) -> Option<Observation> {
    match tokio::time::timeout(how.timeout, look(server, how, metrics)).await {
        Ok(Ok(found) | Err(Trouble::Theirs(found))) => Some(found),
        Ok(Err(Trouble::Ours)) => None,
        Err(_elapsed) => Some(Observation::Deadline),
    }
}

/// Why a question has no answer.
pub(super) enum Trouble {
    Theirs(Observation),
    /// We could not ask, for want of something of our own.
    Ours,
}

/// What a server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) status: u16,
    /// It challenges to Basic. RFC 7617
    pub(super) takes_basic: bool,
}

/// Whether a page of the server answers 200; over `health.timeout` it does not. `None`: we could not look, for
/// want of something of our own.
pub(super) async fn look_at_page(
    server: &BackServer,
    page: &str,
    how: &HealthSettings,
    metrics: &Metrics,
) -> Option<Observation> {
    let request = page_request(server.settings(), page);
    let unbilled = metrics.unbilled(LegSide::Server);
    let asked = ask(server, how.timeout, &request, unbilled);
    match tokio::time::timeout(how.timeout, asked).await {
        Ok(Ok(Some(heard))) if heard.status == 200 => Some(Observation::CheckPassed),
        Ok(Ok(_)) => Some(Observation::PageFailed),
        Ok(Err(Trouble::Theirs(found))) => Some(found),
        Ok(Err(Trouble::Ours)) => None,
        Err(_elapsed) => Some(Observation::Deadline),
    }
}

async fn look(
    server: &BackServer,
    how: &HealthSettings,
    metrics: &Metrics,
) -> Result<Observation, Trouble> {
    let unbilled = || metrics.unbilled(LegSide::Server);
    if let Some(page) = &how.page {
        let request = page_request(server.settings(), page);
        let heard = ask(server, how.timeout, &request, unbilled()).await?;
        if heard.map(|heard| heard.status) != Some(200) {
            return Ok(Observation::PageFailed);
        }
    }
    if let Some(probe) = &how.probe {
        let request = probe_request(server.settings(), probe);
        match ask(server, how.timeout, &request, unbilled()).await? {
            Some(heard) if heard.status != 401 && heard.status < 500 => {}
            _ => return Ok(Observation::ProbeFailed),
        }
    }
    if how.page.is_none() && how.probe.is_none() {
        let leg = connect(server, how.timeout, unbilled()).await?;
        tokio::spawn(part(leg));
    }
    Ok(Observation::CheckPassed)
}

async fn connect(
    server: &BackServer,
    timeout: Duration,
    unbilled: Option<Arc<dyn Unbilled>>,
) -> Result<Leg, Trouble> {
    Box::pin(server.connect(timeout, unbilled))
        .await
        .map_err(|error| match error {
            error if error.is_ours() => Trouble::Ours,
            ConnectError::Deadline(_) => Trouble::Theirs(Observation::Deadline),
            ConnectError::Tls(_) => Trouble::Theirs(Observation::TlsFailed),
            ConnectError::Io(error) if error.kind() == ErrorKind::ConnectionReset => {
                Trouble::Theirs(Observation::Reset)
            }
            ConnectError::Io(_) => Trouble::Theirs(Observation::Refused),
        })
}

/// What the server answers; `None` where the answer is not HTTP. `timeout` is for the connection alone.
pub(super) async fn ask(
    server: &BackServer,
    timeout: Duration,
    request: &[u8],
    unbilled: Option<Arc<dyn Unbilled>>,
) -> Result<Option<Heard>, Trouble> {
    let mut leg = connect(server, timeout, unbilled).await?;
    let broken = |_lost: std::io::Error| Trouble::Theirs(Observation::Reset);
    leg.write_all(request).await.map_err(broken)?;
    leg.flush().await.map_err(broken)?;
    let mut head = Vec::with_capacity(1024);
    let heard = loop {
        match heard_in(&head) {
            Head::Heard(heard) => break Some(heard),
            Head::Nonsense => break None,
            Head::Incomplete if head.len() > HEAD_MAX => break None,
            Head::Incomplete => {}
        }
        if leg.read_buf(&mut head).await.map_err(broken)? == 0 {
            return Err(Trouble::Theirs(Observation::Reset));
        }
    };
    tokio::spawn(part(leg));
    Ok(heard)
}

/// Takes leave of a server: closing on what it still sends would be a reset in its log.
async fn part(mut leg: Leg) {
    let farewell = async {
        leg.shutdown().await?;
        let mut rest = [0; 1024];
        while leg.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _either_way = tokio::time::timeout(PARTING, farewell).await;
}

enum Head {
    Incomplete,
    Nonsense,
    Heard(Heard),
}

/// What the final head in these bytes says; interim heads (1xx) are passed over.
fn heard_in(mut bytes: &[u8]) -> Head {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Head::Incomplete,
            Err(_) => return Head::Nonsense,
        };
        match response.code {
            Some(100..=199) => bytes = bytes.get(length..).unwrap_or_default(),
            Some(status) => {
                return Head::Heard(Heard {
                    status,
                    takes_basic: response.headers.iter().any(is_basic),
                });
            }
            None => return Head::Nonsense,
        }
    }
}

fn is_basic(header: &httparse::Header<'_>) -> bool {
    // Several challenges may share a line. RFC 9110 11.6.1
    let mut challenges = header.value.split(|byte| *byte == b',');
    header.name.eq_ignore_ascii_case("WWW-Authenticate")
        && challenges.any(|challenge| {
            let word = challenge.trim_ascii().split(|byte| *byte == b' ').next();
            word.is_some_and(|word| word.eq_ignore_ascii_case(b"Basic"))
        })
}

fn page_request(server: &Server, page: &str) -> Vec<u8> {
    let host = host_of(server);
    format!("GET {page} HTTP/1.1\r\nHost: {host}\r\n{AGENT}Connection: close\r\n\r\n").into_bytes()
}

fn probe_request(server: &Server, probe: &HealthProbe) -> Zeroizing<Vec<u8>> {
    let password = probe.password.reveal().as_bytes();
    ping(server, "mapigate-health", "", Some((&probe.user, password)))
}

/// A PING needs no session and changes nothing. `[MS-OXCMAPIHTTP] 2.2.4.5`
pub(super) fn ping(
    server: &Server,
    agent: &str,
    query: &str,
    login: Option<(&str, &[u8])>,
) -> Zeroizing<Vec<u8>> {
    let authorization = login.map(|(user, password)| {
        let clear = Zeroizing::new([user.as_bytes(), b":", password].concat());
        let token = Zeroizing::new(STANDARD.encode(clear.as_slice()));
        Zeroizing::new(["Authorization: Basic ", &token, "\r\n"].concat())
    });
    let authorization = authorization.as_ref().map_or("", |line| line.as_str());
    Zeroizing::new(
        format!(
            "POST {path}{query} HTTP/1.1\r\nHost: {host}\r\n{authorization}X-RequestType: PING\r\n\
             X-RequestId: {PROBE_ID}:1\r\nX-ClientInfo: {PROBE_ID}\r\n\
             X-ClientApplication: mapigate/1.0.0.0\r\nContent-Type: application/mapi-http\r\n\
             User-Agent: {agent}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            path = Endpoint::Emsmdb.path(),
            host = host_of(server),
        )
        .into_bytes(),
    )
}

fn host_of(server: &Server) -> String {
    let usual = if server.tls.is_some() { 443 } else { 80 };
    // A literal IPv6 address is bracketed in a Host header.
    let host = match server.host.contains(':') {
        true => format!("[{}]", server.host),
        false => server.host.clone(),
    };
    if server.port == usual {
        host
    } else {
        format!("{host}:{}", server.port)
    }
}

const AGENT: &str = "User-Agent: mapigate-health\r\n";
/// The probe's own client and request identity.
const PROBE_ID: &str = "{6D617069-6761-7465-0000-70726F626531}";
/// A server that does not close by then is left alone.
const PARTING: Duration = Duration::from_secs(1);
/// A health page's head is small.
const HEAD_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &[u8]) -> Option<u16> {
        match heard_in(bytes) {
            Head::Heard(heard) => Some(heard.status),
            Head::Incomplete | Head::Nonsense => None,
        }
    }

    #[test]
    fn an_interim_answer_is_not_the_answer() {
        assert_eq!(
            status(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\n\r\n"),
            Some(503)
        );
        assert!(matches!(
            heard_in(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Head::Incomplete
        ));
    }

    #[test]
    fn a_challenge_to_basic_is_seen_among_others() {
        let takes_basic = |fields: &str| {
            let head = format!("HTTP/1.1 401 No\r\n{fields}\r\n");
            matches!(heard_in(head.as_bytes()), Head::Heard(heard) if heard.takes_basic)
        };
        assert!(takes_basic("WWW-Authenticate: basic realm=\"mail\"\r\n"));
        assert!(takes_basic(
            "www-authenticate: Negotiate, Basic realm=\"mail\"\r\n"
        ));
        assert!(takes_basic(
            "WWW-Authenticate: NTLM\r\nWWW-Authenticate: Basic\r\n"
        ));
        assert!(!takes_basic(
            "WWW-Authenticate: Negotiate\r\nX-Basic: Basic\r\n"
        ));
        assert!(!takes_basic(""));
    }

    #[test]
    fn what_is_not_http_has_no_status() {
        assert!(matches!(
            heard_in(b"SSH-2.0-OpenSSH_9.6\r\n"),
            Head::Nonsense
        ));
        assert!(matches!(heard_in(b"HTTP/1.1 20"), Head::Incomplete));
    }
}
