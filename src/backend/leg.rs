//! One connection to a mailbox server, plain or TLS.

use super::ConnectError;
use super::defences::fence_stands;
use crate::accounting::{Bytes, Counting, Unbilled, Wire};
use crate::config::settings::Server;
use rustls::pki_types::ServerName as TlsName;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A peer that vanished without a word is noticed after this.
const VANISHED: Duration = Duration::from_secs(30);

/// One connection to a mailbox server.
#[derive(Debug)]
pub struct Leg {
    stream: Stream,
    /// The lane it has carried: an identity, where that binds it.
    carried: Option<u128>,
    /// It has carried a request before: the server may have closed it meanwhile.
    used: bool,
}

#[derive(Debug)]
enum Stream {
    // Boxed, both: a future keeps room for every value moved through it.
    Plain(Box<Counting<TcpStream>>),
    Tls(Box<TlsStream<Counting<TcpStream>>>),
}

pub(super) async fn connect(
    server: &Server,
    tls: Option<&(TlsConnector, TlsName<'static>)>,
    unbilled: Option<Arc<dyn Unbilled>>,
) -> Result<Leg, ConnectError> {
    // Every address the name has is tried in turn; the caller's deadline covers them all.
    let tcp = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .map_err(ConnectError::Io)?;
    ready_socket(&tcp).map_err(ConnectError::Io)?;
    let tcp = Counting::new(tcp, unbilled);
    let stream = match tls {
        None => Stream::Plain(Box::new(tcp)),
        Some((connector, name)) => {
            let session = connector
                .connect(name.clone(), tcp)
                .await
                .map_err(ConnectError::Tls)?;
            Stream::Tls(Box::new(session))
        }
    };
    Ok(Leg {
        stream,
        carried: None,
        used: false,
    })
}

fn ready_socket(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(VANISHED)
            .with_interval(VANISHED / 3),
    )?;
    socket.set_tcp_user_timeout(Some(VANISHED))
}

impl Leg {
    /// True while nothing has arrived on it: no close, no unasked-for answer, neither in the socket nor in what TLS has
    /// opened already. Answers from tokio's readiness cache; a system call only where something did arrive.
    pub fn is_quiet(&self) -> bool {
        let waits = |outcome: io::Result<usize>| matches!(outcome, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        match &self.stream {
            Stream::Plain(tcp) => waits(tcp.inner().try_read(&mut [0; 1])),
            // A TLS ticket that arrives late reads as noise here and costs a reconnect; that is cheap.
            Stream::Tls(session) => {
                let (tcp, tls) = session.get_ref();
                // TLS wants more unless plaintext waits in it, or the server has said farewell.
                tls.wants_read() && waits(tcp.inner().try_read(&mut [0; 1]))
            }
        }
    }

    /// Ready when something has arrived on it: a close, or an answer nobody asked for.
    pub fn poll_noise(&self, cx: &mut Context<'_>) -> Poll<()> {
        let tcp = match &self.stream {
            Stream::Plain(tcp) => tcp.inner(),
            Stream::Tls(session) => session.get_ref().0.inner(),
        };
        loop {
            // Readiness may be stale; only a read that would block makes it wait for news.
            let ready = ready!(tcp.poll_read_ready(cx));
            if ready.is_err() || !self.is_quiet() {
                return Poll::Ready(());
            }
        }
    }

    /// True where its bytes are under TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// True once it has carried a request.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Notes that it now carries a request of this lane. False where it has carried another lane's
    /// before: the identity fence, which must never trip, because the pool keeps them apart.
    #[must_use]
    pub fn carry(&mut self, lane: Option<u128>) -> bool {
        let same = !self.used || self.carried == lane || !fence_stands();
        self.used = true;
        self.carried = lane;
        same
    }
}

impl Wire for Leg {
    fn wire(&self) -> Bytes {
        match &self.stream {
            Stream::Plain(tcp) => tcp.wire(),
            Stream::Tls(session) => session.wire(),
        }
    }

    fn bill(&mut self, read_ahead: u64) -> Bytes {
        match &mut self.stream {
            Stream::Plain(tcp) => tcp.bill(read_ahead),
            Stream::Tls(session) => session.bill(read_ahead),
        }
    }
}

impl AsyncRead for Leg {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, into),
            Stream::Tls(session) => Pin::new(session).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Leg {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, from),
            Stream::Tls(session) => Pin::new(session).poll_write(cx, from),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(session) => Pin::new(session).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(session) => Pin::new(session).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    type Server = tokio_rustls::server::TlsStream<TcpStream>;

    /// A leg under TLS, and its server.
    async fn pair() -> (Leg, Server) {
        let made = rcgen::generate_simple_self_signed(["mbx.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap());
        let (tcp, accepted) = tokio::join!(tcp, listener.accept());
        let connector = TlsConnector::from(Arc::new(client));
        let name = TlsName::try_from("mbx.test").unwrap();
        let (ours, theirs) = tokio::join!(
            connector.connect(name, Counting::new(tcp.unwrap(), None)),
            TlsAcceptor::from(Arc::new(server)).accept(accepted.unwrap().0),
        );
        let leg = Leg {
            stream: Stream::Tls(Box::new(ours.unwrap())),
            carried: None,
            used: true,
        };
        (leg, theirs.unwrap())
    }

    #[tokio::test]
    async fn what_tls_has_opened_and_nobody_read_is_no_quiet() {
        let (mut leg, mut server) = pair().await;
        server.write_all(b"answer, and more").await.unwrap();
        server.flush().await.unwrap();

        let mut answer = [0; 6];
        leg.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        assert!(!leg.is_quiet());

        let mut more = [0; 10];
        leg.read_exact(&mut more).await.unwrap();
        assert!(leg.is_quiet());
    }

    #[tokio::test]
    async fn a_server_that_said_farewell_is_not_asked_again_though_its_socket_is_open() {
        let (mut leg, mut server) = pair().await;
        // One flight: the answer's end and the farewell.
        server.get_mut().1.send_close_notify();
        server.flush().await.unwrap();

        assert_eq!(leg.read(&mut [0; 10]).await.unwrap(), 0);

        assert!(!leg.is_quiet());
        drop(server);
    }
}
