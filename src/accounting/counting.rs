//! A stream that counts its bytes; put under TLS, it counts what is on the wire.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one leg, in both directions as we see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Bytes that came to us.
    pub received: u64,
    /// Bytes that we sent, also where a later write failed.
    pub sent: u64,
}

impl Bytes {
    /// What was carried since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            received: self.received.saturating_sub(earlier.received),
            sent: self.sent.saturating_sub(earlier.sent),
        }
    }
}

/// A stream that knows how many bytes it has carried, and for which of them somebody has been billed.
pub trait Wire {
    /// Bytes carried so far.
    fn wire(&self) -> Bytes;

    /// Takes the bytes that nobody has been billed for: the caller bills somebody. The last
    /// `read_ahead` of those received stay for the next bill.
    fn bill(&mut self, read_ahead: u64) -> Bytes;
}

/// Takes the bytes that a connection carried beside its requests, when it is gone.
pub trait Unbilled: Send + Sync + std::fmt::Debug {
    /// Books them.
    fn book(&self, bytes: Bytes);
}

/// A stream that may have bytes waiting which nobody will read any more.
pub trait Unread {
    /// Bytes that have arrived and have not been read. One system call for a socket.
    fn unread(&self) -> u64;
}

impl Unread for tokio::net::TcpStream {
    fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(self).unwrap_or(0)
    }
}

/// Counts in plain fields: only the connection's own task counts and reads. No byte is lost: what nobody
/// was billed for when it is dropped is booked with the connections.
#[derive(Debug)]
pub struct Counting<S: Unread> {
    inner: S,
    bytes: Bytes,
    billed: Bytes,
    unbilled: Option<Arc<dyn Unbilled>>,
}

impl<S: Unread> Counting<S> {
    /// Starts at zero.
    pub fn new(inner: S, unbilled: Option<Arc<dyn Unbilled>>) -> Self {
        Self {
            inner,
            bytes: Bytes::default(),
            billed: Bytes::default(),
            unbilled,
        }
    }

    /// The stream itself.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn wrote(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = outcome {
            self.bytes.sent += written as u64;
        }
        outcome
    }
}

impl<S: Unread> Wire for Counting<S> {
    fn wire(&self) -> Bytes {
        self.bytes
    }

    fn bill(&mut self, read_ahead: u64) -> Bytes {
        let due = Bytes {
            received: self.bytes.received.saturating_sub(read_ahead),
            sent: self.bytes.sent,
        };
        let bill = due.since(self.billed);
        self.billed = Bytes {
            received: self.billed.received + bill.received,
            sent: self.billed.sent + bill.sent,
        };
        bill
    }
}

impl<S: Unread> Drop for Counting<S> {
    fn drop(&mut self) {
        if let Some(unbilled) = &self.unbilled {
            // What a client sent and nobody read was carried all the same.
            self.bytes.received += self.inner.unread();
            unbilled.book(self.bytes.since(self.billed));
        }
    }
}

impl<S: Wire> Wire for tokio_rustls::client::TlsStream<S> {
    fn wire(&self) -> Bytes {
        self.get_ref().0.wire()
    }

    fn bill(&mut self, read_ahead: u64) -> Bytes {
        self.get_mut().0.bill(read_ahead)
    }
}

impl<S: Wire + ?Sized> Wire for Box<S> {
    fn wire(&self) -> Bytes {
        (**self).wire()
    }

    fn bill(&mut self, read_ahead: u64) -> Bytes {
        (**self).bill(read_ahead)
    }
}

impl<S: AsyncRead + Unread + Unpin> AsyncRead for Counting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, into);
        self.bytes.received += (into.filled().len() - before) as u64;
        outcome
    }
}

impl<S: AsyncWrite + Unread + Unpin> AsyncWrite for Counting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, from);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A TLS session hands its records over as a list, mostly of one: a plain send is the cheaper
        // system call.
        let mut full = from.iter().filter(|piece| !piece.is_empty());
        let outcome = match (full.next(), full.next()) {
            (Some(only), None) => Pin::new(&mut self.inner).poll_write(cx, only),
            _ => Pin::new(&mut self.inner).poll_write_vectored(cx, from),
        };
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    impl Unread for DuplexStream {
        fn unread(&self) -> u64 {
            0
        }
    }

    #[tokio::test]
    async fn every_byte_is_counted_once_in_its_direction() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = Counting::new(ours, None);
        let before = ours.wire();

        ours.write_all(b"hello").await.unwrap();
        theirs.write_all(b"hi").await.unwrap();
        let mut two = [0; 2];
        ours.read_exact(&mut two).await.unwrap();

        assert_eq!(
            ours.wire().since(before),
            Bytes {
                received: 2,
                sent: 5
            }
        );
    }

    #[derive(Debug, Default)]
    struct Book(parking_lot::Mutex<Vec<Bytes>>);

    impl Unbilled for Book {
        fn book(&self, bytes: Bytes) {
            self.0.lock().push(bytes);
        }
    }

    #[tokio::test]
    async fn each_byte_is_billed_once_or_booked_with_the_connection() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let book = Arc::new(Book::default());
        let mut ours = Counting::new(ours, Some(book.clone()));
        theirs.write_all(b"request, and ahead").await.unwrap();
        let mut all = [0; 18];
        ours.read_exact(&mut all).await.unwrap();

        assert_eq!(ours.bill(11).received, 7);
        assert_eq!(ours.bill(11), Bytes::default());
        assert_eq!(ours.bill(0).received, 11);
        ours.write_all(b"bye").await.unwrap();
        drop(ours);

        assert_eq!(
            *book.0.lock(),
            [Bytes {
                received: 0,
                sent: 3
            }]
        );
    }
}
