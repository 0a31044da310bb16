//! Fetches one document from somebody we believe: one connection, one answer, within a time and a size.

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Why a document could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The address is not one.
    #[error("{0} is not an address")]
    Address(String),
    /// Nobody answers there.
    #[error("cannot be reached: {0}")]
    Unreachable(io::Error),
    /// It is not who it should be, or speaks no TLS.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// It took too long.
    #[error("no whole answer within {}", humantime::format_duration(DEADLINE))]
    Slow,
    /// It does not speak HTTP, or broke off.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// It wants us to go elsewhere. Whoever may send us anywhere decides whose document we believe.
    #[error("answered {0}, a redirect, which is not followed; name the last address")]
    Redirect(u16),
    /// It did not answer 200.
    #[error("answered {0}")]
    Status(u16),
    /// It sent more than anybody needs.
    #[error("answered with more than {BODY_MAX} bytes")]
    TooLarge,
    /// What it sent is not what was asked for.
    #[error("{0}")]
    Content(String),
}

/// Fetches the document at this address. `tls` is needed for `https`.
pub(super) async fn fetch(url: &str, tls: Option<Arc<ClientConfig>>) -> Result<Bytes, Trouble> {
    tokio::time::timeout(DEADLINE, fetch_at_leisure(url, tls))
        .await
        .unwrap_or(Err(Trouble::Slow))
}

async fn fetch_at_leisure(url: &str, tls: Option<Arc<ClientConfig>>) -> Result<Bytes, Trouble> {
    let no_address = || Trouble::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_not_one| no_address())?;
    let is_tls = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or_else(no_address)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let usual = if is_tls { 443 } else { 80 };
    let tcp = connect(host, uri.port_u16().unwrap_or(usual))
        .await
        .map_err(Trouble::Unreachable)?;
    if !is_tls {
        return ask(tcp, &uri).await;
    }
    let tls = tls.ok_or_else(|| Trouble::Tls("not prepared".to_owned()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_not_one| no_address())?;
    let stream = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(|error| Trouble::Tls(error.to_string()))?;
    ask(stream, &uri).await
}

/// Tries every address of the name, none for so long that there is no time for the next.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn ask<S>(stream: S, uri: &Uri) -> Result<Bytes, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Trouble::Broken(error.to_string());
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with this function, whichever way.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, concat!("mapigate/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| Trouble::Broken(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(Trouble::Redirect(status.as_u16()));
    }
    if status != 200 {
        return Err(Trouble::Status(status.as_u16()));
    }
    let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
    body.map(|body| body.to_bytes())
        .map_err(too_large_or_broken)
}

fn too_large_or_broken(error: Box<dyn Error + Send + Sync>) -> Trouble {
    match error.is::<LengthLimitError>() {
        true => Trouble::TooLarge,
        false => Trouble::Broken(error.to_string()),
    }
}

/// Time for a whole document, from the look-up of the name to the last byte.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time for one address of the name.
const CONNECT: Duration = Duration::from_secs(3);
/// Bytes of an answer's head.
const HEAD_MAX: usize = 64 << 10;
/// Bytes of a document; the largest providers need a tenth.
const BODY_MAX: usize = 256 << 10;
