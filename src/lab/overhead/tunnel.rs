//! A stand-in for a relay of Outlook Anywhere: it ends TLS and copies bytes, on a thread of its own.
//!
//! The least that any front end does with channels it has let in. It does not authenticate, look at PDUs or write
//! a log: what it costs is a lower bound.

use crate::accounting::meter::thread_cpu_ns;
use anyhow::{Context as _, Result, anyhow};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// A running tunnel. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Tunnel {
    address: SocketAddr,
    questions: Option<mpsc::UnboundedSender<oneshot::Sender<u64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// Carries connections to `to`.
    ///
    /// # Errors
    /// No thread, no port.
    pub(super) async fn to(to: SocketAddr, tls: Arc<ServerConfig>) -> Result<Self> {
        let (questions, asked) = mpsc::unbounded_channel();
        let (opened, address) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("tunnel".to_owned())
            .spawn(move || runtime.block_on(run(to, tls, opened, asked)))?;
        Ok(Self {
            address: address.await.context("the tunnel")??,
            questions: Some(questions),
            thread: Some(thread),
        })
    }

    /// Where clients connect to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Processor time of its thread.
    ///
    /// # Errors
    /// It has ended.
    pub(super) async fn cpu(&self) -> Result<Duration> {
        let (answer, told) = oneshot::channel();
        let questions = self.questions.as_ref();
        questions
            .and_then(|questions| questions.send(answer).ok())
            .ok_or_else(|| anyhow!("the tunnel has ended"))?;
        Ok(Duration::from_nanos(told.await?))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ended = thread.join();
        }
    }
}

async fn run(
    to: SocketAddr,
    tls: Arc<ServerConfig>,
    opened: oneshot::Sender<std::io::Result<SocketAddr>>,
    mut questions: mpsc::UnboundedReceiver<oneshot::Sender<u64>>,
) {
    let listener = match TcpListener::bind(("127.0.0.1", 0)).await {
        Ok(listener) => listener,
        Err(cause) => return drop(opened.send(Err(cause))),
    };
    // Whoever does not wait any more does not want to know.
    let _gone = opened.send(listener.local_addr());
    let acceptor = TlsAcceptor::from(tls);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    tokio::spawn(carry(client, to, acceptor.clone()));
                }
            }
            question = questions.recv() => match question {
                Some(answer) => _ = answer.send(thread_cpu_ns()),
                None => return,
            },
        }
    }
}

async fn carry(client: TcpStream, to: SocketAddr, acceptor: TlsAcceptor) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut server, PIECE, PIECE).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Authority;
    use crate::lab::outlook::wire::{Target, dial};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_tunnel_carries_both_ways_and_its_time_grows() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(&word).await.unwrap();
        });
        let authority = Authority::new("lab").unwrap();
        let tls = authority.server_config(&["mail.contoso.test"]).unwrap();
        let tunnel = Tunnel::to(to, tls).await.unwrap();
        let before = tunnel.cpu().await.unwrap();

        let mut wire = dial(&Target {
            address: tunnel.address(),
            host: "mail.contoso.test".to_owned(),
            tls: Some(authority.client_config().unwrap()),
        })
        .await
        .unwrap();
        wire.write_all(b"mail").await.unwrap();
        let mut word = [0; 4];
        wire.read_exact(&mut word).await.unwrap();

        assert_eq!(&word, b"mail");
        assert!(tunnel.cpu().await.unwrap() > before);
    }
}
