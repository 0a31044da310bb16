//! The network between clients and the front door: it can be cut, and comes back.
//!
//! A relay of bytes that knows nothing of what it carries.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod weight;

pub use weight::Weight;

use super::wire::Wire;
use weight::{Scale, Weighed};

/// Wires to one address. Dropping it cuts them for good.
#[derive(Debug)]
pub struct Network {
    address: SocketAddr,
    is_up: watch::Sender<bool>,
    books: Arc<Books>,
    acceptor: JoinHandle<()>,
}

/// What is known of all wires together.
#[derive(Debug, Default)]
struct Books {
    carried: AtomicU64,
    open: AtomicUsize,
    open_most: AtomicUsize,
    up: Arc<Scale>,
    down: Arc<Scale>,
}

impl Network {
    /// Carries connections to `to` from an address of its own.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let is_up = watch::Sender::new(true);
        let books = Arc::<Books>::default();
        let acceptor = tokio::spawn(accept(listener, to, is_up.subscribe(), Arc::clone(&books)));
        Ok(Self {
            address,
            is_up,
            books,
            acceptor,
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection at both ends, and every new one until [`Self::mend`].
    pub fn cut(&self) {
        self.is_up.send_replace(false);
    }

    /// Carries new connections again.
    pub fn mend(&self) {
        self.is_up.send_replace(true);
    }

    /// Connections carried so far.
    pub fn carried(&self) -> u64 {
        self.books.carried.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.books.open.load(Ordering::Relaxed)
    }

    /// The most that were open at once.
    pub fn open_most(&self) -> usize {
        self.books.open_most.load(Ordering::Relaxed)
    }

    /// What was carried from clients, and to them.
    pub fn weight(&self) -> (Weight, Weight) {
        (self.books.up.weight(), self.books.down.weight())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.cut();
        self.acceptor.abort();
    }
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    is_up: watch::Receiver<bool>,
    books: Arc<Books>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // No descriptors left: somebody will close some.
            tokio::task::yield_now().await;
            continue;
        };
        if *is_up.borrow() {
            books.carried.fetch_add(1, Ordering::Relaxed);
            let is_up = is_up.clone();
            let books = Arc::clone(&books);
            tokio::spawn(async move {
                let open = books.open.fetch_add(1, Ordering::Relaxed) + 1;
                books.open_most.fetch_max(open, Ordering::Relaxed);
                carry(client, to, is_up, &books).await;
                books.open.fetch_sub(1, Ordering::Relaxed);
            });
        } else {
            Wire::Plain(client).reset();
        }
    }
}

async fn carry(client: TcpStream, to: SocketAddr, mut is_up: watch::Receiver<bool>, books: &Books) {
    let Ok(server) = TcpStream::connect(to).await else {
        return Wire::Plain(client).reset();
    };
    // Small requests and answers take turns: none may wait for another's acknowledgement.
    let _best_effort = (client.set_nodelay(true), server.set_nodelay(true));
    let mut client = Weighed::new(client, Arc::clone(&books.up));
    let mut server = Weighed::new(server, Arc::clone(&books.down));
    tokio::select! {
        // However it ends, both ends are told; nobody is left to hear of it here.
        _ended = copy_bidirectional(&mut client, &mut server) => {}
        _cut = is_up.wait_for(|is_up| !is_up) => {
            Wire::Plain(client.into_inner()).reset();
            Wire::Plain(server.into_inner()).reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that answers every byte with itself.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn answers(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_a_mended_network_carries_again() {
        let network = Network::to(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(network.address()).await.unwrap();
        assert_eq!(answers(&mut stream).await.unwrap(), b'x');

        network.cut();
        assert!(stream.read_u8().await.is_err());
        let mut refused = TcpStream::connect(network.address()).await.unwrap();
        assert!(answers(&mut refused).await.is_err());
        network.mend();

        let mut again = TcpStream::connect(network.address()).await.unwrap();
        assert_eq!(answers(&mut again).await.unwrap(), b'x');
        assert_eq!(network.carried(), 2);
        assert_eq!(network.open_most(), 1);
        let (up, down) = network.weight();
        assert_eq!((up.bytes, down.bytes), (2, 2));
    }
}
