//! What a network has carried: bytes, and the TLS records among them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes that came out of a socket on their way.
    pub bytes: u64,
    /// TLS records begun; means nothing where there is no TLS.
    pub records: u64,
}

impl Weight {
    /// What was carried since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            records: self.records.saturating_sub(earlier.records),
        }
    }
}

/// A [`Weight`] that grows while others look at it.
#[derive(Debug, Default)]
pub(super) struct Scale {
    bytes: AtomicU64,
    records: AtomicU64,
}

impl Scale {
    pub(super) fn weight(&self) -> Weight {
        Weight {
            bytes: self.bytes.load(Ordering::Acquire),
            records: self.records.load(Ordering::Acquire),
        }
    }
}

/// A socket whose reads are weighed. They count before they are passed on: whoever has got the bytes finds them
/// on the scale.
#[derive(Debug)]
pub(super) struct Weighed<S> {
    inner: S,
    scale: Arc<Scale>,
    records: Records,
}

impl<S> Weighed<S> {
    pub(super) fn new(inner: S, scale: Arc<Scale>) -> Self {
        Self {
            inner,
            scale,
            records: Records::default(),
        }
    }

    pub(super) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Weighed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, into);
        let read = into.filled().get(before..).unwrap_or_default();
        let begun = self.records.follow(read);
        self.scale.records.fetch_add(begun, Ordering::Release);
        self.scale
            .bytes
            .fetch_add(read.len() as u64, Ordering::Release);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Weighed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Bytes of a record's head: type, version, length. `[RFC8446] 5.1`
const HEAD_BYTES: usize = 5;

/// Follows the records of one direction of one connection, however they are cut into reads.
#[derive(Clone, Copy, Debug, Default)]
struct Records {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that have come.
    come: usize,
    /// Bytes of the record that have not.
    left: usize,
}

impl Records {
    /// Follows a piece; returns how many records began in it.
    fn follow(&mut self, mut piece: &[u8]) -> u64 {
        let mut begun = 0;
        while let Some((&byte, rest)) = piece.split_first() {
            if self.left > 0 {
                let taken = self.left.min(piece.len());
                self.left -= taken;
                piece = piece.get(taken..).unwrap_or_default();
                continue;
            }
            begun += u64::from(self.come == 0);
            if let Some(place) = self.head.get_mut(self.come) {
                *place = byte;
            }
            self.come += 1;
            piece = rest;
            if self.come == HEAD_BYTES {
                let [_, _, _, high, low] = self.head;
                (self.come, self.left) = (0, usize::from(u16::from_be_bytes([high, low])));
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_however_they_are_cut() {
        let mut stream = Vec::new();
        for length in [0u16, 1, 300, 16_401] {
            stream.extend([23, 3, 3]);
            stream.extend(length.to_be_bytes());
            stream.resize(stream.len() + usize::from(length), 23);
        }
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let mut records = Records::default();
            let begun: u64 = stream.chunks(step).map(|piece| records.follow(piece)).sum();
            assert_eq!(begun, 4, "in steps of {step}");
        }
    }
}
