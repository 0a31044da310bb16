//! The connection under HTTP/2, with the book kept of what goes by.

use super::book::Book;
use crate::accounting::{Bytes, Wire};
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A client's connection, tapped.
#[derive(Debug)]
pub(super) struct Tap<S: Wire> {
    /// Here until it is dropped.
    inner: Option<S>,
    /// What was on the wire before.
    before: Bytes,
    book: Arc<Book>,
    left: Left<S>,
}

/// Where a connection is left when nobody speaks HTTP/2 on it any more.
pub(super) type Left<S> = Arc<Mutex<Option<S>>>;

impl<S: Wire> Tap<S> {
    /// Of a connection of which so much is billed.
    pub(super) fn new(inner: S, before: Bytes, book: Arc<Book>, left: Left<S>) -> Self {
        Self {
            before,
            inner: Some(inner),
            book,
            left,
        }
    }

    fn wire(&self) -> Bytes {
        let now = self.inner.as_ref().map(Wire::wire);
        now.unwrap_or_default().since(self.before)
    }

    fn inner(&mut self) -> io::Result<Pin<&mut S>>
    where
        S: Unpin,
    {
        let inner = self.inner.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Pin::new(inner))
    }
}

impl<S: Wire> Drop for Tap<S> {
    fn drop(&mut self) {
        if let Some(mut inner) = self.inner.take() {
            // Billed here, so that the stream does not book it once more.
            self.book.close(inner.bill(0));
            *self.left.lock() = Some(inner);
        }
    }
}

impl<S: AsyncRead + Wire + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.book.is_flood() {
            // Whoever polls us looks at that next, and ends it.
            return Poll::Pending;
        }
        let before = into.filled().len();
        let outcome = this.inner()?.poll_read(cx, into);
        let read = into.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            this.book.received(read, this.wire(), now);
        }
        outcome
    }
}

impl<S: AsyncWrite + Wire + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let taken = ready!(this.inner()?.poll_write(cx, from))?;
        let sent = from.get(..taken).unwrap_or_default();
        this.book.sent(sent, this.wire());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.inner()?.poll_flush(cx))?;
        this.book.flushed(this.wire());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().inner()?.poll_shutdown(cx)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "when a connection is flooded is told by the clock"
)]
fn now() -> Instant {
    Instant::now()
}
