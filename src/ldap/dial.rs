//! A connection to a server of the directory, on which only LDAP comes in.
//!
//! The library that speaks LDAP sits at one end of a socket pair; what goes between it and the server is
//! read here first, by the rules of `shape`.

use super::shape::{Nonsense, Questions, START_TLS, Sight, agrees_to_tls, length};
use crate::config::settings::LdapServer;
use bytes::BytesMut;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, StdStream};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

/// Why nothing of the server is believed any more, once that is so.
pub(super) type Fault = Arc<OnceLock<&'static str>>;

/// Opens a connection, as far as the first question; its two tasks live on `home`. `tls`: for a server of
/// `ldaps://`, and with `starttls` for every server.
///
/// # Errors
/// The server cannot be reached, has no TLS where it must, or does not prove who it is.
pub(super) async fn dial(
    server: &LdapServer,
    starttls: bool,
    tls: Option<&Arc<ClientConfig>>,
    home: &Handle,
) -> io::Result<(Ldap, Fault)> {
    let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
    stream.set_nodelay(true)?;
    if !server.tls && !starttls {
        return attach(stream, home).await;
    }
    let tls = tls.ok_or_else(|| io::Error::other("no TLS is set up for the directory"))?;
    let stream = secure(stream, server, !server.tls, tls).await?;
    attach(stream, home).await
}

/// The library at the other end of a stream.
async fn attach(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    home: &Handle,
) -> io::Result<(Ldap, Fault)> {
    let (library, ours) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let how = LdapConnSettings::new().set_std_stream(StdStream::Unix(library));
    // The library asks for a scheme; the address is the stream.
    let (connection, ldap) = LdapConnAsync::with_settings(how, "ldapi://directory")
        .await
        .map_err(io::Error::other)?;
    let fault = Fault::default();
    home.spawn(carry(
        stream,
        UnixStream::from_std(ours)?,
        Arc::clone(&fault),
    ));
    home.spawn(async move {
        if let Err(error) = connection.drive().await {
            tracing::debug!(%error, "connection to the directory ended");
        }
    });
    Ok((ldap, fault))
}

async fn secure(
    mut stream: TcpStream,
    server: &LdapServer,
    asks_first: bool,
    tls: &Arc<ClientConfig>,
) -> io::Result<impl AsyncRead + AsyncWrite + Send + 'static> {
    if asks_first {
        stream.write_all(START_TLS).await?;
        let mut answer = BytesMut::new();
        let message = next(&mut stream, &mut answer, untrue).await?;
        let agreed = agrees_to_tls(&message).map_err(untrue)?;
        if !agreed {
            return Err(io::Error::other("it does not agree to TLS"));
        }
        // What was said before TLS was said by anybody.
        if !answer.is_empty() {
            return Err(untrue(Nonsense(
                "it speaks on in clear after TLS was agreed",
            )));
        }
    }
    let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(tls))
        .connect(name, stream)
        .await
}

/// Carries messages until either side ends.
async fn carry(stream: impl AsyncRead + AsyncWrite + Send, library: UnixStream, fault: Fault) {
    let open = Mutex::new(Questions::default());
    // Said before the library sees the end, and with it whoever waits for an answer.
    let believe_no_more = |nonsense: Nonsense| {
        let _said_before = fault.set(nonsense.0);
        untrue(nonsense)
    };
    let (mut from_server, mut to_server) = split(stream);
    let (mut from_library, mut to_library) = library.into_split();
    let asking = async {
        let mut bytes = BytesMut::new();
        loop {
            let message = next(&mut from_library, &mut bytes, believe_no_more).await?;
            // Before it is sent: the answer may be here before this goes on.
            open.lock().ask(&message).map_err(believe_no_more)?;
            to_server.write_all(&message).await?;
            to_server.flush().await?;
        }
    };
    let answering = async {
        let mut bytes = BytesMut::new();
        loop {
            let message = next(&mut from_server, &mut bytes, believe_no_more).await?;
            let sight = open.lock().look(&message).map_err(believe_no_more)?;
            if sight == Sight::Pass {
                to_library.write_all(&message).await?;
            }
        }
    };
    let _why: io::Result<Infallible> = tokio::select! {
        ended = asking => ended,
        ended = answering => ended,
    };
}

/// The next whole message; `bytes` keeps what came with it.
async fn next(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut BytesMut,
    blame: impl Fn(Nonsense) -> io::Error,
) -> io::Result<BytesMut> {
    loop {
        match length(bytes).map_err(&blame)? {
            Some(whole) if bytes.len() >= whole => return Ok(bytes.split_to(whole)),
            // Room grows with what has come, not with what is announced.
            _ => bytes.reserve(ROOM),
        }
        if stream.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn untrue(Nonsense(words): Nonsense) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

/// Bytes to read at once.
const ROOM: usize = 4096;

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
