//! Accept, handshake, serve.

use super::front::Front;
use super::proxy_protocol;
use crate::accounting::meter::{Look, settle};
use crate::accounting::{Counting, Metered, Phase};
use crate::auth::{self, Memo, Presented, Trust};
use crate::http2;
use crate::metrics::{Account, HandshakeOutcome, LegSide};
use crate::relay;
use crate::runtime::{Ask, Runtime};
use crate::tls::{self, Accepted, TlsStream};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Accepts until we are going away.
pub(super) async fn accept_loop(socket: TcpListener, front: Arc<Front>, runtime: Arc<Runtime>) {
    let mut asks = runtime.asks();
    let mut is_short = false;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&socket, &front) => accepted,
            () = leaving(&mut asks) => return,
        };
        match accepted {
            Ok((tcp, peer, place)) => {
                runtime
                    .metrics
                    .cpu(Account::Accept, settle().of(Phase::Idle));
                if std::mem::take(&mut is_short) {
                    tracing::info!("clients are accepted again");
                }
                let (front, runtime, asks) = (front.clone(), runtime.clone(), runtime.asks());
                let look = Look::always(runtime.snapshot().settings.accounting.cpu);
                let life = async move {
                    let _place = place;
                    connection(tcp, peer, front, runtime, asks).await;
                };
                tokio::spawn(Metered::new(life, Phase::Handshake, look));
            }
            Err(cause) => {
                // Out of descriptors, or of memory: accept would fail again at once, and those who wait
                // in the kernel's queue lose nothing by a moment.
                if !std::mem::replace(&mut is_short, true) {
                    tracing::error!(%cause, "cannot accept clients, they wait");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(socket: &TcpListener, front: &Front) -> io::Result<(TcpStream, SocketAddr, Place)> {
    let place = front
        .limits
        .connections
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    loop {
        match socket.accept().await {
            Ok((tcp, peer)) => return Ok((tcp, canonical(peer), place)),
            // The client gave up before we came; the next one is not to suffer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

async fn leaving(asks: &mut watch::Receiver<Ask>) {
    if asks.wait_for(|ask| ask.leaving).await.is_err() {
        // The sender lives as long as the process.
        std::future::pending::<()>().await;
    }
}

/// An IPv4 client of a dual-stack socket is an IPv4 client.
fn canonical(peer: SocketAddr) -> SocketAddr {
    (peer.ip().to_canonical(), peer.port()).into()
}

async fn connection(
    tcp: TcpStream,
    peer: SocketAddr,
    front: Arc<Front>,
    runtime: Arc<Runtime>,
    asks: watch::Receiver<Ask>,
) {
    let _open = runtime.metrics.connection_accepted();
    // Boxed, and the session in it too: a future keeps room for every value that is moved through it,
    // and this one lives for hours.
    let Some((front_stream, client)) = Box::pin(arrive(tcp, peer, &front, &runtime)).await else {
        let spent = settle().of(Phase::Handshake);
        runtime.metrics.cpu(Account::Handshake, spent);
        return;
    };
    drop(front);
    match front_stream {
        Arrived::Tls(accepted, shown) => {
            let memo = Memo::over_tls(accepted.binding);
            relay::serve(
                accepted.stream,
                client,
                "https",
                memo,
                Some(shown),
                runtime,
                asks,
            )
            .await;
        }
        // Boxed, both: what only HTTP/2 needs is not to be room in everybody's future.
        Arrived::Http2(agreed) => {
            let Agreed {
                stream,
                name,
                shown,
            } = *agreed;
            Box::pin(http2::serve(
                stream,
                name,
                client,
                Some(shown),
                runtime,
                asks,
            ))
            .await;
        }
        Arrived::Plain(stream) => {
            let memo = Memo::default();
            relay::serve(stream, client, "http", memo, None, runtime, asks).await;
        }
    }
}

enum Arrived {
    Tls(Accepted<Counting<TcpStream>>, Arc<Presented>),
    Http2(Box<Agreed>),
    Plain(Counting<TcpStream>),
}

/// A connection that agreed on HTTP/2.
struct Agreed {
    stream: Box<TlsStream<Counting<TcpStream>>>,
    /// What the client asked for.
    name: Box<str>,
    shown: Arc<Presented>,
}

/// PROXY head, the client's first byte and handshake, all under one deadline. Who is silent takes nobody's place.
#[expect(clippy::disallowed_methods, reason = "a connection begins here")]
async fn arrive(
    tcp: TcpStream,
    peer: SocketAddr,
    front: &Front,
    runtime: &Runtime,
) -> Option<(Arrived, SocketAddr)> {
    let began = Instant::now();
    let mut tcp = Counting::new(tcp, runtime.metrics.unbilled(LegSide::Client));
    let mut is_crowded = false;
    let outcome = tokio::time::timeout(front.handshake_timeout, async {
        let mut client = peer;
        if front.expects_proxy_head(peer.ip()) {
            client = proxy_protocol::read(&mut tcp)
                .await?
                .map_or(peer, canonical);
        }
        let Some(tls) = front.front_tls() else {
            return Ok((Arrived::Plain(tcp), client, None));
        };
        let first = tls::begin(&mut tcp).await?;
        let places = front.limits.handshake(client.ip(), &mut is_crowded);
        let _place = places.await?;
        let by = tls.handshakes();
        let world = runtime.snapshot();
        let settings = &world.settings;
        let offers = |host: &str| settings.named(host).is_some_and(|name| name.http2);
        let (accepted, http2) = match settings.names.iter().any(|name| name.http2) {
            false => (
                tls::accept_begun(tcp, first, by.config.clone()).await?,
                None,
            ),
            true => {
                let choose = |host: &str| match offers(host) {
                    true => by.http2.clone(),
                    false => by.config.clone(),
                };
                tls::accept_by_name(tcp, first, choose).await?
            }
        };
        // A resumed handshake asks nobody: the certificate is looked at before it counts.
        let asked = by.trust.as_deref().filter(|_| !accepted.resumed);
        let shown = Presented::new(&accepted.certificates, tls.trusts(), asked);
        if shown.is_nothing() && by.trust.as_deref().is_some_and(Trust::is_required) {
            return Err(io::Error::other(rustls::Error::NoCertificatesPresented));
        }
        let (shown, resumed) = (Arc::new(shown), accepted.resumed);
        let arrived = match http2 {
            Some(name) => Arrived::Http2(Box::new(Agreed {
                stream: accepted.stream,
                name,
                shown,
            })),
            None => Arrived::Tls(accepted, shown),
        };
        Ok((arrived, client, Some(resumed)))
    })
    .await;
    let took = began.elapsed();
    match outcome {
        Ok(Ok((arrived, client, resumed))) => {
            if let Some(resumed) = resumed {
                runtime
                    .metrics
                    .handshake(HandshakeOutcome::Ok, resumed, took);
            }
            Some((arrived, client))
        }
        Ok(Err(cause)) => {
            let outcome = match why_certificate(&cause) {
                Some(why) => {
                    tracing::info!(from = %peer.ip(), why, "a client's certificate was refused in its handshake");
                    HandshakeOutcome::Certificate
                }
                None => HandshakeOutcome::Failed,
            };
            runtime.metrics.handshake(outcome, false, took);
            None
        }
        Err(_elapsed) => {
            let outcome = match is_crowded {
                true => HandshakeOutcome::Crowded,
                false => HandshakeOutcome::Timeout,
            };
            runtime.metrics.handshake(outcome, false, took);
            None
        }
    }
}

/// Why a client's certificate was refused, where that is the matter.
fn why_certificate(cause: &io::Error) -> Option<&'static str> {
    match cause.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(why) => Some(auth::certificate_words(why)),
        rustls::Error::NoCertificatesPresented => Some("no client certificate"),
        _ => None,
    }
}

/// How long a worker waits when the system has no descriptor for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<A, F>(_: fn(A) -> F) -> usize {
        size_of::<F>()
    }

    fn never<T>() -> T {
        unreachable!("only its type is looked at")
    }

    fn life(_: ()) -> impl Sized {
        connection(never(), never(), never(), never(), never())
    }

    #[test]
    fn a_connections_future_is_little_more_than_what_serves_it() {
        assert!(size_of_output(life) <= 832, "{}", size_of_output(life));
    }
}
