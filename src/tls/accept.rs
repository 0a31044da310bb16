//! The handshake, driven over a socket.

use super::incoming::Incoming;
use super::record::{self, Keys};
use super::stream::TlsStream;
use crate::auth::ChannelBinding;
use crate::certs;
use rustls::pki_types::CertificateDer;
use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A client after its handshake.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection. Boxed: it is a kilobyte, and a future keeps room for what is moved through it.
    pub stream: Box<TlsStream<S>>,
    /// It went on with an earlier session's secrets.
    pub resumed: bool,
    /// The client's certificate and its chain; empty where it showed none. Of a resumed session, as it
    /// was when the session began.
    pub certificates: Vec<CertificateDer<'static>>,
    /// What the client's proof of itself can be bound to: the certificate it was shown.
    pub binding: Option<ChannelBinding>,
}

/// Shakes hands with a client. `config` must allow its secrets to be taken out. The future is large:
/// box it. It has no deadline of its own.
///
/// # Errors
/// The client left, or sent what rustls refuses; an alert has told it then.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    config: Arc<ServerConfig>,
) -> io::Result<Accepted<S>> {
    accept_begun(io, Vec::new(), config).await
}

/// What a client says first, for [`accept_begun`]: nothing of the handshake is made before it says something, so that
/// whoever is silent costs next to nothing. The same read as the handshake's own first one.
///
/// # Errors
/// The client left.
pub async fn begin<S: AsyncRead + Unpin>(io: &mut S) -> io::Result<Vec<u8>> {
    let mut incoming = Vec::new();
    read(io, &mut incoming).await?;
    Ok(incoming)
}

async fn read<S: AsyncRead + Unpin>(io: &mut S, incoming: &mut Vec<u8>) -> io::Result<()> {
    incoming.reserve(READ);
    match io.read_buf(incoming).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// As [`accept`], with what [`begin`] has read.
///
/// # Errors
/// As [`accept`].
pub async fn accept_begun<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    incoming: Vec<u8>,
    config: Arc<ServerConfig>,
) -> io::Result<Accepted<S>> {
    let (accepted, _agreed) = shake(io, config, incoming).await?;
    Ok(accepted)
}

/// The same where the name that the client asks for decides. It is read ahead of rustls, which costs some
/// microseconds: for listeners where it can make a difference. Second: the name, in lower case, where HTTP/2 was agreed
/// upon.
///
/// # Errors
/// As [`accept`].
pub async fn accept_by_name<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    mut incoming: Vec<u8>,
    choose: impl Fn(&str) -> Arc<ServerConfig> + Send,
) -> io::Result<(Accepted<S>, Option<Box<str>>)> {
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    if incoming.is_empty() {
        read(&mut io, &mut incoming).await?;
    }
    let name = loop {
        let mut fresh = incoming.get(fed..).unwrap_or_default();
        while !fresh.is_empty() && acceptor.read_tls(&mut fresh)? > 0 {}
        fed = incoming.len() - fresh.len();
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                break accepted.client_hello().server_name().map(str::to_owned);
            }
            Ok(None) if incoming.len() <= INCOMING_MAX => read(&mut io, &mut incoming).await?,
            Ok(None) => return Err(io::ErrorKind::InvalidData.into()),
            // Whoever refuses it is the one who tells the client.
            Err(_) => break None,
        }
    };
    let config = choose(name.as_deref().unwrap_or_default());
    let (accepted, agreed_on_http2) = shake(io, config, incoming).await?;
    let name = agreed_on_http2.then(|| name.unwrap_or_default().into_boxed_str());
    Ok((accepted, name))
}

/// `incoming`: what has been read already. Second: HTTP/2 was agreed upon.
async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    config: Arc<ServerConfig>,
    mut incoming: Vec<u8>,
) -> io::Result<(Accepted<S>, bool)> {
    let mut tls = UnbufferedServerConnection::new(config).map_err(refused)?;
    let (mut early, mut early_wire) = (Vec::<u8>::new(), 0);
    let mut outgoing: Vec<u8> = Vec::new();
    let mut binding = None;
    loop {
        let (UnbufferedStatus { mut discard, state }, shown) =
            certs::shown_by(|| tls.process_tls_records(&mut incoming));
        binding = shown.or(binding);
        let mut wants_bytes = false;
        let (mut is_done, mut is_early) = (false, false);
        match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut outgoing, |to| data.encode(to))?;
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                io.write_all(&outgoing).await?;
                outgoing.clear();
                data.done();
            }
            Ok(ConnectionState::BlockedHandshake) => wants_bytes = true,
            // Requests may come in one piece with the end of the handshake.
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(refused)?;
                    discard += record.discard;
                    early.extend_from_slice(record.payload);
                }
                is_early = true;
            }
            Ok(ConnectionState::WriteTraffic(_)) => is_done = true,
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => {
                tell(&mut tls, &mut io, outgoing).await;
                return Err(refused(error));
            }
        }
        if is_early {
            early_wire += last_record(incoming.get(..discard).unwrap_or_default());
        }
        incoming.drain(..discard);
        if is_done {
            break;
        }
        if wants_bytes {
            if incoming.len() > INCOMING_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            read(&mut io, &mut incoming).await?;
        }
    }
    io.write_all(&outgoing).await?;
    let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
    let agreed_on_http2 = tls.alpn_protocol() == Some(certs::HTTP2);
    let shown = tls.peer_certificates();
    let certificates = shown.map(<[_]>::to_vec).unwrap_or_default();
    let (secrets, kernel) = tls.dangerous_into_kernel_connection().map_err(refused)?;
    let version = kernel.protocol_version();
    let keys = Keys::new(version, secrets.rx).zip(Keys::new(version, secrets.tx));
    let (receive, transmit) = keys.ok_or(io::ErrorKind::Unsupported)?;
    let incoming = Incoming::new(&early, early_wire, &incoming);
    let accepted = Accepted {
        stream: Box::new(TlsStream::new(io, kernel, [receive, transmit], incoming)),
        resumed,
        certificates,
        binding,
    };
    Ok((accepted, agreed_on_http2))
}

/// Length of the last of some whole records: rustls stops at each that brings plaintext, behind those that
/// end the handshake. Opened in place, but their heads stay.
fn last_record(mut records: &[u8]) -> usize {
    let mut last = 0;
    while let Ok(Some(length)) = record::length(records) {
        let Some(rest) = records.get(length..) else {
            return 0;
        };
        (records, last) = (rest, length);
    }
    last
}

/// Appends what rustls encodes, which says how much room it needs.
fn encode(
    to: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let begin = to.len();
    let mut room = FLIGHT;
    loop {
        to.resize(begin + room, 0);
        match encode(to.get_mut(begin..).unwrap_or_default()) {
            Ok(length) => {
                to.truncate(begin + length);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needs)) if needs.required_size > room => {
                room = needs.required_size;
            }
            Err(error) => return Err(refused(error)),
        }
    }
}

/// The alert that explains a refusal is worth one try. rustls is asked no more often than it has something
/// to send: otherwise it goes on to the next message, in bytes that are not here any more.
async fn tell<S: AsyncWrite + Unpin>(
    tls: &mut UnbufferedServerConnection,
    io: &mut S,
    mut outgoing: Vec<u8>,
) {
    while tls.wants_write()
        && let Ok(ConnectionState::EncodeTlsData(mut data)) = tls.process_tls_records(&mut []).state
    {
        if encode(&mut outgoing, |to| data.encode(to)).is_err() {
            break;
        }
    }
    let _tried = io.write_all(&outgoing).await;
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Bytes read at once: a ClientHello mostly, a client's last flight always.
const READ: usize = 4 * 1024;
/// Bytes of one record of ours, certificates aside.
const FLIGHT: usize = 2 * 1024;
/// Bytes that wait for the rest of a handshake message. rustls has limits of its own below this.
const INCOMING_MAX: usize = 128 * 1024;
