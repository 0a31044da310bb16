//! One look at one mailbox server: does it connect, show its page, answer a request?

use crate::backend::{BackServer, ConnectError, Leg};
use crate::config::settings::{HealthProbe, HealthSettings, Server};
use crate::health::Observation;
use crate::mapi::Endpoint;
use crate::metrics::{LegSide, Metrics};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// Why a look ended early.
enum Trouble {
    Theirs(Observation),
    Ours,
}

async fn look(
    server: &BackServer,
    how: &HealthSettings,
    metrics: &Metrics,
) -> Result<Observation, Trouble> {
    if let Some(page) = &how.page {
        let request = page_request(server.settings(), page);
        if ask(server, how, &request, metrics).await? != Some(200) {
            return Ok(Observation::PageFailed);
        }
    }
    if let Some(probe) = &how.probe {
        let request = probe_request(server.settings(), probe);
        match ask(server, how, &request, metrics).await? {
            Some(status) if status != 401 && status < 500 => {}
            _ => return Ok(Observation::ProbeFailed),
        }
    }
    if how.page.is_none() && how.probe.is_none() {
        let leg = connect(server, how, metrics).await?;
        tokio::spawn(part(leg));
    }
    Ok(Observation::CheckPassed)
}

async fn connect(
    server: &BackServer,
    how: &HealthSettings,
    metrics: &Metrics,
) -> Result<Leg, Trouble> {
    Box::pin(server.connect(how.timeout, metrics.unbilled(LegSide::Server)))
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

/// The status of the answer; `None` where the answer is not HTTP.
async fn ask(
    server: &BackServer,
    how: &HealthSettings,
    request: &[u8],
    metrics: &Metrics,
) -> Result<Option<u16>, Trouble> {
    let mut leg = connect(server, how, metrics).await?;
    let broken = |_lost: std::io::Error| Trouble::Theirs(Observation::Reset);
    leg.write_all(request).await.map_err(broken)?;
    leg.flush().await.map_err(broken)?;
    let mut head = Vec::with_capacity(1024);
    let status = loop {
        match status_of(&head) {
            Head::Status(status) => break Some(status),
            Head::Nonsense => break None,
            Head::Incomplete if head.len() > HEAD_MAX => break None,
            Head::Incomplete => {}
        }
        if leg.read_buf(&mut head).await.map_err(broken)? == 0 {
            return Err(Trouble::Theirs(Observation::Reset));
        }
    };
    tokio::spawn(part(leg));
    Ok(status)
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
    Status(u16),
}

/// The status of the final head in these bytes; interim heads (1xx) are passed over.
fn status_of(mut bytes: &[u8]) -> Head {
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
            Some(status) => return Head::Status(status),
            None => return Head::Nonsense,
        }
    }
}

fn page_request(server: &Server, page: &str) -> Vec<u8> {
    let host = host_of(server);
    format!("GET {page} HTTP/1.1\r\nHost: {host}\r\n{AGENT}Connection: close\r\n\r\n").into_bytes()
}

/// A PING needs no session and changes nothing. `[MS-OXCMAPIHTTP] 2.2.4.5`
fn probe_request(server: &Server, probe: &HealthProbe) -> Vec<u8> {
    let credentials = STANDARD.encode(format!("{}:{}", probe.user, probe.password.reveal()));
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {credentials}\r\n\
         X-RequestType: PING\r\nX-RequestId: {PROBE_ID}:1\r\nX-ClientInfo: {PROBE_ID}\r\n\
         X-ClientApplication: mapigate/1.0.0.0\r\nContent-Type: application/mapi-http\r\n\
         {AGENT}Content-Length: 0\r\nConnection: close\r\n\r\n",
        path = Endpoint::Emsmdb.path(),
        host = host_of(server),
    )
    .into_bytes()
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
        match status_of(bytes) {
            Head::Status(status) => Some(status),
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
            status_of(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Head::Incomplete
        ));
    }

    #[test]
    fn what_is_not_http_has_no_status() {
        assert!(matches!(
            status_of(b"SSH-2.0-OpenSSH_9.6\r\n"),
            Head::Nonsense
        ));
        assert!(matches!(status_of(b"HTTP/1.1 20"), Head::Incomplete));
    }
}
