//! A stream that counts its bytes; put under TLS, it counts what is on the wire.

use std::io;
use std::pin::Pin;
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

/// A stream that knows how many bytes it has carried.
pub trait Wire {
    /// Bytes carried so far.
    fn wire(&self) -> Bytes;
}

/// Counts in plain fields: only the connection's own task counts and reads.
#[derive(Debug)]
pub struct Counting<S> {
    inner: S,
    bytes: Bytes,
}

impl<S> Counting<S> {
    /// Starts at zero.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            bytes: Bytes::default(),
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

impl<S> Wire for Counting<S> {
    fn wire(&self) -> Bytes {
        self.bytes
    }
}

impl<S: Wire> Wire for tokio_rustls::client::TlsStream<S> {
    fn wire(&self) -> Bytes {
        self.get_ref().0.wire()
    }
}

impl<S: Wire + ?Sized> Wire for Box<S> {
    fn wire(&self) -> Bytes {
        (**self).wire()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn every_byte_is_counted_once_in_its_direction() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = Counting::new(ours);
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
}
